//! Pipelining: calls that name answers before they have settled.

use farref_conformance::fixtures::{
    Items, Postponed, code, counter, echo, factory, function, int, later, list, reference,
};
use farref_conformance::sim::{A, B, Failure, LIMITS, Owned, Sim, config};
use farref_core::dispatch::Object;
use farref_core::message::{DownReason, ErrorCode, FinishMode, Limits, Op};
use farref_core::session::{
    Call, CallError, Callee, Config, Ended, Host, Import, Least, LinkMode, Micro, Question, Ref, Reference, Stale,
};
use farref_core::value::OwnedValue;

fn serving(object: impl Object + 'static) -> (Sim<Host>, Import) {
    Sim::new(LIMITS).trace().serving(object)
}

/// Two roots whose calls are put off; A holds both.
fn two_postponed() -> (Sim<Host>, [Import; 2], [Postponed; 2]) {
    let mut sim = Sim::new(LIMITS);
    let ((first, one), (second, two)) = (later(), later());
    sim.sides[B].add_root("p", one);
    sim.sides[B].add_root("q", two);
    let imports = ["p", "q"].map(|name| sim.root(A, name));
    (sim, imports, [first, second])
}

fn pipelined(sim: &mut Sim<Host>, x: Import) -> Question {
    sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), &[])
}

fn on(promise: Question, op: Op) -> Call<'static> {
    Call::new(Callee::Promise(promise), op)
}

fn promise(question: Question) -> Owned {
    reference(Ref::Promise(question))
}

fn fails<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> (ErrorCode, Vec<Owned>) {
    let failure = outcome.unwrap_err();
    (failure.code, failure.values)
}

/// ANS-1, ANS-3: a call on an answer that settles to a reference runs on the object, within the same round trip.
#[test]
fn a_pipelined_call_runs_on_the_object_that_the_answer_settles_to() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("x", factory(&board));
    let x = sim.root(A, "x");
    sim.mark();
    let made = pipelined(&mut sim, x);
    let number = sim.call(A, on(made, Op::Call), &[]);
    sim.run();
    let number = sim.returned(A, number);
    assert_eq!(number.outcome, Ok(int(0)));
    assert_eq!(sim.round_trips(number.at), 1.0);
    let made = sim.returned(A, made);
    sim.sides[A].release(&made);
    sim.close(x);
}

/// ANS-3: it does not matter when the answer settles, or how many answers a call names.
#[test]
fn a_call_waits_for_all_answers_that_it_names() {
    let (mut sim, [p, q], [first, second]) = two_postponed();
    let echoed = sim.sides[B].add_root("echo", echo());
    let asked = [p, q].map(|x| pipelined(&mut sim, x));
    let pair = OwnedValue::Tuple(vec![promise(asked[1]), int(1)]);
    let dependent = sim.call(A, on(asked[0], Op::Call), &[pair]);
    sim.run();
    sim.sides[B].reply(second.next().unwrap(), &"second".into());
    sim.run();
    assert_eq!(sim.sides[A].take(dependent), None);
    sim.sides[B].reply(first.next().unwrap(), &reference(Ref::Local(echoed)));
    sim.run();
    let expected = OwnedValue::Tuple(vec!["second".into(), int(1)]);
    assert_eq!(sim.returned(A, dependent).outcome, Ok(expected));
    let settled = sim.returned(A, asked[0]);
    sim.sides[A].release(&settled);
    sim.sides[A].session.release(q).unwrap();
    sim.close(p);
}

/// ANS-3: calls that waited run in the order of their ordinals, whichever way their answers settle, and before a later
/// call on the same answer.
#[test]
fn calls_that_waited_run_in_order() {
    let (mut sim, [p, q], [first, _]) = two_postponed();
    sim.sides[A].session.release(q).unwrap();
    let order = Items::default();
    let board = sim.sides[B].board.clone();
    let recorder = sim.sides[B].add_root("list", list(&board, &order));
    let asked = pipelined(&mut sim, p);
    for number in 0..5 {
        sim.call(A, on(asked, Op::member(0)), &[int(number)]);
    }
    sim.run();
    // The answer settles, and before the host polls, one more call on it arrives.
    sim.call(A, on(asked, Op::member(0)), &[int(5)]);
    sim.transmit(A);
    sim.sides[B].reply(first.next().unwrap(), &reference(Ref::Local(recorder)));
    sim.deliver(A);
    sim.run();
    assert_eq!(*order.borrow(), (0..6).map(int).collect::<Vec<_>>());
    let settled = sim.returned(A, asked);
    sim.sides[A].release(&settled);
    sim.close(p);
}

/// ANS-3: what depends on a failed answer is broken, with the code, and never starts; so is what depends on that.
#[test]
fn a_broken_promise_breaks_what_depends_on_it() {
    let (mut sim, [p, q], [first, second]) = two_postponed();
    let asked = pipelined(&mut sim, p);
    let next = sim.call(A, on(asked, Op::Call).pipelined(), &[]);
    let last = sim.call(A, on(next, Op::Call), &[]);
    let argument = sim.call(A, Call::new(Callee::Import(q), Op::Call), &[promise(asked)]);
    sim.run();
    let failure = Failure { code: ErrorCode::AccessDenied, values: vec!["no".into()] };
    sim.sides[B].fail(first.next().unwrap(), &failure);
    sim.run();
    assert_eq!(sim.returned(A, asked).outcome, Err(failure));
    let denied = int(ErrorCode::AccessDenied.number() as i64);
    let broken = int(ErrorCode::Broken.number() as i64);
    assert_eq!(fails(sim.returned(A, next).outcome), (ErrorCode::Broken, vec![denied.clone()]));
    assert_eq!(fails(sim.returned(A, last).outcome), (ErrorCode::Broken, vec![broken]));
    assert_eq!(fails(sim.returned(A, argument).outcome), (ErrorCode::Broken, vec![denied]));
    assert_eq!(second.next(), None, "it never started");
    sim.sides[A].session.release(q).unwrap();
    sim.close(p);
}

/// ANS-3: a chain of 20,000 calls, each of which waits for the one before, breaks without a deep stack.
#[test]
fn a_long_chain_breaks_in_bounded_stack() {
    let limits = Limits { answers: 20_000, ..LIMITS };
    let mut sim = Sim::<Host>::new(limits);
    let (postponed, object) = later();
    sim.sides[B].add_root("x", object);
    let x = sim.root(A, "x");
    let mut last = pipelined(&mut sim, x);
    for _ in 1..20_000 {
        last = sim.call(A, on(last, Op::Call).pipelined(), &[]);
    }
    sim.run();
    sim.sides[B].session.refuse(postponed.next().unwrap(), ErrorCode::Overloaded, 0).unwrap();
    sim.run();
    assert_eq!(code(sim.returned(A, last).outcome), ErrorCode::Broken);
    sim.close(x);
}

/// ANS-1: only a call that says so may be named; a cancelled one may not be named any more, since whether its answer is
/// still there would be a race (ORD-1).
#[test]
fn only_a_pipelined_call_that_is_wanted_is_a_promise() {
    let (mut sim, [p, q], [first, second]) = two_postponed();
    let plain = sim.call(A, Call::new(Callee::Import(p), Op::Call), &[]);
    assert_eq!(sim.sides[A].call(on(plain, Op::Call), &[]), Err(CallError::NotAPromise));
    let argument = sim.sides[A].call(Call::new(Callee::Import(p), Op::Call), &[promise(plain)]);
    assert_eq!(argument, Err(CallError::NotAPromise));
    let cancelled = pipelined(&mut sim, q);
    sim.sides[A].session.cancel(cancelled, FinishMode::Interrupt).unwrap();
    assert_eq!(sim.sides[A].call(on(cancelled, Op::Call), &[]), Err(CallError::NotAPromise));
    sim.run();
    assert_eq!(sim.sides[A].call(on(cancelled, Op::Call), &[]), Err(CallError::NotAPromise));
    sim.sides[B].reply(first.next().unwrap(), &int(1));
    sim.sides[B].reply(second.next().unwrap(), &int(1));
    sim.run();
    // ANS-2: nor one that has its Return.
    assert_eq!(sim.sides[A].call(on(cancelled, Op::Call), &[]), Err(CallError::NotAPromise));
    sim.sides[A].session.release(q).unwrap();
    sim.close(p);
}

/// ANS-2: a message names four answers at most; naming one twice counts once. A promise names only earlier calls, so a
/// cycle cannot be made.
#[test]
fn a_call_names_at_most_four_answers() {
    let (postponed, object) = later();
    let (mut sim, x) = serving(object);
    let asked: Vec<_> = (0..5).map(|_| pipelined(&mut sim, x)).collect();
    let all: Vec<Owned> = asked.iter().map(|&question| promise(question)).collect();
    let before = sim.sides[A].session.tables();
    assert_eq!(sim.sides[A].call(Call::new(Callee::Import(x), Op::Call), &all), Err(CallError::TooManyPromises));
    assert_eq!(sim.sides[A].call(on(asked[4], Op::Call), &all[..4]), Err(CallError::TooManyPromises));
    assert_eq!(sim.sides[A].session.tables(), before);
    let echoed = sim.sides[B].add_root("echo", echo());
    let call = sim.call(A, on(asked[0], Op::Call), &[OwnedValue::Tuple([&all[..4], &all[..4]].concat())]);
    sim.run();
    for number in 0..5 {
        let value = if number == 0 { reference(Ref::Local(echoed)) } else { int(number) };
        sim.sides[B].reply(postponed.next().unwrap(), &value);
    }
    sim.run();
    let first = sim.returned(A, asked[0]);
    let Ok(echoed) = first.outcome.clone() else { panic!() };
    let half = [echoed, int(1), int(2), int(3)];
    let returned = sim.returned(A, call);
    assert_eq!(returned.outcome, Ok(OwnedValue::Tuple([&half[..], &half[..]].concat())));
    sim.sides[A].release(&first);
    sim.sides[A].release(&returned);
    sim.close(x);
}

/// ANS-4, OPS-5: operations on an answer that settled to a value work on the value.
#[test]
fn operations_on_an_answer_that_is_a_value() {
    let (mut sim, x) = serving(echo());
    let text: Owned = "grüße".into();
    let tuple = OwnedValue::Tuple(vec![int(5), "b".into()]);
    let table = OwnedValue::Map(vec![("k".into(), int(7)), (int(2), OwnedValue::None)]);
    let bytes = OwnedValue::Bytes(vec![1, 255]);
    let raised = |name: &str, key: Owned| Err(vec![farref_conformance::fixtures::exception(name, vec![key])]);
    type Expected = Result<Owned, Vec<Owned>>;
    let cases: Vec<(&Owned, Op, Vec<Owned>, Expected)> = vec![
        (&text, Op::Length, vec![], Ok(int(5))),
        (&text, Op::GetItem, vec![int(2)], Ok("ü".into())),
        (&text, Op::GetItem, vec![int(-1)], Ok("e".into())),
        (&text, Op::GetItem, vec![int(5)], raised("IndexError", int(5))),
        (&text, Op::Contains, vec!["üß".into()], Ok(true.into())),
        (&text, Op::Equals, vec!["grüße".into()], Ok(true.into())),
        (&text, Op::Text, vec![], Ok("grüße".into())),
        (&text, Op::Text, vec![true.into()], Ok("\"grüße\"".into())),
        (&text, Op::Force, vec![], Ok(text.clone())),
        (&tuple, Op::Length, vec![], Ok(int(2))),
        (&tuple, Op::GetItem, vec![int(-2)], Ok(int(5))),
        (&tuple, Op::GetItem, vec![int(-3)], raised("IndexError", int(-3))),
        (&tuple, Op::Contains, vec!["b".into()], Ok(true.into())),
        (&tuple, Op::Contains, vec![int(6)], Ok(false.into())),
        (&tuple, Op::Equals, vec![text.clone()], Ok(false.into())),
        (&table, Op::Length, vec![], Ok(int(2))),
        (&table, Op::GetItem, vec!["k".into()], Ok(int(7))),
        (&table, Op::GetItem, vec![int(2)], Ok(OwnedValue::None)),
        (&table, Op::GetItem, vec![int(3)], raised("KeyError", int(3))),
        (&table, Op::Contains, vec![int(2)], Ok(true.into())),
        (&bytes, Op::GetItem, vec![int(1)], Ok(int(255))),
        (&bytes, Op::Length, vec![], Ok(int(2))),
    ];
    for (value, op, args, expected) in cases {
        let asked = sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), std::slice::from_ref(value));
        let part = sim.call(A, on(asked, op), &args);
        sim.run();
        let outcome = sim.returned(A, part).outcome.map_err(|failure| failure.values);
        assert_eq!(outcome, expected, "{op} of {value:?}");
        assert_eq!(sim.returned(A, asked).outcome, Ok(value.clone()));
    }
    for op in [Op::Call, Op::GetAttr, Op::SetItem, Op::Iterate, Op::Hash, Op::member(3)] {
        let asked = sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), std::slice::from_ref(&text));
        let part = sim.call(A, on(asked, op), &[]);
        sim.run();
        let expected = (ErrorCode::Unsupported, vec![int(op.number() as i64)]);
        assert_eq!(fails(sim.returned(A, part).outcome), expected);
    }
    sim.close(x);
}

/// ANS-4, OPS-5: a value of any size is worked on, and so are references inside it.
#[test]
fn operations_on_a_large_answer_with_references() {
    let (mut sim, x) = serving(echo());
    let inner = sim.sides[A].add_permanent(counter());
    let value = OwnedValue::Tuple(vec!["long".repeat(1000).into(), reference(Ref::Local(inner))]);
    let asked = sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), std::slice::from_ref(&value));
    let [first, second, all] = [(Op::GetItem, Some(0)), (Op::GetItem, Some(1)), (Op::Force, None)]
        .map(|(op, index)| sim.call(A, on(asked, op), &index.map(int).into_iter().collect::<Vec<_>>()));
    sim.run();
    assert_eq!(sim.returned(A, second).outcome, Ok(reference(Ref::Local(inner))));
    assert_eq!(sim.returned(A, first).outcome, Ok("long".repeat(1000).into()));
    assert_eq!(sim.returned(A, all).outcome, Ok(value));
    sim.close(x);
}

/// ANS-4: dispatch without memory does not compare one kept value with another; it says so, and never says that they differ.
#[test]
fn a_kept_value_is_not_compared_with_another() {
    let (mut sim, x) = serving(echo());
    let ask = || Call::new(Callee::Import(x), Op::Call).pipelined();
    let [left, right] = [(); 2].map(|()| sim.call(A, ask(), &["same".into()]));
    let same = sim.call(A, on(left, Op::Equals), &[reference(Ref::Promise(right))]);
    sim.run();
    assert_eq!(sim.returned(A, same).outcome.unwrap_err().code, ErrorCode::NotKept);
    sim.close(x);
}

/// ANS-4: storage that keeps no values says so however much room it has, and keeps references all the same: a call that builds
/// on one waits for it and runs.
#[test]
fn storage_without_values_keeps_references() {
    type Small = Micro<12, 12, 6, 1024, 1024, false>;
    let limits = Limits { max_message: 128, imports: 12, answers: 6, call_bytes: 128, handles: 4, levels: 6 };
    let mut sim = Sim::<Small>::with([config(limits), config(limits)]);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("echo", echo());
    sim.sides[B].add_root("make", factory(&board));
    let [x, make] = ["echo", "make"].map(|name| sim.root(A, name));
    let value = sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), &["value".into()]);
    let length = sim.call(A, on(value, Op::Length), &[]);
    let made = sim.call(A, Call::new(Callee::Import(make), Op::Call).pipelined(), &[]);
    let own = sim.call(A, on(made, Op::Call), &[]);
    sim.run();
    assert_eq!(sim.returned(A, value).outcome, Ok("value".into()));
    assert_eq!(code(sim.returned(A, length).outcome), ErrorCode::NotKept);
    assert_eq!(sim.returned(A, own).outcome, Ok(int(0)));
    let Ok(OwnedValue::Reference(Ref::Import(made))) = sim.returned(A, made).outcome else { panic!("no reference") };
    [x, make, made].into_iter().for_each(|import| assert_eq!(sim.sides[A].session.release(import), Ok(())));
    sim.assert_baseline();
}

/// ANS-3, ADM-2: storage that keeps no values takes more call bytes than it has room for calls that wait. One that finds none
/// is refused and never starts; those that wait already run, and so does what comes later.
#[test]
fn storage_without_values_refuses_what_cannot_wait() {
    type Small = Micro<12, 12, 6, 1024, 48, false>;
    let limits = Limits { max_message: 128, imports: 12, answers: 6, call_bytes: 256, handles: 4, levels: 6 };
    let mut sim = Sim::<Small>::with([config(limits), config(limits)]);
    let (postponed, object) = later();
    sim.sides[B].add_root("later", object);
    let put_off = sim.root(A, "later");
    assert_eq!(sim.sides[A].session.peer().map(|peer| peer.limits.call_bytes), Some(256));
    for number in 0..3 {
        let made = sim.sides[B].add(counter());
        let promise = sim.call(A, Call::new(Callee::Import(put_off), Op::Call).pipelined(), &[]);
        let [first, second] = [0, 1].map(|_| sim.call(A, on(promise, Op::Call), &[OwnedValue::Bytes(vec![7; 16])]));
        sim.run();
        assert_eq!(code(sim.returned(A, second).outcome), ErrorCode::Overloaded, "round {number}");
        sim.sides[B].reply(postponed.next().unwrap(), &OwnedValue::Reference(Ref::Local(made)));
        sim.run();
        assert_ne!(code(sim.returned(A, first).outcome), ErrorCode::Overloaded, "round {number}: it ran");
        let Ok(OwnedValue::Reference(Ref::Import(made))) = sim.returned(A, promise).outcome else {
            panic!("no object")
        };
        assert_eq!(sim.sides[A].session.release(made), Ok(()));
    }
    sim.close(put_off);
}

/// REF-9, LNK-1: what a device leaves out its peer does without. What would be lent is sent as usual; a session ends with its
/// connection.
#[test]
fn what_a_device_leaves_out() {
    type Device = Micro<12, 12, 6, 1024, 0, false, Least>;
    let limits = Limits { max_message: 128, imports: 12, answers: 6, call_bytes: 128, handles: 4, levels: 6 };
    let link = LinkMode::Resume { token: [7; 16], park: 1000 };
    let mut sim = Sim::<Device>::with([(); 2].map(|()| Config { link, ..config(limits) }));
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("make", factory(&board));
    let (postponed, object) = later();
    sim.sides[B].add_root("later", object);
    let [make, put_off] = ["make", "later"].map(|name| sim.root(A, name));
    assert!(!sim.sides[A].session.is_resumable(), "it is not offered");

    // A call of ours has no promise.
    let made = sim.call(A, Call::new(Callee::Import(make), Op::Call).pipelined(), &[]);
    let refused = sim.sides[A].session.call(on(made, Op::Call), |_| Ok(()));
    assert_eq!(refused, Err(CallError::NotAPromise));
    sim.run();
    let Ok(OwnedValue::Reference(Ref::Import(made))) = sim.returned(A, made).outcome else { panic!("no reference") };

    // What would be lent is sent, until the peer releases it.
    let own = sim.sides[A].add(counter());
    let lent = sim.call(A, Call::new(Callee::Import(put_off), Op::Call), &[reference(Ref::Borrowed(own))]);
    assert!(sim.sides[A].session.is_exported(own));
    assert_eq!(sim.sides[A].session.revoke(own, DownReason::Revoked), Err(Stale));
    sim.run();
    assert!(!sim.sides[A].session.is_exported(own), "it was released, and the call goes on");
    sim.sides[B].reply(postponed.next().unwrap(), &OwnedValue::None);
    sim.run();
    assert_eq!(sim.returned(A, lent).outcome, Ok(OwnedValue::None));

    [make, put_off, made].into_iter().for_each(|import| assert_eq!(sim.sides[A].session.release(import), Ok(())));
    sim.run();
    sim.assert_baseline();
    assert!(!sim.sides[A].session.park());
    assert_eq!(sim.sides[A].session.ended(), Some(Ended::LinkLost));
}

/// ANS-3, ANS-4: a device without room for calls that wait serves those that name an answer which has settled to an object, and
/// says of others that it has no room.
#[test]
fn a_device_without_a_store_serves_what_need_not_wait() {
    type Device = Micro<12, 12, 6, 1024, 0, false>;
    let limits = Limits { max_message: 128, imports: 12, answers: 6, call_bytes: 128, handles: 4, levels: 6 };
    let mut sim = Sim::<Device>::with([config(limits), config(limits)]);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("make", factory(&board));
    let (postponed, object) = later();
    sim.sides[B].add_root("later", object);
    let [make, put_off] = ["make", "later"].map(|name| sim.root(A, name));
    let [made, waits] =
        [make, put_off].map(|root| sim.call(A, Call::new(Callee::Import(root), Op::Call).pipelined(), &[]));
    let [served, refused] = [made, waits].map(|promise| sim.call(A, on(promise, Op::Call), &[]));
    sim.run();
    assert_eq!(sim.returned(A, served).outcome, Ok(int(0)));
    assert_eq!(code(sim.returned(A, refused).outcome), ErrorCode::Overloaded);
    sim.sides[B].reply(postponed.next().unwrap(), &OwnedValue::None);
    sim.run();
    assert_eq!(sim.returned(A, waits).outcome, Ok(OwnedValue::None));
    let Ok(OwnedValue::Reference(Ref::Import(made))) = sim.returned(A, made).outcome else { panic!("no reference") };
    [make, put_off, made].into_iter().for_each(|import| assert_eq!(sim.sides[A].session.release(import), Ok(())));
    sim.run();
    sim.assert_baseline();
}

/// ANS-4: a callee that has no room to keep a value says so, and the value itself still comes.
#[test]
fn a_value_that_was_not_kept() {
    let mut tight = config(LIMITS);
    tight.store_bytes = LIMITS.call_bytes as usize;
    let mut sim = Sim::<Host>::with([config(LIMITS), tight]);
    sim.sides[B].add_root("x", echo());
    let x = sim.root(A, "x");
    let asked = sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), &["value".into()]);
    let length = sim.call(A, on(asked, Op::Length), &[]);
    sim.run();
    assert_eq!(sim.returned(A, asked).outcome, Ok("value".into()));
    assert_eq!(code(sim.returned(A, length).outcome), ErrorCode::NotKept);
    sim.close(x);
}

/// ANS-4: a settled answer holds the object it settled to, also after the slot was released and used for another.
#[test]
fn a_settled_answer_holds_the_object_not_the_slot() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("x", factory(&board));
    let (postponed, object) = later();
    sim.sides[B].add_root("later", object);
    let [x, put_off] = ["x", "later"].map(|name| sim.root(A, name));
    let made = pipelined(&mut sim, x);
    let other = pipelined(&mut sim, put_off);
    // Waits for the second answer, on the object of the first.
    let call = sim.call(A, on(made, Op::Call), &[promise(other)]);
    sim.run();
    let returned = sim.returned(A, made);
    sim.sides[A].release(&returned);
    sim.run();
    // Other objects come and go, through the same slot if it were free.
    for _ in 0..3 {
        let returned = sim.ask(A, x, Op::Call, &[]);
        sim.sides[A].release(&returned);
        sim.run();
    }
    sim.sides[B].reply(postponed.next().unwrap(), &OwnedValue::None);
    sim.run();
    assert_eq!(sim.returned(A, call).outcome, Ok(int(0)));
    sim.sides[A].session.release(put_off).unwrap();
    sim.close(x);
}

/// ANS-5, FIN-1: after the Return the promise is the reference, and one Finish with mode 0 goes with the next output. A
/// result that is the caller's own object comes home.
#[test]
fn a_return_replaces_the_promise() {
    let (mut sim, x) = serving(echo());
    let own = sim.sides[A].add_permanent(counter());
    let arg = reference(Ref::Local(own));
    let asked = sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), std::slice::from_ref(&arg));
    sim.run();
    assert_eq!(sim.returned(A, asked).outcome, Ok(arg));
    assert_eq!(sim.sides[A].call(on(asked, Op::Call), &[]), Err(CallError::NotAPromise));
    let finishes: Vec<_> = sim.log.iter().filter(|line| line.contains("Finish(")).collect();
    assert_eq!(finishes.len(), 1, "{finishes:?}");
    sim.close(x);
}

/// ANS-6: an answer that settled to an object of the caller is called there, as a nested call.
#[test]
fn a_call_on_an_answer_that_came_home_is_forwarded() {
    let (mut sim, x) = serving(echo());
    let own = sim.sides[A].add_permanent(counter());
    let arg = reference(Ref::Local(own));
    let asked = sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), &[arg]);
    let sum = sim.call(A, on(asked, Op::member(0)), &[int(20)]);
    let wrong = sim.call(A, on(asked, Op::member(0)), &["x".into()]);
    sim.run();
    assert_eq!(sim.returned(A, sum).outcome, Ok(int(20)));
    assert_eq!(code(sim.returned(A, wrong).outcome), ErrorCode::BadArguments);
    let [forwarded] =
        [sim.log.iter().filter(|line| line.contains("\"B\" Call(") && line.contains("parent: Some")).count()];
    assert_eq!(forwarded, 2, "{:#?}", sim.log);
    sim.close(x);
}

/// FIN-2: a waiting call that is interrupted never starts.
#[test]
fn a_waiting_call_that_is_interrupted_never_starts() {
    let (mut sim, [p, q], [first, second]) = two_postponed();
    let own = sim.sides[A].add(counter());
    let asked = pipelined(&mut sim, p);
    let waiting = sim.call(
        A,
        Call::new(Callee::Import(q), Op::Call),
        &[promise(asked), reference(Ref::Local(own)), reference(Ref::Import(p))],
    );
    sim.run();
    assert_eq!(sim.sides[B].session.tables().imports, 1, "it is held while the call waits");
    sim.sides[A].session.cancel(waiting, FinishMode::Interrupt).unwrap();
    sim.run();
    let (error, values) = fails(sim.returned(A, waiting).outcome);
    assert_eq!((error, values), (ErrorCode::Cancelled, vec![false.into()]));
    assert!(!sim.sides[A].has(own), "the reference of the refused call was released");
    sim.sides[B].reply(first.next().unwrap(), &int(1));
    sim.run();
    assert_eq!(second.next(), None);
    sim.sides[A].session.release(q).unwrap();
    sim.close(p);
}

/// FIN-4: an abandoned answer stays for the calls that name it; its own result is nobody's.
#[test]
fn an_abandoned_answer_stays_for_those_who_name_it() {
    let (mut sim, [p, q], [first, _]) = two_postponed();
    let asked = pipelined(&mut sim, p);
    let length = sim.call(A, on(asked, Op::Length), &[]);
    sim.sides[A].session.cancel(asked, FinishMode::Abandon).unwrap();
    sim.run();
    sim.sides[B].reply(first.next().unwrap(), &"four".into());
    sim.run();
    assert_eq!(sim.returned(A, length).outcome, Ok(int(4)));
    assert_eq!(sim.sides[A].take(asked), None);
    sim.sides[A].session.release(q).unwrap();
    sim.close(p);
}

/// FIN-4, REF-3, ANS-4: the answer to an abandoned call settles to a new object, which lives for the calls that name it; the
/// reference in its Return is nobody's and goes back.
#[test]
fn the_reference_of_an_abandoned_promise_goes_back() {
    let (mut sim, [p, q], [first, second]) = two_postponed();
    let [asked, other] = [p, q].map(|x| pipelined(&mut sim, x));
    let dependent = sim.call(A, on(asked, Op::Call), &[promise(other)]);
    sim.sides[A].session.cancel(asked, FinishMode::Abandon).unwrap();
    sim.run();
    let (deep, object) = later();
    let made = sim.sides[B].add(object);
    sim.sides[B].reply(first.next().unwrap(), &reference(Ref::Local(made)));
    sim.sides[B].reply(second.next().unwrap(), &int(1));
    sim.run();
    assert_eq!(sim.sides[A].take(asked), None);
    assert_eq!(sim.sides[A].session.tables().imports, 2, "only what was held before");
    assert!(sim.sides[B].has(made), "a call runs on it");
    sim.sides[B].reply(deep.next().unwrap(), &int(2));
    sim.run();
    assert_eq!(sim.returned(A, dependent).outcome, Ok(int(2)));
    assert!(!sim.sides[B].has(made));
    sim.sides[A].session.release(q).unwrap();
    sim.close(p);
}

/// ANS-5, ANS-6: calls on an answer that came home go by way of the callee, in their order; nothing shortens the path, so a
/// caller that has their Returns calls its object itself and comes after them.
#[test]
fn calls_on_an_answer_that_came_home_keep_their_order() {
    let (mut sim, x) = serving(echo());
    let order = Items::default();
    let board = sim.sides[A].board.clone();
    let items = sim.sides[A].add_permanent(list(&board, &order));
    let home = sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), &[reference(Ref::Local(items))]);
    let appended: Vec<_> = (0..3).map(|number| sim.call(A, on(home, Op::member(0)), &[int(number)])).collect();
    sim.run();
    assert_eq!(sim.returned(A, home).outcome, Ok(reference(Ref::Local(items))));
    for question in appended {
        assert_eq!(sim.returned(A, question).outcome, Ok(OwnedValue::None));
    }
    assert_eq!(*order.borrow(), (0..3).map(int).collect::<Vec<_>>());
    sim.close(x);
}

/// CAL-3, ANS-1: an id is not used again before its Finish went out and those that name its answer have their Returns.
#[test]
fn an_id_is_free_when_nobody_can_name_it() {
    let (mut sim, [p, q], [first, second]) = two_postponed();
    let asked = pipelined(&mut sim, p);
    let dependent = sim.call(A, on(asked, Op::Call), &[]);
    sim.run();
    // The answer settles to the other object, whose call is put off as well.
    let other = sim.sides[B].add(function(|_, reply| reply.none()));
    let (deep, object) = later();
    let held = sim.sides[B].add(object);
    assert_ne!(other, held);
    sim.sides[B].reply(first.next().unwrap(), &reference(Ref::Local(held)));
    sim.run();
    let returned = sim.returned(A, asked);
    assert_eq!(sim.sides[A].session.tables().questions, 2, "its dependent is still open");
    assert_eq!(sim.sides[B].session.tables().answers, 2);
    let next = sim.call(A, Call::new(Callee::Import(q), Op::Call), &[]);
    assert_ne!(next.id(), asked.id());
    sim.run();
    sim.sides[B].reply(deep.next().unwrap(), &int(1));
    sim.sides[B].reply(second.next().unwrap(), &int(2));
    sim.run();
    assert_eq!(sim.returned(A, dependent).outcome, Ok(int(1)));
    assert_eq!(sim.sides[A].session.tables().questions, 0);
    sim.sides[A].release(&returned);
    sim.sides[A].session.release(q).unwrap();
    sim.sides[A].session.release(p).unwrap();
    sim.run();
    assert_eq!(sim.sides[B].session.tables(), farref_conformance::sim::BASELINE);
}

/// CAL-4, REF-5: a call that waits holds what came home in it, also if the slot is released before the call runs, and
/// also if the object is sent again meanwhile, in the next generation.
#[test]
fn a_waiting_call_holds_what_came_home() {
    for resent in [false, true] {
        let (mut sim, [p, q], [first, _]) = two_postponed();
        sim.sides[A].session.release(q).unwrap();
        let thing = sim.sides[B].add_root("thing", function(|_, reply| reply.int(7)));
        let echoed = sim.sides[B].add_root("echo", echo());
        let home = sim.root(A, "thing");
        let asked = pipelined(&mut sim, p);
        let call = sim.call(A, on(asked, Op::Call), &[reference(Ref::Import(home))]);
        sim.sides[A].session.release(home).unwrap();
        sim.run();
        let again = resent.then(|| sim.root(A, "thing"));
        assert_ne!(again, Some(home));
        sim.sides[B].reply(first.next().unwrap(), &reference(Ref::Local(echoed)));
        sim.run();
        let returned = sim.returned(A, call);
        let Ok(OwnedValue::Reference(Ref::Import(back))) = returned.outcome else { panic!("{returned:?}") };
        assert_eq!(sim.get(A, back, Op::Call, &[]), Ok(int(7)));
        sim.sides[A].release(&returned);
        let settled = sim.returned(A, asked);
        sim.sides[A].release(&settled);
        if let Some(again) = again {
            sim.sides[A].session.release(again).unwrap();
        }
        sim.run();
        assert!(sim.sides[B].freed.contains(&thing));
        sim.close(p);
    }
}

/// ANS-4, VAL-6: a kept value holds what it refers to, of either side, until its Finish; parts of it are promises again.
#[test]
fn a_kept_value_holds_what_it_refers_to() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root(
        "pair",
        function(move |args, reply| {
            let theirs = args.reference(0).and_then(|handle| reply.resolve(handle));
            let Some(Reference::Import(theirs)) = theirs else { return reply.bad_arguments("a reference") };
            let ours = board.add(function(|_, reply| reply.int(11)));
            reply.with(&[Ref::Local(ours), Ref::Import(theirs)], |writer| {
                writer.tuple(3)?;
                writer.reference(0)?;
                writer.reference(1)?;
                writer.str("and no more")
            })
        }),
    );
    let pair = sim.root(A, "pair");
    let own = sim.sides[A].add(function(|_, reply| reply.int(22)));
    let call = Call::new(Callee::Import(pair), Op::Call).pipelined();
    let asked = sim.call(A, call, &[reference(Ref::Local(own))]);
    let parts = [0, 1].map(|index| sim.call(A, on(asked, Op::GetItem).pipelined(), &[int(index)]));
    let text = sim.call(A, on(asked, Op::GetItem), &[int(2)]);
    let numbers = parts.map(|part| sim.call(A, on(part, Op::Call), &[]));
    sim.run();
    let [ours, theirs] = numbers.map(|question| sim.returned(A, question).outcome);
    assert_eq!((ours, theirs), (Ok(int(11)), Ok(int(22))));
    let text = sim.returned(A, text);
    assert_eq!((text.outcome, text.held), (Ok("and no more".into()), vec![]), "it came without references");
    for question in parts.into_iter().chain([asked]) {
        let returned = sim.returned(A, question);
        sim.sides[A].release(&returned);
    }
    sim.run();
    assert!(!sim.sides[A].has(own));
    sim.close(pair);
}
