//! What the peer of a fuzzed session knows from the records that went both ways.

use std::collections::BTreeMap;

use farref_core::codec::Writer;
use farref_core::message::{Limits, Message};
use farref_core::value::{Top, Values};

use crate::sim::body_within;

/// The peer: it notes, and in the end puts everything right.
#[derive(Default)]
pub struct Peer {
    /// Sequenced messages that it has read (MSG-2).
    pub received: u64,
    has_hello: bool,
    /// Messages that come once more (LNK-2).
    again: u64,
    /// Calls of the session that it has read, less those that it has answered, by id: a Return may be sent for a call that
    /// has not been read yet.
    asked: BTreeMap<u16, i32>,
    /// Slots of the session's objects that were sent to it, and their generations.
    held: BTreeMap<u32, u16>,
    /// Returns that it has read.
    pub returns: u32,
}

/// What the peer takes.
pub const LIMITS: Limits = Limits { max_message: 96, imports: 5, answers: 3, call_bytes: 160, handles: 3, levels: 3 };

impl Peer {
    /// Takes a body of the session's, which is well formed and within the limits that the peer has announced (ADM-7).
    pub fn read(&mut self, body: &[u8]) {
        let message = Message::read(body).expect("well formed");
        let (is_sequenced, is_hello) = (Message::is_sequenced(body), matches!(message, Message::Hello(_)));
        if (is_sequenced || is_hello) && self.again > 0 {
            self.again -= 1;
            return;
        }
        self.received += u64::from(is_sequenced);
        self.has_hello |= is_hello;
        if is_hello {
            return;
        }
        assert!(body.len() <= LIMITS.max_message as usize, "{body:02x?}");
        let handles = match message {
            Message::Call(call) => {
                assert!(call.id < LIMITS.answers);
                Values::check(call.values, Top::Arguments, call.handles.len()).expect("good values");
                *self.asked.entry(call.id).or_default() += 1;
                call.handles
            }
            Message::Return(back) => {
                let top = if back.error.is_some() { Top::Error } else { Top::Result };
                Values::check(back.values, top, back.handles.len()).expect("good values");
                self.returns += 1;
                back.handles
            }
            _ => return,
        };
        assert!(handles.len() <= LIMITS.handles.into());
        for handle in handles {
            if let Some((slot, generation)) = handle.of_sender() {
                assert!(slot < LIMITS.imports);
                self.held.insert(slot, generation);
            }
        }
    }

    /// Notes a body that the session has accepted.
    pub fn accepted(&mut self, body: &[u8]) {
        if let Ok(Message::Return(back)) = Message::read(body) {
            *self.asked.entry(back.id).or_default() -= 1;
        }
    }

    /// What puts everything right: each call of the session's has its Return, each of its own its Finish, and what it holds is
    /// released. A Finish too many and a Release that repeats an old one do nothing (FIN-3, REL-4).
    /// With a link all that has come is acknowledged.
    pub fn amends(&self, link: bool) -> Vec<Vec<u8>> {
        let mut bodies: Vec<_> = self.asked().into_iter().map(|id| vec![1, id as u8]).collect();
        bodies.push(vec![2, 0, 1 << 2, 2 << 2, 3 << 2]);
        if link {
            bodies.push(ack(self.got()));
        }
        for (slot, generation) in self.held() {
            bodies.push(body_within(32, |writer| {
                writer.byte(3);
                writer.varint(self.received);
                writer.varint(u64::from(slot) << 1 | u64::from(generation != 0));
                if generation != 0 {
                    writer.varint(generation.into());
                }
            }));
        }
        bodies
    }

    /// How many messages it says that it has got (LNK-2). Those that come again are not among them.
    pub fn got(&self) -> u64 {
        u64::from(self.has_hello) + self.received - self.again
    }

    /// There is another connection, over which messages come again from the one behind `got` on.
    pub fn goes_on_from(&mut self, got: u64) {
        self.again += self.got() - got;
    }

    /// Ids of the session's calls that have no Return.
    pub fn asked(&self) -> Vec<u16> {
        self.asked.iter().filter(|&(_, &balance)| balance > 0).map(|(&id, _)| id).collect()
    }

    /// Objects of the session's that it may hold, the directory excluded.
    pub fn held(&self) -> Vec<(u32, u16)> {
        self.held.iter().map(|(&slot, &generation)| (slot, generation)).filter(|&(slot, _)| slot > 0).collect()
    }
}

/// The peer's Hello.
pub fn hello(link: bool) -> Vec<u8> {
    body_within(128, |writer| {
        writer.put(&[0x10, 1, 1, u8::from(link)]);
        let Limits { max_message, imports, answers, call_bytes, handles, levels } = LIMITS;
        for limit in [max_message, imports, answers.into(), call_bytes, handles.into(), levels.into()] {
            writer.varint(limit.into());
        }
        writer.put(&[0; 16]);
        writer.varint(1);
        if link {
            writer.put(&[0x71; 16]);
            writer.varint(512);
            writer.varint(0);
        }
    })
}

/// What it says of what it has got.
pub fn ack(got: u64) -> Vec<u8> {
    body_within(16, |writer| {
        writer.byte(0x12);
        writer.varint(got);
    })
}

/// An attempt to resume, as a message of a connection that is there.
pub fn resume(writer: &mut Writer<'_>, attempt: u8, got: u64) {
    writer.byte(0x15);
    writer.put(&[0x70; 16]);
    writer.varint(attempt.into());
    writer.varint(got);
}

/// The answer to Resume.
pub fn resume_ok(token: [u8; 16], got: u64) -> Vec<u8> {
    body_within(32, |writer| {
        writer.byte(0x16);
        writer.put(&token);
        writer.varint(got);
    })
}
