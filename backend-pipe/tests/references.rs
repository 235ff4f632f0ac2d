//! References that are withdrawn, lent, weak, and whoever waits for their end (REF-8 to REF-10).

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

mod common;

use common::{echo, pair, until};
use farref_pipe::{
    Action, Args, CallError, Directory, DownReason, Ended, Error, ErrorCode, Function, List, Lost, Mourners, Object,
    Proxy, Reference, Remote, Value,
};

const LIMIT: Duration = Duration::from_secs(5);

/// Gives the same object each time.
fn giving(object: &Arc<dyn Object>) -> Directory {
    let object = object.clone();
    Directory::new().with("give", "", Function::inline(move |_| Ok(Reference::Local(object.clone()).into())))
}

fn list() -> Arc<dyn Object> {
    Arc::new(List::new(vec![1.into(), 2.into()]))
}

fn proxy(value: Value) -> Proxy {
    Proxy::try_from(value).expect("an object of the peer")
}

#[test]
fn who_monitors_an_object_is_told_that_it_was_withdrawn() {
    let object = list();
    let (client, server) = pair(Directory::new(), giving(&object));
    let held = proxy(client.root().invoke("give", ()).expect("it is given"));
    assert_eq!((held.length(), held.lost()), (Ok(2), None));
    assert_eq!(held.wait_down(Duration::ZERO), None);
    let monitors: Vec<_> = (0..2)
        .map(|_| {
            let held = held.clone();
            thread::spawn(move || held.wait_down(LIMIT))
        })
        .collect();
    assert!(server.revoke(&object, DownReason::Revoked));
    let down = Lost::Down(DownReason::Revoked);
    for monitor in monitors {
        assert_eq!(monitor.join().expect("no panic"), Some(down));
    }
    assert_eq!(held.lost(), Some(down));
    // Nothing is sent for a call on it.
    let failed = held.length().expect_err("it is down");
    assert_eq!(failed, Error::NotMade(CallError::Revoked(DownReason::Revoked)));
    assert_eq!(
        (failed.down(), failed.to_string()),
        (Some(DownReason::Revoked), "the object was withdrawn by its owner".into())
    );
    // The session lets it go.
    until(|| Arc::strong_count(&object) == 2);
    assert!(!server.revoke(&object, DownReason::Revoked), "the peer does not hold it any more");
    // Given again it is another reference.
    let again = proxy(client.root().invoke("give", ()).expect("it is given"));
    assert_ne!(again, held);
    assert_eq!((again.length(), again.lost(), held.lost()), (Ok(2), None, Some(down)));
    drop((again, held));
    until(|| client.is_at_baseline() && server.is_at_baseline());
}

#[test]
fn a_call_that_crosses_the_withdrawal_or_waits_for_its_turn_is_refused() {
    struct Slow(Mutex<(mpsc::Sender<()>, mpsc::Receiver<()>)>);

    impl Object for Slow {
        fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
            let Action::Call = action else { return action.unsupported() };
            let both = self.0.lock().expect("no panic");
            both.0.send(()).expect("the test waits");
            both.1.recv_timeout(LIMIT).expect("the test goes on");
            Ok(7.into())
        }
    }

    let (running, is_running) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel();
    let object: Arc<dyn Object> = Arc::new(Slow(Mutex::new((running, goes_on))));
    let (client, server) = pair(Directory::new(), giving(&object));
    let held = proxy(client.root().invoke("give", ()).expect("it is given"));
    let first = held.start_op(farref_pipe::Op::Call, Args::default()).expect("a call");
    is_running.recv_timeout(LIMIT).expect("it runs");
    // One call at a time: the second has not started when the object goes.
    let second = held.start_op(farref_pipe::Op::Call, Args::default()).expect("a call");
    client.root().invoke("give", ()).expect("it has come by now");
    assert!(server.revoke(&object, DownReason::from_number(9)));
    let refused = second.wait().expect_err("it never starts");
    assert_eq!(refused, Error::Refused(ErrorCode::Revoked, vec![9.into()]));
    assert_eq!(refused.down(), Some(DownReason::from_number(9)));
    go_on.send(()).expect("it waits");
    assert_eq!(first.wait(), Ok(7.into()), "what runs goes on");
    drop(held);
    until(|| client.is_at_baseline() && server.is_at_baseline());
}

#[test]
fn what_went_down_while_its_call_waited_is_told_when_that_starts() {
    let (go_on, goes_on) = mpsc::channel();
    let goes_on = Mutex::new(goes_on);
    let kept = Arc::new(Mutex::new(None));
    let keeps = kept.clone();
    let keeper: Arc<dyn Object> = Arc::new(Function::inline(move |args| {
        *keeps.lock().expect("no panic") = args.get(0).cloned().map(proxy);
        Ok(Value::None)
    }));
    let later = Function::new(move |_| {
        goes_on.lock().expect("no panic").recv_timeout(LIMIT).expect("the test goes on");
        Ok(Reference::Local(keeper.clone()).into())
    });
    let (client, server) = pair(Directory::new(), echo().with("later", "", later));
    let object = list();
    let keeper = client.root().promise("later", ()).expect("a promise");
    let keeping = Args::from([Value::from(Reference::Local(object.clone()))]);
    let keeping = keeper.start_op(farref_pipe::Op::Call, keeping).expect("a call");
    assert_eq!(client.root().invoke("echo", [1]), Ok(1.into()), "the reference is there");
    assert!(client.revoke(&object, DownReason::Revoked));
    assert_eq!(client.root().invoke("echo", [2]), Ok(2.into()), "so is its end");
    go_on.send(()).expect("it waits");
    assert_eq!(keeping.wait(), Ok(Value::None));
    let held = kept.lock().expect("no panic").take().expect("it was given");
    assert_eq!(held.lost(), Some(Lost::Down(DownReason::Revoked)));
    assert_eq!(held.wait_down(LIMIT), Some(Lost::Down(DownReason::Revoked)));
    drop((held, keeper));
    until(|| client.is_at_baseline() && server.is_at_baseline());
}

#[test]
fn all_monitors_are_told_of_the_end_of_the_session() {
    let object = list();
    let (client, server) = pair(Directory::new(), giving(&object));
    let held = proxy(client.root().invoke("give", ()).expect("it is given"));
    let root = client.root();
    assert_eq!(root.lost(), None);
    server.close();
    for proxy in [&held, &root] {
        let lost = proxy.wait_down(LIMIT).expect("the session is over");
        assert!(matches!(lost, Lost::Ended(Ended::PeerClosed(_))), "{lost:?}");
        assert_eq!(proxy.lost(), Some(lost));
    }
    drop(client);
}

#[test]
fn what_was_handed_on_goes_down_with_its_own_peer() {
    let object = list();
    // C gives an object to B, and B gives it to A.
    let (b, c) = pair(Directory::new(), giving(&object));
    let from_c = proxy(b.root().invoke("give", ()).expect("it is given"));
    let handed = Mutex::new(Some(from_c));
    let hand = Function::inline(move |_| {
        Ok(handed.lock().expect("no panic").take().map_or(Value::None, |proxy| Reference::from(proxy).into()))
    });
    let (a, _b) = pair(Directory::new(), Directory::new().with("give", "", hand));
    let held = proxy(a.root().invoke("give", ()).expect("it is handed on"));
    assert_eq!(held.length(), Ok(2));
    c.revoke(&object, DownReason::Revoked);
    assert_eq!(held.wait_down(LIMIT), Some(Lost::Down(DownReason::Revoked)));

    let (b, c) = pair(Directory::new(), giving(&object));
    let from_c = proxy(b.root().invoke("give", ()).expect("it is given"));
    let hand = Function::inline(move |_| Ok(Reference::from(from_c.clone()).into()));
    let (a, _b) = pair(Directory::new(), Directory::new().with("give", "", hand));
    let held = proxy(a.root().invoke("give", ()).expect("it is handed on"));
    c.close();
    assert_eq!(held.wait_down(LIMIT), Some(Lost::Down(DownReason::PeerLost)));
}

#[test]
fn what_is_lent_is_gone_with_the_answer_and_costs_no_release() {
    let kept = Arc::new(Mutex::new(None::<Proxy>));
    let keep = kept.clone();
    let call_back = Function::new(move |mut args| {
        let callee = Proxy::try_from(args.positional.remove(0)).map_err(|_| Error::bad_arguments("a function"))?;
        *keep.lock().expect("no panic") = Some(callee.clone());
        callee.call(args)
    });
    let (client, server) = pair(Directory::new(), Directory::new().with("call", "", call_back));
    let double: Arc<dyn Object> =
        Arc::new(Function::inline(|args| Ok(Value::Int(2 * args.get(0).and_then(Value::as_int).unwrap_or(0)))));
    let before = client.traffic().messages;
    let args = [Value::from(Reference::Lent(double.clone())), 21.into()];
    assert_eq!(client.root().invoke("call", args), Ok(42.into()));
    assert_eq!(client.traffic().messages - before, 4, "two calls, two Returns");
    until(|| Arc::strong_count(&double) == 1);
    let kept = kept.lock().expect("no panic").take().expect("it was kept");
    assert_eq!(kept.wait_down(LIMIT), Some(Lost::Returned));
    assert!(matches!(kept.call([1]), Err(Error::NotMade(CallError::BadTarget))));
    drop(kept);
    until(|| client.is_at_baseline() && server.is_at_baseline());
    // In a result it is held like any other.
    let lend = Function::inline(move |_| Ok(Reference::Lent(double.clone()).into()));
    let (client, _server) = pair(Directory::new(), Directory::new().with("lend", "", lend));
    let held = proxy(client.root().invoke("lend", ()).expect("it is given"));
    assert_eq!(held.call([4]), Ok(8.into()));
}

/// An object with mourners, or without.
struct Thing(Option<Mourners>);

impl Object for Thing {
    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        match action {
            Action::Length => Ok(3.into()),
            other => other.unsupported(),
        }
    }

    fn mourners(&self) -> Option<&Mourners> {
        self.0.as_ref()
    }
}

#[test]
fn a_weak_reference_gives_the_object_as_long_as_that_is_there() {
    for mourners in [Some(Mourners::default()), None] {
        let is_told_at_once = mourners.is_some();
        let object: Arc<dyn Object> = Arc::new(Thing(mourners));
        let weak = Reference::weak(&object);
        let give = Function::inline(move |_| Ok(weak.clone().into()));
        let (client, server) = pair(Directory::new(), echo().with("weak", "", give));
        let weak = proxy(client.root().invoke("weak", ()).expect("it is given"));
        assert!(weak.is_weak());
        assert_eq!(Arc::strong_count(&object), 1, "the peer does not hold it");
        let upgraded = weak.upgrade().expect("it answers").expect("it is there");
        let strong = upgraded.remote().expect("an object of the peer").clone();
        assert!(!strong.is_weak());
        assert_eq!(strong.length(), Ok(3));
        // It comes home as itself, and again as the same reference.
        assert_eq!(weak.upgrade(), Ok(Some(upgraded.clone())));
        assert_eq!(client.root().invoke("weak", ()), Ok(Reference::from(weak.clone()).into()));
        assert_eq!(weak.lost(), None);
        // The last one is the peer's: the session drops it, and looks itself.
        drop((object, upgraded, strong));
        assert_eq!(weak.wait_down(LIMIT), Some(Lost::Down(DownReason::Gone)), "{is_told_at_once}");
        assert_eq!(weak.upgrade(), Ok(None));
        drop(weak);
        until(|| client.is_at_baseline() && server.is_at_baseline());
    }
}

#[test]
fn the_last_owner_of_a_weak_object_drops_it_while_nothing_else_happens() {
    let object: Arc<dyn Object> = Arc::new(Thing(Some(Mourners::default())));
    let weak = Reference::weak(&object);
    let give = Function::inline(move |_| Ok(weak.clone().into()));
    let (client, _server) = pair(Directory::new(), Directory::new().with("weak", "", give));
    let weak = proxy(client.root().invoke("weak", ()).expect("it is given"));
    drop(object);
    assert_eq!(weak.wait_down(LIMIT), Some(Lost::Down(DownReason::Gone)));

    // One without mourners is missed with the next message.
    let object: Arc<dyn Object> = Arc::new(Thing(None));
    let weak = Reference::weak(&object);
    let give = Function::inline(move |_| Ok(weak.clone().into()));
    let (client, _server) = pair(Directory::new(), echo().with("weak", "", give));
    let weak = proxy(client.root().invoke("weak", ()).expect("it is given"));
    drop(object);
    client.root().invoke("echo", [1]).expect("another call");
    assert_eq!(weak.wait_down(LIMIT), Some(Lost::Down(DownReason::Gone)));
}

#[test]
fn withdrawing_an_object_withdraws_the_weak_references_to_it() {
    let object: Arc<dyn Object> = Arc::new(Thing(None));
    let weak = Reference::weak(&object);
    let give = Function::inline(move |_| Ok(weak.clone().into()));
    let (client, server) = pair(Directory::new(), Directory::new().with("weak", "", give));
    let weak = proxy(client.root().invoke("weak", ()).expect("it is given"));
    assert!(server.revoke(&object, DownReason::Revoked));
    assert_eq!(weak.wait_down(LIMIT), Some(Lost::Down(DownReason::Revoked)));
    assert_eq!(weak.upgrade(), Ok(None));
}
