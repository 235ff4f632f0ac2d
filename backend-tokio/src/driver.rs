//! The task that carries the bytes of one connection, both ways.
//!
//! Whoever has output for it wakes it; until it runs, more comes together, and goes out in one system call.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use farref_core::frame::{PREAMBLE, PreambleScanner, Scan};
use farref_core::message::{CloseCode, Resume};
use farref_host::{Charge, Driver, Error, KeyFailure, KeyRefusal, Link, Options, Received, Threads, Work};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep, sleep_until};

use crate::connect::{Patience, fault};

/// How work of a session is done, and who is woken for its output.
pub(crate) struct Tasks {
    pub waker: AtomicWaker,
    over: Arc<Over>,
    /// Another connection wants to go on with the session.
    is_wanted: AtomicBool,
    handover: Mutex<Option<Handover>>,
    runtime: Handle,
    threads: Arc<Threads>,
    /// When the session is to be told the time, for the task to take.
    look: Mutex<Option<Instant>>,
    has_look: AtomicBool,
}

impl Tasks {
    pub fn new(threads: Arc<Threads>) -> Arc<Self> {
        Arc::new(Self {
            waker: AtomicWaker::new(),
            over: Arc::default(),
            is_wanted: AtomicBool::new(false),
            handover: Mutex::default(),
            runtime: Handle::current(),
            threads,
            look: Mutex::default(),
            has_look: AtomicBool::new(false),
        })
    }

    fn take_look(&self) -> Option<Instant> {
        match self.has_look.swap(false, Ordering::Acquire) {
            true => self.look.lock().unwrap_or_else(PoisonError::into_inner).take(),
            false => None,
        }
    }

    /// Until the session is over.
    pub async fn over(&self) {
        self.over.wait().await;
    }

    /// Another connection wants to go on with the session: whoever carries its bytes is to take it.
    pub fn hand_over(&self, new: Handover) {
        let old = {
            let mut handover = self.handover.lock().unwrap_or_else(PoisonError::into_inner);
            match &*handover {
                // LNK-5
                Some(old) if old.resume.attempt >= new.resume.attempt => Some(new),
                _ => handover.replace(new),
            }
        };
        drop(old);
        self.is_wanted.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// The connection that the session goes on over, if there is one.
    fn take_over(&self, link: &Link) -> Option<Box<dyn Stream>> {
        if !self.is_wanted.load(Ordering::Acquire) {
            return None;
        }
        self.is_wanted.store(false, Ordering::Release);
        let handover = self.handover.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        match link.accept(&handover.resume) {
            Ok(()) => {
                tracing::info!(attempt = handover.resume.attempt, "goes on over another connection");
                Some(handover.stream)
            }
            Err(refused) => {
                tracing::debug!(?refused, "does not go on over another connection");
                None
            }
        }
    }
}

/// A connection that began with a [`Resume`], which has been read.
pub(crate) struct Handover {
    pub resume: Resume,
    pub stream: Box<dyn Stream>,
}

impl Driver for Tasks {
    fn output(&self) {
        self.waker.wake();
    }

    fn wake_at(&self, at: Instant) {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        *look = Some(look.map_or(at, |sooner| sooner.min(at)));
        self.has_look.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn ended(&self) {
        self.over.tell();
    }

    fn run(&self, work: Work) -> Result<(), Work> {
        match work.into_task() {
            Ok(task) => {
                let over = self.over.clone();
                drop(self.runtime.spawn(async move {
                    tokio::select! {
                        biased;
                        () = task => {}
                        () = over.wait() => {}
                    }
                }));
                Ok(())
            }
            Err(work) => self.threads.run(work),
        }
    }
}

/// Ends the tasks of a session when it is over: nobody hears what they would answer, and a peer that comes and goes must not
/// leave more and more of them behind.
#[derive(Default)]
struct Over {
    is_so: AtomicBool,
    became_so: Notify,
}

impl Over {
    fn tell(&self) {
        self.is_so.store(true, Ordering::SeqCst);
        self.became_so.notify_waiters();
    }

    async fn wait(&self) {
        let mut became_so = pin!(self.became_so.notified());
        became_so.as_mut().enable();
        if !self.is_so.load(Ordering::SeqCst) {
            became_so.await;
        }
    }
}

/// A stream that sessions go over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Bytes that a read buffer has at first, and goes back to when long messages have become rare.
const BUFFER: usize = 8 * 1024;
/// Buffers above this are given up after so many uses that needed less.
const LARGE: usize = 256 * 1024;
const RARE: u32 = 64;
/// Reads in a row before other tasks get their turn.
pub(crate) const READS: usize = 16;
/// How long the last output may take, and how long a peer that was told that it is over may take to hang up.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// Carries the bytes until the session is over and everything that could be written is.
pub(crate) struct Carrier<S> {
    stream: S,
    link: Link,
    tasks: Arc<Tasks>,
    input: Input,
    output: Output,
    /// When a peer that owes an answer, or a connection that is about to end, is given up.
    handshake: Option<Pin<Box<Sleep>>>,
    patience: Patience,
    stall: Stall,
    clock: Clock,
    /// Nothing is written any more.
    is_mute: bool,
}

impl<S: Stream> Carrier<S> {
    pub fn new(stream: S, link: Link, tasks: Arc<Tasks>, options: &Options, patience: Patience) -> Self {
        // A peer that has resumed its session owes no answer.
        let is_up = link.is_up();
        let clock = Clock::new(&link);
        Self {
            stream,
            link,
            tasks,
            input: Input::new(options.memory.charge()),
            output: Output { buffer: PREAMBLE.to_vec(), left: 0..PREAMBLE.len(), ..Output::default() },
            handshake: patience.end().filter(|_| !is_up).map(|end| Box::pin(sleep_until(end))),
            patience,
            stall: Stall { limit: options.stall, until: None },
            clock,
            is_mute: false,
        }
    }

    /// Until the session is over, or goes on without this connection.
    pub async fn run(mut self) -> After {
        if let Some(stream) = poll_fn(|cx| self.poll(cx)).await {
            return After::Taken(stream);
        }
        if self.link.park() {
            return After::Parked;
        }
        self.link.end();
        // What the session still says, a Close above all, goes out; but not for ever.
        let last = async {
            poll_fn(|cx| self.poll_last(cx)).await?;
            read_to_end(&mut self.stream).await
        };
        let _ = tokio::time::timeout(LINGER, last).await;
        After::Over
    }

    /// Ready when the session or the connection is over, or with the connection that takes the place of this one.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<dyn Stream>>> {
        self.tasks.waker.register(cx.waker());
        // LNK-4: from here on nothing of this connection is read.
        if let Some(stream) = self.tasks.take_over(&self.link) {
            return Poll::Ready(Some(stream));
        }
        if let Some(handshake) = &mut self.handshake
            && handshake.as_mut().poll(cx).is_ready()
        {
            tracing::debug!("no answer in time");
            self.fail(|patience| patience.error());
            return Poll::Ready(None);
        }
        if self.poll_time(cx) || self.poll_output(cx).is_ready() {
            return Poll::Ready(None);
        }
        let mut is_quiet = true;
        for _ in 0..READS {
            match self.input.poll_read(&mut self.stream, &self.link, cx) {
                Poll::Ready(Ok(heard)) => {
                    if self.handshake.is_some() && !self.is_mute && self.link.is_up() {
                        self.handshake = None;
                    }
                    match heard {
                        Heard::Some(farref_host::Output::None) => {}
                        Heard::Some(farref_host::Output::Later) => is_quiet = false,
                        Heard::Some(farref_host::Output::Now) => {
                            if self.poll_output(cx).is_ready() {
                                return Poll::Ready(None);
                            }
                        }
                        Heard::NoPeer => {
                            self.fail(|_| Error::NoPeer);
                            return Poll::Ready(None);
                        }
                        Heard::KeyWanted => {
                            self.fail(|_| Error::Key(KeyFailure::Refused(KeyRefusal::KeyWanted)));
                            return Poll::Ready(None);
                        }
                        Heard::NoMemory => {
                            tracing::warn!("no memory for what is received");
                            self.link.close(CloseCode::OutOfResources);
                            return Poll::Ready(None);
                        }
                        Heard::Over => return Poll::Ready(None),
                    }
                }
                Poll::Ready(Err(error)) => {
                    // A server tells only now that it refuses a client's certificate, when for the client all went well.
                    if let Some(fault) = fault(&error) {
                        self.fail(|_| fault);
                    }
                    return Poll::Ready(None);
                }
                // What can wait for more output does so until those had their turn who may have some.
                Poll::Pending if is_quiet => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        // Tasks and the runtime's root have their turn, and then this.
        let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// Why there is no session, or it does not go on over this connection.
    fn fail(&self, error: impl FnOnce(Patience) -> Error) {
        match self.link.is_ready() {
            false => self.link.fail(error(self.patience)),
            true => self.link.attempt_failed(error(self.patience)),
        }
    }

    /// Tells the session the time when that is due. True if the session has given the connection up.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        self.clock.poll(&self.link, &self.tasks, cx) && self.link.is_parked()
    }

    /// Writes what can be written; ready if the session or the connection is over.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_stalled = match self.poll_write(cx) {
            Poll::Ready(Ok(Written::All)) => false,
            Poll::Ready(Ok(Written::Over)) => return Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "cannot write");
                // What was received before is still served.
                self.is_mute = true;
                match self.link.token() {
                    None => self.link.deafen(),
                    // What was not written is kept. The peer may have said why it hangs up.
                    Some(_) => self.handshake = Some(Box::pin(sleep(LINGER))),
                }
                false
            }
            Poll::Pending => true,
        };
        if self.stall.is_over(cx, is_stalled) {
            tracing::debug!("the peer reads nothing");
            if self.link.token().is_none() {
                self.is_mute = true;
                self.link.close(CloseCode::OutOfResources);
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Written>> {
        if self.is_mute {
            return Poll::Ready(Ok(Written::All));
        }
        self.output.poll_write(&mut self.stream, &self.link, &mut self.stall, cx)
    }

    /// Writes what is left and says that there is no more.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tasks.waker.register(cx.waker());
        ready!(self.poll_write(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// After the last that was written: bytes of the peer that nobody reads would make the kernel take it back.
async fn read_to_end(stream: &mut impl Stream) -> io::Result<()> {
    let mut scrap = [0; 1024];
    for _ in 0..64 {
        if stream.read(&mut scrap).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// Ends a stream on which the last was said.
pub(crate) async fn hang_up(mut stream: impl Stream) {
    let last = async {
        stream.shutdown().await?;
        read_to_end(&mut stream).await
    };
    let _ = tokio::time::timeout(LINGER, last).await;
}

/// What becomes of a session when its connection is over.
pub(crate) enum After {
    /// It is over.
    Over,
    /// It has no connection.
    Parked,
    /// It goes on over this one.
    Taken(Box<dyn Stream>),
}

/// Waits for a connection that takes the place of one that was lost; None if none comes in time, or the session is over.
pub(crate) async fn wait_parked(link: &Link, tasks: &Tasks, park: Duration) -> Option<Box<dyn Stream>> {
    let mut time = pin!(sleep(park));
    let mut clock = Clock::new(link);
    poll_fn(|cx| {
        tasks.waker.register(cx.waker());
        clock.poll(link, tasks, cx);
        match tasks.take_over(link) {
            Some(stream) => Poll::Ready(Some(stream)),
            None if link.is_over() => Poll::Ready(None),
            None => time.as_mut().poll(cx).map(|()| None),
        }
    })
    .await
}

/// Tells a session that has no connection the time, for as long as that is polled: deadlines pass all the same.
pub(crate) async fn keep_time(link: &Link, tasks: &Tasks) -> Infallible {
    let mut clock = Clock::new(link);
    poll_fn(|cx| {
        tasks.waker.register(cx.waker());
        clock.poll(link, tasks, cx);
        Poll::Pending
    })
    .await
}

/// Tells a session the time, when it has asked for that.
pub(crate) struct Clock {
    next: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    /// What it has asked for before was for another task, or for a connection that is no more: it is told, and asks again.
    pub fn new(link: &Link) -> Self {
        let mut clock = Self { next: None };
        clock.set(link.advance(tokio::time::Instant::now().into_std()));
        clock
    }

    fn set(&mut self, at: Option<Instant>) {
        if let Some(at) = at
            && self.next.as_ref().is_none_or(|next| at < next.deadline().into_std())
        {
            self.next = Some(Box::pin(sleep_until(at.into())));
        }
    }

    /// Whether it was told.
    pub fn poll(&mut self, link: &Link, tasks: &Tasks, cx: &mut Context<'_>) -> bool {
        let mut was_told = false;
        loop {
            self.set(tasks.take_look());
            let is_due = self.next.as_mut().is_some_and(|next| next.as_mut().poll(cx).is_ready());
            if !is_due {
                return was_told;
            }
            self.next = None;
            self.set(link.advance(tokio::time::Instant::now().into_std()));
            was_told = true;
        }
    }
}

/// A task that ends, or is dropped with its runtime, ends its session.
pub(crate) struct OnDrop(pub Link);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.end();
        self.0.deafen();
    }
}

/// What was received and is no whole record yet.
struct Input {
    buffer: Vec<u8>,
    memory: Charge,
    filled: Range<usize>,
    wanted: usize,
    scanner: Option<PreambleScanner>,
    spare: Spare,
}

enum Heard {
    /// Something, because of which this may have to be sent.
    Some(farref_host::Output),
    Over,
    NoPeer,
    KeyWanted,
    NoMemory,
}

impl Input {
    fn new(memory: Charge) -> Self {
        let scanner = Some(PreambleScanner::default());
        Self { buffer: Vec::new(), memory, filled: 0..0, wanted: 1, scanner, spare: Spare::default() }
    }

    fn poll_read<S: Stream>(&mut self, stream: &mut S, link: &Link, cx: &mut Context<'_>) -> Poll<io::Result<Heard>> {
        if !self.make_room() {
            return Poll::Ready(Ok(Heard::NoMemory));
        }
        let mut free = ReadBuf::new(&mut self.buffer[self.filled.end..]);
        ready!(Pin::new(stream).poll_read(cx, &mut free))?;
        let count = free.filled().len();
        if count == 0 {
            return Poll::Ready(Ok(if self.scanner.is_some() { Heard::NoPeer } else { Heard::Over }));
        }
        self.filled.end += count;
        self.spare.holds(self.filled.len(), self.buffer.len());
        link.count_read();
        if let Some(scanner) = &mut self.scanner {
            match scanner.scan(&self.buffer[self.filled.clone()]) {
                Scan::Found(at) => self.filled.start += at,
                Scan::Searching => {
                    self.filled = 0..0;
                    return Poll::Ready(Ok(Heard::Some(farref_host::Output::None)));
                }
                // KEY-2: it has a key, and this side has none.
                Scan::NoPeer if scanner.wants_key() => return Poll::Ready(Ok(Heard::KeyWanted)),
                Scan::NoPeer => return Poll::Ready(Ok(Heard::NoPeer)),
            }
            self.scanner = None;
        }
        let received = link.receive(&self.buffer[self.filled.clone()]);
        self.filled.start += received.used;
        self.wanted = received.wanted;
        Poll::Ready(Ok(match received {
            Received { is_over: true, .. } => Heard::Over,
            Received { output, .. } => Heard::Some(output),
        }))
    }

    /// Makes room for what is wanted, and for more if there is; false if there is no memory for it.
    fn make_room(&mut self) -> bool {
        if self.filled.is_empty() {
            // What it was last needed for counts, not that it is empty.
            if self.filled.end > 0 && self.spare.is_too_large(self.buffer.len(), self.filled.end) {
                self.buffer = Vec::new();
            }
            self.filled = 0..0;
        } else if self.filled.start > 0 && self.filled.start + self.wanted > self.buffer.len() {
            self.buffer.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
        // The length of a record is only a claim until it is there: what is made room for is twice what came.
        let wanted = self.wanted.min((2 * self.filled.len()).max(8 * BUFFER));
        // A peer that fills the buffer has more to say: up to a size where a system call costs little beside its bytes.
        let more = if self.filled.end == self.buffer.len() { (2 * self.buffer.len()).min(8 * BUFFER) } else { 0 };
        let length = wanted.max(more).max(self.filled.end + 1).max(BUFFER);
        if length > self.buffer.len() {
            if !self.memory.set(length) {
                return false;
            }
            self.buffer.reserve_exact(length - self.buffer.len());
            self.buffer.resize(length, 0);
        }
        true
    }
}

/// What was taken from the session and is not written yet.
#[derive(Default)]
struct Output {
    buffer: Vec<u8>,
    left: Range<usize>,
    /// Streams with a buffer of their own, TLS above all, are still to be told that this is all for now.
    is_unflushed: bool,
    spare: Spare,
}

enum Written {
    All,
    Over,
}

impl Output {
    fn poll_write<S: Stream>(
        &mut self,
        stream: &mut S,
        link: &Link,
        stall: &mut Stall,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Written>> {
        // What is left from before says nothing about what came since.
        let mut more = true;
        loop {
            if self.left.is_empty() && more {
                if self.left.end > 0 && self.spare.is_too_large(self.buffer.len(), self.left.end) {
                    self.buffer = Vec::new();
                }
                let Some(taken) = link.take_output(&mut self.buffer) else { return Poll::Ready(Ok(Written::Over)) };
                (self.left, more) = (taken.bytes, taken.more);
            }
            if self.left.is_empty() {
                if self.is_unflushed {
                    ready!(Pin::new(stream).poll_flush(cx))?;
                    self.is_unflushed = false;
                }
                return Poll::Ready(Ok(Written::All));
            }
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, &self.buffer[self.left.clone()]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_unflushed = true;
            link.count_write();
            stall.until = None;
            self.left.start += count;
        }
    }
}

/// Since when nothing could be written.
struct Stall {
    limit: Duration,
    until: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn is_over(&mut self, cx: &mut Context<'_>, is_stalled: bool) -> bool {
        if !is_stalled {
            self.until = None;
            return false;
        }
        if self.limit == Duration::MAX {
            return false;
        }
        self.until.get_or_insert_with(|| Box::pin(sleep(self.limit))).as_mut().poll(cx).is_ready()
    }
}

/// Whether a buffer that grew for a long message is still worth its memory.
#[derive(Default)]
struct Spare(u32);

impl Spare {
    fn is_too_large(&mut self, length: usize, needed: usize) -> bool {
        self.holds(needed, length);
        if length > LARGE && needed <= length / 4 {
            self.0 += 1;
        }
        self.0 > RARE
    }

    /// A long message that needs the buffer is no rare one.
    fn holds(&mut self, needed: usize, length: usize) {
        if length <= LARGE || needed > length / 4 {
            self.0 = 0;
        }
    }
}

#[cfg(test)]
mod tests;
