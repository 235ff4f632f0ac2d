//! Three hosts in a row, A, B and C, where B hands on what it holds: one object of C that A uses through B. No threads, no
//! IO and no clock: each test is run with many seeds, each of which is another order of everything.

mod desk;
mod net;
mod play;
mod things;

use std::sync::{Arc, Mutex};

use desk::lock;
use farref_core::message::DownReason;
use farref_host::{
    Args, AsyncFunction, AsyncRemote, CallError, Cancelled, Deadline, Ended, Error, Function, Lost, Options, Pending,
    Proxy, Reference, Value,
};
use net::{A, B, C, FAR, NEAR, Net, Setup};
use things::{Log, directories, proxy};

/// Orders in which each of the cases is tried.
const SEEDS: u64 = 60;

/// Three hosts, and a case with each seed.
fn each(setup: impl Fn() -> Setup, case: impl Fn(&mut Net, &Arc<Log>)) {
    for seed in 0..SEEDS {
        let log = Arc::<Log>::default();
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut net = Net::new(seed, setup(), |peers, clock| directories(&log, peers, clock));
            case(&mut net, &log);
        }));
        if let Err(panic) = passed {
            eprintln!("with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A has an object of C, through B.
fn fetch(net: &mut Net) -> Proxy {
    let root = net.connection(NEAR, 0).root();
    proxy(net.wait(A, async move { root.invoke("fetch", ()).await }))
}

/// A calls a method of an object.
fn invoke(net: &mut Net, of: &Proxy, method: &'static str, args: impl Into<Args>) -> Result<Value, Error> {
    let (of, args) = (of.clone(), args.into());
    net.wait(A, async move { of.invoke(method, args).await })
}

/// A starts a call that takes its time.
fn start_waiting(net: &mut Net, of: &Proxy, args: [i64; 2]) -> Pending {
    let of = of.clone();
    net.wait(A, async move { of.start("wait", args).await }).expect("a call")
}

/// REF-11: what A drops is freed at C.
#[test]
fn three_peers_call_through_the_middle_and_what_is_let_go_is_freed() {
    each(Setup::default, |net, log| {
        let thing = fetch(net);
        assert_eq!(log.alive(), 1);
        assert_eq!(invoke(net, &thing, "echo", [1]), Ok(1.into()));
        let failed = invoke(net, &thing, "fail", [2]).expect_err("it fails");
        assert_eq!(failed.exception().map(|exception| &*exception.args), Some(&[2.into()][..]));
        let other = proxy(invoke(net, &thing, "give", [3]));
        assert_eq!(log.alive(), 2);
        drop(thing);
        net.run();
        assert_eq!(log.alive(), 1, "A has dropped one");
        assert_eq!(invoke(net, &other, "echo", [4]), Ok(4.into()));
        drop(other);
        net.run();
        assert_eq!(log.alive(), 0);
        net.assert_baseline();
    });
}

/// C's object goes to A and comes home over B: it is C's own. So does A's.
#[test]
fn three_peers_an_object_that_goes_home_through_the_middle_is_itself() {
    each(Setup::default, |net, _| {
        let thing = fetch(net);
        let itself = Args::from([1]).and(Reference::from(thing.clone()));
        assert_eq!(invoke(net, &thing, "is_self", itself), Ok(true.into()));
        let again = Args::from([2]).and(Reference::from(thing.clone()));
        assert_eq!(invoke(net, &thing, "return", again), Ok(Reference::from(thing.clone()).into()));
        let mine = Reference::local(Function::inline(|_| Ok(Value::None)));
        assert_eq!(invoke(net, &thing, "return", Args::from([3]).and(mine.clone())), Ok(mine.into()));
        drop(thing);
        net.assert_baseline();
    });
}

/// C holds an object of A longer than the call, and calls it; what C lets go is freed at A.
#[test]
fn three_peers_call_back_through_the_middle() {
    each(Setup::default, |net, _| {
        let thing = fetch(net);
        let object = Arc::new(());
        let held = object.clone();
        let double = Function::inline(move |args| {
            let _ = &held;
            Ok(Value::Int(2 * args.get(0).and_then(Value::as_int).unwrap_or(0)))
        });
        let double = Reference::local(double);
        assert_eq!(invoke(net, &thing, "call", Args::from([1]).and(double.clone()).and(21)), Ok(42.into()));
        assert_eq!(invoke(net, &thing, "keep", Args::from([2]).and(double)), Ok(Value::None));
        assert_eq!(invoke(net, &thing, "call_kept", [3, 4]), Ok(8.into()));
        assert_eq!(Arc::strong_count(&object), 2);
        assert_eq!(invoke(net, &thing, "forget", [5]), Ok(1.into()));
        net.run();
        assert_eq!(Arc::strong_count(&object), 1);
        drop(thing);
        net.assert_baseline();
    });
}

/// ORD-2: calls on one object run in the order in which they were made, with B between.
#[test]
fn three_peers_calls_through_the_middle_keep_their_order() {
    each(Setup::default, |net, log| {
        let thing = fetch(net);
        let calls = net.begin_task(A, async move {
            let mut calls = Vec::new();
            for number in 0..8 {
                calls.push(thing.start("echo", [number]).await.expect("a call"));
            }
            for (number, call) in calls.into_iter().enumerate() {
                assert_eq!(call.await, Ok((number as i64).into()));
            }
        });
        net.run();
        assert!(lock(&calls).is_some());
        assert_eq!(*lock(&log.order), (0..8).collect::<Vec<_>>());
        net.assert_baseline();
    });
}

/// FIN-2: a cancel goes on to C, and A hears what became of the call there: that it was stopped, or had not started, or was
/// done all the same.
#[test]
fn three_peers_a_cancel_goes_through_the_middle_and_its_outcome_back() {
    let seen = Mutex::new([0; 3]);
    each(Setup::default, |net, log| {
        let thing = fetch(net);
        // It takes one call at a time: there may be one before.
        if net.random.one_in(3) {
            let before = thing.clone();
            net.spawn(A, async move { assert_eq!(before.invoke("wait", [0, 60]).await, Ok(0.into())) });
            net.run_for(50);
        }
        let call = start_waiting(net, &thing, [1, 40]);
        let time = net.random.below(80);
        net.run_for(time);
        let cancelled = net.wait(A, async move { call.cancel().await });
        let (has_started, is_done) = (log.has_started(1), log.is_done(1));
        let (at, expected) = match &cancelled {
            Cancelled::NeverStarted => (0, (false, false)),
            Cancelled::Stopped => (1, (true, false)),
            Cancelled::Completed(result) => {
                assert_eq!(*result, Ok(1.into()));
                (2, (true, true))
            }
        };
        assert_eq!((has_started, is_done), expected, "{cancelled:?}");
        lock(&seen)[at] += 1;
        drop(thing);
        net.assert_baseline();
        assert_eq!((log.has_started(1), log.is_done(1)), expected, "and nothing happens later");
    });
    assert!(lock(&seen).iter().all(|&times| times > 0), "{seen:?}");
}

/// A call that A drops is stopped at C.
#[test]
fn three_peers_a_call_that_nobody_waits_for_is_stopped() {
    each(Setup::default, |net, log| {
        let thing = fetch(net);
        let call = start_waiting(net, &thing, [1, 1_000_000]);
        net.run_for(100);
        assert!(log.has_started(1));
        drop((call, thing));
        net.run();
        assert!(!log.is_done(1) && log.alive() == 0);
        assert!(net.clock.now() < 1_000_000);
        net.assert_baseline();
    });
}

/// TIM-2: what is left to C is what A gave, less what the way to B has taken; and it is C that is stopped.
#[test]
fn three_peers_a_deadline_shrinks_through_the_middle() {
    each(Setup::default, |net, log| {
        let thing = fetch(net);
        let begun = net.clock.now();
        let late = net.wait(A, {
            let thing = thing.clone();
            async move { thing.with_deadline(std::time::Duration::from_millis(100)).invoke("wait", [1, 100_000]).await }
        });
        assert_eq!(late, Err(Error::DeadlineExceeded));
        net.run();
        assert!(log.has_started(1) && !log.is_done(1));
        let passed = net.clock.now() - begun;
        assert!((100..200).contains(&passed), "{passed} ms");
        // A callback within it has what is left, too, and A does not answer for longer.
        let clock = net.clock.clone();
        let sleep = AsyncFunction::new(move |_| {
            let clock = clock.clone();
            async move {
                clock.sleep(100_000).await;
                Ok(Value::None)
            }
        });
        let begun = net.clock.now();
        let deadline = Deadline::from(std::time::Duration::from_millis(100));
        let args = Args::from([2]).and(Reference::local(sleep));
        let late = net.wait(A, async move { thing.with_deadline(deadline).invoke("call", args).await });
        assert_eq!(late, Err(Error::DeadlineExceeded));
        net.run();
        assert!(net.clock.now() - begun < 200);
        net.assert_baseline();
    });
}

/// A call through B ends when the session behind B does, and A is told that it is another one than its own; whoever watches
/// the reference is told that its peer is lost (REF-8).
#[test]
fn three_peers_the_far_session_is_lost() {
    each(Setup::default, |net, log| {
        let thing = fetch(net);
        let monitor = net.begin_task(A, thing.down());
        let call = net.begin_task(A, {
            let thing = thing.clone();
            async move { thing.invoke("wait", [1, 1_000_000]).await }
        });
        net.run_for(100);
        assert!(log.has_started(1) && lock(&call).is_none() && lock(&monitor).is_none());
        net.lose(FAR);
        net.run();
        assert_eq!(*lock(&monitor), Some(Lost::Down(DownReason::PeerLost)));
        let error = lock(&call).take().expect("it has ended").expect_err("C is gone");
        assert!(error.may_have_started());
        assert_eq!(
            error.to_string(),
            "RuntimeError: the session with the object's own peer is over: the connection to the peer was lost"
        );
        // It is known here now.
        let refused = invoke(net, &thing, "echo", [2]).expect_err("C is gone");
        assert_eq!(refused.down(), Some(DownReason::PeerLost));
        assert!(!refused.may_have_started());
        drop(thing);
        // B is there, and so is C.
        net.reconnect(FAR);
        net.run();
        let thing = fetch(net);
        assert_eq!(invoke(net, &thing, "echo", [3]), Ok(3.into()));
        drop(thing);
        net.assert_baseline();
        assert_eq!(log.alive(), 0);
    });
}

/// What B hands on after its session with C is over is down at once; so is C's directory.
#[test]
fn three_peers_what_is_lost_before_it_is_handed_on_is_down_at_once() {
    each(Setup::default, |net, log| {
        let root = net.connection(FAR, 0).root();
        let held = proxy(net.wait(B, async move { root.invoke("make", ()).await }));
        let root = net.connection(FAR, 0).root();
        let was_handed_on = net.random.one_in(2);
        for handed in [held, root] {
            *lock(&log.given) = Some(Reference::from(handed).into());
            let given = |net: &mut Net| {
                let root = net.connection(NEAR, 0).root();
                proxy(net.wait(A, async move { root.invoke("given", ()).await }))
            };
            let before = was_handed_on.then(|| given(net));
            net.lose(FAR);
            net.run();
            let given = given(net);
            net.run();
            let down = Some(Lost::Down(DownReason::PeerLost));
            assert_eq!((given.lost(), before.map_or(down, |before| before.lost())), (down, down));
            *lock(&log.given) = None;
        }
        net.reconnect(FAR);
        net.assert_baseline();
    });
}

/// REF-1: C's directory is one object for A, however often B gives it.
#[test]
fn three_peers_a_directory_that_is_handed_on_is_one_object() {
    each(Setup::default, |net, _| {
        let root = net.connection(NEAR, 0).root();
        let [first, second] = [0, 1].map(|_| {
            let root = root.clone();
            proxy(net.wait(A, async move { root.invoke("far", ()).await }))
        });
        assert_eq!(first, second);
        let thing = proxy(net.wait(A, async move { first.get("thing").await }));
        assert_eq!(invoke(net, &thing, "echo", [1]), Ok(1.into()));
        drop((second, thing));
        net.assert_baseline();
    });
}

/// REF-8: C withdraws its object: A hears why, and a call of A that crosses that is refused with the same reason.
#[test]
fn three_peers_a_far_object_is_withdrawn() {
    each(Setup::default, |net, log| {
        let root = net.connection(NEAR, 0).root();
        let thing = proxy(net.wait(A, async move { root.invoke("fetch", ["thing"]).await }));
        let monitor = net.begin_task(A, thing.down());
        let call = net.begin_task(A, {
            let thing = thing.clone();
            async move { thing.invoke("echo", [1]).await }
        });
        let time = net.random.below(60);
        net.run_for(time);
        assert!(net.connection(FAR, 1).revoke(&log.the_one(), DownReason::from_number(9)));
        net.run();
        assert_eq!(*lock(&monitor), Some(Lost::Down(DownReason::from_number(9))));
        match lock(&call).take().expect("it has ended") {
            Ok(value) => assert_eq!((value, log.is_done(1)), (1.into(), true)),
            Err(error) => assert_eq!((error.down(), log.has_started(1)), (Some(DownReason::from_number(9)), false)),
        }
        // Asked for again it is another reference.
        let root = net.connection(NEAR, 0).root();
        let again = proxy(net.wait(A, async move { root.invoke("fetch", ["thing"]).await }));
        assert_ne!(again, thing);
        assert_eq!(invoke(net, &again, "echo", [2]), Ok(2.into()));
        drop((thing, again));
        net.assert_baseline();
    });
}

/// REF-9: what A lends to a call on C's object is gone with the answer, at C too.
#[test]
fn three_peers_what_is_lent_through_the_middle_is_gone_with_the_answer() {
    each(Setup::default, |net, _| {
        let thing = fetch(net);
        let object: Arc<dyn farref_host::Object> = Arc::new(Function::inline(|_| Ok(5.into())));
        let lent = || Args::from([1]).and(Reference::Lent(object.clone()));
        assert_eq!(invoke(net, &thing, "call", lent()), Ok(5.into()));
        assert_eq!(invoke(net, &thing, "keep", lent()), Ok(Value::None));
        net.run();
        assert_eq!(Arc::strong_count(&object), 1);
        let refused = invoke(net, &thing, "call_kept", [3]).expect_err("it is gone");
        assert_eq!(refused.to_string(), format!("RuntimeError: {}", CallError::Revoked(DownReason::Gone)));
        assert_eq!(invoke(net, &thing, "forget", [4]), Ok(1.into()));
        drop(thing);
        net.assert_baseline();
    });
}

/// REF-10: a weak reference to an object of C gives A the object through B, as long as that is there.
#[test]
fn three_peers_a_weak_reference_goes_through_the_middle() {
    each(Setup::default, |net, log| {
        let root = net.connection(NEAR, 0).root();
        let [weak, strong] = ["weak", "thing"].map(|name| {
            let root = root.clone();
            proxy(net.wait(A, async move { root.invoke("fetch", [name]).await }))
        });
        let upgraded = {
            let weak = weak.clone();
            net.wait(A, async move { AsyncRemote::upgrade(&weak).await })
        };
        assert_eq!(upgraded, Ok(Some(strong.into())));
        assert!(net.connection(FAR, 1).revoke(&log.the_one(), DownReason::Revoked));
        net.run();
        assert_eq!(weak.lost(), Some(Lost::Down(DownReason::Revoked)));
        drop((weak, upgraded));
        net.assert_baseline();
    });
}

/// CAL-6, ORD-2: a callback that comes through B is known as part of the call that caused it: an object of A that waits for
/// C takes it, although it serves one call at a time.
#[test]
fn three_peers_a_callback_through_the_middle_is_part_of_its_call() {
    each(Setup::default, |net, log| {
        let thing = fetch(net);
        // Of A: has C's object call it back, and once more from there.
        let mine = things::Thing::make(log, &net.clock);
        let object = Reference::Local(mine);
        let args = Args::from([1]).and(object.clone()).and(3);
        let back = net.begin_task(A, {
            let thing = thing.clone();
            async move { thing.invoke("bounce", args).await }
        });
        net.run();
        assert_eq!(lock(&back).take(), Some(Ok("bottom".into())));
        drop((thing, object));
        net.assert_baseline();
        assert_eq!(log.alive(), 0);
    });
}

/// ADM-2, ADM-4: calls that call back through B without end fail at a limit, by an error and not by a hang.
#[test]
fn three_peers_nesting_is_bounded() {
    let deep = |levels, serving| {
        let options = Options { levels, serving, calls: serving, ..Options::default() };
        let setup = move || Setup { options: options.clone(), ..Setup::default() };
        each(setup, |net, log| {
            let thing = fetch(net);
            let mine = Reference::Local(things::Thing::make(log, &net.clock));
            let args = Args::from([1]).and(mine).and(1000);
            let error = invoke(net, &thing, "bounce", args).expect_err("it is too deep");
            let limit = if levels < serving { CallError::TooDeep } else { CallError::Overloaded };
            assert_eq!(error.to_string(), format!("RuntimeError: {limit}"));
            drop(thing);
            net.assert_baseline();
            assert_eq!(log.alive(), 0);
        });
    };
    deep(6, 64);
    deep(32, 4);
}

/// LNK-4: either connection is lost again and again; calls, callbacks and releases through B take effect once all the same.
#[test]
fn three_peers_cuts_of_either_connection_change_nothing() {
    each(Setup::default, |net, log| {
        let thing = fetch(net);
        let double = Reference::local(Function::inline(|args| {
            Ok(Value::Int(2 * args.get(0).and_then(Value::as_int).unwrap_or(0)))
        }));
        let calls: Vec<_> = (0..12)
            .map(|number| {
                let (thing, double) = (thing.clone(), double.clone());
                net.begin_task(A, async move {
                    let args = Args::from([number]).and(double).and(number);
                    assert_eq!(thing.invoke("call", args).await, Ok((2 * number).into()));
                })
            })
            .collect();
        drop(thing);
        for session in [NEAR, FAR, NEAR, FAR, FAR, NEAR] {
            let time = net.random.below(15);
            net.run_for(time);
            net.cut(session);
        }
        net.assert_baseline();
        assert!(calls.iter().all(|call| lock(call).is_some()));
        assert!((0..12).all(|number| lock(&log.started)[&number] == 1));
        assert_eq!(log.alive(), 0);
    });
}

/// LNK-6: C starts again: calls through B end, and what A holds of C is down; A itself starts again: what C did for it is
/// stopped, and freed.
#[test]
fn three_peers_a_restart_at_either_end_is_told_to_the_other() {
    each(Setup::default, |net, log| {
        let thing = fetch(net);
        let call = net.begin_task(A, {
            let thing = thing.clone();
            async move { thing.invoke("wait", [1, 1_000_000]).await }
        });
        net.run_for(100);
        net.restart(C);
        net.run();
        assert_eq!(thing.lost(), Some(Lost::Down(DownReason::PeerLost)));
        let error = lock(&call).take().expect("it has ended").expect_err("C is another");
        let text = format!("RuntimeError: the session with the object's own peer is over: {}", Ended::PeerRestarted);
        assert_eq!(error.to_string(), text);
        assert_eq!(log.alive(), 0);
        net.reconnect(FAR);
        net.run();
        let thing = fetch(net);
        let call = net.begin_task(A, async move { thing.invoke("wait", [2, 1_000_000]).await });
        net.run_for(100);
        assert!(log.has_started(2));
        net.restart(A);
        drop(call);
        net.run();
        assert!(!log.is_done(2) && log.alive() == 0);
        assert!(net.clock.now() < 1_000_000);
        net.assert_baseline();
    });
}
