//! Objects of the peer, and calls on their way.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use farref_core::dispatch::MemberKind;
use farref_core::message::Op;
use farref_core::session::{CallError, Import};

use crate::args::Args;
use crate::call::{self, OpenCall, Target};
use crate::connection::{Dropped, Shared};
use crate::error::Error;
use crate::object::{self, Member};
use crate::value::{Reference, Value};

/// An object of the peer. Clones are the same object; when the last one is dropped, it is released.
#[derive(Clone)]
pub struct Proxy(Arc<ProxyInner>);

pub(crate) struct ProxyInner {
    shared: Arc<Shared>,
    import: Import,
}

impl Drop for ProxyInner {
    fn drop(&mut self) {
        // Only a note: this may happen anywhere, in a callback or under a lock.
        if self.import != Import::DIRECTORY {
            self.shared.note_dropped(Dropped::Import(self.import));
        }
    }
}

impl Proxy {
    pub(crate) fn new(shared: Arc<Shared>, import: Import) -> Self {
        Self(Arc::new(ProxyInner { shared, import }))
    }

    pub(crate) fn from_inner(inner: Arc<ProxyInner>) -> Self {
        Self(inner)
    }

    pub(crate) fn inner(&self) -> &Arc<ProxyInner> {
        &self.0
    }

    pub(crate) fn import(&self) -> Import {
        self.0.import
    }

    pub(crate) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.0.shared, shared)
    }

    /// What identifies it among the objects of this process.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>() as usize
    }
}

/// The proxy, if the value is a reference to an object of a peer; otherwise the value.
impl TryFrom<Value> for Proxy {
    type Error = Value;

    fn try_from(value: Value) -> Result<Self, Value> {
        match value {
            Value::Reference(Reference::Remote(proxy)) => Ok(proxy),
            other => Err(other),
        }
    }
}

/// Identity: the same object of the same peer.
impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        self.is_of(&other.0.shared) && self.0.import == other.0.import
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "<remote object {}>", self.0.import.slot())
    }
}

/// What a call will answer: calls can be made on it at once, and it can be an argument of others, before anything has come
/// back. Dropping all clones abandons the call.
#[derive(Clone)]
pub struct Promise(pub(crate) Arc<OpenCall>);

impl Promise {
    /// Waits for the answer.
    pub fn wait(&self) -> Result<Value, Error> {
        self.0.state.wait()
    }

    /// The answer, if it is there already.
    pub fn outcome(&self) -> Option<Result<Value, Error>> {
        self.0.state.result()
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("<promise>")
    }
}

/// A call under way. Dropping it abandons the call.
#[must_use = "dropping it abandons the call"]
pub struct Pending(OpenCall);

impl Pending {
    /// Waits for the answer.
    pub fn wait(self) -> Result<Value, Error> {
        self.0.state.wait()
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("<call under way>")
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Proxy {}
    impl Sealed for super::Promise {}
}

/// What can be done with an object of the peer, held or promised.
///
/// Methods that give a [`Result`] of a value wait for it. `start_*` give a [`Pending`] call, so that several can be under
/// way; `promise_*` give a [`Promise`], so that others can build on it.
///
/// # Errors and waiting
/// Making a call waits while output is full, and, outside of any handler, while the peer takes no more calls. A call made
/// while serving one of the peer's fails then with [`CallError::Overloaded`] instead, and beyond the peer's levels with
/// [`CallError::TooDeep`], both as [`Error::NotMade`]. The peer's answer may be [`Error::Raised`] or [`Error::Refused`];
/// [`Error::Ended`] says that the session is over.
pub trait Remote: sealed::Sealed {
    /// Starts an operation.
    fn start_op(&self, op: Op, args: Args) -> Result<Pending, Error>;

    /// Starts an operation on whose answer others can be built.
    fn promise_op(&self, op: Op, args: Args) -> Result<Promise, Error>;

    /// Does an operation.
    fn operate(&self, op: Op, args: Args) -> Result<Value, Error> {
        self.start_op(op, args)?.wait()
    }

    /// Calls a method.
    fn invoke(&self, name: &str, args: impl Into<Args>) -> Result<Value, Error> {
        self.start(name, args)?.wait()
    }

    /// Starts the call of a method.
    fn start(&self, name: &str, args: impl Into<Args>) -> Result<Pending, Error> {
        self.start_op(Op::CallMethod, with_name(name, args.into()))
    }

    /// Starts the call of a method on whose answer others can be built.
    fn promise(&self, name: &str, args: impl Into<Args>) -> Result<Promise, Error> {
        self.promise_op(Op::CallMethod, with_name(name, args.into()))
    }

    /// Calls the object itself.
    fn call(&self, args: impl Into<Args>) -> Result<Value, Error> {
        self.operate(Op::Call, args.into())
    }

    /// Reads an attribute.
    fn get(&self, name: &str) -> Result<Value, Error> {
        self.operate(Op::GetAttr, [name].into())
    }

    /// Starts to read an attribute on which others can be built: a root by its name, say.
    fn promise_get(&self, name: &str) -> Result<Promise, Error> {
        self.promise_op(Op::GetAttr, [name].into())
    }

    /// Starts to read an item on which others can be built.
    fn promise_item(&self, key: impl Into<Value>) -> Result<Promise, Error> {
        self.promise_op(Op::GetItem, Args::default().and(key))
    }

    /// Sets an attribute.
    fn set(&self, name: &str, value: impl Into<Value>) -> Result<(), Error> {
        self.operate(Op::SetAttr, Args::from([name]).and(value)).map(drop)
    }

    /// Deletes an attribute.
    fn delete(&self, name: &str) -> Result<(), Error> {
        self.operate(Op::DelAttr, [name].into()).map(drop)
    }

    /// How many items there are.
    fn length(&self) -> Result<i64, Error> {
        let length = self.operate(Op::Length, Args::default())?;
        length.as_int().filter(|length| *length >= 0).ok_or(Error::Misplaced("the peer's length is no count"))
    }

    /// Reads an item.
    fn item(&self, key: impl Into<Value>) -> Result<Value, Error> {
        self.operate(Op::GetItem, Args::default().and(key))
    }

    /// Sets an item.
    fn set_item(&self, key: impl Into<Value>, value: impl Into<Value>) -> Result<(), Error> {
        self.operate(Op::SetItem, Args::default().and(key).and(value)).map(drop)
    }

    /// Deletes an item.
    fn del_item(&self, key: impl Into<Value>) -> Result<(), Error> {
        self.operate(Op::DelItem, Args::default().and(key)).map(drop)
    }

    /// Whether something is among the items.
    fn contains(&self, value: impl Into<Value>) -> Result<bool, Error> {
        Ok(self.operate(Op::Contains, Args::default().and(value))? == Value::Bool(true))
    }

    /// Its items, fetched many at a time.
    fn iterate(&self) -> Result<Items, Error> {
        let iterator = self.promise_op(Op::Iterate, Args::default())?;
        Ok(Items { iterator, batch: VecDeque::new(), over: false })
    }

    /// Its text form.
    fn text(&self) -> Result<String, Error> {
        match self.operate(Op::Text, Args::default())? {
            Value::Str(text) => Ok(text),
            _ => Err(Error::Misplaced("the peer's text form is no text")),
        }
    }

    /// Whether it equals something.
    fn equals(&self, other: impl Into<Value>) -> Result<bool, Error> {
        Ok(self.operate(Op::Equals, Args::default().and(other))? == Value::Bool(true))
    }

    /// Its hash.
    fn hash(&self) -> Result<Value, Error> {
        self.operate(Op::Hash, Args::default())
    }

    /// All its contents by value, in one round trip.
    fn force(&self) -> Result<Value, Error> {
        self.operate(Op::Force, Args::default())
    }

    /// Its members, with their documentation.
    fn describe(&self) -> Result<Vec<Member>, Error> {
        let described = self.operate(Op::Describe, Args::default())?;
        let Value::Tuple(members) = described else { return Err(NOT_DESCRIBED) };
        members.into_iter().map(|member| read_member(member).ok_or(NOT_DESCRIBED)).collect()
    }
}

const NOT_DESCRIBED: Error = Error::Misplaced("the peer's description is no list of members");

fn read_member(member: Value) -> Option<Member> {
    let Value::Tuple(parts) = member else { return None };
    let [Value::Str(name), Value::Int(kind), Value::Str(doc)] = <[Value; 3]>::try_from(parts).ok()? else {
        return None;
    };
    let kind = match kind {
        0 => MemberKind::Method,
        1 => MemberKind::Readable,
        2 => MemberKind::Writable,
        3 => MemberKind::Constant,
        _ => return None,
    };
    Some(Member { name: name.into(), kind, doc: doc.into() })
}

fn with_name(name: &str, mut args: Args) -> Args {
    args.positional.insert(0, name.into());
    args
}

impl Remote for Proxy {
    fn start_op(&self, op: Op, args: Args) -> Result<Pending, Error> {
        call::start(&self.0.shared, Target::Proxy(self.0.import), op, args, false, 0).map(Pending)
    }

    fn promise_op(&self, op: Op, args: Args) -> Result<Promise, Error> {
        call::start(&self.0.shared, Target::Proxy(self.0.import), op, args, true, 0).map(|call| Promise(Arc::new(call)))
    }
}

impl Remote for Promise {
    fn start_op(&self, op: Op, args: Args) -> Result<Pending, Error> {
        self.start_call(op, args, false).map(Pending)
    }

    fn promise_op(&self, op: Op, args: Args) -> Result<Promise, Error> {
        self.start_call(op, args, true).map(|call| Promise(Arc::new(call)))
    }
}

impl Promise {
    /// On the promise, or, once it has settled, on what it settled to.
    fn start_call(&self, op: Op, mut args: Args, pipelined: bool) -> Result<OpenCall, Error> {
        let shared = &self.0.shared;
        let mut outcome = self.0.state.outcome();
        if outcome.is_none() {
            match call::start(shared, Target::Promise(&self.0), op, args.clone(), pipelined, 0) {
                Err(Error::NotMade(CallError::NotAPromise)) => {} // it has settled just now
                started => return started,
            }
            outcome = self.0.state.outcome();
        }
        let (result, at) = outcome.unwrap_or_else(|| (self.0.state.wait(), call::now()));
        let settled = |result| Ok(OpenCall::settled(shared.clone(), result, at.max(call::now())));
        match result {
            Ok(Value::Reference(Reference::Remote(proxy))) => {
                call::start(&proxy.0.shared, Target::Proxy(proxy.0.import), op, args, pipelined, at)
            }
            Ok(Value::Reference(Reference::Promise(promise))) => promise.start_call(op, args, pipelined),
            Ok(Value::Reference(Reference::Local(object))) => {
                call::wait_for_promises(&mut args)?;
                settled(object::operate(&*object, op, args))
            }
            Ok(value) => {
                call::wait_for_promises(&mut args)?;
                settled(call::operate_on_value(&value, op, &args))
            }
            Err(error) => settled(Err(error)),
        }
    }
}

/// The items of an object of the peer: see [`Remote::iterate`].
#[derive(Debug)]
pub struct Items {
    iterator: Promise,
    batch: VecDeque<Value>,
    over: bool,
}

/// Items fetched at a time.
const BATCH: i64 = 256;

impl Iterator for Items {
    type Item = Result<Value, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.batch.is_empty() && !self.over {
            match self.iterator.operate(Op::Next, [BATCH].into()) {
                Ok(Value::Tuple(items)) => self.batch = items.into(),
                Ok(_) => {
                    self.over = true;
                    return Some(Err(Error::Misplaced("the peer's iterator gives no items")));
                }
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
            self.over = self.batch.is_empty();
        }
        self.batch.pop_front().map(Ok)
    }
}
