//! A file that is open.

use super::ahead::Ahead;
use super::error::FileError;
use super::mode::{Access, Mode};
use cap_std::fs::File;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file that is open. Threads may share it: each call is done as a whole.
///
/// Text is strict UTF-8, newlines stay as they are, and positions count bytes in both modes. What is
/// larger than the limit that a call states is refused before anything changed.
pub struct OpenFile {
    path: String,
    mode: Mode,
    /// Nothing once it is closed.
    open: Mutex<Option<Ahead>>,
}

/// What a file holds, by its mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// From a file in binary mode.
    Bytes(Vec<u8>),
    /// From a file in text mode.
    Text(String),
}

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataRef<'a> {
    /// Into a file in binary mode.
    Bytes(&'a [u8]),
    /// Into a file in text mode.
    Text(&'a str),
}

/// Where the next line ends.
enum NextLine {
    /// After so many bytes, its newline (if it has one) included.
    Ends(usize),
    /// There is none.
    None,
    /// Not within the limit.
    TooLong,
}

impl OpenFile {
    pub(super) fn new(file: File, mode: Mode, path: &str) -> Result<Self, FileError> {
        let mut ahead = Ahead::new(file);
        if mode.access == Access::Append {
            let moved = ahead.size().and_then(|end| ahead.move_to(end));
            moved.map_err(|error| FileError::from_io(&error, path))?;
        }
        Ok(Self { path: path.to_owned(), mode, open: Mutex::new(Some(ahead)) })
    }

    /// Reads up to `count` characters (bytes in binary mode), or up to the end. Less than `count`
    /// means that the file ended. More than `limit` bytes are refused.
    pub fn read(&self, count: Option<u64>, limit: usize) -> Result<Data, FileError> {
        self.with_readable(|file| {
            let result =
                if self.mode.binary { self.read_bytes(file, count, limit) } else { self.read_text(file, count, limit) };
            file.trim();
            result
        })
    }

    /// Reads up to and including the next newline; nothing at the end of the file. A line of more
    /// than `limit` bytes is refused.
    pub fn next_line(&self, limit: usize) -> Result<Option<Data>, FileError> {
        Ok(self.lines(1, limit)?.pop())
    }

    /// Reads up to `max_count` lines that together have up to `max_bytes` bytes; none at the end of
    /// the file. A fault behind the first line (a line too long, or not UTF-8) ends the batch, and
    /// the next call meets it again.
    pub fn lines(&self, max_count: usize, max_bytes: usize) -> Result<Vec<Data>, FileError> {
        self.with_readable(|file| {
            let mut lines = Vec::new();
            let mut room = max_bytes;
            while lines.len() < max_count {
                match self.line(file, room) {
                    Ok(Some((line, size))) => {
                        room -= size;
                        lines.push(line);
                    }
                    Ok(None) => break,
                    Err(_) if !lines.is_empty() => break,
                    Err(error) => {
                        file.trim();
                        return Err(error);
                    }
                }
            }
            file.trim();
            Ok(lines)
        })
    }

    /// Writes all of `data` and returns how many characters (bytes in binary mode) that were.
    pub fn write(&self, data: DataRef<'_>) -> Result<u64, FileError> {
        self.with_writable(|file| {
            let (bytes, count) = match (data, self.mode.binary) {
                (DataRef::Bytes(bytes), true) => (bytes, bytes.len()),
                (DataRef::Text(text), false) => (text.as_bytes(), text.chars().count()),
                (DataRef::Text(_), true) => {
                    let message = "a bytes-like object is required, not 'str'";
                    return Err(FileError::Type(message));
                }
                (DataRef::Bytes(_), false) => {
                    let message = "write() argument must be str, not bytes";
                    return Err(FileError::Type(message));
                }
            };
            self.io(file.write(bytes, self.mode.access == Access::Append))?;
            Ok(count as u64)
        })
    }

    /// Moves the position to `offset` bytes from the start (`whence` 0), the position (1) or the end
    /// (2), and returns it. Behind the end is allowed.
    pub fn seek(&self, offset: i64, whence: i64) -> Result<u64, FileError> {
        self.with_open(|file| {
            let base = match whence {
                0 => 0,
                1 => file.position(),
                2 => self.io(file.size())?,
                _ => {
                    let message = format!("whence value {whence} unsupported");
                    return Err(FileError::Value(message));
                }
            };
            // File offsets are signed for the operating system.
            let position = i64::try_from(i128::from(base) + i128::from(offset)).ok();
            let position = position.and_then(|position| u64::try_from(position).ok());
            let position = position.ok_or_else(|| FileError::invalid_argument(&self.path))?;
            self.io(file.move_to(position))?;
            Ok(position)
        })
    }

    /// The position, in bytes from the start.
    pub fn tell(&self) -> Result<u64, FileError> {
        self.with_open(|file| Ok(file.position()))
    }

    /// Cuts or extends the file to `size` bytes, or to the position, and returns the size. The
    /// position stays.
    pub fn truncate(&self, size: Option<u64>) -> Result<u64, FileError> {
        self.with_writable(|file| {
            let size = size.unwrap_or(file.position());
            self.io(file.set_size(size))?;
            Ok(size)
        })
    }

    /// Does nothing, as every write is handed to the operating system at once.
    pub fn flush(&self) -> Result<(), FileError> {
        self.with_open(|_| Ok(()))
    }

    /// Closes the file. From then on everything but this is an error.
    pub fn close(&self) {
        *self.lock() = None;
    }

    /// Whether the file is closed.
    pub fn is_closed(&self) -> bool {
        self.lock().is_none()
    }

    /// The path that the file was opened by.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The mode that the file was opened in.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    fn read_bytes(&self, file: &mut Ahead, count: Option<u64>, limit: usize) -> Result<Data, FileError> {
        let left = self.io(file.size())?.saturating_sub(file.position());
        let size = count.map_or(left, |count| count.min(left));
        if size > limit as u64 {
            return Err(self.too_large(&format!("{size} bytes"), limit, limit));
        }
        // The file may have more than its stated size: it grows, or is one of those that have none.
        let wanted = count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        let wanted = wanted.min(limit.saturating_add(1));
        let len = self.io(file.peek(wanted))?.len();
        if len > limit {
            return Err(self.too_large(&format!("more than {limit} bytes"), limit, limit));
        }
        Ok(Data::Bytes(file.consume(len)))
    }

    fn read_text(&self, file: &mut Ahead, count: Option<u64>, limit: usize) -> Result<Data, FileError> {
        /// Bytes of the longest character.
        const LONGEST: usize = 4;

        if count.is_none() {
            let left = self.io(file.size())?.saturating_sub(file.position());
            if left > limit as u64 {
                return Err(self.too_large(&format!("{left} bytes"), limit, limit / LONGEST));
            }
        }
        let count = count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        // Enough either for all the characters, or to have seen that they are above the limit
        // although the last one in sight may be cut.
        let wanted = count.saturating_mul(LONGEST).min(limit.saturating_add(LONGEST));
        let at = file.position();
        let bytes = self.io(file.peek(wanted))?;
        let ended = bytes.len() < wanted;
        let (text, fault) = match str::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                let cut = error.error_len().is_none() && !ended;
                let fault = (!cut).then(|| {
                    let at = at + valid.len() as u64;
                    FileError::decode(rest, error.error_len(), at, &self.path)
                });
                (str::from_utf8(valid).unwrap_or_default(), fault)
            }
        };
        let len = match (text.char_indices().nth(count), fault) {
            (Some((end, _)), _) => end,
            (None, Some(fault)) if text.chars().count() < count => return Err(fault),
            (None, _) => text.len(),
        };
        if len > limit {
            return Err(self.too_large(&format!("more than {limit} bytes"), limit, limit / LONGEST));
        }
        self.text(file, len)
    }

    /// The next line and its size in bytes.
    fn line(&self, file: &mut Ahead, limit: usize) -> Result<Option<(Data, usize)>, FileError> {
        let len = match self.io(find_line(file, limit))? {
            NextLine::Ends(len) => len,
            NextLine::None => return Ok(None),
            NextLine::TooLong => {
                let part = if self.mode.binary { limit } else { limit / 4 };
                return Err(self.too_large(&format!("a line of more than {limit} bytes"), limit, part));
            }
        };
        let line = if self.mode.binary { Data::Bytes(file.consume(len)) } else { self.text(file, len)? };
        Ok(Some((line, len)))
    }

    /// Hands out the next `len` bytes, which must be ready. The position stays if they are not UTF-8.
    fn text(&self, file: &mut Ahead, len: usize) -> Result<Data, FileError> {
        let start = file.position();
        match String::from_utf8(file.consume(len)) {
            Ok(text) => Ok(Data::Text(text)),
            Err(error) => {
                file.back_to(start);
                let fault = error.utf8_error();
                let valid = fault.valid_up_to();
                Err(FileError::decode(&error.as_bytes()[valid..], fault.error_len(), start + valid as u64, &self.path))
            }
        }
    }

    fn with_readable<T>(&self, action: impl FnOnce(&mut Ahead) -> Result<T, FileError>) -> Result<T, FileError> {
        self.with_open(|file| match self.mode.reads() {
            true => action(file),
            false => Err(FileError::Unsupported("not readable")),
        })
    }

    fn with_writable<T>(&self, action: impl FnOnce(&mut Ahead) -> Result<T, FileError>) -> Result<T, FileError> {
        self.with_open(|file| match self.mode.writes() {
            true => action(file),
            false => Err(FileError::Unsupported("not writable")),
        })
    }

    fn with_open<T>(&self, action: impl FnOnce(&mut Ahead) -> Result<T, FileError>) -> Result<T, FileError> {
        match self.lock().as_mut() {
            Some(file) => action(file),
            None => Err(FileError::closed()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ahead>> {
        // No step in between leaves the file wrong for the next caller.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn too_large(&self, what: &str, limit: usize, part: usize) -> FileError {
        let message =
            format!("{what} cannot be read at once, the limit is {limit}; read in parts, as with read({part})");
        FileError::too_large(message, &self.path)
    }

    fn io<T>(&self, result: io::Result<T>) -> Result<T, FileError> {
        result.map_err(|error| FileError::from_io(&error, &self.path))
    }
}

fn find_line(file: &mut Ahead, limit: usize) -> io::Result<NextLine> {
    let mut searched = 0;
    loop {
        let ready = file.ready();
        if let Some(at) = ready[searched..].iter().position(|&byte| byte == b'\n') {
            let len = searched + at + 1;
            return Ok(match len > limit {
                true => NextLine::TooLong,
                false => NextLine::Ends(len),
            });
        }
        searched = ready.len();
        if searched > limit {
            return Ok(NextLine::TooLong);
        }
        if file.more(0)? == 0 {
            return Ok(match searched {
                0 => NextLine::None,
                len => NextLine::Ends(len),
            });
        }
    }
}
