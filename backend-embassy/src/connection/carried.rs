//! What whoever carries a session asks of it: to begin, to take what has come, to give what is to go, to know the time.

use core::task::Waker;

use farref_core::dispatch::Dispatcher;
#[cfg(feature = "serial")]
use farref_core::link::serial::SerialLink;
use farref_core::message::{CloseCode, Hello, Resume};
use farref_core::session::{Ended, Event, LinkMode, Notice, Storage};

use super::commands::Commands;
use super::results::State;
use super::{Connection, Inner};
use crate::config::Config;
use crate::log::info;
use crate::peer::Error;
use crate::service::Service;

/// How a session is begun.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    Stream,
    #[cfg(feature = "serial")]
    Line,
}

/// A connection of whatever capacities, for who carries its sessions.
pub(crate) trait Carried: Commands {
    fn config(&self) -> &Config;
    fn is_up(&self) -> bool;
    fn turn(&self) -> u32;
    fn next_turn(&self) -> u32;

    fn begin(&self, mode: Mode, max_message: u32, service: &mut dyn Service);
    fn give_up(&self, ended: Ended, service: &mut dyn Service);
    fn park(&self, now: u64, service: &mut dyn Service);
    fn resume(&self);
    fn accept(&self, resume: &Resume, service: &mut dyn Service) -> bool;
    fn token(&self) -> Option<[u8; 16]>;
    fn parked_until(&self) -> Option<u64>;

    fn handle(&self, body: &[u8], service: &mut dyn Service);
    fn settle(&self, scratch: Option<&mut [u8]>, service: &mut dyn Service);
    fn transmit(&self, chunk: &mut [u8]) -> usize;
    fn register(&self, waker: &Waker);
    fn timeout(&self) -> Option<u64>;
    fn advance(&self, now: u64);

    #[cfg(feature = "serial")]
    fn has_output(&self) -> bool;
    #[cfg(feature = "serial")]
    fn line_receive(&self, link: &mut SerialLink, now: u64, payload: &[u8], service: &mut dyn Service);
    #[cfg(feature = "serial")]
    fn line_transmit(&self, link: &mut SerialLink, now: u64, line: &mut [u8]) -> usize;
    #[cfg(feature = "serial")]
    fn line_advance(&self, link: &mut SerialLink, now: u64);
}

impl<S: Storage, const IMPORTS: usize, const CALLS: usize, const RESULT: usize> Carried
    for Connection<S, IMPORTS, CALLS, RESULT>
{
    fn config(&self) -> &Config {
        Connection::config(self)
    }

    fn is_up(&self) -> bool {
        self.with(|inner| inner.session.peer().is_some() && inner.session.is_up()) != Some(false)
    }

    fn turn(&self) -> u32 {
        self.turn.get()
    }

    fn next_turn(&self) -> u32 {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.wake_driver();
        self.turn.get()
    }

    fn begin(&self, mode: Mode, max_message: u32, service: &mut dyn Service) {
        self.give_up(Ended::LinkLost, service);
        let config = self.config();
        let link = match (mode, config.park) {
            (Mode::Stream, Some(park)) => {
                let mut token = [0; 16];
                (config.random)(&mut token);
                LinkMode::Resume { token, park }
            }
            (Mode::Stream, None) => LinkMode::Off,
            #[cfg(feature = "serial")]
            (Mode::Line, _) => LinkMode::Line,
        };
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return };
        inner.session.begin(&config.session(link, max_message, IMPORTS));
        (inner.is_live, inner.parked_until) = (true, None);
        self.era.set(self.era.get().wrapping_add(1));
        self.wake_callers();
    }

    fn give_up(&self, ended: Ended, service: &mut dyn Service) {
        self.with(|inner| {
            match ended {
                Ended::PeerRestarted => inner.session.peer_restarted(),
                Ended::Closed(code) => inner.session.close(code),
                _ => inner.session.link_lost(),
            }
            self.settle(inner, None, service);
        });
    }

    fn park(&self, now: u64, service: &mut dyn Service) {
        self.with(|inner| {
            if inner.session.ended().is_none() && inner.session.park() {
                let park = u64::from(self.config().park.unwrap_or(0));
                inner.parked_until = Some(now.saturating_add(park));
                info!("connection lost, session parked");
            }
            self.settle(inner, None, service);
        });
    }

    fn resume(&self) {
        self.with(|inner| {
            inner.parked_until = None;
            inner.session.resume();
        });
    }

    fn accept(&self, resume: &Resume, service: &mut dyn Service) -> bool {
        let accepted = self.with(|inner| {
            let accepted = inner.session.accept(resume).is_ok();
            if accepted {
                info!("session resumed");
                inner.parked_until = None;
                self.wake_callers();
            }
            self.settle(inner, None, service);
            accepted
        });
        accepted.unwrap_or(false)
    }

    fn token(&self) -> Option<[u8; 16]> {
        self.with(|inner| inner.session.token().filter(|_| inner.session.ended().is_none())).flatten()
    }

    fn parked_until(&self) -> Option<u64> {
        self.with(|inner| inner.parked_until).flatten()
    }

    fn handle(&self, body: &[u8], service: &mut dyn Service) {
        self.with(|inner| {
            let event = inner.session.handle(body).ok().flatten();
            self.on_event(inner, event, body, service);
            self.sweep(inner);
        });
    }

    fn settle(&self, scratch: Option<&mut [u8]>, service: &mut dyn Service) {
        self.with(|inner| self.settle(inner, scratch, service));
    }

    fn transmit(&self, chunk: &mut [u8]) -> usize {
        let transmitted = self.with(|inner| {
            let count = inner.session.poll_transmit(chunk);
            if count > 0 {
                self.wake_callers();
                if inner.session.has_ready() {
                    // There is room for an answer now.
                    self.wake_driver();
                }
            }
            count
        });
        transmitted.unwrap_or(0)
    }

    fn register(&self, waker: &Waker) {
        if let Ok(mut driver) = self.driver.try_borrow_mut() {
            driver.register(waker);
        }
    }

    fn timeout(&self) -> Option<u64> {
        self.with(|inner| inner.session.poll_timeout().into_iter().chain(inner.parked_until).min()).flatten()
    }

    fn advance(&self, now: u64) {
        self.with(|inner| {
            inner.session.advance(now);
            if inner.parked_until.is_some_and(|until| until <= now) {
                inner.parked_until = None;
                inner.session.link_lost();
            }
        });
    }

    #[cfg(feature = "serial")]
    fn has_output(&self) -> bool {
        self.with(|inner| inner.session.has_output()) == Some(true)
    }

    #[cfg(feature = "serial")]
    fn line_receive(&self, link: &mut SerialLink, now: u64, payload: &[u8], service: &mut dyn Service) {
        self.with(|inner| {
            if let Ok(Some(body)) = link.receive(now, payload, &mut inner.session) {
                let event = inner.session.handle(body).ok().flatten();
                self.on_event(inner, event, body, service);
                self.sweep(inner);
            }
            // An acknowledgement makes room.
            self.wake_callers();
        });
    }

    #[cfg(feature = "serial")]
    fn line_transmit(&self, link: &mut SerialLink, now: u64, line: &mut [u8]) -> usize {
        let transmitted = self.with(|inner| {
            let length = link.transmit(now, &mut inner.session, line).unwrap_or(0);
            if length > 0 {
                self.wake_callers();
            }
            length
        });
        transmitted.unwrap_or(0)
    }

    #[cfg(feature = "serial")]
    fn line_advance(&self, link: &mut SerialLink, now: u64) {
        // An error is the end of the session, which is seen there.
        let _ = self.with(|inner| link.advance(now, &mut inner.session));
    }
}

impl<S: Storage, const IMPORTS: usize, const CALLS: usize, const RESULT: usize> Connection<S, IMPORTS, CALLS, RESULT> {
    fn on_event(
        &self,
        inner: &mut Inner<S, CALLS, RESULT>,
        event: Option<Event<'_>>,
        body: &[u8],
        service: &mut dyn Service,
    ) {
        match event {
            Some(Event::Request(request)) => {
                // One that is put off has its turn when there is room for an answer, and so have those behind it.
                let waits = inner.session.has_ready() || inner.session.room() < Dispatcher::ROOM;
                if !waits || !inner.session.put_off(&request, body) {
                    Dispatcher::new(service.roots()).dispatch(&mut inner.session, &request, service);
                }
            }
            Some(Event::Return(returned)) => inner.on_return(&returned, body, service),
            Some(Event::Ready) => {
                let is_own =
                    |hello: &Hello| (hello.peer, hello.incarnation) == (self.config().peer, self.config().incarnation);
                if inner.session.peer().is_some_and(is_own) {
                    // Our own Hello: the stream gives back what is written into it (HEL-5).
                    inner.session.close(CloseCode::ProtocolFault);
                } else {
                    info!("session begins");
                }
            }
            None => {}
        }
        // A Return frees an id, a Release an entry, an Ack room.
        self.wake_callers();
    }

    /// Calls that were waiting, if there is room for one, what became true, and the end, if there is one.
    fn settle(&self, inner: &mut Inner<S, CALLS, RESULT>, scratch: Option<&mut [u8]>, service: &mut dyn Service) {
        self.sweep(inner);
        if let Some(scratch) = scratch {
            while inner.session.room() >= Dispatcher::ROOM
                && let Some(request) = inner.session.poll_ready(scratch)
            {
                Dispatcher::new(service.roots()).dispatch(&mut inner.session, &request, service);
                self.sweep(inner);
            }
        }
        while let Some(notice) = inner.session.poll_notice() {
            if let Notice::DeadlineExceeded(question) = notice
                && !inner.session.is_awaited(question)
            {
                inner.fail(question, Error::DeadlineExceeded);
                self.wake_callers();
            }
            service.notice(notice);
            self.sweep(inner);
        }
        let Some(ended) = inner.session.ended().filter(|_| inner.is_live) else { return };
        info!("session over: {}", ended);
        inner.is_live = false;
        inner.parked_until = None;
        for slot in &mut inner.slots {
            if let State::Open(question) = slot.state {
                let may_have_started = inner.session.may_have_started(question);
                slot.state = State::Failed(Error::Ended { ended, may_have_started });
            }
        }
        self.wake_callers();
        service.over();
        self.sweep(inner);
    }
}
