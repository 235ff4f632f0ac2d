//! Two sessions in one process, whose bytes go over when a test says so.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::call::{block_on, poll_once};
use crate::pool::Task;
use crate::shared::lock;
use crate::{
    Action, Args, Async, AsyncObject, AsyncRemote, Connection, Directory, Driver, Error, ErrorCode, Function, Link,
    Options, Promise, Reference, Remote, Value, Work,
};

/// Keeps the first task, and has no room for more.
#[derive(Default)]
struct OneTask(Mutex<Option<Task<()>>>);

impl Driver for OneTask {
    fn output(&self) {}

    fn run(&self, work: Work) -> Result<(), Work> {
        let mut kept = lock(&self.0);
        if kept.is_none() {
            *kept = Some(work.into_task()?);
            return Ok(());
        }
        Err(work)
    }
}

/// One side of a session.
struct Side {
    link: Link,
    connection: Connection,
    driver: Arc<OneTask>,
}

impl Side {
    fn new(directory: Directory, options: &Options) -> Self {
        let driver = Arc::new(OneTask::default());
        let link = Link::new(directory, options, driver.clone());
        Self { connection: link.connection(), link, driver }
    }

    /// All that it has to say reaches the other side.
    fn tell(&self, other: &Self) {
        let mut buffer = Vec::new();
        loop {
            let taken = self.link.take_output(&mut buffer).expect("the session goes on");
            let received = other.link.receive(&buffer[taken.bytes.clone()]);
            assert!(received.used == taken.bytes.len() && !received.is_over);
            if !taken.more {
                return;
            }
        }
    }

    /// How many calls wait until the peer takes more.
    fn waiting(&self) -> usize {
        self.link.0.credits.total_listeners()
    }
}

/// A client of this directory, both past Hello. So many calls are served at a time.
fn pair(directory: Directory, serving: u16) -> (Side, Side) {
    let options = Options { serving, calls: serving, ..Options::default() };
    let (client, server) = (Side::new(Directory::new(), &options), Side::new(directory, &options));
    client.tell(&server);
    server.tell(&client);
    (client, server)
}

/// A server of one call at a time, and a call under way that will fail.
fn one_call_at_a_time() -> (Side, Side, Promise) {
    let echo = Function::inline(|mut args| Ok(args.positional.pop().unwrap_or(Value::None)));
    let fail = Function::inline(|_| Err(Error::raise("ValueError", "as asked")));
    let (client, server) = pair(Directory::new().with("echo", "", echo).with("fail", "", fail), 1);
    let failing = Remote::promise(&client.connection.root(), "fail", ()).expect("nothing else is under way");
    (client, server, failing)
}

fn is_pending<F: Future>(future: Pin<&mut F>) -> bool {
    matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

/// Waits for another thread, but not for ever.
fn until(is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "not within 30 seconds");
        thread::yield_now();
    }
}

/// ADM-2: there is credit, and who is told first has nothing to call any more: an argument of it is known to have failed.
#[test]
fn credit_that_a_blocking_call_does_not_use_is_for_the_next() {
    let (client, server, failing) = one_call_at_a_time();
    let root = client.connection.root();
    let argument = Value::from(Reference::Promise(failing));
    let first = thread::spawn(move || Remote::start(&root, "echo", [argument]).map(drop));
    until(|| client.waiting() == 1);
    let root = client.connection.root();
    let mut second = pin!(AsyncRemote::start(&root, "echo", [2]));
    assert!(is_pending(second.as_mut()));
    client.tell(&server);
    server.tell(&client);
    // There is credit when the peer has been told that its answer has come.
    assert_eq!(client.waiting(), 2);
    client.tell(&server);
    until(|| first.is_finished());
    let error = first.join().expect("it returns").expect_err("its argument has failed");
    assert_eq!(error.exception().expect("an exception").name, "ValueError");
    let second = poll_once(second).expect("there is credit").expect("it is made");
    client.tell(&server);
    server.tell(&client);
    assert_eq!(poll_once(second), Some(Ok(2.into())));
}

/// ADM-2: so it is with many calls that are made at once.
#[test]
fn credit_that_many_calls_do_not_use_is_for_the_next() {
    let (client, server, failing) = one_call_at_a_time();
    let root = client.connection.root();
    let mut first = pin!(root.invoke_many("echo", [[Value::from(Reference::Promise(failing))]]));
    assert!(is_pending(first.as_mut()));
    let mut second = pin!(AsyncRemote::start(&root, "echo", [2]));
    assert!(is_pending(second.as_mut()));
    client.tell(&server);
    server.tell(&client);
    // There is credit when the peer has been told that its answer has come.
    assert_eq!(client.waiting(), 2);
    client.tell(&server);
    let outcomes = poll_once(first).expect("its only call has failed");
    assert!(matches!(&outcomes[..], [Err(Error::Raised(exception))] if exception.name == "ValueError"));
    let second = poll_once(second).expect("there is credit").expect("it is made");
    client.tell(&server);
    server.tell(&client);
    assert_eq!(poll_once(second), Some(Ok(2.into())));
}

/// Does nothing, one call after the other.
struct InTurn;

impl AsyncObject for InTurn {
    async fn perform(&self, _: Action<'_>, _: Args) -> Result<Value, Error> {
        Ok(Value::None)
    }
}

/// The calls that a session can have under way: the highest id stands for those that none can have.
const MOST: u16 = u16::MAX - 1;

/// Calls on one object wait behind one that runs, as many as a peer may make, and none of them finds a place when it is their
/// turn. The stack has no room for all of them.
#[test]
fn a_lane_that_finds_no_thread_is_emptied_in_a_loop() {
    let (client, server) = pair(Directory::new().with("turn", "", Async(InTurn)), MOST);
    let root = client.connection.root();
    let calls: Vec<_> = (0..MOST).map(|_| Remote::start(&root, "turn", ()).expect("the peer takes so many")).collect();
    client.tell(&server);
    let first = lock(&server.driver.0).replace(Box::pin(async {})).expect("the first one runs");
    let run = thread::Builder::new().stack_size(128 * 1024).spawn(move || block_on(first)).expect("a thread");
    run.join().expect("it ends");
    server.tell(&client);
    let mut outcomes = calls.into_iter().map(|call| poll_once(call).expect("it is answered"));
    assert_eq!(outcomes.next(), Some(Ok(Value::None)));
    let refused = Error::Refused(ErrorCode::Overloaded, Vec::new());
    assert_eq!(outcomes.filter(|outcome| *outcome == Err(refused.clone())).count(), usize::from(MOST) - 1);
    client.tell(&server);
    assert!(client.connection.is_at_baseline() && server.connection.is_at_baseline());
}
