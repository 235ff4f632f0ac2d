//! What joins the two sides of a pair: wires that lose nothing, or connections that are lost.

use farref_core::session::{Config, Storage};

use super::input::Input;
use crate::sim::{A, B, Linked, Side, Sim};

pub trait Wires<S: Storage> {
    /// Whether sessions may be shut down: what is lost with the last connection then is lost.
    const ENDS: bool;

    fn sides(&mut self) -> &mut [Side<S>; 2];

    /// Puts what a side has to send on the wire.
    fn transmit(&mut self, side: usize);

    /// Delivers some of what a side has sent.
    fn deliver(&mut self, side: usize, input: &mut Input<'_>);

    /// Delivers all of it.
    fn deliver_all(&mut self, side: usize);

    /// Time passes for both.
    fn pass(&mut self, time: u64);

    /// The connection is lost.
    fn cut(&mut self) {}

    /// Drives both sides until nothing is under way, and no deadline either.
    fn run(&mut self);
}

impl<S: Storage + 'static> Wires<S> for Sim<S> {
    const ENDS: bool = true;

    fn sides(&mut self) -> &mut [Side<S>; 2] {
        &mut self.sides
    }

    fn transmit(&mut self, side: usize) {
        Sim::transmit(self, side);
    }

    fn deliver(&mut self, side: usize, _: &mut Input<'_>) {
        Sim::deliver(self, side);
    }

    fn deliver_all(&mut self, side: usize) {
        while Sim::deliver(self, side) {}
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        self.advance();
    }

    fn run(&mut self) {
        Sim::run(self);
    }
}

/// Two sides whose session goes on over one connection after the other.
pub struct Cut<S: Storage> {
    linked: Linked<S>,
    now: u64,
}

impl<S: Storage + 'static> Cut<S> {
    pub fn new(configs: [Config; 2]) -> Self {
        let mut linked = Linked::new(configs);
        linked.run();
        Self { linked, now: 0 }
    }
}

impl<S: Storage + 'static> Wires<S> for Cut<S> {
    const ENDS: bool = false;

    fn sides(&mut self) -> &mut [Side<S>; 2] {
        &mut self.linked.sides
    }

    fn transmit(&mut self, side: usize) {
        self.linked.fill(side);
    }

    fn deliver(&mut self, side: usize, input: &mut Input<'_>) {
        self.linked.deliver(side, 1 + usize::from(input.byte() & 63));
    }

    fn deliver_all(&mut self, side: usize) {
        self.linked.deliver(side, usize::MAX);
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        for side in [A, B] {
            self.linked.sides[side].session.advance(self.now);
            self.linked.sides[side].settle();
        }
    }

    fn cut(&mut self) {
        self.linked.reconnect();
    }

    fn run(&mut self) {
        loop {
            self.linked.run();
            let next = self.linked.sides.iter().filter_map(|side| side.session.poll_timeout()).min();
            let Some(next) = next else { return };
            self.pass(next.saturating_sub(self.now));
        }
    }
}
