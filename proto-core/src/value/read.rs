//! Received values: one validating pass, then a walk that cannot fail.

use core::{fmt, str};

use super::nest::{Class, Nest};
use super::{BigInt, Exception, NAN_BITS, Top, Value, tag};
use crate::codec::{Malformed, Reader};

/// A run of validated values, still in the message.
#[derive(Clone, Copy, Default)]
pub struct Values<'f> {
    bytes: &'f [u8],
    count: u32,
}

impl<'f> Values<'f> {
    /// Validates a run of values in one pass, without recursion (VAL-9): tags, canonical forms (VAL-1, VAL-2, VAL-3),
    /// nesting (VAL-4) and references to a list of `handles` entries (VAL-6).
    pub fn check(bytes: &'f [u8], top: Top, handles: u32) -> Result<Self, Malformed> {
        // What most messages hold: nothing, or one value that its tag tells and that may stand anywhere.
        match *bytes {
            [] if top != Top::One => return Ok(Self { bytes, count: 0 }),
            [tag::FALSE..=tag::NOT_IMPLEMENTED | tag::SMALL_NEGATIVE..] => return Ok(Self { bytes, count: 1 }),
            _ => {}
        }
        let mut reader = Reader::new(bytes);
        let mut nest = Nest::new(top);
        while !reader.is_empty() {
            let (class, items) = check_one(&mut reader, handles);
            nest.value(class, items)?;
        }
        reader.expect(nest.is_complete());
        reader.check().map(|()| Self { bytes, count: nest.count() })
    }

    /// How many values are left. A map has two for each entry.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The encoded values. Two runs are the same values if and only if they are the same bytes, references aside.
    pub fn as_bytes(&self) -> &'f [u8] {
        self.bytes
    }

    /// The first value, where there is one.
    pub fn first(&self) -> Option<Value<'f>> {
        { *self }.next()
    }

    /// The value of the named argument, where there is one.
    pub fn named(&self, wanted: &str) -> Option<Value<'f>> {
        { *self }.find_map(|value| match value {
            Value::Named(name, value) if name == wanted => value.first(),
            _ => None,
        })
    }

    /// The values before the first named argument.
    pub fn positional(&self) -> impl Iterator<Item = Value<'f>> + use<'f> {
        self.take_while(|value| !matches!(value, Value::Named(..)))
    }
}

impl<'f> Iterator for Values<'f> {
    type Item = Value<'f>;

    fn next(&mut self) -> Option<Value<'f>> {
        self.count = self.count.checked_sub(1)?;
        // Small integers, negative ones included, are their tag.
        if let Some((&head @ tag::SMALL_NEGATIVE.., rest)) = self.bytes.split_first() {
            self.bytes = rest;
            return Some(Value::Int(i64::from(head) - i64::from(tag::SMALL)));
        }
        // The run was validated, so reading succeeds.
        let mut reader = Reader::new(self.bytes);
        let value = read_one(&mut reader);
        self.bytes = reader.rest();
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for Values<'_> {}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(*self).finish()
    }
}

/// What stands at the cursor: a value up to its first item, not checked.
enum Token<'f> {
    /// A value that its tag tells, and that cannot be wrong.
    Folded(Value<'f>),
    Int(i64),
    BigInt(BigInt<'f>),
    Float(u64),
    Str {
        bytes: &'f [u8],
        folded: bool,
    },
    Bytes(&'f [u8]),
    Reference(u32),
    Tuple {
        count: u32,
        folded: bool,
    },
    List(u32),
    Set(u32),
    /// With the number of its entries.
    Map(u32),
    Exception,
    Named,
}

impl<'f> Token<'f> {
    /// The only place that knows the tags.
    fn read(reader: &mut Reader<'f>) -> Self {
        let head = reader.byte();
        match head {
            tag::NONE => Self::Folded(Value::None),
            tag::FALSE => Self::Folded(Value::Bool(false)),
            tag::TRUE => Self::Folded(Value::Bool(true)),
            tag::NOT_IMPLEMENTED => Self::Folded(Value::NotImplemented),
            tag::INT => Self::Int(unzigzag(reader.varint())),
            tag::BIG_INT => {
                let head = reader.varint();
                let length = usize::try_from(head >> 1).unwrap_or(usize::MAX);
                Self::BigInt(BigInt { negative: head & 1 == 1, magnitude: reader.take(length) })
            }
            tag::FLOAT => Self::Float(u64::from_le_bytes(reader.array())),
            tag::STRING => Self::Str { bytes: reader.blob(), folded: false },
            tag::SHORT_STRING..=tag::SHORT_STRING_END => {
                Self::Str { bytes: reader.take(usize::from(head - tag::SHORT_STRING)), folded: true }
            }
            tag::BYTES => Self::Bytes(reader.blob()),
            tag::TUPLE => Self::Tuple { count: reader.varint_u32(), folded: false },
            tag::SHORT_TUPLE..=tag::SHORT_TUPLE_END => {
                Self::Tuple { count: u32::from(head - tag::SHORT_TUPLE), folded: true }
            }
            tag::LIST => Self::List(reader.varint_u32()),
            tag::SET => Self::Set(reader.varint_u32()),
            tag::MAP => Self::Map(reader.varint_u32()),
            tag::REFERENCE => Self::Reference(reader.varint_u32()),
            tag::EXCEPTION => Self::Exception,
            tag::NAMED => Self::Named,
            tag::SMALL_NEGATIVE..=tag::SMALL_NEGATIVE_END => Self::Folded(Value::Int(i64::from(head) - 0x80)),
            tag::SMALL.. => Self::Folded(Value::Int(i64::from(head - tag::SMALL))),
            _ => {
                reader.fail::<()>();
                Self::Folded(Value::None)
            }
        }
    }

    /// How many values follow that are part of this one.
    fn items(&self) -> u32 {
        match *self {
            Self::Tuple { count, .. } | Self::List(count) | Self::Set(count) => count,
            // More than any message holds is as good as too many.
            Self::Map(entries) => entries.saturating_mul(2),
            Self::Exception => 4,
            Self::Named => 2,
            _ => 0,
        }
    }
}

/// Checks the value at the cursor up to its first item, and tells its class and how many items follow.
fn check_one(reader: &mut Reader<'_>, handles: u32) -> (Class, u32) {
    let token = Token::read(reader);
    let (class, canonical) = match token {
        Token::Folded(Value::None) => (Class::None, true),
        Token::Folded(_) | Token::Bytes(_) | Token::List(_) | Token::Set(_) | Token::Map(_) => (Class::Other, true),
        Token::Int(value) => (Class::Other, !(-16..=127).contains(&value)),
        Token::BigInt(value) => (Class::Other, value.is_canonical()),
        Token::Float(bits) => (Class::Other, bits == NAN_BITS || !f64::from_bits(bits).is_nan()),
        Token::Str { bytes, folded } => (Class::Str, (folded || bytes.len() >= 32) && str::from_utf8(bytes).is_ok()),
        Token::Tuple { count, folded } => (Class::Tuple, folded || count >= 16),
        Token::Reference(index) => (Class::Reference, index < handles),
        Token::Exception => (Class::Exception, true),
        Token::Named => (Class::Named, true),
    };
    let items = token.items();
    // Each item needs a byte at least: no more are promised than the message can hold.
    reader.expect(canonical && items as usize <= reader.rest().len());
    (class, items)
}

/// Reads the whole validated value at the cursor.
fn read_one<'f>(reader: &mut Reader<'f>) -> Value<'f> {
    let token = match Token::read(reader) {
        Token::Folded(value) => return value,
        token => token,
    };
    let mut items = take_values(reader, token.items());
    match token {
        Token::Folded(value) => value,
        Token::Int(value) => Value::Int(value),
        Token::BigInt(value) => Value::BigInt(value),
        Token::Float(bits) => Value::Float(f64::from_bits(bits)),
        Token::Str { bytes, .. } => Value::Str(str::from_utf8(bytes).unwrap_or_default()),
        Token::Bytes(bytes) => Value::Bytes(bytes),
        Token::Reference(index) => Value::Reference(index),
        Token::Tuple { .. } => Value::Tuple(items),
        Token::List(_) => Value::List(items),
        Token::Set(_) => Value::Set(items),
        Token::Map(_) => Value::Map(items),
        Token::Exception => match (items.next(), items.next(), items.next(), items.next()) {
            (Some(Value::Str(name)), Some(Value::Tuple(args)), Some(text), Some(traceback)) => {
                Value::Exception(Exception {
                    name,
                    args,
                    text: if let Value::Str(text) = text { Some(text) } else { None },
                    traceback: if let Value::Reference(index) = traceback { Some(index) } else { None },
                })
            }
            _ => Value::None,
        },
        Token::Named => match items.next() {
            Some(Value::Str(name)) => Value::Named(name, items),
            _ => Value::None,
        },
    }
}

/// Takes `count` values off the cursor, with all their items: a skip without recursion.
fn take_values<'f>(reader: &mut Reader<'f>, count: u32) -> Values<'f> {
    let start = reader.rest();
    let mut owed = u64::from(count);
    while owed > 0 && !reader.is_empty() {
        owed = owed - 1 + u64::from(Token::read(reader).items());
    }
    let length = start.len() - reader.rest().len();
    Values { bytes: start.get(..length).unwrap_or_default(), count }
}

fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}
