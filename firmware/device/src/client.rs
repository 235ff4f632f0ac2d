//! What one session has, and what is done for it while no object performs: the peer is called.

use core::cell::{Cell, RefCell};
use core::future::pending;

use embassy_futures::join::join;
use embassy_futures::select::{Either, select};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use embassy_time::{Duration, Instant, Timer};
use farref_embassy::{Answer, Call, Error, Later, Op, Peer, Remote, ValueWriter};
use heapless::Vec;

use crate::Device;
use crate::button::Subscriber;
use crate::sensor::Sampling;
use crate::store::Entry;

/// One session's own.
pub struct Client {
    pub(crate) device: &'static Device,
    pub(crate) peer: Peer<'static>,
    pub(crate) subscribers: RefCell<Vec<Subscriber, 4>>,
    pub(crate) stored: RefCell<Vec<Entry, 8>>,
    pub(crate) samplings: RefCell<Vec<Sampling, 4>>,
    /// The call that waits for the time of day.
    pub(crate) syncing: Cell<Option<Later<'static>>>,
    pub(crate) is_rebooting: Cell<bool>,
    /// There is something to be done.
    pub(crate) news: Signal<NoopRawMutex, ()>,
}

/// For how long a reply may take to leave before a reboot.
const LEAVING: Duration = Duration::from_millis(200);

impl Client {
    /// Of the session on the connection that this is the peer of.
    pub fn new(device: &'static Device, peer: Peer<'static>) -> Self {
        Self {
            device,
            peer,
            subscribers: RefCell::new(Vec::new()),
            stored: RefCell::new(Vec::new()),
            samplings: RefCell::new(Vec::new()),
            syncing: Cell::new(None),
            is_rebooting: Cell::new(false),
            news: Signal::new(),
        }
    }

    /// Calls the peer, whatever session there is. It runs beside whatever carries the session, for ever.
    pub async fn run(&'static self) -> ! {
        join(self.tell(), self.do_jobs()).await;
        pending().await
    }

    /// The session is over, and with it all that names something of the peer.
    pub(crate) fn reset(&self) {
        self.subscribers.borrow_mut().clear();
        self.stored.borrow_mut().clear();
        self.samplings.borrow_mut().clear();
        self.syncing.set(None);
    }

    /// Tells each subscriber of each press, one after the other, and each once.
    async fn tell(&self) {
        let Some(mut presses) = self.device.presses.receiver() else { return };
        loop {
            let pressed = presses.changed().await;
            while let Some((listener, number)) = self.next_told(pressed) {
                let told = listener.call(|writer| writer.int(number.into())).await;
                if let Err(error) = told.and_then(|returned| returned.done()) {
                    self.failed("a listener", error);
                }
            }
        }
    }

    /// Somebody who has not been told of all presses up to this one, and of which. From now on they have.
    fn next_told(&self, pressed: u32) -> Option<(Remote<'static>, u32)> {
        let mut subscribers = self.subscribers.borrow_mut();
        let subscriber = subscribers.iter_mut().find(|subscriber| subscriber.next <= pressed)?;
        let number = subscriber.next;
        subscriber.next += 1;
        Some((subscriber.listener.clone(), number))
    }

    /// What takes its time: samples, the time of day, a reboot.
    async fn do_jobs(&self) {
        loop {
            if self.is_rebooting.get() {
                Timer::after(LEAVING).await;
                self.is_rebooting.set(false);
                self.device.hardware.reboot();
            }
            if let Some(call) = self.syncing.take() {
                self.sync(call).await;
            }
            let due = self.samplings.borrow().iter().map(|sampling| sampling.due).min();
            let due = async {
                match due {
                    Some(due) => Timer::at(due).await,
                    None => pending().await,
                }
            };
            if let Either::First(()) = select(due, self.news.wait()).await {
                self.sample().await;
            }
        }
    }

    /// Makes the measurements that are due.
    async fn sample(&self) {
        while let Some((call, listener)) = self.next_sampling() {
            let celsius = self.device.hardware.temperature();
            if let Some(listener) = &listener {
                let told = listener.call(|writer| writer.float(celsius.into())).await;
                if let Err(error) = told.and_then(|returned| returned.done()) {
                    self.failed("a stream", error);
                }
            }
            self.sampled(call, celsius);
            self.answer_samplings().await;
        }
    }

    /// One that is due.
    fn next_sampling(&self) -> Option<(Answer, Option<Remote<'static>>)> {
        let now = Instant::now();
        let samplings = self.samplings.borrow();
        let sampling = samplings.iter().find(|sampling| sampling.due <= now)?;
        let is_wanted = sampling.delivered < sampling.wanted;
        Some((sampling.call.call(), sampling.listener.clone().filter(|_| is_wanted)))
    }

    fn sampled(&self, call: Answer, celsius: f32) {
        let mut samplings = self.samplings.borrow_mut();
        let Some(sampling) = samplings.iter_mut().find(|sampling| sampling.call.call() == call) else { return };
        if sampling.delivered < sampling.wanted {
            sampling.delivered += 1;
            let _ = sampling.samples.push(celsius);
        }
        sampling.due = sampling.next_due();
    }

    /// Answers the calls that have all of theirs, or that nobody wants any more.
    async fn answer_samplings(&self) {
        loop {
            let done = {
                let mut samplings = self.samplings.borrow_mut();
                let is_done = |sampling: &Sampling| sampling.is_interrupted || sampling.delivered >= sampling.wanted;
                let Some(place) = samplings.iter().position(is_done) else { return };
                samplings.swap_remove(place)
            };
            let _ = match (done.is_interrupted, &done.listener) {
                (true, _) => done.call.cancel(),
                (false, Some(_)) => done.call.reply(&[], |writer| writer.int(done.delivered.into())).await,
                (false, None) => {
                    let samples = |writer: &mut ValueWriter<'_>| {
                        writer.tuple(done.samples.len())?;
                        done.samples.iter().try_for_each(|&celsius| writer.float(celsius.into()))
                    };
                    done.call.reply(&[], samples).await
                }
            };
        }
    }

    /// Asks the peer for the time of day, within a call of the peer's.
    async fn sync(&self, call: Later<'static>) {
        let root = self.peer.root();
        let asked =
            root.perform(Call::new(root.callee(), Op::CallMethod).parent(call.call()), |writer| writer.str("clock"));
        let time = asked.await.and_then(|returned| returned.int());
        let _ = match time {
            Ok(time) => {
                self.device.clock.set(Some(time - Instant::now().as_millis() as i64));
                call.reply(&[], |writer| writer.int(time)).await
            }
            Err(_) => call.raise("RuntimeError", "you have no `clock` that gives Unix milliseconds").await,
        };
    }

    fn failed(&self, what: &str, error: Error) {
        self.device.note(format_args!("{what}: {error}"));
    }
}
