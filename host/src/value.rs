//! Values and references of a host.

use std::fmt;
use std::sync::Arc;

use farref_core::value::{OwnedException, OwnedValue, Value as Borrowed, Values};

use crate::object::Object;
use crate::proxy::{Promise, Proxy};

/// What travels: immutable values by value, objects by reference.
pub type Value = OwnedValue<Reference>;

/// An exception by name with exact arguments.
pub type Exception = OwnedException<Reference>;

/// A reference inside a value.
#[derive(Clone)]
pub enum Reference {
    /// An object of this process. One that comes home is the object that left.
    Local(Arc<dyn Object>),
    /// An object of this process that is lent to the call it is an argument of: when that has its answer, the peer holds it no
    /// more, and nothing needs to be released. In a result it is [`Self::Local`]. Never received.
    Lent(Arc<dyn Object>),
    /// An object of a peer.
    Remote(Proxy),
    /// What a call will answer. Only in the arguments of calls over the same connection; never received.
    Promise(Promise),
}

impl Reference {
    /// Wraps an object of this process.
    pub fn local(object: impl Object) -> Self {
        Self::Local(Arc::new(object))
    }

    /// The proxy, if it is an object of a peer.
    pub fn remote(&self) -> Option<&Proxy> {
        if let Self::Remote(proxy) = self { Some(proxy) } else { None }
    }
}

/// Identity: the same object, not an equal one.
impl PartialEq for Reference {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(left) | Self::Lent(left), Self::Local(right) | Self::Lent(right)) => Arc::ptr_eq(left, right),
            (Self::Remote(left), Self::Remote(right)) => left == right,
            _ => false,
        }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(object) | Self::Lent(object) => {
                write!(out, "<local object {:p}>", Arc::as_ptr(object).cast::<()>())
            }
            Self::Remote(proxy) => proxy.fmt(out),
            Self::Promise(_) => out.write_str("<promise>"),
        }
    }
}

impl From<Proxy> for Reference {
    fn from(proxy: Proxy) -> Self {
        Self::Remote(proxy)
    }
}

impl From<Promise> for Reference {
    fn from(promise: Promise) -> Self {
        Self::Promise(promise)
    }
}

impl From<Arc<dyn Object>> for Reference {
    fn from(object: Arc<dyn Object>) -> Self {
        Self::Local(object)
    }
}

impl From<Reference> for Value {
    fn from(reference: Reference) -> Self {
        Self::Reference(reference)
    }
}

/// About how many bytes of memory a value takes.
pub(crate) fn memory_of(value: &Value) -> usize {
    let inner = match value {
        Value::Str(text) => text.len(),
        Value::Bytes(bytes) | Value::BigInt(_, bytes) => bytes.len(),
        Value::Tuple(items) | Value::List(items) | Value::Set(items) => items.iter().map(memory_of).sum(),
        Value::Map(entries) => entries.iter().map(|(key, value)| memory_of(key) + memory_of(value)).sum(),
        Value::Exception(exception) => {
            let text = exception.text.as_ref().map_or(0, String::len);
            let args = exception.args.iter().map(memory_of).sum::<usize>();
            size_of::<Exception>() + exception.name.len() + text + args
        }
        _ => 0,
    };
    inner + size_of::<Value>()
}

/// The same of received values before they are copied; `of_reference` tells what stands in the place of a reference.
pub(crate) fn memory_of_all(values: Values<'_>, of_reference: &mut impl FnMut(u32) -> usize) -> usize {
    values.map(|value| memory_of_received(value, of_reference)).sum()
}

fn memory_of_received(value: Borrowed<'_>, of_reference: &mut impl FnMut(u32) -> usize) -> usize {
    let inner = match value {
        Borrowed::Str(text) => text.len(),
        Borrowed::Bytes(bytes) => bytes.len(),
        Borrowed::BigInt(number) => number.magnitude.len(),
        Borrowed::Tuple(items) | Borrowed::List(items) | Borrowed::Set(items) | Borrowed::Map(items) => {
            memory_of_all(items, of_reference)
        }
        Borrowed::Exception(exception) => {
            let text = exception.text().map_or(0, str::len);
            let traceback = exception.traceback().map_or(0, &mut *of_reference);
            let args = memory_of_all(exception.args(), of_reference);
            size_of::<Exception>() + exception.name().len() + text + args + traceback
        }
        Borrowed::Reference(index) => of_reference(index),
        // The name stands in the list of arguments and, while it is read, in a set.
        Borrowed::Named(named) => return 128 + named.name().len() + memory_of_received(named.value(), of_reference),
        _ => 0,
    };
    inner + size_of::<Value>()
}
