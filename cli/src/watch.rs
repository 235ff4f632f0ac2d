//! What ends a client in the middle of its work: a signal, or too long a wait. It then leaves nothing unfinished behind.
//!
//! Calls block the thread that makes them. So it is another thread that undoes what is to be undone (the child process
//! is killed, the file that is not complete is removed) and ends the program, while the first one still waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, process, thread};

use crate::exit::{Exit, Failure};

/// What a limit of time is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// All from connecting on to the last answer.
    Whole,
    /// Each time without an answer of the peer. What this side does in between does not count.
    Silence,
}

/// Watches over the work of a client.
#[derive(Clone)]
pub struct Watch(Arc<Inner>);

struct Inner {
    limit: Option<(Duration, Limited)>,
    /// Held by the thread that ends the program, to the end.
    state: Mutex<State>,
    /// The signal that came.
    signal: Arc<AtomicUsize>,
}

struct State {
    /// What is not there yet, for "... within 5 s".
    stage: Box<dyn Fn() -> String + Send>,
    deadline: Option<Instant>,
    undo: Vec<(u64, Box<dyn FnOnce() + Send>)>,
    /// The number of the next of them.
    next: u64,
    over: bool,
}

/// Something that is to be undone if the program ends meanwhile; dropped, it is not any more.
#[must_use]
pub struct Undo {
    watch: Watch,
    number: u64,
}

/// Does the work of a client under watch.
pub fn over(
    timeout: Option<Duration>,
    limited: Limited,
    work: impl FnOnce(&Watch) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let watch = Watch::start(timeout.map(|limit| (limit, limited)))
        .map_err(|error| Failure::new(Exit::Local, format!("cannot watch for signals: {error}")))?;
    let result = work(&watch);
    watch.settle();
    result
}

impl Watch {
    fn start(limit: Option<(Duration, Limited)>) -> io::Result<Self> {
        let deadline = match limit {
            // Beyond what a clock can tell there is no limit.
            Some((limit, Limited::Whole)) => Instant::now().checked_add(limit),
            _ => None,
        };
        let stage = Box::new(|| "nothing was done".to_owned());
        let state = State { stage, deadline, undo: Vec::new(), next: 0, over: false };
        let watch = Self(Arc::new(Inner { limit, state: Mutex::new(state), signal: Arc::default() }));
        watch.heed_signals()?;
        if let Some((limit, _)) = limit {
            let watch = watch.clone();
            thread::Builder::new().name("farref-timeout".into()).spawn(move || watch.heed_time(limit))?;
        }
        Ok(watch)
    }

    /// The limit of time, if there is one.
    pub fn limit(&self) -> Option<Duration> {
        self.0.limit.map(|(limit, _)| limit)
    }

    /// Says what is waited for from now on: "`stage` within 5 s" is what the user reads.
    pub fn stage(&self, stage: impl Fn() -> String + Send + 'static) {
        self.lock().stage = Box::new(stage);
    }

    /// Does something that waits for the peer.
    pub fn waiting<T>(&self, work: impl FnOnce() -> T) -> T {
        let Some((limit, Limited::Silence)) = self.0.limit else { return work() };
        self.lock().deadline = Instant::now().checked_add(limit);
        let result = work();
        self.lock().deadline = None;
        result
    }

    /// The peer is not waited for any more.
    pub fn answered(&self) {
        self.lock().deadline = None;
    }

    /// Makes something together with what undoes it, so that no end can come in between.
    pub fn undoable<T, F: FnOnce() + Send + 'static, E>(
        &self,
        make: impl FnOnce() -> Result<(T, F), E>,
    ) -> Result<(T, Undo), E> {
        let mut state = self.lock();
        let (made, undo) = make()?;
        let number = state.note(undo);
        Ok((made, Undo { watch: self.clone(), number }))
    }

    /// Has something done if the program ends in the middle of its work.
    pub fn at_end(&self, undo: impl FnOnce() + Send + 'static) {
        self.lock().note(undo);
    }

    /// The work is done, or has failed by itself; if that is only because the program is being ended, this does not return.
    fn settle(&self) {
        if self.0.signal.load(Ordering::Relaxed) != 0 {
            // A signal that reached the child process, too, may have shown there first.
            loop {
                thread::park();
            }
        }
        self.lock().over = true;
    }

    #[cfg(unix)]
    fn heed_signals(&self) -> io::Result<()> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::flag::register_usize;
        use signal_hook::iterator::Signals;
        use signal_hook::low_level::emulate_default_handler;

        for signal in [SIGINT, SIGTERM] {
            register_usize(signal, self.0.signal.clone(), signal.unsigned_abs() as usize)?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let watch = self.clone();
        thread::Builder::new().name("farref-signals".into()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                watch.end(watch.lock(), || {
                    // For its shell to see what it has ended of; a number only if that cannot be done.
                    let _ = emulate_default_handler(signal);
                    128 + signal
                });
            }
        })?;
        Ok(())
    }

    #[cfg(not(unix))]
    fn heed_signals(&self) -> io::Result<()> {
        Ok(())
    }

    fn heed_time(&self, limit: Duration) {
        /// However short the limit is, looking at the clock is not all that is done.
        const SHORTEST: Duration = Duration::from_millis(2);
        loop {
            let state = self.lock();
            let now = Instant::now();
            let rest = match state.deadline.map(|deadline| deadline.saturating_duration_since(now)) {
                Some(Duration::ZERO) => {
                    // Before anything is undone, which changes what there is to tell.
                    let message = format!("{} within {} s", (state.stage)(), limit.as_secs_f64());
                    return self.end(state, || Failure::new(Exit::NoPeer, message).report() as i32);
                }
                Some(rest) => rest,
                // No deadline that is set from now on comes before the limit is over.
                None => limit,
            };
            drop(state);
            thread::sleep(rest.max(SHORTEST));
        }
    }

    /// Ends the program, unless it is ending anyway.
    fn end(&self, mut state: MutexGuard<'_, State>, code: impl FnOnce() -> i32) {
        if state.over {
            return;
        }
        for (_, undo) in std::mem::take(&mut state.undo).into_iter().rev() {
            undo();
        }
        process::exit(code());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, undo: impl FnOnce() + Send + 'static) -> u64 {
        let number = self.next;
        self.next += 1;
        self.undo.push((number, Box::new(undo)));
        number
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        self.watch.lock().undo.retain(|(number, _)| *number != self.number);
    }
}
