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
        if let Err(ended) = event {
            self.end(ended);
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
            self.link.got(body.len());
        }
        // What nearly all messages are comes first: a turn through all kinds would copy them.
        if let Some((&head, rest)) = body.split_first() {
            let flags = head & !kind::MASK;
            let mut reader = Reader::new(rest);
            match head & kind::MASK {
                kind::CALL => {
                    let call = message::Call::read(flags, &mut reader);
                    reader.check().map_err(|_| fault(Rule::Envelope))?;
                    return self.on_call(&call, body);
                }
                kind::RETURN => {
                    let returned = message::Return::read(flags, &mut reader);
                    reader.check().map_err(|_| fault(Rule::Envelope))?;
                    return self.on_return(&returned);
                }
                _ => {}
            }
        }
        match Message::read(body).map_err(|_| fault(Rule::Envelope))? {
            Message::Hello(hello) => self.on_hello(hello).map(Some),
            Message::Finish(entries) => self.on_finish(entries).map(|()| None),
            Message::Release(entries) => self.on_release(entries).map(|()| None),
            Message::Down(entries) => self.on_down(entries).map(|()| None),
            Message::Unimplemented(kinds) => {
                self.refused_kinds |= kinds;
                Ok(None)
            }
            Message::Unknown(kind) => {
                self.unknown_kinds |= 1 << kind;
                Ok(None)
            }
            Message::Close(close) => Err(Ended::PeerClosed(close.code)),
            Message::Ack(got) => self.on_ack(got).map(|()| None),
            Message::Ping => {
                self.link.acknowledge_soon();
                Ok(None)
            }
            // The first two were taken above.
            Message::Call(_) | Message::Return(_) => Ok(None),
            Message::Resume(_) | Message::ResumeOk { .. } | Message::SessionGone { .. } => Err(fault(Rule::LinkOrder)),
            Message::Goodbye(received) => self.on_goodbye(received).map(|()| None),
        }
    }

    fn on_hello<'f>(&mut self, hello: Hello) -> Result<Event<'f>, Ended> {
        if !hello.limits.are_valid() {
            return Err(fault(Rule::HelloLimits));
        }
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            return Err(Ended::NoCommonVersion);
        }
        self.peer = hello;
        self.link_agreed(&hello);
        self.begin_keepalive(&hello);
        Ok(Event::Ready)
    }
}

pub(super) fn fault(rule: Rule) -> Ended {
    Ended::PeerFault(rule)
}
