//! References that go down, that are lent, that are weak (SPEC section 5, REF-8 to REF-10).

use farref_core::message::{Descriptor, ErrorCode, FinishMode, Op};

use super::Case;
use super::messages::each_ends_the_session;
use crate::suite::peer::{Peer, Tester, Verdict, check, same};
use crate::suite::wire::{ROOT, Theirs, Value, down, lent, mine, returning, text, tuple};

pub(super) const CASES: &[Case] = &[
    Case::new("REF-8/nothing-is-called-that-is-down", nothing_is_called_that_is_down),
    Case::new("REF-8/what-is-down-is-released-as-usual", down_is_released),
    Case::new("REF-8/down-crosses-release", down_crosses_release),
    Case::new("REF-8/down-crosses-resend", down_crosses_resend),
    Case::new("REF-8/down-crosses-call", down_crosses_call),
    Case::connecting("REF-8/down-of-what-was-never-sent-ends-the-session", down_never_sent),
    Case::new("REF-8/handle-that-is-down-ends-the-session", sent_after_down),
    Case::new("REF-9/lent-reference-comes-home-and-is-not-released", lent_is_not_released),
    Case::new("REF-9/lent-reference-is-called-within-its-call", lent_is_called),
    Case::new("REF-9/lent-reference-cannot-be-kept", lent_is_not_kept),
    Case::new("REF-9/slot-sent-otherwise-is-released", lent_and_sent),
    Case::new("REF-9/slot-sent-in-another-call-is-released", lent_and_sent_in_another_call),
    Case::new("REF-9/cancel-ends-no-loan", cancel_ends_no_loan),
    Case::connecting("REF-9/only-arguments-are-lent", only_arguments_are_lent),
    Case::new("REF-10/weak-reference-is-a-reference", weak_is_a_reference),
];

fn weak(slot: u32) -> Value {
    Value::Reference(Descriptor::Weak { slot, generation: 0 })
}

fn home(slot: u32) -> Value {
    Value::Reference(Descriptor::Receiver { slot, generation: 0 })
}

/// The keeper calls what it keeps as `x`, which is down: it fails, and no call comes.
fn expect_not_called(peer: &mut Peer, keeper: Theirs) -> Verdict {
    peer.method(7, keeper, "call", &[text("x")]);
    let outcome = peer.expect_outcome(7)?;
    check(outcome.is_err(), "a call that fails", outcome)?;
    same("calls of what is down", &0, &peer.waiting_calls())
}

fn nothing_is_called_that_is_down(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), mine(1)])?;
    peer.ask_method(keeper, "keep", &[text("y"), mine(2)])?;
    peer.send(down(&[(1, 1)]));
    expect_not_called(peer, keeper)?;
    peer.method(1, keeper, "call", &[text("y")]);
    let call = peer.expect_call_of(2)?;
    peer.reply(&call, &text("alive"));
    peer.expect_value(1, &text("alive"))
}

fn down_is_released(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    for (name, slot) in [("x", 1), ("y", 2), ("z", 3)] {
        peer.ask_method(keeper, "keep", &[text(name), mine(slot)])?;
    }
    peer.send(down(&[(1, 0), (2, 1), (3, 254)]));
    peer.ask_method(keeper, "drop_all", &[])?;
    (1..=3).try_for_each(|slot| peer.expect_released(slot).map(drop))
}

fn down_crosses_release(peer: &mut Peer) -> Verdict {
    peer.ask_method(ROOT, "echo", &[mine(1)])?;
    peer.expect_released(1)?;
    peer.send(down(&[(1, 1)]));
    peer.fence()?;
    check(peer.released().is_empty(), "no second Release", peer.released())
}

fn down_crosses_resend(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), mine(1)])?;
    peer.ask_method(keeper, "drop", &[text("x")])?;
    // As if the Release had not been seen yet.
    peer.method(1, keeper, "keep", &[text("x"), mine(1)]);
    let sent = peer.sent();
    peer.send(down(&[(1, 1)]));
    peer.expect_return(1)?;
    expect_not_called(peer, keeper)?;
    peer.ask_method(keeper, "drop", &[text("x")])?;
    let mut upto = peer.expect_released(1)?;
    if upto < sent {
        upto = peer.expect_released(1)?;
    }
    check(upto >= sent, "a Release of the newer copy", upto)
}

fn down_crosses_call(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), mine(1)])?;
    peer.method(1, keeper, "call", &[text("x")]);
    let call = peer.expect_call_of(1)?;
    peer.send(down(&[(1, 1)]));
    // Error 16, Revoked, with the reason.
    peer.send([0x21, call.id as u8, 16, 0x81]);
    let outcome = peer.expect_outcome(1)?;
    check(outcome.is_err(), "a call that fails", outcome)?;
    expect_not_called(peer, keeper)
}

fn down_never_sent(tester: &mut Tester<'_>) -> Verdict {
    each_ends_the_session(tester, &[&[5, 0, 1], &[5, 40, 1], &[5, 0xFE, 0xFF, 0xFF, 0xFF, 0x1F, 0]], &["REF-8"])
}

fn sent_after_down(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), mine(1)])?;
    peer.send(down(&[(1, 1)]));
    peer.method(1, keeper, "keep", &[text("y"), mine(1)]);
    peer.expect_close("REF-8")
}

fn lent_is_not_released(peer: &mut Peer) -> Verdict {
    for generation in 0..3 {
        let home = Value::Reference(Descriptor::Receiver { slot: 1, generation });
        peer.method(1, ROOT, "echo", &[lent(1, generation), lent(1, generation)]);
        peer.expect_value(1, &tuple([home.clone(), home]))?;
    }
    peer.fence()?;
    check(peer.released().is_empty(), "no Release of what is lent", peer.released())
}

fn lent_is_called(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[lent(1, 0)]);
    let call = peer.expect_call_of(1)?;
    peer.reply(&call, &text("back"));
    peer.expect_value(1, &text("back"))?;
    peer.fence()?;
    check(peer.released().is_empty(), "no Release of what is lent", peer.released())
}

fn lent_is_not_kept(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), lent(1, 0)])?;
    expect_not_called(peer, keeper)?;
    // Its slot is another object's by now.
    peer.ask_method(keeper, "keep", &[text("y"), Value::Reference(Descriptor::Sender { slot: 1, generation: 1 })])?;
    expect_not_called(peer, keeper)?;
    peer.ask_method(keeper, "drop", &[text("x")])?;
    peer.fence()?;
    check(peer.released().is_empty(), "no Release, neither of what was lent nor of what is kept", peer.released())?;
    peer.ask_method(keeper, "drop", &[text("y")])?;
    peer.expect_released(1).map(drop)
}

fn lent_and_sent(peer: &mut Peer) -> Verdict {
    peer.method(1, ROOT, "echo", &[lent(1, 0), mine(1)]);
    peer.expect_value(1, &tuple([home(1), home(1)]))?;
    peer.expect_released(1).map(drop)
}

fn lent_and_sent_in_another_call(peer: &mut Peer) -> Verdict {
    let (caller, keeper) = (peer.root("caller")?, peer.make("keeper", &[])?);
    peer.method(1, caller, "once", &[lent(1, 0)]);
    let call = peer.expect_call_of(1)?;
    peer.ask_method(keeper, "keep", &[text("x"), mine(1)])?;
    peer.reply(&call, &text("back"));
    peer.expect_value(1, &text("back"))?;
    peer.fence()?;
    check(peer.released().is_empty(), "no Release of what is kept", peer.released())?;
    peer.method(1, keeper, "call", &[text("x")]);
    let call = peer.expect_call_of(1)?;
    peer.reply(&call, &text("still there"));
    peer.expect_value(1, &text("still there"))?;
    peer.ask_method(keeper, "drop", &[text("x")])?;
    peer.expect_released(1).map(drop)
}

fn cancel_ends_no_loan(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[lent(1, 0)]);
    let call = peer.expect_call_of(1)?;
    peer.cancel(1, FinishMode::Abandon);
    peer.fence()?;
    check(peer.released().is_empty(), "no Release of what is lent", peer.released())?;
    peer.reply(&call, &text("back"));
    peer.expect_return(1)?;
    peer.fence()?;
    check(peer.released().is_empty(), "no Release of what is lent", peer.released())
}

fn only_arguments_are_lent(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open()?;
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.send(returning(call.id, &lent(2, 0)));
    peer.expect_close_of(&["MSG-1", "REF-2"])?;
    drop(peer);
    // A scope that there is not.
    each_ends_the_session(tester, &[&[0x40, 1, 0, 0, 1, 1 << 3 | 3, 2]], &["MSG-1", "REF-2"])
}

fn weak_is_a_reference(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), weak(1)])?;
    peer.method(1, keeper, "give", &[text("x")]);
    peer.expect_value(1, &home(1))?;
    peer.fence()?;
    check(peer.released().is_empty(), "no Release of what is kept", peer.released())?;
    peer.send(down(&[(1, 0)]));
    expect_not_called(peer, keeper)?;
    peer.ask_method(keeper, "drop", &[text("x")])?;
    peer.expect_released(1)?;
    // An op that the object does not have (OPS-1).
    peer.call(1, keeper, Op::Upgrade, &[]);
    peer.expect_error(1, ErrorCode::Unsupported).map(drop)
}
