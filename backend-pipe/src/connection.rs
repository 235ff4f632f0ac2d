//! One session over a byte pipe: a thread that reads, a thread that writes when nobody else can, and threads that serve.
//!
//! Whoever makes a call writes it, and may read its answer, so that nobody need be woken. Who receives never waits for the pipe
//! to take something: reading goes on whatever the other direction does (ADM-1).

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan};
use farref_host::{
    Connection, Directory, Driver, Error, KeyFailure, KeyRefusal, Link, Options, Received, Threads, WeakLink, Work,
};

use crate::again::{Arrived, Mailbox, Next};
#[cfg(unix)]
use crate::unix::{Interrupt, Stop, TryWrite};

/// Starts a session over a pair of byte streams and waits for the peer's Hello, at most as long as
/// [`Options::handshake`] says. `directory` is what the peer finds; its calls may come before this returns.
///
/// Two threads carry the bytes; more serve the peer's calls. `write` is dropped when the session is over and all output
/// is written, `read` when it ends: a peer that went silent keeps the reading thread until its end of the stream closes.
///
/// # Errors
/// [`Error::NoPeer`] if no preamble comes, [`Error::Ended`] if the session ends before it began, [`Error::Io`] with
/// [`ErrorKind::TimedOut`] if the time is up.
pub fn open(
    read: impl Read + Send + 'static,
    write: impl Write + Send + 'static,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let options = Options { resume: None, ..options };
    start(Ends::any(read, write), Next::None, directory, options).map(|started| started.connection)
}

/// As [`open`], for pipes and sockets of the operating system, for which can be told what can be read and written without
/// waiting: a call then wakes no other thread, on neither side.
#[cfg(unix)]
pub fn open_fds(
    read: impl Into<std::os::fd::OwnedFd>,
    write: impl Into<std::os::fd::OwnedFd>,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let options = Options { resume: None, ..options };
    start(Ends::fds(read, write)?, Next::None, directory, options).map(|started| started.connection)
}

/// The two ends of a channel that are ours.
pub(crate) struct Ends {
    source: Source,
    sink: Sink,
    interrupt: Option<Interrupt>,
    /// What was read before.
    first: Vec<u8>,
}

impl Ends {
    pub fn any(read: impl Read + Send + 'static, write: impl Write + Send + 'static) -> Self {
        let (source, sink) = (Source::Any(Box::new(read)), Sink::Any(Box::new(write)));
        Self { source, sink, interrupt: None, first: Vec::new() }
    }

    #[cfg(unix)]
    pub fn fds(read: impl Into<std::os::fd::OwnedFd>, write: impl Into<std::os::fd::OwnedFd>) -> io::Result<Self> {
        let (read, write) = (std::fs::File::from(read.into()), std::fs::File::from(write.into()));
        let interrupt = Interrupt::of(&read)?;
        let source = if interrupt.is_some() { Source::Shared(read) } else { Source::Any(Box::new(read)) };
        let sink = TryWrite::new(write).map_or_else(Sink::Any, Sink::Try);
        Ok(Self { source, sink, interrupt, first: Vec::new() })
    }

    /// These bytes were read before.
    pub fn behind(self, first: Vec<u8>) -> Self {
        Self { first, ..self }
    }
}

/// A session that has begun.
pub(crate) struct Started {
    pub connection: Connection,
    pub link: Link,
    pub pipe: Arc<Pipe>,
}

/// Starts a session; `next` is what it goes on over when the channel is lost.
pub(crate) fn start(ends: Ends, next: Next, directory: Directory, options: Options) -> Result<Started, Error> {
    if options.key.is_some() {
        let why = "a key cannot be checked over pipes yet";
        return Err(Error::Io(ErrorKind::Unsupported, why.into()));
    }
    let handshake = options.handshake;
    let Ends { source, mut sink, interrupt, first } = ends;
    let stop = if matches!(next, Next::None) { None } else { sink.stop()? };
    let pipe = Arc::new(Pipe {
        output: Mutex::new(Output::new(sink)),
        is_given_up: AtomicBool::new(false),
        stop: Mutex::new(stop),
        input: Mutex::new(Input::new(source, first)),
        readers: Readers::default(),
        interrupt: Mutex::new(interrupt),
        bell: Bell::default(),
        mailbox: Mailbox::default(),
        hang_up: Mutex::new(next.hang_up()),
        threads: Threads::new(options.serving.into()),
        timer: Timer::default(),
    });
    let link = Link::new(directory, &options, pipe.clone());
    let _ = pipe.timer.link.set(link.downgrade());
    let _ = pipe.timer.pipe.set(Arc::downgrade(&pipe));
    let (writer, of_writer) = (link.clone(), pipe.clone());
    thread::Builder::new().name("farref-write".into()).spawn(move || of_writer.write_all(&writer))?;
    let (reader, of_reader) = (link.clone(), pipe.clone());
    thread::Builder::new().name("farref-read".into()).spawn(move || of_reader.read_all(&reader, next))?;
    pipe.bell.ring();
    let connection = link.connection();
    connection.wait_ready(handshake)?;
    Ok(Started { connection, link, pipe })
}

/// What the threads of a session share, but for the session.
pub(crate) struct Pipe {
    output: Mutex<Output>,
    /// The channel is over for output too: whoever writes is to let it go.
    is_given_up: AtomicBool,
    /// Ends waiting for the channel to take something.
    stop: Mutex<Option<Stop>>,
    input: Mutex<Input>,
    readers: Readers,
    /// Ends waiting for input, as long as there is any. Behind this lock the channel is the one that it is of.
    interrupt: Mutex<Option<Interrupt>>,
    /// Rung when there may be output that nobody else writes.
    bell: Bell,
    /// For channels that the session is to go on over.
    pub mailbox: Mailbox,
    hang_up: Mutex<Option<Box<dyn Fn() + Send>>>,
    threads: Threads,
    timer: Timer,
}

thread_local! {
    /// Whether this thread receives for a session, and so must not wait for a pipe.
    static RECEIVES: Cell<bool> = const { Cell::new(false) };
}

impl Driver for Pipe {
    fn output(&self) {
        self.bell.ring();
    }

    fn flush(&self, link: &Link) {
        let may_wait = !RECEIVES.get();
        let Ok(mut output) = self.output.try_lock() else {
            // Somebody writes, and may have looked for output before this came.
            return self.bell.ring();
        };
        // What is written to may be a closure of the user's.
        let written = catch_unwind(AssertUnwindSafe(|| self.write(&mut output, link, may_wait)));
        match written {
            Ok(Ok(Written::All)) => {}
            // The thread that writes goes on, or ends.
            Ok(Ok(Written::Some | Written::Over)) => self.bell.ring(),
            Ok(Err(_)) | Err(_) => {
                output.sink = None;
                drop(output);
                // What was not written is kept if the session can go on over another channel.
                if link.token().is_none() {
                    link.deafen();
                }
            }
        }
    }

    fn run(&self, work: Work) -> Result<(), Work> {
        self.threads.run(work)
    }

    /// Receives, if nobody else does and the input can be shared.
    fn wait(&self, link: &Link, is_over: &mut dyn FnMut() -> bool) {
        // Who receives cannot be told that its time is over, unless something comes.
        if self.timer.is_set.load(Ordering::Relaxed) {
            thread::park();
            return self.readers.pass_on();
        }
        self.readers.waited.fetch_add(1, Ordering::Relaxed);
        if !self.receive_until(link, is_over) {
            // The input may have become free meanwhile; from now on whoever gives it up sees this thread.
            self.readers.enter();
            if !self.receive_until(link, is_over) && !is_over() {
                thread::park();
            }
            self.readers.leave();
        }
        self.readers.pass_on();
    }

    fn wake_at(&self, at: Instant) {
        self.timer.set(at);
    }

    fn ended(&self) {
        self.timer.end();
        self.end_reading();
        self.mailbox.wake();
    }
}

impl Pipe {
    fn write_all(&self, link: &Link) {
        // Also if the writer panics: it may be a closure of the user's.
        let _over = OnDrop(|| {
            lock(&self.output).sink = None;
            link.deafen();
        });
        loop {
            let written = self.write(&mut lock(&self.output), link, true);
            match written {
                Ok(Written::All | Written::Some) => self.bell.wait(),
                Err(_) if link.token().is_some() && !link.is_over() => self.bell.wait(),
                Ok(Written::Over) | Err(_) => return,
            }
        }
    }

    /// Writes; a channel that takes no more is let go.
    fn write(&self, output: &mut Output, link: &Link, may_wait: bool) -> io::Result<Written> {
        if self.is_given_up.load(Ordering::SeqCst) {
            output.sink = None;
        }
        let written = output.write(link, may_wait);
        if written.is_err() {
            // As long as the lock is held: another channel may come as soon as it is not.
            output.sink = None;
        }
        written
    }

    /// Receives until what is waited for is there; false if somebody else does, or the input cannot be shared.
    fn receive_until(&self, link: &Link, is_over: &mut dyn FnMut() -> bool) -> bool {
        let Ok(mut input) = self.input.try_lock() else { return false };
        if !input.source.can_be_shared() || input.is_over {
            return false;
        }
        self.readers.received.fetch_add(1, Ordering::Relaxed);
        // It may have come just before the lock was taken; and what comes may be for others.
        while !is_over() && !input.is_over {
            self.receive(link, &mut input);
        }
        true
    }

    /// Whoever reads finds that this is to end.
    fn end_reading(&self) {
        if let Some(interrupt) = &*lock(&self.interrupt) {
            interrupt.end();
        }
    }

    /// The peer is silent: the channel is over, whatever it may still bring.
    fn give_up(&self, link: &Link) {
        let interrupt = lock(&self.interrupt);
        // If its end was found meanwhile, the channel may be another one.
        if !link.fell_silent() {
            return;
        }
        self.mailbox.set_lost(true);
        if let Some(interrupt) = &*interrupt {
            interrupt.end();
        }
        if let Some(hang_up) = &*lock(&self.hang_up) {
            hang_up();
        }
    }

    /// Another channel has come, to go on over: see [`Next::Accept`].
    pub fn hand_over(&self, arrived: Arrived) {
        // Whoever takes it waits for this lock: what is ended is the one before.
        let interrupt = lock(&self.interrupt);
        self.mailbox.put(arrived);
        if let Some(interrupt) = &*interrupt {
            interrupt.end();
        }
    }

    /// The channel is over: its ends are closed, so that the other side sees it, too.
    pub fn let_go(&self) {
        lock(&self.input).source = Source::Over;
        *lock(&self.interrupt) = None;
        self.is_given_up.store(true, Ordering::SeqCst);
        *lock(&self.stop) = None;
        match self.output.try_lock() {
            Ok(mut output) => output.sink = None,
            // Whoever writes is stopped, or finds that nobody reads; the thread that writes does the rest.
            Err(_) => self.bell.ring(),
        }
    }

    /// From here on the session uses other ends. Nobody uses the ones before any more: who reads has found their end, and
    /// who writes gives them up.
    pub fn change(&self, ends: Ends, link: &Link, change: impl FnOnce() -> bool) -> io::Result<bool> {
        let Ends { source, mut sink, interrupt, first } = ends;
        let stop = sink.stop()?;
        let mut output = lock(&self.output);
        let mut input = lock(&self.input);
        if !change() {
            return Ok(false);
        }
        *output = Output::new(sink);
        *input = Input::new(source, first);
        self.is_given_up.store(false, Ordering::SeqCst);
        *lock(&self.stop) = stop;
        let mut current = lock(&self.interrupt);
        *current = interrupt;
        self.mailbox.set_lost(false);
        drop((input, output));
        // The session may have ended, or another channel come, before there was anything to interrupt.
        if (link.is_over() || self.mailbox.ends_this())
            && let Some(interrupt) = &*current
        {
            interrupt.end();
        }
        drop(current);
        self.bell.ring();
        Ok(true)
    }

    fn read_all(&self, link: &Link, mut next: Next) {
        // Also if the reader panics: it may be a closure of the user's.
        let over = OnDrop(|| {
            lock(&self.input).source = Source::Over;
            *lock(&self.interrupt) = None;
            link.end();
        });
        loop {
            self.read(link);
            if !next.find(self, link) {
                break;
            }
        }
        self.mailbox.wake();
        drop(over);
    }

    /// Until the session or the channel is over.
    fn read(&self, link: &Link) {
        let mut input = lock(&self.input);
        let mut streak = 0;
        while !input.is_over {
            let waited = self.readers.waited();
            self.receive(link, &mut input);
            streak = if self.readers.waited() == waited { 0 } else { streak + 1 };
            if streak >= STREAK && input.source.can_be_shared() {
                drop(input);
                self.readers.lend();
                input = lock(&self.input);
                streak = 0;
            }
        }
        if let Some(scanner) = &input.scanner
            && !link.is_ready()
        {
            // KEY-2: it has a key, and this side has none.
            let key_wanted = Error::Key(KeyFailure::Refused(KeyRefusal::KeyWanted));
            link.fail(if scanner.wants_key() { key_wanted } else { Error::NoPeer });
        }
    }

    /// Waits for input and takes it.
    fn receive(&self, link: &Link, input: &mut Input) {
        let before = RECEIVES.replace(true);
        let _after = OnDrop(|| RECEIVES.set(before));
        // Should code of users panic in there, what was received must not be taken a second time.
        input.is_over = true;
        let received = input.read(link, &self.mailbox);
        input.is_over = received.is_none();
        match received {
            Some(Received { output: farref_host::Output::None, .. }) => {}
            // It goes out with what comes next, or when the thread that writes gets its turn.
            Some(Received { output: farref_host::Output::Later, .. }) => self.bell.ring(),
            Some(_) => self.flush(link),
            None => {}
        }
    }
}

/// Threads that wait for a call, one of which may receive for all.
///
/// A thread receives that does nothing else. But when answers come one after the other for which somebody waits, it lends the
/// input to those: each then reads its own answer, and no thread need be woken. When nobody has read for a while, it takes the
/// input back.
#[derive(Default)]
struct Readers {
    waiting: Mutex<Vec<Thread>>,
    /// How often one of them began to wait, and has received.
    waited: AtomicU64,
    received: AtomicU64,
    is_lent: AtomicBool,
}

/// Answers in a row for which somebody waited, until the input is lent.
const STREAK: u32 = 8;
/// For how long it is lent when nobody reads: what the peer says of itself waits as long.
const LEASE: Duration = Duration::from_millis(1);

impl Readers {
    fn enter(&self) {
        lock(&self.waiting).push(thread::current());
    }

    fn leave(&self) {
        let own = thread::current().id();
        lock(&self.waiting).retain(|thread| thread.id() != own);
    }

    /// If the input is lent, another one is to receive.
    fn pass_on(&self) {
        if self.is_lent.load(Ordering::SeqCst)
            && let Some(next) = lock(&self.waiting).first()
        {
            next.unpark();
        }
    }

    /// How often somebody began to wait.
    fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// Until nobody receives any more.
    fn lend(&self) {
        self.is_lent.store(true, Ordering::SeqCst);
        if let Some(first) = lock(&self.waiting).first() {
            first.unpark();
        }
        let mut seen = self.received.load(Ordering::Relaxed);
        loop {
            thread::park_timeout(LEASE);
            let count = self.received.load(Ordering::Relaxed);
            if count == seen {
                break;
            }
            seen = count;
        }
        self.is_lent.store(false, Ordering::SeqCst);
    }
}

/// Tells the session the time, on a thread that there is from when it is first asked for.
#[derive(Default)]
struct Timer {
    state: Mutex<TimerState>,
    changed: Condvar,
    /// Whether it was asked for, and is due still.
    is_set: AtomicBool,
    link: OnceLock<WeakLink>,
    pipe: OnceLock<Weak<Pipe>>,
}

#[derive(Default)]
struct TimerState {
    at: Option<Instant>,
    is_running: bool,
    is_over: bool,
}

impl Timer {
    fn set(&self, at: Instant) {
        let mut state = lock(&self.state);
        if state.is_over {
            return;
        }
        // Who has asked for something sooner may come later.
        state.at = Some(state.at.map_or(at, |sooner| sooner.min(at)));
        self.is_set.store(true, Ordering::Relaxed);
        self.changed.notify_one();
        if !state.is_running
            && let Some(pipe) = self.pipe.get().and_then(Weak::upgrade)
        {
            let spawned = thread::Builder::new().name("farref-time".into()).spawn(move || pipe.timer.run(&pipe));
            state.is_running = spawned.is_ok();
        }
    }

    fn end(&self) {
        lock(&self.state).is_over = true;
        self.changed.notify_one();
    }

    fn run(&self, pipe: &Pipe) {
        let mut state = lock(&self.state);
        while !state.is_over {
            let now = Instant::now();
            match state.at {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) if at > now => {
                    let waited = self.changed.wait_timeout(state, at - now);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    state.at = None;
                    drop(state);
                    let Some(link) = self.link.get().and_then(WeakLink::upgrade) else { return };
                    let next = link.advance(Instant::now());
                    pipe.bell.ring();
                    if link.fell_silent() {
                        pipe.give_up(&link);
                    }
                    drop(link);
                    state = lock(&self.state);
                    // What was asked for meanwhile is as soon, or sooner.
                    state.at = state.at.or(next);
                    self.is_set.store(state.at.is_some(), Ordering::Relaxed);
                }
            }
        }
    }
}

/// Where input comes from, and what of it was read and is no whole record yet.
struct Input {
    source: Source,
    /// What comes before what it gives.
    first: Vec<u8>,
    scanner: Option<PreambleScanner>,
    buffer: Vec<u8>,
    filled: Range<usize>,
    wanted: usize,
    is_over: bool,
}

enum Source {
    Any(Box<dyn Read + Send>),
    /// Threads may take turns to read, since the session's end ends reading.
    #[cfg(unix)]
    Shared(std::fs::File),
    Over,
}

impl Input {
    fn new(source: Source, first: Vec<u8>) -> Self {
        let scanner = Some(PreambleScanner::default());
        Self { source, first, scanner, buffer: vec![0; 64 * 1024], filled: 0..0, wanted: 1, is_over: false }
    }

    /// Reads once and takes what is whole; None if the session or the stream is over, or another one takes its place.
    fn read(&mut self, link: &Link, mailbox: &Mailbox) -> Option<Received> {
        if self.filled.is_empty() {
            self.filled = 0..0;
        } else if self.filled.start + self.wanted > self.buffer.len() {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        if self.wanted > self.buffer.len() {
            self.buffer.resize(self.wanted, 0);
        }
        let count = loop {
            let free = &mut self.buffer[self.filled.end..];
            if !self.first.is_empty() {
                let count = self.first.len().min(free.len());
                free[..count].copy_from_slice(&self.first[..count]);
                self.first.drain(..count);
                break count;
            }
            match self.source.read(free) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return None,
                Ok(count) => break count,
            }
        };
        // LNK-4: what the one before still brings is thrown away, and so is what woke the reader.
        if mailbox.ends_this() {
            return None;
        }
        link.count_read();
        self.filled.end += count;
        if let Some(scanner) = &mut self.scanner {
            match scanner.scan(&self.buffer[self.filled.clone()]) {
                Scan::Found(at) => self.filled.start += at,
                Scan::Searching => self.filled = 0..0,
                Scan::NoPeer => return None,
            }
            if self.filled.end > 0 {
                self.scanner = None;
            }
        }
        let received = link.receive(&self.buffer[self.filled.clone()]);
        self.filled.start += received.used;
        self.wanted = received.wanted;
        (!received.is_over).then_some(received)
    }
}

impl Source {
    /// Whether several threads may take turns to read.
    fn can_be_shared(&self) -> bool {
        match self {
            Self::Any(_) | Self::Over => false,
            #[cfg(unix)]
            Self::Shared(_) => true,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Any(read) => read.read(buffer),
            #[cfg(unix)]
            // Without the detour that the C library takes in a process of several threads, since it might cancel one.
            Self::Shared(file) => Ok(rustix::io::read(file, buffer)?),
            Self::Over => Ok(0),
        }
    }
}

/// Where output goes, and what of it was taken from the session and not written yet.
struct Output {
    /// None when it is over.
    sink: Option<Sink>,
    buffer: Vec<u8>,
    left: Range<usize>,
}

enum Sink {
    Any(Box<dyn Write + Send>),
    #[cfg(unix)]
    Try(TryWrite),
}

/// How far writing came.
enum Written {
    All,
    Some,
    /// All, and there will be no more.
    Over,
}

impl Output {
    fn new(sink: Sink) -> Self {
        Self { sink: Some(sink), buffer: PREAMBLE.to_vec(), left: 0..PREAMBLE.len() }
    }

    /// Writes what there is, or what can be written without waiting.
    fn write(&mut self, link: &Link, may_wait: bool) -> io::Result<Written> {
        if self.sink.is_none() && link.token().is_some() && !link.is_over() {
            self.left = 0..0;
            return Ok(Written::All);
        }
        // What is left from before says nothing about what came since.
        let mut more = true;
        while more || !self.left.is_empty() {
            if self.left.is_empty() {
                let Some(taken) = link.take_output(&mut self.buffer) else { return Ok(Written::Over) };
                if taken.bytes.is_empty() {
                    return Ok(Written::All);
                }
                (self.left, more) = (taken.bytes, taken.more);
            }
            let Some(sink) = &mut self.sink else { return Ok(Written::Over) };
            let bytes = &self.buffer[self.left.clone()];
            link.count_write();
            if may_wait {
                sink.write_all(bytes)?;
                self.left.start = self.left.end;
            } else {
                let written = sink.try_write(bytes)?;
                self.left.start += written;
                if !self.left.is_empty() {
                    return Ok(Written::Some);
                }
            }
        }
        Ok(Written::All)
    }
}

impl Sink {
    /// What ends waiting in [`Self::write_all`] when it is dropped, where that can be ended.
    fn stop(&mut self) -> io::Result<Option<Stop>> {
        match self {
            Self::Any(_) => Ok(None),
            #[cfg(unix)]
            Self::Try(file) => file.stop().map(Some),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Any(write) => write.write_all(bytes).and_then(|()| write.flush()),
            #[cfg(unix)]
            Self::Try(file) => file.write_all(bytes),
        }
    }

    /// Writes what can be written without waiting.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Any(_) => Ok(0),
            #[cfg(unix)]
            Self::Try(file) => file.try_write(bytes),
        }
    }
}

/// There are none elsewhere.
#[cfg(not(unix))]
enum Interrupt {}
#[cfg(not(unix))]
enum Stop {}

#[cfg(not(unix))]
impl Interrupt {
    fn end(&self) {
        match *self {}
    }
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    fn ring(&self) {
        if !mem::replace(&mut *lock(&self.rung), true) {
            self.rings.notify_one();
        }
    }

    fn wait(&self) {
        let mut rung = lock(&self.rung);
        while !mem::take(&mut *rung) {
            rung = self.rings.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What a lock guards is sound whatever happened to who held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs at the end of a scope, however it is left.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(all(test, unix))]
mod tests;
