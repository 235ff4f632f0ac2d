//! Two programs in virtual time, and what one serves to the other.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod net;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use embassy_time::{Duration, Instant, MockDriver};
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use farref_core::Uuid;
use farref_core::dispatch::{Action, Arguments, Done, Member, Object, Objects, Reply, Root};
use farref_core::session::{Micro, Notice, ObjectKey};
use farref_embassy::{Config, Connection, Later, Peer, Remote, Service};

/// Small, so that tables get full.
pub type Small = Connection<Micro<8, 8, 4, 512, 320>, 8, 4, 48>;

/// There is one clock for all of a process.
static CLOCK: Mutex<()> = Mutex::new(());

/// Tasks, each woken by itself, and a clock that goes on when all of them wait.
pub struct Tasks<'t> {
    tasks: Vec<(Task<'t>, Arc<Flag>)>,
    _clock: MutexGuard<'static, ()>,
}

type Task<'t> = Pin<Box<dyn Future<Output = ()> + 't>>;

/// Set to poll the task again; the thread of the tasks may sleep.
struct Flag(AtomicBool, Thread);

impl Flag {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true), thread::current()))
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
        self.1.unpark();
    }
}

impl<'t> Tasks<'t> {
    pub fn new() -> Self {
        let clock = CLOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        MockDriver::get().reset();
        Self { tasks: Vec::new(), _clock: clock }
    }

    pub fn spawn(&mut self, task: impl Future<Output = ()> + 't) {
        self.tasks.push((Box::pin(task), Flag::new()));
    }

    /// Runs all until this one is done, and gives what it gives.
    pub fn run<R>(&mut self, main: impl Future<Output = R>) -> R {
        let limit = Instant::now() + Duration::from_secs(3_600);
        let mut turns = 0u64;
        self.run_with(main, &mut |is_idle| {
            turns += 1;
            assert!(turns < 20_000_000, "a livelock at {:?}", Instant::now());
            if is_idle {
                assert!(Instant::now() < limit, "nothing happens any more");
                MockDriver::get().advance(Duration::from_millis(1));
            }
        })
    }

    /// The same while the clock goes as others' do: with other threads on the far side.
    pub fn run_live<R>(&mut self, main: impl Future<Output = R>) -> R {
        let start = std::time::Instant::now();
        self.run_with(main, &mut |is_idle| {
            if is_idle {
                thread::park_timeout(std::time::Duration::from_millis(1));
            }
            let behind = (start.elapsed().as_millis() as u64).saturating_sub(Instant::now().as_millis());
            if behind > 0 {
                MockDriver::get().advance(Duration::from_millis(behind));
            }
        })
    }

    fn run_with<R>(&mut self, main: impl Future<Output = R>, turn: &mut dyn FnMut(bool)) -> R {
        let mut main = Box::pin(main);
        let main_flag = Flag::new();
        let waker = Waker::from(Arc::clone(&main_flag));
        loop {
            let mut is_idle = true;
            if main_flag.0.swap(false, Ordering::Relaxed) {
                is_idle = false;
                if let Poll::Ready(done) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return done;
                }
            }
            self.tasks.retain_mut(|(task, flag)| {
                if !flag.0.swap(false, Ordering::Relaxed) {
                    return true;
                }
                is_idle = false;
                let waker = Waker::from(Arc::clone(flag));
                task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
            });
            turn(is_idle);
        }
    }
}

/// Waits until something is true, for a minute of virtual time at most.
pub async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < limit, "{what} does not become true");
        embassy_time::Timer::after_millis(1).await;
    }
}

/// Numbers from a seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

/// What every device has: bytes that nobody has seen before.
pub fn random(bytes: &mut [u8]) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = Random::new(NEXT.fetch_add(1, Ordering::Relaxed));
    bytes.fill_with(|| random.below(256) as u8);
}

pub fn config(peer: u8) -> Config {
    Config::new(Uuid::from_bytes([peer; 16]), random)
}

/// One direction of a cable: a pipe of a few bytes, which can be cut.
#[derive(Clone, Default)]
pub struct Wire(Rc<RefCell<Buffered>>);

#[derive(Default)]
struct Buffered {
    bytes: VecDeque<u8>,
    is_cut: bool,
    /// After so many bytes more it is cut.
    left: Option<u64>,
    wakers: Vec<Waker>,
}

const CAPACITY: usize = 100;

impl Wire {
    /// From now on nothing comes through; whoever reads or writes is told.
    pub fn cut(&self) {
        let mut wire = self.0.borrow_mut();
        wire.is_cut = true;
        wire.wakers.drain(..).for_each(Waker::wake);
    }

    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    pub fn cut_after(&self, bytes: u64) {
        self.0.borrow_mut().left = Some(bytes);
    }

    /// Has somebody say something.
    pub fn put(&self, bytes: &[u8]) {
        let mut wire = self.0.borrow_mut();
        wire.bytes.extend(bytes);
        wire.wakers.drain(..).for_each(Waker::wake);
    }

    pub fn take(&self) -> Vec<u8> {
        let mut wire = self.0.borrow_mut();
        wire.wakers.drain(..).for_each(Waker::wake);
        wire.bytes.drain(..).collect()
    }
}

#[derive(Debug)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("cut")
    }
}

impl std::error::Error for Cut {}

impl embedded_io_async::Error for Cut {
    fn kind(&self) -> ErrorKind {
        ErrorKind::BrokenPipe
    }
}

impl ErrorType for Wire {
    type Error = Cut;
}

impl Read for Wire {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Cut> {
        poll_fn(|cx| {
            let mut wire = self.0.borrow_mut();
            if wire.bytes.is_empty() && !wire.is_cut {
                wire.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
            let count = wire.bytes.len().min(buffer.len());
            buffer[..count].iter_mut().zip(wire.bytes.drain(..count)).for_each(|(to, from)| *to = from);
            wire.wakers.drain(..).for_each(Waker::wake);
            Poll::Ready(Ok(count))
        })
        .await
    }
}

impl Write for Wire {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Cut> {
        poll_fn(|cx| {
            let mut wire = self.0.borrow_mut();
            if wire.is_cut {
                return Poll::Ready(Err(Cut));
            }
            if wire.bytes.len() >= CAPACITY {
                wire.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
            let count = bytes.len().min(CAPACITY - wire.bytes.len());
            let count = wire.left.map_or(count, |left| count.min(left as usize));
            wire.bytes.extend(&bytes[..count]);
            wire.left = wire.left.map(|left| left - count as u64);
            wire.is_cut = wire.left == Some(0);
            wire.wakers.drain(..).for_each(Waker::wake);
            match count {
                0 => Poll::Ready(Err(Cut)),
                count => Poll::Ready(Ok(count)),
            }
        })
        .await
    }

    async fn flush(&mut self) -> Result<(), Cut> {
        Ok(())
    }
}

/// What both programs serve: something that adds, one that calls back, one that keeps references, one that takes its time.
pub struct Board<'c> {
    peer: Peer<'c>,
    /// Called by whoever was asked to, and kept here.
    pub kept: RefCell<BTreeMap<i64, Remote<'c>>>,
    pub later: RefCell<Vec<Later<'c>>>,
    pub freed: Cell<u32>,
    pub interrupted: Cell<u32>,
    pub sessions: Cell<u32>,
    /// What it was called with.
    pub log: RefCell<Vec<i64>>,
}

impl<'c> Board<'c> {
    pub fn new(peer: Peer<'c>) -> Self {
        Self {
            peer,
            kept: RefCell::default(),
            later: RefCell::default(),
            freed: Cell::new(0),
            interrupted: Cell::new(0),
            sessions: Cell::new(0),
            log: RefCell::default(),
        }
    }
}

pub const ROOTS: &[Root] = &[
    Root { name: "log", key: ObjectKey(1), doc: "notes a number and gives it back: log(number)" },
    Root { name: "store", key: ObjectKey(2), doc: "keeps references" },
    Root { name: "later", key: ObjectKey(3), doc: "answers when it is told to" },
    Root { name: "make", key: ObjectKey(4), doc: "a new object, the same each time" },
];

/// The key of what `make` gives.
pub const MADE: ObjectKey = ObjectKey(5);

/// How a board is served.
pub struct Serving<'b, 'c> {
    board: &'b Board<'c>,
    asked: ObjectKey,
}

impl<'b, 'c> Serving<'b, 'c> {
    pub fn new(board: &'b Board<'c>) -> Self {
        Self { board, asked: ObjectKey::DIRECTORY }
    }
}

impl Objects for Serving<'_, '_> {
    fn object(&mut self, key: ObjectKey) -> Option<&mut dyn Object> {
        self.asked = key;
        Some(self)
    }
}

impl Service for Serving<'_, '_> {
    fn roots(&self) -> &'static [Root] {
        ROOTS
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Freed(MADE) => self.board.freed.set(self.board.freed.get() + 1),
            Notice::Interrupted(_) => self.board.interrupted.set(self.board.interrupted.get() + 1),
            _ => {}
        }
    }

    fn over(&mut self) {
        self.board.kept.borrow_mut().clear();
        self.board.later.borrow_mut().clear();
        self.board.sessions.set(self.board.sessions.get() + 1);
    }
}

impl Object for Serving<'_, '_> {
    fn members(&self) -> &'static [Member] {
        const STORE: &[Member] = &[
            Member::method("put", "keeps a reference: put(number, object)"),
            Member::method("get", "gives it back: get(number)"),
            Member::method("remove", "lets go of it: remove(number)"),
        ];
        if self.asked == ObjectKey(2) { STORE } else { &[] }
    }

    fn perform(&mut self, action: Action, args: &Arguments<'_>, mut reply: Reply<'_>) -> Done {
        let board = self.board;
        match (self.asked, action, args.int(0)) {
            (ObjectKey(1) | MADE, Action::Call, Some(number)) if number < 0 => reply.raise("ValueError", "below zero"),
            (ObjectKey(1) | MADE, Action::Call, Some(number)) => {
                board.log.borrow_mut().push(number);
                reply.int(number)
            }
            (ObjectKey(2), Action::Method(0), Some(number)) => match board.peer.keep(args, 1, &mut reply) {
                Some(object) => {
                    // What was there before is dropped while this object performs.
                    board.kept.borrow_mut().insert(number, object);
                    reply.none()
                }
                None => reply.bad_arguments("put(number, object), to be kept"),
            },
            (ObjectKey(2), Action::Method(1), Some(number)) => match board.kept.borrow().get(&number) {
                Some(object) => match object.reference(board.peer) {
                    Ok(object) => reply.reference(object),
                    Err(error) => reply.raise("ReferenceError", &error.to_string()),
                },
                None => reply.raise("KeyError", "nothing is kept there"),
            },
            (ObjectKey(2), Action::Method(2), Some(number)) => {
                board.kept.borrow_mut().remove(&number);
                reply.none()
            }
            (ObjectKey(3), Action::Call, None) => {
                let (later, done) = board.peer.later(reply);
                board.later.borrow_mut().push(later);
                done
            }
            (ObjectKey(4), Action::Call, None) => reply.reference(farref_core::session::Ref::Local(MADE)),
            _ => reply.unsupported(),
        }
    }
}
