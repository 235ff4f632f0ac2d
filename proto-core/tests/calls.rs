//! Calls and their Returns, on two sides in virtual time.

use farref_conformance::fixtures::{
    Items, caller_back, code, counter, echo, exception, function, int, later, list, map, nested, owned, raiser,
    reference,
};
use farref_conformance::sim::{A, B, Failure, LIMITS, Owned, Sim};
use farref_core::dispatch::Object;
use farref_core::message::{ErrorCode, FinishMode, Limits, Op};
use farref_core::session::{Call, CallError, Callee, Host, Import, Ref, Reference, ReplyError, Stale};
use farref_core::value::OwnedValue;

/// Two sides; B serves the object as a root, and A holds it.
fn serving(object: impl Object + 'static) -> (Sim<Host>, Import) {
    Sim::new(LIMITS).serving(object)
}

/// C01. VAL-5: immutable values come back as they were, at any size and nesting. VAL-1, VAL-2, VAL-3.
#[test]
fn c01_values_round_trip() {
    let (mut sim, x) = serving(echo());
    let big = |negative, bytes: &[u8]| OwnedValue::BigInt(negative, bytes.to_vec());
    let nested = |inner: Owned| (0..14).fold(inner, |inner, _| OwnedValue::Tuple(vec![inner]));
    let values: Vec<Owned> = vec![
        OwnedValue::None,
        true.into(),
        false.into(),
        OwnedValue::NotImplemented,
        int(0),
        int(-16),
        int(-17),
        int(127),
        int(128),
        int(i64::MIN),
        int(i64::MAX),
        big(false, &[0, 0, 0, 0, 0, 0, 0, 0x80]),
        big(true, &[1, 0, 0, 0, 0, 0, 0, 0x80]),
        big(false, &[0x34, 0x12, 0, 0, 0, 0, 0, 0, 0xAB]),
        big(true, &[0xFF; 1000]),
        1.2.into(),
        (-0.0).into(),
        f64::INFINITY.into(),
        5e-324.into(),
        "aaa".into(),
        "".into(),
        "grüße, 世界 🦀 \u{0}".into(),
        "x".repeat(10_000).into(),
        OwnedValue::Bytes(vec![]),
        OwnedValue::Bytes((0..=255).collect()),
        OwnedValue::Tuple(vec![]),
        OwnedValue::Tuple(vec![int(1), "aa".into()]),
        OwnedValue::Tuple(vec![OwnedValue::Tuple(vec![int(1), OwnedValue::Tuple(vec!["é".into()])]), OwnedValue::None]),
        OwnedValue::Tuple((0..100).map(int).collect()),
        nested(int(1)),
        OwnedValue::List(vec![int(1), OwnedValue::List(vec![])]),
        OwnedValue::Set(vec![int(1)]),
        OwnedValue::Map(vec![("k".into(), int(1)), (int(2), OwnedValue::None)]),
        exception("app.errors.Busy", vec![int(1), "two".into(), OwnedValue::Tuple(vec![3.5.into()])]),
    ];
    for value in values {
        assert_eq!(sim.get(A, x, Op::Call, std::slice::from_ref(&value)), Ok(value));
    }
    let nan = sim.get(A, x, Op::Call, &[f64::NAN.into()]);
    assert!(matches!(nan, Ok(OwnedValue::Float(nan)) if nan.is_nan()), "{nan:?}");
    sim.close(x);
}

/// C02. VAL-5, REF-5: containers and functions go by reference, keep their kind at the owner, and come home as what they
/// were.
#[test]
fn c02_a_reference_keeps_its_kind() {
    let (mut sim, x) = serving(echo());
    let items: Items = Items::default();
    items.borrow_mut().extend([int(1), int(2)]);
    let board = sim.sides[A].board.clone();
    let keys = [
        sim.sides[A].add(list(&board, &items)),
        sim.sides[A].add(map(vec![("k".into(), int(1))])),
        sim.sides[A].add(function(|_, reply| reply.int(7))),
    ];
    for key in keys {
        let arg = reference(Ref::Local(key));
        assert_eq!(sim.get(A, x, Op::Call, std::slice::from_ref(&arg)), Ok(arg));
    }
    // What B sees of them.
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("force", function(move |args, reply| force_or_call(&board, args, reply)));
    let probe = sim.root(A, "force");
    let expected =
        [OwnedValue::List(vec![int(1), int(2)]), OwnedValue::Map(vec![("k".into(), int(1))]), OwnedValue::Int(7)];
    let board = sim.sides[A].board.clone();
    let again = [
        sim.sides[A].add(list(&board, &items)),
        sim.sides[A].add(map(vec![("k".into(), int(1))])),
        sim.sides[A].add(function(|_, reply| reply.int(7))),
    ];
    for ((key, is_function), expected) in again.into_iter().zip([false, false, true]).zip(expected) {
        let got = sim.get(A, probe, Op::Call, &[reference(Ref::Local(key)), is_function.into()]);
        assert_eq!(got, Ok(expected));
    }
    sim.sides[A].session.release(probe).unwrap();
    sim.close(x);
}

fn force_or_call(
    board: &farref_conformance::sim::Board<Host>,
    args: &farref_core::dispatch::Arguments<'_>,
    reply: farref_core::dispatch::Reply<'_>,
) -> farref_core::dispatch::Done {
    let Some(Reference::Import(import)) = args.reference(0).and_then(|handle| reply.resolve(handle)) else {
        return reply.bad_arguments("a reference");
    };
    let op = if args.bool(1) == Some(true) { Op::Call } else { Op::Force };
    nested(board, Callee::Import(import), op, args, 2, reply)
}

/// C03, N09: the bound method of an empty list is a reference as any other.
#[test]
fn c03_a_bound_method_of_an_empty_receiver() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let items = Items::default();
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("x", list(&board, &items));
    let x = sim.root(A, "x");
    let bound = sim.ask(A, x, Op::GetAttr, &["append".into()]);
    let Ok(OwnedValue::Reference(Ref::Import(append))) = bound.outcome else { panic!("{bound:?}") };
    assert_eq!(sim.get(A, append, Op::Call, &[int(5)]), Ok(OwnedValue::None));
    assert_eq!(*items.borrow(), [int(5)]);
    sim.sides[A].release(&bound);
    sim.close(x);
}

/// C05. CAL-2: a call gives its result, in one message each way.
#[test]
fn c05_a_function_is_called() {
    let (mut sim, x) = serving(function(|args, reply| match (args.int(0), args.int(1)) {
        (Some(left), Some(right)) => reply.int(left + right),
        _ => reply.bad_arguments("add(int, int)"),
    }));
    assert_eq!(sim.get(A, x, Op::Call, &[int(3), int(2)]), Ok(int(5)));
    assert_eq!(sim.counts().messages, 2);
    assert_eq!(sim.get(A, x, Op::Call, &[int(3)]).map_err(|failure| failure.code), Err(ErrorCode::BadArguments));
    sim.close(x);
}

/// C08: what a function uses of its own side stays there: no message beyond the call and its answer.
#[test]
fn c08_what_the_callee_uses_stays_with_its_owner() {
    fn double(value: i64) -> i64 {
        2 * value
    }
    let (mut sim, x) = serving(function(|args, reply| reply.int(double(args.int(0).unwrap_or_default()))));
    assert_eq!(sim.get(A, x, Op::Call, &[int(8)]), Ok(int(16)));
    assert_eq!(sim.counts().messages, 2);
    sim.close(x);
}

/// C11. CAL-6: the callee calls the caller while it is being called; the callback names the call that caused it.
#[test]
fn c11_a_callback_during_a_call() {
    let mut sim = Sim::<Host>::new(LIMITS).trace();
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("x", caller_back(&board));
    let x = sim.root(A, "x");
    let triple = sim.sides[A].add(function(|args, reply| reply.int(3 * args.int(0).unwrap_or_default())));
    assert_eq!(sim.get(A, x, Op::Call, &[reference(Ref::Local(triple)), int(4)]), Ok(int(12)));
    assert!(sim.log.iter().any(|line| line.contains("parent: Some(0)")), "{:#?}", sim.log);
    assert!(!sim.sides[A].has(triple), "it was released after the call");
    sim.close(x);
}

/// C14. ERR-3: an exception comes by its name, so that the caller's language catches it as its own.
#[test]
fn c14_an_exception_is_caught_by_its_name() {
    let (mut sim, x) = serving(function(|_, reply| reply.raise("ZeroDivisionError", "division by zero")));
    let failure = sim.get(A, x, Op::Call, &[]).unwrap_err();
    assert_eq!(failure.exception(), Some(("ZeroDivisionError", &["division by zero".into()][..])));
    sim.close(x);
}

/// N07. VAL-7: an exception's arguments are exact after any number of nested hops.
#[test]
fn n07_exception_arguments_are_exact_after_nested_hops() {
    let mut sim = Sim::<Host>::new(LIMITS);
    // Each side's hop calls the other's with one hop less; the last one raises.
    let args: Vec<Owned> =
        vec!["key".into(), int(i64::MIN), OwnedValue::Tuple(vec![OwnedValue::None, 0.1.into()]), "".into()];
    for side in [A, B] {
        let (board, raised) = (sim.sides[side].board.clone(), args.clone());
        let other = raiser_of(raised);
        sim.sides[side].add_root("hop", hop(board, other));
    }
    let there = sim.root(A, "hop");
    for hops in [0, 1, 2, 7, 20] {
        let failure = sim.get(A, there, Op::Call, &[int(hops)]).unwrap_err();
        assert_eq!(failure.exception(), Some(("app.Broken", &args[..])), "after {hops} hops");
    }
    sim.close(there);
}

fn raiser_of(args: Vec<Owned>) -> impl Fn(farref_core::dispatch::Reply<'_>) -> farref_core::dispatch::Done {
    move |reply| {
        reply.raise_with("app.Broken", args.len(), |writer| args.iter().try_for_each(|arg| arg.write(writer, &mut 0)))
    }
}

/// Calls the root `hop` of the other side with one hop less.
fn hop(
    board: farref_conformance::sim::Board<Host>,
    raise: impl Fn(farref_core::dispatch::Reply<'_>) -> farref_core::dispatch::Done,
) -> impl Object {
    function(move |args, mut reply| {
        let hops = args.int(0).unwrap_or_default();
        if hops == 0 {
            return raise(reply);
        }
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::CallMethod);
        match reply.call(call, |writer| {
            writer.str("hop")?;
            writer.int(hops - 1)
        }) {
            Ok(question) => {
                let (answer, done) = reply.later();
                board.then(question, move |side, returned| side.relay(answer, &returned));
                done
            }
            Err(CallError::TooDeep) => reply.raise("RuntimeError", "too deep"),
            Err(error) => reply.raise("RuntimeError", &error.to_string()),
        }
    })
}

/// N12. ADM-4: callbacks nested 10,000 deep end at the limit of levels, with an error and at the baseline.
#[test]
fn n12_deep_callbacks_end_at_an_explicit_limit() {
    let limits = Limits { levels: 100, ..LIMITS };
    let mut sim = Sim::<Host>::new(limits);
    for side in [A, B] {
        let board = sim.sides[side].board.clone();
        sim.sides[side].add_root("hop", hop(board, |reply| reply.int(1)));
    }
    let there = sim.root(A, "hop");
    assert_eq!(sim.get(A, there, Op::Call, &[int(99)]), Ok(int(1)));
    for hops in [100, 10_000] {
        let failure = sim.get(A, there, Op::Call, &[int(hops)]).unwrap_err();
        assert_eq!(failure.exception(), Some(("RuntimeError", &["too deep".into()][..])), "{hops} hops");
    }
    assert_eq!(sim.get(A, there, Op::Call, &[int(2)]), Ok(int(1)));
    sim.close(there);
}

/// N09: receivers and results that are false, empty or nothing are used as any other.
#[test]
fn n09_falsy_receivers_and_results() {
    let (mut sim, x) = serving(echo());
    let falsy: Vec<Owned> =
        vec![OwnedValue::None, false.into(), int(0), 0.0.into(), "".into(), OwnedValue::Tuple(vec![])];
    for value in falsy {
        assert_eq!(sim.get(A, x, Op::Call, std::slice::from_ref(&value)), Ok(value.clone()));
        // As the receiver of a pipelined operation.
        let first = sim.call(A, Call::new(Callee::Import(x), Op::Call).pipelined(), std::slice::from_ref(&value));
        let equals = sim.call(A, Call::new(Callee::Promise(first), Op::Equals), std::slice::from_ref(&value));
        sim.run();
        assert_eq!(sim.returned(A, first).outcome, Ok(value.clone()));
        assert_eq!(sim.returned(A, equals).outcome, Ok(true.into()), "{value:?}");
    }
    // An empty list by reference.
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("empty", list(&board, &Items::default()));
    let empty = sim.root(A, "empty");
    assert_eq!(sim.get(A, empty, Op::Length, &[]), Ok(int(0)));
    assert_eq!(sim.get(A, empty, Op::Force, &[]), Ok(OwnedValue::List(vec![])));
    assert_eq!(sim.get(A, x, Op::Call, &[reference(Ref::Import(empty))]), Ok(reference(Ref::Import(empty))));
    sim.sides[A].session.release(empty).unwrap();
    sim.close(x);
}

/// CAL-1, CAL-2: answers come in any order and are matched by id; an id is used again when it is free.
#[test]
fn answers_come_in_any_order() {
    let (postponed, object) = later();
    let (mut sim, x) = serving(object);
    let questions: Vec<_> = (0..5).map(|_| sim.call(A, Call::new(Callee::Import(x), Op::Call), &[])).collect();
    assert_eq!(questions.iter().map(|question| question.id()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    sim.run();
    for reply in (0..5).rev() {
        let answer = postponed.last().unwrap();
        sim.sides[B].reply(answer, &int(reply));
        sim.run();
    }
    for (number, question) in (0..).zip(&questions) {
        assert_eq!(sim.returned(A, *question).outcome, Ok(int(number)));
    }
    let again = sim.call(A, Call::new(Callee::Import(x), Op::Call), &[]);
    assert!(again.id() < 5);
    assert_ne!(again, questions[usize::from(again.id())]);
    sim.run();
    sim.sides[B].reply(postponed.next().unwrap(), &int(9));
    sim.run();
    assert_eq!(sim.returned(A, again).outcome, Ok(int(9)));
    sim.close(x);
}

/// CAL-2: a call gets exactly one Return: a second reply changes nothing.
#[test]
fn a_second_reply_is_refused_locally() {
    let (postponed, object) = later();
    let (mut sim, x) = serving(object);
    let question = sim.call(A, Call::new(Callee::Import(x), Op::Call), &[]);
    sim.run();
    let answer = postponed.next().unwrap();
    assert!(sim.sides[B].session.is_open(answer));
    sim.sides[B].reply(answer, &int(1));
    assert!(!sim.sides[B].session.is_open(answer));
    let again = sim.sides[B].session.reply(answer, &[], |writer| writer.int(2));
    assert_eq!(again, Err(ReplyError::NoSuchCall));
    let refused = sim.sides[B].session.refuse(answer, ErrorCode::Overloaded, 0);
    assert_eq!(refused, Err(ReplyError::NoSuchCall));
    sim.run();
    assert_eq!(sim.returned(A, question).outcome, Ok(int(1)));
    sim.close(x);
}

/// FIN-1, FIN-2: an interrupt reaches the running call; the Return's outcome tells what happened.
#[test]
fn an_interrupted_call_tells_its_outcome() {
    let (postponed, object) = later();
    let (mut sim, x) = serving(object);
    let [stopped, finished] = [(); 2].map(|()| sim.call(A, Call::new(Callee::Import(x), Op::Call), &[]));
    sim.run();
    for question in [stopped, finished] {
        assert_eq!(sim.sides[A].session.cancel(question, FinishMode::Interrupt), Ok(()));
    }
    sim.run();
    let [first, second] = [(); 2].map(|()| postponed.next().unwrap());
    assert_eq!(sim.sides[B].interrupted, [first, second]);
    sim.sides[B].session.refuse(first, ErrorCode::Cancelled, 1).unwrap();
    sim.sides[B].reply(second, &int(5));
    sim.run();
    let expected = Failure { code: ErrorCode::Cancelled, values: vec![true.into()] };
    assert_eq!(sim.returned(A, stopped).outcome, Err(expected));
    assert_eq!(sim.returned(A, finished).outcome, Ok(int(5)));
    sim.close(x);
}

/// FIN-1, FIN-2, REF-3: an abandoned call's Return comes late and with references; nobody is told, and they go back.
#[test]
fn the_late_return_of_a_cancelled_call_leaks_nothing() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("x", farref_conformance::fixtures::factory(&board));
    let x = sim.root(A, "x");
    let question = sim.call(A, Call::new(Callee::Import(x), Op::Call), &[]);
    // The Return is under way when the cancel is: they cross.
    sim.transmit(A);
    sim.deliver(A);
    sim.transmit(B);
    assert_eq!(sim.sides[A].session.cancel(question, FinishMode::Abandon), Ok(()));
    sim.run();
    assert_eq!(sim.sides[A].take(question), None);
    assert_eq!(sim.sides[B].transient(), 0, "the new object was released");
    sim.close(x);
}

/// FIN-3, CAL-3: a cancel that has not gone out when the Return comes is dropped, and the id is free again.
#[test]
fn a_cancel_that_meets_its_return_frees_the_id() {
    let (mut sim, x) = serving(counter());
    for mode in [FinishMode::Abandon, FinishMode::Interrupt] {
        for pipelined in [false, true] {
            let mut call = Call::new(Callee::Import(x), Op::member(0));
            call.pipelined = pipelined;
            let question = sim.call(A, call, &[int(1)]);
            sim.transmit(A);
            sim.deliver(A);
            sim.transmit(B);
            sim.sides[A].session.cancel(question, mode).unwrap();
            sim.deliver(B);
            sim.run();
            assert_eq!(sim.sides[A].session.tables().questions, 0, "{mode:?}, pipelined: {pipelined}");
            assert_eq!(sim.sides[B].session.tables().answers, 0, "{mode:?}, pipelined: {pipelined}");
        }
    }
    sim.close(x);
}

/// FIN-3: Finish crosses the Return, and the id may be in use again by the time it arrives: the new call is not touched.
#[test]
fn a_finish_that_crossed_the_return_is_ignored() {
    let (postponed, object) = later();
    let (mut sim, x) = serving(object);
    let first = sim.call(A, Call::new(Callee::Import(x), Op::Call), &[]);
    sim.transmit(A);
    sim.deliver(A);
    sim.sides[B].reply(postponed.next().unwrap(), &int(1));
    sim.transmit(B);
    sim.sides[A].session.cancel(first, FinishMode::Interrupt).unwrap();
    sim.transmit(A);
    sim.deliver(B);
    let second = sim.call(A, Call::new(Callee::Import(x), Op::Call), &[]);
    assert_eq!(second.id(), first.id());
    sim.run();
    assert!(sim.sides[B].interrupted.is_empty());
    sim.sides[B].reply(postponed.next().unwrap(), &int(2));
    sim.run();
    assert_eq!(sim.returned(A, first).outcome, Ok(int(1)));
    assert_eq!(sim.returned(A, second).outcome, Ok(int(2)));
    sim.close(x);
}

/// CAL-6: a callback's parent is known at the caller; once the call has its reply, it is no parent any more.
#[test]
fn a_parent_is_a_call_that_is_being_served() {
    let (postponed, object) = later();
    let (mut sim, x) = serving(object);
    sim.sides[A].add_root("echo", echo());
    sim.call(A, Call::new(Callee::Import(x), Op::Call), &[]);
    sim.run();
    let answer = postponed.next().unwrap();
    let directory = Call::new(Callee::Import(Import::DIRECTORY), Op::CallMethod);
    let nested = sim.call(B, directory.parent(answer), &["echo".into(), int(4)]);
    sim.run();
    assert_eq!(sim.returned(B, nested).outcome, Ok(int(4)));
    sim.sides[B].reply(answer, &int(1));
    assert_eq!(sim.sides[B].call(directory.parent(answer), &[]), Err(CallError::BadParent));
    sim.close(x);
}

/// CAL-7: arguments are decoded without running anything of the object's: a call with bad arguments has no effect.
#[test]
fn bad_arguments_have_no_effect() {
    let (mut sim, x) = serving(counter());
    assert_eq!(code(sim.get(A, x, Op::member(0), &["one".into()])), ErrorCode::BadArguments);
    assert_eq!(code(sim.get(A, x, Op::Next, &[int(0)])), ErrorCode::BadArguments);
    assert_eq!(sim.get(A, x, Op::GetAttr, &["value".into()]), Ok(int(0)));
    sim.close(x);
}

/// ERR-1, ERR-3: codes and exceptions come through as they were given, also where nothing here knows them.
#[test]
fn unknown_codes_and_exceptions_are_kept() {
    let (mut sim, x) = serving(raiser());
    let raised = sim.get(A, x, Op::Call, &["lang.Odd".into(), int(1)]).unwrap_err();
    assert_eq!(raised.exception(), Some(("lang.Odd", &[int(1)][..])));
    let (postponed, object) = later();
    let key = sim.sides[B].add_root("later", object);
    assert!(sim.sides[B].has(key));
    let put_off = sim.root(A, "later");
    let question = sim.call(A, Call::new(Callee::Import(put_off), Op::Call), &[]);
    sim.run();
    let failure = Failure { code: ErrorCode::from_number(29), values: vec![int(1), "why".into()] };
    sim.sides[B].fail(postponed.next().unwrap(), &failure);
    sim.run();
    assert_eq!(sim.returned(A, question).outcome, Err(failure));
    sim.sides[A].session.release(put_off).unwrap();
    sim.close(x);
}

/// CAL-6: named arguments come by their names, after the positional ones (VAL-8).
#[test]
fn named_arguments_come_by_name() {
    let (mut sim, x) = serving(function(|args, reply| {
        let by = args.named("by").map(|value| owned(args, &reply, value));
        match (args.int(0), by, args.get(1)) {
            (Some(value), Some(OwnedValue::Int(by)), None) => reply.int(value - by),
            _ => reply.bad_arguments("less(int, by=int)"),
        }
    }));
    let question = sim.sides[A].session.call(Call::new(Callee::Import(x), Op::Call), |writer| {
        writer.int(10)?;
        writer.named("by")?;
        writer.int(3)
    });
    sim.run();
    assert_eq!(sim.returned(A, question.unwrap()).outcome, Ok(int(7)));
    let twice = sim.sides[A].session.call(Call::new(Callee::Import(x), Op::Call), |writer| {
        writer.int(10)?;
        writer.named("by")?;
        writer.int(3)?;
        writer.named("by")?;
        writer.int(4)
    });
    sim.run();
    assert_eq!(code(sim.returned(A, twice.unwrap()).outcome), ErrorCode::BadArguments);
    sim.close(x);
}

/// CAL-2, CAL-3: handles of calls that are over, of either side, are refused locally, also when the id is in use again.
#[test]
fn handles_of_calls_that_are_over_are_stale() {
    let (postponed, object) = later();
    let (mut sim, x) = serving(object);
    let call = Call::new(Callee::Import(x), Op::Call);
    let old = sim.call(A, call, &[]);
    sim.run();
    let old_answer = postponed.next().unwrap();
    sim.sides[B].reply(old_answer, &int(1));
    sim.run();
    let new = sim.call(A, call, &[]);
    sim.run();
    let answer = postponed.next().unwrap();
    assert_eq!((old.id(), old_answer.id()), (new.id(), answer.id()));
    assert_eq!(sim.sides[A].session.cancel(old, FinishMode::Interrupt), Err(Stale));
    assert_eq!(sim.sides[A].call(Call::new(Callee::Promise(old), Op::Call), &[]), Err(CallError::NotAPromise));
    let replied = sim.sides[B].session.reply(old_answer, &[], |writer| writer.int(2));
    assert_eq!(replied, Err(ReplyError::NoSuchCall));
    assert_eq!(sim.sides[B].call(call.parent(old_answer), &[]), Err(CallError::BadParent));
    sim.sides[B].reply(answer, &int(3));
    sim.run();
    assert_eq!(sim.returned(A, new).outcome, Ok(int(3)));
    sim.close(x);
}

/// FIN-1: a call is cancelled once on the wire, however often it is commanded, and the last word says whether the outcome
/// is wanted.
#[test]
fn a_call_is_cancelled_once() {
    let (postponed, object) = later();
    let (mut sim, x) = serving(object);
    sim = sim.trace();
    let [first, second] = [(); 2].map(|()| sim.call(A, Call::new(Callee::Import(x), Op::Call), &[]));
    for _ in 0..3 {
        sim.sides[A].session.cancel(first, FinishMode::Interrupt).unwrap();
        sim.sides[A].session.cancel(second, FinishMode::Abandon).unwrap();
        sim.run();
    }
    assert_eq!(sim.log.iter().filter(|line| line.contains("Finish(")).count(), 1, "{:#?}", sim.log);
    for number in 0..2 {
        sim.sides[B].reply(postponed.next().unwrap(), &int(number));
    }
    sim.run();
    assert_eq!(sim.returned(A, first).outcome, Ok(int(0)));
    assert_eq!(sim.sides[A].take(second), None);
    sim.close(x);
}
