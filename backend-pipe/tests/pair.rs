//! Two connections over a pair of in-process pipes.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

mod common;

use common::{echo, pair, until};
use farref_pipe::{
    Action, Args, CloseCode, Connection, Directory, Ended, Error, ErrorCode, Function, List, Map, Object, Options,
    Reference, Remote, Value,
};

#[test]
fn values_and_errors_cross() {
    let (client, _server) = pair(Directory::new(), echo());
    let root = client.root();
    let value = Value::Tuple(vec![1.into(), "é".into(), Value::None, Value::Float(1.5), Value::Bytes(vec![0, 255])]);
    assert_eq!(root.invoke("echo", [value.clone()]), Ok(value));
    let missing = root.invoke("nothing", ()).expect_err("there is no such root");
    assert_eq!(missing.to_string(), "no such name: nothing");
    let members = root.describe().expect("the directory tells");
    assert_eq!((&*members[0].name, &*members[0].doc), ("echo", "gives back its argument"));
    assert!(client.is_at_baseline());
}

#[test]
fn references_cross_come_home_and_are_released() {
    let (client, server) = pair(Directory::new(), echo());
    let list: Arc<dyn Object> = Arc::new(List::new(vec![1.into(), 2.into()]));
    let back = client.root().invoke("echo", [Reference::Local(list.clone())]).expect("it comes back");
    assert_eq!(back, Value::Reference(Reference::Local(list.clone())));
    drop(back);
    client.root().invoke("echo", [1]).expect("another call");
    until(|| client.is_at_baseline() && server.is_at_baseline());
    until(|| Arc::strong_count(&list) == 1);
}

struct Files;

impl Object for Files {
    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        match action {
            Action::Call if args.get(0).and_then(Value::as_str) == Some("gone") => {
                Err(Error::raise("FileNotFoundError", "gone"))
            }
            Action::Call => Ok(Reference::local(List::new(args.positional.into_vec())).into()),
            other => other.unsupported(),
        }
    }
}

#[test]
fn calls_are_pipelined_in_one_round_trip() {
    let (client, server) = pair(
        Directory::new(),
        Directory::new().with("open", "", Files).with(
            "pair",
            "",
            Function::new(|args| Ok(Value::Tuple(args.positional.into_vec()))),
        ),
    );
    let before = client.traffic().round_trips;
    let list = client.root().promise("open", ["a", "b"]).expect("a promise");
    assert_eq!(list.length(), Ok(2));
    assert_eq!(client.traffic().round_trips - before, 1);
    drop(list);
    // A broken promise tells the reason of the break.
    let error = client.root().promise("open", ["gone"]).and_then(|open| open.length()).expect_err("it fails");
    assert_eq!(error.exception().expect("an exception").name, "FileNotFoundError");
    // A promise of a value: its parts, and as an argument.
    let value = client.root().promise("pair", [1, 2]).expect("a promise");
    let both = client.root().start("pair", [Value::from(Reference::Promise(value.clone()))]).expect("a call");
    assert_eq!(value.item(1), Ok(2.into()));
    assert_eq!(both.wait(), Ok(Value::Tuple(vec![Value::Tuple(vec![1.into(), 2.into()])])));
    assert_eq!(value.item(-1), Ok(2.into()));
    drop(value);
    until(|| client.is_at_baseline() && server.is_at_baseline());
}

/// C11, CAL-6: a callback within a call, and one within that.
#[test]
fn callbacks_nest() {
    let server = Directory::new().with(
        "apply",
        "calls its argument",
        Function::new(|args| {
            let Some(Value::Reference(Reference::Remote(function))) = args.get(0) else {
                return Err(Error::bad_arguments("a function"));
            };
            function.call([Value::from(Reference::local(Function::new(|args| Ok(args.positional[0].clone()))))])
        }),
    );
    let (client, server) = pair(Directory::new(), server);
    let before = client.traffic().round_trips;
    let called = Function::new(|args| match args.get(0) {
        Some(Value::Reference(Reference::Remote(identity))) => identity.call([42]),
        _ => Err(Error::bad_arguments("a function")),
    });
    assert_eq!(client.root().invoke("apply", [Reference::local(called)]), Ok(42.into()));
    assert_eq!(client.traffic().round_trips - before, 3);
    until(|| client.is_at_baseline() && server.is_at_baseline());
}

/// ADM-1, C8: both sides write more than the pipes hold at the same time; nobody stops reading.
#[test]
fn two_peers_that_fill_both_pipes_do_not_hang() {
    let blob = vec![7u8; 1 << 20];
    let (client, server) = pair(echo(), echo());
    let work = |connection: Connection| {
        let blob = blob.clone();
        thread::spawn(move || {
            let calls: Vec<_> = (0..12)
                .map(|_| connection.root().start("echo", [Value::Bytes(blob.clone())]).expect("a call"))
                .collect();
            for call in calls {
                assert_eq!(call.wait(), Ok(Value::Bytes(blob.clone())));
            }
        })
    };
    let both = [work(client.clone()), work(server.clone())];
    both.into_iter().for_each(|side| side.join().expect("it went through"));
}

/// A28: many threads on one connection.
#[test]
fn threads_share_a_connection() {
    let (client, server) = pair(Directory::new(), echo());
    thread::scope(|scope| {
        for thread in 0..16 {
            let client = &client;
            scope.spawn(move || {
                for call in 0..200 {
                    let number = thread * 1000 + call;
                    assert_eq!(client.root().invoke("echo", [number]), Ok(number.into()));
                }
            });
        }
    });
    until(|| client.is_at_baseline() && server.is_at_baseline());
}

/// CLS-1: a stream that ends fails every waiting call at once.
#[test]
fn the_end_of_the_stream_fails_all_calls() {
    let (left, right) = UnixStream::pair().expect("a socket pair");
    let never = Directory::new().with(
        "never",
        "",
        Function::new(|_| {
            loop {
                thread::park()
            }
        }),
    );
    let cut = right.try_clone().expect("a clone");
    thread::spawn(move || {
        farref_pipe::open(right.try_clone().expect("a clone"), right, never, Options::default())
            .map(|c| c.wait_closed())
    });
    let client = farref_pipe::open(left.try_clone().expect("a clone"), left, Directory::new(), Options::default())
        .expect("it opens");
    let calls: Vec<_> = (0..10).map(|_| client.root().start("never", ()).expect("a call")).collect();
    cut.shutdown(std::net::Shutdown::Both).expect("cut");
    for call in calls {
        assert!(matches!(call.wait(), Err(Error::Ended(_))));
    }
    assert!(matches!(client.root().invoke("never", ()), Err(Error::NeverStarted(_))));
}

/// An object whose members are containers; dropping one runs code that uses the connection.
#[test]
fn objects_are_dropped_without_any_lock() {
    struct Chatty(Connection, Arc<AtomicBool>);
    impl Object for Chatty {
        fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
            action.unsupported()
        }
    }
    impl Drop for Chatty {
        fn drop(&mut self) {
            self.1.store(!self.0.is_at_baseline(), Ordering::SeqCst);
            self.1.store(true, Ordering::SeqCst);
        }
    }
    let (client, _server) = pair(Directory::new(), echo());
    let dropped = Arc::new(AtomicBool::new(false));
    let object = Reference::local(Chatty(client.clone(), dropped.clone()));
    let map = Reference::local(Map::new(vec![("k".into(), object.into())]));
    client.root().invoke("echo", [map]).expect("it comes back");
    until(|| dropped.load(Ordering::SeqCst));
}

/// B10: a side that leaves lets the calls end that it serves, and takes no new ones.
#[test]
fn draining_lets_calls_end() {
    let (entered, has_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let may_leave = Mutex::new(may_leave);
    let slow = Function::new(move |_| {
        entered.send(()).expect("the test listens");
        may_leave.lock().expect("one call").recv().expect("the test says so");
        Ok("done".into())
    });
    let (client, server) = pair(Directory::new(), echo().with("slow", "", slow));
    let call = client.root().start("slow", ()).expect("a call");
    has_entered.recv().expect("it runs");
    let draining = thread::spawn(move || server.drain(Duration::from_secs(60)));
    // New calls are refused from some moment on.
    until(|| matches!(client.root().invoke("echo", [1]), Err(Error::Refused(ErrorCode::Overloaded, _))));
    leave.send(()).expect("it waits");
    assert_eq!(call.wait(), Ok("done".into()));
    assert!(draining.join().expect("it returns"));
    assert!(matches!(client.wait_closed(), Ended::PeerClosed(CloseCode::Leaving)));
}

/// B10: but not for ever.
#[test]
fn draining_has_a_limit() {
    let (client, server) = pair(
        Directory::new(),
        Directory::new().with(
            "never",
            "",
            Function::new(|_| {
                thread::park_timeout(Duration::from_secs(600));
                Ok(Value::None)
            }),
        ),
    );
    let call = client.root().start("never", ()).expect("a call");
    until(|| server.tables().answers == 1);
    assert!(!server.drain(Duration::from_millis(20)));
    assert!(matches!(call.wait(), Err(Error::Ended(_))));
}

/// An object that runs inline is told that it cannot wait, also where a promise would have to settle before a call on it.
#[test]
fn what_runs_inline_cannot_wait_for_a_promise() {
    let go = Function::inline(|args| {
        let Some(Value::Reference(Reference::Remote(slow))) = args.get(0) else {
            return Err(Error::bad_arguments("a function"));
        };
        // Not made to be built on: a call on it has to wait for it.
        let promise = farref_pipe::Promise::from(slow.start_op(farref_pipe::Op::Call, Args::default())?);
        match promise.start("anything", ()) {
            Err(Error::Misplaced(why)) => Ok(why.into()),
            other => Ok(format!("{other:?}").into()),
        }
    });
    let (client, _server) = pair(Directory::new(), Directory::new().with("go", "", go));
    let (leave, may_leave) = mpsc::channel::<()>();
    let may_leave = Mutex::new(may_leave);
    let slow = Function::new(move |_| {
        let _ = may_leave.lock().expect("one call").recv();
        Ok(Value::None)
    });
    let told = client.root().invoke("go", [Reference::local(slow)]);
    drop(leave);
    assert_eq!(told, Ok("an object that runs inline cannot wait for a call".into()));
}
