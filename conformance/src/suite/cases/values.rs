//! Values and errors (SPEC sections 8 and 9).

use farref_core::message::{Descriptor, ErrorCode, Op};

use super::Case;
use crate::suite::peer::{Peer, Verdict, check, same};
use crate::suite::wire::{Call, Exception, ROOT, Value, encoded, exception, failing, int, mine, text, tuple};

pub(super) const CASES: &[Case] = &[
    Case::new("VAL-1/values-come-back-byte-for-byte", byte_for_byte),
    Case::new("VAL-1/other-forms-are-refused", other_forms),
    Case::new("VAL-1/reserved-tags-are-refused", reserved_tags),
    Case::new("VAL-2/floats-are-kept", floats),
    Case::new("VAL-2/other-nans-are-refused", other_nans),
    Case::new("VAL-3/strings-are-utf-8", bad_strings),
    Case::new("VAL-4/sixteen-levels-and-no-more", depth),
    Case::new("VAL-5/containers-travel-by-reference", containers_by_reference),
    Case::new("VAL-6/handle-named-twice-or-not-at-all", handles_named),
    Case::new("VAL-7/exception-arguments-are-exact", exception_arguments),
    Case::new("VAL-7/exceptions-cross-the-subject-unchanged", exceptions_cross),
    Case::new("VAL-8/named-arguments-come-last", named_arguments),
    Case::new("VAL-9/counts-that-lie-are-refused", lying_counts),
    Case::new("ERR-1/unknown-codes-are-kept", unknown_codes),
    Case::new("ERR-2/error-values-are-checked", error_values),
    Case::new("ERR-3/common-exceptions-have-their-names", common_names),
];

/// A call of `echo` with argument bytes as they are.
fn echo_of(bytes: &[u8]) -> Vec<u8> {
    [&[0, 1, 0, 4], &b"\x44echo"[..], bytes].concat()
}

fn refuses(peer: &mut Peer, bytes: &[u8]) -> Verdict {
    peer.send(echo_of(bytes));
    match peer.expect_outcome(1)? {
        Err(refusal) if refusal.code == ErrorCode::Malformed => Ok(()),
        other => check(false, &format!("Malformed for {bytes:02x?}"), other),
    }
}

fn comes_back(peer: &mut Peer, value: &Value) -> Verdict {
    peer.send(Call::method(1, ROOT, "echo", std::slice::from_ref(value)));
    let returned = peer.expect_returned(1)?;
    same("the error", &None, &returned.error)?;
    same(&format!("the bytes of {value:?}"), &encoded(value), &returned.bytes)
}

fn byte_for_byte(peer: &mut Peer) -> Verdict {
    let ints = [0, 1, 127, 128, -1, -16, -17, 255, 1 << 32, i64::MAX, i64::MIN, i64::MIN + 1];
    let big = |negative, magnitude: &[u8]| Value::BigInt(negative, magnitude.to_vec());
    let two_to_63 = [0, 0, 0, 0, 0, 0, 0, 0x80];
    let beyond_min = [1, 0, 0, 0, 0, 0, 0, 0x80];
    let lengths = [0, 1, 31, 32, 127, 128, 1000];
    let strings = lengths.iter().map(|length| text(&"y".repeat(*length)));
    let blobs = lengths.iter().map(|length| Value::Bytes(vec![0xFF; *length]));
    let tuples = [0, 1, 15, 16, 200].into_iter().map(|count| tuple(vec![int(5); count]));
    let nested = tuple([text("a"), tuple([Value::None, Value::Bool(true)]), Value::Bytes(vec![0])]);
    let map = Value::Map(vec![(text("b"), int(1)), (text("a"), Value::List(vec![nested.clone()]))]);
    let with_text = Exception { text: Some("for people".into()), ..exception("app.Busy", [nested.clone()]) };
    let others = [
        Value::Bool(true),
        Value::Bool(false),
        Value::NotImplemented,
        big(false, &two_to_63),
        big(true, &beyond_min),
        big(false, &[9; 40]),
        text("\u{0}\u{e9}\u{20ac}\u{1f600}"),
        nested,
        Value::List(vec![int(3), int(1), int(2)]),
        Value::Set(vec![text("z"), text("a")]),
        map,
        Value::Exception(with_text.into()),
    ];
    let all = ints.into_iter().map(int).chain(strings).chain(blobs).chain(tuples).chain(others);
    all.into_iter().try_for_each(|value| comes_back(peer, &value))
}

fn other_forms(peer: &mut Peer) -> Verdict {
    let forms: &[&[u8]] = &[
        // 0, 127 and -16 with tag 04; 200 in a longer varint.
        &[0x04, 0x00],
        &[0x04, 0xFE, 0x01],
        &[0x04, 0x1F],
        &[0x04, 0x90, 0x83, 0x00],
        // Big integers that fit 64 bits, that begin with a zero byte, and none at all.
        &[0x05, 2, 9],
        &[0x05, 16, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        &[0x05, 17, 0, 0, 0, 0, 0, 0, 0, 0x80],
        &[0x05, 18, 0, 0, 0, 0, 0, 0, 0, 0x80, 0],
        &[0x05, 0],
        // A string of 1 byte with tag 07, a tuple of 1 item with tag 09.
        &[0x07, 1, b'a'],
        &[0x09, 1, 0x81],
        // A count and an index in longer forms.
        &[0x0A, 0x80, 0x00],
        &[0x08, 0x81, 0x00, 9],
    ];
    forms.iter().try_for_each(|bytes| refuses(peer, bytes))?;
    peer.fence()
}

fn reserved_tags(peer: &mut Peer) -> Verdict {
    (0x10..0x40).try_for_each(|tag| refuses(peer, &[tag]))?;
    refuses(peer, &[0x62, 0x81, 0x2A])?;
    peer.fence()
}

fn floats(peer: &mut Peer) -> Verdict {
    let kept = [0.0, -0.0, 1.5, f64::MIN_POSITIVE / 2.0, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    kept.into_iter().try_for_each(|float| comes_back(peer, &Value::Float(float)))
}

fn other_nans(peer: &mut Peer) -> Verdict {
    for bits in [0xFFF8_0000_0000_0000, 0x7FF8_0000_0000_0001, 0x7FF0_0000_0000_0001_u64] {
        refuses(peer, &[&[0x06][..], &bits.to_le_bytes()].concat())?;
    }
    refuses(peer, &[0x06, 0, 0])?;
    peer.fence()
}

fn bad_strings(peer: &mut Peer) -> Verdict {
    // A longer form, a surrogate, beyond the last code point, cut short, and a byte that begins nothing.
    let wrong: &[&[u8]] = &[&[0xC0, 0x80], &[0xED, 0xA0, 0x80], &[0xF4, 0x90, 0x80, 0x80], &[0xE2, 0x82], &[0xFF]];
    for bytes in wrong {
        refuses(peer, &[&[0x40 | bytes.len() as u8], *bytes].concat())?;
        let long = [&[b'a'; 40][..], bytes].concat();
        refuses(peer, &[&[0x07, long.len() as u8], &long[..]].concat())?;
    }
    // The name of an exception and of an argument, too.
    refuses(peer, &[0x0E, 0x41, 0xFF, 0x60, 0x00, 0x00])?;
    refuses(peer, &[0x0F, 0x41, 0xFF, 0x81])?;
    peer.fence()
}

fn depth(peer: &mut Peer) -> Verdict {
    let nested = |tag: &[u8], levels: usize| [tag.repeat(levels - 1), vec![0x81]].concat();
    for tag in [&[0x61][..], &[0x0A, 1]] {
        let deepest = nested(tag, 16);
        peer.send(echo_of(&deepest));
        same("the deepest value", &deepest, &peer.expect_returned(1)?.bytes)?;
        refuses(peer, &nested(tag, 17))?;
    }
    // A named argument is no level.
    let sink = |levels: usize| [&[0, 1, 0, 4], &b"\x44sink\x0F\x41a"[..], &nested(&[0x61], levels)].concat();
    peer.send(sink(16));
    peer.expect_value(1, &int(0))?;
    peer.send(sink(17));
    peer.expect_error(1, ErrorCode::Malformed)?;
    // As deep as a message can be: no stack is used up.
    let most = peer.theirs().max_message.min(peer.theirs().call_bytes) as usize;
    refuses(peer, &nested(&[0x61], most - 64))?;
    peer.fence()
}

fn containers_by_reference(peer: &mut Peer) -> Verdict {
    let source = peer.root("source")?;
    peer.method(1, source, "items", &[int(3)]);
    let items = peer.expect_object(1)?;
    let contents = peer.ask(items, Op::Force, &[])?;
    same("its contents", &Value::List(vec![int(0), int(1), int(2)]), &contents)
}

fn handles_named(peer: &mut Peer) -> Verdict {
    // Slots 5 and 6 are listed; the first is named twice.
    peer.send([&[0x40, 1, 0, 4, 2, 5 << 3, 6 << 3], &b"\x44echo"[..], &[0x62, 0x0D, 0, 0x0D, 0]].concat());
    let home = || Value::Reference(Descriptor::Receiver { slot: 5, generation: 0 });
    peer.expect_value(1, &tuple([home(), home()]))?;
    peer.expect_released(5)?;
    peer.expect_released(6)?;
    refuses(peer, &[0x0D, 0])?;
    peer.fence()
}

/// Arguments that are easily changed on the way.
fn exact() -> Vec<Value> {
    let big = Value::BigInt(false, vec![1; 9]);
    vec![tuple([int(1), text("a")]), Value::Float(-0.0), Value::Bytes(vec![0, 255]), Value::None, big]
}

fn exception_arguments(peer: &mut Peer) -> Verdict {
    let raiser = peer.root("raiser")?;
    let args = [&[text("app.errors.Busy")], &exact()[..]].concat();
    peer.send(Call::method(1, raiser, "raise", &args).named("text", text("try later")).named("traceback", mine(7)));
    let values = peer.expect_error(1, ErrorCode::Raised)?;
    let expected = Exception {
        text: Some("try later".into()),
        traceback: Some(Descriptor::Receiver { slot: 7, generation: 0 }),
        ..exception("app.errors.Busy", exact())
    };
    same("the exception", &[Value::Exception(expected.into())][..], &values)?;
    peer.expect_released(7).map(drop)
}

fn exceptions_cross(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    let raised = Value::Exception(Exception { text: Some("why".into()), ..exception("KeyError", exact()) }.into());
    // Raised by us, let through by the subject; and caught there.
    for (method, is_result) in [("once", false), ("catch", true)] {
        peer.method(1, caller, method, &[mine(1)]);
        let call = peer.expect_call_of(1)?;
        peer.send(failing(call.id, 0, std::slice::from_ref(&raised)));
        let got = match peer.expect_outcome(1)? {
            Ok(value) if is_result => vec![value],
            Err(refusal) if !is_result && refusal.code == ErrorCode::Raised => refusal.values,
            other => return check(false, "the exception", other),
        };
        same("the exception", std::slice::from_ref(&raised), &got[..])?;
    }
    Ok(())
}

fn named_arguments(peer: &mut Peer) -> Verdict {
    peer.send(Call::method(1, ROOT, "echo", &[int(1)]).named("a", int(2)).named("b", text("c")));
    peer.expect_value(1, &tuple([int(1), tuple([text("a"), int(2)]), tuple([text("b"), text("c")])]))?;
    // A positional one after a named one, a named one within a value, a named one that is named.
    refuses(peer, &[0x0F, 0x41, b'a', 0x81, 0x82])?;
    refuses(peer, &[0x61, 0x0F, 0x41, b'a', 0x81])?;
    refuses(peer, &[0x0F, 0x41, b'a', 0x0F, 0x41, b'b', 0x81])?;
    refuses(peer, &[0x0F, 0x81, 0x81])?;
    // A name given twice is a matter of the binding.
    peer.send(Call::method(1, ROOT, "echo", &[]).named("a", int(1)).named("a", int(2)));
    peer.expect_error(1, ErrorCode::BadArguments).map(drop)
}

fn lying_counts(peer: &mut Peer) -> Verdict {
    let most = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
    for tag in [0x05, 0x07, 0x08, 0x09, 0x0A, 0x0B, 0x0C] {
        refuses(peer, &[&[tag][..], &most].concat())?;
        refuses(peer, &[&[tag][..], &most, &[0x81; 100]].concat())?;
    }
    refuses(peer, &[0x6F, 0x81])?;
    refuses(peer, &[0x0E, 0x41, b'a', 0x60])?;
    peer.fence()
}

fn unknown_codes(peer: &mut Peer) -> Verdict {
    let raiser = peer.root("raiser")?;
    peer.method(1, raiser, "refuse", &[int(77), int(1), text("x")]);
    let values = peer.expect_error(1, ErrorCode::from_number(77))?;
    same("the values", &[int(1), text("x")][..], &values)?;
    let caller = peer.root("caller")?;
    // Unknown, and known with values that its row does not list.
    for code in [77, 4_000_000_000, 7] {
        peer.method(1, caller, "catch", &[mine(1)]);
        let call = peer.expect_call_of(1)?;
        peer.send(failing(call.id, code, &[int(1), text("x")]));
        peer.expect_value(1, &tuple([int(code.into()), int(1), text("x")]))?;
    }
    Ok(())
}

fn error_values(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    // Raised without an exception, with something else, with two; and five values.
    let exception = encoded(&Value::Exception(exception("KeyError", []).into()));
    let wrong = [vec![0], vec![0, 0x81], [&[0][..], &exception, &exception].concat(), vec![4, 1, 1, 1, 1, 1]];
    for values in wrong {
        peer.method(1, caller, "catch", &[mine(1)]);
        let call = peer.expect_call_of(1)?;
        peer.send([&[0x21, call.id as u8], &values[..]].concat());
        peer.expect_value(1, &tuple([int(ErrorCode::Malformed.number() as i64)]))?;
    }
    peer.fence()
}

fn common_names(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.method(1, keeper, "give", &[text("nothing")]);
    same("the arguments", &[text("nothing")][..], &peer.expect_raised(1, "KeyError")?)?;
    let source = peer.root("source")?;
    peer.method(1, source, "items", &[int(3)]);
    let items = peer.expect_object(1)?;
    peer.call(1, items, Op::GetItem, &[int(3)]);
    same("the arguments", &[int(3)][..], &peer.expect_raised(1, "IndexError")?)?;
    // What other languages know as classes of their own keeps its name on the way through.
    let names = [
        "KeyError",
        "IndexError",
        "ValueError",
        "TypeError",
        "AttributeError",
        "ZeroDivisionError",
        "OverflowError",
        "StopIteration",
        "NotImplementedError",
        "OSError",
        "FileNotFoundError",
        "FileExistsError",
        "PermissionError",
        "IsADirectoryError",
        "NotADirectoryError",
        "RuntimeError",
    ];
    let caller = peer.root("caller")?;
    for name in names {
        peer.method(1, caller, "once", &[mine(1)]);
        let call = peer.expect_call_of(1)?;
        let args = [int(2), text("No such file or directory"), text("/tmp/x")];
        peer.send(failing(call.id, 0, &[Value::Exception(exception(name, args.clone()).into())]));
        same(&format!("the arguments of {name}"), &args[..], &peer.expect_raised(1, name)?)?;
    }
    Ok(())
}
