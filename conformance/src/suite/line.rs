//! The suite over a line that may lose bytes (SPEC section 16): the tester speaks its stream to a link here, and that speaks
//! frames to the subject's.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use farref_core::frame::serial::{CHECK, Decoder};
use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::link::Records;
use farref_core::link::serial::{Config, Header, Kind, SerialLink};
use farref_core::session::Ended;

use super::transport::Transport;
use super::wire::record;

/// Whether a case is about what takes the place of frames elsewhere: the preamble, what may stand before it, and the lengths of
/// records (FRM-1, FRM-2). On a line these are not there; all other cases are.
pub fn is_of_stream(case: &str) -> bool {
    const CASES: [&str; 3] = [
        "FRM-2/empty-record-ends-the-session",
        "FRM-2/too-long-a-record-is-told-by-its-length",
        "PRM-1/record-length-has-one-form",
    ];
    case.starts_with("FRM-1/") || CASES.contains(&case)
}

/// A connection over a line with the subject at its other end. It ends when the line does, or when the subject begins another
/// session. What the tester cannot say there is in [`is_of_stream`].
pub fn over_line(line: Transport) -> Transport {
    let Transport { mut read, write, over } = line;
    let (events, happening) = mpsc::channel();
    let (to_tester, from_line) = mpsc::channel();
    let said = Arc::<Said>::default();
    let of_line = events.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let came = match read.read(&mut buffer) {
                Ok(count @ 1..) => Event::Came(buffer.get(..count).unwrap_or_default().to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => Event::LineEnded,
            };
            let is_last = matches!(came, Event::LineEnded);
            if of_line.send(came).is_err() || is_last {
                return;
            }
        }
    });
    let bridge = Bridge::new(write, to_tester, said.clone());
    thread::spawn(move || bridge.run(&happening));
    Transport::new(FromLine(from_line, Vec::new()), ToLine { events, said }).with_guard(over)
}

enum Event {
    /// The tester says this.
    Said(Vec<u8>),
    /// The tester says nothing more.
    Silence,
    /// This came over the line.
    Came(Vec<u8>),
    LineEnded,
}

/// How much of what the tester has said the subject has not got; none any more once the line has ended.
#[derive(Default)]
struct Said {
    left: Mutex<Option<usize>>,
    changed: Condvar,
}

impl Said {
    /// As many as a pipe holds, so that a subject that does not read is felt.
    const MOST: usize = 64 * 1024;

    fn lock(&self) -> MutexGuard<'_, Option<usize>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, left: Option<usize>) {
        *self.lock() = left;
        self.changed.notify_all();
    }
}

/// The tester's direction.
struct ToLine {
    events: mpsc::Sender<Event>,
    said: Arc<Said>,
}

impl Write for ToLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_full = |left: &mut Option<usize>| left.is_some_and(|left| left >= Said::MOST);
        drop(self.said.changed.wait_while(self.said.lock(), is_full).unwrap_or_else(PoisonError::into_inner));
        self.events.send(Event::Said(bytes.to_vec())).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ToLine {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Silence);
    }
}

/// The subject's direction, and what is left of a part of it.
struct FromLine(mpsc::Receiver<Vec<u8>>, Vec<u8>);

impl Read for FromLine {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.1.is_empty() {
            self.1 = self.0.recv().unwrap_or_default();
        }
        let count = self.1.as_slice().read(into)?;
        self.1.drain(..count);
        Ok(count)
    }
}

/// What the tester has said, until the subject has got it.
#[derive(Default)]
struct Kept {
    records: VecDeque<Vec<u8>>,
    sent: usize,
    bytes: usize,
}

impl Records for Kept {
    fn next_record(&mut self) -> Option<&[u8]> {
        self.records.get(self.sent).map(Vec::as_slice)
    }

    fn record_sent(&mut self) {
        self.sent += 1;
    }

    fn acknowledge(&mut self, count: u64) {
        for record in self.records.drain(..count as usize) {
            self.bytes -= record.len();
        }
        self.sent = self.sent.saturating_sub(count as usize);
    }

    fn rewind(&mut self) {
        self.sent = 0;
    }

    fn end(&mut self, _: Ended) {}
}

/// A link between the tester's stream and the line.
struct Bridge {
    link: SerialLink,
    kept: Kept,
    epoch: Instant,
    write: Option<Box<dyn Write + Send>>,
    line: Vec<u8>,
    decoder: Decoder<Vec<u8>>,
    /// Until the tester's preamble was found.
    scanner: Option<PreambleScanner>,
    unread: Vec<u8>,
    is_silent: bool,
    to_tester: mpsc::Sender<Vec<u8>>,
    /// The subject's Hello is passed on as soon as it can be read, and once.
    has_hello: bool,
    has_first: bool,
    said: Arc<Said>,
}

impl Bridge {
    /// The longest message of either side.
    const LONGEST: usize = 1 << 20;

    fn new(write: Box<dyn Write + Send>, to_tester: mpsc::Sender<Vec<u8>>, said: Arc<Said>) -> Self {
        /// Each session has an id of its own.
        static SESSIONS: AtomicU32 = AtomicU32::new(1);
        let config = Config { window: 64, ack_delay: 5, retry: 300, retry_max: 2_000, patience: 30_000 };
        said.set(Some(0));
        Self {
            link: SerialLink::new(config, 0xC0DE_0000 + SESSIONS.fetch_add(1, Ordering::Relaxed)),
            kept: Kept::default(),
            epoch: Instant::now(),
            write: Some(write),
            line: vec![0; SerialLink::frame_len(Self::LONGEST)],
            decoder: Decoder::new(vec![0; SerialLink::payload_len(Self::LONGEST) + CHECK]),
            scanner: Some(PreambleScanner::default()),
            unread: Vec::new(),
            is_silent: false,
            to_tester,
            has_hello: false,
            has_first: false,
            said,
        }
    }

    /// Until the line has ended, or the session on it.
    fn run(mut self, happening: &mpsc::Receiver<Event>) {
        loop {
            let wait = self.link.poll_timeout().map_or(Duration::MAX, |at| {
                Duration::from_millis(at).saturating_sub(self.epoch.elapsed()).max(Duration::from_millis(1))
            });
            let is_over = match happening.recv_timeout(wait) {
                Ok(Event::Said(bytes)) => {
                    self.take_said(&bytes);
                    false
                }
                Ok(Event::Silence) => {
                    self.is_silent = true;
                    false
                }
                Ok(Event::Came(bytes)) => !self.take_came(&bytes),
                Ok(Event::LineEnded) | Err(mpsc::RecvTimeoutError::Disconnected) => true,
                Err(mpsc::RecvTimeoutError::Timeout) => false,
            };
            if is_over || self.link.advance(self.now(), &mut self.kept).is_err() || !self.transmit() {
                break;
            }
            self.said.set(Some(self.kept.bytes));
            if self.is_silent && self.kept.records.is_empty() && self.link.is_settled() {
                // All was said: this direction ends, and the other one goes on.
                self.write = None;
            }
        }
        self.said.set(None);
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    /// The records that the tester has said.
    fn take_said(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if let Some(scanner) = &mut self.scanner {
            let Scan::Found(at) = scanner.scan(bytes) else { return };
            bytes = bytes.get(at..).unwrap_or_default();
            self.scanner = None;
        }
        self.unread.extend(bytes);
        let mut rest = self.unread.as_slice();
        while let Split::Record { body, rest: behind } = split(rest, u32::MAX) {
            self.kept.bytes += body.len();
            self.kept.records.push_back(body.to_vec());
            rest = behind;
        }
        self.unread = rest.to_vec();
    }

    /// The frames that came; false when the subject's session is over.
    fn take_came(&mut self, bytes: &[u8]) -> bool {
        let now = self.now();
        let mut run = bytes;
        while let Some(payload) = self.decoder.next(&mut run) {
            // Who speaks on a stream says Hello unasked; on a line it would be known only after the tester's.
            if let Ok((Header { kind: Kind::Hello { .. }, .. }, body)) = Header::read(payload)
                && !std::mem::replace(&mut self.has_hello, true)
            {
                let _ = self.to_tester.send([&PREAMBLE[..], &record(body)].concat());
            }
            match self.link.receive(now, payload, &mut self.kept) {
                Ok(Some(_)) if !std::mem::replace(&mut self.has_first, true) => {}
                // A tester that has seen enough does not listen.
                Ok(Some(body)) => drop(self.to_tester.send(record(body))),
                Ok(None) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Sends what there is; false if the line takes nothing more.
    fn transmit(&mut self) -> bool {
        loop {
            let now = self.now();
            let Ok(length) = self.link.transmit(now, &mut self.kept, &mut self.line) else { return false };
            if length == 0 {
                return true;
            }
            let frame = self.line.get(..length).unwrap_or_default();
            let Some(write) = &mut self.write else { return true };
            if write.write_all(frame).and_then(|()| write.flush()).is_err() {
                // What came before is still to be read.
                self.write = None;
            }
        }
    }
}
