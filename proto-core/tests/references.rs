//! References that go down, that are lent, that are weak: each race (REF-8 to REF-10).

use farref_conformance::fixtures::{
    caller_back, code, counter, echo, factory, function, int, keeper, later, object, reference,
};
use farref_conformance::sim::{A, B, BASELINE, Failure, LIMITS, Returned, Side, Sim, body, config};
use farref_core::dispatch::{Action, Member};
use farref_core::message::{Descriptor, DownReason, ErrorCode, FinishMode, Limits, Op};
use farref_core::session::{
    Call, CallError, Callee, Ended, Event, Host, Import, Micro, Notice, ObjectKey, Ref, Reference, ReplyError, Rule,
    Session, Stale, Tables,
};
use farref_core::value::OwnedValue;

const REVOKED: DownReason = DownReason::Revoked;

/// Error 16 with its reason.
fn revoked(reason: DownReason) -> Failure {
    Failure { code: ErrorCode::Revoked, values: vec![int(reason.number().into())] }
}

fn import(returned: &Returned) -> Import {
    match returned.outcome {
        Ok(OwnedValue::Reference(Ref::Import(import))) => import,
        ref other => panic!("{other:?}"),
    }
}

/// B serves a counter; gives its key, and A's reference.
fn served() -> (Sim<Host>, ObjectKey, Import) {
    let mut sim = Sim::new(LIMITS).trace();
    let key = sim.sides[B].add_root("x", counter());
    let x = sim.root(A, "x");
    sim.mark();
    (sim, key, x)
}

/// REF-8: who holds a reference is told once that it is down and why; calls on it fail here without a message; its slot is
/// free only when it was released (REL-5).
#[test]
fn what_is_revoked_is_down() {
    let (mut sim, key, x) = served();
    sim.sides[B].session.revoke(key, REVOKED).unwrap();
    sim.run();
    assert_eq!(sim.sides[B].freed, [key], "nothing runs on it");
    assert_eq!(sim.sides[A].down, [(x, REVOKED)]);
    assert_eq!(sim.sides[A].session.down(x), Some(REVOKED));
    // One message, of head, slot and reason.
    assert_eq!((sim.counts().messages, sim.counts().bytes), (1, 4));
    assert_eq!(sim.sides[A].call(Call::new(Callee::Import(x), Op::Call), &[]), Err(CallError::Revoked(REVOKED)));
    assert_eq!(sim.sides[B].session.tables().exports, 2, "a tombstone");
    assert_eq!(sim.sides[B].session.revoke(key, DownReason::Gone), Err(Stale), "nobody can reach it any more");
    sim.close(x);
}

/// REF-8: a call that crosses the Down finds a tombstone: an error of its own, unlike that of an object that there is not
/// (REF-5). Host revokes an exported object.
#[test]
fn down_crosses_a_call() {
    let (mut sim, key, x) = served();
    let crossing = sim.call(A, Call::new(Callee::Import(x), Op::member(0)), &[int(1)]);
    sim.transmit(A);
    sim.sides[B].session.revoke(key, DownReason::PeerLost).unwrap();
    sim.run();
    assert_eq!(sim.returned(A, crossing).outcome, Err(revoked(DownReason::PeerLost)));
    assert_eq!(sim.sides[A].down, [(x, DownReason::PeerLost)]);
    sim.close(x);
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    assert_eq!(side.receive(&[0, 0, 5 << 2, 0]), Ok(()));
    assert_eq!(side.output(), [[0x21, 0, ErrorCode::NoSuchObject.number() as u8]]);
}

/// REF-8, CAL-4: what runs goes on, and the object is there until then; what waits, and what waits for it as a promise, never
/// starts. A call that names an answer which had settled to it fails alike.
#[test]
fn calls_that_have_not_started_fail() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let (postponed, object) = later();
    let target = sim.sides[B].add(object);
    sim.sides[B].add_root("give", function(move |_, reply| reply.reference(Ref::Local(target))));
    let (gate, waits) = later();
    sim.sides[B].add_root("gate", waits);
    let [give, gate_of] = ["give", "gate"].map(|name| sim.root(A, name));
    let given = sim.call(A, Call::new(Callee::Import(give), Op::Call).pipelined(), &[]);
    let running = sim.call(A, Call::new(Callee::Promise(given), Op::Call).pipelined(), &[]);
    let promise = sim.call(A, Call::new(Callee::Import(gate_of), Op::Call).pipelined(), &[]);
    // One waits for the gate with the revoked object as its target, one for what runs.
    sim.transmit(A);
    while sim.deliver(A) {}
    let target_import = {
        sim.transmit(B);
        while sim.deliver(B) {}
        sim.returned(A, given)
    };
    let held = import(&target_import);
    let waiting = sim.call(A, Call::new(Callee::Import(held), Op::Call), &[reference(Ref::Promise(promise))]);
    sim.run();
    sim.sides[B].session.revoke(target, REVOKED).unwrap();
    sim.run();
    assert_eq!(sim.returned(A, waiting).outcome, Err(revoked(REVOKED)));
    assert!(sim.sides[B].has(target), "a call runs on it");
    sim.sides[B].reply(postponed.next().unwrap(), &int(4));
    sim.run();
    assert_eq!(sim.returned(A, running).outcome, Ok(int(4)));
    assert!(!sim.sides[B].has(target));
    sim.sides[B].reply(gate.next().unwrap(), &int(5));
    sim.run();
    let _ = sim.returned(A, promise);
    sim.sides[A].release(&target_import);
    for import in [give, gate_of] {
        sim.sides[A].session.release(import).unwrap();
    }
    sim.assert_baseline();
}

/// REF-8, ANS-4: an answer that had settled to the object has it no more: calls that name it fail with `Revoked`, before and
/// after the Return was read.
#[test]
fn an_answer_that_settled_to_it_has_failed() {
    let (mut sim, key, x) = served();
    let given = sim.call(A, Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr).pipelined(), &["x".into()]);
    sim.transmit(A);
    sim.deliver(A);
    sim.sides[B].session.revoke(key, REVOKED).unwrap();
    sim.sides[B].settle();
    assert_eq!(sim.sides[B].freed, [key]);
    let target = sim.call(A, Call::new(Callee::Promise(given), Op::member(0)), &[int(1)]);
    let args = [reference(Ref::Promise(given))];
    let argument = sim.call(A, Call::new(Callee::Import(Import::DIRECTORY), Op::Contains), &args);
    sim.run();
    assert_eq!(sim.returned(A, target).outcome, Err(revoked(REVOKED)));
    assert_eq!(sim.returned(A, argument).outcome, Err(revoked(REVOKED)));
    let given = sim.returned(A, given);
    assert_eq!(import(&given), x);
    sim.sides[A].release(&given);
    sim.close(x);
}

/// REF-8, REL-2: a Down that crosses the Release of its slot is ignored, and so is one of a generation before.
#[test]
fn down_crosses_release() {
    let (mut sim, key, x) = served();
    sim.sides[A].session.release(x).unwrap();
    sim.transmit(A);
    sim.sides[B].session.revoke(key, REVOKED).unwrap();
    sim.transmit(B);
    // The Down arrives first, and there is nothing that it could be for.
    sim.deliver(B);
    sim.run();
    assert!(sim.sides[A].down.is_empty());
    sim.assert_baseline();
}

/// REF-8: a Release that arrives before the Down could be written: there is nothing to tell any more, and the slot is another
/// object's, which is not down.
#[test]
fn a_release_overtakes_a_down() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let [first, second] = [7, 8].map(ObjectKey);
    let send = |session: &mut Session<Host>, reference| {
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
        session.call(call.references(&[reference]), |writer| writer.reference(0)).map(drop)
    };
    let session = &mut side.session;
    send(session, Ref::Local(first)).unwrap();
    session.revoke(first, REVOKED).unwrap();
    assert_eq!(session.poll_notice(), Some(Notice::Freed(first)));
    assert!(session.handle(&[3, 1, 1 << 1]).is_ok());
    // What is lent would take the Down's place in a list: it is sent as usual instead.
    send(session, Ref::Borrowed(second)).unwrap();
    let sent = side.output();
    assert_eq!(sent.len(), 2, "no Down: {sent:02x?}");
    assert_eq!(sent[1][5], 1 << 3 | 4, "kind 0, slot 1, with a generation");
    side.session.revoke(second, REVOKED).unwrap();
    assert_eq!(side.output(), [[5, 1 << 1 | 1, 1, 1]]);
}

/// REF-8, REL-2: an object that was released and sent again, and revoked after that: the newer copy is told to be down, the
/// Release of the older one is ignored, and that of the newer one frees the tombstone.
#[test]
fn down_crosses_a_new_copy() {
    let (mut sim, key, x) = served();
    let again = sim.call(A, Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr), &["x".into()]);
    sim.transmit(A);
    sim.sides[A].session.release(x).unwrap();
    sim.transmit(A);
    sim.deliver(A);
    sim.sides[B].session.revoke(key, REVOKED).unwrap();
    sim.transmit(B);
    sim.run();
    let again = sim.returned(A, again);
    assert_eq!(import(&again), x);
    assert_eq!(sim.sides[A].down, [(x, REVOKED)]);
    assert_eq!(sim.sides[B].session.tables().exports, 2);
    sim.sides[A].release(&again);
    sim.assert_baseline();
}

/// REF-8: a reference that was marked for release came again and went down before the Release was made: its holder is told.
#[test]
fn what_came_again_and_went_down_is_told() {
    let (mut sim, key, x) = served();
    let again = sim.call(A, Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr), &["x".into()]);
    sim.transmit(A);
    sim.deliver(A);
    sim.transmit(B);
    sim.sides[B].session.revoke(key, REVOKED).unwrap();
    sim.transmit(B);
    // Marked, and not released yet.
    sim.sides[A].session.release(x).unwrap();
    while sim.deliver(B) {}
    assert_eq!(sim.sides[A].down, [(x, REVOKED)]);
    sim.mark();
    sim.run();
    assert_eq!(sim.counts().messages, 0, "the mark was cleared (REL-1)");
    let again = sim.returned(A, again);
    sim.sides[A].release(&again);
    sim.assert_baseline();
}

/// REF-8: a reference that comes home to a tombstone is an error of that call alone, as an argument and in a Return.
#[test]
fn a_tombstone_that_comes_home_fails_its_call() {
    let (mut sim, key, x) = served();
    sim.sides[B].add_root("echo", echo());
    let back = caller_back(&sim.sides[A].board);
    let back = sim.sides[A].add(back);
    let echo_of = sim.root(A, "echo");
    let argument = sim.call(A, Call::new(Callee::Import(echo_of), Op::Call), &[reference(Ref::Import(x))]);
    sim.transmit(A);
    sim.sides[B].session.revoke(key, REVOKED).unwrap();
    sim.run();
    assert_eq!(sim.returned(A, argument).outcome, Err(revoked(REVOKED)));
    // As the result of a call of B: A answers with what B has revoked.
    let (postponed, object) = later();
    let give = sim.sides[A].add(object);
    let root = sim.sides[B].add_root("take", keeper(&sim.sides[B].board.clone()));
    let take = sim.root(A, "take");
    assert_eq!(sim.get(A, take, Op::member(0), &[reference(Ref::Local(give))]), Ok(OwnedValue::None));
    let asked = sim.call(A, Call::new(Callee::Import(take), Op::member(1)), &[]);
    sim.run();
    sim.sides[A].reply(postponed.next().unwrap(), &reference(Ref::Import(x)));
    sim.run();
    assert_eq!(code(sim.returned(A, asked).outcome), ErrorCode::Revoked);
    let _ = (root, back);
    assert_eq!(sim.get(A, take, Op::member(2), &[]), Ok(OwnedValue::None));
    for import in [x, echo_of, take] {
        sim.sides[A].session.release(import).unwrap();
    }
    sim.run();
    assert_eq!(sim.sides.each_ref().map(|side| side.session.tables()), [BASELINE; 2]);
}

/// REF-8: what is revoked cannot be sent, however: the command fails before anything has changed. When it was freed, its key
/// is free too and means another object, in another slot.
#[test]
fn what_is_revoked_cannot_be_sent() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let (postponed, object) = later();
    let key = sim.sides[B].add_root("x", object);
    let x = sim.root(A, "x");
    let running = sim.call(A, Call::new(Callee::Import(x), Op::Call), &[]);
    sim.run();
    sim.sides[B].session.revoke(key, REVOKED).unwrap();
    sim.run();
    let before = sim.sides[B].session.tables();
    for sent in [Ref::Local(key), Ref::Borrowed(key), Ref::Weak(key)] {
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr).references(&[Ref::Local(ObjectKey(99))]);
        let both = [Ref::Local(ObjectKey(99)), sent];
        let failed = sim.sides[B].session.call(Call { references: &both, ..call }, |_| Ok(()));
        assert_eq!(failed, Err(CallError::BadReference(1)), "{sent:?}");
    }
    let answer = postponed.next().unwrap();
    let failed = sim.sides[B].session.reply(answer, &[Ref::Local(key)], |writer| writer.reference(0));
    assert_eq!(failed, Err(ReplyError::BadReference(0)));
    assert_eq!(sim.sides[B].session.tables(), before);
    sim.sides[B].reply(answer, &int(1));
    sim.run();
    assert_eq!(sim.returned(A, running).outcome, Ok(int(1)));
    assert_eq!(sim.sides[B].freed, [key]);
    let anew = sim.root(A, "x");
    assert_ne!(anew.slot(), x.slot());
    for import in [x, anew] {
        sim.sides[A].session.release(import).unwrap();
    }
    sim.assert_baseline();
}

/// REF-8, ADM-6: many that are down are told in few messages, however little room there is; none is told twice.
#[test]
fn many_go_down_through_a_small_output() {
    type Tight = Micro<24, 24, 4, 128, 256>;
    let limits = Limits { max_message: 4096, imports: 24, answers: 4, call_bytes: 128, handles: 24, levels: 4 };
    let mut sim = Sim::<Tight>::with([config(limits), config(limits)]);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("make", factory(&board));
    let make = sim.root(A, "make");
    let made: Vec<_> = (0..20).map(|_| sim.ask(A, make, Op::Call, &[])).collect();
    // Keys are given in turn: the root has the first.
    (2..22).for_each(|key| sim.sides[B].session.revoke(ObjectKey(key), DownReason::Gone).unwrap());
    sim.run();
    assert_eq!((sim.sides[A].down.len(), sim.sides[B].freed.len()), (20, 20));
    made.iter().for_each(|returned| sim.sides[A].release(returned));
    sim.run();
    assert_eq!(sim.sides[A].down.len(), 20);
    sim.sides[A].session.release(make).unwrap();
    sim.assert_baseline();
}

/// REF-8: the end of what was never sent, or a handle after its end, can only be a faulty peer's. What is not held any more may
/// have crossed.
#[test]
fn the_end_of_what_was_never_sent_ends_the_session() {
    let scripted = || {
        let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
        // A call of the directory with slots 1 and 2, generation 3, as arguments it has no use for.
        assert_eq!(side.receive(&[0x40, 0, 0, 1, 2, 1 << 3 | 4, 3, 2 << 3 | 4, 3]), Ok(()));
        side
    };
    for fine in [
        &[5, 1 << 1 | 1, 3, 1][..],
        &[5, 1 << 1 | 1, 2, 1],
        &[5, 1 << 1, 1],
        &[5, 1 << 1 | 1, 3, 1, (2 << 1) | 1, 3, 254, 1],
    ] {
        assert_eq!(scripted().receive(fine), Ok(()), "{fine:02x?}");
    }
    for bad in [&[5, 0, 1][..], &[5, 3 << 1, 1], &[5, 0xFE, 0xFF, 0xFF, 0xFF, 0x1F, 0]] {
        assert_eq!(scripted().receive(bad), Err(Ended::PeerFault(Rule::DownNeverSent)), "{bad:02x?}");
    }
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    side.add_root("keeper", keeper(&side.board.clone()));
    assert_eq!(side.receive(&[0x40, 0, 0, 1, 1, 1 << 3, 0x0D, 0]), Ok(()));
    let call = [0x40, 1, 0, 1, 1, 1 << 3, 0x0D, 0];
    let Ok(Some(Event::Request(_))) = side.session.handle(&call) else { panic!() };
    assert_eq!(side.receive(&[5, 1 << 1, 1]), Ok(()));
    assert_eq!(side.receive(&[0x40, 2, 0, 1, 1, 1 << 3]), Err(Ended::PeerFault(Rule::DownNeverSent)));
}

/// REF-9: a callback that is lent costs no Release: the call, its callback, two Returns; both sides are at the baseline.
#[test]
fn what_is_lent_costs_no_release() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("back", caller_back(&board));
    let back = sim.root(A, "back");
    sim.mark();
    let twice = sim.sides[A].add(echo());
    let asked = sim.call(A, Call::new(Callee::Import(back), Op::Call), &[reference(Ref::Borrowed(twice)), int(7)]);
    sim.run();
    assert_eq!(sim.returned(A, asked).outcome, Ok(int(7)));
    assert_eq!(sim.counts().messages, 4);
    assert_eq!(sim.sides[A].freed, [twice]);
    sim.close(back);
}

/// REF-9: the callee keeps a callback that was lent: it is gone with the Return, using it and giving it back do nothing, and
/// what comes in its slot is another reference.
#[test]
fn the_callee_keeps_what_was_lent() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("keeper", keeper(&board));
    let keeper = sim.root(A, "keeper");
    let lent = sim.sides[A].add(echo());
    assert_eq!(sim.get(A, keeper, Op::member(0), &[reference(Ref::Borrowed(lent))]), Ok(OwnedValue::None));
    assert_eq!(sim.sides.each_ref().map(|side| side.session.tables().imports), [1, 0]);
    assert_eq!(sim.sides[A].freed, [lent]);
    let failed = sim.get(A, keeper, Op::member(1), &[]).unwrap_err();
    assert_eq!(failed.exception().unwrap().0, "RuntimeError", "no call is made on it");
    // It is replaced by one that stays, in the same slot: giving the first one back does not touch the second.
    let kept = sim.sides[A].add(echo());
    assert_eq!(sim.get(A, keeper, Op::member(0), &[reference(Ref::Local(kept))]), Ok(OwnedValue::None));
    assert_eq!(sim.get(A, keeper, Op::member(1), &[int(3)]), Ok(int(3)));
    assert_eq!(sim.get(A, keeper, Op::member(2), &[]), Ok(OwnedValue::None));
    sim.close(keeper);
}

/// REF-9: a peer that releases what was lent changes nothing: the slot goes with the Return.
#[test]
fn a_release_of_what_is_lent_is_ignored() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let key = side.add_permanent(counter());
    side.call(Call::new(Callee::Import(Import::DIRECTORY), Op::Call), &[reference(Ref::Borrowed(key))]).unwrap();
    side.output();
    assert_eq!(side.receive(&[3, 1, 1 << 1]), Ok(()));
    assert_eq!(side.session.tables().exports, 2);
    assert!(side.freed.is_empty());
    assert_eq!(side.receive(&[1, 0]), Ok(()));
    assert_eq!(side.session.tables(), BASELINE);
    assert_eq!(side.freed, [key]);
}

/// REF-9: an object that was lent is sent as usual while its Return is under way: the new reference has the same slot and
/// generation, and giving back the one that was lent does not touch it.
#[test]
fn a_resend_crosses_the_end_of_a_loan() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let (postponed, object) = later();
    sim.sides[B].add_root("later", object);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("keeper", keeper(&board));
    let [later, keeper] = ["later", "keeper"].map(|name| sim.root(A, name));
    let lent = sim.sides[A].add(echo());
    let held = |sim: &mut Sim<Host>| {
        let handle = Descriptor::Sender { slot: 1, generation: 0 };
        match sim.sides[B].session.resolve(handle) {
            Some(Reference::Import(import)) => import,
            other => panic!("{other:?}"),
        }
    };
    let asked = sim.call(A, Call::new(Callee::Import(later), Op::Call), &[reference(Ref::Borrowed(lent))]);
    sim.run();
    let stale = held(&mut sim);
    sim.sides[B].session.retain(stale).unwrap();
    sim.sides[B].reply(postponed.next().unwrap(), &int(1));
    sim.transmit(B);
    let again = sim.call(A, Call::new(Callee::Import(keeper), Op::member(0)), &[reference(Ref::Local(lent))]);
    sim.run();
    assert_eq!(sim.returned(A, asked).outcome, Ok(int(1)));
    assert_eq!(sim.returned(A, again).outcome, Ok(OwnedValue::None));
    assert_ne!(held(&mut sim), stale, "the same slot and generation, another reference");
    assert_eq!(sim.sides[B].session.release(stale), Err(Stale));
    assert_eq!(sim.sides[B].session.retain(stale), Err(Stale));
    assert_eq!(sim.get(A, keeper, Op::member(1), &[int(3)]), Ok(int(3)));
    assert!(sim.sides[A].freed.is_empty());
    assert_eq!(sim.get(A, keeper, Op::member(2), &[]), Ok(OwnedValue::None));
    assert_eq!(sim.sides[A].freed, [lent]);
    sim.sides[A].session.release(later).unwrap();
    sim.close(keeper);
}

/// REF-9: what is sent as usual, or lent again, while the call lasts stays for longer than that; so does what was held before.
/// Then it is released.
#[test]
fn what_is_lent_and_sent_is_not_lent() {
    for (first, second) in [(true, false), (true, true), (false, true)] {
        let mut sim = Sim::<Host>::new(LIMITS);
        let (postponed, object) = later();
        sim.sides[B].add_root("later", object);
        let board = sim.sides[B].board.clone();
        sim.sides[B].add_root("keeper", keeper(&board));
        let [later, keeper] = ["later", "keeper"].map(|name| sim.root(A, name));
        let key = sim.sides[A].add(echo());
        let as_sent = |lent| reference(if lent { Ref::Borrowed(key) } else { Ref::Local(key) });
        let asked = sim.call(A, Call::new(Callee::Import(later), Op::Call), &[as_sent(first)]);
        // With the first one dropped by its receiver the second is still the same slot: A does not know yet.
        if first {
            sim.run();
        } else {
            sim.transmit(A);
            sim.deliver(A);
        }
        let kept = sim.call(A, Call::new(Callee::Import(keeper), Op::member(0)), &[as_sent(second)]);
        sim.run();
        assert_eq!(sim.returned(A, kept).outcome, Ok(OwnedValue::None));
        sim.sides[B].reply(postponed.next().unwrap(), &int(1));
        sim.run();
        assert_eq!(sim.returned(A, asked).outcome, Ok(int(1)));
        assert!(sim.sides[A].freed.is_empty(), "{first} {second}");
        assert_eq!(sim.get(A, keeper, Op::member(1), &[int(3)]), Ok(int(3)));
        assert_eq!(sim.get(A, keeper, Op::member(2), &[]), Ok(OwnedValue::None));
        assert_eq!(sim.sides[A].freed, [key]);
        sim.sides[A].session.release(later).unwrap();
        sim.close(keeper);
    }
}

/// REF-9: both in one message is not lent, in either order; lent twice in one message is lent.
#[test]
fn what_is_lent_and_sent_in_one_message() {
    let key = ObjectKey(7);
    let (lent, local) = (Ref::Borrowed(key), Ref::Local(key));
    for (references, is_lent) in [([lent, lent], true), ([lent, local], false), ([local, lent], false)] {
        let mut sim = Sim::<Host>::new(LIMITS);
        let args = references.map(reference);
        let question = sim.call(A, Call::new(Callee::Import(Import::DIRECTORY), Op::Contains), &args);
        sim.mark();
        sim.run();
        let _ = sim.returned(A, question);
        assert_eq!(sim.sent(A).messages, 1);
        assert_eq!(sim.sent(B).messages, if is_lent { 1 } else { 2 }, "{references:?}");
        assert_eq!(sim.sides[A].freed, [key]);
        sim.assert_baseline();
    }
}

/// REF-9: a cancel ends no loan: the callee calls back after it. The loan ends with the Return, told or not.
#[test]
fn a_cancel_ends_no_loan() {
    for mode in [FinishMode::Abandon, FinishMode::Interrupt] {
        let mut sim = Sim::<Host>::new(LIMITS);
        let (postponed, object) = later();
        sim.sides[B].add_root("later", object);
        let later = sim.root(A, "later");
        let key = sim.sides[A].add(echo());
        let asked = sim.call(A, Call::new(Callee::Import(later), Op::Call), &[reference(Ref::Borrowed(key))]);
        sim.transmit(A);
        sim.deliver(A);
        let Some(Reference::Import(lent)) =
            sim.sides[B].session.resolve(Descriptor::Borrowed { slot: 1, generation: 0 })
        else {
            panic!()
        };
        sim.sides[B].session.retain(lent).unwrap();
        sim.sides[A].session.cancel(asked, mode).unwrap();
        sim.run();
        assert!(sim.sides[A].has(key));
        assert_eq!(sim.get(B, lent, Op::Call, &[int(5)]), Ok(int(5)));
        sim.sides[B].reply(postponed.next().unwrap(), &int(1));
        sim.run();
        assert!(!sim.sides[A].has(key));
        assert_eq!(sim.sides[B].session.release(lent), Err(Stale));
        sim.close(later);
    }
}

/// REF-9: a call that is refused, that waits and is cancelled, or whose result is too large, ends its loans with its Return.
#[test]
fn loans_end_with_every_return() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let (gate, object) = later();
    sim.sides[B].add_root("gate", object);
    let gate_of = sim.root(A, "gate");
    let lend = |sim: &mut Sim<Host>| reference(Ref::Borrowed(sim.sides[A].add(echo())));
    let lent = lend(&mut sim);
    assert_eq!(code(sim.get(A, gate_of, Op::from_number(50), &[lent])), ErrorCode::Unsupported);
    let promise = sim.call(A, Call::new(Callee::Import(gate_of), Op::Call).pipelined(), &[]);
    let lent = lend(&mut sim);
    let waiting = sim.call(A, Call::new(Callee::Promise(promise), Op::Call), &[lent]);
    sim.run();
    sim.sides[A].session.cancel(waiting, FinishMode::Interrupt).unwrap();
    sim.run();
    assert_eq!(code(sim.returned(A, waiting).outcome), ErrorCode::Cancelled);
    let lent = lend(&mut sim);
    let broken = sim.call(A, Call::new(Callee::Promise(promise), Op::Call), &[lent]);
    sim.run();
    sim.sides[B].fail(gate.next().unwrap(), &Failure { code: ErrorCode::AccessDenied, values: vec![] });
    sim.run();
    assert_eq!(code(sim.returned(A, broken).outcome), ErrorCode::Broken);
    let _ = sim.returned(A, promise);
    assert_eq!(sim.sides[A].freed.len(), 3);
    sim.close(gate_of);
}

/// REF-9, ANS-6: what was lent comes home as the result of its call, and is looked up before the slot is freed. A call that was
/// made for that answer meanwhile fails with `NotKept`: the callee has it no more.
#[test]
fn what_was_lent_comes_home() {
    let mut sim = Sim::<Host>::new(LIMITS);
    sim.sides[B].add_root("echo", echo());
    let echo_of = sim.root(A, "echo");
    let key = sim.sides[A].add_permanent(counter());
    let call = Call::new(Callee::Import(echo_of), Op::Call).pipelined();
    let asked = sim.call(A, call, &[reference(Ref::Borrowed(key))]);
    let built = sim.call(A, Call::new(Callee::Promise(asked), Op::member(0)), &[int(1)]);
    sim.run();
    assert_eq!(sim.returned(A, asked).outcome, Ok(reference(Ref::Local(key))));
    assert_eq!(code(sim.returned(A, built).outcome), ErrorCode::NotKept);
    sim.close(echo_of);
}

/// REF-9, ADM-3: only arguments of calls are lent; a call that fails lends nothing.
#[test]
fn only_arguments_of_calls_are_lent() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let (postponed, object) = later();
    sim.sides[B].add_root("later", object);
    let later = sim.root(A, "later");
    let asked = sim.call(A, Call::new(Callee::Import(later), Op::Call), &[]);
    sim.run();
    let answer = postponed.next().unwrap();
    let lent = [Ref::Borrowed(ObjectKey(50))];
    let failed = sim.sides[B].session.reply(answer, &lent, |writer| writer.reference(0));
    assert_eq!(failed, Err(ReplyError::BadReference(0)));
    let too_long = vec![0; 1 << 17];
    let call = Call::new(Callee::Import(later), Op::Call).references(&lent);
    let failed = sim.sides[A].session.call(call, |writer| writer.bytes(&too_long));
    assert!(matches!(failed, Err(CallError::TooLarge(_))), "{failed:?}");
    sim.sides[B].reply(answer, &int(1));
    sim.run();
    assert_eq!(sim.returned(A, asked).outcome, Ok(int(1)));
    assert!(sim.sides[A].freed.is_empty());
    sim.close(later);
}

/// REF-8, REF-9: what is lent and revoked is a tombstone until the Return, which is its end; no Down is sent for it.
#[test]
fn what_is_lent_is_revoked() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let (postponed, object) = later();
    sim.sides[B].add_root("later", object);
    let later = sim.root(A, "later");
    let key = sim.sides[A].add(echo());
    let asked = sim.call(A, Call::new(Callee::Import(later), Op::Call), &[reference(Ref::Borrowed(key))]);
    sim.run();
    let handle = Descriptor::Borrowed { slot: 1, generation: 0 };
    let Some(Reference::Import(lent)) = sim.sides[B].session.resolve(handle) else { panic!() };
    sim.sides[B].session.retain(lent).unwrap();
    sim.mark();
    sim.sides[A].session.revoke(key, REVOKED).unwrap();
    sim.run();
    assert_eq!(sim.counts().messages, 0);
    assert_eq!(sim.sides[A].freed, [key], "the object is let go at once");
    assert_eq!(sim.get(B, lent, Op::Call, &[]), Err(revoked(REVOKED)));
    sim.sides[B].reply(postponed.next().unwrap(), &int(1));
    sim.run();
    assert_eq!(sim.returned(A, asked).outcome, Ok(int(1)));
    assert!(sim.sides[B].down.is_empty());
    sim.close(later);
}

/// B serves `get`, which gives a weak reference to an object of its own; `upgrades` says whether that is still there.
fn weak() -> (Sim<Host>, ObjectKey, ObjectKey, Import) {
    const MEMBERS: &[Member] = &[];
    let mut sim = Sim::<Host>::new(LIMITS);
    let target = sim.sides[B].add(counter());
    let weak = sim.sides[B].add_permanent(object(MEMBERS, move |action, _, reply| match action {
        Action::Upgrade => reply.reference(Ref::Local(target)),
        _ => reply.unsupported(),
    }));
    sim.sides[B].add_root("get", function(move |_, reply| reply.reference(Ref::Weak(weak))));
    let get = sim.root(A, "get");
    sim.mark();
    (sim, target, weak, get)
}

/// REF-10: a weak reference has a slot of its own and says that it is weak; upgraded it gives the object; what holds the weak
/// one does not hold the object.
#[test]
fn a_weak_reference_is_upgraded() {
    let (mut sim, target, weak, get) = weak();
    let asked = sim.call(A, Call::new(Callee::Import(get), Op::Call), &[]);
    sim.transmit(A);
    sim.deliver(A);
    let sent = sim.sides[B].output();
    assert_eq!(sent, [[0x41, asked.id() as u8, 1, 2 << 3 | 3, 1, 0x0D, 0]], "slot 2, scope 1");
    let Ok(Some(Event::Return(returned))) = sim.sides[A].session.handle(&sent[0]) else { panic!() };
    let handle = returned.handles.get(0).unwrap();
    let Some(Reference::Weak(held)) = sim.sides[A].session.resolve(handle) else { panic!() };
    assert!(!sim.sides[B].session.is_exported(target));
    let upgraded = sim.ask(A, held, Op::Upgrade, &[]);
    assert_eq!(sim.get(A, import(&upgraded), Op::member(0), &[int(2)]), Ok(int(2)));
    sim.sides[A].release(&upgraded);
    sim.run();
    assert_eq!(sim.sides[B].freed, [target], "the weak reference does not hold it");
    sim.sides[A].session.release(held).unwrap();
    sim.run();
    assert_eq!(sim.sides[B].freed, [target, weak]);
    sim.sides[A].session.release(get).unwrap();
    sim.run();
    assert_eq!(sim.sides.each_ref().map(|side| side.session.tables()), [BASELINE; 2]);
}

/// REF-10, REF-8: the object dies with its last strong reference while an Upgrade is under way: the weak reference is down with
/// reason 0, and the Upgrade fails with that.
#[test]
fn the_last_strong_reference_goes_while_a_weak_one_is_upgraded() {
    let (mut sim, target, weak, get) = weak();
    let weak_held = sim.ask(A, get, Op::Call, &[]);
    let upgraded = sim.ask(A, import(&weak_held), Op::Upgrade, &[]);
    sim.sides[A].release(&upgraded);
    sim.transmit(A);
    let crossing = sim.call(A, Call::new(Callee::Import(import(&weak_held)), Op::Upgrade), &[]);
    sim.transmit(A);
    // The Release arrives; the host lets the object go, and the weak reference with it.
    sim.deliver(A);
    assert_eq!(sim.sides[B].freed, [target]);
    sim.sides[B].session.revoke(weak, DownReason::Gone).unwrap();
    sim.run();
    assert_eq!(sim.returned(A, crossing).outcome, Err(revoked(DownReason::Gone)));
    assert_eq!(sim.sides[A].down, [(import(&weak_held), DownReason::Gone)]);
    sim.sides[A].release(&weak_held);
    sim.close(get);
}

/// REF-10: the Upgrade comes before the last Release: it gives a reference that holds the object; the Release that crosses that
/// is of the older copy (REL-2).
#[test]
fn a_weak_reference_is_upgraded_while_the_last_strong_one_goes() {
    let (mut sim, target, _, get) = weak();
    let weak_held = sim.ask(A, get, Op::Call, &[]);
    let upgraded = sim.ask(A, import(&weak_held), Op::Upgrade, &[]);
    let again = sim.call(A, Call::new(Callee::Import(import(&weak_held)), Op::Upgrade), &[]);
    sim.transmit(A);
    sim.sides[A].release(&upgraded);
    sim.run();
    let again = sim.returned(A, again);
    assert_eq!(import(&again), import(&upgraded));
    assert!(sim.sides[B].freed.is_empty());
    assert_eq!(sim.get(A, import(&again), Op::member(0), &[int(2)]), Ok(int(2)));
    sim.sides[A].release(&again);
    sim.run();
    assert_eq!(sim.sides[B].freed, [target]);
    sim.sides[A].release(&weak_held);
    sim.close(get);
}

/// REF-8: the fields of a Down are read by scripts as they are written; a reason has one byte.
#[test]
fn reasons_are_kept_as_numbers() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
    for (number, key) in [(0, 10), (3, 11), (77, 12), (254, 13)] {
        let key = ObjectKey(key);
        side.call(call, &[reference(Ref::Local(key))]).unwrap();
        side.session.revoke(key, DownReason::from_number(number)).unwrap();
    }
    let down = side.output().pop().unwrap();
    let wanted = body(|writer| {
        writer.byte(5);
        for (slot, reason) in [(1, 0), (2, 3), (3, 77), (4, 254)] {
            writer.varint(slot << 1);
            writer.varint(reason);
        }
    });
    assert_eq!(down, wanted);
    assert_eq!(side.session.tables(), Tables { exports: 5, questions: 4, ..BASELINE });
}
