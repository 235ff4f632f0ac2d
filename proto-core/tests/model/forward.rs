//! Three peers in a row: the one between hands on an object of the last to the first (REF-11), while releases, further copies
//! and calls are under way on both sessions, and the object may be withdrawn.

use std::collections::VecDeque;

use farref_core::frame::{Split, split};
use farref_core::message::{DownReason, ErrorCode, Message, Op};
use farref_core::session::{
    Answer, Call, Callee, Event, Import, Notice, ObjectKey, Question, Receiver, Ref, Reference, ReplyError, Tables,
};
use farref_core::value::Value;
use stateright::{Model, Property};

use super::revoke::{CALLS, Core, greeted};

/// The sessions: of the first with the middle, and of the middle with the last. In each the caller is end 0.
const NEAR: usize = 0;
const FAR: usize = 1;

/// How much may happen.
#[derive(Clone, Debug)]
pub struct Setup {
    pub calls: u8,
    pub revokes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub sessions: [Pair; 2],
    /// What the first holds: the reference, the last's object that is meant, and how often.
    held: Vec<(Import, ObjectKey, u8)>,
    /// Calls of the first, by id: what each is for.
    calls: [Option<Made>; CALLS],
    made: u8,
    /// What the middle hands on: its own object, for which one of the last.
    forwarders: Vec<(ObjectKey, Import)>,
    next_key: u32,
    /// Calls of the middle that are passed on, by id, with the one that waits for them.
    passed_on: [Option<(Question, Answer)>; CALLS],
    /// Those that wait for a free id there.
    waiting: Vec<(Answer, Option<Import>)>,
    /// The last's object has this key now; those that were withdrawn.
    key: ObjectKey,
    revoked: Vec<ObjectKey>,
    dying: Vec<ObjectKey>,
    broken: Option<Broken>,
}

/// A session, and the bodies under way from each end with the object of the last that a handle means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    pub cores: [Core; 2],
    wires: [VecDeque<(Vec<u8>, Option<ObjectKey>)>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Made {
    question: Question,
    number: u8,
    /// The object that is called; none is the directory, which gives it.
    on: Option<ObjectKey>,
    ran: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Broken {
    Ended,
    Command,
    WrongTarget,
    WrongReturn,
    FreedInUse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Ask,
    Call { held: usize },
    Drop { held: usize },
    Revoke,
    Flush { session: usize, end: usize },
    Receive { session: usize, end: usize },
}

type Step = Result<(), Broken>;

impl Pair {
    fn new() -> Self {
        Self { cores: greeted(), wires: Default::default() }
    }

    /// What a command has written goes under way; what is only state stays behind.
    fn send_written(&mut self, end: usize, meant: Option<ObjectKey>) {
        let written = self.cores[end].output_len();
        let output = self.cores[end].clone().transmit()[..written].to_vec();
        self.send(end, &output, meant);
    }

    fn flush(&mut self, end: usize) {
        loop {
            let output = self.cores[end].transmit().to_vec();
            if output.is_empty() {
                return;
            }
            self.send(end, &output, None);
        }
    }

    fn send(&mut self, end: usize, mut output: &[u8], meant: Option<ObjectKey>) {
        self.cores[end].transmitted(output.len());
        while let Split::Record { body, rest } = split(output, 64) {
            self.wires[end].push_back((body.to_vec(), meant));
            output = rest;
        }
    }

    fn any(&self, end: usize, is_it: fn(&Message<'_>) -> bool) -> bool {
        self.wires[end].iter().any(|(body, _)| Message::read(body).is_ok_and(|message| is_it(&message)))
    }
}

impl Model for Setup {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            sessions: [Pair::new(), Pair::new()],
            held: vec![],
            calls: [None; CALLS],
            made: 0,
            forwarders: vec![],
            next_key: 1,
            passed_on: [None; CALLS],
            waiting: vec![],
            key: ObjectKey(1),
            revoked: vec![],
            dying: vec![],
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let held = 0..state.held.len();
        if state.made < self.calls && state.sessions[NEAR].cores[0].can_call() {
            actions.push(Action::Ask);
            actions.extend(held.clone().map(|held| Action::Call { held }));
        }
        actions.extend(held.map(|held| Action::Drop { held }));
        if state.revoked.len() < usize::from(self.revokes) {
            actions.push(Action::Revoke);
        }
        for session in [NEAR, FAR] {
            for end in 0..2 {
                actions.push(Action::Flush { session, end });
                if !state.sessions[session].wires[1 - end].is_empty() {
                    actions.push(Action::Receive { session, end });
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        if last.broken.is_some() {
            return None;
        }
        let mut state = last.clone();
        let done = state.act(action).and_then(|()| state.poll());
        let ended = state.sessions.iter().flat_map(|pair| &pair.cores).any(|core| core.ended().is_some());
        state.broken = if ended { Some(Broken::Ended) } else { done.err() };
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no session ends: all are honest", |_, state: &State| !state.is(Broken::Ended)),
            Property::always("no command fails", |_, state: &State| !state.is(Broken::Command)),
            Property::always("REF-11: calls reach the object that is meant", |_, state: &State| {
                !state.is(Broken::WrongTarget)
            }),
            Property::always("each call ends as it should", |_, state: &State| !state.is(Broken::WrongReturn)),
            Property::always("freed is what nobody holds, far or near", |_, state: &State| {
                !state.is(Broken::FreedInUse)
            }),
            Property::always("at rest nothing is left but what is held", |_, state: &State| {
                !state.is_idle() || state.is_exact()
            }),
            Property::sometimes("a Release of the first crosses what is handed on again", |_, state: &State| {
                state.crosses(NEAR)
            }),
            Property::sometimes("a Release of the middle crosses the next copy", |_, state: &State| state.crosses(FAR)),
            Property::sometimes("the middle hands on again what it releases", |_, state: &State| {
                state.crosses(FAR) && state.sessions[NEAR].cores[0].tables().imports > 0
            }),
            Property::sometimes(
                "a call crosses the end of what it is for on both sessions",
                |setup: &Setup, state: &State| {
                    let is_down = |message: &Message<'_>| matches!(message, Message::Down(_));
                    let is_call = |message: &Message<'_>| matches!(message, Message::Call(_));
                    let crosses = |pair: &Pair| pair.any(1, is_down) && pair.any(0, is_call);
                    setup.revokes == 0 || crosses(&state.sessions[NEAR]) && !state.revoked.is_empty()
                },
            ),
            Property::sometimes("all is let go", |setup: &Setup, state: &State| {
                state.made == setup.calls && state.held.is_empty() && state.is_idle()
            }),
        ]
    }
}

impl State {
    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn act(&mut self, action: Action) -> Step {
        match action {
            Action::Ask => self.call(Import::DIRECTORY, None),
            Action::Call { held } => {
                let (import, key, _) = self.held[held];
                match self.sessions[NEAR].cores[0].down(import) {
                    Some(_) => Ok(()),
                    None => self.call(import, Some(key)),
                }
            }
            Action::Drop { held } => {
                let import = self.held[held].0;
                self.held[held].2 -= 1;
                self.held.retain(|&(.., count)| count > 0);
                self.sessions[NEAR].cores[0].release(import).map_err(|_| Broken::Command)
            }
            Action::Revoke => {
                let key = self.key;
                self.key.0 += 1;
                self.revoked.push(key);
                if self.sessions[FAR].cores[1].revoke(key, DownReason::Revoked).is_ok() {
                    self.dying.push(key);
                }
                Ok(())
            }
            Action::Flush { session, end } => {
                self.sessions[session].flush(end);
                Ok(())
            }
            Action::Receive { session, end } => self.receive(session, end),
        }
    }

    /// The first calls.
    fn call(&mut self, import: Import, on: Option<ObjectKey>) -> Step {
        let near = &mut self.sessions[NEAR];
        let question = near.cores[0].call(Call::new(Callee::Import(import), Op::Call), |_| Ok(()));
        let question = question.map_err(|_| Broken::Command)?;
        near.send_written(0, on);
        let number = self.made;
        self.made += 1;
        match self.calls[usize::from(question.id())].replace(Made { question, number, on, ran: false }) {
            Some(_) => Err(Broken::Command),
            None => Ok(()),
        }
    }

    fn receive(&mut self, session: usize, end: usize) -> Step {
        let Some((body, meant)) = self.sessions[session].wires[1 - end].pop_front() else { return Ok(()) };
        let mut core = self.sessions[session].cores[end].clone();
        let event = core.handle(&body).map_err(|_| Broken::Ended);
        self.sessions[session].cores[end] = core.clone();
        match event? {
            Some(Event::Request(request)) if session == NEAR => {
                let import = match request.receiver {
                    Receiver::Object(ObjectKey::DIRECTORY) => None,
                    Receiver::Object(key) => {
                        let forwarder = self.forwarders.iter().find(|&&(have, _)| have == key);
                        Some(forwarder.ok_or(Broken::WrongTarget)?.1)
                    }
                    _ => return Err(Broken::WrongTarget),
                };
                self.waiting.push((request.call, import));
                self.pass_on()
            }
            // The last answers at once.
            Some(Event::Request(request)) => self.serve(request.call, request.receiver),
            Some(Event::Return(told)) => {
                let given = { told.handles }.next().and_then(|handle| core.resolve(handle));
                let import = match given {
                    Some(Reference::Import(import)) => Some(import),
                    None => None,
                    Some(_) => return Err(Broken::WrongReturn),
                };
                let reason = match told.values.first() {
                    Some(Value::Int(reason)) => reason,
                    _ => 0,
                };
                match session {
                    NEAR => self.on_return(told.question, told.outcome, import, meant),
                    _ => self.on_passed_on(told.question, told.outcome, import, meant, reason),
                }
            }
            _ => Ok(()),
        }
    }

    /// The middle passes calls on, as many as the last takes.
    fn pass_on(&mut self) -> Step {
        while !self.waiting.is_empty() && self.sessions[FAR].cores[0].can_call() {
            let (answer, import) = self.waiting.remove(0);
            let meant = import.and_then(|import| self.meant_by(import));
            let far = &mut self.sessions[FAR];
            let callee = Callee::Import(import.unwrap_or(Import::DIRECTORY));
            if let Some(reason) = import.and_then(|import| far.cores[0].down(import)) {
                let near = &mut self.sessions[NEAR];
                let detail = reason.number().into();
                near.cores[1].refuse(answer, ErrorCode::Revoked, detail).map_err(|_| Broken::Command)?;
                continue;
            }
            let question = far.cores[0].call(Call::new(callee, Op::Call), |_| Ok(())).map_err(|_| Broken::Command)?;
            far.send_written(0, meant);
            self.passed_on[usize::from(question.id())] = Some((question, answer));
        }
        Ok(())
    }

    /// The last's object that a reference of the middle is for.
    fn meant_by(&self, import: Import) -> Option<ObjectKey> {
        (0..8).find_map(|generation| self.sessions[FAR].cores[1].exported(import.slot(), generation))
    }

    fn serve(&mut self, answer: Answer, receiver: Receiver) -> Step {
        let far = &mut self.sessions[FAR];
        let (object, meant) = match receiver {
            Receiver::Object(ObjectKey::DIRECTORY) => (vec![Ref::Local(self.key)], Some(self.key)),
            Receiver::Object(key) if !self.revoked.contains(&key) => {
                // It is the oldest call of the first on that object: the middle keeps their order.
                let made = self.calls.iter_mut().flatten().filter(|made| made.on == Some(key) && !made.ran);
                made.min_by_key(|made| made.number).ok_or(Broken::WrongTarget)?.ran = true;
                (vec![], None)
            }
            _ => return Err(Broken::WrongTarget),
        };
        let replied = far.cores[1].reply(answer, &object, |writer| match object.is_empty() {
            true => writer.int(7),
            false => writer.reference(0),
        });
        match replied {
            Ok(()) => far.send_written(1, meant),
            Err(ReplyError::Became(_)) => far.send_written(1, None),
            Err(_) => return Err(Broken::Command),
        }
        Ok(())
    }

    /// The middle has the answer to what it has passed on.
    fn on_passed_on(
        &mut self,
        question: Question,
        outcome: Result<(), ErrorCode>,
        import: Option<Import>,
        meant: Option<ObjectKey>,
        reason: i64,
    ) -> Step {
        let waits = self.passed_on[usize::from(question.id())].take().filter(|(have, _)| *have == question);
        let (_, answer) = waits.ok_or(Broken::WrongReturn)?;
        let reference = import.map(|import| match self.forwarders.iter().find(|(_, have)| *have == import) {
            Some(&(key, _)) => {
                // It has its hold already.
                let _ = self.sessions[FAR].cores[0].release(import);
                key
            }
            None => {
                let key = ObjectKey(self.next_key);
                self.next_key += 1;
                self.forwarders.push((key, import));
                key
            }
        });
        let is_down = import.is_some_and(|import| self.sessions[FAR].cores[0].down(import).is_some());
        let near = &mut self.sessions[NEAR];
        let reference = reference.filter(|_| !is_down).map(Ref::Local);
        let replied = match outcome {
            Ok(()) => near.cores[1].reply(answer, reference.as_slice(), |writer| match reference {
                Some(_) => writer.reference(0),
                None => writer.int(7),
            }),
            Err(code) => near.cores[1].reply_error(answer, code, &[], |writer| writer.int(reason)),
        };
        match replied {
            Ok(()) => near.send_written(1, meant),
            Err(ReplyError::Became(_)) => near.send_written(1, None),
            Err(_) => return Err(Broken::Command),
        }
        self.drop_forwarders();
        self.pass_on()
    }

    /// What was not sent, in the end, is not kept.
    fn drop_forwarders(&mut self) {
        let State { sessions, forwarders, .. } = self;
        let [near, far] = sessions;
        forwarders.retain(|&(key, import)| {
            let is_kept = near.cores[1].is_exported(key);
            if !is_kept {
                let _ = far.cores[0].release(import);
            }
            is_kept
        });
    }

    /// The first has its answer.
    fn on_return(
        &mut self,
        question: Question,
        outcome: Result<(), ErrorCode>,
        import: Option<Import>,
        meant: Option<ObjectKey>,
    ) -> Step {
        let made = self.calls[usize::from(question.id())].take().filter(|made| made.question == question);
        let made = made.ok_or(Broken::WrongReturn)?;
        match (made.on, outcome) {
            (None, Ok(()) | Err(ErrorCode::TableFull)) => {}
            (Some(_), Ok(())) if made.ran => {}
            (Some(key), Err(ErrorCode::Revoked)) if !made.ran && self.revoked.contains(&key) => {}
            _ => return Err(Broken::WrongReturn),
        }
        let Some(import) = import else { return Ok(()) };
        let key = meant.ok_or(Broken::WrongReturn)?;
        match self.held.iter_mut().find(|(have, ..)| *have == import) {
            Some((_, have, count)) if *have == key => *count += 1,
            Some(_) => return Err(Broken::WrongReturn),
            None => self.held.push((import, key, 1)),
        }
        self.held.sort_unstable();
        Ok(())
    }

    /// All hosts look for what became true.
    fn poll(&mut self) -> Step {
        loop {
            let near = self.sessions[NEAR].cores[1].poll_notice();
            let far = self.sessions[FAR].cores[0].poll_notice();
            let last = self.sessions[FAR].cores[1].poll_notice();
            let first = self.sessions[NEAR].cores[0].poll_notice();
            match near {
                Some(Notice::Freed(key)) => {
                    let place = self.forwarders.iter().position(|&(have, _)| have == key);
                    let (_, import) = self.forwarders.remove(place.ok_or(Broken::FreedInUse)?);
                    self.sessions[FAR].cores[0].release(import).map_err(|_| Broken::Command)?;
                }
                None => {}
                Some(_) => return Err(Broken::Command),
            }
            match far {
                Some(Notice::Down { import, reason }) => {
                    if let Some(&(key, _)) = self.forwarders.iter().find(|(_, have)| *have == import) {
                        let _ = self.sessions[NEAR].cores[1].revoke(key, reason);
                    }
                }
                None => {}
                Some(_) => return Err(Broken::Command),
            }
            match last {
                Some(Notice::Freed(key)) => self.on_freed(key)?,
                None => {}
                Some(_) => return Err(Broken::Command),
            }
            if (near, far, last, first) == (None, None, None, None) {
                return Ok(());
            }
        }
    }

    /// Nobody has the last's object: neither of the others, nor is it under way.
    fn on_freed(&mut self, key: ObjectKey) -> Step {
        if let Some(place) = self.dying.iter().position(|&dying| dying == key) {
            self.dying.remove(place);
            return Ok(());
        }
        let on_its_way = |pair: &Pair| pair.wires[1].iter().any(|&(_, meant)| meant == Some(key));
        let held = self.held.iter().any(|&(_, have, _)| have == key);
        if key != self.key || held || self.sessions.iter().any(on_its_way) {
            return Err(Broken::FreedInUse);
        }
        self.key.0 += 1;
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.broken.is_none()
            && self.sessions.iter().all(|pair| {
                let quiet = |core: &Core| {
                    let mut next = core.clone();
                    next.transmit().is_empty() && next == *core
                };
                pair.wires.iter().all(VecDeque::is_empty) && pair.cores.iter().all(quiet)
            })
    }

    fn is_exact(&self) -> bool {
        let held = self.held.len() as u32;
        let calls = self.calls.iter().all(Option::is_none) && self.passed_on.iter().all(Option::is_none);
        let told = self
            .held
            .iter()
            .all(|(import, key, _)| self.sessions[NEAR].cores[0].down(*import).is_some() == self.revoked.contains(key));
        // The middle lets go of what is down at once, and the last sees none but the live.
        let forwarders = self.forwarders.len() as u32;
        let tables = |imports, exports| Tables { exports: 1 + exports, imports, questions: 0, answers: 0 };
        let expected = [[tables(held, 0), tables(0, held)], [tables(forwarders, 0), tables(0, forwarders)]];
        let is_as_expected = |(pair, expected): (&Pair, &[Tables; 2])| {
            pair.cores.iter().zip(expected).all(|(core, expected)| core.tables() == *expected)
        };
        let live = self.held.iter().filter(|(_, key, _)| !self.revoked.contains(key)).count() as u32;
        calls
            && told
            && self.waiting.is_empty()
            && self.dying.is_empty()
            && forwarders == live
            && self.sessions.iter().zip(&expected).all(is_as_expected)
    }

    /// Whether a Release and a reference are under way in opposite directions.
    fn crosses(&self, session: usize) -> bool {
        let pair = &self.sessions[session];
        let gives = |message: &Message<'_>| matches!(message, Message::Return(back) if !back.handles.is_empty());
        pair.any(0, |message| matches!(message, Message::Release(_))) && pair.any(1, gives)
    }
}
