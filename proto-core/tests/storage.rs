//! The same behaviour in both kinds of storage, and through bytes that arrive in pieces.

use farref_conformance::fixtures::{Items, caller_back, counter, echo, factory, int, keeper, later, list, reference};
use farref_conformance::sim::{A, B, LIMITS, Owned, Random, Returned, Sim, config};
use farref_core::message::{CloseCode, FinishMode, Limits, Op};
use farref_core::session::{
    Call, CallError, Callee, Config, Ended, Host, Import, Micro, Question, Ref, Session, Storage, Tables,
};
use farref_core::value::OwnedValue;

/// What a device has: small tables, small frames.
type Small = Micro<12, 12, 6, 512, 512>;
const SMALL: Limits = Limits { max_message: 128, imports: 12, answers: 6, call_bytes: 256, handles: 4, levels: 6 };

fn micro() -> Sim<Small> {
    Sim::with([config(SMALL), config(SMALL)])
}

/// A host with the same limits.
fn host() -> Sim<Host> {
    let mut config = config(SMALL);
    (config.out_bytes, config.store_bytes) = (512, 512);
    Sim::with([config, config])
}

/// A bit of everything; gives the log of messages.
fn scenario<S: Storage + 'static>(sim: Sim<S>) -> Vec<String> {
    let mut sim = sim.trace();
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("make", factory(&board));
    sim.sides[B].add_root("back", caller_back(&board));
    sim.sides[B].add_root("keeper", keeper(&board));
    sim.sides[B].add_root("list", list(&board, &Items::default()));
    let [make, back, keeper, items] = ["make", "back", "keeper", "list"].map(|name| sim.root(A, name));
    let twice = sim.sides[A].add(echo());
    assert_eq!(sim.get(A, back, Op::Call, &[reference(Ref::Local(twice)), int(7)]), Ok(int(7)));
    for number in 0..5 {
        let made = sim.call(A, Call::new(Callee::Import(make), Op::Call).pipelined(), &[]);
        let own = sim.call(A, Call::new(Callee::Promise(made), Op::Call), &[]);
        sim.run();
        assert_eq!(sim.returned(A, own).outcome, Ok(int(number)));
        let made = sim.returned(A, made);
        assert_eq!(sim.get(A, items, Op::member(0), &[int(number)]), Ok(OwnedValue::None));
        sim.sides[A].release(&made);
    }
    assert_eq!(sim.get(A, items, Op::Force, &[]), Ok(OwnedValue::List((0..5).map(int).collect())));
    let kept = sim.sides[A].add(counter());
    assert_eq!(sim.get(A, keeper, Op::member(0), &[reference(Ref::Local(kept))]), Ok(OwnedValue::None));
    assert!(sim.get(A, keeper, Op::member(1), &[]).is_err(), "a counter is not called");
    assert_eq!(sim.get(A, keeper, Op::member(2), &[]), Ok(OwnedValue::None));
    assert!(sim.get(A, make, Op::GetAttr, &["missing".into()]).is_err());
    for import in [make, back, keeper, items] {
        sim.sides[A].session.release(import).unwrap();
    }
    sim.assert_baseline();
    sim.log
}

/// Fixed and growing storage put the same messages on the wire. REF-1, REL-3, CAL-1: also the same slots and ids.
#[test]
fn both_kinds_of_storage_say_the_same() {
    let [one, other] = [scenario(micro()), scenario(host())];
    // Hello tells the limits, which differ; everything after it is the same.
    assert_eq!(one, other);
}

/// FRM-2: records say nothing of how bytes arrive; in pieces of any size they are the same.
#[test]
fn bytes_may_arrive_in_pieces() {
    let whole = scenario(host());
    for seed in 1..50 {
        assert_eq!(scenario(host().chunked(seed)), whole, "seed {seed}");
        assert_eq!(scenario(micro().chunked(seed)), whole, "seed {seed}");
    }
}

/// FRM-2: a record of length 0, above the limit or in a longer form ends the session.
#[test]
fn a_bad_length_ends_the_session() {
    use farref_core::frame::{Split, split};
    for bytes in [&[0][..], &[0x81, 1], &[0x80, 0x00], &[0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 0]] {
        assert_eq!(split(bytes, SMALL.max_message), Split::Bad, "{bytes:02x?}");
    }
    assert_eq!(split(&[0x80, 0x01, 7], SMALL.max_message), Split::Incomplete);
}

/// What one side has at hand in a random run.
#[derive(Default)]
struct Host1 {
    imports: Vec<Import>,
    open: Vec<(Question, bool)>,
    pending: Vec<Question>,
}

/// Random calls, promises, cancels and releases on both sides, delivered in random order of the two directions. Nothing
/// ends a session, every call gets its Return, and at the end both sides are at the baseline. CAL-2, CAL-3, REL-2, ADM-6.
fn soak<S: Storage + 'static>(sim: Sim<S>, seed: u64) {
    let mut sim = sim.chunked(seed);
    let mut random = Random::new(seed);
    let mut put_off = Vec::new();
    for side in [A, B] {
        let board = sim.sides[side].board.clone();
        sim.sides[side].add_root("make", factory(&board));
        sim.sides[side].add_root("echo", echo());
        sim.sides[side].add_root("back", caller_back(&board));
        let (postponed, object) = later();
        sim.sides[side].add_root("later", object);
        put_off.push(postponed);
    }
    let mut hosts = [Host1::default(), Host1::default()];
    for _ in 0..150 {
        let side = random.below(2) as usize;
        let host = &mut hosts[side];
        let pick = |random: &mut Random, count: usize| random.below(count.max(1) as u64) as usize;
        match random.below(10) {
            0..=3 => {
                let name = ["make", "echo", "back", "later"][random.below(4) as usize];
                let mut args: Vec<Owned> = vec![name.into()];
                if let Some(&import) = host.imports.get(pick(&mut random, host.imports.len())) {
                    args.push(reference(Ref::Import(import)));
                }
                if random.below(2) == 0 {
                    args.push(reference(Ref::Local(sim.sides[side].add(echo()))));
                }
                let promises: Vec<_> = host.open.iter().filter(|(_, pipelined)| *pipelined).collect();
                if let Some((promise, _)) = promises.get(pick(&mut random, promises.len()))
                    && random.below(2) == 0
                {
                    args.push(reference(Ref::Promise(*promise)));
                }
                let mut call = Call::new(Callee::Import(Import::DIRECTORY), Op::CallMethod);
                call.pipelined = random.below(2) == 0;
                if call.pipelined
                    && let Some((promise, true)) = host.open.get(pick(&mut random, host.open.len()))
                {
                    (call.callee, call.op) = (Callee::Promise(*promise), Op::Call);
                }
                match sim.sides[side].call(call, &args) {
                    Ok(question) => {
                        host.open.push((question, call.pipelined));
                        host.pending.push(question);
                    }
                    Err(
                        CallError::Overloaded
                        | CallError::NoRoom
                        | CallError::TableFull
                        | CallError::NotAPromise
                        | CallError::TooManyPromises
                        | CallError::TooLarge(_),
                    ) => {}
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
            4 => {
                if !host.pending.is_empty() {
                    let question = host.pending[pick(&mut random, host.pending.len())];
                    let mode = if random.below(2) == 0 { FinishMode::Abandon } else { FinishMode::Interrupt };
                    let _ = sim.sides[side].session.cancel(question, mode);
                }
            }
            5 => {
                if !host.imports.is_empty() {
                    let place = pick(&mut random, host.imports.len());
                    let import = host.imports.swap_remove(place);
                    assert_eq!(sim.sides[side].session.release(import), Ok(()), "seed {seed}");
                }
            }
            6 => {
                if let Some(answer) = put_off[side].last() {
                    let value = if random.below(2) == 0 { int(1) } else { local_of(&mut sim, side) };
                    reply(&mut sim, side, answer, &value);
                }
            }
            7 => sim.transmit(side),
            _ => {
                sim.deliver(side);
            }
        }
        collect(&mut sim, &mut hosts);
    }
    // Everything that was put off is answered, whatever it takes.
    loop {
        sim.run();
        collect(&mut sim, &mut hosts);
        let mut any = false;
        for side in [A, B] {
            while let Some(answer) = put_off[side].next() {
                any = true;
                reply(&mut sim, side, answer, &int(2));
            }
        }
        if !any {
            break;
        }
    }
    assert_eq!(sim.ended(), [None, None], "seed {seed}");
    for (side, host) in [A, B].into_iter().zip(&mut hosts) {
        for import in host.imports.drain(..) {
            assert_eq!(sim.sides[side].session.release(import), Ok(()), "seed {seed}");
        }
    }
    sim.run();
    collect(&mut sim, &mut hosts);
    sim.run();
    // Objects that no message ever carried were never anybody's.
    for side in &sim.sides {
        assert_eq!(side.session.tables(), farref_conformance::sim::BASELINE, "seed {seed}");
    }
}

fn local_of<S: Storage + 'static>(sim: &mut Sim<S>, side: usize) -> Owned {
    reference(Ref::Local(sim.sides[side].add(echo())))
}

fn reply<S: Storage + 'static>(sim: &mut Sim<S>, side: usize, answer: farref_core::session::Answer, value: &Owned) {
    let references = farref_conformance::sim::references(std::slice::from_ref(value));
    let session = &mut sim.sides[side].session;
    let _ = session.reply(answer, &references, |writer| value.write(writer, &mut 0));
    if session.is_open(answer) {
        let _ = session.refuse(answer, farref_core::message::ErrorCode::Overloaded, 0);
    }
    sim.sides[side].settle();
}

/// Takes the Returns that came.
fn collect<S: Storage + 'static>(sim: &mut Sim<S>, hosts: &mut [Host1; 2]) {
    for (side, host) in [A, B].into_iter().zip(hosts) {
        let mut came: Vec<Returned> = Vec::new();
        host.pending.retain(|&question| match sim.sides[side].take(question) {
            Some(returned) => {
                came.push(returned);
                false
            }
            None => true,
        });
        let pending = &host.pending;
        host.open.retain(|(question, _)| pending.contains(question));
        host.imports.extend(came.into_iter().flat_map(|returned| returned.held));
    }
}

/// See [`soak`], on a host.
#[test]
fn random_traffic_ends_at_the_baseline_on_a_host() {
    (1..500).for_each(|seed| soak(Sim::<Host>::new(LIMITS), seed));
    (1..500).for_each(|seed| soak(host(), seed));
}

/// See [`soak`], on fixed storage, where everything runs full.
#[test]
fn random_traffic_ends_at_the_baseline_on_fixed_storage() {
    (1..500).for_each(|seed| soak(micro(), seed));
}

/// A session that has not begun has nothing to say, takes nothing and finds nothing. One that begins where another one was is like
/// one that was made anew, also in what it says.
fn begin_again<S: Storage + 'static>(mut sim: Sim<S>, config: Config) {
    let mut session = Session::<S>::BLANK;
    assert_eq!(session.ended(), Some(Ended::NotBegun));
    assert_eq!((session.tables(), session.limits().max_message, session.peer()), (Tables::default(), 0, None));
    assert!(session.transmit().is_empty() && !session.has_output());
    assert_eq!(session.handle(&[1, 2, 3]).map(drop), Err(Ended::NotBegun));
    let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Call).pipelined();
    let refused = session.call(call, |writer| writer.str("early"));
    assert_eq!(refused.map(drop), Err(CallError::Ended(Ended::NotBegun)));
    session.advance(1 << 40);
    session.resume();
    assert_eq!((session.park(), session.poll_timeout(), session.poll_notice()), (false, None, None));
    assert!(session.poll_ready(&mut [0; 128]).is_none() && session.release(Import::DIRECTORY).is_ok());
    session.close(CloseCode::Leaving);
    session.shutdown();
    assert!(session.transmit().is_empty());

    // References and calls each way, one call that waits for another's answer, and output.
    let (put_off, object) = later();
    sim.sides[B].add_root("later", object);
    let root = sim.root(A, "later");
    let own = local_of(&mut sim, A);
    let first = sim.call(A, Call::new(Callee::Import(root), Op::Call).pipelined(), &[own]);
    sim.call(A, Call::new(Callee::Promise(first), Op::Call), &[int(1)]);
    sim.run();
    reply(&mut sim, B, put_off.next().unwrap(), &int(2));
    let [one, other] = sim.sides.each_mut().map(|side| &mut side.session);
    assert_eq!((one.tables().imports, one.tables().questions, other.tables().answers), (1, 2, 2));
    assert!(other.has_output());
    for before in [one, other] {
        before.begin(&config);
        let mut new = Session::new(config);
        assert_eq!(*before, new);
        assert_eq!(before.transmit(), new.transmit());
        assert!(!new.transmit().is_empty() && before.ended().is_none());
    }
    session.begin(&config);
    assert_eq!(session, Session::new(config));
}

#[test]
fn a_session_begins_where_another_one_was() {
    begin_again(micro(), config(SMALL));
    begin_again(host(), config(LIMITS));
}

/// What a device and a host have for each slot and each call, bytes: tables are most of what a session takes.
#[test]
fn entries_are_small() {
    use farref_core::session::{AnswerEntry, ExportEntry, ImportEntry, Narrow, QuestionEntry, Wide, Width};
    fn sizes<W: Width>() -> [usize; 4] {
        [
            size_of::<ExportEntry<W>>(),
            size_of::<ImportEntry<W>>(),
            size_of::<QuestionEntry<W>>(),
            size_of::<AnswerEntry<W>>(),
        ]
    }
    println!("exports, imports, questions, answers: {:?} in small tables, {:?}", sizes::<Narrow>(), sizes::<Wide>());
    assert_eq!(sizes::<Narrow>(), [20, 10, 20, 28]);
    assert_eq!(sizes::<Wide>(), [28, 16, 32, 40]);
}
