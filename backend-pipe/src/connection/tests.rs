//! One side of a session without its threads: what they would do comes when a test says so.

use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;

use farref_host::{Action, Args, Ended, Function, Object, Remote, Value};

use super::*;

/// Does nothing of what a session wants done.
struct Idle;

impl Driver for Idle {
    fn output(&self) {}

    fn run(&self, work: Work) -> Result<(), Work> {
        Err(work)
    }
}

/// A side that is idle, and its handle.
fn idle(directory: Directory) -> (Link, Connection) {
    let link = Link::new(directory, &Options::default(), Arc::new(Idle));
    let connection = link.connection();
    (link, connection)
}

fn echo() -> Directory {
    let echo = Function::inline(|mut args| Ok(args.positional.pop().unwrap_or(Value::None)));
    Directory::new().with("echo", "gives back its argument", echo)
}

/// All that a side has to say.
fn said(link: &Link) -> Vec<u8> {
    let mut buffer = Vec::new();
    let taken = link.take_output(&mut buffer).expect("the session goes on");
    assert!(!taken.more);
    buffer[taken.bytes].to_vec()
}

/// Keeps what is written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the thread that receives could not write without waiting goes out with what came since: nobody else writes that, since
/// who made it saw that somebody does.
#[test]
fn output_that_came_since_goes_out_with_what_was_left() {
    let (link, connection) = idle(Directory::new());
    let (peer, _peer) = idle(echo());
    let sink = Written::default();
    let mut output = Output { sink: Some(Sink::Any(Box::new(sink.clone()))), buffer: Vec::new(), left: 0..0 };
    link.receive(&said(&peer));
    assert!(matches!(output.write(&link, false), Ok(super::Written::Some)));
    assert!(!output.left.is_empty() && lock(&sink.0).is_empty());
    let call = connection.root().start("echo", [1]).expect("a call");
    assert!(matches!(output.write(&link, true), Ok(super::Written::All)));
    let written = lock(&sink.0).clone();
    assert_eq!(peer.receive(&written).used, written.len());
    link.receive(&said(&peer));
    assert_eq!(farref_host::Promise::from(call).outcome(), Some(Ok(1.into())));
}

/// Code that runs wherever a call is received.
struct Fragile;

impl Object for Fragile {
    fn is_concurrent(&self) -> bool {
        // As a panic does, but without its message in the output of a test that passes.
        resume_unwind(Box::new("out of cheese"))
    }

    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        action.unsupported()
    }
}

/// A caller that receives for all, in place of the thread that does so at other times, runs code that panics. That is the end of
/// the session, for the others too; the bytes that were being taken are not taken again.
#[test]
fn a_panic_of_a_caller_that_receives_ends_the_session() {
    let (near, mut far) = UnixStream::pair().expect("a socket pair");
    let file =
        |stream: &UnixStream| std::fs::File::from(std::os::fd::OwnedFd::from(stream.try_clone().expect("a clone")));
    let pipe = Arc::new(Pipe {
        output: Mutex::new(Output {
            sink: TryWrite::new(file(&near)).ok().map(Sink::Try),
            buffer: Vec::new(),
            left: 0..0,
        }),
        input: Mutex::new(Input::new(Source::Shared(file(&near)), Vec::new())),
        readers: Readers::default(),
        interrupt: Mutex::default(),
        bell: Bell::default(),
        mailbox: Mailbox::default(),
        hang_up: Mutex::default(),
        threads: Threads::new(1),
        timer: Timer::default(),
    });
    let link = Link::new(Directory::new().with("fragile", "panics", Fragile), &Options::default(), pipe.clone());
    let connection = link.connection();
    let (peer, peer_connection) = idle(echo());
    far.write_all(&[&PREAMBLE, &said(&peer)[..]].concat()).expect("written");
    pipe.receive(&link, &mut lock(&pipe.input));
    let calls = [1, 2].map(|number| connection.root().start("echo", [number]).expect("a call"));
    let mut heard = [0; 1000];
    let count = far.read(&mut heard).expect("Hello and two calls");
    assert_eq!(peer.receive(&heard[..count]).used, count);
    drop(said(&peer));

    // No answer, but calls of the peer: one that panics, and one that comes behind it.
    let fragile = peer_connection.root().start("fragile", ()).expect("a call");
    far.write_all(&said(&peer)).expect("written");
    let [receiving, other] = calls;
    let panic = catch_unwind(AssertUnwindSafe(|| receiving.wait())).expect_err("what is received panics");
    assert_eq!(panic.downcast_ref(), Some(&"out of cheese"));
    let behind = peer_connection.root().start("fragile", ()).expect("a call");
    far.write_all(&said(&peer)).expect("written");
    far.shutdown(std::net::Shutdown::Write).expect("the end");
    // The thread that had lent the input has it back.
    pipe.read_all(&link, Next::None);
    assert_eq!(other.wait(), Err(Error::Ended(Ended::LinkLost)));
    drop((fragile, behind));
}
