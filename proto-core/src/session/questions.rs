//! Our calls: their ids, and what their Return does.

use super::entry::QuestionState;
use super::receive::fault;
use super::storage::{Blank, Parts, Storage, Table};
use super::time::Clock;
use super::width::Number;
use super::{CallError, Ended, Event, Outcome, Question, Return, Rule, Session};
use crate::message::{self, ErrorCode, FinishMode, Handles};
use crate::value::{Top, Value, Values};

impl<S: Storage> Session<S> {
    pub(super) fn on_return<'f>(&mut self, returned: &message::Return<'f>) -> Result<Option<Event<'f>>, Ended> {
        self.enter_handles(returned.handles, None)?;
        let id = returned.id;
        let question = match self.questions.get_mut(id.into()) {
            Some(question) if question.state() == QuestionState::Open => question,
            _ => return Err(fault(Rule::ReturnWithoutCall)),
        };
        let (abandoned, ordinal) = (question.abandoned(), question.ordinal);
        let lent = core::mem::take(&mut question.lent);
        self.question_returned(id);
        let (outcome, values) = self.read_outcome(returned);
        // Not before the handles were looked up: what was lent may be among them (REF-9).
        self.end_loans(lent);
        if abandoned || outcome.is_err() && returned.error.is_none() {
            self.release_handles(returned.handles);
        }
        if abandoned {
            return Ok(None);
        }
        let handles = if values.is_empty() && outcome.is_err() && returned.error.is_none() {
            Handles::default()
        } else {
            returned.handles
        };
        Ok(Some(Event::Return(Return { question: Question { id, ordinal }, outcome, handles, values })))
    }

    /// A Return's outcome and values; `Malformed` if they are (CAL-5, ERR-2), `NoSuchObject` or `Revoked` if a reference that
    /// comes home is stale (REF-5) or names a tombstone (REF-8).
    pub(super) fn read_outcome<'f>(&self, returned: &message::Return<'f>) -> (Outcome, Values<'f>) {
        let top = if returned.error.is_some() { Top::Error } else { Top::Result };
        let malformed = (Err(ErrorCode::Malformed), Values::default());
        let Ok(values) = Values::check(returned.values, top, returned.handles.len()) else { return malformed };
        if let Err((code, _)) = self.check_homes(None, returned.handles) {
            return (Err(code), Values::default());
        }
        match returned.error {
            None => (Ok(()), values),
            Some(ErrorCode::Raised) if values.len() != 1 || !matches!(values.first(), Some(Value::Exception(_))) => {
                malformed
            }
            Some(code) => (Err(code), values),
        }
    }

    /// The promise is its result now; if the call was pipelined, Finish is due with the next output (ANS-5).
    pub(super) fn question_returned(&mut self, id: u16) {
        let Some(question) = self.questions.get_mut(id.into()) else { return };
        question.set_state(QuestionState::Returned);
        question.set_clock(Clock::Never);
        // The Return tells it, unless nobody hears that.
        let is_told = question.late() && !question.abandoned();
        let named = core::mem::take(&mut question.named);
        self.question_bytes -= question.bytes.into();
        // A cancel that has not gone out yet is not needed any more (FIN-1).
        let is_due = S::Parts::PROMISES && question.pipelined() && !question.finished();
        question.set_finish(is_due.then_some(FinishMode::Done));
        if is_due && !question.listed() {
            question.set_listed(true);
            self.finishing.push_back(&mut self.questions, id.into());
        }
        if is_told {
            self.told_late(id);
        }
        for named in named.iter().filter(|_| S::Parts::PROMISES) {
            if let Some(question) = self.questions.get_mut(named.into()) {
                question.dependents.down();
            }
            self.free_question(named);
        }
        self.free_question(id);
    }

    /// Frees a question's id when nothing on either side can refer to it any more (CAL-3).
    pub(super) fn free_question(&mut self, id: u16) {
        let Some(question) = self.questions.get_mut(id.into()) else { return };
        let over = question.state() == QuestionState::Returned
            && question.dependents.into() == 0
            && !question.listed()
            && !question.late()
            && (!question.pipelined() || question.finished());
        if over {
            *question = Blank::BLANK;
            self.open_questions -= 1;
            self.free_questions.push_front(&mut self.questions, id.into());
        }
    }

    pub(super) fn check_promise(&self, promise: Question) -> Result<(), CallError> {
        match self.open_question(promise) {
            // Its entry on the other side may be gone once a cancel is sent (ANS-1).
            Some(question)
                if S::Parts::PROMISES
                    && question.pipelined()
                    && !question.finished()
                    && question.finish().is_none() =>
            {
                Ok(())
            }
            _ => Err(CallError::NotAPromise),
        }
    }

    pub(super) fn free_question_id_exists(&self, peer_answers: u16) -> bool {
        let limit = self.questions.limit().min(peer_answers.into());
        self.free_questions.first().is_some() || self.questions.len() < limit
    }

    /// A free call id, still in the list. The table may grow, which is no change that anybody sees.
    pub(super) fn free_question_id(&mut self, peer_answers: u16) -> Option<u16> {
        if self.free_questions.first().is_none() && self.free_question_id_exists(peer_answers) {
            let id = self.questions.grow()?;
            self.free_questions.push_front(&mut self.questions, id);
        }
        u16::try_from(self.free_questions.first()?).ok()
    }

    pub(super) fn take_question_id(&mut self, id: u16) {
        let taken = self.free_questions.pop(&mut self.questions);
        debug_assert_eq!(taken, Some(id.into()));
    }
}
