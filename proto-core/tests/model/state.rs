//! What a state of the model is: two real sessions, the bytes between them, and what the two applications remember.

use std::collections::VecDeque;

use farref_core::Uuid;
use farref_core::frame::{Split, split};
use farref_core::message::{Descriptor, ErrorCode, FinishMode, Limits, Message};
use farref_core::session::{Answer, Config, Import, LinkMode, Micro, ObjectKey, Question, Receiver, Session};

/// Calls in each direction at a time; a setup may allow fewer.
pub const CALLS: usize = 3;

/// The smallest storage that fits: the directory and one object in each table.
pub type Core = Session<Micro<2, 2, CALLS, 256, 128>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub sides: [Side; 2],
    /// Records under way, by their sender.
    pub wires: [VecDeque<Record>; 2],
    /// Cuts of the connection that may still happen. None if the sessions have no link.
    pub cuts: Option<u8>,
    /// What went wrong in the step that led here; nothing follows.
    pub broken: Option<Broken>,
}

/// A record under way, and which object its handle meant when it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    pub body: Vec<u8>,
    pub meant: Option<ObjectKey>,
    /// Whether it was under way before, on a connection that was cut.
    pub again: bool,
}

/// A session and its application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Side {
    pub core: Core,
    /// The key that each object of this side has now. One that was freed comes back as another object.
    pub objects: Vec<ObjectKey>,
    pub held: Vec<Hold>,
    /// Calls of this side, by id, until nothing under way can refer to them.
    pub calls: [Option<Made>; CALLS],
    /// Calls of the other side that wait for a reply, by id.
    pub serving: Vec<Serving>,
    pub made: u8,
    pub left: Left,
    /// With a link: what the handles of each sequenced record meant, and which of them goes on the wire next.
    pub meant: Vec<Option<ObjectKey>>,
    pub next: usize,
    pub furthest: usize,
}

/// What a side may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    /// Calls, of any sort.
    pub calls: u8,
    /// Of these with an object of its own as argument.
    pub sends: u8,
    pub cancels: u8,
}

/// A reference that the application holds, so many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hold {
    pub import: Import,
    pub slot: u32,
    pub generation: u16,
    pub key: ObjectKey,
    pub count: u8,
    /// Whether it came as lent: with the Return of its call it is stale.
    pub lent: bool,
}

/// A call that was made, seen from above both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Made {
    pub question: Question,
    /// Counts the calls of a side; travels as the argument.
    pub number: u8,
    pub pipelined: bool,
    pub target: Meant,
    pub carried: Option<Meant>,
    pub cancelled: Option<FinishMode>,
    pub stage: Stage,
    /// Set by the callee's application, or by a Return that the callee's session gave by itself.
    pub outcome: Option<Outcome>,
    pub returned: bool,
}

/// What a target or an argument means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meant {
    /// An object of the callee, or an argument of the caller's.
    Object(ObjectKey),
    /// What the caller's call of that id is answered.
    Answer(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Not received yet.
    Sent,
    /// Received, and not told to the application.
    Parked,
    /// Told to the application.
    Started,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An object of the callee.
    Object(ObjectKey),
    /// An object of the caller.
    Home(ObjectKey),
    Value,
    Failed(ErrorCode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serving {
    pub call: Answer,
    pub receiver: Receiver,
    pub interrupted: bool,
}

/// What must never happen in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A session ended.
    Ended,
    /// A command failed that must not.
    Command,
    /// A call id was free while the other side, or a call under way, could still refer to it.
    IdReused,
    /// A request came for another object than the one meant, or for none.
    WrongTarget,
    /// A request or a Return had other arguments or another result than the one meant.
    WrongContent,
    /// A Return came for another call, twice, or for one whose Return is not wanted.
    WrongReturn,
    /// A call ran before one that was made earlier on the same promise.
    OutOfOrder,
    /// An object was told to be free while somebody held it.
    FreedInUse,
    /// A session could not live without its connection, or refused another one.
    NotResumed,
}

impl Side {
    fn new(objects: u32, ids: u16, left: Left, link: LinkMode) -> Self {
        let limits = Limits { max_message: 64, imports: 2, answers: ids, call_bytes: 40, handles: 2, levels: 3 };
        let core = Session::new(Config {
            limits,
            exports: 2,
            calls: ids,
            out_bytes: 256,
            store_bytes: 128,
            peer: Uuid::nil(),
            incarnation: 0,
            link,
            patience: None,
        });
        let objects = (1..=objects).map(ObjectKey).collect();
        let (held, serving, meant) = (vec![], vec![], vec![]);
        Self { core, objects, held, calls: [None; CALLS], serving, made: 0, left, meant, next: 0, furthest: 0 }
    }

    pub fn made(&self, id: u16) -> Option<&Made> {
        self.calls.get(usize::from(id))?.as_ref()
    }

    pub fn made_mut(&mut self, id: u16) -> Option<&mut Made> {
        self.calls.get_mut(usize::from(id))?.as_mut()
    }

    /// Calls whose Return has not come.
    pub fn open_calls(&self) -> impl Iterator<Item = (u16, &Made)> {
        let calls = self.calls.iter().enumerate();
        calls.filter_map(|(id, made)| Some((id as u16, made.as_ref().filter(|made| !made.returned)?)))
    }

    /// The object that a handle of the other side names, if it is live.
    pub fn exported(&self, slot: u32, generation: u16) -> Option<ObjectKey> {
        self.core.exported(slot, generation)
    }

    /// The live export in a slot, whatever its generation.
    pub fn exported_in(&self, slot: u32) -> Option<ObjectKey> {
        (0..16).find_map(|generation| self.exported(slot, generation))
    }

    /// Notes one more hold of a reference that was received.
    pub fn hold(&mut self, import: Import, (slot, generation): (u32, u16), key: ObjectKey, lent: bool) {
        match self.held.iter_mut().find(|hold| hold.import == import && hold.key == key) {
            Some(hold) => {
                hold.count += 1;
                hold.lent |= lent;
            }
            None => self.held.push(Hold { import, slot, generation, key, count: 1, lent }),
        }
        self.held.sort_by_key(|hold| hold.import);
    }

    /// What the application holds and may use.
    pub fn usable(&self) -> impl Iterator<Item = &Hold> {
        self.held.iter().filter(|hold| self.core.holds(hold.import))
    }

    /// Whether the other side's session has refused a call, or will, without starting it: it was cancelled, or an answer that
    /// it names failed (ANS-3, FIN-2).
    pub fn is_refused(&self, made: &Made) -> bool {
        let failed = |meant| match meant {
            Meant::Answer(id) => self.made(id).is_some_and(|named| {
                matches!(named.outcome, Some(Outcome::Failed(_))) || named.outcome.is_none() && self.is_refused(named)
            }),
            Meant::Object(_) => false,
        };
        let cancelled = made.cancelled == Some(FinishMode::Interrupt);
        made.stage == Stage::Parked && (cancelled || failed(made.target) || made.carried.is_some_and(failed))
    }

    /// Forgets calls that nothing under way can refer to.
    pub fn forget_calls(&mut self) {
        for id in 0..CALLS as u16 {
            let named = |made: &Made| made.target == Meant::Answer(id) || made.carried == Some(Meant::Answer(id));
            let is_named = self.open_calls().any(|(_, made)| named(made));
            if !is_named && self.made(id).is_some_and(|made| made.returned) {
                self.calls[usize::from(id)] = None;
            }
        }
    }
}

impl State {
    /// Both have said Hello.
    pub fn new(objects: [u32; 2], ids: u16, left: [Left; 2], cuts: Option<u8>) -> Self {
        let link = if cuts.is_some() { LinkMode::Resume { token: OWN_TOKEN, park: 0 } } else { LinkMode::Off };
        let sides = [0, 1].map(|side| Side::new(objects[side], ids, left[side], link));
        let mut state = Self { sides, wires: Default::default(), cuts, broken: None };
        for side in 0..2 {
            let hello = state.sides[side].core.transmit().to_vec();
            state.sides[side].core.transmitted(hello.len());
            let Split::Record { body, rest: [] } = split(&hello, 256) else { panic!("no Hello") };
            state.sides[1 - side].core.handle(body).expect("an honest Hello");
        }
        state
    }

    /// Records of one side that have not been received, taken apart.
    pub fn under_way(&self, from: usize) -> impl Iterator<Item = (Message<'_>, Option<ObjectKey>)> {
        let read = |body| Message::read(body).expect("a session writes what it can read");
        self.wires[from].iter().map(move |record| (read(&record.body), record.meant))
    }
}

/// The token of either side: each is told only to the other.
pub const OWN_TOKEN: [u8; 16] = [7; 16];

/// The handles of a message.
pub fn handles<'f>(message: &Message<'f>) -> impl Iterator<Item = Descriptor> + use<'f> {
    match message {
        Message::Call(call) => call.handles,
        Message::Return(returned) => returned.handles,
        _ => Default::default(),
    }
}
