//! Output, and what of it is kept until the peer has acknowledged it: one run of bytes.
//!
//! ```text
//!            start            whole    next                end
//!   ───────────┼────────────────┼────────┼──────────────────┼────────────
//!     free     │ transmitted,   │ partly │ to be            │  free
//!              │ kept           │        │ transmitted      │
//! ```

use core::hash::{Hash, Hasher};

use super::storage::{Blank, Buffer};
use crate::codec::{Reader, Writer, move_down, varint_len};
use crate::message::Message;
use crate::value::ValueError;

/// Records in the order of the wire.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing<B> {
    buffer: B,
    /// Bytes that may be kept or wait.
    limit: usize,
    /// Whether what was transmitted is kept until it is acknowledged.
    keeps: bool,
    start: usize,
    /// The record that is transmitted in part, or the next one.
    whole: usize,
    next: usize,
    end: usize,
    /// Sequenced records that are kept, and that are still to be transmitted.
    kept: u32,
    unsent: u32,
    /// How many of these the peer may have got all the same, after [`Self::go_back`].
    again: u32,
}

/// Why a record could not be appended.
pub(crate) enum AppendError {
    NoRoom,
    TooLarge(usize),
    Values(ValueError),
}

/// Writes a body; it may be run more than once.
pub(crate) type WriteBody<'w> = &'w mut dyn for<'b> FnMut(Writer<'b>) -> Result<Writer<'b>, ValueError>;

impl<B: Buffer> Blank for Outgoing<B> {
    const BLANK: Self = Self {
        buffer: B::BLANK,
        limit: 0,
        keeps: false,
        start: 0,
        whole: 0,
        next: 0,
        end: 0,
        kept: 0,
        unsent: 0,
        again: 0,
    };
}

impl<B: Buffer> Outgoing<B> {
    /// If it keeps records, a buffer that can grow has room for twice what may be kept, so that it is not moved to the front
    /// each time that a record is appended.
    pub fn begin(&mut self, limit: usize, keeps: bool) {
        self.buffer.set_limit(if keeps { limit.saturating_mul(2) } else { limit });
        self.limit = limit.min(self.buffer.limit());
        self.keeps = keeps;
    }

    /// Bytes that may be kept or wait.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that are kept or wait.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// What is to be transmitted.
    pub fn pending(&self) -> &[u8] {
        self.buffer.bytes().get(self.next..self.end).unwrap_or_default()
    }

    /// Whether what is transmitted next begins a record.
    pub fn is_between_records(&self) -> bool {
        self.whole == self.next
    }

    #[cfg(feature = "alloc")]
    pub fn capacity(&self) -> usize {
        self.buffer.bytes().len()
    }

    /// So many bytes of what is pending were transmitted.
    pub fn taken(&mut self, count: usize) {
        self.next = self.next.saturating_add(count).min(self.end);
        if self.next == self.end {
            self.whole = self.end;
            self.note_transmitted(self.unsent);
        }
        while self.whole < self.next
            && let Some((body, end)) = self.record_at(self.whole)
            && end <= self.next
        {
            let count = u32::from(Message::is_sequenced(body));
            self.whole = end;
            self.note_transmitted(count);
        }
        if !self.keeps {
            self.forget();
        }
    }

    /// So many sequenced records more were transmitted whole.
    fn note_transmitted(&mut self, count: u32) {
        self.kept += count;
        self.unsent -= count;
        self.again = self.again.saturating_sub(count);
    }

    /// From now on what is transmitted is not kept.
    pub fn forget(&mut self) {
        self.keeps = false;
        (self.start, self.kept) = (self.whole, 0);
        self.settle();
    }

    /// The first so many sequenced records that are kept, and Hello, need not be.
    pub fn acknowledge(&mut self, mut count: u32) {
        while self.start < self.whole
            && let Some((body, end)) = self.record_at(self.start)
        {
            if Message::is_sequenced(body) {
                if count == 0 {
                    break;
                }
                count -= 1;
                self.kept -= 1;
            }
            self.start = end;
        }
        self.settle();
    }

    /// So many of those that are kept need not be, whether they were transmitted again or not.
    pub fn forget_first(&mut self, count: u64) {
        for _ in 0..count {
            let Some((body, end)) = self.record_at(self.start) else { break };
            let count = u32::from(Message::is_sequenced(body));
            if self.start >= self.whole {
                self.note_transmitted(count);
            }
            self.kept -= count;
            self.start = end;
            if self.start > self.whole {
                (self.whole, self.next) = (self.start, self.start);
            }
        }
        self.settle();
    }

    /// All that is kept is to be transmitted again: the peer has not got it.
    pub fn rewind(&mut self) {
        self.go_back();
        self.again = 0;
    }

    /// All that is kept is to be transmitted again: the peer may have got it, or not.
    pub fn go_back(&mut self) {
        (self.whole, self.next) = (self.start, self.start);
        self.again += self.kept;
        self.unsent += core::mem::take(&mut self.kept);
    }

    /// Sequenced records that are still to be transmitted, the first time or again.
    pub fn unsent(&self) -> u32 {
        self.unsent
    }

    /// Sequenced records that were transmitted and are kept.
    pub fn kept(&self) -> u32 {
        self.kept
    }

    /// Sequenced records that the peer cannot have got.
    pub fn unreached(&self) -> u32 {
        self.unsent - self.again
    }

    /// Whether something was transmitted and is kept.
    pub fn keeps_some(&self) -> bool {
        self.start < self.whole
    }

    /// The next record to be transmitted.
    pub fn next_record(&self) -> Option<&[u8]> {
        self.record_at(self.whole).map(|(body, _)| body)
    }

    /// That record was transmitted.
    pub fn taken_record(&mut self) {
        if let Some((_, end)) = self.record_at(self.whole) {
            self.taken(end - self.next);
        }
    }

    /// The body of the record at that place, and where it ends.
    fn record_at(&self, at: usize) -> Option<(&[u8], usize)> {
        // A record is a length and so many bytes (FRM-2), which were written here.
        let mut reader = Reader::new(self.buffer.bytes().get(at..self.end)?);
        let body = reader.blob();
        reader.check().ok().map(|()| (body, self.end - reader.rest().len()))
    }

    /// Appends a record of at most `max_body` bytes, leaving `keep_free` bytes; gives the length of its body. A message is
    /// one record, whole or not at all (MSG-4).
    pub fn append(&mut self, max_body: usize, keep_free: usize, write: WriteBody<'_>) -> Result<usize, AppendError> {
        // What could never be written is told as too large, not as a lack of room that waiting would end.
        let prefix = varint_len(max_body as u64);
        let max_body = self.longest(max_body, keep_free);
        loop {
            let allowed = self.limit.saturating_sub(self.len());
            let there = self.buffer.bytes().len().saturating_sub(self.end);
            let room = allowed.min(there).saturating_sub(prefix + keep_free).min(max_body);
            let at = self.end + prefix;
            let body = self.buffer.bytes_mut().get_mut(at..at + room).unwrap_or_default();
            let writer = write(Writer::new(body)).map_err(AppendError::Values)?;
            let (length, fits) = (writer.len(), writer.fits());
            if length > max_body {
                return Err(AppendError::TooLarge(length));
            }
            if fits {
                self.put_prefix(at, length);
                return Ok(length);
            }
            let need = prefix + length + keep_free;
            if need > allowed {
                return Err(AppendError::NoRoom);
            }
            if self.start > 0 && (self.start >= self.len() || !self.buffer.grow(self.end + need)) {
                self.move_to_front();
            } else if self.start == 0 && (there >= need || !self.buffer.grow(self.end + need)) {
                return Err(AppendError::NoRoom);
            }
        }
    }

    /// Appends a record that is written.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn put(&mut self, max_body: usize, message: &Writer<'_>) -> Result<usize, AppendError> {
        let body = message.written().unwrap_or_default();
        self.append(max_body, 0, &mut |mut writer| {
            writer.put(body);
            Ok(writer)
        })
    }

    /// The longest body, of at most `max_body` bytes, that can be written when nothing is kept and nothing waits.
    pub fn longest(&self, max_body: usize, keep_free: usize) -> usize {
        self.limit.saturating_sub(keep_free + varint_len(max_body as u64)).min(max_body)
    }

    /// Makes sure that so many bytes can be appended; false if they can't now.
    pub fn make_room(&mut self, bytes: usize) -> bool {
        if bytes > self.limit.saturating_sub(self.len()) {
            return false;
        }
        if self.buffer.bytes().len().saturating_sub(self.end) < bytes && self.start > 0 {
            self.move_to_front();
        }
        self.buffer.grow(self.end + bytes)
    }

    fn move_to_front(&mut self) {
        move_down(self.buffer.bytes_mut(), self.start, self.end, 0);
        self.whole -= self.start;
        self.next -= self.start;
        self.end -= self.start;
        self.start = 0;
    }

    /// Without any bytes the next record may stand at the front.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    fn settle(&mut self) {
        if self.start == self.end {
            (self.start, self.whole, self.next, self.end) = (0, 0, 0, 0);
        }
    }

    /// Puts the length before a body that was written at `at`, and moves the body up to it, unless nothing stands before it.
    fn put_prefix(&mut self, at: usize, length: usize) {
        let bytes = self.buffer.bytes_mut();
        let prefix = varint_len(length as u64);
        if self.start == self.end {
            self.end = at.saturating_sub(prefix);
            (self.start, self.whole, self.next) = (self.end, self.end, self.end);
        }
        if let Some(room) = bytes.get_mut(self.end..self.end + prefix) {
            Writer::new(room).varint(length as u64);
        }
        if self.end + prefix != at {
            move_down(bytes, at, at + length, self.end + prefix);
        }
        let body = bytes.get(self.end + prefix..).unwrap_or_default();
        self.unsent += u32::from(Message::is_sequenced(body));
        self.end += prefix + length;
    }
}

#[cfg(feature = "alloc")]
impl Outgoing<super::GrowingBuffer> {
    /// Takes all that is pending: by exchanging buffers, or as a copy if it is to be kept. Tells where it stands in `other`.
    pub fn swap(&mut self, other: &mut alloc::vec::Vec<u8>, first: &[u8]) -> core::ops::Range<usize> {
        if !self.keeps && first.is_empty() {
            let taken = self.next..self.end;
            if !taken.is_empty() {
                self.buffer.swap(other);
                (self.start, self.end) = (0, 0);
                (self.unsent, self.again) = (0, 0);
                self.settle();
            }
            return taken;
        }
        other.clear();
        other.extend_from_slice(first);
        other.extend_from_slice(self.pending());
        self.taken(usize::MAX);
        0..other.len()
    }
}

/// Equal if they hold the same output, wherever in the buffer it stands.
impl<B: Buffer> PartialEq for Outgoing<B> {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl<B: Buffer> Eq for Outgoing<B> {}

impl<B: Buffer> Hash for Outgoing<B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

impl<B: Buffer> Outgoing<B> {
    fn parts(&self) -> (&[u8], usize, usize, bool) {
        let kept = self.buffer.bytes().get(self.start..self.end).unwrap_or_default();
        (kept, self.whole - self.start, self.next - self.start, self.keeps)
    }
}
