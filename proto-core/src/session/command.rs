//! What the host commands. A command that cannot be done says so before anything has changed.

use super::answers::IdOf;
use super::entry::{ExportState, Fate, Held, Named, QuestionState};
use super::handles::{PinError, find_export, held_by, write_references};
use super::kept::StoredHandles;
use super::lent::local;
use super::outgoing::AppendError;
use super::storage::{Blank, Parts, Storage, Store, Table};
use super::transmit::KEPT_FREE;
use super::width::{Number, Width};
use super::{Answer, Call, CallError, Callee, Import, Notice, Question, Ref, ReplyError, ReplyRefused};
use super::{Session, Stale, kept_key};
use crate::codec::Reader;
use crate::message::{self, Deadline, ErrorCode, Extension, FinishMode, Target};
use crate::value::{Top, ValueError, ValueWriter, tag};

/// Writes values, the same each time. Unlike the trait of closures it has no way to be called by value, which nobody needs and for
/// which each closure would bring some code.
pub(crate) trait WriteValues {
    fn write(&mut self, writer: &mut ValueWriter<'_>) -> Result<(), ValueError>;
}

impl<F: FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>> WriteValues for F {
    fn write(&mut self, writer: &mut ValueWriter<'_>) -> Result<(), ValueError> {
        self(writer)
    }
}

impl<S: Storage> Session<S> {
    /// Makes a call; `args` writes its arguments straight into the output. It may be run more than once, and must write
    /// the same each time.
    ///
    /// # Errors
    /// Nothing has changed then. Worth waiting for, outside of any handler: [`CallError::NotReady`] (the peer's Hello),
    /// [`CallError::Overloaded`] (a Return), [`CallError::NoRoom`] (output being taken). `TableFull` ends when references are
    /// released. All others stay.
    pub fn call(
        &mut self,
        call: Call<'_>,
        mut args: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<Question, CallError> {
        self.call_dyn(&call, &mut args)
    }

    pub(crate) fn call_dyn(&mut self, call: &Call<'_>, args: &mut dyn WriteValues) -> Result<Question, CallError> {
        if let Some(ended) = self.ended {
            return Err(CallError::Ended(ended));
        }
        if self.peer().is_none() {
            return Err(CallError::NotReady);
        }
        let (level, deadline) = match call.parent.map(|parent| self.running_answer(parent)) {
            None if self.is_leaving() => return Err(CallError::Leaving),
            None => (0, call.deadline),
            Some(Some(parent)) => {
                // The sooner of the two, with what is to become of it (TIM-2).
                let deadline = Deadline::sooner(call.deadline, self.time.left(parent.due()));
                ((parent.level.into() as u16).saturating_add(1), deadline)
            }
            Some(None) => return Err(CallError::BadParent),
        };
        if deadline.is_some_and(Deadline::is_too_late) {
            return Err(CallError::DeadlineExceeded);
        }
        if level >= self.peer.limits.levels {
            return Err(CallError::TooDeep);
        }
        let target = match call.callee {
            Callee::Import(import) if !self.holds(import) => return Err(CallError::BadTarget),
            Callee::Import(import) if let Some(reason) = self.down(import) => return Err(CallError::Revoked(reason)),
            Callee::Import(Import { slot, generation, .. }) => Target::Export { slot, generation },
            Callee::Promise(promise) => {
                self.check_promise(promise)?;
                Target::Answer(promise.id)
            }
        };
        let mut named = Named::<IdOf<S>>::default();
        let promises = call.references.iter().filter_map(|reference| match reference {
            Ref::Promise(promise) => Some(*promise),
            _ => None,
        });
        let target_promise = if let Callee::Promise(promise) = call.callee { Some(promise) } else { None };
        for promise in target_promise.into_iter().chain(promises) {
            self.check_promise(promise)?;
            if !named.add(promise.id) {
                return Err(CallError::TooManyPromises);
            }
        }
        if call.references.len() > self.peer.limits.handles.into() {
            return Err(CallError::TooManyReferences);
        }
        if self.questions.limit().min(self.peer.limits.answers.into()) == 0 {
            return Err(CallError::NotServed);
        }
        let pipelined = S::Parts::PROMISES && call.pipelined;
        let id = self.free_question_id(self.peer.limits.answers).ok_or(CallError::Overloaded)?;
        self.pin(call.references).map_err(|error| match error {
            PinError::BadReference(index) => CallError::BadReference(index),
            PinError::TableFull => CallError::TableFull,
        })?;

        let extension = Extension { parent: call.parent.map(|parent| parent.id), deadline };
        let (exports, keys) = (&self.exports, &self.keys);
        // What the peer still takes of calls without Return bounds this one as its frames do (ADM-2).
        let left = self.peer.limits.call_bytes.saturating_sub(self.question_bytes);
        let max = self.peer.limits.max_message.min(left) as usize;
        let appended = self.out.append(max, KEPT_FREE, &mut |mut writer| {
            let count = call.references.len();
            message::Call::write_head(&mut writer, (id, pipelined, extension), (target, call.op), count, |writer| {
                write_references::<S>(writer, exports, keys, call.references)
            });
            let mut values = ValueWriter::new(writer, Top::Arguments, count as u32);
            args.write(&mut values)?;
            values.finish()
        });
        let length = match appended {
            Ok(length) => length,
            Err(error) => {
                self.unpin(call.references);
                let longest = self.peer.limits.max_message.min(self.peer.limits.call_bytes) as usize;
                return Err(match error {
                    AppendError::Values(error) => CallError::Values(error),
                    AppendError::TooLarge(size) if size > self.out.longest(longest, KEPT_FREE) => {
                        CallError::TooLarge(size)
                    }
                    AppendError::TooLarge(_) => CallError::Overloaded,
                    AppendError::NoRoom => {
                        self.lacks_room();
                        CallError::NoRoom
                    }
                });
            }
        };
        self.count_sent();
        named.iter().filter(|_| S::Parts::PROMISES).for_each(|id| {
            if let Some(question) = self.questions.get_mut(id.into()) {
                question.dependents.up();
            }
        });
        self.take_question_id(id);
        self.open_questions += 1;
        self.question_bytes += length as u32;
        let ordinal = self.sent as u32;
        let due = self.time.set(deadline);
        if let Some(question) = self.questions.get_mut(id.into()) {
            *question = Blank::BLANK;
            (question.ordinal, question.named) = (ordinal, named);
            question.level = IdOf::<S>::of(level.into());
            question.bytes = <S::Width as Width>::Count::of(length as u32);
            question.set_state(QuestionState::Open);
            question.set_pipelined(pipelined);
            question.set_due(due);
        }
        self.note_sent(call.references, Some(id));
        Ok(Question { id, ordinal })
    }

    /// Answers a call of the peer; `result` writes at most one value. It may be run more than once.
    ///
    /// # Errors
    /// [`ReplyError::NoRoom`] and the errors of what was given leave the call open; after [`ReplyError::Became`] it is answered.
    pub fn reply(
        &mut self,
        call: Answer,
        references: &[Ref],
        mut result: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<(), ReplyError> {
        self.reply_dyn(call, None, references, &mut result)
    }

    /// Answers a call of the peer with an error; `values` writes what comes with the code (SPEC section 9).
    pub fn reply_error(
        &mut self,
        call: Answer,
        code: ErrorCode,
        references: &[Ref],
        mut values: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<(), ReplyError> {
        self.reply_dyn(call, Some(code), references, &mut values)
    }

    pub(crate) fn reply_dyn(
        &mut self,
        call: Answer,
        error: Option<ErrorCode>,
        references: &[Ref],
        result: &mut dyn WriteValues,
    ) -> Result<(), ReplyError> {
        self.reply_from_store(call, error, references, |writer, _| result.write(writer))
    }

    /// Answers a call of the peer; `result` may look at what the store keeps.
    pub(super) fn reply_from_store(
        &mut self,
        call: Answer,
        error: Option<ErrorCode>,
        references: &[Ref],
        mut result: impl FnMut(&mut ValueWriter<'_>, &S::Store) -> Result<(), ValueError>,
    ) -> Result<(), ReplyError> {
        if let Some(ended) = self.ended {
            return Err(ReplyError::Ended(ended));
        }
        let pipelined = self.running_answer(call).ok_or(ReplyError::NoSuchCall)?.pipelined();
        let only_in_a_call = |reference: &Ref| matches!(reference, Ref::Promise(_) | Ref::Borrowed(_));
        if let Some(index) = references.iter().position(only_in_a_call) {
            return Err(ReplyError::BadReference(index));
        }
        if references.len() > self.peer_limits().handles.into() {
            return self.became(call, ReplyRefused::TableFull);
        }
        match self.pin(references) {
            Err(PinError::BadReference(index)) => return Err(ReplyError::BadReference(index)),
            Err(PinError::TableFull) => return self.became(call, ReplyRefused::TableFull),
            Ok(()) => {}
        }
        let (exports, keys, store) = (&self.exports, &self.keys, &self.store);
        let max = self.peer_limits().max_message as usize;
        let mut head = 0;
        let appended = self.out.append(max, 0, &mut |mut writer| {
            let count = references.len();
            message::Return::write_head(&mut writer, call.id, error, count, |writer| {
                write_references::<S>(writer, exports, keys, references);
            });
            head = writer.len();
            let top = if error.is_some() { Top::Error } else { Top::Result };
            let mut values = ValueWriter::new(writer, top, count as u32);
            result(&mut values, store)?;
            values.finish()
        });
        let length = match appended {
            Ok(length) => length,
            Err(error) => {
                self.unpin(references);
                return match error {
                    AppendError::Values(error) => Err(ReplyError::Values(error)),
                    AppendError::NoRoom => {
                        self.lacks_room();
                        Err(ReplyError::NoRoom)
                    }
                    AppendError::TooLarge(size) => self.became(call, ReplyRefused::TooLarge(size)),
                };
            }
        };
        self.count_sent();
        self.note_sent(references, None);
        let end = match error {
            Some(code) => Fate::failed(code),
            None if pipelined => self.keep(call.id, length, head, references),
            None => Fate::NONE,
        };
        self.settle(call.id, end);
        Ok(())
    }

    /// Answers a call of the peer with an error that needs no room: it goes out when there is some (ADM-6). `detail` is the
    /// number that comes with `ResultTooLarge`, `NoSuchMember`, `Unsupported` and, as 0 or 1, `Cancelled`.
    pub fn refuse(&mut self, call: Answer, code: ErrorCode, detail: u32) -> Result<(), ReplyError> {
        if let Some(ended) = self.ended {
            return Err(ReplyError::Ended(ended));
        }
        self.running_answer(call).ok_or(ReplyError::NoSuchCall)?;
        self.refuse_entry(call.id, code, detail);
        Ok(())
    }

    /// Withdraws interest in a call. With `Interrupt` the callee is asked to stop and the Return is still delivered, to tell
    /// what happened; with `Abandon` it is not, and that stays. With both, one after the other, the callee is asked to stop and
    /// nobody is told. `Done` is said by the session itself and does nothing here.
    pub fn cancel(&mut self, question: Question, mode: FinishMode) -> Result<(), Stale> {
        self.open_question(question).ok_or(Stale)?;
        let Some(entry) = self.questions.get_mut(question.id.into()) else { return Err(Stale) };
        if mode == FinishMode::Abandon {
            entry.set_abandoned(true);
        }
        // One Finish for each call (FIN-1).
        if !entry.finished() && mode != FinishMode::Done {
            if entry.finish() != Some(FinishMode::Interrupt) {
                entry.set_finish(Some(mode));
            }
            if !entry.listed() {
                entry.set_listed(true);
                self.finishing.push_back(&mut self.questions, question.id.into());
            }
        }
        Ok(())
    }

    /// What became true since the last time, one thing at a time.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        while let Some(slot) = self.freed.pop(&mut self.exports) {
            let Some(export) = self.exports.get_mut(slot) else { continue };
            export.set_state(ExportState::Used);
            if !export.is_let_go() {
                continue; // sent again meanwhile
            }
            let key = export.key;
            self.forget_export(slot, false);
            return Some(Notice::Freed(key));
        }
        if let Some(down) = self.poll_down() {
            return Some(down);
        }
        for id in 0..self.answers.len() as u32 {
            if self.cancels == 0 {
                break;
            }
            let Some(entry) = self.answers.get_mut(id) else { continue };
            if entry.cancelled() {
                entry.set_cancelled(false);
                self.cancels -= 1;
                return Some(Notice::Interrupted(Answer { id: id as u16, ordinal: entry.ordinal }));
            }
        }
        self.poll_late()
    }

    /// Whether a call could be made now, as far as ids and output go.
    pub fn can_call(&self) -> bool {
        self.ended.is_none() && self.peer().is_some_and(|peer| self.free_question_id_exists(peer.limits.answers))
    }

    /// Whether [`Self::poll_ready`] has a call to give.
    pub fn has_ready(&self) -> bool {
        self.ready > 0
    }

    /// The session answers a call that runs in place of what was given.
    #[cold]
    fn became(&mut self, call: Answer, refused: ReplyRefused) -> Result<(), ReplyError> {
        let (code, detail) = match refused {
            ReplyRefused::TableFull => (ErrorCode::TableFull, 0),
            ReplyRefused::TooLarge(size) => (ErrorCode::ResultTooLarge, u32::try_from(size).unwrap_or(u32::MAX)),
        };
        self.refuse_entry(call.id, code, detail);
        Err(ReplyError::Became(refused))
    }

    /// Keeps what a pipelined call answered, for calls that name it (ANS-4). The Return is the last thing written, so many bytes long,
    /// of which the first ones are its head.
    fn keep(&mut self, id: u16, length: usize, head: usize, references: &[Ref]) -> Fate {
        let pending = self.out.pending();
        let body = pending.get(pending.len().saturating_sub(length)..).unwrap_or_default();
        let mut value = Reader::new(body.get(head..).unwrap_or_default());
        if value.is_empty() {
            return Fate::NONE;
        }
        // It is the caller's own, and gone with this very Return (REF-9).
        if references.iter().any(|reference| self.gives_back_lent(*reference)) {
            return Fate::NOT_KEPT;
        }
        // Whatever else the list has: entries need not be named (VAL-6).
        if value.byte() == tag::REFERENCE
            && let Some(reference) = references.get(value.varint() as usize)
        {
            let held = match *reference {
                Ref::Import(Import { slot, generation, .. }) => Held::Import { slot, generation },
                reference => local(reference)
                    .and_then(|(key, _)| find_export::<S>(&self.exports, &self.keys, key))
                    .map_or(Held::Nothing, Held::Export),
            };
            self.hold(held);
            return Fate::object(held);
        }
        if !S::KEEPS_VALUES {
            return Fate::NOT_KEPT;
        }
        // Room that calls may claim when they wait is not given away, whatever runs now.
        let for_calls = self.limits.call_bytes as usize + self.answers.limit() * S::Store::OVERHEAD;
        let claimed = for_calls.saturating_sub(self.parked);
        if self.store.free() < claimed.saturating_add(length + S::Store::OVERHEAD) {
            return Fate::NOT_KEPT;
        }
        if !self.store.put(kept_key(id), body) {
            return Fate::NOT_KEPT;
        }
        let mut handles = StoredHandles::new(&self.store, kept_key(id));
        while let Some(handle) = handles.next(&self.store) {
            self.hold(held_by(handle));
        }
        Fate::KEPT
    }

    /// Whether a call of the peer still waits for our reply.
    pub fn is_open(&self, call: Answer) -> bool {
        self.running_answer(call).is_some()
    }
}
