//! What a received message does (SPEC section 12): one method for each kind.

use super::storage::Storage;
use super::{Ended, Event, Rule, Session, VERSION};
use crate::codec::Reader;
use crate::message::{self, Hello, Message, kind};

impl<S: Storage> Session<S> {
    /// Takes one record's body. The event borrows it, not the session.
    ///
    /// An error ends the session; every later call gives the same error.
    pub fn handle<'f>(&mut self, body: &'f [u8]) -> Result<Option<Event<'f>>, Ended> {
        if let Some(ended) = self.ended {
            return Err(ended);
        }
        let event = self.receive(body);
        if let Err(ended) = &event {
            self.end(*ended);
        }
        event
    }

    fn receive<'f>(&mut self, body: &'f [u8]) -> Result<Option<Event<'f>>, Ended> {
        if self.link.is_resuming() {
            return self.on_resumed(body).map(|()| None);
        }
        let is_hello = body.first().is_some_and(|head| head & kind::MASK == kind::HELLO);
        if is_hello != self.peer().is_none() {
            return Err(fault(Rule::HelloFirst));
        }
        if is_hello && body.len() > Hello::MAX_LENGTH {
            return Err(fault(Rule::HelloLength));
        }
        if body.is_empty() || !is_hello && body.len() > self.limits.max_message as usize {
            return Err(fault(Rule::FrameLength));
        }
        self.time.heard = true;
        // Counted before it is looked at, whether its kind is known or not (MSG-2).
        if Message::is_sequenced(body) {
            self.received += 1;
            self.goodbyes.void();
            self.link.got(body.len());
        }
        let (head, mut reader) = (body.first().copied().unwrap_or_default(), Reader::new(body));
        reader.byte();
        let (kind, flags, reader) = (head & kind::MASK, head & !kind::MASK, &mut reader);
        // Each message is read where it is used, and not into one that can be any of them: they would be copied.
        match kind {
            kind::CALL => {
                let call = message::Call::read(flags, reader);
                whole(reader)?;
                return self.on_call(&call, body);
            }
            kind::RETURN => {
                let returned = message::Return::read(flags, reader);
                whole(reader)?;
                return self.on_return(&returned);
            }
            kind if !message::is_known(kind) => self.unknown_kinds |= 1 << kind,
            _ if flags != 0 => return Err(fault(Rule::Envelope)),
            kind::FINISH => {
                let entries = message::Finishes::read(reader);
                whole(reader)?;
                self.on_finish(entries)?;
            }
            kind::RELEASE => {
                let entries = message::Releases::read(reader);
                whole(reader)?;
                self.on_release(entries)?;
            }
            kind::DOWN => {
                let entries = message::Downs::read(reader);
                whole(reader)?;
                self.on_down(entries)?;
            }
            kind::HELLO => {
                self.peer.read(reader);
                let taken = whole(reader).and_then(|()| self.on_hello());
                if taken.is_err() {
                    self.peer = Hello::NOBODY;
                }
                taken?;
                return Ok(Some(Event::Ready));
            }
            kind::UNIMPLEMENTED => {
                let kinds = message::read_kinds(reader);
                whole(reader)?;
                self.refused_kinds |= kinds;
            }
            kind::CLOSE => {
                let close = message::Close::read(reader);
                whole(reader)?;
                return Err(Ended::PeerClosed(close.code));
            }
            kind::ACK | kind::GOODBYE => {
                let got = reader.varint();
                whole(reader)?;
                if kind == kind::ACK { self.on_ack(got) } else { self.on_goodbye(got) }?;
            }
            kind::PING => {
                whole(reader)?;
                self.link.acknowledge_soon();
            }
            _ => return Err(fault(Rule::LinkOrder)),
        }
        Ok(None)
    }

    fn on_hello(&mut self) -> Result<(), Ended> {
        let hello = &self.peer;
        if !hello.limits.are_valid() {
            return Err(fault(Rule::HelloLimits));
        }
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            return Err(Ended::NoCommonVersion);
        }
        self.link_agreed();
        self.begin_keepalive();
        Ok(())
    }
}

/// Whether a message was read to its end and is well formed.
fn whole(reader: &Reader<'_>) -> Result<(), Ended> {
    match reader.is_empty() && reader.check().is_ok() {
        true => Ok(()),
        false => Err(fault(Rule::Envelope)),
    }
}

pub(super) fn fault(rule: Rule) -> Ended {
    Ended::PeerFault(rule)
}
