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
        let mut reader = Reader::new(bytes);
        let mut nest = Nest::new(top);
        while !reader.is_empty() {
            let (class, items) = check_one(&mut reader, handles)?;
            nest.value(class, items)?;
        }
        if !nest.is_complete() {
            return Err(Malformed);
        }
        Ok(Self { bytes, count: nest.count() })
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
        let mut reader = Reader::new(self.bytes);
        // The run was validated, so reading succeeds; should it not, the walk ends here.
        let value = read_one(&mut reader).ok();
        self.bytes = reader.rest();
        if value.is_none() {
            self.count = 0;
        }
        value
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

/// Checks the value at the cursor up to its first item, and tells its class and how many items follow.
fn check_one(reader: &mut Reader<'_>, handles: u32) -> Result<(Class, u32), Malformed> {
    let head = reader.byte()?;
    Ok(match head {
        tag::NONE => (Class::None, 0),
        tag::FALSE | tag::TRUE | tag::NOT_IMPLEMENTED | tag::SMALL_NEGATIVE..=0xFF => (Class::Other, 0),
        tag::INT => {
            let value = unzigzag(reader.varint()?);
            if (-16..=127).contains(&value) {
                return Err(Malformed);
            }
            (Class::Other, 0)
        }
        tag::BIG_INT => {
            let value = read_big(reader)?;
            if !value.is_canonical() {
                return Err(Malformed);
            }
            (Class::Other, 0)
        }
        tag::FLOAT => {
            let bits = read_float_bits(reader)?;
            if f64::from_bits(bits).is_nan() && bits != NAN_BITS {
                return Err(Malformed);
            }
            (Class::Other, 0)
        }
        tag::STRING => {
            if reader.text()?.len() < 32 {
                return Err(Malformed);
            }
            (Class::Str, 0)
        }
        tag::SHORT_STRING..=tag::SHORT_STRING_END => {
            let bytes = reader.take(usize::from(head - tag::SHORT_STRING))?;
            str::from_utf8(bytes).map_err(|_| Malformed)?;
            (Class::Str, 0)
        }
        tag::BYTES => {
            reader.blob()?;
            (Class::Other, 0)
        }
        tag::TUPLE => match read_count(reader, 1)? {
            0..16 => return Err(Malformed),
            count => (Class::Tuple, count),
        },
        tag::SHORT_TUPLE..=tag::SHORT_TUPLE_END => (Class::Tuple, u32::from(head - tag::SHORT_TUPLE)),
        tag::LIST | tag::SET => (Class::Other, read_count(reader, 1)?),
        tag::MAP => (Class::Other, 2 * read_count(reader, 2)?),
        tag::REFERENCE => {
            if reader.varint_u32()? >= handles {
                return Err(Malformed);
            }
            (Class::Reference, 0)
        }
        tag::EXCEPTION => (Class::Exception, 4),
        tag::NAMED => (Class::Named, 2),
        _ => return Err(Malformed),
    })
}

/// A count of items, each of which needs at least `least` bytes of what is left.
fn read_count(reader: &mut Reader<'_>, least: usize) -> Result<u32, Malformed> {
    let count = reader.varint_u32()?;
    let room = reader.rest().len() / least;
    if usize::try_from(count).is_ok_and(|count| count <= room) && count <= u32::MAX / 2 {
        Ok(count)
    } else {
        Err(Malformed)
    }
}

/// Reads the whole validated value at the cursor.
fn read_one<'f>(reader: &mut Reader<'f>) -> Result<Value<'f>, Malformed> {
    let head = reader.byte()?;
    Ok(match head {
        tag::NONE => Value::None,
        tag::FALSE => Value::Bool(false),
        tag::TRUE => Value::Bool(true),
        tag::NOT_IMPLEMENTED => Value::NotImplemented,
        tag::INT => Value::Int(unzigzag(reader.varint()?)),
        tag::BIG_INT => Value::BigInt(read_big(reader)?),
        tag::FLOAT => Value::Float(f64::from_bits(read_float_bits(reader)?)),
        tag::STRING => Value::Str(reader.text()?),
        tag::SHORT_STRING..=tag::SHORT_STRING_END => {
            let bytes = reader.take(usize::from(head - tag::SHORT_STRING))?;
            Value::Str(str::from_utf8(bytes).map_err(|_| Malformed)?)
        }
        tag::BYTES => Value::Bytes(reader.blob()?),
        tag::TUPLE => {
            let count = reader.varint_u32()?;
            Value::Tuple(take_values(reader, count)?)
        }
        tag::SHORT_TUPLE..=tag::SHORT_TUPLE_END => {
            Value::Tuple(take_values(reader, u32::from(head - tag::SHORT_TUPLE))?)
        }
        tag::LIST => {
            let count = reader.varint_u32()?;
            Value::List(take_values(reader, count)?)
        }
        tag::SET => {
            let count = reader.varint_u32()?;
            Value::Set(take_values(reader, count)?)
        }
        tag::MAP => {
            let count = reader.varint_u32()?.checked_mul(2).ok_or(Malformed)?;
            Value::Map(take_values(reader, count)?)
        }
        tag::REFERENCE => Value::Reference(reader.varint_u32()?),
        tag::EXCEPTION => {
            let mut parts = take_values(reader, 4)?;
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(Value::Str(name)), Some(Value::Tuple(args)), Some(text), Some(traceback)) => {
                    Value::Exception(Exception {
                        name,
                        args,
                        text: if let Value::Str(text) = text { Some(text) } else { None },
                        traceback: if let Value::Reference(index) = traceback { Some(index) } else { None },
                    })
                }
                _ => return Err(Malformed),
            }
        }
        tag::NAMED => {
            let mut parts = take_values(reader, 2)?;
            match parts.next() {
                Some(Value::Str(name)) => Value::Named(name, parts),
                _ => return Err(Malformed),
            }
        }
        tag::SMALL_NEGATIVE..=tag::SMALL_NEGATIVE_END => Value::Int(i64::from(head) - 0x80),
        tag::SMALL.. => Value::Int(i64::from(head - tag::SMALL)),
        _ => return Err(Malformed),
    })
}

/// Takes `count` values off the cursor, with all their items: a skip without recursion.
fn take_values<'f>(reader: &mut Reader<'f>, count: u32) -> Result<Values<'f>, Malformed> {
    let start = reader.rest();
    let mut owed = u64::from(count);
    while owed > 0 {
        let items = skip_one(reader)?;
        owed = owed - 1 + u64::from(items);
    }
    let length = start.len() - reader.rest().len();
    Ok(Values { bytes: start.get(..length).unwrap_or_default(), count })
}

/// Steps over one validated value up to its first item.
fn skip_one(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    let head = reader.byte()?;
    let items = match head {
        tag::INT | tag::REFERENCE => {
            reader.varint()?;
            0
        }
        tag::BIG_INT => {
            read_big(reader)?;
            0
        }
        tag::FLOAT => {
            reader.take(8)?;
            0
        }
        tag::STRING | tag::BYTES => {
            reader.blob()?;
            0
        }
        tag::SHORT_STRING..=tag::SHORT_STRING_END => {
            reader.take(usize::from(head - tag::SHORT_STRING))?;
            0
        }
        tag::TUPLE | tag::LIST | tag::SET => reader.varint_u32()?,
        tag::MAP => reader.varint_u32()?.checked_mul(2).ok_or(Malformed)?,
        tag::SHORT_TUPLE..=tag::SHORT_TUPLE_END => u32::from(head - tag::SHORT_TUPLE),
        tag::EXCEPTION => 4,
        tag::NAMED => 2,
        _ => 0,
    };
    Ok(items)
}

fn read_big<'f>(reader: &mut Reader<'f>) -> Result<BigInt<'f>, Malformed> {
    let head = reader.varint()?;
    let length = usize::try_from(head >> 1).map_err(|_| Malformed)?;
    Ok(BigInt { negative: head & 1 == 1, magnitude: reader.take(length)? })
}

fn read_float_bits(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let bytes = reader.take(8)?;
    Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| Malformed)?))
}

fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}
