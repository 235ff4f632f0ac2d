//! Calls to the peer: their arguments written, their outcome read, and whoever waits for it.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use event_listener::{EventListener, Listener};
use farref_core::message::{ErrorCode, Op};
use farref_core::session::{Call, CallError, Callee, Ended, Question};
use farref_core::value::{ValueError, ValueWriter};

use crate::args::Args;
use crate::core::Core;
use crate::current::{Parent, Within, may_wait, now, pass, time_left};
use crate::error::Error;
use crate::many::OneOfMany;
use crate::pool::Garbage;
use crate::proxy::{Promise, ProxyInner};
use crate::shared::{Dropped, Lack, Shared, lock};
use crate::time::Deadline;
use crate::value::{Reference, Value};

/// What is known of one call: nothing yet, or its outcome.
pub(crate) struct CallState(Mutex<State>);

struct State {
    is_settled: bool,
    /// Its deadline has passed.
    is_late: bool,
    /// There once it is settled, until it is taken.
    outcome: Option<Result<Value, Error>>,
    /// The virtual time of the outcome, once it is there.
    settled_at: u64,
    /// The virtual time at which the call was sent, and at which the last nested call within it was answered.
    sent: u64,
    nested: u64,
    needs: Needs,
    within: Option<Within>,
    waiting: Vec<Waker>,
}

/// What a call builds on.
#[derive(Default)]
pub(crate) struct Needs {
    /// The calls whose answers it named: if it is broken, the reason is theirs. They are not given up meanwhile.
    named: Vec<Arc<OpenCall>>,
    /// The virtual time at which the last of the answers came that were there already. Without computing time, these would
    /// have been named, too.
    settled_at: u64,
}

/// A call that somebody may still wait for. When nobody does, it is cancelled (FIN-1).
pub(crate) struct OpenCall {
    pub shared: Arc<Shared>,
    /// None if it was never made, since what it was for was known.
    pub question: Option<Question>,
    pub state: Arc<CallState>,
}

impl OpenCall {
    /// One whose outcome is known from the start, or, in virtual time, from `at` on.
    pub fn settled(shared: Arc<Shared>, result: Result<Value, Error>, at: u64) -> Self {
        let state = CallState::new(Needs::default(), &shared);
        {
            let mut state = lock(&state.0);
            state.outcome = Some(result.map_err(Error::seen_by_caller));
            (state.is_settled, state.settled_at) = (true, at);
        }
        Self { shared, question: None, state: Arc::new(state) }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if let Some(question) = self.question.filter(|_| !self.state.is_settled()) {
            self.shared.note_dropped(Dropped::Call(question));
        }
    }
}

/// Who is told the outcome of a call.
pub(crate) enum Caller {
    One(Arc<CallState>),
    /// One of many that were made at once.
    Of(OneOfMany),
}

impl Caller {
    /// Its Return came, or never will.
    pub fn settle(self, result: Result<Value, Error>, core: &mut Core) {
        match self {
            Self::One(state) => {
                // The calls whose answers it named are not needed any more, and are not to be dropped under a lock.
                let named = state.settle(result, &mut core.wakes);
                if !named.is_empty() {
                    core.garbage.push(Garbage::named(named));
                }
                core.garbage.extend(Garbage::last_of(state));
            }
            Self::Of(one) => core.settle_one(one, result),
        }
    }

    /// If nobody else has it, it is dropped later.
    pub fn into_garbage(self) -> Option<Garbage> {
        match self {
            Self::One(state) => Garbage::last_of(state),
            Self::Of(..) => None,
        }
    }

    /// What a call of the peer that this one caused belongs to.
    pub fn cause(&self) -> Option<Arc<CallState>> {
        match self {
            Self::One(state) => Some(state.clone()),
            Self::Of(..) => None,
        }
    }
}

thread_local! {
    /// Wakes this thread.
    static THIS_THREAD: Waker = Arc::new(ThisThread(thread::current())).into();
}

struct ThisThread(Thread);

impl Wake for ThisThread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits, blocking, for a future.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    with_this_thread(|cx| {
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return output;
            }
            thread::park();
        }
    })
}

/// What a future gives at once, if it does.
pub(crate) fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Does something with a context that unparks this thread.
pub(crate) fn with_this_thread<T>(work: impl FnOnce(&mut Context<'_>) -> T) -> T {
    THIS_THREAD.with(|waker| work(&mut Context::from_waker(waker)))
}

impl State {
    /// The time at which what the peer sends because of this call arrives.
    fn arrival(&self) -> u64 {
        self.sent.max(self.nested) + 1
    }
}

impl CallState {
    fn new(needs: Needs, shared: &Arc<Shared>) -> Self {
        let (sent, within) = (now(), Within::this(shared));
        let waiting = Vec::new();
        Self(Mutex::new(State {
            is_settled: false,
            is_late: false,
            outcome: None,
            settled_at: 0,
            sent,
            nested: 0,
            needs,
            within,
            waiting,
        }))
    }

    /// Its Return came, or never will. Gives back the calls whose answers it named.
    fn settle(&self, result: Result<Value, Error>, wakes: &mut Vec<Waker>) -> Vec<Arc<OpenCall>> {
        let mut state = lock(&self.0);
        let Needs { named, settled_at } = std::mem::take(&mut state.needs);
        let result = match result {
            // The error of the answer that broke this call came first, since the break came of it (ANS-3).
            Err(Error::Refused(ErrorCode::Broken, values)) => {
                let cause = named.iter().find_map(|named| named.state.result()?.err());
                Err(cause.unwrap_or(Error::Refused(ErrorCode::Broken, values)))
            }
            result => result,
        };
        if !state.is_settled {
            let waited_for = named.iter().filter_map(|named| named.state.settled_at()).max().unwrap_or(0);
            state.settled_at = state.arrival().max(waited_for).max(settled_at);
            (state.is_settled, state.outcome) = (true, Some(result));
            wakes.append(&mut state.waiting);
        }
        named
    }

    /// The virtual time at which what the peer sends because of this call arrives.
    pub fn arrival(&self) -> u64 {
        lock(&self.0).arrival()
    }

    /// A call within it was answered at that virtual time.
    pub fn note_nested(&self, at: u64) {
        let mut state = lock(&self.0);
        state.nested = state.nested.max(at);
    }

    /// Within which call of a peer it was made.
    pub fn within(&self) -> Option<Within> {
        lock(&self.0).within.clone()
    }

    fn settled_at(&self) -> Option<u64> {
        let state = lock(&self.0);
        state.is_settled.then_some(state.settled_at)
    }

    /// The outcome, if it is known.
    pub fn result(&self) -> Option<Result<Value, Error>> {
        lock(&self.0).outcome.clone()
    }

    /// The outcome and its virtual time, if it is known.
    pub fn outcome(&self) -> Option<(Result<Value, Error>, u64)> {
        let state = lock(&self.0);
        state.outcome.clone().map(|outcome| (outcome, state.settled_at))
    }

    /// Whether its outcome is known and a value for which this is so.
    pub fn any_outcome(&self, is_so: impl Fn(&Value) -> bool) -> bool {
        match &lock(&self.0).outcome {
            Some(Ok(value)) => is_so(value),
            Some(Err(Error::Raised(exception))) => exception.args.iter().any(is_so),
            Some(Err(Error::Refused(_, values) | Error::Refuse(_, values))) => values.iter().any(is_so),
            Some(Err(_)) | None => false,
        }
    }

    pub fn is_settled(&self) -> bool {
        lock(&self.0).is_settled
    }

    pub fn is_late(&self) -> bool {
        lock(&self.0).is_late
    }

    pub fn be_late(&self) {
        lock(&self.0).is_late = true;
    }

    /// The outcome, as `take` takes it, or a call of the waker when it is there.
    pub fn poll(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Option<Result<Value, Error>>) -> Option<Result<Value, Error>>,
    ) -> Poll<Result<Value, Error>> {
        let mut state = lock(&self.0);
        match take(&mut state.outcome) {
            Some(result) => {
                let at = state.settled_at;
                drop(state);
                pass(at);
                Poll::Ready(result)
            }
            None => {
                if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    state.waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

/// What a call is for.
#[derive(Clone, Copy)]
pub(crate) enum Target<'t> {
    Proxy(&'t Arc<ProxyInner>),
    Promise(&'t Arc<OpenCall>),
}

/// A call to be made.
pub(crate) struct Plan<'p> {
    pub target: Target<'p>,
    pub op: Op,
    /// The first argument, where it is a name.
    pub name: Option<&'p str>,
    pub args: Args,
    pub pipelined: bool,
    pub deadline: Option<Deadline>,
    /// The virtual time from which on the target is known.
    pub settled_at: u64,
}

impl Plan<'_> {
    fn shared(&self) -> &Arc<Shared> {
        match self.target {
            Target::Proxy(proxy) => proxy.shared(),
            Target::Promise(call) => &call.shared,
        }
    }

    /// Makes the call. Outside any handler it waits for credit; within one it does not (ADM-2).
    pub fn start(mut self) -> Result<OpenCall, Error> {
        let mut told = WasTold::new(self.shared());
        loop {
            match self.try_start(true) {
                Ok(call) => return Ok(told.used(call)),
                Err(NotStarted::Error(error)) => return Err(error),
                Err(NotStarted::Wait(listener)) => {
                    told.used(());
                    may_wait()?;
                    listener.wait();
                    told.is_told = true;
                }
            }
        }
    }

    /// As [`Self::start`], for tasks.
    pub async fn begin(mut self) -> Result<OpenCall, Error> {
        let mut told = WasTold::new(self.shared());
        loop {
            match self.try_start(false) {
                Ok(call) => return Ok(told.used(call)),
                Err(NotStarted::Error(error)) => return Err(error),
                Err(NotStarted::Wait(listener)) => {
                    told.used(());
                    listener.await;
                    told.is_told = true;
                }
            }
        }
    }

    fn try_start(&mut self, may_wait: bool) -> Result<OpenCall, NotStarted> {
        let shared = self.shared().clone();
        let (left, parent) = (time_left(&shared), Parent::over(&shared));
        let mut core = shared.lock();
        // Promises settle under the lock, so that what is replaced here stays replaced.
        let mut needs = Needs { named: Vec::new(), settled_at: self.settled_at };
        let callee = match self.target {
            Target::Proxy(proxy) => Callee::Import(proxy.import()),
            Target::Promise(call) => match call.question {
                Some(question) if !call.state.is_settled() => {
                    needs.named.push(call.clone());
                    Callee::Promise(question)
                }
                _ => return Err(NotStarted::Error(Error::NotMade(CallError::NotAPromise))),
            },
        };
        let call = Call {
            callee,
            op: self.op,
            references: &[],
            pipelined: self.pipelined,
            parent: parent.and_then(|parent| parent.answer(&core)),
            // The sooner of the two, with what is to become of it (TIM-2).
            deadline: self.deadline.map(Deadline::on_the_wire).into_iter().chain(left).min_by_key(|one| one.remaining),
        };
        let question = core.make_call(&shared, call, self.name, &mut self.args, &mut needs)?;
        let state = Arc::new(CallState::new(needs, &shared));
        core.add_call(question, Caller::One(state.clone()));
        match may_wait {
            true => shared.unlock_and_flush(core),
            false => shared.unlock(core),
        }
        Ok(OpenCall { shared, question: Some(question), state })
    }
}

/// Who was told that there is credit and does not use it tells the next.
pub(crate) struct WasTold {
    shared: Arc<Shared>,
    pub is_told: bool,
}

impl WasTold {
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), is_told: false }
    }

    /// A call was made with it, or has to wait again.
    pub fn used<T>(&mut self, call: T) -> T {
        self.is_told = false;
        call
    }
}

impl Drop for WasTold {
    fn drop(&mut self) {
        if self.is_told {
            self.shared.pass_on();
        }
    }
}

pub(crate) enum NotStarted {
    Error(Error),
    Wait(EventListener),
}

impl From<Error> for NotStarted {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Core {
    pub fn make_call(
        &mut self,
        shared: &Arc<Shared>,
        mut call: Call<'_>,
        name: Option<&str>,
        args: &mut Args,
        needs: &mut Needs,
    ) -> Result<Question, NotStarted> {
        if self.is_over() {
            return Err(Error::NeverStarted(self.session.ended().unwrap_or(Ended::LinkLost)).into());
        }
        if call.parent.is_none() {
            call.deadline = call.deadline.or(self.deadline);
        } else if self.session.has_deadlines() {
            // It has what is left of its parent's.
            self.advance(shared);
        }
        args.values_mut().try_for_each(|value| replace_promises(value, shared, needs))?;
        let mut references = Vec::new();
        let found = args.values().try_for_each(|value| self.references(shared, value, &mut references));
        if let Err(error) = found {
            self.drop_unexported(&references);
            return Err(error.into());
        }
        let made = self.session.call(call.references(&references), |writer| write_args(writer, name, args));
        made.map_err(|error| {
            self.drop_unexported(&references);
            match error {
                CallError::NoRoom => {
                    // The peer may have to be asked what it has got (LNK-3).
                    shared.driver.output();
                    NotStarted::Wait(shared.listen(Lack::Room))
                }
                CallError::Overloaded if call.parent.is_none() => NotStarted::Wait(shared.listen(Lack::Credit)),
                CallError::Ended(ended) => Error::NeverStarted(ended).into(),
                CallError::DeadlineExceeded => Error::DeadlineExceeded.into(),
                error => Error::NotMade(error).into(),
            }
        })
    }
}

/// Replaces each settled promise by what it settled to, and notes those that have not settled.
fn replace_promises(value: &mut Value, shared: &Arc<Shared>, needs: &mut Needs) -> Result<(), Error> {
    each_promise(value, &mut |promise| match promise.0.state.outcome() {
        Some((result, at)) => {
            needs.settled_at = needs.settled_at.max(at);
            result.map(Some)
        }
        None if !Arc::ptr_eq(&promise.0.shared, shared) => {
            Err(Error::Misplaced("a promise of another connection must be waited for first"))
        }
        None => {
            needs.named.push(promise.0.clone());
            Ok(None)
        }
    })
}

/// Puts what each promise settles to in its place: for what is done here, without a message.
pub(crate) async fn wait_for_promises(args: &mut Args) -> Result<(), Error> {
    let mut promises = Vec::new();
    args.values_mut().try_for_each(|value| {
        each_promise(value, &mut |promise| {
            promises.push(promise.clone());
            Ok(None)
        })
    })?;
    for promise in promises {
        let settled = promise.settled().await?;
        args.values_mut().try_for_each(|value| {
            each_promise(value, &mut |other| Ok(Arc::ptr_eq(&other.0, &promise.0).then(|| settled.clone())))
        })?;
    }
    Ok(())
}

/// Replaces those promises for which there is something else.
fn each_promise(
    value: &mut Value,
    replace: &mut impl FnMut(&Promise) -> Result<Option<Value>, Error>,
) -> Result<(), Error> {
    match value {
        Value::Reference(Reference::Promise(promise)) => {
            if let Some(other) = replace(promise)? {
                *value = other;
            }
        }
        Value::Tuple(items) | Value::List(items) | Value::Set(items) => {
            items.iter_mut().try_for_each(|item| each_promise(item, replace))?;
        }
        Value::Map(entries) => entries.iter_mut().try_for_each(|(key, value)| {
            each_promise(key, replace)?;
            each_promise(value, replace)
        })?,
        Value::Exception(exception) => {
            exception.args.iter_mut().try_for_each(|item| each_promise(item, replace))?;
        }
        _ => {}
    }
    Ok(())
}

fn write_args(writer: &mut ValueWriter<'_>, name: Option<&str>, args: &Args) -> Result<(), ValueError> {
    let mut next = 0;
    if let Some(name) = name {
        writer.str(name)?;
    }
    args.positional.iter().try_for_each(|value| value.write(writer, &mut next))?;
    args.named.iter().try_for_each(|(name, value)| {
        writer.named(name)?;
        value.write(writer, &mut next)
    })
}
