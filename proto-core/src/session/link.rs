//! Sessions that survive their connections (SPEC section 15): acknowledgement, replay and resume.
//!
//! Messages stay in the output until the peer has acknowledged them ([`Outgoing`](super::outgoing)); on another connection each
//! side says how much it has got, and the other goes on from there. So every message is delivered once and in order, or
//! the session ends.
//!
//! ```text
//!               ┌────────────── park ◄─────────────┐
//!               ▼                                  │
//!  up ── park ► parked ── resume (connects) ► resuming ── ResumeOk ──► up
//!               └──────── accept (accepts) ───────────────────────────► up
//! ```

use super::receive::fault;
use super::storage::{Blank, Buffer, Parts, Storage, Table};
use super::{Ended, Question, Rule, Session, VERSION};
use crate::Uuid;
use crate::codec::{Writer, varint_len};
use crate::message::{CloseCode, Hello, Limits, LinkOffer, Message, Resume, kind};

/// Whether and how a session survives its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkMode {
    /// It ends with it.
    #[default]
    Off,
    /// It can be resumed on another connection, if the peer offers that too (LNK-1).
    Resume {
        /// Drawn at random, told to nobody but the peer: whoever has it can take over the session.
        token: [u8; 16],
        /// For how long this side keeps the session without a connection, milliseconds.
        park: u32,
    },
    /// Below it is a line that loses messages: all are kept until [`Session::acknowledge`], and whoever drives the line numbers
    /// and repeats them (SPEC section 16).
    Line,
}

/// Why a session is not resumed with what a peer sent. That connection is to be closed, without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResumeRefused {
    /// It names another session.
    OtherSession,
    /// A later attempt has come already (LNK-5).
    Superseded,
    /// It claims to have got what was never sent, or less than it had acknowledged: the session has ended.
    Fault,
}

/// What a session knows of its link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Link<P: Parts> {
    mode: Mode,
    /// Ours, if it can be resumed.
    token: [u8; 16],
    state: State,
    /// Both sides have offered it.
    agreed: bool,
    /// Of the last attempt to resume, either way.
    attempt: u32,
    /// The peer has said that it has got our Hello.
    hello_acked: bool,
    /// Bytes received since the last Ack.
    untold: u32,
    /// From how many on one is due.
    tell_at: u32,
    due: Due,
    /// A Ping went out for the room that is lacking, and no Ack has come since.
    asked: bool,
    control: P::Control,
    start: u8,
    end: u8,
}

/// A [`LinkMode`] without what is only told to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    Off,
    Resume,
    Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Up,
    Parked,
    Resuming,
}

/// What is to be said outside the order: latest values, of which none needs room (LNK-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Due {
    resume: bool,
    resumed: bool,
    ack: bool,
    ping: bool,
}

/// The longest message outside the order, with the length before it.
pub(super) const CONTROL: usize = 2 + 16 + 5 + 10;

impl<P: Parts> Blank for Link<P> {
    const BLANK: Self = Self {
        mode: Mode::Off,
        token: [0; 16],
        state: State::Up,
        agreed: false,
        attempt: 0,
        hello_acked: false,
        untold: 0,
        tell_at: 0,
        due: Due { resume: false, resumed: false, ack: false, ping: false },
        asked: false,
        control: P::Control::BLANK,
        start: 0,
        end: 0,
    };
}

impl<P: Parts> Link<P> {
    pub fn begin(&mut self, mode: LinkMode) {
        match mode {
            LinkMode::Resume { token, .. } if P::RESUMES => (self.mode, self.token) = (Mode::Resume, token),
            LinkMode::Line => self.mode = Mode::Line,
            _ => {}
        }
        self.tell_at = u32::MAX;
        self.control.set_limit(CONTROL);
    }

    /// Whether what was transmitted is kept.
    pub fn keeps(&self) -> bool {
        self.mode != Mode::Off
    }

    /// We offer to resume the session.
    pub fn is_offered(&self) -> bool {
        P::RESUMES && self.mode == Mode::Resume
    }

    /// Whether both sides have offered to resume.
    pub fn is_agreed(&self) -> bool {
        P::RESUMES && self.agreed
    }

    pub fn is_resuming(&self) -> bool {
        P::RESUMES && self.state == State::Resuming
    }

    /// Whether nothing of the order may be sent.
    pub fn is_silent(&self) -> bool {
        P::RESUMES && self.state != State::Up
    }

    /// A sequenced message of so many bytes came.
    pub fn got(&mut self, bytes: usize) {
        if P::RESUMES {
            self.untold = self.untold.saturating_add(bytes as u32 + LENGTH);
            self.due.ack |= self.untold >= self.tell_at;
        }
    }

    /// The peer wants to know what has come (LNK-3).
    pub fn acknowledge_soon(&mut self) {
        self.due.ack |= self.is_agreed();
    }

    /// Something is to be said.
    pub fn ping(&mut self) {
        self.due.ping |= P::RESUMES && self.state == State::Up;
    }

    /// A message waits for room that only an Ack can make.
    pub fn ask(&mut self) {
        self.due.ping |= self.is_agreed() && !self.asked && self.state == State::Up;
    }

    pub fn control(&self) -> &[u8] {
        self.control.bytes().get(self.start.into()..self.end.into()).unwrap_or_default()
    }

    pub fn control_taken(&mut self, count: usize) {
        let start = usize::from(self.start).saturating_add(count).min(self.end.into());
        self.start = start as u8;
    }

    pub fn has_control(&self) -> bool {
        P::RESUMES && (self.start < self.end || self.due != Due::default())
    }
}

/// What a record takes at least beside its body.
const LENGTH: u32 = 1;

impl<S: Storage> Session<S> {
    /// Whether the session can be resumed on another connection: both sides offered it (LNK-1).
    pub fn is_resumable(&self) -> bool {
        self.link.is_agreed()
    }

    /// The connection is gone, or the peer has been [silent](Self::advance) for too long. If the session can live on without, it is parked until [`Self::resume`] or
    /// [`Self::accept`]; else it has ended, and this is false.
    ///
    /// A session that has not heard the peer's Hello is kept too by the side that connects: it begins again.
    pub fn park(&mut self) -> bool {
        let can_wait = self.link.is_agreed() || self.peer().is_none() && self.link.is_offered();
        if !can_wait || self.ended.is_some() {
            self.link_lost();
            return false;
        }
        self.link.state = State::Parked;
        (self.link.due, self.link.asked) = (Due::default(), false);
        (self.link.start, self.link.end) = (0, 0);
        true
    }

    /// Whether it has no connection.
    pub fn is_parked(&self) -> bool {
        S::Parts::RESUMES && self.link.state == State::Parked
    }

    /// Whether it has asked to go on over another connection and has no answer yet.
    pub fn is_resuming(&self) -> bool {
        self.link.is_resuming()
    }

    /// What the peer names this session by when it resumes it, if the session can be resumed.
    pub fn token(&self) -> Option<[u8; 16]> {
        self.is_resumable().then_some(self.link.token)
    }

    /// Whether messages can go both ways: it is neither parked nor still waits for an answer to its attempt to resume.
    pub fn is_up(&self) -> bool {
        !self.link.is_silent()
    }

    /// The peer has said Hello again, on another connection and as another incarnation: it knows nothing of this session,
    /// which is over (LNK-8).
    pub fn peer_restarted(&mut self) {
        self.end(Ended::PeerRestarted);
    }

    /// There is another connection, which this side has opened. Its output begins with the preamble, and then what
    /// [`Self::transmit`] gives; what is received goes to [`Self::handle`] (LNK-4).
    pub fn resume(&mut self) {
        self.link.attempt += 1;
        self.time.heard = true;
        if self.peer().is_none() {
            // Nothing but Hello was ever sent, and the peer may not have got it (LNK-7).
            self.out.rewind();
            self.link.state = State::Up;
        } else {
            self.link.state = State::Resuming;
            self.link.due.resume = true;
        }
    }

    /// Another connection began with this. Before this is called the one before must have been closed and what it may still
    /// bring be thrown away: it would be taken for messages of the new one. What is received on the new one goes to
    /// [`Self::handle`], what [`Self::transmit`] gives belongs there, behind the preamble (LNK-4).
    ///
    /// # Errors
    /// The new connection is to be closed; nothing else has changed, except after [`ResumeRefused::Fault`].
    pub fn accept(&mut self, resume: &Resume) -> Result<(), ResumeRefused> {
        if !self.link.is_offered() || self.link.token != resume.token || self.ended.is_some() {
            return Err(ResumeRefused::OtherSession);
        }
        if resume.attempt <= self.link.attempt {
            return Err(ResumeRefused::Superseded);
        }
        self.link.attempt = resume.attempt;
        self.park();
        match self.on_got(resume.got) {
            Ok(()) => {}
            Err(ended) => {
                self.end(ended);
                return Err(ResumeRefused::Fault);
            }
        }
        self.link.due.resumed = true;
        self.time.heard = true;
        self.go_on();
        Ok(())
    }

    /// How many messages of the peer have come: its Hello, and the sequenced ones (LNK-2).
    pub fn got(&self) -> u64 {
        if self.peer().is_some() { self.received + 1 } else { 0 }
    }

    /// The next record that was not transmitted. For whoever drives a line ([`LinkMode::Line`]) instead of
    /// [`Self::transmit`], as the next three.
    pub fn next_record(&mut self) -> Option<&[u8]> {
        self.pump();
        self.out.next_record()
    }

    /// What [`Self::next_record`] gave was transmitted.
    pub fn record_transmitted(&mut self) {
        self.time.said = true;
        self.out.taken_record();
    }

    /// All that was transmitted and not acknowledged is to be transmitted again.
    pub fn rewind(&mut self) {
        self.out.go_back();
    }

    /// The peer has got so many more records: the first ones that are kept need not be.
    pub fn acknowledge(&mut self, count: u64) {
        self.out.forget_first(count);
    }

    /// Whether a call of ours may have been started by the peer, now that the session has ended without its Return (LNK-6).
    /// It may also have been if output that waited is transmitted after the end.
    pub fn may_have_started(&self, question: Question) -> bool {
        let Some(entry) = self.questions.get(question.id.into()).filter(|entry| entry.ordinal == question.ordinal)
        else {
            return false;
        };
        (self.sent as u32).wrapping_sub(entry.ordinal) >= self.undelivered
    }

    /// Whether what was transmitted may have to be transmitted again even when the session has ended: its last word is lost as
    /// easily as any other.
    pub(super) fn is_on_line(&self) -> bool {
        self.link.mode == Mode::Line
    }

    pub(super) fn link_offer(&self, mode: LinkMode) -> Option<LinkOffer> {
        match mode {
            LinkMode::Resume { token, park } if S::Parts::RESUMES => {
                Some(LinkOffer { token, replay: u32::try_from(self.out.limit()).unwrap_or(u32::MAX), park })
            }
            _ => None,
        }
    }

    /// The peer's Hello tells whether there is a link.
    pub(super) fn link_agreed(&mut self) {
        match (self.link.mode, &self.peer.link) {
            (Mode::Resume, Some(offer)) if S::Parts::RESUMES => {
                self.link.agreed = true;
                // A quarter of what the peer keeps (LNK-3).
                self.link.tell_at = (offer.replay / 4).max(1);
            }
            (Mode::Line, _) => {}
            _ => self.out.forget(),
        }
    }

    /// The peer's answer to our attempt to resume.
    pub(super) fn on_resumed(&mut self, body: &[u8]) -> Result<(), Ended> {
        let own = self.link.token;
        match Message::read(body).map_err(|_| fault(Rule::Envelope))? {
            // One that has not got our Hello cannot know its token, and wants all from there.
            Message::ResumeOk { token, got } if token == if got > 0 { own } else { [0; 16] } => {
                self.on_got(got)?;
                self.go_on();
                Ok(())
            }
            Message::SessionGone { incarnation, got } => {
                let is_same = self.peer().is_some_and(|peer| peer.incarnation == incarnation);
                let ended = if is_same { Ended::SessionGone } else { Ended::PeerRestarted };
                self.end(ended);
                if is_same && got > 0 {
                    let lost = u32::try_from(self.sent.saturating_sub(got - 1)).unwrap_or(u32::MAX);
                    self.undelivered = self.undelivered.max(lost);
                }
                Err(ended)
            }
            Message::Close(close) => Err(Ended::PeerClosed(close.code)),
            _ => Err(fault(Rule::LinkOrder)),
        }
    }

    /// On another connection, with what the peer has not got. It has not told whether a Goodbye is part of that.
    fn go_on(&mut self) {
        self.out.rewind();
        self.link.state = State::Up;
        self.unsay_goodbye();
    }

    pub(super) fn on_ack(&mut self, got: u64) -> Result<(), Ended> {
        if !self.link.is_agreed() {
            return Err(fault(Rule::NoLink));
        }
        self.on_got(got)
    }

    fn on_got(&mut self, got: u64) -> Result<(), Ended> {
        // Hello is the first, and has no ordinal.
        let transmitted = self.sent - u64::from(self.out.unsent()) + 1;
        let acked = transmitted - u64::from(self.out.kept());
        let least = if self.link.hello_acked { acked } else { 0 };
        if got < least || got > transmitted {
            return Err(fault(Rule::AckOutOfRange));
        }
        self.link.asked = false;
        if got > 0 {
            self.link.hello_acked = true;
            self.out.acknowledge((got - acked) as u32);
        }
        Ok(())
    }

    /// Writes what is to be said outside the order, if the order leaves a place for it here; false if there is nothing.
    pub(super) fn pump_control(&mut self) -> bool {
        if !S::Parts::RESUMES || !self.out.is_between_records() {
            return false;
        }
        if self.link.control().is_empty() && self.link.has_control() {
            self.write_control();
        }
        !self.link.control().is_empty()
    }

    fn write_control(&mut self) {
        let got = self.got();
        let token = self.peer().and_then(|peer| peer.link).map_or([0; 16], |offer| offer.token);
        let (due, link) = (self.link.due, &mut self.link);
        let mut writer = Writer::new(link.control.bytes_mut().get_mut(1..).unwrap_or_default());
        if due.resume {
            link.due.resume = false;
            writer.byte(kind::RESUME);
            writer.put(&token);
            writer.varint(link.attempt.into());
            writer.varint(got);
        } else if due.resumed {
            link.due.resumed = false;
            writer.byte(kind::RESUME_OK);
            writer.put(&token);
            writer.varint(got);
        } else if due.ack {
            link.due.ack = false;
            writer.byte(kind::ACK);
            writer.varint(got);
        } else {
            (link.due.ping, link.asked) = (false, true);
            writer.byte(kind::PING);
        }
        let length = writer.len() as u8;
        if due.resume || due.resumed || due.ack {
            link.untold = 0;
        }
        if let Some(prefix) = link.control.bytes_mut().first_mut() {
            *prefix = length;
        }
        (link.start, link.end) = (0, length + 1);
    }
}

/// The record that answers a [`Resume`] for a session that is not there: the sender's incarnation, and what the session
/// had [got](Session::got) when it went, or 0 if that is not known (LNK-6). Gives the length of what it wrote.
pub fn session_gone(incarnation: u64, got: u64, record: &mut [u8; 24]) -> usize {
    let mut writer = Writer::new(record);
    writer.varint(1 + varint_len(incarnation) as u64 + varint_len(got) as u64);
    writer.byte(kind::SESSION_GONE);
    writer.varint(incarnation);
    writer.varint(got);
    writer.len()
}

/// The records of a side that has no room for a session: its Hello, since nothing else comes first (HEL-1), with the least
/// limits and no features, and a Close (CLS-1). Gives the length of what it wrote.
#[cfg_attr(not(feature = "alloc"), inline(never))]
pub fn turned_away(peer: Uuid, incarnation: u64, code: CloseCode, records: &mut [u8; 56]) -> usize {
    let limits =
        Limits { max_message: Limits::MIN_MESSAGE, imports: 0, answers: 0, call_bytes: 0, handles: 0, levels: 1 };
    let (version_min, version_max) = (VERSION, VERSION);
    let hello = Hello { version_min, version_max, features: 0, limits, peer, incarnation, link: None, patience: 0 };
    let mut writer = Writer::new(records);
    // All its fields but the incarnation have one byte.
    writer.varint(10 + 16 + varint_len(incarnation) as u64);
    hello.write(&mut writer);
    writer.varint(3 + varint_len(code.number().into()) as u64);
    writer.byte(kind::CLOSE);
    writer.varint(code.number().into());
    // Without its texts.
    writer.put(&[0, 0]);
    writer.len()
}
