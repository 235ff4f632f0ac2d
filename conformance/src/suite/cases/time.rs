//! Deadlines, keepalive and the counted end (SPEC sections 4 and 6).

use farref_core::message::{Consequence, Deadline, ErrorCode};

use super::Case;
use crate::suite::peer::{Peer, Tester, Verdict, check, same};
use crate::suite::wire::{Call, answer, goodbye, int, mine, text, tuple};

pub(super) const CASES: &[Case] = &[
    Case::new("TIM-1/later-keys-are-skipped-beside-a-deadline", later_keys),
    Case::new("TIM-2/callback-has-what-is-left", callback_has_what_is_left),
    Case::new("TIM-3/call-without-time-left-never-starts", no_time_left),
    Case::new("TIM-3/late-result-is-welcome", late_result),
    Case::new("TIM-3/running-call-goes-on", running_call_goes_on),
    Case::new("TIM-3/waiting-call-runs-out-of-time", waiting_call_runs_out),
    Case::connecting("TIM-4/other-side-may-not-care", nobody_cares),
    Case::connecting("TIM-5/pings-come-in-time", pings_come),
    Case::new("TIM-5/ping-needs-no-answer", ping_needs_no_answer),
    Case::new("CLS-2/goodbye-is-answered-when-idle", goodbye_is_answered),
    Case::new("CLS-2/goodbye-waits-for-a-call", goodbye_waits),
    Case::new("CLS-2/call-after-a-goodbye-voids-it", call_voids_goodbye),
    Case::new("CLS-2/goodbye-after-what-was-never-sent", goodbye_ahead),
];

fn later_keys(peer: &mut Peer) -> Verdict {
    // A call of echo. Keys 2, 4 and 63; the last one is a blob.
    let extension = [8, 4, 0xE8, 0x07, 8, 1, 0x7F, 1, 0xAA];
    peer.send([&[0x80, 1, 0, 4], &extension[..], &b"\x44echo"[..], &[0x85]].concat());
    peer.expect_value(1, &int(5))
}

fn callback_has_what_is_left(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    for consequence in [Consequence::Cancel, Consequence::Abandon, Consequence::Late] {
        peer.send(Call::method(1, caller, "once", &[mine(1)]).deadline(3_600_000, consequence));
        let call = peer.expect_call_of(1)?;
        let left = call.deadline.map_or(u32::MAX, |deadline| deadline.remaining);
        check(left > 3_500_000 && left <= 3_600_000, "what is left of an hour", left)?;
        same("its consequence", &consequence, &call.deadline.map_or_else(Default::default, |left| left.consequence))?;
        peer.reply(&call, &int(1));
        peer.expect_value(1, &int(1))?;
    }
    peer.method(1, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    same("the deadline of a call that has none", &None::<Deadline>, &call.deadline)?;
    peer.reply(&call, &int(1));
    peer.expect_value(1, &int(1))
}

fn no_time_left(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    for consequence in [Consequence::Cancel, Consequence::Abandon] {
        peer.send(Call::method(1, counter, "add", &[]).deadline(0, consequence));
        let values = peer.expect_error(1, ErrorCode::DeadlineExceeded)?;
        check(values.is_empty(), "no values with DeadlineExceeded", values)?;
    }
    same("what was added", &tuple([]), &peer.ask_method(counter, "history", &[])?)
}

fn late_result(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    peer.send(Call::method(1, counter, "add", &[]).deadline(0, Consequence::Late));
    peer.expect_value(1, &int(1))
}

fn running_call_goes_on(peer: &mut Peer) -> Verdict {
    let slow = peer.make("slow", &[])?;
    // It may come too late in any case; if it has begun, it goes on.
    let mut limit = 1;
    loop {
        peer.send(Call::method(1, slow, "wait", &[text("x")]).deadline(limit, Consequence::Cancel));
        peer.method(2, slow, "entered", &[int(1)]);
        peer.method(3, slow, "open", &[text("x"), int(5)]);
        peer.expect_return(3)?;
        match peer.expect_outcome(1)? {
            Ok(value) => {
                same("the result", &int(5), &value)?;
                return peer.expect_value(2, &int(1));
            }
            Err(refusal) => same("the error", &ErrorCode::DeadlineExceeded, &refusal.code)?,
        }
        peer.cancel(2, farref_core::message::FinishMode::Interrupt);
        limit *= 2;
        check(limit < 1 << 20, "a call that begins within minutes", limit)?;
        peer.send(Call::method(4, slow, "wait", &[text("x")]));
        peer.expect_value(4, &int(5))?;
        peer.expect_outcome(2)?.err();
    }
}

fn waiting_call_runs_out(peer: &mut Peer) -> Verdict {
    let (slow, counter) = (peer.make("slow", &[])?, peer.make("counter", &[])?);
    peer.send(Call::method(1, slow, "wait", &[text("x")]).pipelined());
    peer.send(Call::method(2, counter, "add", &[answer(1)]).deadline(50, Consequence::Cancel));
    peer.send(Call::method(3, counter, "add", &[answer(1)]).deadline(50, Consequence::Late));
    peer.expect_error(2, ErrorCode::DeadlineExceeded)?;
    peer.ask_method(slow, "open", &[text("x"), int(5)])?;
    peer.expect_value(3, &int(5))?;
    peer.finish(1);
    same("what was added", &tuple([int(5)]), &peer.ask_method(counter, "history", &[])?)
}

fn nobody_cares(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open_with_patience(0)?;
    peer.fence()
}

fn pings_come(tester: &mut Tester<'_>) -> Verdict {
    let mut peer = tester.open_with_patience(200)?;
    if peer.features() & 2 == 0 {
        return peer.fence(); // it has no keepalive
    }
    // Nothing else is said meanwhile.
    let begun = std::time::Instant::now();
    peer.expect_pings(5)?;
    let took = begun.elapsed().as_millis();
    check(took >= 200, "Pings no more often than they are wanted", took)?;
    peer.fence()
}

fn ping_needs_no_answer(peer: &mut Peer) -> Verdict {
    (0..10).for_each(|_| peer.send([19]));
    peer.fence()?;
    same("the Pings that came", &0, &peer.pings())
}

/// Says Goodbye after all that was received.
fn say_goodbye(peer: &mut Peer) {
    let received = peer.received();
    peer.send(goodbye(received));
}

fn goodbye_is_answered(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    peer.ask_method(counter, "add", &[])?;
    say_goodbye(peer);
    let got = peer.expect_goodbye()?;
    same("what it has received", &peer.sent(), &got)?;
    peer.end();
    peer.expect_end()
}

fn goodbye_waits(peer: &mut Peer) -> Verdict {
    let caller = peer.root("caller")?;
    peer.method(1, caller, "once", &[mine(1)]);
    let call = peer.expect_call_of(1)?;
    // It would be a fault to say it while calls are under way, but one that crosses it is none.
    peer.reply(&call, &int(1));
    say_goodbye(peer);
    peer.expect_value(1, &int(1))?;
    peer.expect_released(1)?;
    say_goodbye(peer);
    same("what it has received", &peer.sent(), &peer.expect_goodbye()?)?;
    peer.end();
    peer.expect_end()
}

fn call_voids_goodbye(peer: &mut Peer) -> Verdict {
    let counter = peer.make("counter", &[])?;
    let received = peer.received();
    // In one write: the call comes before any answer to the Goodbye, which was said too soon.
    peer.send_together([goodbye(received.saturating_sub(1)), Call::method(1, counter, "add", &[]).body()]);
    peer.expect_value(1, &int(1))?;
    peer.fence()?;
    say_goodbye(peer);
    same("what it has received", &peer.sent(), &peer.expect_goodbye()?)?;
    peer.end();
    peer.expect_end()
}

fn goodbye_ahead(peer: &mut Peer) -> Verdict {
    peer.fence()?;
    let received = peer.received();
    peer.send(goodbye(received + 1));
    peer.expect_close("CLS-2")
}
