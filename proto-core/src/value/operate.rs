//! Operations on values (OPS-5): what a pipelined call does whose answer settled to a value.

use super::{Value, Values};
use crate::message::{ErrorCode, Op};

/// What an operation on a value gives.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'f> {
    /// A part of the value, or all of it.
    Value(Value<'f>),
    /// A string of one character.
    Char(char),
    /// A number.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// The text form: the value's [`Display`](core::fmt::Display), exact (quoted) if true.
    Text(Value<'f>, bool),
    /// An exception by name, about this key.
    Raise(&'static str, Value<'f>),
}

/// Performs an operation on a value. What a value cannot do is `Unsupported` (OPS-1).
pub fn operate<'f>(receiver: Value<'f>, op: Op, args: Values<'f>) -> Result<Outcome<'f>, ErrorCode> {
    let mut operands = args.positional();
    let (first, second) = (operands.next(), operands.next());
    let expected = match op {
        Op::Length | Op::Force => 0,
        Op::Text => usize::from(first.is_some()),
        Op::GetItem | Op::Contains | Op::Equals => 1,
        _ => return Err(ErrorCode::Unsupported),
    };
    if args.len() != expected || second.is_some() {
        return Err(ErrorCode::BadArguments);
    }
    Ok(match (op, first) {
        (Op::Length, _) => Outcome::Int(length(receiver)?),
        (Op::Force, _) => Outcome::Value(receiver),
        (Op::Text, exact) => Outcome::Text(receiver, matches!(exact, Some(Value::Bool(true)))),
        (Op::GetItem, Some(key)) => item(receiver, key)?,
        (Op::Contains, Some(wanted)) => Outcome::Bool(contains(receiver, wanted)?),
        (Op::Equals, Some(other)) => Outcome::Bool(same(receiver, other)),
        _ => return Err(ErrorCode::BadArguments),
    })
}

fn length(receiver: Value<'_>) -> Result<i64, ErrorCode> {
    Ok(match receiver {
        Value::Str(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Tuple(items) | Value::List(items) | Value::Set(items) => items.len(),
        Value::Map(entries) => entries.len() / 2,
        _ => return Err(ErrorCode::Unsupported),
    } as i64)
}

fn item<'f>(receiver: Value<'f>, key: Value<'f>) -> Result<Outcome<'f>, ErrorCode> {
    if let Value::Map(mut entries) = receiver {
        while let (Some(candidate), Some(value)) = (entries.next(), entries.next()) {
            if same(candidate, key) {
                return Ok(Outcome::Value(value));
            }
        }
        return Ok(Outcome::Raise("KeyError", key));
    }
    let length = match receiver {
        Value::Str(_) | Value::Bytes(_) | Value::Tuple(_) | Value::List(_) => length(receiver)?,
        _ => return Err(ErrorCode::Unsupported),
    };
    let Value::Int(index) = key else {
        return Err(ErrorCode::BadArguments);
    };
    let place = if index < 0 { index.saturating_add(length) } else { index };
    let found = usize::try_from(place).ok().and_then(|place| match receiver {
        Value::Str(text) => text.chars().nth(place).map(Outcome::Char),
        Value::Bytes(bytes) => bytes.get(place).map(|&byte| Outcome::Int(byte.into())),
        Value::Tuple(mut items) | Value::List(mut items) => items.nth(place).map(Outcome::Value),
        _ => None,
    });
    Ok(found.unwrap_or(Outcome::Raise("IndexError", key)))
}

fn contains(receiver: Value<'_>, wanted: Value<'_>) -> Result<bool, ErrorCode> {
    Ok(match (receiver, wanted) {
        (Value::Str(text), Value::Str(part)) => text.contains(part),
        (Value::Bytes(bytes), Value::Int(byte)) => bytes.iter().any(|&have| i64::from(have) == byte),
        (Value::Tuple(mut items) | Value::List(mut items) | Value::Set(mut items), wanted) => {
            items.any(|item| same(item, wanted))
        }
        (Value::Map(entries), wanted) => entries.step_by(2).any(|key| same(key, wanted)),
        _ => return Err(ErrorCode::Unsupported),
    })
}

/// Equality of values is equality of their encodings; references are nobody's equals here.
fn same(left: Value<'_>, right: Value<'_>) -> bool {
    match (left, right) {
        (Value::None, Value::None) | (Value::NotImplemented, Value::NotImplemented) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::Int(left), Value::Int(right)) => left == right,
        (Value::BigInt(left), Value::BigInt(right)) => left == right,
        (Value::Float(left), Value::Float(right)) => left.to_bits() == right.to_bits(),
        (Value::Str(left), Value::Str(right)) => left == right,
        (Value::Bytes(left), Value::Bytes(right)) => left == right,
        (Value::Tuple(left), Value::Tuple(right))
        | (Value::List(left), Value::List(right))
        | (Value::Set(left), Value::Set(right))
        | (Value::Map(left), Value::Map(right)) => {
            left.len() == right.len() && left.zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Exception(left), Value::Exception(right)) => {
            let tracebacks = left.traceback().or(right.traceback());
            (left.name(), left.text(), None) == (right.name(), right.text(), tracebacks)
                && same(Value::Tuple(left.args()), Value::Tuple(right.args()))
        }
        _ => false,
    }
}
