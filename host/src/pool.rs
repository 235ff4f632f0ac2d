//! Work that may wait, what is dropped later, and threads for both.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::call::{CallState, OpenCall, block_on};
use crate::end::AfterDrop;
use crate::object::{Object, Runs};
use crate::serve::Job;
use crate::shared::{Shared, lock};
use crate::value::{Reference, Value};

/// Drops what may run code of users, which may panic; the thread goes on.
pub(crate) fn drop_caught<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

/// What is left over under the core's lock and may run code of users when it is dropped.
///
/// Each piece catches what that code throws: of two panics in one go, the second would end the program.
pub(crate) struct Garbage {
    left: Option<Left>,
    may_wait: bool,
}

#[expect(dead_code, reason = "they are there to be dropped")]
enum Left {
    Object(Arc<dyn Object>),
    Call(Arc<CallState>),
    Named(Vec<Arc<OpenCall>>),
    Values(Vec<Value>),
    Work(Work),
    Job(Box<Job>),
    After(AfterDrop),
}

impl Garbage {
    fn new(left: Left, may_wait: bool) -> Self {
        Self { left: Some(left), may_wait }
    }

    pub fn object(object: Arc<dyn Object>) -> Self {
        let may_wait = object.runs() != Runs::Inline;
        Self::new(Left::Object(object), may_wait)
    }

    /// The last hold of a call; none if others have it, too.
    pub fn last_of(call: Arc<CallState>) -> Option<Self> {
        let is_last = Arc::strong_count(&call) == 1;
        is_last.then(|| {
            let may_wait = call.any_outcome(may_wait);
            Self::new(Left::Call(call), may_wait)
        })
    }

    pub fn named(calls: Vec<Arc<OpenCall>>) -> Self {
        let may_wait = calls.iter().any(|call| call.state.any_outcome(may_wait));
        Self::new(Left::Named(calls), may_wait)
    }

    /// Values; none if none of them holds anything of users.
    pub fn values(values: Vec<Value>) -> Option<Self> {
        let may_wait = values.iter().any(may_wait);
        let holds = values.iter().any(|value| any_reference(value, |one| !matches!(one, Reference::Remote(_))));
        holds.then(|| Self::new(Left::Values(values), may_wait))
    }

    pub fn work(work: Work) -> Self {
        Self::new(Left::Work(work), true)
    }

    pub fn job(job: Job) -> Self {
        Self::new(Left::Job(Box::new(job)), true)
    }

    /// What is to be done when all others were dropped that stand before it.
    pub fn after(after: AfterDrop, may_wait: bool) -> Self {
        Self::new(Left::After(after), may_wait)
    }

    /// Whether dropping it may wait for something: what runs inline does not.
    pub fn may_wait(&self) -> bool {
        self.may_wait
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        drop_caught(self.left.take());
    }
}

/// Whether dropping a value may run code of users that waits.
fn may_wait(value: &Value) -> bool {
    any_reference(value, |reference| match reference {
        Reference::Remote(_) => false,
        Reference::Local(object) | Reference::Lent(object) => object.runs() != Runs::Inline,
        Reference::Promise(_) => true,
    })
}

fn any_reference(value: &Value, is_one: impl Fn(&Reference) -> bool) -> bool {
    let mut found = false;
    value.each_reference(&mut |reference| found |= is_one(reference));
    found
}

/// A piece of work that a [driver](crate::Driver) has done elsewhere.
pub struct Work(Kind);

/// A future that is sent between threads.
pub(crate) type Task<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum Kind {
    Blocking(Arc<Shared>, Box<Job>),
    Task(Task<()>),
    Drop(Vec<Garbage>),
}

impl Work {
    pub(crate) fn blocking(shared: Arc<Shared>, job: Job) -> Self {
        Self(Kind::Blocking(shared, Box::new(job)))
    }

    pub(crate) fn task(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Kind::Task(Box::pin(task)))
    }

    pub(crate) fn garbage(garbage: Vec<Garbage>) -> Self {
        Self(Kind::Drop(garbage))
    }

    /// Does it on this thread, which may have to wait. `waited` is called when it will not wait any more.
    fn run(self, waited: impl FnOnce()) {
        match self.0 {
            Kind::Blocking(shared, job) => return job.run_and_finish(&shared, waited),
            Kind::Task(task) => block_on(task),
            Kind::Drop(garbage) => drop(garbage),
        }
        waited();
    }

    /// As a task that never blocks.
    ///
    /// # Errors
    /// Gives it back if it wants a thread.
    pub fn into_task(self) -> Result<Pin<Box<dyn Future<Output = ()> + Send>>, Self> {
        match self.0 {
            Kind::Task(task) => Ok(task),
            other => Err(Self(other)),
        }
    }

    fn is_garbage(&self) -> bool {
        matches!(self.0, Kind::Drop(_))
    }
}

/// Threads that do work. There is one for each piece that runs, so that one that waits for a nested call cannot keep that
/// from running; beyond the limit work is refused. One more drops what is left over.
pub struct Threads(Arc<Pool>);

struct Pool {
    state: Mutex<PoolState>,
    wake: Condvar,
    limit: usize,
}

#[derive(Default)]
struct PoolState {
    work: VecDeque<Work>,
    /// What is to be dropped, by one thread at a time: it may wait for long, and nobody waits for it.
    garbage: VecDeque<Work>,
    dropping: bool,
    /// Threads that wait for work, that do some, and all, with those that are about to look for more.
    idle: usize,
    busy: usize,
    threads: usize,
    stopped: bool,
}

impl PoolState {
    fn next(&mut self) -> Option<Work> {
        if let Some(work) = self.work.pop_front() {
            self.busy += 1;
            return Some(work);
        }
        let garbage = if self.dropping { None } else { self.garbage.pop_front() };
        self.dropping |= garbage.is_some();
        garbage
    }
}

impl Threads {
    /// At most so many threads, started as they are needed.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Pool { state: Mutex::default(), wake: Condvar::new(), limit: limit.max(1) }))
    }

    /// Has work done.
    ///
    /// # Errors
    /// Gives it back if all threads are busy, or after [`Self::stop`].
    pub fn run(&self, work: Work) -> Result<(), Work> {
        let mut state = self.0.lock();
        if state.stopped {
            return Err(work);
        }
        let is_garbage = work.is_garbage();
        if !is_garbage && state.busy + state.work.len() >= self.0.limit {
            return Err(work);
        }
        // A thread that was woken counts as idle until it has taken its work, which is still in the queue then.
        let waiting = state.work.len() + usize::from(!state.garbage.is_empty() && !state.dropping);
        // There is one more for garbage.
        if waiting >= state.idle && state.threads <= self.0.limit {
            let pool = self.0.clone();
            let spawned = thread::Builder::new().name("farref-serve".into()).spawn(move || pool.run());
            state.threads += usize::from(spawned.is_ok());
            if spawned.is_err() && (state.threads == 0 || !is_garbage) {
                return Err(work);
            }
        }
        match is_garbage {
            true => state.garbage.push_back(work),
            false => state.work.push_back(work),
        }
        self.0.wake.notify_one();
        Ok(())
    }

    /// Threads that there are, those that wait for work included.
    pub fn count(&self) -> usize {
        self.0.lock().threads
    }

    /// Nothing starts any more; what had not started is dropped. Threads end with what they do.
    pub fn stop(&self) {
        let mut state = self.0.lock();
        state.stopped = true;
        self.0.wake.notify_all();
        let left = (std::mem::take(&mut state.work), std::mem::take(&mut state.garbage));
        drop(state);
        drop(left);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        lock(&self.state)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stopped {
            if let Some(work) = state.next() {
                drop(state);
                let is_garbage = work.is_garbage();
                let give_back = || match is_garbage {
                    true => self.lock().dropping = false,
                    false => self.lock().busy -= 1,
                };
                let has_waited = Cell::new(false);
                let waited = || {
                    has_waited.set(true);
                    give_back();
                };
                // Nothing of users panics through to here; should it, the thread and its place are not lost.
                if catch_unwind(AssertUnwindSafe(|| work.run(waited))).is_err() && !has_waited.get() {
                    give_back();
                }
                state = self.lock();
            } else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
        state.threads -= 1;
    }
}
