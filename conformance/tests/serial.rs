//! LNK-20 to LNK-27: two sessions on a serial line that loses, changes and repeats frames, with sides that restart and a
//! plug that is pulled. In virtual time; a failure prints its seed.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use farref_conformance::fixtures::{caller_back, factory, function, int, keeper, reference};
use farref_conformance::sim::{A, B, BASELINE, Faults, Owned, Random, Returned, SerialSim, Side, config};
use farref_core::link::serial::{Config as LinkConfig, SerialLink};
use farref_core::message::{CloseCode, FinishMode, Limits, Op};
use farref_core::session::{Call, Callee, Config, Ended, Host, Import, Micro, Question, Ref, Storage};
use farref_core::value::OwnedValue;

const LINK: LinkConfig = LinkConfig { window: 8, ack_delay: 10, retry: 100, retry_max: 800, patience: 60_000 };

const LIMITS: Limits = Limits { max_message: 256, imports: 64, answers: 8, call_bytes: 2048, handles: 4, levels: 3 };

/// What the issue of a line is: of 5 frames one is lost, of 1,000 bytes one is changed, of 20 frames one comes twice.
const BAD: Faults = Faults { lost: 200, flipped: 1, repeated: 50 };

fn small() -> Config {
    Config { out_bytes: 2048, store_bytes: 4096, ..config(LIMITS) }
}

/// What a side has been called with, in that order.
type Log = Rc<RefCell<Vec<i64>>>;

/// What a call has to give.
#[derive(Clone, Copy, Debug)]
enum Expect {
    This(i64),
    /// Or the other side had no room for the callback.
    ThisOrRefused(i64),
    AnInteger,
    AReference,
    Nothing,
}

/// A program on one side that uses the other side's objects at random.
struct Player {
    side: usize,
    log: Log,
    /// Log, factory, caller and keeper of the other side.
    roots: Vec<Import>,
    open: Vec<(Question, Expect)>,
    held: Vec<Import>,
    /// Numbers that the other side's log was called with.
    said: Vec<i64>,
    keeps: bool,
    completed: u64,
}

const ROOTS: [&str; 4] = ["log", "make", "call", "keep"];

impl Player {
    /// Its objects are served from now on, and the roots of the other side asked for once it is there.
    fn new<S: Storage + 'static>(sim: &mut SerialSim<S>, side: usize) -> Self {
        let log = Log::default();
        let here = &mut sim.sides[side];
        let board = here.board.clone();
        here.add_root("log", logger(&log));
        here.add_root("make", factory(&board));
        here.add_root("call", caller_back(&board));
        here.add_root("keep", keeper(&board));
        let (roots, open, held) = (Vec::new(), Vec::new(), Vec::new());
        Self { side, log, roots, open, held, said: Vec::new(), keeps: false, completed: 0 }
    }

    /// Does something: makes a call, or two, gives something back, or cancels.
    fn act<S: Storage + 'static>(&mut self, sim: &mut SerialSim<S>, random: &mut Random, number: i64) {
        self.collect(sim);
        let side = &mut sim.sides[self.side];
        // Where there is no room a program waits.
        let is_ready = |side: &Side<S>| side.session.can_call() && side.session.room() >= 256;
        if !is_ready(side) {
            return;
        }
        if self.roots.len() < ROOTS.len() {
            if self.open.is_empty() {
                for name in ROOTS {
                    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::GetAttr);
                    self.start(side, call, &[name.into()], Expect::AReference);
                }
            }
            return;
        }
        let on = |import| Call::new(Callee::Import(import), Op::Call);
        match random.below(9) {
            0 | 1 => {
                self.start(side, on(self.roots[0]), &[int(number)], Expect::This(number));
                self.said.push(number);
            }
            2 => {
                self.start(side, on(self.roots[1]), &[], Expect::AReference);
            }
            3 => {
                if let Some(&held) = self.held.last() {
                    self.start(side, on(held), &[], Expect::AnInteger);
                }
            }
            4 => {
                if let Some(held) = self.held.pop() {
                    side.session.release(held).expect("it is held");
                }
            }
            5 => {
                let callback = side.add(function(move |_, reply| reply.int(number)));
                let args = [reference(Ref::Local(callback))];
                self.start(side, on(self.roots[2]), &args, Expect::ThisOrRefused(number));
            }
            6 => {
                let maker = self.start(side, on(self.roots[1]).pipelined(), &[], Expect::AReference);
                if is_ready(side) {
                    self.start(side, Call::new(Callee::Promise(maker), Op::Call), &[], Expect::AnInteger);
                }
            }
            7 => {
                let kept = side.add(function(move |_, reply| reply.int(number)));
                let keep = Call::new(Callee::Import(self.roots[3]), Op::member(0));
                self.start(side, keep, &[reference(Ref::Local(kept))], Expect::Nothing);
                self.keeps = true;
            }
            _ => {
                if let Some((question, _)) = self.open.pop() {
                    side.session.cancel(question, FinishMode::Abandon).expect("it is open");
                }
            }
        }
    }

    fn start<S: Storage + 'static>(
        &mut self,
        side: &mut Side<S>,
        call: Call<'_>,
        args: &[Owned],
        expect: Expect,
    ) -> Question {
        let question = side.call(call, args).expect("there is room");
        self.open.push((question, expect));
        question
    }

    /// Takes what has come, and looks whether it is what was asked for.
    fn collect<S: Storage + 'static>(&mut self, sim: &mut SerialSim<S>) {
        let side = &mut sim.sides[self.side];
        let mut open = std::mem::take(&mut self.open);
        open.retain(|&(question, expect)| match side.take(question) {
            Some(returned) => {
                self.check(returned, expect);
                false
            }
            None => true,
        });
        self.open = open;
    }

    fn check(&mut self, returned: Returned, expect: Expect) {
        self.completed += 1;
        match (expect, returned.outcome) {
            (Expect::This(number) | Expect::ThisOrRefused(number), Ok(OwnedValue::Int(got))) => assert_eq!(got, number),
            (Expect::ThisOrRefused(_), Err(refused)) => assert!(refused.exception().is_some(), "{refused:?}"),
            (Expect::AnInteger, Ok(OwnedValue::Int(_))) | (Expect::Nothing, Ok(OwnedValue::None)) => {}
            (Expect::AReference, Ok(OwnedValue::Reference(Ref::Import(import)))) => {
                assert_eq!(returned.held, [import]);
                if self.roots.len() < ROOTS.len() {
                    self.roots.push(import)
                } else {
                    self.held.push(import)
                }
                return;
            }
            (expect, outcome) => panic!("{expect:?}, and it gave {outcome:?}"),
        }
        assert!(returned.held.is_empty());
    }

    /// Gives everything back.
    fn leave<S: Storage + 'static>(&mut self, sim: &mut SerialSim<S>) {
        self.collect(sim);
        assert!(self.open.is_empty(), "{:?} did not complete", self.open);
        let side = &mut sim.sides[self.side];
        if self.keeps {
            let forget = Call::new(Callee::Import(self.roots[3]), Op::member(2));
            side.call(forget, &[]).expect("nothing is under way");
        }
        for import in self.held.drain(..).chain(self.roots.drain(..)) {
            side.session.release(import).expect("it is held");
        }
    }
}

/// Called with a number, notes it and gives it back.
fn logger(log: &Log) -> impl farref_core::dispatch::Object + use<> {
    let log = Rc::clone(log);
    function(move |args, reply| {
        let number = args.int(0).expect("a number");
        log.borrow_mut().push(number);
        reply.int(number)
    })
}

/// Runs each seed, and says which one failed.
fn each_seed(seeds: std::ops::Range<u64>, mut run: impl FnMut(u64)) {
    for seed in seeds {
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("seed {seed} failed");
            panic::resume_unwind(panic);
        }
    }
}

/// Both give back what they have, and nothing is left on either side; what each said the other has heard once and in order.
fn part<S: Storage + 'static>(sim: &mut SerialSim<S>, players: &mut [Player; 2]) {
    sim.run();
    assert_eq!(sim.ended(), [None, None]);
    players.iter_mut().for_each(|player| player.leave(sim));
    sim.run();
    let [a, b] = &*players;
    for (caller, callee) in [(a, b), (b, a)] {
        assert_eq!(caller.said, *callee.log.borrow(), "each call once, in order");
    }
    for side in &sim.sides {
        assert_eq!(side.session.tables(), BASELINE);
        assert_eq!(side.transient(), 0);
    }
}

/// Both sides use each other, for some actions, while the plug is pulled at times for as long as is given.
fn use_each_other<S: Storage + 'static>(seed: u64, config: Config, actions: i64, unplugged: u64) -> u64 {
    let mut random = Random::new(seed ^ 0x5EED);
    let mut sim = SerialSim::<S>::new([config; 2], LINK, BAD, seed);
    let mut players = [Player::new(&mut sim, A), Player::new(&mut sim, B)];
    for number in 0..actions {
        players[random.below(2) as usize].act(&mut sim, &mut random, number);
        if unplugged > 0 && random.below(8) == 0 {
            sim.is_plugged = false;
            sim.run_for(random.below(unplugged));
            sim.is_plugged = true;
            sim.run_for(3_000);
        }
        sim.run_for(random.below(80));
    }
    part(&mut sim, &mut players);
    players.iter().map(|player| player.completed).sum()
}

/// R1, R3: whatever a line does to frames, each call completes once and no reference leaks (LNK-23 to LNK-26).
#[test]
fn lossy_serial_line_completes_each_call_once() {
    let mut completed = 0;
    each_seed(0..10_000, |seed| completed += use_each_other::<Host>(seed, small(), 50, 0));
    assert!(completed > 200_000, "only {completed} calls were made");
}

/// As much without a heap, and with hardly more memory than one message takes.
#[test]
fn lossy_serial_line_between_microcontrollers() {
    type Small = Micro<24, 24, 8, 1024, 1024>;
    let mut completed = 0;
    each_seed(0..500, |seed| completed += use_each_other::<Small>(seed, small(), 50, 0));
    assert!(completed > 5_000, "only {completed} calls were made");
}

/// LNK-26: what is plugged in again in time goes on as if nothing had been.
#[test]
fn lossy_serial_line_that_is_unplugged_goes_on() {
    let mut completed = 0;
    each_seed(0..500, |seed| completed += use_each_other::<Host>(seed, small(), 50, 25_000));
    assert!(completed > 5_000, "only {completed} calls were made");
}

/// LNK-26: a line that stays unplugged is lost for who waits for something, and nobody else.
#[test]
fn lossy_serial_line_that_stays_unplugged_is_lost() {
    let mut sim = SerialSim::<Host>::new([small(); 2], LINK, BAD, 7);
    let mut player = Player::new(&mut sim, A);
    Player::new(&mut sim, B);
    sim.run();
    sim.is_plugged = false;
    player.act(&mut sim, &mut Random::new(1), 0);
    sim.run_for(LINK.patience - 100);
    assert_eq!(sim.ended(), [None, None]);
    sim.run();
    assert_eq!(sim.ended(), [Some(Ended::LinkLost), None]);
    assert!(sim.now() < LINK.patience + 2_000);
}

/// LNK-22: whoever restarts, and however often and both at once: the other side learns it at once and by name, nothing of the
/// session before is taken for one of the session after, and the next session is as good as any.
#[test]
fn lossy_serial_line_with_sides_that_restart() {
    let mut restarts = 0;
    each_seed(0..1_000, |seed| {
        let mut random = Random::new(seed ^ 0xD1E);
        let mut sim = SerialSim::<Host>::new([small(); 2], LINK, BAD, seed);
        // Half the time frames of several sessions are under way at once.
        sim.delay += random.below(2) * random.below(60_000);
        let mut players = [Player::new(&mut sim, A), Player::new(&mut sim, B)];
        // What each side has been called with, in all its sessions, and when the last of them began.
        let (mut heard, mut begun, mut beginnings) = ([Vec::new(), Vec::new()], [0, 0], 0);
        let mut begin_anew = |sim: &mut SerialSim<Host>, players: &mut [Player; 2], side: usize| {
            if let Some(ended) = sim.ended()[side] {
                assert_eq!(ended, Ended::PeerRestarted);
                assert!(begun[1 - side] > begun[side], "the other side has not restarted since");
                restarts += 1;
            }
            beginnings += 1;
            begun[side] = beginnings;
            heard[side].append(&mut players[side].log.borrow_mut());
            sim.restart(side);
            players[side] = Player::new(sim, side);
        };
        for number in 0..80 {
            players[random.below(2) as usize].act(&mut sim, &mut random, number);
            match random.below(40) {
                side @ 0..2 => begin_anew(&mut sim, &mut players, side as usize),
                2 => [A, B].into_iter().for_each(|side| begin_anew(&mut sim, &mut players, side)),
                _ => sim.run_for(random.below(80)),
            }
            for side in [A, B] {
                if sim.ended()[side].is_some() {
                    begin_anew(&mut sim, &mut players, side);
                }
            }
        }
        // All that is left of former sessions comes meanwhile.
        for _ in 0..20 {
            sim.run_for(500);
            for side in [A, B] {
                if sim.ended()[side].is_some() {
                    begin_anew(&mut sim, &mut players, side);
                }
            }
        }
        for number in 80..100 {
            players[random.below(2) as usize].act(&mut sim, &mut random, number);
            sim.run_for(50);
        }
        part(&mut sim, &mut players);
        for (heard, player) in heard.iter().zip(&players) {
            assert!(heard.iter().chain(&*player.log.borrow()).is_sorted_by(|a, b| a < b), "each call at most once");
        }
    });
    assert!(restarts > 500, "only {restarts} sessions ended because the other side restarted");
}

/// Two sides on a bad line that have used each other, and still have calls under way.
fn busy(seed: u64, config: Config) -> (SerialSim<Host>, [Player; 2]) {
    let mut random = Random::new(seed ^ 0xB5);
    let mut sim = SerialSim::<Host>::new([config; 2], LINK, BAD, seed);
    let mut players = [Player::new(&mut sim, A), Player::new(&mut sim, B)];
    for number in 0..40 {
        players[random.below(2) as usize].act(&mut sim, &mut random, number);
        sim.run_for(random.below(80));
    }
    (sim, players)
}

/// CLS-2, LNK-26: a session ends by Goodbye when all calls have completed, and the last word is not lost either.
#[test]
fn lossy_serial_line_that_is_left_without_loss() {
    each_seed(0..500, |seed| {
        let (mut sim, mut players) = busy(seed, small());
        sim.sides[seed as usize % 2].session.shutdown();
        sim.run();
        assert_eq!(sim.ended(), [Some(Ended::Done); 2]);
        assert!(sim.links.iter().all(SerialLink::is_settled));
        players.iter_mut().for_each(|player| player.collect(&mut sim));
        let [a, b] = &players;
        for (caller, callee) in [(a, b), (b, a)] {
            assert!(caller.open.is_empty(), "{:?} did not complete", caller.open);
            assert_eq!(caller.said, *callee.log.borrow());
        }
    });
}

/// CLS-1, LNK-26: the other side learns why a session was closed.
#[test]
fn lossy_serial_line_brings_a_close() {
    each_seed(0..200, |seed| {
        let (mut sim, _) = busy(seed, small());
        sim.sides[A].session.close(CloseCode::Leaving);
        sim.run();
        assert_eq!(sim.ended(), [Some(Ended::Closed(CloseCode::Leaving)), Some(Ended::PeerClosed(CloseCode::Leaving))]);
        assert!(sim.links[A].is_settled());
    });
}

/// TIM-5: a bad line is no silence; one that is unplugged is.
#[test]
fn lossy_serial_line_keeps_a_session_alive() {
    each_seed(0..50, |seed| {
        let (mut sim, _) = busy(seed, Config { patience: Some(4_000), ..small() });
        sim.run_for(120_000);
        assert_eq!(sim.ended(), [None, None]);
        sim.is_plugged = false;
        sim.run_for(6_000);
        assert_eq!(sim.ended(), [Some(Ended::Silent); 2]);
    });
}
