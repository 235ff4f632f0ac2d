//! What one's own objects implement, and the directory of named roots.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use farref_core::dispatch::MemberKind;
use farref_core::message::Op;

use crate::args::Args;
use crate::error::Error;
use crate::proxy::Proxy;
use crate::value::{Reference, Value};

/// An object that peers may use. Its methods run on threads of the connection: one at a time, but for callbacks and for
/// several connections, unless it [is concurrent](Self::is_concurrent).
///
/// ```
/// use std::borrow::Cow;
/// use std::sync::atomic::{AtomicI64, Ordering};
///
/// use farref_pipe::{Action, Args, Error, Member, MemberKind, Object, Value};
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

    /// Does what is asked.
    ///
    /// Calls that it makes over the same connection, on this thread, are part of the call being served.
    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error>;

    /// Whether calls that nothing of ours has caused may run at the same time, in any order.
    ///
    /// If not, which is the default, they run one after the other in the order in which they were made (ORD-2). An object
    /// one of whose methods waits until another is called has to be concurrent. Calls that one call of ours has caused run
    /// in order in any case.
    fn is_concurrent(&self) -> bool {
        false
    }

    /// The object that a call of a member is for, if it is not this one: the directory's roots.
    #[doc(hidden)]
    fn root_named(&self, _name: &Value) -> Option<Arc<dyn Object>> {
        None
    }

    /// The object of another peer that this one stands for.
    #[doc(hidden)]
    fn stands_for(&self) -> Option<&Proxy> {
        None
    }
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

/// What is asked of an object.
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
    /// How many items there are.
    Length,
    /// Read an item.
    GetItem(Value),
    /// Set an item.
    SetItem(Value, Value),
    /// Delete an item.
    DelItem(Value),
    /// Whether something is among the items.
    Contains(Value),
    /// A reference to an iterator.
    Iterate,
    /// So many items at most, as a tuple; an empty one at the end.
    Next(usize),
    /// Text form; exact if true.
    Text(bool),
    /// Equality.
    Equals(Value),
    /// Hash.
    Hash,
    /// All contents by value.
    Force,
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
        }
    }

    /// The error for what an object does not do.
    pub fn unsupported<T>(&self) -> Result<T, Error> {
        Err(Error::unsupported(self.op()))
    }
}

/// Has an object do what an operation of the wire asks (SPEC section 10).
pub(crate) fn operate(object: &dyn Object, op: Op, mut args: Args) -> Result<Value, Error> {
    let members = object.members();
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
        return object.perform(Action::Method(name), args);
    }
    if op == Op::Call {
        return object.perform(Action::Call, args);
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
        (Op::Describe, None, _) => return Ok(describe(&members)),
        (Op::Other(_), ..) => return Err(Error::unsupported(op)),
        _ => return Err(wrong()),
    };
    if operands.next().is_some() {
        return Err(wrong());
    }
    object.perform(action, args)
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

/// A function as an object: it can be called, by several callers at the same time.
///
/// ```
/// use farref_pipe::{Error, Function, Value};
///
/// let double = Function::new(|args| match args.get(0).and_then(Value::as_int) {
///     Some(number) => Ok(Value::Int(2 * number)),
///     None => Err(Error::bad_arguments("a number")),
/// });
/// ```
pub struct Function<F>(F);

impl<F: Fn(Args) -> Result<Value, Error> + Send + Sync + 'static> Function<F> {
    /// Wraps a function.
    pub fn new(function: F) -> Self {
        Self(function)
    }
}

impl<F: Fn(Args) -> Result<Value, Error> + Send + Sync + 'static> Object for Function<F> {
    fn is_concurrent(&self) -> bool {
        true
    }

    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        match action {
            Action::Call => (self.0)(args),
            Action::Text(_) => Ok(Value::from("<function>")),
            other => other.unsupported(),
        }
    }
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

    /// With one root more; `doc` is its one line of documentation.
    #[must_use]
    pub fn with(self, name: impl Into<String>, doc: impl Into<String>, object: impl Object) -> Self {
        self.with_shared(name, doc, Arc::new(object))
    }

    /// With one root more that is shared with others.
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
