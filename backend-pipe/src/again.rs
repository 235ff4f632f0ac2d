//! How a session goes on when its channel is lost (SPEC.md section 15).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use farref_core::message::Resume;
use farref_host::{Error, Link, Resuming};

use crate::connection::{Ends, Pipe, lock};

/// What a session goes on over.
pub(crate) enum Next {
    /// Nothing: it ends with its channel.
    None,
    /// A channel that this side opens.
    Open(Box<dyn Open>, Resuming),
    /// One that comes to the [`Mailbox`].
    Accept(Resuming),
}

/// Opens channels to the same peer.
pub(crate) trait Open: Send {
    /// Another one. It has so long until the peer has answered. The one before is given up, if it is not over.
    fn open(&mut self, limit: Duration) -> Result<(Ends, Duration), Error>;

    /// What ends the last channel that was opened, from another thread.
    fn abort(&self) -> Box<dyn FnOnce() + Send>;

    /// What ends the channel that there is at a time, where nobody can be kept from waiting for it.
    fn hang_up(&self) -> Option<Box<dyn Fn() + Send>> {
        None
    }
}

/// A channel that began with a [`Resume`], which has been read.
pub(crate) struct Arrived {
    pub resume: Resume,
    pub ends: Ends,
}

/// Where channels come to that a session is to go on over.
#[derive(Default)]
pub(crate) struct Mailbox {
    has_some: AtomicBool,
    /// The channel that there is was given up.
    is_lost: AtomicBool,
    arrived: Mutex<Option<Arrived>>,
    changed: Condvar,
    at_end: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Mailbox {
    /// Whether nothing more is to be received over the channel that there is.
    pub fn ends_this(&self) -> bool {
        self.has_some.load(Ordering::Acquire) || self.is_lost.load(Ordering::Acquire)
    }

    /// The channel that there is is given up, or there is another one.
    pub fn set_lost(&self, is_lost: bool) {
        self.is_lost.store(is_lost, Ordering::Release);
    }

    pub fn put(&self, new: Arrived) {
        let old = {
            let mut arrived = lock(&self.arrived);
            self.has_some.store(true, Ordering::Release);
            arrived.replace(new)
        };
        self.changed.notify_all();
        drop(old);
    }

    /// The session is over: whoever waits is to look.
    pub fn wake(&self) {
        drop(lock(&self.arrived));
        self.changed.notify_all();
        if let Some(at_end) = lock(&self.at_end).take() {
            at_end();
        }
    }

    /// What is to be done when the session is over.
    #[cfg(unix)]
    pub fn at_end(&self, work: Box<dyn FnOnce() + Send>) {
        *lock(&self.at_end) = Some(work);
    }

    /// Waits until something has arrived; None if the time is up, or the session is over.
    fn wait(&self, link: &Link, end: Option<Instant>) -> Option<Arrived> {
        let mut arrived = lock(&self.arrived);
        loop {
            if let Some(arrived) = arrived.take() {
                self.has_some.store(false, Ordering::Release);
                return Some(arrived);
            }
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            // The end of the session is told behind this lock, which nobody waits for who has the session's: see `wake`.
            if left.is_zero() || link.is_over() {
                return None;
            }
            arrived = self.changed.wait_timeout(arrived, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits so long, or until the session is over; false if it is.
    fn pause(&self, link: &Link, time: Duration) -> bool {
        let end = Instant::now().checked_add(time);
        drop(self.wait(link, end));
        !link.is_over()
    }
}

/// Between two looks whether the peer has answered.
const LOOK: Duration = Duration::from_millis(20);

impl Next {
    /// See [`Open::hang_up`].
    pub fn hang_up(&self) -> Option<Box<dyn Fn() + Send>> {
        match self {
            Self::Open(open, _) => open.hang_up(),
            Self::None | Self::Accept(_) => None,
        }
    }

    /// The channel is over. Finds another for the session; false if that is over.
    pub fn find(&mut self, pipe: &Pipe, link: &Link) -> bool {
        match self {
            Self::None => false,
            Self::Open(open, resuming) => connect(pipe, link, &mut **open, resuming),
            Self::Accept(resuming) => accept(pipe, link, resuming),
        }
    }
}

fn connect(pipe: &Pipe, link: &Link, open: &mut dyn Open, resuming: &Resuming) -> bool {
    if !link.park() {
        return false;
    }
    pipe.let_go();
    loop {
        let attempt = link.attempt();
        let left = resuming.park.saturating_sub(link.parked_for());
        if attempt > resuming.attempts || !pipe.mailbox.pause(link, resuming.pause(attempt).min(left)) {
            return false;
        }
        let left = resuming.park.saturating_sub(link.parked_for());
        if left.is_zero() {
            return false;
        }
        match open.open(left) {
            Ok((ends, limit)) => {
                let changed = pipe.change(ends, link, || {
                    link.resume();
                    true
                });
                match changed {
                    Ok(is_changed) => {
                        watch(link, open.abort(), limit.min(left));
                        return is_changed;
                    }
                    Err(error) => link.attempt_failed(error.into()),
                }
            }
            Err(error) => link.attempt_failed(error),
        }
    }
}

/// Ends a channel over which the peer does not answer in time, so that another one is tried.
fn watch(link: &Link, abort: Box<dyn FnOnce() + Send>, limit: Duration) {
    let link = link.clone();
    let watching = move || {
        let end = Instant::now().checked_add(limit);
        while !link.is_up() && !link.is_over() && !link.is_parked() {
            if end.is_some_and(|end| Instant::now() >= end) {
                return abort();
            }
            thread::sleep(LOOK);
        }
    };
    // Without it the attempt lasts as long as the channel does.
    let _ = thread::Builder::new().name("farref-watch".into()).spawn(watching);
}

fn accept(pipe: &Pipe, link: &Link, resuming: &Resuming) -> bool {
    // One may have come while the one before seemed to be there still: that is over with this.
    if !link.park() {
        return false;
    }
    pipe.let_go();
    let end = Instant::now().checked_add(resuming.park);
    loop {
        let Some(Arrived { resume, ends }) = pipe.mailbox.wait(link, end) else { return false };
        // One that was overtaken is given up, and the next one waited for.
        if let Ok(true) = pipe.change(ends, link, || link.accept(&resume).is_ok()) {
            return true;
        }
    }
}
