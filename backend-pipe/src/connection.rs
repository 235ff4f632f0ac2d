//! One session over a byte pipe: a thread that reads, a thread that writes when nobody else can, and threads that serve.
//!
//! Whoever has made a call writes it, so that nobody need be woken. The reading thread never waits for the pipe to take
//! something: reading goes on whatever the other direction does (ADM-1).

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan};
use farref_host::{Connection, Directory, Driver, Error, Link, Options, Threads, Work};

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
    start(read, Sink::Any(Box::new(write)), directory, options)
}

/// As [`open`], for pipes and sockets of the operating system, where the thread that reads can tell what it may write
/// without waiting: calls of the peer cost a switch of threads less.
#[cfg(unix)]
pub fn open_fds(
    read: impl Into<std::os::fd::OwnedFd>,
    write: impl Into<std::os::fd::OwnedFd>,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let (read, write) = (std::fs::File::from(read.into()), std::fs::File::from(write.into()));
    start(read, Sink::Fd(write), directory, options)
}

fn start(
    read: impl Read + Send + 'static,
    write: Sink,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let handshake = options.handshake;
    let output = Output { sink: Some(write), buffer: PREAMBLE.to_vec(), left: 0..PREAMBLE.len() };
    let pipe = Arc::new(Pipe {
        output: Mutex::new(output),
        bell: Bell::default(),
        threads: Threads::new(usize::from(options.serving) + 1),
    });
    let link = Link::new(directory, &options, pipe.clone());
    let (writer, of_writer) = (link.clone(), pipe.clone());
    thread::Builder::new().name("farref-write".into()).spawn(move || of_writer.write_all(&writer))?;
    let (reader, of_reader) = (link.clone(), pipe.clone());
    thread::Builder::new().name("farref-read".into()).spawn(move || of_reader.read_all(&reader, read))?;
    pipe.bell.ring();
    let connection = link.connection();
    connection.wait_ready(handshake)?;
    Ok(connection)
}

/// What the threads of a session share, but for the session.
struct Pipe {
    output: Mutex<Output>,
    /// Rung when there may be output that nobody else writes.
    bell: Bell,
    threads: Threads,
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
    Fd(std::fs::File),
}

thread_local! {
    /// Whether this thread reads for a session, and so must not wait for a pipe.
    static READS: Cell<bool> = const { Cell::new(false) };
}

impl Driver for Pipe {
    fn output(&self) {
        self.bell.ring();
    }

    fn flush(&self, link: &Link) {
        let may_wait = !READS.get();
        let Ok(mut output) = self.output.try_lock() else {
            // Somebody writes, and may have looked for output before this came.
            return self.bell.ring();
        };
        // What is written to may be a closure of the user's.
        let written = catch_unwind(AssertUnwindSafe(|| output.write(link, may_wait)));
        match written {
            Ok(Ok(Written::All)) => {}
            // The thread that writes goes on, or ends.
            Ok(Ok(Written::Some | Written::Over)) => self.bell.ring(),
            Ok(Err(_)) | Err(_) => {
                output.sink = None;
                drop(output);
                link.deafen();
            }
        }
    }

    fn run(&self, work: Work) -> Result<(), Work> {
        self.threads.run(work)
    }
}

impl Pipe {
    fn write_all(&self, link: &Link) {
        // Also if the writer panics: it may be a closure of the user's.
        let _over = OnDrop(|| {
            self.output().sink = None;
            link.deafen();
        });
        loop {
            let written = self.output().write(link, true);
            match written {
                Ok(Written::All | Written::Some) => self.bell.wait(),
                Ok(Written::Over) | Err(_) => return,
            }
        }
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self, link: &Link, mut read: impl Read) {
        READS.set(true);
        // Also if the reader panics: it may be a closure of the user's.
        let over = OnDrop(|| link.end());
        if self.read_records(link, &mut read) == Some(NoPeer) {
            link.fail(Error::NoPeer);
        }
        drop(over);
    }

    /// Reads until the session or the stream is over.
    fn read_records(&self, link: &Link, read: &mut impl Read) -> Option<NoPeer> {
        let mut scanner = Some(PreambleScanner::default());
        let mut buffer = vec![0; 64 * 1024];
        let (mut start, mut end) = (0, 0);
        let mut wanted = 1;
        loop {
            if start == end {
                (start, end) = (0, 0);
            } else if start + wanted > buffer.len() {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
            }
            if wanted > buffer.len() {
                buffer.resize(wanted, 0);
            }
            end += match read.read(&mut buffer[end..]) {
                Ok(0) => return scanner.map(|_| NoPeer),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return scanner.map(|_| NoPeer),
            };
            link.count_read();
            if let Some(scan) = &mut scanner {
                match scan.scan(&buffer[start..end]) {
                    Scan::Found(at) => start += at,
                    Scan::Searching => {
                        start = end;
                        continue;
                    }
                    Scan::NoPeer => return Some(NoPeer),
                }
                scanner = None;
            }
            let received = link.receive(&buffer[start..end]);
            start += received.used;
            wanted = received.wanted;
            self.flush(link);
            if received.is_over {
                return None;
            }
        }
    }
}

/// How far writing came.
enum Written {
    All,
    Some,
    /// All, and there will be no more.
    Over,
}

impl Output {
    /// Writes what there is, or what can be written without waiting.
    fn write(&mut self, link: &Link, may_wait: bool) -> io::Result<Written> {
        loop {
            if self.left.is_empty() {
                match link.take_output(&mut self.buffer) {
                    Some(taken) if taken.is_empty() => return Ok(Written::All),
                    Some(taken) => self.left = taken,
                    None => return Ok(Written::Over),
                }
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
    }
}

impl Sink {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Any(write) => write.write_all(bytes).and_then(|()| write.flush()),
            #[cfg(unix)]
            Self::Fd(file) => file.write_all(bytes),
        }
    }

    /// Writes what can be written without waiting.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Any(_) => Ok(0),
            #[cfg(unix)]
            Self::Fd(file) => {
                use rustix::event::{PollFd, PollFlags, Timespec, poll};

                // What a pipe or a socket that can be written to takes at least without waiting: POSIX's PIPE_BUF, as it is
                // on Linux; smaller elsewhere.
                const AT_ONCE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                let mut wanted = [PollFd::new(file, PollFlags::OUT)];
                match poll(&mut wanted, Some(&now)) {
                    Ok(1..) if wanted[0].revents().contains(PollFlags::OUT) => {
                        file.write(&bytes[..bytes.len().min(AT_ONCE)])
                    }
                    // Not now; or it is broken, which the thread that writes finds out.
                    _ => Ok(0),
                }
            }
        }
    }
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    fn ring(&self) {
        if !mem::replace(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner), true) {
            self.rings.notify_one();
        }
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        while !mem::take(&mut *rung) {
            rung = self.rings.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// That the stream holds no preamble.
#[derive(PartialEq)]
struct NoPeer;

/// Runs at the end of a scope, however it is left.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
