//! Connections to a subject, and two ready ways to open one.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// One connection to a subject.
pub struct Transport {
    pub(super) read: Box<dyn Read + Send>,
    pub(super) write: Box<dyn Write + Send>,
    pub(super) over: Box<dyn Any + Send>,
}

impl Transport {
    /// A connection of two halves. Dropping `write` must end the direction to the subject: where both halves share a
    /// socket, wrap it so that it is shut down.
    pub fn new(read: impl Read + Send + 'static, write: impl Write + Send + 'static) -> Self {
        Self { read: Box::new(read), write: Box::new(write), over: Box::new(()) }
    }

    /// With something that is dropped when the case is over, and must then see to it that a `read` that still waits comes
    /// back, whatever the subject does: by killing a process or shutting down a socket.
    #[must_use]
    pub fn with_guard(self, over: impl Any + Send) -> Self {
        Self { over: Box::new(over), ..self }
    }

    /// Starts a program that serves on its standard input and output.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (read, write) = (child.stdout.take(), child.stdin.take());
        let child = KillOnDrop(child);
        match (read, write) {
            (Some(read), Some(write)) => Ok(Self::new(read, write).with_guard(child)),
            _ => Err(io::Error::other("the child has no pipes")),
        }
    }
}

struct KillOnDrop(Child);

/// How long a program may take to end by itself once its input has ended.
const GRACE: Duration = Duration::from_millis(500);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let start = Instant::now();
        while start.elapsed() < GRACE {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two ends of a connection within this process: one for the suite, and a pair of streams for the subject.
pub fn memory() -> (Transport, (impl Read + Send + 'static, impl Write + Send + 'static)) {
    let (to_subject, from_tester) = channel();
    let (to_tester, from_subject) = channel();
    (Transport::new(from_subject, to_subject), (from_tester, to_tester))
}

/// Bytes under way in one direction: as few as a pipe holds, so that a peer that does not read is felt.
const CAPACITY: usize = 64 * 1024;

fn channel() -> (Sending, Receiving) {
    let shared = Arc::new(Channel::default());
    (Sending(shared.clone()), Receiving(shared))
}

#[derive(Default)]
struct Channel {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// One of the two ends is gone.
    closed: bool,
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, waits: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        self.changed.wait_while(self.lock(), |state| waits(state)).unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

struct Sending(Arc<Channel>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.wait_while(|state| !state.closed && state.bytes.len() >= CAPACITY);
        if state.closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(CAPACITY - state.bytes.len());
        state.bytes.extend(bytes.iter().take(count));
        self.0.changed.notify_all();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Receiving(Arc<Channel>);

impl Read for Receiving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.wait_while(|state| !state.closed && state.bytes.is_empty());
        let count = state.bytes.read(into)?;
        self.0.changed.notify_all();
        Ok(count)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.close();
    }
}
