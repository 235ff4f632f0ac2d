//! An exporter withdraws its object (REF-8) while calls on it, its Release and its next copy are under way, in all ways; and
//! what a weak reference is for goes while that is asked for it (REF-10).

use std::collections::VecDeque;

use farref_core::Uuid;
use farref_core::frame::{Split, split};
use farref_core::message::{DownReason, ErrorCode, Limits, Message, Op, Target};
use farref_core::session::{
    Answer, Call, CallError, Callee, Config, Event, Import, LinkMode, Micro, Notice, ObjectKey, Question, Receiver,
    Ref, Reference, ReplyError, ReplyRefused, Request, Return, Session, Tables,
};
use farref_core::value::{Value, Values};
use stateright::{Model, Property};

/// Two slots beside the directory: one may be a tombstone.
pub type Core = Session<Micro<3, 3, CALLS, 256, 128>>;

pub const CALLS: usize = 2;

/// The side that calls and holds, and the one that exports.
const HOLDER: usize = 0;
const OWNER: usize = 1;

/// What the two may do.
#[derive(Clone, Debug)]
pub struct Setup {
    pub calls: u8,
    /// How often the object is withdrawn, each time by that many commands.
    pub revokes: u8,
    pub twice: bool,
    /// Whether what is held comes home as an argument.
    pub home: bool,
    /// The directory gives a weak reference, which is asked for the object.
    pub weak: bool,
    /// Whether the directory's answer may be called before it is there.
    pub pipelined: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub cores: [Core; 2],
    /// Bodies under way, by their sender, and the object that a handle means.
    wires: [VecDeque<(Vec<u8>, Option<ObjectKey>)>; 2],
    held: Vec<Hold>,
    calls: [Option<Made>; CALLS],
    made: u8,
    serving: Vec<(Answer, Receiver)>,
    /// The key that the object, or the weak reference, has now; one that was withdrawn or freed is never used again.
    key: ObjectKey,
    /// With a weak reference: the key that the object has now, if it is still there, and whether the holder may hold it.
    strong: Option<ObjectKey>,
    strong_is_out: bool,
    /// Keys that were withdrawn, and of them those that were not told to be free.
    revoked: Vec<ObjectKey>,
    dying: Vec<ObjectKey>,
    revokes: u8,
    broken: Option<Broken>,
}

/// A reference that is held, so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hold {
    import: Import,
    key: ObjectKey,
    count: u8,
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Made {
    question: Question,
    number: u8,
    pipelined: bool,
    on: Meant,
    carried: Option<ObjectKey>,
    started: bool,
    outcome: Option<ObjectKey>,
    returned: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Meant {
    Object(ObjectKey),
    Answer(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Broken {
    Ended,
    Command,
    /// A call reached an object that was withdrawn, or another one.
    WrongTarget,
    WrongReturn,
    /// A Down for what is not held, was not withdrawn, or was told before.
    WrongDown,
    FreedInUse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Ask {
        pipelined: bool,
    },
    Call {
        held: usize,
    },
    /// What is held is an argument: it comes home.
    Home {
        held: usize,
    },
    CallPromise {
        call: u16,
    },
    Drop {
        held: usize,
    },
    /// The object is the answer, or, of a weak reference, what it is for.
    Give {
        call: usize,
    },
    Answer {
        call: usize,
    },
    Revoke,
    Flush {
        side: usize,
    },
    Receive {
        side: usize,
    },
}

type Step = Result<(), Broken>;

/// Two sessions that have heard each other's Hello.
pub fn greeted() -> [Core; 2] {
    let limits = Limits { max_message: 64, imports: 3, answers: CALLS as u16, call_bytes: 40, handles: 2, levels: 3 };
    let config = Config {
        limits,
        exports: 3,
        calls: CALLS as u16,
        out_bytes: 256,
        store_bytes: 128,
        peer: Uuid::nil(),
        incarnation: 0,
        link: LinkMode::Off,
        patience: None,
    };
    let mut cores = [Core::new(config), Core::new(config)];
    for side in 0..2 {
        let hello = cores[side].transmit().to_vec();
        cores[side].transmitted(hello.len());
        let Split::Record { body, rest: [] } = split(&hello, 256) else { panic!("no Hello") };
        cores[1 - side].handle(body).expect("an honest Hello");
    }
    cores
}

impl Model for Setup {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            cores: greeted(),
            wires: Default::default(),
            held: vec![],
            calls: [None; CALLS],
            made: 0,
            serving: vec![],
            key: ObjectKey(1),
            strong: self.weak.then_some(ObjectKey(100)),
            strong_is_out: false,
            revoked: vec![],
            dying: vec![],
            revokes: 0,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.made < self.calls && state.cores[HOLDER].can_call() {
            actions.push(Action::Ask { pipelined: false });
            if self.pipelined {
                actions.push(Action::Ask { pipelined: true });
                let promises = state.open().filter(|(_, made)| made.pipelined);
                actions.extend(promises.map(|(call, _)| Action::CallPromise { call }));
            }
            let held = 0..state.held.len();
            actions.extend(held.clone().map(|held| Action::Call { held }));
            if self.home {
                actions.extend(held.map(|held| Action::Home { held }));
            }
        }
        actions.extend((0..state.held.len()).map(|held| Action::Drop { held }));
        for (call, &(_, receiver)) in state.serving.iter().enumerate() {
            // The directory gives the object; a call on the object has a value, and one on a weak reference the object.
            let gives = receiver == Receiver::Object(ObjectKey::DIRECTORY) || self.weak && state.strong.is_some();
            actions.push(if gives { Action::Give { call } } else { Action::Answer { call } });
        }
        if state.revokes < self.revokes && !state.strong_is_out {
            actions.push(Action::Revoke);
        }
        for side in 0..2 {
            actions.push(Action::Flush { side });
            if !state.wires[1 - side].is_empty() {
                actions.push(Action::Receive { side });
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        if last.broken.is_some() {
            return None;
        }
        let mut state = last.clone();
        let done = state.act(self, action).and_then(|()| state.poll());
        let ended = state.cores.iter().any(|core| core.ended().is_some());
        state.broken = if ended { Some(Broken::Ended) } else { done.err() };
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no session ends: both are honest", |_, state: &State| !state.is(Broken::Ended)),
            Property::always("no command fails", |_, state: &State| !state.is(Broken::Command)),
            Property::always("REF-8: no call starts on what was withdrawn", |_, state: &State| {
                !state.is(Broken::WrongTarget)
            }),
            Property::always("CAL-2, REF-8: each call ends as it should", |_, state: &State| {
                !state.is(Broken::WrongReturn)
            }),
            Property::always("REF-8: who holds it is told once, nobody else", |_, state: &State| {
                !state.is(Broken::WrongDown)
            }),
            Property::always("freed is what nobody needs", |_, state: &State| !state.is(Broken::FreedInUse)),
            Property::always("what is held is live or a tombstone", |_, state: &State| state.names_are_right()),
            Property::always("at rest nothing is left but what is held", |_, state: &State| {
                !state.is_idle() || state.is_exact()
            }),
            Property::sometimes("a Down crosses a Release", |_, state: &State| {
                state.crosses(is_down, |message| matches!(message, Message::Release(_)))
            }),
            Property::sometimes("a Down crosses a call on its object", |_, state: &State| {
                state.crosses(is_down, |message| {
                    matches!(message, Message::Call(call) if !matches!(call.target, Target::Export { slot: 0, .. }))
                })
            }),
            Property::sometimes("a Release crosses the next copy and its Down", |setup: &Setup, state: &State| {
                let copy = |message: &Message<'_>| matches!(message, Message::Return(back) if !back.handles.is_empty());
                let is_release = |message: &Message<'_>| matches!(message, Message::Release(_));
                setup.weak || state.crosses(is_down, is_release) && state.crosses(copy, is_release)
            }),
            Property::sometimes("another slot is sent beside the tombstone", |setup: &Setup, state: &State| {
                setup.weak || state.held.len() == 2 && state.held.iter().any(|hold| hold.told)
            }),
            Property::sometimes("a call waits for what is withdrawn", |setup: &Setup, state: &State| {
                !setup.pipelined
                    || state.open().any(|(_, made)| match made.on {
                        Meant::Answer(_) => !made.started && state.returns_revoked(),
                        Meant::Object(_) => false,
                    })
            }),
            Property::sometimes("an Upgrade crosses the end of its object", |setup: &Setup, state: &State| {
                let upgrade = |message: &Message<'_>| matches!(message, Message::Call(call) if call.op == Op::Upgrade);
                !setup.weak || state.crosses(is_down, upgrade)
            }),
        ]
    }
}

fn is_down(message: &Message<'_>) -> bool {
    matches!(message, Message::Down(_))
}

impl State {
    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn open(&self) -> impl Iterator<Item = (u16, &Made)> {
        let calls = self.calls.iter().enumerate();
        calls.filter_map(|(id, made)| Some((id as u16, made.as_ref().filter(|made| !made.returned)?)))
    }

    fn act(&mut self, setup: &Setup, action: Action) -> Step {
        let directory = Meant::Object(ObjectKey::DIRECTORY);
        match action {
            Action::Ask { pipelined } => {
                self.call(Callee::Import(Import::DIRECTORY), directory, pipelined, None, Op::Call)
            }
            Action::Call { held } => {
                let Hold { import, key, told, .. } = self.held[held];
                let op = if setup.weak && key.0 < 100 { Op::Upgrade } else { Op::Call };
                let called = self.call(Callee::Import(import), Meant::Object(key), false, None, op);
                // Who was told makes no calls on it any more.
                if told == called.is_err() { Ok(()) } else { Err(Broken::Command) }
            }
            Action::Home { held } => {
                let carried = self.held[held];
                self.call(Callee::Import(Import::DIRECTORY), directory, false, Some(carried), Op::Call)
            }
            Action::CallPromise { call } => {
                let question = self.calls[usize::from(call)].ok_or(Broken::Command)?.question;
                self.call(Callee::Promise(question), Meant::Answer(call), false, None, Op::Call)
            }
            Action::Drop { held } => {
                let hold = &mut self.held[held];
                hold.count -= 1;
                let import = hold.import;
                self.held.retain(|hold| hold.count > 0);
                self.cores[HOLDER].release(import).map_err(|_| Broken::Command)
            }
            Action::Give { call } => self.give(setup, call),
            Action::Answer { call } => {
                let (answer, _) = self.serving.remove(call);
                self.cores[OWNER].reply(answer, &[], |writer| writer.int(7)).map_err(|_| Broken::Command)?;
                self.send_written(OWNER, None);
                Ok(())
            }
            Action::Revoke => {
                self.revokes += 1;
                let reason = if setup.weak { DownReason::Gone } else { DownReason::Revoked };
                let key = self.key;
                for _ in 0..=u8::from(setup.twice) {
                    // Neither the holder nor a call may have it: then it goes as it came.
                    if self.cores[OWNER].revoke(key, reason).is_ok() && !self.revoked.contains(&key) {
                        self.revoked.push(key);
                        self.dying.push(key);
                    }
                }
                self.key.0 += 1;
                if setup.weak {
                    self.strong = None;
                }
                Ok(())
            }
            Action::Flush { side } => loop {
                let output = self.cores[side].transmit().to_vec();
                if output.is_empty() {
                    return Ok(());
                }
                self.send(side, &output, None);
            },
            Action::Receive { side } => self.receive(side),
        }
    }

    fn call(&mut self, callee: Callee, on: Meant, pipelined: bool, carried: Option<Hold>, op: Op) -> Step {
        let number = self.made;
        let reference = carried.map(|hold| Ref::Import(hold.import));
        let call = Call { pipelined, ..Call::new(callee, op).references(reference.as_slice()) };
        let asked = self.cores[HOLDER].call(call, |writer| {
            writer.int(number.into())?;
            reference.iter().try_for_each(|_| writer.reference(0))
        });
        let question = match asked {
            Ok(question) => question,
            Err(CallError::NotAPromise) => return Ok(()),
            Err(_) => return Err(Broken::Command),
        };
        let carried = carried.map(|hold| hold.key);
        let place = &mut self.calls[usize::from(question.id())];
        if place.is_some_and(|made| !made.returned) {
            return Err(Broken::Command);
        }
        let (started, outcome, returned) = Default::default();
        *place = Some(Made { question, number, pipelined, on, carried, started, outcome, returned });
        self.made += 1;
        self.send_written(HOLDER, carried);
        Ok(())
    }

    fn give(&mut self, setup: &Setup, call: usize) -> Step {
        let (answer, receiver) = self.serving.remove(call);
        let is_directory = receiver == Receiver::Object(ObjectKey::DIRECTORY);
        let (key, reference) = match self.strong {
            Some(strong) if !is_directory => (strong, Ref::Local(strong)),
            _ if setup.weak => (self.key, Ref::Weak(self.key)),
            _ => (self.key, Ref::Local(self.key)),
        };
        match self.cores[OWNER].reply(answer, &[reference], |writer| writer.reference(0)) {
            Ok(()) => {}
            // Both slots are taken, one by a tombstone.
            Err(ReplyError::Became(ReplyRefused::TableFull)) => {
                self.send_written(OWNER, None);
                return Ok(());
            }
            Err(_) => return Err(Broken::Command),
        }
        self.strong_is_out |= Some(key) == self.strong;
        let made = self.calls[usize::from(answer.id())].as_mut().ok_or(Broken::WrongTarget)?;
        made.outcome = Some(key);
        self.send_written(OWNER, Some(key));
        Ok(())
    }

    /// As in the other model: what a command has written goes under way, what is only state stays behind.
    fn send_written(&mut self, side: usize, meant: Option<ObjectKey>) {
        let written = self.cores[side].output_len();
        let output = self.cores[side].clone().transmit()[..written].to_vec();
        self.send(side, &output, meant);
    }

    fn send(&mut self, side: usize, mut output: &[u8], meant: Option<ObjectKey>) {
        self.cores[side].transmitted(output.len());
        while let Split::Record { body, rest } = split(output, 64) {
            self.wires[side].push_back((body.to_vec(), meant));
            output = rest;
        }
    }

    fn receive(&mut self, side: usize) -> Step {
        let Some((body, meant)) = self.wires[1 - side].pop_front() else { return Ok(()) };
        let mut core = self.cores[side].clone();
        let event = core.handle(&body).map_err(|_| Broken::Ended);
        self.cores[side] = core.clone();
        match event? {
            Some(Event::Request(request)) => self.on_request(request),
            Some(Event::Return(told)) => self.on_return(&core, told, meant),
            _ => Ok(()),
        }
    }

    fn poll(&mut self) -> Step {
        let mut scratch = [0; 64];
        loop {
            let mut core = self.cores[OWNER].clone();
            if let Some(request) = core.poll_ready(&mut scratch) {
                self.cores[OWNER] = core;
                self.on_request(request)?;
                continue;
            }
            match (self.cores[OWNER].poll_notice(), self.cores[HOLDER].poll_notice()) {
                (None, None) => return Ok(()),
                (freed, down) => {
                    match freed {
                        Some(Notice::Freed(key)) => self.on_freed(key)?,
                        Some(_) => return Err(Broken::Command),
                        None => {}
                    }
                    match down {
                        Some(Notice::Down { import, .. }) => self.on_down(import)?,
                        Some(_) => return Err(Broken::Command),
                        None => {}
                    }
                }
            }
        }
    }

    fn on_request(&mut self, request: Request<'_>) -> Step {
        let revoked = self.revoked.clone();
        let outcome = |call: u16| self.calls[usize::from(call)].and_then(|made| made.outcome);
        let made = self.calls[usize::from(request.call.id())].ok_or(Broken::WrongTarget)?;
        let expected = match made.on {
            Meant::Object(key) => key,
            Meant::Answer(call) => outcome(call).ok_or(Broken::WrongTarget)?,
        };
        let is_it = request.receiver == Receiver::Object(expected);
        if !is_it || made.started || revoked.contains(&expected) || !is_number(request.args, made.number) {
            return Err(Broken::WrongTarget);
        }
        let carried = { request.handles }.next().and_then(|handle| self.cores[OWNER].resolve(handle));
        if carried != made.carried.map(Reference::Local) || made.carried.is_some_and(|key| revoked.contains(&key)) {
            return Err(Broken::WrongTarget);
        }
        if let Some(made) = &mut self.calls[usize::from(request.call.id())] {
            made.started = true;
        }
        self.serving.push((request.call, request.receiver));
        self.serving.sort_by_key(|(call, _)| call.id());
        Ok(())
    }

    fn on_return(&mut self, core: &Core, told: Return<'_>, meant: Option<ObjectKey>) -> Step {
        let id = usize::from(told.question.id());
        let made = self.calls[id].filter(|made| !made.returned && made.question == told.question);
        let made = made.ok_or(Broken::WrongReturn)?;
        let named = match made.on {
            Meant::Object(key) => Some(key),
            Meant::Answer(call) => self.calls[usize::from(call)].and_then(|made| made.outcome),
        };
        match told.outcome {
            Ok(()) if !made.started => return Err(Broken::WrongReturn),
            Ok(()) => {}
            Err(ErrorCode::TableFull) if made.started && made.outcome.is_none() => {}
            // The directory's answer had no room, or the named answer was a value.
            Err(ErrorCode::Broken) if !made.started && matches!(made.on, Meant::Answer(_)) && named.is_none() => {}
            Err(ErrorCode::Revoked) => {
                let is_revoked = |key: ObjectKey| self.revoked.contains(&key);
                if made.started || !(named.is_some_and(is_revoked) || made.carried.is_some_and(is_revoked)) {
                    return Err(Broken::WrongReturn);
                }
            }
            Err(_) => return Err(Broken::WrongReturn),
        }
        if let Some(handle) = { told.handles }.next() {
            let key = meant.filter(|_| made.outcome == meant).ok_or(Broken::WrongReturn)?;
            let resolved = core.resolve(handle);
            let (Some(Reference::Import(import)) | Some(Reference::Weak(import))) = resolved else {
                return Err(Broken::WrongReturn);
            };
            match self.held.iter_mut().find(|hold| hold.import == import) {
                Some(hold) if hold.key == key => hold.count += 1,
                Some(_) => return Err(Broken::WrongReturn),
                None => self.held.push(Hold { import, key, count: 1, told: false }),
            }
            self.held.sort_by_key(|hold| hold.import);
        }
        if let Some(made) = &mut self.calls[id] {
            made.returned = true;
        }
        // What no open call names is forgotten.
        for id in 0..CALLS {
            let is_named = self.open().any(|(_, made)| made.on == Meant::Answer(id as u16));
            if !is_named && self.calls[id].is_some_and(|made| made.returned) {
                self.calls[id] = None;
            }
        }
        Ok(())
    }

    fn on_down(&mut self, import: Import) -> Step {
        let revoked = &self.revoked;
        let hold = self.held.iter_mut().find(|hold| hold.import == import);
        let hold = hold.filter(|hold| !hold.told && revoked.contains(&hold.key)).ok_or(Broken::WrongDown)?;
        hold.told = true;
        Ok(())
    }

    fn on_freed(&mut self, key: ObjectKey) -> Step {
        if self.serving.iter().any(|&(_, receiver)| receiver == Receiver::Object(key)) {
            return Err(Broken::FreedInUse);
        }
        if let Some(place) = self.dying.iter().position(|&dying| dying == key) {
            self.dying.remove(place);
            return Ok(());
        }
        let is_known = key == self.key || Some(key) == self.strong;
        let under_way = self.wires[OWNER].iter().any(|&(_, meant)| meant == Some(key));
        if !is_known || under_way || self.held.iter().any(|hold| hold.key == key) {
            return Err(Broken::FreedInUse);
        }
        match self.strong == Some(key) {
            true => (self.strong, self.strong_is_out) = (Some(ObjectKey(key.0 + 1)), false),
            false => self.key.0 += 1,
        }
        Ok(())
    }

    /// A slot that is held has the object meant, or is its tombstone.
    fn names_are_right(&self) -> bool {
        self.held.iter().all(|hold| {
            let is_held = self.cores[HOLDER].holds(hold.import);
            let is_down = self.cores[HOLDER].down(hold.import).is_some();
            let exported = (0..8).find_map(|generation| self.cores[OWNER].exported(hold.import.slot(), generation));
            is_held && (!hold.told || is_down) && exported.is_none_or(|key| key == hold.key)
        })
    }

    fn is_idle(&self) -> bool {
        self.broken.is_none()
            && self.serving.is_empty()
            && self.wires.iter().all(VecDeque::is_empty)
            && self.cores.iter().all(|core| {
                let mut next = core.clone();
                next.transmit().is_empty() && next == *core
            })
    }

    fn is_exact(&self) -> bool {
        let held = self.held.len() as u32;
        let tables = [
            Tables { exports: 1, imports: held, questions: 0, answers: 0 },
            Tables { exports: 1 + held, imports: 0, questions: 0, answers: 0 },
        ];
        let told = self.held.iter().all(|hold| hold.told == self.revoked.contains(&hold.key));
        told && self.dying.is_empty()
            && self.calls.iter().all(Option::is_none)
            && [HOLDER, OWNER].iter().all(|&side| self.cores[side].tables() == tables[side])
    }

    /// Whether one message is under way from the owner and the other from the holder.
    fn crosses(&self, of_owner: fn(&Message<'_>) -> bool, of_holder: fn(&Message<'_>) -> bool) -> bool {
        let any = |side: usize, is_it: fn(&Message<'_>) -> bool| {
            self.wires[side].iter().any(|(body, _)| Message::read(body).is_ok_and(|message| is_it(&message)))
        };
        any(OWNER, of_owner) && any(HOLDER, of_holder)
    }

    fn returns_revoked(&self) -> bool {
        let is_it = |message| matches!(message, Message::Return(back) if back.error == Some(ErrorCode::Revoked));
        self.wires[OWNER].iter().any(|(body, _)| Message::read(body).is_ok_and(is_it))
    }
}

/// The first value is the number of the call that it belongs to.
fn is_number(values: Values<'_>, number: u8) -> bool {
    matches!(values.first(), Some(Value::Int(have)) if have == i64::from(number))
}
