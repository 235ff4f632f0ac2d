//! Messages, bytes and round trips, counted; and tables after 100,000 uses.

use farref_conformance::fixtures::{Items, counter, factory, files, function, int, list, object, reference};
use farref_conformance::sim::{A, B, Counts, LIMITS, Owned, Sim, config};
use farref_core::dispatch::{Action, Arguments, Done, Member, Reply};
use farref_core::message::{Limits, Op};
use farref_core::session::{Call, Callee, Host, Import, Micro, Ref, Reference, Storage};
use farref_core::value::OwnedValue;
use std::cell::RefCell;
use std::rc::Rc;

/// A ping, a member called by its number with one small integer in and out, is ten bytes both ways, framing included.
/// FRM-2, OPS-3, VAL-1.
#[test]
fn a_ping_is_ten_bytes() {
    let mut sim = Sim::<Host>::new(LIMITS);
    sim.sides[B].add_root("x", counter());
    let x = sim.root(A, "x");
    sim.mark();
    let returned = sim.ask(A, x, Op::member(0), &[int(1)]);
    assert_eq!(returned.outcome, Ok(int(1)));
    // Call: length, head, call id, target, op, value. Return: length, head, call id, value.
    assert_eq!([sim.sent(A), sim.sent(B)], [Counts { messages: 1, bytes: 6 }, Counts { messages: 1, bytes: 4 }]);
    assert_eq!(sim.round_trips(returned.at), 1.0);
    sim.sides[A].session.release(x).unwrap();
    sim.assert_baseline();
}

/// A list and an object with an attribute `k` at A, and `x` at B; A's call of `x.foo(1, [1, 2, 3], y)`.
fn call_foo(mut body: impl FnMut(&Arguments<'_>, Reply<'_>) -> Done + 'static) -> (Owned, f64, Counts) {
    const MEMBERS: &[Member] = &[Member::method("foo", "reads its arguments, or not")];
    const K: &[Member] = &[Member::readable("k", "a number")];
    let mut sim = Sim::<Host>::new(LIMITS);
    sim.sides[B].add_root(
        "x",
        object(MEMBERS, move |action, args, reply| match action {
            Action::Method(0) => body(args, reply),
            _ => reply.unsupported(),
        }),
    );
    let x = sim.root(A, "x");
    let board = sim.sides[A].board.clone();
    let items = Items::default();
    items.borrow_mut().extend([int(1), int(2), int(3)]);
    let list = sim.sides[A].add(list(&board, &items));
    let y = sim.sides[A].add(object(K, |action, _, reply| match action {
        Action::Get(0) => reply.int(100),
        _ => reply.unsupported(),
    }));
    sim.mark();
    let args = ["foo".into(), int(1), reference(Ref::Local(list)), reference(Ref::Local(y))];
    let returned = sim.ask(A, x, Op::CallMethod, &args);
    let (result, round_trips, counts) = (returned.outcome.unwrap(), sim.round_trips(returned.at), sim.counts());
    sim.sides[A].session.release(x).unwrap();
    sim.assert_baseline();
    (result, round_trips, counts)
}

/// One round trip if `foo` looks at none of its arguments: Call, Return, Release.
#[test]
fn a_call_with_references_is_one_round_trip() {
    let (result, round_trips, counts) = call_foo(|_, reply| reply.int(6));
    assert_eq!((result, round_trips), (int(6), 1.0));
    assert_eq!(counts.messages, 3);
}

/// Two round trips in all if `foo` reads the list's items and `y.k`, asked for together. CAL-6.
#[test]
fn reading_the_arguments_is_one_more_round_trip() {
    // What the two nested calls gave; the second one to come replies.
    type Sum = Rc<RefCell<(i64, u32)>>;
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    const MEMBERS: &[Member] = &[Member::method("foo", "adds up")];
    let its_board = board.clone();
    sim.sides[B].add_root(
        "x",
        object(MEMBERS, move |_, args, mut reply| {
            let imports = [1, 2].map(|index| args.reference(index).and_then(|handle| reply.resolve(handle)));
            let [Some(Reference::Import(list)), Some(Reference::Import(y))] = imports else {
                return reply.bad_arguments("foo(int, list, y)");
            };
            let force = reply.call(Call::new(Callee::Import(list), Op::Force), |_| Ok(())).unwrap();
            let get = Call::new(Callee::Import(y), Op::GetAttr);
            let get = reply.call(get, |writer| writer.str("k")).unwrap();
            let (answer, done) = reply.later();
            let sum = Sum::default();
            for question in [force, get] {
                let sum = Rc::clone(&sum);
                its_board.then(question, move |side, returned| {
                    let mut sum = sum.borrow_mut();
                    sum.0 += match returned.outcome.unwrap() {
                        OwnedValue::List(items) => items.iter().filter_map(OwnedValue::as_int).sum(),
                        value => value.as_int().unwrap(),
                    };
                    sum.1 += 1;
                    if sum.1 == 2 {
                        side.reply(answer, &int(sum.0));
                    }
                });
            }
            done
        }),
    );
    let x = sim.root(A, "x");
    let (board, items) = (sim.sides[A].board.clone(), Items::default());
    items.borrow_mut().extend([int(1), int(2), int(3)]);
    let list = sim.sides[A].add(list(&board, &items));
    const K: &[Member] = &[Member::readable("k", "a number")];
    let y = sim.sides[A].add(object(K, |_, _, reply| reply.int(100)));
    sim.mark();
    let args = ["foo".into(), int(1), reference(Ref::Local(list)), reference(Ref::Local(y))];
    let returned = sim.ask(A, x, Op::CallMethod, &args);
    assert_eq!(returned.outcome, Ok(int(106)));
    assert_eq!(sim.round_trips(returned.at), 2.0);
    // Three calls, three Returns, one Release.
    assert_eq!(sim.counts().messages, 7);
    sim.sides[A].session.release(x).unwrap();
    sim.assert_baseline();
}

/// `open(p).read()` is one round trip by pipelining: two Calls, two Returns, a Finish and a Release. DIR-1, ANS-5.
#[test]
fn open_read_is_one_round_trip() {
    let mut sim = Sim::<Host>::new(LIMITS).delay(7);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("open", files(&board, &[("notes.txt", "remember the milk")]));
    sim.mark();
    let open = Call::new(Callee::Import(Import::DIRECTORY), Op::CallMethod).pipelined();
    let file = sim.call(A, open, &["open".into(), "notes.txt".into()]);
    let read = sim.call(A, Call::new(Callee::Promise(file), Op::CallMethod), &["read".into()]);
    let missing = sim.call(A, open, &["open".into(), "missing".into()]);
    let broken = sim.call(A, Call::new(Callee::Promise(missing), Op::CallMethod), &["read".into()]);
    sim.run();
    let [file, read, missing, broken] = [file, read, missing, broken].map(|question| sim.returned(A, question));
    assert_eq!(read.outcome, Ok("remember the milk".into()));
    assert_eq!(sim.round_trips(read.at), 1.0);
    assert_eq!(missing.outcome.unwrap_err().exception().map(|(name, _)| name), Some("FileNotFoundError"));
    assert_eq!(broken.outcome.unwrap_err().values, [int(0)]);
    assert_eq!(sim.counts().messages, 9, "four Calls, four Returns, one Finish for both");
    sim.sides[A].release(&file);
    sim.run();
    assert_eq!(sim.counts().messages, 10);
    sim.assert_baseline();
}

/// However long a chain of pipelined calls is, it is one round trip.
#[test]
fn a_chain_of_a_hundred_calls_is_one_round_trip() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    // Each call gives a new object that does the same.
    fn link(board: farref_conformance::sim::Board<Host>, depth: i64) -> impl farref_core::dispatch::Object {
        object(&[], move |action, _, reply| match action {
            Action::Call => {
                let key = board.add(link_boxed(board.clone(), depth + 1));
                reply.reference(Ref::Local(key))
            }
            Action::Length => reply.int(depth),
            _ => reply.unsupported(),
        })
    }
    struct Link(Box<dyn farref_core::dispatch::Object>);
    impl farref_core::dispatch::Object for Link {
        fn perform(&mut self, action: Action, args: &Arguments<'_>, reply: Reply<'_>) -> Done {
            self.0.perform(action, args, reply)
        }
    }
    fn link_boxed(board: farref_conformance::sim::Board<Host>, depth: i64) -> Link {
        Link(Box::new(link(board, depth)))
    }
    sim.sides[B].add_root("link", link(board, 0));
    let mut last =
        sim.call(A, Call::new(Callee::Import(Import::DIRECTORY), Op::CallMethod).pipelined(), &["link".into()]);
    let mut all = vec![last];
    for _ in 1..100 {
        last = sim.call(A, Call::new(Callee::Promise(last), Op::Call).pipelined(), &[]);
        all.push(last);
    }
    let depth = sim.call(A, Call::new(Callee::Promise(last), Op::Length), &[]);
    sim.run();
    let depth = sim.returned(A, depth);
    assert_eq!(depth.outcome, Ok(int(100)));
    assert_eq!(sim.round_trips(depth.at), 1.0);
    for question in all {
        let returned = sim.returned(A, question);
        sim.sides[A].release(&returned);
    }
    sim.assert_baseline();
}

fn many_calls<S: Storage + 'static>(mut sim: Sim<S>, at_a_time: usize) {
    sim.sides[B].add_root("a", counter());
    let a = sim.root(A, "a");
    let before = sim.sides.each_ref().map(|side| side.session.tables());
    let mut count = 0;
    while count < 100_000 {
        let call = Call::new(Callee::Import(a), Op::member(0));
        let questions: Vec<_> = (0..at_a_time).map(|_| sim.call(A, call, &[int(1)])).collect();
        sim.run();
        for question in questions {
            count += 1;
            assert_eq!(sim.returned(A, question).outcome, Ok(int(count)));
        }
    }
    assert_eq!(sim.sides.each_ref().map(|side| side.session.tables()), before);
    sim.sides[A].session.release(a).unwrap();
    sim.assert_baseline();
}

fn many_references<S: Storage + 'static>(mut sim: Sim<S>, at_a_time: usize) {
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("make", factory(&board));
    let make = sim.root(A, "make");
    let before = sim.sides.each_ref().map(|side| side.session.tables());
    for _ in 0..100_000 / at_a_time {
        let call = Call::new(Callee::Import(make), Op::Call);
        let questions: Vec<_> = (0..at_a_time).map(|_| sim.call(A, call, &[])).collect();
        sim.run();
        for question in questions {
            let returned = sim.returned(A, question);
            assert_eq!(returned.held.len(), 1);
            sim.sides[A].release(&returned);
        }
        sim.run();
    }
    assert_eq!(sim.sides.each_ref().map(|side| side.session.tables()), before);
    assert_eq!(sim.sides[B].freed.len(), 100_000);
    sim.sides[A].session.release(make).unwrap();
    sim.assert_baseline();
}

type Small = Micro<8, 8, 4, 512, 256>;

fn small() -> Sim<Small> {
    let limits = Limits { max_message: 128, imports: 8, answers: 4, call_bytes: 128, handles: 4, levels: 4 };
    Sim::with([config(limits), config(limits)])
}

/// N04: 100,000 calls of `a.m()` on a host, many at a time, and on fixed storage: both sides are at the baseline.
#[test]
fn n04_after_100_000_calls_both_sides_are_at_the_baseline() {
    many_calls(Sim::<Host>::new(LIMITS), 200);
    many_calls(small(), 4);
}

/// N04: 100,000 references received and dropped, on both kinds of storage.
#[test]
fn n04_after_100_000_references_both_sides_are_at_the_baseline() {
    many_references(Sim::<Host>::new(LIMITS), 200);
    many_references(small(), 4);
}

/// N04, REL-1: 100,000 references held at once on one session, and then dropped.
#[test]
fn n04_100_000_references_at_once() {
    let mut sim = Sim::<Host>::new(LIMITS);
    let board = sim.sides[B].board.clone();
    let inner = board.clone();
    sim.sides[B].add_root(
        "many",
        function(move |_, reply| {
            let keys: Vec<Ref> = (0..50).map(|_| Ref::Local(inner.add(function(|_, reply| reply.none())))).collect();
            reply.with(&keys, |writer| {
                writer.tuple(50)?;
                (0..50).try_for_each(|index| writer.reference(index))
            })
        }),
    );
    let many = sim.root(A, "many");
    let mut held = Vec::new();
    for _ in 0..20 {
        let call = Call::new(Callee::Import(many), Op::Call);
        let questions: Vec<_> = (0..100).map(|_| sim.call(A, call, &[])).collect();
        sim.run();
        held.extend(questions.into_iter().map(|question| sim.returned(A, question)));
    }
    assert_eq!(sim.sides[A].session.tables().imports, 100_001);
    assert_eq!(sim.sides[B].transient(), 100_000);
    held.iter().for_each(|returned| sim.sides[A].release(returned));
    sim.sides[A].session.release(many).unwrap();
    sim.assert_baseline();
}
