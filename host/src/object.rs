//! What one's own objects implement, and the directory of named roots.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use farref_core::dispatch::MemberKind;
use farref_core::message::Op;

use crate::args::Args;
use crate::call::block_on;
use crate::end::Mourners;
use crate::error::Error;
use crate::pool::Task;
use crate::proxy::Proxy;
use crate::value::{Reference, Value};

/// An object that peers may use. Its methods run on threads of the connection: one at a time, but for callbacks and for
/// several connections, unless it [is concurrent](Self::is_concurrent).
///
/// ```
/// use std::borrow::Cow;
/// use std::sync::atomic::{AtomicI64, Ordering};
///
/// use farref_host::{Action, Args, Error, Member, MemberKind, Object, Value};
///
/// #[derive(Default)]
/// struct Counter(AtomicI64);
///
/// impl Object for Counter {
///     fn members(&self) -> Cow<'_, [Member]> {
///         const MEMBERS: &[Member] = &[
///             Member::method("add", "adds a number and tells the sum: add(number=1)"),
///             Member::new("value", MemberKind::Writable, "the sum"),
///         ];
///         Cow::Borrowed(MEMBERS)
///     }
///
///     fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
///         match action {
///             Action::Method("add") => {
///                 let number = match args.get(0).or(args.get_named("number")) {
///                     None => 1,
///                     Some(Value::Int(number)) => *number,
///                     Some(_) => return Err(Error::bad_arguments("add(number=1)")),
///                 };
///                 Ok(Value::Int(self.0.fetch_add(number, Ordering::SeqCst) + number))
///             }
///             Action::Get("value") => Ok(Value::Int(self.0.load(Ordering::SeqCst))),
///             Action::Set("value", Value::Int(sum)) => {
///                 self.0.store(sum, Ordering::SeqCst);
///                 Ok(Value::None)
///             }
///             Action::Set(..) => Err(Error::bad_arguments("an integer")),
///             Action::Text(_) => Ok(Value::from("<counter>")),
///             other => other.unsupported(),
///         }
///     }
/// }
/// assert_eq!(Counter::default().perform(Action::Method("add"), Args::from([5])), Ok(5.into()));
/// ```
///
/// [`Action::Get`] comes for methods too, which an object may give as objects of their own or leave unsupported, and
/// [`Action::Method`] for attributes. What is returned holds no [promise](crate::Promise): wait for it first.
pub trait Object: Send + Sync + 'static {
    /// Its members, in the order of their numbers; the same as long as it lives. No other name reaches [`Self::perform`].
    fn members(&self) -> Cow<'_, [Member]> {
        Cow::Borrowed(&[])
    }

    /// Does what is asked, and gives what [`Action`] says.
    ///
    /// Calls that it makes over the same connection, on this thread, are part of the call being served.
    ///
    /// # Errors
    /// [`Error::Raised`] for an exception, [`Error::Refuse`] for what is refused before any effect:
    /// [`Action::unsupported`], [`Error::bad_arguments`] and their like. Other errors, such as those of calls to others, reach
    /// the caller as an exception `RuntimeError` with their text; so does a panic. A result that does not fit into the
    /// caller's longest message becomes [`ErrorCode::ResultTooLarge`](crate::ErrorCode).
    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error>;

    /// Whether calls that nothing of ours has caused may run at the same time, in any order.
    ///
    /// If not, which is the default, they run one after the other in the order in which they were made (ORD-2). An object
    /// one of whose methods waits until another is called has to be concurrent. Calls that one call of ours has caused run
    /// in order in any case.
    ///
    /// Asked while the session is locked: the answer is to be there, without waiting and without use of a connection.
    fn is_concurrent(&self) -> bool {
        false
    }

    /// How its work is to be run; the same as long as it lives. Asked as [`Self::is_concurrent`] is.
    fn runs(&self) -> Runs {
        Runs::Blocking
    }

    /// What [`Runs::Async`] objects do instead of [`Self::perform`].
    #[doc(hidden)]
    fn perform_as_task(self: Arc<Self>, op: Op, args: Args) -> Task<Result<Value, Error>> {
        let _ = args;
        Box::pin(std::future::ready(Err(Error::unsupported(op))))
    }

    /// The object that a call of a member is for, if it is not this one: the directory's roots.
    #[doc(hidden)]
    fn root_named(&self, _name: &Value) -> Option<Arc<dyn Object>> {
        None
    }

    /// Who is to be told at once when the object is dropped: a field of it, if its [weak
    /// references](crate::Reference::weak) matter. Asked as [`Self::is_concurrent`] is.
    fn mourners(&self) -> Option<&Mourners> {
        None
    }

    /// What it is a weak reference to.
    #[doc(hidden)]
    fn weak_of(&self) -> Option<&Weak<dyn Object>> {
        None
    }

    /// The object of another peer that this one stands for.
    #[doc(hidden)]
    fn stands_for(&self) -> Option<&Proxy> {
        None
    }
}

/// How the work of an object is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runs {
    /// On a thread of its own, where it may wait for whatever it likes.
    #[default]
    Blocking,
    /// At once, where the call was received: nothing of the connection goes on meanwhile. For what is quick and never waits;
    /// a call that it makes may be started and not waited for. Nor does dropping the object wait.
    Inline,
    /// As a task: see [`AsyncObject`].
    Async,
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What can be done with it.
    pub kind: MemberKind,
    /// One line of documentation.
    pub doc: Cow<'static, str>,
}

impl Member {
    /// A member of that kind.
    pub const fn new(name: &'static str, kind: MemberKind, doc: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), kind, doc: Cow::Borrowed(doc) }
    }

    /// A member to be called.
    pub const fn method(name: &'static str, doc: &'static str) -> Self {
        Self::new(name, MemberKind::Method, doc)
    }
}

/// What is asked of an object. Those that do something give [`Value::None`]; for one that gives nothing else, the caller is told
/// nothing more than that it is done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// Call the object itself.
    Call,
    /// Read a member.
    Get(&'a str),
    /// Set a member.
    Set(&'a str, Value),
    /// Delete a member.
    Delete(&'a str),
    /// Call a member.
    Method(&'a str),
    /// How many items there are: an integer.
    Length,
    /// Read an item.
    GetItem(Value),
    /// Set an item.
    SetItem(Value, Value),
    /// Delete an item.
    DelItem(Value),
    /// Whether something is among the items: a boolean.
    Contains(Value),
    /// A reference to an iterator: an object that does [`Self::Next`].
    Iterate,
    /// So many items at most, at least one of them, as a tuple; an empty one at the end.
    Next(usize),
    /// Text form: a text; exact, as a programmer wants it, if true.
    Text(bool),
    /// Whether it equals something: a boolean, or [`Value::NotImplemented`] if it cannot tell.
    Equals(Value),
    /// An integer that is the same for what is equal.
    Hash,
    /// All contents by value: a list, a set, a map or a tuple. Items that can change are references.
    Force,
    /// Of a weak reference: the object that it is for, or none. [`Reference::weak`](crate::Reference::weak) does it.
    Upgrade,
}

impl Action<'_> {
    /// The operation that asked for it; what [`Error::unsupported`] wants.
    pub fn op(&self) -> Op {
        match self {
            Self::Call => Op::Call,
            Self::Get(_) => Op::GetAttr,
            Self::Set(..) => Op::SetAttr,
            Self::Delete(_) => Op::DelAttr,
            Self::Method(_) => Op::CallMethod,
            Self::Length => Op::Length,
            Self::GetItem(_) => Op::GetItem,
            Self::SetItem(..) => Op::SetItem,
            Self::DelItem(_) => Op::DelItem,
            Self::Contains(_) => Op::Contains,
            Self::Iterate => Op::Iterate,
            Self::Next(_) => Op::Next,
            Self::Text(_) => Op::Text,
            Self::Equals(_) => Op::Equals,
            Self::Hash => Op::Hash,
            Self::Force => Op::Force,
            Self::Upgrade => Op::Upgrade,
        }
    }

    /// The error for what an object does not do.
    pub fn unsupported<T>(&self) -> Result<T, Error> {
        Err(Error::unsupported(self.op()))
    }
}

/// An object whose methods are async. [`Async`] makes an [`Object`] of it, which runs as tasks with a runtime, and on threads
/// without one.
///
/// Calls that it makes over the same connection are part of the call being served, as long as they are made by the future
/// that [`Self::perform`] gives and not by a task of its own. When the session ends, tasks are dropped where they wait.
///
/// ```
/// use farref_host::{Action, Args, Async, AsyncObject, AsyncRemote, Error, Proxy, Reference, Value};
///
/// /// Calls what it is given, and tells what that answered.
/// struct CallBack;
///
/// impl AsyncObject for CallBack {
///     async fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
///         let Action::Call = action else { return action.unsupported() };
///         match args.get(0).and_then(Value::as_reference).and_then(Reference::remote) {
///             Some(callee) => callee.call(["hello"]).await,
///             None => Err(Error::bad_arguments("something to call")),
///         }
///     }
/// }
/// let directory = farref_host::Directory::new().with("call_back", "calls what it is given", Async(CallBack));
/// ```
pub trait AsyncObject: Send + Sync + 'static {
    /// Its members: see [`Object::members`].
    fn members(&self) -> Cow<'_, [Member]> {
        Cow::Borrowed(&[])
    }

    /// Does what is asked: see [`Object::perform`]. A caller that gives up does not end the future; the end of the session does,
    /// where it is a task.
    fn perform(&self, action: Action<'_>, args: Args) -> impl Future<Output = Result<Value, Error>> + Send;

    /// Whether calls may run at the same time, in any order: see [`Object::is_concurrent`].
    fn is_concurrent(&self) -> bool {
        false
    }
}

/// An [`AsyncObject`] as an [`Object`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Async<T>(
    /// The object.
    pub T,
);

impl<T: AsyncObject> Object for Async<T> {
    fn members(&self) -> Cow<'_, [Member]> {
        self.0.members()
    }

    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        block_on(self.0.perform(action, args))
    }

    fn is_concurrent(&self) -> bool {
        self.0.is_concurrent()
    }

    fn runs(&self) -> Runs {
        Runs::Async
    }

    fn perform_as_task(self: Arc<Self>, op: Op, args: Args) -> Task<Result<Value, Error>> {
        Box::pin(async move {
            let members = if op == Op::Call { Cow::Borrowed(&[] as &[Member]) } else { self.0.members() };
            match ask(&members, op, args)? {
                Some((action, args)) => self.0.perform(action, args).await,
                None => Ok(describe(&members)),
            }
        })
    }
}

/// Has an object do what an operation of the wire asks (SPEC section 10).
pub(crate) fn operate(object: &dyn Object, op: Op, args: Args) -> Result<Value, Error> {
    // Neither names a member.
    if op == Op::Call {
        return object.perform(Action::Call, args);
    }
    let members = object.members();
    match ask(&members, op, args)? {
        Some((action, args)) => object.perform(action, args),
        None => Ok(describe(&members)),
    }
}

/// What an operation asks: an action, or none if it is to be told which members there are.
fn ask(members: &[Member], op: Op, mut args: Args) -> Result<Option<(Action<'_>, Args)>, Error> {
    let named_op = op.as_member().is_some() || matches!(op, Op::GetAttr | Op::SetAttr | Op::DelAttr | Op::CallMethod);
    let member = if named_op {
        let name = match op.as_member() {
            Some(number) => Value::Int(number as i64),
            None if args.positional.is_empty() => return Err(Error::bad_arguments("a member's name or number")),
            None => args.positional.remove(0),
        };
        // Names off the wire reach only what Describe lists (OPS-3).
        let place = match &name {
            Value::Str(wanted) => members.iter().position(|member| member.name == wanted.as_str()),
            Value::Int(number) => usize::try_from(*number).ok(),
            _ => return Err(Error::bad_arguments("a member's name or number")),
        };
        match place.and_then(|place| members.get(place)) {
            Some(member) => Some(member),
            None => return Err(Error::no_such_member(name)),
        }
    } else {
        None
    };
    let name = member.map_or("", |member| &*member.name);
    if matches!(op, Op::SetAttr | Op::DelAttr) && member.is_some_and(|member| member.kind != MemberKind::Writable) {
        return Err(Error::denied(format!("{name} is read only")));
    }
    if op == Op::CallMethod || op.as_member().is_some() {
        return Ok(Some((Action::Method(name), args)));
    }
    if op == Op::Call {
        return Ok(Some((Action::Call, args)));
    }
    let wrong = || Error::bad_arguments(format!("other arguments for {op}"));
    if !args.named.is_empty() {
        return Err(wrong());
    }
    let mut operands = std::mem::take(&mut args.positional).into_iter();
    let action = match (op, operands.next(), operands.next()) {
        (Op::GetAttr, None, _) => Action::Get(name),
        (Op::SetAttr, Some(value), None) => Action::Set(name, value),
        (Op::DelAttr, None, _) => Action::Delete(name),
        (Op::Length, None, _) => Action::Length,
        (Op::GetItem, Some(key), None) => Action::GetItem(key),
        (Op::SetItem, Some(key), Some(value)) => Action::SetItem(key, value),
        (Op::DelItem, Some(key), None) => Action::DelItem(key),
        (Op::Contains, Some(value), None) => Action::Contains(value),
        (Op::Iterate, None, _) => Action::Iterate,
        (Op::Next, Some(Value::Int(count @ 1..)), None) => Action::Next(usize::try_from(count).unwrap_or(usize::MAX)),
        (Op::Text, None, _) => Action::Text(false),
        (Op::Text, Some(Value::Bool(exact)), None) => Action::Text(exact),
        (Op::Equals, Some(other), None) => Action::Equals(other),
        (Op::Hash, None, _) => Action::Hash,
        (Op::Force, None, _) => Action::Force,
        (Op::Upgrade, None, _) => Action::Upgrade,
        (Op::Describe, None, _) => return Ok(None),
        _ if op.name().is_none() => return Err(Error::unsupported(op)),
        _ => return Err(wrong()),
    };
    if operands.next().is_some() {
        return Err(wrong());
    }
    Ok(Some((action, args)))
}

fn describe(members: &[Member]) -> Value {
    let one = |member: &Member| {
        Value::Tuple(vec![
            Value::Str(member.name.clone().into_owned()),
            Value::Int(member.kind as i64),
            Value::Str(member.doc.clone().into_owned()),
        ])
    };
    Value::Tuple(members.iter().map(one).collect())
}

/// Named roots: what a peer finds first (DIR-1).
#[derive(Clone, Default)]
pub struct Directory {
    roots: BTreeMap<String, (Arc<dyn Object>, String)>,
}

impl Directory {
    /// No roots.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one root more; `doc` is its one line of documentation. It replaces one of the same name.
    #[must_use]
    pub fn with(self, name: impl Into<String>, doc: impl Into<String>, object: impl Object) -> Self {
        self.with_shared(name, doc, Arc::new(object))
    }

    /// With one root more that is shared with others: other names, other directories, or this process. It is one object
    /// wherever it comes from, with one proxy on each connection.
    #[must_use]
    pub fn with_shared(mut self, name: impl Into<String>, doc: impl Into<String>, object: Arc<dyn Object>) -> Self {
        self.roots.insert(name.into(), (object, doc.into()));
        self
    }

    fn root(&self, name: &str) -> Result<&Arc<dyn Object>, Error> {
        self.roots.get(name).map(|(object, _)| object).ok_or_else(|| Error::no_such_member(name))
    }
}

impl Object for Directory {
    fn runs(&self) -> Runs {
        Runs::Inline
    }

    fn is_concurrent(&self) -> bool {
        true
    }

    fn members(&self) -> Cow<'_, [Member]> {
        let member = |(name, (_, doc)): (&String, &(_, String))| Member {
            name: Cow::Owned(name.clone()),
            kind: MemberKind::Constant,
            doc: Cow::Owned(doc.clone()),
        };
        self.roots.iter().map(member).collect()
    }

    fn root_named(&self, name: &Value) -> Option<Arc<dyn Object>> {
        let root = match name {
            Value::Str(name) => self.roots.get(name),
            Value::Int(number) => self.roots.values().nth(usize::try_from(*number).ok()?),
            _ => None,
        };
        root.map(|(object, _)| object.clone())
    }

    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        let names = || self.roots.keys().map(|name| Value::Str(name.clone())).collect();
        match action {
            Action::Get(name) => Ok(Reference::Local(self.root(name)?.clone()).into()),
            Action::GetItem(Value::Str(name)) => Ok(Reference::Local(self.root(&name)?.clone()).into()),
            Action::Method(name) => self.root(name)?.perform(Action::Call, args),
            Action::Length => Ok(Value::Int(self.roots.len() as i64)),
            Action::Contains(Value::Str(name)) => Ok(Value::Bool(self.roots.contains_key(&name))),
            Action::Contains(_) => Ok(Value::Bool(false)),
            Action::Force => Ok(Value::Tuple(names())),
            Action::Text(_) => Ok(Value::from("<directory>")),
            other => other.unsupported(),
        }
    }
}
