//! One place for a session, with all of its memory, and what its driver and its callers ask of it.

use core::cell::{Cell, RefCell};
use core::task::{Context, Poll, Waker};

use embassy_sync::waitqueue::WakerRegistration;
use farref_core::Uuid;
use farref_core::dispatch::Dispatcher;
#[cfg(feature = "serial")]
use farref_core::link::serial::SerialLink;
use farref_core::message::{CloseCode, DownReason, ErrorCode, FinishMode, Handles, Hello, Limits, Message, Resume};
use farref_core::session::{
    self, Answer, Call, CallError, Ended, Event, Import, LinkMode, Notice, ObjectKey, Question, Ref, Reference,
    ReplyError, Return, Session, Storage, Tables,
};
use farref_core::value::{Top, Values};
use heapless::Vec;

use crate::drive::{now, wake_at};
use crate::log::info;
use crate::peer::{Error, Peer, Write};
use crate::service::Service;

/// How a device takes part in sessions. One for all its connections: it names the device, and this start of it.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Names the device.
    pub peer: Uuid,
    /// Differs from one start of the device to the next.
    pub incarnation: u64,
    /// For how long silence of the peer is borne, milliseconds, 0 for ever. None is without keepalive, for the peer too.
    pub patience: Option<u32>,
    /// For how long a session is kept without a connection, milliseconds. None ends it with its connection.
    pub park: Option<u32>,
    /// How long a peer may take to say Hello, milliseconds.
    pub opening: u32,
    /// References in one message that are taken.
    pub handles: u16,
    /// Bytes of calls that are taken while they wait for others. What the storage has beyond that is for values that are kept.
    pub call_bytes: u32,
    /// Nesting levels of calls that are served.
    pub levels: u16,
    /// Fills a buffer with random bytes. Whoever can guess them can take over a session that is parked.
    pub random: fn(&mut [u8]),
}

impl Config {
    const NONE: Self = Self {
        peer: Uuid::nil(),
        incarnation: 0,
        patience: Some(60_000),
        park: Some(600_000),
        opening: 10_000,
        handles: 8,
        call_bytes: u32::MAX,
        levels: 4,
        random: |_| {},
    };

    /// A minute of silence and ten minutes without a connection are borne. The incarnation is drawn now.
    pub fn new(peer: Uuid, random: fn(&mut [u8])) -> Self {
        let mut incarnation = [0; 8];
        random(&mut incarnation);
        Self { peer, incarnation: u64::from_le_bytes(incarnation), random, ..Self::NONE }
    }
}

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

/// A call of ours, from the command until whoever made it has let go of its result.
struct Slot<const RESULT: usize> {
    state: State,
    era: u32,
    body: [u8; RESULT],
}

/// As it is at first, it is zeros.
#[derive(Clone, Copy)]
#[repr(u8)]
enum State {
    Free = 0,
    Open(Question),
    /// So many bytes of a Return.
    Returned(usize),
    Failed(Error),
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

/// What stands in a result: one value if the call was done, or what comes with the error.
pub(crate) struct Answered<'r> {
    pub error: Option<ErrorCode>,
    pub handles: Handles<'r>,
    pub values: Values<'r>,
}

/// How a session is begun.
#[derive(Clone, Copy)]
pub(crate) enum Mode {
    Stream,
    #[cfg(feature = "serial")]
    Line,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Live,
    Parked,
    Over(Ended),
}

/// A connection of whatever capacities.
pub(crate) trait Shared {
    fn config(&self) -> Config;
    fn era(&self) -> u32;
    fn status(&self) -> Status;
    fn hello(&self) -> Option<Hello>;
    fn is_up(&self) -> bool;
    fn tables(&self) -> Tables;
    fn wait(&self, cx: &mut Context<'_>);

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
    fn read(&self, slot: usize, read: &mut dyn FnMut(&Answered<'_>));
    fn resolve(&self, slot: usize, index: u32) -> Option<Reference>;
    fn forget(&self, slot: usize);
    fn hold(&self, import: Import, era: u32, change: i16);
    fn down(&self, import: Import) -> Option<DownReason>;
    fn revoke(&self, key: ObjectKey, reason: DownReason) -> Result<(), Error>;
    fn end(&self, code: Option<CloseCode>);
    fn is_serving(&self) -> bool;

    fn turn(&self) -> u32;
    fn next_turn(&self) -> u32;
    fn begin(&self, mode: Mode, max_message: u32, service: &mut dyn Service);
    fn give_up(&self, ended: Ended, service: &mut dyn Service);
    fn park(&self, now: u64, service: &mut dyn Service);
    fn resume(&self);
    fn accept(&self, resume: &Resume, service: &mut dyn Service) -> bool;
    fn token(&self) -> Option<[u8; 16]>;
    fn handle(&self, body: &[u8], service: &mut dyn Service);
    fn settle(&self, scratch: Option<&mut [u8]>, service: &mut dyn Service);
    fn parked_until(&self) -> Option<u64>;
    fn transmit(&self, chunk: &mut [u8]) -> usize;
    fn register(&self, waker: &Waker);
    fn timeout(&self) -> Option<u64>;
    fn advance(&self, now: u64);

    #[cfg(feature = "serial")]
    fn has_output(&self) -> bool;
    #[cfg(feature = "serial")]
    fn line_receive(&self, link: &mut SerialLink, now: u64, payload: &[u8], service: &mut dyn Service);
    #[cfg(feature = "serial")]
    fn line_transmit(&self, link: &mut SerialLink, now: u64, line: &mut [u8]) -> usize;
    #[cfg(feature = "serial")]
    fn line_advance(&self, link: &mut SerialLink, now: u64);
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
                slots: [const { Slot { state: State::Free, era: 0, body: [0; RESULT] } }; CALLS],
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
        Peer(self)
    }

    fn config(&self) -> Config {
        // A memory becomes a connection with one.
        self.config.get().copied().unwrap_or(Config::NONE)
    }

    /// None while an object is performing: the session is its own then, by way of its `Reply`.
    fn with<R>(&self, ask: impl FnOnce(&mut Inner<S, CALLS, RESULT>) -> R) -> Option<R> {
        self.inner.try_borrow_mut().ok().map(|mut inner| ask(&mut inner))
    }

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

    /// Calls that were waiting, if there is room for one, what became true, and the end, if there is one.
    fn settle(&self, inner: &mut Inner<S, CALLS, RESULT>, scratch: Option<&mut [u8]>, service: &mut dyn Service) {
        self.sweep(inner);
        if let Some(scratch) = scratch {
            while let Some(request) = inner.session.poll_ready(scratch) {
                Dispatcher::new(service.roots()).dispatch(&mut inner.session, &request, service);
                self.sweep(inner);
            }
        }
        while let Some(notice) = inner.session.poll_notice() {
            if let Notice::DeadlineExceeded(question) = notice
                && !inner.session.is_awaited(question)
            {
                inner.fail(question, Error::DeadlineExceeded);
                self.wake_callers();
            }
            service.notice(notice);
            self.sweep(inner);
        }
        let Some(ended) = inner.session.ended().filter(|_| inner.is_live) else { return };
        info!("session over: {}", ended);
        inner.is_live = false;
        inner.parked_until = None;
        for slot in &mut inner.slots {
            if let State::Open(question) = slot.state {
                let may_have_started = inner.session.may_have_started(question);
                slot.state = State::Failed(Error::Ended { ended, may_have_started });
            }
        }
        self.wake_callers();
        service.over();
        self.sweep(inner);
    }

    fn on_event(
        &self,
        inner: &mut Inner<S, CALLS, RESULT>,
        event: Option<Event<'_>>,
        body: &[u8],
        service: &mut dyn Service,
    ) {
        match event {
            Some(Event::Request(request)) => {
                Dispatcher::new(service.roots()).dispatch(&mut inner.session, &request, service);
            }
            Some(Event::Return(returned)) => inner.on_return(&returned, body, service),
            Some(Event::Ready) => {
                let is_own =
                    |hello: &Hello| (hello.peer, hello.incarnation) == (self.config().peer, self.config().incarnation);
                if inner.session.peer().is_some_and(is_own) {
                    // Our own Hello: the stream gives back what is written into it (HEL-5).
                    inner.session.close(CloseCode::ProtocolFault);
                } else {
                    info!("session begins");
                }
            }
            None => {}
        }
        // A Return frees an id, a Release an entry, an Ack room.
        self.wake_callers();
    }
}

/// What a session is set up with: as much as its storage has room for.
fn settings(config: &Config, link: LinkMode, max_message: u32, imports: usize) -> session::Config {
    session::Config {
        limits: Limits {
            max_message,
            imports: u32::try_from(imports).unwrap_or(Limits::MAX_IMPORTS),
            answers: u16::MAX,
            call_bytes: config.call_bytes,
            handles: config.handles,
            levels: config.levels,
        },
        exports: Limits::MAX_IMPORTS,
        calls: u16::MAX,
        out_bytes: usize::MAX,
        store_bytes: usize::MAX,
        peer: config.peer,
        incarnation: config.incarnation,
        link,
        patience: config.patience,
    }
}

impl<S: Storage, const CALLS: usize, const RESULT: usize> Inner<S, CALLS, RESULT> {
    /// The result goes to whoever waits for it; its references are held until they have let go of it.
    fn on_return(&mut self, returned: &Return<'_>, body: &[u8], service: &mut dyn Service) {
        let waits = |slot: &&mut Slot<RESULT>| matches!(slot.state, State::Open(open) if open == returned.question);
        let Some(slot) = self.slots.iter_mut().find(waits) else {
            service.returned(returned);
            return release_all(&mut self.session, returned.handles);
        };
        let error = read_answer(body).and_then(|answered| answered.error);
        let failed = match (slot.body.get_mut(..body.len()), returned.outcome) {
            // What the session has found wrong with it does not stand there (CAL-5, REF-5).
            (_, Err(code)) if error != Some(code) => Error::Failed(code),
            (Some(kept), ..) => {
                kept.copy_from_slice(body);
                slot.state = State::Returned(body.len());
                return;
            }
            (None, ..) => Error::TooLong(body.len()),
        };
        slot.state = State::Failed(failed);
        release_all(&mut self.session, returned.handles);
    }

    /// So many more holders, or fewer.
    fn hold(&mut self, import: Import, change: i16) {
        for _ in 0..change.unsigned_abs() {
            // Of one that the peer has withdrawn there is nothing to hold.
            let _ = if change > 0 { self.session.retain(import) } else { self.session.release(import) };
        }
    }

    fn fail(&mut self, question: Question, error: Error) {
        for slot in &mut self.slots {
            if matches!(slot.state, State::Open(open) if open == question) {
                slot.state = State::Failed(error);
            }
        }
    }

    /// Nobody wants that result any more.
    fn forget(&mut self, place: usize, era: u32) {
        let Some(slot) = self.slots.get_mut(place) else { return };
        let state = core::mem::replace(&mut slot.state, State::Free);
        if slot.era == era {
            match state {
                // It is asked to stop, and nobody is told.
                State::Open(question) => {
                    let _ = self.session.cancel(question, FinishMode::Interrupt);
                    let _ = self.session.cancel(question, FinishMode::Abandon);
                }
                State::Returned(length) => {
                    if let Some(answered) = slot.body.get(..length).and_then(read_answer) {
                        release_all(&mut self.session, answered.handles);
                    }
                }
                State::Free | State::Failed(_) => {}
            }
        }
    }
}

fn release_all<S: Storage>(session: &mut Session<S>, handles: Handles<'_>) {
    for handle in handles {
        if let Some(Reference::Import(import) | Reference::Weak(import)) = session.resolve(handle) {
            let _ = session.release(import);
        }
    }
}

/// Reads a Return that the session has checked.
fn read_answer(body: &[u8]) -> Option<Answered<'_>> {
    let Ok(Message::Return(returned)) = Message::read(body) else { return None };
    let top = if returned.error.is_some() { Top::Error } else { Top::Result };
    let values = Values::check(returned.values, top, returned.handles.len()).ok()?;
    Some(Answered { error: returned.error, handles: returned.handles, values })
}

impl<S: Storage, const IMPORTS: usize, const CALLS: usize, const RESULT: usize> Shared
    for Connection<S, IMPORTS, CALLS, RESULT>
{
    fn config(&self) -> Config {
        Connection::config(self)
    }

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

    fn is_up(&self) -> bool {
        self.with(|inner| inner.session.peer().is_some() && inner.session.is_up()) != Some(false)
    }

    fn tables(&self) -> Tables {
        self.with(|inner| inner.session.tables()).unwrap_or_default()
    }

    fn wait(&self, cx: &mut Context<'_>) {
        if let Ok(mut callers) = self.callers.try_borrow_mut() {
            callers.register(cx);
        }
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

    fn end(&self, code: Option<CloseCode>) {
        self.command(|inner| match code {
            Some(code) => inner.session.close(code),
            None => inner.session.shutdown(),
        });
    }

    fn is_serving(&self) -> bool {
        self.inner.try_borrow_mut().is_err()
    }

    fn turn(&self) -> u32 {
        self.turn.get()
    }

    fn next_turn(&self) -> u32 {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.wake_driver();
        self.turn.get()
    }

    fn begin(&self, mode: Mode, max_message: u32, service: &mut dyn Service) {
        self.give_up(Ended::LinkLost, service);
        let config = self.config();
        let link = match (mode, config.park) {
            (Mode::Stream, Some(park)) => {
                let mut token = [0; 16];
                (config.random)(&mut token);
                LinkMode::Resume { token, park }
            }
            (Mode::Stream, None) => LinkMode::Off,
            #[cfg(feature = "serial")]
            (Mode::Line, _) => LinkMode::Line,
        };
        let Ok(mut inner) = self.inner.try_borrow_mut() else { return };
        inner.session.begin(&settings(&config, link, max_message, IMPORTS));
        (inner.is_live, inner.parked_until) = (true, None);
        self.era.set(self.era.get().wrapping_add(1));
        self.wake_callers();
    }

    fn give_up(&self, ended: Ended, service: &mut dyn Service) {
        self.with(|inner| {
            match ended {
                Ended::PeerRestarted => inner.session.peer_restarted(),
                Ended::Closed(code) => inner.session.close(code),
                _ => inner.session.link_lost(),
            }
            self.settle(inner, None, service);
        });
    }

    fn park(&self, now: u64, service: &mut dyn Service) {
        self.with(|inner| {
            if inner.session.ended().is_none() && inner.session.park() {
                let park = u64::from(self.config().park.unwrap_or(0));
                inner.parked_until = Some(now.saturating_add(park));
                info!("connection lost, session parked");
            }
            self.settle(inner, None, service);
        });
    }

    fn resume(&self) {
        self.with(|inner| {
            inner.parked_until = None;
            inner.session.resume();
        });
    }

    fn accept(&self, resume: &Resume, service: &mut dyn Service) -> bool {
        let accepted = self.with(|inner| {
            let accepted = inner.session.accept(resume).is_ok();
            if accepted {
                info!("session resumed");
                inner.parked_until = None;
                self.wake_callers();
            }
            self.settle(inner, None, service);
            accepted
        });
        accepted.unwrap_or(false)
    }

    fn token(&self) -> Option<[u8; 16]> {
        self.with(|inner| inner.session.token().filter(|_| inner.session.ended().is_none())).flatten()
    }

    fn handle(&self, body: &[u8], service: &mut dyn Service) {
        self.with(|inner| {
            let event = inner.session.handle(body).ok().flatten();
            self.on_event(inner, event, body, service);
            self.sweep(inner);
        });
    }

    fn parked_until(&self) -> Option<u64> {
        self.with(|inner| inner.parked_until).flatten()
    }

    fn settle(&self, scratch: Option<&mut [u8]>, service: &mut dyn Service) {
        self.with(|inner| self.settle(inner, scratch, service));
    }

    fn transmit(&self, chunk: &mut [u8]) -> usize {
        let transmitted = self.with(|inner| {
            let count = inner.session.poll_transmit(chunk);
            if count > 0 {
                self.wake_callers();
            }
            count
        });
        transmitted.unwrap_or(0)
    }

    fn register(&self, waker: &Waker) {
        if let Ok(mut driver) = self.driver.try_borrow_mut() {
            driver.register(waker);
        }
    }

    fn timeout(&self) -> Option<u64> {
        self.with(|inner| inner.session.poll_timeout().into_iter().chain(inner.parked_until).min()).flatten()
    }

    fn advance(&self, now: u64) {
        self.with(|inner| {
            inner.session.advance(now);
            if inner.parked_until.is_some_and(|until| until <= now) {
                inner.parked_until = None;
                inner.session.link_lost();
            }
        });
    }

    #[cfg(feature = "serial")]
    fn has_output(&self) -> bool {
        self.with(|inner| inner.session.has_output()) == Some(true)
    }

    #[cfg(feature = "serial")]
    fn line_receive(&self, link: &mut SerialLink, now: u64, payload: &[u8], service: &mut dyn Service) {
        self.with(|inner| {
            if let Ok(Some(body)) = link.receive(now, payload, &mut inner.session) {
                let event = inner.session.handle(body).ok().flatten();
                self.on_event(inner, event, body, service);
                self.sweep(inner);
            }
            // An acknowledgement makes room.
            self.wake_callers();
        });
    }

    #[cfg(feature = "serial")]
    fn line_transmit(&self, link: &mut SerialLink, now: u64, line: &mut [u8]) -> usize {
        let transmitted = self.with(|inner| {
            let length = link.transmit(now, &mut inner.session, line).unwrap_or(0);
            if length > 0 {
                self.wake_callers();
            }
            length
        });
        transmitted.unwrap_or(0)
    }

    #[cfg(feature = "serial")]
    fn line_advance(&self, link: &mut SerialLink, now: u64) {
        // An error is the end of the session, which is seen there.
        let _ = self.with(|inner| link.advance(now, &mut inner.session));
    }
}
