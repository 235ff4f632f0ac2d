//! Serving the peer's calls: the table of local objects, and the threads that run them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use farref_core::message::{ErrorCode, Op};
use farref_core::session::{Answer, CallError, ObjectKey, Receiver, ReplyError, Request};
use farref_core::value::ValueWriter;

use crate::args::Args;
use crate::call::{self, CallState, OpenCall};
use crate::connection::{Core, Shared};
use crate::error::Error;
use crate::object::{self, Action, Object};
use crate::proxy::{Proxy, Remote};
use crate::value::{Exception, Value};

/// Objects of this process that the peer may hold, by key. One object has one key.
pub(crate) struct LocalObjects {
    /// With the address that identifies each: it lives as long as the entry.
    slots: Vec<Option<(usize, Arc<dyn Object>)>>,
    free: Vec<u32>,
    keys: HashMap<usize, ObjectKey>,
}

impl LocalObjects {
    pub fn new(directory: Arc<dyn Object>) -> Self {
        let mut objects = Self { slots: Vec::new(), free: Vec::new(), keys: HashMap::new() };
        objects.intern(&directory);
        objects
    }

    pub fn get(&self, key: ObjectKey) -> Option<Arc<dyn Object>> {
        self.slots.get(key.0 as usize)?.as_ref().map(|(_, object)| object.clone())
    }

    /// The key of an object.
    pub fn intern(&mut self, object: &Arc<dyn Object>) -> ObjectKey {
        let address = Arc::as_ptr(object).cast::<()>() as usize;
        self.intern_as(address, || object.clone())
    }

    /// The key of another peer's object, which is handed on as one of ours.
    pub fn intern_foreign(&mut self, proxy: &Proxy) -> ObjectKey {
        self.intern_as(proxy.address(), || Arc::new(Forwarder(proxy.clone())))
    }

    fn intern_as(&mut self, address: usize, object: impl FnOnce() -> Arc<dyn Object>) -> ObjectKey {
        if let Some(&key) = self.keys.get(&address) {
            return key;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some((address, object()));
        self.keys.insert(address, ObjectKey(slot));
        ObjectKey(slot)
    }

    /// The object, to be dropped without the lock.
    #[must_use]
    pub fn remove(&mut self, key: ObjectKey) -> Option<Arc<dyn Object>> {
        let (address, object) = self.slots.get_mut(key.0 as usize)?.take()?;
        self.keys.remove(&address);
        self.free.push(key.0);
        Some(object)
    }

    #[must_use]
    pub fn clear(&mut self) -> Vec<Arc<dyn Object>> {
        self.keys.clear();
        self.free.clear();
        self.slots.drain(..).flatten().map(|(_, object)| object).collect()
    }
}

/// Stands for another peer's object.
struct Forwarder(Proxy);

impl Object for Forwarder {
    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        action.unsupported()
    }

    fn stands_for(&self) -> Option<&Proxy> {
        Some(&self.0)
    }
}

/// A call of the peer, to be run.
pub(crate) struct Job {
    shared: Arc<Shared>,
    answer: Answer,
    /// Our own call that caused it.
    cause: Option<Arc<CallState>>,
    subject: Subject,
    op: Op,
    args: Args,
}

/// What a call of the peer is for.
enum Subject {
    Object(Arc<dyn Object>),
    Value(Value),
    /// It came home to the peer (ANS-6), or is another peer's.
    Proxy(Proxy),
    Gone,
    /// Its arguments are refused.
    Refused(Error),
}

/// Calls that run one after the other (ORD-2): those on one object, by its address, that one call caused, or none.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lane(usize, Option<u16>);

impl Job {
    /// None if the call was answered at once.
    pub fn new(core: &mut Core, shared: &Arc<Shared>, request: &Request<'_>) -> Option<Self> {
        let references = core.read_references(shared, request.handles);
        let mut subject = match request.receiver {
            Receiver::Object(key) => match core.objects.get(key) {
                Some(object) => match object.stands_for() {
                    Some(proxy) => Subject::Proxy(proxy.clone()),
                    None => Subject::Object(object),
                },
                None => Subject::Gone,
            },
            Receiver::Import(import) => Subject::Proxy(core.proxy(shared, import, false)),
            Receiver::Value(kept) => {
                // Worked out on the bytes that are kept. They are copied if there is no room for the result now, and if an
                // operand is a handle: it may name an answer that settled to a value, too.
                let done = match request.handles.is_empty() {
                    true => core.session.reply_operated(request.call, kept, request.op, request.args),
                    false => Err(ReplyError::NoRoom),
                };
                match done {
                    Err(ReplyError::NoRoom) => Subject::Value(core.read_kept(shared, kept)),
                    _ => return None,
                }
            }
        };
        let args = match call::read_args(request.args, &references, core.session.limits().max_message as usize) {
            Ok(args) => args,
            Err(error) => {
                // Nothing else is under way for this call: the error is what it is about.
                subject = Subject::Refused(error);
                Args::default()
            }
        };
        let parent = request.parent.and_then(|parent| core.calls.get(&parent.id()));
        let mut job = Self {
            shared: shared.clone(),
            answer: request.call,
            cause: parent.map(|(_, state)| state.clone()),
            subject,
            op: request.op,
            args,
        };
        job.go_to_root();
        Some(job)
    }

    /// A call of a root by its name is a call of the root: it takes its turn with others on it.
    fn go_to_root(&mut self) {
        let Subject::Object(directory) = &self.subject else { return };
        let number = self.op.as_member().map(|number| Value::Int(number as i64));
        let by_name = number.is_none() && self.op == Op::CallMethod;
        let name = if by_name { self.args.positional.first() } else { number.as_ref() };
        if let Some(root) = name.and_then(|name| directory.root_named(name)) {
            if by_name {
                self.args.positional.remove(0);
            }
            (self.subject, self.op) = (Subject::Object(root), Op::Call);
        }
    }

    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// The lane in which it waits for those before it, if it does.
    fn lane(&self, parent: Option<u16>) -> Option<Lane> {
        match &self.subject {
            Subject::Object(object) if parent.is_some() || !object.is_concurrent() => {
                Some(Lane(Arc::as_ptr(object).cast::<()>() as usize, parent))
            }
            _ => None,
        }
    }

    fn run(self) {
        let Self { shared, answer, cause, subject, op, args } = self;
        let result = call::serving(&shared, answer, cause.as_ref(), || {
            let work = || match &subject {
                Subject::Object(object) => object::operate(&**object, op, args),
                Subject::Value(value) => call::operate_on_value(value, op, &args),
                Subject::Proxy(proxy) => forward(proxy, op, args),
                Subject::Refused(error) => Err(error.clone()),
                Subject::Gone => Err(Error::Refuse(ErrorCode::NoSuchObject, Vec::new())),
            };
            catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
                Err(Error::raise("RuntimeError", format!("the object panicked: {text}")))
            })
        });
        // What the call held goes before its caller hears that it is over. The code of users that runs then may panic too.
        drop_caught((subject, cause));
        reply(&shared, answer, result);
    }
}

/// A nested call within the same answer (ANS-6). If it cannot be made, nothing has started.
fn forward(proxy: &Proxy, op: Op, args: Args) -> Result<Value, Error> {
    proxy.operate(op, args).map_err(|error| match error {
        Error::Refused(code, values) => Error::Refuse(code, values),
        Error::NotMade(CallError::Overloaded) => Error::Refuse(ErrorCode::Overloaded, Vec::new()),
        Error::NotMade(CallError::TooDeep) => Error::Refuse(ErrorCode::TooDeep, Vec::new()),
        error => error,
    })
}

/// Replies to a call of the peer, waiting for room for output.
fn reply(shared: &Arc<Shared>, answer: Answer, result: Result<Value, Error>) {
    let (error, values) = match result {
        Ok(value) => (None, vec![value]),
        Err(Error::Raised(exception)) => (Some(ErrorCode::Raised), vec![Value::Exception(*exception)]),
        Err(Error::Refuse(code, values)) => (Some(code), values.into_iter().take(4).collect()),
        // It ran and could not go on; also if a call of its own was refused.
        Err(other) => (Some(ErrorCode::Raised), vec![runtime_error(other.to_string())]),
    };
    let mut core = shared.lock();
    while let Err(failed) = try_reply(&mut core, shared, answer, error, &values) {
        match failed {
            ReplyError::NoRoom if !core.is_over() => core = shared.wait(core),
            // The session has answered with an error of its own, or is over.
            ReplyError::NoRoom | ReplyError::Became(_) | ReplyError::Ended(_) | ReplyError::NoSuchCall => break,
            other => {
                let text = runtime_error(format!("the object's result cannot be sent: {other}"));
                if try_reply(&mut core, shared, answer, Some(ErrorCode::Raised), &[text]).is_err() {
                    let _ = core.session.refuse(answer, ErrorCode::ResultTooLarge, 0);
                }
                break;
            }
        }
    }
    core.take_ready(shared);
    core.take_notices();
    shared.unlock(core);
    values.into_iter().for_each(drop_caught);
}

/// Drops what may run code of users, which may panic; the thread goes on.
fn drop_caught<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

fn try_reply(
    core: &mut Core,
    shared: &Arc<Shared>,
    answer: Answer,
    error: Option<ErrorCode>,
    values: &[Value],
) -> Result<(), ReplyError> {
    if let Some(ended) = core.session.ended() {
        return Err(ReplyError::Ended(ended));
    }
    let mut references = Vec::new();
    // Only a promise can be misplaced: an object waits for it and replies what it settled to.
    let found = values.iter().try_for_each(|value| core.references(shared, value, &mut references));
    let write = |writer: &mut ValueWriter<'_>| {
        let mut next = 0;
        values.iter().try_for_each(|value| value.write(writer, &mut next))
    };
    let replied = match (found, error) {
        (Err(_), _) => Err(ReplyError::BadReference(references.len())),
        (Ok(()), None) => core.session.reply(answer, &references, write),
        (Ok(()), Some(code)) => core.session.reply_error(answer, code, &references, write),
    };
    replied.inspect_err(|_| core.drop_unexported(&references))
}

fn runtime_error(text: String) -> Value {
    let args = vec![Value::Str(text)];
    Value::Exception(Exception { name: "RuntimeError".into(), args, text: None, traceback: None })
}

/// What is left over under the core's lock and may run code of users when it is dropped.
///
/// Each piece catches what that code throws: of two panics in one go, the second would end the program.
pub(crate) struct Garbage(Option<Left>);

#[expect(dead_code, reason = "it is there to be dropped")]
enum Left {
    Object(Arc<dyn Object>),
    Call(Arc<CallState>),
    Named(Vec<Arc<OpenCall>>),
    Work(Work),
}

impl Garbage {
    pub fn object(object: Arc<dyn Object>) -> Self {
        Self(Some(Left::Object(object)))
    }

    pub fn call(call: Arc<CallState>) -> Self {
        Self(Some(Left::Call(call)))
    }

    pub fn named(calls: Vec<Arc<OpenCall>>) -> Self {
        Self(Some(Left::Named(calls)))
    }

    pub fn work(work: Work) -> Self {
        Self(Some(Left::Work(work)))
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        drop_caught(self.0.take());
    }
}

/// What a thread of a pool does.
pub(crate) enum Work {
    Serve(Box<Job>),
    Drop(Vec<Garbage>),
}

impl Work {
    fn run(self) {
        match self {
            Self::Serve(job) => job.run(),
            Self::Drop(garbage) => drop(garbage),
        }
    }
}

/// Threads that run the peer's calls. There are never fewer than calls that run, so that a call that waits for a
/// nested one cannot keep it from running; the limit of calls served bounds them.
pub(crate) struct Workers {
    pool: Arc<Pool>,
    limit: usize,
}

#[derive(Default)]
struct Pool {
    state: Mutex<PoolState>,
    wake: Condvar,
}

#[derive(Default)]
struct PoolState {
    work: VecDeque<(Work, Option<Lane>)>,
    /// What waits behind the one that runs or is about to, for each lane that has one.
    lanes: HashMap<Lane, VecDeque<Work>>,
    /// Threads that wait for work.
    idle: usize,
    threads: usize,
    stopped: bool,
}

impl Workers {
    pub fn new(limit: usize) -> Self {
        Self { pool: Arc::default(), limit }
    }

    /// Runs a job after those before it in its lane; `parent` is the call of ours that caused it. It comes back if there is
    /// no thread for it.
    pub fn serve(&mut self, job: Job, parent: Option<u16>) -> Result<(), Work> {
        let lane = job.lane(parent);
        self.push(Work::Serve(Box::new(job)), lane)
    }

    /// Drops what is left over, on a thread that nobody waits for.
    pub fn reap(&mut self, garbage: Vec<Garbage>) -> Result<(), Work> {
        self.push(Work::Drop(garbage), None)
    }

    fn push(&mut self, work: Work, lane: Option<Lane>) -> Result<(), Work> {
        let mut state = self.pool.lock();
        if state.stopped {
            return Err(work);
        }
        // A thread that was woken counts as idle until it has taken its work, which is still in the queue then.
        if state.work.len() >= state.idle && state.threads < self.limit {
            let pool = self.pool.clone();
            let spawned = thread::Builder::new().name("farref-serve".into()).spawn(move || pool.run());
            state.threads += usize::from(spawned.is_ok());
        }
        if state.threads == 0 {
            return Err(work);
        }
        if let Some(lane) = lane {
            match state.lanes.entry(lane) {
                Entry::Occupied(mut before) => {
                    before.get_mut().push_back(work);
                    return Ok(());
                }
                Entry::Vacant(free) => {
                    free.insert(VecDeque::new());
                }
            }
        }
        state.work.push_back((work, lane));
        self.pool.wake.notify_one();
        Ok(())
    }

    /// Nothing starts any more; what had not started is given back.
    #[must_use]
    pub fn stop(&mut self) -> Vec<Work> {
        let mut state = self.pool.lock();
        state.stopped = true;
        self.pool.wake.notify_all();
        let waiting = mem::take(&mut state.lanes).into_values().flatten();
        let mut left: Vec<_> = waiting.collect();
        left.extend(state.work.drain(..).map(|(work, _)| work));
        left
    }
}

/// The threads end with the last of the session.
impl Drop for Workers {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stopped {
            if let Some((work, lane)) = state.work.pop_front() {
                drop(state);
                work.run();
                state = self.lock();
                if let Some(lane) = lane {
                    state.leave(lane);
                }
            } else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

impl PoolState {
    /// The next of a lane may run: on this thread, which is free, so that nobody need be woken.
    fn leave(&mut self, lane: Lane) {
        match self.lanes.get_mut(&lane).map(VecDeque::pop_front) {
            Some(Some(next)) => self.work.push_back((next, Some(lane))),
            _ => {
                self.lanes.remove(&lane);
            }
        }
    }
}
