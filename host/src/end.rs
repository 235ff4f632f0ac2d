//! How the ends of references are told: those of the peer's objects to whoever asks, those of our own to the peer (REF-8).

use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use event_listener::{Event as Bell, Listener};
use farref_core::message::{DownReason, ErrorCode};
use farref_core::session::{Ended, Import, ObjectKey};

use crate::core::Core;
use crate::object::Object;
use crate::pool::Garbage;
use crate::proxy::{Proxy, ProxyInner};
use crate::serve::Lent;
use crate::shared::{Dropped, Shared, lock};

/// Why an object of a peer is out of reach for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// Its owner said so: it is no more, or was withdrawn.
    Down(DownReason),
    /// It was lent to this side for the time of a call of the peer, which has its answer.
    Returned,
    /// The session with its peer is over.
    Ended(Ended),
}

impl Lost {
    /// What those are told to whom the object was handed on.
    pub(crate) fn reason(self) -> DownReason {
        match self {
            Self::Down(reason) => reason,
            Self::Returned => DownReason::Gone,
            Self::Ended(_) => DownReason::PeerLost,
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(reason) => reason.fmt(out),
            Self::Returned => out.write_str("the object was lent for a call that has its answer"),
            Self::Ended(ended) => ended.fmt(out),
        }
    }
}

impl std::error::Error for Lost {}

/// Whether an object of a peer is lost, who waits for that, and to which other sessions it was handed on.
#[derive(Default)]
pub(crate) struct End {
    lost: OnceLock<Lost>,
    bell: Bell,
    heirs: Mutex<Vec<Heir>>,
}

/// Another session in which an object of a peer is one of ours.
pub(crate) type Heir = (Weak<Shared>, ObjectKey);

impl End {
    pub fn lost(&self) -> Option<Lost> {
        self.lost.get().copied()
    }

    /// Tells everybody who waits, once; gives those who are to be told without the lock.
    #[must_use]
    fn tell(&self, lost: Lost) -> Vec<(Heir, DownReason)> {
        if self.lost.set(lost).is_err() {
            return Vec::new();
        }
        self.bell.notify(usize::MAX);
        mem::take(&mut *lock(&self.heirs)).into_iter().map(|heir| (heir, lost.reason())).collect()
    }

    /// The object was handed on; if it is lost already, the session is told as soon as it has been sent there.
    pub fn add_heir(&self, shared: &Arc<Shared>, key: ObjectKey) {
        {
            let mut heirs = lock(&self.heirs);
            heirs.retain(|(shared, _)| shared.strong_count() > 0);
            heirs.push((Arc::downgrade(shared), key));
        }
        if let Some(lost) = self.lost() {
            shared.note_dropped(Dropped::Lost(key, lost.reason()));
        }
    }
}

impl Proxy {
    /// Why the object is out of reach for good, if it is.
    pub fn lost(&self) -> Option<Lost> {
        let inner = self.inner();
        inner.end().lost().or_else(|| inner.shared().lock_only().lost())
    }

    /// Resolves when the object is out of reach for good: when its owner says that it is down, or when the session with it is
    /// over. The future holds the object as the proxy does. Any number may wait; each is told once.
    pub fn down(&self) -> impl Future<Output = Lost> + Send + use<> {
        let this = self.clone();
        async move {
            if this.import() == Import::DIRECTORY {
                return this.inner().shared().until(Core::lost).await;
            }
            loop {
                let listener = this.inner().end().bell.listen();
                match this.lost() {
                    Some(lost) => return lost,
                    None => listener.await,
                }
            }
        }
    }

    /// As [`Self::down`], blocking, for as long as `limit` at most: none if the object is still there.
    pub fn wait_down(&self, limit: Duration) -> Option<Lost> {
        if self.import() == Import::DIRECTORY {
            return self.inner().shared().wait_for(Core::lost, limit);
        }
        let end = Instant::now().checked_add(limit);
        loop {
            let listener = self.inner().end().bell.listen();
            if let Some(lost) = self.lost() {
                return Some(lost);
            }
            match end {
                None => listener.wait(),
                Some(end) => listener.wait_deadline(end).map(drop)?,
            }
        }
    }
}

/// A field of an object whose weak references are to be told at once when it is dropped: see
/// [`Object::mourners`](crate::Object::mourners).
pub struct Mourners {
    sessions: Arc<Mutex<Vec<Weak<Shared>>>>,
    is_of_the_object: bool,
}

impl Default for Mourners {
    fn default() -> Self {
        Self { sessions: Arc::default(), is_of_the_object: true }
    }
}

impl Mourners {
    /// The same, for a weak reference to the object.
    pub(crate) fn of_weak(&self) -> Self {
        Self { sessions: self.sessions.clone(), is_of_the_object: false }
    }

    pub(crate) fn add(&self, shared: &Arc<Shared>) {
        let mut mourners = lock(&self.sessions);
        mourners.retain(|mourner| mourner.strong_count() > 0);
        if !mourners.iter().any(|mourner| mourner.as_ptr() == Arc::as_ptr(shared)) {
            mourners.push(Arc::downgrade(shared));
        }
    }
}

impl fmt::Debug for Mourners {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Mourners")
    }
}

impl Drop for Mourners {
    fn drop(&mut self) {
        if self.is_of_the_object {
            for shared in mem::take(&mut *lock(&self.sessions)).iter().filter_map(Weak::upgrade) {
                shared.note_dropped(Dropped::Gone);
            }
        }
    }
}

/// Looks for weak references that have lost their object, when what is dropped before it is.
pub(crate) struct AfterDrop(pub Weak<Shared>);

impl Drop for AfterDrop {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.note_dropped(Dropped::Gone);
        }
    }
}

/// Weak references looked at each time that something has happened: their objects may have been dropped anywhere.
const AT_A_TIME: usize = 8;

impl Core {
    /// That the session is over.
    pub fn lost(&self) -> Option<Lost> {
        self.ending.then(|| Lost::Ended(self.session.ended().unwrap_or(Ended::LinkLost)))
    }

    pub fn tell_end(&mut self, proxy: &ProxyInner, lost: Lost) {
        self.bereft.extend(proxy.end().tell(lost));
    }

    /// The session is over: so are all references of it.
    pub fn tell_all_ends(&mut self, ended: Ended) {
        for proxy in mem::take(&mut self.proxies) {
            if let Some(proxy) = proxy.upgrade() {
                self.tell_end(&proxy, Lost::Ended(ended));
            }
        }
    }

    /// A call of the peer was answered: what was lent to it is gone, or will be as soon as the answer is written.
    pub fn end_loans(&mut self, lent: &Lent) {
        for proxy in lent.iter() {
            if self.session.is_lent(proxy.import()) || !self.session.holds(proxy.import()) {
                self.tell_end(&proxy, Lost::Returned);
            }
        }
    }

    /// Withdraws an object from the peer, and the weak references to it.
    pub fn revoke(&mut self, shared: &Shared, object: &Arc<dyn Object>, reason: DownReason) -> bool {
        let address = Arc::as_ptr(object).cast::<()>() as usize;
        for job in self.lanes.withdraw(address) {
            let _ = self.session.refuse(job.answer(), ErrorCode::Revoked, reason.number().into());
            self.garbage.push(Garbage::job(job));
        }
        let mut is_held = false;
        for key in self.objects.withdraw(address) {
            is_held |= self.session.revoke(key, reason).is_ok();
        }
        self.take_notices(shared);
        is_held
    }

    /// Another peer's object that was handed on here is lost.
    pub fn revoke_forwarder(&mut self, key: ObjectKey, reason: DownReason) {
        let Some(object) = self.objects.get(key) else { return };
        // Its key may be another object's by now.
        if let Some(proxy) = object.stands_for().filter(|proxy| proxy.inner().end().lost().is_some()) {
            // Handed on again it has another key, and is down too.
            self.objects.withdraw(proxy.address()).for_each(drop);
            let _ = self.session.revoke(key, reason);
        }
    }

    /// Weak references whose object is no more are down.
    pub fn look_for_gone(&mut self, all: bool) {
        let most = if all { usize::MAX } else { AT_A_TIME };
        for key in self.objects.gone(most) {
            let _ = self.session.revoke(key, DownReason::Gone);
        }
    }
}
