//! What a received message does (SPEC section 12): one method for each kind.

use super::storage::Storage;
use super::{Ended, Event, Rule, Session, VERSION};
use crate::codec::Malformed;
use crate::message::{Call, Close, Downs, Finishes, Head, Hello, Message, Releases, Return, kind, read_kinds};

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
        // Each is read to its end before it has an effect (MSG-1).
        let Head { kind, flags, mut reader } = Head::read(body);
        match kind {
            kind::CALL => {
                let call = Call::read(flags, &mut reader);
                reader.finish()?;
                return self.on_call(&call, body);
            }
            kind::RETURN => {
                let returned = Return::read(flags, &mut reader);
                reader.finish()?;
                return self.on_return(&returned);
            }
            kind::FINISH => {
                let entries = Finishes::read(&mut reader);
                reader.finish()?;
                self.on_finish(entries)?;
            }
            kind::RELEASE => {
                let entries = Releases::read(&mut reader);
                reader.finish()?;
                self.on_release(entries)?;
            }
            kind::UNIMPLEMENTED => {
                let kinds = read_kinds(&mut reader);
                reader.finish()?;
                self.refused_kinds |= kinds;
            }
            kind::DOWN => {
                let entries = Downs::read(&mut reader);
                reader.finish()?;
                self.on_down(entries)?;
            }
            kind::HELLO => {
                self.peer.read(&mut reader);
                let taken = reader.finish().map_err(Ended::from).and_then(|()| self.on_hello());
                if taken.is_err() {
                    self.peer = Hello::NOBODY;
                }
                return taken.map(|()| Some(Event::Ready));
            }
            kind::CLOSE => {
                let close = Close::read(&mut reader);
                reader.finish()?;
                return Err(Ended::PeerClosed(close.code));
            }
            kind::ACK => {
                let got = reader.varint();
                reader.finish()?;
                self.on_ack(got)?;
            }
            kind::PING => {
                reader.finish()?;
                self.link.acknowledge_soon();
            }
            kind::GOODBYE => {
                let received = reader.varint();
                reader.finish()?;
                self.on_goodbye(received)?;
            }
            kind::RESUME | kind::RESUME_OK | kind::SESSION_GONE => return Err(fault(Rule::LinkOrder)),
            kind => self.unknown_kinds |= 1 << kind,
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

impl From<Malformed> for Ended {
    fn from(_: Malformed) -> Self {
        fault(Rule::Envelope)
    }
}

pub(super) fn fault(rule: Rule) -> Ended {
    Ended::PeerFault(rule)
}
