//! What a received message does (SPEC section 12): one method for each kind.

use super::entry::{Answer as Entry, AnswerState, Held, NO_ID, Named, QuestionState, Settled};
use super::kept::StoredHandles;
use super::storage::{Storage, Store, Table};
use super::{Answer, Ended, Event, Import, Kept, ObjectKey, Question, Receiver, Reference, Request, Return, Rule};
use super::{Session, VERSION, kept_key, parked_key};
use crate::message::{self, Call, Descriptor, ErrorCode, FinishMode, Handles, Hello, Message, Target, kind};
use crate::value::{Top, Value, Values};

impl<S: Storage> Session<S> {
    /// Takes one record's body. The event borrows it, not the session.
    ///
    /// An error ends the session; every later call gives the same error.
    pub fn handle<'f>(&mut self, body: &'f [u8]) -> Result<Option<Event<'f>>, Ended> {
        if let Some(ended) = self.ended {
            return Err(ended);
        }
        self.receive(body).inspect_err(|&ended| self.end(ended))
    }

    fn receive<'f>(&mut self, body: &'f [u8]) -> Result<Option<Event<'f>>, Ended> {
        let is_hello = body.first().is_some_and(|head| head & kind::MASK == kind::HELLO);
        if is_hello != self.peer.is_none() {
            return Err(fault(Rule::HelloFirst));
        }
        if is_hello && body.len() > Hello::MAX_LENGTH {
            return Err(fault(Rule::HelloLength));
        }
        if body.is_empty() || !is_hello && body.len() > self.limits.max_message as usize {
            return Err(fault(Rule::FrameLength));
        }
        // Counted before it is looked at, whether its kind is known or not (MSG-2).
        self.received += u64::from(Message::is_sequenced(body));
        match Message::read(body).map_err(|_| fault(Rule::Envelope))? {
            Message::Hello(hello) => self.on_hello(hello).map(Some),
            Message::Call(call) => self.on_call(call, body),
            Message::Return(returned) => self.on_return(returned),
            Message::Finish(entries) => self.on_finish(entries).map(|()| None),
            Message::Release(entries) => self.on_release(entries).map(|()| None),
            Message::Unimplemented(kinds) => {
                self.refused_kinds |= kinds;
                Ok(None)
            }
            Message::Unknown(kind) => {
                self.unknown_kinds |= 1 << kind;
                Ok(None)
            }
            Message::Close(close) => Err(Ended::PeerClosed(close.code)),
        }
    }

    /// A call that waited for an answer and may run now, the oldest first (ANS-3). It is copied into `scratch`, which must
    /// be as long as the longest message that this side accepts; a call that does not fit is refused as overloaded.
    pub fn poll_ready<'f>(&mut self, scratch: &'f mut [u8]) -> Option<Request<'f>> {
        while self.ready > 0 {
            let of_ready = |id: u32| self.answers.get(id).filter(|answer| answer.state == AnswerState::Ready);
            let all = 0..self.answers.len() as u32;
            let (_, id) = all.filter_map(|id| of_ready(id).map(|answer| (answer.ordinal, id as u16))).min()?;
            let fits = self.store.get(parked_key(id)).and_then(|body| {
                scratch.get_mut(..body.len())?.copy_from_slice(body);
                Some(body.len())
            });
            let Some(length) = fits else {
                self.refuse_unstarted(id, ErrorCode::Overloaded, 0);
                continue;
            };
            self.unpark(id);
            let body: &'f [u8] = scratch.get(..length)?;
            let Ok(Message::Call(call)) = Message::read(body) else { return None };
            let args = Values::check(call.values, Top::Arguments, call.handles.len()).ok()?;
            return self.start(id, call, args);
        }
        None
    }

    fn on_hello<'f>(&mut self, hello: Hello) -> Result<Event<'f>, Ended> {
        if !hello.limits.are_valid() {
            return Err(fault(Rule::HelloLimits));
        }
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            return Err(Ended::NoCommonVersion);
        }
        self.peer = Some(hello);
        Ok(Event::Ready)
    }

    fn on_call<'f>(&mut self, call: Call<'f>, body: &[u8]) -> Result<Option<Event<'f>>, Ended> {
        self.enter_handles(call.handles)?;
        let level = self.admit(&call, body.len())?;
        let named = named_answers(&call).ok_or(fault(Rule::TooManyNamed))?;
        let (serial, ordinal) = (self.next_serial(), self.received);
        let parent = call.parent.and_then(|id| Some((id, self.questions.get(id.into())?.serial)));
        let Some(entry) = self.answers.get_mut(call.id.into()) else {
            return Err(fault(Rule::LimitExceeded));
        };
        *entry = Entry { serial, ordinal, parent, level, pipelined: call.pipelined, ..Entry::default() };
        entry.bytes = body.len() as u32;
        self.answer_bytes += body.len() as u64;
        self.used_answers += 1;

        match self.judge(&call, named) {
            Ok((target, args)) => {
                self.hold(target);
                named.iter().for_each(|id| self.name_answer(id));
                let settled = self.named_state(named) == Ok(true);
                if let Some(entry) = self.answers.get_mut(call.id.into()) {
                    (entry.target, entry.named) = (target, named);
                }
                // Calls that are ready already run first (ANS-3).
                if settled && (self.ready == 0 || named.iter().next().is_none()) {
                    return Ok(self.start(call.id, call, args).map(Event::Request));
                }
                self.park(&call, body);
                if settled {
                    self.recheck_waiting();
                }
            }
            Err((code, detail)) => {
                self.release_handles(call.handles);
                self.refuse_entry(call.id, code, detail);
            }
        }
        Ok(None)
    }

    /// Whether the call keeps to the limits that we announced; its level.
    fn admit(&mut self, call: &Call<'_>, length: usize) -> Result<u16, Ended> {
        if call.id >= self.limits.answers {
            return Err(fault(Rule::LimitExceeded));
        }
        while self.answers.len() <= usize::from(call.id) {
            // Only the heap can fail here; then it is we who are out of resources.
            self.answers.grow().ok_or(Ended::Closed(message::CloseCode::OutOfResources))?;
        }
        if self.answers.get(call.id.into()).is_none_or(|entry| entry.state != AnswerState::Free) {
            return Err(fault(Rule::CallIdInUse));
        }
        if self.answer_bytes + length as u64 > self.limits.call_bytes.into() {
            return Err(fault(Rule::LimitExceeded));
        }
        let Some(parent) = call.parent else { return Ok(0) };
        let level = match self.questions.get(parent.into()) {
            Some(question) if question.state == QuestionState::Open => question.level.saturating_add(1),
            _ => return Err(fault(Rule::ParentNotOpen)),
        };
        if level >= self.limits.levels {
            return Err(fault(Rule::LimitExceeded));
        }
        Ok(level)
    }

    /// Whether the call can run or wait: what it runs on and its arguments, or why not. Looks and changes nothing; malformed
    /// values are the call's failure alone (CAL-7).
    fn judge<'f>(&self, call: &Call<'f>, named: Named) -> Result<(Held, Values<'f>), (ErrorCode, u64)> {
        let args =
            Values::check(call.values, Top::Arguments, call.handles.len()).map_err(|_| (ErrorCode::Malformed, 0))?;
        let target = match call.target {
            Target::Export { slot, generation } => match self.wire_export(slot, generation) {
                Some(_) => Held::Export(slot),
                None => return Err((ErrorCode::NoSuchObject, 0)),
            },
            Target::Answer(id) => Held::Answer(id),
        };
        let is_stale = |handle| match handle {
            Descriptor::Receiver { slot, generation } => self.wire_export(slot, generation).is_none(),
            _ => false,
        };
        if { call.handles }.any(is_stale) {
            return Err((ErrorCode::NoSuchObject, 0));
        }
        // No call has this id, and a list of named answers cannot hold it.
        let never = Descriptor::Answer(NO_ID);
        if call.target == Target::Answer(NO_ID) || { call.handles }.any(|handle| handle == never) {
            return Err((ErrorCode::NoSuchAnswer, 0));
        }
        self.named_state(named)?;
        Ok((target, args))
    }

    /// Whether all answers that a call names have settled; an error if one is not there or has failed (ANS-3, ANS-7).
    fn named_state(&self, named: Named) -> Result<bool, (ErrorCode, u64)> {
        let mut settled = true;
        for id in named.iter() {
            let entry = self.answers.get(id.into()).filter(|entry| entry.pipelined);
            match entry.map(|entry| entry.state) {
                None | Some(AnswerState::Free) => return Err((ErrorCode::NoSuchAnswer, 0)),
                Some(AnswerState::Refused(code, _) | AnswerState::Settled(Settled::Failed(code))) => {
                    return Err((ErrorCode::Broken, code.number()));
                }
                Some(AnswerState::Settled(Settled::NotKept)) => return Err((ErrorCode::NotKept, 0)),
                Some(AnswerState::Settled(_)) => {}
                Some(AnswerState::Waiting | AnswerState::Ready | AnswerState::Running) => settled = false,
            }
        }
        Ok(settled)
    }

    /// The call runs: what the host is told.
    fn start<'f>(&mut self, id: u16, call: Call<'f>, args: Values<'f>) -> Option<Request<'f>> {
        let entry = self.answers.get_mut(id.into())?;
        entry.state = AnswerState::Running;
        let (target, serial, parent) = (entry.target, entry.serial, entry.parent);
        let receiver = match target {
            Held::Export(slot) => Receiver::Object(self.exports.get(slot)?.key),
            Held::Import { slot, generation } => Receiver::Import(Import { slot, generation }),
            Held::Answer(named) => match self.resolve(Descriptor::Answer(named))? {
                Reference::Local(key) => Receiver::Object(key),
                Reference::Import(import) => Receiver::Import(import),
                Reference::Value(kept) => Receiver::Value(kept),
                Reference::None => Receiver::Value(Kept(named)),
            },
            Held::Nothing => return None,
        };
        let parent = parent.map(|(id, serial)| Question { id, serial });
        Some(Request {
            call: Answer { id, serial },
            parent: parent.filter(|&parent| self.open_question(parent).is_some()),
            receiver,
            op: call.op,
            handles: call.handles,
            args,
        })
    }

    /// The call waits, its bytes in the store. Our objects among its arguments are held meanwhile.
    fn park(&mut self, call: &Call<'_>, body: &[u8]) {
        if !self.store.put(parked_key(call.id), body) {
            self.release_handles(call.handles);
            self.refuse_entry(call.id, ErrorCode::Overloaded, 0);
            return;
        }
        if let Some(entry) = self.answers.get_mut(call.id.into()) {
            entry.state = AnswerState::Waiting;
        }
        self.waiting += 1;
        self.parked += body.len() + S::Store::OVERHEAD;
        { call.handles }.for_each(|handle| self.hold_home(handle));
    }

    /// The call waits no more: its bytes leave the store, and so do the holds of our objects among its arguments.
    fn unpark(&mut self, id: u16) {
        match self.answers.get(id.into()).map(|entry| entry.state) {
            Some(AnswerState::Waiting) => self.waiting -= 1,
            Some(AnswerState::Ready) => self.ready -= 1,
            _ => return,
        }
        self.parked -= self.store.get(parked_key(id)).map_or(0, |body| body.len() + S::Store::OVERHEAD);
        let mut handles = StoredHandles::new(&self.store, parked_key(id));
        while let Some(handle) = handles.next(&self.store) {
            if let Descriptor::Receiver { slot, .. } = handle {
                self.unhold_export(slot);
            }
        }
        self.store.remove(parked_key(id));
    }

    /// A call that waits or is ready will not run: its handles are let go.
    fn refuse_unstarted(&mut self, id: u16, code: ErrorCode, detail: u64) {
        self.break_unstarted(id, code, detail);
        self.recheck_waiting();
    }

    fn break_unstarted(&mut self, id: u16, code: ErrorCode, detail: u64) {
        let mut handles = StoredHandles::new(&self.store, parked_key(id));
        while let Some(handle) = handles.next(&self.store) {
            self.release_handle(handle);
        }
        self.unpark(id);
        self.list_refused(id, code, detail);
    }

    /// The session itself will answer (ADM-6).
    pub(super) fn refuse_entry(&mut self, id: u16, code: ErrorCode, detail: u64) {
        self.list_refused(id, code, detail);
        self.recheck_waiting();
    }

    fn list_refused(&mut self, id: u16, code: ErrorCode, detail: u64) {
        let Some(entry) = self.answers.get_mut(id.into()) else { return };
        entry.state = AnswerState::Refused(code, detail);
        if !entry.listed {
            entry.listed = true;
            self.refused.push_back(&mut self.answers, id.into());
        }
    }

    /// Looks again at all calls that wait: some may run now, some are broken (ANS-3). A chain of calls that break each
    /// other is gone through here, pass by pass, and not by recursion: the peer chooses its length.
    fn recheck_waiting(&mut self) {
        let mut again = true;
        while core::mem::take(&mut again) && self.waiting > 0 {
            for id in 0..self.answers.len() as u32 {
                let Some(entry) = self.answers.get_mut(id).filter(|entry| entry.state == AnswerState::Waiting) else {
                    continue;
                };
                let named = entry.named;
                match self.named_state(named) {
                    Ok(false) => {}
                    Ok(true) => {
                        if let Some(entry) = self.answers.get_mut(id) {
                            entry.state = AnswerState::Ready;
                        }
                        self.waiting -= 1;
                        self.ready += 1;
                    }
                    Err((code, detail)) => {
                        self.break_unstarted(id as u16, code, detail);
                        again = true;
                    }
                }
            }
        }
    }

    /// The Return was written: the answer has settled, and what the call held is let go.
    pub(super) fn settle(&mut self, id: u16, settled: Settled) {
        let Some(entry) = self.answers.get_mut(id.into()) else { return };
        let (target, named) = (core::mem::take(&mut entry.target), core::mem::take(&mut entry.named));
        let waiters = entry.waiters;
        entry.state = AnswerState::Settled(settled);
        self.cancels -= u32::from(entry.cancel.take().is_some());
        self.answer_bytes -= u64::from(core::mem::take(&mut entry.bytes));
        self.unhold(target);
        for named in named.iter() {
            if let Some(entry) = self.answers.get_mut(named.into()) {
                entry.waiters = entry.waiters.saturating_sub(1);
            }
            self.close_answer(named);
        }
        if waiters > 0 {
            self.recheck_waiting();
        }
        self.close_answer(id);
    }

    /// Frees an answer that has settled and that nobody can name any more (ANS-1).
    fn close_answer(&mut self, id: u16) {
        let Some(entry) = self.answers.get_mut(id.into()) else { return };
        let AnswerState::Settled(settled) = entry.state else { return };
        if entry.waiters > 0 || entry.pipelined && !entry.finished {
            return;
        }
        *entry = Entry::default();
        self.used_answers -= 1;
        match settled {
            Settled::Reference(held) => self.unhold(held),
            Settled::Kept => self.drop_kept(id),
            Settled::None | Settled::NotKept | Settled::Failed(_) => {}
        }
    }

    fn drop_kept(&mut self, id: u16) {
        let mut handles = StoredHandles::new(&self.store, kept_key(id));
        while let Some(handle) = handles.next(&self.store) {
            match handle {
                Descriptor::Sender { slot, .. } => self.unhold_export(slot),
                Descriptor::Receiver { slot, generation } => {
                    let _ = self.release(Import { slot, generation });
                }
                Descriptor::Answer(_) => {}
            }
        }
        self.store.remove(kept_key(id));
    }

    fn name_answer(&mut self, id: u16) {
        if let Some(entry) = self.answers.get_mut(id.into()) {
            entry.waiters += 1;
        }
    }

    fn on_return<'f>(&mut self, returned: message::Return<'f>) -> Result<Option<Event<'f>>, Ended> {
        self.enter_handles(returned.handles)?;
        let id = returned.id;
        let question = match self.questions.get_mut(id.into()) {
            Some(question) if question.state == QuestionState::Open => question,
            _ => return Err(fault(Rule::ReturnWithoutCall)),
        };
        let (abandoned, serial) = (question.abandoned, question.serial);
        self.question_returned(id);
        let (outcome, values) = self.read_outcome(&returned);
        if abandoned || outcome.is_err() && returned.error.is_none() {
            self.release_handles(returned.handles);
        }
        if abandoned {
            return Ok(None);
        }
        let handles = if values.is_empty() && outcome.is_err() && returned.error.is_none() {
            Handles::default()
        } else {
            returned.handles
        };
        Ok(Some(Event::Return(Return { question: Question { id, serial }, outcome, handles, values })))
    }

    /// A Return's outcome and values; `Malformed` if they are (CAL-5, ERR-2), `NoSuchObject` if a reference that comes home is
    /// stale (REF-5).
    fn read_outcome<'f>(&self, returned: &message::Return<'f>) -> (super::Outcome, Values<'f>) {
        let top = if returned.error.is_some() { Top::Error } else { Top::Result };
        let is_stale = |handle| match handle {
            Descriptor::Receiver { slot, generation } => self.wire_export(slot, generation).is_none(),
            _ => false,
        };
        let malformed = (Err(ErrorCode::Malformed), Values::default());
        let Ok(values) = Values::check(returned.values, top, returned.handles.len()) else { return malformed };
        if { returned.handles }.any(is_stale) {
            return (Err(ErrorCode::NoSuchObject), Values::default());
        }
        match returned.error {
            None => (Ok(()), values),
            Some(ErrorCode::Raised) if values.len() != 1 || !matches!(values.first(), Some(Value::Exception(_))) => {
                malformed
            }
            Some(code) => (Err(code), values),
        }
    }

    /// The promise is its result now; if the call was pipelined, Finish is due with the next output (ANS-5).
    fn question_returned(&mut self, id: u16) {
        let Some(question) = self.questions.get_mut(id.into()) else { return };
        question.state = QuestionState::Returned;
        self.question_bytes -= u64::from(question.bytes);
        let named = core::mem::take(&mut question.named);
        // A cancel that has not gone out yet is not needed any more (FIN-1).
        question.due = (question.pipelined && !question.finished).then_some(FinishMode::Done);
        if question.due.is_some() && !question.listed {
            question.listed = true;
            self.finishing.push_back(&mut self.questions, id.into());
        }
        for named in named.iter() {
            if let Some(question) = self.questions.get_mut(named.into()) {
                question.dependents = question.dependents.saturating_sub(1);
            }
            self.free_question(named);
        }
        self.free_question(id);
    }

    /// Frees a question's id when nothing on either side can refer to it any more (CAL-3).
    pub(super) fn free_question(&mut self, id: u16) {
        let Some(question) = self.questions.get_mut(id.into()) else { return };
        let over = question.state == QuestionState::Returned
            && question.dependents == 0
            && !question.listed
            && (!question.pipelined || question.finished);
        if over {
            *question = Default::default();
            self.open_questions -= 1;
            self.free_questions.push_front(&mut self.questions, id.into());
        }
    }

    fn on_finish(&mut self, entries: message::Finishes<'_>) -> Result<(), Ended> {
        for (id, mode) in entries {
            if id >= self.limits.answers {
                return Err(fault(Rule::LimitExceeded));
            }
            let Some(entry) = self.answers.get_mut(id.into()) else { continue };
            let state = entry.state;
            if state == AnswerState::Free {
                continue; // it crossed the Return (FIN-3)
            }
            entry.finished = true;
            match (state, mode) {
                (AnswerState::Settled(_), _) => self.close_answer(id),
                (AnswerState::Waiting | AnswerState::Ready, FinishMode::Interrupt) => {
                    self.refuse_unstarted(id, ErrorCode::Cancelled, 0);
                }
                (AnswerState::Running, FinishMode::Interrupt) => {
                    self.cancels += u32::from(entry.cancel.is_none());
                    entry.cancel = Some(mode);
                }
                // The result is not wanted; the entry stays for those who wait for it (FIN-4).
                _ => {}
            }
        }
        Ok(())
    }

    /// Frees the slots of which no newer copy is under way (REL-2). Nothing is answered (REL-5).
    fn on_release(&mut self, entries: message::Releases<'_>) -> Result<(), Ended> {
        // The low 32 bits tell the ordinal, since far fewer messages are under way (REL-4).
        let behind = (self.sent as u32).wrapping_sub(entries.upto);
        let upto = self.sent.checked_sub(behind.into()).ok_or(fault(Rule::ReleaseNeverSent))?;
        for (slot, generation) in entries {
            let Some(export) = self.exports.get_mut(slot).filter(|_| slot > 0) else {
                return Err(fault(Rule::ReleaseNeverSent));
            };
            let age = export.generation.wrapping_sub(generation);
            if age >= 0x8000 || age == 0 && !export.wire {
                return Err(fault(Rule::ReleaseNeverSent));
            }
            if age == 0 && export.pins == 0 && export.last_sent <= upto {
                (export.wire, export.last_sent) = (false, 0);
                export.generation = export.generation.wrapping_add(1);
                self.wire_exports -= 1;
                self.settle_export(slot);
            }
        }
        Ok(())
    }

    /// Enters a message's handles before anything else is looked at (REF-3): one hold for each.
    fn enter_handles(&mut self, handles: Handles<'_>) -> Result<(), Ended> {
        if handles.len() > self.limits.handles.into() {
            return Err(fault(Rule::LimitExceeded));
        }
        for handle in handles {
            let Descriptor::Sender { slot, generation } = handle else { continue };
            if slot == 0 && generation == 0 {
                continue;
            }
            if slot == 0 || slot >= self.limits.imports {
                return Err(fault(Rule::ImportSlot));
            }
            while self.imports.len() <= slot as usize {
                self.imports.grow().ok_or(Ended::Closed(message::CloseCode::OutOfResources))?;
            }
            let Some(import) = self.imports.get_mut(slot) else { continue };
            if import.live && import.generation != generation {
                return Err(fault(Rule::ImportSlot));
            }
            if !import.live {
                (import.live, import.generation, import.holds) = (true, generation, 0);
                self.live_imports += 1;
            }
            import.holds = import.holds.saturating_add(1);
        }
        Ok(())
    }

    fn release_handles(&mut self, handles: Handles<'_>) {
        handles.for_each(|handle| self.release_handle(handle));
    }

    fn release_handle(&mut self, handle: Descriptor) {
        if let Descriptor::Sender { slot, generation } = handle {
            let _ = self.release(Import { slot, generation });
        }
    }

    fn hold_home(&mut self, handle: Descriptor) {
        if let Descriptor::Receiver { slot, .. } = handle {
            self.hold(Held::Export(slot));
        }
    }

    pub(super) fn hold(&mut self, held: Held) {
        match held {
            Held::Export(slot) => {
                if let Some(export) = self.exports.get_mut(slot) {
                    export.holds = export.holds.saturating_add(1);
                }
            }
            Held::Import { slot, generation } => {
                let _ = self.retain(Import { slot, generation });
            }
            Held::Nothing | Held::Answer(_) => {}
        }
    }

    fn unhold(&mut self, held: Held) {
        match held {
            Held::Export(slot) => self.unhold_export(slot),
            Held::Import { slot, generation } => {
                let _ = self.release(Import { slot, generation });
            }
            Held::Nothing | Held::Answer(_) => {}
        }
    }

    fn unhold_export(&mut self, slot: u32) {
        if let Some(export) = self.exports.get_mut(slot) {
            export.holds = export.holds.saturating_sub(1);
        }
        self.settle_export(slot);
    }

    /// An object that neither the peer nor a call holds any more is told to the host.
    pub(super) fn settle_export(&mut self, slot: u32) {
        let Some(export) = self.exports.get_mut(slot) else { return };
        if export.used && !export.wire && export.holds == 0 && export.pins == 0 && !export.listed {
            export.listed = true;
            self.freed.push_back(&mut self.exports, slot);
        }
    }

    /// Makes slot 0 the directory (REF-7).
    pub(super) fn export_directory(&mut self) {
        if let Some(export) = self.exports.grow().and_then(|slot| self.exports.get_mut(slot)) {
            (export.used, export.wire, export.key) = (true, true, ObjectKey::DIRECTORY);
            self.wire_exports = 1;
        }
    }
}

fn fault(rule: Rule) -> Ended {
    Ended::PeerFault(rule)
}

/// The answers that a call names, as target or among its handles; None if there are too many (ANS-2).
fn named_answers(call: &Call<'_>) -> Option<Named> {
    let mut named = Named::default();
    let of_handles = call.handles.filter_map(|handle| match handle {
        Descriptor::Answer(id) => Some(id),
        _ => None,
    });
    let of_target = match call.target {
        Target::Answer(id) => Some(id),
        Target::Export { .. } => None,
    };
    of_target.into_iter().chain(of_handles).all(|id| named.add(id)).then_some(named)
}

/// Reads a kept value, a copy of [`Session::kept_body`]: the handles of its references, and the value, if it is not none.
pub fn read_kept(body: &[u8]) -> Option<(Handles<'_>, Values<'_>)> {
    match Message::read(body) {
        Ok(Message::Return(kept)) => {
            Some((kept.handles, Values::check(kept.values, Top::Result, kept.handles.len()).ok()?))
        }
        _ => None,
    }
}
