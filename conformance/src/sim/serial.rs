//! Two sides on a serial line in virtual time: frames take their time, and are lost, changed and repeated as a seed has it.

use std::collections::VecDeque;

use farref_core::frame::serial::{CHECK, Decoder};
use farref_core::link::serial::{Config as LinkConfig, SerialLink};
use farref_core::session::{Config, Ended, LinkMode, Storage};

use super::{Random, Side};

/// What a line does to frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Of 1,000 frames so many are lost.
    pub lost: u64,
    /// Of 1,000 bytes so many have a bit flipped.
    pub flipped: u64,
    /// Of 1,000 frames so many come twice.
    pub repeated: u64,
}

/// Moments at which something happens. More is a livelock.
const MAX_TURNS: u64 = 1_000_000;

/// What a byte takes at 115,200 baud, microseconds.
const BYTE: u64 = 87;

/// One direction.
#[derive(Default)]
struct Wire {
    /// Bytes, and when they arrive.
    flying: VecDeque<(u64, Vec<u8>)>,
    /// When the sender may send again.
    free_at: u64,
}

/// Two sides and the line between them.
pub struct SerialSim<S: Storage> {
    /// The sides, [`A`](super::A) and [`B`](super::B).
    pub sides: [Side<S>; 2],
    /// Their links.
    pub links: [SerialLink; 2],
    /// What the line does from now on.
    pub faults: Faults,
    /// Whether anything comes through.
    pub is_plugged: bool,
    /// How long bytes are under way, microseconds: what was sent before a side restarts may arrive after it.
    pub delay: u64,
    /// Frames sent by both.
    pub frames: u64,
    configs: [Config; 2],
    link: LinkConfig,
    decoders: [Decoder<Vec<u8>>; 2],
    wires: [Wire; 2],
    line: Vec<u8>,
    turns: u64,
    random: Random,
    /// Virtual time, microseconds.
    now: u64,
}

impl<S: Storage + 'static> SerialSim<S> {
    /// Two sides that have just been switched on.
    pub fn new(configs: [Config; 2], link: LinkConfig, faults: Faults, seed: u64) -> Self {
        let configs = configs.map(|config| Config { link: LinkMode::Line, ..config });
        let mut random = Random::new(seed);
        let longest =
            configs.iter().map(|config| config.limits.max_message).max().unwrap_or_default().max(256) as usize;
        Self {
            sides: configs.map(Side::new),
            links: [(); 2].map(|()| new_link(link, &mut random)),
            faults,
            is_plugged: true,
            delay: 300,
            frames: 0,
            configs,
            link,
            decoders: [(); 2].map(|()| Decoder::new(vec![0; SerialLink::payload_len(longest) + CHECK])),
            wires: Default::default(),
            line: vec![0; SerialLink::frame_len(longest)],
            turns: 0,
            random,
            now: 0,
        }
    }

    /// Virtual time, milliseconds.
    pub fn now(&self) -> u64 {
        self.now / 1000
    }

    /// A side begins anew, without anything that it had; what is on the line stays there.
    pub fn restart(&mut self, side: usize) {
        self.sides[side] = Side::new(self.configs[side]);
        self.links[side] = new_link(self.link, &mut self.random);
    }

    /// Why the sessions are over, if they are.
    pub fn ended(&self) -> [Option<Ended>; 2] {
        self.sides.each_ref().map(|side| side.session.ended())
    }

    /// Lets time pass until nothing is under way and nothing is due.
    pub fn run(&mut self) {
        while self.turn(u64::MAX) {}
    }

    /// Lets so many milliseconds pass.
    pub fn run_for(&mut self, milliseconds: u64) {
        let until = self.now + milliseconds * 1000;
        while self.turn(until) {}
        self.now = until;
    }

    /// Goes to the next moment at which something happens and does that; false if nothing does before `until`.
    fn turn(&mut self, until: u64) -> bool {
        self.turns += 1;
        assert!(self.turns < MAX_TURNS, "a livelock: not quiet after {MAX_TURNS} turns");
        for side in 0..2 {
            self.transmit(side);
        }
        let arrivals = self.wires.iter().filter_map(|wire| wire.flying.front().map(|&(at, _)| at));
        let free = self.wires.iter().map(|wire| wire.free_at).filter(|&at| at > self.now);
        // What is due already waits for the line.
        let timers = self.links.iter().zip(&self.wires).filter_map(|(link, wire)| {
            let at = link.poll_timeout()? * 1000;
            Some(if at <= self.now { wire.free_at } else { at })
        });
        let deadlines = self.sides.iter().filter_map(|side| side.session.poll_timeout().map(|at| at * 1000));
        match arrivals.chain(timers).chain(deadlines).chain(free).min() {
            Some(at) if at <= until => self.now = self.now.max(at),
            _ => return false,
        }
        for side in 0..2 {
            let now = self.now();
            self.sides[side].session.advance(now);
            let _ = self.links[side].advance(now, &mut self.sides[side].session);
            while self.wires[1 - side].flying.front().is_some_and(|&(at, _)| at <= self.now) {
                if let Some((_, bytes)) = self.wires[1 - side].flying.pop_front() {
                    self.arrive(side, &bytes);
                }
            }
        }
        true
    }

    /// Bytes come to a side, in one run or in two.
    fn arrive(&mut self, side: usize, bytes: &[u8]) {
        let now = self.now();
        let at = self.random.below(bytes.len() as u64 + 1) as usize;
        let (head, rest) = bytes.split_at(at);
        for mut run in [head, rest] {
            while let Some(payload) = self.decoders[side].next(&mut run) {
                let side_of = &mut self.sides[side];
                side_of.now = now;
                if let Ok(Some(body)) = self.links[side].receive(now, payload, &mut side_of.session) {
                    // A session that has ended takes nothing more.
                    let _ = side_of.receive(body);
                }
            }
        }
    }

    /// A side sends a frame, if it has one and the frame before has left.
    fn transmit(&mut self, side: usize) {
        if self.wires[side].free_at > self.now {
            return;
        }
        let now = self.now();
        self.sides[side].settle();
        let sent = self.links[side].transmit(now, &mut self.sides[side].session, &mut self.line);
        let length = sent.expect("the line takes the longest frame");
        if length == 0 {
            return;
        }
        self.frames += 1;
        let leaves = self.now + length as u64 * BYTE;
        self.wires[side].free_at = leaves;
        let faults = self.faults;
        let mut happens = |of_1000: u64| of_1000 > 0 && self.random.below(1000) < of_1000;
        if !self.is_plugged || happens(faults.lost) {
            return;
        }
        let copies = if happens(faults.repeated) { 2 } else { 1 };
        for _ in 0..copies {
            let mut bytes = self.line[..length].to_vec();
            for byte in &mut bytes {
                if faults.flipped > 0 && self.random.below(1000) < faults.flipped {
                    *byte ^= 1 << self.random.below(8);
                }
            }
            self.wires[side].flying.push_back((leaves + self.delay, bytes));
        }
    }
}

fn new_link(config: LinkConfig, random: &mut Random) -> SerialLink {
    SerialLink::new(config, random.below(1 << 32) as u32)
}
