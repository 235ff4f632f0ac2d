//! One place for a session, with all of its memory.
//!
//! What programs ask of it is in `commands`, what its driver asks in `carried`, and the results of calls are in `results`.

mod carried;
mod commands;
mod results;

use core::cell::{Cell, RefCell};
use core::task::{Context, Waker};

use embassy_sync::waitqueue::WakerRegistration;
use farref_core::session::{Import, Session, Storage};
use heapless::Vec;

use crate::config::Config;
use crate::drive::{now, wake_at};
use crate::peer::Peer;

pub(crate) use carried::{Carried, Mode};
pub(crate) use commands::{Commands, Status};
pub(crate) use results::Answered;
use results::Slot;

/// Holds one session after the other, in memory of its own: tables and output in the storage `S`, and results of calls of
/// ours.
///
/// `IMPORTS` is how many objects of the peer can be held, the directory included, and no more than `S` has room for. `CALLS`
/// of ours can wait for their result at a time, 32 at most, and each has room for a Return of `RESULT` bytes: a number or a
/// reference takes less than 16. All connections of a device are best of one type: then their code is in flash once.
///
/// It stays in one place, a `StaticCell` for instance, as long as anybody uses it; it is for one executor.
pub struct Connection<S: Storage, const IMPORTS: usize, const CALLS: usize, const RESULT: usize> {
    config: Place<Config>,
    inner: RefCell<Inner<S, CALLS, RESULT>>,
    driver: RefCell<WakerRegistration>,
    callers: RefCell<Waiting<CALLS>>,
    /// Which session it is: what belongs to an earlier one is stale.
    era: Cell<u32>,
    /// Which connection carries it: one that was before has nothing to say any more.
    turn: Cell<u32>,
    /// What objects did with references and calls while the session was theirs: so many more holds, and calls let go.
    held: RefCell<Vec<(Import, i16), IMPORTS>>,
    forgotten: Cell<u32>,
}

/// Where a [`Connection`] will be: for statics, nothing but zeros, which are never on the stack.
///
/// ```
/// use farref_embassy::{Config, DeviceConnection, DeviceMemory, Uuid};
/// use static_cell::ConstStaticCell;
///
/// static MEMORY: ConstStaticCell<DeviceMemory> = ConstStaticCell::new(DeviceMemory::new());
///
/// fn connection(random: fn(&mut [u8])) -> &'static DeviceConnection {
///     MEMORY.take().connection(Config::new(Uuid::from_u128(0x5EED), random))
/// }
/// # connection(|bytes| bytes.fill(4));
/// ```
pub struct Memory<S: Storage, const IMPORTS: usize, const CALLS: usize, const RESULT: usize>(
    Connection<S, IMPORTS, CALLS, RESULT>,
);

impl<S: Storage, const IMPORTS: usize, const CALLS: usize, const RESULT: usize> Memory<S, IMPORTS, CALLS, RESULT> {
    /// Empty.
    #[allow(clippy::new_without_default, reason = "it is for statics")]
    pub const fn new() -> Self {
        Self(Connection::empty())
    }

    /// A connection there, that takes part in sessions like this.
    pub fn connection(&mut self, config: Config) -> &Connection<S, IMPORTS, CALLS, RESULT> {
        self.0.config = Place::Made(config);
        &self.0
    }
}

struct Inner<S: Storage, const CALLS: usize, const RESULT: usize> {
    session: Session<S>,
    /// Until when it is kept without a connection.
    parked_until: Option<u64>,
    /// The service and the callers do not know yet that it is over, if it is.
    is_live: bool,
    slots: [Slot<RESULT>; CALLS],
}

/// Something that is not there before it is made. Then it is zeros, so that no image of it is kept in flash.
#[repr(u8)]
enum Place<T> {
    Empty = 0,
    Made(T),
}

impl<T> Place<T> {
    fn get(&self) -> Option<&T> {
        if let Self::Made(made) = self { Some(made) } else { None }
    }
}

impl<S: Storage, const IMPORTS: usize, const CALLS: usize, const RESULT: usize> Connection<S, IMPORTS, CALLS, RESULT> {
    /// Without a session, until it is driven. Where it is to be in a static, a [`Memory`] spares the stack.
    pub fn new(config: Config) -> Self {
        Self { config: Place::Made(config), ..Self::empty() }
    }

    const fn empty() -> Self {
        const { assert!(CALLS > 0 && CALLS <= 32, "1 to 32 calls") };
        Self {
            config: Place::Empty,
            inner: RefCell::new(Inner {
                session: Session::BLANK,
                parked_until: None,
                is_live: false,
                slots: [const { Slot::FREE }; CALLS],
            }),
            driver: RefCell::new(WakerRegistration::new()),
            callers: RefCell::new(Waiting(Vec::new())),
            era: Cell::new(0),
            turn: Cell::new(0),
            held: RefCell::new(Vec::new()),
            forgotten: Cell::new(0),
        }
    }

    /// Who is on the other side: to call it, and to keep references to its objects.
    pub fn peer(&self) -> Peer<'_> {
        // One table of functions is enough for both.
        let carried: &dyn Carried = self;
        Peer(carried)
    }

    fn config(&self) -> &Config {
        // A memory becomes a connection with one.
        self.config.get().unwrap_or(const { &Config::NONE })
    }

    /// None while an object is performing: the session is its own then, by way of its `Reply`.
    fn with<R>(&self, ask: impl FnOnce(&mut Inner<S, CALLS, RESULT>) -> R) -> Option<R> {
        self.inner.try_borrow_mut().ok().map(|mut inner| ask(&mut inner))
    }

    /// Something was commanded: the driver has output, and may have to look at the time.
    fn command<R>(&self, ask: impl FnOnce(&mut Inner<S, CALLS, RESULT>) -> R) -> Option<R> {
        self.with(|inner| {
            let done = ask(inner);
            self.wake_driver();
            done
        })
    }

    /// Does what could not be done while the session was an object's.
    fn sweep(&self, inner: &mut Inner<S, CALLS, RESULT>) {
        if let Ok(mut held) = self.held.try_borrow_mut() {
            held.iter().for_each(|&(import, change)| inner.hold(import, change));
            held.clear();
        }
        let forgotten = self.forgotten.take();
        (0..CALLS).filter(|slot| forgotten >> slot & 1 != 0).for_each(|slot| inner.forget(slot, self.era.get()));
    }

    // From many places.
    #[inline(never)]
    fn wake_driver(&self) {
        if let Ok(mut driver) = self.driver.try_borrow_mut() {
            driver.wake();
        }
    }

    fn wake_callers(&self) {
        if let Ok(mut callers) = self.callers.try_borrow_mut() {
            callers.wake();
        }
    }
}

/// Tasks that wait for something to happen in a session.
struct Waiting<const TASKS: usize>(Vec<Waker, TASKS>);

impl<const TASKS: usize> Waiting<TASKS> {
    fn register(&mut self, cx: &mut Context<'_>) {
        let is_known = self.0.iter().any(|known| known.will_wake(cx.waker()));
        if !is_known && self.0.push(cx.waker().clone()).is_err() {
            // One that finds no place here looks again, but does not keep the device awake.
            wake_at(Some(now().saturating_add(LOOK_AGAIN)), cx);
        }
    }

    fn wake(&mut self) {
        self.0.iter().for_each(Waker::wake_by_ref);
        self.0.clear();
    }
}

/// After so many milliseconds.
const LOOK_AGAIN: u64 = 20;
