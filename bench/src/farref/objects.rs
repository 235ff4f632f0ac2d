//! What the farref server offers: the roots that never wait. Those that call back depend on how the backend waits.

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use farref_pipe::{Action, Args, Directory, Error, Function, Member, Object, Reference, Runs, Value};

use crate::Result;

/// What the calls of small integers send, and get back.
pub const NUMBER: i64 = 7;

/// The roots that never wait: `echo`, `make`, `link`.
pub fn directory() -> Directory {
    Directory::new()
        .with("echo", "gives its argument back", Function::inline(first))
        .with("make", "a new object, which is an echo, too", Function::inline(|_| Ok(Reference::local(Leaf).into())))
        .with_shared("link", "next() is itself, value() a number", Link::new())
}

/// Fails unless the value is [`NUMBER`].
pub fn expect_number(value: &Value) -> Result<()> {
    if value.as_int() == Some(NUMBER) { Ok(()) } else { Err(format!("not {NUMBER}, but {value:?}").into()) }
}

fn first(args: Args) -> Result<Value, Error> {
    args.positional.into_iter().next().ok_or_else(|| Error::bad_arguments("something to give back"))
}

/// What `make` makes.
struct Leaf;

impl Object for Leaf {
    fn runs(&self) -> Runs {
        Runs::Inline
    }

    fn perform(&self, action: Action, args: Args) -> Result<Value, Error> {
        match action {
            Action::Call => first(args),
            other => other.unsupported(),
        }
    }
}

/// A step of a chain: each is the same object.
struct Link(Weak<Self>);

impl Link {
    fn new() -> Arc<Self> {
        Arc::new_cyclic(|link| Self(link.clone()))
    }
}

impl Object for Link {
    fn runs(&self) -> Runs {
        Runs::Inline
    }

    fn members(&self) -> Cow<'_, [Member]> {
        const MEMBERS: &[Member] = &[Member::method("next", "itself"), Member::method("value", "a number")];
        Cow::Borrowed(MEMBERS)
    }

    fn perform(&self, action: Action, _: Args) -> Result<Value, Error> {
        match action {
            Action::Method("next") => {
                let link: Arc<dyn Object> = self.0.upgrade().ok_or_else(|| Error::raise("RuntimeError", "gone"))?;
                Ok(Reference::Local(link).into())
            }
            Action::Method("value") => Ok(NUMBER.into()),
            other => other.unsupported(),
        }
    }
}
