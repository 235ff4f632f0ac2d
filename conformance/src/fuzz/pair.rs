//! Two sessions with real hosts, joined by the simulator, under any operations.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use farref_core::message::{Consequence, Deadline, DownReason, ErrorCode, FinishMode, Limits, Op};
use farref_core::session::{
    Answer, Call, CallError, Callee, Config, Ended, Host, Import, Micro, ObjectKey, Question, Ref, Storage,
};

use super::input::Input;
use super::wires::{Cut, Wires};
use crate::fixtures::{Postponed, caller_back, echo, factory, int, later, raiser, reference};
use crate::sim::{A, B, BASELINE, Owned, Sim, config, play, references};

type Small = Micro<12, 12, 6, 1024, 512>;

/// Limits that these inputs are too short for.
const WIDE: Limits =
    Limits { max_message: 2048, imports: 1000, answers: 64, call_bytes: 1 << 14, handles: 16, levels: 16 };

/// Limits that a few operations reach.
const TIGHT: Limits = Limits { max_message: 200, imports: 10, answers: 6, call_bytes: 400, handles: 4, levels: 4 };

/// The same for a play, which holds more.
const FOR_PLAY: Limits = Limits { max_message: 256, imports: 24, answers: 8, call_bytes: 320, handles: 8, levels: 4 };
type Tight = Micro<24, 24, 8, 768, 640>;

/// The roots of both sides.
const ROOTS: [&str; 5] = ["make", "echo", "back", "later", "raise"];

/// The first byte says how large the sessions are, in what storage, and whether their connections may be lost: that is what
/// [`play`] does. Otherwise each byte is an operation on one side. Both
/// sides are honest, so no session ends unless one of them leaves. At the end all that is under way arrives and all that was put off is answered.
/// Then the tables of both agree, what is held can be called, each call has ended once, and when all is released nothing is
/// left (CAL-2, REL-2, REF-3, ADM-6).
pub fn pair(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let first = input.byte();
    let seed = u64::from(first >> 3) + 1;
    match first & 7 {
        0 => Pair::new(Sim::<Host>::new(WIDE).chunked(seed)).run(input),
        1 => Pair::new(Sim::<Host>::with([tight(), tight()]).chunked(seed)).run(input),
        2 => Pair::new(Sim::<Small>::with([tight(), tight()]).chunked(seed)).run(input),
        4 => drop(play::<Host>(config(WIDE), input.rest(), usize::MAX)),
        5 => drop(play::<Tight>(
            Config { out_bytes: 768, store_bytes: 640, ..config(FOR_PLAY) },
            input.rest(),
            usize::MAX,
        )),
        // The same operations, where connections are lost.
        6 => Pair::new(Cut::<Host>::new([config(WIDE), config(WIDE)])).run(input),
        7 => Pair::new(Cut::<Small>::new([tight(), tight()])).run(input),
        // A host beside a device.
        _ => Pair::new(Sim::<Host>::with([config(WIDE), tight()]).chunked(seed)).run(input),
    }
}

fn tight() -> Config {
    Config { out_bytes: 1024, store_bytes: 512, ..config(TIGHT) }
}

struct Pair<S: Storage, W> {
    wires: W,
    apps: [App; 2],
    storage: PhantomData<S>,
}

/// What the program of one side has in hands.
struct App {
    held: Vec<Import>,
    calls: Vec<Open>,
    put_off: Postponed,
    serving: Vec<Answer>,
    /// Objects that it knows by weak references only.
    weak: Vec<ObjectKey>,
    /// It has asked for the end of the session.
    leaves: bool,
}

/// A call that has not ended.
struct Open {
    question: Question,
    pipelined: bool,
    abandoned: bool,
}

impl<S: Storage + 'static, W: Wires<S>> Pair<S, W> {
    fn new(mut wires: W) -> Self {
        let apps = [A, B].map(|side| {
            let side = &mut wires.sides()[side];
            let board = side.board.clone();
            let (put_off, object) = later();
            side.add_root("make", factory(&board));
            side.add_root("echo", echo());
            side.add_root("back", caller_back(&board));
            side.add_root("raise", raiser());
            side.add_root("later", object);
            let (held, calls, serving, weak) = Default::default();
            App { held, calls, put_off, serving, weak, leaves: false }
        });
        Self { wires, apps, storage: PhantomData }
    }

    fn run(mut self, mut input: Input<'_>) {
        while let Some(step) = input.next() {
            self.step(usize::from(step & 1), step >> 1, &mut input);
            self.collect();
            if self.ended().iter().any(Option::is_some) {
                break;
            }
        }
        self.drain();
        if self.apps.iter().any(|app| app.leaves) {
            assert_eq!(self.ended(), [Some(Ended::Done); 2], "nothing is under way (CLS-2)");
            return;
        }
        self.agree();
        self.let_all_go();
    }

    /// One operation.
    fn step(&mut self, side: usize, op: u8, input: &mut Input<'_>) {
        let here = &mut self.wires.sides()[side];
        let app = &mut self.apps[side];
        match op & 15 {
            0..=3 => self.call(side, input, 0),
            4 => {
                let how = input.byte();
                if !app.calls.is_empty() {
                    let at = usize::from(how >> 1) % app.calls.len();
                    let open = &mut app.calls[at];
                    let mode = if how & 1 == 0 { FinishMode::Abandon } else { FinishMode::Interrupt };
                    let cancelled = here.session.cancel(open.question, mode);
                    // One that was abandoned may be over: nobody is told.
                    assert!(cancelled.is_ok() || open.abandoned, "it is open");
                    open.abandoned |= mode == FinishMode::Abandon;
                }
            }
            5 => {
                if let Some(import) = input.pick(&app.held) {
                    assert_eq!(here.session.release(import), Ok(()), "it is held");
                    let at = app.held.iter().position(|&held| held == import);
                    app.held.swap_remove(at.expect("it is held"));
                }
            }
            6 => {
                if let Some(import) = input.pick(&app.held) {
                    assert_eq!(here.session.retain(import), Ok(()), "it is held");
                    app.held.push(import);
                }
            }
            7 | 8 => {
                if let Some(answer) = input.pick(&app.serving) {
                    let result = match input.below(4) {
                        0 => int(1),
                        1 => reference(Ref::Local(here.add(echo()))),
                        2 => app.held.first().map_or(int(2), |&import| reference(Ref::Import(import))),
                        _ => Owned::Bytes(vec![7; usize::from(input.byte())]),
                    };
                    self.reply(side, answer, &result);
                }
            }
            9 | 10 => self.wires.transmit(side),
            11 => self.wires.deliver(side, input),
            12 => {
                self.wires.transmit(side);
                self.wires.deliver_all(side);
            }
            13 if op >> 4 > 0 => self.revoke(side, input),
            14 => match op >> 4 {
                0 => {}
                1..=3 => self.wires.pass(1 + u64::from(input.byte() & 63)),
                4 | 5 => self.wires.cut(),
                6 if W::ENDS => {
                    here.session.shutdown();
                    app.leaves = true;
                }
                _ => self.wires.pass(1000),
            },
            15 if op >> 4 > 0 => {
                let more = input.byte();
                self.call(side, input, more);
            }
            _ => {}
        }
    }

    /// One of its objects is withdrawn, or what a weak reference is for is gone (REF-8, REF-10).
    fn revoke(&mut self, side: usize, input: &mut Input<'_>) {
        let here = &mut self.wires.sides()[side];
        let keys: Vec<_> = here.transients().collect();
        if let Some(key) = input.pick(&keys) {
            let reason = [DownReason::Revoked, DownReason::Gone][usize::from(self.apps[side].weak.contains(&key))];
            // Nobody may hold it any more.
            let _ = here.session.revoke(key, reason);
            here.settle();
        }
    }

    /// `more`: bits 0 lent, 1 an object that may be known already, 2 a weak reference as well, 3 one that may be known already,
    /// 4 and 5 a deadline and what becomes of the call then.
    fn call(&mut self, side: usize, input: &mut Input<'_>, more: u8) {
        let (how, what) = (input.byte(), input.byte());
        let [pipelined, import, local, promise, on_promise, nested, on_held] =
            [0, 1, 2, 3, 4, 5, 6].map(|bit| how >> bit & 1 == 1);
        let app = &self.apps[side];
        let at = usize::from(what >> 3);
        let held = (!app.held.is_empty()).then(|| app.held[at % app.held.len()]);
        let promises: Vec<_> = app.calls.iter().filter(|open| open.pipelined).map(|open| open.question).collect();
        let promised = (!promises.is_empty()).then(|| promises[at % promises.len()]);

        let mut call = Call::new(Callee::Import(Import::DIRECTORY), Op::CallMethod);
        let mut args: Vec<Owned> = vec![ROOTS[usize::from(what & 7) % ROOTS.len()].into()];
        match (held, promised) {
            (_, Some(promise)) if on_promise => (call.callee, call.op) = (Callee::Promise(promise), Op::Call),
            (Some(held), _) if on_held => (call.callee, call.op) = (Callee::Import(held), Op::Call),
            _ => {}
        }
        args.extend(held.filter(|_| import).map(|held| reference(Ref::Import(held))));
        let here = &mut self.wires.sides()[side];
        let weak = &mut self.apps[side].weak;
        weak.retain(|&key| here.has(key));
        if local || more & 1 == 1 {
            let known: Vec<_> = here.transients().filter(|key| more & 2 > 0 && !weak.contains(key)).collect();
            let key = one_of(&known, at).unwrap_or_else(|| here.add(echo()));
            args.push(reference(if more & 1 == 1 { Ref::Borrowed(key) } else { Ref::Local(key) }));
        }
        if more & 4 > 0 {
            let known = one_of(weak, at).filter(|_| more & 8 > 0);
            let key = known.unwrap_or_else(|| here.add(echo()));
            weak.extend(known.is_none().then_some(key));
            args.push(reference(Ref::Weak(key)));
        }
        args.extend(promised.filter(|_| promise).map(|promise| reference(Ref::Promise(promise))));
        call.pipelined = pipelined;
        if let (true, Some(&parent)) = (nested, self.apps[side].serving.first()) {
            call = call.parent(parent);
        }
        let consequences = [Consequence::Cancel, Consequence::Abandon, Consequence::Late];
        let late = (usize::from(more >> 4 & 3)).checked_sub(1).map(|at| consequences[at]);
        if let Some(consequence) = late {
            call = call.deadline(Deadline { remaining: u32::from(input.byte()), consequence });
        }
        let here = &mut self.wires.sides()[side];
        let (before, room) = (here.session.tables(), here.session.can_call());
        match here.call(call, &args) {
            Ok(question) => {
                assert!(room);
                self.apps[side].calls.push(Open { question, pipelined, abandoned: false });
            }
            Err(
                CallError::Overloaded
                | CallError::NoRoom
                | CallError::TableFull
                | CallError::NotAPromise
                | CallError::TooDeep
                | CallError::TooLarge(_)
                | CallError::Revoked(_)
                | CallError::DeadlineExceeded,
            ) => assert_eq!(here.session.tables(), before, "nothing has changed (REF-4)"),
            Err(CallError::BadReference(_)) => {
                assert!(more & 0xF > 0, "only what was withdrawn cannot be sent (REF-8)");
                assert_eq!(here.session.tables(), before, "nothing has changed (REF-4)");
            }
            Err(CallError::Leaving) => assert!(self.apps[side].leaves || self.apps[1 - side].leaves),
            Err(error) => panic!("{error}"),
        }
    }

    fn reply(&mut self, side: usize, answer: Answer, result: &Owned) {
        let references = references(std::slice::from_ref(result));
        let here = &mut self.wires.sides()[side];
        let session = &mut here.session;
        let _ = session.reply(answer, &references, |writer| result.write(writer, &mut 0));
        // There may be no room for the result; for this there is.
        if session.is_open(answer) {
            assert_eq!(session.refuse(answer, ErrorCode::Overloaded, 0), Ok(()));
        }
        here.settle();
    }

    fn ended(&mut self) -> [Option<Ended>; 2] {
        self.wires.sides().each_ref().map(|side| side.session.ended())
    }

    /// Takes the Returns that came, and the calls that were put off.
    fn collect(&mut self) {
        let leaves = self.apps.iter().any(|app| app.leaves);
        for ended in self.ended().into_iter().flatten() {
            assert!(leaves && ended == Ended::Done, "{ended:?}");
        }
        for (side, app) in self.wires.sides().iter_mut().zip(&mut self.apps) {
            let held = &mut app.held;
            app.calls.retain(|open| match side.take(open.question) {
                Some(returned) => {
                    assert!(!open.abandoned, "its result is not wanted");
                    held.extend(returned.held);
                    false
                }
                None => true,
            });
            for late in side.late.drain(..) {
                if let Some(open) = app.calls.iter_mut().find(|open| open.question == late) {
                    open.abandoned |= !side.session.is_awaited(late);
                }
            }
            app.serving.extend(std::iter::from_fn(|| app.put_off.next()));
            app.serving.retain(|&answer| side.session.is_open(answer));
        }
    }

    /// All that is under way arrives, and all that was put off is answered.
    fn drain(&mut self) {
        loop {
            self.wires.run();
            self.collect();
            let Some(side) = [A, B].into_iter().find(|&side| !self.apps[side].serving.is_empty()) else { break };
            let answer = self.apps[side].serving[0];
            self.reply(side, answer, &int(2));
        }
        for (side, app) in self.wires.sides().iter_mut().zip(&mut self.apps) {
            assert!(app.calls.iter().all(|open| open.abandoned), "each call ends");
            assert_eq!(side.untaken(), 0, "each call ends once");
            app.calls.clear();
            let told: BTreeSet<_> = side.down.iter().map(|&(import, _)| import).collect();
            assert_eq!(told.len(), side.down.len(), "each reference goes down once (REF-8)");
        }
    }

    /// The exports of each side are what the other holds, and each of them can be called.
    fn agree(&mut self) {
        for side in [A, B] {
            let held: BTreeSet<_> = self.apps[side].held.iter().copied().collect();
            let held: Vec<_> = held.into_iter().filter(|&import| import != Import::DIRECTORY).collect();
            let [here, there] = [side, 1 - side].map(|side| self.wires.sides()[side].session.tables());
            assert_eq!((here.imports, there.exports), (held.len() as u32, held.len() as u32 + 1), "side {side}");
            assert_eq!((here.questions, there.answers), (0, 0), "side {side}");
            for import in held {
                let here = &mut self.wires.sides()[side];
                let down = here.session.down(import);
                let asked = match (here.call(Call::new(Callee::Import(import), Op::Describe), &[]), down) {
                    (Err(CallError::Revoked(have)), Some(reason)) if have == reason => continue,
                    (Ok(asked), None) => asked,
                    (other, _) => panic!("{import:?} of side {side}, {down:?}: {other:?}"),
                };
                self.wires.run();
                let described = self.wires.sides()[side].take(asked).expect("a Return");
                assert!(described.outcome.is_ok(), "{import:?} of side {side}: {described:?}");
            }
        }
    }

    fn let_all_go(&mut self) {
        for (side, app) in self.wires.sides().iter_mut().zip(&mut self.apps) {
            app.held.drain(..).for_each(|import| assert_eq!(side.session.release(import), Ok(())));
        }
        self.wires.run();
        for side in self.wires.sides() {
            assert_eq!(side.session.tables(), BASELINE);
        }
    }
}

/// One of these, if there are any.
fn one_of<T: Copy>(from: &[T], at: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[at % from.len()])
}
