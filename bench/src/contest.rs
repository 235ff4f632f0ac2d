//! One case over one transport: the raw contestant and farref's, in turns.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;

use crate::cases::{Case, Kind, Transport, name};
use crate::counts::{Allocations, Gauge, Wire};
use crate::measure::{ROUNDS, Rounds, Subject, calibrate, time};
use crate::server::{Counted, Server};
use crate::table::{Table, grouped, per_operation};
use crate::{Result, delay, farref, raw};

/// One way, through the delaying proxy.
const DELAY: Duration = Duration::from_millis(10);
/// How often a missed bar is measured again before it counts.
const AGAIN: usize = 2;
/// Operations whose counts are taken: many enough for what happens once not to matter.
const COUNTED: u64 = 1000;
/// Bytes that may be under way in memory.
const DUPLEX: usize = 256 << 10;

/// A case over a transport, and how its contestants did.
pub struct Contest {
    case: Case,
    transport: Transport,
    raw: Entry,
    farref: Entry,
    /// With resume on.
    resume: Option<Entry>,
}

impl Contest {
    /// Nothing is measured yet.
    pub fn new(case: Case, transport: Transport) -> Self {
        let resume = case.is_resumed(transport).then(|| Entry::new(Kind::Resume));
        Self { case, transport, raw: Entry::new(Kind::Raw), farref: Entry::new(Kind::Farref), resume }
    }

    /// Measures rounds of about that length, and again if it has to be certain and a bar is missed: a disturbed machine is
    /// no reason to fail. All rounds count then, not only the lucky ones.
    pub fn measure(&mut self, round: Duration, certain: bool) -> Result<()> {
        let (case, transport) = (self.case, self.transport);
        for entry in self.entries() {
            entry.prepare(Contestant::open(entry.kind, case, transport)?, case.step(), round)?;
        }
        self.rounds()?;
        for _ in 0..AGAIN {
            if certain && self.verdicts().iter().any(|verdict| !verdict.is_kept()) {
                self.rounds()?;
            }
        }
        Ok(())
    }

    /// In turns, so that what else happens on the machine meets both; and each time with a new server and a new connection,
    /// since where their memory happens to lie can make a process half as fast as the next.
    fn rounds(&mut self) -> Result<()> {
        let (case, transport) = (self.case, self.transport);
        for _ in 0..ROUNDS {
            for entry in self.entries() {
                let mut contestant = Contestant::open(entry.kind, case, transport)?;
                contestant.subject.run(entry.operations.div_ceil(4).next_multiple_of(case.step()))?;
                let took = time(&mut *contestant.subject, entry.operations)?;
                entry.rounds.add(entry.operations, took);
            }
        }
        Ok(())
    }

    fn entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        [&mut self.raw, &mut self.farref].into_iter().chain(&mut self.resume)
    }

    /// farref's rate as a part of the raw one.
    fn ratio(&self) -> f64 {
        self.raw.rounds.median() / self.farref.rounds.median()
    }

    /// How the bars went, if there are any.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let (case, transport) = (self.case, self.transport);
        let verdict = |what: &str, reached, bar: Option<f64>| {
            let what = format!("{} {}, {what}", name(transport), name(case));
            bar.map(|bar| Verdict::at_least(what, reached, bar))
        };
        let mut verdicts = Vec::from_iter(verdict("of raw", self.ratio(), case.bar(transport)));
        if let Some(resume) = &self.resume {
            let of = |other: &Entry| other.rounds.median() / resume.rounds.median();
            verdicts.extend(verdict("resume on of off", of(&self.farref), case.bar_of_resume(transport)));
            verdicts.extend(verdict("resume on of raw", of(&self.raw), case.raw_bar_of_resume(transport)));
        }
        verdicts
    }

    /// Adds a row for each contestant.
    pub fn show(&self, table: &mut Table) {
        let bar = self.case.bar(self.transport).map_or_else(String::new, |bar| format!("{bar:.2}"));
        table.add(self.raw.row(name(self.case), String::new(), String::new()));
        table.add(self.farref.row(String::new(), format!("{:.2}", self.ratio()), bar));
        if let Some(resume) = &self.resume {
            let ratio = self.raw.rounds.median() / resume.rounds.median();
            let bar = self.case.raw_bar_of_resume(self.transport).map_or_else(String::new, |bar| format!("{bar:.2}"));
            table.add(resume.row(String::new(), format!("{ratio:.2}"), bar));
        }
    }
}

/// The columns of [`Contest::show`]. The counts are for each operation: messages and bytes both ways, then what the client
/// (`c`) and the server (`s`) did: system calls that read or wrote, heap allocations.
pub const HEADINGS: [&str; 16] = [
    "case", "by", "op/s", "ns/op", "fastest", "slowest", "of raw", "bar", "messages", "bytes", "c read", "c write",
    "c alloc", "s read", "s write", "s alloc",
];

/// How a bar went.
pub struct Verdict {
    what: String,
    reached: f64,
    bar: f64,
    is_kept: bool,
}

impl Verdict {
    /// For what should be much.
    pub fn at_least(what: String, reached: f64, bar: f64) -> Self {
        Self { what, reached, bar, is_kept: reached >= bar }
    }

    /// For what should be little.
    pub fn at_most(what: String, reached: f64, bar: f64) -> Self {
        Self { what, reached, bar, is_kept: reached <= bar }
    }

    /// Whether it was reached.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_kept { "ok" } else { "MISSED" };
        write!(out, "{word:6} {}: {:.3}, the bar is {:.2}", self.what, self.reached, self.bar)
    }
}

/// What was measured of one contestant.
struct Entry {
    kind: Kind,
    /// In a round.
    operations: u64,
    rounds: Rounds,
    counts: Counts,
}

/// What so many operations took.
#[derive(Default)]
struct Counts {
    operations: u64,
    wire: Wire,
    allocations: u64,
    server: Option<Counted>,
}

impl Entry {
    fn new(kind: Kind) -> Self {
        Self { kind, operations: 0, rounds: Rounds::default(), counts: Counts::default() }
    }

    /// Finds out how many operations make a round, and counts what some of them take.
    fn prepare(&mut self, mut contestant: Contestant, step: u64, round: Duration) -> Result<()> {
        self.operations = calibrate(&mut *contestant.subject, step, round)?;
        let operations = self.operations.min(COUNTED.next_multiple_of(step));
        let wire = contestant.subject.wire();
        if let Some(server) = &mut contestant.server {
            server.begin()?;
        }
        let allocations = Allocations::begin();
        contestant.subject.run(operations)?;
        let allocations = allocations.end();
        let server = contestant.server.as_mut().map(Server::end).transpose()?;
        self.counts = Counts { operations, wire: contestant.subject.wire() - wire, allocations, server };
        Ok(())
    }

    fn row(&self, case: String, ratio: String, bar: String) -> Vec<String> {
        let nanos = self.rounds.median();
        let (fastest, slowest) = self.rounds.extremes();
        let counts = &self.counts;
        let each = |count| per_operation(count, counts.operations);
        let of_server = |count: fn(&Counted) -> u64| {
            counts.server.as_ref().map_or_else(|| "-".to_owned(), |server| each(count(server)))
        };
        vec![
            case,
            name(self.kind),
            grouped(1e9 / nanos),
            grouped(nanos),
            grouped(fastest),
            grouped(slowest),
            ratio,
            bar,
            each(counts.wire.messages),
            each(counts.wire.bytes),
            each(counts.wire.reads),
            each(counts.wire.writes),
            each(counts.allocations),
            of_server(|server| server.reads),
            of_server(|server| server.writes),
            of_server(|server| server.allocations),
        ]
    }
}

/// A client, and its server if that is another process.
struct Contestant {
    /// Dropped first, so that the server sees the end of the connection before it is told to go.
    subject: Box<dyn Subject>,
    server: Option<Server>,
}

impl Contestant {
    fn new(subject: impl Subject + 'static, server: Option<Server>) -> Self {
        Self { subject: Box::new(subject), server }
    }

    /// Starts a server, if it is to be another process, and connects to it.
    fn open(kind: Kind, case: Case, transport: Transport) -> Result<Self> {
        let runtime = Rc::new(runtime()?);
        if transport == Transport::Memory {
            return Self::open_in_memory(runtime, kind, case);
        }
        let mut server = Server::start(kind, transport)?;
        if transport == Transport::Pipe {
            let (read, write) = server.take_pipe()?;
            return Ok(match kind {
                Kind::Raw => Self::new(raw::blocking::Client::new(read, write, case.raw()), Some(server)),
                Kind::Farref | Kind::Resume => Self::new(farref::pipe::Client::open(read, write, case)?, Some(server)),
            });
        }
        match kind {
            Kind::Raw if transport == Transport::Unix => {
                let stream = runtime.block_on(UnixStream::connect(&server.address))?;
                Ok(Self::new(raw::sockets::Client::new(runtime, stream, case.raw()), Some(server)))
            }
            Kind::Raw => {
                let stream = runtime.block_on(TcpStream::connect(tcp_address(case, &server)?))?;
                stream.set_nodelay(true)?;
                Ok(Self::new(raw::sockets::Client::new(runtime, stream, case.raw()), Some(server)))
            }
            Kind::Farref | Kind::Resume if transport == Transport::Unix => {
                let stream = runtime.block_on(UnixStream::connect(&server.address))?;
                Ok(Self::new(farref::sockets::Client::open(runtime, stream, case)?, Some(server)))
            }
            Kind::Resume => {
                let address = server.address.parse()?;
                Ok(Self::new(farref::sockets::Client::resuming(runtime, address, case)?, Some(server)))
            }
            Kind::Farref => {
                let stream = runtime.block_on(TcpStream::connect(tcp_address(case, &server)?))?;
                stream.set_nodelay(true)?;
                Ok(Self::new(farref::sockets::Client::open(runtime, stream, case)?, Some(server)))
            }
        }
    }

    /// Both sides on one runtime.
    fn open_in_memory(runtime: Rc<Runtime>, kind: Kind, case: Case) -> Result<Self> {
        let (near, far) = tokio::io::duplex(DUPLEX);
        if kind == Kind::Raw {
            runtime.block_on(async { raw::sockets::serve(far, &Gauge::default()) });
            return Ok(Self::new(raw::sockets::Client::new(runtime, near, case.raw()), None));
        }
        farref::sockets::serve_here(&runtime, far);
        Ok(Self::new(farref::sockets::Client::open(runtime, near, case)?, None))
    }
}

/// Where a case connects to: the server, or a proxy that delays.
fn tcp_address(case: Case, server: &Server) -> Result<SocketAddr> {
    let address = server.address.parse()?;
    if case == Case::Chain8Delay10 { delay::proxy(address, DELAY) } else { Ok(address) }
}

/// What the sockets of a process run on.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
