//! What can be done with an object of the peer: blocking, and as tasks.

use std::collections::VecDeque;

use farref_core::dispatch::MemberKind;
use farref_core::message::Op;
use farref_core::session::CallError;

use crate::args::Args;
use crate::call::{self, OpenCall, Plan, Target, block_on};
use crate::current;
use crate::error::Error;
use crate::many;
use crate::object::{self, Member, Runs};
use crate::proxy::{Pending, Promise, Proxy};
use crate::time::{Deadline, Timed};
use crate::translate;
use crate::value::{Reference, Value};

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
pub trait Remote: Begin {
    /// Starts an operation.
    fn start_op(&self, op: Op, args: Args) -> Result<Pending, Error> {
        self.start_call(op, None, args, false)
    }

    /// Starts an operation on whose answer others can be built.
    fn promise_op(&self, op: Op, args: Args) -> Result<Promise, Error> {
        self.start_call(op, None, args, true).map(Promise::from)
    }

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
        self.start_call(Op::CallMethod, Some(name), args.into(), false)
    }

    /// Starts the call of a method on whose answer others can be built.
    fn promise(&self, name: &str, args: impl Into<Args>) -> Result<Promise, Error> {
        self.start_call(Op::CallMethod, Some(name), args.into(), true).map(Promise::from)
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
        read_length(&self.operate(Op::Length, Args::default())?)
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
        Ok(Items(Fetched::new(iterator)))
    }

    /// Its text form.
    fn text(&self) -> Result<String, Error> {
        read_text(self.operate(Op::Text, Args::default())?)
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

    /// Of a weak reference: the object that it is for, or none if that is gone.
    fn upgrade(&self) -> Result<Option<Reference>, Error> {
        read_upgraded(self.operate(Op::Upgrade, Args::default()))
    }

    /// Its members, with their documentation.
    fn describe(&self) -> Result<Vec<Member>, Error> {
        read_members(self.operate(Op::Describe, Args::default())?)
    }
}

/// What can be done with an object of the peer, held or promised, by tasks: the async twin of [`Remote`].
///
/// Nothing is sent before a future is polled; several that are polled together (`join_all`, tasks of their own) are under way
/// together. `start` gives a [`Pending`] call that was sent, `promise*` a [`Promise`] on which others can build; both wait for
/// nothing but the peer's credit. [`Proxy::call_many`] makes many calls at once.
///
/// # Errors and waiting
/// As with [`Remote`]. Dropping a future cancels its call.
pub trait AsyncRemote: Begin {
    /// Starts an operation.
    fn start_op(&self, op: Op, args: Args) -> impl Future<Output = Result<Pending, Error>> + Send {
        async move { self.begin_call(op, None, args, false).await }
    }

    /// Starts an operation on whose answer others can be built.
    fn promise_op(&self, op: Op, args: Args) -> impl Future<Output = Result<Promise, Error>> + Send {
        async move { self.begin_call(op, None, args, true).await.map(Promise::from) }
    }

    /// Does an operation.
    fn operate(&self, op: Op, args: Args) -> impl Future<Output = Result<Value, Error>> + Send {
        async move { self.start_op(op, args).await?.await }
    }

    /// Calls a method.
    fn invoke(&self, name: &str, args: impl Into<Args>) -> impl Future<Output = Result<Value, Error>> + Send {
        let args = args.into();
        async move { self.start(name, args).await?.await }
    }

    /// Starts the call of a method.
    fn start(&self, name: &str, args: impl Into<Args>) -> impl Future<Output = Result<Pending, Error>> + Send {
        let args = args.into();
        async move { self.begin_call(Op::CallMethod, Some(name), args, false).await }
    }

    /// Starts the call of a method on whose answer others can be built.
    fn promise(&self, name: &str, args: impl Into<Args>) -> impl Future<Output = Result<Promise, Error>> + Send {
        let args = args.into();
        async move { self.begin_call(Op::CallMethod, Some(name), args, true).await.map(Promise::from) }
    }

    /// Calls the object itself.
    fn call(&self, args: impl Into<Args>) -> impl Future<Output = Result<Value, Error>> + Send {
        let args = args.into();
        async move { self.operate(Op::Call, args).await }
    }

    /// Reads an attribute.
    fn get(&self, name: &str) -> impl Future<Output = Result<Value, Error>> + Send {
        async move { self.operate(Op::GetAttr, [name].into()).await }
    }

    /// Starts to read an attribute on which others can be built: a root by its name, say.
    fn promise_get(&self, name: &str) -> impl Future<Output = Result<Promise, Error>> + Send {
        async move { self.promise_op(Op::GetAttr, [name].into()).await }
    }

    /// Starts to read an item on which others can be built.
    fn promise_item(&self, key: impl Into<Value>) -> impl Future<Output = Result<Promise, Error>> + Send {
        let args = Args::default().and(key);
        async move { self.promise_op(Op::GetItem, args).await }
    }

    /// Sets an attribute.
    fn set(&self, name: &str, value: impl Into<Value>) -> impl Future<Output = Result<(), Error>> + Send {
        let args = Args::from([name]).and(value);
        async move { self.operate(Op::SetAttr, args).await.map(drop) }
    }

    /// Deletes an attribute.
    fn delete(&self, name: &str) -> impl Future<Output = Result<(), Error>> + Send {
        async move { self.operate(Op::DelAttr, [name].into()).await.map(drop) }
    }

    /// How many items there are.
    fn length(&self) -> impl Future<Output = Result<i64, Error>> + Send {
        async move { read_length(&self.operate(Op::Length, Args::default()).await?) }
    }

    /// Reads an item.
    fn item(&self, key: impl Into<Value>) -> impl Future<Output = Result<Value, Error>> + Send {
        let args = Args::default().and(key);
        async move { self.operate(Op::GetItem, args).await }
    }

    /// Sets an item.
    fn set_item(
        &self,
        key: impl Into<Value>,
        value: impl Into<Value>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        let args = Args::default().and(key).and(value);
        async move { self.operate(Op::SetItem, args).await.map(drop) }
    }

    /// Deletes an item.
    fn del_item(&self, key: impl Into<Value>) -> impl Future<Output = Result<(), Error>> + Send {
        let args = Args::default().and(key);
        async move { self.operate(Op::DelItem, args).await.map(drop) }
    }

    /// Whether something is among the items.
    fn contains(&self, value: impl Into<Value>) -> impl Future<Output = Result<bool, Error>> + Send {
        let args = Args::default().and(value);
        async move { Ok(self.operate(Op::Contains, args).await? == Value::Bool(true)) }
    }

    /// Its items, fetched many at a time.
    fn iterate(&self) -> impl Future<Output = Result<AsyncItems, Error>> + Send {
        async move {
            let iterator = self.promise_op(Op::Iterate, Args::default()).await?;
            Ok(AsyncItems(Fetched::new(iterator)))
        }
    }

    /// Its text form.
    fn text(&self) -> impl Future<Output = Result<String, Error>> + Send {
        async move { read_text(self.operate(Op::Text, Args::default()).await?) }
    }

    /// Whether it equals something.
    fn equals(&self, other: impl Into<Value>) -> impl Future<Output = Result<bool, Error>> + Send {
        let args = Args::default().and(other);
        async move { Ok(self.operate(Op::Equals, args).await? == Value::Bool(true)) }
    }

    /// Its hash.
    fn hash(&self) -> impl Future<Output = Result<Value, Error>> + Send {
        async move { self.operate(Op::Hash, Args::default()).await }
    }

    /// All its contents by value, in one round trip.
    fn force(&self) -> impl Future<Output = Result<Value, Error>> + Send {
        async move { self.operate(Op::Force, Args::default()).await }
    }

    /// Of a weak reference: the object that it is for, or none if that is gone.
    fn upgrade(&self) -> impl Future<Output = Result<Option<Reference>, Error>> + Send {
        async move { read_upgraded(self.operate(Op::Upgrade, Args::default()).await) }
    }

    /// Its members, with their documentation.
    fn describe(&self) -> impl Future<Output = Result<Vec<Member>, Error>> + Send {
        async move { read_members(self.operate(Op::Describe, Args::default()).await?) }
    }
}

impl Proxy {
    /// Calls the object itself with each of these arguments: all go out together, as far as the peer takes them. The
    /// outcomes come together, in the order of the arguments. Dropping the future cancels all that have not returned.
    ///
    /// No promises among the arguments; what a callback within one of the calls costs is not in
    /// [`Traffic::round_trips`](crate::Traffic).
    pub async fn call_many<A: Into<Args>>(&self, args: impl IntoIterator<Item = A>) -> Vec<Result<Value, Error>> {
        many::many(self.inner(), Op::Call, None, args.into_iter().map(Into::into)).await.await
    }

    /// Calls a method with each of these arguments: see [`Self::call_many`].
    pub async fn invoke_many<A: Into<Args>>(
        &self,
        name: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Vec<Result<Value, Error>> {
        many::many(self.inner(), Op::CallMethod, Some(name), args.into_iter().map(Into::into)).await.await
    }
}

impl Remote for Proxy {}
impl Remote for Promise {}
impl AsyncRemote for Proxy {}
impl AsyncRemote for Promise {}
impl<T: Within> Remote for Timed<T> {}
impl<T: Within> AsyncRemote for Timed<T> {}

/// The items of an object of the peer: see [`Remote::iterate`].
#[derive(Debug)]
pub struct Items(Fetched);

impl Iterator for Items {
    type Item = Result<Value, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_due() {
            let batch = Remote::operate(&self.0.iterator, Op::Next, [BATCH].into());
            self.0.take(batch);
        }
        self.0.next()
    }
}

/// The items of an object of the peer: see [`AsyncRemote::iterate`].
#[derive(Debug)]
pub struct AsyncItems(Fetched);

impl AsyncItems {
    /// The next one, if there is one more.
    pub async fn next(&mut self) -> Option<Result<Value, Error>> {
        if self.0.is_due() {
            let batch = AsyncRemote::operate(&self.0.iterator, Op::Next, [BATCH].into()).await;
            self.0.take(batch);
        }
        self.0.next()
    }
}

/// Items fetched at a time.
const BATCH: i64 = 256;

#[derive(Debug)]
struct Fetched {
    iterator: Promise,
    batch: VecDeque<Value>,
    failed: Option<Error>,
    over: bool,
}

impl Fetched {
    fn new(iterator: Promise) -> Self {
        Self { iterator, batch: VecDeque::new(), failed: None, over: false }
    }

    fn is_due(&self) -> bool {
        self.batch.is_empty() && !self.over
    }

    fn take(&mut self, batch: Result<Value, Error>) {
        match batch {
            Ok(Value::Tuple(items)) => self.batch = items.into(),
            Ok(_) => self.failed = Some(Error::Misplaced("the peer's iterator gives no items")),
            Err(error) => self.failed = Some(error),
        }
        self.over = self.batch.is_empty();
    }

    fn next(&mut self) -> Option<Result<Value, Error>> {
        self.failed.take().map(Err).or_else(|| self.batch.pop_front().map(Ok))
    }
}

fn read_length(length: &Value) -> Result<i64, Error> {
    length.as_int().filter(|length| *length >= 0).ok_or(Error::Misplaced("the peer's length is no count"))
}

fn read_upgraded(upgraded: Result<Value, Error>) -> Result<Option<Reference>, Error> {
    match upgraded {
        Ok(Value::Reference(reference)) => Ok(Some(reference)),
        Ok(Value::None) => Ok(None),
        Ok(_) => Err(Error::Misplaced("the peer's weak reference gives no object")),
        // It went while it was asked for (REF-10).
        Err(error) if error.down().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_text(text: Value) -> Result<String, Error> {
    match text {
        Value::Str(text) => Ok(text),
        _ => Err(Error::Misplaced("the peer's text form is no text")),
    }
}

fn read_members(described: Value) -> Result<Vec<Member>, Error> {
    let Value::Tuple(members) = described else { return Err(NOT_DESCRIBED) };
    members.into_iter().map(|member| read_member(member).ok_or(NOT_DESCRIBED)).collect()
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

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Proxy {}
    impl Sealed for super::Promise {}
    impl<T: Sealed> Sealed for crate::time::Timed<T> {}
}

/// How calls are begun; [`Remote`] and [`AsyncRemote`] build on it.
#[doc(hidden)]
pub trait Begin: sealed::Sealed + Sync {
    #[doc(hidden)]
    fn start_call(&self, op: Op, name: Option<&str>, args: Args, pipelined: bool) -> Result<Pending, Error>;

    #[doc(hidden)]
    fn begin_call(
        &self,
        op: Op,
        name: Option<&str>,
        args: Args,
        pipelined: bool,
    ) -> impl Future<Output = Result<Pending, Error>> + Send;
}

impl Begin for Proxy {
    fn start_call(&self, op: Op, name: Option<&str>, args: Args, pipelined: bool) -> Result<Pending, Error> {
        self.start_within(None, op, name, args, pipelined)
    }

    async fn begin_call(&self, op: Op, name: Option<&str>, args: Args, pipelined: bool) -> Result<Pending, Error> {
        self.begin_within(None, op, name, args, pipelined).await
    }
}

impl Begin for Promise {
    fn start_call(&self, op: Op, name: Option<&str>, args: Args, pipelined: bool) -> Result<Pending, Error> {
        self.start_within(None, op, name, args, pipelined)
    }

    async fn begin_call(&self, op: Op, name: Option<&str>, args: Args, pipelined: bool) -> Result<Pending, Error> {
        self.begin_within(None, op, name, args, pipelined).await
    }
}

impl<T: Within> Begin for Timed<T> {
    fn start_call(&self, op: Op, name: Option<&str>, args: Args, pipelined: bool) -> Result<Pending, Error> {
        self.target.start_within(Some(self.deadline), op, name, args, pipelined)
    }

    async fn begin_call(&self, op: Op, name: Option<&str>, args: Args, pipelined: bool) -> Result<Pending, Error> {
        self.target.begin_within(Some(self.deadline), op, name, args, pipelined).await
    }
}

/// As [`Begin`], with a deadline.
#[doc(hidden)]
pub trait Within: Begin {
    #[doc(hidden)]
    fn start_within(
        &self,
        deadline: Option<Deadline>,
        op: Op,
        name: Option<&str>,
        args: Args,
        pipelined: bool,
    ) -> Result<Pending, Error>;

    #[doc(hidden)]
    fn begin_within(
        &self,
        deadline: Option<Deadline>,
        op: Op,
        name: Option<&str>,
        args: Args,
        pipelined: bool,
    ) -> impl Future<Output = Result<Pending, Error>> + Send;
}

impl Within for Proxy {
    fn start_within(
        &self,
        deadline: Option<Deadline>,
        op: Op,
        name: Option<&str>,
        args: Args,
        pipelined: bool,
    ) -> Result<Pending, Error> {
        let target = Target::Proxy(self.inner());
        Plan { target, op, name, args, pipelined, deadline, settled_at: 0 }.start().map(Pending)
    }

    async fn begin_within(
        &self,
        deadline: Option<Deadline>,
        op: Op,
        name: Option<&str>,
        args: Args,
        pipelined: bool,
    ) -> Result<Pending, Error> {
        let target = Target::Proxy(self.inner());
        Plan { target, op, name, args, pipelined, deadline, settled_at: 0 }.begin().await.map(Pending)
    }
}

impl Within for Promise {
    fn start_within(
        &self,
        deadline: Option<Deadline>,
        op: Op,
        name: Option<&str>,
        args: Args,
        pipelined: bool,
    ) -> Result<Pending, Error> {
        let begun = self.begin_within(deadline, op, name, args, pipelined);
        match current::may_wait() {
            Ok(()) => block_on(begun),
            // It can be begun if that takes no waiting.
            Err(error) => call::poll_once(begun).unwrap_or(Err(error)),
        }
    }

    /// On the promise, or, once it has settled, on what it settled to.
    async fn begin_within(
        &self,
        deadline: Option<Deadline>,
        op: Op,
        name: Option<&str>,
        args: Args,
        pipelined: bool,
    ) -> Result<Pending, Error> {
        let mut promise = self.clone();
        let (result, at) = loop {
            if let Some((result, at)) = promise.0.state.outcome() {
                match result {
                    Ok(Value::Reference(Reference::Promise(next))) => promise = next,
                    result => break (result, at),
                }
                continue;
            }
            let target = Target::Promise(&promise.0);
            match (Plan { target, op, name, args: args.clone(), pipelined, deadline, settled_at: 0 }.begin().await) {
                // It has settled just now: without computing time the call would have been built on it.
                Err(Error::NotMade(CallError::NotAPromise)) if promise.0.state.is_settled() => continue,
                // It is no promise that could be named: it is waited for.
                Err(Error::NotMade(CallError::NotAPromise)) => drop(promise.settled().await),
                started => return started.map(Pending),
            }
        };
        let proxy = match result {
            Ok(Value::Reference(Reference::Remote(proxy))) => proxy,
            Ok(value) => return self.on_value(value, op, name, args, at).await,
            Err(error) => return Ok(self.known(Err(error), at)),
        };
        Plan { target: Target::Proxy(proxy.inner()), op, name, args, pipelined, deadline, settled_at: at }
            .begin()
            .await
            .map(Pending)
    }
}

impl Promise {
    /// What is done here, without a message.
    async fn on_value(
        &self,
        value: Value,
        op: Op,
        name: Option<&str>,
        mut args: Args,
        at: u64,
    ) -> Result<Pending, Error> {
        call::wait_for_promises(&mut args).await?;
        if let Some(name) = name {
            args.positional.insert(0, name.into());
        }
        let result = match value {
            Value::Reference(Reference::Local(object) | Reference::Lent(object)) if object.runs() == Runs::Async => {
                object.perform_as_task(op, args).await
            }
            Value::Reference(Reference::Local(object) | Reference::Lent(object)) => object::operate(&*object, op, args),
            value => translate::operate_on_value(&value, op, &args),
        };
        Ok(self.known(result, at))
    }

    fn known(&self, result: Result<Value, Error>, at: u64) -> Pending {
        Pending(OpenCall::settled(self.0.shared.clone(), result, at.max(current::now())))
    }
}
