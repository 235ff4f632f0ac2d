//! Calls to the peer: their arguments written, their outcome read, and whoever waits for it.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use farref_core::codec::Writer;
use farref_core::message::{Descriptor, ErrorCode, Handles, Op};
use farref_core::session::{
    Answer, Call, CallError, Callee, Ended, Import, Kept, Question, Ref, Reference as CoreReference, Return, read_kept,
};
use farref_core::value::{Outcome, Top, Value as Borrowed, ValueError, ValueWriter, Values, operate};

use crate::args::Args;
use crate::connection::{Core, Dropped, Shared};
use crate::error::Error;
use crate::proxy::{Promise, Proxy};
use crate::value::{Reference, Value, memory_of};

/// What is known of one call: nothing yet, or its outcome.
pub(crate) struct CallState {
    outcome: Mutex<Option<(Result<Value, Error>, u64)>>,
    settled: Condvar,
    clock: Mutex<Clock>,
    needs: Mutex<Needs>,
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

/// A call that somebody may still wait for. When nobody does, it is abandoned (FIN-1).
pub(crate) struct OpenCall {
    pub shared: Arc<Shared>,
    /// None if it was never made, since what it was for was known.
    pub question: Option<Question>,
    pub state: Arc<CallState>,
}

impl OpenCall {
    /// One whose outcome is known from the start, or, in virtual time, from `at` on.
    pub fn settled(shared: Arc<Shared>, result: Result<Value, Error>, at: u64) -> Self {
        let state = CallState::new(Needs::default());
        *guard(&state.outcome) = Some((result.map_err(Error::seen_by_caller), at));
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

/// When a call was sent, and when the last nested call within it was answered.
#[derive(Default)]
struct Clock {
    sent: u64,
    nested: u64,
}

thread_local! {
    /// What this thread is doing: the call that it serves, and its virtual time.
    static CURRENT: RefCell<Current> = const { RefCell::new(Current { serving: None, now: 0 }) };
}

#[derive(Clone)]
struct Current {
    serving: Option<(Arc<Shared>, Answer)>,
    now: u64,
}

/// This thread's virtual time, in round trips.
pub(crate) fn now() -> u64 {
    CURRENT.with_borrow(|current| current.now)
}

/// The longest message that the peer takes whose call this thread serves, bytes.
pub(crate) fn callers_max_message() -> usize {
    let shared = CURRENT.with_borrow(|current| current.serving.as_ref().map(|(shared, _)| shared.clone()));
    let peer = shared.and_then(|shared| shared.lock().session.peer().map(|peer| peer.limits.max_message));
    peer.map_or(usize::MAX, |most| most as usize)
}

/// Runs `work` as part of serving a call of the peer: calls that it makes over the same connection are nested (CAL-6).
/// `cause` is our own call that caused the peer's.
pub(crate) fn serving<T>(
    shared: &Arc<Shared>,
    answer: Answer,
    cause: Option<&Arc<CallState>>,
    work: impl FnOnce() -> T,
) -> T {
    let now = cause.map_or(0, |cause| cause.arrival());
    let current = Current { serving: Some((shared.clone(), answer)), now };
    let before = CURRENT.replace(current);
    let result = work();
    let after = CURRENT.replace(before);
    if let Some(cause) = cause {
        let mut clock = guard(&cause.clock);
        clock.nested = clock.nested.max(after.now);
    }
    result
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CallState {
    fn new(needs: Needs) -> Self {
        let clock = Mutex::new(Clock { sent: now(), nested: 0 });
        Self { outcome: Mutex::default(), settled: Condvar::new(), clock, needs: Mutex::new(needs) }
    }

    /// The time at which what the peer sends because of this call arrives.
    fn arrival(&self) -> u64 {
        let clock = guard(&self.clock);
        clock.sent.max(clock.nested) + 1
    }

    /// Its Return came, or never will. The calls whose answers it named are given back: it does not need them any more, and
    /// they are not to be dropped under a lock.
    #[must_use]
    pub fn settle(&self, result: Result<Value, Error>) -> Vec<Arc<OpenCall>> {
        let Needs { named, settled_at } = std::mem::take(&mut *guard(&self.needs));
        let result = match result {
            // The error of the answer that broke this call came first, since the break came of it (ANS-3).
            Err(Error::Refused(ErrorCode::Broken, values)) => {
                let cause = named.iter().find_map(|named| named.state.result()?.err());
                Err(cause.unwrap_or(Error::Refused(ErrorCode::Broken, values)))
            }
            result => result,
        };
        let waited_for = named.iter().filter_map(|named| named.state.settled_at()).max().unwrap_or(0);
        let at = self.arrival().max(waited_for).max(settled_at);
        let mut outcome = guard(&self.outcome);
        if outcome.is_none() {
            *outcome = Some((result, at));
            self.settled.notify_all();
        }
        named
    }

    fn settled_at(&self) -> Option<u64> {
        guard(&self.outcome).as_ref().map(|(_, at)| *at)
    }

    /// The outcome, if it is known.
    pub fn result(&self) -> Option<Result<Value, Error>> {
        self.outcome().map(|(result, _)| result)
    }

    /// The outcome and its virtual time, if it is known.
    pub fn outcome(&self) -> Option<(Result<Value, Error>, u64)> {
        guard(&self.outcome).clone()
    }

    pub fn is_settled(&self) -> bool {
        guard(&self.outcome).is_some()
    }

    /// Waits for the outcome. Nobody may hold the core's lock here.
    pub fn wait(&self) -> Result<Value, Error> {
        let mut outcome = guard(&self.outcome);
        loop {
            if let Some((result, at)) = &*outcome {
                CURRENT.with_borrow_mut(|current| current.now = current.now.max(*at));
                return result.clone();
            }
            outcome = self.settled.wait(outcome).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What a call is for.
#[derive(Clone, Copy)]
pub(crate) enum Target<'t> {
    Proxy(Import),
    Promise(&'t Arc<OpenCall>),
}

/// Makes a call. Outside any handler it waits for credit; within one it does not (ADM-2). `settled_at` is the virtual time
/// from which on the target is known.
pub(crate) fn start(
    shared: &Arc<Shared>,
    target: Target<'_>,
    op: Op,
    mut args: Args,
    pipelined: bool,
    settled_at: u64,
) -> Result<OpenCall, Error> {
    let parent = CURRENT.with_borrow(|current| match &current.serving {
        Some((serving, answer)) if Arc::ptr_eq(serving, shared) => Some(*answer),
        _ => None,
    });
    let mut core = shared.lock();
    loop {
        // Promises settle under the lock, so that what is replaced here stays replaced.
        let mut needs = Needs { named: Vec::new(), settled_at };
        let callee = match target {
            Target::Proxy(import) => Callee::Import(import),
            Target::Promise(call) => match call.question {
                Some(question) if !call.state.is_settled() => {
                    needs.named.push(call.clone());
                    Callee::Promise(question)
                }
                _ => return Err(Error::NotMade(CallError::NotAPromise)),
            },
        };
        if core.is_over() {
            return Err(Error::Ended(core.session.ended().unwrap_or(Ended::LinkLost)));
        }
        let mut references = Vec::new();
        let found = args.values_mut().try_for_each(|value| replace_promises(value, shared, &mut needs));
        let found =
            found.and_then(|()| args.values().try_for_each(|value| core.references(shared, value, &mut references)));
        if let Err(error) = found {
            core.drop_unexported(&references);
            return Err(error);
        }
        let call = Call { callee, op, references: &references, pipelined, parent };
        match core.session.call(call, |writer| write_args(writer, &args)) {
            Ok(question) => {
                let state = Arc::new(CallState::new(needs));
                core.calls.insert(question.id(), (question, state.clone()));
                shared.unlock(core);
                return Ok(OpenCall { shared: shared.clone(), question: Some(question), state });
            }
            Err(error) if error == CallError::NoRoom || error == CallError::Overloaded && parent.is_none() => {
                core.drop_unexported(&references);
                core = shared.wait(core);
            }
            Err(error) => {
                core.drop_unexported(&references);
                return Err(match error {
                    CallError::Ended(ended) => Error::Ended(ended),
                    error => Error::NotMade(error),
                });
            }
        }
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
pub(crate) fn wait_for_promises(args: &mut Args) -> Result<(), Error> {
    args.values_mut().try_for_each(|value| each_promise(value, &mut |promise| promise.wait().map(Some)))
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

fn write_args(writer: &mut ValueWriter<'_>, args: &Args) -> Result<(), ValueError> {
    let mut next = 0;
    args.positional.iter().try_for_each(|value| value.write(writer, &mut next))?;
    args.named.iter().try_for_each(|(name, value)| {
        writer.named(name)?;
        value.write(writer, &mut next)
    })
}

/// The outcome of a call, its references made proxies.
pub(crate) fn read_outcome(core: &mut Core, shared: &Arc<Shared>, returned: &Return<'_>) -> Result<Value, Error> {
    let references = core.read_references(shared, returned.handles);
    let mut values = returned.values.map(|value| read_value(value, &references));
    match returned.outcome {
        Ok(()) => Ok(values.next().unwrap_or(Value::None)),
        Err(ErrorCode::Raised) => match values.next() {
            Some(Value::Exception(exception)) => Err(Error::Raised(Box::new(exception))),
            _ => Err(Error::Refused(ErrorCode::Malformed, Vec::new())),
        },
        Err(code) => Err(Error::Refused(code, values.collect())),
    }
}

/// The arguments of a call of the peer. Answers among them that settled to values may take up `most` bytes, however often
/// they are named: a short message must not grow to more than a long one could have held.
pub(crate) fn read_args(values: Values<'_>, references: &[Value], most: usize) -> Result<Args, Error> {
    let mut args = Args::default();
    let mut left = Some(most);
    let mut read = |value: Borrowed<'_>| {
        Value::substitute(value, &mut |index| {
            let substitute = references.get(index as usize).unwrap_or(&Value::None);
            if !matches!(substitute, Value::Reference(_) | Value::None) {
                left = left.and_then(|left| left.checked_sub(memory_of(substitute)));
            }
            if left.is_some() { substitute.clone() } else { Value::None }
        })
    };
    for value in values {
        match value {
            Borrowed::Named(name, _) if args.get_named(name).is_some() => {
                return Err(Error::bad_arguments(format!("{name} only once")));
            }
            Borrowed::Named(name, _) => args.named.push((name.to_owned(), read(value))),
            value => args.positional.push(read(value)),
        }
    }
    left.map(|_| args).ok_or(Error::Refuse(ErrorCode::NotKept, Vec::new()))
}

fn read_value(value: Borrowed<'_>, references: &[Value]) -> Value {
    Value::substitute(value, &mut |index| references.get(index as usize).cloned().unwrap_or(Value::None))
}

/// An operation on a value: what a call does whose promise settled to one (OPS-5).
pub(crate) fn operate_on_value(receiver: &Value, op: Op, args: &Args) -> Result<Value, Error> {
    // Both are written and read back: the core knows what operations do to encoded values.
    let mut references = Vec::new();
    let all = std::iter::once(receiver).chain(args.values());
    all.for_each(|value| value.each_reference(&mut |reference| references.push(reference)));
    let references: Vec<_> = references.into_iter().cloned().map(Value::Reference).collect();
    let mut next = 0;
    let receiver_bytes = encode(Top::Result, references.len(), &mut next, |writer, next| receiver.write(writer, next))?;
    let args_bytes = encode(Top::Arguments, references.len(), &mut next, |writer, next| {
        args.positional.iter().try_for_each(|value| value.write(writer, next))
    })?;
    let count = references.len() as u32;
    let malformed = |_| Error::Refuse(ErrorCode::Malformed, Vec::new());
    let receiver = Values::check(&receiver_bytes, Top::Result, count).map_err(malformed)?;
    let operands = Values::check(&args_bytes, Top::Arguments, count).map_err(malformed)?;
    if !args.named.is_empty() {
        return Err(Error::bad_arguments(format!("no named arguments for {op}")));
    }
    match operate(receiver.first().unwrap_or(Borrowed::None), op, operands) {
        Ok(Outcome::Value(value)) => Ok(read_value(value, &references)),
        Ok(Outcome::Char(character)) => Ok(Value::Str(character.into())),
        Ok(Outcome::Int(value)) => Ok(Value::Int(value)),
        Ok(Outcome::Bool(value)) => Ok(Value::Bool(value)),
        Ok(Outcome::Text(value, true)) => Ok(Value::Str(format!("{value:#}"))),
        Ok(Outcome::Text(value, false)) => Ok(Value::Str(value.to_string())),
        Ok(Outcome::Raise(name, key)) => Err(Error::raise_with(name, vec![read_value(key, &references)])),
        Err(ErrorCode::Unsupported) => Err(Error::unsupported(op)),
        Err(ErrorCode::BadArguments) => Err(Error::bad_arguments(format!("other arguments for {op}"))),
        Err(code) => Err(Error::Refuse(code, Vec::new())),
    }
}

fn encode(
    top: Top,
    references: usize,
    next: &mut usize,
    write: impl Fn(&mut ValueWriter<'_>, &mut usize) -> Result<(), ValueError>,
) -> Result<Vec<u8>, Error> {
    let not_well_formed = |error| Error::NotMade(CallError::Values(error));
    let mut bytes = vec![0; 256];
    loop {
        let mut numbered = *next;
        let mut values = ValueWriter::new(Writer::new(&mut bytes), top, references as u32);
        write(&mut values, &mut numbered).map_err(not_well_formed)?;
        let writer = values.finish().map_err(not_well_formed)?;
        let (length, fits) = (writer.len(), writer.fits());
        bytes.resize(length, 0);
        if fits {
            *next = numbered;
            return Ok(bytes);
        }
    }
}

impl Core {
    /// The core's references for those in a value that is to be sent, in order.
    pub fn references(&mut self, shared: &Arc<Shared>, value: &Value, references: &mut Vec<Ref>) -> Result<(), Error> {
        let mut misplaced = false;
        value.each_reference(&mut |reference| {
            references.push(match reference {
                Reference::Local(object) => match object.stands_for() {
                    // Another peer's object that was handed on as ours, now on its way home.
                    Some(proxy) if proxy.is_of(shared) => Ref::Import(proxy.import()),
                    _ => Ref::Local(self.objects.intern(object)),
                },
                Reference::Remote(proxy) if proxy.is_of(shared) => Ref::Import(proxy.import()),
                Reference::Remote(proxy) => Ref::Local(self.objects.intern_foreign(proxy)),
                Reference::Promise(promise) => match promise.0.question {
                    Some(question) if Arc::ptr_eq(&promise.0.shared, shared) => Ref::Promise(question),
                    _ => {
                        misplaced = true;
                        Ref::Import(Import::DIRECTORY)
                    }
                },
            });
        });
        if misplaced {
            return Err(Error::Misplaced("a promise stands where only its outcome can"));
        }
        Ok(())
    }

    /// What the handles of a message are here, as values.
    pub fn read_references(&mut self, shared: &Arc<Shared>, handles: Handles<'_>) -> Vec<Value> {
        handles.map(|handle| self.read_handle(shared, handle)).collect()
    }

    fn read_handle(&mut self, shared: &Arc<Shared>, handle: Descriptor) -> Value {
        let is_owned = matches!(handle, Descriptor::Sender { .. });
        let resolved = self.session.resolve(handle);
        self.read_resolved(shared, resolved, is_owned)
    }

    /// `is_owned` says that a hold of an import came with it.
    fn read_resolved(&mut self, shared: &Arc<Shared>, resolved: Option<CoreReference>, is_owned: bool) -> Value {
        match resolved {
            Some(CoreReference::Import(import)) => {
                Value::Reference(Reference::Remote(self.proxy(shared, import, is_owned)))
            }
            Some(CoreReference::Local(key)) => match self.objects.get(key) {
                Some(object) => Value::Reference(match object.stands_for() {
                    Some(proxy) => Reference::Remote(proxy.clone()),
                    None => Reference::Local(object),
                }),
                None => Value::None,
            },
            Some(CoreReference::Value(kept)) => self.read_kept(shared, kept),
            Some(CoreReference::None) | None => Value::None,
        }
    }

    /// A value that was kept for pipelined calls.
    pub fn read_kept(&mut self, shared: &Arc<Shared>, kept: Kept) -> Value {
        let body = self.session.kept_body(kept).to_vec();
        let Some((handles, values)) = read_kept(&body) else { return Value::None };
        let references: Vec<_> = handles
            .map(|handle| {
                let resolved = self.session.resolve_kept(handle);
                self.read_resolved(shared, resolved, false)
            })
            .collect();
        values.first().map_or(Value::None, |value| read_value(value, &references))
    }

    /// The one proxy of an import.
    pub fn proxy(&mut self, shared: &Arc<Shared>, import: Import, is_owned: bool) -> Proxy {
        if let Some(inner) = self.proxies.get(&import).and_then(std::sync::Weak::upgrade) {
            if is_owned {
                // The proxy has its hold already.
                let _ = self.session.release(import);
            }
            return Proxy::from_inner(inner);
        }
        if !is_owned {
            let _ = self.session.retain(import);
        }
        let proxy = Proxy::new(shared.clone(), import);
        self.proxies.insert(import, Arc::downgrade(proxy.inner()));
        proxy
    }

    /// Objects that got a key for a message that was not sent lose it again.
    pub fn drop_unexported(&mut self, references: &[Ref]) {
        for reference in references {
            if let Ref::Local(key) = *reference
                && !self.session.is_exported(key)
            {
                // The caller still holds it, so that nothing of a user is dropped under the lock.
                drop(self.objects.remove(key));
            }
        }
    }
}
