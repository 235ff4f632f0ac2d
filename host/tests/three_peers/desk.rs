//! What the hosts of a test run on: virtual time, and one queue of jobs, of which a seed says which goes on next.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use farref_host::{Driver, Work};

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same numbers for the same seed (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// Virtual time, in milliseconds.
pub struct Clock {
    start: Instant,
    now: AtomicU64,
    /// When each is to be woken, for as long as it is there.
    sleepers: Mutex<Vec<(u64, Weak<()>, Waker)>>,
}

impl Clock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), now: AtomicU64::new(0), sleepers: Mutex::default() })
    }

    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now())
    }

    /// The first millisecond in which that moment has come.
    pub fn of(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_nanos().div_ceil(1_000_000) as u64
    }

    pub fn advance(&self, to: u64) {
        self.now.fetch_max(to, Ordering::Relaxed);
        let mut sleepers = lock(&self.sleepers);
        let (due, left): (Vec<_>, Vec<_>) = std::mem::take(&mut *sleepers).into_iter().partition(|(at, ..)| *at <= to);
        *sleepers = left;
        drop(sleepers);
        due.into_iter().for_each(|(.., waker)| waker.wake());
    }

    pub fn next_sleeper(&self) -> Option<u64> {
        let mut sleepers = lock(&self.sleepers);
        sleepers.retain(|(_, sleeper, _)| sleeper.strong_count() > 0);
        sleepers.iter().map(|(at, ..)| *at).min()
    }

    pub fn sleep(self: &Arc<Self>, time: u64) -> impl Future<Output = ()> + Send + use<> {
        let (clock, end, sleeper) = (self.clone(), self.now() + time, Arc::new(()));
        std::future::poll_fn(move |cx| match clock.now() >= end {
            true => Poll::Ready(()),
            false => {
                lock(&clock.sleepers).push((end, Arc::downgrade(&sleeper), cx.waker().clone()));
                Poll::Pending
            }
        })
    }
}

pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whose job it is: it goes with a session, or with the program of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Session(u64),
    Program(usize),
}

struct Job {
    owner: Owner,
    what: What,
    woken: Arc<Woken>,
}

enum What {
    Task(Task),
    /// What is left over of a session.
    Drop(Work),
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All jobs of all hosts.
#[derive(Default)]
pub struct Jobs(Mutex<Vec<Job>>);

impl Jobs {
    pub fn spawn(&self, owner: Owner, task: Task) {
        self.add(owner, What::Task(task));
    }

    fn add(&self, owner: Owner, what: What) {
        lock(&self.0).push(Job { owner, what, woken: Arc::new(Woken(AtomicBool::new(true))) });
    }

    pub fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// Jobs that can go on.
    pub fn ready(&self) -> usize {
        lock(&self.0).iter().filter(|job| job.woken.0.load(Ordering::Relaxed)).count()
    }

    /// Goes on with the job of that number among those that can.
    pub fn run(&self, number: usize) {
        let mut job = {
            let mut jobs = lock(&self.0);
            let mut ready = (0..jobs.len()).filter(|&at| jobs[at].woken.0.load(Ordering::Relaxed));
            let Some(at) = ready.nth(number) else { return };
            jobs.remove(at)
        };
        job.woken.0.store(false, Ordering::Relaxed);
        match job.what {
            What::Drop(work) => drop(work),
            What::Task(mut task) => {
                let waker = job.woken.clone().into();
                if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    job.what = What::Task(task);
                    lock(&self.0).push(job);
                }
            }
        }
    }

    /// Jobs that end where they wait; what is left over is dropped all the same.
    pub fn end(&self, owner: Owner) {
        let ended: Vec<_> = {
            let mut jobs = lock(&self.0);
            let (ended, left) = std::mem::take(&mut *jobs).into_iter().partition(|job| job.owner == owner);
            *jobs = left;
            ended
        };
        drop(ended);
    }
}

/// The driver of one session.
pub struct Desk {
    pub id: u64,
    clock: Arc<Clock>,
    jobs: Arc<Jobs>,
    has_output: AtomicBool,
    has_ended: AtomicBool,
    look: Mutex<Option<Instant>>,
}

impl Desk {
    pub fn new(id: u64, clock: Arc<Clock>, jobs: Arc<Jobs>) -> Self {
        Self { id, clock, jobs, has_output: true.into(), has_ended: false.into(), look: Mutex::default() }
    }

    pub fn has_output(&self) -> bool {
        self.has_output.load(Ordering::Relaxed)
    }

    pub fn take_output(&self) {
        self.has_output.store(false, Ordering::Relaxed);
    }

    /// Whether the session has ended since this was last asked.
    pub fn take_ended(&self) -> bool {
        self.has_ended.swap(false, Ordering::Relaxed)
    }

    /// When the session wants to be told the time.
    pub fn look(&self) -> Option<u64> {
        lock(&self.look).map(|at| self.clock.of(at))
    }

    pub fn take_look(&self) -> Option<Instant> {
        lock(&self.look).take()
    }
}

impl Driver for Desk {
    fn output(&self) {
        self.has_output.store(true, Ordering::Relaxed);
    }

    fn now(&self) -> Instant {
        self.clock.instant()
    }

    fn wake_at(&self, at: Instant) {
        let mut look = lock(&self.look);
        *look = Some(look.map_or(at, |before| before.min(at)));
    }

    fn ended(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    fn run(&self, work: Work) -> Result<(), Work> {
        let what = match work.into_task() {
            Ok(task) => What::Task(task),
            // No object of these tests blocks.
            Err(work) => What::Drop(work),
        };
        self.jobs.add(Owner::Session(self.id), what);
        Ok(())
    }
}
