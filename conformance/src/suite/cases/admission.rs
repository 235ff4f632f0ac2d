//! Bounds: what is refused when something is full, and that nothing waits for ever (SPEC section 7).

use farref_core::message::{ErrorCode, FinishMode, Limits, Op};

use super::Case;
use crate::suite::peer::{LIMITS, Peer, Tester, Verdict, check, same};
use crate::suite::wire::{Call, ROOT, Theirs, Value, finishing, int, mine, text, tuple};

pub(super) const CASES: &[Case] = &[
    Case::new("ADM-1/reads-on-while-nobody-reads", reads_on),
    Case::new("ADM-2/both-sides-full-come-to-an-end", both_sides_full),
    Case::connecting("ADM-2/nested-call-without-an-id-fails-at-once", no_id_for_a_nested_call),
    Case::connecting("ADM-2/nested-call-without-bytes-fails-at-once", no_bytes_for_a_nested_call),
    Case::connecting("ADM-3/call-with-too-many-references", call_with_references),
    Case::connecting("ADM-3/return-with-too-many-references", return_with_references),
    Case::connecting("ADM-4/call-nested-too-deep-is-not-sent", too_deep),
    Case::connecting("ADM-5/result-too-large-tells-its-size", result_too_large),
    Case::new("ADM-6/refusals-are-not-queued", refusals),
    Case::connecting("ADM-7/call-id-beyond-the-limit", id_beyond),
    Case::new("ADM-7/handles-beyond-the-limit", handles_beyond),
    Case::new("ADM-7/call-bytes-beyond-the-limit", bytes_beyond),
    Case::new("ADM-7/levels-beyond-the-limit", levels_beyond),
];

/// What `catch` gives for a call that was refused, or not made, with that code.
fn caught(code: ErrorCode) -> Value {
    tuple([int(code.number() as i64)])
}

fn reads_on(peer: &mut Peer) -> Verdict {
    let source = peer.root("source")?;
    let length = i64::from(peer.theirs().max_message.min(LIMITS.max_message)) / 2;
    let count = peer.theirs().answers - 1;
    peer.read(false);
    // More than any pipe holds comes back, and as much is still to be read.
    (0..count).for_each(|id| peer.method(id, source, "bytes", &[int(length)]));
    let most = (peer.theirs().max_message as usize / 4).min(5000);
    let ignored = finishing(&vec![(count, FinishMode::Done); most]);
    (0..200).for_each(|_| peer.send(ignored.clone()));
    peer.expect_taken()?;
    peer.read(true);
    for id in 0..count {
        let Value::Bytes(bytes) = peer.expect_return(id)? else { return check(false, "bytes", "another value") };
        same("their length", &(length as usize), &bytes.len())?;
    }
    peer.fence()
}

fn both_sides_full(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    let count = (peer.theirs().answers - 1).min(LIMITS.answers);
    (0..count).for_each(|id| peer.method(id, caller, "once", &[mine(1), int(id.into())]));
    let mut calls = Vec::new();
    for _ in 0..count {
        calls.push(peer.expect_call_of(1)?);
    }
    for call in calls.iter().rev() {
        peer.reply(call, call.args.first().unwrap_or(&Value::None));
    }
    (0..count).try_for_each(|id| peer.expect_value(id, &int(id.into())))
}

fn no_id_for_a_nested_call(tester: &mut Tester<'_>) -> Verdict {
    // We serve one call.
    let mut peer = tester.open_with(Limits { answers: 1, ..LIMITS })?;
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.send(Call::method(2, caller, "catch", &[mine(2)]).parent(call.id));
    peer.expect_value(2, &caught(ErrorCode::Overloaded))?;
    peer.reply(&call, &int(1));
    peer.expect_value(1, &int(1))?;
    peer.method(1, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.reply(&call, &int(2));
    peer.expect_value(1, &int(2))?;
    drop(peer);
    // And none at all.
    let mut peer = tester.open_with(Limits { answers: 0, ..LIMITS })?;
    let caller = peer.root("caller")?;
    peer.method(1, caller, "catch", &[mine(1)]);
    peer.expect_value(1, &caught(ErrorCode::Overloaded))?;
    peer.expect_released(1).map(drop)
}

fn no_bytes_for_a_nested_call(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open_with(Limits { call_bytes: 1000, ..LIMITS })?;
    let caller = peer.root("caller")?;
    let blob = || Value::Bytes(vec![1; 600]);
    peer.method(1, caller, "once", &[mine(1), blob()]);
    let call = peer.expect_call_of(1)?;
    peer.send(Call::method(2, caller, "catch", &[mine(2), blob()]).parent(call.id));
    peer.expect_value(2, &caught(ErrorCode::Overloaded))?;
    peer.reply(&call, &int(1));
    peer.expect_value(1, &int(1))?;
    peer.method(2, caller, "once", &[mine(2), blob()]);
    let call = peer.expect_call_of(2)?;
    peer.reply(&call, &int(2));
    peer.expect_value(2, &int(2))
}

fn call_with_references(tester: &mut Tester<'_>) -> Verdict {
    let tables = [
        // Room for two besides the directory and `caller`, or two in a message.
        Limits { imports: 4, ..LIMITS },
        Limits { handles: 2, ..LIMITS },
    ];
    tables.into_iter().try_for_each(|limits| {
        let mut peer = tester.open_with(limits)?;
        let caller = peer.root("caller")?;
        peer.method(1, caller, "offer", &[mine(1), int(3)]);
        peer.expect_value(1, &caught(ErrorCode::TableFull))?;
        // Nothing has changed: there is still room for two.
        peer.method(1, caller, "offer", &[mine(1), int(2)]);
        let call = peer.expect_call_of(1)?;
        same("what is offered", &2, &call.args.len())?;
        peer.reply(&call, &int(1));
        peer.expect_value(1, &int(1))
    })
}

fn return_with_references(tester: &mut Tester<'_>) -> Verdict {
    let tables = [Limits { imports: 5, ..LIMITS }, Limits { handles: 3, ..LIMITS }];
    tables.into_iter().try_for_each(|limits| {
        let mut peer = tester.open_with(limits)?;
        let maker = peer.make("maker", &[])?;
        peer.method(1, maker, "make_many", &[int(4)]);
        let returned = peer.expect_returned(1)?;
        same("the error", &Some(ErrorCode::TableFull), &returned.error)?;
        check(returned.handles.is_empty(), "no handles", &returned.handles)?;
        peer.until(maker, "alive", &int(0))?;
        peer.method(1, maker, "make_many", &[int(3)]);
        same("the handles", &3, &peer.expect_returned(1)?.handles.len())?;
        same("what is alive", &int(3), &peer.ask_method(maker, "alive", &[])?)
    })
}

fn too_deep(tester: &mut Tester<'_>) -> Verdict {
    // Our calls are at level 0, and a callback at level 1 is too deep.
    let mut peer = tester.open_with(Limits { levels: 1, ..LIMITS })?;
    let caller = peer.root("caller")?;
    peer.method(1, caller, "catch", &[mine(1)]);
    peer.expect_value(1, &caught(ErrorCode::TooDeep))?;
    drop(peer);
    // Here one at level 3 is.
    let mut peer = tester.open_with(Limits { levels: 3, ..LIMITS })?;
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.send(Call::method(2, caller, "catch", &[mine(2)]).parent(call.id));
    peer.expect_value(2, &caught(ErrorCode::TooDeep))?;
    peer.reply(&call, &int(1));
    peer.expect_value(1, &int(1))
}

fn result_too_large(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open_with(Limits { max_message: 1000, ..LIMITS })?;
    let source = peer.root("source")?;
    peer.method(1, source, "text", &[int(990)]);
    peer.expect_value(1, &text(&"x".repeat(990)))?;
    peer.method(1, source, "bytes", &[int(5000)]);
    let values = peer.expect_error(1, ErrorCode::ResultTooLarge)?;
    check(matches!(values[..], [Value::Int(5001..5020)]), "the size of the Return", values)?;
    // What it would have brought is not held.
    let maker = peer.make("maker", &[])?;
    let Value::Tuple(things) = peer.ask_method(maker, "make_many", &[int(2)])? else {
        return check(false, "a tuple", "another value");
    };
    let things: Vec<Theirs> = things.iter().map(crate::suite::peer::as_theirs).collect::<Verdict<_>>()?;
    let args: Vec<_> = things.iter().map(|thing| thing.home()).chain([Value::Bytes(vec![0; 2000])]).collect();
    peer.method(1, ROOT, "echo", &args);
    peer.expect_error(1, ErrorCode::ResultTooLarge)?;
    peer.release(&things);
    peer.until(maker, "alive", &int(0))
}

fn refusals(peer: &mut Peer) -> Verdict {
    let count = peer.theirs().answers - 1;
    peer.read(false);
    let unknown = Theirs { slot: 77_777, generation: 0 };
    (0..count).for_each(|id| peer.call(id, unknown, Op::Call, &[]));
    (0..10_000).for_each(|_| peer.send([9, 0]));
    peer.expect_taken()?;
    peer.read(true);
    (0..count).try_for_each(|id| peer.expect_error(id, ErrorCode::NoSuchObject).map(drop))?;
    peer.expect_unimplemented(1 << 9)?;
    peer.fence()
}

fn id_beyond(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open()?;
    let beyond = peer.theirs().answers;
    peer.call(beyond - 1, ROOT, Op::Describe, &[]);
    peer.expect_return(beyond - 1)?;
    peer.call(beyond, ROOT, Op::Describe, &[]);
    peer.expect_close_of(&["ADM-7", "CAL-1"])?;
    drop(peer);
    let mut peer = tester.open()?;
    peer.call(u16::MAX, ROOT, Op::Describe, &[]);
    peer.expect_close_of(&["ADM-7", "CAL-1"])
}

fn handles_beyond(peer: &mut Peer) -> Verdict {
    let most = u32::from(peer.theirs().handles);
    let args = |count: u32| [tuple((1..=count).map(mine).collect::<Vec<_>>())];
    peer.method(1, ROOT, "sink", &args(most));
    peer.expect_value(1, &int(0))?;
    (1..=most).try_for_each(|slot| peer.expect_released(slot).map(drop))?;
    peer.method(1, ROOT, "sink", &args(most + 1));
    peer.expect_close("ADM-7")
}

fn bytes_beyond(peer: &mut Peer) -> Verdict {
    let Limits { max_message, call_bytes, answers, .. } = peer.theirs();
    let slow = peer.make("slow", &[])?;
    let call = |id: u16| {
        let blob = Value::Bytes(vec![0; max_message as usize - 64]);
        Call::method(id, slow, "wait", &[text("x"), blob]).body()
    };
    let fitting = u16::try_from(call_bytes as usize / call(0).len()).unwrap_or(u16::MAX);
    if fitting >= answers {
        // The ids are used up before the bytes are.
        return Ok(());
    }
    (0..fitting).for_each(|id| peer.send(call(id)));
    peer.ask_method(slow, "entered", &[int(fitting.into())])?;
    peer.send(call(fitting));
    peer.expect_close("ADM-7")
}

fn levels_beyond(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    let levels = peer.theirs().levels;
    if levels >= LIMITS.levels || levels / 2 >= peer.theirs().answers {
        return Ok(());
    }
    peer.method(0, caller, "once", &[mine(1)]);
    let mut call = peer.expect_call_of(1)?;
    // Each of ours is two levels below the one before.
    let mut id = 1;
    while 2 * id < levels {
        peer.send(Call::method(id, caller, "once", &[mine(1)]).parent(call.id));
        call = peer.expect_call_of(1)?;
        id += 1;
    }
    peer.send(Call::method(id, caller, "once", &[mine(1)]).parent(call.id));
    peer.expect_close("ADM-7")
}
