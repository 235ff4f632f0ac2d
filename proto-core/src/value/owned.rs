//! Values that outlive their message, for hosts (feature `alloc`).

use alloc::{boxed::Box, string::String, vec::Vec};
use core::fmt;

use super::{BigInt, Value, ValueError, ValueWriter, Values};

/// A value of its own; `R` is what the host uses for references.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are those of Value")]
pub enum OwnedValue<R> {
    None,
    Bool(bool),
    NotImplemented,
    Int(i64),
    /// Sign and magnitude, as in [`BigInt`].
    BigInt(bool, Vec<u8>),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    Tuple(Vec<Self>),
    List(Vec<Self>),
    Set(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Reference(R),
    /// In a box: it is rare, and without it every value takes three times as much.
    Exception(Box<Exception<R>>),
}

/// An exception by name with exact arguments (VAL-7).
#[derive(Clone, Debug, PartialEq)]
pub struct Exception<R> {
    /// The path of its class, such as `KeyError`.
    pub name: String,
    /// Its arguments.
    pub args: Vec<OwnedValue<R>>,
    /// A text for people, where there is one.
    pub text: Option<String>,
    /// Its traceback, where there is one.
    pub traceback: Option<R>,
}

impl<R> OwnedValue<R> {
    /// Copies a received value; `resolve` turns an entry of the message's handle list into a reference.
    ///
    /// A named argument becomes its value.
    pub fn new(value: Value<'_>, resolve: &mut impl FnMut(u32) -> R) -> Self {
        Self::substitute(value, &mut |index| Self::Reference(resolve(index)))
    }

    /// Copies a received value; `resolve` gives what stands in the place of a reference: a handle may name an answer that
    /// settled to a value.
    pub fn substitute(value: Value<'_>, resolve: &mut impl FnMut(u32) -> Self) -> Self {
        fn all<R>(values: Values<'_>, resolve: &mut impl FnMut(u32) -> OwnedValue<R>) -> Vec<OwnedValue<R>> {
            // No more room than there are values: `collect` makes room for four, and a peer may send many tuples of one.
            let mut all = Vec::with_capacity(values.len());
            all.extend(values.map(|value| OwnedValue::substitute(value, resolve)));
            all
        }
        match value {
            Value::None => Self::None,
            Value::Bool(value) => Self::Bool(value),
            Value::NotImplemented => Self::NotImplemented,
            Value::Int(value) => Self::Int(value),
            Value::BigInt(value) => Self::BigInt(value.negative, value.magnitude.into()),
            Value::Float(value) => Self::Float(value),
            Value::Str(value) => Self::Str(value.into()),
            Value::Bytes(value) => Self::Bytes(value.into()),
            Value::Tuple(items) => Self::Tuple(all(items, resolve)),
            Value::List(items) => Self::List(all(items, resolve)),
            Value::Set(items) => Self::Set(all(items, resolve)),
            Value::Map(mut entries) => {
                let mut map = Vec::with_capacity(entries.len() / 2);
                while let (Some(key), Some(value)) = (entries.next(), entries.next()) {
                    map.push((Self::substitute(key, resolve), Self::substitute(value, resolve)));
                }
                Self::Map(map)
            }
            Value::Reference(index) => resolve(index),
            Value::Exception(exception) => Self::Exception(Box::new(Exception {
                name: exception.name().into(),
                args: all(exception.args(), resolve),
                text: exception.text().map(Into::into),
                traceback: match exception.traceback().map(resolve) {
                    Some(Self::Reference(traceback)) => Some(traceback),
                    _ => None,
                },
            })),
            Value::Named(named) => Self::substitute(named.value(), resolve),
        }
    }

    /// Calls `visit` for each reference, in the order in which [`Self::write`] numbers them.
    pub fn each_reference<'v>(&'v self, visit: &mut impl FnMut(&'v R)) {
        match self {
            Self::Tuple(items) | Self::List(items) | Self::Set(items) => {
                items.iter().for_each(|item| item.each_reference(visit));
            }
            Self::Map(entries) => entries.iter().for_each(|(key, value)| {
                key.each_reference(visit);
                value.each_reference(visit);
            }),
            Self::Reference(reference) => visit(reference),
            Self::Exception(exception) => {
                exception.args.iter().for_each(|item| item.each_reference(visit));
                exception.traceback.iter().for_each(visit);
            }
            _ => {}
        }
    }

    /// Writes the value; its references get the numbers from `next` on, and `next` goes up by their count.
    pub fn write(&self, writer: &mut ValueWriter<'_>, next: &mut usize) -> Result<(), ValueError> {
        let number = |next: &mut usize| {
            *next += 1;
            *next - 1
        };
        match self {
            Self::None => writer.none(),
            Self::Bool(value) => writer.bool(*value),
            Self::NotImplemented => writer.not_implemented(),
            Self::Int(value) => writer.int(*value),
            Self::BigInt(negative, magnitude) => writer.big_int(BigInt { negative: *negative, magnitude }),
            Self::Float(value) => writer.float(*value),
            Self::Str(value) => writer.str(value),
            Self::Bytes(value) => writer.bytes(value),
            Self::Tuple(items) => {
                writer.tuple(items.len())?;
                items.iter().try_for_each(|item| item.write(writer, next))
            }
            Self::List(items) => {
                writer.list(items.len())?;
                items.iter().try_for_each(|item| item.write(writer, next))
            }
            Self::Set(items) => {
                writer.set(items.len())?;
                items.iter().try_for_each(|item| item.write(writer, next))
            }
            Self::Map(entries) => {
                writer.map(entries.len())?;
                entries.iter().try_for_each(|(key, value)| {
                    key.write(writer, next)?;
                    value.write(writer, next)
                })
            }
            Self::Reference(_) => writer.reference(number(next)),
            Self::Exception(exception) => {
                writer.exception_head(&exception.name, exception.args.len())?;
                exception.args.iter().try_for_each(|item| item.write(writer, next))?;
                let traceback = exception.traceback.as_ref().map(|_| number(next));
                writer.exception_tail(exception.text.as_deref(), traceback)
            }
        }
    }

    /// The integer, if it is one within 64 bits.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(value) = self { Some(*value) } else { None }
    }

    /// The text, if it is a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(value) = self { Some(value) } else { None }
    }

    /// The reference, if it is one.
    pub fn as_reference(&self) -> Option<&R> {
        if let Self::Reference(reference) = self { Some(reference) } else { None }
    }
}

/// As a traceback's last line would say it.
impl<R: fmt::Debug> fmt::Display for Exception<R> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        match (&self.text, self.args.as_slice()) {
            (Some(text), _) => write!(out, ": {text}"),
            (None, []) => Ok(()),
            (None, [OwnedValue::Str(text)]) => write!(out, ": {text}"),
            (None, args) => write!(out, ": {args:?}"),
        }
    }
}

impl<R> From<&str> for OwnedValue<R> {
    fn from(value: &str) -> Self {
        Self::Str(value.into())
    }
}

impl<R> From<String> for OwnedValue<R> {
    fn from(value: String) -> Self {
        Self::Str(value)
    }
}

impl<R> From<i64> for OwnedValue<R> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<R> From<bool> for OwnedValue<R> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl<R> From<f64> for OwnedValue<R> {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}
