//! The peer's calls: admitted, waiting for answers, running, refused, settled, over (SPEC section 6, 7).

use super::entry::{Answer as Entry, Fate, Held, Named, QuestionState, RunsOn, Stage};
use super::kept::StoredHandles;
use super::receive::fault;
use super::storage::{Blank, Storage, Store, Table};
use super::width::{Number, Width};
use super::{Answer, Ended, Event, Kept, Question, Receiver, Reference, Request, Rule, Session};
use super::{kept_key, parked_key};
use crate::message::{self, Call, Deadline, Descriptor, ErrorCode, FinishMode, Handles, Message, Target};
use crate::value::{Top, Values};

impl<S: Storage> Session<S> {
    /// A call that waited for an answer and may run now, the oldest first (ANS-3). It is copied into `scratch`, which must
    /// be as long as the longest message that this side accepts; a call that does not fit is refused as overloaded.
    pub fn poll_ready<'f>(&mut self, scratch: &'f mut [u8]) -> Option<Request<'f>> {
        while S::Store::HOLDS && self.ready > 0 {
            let id = self.queue.find(&self.answers, |answer| answer.is(Stage::Ready))? as u16;
            let fits = self.store.get(parked_key(id)).and_then(|body| {
                scratch.get_mut(..body.len())?.copy_from_slice(body);
                Some(body.len())
            });
            let Some(length) = fits else {
                self.refuse_unstarted(id, ErrorCode::Overloaded, 0);
                continue;
            };
            let parent = self.answers.get(id.into()).map_or(0, Entry::parent);
            self.unpark(id);
            let body: &'f [u8] = scratch.get(..length)?;
            let Ok(Message::Call(call)) = Message::read(body) else { return None };
            let args = Values::check(call.values, Top::Arguments, call.handles.len()).ok()?;
            return match self.start(id, (&call, parent), args) {
                Some(Event::Request(request)) => Some(request),
                _ => None,
            };
        }
        None
    }

    /// Puts a request off that [`Self::handle`] has just given, since there is no room for its answer: [`Self::poll_ready`] gives
    /// it again, in its turn. `body` is the message in which it came. False if this side has no memory for that.
    ///
    /// It reads on meanwhile (ADM-1), and what the peer may send with the bytes that it was allowed always has a place.
    pub fn put_off(&mut self, request: &Request<'_>, body: &[u8]) -> bool {
        let Answer { id, ordinal } = request.call;
        let runs = |entry: &Entry<S::Width>| entry.is(Stage::Running) && entry.ordinal == ordinal;
        let parent = request.parent.map_or(0, |parent| parent.ordinal);
        self.answers.get(id.into()).is_some_and(runs)
            && self.store_call((id, parent), request.handles, Stage::Ready, body)
    }

    pub(super) fn on_call<'f>(&mut self, call: &Call<'f>, body: &[u8]) -> Result<Option<Event<'f>>, Ended> {
        let lent = self.enter_handles(call.handles, Some(call.id))?;
        let level = self.admit(call, body.len())?;
        let named = named_answers::<S>(call).ok_or(fault(Rule::TooManyNamed))?;
        let parent = call.parent.and_then(|id| self.questions.get(id.into())).map_or(0, |question| question.ordinal);
        let Some(entry) = self.answers.get_mut(call.id.into()) else {
            return Err(fault(Rule::LimitExceeded));
        };
        *entry = Entry::BLANK;
        (entry.ordinal, entry.lent) = (self.received as u32, lent);
        entry.set_pipelined(call.pipelined);
        entry.level = IdOf::<S>::of(level.into());
        entry.bytes = <S::Width as Width>::Count::of(body.len() as u32);
        if call.deadline.is_some() {
            entry.set_due(self.time.set(call.deadline));
        }
        self.answer_bytes += body.len() as u32;
        self.used_answers += 1;

        match self.judge(call, named) {
            Ok((args, settled)) => {
                let target = match call.target {
                    Target::Export { slot, .. } => RunsOn::Export(slot),
                    Target::Answer(id) => RunsOn::Answer(id),
                };
                self.hold(target.held());
                named.iter().for_each(|id| self.name_answer(id));
                if let Some(entry) = self.answers.get_mut(call.id.into()) {
                    entry.set_target(target);
                    entry.named = named;
                }
                // Calls that are ready already run first (ANS-3).
                if settled && (!S::Store::HOLDS || self.ready == 0 || named.iter().next().is_none()) {
                    return Ok(self.start(call.id, (call, parent), args));
                }
                self.keep_waiting((call, parent), body);
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

    pub(super) fn on_finish(&mut self, entries: message::Finishes<'_>) -> Result<(), Ended> {
        for (id, mode) in entries {
            if id >= self.limits.answers {
                return Err(fault(Rule::LimitExceeded));
            }
            let Some(entry) = self.answers.get_mut(id.into()) else { continue };
            let stage = entry.stage();
            if stage == Stage::Free {
                continue; // it crossed the Return (FIN-3)
            }
            entry.set_finished(true);
            match stage {
                Stage::Waiting | Stage::Ready if S::Store::HOLDS && mode == FinishMode::Interrupt => {
                    self.refuse_unstarted(id, ErrorCode::Cancelled, 0);
                }
                Stage::Running if mode == FinishMode::Interrupt => {
                    self.cancels += u32::from(!entry.cancelled());
                    entry.set_cancelled(true);
                }
                // The result is not wanted; the entry stays for those who wait for it (FIN-4).
                Stage::Waiting | Stage::Ready | Stage::Running | Stage::Refused => {}
                _ => self.close_answer(id),
            }
        }
        Ok(())
    }

    /// Whether the call keeps to the limits that we announced; its level.
    pub(super) fn admit(&mut self, call: &Call<'_>, length: usize) -> Result<u16, Ended> {
        if call.id >= self.limits.answers {
            return Err(fault(Rule::LimitExceeded));
        }
        while self.answers.len() <= usize::from(call.id) {
            // Only the heap can fail here; then it is we who are out of resources.
            self.answers.grow().ok_or(Ended::Closed(message::CloseCode::OutOfResources))?;
        }
        if self.answers.get(call.id.into()).is_none_or(|entry| !entry.is(Stage::Free)) {
            return Err(fault(Rule::CallIdInUse));
        }
        if u64::from(self.answer_bytes) + length as u64 > self.limits.call_bytes.into() {
            return Err(fault(Rule::LimitExceeded));
        }
        let Some(parent) = call.parent else { return Ok(0) };
        let level = match self.questions.get(parent.into()) {
            Some(question) if question.state() == QuestionState::Open => question.level.into() as u16,
            _ => return Err(fault(Rule::ParentNotOpen)),
        };
        let level = level.saturating_add(1);
        if level >= self.limits.levels {
            return Err(fault(Rule::LimitExceeded));
        }
        Ok(level)
    }

    /// Whether the call can run or wait: its arguments, and whether all answers that it names have settled; or why not. Looks and
    /// changes nothing; malformed values are the call's failure alone (CAL-7).
    pub(super) fn judge<'f>(
        &self,
        call: &Call<'f>,
        named: Named<IdOf<S>>,
    ) -> Result<(Values<'f>, bool), (ErrorCode, u32)> {
        let args =
            Values::check(call.values, Top::Arguments, call.handles.len()).map_err(|_| (ErrorCode::Malformed, 0))?;
        let receiver = match call.target {
            Target::Export { slot, generation } => Some((slot, generation)),
            Target::Answer(_) => None,
        };
        self.check_homes(receiver, call.handles)?;
        let settled = self.named_state(named)?;
        if call.deadline.is_some_and(Deadline::is_too_late) {
            return Err((ErrorCode::DeadlineExceeded, 0));
        }
        Ok((args, settled))
    }

    /// Whether all answers that a call names have settled; an error if one is not there or has failed (ANS-3, ANS-7).
    pub(super) fn named_state(&self, named: Named<IdOf<S>>) -> Result<bool, (ErrorCode, u32)> {
        let mut settled = true;
        for id in named.iter() {
            let entry = self.answers.get(id.into()).filter(|entry| entry.pipelined() && !entry.is(Stage::Free));
            let entry = entry.ok_or((ErrorCode::NoSuchAnswer, 0))?;
            match entry.stage() {
                Stage::Refused | Stage::Failed => return Err((ErrorCode::Broken, entry.code().number())),
                Stage::Revoked => return Err((ErrorCode::Revoked, entry.reason().number().into())),
                Stage::NotKept => return Err((ErrorCode::NotKept, 0)),
                Stage::Export => {
                    if let Held::Export(slot) = entry.held()
                        && let Some(reason) = self.exports.get(slot).and_then(Self::withdrawn)
                    {
                        return Err((ErrorCode::Revoked, reason.number().into()));
                    }
                }
                Stage::None | Stage::Import | Stage::Kept => {}
                Stage::Free | Stage::Waiting | Stage::Ready | Stage::Running => settled = false,
            }
        }
        Ok(settled)
    }

    /// The call runs: what the host is told. With the call comes the ordinal of its parent.
    pub(super) fn start<'f>(
        &mut self,
        id: u16,
        (call, parent): (&Call<'f>, u32),
        args: Values<'f>,
    ) -> Option<Event<'f>> {
        let entry = self.answers.get_mut(id.into())?;
        entry.set_stage(Stage::Running);
        let (target, ordinal) = (entry.target(), entry.ordinal);
        let deadline = self.time.left(entry.due()).map(|deadline| deadline.remaining);
        let receiver = match target {
            RunsOn::Export(slot) => Receiver::Object(self.exports.get(slot)?.key),
            RunsOn::Answer(named) => match self.resolve(Descriptor::Answer(named))? {
                Reference::Local(key) => Receiver::Object(key),
                Reference::Import(import) | Reference::Weak(import) => Receiver::Import(import),
                Reference::Value(kept) => Receiver::Value(kept),
                Reference::None => Receiver::Value(Kept(named)),
            },
            RunsOn::Nothing => return None,
        };
        let parent = call.parent.map(|id| Question { id, ordinal: parent });
        Some(Event::Request(Request {
            call: Answer { id, ordinal },
            pipelined: call.pipelined,
            parent: parent.filter(|&parent| self.open_question(parent).is_some()),
            deadline,
            receiver,
            op: call.op,
            handles: call.handles,
            args,
        }))
    }

    /// The call waits, its bytes in the store. Our objects among its arguments are held meanwhile.
    pub(super) fn keep_waiting(&mut self, (call, parent): (&Call<'_>, u32), body: &[u8]) {
        if !self.store_call((call.id, parent), call.handles, Stage::Waiting, body) {
            self.release_handles(call.handles);
            self.refuse_entry(call.id, ErrorCode::Overloaded, 0);
        }
    }

    /// Keeps a call in the store, which waits or is ready; false if that has no room.
    fn store_call(&mut self, (id, parent): (u16, u32), handles: Handles<'_>, stage: Stage, body: &[u8]) -> bool {
        if !S::Store::HOLDS || !self.store.put(parked_key(id), body) {
            return false;
        }
        if let Some(entry) = self.answers.get_mut(id.into()) {
            entry.set_stage(stage);
            entry.set_parent(parent);
        }
        self.queue.push_back(&mut self.answers, id.into());
        *(if stage == Stage::Ready { &mut self.ready } else { &mut self.waiting }) += 1;
        self.parked += body.len() + S::Store::OVERHEAD;
        handles.for_each(|handle| self.hold_home(handle));
        true
    }

    /// The call waits no more: its bytes leave the store, and so do the holds of our objects among its arguments.
    pub(super) fn unpark(&mut self, id: u16) {
        match self.answers.get(id.into()).map(Entry::stage) {
            Some(Stage::Waiting) => self.waiting -= 1,
            Some(Stage::Ready) => self.ready -= 1,
            _ => return,
        }
        self.queue.remove(&mut self.answers, id.into());
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
    pub(super) fn refuse_unstarted(&mut self, id: u16, code: ErrorCode, detail: u32) {
        self.break_unstarted(id, code, detail);
        self.recheck_waiting();
    }

    pub(super) fn break_unstarted(&mut self, id: u16, code: ErrorCode, detail: u32) {
        if S::Store::HOLDS {
            let mut handles = StoredHandles::new(&self.store, parked_key(id));
            while let Some(handle) = handles.next(&self.store) {
                self.release_handle(handle);
            }
            self.unpark(id);
        }
        self.list_refused(id, code, detail);
    }

    /// The session itself will answer (ADM-6).
    pub(super) fn refuse_entry(&mut self, id: u16, code: ErrorCode, detail: u32) {
        self.list_refused(id, code, detail);
        self.recheck_waiting();
    }

    pub(super) fn list_refused(&mut self, id: u16, code: ErrorCode, detail: u32) {
        let Some(entry) = self.answers.get_mut(id.into()) else { return };
        entry.end(Fate::refused(code, detail));
        if !entry.listed() {
            entry.set_listed(true);
            self.refused.push_back(&mut self.answers, id.into());
        }
    }

    /// Looks again at all calls that wait: some may run now, some are broken (ANS-3). A chain of calls that break each
    /// other is gone through here, pass by pass, and not by recursion: the peer chooses its length.
    pub(super) fn recheck_waiting(&mut self) {
        let mut again = S::Store::HOLDS;
        while core::mem::take(&mut again) && self.waiting > 0 {
            for id in 0..self.answers.len() as u32 {
                let Some(entry) = self.answers.get_mut(id).filter(|entry| entry.is(Stage::Waiting)) else {
                    continue;
                };
                let named = entry.named;
                match self.named_state(named) {
                    Ok(false) => {}
                    Ok(true) => {
                        if let Some(entry) = self.answers.get_mut(id) {
                            entry.set_stage(Stage::Ready);
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
    pub(super) fn settle(&mut self, id: u16, end: Fate) {
        let Some(entry) = self.answers.get_mut(id.into()) else { return };
        let (target, named) = (entry.target(), core::mem::take(&mut entry.named));
        let is_named = entry.waiters.into() > 0;
        entry.end(end);
        entry.set_target(RunsOn::Nothing);
        let is_cancelled = entry.cancelled();
        entry.set_cancelled(false);
        let bytes = core::mem::take(&mut entry.bytes).into();
        self.cancels -= u32::from(is_cancelled);
        self.answer_bytes -= bytes;
        self.unhold(target.held());
        self.end_borrows(id);
        for named in named.iter() {
            if let Some(entry) = self.answers.get_mut(named.into()) {
                entry.waiters.down();
            }
            self.let_go_if_revoked(named);
            self.close_answer(named);
        }
        if is_named {
            self.recheck_waiting();
        }
        self.close_answer(id);
    }

    /// Frees an answer that has settled and that nobody can name any more (ANS-1).
    pub(super) fn close_answer(&mut self, id: u16) {
        let Some(entry) = self.answers.get_mut(id.into()) else { return };
        if !entry.has_settled() || entry.waiters.into() > 0 || entry.pipelined() && !entry.finished() {
            return;
        }
        let (held, is_kept) = (entry.held(), entry.is(Stage::Kept));
        *entry = Entry::BLANK;
        self.used_answers -= 1;
        self.unhold(held);
        if S::Store::HOLDS && is_kept {
            self.drop_kept(id);
        }
    }

    pub(super) fn drop_kept(&mut self, id: u16) {
        let mut handles = StoredHandles::new(&self.store, kept_key(id));
        while let Some(handle) = handles.next(&self.store) {
            match handle {
                Descriptor::Sender { slot, .. } | Descriptor::Weak { slot, .. } => self.unhold_export(slot),
                Descriptor::Receiver { slot, generation } => self.release_entry(slot, generation),
                Descriptor::Answer(_) | Descriptor::Borrowed { .. } => {}
            }
        }
        self.store.remove(kept_key(id));
    }

    pub(super) fn name_answer(&mut self, id: u16) {
        if let Some(entry) = self.answers.get_mut(id.into()) {
            entry.waiters.up();
        }
    }
}

/// A call's id, as it stands in an entry.
pub(super) type IdOf<S> = <<S as Storage>::Width as Width>::Id;

/// The answers that a call names, as target or among its handles; None if there are too many (ANS-2).
fn named_answers<S: Storage>(call: &Call<'_>) -> Option<Named<IdOf<S>>> {
    let mut named = Named::NONE;
    if let Target::Answer(id) = call.target {
        named.add(id);
    }
    for handle in call.handles {
        if let Descriptor::Answer(id) = handle
            && !named.add(id)
        {
            return None;
        }
    }
    Some(named)
}
