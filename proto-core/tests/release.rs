//! Release by watermark: what frees a slot and what does not, in each order of crossing.

use farref_conformance::fixtures::{counter, echo, factory, function, int, later, reference};
use farref_conformance::sim::{A, B, BASELINE, LIMITS, Returned, Side, Sim, body, config, hello};
use farref_core::message::{Limits, Op};
use farref_core::session::{
    Call, Callee, Ended, Event, Host, Import, Micro, Notice, ObjectKey, Ref, Reference, Rule, Session,
};
use farref_core::value::OwnedValue;

/// B serves `x`, which gives a new object with each call, and `same`, which is one object; A holds the maker.
fn makers() -> (Sim<Host>, Import) {
    let mut sim = Sim::new(LIMITS).trace();
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("make", factory(&board));
    sim.sides[B].add_root("same", counter());
    let make = sim.root(A, "make");
    sim.mark();
    (sim, make)
}

fn import(returned: &Returned) -> Import {
    match returned.outcome {
        Ok(OwnedValue::Reference(Ref::Import(import))) => import,
        ref other => panic!("{other:?}"),
    }
}

fn release_body(upto: u64, entries: &[(u64, u64)]) -> Vec<u8> {
    body(|writer| {
        writer.byte(3);
        writer.varint(upto);
        for &(slot, generation) in entries {
            writer.varint(slot << 1 | u64::from(generation > 0));
            if generation > 0 {
                writer.varint(generation);
            }
        }
    })
}

/// N04. REL-5: after everything was released both sides are at their baseline, and the objects are gone.
#[test]
fn n04_tables_are_at_the_baseline_after_release() {
    let (mut sim, make) = makers();
    let call = Call::new(Callee::Import(make), Op::Call);
    let questions: Vec<_> = (0..200).map(|_| sim.call(A, call, &[])).collect();
    sim.run();
    let made: Vec<_> = questions.into_iter().map(|question| sim.returned(A, question)).collect();
    assert_eq!(sim.sides[A].session.tables().imports, 201);
    assert_eq!(sim.sides[B].session.tables().exports, 202);
    assert_eq!(sim.sides[B].transient(), 200);
    sim.mark();
    made.iter().for_each(|returned| sim.sides[A].release(returned));
    sim.run();
    // As many in one message as 256 bytes take, and no answer to any (REL-5).
    assert_eq!(sim.sent(A).messages, 2);
    assert_eq!(sim.sent(B).messages, 0);
    assert_eq!(sim.sides[B].freed.len(), 200);
    sim.close(make);
}

/// REL-2, REF-4: a Release that crosses a newer copy of the reference does not free the slot.
#[test]
fn a_release_that_crosses_a_new_copy_is_ignored() {
    let (mut sim, make) = makers();
    let same = sim.root(A, "same");
    let again = sim.call(A, Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr), &["same".into()]);
    sim.transmit(A);
    sim.sides[A].session.release(same).unwrap();
    sim.transmit(A);
    assert_eq!(sim.sides[A].session.tables().imports, 1, "it left the table with the Release (REL-1)");
    // B answers before the Release arrives.
    sim.deliver(A);
    sim.transmit(B);
    sim.deliver(A);
    assert!(sim.sides[B].freed.is_empty());
    sim.run();
    let returned = sim.returned(A, again);
    assert_eq!(import(&returned), same, "the same slot and generation");
    assert_eq!(sim.get(A, same, Op::member(0), &[int(1)]), Ok(int(1)));
    sim.sides[A].release(&returned);
    sim.close(make);
}

/// REL-2, REL-4: a Release that crossed a newer copy, and was ignored, comes again, also after the copy itself was released
/// and the slot is used by another object.
#[test]
fn a_release_that_crossed_a_new_copy_may_come_again() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let [key, other] = [(); 2].map(|()| side.add_permanent(counter()));
    let send = |side: &mut Side<Host>, key| {
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
        side.call(call, &[reference(Ref::Local(key))]).unwrap();
        side.output();
    };
    send(&mut side, key);
    send(&mut side, key);
    let crossed = release_body(1, &[(1, 0)]);
    for _ in 0..2 {
        assert_eq!(side.receive(&crossed), Ok(()));
        assert_eq!(side.session.tables().exports, 2, "the second copy is under way");
    }
    assert_eq!(side.receive(&release_body(2, &[(1, 0)])), Ok(()));
    assert_eq!(side.freed, [key]);
    send(&mut side, other);
    for body in [crossed, release_body(2, &[(1, 0)]), release_body(3, &[(1, 0)])] {
        assert_eq!(side.receive(&body), Ok(()));
        assert_eq!(side.session.tables().exports, 2, "slot 1 is another object's");
    }
    assert_eq!(side.receive(&release_body(3, &[(1, 1)])), Ok(()));
    assert_eq!(side.freed, [key, other]);
}

/// REF-5, REL-2: a reference goes home and is dropped where it came from, while a copy is on its way there, and goes out once
/// more with the answer: each Release that crosses a newer copy is ignored.
#[test]
fn a_reference_that_goes_home_crosses_its_next_copy() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let key = side.add_permanent(counter());
    side.add_root("x", echo());
    for _ in 0..2 {
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
        side.call(call, &[reference(Ref::Local(key))]).unwrap();
    }
    side.output();
    // Of the two copies the script has read one. It calls x with what it names, and drops it.
    let call = [0x40, 0, 0, 4, 1, 1 << 3 | 1, 0x41, b'x', 0x0D, 0];
    assert_eq!(side.receive(&call), Ok(()));
    assert_eq!(side.receive(&release_body(1, &[(1, 0)])), Ok(()));
    assert_eq!(side.output(), [[0x41, 0, 1, 1 << 3, 0x0D, 0]], "x gives it back, in the same slot and generation");
    assert_eq!(side.receive(&release_body(2, &[(1, 0)])), Ok(()));
    assert!(side.freed.is_empty());
    assert_eq!(side.receive(&release_body(3, &[(1, 0)])), Ok(()));
    assert_eq!(side.freed, [key]);
}

/// REL-1: a copy that arrives before the Release went out clears the mark; no Release is sent.
#[test]
fn a_new_copy_clears_the_mark() {
    let (mut sim, make) = makers();
    let same = sim.root(A, "same");
    let again = sim.call(A, Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr), &["same".into()]);
    sim.transmit(A);
    sim.deliver(A);
    sim.transmit(B);
    sim.mark();
    sim.sides[A].session.release(same).unwrap();
    sim.deliver(B);
    sim.run();
    assert_eq!(sim.counts().messages, 0);
    let returned = sim.returned(A, again);
    // A holder may also come back by itself as long as nothing went out.
    sim.sides[A].session.release(same).unwrap();
    assert_eq!(sim.sides[A].session.retain(same), Ok(()));
    sim.run();
    assert_eq!(sim.counts().messages, 0);
    sim.sides[A].release(&returned);
    sim.close(make);
}

/// REL-3: a freed slot comes back in the next generation, and the slot that has been free longest comes first.
#[test]
fn slots_are_used_again_in_turn_and_in_the_next_generation() {
    let (mut sim, make) = makers();
    let first: Vec<_> = (0..3).map(|_| sim.ask(A, make, Op::Call, &[])).collect();
    for place in [1, 2, 0] {
        sim.sides[A].release(&first[place]);
        sim.run();
    }
    let again: Vec<_> = (0..3).map(|_| sim.ask(A, make, Op::Call, &[])).collect();
    for (old, new) in [1, 2, 0].into_iter().zip(&again) {
        assert_eq!(import(new).slot(), import(&first[old]).slot());
        assert_ne!(import(new), import(&first[old]));
    }
    again.iter().for_each(|returned| sim.sides[A].release(returned));
    sim.close(make);
}

/// REL-3: the generation after 65,535 is 0, and nothing is lost on the way.
#[test]
fn generations_wrap() {
    let limits = Limits { imports: 3, ..LIMITS };
    let mut sim = Sim::<Host>::new(limits);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("make", factory(&board));
    let make = sim.root(A, "make");
    let first = sim.ask(A, make, Op::Call, &[]);
    sim.sides[A].release(&first);
    sim.run();
    for number in 1..65_536 {
        let returned = sim.ask(A, make, Op::Call, &[]);
        assert_ne!(import(&returned), import(&first), "use number {number}");
        sim.sides[A].release(&returned);
        sim.run();
    }
    let last = sim.ask(A, make, Op::Call, &[]);
    assert_eq!(import(&last), import(&first));
    assert_eq!(sim.get(A, import(&last), Op::Call, &[]), Ok(int(65_536)));
    sim.sides[A].release(&last);
    sim.sides[A].session.release(make).unwrap();
    sim.assert_baseline();
}

/// C3, REL-2, REL-4: a Release that repeats an old one does nothing, also when the slot was used again meanwhile.
#[test]
fn a_repeated_release_does_nothing() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let key = side.add_permanent(counter());
    let send = |side: &mut Side<Host>| {
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
        side.call(call, &[reference(Ref::Local(key))]).unwrap();
        side.output();
    };
    send(&mut side);
    assert_eq!(side.receive(&release_body(1, &[(1, 0)])), Ok(()));
    assert_eq!(side.session.tables(), farref_core::session::Tables { questions: 1, ..BASELINE });
    assert_eq!(side.receive(&release_body(1, &[(1, 0)])), Ok(()));
    // The next generation is on its way: an old Release does not touch it, nor does one from before it was sent (REL-2).
    send(&mut side);
    assert_eq!(side.receive(&release_body(1, &[(1, 0)])), Ok(()));
    assert_eq!(side.receive(&release_body(1, &[(1, 1)])), Ok(()));
    assert_eq!(side.session.tables().exports, 2);
    assert_eq!(side.receive(&release_body(2, &[(1, 1)])), Ok(()));
    assert_eq!(side.session.tables().exports, 1);
    assert_eq!(side.freed, [key, key]);
}

/// REL-4: what was never sent cannot be released: not an ordinal to come, a slot never used, the directory, or a
/// generation to come.
#[test]
fn releasing_what_was_never_sent_ends_the_session() {
    let faults: [(u64, &[(u64, u64)]); 7] = [
        (2, &[(1, 0)]),
        (u32::MAX.into(), &[(1, 0)]),
        (1, &[(0, 0)]),
        (1, &[(2, 0)]),
        (1, &[(1, 1)]),
        (1, &[(1, 0), (1, 1)]),
        (1, &[(LIMITS.imports.into(), 0)]),
    ];
    for (upto, entries) in faults {
        let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
        side.call(call, &[reference(Ref::Local(ObjectKey(1)))]).unwrap();
        side.output();
        let ended = side.receive(&release_body(upto, entries));
        assert_eq!(ended, Err(Ended::PeerFault(Rule::ReleaseNeverSent)), "upto {upto}, {entries:?}");
    }
}

/// REL-1, REL-2: the watermark is right also where its low 32 bits have wrapped.
#[test]
fn the_watermark_counts_from_the_ordinals() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    // Unknown sequenced kinds count, too (MSG-2): three messages in, one of them unsequenced.
    for message in [&[9][..], &[15, 1, 2], &[25, 7]] {
        assert_eq!(side.receive(message), Ok(()));
    }
    assert_eq!(side.session.ordinals(), (0, 2));
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Call);
    let question = side.session.call(call, |_| Ok(())).unwrap();
    side.output();
    // Its Return carries slot 5, generation 300, and is message 3.
    let returned = [&[0x41, question.id() as u8, 1, 5 << 3 | 4][..], &[0xAC, 2], &[0x0D, 0]].concat();
    assert_eq!(side.receive(&returned), Ok(()));
    let returned = side.take(question).unwrap();
    side.release(&returned);
    assert_eq!(side.output(), [vec![3, 3, 5 << 1 | 1, 0xAC, 2]]);
}

/// MSG-2, REL-4: what a session says by itself has its ordinal like all else: Unimplemented, refusals, Finish and Release.
#[test]
fn what_a_session_says_by_itself_counts() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let directory = Call::new(Callee::Import(Import::DIRECTORY), Op::Call);
    // An unknown kind, and a call on what is not there.
    assert_eq!(side.receive(&[9]), Ok(()));
    assert_eq!(side.receive(&[0, 0, 5 << 2, 0]), Ok(()));
    assert_eq!(side.output(), [vec![4, 0x80, 4], vec![0x21, 0, 1]]);
    assert_eq!(side.session.ordinals(), (2, 2));
    // A pipelined call, its Return with a reference, and with that Finish and Release.
    let question = side.call(directory.pipelined(), &[]).unwrap();
    assert_eq!(side.receive(&[0x41, 0, 1, 1 << 3, 0x0D, 0]), Ok(()));
    let returned = side.take(question).unwrap();
    side.release(&returned);
    assert_eq!(side.output(), [vec![0x20, 0, 0, 0], vec![2, 0], vec![3, 3, 1 << 1]]);
    assert_eq!(side.session.ordinals(), (5, 3));
    // Our object goes out in the sixth message, and can be released up to that and not beyond.
    let key = side.add_permanent(counter());
    side.call(directory, &[reference(Ref::Local(key))]).unwrap();
    side.output();
    assert_eq!(side.receive(&release_body(5, &[(1, 0)])), Ok(()));
    assert!(side.freed.is_empty());
    assert_eq!(side.receive(&release_body(6, &[(1, 0)])), Ok(()));
    assert_eq!(side.freed, [key]);
    assert_eq!(side.receive(&release_body(7, &[(1, 0)])), Err(Ended::PeerFault(Rule::ReleaseNeverSent)));
}

/// CAL-4: the slot of a call's target is released and used again while the call runs; the call is not touched, and the
/// object is there until its reply.
#[test]
fn a_running_call_holds_its_target() {
    let (mut sim, make) = makers();
    let (postponed, object) = later();
    let target = sim.sides[B].add(object);
    sim.sides[B].add_root("target", function(move |_, reply| reply.reference(Ref::Local(target))));
    let give = sim.root(A, "target");
    let held = sim.ask(A, give, Op::Call, &[]);
    let running = sim.call(A, Call::new(Callee::Import(import(&held)), Op::Call), &[]);
    sim.sides[A].release(&held);
    sim.run();
    assert_eq!(sim.sides[B].session.tables().exports, 3, "its slot is free");
    assert!(sim.sides[B].has(target), "the call holds it");
    // Others come and go meanwhile.
    for _ in 0..5 {
        let other = sim.ask(A, make, Op::Call, &[]);
        assert_ne!(import(&other), import(&held));
        sim.sides[A].release(&other);
        sim.run();
    }
    sim.sides[B].reply(postponed.next().unwrap(), &int(4));
    sim.run();
    assert_eq!(sim.returned(A, running).outcome, Ok(int(4)));
    assert!(!sim.sides[B].has(target));
    sim.sides[A].session.release(give).unwrap();
    sim.close(make);
}

/// CAL-4, REL-3: an object that a call holds is sent again: the same slot, in the generation after the one released.
#[test]
fn an_object_that_is_held_and_sent_again_is_not_freed() {
    let (mut sim, make) = makers();
    let (postponed, object) = later();
    let target = sim.sides[B].add_root("target", object);
    let held = sim.root(A, "target");
    let running = sim.call(A, Call::new(Callee::Import(held), Op::Call), &[]);
    sim.sides[A].session.release(held).unwrap();
    sim.run();
    let again = sim.root(A, "target");
    assert_eq!(again.slot(), held.slot());
    assert_ne!(again, held);
    sim.sides[B].reply(postponed.next().unwrap(), &int(4));
    sim.run();
    assert_eq!(sim.returned(A, running).outcome, Ok(int(4)));
    assert!(sim.sides[B].freed.is_empty());
    sim.sides[A].session.release(again).unwrap();
    sim.run();
    assert_eq!(sim.sides[B].freed, [target]);
    sim.close(make);
}

/// REF-3: the references of a call that is refused are entered, and go back.
#[test]
fn the_references_of_a_refused_call_go_back() {
    let (mut sim, make) = makers();
    let key = sim.sides[A].add(counter());
    let ops = [Op::GetAttr, Op::Iterate, Op::from_number(50), Op::member(9)];
    for op in ops {
        let failed = sim.get(A, make, op, &[reference(Ref::Local(key)), reference(Ref::Local(key))]);
        assert!(failed.is_err(), "{op}");
        assert_eq!(sim.sides[B].session.tables().imports, 0);
    }
    assert_eq!(sim.sides[A].freed.len(), ops.len());
    sim.close(make);
}

/// REL-1, ADM-6: Release and Finish go out in as many messages as the output has room for, however little that is.
#[test]
fn releases_go_out_through_a_small_output() {
    type Tight = Micro<24, 24, 4, 128, 256>;
    let limits = Limits { max_message: 4096, imports: 24, answers: 4, call_bytes: 128, handles: 24, levels: 4 };
    let mut sim = Sim::<Tight>::with([config(limits), config(limits)]);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("make", factory(&board));
    let make = sim.root(A, "make");
    let made: Vec<_> = (0..20).map(|_| sim.ask(A, make, Op::Call, &[])).collect();
    made.iter().for_each(|returned| sim.sides[A].release(returned));
    sim.run();
    assert_eq!(sim.sides[B].freed.len(), 20);
    let question = sim.call(A, Call::new(Callee::Import(make), Op::Call).pipelined(), &[]);
    sim.run();
    let returned = sim.returned(A, question);
    sim.sides[A].release(&returned);
    sim.sides[A].session.release(make).unwrap();
    sim.assert_baseline();
}

/// ORD-1: commands go on the wire in the order in which they were given where they share a slot or a call id: a call on a
/// reference, its release, and a Finish behind the calls that it is about.
#[test]
fn what_shares_a_slot_or_an_id_stays_in_order() {
    let (mut sim, make) = makers();
    sim.log.clear();
    let asked = sim.call(A, Call::new(Callee::Import(make), Op::Call).pipelined(), &[]);
    sim.call(A, Call::new(Callee::Promise(asked), Op::Call), &[]);
    sim.sides[A].session.release(make).unwrap();
    sim.sides[A].session.cancel(asked, farref_core::message::FinishMode::Abandon).unwrap();
    sim.transmit(A);
    let kinds: Vec<_> = sim.log.iter().map(|line| line.split(' ').nth(2).unwrap().split('(').next().unwrap()).collect();
    assert_eq!(kinds, ["Call", "Call", "Finish", "Release"]);
    sim.assert_baseline();
}

/// REL-2, CAL-4: notices may be polled late: an object that was sent and called again meanwhile is not told to be freed
/// before that call is over.
#[test]
fn a_notice_that_is_polled_late_is_still_true() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let (_, object) = later();
    let key = side.add(object);
    let session = &mut side.session;
    let send = |session: &mut Session<Host>| {
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
        session.call(call.references(&[Ref::Local(key)]), |writer| writer.reference(0)).unwrap();
        session.transmit();
        session.transmitted(usize::MAX);
    };
    send(session);
    assert!(session.handle(&release_body(1, &[(1, 0)])).is_ok());
    // Nobody has polled. The object is sent again, called, and released while the call runs.
    send(session);
    let call = [0, 1, 1 << 2 | 1, 1, 0];
    let Ok(Some(Event::Request(request))) = session.handle(&call) else { panic!() };
    assert!(session.handle(&release_body(2, &[(1, 1)])).is_ok());
    assert_eq!(session.poll_notice(), None);
    session.reply(request.call, &[], |_| Ok(())).unwrap();
    assert_eq!(session.poll_notice(), Some(Notice::Freed(key)));
    assert_eq!(session.poll_notice(), None);
}

/// REF-5, REL-3: a handle that came home is resolved as long as its object is there, and never names the object that is
/// in its slot after that.
#[test]
fn a_handle_is_resolved_late_or_not_at_all() {
    let mut session = Session::<Host>::new(config(LIMITS));
    assert!(session.handle(&hello(LIMITS)).is_ok());
    let send = |session: &mut Session<Host>, key| {
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
        session.call(call.references(&[Ref::Local(key)]), |writer| writer.reference(0)).unwrap();
    };
    let [first, second] = [7, 8].map(ObjectKey);
    send(&mut session, first);
    let call = [0x40, 0, 0, 1, 1, 1 << 3 | 1, 0x0D, 0];
    let Ok(Some(Event::Request(request))) = session.handle(&call) else { panic!() };
    let handle = request.handles.get(0).unwrap();
    assert_eq!(session.resolve(handle), Some(Reference::Local(first)));
    assert!(session.handle(&release_body(1, &[(1, 0)])).is_ok());
    assert_eq!(session.resolve(handle), Some(Reference::Local(first)), "nobody was told that it is freed");
    assert_eq!(session.poll_notice(), Some(Notice::Freed(first)));
    assert_eq!(session.resolve(handle), None);
    send(&mut session, second);
    assert_eq!(session.resolve(handle), None);
    session.reply(request.call, &[], |_| Ok(())).unwrap();
}
