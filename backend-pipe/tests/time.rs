//! Deadlines, cancelled calls, keepalive and the counted end, blocking, over a socket pair and over any stream.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

mod common;

use common::{pair, pair_with, until};
use farref_pipe::{
    Action, Args, Cancelled, Connection, Deadline, Directory, Ended, Error, Object, Options, Remote, Value,
    is_cancelled,
};

/// Blocks until it is cancelled or the test lets it go on; counts how many calls have begun. They take turns.
struct Block(Arc<AtomicUsize>, Arc<AtomicBool>);

impl Object for Block {
    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        if !matches!(action, Action::Call) {
            return action.unsupported();
        }
        self.0.fetch_add(1, Ordering::SeqCst);
        while !self.1.load(Ordering::SeqCst) {
            if is_cancelled() {
                return Err(Error::cancelled());
            }
            thread::yield_now();
        }
        Ok("done".into())
    }
}

/// A directory with one of these, its count and its gate.
fn blocking() -> (Directory, Arc<AtomicUsize>, Arc<AtomicBool>) {
    let (begun, open) = (Arc::default(), Arc::default());
    let block = Block(Arc::clone(&begun), Arc::clone(&open));
    (Directory::new().with("block", "until it is let go", block), begun, open)
}

/// Over descriptors, for which threads take turns to read.
fn over_fds(served: Directory) -> (Connection, Connection) {
    let (left, right) = UnixStream::pair().expect("a socket pair");
    let open = |stream: UnixStream, directory| {
        let other = stream.try_clone().expect("a clone");
        farref_pipe::open_fds(stream, other, directory, Options::default()).expect("it opens")
    };
    let server = thread::spawn(move || open(right, served));
    let client = open(left, Directory::new());
    (client, server.join().expect("it opens"))
}

/// TIM-3: whoever waits is told when the time is over, whether something is received or not, and whoever reads.
#[test]
fn deadlines_pass_while_threads_wait() {
    for is_shared in [false, true] {
        let (directory, begun, open) = blocking();
        let (client, server) = if is_shared { over_fds(directory) } else { pair(Directory::new(), directory) };
        // Threads are used to read their own answers by now.
        for _ in 0..50 {
            client.root().describe().expect("it answers");
        }
        let limit = Duration::from_millis(30);
        let start = Instant::now();
        let stopped = client.root().with_deadline(limit).invoke("block", ());
        assert_eq!(stopped, Err(Error::DeadlineExceeded));
        assert!(start.elapsed() >= limit);
        let abandoned = client.root().with_deadline(Deadline::new(limit).then_abandon()).invoke("block", ());
        assert_eq!(abandoned, Err(Error::DeadlineExceeded));
        let late = client.root().with_deadline(Deadline::new(limit).then_wait_on()).start("block", ());
        let late = late.expect("it is sent");
        until(|| late.is_late());
        open.store(true, Ordering::SeqCst);
        assert_eq!(late.wait(), Ok("done".into()));
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        until(|| client.is_at_baseline() && server.is_at_baseline());
    }
}

/// FIN-2: a call that waits for its turn never starts; one that blocks is told, and its outcome is told as it is.
#[test]
fn a_cancelled_call_tells_what_became_of_it() {
    let (directory, begun, open) = blocking();
    let (client, _server) = pair(Directory::new(), directory);
    let start = || client.root().start("block", ()).expect("it is sent");
    let first = start();
    until(|| begun.load(Ordering::SeqCst) == 1);
    assert_eq!(start().cancel().wait(), Ok(Cancelled::NeverStarted));
    assert_eq!(first.cancel().wait(), Ok(Cancelled::Stopped));
    drop(start());
    open.store(true, Ordering::SeqCst);
    let last = start();
    let outcome = last.cancel().wait().expect("it may wait");
    assert!(matches!(outcome, Cancelled::Completed(Ok(Value::Str(_))) | Cancelled::NeverStarted), "{outcome:?}");
}

/// TIM-5: a peer that is stopped is taken for lost, and whoever waits is told.
#[test]
fn silence_ends_the_session() {
    let (left, right) = UnixStream::pair().expect("a socket pair");
    let options = Options { patience: Some(Duration::from_millis(200)), ..Options::default() };
    let other = left.try_clone().expect("a clone");
    let opening = thread::spawn(move || farref_pipe::open_fds(left, other, Directory::new(), options));
    // Its Hello, with keepalive, and then nothing more.
    let mut hello = b"\xFFfarref\x0A\x1E\x10\x01\x01\x02\x80\x04\x08\x04\x80\x08\x04\x04".to_vec();
    hello.extend([0xBB; 16]);
    hello.extend([1, 0]);
    std::io::Write::write_all(&mut &right, &hello).expect("it is written");
    let client = opening.join().expect("no panic").expect("it opens");
    let start = Instant::now();
    assert_eq!(client.root().describe().expect_err("nobody answers"), Error::Ended(Ended::Silent));
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(client.wait_closed(), Ended::Silent);
}

/// TIM-4, TIM-5: one side wants to hear something, the other does not care.
#[test]
fn who_is_there_is_not_lost() {
    let options = Options { patience: Some(Duration::from_millis(200)), ..Options::default() };
    let (directory, _, open) = blocking();
    let (client, _server) = pair_with(Directory::new(), options, directory, Options::default());
    let call = client.root().start("block", ()).expect("it is sent");
    let pings = client.traffic().reads;
    until(|| client.traffic().reads >= pings + 10);
    open.store(true, Ordering::SeqCst);
    assert_eq!(call.wait(), Ok("done".into()));
}

/// CLS-2: the session ends when nothing is under way, and both sides know.
#[test]
fn shutdown_loses_nothing() {
    for is_shared in [false, true] {
        let (directory, begun, open) = blocking();
        let (client, server) = if is_shared { over_fds(directory) } else { pair(Directory::new(), directory) };
        let call = client.root().start("block", ()).expect("it is sent");
        until(|| begun.load(Ordering::SeqCst) == 1);
        let ending = thread::spawn(move || server.shutdown_within(Duration::from_secs(10)));
        client.root().describe().expect("calls go on");
        open.store(true, Ordering::SeqCst);
        assert_eq!(call.wait(), Ok("done".into()));
        assert!(ending.join().expect("no panic"));
        assert_eq!(client.wait_closed(), Ended::Done);
    }
}
