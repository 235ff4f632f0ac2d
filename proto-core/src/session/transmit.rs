//! Output: messages are written once, in wire order, behind each other; what is only state (refusals, Finish, Release,
//! Unimplemented) becomes a message when there is room (ADM-6, ORD-1).

use core::hash::{Hash, Hasher};

use super::entry::{AnswerState, Settled};
use super::storage::{Buffer, Storage, Table};
use super::{Ended, Session};
use crate::codec::{Writer, varint_len};
use crate::message::{self, CloseCode, ErrorCode, FinishMode, Hello, Limits, Return, kind};
use crate::value::{Top, ValueError, ValueWriter};

/// Bytes of output that calls leave free, so that answers find room.
pub(super) const KEPT_FREE: usize = 64;

/// Records that have not been taken yet.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing<B> {
    buffer: B,
    start: usize,
    end: usize,
}

/// Why a record could not be appended.
pub(crate) enum AppendError {
    NoRoom,
    TooLarge(usize),
    Values(ValueError),
}

/// Writes a body; it may be run more than once.
pub(crate) type WriteBody<'w> = &'w mut dyn for<'b> FnMut(Writer<'b>) -> Result<Writer<'b>, ValueError>;

impl<B: Buffer> Outgoing<B> {
    pub fn new(limit: usize) -> Self {
        Self { buffer: B::new(limit), start: 0, end: 0 }
    }

    pub fn pending(&self) -> &[u8] {
        self.buffer.bytes().get(self.start..self.end).unwrap_or_default()
    }

    #[cfg(feature = "alloc")]
    pub fn capacity(&self) -> usize {
        self.buffer.bytes().len()
    }

    pub fn taken(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Appends a record of at most `max_body` bytes, leaving `keep_free` bytes; gives the length of its body. A message is
    /// one record, whole or not at all (MSG-4).
    pub fn append(&mut self, max_body: usize, keep_free: usize, write: WriteBody<'_>) -> Result<usize, AppendError> {
        // What could never be written is told as too large, not as a lack of room that waiting would end.
        let prefix = varint_len(max_body as u64);
        let max_body = self.buffer.limit().saturating_sub(keep_free + prefix).min(max_body);
        loop {
            let room = self.buffer.bytes().len().saturating_sub(self.end + prefix + keep_free).min(max_body);
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
            let need = self.end + prefix + length + keep_free;
            if self.start > 0 && (self.start >= self.end - self.start || !self.buffer.grow(need)) {
                self.buffer.bytes_mut().copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else if self.start == 0 && (self.buffer.bytes().len() >= need || !self.buffer.grow(need)) {
                return Err(AppendError::NoRoom);
            }
        }
    }

    /// The longest body, of at most `max_body` bytes, that can be written when all output was taken.
    pub fn longest(&self, max_body: usize, keep_free: usize) -> usize {
        self.buffer.limit().saturating_sub(keep_free + varint_len(max_body as u64)).min(max_body)
    }

    /// Makes sure that so many bytes can be appended; false if they can't now.
    fn make_room(&mut self, bytes: usize) -> bool {
        if self.buffer.bytes().len().saturating_sub(self.end) < bytes && self.start > 0 {
            self.buffer.bytes_mut().copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.buffer.grow(self.end + bytes)
    }

    /// Puts the length before a body that was written at `at`, and moves the body up to it, unless nothing stands before it.
    fn put_prefix(&mut self, at: usize, length: usize) {
        let bytes = self.buffer.bytes_mut();
        let prefix = varint_len(length as u64);
        if self.start == self.end {
            self.start = at.saturating_sub(prefix);
            self.end = self.start;
        }
        if let Some(room) = bytes.get_mut(self.end..self.end + prefix) {
            Writer::new(room).varint(length as u64);
        }
        if self.end + prefix != at {
            bytes.copy_within(at..at + length, self.end + prefix);
        }
        self.end += prefix + length;
    }
}

/// Equal if they hold the same output, wherever in the buffer it stands.
impl<B: Buffer> PartialEq for Outgoing<B> {
    fn eq(&self, other: &Self) -> bool {
        self.pending() == other.pending()
    }
}

impl<B: Buffer> Eq for Outgoing<B> {}

impl<B: Buffer> Hash for Outgoing<B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pending().hash(state);
    }
}

impl<S: Storage> Session<S> {
    /// The output that waits: whole records, in wire order. Take from its front and say how much with
    /// [`Self::transmitted`]. What is still only state is turned into records first, as far as there is room.
    pub fn transmit(&mut self) -> &[u8] {
        self.pump();
        self.out.pending()
    }

    /// So many bytes of what [`Self::transmit`] gave were taken.
    pub fn transmitted(&mut self, count: usize) {
        self.out.taken(count);
    }

    /// Copies output into `buffer` and tells how much: [`Self::transmit`] and [`Self::transmitted`] in one.
    pub fn poll_transmit(&mut self, buffer: &mut [u8]) -> usize {
        let pending = self.transmit();
        let count = pending.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), pending.get(..count)) {
            to.copy_from_slice(from);
        }
        self.transmitted(count);
        count
    }

    /// Takes all output by exchanging buffers, so that nothing is copied: it stands in `buffer` at the place that this tells.
    /// What was in `buffer` is lost, its memory is used on; without output it is left alone.
    #[cfg(feature = "alloc")]
    pub fn swap_output(&mut self, buffer: &mut alloc::vec::Vec<u8>) -> core::ops::Range<usize>
    where
        S: Storage<Out = super::GrowingBuffer>,
    {
        self.pump();
        let taken = self.out.start..self.out.end;
        if !taken.is_empty() {
            self.out.buffer.swap(buffer);
            (self.out.start, self.out.end) = (0, 0);
        }
        taken
    }

    /// Whether [`Self::transmit`] has something to give, or would have with room for it. What is not written yet tells the
    /// peer that something is over; nobody waits for it.
    pub fn has_output(&self) -> bool {
        let due = [self.refused, self.finishing, self.marked].iter().any(|list| list.first().is_some());
        self.output_len() > 0 || self.close_due || self.peer.is_some() && (due || self.unknown_kinds != 0)
    }

    /// Output that has been written and not been taken, bytes.
    pub fn output_len(&self) -> usize {
        self.out.pending().len()
    }

    /// Bytes of output that could still be written before some are taken.
    pub fn room(&self) -> usize {
        self.out.buffer.limit().saturating_sub(self.output_len())
    }

    pub(super) fn write_hello(&mut self, hello: Hello) {
        let _ = self.out.append(Hello::MAX_LENGTH, 0, &mut |mut writer| {
            hello.write(&mut writer);
            Ok(writer)
        });
    }

    /// Ends the session from this side, with a Close if one is due (CLS-1).
    pub(super) fn end(&mut self, ended: Ended) {
        if self.ended.is_none() {
            self.ended = Some(ended);
            self.close_due = !matches!(ended, Ended::LinkLost | Ended::PeerClosed(_));
        }
    }

    /// Appends a sequenced message and gives its length; a call leaves room for answers.
    pub(super) fn append(&mut self, is_call: bool, write: WriteBody<'_>) -> Result<usize, AppendError> {
        let max = self.peer_limits().max_message as usize;
        let keep_free = if is_call { KEPT_FREE } else { 0 };
        let length = self.out.append(max, keep_free, write)?;
        self.sent += 1;
        Ok(length)
    }

    /// Turns state into messages, as far as there is room.
    fn pump(&mut self) {
        if self.ended.is_some() {
            self.pump_close();
        } else if self.peer.is_some() {
            let _ = self.pump_unimplemented() && self.pump_refusals() && self.pump_finishes() && self.pump_releases();
        }
    }

    fn pump_close(&mut self) {
        let (true, Some(ended)) = (self.close_due, self.ended) else {
            return;
        };
        let (code, rule, text) = match ended {
            Ended::PeerFault(rule) => (CloseCode::ProtocolFault, rule.id(), rule.text()),
            Ended::NoCommonVersion => (CloseCode::NoCommonVersion, "HEL-2", ""),
            Ended::Closed(code) => (code, "", ""),
            Ended::PeerClosed(_) | Ended::LinkLost => return,
        };
        let max = self.peer.map_or(Limits::MIN_MESSAGE, |peer| peer.limits.max_message) as usize;
        let mut append = |text: &str| {
            self.out.append(max, 0, &mut |mut writer| {
                writer.byte(kind::CLOSE);
                writer.varint(code.number());
                writer.blob(rule.as_bytes());
                writer.blob(text.as_bytes());
                Ok(writer)
            })
        };
        // The text is left out where the peer's messages are too short for it (CLS-1).
        let written = match append(text) {
            Err(AppendError::TooLarge(_)) => append(""),
            written => written,
        };
        self.close_due = written.is_err();
    }

    fn pump_unimplemented(&mut self) -> bool {
        let kinds = self.unknown_kinds;
        if kinds != 0 {
            let written = self.append(false, &mut |mut writer| {
                writer.byte(kind::UNIMPLEMENTED);
                writer.varint(kinds.into());
                Ok(writer)
            });
            if written.is_err() {
                return false;
            }
            self.unknown_kinds = 0;
        }
        true
    }

    fn pump_refusals(&mut self) -> bool {
        while let Some(id) = self.refused.first() {
            let Some(AnswerState::Refused(code, detail)) = self.answers.get(id).map(|answer| answer.state) else {
                self.unlist_refused();
                continue;
            };
            let written = self.append(false, &mut |mut writer| {
                Return::write_head(&mut writer, id as u16, Some(code), 0, |_| {});
                let mut values = ValueWriter::new(writer, Top::Error, 0);
                match code {
                    ErrorCode::ResultTooLarge
                    | ErrorCode::Broken
                    | ErrorCode::NoSuchMember
                    | ErrorCode::Unsupported => {
                        values.uint(detail)?;
                    }
                    ErrorCode::Cancelled => values.bool(detail != 0)?,
                    _ => {}
                }
                values.finish()
            });
            if written.is_err() {
                return false;
            }
            self.unlist_refused();
            self.settle(id as u16, Settled::Failed(code));
        }
        true
    }

    fn unlist_refused(&mut self) {
        if let Some(id) = self.refused.pop(&mut self.answers)
            && let Some(answer) = self.answers.get_mut(id)
        {
            answer.listed = false;
        }
    }

    /// Finishes that are due, many in one message (FIN-1).
    fn pump_finishes(&mut self) -> bool {
        while self.finishing.first().is_some() {
            let most = self.batch(FINISH_ENTRY);
            if most == 0 || !self.out.make_room(SMALL_MESSAGE + most * FINISH_ENTRY) {
                return false;
            }
            let mut batch = [(0u16, FinishMode::Done); MAX_BATCH];
            let mut count = 0;
            while let Some(entry) = batch.get_mut(count).filter(|_| count < most) {
                let Some(id) = self.finishing.pop(&mut self.questions) else { break };
                let Some(question) = self.questions.get_mut(id) else { continue };
                question.listed = false;
                // Not due any more: the call came back before its cancel went out.
                let Some(mode) = question.due.take() else {
                    self.free_question(id as u16);
                    continue;
                };
                question.finished = true;
                *entry = (id as u16, mode);
                count += 1;
            }
            let batch = batch.get(..count).unwrap_or_default();
            if !batch.is_empty() {
                let _ = self.append(false, &mut |mut writer| {
                    writer.byte(kind::FINISH);
                    batch.iter().for_each(|&(id, mode)| message::write_finish_entry(&mut writer, id, mode));
                    Ok(writer)
                });
            }
            batch.iter().for_each(|&(id, _)| self.free_question(id));
        }
        true
    }

    /// Marked imports leave the table and are released, many in one message (REL-1).
    fn pump_releases(&mut self) -> bool {
        let upto = self.received as u32;
        while self.marked.first().is_some() {
            let most = self.batch(RELEASE_ENTRY);
            if most == 0 || !self.out.make_room(SMALL_MESSAGE + most * RELEASE_ENTRY) {
                return false;
            }
            let mut batch = [(0u32, 0u16); MAX_BATCH];
            let mut count = 0;
            while let Some(entry) = batch.get_mut(count).filter(|_| count < most) {
                let Some(slot) = self.marked.pop(&mut self.imports) else { break };
                let Some(import) = self.imports.get_mut(slot) else { continue };
                import.listed = false;
                // A descriptor that came since has cleared the mark.
                if !import.live || import.holds > 0 {
                    continue;
                }
                *entry = (slot, import.generation);
                *import = Default::default();
                self.live_imports -= 1;
                count += 1;
            }
            let batch = batch.get(..count).unwrap_or_default();
            if !batch.is_empty() {
                let _ = self.append(false, &mut |mut writer| {
                    writer.byte(kind::RELEASE);
                    writer.varint(upto.into());
                    batch.iter().for_each(|&(slot, generation)| {
                        message::write_release_entry(&mut writer, slot, generation);
                    });
                    Ok(writer)
                });
            }
        }
        true
    }

    /// How many entries of at most so many bytes fit one message to the peer, and the output as it is now.
    fn batch(&self, entry: usize) -> usize {
        let room = self.room().min(self.peer_limits().max_message as usize);
        (room.saturating_sub(SMALL_MESSAGE) / entry).min(MAX_BATCH)
    }
}

/// Entries of Finish and Release in one message.
const MAX_BATCH: usize = 32;
/// The longest entry of a Finish and of a Release, and what stands before the entries, bytes.
const FINISH_ENTRY: usize = 3;
const RELEASE_ENTRY: usize = 8;
const SMALL_MESSAGE: usize = 12;
