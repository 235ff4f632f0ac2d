//! What must not go wrong around the end of things: objects that are dropped, promises that are let go, sessions that end.

mod common;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use common::{echo, open, pair, pair_with, until};
use farref_pipe::{
    Action, Args, CallError, Directory, Ended, Error, ErrorCode, Function, List, Map, Object, Options, Proxy, ReadFn,
    Reference, Remote, Value, WriteFn,
};

/// Runs a function when it is dropped.
struct OnDrop<F: Fn() + Send + Sync + 'static>(F);

impl<F: Fn() + Send + Sync + 'static> Object for OnDrop<F> {
    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        action.unsupported()
    }
}

impl<F: Fn() + Send + Sync + 'static> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn keeper() -> Directory {
    let kept = Mutex::new(Vec::new());
    let keep = Function::new(move |args| {
        let before = std::mem::replace(&mut *kept.lock().expect("kept"), args.positional.into_vec());
        drop(before);
        Ok(Value::None)
    });
    echo().with("keep", "keeps its arguments until the next call", keep)
}

/// An ordinary "closed" callback: dropping the object calls the peer, which needs the reader.
#[test]
fn an_object_may_call_its_peer_when_it_is_dropped() {
    let (client, _server) = pair(Directory::new(), keeper());
    let (told, tell) = mpsc::channel();
    let root = client.root();
    let object = OnDrop(move || {
        let _ = told.send(root.invoke("echo", ["dropped"]));
    });
    client.root().invoke("keep", [Reference::local(object)]).expect("it is kept");
    client.root().invoke("keep", ()).expect("it is let go");
    assert_eq!(tell.recv_timeout(Duration::from_secs(10)).expect("it was dropped"), Ok("dropped".into()));
}

/// A panic while an object is dropped costs no thread.
#[test]
fn panics_in_drop_cost_no_thread() {
    let make = Function::new(|_| Ok(Reference::local(OnDrop(|| panic!("dropped"))).into()));
    let take = Function::new(|_| {
        let _object = OnDrop(|| panic!("dropped while serving"));
        Ok(Value::None)
    });
    let two = Options { serving: 2, ..Options::default() };
    let (client, _server) =
        pair_with(Directory::new(), Options::default(), echo().with("make", "", make).with("take", "", take), two);
    for _ in 0..8 {
        drop(client.root().invoke("make", ()).expect("an object"));
        assert!(client.root().invoke("take", ()).is_err());
    }
    assert_eq!(client.root().invoke("echo", [1]), Ok(1.into()));
}

/// A session that is over gives typed errors, whatever was exported and freed before.
#[test]
fn calls_after_the_end_fail_with_a_reason() {
    let (client, server) = pair(Directory::new(), echo());
    let list = || Reference::local(List::new(vec![1.into()]));
    client.root().invoke("echo", [list()]).expect("it comes back");
    until(|| client.is_at_baseline());
    server.close();
    client.wait_closed();
    for _ in 0..3 {
        let called = client.root().invoke("echo", [list()]);
        assert!(matches!(called, Err(Error::NeverStarted(Ended::PeerClosed(_)))), "{called:?}");
    }
}

/// A handler that returns an object to a peer that has gone.
#[test]
fn a_peer_may_leave_while_it_is_served() {
    let (entered, enter) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let left = Mutex::new(left);
    let slow = Function::new(move |_| {
        let _ = entered.send(());
        let _ = left.lock().expect("left").recv();
        Ok(Reference::local(List::default()).into())
    });
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = dropped.clone();
    let guard = OnDrop(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let (client, server) = pair(Directory::new(), Directory::new().with("slow", "", slow).with("guard", "", guard));
    let call = client.root().start("slow", ()).expect("a call");
    enter.recv().expect("it runs");
    drop((call, client));
    server.wait_closed();
    drop(leave);
    // The directory and all else is let go; no thread of the server is left behind in a panic.
    until(|| dropped.load(Ordering::SeqCst) == 1);
}

/// Each promise lets go of what it was built on when it has settled: neither memory nor stack grows with the chain.
#[test]
fn long_promise_chains_are_let_go() {
    struct Same;
    impl Object for Same {
        fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
            match action {
                Action::Call => Ok(Reference::local(Same).into()),
                other => other.unsupported(),
            }
        }
    }
    let (client, server) = pair(Directory::new(), Directory::new().with("start", "", Same));
    let mut promise = client.root().promise("start", ()).expect("a promise");
    for _ in 0..20_000 {
        promise = promise.promise_op(farref_pipe::Op::Call, Args::default()).expect("a promise");
    }
    promise.wait().expect("the last one");
    until(|| client.tables().imports <= 2);
    thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(move || drop(promise))
        .expect("a thread")
        .join()
        .expect("no overflow");
    until(|| client.is_at_baseline() && server.is_at_baseline());
}

/// A short message that names one kept value many times does not become a large one in memory.
#[test]
fn kept_values_are_not_multiplied() {
    let blob = Function::new(|_| Ok(Value::Bytes(vec![0; 1 << 20])));
    let count = Function::new(|args| Ok(Value::Int(args.positional.len() as i64)));
    let (client, _server) = pair(Directory::new(), Directory::new().with("blob", "", blob).with("count", "", count));
    let blob = client.root().promise("blob", ()).expect("a promise");
    let many: Vec<Value> = (0..300).map(|_| Value::from(Reference::Promise(blob.clone()))).collect();
    let counted = client.root().start("count", many).expect("a call");
    assert!(matches!(counted.wait(), Err(Error::Refused(ErrorCode::NotKept, _))));
    assert_eq!(blob.length(), Ok(1 << 20));
}

/// ORD-2: calls on one object run in the order in which they were made.
#[test]
fn calls_on_one_object_run_in_order() {
    let list = Arc::new(List::default());
    let (client, _server) = pair(Directory::new(), Directory::new().with_shared("list", "", list.clone()));
    let Ok(Value::Reference(Reference::Remote(remote))) = client.root().get("list") else { panic!("no list") };
    let calls: Vec<_> = (0..2000).map(|number| remote.start("append", [number]).expect("a call")).collect();
    calls.into_iter().for_each(|call| assert_eq!(call.wait(), Ok(Value::None)));
    assert_eq!(list.items(), (0..2000).map(Value::Int).collect::<Vec<_>>());
}

/// ORD-2: and so do callbacks of one call, while callbacks within callbacks do not wait for those around them.
#[test]
fn callbacks_of_one_call_run_in_order() {
    let fire = Function::new(|args| {
        let Some(Value::Reference(Reference::Remote(target))) = args.get(0) else { return Ok(Value::None) };
        let calls: Vec<_> = (0..50).map(|number| target.start_op(farref_pipe::Op::Call, [number].into())).collect();
        calls.into_iter().try_for_each(|call| call?.wait().map(drop))?;
        Ok(Value::None)
    });
    let (client, _server) = pair(Directory::new(), echo().with("fire", "", fire));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (root, notes) = (client.root(), seen.clone());
    let target = Function::new(move |args| {
        let number = root.invoke("echo", [args.positional[0].clone()])?;
        notes.lock().expect("notes").extend(number.as_int());
        Ok(Value::None)
    });
    client.root().invoke("fire", [Reference::local(target)]).expect("all are called");
    assert_eq!(*seen.lock().expect("seen"), (0..50).collect::<Vec<i64>>());
}

/// A peer that serves no calls says so; the caller does not wait for what never comes.
#[test]
fn a_peer_that_serves_nothing_is_not_waited_for() {
    let none = Options { serving: 0, ..Options::default() };
    let (client, _server) = pair_with(Directory::new(), Options::default(), echo(), none);
    assert_eq!(client.root().invoke("echo", [1]), Err(Error::NotMade(CallError::NotServed)));
}

/// When the peer has stopped reading, new calls fail; what it still sends is read.
#[test]
fn calls_fail_when_nothing_can_be_written() {
    let (left, right) = UnixStream::pair().expect("a socket pair");
    let server = thread::spawn(move || open(right, echo(), Options::default()));
    let reading = left.try_clone().expect("a clone");
    let mut writing = left;
    let broken = Arc::new(AtomicUsize::new(0));
    let is_broken = broken.clone();
    let write = WriteFn(move |bytes: &[u8]| {
        if is_broken.load(Ordering::SeqCst) > 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        io::Write::write_all(&mut writing, bytes)
    });
    let client = farref_pipe::open(reading, write, Directory::new(), Options::default()).expect("it opens");
    let _server = server.join().expect("it opens");
    assert_eq!(client.root().invoke("echo", [1]), Ok(1.into()));
    broken.store(1, Ordering::SeqCst);
    // The first call may have been accepted before the pipe is seen to be broken, and may then never be answered.
    let lost = client.root().start("echo", [2]);
    until(|| matches!(client.root().start("echo", [3]), Err(Error::NeverStarted(Ended::LinkLost))));
    drop(lost);
}

/// A9: a channel of the user's that panics ends the session; nobody hangs.
#[test]
fn a_channel_that_panics_ends_the_session() {
    let (left, right) = UnixStream::pair().expect("a socket pair");
    let server = thread::spawn(move || open(right, echo(), Options::default()));
    let mut reading = left.try_clone().expect("a clone");
    let mut total = 0;
    let read = ReadFn(move |buffer: &mut [u8]| {
        let count = io::Read::read(&mut reading, buffer)?;
        total += count;
        assert!(total < 2000, "out of cheese");
        Ok(count)
    });
    let client = farref_pipe::open(read, left, Directory::new(), Options::default()).expect("it opens");
    let _server = server.join().expect("it opens");
    let outcome = (0..100).try_for_each(|_| client.root().invoke("echo", ["x".repeat(100)]).map(drop));
    assert_eq!(outcome, Err(Error::Ended(Ended::LinkLost)));
}

/// Items that are large are fetched a few at a time; none is lost.
#[test]
fn large_items_are_iterated() {
    let items: Vec<Value> = (0..60).map(|byte| Value::Bytes(vec![byte; 100 * 1024])).collect();
    let (client, _server) = pair(Directory::new(), Directory::new().with("list", "", List::new(items.clone())));
    let list = client.root().promise_get("list").expect("a promise");
    let fetched: Result<Vec<_>, _> = list.iterate().expect("an iterator").collect();
    assert_eq!(fetched, Ok(items));

    // And so are many small ones, by a peer with small messages.
    let small = Options { max_message: 64, ..Options::default() };
    let numbers: Vec<Value> = (0..1000).map(|number| Value::Int(number * 1_000_000_007)).collect();
    let directory = Directory::new().with("list", "", List::new(numbers.clone()));
    let (client, _server) = pair_with(Directory::new(), small, directory, Options::default());
    let list = client.root().promise_get("list").expect("a promise");
    let fetched: Result<Vec<_>, _> = list.iterate().expect("an iterator").collect();
    assert_eq!(fetched, Ok(numbers));
}

/// VAL-8: a name given twice is refused.
#[test]
fn a_name_given_twice_is_refused() {
    let (client, _server) = pair(Directory::new(), echo());
    let twice = Args::default().named("a", 1).named("a", 2);
    assert!(matches!(client.root().invoke("echo", twice), Err(Error::Refused(ErrorCode::BadArguments, _))));
}

/// Containers drop what they held without their own lock.
#[test]
fn containers_may_be_used_by_what_they_drop() {
    let list = Arc::new(List::default());
    let again = list.clone();
    let nosy = Reference::local(OnDrop(move || {
        again.items();
    }));
    list.perform(Action::Method("append"), Args::from([nosy])).expect("appended");
    list.perform(Action::SetItem(0.into(), 1.into()), Args::default()).expect("replaced");
    assert_eq!(list.items(), [1.into()]);
    let map = Map::new(vec![("a".into(), 1.into()), ("a".into(), 2.into())]);
    assert_eq!(map.perform(Action::Force, Args::default()), Ok(Value::Map(vec![("a".into(), 2.into())])));
}

/// A proxy is the same however often it arrives, and equal only to itself (N03).
#[test]
fn one_object_is_one_proxy() {
    let list: Arc<dyn Object> = Arc::new(List::default());
    let (client, server) =
        pair(Directory::new(), Directory::new().with_shared("list", "", list).with("other", "", List::default()));
    let get = |name: &str| -> Proxy {
        match client.root().get(name) {
            Ok(Value::Reference(Reference::Remote(proxy))) => proxy,
            other => panic!("no reference: {other:?}"),
        }
    };
    let many: Vec<_> = (0..50).map(|_| get("list")).collect();
    assert!(many.iter().all(|proxy| *proxy == many[0]));
    assert_ne!(get("other"), many[0]);
    until(|| client.tables().imports == 1 && server.tables().exports == 2);
    drop(many);
    until(|| client.is_at_baseline() && server.is_at_baseline());
}

/// ORD-2: a root that is called by its name takes its turn as one that is called by reference does.
#[test]
fn roots_called_by_name_take_their_turn() {
    struct Alone(AtomicUsize, AtomicUsize);
    impl Object for Alone {
        fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
            match action {
                Action::Call => {
                    let inside = self.0.fetch_add(1, Ordering::SeqCst) + 1;
                    self.1.fetch_max(inside, Ordering::SeqCst);
                    thread::yield_now();
                    self.0.fetch_sub(1, Ordering::SeqCst);
                    Ok(Value::None)
                }
                other => other.unsupported(),
            }
        }
    }
    let alone = Arc::new(Alone(AtomicUsize::new(0), AtomicUsize::new(0)));
    let (client, _server) = pair(Directory::new(), Directory::new().with_shared("alone", "", alone.clone()));
    let calls: Vec<_> = (0..200).map(|_| client.root().start("alone", ()).expect("a call")).collect();
    calls.into_iter().for_each(|call| assert_eq!(call.wait(), Ok(Value::None)));
    assert_eq!(alone.1.load(Ordering::SeqCst), 1);
}

/// SPEC section 9: "never started" is not said of a call whose handler ran into a refusal of its own.
#[test]
fn the_refusal_of_a_nested_call_is_not_ones_own() {
    let notify = Function::new(|args| match args.get(0) {
        Some(Value::Reference(Reference::Remote(function))) => function.call(()),
        _ => Err(Error::bad_arguments("notify(function)")),
    });
    let (client, _server) = pair(Directory::new(), Directory::new().with("notify", "", notify));
    let picky = Reference::local(Function::new(|_| Err(Error::bad_arguments("something else"))));
    let error = client.root().invoke("notify", [picky]).expect_err("it cannot be notified");
    assert_eq!(error.to_string(), "RuntimeError: bad arguments; expected something else");
    assert!(matches!(client.root().invoke("notify", ()), Err(Error::Refused(ErrorCode::BadArguments, _))));
}

/// The limits count objects: the directory is there besides.
#[test]
fn limits_count_objects() {
    let one = Options { imports: 1, exports: 1, ..Options::default() };
    let two = Directory::new().with("a", "", List::default()).with("b", "", List::default());
    let (client, _server) = pair_with(Directory::new(), one, two, Options::default());
    let first = client.root().get("a").expect("the one object");
    assert!(matches!(client.root().get("b"), Err(Error::Refused(ErrorCode::TableFull, _))));
    drop(first);
    until(|| client.is_at_baseline());
    assert!(client.root().get("b").is_ok());
}
