//! Output: messages are written once, in wire order, behind each other; what is only state (refusals, Finish, Release,
//! Unimplemented) becomes a message when there is room (ADM-6, ORD-1).

use super::entry::{Fate, Stage};
use super::outgoing::AppendError;
use super::storage::{Blank, Parts, Storage, Table};
use super::{Ended, Session};
use crate::codec::Writer;
use crate::message::{self, CloseCode, ErrorCode, Hello, Limits, Return, kind};
use crate::value::{Top, ValueWriter};

/// Bytes of output that calls leave free, so that answers find room.
pub(super) const KEPT_FREE: usize = 64;

impl<S: Storage> Session<S> {
    /// Output that waits: whole records, in wire order. Take from its front and say how much with [`Self::transmitted`].
    /// What is still only state is turned into records first, as far as there is room. If the session has a link there may
    /// be more behind it: ask again until there is none.
    pub fn transmit(&mut self) -> &[u8] {
        self.pump();
        if self.pump_control() { self.link.control() } else { self.sendable() }
    }

    /// So many bytes of what [`Self::transmit`] gave were taken.
    pub fn transmitted(&mut self, count: usize) {
        self.time.said |= count > 0 && self.has_output();
        if S::Parts::RESUMES && self.out.is_between_records() && !self.link.control().is_empty() {
            self.link.control_taken(count);
        } else if !self.sendable().is_empty() {
            self.out.taken(count);
        }
    }

    fn sendable(&self) -> &[u8] {
        if self.link.is_silent() { &[] } else { self.out.pending() }
    }

    /// Copies output into `buffer` and tells how much: [`Self::transmit`] and [`Self::transmitted`] in one.
    pub fn poll_transmit(&mut self, buffer: &mut [u8]) -> usize {
        let mut total = 0;
        loop {
            let free = buffer.get_mut(total..).unwrap_or_default();
            let pending = self.transmit();
            let count = pending.len().min(free.len());
            if count == 0 {
                return total;
            }
            if let (Some(to), Some(from)) = (free.get_mut(..count), pending.get(..count)) {
                to.copy_from_slice(from);
            }
            self.transmitted(count);
            total += count;
        }
    }

    /// Takes all output by exchanging buffers, so that nothing is copied but what is to be kept until it is acknowledged: it
    /// stands in `buffer` at the place that this tells. What was in `buffer` is lost, its memory is used on; without output
    /// it is left alone.
    #[cfg(feature = "alloc")]
    pub fn swap_output(&mut self, buffer: &mut alloc::vec::Vec<u8>) -> core::ops::Range<usize>
    where
        S: Storage<Out = super::GrowingBuffer>,
    {
        self.pump();
        let taken = match (self.pump_control(), self.link.is_silent()) {
            (false, true) => 0..0,
            (true, true) => {
                buffer.clear();
                buffer.extend_from_slice(self.link.control());
                0..buffer.len()
            }
            (_, false) => self.out.swap(buffer, self.link.control()),
        };
        self.link.control_taken(usize::MAX);
        self.time.said |= !taken.is_empty();
        taken
    }

    /// Whether [`Self::transmit`] has something to give, or would have with room for it. What is not written yet tells the
    /// peer that something is over; nobody waits for it.
    pub fn has_output(&self) -> bool {
        let due = self.lists_are_due() || self.unknown_kinds != 0;
        let due = due && !self.is_said() || self.time.ping_due || self.goodbye_due();
        let of_link = self.link.has_control();
        self.output_len() > 0 || of_link || self.close_due || self.peer().is_some() && self.ended.is_none() && due
    }

    /// Whether refusals, Finishes, Releases or Downs are to be written.
    pub(super) fn lists_are_due(&self) -> bool {
        !(self.refused.is_empty() && self.finishing.is_empty() && self.marked.is_empty() && self.downs.is_empty())
    }

    /// Output that has been written and not been taken, bytes.
    pub fn output_len(&self) -> usize {
        self.sendable().len()
    }

    /// Bytes of output that could still be written before some are taken.
    pub fn room(&self) -> usize {
        self.out.limit().saturating_sub(self.out.len())
    }

    pub(super) fn write_hello(&mut self, hello: Hello) {
        let mut bytes = [0; HELLO];
        let mut writer = Writer::new(&mut bytes);
        hello.write(&mut writer);
        let _ = self.out.put(Hello::MAX_LENGTH, &writer);
    }

    /// Ends the session from this side, with a Close if one is due (CLS-1).
    pub(crate) fn end(&mut self, ended: Ended) {
        if self.ended.is_none() {
            self.ended = Some(ended);
            self.close_due = !matches!(
                ended,
                Ended::LinkLost
                    | Ended::PeerClosed(_)
                    | Ended::SessionGone
                    | Ended::PeerRestarted
                    | Ended::Silent
                    | Ended::Done
            );
            self.undelivered = self.out.unreached();
            // Nothing will be asked for again: what was kept makes room for the Close.
            if !self.is_on_line() {
                self.out.forget();
            }
        }
    }

    /// Appends a sequenced message that is written; false if there is no room.
    fn append(&mut self, message: &Writer<'_>) -> bool {
        let appended = self.append_unsequenced(message);
        if appended {
            self.count_sent()
        } else {
            self.lacks_room()
        }
        appended
    }

    /// What waits for room may have to wait for an Ack (LNK-3).
    pub(super) fn lacks_room(&mut self) {
        if self.out.keeps_some() {
            self.link.ask();
        }
    }

    /// Turns state into messages, as far as there is room.
    pub(super) fn pump(&mut self) {
        if self.ended.is_some() {
            self.pump_close();
        } else if self.peer().is_some() {
            // Behind a Goodbye comes nothing, until something arrives that makes it void (CLS-2).
            let _ = self.is_said()
                || self.pump_unimplemented() && self.pump_refusals() && self.pump_entries() && self.pump_goodbye();
            self.pump_ping();
        }
    }

    /// Says that this side is there (TIM-5).
    fn pump_ping(&mut self) {
        let is_due = core::mem::take(&mut self.time.ping_due);
        if is_due && self.is_resumable() && self.ended.is_none() {
            self.link.ping();
        } else if is_due && self.output_len() == 0 && self.ended.is_none() {
            let mut bytes = [0; 1];
            let mut writer = Writer::new(&mut bytes);
            writer.byte(kind::PING);
            self.append_unsequenced(&writer);
        }
    }

    /// Appends a message that is written and has no ordinal; false if there is no room.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub(super) fn append_unsequenced(&mut self, message: &Writer<'_>) -> bool {
        self.out.put(self.peer_limits().max_message as usize, message).is_ok()
    }

    fn pump_close(&mut self) {
        let (true, Some(ended)) = (self.close_due, self.ended) else {
            return;
        };
        let (code, rule, text) = match ended {
            Ended::PeerFault(rule) => {
                (CloseCode::ProtocolFault, rule.id(), if S::Parts::EXPLAINS { rule.text() } else { "" })
            }
            Ended::NoCommonVersion => (CloseCode::NoCommonVersion, "HEL-2", ""),
            Ended::Closed(code) => (code, "", ""),
            Ended::PeerClosed(_)
            | Ended::LinkLost
            | Ended::SessionGone
            | Ended::PeerRestarted
            | Ended::Silent
            | Ended::Done
            | Ended::NotBegun => return,
        };
        let max = self.peer_limits().max_message.max(Limits::MIN_MESSAGE) as usize;
        // The text is left out where the peer's messages are too short for it (CLS-1).
        let texts = if text.is_empty() { [""].as_slice() } else { &[text, ""] };
        for text in texts {
            let mut bytes = [0; CLOSE];
            let mut writer = Writer::new(&mut bytes);
            writer.byte(kind::CLOSE);
            writer.varint(code.number().into());
            writer.blob(rule.as_bytes());
            writer.blob(text.as_bytes());
            match self.out.put(max, &writer) {
                Err(AppendError::TooLarge(_)) => {}
                written => {
                    self.close_due = written.is_err();
                    return;
                }
            }
        }
    }

    fn pump_unimplemented(&mut self) -> bool {
        if self.unknown_kinds != 0 {
            let mut bytes = [0; SMALL];
            let mut writer = Writer::new(&mut bytes);
            writer.byte(kind::UNIMPLEMENTED);
            writer.varint(self.unknown_kinds.into());
            if !self.append(&writer) {
                return false;
            }
            self.unknown_kinds = 0;
        }
        true
    }

    fn pump_refusals(&mut self) -> bool {
        while let Some(id) = self.refused.first() {
            let Some(answer) = self.answers.get(id).filter(|answer| answer.is(Stage::Refused)) else {
                self.unlist_refused();
                continue;
            };
            let (code, detail) = (answer.code(), answer.detail());
            let mut bytes = [0; SMALL];
            let mut writer = Writer::new(&mut bytes);
            Return::write_head(&mut writer, id as u16, Some(code), 0, |_| {});
            let mut values = ValueWriter::new(writer, Top::Error, 0);
            let _ = match code {
                ErrorCode::ResultTooLarge
                | ErrorCode::Revoked
                | ErrorCode::Broken
                | ErrorCode::NoSuchMember
                | ErrorCode::Unsupported => values.uint(detail.into()),
                ErrorCode::Cancelled => values.bool(detail != 0),
                _ => Ok(()),
            };
            if !values.finish().is_ok_and(|message| self.append(&message)) {
                return false;
            }
            self.unlist_refused();
            self.settle(id as u16, Fate::failed(code));
        }
        true
    }

    fn unlist_refused(&mut self) {
        if let Some(id) = self.refused.pop(&mut self.answers)
            && let Some(answer) = self.answers.get_mut(id)
        {
            answer.set_listed(false);
        }
    }

    /// What lists have, many entries in one message; false if there is no room.
    fn pump_entries(&mut self) -> bool {
        for (kind, longest) in [(kind::FINISH, FINISH_ENTRY), (kind::DOWN, DOWN_ENTRY), (kind::RELEASE, RELEASE_ENTRY)]
        {
            while self.has_entries(kind) {
                let most = self.room().saturating_sub(PREFIX).min(self.peer_limits().max_message as usize).min(BATCH);
                if most < HEAD + longest || !self.out.make_room(PREFIX + most) {
                    self.lacks_room();
                    return false;
                }
                let mut bytes = [0; BATCH];
                let mut message = Writer::new(&mut bytes);
                message.byte(kind);
                if kind == kind::RELEASE {
                    message.varint(u64::from(self.received as u32));
                }
                let head = message.len();
                while message.len() + longest <= most && self.has_entries(kind) {
                    match kind {
                        kind::FINISH => self.write_finish(&mut message),
                        kind::DOWN => self.write_down(&mut message),
                        _ => self.write_release(&mut message),
                    }
                }
                if message.len() > head {
                    self.append(&message);
                }
            }
        }
        true
    }

    fn has_entries(&self, kind: u8) -> bool {
        match kind {
            kind::FINISH => self.finishing.first().is_some(),
            kind::DOWN => S::Parts::REVOKES && self.downs.first().is_some(),
            _ => self.marked.first().is_some(),
        }
    }

    /// A Finish that is due (FIN-1).
    fn write_finish(&mut self, writer: &mut Writer<'_>) {
        let Some(id) = self.finishing.pop(&mut self.questions) else { return };
        let Some(question) = self.questions.get_mut(id) else { return };
        question.set_listed(false);
        // If not, it is not due any more: the call came back before its cancel went out.
        if let Some(mode) = question.finish() {
            question.set_finish(None);
            question.set_finished(true);
            message::write_finish_entry(writer, id as u16, mode);
        }
        self.free_question(id as u16);
    }

    /// A marked import leaves the table and is released (REL-1).
    fn write_release(&mut self, writer: &mut Writer<'_>) {
        let Some(slot) = self.marked.pop(&mut self.imports) else { return };
        let Some(import) = self.imports.get_mut(slot) else { return };
        // A descriptor that came since has cleared the mark.
        if import.live && !import.is_held() {
            message::write_release_entry(writer, slot, import.generation);
            let epoch = import.epoch;
            *import = Blank::BLANK;
            import.epoch = epoch;
            self.live_imports -= 1;
        }
    }
}

/// The longest Hello, Close and Unimplemented or Return of a refusal, bytes: a few more than they need.
const HELLO: usize = 128;
const CLOSE: usize = 128;
const SMALL: usize = 32;
/// A message of entries, bytes, and what stands before the entries; and before the message.
const BATCH: usize = 256;
const HEAD: usize = 6;
const PREFIX: usize = 2;
/// The longest entry of a Finish, of a Release and of a Down, bytes.
const FINISH_ENTRY: usize = 3;
const RELEASE_ENTRY: usize = 8;
const DOWN_ENTRY: usize = 10;
