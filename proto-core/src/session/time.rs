//! Time, of which the session only knows what it is told: deadlines of calls (TIM-1 to TIM-3) and keepalive (TIM-4, TIM-5).
//!
//! Nothing here looks at a clock, and nothing is queued: a deadline is a number in its call's entry, and a lower bound of them
//! all tells when there is something to look for.

use super::entry::{QuestionState, Stage};
use super::storage::{Blank, Storage, Table};
use super::{Answer, Ended, Notice, Question, Session};
use crate::message::{Consequence, Deadline, ErrorCode, FinishMode, MAX_REMAINING, feature};
use crate::when::When;

/// When a call's time is over, and what is to become of it then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Due {
    pub clock: Clock,
    pub at: u32,
    pub consequence: Consequence,
}

/// How a call's time is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Clock {
    #[default]
    Never,
    /// It begins with the next [`Session::advance`], since the time that is known may be long past: so many milliseconds.
    Not,
    /// It is over at that time, of which these are the low 32 bits.
    Runs,
    Passed,
}

/// What a session knows of time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Time {
    /// As it was last told, milliseconds.
    pub now: u64,
    /// Deadlines that came since.
    fresh: u32,
    /// No deadline is earlier.
    due: When,
    /// Calls of ours whose deadline has passed, which the host has not been told.
    late: u32,
    /// When to look whether the peer was heard, and whether something was said; 0 is not known yet.
    listen: When,
    speak: When,
    pub heard: bool,
    pub said: bool,
    pub ping_due: bool,
    /// Looks in a row that found nothing heard.
    silent: u8,
}

/// Looks within one patience. So something is said after half of it at the latest, since what was said right after one look
/// is noticed at the next (TIM-5).
const LOOKS: u32 = 4;

impl Blank for Time {
    const BLANK: Self = Self {
        now: 0,
        fresh: 0,
        due: When::NEVER,
        late: 0,
        listen: When::NEVER,
        speak: When::NEVER,
        heard: false,
        said: false,
        ping_due: false,
        silent: 0,
    };
}

impl Time {
    /// A deadline for an entry.
    pub fn set(&mut self, deadline: Option<Deadline>) -> Due {
        let Some(Deadline { remaining, consequence }) = deadline else { return Due::default() };
        self.fresh = self.fresh.saturating_add(1);
        Due { clock: Clock::Not, at: remaining.min(MAX_REMAINING), consequence }
    }

    /// What is left of it.
    pub fn left(&self, due: Due) -> Option<Deadline> {
        let remaining = match due.clock {
            Clock::Never => return None,
            Clock::Not => due.at,
            Clock::Runs => self.until(due.at),
            Clock::Passed => 0,
        };
        Some(Deadline { remaining, consequence: due.consequence })
    }

    /// Milliseconds until then, 0 if that is past.
    fn until(&self, at: u32) -> u32 {
        match at.wrapping_sub(self.now as u32) {
            left @ ..=MAX_REMAINING => left,
            _ => 0,
        }
    }

    /// A deadline that had not begun begins.
    fn begin_deadline(&mut self, due: Due) -> Option<Due> {
        if due.clock != Clock::Not {
            return None;
        }
        let at = self.now + u64::from(due.at);
        self.due = self.due.or(When::at(at));
        Some(Due { clock: Clock::Runs, at: at as u32, ..due })
    }

    /// One that has passed just now; if it has not, it is looked for again when it has.
    fn check(&mut self, due: Due) -> Option<Due> {
        if due.clock != Clock::Runs {
            return None;
        }
        match self.until(due.at) {
            0 => Some(Due { clock: Clock::Passed, ..due }),
            left => {
                self.due = self.due.or(When::after(self.now, left));
                None
            }
        }
    }
}

impl<S: Storage> Session<S> {
    /// Tells the time: milliseconds on any clock that never goes back. What is due then is done: see [`Self::poll_notice`].
    ///
    /// Who uses neither deadlines nor keepalive need not tell it at all. Others do so when [`Self::poll_timeout`] asks for it,
    /// and before a call within another, if [`Self::has_deadlines`].
    pub fn advance(&mut self, now: u64) {
        if self.ended.is_some() {
            return;
        }
        self.time.now = self.time.now.max(now);
        if self.time.fresh > 0 {
            self.begin_deadlines();
        }
        if self.time.due.is_due(self.time.now) {
            self.pass_deadlines();
        }
        if self.time.speak.is_due(self.time.now) {
            self.look_whether_said();
        }
        if self.time.listen.is_due(self.time.now) {
            self.look_whether_heard();
        }
    }

    /// When [`Self::advance`] has something to do; it may be past already.
    pub fn poll_timeout(&self) -> Option<u64> {
        let Time { now, fresh, due, listen, speak, .. } = self.time;
        let next = if fresh > 0 { When::at(now) } else { due.or(listen).or(speak) };
        next.some().filter(|_| self.ended.is_none())
    }

    /// Whether a call under way has a deadline, or had one that has not passed yet.
    pub fn has_deadlines(&self) -> bool {
        self.time.fresh > 0 || self.time.due != When::NEVER
    }

    /// What is left of the deadline of a call of the peer's that is being served, as of the time that is known, if it has one.
    pub fn left_to(&self, call: Answer) -> Option<Deadline> {
        self.time.left(self.running_answer(call)?.due())
    }

    /// Whether the Return of that call of ours is still to come, and will be told.
    pub fn is_awaited(&self, question: Question) -> bool {
        self.open_question(question).is_some_and(|question| !question.abandoned())
    }

    /// Whether there is a deadline that begins with the next [`Self::advance`].
    pub fn has_new_deadlines(&self) -> bool {
        self.time.fresh > 0
    }

    /// Deadlines that came since the last time begin now.
    fn begin_deadlines(&mut self) {
        let mut left = core::mem::take(&mut self.time.fresh);
        for id in 0..self.questions.len() as u32 {
            if left == 0 {
                return;
            }
            let Some(question) = self.questions.get_mut(id) else { continue };
            if let Some(due) = self.time.begin_deadline(question.due()) {
                question.set_due(due);
                left -= 1;
            }
        }
        for id in 0..self.answers.len() as u32 {
            if left == 0 {
                return;
            }
            let Some(answer) = self.answers.get_mut(id) else { continue };
            if let Some(due) = self.time.begin_deadline(answer.due()) {
                answer.set_due(due);
                left -= 1;
            }
        }
    }

    /// Looks at all deadlines.
    fn pass_deadlines(&mut self) {
        self.time.due = When::NEVER;
        for id in 0..self.questions.len() as u32 {
            let Some(question) = self.questions.get_mut(id) else { continue };
            if question.state() == QuestionState::Open
                && let Some(due) = self.time.check(question.due())
            {
                question.set_due(due);
                self.pass_deadline(id);
            }
        }
        for id in 0..self.answers.len() as u32 {
            let Some(answer) = self.answers.get_mut(id) else { continue };
            let Some(due) = self.time.check(answer.due()) else { continue };
            answer.set_due(due);
            // One that runs goes on: it is its caller who says what is to become of it (TIM-3).
            if due.consequence != Consequence::Late && matches!(answer.stage(), Stage::Waiting | Stage::Ready) {
                self.refuse_unstarted(id as u16, ErrorCode::DeadlineExceeded, 0);
            }
        }
    }

    /// The deadline of a call of ours has passed (TIM-3).
    fn pass_deadline(&mut self, id: u32) {
        let Some(question) = self.questions.get_mut(id).filter(|question| !question.abandoned()) else { return };
        question.set_late(true);
        self.time.late += 1;
        let consequence = question.consequence();
        let question = Question { id: id as u16, ordinal: question.ordinal };
        let mode = match consequence {
            Consequence::Cancel => FinishMode::Interrupt,
            Consequence::Abandon => FinishMode::Abandon,
            Consequence::Late => return,
        };
        let _ = self.cancel(question, mode);
    }

    /// A call of ours whose deadline has passed.
    pub(super) fn poll_late(&mut self) -> Option<Notice> {
        if self.time.late == 0 {
            return None;
        }
        let ids = 0..self.questions.len() as u32;
        let id = { ids }.find(|&id| self.questions.get(id).is_some_and(|question| question.late()))?;
        let question = self.questions.get_mut(id)?;
        let question = Question { id: id as u16, ordinal: question.ordinal };
        self.told_late(id as u16);
        self.free_question(id as u16);
        Some(Notice::DeadlineExceeded(question))
    }

    /// The host knows, or needs not be told, that a call of ours was late.
    pub(super) fn told_late(&mut self, id: u16) {
        if let Some(question) = self.questions.get_mut(id.into()).filter(|question| question.late()) {
            question.set_late(false);
            self.time.late -= 1;
        }
    }

    /// Keepalive begins if both sides know of it (TIM-4).
    pub(super) fn begin_keepalive(&mut self) {
        if self.patience.is_none() || self.peer.features & feature::KEEPALIVE == 0 {
            return;
        }
        let if_any = |patience: u32| if patience > 0 { When::at(0) } else { When::NEVER };
        self.time.listen = if_any(self.patience.unwrap_or(0));
        self.time.speak = if_any(self.peer.patience);
    }

    fn look_whether_said(&mut self) {
        let next = self.next_look(self.peer().map_or(0, |peer| peer.patience));
        let is_first = core::mem::replace(&mut self.time.speak, next) == When::at(0);
        let was_said = core::mem::take(&mut self.time.said);
        // Where output waits the peer does not read: a Ping behind it says nothing more.
        self.time.ping_due |= !is_first && !was_said && self.output_len() == 0 && !self.is_parked();
    }

    fn look_whether_heard(&mut self) {
        let next = self.next_look(self.patience.unwrap_or(0));
        let is_first = core::mem::replace(&mut self.time.listen, next) == When::at(0);
        // Each look counts once, however late it comes: what arrived while this side slept may not have been read yet.
        let was_heard = core::mem::take(&mut self.time.heard);
        // Without a connection there is nothing to be heard; how long another one may take is for whoever opens it to say.
        let may_hear = !is_first && self.is_up();
        self.time.silent = if was_heard || !may_hear { 0 } else { self.time.silent + 1 };
        if u32::from(self.time.silent) >= LOOKS {
            match self.is_resumable() {
                true => drop(self.park()),
                false => self.end(Ended::Silent),
            }
        }
    }

    fn next_look(&self, patience: u32) -> When {
        When::after(self.time.now, (patience / LOOKS).max(1))
    }
}
