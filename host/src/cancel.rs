//! Calls that are to be stopped: ours by whoever waits for them, the peer's by the peer (FIN-2).

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker, ready};

use farref_core::message::{ErrorCode, FinishMode};
use farref_core::session::{Answer, Question};

use crate::core::Core;
use crate::current::{self, may_wait};
use crate::error::Error;
use crate::pool::Garbage;
use crate::proxy::Pending;
use crate::shared::{Shared, lock};
use crate::value::Value;

/// What became of a call that was [cancelled](Pending::cancel).
#[derive(Clone, Debug, PartialEq)]
pub enum Cancelled {
    /// It never started, and never will.
    NeverStarted,
    /// It had started, and was stopped.
    Stopped,
    /// It was done all the same, or failed by itself, or its outcome cannot be known any more.
    Completed(Result<Value, Error>),
}

/// A call that was asked to stop, and a future of what became of it.
#[must_use = "the call is cancelled in any case; this tells what became of it"]
#[derive(Debug)]
pub struct Cancelling(Pending);

impl Pending {
    /// Asks the peer to stop the call; what this gives tells whether it did.
    pub fn cancel(self) -> Cancelling {
        self.interrupt();
        Cancelling(self)
    }

    /// Asks the peer to stop the call.
    pub(crate) fn interrupt(&self) {
        if let Some(question) = self.0.question.filter(|_| !self.0.state.is_settled()) {
            let shared = &self.0.shared;
            let mut core = shared.lock();
            let _ = core.session.cancel(question, FinishMode::Interrupt);
            // What is asked for now is whether it was stopped, not why.
            core.late.retain(|&late| late != question);
            shared.unlock(core);
        }
    }

    /// Whether its [deadline](crate::Deadline) has passed.
    pub fn is_late(&self) -> bool {
        self.0.state.is_late()
    }
}

impl Cancelling {
    /// Waits, blocking, for what became of the call.
    ///
    /// # Errors
    /// [`Error::Misplaced`] in an object that [runs inline](crate::Runs::Inline), unless it is known already.
    pub fn wait(self) -> Result<Cancelled, Error> {
        if !self.0.0.state.is_settled() {
            may_wait()?;
        }
        let shared = self.0.0.shared.clone();
        Ok(shared.block_on(self))
    }
}

impl Future for Cancelling {
    type Output = Cancelled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Cancelled> {
        let outcome = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(match outcome {
            Err(Error::Refused(ErrorCode::Cancelled, values)) if values.first() == Some(&Value::Bool(false)) => {
                Cancelled::NeverStarted
            }
            Err(Error::Refused(ErrorCode::Cancelled, _)) => Cancelled::Stopped,
            outcome => Cancelled::Completed(outcome),
        })
    }
}

/// Whether the peer has asked to stop the call that this thread or task serves.
///
/// A task is dropped then where it waits next. What blocks can ask for this from time to time and stop with
/// [`Error::cancelled`], or go on: its outcome is told as it is.
pub fn is_cancelled() -> bool {
    current::is_interrupted()
}

impl Error {
    /// What an object says that has stopped because [it was asked to](is_cancelled).
    pub fn cancelled() -> Self {
        Self::Refuse(ErrorCode::Cancelled, vec![Value::Bool(true)])
    }

    /// The same, where nothing has happened yet.
    pub(crate) fn never_started() -> Self {
        Self::Refuse(ErrorCode::Cancelled, vec![Value::Bool(false)])
    }
}

/// Calls of the peer that were asked to stop, and what wakes those that are tasks.
#[derive(Default)]
pub(crate) struct Interrupts {
    asked: Vec<Answer>,
    suspended: Vec<Option<(Answer, Waker)>>,
}

impl Shared {
    /// Whether that call of the peer was asked to stop. Next to nothing, as long as none is.
    pub fn is_interrupted(&self, answer: Answer) -> bool {
        self.interrupts.load(Ordering::Relaxed) > 0 && lock(&self.core).interrupts.asked.contains(&answer)
    }

    /// A call of the peer waits as a task; false if it was asked to stop.
    pub fn suspend(&self, answer: Answer, waker: &Waker) -> bool {
        let mut core = lock(&self.core);
        let Interrupts { asked, suspended } = &mut core.interrupts;
        if asked.contains(&answer) {
            return false;
        }
        let place = usize::from(answer.id());
        if suspended.len() <= place {
            suspended.resize_with(place + 1, || None);
        }
        match &suspended[place] {
            Some((have, will_wake)) if *have == answer && will_wake.will_wake(waker) => {}
            _ => suspended[place] = Some((answer, waker.clone())),
        }
        true
    }
}

impl Core {
    /// The peer asks to stop a call: one that waits for its turn never starts, a task is woken to be dropped.
    pub fn interrupt(&mut self, shared: &Shared, answer: Answer) {
        if let Some(job) = self.lanes.remove(answer) {
            let _ = self.session.refuse(answer, ErrorCode::Cancelled, 0);
            self.garbage.push(Garbage::job(job));
            return;
        }
        self.interrupts.asked.push(answer);
        shared.interrupts.store(self.interrupts.asked.len(), Ordering::Relaxed);
        let suspended = self.interrupts.suspended.get_mut(usize::from(answer.id())).and_then(Option::take);
        self.wakes.extend(suspended.filter(|(have, _)| *have == answer).map(|(_, waker)| waker));
    }

    /// A call of the peer has run to its end.
    pub fn forget_interrupt(&mut self, shared: &Shared, answer: Answer) {
        if let Some(place) = self.interrupts.suspended.get_mut(usize::from(answer.id())) {
            *place = None;
        }
        if !self.interrupts.asked.is_empty() {
            self.interrupts.asked.retain(|&asked| asked != answer);
            shared.interrupts.store(self.interrupts.asked.len(), Ordering::Relaxed);
        }
    }

    /// The deadline of a call of ours has passed.
    pub fn pass_deadline(&mut self, question: Question) {
        if self.session.is_awaited(question) {
            self.late.push(question);
            if let Some(state) = self.caller(question).and_then(|caller| caller.cause()) {
                state.be_late();
            }
        } else if let Some(caller) = self.remove_call(question) {
            caller.settle(Err(Error::DeadlineExceeded), self);
        }
    }

    /// What the outcome of a call is to whoever gave it a deadline.
    pub fn note_late(&mut self, question: Question, result: &mut Result<Value, Error>) {
        let place = self.late.iter().position(|&late| late == question);
        let was_late = place.map(|place| self.late.swap_remove(place)).is_some();
        match result {
            Err(Error::Refused(ErrorCode::DeadlineExceeded, _)) => *result = Err(Error::DeadlineExceeded),
            Err(Error::Refused(ErrorCode::Cancelled, _)) if was_late => *result = Err(Error::DeadlineExceeded),
            _ => {}
        }
    }
}
