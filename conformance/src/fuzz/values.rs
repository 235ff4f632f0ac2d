//! Values: read or refused, written again, and worked on.

use farref_core::codec::Writer;
use farref_core::message::Op;
use farref_core::value::{Outcome, OwnedValue, Top, Value, ValueWriter, Values, operate};

/// What a value that is kept can do, and two things that it cannot (OPS-5).
const OPS: [Op; 8] =
    [Op::Length, Op::GetItem, Op::Contains, Op::Equals, Op::Text, Op::Force, Op::Iterate, Op::from_number(40)];

/// The first byte says where the values stand and how many handles their message lists. What is accepted has this one
/// encoding (VAL-1): written again from what was read, by walking and by way of memory of its own, it is the same bytes.
/// The operations on values are tried, the first value with those behind it as arguments.
pub fn values(bytes: &[u8]) {
    let Some((&head, bytes)) = bytes.split_first() else { return };
    let top = [Top::Arguments, Top::Result, Top::Error, Top::One][usize::from(head & 3)];
    check(bytes, top, u32::from(head >> 2 & 7));
    let (value, rest) = bytes.split_at(usize::from(head >> 5).min(bytes.len()));
    let Ok(args) = Values::check(rest, Top::Arguments, 2) else { return };
    let Some(value) = Values::check(value, Top::One, 2).ok().and_then(|value| value.first()) else { return };
    for op in OPS {
        match operate(value, op, args) {
            Ok(Outcome::Text(value, true)) => drop(format!("{value:#}")),
            Ok(outcome) => drop(format!("{outcome:?}")),
            Err(_) => {}
        }
    }
}

/// If these are good values, they are written as they were read.
pub(super) fn check(bytes: &[u8], top: Top, handles: u32) {
    let Ok(values) = Values::check(bytes, top, handles) else { return };
    assert_eq!({ values }.count(), values.len());
    assert_eq!(values.as_bytes(), bytes);
    let walked = written(bytes.len(), top, handles, |writer| {
        { values }.try_for_each(|value| writer.copy(value)).expect("accepted, so writable");
    });
    assert_eq!(walked, bytes);
    let mut references = Vec::new();
    let owned: Vec<_> = { values }.map(|value| OwnedValue::new(value, &mut |index| references.push(index))).collect();
    // In memory of its own each mention of a reference is one of its own, and a named argument is its value.
    let bytes_again = written(bytes.len() + 4 * references.len(), top, references.len() as u32, |writer| {
        let mut next = 0;
        owned.iter().try_for_each(|value| value.write(writer, &mut next)).expect("accepted, so writable");
        assert_eq!(next, references.len());
    });
    let is_same = references.iter().zip(0..).all(|(&index, place)| index == place) && { values }
        .all(|value| !matches!(value, Value::Named(_)));
    assert!(!is_same || bytes_again == bytes, "{bytes_again:02x?}");
    let _ = format!("{values:?} {:?}", values.first().map(|value| value.to_string()));
}

fn written(room: usize, top: Top, handles: u32, write: impl FnOnce(&mut ValueWriter<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; room];
    let mut writer = ValueWriter::new(Writer::new(&mut bytes), top, handles);
    write(&mut writer);
    writer.finish().expect("complete").written().expect("there is room").to_vec()
}
