//! Bounds: what is refused when something is full, by whom, and that nothing waits for ever.

use farref_conformance::fixtures::{caller_back, code, counter, echo, factory, function, int, later, reference};
use farref_conformance::sim::{A, B, BASELINE, Failure, LIMITS, Owned, Side, Sim, body, config};
use farref_core::dispatch::Object;
use farref_core::message::{ErrorCode, Limits, Op};
use farref_core::session::{Call, CallError, Callee, Config, Host, Import, Micro, Ref, Storage};
use farref_core::value::OwnedValue;

fn serving(limits: Limits, object: impl Object + 'static) -> (Sim<Host>, Import) {
    Sim::new(limits).serving(object)
}

/// HEL-1, HEL-3: before the other's Hello nothing but our own goes out; its limits bind from then on.
#[test]
fn nothing_is_sent_before_the_others_hello() {
    let mut side = Side::<Host>::new(config(LIMITS));
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Length);
    assert_eq!(side.session.call(call, |_| Ok(())), Err(CallError::NotReady));
    assert!(!side.session.can_call());
    let sent = side.output();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][0], 0x10);
    let small = Limits { answers: 1, ..LIMITS };
    assert_eq!(side.receive(&farref_conformance::sim::hello(small)), Ok(()));
    assert_eq!(side.session.peer().map(|peer| peer.limits), Some(small));
    assert!(side.session.call(call, |_| Ok(())).is_ok());
    assert_eq!(side.session.call(call, |_| Ok(())), Err(CallError::Overloaded));
}

/// ADM-2, CAL-1: a free call id is the credit; when a Return came there is one again.
#[test]
fn a_call_needs_a_free_id() {
    let limits = Limits { answers: 3, ..LIMITS };
    let (postponed, object) = later();
    let (mut sim, x) = serving(limits, object);
    let call = Call::new(Callee::Import(x), Op::Call);
    let questions = [(); 3].map(|()| sim.call(A, call, &[]));
    assert_eq!(sim.sides[A].call(call, &[]), Err(CallError::Overloaded));
    assert!(!sim.sides[A].session.can_call());
    sim.run();
    assert_eq!(sim.sides[B].session.tables().answers, 3);
    sim.sides[B].reply(postponed.next().unwrap(), &int(0));
    sim.run();
    assert!(sim.sides[A].session.can_call());
    let fourth = sim.call(A, call, &[]);
    sim.run();
    for number in 1..4 {
        sim.sides[B].reply(postponed.next().unwrap(), &int(number));
    }
    sim.run();
    for (number, question) in (0..).zip(questions.into_iter().chain([fourth])) {
        assert_eq!(sim.returned(A, question).outcome, Ok(int(number)));
    }
    sim.close(x);
}

/// ADM-2: the bodies of calls without a Return stay within the other's call_bytes.
#[test]
fn calls_stay_within_the_bytes_that_the_other_takes() {
    let limits = Limits { call_bytes: 100, ..LIMITS };
    let (postponed, object) = later();
    let (mut sim, x) = serving(limits, object);
    let call = Call::new(Callee::Import(x), Op::Call);
    let arg = OwnedValue::Bytes(vec![7; 40]);
    let first = sim.call(A, call, std::slice::from_ref(&arg));
    sim.call(A, call, std::slice::from_ref(&arg));
    assert_eq!(sim.sides[A].call(call, std::slice::from_ref(&arg)), Err(CallError::Overloaded));
    let never = sim.sides[A].call(call, &[OwnedValue::Bytes(vec![7; 100])]);
    assert!(matches!(never, Err(CallError::TooLarge(_))), "{never:?}");
    let small = sim.call(A, call, &[]);
    sim.run();
    sim.sides[B].reply(postponed.next().unwrap(), &int(1));
    sim.run();
    assert_eq!(sim.returned(A, first).outcome, Ok(int(1)));
    sim.call(A, call, &[arg]);
    sim.run();
    while let Some(answer) = postponed.next() {
        sim.sides[B].reply(answer, &int(2));
    }
    sim.run();
    assert_eq!(sim.returned(A, small).outcome, Ok(int(2)));
    sim.close(x);
}

/// ADM-3: live exports stay within the other's imports. The command says so before anything changed; a result becomes
/// `TableFull`. After a release there is room again.
#[test]
fn references_stay_within_the_tables_of_the_other() {
    // Each has room for more exports than the other holds.
    let roomy = Config { exports: 100, ..config(Limits { imports: 4, ..LIMITS }) };
    let mut sim = Sim::<Host>::with([roomy, roomy]);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("make", factory(&board));
    let make = sim.root(A, "make");
    let made = [(); 2].map(|()| sim.ask(A, make, Op::Call, &[]));
    assert_eq!(code(sim.ask(A, make, Op::Call, &[]).outcome), ErrorCode::TableFull);
    sim.sides[A].release(&made[0]);
    sim.run();
    let again = sim.ask(A, make, Op::Call, &[]);
    assert!(again.outcome.is_ok());
    // In the other direction it is the command that fails.
    let keys = [(); 4].map(|()| sim.sides[A].add_permanent(counter()));
    let args = keys.map(|key| reference(Ref::Local(key)));
    let call = Call::new(Callee::Import(make), Op::Call);
    let before = sim.sides[A].session.tables();
    assert_eq!(sim.sides[A].call(call, &args), Err(CallError::TableFull));
    assert_eq!(sim.sides[A].session.tables(), before);
    let many = vec![args[0].clone(); 65];
    assert_eq!(sim.sides[A].call(call, &many), Err(CallError::TooManyReferences));
    sim.sides[A].release(&made[1]);
    sim.sides[A].release(&again);
    sim.sides[A].session.release(make).unwrap();
    sim.run();
    assert_eq!(sim.sides.each_ref().map(|side| side.session.tables()), [BASELINE; 2]);
}

/// ADM-5: a result that is longer than the caller's messages becomes the error that tells its size.
#[test]
fn a_result_that_is_too_large_tells_its_size() {
    let mut small = config(Limits { max_message: 100, ..LIMITS });
    small.calls = 4;
    let mut sim = Sim::<Host>::with([small, config(LIMITS)]);
    sim.sides[B]
        .add_root("x", function(|args, reply| reply.str(&"x".repeat(args.int(0).unwrap_or_default() as usize))));
    let x = sim.root(A, "x");
    // Head, id, tag, length: 4 bytes beside the text.
    assert_eq!(sim.get(A, x, Op::Call, &[int(96)]), Ok("x".repeat(96).into()));
    let expected = Failure { code: ErrorCode::ResultTooLarge, values: vec![int(101)] };
    assert_eq!(sim.get(A, x, Op::Call, &[int(97)]), Err(expected));
    let expected = Failure { code: ErrorCode::ResultTooLarge, values: vec![int(100_006)] };
    assert_eq!(sim.get(A, x, Op::Call, &[int(100_000)]), Err(expected));
    sim.close(x);
}

/// C1, ADM-1, ADM-2, ADM-6: both sides are at their limits with calls, each of which calls back. Nested calls find no id and
/// fail at once; everything ends.
#[test]
fn both_sides_full_of_calls_that_call_back_come_to_an_end() {
    type Small = Micro<8, 8, 4, 1024, 512>;
    let limits = Limits { max_message: 256, imports: 8, answers: 4, call_bytes: 256, handles: 4, levels: 8 };
    let mut sim = Sim::<Small>::with([config(limits), config(limits)]);
    let mut held = Vec::new();
    for side in [A, B] {
        let board = sim.sides[side].board.clone();
        sim.sides[side].add_root("back", caller_back(&board));
    }
    for side in [A, B] {
        let key = sim.sides[side].add(echo());
        held.push((sim.root(side, "back"), key));
    }
    let mut questions = Vec::new();
    for (side, &(back, key)) in [A, B].into_iter().zip(&held) {
        for number in 0..4 {
            let args = [reference(Ref::Local(key)), int(number)];
            questions.push((side, number, sim.call(side, Call::new(Callee::Import(back), Op::Call), &args)));
        }
        assert!(!sim.sides[side].session.can_call());
    }
    sim.run();
    let mut served = 0;
    for (side, number, question) in questions {
        match sim.returned(side, question).outcome {
            Ok(value) => {
                assert_eq!(value, int(number));
                served += 1;
            }
            Err(failure) => assert_eq!(failure.exception().map(|(name, _)| name), Some("RuntimeError"), "{failure:?}"),
        }
    }
    assert_eq!(served, 0, "no id was free for a nested call until one side had its Returns");
    for (side, (back, _)) in [A, B].into_iter().zip(held) {
        sim.sides[side].session.release(back).unwrap();
    }
    sim.assert_baseline();
}

/// ADM-1, ADM-6: a side whose output is full goes on reading. What it answers by itself is state, and goes out when there
/// is room; no request is started that could not be answered.
#[test]
fn a_full_output_stops_no_reading() {
    type Tight = Micro<4, 4, 16, 160, 512>;
    let limits = Limits { max_message: 128, imports: 4, answers: 16, call_bytes: 256, handles: 4, levels: 4 };
    let mut side = Side::<Tight>::scripted(config(limits), LIMITS);
    side.add_root("x", function(|_, reply| reply.str("0123456789012345678901234567890123456789")));
    // Nobody takes the output. Calls of a root, of no object, and messages of kinds to come.
    for id in 0..16 {
        let call = body(|writer| {
            writer.byte(0);
            writer.varint(id);
            writer.varint(if id % 2 == 0 { 0 } else { 3 << 2 });
            writer.varint(4);
            writer.put(b"\x41x");
        });
        assert_eq!(side.receive(&call), Ok(()));
        assert_eq!(side.receive(&[9]), Ok(()));
    }
    assert!(side.session.output_len() <= 160);
    let (mut returned, mut ran) = (vec![false; 16], 0);
    let mut unimplemented = 0;
    for _ in 0..16 {
        for message in side.output() {
            match message[0] & 0x1F {
                1 => {
                    let id = usize::from(message[1]);
                    assert!(!std::mem::replace(&mut returned[id], true), "call {id} has two Returns");
                    let error = (message[0] & 0x20 != 0).then(|| message[2]);
                    ran += u32::from(error.is_none());
                    assert!(matches!((id % 2, error), (0, None | Some(7)) | (1, Some(1))), "{id}: {error:?}");
                }
                4 => unimplemented += 1,
                _ => panic!("{message:02x?}"),
            }
        }
    }
    assert_eq!(returned, [true; 16]);
    assert_eq!(ran, 3, "as many as there was room for");
    assert_eq!(unimplemented, 1, "merged");
    assert_eq!(side.session.tables(), BASELINE);
}

/// ADM-2: output that is half taken makes room for a call as long as the limit allows.
#[test]
fn output_that_is_half_taken_makes_room() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Call);
    for length in [100, 300, 1000, 3000, 10_000, 30_000] {
        // A few bytes are taken, most are not.
        side.session.call(call, |writer| writer.bytes(&[1; 50])).unwrap();
        side.session.transmit();
        side.session.transmitted(10);
        let called = side.session.call(call, |writer| writer.bytes(&vec![1; length]));
        assert!(called.is_ok(), "{length} bytes: {called:?}");
    }
}

/// ADM-2: a call that can never fit the output is told as too large, so that nobody waits for room.
#[test]
fn a_call_longer_than_the_output_is_too_large() {
    type Tight = Micro<4, 4, 4, 256, 512>;
    let limits = Limits { max_message: 128, imports: 4, answers: 4, call_bytes: 256, handles: 4, levels: 4 };
    let mut side = Side::<Tight>::scripted(config(limits), LIMITS);
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Call);
    let called = side.session.call(call, |writer| writer.bytes(&[1; 300]));
    assert!(matches!(called, Err(CallError::TooLarge(_))), "{called:?}");
    assert_eq!(side.session.tables(), BASELINE);
}

/// ADM-4: a call nested deeper than the other serves is told at the caller, before it is sent.
#[test]
fn a_call_nested_too_deep_is_not_sent() {
    let limits = Limits { levels: 1, ..LIMITS };
    let mut sim = Sim::<Host>::new(limits);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("back", caller_back(&board));
    let back = sim.root(A, "back");
    let key = sim.sides[A].add_permanent(echo());
    sim.mark();
    let failure = sim.get(A, back, Op::Call, &[reference(Ref::Local(key)), int(1)]).unwrap_err();
    let text: Owned = CallError::TooDeep.to_string().into();
    assert_eq!(failure.exception(), Some(("RuntimeError", &[text][..])));
    sim.close(back);
}

/// ANS-3, ADM-2, ADM-7: calls that waited give back their room, and their bytes, whatever becomes of them; the next ones have
/// all of it again, whatever their ids are.
#[test]
fn calls_that_waited_give_their_room_back() {
    fn waiting<S: Storage + 'static>() {
        let limits = Limits { max_message: 256, imports: 4, answers: 4, call_bytes: 128, handles: 4, levels: 4 };
        let setup = Config { store_bytes: 128 + 4 * 8, ..config(limits) };
        let mut side = Side::<S>::scripted(setup, LIMITS);
        let (postponed, object) = later();
        side.add_root("x", object);
        for round in 0..12 {
            let [first, second] = [0, 1].map(|place| (round + place) % 4);
            let last = [[0, second, first << 2 | 2, 0, 8, 110].as_slice(), &[7; 110]].concat();
            assert_eq!(side.receive(&[0x20, first, 0, 4, 0x41, b'x']), Ok(()));
            assert_eq!(side.receive(&last), Ok(()), "122 bytes are within the limit");
            assert!(side.output().is_empty(), "round {round}: it waits");
            let answer = postponed.next().unwrap();
            match round % 3 {
                0 => side.reply(answer, &OwnedValue::Bytes(vec![7; 3])),
                1 => side.fail(answer, &Failure { code: ErrorCode::AccessDenied, values: vec!["no".into()] }),
                _ => {
                    assert_eq!(side.receive(&[2, second << 2 | 2]), Ok(()));
                    side.reply(answer, &int(1));
                }
            }
            side.settle();
            assert_eq!(side.output().len(), 2);
            assert_eq!(side.receive(&[2, first << 2]), Ok(()));
            assert_eq!(side.session.tables(), BASELINE);
        }
    }
    waiting::<Host>();
    waiting::<Micro<4, 4, 4, 512, 160>>();
}

/// ANS-4, ADM-2: room that announced calls may need is not given to kept results, so that a call within the limits can
/// always wait.
#[test]
fn kept_results_leave_room_for_calls_that_wait() {
    type Small = Micro<8, 8, 8, 1024, 256>;
    // 8 calls need 8 bytes each beside their own; that leaves 64 for results.
    let limits = Limits { max_message: 256, imports: 8, answers: 8, call_bytes: 128, handles: 4, levels: 8 };
    let mut sim = Sim::<Small>::with([config(limits), config(limits)]);
    let (postponed, object) = later();
    sim.sides[B].add_root("later", object);
    sim.sides[B].add_root("echo", echo());
    let [put_off, echoed] = ["later", "echo"].map(|name| sim.root(A, name));
    let pipelined = |x| Call::new(Callee::Import(x), Op::Call).pipelined();
    // What calls that waited have had is theirs again, the second time.
    for _ in 0..2 {
        let waited = sim.call(A, pipelined(put_off), &[]);
        // These stay, since a call names each of them.
        let mut lengths = Vec::new();
        for _ in 0..2 {
            let kept = sim.call(A, pipelined(echoed), &["twenty-byte-long-text".into()]);
            let of = OwnedValue::Reference(Ref::Promise(waited));
            lengths.push(sim.call(A, Call::new(Callee::Promise(kept), Op::Contains), &[of]));
        }
        // Fills what is left of the other's call_bytes, and waits as well.
        let last = sim.call(A, Call::new(Callee::Promise(waited), Op::Equals), &[OwnedValue::Bytes(vec![1; 30])]);
        sim.run();
        sim.sides[B].reply(postponed.next().unwrap(), &"byte".into());
        sim.run();
        // All of them waited. Then there was no room to keep one more result.
        for question in lengths.into_iter().chain([last]) {
            assert_eq!(code(sim.returned(A, question).outcome), ErrorCode::NotKept);
        }
    }
    sim.sides[A].session.release(put_off).unwrap();
    sim.sides[A].session.release(echoed).unwrap();
    sim.assert_baseline();
}
