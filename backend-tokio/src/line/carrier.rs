//! What carries the frames of one session over a line, and opens the line again.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use farref_core::frame::serial::{CHECK, Decoder};
use farref_core::link::serial::SerialLink;
use farref_core::message::Hello;
use farref_host::{Charge, CloseCode, Directory, Error, Line, Link, Options, Resuming, Sent, Threads};
use tokio::io::ReadBuf;
use tokio::time::{Sleep, sleep, sleep_until};

use super::LineOptions;
use crate::connect::Patience;
use crate::driver::{Clock, LINGER, READS, Stream, Tasks};

/// A line, and how it is opened again.
pub(crate) struct Wire<S> {
    stream: Option<S>,
    open: Option<Open<S>>,
    /// How many bytes were handed over and have not left, for a stream that knows.
    unsent: fn(&S) -> Option<usize>,
}

type Open<S> = Box<dyn Fn() -> Opening<S> + Send + Sync>;
type Opening<S> = Pin<Box<dyn Future<Output = Result<S, Error>> + Send>>;

impl<S: Stream> Wire<S> {
    /// One that is there once.
    pub fn new(stream: S) -> Self {
        Self { stream: Some(stream), open: None, unsent: |_| None }
    }

    /// One that can be opened again and again.
    pub async fn open<F>(open: impl Fn() -> F + Send + Sync + 'static) -> Result<Self, Error>
    where
        F: Future<Output = Result<S, Error>> + Send + 'static,
    {
        let stream = open().await?;
        Ok(Self { stream: Some(stream), open: Some(Box::new(move || Box::pin(open()))), unsent: |_| None })
    }

    /// That knows how many bytes it has not sent.
    #[cfg(feature = "serial")]
    pub fn with_unsent(self, unsent: fn(&S) -> Option<usize>) -> Self {
        Self { unsent, ..self }
    }

    /// Whether there is nothing to carry anything.
    pub fn is_lost(&self) -> bool {
        self.stream.is_none()
    }

    /// Opens it again, if it can be; tries until it is there, or too often, and tells what goes wrong.
    pub async fn open_again(
        &mut self,
        resuming: &Resuming,
        begins: impl Fn() -> u32,
        fails: impl Fn(Error),
    ) -> Result<(), ()> {
        let open = self.open.as_ref().ok_or(())?;
        loop {
            let attempt = begins();
            if attempt > resuming.attempts {
                return Err(());
            }
            tokio::time::sleep(resuming.pause(attempt)).await;
            match open().await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(error) => {
                    tracing::debug!(attempt, %error, "cannot open the line again");
                    fails(error);
                }
            }
        }
    }
}

/// Carries the frames of one session, from line to line.
pub(crate) struct LineCarrier {
    link: Link,
    line: Line,
    tasks: Arc<Tasks>,
    resume: Option<Resuming>,
    clock: Clock,
    input: Input,
    output: Output,
    /// When the link is to be told the time.
    look: Option<Pin<Box<Sleep>>>,
    patience: Option<Patience>,
    /// When a peer that owes a Hello is given up.
    handshake: Option<Pin<Box<Sleep>>>,
    /// When the last words are given up.
    last: Option<Pin<Box<Sleep>>>,
}

impl LineCarrier {
    /// A session; without `patience` its peer is waited for as long as it takes.
    pub fn new(
        directory: Directory,
        options: Options,
        line: &LineOptions,
        patience: Option<Patience>,
        threads: Arc<Threads>,
    ) -> Result<Self, Error> {
        let options = line.limit(options)?;
        let tasks = Tasks::new(threads);
        let link = Link::on_line(directory, &options, tasks.clone());
        let clock = Clock::new(&link);
        let end = patience.and_then(Patience::end);
        Ok(Self {
            line: Line::new(&link, line.link(&options), now()),
            tasks,
            clock,
            input: Input::new(options.max_message, options.memory.charge()),
            output: Output::new(line.baud),
            look: None,
            handshake: end.map(|end| Box::pin(sleep_until(end))),
            patience,
            last: None,
            resume: options.resume,
            link,
        })
    }

    /// The session.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The tasks of the session.
    pub fn tasks(&self) -> &Arc<Tasks> {
        &self.tasks
    }

    /// Until the session is over. The line is left to who comes next, if it is still there.
    pub async fn run<S: Stream>(mut self, wire: &mut Wire<S>) {
        while let Some(stream) = &mut wire.stream {
            let unsent = wire.unsent;
            let Err(error) = poll_fn(|cx| self.poll(stream, unsent, cx)).await else { return };
            // A port is opened by one only.
            wire.stream = None;
            tracing::debug!(%error, "the line is lost");
            if self.link.is_over() || !self.open_again(wire, error).await {
                return;
            }
            self.input.begin();
            // What was left for the line before is lost like any other frame.
            self.output = Output::new(self.output.baud);
        }
    }

    /// False if that takes too long, cannot be, or the session is over.
    async fn open_again<S: Stream>(&mut self, wire: &mut Wire<S>, error: io::Error) -> bool {
        let resuming = match &self.resume {
            // The first line has to lead to a session at once.
            Some(resuming) if wire.open.is_some() && self.link.is_ready() => resuming.clone(),
            _ => {
                if !self.link.is_ready() {
                    let is_end = error.kind() == io::ErrorKind::UnexpectedEof;
                    self.link.fail(if is_end { Error::NoPeer } else { error.into() });
                }
                return false;
            }
        };
        self.line.lost();
        let (link, tasks) = (self.link.clone(), self.tasks.clone());
        let opening = wire.open_again(&resuming, || link.attempt(), |error| link.attempt_failed(error));
        let is_there = tokio::select! {
            () = tasks.over() => false,
            never = self.keep_time() => match never {},
            opened = tokio::time::timeout(resuming.park, opening) => matches!(opened, Ok(Ok(()))),
        };
        if is_there {
            self.line.found();
        }
        is_there
    }

    /// Time passes without a line, too.
    async fn keep_time(&mut self) -> Infallible {
        poll_fn(|cx| {
            self.tasks.waker.register(cx.waker());
            self.clock.poll(&self.link, &self.tasks, cx);
            self.poll_look(cx);
            Poll::Pending
        })
        .await
    }

    /// Ready when the session is over, or the line.
    fn poll<S: Stream>(
        &mut self,
        stream: &mut S,
        unsent: fn(&S) -> Option<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.tasks.waker.register(cx.waker());
        self.clock.poll(&self.link, &self.tasks, cx);
        let mut is_quiet = false;
        for _ in 0..READS {
            match self.input.poll_read(stream, &mut self.line, &self.link, cx) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    is_quiet = true;
                    break;
                }
            }
        }
        self.poll_handshake(cx);
        loop {
            if let Poll::Ready(written) = self.output.poll_write(stream, unsent, &mut self.line, &self.link, cx) {
                match written? {
                    Sent::Over => return Poll::Ready(Ok(())),
                    Sent::Nothing | Sent::Frame(_) => {}
                }
            }
            if !self.poll_look(cx) {
                break;
            }
        }
        if self.link.is_over() {
            let last = self.last.get_or_insert_with(|| Box::pin(sleep(LINGER)));
            if last.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
        }
        if !is_quiet {
            // Tasks and the runtime's root have their turn, and then this.
            let _ = std::pin::pin!(tokio::task::yield_now()).poll(cx);
        }
        Poll::Pending
    }

    /// Gives up a peer that does not answer.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) {
        let Some(handshake) = &mut self.handshake else { return };
        if self.link.is_ready() {
            self.handshake = None;
        } else if handshake.as_mut().poll(cx).is_ready() {
            self.handshake = None;
            self.link.fail(self.no_answer());
            self.link.end();
        }
    }

    fn no_answer(&self) -> Error {
        let nobody = self.patience.map_or(Error::NoPeer, Patience::error);
        let (bytes, frames) = (self.input.bytes, self.input.frames);
        match nobody {
            Error::Io(kind, text) if bytes > 0 && frames == 0 => {
                Error::Io(kind, format!("{text}; {bytes} bytes came that are no farref: is it the right baud rate?"))
            }
            Error::Io(kind, text) if frames > 0 => {
                Error::Io(kind, format!("{text}; {frames} frames came, but none for us: is it an echo?"))
            }
            nobody => nobody,
        }
    }

    /// Tells the link the time, when that is due: true if there may be something to send because of that.
    fn poll_look(&mut self, cx: &mut Context<'_>) -> bool {
        let now = now();
        let Some(at) = self.line.poll_timeout() else { return false };
        if at <= now {
            self.line.advance(now);
            // What is still due waits for the line, or for the peer.
            return self.line.poll_timeout() != Some(at);
        }
        let look = self.look.get_or_insert_with(|| Box::pin(sleep_until(at.into())));
        if look.deadline().into_std() != at {
            look.as_mut().reset(at.into());
        }
        look.as_mut().poll(cx).is_ready()
    }
}

/// Finds frames in what is received.
struct Input {
    buffer: Vec<u8>,
    decoder: Decoder<Vec<u8>>,
    longest: usize,
    memory: Charge,
    bytes: u64,
    frames: u64,
}

impl Input {
    fn new(max_message: u32, memory: Charge) -> Self {
        let longest = SerialLink::payload_len((max_message as usize).max(Hello::MAX_LENGTH)) + CHECK;
        Self { buffer: Vec::new(), decoder: Decoder::new(Vec::new()), longest, memory, bytes: 0, frames: 0 }
    }

    /// Another line begins, or the first one.
    fn begin(&mut self) {
        self.decoder = Decoder::new(Vec::new());
        self.buffer = Vec::new();
    }

    fn poll_read<S: Stream>(
        &mut self,
        stream: &mut S,
        line: &mut Line,
        link: &Link,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        const READ: usize = 4096;
        if self.buffer.is_empty() {
            if !self.memory.set(self.longest + READ) {
                tracing::warn!("no memory for what is received");
                link.close(CloseCode::OutOfResources);
                return Poll::Pending;
            }
            self.decoder = Decoder::new(vec![0; self.longest]);
            self.buffer = vec![0; READ];
        }
        let mut free = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(stream).poll_read(cx, &mut free))?;
        let mut run = free.filled();
        if run.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        link.count_read();
        self.bytes += run.len() as u64;
        while let Some(payload) = self.decoder.next(&mut run) {
            self.frames += 1;
            line.receive(now(), payload);
        }
        Poll::Ready(Ok(()))
    }
}

/// A frame that is being sent.
struct Output {
    frame: Vec<u8>,
    left: Range<usize>,
    is_unflushed: bool,
    baud: Option<u32>,
    /// A frame was handed over and may not have left.
    is_leaving: bool,
    /// When the last frame has left, by the speed of the line.
    left_at: Option<Instant>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Output {
    /// A line begins with a delimiter, behind which frames are found whatever was on it before (FRM-3).
    fn new(baud: Option<u32>) -> Self {
        Self { frame: vec![0], left: 0..1, is_unflushed: false, baud, is_leaving: false, left_at: None, pause: None }
    }

    /// Writes frame by frame, until there is nothing to send.
    fn poll_write<S: Stream>(
        &mut self,
        stream: &mut S,
        unsent: fn(&S) -> Option<usize>,
        line: &mut Line,
        link: &Link,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Sent>> {
        loop {
            while !self.left.is_empty() {
                let count = ready!(Pin::new(&mut *stream).poll_write(cx, &self.frame[self.left.clone()]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                link.count_write();
                self.left.start += count;
                (self.is_unflushed, self.is_leaving) = (true, true);
            }
            if self.is_unflushed {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                self.is_unflushed = false;
            }
            ready!(self.poll_left(stream, unsent, cx));
            match line.transmit(now(), &mut self.frame) {
                Sent::Frame(length) => self.left = 0..length,
                other => return Poll::Ready(Ok(other)),
            }
        }
    }

    /// Until the frame that was handed over has left.
    fn poll_left<S>(&mut self, stream: &S, unsent: fn(&S) -> Option<usize>, cx: &mut Context<'_>) -> Poll<()> {
        /// What no timer tells apart. It is made up for with the next frame.
        const MOMENT: Duration = Duration::from_millis(1);
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let Some(baud) = self.baud.filter(|_| self.is_leaving) else { return Poll::Ready(()) };
            let now = now();
            let takes = |bytes: usize| Duration::from_micros(1_000_000 * 10 * bytes as u64 / u64::from(baud.max(1)));
            let left_at = match unsent(stream) {
                Some(bytes) => {
                    self.is_leaving = bytes > 0;
                    now + takes(bytes)
                }
                None => {
                    self.is_leaving = false;
                    let begun = self.left_at.map_or(now, |at| at.max(now));
                    begun + takes(self.left.end)
                }
            };
            self.left_at = Some(left_at);
            if left_at > now + MOMENT || self.is_leaving {
                self.pause = Some(Box::pin(sleep_until(left_at.max(now + MOMENT).into())));
            }
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
