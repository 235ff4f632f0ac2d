//! What programs ask of a session: calls and their results, replies, references.

use core::task::{Context, Poll};

use farref_core::message::{CloseCode, DownReason, ErrorCode, FinishMode, Hello};
use farref_core::session::{
    Answer, Call, CallError, Ended, Import, ObjectKey, Ref, Reference, ReplyError, Storage, Tables,
};

use super::results::{Answered, State, read_answer};
use super::{Connection, Inner};
use crate::peer::{Error, Write};

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Live,
    Parked,
    Over(Ended),
}

/// A connection of whatever capacities, for who holds something of its session.
pub(crate) trait Commands {
    fn era(&self) -> u32;
    fn status(&self) -> Status;
    fn hello(&self) -> Option<Hello>;
    fn tables(&self) -> Tables;
    fn wait(&self, cx: &mut Context<'_>);
    fn is_serving(&self) -> bool;

    fn poll_start(&self, call: Call<'_>, era: u32, args: Write<'_>, cx: &mut Context<'_>)
    -> Poll<Result<usize, Error>>;
    fn poll_return(&self, slot: usize, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    fn poll_reply(
        &self,
        call: (Answer, u32),
        error: Option<ErrorCode>,
        references: &[Ref],
        values: Write<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>>;

    fn tell(&self, call: Call<'_>, era: u32, args: Write<'_>) -> Result<(), Error>;
    fn refuse(&self, call: (Answer, u32), code: ErrorCode) -> Result<(), Error>;
    fn end(&self, code: Option<CloseCode>);

    fn read(&self, slot: usize, read: &mut dyn FnMut(&Answered<'_>));
    fn resolve(&self, place: usize, index: u32) -> Option<Reference>;
    fn forget(&self, slot: usize);
    fn hold(&self, import: Import, era: u32, change: i16);
    fn down(&self, import: Import) -> Option<DownReason>;
    fn revoke(&self, key: ObjectKey, reason: DownReason) -> Result<(), Error>;
}

impl<S: Storage, const IMPORTS: usize, const CALLS: usize, const RESULT: usize> Commands
    for Connection<S, IMPORTS, CALLS, RESULT>
{
    fn era(&self) -> u32 {
        self.era.get()
    }

    fn status(&self) -> Status {
        // While an object performs there is a session.
        let status = self.with(|inner| match inner.session.ended() {
            Some(ended) => Status::Over(ended),
            None if inner.session.is_parked() => Status::Parked,
            None => Status::Live,
        });
        status.unwrap_or(Status::Live)
    }

    fn hello(&self) -> Option<Hello> {
        self.with(|inner| inner.session.peer().copied()).flatten()
    }

    fn tables(&self) -> Tables {
        self.with(|inner| inner.session.tables()).unwrap_or_default()
    }

    fn wait(&self, cx: &mut Context<'_>) {
        if let Ok(mut callers) = self.callers.try_borrow_mut() {
            callers.register(cx);
        }
    }

    fn is_serving(&self) -> bool {
        self.inner.try_borrow_mut().is_err()
    }

    fn poll_start(
        &self,
        call: Call<'_>,
        era: u32,
        args: Write<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Error>> {
        let started = self.command(|inner| {
            if era != self.era.get() {
                return Poll::Ready(Err(Error::Stale));
            }
            let Some(place) = inner.slots.iter().position(|slot| matches!(slot.state, State::Free)) else {
                self.wait(cx);
                return Poll::Pending;
            };
            match inner.session.call(call, args) {
                Ok(question) => {
                    if let Some(slot) = inner.slots.get_mut(place) {
                        (slot.state, slot.era) = (State::Open(question), era);
                    }
                    Poll::Ready(Ok(place))
                }
                Err(CallError::Ended(ended)) => Poll::Ready(Err(Error::Ended { ended, may_have_started: false })),
                // Within a call of the peer the wait might be for that very call.
                Err(CallError::Overloaded) if call.parent.is_some() => {
                    Poll::Ready(Err(Error::Call(CallError::Overloaded)))
                }
                Err(CallError::NotReady | CallError::Overloaded | CallError::NoRoom) => {
                    self.wait(cx);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(Error::Call(error))),
            }
        });
        started.unwrap_or(Poll::Ready(Err(Error::Busy)))
    }

    fn poll_return(&self, slot: usize, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let polled = self.with(|inner| match inner.slots.get(slot).map(|slot| slot.state) {
            Some(State::Returned(_)) => Poll::Ready(Ok(())),
            Some(State::Failed(error)) => Poll::Ready(Err(error)),
            Some(State::Open(_)) => {
                self.wait(cx);
                Poll::Pending
            }
            Some(State::Free) | None => Poll::Ready(Err(Error::Stale)),
        });
        polled.unwrap_or(Poll::Ready(Err(Error::Busy)))
    }

    fn poll_reply(
        &self,
        (call, era): (Answer, u32),
        error: Option<ErrorCode>,
        references: &[Ref],
        values: Write<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let replied = self.command(|inner| {
            if era != self.era.get() {
                return Poll::Ready(Err(Error::Stale));
            }
            let replied = match error {
                None => inner.session.reply(call, references, values),
                Some(code) => inner.session.reply_error(call, code, references, values),
            };
            match replied {
                Ok(()) | Err(ReplyError::Became(_)) => Poll::Ready(Ok(())),
                Err(ReplyError::NoRoom) => {
                    self.wait(cx);
                    Poll::Pending
                }
                Err(ReplyError::Ended(_) | ReplyError::NoSuchCall) => Poll::Ready(Err(Error::Stale)),
                Err(error) => Poll::Ready(Err(Error::Reply(error))),
            }
        });
        replied.unwrap_or(Poll::Ready(Err(Error::Busy)))
    }

    fn tell(&self, call: Call<'_>, era: u32, args: Write<'_>) -> Result<(), Error> {
        let told = self.command(|inner| {
            if era != self.era.get() {
                return Err(Error::Stale);
            }
            let question = inner.session.call(call, args)?;
            let _ = inner.session.cancel(question, FinishMode::Abandon);
            Ok(())
        });
        told.unwrap_or(Err(Error::Busy))
    }

    fn refuse(&self, (call, era): (Answer, u32), code: ErrorCode) -> Result<(), Error> {
        let refused = self.command(|inner| match era == self.era.get() {
            true => inner.session.refuse(call, code, 1).map_err(|_| Error::Stale),
            false => Err(Error::Stale),
        });
        refused.unwrap_or(Err(Error::Busy))
    }

    fn end(&self, code: Option<CloseCode>) {
        self.command(|inner| match code {
            Some(code) => inner.session.close(code),
            None => inner.session.shutdown(),
        });
    }

    fn read(&self, slot: usize, read: &mut dyn FnMut(&Answered<'_>)) {
        let Ok(inner) = self.inner.try_borrow() else { return };
        let Some(slot) = inner.slots.get(slot) else { return };
        if let State::Returned(length) = slot.state
            && let Some(answered) = slot.body.get(..length).and_then(read_answer)
        {
            read(&answered);
        }
    }

    fn resolve(&self, place: usize, index: u32) -> Option<Reference> {
        self.with(|inner| {
            let slot = inner.slots.get(place).filter(|slot| slot.era == self.era.get())?;
            let State::Returned(length) = slot.state else { return None };
            let handle = slot.body.get(..length).and_then(read_answer)?.handles.get(index)?;
            inner.session.resolve(handle)
        })?
    }

    fn forget(&self, slot: usize) {
        if self.command(|inner| inner.forget(slot, self.era.get())).is_none() {
            self.forgotten.set(self.forgotten.get() | 1 << slot);
        }
        self.wake_callers();
    }

    fn hold(&self, import: Import, era: u32, change: i16) {
        if era != self.era.get() || self.command(|inner| inner.hold(import, change)).is_some() {
            return;
        }
        // There are no more different ones than the peer may give us, which is why they all have a place.
        let Ok(mut held) = self.held.try_borrow_mut() else { return };
        match held.iter_mut().find(|(known, _)| *known == import) {
            Some((_, sum)) => *sum = sum.saturating_add(change),
            None => drop(held.push((import, change))),
        }
    }

    fn down(&self, import: Import) -> Option<DownReason> {
        self.with(|inner| inner.session.down(import)).flatten()
    }

    fn revoke(&self, key: ObjectKey, reason: DownReason) -> Result<(), Error> {
        let revoked = self.command(|inner| inner.session.revoke(key, reason).map_err(|_| Error::Stale));
        revoked.unwrap_or(Err(Error::Busy))
    }
}

impl<S: Storage, const CALLS: usize, const RESULT: usize> Inner<S, CALLS, RESULT> {
    /// So many more holders, or fewer.
    pub(super) fn hold(&mut self, import: Import, change: i16) {
        for _ in 0..change.unsigned_abs() {
            // Of one that the peer has withdrawn there is nothing to hold.
            let _ = if change > 0 { self.session.retain(import) } else { self.session.release(import) };
        }
    }
}
