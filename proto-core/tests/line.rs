//! The link of a lossy line, one rule at a time: between records that a test wrote, and frames that it sees.
#![cfg(feature = "serial")]

use std::collections::VecDeque;

use farref_core::codec::Writer;
use farref_core::frame::serial::{CHECK, Decoder};
use farref_core::link::Records;
use farref_core::link::serial::{Config, Header, Kind, SerialLink, TooShort};
use farref_core::session::{Ended, Rule};

const CONFIG: Config = Config { window: 8, ack_delay: 10, retry: 100, retry_max: 400, patience: 5_000 };
const A: u32 = 0xAAAA_0001;
const B: u32 = 0xBBBB_0002;
/// Somebody who was there before.
const OLD: u32 = 0x0DD0_0003;

const HELLO: u8 = 0x10;
const CLOSE: u8 = 0x11;
const FINISH: u8 = 2;

/// What a session would keep: Hello first.
struct Kept {
    records: VecDeque<Vec<u8>>,
    /// How many of them were sent since they were last rewound.
    sent: usize,
    written: u64,
    ended: Option<Ended>,
}

impl Kept {
    fn new() -> Self {
        Self { records: [vec![HELLO]].into(), sent: 0, written: 0, ended: None }
    }

    /// The next record: its body tells which.
    fn write(&mut self) {
        self.written += 1;
        self.records.push_back(message(self.written));
    }
}

fn message(number: u64) -> Vec<u8> {
    [&[FINISH][..], &number.to_le_bytes()].concat()
}

impl Records for Kept {
    fn next_record(&mut self) -> Option<&[u8]> {
        self.records.get(self.sent).map(Vec::as_slice)
    }

    fn record_sent(&mut self) {
        assert!(self.sent < self.records.len());
        self.sent += 1;
    }

    fn acknowledge(&mut self, count: u64) {
        self.records.drain(..count as usize);
        self.sent = self.sent.saturating_sub(count as usize);
    }

    fn rewind(&mut self) {
        self.sent = 0;
    }

    fn end(&mut self, ended: Ended) {
        self.ended = Some(ended);
    }
}

/// One end: a link and its records.
struct End {
    link: SerialLink,
    kept: Kept,
}

impl End {
    fn new(id: u32) -> Self {
        Self { link: SerialLink::new(CONFIG, id), kept: Kept::new() }
    }

    /// An end with the id [`A`] that is confirmed, and whose Hello [`B`] has.
    fn up() -> Self {
        let mut end = Self::new(A);
        end.sent(0);
        assert_eq!(end.receive(0, hello(B, A, 1), &[HELLO]), Ok(Some(vec![HELLO])));
        assert_eq!(end.sent(0), [(ack(B, 1), vec![])]);
        assert!(end.link.is_up());
        end
    }

    fn receive(&mut self, now: u64, header: Header, body: &[u8]) -> Result<Option<Vec<u8>>, Ended> {
        let mut payload = [0; 64];
        let mut writer = Writer::new(&mut payload);
        header.write(&mut writer);
        writer.put(body);
        let length = writer.len();
        self.link.receive(now, &payload[..length], &mut self.kept).map(|body| body.map(<[u8]>::to_vec))
    }

    /// All frames that it has to send now.
    fn sent(&mut self, now: u64) -> Vec<(Header, Vec<u8>)> {
        let mut line = [0; SerialLink::frame_len(16)];
        let mut decoder = Decoder::new([0; SerialLink::payload_len(16) + CHECK]);
        let mut frames = Vec::new();
        loop {
            match self.link.transmit(now, &mut self.kept, &mut line).expect("the line is long enough") {
                0 => return frames,
                length => {
                    let mut run = &line[..length];
                    let payload = decoder.next(&mut run).expect("a frame");
                    let (header, body) = Header::read(payload).expect("well formed");
                    frames.push((header, body.to_vec()));
                }
            }
        }
    }

    /// The numbers of the sequenced messages that it has to send now.
    fn numbers(&mut self, now: u64) -> Vec<u16> {
        let numbers = self.sent(now).into_iter().filter_map(|(header, _)| match header.kind {
            Kind::Record { number } => Some(number),
            _ => None,
        });
        numbers.collect()
    }

    fn advance(&mut self, now: u64) -> Result<(), Ended> {
        self.link.advance(now, &mut self.kept)
    }
}

fn hello(from: u32, to: u32, ack: u16) -> Header {
    Header { kind: Kind::Hello { from }, missing: false, to, ack }
}

fn ack(to: u32, ack: u16) -> Header {
    Header { kind: Kind::Ack, missing: false, to, ack }
}

fn missing(to: u32, number: u16) -> Header {
    Header { missing: true, ..ack(to, number) }
}

fn record(to: u32, ack: u16, number: u16) -> Header {
    Header { kind: Kind::Record { number }, missing: false, to, ack }
}

/// LNK-21: three frames, and both are up.
#[test]
fn two_ends_meet() {
    let mut end = End::new(B);
    end.kept.write();
    assert_eq!(end.sent(0), [(hello(B, 0, 0), vec![HELLO])], "and nothing else before the peer has it");
    assert_eq!(end.receive(1, hello(A, 0, 0), &[HELLO]), Ok(None), "the peer may be gone already");
    assert_eq!(end.sent(1), [(hello(B, A, 0), vec![HELLO])], "at once, and for the peer");
    assert_eq!(end.receive(2, hello(A, B, 1), &[HELLO]), Ok(Some(vec![HELLO])));
    assert_eq!(end.sent(2), [(record(A, 1, 1), message(1))], "which says that Hello came");
    assert!(end.link.is_up());
}

/// LNK-21: who has not been heard is answered with Hello, who has with an acknowledgement; a Hello is taken once.
#[test]
fn hello_is_answered_at_once() {
    let mut end = End::new(A);
    end.sent(0);
    assert_eq!(end.receive(1, hello(B, A, 0), &[HELLO]), Ok(Some(vec![HELLO])));
    assert_eq!(end.sent(1), [(hello(A, B, 1), vec![HELLO])]);
    assert_eq!(end.receive(2, hello(B, A, 0), &[HELLO]), Ok(None), "a repetition");
    assert_eq!(end.sent(2), [(hello(A, B, 1), vec![HELLO])]);
    assert_eq!(end.receive(3, hello(B, A, 1), &[HELLO]), Ok(None));
    assert_eq!(end.sent(3), [(ack(B, 1), vec![])]);
    assert_eq!(end.receive(4, hello(B, 0, 0), &[HELLO]), Ok(None), "an old one");
    assert_eq!(end.sent(4), []);
}

/// LNK-20, LNK-21: before it is confirmed an end takes nothing but who is there, and the last word counts.
#[test]
fn what_is_left_of_an_earlier_session_is_not_taken() {
    let mut end = End::new(A);
    end.sent(0);
    for header in [record(OLD, 1, 1), record(A, 1, 1), record(A, 0, 0), ack(A, 1), missing(A, 0)] {
        let body: &[u8] = if header.kind == Kind::Ack { &[] } else { &[FINISH] };
        assert_eq!(end.receive(1, header, body), Ok(None));
    }
    assert_eq!(end.sent(1), []);
    assert_eq!(end.receive(2, hello(OLD, OLD, 1), &[HELLO]), Ok(None));
    assert_eq!(end.sent(2), [(hello(A, OLD, 0), vec![HELLO])]);
    assert_eq!(end.receive(3, hello(B, 0, 0), &[HELLO]), Ok(None));
    assert_eq!(end.sent(3), [(hello(A, B, 0), vec![HELLO])]);
    assert_eq!(end.receive(4, hello(B, A, 1), &[HELLO]), Ok(Some(vec![HELLO])));
    assert!(end.link.is_up());
}

/// LNK-20: a line that is looped is no peer.
#[test]
fn an_echo_is_not_taken() {
    let mut end = End::new(A);
    for header in [hello(A, 0, 0), hello(A, A, 1), hello(0, A, 0)] {
        assert_eq!(end.receive(0, header, &[HELLO]), Ok(None));
    }
    assert_eq!(end.sent(0), [(hello(A, 0, 0), vec![HELLO])]);
}

/// LNK-20: what is for another id is dropped.
#[test]
fn frames_for_somebody_else_are_dropped() {
    let mut end = End::up();
    for to in [0, B, OLD] {
        assert_eq!(end.receive(1, record(to, 1, 1), &message(1)), Ok(None));
        assert_eq!(end.receive(1, missing(to, 1), &[]), Ok(None));
    }
    assert_eq!(end.sent(100), []);
}

/// LNK-22: another id says that the peer has begun anew, whatever the frame knows of us.
#[test]
fn a_peer_that_restarts_ends_the_session() {
    for to in [0, A, OLD] {
        let mut end = End::up();
        end.kept.write();
        assert_eq!(end.receive(1, hello(OLD, to, 0), &[HELLO]), Err(Ended::PeerRestarted));
        assert_eq!(end.kept.ended, Some(Ended::PeerRestarted));
        assert_eq!(end.sent(1), [], "nobody would take it");
        assert_eq!((end.advance(9_000), end.link.poll_timeout()), (Err(Ended::PeerRestarted), None));
        assert_eq!(end.receive(2, record(A, 1, 1), &message(1)), Err(Ended::PeerRestarted));
    }
}

/// LNK-23: in its turn only; what comes again is acknowledged again.
#[test]
fn a_record_is_taken_in_its_turn_only() {
    let mut end = End::up();
    assert_eq!(end.receive(1, record(A, 1, 2), &message(2)), Ok(None));
    assert_eq!(end.receive(1, record(A, 1, 1), &message(1)), Ok(Some(message(1))));
    assert_eq!(end.receive(1, record(A, 1, 1), &message(1)), Ok(None));
    assert_eq!(end.sent(1), [(ack(B, 2), vec![])]);
    assert_eq!(end.receive(2, record(A, 1, 2), &message(2)), Ok(Some(message(2))));
    // Sequenced or not.
    assert_eq!(end.receive(2, record(A, 1, 4), &[CLOSE, 0, 0, 0]), Ok(None));
    assert_eq!(end.receive(2, record(A, 1, 3), &[CLOSE, 0, 0, 0]), Ok(Some(vec![CLOSE, 0, 0, 0])));
}

/// LNK-26: whoever has said its last word knows when the other side has it.
#[test]
fn an_end_is_settled_when_nothing_is_owed() {
    let mut end = End::up();
    assert!(end.link.is_settled());
    end.kept.write();
    end.sent(0);
    assert!(!end.link.is_settled());
    end.receive(1, record(A, 1, 1), &message(1)).unwrap();
    end.receive(1, ack(A, 2), &[]).unwrap();
    assert!(!end.link.is_settled(), "it has not said that something came");
    end.sent(11);
    assert!(end.link.is_settled());
}

/// LNK-24: an acknowledgement waits for something that carries it, but not for long.
#[test]
fn acknowledgements_travel_with_what_there_is() {
    let mut end = End::up();
    end.receive(1, record(A, 1, 1), &message(1)).unwrap();
    assert_eq!((end.sent(1), end.link.poll_timeout()), (vec![], Some(11)));
    end.kept.write();
    assert_eq!(end.sent(5), [(record(B, 2, 1), message(1))]);
    assert_eq!(end.sent(50), []);
    end.receive(60, record(A, 2, 2), &message(2)).unwrap();
    assert_eq!(end.link.poll_timeout(), Some(70));
    assert_eq!(end.sent(70), [(ack(B, 3), vec![])]);
    // A quarter of the window is told at once.
    end.receive(80, record(A, 2, 3), &message(3)).unwrap();
    end.receive(80, record(A, 2, 4), &message(4)).unwrap();
    assert_eq!(end.sent(80), [(ack(B, 5), vec![])]);
}

/// LNK-24: an old acknowledgement means nothing; one of what was never sent can only come from a faulty peer.
#[test]
fn acknowledgements_are_of_what_was_sent() {
    let mut end = End::up();
    (0..3).for_each(|_| end.kept.write());
    assert_eq!(end.numbers(0), [1, 2, 3]);
    end.receive(1, ack(A, 3), &[]).unwrap();
    assert_eq!(end.kept.records, [message(3)]);
    end.receive(2, ack(A, 1), &[]).unwrap();
    assert_eq!(end.kept.records.len(), 1);
    end.receive(3, ack(A, 4), &[]).unwrap();
    assert_eq!((end.kept.records.len(), end.link.poll_timeout()), (0, None));
    assert_eq!(end.receive(4, ack(A, 5), &[]), Err(Ended::PeerFault(Rule::LineAck)));
}

/// LNK-25: what is missing is asked for once, and the other end begins again there, once.
#[test]
fn what_is_missing_is_asked_for_at_once() {
    let mut end = End::up();
    end.receive(1, record(A, 1, 2), &message(2)).unwrap();
    assert_eq!(end.sent(1), [(missing(B, 1), vec![])]);
    end.receive(2, record(A, 1, 3), &message(3)).unwrap();
    assert_eq!(end.sent(2), []);
    // The next gap is another one.
    end.receive(3, record(A, 1, 1), &message(1)).unwrap();
    end.receive(3, record(A, 1, 3), &message(3)).unwrap();
    end.kept.write();
    let header = Header { missing: true, ..record(B, 2, 1) };
    assert_eq!(end.sent(3), [(header, message(1))], "with what there is to send");

    let mut end = End::up();
    (0..3).for_each(|_| end.kept.write());
    assert_eq!(end.numbers(0), [1, 2, 3]);
    end.receive(1, missing(A, 2), &[]).unwrap();
    assert_eq!(end.numbers(1), [2, 3]);
    end.receive(2, missing(A, 2), &[]).unwrap();
    assert_eq!(end.numbers(2), [], "a repetition of the same frame");
    end.receive(3, missing(A, 3), &[]).unwrap();
    assert_eq!(end.numbers(3), [3]);
}

/// LNK-26: again at growing intervals, from the last frame on; and no more once something was acknowledged.
#[test]
fn what_is_not_acknowledged_is_sent_again() {
    let mut end = End::up();
    end.kept.write();
    assert_eq!(end.numbers(0), [1]);
    end.kept.write();
    assert_eq!(end.numbers(60), [2]);
    let mut at = 60;
    for interval in [100, 200, 400, 400] {
        assert_eq!(end.link.poll_timeout(), Some(at + interval));
        assert_eq!((end.advance(at + interval - 1), end.numbers(at + interval - 1)), (Ok(()), vec![]));
        at += interval;
        assert_eq!((end.advance(at), end.numbers(at)), (Ok(()), vec![1, 2]));
    }
    end.receive(at, ack(A, 2), &[]).unwrap();
    assert_eq!(end.link.poll_timeout(), Some(at + 100));
    at += 100;
    assert_eq!((end.advance(at), end.numbers(at)), (Ok(()), vec![2]));
    end.receive(at, ack(A, 3), &[]).unwrap();
    assert_eq!((end.link.poll_timeout(), end.numbers(at + 9_000)), (None, vec![]));
}

/// LNK-26: a peer that does not come is waited for; one that was there and acknowledges nothing is lost.
#[test]
fn a_line_is_lost_after_a_time() {
    let mut end = End::new(A);
    end.sent(0);
    assert_eq!((end.advance(1 << 40), end.sent(1 << 40).len()), (Ok(()), 1));

    let mut end = End::up();
    assert_eq!((end.link.poll_timeout(), end.advance(90_000)), (None, Ok(())), "nothing is waited for");
    end.kept.write();
    end.numbers(100_000);
    end.kept.write();
    end.numbers(102_000);
    end.receive(103_000, ack(A, 2), &[]).unwrap();
    assert_eq!(end.advance(107_999), Ok(()));
    assert_eq!(end.advance(108_000), Err(Ended::LinkLost));
    assert_eq!((end.kept.ended, end.link.ended()), (Some(Ended::LinkLost), Some(Ended::LinkLost)));
    assert_eq!(end.sent(108_000), []);
}

/// LNK-27: no more than the window is under way.
#[test]
fn a_full_window_waits() {
    let mut end = End::up();
    (0..9).for_each(|_| end.kept.write());
    assert_eq!(end.numbers(0), [1, 2, 3, 4, 5, 6, 7, 8]);
    end.receive(1, ack(A, 2), &[]).unwrap();
    assert_eq!(end.numbers(1), [9]);
}

/// LNK-23, LNK-24: numbers go round on the line, and not in memory.
#[test]
fn numbers_go_round() {
    let mut ends = [End::new(A), End::new(B)];
    let mut taken = [0, 0];
    for turn in 0..70_000_u64 {
        for (from, to) in [(0, 1), (1, 0)] {
            if turn > 3 {
                ends[from].kept.write();
            }
            for (header, body) in ends[from].sent(turn) {
                if let Some(body) = ends[to].receive(turn, header, &body).expect("no fault")
                    && body != [HELLO]
                {
                    taken[to] += 1;
                    assert_eq!(body, message(taken[to]));
                }
            }
        }
    }
    assert!(taken[0] > 69_000 && taken[1] > 69_000, "{taken:?}");
}

#[test]
fn a_line_that_is_too_short_is_told() {
    let mut end = End::new(A);
    assert_eq!(end.link.transmit(0, &mut end.kept, &mut [0; 8]), Err(TooShort));
    assert_eq!(end.sent(0).len(), 1, "and nothing has changed");
}

/// FRM-4: what is no frame of the link is dropped.
#[test]
fn other_payloads_are_dropped() {
    let mut end = End::up();
    let (mut good, length) = ([0; 32], 10);
    let mut writer = Writer::new(&mut good);
    record(A, 1, 1).write(&mut writer);
    writer.put(&[FINISH]);
    let drops = |end: &mut End, payload: &[u8]| {
        assert_eq!(end.link.receive(1, payload, &mut end.kept), Ok(None), "{payload:02x?}");
    };
    (0..length).for_each(|cut| drops(&mut end, &good[..cut]));
    for bit in 3..8 {
        let mut other = good;
        other[0] |= 1 << bit;
        drops(&mut end, &other[..length]);
    }
    drops(&mut end, &[0, 1, 0, 0xAA, 0xAA, 1, 0, FINISH]);
    assert_eq!(end.link.receive(1, &good[..length], &mut end.kept), Ok(Some(&[FINISH][..])));
}
