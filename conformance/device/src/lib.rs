//! The objects of conformance/FIXTURES.md as a device serves them: no heap, everything in a [`Fixtures`] of a fixed size.
//!
//! What answers at once does so where the call comes in. What calls the other side or waits does it in [`Fixtures::run`], which
//! is a task: so these calls overlap, whatever their object. `pipelined` and `pass` are not there, since a device has no
//! promises of its own. `suite::ON_DEVICES` of the suite knows what that means for the cases.

#![no_std]

mod held;
mod jobs;
mod members;
mod objects;

use core::cell::RefCell;

use embassy_sync::waitqueue::WakerRegistration;
use farref_embassy::{
    Action, Arguments, Config, Connection, Done, ErrorCode, Later, Member, Memory, Micro, Notice, Object, ObjectKey,
    Objects, Peer, Reply, Root, Service,
};
use heapless::{String, Vec};

use held::{Held, Own};
pub use held::{Holds, REFERENCES};
use jobs::Job;

/// A connection with room for what the cases do: messages of 4,096 bytes and 8 calls at a time.
pub type FixtureConnection =
    Connection<Micro<OBJECTS, OBJECTS, CALLS, { MESSAGE + 64 }, { MESSAGE + 2048 }>, OBJECTS, CALLS, 256>;

/// Where such a connection will be.
pub type FixtureMemory =
    Memory<Micro<OBJECTS, OBJECTS, CALLS, { MESSAGE + 64 }, { MESSAGE + 2048 }>, OBJECTS, CALLS, 256>;

/// The longest message that is taken and sent.
pub const MESSAGE: usize = 4096;

/// Objects of this side that the other one can hold, and of the other side that are held here.
pub const OBJECTS: usize = 32;

/// Calls in each direction.
pub const CALLS: usize = 8;

/// Things that are kept under a name, and numbers that counters remember, in all.
const ENTRIES: usize = 16;
const ADDED: usize = 80;

/// What such a thing may take, and the arguments of a call that is passed on.
const ENTRY: usize = 96;
const ARGUMENTS: usize = 704;

/// A device's configuration for these fixtures.
pub fn config(config: Config) -> Config {
    Config { handles: REFERENCES as u16, levels: 8, call_bytes: MESSAGE as u32 + 64, ..config }
}

/// The roots.
pub const ROOTS: &[Root] = &[
    Root { name: "caller", key: CALLER, doc: "calls what it is given" },
    Root { name: "counter", key: COUNTER, doc: "makes a counter: counter(start=0)" },
    Root { name: "echo", key: ECHO, doc: "gives back its arguments" },
    Root { name: "keeper", key: KEEPER, doc: "makes a keeper of references: keeper()" },
    Root { name: "maker", key: MAKER, doc: "makes a maker of objects: maker()" },
    Root { name: "raiser", key: RAISER, doc: "raises and refuses" },
    Root { name: "sink", key: SINK, doc: "tells the length of what it swallows: sink(x)" },
    Root { name: "slow", key: SLOW, doc: "makes an object whose calls wait for others: slow()" },
    Root { name: "source", key: SOURCE, doc: "makes values of any size" },
];

const CALLER: ObjectKey = ObjectKey(1);
const COUNTER: ObjectKey = ObjectKey(2);
const ECHO: ObjectKey = ObjectKey(3);
const KEEPER: ObjectKey = ObjectKey(4);
const MAKER: ObjectKey = ObjectKey(5);
const RAISER: ObjectKey = ObjectKey(6);
const SINK: ObjectKey = ObjectKey(7);
const SLOW: ObjectKey = ObjectKey(8);
const SOURCE: ObjectKey = ObjectKey(9);

/// What one connection serves.
pub struct Fixtures<'c> {
    peer: Peer<'c>,
    holds: &'c Holds<OBJECTS>,
    state: RefCell<State<'c>>,
    jobs: [RefCell<Option<(Later<'c>, Job<'c>)>>; CALLS],
    /// Whoever does the jobs.
    worker: RefCell<WakerRegistration>,
}

struct State<'c> {
    objects: [Option<Kind<'c>>; OBJECTS],
    entries: Vec<Entry<'c>, ENTRIES>,
    /// What was added to counters.
    added: Vec<(ObjectKey, i64), ADDED>,
}

/// What an object is.
enum Kind<'c> {
    Counter {
        sum: i64,
    },
    Keeper,
    Maker {
        made: i64,
        held: Option<Own<'c>>,
    },
    Thing {
        maker: ObjectKey,
        number: i64,
    },
    Slow {
        entered: i64,
    },
    Items {
        length: i64,
    },
    Iterator {
        next: i64,
        length: i64,
    },
    /// What `nest` gives.
    Nest,
}

/// What a keeper keeps, or a gate of a slow object.
struct Entry<'c> {
    of: ObjectKey,
    name: Name,
    /// The name of an exception is told apart.
    is_failure: bool,
    value: Held<'c, ENTRY>,
}

type Name = String<24>;

impl<'c> Fixtures<'c> {
    /// For a connection; `holds` is for nobody else.
    pub fn new(peer: Peer<'c>, holds: &'c Holds<OBJECTS>) -> Self {
        Self {
            peer,
            holds,
            state: RefCell::new(State { objects: [const { None }; OBJECTS], entries: Vec::new(), added: Vec::new() }),
            jobs: [const { RefCell::new(None) }; CALLS],
            worker: RefCell::new(WakerRegistration::new()),
        }
    }

    /// What the connection serves.
    pub fn service(&self) -> Serving<'_, 'c> {
        Serving { fixtures: self, asked: ObjectKey::DIRECTORY }
    }

    /// A new object, which is to be sent at once.
    fn make(&self, kind: Kind<'c>) -> Option<Own<'c>> {
        self.sweep();
        let (place, key) = self.holds.claim()?;
        *self.state.borrow_mut().objects.get_mut(place)? = Some(kind);
        Some(Own::new(key, self.holds))
    }

    /// What an object is, for a moment.
    fn with<R>(&self, key: ObjectKey, ask: impl FnOnce(&mut Kind<'c>) -> R) -> Option<R> {
        let place = self.holds.place(key)?;
        self.state.borrow_mut().objects.get_mut(place)?.as_mut().map(ask)
    }

    /// Lets go of objects that nobody holds, and of what they held.
    fn sweep(&self) {
        let gone = || {
            let mut state = self.state.borrow_mut();
            let places = 0..OBJECTS;
            let place = { places }
                .find(|&place| !self.holds.is_alive(place) && state.objects.get(place).is_some_and(Option::is_some))?;
            let kind = state.objects.get_mut(place)?.take();
            self.holds.free(place);
            let holds = self.holds;
            state.entries.retain(|entry| holds.place(entry.of).is_some());
            state.added.retain(|&(of, _)| holds.place(of).is_some());
            Some(kind)
        };
        // What is dropped may have been the last to hold another.
        while gone().is_some() {}
    }

    fn wake(&self) {
        self.worker.borrow_mut().wake();
    }
}

/// A service of a connection.
pub struct Serving<'f, 'c> {
    fixtures: &'f Fixtures<'c>,
    asked: ObjectKey,
}

impl Objects for Serving<'_, '_> {
    fn object(&mut self, key: ObjectKey) -> Option<&mut dyn Object> {
        self.fixtures.sweep();
        self.asked = key;
        let is_there = key.0 <= SOURCE.0 || self.fixtures.holds.place(key).is_some();
        is_there.then_some(self)
    }
}

impl Service for Serving<'_, '_> {
    fn roots(&self) -> &'static [Root] {
        ROOTS
    }

    fn notice(&mut self, notice: Notice) {
        if let Notice::Freed(key) = notice {
            self.fixtures.holds.set_exported(key, false);
            self.fixtures.sweep();
        }
    }

    fn over(&mut self) {
        self.fixtures.holds.clear();
        self.fixtures.sweep();
        self.fixtures.wake();
    }
}

impl Object for Serving<'_, '_> {
    fn members(&self) -> &'static [Member] {
        match self.asked {
            CALLER => members::CALLER,
            RAISER => members::RAISER,
            SINK => members::SINK,
            SOURCE => members::SOURCE,
            key => {
                let of_kind = |kind: &mut Kind<'_>| match kind {
                    Kind::Counter { .. } => members::COUNTER,
                    Kind::Keeper => members::KEEPER,
                    Kind::Maker { .. } => members::MAKER,
                    Kind::Thing { .. } => members::THING,
                    Kind::Slow { .. } => members::SLOW,
                    Kind::Items { .. } | Kind::Iterator { .. } | Kind::Nest => &[][..],
                };
                self.fixtures.with(key, of_kind).unwrap_or_default()
            }
        }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        self.fixtures.perform(self.asked, action, args, reply)
    }
}

/// There is no room for more.
fn no_room(reply: Reply<'_>) -> Done {
    reply.raise("MemoryError", "the device has no room for that")
}

/// For errors of the other side that no text of the fixtures is about.
fn code_of(error: farref_embassy::Error) -> Option<ErrorCode> {
    use farref_embassy::{CallError, Error};
    match error {
        Error::Failed(code) => Some(code),
        Error::Call(CallError::Overloaded | CallError::NotServed) => Some(ErrorCode::Overloaded),
        Error::Call(CallError::TooDeep) => Some(ErrorCode::TooDeep),
        Error::Call(CallError::TableFull | CallError::TooManyReferences) => Some(ErrorCode::TableFull),
        _ => None,
    }
}
