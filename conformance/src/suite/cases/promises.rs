//! Promises: calls on answers that are not there yet (SPEC section 6, ANS).

use farref_core::message::{Descriptor, ErrorCode, FinishMode, Limits, Op, Target};

use super::Case;
use crate::suite::peer::{LIMITS, Peer, Tester, Verdict, as_theirs, check, same};
use crate::suite::wire::{Call, ROOT, Theirs, Value, answer, int, mine, text, tuple};

pub(super) const CASES: &[Case] = &[
    Case::new("ANS-1/path-in-one-write", path_in_one_write),
    Case::new("ANS-1/long-chain-in-one-write", long_chain),
    Case::new("ANS-1/promise-as-an-argument", promise_as_argument),
    Case::new("ANS-2/four-answers-in-one-message", four_answers),
    Case::new("ANS-2/five-answers-end-the-session", five_answers),
    Case::new("ANS-2/subject-builds-on-its-promise", subject_builds_on_its_promise),
    Case::new("ANS-3/call-waits-for-all-that-it-names", waits_for_all),
    Case::new("ANS-3/calls-that-waited-run-in-order", waited_in_order),
    Case::new("ANS-3/broken-promise-breaks-what-names-it", broken_promise),
    Case::new("ANS-3/long-chain-breaks", long_chain_breaks),
    Case::new("ANS-4/answer-holds-the-object-not-the-slot", answer_holds_the_object),
    Case::new("ANS-4/settled-value-is-kept-until-its-finish", settled_value_is_kept),
    Case::connecting("ANS-4/answer-that-became-an-error-has-failed", became_an_error),
    Case::new("ANS-5/finish-follows-the-return", finish_follows),
    Case::new("ANS-6/answer-that-came-home-is-forwarded", forwarded),
    Case::new("ANS-7/answer-that-is-not-there", no_such_answer),
    Case::new("ANS-7/answer-of-a-call-that-was-not-pipelined", not_pipelined),
];

fn broken_by(peer: &mut Peer, id: u16, code: ErrorCode) -> Verdict {
    let values = peer.expect_error(id, ErrorCode::Broken)?;
    same("what broke the promise", &[int(code.number() as i64)][..], &values)
}

fn path_in_one_write(peer: &mut Peer) -> Verdict {
    peer.send_together([
        Call::new(1, ROOT, Op::GetAttr).args(&[text("counter")]).pipelined().body(),
        Call::new(2, Target::Answer(1), Op::Call).args(&[int(40)]).pipelined().body(),
        Call::method(3, Target::Answer(2), "add", &[int(2)]).body(),
    ]);
    peer.expect_value(3, &int(42))?;
    let root = peer.expect_object(1)?;
    let counter = peer.expect_object(2)?;
    peer.finish(1);
    peer.finish(2);
    peer.release(&[root]);
    same("the sum", &int(43), &peer.ask_method(counter, "add", &[])?)
}

fn long_chain(peer: &mut Peer) -> Verdict {
    let last = peer.theirs().answers - 2;
    let first = Call::method(0, ROOT, "echo", &[text("chain")]).pipelined();
    let link = |id: u16| Call::new(id, Target::Answer(id - 1), Op::Force).pipelined().body();
    peer.send_together(std::iter::once(first.body()).chain((1..=last).map(link)));
    (0..=last).try_for_each(|id| peer.expect_value(id, &text("chain")))
}

fn promise_as_argument(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    peer.send_together([
        Call::method(1, ROOT, "counter", &[int(5)]).pipelined().body(),
        Call::method(2, keeper, "keep", &[text("c"), tuple([answer(1), text("and a text")])]).body(),
    ]);
    let counter = peer.expect_object(1)?;
    peer.expect_value(2, &Value::None)?;
    let kept = peer.ask_method(keeper, "give", &[text("c")])?;
    let there = Value::Reference(Descriptor::Sender { slot: counter.slot, generation: counter.generation });
    same("what is kept", &tuple([there, text("and a text")]), &kept)
}

fn four_answers(peer: &mut Peer) -> Verdict {
    let promises = (1..=4).map(|id| Call::method(id, ROOT, "echo", &[int(id.into())]).pipelined().body());
    let all = Call::method(5, ROOT, "echo", &[answer(4), answer(3), answer(2), answer(1)]);
    peer.send_together(promises.chain([all.body()]).collect::<Vec<_>>());
    peer.expect_value(5, &tuple([int(4), int(3), int(2), int(1)]))
}

fn five_answers(peer: &mut Peer) -> Verdict {
    let slow = peer.make("slow", &[])?;
    (1..=5).for_each(|id| peer.send(Call::method(id, slow, "wait", &[text("x")]).pipelined()));
    // Four among the arguments, and the target.
    let args: Vec<_> = (1..=4).map(answer).collect();
    peer.call(6, Target::Answer(5), Op::Call, &args);
    peer.expect_close("ANS-2")
}

fn subject_builds_on_its_promise(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "pass", &[mine(1), mine(2)]);
    let first = peer.expect_call_of(1)?;
    // It does not wait for the Return: the promise itself is the argument.
    let second = peer.expect_call_of(2)?;
    same("the argument", &[answer(first.id)][..], &second.args)?;
    peer.reply(&first, &int(5));
    peer.reply(&second, &int(6));
    peer.expect_value(1, &int(6))?;
    same("how the first is finished", &FinishMode::Done, &peer.expect_finished(first.id)?)?;
    (1..=2).try_for_each(|slot| peer.expect_released(slot).map(drop))
}

/// Calls 1 and 2 of a slow one, pipelined, which wait for "a" and "b".
fn two_waiting(peer: &mut Peer) -> Verdict<Theirs> {
    let slow = peer.make("slow", &[])?;
    (1..).zip(["a", "b"]).for_each(|(id, name)| peer.send(Call::method(id, slow, "wait", &[text(name)]).pipelined()));
    Ok(slow)
}

fn waits_for_all(peer: &mut Peer) -> Verdict {
    let keeper = peer.make("keeper", &[])?;
    let slow = two_waiting(peer)?;
    peer.method(3, keeper, "keep", &[text("x"), tuple([answer(1), answer(2)])]);
    peer.ask_method(slow, "open", &[text("b"), int(2)])?;
    peer.expect_value(2, &int(2))?;
    same("what is kept", &int(0), &peer.ask(keeper, Op::Length, &[])?)?;
    peer.ask_method(slow, "open", &[text("a"), int(1)])?;
    peer.expect_value(3, &Value::None)?;
    same("what is kept", &tuple([int(1), int(2)]), &peer.ask_method(keeper, "give", &[text("x")])?)
}

fn waited_in_order(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let slow = two_waiting(peer)?;
    // What settles first does not matter: those that are ready run in the order of the wire.
    peer.method(3, counter, "add", &[answer(1)]);
    peer.method(4, counter, "add", &[answer(1)]);
    peer.method(5, counter, "add", &[answer(2)]);
    peer.ask_method(slow, "open", &[text("b"), int(200)])?;
    peer.expect_value(5, &int(200))?;
    peer.ask_method(slow, "open", &[text("a"), int(10)])?;
    peer.expect_value(3, &int(210))?;
    peer.expect_value(4, &int(220))
}

fn broken_promise(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let slow = two_waiting(peer)?;
    peer.call(3, Target::Answer(1), Op::Call, &[]);
    peer.method(4, counter, "add", &[answer(1)]);
    peer.ask_method(slow, "fail", &[text("a"), text("ValueError")])?;
    peer.expect_raised(1, "ValueError")?;
    broken_by(peer, 3, ErrorCode::Raised)?;
    broken_by(peer, 4, ErrorCode::Raised)?;
    // Those that name it later, and what names those that broke.
    peer.send(Call::new(5, Target::Answer(1), Op::Call).pipelined());
    broken_by(peer, 5, ErrorCode::Raised)?;
    peer.call(6, Target::Answer(5), Op::Call, &[]);
    broken_by(peer, 6, ErrorCode::Broken)?;
    same("what was added", &tuple([]), &peer.ask_method(counter, "history", &[])?)?;
    peer.ask_method(slow, "open", &[text("b"), int(1)])?;
    peer.expect_value(2, &int(1))
}

fn long_chain_breaks(peer: &mut Peer) -> Verdict {
    let slow = peer.make("slow", &[])?;
    let last = peer.theirs().answers - 2;
    peer.send(Call::method(0, slow, "wait", &[text("x")]).pipelined());
    (1..=last).for_each(|id| peer.send(Call::new(id, Target::Answer(id - 1), Op::Call).pipelined()));
    peer.ask_method(slow, "fail", &[text("x"), text("KeyError")])?;
    peer.expect_raised(0, "KeyError")?;
    broken_by(peer, 1, ErrorCode::Raised)?;
    (2..=last).try_for_each(|id| broken_by(peer, id, ErrorCode::Broken))
}

fn answer_holds_the_object(peer: &mut Peer) -> Verdict {
    let maker = peer.make("maker", &[])?;
    let slow = two_waiting(peer)?;
    // Call 4 waits for call 1, too: when it runs, the slot that call 3 settled to is long released.
    peer.send(Call::method(3, maker, "make", &[]).pipelined());
    peer.send(Call::method(4, ROOT, "echo", &[answer(3), answer(1)]));
    let thing = peer.expect_object(3)?;
    peer.release(&[thing]);
    let other = as_theirs(&peer.ask_method(maker, "make", &[])?)?;
    check(other != thing, "another handle", other)?;
    same("what is alive", &int(2), &peer.ask_method(maker, "alive", &[])?)?;
    // A call on the answer, which has not been finished.
    peer.call(5, Target::Answer(3), Op::Call, &[]);
    peer.expect_value(5, &int(1))?;
    peer.ask_method(slow, "open", &[text("a"), int(0)])?;
    let Value::Tuple(both) = peer.expect_return(4)? else { return check(false, "a tuple", "another value") };
    let again = as_theirs(both.first().unwrap_or(&Value::None))?;
    same("the thing", &int(1), &peer.ask(again, Op::Call, &[])?)?;
    peer.release(&[again]);
    peer.finish(3);
    peer.until(maker, "alive", &int(1))?;
    peer.ask_method(slow, "open", &[text("b"), int(0)]).map(drop)
}

fn settled_value_is_kept(peer: &mut Peer) -> Verdict {
    let value = tuple([text("a"), Value::Bytes(vec![1, 2]), Value::Float(0.5)]);
    peer.send(Call::method(1, ROOT, "echo", std::slice::from_ref(&value)).pipelined());
    peer.expect_value(1, &value)?;
    for _ in 0..3 {
        peer.call(2, Target::Answer(1), Op::Force, &[]);
        peer.expect_value(2, &value)?;
        peer.method(2, ROOT, "echo", &[answer(1)]);
        peer.expect_value(2, &value)?;
    }
    peer.finish(1);
    peer.call(2, Target::Answer(1), Op::Force, &[]);
    peer.expect_error(2, ErrorCode::NoSuchAnswer).map(drop)
}

fn became_an_error(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open_with(Limits { max_message: 256, ..LIMITS })?;
    let source = peer.root("source")?;
    peer.send(Call::method(1, source, "bytes", &[int(1000)]).pipelined());
    peer.expect_error(1, ErrorCode::ResultTooLarge)?;
    peer.call(2, Target::Answer(1), Op::Length, &[]);
    broken_by(&mut peer, 2, ErrorCode::ResultTooLarge)
}

fn finish_follows(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "pass", &[mine(1), mine(2)]);
    let first = peer.expect_call_of(1)?;
    let second = peer.expect_call_of(2)?;
    peer.reply(&first, &mine(3));
    // It comes with the next output, not at the end of the call, which waits for us.
    same("how the first is finished", &FinishMode::Done, &peer.expect_finished(first.id)?)?;
    peer.reply(&second, &int(1));
    peer.expect_value(1, &int(1))?;
    (1..=3).try_for_each(|slot| peer.expect_released(slot).map(drop))
}

fn forwarded(peer: &mut Peer) -> Verdict {
    peer.send_together([
        Call::method(1, ROOT, "echo", &[mine(1)]).pipelined().body(),
        Call::method(2, Target::Answer(1), "greet", &[text("you")]).body(),
    ]);
    peer.expect_value(1, &Value::Reference(Descriptor::Receiver { slot: 1, generation: 0 }))?;
    let call = peer.expect_call_of(1)?;
    same("the parent", &Some(2), &call.parent)?;
    same("the operation", &Op::CallMethod, &call.op)?;
    same("the arguments", &[text("greet"), text("you")][..], &call.args)?;
    peer.reply(&call, &text("hello you"));
    peer.expect_value(2, &text("hello you"))?;
    peer.finish(1);
    peer.expect_released(1).map(drop)
}

fn no_such_answer(peer: &mut Peer) -> Verdict {
    let refused = |peer: &mut Peer, call: Call| {
        peer.send(call);
        let values = peer.expect_error(1, ErrorCode::NoSuchAnswer)?;
        check(values.is_empty(), "no values with NoSuchAnswer", values)
    };
    // Never made, its own, beyond every id; as an argument, too.
    refused(peer, Call::new(1, Target::Answer(3), Op::Length))?;
    refused(peer, Call::new(1, Target::Answer(1), Op::Length))?;
    refused(peer, Call::new(1, Target::Answer(u16::MAX), Op::Length))?;
    refused(peer, Call::method(1, ROOT, "echo", &[answer(3)]))?;
    // Finished.
    peer.send(Call::method(2, ROOT, "echo", &[int(1)]).pipelined());
    peer.expect_value(2, &int(1))?;
    peer.finish(2);
    refused(peer, Call::new(1, Target::Answer(2), Op::Length))
}

fn not_pipelined(peer: &mut Peer) -> Verdict {
    let slow = peer.make("slow", &[])?;
    peer.method(1, slow, "wait", &[text("x")]);
    peer.call(2, Target::Answer(1), Op::Length, &[]);
    peer.expect_error(2, ErrorCode::NoSuchAnswer)?;
    peer.ask_method(slow, "open", &[text("x"), int(1)])?;
    peer.expect_value(1, &int(1))?;
    peer.call(2, Target::Answer(1), Op::Length, &[]);
    peer.expect_error(2, ErrorCode::NoSuchAnswer).map(drop)
}
