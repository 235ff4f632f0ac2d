//! Two sessions in virtual time: no IO, no threads, no sleeps.
//!
//! [`Sim`] joins two real sides by wires that delay each record by `delay` ticks; computing takes no time. [`Side`] alone
//! is also what a scripted peer talks to: see [`Side::scripted`] and [`body`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use farref_core::codec::Writer;
use farref_core::dispatch::{Dispatcher, Object, Objects, Root};
use farref_core::frame::{Split, split};
use farref_core::message::{ErrorCode, Handles, Limits, Message, Op};
use farref_core::session::{
    Answer, Call, CallError, Callee, Config, Ended, Event, Import, Notice, ObjectKey, Question, Receiver, Ref,
    Reference, Request, Return, Session, Storage, Tables,
};
use farref_core::value::{OwnedValue, Value, Values};

/// A value of its own, with references as they are sent.
pub type Owned = OwnedValue<Ref>;

/// The side that calls, in most cases.
pub const A: usize = 0;
/// The side that serves, in most cases.
pub const B: usize = 1;

/// Table sizes right after Hello: the directory is exported.
pub const BASELINE: Tables = Tables { exports: 1, imports: 0, questions: 0, answers: 0 };

/// Records that a simulation may deliver in one run. More is a livelock.
const MAX_RECORDS: usize = 2_000_000;

/// Limits of an ordinary host.
pub const LIMITS: Limits = Limits {
    max_message: 1 << 16,
    imports: 200_000,
    answers: 256,
    call_bytes: 1 << 20,
    handles: 64,
    levels: 32,
};

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
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Returned {
    /// Its result, or why there is none.
    pub outcome: Result<Owned, Failure>,
    /// One hold for each reference of the other side that came with it.
    pub held: Vec<Import>,
    /// When it came.
    pub at: u64,
}

/// An error as it came over the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Its code.
    pub code: ErrorCode,
    /// What came with it.
    pub values: Vec<Owned>,
}

impl Failure {
    /// The exception's name and arguments, if one was raised.
    pub fn exception(&self) -> Option<(&str, &[Owned])> {
        match self.values.as_slice() {
            [OwnedValue::Exception(exception)] if self.code == ErrorCode::Raised => {
                Some((&exception.name, &exception.args))
            }
            _ => None,
        }
    }
}

/// What is to happen with a Return.
pub type Then<S> = Box<dyn FnOnce(&mut Side<S>, Returned)>;

/// What objects leave for their side to do after the request: new objects, what to do with a Return, releases.
pub struct Board<S: Storage>(Rc<RefCell<Posted<S>>>);

struct Posted<S: Storage> {
    next_key: u32,
    born: Vec<(ObjectKey, Box<dyn Object>)>,
    thens: Vec<(Question, Then<S>)>,
    releases: Vec<Import>,
}

impl<S: Storage> Clone for Board<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: Storage> Board<S> {
    fn new() -> Self {
        let posted = Posted { next_key: 1, born: Vec::new(), thens: Vec::new(), releases: Vec::new() };
        Self(Rc::new(RefCell::new(posted)))
    }

    /// A new object, dropped when nobody holds it any more.
    pub fn add(&self, object: impl Object + 'static) -> ObjectKey {
        let mut posted = self.0.borrow_mut();
        let key = ObjectKey(posted.next_key);
        posted.next_key += 1;
        posted.born.push((key, Box::new(object)));
        key
    }

    /// What to do when a call has its Return. Its references are released afterwards.
    pub fn then(&self, question: Question, then: impl FnOnce(&mut Side<S>, Returned) + 'static) {
        self.0.borrow_mut().thens.push((question, Box::new(then)));
    }

    /// Gives back a reference that an object kept.
    pub fn release(&self, import: Import) {
        self.0.borrow_mut().releases.push(import);
    }
}

/// The objects of one side.
#[derive(Default)]
struct Table(BTreeMap<ObjectKey, Box<dyn Object>>);

impl Objects for Table {
    fn object(&mut self, key: ObjectKey) -> Option<&mut dyn Object> {
        match self.0.get_mut(&key) {
            Some(object) => Some(&mut **object),
            None => None,
        }
    }
}

/// One side: a session, and a host that serves objects and notes results.
pub struct Side<S: Storage> {
    /// The session.
    pub session: Session<S>,
    /// For objects of this side.
    pub board: Board<S>,
    /// Objects that nobody held any more, in that order.
    pub freed: Vec<ObjectKey>,
    /// Calls that the other side asked to stop.
    pub interrupted: Vec<Answer>,
    objects: Table,
    permanent: BTreeSet<ObjectKey>,
    roots: Vec<Root>,
    thens: HashMap<Question, Then<S>>,
    results: HashMap<Question, Returned>,
    scratch: Vec<u8>,
    now: u64,
}

impl<S: Storage + 'static> Side<S> {
    /// A side without objects.
    pub fn new(config: Config) -> Self {
        let session = Session::new(config);
        let scratch = vec![0; session.limits().max_message as usize];
        Self {
            session,
            board: Board::new(),
            freed: Vec::new(),
            interrupted: Vec::new(),
            objects: Table::default(),
            permanent: BTreeSet::new(),
            roots: Vec::new(),
            thens: HashMap::new(),
            results: HashMap::new(),
            scratch,
            now: 0,
        }
    }

    /// A side whose peer is a script: its Hello is gone, and the script's has come.
    pub fn scripted(config: Config, peer: Limits) -> Self {
        let mut side = Self::new(config);
        side.output();
        let received = side.receive(&hello(peer));
        assert_eq!(received, Ok(()), "the script's Hello is fine");
        side
    }

    /// A new object, dropped when nobody holds it any more.
    pub fn add(&mut self, object: impl Object + 'static) -> ObjectKey {
        let key = self.board.add(object);
        self.adopt();
        key
    }

    /// A new object that stays.
    pub fn add_permanent(&mut self, object: impl Object + 'static) -> ObjectKey {
        let key = self.add(object);
        self.permanent.insert(key);
        key
    }

    /// A named root of the directory. It stays.
    pub fn add_root(&mut self, name: &'static str, object: impl Object + 'static) -> ObjectKey {
        let key = self.add_permanent(object);
        self.roots.push(Root { name, key, doc: "a root" });
        key
    }

    /// Whether an object is still there.
    pub fn has(&self, key: ObjectKey) -> bool {
        self.objects.0.contains_key(&key)
    }

    /// Objects that are not permanent.
    pub fn transient(&self) -> usize {
        self.objects.0.len() - self.permanent.len()
    }

    /// Calls, with arguments of its own.
    pub fn call(&mut self, call: Call<'_>, args: &[Owned]) -> Result<Question, CallError> {
        let references = references(args);
        self.session.call(call.references(&references), |writer| {
            let mut next = 0;
            args.iter().try_for_each(|arg| arg.write(writer, &mut next))
        })
    }

    /// Replies to a call that was put off.
    pub fn reply(&mut self, answer: Answer, result: &Owned) {
        let references = references(std::slice::from_ref(result));
        let replied = self.session.reply(answer, &references, |writer| result.write(writer, &mut 0));
        assert_eq!(replied, Ok(()));
    }

    /// Replies an error to a call that was put off.
    pub fn fail(&mut self, answer: Answer, failure: &Failure) {
        let references = references(&failure.values);
        let replied = self.session.reply_error(answer, failure.code, &references, |writer| {
            let mut next = 0;
            failure.values.iter().try_for_each(|value| value.write(writer, &mut next))
        });
        assert_eq!(replied, Ok(()));
    }

    /// Replies what a nested call gave.
    pub fn relay(&mut self, answer: Answer, returned: &Returned) {
        match &returned.outcome {
            Ok(result) => self.reply(answer, result),
            Err(failure) => self.fail(answer, failure),
        }
    }

    /// What is to be done with a Return. Its references are released afterwards.
    pub fn then(&mut self, question: Question, then: impl FnOnce(&mut Self, Returned) + 'static) {
        self.thens.insert(question, Box::new(then));
    }

    /// How a call ended, if it has.
    pub fn take(&mut self, question: Question) -> Option<Returned> {
        self.results.remove(&question)
    }

    /// Gives back what came with a Return.
    pub fn release(&mut self, returned: &Returned) {
        for &import in &returned.held {
            assert_eq!(self.session.release(import), Ok(()));
        }
    }

    /// Takes one record's body, serves what it asks and notes what it tells.
    pub fn receive(&mut self, body: &[u8]) -> Result<(), Ended> {
        match self.session.handle(body)? {
            None | Some(Event::Ready) => {}
            Some(Event::Request(request)) => self.serve(&request),
            Some(Event::Return(returned)) => self.note(&returned),
        }
        self.settle();
        Ok(())
    }

    /// Takes bodies until one ends the session, and tells why.
    pub fn receive_all<'b>(&mut self, bodies: impl IntoIterator<Item = &'b Vec<u8>>) -> Option<Ended> {
        bodies.into_iter().find_map(|body| self.receive(body).err())
    }

    /// Serves calls that have become ready, and notes notices.
    pub fn settle(&mut self) {
        self.adopt();
        let mut scratch = std::mem::take(&mut self.scratch);
        loop {
            if let Some(request) = self.session.poll_ready(&mut scratch) {
                self.serve(&request);
            } else {
                match self.session.poll_notice() {
                    Some(Notice::Freed(key)) => {
                        self.freed.push(key);
                        if !self.permanent.contains(&key) {
                            self.objects.0.remove(&key);
                        }
                    }
                    Some(Notice::Interrupted(answer)) => self.interrupted.push(answer),
                    None => break,
                }
            }
            self.adopt();
        }
        self.scratch = scratch;
    }

    /// The bodies of the records that are to go out.
    pub fn output(&mut self) -> Vec<Vec<u8>> {
        let mut bodies = Vec::new();
        let mut rest = self.session.transmit();
        while let Split::Record { body, rest: more } = split(rest, u32::MAX) {
            bodies.push(body.to_vec());
            rest = more;
        }
        assert!(rest.is_empty(), "output is whole records");
        self.session.transmitted(usize::MAX);
        bodies
    }

    fn adopt(&mut self) {
        let mut posted = self.board.0.borrow_mut();
        self.objects.0.extend(posted.born.drain(..));
        self.thens.extend(posted.thens.drain(..));
        for import in posted.releases.drain(..) {
            let _ = self.session.release(import);
        }
    }

    fn serve(&mut self, request: &Request<'_>) {
        match request.receiver {
            Receiver::Import(import) => self.forward(request, import),
            _ => Dispatcher::new(&self.roots).dispatch(&mut self.session, request, &mut self.objects),
        }
        self.adopt();
    }

    /// A call for an answer that came home goes back to its owner, as a nested call (ANS-6).
    fn forward(&mut self, request: &Request<'_>, import: Import) {
        let args: Vec<Owned> = request.args.map(|arg| own(&self.session, request.handles, arg)).collect();
        let answer = request.call;
        match self.call(Call::new(Callee::Import(import), request.op).parent(answer), &args) {
            Ok(question) => self.then(question, move |side, returned| side.relay(answer, &returned)),
            Err(_) => assert_eq!(self.session.refuse(answer, ErrorCode::Overloaded, 0), Ok(())),
        }
        for handle in request.handles {
            if let Some(Reference::Import(import)) = self.session.resolve(handle) {
                let _ = self.session.release(import);
            }
        }
    }

    fn note(&mut self, returned: &Return<'_>) {
        let session = &self.session;
        let owned = |value| own(session, returned.handles, value);
        let outcome = match returned.outcome {
            Ok(()) => Ok(returned.values.first().map_or(OwnedValue::None, owned)),
            Err(code) => Err(Failure { code, values: returned.values.map(owned).collect() }),
        };
        let imports = returned.handles.filter_map(|handle| match session.resolve(handle) {
            Some(Reference::Import(import)) => Some(import),
            _ => None,
        });
        let note = Returned { outcome, held: imports.collect(), at: self.now };
        match self.thens.remove(&returned.question) {
            Some(then) => {
                let held = note.held.clone();
                then(self, note);
                for import in held {
                    let _ = self.session.release(import);
                }
            }
            None => {
                self.results.insert(returned.question, note);
            }
        }
    }
}

/// Copies a received value.
///
/// # Panics
///
/// If a reference is stale, or an answer that settled to a value.
pub fn own<S: Storage>(session: &Session<S>, handles: Handles<'_>, value: Value<'_>) -> Owned {
    OwnedValue::new(value, &mut |index| {
        match handles.get(index).and_then(|handle| session.resolve(handle)) {
            Some(Reference::Local(key)) => Ref::Local(key),
            Some(Reference::Import(import)) => Ref::Import(import),
            other => panic!("reference {index} is {other:?}"),
        }
    })
}

/// The references among values, in the order in which they are written.
pub fn references(values: &[Owned]) -> Vec<Ref> {
    let mut references = Vec::new();
    values.iter().for_each(|value| value.each_reference(&mut |&reference| references.push(reference)));
    references
}

/// The body of a message, written by a script.
pub fn body(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 17];
    let mut writer = Writer::new(&mut bytes);
    write(&mut writer);
    let length = writer.len();
    bytes.truncate(length);
    bytes
}

/// The body of a Hello with these limits.
pub fn hello(limits: Limits) -> Vec<u8> {
    hello_with(1, 1, limits)
}

/// The body of a Hello with these versions and limits, in range or not.
pub fn hello_with(version_min: u64, version_max: u64, limits: Limits) -> Vec<u8> {
    body(|writer| {
        writer.byte(0x10);
        for field in [
            version_min,
            version_max,
            0,
            limits.max_message.into(),
            limits.imports.into(),
            limits.answers.into(),
            limits.call_bytes.into(),
            limits.handles.into(),
            limits.levels.into(),
        ] {
            writer.varint(field);
        }
        writer.put(&[9; 16]);
        writer.varint(1);
    })
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
        sim.run();
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

    /// Drives both sides until nothing is under way.
    pub fn run(&mut self) {
        for _ in 0..MAX_RECORDS {
            self.transmit(A);
            self.transmit(B);
            if !self.step() {
                return;
            }
        }
        panic!("a livelock: not quiet after {MAX_RECORDS} records");
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
        let arrival = |wire: &Wire| wire.flying.front().map_or(u64::MAX, |&(at, _)| at);
        let from = if arrival(&self.wires[A]) <= arrival(&self.wires[B]) { A } else { B };
        self.deliver(from)
    }

    /// Delivers the next record that a side has sent; false if none is under way. Later ones of the other side may thus
    /// arrive first.
    pub fn deliver(&mut self, from: usize) -> bool {
        let Some((at, record)) = self.wires[from].flying.pop_front() else { return false };
        self.now = self.now.max(at);
        let side = &mut self.sides[1 - from];
        side.now = self.now;
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

/// The values of a run, copied; references are left out.
pub fn plain(values: Values<'_>) -> Vec<OwnedValue<u32>> {
    values.map(|value| OwnedValue::new(value, &mut |index| index)).collect()
}
