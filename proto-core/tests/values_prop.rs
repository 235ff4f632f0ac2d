//! Properties: any values come back as they were; any bytes are refused, or are the one encoding of something.

use farref_core::codec::Writer;
use farref_core::frame::{Split, split};
use farref_core::message::Message;
use farref_core::value::{MAX_DEPTH, OwnedException, OwnedValue, Top, ValueWriter, Values};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

type Owned = OwnedValue<()>;

/// VAL-1: 64 bits or not, a number has one encoding; so the magnitude is one beyond 64 bits.
fn big_int() -> impl Strategy<Value = Owned> {
    (any::<bool>(), vec(any::<u8>(), 8..20)).prop_map(|(negative, mut magnitude)| {
        let last = magnitude.last_mut().unwrap();
        *last |= 0x81; // beyond 2^63 in every length
        OwnedValue::BigInt(negative, magnitude)
    })
}

/// Floats of any bits; the NaNs are one (VAL-2).
fn float() -> impl Strategy<Value = Owned> {
    any::<u64>().prop_map(|bits| OwnedValue::Float(f64::from_bits(bits)))
}

fn leaf() -> impl Strategy<Value = Owned> {
    prop_oneof![
        Just(OwnedValue::None),
        Just(OwnedValue::NotImplemented),
        Just(OwnedValue::Reference(())),
        any::<bool>().prop_map(OwnedValue::Bool),
        any::<i64>().prop_map(OwnedValue::Int),
        (-200i64..200).prop_map(OwnedValue::Int),
        big_int(),
        float(),
        ".{0,40}".prop_map(OwnedValue::Str),
        vec(any::<u8>(), 0..40).prop_map(OwnedValue::Bytes),
    ]
}

fn value() -> impl Strategy<Value = Owned> {
    leaf().prop_recursive(6, 64, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(OwnedValue::Tuple),
            vec(inner.clone(), 0..20).prop_map(OwnedValue::List),
            vec(inner.clone(), 0..20).prop_map(OwnedValue::Set),
            vec((inner.clone(), inner.clone()), 0..10).prop_map(OwnedValue::Map),
            (".{1,40}", vec(inner, 0..4), option::of(".{0,40}"), option::of(Just(()))).prop_map(
                |(name, args, text, traceback)| OwnedValue::Exception(Box::new(OwnedException {
                    name,
                    args,
                    text,
                    traceback
                }))
            ),
        ]
    })
}

/// Bytes that are more often nearly right than bytes of pure chance.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop_oneof![0u8..0x10, 0x40u8..0x44, 0x60u8..0x63, any::<u8>()];
    prop_oneof![vec(tag, 0..60), vec(any::<u8>(), 0..60)]
}

fn encode(top: Top, references: u32, write: impl Fn(&mut ValueWriter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    let mut writer = ValueWriter::new(Writer::new(&mut buffer), top, references);
    write(&mut writer);
    writer.finish().unwrap().written().unwrap().to_vec()
}

/// Equal bit by bit: NaN is NaN, and −0.0 is not 0.0.
fn same(a: &Owned, b: &Owned) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

proptest! {
    /// VAL-1, VAL-5, VAL-7: what was written is read.
    #[test]
    fn values_round_trip(values in vec(value(), 0..5)) {
        let mut references = 0;
        values.iter().for_each(|value| value.each_reference(&mut |()| references += 1));
        let bytes = encode(Top::Arguments, references, |writer| {
            let mut next = 0;
            values.iter().try_for_each(|value| value.write(writer, &mut next)).unwrap();
        });
        let read = Values::check(&bytes, Top::Arguments, references).unwrap();
        prop_assert_eq!(read.len(), values.len());
        for (read, value) in read.zip(&values) {
            prop_assert!(same(&OwnedValue::new(read, &mut |_| ()), value), "{:?} is not {:?}", read, value);
        }
        for cut in 0..bytes.len() {
            if let Ok(part) = Values::check(&bytes[..cut], Top::Arguments, references) {
                prop_assert!(part.len() < values.len());
            }
        }
    }

    /// VAL-1: whatever is accepted is the one encoding, so writing it gives the same bytes. Nothing panics.
    #[test]
    fn what_is_accepted_is_canonical(bytes in bytes(), handles in 0u32..4) {
        for top in [Top::Arguments, Top::Result, Top::Error, Top::One] {
            let Ok(values) = Values::check(&bytes, top, handles) else { continue };
            prop_assert_eq!({ values }.count(), values.len());
            let again = encode(top, handles, |writer| { values }.try_for_each(|value| writer.copy(value)).unwrap());
            prop_assert_eq!(&again, &bytes);
        }
    }

    /// VAL-4: exactly the sixteen levels that are allowed, whatever they are made of.
    #[test]
    fn depth_is_counted_alike(kinds in vec(0u8..4, 0..20)) {
        let mut value = Owned::Int(0);
        for kind in &kinds {
            value = match kind {
                0 => OwnedValue::Tuple(vec![value]),
                1 => OwnedValue::List(vec![value]),
                2 => OwnedValue::Set(vec![value]),
                _ => OwnedValue::Map(vec![(Owned::None, value)]),
            };
        }
        let heads: &[&[u8]] = &[&[0x61], &[0x0A, 1], &[0x0B, 1], &[0x0C, 1, 0]];
        let mut bytes: Vec<u8> = kinds.iter().rev().flat_map(|&kind| heads[usize::from(kind)]).copied().collect();
        bytes.push(0x80);
        let allowed = kinds.len() < MAX_DEPTH;
        prop_assert_eq!(Values::check(&bytes, Top::One, 0).is_ok(), allowed);
        let mut buffer = [0; 64];
        let mut writer = ValueWriter::new(Writer::new(&mut buffer), Top::One, 0);
        prop_assert_eq!(value.write(&mut writer, &mut 0).is_ok(), allowed);
    }

    /// MSG-1: any body is taken apart or refused. What it lists can be walked to the end.
    #[test]
    fn envelopes_never_panic(head in any::<u8>(), rest in bytes()) {
        let body = [&[head][..], &rest].concat();
        match Message::read(&body) {
            Ok(Message::Call(call)) => {
                prop_assert_eq!(call.handles.count(), call.handles.len() as usize);
                let _ = Values::check(call.values, Top::Arguments, call.handles.len());
            }
            Ok(Message::Return(back)) => {
                prop_assert_eq!(back.handles.count(), back.handles.len() as usize);
                let _ = Values::check(back.values, Top::Result, back.handles.len());
            }
            Ok(Message::Finish(entries)) => prop_assert!(entries.count() > 0),
            Ok(Message::Release(entries)) => prop_assert!(entries.count() > 0),
            Ok(Message::Down(entries)) => prop_assert!(entries.count() > 0),
            _ => {}
        }
    }

    /// FRM-2: a record is what its length says, and cutting it gives no other record.
    #[test]
    fn records_are_split_or_refused(bytes in bytes(), max_message in 64u32..300) {
        if let Split::Record { body, rest } = split(&bytes, max_message) {
            prop_assert!(!body.is_empty() && body.len() <= max_message as usize);
            let whole = bytes.len() - rest.len();
            let mut length = [0; 10];
            let mut writer = Writer::new(&mut length);
            writer.varint(body.len() as u64);
            prop_assert_eq!([writer.written().unwrap(), body].concat(), &bytes[..whole]);
            for cut in 0..whole {
                prop_assert_eq!(split(&bytes[..cut], max_message), Split::Incomplete);
            }
        }
    }
}
