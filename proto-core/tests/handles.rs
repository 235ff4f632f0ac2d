//! References: identity, coming home, staleness; and what a command that fails leaves behind.

use farref_conformance::fixtures::{Items, code, counter, echo, function, int, keeper, later, list, reference};
use farref_conformance::sim::{A, B, LIMITS, Owned, Side, Sim, config};
use farref_core::message::{ErrorCode, Limits, Op};
use farref_core::session::{
    Call, CallError, Callee, Config, Host, Import, Micro, ObjectKey, Question, Ref, ReplyError, ReplyRefused, Session,
    Stale, Storage,
};
use farref_core::value::{OwnedValue, ValueError};

/// The smallest storage that these cases need.
type Small = Micro<4, 4, 4, 1024, 256>;

fn small() -> Config {
    let limits = Limits { max_message: 512, imports: 4, answers: 4, call_bytes: 128, handles: 4, levels: 4 };
    config(limits)
}

fn local(key: ObjectKey) -> Owned {
    reference(Ref::Local(key))
}

/// N03. REF-1: one object is one slot and one reference, however often it is sent, in one message or in many.
#[test]
fn n03_the_same_object_is_one_reference() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    let key = sim.sides[B].add_root("x", counter());
    let all = Items::default();
    all.borrow_mut().extend([local(key), local(key), local(key)]);
    sim.sides[B].add_root("list", list(&board, &all));
    let [x, items] = ["x", "list"].map(|name| sim.root(A, name));
    let mut held = Vec::new();
    for _ in 0..100 {
        let returned = sim.ask(A, Import::DIRECTORY, Op::GetItem, &["x".into()]);
        assert_eq!(returned.outcome, Ok(reference(Ref::Import(x))));
        held.push(returned);
    }
    let forced = sim.ask(A, items, Op::Force, &[]);
    assert_eq!(forced.outcome, Ok(OwnedValue::List(vec![reference(Ref::Import(x)); 3])));
    assert_eq!(sim.sides[B].session.tables().exports, 3, "the directory, the counter, the list");
    assert_eq!(sim.sides[A].session.tables().imports, 2);
    for returned in held.iter().chain([&forced]) {
        sim.sides[A].release(returned);
    }
    // The first hold is still there.
    sim.run();
    assert_eq!(sim.get(A, x, Op::member(0), &[int(1)]), Ok(int(1)));
    sim.sides[A].session.release(x).unwrap();
    sim.sides[A].session.release(items).unwrap();
    sim.assert_baseline();
}

/// C12. REF-3, REF-5: a reference is kept beyond its call and used in a later one; its result is a container by reference
/// that the owner reads, since it came home.
#[test]
fn c12_a_reference_is_kept_and_used_later() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let [board, there] = [A, B].map(|side| sim.sides[side].board.clone());
    sim.sides[B].add_root("keeper", keeper(&there));
    let keeper = sim.root(A, "keeper");
    let items = Items::default();
    items.borrow_mut().extend((0..4).map(int));
    let result = sim.sides[A].add_permanent(list(&board, &items));
    let object = sim.sides[A].add(function(move |_, reply| reply.reference(Ref::Local(result))));
    assert_eq!(sim.get(A, keeper, Op::CallMethod, &["keep".into(), local(object)]), Ok(OwnedValue::None));
    assert!(sim.sides[A].has(object), "it is kept beyond the call");
    let performed = sim.get(A, keeper, Op::CallMethod, &["perform".into()]);
    assert_eq!(performed, Ok(local(result)));
    assert_eq!(items.borrow().len(), 4);
    assert_eq!(sim.get(A, keeper, Op::GetAttr, &["kept".into()]), Ok(local(object)));
    assert_eq!(sim.get(A, keeper, Op::CallMethod, &["forget".into()]), Ok(OwnedValue::None));
    assert!(!sim.sides[A].has(object));
    sim.sides[A].session.release(keeper).unwrap();
    sim.assert_baseline();
}

/// N10. REF-5: a handle of another generation, of a free slot or released is an error of that call alone.
#[test]
fn n10_a_stale_or_unknown_handle_is_an_error_of_the_call_alone() {
    let mut sim = Sim::<Host>::new(LIMITS);
    sim.sides[B].add_root("x", counter());
    let x = sim.root(A, "x");
    sim.sides[A].session.release(x).unwrap();
    sim.run();
    // Wrong handles from the caller of this API change nothing and are not sent.
    assert_eq!(sim.sides[A].session.release(x), Err(Stale));
    assert_eq!(sim.sides[A].session.retain(x), Err(Stale));
    let call = Call::new(Callee::Import(x), Op::Call);
    assert_eq!(sim.sides[A].call(call, &[]), Err(CallError::BadTarget));
    let argument = sim.sides[A]
        .call(Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr), &[int(0), reference(Ref::Import(x))]);
    assert_eq!(argument, Err(CallError::BadReference(0)));
    assert!(!sim.sides[A].session.holds(x));
    // The slot is used again, in the next generation.
    let again = sim.root(A, "x");
    assert_eq!(again.slot(), x.slot());
    assert_ne!(again, x);
    assert_eq!(sim.sides[A].session.release(x), Err(Stale));
    assert_eq!(sim.get(A, again, Op::member(0), &[int(2)]), Ok(int(2)));
    sim.sides[A].session.release(again).unwrap();
    sim.assert_baseline();
}

/// REF-7, DIR-1: the directory is there from the start, can be sent as an ordinary handle, and is never released.
#[test]
fn the_directory_is_an_ordinary_object_that_stays() {
    let mut sim = Sim::<Host>::new(LIMITS);
    sim.sides[B].add_root("echo", echo());
    let echoed = sim.root(A, "echo");
    for value in [reference(Ref::Local(ObjectKey::DIRECTORY)), reference(Ref::Import(Import::DIRECTORY))] {
        assert_eq!(sim.get(A, echoed, Op::Call, std::slice::from_ref(&value)), Ok(value));
    }
    assert_eq!(sim.sides[A].session.release(Import::DIRECTORY), Ok(()));
    assert_eq!(sim.sides[A].session.retain(Import::DIRECTORY), Ok(()));
    assert_eq!(sim.get(A, Import::DIRECTORY, Op::Length, &[]), Ok(int(1)));
    sim.sides[A].session.release(echoed).unwrap();
    sim.assert_baseline();
}

/// REF-2, REF-3: references come and go both ways in one message, nested, and each entry counts once.
#[test]
fn references_of_all_kinds_in_one_message() {
    let mut sim = Sim::<Host>::new(LIMITS);
    sim.sides[B].add_root("echo", echo());
    let echoed = sim.root(A, "echo");
    let keys = [(); 3].map(|()| sim.sides[A].add(counter()));
    let [first, second, third] = keys.map(local);
    let home = reference(Ref::Import(echoed));
    let value = OwnedValue::Tuple(vec![
        first.clone(),
        OwnedValue::Map(vec![(second, OwnedValue::List(vec![home.clone(), first]))]),
        home,
        third,
    ]);
    assert_eq!(sim.get(A, echoed, Op::Call, std::slice::from_ref(&value)), Ok(value));
    assert!(keys.iter().all(|&key| !sim.sides[A].has(key)));
    sim.sides[A].session.release(echoed).unwrap();
    sim.assert_baseline();
}

/// REF-5: reflected references: what A sends to B and B sends back is A's object, at any number of crossings at once.
#[test]
fn a_reflected_reference_is_the_local_object() {
    let mut sim = Sim::<Host>::new(LIMITS);
    sim.sides[B].add_root("echo", echo());
    let echoed = sim.root(A, "echo");
    let key = sim.sides[A].add(counter());
    // Many under way at once, and the last local holder at B gone with each of them.
    let call = Call::new(Callee::Import(echoed), Op::Call);
    let questions: Vec<Question> = (0..50).map(|_| sim.call(A, call, &[local(key)])).collect();
    sim.run();
    for question in questions {
        assert_eq!(sim.returned(A, question).outcome, Ok(local(key)));
    }
    assert_eq!(sim.sides[A].freed, [key], "it was told once, when the last copy was released");
    sim.sides[A].session.release(echoed).unwrap();
    sim.assert_baseline();
}

/// A session with fixed storage whose tables have been used, and a reference that it holds.
fn used_micro() -> (Sim<Small>, Import) {
    let mut sim = Sim::<Small>::with([small(), small()]);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("list", list(&board, &Items::default()));
    let items = sim.root(A, "list");
    let keys = [(); 3].map(|()| sim.sides[A].add(counter()));
    let all = OwnedValue::Tuple(keys.map(local).to_vec());
    assert_eq!(sim.get(A, items, Op::Contains, &[all]), Ok(false.into()));
    (sim, items)
}

fn unchanged<S: Storage + 'static>(side: &mut Side<S>, command: impl FnOnce(&mut Session<S>)) {
    side.output();
    let before = side.session.clone();
    command(&mut side.session);
    assert!(side.session == before, "something changed");
}

/// REF-4, ADM-3, MSG-4: a call that cannot be completed leaves everything as it was, whatever stopped it and however many
/// slots it had reserved.
#[test]
fn a_call_that_fails_leaves_the_tables_unchanged() {
    let (mut sim, items) = used_micro();
    let call = Call::new(Callee::Import(items), Op::Contains);
    let new = |count: u32| (0..count).map(|number| Ref::Local(ObjectKey(100 + number))).collect::<Vec<_>>();
    let side = &mut sim.sides[A];
    unchanged(side, |session| {
        // Values that are refused, after slots were reserved.
        let failed = session.call(call.references(&new(3)), |writer| {
            writer.tuple(3)?;
            writer.reference(0)
        });
        assert_eq!(failed, Err(CallError::Values(ValueError::Incomplete)));
        let failed = session.call(call.references(&new(2)), |writer| writer.reference(2));
        assert_eq!(failed, Err(CallError::Values(ValueError::NoSuchReference)));
        // More objects than the table holds.
        assert_eq!(session.call(call.references(&new(4)), |_| Ok(())), Err(CallError::TableFull));
        assert_eq!(session.call(call.references(&new(5)), |_| Ok(())), Err(CallError::TooManyReferences));
        let mixed = [Ref::Local(ObjectKey(100)), Ref::Import(items), Ref::Local(ObjectKey(100))];
        // Longer than the other side's messages, and than the bytes that its calls may have.
        let failed = session.call(call.references(&mixed), |writer| writer.bytes(&[0; 600]));
        assert!(matches!(failed, Err(CallError::TooLarge(600..))), "{failed:?}");
        let failed = session.call(call.references(&mixed), |writer| writer.bytes(&[0; 200]));
        assert!(matches!(failed, Err(CallError::TooLarge(200..))), "{failed:?}");
    });
    // The free slots are handed out in the order in which they would have been.
    let keys = [(); 3].map(|()| sim.sides[A].add(counter()));
    assert_eq!(sim.get(A, items, Op::Contains, &[OwnedValue::Tuple(keys.map(local).to_vec())]), Ok(false.into()));
    sim.sides[A].session.release(items).unwrap();
    sim.assert_baseline();
}

/// REF-4, REL-3: the same where no slot had been used yet: the slots that failed commands reserved are used in order.
#[test]
fn slots_reserved_by_a_failed_call_are_used_in_order() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
    let references = [7, 8, 9].map(|key| Ref::Local(ObjectKey(key)));
    let failed = side.session.call(call.references(&references), |writer| writer.tuple(1));
    assert_eq!(failed, Err(CallError::Values(ValueError::Incomplete)));
    assert_eq!(side.session.tables().exports, 1);
    assert_eq!(side.session.poll_notice(), None, "the host is not told of what never was");
    assert!(side.session.call(call.references(&references), |_| Ok(())).is_ok());
    // Slots 1, 2, 3 in the order of the list, kind 0.
    assert_eq!(side.output(), [vec![0x40, 0, 0, 1, 3, 1 << 3, 2 << 3, 3 << 3]]);
}

/// REF-4, ADM-3, ADM-5: a reply that cannot be made leaves everything as it was, or becomes the error that says so.
#[test]
fn a_reply_that_fails_leaves_the_tables_unchanged() {
    let (mut sim, items) = used_micro();
    let (postponed, object) = later();
    sim.sides[B].add_root("later", object);
    let put_off = sim.root(A, "later");
    let questions = [(); 3].map(|()| sim.call(A, Call::new(Callee::Import(put_off), Op::Call), &[]));
    sim.run();
    let [first, second, third] = [(); 3].map(|()| postponed.next().unwrap());
    let new = [100, 101, 102, 103].map(|key| Ref::Local(ObjectKey(key)));
    let side = &mut sim.sides[B];
    // Slots 1 and 2 are in use: one is free. It is given to an object once, so that it is no first use.
    unchanged(side, |session| {
        let failed = session.reply(first, &[Ref::Import(put_off)], |_| Ok(()));
        assert_eq!(failed, Err(ReplyError::BadReference(0)));
        let failed = session.reply(first, &[], |writer| writer.tuple(1));
        assert_eq!(failed, Err(ReplyError::Values(ValueError::Incomplete)));
    });
    // The same with an object that has no slot yet: it has none afterwards.
    let failed = side.session.reply(first, &new[3..], |writer| writer.tuple(1));
    assert_eq!(failed, Err(ReplyError::Values(ValueError::Incomplete)));
    assert!(!side.session.is_exported(ObjectKey(103)));
    let became = side.session.reply(first, &new[..2], |writer| writer.reference(1));
    assert_eq!(became, Err(ReplyError::Became(ReplyRefused::TableFull)));
    let became = side.session.reply(second, &new[..1], |writer| writer.bytes(&[0; 600]));
    assert!(matches!(became, Err(ReplyError::Became(ReplyRefused::TooLarge(600..)))), "{became:?}");
    let replied = side.session.reply(third, &[], |writer| writer.int(1));
    assert_eq!(replied, Ok(()));
    assert_eq!(side.session.tables().exports, 3);
    sim.run();
    let [first, second, third] = questions.map(|question| sim.returned(A, question).outcome);
    assert_eq!(code(first), ErrorCode::TableFull);
    let second = second.unwrap_err();
    assert_eq!(second.code, ErrorCode::ResultTooLarge);
    assert!(matches!(second.values[..], [OwnedValue::Int(600..)]), "{second:?}");
    assert_eq!(third, Ok(int(1)));
    sim.sides[A].session.release(items).unwrap();
    sim.sides[A].session.release(put_off).unwrap();
    sim.assert_baseline();
}

/// REF-1: a slot says nothing of a key: objects with the largest keys get the smallest slots.
#[test]
fn slots_are_places_not_keys() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
    let references = [Ref::Local(ObjectKey(u32::MAX))];
    assert!(side.session.call(call.references(&references), |_| Ok(())).is_ok());
    assert_eq!(side.output(), [vec![0x40, 0, 0, 1, 1, 1 << 3]]);
}
