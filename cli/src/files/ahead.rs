//! A file with a position of its own and some bytes read ahead of it. Text and lines need that: where
//! a character or a line ends is known only after reading too far.

use cap_std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// What is read at least, where more than nothing is asked for.
pub(super) const BLOCK: usize = 16 * 1024;

pub(super) struct Ahead {
    file: File,
    /// The offset of the next byte for the caller. The operating system's own position is set before
    /// each use and means nothing between.
    position: u64,
    /// `bytes[used..]` is what the file holds from `position` on, as far as it was read.
    bytes: Vec<u8>,
    used: usize,
}

impl Ahead {
    pub(super) fn new(file: File) -> Self {
        Self { file, position: 0, bytes: Vec::new(), used: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The size of the file now.
    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Moves the position to where the operating system agrees that a file may have bytes.
    pub(super) fn move_to(&mut self, position: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(position))?;
        if position != self.position {
            self.forget();
            self.position = position;
        }
        Ok(())
    }

    /// Moves back to a position that was there before.
    pub(super) fn back_to(&mut self, position: u64) {
        self.forget();
        self.position = position;
    }

    /// What was read already.
    pub(super) fn ready(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Reads until `wanted` bytes are ready, or fewer where the file ends.
    pub(super) fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.ready().len() < wanted && self.more(wanted - self.ready().len())? > 0 {}
        let len = self.ready().len().min(wanted);
        Ok(&self.ready()[..len])
    }

    /// Reads some more bytes: `wanted` or a block, if the file has as many. 0 at its end.
    pub(super) fn more(&mut self, wanted: usize) -> io::Result<usize> {
        self.bytes.drain(..self.used);
        self.used = 0;
        let from = self.position.saturating_add(self.bytes.len() as u64);
        self.file.seek(SeekFrom::Start(from))?;
        let wanted = wanted.max(BLOCK) as u64;
        (&mut self.file).take(wanted).read_to_end(&mut self.bytes)
    }

    /// Hands out the next `len` bytes, which must be ready.
    pub(super) fn consume(&mut self, len: usize) -> Vec<u8> {
        self.position += len as u64;
        if self.used == 0 && len == self.bytes.len() {
            return std::mem::take(&mut self.bytes);
        }
        let taken = self.ready()[..len].to_vec();
        self.used += len;
        taken
    }

    /// Gives back the memory of what was read far ahead and is not wanted now.
    pub(super) fn trim(&mut self) {
        if self.bytes.capacity() > 4 * BLOCK {
            self.bytes.drain(..self.used);
            self.used = 0;
            self.bytes.truncate(BLOCK);
            self.bytes.shrink_to_fit();
        }
    }

    /// Writes all of `data` at the position, or at the end if `append`, and moves behind it. Where
    /// that fails halfway, the position is behind what was written.
    pub(super) fn write(&mut self, data: &[u8], append: bool) -> io::Result<()> {
        self.forget();
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut rest = data;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    rest = &rest[count..];
                    self.position += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if append {
                self.position = self.file.stream_position()?;
            }
        }
        Ok(())
    }

    pub(super) fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.forget();
        self.file.set_len(size)
    }

    fn forget(&mut self) {
        self.bytes.clear();
        self.used = 0;
    }
}
