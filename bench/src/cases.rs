//! What is measured, over what, beside what, and the bars.

use clap::ValueEnum;

/// Raw, or through farref.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A length-prefixed echo.
    Raw,
    /// Calls of objects.
    Farref,
    /// The same in a session that would survive its connection.
    Resume,
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// TCP on loopback, without Nagle's delay; tokio.
    Tcp,
    /// A Unix socket; tokio.
    Unix,
    /// A child's stdin and stdout; blocking.
    Pipe,
    /// tokio's duplex pipe within one process.
    Memory,
}

impl Transport {
    /// What can be said about it in a heading.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Tcp => "TCP, tokio current-thread, two processes",
            Self::Unix => "Unix socket, tokio current-thread, two processes",
            Self::Pipe => "pipe (stdin and stdout of a child), blocking, two processes",
            Self::Memory => {
                "memory (tokio duplex), tokio current-thread, one process: client and server are counted as one"
            }
        }
    }
}

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    /// A call with a small integer, one in flight.
    Ping,
    /// The same with 64 tasks on one connection, each with its call.
    Inflight64,
    /// The same with 64 calls issued at once.
    Batch64,
    /// 64 KiB there and back.
    Echo64k,
    /// 1 MiB there and back.
    Echo1m,
    /// A new reference, a call on it, its release: two round trips.
    Newref,
    /// The same in one round trip: the call is made on the promise.
    NewrefPipelined,
    /// A call that calls back.
    Callback,
    /// A call that calls back 100 times; an operation is one callback.
    Callbacks100,
    /// Eight calls, each on the answer of the one before, in one round trip.
    Chain8,
    /// The same through a proxy that delays each direction by 10 ms.
    Chain8Delay10,
    /// 100,000 references held at a time: memory, not time.
    Refs100k,
}

/// As on the command line.
pub fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// References held at a time.
pub const REFERENCES: usize = 100_000;
/// Bytes that each of them may take in each process.
pub const REFERENCE_BAR: f64 = 200.0;

/// What the raw contestant does beside a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Bytes of a message, without its length.
    pub payload: usize,
    /// Messages in one write, answered before the next.
    pub batch: u64,
}

impl Exchange {
    /// One small message there and back: about the bytes that a ping through farref takes.
    const PING: Self = Self { payload: 4, batch: 1 };
}

impl Case {
    /// All, in the order in which they are shown.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Whether it is measured over that transport.
    pub fn runs_over(self, transport: Transport) -> bool {
        match self {
            Self::Chain8Delay10 | Self::Refs100k => transport == Transport::Tcp,
            _ => true,
        }
    }

    /// Operations that go together: a run has a multiple of it.
    pub fn step(self) -> u64 {
        match self {
            Self::Inflight64 | Self::Batch64 => 64,
            Self::Callbacks100 => 100,
            _ => 1,
        }
    }

    /// What it is compared with.
    pub fn raw(self) -> Exchange {
        match self {
            Self::Inflight64 | Self::Batch64 => Exchange { batch: 64, ..Exchange::PING },
            Self::Echo64k => Exchange { payload: 64 << 10, batch: 1 },
            Self::Echo1m => Exchange { payload: 1 << 20, batch: 1 },
            _ => Exchange::PING,
        }
    }

    /// The least part of the raw rate that is good enough, pinned.
    pub fn bar(self, transport: Transport) -> Option<f64> {
        use Transport::{Pipe, Tcp, Unix};
        match (self, transport) {
            (Self::Ping, Tcp | Unix) => Some(0.85),
            (Self::Ping, Pipe) => Some(0.7),
            (Self::Inflight64, Tcp) => Some(0.15),
            (Self::Batch64, Tcp) => Some(0.35),
            (Self::Echo1m, Tcp) => Some(0.7),
            (Self::NewrefPipelined, Tcp) => Some(0.5),
            (Self::Chain8, Tcp) => Some(0.5),
            (Self::Callbacks100, Tcp) => Some(0.7),
            _ => None,
        }
    }

    /// The least part of farref's rate that is good enough with resume on, pinned.
    pub fn bar_of_resume(self, transport: Transport) -> Option<f64> {
        match (self, transport) {
            (Self::Ping, Transport::Tcp) => Some(0.9),
            (Self::Inflight64, Transport::Tcp) => Some(0.75),
            _ => None,
        }
    }

    /// The least part of the raw rate that is good enough with resume on, pinned.
    pub fn raw_bar_of_resume(self, transport: Transport) -> Option<f64> {
        (self == Self::Echo1m && transport == Transport::Tcp).then_some(0.5)
    }

    /// Whether resume is measured, too.
    pub fn is_resumed(self, transport: Transport) -> bool {
        self.bar_of_resume(transport).is_some() || self.raw_bar_of_resume(transport).is_some()
    }

    /// Whether `--check` looks at it over that transport.
    pub fn is_checked(self, transport: Transport) -> bool {
        self.bar(transport).is_some() || (self == Self::Refs100k && self.runs_over(transport))
    }
}
