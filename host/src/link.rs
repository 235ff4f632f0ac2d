//! One session and what belongs to it, under one lock; and the [`Link`] by which a backend drives it.
//!
//! No code of users runs under the lock, and nothing here does IO: bytes come in by [`Link::receive`] and go out by
//! [`Link::take_output`], both called by whoever has the stream.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use event_listener::{Event as Bell, EventListener, IntoNotification, Listener};
use farref_core::frame::{Split, split};
use farref_core::message::{CloseCode, ErrorCode, Limits};
use farref_core::session::{Config, Ended, Event, Host, Import, Notice, Question, Request, Session, Tables};

use crate::budget::{Budget, Charge};
use crate::call::{self, Caller, Serving};
use crate::connection::{Connection, Options};
use crate::error::Error;
use crate::many::{Manies, ManyKey};
use crate::object::Directory;
use crate::objects::LocalObjects;
use crate::pool::{Garbage, Work};
use crate::proxy::ProxyInner;
use crate::serve::{Done, Job, Lanes, Reply};

/// What a backend does for a session.
///
/// All may be called from any thread, [`Self::output`] and [`Self::run`] also while the session is locked: neither may wait or
/// come back to the session.
pub trait Driver: Send + Sync + 'static {
    /// There may be output: [`Link::take_output`] is to be called soon, from elsewhere.
    fn output(&self);

    /// There may be output, and the calling thread may wait: it can call [`Link::take_output`] itself.
    fn flush(&self, link: &Link) {
        let _ = link;
        self.output();
    }

    /// The calling thread waits for a call: returns when it was [unparked](std::thread::park), or at any other time. A driver
    /// may have the thread [receive](Link::receive) meanwhile, unless `is_over` says that what it waits for is there: that
    /// is to be asked when nobody else can receive.
    fn wait(&self, link: &Link, is_over: &mut dyn FnMut() -> bool) {
        let _ = (link, is_over);
        std::thread::park();
    }

    /// The session is over; output may be left. Called once or more often.
    fn ended(&self) {}

    /// Has work done on another thread or task. There has to be one for each piece of work that runs: a piece that waits
    /// for a nested call must not keep that from running.
    ///
    /// # Errors
    /// Gives the work back if it cannot be done now.
    fn run(&self, work: Work) -> Result<(), Work>;
}

/// A session as its backend sees it.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

/// What became of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// So many bytes were whole records and are done with.
    pub used: usize,
    /// How many bytes the next record has at least, those that came already included.
    pub wanted: usize,
    /// Whether there is something to be sent.
    pub output: Output,
    /// The session is over: nothing more is to be received.
    pub is_over: bool,
}

/// Whether there is something to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// No.
    None,
    /// Something that nobody waits for. It can go out with what comes next, if that is soon.
    Later,
    /// Something that the peer may wait for.
    Now,
}

impl Link {
    /// A session whose peer finds `directory`.
    pub fn new(directory: Directory, options: &Options, driver: Arc<dyn Driver>) -> Self {
        let config = config(options);
        let core = Core {
            session: Session::new(config),
            objects: LocalObjects::new(Arc::new(directory)),
            proxies: Vec::new(),
            calls: Vec::new(),
            manies: Manies::default(),
            lanes: Lanes::default(),
            inline: Vec::new(),
            done: Vec::new(),
            unsent: VecDeque::new(),
            garbage: Vec::new(),
            wakes: Vec::new(),
            scratch: Vec::new(),
            memory: options.memory.charge(),
            writing: 0,
            starved: false,
            said_hello: false,
            heard_hello: false,
            said_all: false,
            ending: false,
            deaf: false,
            draining: false,
            own: (config.peer, config.incarnation),
            failed: None,
        };
        Self(Arc::new(Shared {
            core: Mutex::new(core),
            dropped: Mutex::default(),
            has_dropped: AtomicBool::new(false),
            changed: Bell::new(),
            credits: Bell::new(),
            room: Bell::new(),
            is_lacking: AtomicBool::new(false),
            driver,
            memory: options.memory.clone(),
            bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        }))
    }

    /// The handle for users. When its last clone is dropped, the session is closed; so there is to be one such handle.
    pub fn connection(&self) -> Connection {
        Connection::new(self.0.clone())
    }

    /// The longest message that this side accepts, bytes.
    pub fn max_message(&self) -> u32 {
        self.0.lock().session.limits().max_message
    }

    /// Takes the whole records at the front of `stream` and serves what can be served here: objects that run inline.
    ///
    /// What this gives to be sent is to be looked for with [`Self::take_output`]; the [driver](Driver::output) is not told.
    pub fn receive(&self, stream: &[u8]) -> Received {
        let shared = &self.0;
        let mut core = shared.lock();
        let mut rest = stream;
        let mut wanted = 1;
        let mut is_over = core.session.ended().is_some();
        while !is_over {
            let most = if core.session.peer().is_some() { core.session.limits().max_message } else { BEFORE_HELLO };
            match split(rest, most) {
                Split::Record { body, rest: behind } => {
                    rest = behind;
                    is_over = core.take_record(shared, body).is_err();
                    core.take_ready(shared);
                    core.charge(shared);
                    is_over |= core.ending;
                    // Calls that follow may be for its answer. A few others are run together, between two turns of the lock.
                    if core.inline.len() >= TOGETHER || core.inline.last().is_some_and(Job::is_pipelined) {
                        core = shared.run_inline(core);
                    }
                }
                Split::Incomplete => {
                    wanted = farref_core::frame::wanted(rest);
                    break;
                }
                // The session says which rule it was; an empty body breaks the same one.
                Split::Bad => is_over = core.take_record(shared, &[]).is_err(),
            }
        }
        core = shared.run_inline(core);
        let used = stream.len() - rest.len();
        shared.count(stream, used, &mut core.heard_hello);
        core.take_notices();
        shared.tell(&mut core);
        if is_over {
            shared.changed.notify(usize::MAX);
        }
        let output = match core.session.has_output() {
            false => Output::None,
            true if is_over || core.session.output_len() > 0 => Output::Now,
            true => Output::Later,
        };
        shared.unlock_quietly(core);
        Received { used, wanted, output, is_over }
    }

    /// Takes all output by exchanging buffers: what is to be sent stands in `buffer` at the place that this tells; what was in
    /// there before is lost.
    ///
    /// None if there is no output and never will be.
    pub fn take_output(&self, buffer: &mut Vec<u8>) -> Option<Range<usize>> {
        let shared = &self.0;
        let mut core = shared.lock();
        let taken = core.session.swap_output(buffer);
        // There is room for replies again.
        if !core.unsent.is_empty() && !taken.is_empty() {
            core.retry_unsent(shared);
            core = shared.run_inline(core);
        }
        core.writing = buffer.capacity();
        core.charge(shared);
        if !taken.is_empty() {
            shared.count(&buffer[taken.clone()], taken.len(), &mut core.said_hello);
            if shared.is_lacking.load(Ordering::Relaxed) {
                shared.room.notify(usize::MAX);
            }
        }
        shared.tell(&mut core);
        core.take_notices();
        let is_over = taken.is_empty() && core.ending;
        if is_over && !mem::replace(&mut core.said_all, true) {
            shared.changed.notify(usize::MAX);
        }
        shared.unlock_quietly(core);
        (!is_over).then_some(taken)
    }

    /// The session could not begin: what those are told who wait for it to be ready. [`Self::end`] is to follow.
    pub fn fail(&self, error: Error) {
        self.0.lock().failed = Some(error);
    }

    /// One read from the stream was made, for [`Traffic::reads`](crate::Traffic::reads).
    pub fn count_read(&self) {
        self.0.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// One write to the stream was made, for [`Traffic::writes`](crate::Traffic::writes).
    pub fn count_write(&self) {
        self.0.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing more will be received. What was sent before may still be written.
    pub fn end(&self) {
        let mut core = self.0.lock();
        core.session.link_lost();
        self.0.end(core);
    }

    /// Nothing more can be sent. What the peer still sends may be received.
    pub fn deafen(&self) {
        let mut core = self.0.lock();
        (core.deaf, core.said_all) = (true, true);
        let unsent = mem::take(&mut core.unsent);
        core.garbage.extend(unsent.into_iter().filter_map(Reply::into_garbage));
        self.0.wake_all();
        self.0.unlock(core);
    }

    /// Ends the session for a reason that the peer is told.
    pub fn close(&self, code: CloseCode) {
        self.0.close(code);
    }

    /// Whether the peer's Hello has come.
    pub fn is_ready(&self) -> bool {
        self.0.lock().session.peer().is_some()
    }

    /// Waits until all calls of the peer have their Return. From now on new ones are refused as overloaded, but for those that
    /// calls of ours cause.
    pub async fn drain(&self) {
        self.0.lock().draining = true;
        self.0.until(Core::is_drained).await;
    }
}

/// The longest record before Hello: more than Hello may have, so that the session sees and says what is wrong with it (HEL-2),
/// and little for a stranger.
const BEFORE_HELLO: u32 = 1024;

/// Calls that run inline together: few enough for an allocator to have their memory at hand.
const TOGETHER: usize = 6;

/// What everybody shares. `core` is never held while code of users runs or the stream is used.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Proxies and calls dropped since the core was last looked at. Dropping must not take the core's lock: it may happen
    /// anywhere, under that very lock too.
    dropped: Mutex<Vec<Dropped>>,
    has_dropped: AtomicBool,
    /// The session became ready or is over.
    changed: Bell,
    /// For calls that wait for one of ours to be over, and for room for output.
    credits: Bell,
    room: Bell,
    /// Whether a call may wait for one of these.
    is_lacking: AtomicBool,
    driver: Arc<dyn Driver>,
    pub memory: Budget,
    pub bytes: AtomicU64,
    pub reads: AtomicU64,
    pub writes: AtomicU64,
}

/// What is under the lock.
pub(crate) struct Core {
    pub session: Session<Host>,
    pub objects: LocalObjects,
    /// The one proxy of each import, by slot.
    proxies: Vec<Weak<ProxyInner>>,
    /// Open calls by their id.
    calls: Vec<Option<(Question, Caller)>>,
    pub manies: Manies,
    pub lanes: Lanes,
    /// Calls of the peer to be run by whoever has the lock, as soon as it has given it up.
    pub inline: Vec<Job>,
    /// Room for what they gave.
    done: Vec<Done>,
    /// Replies for which there was no room.
    unsent: VecDeque<Reply>,
    /// What is left over since the last [`Shared::unlock`]: dropping it may run code of users.
    pub garbage: Vec<Garbage>,
    /// Who is to be woken when the lock is given up.
    pub wakes: Vec<Waker>,
    scratch: Vec<u8>,
    /// For all that it keeps, but for arguments and results.
    memory: Charge,
    /// Bytes of the buffer that output was last taken with.
    writing: usize,
    /// The session has just ended because there was no memory for it.
    starved: bool,
    said_hello: bool,
    heard_hello: bool,
    /// Everything that was to be sent was, or never will be.
    said_all: bool,
    /// The session is over and everybody was told.
    ending: bool,
    /// Nothing is written any more: the other side has stopped reading. What it still sends is read to its end.
    deaf: bool,
    draining: bool,
    /// Who we are, as Hello says it.
    own: (uuid::Uuid, u64),
    /// Why the session never began.
    pub failed: Option<Error>,
}

pub(crate) enum Dropped {
    Import(Import),
    Call(Question),
    Many(ManyKey),
}

/// What a call of ours has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    Credit,
    Room,
}

/// A panic of a user's object does not hold a lock of ours, so that what a lock guards is sound whatever happened.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The core, with all that was dropped told to it.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        let mut core = lock(&self.core);
        if self.has_dropped.load(Ordering::Acquire) {
            self.has_dropped.store(false, Ordering::Release);
            // The list's own lock is given up first: forgetting a call may drop others.
            let dropped = mem::take(&mut *lock(&self.dropped));
            for dropped in dropped {
                core.forget(dropped);
            }
            // Releases go out before what is done now: it may want the room.
            core.session.transmit();
        }
        core
    }

    /// Ends a piece of work under the lock: output is looked for, and what is left over is dropped elsewhere.
    pub fn unlock(&self, core: MutexGuard<'_, Core>) {
        self.unlock_quietly(core);
        self.driver.output();
    }

    /// As [`Self::unlock`], on a thread that may wait.
    pub fn unlock_and_flush(self: &Arc<Self>, core: MutexGuard<'_, Core>) {
        self.unlock_quietly(core);
        self.driver.flush(&Link(self.clone()));
    }

    /// As [`Self::unlock`], by whoever looks for output itself.
    fn unlock_quietly(&self, mut core: MutexGuard<'_, Core>) {
        let wakes = mem::take(&mut core.wakes);
        let garbage = mem::take(&mut core.garbage);
        let starved = mem::take(&mut core.starved);
        drop(core);
        wakes.into_iter().for_each(Waker::wake);
        if starved {
            self.wake_all();
            self.driver.output();
            self.driver.ended();
        }
        // Objects that run inline do not wait when they are dropped either. Others may call the peer then, and this may be
        // the thread that would have to read the answer.
        let (waiting, quick): (Vec<_>, Vec<_>) = match garbage.is_empty() {
            true => return,
            false => garbage.into_iter().partition(Garbage::may_wait),
        };
        drop(quick);
        if !waiting.is_empty() {
            drop(self.driver.run(Work::garbage(waiting)));
        }
    }

    /// Runs what can be run here, with the lock given up meanwhile.
    pub fn run_inline<'s>(self: &'s Arc<Self>, mut core: MutexGuard<'s, Core>) -> MutexGuard<'s, Core> {
        while !core.inline.is_empty() {
            let (mut jobs, mut done) = (mem::take(&mut core.inline), mem::take(&mut core.done));
            drop(core);
            let mut serving = Serving::over(self, true);
            done.extend(jobs.drain(..).map(|job| job.run(&mut serving)));
            core = self.lock();
            if core.inline.is_empty() {
                core.inline = jobs; // for its memory
            }
            done.drain(..).for_each(|done| core.finish(self, done));
            core.done = done;
        }
        core
    }

    /// A call of the peer was run elsewhere.
    pub fn finish(self: &Arc<Self>, done: Done) {
        let mut core = self.lock();
        core.finish(self, done);
        core = self.run_inline(core);
        core.charge(self);
        core.take_notices();
        self.tell(&mut core);
        self.unlock_and_flush(core);
    }

    /// Notes a dropped proxy or call, from wherever it happens.
    pub fn note_dropped(&self, dropped: Dropped) {
        lock(&self.dropped).push(dropped);
        self.has_dropped.store(true, Ordering::Release);
        self.driver.output();
    }

    /// Waits, blocking, for a future of this session.
    pub fn block_on<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        call::with_this_thread(|cx| {
            let mut output = None;
            let mut is_over = || {
                if output.is_none()
                    && let Poll::Ready(ready) = future.as_mut().poll(cx)
                {
                    output = Some(ready);
                }
                output.is_some()
            };
            while !is_over() {
                self.driver.wait(&Link(self.clone()), &mut is_over);
            }
            output.expect("it is over")
        })
    }

    /// To be called under the lock, so that nothing is missed.
    pub fn listen(&self, lack: Lack) -> EventListener {
        self.is_lacking.store(true, Ordering::Relaxed);
        match lack {
            Lack::Credit => self.credits.listen(),
            Lack::Room => self.room.listen(),
        }
    }

    /// A call that waited for credit will not use what it was told of.
    pub fn pass_on(&self) {
        self.credits.notify(1.additional());
    }

    /// Waits, blocking, until `found` finds something in the core; it is asked again when the session becomes ready or ends.
    /// None if the time is up.
    pub fn wait_for<T>(&self, mut found: impl FnMut(&Core) -> Option<T>, limit: Duration) -> Option<T> {
        let end = Instant::now().checked_add(limit);
        loop {
            let core = self.lock();
            if let Some(found) = found(&core) {
                return Some(found);
            }
            let listener = self.changed.listen();
            drop(core);
            match end {
                None => listener.wait(),
                Some(end) => listener.wait_deadline(end).map(drop)?,
            }
        }
    }

    /// As [`Self::wait_for`], for tasks.
    pub async fn until<T>(&self, mut found: impl FnMut(&Core) -> Option<T>) -> T {
        loop {
            let listener = {
                let core = self.lock();
                if let Some(found) = found(&core) {
                    return found;
                }
                self.changed.listen()
            };
            listener.await;
        }
    }

    /// As [`Link::drain`], blocking; false if the time is up.
    pub fn drain(&self, limit: Duration) -> bool {
        self.lock().draining = true;
        self.wait_for(Core::is_drained, limit).is_some()
    }

    pub fn close(&self, code: CloseCode) {
        let mut core = self.lock();
        if core.session.ended().is_none() {
            core.session.close(code);
        }
        self.end(core);
    }

    fn end(&self, mut core: MutexGuard<'_, Core>) {
        core.end();
        self.wake_all();
        self.unlock(core);
        self.driver.ended();
    }

    fn wake_all(&self) {
        self.changed.notify(usize::MAX);
        self.credits.notify(usize::MAX);
        self.room.notify(usize::MAX);
    }

    /// Tells calls that wait for credit how many may try, and who waits for the end of all calls.
    fn tell(&self, core: &mut Core) {
        if self.is_lacking.load(Ordering::Relaxed) {
            self.credits.notify(core.free_calls());
            let left = self.credits.total_listeners() + self.room.total_listeners();
            self.is_lacking.store(left > 0, Ordering::Relaxed);
        }
        if core.draining && core.is_drained().is_some() {
            self.changed.notify(usize::MAX);
        }
    }

    /// Counts traffic, but for Hello.
    fn count(&self, stream: &[u8], used: usize, hello: &mut bool) {
        let mut counted = used;
        if used > 0
            && !mem::replace(hello, true)
            && let Split::Record { rest, .. } = split(stream, u32::MAX)
        {
            counted -= stream.len() - rest.len();
            self.changed.notify(usize::MAX);
        }
        self.bytes.fetch_add(counted as u64, Ordering::Relaxed);
    }
}

impl Core {
    fn take_record(&mut self, shared: &Arc<Shared>, body: &[u8]) -> Result<(), Ended> {
        match self.session.handle(body)? {
            Some(Event::Request(request)) => self.serve(shared, &request),
            Some(Event::Return(returned)) => {
                let result = call::read_outcome(self, shared, &returned);
                if let Some(caller) = self.remove_call(returned.question) {
                    caller.settle(result, self);
                }
            }
            Some(Event::Ready) => {
                let peer = self.session.peer().map(|hello| (hello.peer, hello.incarnation));
                if peer == Some(self.own) {
                    // Our own Hello: the channel gives back what is written into it (HEL-5).
                    self.failed = Some(Error::NoPeer);
                    self.session.close(CloseCode::ProtocolFault);
                    return Err(Ended::Closed(CloseCode::ProtocolFault));
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Calls that waited for an answer of ours and may run now.
    fn take_ready(&mut self, shared: &Arc<Shared>) {
        let mut memory = shared.memory.charge();
        while self.session.has_ready() {
            let mut scratch = mem::take(&mut self.scratch);
            let length = self.session.limits().max_message as usize;
            // Without memory for it the calls are refused as overloaded.
            if scratch.is_empty() && memory.set(length) {
                // Zeroed by the operating system, and only as far as it is used; `resize` would touch all of it.
                scratch = vec![0; length];
            }
            let ready = self.session.poll_ready(&mut scratch);
            if let Some(request) = &ready {
                self.serve(shared, request);
            }
            let is_last = ready.is_none() || !self.session.has_ready();
            if !is_last {
                self.scratch = scratch;
            }
        }
    }

    fn serve(&mut self, shared: &Arc<Shared>, request: &Request<'_>) {
        if self.draining && request.parent.is_none() {
            let _ = self.session.refuse(request.call, ErrorCode::Overloaded, 0);
            return;
        }
        let Some(job) = Job::new(self, shared, request) else { return };
        // Most need not be moved around.
        if job.lane().is_none() && job.is_inline() {
            self.inline.push(job);
        } else if let Some(job) = self.lanes.enter(job) {
            self.dispatch(shared, job);
        }
    }

    /// Runs a call whose turn it is: here, as soon as the lock is given up, or elsewhere.
    fn dispatch(&mut self, shared: &Arc<Shared>, job: Job) {
        if job.is_inline() {
            self.inline.push(job);
            return;
        }
        let (answer, lane) = (job.answer(), job.lane());
        if let Err(work) = shared.driver.run(job.into_work(shared.clone())) {
            let _ = self.session.refuse(answer, ErrorCode::Overloaded, 0);
            self.garbage.push(Garbage::work(work));
            if let Some(next) = self.lanes.leave(lane) {
                self.dispatch(shared, next);
            }
        }
    }

    /// Replies to a call that was run, and lets those go on that waited for it.
    fn finish(&mut self, shared: &Arc<Shared>, done: Done) {
        let Done { reply, lane } = done;
        self.reply(shared, reply);
        if let Some(next) = self.lanes.leave(lane) {
            self.dispatch(shared, next);
        }
        self.take_ready(shared);
    }

    fn reply(&mut self, shared: &Arc<Shared>, reply: Reply) {
        if shared.memory.is_limited() {
            self.make_room(reply.memory());
        }
        match reply.send(self, shared) {
            Ok(garbage) => self.garbage.extend(garbage),
            Err(mut reply) => {
                // A result that nobody takes counts, and what cannot be kept is not lost without a word.
                if !reply.charge() {
                    self.garbage.extend(reply.refuse());
                }
                self.unsent.push_back(reply);
            }
        }
    }

    /// Charges what it takes now; if that is more than there is, the session is over.
    fn charge(&mut self, shared: &Shared) {
        if shared.memory.is_limited() {
            self.charge_with(0);
        }
    }

    /// Charges output before it grows to so many bytes more.
    fn make_room(&mut self, bytes: usize) {
        let (have, length) = (self.session.output_capacity(), self.session.output_len());
        if length + bytes > have {
            let grown = (length + bytes).next_power_of_two().min(length + self.session.room());
            self.charge_with(grown.saturating_sub(have));
        }
    }

    fn charge_with(&mut self, more: usize) {
        // In steps, so that what comes and goes at once costs nothing.
        let takes = (self.takes() + more).next_multiple_of(4096);
        if !self.memory.set(takes) && self.session.ended().is_none() {
            self.session.close(CloseCode::OutOfResources);
            self.end();
            self.starved = true;
        }
    }

    /// About how much memory is taken by what belongs to the session; objects and what they hold are not counted, and what is
    /// for a call of the peer is counted with it.
    fn takes(&self) -> usize {
        self.session.memory()
            + self.writing
            + self.objects.memory()
            + self.proxies.capacity() * size_of::<Weak<ProxyInner>>()
            + self.session.tables().imports as usize * OF_A_PROXY
            + self.calls.capacity() * OF_A_CALL
            + OF_A_SESSION
    }

    fn retry_unsent(&mut self, shared: &Arc<Shared>) {
        for _ in 0..self.unsent.len() {
            let Some(reply) = self.unsent.pop_front() else { break };
            self.reply(shared, reply);
        }
        self.take_ready(shared);
    }

    /// Looks after what became true: objects that nobody holds any more are let go.
    fn take_notices(&mut self) {
        while let Some(notice) = self.session.poll_notice() {
            match notice {
                Notice::Freed(key) => self.garbage.extend(self.objects.remove(key).map(Garbage::object)),
                // Threads cannot be stopped; the call goes on, and its caller is told what happened.
                Notice::Interrupted(_) => {}
            }
        }
    }

    pub fn add_call(&mut self, question: Question, caller: Caller) {
        let id = usize::from(question.id());
        if self.calls.len() <= id {
            self.calls.resize_with(id + 1, || None);
        }
        self.calls[id] = Some((question, caller));
    }

    fn remove_call(&mut self, question: Question) -> Option<Caller> {
        let open = self.calls.get_mut(usize::from(question.id()))?;
        match open {
            Some((have, _)) if *have == question => open.take().map(|(_, caller)| caller),
            _ => None,
        }
    }

    /// The call of ours with that question, if somebody waits for it.
    pub fn caller(&self, question: Question) -> Option<&Caller> {
        let (have, caller) = self.calls.get(usize::from(question.id()))?.as_ref()?;
        (*have == question).then_some(caller)
    }

    pub fn proxy_of(&self, import: Import) -> Option<Arc<ProxyInner>> {
        let proxy = self.proxies.get(import.slot() as usize)?.upgrade()?;
        (proxy.import() == import).then_some(proxy)
    }

    pub fn add_proxy(&mut self, import: Import, proxy: &Arc<ProxyInner>) {
        let slot = import.slot() as usize;
        if self.proxies.len() <= slot {
            self.proxies.resize_with(slot + 1, Weak::new);
        }
        self.proxies[slot] = Arc::downgrade(proxy);
    }

    /// Calls that could be made now, as far as ids go.
    fn free_calls(&self) -> usize {
        let most = self.session.peer().map_or(0, |peer| peer.limits.answers);
        usize::from(most).saturating_sub(self.session.tables().questions as usize)
    }

    /// Whether nothing can be sent any more.
    pub fn is_over(&self) -> bool {
        self.deaf || self.ending
    }

    /// If no call of the peer wants a Return any more.
    fn is_drained(&self) -> Option<()> {
        let is_idle = !self.session.is_serving() && self.unsent.is_empty();
        (is_idle || self.session.ended().is_some()).then_some(())
    }

    /// Why the session is over, once everything that it had to say was said.
    pub fn closed(&self) -> Option<Ended> {
        self.session.ended().filter(|_| self.said_all)
    }

    /// Whether all that was to be sent was taken.
    pub fn all_sent(&mut self) -> bool {
        self.unsent.is_empty() && self.session.transmit().is_empty()
    }

    /// Whether nothing is under way and all tables are as they were right after Hello.
    pub fn is_at_baseline(&self) -> bool {
        self.session.tables() == Tables { exports: 1, ..Tables::default() }
    }

    fn forget(&mut self, dropped: Dropped) {
        match dropped {
            Dropped::Import(import) => {
                if let Some(proxy) = self.proxies.get_mut(import.slot() as usize)
                    && proxy.strong_count() == 0
                {
                    *proxy = Weak::new();
                }
                let _ = self.session.release(import);
            }
            Dropped::Many(key) => {
                self.forget_many(key).into_iter().for_each(|question| self.forget(Dropped::Call(question)));
            }
            Dropped::Call(question) => {
                let _ = self.session.cancel(question, farref_core::message::FinishMode::Abandon);
                if let Some(caller) = self.remove_call(question) {
                    self.garbage.extend(caller.into_garbage());
                }
            }
        }
    }

    /// The session is over: whoever waits is told.
    fn end(&mut self) {
        self.ending = true;
        let ended = self.session.ended().unwrap_or(Ended::LinkLost);
        for (_, caller) in mem::take(&mut self.calls).into_iter().flatten() {
            caller.settle(Err(Error::Ended(ended)), self);
        }
        let unsent = mem::take(&mut self.unsent);
        self.garbage.extend(unsent.into_iter().filter_map(Reply::into_garbage));
        self.garbage.extend(self.objects.clear().into_iter().map(Garbage::object));
        let never_run = self.lanes.clear().into_iter().chain(mem::take(&mut self.inline));
        self.garbage.extend(never_run.map(Garbage::job));
    }
}

/// What a proxy takes, a call to the peer, and a session without either, with its task.
const OF_A_PROXY: usize = 64;
const OF_A_CALL: usize = 256;
const OF_A_SESSION: usize = 4096;

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
