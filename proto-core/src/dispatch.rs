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
//!     fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
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
use crate::session::WriteValues;
use crate::session::{
    Answer, Call, CallError, Import, Kept, ObjectKey, Question, Receiver, Ref, Reference, ReplyError, Request, Session,
    Storage,
};
use crate::value::{Value, ValueError, ValueWriter, Values, is_same_name};

/// What an object answers to. Hosts that have one implement it for their own things.
pub trait Object {
    /// Its members, in the order of their numbers (OPS-2). Fixed as long as it lives.
    fn members(&self) -> &'static [Member] {
        &[]
    }

    /// Does what is asked and replies, at once or [`Reply::later`].
    ///
    /// Requests for members that do not exist, and for setting those that cannot be set, never come here.
    fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done;
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

/// What is asked of an object. Members come as their number in [`Object::members`], what it is done with as the positional
/// arguments: as many as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Call the object itself, with any arguments.
    Call,
    /// Read a member.
    Get(usize),
    /// Set a member to argument 0.
    Set(usize),
    /// Delete a member.
    Delete(usize),
    /// Call a member, with any arguments.
    Method(usize),
    /// How many items there are.
    Length,
    /// Read the item of key 0.
    GetItem,
    /// Set the item of key 0 to argument 1.
    SetItem,
    /// Delete the item of key 0.
    DelItem,
    /// Whether argument 0 is among the items.
    Contains,
    /// A reference to an iterator.
    Iterate,
    /// So many items at most.
    Next(usize),
    /// Text form; exact if true.
    Text(bool),
    /// Whether it equals argument 0.
    Equals,
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
    pub fn with(self, references: &[Ref], result: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>) -> Done {
        self.finish(None, references, result)
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
        self.finish(Some(ErrorCode::Raised), &[], |writer| {
            writer.exception_head(name, count)?;
            args(writer)?;
            writer.exception_tail(None, None)
        })
    }

    /// Says that the arguments do not fit, and what would.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn bad_arguments(self, expected: &str) -> Done {
        self.finish(Some(ErrorCode::BadArguments), &[], |writer| writer.str(expected))
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
        mut call: Call<'_>,
        mut args: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<Question, CallError> {
        call.parent = Some(self.call);
        self.session.call(&call, &mut args)
    }

    /// Replies what an operation on a kept value gives (OPS-5).
    fn operated(self, kept: Kept, args: Values<'_>) -> Done {
        let replied = self.session.reply_operated(self.call, kept, self.op, args);
        self.settle(replied)
    }

    #[inline(never)]
    fn refuse(self, code: ErrorCode, detail: u32) -> Done {
        self.session.refuse(self.call, code, detail);
        Done(())
    }

    fn finish(
        self,
        error: Option<ErrorCode>,
        references: &[Ref],
        mut values: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Done {
        self.finish_with(error, references, &mut values)
    }

    #[inline(never)]
    fn finish_with(self, error: Option<ErrorCode>, references: &[Ref], values: &mut dyn WriteValues) -> Done {
        let replied = self.session.reply(self.call, error, references, values);
        self.settle(replied)
    }

    fn settle(self, replied: Result<(), ReplyError>) -> Done {
        match replied {
            Ok(()) | Err(ReplyError::Became(_) | ReplyError::Ended(_) | ReplyError::NoSuchCall) => {}
            // It ran, and its result does not fit what is left of the output.
            Err(ReplyError::NoRoom) => self.session.refuse(self.call, ErrorCode::ResultTooLarge, 0),
            Err(ReplyError::Values(_) | ReplyError::BadReference(_)) => {
                let broken =
                    self.session.reply(self.call, Some(ErrorCode::Raised), &[], &mut |writer: &mut ValueWriter<'_>| {
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
        values: &mut dyn WriteValues,
    ) -> Result<(), ReplyError>;
    fn reply_operated(&mut self, call: Answer, kept: Kept, op: Op, args: Values<'_>) -> Result<(), ReplyError>;
    fn refuse(&mut self, call: Answer, code: ErrorCode, detail: u32);
    fn call(&mut self, call: &Call<'_>, args: &mut dyn WriteValues) -> Result<Question, CallError>;
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
        values: &mut dyn WriteValues,
    ) -> Result<(), ReplyError> {
        self.reply_dyn(call, error, references, values)
    }

    fn reply_operated(&mut self, call: Answer, kept: Kept, op: Op, args: Values<'_>) -> Result<(), ReplyError> {
        Session::reply_operated(self, call, kept, op, args)
    }

    fn refuse(&mut self, call: Answer, code: ErrorCode, detail: u32) {
        // The session may have ended meanwhile; then nobody waits for the answer.
        let _ = Session::refuse(self, call, code, detail);
    }

    fn call(&mut self, call: &Call<'_>, args: &mut dyn WriteValues) -> Result<Question, CallError> {
        self.call_dyn(call, args)
    }

    fn retain(&mut self, import: Import) {
        let _ = Session::retain(self, import);
    }

    fn resolve(&self, handle: Descriptor) -> Option<Reference> {
        Session::resolve(self, handle)
    }

    fn kept(&self, kept: Kept) -> Option<(Handles<'_>, Values<'_>)> {
        if S::KEEPS_VALUES { Session::kept(self, kept) } else { None }
    }

    fn resolve_kept(&self, handle: Descriptor) -> Option<Reference> {
        if S::KEEPS_VALUES { Session::resolve_kept(self, handle) } else { None }
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

impl<'r> Dispatcher<'r> {
    /// Output that must be free for a request to be started: a short reply. Without it a request is refused as overloaded, unless
    /// whoever drives the session [puts it off](Session::put_off).
    pub const ROOM: usize = 64;

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
        // Two values would have to be looked at side by side, of which one stands for a reference of the other call.
        let can_operate = S::KEEPS_VALUES && !{ request.handles }.any(is_value);
        let has_room = session.room() >= Self::ROOM;
        let reply = Reply { session, call: request.call, op: request.op };
        let _ = match request.receiver {
            // Nothing has happened yet, so that it may be tried again (ADM-1: reading goes on).
            _ if !has_room => reply.refuse(ErrorCode::Overloaded, 0),
            _ if is_named_twice(request.args) => reply.bad_arguments("each name once"),
            Receiver::Object(key) => self.perform(key, request, objects, reply),
            Receiver::Value(kept) if can_operate => reply.operated(kept, request.args),
            // Forwarding a call home needs memory for its arguments (ANS-6).
            Receiver::Value(_) | Receiver::Import(_) => reply.refuse(ErrorCode::NotKept, 0),
        };
        // What was lent is gone with the reply (REF-9).
        session.release_handles(request.handles);
    }

    /// Finds the member that a request names, if it names one, and has the object or the directory perform it.
    fn perform(
        &self,
        key: ObjectKey,
        request: &Request<'_>,
        objects: &mut (impl Objects + ?Sized),
        reply: Reply<'_>,
    ) -> Done {
        let object = match key {
            ObjectKey::DIRECTORY => None,
            key => match objects.object(key) {
                None => return reply.refuse(ErrorCode::NoSuchObject, 0),
                object => object,
            },
        };
        let members = match &object {
            Some(object) => Members::Of(object.members()),
            None => Members::Roots(self.roots),
        };
        let mut args = request.args;
        // Both are the same operation (OPS-3).
        let (op, number) = match request.op.as_member() {
            Some(number) => (Op::CallMethod, Some(Value::Int(number as i64))),
            None => (request.op, None),
        };
        // A name, string or number, leads the arguments of operations on members (OPS-2).
        let has_name = match op {
            Op::GetAttr | Op::CallMethod => true,
            Op::SetAttr | Op::DelAttr => object.is_some(),
            Op::GetItem | Op::Contains => object.is_none(),
            _ => false,
        };
        let name = match number {
            None if has_name => args.next(),
            number => number,
        };
        let place = name.and_then(|name| members.find(name));
        match name {
            Some(_) if place.is_some() || op == Op::Contains => {}
            Some(Value::Str(name)) => return no_such_member(reply, |writer| writer.str(name)),
            Some(Value::Int(number)) => return no_such_member(reply, |writer| writer.int(number)),
            _ if has_name => return reply.bad_arguments("a member's name or number"),
            _ => {}
        }
        let arguments = Arguments { values: args, handles: request.handles };
        match (op, object) {
            (Op::Describe, _) if args.is_empty() => reply.value(|writer| members.describe(writer)),
            (_, Some(object)) => perform(object, op, place.unwrap_or_default(), &arguments, reply),
            (_, None) => self.directory(op, place, &arguments, objects, reply),
        }
    }

    fn directory(
        &self,
        op: Op,
        place: Option<usize>,
        args: &Arguments<'_>,
        objects: &mut (impl Objects + ?Sized),
        reply: Reply<'_>,
    ) -> Done {
        match (op, place.and_then(|place| self.roots.get(place))) {
            (Op::Contains, root) => reply.bool(root.is_some()),
            (Op::GetAttr | Op::GetItem, Some(root)) => reply.reference(Ref::Local(root.key)),
            (Op::CallMethod, Some(root)) => match objects.object(root.key) {
                Some(object) => object.perform(Action::Call, args, reply),
                None => reply.refuse(ErrorCode::NoSuchObject, 0),
            },
            (Op::Length | Op::Force | Op::Describe, _) if !args.values.is_empty() => bad_operands(reply),
            (Op::Length, _) => reply.int(self.roots.len() as i64),
            (Op::Text, _) => reply.str("directory"),
            (Op::Force, _) => reply.value(|writer| {
                writer.tuple(self.roots.len())?;
                self.roots.iter().try_for_each(|root| writer.str(root.name))
            }),
            _ => reply.unsupported(),
        }
    }
}

/// What Describe lists.
#[derive(Clone, Copy)]
enum Members<'a> {
    Of(&'a [Member]),
    Roots(&'a [Root]),
}

impl Members<'_> {
    fn len(self) -> usize {
        match self {
            Self::Of(members) => members.len(),
            Self::Roots(roots) => roots.len(),
        }
    }

    fn get(self, place: usize) -> Option<Member> {
        match self {
            Self::Of(members) => members.get(place).copied(),
            Self::Roots(roots) => {
                roots.get(place).map(|root| Member { name: root.name, kind: MemberKind::Constant, doc: root.doc })
            }
        }
    }

    /// The place of a member, by its name or number.
    fn find(self, name: Value<'_>) -> Option<usize> {
        match name {
            Value::Str(name) => {
                (0..self.len()).find(|&place| self.get(place).is_some_and(|member| is_same_name(member.name, name)))
            }
            Value::Int(number) => usize::try_from(number).ok().filter(|&number| number < self.len()),
            _ => None,
        }
    }

    fn describe(self, writer: &mut ValueWriter<'_>) -> Result<(), ValueError> {
        writer.tuple(self.len())?;
        for member in (0..self.len()).filter_map(|place| self.get(place)) {
            writer.tuple(3)?;
            writer.str(member.name)?;
            writer.int(member.kind as i64)?;
            writer.str(member.doc)?;
        }
        Ok(())
    }
}

/// Whether two named arguments have one name (VAL-8).
fn is_named_twice(mut args: Values<'_>) -> bool {
    while let Some(value) = args.next() {
        if let Value::Named(named) = value
            && args.named(named.name()).is_some()
        {
            return true;
        }
    }
    false
}

/// Turns an operation into an action and has the object perform it.
fn perform(object: &mut dyn Object, op: Op, place: usize, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
    let is_writable = || object.members().get(place).is_some_and(|member| member.kind == MemberKind::Writable);
    if matches!(op, Op::SetAttr | Op::DelAttr) && !is_writable() {
        return reply.finish(Some(ErrorCode::AccessDenied), &[], |writer| writer.str("read only"));
    }
    let count = args.values.len();
    let (action, expected) = match op {
        Op::CallMethod => (Action::Method(place), count),
        Op::Call => (Action::Call, count),
        Op::GetAttr => (Action::Get(place), 0),
        Op::SetAttr => (Action::Set(place), 1),
        Op::DelAttr => (Action::Delete(place), 0),
        Op::Length => (Action::Length, 0),
        Op::GetItem => (Action::GetItem, 1),
        Op::SetItem => (Action::SetItem, 2),
        Op::DelItem => (Action::DelItem, 1),
        Op::Contains => (Action::Contains, 1),
        Op::Iterate => (Action::Iterate, 0),
        Op::Next => match args.int(0) {
            Some(most @ 1..) => (Action::Next(usize::try_from(most).unwrap_or(usize::MAX)), 1),
            _ => return bad_operands(reply),
        },
        Op::Text => match args.bool(0) {
            exact if count == 0 || exact.is_some() => (Action::Text(exact.unwrap_or_default()), count.min(1)),
            _ => return bad_operands(reply),
        },
        Op::Equals => (Action::Equals, 1),
        Op::Hash => (Action::Hash, 0),
        Op::Force => (Action::Force, 0),
        Op::Upgrade => (Action::Upgrade, 0),
        Op::Describe => return bad_operands(reply),
        _ => return reply.unsupported(),
    };
    if count != expected {
        return bad_operands(reply);
    }
    object.perform(action, args, reply)
}

#[cold]
fn bad_operands(reply: Reply<'_>) -> Done {
    reply.bad_arguments("other arguments for this operation")
}

fn no_such_member(reply: Reply<'_>, name: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>) -> Done {
    reply.finish(Some(ErrorCode::NoSuchMember), &[], name)
}
