//! The other side, as a program sees it: its objects are called and held, and calls of its own answered later.

use core::fmt;
use core::future::poll_fn;

use farref_core::dispatch::{Arguments, Done, Reply};
use farref_core::message::{CloseCode, Descriptor, DownReason, ErrorCode, Hello, Op};
use farref_core::session::{
    Answer, Call, CallError, Callee, Ended, Import, ObjectKey, Ref, Reference, ReplyError, Tables,
};
use farref_core::value::{Value, ValueError, ValueWriter, Values};

use crate::connection::{Answered, Commands, Status};

/// Writes arguments or results. It may be run more than once, and writes the same each time.
pub(crate) type Write<'w> = &'w mut dyn FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>;

/// Who is on the other side of a [`Connection`](crate::Connection).
#[derive(Clone, Copy)]
pub struct Peer<'c>(pub(crate) &'c dyn Commands);

impl<'c> Peer<'c> {
    /// Waits until there is a session and the peer has said Hello.
    pub async fn connected(self) -> Hello {
        poll_fn(|cx| match self.0.hello().filter(|_| self.is_connected()) {
            Some(hello) => core::task::Poll::Ready(hello),
            None => {
                self.0.wait(cx);
                core::task::Poll::Pending
            }
        })
        .await
    }

    /// Whether there is a session that is not over. It may be without a connection for a while.
    pub fn is_connected(self) -> bool {
        self.0.hello().is_some() && !matches!(self.0.status(), Status::Over(_))
    }

    /// The peer's directory: `root().invoke("name", …)` calls what it has under that name.
    pub fn root(self) -> Remote<'c> {
        Remote { peer: self, import: Import::DIRECTORY, era: self.0.era() }
    }

    /// Keeps the reference that is argument number `index` of a call which an object of this connection performs. None if it
    /// is none to an object of the peer, or was lent for the length of the call.
    pub fn keep(self, args: &Arguments<'_>, index: usize, reply: &mut Reply<'_>) -> Option<Remote<'c>> {
        let handle = args.reference(index).filter(|handle| !matches!(handle, Descriptor::Borrowed { .. }))?;
        self.hold(reply.resolve(handle)?, reply)
    }

    /// The same for a reference anywhere among the arguments. One that was lent can be called until the reply, and is stale
    /// then.
    pub fn hold(self, reference: Reference, reply: &mut Reply<'_>) -> Option<Remote<'c>> {
        match reference {
            Reference::Import(import) | Reference::Weak(import) if self.0.is_serving() => {
                reply.keep(import);
                Some(Remote { peer: self, import, era: self.0.era() })
            }
            _ => None,
        }
    }

    /// Puts the reply to a call off that an object of this connection performs.
    pub fn later(self, reply: Reply<'_>) -> (Later<'c>, Done) {
        let (call, done) = reply.later();
        (Later { peer: self, call, era: self.0.era() }, done)
    }

    /// Withdraws an object of ours: the peer is told, and calls on it fail. Not from within an object that performs.
    pub fn revoke(self, object: ObjectKey, reason: DownReason) -> Result<(), Error> {
        self.0.revoke(object, reason)
    }

    /// How full the tables of the session are; all zero while an object performs.
    pub fn tables(self) -> Tables {
        self.0.tables()
    }

    /// Ends the session when no call is under way any more, without loss.
    pub fn shut_down(self) {
        self.0.end(None);
    }

    /// Ends the session at once.
    pub fn close(self) {
        self.0.end(Some(CloseCode::Leaving));
    }
}

/// A reference to an object of the peer, held until it is dropped. When the session is over it is stale.
pub struct Remote<'c> {
    peer: Peer<'c>,
    import: Import,
    era: u32,
}

impl<'c> Remote<'c> {
    /// Calls the object itself.
    pub async fn call(
        &self,
        args: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<Returned<'c>, Error> {
        self.perform(Call::new(self.callee(), Op::Call), args).await
    }

    /// Calls a method.
    pub async fn invoke(
        &self,
        method: &str,
        mut args: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<Returned<'c>, Error> {
        let call = Call::new(self.callee(), Op::CallMethod);
        self.perform(call, move |writer| {
            writer.str(method)?;
            args(writer)
        })
        .await
    }

    /// Reads a member.
    pub async fn get(&self, member: &str) -> Result<Returned<'c>, Error> {
        self.perform(Call::new(self.callee(), Op::GetAttr), |writer| writer.str(member)).await
    }

    /// Makes a call with references, a deadline or a parent, which [`Self::callee`] is for. It waits until the peer takes one
    /// more call, unless it has a parent, and for its result. If that is dropped, the call is cancelled.
    pub async fn perform(
        &self,
        call: Call<'_>,
        mut args: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<Returned<'c>, Error> {
        let (shared, era) = (self.peer.0, self.era);
        let slot = poll_fn(|cx| shared.poll_start(call, era, &mut args, cx)).await?;
        let returned = Returned { peer: self.peer, slot, era };
        poll_fn(|cx| shared.poll_return(slot, cx)).await?;
        Ok(returned)
    }

    /// Calls the object without waiting for anything: if there is no room for the call now, it is not made; what it gives
    /// nobody is told.
    pub fn tell(&self, mut args: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>) -> Result<(), Error> {
        self.peer.0.tell(Call::new(self.callee(), Op::Call), self.era, &mut args)
    }

    /// The object as what a call is for.
    pub fn callee(&self) -> Callee {
        Callee::Import(self.import)
    }

    /// The object as it is sent home, among the references of a call to its peer or of a reply. An object of another peer has
    /// no name there.
    pub fn reference(&self, to: Peer<'_>) -> Result<Ref, Error> {
        match core::ptr::addr_eq(self.peer.0, to.0) {
            true if !self.is_stale() => Ok(Ref::Import(self.import)),
            true => Err(Error::Stale),
            false => Err(Error::OtherPeer),
        }
    }

    /// Whether it is what a [`Down`](farref_core::session::Notice::Down) is about.
    pub fn is(&self, import: Import) -> bool {
        self.import == import && !self.is_stale()
    }

    /// Why it is no more or was withdrawn, if it is: that may have been told before the call came that brought it, which had
    /// to wait (REF-8). None while an object performs.
    pub fn down(&self) -> Option<DownReason> {
        if self.is_stale() { None } else { self.peer.0.down(self.import) }
    }

    /// Whether its session is over.
    pub fn is_stale(&self) -> bool {
        self.era != self.peer.0.era() || matches!(self.peer.0.status(), Status::Over(_))
    }
}

/// One more that holds the object.
impl Clone for Remote<'_> {
    fn clone(&self) -> Self {
        self.peer.0.hold(self.import, self.era, 1);
        Self { ..*self }
    }
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        self.peer.0.hold(self.import, self.era, -1);
    }
}

impl fmt::Debug for Remote<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Remote({})", self.import.slot())
    }
}

/// What a call of ours has given, until it is dropped. Its place is that of one more call under way.
pub struct Returned<'c> {
    peer: Peer<'c>,
    slot: usize,
    era: u32,
}

impl<'c> Returned<'c> {
    /// Whether the call was done.
    pub fn done(&self) -> Result<(), Error> {
        self.read(|_| ())
    }

    /// What `read` makes of the result; None is no value.
    pub fn read<R>(&self, read: impl FnOnce(Value<'_>) -> R) -> Result<R, Error> {
        let mut read = Some(read);
        self.look(|answered| match answered.error {
            None => Ok(read.take().map(|read| read(answered.values.first().unwrap_or(Value::None)))),
            Some(code) => Err(Error::Failed(code)),
        })?
        .ok_or(Error::Stale)
    }

    /// What `read` makes of what came with an error: an exception, say. None if the call was done.
    pub fn read_error<R>(&self, read: impl FnOnce(ErrorCode, Values<'_>) -> R) -> Option<R> {
        let mut read = Some(read);
        let read = self.look(|answered| Ok(answered.error.and_then(|code| Some(read.take()?(code, answered.values)))));
        read.ok().flatten()
    }

    /// The result, if it is a truth value.
    pub fn bool(&self) -> Result<bool, Error> {
        self.read(|value| if let Value::Bool(value) = value { Ok(value) } else { Err(Error::Unexpected) })?
    }

    /// The result, if it is an integer within 64 bits.
    pub fn int(&self) -> Result<i64, Error> {
        self.read(|value| if let Value::Int(value) = value { Ok(value) } else { Err(Error::Unexpected) })?
    }

    /// The result, if it is a float.
    pub fn float(&self) -> Result<f64, Error> {
        self.read(|value| if let Value::Float(value) = value { Ok(value) } else { Err(Error::Unexpected) })?
    }

    /// The result, if it is a reference to an object of the peer.
    pub fn remote(&self) -> Result<Remote<'c>, Error> {
        let index = self.read(|value| if let Value::Reference(index) = value { Some(index) } else { None })?;
        index.and_then(|index| self.reference(index)).ok_or(Error::Unexpected)
    }

    /// The object of the peer that entry number `index` of the references names, wherever in the result it stands.
    pub fn reference(&self, index: u32) -> Option<Remote<'c>> {
        match self.peer.0.resolve(self.slot, index)? {
            Reference::Import(import) | Reference::Weak(import) => {
                self.peer.0.hold(import, self.era, 1);
                Some(Remote { peer: self.peer, import, era: self.era })
            }
            _ => None,
        }
    }

    /// The object of ours that it names: it came home.
    pub fn object(&self, index: u32) -> Option<ObjectKey> {
        if let Reference::Local(key) = self.peer.0.resolve(self.slot, index)? { Some(key) } else { None }
    }

    fn look<R>(&self, mut look: impl FnMut(&Answered<'_>) -> Result<R, Error>) -> Result<R, Error> {
        let mut seen = Err(Error::Stale);
        self.peer.0.read(self.slot, &mut |answered| seen = look(answered));
        seen
    }
}

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.peer.0.forget(self.slot);
    }
}

impl fmt::Debug for Returned<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seen = Ok(());
        self.peer.0.read(self.slot, &mut |Answered { error, values, .. }| match error {
            None => seen = write!(out, "Returned({:?})", values.first()),
            Some(code) => seen = write!(out, "Returned({code:?})"),
        });
        seen
    }
}

/// A call of the peer whose reply was put off. Its caller waits for that, so it is not to be lost; a reply that comes after the
/// end of the session is [stale](Error::Stale).
#[derive(Clone, Copy)]
#[must_use = "the caller waits for the reply"]
pub struct Later<'c> {
    peer: Peer<'c>,
    call: Answer,
    era: u32,
}

impl Later<'_> {
    /// Replies what `result` writes. If there is no room it waits until the peer has read something.
    pub async fn reply(
        self,
        references: &[Ref],
        result: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<(), Error> {
        self.finish(None, references, result).await
    }

    /// Fails with an error and what comes with it, an exception of any kind for instance.
    pub async fn fail(
        self,
        code: ErrorCode,
        references: &[Ref],
        values: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<(), Error> {
        self.finish(Some(code), references, values).await
    }

    /// Raises an exception with one text as its argument.
    pub async fn raise(self, name: &str, text: &str) -> Result<(), Error> {
        let exception = |writer: &mut ValueWriter<'_>| {
            writer.exception_head(name, 1)?;
            writer.str(text)?;
            writer.exception_tail(None, None)
        };
        self.finish(Some(ErrorCode::Raised), &[], exception).await
    }

    /// Says that the call was started and given up. That waits for nothing. Not from within an object that performs.
    pub fn cancel(self) -> Result<(), Error> {
        self.peer.0.refuse((self.call, self.era), ErrorCode::Cancelled)
    }

    /// Which call it is: for calls within it, and to know which one is [interrupted](farref_core::session::Notice::Interrupted).
    pub fn call(self) -> Answer {
        self.call
    }

    async fn finish(
        self,
        error: Option<ErrorCode>,
        references: &[Ref],
        mut values: impl FnMut(&mut ValueWriter<'_>) -> Result<(), ValueError>,
    ) -> Result<(), Error> {
        poll_fn(|cx| self.peer.0.poll_reply((self.call, self.era), error, references, &mut values, cx)).await
    }
}

/// Why something of ours did not work.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The call could not be made. Nothing has happened.
    Call(CallError),
    /// The reply could not be made.
    Reply(ReplyError),
    /// The session is over.
    Ended {
        /// Why.
        ended: Ended,
        /// Whether the peer may have started the call.
        may_have_started: bool,
    },
    /// The peer has answered with this error: see [`Returned::read_error`].
    Failed(ErrorCode),
    /// The call was done, but its result has so many bytes, more than there is room for.
    TooLong(usize),
    /// The result is something else than was asked for.
    Unexpected,
    /// The time of the call is over, and it was to be abandoned then.
    DeadlineExceeded,
    /// It belongs to a session that is over.
    Stale,
    /// It belongs to another peer.
    OtherPeer,
    /// An object is performing, and has its `Reply` for that.
    Busy,
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Ended(ended) => Self::Ended { ended, may_have_started: false },
            error => Self::Call(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(out),
            Self::Reply(error) => error.fmt(out),
            Self::Ended { ended, .. } => ended.fmt(out),
            Self::Failed(code) => write!(out, "the peer answered: {code:?}"),
            Self::TooLong(length) => write!(out, "a result of {length} bytes is longer than there is room for"),
            Self::Unexpected => out.write_str("the result is something else than was asked for"),
            Self::DeadlineExceeded => out.write_str("the deadline has passed"),
            Self::Stale => out.write_str("it belongs to a session that is over"),
            Self::OtherPeer => out.write_str("it belongs to another peer"),
            Self::Busy => out.write_str("an object of the connection is performing"),
        }
    }
}

impl core::error::Error for Error {}
