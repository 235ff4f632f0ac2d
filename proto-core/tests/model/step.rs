//! What the two applications and the wire can do.

use farref_core::frame::{Split, split};
use farref_core::message::{Descriptor, ErrorCode, FinishMode, Handles, Message, Op};
use farref_core::session::{
    Call, CallError, Callee, Event, Import, Notice, ObjectKey, Receiver, Ref, Reference, ReplyError, ReplyRefused,
    Request, Return,
};
use farref_core::value::{Value, Values};

use super::Setup;
use super::state::{Broken, Made, Meant, Outcome, Record, Serving, Side, Stage, State};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Call {
        side: usize,
        on: On,
        pipelined: bool,
        with: With,
    },
    Reply {
        side: usize,
        call: u16,
        reply: Reply,
    },
    Cancel {
        side: usize,
        call: u16,
        mode: FinishMode,
    },
    /// One hold of a reference is given back.
    Drop {
        side: usize,
        held: usize,
    },
    /// What is only state becomes records: refusals, Finish, Release.
    Flush {
        side: usize,
    },
    /// The other side's next record is received.
    Receive {
        side: usize,
    },
    PollReady {
        side: usize,
    },
    PollNotice {
        side: usize,
    },
    /// The connection is lost with all that is under way, and the first side opens another. That one side notices late is
    /// nothing new: what it then sends or receives might as well have been earlier.
    Cut,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Directory,
    /// The reference held in that slot.
    Held(u32),
    /// The answer to that call.
    Promise(u16),
}

/// What a call has among its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    Nothing,
    /// An object of the caller.
    Object(usize),
    /// The same, lent for the time of the call.
    Lent(usize),
    /// The reference held in that slot: it comes home.
    Held(u32),
    /// The answer to that call.
    Promise(u16),
}

/// What a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An object of the callee.
    Object(usize),
    /// A reference that the callee holds: it comes home.
    Home,
    Value,
    Error,
}

type Step = Result<(), Broken>;

impl Setup {
    pub fn all_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (side, here) in state.sides.iter().enumerate() {
            self.calls_of(side, here, actions);
            for serving in &here.serving {
                let call = serving.call.id();
                for &reply in self.replies[side] {
                    if reply != Reply::Home || here.usable().next().is_some() {
                        actions.push(Action::Reply { side, call, reply });
                    }
                }
            }
            for (call, made) in here.open_calls() {
                if here.left.cancels > 0 && made.cancelled.is_none() {
                    let modes = [FinishMode::Abandon, FinishMode::Interrupt];
                    actions.extend(modes.map(|mode| Action::Cancel { side, call, mode }));
                }
            }
            actions.extend((0..here.held.len()).map(|held| Action::Drop { side, held }));
            if !state.wires[1 - side].is_empty() {
                actions.push(Action::Receive { side });
            }
            actions.push(Action::Flush { side });
            if !self.eager {
                actions.extend([Action::PollReady { side }, Action::PollNotice { side }]);
            }
        }
        if state.cuts.is_some_and(|cuts| cuts > 0) {
            actions.push(Action::Cut);
        }
    }

    fn calls_of(&self, side: usize, here: &Side, actions: &mut Vec<Action>) {
        if here.left.calls == 0 || !here.core.can_call() {
            return;
        }
        // Whoever has abandoned a call has no promise any more.
        let is_promise = |made: &Made| made.pipelined && made.cancelled != Some(FinishMode::Abandon);
        let promises: Vec<_> = here.open_calls().filter(|(_, made)| is_promise(made)).map(|(id, _)| id).collect();
        let mut on = vec![On::Directory];
        on.extend(here.usable().map(|hold| On::Held(hold.slot)));
        on.extend(promises.iter().map(|&id| On::Promise(id)));
        let mut with = vec![];
        if self.plain[side] {
            with.push(With::Nothing);
        }
        if here.left.sends > 0 {
            with.extend((0..here.objects.len()).map(With::Object));
            if self.lends {
                with.extend((0..here.objects.len()).map(With::Lent));
            }
        }
        if self.arguments {
            with.extend(here.usable().map(|hold| With::Held(hold.slot)));
            with.extend(promises.iter().map(|&id| With::Promise(id)));
        }
        for &on in &on {
            for &with in &with {
                for &pipelined in self.pipelined[side] {
                    actions.push(Action::Call { side, on, pipelined, with });
                }
            }
        }
    }

    /// None if nothing changes.
    pub fn step(&self, last: &State, action: Action) -> Option<State> {
        if last.broken.is_some() {
            return None;
        }
        let mut state = last.clone();
        let mut done = state.act(action);
        if self.eager {
            for side in 0..2 {
                while done.is_ok() && state.poll(side, &mut done) {}
            }
        }
        let ended = state.sides.iter().any(|side| side.core.ended().is_some());
        state.broken = if ended { Some(Broken::Ended) } else { done.err() };
        (state != *last).then_some(state)
    }
}

impl State {
    fn act(&mut self, action: Action) -> Step {
        match action {
            Action::Call { side, on, pipelined, with } => self.call(side, on, pipelined, with),
            Action::Reply { side, call, reply } => self.reply(side, call, reply),
            Action::Cancel { side, call, mode } => self.cancel(side, call, mode),
            Action::Drop { side, held } => self.drop_one(side, held),
            Action::Flush { side } => {
                self.flush(side);
                Ok(())
            }
            Action::Cut => self.cut(),
            Action::Receive { side } => self.receive(side),
            Action::PollReady { side } => self.poll_ready(side).map(|_| ()),
            Action::PollNotice { side } => self.poll_notice(side).map(|_| ()),
        }
    }

    /// Whether there was something to poll.
    fn poll(&mut self, side: usize, done: &mut Step) -> bool {
        let polled = self.poll_ready(side).and_then(|ready| Ok(ready | self.poll_notice(side)?));
        polled.unwrap_or_else(|broken| {
            *done = Err(broken);
            false
        })
    }

    fn flush(&mut self, side: usize) {
        loop {
            let output = self.sides[side].core.transmit().to_vec();
            if output.is_empty() {
                return;
            }
            self.send(side, &output, None);
        }
    }

    fn send(&mut self, side: usize, mut output: &[u8], mut meant: Option<ObjectKey>) {
        self.sides[side].core.transmitted(output.len());
        while let Split::Record { body, rest } = split(output, 64) {
            let mut again = false;
            if self.cuts.is_some() && Message::is_sequenced(body) {
                let here = &mut self.sides[side];
                // A record that was noted goes out for the first time, or again.
                meant = here.meant.get(here.next).copied().flatten();
                again = here.next < here.furthest;
                here.next += 1;
                here.furthest = here.furthest.max(here.next);
            }
            self.wires[side].push_back(Record { body: body.to_vec(), meant, again });
            output = rest;
        }
    }

    /// Notes what the handles of the last record of a side mean. What is only state has none.
    fn note_meant(&mut self, side: usize, meant: Option<ObjectKey>) {
        let here = &mut self.sides[side];
        here.meant.resize(here.core.ordinals().0 as usize, None);
        if let Some(last) = here.meant.last_mut() {
            *last = meant;
        }
    }

    fn cut(&mut self) -> Step {
        self.cuts = self.cuts.map(|cuts| cuts - 1);
        self.wires = Default::default();
        if !self.sides.iter_mut().all(|side| side.core.park()) {
            return Err(Broken::NotResumed);
        }
        self.sides[0].core.resume();
        self.flush(0);
        Ok(())
    }

    /// From now on a side sends what the other has not got.
    fn go_on(&mut self, side: usize, got: u64) {
        self.sides[side].next = got as usize - 1;
    }

    /// What a command has written goes under way. Output and wire are one queue to the receiver, so that a state of its own
    /// for records that were written and not taken would show nothing new; but what is only state must not be turned into
    /// records by this, since it may as well stay behind. Hence the look at a copy.
    fn send_written(&mut self, side: usize, meant: Option<ObjectKey>) {
        if self.cuts.is_some() {
            self.note_meant(side, meant);
            return self.flush(side);
        }
        let written = self.sides[side].core.output_len();
        let output = self.sides[side].core.clone().transmit()[..written].to_vec();
        self.send(side, &output, meant);
    }

    fn call(&mut self, side: usize, on: On, pipelined: bool, with: With) -> Step {
        let here = &mut self.sides[side];
        let held = |slot| here.usable().find(|hold| hold.slot == slot).ok_or(Broken::Command);
        let promise = |id| here.made(id).map(|made| made.question).ok_or(Broken::Command);
        let (callee, target) = match on {
            On::Directory => (Callee::Import(Import::DIRECTORY), Meant::Object(ObjectKey::DIRECTORY)),
            On::Held(slot) => (Callee::Import(held(slot)?.import), Meant::Object(held(slot)?.key)),
            On::Promise(id) => (Callee::Promise(promise(id)?), Meant::Answer(id)),
        };
        let (reference, carried) = match with {
            With::Nothing => (None, None),
            With::Object(object) => (Some(Ref::Local(here.objects[object])), Some(Meant::Object(here.objects[object]))),
            With::Lent(object) => {
                (Some(Ref::Borrowed(here.objects[object])), Some(Meant::Object(here.objects[object])))
            }
            With::Held(slot) => (Some(Ref::Import(held(slot)?.import)), Some(Meant::Object(held(slot)?.key))),
            With::Promise(id) => (Some(Ref::Promise(promise(id)?)), Some(Meant::Answer(id))),
        };
        let number = here.made;
        let call = Call { pipelined, ..Call::new(callee, Op::Call).references(reference.as_slice()) };
        let asked = here.core.call(call, |writer| {
            writer.int(number.into())?;
            reference.iter().try_for_each(|_| writer.reference(0))
        });
        let question = match asked {
            Ok(question) => question,
            // The one slot is another object's (ADM-3). Nothing has changed, and whoever asked for it waits.
            Err(CallError::TableFull) if matches!(with, With::Object(_)) && here.objects.len() > 1 => return Ok(()),
            // The answer may be gone on the other side: its Finish was sent.
            Err(CallError::NotAPromise) => return Ok(()),
            Err(_) => return Err(Broken::Command),
        };
        if here.made(question.id()).is_some() {
            return Err(Broken::IdReused);
        }
        here.calls[usize::from(question.id())] = Some(Made {
            question,
            number,
            pipelined,
            target,
            carried,
            cancelled: None,
            stage: Stage::Sent,
            outcome: None,
            returned: false,
        });
        here.made += 1;
        here.left.calls -= 1;
        here.left.sends -= u8::from(matches!(with, With::Object(_) | With::Lent(_)));
        let meant = match carried {
            Some(Meant::Object(key)) => Some(key),
            _ => None,
        };
        self.send_written(side, meant);
        Ok(())
    }

    fn reply(&mut self, side: usize, id: u16, reply: Reply) -> Step {
        let number = self.sides[1 - side].made(id).ok_or(Broken::Command)?.number;
        let here = &mut self.sides[side];
        let place = here.serving.iter().position(|serving| serving.call.id() == id).ok_or(Broken::Command)?;
        let call = here.serving.remove(place).call;
        let (outcome, result) = match reply {
            Reply::Object(object) => {
                let key = here.objects[object];
                (Outcome::Object(key), here.core.reply(call, &[Ref::Local(key)], |writer| writer.reference(0)))
            }
            Reply::Home => {
                let hold = *here.usable().next().ok_or(Broken::Command)?;
                let reference = [Ref::Import(hold.import)];
                (Outcome::Home(hold.key), here.core.reply(call, &reference, |writer| writer.reference(0)))
            }
            Reply::Value => (Outcome::Value, here.core.reply(call, &[], |writer| writer.int(number.into()))),
            Reply::Error => {
                let code = ErrorCode::AccessDenied;
                (Outcome::Failed(code), here.core.reply_error(call, code, &[], |writer| writer.int(number.into())))
            }
        };
        let outcome = match result {
            Ok(()) => outcome,
            Err(ReplyError::Became(ReplyRefused::TableFull)) if here.objects.len() > 1 => {
                Outcome::Failed(ErrorCode::TableFull)
            }
            Err(_) => return Err(Broken::Command),
        };
        let meant = match outcome {
            Outcome::Object(key) | Outcome::Home(key) => Some(key),
            _ => None,
        };
        self.sides[1 - side].made_mut(id).ok_or(Broken::Command)?.outcome = Some(outcome);
        self.send_written(side, meant);
        Ok(())
    }

    fn cancel(&mut self, side: usize, id: u16, mode: FinishMode) -> Step {
        let here = &mut self.sides[side];
        let made = here.made_mut(id).ok_or(Broken::Command)?;
        made.cancelled = Some(mode);
        let question = made.question;
        here.left.cancels -= 1;
        here.core.cancel(question, mode).map_err(|_| Broken::Command)
    }

    fn drop_one(&mut self, side: usize, held: usize) -> Step {
        let here = &mut self.sides[side];
        let hold = here.held.get_mut(held).ok_or(Broken::Command)?;
        hold.count -= 1;
        let (import, lent) = (hold.import, hold.lent);
        here.held.retain(|hold| hold.count > 0);
        match here.core.release(import) {
            // Who was lent something need not know whether it is still that.
            Err(_) if !lent => Err(Broken::Command),
            _ => Ok(()),
        }
    }

    fn receive(&mut self, side: usize) -> Step {
        let Some(record) = self.wires[1 - side].pop_front() else { return Ok(()) };
        let read = Message::read(&record.body).map_err(|_| Broken::Ended)?;
        if let Message::Resume(resume) = &read {
            self.sides[side].core.accept(resume).map_err(|_| Broken::NotResumed)?;
            self.go_on(side, resume.got);
            return Ok(());
        }
        let event = self.sides[side].core.handle(&record.body).map_err(|_| Broken::Ended)?;
        match (read, event) {
            (Message::Call(call), None) => {
                self.sides[1 - side].made_mut(call.id).ok_or(Broken::WrongTarget)?.stage = Stage::Parked;
                Ok(())
            }
            (Message::Call(_), Some(Event::Request(request))) => self.on_request(side, request),
            (Message::Return(returned), None) => {
                let made = self.sides[side].made_mut(returned.id).ok_or(Broken::WrongReturn)?;
                let is_wanted = made.cancelled != Some(FinishMode::Abandon);
                self.on_returned(side, returned.id, returned.error)?;
                if is_wanted { Err(Broken::WrongReturn) } else { Ok(()) }
            }
            (Message::Return(returned), Some(Event::Return(told))) => {
                self.on_return(side, told)?;
                self.on_returned(side, returned.id, returned.error)
            }
            (Message::ResumeOk { got, .. }, None) => {
                self.go_on(side, got);
                Ok(())
            }
            (_, None) => Ok(()),
            (_, Some(_)) => Err(Broken::WrongReturn),
        }
    }

    fn poll_ready(&mut self, side: usize) -> Result<bool, Broken> {
        let mut scratch = [0; 64];
        match self.sides[side].core.poll_ready(&mut scratch) {
            Some(request) => self.on_request(side, request).map(|()| true),
            None => Ok(false),
        }
    }

    fn poll_notice(&mut self, side: usize) -> Result<bool, Broken> {
        match self.sides[side].core.poll_notice() {
            Some(Notice::Freed(key)) => self.on_freed(side, key).map(|()| true),
            Some(Notice::Interrupted(call)) => {
                let made = self.sides[1 - side].made(call.id()).ok_or(Broken::WrongReturn)?;
                let was_asked = made.cancelled == Some(FinishMode::Interrupt) && !made.returned;
                let mut serving = self.sides[side].serving.iter_mut();
                let serving = serving.find(|serving| serving.call == call).filter(|_| was_asked);
                serving.ok_or(Broken::WrongReturn)?.interrupted = true;
                Ok(true)
            }
            // No call of the model has a deadline.
            Some(Notice::DeadlineExceeded(_)) => Err(Broken::Command),
            Some(Notice::Down { .. }) => Err(Broken::Command),
            None => Ok(false),
        }
    }

    fn on_request(&mut self, side: usize, request: Request<'_>) -> Step {
        let [id, there] = [request.call.id(), 1 - side as u16];
        let there = usize::from(there);
        let made = *self.sides[there].made(id).ok_or(Broken::WrongTarget)?;
        if made.stage == Stage::Started || made.returned {
            return Err(Broken::WrongTarget);
        }
        self.check_target(side, &made, request.receiver)?;
        self.check_order(there, &made)?;
        is_number(request.args, made.number)?;
        match made.carried {
            None if request.handles.is_empty() => {}
            Some(Meant::Object(key)) => self.take_reference(side, request.handles, key)?,
            Some(Meant::Answer(id)) => self.check_argument(side, request.handles, id)?,
            None => return Err(Broken::WrongContent),
        }
        self.sides[there].made_mut(id).ok_or(Broken::WrongTarget)?.stage = Stage::Started;
        let serving = Serving { call: request.call, receiver: request.receiver, interrupted: false };
        self.sides[side].serving.push(serving);
        self.sides[side].serving.sort_by_key(|serving| serving.call.id());
        Ok(())
    }

    /// What a request is for is what the caller meant (CAL-4, ANS-4).
    fn check_target(&self, side: usize, made: &Made, receiver: Receiver) -> Step {
        let there = &self.sides[1 - side];
        let outcome = match made.target {
            Meant::Object(key) => Some(Outcome::Object(key)),
            Meant::Answer(id) => there.made(id).and_then(|named| named.outcome),
        };
        let is_right = match (outcome, receiver) {
            (Some(Outcome::Object(key)), Receiver::Object(have)) => {
                have == key && (key == ObjectKey::DIRECTORY || self.sides[side].objects.contains(&key))
            }
            (Some(Outcome::Home(key)), Receiver::Import(import)) => self.is_import_of(side, import, key),
            (Some(Outcome::Value), Receiver::Value(kept)) => {
                let named = if let Meant::Answer(id) = made.target { there.made(id) } else { None };
                let kept = self.sides[side].core.kept(kept);
                named.zip(kept).is_some_and(|(named, (_, values))| is_number(values, named.number).is_ok())
            }
            _ => false,
        };
        if is_right { Ok(()) } else { Err(Broken::WrongTarget) }
    }

    fn is_import_of(&self, side: usize, import: Import, key: ObjectKey) -> bool {
        self.sides[side].core.holds(import) && self.sides[1 - side].exported_in(import.slot()) == Some(key)
    }

    /// Calls on the same promise start in the order in which they were made (ANS-3).
    fn check_order(&self, there: usize, made: &Made) -> Step {
        let waits_before = |other: &Made| {
            other.number < made.number
                && matches!(made.target, Meant::Answer(_))
                && other.target == made.target
                && other.carried.is_none()
                && other.stage == Stage::Parked
                && !self.sides[there].is_refused(other)
        };
        match self.sides[there].open_calls().any(|(_, other)| waits_before(other)) {
            true => Err(Broken::OutOfOrder),
            false => Ok(()),
        }
    }

    /// The only handle of a message: a new hold of the application, or an object that came home.
    fn take_reference(&mut self, side: usize, handles: Handles<'_>, key: ObjectKey) -> Step {
        let (Some(handle), 1) = (handles.get(0), handles.len()) else { return Err(Broken::WrongContent) };
        let here = &mut self.sides[side];
        match (handle, here.core.resolve(handle)) {
            (
                Descriptor::Sender { slot, generation } | Descriptor::Borrowed { slot, generation },
                Some(Reference::Import(import)),
            ) => {
                let lent = matches!(handle, Descriptor::Borrowed { .. });
                here.hold(import, (slot, generation), key, lent);
                Ok(())
            }
            (Descriptor::Receiver { .. }, Some(Reference::Local(have))) if have == key => Ok(()),
            _ => Err(Broken::WrongContent),
        }
    }

    /// An argument that named an answer is what that answer settled to.
    fn check_argument(&self, side: usize, handles: Handles<'_>, id: u16) -> Step {
        let named = self.sides[1 - side].made(id).ok_or(Broken::WrongContent)?;
        let reference = handles.get(0).and_then(|handle| self.sides[side].core.resolve(handle));
        let is_right = match (named.outcome, reference) {
            (Some(Outcome::Object(key)), Some(Reference::Local(have))) => have == key,
            (Some(Outcome::Home(key)), Some(Reference::Import(import))) => self.is_import_of(side, import, key),
            (Some(Outcome::Value), Some(Reference::Value(kept))) => {
                let kept = self.sides[side].core.kept(kept);
                kept.is_some_and(|(_, values)| is_number(values, named.number).is_ok())
            }
            _ => false,
        };
        if is_right { Ok(()) } else { Err(Broken::WrongContent) }
    }

    /// A Return that is told to the application.
    fn on_return(&mut self, side: usize, told: Return<'_>) -> Step {
        let made = *self.sides[side].made(told.question.id()).ok_or(Broken::WrongReturn)?;
        let is_wanted = made.cancelled != Some(FinishMode::Abandon);
        if made.question != told.question || made.returned || !is_wanted {
            return Err(Broken::WrongReturn);
        }
        match (made.outcome, told.outcome) {
            (Some(Outcome::Object(key) | Outcome::Home(key)), Ok(())) => self.take_reference(side, told.handles, key),
            (Some(Outcome::Value), Ok(())) => is_number(told.values, made.number),
            (Some(Outcome::Failed(code)), Err(have)) if have == code => match code {
                ErrorCode::AccessDenied => is_number(told.values, made.number),
                _ => Ok(()),
            },
            // The callee's session gave it by itself.
            (None, Err(code)) if self.may_be_refused(side, &made, code) => Ok(()),
            _ => Err(Broken::WrongContent),
        }
    }

    /// Whether a call that never started may have failed like this (ANS-3, FIN-2).
    fn may_be_refused(&self, side: usize, made: &Made, code: ErrorCode) -> bool {
        let failed = |meant| match meant {
            Meant::Answer(id) => {
                self.sides[side].made(id).is_none_or(|named| matches!(named.outcome, Some(Outcome::Failed(_))))
            }
            Meant::Object(_) => false,
        };
        let never_started = made.stage == Stage::Parked;
        never_started
            && match code {
                ErrorCode::Broken => failed(made.target) || made.carried.is_some_and(failed),
                ErrorCode::Cancelled => made.cancelled == Some(FinishMode::Interrupt),
                _ => false,
            }
    }

    /// A Return came, told or not.
    fn on_returned(&mut self, side: usize, id: u16, error: Option<ErrorCode>) -> Step {
        let here = &mut self.sides[side];
        let made = here.made_mut(id).ok_or(Broken::WrongReturn)?;
        if made.returned || made.stage == Stage::Sent {
            return Err(Broken::WrongReturn);
        }
        made.returned = true;
        if made.outcome.is_none() {
            made.outcome = error.map(Outcome::Failed);
        }
        here.forget_calls();
        Ok(())
    }

    /// Freed is told when nobody holds the object: no application, no handle under way, no call that runs or waits.
    fn on_freed(&mut self, side: usize, key: ObjectKey) -> Step {
        let (here, there) = (&self.sides[side], &self.sides[1 - side]);
        let on_the_wire = self.under_way(side).any(|(message, meant)| {
            let of_sender = |handle: Descriptor| handle.of_sender().is_some();
            meant == Some(key) && super::state::handles(&message).any(of_sender)
        });
        let held = there.usable().any(|hold| hold.key == key);
        let running = here.serving.iter().any(|serving| serving.receiver == Receiver::Object(key));
        let waiting = there.open_calls().any(|(_, made)| {
            let object = match made.target {
                Meant::Object(target) => Some(target),
                Meant::Answer(id) => match there.made(id).and_then(|named| named.outcome) {
                    Some(Outcome::Object(target)) => Some(target),
                    _ => None,
                },
            };
            object == Some(key) && made.stage != Stage::Started && !there.is_refused(made)
        });
        let Some(object) = self.sides[side].objects.iter_mut().find(|object| **object == key) else {
            return Err(Broken::FreedInUse);
        };
        if on_the_wire || held || running || waiting {
            return Err(Broken::FreedInUse);
        }
        object.0 += 16;
        Ok(())
    }
}

/// The first value is the number of the call that it belongs to.
fn is_number(values: Values<'_>, number: u8) -> Step {
    match values.first() {
        Some(Value::Int(have)) if have == i64::from(number) => Ok(()),
        _ => Err(Broken::WrongContent),
    }
}
