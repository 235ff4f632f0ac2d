//! One side: a session, and a host that serves objects and notes results.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use farref_core::dispatch::{Dispatcher, Object, Objects, Root};
use farref_core::frame::{Split, split};
use farref_core::message::{DownReason, ErrorCode, Handles, Limits};
use farref_core::session::{
    Answer, Call, CallError, Callee, Config, Ended, Event, Import, Kept, Notice, ObjectKey, Question, Receiver, Ref,
    Reference, Request, Return, Session, Storage,
};
use farref_core::value::{OwnedValue, Value, Values};

use super::hello;

/// A value of its own, with references as they are sent.
pub type Owned = OwnedValue<Ref>;

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
    /// Calls of this side whose deadline has passed.
    pub late: Vec<Question>,
    /// References that this side was told to be down.
    pub down: Vec<(Import, DownReason)>,
    objects: Table,
    permanent: BTreeSet<ObjectKey>,
    roots: Vec<Root>,
    thens: HashMap<Question, Then<S>>,
    results: HashMap<Question, Returned>,
    scratch: Vec<u8>,
    pub(super) now: u64,
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
            late: Vec::new(),
            down: Vec::new(),
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

    /// Objects that are not permanent, oldest first.
    pub fn transients(&self) -> impl Iterator<Item = ObjectKey> {
        self.objects.0.keys().copied().filter(|key| !self.permanent.contains(key))
    }

    /// How many of these there are.
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

    /// Returns that nobody has taken.
    pub fn untaken(&self) -> usize {
        self.results.len()
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
                    Some(Notice::DeadlineExceeded(question)) => self.note_late(question),
                    Some(Notice::Down { import, reason }) => self.down.push((import, reason)),
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
            // What an answer settled to is not the host's to give back, and what was lent may be gone.
            let resolved = handle.of_sender().and_then(|_| self.session.resolve(handle));
            if let Some(Reference::Import(import) | Reference::Weak(import)) = resolved {
                let _ = self.session.release(import);
            }
        }
    }

    /// Whoever waits for a call that was abandoned then waits no more.
    fn note_late(&mut self, question: Question) {
        self.late.push(question);
        if !self.session.is_awaited(question)
            && let Some(then) = self.thens.remove(&question)
        {
            let failure = Failure { code: ErrorCode::DeadlineExceeded, values: Vec::new() };
            then(self, Returned { outcome: Err(failure), held: Vec::new(), at: self.now });
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
            Some(Reference::Import(import) | Reference::Weak(import)) => Some(import),
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

/// Copies a received value. A promise that settled to a value is that value.
///
/// # Panics
///
/// If a reference is stale.
pub fn own<S: Storage>(session: &Session<S>, handles: Handles<'_>, value: Value<'_>) -> Owned {
    let named = |index| match handles.get(index).and_then(|handle| session.resolve(handle)) {
        Some(named) => named,
        None => panic!("reference {index} is stale"),
    };
    let in_kept = |handles: Handles<'_>, index| match handles.get(index).map(|handle| session.resolve_kept(handle)) {
        Some(Some(named)) => named,
        other => panic!("kept reference {index} is {other:?}"),
    };
    own_with(value, &named, &|kept| session.kept(kept), &in_kept)
}

/// Copies a received value: `named` tells what a handle is, `kept` gives a kept value, `in_kept` tells what its handles
/// are.
pub(crate) fn own_with<'s>(
    value: Value<'_>,
    named: &dyn Fn(u32) -> Reference,
    kept: &dyn Fn(Kept) -> Option<(Handles<'s>, Values<'s>)>,
    in_kept: &dyn Fn(Handles<'s>, u32) -> Reference,
) -> Owned {
    let plain = |reference| match reference {
        Reference::Local(key) => OwnedValue::Reference(Ref::Local(key)),
        Reference::Import(import) | Reference::Weak(import) => OwnedValue::Reference(Ref::Import(import)),
        Reference::None | Reference::Value(_) => OwnedValue::None,
    };
    OwnedValue::substitute(value, &mut |index| match named(index) {
        Reference::Value(value) => {
            let (handles, values) = kept(value).unwrap_or_default();
            let value = values.first().unwrap_or(Value::None);
            OwnedValue::substitute(value, &mut |index| plain(in_kept(handles, index)))
        }
        other => plain(other),
    })
}

/// The references among values, in the order in which they are written.
pub fn references(values: &[Owned]) -> Vec<Ref> {
    let mut references = Vec::new();
    values.iter().for_each(|value| value.each_reference(&mut |&reference| references.push(reference)));
    references
}
