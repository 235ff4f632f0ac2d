//! Results of calls of ours: each has a place from the command until whoever made it has let go of it.

use farref_core::message::{self, ErrorCode, FinishMode, Handles};
use farref_core::session::{Question, Reference, Return, Session, Storage};
use farref_core::value::{Top, Values};

use super::Inner;
use crate::peer::Error;
use crate::service::Service;

/// A call of ours, from the command until whoever made it has let go of its result.
pub(super) struct Slot<const RESULT: usize> {
    pub state: State,
    pub era: u32,
    pub body: [u8; RESULT],
}

impl<const RESULT: usize> Slot<RESULT> {
    pub const FREE: Self = Self { state: State::Free, era: 0, body: [0; RESULT] };
}

/// As it is at first, it is zeros.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum State {
    Free = 0,
    Open(Question),
    /// So many bytes of a Return.
    Returned(usize),
    Failed(Error),
}

/// What stands in a result: one value if the call was done, or what comes with the error.
pub(crate) struct Answered<'r> {
    pub error: Option<ErrorCode>,
    pub handles: Handles<'r>,
    pub values: Values<'r>,
}

impl<S: Storage, const CALLS: usize, const RESULT: usize> Inner<S, CALLS, RESULT> {
    /// The result goes to whoever waits for it; its references are held until they have let go of it.
    pub(super) fn on_return(&mut self, returned: &Return<'_>, body: &[u8], service: &mut dyn Service) {
        let waits = |slot: &&mut Slot<RESULT>| matches!(slot.state, State::Open(open) if open == returned.question);
        let Some(slot) = self.slots.iter_mut().find(waits) else {
            service.returned(returned);
            return release_all(&mut self.session, returned.handles);
        };
        let error = read_answer(body).and_then(|answered| answered.error);
        let failed = match (slot.body.get_mut(..body.len()), returned.outcome) {
            // What the session has found wrong with it does not stand there (CAL-5, REF-5).
            (_, Err(code)) if error != Some(code) => Error::Failed(code),
            (Some(kept), ..) => {
                kept.copy_from_slice(body);
                slot.state = State::Returned(body.len());
                return;
            }
            (None, ..) => Error::TooLong(body.len()),
        };
        slot.state = State::Failed(failed);
        release_all(&mut self.session, returned.handles);
    }

    pub(super) fn fail(&mut self, question: Question, error: Error) {
        for slot in &mut self.slots {
            if matches!(slot.state, State::Open(open) if open == question) {
                slot.state = State::Failed(error);
            }
        }
    }

    /// Nobody wants that result any more.
    pub(super) fn forget(&mut self, place: usize, era: u32) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        let state = core::mem::replace(&mut slot.state, State::Free);
        if slot.era == era {
            match state {
                // It is asked to stop, and nobody is told.
                State::Open(question) => {
                    let _ = self.session.cancel(question, FinishMode::Interrupt);
                    let _ = self.session.cancel(question, FinishMode::Abandon);
                }
                State::Returned(length) => {
                    if let Some(answered) = slot.body.get(..length).and_then(read_answer) {
                        release_all(&mut self.session, answered.handles);
                    }
                }
                State::Free | State::Failed(_) => {}
            }
        }
    }
}

fn release_all<S: Storage>(session: &mut Session<S>, handles: Handles<'_>) {
    for handle in handles {
        if let Some(Reference::Import(import) | Reference::Weak(import)) = session.resolve(handle) {
            let _ = session.release(import);
        }
    }
}

/// Reads a Return that the session has checked.
pub(super) fn read_answer(body: &[u8]) -> Option<Answered<'_>> {
    let returned = message::Return::of(body).ok()?;
    let top = if returned.error.is_some() { Top::Error } else { Top::Result };
    let values = Values::check(returned.values, top, returned.handles.len()).ok()?;
    Some(Answered { error: returned.error, handles: returned.handles, values })
}
