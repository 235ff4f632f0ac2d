//! Objects that cases use.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use farref_core::dispatch::{Action, Arguments, Done, Member, Object, Reply};
use farref_core::message::{ErrorCode, Handles, Op};
use farref_core::session::{Answer, Call, Callee, Import, Ref, Reference, Storage};
use farref_core::value::{OwnedException, OwnedValue, Value};

use crate::sim::{Board, Owned, own_with, references};

/// An object from a closure.
pub struct Closure<F> {
    members: &'static [Member],
    perform: F,
}

impl<F: FnMut(Action, &Arguments<'_>, Reply<'_>) -> Done> Object for Closure<F> {
    fn members(&self) -> &'static [Member] {
        self.members
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        (self.perform)(action, args, reply)
    }
}

/// An object with these members that does this.
pub fn object<F>(members: &'static [Member], perform: F) -> Closure<F>
where
    F: FnMut(Action, &Arguments<'_>, Reply<'_>) -> Done,
{
    Closure { members, perform }
}

/// An object that is called and does nothing else.
pub fn function(mut call: impl FnMut(&Arguments<'_>, Reply<'_>) -> Done) -> impl Object {
    object(&[], move |action, args, reply| match action {
        Action::Call => call(args, reply),
        _ => reply.unsupported(),
    })
}

/// A received argument as a value of its own. A promise that settled to a value is that value.
///
/// # Panics
///
/// If a reference is stale.
pub fn owned(args: &Arguments<'_>, reply: &Reply<'_>, value: Value<'_>) -> Owned {
    let named = |index| args.handle(index).and_then(|handle| reply.resolve(handle)).expect("a live reference");
    let in_kept = |handles: Handles<'_>, index| {
        handles.get(index).and_then(|handle| reply.resolve_kept(handle)).expect("a live reference")
    };
    own_with(value, &named, &|kept| reply.kept(kept), &in_kept)
}

/// Operand number `index`, as a value of its own.
fn operand(args: &Arguments<'_>, reply: &Reply<'_>, index: usize) -> Owned {
    owned(args, reply, args.get(index).unwrap_or(Value::None))
}

/// All arguments, as values of their own.
pub fn all_owned(args: &Arguments<'_>, reply: &Reply<'_>) -> Vec<Owned> {
    args.values().map(|value| owned(args, reply, value)).collect()
}

/// Replies a value of one's own.
pub fn reply_owned(reply: Reply<'_>, value: &Owned) -> Done {
    reply.with(&references(std::slice::from_ref(value)), |writer| value.write(writer, &mut 0))
}

/// Keeps all references of the other side in a value beyond the call.
fn keep_all(reply: &mut Reply<'_>, value: &Owned) {
    value.each_reference(&mut |reference| {
        if let Ref::Import(import) = *reference {
            reply.keep(import);
        }
    });
}

/// Called with one argument, gives it back.
pub fn echo() -> impl Object {
    function(|args, reply| match args.get(0) {
        Some(value) => {
            let value = owned(args, &reply, value);
            reply_owned(reply, &value)
        }
        None => reply.none(),
    })
}

/// Counts: `increment(by)`, and `value` to read and set.
pub fn counter() -> impl Object {
    const MEMBERS: &[Member] = &[
        Member::method("increment", "adds and gives the sum"),
        Member::writable("value", "the count"),
        Member::readable("name", "always counter"),
    ];
    let mut value = 0;
    object(MEMBERS, move |action, args, reply| match action {
        Action::Method(0) => match args.int(0) {
            Some(by) => {
                value += by;
                reply.int(value)
            }
            None => reply.bad_arguments("increment(by: int)"),
        },
        Action::Get(1) => reply.int(value),
        Action::Set(1) => match args.int(0) {
            Some(new) => {
                value = new;
                reply.none()
            }
            None => reply.bad_arguments("an integer"),
        },
        Action::Delete(1) => {
            value = 0;
            reply.none()
        }
        Action::Get(2) => reply.str("counter"),
        _ => reply.unsupported(),
    })
}

/// Keeps references: `keep(x)`, `perform(args…)` calls the one kept with these arguments, `forget()`, and `kept` is it.
pub fn keeper<S: Storage + 'static>(board: &Board<S>) -> impl Object + use<S> {
    const MEMBERS: &[Member] = &[
        Member::method("keep", "keeps a reference"),
        Member::method("perform", "calls it"),
        Member::method("forget", "forgets it"),
        Member::readable("kept", "the reference"),
    ];
    let board = board.clone();
    let mut kept: Option<Import> = None;
    object(MEMBERS, move |action, args, mut reply| match (action, kept) {
        (Action::Method(0), _) => match args.reference(0).and_then(|handle| reply.resolve(handle)) {
            Some(Reference::Import(import)) => {
                reply.keep(import);
                if let Some(old) = kept.replace(import) {
                    board.release(old);
                }
                reply.none()
            }
            _ => reply.bad_arguments("keep(reference)"),
        },
        (Action::Method(1), Some(import)) => nested(&board, Callee::Import(import), Op::Call, args, 0, reply),
        (Action::Method(2), Some(import)) => {
            board.release(import);
            kept = None;
            reply.none()
        }
        (Action::Get(3), Some(import)) => reply.reference(Ref::Import(import)),
        _ => reply.raise("ValueError", "nothing is kept"),
    })
}

/// Makes a nested call with the arguments from number `skip` on, and replies what it gives.
pub fn nested<S: Storage + 'static>(
    board: &Board<S>,
    callee: Callee,
    op: Op,
    args: &Arguments<'_>,
    skip: usize,
    mut reply: Reply<'_>,
) -> Done {
    let rest: Vec<Owned> = args.values().skip(skip).map(|value| owned(args, &reply, value)).collect();
    let called = reply.call(Call::new(callee, op).references(&references(&rest)), |writer| {
        let mut next = 0;
        rest.iter().try_for_each(|arg| arg.write(writer, &mut next))
    });
    match called {
        Ok(question) => {
            let (answer, done) = reply.later();
            board.then(question, move |side, returned| side.relay(answer, &returned));
            done
        }
        Err(error) => reply.raise("RuntimeError", &error.to_string()),
    }
}

/// Called with a reference and arguments, calls the reference with them while it is being called.
pub fn caller_back<S: Storage + 'static>(board: &Board<S>) -> impl Object + use<S> {
    let board = board.clone();
    function(move |args, reply| match args.reference(0).and_then(|handle| reply.resolve(handle)) {
        Some(Reference::Import(import)) => nested(&board, Callee::Import(import), Op::Call, args, 1, reply),
        _ => reply.bad_arguments("a function, and its arguments"),
    })
}

/// Called with a name and arguments, raises that exception.
pub fn raiser() -> impl Object {
    function(|args, reply| {
        let name = args.str(0).unwrap_or("ValueError");
        let values: Vec<Owned> = args.values().skip(1).map(|value| owned(args, &reply, value)).collect();
        reply.raise_with(name, values.len(), |writer| values.iter().try_for_each(|value| value.write(writer, &mut 0)))
    })
}

/// Calls that were put off, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Postponed(Rc<RefCell<VecDeque<Answer>>>);

impl Postponed {
    /// The oldest.
    pub fn next(&self) -> Option<Answer> {
        self.0.borrow_mut().pop_front()
    }

    /// The newest.
    pub fn last(&self) -> Option<Answer> {
        self.0.borrow_mut().pop_back()
    }
}

/// Called, puts its reply off.
pub fn later() -> (Postponed, impl Object) {
    let postponed = Postponed::default();
    let calls = postponed.clone();
    const MEMBERS: &[Member] = &[Member::method("m", "put off, too")];
    let object = object(MEMBERS, move |_, _, reply| {
        let (answer, done) = reply.later();
        calls.0.borrow_mut().push_back(answer);
        done
    });
    (postponed, object)
}

/// What a list holds, shared with its owner.
pub type Items = Rc<RefCell<Vec<Owned>>>;

/// A list by reference. `append` and `pop` are its methods; read as an attribute, `append` is bound to it.
pub fn list<S: Storage + 'static>(board: &Board<S>, items: &Items) -> impl Object + use<S> {
    const MEMBERS: &[Member] = &[Member::method("append", "adds an item"), Member::method("pop", "takes the last off")];
    let (board, items) = (board.clone(), Rc::clone(items));
    object(MEMBERS, move |action, args, mut reply| match action {
        Action::Method(0) => append(&items, args, reply),
        Action::Method(1) => {
            let popped = items.borrow_mut().pop();
            match popped {
                Some(item) => reply_owned(reply, &item),
                None => reply.raise("IndexError", "pop from an empty list"),
            }
        }
        Action::Get(0) => {
            let items = Rc::clone(&items);
            let bound = board.add(function(move |args, reply| append(&items, args, reply)));
            reply.reference(Ref::Local(bound))
        }
        Action::Length => reply.int(items.borrow().len() as i64),
        Action::GetItem | Action::SetItem | Action::DelItem => {
            let Some(index) = args.int(0) else { return reply.bad_arguments("an index") };
            let Some(place) = place(&items, index) else {
                return reply.raise_with("IndexError", 1, |writer| writer.int(index));
            };
            match action {
                Action::GetItem => return reply_owned(reply, &items.borrow()[place]),
                Action::SetItem => {
                    let value = operand(args, &reply, 1);
                    keep_all(&mut reply, &value);
                    items.borrow_mut()[place] = value;
                }
                _ => drop(items.borrow_mut().remove(place)),
            }
            reply.none()
        }
        Action::Contains => {
            let value = operand(args, &reply, 0);
            reply.bool(items.borrow().contains(&value))
        }
        Action::Iterate => {
            let iterator = board.add(iterator(items.borrow().clone()));
            reply.reference(Ref::Local(iterator))
        }
        Action::Text(_) => reply.str(&format!("a list of {}", items.borrow().len())),
        Action::Equals => match args.get(0) {
            Some(Value::List(others)) => {
                let others: Vec<Owned> = others.map(|other| owned(args, &reply, other)).collect();
                reply.bool(*items.borrow() == others)
            }
            _ => reply.value(|writer| writer.not_implemented()),
        },
        Action::Hash => reply.raise("TypeError", "unhashable type: list"),
        Action::Force => reply_owned(reply, &OwnedValue::List(items.borrow().clone())),
        _ => reply.unsupported(),
    })
}

fn append(items: &Items, args: &Arguments<'_>, mut reply: Reply<'_>) -> Done {
    let added = all_owned(args, &reply);
    added.iter().for_each(|value| keep_all(&mut reply, value));
    items.borrow_mut().extend(added);
    reply.none()
}

fn place(items: &Items, index: i64) -> Option<usize> {
    let length = items.borrow().len();
    let place = if index < 0 { index + length as i64 } else { index };
    usize::try_from(place).ok().filter(|&place| place < length)
}

/// An iterator: `Next` gives a tuple, empty at the end.
fn iterator(items: Vec<Owned>) -> impl Object {
    let mut items = VecDeque::from(items);
    object(&[], move |action, _, reply| match action {
        Action::Next(most) => {
            let count = most.min(items.len());
            reply_owned(reply, &OwnedValue::Tuple(items.drain(..count).collect()))
        }
        _ => reply.unsupported(),
    })
}

/// A map by reference.
pub fn map(entries: Vec<(Owned, Owned)>) -> impl Object {
    const MEMBERS: &[Member] = &[Member::method("keys", "a tuple of keys")];
    let mut entries = entries;
    object(MEMBERS, move |action, args, reply| match action {
        Action::Method(0) => {
            reply_owned(reply, &OwnedValue::Tuple(entries.iter().map(|(key, _)| key.clone()).collect()))
        }
        Action::Length => reply.int(entries.len() as i64),
        Action::GetItem => {
            let key = operand(args, &reply, 0);
            match entries.iter().find(|(have, _)| *have == key) {
                Some((_, value)) => reply_owned(reply, value),
                None => reply.raise_with("KeyError", 1, |writer| key.write(writer, &mut 0)),
            }
        }
        Action::SetItem => {
            let (key, value) = (operand(args, &reply, 0), operand(args, &reply, 1));
            entries.retain(|(have, _)| *have != key);
            entries.push((key, value));
            reply.none()
        }
        Action::DelItem => {
            let key = operand(args, &reply, 0);
            entries.retain(|(have, _)| *have != key);
            reply.none()
        }
        Action::Contains => {
            let key = operand(args, &reply, 0);
            reply.bool(entries.iter().any(|(have, _)| *have == key))
        }
        Action::Force => reply_owned(reply, &OwnedValue::Map(entries.clone())),
        _ => reply.unsupported(),
    })
}

/// Gives a new function object with each call; each of them gives the number it was born with.
pub fn factory<S: Storage + 'static>(board: &Board<S>) -> impl Object + use<S> {
    let board = board.clone();
    let mut born = 0;
    function(move |_, reply| {
        let number = born;
        born += 1;
        let key = board.add(function(move |_, reply| reply.int(number)));
        reply.reference(Ref::Local(key))
    })
}

/// Files by name: called with a name it opens one, whose `read` gives the contents.
pub fn files<S: Storage + 'static>(board: &Board<S>, files: &'static [(&str, &str)]) -> impl Object + use<S> {
    const MEMBERS: &[Member] = &[Member::method("read", "all of it")];
    let board = board.clone();
    function(move |args, reply| {
        let name = args.str(0).unwrap_or_default();
        match files.iter().find(|(have, _)| *have == name) {
            Some(&(_, contents)) => {
                let file = object(MEMBERS, move |action, _, reply| match action {
                    Action::Method(0) => reply.str(contents),
                    _ => reply.unsupported(),
                });
                reply.reference(Ref::Local(board.add(file)))
            }
            None => reply.raise_with("FileNotFoundError", 3, |writer| {
                writer.int(2)?;
                writer.str("no such file")?;
                writer.str(name)
            }),
        }
    })
}

/// An exception, to compare with.
pub fn exception(name: &str, args: Vec<Owned>) -> Owned {
    OwnedValue::Exception(Box::new(OwnedException { name: name.into(), args, text: None, traceback: None }))
}

/// An integer.
pub fn int(value: i64) -> Owned {
    OwnedValue::Int(value)
}

/// A reference.
pub fn reference(reference: Ref) -> Owned {
    OwnedValue::Reference(reference)
}

/// The code of a failure, and nothing else of it.
pub fn code<T>(outcome: Result<T, crate::sim::Failure>) -> ErrorCode {
    match outcome {
        Ok(_) => panic!("it did not fail"),
        Err(failure) => failure.code,
    }
}
