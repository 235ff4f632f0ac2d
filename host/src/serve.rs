//! Serving the peer's calls: what each is for, whose turn it is, how it is run and answered.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;

use farref_core::message::{Descriptor, DownReason, ErrorCode, Handles, Op};
use farref_core::session::{Answer, CallError, Receiver, Ref, ReplyError, Request};
use farref_core::value::ValueWriter;
use rustc_hash::FxHashMap;

use crate::args::Args;
use crate::budget::{Budget, Charge};
use crate::call::{CallState, Caller};
use crate::cancel::is_cancelled;
use crate::core::Core;
use crate::current::Serving;
use crate::error::Error;
use crate::object::{self, Object, Runs};
use crate::pool::{Garbage, Work, drop_caught};
use crate::proxy::{Proxy, ProxyInner};
use crate::remote::{AsyncRemote, Remote};
use crate::shared::Shared;
use crate::translate;
use crate::value::{Exception, Reference, Value, memory_of, memory_of_all};

/// What a call takes beside its arguments, with its task.
const OF_A_CALL: usize = 512;

/// A call of the peer, to be run.
pub(crate) struct Job {
    answer: Answer,
    pipelined: bool,
    /// Our own call that caused it.
    cause: Option<Arc<CallState>>,
    /// For the arguments, and later for the result.
    memory: Charge,
    /// The one of our calls that caused it.
    parent: Option<u16>,
    subject: Subject,
    op: Op,
    args: Args,
    lent: Lent,
}

/// The proxies of what is lent to a call: most often nothing.
#[derive(Default)]
pub(crate) struct Lent(Option<Box<[Weak<ProxyInner>]>>);

/// What a call of the peer is for.
enum Subject {
    Object(Arc<dyn Object>),
    Value(Box<Value>),
    /// It came home to the peer (ANS-6), or is another peer's.
    Proxy(Proxy),
    Gone,
    /// Its arguments are refused.
    Refused(Box<Error>),
}

/// Calls that run one after the other (ORD-2): those on one object, by its address, that one call caused, or none. If it is
/// another peer's, they are passed on one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lane(usize, Option<u16>);

/// For each lane that has a call that runs or is about to, those that wait behind it.
#[derive(Default)]
pub(crate) struct Lanes(FxHashMap<Lane, VecDeque<Job>>);

impl Lanes {
    /// The call, if it is its turn.
    pub fn enter(&mut self, job: Job) -> Option<Job> {
        let Some(lane) = job.lane() else { return Some(job) };
        match self.0.entry(lane) {
            Entry::Occupied(mut before) => {
                before.get_mut().push_back(job);
                None
            }
            Entry::Vacant(free) => {
                free.insert(VecDeque::new());
                Some(job)
            }
        }
    }

    /// A call is over: the next one of its lane.
    pub fn leave(&mut self, lane: Option<Lane>) -> Option<Job> {
        let lane = lane?;
        let next = self.0.get_mut(&lane)?.pop_front();
        if next.is_none() {
            self.0.remove(&lane);
        }
        next
    }

    /// A call that waits behind others, if it does.
    pub fn remove(&mut self, answer: Answer) -> Option<Job> {
        self.0.values_mut().find_map(|lane| {
            let place = lane.iter().position(|job| job.answer == answer)?;
            lane.remove(place)
        })
    }

    /// Calls on an object that wait for their turn will not have one.
    pub fn withdraw(&mut self, object: usize) -> Vec<Job> {
        let lanes = self.0.iter_mut().filter(|(lane, _)| lane.0 == object);
        lanes.flat_map(|(_, waiting)| waiting.drain(..)).collect()
    }

    /// Nothing starts any more; what had not started is given back.
    pub fn clear(&mut self) -> Vec<Job> {
        mem::take(&mut self.0).into_values().flatten().collect()
    }
}

/// A call that was run.
pub(crate) struct Done {
    pub reply: Reply,
    pub lane: Option<Lane>,
}

/// What a call is answered with.
pub(crate) struct Reply {
    answer: Answer,
    memory: Charge,
    error: Option<ErrorCode>,
    values: Answers,
    pub lent: Lent,
}

/// A result, or what comes with an error code.
enum Answers {
    One(Value),
    Some(Vec<Value>),
}

impl Answers {
    fn as_slice(&self) -> &[Value] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Some(values) => values,
        }
    }

    fn into_vec(self) -> Vec<Value> {
        match self {
            Self::One(value) => vec![value],
            Self::Some(values) => values,
        }
    }
}

impl Core {
    /// A call of the peer: it is answered, runs, or waits for its turn.
    pub fn serve(&mut self, shared: &Arc<Shared>, request: &Request<'_>) {
        if self.draining && request.parent.is_none() {
            let _ = self.session.refuse(request.call, ErrorCode::Overloaded, 0);
            return;
        }
        if let Receiver::Value(kept) = request.receiver
            && request.handles.is_empty()
        {
            // Worked out on the bytes that are kept. They are copied if there is no room for the result now, and if an operand
            // is a handle: it may name an answer that settled to a value, too.
            match self.session.reply_operated(request.call, kept, request.op, request.args) {
                Err(ReplyError::NoRoom) => {}
                _ => return,
            }
        }
        let memory = match Job::charge(self, shared, request) {
            Ok(memory) => memory,
            Err(code) => {
                self.release_references(request.handles);
                let _ = self.session.refuse(request.call, code, 0);
                return;
            }
        };
        let references = self.read_references(shared, request.handles);
        let mut subject = self.subject(shared, request.receiver);
        let mut args = translate::read_args(request.args, &references).unwrap_or_else(|error| {
            // Nothing else is under way for this call: the error is what it is about.
            subject = Subject::Refused(error.into());
            Args::default()
        });
        let mut op = request.op;
        subject.go_to_root(&mut op, &mut args);
        let cause = request.parent.and_then(|parent| self.caller(parent)).and_then(Caller::cause);
        let parent = request.parent.map(|parent| parent.id());
        let lent = Lent::new(request.handles, &references);
        let at_once = subject.is_inline() && subject.lane(parent).is_none();
        let (answer, pipelined) = (request.call, request.pipelined);
        let job = || Job { answer, pipelined, cause, memory, parent, subject, op, args, lent };
        if at_once {
            // As nearly all that run inline: built where it stays, since moving it costs more than all that is done above.
            self.inline.extend(std::iter::once_with(job));
        } else if let Some(job) = self.lanes.enter(job()) {
            self.dispatch(shared, job);
        }
    }

    fn subject(&mut self, shared: &Arc<Shared>, receiver: Receiver) -> Subject {
        match receiver {
            Receiver::Object(key) => match self.objects.get(key) {
                Some(object) => match object.stands_for() {
                    Some(proxy) => Subject::Proxy(proxy.clone()),
                    None => Subject::Object(object),
                },
                None => Subject::Gone,
            },
            Receiver::Import(import) => Subject::Proxy(self.proxy(shared, import, false, false)),
            Receiver::Value(kept) => Subject::Value(self.read_kept(shared, kept).into()),
        }
    }
}

impl Subject {
    /// A call of a root by its name is a call of the root: it takes its turn with others on it.
    fn go_to_root(&mut self, op: &mut Op, args: &mut Args) {
        let Self::Object(directory) = self else { return };
        let number = op.as_member().map(|number| Value::Int(number as i64));
        let by_name = number.is_none() && *op == Op::CallMethod;
        let name = if by_name { args.positional.first() } else { number.as_ref() };
        if let Some(root) = name.and_then(|name| directory.root_named(name)) {
            if by_name {
                args.positional.remove(0);
            }
            (*self, *op) = (Self::Object(root), Op::Call);
        }
    }

    fn lane(&self, parent: Option<u16>) -> Option<Lane> {
        match self {
            Self::Object(object) if parent.is_some() || !object.is_concurrent() => {
                Some(Lane(Arc::as_ptr(object).cast::<()>() as usize, parent))
            }
            Self::Proxy(proxy) => Some(Lane(proxy.address(), parent)),
            _ => None,
        }
    }

    fn is_inline(&self) -> bool {
        match self {
            Self::Object(object) => object.runs() == Runs::Inline,
            Self::Proxy(_) => false,
            Self::Value(_) | Self::Gone | Self::Refused(_) => true,
        }
    }
}

impl Job {
    /// What a call will take, before any of it is copied.
    fn charge(core: &Core, shared: &Shared, request: &Request<'_>) -> Result<Charge, ErrorCode> {
        let mut memory = shared.memory.charge();
        let names_answers = { request.handles }.any(|handle| matches!(handle, Descriptor::Answer(_)));
        if !names_answers && !shared.memory.is_limited() {
            return Ok(memory);
        }
        // What the named answers settled to, however often they are named: a short message must not grow to more than a long
        // one could have held.
        let of_handles = if names_answers { core.memory_of_handles(request.handles) } else { Vec::new() };
        let listed = of_handles.iter().sum::<usize>();
        let mut named = 0;
        let args = memory_of_all(request.args, &mut |index| {
            let of_handle = of_handles.get(index as usize).copied().unwrap_or(0);
            named += of_handle;
            of_handle
        });
        if listed.max(named) > core.session.limits().max_message as usize {
            return Err(ErrorCode::NotKept);
        }
        let receiver = match request.receiver {
            Receiver::Value(kept) => core.memory_of_kept(kept),
            _ => 0,
        };
        let all = OF_A_CALL + args + listed + receiver + request.handles.len() as usize * size_of::<Value>();
        if memory.set(all) { Ok(memory) } else { Err(ErrorCode::Overloaded) }
    }

    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// Those that it takes turns with.
    pub fn lane(&self) -> Option<Lane> {
        self.subject.lane(self.parent)
    }

    /// Whether calls may wait for its answer.
    pub fn is_pipelined(&self) -> bool {
        self.pipelined
    }

    /// Whether it is quick and never waits.
    pub fn is_inline(&self) -> bool {
        self.subject.is_inline()
    }

    /// As work for another thread or task.
    pub fn into_work(self, shared: Arc<Shared>) -> Work {
        match &self.subject {
            Subject::Object(object) if object.runs() == Runs::Async => Work::task(self.run_as_task(shared)),
            Subject::Proxy(proxy) => {
                let proxy = proxy.clone();
                Work::task(self.pass_on(proxy, shared))
            }
            _ => Work::blocking(shared, self),
        }
    }

    /// Runs it to its end and tells the session; `ran` is called in between.
    pub fn run_and_finish(mut self, shared: &Arc<Shared>, ran: impl FnOnce()) {
        let done = self.run(&mut Serving::over(shared, false));
        ran();
        shared.finish(done);
    }

    /// Runs it here. What is left of it is to be dropped.
    pub fn run(&mut self, serving: &mut Serving) -> Done {
        let lane = self.lane();
        let subject = mem::replace(&mut self.subject, Subject::Gone);
        let (op, args) = (self.op, mem::take(&mut self.args));
        serving.begin(self.answer, self.cause.take());
        let result = serving.run(|| {
            // It may have waited for a thread.
            if is_cancelled() {
                return Err(Error::never_started());
            }
            let work = || match &subject {
                Subject::Object(object) => object::operate(&**object, op, args),
                Subject::Value(value) => translate::operate_on_value(value, op, &args),
                Subject::Proxy(proxy) => Remote::operate(proxy, op, args),
                Subject::Refused(error) => Err((**error).clone()),
                Subject::Gone => Err(Error::Refuse(ErrorCode::NoSuchObject, Vec::new())),
            };
            catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)))
        });
        // What the call held goes before its caller hears that it is over. The code of users that runs then may panic too.
        drop_caught(subject);
        serving.end();
        let memory = mem::replace(&mut self.memory, Budget::unlimited().charge());
        Done { reply: Reply::new(self.answer, memory, result, mem::take(&mut self.lent)), lane }
    }

    /// As a task: what the object gives is polled as part of serving this call.
    async fn run_as_task(self, shared: Arc<Shared>) {
        let lane = self.lane();
        let Self { answer, cause, memory, subject, op, args, lent, .. } = self;
        let mut serving = Serving::over(&shared, false);
        serving.begin(answer, cause);
        if shared.is_interrupted(answer) {
            drop_caught((subject, args, serving));
            let reply = Reply::new(answer, memory, Err(Error::never_started()), lent);
            return shared.finish(Done { reply, lane });
        }
        let mut work: Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>> = match subject {
            Subject::Object(object) => {
                let started = serving.run(|| catch_unwind(AssertUnwindSafe(|| object.perform_as_task(op, args))));
                started.unwrap_or_else(|panic| Box::pin(std::future::ready(Err(panicked(&*panic)))))
            }
            _ => return,
        };
        let result = poll_fn(|cx| {
            let polled = serving.run(|| catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))));
            let polled = polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked(&*panic))));
            // Dropped where it waits, if the peer has asked for that.
            let may_wait = polled.is_ready() || shared.suspend(answer, cx.waker());
            if may_wait { polled } else { Poll::Ready(Err(Error::cancelled())) }
        });
        let result = result.await;
        drop_caught((work, serving));
        shared.finish(Done { reply: Reply::new(answer, memory, result, lent), lane });
    }
}

impl Job {
    /// Passes it on to the object's own peer, as a task, and back what that answers (ANS-6, REF-11). The next call of its lane
    /// follows when this one is on its way. If the caller wants it stopped, so does this side, and tells what became of that.
    async fn pass_on(self, proxy: Proxy, shared: Arc<Shared>) {
        let lane = self.lane();
        let Self { answer, cause, memory, subject, op, args, lent, .. } = self;
        let mut serving = Serving::over(&shared, false);
        serving.begin(answer, cause);
        let mut start = Box::pin(AsyncRemote::start_op(&proxy, op, args));
        let started = poll_fn(|cx| {
            if shared.is_interrupted(answer) {
                return Poll::Ready(Err(Error::never_started()));
            }
            let polled = serving.run(|| start.as_mut().poll(cx));
            let may_wait = polled.is_ready() || shared.suspend(answer, cx.waker());
            if may_wait { polled } else { Poll::Ready(Err(Error::never_started())) }
        });
        let started = started.await.map_err(|error| not_passed_on(error, &proxy));
        drop(start);
        shared.leave(lane);
        let result = match started {
            Ok(mut call) => {
                let mut is_asked = false;
                let result = poll_fn(|cx| {
                    let polled = serving.run(|| Pin::new(&mut call).poll(cx));
                    if polled.is_pending() && !is_asked && !shared.suspend(answer, cx.waker()) {
                        is_asked = true;
                        call.interrupt();
                    }
                    polled
                });
                let result = result.await;
                result.map_err(|error| passed_on(error, shared.left_to(answer).is_some()))
            }
            Err(error) => Err(error),
        };
        drop_caught((subject, proxy, serving));
        shared.finish(Done { reply: Reply::new(answer, memory, result, lent), lane: None });
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    Error::raise("RuntimeError", format!("the object panicked: {text}"))
}

/// What the caller is told of a call that could not be passed on to the object's own peer.
fn not_passed_on(error: Error, proxy: &Proxy) -> Error {
    let revoked = |reason: DownReason| Error::Refuse(ErrorCode::Revoked, vec![Value::Int(reason.number().into())]);
    match error {
        Error::NotMade(CallError::Overloaded) => Error::Refuse(ErrorCode::Overloaded, Vec::new()),
        Error::NotMade(CallError::Revoked(reason)) => revoked(reason),
        Error::NotMade(CallError::TooDeep) => Error::Refuse(ErrorCode::TooDeep, Vec::new()),
        Error::DeadlineExceeded => Error::Refuse(ErrorCode::DeadlineExceeded, Vec::new()),
        error => match proxy.lost() {
            Some(lost) => revoked(lost.reason()),
            None => passed_on(error, false),
        },
    }
}

/// What the caller is told of the error of a call that was passed on; its own had a deadline, or none.
fn passed_on(error: Error, has_deadline: bool) -> Error {
    match error {
        Error::Refused(code, values) => Error::Refuse(code, values),
        Error::NeverStarted(_) => {
            Error::Refuse(ErrorCode::Revoked, vec![Value::Int(DownReason::PeerLost.number().into())])
        }
        Error::Ended(ended) => {
            Error::raise("RuntimeError", format!("the session with the object's own peer is over: {ended}"))
        }
        // It was stopped there because of that, and the caller is about to ask for it.
        Error::DeadlineExceeded if has_deadline => Error::cancelled(),
        error => error,
    }
}

impl Reply {
    fn new(answer: Answer, memory: Charge, result: Result<Value, Error>, lent: Lent) -> Self {
        let (error, values) = match result {
            Ok(value) => (None, Answers::One(value)),
            Err(Error::Raised(exception)) => (Some(ErrorCode::Raised), Answers::One(Value::Exception(exception))),
            Err(Error::Refuse(code, values)) => (Some(code), Answers::Some(values.into_iter().take(4).collect())),
            // It ran and could not go on; also if a call of its own was refused.
            Err(other) => (Some(ErrorCode::Raised), Answers::One(runtime_error(other.to_string()))),
        };
        Self { answer, memory, error, values, lent }
    }

    pub fn answer(&self) -> Answer {
        self.answer
    }

    /// About how much memory it takes: more than its message has bytes.
    pub fn memory(&self) -> usize {
        self.values.as_slice().iter().map(memory_of).sum::<usize>() + 64
    }

    /// Counts it as memory in use; false if that is too much.
    pub fn charge(&mut self) -> bool {
        self.memory.set(self.memory())
    }

    /// Says in its place that it is too large to be kept; gives what is to be dropped.
    pub fn refuse(&mut self) -> Option<Garbage> {
        self.error = Some(ErrorCode::ResultTooLarge);
        Garbage::values(mem::replace(&mut self.values, Answers::One(Value::Int(0))).into_vec())
    }

    /// Sends it, or gives it back if there is no room. What was sent may have been the last of an object of users.
    pub fn send(self, core: &mut Core, shared: &Arc<Shared>) -> Result<Option<Garbage>, Self> {
        match self.try_send(core, shared, self.error, self.values.as_slice()) {
            Err(ReplyError::NoRoom) if !core.is_over() => return Err(self),
            // Whatever it holds of users is in the table of objects now, so that nothing is dropped here.
            Ok(()) => return Ok(None),
            // The session has answered with an error of its own, or is over.
            Err(ReplyError::NoRoom | ReplyError::Became(_) | ReplyError::Ended(_) | ReplyError::NoSuchCall) => {}
            Err(other) => {
                let text = runtime_error(format!("the object's result cannot be sent: {other}"));
                if self.try_send(core, shared, Some(ErrorCode::Raised), &[text]).is_err() {
                    let _ = core.session.refuse(self.answer, ErrorCode::ResultTooLarge, 0);
                }
            }
        }
        Ok(self.into_garbage())
    }

    /// What it holds of users, to be dropped later.
    pub fn into_garbage(self) -> Option<Garbage> {
        Garbage::values(self.values.into_vec())
    }

    fn try_send(
        &self,
        core: &mut Core,
        shared: &Arc<Shared>,
        error: Option<ErrorCode>,
        values: &[Value],
    ) -> Result<(), ReplyError> {
        if let Some(ended) = core.session.ended() {
            return Err(ReplyError::Ended(ended));
        }
        let mut references = Vec::new();
        // Only a promise can be misplaced: an object waits for it and replies what it settled to.
        let found = values.iter().try_for_each(|value| core.references(shared, value, &mut references));
        // Only arguments are lent.
        for reference in &mut references {
            if let Ref::Borrowed(key) = *reference {
                *reference = Ref::Local(key);
            }
        }
        let write = |writer: &mut ValueWriter<'_>| {
            let mut next = 0;
            values.iter().try_for_each(|value| value.write(writer, &mut next))
        };
        let replied = match (found, error) {
            (Err(_), _) => Err(ReplyError::BadReference(references.len())),
            (Ok(()), None) => core.session.reply(self.answer, &references, write),
            (Ok(()), Some(code)) => core.session.reply_error(self.answer, code, &references, write),
        };
        replied.inspect_err(|_| core.drop_unexported(&references))
    }
}

impl Lent {
    fn new(handles: Handles<'_>, references: &[Value]) -> Self {
        if handles.is_empty() {
            return Self(None);
        }
        let lent = handles.zip(references).filter(|(handle, _)| matches!(handle, Descriptor::Borrowed { .. }));
        let lent = lent.filter_map(|(_, value)| match value {
            Value::Reference(Reference::Remote(proxy)) => Some(Arc::downgrade(proxy.inner())),
            _ => None,
        });
        let lent: Box<[_]> = lent.collect();
        Self((!lent.is_empty()).then_some(lent))
    }

    /// Those that somebody still has.
    pub fn iter(&self) -> impl Iterator<Item = Arc<ProxyInner>> {
        self.0.iter().flatten().filter_map(Weak::upgrade)
    }
}

fn runtime_error(text: String) -> Value {
    let args = vec![Value::Str(text)];
    Value::Exception(Box::new(Exception { name: "RuntimeError".into(), args, text: None, traceback: None }))
}
