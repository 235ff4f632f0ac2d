//! Objects of the peer, and calls on their way.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use farref_core::session::Import;

use crate::call::OpenCall;
use crate::current::may_wait;
use crate::end::End;
use crate::error::Error;
use crate::shared::{Dropped, Shared};
use crate::value::{Reference, Value};

/// An object of the peer. Clones are the same object; when the last one is dropped, it is released.
#[derive(Clone)]
pub struct Proxy(Arc<ProxyInner>);

pub(crate) struct ProxyInner {
    shared: Arc<Shared>,
    import: Import,
    is_weak: bool,
    end: End,
}

impl ProxyInner {
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn import(&self) -> Import {
        self.import
    }

    pub fn end(&self) -> &End {
        &self.end
    }
}

impl Drop for ProxyInner {
    fn drop(&mut self) {
        // Only a note: this may happen anywhere, in a callback or under a lock.
        if self.import != Import::DIRECTORY {
            self.shared.note_dropped(Dropped::Import(self.import));
        }
    }
}

impl Proxy {
    pub(crate) fn new(shared: Arc<Shared>, import: Import, is_weak: bool) -> Self {
        Self(Arc::new(ProxyInner { shared, import, is_weak, end: End::default() }))
    }

    /// Whether it does not hold the object, which is then to be had by [`Remote::upgrade`](crate::Remote::upgrade).
    pub fn is_weak(&self) -> bool {
        self.0.is_weak
    }

    pub(crate) fn from_inner(inner: Arc<ProxyInner>) -> Self {
        Self(inner)
    }

    pub(crate) fn inner(&self) -> &Arc<ProxyInner> {
        &self.0
    }

    pub(crate) fn import(&self) -> Import {
        self.0.import
    }

    pub(crate) fn is_of(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.0.shared, shared)
    }

    /// What identifies it among the objects of this process.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<()>() as usize
    }
}

/// The proxy, if the value is a reference to an object of a peer; otherwise the value.
impl TryFrom<Value> for Proxy {
    type Error = Value;

    fn try_from(value: Value) -> Result<Self, Value> {
        match value {
            Value::Reference(Reference::Remote(proxy)) => Ok(proxy),
            other => Err(other),
        }
    }
}

/// Identity: the same object of the same peer.
impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        self.is_of(&other.0.shared) && self.0.import == other.0.import
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "<remote object {}>", self.0.import.slot())
    }
}

/// What a call will answer: calls can be made on it at once, and it can be an argument of others, before anything has come
/// back. Dropping all clones cancels the call.
#[derive(Clone)]
pub struct Promise(pub(crate) Arc<OpenCall>);

impl Promise {
    /// Waits for the answer, blocking, however long that takes. Any number of threads may.
    ///
    /// # Errors
    /// What became of the call: see [`Remote`](crate::Remote). [`Error::Misplaced`] where nobody may wait: in an object that
    /// [runs inline](crate::Runs::Inline), unless the answer is there.
    pub fn wait(&self) -> Result<Value, Error> {
        if !self.0.state.is_settled() {
            may_wait()?;
        }
        self.0.shared.block_on(self.settled())
    }

    /// The answer, when it is there. Dropping this future leaves the call as it is: that goes on as long as the promise is held.
    pub fn settled(&self) -> impl Future<Output = Result<Value, Error>> + Send + use<> {
        let call = self.0.clone();
        poll_fn(move |cx| call.state.poll(cx, |outcome| outcome.clone()))
    }

    /// The answer, if it is there already.
    pub fn outcome(&self) -> Option<Result<Value, Error>> {
        self.0.state.result()
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("<promise>")
    }
}

/// A call under way, and a future of its answer. Dropping it cancels the call.
#[must_use = "dropping it cancels the call"]
pub struct Pending(pub(crate) OpenCall);

impl Pending {
    /// Waits for the answer, blocking, however long that takes.
    ///
    /// # Errors
    /// What became of the call: see [`Remote`](crate::Remote). [`Error::Misplaced`] where nobody may wait: in an object that
    /// [runs inline](crate::Runs::Inline), unless the answer is there.
    pub fn wait(self) -> Result<Value, Error> {
        if !self.0.state.is_settled() {
            may_wait()?;
        }
        let shared = self.0.shared.clone();
        shared.block_on(self)
    }
}

/// What the call will answer, for others to build on, if the call was made so that they can.
impl From<Pending> for Promise {
    fn from(call: Pending) -> Self {
        Self(Arc::new(call.0))
    }
}

impl Future for Pending {
    type Output = Result<Value, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.state.poll(cx, Option::take)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("<call under way>")
    }
}
