//! Evaluation with pipelining: nothing is waited for that need not be.
//!
//! Each step of a chain is a call on the promise of the step before, and a chain that stands as an argument is started
//! and passed as a promise. So a chain of any length, and the chains in its arguments, are one round trip.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farref_pipe::{Args, Connection, Error, ErrorCode, List, Map, Op, Promise, Proxy, Reference, Remote, Value};
use num_bigint::{BigInt, Sign};

use crate::expr::{self, Expr, ExprKind, Span, Step, StepKind};

/// What went wrong, and at which step of the expression.
#[derive(Debug)]
pub struct Fault {
    /// What.
    pub error: Error,
    /// Where.
    pub span: Span,
}

/// Where a call stands in the expression.
#[derive(Clone, Copy)]
struct Place {
    /// Its step or steps.
    whole: Span,
    /// The name in it.
    name: Span,
}

/// The steps of an expression on their way. Another thread may look on.
#[derive(Clone, Default)]
pub struct Steps(Arc<Mutex<Started>>);

#[derive(Default)]
struct Started {
    /// All calls made so far on which others may build, those that others build on before those.
    promises: Vec<(Promise, Place)>,
    /// The last call, while it is waited for.
    last: Option<Place>,
}

impl Steps {
    /// Where the first of them stands that has no answer yet.
    pub fn first_unanswered(&self) -> Option<Span> {
        let started = self.lock();
        let waiting = started.promises.iter().find(|(promise, _)| promise.outcome().is_none());
        waiting.map(|(_, place)| *place).or(started.last).map(|place| place.whole)
    }

    fn lock(&self) -> MutexGuard<'_, Started> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evaluates an expression: its names are the peer's roots.
pub fn evaluate(connection: &Connection, expr: &Expr, steps: &Steps) -> Result<Value, Fault> {
    let result = Evaluation { connection, root: connection.root(), steps }.whole(expr);
    // Nothing is kept at the peer that was only a step on the way.
    let promises = std::mem::take(&mut steps.lock().promises);
    drop(promises);
    result
}

struct Evaluation<'c> {
    connection: &'c Connection,
    root: Proxy,
    steps: &'c Steps,
}

/// A call that is ready to be made.
struct Request {
    target: Target,
    op: Op,
    args: Args,
    place: Place,
}

enum Target {
    Root,
    Promise(Promise),
}

/// What one message asks for: a step, or a name and the call of it.
struct Link<'e> {
    op: Op,
    /// Of a member.
    name: Option<&'e str>,
    positional: &'e [Expr],
    keyword: &'e [(String, Expr)],
    place: Place,
}

/// Promises that one message may name, that of its target included (ANS-2).
const MOST_PROMISES: usize = 4;

impl Evaluation<'_> {
    fn whole(&mut self, expr: &Expr) -> Result<Value, Fault> {
        match &expr.kind {
            ExprKind::Name(_) => self.last_request(expr, &[]),
            ExprKind::Chain { head, steps } => self.last_request(head, steps),
            _ => {
                let mut value = self.value(expr)?;
                self.settle(&mut value, expr.span.into())?;
                Ok(value)
            }
        }
    }

    /// What it evaluates to, as far as that is known; promises stand for the rest.
    fn value(&mut self, expr: &Expr) -> Result<Value, Fault> {
        Ok(match &expr.kind {
            ExprKind::None => Value::None,
            ExprKind::Bool(value) => Value::Bool(*value),
            ExprKind::Int(value) => integer(value),
            ExprKind::Float(value) => Value::Float(*value),
            ExprKind::Str(text) => Value::Str(text.clone()),
            ExprKind::Bytes(bytes) => Value::Bytes(bytes.clone()),
            ExprKind::Tuple(items) => Value::Tuple(self.values(items)?),
            ExprKind::List(items) => {
                let mut items = self.values(items)?;
                items.iter_mut().try_for_each(|item| self.settle(item, expr.span.into()))?;
                Reference::local(List::new(items)).into()
            }
            ExprKind::Map(pairs) => {
                let mut entries = Vec::with_capacity(pairs.len());
                for (key, value) in pairs {
                    entries.push((self.value(key)?, self.value(value)?));
                }
                for (key, value) in &mut entries {
                    self.settle(key, expr.span.into())?;
                    self.settle(value, expr.span.into())?;
                }
                Reference::local(Map::new(entries)).into()
            }
            ExprKind::Name(_) => self.promise(expr, &[])?,
            ExprKind::Chain { head, steps } => self.promise(head, steps)?,
        })
    }

    fn values(&mut self, exprs: &[Expr]) -> Result<Vec<Value>, Fault> {
        exprs.iter().map(|expr| self.value(expr)).collect()
    }

    /// Starts a whole chain.
    fn promise(&mut self, head: &Expr, steps: &[Step]) -> Result<Value, Fault> {
        let last = self.request(head, steps)?;
        Ok(Reference::Promise(self.start(last)?).into())
    }

    /// Makes all calls of a chain and waits. Nothing builds on the last one, which is cheaper than a promise.
    fn last_request(&mut self, head: &Expr, steps: &[Step]) -> Result<Value, Fault> {
        let Request { target, op, args, place } = self.request(head, steps)?;
        let pending = match &target {
            Target::Root => self.root.start_op(op, args),
            Target::Promise(promise) => promise.start_op(op, args),
        };
        self.steps.lock().last = Some(place);
        let result = pending.and_then(|pending| pending.wait());
        self.steps.lock().last = None;
        result.map_err(|error| self.fault(error, place))
    }

    /// Starts all calls of a chain but the last.
    fn request(&mut self, head: &Expr, steps: &[Step]) -> Result<Request, Fault> {
        let (mut target, links) = match &head.kind {
            ExprKind::Name(name) => (Target::Root, fuse(Some((name, head.span)), steps)),
            _ => {
                let mut value = self.value(head)?;
                self.settle(&mut value, head.span.into())?;
                (Target::Promise(self.connection.settled(value)), fuse(None, steps))
            }
        };
        let (last, before) = links.split_last().expect("a chain has a step");
        for link in before {
            let request = self.prepare(target, link)?;
            target = Target::Promise(self.start(request)?);
        }
        self.prepare(target, last)
    }

    fn prepare(&mut self, target: Target, link: &Link<'_>) -> Result<Request, Fault> {
        let mut args = Args::from(self.values(link.positional)?);
        if let Some(name) = link.name {
            args.positional.insert(0, name.into());
        }
        for (name, value) in link.keyword {
            args.named.push((name.clone(), self.value(value)?));
        }
        let room = MOST_PROMISES - usize::from(matches!(target, Target::Promise(_)));
        self.leave_promises(&mut args, room, link.place)?;
        Ok(Request { target, op: link.op, args, place: link.place })
    }

    fn start(&mut self, request: Request) -> Result<Promise, Fault> {
        let Request { target, op, args, place } = request;
        let started = match &target {
            Target::Root => self.root.promise_op(op, args),
            Target::Promise(promise) => promise.promise_op(op, args),
        };
        let promise = started.map_err(|error| self.fault(error, place))?;
        self.steps.lock().promises.push((promise.clone(), place));
        Ok(promise)
    }

    /// Waits for so many of the promises among the arguments that at most `room` are left.
    fn leave_promises(&self, args: &mut Args, room: usize, place: Place) -> Result<(), Fault> {
        let values = || args.positional.iter().chain(args.named.iter().map(|(_, value)| value));
        let mut left: usize = values().map(promises_in).sum();
        for value in args.positional.iter_mut().chain(args.named.iter_mut().map(|(_, value)| value)) {
            if left <= room {
                break;
            }
            left -= promises_in(value);
            self.settle(value, place)?;
        }
        Ok(())
    }

    /// Puts what each promise settles to in its place.
    fn settle(&self, value: &mut Value, place: Place) -> Result<(), Fault> {
        match value {
            Value::Reference(Reference::Promise(promise)) => {
                *value = promise.wait().map_err(|error| self.fault(error, place))?;
            }
            Value::Tuple(items) => items.iter_mut().try_for_each(|item| self.settle(item, place))?,
            _ => {}
        }
        Ok(())
    }

    /// Finds the step that came to grief first: whatever builds on it fails after it and with its error.
    fn fault(&self, error: Error, place: Place) -> Fault {
        let failed = |(promise, place): &(Promise, Place)| Some((promise.outcome()?.err()?, *place));
        let (error, place) = self.steps.lock().promises.iter().find_map(failed).unwrap_or((error, place));
        let is_name = matches!(error, Error::Refused(ErrorCode::NoSuchMember, _));
        Fault { error, span: if is_name { place.name } else { place.whole } }
    }
}

impl From<Span> for Place {
    fn from(whole: Span) -> Self {
        Self { whole, name: whole }
    }
}

/// The messages that a chain takes: a name and the call of it are one.
fn fuse<'e>(name: Option<(&'e String, Span)>, steps: &'e [Step]) -> Vec<Link<'e>> {
    let mut links: Vec<Link<'e>> = Vec::with_capacity(steps.len() + 1);
    let attribute = |name: &'e str, span: Span| {
        let place = span.into();
        Link { op: Op::GetAttr, name: Some(name), positional: &[], keyword: &[], place }
    };
    links.extend(name.map(|(name, span)| attribute(name, span)));
    for step in steps {
        match &step.kind {
            StepKind::Attr(name) => links.push(attribute(name, step.span)),
            StepKind::Call(expr::Args { positional, keyword }) => match links.last_mut() {
                Some(link) if link.op == Op::GetAttr => {
                    link.op = Op::CallMethod;
                    (link.positional, link.keyword) = (positional, keyword);
                    link.place.whole.end = step.span.end;
                }
                _ => {
                    let place = step.span.into();
                    links.push(Link { op: Op::Call, name: None, positional, keyword, place });
                }
            },
            StepKind::Item(key) => {
                let positional = std::slice::from_ref(key);
                let place = step.span.into();
                links.push(Link { op: Op::GetItem, name: None, positional, keyword: &[], place });
            }
        }
    }
    links
}

fn promises_in(value: &Value) -> usize {
    let mut count = 0;
    value.each_reference(&mut |reference| count += usize::from(matches!(reference, Reference::Promise(_))));
    count
}

fn integer(value: &BigInt) -> Value {
    match i64::try_from(value) {
        Ok(value) => Value::Int(value),
        Err(_) => {
            let (sign, magnitude) = value.to_bytes_le();
            Value::BigInt(sign == Sign::Minus, magnitude)
        }
    }
}
