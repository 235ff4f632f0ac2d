//! What is under a session's lock: the core's session, and what stands for its slots and ids here.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Instant;

use farref_core::message::{CloseCode, DownReason, ErrorCode, FinishMode, Limits};
use farref_core::session::{Config, Ended, Event, Host, Import, LinkMode, Notice, Question, Session, Tables};

use crate::budget::Charge;
use crate::call::Caller;
use crate::cancel::Interrupts;
use crate::connection::Options;
use crate::end::{Heir, Lost};
use crate::error::Error;
use crate::many::Manies;
use crate::object::Directory;
use crate::objects::LocalObjects;
use crate::pool::Garbage;
use crate::proxy::ProxyInner;
use crate::resume::{LinkState, PeerIdentity};
use crate::serve::{Done, Job, Lanes, Reply};
use crate::shared::{Dropped, Shared};
use crate::time::{Clock, Deadline};
use crate::translate;

/// What is under the lock.
pub(crate) struct Core {
    pub session: Session<Host>,
    pub objects: LocalObjects,
    /// The one proxy of each import, by slot.
    pub proxies: Vec<Weak<ProxyInner>>,
    /// Open calls by their id.
    pub calls: Vec<Option<(Question, Caller)>>,
    pub manies: Manies,
    pub lanes: Lanes,
    pub interrupts: Interrupts,
    pub clock: Clock,
    /// Calls of ours whose deadline has passed, and which have no Return yet.
    pub late: Vec<Question>,
    /// For calls that have none of their own.
    pub deadline: Option<farref_core::message::Deadline>,
    /// Calls of the peer to be run by whoever has the lock, as soon as it has given it up.
    pub inline: Vec<Job>,
    /// Room for what they gave.
    pub done: Vec<Done>,
    /// Replies for which there was no room.
    pub unsent: VecDeque<Reply>,
    /// What is left over since the last [`Shared::unlock`]: dropping it may run code of users.
    pub garbage: Vec<Garbage>,
    /// Sessions to which an object of the peer was handed on that is lost.
    pub bereft: Vec<(Heir, DownReason)>,
    /// Who is to be woken when the lock is given up.
    pub wakes: Vec<Waker>,
    pub scratch: Vec<u8>,
    /// For all that it keeps, but for arguments and results.
    pub memory: Charge,
    /// Bytes of the buffer that output was last taken with.
    pub writing: usize,
    /// The session has just ended by itself: because there was no memory for it, or nothing left to do.
    pub just_ended: bool,
    pub said_hello: bool,
    pub heard_hello: bool,
    /// Everything that was to be sent was, or never will be.
    pub said_all: bool,
    /// The session is over and everybody was told.
    pub ending: bool,
    /// Nothing is written any more: the other side has stopped reading. What it still sends is read to its end.
    pub deaf: bool,
    pub draining: bool,
    /// Who we are, as Hello says it.
    pub own: PeerIdentity,
    /// Below it is a line that loses messages, which the session does not notice.
    pub is_on_line: bool,
    /// There is no connection.
    pub parked: Option<Parked>,
    /// Why the session never began.
    pub failed: Option<Error>,
}

/// A session without a connection.
pub(crate) struct Parked {
    pub since: Instant,
    pub attempts: u32,
    pub last: Option<Error>,
}

impl Core {
    pub fn new(directory: Directory, options: &Options, link: LinkMode, now: Instant) -> Self {
        let config = config(options, link);
        Self {
            session: Session::new(config),
            objects: LocalObjects::new(Arc::new(directory)),
            proxies: Vec::new(),
            calls: Vec::new(),
            manies: Manies::default(),
            lanes: Lanes::default(),
            interrupts: Interrupts::default(),
            clock: Clock::new(now),
            late: Vec::new(),
            deadline: options.deadline.map(Deadline::on_the_wire),
            inline: Vec::new(),
            done: Vec::new(),
            unsent: VecDeque::new(),
            garbage: Vec::new(),
            bereft: Vec::new(),
            wakes: Vec::new(),
            scratch: Vec::new(),
            memory: options.memory.charge(),
            writing: 0,
            just_ended: false,
            said_hello: false,
            heard_hello: false,
            said_all: false,
            ending: false,
            deaf: false,
            draining: false,
            own: PeerIdentity { peer: config.peer.into_bytes(), incarnation: config.incarnation },
            is_on_line: link == LinkMode::Line,
            parked: None,
            failed: None,
        }
    }

    pub fn take_record(&mut self, shared: &Arc<Shared>, body: &[u8]) -> Result<(), Ended> {
        match &self.session.handle(body) {
            Err(ended) => return Err(*ended),
            Ok(Some(Event::Request(request))) => self.serve(shared, request),
            Ok(Some(Event::Return(returned))) => {
                let mut result = translate::read_outcome(self, shared, returned);
                if let Some(caller) = self.remove_call(returned.question) {
                    self.note_late(returned.question, &mut result);
                    caller.settle(result, self);
                }
            }
            Ok(Some(Event::Ready)) if self.peer() == Some(self.own) => {
                // Our own Hello: the channel gives back what is written into it (HEL-5).
                self.failed = Some(Error::NoPeer);
                self.session.close(CloseCode::ProtocolFault);
                return Err(Ended::Closed(CloseCode::ProtocolFault));
            }
            Ok(Some(Event::Ready) | None) => {}
        }
        Ok(())
    }

    /// Calls that waited for an answer of ours and may run now.
    #[inline]
    pub fn take_ready(&mut self, shared: &Arc<Shared>) {
        if self.session.has_ready() {
            self.take_all_ready(shared);
        }
    }

    fn take_all_ready(&mut self, shared: &Arc<Shared>) {
        let mut memory = shared.memory.charge();
        while self.session.has_ready() {
            let mut scratch = mem::take(&mut self.scratch);
            let length = self.session.limits().max_message as usize;
            // Without memory for it the calls are refused as overloaded.
            if scratch.is_empty() && memory.set(length) {
                // Zeroed by the operating system, and only as far as it is used; `resize` would touch all of it.
                scratch = vec![0; length];
            }
            let ready = self.session.poll_ready(&mut scratch);
            if let Some(request) = &ready {
                self.serve(shared, request);
            }
            let is_last = ready.is_none() || !self.session.has_ready();
            if !is_last {
                self.scratch = scratch;
            }
        }
    }

    /// Runs a call whose turn it is: here, as soon as the lock is given up, or elsewhere.
    pub fn dispatch(&mut self, shared: &Arc<Shared>, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            if job.is_inline() {
                self.inline.push(job);
                return;
            }
            let (answer, lane) = (job.answer(), job.lane());
            if let Err(work) = shared.driver.run(job.into_work(shared.clone())) {
                let _ = self.session.refuse(answer, ErrorCode::Overloaded, 0);
                self.garbage.push(Garbage::work(work));
                next = self.lanes.leave(lane);
            }
        }
    }

    /// Replies to a call that was run, and lets those go on that waited for it.
    pub fn finish(&mut self, shared: &Arc<Shared>, done: Done) {
        let Done { reply, lane } = done;
        self.forget_interrupt(shared, reply.answer());
        self.reply(shared, reply);
        if let Some(next) = self.lanes.leave(lane) {
            self.dispatch(shared, next);
        }
        self.take_ready(shared);
    }

    pub fn reply(&mut self, shared: &Arc<Shared>, mut reply: Reply) {
        let lent = mem::take(&mut reply.lent);
        if shared.memory.is_limited() {
            self.make_room(reply.memory());
        }
        match reply.send(self, shared) {
            Ok(garbage) => {
                self.end_loans(&lent);
                self.garbage.extend(garbage);
            }
            Err(mut reply) => {
                reply.lent = lent;
                // A result that nobody takes counts, and what cannot be kept is not lost without a word.
                if !reply.charge() {
                    self.garbage.extend(reply.refuse());
                }
                self.unsent.push_back(reply);
            }
        }
    }

    /// Charges what it takes now; if that is more than there is, the session is over.
    pub fn charge(&mut self, shared: &Shared) {
        if shared.memory.is_limited() {
            self.charge_with(0);
        }
    }

    /// Charges output before it grows to so many bytes more.
    pub fn make_room(&mut self, bytes: usize) {
        let (have, length) = (self.session.output_capacity(), self.session.output_len());
        if length + bytes > have {
            let grown = (length + bytes).next_power_of_two().min(length + self.session.room());
            self.charge_with(grown.saturating_sub(have));
        }
    }

    pub fn charge_with(&mut self, more: usize) {
        // In steps, so that what comes and goes at once costs nothing.
        let takes = (self.takes() + more).next_multiple_of(4096);
        if !self.memory.set(takes) && self.session.ended().is_none() {
            self.session.close(CloseCode::OutOfResources);
            self.end_itself();
        }
    }

    /// The session has ended where nobody asked for it.
    pub fn end_itself(&mut self) {
        self.end();
        self.just_ended = true;
    }

    /// About how much memory is taken by what belongs to the session; objects and what they hold are not counted, and what is
    /// for a call of the peer is counted with it.
    pub fn takes(&self) -> usize {
        self.session.memory()
            + self.writing
            + self.objects.memory()
            + self.proxies.capacity() * size_of::<Weak<ProxyInner>>()
            + self.session.tables().imports as usize * OF_A_PROXY
            + self.calls.capacity() * OF_A_CALL
            + OF_A_SESSION
    }

    pub fn retry_unsent(&mut self, shared: &Arc<Shared>) {
        for _ in 0..self.unsent.len() {
            let Some(reply) = self.unsent.pop_front() else { break };
            self.reply(shared, reply);
        }
        self.take_ready(shared);
    }

    /// Looks after what became true: objects that nobody holds any more are let go.
    pub fn take_notices(&mut self, shared: &Shared) {
        if self.objects.has_weak() {
            self.look_for_gone(false);
        }
        while let Some(notice) = self.session.poll_notice() {
            match notice {
                Notice::Freed(key) => self.garbage.extend(self.objects.remove(key).map(Garbage::object)),
                Notice::Interrupted(answer) => self.interrupt(shared, answer),
                Notice::DeadlineExceeded(question) => self.pass_deadline(question),
                Notice::Down { import, reason } => {
                    if let Some(proxy) = self.proxy_of(import) {
                        self.tell_end(&proxy, Lost::Down(reason));
                    }
                }
            }
        }
    }

    pub fn add_call(&mut self, question: Question, caller: Caller) {
        let id = usize::from(question.id());
        if self.calls.len() <= id {
            self.calls.resize_with(id + 1, || None);
        }
        self.calls[id] = Some((question, caller));
    }

    pub fn remove_call(&mut self, question: Question) -> Option<Caller> {
        let open = self.calls.get_mut(usize::from(question.id()))?;
        match open {
            Some((have, _)) if *have == question => open.take().map(|(_, caller)| caller),
            _ => None,
        }
    }

    /// The call of ours with that question, if somebody waits for it.
    pub fn caller(&self, question: Question) -> Option<&Caller> {
        let (have, caller) = self.calls.get(usize::from(question.id()))?.as_ref()?;
        (*have == question).then_some(caller)
    }

    pub fn proxy_of(&self, import: Import) -> Option<Arc<ProxyInner>> {
        let proxy = self.proxies.get(import.slot() as usize)?.upgrade()?;
        (proxy.import() == import).then_some(proxy)
    }

    pub fn add_proxy(&mut self, import: Import, proxy: &Arc<ProxyInner>) {
        let slot = import.slot() as usize;
        if self.proxies.len() <= slot {
            self.proxies.resize_with(slot + 1, Weak::new);
        }
        self.proxies[slot] = Arc::downgrade(proxy);
    }

    /// Calls that could be made now, as far as ids go.
    pub fn free_calls(&self) -> usize {
        let most = self.session.peer().map_or(0, |peer| peer.limits.answers);
        usize::from(most).saturating_sub(self.session.tables().questions as usize)
    }

    /// Who the peer is, once it has said Hello.
    pub fn peer(&self) -> Option<PeerIdentity> {
        let hello = self.session.peer()?;
        Some(PeerIdentity { peer: hello.peer.into_bytes(), incarnation: hello.incarnation })
    }

    pub fn link_state(&self) -> LinkState {
        match (self.session.ended(), &self.parked) {
            (Some(ended), _) => LinkState::Over(ended),
            (None, None) => LinkState::Up,
            (None, Some(Parked { since, attempts, last })) => {
                LinkState::Parked { since: *since, attempts: *attempts, last: last.clone() }
            }
        }
    }

    /// Whether nothing can be sent any more.
    pub fn is_over(&self) -> bool {
        self.deaf || self.ending
    }

    /// If no call of the peer wants a Return any more.
    pub fn is_drained(&self) -> Option<()> {
        let is_idle = !self.session.is_serving() && self.unsent.is_empty();
        (is_idle || self.session.ended().is_some()).then_some(())
    }

    /// Why the session is over, once everything that it had to say was said.
    pub fn closed(&self) -> Option<Ended> {
        self.session.ended().filter(|_| self.said_all)
    }

    /// Whether all that was to be sent was taken.
    pub fn all_sent(&mut self) -> bool {
        self.unsent.is_empty() && self.session.transmit().is_empty()
    }

    /// Whether nothing is under way and all tables are as they were right after Hello.
    pub fn is_at_baseline(&self) -> bool {
        self.session.tables() == Tables { exports: 1, ..Tables::default() }
    }

    pub fn forget(&mut self, dropped: Dropped) {
        match dropped {
            Dropped::Import(import) => {
                if let Some(proxy) = self.proxies.get_mut(import.slot() as usize)
                    && proxy.strong_count() == 0
                {
                    *proxy = Weak::new();
                }
                let _ = self.session.release(import);
            }
            Dropped::Many(key) => {
                self.forget_many(key).into_iter().for_each(|question| self.forget(Dropped::Call(question)));
            }
            Dropped::Lost(key, reason) => self.revoke_forwarder(key, reason),
            Dropped::Gone => self.look_for_gone(true),
            Dropped::Call(question) => {
                // It is asked to stop, and nobody hears whether it did.
                let _ = self.session.cancel(question, FinishMode::Interrupt);
                let _ = self.session.cancel(question, FinishMode::Abandon);
                self.late.retain(|&late| late != question);
                if let Some(caller) = self.remove_call(question) {
                    self.garbage.extend(caller.into_garbage());
                }
            }
        }
    }

    /// The session is over: whoever waits is told.
    pub fn end(&mut self) {
        self.ending = true;
        let ended = self.session.ended().unwrap_or(Ended::LinkLost);
        self.tell_all_ends(ended);
        for (question, caller) in mem::take(&mut self.calls).into_iter().flatten() {
            // What waits for a connection that is there still goes out, before a Close or to a peer that only hung up.
            let goes_out = self.session.is_up() && !(self.is_on_line && is_line_over(ended));
            let may_have_started = goes_out || self.session.may_have_started(question);
            let error = if may_have_started { Error::Ended(ended) } else { Error::NeverStarted(ended) };
            caller.settle(Err(error), self);
        }
        let unsent = mem::take(&mut self.unsent);
        self.garbage.extend(unsent.into_iter().filter_map(Reply::into_garbage));
        self.garbage.extend(self.objects.clear().into_iter().map(Garbage::object));
        let never_run = self.lanes.clear().into_iter().chain(mem::take(&mut self.inline));
        self.garbage.extend(never_run.map(Garbage::job));
    }
}

/// Whether a line carries nothing more of a session that has ended so (LNK-22, LNK-26).
fn is_line_over(ended: Ended) -> bool {
    matches!(ended, Ended::LinkLost | Ended::PeerRestarted)
}

/// What a proxy takes, a call to the peer, and a session without either, with its task.
const OF_A_PROXY: usize = 128;
const OF_A_CALL: usize = 256;
const OF_A_SESSION: usize = 4096;

fn config(options: &Options, link: LinkMode) -> Config {
    let PeerIdentity { peer, incarnation } = options.identity.unwrap_or_else(PeerIdentity::random);
    Config {
        limits: Limits {
            max_message: options.max_message,
            // Slot 0 of both sides is the directory.
            imports: options.imports.saturating_add(1).min(Limits::MAX_IMPORTS),
            answers: options.serving,
            call_bytes: options.call_bytes,
            handles: options.handles,
            levels: options.levels,
        },
        exports: options.exports.saturating_add(1),
        calls: options.calls,
        out_bytes: options.output.max(128),
        store_bytes: options.store,
        peer: uuid::Uuid::from_bytes(peer),
        incarnation,
        link,
        // A side that bears any silence pings for one that does not.
        patience: Some(options.patience.unwrap_or_default().as_millis().min(u32::MAX.into()) as u32),
    }
}
