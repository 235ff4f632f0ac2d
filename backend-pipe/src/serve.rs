//! Serving the peer's calls: the table of local objects, and the threads that run them.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use farref_core::message::{ErrorCode, Op};
use farref_core::session::{Answer, ObjectKey, Receiver, ReplyError, Request};
use farref_core::value::ValueWriter;

use crate::args::Args;
use crate::call::{self, CallState};
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
}

impl Job {
    pub fn new(core: &mut Core, shared: &Arc<Shared>, request: &Request<'_>) -> Self {
        let references = core.read_references(shared, request.handles);
        let subject = match request.receiver {
            Receiver::Object(key) => match core.objects.get(key) {
                Some(object) => match object.stands_for() {
                    Some(proxy) => Subject::Proxy(proxy.clone()),
                    None => Subject::Object(object),
                },
                None => Subject::Gone,
            },
            Receiver::Import(import) => Subject::Proxy(core.proxy(shared, import, false)),
            Receiver::Value(kept) => Subject::Value(core.read_kept(shared, kept)),
        };
        let parent = request.parent.and_then(|parent| core.calls.get(&parent.id()));
        Self {
            shared: shared.clone(),
            answer: request.call,
            cause: parent.map(|(_, state)| state.clone()),
            subject,
            op: request.op,
            args: call::read_args(request.args, &references),
        }
    }

    fn run(self) {
        let Self { shared, answer, cause, subject, op, args } = self;
        let result = call::serving(&shared, answer, cause.as_ref(), || {
            let work = || match &subject {
                Subject::Object(object) => object::operate(&**object, op, args),
                Subject::Value(value) => call::operate_on_value(value, op, &args),
                // A nested call within the same answer (ANS-6).
                Subject::Proxy(proxy) => proxy.operate(op, args),
                Subject::Gone => Err(Error::Refused(ErrorCode::NoSuchObject, Vec::new())),
            };
            catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
                Err(Error::raise("RuntimeError", format!("the object panicked: {text}")))
            })
        });
        // What the call held goes before its caller hears that it is over.
        drop((subject, cause));
        reply(&shared, answer, result);
    }
}

/// Replies to a call of the peer, waiting for room for output.
fn reply(shared: &Arc<Shared>, answer: Answer, result: Result<Value, Error>) {
    let (error, values) = match result {
        Ok(value) => (None, vec![value]),
        Err(Error::Raised(exception)) => (Some(ErrorCode::Raised), vec![Value::Exception(*exception)]),
        Err(Error::Refused(code, values)) => (Some(code), values.into_iter().take(4).collect()),
        // It ran and could not go on.
        Err(other) => (Some(ErrorCode::Raised), vec![runtime_error(other.to_string())]),
    };
    let mut left = Vec::new();
    let mut core = shared.lock();
    while let Err(failed) = try_reply(&mut core, shared, answer, error, &values) {
        match failed {
            ReplyError::NoRoom => core = shared.wait(core),
            // The session has answered with an error of its own, or is over.
            ReplyError::Became(_) | ReplyError::Ended(_) | ReplyError::NoSuchCall => break,
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
    core.take_notices(&mut left);
    shared.unlock(core);
    drop((values, left));
}

fn try_reply(
    core: &mut Core,
    shared: &Arc<Shared>,
    answer: Answer,
    error: Option<ErrorCode>,
    values: &[Value],
) -> Result<(), ReplyError> {
    let mut references = Vec::new();
    for value in values {
        // Only a promise can be misplaced; an object waits for it and replies what it settled to.
        core.references(shared, value, &mut references).map_err(|_| ReplyError::BadReference(references.len()))?;
    }
    let write = |writer: &mut ValueWriter<'_>| {
        let mut next = 0;
        values.iter().try_for_each(|value| value.write(writer, &mut next))
    };
    let replied = match error {
        None => core.session.reply(answer, &references, write),
        Some(code) => core.session.reply_error(answer, code, &references, write),
    };
    replied.inspect_err(|_| core.drop_unexported(&references))
}

fn runtime_error(text: String) -> Value {
    let args = vec![Value::Str(text)];
    Value::Exception(Exception { name: "RuntimeError".into(), args, text: None, traceback: None })
}

/// The threads that run the peer's calls. There are never fewer than calls that run, so that a call that waits for a
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
    jobs: VecDeque<Job>,
    /// Threads that wait for a job.
    idle: usize,
    threads: usize,
    stopped: bool,
}

impl Workers {
    pub fn new(limit: u16) -> Self {
        Self { pool: Arc::default(), limit: limit.into() }
    }

    pub fn push(&mut self, job: Job) {
        let mut state = self.pool.lock();
        if state.stopped {
            return;
        }
        state.jobs.push_back(job);
        // A thread that was woken counts as idle until it has taken its job, which is still in the queue then.
        if state.jobs.len() > state.idle && state.threads < self.limit {
            let pool = self.pool.clone();
            let spawned = thread::Builder::new().name("farref-serve".into()).spawn(move || pool.work());
            state.threads += usize::from(spawned.is_ok());
        }
        self.pool.wake.notify_one();
    }

    /// No job starts any more; those that had not started are given back.
    #[must_use]
    pub fn stop(&mut self) -> Vec<Job> {
        let mut state = self.pool.lock();
        state.stopped = true;
        self.pool.wake.notify_all();
        state.jobs.drain(..).collect()
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        while !state.stopped {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job.run();
                state = self.lock();
            } else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}
