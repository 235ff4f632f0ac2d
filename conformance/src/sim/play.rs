//! Random operations of both sides over connections that are lost, and what must hold whatever is chosen.

use std::collections::BTreeMap;

use farref_core::message::{FinishMode, Op};
use farref_core::session::{Call, CallError, Callee, Config, Import, ObjectKey, Question, Ref, Storage};
use farref_core::value::OwnedValue;

use super::{A, B, Linked, Owned, Random};
use crate::fixtures::{caller_back, counter, echo, factory, function, int, keeper, reference};

/// Where choices come from.
pub trait Choices {
    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64;
    /// Whether there are no more; what is chosen then is always 0.
    fn is_over(&self) -> bool;
}

impl Choices for Random {
    fn below(&mut self, limit: u64) -> u64 {
        Random::below(self, limit)
    }

    fn is_over(&self) -> bool {
        false
    }
}

/// Each byte is a choice.
impl Choices for &[u8] {
    fn below(&mut self, limit: u64) -> u64 {
        match self.split_first() {
            Some((&first, rest)) => {
                *self = rest;
                u64::from(first) % limit
            }
            None => 0,
        }
    }

    fn is_over(&self) -> bool {
        self.is_empty()
    }
}

/// What a play came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Played {
    /// Connections that were lost.
    pub cuts: u32,
    /// Calls that have their Return.
    pub calls: u64,
}

/// Does what is chosen, `steps` times or until there are no more choices: calls with references and promises, cancels,
/// releases, deliveries of some bytes, connections lost. Then all ends.
///
/// # Panics
///
/// If a message takes effect twice or not at all, a call ends twice or never, or something is left in a table.
pub fn play<S: Storage + 'static>(config: Config, choices: impl Choices, steps: usize) -> Played {
    let mut play = Play::<S, _>::new(config, choices);
    for _ in 0..steps {
        if play.random.is_over() {
            break;
        }
        play.step();
    }
    play.end()
}

/// What one side remembers.
#[derive(Default)]
struct Actor {
    held: Vec<Import>,
    /// Open calls, and whether each is an increment that must count.
    open: BTreeMap<u16, (Question, bool)>,
    counted: i64,
    returned: u64,
    /// The counter of the other side.
    count: Option<Import>,
}

struct Play<S: Storage, C> {
    sim: Linked<S>,
    actors: [Actor; 2],
    /// Objects of each side that are arguments.
    own: [[ObjectKey; 2]; 2],
    random: C,
}

impl<S: Storage + 'static, C: Choices> Play<S, C> {
    fn new(config: Config, random: C) -> Self {
        let other = Config { peer: farref_core::Uuid::from_bytes([8; 16]), ..config };
        let mut sim = Linked::new([config, other]);
        for side in &mut sim.sides {
            let board = side.board.clone();
            side.add_root("count", counter());
            side.add_root("make", factory(&board));
            side.add_root("keeper", keeper(&board));
            side.add_root("back", caller_back(&board));
            side.add_root("echo", echo());
        }
        let own = sim.sides.each_mut().map(|side| {
            [1, 2]
                .map(|add| side.add_permanent(function(move |args, reply| reply.int(args.int(0).unwrap_or(-1) + add))))
        });
        let mut play = Self { sim, actors: Default::default(), own, random };
        play.sim.run();
        for side in [A, B] {
            for name in ["count", "make", "keeper", "back", "echo"] {
                let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
                let asked = play.sim.sides[side].call(call, &[name.into()]).expect("room for it");
                play.sim.run();
                let returned = play.sim.sides[side].take(asked).expect("a root");
                // Whatever else is called does not count.
                match name {
                    "count" => play.actors[side].count = returned.held.first().copied(),
                    _ => play.actors[side].held.extend(&returned.held),
                }
            }
        }
        play
    }

    /// One operation, one delivery or one fault.
    fn step(&mut self) {
        let side = self.random.below(2) as usize;
        match self.random.below(20) {
            0..7 => self.call(side),
            7 => self.cancel(side),
            8..10 => self.release(side),
            10..19 => {
                self.sim.fill(side);
                let most = 1 + self.random.below(60);
                self.sim.deliver(side, most as usize);
            }
            _ => self.sim.reconnect(),
        }
        self.collect(A);
        self.collect(B);
    }

    fn pick(&mut self, side: usize) -> Option<Import> {
        let held = &self.actors[side].held;
        let at = self.random.below(held.len().max(1) as u64) as usize;
        held.get(at).copied()
    }

    fn call(&mut self, side: usize) {
        let is_increment = self.random.below(3) == 0;
        let promises: Vec<_> = self.actors[side].open.values().filter(|(_, counts)| !counts).collect();
        let promise = promises.first().map(|(question, _)| *question);
        let callee = match (is_increment, promise, self.random.below(4)) {
            (true, ..) => self.actors[side].count.map(Callee::Import),
            (false, Some(promise), 0) => Some(Callee::Promise(promise)),
            _ => self.pick(side).map(Callee::Import),
        };
        let Some(callee) = callee else { return };
        let op = if is_increment {
            Op::member(0)
        } else {
            [Op::Call, Op::member(0), Op::member(1)][self.random.below(3) as usize]
        };
        let mut args = Vec::new();
        if is_increment {
            args.push(int(1));
        } else {
            for _ in 0..self.random.below(3) {
                args.push(self.argument(side));
            }
        }
        let call = Call { pipelined: !is_increment, ..Call::new(callee, op) };
        match self.sim.sides[side].call(call, &args) {
            Ok(question) => {
                let before = self.actors[side].open.insert(question.id(), (question, is_increment));
                assert!(before.is_none(), "a call id is used again before its Return");
            }
            Err(
                CallError::NoRoom
                | CallError::Overloaded
                | CallError::TableFull
                | CallError::NotAPromise
                | CallError::NotReady
                | CallError::TooManyPromises,
            ) => {}
            Err(error) => panic!("{error:?}: {error}"),
        }
    }

    fn argument(&mut self, side: usize) -> Owned {
        match self.random.below(4) {
            0 => {
                let at = self.random.below(2) as usize;
                reference(Ref::Local(self.own[side][at]))
            }
            1 => self.pick(side).map_or(OwnedValue::None, |import| reference(Ref::Import(import))),
            2 => "a text of some length".into(),
            _ => int(7),
        }
    }

    fn cancel(&mut self, side: usize) {
        let open = self.actors[side].open.values().find(|(_, counts)| !counts).copied();
        if let Some((question, _)) = open {
            let mode = if self.random.below(2) == 0 { FinishMode::Abandon } else { FinishMode::Interrupt };
            // It may have been cancelled before.
            if self.sim.sides[side].session.cancel(question, mode) == Ok(()) && mode == FinishMode::Abandon {
                self.actors[side].open.remove(&question.id());
            }
        }
    }

    fn release(&mut self, side: usize) {
        let actor = &mut self.actors[side];
        if actor.held.len() > 4 {
            let at = 4 + self.random.below(actor.held.len() as u64 - 4) as usize;
            let import = actor.held.swap_remove(at);
            assert_eq!(self.sim.sides[side].session.release(import), Ok(()));
        }
    }

    /// Takes what came back.
    fn collect(&mut self, side: usize) {
        let actor = &mut self.actors[side];
        let came: Vec<_> = actor.open.values().copied().collect();
        for (question, counts) in came {
            if let Some(returned) = self.sim.sides[side].take(question) {
                actor.open.remove(&question.id());
                actor.returned += 1;
                actor.held.extend(&returned.held);
                if counts {
                    let Ok(OwnedValue::Int(count)) = returned.outcome else { panic!("{returned:?}") };
                    actor.counted += 1;
                    assert!(count > 0);
                }
            }
        }
    }

    /// All that is under way ends, and all that is held is given back.
    fn end(mut self) -> Played {
        self.sim.run();
        for side in [A, B] {
            self.collect(side);
            assert!(self.actors[side].open.is_empty(), "calls without a Return: {:?}", self.actors[side].open);
            let count = self.actors[side].count.expect("a counter");
            let asked = self.sim.sides[side].call(Call::new(Callee::Import(count), Op::GetAttr), &["value".into()]);
            let asked = asked.expect("room for it");
            self.sim.run();
            let value = self.sim.sides[side].take(asked).expect("a Return").outcome;
            assert_eq!(value, Ok(int(self.actors[side].counted)), "each increment took effect once");
        }
        for side in [A, B] {
            let actor = &mut self.actors[side];
            for import in std::mem::take(&mut actor.held).into_iter().chain(actor.count.take()) {
                assert_eq!(self.sim.sides[side].session.release(import), Ok(()));
            }
        }
        // What keepers keep is given back by them.
        for side in [A, B] {
            let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
            let asked = self.sim.sides[side].call(call, &["keeper".into()]).expect("room for it");
            self.sim.run();
            let keeper = self.sim.sides[side].take(asked).expect("a Return");
            let forget = Call::new(Callee::Import(keeper.held[0]), Op::member(2));
            let asked = self.sim.sides[side].call(forget, &[]).expect("room for it");
            self.sim.run();
            let _ = self.sim.sides[side].take(asked);
            self.sim.sides[side].release(&keeper);
        }
        self.sim.assert_baseline();
        Played { cuts: self.sim.cuts, calls: self.actors[A].returned + self.actors[B].returned }
    }
}
