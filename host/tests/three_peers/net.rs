//! Three hosts A, B and C in a row, with a session between A and B and one between B and C.
//!
//! Everything that happens is one of the steps in [`Net::step`], and a seed says which is next: a job goes on, a session
//! gives its output to a connection, some of it arrives, a timer ends. When nothing else can happen, time passes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::{Message, Resume};
use farref_core::session::session_gone;
use farref_host::{Connection, Directory, Link, Options, Output, PeerIdentity, Resuming};

use crate::desk::{Clock, Desk, Jobs, Owner, Random, lock};

pub const A: usize = 0;
pub const B: usize = 1;
pub const C: usize = 2;

/// The sessions: of A with B, and of B with C. The first of each opens the connections.
pub const NEAR: usize = 0;
pub const FAR: usize = 1;

/// Steps in which everything has to come to rest. More is a livelock.
const MAX_STEPS: usize = 1_000_000;

/// The connections that the programs of the hosts use, by session and end; others after a host has started again.
#[derive(Default)]
pub struct Peers(Mutex<[[Option<Connection>; 2]; 2]>);

impl Peers {
    pub fn get(&self, session: usize, end: usize) -> Option<Connection> {
        lock(&self.0)[session][end].clone()
    }

    fn set(&self, session: usize, end: usize, connection: Option<Connection>) {
        let before = std::mem::replace(&mut lock(&self.0)[session][end], connection);
        drop(before);
    }
}

/// One side of a session.
struct End {
    link: Link,
    desk: Arc<Desk>,
    /// Another session with that peer was begun.
    is_used: bool,
}

/// One direction of a connection.
struct Stream {
    flying: VecDeque<(u64, Vec<u8>)>,
    arrived: Vec<u8>,
    scanner: Option<PreambleScanner>,
    last: u64,
}

impl Stream {
    fn new() -> Self {
        Self { flying: VecDeque::new(), arrived: Vec::new(), scanner: Some(PreambleScanner::default()), last: 0 }
    }

    fn send(&mut self, now: u64, delay: u64, bytes: &[u8]) {
        self.last = self.last.max(now + delay);
        self.flying.push_back((self.last, bytes.to_vec()));
    }
}

/// A connection between two hosts, if there is one at present.
struct Wire {
    ends: [End; 2],
    streams: [Stream; 2],
    /// Whether each end has a connection, as far as it knows.
    up: [bool; 2],
    /// Whether the connection is lost, although an end may not know it yet.
    is_cut: bool,
    /// The side that accepts has not seen yet what the connection is for.
    is_new: bool,
    redial: Option<u64>,
    /// What the session before had got, for its peer to know (LNK-6).
    gone: Option<([u8; 16], u64)>,
}

/// How a test sets it up.
pub struct Setup {
    pub options: Options,
    /// The longest time that bytes are under way.
    pub delay: u64,
    /// Whether sessions outlive their connections.
    pub resume: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { options: Options::default(), delay: 10, resume: true }
    }
}

pub struct Net {
    pub random: Random,
    pub clock: Arc<Clock>,
    pub jobs: Arc<Jobs>,
    pub peers: Arc<Peers>,
    setup: Setup,
    directories: [Directory; 3],
    incarnations: [u64; 3],
    wires: Vec<Wire>,
    ids: u64,
}

impl Net {
    pub fn new(seed: u64, setup: Setup, directories: impl FnOnce(&Arc<Peers>, &Arc<Clock>) -> [Directory; 3]) -> Self {
        let (clock, peers) = (Clock::new(), Arc::<Peers>::default());
        let directories = directories(&peers, &clock);
        let mut net = Self {
            random: Random::new(seed),
            clock,
            jobs: Arc::default(),
            peers,
            setup,
            directories,
            incarnations: [1; 3],
            wires: Vec::new(),
            ids: 0,
        };
        for session in [NEAR, FAR] {
            let ends = [net.begin(session, 0), net.begin(session, 1)];
            net.wires.push(Wire {
                ends,
                streams: [Stream::new(), Stream::new()],
                up: [false; 2],
                is_cut: true,
                is_new: true,
                redial: Some(0),
                gone: None,
            });
        }
        net.run();
        net
    }

    pub fn connection(&self, session: usize, end: usize) -> Connection {
        self.peers.get(session, end).expect("there is a session")
    }

    /// Has a host do something.
    pub fn spawn(&self, host: usize, task: impl Future<Output = ()> + Send + 'static) {
        self.jobs.spawn(Owner::Program(host), Box::pin(task));
    }

    /// Has a host do something, and drives all until it is done.
    pub fn wait<T: Send + 'static>(&mut self, host: usize, task: impl Future<Output = T> + Send + 'static) -> T {
        let done = self.begin_task(host, task);
        for _ in 0..MAX_STEPS {
            if let Some(done) = lock(&done).take() {
                return done;
            }
            assert!(self.step(), "nothing is under way, and it is not done");
        }
        panic!("a livelock");
    }

    /// Has a host do something; what it gives stands there when it is done.
    pub fn begin_task<T: Send + 'static>(
        &self,
        host: usize,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Arc<Mutex<Option<T>>> {
        let done = Arc::new(Mutex::new(None));
        let result = done.clone();
        self.spawn(host, async move {
            let value = task.await;
            assert!(lock(&result).replace(value).is_none());
        });
        done
    }

    /// Drives all until nothing is under way.
    pub fn run(&mut self) {
        self.run_for(u64::MAX);
    }

    /// Drives all for so long.
    pub fn run_for(&mut self, time: u64) {
        let end = self.clock.now().saturating_add(time);
        for _ in 0..MAX_STEPS {
            if !self.step_until(end) {
                return;
            }
        }
        panic!("a livelock");
    }

    /// One step; false if nothing is under way.
    pub fn step(&mut self) -> bool {
        self.step_until(u64::MAX)
    }

    fn step_until(&mut self, end: u64) -> bool {
        self.end_jobs();
        let now = self.clock.now();
        let mut steps = Vec::new();
        steps.extend((0..self.jobs.ready()).map(Step::Job));
        for (session, wire) in self.wires.iter().enumerate() {
            for at in [0, 1] {
                let end = &wire.ends[at];
                let may_speak = wire.up[at] && !(at == 1 && wire.is_new);
                steps.extend((may_speak && end.desk.has_output()).then_some(Step::Send(session, at)));
                let has_arrived = wire.streams[at].flying.front().is_some_and(|&(time, _)| time <= now);
                steps.extend((has_arrived && !wire.is_cut).then_some(Step::Deliver(session, at)));
                steps.extend(end.desk.look().filter(|&time| time <= now).map(|_| Step::Look(session, at)));
            }
            steps.extend(wire.redial.filter(|&time| time <= now).map(|_| Step::Dial(session)));
        }
        if steps.is_empty() {
            let Some(next) = self.next_moment().filter(|&next| next <= end) else {
                if end != u64::MAX {
                    self.clock.advance(end);
                }
                return false;
            };
            self.clock.advance(next);
            return true;
        }
        let step = steps[self.random.below(steps.len() as u64) as usize];
        match step {
            Step::Job(number) => self.jobs.run(number),
            Step::Send(session, end) => self.send(session, end),
            Step::Deliver(session, from) => self.deliver(session, from),
            Step::Look(session, end) => {
                let end = &self.wires[session].ends[end];
                end.desk.take_look();
                let (link, now) = (end.link.clone(), self.clock.instant());
                if let Some(next) = link.advance(now) {
                    farref_host::Driver::wake_at(&*end.desk, next);
                }
                farref_host::Driver::output(&*end.desk);
            }
            Step::Dial(session) => self.dial(session),
        }
        true
    }

    fn next_moment(&self) -> Option<u64> {
        let of_wires = self.wires.iter().flat_map(|wire| {
            let arrivals = wire.streams.iter().filter(|_| !wire.is_cut).filter_map(|stream| stream.flying.front());
            let looks = wire.ends.iter().filter_map(|end| end.desk.look());
            arrivals.map(|&(time, _)| time).chain(looks).chain(wire.redial)
        });
        of_wires.chain(self.clock.next_sleeper()).min()
    }

    /// A session with the peer, on one of its ends.
    fn begin(&mut self, session: usize, end: usize) -> End {
        self.ids += 1;
        let host = session + end;
        let identity = PeerIdentity { peer: [host as u8 + 1; 16], incarnation: self.incarnations[host] };
        let options = Options {
            identity: Some(identity),
            resume: self.setup.resume.then(Resuming::default),
            ..self.setup.options.clone()
        };
        let desk = Arc::new(Desk::new(self.ids, self.clock.clone(), self.jobs.clone()));
        let link = Link::new(self.directories[host].clone(), &options, desk.clone());
        self.peers.set(session, end, Some(link.connection()));
        End { link, desk, is_used: false }
    }

    /// Sessions that are over end what runs for them.
    fn end_jobs(&mut self) {
        for wire in &self.wires {
            for end in &wire.ends {
                if end.desk.take_ended() {
                    self.jobs.end(Owner::Session(end.desk.id));
                }
            }
        }
    }

    fn send(&mut self, session: usize, at: usize) {
        let delay = 1 + self.random.below(self.setup.delay);
        let now = self.clock.now();
        let wire = &mut self.wires[session];
        let end = &wire.ends[at];
        end.desk.take_output();
        let mut buffer = Vec::new();
        let taken = end.link.take_output(&mut buffer);
        match taken {
            Some(taken) => {
                if !taken.bytes.is_empty() && !wire.is_cut {
                    wire.streams[at].send(now, delay, &buffer[taken.bytes]);
                }
                if taken.more {
                    farref_host::Driver::output(&*end.desk);
                }
            }
            // All was said.
            None => wire.up[at] = false,
        }
    }

    fn deliver(&mut self, session: usize, from: usize) {
        let wire = &mut self.wires[session];
        let Some((at, mut bytes)) = wire.streams[from].flying.pop_front() else { return };
        // Some of it, and the rest later.
        if bytes.len() > 1 && self.random.one_in(4) {
            let rest = bytes.split_off(1 + self.random.below(bytes.len() as u64 - 1) as usize);
            wire.streams[from].flying.push_front((at, rest));
        }
        let stream = &mut wire.streams[from];
        match &mut stream.scanner {
            None => stream.arrived.extend(bytes),
            Some(scanner) => match scanner.scan(&bytes) {
                Scan::Found(behind) => {
                    stream.arrived.extend(&bytes[behind..]);
                    stream.scanner = None;
                }
                Scan::Searching => {}
                Scan::NoPeer => panic!("every connection begins with the preamble"),
            },
        }
        if from == 0 && wire.is_new && !self.accept(session) {
            return;
        }
        let wire = &mut self.wires[session];
        let (stream, to) = (&mut wire.streams[from], 1 - from);
        if !wire.up[to] {
            stream.arrived.clear();
            return;
        }
        let received = wire.ends[to].link.receive(&stream.arrived);
        stream.arrived.drain(..received.used);
        if received.output != Output::None || received.is_over {
            farref_host::Driver::output(&*wire.ends[to].desk);
        }
    }

    /// The side that accepts looks what a connection is for; false if it cannot tell yet, or gave it up.
    fn accept(&mut self, session: usize) -> bool {
        let stream = &self.wires[session].streams[0];
        if stream.scanner.is_some() {
            return false;
        }
        let Split::Record { body, rest } = split(&stream.arrived, 1024) else { return false };
        let rest = rest.to_vec();
        match Message::read(body).expect("well formed") {
            Message::Resume(resume) => self.accept_resume(session, &resume, rest),
            Message::Hello(hello) => {
                if self.wires[session].ends[1].is_used || self.wires[session].ends[1].link.is_over() {
                    let before = &self.wires[session].ends[1];
                    let peer = before.link.peer();
                    if !before.link.is_over() {
                        match peer.is_some_and(|peer| peer.incarnation != hello.incarnation) {
                            true => before.link.peer_restarted(),
                            false => before.link.end(),
                        }
                    }
                    self.begin_again(session, 1);
                }
                let wire = &mut self.wires[session];
                (wire.is_new, wire.up[1], wire.ends[1].is_used) = (false, true, true);
                wire.streams[1].send(self.clock.now(), 1, &PREAMBLE);
                true
            }
            other => panic!("a connection begins with {other:?}"),
        }
    }

    fn accept_resume(&mut self, session: usize, resume: &Resume, rest: Vec<u8>) -> bool {
        let (host, now) = (session + 1, self.clock.now());
        let wire = &mut self.wires[session];
        let link = wire.ends[1].link.clone();
        if link.token() == Some(resume.token) && !link.is_over() {
            if link.accept(resume).is_ok() {
                (wire.is_new, wire.up[1]) = (false, true);
                wire.streams[0].arrived = rest;
                wire.streams[1].send(now, 1, &PREAMBLE);
                return true;
            }
            self.cut(session);
            return false;
        }
        let got = match (&wire.gone, link.token()) {
            (Some((token, got)), _) if *token == resume.token => *got,
            (_, Some(token)) if token == resume.token => link.got(),
            _ => 0,
        };
        let mut record = [0; 24];
        let length = session_gone(self.incarnations[host], got, &mut record);
        wire.streams[1].send(now, 1, &[&PREAMBLE, &record[..length]].concat());
        wire.streams[0].arrived.clear();
        false
    }

    /// Opens a connection, for the session that is there or, if that is over, for another.
    fn dial(&mut self, session: usize) {
        self.wires[session].redial = None;
        if self.wires[session].ends[0].link.is_over() {
            self.begin_again(session, 0);
        }
        let now = self.clock.now();
        let wire = &mut self.wires[session];
        let end = &wire.ends[0];
        if end.link.is_parked() {
            end.link.attempt();
            end.link.resume();
        }
        farref_host::Driver::output(&*end.desk);
        wire.streams = [Stream::new(), Stream::new()];
        wire.streams[0].send(now, 1, &PREAMBLE);
        (wire.up[0], wire.is_cut, wire.is_new) = (true, false, true);
    }

    /// Another session, in the place of one that is over. What ran for that ends.
    fn begin_again(&mut self, session: usize, end: usize) {
        let new = self.begin(session, end);
        let before = std::mem::replace(&mut self.wires[session].ends[end], new);
        if end == 1 {
            self.wires[session].gone = before.link.token().map(|token| (token, before.link.got()));
        }
        self.jobs.end(Owner::Session(before.desk.id));
    }

    /// The connection is lost: at once for the side that opened it, later perhaps for the other.
    pub fn cut(&mut self, session: usize) {
        let later = self.clock.now() + 1 + self.random.below(3 * self.setup.delay);
        let notices = self.random.one_in(2);
        let wire = &mut self.wires[session];
        wire.is_cut = true;
        wire.up[0] = false;
        if !wire.ends[0].link.park() {
            wire.ends[0].link.end();
        }
        if (notices || !self.setup.resume) && !wire.is_new {
            wire.up[1] = false;
            if !wire.ends[1].link.park() {
                wire.ends[1].link.end();
            }
        }
        wire.redial = Some(wire.redial.map_or(later, |before| before.min(later)));
    }

    /// The session is over on both sides, without a word.
    pub fn lose(&mut self, session: usize) {
        let wire = &mut self.wires[session];
        wire.is_cut = true;
        for end in [0, 1] {
            wire.up[end] = false;
            wire.ends[end].link.end();
        }
    }

    /// The hosts get another session, if theirs is over.
    pub fn reconnect(&mut self, session: usize) {
        let wire = &mut self.wires[session];
        if wire.ends[0].link.is_over() && wire.redial.is_none() {
            wire.redial = Some(self.clock.now() + 1);
        }
    }

    /// A host stops with all that it does, and starts again.
    pub fn restart(&mut self, host: usize) {
        self.incarnations[host] += 1;
        self.jobs.end(Owner::Program(host));
        for session in [NEAR, FAR] {
            let Some(end) = host.checked_sub(session).filter(|&end| end < 2) else { continue };
            self.wires[session].is_cut = true;
            self.begin_again(session, end);
            let wire = &mut self.wires[session];
            wire.up[end] = false;
            if end == 1 {
                (wire.gone, wire.is_new) = (None, true);
            }
            match end {
                // Its peer may not know that the connection is lost.
                0 => wire.redial = Some(self.clock.now() + 1),
                _ => self.cut(session),
            }
        }
    }

    /// Whether nothing is under way at either end of either session, and nothing held but the directories.
    pub fn assert_baseline(&mut self) {
        self.run();
        for session in [NEAR, FAR] {
            for end in [0, 1] {
                let connection = self.connection(session, end);
                let tables = connection.tables();
                assert!(
                    connection.is_at_baseline(),
                    "session {session}, end {end}: {tables:?} {:?}",
                    connection.link()
                );
            }
        }
        assert_eq!(self.jobs.count(), 0, "jobs that never end");
    }
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Job(usize),
    /// A session gives its output to its connection.
    Send(usize, usize),
    /// Something arrives of what that end has sent.
    Deliver(usize, usize),
    /// A session is told the time.
    Look(usize, usize),
    Dial(usize),
}
