//! The [`Link`] by which a backend drives a session.
//!
//! No code of users runs under the lock, and nothing here does IO: bytes come in by [`Link::receive`] and go out by
//! [`Link::take_output`], both called by whoever has the stream.

use std::mem;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use farref_core::frame::{Split, split};
use farref_core::message::{CloseCode, Resume};
use farref_core::session::{LinkMode, ResumeRefused};

use crate::connection::{Connection, Options};
use crate::core::{Core, Parked};
use crate::error::Error;
use crate::object::Directory;
use crate::pool::Work;
use crate::resume::{PeerIdentity, Resuming};
use crate::serve::{Job, Reply};
use crate::shared::Shared;

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

    /// From that moment on [`Link::advance`] is to be called, or, if it has passed, soon. An earlier call is replaced, unless
    /// it was for an earlier moment. A driver that leaves this out has no deadlines pass.
    fn wake_at(&self, at: Instant) {
        let _ = at;
    }

    /// The time, of which that of a session is counted. One that is not the computer's is for tests.
    fn now(&self) -> Instant {
        Instant::now()
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
pub struct Link(pub(crate) Arc<Shared>);

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

/// Output that was taken from the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Where it stands in the buffer. Empty if there is none at present.
    pub bytes: Range<usize>,
    /// There is more to take, or this was the last: [`Link::take_output`] is to be called again. If not, the
    /// [driver](Driver::output) is told when there is.
    pub more: bool,
}

/// A [`Link`] that keeps nothing.
#[derive(Clone)]
pub struct WeakLink(Weak<Shared>);

impl WeakLink {
    /// The link, if its session is still there.
    pub fn upgrade(&self) -> Option<Link> {
        self.0.upgrade().map(Link)
    }
}

impl Link {
    /// A session whose peer finds `directory`.
    pub fn new(directory: Directory, options: &Options, driver: Arc<dyn Driver>) -> Self {
        Self(Shared::new(directory, options, Resuming::mode(options.resume.as_ref()), driver))
    }

    /// The same on a line that loses what is sent: a [`Line`](crate::Line) drives it, in the place of [`Self::receive`] and
    /// [`Self::take_output`], and makes up for what is lost.
    pub fn on_line(directory: Directory, options: &Options, driver: Arc<dyn Driver>) -> Self {
        Self(Shared::new(directory, options, LinkMode::Line, driver))
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
        let room = core.session.room();
        while !is_over {
            let most = if core.session.peer().is_some() { core.session.limits().max_message } else { BEFORE_HELLO };
            match split(rest, most) {
                Split::Record { body, rest: behind } => {
                    rest = behind;
                    is_over = core.take(shared, body);
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
        if core.parked.is_some() && core.session.is_up() {
            core.is_up_again(shared);
        }
        core = shared.look_after(core, room);
        let used = stream.len() - rest.len();
        shared.count(stream, used, &mut core.heard_hello);
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
    pub fn take_output(&self, buffer: &mut Vec<u8>) -> Option<Taken> {
        let shared = &self.0;
        let mut core = shared.lock();
        let taken = core.session.swap_output(buffer);
        // The last Goodbye was the end (CLS-2).
        if core.session.ended().is_some() && !core.ending {
            core.end_itself();
        }
        // There is room for replies again.
        if !core.unsent.is_empty() && !taken.is_empty() {
            core.retry_unsent(shared);
            core = shared.run_inline(core);
        }
        core.writing = buffer.capacity();
        core.charge(shared);
        if !taken.is_empty() {
            shared.count(&buffer[taken.clone()], taken.len(), &mut core.said_hello);
            shared.tell_of_room();
        }
        shared.tell(&mut core);
        core.take_notices(shared);
        let is_over = taken.is_empty() && core.ending;
        if is_over && !mem::replace(&mut core.said_all, true) {
            shared.changed.notify(usize::MAX);
        }
        // Replies that had waited for room, or the end, which nobody else tells.
        let more = !taken.is_empty() && (core.session.has_output() || core.ending);
        shared.unlock_quietly(core);
        (!is_over).then_some(Taken { bytes: taken, more })
    }

    /// Does what is due at `now`: see [`Driver::wake_at`]. There may be output afterwards. Gives when to call it again.
    pub fn advance(&self, now: Instant) -> Option<Instant> {
        let mut core = self.0.lock();
        let next = core.advance_as_told(&self.0, now);
        self.0.unlock_quietly(core);
        next
    }

    /// The same link, without keeping the session.
    pub fn downgrade(&self) -> WeakLink {
        WeakLink(Arc::downgrade(&self.0))
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

    /// The connection is gone. If both sides have said that the session is to outlive it, the session is parked until
    /// [`Self::resume`] or [`Self::accept`]: calls go on to be made, and nothing is to be sent or received meanwhile. Else this
    /// is false, and nothing has changed: [`Self::end`] is to follow.
    pub fn park(&self) -> bool {
        let mut core = self.0.lock();
        // LNK-7 would let the side that connects begin again without the peer's Hello; but whoever waits for that is told now.
        let can_wait = core.session.ended().is_none() && core.session.is_resumable() && core.session.park();
        if can_wait {
            core.parked.get_or_insert_with(|| Parked { since: self.0.driver.now(), attempts: 0, last: None });
            self.0.changed.notify(usize::MAX);
        }
        self.0.unlock_quietly(core);
        can_wait
    }

    /// For the side that connects: another connection is tried for. Tells which attempt that is since the session was parked.
    pub fn attempt(&self) -> u32 {
        let mut core = self.0.lock();
        let attempts = core.parked.as_mut().map_or(0, |parked| {
            parked.attempts = parked.attempts.saturating_add(1);
            parked.attempts
        });
        self.0.changed.notify(usize::MAX);
        attempts
    }

    /// For how long the session has had no connection.
    pub fn parked_for(&self) -> Duration {
        self.0
            .lock()
            .parked
            .as_ref()
            .map_or(Duration::ZERO, |parked| self.0.driver.now().saturating_duration_since(parked.since))
    }

    /// What became of that, if it was nothing.
    pub fn attempt_failed(&self, error: Error) {
        let mut core = self.0.lock();
        if let Some(parked) = &mut core.parked {
            parked.last = Some(error);
        }
        self.0.changed.notify(usize::MAX);
    }

    /// For the side that connects: there is another connection. What is taken from now on is for it, behind the preamble.
    pub fn resume(&self) {
        let mut core = self.0.lock();
        if core.session.is_parked() {
            core.session.resume();
        }
        self.0.unlock(core);
    }

    /// For the side that accepts: another connection began with this. If it is for this session, the connection before is to be
    /// given up now, with all that it still brings: nothing of that may be [received](Self::receive) any more. What is taken
    /// from now on is for the other one, behind the preamble.
    ///
    /// # Errors
    /// The other connection is to be closed without an answer; the one before goes on as it was, unless the session is over.
    pub fn accept(&self, resume: &Resume) -> Result<(), ResumeRefused> {
        let mut core = self.0.lock();
        let room = core.session.room();
        let accepted = core.session.accept(resume);
        if accepted.is_ok() {
            core.is_up_again(&self.0);
        }
        if core.session.room() > room {
            core.retry_unsent(&self.0);
            self.0.tell_of_room();
        }
        core = self.0.run_inline(core);
        match core.session.ended() {
            Some(_) => self.0.end(core),
            None => self.0.unlock(core),
        }
        accepted
    }

    /// What the peer names the session by that it wants to resume, if it can be resumed.
    pub fn token(&self) -> Option<[u8; 16]> {
        self.0.lock().session.token()
    }

    /// How many messages of the peer have come, for a peer that resumes the session when it is over.
    pub fn got(&self) -> u64 {
        self.0.lock().session.got()
    }

    /// Who the peer is, once it has said Hello.
    pub fn peer(&self) -> Option<PeerIdentity> {
        self.0.lock().peer()
    }

    /// Who this side is.
    pub fn own(&self) -> PeerIdentity {
        self.0.lock().own
    }

    /// Whether the peer's Hello has come, and its answer after the session was resumed.
    pub fn is_up(&self) -> bool {
        let core = self.0.lock();
        core.session.peer().is_some() && core.session.is_up()
    }

    /// Whether the session lives and has no connection: it was [parked](Self::park), or the peer was silent for too long.
    pub fn is_parked(&self) -> bool {
        self.0.lock().session.is_parked()
    }

    /// Whether the peer was silent for so long that the session has given the connection up by itself, and
    /// [`Self::park`] is still to be called.
    pub fn fell_silent(&self) -> bool {
        let core = self.0.lock();
        core.session.is_parked() && core.parked.is_none()
    }

    /// Whether the session is over.
    pub fn is_over(&self) -> bool {
        self.0.lock().session.ended().is_some()
    }

    /// About how much memory the session takes, bytes.
    pub fn memory(&self) -> usize {
        self.0.lock().takes()
    }

    /// The peer has said Hello as another incarnation, so that the session is over.
    pub fn peer_restarted(&self) {
        let mut core = self.0.lock();
        core.session.peer_restarted();
        self.0.end(core);
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

    /// From now on new calls of the peer are refused as overloaded, but for those that calls of ours cause.
    pub fn refuse_calls(&self) {
        self.0.lock().draining = true;
    }

    /// Ends the session when nothing is under way any more: see [`Connection::shutdown`].
    pub fn shutdown(&self) {
        let mut core = self.0.lock();
        core.session.shutdown();
        self.0.unlock(core);
    }

    /// Waits until the session is over and its last words were taken.
    pub async fn closed(&self) {
        self.0.until(Core::closed).await;
    }

    /// [Refuses](Self::refuse_calls) new calls and waits until all others of the peer have their Return.
    pub async fn drain(&self) {
        self.refuse_calls();
        self.0.until(Core::is_drained).await;
    }
}

impl Core {
    /// Takes a record, and what it lets go on; true if the session is over then.
    pub(crate) fn take(&mut self, shared: &Arc<Shared>, body: &[u8]) -> bool {
        let is_over = self.take_record(shared, body).is_err();
        self.take_ready(shared);
        self.charge(shared);
        is_over || self.ending
    }

    pub(crate) fn is_up_again(&mut self, shared: &Shared) {
        self.parked = None;
        shared.changed.notify(usize::MAX);
    }
}

/// The longest record before Hello: more than Hello may have, so that the session sees and says what is wrong with it (HEL-2),
/// and little for a stranger.
const BEFORE_HELLO: u32 = 1024;

/// Calls that run inline together: few enough for an allocator to have their memory at hand.
const TOGETHER: usize = 6;
