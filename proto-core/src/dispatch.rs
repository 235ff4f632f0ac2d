//! Stub dispatch without a heap: routes a request to an [`Object`], which replies at once or later.
//!
//! A host with threads or tasks builds its own on [`Event::Request`](crate::session::Event); this one is for firmware and
//! for whoever wants to serve objects straight from the received record.
//!
//! ```
//! use farref_core::dispatch::{Action, Arguments, Done, Member, Object, Reply};
//!
//! struct Led {
//!     on: bool,
//! }
//!
//! impl Object for Led {
//!     fn members(&self) -> &'static [Member] {
//!         const MEMBERS: &[Member] =
//!             &[Member::method("set", "switch it on or off"), Member::writable("on", "whether it is on")];
//!         MEMBERS
//!     }
//!
//!     fn perform(&mut self, action: Action<'_>, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
//!         match action {
//!             Action::Method(0) => match args.bool(0) {
//!                 Some(on) => {
//!                     self.on = on;
//!                     reply.none()
//!                 }
//!                 None => reply.bad_arguments("set(on: bool)"),
//!             },
//!             Action::Get(1) => reply.bool(self.on),
//!             _ => reply.unsupported(),
//!         }
//!     }
//! }
//! ```

use crate::message::{Descriptor, ErrorCode, Handles, Op};
use crate::session::{
    Answer, Call, CallError, Import, Kept, ObjectKey, Question, Receiver, Ref, Reference, ReplyError, Request, Session,
    Storage,
};
use crate::value::{Value, ValueError, ValueWriter, Values};

/// What an object answers to. Hosts that have one implement it for their own things.
pub trait Object {
    /// Its members, in the order of their numbers (OPS-2). Fixed as long as it lives.
    fn members(&self) -> &'static [Member] {
        &[]
    }

    /// Does what is asked and replies, at once or [`Reply::later`].
    ///
    /// Requests for members that do not exist, and for setting those that cannot be set, never come here.
    fn perform(&mut self, action: Action<'_>, args: &Arguments<'_>, reply: Reply<'_>) -> Done;
}

/// One member of an object: what Describe tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// What can be done with it.
    pub kind: MemberKind,
    /// One line of documentation.
    pub doc: &'static str,
}

impl Member {
    /// A member to be called.
    pub const fn method(name: &'static str, doc: &'static str) -> Self {
        Self { name, kind: MemberKind::Method, doc }
    }

    /// A member to be read.
    pub const fn readable(name: &'static str, doc: &'static str) -> Self {
        Self { name, kind: MemberKind::Readable, doc }
    }

    /// A member to be read and set.
    pub const fn writable(name: &'static str, doc: &'static str) -> Self {
        Self { name, kind: MemberKind::Writable, doc }
    }
}

/// What can be done with a member (OPS-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// Called.
    Method = 0,
    /// Read.
    Readable = 1,
    /// Read, set and deleted.
    Writable = 2,
    /// Read; always the same.
    Constant = 3,
}

/// What is asked of an object. Members come as their number in [`Object::members`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Action<'f> {
    /// Call the object itself.
    Call,
    /// Read a member.
    Get(usize),
    /// Set a member.
    Set(usize, Value<'f>),
    /// Delete a member.
    Delete(usize),
    /// Call a member.
    Method(usize),
    /// How many items there are.
    Length,
    /// Read an item.
    GetItem(Value<'f>),
    /// Set an item.
    SetItem(Value<'f>, Value<'f>),
    /// Delete an item.
    DelItem(Value<'f>),
    /// Whether something is among the items.
    Contains(Value<'f>),
    /// A reference to an iterator.
    Iterate,
    /// So many items at most.
    Next(usize),
    /// Text form; exact if true.
    Text(bool),
    /// Equality.
    Equals(Value<'f>),
    /// Hash.
    Hash,
    /// All contents, in one Return (OPS-4).
    Force,
    /// Of a weak reference: the object that it is for, or none (REF-10).
    Upgrade,
}

/// The arguments of a call.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'f> {
    values: Values<'f>,
    handles: Handles<'f>,
}

impl<'f> Arguments<'f> {
    /// All of them: positional, then named.
    pub fn values(&self) -> Values<'f> {
        self.values
    }

    /// Positional argument number `index`.
    pub fn get(&self, index: usize) -> Option<Value<'f>> {
        self.values.positional().nth(index)
    }

    /// The named argument of that name.
    pub fn named(&self, name: &str) -> Option<Value<'f>> {
        self.values.named(name)
    }

    /// Positional argument number `index`, if it is a truth value.
    pub fn bool(&self, index: usize) -> Option<bool> {
        if let Some(Value::Bool(value)) = self.get(index) { Some(value) } else { None }
    }

    /// Positional argument number `index`, if it is an integer within 64 bits.
    pub fn int(&self, index: usize) -> Option<i64> {
        if let Some(Value::Int(value)) = self.get(index) { Some(value) } else { None }
    }

    /// Positional argument number `index`, if it is text.
    pub fn str(&self, index: usize) -> Option<&'f str> {
        if let Some(Value::Str(value)) = self.get(index) { Some(value) } else { None }
    }

    /// Positional argument number `index`, if it is a reference: to be resolved with [`Reply::resolve`].
    pub fn reference(&self, index: usize) -> Option<Descriptor> {
        match self.get(index) {
            Some(Value::Reference(index)) => self.handles.get(index),
            _ => None,
        }
    }

    /// The handle that [`Value::Reference`] names, wherever among the arguments it stands.
    pub fn handle(&self, reference: u32) -> Option<Descriptor> {
        self.handles.get(reference)
    }
}

/// Proof that a request was replied to or put off.
#[derive(Debug)]
pub struct Done(());

/// The one reply to a request, and calls made while serving it.
pub struct Reply<'s> {
    session: &'s mut dyn Calls,
    call: Answer,
    op: Op,
}

impl Reply<'_> {
    /// Replies none.
    pub fn none(self) -> Done {
        self.value(|_| Ok(()))
    }

    /// Replies a truth value.
    pub fn bool(self, value: bool) -> Done {
        self.value(|writer| writer.bool(value))
    }

    /// Replies an integer.
    pub fn int(self, value: i64) -> Done {
        self.value(|writer| writer.int(value))
    }

    /// Replies a float.
    pub fn float(self, value: f64) -> Done {
        self.value(|writer| writer.float(value))
    }

    /// Replies text.
    pub fn str(self, value: &str) -> Done {
        self.value(|writer| writer.str(value))
    }

    /// Replies a reference to an object.
    pub fn reference(self, reference: Ref) -> Done {
        self.with(&[reference], |writer| writer.reference(0))
    }

    /// Replies what `result` writes. It may be run more than once.
    pub fn value(self, result: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>) -> Done {
        self.with(&[], result)
    }

    /// Replies what `result` writes, references among it.
    pub fn with(
        self,
        references: &[Ref],
        mut result: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Done {
        self.finish(None, references, &mut result)
    }

    /// Raises an exception with one text as its argument.
    pub fn raise(self, name: &str, text: &str) -> Done {
        self.raise_with(name, 1, |writer| writer.str(text))
    }

    /// Raises an exception with `count` arguments.
    pub fn raise_with(
        self,
        name: &str,
        count: usize,
        mut args: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Done {
        self.finish(Some(ErrorCode::Raised), &[], &mut |writer| {
            writer.exception_head(name, count)?;
            args(writer)?;
            writer.exception_tail(None, None)
        })
    }

    /// Says that the arguments do not fit, and what would.
    pub fn bad_arguments(self, expected: &str) -> Done {
        self.finish(Some(ErrorCode::BadArguments), &[], &mut |writer| writer.str(expected))
    }

    /// Says that the object does not do this (OPS-1).
    pub fn unsupported(self) -> Done {
        let op = self.op.number();
        self.refuse(ErrorCode::Unsupported, op)
    }

    /// Puts the reply off: it is made later by [`Session::reply`] with this answer, in any order.
    pub fn later(self) -> (Answer, Done) {
        (self.call, Done(()))
    }

    /// What a handle among the arguments names.
    pub fn resolve(&self, handle: Descriptor) -> Option<Reference> {
        self.session.resolve(handle)
    }

    /// The value of a [`Reference::Value`], and the handles of its references.
    pub fn kept(&self, kept: Kept) -> Option<(Handles<'_>, Values<'_>)> {
        self.session.kept(kept)
    }

    /// What a handle of a kept value names.
    pub fn resolve_kept(&self, handle: Descriptor) -> Option<Reference> {
        self.session.resolve_kept(handle)
    }

    /// Keeps a reference from the arguments beyond the call. Give it back with [`Session::release`]. One that is lent cannot be
    /// kept: it is stale after the reply.
    pub fn keep(&mut self, import: Import) {
        self.session.retain(import);
    }

    /// Calls the peer while serving its call (CAL-6). The Return comes as an event: put the reply off if it needs it.
    pub fn call(
        &mut self,
        call: Call<'_>,
        mut args: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<Question, CallError> {
        self.session.call(call.parent(self.call), &mut args)
    }

    /// Replies what an operation on a kept value gives (OPS-5).
    fn operated(self, kept: Kept, args: Values<'_>) -> Done {
        let replied = self.session.reply_operated(self.call, kept, self.op, args);
        self.settle(replied)
    }

    fn refuse(self, code: ErrorCode, detail: u64) -> Done {
        self.session.refuse(self.call, code, detail);
        Done(())
    }

    fn finish(
        self,
        error: Option<ErrorCode>,
        references: &[Ref],
        values: &mut dyn FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Done {
        let replied = self.session.reply(self.call, error, references, values);
        self.settle(replied)
    }

    fn settle(self, replied: Result<(), ReplyError>) -> Done {
        match replied {
            Ok(()) | Err(ReplyError::Became(_) | ReplyError::Ended(_) | ReplyError::NoSuchCall) => {}
            // It ran, and its result does not fit what is left of the output.
            Err(ReplyError::NoRoom) => self.session.refuse(self.call, ErrorCode::ResultTooLarge, 0),
            Err(ReplyError::Values(_) | ReplyError::BadReference(_)) => {
                let broken = self.session.reply(self.call, Some(ErrorCode::Raised), &[], &mut |writer| {
                    writer.exception_head("RuntimeError", 1)?; // the name for what has no other (ERR-3)
                    writer.str("the object's result is not well formed")?;
                    writer.exception_tail(None, None)
                });
                if broken.is_err() {
                    self.session.refuse(self.call, ErrorCode::ResultTooLarge, 0);
                }
            }
        }
        Done(())
    }
}

/// What a [`Reply`] needs of a session, whatever its storage.
trait Calls {
    fn reply(
        &mut self,
        call: Answer,
        error: Option<ErrorCode>,
        references: &[Ref],
        values: &mut dyn FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<(), ReplyError>;
    fn reply_operated(&mut self, call: Answer, kept: Kept, op: Op, args: Values<'_>) -> Result<(), ReplyError>;
    fn refuse(&mut self, call: Answer, code: ErrorCode, detail: u64);
    fn call(
        &mut self,
        call: Call<'_>,
        args: &mut dyn FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<Question, CallError>;
    fn retain(&mut self, import: Import);
    fn resolve(&self, handle: Descriptor) -> Option<Reference>;
    fn kept(&self, kept: Kept) -> Option<(Handles<'_>, Values<'_>)>;
    fn resolve_kept(&self, handle: Descriptor) -> Option<Reference>;
}

impl<S: Storage> Calls for Session<S> {
    fn reply(
        &mut self,
        call: Answer,
        error: Option<ErrorCode>,
        references: &[Ref],
        values: &mut dyn FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<(), ReplyError> {
        self.reply_dyn(call, error, references, values)
    }

    fn reply_operated(&mut self, call: Answer, kept: Kept, op: Op, args: Values<'_>) -> Result<(), ReplyError> {
        Session::reply_operated(self, call, kept, op, args)
    }

    fn refuse(&mut self, call: Answer, code: ErrorCode, detail: u64) {
        // The session may have ended meanwhile; then nobody waits for the answer.
        let _ = Session::refuse(self, call, code, detail);
    }

    fn call(
        &mut self,
        call: Call<'_>,
        args: &mut dyn FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<Question, CallError> {
        Session::call(self, call, args)
    }

    fn retain(&mut self, import: Import) {
        let _ = Session::retain(self, import);
    }

    fn resolve(&self, handle: Descriptor) -> Option<Reference> {
        Session::resolve(self, handle)
    }

    fn kept(&self, kept: Kept) -> Option<(Handles<'_>, Values<'_>)> {
        Session::kept(self, kept)
    }

    fn resolve_kept(&self, handle: Descriptor) -> Option<Reference> {
        Session::resolve_kept(self, handle)
    }
}

/// Finds objects by their key.
pub trait Objects {
    /// The object of that key.
    fn object(&mut self, key: ObjectKey) -> Option<&mut dyn Object>;
}

/// Keys are places in the slice, counted from 1: 0 is the directory.
impl Objects for [&mut dyn Object] {
    fn object(&mut self, key: ObjectKey) -> Option<&mut dyn Object> {
        let place = usize::try_from(key.0).ok()?.checked_sub(1)?;
        match self.get_mut(place) {
            Some(object) => Some(&mut **object),
            None => None,
        }
    }
}

/// A named root (DIR-1).
#[derive(Clone, Copy, Debug)]
pub struct Root {
    /// Its name.
    pub name: &'static str,
    /// The object.
    pub key: ObjectKey,
    /// One line of documentation.
    pub doc: &'static str,
}

/// Routes requests: to the directory of `roots`, to objects, to values.
#[derive(Clone, Copy, Debug)]
pub struct Dispatcher<'r> {
    roots: &'r [Root],
}

/// Output that must be free for a request to be started: a short reply.
const REPLY_ROOM: usize = 64;

impl<'r> Dispatcher<'r> {
    /// Serves these roots.
    pub fn new(roots: &'r [Root]) -> Self {
        Self { roots }
    }

    /// Serves one request. References among its arguments are released afterwards, unless the object kept them.
    pub fn dispatch<S: Storage>(
        &self,
        session: &mut Session<S>,
        request: &Request<'_>,
        objects: &mut (impl Objects + ?Sized),
    ) {
        let is_value = |handle| matches!(session.resolve(handle), Some(Reference::Value(_) | Reference::None));
        let among_values = { request.handles }.any(is_value);
        let has_room = session.room() >= REPLY_ROOM;
        let reply = Reply { session, call: request.call, op: request.op };
        let _ = match request.receiver {
            // Nothing has happened yet, so that it may be tried again (ADM-1: reading goes on).
            _ if !has_room => reply.refuse(ErrorCode::Overloaded, 0),
            _ if is_named_twice(request.args) => reply.bad_arguments("each name once"),
            Receiver::Object(ObjectKey::DIRECTORY) => self.directory(request, objects, reply),
            Receiver::Object(key) => match objects.object(key) {
                Some(object) => perform(object, request, reply),
                None => reply.refuse(ErrorCode::NoSuchObject, 0),
            },
            // Two values would have to be looked at side by side, of which one stands for a reference of the other call.
            Receiver::Value(_) if among_values => reply.refuse(ErrorCode::NotKept, 0),
            Receiver::Value(kept) => reply.operated(kept, request.args),
            // Forwarding a call home needs memory for its arguments (ANS-6).
            Receiver::Import(_) => reply.refuse(ErrorCode::NotKept, 0),
        };
        for handle in request.handles {
            // What was lent is gone with the reply (REF-9).
            let resolved = handle.of_sender().and_then(|_| session.resolve(handle));
            if let Some(Reference::Import(import) | Reference::Weak(import)) = resolved {
                let _ = session.release(import);
            }
        }
    }

    fn directory(&self, request: &Request<'_>, objects: &mut (impl Objects + ?Sized), reply: Reply<'_>) -> Done {
        let mut args = request.args;
        let by_number = request.op.as_member();
        let name = match (by_number, request.op) {
            (Some(number), _) => Some(Value::Int(number as i64)),
            (_, Op::GetAttr | Op::GetItem | Op::CallMethod | Op::Contains) => args.next(),
            _ => None,
        };
        let root = name.and_then(|name| find(name, self.roots.iter().map(|root| root.name)));
        let root = root.and_then(|place| self.roots.get(place));
        match (request.op, name, root) {
            (Op::Contains, Some(_), root) => reply.bool(root.is_some()),
            (Op::GetAttr | Op::GetItem, _, Some(root)) => reply.reference(Ref::Local(root.key)),
            (op, _, Some(root)) if op == Op::CallMethod || by_number.is_some() => match objects.object(root.key) {
                Some(object) => {
                    object.perform(Action::Call, &Arguments { values: args, handles: request.handles }, reply)
                }
                None => reply.refuse(ErrorCode::NoSuchObject, 0),
            },
            (_, Some(name), None) => no_such_member(reply, name),
            (Op::GetAttr | Op::GetItem | Op::CallMethod | Op::Contains, None, _) => reply.bad_arguments("a name"),
            (Op::Length, ..) => reply.int(self.roots.len() as i64),
            (Op::Text, ..) => reply.str("directory"),
            (Op::Force, ..) => reply.value(|writer| {
                writer.tuple(self.roots.len())?;
                self.roots.iter().try_for_each(|root| writer.str(root.name))
            }),
            (Op::Describe, ..) => reply.value(|writer| {
                writer.tuple(self.roots.len())?;
                let kind = MemberKind::Constant;
                self.roots.iter().try_for_each(|root| describe(writer, root.name, kind, root.doc))
            }),
            _ => reply.unsupported(),
        }
    }
}

/// Whether two named arguments have one name (VAL-8).
fn is_named_twice(mut args: Values<'_>) -> bool {
    while let Some(value) = args.next() {
        if let Value::Named(name, _) = value
            && args.named(name).is_some()
        {
            return true;
        }
    }
    false
}

/// Turns a request into an action and has the object perform it.
fn perform(object: &mut dyn Object, request: &Request<'_>, reply: Reply<'_>) -> Done {
    let members = object.members();
    let mut args = request.args;
    // A name, string or number, leads the arguments of operations on members (OPS-2, OPS-3).
    let member = match (request.op.as_member(), request.op) {
        (Some(number), _) => Some(Value::Int(number as i64)),
        (_, Op::GetAttr | Op::SetAttr | Op::DelAttr | Op::CallMethod) => match args.next() {
            Some(name @ (Value::Str(_) | Value::Int(_))) => Some(name),
            _ => return reply.bad_arguments("a member's name or number"),
        },
        _ => None,
    };
    let place = match member {
        Some(name) => match find(name, members.iter().map(|member| member.name)) {
            Some(place) => place,
            None => return no_such_member(reply, name),
        },
        None => 0,
    };
    let is_writable = members.get(place).is_some_and(|member| member.kind == MemberKind::Writable);
    let arguments = Arguments { values: args, handles: request.handles };
    let mut operands = args.positional();
    let (first, second) = (operands.next(), operands.next());
    let action = match (request.op, first, second) {
        (Op::CallMethod, ..) => Action::Method(place),
        (op, ..) if op.as_member().is_some() => Action::Method(place),
        (Op::Call, ..) => Action::Call,
        (Op::GetAttr, None, _) => Action::Get(place),
        (Op::SetAttr | Op::DelAttr, ..) if !is_writable => {
            return reply.finish(Some(ErrorCode::AccessDenied), &[], &mut |writer| writer.str("read only"));
        }
        (Op::SetAttr, Some(value), None) => Action::Set(place, value),
        (Op::DelAttr, None, _) => Action::Delete(place),
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
        (Op::Describe, None, _) => {
            return reply.value(|writer| {
                writer.tuple(members.len())?;
                members.iter().try_for_each(|member| describe(writer, member.name, member.kind, member.doc))
            });
        }
        (Op::Other(_), ..) => return reply.unsupported(),
        _ => return reply.bad_arguments("other arguments for this operation"),
    };
    object.perform(action, &arguments, reply)
}

/// The place of a member, by its name or number.
fn find<'n>(name: Value<'_>, mut names: impl ExactSizeIterator<Item = &'n str>) -> Option<usize> {
    match name {
        Value::Str(wanted) => names.position(|name| name == wanted),
        Value::Int(number) => usize::try_from(number).ok().filter(|&number| number < names.len()),
        _ => None,
    }
}

fn no_such_member(reply: Reply<'_>, name: Value<'_>) -> Done {
    match name {
        Value::Str(_) | Value::Int(_) => {
            reply.finish(Some(ErrorCode::NoSuchMember), &[], &mut |writer| writer.copy(name))
        }
        _ => reply.bad_arguments("a member's name or number"),
    }
}

fn describe(writer: &mut ValueWriter<'_>, name: &str, kind: MemberKind, doc: &str) -> Result<(), ValueError> {
    writer.tuple(3)?;
    writer.str(name)?;
    writer.int(kind as i64)?;
    writer.str(doc)
}
