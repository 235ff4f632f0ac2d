//! Calls, callbacks, cancelling and order (SPEC section 6).

use farref_core::message::{Descriptor, ErrorCode, FinishMode, Op, Target};

use super::Case;
use super::messages::each_ends_the_session;
use crate::suite::peer::{Peer, Tester, Verdict, as_theirs, check, same};
use crate::suite::wire::{Call, ROOT, Theirs, Value, answer, exception, failing, finishing, int, mine, text, tuple};

pub(super) const CASES: &[Case] = &[
    Case::new("CAL-1/every-id-serves-a-call", every_id_serves),
    Case::new("CAL-1/id-of-a-running-call-is-not-free", id_of_a_running_call),
    Case::new("CAL-1/id-of-an-unfinished-promise-is-not-free", id_of_a_promise),
    Case::new("CAL-2/returns-come-in-any-order", returns_in_any_order),
    Case::new("CAL-2/subject-takes-returns-in-any-order", subject_takes_any_order),
    Case::new("CAL-2/return-without-a-call-ends-the-session", return_without_call),
    Case::new("CAL-2/second-return-ends-the-session", second_return),
    Case::new("CAL-3/finished-id-is-free-again", finished_id_is_free),
    Case::new("CAL-3/named-answer-keeps-its-id", named_answer_keeps_its_id),
    Case::new("CAL-4/running-call-holds-its-target", running_call_holds_its_target),
    Case::new("CAL-5/none-is-the-empty-return", none_is_empty),
    Case::new("CAL-5/malformed-result-fails-its-call-alone", malformed_result),
    Case::new("CAL-6/callback-names-its-parent", callback_names_its_parent),
    Case::new("CAL-6/callbacks-nest-both-ways", callbacks_nest),
    Case::new("CAL-6/many-callbacks-in-one-call", many_callbacks),
    Case::new("CAL-6/parent-that-is-not-open-ends-the-session", parent_not_open),
    Case::new("CAL-6/parent-that-has-returned-ends-the-session", parent_has_returned),
    Case::new("CAL-7/malformed-arguments-fail-their-call-alone", malformed_arguments),
    Case::new("CAL-7/malformed-comes-before-what-is-stale", malformed_first),
    Case::new("FIN-1/subject-finishes-its-promise", subject_finishes),
    Case::new("FIN-1/subject-abandons-its-call", subject_abandons),
    Case::connecting("FIN-1/reserved-mode-ends-the-session", reserved_mode),
    Case::new("FIN-2/abandoned-call-has-its-return", abandoned_call_returns),
    Case::new("FIN-2/interrupted-call-has-one-return", interrupted_call_returns),
    Case::new("FIN-2/waiting-call-that-is-interrupted-never-starts", interrupted_before_start),
    Case::new("FIN-3/finish-without-an-answer-is-ignored", finish_is_ignored),
    Case::new("FIN-4/abandoned-answer-stays-for-those-that-name-it", abandoned_answer_stays),
    Case::new("ORD-1/uses-come-before-their-release", uses_before_release),
    Case::new("ORD-2/calls-on-one-object-run-in-order", calls_in_order),
    Case::new("ORD-2/next-call-waits-for-the-return", next_call_waits),
    Case::new("ORD-2/nested-call-passes-those-without-a-parent", nested_call_passes),
    Case::new("ORD-2/nested-calls-of-one-parent-run-in-order", nested_calls_in_order),
    Case::new("ORD-2/nested-calls-overlap-on-no-object", nested_calls_overlap_nowhere),
    Case::new("ORD-2/slow-object-holds-up-no-other", slow_holds_up_no_other),
];

/// A slow one on which the call `id` of `wait("x")` has begun.
fn waiting(peer: &mut Peer, call: impl FnOnce(Call) -> Call) -> Verdict<Theirs> {
    let slow = peer.make("slow", &[])?;
    peer.send(call(Call::method(1, slow, "wait", &[text("x")])));
    same("the calls that have begun", &int(1), &peer.ask_method(slow, "entered", &[int(1)])?)?;
    Ok(slow)
}

fn every_id_serves(peer: &mut Peer) -> Verdict {
    let slow = peer.make("slow", &[])?;
    let last = peer.theirs().answers - 1;
    (0..last).for_each(|id| peer.method(id, slow, "wait", &[text("x")]));
    // All are under way at once, and the last id is still to be had.
    let begun = peer.ask_method(slow, "entered", &[int(last.into())])?;
    same("the calls that have begun", &int(last.into()), &begun)?;
    peer.ask_method(slow, "open", &[text("x"), int(3)])?;
    (0..last).try_for_each(|id| peer.expect_value(id, &int(3)))
}

fn id_of_a_running_call(peer: &mut Peer) -> Verdict {
    waiting(peer, |call| call)?;
    peer.call(1, ROOT, Op::Describe, &[]);
    peer.expect_close("CAL-1")
}

fn id_of_a_promise(peer: &mut Peer) -> Verdict {
    peer.send(Call::method(1, ROOT, "echo", &[int(1)]).pipelined());
    peer.expect_value(1, &int(1))?;
    peer.call(1, ROOT, Op::Describe, &[]);
    peer.expect_close("CAL-1")
}

fn returns_in_any_order(peer: &mut Peer) -> Verdict {
    let slow = peer.make("slow", &[])?;
    let names = ["a", "b", "c"];
    (1..).zip(names).for_each(|(id, name)| peer.method(id, slow, "wait", &[text(name)]));
    for (id, name) in [(2, "b"), (3, "c"), (1, "a")] {
        peer.ask_method(slow, "open", &[text(name), text(name)])?;
        peer.expect_value(id, &text(name))?;
    }
    Ok(())
}

fn subject_takes_any_order(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "both", &[mine(1), mine(2)]);
    let first = peer.expect_call_of(1)?;
    let second = peer.expect_call_of(2)?;
    peer.reply(&second, &text("second"));
    peer.fence()?;
    peer.reply(&first, &text("first"));
    peer.expect_value(1, &tuple([text("first"), text("second")]))
}

fn return_without_call(peer: &mut Peer) -> Verdict {
    peer.send([1, 3]);
    peer.expect_close("CAL-2")
}

fn second_return(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.reply(&call, &int(1));
    peer.expect_value(1, &int(1))?;
    peer.reply(&call, &int(2));
    peer.expect_close("CAL-2")
}

fn finished_id_is_free(peer: &mut Peer) -> Verdict {
    for number in 0..50 {
        peer.send(Call::method(1, ROOT, "echo", &[int(number)]).pipelined());
        peer.expect_value(1, &int(number))?;
        peer.finish(1);
    }
    for number in 0..50 {
        peer.method(1, ROOT, "echo", &[int(number)]);
        peer.expect_value(1, &int(number))?;
    }
    Ok(())
}

fn named_answer_keeps_its_id(peer: &mut Peer) -> Verdict {
    let slow = peer.make("slow", &[])?;
    // Call 2 names the answer to call 1 and has no Return yet.
    let promise = Call::method(1, ROOT, "echo", &[int(1)]).pipelined();
    let naming = Call::method(2, slow, "wait", &[text("x"), answer(1)]);
    peer.send_together([promise.body(), naming.body()]);
    peer.expect_value(1, &int(1))?;
    peer.ask_method(slow, "entered", &[int(1)])?;
    peer.finish(1);
    peer.call(1, ROOT, Op::Describe, &[]);
    peer.expect_close("CAL-1")
}

fn running_call_holds_its_target(peer: &mut Peer) -> Verdict {
    let maker = peer.make("maker", &[])?;
    let thing = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    peer.method(1, thing, "after", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.release(&[thing]);
    // Its slot may be used again meanwhile.
    let other = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    check(other != thing, "another handle", other)?;
    same("what is alive", &int(2), &peer.ask_method(maker, "alive", &[])?)?;
    peer.reply(&call, &Value::None);
    peer.expect_value(1, &int(1))?;
    peer.until(maker, "alive", &int(1))?;
    same("the other thing", &int(2), &peer.ask(other, Op::Call, &[])?)
}

fn none_is_empty(peer: &mut Peer) -> Verdict {
    peer.method(1, ROOT, "echo", &[Value::None]);
    let returned = peer.expect_returned(1)?;
    same("the bytes of the result", &[][..], &returned.bytes[..])
}

fn malformed_result(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    let malformed = tuple([int(ErrorCode::Malformed.number() as i64)]);
    // Two values, an explicit none, a reserved tag, a string cut short, a handle that is not listed, a named value.
    let results: [&[u8]; 6] = [&[0x81, 0x82], &[0x00], &[0x10], &[0x45, b'a'], &[0x0D, 0], &[0x0F, 0x41, b'a', 0x81]];
    for result in results {
        peer.method(1, caller, "catch", &[mine(1)]);
        let call = peer.expect_call()?;
        let head = [1, u8::try_from(call.id).unwrap_or_default()];
        peer.send([&head[..], result].concat());
        peer.expect_value(1, &malformed)?;
    }
    peer.fence()
}

fn callback_names_its_parent(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[mine(1), text("a"), int(2)]);
    let call = peer.expect_call_of(1)?;
    same("the parent", &Some(1), &call.parent)?;
    same("the operation", &Op::Call, &call.op)?;
    same("the arguments", &[text("a"), int(2)][..], &call.args)?;
    peer.reply(&call, &text("done"));
    peer.expect_value(1, &text("done"))
}

fn callbacks_nest(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    // We call, it calls back, we call what came with that, within its call, and so on.
    let depth = i64::from(peer.theirs().levels.min(8)) - 2;
    peer.method(1, caller, "nest", &[mine(1), int(depth)]);
    let mut calls = Vec::new();
    let mut id = 1;
    let mut left = depth;
    while left > 0 {
        let call = peer.expect_call_of(1)?;
        same("the parent", &Some(id), &call.parent)?;
        left -= 1;
        let [deeper, argument] = &call.args[..] else { return same("the arguments", &2, &call.args.len()) };
        same("the depth", &int(left), argument)?;
        if left > 0 {
            id += 1;
            left -= 1;
            let deeper = as_theirs(deeper)?;
            peer.send(Call::new(id, deeper, Op::Call).args(&[mine(1), int(left)]).parent(call.id));
        }
        calls.push(call);
    }
    if let Some(call) = calls.last().filter(|_| depth % 2 == 1) {
        // The bottom is ours.
        peer.reply(call, &text("bottom"));
        calls.pop();
    }
    while id > 1 {
        let value = peer.expect_return(id)?;
        same("the result", &text("bottom"), &value)?;
        id -= 1;
        if let Some(call) = calls.pop() {
            peer.reply(&call, &value);
        }
    }
    peer.expect_value(1, &text("bottom"))
}

fn many_callbacks(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "times", &[mine(1), int(100)]);
    for number in 0..100 {
        let call = peer.expect_call_of(1)?;
        same("the argument", &[int(number)][..], &call.args)?;
        peer.reply(&call, &int(2 * number));
    }
    peer.expect_value(1, &tuple((0..100).map(|number| int(2 * number)).collect::<Vec<_>>()))?;
    peer.expect_released(1)?;
    peer.fence()?;
    check(peer.released().is_empty(), "one Release", peer.released())
}

fn parent_not_open(peer: &mut Peer) -> Verdict {
    peer.send(Call::new(1, ROOT, Op::Describe).parent(0));
    peer.expect_close("CAL-6")
}

fn parent_has_returned(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    peer.send(Call::new(2, ROOT, Op::Describe).parent(call.id));
    peer.expect_return(2)?;
    peer.reply(&call, &int(1));
    peer.send(Call::new(2, ROOT, Op::Describe).parent(call.id));
    peer.expect_close("CAL-6")
}

fn malformed_arguments(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let target = u8::try_from(counter.slot << 2).unwrap_or_default();
    // A handle that is not listed, a string and a tuple cut short, a reserved tag, a map that lacks a value.
    let wrong: [&[u8]; 5] = [&[0x0D, 0], &[0x45, b'a'], &[0x62, 0x81], &[0x3F], &[0x0C, 1, 0x81]];
    for values in wrong {
        peer.send([&[0, 1, target, 64], values].concat());
        let got = peer.expect_error(1, ErrorCode::Malformed)?;
        check(got.is_empty(), "no values with Malformed", got)?;
    }
    same("what was added", &tuple([]), &peer.ask_method(counter, "history", &[])?)
}

fn malformed_first(peer: &mut Peer) -> Verdict {
    // Targets that are unknown: an object, and an answer.
    peer.send([0, 1, 30 << 2, 5, 0x10]);
    peer.expect_error(1, ErrorCode::Malformed)?;
    peer.send([0, 1, 9 << 2 | 2, 5, 0x10]);
    peer.expect_error(1, ErrorCode::Malformed)?;
    // Of an argument that is stale and a promise that is not there, the first counts.
    peer.send([0x40, 1, 0, 1, 2, 9 << 3 | 2, 12 << 3 | 1, 0x0D, 0]);
    peer.expect_error(1, ErrorCode::NoSuchObject).map(drop)
}

fn subject_finishes(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "pipelined", &[mine(1), text("go"), int(5)]);
    let first = peer.expect_call_of(1)?;
    check(first.pipelined, "a pipelined call", &first)?;
    // The second may come before the first has its Return, or after.
    peer.reply(&first, &mine(2));
    let second = peer.expect_call()?;
    same("the arguments", &[text("go"), int(5)][..], &second.args)?;
    same("how the first is finished", &FinishMode::Done, &peer.expect_finished(first.id)?)?;
    peer.reply(&second, &int(6));
    peer.expect_value(1, &int(6))?;
    peer.expect_released(2).map(drop)
}

fn subject_abandons(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "abandon", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    let mode = peer.expect_finished(call.id)?;
    check(mode != FinishMode::Done, "a cancel", mode)?;
    peer.send(failing(call.id, 12, &[Value::Bool(true)]));
    peer.expect_value(1, &Value::None)?;
    peer.fence()
}

fn reserved_mode(tester: &mut Tester<'_>) -> Verdict {
    each_ends_the_session(tester, &[&[2, 3], &[2, 1 << 2, 7]], &["MSG-1", "FIN-1"])
}

fn abandoned_call_returns(peer: &mut Peer) -> Verdict {
    let slow = waiting(peer, |call| call)?;
    peer.cancel(1, FinishMode::Abandon);
    peer.fence()?;
    peer.ask_method(slow, "open", &[text("x"), int(1)])?;
    // Any outcome will do, but only one.
    peer.expect_outcome(1)?.err();
    peer.method(1, ROOT, "echo", &[int(2)]);
    peer.expect_value(1, &int(2))
}

fn interrupted_call_returns(peer: &mut Peer) -> Verdict {
    let slow = waiting(peer, Call::pipelined)?;
    peer.cancel(1, FinishMode::Interrupt);
    peer.ask_method(slow, "open", &[text("x"), int(1)])?;
    match peer.expect_outcome(1)? {
        Ok(value) => same("the result", &int(1), &value)?,
        Err(refusal) => {
            same("the error", &ErrorCode::Cancelled, &refusal.code)?;
            same("that it had started", &[Value::Bool(true)][..], &refusal.values)?;
        }
    }
    // A cancelled call needs no other Finish: its id is free.
    peer.method(1, ROOT, "echo", &[int(2)]);
    peer.expect_value(1, &int(2))
}

fn interrupted_before_start(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let slow = waiting(peer, Call::pipelined)?;
    peer.method(2, counter, "add", &[answer(1)]);
    peer.cancel(2, FinishMode::Interrupt);
    let values = peer.expect_error(2, ErrorCode::Cancelled)?;
    same("that it had not started", &[Value::Bool(false)][..], &values)?;
    peer.ask_method(slow, "open", &[text("x"), int(1)])?;
    peer.expect_value(1, &int(1))?;
    same("what was added", &tuple([]), &peer.ask_method(counter, "history", &[])?)
}

fn finish_is_ignored(peer: &mut Peer) -> Verdict {
    let modes = [FinishMode::Done, FinishMode::Abandon, FinishMode::Interrupt];
    modes.into_iter().for_each(|mode| peer.send(finishing(&[(3, mode), (4, mode)])));
    peer.method(3, ROOT, "echo", &[int(1)]);
    peer.expect_value(3, &int(1))?;
    // It crossed the Return, as it were.
    peer.cancel(3, FinishMode::Interrupt);
    peer.method(3, ROOT, "echo", &[int(2)]);
    peer.expect_value(3, &int(2))
}

fn abandoned_answer_stays(peer: &mut Peer) -> Verdict {
    let maker = peer.make("maker", &[])?;
    let slow = waiting(peer, Call::pipelined)?;
    peer.call(2, Target::Answer(1), Op::Call, &[]);
    peer.cancel(1, FinishMode::Abandon);
    let thing = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    peer.ask_method(slow, "open", &[text("x"), thing.home()])?;
    peer.expect_value(2, &int(1))?;
    peer.expect_outcome(1)?.err();
    peer.fence()
}

fn uses_before_release(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    let home = Value::Reference(Descriptor::Receiver { slot: 2, generation: 0 });
    // The referee sees to it that nothing is used after its Release.
    for _ in 0..50 {
        peer.method(1, caller, "once", &[mine(1), mine(2)]);
        let call = peer.expect_call_of(1)?;
        same("the argument", std::slice::from_ref(&home), &call.args[..])?;
        peer.reply(&call, &mine(2));
        peer.expect_value(1, &home)?;
        (1..=2).try_for_each(|slot| peer.expect_released(slot).map(drop))?;
    }
    Ok(())
}

fn calls_in_order(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let count = peer.theirs().answers.min(32) - 1;
    for round in 0..10 {
        let numbers = (0..count).map(|id| i64::from(id) + round);
        let calls =
            (0..count).zip(numbers.clone()).map(|(id, number)| Call::method(id, counter, "add", &[int(number)]).body());
        peer.send_together(calls.collect::<Vec<_>>());
        (0..count).try_for_each(|id| peer.expect_return(id).map(drop))?;
    }
    let expected: Vec<_> = (0..10).flat_map(|round| (0..count).map(move |id| int(i64::from(id) + round))).collect();
    same("what was added", &tuple(expected), &peer.ask_method(counter, "history", &[])?)
}

fn next_call_waits(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("f"), mine(1)])?;
    peer.method(1, keeper, "call", &[text("f")]);
    peer.method(2, keeper, "keep", &[text("g"), int(5)]);
    peer.method(3, keeper, "give", &[text("g")]);
    let call = peer.expect_call_of(1)?;
    peer.fence()?;
    check(!peer.arrivals().iter().any(|id| [1, 2, 3].contains(id)), "no Return yet", peer.arrivals())?;
    peer.reply(&call, &int(1));
    peer.expect_value(1, &int(1))?;
    peer.expect_value(2, &Value::None)?;
    peer.expect_value(3, &int(5))?;
    let order: Vec<_> = peer.arrivals().iter().copied().filter(|id| [1, 2, 3].contains(id)).collect();
    same("the order of the Returns", &[1, 2, 3][..], &order)
}

fn nested_call_passes(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.ask_method(keeper, "keep", &[text("f"), mine(1)])?;
    peer.method(1, keeper, "call", &[text("f")]);
    peer.method(2, keeper, "give", &[text("g")]);
    let call = peer.expect_call_of(1)?;
    // Part of the call that runs: it cannot wait for it.
    peer.send(Call::method(3, keeper, "keep", &[text("g"), int(7)]).parent(call.id));
    peer.expect_value(3, &Value::None)?;
    peer.reply(&call, &int(1));
    peer.expect_value(1, &int(1))?;
    peer.expect_value(2, &int(7))
}

fn nested_calls_in_order(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let caller = peer.root("caller")?;
    peer.method(0, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    let ids = 1..peer.theirs().answers.min(20);
    let adds = ids.clone().map(|id| Call::method(id, counter, "add", &[int(id.into())]).parent(call.id).body());
    peer.send_together(adds.collect::<Vec<_>>());
    ids.clone().try_for_each(|id| peer.expect_return(id).map(drop))?;
    peer.reply(&call, &int(0));
    peer.expect_return(0)?;
    let expected: Vec<_> = ids.map(|id| int(id.into())).collect();
    same("what was added", &tuple(expected), &peer.ask_method(counter, "history", &[])?)
}

fn nested_calls_overlap_nowhere(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(0, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    // The object is concurrent, but what one call has caused runs in order all the same.
    peer.send(Call::method(1, caller, "once", &[mine(2)]).parent(call.id));
    peer.send(Call::method(2, caller, "once", &[mine(3)]).parent(call.id));
    let first = peer.expect_call_of(2)?;
    peer.fence()?;
    same("the calls that came before the Return", &0, &peer.waiting_calls())?;
    peer.reply(&first, &int(1));
    peer.expect_value(1, &int(1))?;
    let second = peer.expect_call_of(3)?;
    peer.reply(&second, &int(2));
    peer.expect_value(2, &int(2))?;
    peer.reply(&call, &int(0));
    peer.expect_value(0, &int(0))
}

fn slow_holds_up_no_other(peer: &mut Peer) -> Verdict {
    let slow = waiting(peer, |call| call)?;
    let counter = peer.make("counter", &[])?;
    same("the sum", &int(1), &peer.ask_method(counter, "add", &[])?)?;
    peer.method(2, slow, "fail", &[text("x"), text("app.errors.Busy")]);
    let args = peer.expect_raised(1, "app.errors.Busy")?;
    same("its arguments", &exception("", []).args, &args)
}
