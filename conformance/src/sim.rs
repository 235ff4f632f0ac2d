//! Two sessions in virtual time: no IO, no threads, no sleeps.
//!
//! [`Sim`] joins two real sides by wires that delay each record by `delay` ticks; computing takes no time. [`Side`] alone
//! is also what a scripted peer talks to: see [`Side::scripted`] and [`body`].

mod linked;
mod play;
mod script;
mod serial;
mod side;

use std::collections::VecDeque;

use farref_core::codec::Writer;
use farref_core::dispatch::Object;
use farref_core::frame::{Split, split};
use farref_core::message::{Limits, Message, Op};
use farref_core::session::{Call, Callee, Config, Ended, Import, LinkMode, Question, Ref, Storage, Tables};
use farref_core::value::OwnedValue;

pub use linked::Linked;
pub use play::{Choices, Played, play};
pub use script::{body, hello, hello_with};
pub use serial::{Faults, SerialSim};
pub use side::{Board, Failure, Owned, Returned, Side, Then, own, references};

pub(crate) use script::body_within;
pub(crate) use side::own_with;

/// The side that calls, in most cases.
pub const A: usize = 0;
/// The side that serves, in most cases.
pub const B: usize = 1;

/// Table sizes right after Hello: the directory is exported.
pub const BASELINE: Tables = Tables { exports: 1, imports: 0, questions: 0, answers: 0 };

/// Moments in which a simulation may deliver records in one run. More is a livelock.
const MAX_RECORDS: usize = 2_000_000;

/// Limits of an ordinary host.
pub const LIMITS: Limits =
    Limits { max_message: 1 << 16, imports: 200_000, answers: 256, call_bytes: 1 << 20, handles: 64, levels: 32 };

/// How a side with these limits is set up, its own tables as large.
pub fn config(limits: Limits) -> Config {
    Config {
        limits,
        exports: limits.imports,
        calls: limits.answers,
        out_bytes: 1 << 20,
        store_bytes: 2 * limits.call_bytes as usize,
        peer: farref_core::Uuid::from_bytes([7; 16]),
        incarnation: 1,
        link: LinkMode::Off,
        patience: None,
    }
}

/// Messages and bytes on the wire, both directions, Hello excluded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages.
    pub messages: u64,
    /// Bytes, framing included.
    pub bytes: u64,
}

/// One direction.
#[derive(Default)]
struct Wire {
    flying: VecDeque<(u64, Vec<u8>)>,
    arrived: Vec<u8>,
    counts: Counts,
}

impl Wire {
    fn arrival(&self) -> Option<u64> {
        self.flying.front().map(|&(at, _)| at)
    }
}

/// A generator of the same numbers every time (xorshift).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// Two sides and the wires between them.
pub struct Sim<S: Storage> {
    /// The sides, [`A`] and [`B`].
    pub sides: [Side<S>; 2],
    /// Virtual time.
    pub now: u64,
    /// All messages, as they are put on the wire, if [`Self::trace`] was called.
    pub log: Vec<String>,
    wires: [Wire; 2],
    delay: u64,
    start: u64,
    chunks: Option<Random>,
    traced: bool,
}

impl<S: Storage + 'static> Sim<S> {
    /// Two sides set up alike, their Hellos exchanged, each direction 10 ticks long.
    pub fn new(limits: Limits) -> Self {
        Self::with([config(limits), config(limits)])
    }

    /// Two sides, their Hellos exchanged, each direction 10 ticks long.
    pub fn with(configs: [Config; 2]) -> Self {
        let mut sim = Self {
            sides: configs.map(Side::new),
            now: 0,
            log: Vec::new(),
            wires: Default::default(),
            delay: 10,
            start: 0,
            chunks: None,
            traced: false,
        };
        // Keepalive goes on for ever.
        sim.run_within(4 * sim.delay);
        sim.mark();
        sim
    }

    /// Each direction takes so many ticks from now on, at least 1.
    pub fn delay(mut self, ticks: u64) -> Self {
        self.delay = ticks.max(1);
        self
    }

    /// Bytes arrive in chunks of random lengths.
    pub fn chunked(mut self, seed: u64) -> Self {
        self.chunks = Some(Random::new(seed));
        self
    }

    /// Keeps a log of messages.
    pub fn trace(mut self) -> Self {
        self.traced = true;
        self
    }

    /// B serves the object as a root, and A holds it; counts and time start here.
    pub fn serving(mut self, object: impl Object + 'static) -> (Self, Import) {
        self.sides[B].add_root("x", object);
        let x = self.root(A, "x");
        self.mark();
        (self, x)
    }

    /// A gives back what it held, and both sides are at the baseline.
    pub fn close(mut self, held: Import) {
        self.sides[A].session.release(held).expect("A holds it");
        self.assert_baseline();
    }

    /// Counts and time start here.
    pub fn mark(&mut self) {
        self.start = self.now;
        self.wires.iter_mut().for_each(|wire| wire.counts = Counts::default());
    }

    /// What was on the wires since the mark.
    pub fn counts(&self) -> Counts {
        let [there, back] = [self.wires[A].counts, self.wires[B].counts];
        Counts { messages: there.messages + back.messages, bytes: there.bytes + back.bytes }
    }

    /// What one side sent since the mark.
    pub fn sent(&self, from: usize) -> Counts {
        self.wires[from].counts
    }

    /// Round trips from the mark to a moment.
    pub fn round_trips(&self, at: u64) -> f64 {
        (at - self.start) as f64 / (2 * self.delay) as f64
    }

    /// Calls; what cannot be called is a panic.
    pub fn call(&mut self, side: usize, call: Call<'_>, args: &[Owned]) -> Question {
        match self.sides[side].call(call, args) {
            Ok(question) => question,
            Err(error) => panic!("the call can't be made: {error}"),
        }
    }

    /// Calls a reference and drives both sides until they are quiet.
    pub fn ask(&mut self, side: usize, import: Import, op: Op, args: &[Owned]) -> Returned {
        let question = self.call(side, Call::new(Callee::Import(import), op), args);
        self.run();
        self.returned(side, question)
    }

    /// As [`Self::ask`], and the references that come with it are given back.
    pub fn get(&mut self, side: usize, import: Import, op: Op, args: &[Owned]) -> Result<Owned, Failure> {
        let returned = self.ask(side, import, op, args);
        self.sides[side].release(&returned);
        self.run();
        returned.outcome
    }

    /// A root of the other side.
    pub fn root(&mut self, side: usize, name: &str) -> Import {
        let returned = self.ask(side, Import::DIRECTORY, Op::GetAttr, &[name.into()]);
        match returned.outcome {
            Ok(OwnedValue::Reference(Ref::Import(import))) => import,
            other => panic!("no root {name}: {other:?}"),
        }
    }

    /// How a call ended; that it has not is a panic.
    pub fn returned(&mut self, side: usize, question: Question) -> Returned {
        match self.sides[side].take(question) {
            Some(returned) => returned,
            None => panic!("{question:?} has no Return; sessions: {:?}", self.ended()),
        }
    }

    /// Why the sessions are over, if they are.
    pub fn ended(&self) -> [Option<Ended>; 2] {
        [self.sides[A].session.ended(), self.sides[B].session.ended()]
    }

    /// Both sides hold nothing that they did not hold right after Hello.
    pub fn assert_baseline(&mut self) {
        self.run();
        for (side, name) in self.sides.iter().zip(["A", "B"]) {
            assert_eq!(side.session.tables(), BASELINE, "side {name}");
            assert_eq!(side.transient(), 0, "objects of side {name}");
        }
    }

    /// Drives both sides until nothing is under way, and no deadline either.
    pub fn run(&mut self) {
        self.run_within(u64::MAX);
    }

    /// Drives both sides until that moment.
    pub fn run_until(&mut self, end: u64) {
        self.run_within(end);
        self.now = self.now.max(end);
        self.advance();
    }

    fn run_within(&mut self, end: u64) {
        for _ in 0..MAX_RECORDS {
            self.advance();
            self.transmit(A);
            self.transmit(B);
            let timers = self.sides.iter().filter_map(|side| side.session.poll_timeout());
            let Some(at) = timers.chain(self.arrival()).min().filter(|&at| at <= end) else { return };
            self.now = self.now.max(at);
            // All that arrives in one moment is read before anything is written.
            while self.arrival() == Some(at) && self.step() {}
        }
        panic!("a livelock: not quiet after {MAX_RECORDS} moments");
    }

    /// Tells both sides the time.
    pub(crate) fn advance(&mut self) {
        for side in &mut self.sides {
            side.now = self.now;
            side.session.advance(self.now);
            side.settle();
        }
    }

    /// Puts what a side has to send on the wire.
    pub fn transmit(&mut self, from: usize) {
        self.sides[from].settle();
        for body in self.sides[from].output() {
            let message = Message::read(&body);
            if self.traced {
                let line = match &message {
                    Ok(message) => format!("{message:?}"),
                    Err(_) => format!("malformed {body:02x?}"),
                };
                self.log.push(format!("{} {:?} {line}", self.now, ["A", "B"][from]));
            }
            let mut record = vec![0; body.len() + 5];
            let mut writer = Writer::new(&mut record);
            writer.blob(&body);
            let length = writer.len();
            record.truncate(length);
            let wire = &mut self.wires[from];
            if !matches!(message, Ok(Message::Hello(_))) {
                wire.counts.messages += 1;
                wire.counts.bytes += length as u64;
            }
            wire.flying.push_back((self.now + self.delay, record));
        }
    }

    /// Delivers the record that arrives next; false if none is under way.
    pub fn step(&mut self) -> bool {
        let [there, back] = self.wires.each_ref().map(Wire::arrival);
        let from = if back.is_none() || there.is_some() && there <= back { A } else { B };
        self.deliver(from)
    }

    /// When the next record arrives.
    fn arrival(&self) -> Option<u64> {
        self.wires.iter().filter_map(Wire::arrival).min()
    }

    /// Delivers the next record that a side has sent; false if none is under way. Later ones of the other side may thus
    /// arrive first.
    pub fn deliver(&mut self, from: usize) -> bool {
        let Some((at, record)) = self.wires[from].flying.pop_front() else { return false };
        self.now = self.now.max(at);
        let side = &mut self.sides[1 - from];
        side.now = self.now;
        side.session.advance(self.now);
        let max_message = side.session.limits().max_message;
        let mut rest = record.as_slice();
        while !rest.is_empty() {
            let most = rest.len() as u64;
            let count = self.chunks.as_mut().map_or(most, |random| 1 + random.below(most));
            let (chunk, more) = rest.split_at(count as usize);
            rest = more;
            let arrived = &mut self.wires[from].arrived;
            arrived.extend_from_slice(chunk);
            loop {
                let (used, ended) = match split(arrived, max_message.max(256)) {
                    Split::Record { body, rest } => (arrived.len() - rest.len(), side.receive(body).is_err()),
                    Split::Incomplete => break,
                    Split::Bad => (arrived.len(), side.receive(&[]).is_err()),
                };
                // A side whose session is over reads nothing more.
                arrived.drain(..if ended { arrived.len() } else { used });
            }
        }
        true
    }
}
