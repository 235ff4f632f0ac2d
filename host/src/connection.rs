//! A session with a peer, as users see it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{fmt, io};

use farref_core::key::Key;
use farref_core::message::{CloseCode, DownReason};
use farref_core::session::{Ended, Import, Tables};

use crate::budget::Budget;
use crate::call::OpenCall;
use crate::core::Core;
use crate::current;
use crate::error::Error;
use crate::link::Link;
use crate::object::Object;
use crate::proxy::{Promise, Proxy};
use crate::resume::{LinkState, PeerIdentity, Resuming};
use crate::shared::Shared;
use crate::time::Deadline;
use crate::value::Value;

/// What a connection accepts and may use.
///
/// The peer is told of `max_message`, `imports`, `serving`, `call_bytes`, `handles` and `levels`, and keeps to them; one that
/// does not is faulty, and its session ends. Of two limits for one thing, ours and the peer's, the lower one counts. SECURITY.md
/// adds up what a peer can use of each.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest message accepted, bytes; at least 64. A result of the peer's that is longer becomes
    /// [`ErrorCode::ResultTooLarge`](crate::ErrorCode).
    pub max_message: u32,
    /// Objects of the peer held at a time; at most 2²⁴ − 1. A call of the peer with one more is not made, a result with one more
    /// becomes [`ErrorCode::TableFull`](crate::ErrorCode).
    pub imports: u32,
    /// Objects of this process that the peer may hold at a time. A call with one more fails with
    /// [`CallError::TableFull`](crate::CallError) before anything is sent, and a result as above.
    pub exports: u32,
    /// Calls of the peer served at a time, those that wait for promises or their turn included. The peer makes no more.
    pub serving: u16,
    /// Calls to the peer under way at a time. More of them wait, or fail within a call of the peer: see [`Remote`](crate::Remote).
    pub calls: u16,
    /// Bytes of calls of the peer being served or waiting. A call that may be as long as `max_message` needs as much here.
    pub call_bytes: u32,
    /// References in one message.
    pub handles: u16,
    /// Levels of nested calls served: a call within no other is on the first, a callback within it on the second. At least 1.
    pub levels: u16,
    /// Bytes of output that may wait; a message may have 64 less. At least 128. Calls wait for room, replies are kept.
    pub output: usize,
    /// Bytes of calls that wait for promises, and of results kept for pipelined calls. Beyond it these calls are refused.
    pub store: usize,
    /// How long the peer may take from the start until its Hello is read, a banner and a login included;
    /// [`Duration::MAX`] is no limit.
    pub handshake: Duration,
    /// What the peer has to know as well, before anything else is said: see [`Key`]. Sockets only; a backend that
    /// cannot check it refuses to connect.
    pub key: Option<Key>,
    /// How long a call may take that says nothing else of it ([`Proxy::with_deadline`]) and is part of no other. None is for ever.
    pub deadline: Option<Deadline>,
    /// For how long silence of the peer is borne; then the session ends with [`Ended::Silent`]. [`Duration::ZERO`] is for ever;
    /// the peer's wish is met all the same, by a Ping of two bytes now and then. None is the transport's own choice.
    ///
    /// That is two minutes for TCP and TLS: a host that was switched off or a router that forgot the connection tell nobody, and
    /// routers forget after four minutes of silence at the earliest that is in use. A program that a debugger has stopped is
    /// rarely stopped for longer. Pipes and Unix sockets end with the process behind them: they bear silence for ever.
    /// Lines that may lose bytes bear half a minute of it, and with [`Self::resume`] as long as it says at least.
    pub patience: Option<Duration>,
    /// How long output may wait for a peer that reads nothing, until the session ends. [`Duration::MAX`] is no limit. Sockets
    /// only: a pipe cannot tell.
    pub stall: Duration,
    /// Memory that it shares with other connections: a limit for all of them together, below the sum of what each may take.
    pub memory: Budget,
    /// Whether sessions go on over another connection when theirs is lost, if the peer offers that too; else they end with it.
    /// What is sent is then kept until the peer has acknowledged it: `output` is for both, what waits and what is kept. The
    /// backends say where they can do it.
    pub resume: Option<Resuming>,
    /// Who this side is; drawn at random for each connection, or for each server, if it is not said. Both ends of a session must
    /// not be the same. A client that has a name of its own and starts again makes its server give up at once what it keeps of
    /// the sessions before.
    pub identity: Option<PeerIdentity>,
}

impl Default for Options {
    /// For hosts and for peers that are trusted to use some memory: messages of 4 MiB, a million references, 64 calls served
    /// at a time, 10 seconds for the handshake and 30 of stalling.
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
            handshake: Duration::from_secs(10),
            key: None,
            deadline: None,
            patience: None,
            stall: Duration::from_secs(30),
            memory: Budget::unlimited(),
            resume: None,
            identity: None,
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
    /// Reads from the stream that brought something, and writes to it: system calls, where the stream is the operating
    /// system's.
    pub reads: u64,
    /// See [`Self::reads`].
    pub writes: u64,
    /// Round trips that this thread has waited for: the longest chain of messages of which each had to wait for the one
    /// before, as a clock would show it on which a message takes half a unit and computing takes no time. Tasks that share a
    /// thread share this, too.
    pub round_trips: u64,
}

/// How long the last output of a session is waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A session with a peer. Clones share it; when the last one is dropped, it is closed.
#[derive(Clone)]
pub struct Connection(Arc<Handle>);

struct Handle(Arc<Shared>);

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Handle(shared)))
    }

    /// The peer's directory: its named roots.
    pub fn root(&self) -> Proxy {
        self.shared().lock_only().proxy(self.shared(), Import::DIRECTORY, false, false)
    }

    /// A promise that is kept already: `value`, where something is asked for that may be on its way. Nothing is sent for it.
    pub fn settled(&self, value: impl Into<Value>) -> Promise {
        Promise(Arc::new(OpenCall::settled(self.shared().clone(), Ok(value.into()), current::now())))
    }

    /// The longest message that the peer takes, bytes: what a result has to fit into. 0 before its Hello.
    pub fn peer_max_message(&self) -> u32 {
        self.shared().lock().session.peer().map_or(0, |peer| peer.limits.max_message)
    }

    /// The longest message that this side takes, bytes: what a result of the peer's has to fit into.
    pub fn max_message(&self) -> u32 {
        self.shared().lock().session.limits().max_message
    }

    /// Waits, blocking, for the peer's Hello. The backends do so before they hand a connection out.
    ///
    /// # Errors
    /// [`Error::NoPeer`] if no preamble comes, [`Error::Ended`] if the session ends before it began, [`Error::Io`] with
    /// [`TimedOut`](io::ErrorKind::TimedOut) if the time is up.
    pub fn wait_ready(&self, limit: Duration) -> Result<(), Error> {
        self.shared().wait_for(is_ready, limit).unwrap_or_else(|| {
            Err(Error::Io(io::ErrorKind::TimedOut, format!("no farref peer answered within {limit:?}")))
        })
    }

    /// As [`Self::wait_ready`], for tasks, without a limit of its own: the backend's ends the session.
    ///
    /// # Errors
    /// As [`Self::wait_ready`].
    pub async fn ready(&self) -> Result<(), Error> {
        self.shared().until(is_ready).await
    }

    /// Whether there is a connection, or since when there is none.
    pub fn link(&self) -> LinkState {
        self.shared().lock().link_state()
    }

    /// Waits until that is something else than `seen`.
    pub async fn link_changed(&self, seen: &LinkState) -> LinkState {
        self.shared().until(|core| Some(core.link_state()).filter(|state| state != seen)).await
    }

    /// As [`Self::link_changed`], blocking; None if it is the same when the time is up.
    pub fn wait_link_changed(&self, seen: &LinkState, limit: Duration) -> Option<LinkState> {
        self.shared().wait_for(|core| Some(core.link_state()).filter(|state| state != seen), limit)
    }

    /// Waits, blocking, until the session is over and its last words are written, if the peer takes them within two seconds,
    /// and tells why.
    pub fn wait_closed(&self) -> Ended {
        let shared = self.shared();
        let ended = shared.wait_for(|core| core.session.ended(), Duration::MAX).unwrap_or(Ended::LinkLost);
        shared.wait_for(Core::closed, LAST_WORDS).unwrap_or(ended)
    }

    /// As [`Self::wait_closed`], for tasks. The backend limits how long last words may take.
    pub async fn closed(&self) -> Ended {
        self.shared().until(Core::closed).await
    }

    /// Lets the calls of the peer that are under way end, for as long as `limit` at most, and then closes the session; tells
    /// whether all of them ended. Meanwhile new ones are refused as overloaded, but for those that calls of ours cause.
    ///
    /// It waits, blocking. With sockets a server does this for all sessions together.
    pub fn drain(&self, limit: Duration) -> bool {
        let is_drained = self.shared().drain(limit);
        self.close();
        is_drained
    }

    /// Ends the session when nothing is under way any more, either way, and waits for that: no call is lost (CLS-2). Calls of
    /// the peer are served until then; those of this side fail with [`CallError::Leaving`](crate::CallError), unless they are
    /// part of one of the peer's. It takes as long as the peer takes: [`Self::close`] ends the wait.
    ///
    /// Gives [`Ended::Done`], or what has ended the session instead.
    pub async fn shutdown(&self) -> Ended {
        self.leave();
        self.closed().await
    }

    /// As [`Self::shutdown`], blocking, for as long as `limit` at most; then it is closed. Tells whether nothing was lost.
    pub fn shutdown_within(&self, limit: Duration) -> bool {
        self.leave();
        let ended = self.shared().wait_for(Core::closed, limit);
        if ended.is_none() {
            self.close();
        }
        ended == Some(Ended::Done)
    }

    fn leave(&self) {
        Link(self.shared().clone()).shutdown();
    }

    /// Withdraws an object of this process from the peer, for good, with all weak references to it: calls on it that have not
    /// started fail with [`ErrorCode::Revoked`](crate::ErrorCode), those that run go on, and whoever
    /// [monitors](crate::Proxy::down) it is told. False if the peer does not hold it.
    ///
    /// If the object is sent again, or is fetched from another object that gives it, the peer has a new reference.
    pub fn revoke(&self, object: &Arc<dyn Object>, reason: DownReason) -> bool {
        let mut core = self.shared().lock();
        let is_held = core.revoke(self.shared(), object, reason);
        self.shared().unlock(core);
        is_held
    }

    /// Says Close and ends the session, for all clones. What is under way fails with [`Error::Ended`], both ways; whether it took
    /// effect is unknown. Objects that the peer held are dropped. Returns at once: [`Self::wait_closed`] or [`Self::closed`]
    /// tell when the last was said.
    pub fn close(&self) {
        self.shared().close(CloseCode::Leaving);
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
        let at_baseline = core.session.is_up() && core.all_sent() && core.is_at_baseline();
        self.shared().unlock(core);
        at_baseline
    }

    /// What went over the wire so far.
    pub fn traffic(&self) -> Traffic {
        let shared = self.shared();
        let (sent, received) = shared.lock().session.ordinals();
        Traffic {
            messages: sent + received,
            bytes: shared.bytes.load(Ordering::Relaxed),
            reads: shared.reads.load(Ordering::Relaxed),
            writes: shared.writes.load(Ordering::Relaxed),
            round_trips: current::now(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connection").field("tables", &self.tables()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close(CloseCode::Leaving);
    }
}

fn is_ready(core: &Core) -> Option<Result<(), Error>> {
    match core.session.ended() {
        Some(_) if core.failed.is_some() => core.failed.clone().map(Err),
        _ if core.session.peer().is_some() => Some(Ok(())),
        Some(ended) => Some(Err(Error::Ended(ended))),
        None => None,
    }
}
