//! A session on a line that loses, changes and repeats frames (SPEC section 16), as a backend drives it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use farref_core::frame::serial::encoded_len;
use farref_core::link::serial::{Config, SerialLink};
use farref_core::session::Ended;

use crate::core::Parked;
use crate::link::Link;
use crate::resume::PeerIdentity;
use crate::shared::Shared;

/// What makes up for what a line does to the frames of a session, in the place of [`Link::receive`] and
/// [`Link::take_output`].
///
/// Whoever has the line gives it the payload of each frame that comes, and asks it for the next one when the one before has
/// left: what is sent last is then what is true last. All else is done with the [`Link`], as on a stream.
pub struct Line {
    shared: Arc<Shared>,
    serial: SerialLink,
    /// When its time began.
    epoch: Instant,
}

/// What there is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A frame, so many bytes long.
    Frame(usize),
    /// Nothing at present.
    Nothing,
    /// Nothing any more: the session is over, and the peer knows all that it can be told.
    Over,
}

impl Line {
    /// For a session that was made by [`Link::on_line`].
    pub fn new(link: &Link, config: Config, now: Instant) -> Self {
        // Any random number will do.
        let [a, b, c, d, ..] = PeerIdentity::random().peer;
        let serial = SerialLink::new(config, u32::from_le_bytes([a, b, c, d]));
        Self { shared: link.0.clone(), serial, epoch: now }
    }

    /// Takes the payload of a frame. Afterwards there may be something to send.
    pub fn receive(&mut self, now: Instant, payload: &[u8]) {
        let now = self.at(now);
        let shared = &self.shared;
        let mut core = shared.lock();
        let room = core.session.room();
        if core.session.peer().is_some() {
            shared.bytes.fetch_add(encoded_len(payload.len()) as u64, Ordering::Relaxed);
        }
        let is_over = match self.serial.receive(now, payload, &mut core.session) {
            Ok(Some(body)) => {
                let is_first = core.session.peer().is_none();
                let is_over = core.take(shared, body);
                if is_first || is_over {
                    shared.changed.notify(usize::MAX);
                }
                is_over
            }
            Ok(None) => false,
            Err(_) => true,
        };
        core = shared.look_after(core, room);
        match is_over && !core.ending {
            true => shared.end(core),
            false => shared.unlock_quietly(core),
        }
    }

    /// Writes the next frame to the front of `frame`, which grows as is needed.
    pub fn transmit(&mut self, now: Instant, frame: &mut Vec<u8>) -> Sent {
        let now = self.at(now);
        let shared = &self.shared;
        let mut core = shared.lock();
        let length = loop {
            match self.serial.transmit(now, &mut core.session, frame) {
                Ok(length) => break length,
                Err(_) => frame.resize((2 * frame.len()).max(SerialLink::frame_len(256)), 0),
            }
        };
        // The last Goodbye was the end (CLS-2).
        if core.session.ended().is_some() && !core.ending {
            core.end_itself();
        }
        core.writing = frame.capacity();
        core.charge(shared);
        if length > 0 && core.session.peer().is_some() {
            shared.bytes.fetch_add(length as u64, Ordering::Relaxed);
        }
        let is_over = length == 0 && core.ending && self.has_said_all(core.session.has_output());
        if is_over && !core.said_all {
            core.said_all = true;
            shared.changed.notify(usize::MAX);
        }
        shared.tell(&mut core);
        core.take_notices(shared);
        shared.unlock_quietly(core);
        match length {
            0 if is_over => Sent::Over,
            0 => Sent::Nothing,
            length => Sent::Frame(length),
        }
    }

    /// Does what is due at `now`: what was not acknowledged in time is sent again, or the line is lost.
    pub fn advance(&mut self, now: Instant) {
        let now = self.at(now);
        let mut core = self.shared.lock();
        match self.serial.advance(now, &mut core.session) {
            Err(_) if !core.ending => self.shared.end(core),
            _ => self.shared.unlock_quietly(core),
        }
    }

    /// When [`Self::advance`], and then [`Self::transmit`], has something to do that it has not now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.epoch.checked_add(Duration::from_millis(self.serial.poll_timeout()?))
    }

    /// The line was unplugged, say: nothing can be sent until [`Self::found`]. The session does not notice, but users are told.
    pub fn lost(&self) {
        let mut core = self.shared.lock();
        core.parked.get_or_insert_with(|| Parked { since: self.shared.driver.now(), attempts: 0, last: None });
        self.shared.changed.notify(usize::MAX);
        self.shared.unlock(core);
    }

    /// It is there again.
    pub fn found(&self) {
        let mut core = self.shared.lock();
        core.is_up_again(&self.shared);
        self.shared.unlock(core);
    }

    /// Whether the peer need not be told anything more, or cannot be.
    fn has_said_all(&self, has_output: bool) -> bool {
        let is_cut = matches!(self.serial.ended(), Some(Ended::PeerRestarted | Ended::LinkLost));
        // A peer that was never there has no session that could end.
        is_cut || !self.serial.has_peer() || self.serial.is_settled() && !has_output
    }

    fn at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }
}
