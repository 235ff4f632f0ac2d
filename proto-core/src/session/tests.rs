//! Sessions that have lasted for so long that the low bits of ordinals begin again (MSG-2): what is kept of an ordinal is 32 bits.

extern crate std;
use std::vec::Vec;

use uuid::Uuid;

use super::*;
use crate::frame::{Split, split};
use crate::message::Op;

type Side = Session<Micro<4, 4, 2, 512, 128, false>>;

/// Two sides that have said Hello, and sent so many messages each.
struct Pair([Side; 2]);

const A: usize = 0;
const B: usize = 1;
const LIMITS: Limits = Limits { max_message: 128, imports: 4, answers: 2, call_bytes: 128, handles: 4, levels: 2 };

impl Pair {
    fn new(sent: [u64; 2]) -> Self {
        let mut pair = Self([A, B].map(|side| {
            let peer = Uuid::from_bytes([side as u8; 16]);
            let link = LinkMode::Resume { token: [side as u8; 16], park: 1 };
            let (incarnation, patience) = (1, None);
            let (exports, calls, out_bytes, store_bytes) = (4, 2, 512, 128);
            let limits = LIMITS;
            Side::new(Config { limits, exports, calls, out_bytes, store_bytes, peer, incarnation, link, patience })
        }));
        pair.run();
        for (side, other) in [(A, B), (B, A)] {
            pair.0[side].sent = sent[side];
            pair.0[other].received = sent[side];
        }
        pair
    }

    /// As if A had sent so many messages.
    fn goes_on_at(&mut self, sent: u64) {
        (self.0[A].sent, self.0[B].received) = (sent, sent);
        self.0[A].out.acknowledge(u32::MAX);
    }

    fn output(&mut self, side: usize) -> Vec<Vec<u8>> {
        let mut bytes = [0; 1024];
        let length = self.0[side].poll_transmit(&mut bytes);
        let (mut rest, mut records) = (&bytes[..length], Vec::new());
        while let Split::Record { body, rest: behind } = split(rest, 256) {
            records.push(body.to_vec());
            rest = behind;
        }
        assert!(rest.is_empty());
        records
    }

    /// Hands records over. B keeps what comes with calls and answers them, A gets the Returns.
    fn give(&mut self, to: usize, records: &[Vec<u8>]) {
        for record in records {
            match self.0[to].handle(record).expect("a sound session") {
                Some(Event::Request(request)) => self.0[to].reply(request.call, &[], |_| Ok(())).expect("room"),
                Some(Event::Return(returned)) => assert_eq!(returned.outcome, Ok(())),
                _ => {}
            }
        }
    }

    fn run(&mut self) {
        loop {
            let from = [self.output(A), self.output(B)];
            if from.iter().all(Vec::is_empty) {
                return;
            }
            self.give(B, &from[A]);
            self.give(A, &from[B]);
        }
    }

    fn send(&mut self, key: u32) {
        let call = Call::new(Callee::Import(Import::DIRECTORY), Op::Call);
        self.0[A].call(call.references(&[Ref::Local(ObjectKey(key))]), |writer| writer.reference(0)).expect("room");
    }

    /// B lets go of all that it holds in a slot.
    fn release(&mut self, slot: u32) {
        while let Some(import) = self.0[B].imports.get(slot).filter(|import| import.holds > 0) {
            let import = self.0[B].import(slot, import.generation);
            self.0[B].release(import).expect("it is held");
        }
    }

    fn is_exported(&self, key: u32) -> bool {
        self.0[A].is_exported(ObjectKey(key))
    }

    fn freed(&mut self) -> Vec<Notice> {
        core::iter::from_fn(|| self.0[A].poll_notice()).collect()
    }
}

/// Places at which the low bits, or a half or a quarter of them, begin again.
const WRAPS: [u64; 4] = [1 << 30, 1 << 31, 1 << 32, 5 << 32];

/// REL-2: a Release that a new copy has crossed frees nothing, and one that it has not crossed frees, on both sides of a wrap.
#[test]
fn references_are_released_across_a_wrap() {
    for start in WRAPS.iter().flat_map(|wrap| wrap - 8..*wrap + 2) {
        let mut pair = Pair::new([start, start]);
        for round in 0..4 {
            pair.send(1);
            pair.run();
            pair.release(1);
            let released = pair.output(B);
            pair.send(1);
            pair.give(A, &released);
            assert!(pair.is_exported(1), "round {round} from {start}: a newer copy is under way");
            pair.run();
            assert_eq!(pair.0[B].tables().imports, 1);
            pair.release(1);
            pair.run();
            assert_eq!(pair.freed(), [Notice::Freed(ObjectKey(1))], "round {round} from {start}");
        }
        assert_eq!(pair.0[A].tables(), Tables { exports: 1, ..Default::default() });
    }
}

/// REL-2: what is held for longer than the low bits can count is released like any other.
#[test]
fn references_live_longer_than_ordinals() {
    let mut pair = Pair::new([0, 0]);
    pair.send(1);
    pair.run();
    for turn in 1..=9 {
        // Once at each place where it is looked how old references are.
        pair.goes_on_at((turn << 30) - 1);
        pair.send(2);
        pair.run();
        pair.release(2);
        pair.run();
        assert_eq!(pair.freed(), [Notice::Freed(ObjectKey(2))], "turn {turn}");
        // And then where the low bits are again those of the first message; another one has crossed the Release.
        pair.goes_on_at(turn << 30);
        let mut later = Pair(pair.0.clone());
        later.release(1);
        let released = later.output(B);
        later.send(3);
        later.give(A, &released);
        assert_eq!(later.freed(), [Notice::Freed(ObjectKey(1))], "turn {turn}");
    }
}

/// REL-4: an `upto` ahead of what was sent is a fault, also where it could be one of long ago.
#[test]
fn what_is_ahead_was_never_sent() {
    for start in WRAPS {
        let release = |pair: &mut Pair, upto: u64| {
            let mut record = [0; 8];
            let mut writer = crate::codec::Writer::new(&mut record);
            writer.byte(crate::message::kind::RELEASE);
            writer.varint(u64::from(upto as u32));
            crate::message::write_release_entry(&mut writer, 1, 0);
            let length = writer.len();
            pair.0[A].handle(&record[..length]).map(drop)
        };
        let mut pair = Pair::new([start - 1, 0]);
        pair.send(1);
        pair.run();
        let sent = pair.0[A].sent;
        assert_eq!(release(&mut Pair(pair.0.clone()), sent), Ok(()));
        assert_eq!(release(&mut Pair(pair.0.clone()), sent + 1), Err(Ended::PeerFault(Rule::ReleaseNeverSent)));
        assert_eq!(release(&mut pair, sent + (1 << 30)), Err(Ended::PeerFault(Rule::ReleaseNeverSent)));
    }
}

/// LNK-2, LNK-6, CLS-2: what was acknowledged, what the peer may have got, and whether a Goodbye is void.
#[test]
fn a_link_counts_across_a_wrap() {
    for start in WRAPS.iter().flat_map(|wrap| wrap - 4..*wrap + 2) {
        let mut pair = Pair::new([start, start]);
        // One call comes, one is lost with its connection, one is not sent at all.
        let call = |pair: &mut Pair| {
            pair.0[A].call(Call::new(Callee::Import(Import::DIRECTORY), Op::Call), |_| Ok(())).expect("room")
        };
        let came = call(&mut pair);
        let records = pair.output(A);
        pair.give(B, &records);
        let lost = call(&mut pair);
        assert_eq!(pair.output(A).len(), 1);
        assert!(pair.0.iter_mut().all(Side::park));
        assert_eq!(pair.0[A].out.unsent(), 0);
        let mut ended = Pair(pair.0.clone());
        ended.0[A].resume();
        ended.output(A);
        let mut gone = [0; 24];
        let length = session_gone(1, start + 2, &mut gone);
        assert_eq!(ended.0[A].handle(&gone[1..length]).map(drop), Err(Ended::SessionGone));
        assert_eq!([came, lost].map(|question| ended.0[A].may_have_started(question)), [true, false], "from {start}");

        pair.0[A].resume();
        let resume = pair.output(A);
        let Ok(crate::message::Message::Resume(resume)) = crate::message::Message::read(&resume[0]) else { panic!() };
        assert_eq!(resume.got, start + 1);
        assert_eq!(pair.0[B].accept(&resume), Ok(()));
        pair.run();
        assert_eq!(pair.0[A].tables().questions, 0);
        assert_eq!((pair.0[A].sent, pair.0[B].sent), (start + 2, start + 2));
        pair.0[A].shutdown();
        let goodbye = pair.output(A);
        // It is void: something has crossed it.
        pair.0[B].call(Call::new(Callee::Import(Import::DIRECTORY), Op::Call), |_| Ok(())).expect("room");
        pair.give(B, &goodbye);
        let records = pair.output(B);
        pair.give(A, &records);
        assert!(pair.0.iter().all(|side| side.ended().is_none()));
        for side in [A, B, A, B] {
            for record in pair.output(side) {
                let _ = pair.0[1 - side].handle(&record);
            }
        }
        assert_eq!(pair.0.each_ref().map(Session::ended), [Some(Ended::Done); 2], "from {start}");
    }
}

/// CLS-1: whatever rule a peer broke, the Close that tells it is whole, with words or with the rule's id alone.
#[test]
fn every_rule_can_be_told() {
    for &rule in Rule::ALL {
        assert_eq!(close_for::<All>(rule), (rule.id().into(), rule.text().into()));
        assert_eq!(close_for::<Least>(rule), (rule.id().into(), std::string::String::new()));
    }
}

/// The texts of the Close that a side sends whose peer broke a rule.
fn close_for<P: Parts>(rule: Rule) -> (std::string::String, std::string::String) {
    let (peer, incarnation, link, patience) = (Uuid::nil(), 1, LinkMode::Off, None);
    let (limits, exports, calls, out_bytes, store_bytes) = (LIMITS, 4, 2, 512, 0);
    let config = Config { limits, exports, calls, out_bytes, store_bytes, peer, incarnation, link, patience };
    let mut session = Session::<Micro<4, 4, 2, 512, 0, false, P>>::new(config);
    session.peer.limits.max_message = 256;
    session.end(Ended::PeerFault(rule));
    let mut bytes = [0; 512];
    let length = session.poll_transmit(&mut bytes);
    let Split::Record { rest, .. } = split(&bytes[..length], 256) else { panic!("no Hello") };
    let Split::Record { body, .. } = split(rest, 256) else { panic!("no Close") };
    let Ok(crate::message::Message::Close(close)) = crate::message::Message::read(body) else { panic!("{body:02x?}") };
    assert_eq!(close.code, crate::message::CloseCode::ProtocolFault);
    (close.rule.into(), close.text.into())
}
