//! Many sessions with whoever connects: listening, limits for all of them together, and a graceful end.

mod line;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farref_core::key::Role;
use farref_core::message::Resume;
use farref_host::{
    Budget, CloseCode, Connection, Directory, DownReason, Error, Link, Object, Options, PeerIdentity, Threads,
};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::Instrument;

use crate::connect::{Carried, Patience, carry, over_tcp};
use crate::driver::{After, Carrier, Handover, OnDrop, Stream, Tasks, wait_parked};
use crate::first::{self, First};
use crate::key;
use crate::parked::{Gone, Parked};

/// What a server accepts and may use.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// What each connection may use, and the key that its peer has to know; its [`Options::memory`] is replaced by that of the
    /// server.
    pub connection: Options,
    /// Sessions at a time. A peer that would be one more is told that the server is out of resources.
    pub connections: usize,
    /// Connections at a time whose peer has not said Hello yet. One more ends the oldest of them.
    pub handshakes: usize,
    /// Threads that serve objects which may wait, for all connections together. Calls for which there is none are refused as
    /// overloaded. Objects that run inline or as tasks need none.
    pub threads: usize,
    /// Bytes for buffers, arguments and results of all connections together: see [`Budget`]. [`usize::MAX`] is no limit, and
    /// nothing is counted.
    pub memory: usize,
    /// Sessions at a time that have no connection and wait for another one, if [`Options::resume`] lets them. They count among
    /// `connections` as well. One more, or one that needs its place there, ends the one that has waited longest; so does
    /// a peer that begins a session and could know that another one of it is lost, see [`Options::identity`].
    pub parked: usize,
    /// Bytes of `memory` that these may take together.
    pub parked_memory: usize,
    /// Who is admitted, to begin a session and to resume one.
    pub validator: Validator,
}

impl Default for ServerOptions {
    /// For strangers: 1,024 connections, 128 more in the handshake, 256 threads, 256 MiB; for each connection messages of
    /// 1 MiB, 65,536 references each way, and 64 calls at a time, of 1 MiB together. Everybody is admitted. Sessions end with
    /// their connections; if that is changed, 256 of them wait for another one, with 64 MiB.
    fn default() -> Self {
        let connection = Options {
            max_message: 1 << 20,
            imports: 1 << 16,
            exports: 1 << 16,
            call_bytes: 1 << 20,
            output: 4 << 20,
            store: 2 << 20,
            ..Options::default()
        };
        Self {
            connection,
            connections: 1024,
            handshakes: 128,
            threads: 256,
            memory: 256 << 20,
            parked: 256,
            parked_memory: 64 << 20,
            validator: Validator::default(),
        }
    }
}

/// Who connects, as far as it is known before a session begins.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Peer {
    /// Where from.
    pub address: PeerAddress,
    /// Whether it came to [`Server::listen_tls`].
    pub is_encrypted: bool,
    /// The certificate that it showed to [`Server::listen_tls`], which was found to be good.
    #[cfg(feature = "tls")]
    pub certificate: Option<crate::Certificate>,
}

/// Where a peer connects from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerAddress {
    /// TCP, encrypted or not.
    Tcp(SocketAddr),
    /// A Unix socket; with the process's user, where the system tells.
    Unix(Option<u32>),
    /// A stream that the program opened itself, by the name that it gave.
    Other(String),
}

impl Peer {
    /// A peer about which nothing is known but a name.
    pub fn named(name: impl Into<String>) -> Self {
        Self::at(PeerAddress::Other(name.into()))
    }

    fn at(address: PeerAddress) -> Self {
        Self {
            address,
            is_encrypted: false,
            #[cfg(feature = "tls")]
            certificate: None,
        }
    }

    /// Whether it may go on with a session of `other` whose token it knows: it has to come by the same way and show the same.
    /// Its address may be another.
    fn may_resume(&self, other: &Self) -> bool {
        let by_same_way = match (&self.address, &other.address) {
            (PeerAddress::Tcp(_), PeerAddress::Tcp(_)) => self.is_encrypted == other.is_encrypted,
            (PeerAddress::Unix(user), PeerAddress::Unix(before)) => user == before,
            (PeerAddress::Other(_), PeerAddress::Other(_)) => true,
            _ => false,
        };
        #[cfg(feature = "tls")]
        let shows_the_same = self.certificate == other.certificate;
        #[cfg(not(feature = "tls"))]
        let shows_the_same = true;
        by_same_way && shows_the_same
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(out)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix(Some(user)) => write!(out, "user {user}"),
            Self::Unix(None) => out.write_str("a Unix socket"),
            Self::Other(name) => out.write_str(name),
        }
    }
}

/// Decides who is admitted: a function of the [`Peer`], after TLS and the key. Who is not is told so, and nothing else.
#[derive(Clone)]
pub struct Validator(Arc<dyn Fn(&Peer) -> bool + Send + Sync>);

impl Validator {
    /// Admits those for whom the function is true. It runs on the runtime and must not wait.
    pub fn new(admits: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(admits))
    }
}

impl Default for Validator {
    /// Admits everybody.
    fn default() -> Self {
        Self::new(|_| true)
    }
}

impl fmt::Debug for Validator {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Validator")
    }
}

/// Serves a directory to all who connect. Clones are the same server; it goes on until [`Self::shut_down`], or until the
/// runtime ends.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    directory: Directory,
    options: ServerOptions,
    threads: Arc<Threads>,
    state: Mutex<State>,
    /// Sessions that are open, or none any more since it has shut down.
    open: watch::Sender<Option<usize>>,
    /// Whether it shuts down, for lines between two sessions.
    leaving: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<u64, Open>,
    /// Those that can be resumed, by token. What the hash takes depends on a secret of this map, so that the time that a look
    /// takes says nothing of the tokens in it.
    tokens: HashMap<[u8; 16], u64>,
    parked: Parked,
    gone: Gone,
    /// The oldest first.
    handshakes: VecDeque<(u64, Option<AbortHandle>)>,
    listening: Vec<AbortHandle>,
    next: u64,
    is_leaving: bool,
    counters: Counters,
}

/// What happened at a server so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that came.
    pub accepted: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Sessions that are open now.
    pub open: u64,
    /// Connections that were turned away, by the validator or since there were too many.
    pub refused: u64,
    /// Connections that never became sessions: no farref peer, no Hello in time, cut before.
    pub failed: u64,
    /// Sessions that have no connection now.
    pub parked: u64,
    /// Connections over which a session went on.
    pub resumed: u64,
    /// Sessions without a connection that were given up for others, or since their peer has started again.
    pub evicted: u64,
    /// Bytes of [`ServerOptions::memory`] in use.
    pub memory: u64,
    /// Threads that serve or wait for work.
    pub threads: u64,
}

impl Server {
    /// A server that listens nowhere yet.
    pub fn new(directory: Directory, mut options: ServerOptions) -> Self {
        options.connection.memory = match options.memory {
            usize::MAX => Budget::unlimited(),
            bytes => Budget::new(bytes),
        };
        // One for all sessions: by it a peer knows later whether it is still the same server.
        options.connection.identity.get_or_insert_with(PeerIdentity::random);
        let threads = Arc::new(Threads::new(options.threads));
        let (open, _) = watch::channel(Some(0));
        let leaving = watch::Sender::new(false);
        Self(Arc::new(Inner { directory, options, threads, state: Mutex::default(), open, leaving }))
    }

    /// Listens on TCP, without encryption: see SECURITY.md for who can listen in. Port 0 is any free one; the address is told.
    pub async fn listen_tcp(&self, address: impl ToSocketAddrs) -> Result<SocketAddr, Error> {
        let listener = TcpListener::bind(address).await?;
        self.listen_on(listener, Self::serve)
    }

    /// As [`Self::listen_tcp`], encrypted.
    #[cfg(feature = "tls")]
    pub async fn listen_tls(&self, address: impl ToSocketAddrs, tls: &crate::TlsServer) -> Result<SocketAddr, Error> {
        let listener = TcpListener::bind(address).await?;
        let tls = tls.clone();
        self.listen_on(listener, move |server, stream, peer| {
            let tls = tls.clone();
            let address = peer.address.clone();
            server.take(&address, async move {
                let (stream, certificate) = tls.accept(stream).await?;
                Ok((stream, Peer { certificate, is_encrypted: true, ..peer }))
            });
        })
    }

    fn listen_on(
        &self,
        listener: TcpListener,
        take: impl Fn(&Self, TcpStream, Peer) + Send + 'static,
    ) -> Result<SocketAddr, Error> {
        let local = listener.local_addr()?;
        let server = self.clone();
        self.listen(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, address)) => {
                        let _ = stream.set_nodelay(true);
                        take(&server, stream, Peer::at(PeerAddress::Tcp(address)));
                    }
                    Err(error) => not_accepted(&error).await,
                }
                // Who has come has a turn before the next, who might push it out.
                tokio::task::yield_now().await;
            }
        });
        Ok(local)
    }

    /// Listens on a Unix socket that only this process's user can reach (mode 0600). A socket that nobody listens to any more is
    /// replaced; it is removed when the server shuts down.
    #[cfg(unix)]
    pub async fn listen_unix(&self, path: impl AsRef<std::path::Path>) -> Result<(), Error> {
        let socket = crate::unix::Socket::bind(path.as_ref())?;
        let server = self.clone();
        self.listen(async move {
            loop {
                match socket.accept().await {
                    Ok(stream) => {
                        let user = stream.peer_cred().ok().map(|who| who.uid());
                        server.serve(stream, Peer::at(PeerAddress::Unix(user)));
                    }
                    Err(error) => not_accepted(&error).await,
                }
                tokio::task::yield_now().await;
            }
        });
        Ok(())
    }

    fn listen(&self, accept: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.state();
        if !state.is_leaving {
            state.listening.push(tokio::spawn(accept).abort_handle());
        }
    }

    /// Serves a peer over a stream that was accepted elsewhere. It is one of those that the server counts and limits.
    pub fn serve(&self, stream: impl Stream, peer: Peer) {
        let address = peer.address.clone();
        self.take(&address, async { Ok((stream, peer)) });
    }

    /// Serves a peer from this address once its stream is `opened`, which is a part of the handshake.
    fn take<S: Stream>(
        &self,
        from: &PeerAddress,
        opened: impl Future<Output = Result<(S, Peer), Error>> + Send + 'static,
    ) {
        let span = tracing::info_span!("session", peer = %from);
        let Some(place) = self.enter() else { return };
        let id = place.id;
        // A runtime that shuts down drops the task here, and its place, so that the state is not locked.
        let task = tokio::spawn(place.run(opened).instrument(span)).abort_handle();
        let State { handshakes, sessions, .. } = &mut *self.state();
        match handshakes.iter_mut().find(|(have, _)| *have == id) {
            Some((_, handle)) => *handle = Some(task),
            None if sessions.contains_key(&id) => {}
            None => task.abort(),
        }
    }

    /// A place among those that have not said Hello. If there are too many, the oldest goes.
    fn enter(&self) -> Option<Place> {
        let mut state = self.state();
        state.counters.accepted += 1;
        if state.is_leaving {
            return None;
        }
        let id = state.next;
        state.next += 1;
        state.handshakes.push_back((id, None));
        if state.handshakes.len() > self.0.options.handshakes.max(1)
            && let Some((_, Some(oldest))) = state.handshakes.pop_front()
        {
            oldest.abort();
        }
        Some(Place { server: self.clone(), id, is_on_line: false, has_failed: true })
    }

    /// Withdraws an object from the peers of all sessions that are open: see [`Connection::revoke`]. Tells how many held it.
    pub fn revoke(&self, object: &Arc<dyn Object>, reason: DownReason) -> usize {
        self.connections().iter().filter(|connection| connection.revoke(object, reason)).count()
    }

    /// The sessions that are open: to call their peers, say.
    pub fn connections(&self) -> Vec<Connection> {
        self.state().sessions.values().map(|open| open.connection.clone()).collect()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let state = self.state();
        Counters {
            open: state.sessions.len() as u64,
            parked: state.parked.len() as u64,
            memory: self.0.options.connection.memory.used() as u64,
            threads: self.0.threads.count() as u64,
            ..state.counters
        }
    }

    /// Listens no more, lets the calls that are under way end, for as long as `grace` at most, and ends all sessions, as
    /// [`Connection::shutdown`] does where the peer joins in within that time. New calls are refused as overloaded meanwhile.
    /// Sessions that have no connection end at once.
    pub async fn shut_down(&self, grace: Duration) {
        let (parked, sessions): (Vec<_>, Vec<_>) = {
            let mut state = self.state();
            state.is_leaving = true;
            state.listening.drain(..).for_each(|listening| listening.abort());
            state.handshakes.drain(..).filter_map(|(_, task)| task).for_each(|task| task.abort());
            let State { sessions, parked, .. } = &*state;
            let links = sessions.iter().map(|(id, open)| (parked.has(*id), open.link.clone()));
            links.partition(|(is_parked, _)| *is_parked)
        };
        self.0.leaving.send_replace(true);
        parked.iter().for_each(|(_, link)| link.close(CloseCode::Leaving));
        let sessions: Vec<_> = sessions.into_iter().map(|(_, link)| link).collect();
        // All of them first, and then each is waited for.
        sessions.iter().for_each(Link::refuse_calls);
        let drained = async {
            for link in &sessions {
                link.drain().await;
            }
            for link in &sessions {
                link.shutdown();
            }
            for link in &sessions {
                link.closed().await;
            }
        };
        if tokio::time::timeout(grace, drained).await.is_err() {
            tracing::warn!("calls are cut off");
        }
        sessions.iter().for_each(|link| link.close(CloseCode::Leaving));
        let mut open = self.0.open.subscribe();
        let _ = open.wait_for(|open| open.is_none_or(|open| open == 0)).await;
        self.0.open.send_replace(None);
    }

    /// Waits until the server has shut down.
    pub async fn closed(&self) {
        let _ = self.0.open.subscribe().wait_for(Option::is_none).await;
    }

    fn tell(&self, state: &State) {
        self.0.open.send_replace(Some(state.sessions.len()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A session is over, or as good as over.
    fn remove(&mut self, id: u64) -> Option<Open> {
        self.parked.remove(id);
        let open = self.sessions.remove(&id)?;
        if let Some(token) = open.token {
            self.tokens.remove(&token);
            self.gone.add(token, open.link.got());
        }
        Some(open)
    }

    /// Gives up the session that has been without a connection longest. It is to be ended when the state is not locked.
    fn evict(&mut self) -> Option<Open> {
        while let Some(id) = self.parked.first() {
            if let Some(open) = self.remove(id) {
                self.counters.evicted += 1;
                return Some(open);
            }
        }
        None
    }

    /// Gives up the sessions without a connection for which this is so.
    fn lost_by(&mut self, is_so: impl Fn(&Open) -> bool) -> Vec<Open> {
        let lost: Vec<_> = self.parked.ids().filter(|id| self.sessions.get(id).is_some_and(&is_so)).collect();
        self.counters.evicted += lost.len() as u64;
        lost.into_iter().filter_map(|id| self.remove(id)).collect()
    }
}

/// A session that is open.
struct Open {
    link: Link,
    connection: Connection,
    tasks: Arc<Tasks>,
    peer: Peer,
    /// If it can be resumed.
    token: Option<[u8; 16]>,
}

impl Open {
    fn end(&self) {
        tracing::info!(parent: None, peer = %self.peer.address, "a session without a connection is given up");
        self.link.end();
    }
}

/// What carries a session from one connection to the next.
struct Carrying<'s> {
    server: &'s Server,
    id: u64,
    link: Link,
    tasks: Arc<Tasks>,
}

impl Carrying<'_> {
    async fn run<S: Stream>(&self, carrier: Carrier<S>) {
        let _over = OnDrop(self.link.clone());
        let mut after = carrier.run().await;
        let options = &self.server.0.options.connection;
        while let Some(resuming) = &options.resume {
            let stream = match after {
                After::Over => return,
                After::Taken(stream) => stream,
                After::Parked => {
                    self.park();
                    let stream = wait_parked(&self.link, &self.tasks, resuming.park).await;
                    self.server.state().parked.remove(self.id);
                    match stream {
                        Some(stream) => stream,
                        None => return tracing::info!("was without a connection for too long"),
                    }
                }
            };
            self.server.state().counters.resumed += 1;
            let patience = Patience::new(options);
            let carrier = Carrier::new(stream, self.link.clone(), self.tasks.clone(), options, patience);
            // Most connections never get here.
            after = Box::pin(carrier.run()).await;
        }
    }

    fn park(&self) {
        tracing::info!("has lost its connection");
        let memory = self.link.memory();
        let Inner { options, .. } = &*self.server.0;
        let mut evicted = Vec::new();
        {
            let mut state = self.server.state();
            state.parked.add(self.id, memory);
            while state.parked.len() > options.parked || state.parked.memory() > options.parked_memory {
                match state.evict() {
                    Some(open) => evicted.push(open),
                    None => break,
                }
            }
            self.server.tell(&state);
        }
        evicted.iter().for_each(Open::end);
    }
}

/// What a connection takes up at the server until its task ends, however it does.
struct Place {
    server: Server,
    id: u64,
    is_on_line: bool,
    /// It did not become a session and was not turned away.
    has_failed: bool,
}

impl Place {
    async fn run<S: Stream>(self, opened: impl Future<Output = Result<(S, Peer), Error>>) {
        let options = self.server.0.options.connection.clone();
        let patience = Patience::new(&options);
        let (stream, peer) = match patience.within(opened).await {
            Ok(opened) => opened,
            Err(error) => return tracing::info!(%error, "no session"),
        };
        match &options.key {
            None => self.begin(stream, peer, patience).await,
            Some(key) => match patience.within(key::check(stream, Role::Accepting, key)).await {
                Ok(stream) => self.begin(stream, peer, patience).await,
                Err(error) => tracing::info!(%error, "no session"),
            },
        }
    }

    async fn begin<S: Stream>(self, stream: S, peer: Peer, patience: Patience) {
        if self.server.0.options.connection.resume.is_none() {
            return self.hold(stream, peer, patience).await;
        }
        match Box::pin(patience.within(first::read(stream))).await {
            Ok(First::Session(stream)) => self.hold(stream, peer, patience).await,
            Ok(First::Resume(resume, stream)) => Box::pin(self.hand_over(resume, stream, &peer)).await,
            Err(error) => tracing::info!(%error, "no session"),
        }
    }

    /// A session goes on over this connection, if there is such a session.
    async fn hand_over(mut self, resume: Resume, stream: impl Stream, peer: &Peer) {
        if !(self.server.0.options.validator.0)(peer) {
            tracing::info!("not admitted");
            self.server.state().counters.refused += 1;
            self.has_failed = false;
            return;
        }
        let found = {
            let state = self.server.state();
            let open = state.tokens.get(&resume.token).and_then(|id| state.sessions.get(id));
            match open.filter(|open| peer.may_resume(&open.peer)) {
                Some(open) => Ok(open.tasks.clone()),
                None => Err(state.gone.got(&resume.token)),
            }
        };
        match found {
            Ok(tasks) => {
                self.has_failed = false;
                tasks.hand_over(Handover { resume, stream: Box::new(stream) });
            }
            Err(got) => {
                tracing::info!("no such session");
                let identity = self.server.0.options.connection.identity;
                let incarnation = identity.map_or(0, |identity| identity.incarnation);
                first::answer_gone(stream, incarnation, got).await;
            }
        }
    }

    /// Holds a session with a peer that has shown all that it has to.
    async fn hold(mut self, stream: impl Stream, peer: Peer, patience: Patience) {
        let Inner { directory, options, threads, .. } = &*self.server.0.clone();
        let connection_options = match peer.address {
            PeerAddress::Tcp(_) => over_tcp(options.connection.clone()),
            PeerAddress::Unix(_) | PeerAddress::Other(_) => options.connection.clone(),
        };
        let Carried { link, connection, tasks, carrier } =
            carry(stream, directory.clone(), &connection_options, patience, threads.clone());
        let is_admitted = (options.validator.0)(&peer);
        let open = Open { link: link.clone(), connection: connection.clone(), tasks: tasks.clone(), peer, token: None };
        let carrying = Carrying { server: &self.server.clone(), id: self.id, link: link.clone(), tasks };
        if !is_admitted {
            tracing::info!("not admitted");
            self.turn_away(&link, CloseCode::NotAllowed);
            return carrying.run(carrier).await;
        }
        let mut running = std::pin::pin!(carrying.run(carrier));
        let ready = tokio::select! {
            biased;
            ready = connection.ready() => ready,
            () = &mut running => return tracing::info!("no session"),
        };
        if let Err(error) = ready {
            tracing::info!(%error, "no session");
            drop(open);
        } else if self.admit(open) {
            tracing::debug!("begins");
        } else {
            tracing::warn!("too many connections");
            self.turn_away(&link, CloseCode::OutOfResources);
        }
        drop(connection);
        running.await;
        tracing::debug!("is over");
    }

    /// The peer said Hello: its session begins, unless there are too many.
    fn admit(&mut self, mut open: Open) -> bool {
        open.token = open.link.token();
        let identity = open.link.peer();
        let Inner { options, .. } = &*self.server.0;
        let mut state = self.server.state();
        // Those of its earlier incarnation wait for nobody (LNK-8).
        let before = state.lost_by(|other| {
            other.peer.may_resume(&open.peer)
                && identity
                    .zip(other.link.peer())
                    .is_some_and(|(new, old)| new.peer == old.peer && new.incarnation != old.incarnation)
        });
        let mut evicted = Vec::new();
        if state.sessions.len() >= options.connections {
            evicted.extend(state.evict());
        }
        // If it is there no more, it has just been ended, and the task will not go on.
        let place = state.handshakes.iter().position(|(id, _)| *id == self.id);
        let is_there = self.is_on_line || place.is_some();
        let is_admitted = is_there && state.sessions.len() < options.connections && !state.is_leaving;
        if is_admitted {
            place.and_then(|place| state.handshakes.remove(place));
            state.tokens.extend(open.token.map(|token| (token, self.id)));
            state.sessions.insert(self.id, open);
            state.counters.sessions += 1;
            self.has_failed = false;
        }
        self.server.tell(&state);
        drop(state);
        before.iter().for_each(|open| open.link.peer_restarted());
        evicted.iter().for_each(Open::end);
        is_admitted
    }

    /// It stays among the handshakes while its peer is told, so that there are never too many of these either.
    fn turn_away(&mut self, link: &Link, code: CloseCode) {
        link.close(code);
        self.server.state().counters.refused += 1;
        self.has_failed = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.server.state();
        state.handshakes.retain(|(id, _)| *id != self.id);
        state.counters.failed += u64::from(self.has_failed);
        let session = state.remove(self.id);
        if session.is_some() {
            self.server.tell(&state);
        }
        // Its last handle closes the session, which is not for when the state is locked.
        drop(state);
        drop(session);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Server").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// Accepting fails for a connection that is gone already, which costs nothing, or for want of file descriptors and the like,
/// which last: others are to end meanwhile.
async fn not_accepted(error: &io::Error) {
    tracing::warn!(%error, "cannot accept");
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
