//! Something that keeps references, and small values, for as long as the session lasts.

use farref_embassy::{Action, Arguments, Done, Member, Object, ObjectKey, Ref, Reference, Remote, Reply, Value};
use heapless::String;

use crate::client::Client;

pub struct Store(pub &'static Client);

/// A name and what is kept under it.
pub struct Entry {
    name: String<16>,
    kept: Kept,
}

enum Kept {
    /// An object of the peer.
    Theirs(Remote<'static>),
    /// One of ours that came home.
    Ours(ObjectKey),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String<32>),
}

impl Object for Store {
    fn members(&self) -> &'static [Member] {
        const {
            &[
                Member::method("put", "keep an object or a small value: put(name, x)"),
                Member::method("get", "what is kept: get(name)"),
                Member::method("remove", "keep it no more: remove(name)"),
                Member::method("clear", "keep nothing any more"),
                Member::method("names", "what there is"),
            ]
        }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
        let name = args.str(0);
        match (action, name) {
            (Action::Method(0) | Action::SetItem, Some(name)) => self.put(name, args, reply),
            (Action::Method(1) | Action::GetItem, Some(name)) => self.give(name, reply),
            (Action::Method(2) | Action::DelItem, Some(name)) => {
                let mut entries = self.0.stored.borrow_mut();
                match entries.iter().position(|entry| entry.name == name) {
                    Some(place) => {
                        entries.swap_remove(place);
                        reply.none()
                    }
                    None => reply.raise("KeyError", name),
                }
            }
            (Action::Contains, Some(name)) => reply.bool(self.0.stored.borrow().iter().any(|entry| entry.name == name)),
            (Action::Method(3), None) => {
                self.0.stored.borrow_mut().clear();
                reply.none()
            }
            (Action::Method(4), None) => {
                let entries = self.0.stored.borrow();
                reply.value(|writer| {
                    writer.tuple(entries.len())?;
                    entries.iter().try_for_each(|entry| writer.str(&entry.name))
                })
            }
            (Action::Length, _) => reply.int(self.0.stored.borrow().len() as i64),
            (Action::Method(0..=2) | Action::GetItem | Action::SetItem | Action::DelItem, None) => {
                reply.bad_arguments("a name, text, first")
            }
            _ => reply.unsupported(),
        }
    }
}

impl Store {
    fn put(&self, name: &str, args: &Arguments<'_>, mut reply: Reply<'_>) -> Done {
        let Ok(name) = String::try_from(name) else {
            return reply.raise("ValueError", "a name has at most 16 bytes");
        };
        let Some(kept) = self.keep(args, &mut reply) else {
            return reply.bad_arguments(
                "put(name, x): an object that is not lent, a number, a truth value, up to 32 bytes of text",
            );
        };
        let mut entries = self.0.stored.borrow_mut();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.name == name) {
            entry.kept = kept;
            return reply.none();
        }
        match entries.push(Entry { name, kept }) {
            Ok(()) => reply.none(),
            Err(_) => reply.raise("MemoryError", "the store is full"),
        }
    }

    fn keep(&self, args: &Arguments<'_>, reply: &mut Reply<'_>) -> Option<Kept> {
        Some(match args.get(1)? {
            Value::None => Kept::None,
            Value::Bool(value) => Kept::Bool(value),
            Value::Int(value) => Kept::Int(value),
            Value::Float(value) => Kept::Float(value),
            Value::Str(value) => Kept::Text(String::try_from(value).ok()?),
            Value::Reference(_) => match self.0.peer.keep(args, 1, reply) {
                Some(remote) => Kept::Theirs(remote),
                None => match reply.resolve(args.reference(1)?)? {
                    Reference::Local(key) => Kept::Ours(key),
                    _ => return None,
                },
            },
            _ => return None,
        })
    }

    fn give(&self, name: &str, reply: Reply<'_>) -> Done {
        let entries = self.0.stored.borrow();
        let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
            return reply.raise("KeyError", name);
        };
        match &entry.kept {
            Kept::Theirs(remote) => match remote.reference(self.0.peer) {
                Ok(home) => reply.reference(home),
                Err(_) => reply.raise("ReferenceError", "it is no more"),
            },
            Kept::Ours(key) => reply.reference(Ref::Local(*key)),
            Kept::None => reply.none(),
            Kept::Bool(value) => reply.bool(*value),
            Kept::Int(value) => reply.int(*value),
            Kept::Float(value) => reply.float(*value),
            Kept::Text(value) => reply.str(value),
        }
    }
}
