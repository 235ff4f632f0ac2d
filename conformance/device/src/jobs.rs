//! What calls the other side, and what waits.

use core::cell::RefMut;
use core::future::poll_fn;
use core::task::Poll;

use embassy_futures::join::{join, join_array};
use farref_embassy::{Call, Callee, Error, ErrorCode, Later, ObjectKey, Op, Ref, Returned, Value, ValueWriter};
use heapless::Vec;

use crate::held::{Held, Item, Own, REFERENCES, copy};
use crate::objects::write_echo;
use crate::{ARGUMENTS, CALLS, Fixtures, Kind, MESSAGE, Name, code_of};

/// A call that was put off. The first of the arguments is what is called.
pub(crate) enum Job<'c> {
    Echo(Arguments<'c>, bool),
    Raise(Arguments<'c>),
    Refuse(ErrorCode, Arguments<'c>),
    Text(i64),
    Bytes(i64),
    Once(Arguments<'c>),
    Catch(Arguments<'c>),
    Times(Arguments<'c>, i64),
    Nest(Arguments<'c>, i64),
    Both(Arguments<'c>),
    Abandon(Arguments<'c>),
    Offer(Arguments<'c>, i64),
    CallKept(Option<Item<'c>>, Arguments<'c>),
    After(Arguments<'c>, Own<'c>),
    Drain(Arguments<'c>),
    Wait(Own<'c>, Name),
    Entered(Own<'c>, i64),
}

type Arguments<'c> = Held<'c, ARGUMENTS>;

/// What a call of ours has given.
enum Outcome<'c> {
    /// The other side's result or error.
    Returned(Returned<'c>),
    /// An object of our own was called.
    Number(i64),
    /// It could not be called.
    Failed(Error),
}

/// What `bytes` gives the first ones of.
static BYTES: [u8; MESSAGE] = {
    let mut bytes = [0; MESSAGE];
    let mut place = 0;
    while place < MESSAGE {
        bytes[place] = place as u8;
        place += 1;
    }
    bytes
};

impl<'c> Fixtures<'c> {
    /// Does what was put off, for ever.
    pub async fn run(&self) -> ! {
        let mut place = 0;
        let workers: [_; CALLS] = core::array::from_fn(|_| {
            place += 1;
            self.work(place - 1)
        });
        join_array(workers).await;
        core::future::pending().await
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "others look at a job only to see whether its place is free")]
    async fn work(&self, place: usize) {
        let Some(job) = self.jobs.get(place) else { return };
        loop {
            {
                let found = || RefMut::filter_map(job.try_borrow_mut().ok()?, Option::as_mut).ok();
                let (later, todo) = &*self.wait_for(found).await;
                // Whoever waits for a reply after the end of the session waits for nothing.
                let _ = self.answer(*later, todo).await;
            }
            drop(job.replace(None));
        }
    }

    /// Waits until something is there.
    async fn wait_for<R>(&self, mut look: impl FnMut() -> Option<R>) -> R {
        poll_fn(|cx| match look() {
            Some(found) => Poll::Ready(found),
            None => {
                self.worker.borrow_mut().register(cx.waker());
                Poll::Pending
            }
        })
        .await
    }

    async fn answer(&self, later: Later<'c>, job: &Job<'c>) -> Result<(), Error> {
        match job {
            Job::Echo(args, is_one) => {
                let references = args.references(self.peer)?;
                later.reply(&references, |writer| write_echo(writer, args.values(), *is_one)).await
            }
            Job::Raise(args) => self.raise(later, args).await,
            Job::Refuse(code, values) => {
                let references = values.references(self.peer)?;
                later.fail(*code, &references, |writer| values.write(writer, 0)).await
            }
            Job::Text(length) => {
                later.reply(&[], |writer| writer.text(format_args!("{:x<1$}", "", *length as usize))).await
            }
            Job::Bytes(length) => match BYTES.get(..*length as usize) {
                Some(bytes) => later.reply(&[], |writer| writer.bytes(bytes)).await,
                None => {
                    let size = *length + 10;
                    later.fail(ErrorCode::ResultTooLarge, &[], |writer| writer.int(size)).await
                }
            },
            Job::Once(args) => {
                let outcome = self.call(later, args.items.first(), Some(args)).await;
                self.pass(later, outcome).await
            }
            Job::Catch(args) => {
                let outcome = self.call(later, args.items.first(), Some(args)).await;
                self.catch(later, outcome).await
            }
            Job::CallKept(kept, args) => {
                let outcome = self.call(later, kept.as_ref(), Some(args)).await;
                self.pass(later, outcome).await
            }
            Job::Times(args, count) => self.times(later, args, *count).await,
            Job::Nest(_, 0) => later.reply(&[], |writer| writer.str("bottom")).await,
            Job::Nest(args, depth) => self.nest_deeper(later, args, *depth).await,
            Job::Both(args) => self.both(later, args).await,
            Job::Abandon(args) => {
                if let Some(Item::Theirs(f)) = args.items.first() {
                    let call = Call::new(f.callee(), Op::Call).parent(later.call());
                    // It goes out with the first poll; then nobody wants to know.
                    let mut called = core::pin::pin!(f.perform(call, |_| Ok(())));
                    poll_fn(|cx| {
                        let _ = called.as_mut().poll(cx);
                        Poll::Ready(())
                    })
                    .await;
                }
                later.reply(&[], |writer| writer.none()).await
            }
            Job::Offer(args, count) => self.offer(later, args, *count).await,
            Job::After(args, thing) => match self.call(later, args.items.first(), None).await {
                Outcome::Returned(returned) if returned.done().is_ok() => {
                    let number = self.number(thing.key).unwrap_or(0);
                    later.reply(&[], |writer| writer.int(number)).await
                }
                other => self.pass(later, other).await,
            },
            Job::Drain(args) => self.drain(later, args).await,
            Job::Wait(slow, name) => {
                let opened = self
                    .wait_for(|| Some(self.gate(slow.key, name)).filter(|gate| gate.is_some() || self.is_over(slow)));
                let Some((is_failure, held)) = opened.await else { return Err(Error::Stale) };
                if is_failure && let Some(Value::Str(exception)) = held.values().first() {
                    let raise = |writer: &mut ValueWriter<'_>| {
                        writer.exception_head(exception, 0)?;
                        writer.exception_tail(None, None)
                    };
                    return later.fail(ErrorCode::Raised, &[], raise).await;
                }
                let references = held.references(self.peer)?;
                later.reply(&references, |writer| held.write(writer, 0)).await
            }
            Job::Entered(slow, count) => {
                let entered = self
                    .wait_for(|| Some(self.entered(slow.key)).filter(|entered| entered >= count || self.is_over(slow)));
                let entered = entered.await;
                later.reply(&[], |writer| writer.int(entered)).await
            }
        }
    }

    /// The session is over, and with it all that could open a gate.
    fn is_over(&self, _: &Own<'c>) -> bool {
        !self.peer.is_connected()
    }

    /// Calls an object with all arguments but the first.
    async fn call(&self, later: Later<'c>, f: Option<&Item<'c>>, args: Option<&Arguments<'c>>) -> Outcome<'c> {
        let f = match f {
            Some(Item::Theirs(f)) => f,
            Some(Item::Ours(own)) => match self.number(own.key) {
                Some(number) => return Outcome::Number(number),
                None => return Outcome::Failed(Error::Unexpected),
            },
            None => return Outcome::Failed(Error::Unexpected),
        };
        // The first argument is a reference if it is what is called, and a name if that is kept.
        let named = args.and_then(|args| args.values().first());
        let first = usize::from(matches!(named, Some(Value::Reference(_))));
        let references = match args {
            Some(args) => args.references(self.peer),
            None => Ok(Vec::new()),
        };
        let Ok(references) = references else { return Outcome::Failed(Error::Stale) };
        let call = Call::new(f.callee(), Op::Call).parent(later.call());
        let returned = f.perform(call.references(references.get(first..).unwrap_or_default()), |writer| {
            let Some(args) = args else { return Ok(()) };
            args.values()
                .into_iter()
                .skip(1)
                .try_for_each(|value| copy(writer, value, &mut |index| (index as usize).saturating_sub(first)))
        });
        match returned.await {
            Ok(returned) => Outcome::Returned(returned),
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Gives a result as it came; an exception is let through.
    async fn pass(&self, later: Later<'c>, outcome: Outcome<'c>) -> Result<(), Error> {
        match outcome {
            Outcome::Number(number) => later.reply(&[], |writer| writer.int(number)).await,
            Outcome::Failed(error) => later.raise("RuntimeError", reason(error)).await,
            Outcome::Returned(returned) => {
                let code = returned.read_error(|code, _| code);
                let held = Held::<ARGUMENTS>::of_result(&returned, self.holds);
                drop(returned);
                let Some(held) = held else {
                    return later.raise("MemoryError", "there is no room for the result").await;
                };
                let references = held.references(self.peer)?;
                match code {
                    None => later.reply(&references, |writer| held.write(writer, 0)).await,
                    Some(ErrorCode::Raised) => {
                        later.fail(ErrorCode::Raised, &references, |writer| held.write(writer, 0)).await
                    }
                    Some(_) => later.raise("RuntimeError", "what was called has refused").await,
                }
            }
        }
    }

    /// Gives a result, an exception as a value, or the tuple of a code and its values.
    async fn catch(&self, later: Later<'c>, outcome: Outcome<'c>) -> Result<(), Error> {
        let returned = match outcome {
            Outcome::Failed(error) if let Some(code) = code_of(error) => {
                return later
                    .reply(&[], |writer| {
                        writer.tuple(1)?;
                        writer.int(code.number() as i64)
                    })
                    .await;
            }
            Outcome::Returned(returned) => returned,
            other => return self.pass(later, other).await,
        };
        let Some(code) = returned.read_error(|code, _| code) else {
            return self.pass(later, Outcome::Returned(returned)).await;
        };
        let held = Held::<ARGUMENTS>::of_result(&returned, self.holds);
        drop(returned);
        let Some(held) = held else { return later.raise("MemoryError", "there is no room for the result").await };
        let references = held.references(self.peer)?;
        let write = |writer: &mut ValueWriter<'_>| match code {
            ErrorCode::Raised => held.write(writer, 0),
            code => {
                writer.tuple(1 + held.values().len())?;
                writer.int(code.number() as i64)?;
                held.write(writer, 0)
            }
        };
        later.reply(&references, write).await
    }

    async fn raise(&self, later: Later<'c>, args: &Arguments<'c>) -> Result<(), Error> {
        let references = args.references(self.peer)?;
        let values = args.values();
        let raise = |writer: &mut ValueWriter<'_>| {
            let Some(Value::Str(name)) = values.first() else { return writer.none() };
            writer.exception_head(name, values.positional().count() - 1)?;
            let number = &mut |index: u32| index as usize;
            values.positional().skip(1).try_for_each(|value| copy(writer, value, number))?;
            let text = if let Some(Value::Str(text)) = values.named("text") { Some(text) } else { None };
            let traceback =
                if let Some(Value::Reference(index)) = values.named("traceback") { Some(index as usize) } else { None };
            writer.exception_tail(text, traceback)
        };
        later.fail(ErrorCode::Raised, &references, raise).await
    }

    async fn times(&self, later: Later<'c>, args: &Arguments<'c>, count: i64) -> Result<(), Error> {
        let Some(Item::Theirs(f)) = args.items.first() else { return later.raise("TypeError", "no function").await };
        let mut results: Vec<i64, 100> = Vec::new();
        for number in 0..count {
            let call = Call::new(f.callee(), Op::Call).parent(later.call());
            let outcome = match f.perform(call, |writer| writer.int(number)).await {
                Ok(returned) => returned,
                Err(error) => return self.pass(later, Outcome::Failed(error)).await,
            };
            match outcome.int() {
                Ok(result) => {
                    if results.push(result).is_err() {
                        return later.raise("MemoryError", "there is no room for so many results").await;
                    }
                }
                Err(_) => return self.pass(later, Outcome::Returned(outcome)).await,
            }
        }
        let write = |writer: &mut ValueWriter<'_>| {
            writer.tuple(results.len())?;
            results.iter().try_for_each(|&result| writer.int(result))
        };
        later.reply(&[], write).await
    }

    async fn nest_deeper(&self, later: Later<'c>, args: &Arguments<'c>, depth: i64) -> Result<(), Error> {
        let Some(Item::Theirs(f)) = args.items.first() else { return later.raise("TypeError", "no function").await };
        let Some(deeper) = self.make(Kind::Nest) else { return later.raise("MemoryError", "no room").await };
        let references = [self.sent(&deeper)];
        let call = Call::new(f.callee(), Op::Call).parent(later.call()).references(&references);
        let called = f.perform(call, |writer| {
            writer.reference(0)?;
            writer.int(depth - 1)
        });
        match called.await {
            Ok(returned) => self.pass(later, Outcome::Returned(returned)).await,
            Err(error) => {
                self.unsent(&deeper, error);
                self.pass(later, Outcome::Failed(error)).await
            }
        }
    }

    async fn both(&self, later: Later<'c>, args: &Arguments<'c>) -> Result<(), Error> {
        let (Some(Item::Theirs(f)), Some(Item::Theirs(g))) = (args.items.first(), args.items.get(1)) else {
            return later.raise("TypeError", "no functions").await;
        };
        let call = |callee: Callee| Call::new(callee, Op::Call).parent(later.call());
        let (first, second) =
            join(f.perform(call(f.callee()), |_| Ok(())), g.perform(call(g.callee()), |_| Ok(()))).await;
        let mut results: Vec<Held<'c, 64>, 2> = Vec::new();
        for result in [first, second] {
            match result {
                Err(error) => return self.pass(later, Outcome::Failed(error)).await,
                Ok(returned) => match returned.done() {
                    Err(_) => return self.pass(later, Outcome::Returned(returned)).await,
                    Ok(()) => {
                        let Some(held) = Held::of_result(&returned, self.holds) else {
                            return later.raise("MemoryError", "there is no room for the result").await;
                        };
                        let _ = results.push(held);
                    }
                },
            }
        }
        let mut references: Vec<Ref, { 2 * REFERENCES }> = Vec::new();
        for held in &results {
            let _ = references.extend_from_slice(&held.references(self.peer)?);
        }
        let write = |writer: &mut ValueWriter<'_>| {
            writer.tuple(results.len())?;
            let mut first = 0;
            results.iter().try_for_each(|held| {
                held.write(writer, first)?;
                first += held.items.len();
                Ok(())
            })
        };
        later.reply(&references, write).await
    }

    async fn offer(&self, later: Later<'c>, args: &Arguments<'c>, count: i64) -> Result<(), Error> {
        let Some(Item::Theirs(f)) = args.items.first() else { return later.raise("TypeError", "no function").await };
        let things: Vec<Own<'c>, REFERENCES> =
            (0..count).take(REFERENCES).map_while(|_| self.new_thing(ObjectKey::DIRECTORY)).collect();
        let references: Vec<Ref, REFERENCES> = things.iter().map(|thing| self.sent(thing)).collect();
        let call = Call::new(f.callee(), Op::Call).parent(later.call()).references(&references);
        let called = f.perform(call, |writer| (0..references.len()).try_for_each(|number| writer.reference(number)));
        match called.await {
            Ok(returned) => self.catch(later, Outcome::Returned(returned)).await,
            Err(error) => {
                things.iter().for_each(|thing| self.unsent(thing, error));
                self.catch(later, Outcome::Failed(error)).await
            }
        }
    }

    fn sent(&self, own: &Own<'c>) -> Ref {
        self.holds.set_exported(own.key, true);
        Ref::Local(own.key)
    }

    /// It was new, and the call that it was for could not be made.
    fn unsent(&self, own: &Own<'c>, error: Error) {
        if matches!(error, Error::Call(_)) {
            self.holds.set_exported(own.key, false);
        }
    }

    async fn drain(&self, later: Later<'c>, args: &Arguments<'c>) -> Result<(), Error> {
        let Some(Item::Theirs(sequence)) = args.items.first() else {
            return later.fail(ErrorCode::BadArguments, &[], |writer| writer.str("drain(sequence)")).await;
        };
        let parent = later.call();
        let iterator = sequence.perform(Call::new(sequence.callee(), Op::Iterate).parent(parent), |_| Ok(())).await;
        let iterator = match iterator {
            Ok(returned) => match returned.remote() {
                Ok(iterator) => iterator,
                Err(_) => return self.pass(later, Outcome::Returned(returned)).await,
            },
            Err(error) => return self.pass(later, Outcome::Failed(error)).await,
        };
        let mut count = 0;
        loop {
            let next = Call::new(iterator.callee(), Op::Next).parent(parent);
            let batch = match iterator.perform(next, |writer| writer.int(8)).await {
                Ok(returned) => returned,
                Err(error) => return self.pass(later, Outcome::Failed(error)).await,
            };
            match batch.read(|value| if let Value::Tuple(items) = value { items.len() as i64 } else { -1 }) {
                Ok(0) => break,
                Ok(more @ 1..) => count += more,
                _ => return self.pass(later, Outcome::Returned(batch)).await,
            }
        }
        // The iterator is released before the reply.
        drop(iterator);
        later.reply(&[], |writer| writer.int(count)).await
    }
}

fn reason(error: Error) -> &'static str {
    match error {
        Error::Call(_) => "the call could not be made",
        Error::Unexpected => "that is nothing to call",
        _ => "the call has failed",
    }
}
