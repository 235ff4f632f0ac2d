//! One side of a session without its threads: what they would do comes when a test says so.

use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;

use farref_host::{Action, Args, Begun, Ended, Function, Object, Opening, Remote, Resuming, Value};

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
        is_given_up: AtomicBool::new(false),
        stop: Mutex::default(),
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

/// A peer that resumes, and the session with it, which waits for other channels.
struct Resumed {
    peer: Link,
    handle: Connection,
    far: UnixStream,
    /// What it has heard of the channel and not taken yet, behind the preamble.
    heard: Vec<u8>,
    has_preamble: bool,
    server: Started,
}

impl Resumed {
    fn start(directory: Directory) -> Self {
        let resuming = Resuming::within(Duration::from_secs(60));
        let options = Options { resume: Some(resuming.clone()), ..Options::default() };
        let peer = Link::new(Directory::new(), &options, Arc::new(Idle));
        let connection = peer.connection();
        let (near, mut far) = channel();
        far.write_all(&[&PREAMBLE, &said(&peer)[..]].concat()).expect("written");
        let ends = Ends::fds(near.try_clone().expect("a clone"), near).expect("ends");
        let server = start(ends, Next::Accept(resuming), directory, options).expect("it begins");
        let mut this = Self { peer, handle: connection, far, heard: Vec::new(), has_preamble: false, server };
        this.hear(|peer| peer.is_ready());
        this
    }

    /// The peer comes over another channel, and keeps its end of the one before.
    fn come_again(&mut self) -> UnixStream {
        assert!(self.peer.park());
        self.peer.resume();
        let resume = [&PREAMBLE, &said(&self.peer)[..]].concat();
        let Some(Begun::Resume { resume, behind, .. }) = Opening::default().take(&resume) else {
            panic!("an attempt to resume")
        };
        let (near, far) = channel();
        let ends = Ends::fds(near.try_clone().expect("a clone"), near).expect("ends").behind(behind);
        self.server.pipe.hand_over(Arrived { resume, ends });
        self.heard.clear();
        self.has_preamble = false;
        mem::replace(&mut self.far, far)
    }

    /// The peer hears what comes until that is so.
    fn hear(&mut self, is_so: impl Fn(&Link) -> bool) {
        let mut buffer = vec![0; 64 * 1024];
        while !is_so(&self.peer) {
            let count = self.far.read(&mut buffer).expect("the session speaks");
            assert_ne!(count, 0, "the channel goes on");
            self.heard.extend(&buffer[..count]);
            if !self.has_preamble && self.heard.len() >= PREAMBLE.len() {
                assert_eq!(self.heard.drain(..PREAMBLE.len()).as_slice(), PREAMBLE);
                self.has_preamble = true;
            }
            if self.has_preamble {
                let used = self.peer.receive(&self.heard).used;
                self.heard.drain(..used);
            }
        }
    }
}

/// Nothing takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

fn channel() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().expect("a socket pair");
    far.set_read_timeout(Some(PATIENCE)).expect("a limit");
    (near, far)
}

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it does not happen");
        thread::yield_now();
    }
}

/// Whoever hands a channel over ends the one before, and never the one that it has brought.
#[test]
fn a_channel_is_not_ended_in_place_of_the_one_before() {
    let mut session = Resumed::start(echo());
    for _ in 0..300 {
        session.far.shutdown(std::net::Shutdown::Write).expect("the end");
        // The reader waits for it.
        until(|| session.server.link.is_parked());
        session.come_again();
        session.hear(|peer| peer.is_up());
    }
    assert!(!session.server.link.is_parked());
}

/// A result that the channel does not take any more keeps nobody from going on over the next one, and comes there, whole.
#[test]
fn a_writer_that_waits_does_not_hold_the_session_up() {
    let length = 2 << 20;
    let large = Function::inline(move |_| Ok(Value::Bytes(vec![7; length])));
    let mut session = Resumed::start(Directory::new().with("large", "two mebibytes", large));
    let call = session.handle.root().start("large", ()).expect("a call");
    session.far.write_all(&said(&session.peer)).expect("written");
    let pipe = session.server.pipe.clone();
    until(|| pipe.output.try_lock().is_err() && session.server.link.memory() > length);
    let mut before = session.come_again();
    session.hear(|peer| peer.is_up());
    let call = farref_host::Promise::from(call);
    session.hear(|_| call.outcome().is_some());
    assert_eq!(call.outcome(), Some(Ok(Value::Bytes(vec![7; length]))));
    // Nobody has it any more.
    io::copy(&mut before, &mut io::sink()).expect("it ends");
}

/// The same if it is the channel that ends, in one direction: the peer sees that it has ended in the other.
#[test]
fn a_channel_that_ends_while_a_writer_waits_is_closed() {
    let large = Function::inline(|_| Ok(Value::Bytes(vec![7; 2 << 20])));
    let mut session = Resumed::start(Directory::new().with("large", "two mebibytes", large));
    let _call = session.handle.root().start("large", ()).expect("a call");
    session.far.write_all(&said(&session.peer)).expect("written");
    let pipe = session.server.pipe.clone();
    until(|| pipe.output.try_lock().is_err());
    session.far.shutdown(std::net::Shutdown::Write).expect("the end");
    until(|| session.server.link.is_parked());
    io::copy(&mut session.far, &mut io::sink()).expect("it ends");
}
