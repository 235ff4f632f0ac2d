//! Many calls that are made at once, and whose outcomes are waited for together.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use farref_core::message::Op;
use farref_core::session::{Call, Callee, Question};

use crate::args::Args;
use crate::call::{Caller, Needs, NotStarted, WasTold};
use crate::core::Core;
use crate::current::{Parent, time_left};
use crate::error::Error;
use crate::pool::Garbage;
use crate::proxy::ProxyInner;
use crate::shared::{Dropped, Shared};
use crate::value::Value;

/// A future of the outcomes. Dropping it cancels the calls that have not returned.
pub(crate) struct Many {
    shared: Arc<Shared>,
    key: ManyKey,
    is_over: bool,
}

/// Where a [`Many`]'s outcomes are kept. A place that is used again has another serial number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ManyKey {
    place: u32,
    serial: u32,
}

/// One of its calls.
#[derive(Clone, Copy)]
pub(crate) struct OneOfMany {
    many: ManyKey,
    index: u32,
}

/// The outcomes of all [`Many`] of a session, so that a Return finds its place without another lock.
#[derive(Default)]
pub(crate) struct Manies {
    places: Vec<Outcomes>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Outcomes {
    serial: u32,
    calls: Vec<Outcome>,
    left: usize,
    waiting: Option<Waker>,
}

enum Outcome {
    Open(Question),
    Settled(Result<Value, Error>),
}

impl Manies {
    fn add(&mut self) -> ManyKey {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Outcomes::default());
            (self.places.len() - 1) as u32
        });
        ManyKey { place, serial: self.places[place as usize].serial }
    }

    fn get(&mut self, key: ManyKey) -> Option<&mut Outcomes> {
        self.places.get_mut(key.place as usize).filter(|outcomes| outcomes.serial == key.serial)
    }

    /// What is known of the calls; the place is free.
    fn remove(&mut self, key: ManyKey) -> Vec<Outcome> {
        let Some(outcomes) = self.get(key) else { return Vec::new() };
        let calls = std::mem::take(&mut outcomes.calls);
        *outcomes = Outcomes { serial: key.serial.wrapping_add(1), ..Outcomes::default() };
        self.free.push(key.place);
        calls
    }
}

impl Core {
    /// The Return of one of many calls came, or never will.
    pub fn settle_one(&mut self, one: OneOfMany, result: Result<Value, Error>) {
        let Some(outcomes) = self.manies.get(one.many) else { return };
        outcomes.left -= 1;
        outcomes.calls[one.index as usize] = Outcome::Settled(result);
        if outcomes.left == 0 {
            self.wakes.extend(outcomes.waiting.take());
        }
    }

    /// Nobody waits for them any more: the calls among them that are still open, to be cancelled.
    pub fn forget_many(&mut self, key: ManyKey) -> Vec<Question> {
        let mut open = Vec::new();
        let mut values = Vec::new();
        for call in self.manies.remove(key) {
            match call {
                Outcome::Open(question) => open.push(question),
                Outcome::Settled(Ok(value)) => values.push(value),
                Outcome::Settled(Err(_)) => {}
            }
        }
        self.garbage.extend(Garbage::values(values));
        open
    }
}

/// Calls made between two turns of the lock: few enough for an allocator to have their memory at hand.
const TOGETHER: usize = 6;

/// Makes calls with each of these arguments at once: they go out together, and the outcomes come together.
pub(crate) async fn many(
    proxy: &Arc<ProxyInner>,
    op: Op,
    name: Option<&str>,
    args: impl IntoIterator<Item = Args>,
) -> Many {
    let shared = proxy.shared().clone();
    let many = Many { shared: shared.clone(), key: shared.lock().manies.add(), is_over: false };
    let mut all = args.into_iter();
    // A few at a time, and made before the lock is taken: the iterator is code of users.
    let mut few = VecDeque::with_capacity(TOGETHER);
    let mut told = WasTold::new(&shared);
    loop {
        few.extend(all.by_ref().take(TOGETHER));
        if few.is_empty() {
            return many;
        }
        let lacking = {
            let (deadline, parent) = (time_left(&shared), Parent::over(&shared));
            let mut core = shared.lock();
            let parent = parent.and_then(|parent| parent.answer(&core));
            let mut lacking = None;
            while let Some(args) = few.front_mut() {
                let mut needs = Needs::default(); // a promise among the arguments is not held on to
                let call = Call {
                    callee: Callee::Import(proxy.import()),
                    op,
                    references: &[],
                    pipelined: false,
                    parent,
                    deadline,
                };
                let made = core.make_call(&shared, call, name, args, &mut needs);
                let Some(outcomes) = core.manies.get(many.key) else { break };
                match made {
                    Ok(question) => {
                        let index = outcomes.calls.len() as u32;
                        outcomes.calls.push(Outcome::Open(question));
                        outcomes.left += 1;
                        core.add_call(question, Caller::Of(OneOfMany { many: many.key, index }));
                        few.pop_front();
                        told.used(());
                    }
                    Err(NotStarted::Wait(listener)) => {
                        told.used(());
                        lacking = Some(listener);
                        break;
                    }
                    Err(NotStarted::Error(error)) => {
                        outcomes.calls.push(Outcome::Settled(Err(error)));
                        // What was not sent may be the last of an object of users.
                        let values = few.pop_front().map(Args::into_values).unwrap_or_default();
                        core.garbage.extend(Garbage::values(values));
                    }
                }
            }
            shared.unlock(core);
            lacking
        };
        if let Some(listener) = lacking {
            listener.await;
            told.is_told = true;
        }
    }
}

impl Future for Many {
    type Output = Vec<Result<Value, Error>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let calls = {
            let mut core = self.shared.lock();
            let Some(outcomes) = core.manies.get(self.key) else { return Poll::Pending };
            if outcomes.left > 0 {
                outcomes.waiting = Some(cx.waker().clone());
                return Poll::Pending;
            }
            core.manies.remove(self.key)
        };
        self.is_over = true;
        let results = calls.into_iter().filter_map(|call| match call {
            Outcome::Settled(result) => Some(result),
            Outcome::Open(_) => None,
        });
        Poll::Ready(results.collect())
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.note_dropped(Dropped::Many(self.key));
        }
    }
}
