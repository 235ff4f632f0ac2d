//! What the vectors cannot show: misuse of the writer, and operations on values.

use super::*;
use crate::codec::{Malformed, Writer};
use crate::message::{ErrorCode, Op};

/// Runs `write` on a fresh writer and gives what it wrote, or why not.
fn written(
    buffer: &mut [u8],
    top: Top,
    write: impl FnOnce(&mut ValueWriter<'_>) -> Result<(), ValueError>,
) -> Result<usize, ValueError> {
    let mut writer = ValueWriter::new(Writer::new(buffer), top, 2);
    // What a careless caller ignores is found at the end.
    let _ = write(&mut writer);
    writer.finish().map(|writer| writer.len())
}

fn refused(top: Top, write: impl FnOnce(&mut ValueWriter<'_>) -> Result<(), ValueError>) -> Option<ValueError> {
    written(&mut [0; 256], top, write).err()
}

#[test]
fn a_writer_refuses_what_a_receiver_would_refuse() {
    use ValueError::{Incomplete, Misplaced, NoSuchReference, NotCanonical, TooMany};
    let big = |negative, magnitude| BigInt { negative, magnitude };
    assert_eq!(refused(Top::Arguments, |w| w.tuple(2).and_then(|()| w.int(1))), Some(Incomplete));
    assert_eq!(refused(Top::Arguments, |w| w.named("a")), Some(Incomplete));
    assert_eq!(refused(Top::One, |_| Ok(())), Some(Incomplete));
    assert_eq!(refused(Top::Result, |w| w.int(1).and_then(|()| w.int(2))), Some(Misplaced));
    assert_eq!(refused(Top::Result, |w| w.named("a")), Some(Misplaced));
    assert_eq!(refused(Top::Error, |w| (0..5).try_for_each(|n| w.int(n))), Some(Misplaced));
    assert_eq!(refused(Top::Arguments, |w| w.tuple(1).and_then(|()| w.named("a"))), Some(Misplaced));
    let after_named = |w: &mut ValueWriter<'_>| w.named("a").and_then(|()| w.int(1)).and_then(|()| w.int(2));
    assert_eq!(refused(Top::Arguments, after_named), Some(Misplaced));
    assert_eq!(refused(Top::Arguments, |w| w.reference(2)), Some(NoSuchReference));
    assert_eq!(refused(Top::Arguments, |w| w.reference(usize::MAX)), Some(NoSuchReference));
    assert_eq!(refused(Top::Arguments, |w| w.list(usize::MAX)), Some(TooMany));
    assert_eq!(refused(Top::Arguments, |w| w.map(1 << 31)), Some(TooMany));
    assert_eq!(refused(Top::Arguments, |w| w.big_int(big(false, &[1, 0, 0, 0, 0, 0, 0, 0, 0]))), Some(NotCanonical));
    assert_eq!(refused(Top::Arguments, |w| w.big_int(big(true, &[0, 0, 0, 0, 0, 0, 0, 0x80]))), Some(NotCanonical));
    assert_eq!(refused(Top::Arguments, |w| w.big_int(big(true, &[1, 0, 0, 0, 0, 0, 0, 0x80]))), None);
    let no_argument = |w: &mut ValueWriter<'_>| w.exception_head("E", 1).and_then(|()| w.exception_tail(None, None));
    assert_eq!(refused(Top::Arguments, no_argument), Some(Incomplete));
}

/// An error sticks: what follows is refused too, and the end tells the first.
#[test]
fn an_error_of_a_writer_sticks() {
    let mut buffer = [0; 16];
    let mut writer = ValueWriter::new(Writer::new(&mut buffer), Top::Arguments, 0);
    assert_eq!(writer.reference(0), Err(ValueError::NoSuchReference));
    assert_eq!(writer.int(1), Err(ValueError::NoSuchReference));
    assert_eq!(writer.none(), Err(ValueError::NoSuchReference));
    assert_eq!(writer.finish().err(), Some(ValueError::NoSuchReference));
}

/// CAL-5: none as a result is no value at all; anywhere else it is one.
#[test]
fn none_as_a_result_is_nothing() {
    assert_eq!(written(&mut [0; 4], Top::Result, |w| w.none()), Ok(0));
    assert_eq!(written(&mut [0; 4], Top::Arguments, |w| w.none()), Ok(1));
    assert_eq!(refused(Top::Result, |w| w.none().and_then(|()| w.int(1))), Some(ValueError::Misplaced));
}

/// VAL-2: every NaN is written as the one that is read.
#[test]
fn every_nan_is_one() {
    for bits in [0x7FF8_0000_0000_0000, 0xFFF8_0000_0000_0000, 0x7FF0_0000_0000_0001, u64::MAX] {
        let mut buffer = [0; 9];
        written(&mut buffer, Top::One, |w| w.float(f64::from_bits(bits))).unwrap();
        assert_eq!(buffer, [6, 0, 0, 0, 0, 0, 0, 0xF8, 0x7F]);
    }
}

/// VAL-1: at each border between the forms of an integer, what was written is read.
#[test]
fn integers_round_trip_at_their_borders() {
    let borders = [0, -1, -16, -17, 127, 128, i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1];
    for value in (0..63).flat_map(|shift| [1i64 << shift, -(1 << shift), (1 << shift) - 1]).chain(borders) {
        let mut buffer = [0; 16];
        let length = written(&mut buffer, Top::One, |w| w.int(value)).unwrap();
        let values = Values::check(&buffer[..length], Top::One, 0).unwrap();
        assert!(matches!(values.first(), Some(Value::Int(read)) if read == value), "{value}: {values:?}");
    }
    for value in [1 << 63, u64::MAX] {
        let mut buffer = [0; 16];
        let length = written(&mut buffer, Top::One, |w| w.uint(value)).unwrap();
        let values = Values::check(&buffer[..length], Top::One, 0).unwrap();
        let Some(Value::BigInt(big)) = values.first() else { panic!("{values:?}") };
        assert_eq!((big.negative, big.magnitude), (false, &value.to_le_bytes()[..]));
    }
}

/// A formatter that says something else the second time spoils the message; it does not desynchronize it.
#[test]
fn a_formatter_that_changes_its_mind_is_refused() {
    struct Fickle(core::cell::Cell<u8>);
    impl core::fmt::Display for Fickle {
        fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            self.0.set(self.0.get() + 1);
            (0..self.0.get()).try_for_each(|_| out.write_str("x"))
        }
    }
    let fickle = Fickle(core::cell::Cell::new(0));
    assert_eq!(refused(Top::One, |w| w.text(format_args!("{fickle}"))), Some(ValueError::Incomplete));
    assert_eq!(written(&mut [0; 64], Top::One, |w| w.text(format_args!("{:>32}", 7))), Ok(34));
}

/// VAL-4, VAL-8: reader and writer share the rules of nesting, so they are shown once.
#[test]
fn nesting_is_sixteen_deep() {
    use nest::Nest;
    let begin = |levels: usize, top| {
        let mut nest = Nest::new(top);
        (0..levels).try_for_each(|_| nest.value(tag::TUPLE, 1)).map(|()| nest)
    };
    assert_eq!(begin(15, Top::One).unwrap().value(tag::INT, 0), Ok(()));
    assert!(!begin(15, Top::One).unwrap().is_complete());
    assert_eq!(begin(16, Top::One).err(), Some(Malformed));
    // A named argument is no level of its own.
    let mut nest = Nest::new(Top::Arguments);
    nest.value(tag::NAMED, 2).unwrap();
    nest.value(tag::STRING, 0).unwrap();
    for _ in 0..15 {
        nest.value(tag::TUPLE, 1).unwrap();
    }
    assert_eq!(nest.clone().value(tag::TUPLE, 1), Err(Malformed));
    nest.value(tag::TUPLE, 0).unwrap();
    assert!(nest.is_complete());
}

/// VAL-9: a walk over a run tells as much as its check did, and skips what is inside.
#[test]
fn a_walk_steps_over_contents() {
    let bytes = [0x62, 0x0A, 1, 0x81, 0x60, 0x0F, 0x41, b'k', 0x0C, 1, 0x41, b'a', 0x82];
    let values = Values::check(&bytes, Top::Arguments, 0).unwrap();
    assert_eq!(values.len(), 2);
    assert_eq!(values.positional().count(), 1);
    let Some(Value::Tuple(mut items)) = values.first() else { panic!("{values:?}") };
    assert!(matches!(items.next(), Some(Value::List(list)) if list.len() == 1));
    assert!(matches!(items.next(), Some(Value::Tuple(empty)) if empty.is_empty()));
    assert!(items.next().is_none());
    assert!(matches!(values.named("k"), Some(Value::Map(entries)) if entries.len() == 2));
    assert!(values.named("a").is_none());
}

/// OPS-5: what each operation gives on values, and what values cannot do.
#[test]
fn operations_on_values() {
    let gives = |value: &[u8], op, args: &[u8]| -> Result<bool, ErrorCode> {
        let value = Values::check(value, Top::One, 0).unwrap().first().unwrap();
        let args = Values::check(args, Top::Arguments, 0).unwrap();
        Ok(match operate(value, op, args)? {
            Outcome::Bool(is) => is,
            Outcome::Int(n) => n == 3,
            Outcome::Char(c) => c == 'é',
            Outcome::Value(Value::Int(n)) => n == 7,
            Outcome::Raise(name, _) => name == "IndexError",
            _ => false,
        })
    };
    let text = &[0x44, b'a', 0xC3, 0xA9, b'b'];
    let tuple = &[0x63, 0x87, 0x04, 0x80, 0x02, 0x41, b'a'];
    let map = &[0x0C, 1, 0x41, b'a', 0x87];
    assert_eq!(gives(text, Op::Length, &[]), Ok(true));
    assert_eq!(gives(tuple, Op::Length, &[]), Ok(true));
    assert_eq!(gives(&[0x08, 3, 0, 0, 0], Op::Length, &[]), Ok(true));
    assert_eq!(gives(text, Op::GetItem, &[0x81]), Ok(true));
    assert_eq!(gives(text, Op::GetItem, &[0x7E]), Ok(true));
    assert_eq!(gives(text, Op::GetItem, &[0x83]), Ok(true)); // IndexError
    assert_eq!(gives(tuple, Op::GetItem, &[0x7D]), Ok(true));
    assert_eq!(gives(tuple, Op::GetItem, &[0x7C]), Ok(true)); // IndexError
    assert_eq!(gives(tuple, Op::GetItem, &[0x04, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]), Ok(true));
    assert_eq!(gives(map, Op::GetItem, &[0x41, b'a']), Ok(true));
    assert_eq!(gives(map, Op::GetItem, &[0x81]), Ok(false)); // KeyError
    assert_eq!(gives(tuple, Op::Contains, &[0x41, b'a']), Ok(true));
    assert_eq!(gives(tuple, Op::Contains, &[0x88]), Ok(false));
    assert_eq!(gives(map, Op::Contains, &[0x41, b'a']), Ok(true));
    assert_eq!(gives(&[0x81], Op::Equals, &[0x81]), Ok(true));
    assert_eq!(gives(&[0x81], Op::Equals, &[0x02]), Ok(false)); // 1 is not true
    let exception = |text| [0x0E, 0x41, b'E', 0x60, text, 0];
    assert_eq!(gives(&exception(0x00), Op::Equals, &exception(0x00)), Ok(true));
    assert_eq!(gives(&exception(0x00), Op::Equals, &exception(0x40)), Ok(false)); // the text counts too
    assert_eq!(gives(&[0x81], Op::Length, &[]), Err(ErrorCode::Unsupported));
    assert_eq!(gives(tuple, Op::Iterate, &[]), Err(ErrorCode::Unsupported));
    assert_eq!(gives(tuple, Op::member(0), &[]), Err(ErrorCode::Unsupported));
    assert_eq!(gives(tuple, Op::GetItem, &[]), Err(ErrorCode::BadArguments));
    assert_eq!(gives(tuple, Op::GetItem, &[0x80, 0x80]), Err(ErrorCode::BadArguments));
    assert_eq!(gives(tuple, Op::Length, &[0x80]), Err(ErrorCode::BadArguments));
}
