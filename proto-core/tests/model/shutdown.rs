//! The counted end of a session (CLS-2), crossed by calls, callbacks, Returns and Releases in all ways.

use std::collections::VecDeque;

use farref_core::Uuid;
use farref_core::frame::{Split, split};
use farref_core::message::{Limits, Message, Op};
use farref_core::session::{
    Answer, Call, CallError, Callee, Config, Ended, Event, Import, LinkMode, Micro, ObjectKey, Ref, Reference, Session,
    Tables,
};
use stateright::{Model, Property};

type Core = Session<Micro<2, 2, 2, 256, 128>>;

/// What each side may do.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Calls that are part of no other.
    pub calls: [u8; 2],
    /// Calls within those of the other side.
    pub nested: [u8; 2],
    /// Whether results are references, which their holder drops some time.
    pub references: bool,
    /// Who may want the session to end.
    pub leaves: [bool; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub sides: [Side; 2],
    /// Bodies under way, by their sender.
    wires: [VecDeque<Vec<u8>>; 2],
    broken: Option<Broken>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Side {
    pub core: Core,
    serving: Vec<Answer>,
    held: Vec<Import>,
    /// Calls without a Return.
    open: u8,
    calls: u8,
    nested: u8,
    leaving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Broken {
    /// A session ended otherwise than done.
    Ended,
    /// A command failed that must not.
    Command,
    /// A side was done, and something came.
    Lost,
    /// A side was done with a call under way.
    CutOff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Call { side: usize, is_nested: bool },
    Reply { side: usize },
    Drop { side: usize },
    Leave { side: usize },
    Flush { side: usize },
    Receive { side: usize },
}

impl Side {
    fn new(calls: u8, nested: u8) -> Self {
        let limits = Limits { max_message: 64, imports: 2, answers: 2, call_bytes: 40, handles: 2, levels: 3 };
        let (peer, incarnation) = (Uuid::nil(), 0);
        let config = Config {
            limits,
            exports: 2,
            calls: 2,
            out_bytes: 256,
            store_bytes: 128,
            peer,
            incarnation,
            patience: None,
            link: LinkMode::Off,
        };
        let core = Session::new(config);
        Self { core, serving: vec![], held: vec![], open: 0, calls, nested, leaving: false }
    }

    fn is_done(&self) -> bool {
        self.core.ended() == Some(Ended::Done)
    }
}

impl Model for Setup {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let sides = [0, 1].map(|side| Side::new(self.calls[side], self.nested[side]));
        let mut state = State { sides, wires: Default::default(), broken: None };
        for side in 0..2 {
            let hello = state.sides[side].core.transmit().to_vec();
            state.sides[side].core.transmitted(hello.len());
            let Split::Record { body, rest: [] } = split(&hello, 256) else { panic!("no Hello") };
            state.sides[1 - side].core.handle(body).expect("an honest Hello");
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (side, here) in state.sides.iter().enumerate() {
            if here.calls > 0 && here.core.can_call() {
                actions.push(Action::Call { side, is_nested: false });
            }
            if here.nested > 0 && here.core.can_call() && !here.serving.is_empty() {
                actions.push(Action::Call { side, is_nested: true });
            }
            if !here.serving.is_empty() {
                actions.push(Action::Reply { side });
            }
            if !here.held.is_empty() {
                actions.push(Action::Drop { side });
            }
            if self.leaves[side] && !here.leaving {
                actions.push(Action::Leave { side });
            }
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
        let done = self.act(&mut state, action);
        let cut_off = |side: &Side| side.is_done() && (side.open > 0 || !side.serving.is_empty());
        let is_otherwise = |side: &Side| side.core.ended().is_some() && !side.is_done();
        state.broken = done.err();
        if state.sides.iter().any(cut_off) {
            state.broken = Some(Broken::CutOff);
        }
        if state.sides.iter().any(is_otherwise) {
            state.broken = Some(Broken::Ended);
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a session ends only as done", |_, state: &State| state.broken != Some(Broken::Ended)),
            Property::always("no command fails", |_, state: &State| state.broken != Some(Broken::Command)),
            Property::always("what is sent is received", |_, state: &State| state.broken != Some(Broken::Lost)),
            Property::always("no call is cut off", |_, state: &State| state.broken != Some(Broken::CutOff)),
            Property::always("who is done knows that the other is, or will be", |_, state| is_agreed(state)),
            Property::always("it ends if one side wants it to", |_, state| !is_quiet(state) || is_over(state)),
            Property::sometimes("both are done", |_, state: &State| state.sides.iter().all(Side::is_done)),
            Property::sometimes("a call crosses a Goodbye", |_, state| {
                crosses(state, |it| matches!(it, Message::Call(_)))
            }),
            Property::sometimes("Goodbyes cross each other", |setup: &Setup, state| {
                setup.leaves != [true; 2] || crosses(state, |it| matches!(it, Message::Goodbye(_)))
            }),
            Property::sometimes("a Release crosses a Goodbye", |setup: &Setup, state| {
                !setup.references || crosses(state, |it| matches!(it, Message::Release(_)))
            }),
        ]
    }
}

impl Setup {
    fn act(&self, state: &mut State, action: Action) -> Result<(), Broken> {
        match action {
            Action::Call { side, is_nested } => {
                let here = &mut state.sides[side];
                let parent = here.serving.first().copied().filter(|_| is_nested);
                let call = Call { parent, ..Call::new(Callee::Import(Import::DIRECTORY), Op::Call) };
                match here.core.call(call, |_| Ok(())) {
                    Ok(_) => {}
                    // Who leaves makes no calls but those within others.
                    Err(CallError::Leaving) if !is_nested => return Ok(()),
                    Err(CallError::Ended(Ended::Done)) => return Ok(()),
                    Err(_) => return Err(Broken::Command),
                }
                here.open += 1;
                match is_nested {
                    true => here.nested -= 1,
                    false => here.calls -= 1,
                }
                Ok(())
            }
            Action::Reply { side } => {
                let references = self.references;
                let here = &mut state.sides[side];
                let call = here.serving.remove(0);
                let object = [Ref::Local(ObjectKey(1))];
                let replied = match references {
                    true => here.core.reply(call, &object, |writer| writer.reference(0)),
                    false => here.core.reply(call, &[], |writer| writer.int(1)),
                };
                replied.map_err(|_| Broken::Command)
            }
            Action::Drop { side } => {
                let here = &mut state.sides[side];
                let import = here.held.remove(0);
                here.core.release(import).map_err(|_| Broken::Command)
            }
            Action::Leave { side } => {
                state.sides[side].leaving = true;
                state.sides[side].core.shutdown();
                Ok(())
            }
            Action::Flush { side } => {
                let output = state.sides[side].core.transmit().to_vec();
                state.sides[side].core.transmitted(output.len());
                let mut rest = &output[..];
                while let Split::Record { body, rest: more } = split(rest, 64) {
                    state.wires[side].push_back(body.to_vec());
                    rest = more;
                }
                Ok(())
            }
            Action::Receive { side } => {
                let Some(body) = state.wires[1 - side].pop_front() else { return Ok(()) };
                let here = &mut state.sides[side];
                if here.is_done() {
                    return Err(Broken::Lost);
                }
                match here.core.handle(&body) {
                    Ok(Some(Event::Request(request))) => here.serving.push(request.call),
                    Ok(Some(Event::Return(returned))) => {
                        here.open -= 1;
                        let handle = { returned.handles }.next();
                        if let Some(Reference::Import(import)) = handle.and_then(|handle| here.core.resolve(handle)) {
                            here.held.push(import);
                        }
                    }
                    Ok(_) | Err(Ended::Done) => {}
                    Err(_) => return Err(Broken::Ended),
                }
                Ok(())
            }
        }
    }
}

/// If one side is done, the other is, or its last Goodbye is under way to it and nothing else is.
fn is_agreed(state: &State) -> bool {
    (0..2).all(|side| {
        let (here, there) = (&state.sides[side], &state.sides[1 - side]);
        if !here.is_done() || there.is_done() {
            return true;
        }
        let mut core = here.core.clone();
        let left = core.transmit().to_vec();
        let is_goodbye = |body: &[u8]| matches!(Message::read(body), Ok(Message::Goodbye(_)));
        let of_left = match split(&left, 64) {
            Split::Record { body, rest: [] } => is_goodbye(body),
            _ => left.is_empty(),
        };
        let under_way = &state.wires[side];
        let is_told = under_way.back().is_some_and(|body| is_goodbye(body)) || !left.is_empty();
        of_left && is_told && state.wires[1 - side].is_empty()
    })
}

/// Nothing goes on by itself any more.
fn is_quiet(state: &State) -> bool {
    state.broken.is_none()
        && state.wires.iter().all(VecDeque::is_empty)
        && state.sides.iter().all(|side| {
            let mut core = side.core.clone();
            side.serving.is_empty() && core.transmit().is_empty() && core == side.core
        })
}

/// Both are done, or nobody wants that and all tables are empty but for what is held.
fn is_over(state: &State) -> bool {
    let nobody = state.sides.iter().all(|side| !side.leaving);
    let at_rest = |side: &Side| {
        let Tables { questions, answers, .. } = side.core.tables();
        (questions, answers) == (0, 0)
    };
    match nobody {
        true => state.sides.iter().all(at_rest),
        false => state.sides.iter().all(Side::is_done),
    }
}

/// Whether a Goodbye and such a message are under way in opposite directions.
fn crosses(state: &State, is_it: fn(&Message<'_>) -> bool) -> bool {
    (0..2).any(|side| {
        let any = |side: usize, is_it: fn(&Message<'_>) -> bool| {
            state.wires[side].iter().any(|body| Message::read(body).is_ok_and(|message| is_it(&message)))
        };
        any(side, |message| matches!(message, Message::Goodbye(_))) && any(1 - side, is_it)
    })
}
