//! What all who have to do with a session share, and the lock.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use event_listener::{Event as Bell, EventListener, IntoNotification, Listener};
use farref_core::frame::{Split, split};
use farref_core::message::{CloseCode, DownReason};
use farref_core::session::{Import, LinkMode, ObjectKey, Question};

use crate::budget::Budget;
use crate::call;
use crate::connection::Options;
use crate::core::Core;
use crate::current::Serving;
use crate::end::AfterDrop;
use crate::link::{Driver, Link};
use crate::many::ManyKey;
use crate::object::Directory;
use crate::pool::{Garbage, Work};
use crate::serve::{Done, Lane};
/// What everybody shares. `core` is never held while code of users runs or the stream is used.
pub(crate) struct Shared {
    me: Weak<Self>,
    pub core: Mutex<Core>,
    /// Proxies and calls dropped since the core was last looked at. Dropping must not take the core's lock: it may happen
    /// anywhere, under that very lock too.
    pub dropped: Mutex<Vec<Dropped>>,
    pub has_dropped: AtomicBool,
    /// The session became ready or is over.
    pub changed: Bell,
    /// For calls that wait for one of ours to be over, and for room for output.
    pub credits: Bell,
    pub room: Bell,
    /// Whether a call may wait for one of these.
    pub is_lacking: AtomicBool,
    /// Calls of the peer that run and were asked to stop.
    pub interrupts: AtomicUsize,
    pub driver: Arc<dyn Driver>,
    pub memory: Budget,
    pub bytes: AtomicU64,
    pub reads: AtomicU64,
    pub writes: AtomicU64,
}

pub(crate) enum Dropped {
    Import(Import),
    Call(Question),
    Many(ManyKey),
    /// Another peer's object that was handed on here is lost.
    Lost(ObjectKey, DownReason),
    /// The object of a weak reference may be gone.
    Gone,
}

/// What a call of ours has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    Credit,
    Room,
}

/// A panic of a user's object does not hold a lock of ours, so that what a lock guards is sound whatever happened.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(directory: Directory, options: &Options, link: LinkMode, driver: Arc<dyn Driver>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            core: Mutex::new(Core::new(directory, options, link, driver.now())),
            dropped: Mutex::default(),
            has_dropped: AtomicBool::new(false),
            changed: Bell::new(),
            credits: Bell::new(),
            room: Bell::new(),
            is_lacking: AtomicBool::new(false),
            interrupts: AtomicUsize::new(0),
            driver,
            memory: options.memory.clone(),
            bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        })
    }

    /// The core, with all that was dropped told to it.
    pub fn lock(&self) -> MutexGuard<'_, Core> {
        let mut core = lock(&self.core);
        if self.has_dropped.load(Ordering::Acquire) {
            self.has_dropped.store(false, Ordering::Release);
            // The list's own lock is given up first: forgetting a call may drop others.
            let dropped = mem::take(&mut *lock(&self.dropped));
            for dropped in dropped {
                core.forget(dropped);
            }
            // Releases go out before what is done now: it may want the room.
            core.session.transmit();
        }
        core
    }

    /// The core as it is, to be looked at.
    pub fn lock_only(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Ends a piece of work under the lock: output is looked for, and what is left over is dropped elsewhere.
    pub fn unlock(&self, core: MutexGuard<'_, Core>) {
        self.unlock_quietly(core);
        self.driver.output();
    }

    /// As [`Self::unlock`], on a thread that may wait.
    pub fn unlock_and_flush(self: &Arc<Self>, core: MutexGuard<'_, Core>) {
        self.unlock_quietly(core);
        self.driver.flush(&Link(self.clone()));
    }

    /// As [`Self::unlock`], by whoever looks for output itself.
    pub fn unlock_quietly(&self, mut core: MutexGuard<'_, Core>) {
        let look = core.next_look(self);
        let nothing_left = core.wakes.is_empty() && core.garbage.is_empty() && core.bereft.is_empty();
        if nothing_left && look.is_none() && !core.just_ended {
            return;
        }
        self.do_what_is_left(core, look);
    }

    fn do_what_is_left(&self, mut core: MutexGuard<'_, Core>, look: Option<Instant>) {
        let wakes = mem::take(&mut core.wakes);
        let mut garbage = mem::take(&mut core.garbage);
        let bereft = mem::take(&mut core.bereft);
        if !garbage.is_empty() && core.objects.has_weak() {
            let may_wait = garbage.iter().any(Garbage::may_wait);
            garbage.push(Garbage::after(AfterDrop(self.me.clone()), may_wait));
        }
        let just_ended = mem::take(&mut core.just_ended);
        drop(core);
        wakes.into_iter().for_each(Waker::wake);
        if let Some(at) = look {
            self.driver.wake_at(at);
        }
        for ((heir, key), reason) in bereft {
            if let Some(heir) = heir.upgrade() {
                heir.note_dropped(Dropped::Lost(key, reason));
            }
        }
        if just_ended {
            self.wake_all();
            self.driver.output();
            self.driver.ended();
        }
        // Objects that run inline do not wait when they are dropped either. Others may call the peer then, and this may be
        // the thread that would have to read the answer.
        let (waiting, quick): (Vec<_>, Vec<_>) = match garbage.is_empty() {
            true => return,
            false => garbage.into_iter().partition(Garbage::may_wait),
        };
        drop(quick);
        if !waiting.is_empty() {
            drop(self.driver.run(Work::garbage(waiting)));
        }
    }

    /// Runs what can be run here, with the lock given up meanwhile.
    pub fn run_inline<'s>(self: &'s Arc<Self>, mut core: MutexGuard<'s, Core>) -> MutexGuard<'s, Core> {
        while !core.inline.is_empty() {
            // What was released before is room for what they give.
            core.take_notices(self);
            let (mut jobs, mut done) = (mem::take(&mut core.inline), mem::take(&mut core.done));
            drop(core);
            let mut serving = Serving::over(self, true);
            done.extend(jobs.iter_mut().map(|job| job.run(&mut serving)));
            jobs.clear();
            core = self.lock();
            if core.inline.is_empty() {
                core.inline = jobs; // for its memory
            }
            done.drain(..).for_each(|done| core.finish(self, done));
            core.done = done;
        }
        core
    }

    /// Looks after what records of the peer's may have changed: room for output, of which there was so much before, calls
    /// that run here, and objects that nobody holds any more.
    pub fn look_after<'s>(self: &'s Arc<Self>, mut core: MutexGuard<'s, Core>, room: usize) -> MutexGuard<'s, Core> {
        if core.session.room() > room {
            // The peer has acknowledged something.
            core.retry_unsent(self);
            self.tell_of_room();
        }
        core = self.run_inline(core);
        core.take_notices(self);
        self.tell(&mut core);
        core
    }

    /// A call of the peer was run elsewhere.
    pub fn finish(self: &Arc<Self>, done: Done) {
        let mut core = self.lock();
        core.finish(self, done);
        core = self.run_inline(core);
        core.charge(self);
        core.take_notices(self);
        self.tell(&mut core);
        self.unlock_and_flush(core);
    }

    /// A call of the peer will not keep those of its lane waiting any more.
    pub fn leave(self: &Arc<Self>, lane: Option<Lane>) {
        let mut core = self.lock();
        if let Some(next) = core.lanes.leave(lane) {
            core.dispatch(self, next);
        }
        self.unlock(core);
    }

    /// Notes a dropped proxy or call, from wherever it happens.
    pub fn note_dropped(&self, dropped: Dropped) {
        lock(&self.dropped).push(dropped);
        self.has_dropped.store(true, Ordering::Release);
        self.driver.output();
    }

    /// Waits, blocking, for a future of this session.
    pub fn block_on<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        call::with_this_thread(|cx| {
            let mut output = None;
            let mut is_over = || {
                if output.is_none()
                    && let Poll::Ready(ready) = future.as_mut().poll(cx)
                {
                    output = Some(ready);
                }
                output.is_some()
            };
            while !is_over() {
                self.driver.wait(&Link(self.clone()), &mut is_over);
            }
            output.expect("it is over")
        })
    }

    /// To be called under the lock, so that nothing is missed.
    pub fn listen(&self, lack: Lack) -> EventListener {
        self.is_lacking.store(true, Ordering::Relaxed);
        match lack {
            Lack::Credit => self.credits.listen(),
            Lack::Room => self.room.listen(),
        }
    }

    /// A call that waited for credit will not use what it was told of.
    pub fn pass_on(&self) {
        self.credits.notify(1.additional());
    }

    /// Waits, blocking, until `found` finds something in the core; it is asked again when the session becomes ready or ends.
    /// None if the time is up.
    pub fn wait_for<T>(&self, mut found: impl FnMut(&Core) -> Option<T>, limit: Duration) -> Option<T> {
        let end = Instant::now().checked_add(limit);
        loop {
            let core = self.lock();
            if let Some(found) = found(&core) {
                return Some(found);
            }
            let listener = self.changed.listen();
            drop(core);
            match end {
                None => listener.wait(),
                Some(end) => listener.wait_deadline(end).map(drop)?,
            }
        }
    }

    /// As [`Self::wait_for`], for tasks.
    pub async fn until<T>(&self, mut found: impl FnMut(&Core) -> Option<T>) -> T {
        loop {
            let listener = {
                let core = self.lock();
                if let Some(found) = found(&core) {
                    return found;
                }
                self.changed.listen()
            };
            listener.await;
        }
    }

    /// As [`Link::drain`], blocking; false if the time is up.
    pub fn drain(&self, limit: Duration) -> bool {
        self.lock().draining = true;
        self.wait_for(Core::is_drained, limit).is_some()
    }

    pub fn close(&self, code: CloseCode) {
        let mut core = self.lock();
        if core.session.ended().is_none() {
            core.session.close(code);
        }
        self.end(core);
    }

    pub fn end(&self, mut core: MutexGuard<'_, Core>) {
        core.end();
        self.wake_all();
        self.unlock(core);
        self.driver.ended();
    }

    pub fn wake_all(&self) {
        self.changed.notify(usize::MAX);
        self.credits.notify(usize::MAX);
        self.room.notify(usize::MAX);
    }

    /// Tells calls that wait for room for output that there is some.
    pub fn tell_of_room(&self) {
        if self.is_lacking.load(Ordering::Relaxed) {
            self.room.notify(usize::MAX);
        }
    }

    /// Tells calls that wait for credit how many may try, and who waits for the end of all calls.
    pub fn tell(&self, core: &mut Core) {
        if self.is_lacking.load(Ordering::Relaxed) {
            self.credits.notify(core.free_calls());
            let left = self.credits.total_listeners() + self.room.total_listeners();
            self.is_lacking.store(left > 0, Ordering::Relaxed);
        }
        if core.draining && core.is_drained().is_some() {
            self.changed.notify(usize::MAX);
        }
    }

    /// Counts traffic, but for Hello.
    pub fn count(&self, stream: &[u8], used: usize, hello: &mut bool) {
        let mut counted = used;
        if used > 0
            && !mem::replace(hello, true)
            && let Split::Record { rest, .. } = split(stream, u32::MAX)
        {
            counted -= stream.len() - rest.len();
            self.changed.notify(usize::MAX);
        }
        self.bytes.fetch_add(counted as u64, Ordering::Relaxed);
    }
}
