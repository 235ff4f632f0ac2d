//! Functions as objects.

use std::sync::Arc;

use farref_core::message::Op;

use crate::args::Args;
use crate::call::block_on;
use crate::error::Error;
use crate::object::{Action, Object, Runs};
use crate::pool::Task;
use crate::value::Value;

/// A function as an object: it can be called, by several callers at the same time.
///
/// ```
/// use farref_host::{Error, Function, Value};
///
/// let double = Function::inline(|args| match args.get(0).and_then(Value::as_int) {
///     Some(number) => Ok(Value::Int(2 * number)),
///     None => Err(Error::bad_arguments("a number")),
/// });
/// ```
pub struct Function<F>(F, Runs);

impl<F: Fn(Args) -> Result<Value, Error> + Send + Sync + 'static> Function<F> {
    /// Wraps a function, which may take its time and make calls: each call of it has a thread for itself.
    pub fn new(function: F) -> Self {
        Self(function, Runs::Blocking)
    }

    /// Wraps a function that is quick and never waits: it [runs inline](Runs::Inline).
    pub fn inline(function: F) -> Self {
        Self(function, Runs::Inline)
    }
}

impl<F: Fn(Args) -> Result<Value, Error> + Send + Sync + 'static> Object for Function<F> {
    fn is_concurrent(&self) -> bool {
        true
    }

    fn runs(&self) -> Runs {
        self.1
    }

    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        match action {
            Action::Call => (self.0)(args),
            other => not_called(&other),
        }
    }
}

/// A function that gives a future, as an object: see [`Async`](crate::Async).
///
/// ```
/// use farref_host::{AsyncFunction, AsyncRemote, Error, Proxy};
///
/// let call_back = AsyncFunction::new(|mut args| async move {
///     let callee = Proxy::try_from(args.positional.remove(0)).map_err(|_| Error::bad_arguments("something to call"))?;
///     callee.call(["hello"]).await
/// });
/// ```
pub struct AsyncFunction<F>(F);

impl<F, G> AsyncFunction<F>
where
    F: Fn(Args) -> G + Send + Sync + 'static,
    G: Future<Output = Result<Value, Error>> + Send + 'static,
{
    /// Wraps a function.
    pub fn new(function: F) -> Self {
        Self(function)
    }
}

impl<F, G> Object for AsyncFunction<F>
where
    F: Fn(Args) -> G + Send + Sync + 'static,
    G: Future<Output = Result<Value, Error>> + Send + 'static,
{
    fn is_concurrent(&self) -> bool {
        true
    }

    fn runs(&self) -> Runs {
        Runs::Async
    }

    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        match action {
            Action::Call => block_on((self.0)(args)),
            other => not_called(&other),
        }
    }

    fn perform_as_task(self: Arc<Self>, op: Op, args: Args) -> Task<Result<Value, Error>> {
        if op == Op::Call {
            return Box::pin((self.0)(args));
        }
        Box::pin(std::future::ready(crate::object::operate(&*self, op, args)))
    }
}

fn not_called(action: &Action<'_>) -> Result<Value, Error> {
    match action {
        Action::Text(_) => Ok(Value::from("<function>")),
        other => other.unsupported(),
    }
}
