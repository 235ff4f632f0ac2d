//! Release by watermark (SPEC section 5, REL).

use farref_core::message::{Limits, Op};

use super::Case;
use crate::suite::peer::{LIMITS, Peer, Tester, Verdict, as_theirs, check, same};
use crate::suite::wire::{Call, Theirs, int, mine, releasing, text};

pub(super) const CASES: &[Case] = &[
    Case::new("REL-1/dropped-reference-is-released", dropped_is_released),
    Case::new("REL-1/reference-held-elsewhere-stays", held_elsewhere),
    Case::new("REL-1/many-dropped-at-once", many_dropped),
    Case::new("REL-1/new-copy-is-never-released-unseen", new_copy_is_seen),
    Case::new("REL-2/release-frees-the-object", release_frees),
    Case::new("REL-2/release-crosses-resend", release_crosses_resend),
    Case::new("REL-2/one-release-for-many-copies", one_release_for_many_copies),
    Case::new("REL-2/repeated-release-does-nothing", repeated_release),
    Case::new("REL-3/freed-slot-comes-in-the-next-generation", next_generation),
    Case::connecting("REL-3/slots-are-used-again-in-turn", slots_in_turn),
    Case::connecting("REL-4/what-was-never-sent-ends-the-session", never_sent),
    Case::connecting("REL-4/ordinal-that-lies-ahead-ends-the-session", ordinal_ahead),
    Case::new("REL-5/release-has-no-answer", no_answer),
];

/// A maker, and a new thing of it.
fn thing(peer: &mut Peer) -> Verdict<(Theirs, Theirs)> {
    let maker = peer.make("maker", &[])?;
    let thing = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    Ok((maker, thing))
}

fn dropped_is_released(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), mine(1)])?;
    peer.fence()?;
    check(peer.released().is_empty(), "no Release of what is kept", peer.released())?;
    peer.ask_method(keeper, "drop", &[text("x")])?;
    let dropped = peer.sent();
    let upto = peer.expect_released(1)?;
    check((dropped..=peer.sent()).contains(&upto), "the ordinal up to which the subject had received", upto)
}

fn held_elsewhere(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), mine(1)])?;
    peer.ask_method(keeper, "keep", &[text("y"), mine(1)])?;
    peer.ask_method(keeper, "drop", &[text("x")])?;
    peer.fence()?;
    peer.fence()?;
    check(peer.released().is_empty(), "no Release of what is kept", peer.released())?;
    peer.ask_method(keeper, "drop", &[text("y")])?;
    peer.expect_released(1)?;
    peer.fence()?;
    check(peer.released().is_empty(), "one Release", peer.released())
}

fn many_dropped(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    for slot in 1..=100 {
        peer.ask_method(keeper, "keep", &[text(&slot.to_string()), mine(slot)])?;
    }
    peer.ask_method(keeper, "drop_all", &[])?;
    (1..=100).try_for_each(|slot| peer.expect_released(slot).map(drop))
}

fn new_copy_is_seen(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("x"), mine(1)])?;
    // The ordinals of what lets it go and of what brings a new copy.
    let (mut drops, mut copies) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        drops.push(peer.sent() + 1);
        copies.push(peer.sent() + 2);
        let drop = Call::method(1, keeper, "drop", &[text("x")]);
        let keep = Call::method(2, keeper, "keep", &[text("x"), mine(1)]);
        peer.send_together([drop.body(), keep.body()]);
        peer.expect_return(1)?;
        peer.expect_return(2)?;
    }
    peer.fence()?;
    for (upto, _) in peer.released() {
        let between = drops.iter().zip(&copies).any(|(drop, copy)| (*drop..*copy).contains(upto));
        check(between, "a Release only up to where the reference was let go", upto)?;
    }
    let call = Call::method(1, keeper, "call", &[text("x")]);
    peer.send(call);
    let call = peer.expect_call_of(1)?;
    peer.reply(&call, &int(9));
    peer.expect_value(1, &int(9))
}

fn release_frees(peer: &mut Peer) -> Verdict {
    let (maker, thing) = thing(peer)?;
    same("what is alive", &int(1), &peer.ask_method(maker, "alive", &[])?)?;
    peer.release(&[thing]);
    peer.until(maker, "alive", &int(0))
}

fn release_crosses_resend(peer: &mut Peer) -> Verdict {
    let maker = peer.make("maker", &[])?;
    let thing = as_theirs(&peer.ask_method(maker, "hold", &[])?)?;
    let first_copy = peer.received();
    peer.ask_method(maker, "held", &[])?;
    peer.ask_method(maker, "let_go", &[])?;
    // This Release was written before the second copy came, as it were.
    peer.send(releasing(first_copy, &[thing]));
    same("the thing", &int(1), &peer.ask(thing, Op::Call, &[])?)?;
    same("what is alive", &int(1), &peer.ask_method(maker, "alive", &[])?)?;
    peer.release(&[thing]);
    peer.until(maker, "alive", &int(0))
}

fn one_release_for_many_copies(peer: &mut Peer) -> Verdict {
    let maker = peer.make("maker", &[])?;
    let thing = as_theirs(&peer.ask_method(maker, "hold", &[])?)?;
    for _ in 0..10 {
        same("the thing", &thing, &as_theirs(&peer.ask_method(maker, "held", &[])?)?)?;
    }
    peer.ask_method(maker, "let_go", &[])?;
    same("what is alive", &int(1), &peer.ask_method(maker, "alive", &[])?)?;
    peer.release(&[thing]);
    peer.until(maker, "alive", &int(0))
}

fn repeated_release(peer: &mut Peer) -> Verdict {
    let (maker, first) = thing(peer)?;
    let upto = peer.received();
    let release = || releasing(upto, &[first]);
    peer.send_together([release(), release()]);
    peer.until(maker, "alive", &int(0))?;
    let second = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    same("the slot of the next thing", &first.slot, &second.slot)?;
    peer.send(release());
    // The same, with an ordinal that covers the new thing: it names the old generation.
    peer.send(releasing(peer.received(), &[first]));
    same("the next thing", &int(2), &peer.ask(second, Op::Call, &[])?)?;
    same("what is alive", &int(1), &peer.ask_method(maker, "alive", &[])?)
}

fn next_generation(peer: &mut Peer) -> Verdict {
    let (maker, mut thing) = thing(peer)?;
    for _ in 0..200 {
        peer.release(&[thing]);
        let next = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
        same("the next handle", &Theirs { generation: thing.generation + 1, ..thing }, &next)?;
        thing = next;
    }
    peer.until(maker, "alive", &int(1))
}

fn slots_in_turn(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open_with(Limits { imports: 16, ..LIMITS })?;
    let (maker, first) = thing(&mut peer)?;
    let [second, third] = [(); 2].map(|()| peer.ask_method(maker, "make", &[]));
    let (second, third) = (as_theirs(&second?)?, as_theirs(&third?)?);
    peer.release(&[second]);
    peer.release(&[first]);
    peer.release(&[third]);
    for freed in [second, first, third] {
        let next = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
        same("the slot that has been free longest", &Theirs { generation: freed.generation + 1, ..freed }, &next)?;
    }
    let fresh = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    same("the generation of a slot that was never used", &0, &fresh.generation)
}

fn never_sent(tester: &mut Tester<'_>) -> Verdict {
    let releases: [fn(&mut Peer, Theirs); 4] = [
        |peer, thing| peer.release(&[Theirs { slot: thing.slot + 700, generation: 0 }]),
        |peer, thing| peer.release(&[Theirs { generation: thing.generation + 1, ..thing }]),
        |peer, thing| {
            // Free now, and its next generation was not used yet.
            peer.release(&[thing]);
            peer.release(&[Theirs { generation: thing.generation + 1, ..thing }]);
        },
        |peer, _| peer.release(&[Theirs { slot: 0, generation: 0 }]),
    ];
    releases.into_iter().try_for_each(|release| {
        let mut peer = tester.open()?;
        let (_, thing) = thing(&mut peer)?;
        release(&mut peer, thing);
        peer.expect_close("REL-4")
    })
}

fn ordinal_ahead(tester: &mut Tester<'_>) -> Verdict {
    [1, 1000, 1 << 30].into_iter().try_for_each(|ahead| {
        let mut peer = tester.open()?;
        let (_, thing) = thing(&mut peer)?;
        let upto = peer.received() + ahead;
        peer.send(releasing(upto, &[thing]));
        peer.expect_close("REL-4")
    })
}

fn no_answer(peer: &mut Peer) -> Verdict {
    let (maker, thing) = thing(peer)?;
    let before = peer.received();
    peer.release(&[thing]);
    peer.fence()?;
    same("the messages that came", &(before + 1), &peer.received())?;
    peer.until(maker, "alive", &int(0))
}
