//! The value model and its one encoding (SPEC section 8).
//!
//! Received values are borrowed from the message: [`Values::check`] validates a run in one pass, after which walking it
//! cannot fail. Values are written with a [`ValueWriter`], which refuses whatever a receiver would refuse.

mod nest;
mod operate;
#[cfg(feature = "alloc")]
mod owned;
mod read;
mod text;
mod write;

pub use nest::{MAX_DEPTH, Top};
pub use operate::{Outcome, operate};
#[cfg(feature = "alloc")]
pub use owned::{Exception as OwnedException, OwnedValue};
pub use read::Values;
pub use write::{ValueError, ValueWriter};

use crate::codec::SHORTCUTS;

/// Tag bytes; the folded ranges are given by their first and last.
pub(crate) mod tag {
    pub const NONE: u8 = 0x00;
    pub const FALSE: u8 = 0x01;
    pub const TRUE: u8 = 0x02;
    pub const NOT_IMPLEMENTED: u8 = 0x03;
    pub const INT: u8 = 0x04;
    pub const BIG_INT: u8 = 0x05;
    pub const FLOAT: u8 = 0x06;
    pub const STRING: u8 = 0x07;
    pub const BYTES: u8 = 0x08;
    pub const TUPLE: u8 = 0x09;
    pub const LIST: u8 = 0x0A;
    pub const SET: u8 = 0x0B;
    pub const MAP: u8 = 0x0C;
    pub const REFERENCE: u8 = 0x0D;
    pub const EXCEPTION: u8 = 0x0E;
    pub const NAMED: u8 = 0x0F;
    pub const SHORT_STRING: u8 = 0x40;
    pub const SHORT_STRING_END: u8 = 0x5F;
    pub const SHORT_TUPLE: u8 = 0x60;
    pub const SHORT_TUPLE_END: u8 = 0x6F;
    pub const SMALL_NEGATIVE: u8 = 0x70;
    pub const SMALL: u8 = 0x80;
}

/// The only NaN (VAL-2).
pub(crate) const NAN_BITS: u64 = 0x7FF8_0000_0000_0000;

/// One value, borrowed from the message that carries it.
#[derive(Clone, Copy, Debug)]
pub enum Value<'f> {
    /// Nothing.
    None,
    /// A truth value.
    Bool(bool),
    /// The answer of an operation that does not know its operand, as in Python.
    NotImplemented,
    /// An integer within 64 bits.
    Int(i64),
    /// An integer beyond 64 bits.
    BigInt(BigInt<'f>),
    /// A float.
    Float(f64),
    /// Text.
    Str(&'f str),
    /// Bytes.
    Bytes(&'f [u8]),
    /// An immutable sequence.
    Tuple(Values<'f>),
    /// The contents of a list, without its identity: containers travel as references (VAL-5).
    List(Values<'f>),
    /// The contents of a set, without its identity.
    Set(Values<'f>),
    /// The contents of a map, without its identity: key, value, key, value …
    Map(Values<'f>),
    /// Entry number so many of the message's handles.
    Reference(u32),
    /// An exception.
    Exception(Exception<'f>),
    /// A named argument.
    Named(Named<'f>),
}

impl<'f> Value<'f> {
    /// The text, if it is a string.
    pub fn as_str(self) -> Option<&'f str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }
}

/// An integer beyond 64 bits: sign and magnitude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BigInt<'f> {
    /// Whether it is below zero.
    pub negative: bool,
    /// The magnitude, least significant byte first, the last byte not 0.
    pub magnitude: &'f [u8],
}

impl BigInt<'_> {
    /// Whether the number is canonical: beyond 64 bits and without leading zeros (VAL-1).
    pub(crate) fn is_canonical(&self) -> bool {
        let Some((&last, low)) = self.magnitude.split_last() else {
            return false;
        };
        match low.len() {
            0..=6 => false,
            // Eight bytes: beyond i64 from 2^63 on, but -2^63 itself still fits.
            7 => last > 0x80 || last == 0x80 && (!self.negative || low.iter().any(|&byte| byte != 0)),
            _ => last != 0,
        }
    }
}

/// Whether two names are the same. Where flash is little this does without the fast way to compare memory, for which nothing else
/// there has a use.
#[cfg_attr(not(feature = "alloc"), inline(never))]
pub(crate) fn is_same_name(left: &str, right: &str) -> bool {
    if SHORTCUTS {
        left == right
    } else {
        left.len() == right.len() && left.bytes().zip(right.bytes()).all(|(left, right)| left == right)
    }
}

/// An exception by name, with exact arguments: a run of four values (VAL-7).
#[derive(Clone, Copy, Debug)]
pub struct Exception<'f>(Values<'f>);

impl<'f> Exception<'f> {
    /// The path of its class, such as `KeyError`.
    pub fn name(&self) -> &'f str {
        self.0.first().and_then(Value::as_str).unwrap_or_default()
    }

    /// Its arguments.
    pub fn args(&self) -> Values<'f> {
        if let Some(Value::Tuple(args)) = self.0.at(1) { args } else { Values::default() }
    }

    /// A text for people, where there is one.
    pub fn text(&self) -> Option<&'f str> {
        self.0.at(2).and_then(Value::as_str)
    }

    /// The entry of the handle list that is its traceback, where there is one.
    pub fn traceback(&self) -> Option<u32> {
        if let Some(Value::Reference(index)) = self.0.at(3) { Some(index) } else { None }
    }
}

/// A named argument: a run of two values (VAL-8).
#[derive(Clone, Copy, Debug)]
pub struct Named<'f>(Values<'f>);

impl<'f> Named<'f> {
    /// Its name.
    pub fn name(&self) -> &'f str {
        self.0.first().and_then(Value::as_str).unwrap_or_default()
    }

    /// Its value.
    pub fn value(&self) -> Value<'f> {
        self.0.at(1).unwrap_or(Value::None)
    }
}

#[cfg(test)]
mod tests;
