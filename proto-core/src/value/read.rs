//! Received values: one validating pass, then a walk that cannot fail.

use core::{fmt, str};

use super::nest::Nest;
use super::{BigInt, Exception, NAN_BITS, Named, Top, Value, is_same_name, tag};
use crate::codec::{Malformed, Reader, SHORTCUTS};

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
            _ if !SHORTCUTS => {}
            [] if top != Top::One => return Ok(Self { bytes, count: 0 }),
            [tag::FALSE..=tag::NOT_IMPLEMENTED | tag::SMALL_NEGATIVE..] => return Ok(Self { bytes, count: 1 }),
            _ => {}
        }
        let mut cursor = Cursor::new(bytes);
        let mut nest = Nest::new(top);
        let mut count = 0;
        while !cursor.reader.is_empty() {
            cursor.step();
            // Each item needs a byte at least: no more are promised than the message can hold.
            let is_whole = cursor.items as usize <= cursor.reader.rest().len();
            if !is_whole || !cursor.is_canonical(handles) {
                return Err(Malformed);
            }
            count += u32::from(nest.is_at_top());
            nest.value(cursor.tag, cursor.items)?;
        }
        if !nest.is_complete() {
            return Err(Malformed);
        }
        cursor.reader.check().map(|()| Self { bytes, count })
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

    /// Value number `place`.
    pub(super) fn at(&self, place: usize) -> Option<Value<'f>> {
        { *self }.nth(place)
    }

    /// The value of the named argument, where there is one.
    pub fn named(&self, wanted: &str) -> Option<Value<'f>> {
        { *self }.find_map(|value| match value {
            Value::Named(named) if is_same_name(named.name(), wanted) => Some(named.value()),
            _ => None,
        })
    }

    /// The values before the first named argument.
    pub fn positional(&self) -> impl Iterator<Item = Value<'f>> + use<'f> {
        self.take_while(|value| !matches!(value, Value::Named(_)))
    }
}

impl<'f> Iterator for Values<'f> {
    type Item = Value<'f>;

    fn next(&mut self) -> Option<Value<'f>> {
        self.count = self.count.checked_sub(1)?;
        // Small integers, negative ones included, are their tag.
        if SHORTCUTS && let Some((&head @ tag::SMALL_NEGATIVE.., rest)) = self.bytes.split_first() {
            self.bytes = rest;
            return Some(Value::Int(i64::from(head) - i64::from(tag::SMALL)));
        }
        // The run was validated, so reading succeeds.
        let value;
        (value, self.bytes) = read_one(self.bytes);
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

/// Goes from value to value, into those that have items: after a [`Self::step`] it tells of the value that was stepped on.
struct Cursor<'f> {
    reader: Reader<'f>,
    /// What it is: a tag that is not folded.
    tag: u8,
    /// Whether its number or length stood in the tag.
    folded: bool,
    /// An integer, the bits of a float, an entry of the list of handles, or the head of a magnitude.
    number: u64,
    /// Of text, bytes, or a magnitude.
    bytes: &'f [u8],
    /// How many values follow that are part of it.
    items: u32,
}

impl<'f> Cursor<'f> {
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    fn new(bytes: &'f [u8]) -> Self {
        Self { reader: Reader::new(bytes), tag: tag::NONE, folded: false, number: 0, bytes: &[], items: 0 }
    }

    /// The only place that knows the tags.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    fn step(&mut self) {
        let reader = &mut self.reader;
        let head = reader.byte();
        (self.tag, self.folded, self.items) = (head, head >= tag::SHORT_STRING, 0);
        match head {
            tag::NONE..=tag::NOT_IMPLEMENTED => {}
            tag::INT => self.number = unzigzag(reader.varint()),
            tag::BIG_INT => {
                self.number = reader.varint();
                self.bytes = reader.take(usize::try_from(self.number >> 1).unwrap_or(usize::MAX));
            }
            tag::FLOAT => self.number = u64::from_le_bytes(reader.array()),
            tag::STRING | tag::BYTES => self.bytes = reader.blob(),
            tag::TUPLE..=tag::SET => self.items = reader.varint_u32(),
            // More than any message holds is as good as too many.
            tag::MAP => self.items = reader.varint_u32().saturating_mul(2),
            tag::REFERENCE => self.number = reader.varint_u32().into(),
            tag::EXCEPTION => self.items = 4,
            tag::NAMED => self.items = 2,
            tag::SHORT_STRING..=tag::SHORT_STRING_END => {
                self.tag = tag::STRING;
                self.bytes = reader.take(usize::from(head - tag::SHORT_STRING));
            }
            tag::SHORT_TUPLE..=tag::SHORT_TUPLE_END => {
                (self.tag, self.items) = (tag::TUPLE, u32::from(head - tag::SHORT_TUPLE));
            }
            tag::SMALL_NEGATIVE.. => {
                self.tag = tag::INT;
                self.number = i64::from(head).wrapping_sub(tag::SMALL.into()) as u64;
            }
            _ => reader.fail(),
        }
    }

    /// Steps over so many values and all that is in them, without recursion.
    fn skip(&mut self, count: u32) {
        let mut owed = count;
        while owed > 0 && !self.reader.is_empty() {
            self.step();
            owed = (owed - 1).saturating_add(self.items);
        }
    }

    fn big_int(&self) -> BigInt<'f> {
        BigInt { negative: self.number & 1 == 1, magnitude: self.bytes }
    }

    /// Whether it is the one form of a value that there can be, in a message with so many handles.
    fn is_canonical(&self, handles: u32) -> bool {
        match self.tag {
            tag::INT => self.folded || !(-16..=127).contains(&(self.number as i64)),
            tag::BIG_INT => self.big_int().is_canonical(),
            tag::FLOAT => self.number == NAN_BITS || !is_nan(self.number),
            tag::STRING => (self.folded || self.bytes.len() >= 32) && str::from_utf8(self.bytes).is_ok(),
            tag::TUPLE => self.folded || self.items >= 16,
            tag::REFERENCE => self.number < handles.into(),
            _ => true,
        }
    }
}

/// Reads the whole validated value at the beginning, and gives what is behind it.
fn read_one(bytes: &[u8]) -> (Value<'_>, &[u8]) {
    let mut cursor = Cursor::new(bytes);
    cursor.step();
    let inside = cursor.reader.rest();
    let mut end = Cursor::new(inside);
    end.skip(cursor.items);
    let behind = end.reader.rest();
    let inside = inside.get(..inside.len() - behind.len()).unwrap_or_default();
    let items = Values { bytes: inside, count: cursor.items };
    let value = match cursor.tag {
        tag::FALSE => Value::Bool(false),
        tag::TRUE => Value::Bool(true),
        tag::NOT_IMPLEMENTED => Value::NotImplemented,
        tag::INT => Value::Int(cursor.number as i64),
        tag::BIG_INT => Value::BigInt(cursor.big_int()),
        tag::FLOAT => Value::Float(f64::from_bits(cursor.number)),
        tag::STRING => Value::Str(str::from_utf8(cursor.bytes).unwrap_or_default()),
        tag::BYTES => Value::Bytes(cursor.bytes),
        tag::REFERENCE => Value::Reference(cursor.number as u32),
        tag::TUPLE => Value::Tuple(items),
        tag::LIST => Value::List(items),
        tag::SET => Value::Set(items),
        tag::MAP => Value::Map(items),
        tag::EXCEPTION => Value::Exception(Exception(items)),
        tag::NAMED => Value::Named(Named(items)),
        _ => Value::None,
    };
    (value, behind)
}

fn unzigzag(raw: u64) -> u64 {
    raw >> 1 ^ (raw & 1).wrapping_neg()
}

/// Of the bits of a float; what the compiler has for it is a function of its own on chips that have no floats.
fn is_nan(bits: u64) -> bool {
    bits << 1 > f64::INFINITY.to_bits() << 1
}
