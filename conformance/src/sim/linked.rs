//! Two sessions with a link, over byte streams that can be cut.

use std::collections::VecDeque;

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::message::Message;
use farref_core::session::{Config, LinkMode, Session, Storage};

use super::{A, B, BASELINE, Side};

/// Two sides, joined by one connection after the other: A opens them, B accepts.
pub struct Linked<S: Storage> {
    /// The sides, [`A`] and [`B`].
    pub sides: [Side<S>; 2],
    /// Bytes that have arrived at the other side, all connections together.
    pub carried: [u64; 2],
    /// Connections that were lost.
    pub cuts: u32,
    /// Sessions that B began, the first included: it has another one when A begins again (LNK-7).
    pub began: u32,
    configs: [Config; 2],
    streams: [Stream; 2],
    cut: Option<(usize, u64)>,
    every: Option<u64>,
    carried_by_this: u64,
}

/// One direction of a connection.
struct Stream {
    flying: VecDeque<u8>,
    arrived: Vec<u8>,
    scanner: Option<PreambleScanner>,
    is_first: bool,
}

impl Stream {
    fn new() -> Self {
        Self {
            flying: PREAMBLE.into_iter().collect(),
            arrived: Vec::new(),
            scanner: Some(PreambleScanner::default()),
            is_first: true,
        }
    }
}

impl<S: Storage + 'static> Linked<S> {
    /// Two sides that offer a link, before their Hellos.
    pub fn new(configs: [Config; 2]) -> Self {
        let tokens = [[0xA; 16], [0xB; 16]];
        let mut configs = configs;
        for (config, token) in configs.iter_mut().zip(tokens) {
            config.link = LinkMode::Resume { token, park: 60_000 };
        }
        let sides = configs.map(Side::new);
        let streams = [Stream::new(), Stream::new()];
        Self { sides, carried: [0; 2], cuts: 0, began: 1, configs, streams, cut: None, every: None, carried_by_this: 0 }
    }

    /// Cuts the connection as soon as so many bytes of that side's have arrived, counted over all connections.
    pub fn cut_at(&mut self, from: usize, offset: u64) {
        self.cut = Some((from, offset));
    }

    /// Cuts each connection after so many bytes, those of both sides together.
    pub fn cut_every(&mut self, bytes: u64) {
        self.every = Some(bytes);
    }

    /// Drives both sides until nothing is under way. What is lost with a connection comes over the next.
    pub fn run(&mut self) {
        loop {
            self.fill(A);
            self.fill(B);
            if self.streams.iter().all(|stream| stream.flying.is_empty()) {
                return;
            }
            let _ = self.deliver(A, usize::MAX) && self.deliver(B, usize::MAX);
        }
    }

    /// Puts what a side has to send on the connection.
    pub fn fill(&mut self, from: usize) {
        let side = &mut self.sides[from];
        side.settle();
        loop {
            let output = side.session.transmit().to_vec();
            if output.is_empty() {
                return;
            }
            side.session.transmitted(output.len());
            self.streams[from].flying.extend(output);
        }
    }

    /// Delivers at most so many bytes of a side; false if the connection was cut instead.
    pub fn deliver(&mut self, from: usize, most: usize) -> bool {
        for _ in 0..most {
            let is_worn = self.every.is_some_and(|bytes| self.carried_by_this >= bytes);
            if is_worn || self.cut == Some((from, self.carried[from])) {
                self.cut = None;
                self.reconnect();
                return false;
            }
            let Some(byte) = self.streams[from].flying.pop_front() else { return true };
            self.carried[from] += 1;
            self.carried_by_this += 1;
            self.streams[from].arrived.push(byte);
            self.take(from);
        }
        true
    }

    /// The connection is lost with all that is on it, and A opens another.
    pub fn reconnect(&mut self) {
        self.cuts += 1;
        self.carried_by_this = 0;
        assert!(self.cuts < 100_000, "a livelock");
        self.streams = [Stream::new(), Stream::new()];
        for side in &mut self.sides {
            assert!(side.session.park(), "{:?}", side.session.ended());
        }
        self.sides[A].session.resume();
    }

    /// Takes what is whole of what has arrived from a side.
    fn take(&mut self, from: usize) {
        let stream = &mut self.streams[from];
        if let Some(scanner) = &mut stream.scanner {
            match scanner.scan(&stream.arrived) {
                Scan::Found(used) => drop(stream.arrived.drain(..used)),
                Scan::Searching => return stream.arrived.clear(),
                Scan::NoPeer => panic!("there is a peer"),
            }
            stream.scanner = None;
        }
        let side = &mut self.sides[1 - from];
        while let Split::Record { body, rest } = split(&stream.arrived, 1 << 20) {
            let used = stream.arrived.len() - rest.len();
            let is_first = std::mem::take(&mut stream.is_first);
            match Message::read(body) {
                Ok(Message::Resume(resume)) if is_first => {
                    assert_eq!(side.session.accept(&resume), Ok(()));
                }
                Ok(Message::Hello(_)) if is_first && from == A && side.session.is_parked() => {
                    // A knows nothing of B, so that what B had of this session is nothing to anybody.
                    self.began += 1;
                    side.session = Session::new(self.configs[B]);
                    assert_eq!(side.receive(body), Ok(()));
                }
                _ => assert_eq!(side.receive(body), Ok(())),
            }
            stream.arrived.drain(..used);
        }
    }

    /// Both sides hold nothing that they did not hold right after Hello.
    pub fn assert_baseline(&mut self) {
        self.run();
        for (side, name) in self.sides.iter().zip(["A", "B"]) {
            assert_eq!(side.session.tables(), BASELINE, "side {name}");
            assert_eq!(side.transient(), 0, "objects of side {name}");
        }
    }
}
