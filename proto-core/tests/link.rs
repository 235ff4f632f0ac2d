//! Sessions that outlive their connections (SPEC section 15).

use farref_conformance::fixtures::{caller_back, counter, echo, factory, function, int, keeper, reference};
use farref_conformance::sim::{A, B, LIMITS, Linked, Owned, Returned, Side, body, config, hello};
use farref_core::Uuid;
use farref_core::message::{Limits, LinkOffer, Message, Op, Resume};
use farref_core::session::{
    Call, CallError, Callee, Config, Ended, Host, Import, LinkMode, Micro, Question, Ref, ResumeRefused, Rule, Storage,
    session_gone,
};
use farref_core::value::OwnedValue;

type Small = Micro<16, 16, 8, 512, 320>;
const SMALL: Limits = Limits { max_message: 256, imports: 16, answers: 8, call_bytes: 256, handles: 8, levels: 4 };

fn small() -> Config {
    Config { out_bytes: 512, store_bytes: 320, ..config(SMALL) }
}

/// Two sides with the objects of the scenario.
fn linked<S: Storage + 'static>(config: Config) -> Linked<S> {
    let mut sim = Linked::new([config, Config { peer: Uuid::from_bytes([8; 16]), ..config }]);
    let board = sim.sides[B].board.clone();
    sim.sides[B].add_root("count", counter());
    sim.sides[B].add_root("make", factory(&board));
    sim.sides[B].add_root("keeper", keeper(&board));
    sim.sides[B].add_root("back", caller_back(&board));
    sim.sides[B].add_root("echo", echo());
    sim
}

struct Run<'s, S: Storage> {
    sim: &'s mut Linked<S>,
    results: Vec<String>,
}

impl<S: Storage + 'static> Run<'_, S> {
    fn call(&mut self, callee: Callee, op: Op, args: &[Owned]) -> Question {
        self.sim.sides[A].call(Call::new(callee, op).pipelined(), args).expect("a call")
    }

    fn take(&mut self, question: Question) -> Returned {
        self.sim.run();
        let returned = self.sim.sides[A].take(question);
        let returned = returned.unwrap_or_else(|| panic!("no Return: {:?}", self.sim.sides[A].session.ended()));
        self.results.push(format!("{:?}", returned.outcome));
        returned
    }

    fn ask(&mut self, import: Import, op: Op, args: &[Owned]) -> Import {
        let question = self.call(Callee::Import(import), op, args);
        match self.take(question).outcome {
            Ok(OwnedValue::Reference(Ref::Import(import))) => import,
            _ => Import::DIRECTORY,
        }
    }

    fn release(&mut self, import: Import) {
        assert_eq!(self.sim.sides[A].session.release(import), Ok(()));
    }

    /// Calls, callbacks, pipelined calls, references kept, sent home and released: more than 40 messages.
    fn scenario(mut self) -> Vec<String> {
        self.sim.run();
        let names = ["count", "make", "keeper", "back", "echo"];
        let asked = names.map(|name| self.call(Callee::Import(Import::DIRECTORY), Op::GetAttr, &[name.into()]));
        let [count, make, keep, back, echo] = asked.map(|question| match self.take(question).outcome {
            Ok(OwnedValue::Reference(Ref::Import(import))) => import,
            other => panic!("{other:?}"),
        });
        for by in 1..4 {
            self.ask(count, Op::member(0), &[int(by)]);
        }
        let made = [(); 3].map(|()| self.ask(make, Op::Call, &[]));
        self.release(made[0]);
        let mut calls = 0;
        let own = self.sim.sides[A].add(function(move |args, reply| {
            calls += 1;
            reply.int(calls * 100 + args.int(0).unwrap_or(0))
        }));
        let own = reference(Ref::Local(own));
        self.ask(keep, Op::member(0), std::slice::from_ref(&own));
        for number in 0..3 {
            self.ask(keep, Op::member(1), &[int(number)]);
        }
        self.ask(back, Op::Call, &[own.clone(), int(7)]);
        // Two at once, and a call of what the first will answer.
        let promise = self.call(Callee::Import(make), Op::Call, &[]);
        let inner = self.call(Callee::Promise(promise), Op::Call, &[]);
        let more = self.call(Callee::Import(count), Op::member(0), &[int(10)]);
        let promised = self.take(promise);
        let Ok(OwnedValue::Reference(Ref::Import(promised))) = promised.outcome else { panic!("{promised:?}") };
        self.take(inner);
        self.take(more);
        for _ in 0..2 {
            self.ask(echo, Op::Call, std::slice::from_ref(&own));
            self.ask(echo, Op::Call, &[reference(Ref::Import(made[1]))]);
        }
        // What came home is one hold for each time that it came; B's own was held by `made` alone.
        [made[1], made[1], made[1], made[2], promised].into_iter().for_each(|import| self.release(import));
        self.ask(keep, Op::member(2), &[]);
        self.ask(count, Op::GetAttr, &["value".into()]);
        [count, make, keep, back, echo].into_iter().for_each(|import| self.release(import));
        self.sim.assert_baseline();
        self.results
    }
}

fn scenario<S: Storage + 'static>(sim: &mut Linked<S>) -> Vec<String> {
    Run { sim, results: Vec::new() }.scenario()
}

fn cut_at_every_byte_offset<S: Storage + 'static>(config: Config, from: usize) {
    let mut uncut = linked::<S>(config);
    let results = scenario(&mut uncut);
    let [there, back] = uncut.sides.each_ref().map(|side| side.session.ordinals().0);
    assert!(there + back >= 40, "{there} and {back} messages");
    for offset in 0..uncut.carried[from] {
        let mut sim = linked::<S>(config);
        sim.cut_at(from, offset);
        assert_eq!(scenario(&mut sim), results, "cut at byte {offset}");
        assert_eq!(sim.cuts, 1);
        // Only where A has not got B's Hello is there another session.
        assert!(sim.began == 1 || sim.sides[A].session.is_resumable() && offset < 128, "at byte {offset}");
        let [a, b] = sim.sides.each_ref().map(|side| side.session.ordinals());
        assert_eq!((a.0, b.0), (b.1, a.1), "all that was sent has come, cut at byte {offset}");
    }
}

/// LNK-2, LNK-4, LNK-7: wherever a connection is cut, the results are those of an uncut run.
#[test]
fn cut_at_every_byte_offset_of_what_a_host_calls() {
    cut_at_every_byte_offset::<Host>(config(LIMITS), A);
}

/// LNK-2, LNK-4, LNK-7: in the other direction too.
#[test]
fn cut_at_every_byte_offset_of_what_a_host_serves() {
    cut_at_every_byte_offset::<Host>(config(LIMITS), B);
}

/// LNK-2, LNK-3, LNK-4, LNK-7: with tables and output of a small device, which are full at times.
#[test]
fn cut_at_every_byte_offset_of_a_small_device() {
    cut_at_every_byte_offset::<Small>(small(), A);
    cut_at_every_byte_offset::<Small>(small(), B);
}

const TOKENS: [[u8; 16]; 2] = [[0xA; 16], [0xB; 16]];

fn resumable(token: [u8; 16], out_bytes: usize) -> Config {
    Config { out_bytes, link: LinkMode::Resume { token, park: 60_000 }, ..config(LIMITS) }
}

/// The Hello of a scripted peer that offers a link.
fn hello_with_link(replay: u32, incarnation: u64) -> Vec<u8> {
    let offer = LinkOffer { token: TOKENS[B], replay, park: 1000 };
    let mut bytes = hello(LIMITS);
    // Features, a varint of one byte, stand behind both versions; the incarnation is the last byte.
    (bytes[3], *bytes.last_mut().unwrap()) = (1, incarnation as u8);
    bytes.extend(offer.token);
    bytes.extend(body(|writer| {
        writer.varint(offer.replay.into());
        writer.varint(offer.park.into());
    }));
    bytes
}

/// A side that has a link with a script, both Hellos gone; `replay` is what the script says that it keeps.
fn scripted(out_bytes: usize, replay: u32) -> Side<Host> {
    let mut side = Side::new(resumable(TOKENS[A], out_bytes));
    drain(&mut side);
    assert_eq!(side.receive(&hello_with_link(replay, 5)), Ok(()));
    assert!(side.session.is_resumable());
    side
}

/// All bodies that a side has to send.
fn drain(side: &mut Side<Host>) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| Some(side.output()).filter(|bodies| !bodies.is_empty())).flatten().collect()
}

fn call(side: &mut Side<Host>, argument: &[u8]) -> Result<Question, CallError> {
    side.call(Call::new(Callee::Import(Import::DIRECTORY), Op::Call), &[OwnedValue::Bytes(argument.to_vec())])
}

fn ack(got: u64) -> Vec<u8> {
    body(|writer| {
        writer.byte(18);
        writer.varint(got);
    })
}

fn resume_ok(token: [u8; 16], got: u64) -> Vec<u8> {
    body(|writer| {
        writer.byte(22);
        writer.put(&token);
        writer.varint(got);
    })
}

fn gone(incarnation: u64, got: u64) -> Vec<u8> {
    let mut record = [0; 24];
    let length = session_gone(incarnation, got, &mut record);
    record[1..length].to_vec()
}

/// LNK-1, HEL-6: a side that offers a link to one that does not has none; its session ends with the connection, and an Ack
/// ends it too.
#[test]
fn a_link_needs_both_sides() {
    let mut side = Side::<Host>::new(resumable(TOKENS[A], 1 << 16));
    let offered = drain(&mut side);
    let Ok(Message::Hello(own)) = Message::read(&offered[0]) else { panic!("{offered:?}") };
    assert_eq!((own.features, own.link), (1, Some(LinkOffer { token: TOKENS[A], replay: 1 << 16, park: 60_000 })));
    side.receive(&hello(LIMITS)).unwrap();
    assert!(!side.session.is_resumable());
    let lonely = call(&mut side, b"").unwrap();
    drain(&mut side);
    assert_eq!(side.receive(&ack(1)), Err(Ended::PeerFault(Rule::NoLink)));

    let mut side = Side::<Host>::new(resumable(TOKENS[A], 1 << 16));
    drain(&mut side);
    side.receive(&hello(LIMITS)).unwrap();
    assert!(!side.session.park());
    assert_eq!(side.session.ended(), Some(Ended::LinkLost));
    assert!(!side.session.may_have_started(lonely), "a call of another session");
    // Nor does one that offers none keep anything.
    let mut plain = Side::<Host>::scripted(config(LIMITS), LIMITS);
    assert_eq!(plain.receive(&ack(1)), Err(Ended::PeerFault(Rule::NoLink)));
}

/// LNK-2: what is acknowledged was sent, and not less than before.
#[test]
fn an_ack_is_within_what_was_sent() {
    for (acks, fine) in [
        (vec![0, 1, 2, 2, 3], true),
        (vec![4], false),
        (vec![u64::MAX], false),
        (vec![3, 2], false),
        (vec![1, 0], false),
    ] {
        let mut side = scripted(1 << 16, 1 << 16);
        call(&mut side, b"one").unwrap();
        call(&mut side, b"two").unwrap();
        assert_eq!(drain(&mut side).len(), 2);
        // A call that was not transmitted cannot have come.
        call(&mut side, b"three").unwrap();
        let ended = side.receive_all(&acks.iter().map(|&got| ack(got)).collect::<Vec<_>>());
        assert_eq!(ended, (!fine).then_some(Ended::PeerFault(Rule::AckOutOfRange)), "{acks:?}");
    }
}

/// LNK-3: Ack goes out when a quarter of what the peer keeps has come, and after a Ping; not otherwise.
#[test]
fn ack_is_sent_in_time() {
    let mut side = scripted(1 << 16, 100);
    // Unimplemented of 2 bytes and its length: eight are 24 bytes, nine are more than a quarter of 100.
    for got in 1..=8 {
        side.receive(&[4, 0x20]).unwrap();
        assert_eq!(drain(&mut side), Vec::<Vec<u8>>::new(), "{got}");
    }
    side.receive(&[4, 0x20]).unwrap();
    assert_eq!(drain(&mut side), [ack(10)]);
    assert_eq!(drain(&mut side), Vec::<Vec<u8>>::new());
    side.receive(&[19]).unwrap();
    assert_eq!(drain(&mut side), [ack(10)]);
    // Without a link Ping has no answer.
    let mut plain = Side::<Host>::scripted(config(LIMITS), LIMITS);
    plain.receive(&[19]).unwrap();
    assert_eq!(drain(&mut plain), Vec::<Vec<u8>>::new());
}

/// LNK-3: a side without room asks once for an Ack, which needs no room itself; what is acknowledged makes room.
#[test]
fn a_full_side_asks_for_an_ack() {
    let mut side = scripted(512, 1 << 16);
    let mut made = 0;
    while call(&mut side, &[7; 50]).is_ok() {
        made += 1;
    }
    assert!(made > 3);
    // Hello is kept, so that it is an Ack that is lacking.
    let said = drain(&mut side);
    assert_eq!((&said[0], said.len()), (&vec![19], 1 + made));
    assert_eq!(call(&mut side, &[7; 50]), Err(CallError::NoRoom));
    assert_eq!(drain(&mut side), Vec::<Vec<u8>>::new(), "it has asked");
    side.receive(&ack(1)).unwrap();
    assert!(call(&mut side, &[7; 50]).is_ok());
    assert_eq!(call(&mut side, &[7; 50]), Err(CallError::NoRoom));
    assert_eq!(call(&mut side, &[7; 50]), Err(CallError::NoRoom));
    assert_eq!(drain(&mut side)[0], [19], "the room of Hello was not enough");
    // An Ack finds its way though nothing else does.
    side.receive(&[19]).unwrap();
    assert_eq!(drain(&mut side), [ack(1)]);
    side.receive(&ack(2)).unwrap();
    assert!(call(&mut side, &[7; 50]).is_ok());
    assert_eq!(call(&mut side, &[7; 50]), Err(CallError::NoRoom));
    assert_eq!(drain(&mut side).len(), 2, "the call, and another question");
}

/// LNK-4: Resume comes first, nothing follows it before the answer, and what the other has not got comes again.
#[test]
fn what_was_not_got_is_sent_again() {
    let mut side = scripted(1 << 16, 1 << 16);
    for name in [b"a", b"b", b"c"] {
        call(&mut side, name).unwrap();
    }
    let sent = drain(&mut side);
    assert!(side.session.park() && side.session.is_parked());
    call(&mut side, b"d").unwrap();
    assert_eq!(drain(&mut side), Vec::<Vec<u8>>::new(), "there is no connection");
    side.session.resume();
    let resume = body(|writer| {
        writer.byte(21);
        writer.put(&TOKENS[B]);
        writer.varint(1);
        writer.varint(1);
    });
    assert_eq!(drain(&mut side), [resume]);
    call(&mut side, b"e").unwrap();
    assert_eq!(drain(&mut side), Vec::<Vec<u8>>::new(), "no answer yet");
    side.receive(&resume_ok(TOKENS[A], 3)).unwrap();
    let again = drain(&mut side);
    assert_eq!(again.len(), 3);
    assert_eq!(again[0], sent[2]);
}

/// LNK-4, CLS-2: a Goodbye that was lost with its connection is said again on the next one, by either side; without that both
/// would wait for ever.
#[test]
fn a_lost_goodbye_is_said_again() {
    let goodbye = vec![24, 0];
    let mut side = scripted(1 << 16, 1 << 16);
    side.session.shutdown();
    assert_eq!(drain(&mut side), std::slice::from_ref(&goodbye));
    assert!(side.session.park());
    side.session.resume();
    drain(&mut side);
    // All that is kept has come, which is Hello.
    side.receive(&resume_ok(TOKENS[A], 1)).unwrap();
    assert_eq!(drain(&mut side), std::slice::from_ref(&goodbye));
    assert_eq!(side.receive(&goodbye), Err(Ended::Done));

    let mut side = scripted(1 << 16, 1 << 16);
    side.session.shutdown();
    assert_eq!(drain(&mut side), std::slice::from_ref(&goodbye));
    side.session.accept(&Resume { token: TOKENS[A], attempt: 1, got: 1 }).unwrap();
    assert_eq!(drain(&mut side), [resume_ok(TOKENS[B], 1), goodbye.clone()]);
    assert_eq!(side.receive(&goodbye), Err(Ended::Done));
}

/// TIM-5, LNK-8: silence ends a connection, once. Where there is none nothing is heard, for however long, and an attempt to
/// resume lasts as long as whoever makes it wants.
#[test]
fn silence_without_a_connection_means_nothing() {
    let mut side = Side::<Host>::new(Config { patience: Some(1000), ..resumable(TOKENS[A], 1 << 16) });
    drain(&mut side);
    let mut hello = hello_with_link(1 << 16, 5);
    // Keepalive, with no patience of its own.
    hello[3] = 3;
    hello.push(0);
    side.receive(&hello).unwrap();
    let mut now = 0;
    let mut wait = |side: &mut Side<Host>, time: u64| {
        let end = now + time;
        while now < end {
            now += 100;
            side.session.advance(now);
        }
    };
    wait(&mut side, 3000);
    assert!(side.session.is_parked());
    wait(&mut side, 200_000);
    side.session.resume();
    assert_eq!(drain(&mut side).len(), 1);
    wait(&mut side, 200_000);
    assert!(side.session.is_resuming());
    side.receive(&resume_ok(TOKENS[A], 1)).unwrap();
    wait(&mut side, 500);
    assert!(side.session.is_up());
    wait(&mut side, 3000);
    assert!(side.session.is_parked(), "this one is silent, too");
    assert_eq!(side.session.ended(), None);
}

/// LNK-4: only ResumeOk with our token, SessionGone or Close answer a Resume; and they answer nothing else.
#[test]
fn another_answer_to_resume_ends_the_session() {
    let order = Ended::PeerFault(Rule::LinkOrder);
    let range = Ended::PeerFault(Rule::AckOutOfRange);
    for (answer, ended) in [
        (resume_ok(TOKENS[B], 1), order),
        (resume_ok([0; 16], 1), order),
        (resume_ok(TOKENS[A], 0), order),
        (resume_ok(TOKENS[A], 4), range),
        (hello(LIMITS), order),
        (ack(1), order),
        (vec![4, 0x20], order),
        (vec![], Ended::PeerFault(Rule::Envelope)),
        (vec![17, 0, 0, 0], Ended::PeerClosed(farref_core::message::CloseCode::Leaving)),
    ] {
        let mut side = scripted(1 << 16, 1 << 16);
        for name in [b"a", b"b"] {
            call(&mut side, name).unwrap();
        }
        drain(&mut side);
        side.session.park();
        side.session.resume();
        drain(&mut side);
        assert_eq!(side.receive(&answer), Err(ended), "{answer:02x?}");
    }
    for unasked in [resume_ok(TOKENS[A], 1), gone(5, 1), {
        let mut resume = resume_ok(TOKENS[A], 1);
        resume[0] = 21;
        resume.push(1);
        resume
    }] {
        assert_eq!(scripted(1 << 16, 1 << 16).receive(&unasked), Err(order), "{unasked:02x?}");
    }
}

/// LNK-5: an attempt that was overtaken is refused, as is one for another session; one that lies ends the session.
#[test]
fn old_attempts_are_refused() {
    let resume = |token, attempt, got| Resume { token, attempt, got };
    let mut side = scripted(1 << 16, 1 << 16);
    call(&mut side, b"a").unwrap();
    drain(&mut side);
    assert_eq!(side.session.accept(&resume(TOKENS[B], 1, 1)), Err(ResumeRefused::OtherSession));
    assert_eq!(side.session.accept(&resume(TOKENS[A], 2, 1)), Ok(()));
    let said = drain(&mut side);
    assert_eq!((said[0].clone(), said.len()), (resume_ok(TOKENS[B], 1), 2));
    for old in [0, 1, 2] {
        assert_eq!(side.session.accept(&resume(TOKENS[A], old, 1)), Err(ResumeRefused::Superseded));
    }
    assert_eq!(drain(&mut side), Vec::<Vec<u8>>::new(), "a refused attempt changes nothing");
    assert_eq!(side.session.accept(&resume(TOKENS[A], 3, 9)), Err(ResumeRefused::Fault));
    assert_eq!(side.session.ended(), Some(Ended::PeerFault(Rule::AckOutOfRange)));
}

/// LNK-6, R4: what became of calls when their session is gone: those that the peer never got were never started.
#[test]
fn calls_of_a_lost_session_are_never_started_or_unknown() {
    for (answer, ended, started) in [
        (gone(5, 2), Ended::SessionGone, [true, false, false, false]),
        (gone(5, 1), Ended::SessionGone, [false; 4]),
        (gone(5, 3), Ended::SessionGone, [true, true, false, false]),
        // The peer does not know, so that what was sent whole may have come.
        (gone(5, 0), Ended::SessionGone, [true, true, false, false]),
        (gone(6, 0), Ended::PeerRestarted, [true, true, false, false]),
    ] {
        let mut side = scripted(1 << 16, 1 << 16);
        let mut calls = vec![call(&mut side, b"a").unwrap(), call(&mut side, b"b").unwrap()];
        drain(&mut side);
        // The third goes out in part, the fourth not at all.
        calls.push(call(&mut side, b"c").unwrap());
        side.session.transmit();
        side.session.transmitted(3);
        side.session.park();
        calls.push(call(&mut side, b"d").unwrap());
        side.session.resume();
        drain(&mut side);
        assert_eq!(side.receive(&answer), Err(ended));
        let known: Vec<bool> = calls.iter().map(|&call| side.session.may_have_started(call)).collect();
        assert_eq!(known, started, "{answer:02x?}");
    }
    // Without a link it is what was sent whole.
    let mut side = Side::<Host>::scripted(config(LIMITS), LIMITS);
    let first = call(&mut side, b"a").unwrap();
    drain(&mut side);
    let second = call(&mut side, b"b").unwrap();
    side.session.transmit();
    side.session.transmitted(4);
    side.session.link_lost();
    assert_eq!([first, second].map(|call| side.session.may_have_started(call)), [true, false]);
}

/// LNK-2: a connection that is lost again and again, at any place, loses nothing.
#[test]
fn a_session_survives_many_cuts() {
    let mut uncut = linked::<Small>(small());
    let results = scenario(&mut uncut);
    for step in [200, 217, 251, 300] {
        let mut sim = linked::<Small>(small());
        sim.cut_every(step);
        assert_eq!(scenario(&mut sim), results, "cut every {step} bytes");
        assert!(sim.cuts > 1, "{} cuts", sim.cuts);
    }
}
