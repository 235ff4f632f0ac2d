//! Writing values straight into the outgoing message.

use super::nest::Nest;
use super::{BigInt, NAN_BITS, Top, Value, Values, tag};
use crate::codec::Writer;

/// A value cannot stand where it was written, or what was begun is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ValueError {
    /// A value where none is allowed: a second result, a named argument inside a value, a positional argument after a
    /// named one, nesting deeper than [`super::MAX_DEPTH`], or not what an exception wants at this place.
    Misplaced,
    /// A tuple, list, set, map, exception or named argument still lacks items.
    Incomplete,
    /// A reference to an entry that the list of references does not have.
    NoSuchReference,
    /// More items than 2³¹ − 1.
    TooMany,
    /// A big integer that fits 64 bits or has a leading zero byte.
    NotCanonical,
}

/// Writes values, each as its one encoding (VAL-1), and refuses what a receiver would refuse.
///
/// A value with items is begun with their number; the items follow by the same methods:
///
/// ```
/// use farref_core::codec::Writer;
/// use farref_core::value::{Top, ValueWriter};
///
/// let mut bytes = [0; 32];
/// let mut values = ValueWriter::new(Writer::new(&mut bytes), Top::Arguments, 0);
/// values.int(1)?;
/// values.tuple(2)?;
/// values.str("a")?;
/// values.bool(true)?;
/// assert_eq!(values.finish()?.written(), Some(&[0x81, 0x62, 0x41, b'a', 0x02][..]));
/// # Ok::<(), farref_core::value::ValueError>(())
/// ```
///
/// After an error the message is spoilt: whoever lent the writer throws it away.
#[derive(Debug)]
pub struct ValueWriter<'b> {
    writer: Writer<'b>,
    nest: Nest,
    references: u32,
    error: Option<ValueError>,
}

impl<'b> ValueWriter<'b> {
    /// Goes on after what `writer` holds; the message lists `references` handles.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn new(writer: Writer<'b>, top: Top, references: u32) -> Self {
        Self { writer, nest: Nest::new(top), references, error: None }
    }

    /// None. As a result it is written as no value at all (CAL-5).
    pub fn none(&mut self) -> Result<(), ValueError> {
        if self.error.is_none() && self.nest.absent_result() {
            return Ok(());
        }
        self.begin(tag::NONE, tag::NONE, 0)
    }

    /// A truth value.
    pub fn bool(&mut self, value: bool) -> Result<(), ValueError> {
        let tag = if value { tag::TRUE } else { tag::FALSE };
        self.begin(tag, tag, 0)
    }

    /// The value not-implemented.
    pub fn not_implemented(&mut self) -> Result<(), ValueError> {
        self.begin(tag::NOT_IMPLEMENTED, tag::NOT_IMPLEMENTED, 0)
    }

    /// An integer.
    pub fn int(&mut self, value: i64) -> Result<(), ValueError> {
        match value {
            -16..=127 => self.begin(tag::INT, tag::SMALL.wrapping_add(value as u8), 0),
            _ => {
                self.begin(tag::INT, tag::INT, 0)?;
                self.writer.varint(((value << 1) ^ (value >> 63)) as u64);
                Ok(())
            }
        }
    }

    /// An unsigned integer of any 64 bits.
    pub fn uint(&mut self, value: u64) -> Result<(), ValueError> {
        match i64::try_from(value) {
            Ok(value) => self.int(value),
            Err(_) => self.big_int(BigInt { negative: false, magnitude: &value.to_le_bytes() }),
        }
    }

    /// An integer beyond 64 bits.
    pub fn big_int(&mut self, value: BigInt<'_>) -> Result<(), ValueError> {
        if !value.is_canonical() {
            return self.fail(ValueError::NotCanonical);
        }
        self.begin(tag::BIG_INT, tag::BIG_INT, 0)?;
        self.writer.varint((value.magnitude.len() as u64) << 1 | u64::from(value.negative));
        self.writer.put(value.magnitude);
        Ok(())
    }

    /// A float. Every NaN becomes the one NaN (VAL-2).
    pub fn float(&mut self, value: f64) -> Result<(), ValueError> {
        self.begin(tag::FLOAT, tag::FLOAT, 0)?;
        let bits = if value.is_nan() { NAN_BITS } else { value.to_bits() };
        self.writer.put(&bits.to_le_bytes());
        Ok(())
    }

    /// Text.
    pub fn str(&mut self, value: &str) -> Result<(), ValueError> {
        self.string_head(value.len())?;
        self.writer.put(value.as_bytes());
        Ok(())
    }

    /// Text written by a formatter, for instance `format_args!`, without a buffer between.
    pub fn text(&mut self, text: core::fmt::Arguments<'_>) -> Result<(), ValueError> {
        struct Count(usize);
        impl core::fmt::Write for Count {
            fn write_str(&mut self, part: &str) -> core::fmt::Result {
                self.0 += part.len();
                Ok(())
            }
        }
        struct Put<'w, 'b>(&'w mut Writer<'b>);
        impl core::fmt::Write for Put<'_, '_> {
            fn write_str(&mut self, part: &str) -> core::fmt::Result {
                self.0.put(part.as_bytes());
                Ok(())
            }
        }
        let mut length = Count(0);
        let counted = core::fmt::write(&mut length, text);
        self.string_head(length.0)?;
        let start = self.writer.len();
        let written = core::fmt::write(&mut Put(&mut self.writer), text);
        // A formatter that fails or does not repeat itself would break the length that stands before its text.
        if counted.is_err() || written.is_err() || self.writer.len() - start != length.0 {
            return self.fail(ValueError::Incomplete);
        }
        Ok(())
    }

    /// Bytes.
    pub fn bytes(&mut self, value: &[u8]) -> Result<(), ValueError> {
        self.begin(tag::BYTES, tag::BYTES, 0)?;
        self.writer.blob(value);
        Ok(())
    }

    /// A tuple; its items follow.
    pub fn tuple(&mut self, items: usize) -> Result<(), ValueError> {
        let count = self.count(items)?;
        self.begin_sized(tag::TUPLE, (tag::SHORT_TUPLE, tag::SHORT_TUPLE_END), items, count)
    }

    /// The contents of a list; its items follow.
    pub fn list(&mut self, items: usize) -> Result<(), ValueError> {
        self.contents(tag::LIST, items, 1)
    }

    /// The contents of a set; its items follow.
    pub fn set(&mut self, items: usize) -> Result<(), ValueError> {
        self.contents(tag::SET, items, 1)
    }

    /// The contents of a map; key and value of each entry follow.
    pub fn map(&mut self, entries: usize) -> Result<(), ValueError> {
        self.contents(tag::MAP, entries, 2)
    }

    /// A reference: the entry of the list given with the message.
    pub fn reference(&mut self, index: usize) -> Result<(), ValueError> {
        match u32::try_from(index) {
            Ok(index) if index < self.references => {
                self.begin(tag::REFERENCE, tag::REFERENCE, 0)?;
                self.writer.varint(u64::from(index));
                Ok(())
            }
            _ => self.fail(ValueError::NoSuchReference),
        }
    }

    /// An exception: its arguments follow by `args`, in a tuple of `count`.
    pub fn exception(
        &mut self,
        name: &str,
        count: usize,
        args: impl FnOnce(&mut Self) -> Result<(), ValueError>,
        text: Option<&str>,
    ) -> Result<(), ValueError> {
        self.exception_head(name, count)?;
        args(self)?;
        self.exception_tail(text, None)
    }

    /// The beginning of an exception. `count` arguments follow, then [`Self::exception_tail`].
    pub fn exception_head(&mut self, name: &str, count: usize) -> Result<(), ValueError> {
        self.begin(tag::EXCEPTION, tag::EXCEPTION, 4)?;
        self.str(name)?;
        self.tuple(count)
    }

    /// The end of an exception: text, and the entry of the list of references that is the traceback.
    pub fn exception_tail(&mut self, text: Option<&str>, traceback: Option<usize>) -> Result<(), ValueError> {
        match text {
            Some(text) => self.str(text)?,
            None => self.none()?,
        }
        match traceback {
            Some(index) => self.reference(index),
            None => self.none(),
        }
    }

    /// A named argument; its value follows. Only after all positional ones (VAL-8).
    pub fn named(&mut self, name: &str) -> Result<(), ValueError> {
        self.begin(tag::NAMED, tag::NAMED, 2)?;
        self.str(name)
    }

    /// A received value, references and all: their indices are written as they are.
    pub fn copy(&mut self, value: Value<'_>) -> Result<(), ValueError> {
        let all = |writer: &mut Self, values: Values<'_>| values.into_iter().try_for_each(|value| writer.copy(value));
        match value {
            Value::None => self.none(),
            Value::Bool(value) => self.bool(value),
            Value::NotImplemented => self.not_implemented(),
            Value::Int(value) => self.int(value),
            Value::BigInt(value) => self.big_int(value),
            Value::Float(value) => self.float(value),
            Value::Str(value) => self.str(value),
            Value::Bytes(value) => self.bytes(value),
            Value::Reference(index) => self.reference(index as usize),
            Value::Tuple(items) => self.tuple(items.len()).and_then(|()| all(self, items)),
            Value::List(items) => self.list(items.len()).and_then(|()| all(self, items)),
            Value::Set(items) => self.set(items.len()).and_then(|()| all(self, items)),
            Value::Map(items) => self.map(items.len() / 2).and_then(|()| all(self, items)),
            Value::Exception(exception) => {
                self.exception_head(exception.name(), exception.args().len())?;
                all(self, exception.args())?;
                self.exception_tail(exception.text(), exception.traceback().map(|index| index as usize))
            }
            Value::Named(named) => self.named(named.name()).and_then(|()| self.copy(named.value())),
        }
    }

    /// Ends the run and gives the writer back.
    pub fn finish(self) -> Result<Writer<'b>, ValueError> {
        match self.error {
            Some(error) => Err(error),
            None if self.nest.is_complete() => Ok(self.writer),
            None => Err(ValueError::Incomplete),
        }
    }

    fn contents(&mut self, tag: u8, entries: usize, each: u32) -> Result<(), ValueError> {
        let count = self.count(entries)?;
        self.begin(tag, tag, count * each)?;
        self.writer.varint(entries as u64);
        Ok(())
    }

    fn string_head(&mut self, length: usize) -> Result<(), ValueError> {
        self.begin_sized(tag::STRING, (tag::SHORT_STRING, tag::SHORT_STRING_END), length, 0)
    }

    /// A length that is short enough is folded into the tag.
    fn begin_sized(&mut self, tag: u8, (first, last): (u8, u8), length: usize, items: u32) -> Result<(), ValueError> {
        if length <= usize::from(last - first) {
            return self.begin(tag, first | length as u8, items);
        }
        self.begin(tag, tag, items)?;
        self.writer.varint(length as u64);
        Ok(())
    }

    fn count(&mut self, items: usize) -> Result<u32, ValueError> {
        match u32::try_from(items) {
            Ok(count) if count <= u32::MAX / 2 => Ok(count),
            _ => self.fail(ValueError::TooMany),
        }
    }

    /// Begins a value of a tag that is not folded; `head` is what is written of it.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    fn begin(&mut self, tag: u8, head: u8, items: u32) -> Result<(), ValueError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.nest.value(tag, items).is_err() {
            return self.fail(ValueError::Misplaced);
        }
        self.writer.byte(head);
        Ok(())
    }

    fn fail<T>(&mut self, error: ValueError) -> Result<T, ValueError> {
        self.error = Some(error);
        Err(error)
    }
}
