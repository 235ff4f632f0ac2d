//! Between what stands in messages and what users have: references in values, both ways, and operations on values.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use farref_core::codec::Writer;
use farref_core::message::{Descriptor, ErrorCode, Handles, Op};
use farref_core::session::{CallError, Import, Kept, ObjectKey, Ref, Reference as CoreReference, Return, read_kept};
use farref_core::value::{Outcome, Top, Value as Borrowed, ValueError, ValueWriter, Values, operate};

use crate::args::{Args, Positional};
use crate::core::Core;
use crate::end::Lost;
use crate::error::Error;
use crate::object::Object;
use crate::proxy::Proxy;
use crate::shared::Shared;
use crate::value::{Reference, Value, memory_of_all};

/// The outcome of a call, its references made proxies.
pub(crate) fn read_outcome(core: &mut Core, shared: &Arc<Shared>, returned: &Return<'_>) -> Result<Value, Error> {
    let references = core.read_references(shared, returned.handles);
    let mut values = returned.values.map(|value| read_value(value, &references));
    match returned.outcome {
        Ok(()) => Ok(values.next().unwrap_or(Value::None)),
        Err(ErrorCode::Raised) => match values.next() {
            Some(Value::Exception(exception)) => Err(Error::Raised(exception)),
            _ => Err(Error::Refused(ErrorCode::Malformed, Vec::new())),
        },
        Err(code) => Err(Error::Refused(code, values.collect())),
    }
}

/// The arguments of a call of the peer.
pub(crate) fn read_args(values: Values<'_>, references: &[Value]) -> Result<Args, Error> {
    let mut args = Args { positional: Positional::with_capacity(values.len()), named: Vec::new() };
    let mut names = None;
    for value in values {
        match value {
            Borrowed::Named(named) if !names.get_or_insert_with(HashSet::new).insert(named.name()) => {
                return Err(Error::bad_arguments(format!("{} only once", named.name())));
            }
            Borrowed::Named(named) => args.named.push((named.name().to_owned(), read_value(value, references))),
            value => args.positional.push(read_value(value, references)),
        }
    }
    Ok(args)
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
                    _ => match object.weak_of() {
                        Some(weak) => Ref::Weak(self.intern_weak(shared, object, weak)),
                        None => Ref::Local(self.objects.intern(object)),
                    },
                },
                Reference::Lent(object) => match object.stands_for() {
                    Some(proxy) if proxy.is_of(shared) => Ref::Import(proxy.import()),
                    _ => Ref::Borrowed(self.objects.intern(object)),
                },
                Reference::Remote(proxy) if proxy.is_of(shared) => Ref::Import(proxy.import()),
                Reference::Remote(proxy) => Ref::Local(self.intern_foreign(shared, proxy)),
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

    /// The key of a weak reference; the session is told when its object goes.
    fn intern_weak(&mut self, shared: &Arc<Shared>, object: &Arc<dyn Object>, weak: &Weak<dyn Object>) -> ObjectKey {
        let (key, is_new) = self.objects.intern_weak(object, weak.as_ptr().cast::<()>() as usize);
        if let Some(mourners) = object.mourners().filter(|_| is_new) {
            mourners.add(shared);
        }
        key
    }

    /// The key of another peer's object; the session is told when that is lost.
    fn intern_foreign(&mut self, shared: &Arc<Shared>, proxy: &Proxy) -> ObjectKey {
        let (key, is_new) = self.objects.intern_foreign(proxy);
        if is_new {
            proxy.inner().end().add_heir(shared, key);
        }
        key
    }

    /// What the handles of a message are here, as values.
    pub fn read_references(&mut self, shared: &Arc<Shared>, handles: Handles<'_>) -> Vec<Value> {
        handles.map(|handle| self.read_handle(shared, handle)).collect()
    }

    fn read_handle(&mut self, shared: &Arc<Shared>, handle: Descriptor) -> Value {
        let is_owned = handle.of_sender().is_some();
        let resolved = self.session.resolve(handle);
        self.read_resolved(shared, resolved, is_owned)
    }

    /// `is_owned` says that a hold of an import came with it.
    fn read_resolved(&mut self, shared: &Arc<Shared>, resolved: Option<CoreReference>, is_owned: bool) -> Value {
        match resolved {
            Some(CoreReference::Import(import)) => {
                Value::Reference(Reference::Remote(self.proxy(shared, import, is_owned, false)))
            }
            Some(CoreReference::Weak(import)) => {
                Value::Reference(Reference::Remote(self.proxy(shared, import, is_owned, true)))
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

    /// The handles of a message that is not read any further are let go.
    pub fn release_references(&mut self, handles: Handles<'_>) {
        for handle in handles.filter(|handle| handle.of_sender().is_some()) {
            if let Some(CoreReference::Import(import) | CoreReference::Weak(import)) = self.session.resolve(handle) {
                let _ = self.session.release(import);
            }
        }
    }

    /// How much memory each handle takes because it names an answer that settled to a value.
    pub fn memory_of_handles(&self, handles: Handles<'_>) -> Vec<usize> {
        // There may be many handles, but few answers among them (ANS-2), each of which is measured once.
        let mut known: Vec<(Descriptor, usize)> = Vec::new();
        let mut memory_of = |handle| match known.iter().find(|(have, _)| *have == handle) {
            Some(&(_, memory)) => memory,
            None => {
                let memory = match self.session.resolve(handle) {
                    Some(CoreReference::Value(kept)) => self.memory_of_kept(kept),
                    _ => 0,
                };
                known.push((handle, memory));
                memory
            }
        };
        handles.map(|handle| if matches!(handle, Descriptor::Answer(_)) { memory_of(handle) } else { 0 }).collect()
    }

    /// How much memory a value takes that was kept for pipelined calls.
    pub fn memory_of_kept(&self, kept: Kept) -> usize {
        self.session.kept(kept).map_or(0, |(_, values)| memory_of_all(values, &mut |_| 0))
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
    pub fn proxy(&mut self, shared: &Arc<Shared>, import: Import, is_owned: bool, is_weak: bool) -> Proxy {
        if let Some(inner) = self.proxy_of(import) {
            if is_owned {
                // The proxy has its hold already.
                let _ = self.session.release(import);
            }
            return Proxy::from_inner(inner);
        }
        if !is_owned {
            let _ = self.session.retain(import);
        }
        let proxy = Proxy::new(shared.clone(), import, is_weak);
        // Of what came with a call that had to wait, the end may have come before the call started.
        if let Some(lost) = self.lost().or_else(|| self.session.down(import).map(Lost::Down)) {
            self.tell_end(proxy.inner(), lost);
        }
        self.add_proxy(import, proxy.inner());
        proxy
    }

    /// Objects that got a key for a message that was not sent lose it again.
    pub fn drop_unexported(&mut self, references: &[Ref]) {
        for reference in references {
            if let Ref::Local(key) | Ref::Borrowed(key) | Ref::Weak(key) = *reference
                && !self.session.is_exported(key)
            {
                // The caller still holds it, so that nothing of a user is dropped under the lock.
                drop(self.objects.remove(key));
            }
        }
    }
}
