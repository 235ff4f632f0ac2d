//! Deadlines, keepalive and the counted end, on two sides in virtual time; each direction takes 10 ms.

use farref_conformance::fixtures::{Postponed, code, counter, echo, int, later, reference};
use farref_conformance::sim::{A, B, LIMITS, Owned, Side, Sim, config};
use farref_core::dispatch::Object;
use farref_core::message::{Consequence, Deadline, ErrorCode, FinishMode, Message, Op};
use farref_core::session::{Call, CallError, Callee, Config, Ended, Event, Host, Import, Question, Ref, Rule};
use farref_core::value::OwnedValue;

/// Two sides; B serves the object as a root, and A holds it.
fn serving(object: impl Object + 'static) -> (Sim<Host>, Import) {
    Sim::new(LIMITS).serving(object)
}

/// The same, with an object whose calls are answered when the case says so.
fn postponing() -> (Sim<Host>, Import, Postponed) {
    let (postponed, object) = later();
    let (sim, x) = serving(object);
    (sim, x, postponed)
}

fn call<'a>(import: Import) -> Call<'a> {
    Call::new(Callee::Import(import), Op::Call)
}

fn within(remaining: u32, consequence: Consequence) -> Deadline {
    Deadline { remaining, consequence }
}

/// How a call of A ended, if it has.
fn outcome(sim: &mut Sim<Host>, question: Question) -> Option<Result<Owned, ErrorCode>> {
    sim.sides[A].take(question).map(|returned| returned.outcome.map_err(|failure| failure.code))
}

/// TIM-1, TIM-3, FIN-2: a call that is cancelled when its time is over still has its Return, which tells what happened: that
/// it was stopped, or that it was done all the same.
#[test]
fn a_deadline_cancels_and_the_return_tells_the_truth() {
    for goes_on in [false, true] {
        let (mut sim, x, postponed) = postponing();
        let start = sim.now;
        let question = sim.call(A, call(x).deadline(Deadline::new(100)), &[]);
        sim.run_until(start + 99);
        assert!(sim.sides[A].late.is_empty());
        sim.run_until(start + 100);
        assert_eq!(sim.sides[A].late, [question]);
        assert!(sim.sides[B].interrupted.is_empty(), "the Finish is under way");
        sim.run_until(start + 110);
        let answer = postponed.last().unwrap();
        assert_eq!(sim.sides[B].interrupted, [answer]);
        assert_eq!(outcome(&mut sim, question), None);
        match goes_on {
            true => sim.sides[B].reply(answer, &int(1)),
            false => sim.sides[B].session.refuse(answer, ErrorCode::Cancelled, 1).unwrap(),
        }
        sim.run();
        let expected = if goes_on { Ok(int(1)) } else { Err(ErrorCode::Cancelled) };
        assert_eq!(outcome(&mut sim, question), Some(expected));
        sim.close(x);
    }
}

/// TIM-3, CAL-3, REF-3: an abandoned call is over for its caller at once. Its late reply is dropped, what it brings is
/// released, and only then is the id used again.
#[test]
fn a_late_reply_after_the_timeout_leaks_nothing() {
    let (mut sim, x, postponed) = postponing();
    let start = sim.now;
    let abandoned = sim.call(A, call(x).deadline(within(50, Consequence::Abandon)), &[]);
    sim.run_until(start + 60);
    assert_eq!(sim.sides[A].late, [abandoned]);
    let answer = postponed.next().unwrap();
    // Another call meanwhile, and one after the late reply.
    let other = sim.call(A, call(x), &[]);
    assert_ne!(other.id(), abandoned.id());
    let key = sim.sides[B].add(counter());
    sim.sides[B].reply(answer, &reference(Ref::Local(key)));
    sim.run();
    assert_eq!(outcome(&mut sim, abandoned), None);
    assert_eq!(sim.sides[B].freed, [key]);
    let third = sim.call(A, call(x), &[]);
    assert_eq!(third.id(), abandoned.id());
    sim.run();
    for (question, number) in [(other, 1), (third, 2)] {
        sim.sides[B].reply(postponed.next().unwrap(), &int(number));
        sim.run();
        assert_eq!(outcome(&mut sim, question), Some(Ok(int(number))));
    }
    sim.close(x);
}

/// TIM-3: a late result that is welcome: nothing is sent when the time is over, and the result comes.
#[test]
fn a_late_result_is_welcome_where_the_caller_says_so() {
    let (mut sim, x, postponed) = postponing();
    let start = sim.now;
    let question = sim.call(A, call(x).deadline(within(50, Consequence::Late)), &[]);
    sim.run_until(start + 500);
    assert_eq!((&sim.sides[A].late[..], sim.sent(A).messages), (&[question][..], 1));
    sim.sides[B].reply(postponed.next().unwrap(), &int(7));
    sim.run();
    assert_eq!(outcome(&mut sim, question), Some(Ok(int(7))));
    // Too late as well, and started all the same.
    let question = sim.call(A, call(x).deadline(within(0, Consequence::Late)), &[]);
    sim.run();
    sim.sides[B].reply(postponed.next().unwrap(), &int(8));
    sim.run();
    assert_eq!(outcome(&mut sim, question), Some(Ok(int(8))));
    sim.close(x);
}

/// TIM-3, CAL-3, FIN-3: the cancel of a passed deadline crosses the Return, and the id is used again at once: the Finish does
/// not hit the new call.
#[test]
fn a_cancel_crosses_the_return_and_the_id_is_used_again() {
    for reply_at in 31..60 {
        let (mut sim, x, postponed) = postponing();
        let start = sim.now;
        let question = sim.call(A, call(x).deadline(Deadline::new(50)), &[]);
        sim.run_until(start + reply_at);
        let answer = postponed.next().unwrap();
        sim.sides[B].reply(answer, &int(1));
        sim.run_until(start + reply_at + 10);
        assert_eq!(outcome(&mut sim, question), Some(Ok(int(1))), "replied at {reply_at}");
        let was_late = reply_at > 40;
        assert_eq!(sim.sides[A].late.len(), usize::from(was_late), "replied at {reply_at}");
        let again = sim.call(A, call(x), &[]);
        assert_eq!(again.id(), question.id());
        sim.run();
        assert_eq!(sim.sides[B].interrupted.len(), 0, "replied at {reply_at}");
        sim.sides[B].reply(postponed.next().unwrap(), &int(2));
        sim.run();
        assert_eq!(outcome(&mut sim, again), Some(Ok(int(2))));
        sim.close(x);
    }
}

/// TIM-3, ANS-3: a call whose time is over while it waits for an answer never starts, nor one that comes too late; what
/// waits for it is broken.
#[test]
fn the_deadline_of_a_waiting_call() {
    let (mut sim, x, postponed) = postponing();
    let start = sim.now;
    let slow = sim.call(A, call(x).pipelined(), &[]);
    let equals = |sim: &mut Sim<Host>, deadline: Option<Deadline>| {
        let call = Call { deadline, ..Call::new(Callee::Promise(slow), Op::Equals).pipelined() };
        sim.call(A, call, &[int(5)])
    };
    let [late, welcome, never] =
        [Some(Deadline::new(100)), Some(within(100, Consequence::Late)), Some(within(1 << 20, Consequence::Abandon))]
            .map(|deadline| equals(&mut sim, deadline));
    let broken = sim.call(A, Call::new(Callee::Promise(late), Op::Text), &[]);
    sim.run_until(start + 130);
    assert_eq!(outcome(&mut sim, late), Some(Err(ErrorCode::DeadlineExceeded)));
    assert_eq!(outcome(&mut sim, broken), Some(Err(ErrorCode::Broken)));
    assert_eq!((outcome(&mut sim, welcome), outcome(&mut sim, never)), (None, None));
    let too_late = sim.sides[A].call(call(x).deadline(Deadline::new(0)), &[]);
    assert_eq!(too_late, Err(CallError::DeadlineExceeded), "nothing is sent for it");
    sim.sides[B].reply(postponed.next().unwrap(), &int(5));
    sim.run();
    assert_eq!(outcome(&mut sim, welcome), Some(Ok(true.into())));
    assert_eq!(outcome(&mut sim, never), Some(Ok(true.into())));
    assert_eq!(outcome(&mut sim, slow), Some(Ok(int(5))));
    sim.close(x);
}

/// TIM-2: over two hops each call has what is left of the one that caused it, or less if it says so; without any time left
/// none is made.
#[test]
fn a_deadline_shrinks_over_two_hops() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let (postponed, object) = later();
    sim.sides[B].add_root("slow", object);
    let slow = sim.root(A, "slow");
    let start = sim.now;
    sim.call(A, call(slow).deadline(within(1000, Consequence::Abandon)), &[]);
    sim.run_until(start + 100);
    // It calls back after 100 ms, once with more time of its own, once with less, once with none that it names.
    let answer = postponed.next().unwrap();
    for deadline in [Some(Deadline::new(5000)), Some(Deadline::new(300)), None] {
        let call = Call { deadline, ..Call::new(Callee::Import(Import::DIRECTORY), Op::Length).parent(answer) };
        sim.sides[B].call(call, &[]).unwrap();
    }
    let sent = sim.sides[B].output();
    let deadlines: Vec<_> = sent
        .iter()
        .map(|body| match Message::read(body) {
            Ok(Message::Call(call)) => call.deadline.unwrap(),
            other => panic!("no call: {other:?}"),
        })
        .collect();
    // B heard of it 10 ms after it was sent, and counts from there.
    let inherited = within(910, Consequence::Abandon);
    assert_eq!(deadlines, [inherited, Deadline::new(300), inherited]);
    // The third hop: A serves one of them 50 ms later, and calls within it.
    sim.run_until(start + 150);
    let mut served = Vec::new();
    for body in &sent {
        if let Ok(Some(Event::Request(request))) = sim.sides[A].session.handle(body) {
            served.push((request.call, request.deadline));
        }
    }
    assert_eq!(served.iter().map(|(_, left)| left.unwrap()).collect::<Vec<_>>(), [910, 300, 910]);
    sim.run_until(start + 250);
    let (third, _) = served[1];
    let call = sim.sides[A].call(Call::new(Callee::Import(slow), Op::Call).parent(third), &[]);
    assert!(call.is_ok());
    let sent = sim.sides[A].output();
    let left = sent.iter().find_map(|body| match Message::read(body) {
        Ok(Message::Call(call)) => call.deadline,
        _ => None,
    });
    assert_eq!(left, Some(Deadline::new(200)));
    sim.run_until(start + 450);
    let too_late = sim.sides[A].call(Call::new(Callee::Import(slow), Op::Call).parent(third), &[]);
    assert_eq!(too_late, Err(CallError::DeadlineExceeded));
}

/// Two sides with these settings for silence.
fn patient(patience: [Option<u32>; 2]) -> Sim<Host> {
    Sim::with(patience.map(|patience| Config { patience, ..config(LIMITS) }))
}

/// TIM-4, TIM-5: each side keeps its own setting; what one wants the other does, and nobody is lost who is there.
#[test]
fn keepalive_with_different_settings_on_each_side() {
    let settings = [None, Some(0), Some(400), Some(1000), Some(60_000)];
    for (ours, theirs) in settings.iter().flat_map(|ours| settings.iter().map(move |theirs| (*ours, *theirs))) {
        let mut sim = patient([ours, theirs]);
        sim.run_until(600_000);
        assert_eq!(sim.ended(), [None, None], "{ours:?} and {theirs:?}");
        let pings = [sim.sent(A).messages, sim.sent(B).messages];
        for (sent, wanted) in pings.into_iter().zip([theirs, ours]) {
            let is_used = ours.is_some() && theirs.is_some();
            let wanted = if is_used { wanted.unwrap_or(0) } else { 0 };
            let least = if wanted == 0 { 0 } else { 600_000 / u64::from(wanted) };
            assert!((least..=4 * least + 2).contains(&sent), "{ours:?} and {theirs:?}: {sent} pings");
        }
        // A call needs no Ping beside it.
        let question = sim.call(A, Call::new(Callee::Import(Import::DIRECTORY), Op::Length), &[]);
        sim.run_until(600_100);
        assert_eq!(outcome(&mut sim, question), Some(Ok(int(0))));
    }
}

/// TIM-5: a peer that is not heard is lost after one patience, and not before; the side that does not care waits on.
#[test]
fn silence_ends_the_session() {
    let mut sim = patient([Some(1000), Some(0)]);
    sim.run_until(10_000);
    // From now on nothing of B comes through.
    let mut ended_at = None;
    for now in (10_000..13_000).step_by(10) {
        sim.sides[A].session.advance(now);
        sim.sides[A].output();
        if sim.sides[A].session.ended().is_some() {
            ended_at = Some(now);
            break;
        }
    }
    assert_eq!(sim.sides[A].session.ended(), Some(Ended::Silent));
    assert!(ended_at.is_some_and(|at| (10_750..=11_300).contains(&at)), "{ended_at:?}");
    assert_eq!(sim.sides[A].session.poll_timeout(), None);
    assert_eq!(sim.sides[B].session.ended(), None);
}

/// TIM-5: a side that could not look for long does not take its peer for lost because of that.
#[test]
fn a_long_sleep_is_no_silence() {
    let mut sim = patient([Some(1000), Some(1000)]);
    sim.run_until(5000);
    sim.sides[A].session.advance(1_000_000);
    assert_eq!(sim.sides[A].session.ended(), None);
}

/// CLS-2: both sides know that nothing is lost, and nothing is said after the Goodbyes.
#[test]
fn shutdown_ends_both_sides() {
    for both in [false, true] {
        let (mut sim, x) = serving(echo());
        assert_eq!(sim.get(A, x, Op::Call, &[int(1)]), Ok(int(1)));
        sim.mark();
        sim.sides[A].session.shutdown();
        if both {
            sim.sides[B].session.shutdown();
        }
        sim.run();
        assert_eq!(sim.ended(), [Some(Ended::Done); 2]);
        assert_eq!(sim.counts().messages, 2, "two Goodbyes");
        assert_eq!(sim.sides[A].call(call(x), &[]), Err(CallError::Ended(Ended::Done)));
    }
}

/// CLS-2: a call that crosses a Goodbye voids it: it is served, and the session ends after it. Both ways.
#[test]
fn a_call_that_crosses_a_goodbye_is_served() {
    for caller in [A, B] {
        let mut sim = Sim::<Host>::new(LIMITS);
        let ask = |sim: &mut Sim<Host>| sim.call(caller, Call::new(Callee::Import(Import::DIRECTORY), Op::Length), &[]);
        sim.sides[1 - caller].session.shutdown();
        sim.transmit(1 - caller);
        let question = ask(&mut sim);
        sim.run();
        assert_eq!(sim.returned(caller, question).outcome, Ok(int(0)));
        assert_eq!(sim.ended(), [Some(Ended::Done); 2]);
    }
}

/// CLS-2: who is leaving serves what comes, and makes calls within it; calls of its own it makes no more.
#[test]
fn calls_within_calls_go_on_while_leaving() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let (postponed, object) = later();
    sim.sides[B].add_root("x", object);
    let x = sim.root(A, "x");
    let question = sim.call(A, call(x), &[]);
    sim.run();
    sim.sides[B].session.shutdown();
    sim.run();
    let directory = || Call::new(Callee::Import(Import::DIRECTORY), Op::Length);
    assert_eq!(sim.sides[B].call(directory(), &[]), Err(CallError::Leaving));
    let answer = postponed.next().unwrap();
    let within = sim.call(B, directory().parent(answer), &[]);
    sim.run();
    assert_eq!(sim.returned(B, within).outcome, Ok(int(0)));
    assert_eq!(sim.ended(), [None, None], "a call is under way");
    sim.sides[B].reply(answer, &int(1));
    sim.run();
    assert_eq!(outcome(&mut sim, question), Some(Ok(int(1))));
    assert_eq!(sim.ended(), [Some(Ended::Done); 2]);
}

/// CLS-2: a Goodbye that crossed a message of ours is void and ends nothing; the next one does. One that counts what was never
/// sent can only come from a faulty peer.
#[test]
fn a_goodbye_counts() {
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    side.call(call(Import::DIRECTORY), &[]).unwrap();
    assert_eq!(side.receive(&[1, 0]), Ok(()));
    side.session.shutdown();
    assert_eq!(side.output(), [vec![0, 0, 0, 0], vec![24, 1]]);
    assert_eq!(side.session.clone().handle(&[24, 2]).err(), Some(Ended::PeerFault(Rule::GoodbyeAhead)));
    assert_eq!(side.receive(&[24, 0]), Ok(()), "it was said before the call came");
    assert_eq!(side.session.ended(), None);
    assert_eq!(side.receive(&[24, 1]), Err(Ended::Done));
}

/// CLS-2, REL-1: a Release after the Goodbye voids it too; it is counted, and the end comes after it.
#[test]
fn a_release_voids_a_goodbye() {
    let (mut sim, x) = serving(counter());
    sim.sides[B].session.shutdown();
    sim.transmit(B);
    sim.sides[A].session.release(x).unwrap();
    sim.run();
    assert_eq!(sim.ended(), [Some(Ended::Done); 2]);
    assert_eq!(sim.sides[A].session.tables().imports, 0);
}

/// CLS-2: behind a Goodbye comes no Release: who has heard it may be done. What came instead makes room for it.
#[test]
fn a_release_waits_behind_a_goodbye() {
    let (mut sim, x) = serving(echo());
    sim.sides[A].session.shutdown();
    sim.transmit(A);
    sim.sides[A].session.release(x).unwrap();
    sim.transmit(A);
    assert_eq!(sim.sent(A).messages, 1, "the Goodbye alone");
    let question = sim.call(B, Call::new(Callee::Import(Import::DIRECTORY), Op::Length), &[]);
    sim.run();
    assert_eq!(sim.returned(B, question).outcome, Ok(int(0)));
    assert_eq!(sim.sides[B].session.tables().exports, 1, "released after the call");
    assert_eq!(sim.ended(), [Some(Ended::Done); 2]);
}

/// FIN-1, FIN-2: a call that nobody waits for is stopped, and its outcome is not told: both modes, one Finish.
#[test]
fn interrupted_and_abandoned() {
    for modes in [[FinishMode::Interrupt, FinishMode::Abandon], [FinishMode::Abandon, FinishMode::Interrupt]] {
        let (mut sim, x, postponed) = postponing();
        let question = sim.call(A, call(x), &[]);
        sim.run();
        for mode in modes {
            sim.sides[A].session.cancel(question, mode).unwrap();
        }
        sim.run();
        let answer = postponed.next().unwrap();
        assert_eq!(sim.sides[B].interrupted, [answer]);
        sim.sides[B].session.refuse(answer, ErrorCode::Cancelled, 1).unwrap();
        sim.run();
        assert_eq!(outcome(&mut sim, question), None);
        assert_eq!(code(sim.get(A, x, Op::Next, &[OwnedValue::None])), ErrorCode::BadArguments);
        sim.close(x);
    }
}
