//! Deadlines of calls, and the clock of a session: it is looked at only when somebody needs it.

use std::time::{Duration, Instant};

use farref_core::message::{Consequence, MAX_REMAINING};
use farref_core::session::Answer;

use crate::core::Core;
use crate::proxy::{Promise, Proxy};
use crate::shared::Shared;

/// How long a call may take, counted from the moment in which it is sent, and what is to become of it then.
///
/// A call that an object makes while it serves one has at most what is left of that one, whatever peer it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    limit: Duration,
    consequence: Consequence,
}

impl Deadline {
    /// So long; then the call is cancelled. It ends with what became of it, as the peer tells: with
    /// [`Error::DeadlineExceeded`](crate::Error) if it was stopped or had not started, with its result if it was done all the
    /// same.
    pub fn new(limit: Duration) -> Self {
        Self { limit, consequence: Consequence::Cancel }
    }

    /// When it is over, the call fails at once, whether the peer answers or not. It may go on there.
    pub fn then_abandon(self) -> Self {
        Self { consequence: Consequence::Abandon, ..self }
    }

    /// When it is over, nothing is done, and a late result is taken: see [`Pending::is_late`](crate::Pending).
    pub fn then_wait_on(self) -> Self {
        Self { consequence: Consequence::Late, ..self }
    }

    /// As it goes over the wire: whole milliseconds, and one more for what the clock has begun of the present one, so that it
    /// never passes too early.
    pub(crate) fn on_the_wire(self) -> farref_core::message::Deadline {
        let more = u128::from(!self.limit.is_zero());
        let remaining = (self.limit.as_millis() + more).min(MAX_REMAINING.into()) as u32;
        farref_core::message::Deadline { remaining, consequence: self.consequence }
    }
}

/// Cancelled when that time is over.
impl From<Duration> for Deadline {
    fn from(limit: Duration) -> Self {
        Self::new(limit)
    }
}

/// An object of the peer, or a promise of one, calls of which have a deadline: see [`Proxy::with_deadline`].
#[derive(Clone, Debug)]
pub struct Timed<T> {
    pub(crate) target: T,
    pub(crate) deadline: Deadline,
}

impl Proxy {
    /// The same object; each call that is made by what this gives has this deadline.
    pub fn with_deadline(&self, deadline: impl Into<Deadline>) -> Timed<Self> {
        Timed { target: self.clone(), deadline: deadline.into() }
    }
}

impl Promise {
    /// The same promise; each call that is made by what this gives has this deadline.
    pub fn with_deadline(&self, deadline: impl Into<Deadline>) -> Timed<Self> {
        Timed { target: self.clone(), deadline: deadline.into() }
    }
}

/// When a session's time began, and when its driver is going to tell it next.
pub(crate) struct Clock {
    epoch: Instant,
    told: u64,
}

impl Clock {
    pub fn new(now: Instant) -> Self {
        Self { epoch: now, told: u64::MAX }
    }

    fn at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis() as u64
    }
}

impl Shared {
    /// What is left of the deadline of a call of the peer's that is being served, if it has one.
    pub fn left_to(&self, answer: Answer) -> Option<farref_core::message::Deadline> {
        let mut core = self.lock_only();
        if !core.session.has_deadlines() {
            return core.session.left_to(answer);
        }
        core.advance(self);
        let left = core.session.left_to(answer);
        self.unlock(core);
        left
    }
}

impl Core {
    /// Tells the session the time.
    pub fn advance(&mut self, shared: &Shared) {
        self.advance_to(shared, shared.driver.now());
    }

    fn advance_to(&mut self, shared: &Shared, now: Instant) {
        self.session.advance(self.clock.at(now));
        self.take_notices(shared);
        // The peer may have been silent for too long.
        if self.session.ended().is_some() && !self.ending {
            self.end_itself();
        }
    }

    /// The driver tells the time because it was asked to. Its clock may be one that a test moves on.
    pub fn advance_as_told(&mut self, shared: &Shared, now: Instant) -> Option<Instant> {
        self.clock.told = u64::MAX;
        self.advance_to(shared, now);
        self.next_look(shared)
    }

    /// When the driver is to tell the time, if that is sooner than it was told.
    pub fn next_look(&mut self, shared: &Shared) -> Option<Instant> {
        if self.session.has_new_deadlines() {
            self.advance(shared);
        }
        let at = self.session.poll_timeout().filter(|&at| at < self.clock.told)?;
        self.clock.told = at;
        self.clock.epoch.checked_add(Duration::from_millis(at))
    }
}
