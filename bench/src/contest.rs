//! One case over one transport: the raw contestant and farref's, in turns.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use std::{fmt, iter};

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

/// Both contestants of a case.
pub struct Contest {
    case: Case,
    transport: Transport,
    raw: Contestant,
    farref: Option<Contestant>,
}

impl Contest {
    /// Starts both.
    pub fn open(case: Case, transport: Transport) -> Result<Self> {
        let raw = Contestant::open(Kind::Raw, case, transport)?.ok_or("there is always a raw contestant")?;
        let farref = Contestant::open(Kind::Farref, case, transport)?;
        Ok(Self { case, transport, raw, farref })
    }

    /// Measures rounds of about that length, and again if it has to be certain and a bar is missed: a disturbed machine is
    /// no reason to fail. All rounds count then, not only the lucky ones.
    pub fn measure(&mut self, round: Duration, certain: bool) -> Result<()> {
        let step = self.case.step();
        for contestant in self.contestants() {
            contestant.operations = calibrate(&mut *contestant.subject, step, round)?;
            contestant.count(step)?;
        }
        self.rounds()?;
        for _ in 0..AGAIN {
            if certain && self.verdict().is_some_and(|verdict| !verdict.is_kept()) {
                self.rounds()?;
            }
        }
        Ok(())
    }

    /// In turns, so that what else happens on the machine meets both.
    fn rounds(&mut self) -> Result<()> {
        for _ in 0..ROUNDS {
            for contestant in self.contestants() {
                let took = time(&mut *contestant.subject, contestant.operations)?;
                contestant.rounds.add(contestant.operations, took);
            }
        }
        Ok(())
    }

    fn contestants(&mut self) -> impl Iterator<Item = &mut Contestant> {
        iter::once(&mut self.raw).chain(&mut self.farref)
    }

    /// farref's rate as a part of the raw one.
    fn ratio(&self) -> Option<f64> {
        Some(self.raw.rounds.median() / self.farref.as_ref()?.rounds.median())
    }

    /// How the bar went, if there is one.
    pub fn verdict(&self) -> Option<Verdict> {
        let bar = self.case.bar(self.transport)?;
        // What was not measured has not been good enough.
        let reached = self.ratio().unwrap_or(0.0);
        Some(Verdict { what: format!("{} {}", name(self.transport), name(self.case)), reached, bar })
    }

    /// Adds a row for each contestant.
    pub fn show(&self, table: &mut Table) {
        table.add(self.raw.row(name(self.case), "raw", String::new(), String::new()));
        if let Some(farref) = &self.farref {
            let ratio = self.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let bar = self.case.bar(self.transport).map_or_else(String::new, |bar| format!("{bar:.2}"));
            table.add(farref.row(String::new(), "farref", ratio, bar));
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
}

impl Verdict {
    /// Whether it was reached.
    pub fn is_kept(&self) -> bool {
        self.reached >= self.bar
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_kept() { "ok" } else { "MISSED" };
        write!(out, "{word:6} {}: {:.2} of raw, the bar is {:.2}", self.what, self.reached, self.bar)
    }
}

/// A client, its server, and what was measured.
struct Contestant {
    /// Dropped before its server, which so sees the end of the connection first.
    subject: Box<dyn Subject>,
    server: Option<Server>,
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

impl Contestant {
    fn new(subject: impl Subject + 'static, server: Option<Server>) -> Self {
        let subject = Box::new(subject);
        Self { subject, server, operations: 0, rounds: Rounds::default(), counts: Counts::default() }
    }

    /// None if farref does not run over that transport.
    fn open(kind: Kind, case: Case, transport: Transport) -> Result<Option<Self>> {
        match (kind, transport) {
            (Kind::Raw, Transport::Memory) => raw_in_memory(case).map(Some),
            (Kind::Raw, _) => raw_between_processes(case, transport).map(Some),
            (Kind::Farref, Transport::Pipe) => {
                let mut server = Server::start(kind, transport)?;
                let (read, write) = server.take_pipe()?;
                Ok(Some(Self::new(farref::pipe::Client::open(read, write, case)?, Some(server))))
            }
            (Kind::Farref, Transport::Memory) => {
                let runtime = Rc::new(runtime()?);
                let (near, far) = tokio::io::duplex(DUPLEX);
                farref::sockets::serve_here(&runtime, far);
                Ok(Some(Self::new(farref::sockets::Client::open(runtime, near, case)?, None)))
            }
            (Kind::Farref, Transport::Unix) => {
                let server = Server::start(kind, transport)?;
                let runtime = Rc::new(runtime()?);
                let stream = runtime.block_on(UnixStream::connect(&server.address))?;
                Ok(Some(Self::new(farref::sockets::Client::open(runtime, stream, case)?, Some(server))))
            }
            (Kind::Farref, Transport::Tcp) => {
                let server = Server::start(kind, transport)?;
                let runtime = Rc::new(runtime()?);
                let stream = runtime.block_on(TcpStream::connect(reach(case, &server)?))?;
                stream.set_nodelay(true)?;
                Ok(Some(Self::new(farref::sockets::Client::open(runtime, stream, case)?, Some(server))))
            }
        }
    }

    /// Counts what some operations take, apart from the rounds.
    fn count(&mut self, step: u64) -> Result<()> {
        let operations = self.operations.min(COUNTED.next_multiple_of(step));
        let wire = self.subject.wire();
        if let Some(server) = &mut self.server {
            server.begin()?;
        }
        let allocations = Allocations::begin();
        self.subject.run(operations)?;
        let allocations = allocations.end();
        let server = self.server.as_mut().map(Server::end).transpose()?;
        self.counts = Counts { operations, wire: self.subject.wire() - wire, allocations, server };
        Ok(())
    }

    fn row(&self, case: String, by: &str, ratio: String, bar: String) -> Vec<String> {
        let nanos = self.rounds.median();
        let (fastest, slowest) = self.rounds.extremes();
        let counts = &self.counts;
        let each = |count| per_operation(count, counts.operations);
        let of_server = |count: fn(&Counted) -> u64| {
            counts.server.as_ref().map_or_else(|| "-".to_owned(), |server| each(count(server)))
        };
        vec![
            case,
            by.to_owned(),
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

fn raw_in_memory(case: Case) -> Result<Contestant> {
    let runtime = Rc::new(runtime()?);
    let (near, far) = tokio::io::duplex(DUPLEX);
    runtime.block_on(async { raw::sockets::serve(far, &Gauge::default()) });
    Ok(Contestant::new(raw::sockets::Client::new(runtime, near, case.raw()), None))
}

fn raw_between_processes(case: Case, transport: Transport) -> Result<Contestant> {
    let mut server = Server::start(Kind::Raw, transport)?;
    if transport == Transport::Pipe {
        let (read, write) = server.take_pipe()?;
        return Ok(Contestant::new(raw::blocking::Client::new(read, write, case.raw()), Some(server)));
    }
    let runtime = Rc::new(runtime()?);
    if transport == Transport::Unix {
        let stream = runtime.block_on(UnixStream::connect(&server.address))?;
        return Ok(Contestant::new(raw::sockets::Client::new(runtime, stream, case.raw()), Some(server)));
    }
    let stream = runtime.block_on(TcpStream::connect(reach(case, &server)?))?;
    stream.set_nodelay(true)?;
    Ok(Contestant::new(raw::sockets::Client::new(runtime, stream, case.raw()), Some(server)))
}

/// Where a case connects to: the server, or a proxy that delays.
fn reach(case: Case, server: &Server) -> Result<SocketAddr> {
    let address = server.address.parse()?;
    if case == Case::Chain8Delay10 { delay::proxy(address, DELAY) } else { Ok(address) }
}

/// What the sockets of a process run on.
pub fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
