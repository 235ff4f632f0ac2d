//! What a thread is doing: the call of a peer that it serves, so that calls made meanwhile are part of that one.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use farref_core::message::Deadline;
use farref_core::session::Answer;

use crate::call::CallState;
use crate::core::Core;
use crate::error::Error;
use crate::shared::Shared;

thread_local! {
    /// The call that this thread serves, and its virtual time.
    static CURRENT: RefCell<Current> = const { RefCell::new(Current::NONE) };
}

/// What a piece of work is part of: a call of the peer, within which calls over the same connection are nested (CAL-6).
pub(crate) struct Serving(Current);

impl Serving {
    /// No call yet. If `is_inline`, the work must not wait.
    pub fn over(shared: &Arc<Shared>, is_inline: bool) -> Self {
        Self(Current { shared: Some(shared.clone()), is_inline, ..Current::NONE })
    }

    /// What is done from now on is part of this call of the peer; our own call `cause` caused it.
    pub fn begin(&mut self, answer: Answer, cause: Option<Arc<CallState>>) {
        self.0.answer = Some(answer);
        self.0.now = cause.as_ref().map_or(0, |cause| cause.arrival());
        self.0.cause = cause;
    }

    /// The call is over: what belonged to it goes.
    pub fn end(&mut self) {
        self.0.cause = None;
    }

    /// Does some of the work.
    pub fn run<T>(&mut self, work: impl FnOnce() -> T) -> T {
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, &mut self.0));
        let result = work();
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, &mut self.0));
        if let Some(cause) = &self.0.cause {
            cause.note_nested(self.0.now);
        }
        result
    }
}

/// Whether the peer's call that is being served here was asked to stop.
pub(crate) fn is_interrupted() -> bool {
    CURRENT.with_borrow(|current| match (&current.shared, current.answer) {
        (Some(shared), Some(answer)) => shared.is_interrupted(answer),
        _ => false,
    })
}

/// A call of the peer that what is done here is part of (CAL-6).
pub(crate) enum Parent {
    /// It is served here.
    Served(Answer),
    /// It has caused, by way of other peers, the one that is.
    Cause(Answer),
}

impl Parent {
    /// Among the calls of that session's peer.
    pub fn over(shared: &Arc<Shared>) -> Option<Self> {
        let mut cause = CURRENT.with_borrow(|current| match &current.shared {
            Some(serving) if Arc::ptr_eq(serving, shared) => Err(current.answer.map(Self::Served)),
            _ => Ok(current.cause.clone()),
        });
        loop {
            let within = match cause {
                Ok(cause) => cause?.within()?,
                Err(served) => return served,
            };
            if within.shared.as_ptr() == Arc::as_ptr(shared) {
                return Some(Self::Cause(within.answer));
            }
            cause = Ok(within.cause.and_then(|cause| cause.upgrade()));
        }
    }

    /// One that has its Return meanwhile is none.
    pub fn answer(&self, core: &Core) -> Option<Answer> {
        match *self {
            Self::Served(answer) => Some(answer),
            Self::Cause(answer) => Some(answer).filter(|&answer| core.session.is_open(answer)),
        }
    }
}

/// The call of a peer within which a call was made, and our own that caused that one, as long as it is served.
#[derive(Clone)]
pub(crate) struct Within {
    shared: Weak<Shared>,
    answer: Answer,
    cause: Option<Weak<CallState>>,
}

impl Within {
    /// What a call over that session that is made here is to remember.
    pub fn this(shared: &Arc<Shared>) -> Option<Self> {
        CURRENT.with_borrow(|current| {
            let (serving, answer) = current.shared.as_ref().zip(current.answer)?;
            // Most callbacks stay between two peers: there the session knows it all.
            let goes_on = current.cause.is_some() || !Arc::ptr_eq(serving, shared);
            let cause = || current.cause.as_ref().map(Arc::downgrade);
            goes_on.then(|| Self { shared: Arc::downgrade(serving), answer, cause: cause() })
        })
    }
}

/// What is left of the deadline of the call that is being served here, if it came over another session: that one does not
/// know of calls over this one.
pub(crate) fn time_left(shared: &Arc<Shared>) -> Option<Deadline> {
    let (serving, answer) = CURRENT.with_borrow(|current| match &current.shared {
        Some(serving) if !Arc::ptr_eq(serving, shared) => Some((serving.clone(), current.answer?)),
        _ => None,
    })?;
    serving.left_to(answer)
}

/// An error if what runs here must not wait: whoever would have to bring what it waits for waits for it.
pub(crate) fn may_wait() -> Result<(), Error> {
    match CURRENT.with_borrow(|current| current.is_inline) {
        true => Err(Error::Misplaced("an object that runs inline cannot wait for a call")),
        false => Ok(()),
    }
}

/// This thread's virtual time, in round trips.
pub(crate) fn now() -> u64 {
    CURRENT.with_borrow(|current| current.now)
}

/// It is that late at least.
pub(crate) fn pass(at: u64) {
    CURRENT.with_borrow_mut(|current| current.now = current.now.max(at));
}

/// The longest message that the peer takes whose call this thread serves, bytes: what a result has to fit into. No limit where no
/// call is served.
pub fn callers_max_message() -> usize {
    let shared = CURRENT.with_borrow(|current| current.shared.clone());
    let peer = shared.and_then(|shared| shared.lock().session.peer().map(|peer| peer.limits.max_message));
    peer.map_or(usize::MAX, |most| most as usize)
}

#[derive(Clone)]
struct Current {
    /// Over which session the call came that is being served here, and which one it is.
    shared: Option<Arc<Shared>>,
    answer: Option<Answer>,
    /// Our own call that caused it.
    cause: Option<Arc<CallState>>,
    /// Whether what runs here must not wait: see [`Runs::Inline`](crate::Runs::Inline).
    is_inline: bool,
    now: u64,
}

impl Current {
    const NONE: Self = Self { shared: None, answer: None, cause: None, is_inline: false, now: 0 };
}
