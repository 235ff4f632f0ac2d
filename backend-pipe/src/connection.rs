//! One session over a byte pipe: a reader thread, a writer thread, and a lock between them and everybody else.
//!
//! The reader never writes and the writer never holds the lock while it writes, so that reading goes on whatever the pipe
//! does (ADM-1). No code of users runs under the lock.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::{CloseCode, Limits};
use farref_core::session::{Config, Ended, Event, Host, Import, Notice, Question, Session, Tables};

use crate::call::{self, CallState};
use crate::error::Error;
use crate::object::{Directory, Object};
use crate::proxy::{Proxy, ProxyInner};
use crate::serve::{Job, LocalObjects, Workers};

/// What a connection accepts and may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest message accepted, bytes.
    pub max_message: u32,
    /// Objects of the peer held at a time.
    pub imports: u32,
    /// Objects of this process that the peer may hold at a time.
    pub exports: u32,
    /// Calls of the peer served at a time; each has a thread while it runs.
    pub serving: u16,
    /// Calls to the peer under way at a time.
    pub calls: u16,
    /// Bytes of calls of the peer being served or waiting.
    pub call_bytes: u32,
    /// References in one message.
    pub handles: u16,
    /// Levels of nested calls served.
    pub levels: u16,
    /// Bytes of output that may wait.
    pub output: usize,
    /// Bytes of calls that wait for promises, and of results kept for pipelined calls.
    pub store: usize,
}

impl Default for Options {
    /// For hosts: messages of 4 MiB, a million references, 64 calls served at a time.
    fn default() -> Self {
        Self {
            max_message: 4 << 20,
            imports: 1 << 20,
            exports: 1 << 20,
            serving: 64,
            calls: 1024,
            call_bytes: 16 << 20,
            handles: 1024,
            levels: 32,
            output: 16 << 20,
            store: 32 << 20,
        }
    }
}

/// What went over the wire so far, both ways, all messages but Hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages.
    pub messages: u64,
    /// Bytes, lengths included.
    pub bytes: u64,
    /// Round trips that this thread has waited for: the longest chain of messages of which each had to wait for the one
    /// before, as a clock would show it on which a message takes half a unit and computing takes no time.
    pub round_trips: u64,
}

/// A session with a peer. Clones share it; when the last one is dropped, it is closed.
#[derive(Clone)]
pub struct Connection(Arc<Handle>);

struct Handle(Arc<Shared>);

/// What all threads share. Locks are taken in the order of the fields, and `core` is never held while another thread's
/// code runs or the pipe is used.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Something changed that callers wait for: a Return, room for output, Hello, the end.
    changed: Condvar,
    /// Proxies and calls dropped since the core was last looked at. Dropping must not take the core's lock: it may happen
    /// anywhere, under that very lock too.
    dropped: Mutex<Vec<Dropped>>,
    /// Rung when there may be output.
    bell: Bell,
    bytes: AtomicU64,
}

/// What is under the lock.
pub(crate) struct Core {
    pub session: Session<Host>,
    pub objects: LocalObjects,
    pub proxies: HashMap<Import, Weak<ProxyInner>>,
    /// Open calls by their id.
    pub calls: HashMap<u16, (Question, Arc<CallState>)>,
    pub workers: Workers,
    /// Threads that wait for [`Shared::changed`].
    waiting: usize,
    closing: bool,
    /// Why the other side is no peer, if it is none.
    no_peer: bool,
}

pub(crate) enum Dropped {
    Import(Import),
    Call(Question),
}

#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
}

impl Bell {
    fn ring(&self) {
        *lock(&self.rung) = true;
        self.rings.notify_one();
    }

    fn wait(&self) {
        let mut rung = lock(&self.rung);
        while !mem::take(&mut *rung) {
            rung = self.rings.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A panic of a user's object does not hold a lock of ours, so that what a lock guards is sound whatever happened.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    /// Starts a session over a pair of byte streams and waits for the peer's Hello. `directory` is what the peer finds.
    ///
    /// Two threads carry the bytes; more serve the peer's calls. `write` is dropped when the session is over and all output
    /// is written, `read` when it ends.
    ///
    /// # Errors
    /// [`Error::NoPeer`] if no preamble comes, [`Error::Ended`] if the session ends before it began.
    pub fn open(
        read: impl Read + Send + 'static,
        write: impl Write + Send + 'static,
        directory: Directory,
        options: Options,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            core: Mutex::new(Core {
                session: Session::new(config(&options)),
                objects: LocalObjects::new(Arc::new(directory) as Arc<dyn Object>),
                proxies: HashMap::new(),
                calls: HashMap::new(),
                workers: Workers::new(options.serving),
                waiting: 0,
                closing: false,
                no_peer: false,
            }),
            changed: Condvar::new(),
            dropped: Mutex::default(),
            bell: Bell::default(),
            bytes: AtomicU64::new(0),
        });
        let writer = shared.clone();
        thread::Builder::new().name("farref-write".into()).spawn(move || writer.write_loop(write))?;
        let reader = shared.clone();
        thread::Builder::new().name("farref-read".into()).spawn(move || reader.read_loop(read))?;
        shared.bell.ring();
        let connection = Self(Arc::new(Handle(shared)));
        connection.shared().wait_ready()?;
        Ok(connection)
    }

    /// The peer's directory: its named roots.
    pub fn root(&self) -> Proxy {
        Proxy::new(self.shared().clone(), Import::DIRECTORY)
    }

    /// Waits until the session is over, and tells why.
    pub fn wait_closed(&self) -> Ended {
        let mut core = self.shared().lock();
        loop {
            if let Some(ended) = core.session.ended() {
                return ended;
            }
            core = self.shared().wait(core);
        }
    }

    /// Says Close and ends the session. What is under way fails.
    pub fn close(&self) {
        self.shared().close();
    }

    /// How full the session's tables are; what was dropped is on its way out first.
    pub fn tables(&self) -> Tables {
        self.shared().lock().session.tables()
    }

    /// Whether nothing is under way and all tables are as they were right after Hello.
    pub fn is_at_baseline(&self) -> bool {
        let mut core = self.shared().lock();
        core.session.transmit();
        core.session.tables() == Tables { exports: 1, ..Tables::default() }
    }

    /// What went over the wire so far.
    pub fn traffic(&self) -> Traffic {
        let (sent, received) = self.shared().lock().session.ordinals();
        let bytes = self.shared().bytes.load(Ordering::Relaxed);
        Traffic { messages: sent + received, bytes, round_trips: call::now() }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    /// The core, with all that was dropped told to it.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        let mut core = lock(&self.core);
        // The list's own lock is given up first: forgetting a call may drop others.
        let dropped = mem::take(&mut *lock(&self.dropped));
        for dropped in dropped {
            core.forget(dropped);
        }
        core
    }

    /// Gives the lock up until something has changed.
    pub fn wait<'c>(&self, mut core: MutexGuard<'c, Core>) -> MutexGuard<'c, Core> {
        core.waiting += 1;
        let mut core = self.changed.wait(core).unwrap_or_else(PoisonError::into_inner);
        core.waiting -= 1;
        core
    }

    /// Ends a piece of work under the lock: the writer looks for output.
    pub fn unlock(&self, core: MutexGuard<'_, Core>) {
        drop(core);
        self.bell.ring();
    }

    /// Notes a dropped proxy or call, from wherever it happens.
    pub fn note_dropped(&self, dropped: Dropped) {
        lock(&self.dropped).push(dropped);
        self.bell.ring();
    }

    fn close(&self) {
        let mut core = self.lock();
        if core.session.ended().is_none() {
            core.session.close(CloseCode::Leaving);
        }
        let left = core.end();
        self.changed.notify_all();
        self.unlock(core);
        drop(left);
    }

    fn wait_ready(&self) -> Result<(), Error> {
        let mut core = self.lock();
        loop {
            match core.session.ended() {
                _ if core.session.peer().is_some() => return Ok(()),
                Some(_) if core.no_peer => return Err(Error::NoPeer),
                Some(ended) => return Err(Error::Ended(ended)),
                None => core = self.wait(core),
            }
        }
    }

    fn write_loop(&self, mut write: impl Write) {
        let mut buffer = Vec::new();
        let mut result = write.write_all(&PREAMBLE);
        let mut hello = true;
        while result.is_ok() {
            self.bell.wait();
            let mut core = self.lock();
            buffer.clear();
            buffer.extend_from_slice(core.session.transmit());
            core.session.transmitted(buffer.len());
            let over = core.closing;
            if core.waiting > 0 {
                self.changed.notify_all();
            }
            drop(core);
            if !buffer.is_empty() {
                self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                if mem::take(&mut hello) {
                    self.uncount_hello(&buffer);
                }
                result = write.write_all(&buffer).and_then(|()| write.flush());
                // More may have come while this was written; only then is there no other ring.
                self.bell.ring();
            } else if over {
                return;
            }
        }
        // The other side does not read any more. What it still sends is read to its end.
        let mut core = self.lock();
        core.closing = true;
        self.changed.notify_all();
    }

    /// Hello is not counted as traffic.
    fn uncount_hello(&self, bytes: &[u8]) {
        if let Split::Record { rest, .. } = split(bytes, u32::MAX) {
            self.bytes.fetch_sub((bytes.len() - rest.len()) as u64, Ordering::Relaxed);
        }
    }

    fn read_loop(self: &Arc<Self>, mut read: impl Read) {
        let outcome = self.read_records(&mut read);
        let mut core = self.lock();
        core.no_peer = outcome == Some(NoPeer);
        core.session.link_lost();
        let left = core.end();
        self.changed.notify_all();
        self.unlock(core);
        drop(left);
    }

    fn read_records(self: &Arc<Self>, read: &mut impl Read) -> Option<NoPeer> {
        let max_message = self.lock().session.limits().max_message;
        let mut scanner = Some(PreambleScanner::default());
        let mut buffer = vec![0; 64 * 1024];
        let (mut start, mut end) = (0, 0);
        let mut hello = true;
        loop {
            if start == end {
                (start, end) = (0, 0);
            } else if end == buffer.len() {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
                if end == buffer.len() {
                    let longest = max_message as usize + 8;
                    buffer.resize((2 * buffer.len()).min(longest.max(buffer.len() + 1)), 0);
                }
            }
            end += match read.read(&mut buffer[end..]) {
                Ok(0) => return scanner.map(|_| NoPeer),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return scanner.map(|_| NoPeer),
            };
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
            let received = &buffer[start..end];
            let Some(rest) = self.take_records(received, max_message) else { return None };
            let used = received.len() - rest;
            self.bytes.fetch_add(used as u64, Ordering::Relaxed);
            if used > 0 && mem::take(&mut hello) {
                self.uncount_hello(received);
            }
            start += used;
        }
    }

    /// Takes all whole records and tells how many bytes are left; None if the session is over.
    fn take_records(self: &Arc<Self>, mut received: &[u8], max_message: u32) -> Option<usize> {
        let mut core = self.lock();
        let mut left = Vec::new();
        let mut over = false;
        while !over {
            match split(received, max_message) {
                Split::Record { body, rest } => {
                    received = rest;
                    over = core.take_record(self, body).is_err();
                    core.take_ready(self);
                }
                Split::Incomplete => break,
                Split::Bad => {
                    // The session says which rule it was; an empty body breaks the same one.
                    over = core.take_record(self, &[]).is_err();
                }
            }
        }
        core.take_notices(&mut left);
        self.changed.notify_all();
        self.unlock(core);
        drop(left);
        (!over).then_some(received.len())
    }
}

/// That the stream holds no preamble.
#[derive(PartialEq)]
struct NoPeer;

impl Core {
    fn take_record(&mut self, shared: &Arc<Shared>, body: &[u8]) -> Result<(), Ended> {
        match self.session.handle(body)? {
            Some(Event::Request(request)) => {
                let job = Job::new(self, shared, &request);
                self.workers.push(job);
            }
            Some(Event::Return(returned)) => {
                let result = call::read_outcome(self, shared, &returned);
                if let Some((_, state)) = self.calls.remove(&returned.question.id()) {
                    state.settle(result);
                }
            }
            Some(Event::Ready) | None => {}
        }
        Ok(())
    }

    /// Calls that waited for an answer of ours and may run now.
    pub fn take_ready(&mut self, shared: &Arc<Shared>) {
        let mut scratch = Vec::new();
        while self.session.has_ready() {
            scratch.resize(self.session.limits().max_message as usize, 0);
            let Some(request) = self.session.poll_ready(&mut scratch) else { break };
            let job = Job::new(self, shared, &request);
            self.workers.push(job);
        }
    }

    /// Objects that nobody holds any more go to `left`, to be dropped without the lock.
    pub fn take_notices(&mut self, left: &mut Vec<Arc<dyn Object>>) {
        while let Some(notice) = self.session.poll_notice() {
            match notice {
                Notice::Freed(key) => left.extend(self.objects.remove(key)),
                // Threads cannot be stopped; the call goes on, and its caller is told what happened.
                Notice::Interrupted(_) => {}
            }
        }
    }

    fn forget(&mut self, dropped: Dropped) {
        match dropped {
            Dropped::Import(import) => {
                if self.proxies.get(&import).is_some_and(|proxy| proxy.strong_count() == 0) {
                    self.proxies.remove(&import);
                }
                let _ = self.session.release(import);
            }
            Dropped::Call(question) => {
                let _ = self.session.cancel(question, farref_core::message::FinishMode::Abandon);
                if self.calls.get(&question.id()).is_some_and(|(open, _)| *open == question) {
                    self.calls.remove(&question.id());
                }
            }
        }
    }

    /// The session is over: whoever waits is told. What is left is to be dropped without the lock.
    #[must_use]
    fn end(&mut self) -> (Vec<Arc<dyn Object>>, Vec<Job>) {
        self.closing = true;
        let ended = self.session.ended().unwrap_or(Ended::LinkLost);
        for (_, (_, state)) in self.calls.drain() {
            state.settle(Err(Error::Ended(ended)));
        }
        (self.objects.clear(), self.workers.stop())
    }
}

fn config(options: &Options) -> Config {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Config {
        limits: Limits {
            max_message: options.max_message,
            imports: options.imports,
            answers: options.serving,
            call_bytes: options.call_bytes,
            handles: options.handles,
            levels: options.levels,
        },
        exports: options.exports,
        calls: options.calls,
        out_bytes: options.output,
        store_bytes: options.store,
        peer: uuid::Uuid::new_v4(),
        incarnation: since.as_nanos() as u64,
    }
}
