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
use farref_core::message::{CloseCode, ErrorCode, Hello, Limits};
use farref_core::session::{Config, Ended, Event, Host, Import, Notice, Question, Request, Session, Tables};

use crate::call::{self, CallState, OpenCall};
use crate::error::Error;
use crate::object::Directory;
use crate::proxy::{Promise, Proxy, ProxyInner};
use crate::serve::{Garbage, Job, LocalObjects, Workers};
use crate::value::Value;

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
    /// Bytes of output that may wait; a message may have 64 less. At least 128.
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
    /// Drops what is left over, away from the threads of the session.
    reaper: Workers,
    /// What is left over since the last [`Shared::unlock`]: dropping it may run code of users.
    pub garbage: Vec<Garbage>,
    /// Threads that wait for [`Shared::changed`].
    waiting: usize,
    closing: bool,
    /// Nothing is written any more: the other side has stopped reading. What it still sends is read to its end.
    deaf: bool,
    /// Who we are, as Hello says it.
    own: (uuid::Uuid, u64),
    /// Whether the other side is no peer.
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
    /// Starts a session over a pair of byte streams and waits for the peer's Hello, without a limit of time. `directory` is
    /// what the peer finds; its calls may come before this returns.
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
        let config = config(&options);
        let shared = Arc::new(Shared {
            core: Mutex::new(Core {
                session: Session::new(config),
                objects: LocalObjects::new(Arc::new(directory)),
                proxies: HashMap::new(),
                calls: HashMap::new(),
                workers: Workers::new(options.serving.into()),
                reaper: Workers::new(1),
                garbage: Vec::new(),
                waiting: 0,
                closing: false,
                deaf: false,
                own: (config.peer, config.incarnation),
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

    /// A promise that is kept already: `value`, where something is asked for that may be on its way.
    pub fn settled(&self, value: impl Into<Value>) -> Promise {
        Promise(Arc::new(OpenCall::settled(self.shared().clone(), Ok(value.into()), call::now())))
    }

    /// The longest message that the peer takes, bytes: what a result has to fit into.
    pub fn peer_max_message(&self) -> u32 {
        self.shared().lock().session.peer().map_or(0, |peer| peer.limits.max_message)
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

    /// How full the session's tables are. What was dropped counts until its release is sent, which is soon.
    pub fn tables(&self) -> Tables {
        self.shared().lock().session.tables()
    }

    /// Whether nothing is under way and all tables are as they were right after Hello.
    ///
    /// If so, all that was sent is on its way and counted in [`Self::traffic`].
    pub fn is_at_baseline(&self) -> bool {
        let mut core = self.shared().lock();
        let all_sent = core.session.transmit().is_empty();
        let at_baseline = core.session.tables() == Tables { exports: 1, ..Tables::default() };
        self.shared().unlock(core);
        all_sent && at_baseline
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

    /// Ends a piece of work under the lock: the writer looks for output, and what is left over is dropped elsewhere. What
    /// runs then may call the peer, and this may be the thread that would have to read the answer.
    pub fn unlock(&self, mut core: MutexGuard<'_, Core>) {
        let mut left = None;
        if !core.garbage.is_empty() {
            let garbage = mem::take(&mut core.garbage);
            left = core.reaper.reap(garbage).err();
        }
        drop(core);
        self.bell.ring();
        drop(left);
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
        core.end();
        self.changed.notify_all();
        self.unlock(core);
    }

    fn wait_ready(&self) -> Result<(), Error> {
        let mut core = self.lock();
        loop {
            match core.session.ended() {
                Some(_) if core.no_peer => return Err(Error::NoPeer),
                _ if core.session.peer().is_some() => return Ok(()),
                Some(ended) => return Err(Error::Ended(ended)),
                None => core = self.wait(core),
            }
        }
    }

    fn write_loop(&self, mut write: impl Write) {
        // Also if the writer panics: it may be a closure of the user's.
        let _over = OnDrop(|| {
            let mut core = self.lock();
            core.deaf = true;
            self.changed.notify_all();
            self.unlock(core);
        });
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
            self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            if !buffer.is_empty() && mem::take(&mut hello) {
                self.uncount_hello(&buffer);
            }
            if core.waiting > 0 {
                self.changed.notify_all();
            }
            drop(core);
            if !buffer.is_empty() {
                result = write.write_all(&buffer).and_then(|()| write.flush());
                // More may have come while this was written; only then is there no other ring.
                self.bell.ring();
            } else if over {
                return;
            }
        }
    }

    /// Hello is not counted as traffic.
    fn uncount_hello(&self, bytes: &[u8]) {
        if let Split::Record { rest, .. } = split(bytes, u32::MAX) {
            self.bytes.fetch_sub((bytes.len() - rest.len()) as u64, Ordering::Relaxed);
        }
    }

    fn read_loop(self: &Arc<Self>, mut read: impl Read) {
        // Also if the reader panics: it may be a closure of the user's.
        let over = OnDrop(|| {
            let mut core = self.lock();
            core.session.link_lost();
            core.end();
            self.changed.notify_all();
            self.unlock(core);
        });
        if self.read_records(&mut read) == Some(NoPeer) {
            self.lock().no_peer = true;
        }
        drop(over);
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
                    let longest = (max_message as usize).saturating_add(8);
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
            start += self.take_records(received, max_message, &mut hello)?;
        }
    }

    /// Takes all whole records and tells how many bytes they were; None if the session is over. `hello` says that Hello has
    /// not come yet.
    fn take_records(self: &Arc<Self>, stream: &[u8], max_message: u32, hello: &mut bool) -> Option<usize> {
        let mut received = stream;
        let mut core = self.lock();
        // A Hello may be longer than what is accepted later (HEL-2).
        let max_message = if *hello { max_message.max(Hello::MAX_LENGTH as u32) } else { max_message };
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
        let used = stream.len() - received.len();
        self.bytes.fetch_add(used as u64, Ordering::Relaxed);
        if used > 0 && mem::take(hello) {
            self.uncount_hello(stream);
        }
        core.take_notices();
        self.changed.notify_all();
        self.unlock(core);
        (!over).then_some(used)
    }
}

/// That the stream holds no preamble.
#[derive(PartialEq)]
struct NoPeer;

impl Core {
    fn take_record(&mut self, shared: &Arc<Shared>, body: &[u8]) -> Result<(), Ended> {
        match self.session.handle(body)? {
            Some(Event::Request(request)) => self.serve(shared, &request),
            Some(Event::Return(returned)) => {
                let result = call::read_outcome(self, shared, &returned);
                if let Some((_, state)) = self.calls.remove(&returned.question.id()) {
                    let named = state.settle(result);
                    self.garbage.push(Garbage::named(named));
                    self.garbage.push(Garbage::call(state));
                }
            }
            Some(Event::Ready) => {
                let peer = self.session.peer().map(|hello| (hello.peer, hello.incarnation));
                if peer == Some(self.own) {
                    // Our own Hello: the channel gives back what is written into it (HEL-5).
                    self.no_peer = true;
                    self.session.close(CloseCode::ProtocolFault);
                    return Err(Ended::Closed(CloseCode::ProtocolFault));
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Calls that waited for an answer of ours and may run now.
    pub fn take_ready(&mut self, shared: &Arc<Shared>) {
        let mut scratch = Vec::new();
        while self.session.has_ready() {
            if scratch.is_empty() {
                // Zeroed by the operating system, and only as far as it is used; `resize` would touch all of it.
                scratch = vec![0; self.session.limits().max_message as usize];
            }
            let Some(request) = self.session.poll_ready(&mut scratch) else { break };
            self.serve(shared, &request);
        }
    }

    fn serve(&mut self, shared: &Arc<Shared>, request: &Request<'_>) {
        let Some(job) = Job::new(self, shared, request) else { return };
        let answer = job.answer();
        if let Err(work) = self.workers.serve(job, request.parent.map(Question::id)) {
            let _ = self.session.refuse(answer, ErrorCode::Overloaded, 0);
            self.garbage.push(Garbage::work(work));
        }
    }

    /// Looks after what became true: objects that nobody holds any more are let go.
    pub fn take_notices(&mut self) {
        while let Some(notice) = self.session.poll_notice() {
            match notice {
                Notice::Freed(key) => self.garbage.extend(self.objects.remove(key).map(Garbage::object)),
                // Threads cannot be stopped; the call goes on, and its caller is told what happened.
                Notice::Interrupted(_) => {}
            }
        }
    }

    /// Whether nothing can be sent any more.
    pub fn is_over(&self) -> bool {
        self.deaf || self.closing
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
                    let call = self.calls.remove(&question.id());
                    self.garbage.extend(call.map(|(_, state)| Garbage::call(state)));
                }
            }
        }
    }

    /// The session is over: whoever waits is told.
    fn end(&mut self) {
        self.closing = true;
        let ended = self.session.ended().unwrap_or(Ended::LinkLost);
        for (_, (_, state)) in self.calls.drain() {
            let named = state.settle(Err(Error::Ended(ended)));
            self.garbage.push(Garbage::named(named));
            self.garbage.push(Garbage::call(state));
        }
        self.garbage.extend(self.objects.clear().into_iter().map(Garbage::object));
        self.garbage.extend(self.workers.stop().into_iter().map(Garbage::work));
    }
}

/// Runs at the end of a scope, however it is left.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn config(options: &Options) -> Config {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Config {
        limits: Limits {
            max_message: options.max_message,
            // Slot 0 of both sides is the directory.
            imports: options.imports.saturating_add(1).min(Limits::MAX_IMPORTS),
            answers: options.serving,
            call_bytes: options.call_bytes,
            handles: options.handles,
            levels: options.levels,
        },
        exports: options.exports.saturating_add(1),
        calls: options.calls,
        out_bytes: options.output.max(128),
        store_bytes: options.store,
        peer: uuid::Uuid::new_v4(),
        incarnation: since.as_nanos() as u64,
    }
}
