//! One side of a session: the tables and every rule about them (SPEC sections 4 to 7).
//!
//! A [`Session`] does no IO, has no clock and never blocks. Its methods are of four classes, after quinn-proto:
//!
//! - **in**: [`Session::handle`] takes one received record and gives at most one [`Event`], which borrows the record only,
//!   so that it can be answered while its arguments are read;
//! - **commands**: [`Session::call`], [`Session::reply`], [`Session::refuse`], [`Session::cancel`], [`Session::retain`],
//!   [`Session::release`]. A command that cannot be done says so before anything has changed;
//! - **out**: [`Session::transmit`] and [`Session::transmitted`]; [`Session::poll_ready`] gives calls that waited for an
//!   answer; [`Session::poll_notice`] tells what else became true. Poll all three after each `handle` and each command.
//!   Nothing is lost by polling late: what they tell is state in the tables, not a queue;
//! - **time**, for those who use it: [`Session::poll_timeout`] says when [`Session::advance`] is to be called;
//! - **queries**: the rest.

mod answers;
mod bits;
mod command;
mod down;
mod entry;
mod error;
mod goodbye;
mod handles;
mod kept;
mod lent;
mod link;
mod list;
mod outgoing;
mod questions;
mod receive;
mod storage;
#[cfg(test)]
mod tests;
mod time;
mod transmit;
mod width;

use uuid::Uuid;

pub(crate) use command::WriteValues;
pub use entry::ObjectKey;
pub use entry::{Answer as AnswerEntry, Export as ExportEntry, Import as ImportEntry, Question as QuestionEntry};
pub use error::{CallError, Ended, ReplyError, Rule, Stale};
pub use kept::read_kept;
pub use link::{LinkMode, ResumeRefused, session_gone, turned_away};
pub use storage::{
    All, Blank, Buffer, Fixed, FixedBuffer, FixedStore, KeyIndex, Least, Micro, NoIndex, Parts, Storage, Store, Table,
};
#[cfg(feature = "alloc")]
pub use storage::{Growing, GrowingBuffer, GrowingStore, Host};
pub use width::{Narrow, Number, Wide, Width};

use crate::message::{Deadline, Descriptor, DownReason, ErrorCode, Handles, Hello, Limits, Op, feature};
use crate::value::Values;
use answers::IdOf;
use entry::{Held, QuestionState, Stage};
use goodbye::Goodbyes;
use lent::Slot;
use link::Link;
use list::List;
use outgoing::Outgoing;
use time::Time;

/// The version of the wire that this crate speaks.
pub const VERSION: u16 = 1;

/// One side of a session, in the storage `S`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session<S: Storage> {
    limits: Limits,
    /// [`Hello::NOBODY`] before its Hello.
    peer: Hello,
    ended: Option<Ended>,
    close_due: bool,

    exports: S::Exports,
    keys: S::Keys,
    /// Exports without an object, the one that has been free longest first (REL-3).
    free_exports: List<Slot<S>>,
    /// Objects that nobody holds any more, for [`Self::poll_notice`].
    freed: List<Slot<S>>,
    /// Exports whose Down is due (REF-8).
    downs: List<Slot<S>, 1>,
    wire_exports: u32,

    imports: S::Imports,
    /// Imports that lost their last holder (REL-1).
    marked: List<Slot<S>>,
    /// Imports that are down, for [`Self::poll_notice`]; and whether there may be some more among those that were marked.
    downed: List<Slot<S>>,
    downed_among_marked: bool,
    live_imports: u32,

    questions: S::Questions,
    free_questions: List<IdOf<S>>,
    /// Questions with a Finish due (FIN-1).
    finishing: List<IdOf<S>>,
    open_questions: u32,
    /// Bytes of our calls without Return (ADM-2).
    question_bytes: u32,

    answers: S::Answers,
    /// Answers that the session gives by itself (ADM-6).
    refused: List<IdOf<S>>,
    used_answers: u32,
    /// Calls that wait for an answer or might run now, the oldest first (ANS-3), and how many of each there are.
    queue: List<IdOf<S>>,
    waiting: u32,
    ready: u32,
    /// Bytes of these in the store.
    parked: usize,
    /// Answers with a cancel to tell of.
    cancels: u32,
    /// Bytes of the peer's calls without Return (ADM-7).
    answer_bytes: u32,
    store: S::Store,

    /// Ordinals of the last sequenced message sent and received (MSG-2).
    sent: u64,
    received: u64,
    /// Kinds that the peer sent and we don't know, a bit each (MSG-3).
    unknown_kinds: u32,
    /// Kinds of ours that the peer said it doesn't know.
    refused_kinds: u32,
    /// What was announced of keepalive.
    patience: Option<u32>,
    time: Time,
    goodbyes: Goodbyes,
    out: Outgoing<S::Out>,
    link: Link<S::Parts>,
    /// How many of the last messages the peer cannot have got, once the session has ended.
    undelivered: u32,
}

/// How a session is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What this side accepts. Fixed storage lowers what it has no room for; [`Session::limits`] tells the outcome.
    pub limits: Limits,
    /// Slots for objects of ours that the peer may hold at a time. The directory takes one.
    pub exports: u32,
    /// Calls of ours under way at a time, up to 65,534: one id stands for all that are too high.
    pub calls: u16,
    /// Output that may wait, bytes: the longest message to be sent and 64 more, since calls leave that much to answers.
    /// At least 128, or Hello does not fit.
    pub out_bytes: usize,
    /// Bytes for calls that wait for a promise or are [put off](Session::put_off), `limits.call_bytes` of them, and, with what is
    /// more, for results kept for pipelined calls. Fixed storage needs 8 bytes more for each of the calls served, and announces
    /// fewer call bytes if it has less. Storage that [keeps no values](Storage::KEEPS_VALUES) may have any number: only calls that
    /// are put off, or name an answer that is, wait there, and those that find no room are refused as
    /// [overloaded](crate::message::ErrorCode::Overloaded).
    pub store_bytes: usize,
    /// Names this peer.
    pub peer: Uuid,
    /// Differs from one start of this peer to the next, as well as it can manage.
    pub incarnation: u64,
    /// Whether it is to survive its connection.
    pub link: LinkMode,
    /// For how long silence of the peer is borne, milliseconds, 0 for ever (TIM-4). With None this side knows of no keepalive,
    /// and the peer cannot have it either. Whoever sets it has to [tell the time](Session::advance).
    pub patience: Option<u32>,
}

/// A reference to an object of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Import {
    slot: u32,
    generation: u16,
    /// Differs from that of a reference in the same place before it, which was lent and ended with its call (REF-9).
    epoch: u8,
}

impl Import {
    /// The peer's directory (DIR-1). It need not be retained or released.
    pub const DIRECTORY: Self = Self { slot: 0, generation: 0, epoch: 0 };

    /// The exporter's slot, for people and for maps.
    pub fn slot(self) -> u32 {
        self.slot
    }
}

/// One of our calls, from the command until its Return was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    id: u16,
    /// The low bits of its ordinal.
    ordinal: u32,
}

impl Question {
    /// Its call id: unique among open calls, small, and free for others after the Return (CAL-1, CAL-3).
    pub fn id(self) -> u16 {
        self.id
    }
}

/// One of the peer's calls, which waits for our reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    id: u16,
    /// The low bits of its ordinal.
    ordinal: u32,
}

impl Answer {
    /// Its call id.
    pub fn id(self) -> u16 {
        self.id
    }
}

/// A reference to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ref {
    /// An object of ours.
    Local(ObjectKey),
    /// An object of the peer: it comes home (REF-5).
    Import(Import),
    /// What a pipelined call of ours will answer (ANS-1). Not in a reply.
    Promise(Question),
    /// An object of ours, lent until the call has its Return (REF-9): that costs no Release. If the peer holds the object
    /// already, or gets it in another message meanwhile, it is [`Self::Local`]. Not in a reply.
    Borrowed(ObjectKey),
    /// An object of ours that stands for a weak reference to another: it does not hold that one, and answers
    /// [`Op::Upgrade`]. [Revoke](Session::revoke) it when the other one is no more (REF-10).
    Weak(ObjectKey),
}

/// What a call of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Callee {
    /// An object of the peer.
    Import(Import),
    /// What a pipelined call of ours will answer.
    Promise(Question),
}

/// A call to be made: see [`Session::call`].
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What it is for.
    pub callee: Callee,
    /// What to do.
    pub op: Op,
    /// The references among its arguments; values name them by their place here.
    pub references: &'a [Ref],
    /// Whether other calls may name its answer before it has settled.
    pub pipelined: bool,
    /// The peer's call that is being served and causes this one (CAL-6).
    pub parent: Option<Answer>,
    /// How long it has, at most as long as its parent; None is as long as that (TIM-2).
    pub deadline: Option<Deadline>,
}

impl<'a> Call<'a> {
    /// A plain call without references.
    pub fn new(callee: Callee, op: Op) -> Self {
        Self { callee, op, references: &[], pipelined: false, parent: None, deadline: None }
    }

    /// With references among the arguments.
    pub fn references(self, references: &'a [Ref]) -> Self {
        Self { references, ..self }
    }

    /// Whose answer other calls may name before it has settled.
    pub fn pipelined(self) -> Self {
        Self { pipelined: true, ..self }
    }

    /// Caused by a call of the peer.
    pub fn parent(self, parent: Answer) -> Self {
        Self { parent: Some(parent), ..self }
    }

    /// With so much time.
    pub fn deadline(self, deadline: Deadline) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

/// What a received record means to the host.
#[derive(Clone, Copy, Debug)]
#[must_use = "a request that is neither answered nor refused stays open"]
pub enum Event<'f> {
    /// The peer's Hello came: calls can be made.
    Ready,
    /// The peer calls.
    Request(Request<'f>),
    /// A call of ours has its Return.
    Return(Return<'f>),
}

/// A call of the peer.
///
/// Each [`Reference::Import`] or [`Reference::Weak`] among its handles [of the sender](Descriptor::of_sender) is one hold of
/// the host, to be given back by [`Session::release`]; one that was resolved from a [`Descriptor::Answer`] lives until the
/// reply. So does what is lent ([`Descriptor::Borrowed`]), whoever holds it: after the reply it is stale.
#[derive(Clone, Copy, Debug)]
pub struct Request<'f> {
    /// To reply with.
    pub call: Answer,
    /// Whether later calls may name its answer: those wait for the reply (ANS-1).
    pub pipelined: bool,
    /// Our call that caused it, if that is still open (CAL-6).
    pub parent: Option<Question>,
    /// How much time its caller leaves it, in milliseconds as of now (TIM-1).
    pub deadline: Option<u32>,
    /// What it is for.
    pub receiver: Receiver,
    /// What to do.
    pub op: Op,
    /// The references among its arguments; see [`Session::resolve`].
    pub handles: Handles<'f>,
    /// Its arguments.
    pub args: Values<'f>,
}

/// What a call of the peer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Receiver {
    /// An object of ours.
    Object(ObjectKey),
    /// An answer that came home: the peer's own object. To be forwarded as a nested call (ANS-6).
    Import(Import),
    /// An answer that settled to a value: see [`Session::kept`] and [`crate::value::operate`] (OPS-5).
    Value(Kept),
}

/// An answer whose value was kept for the calls that name it (ANS-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kept(u16);

/// The Return of a call of ours.
#[derive(Clone, Copy, Debug)]
pub struct Return<'f> {
    /// The call.
    pub question: Question,
    /// Its outcome.
    pub outcome: Outcome,
    /// The references among its values. Each resolved [`Reference::Import`] is one hold of the host.
    pub handles: Handles<'f>,
    /// The result (one value, or none for none), or what comes with the error code.
    pub values: Values<'f>,
}

/// How a call of ours ended.
pub type Outcome = Result<(), ErrorCode>;

/// What a received handle names here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// An object of ours: it came home (REF-5).
    Local(ObjectKey),
    /// An object of the peer.
    Import(Import),
    /// A weak reference to an object of the peer (REF-10).
    Weak(Import),
    /// A value: what a named answer settled to.
    Value(Kept),
    /// None: what a named answer settled to.
    None,
}

/// What became true: see [`Session::poll_notice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Neither the peer nor a call holds this object of ours any more.
    Freed(ObjectKey),
    /// The peer asks to stop this call, which still wants a reply (FIN-2).
    Interrupted(Answer),
    /// The deadline of this call of ours has passed. Its Return still comes, unless it was to be abandoned then (TIM-3).
    DeadlineExceeded(Question),
    /// This object of the peer, which is held here, is no more or was withdrawn (REF-8). Told once; calls on it fail. It is to
    /// be released like any other. If it came with a call that has to wait, this may come before that call does: whoever
    /// takes references of a call asks [`Session::down`].
    Down {
        /// The reference.
        import: Import,
        /// Why.
        reason: DownReason,
    },
}

/// A reply that turned into an error: see [`ReplyError::Became`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyRefused {
    /// The result has more references than there is room for (ADM-3).
    TableFull,
    /// The result has so many bytes, more than the peer takes (ADM-5).
    TooLarge(usize),
}

/// How full a session's tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tables {
    /// Objects of ours that the peer may hold, the directory included.
    pub exports: u32,
    /// Objects of the peer that we hold.
    pub imports: u32,
    /// Calls of ours whose id is not free yet.
    pub questions: u32,
    /// Calls of the peer that are not over yet.
    pub answers: u32,
}

impl<S: Storage> Session<S> {
    /// A session that has not begun: it is [over](Ended::NotBegun), has nothing to say and takes nothing, until [`Self::begin`].
    ///
    /// In fixed storage it is all zeros, so that a static of it takes no flash, and a session that begins there takes no stack.
    ///
    /// ```
    /// use std::sync::Mutex;
    ///
    /// use farref_core::session::{Ended, Micro, Session};
    ///
    /// // A device has a cell of its own kind for that, such as static_cell's ConstStaticCell.
    /// static DEVICE: Mutex<Session<Micro<16, 16, 8, 512, 320>>> = Mutex::new(Session::BLANK);
    ///
    /// assert!(DEVICE.lock().is_ok_and(|device| device.ended() == Some(Ended::NotBegun)));
    /// ```
    pub const BLANK: Self = Self {
        limits: Hello::NOBODY.limits,
        peer: Hello::NOBODY,
        ended: Some(Ended::NotBegun),
        close_due: false,
        exports: S::Exports::BLANK,
        keys: S::Keys::BLANK,
        free_exports: List::EMPTY,
        freed: List::EMPTY,
        downs: List::EMPTY,
        wire_exports: 0,
        imports: S::Imports::BLANK,
        marked: List::EMPTY,
        downed: List::EMPTY,
        downed_among_marked: false,
        live_imports: 0,
        questions: S::Questions::BLANK,
        free_questions: List::EMPTY,
        finishing: List::EMPTY,
        open_questions: 0,
        question_bytes: 0,
        answers: S::Answers::BLANK,
        refused: List::EMPTY,
        used_answers: 0,
        queue: List::EMPTY,
        waiting: 0,
        ready: 0,
        parked: 0,
        cancels: 0,
        answer_bytes: 0,
        store: S::Store::BLANK,
        sent: 0,
        received: 0,
        unknown_kinds: 0,
        refused_kinds: 0,
        patience: None,
        time: Time::BLANK,
        goodbyes: Goodbyes::NONE,
        out: Outgoing::BLANK,
        link: Link::BLANK,
        undelivered: 0,
    };

    /// A session whose Hello is its first output.
    pub fn new(config: Config) -> Self {
        let mut session = Self::BLANK;
        session.begin(&config);
        session
    }

    /// Begins a session, where another one may have been, of which nothing stays: it must not be asked about that one's calls and
    /// references any more. Hello is its first output.
    pub fn begin(&mut self, config: &Config) {
        *self = Self::BLANK;
        let slots = Slot::<S>::NONE.into().min(Limits::MAX_IMPORTS);
        // The highest id stands for all that no call can have.
        let calls = IdOf::<S>::NONE.into() as u16 - 1;
        let bytes = <S::Width as Width>::Count::NONE.into();
        self.exports.set_limit(config.exports.min(slots) as usize);
        self.imports.set_limit(config.limits.imports.min(slots) as usize);
        self.questions.set_limit(config.calls.min(calls).into());
        self.answers.set_limit(config.limits.answers.min(calls).into());
        self.store.set_limit(config.store_bytes);
        // Where values are kept each call can wait, whatever it is for; where not, only calls on what is put off have to.
        let for_itself = self.answers.limit() * S::Store::OVERHEAD;
        let call_bytes = if S::KEEPS_VALUES { self.store.limit().saturating_sub(for_itself) } else { usize::MAX };
        let call_bytes = u32::try_from(call_bytes).unwrap_or(u32::MAX);
        self.limits = Limits {
            max_message: config.limits.max_message.max(Limits::MIN_MESSAGE).min(bytes),
            imports: u32::try_from(self.imports.limit()).unwrap_or(Limits::MAX_IMPORTS),
            answers: u16::try_from(self.answers.limit()).unwrap_or(u16::MAX),
            call_bytes: config.limits.call_bytes.min(call_bytes).min(bytes),
            handles: config.limits.handles,
            levels: config.limits.levels.clamp(1, calls),
        };
        self.ended = None;
        self.patience = config.patience;
        self.link.begin(config.link);
        self.out.begin(config.out_bytes.min(bytes as usize), self.link.keeps());
        self.undelivered = u32::MAX;
        self.export_directory();
        let link = self.link_offer(config.link);
        self.write_hello(Hello {
            version_min: VERSION,
            version_max: VERSION,
            features: link.map_or(0, |_| feature::LINK) | config.patience.map_or(0, |_| feature::KEEPALIVE),
            limits: self.limits,
            peer: config.peer,
            incarnation: config.incarnation,
            link,
            patience: config.patience.unwrap_or(0),
        });
    }

    /// What this side announced.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The peer's Hello, once it came.
    pub fn peer(&self) -> Option<&Hello> {
        // No version is 0 (HEL-3).
        (self.peer.version_min != 0).then_some(&self.peer)
    }

    /// Why the session is over, if it is.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Says Close and ends the session (CLS-1). What is under way is lost.
    pub fn close(&mut self, code: crate::message::CloseCode) {
        self.end(Ended::Closed(code));
    }

    /// The stream is gone: the session is over (CLS-1).
    pub fn link_lost(&mut self) {
        self.end(Ended::LinkLost);
    }

    /// How full the tables are. Each side's are back at the baseline when nothing is held and nothing is under way.
    pub fn tables(&self) -> Tables {
        Tables {
            exports: self.wire_exports,
            imports: self.live_imports,
            questions: self.open_questions,
            answers: self.used_answers,
        }
    }

    /// Whether calls of the peer still want a Return from this side.
    pub fn is_serving(&self) -> bool {
        self.answer_bytes > 0
    }

    /// Sequenced messages sent and received (MSG-2).
    pub fn ordinals(&self) -> (u64, u64) {
        (self.sent, self.received)
    }

    /// Kinds of ours that the peer said it does not know, a bit each (MSG-3).
    pub fn refused_kinds(&self) -> u32 {
        self.refused_kinds
    }

    /// What a received handle names. For a handle of a [`Request`] until its reply, of a [`Return`] until the next record.
    /// None if it is stale. An object of ours that came home is there as long as it has not been told to be
    /// [freed](Notice::Freed), also if its slot was released meanwhile.
    pub fn resolve(&self, handle: Descriptor) -> Option<Reference> {
        match handle {
            Descriptor::Sender { slot, generation } | Descriptor::Borrowed { slot, generation } => {
                self.live_import(slot, generation).map(Reference::Import)
            }
            Descriptor::Weak { slot, generation } => self.live_import(slot, generation).map(Reference::Weak),
            Descriptor::Receiver { slot, generation } => {
                let export = self.exports.get(slot).filter(|export| export.used())?;
                let age = |generation: u16| generation.wrapping_sub(export.born);
                (age(generation) <= age(export.generation)).then_some(Reference::Local(export.key))
            }
            Descriptor::Answer(id) => {
                let answer = self.answers.get(id.into())?;
                match (answer.stage(), answer.held()) {
                    (Stage::None, _) => Some(Reference::None),
                    (Stage::Kept, _) => Some(Reference::Value(Kept(id))),
                    (_, Held::Export(slot)) => self.exports.get(slot).map(|export| Reference::Local(export.key)),
                    (_, Held::Import { slot, generation }) => Some(Reference::Import(self.import(slot, generation))),
                    (_, Held::Nothing) => None,
                }
            }
        }
    }

    fn live_import(&self, slot: u32, generation: u16) -> Option<Import> {
        let is_it = |import: &ImportEntry<S::Width>| import.live && import.generation == generation;
        let is_live = slot == 0 && generation == 0 || self.imports.get(slot).is_some_and(is_it);
        is_live.then(|| self.import(slot, generation))
    }

    /// What stands for a handle that is live.
    fn import(&self, slot: u32, generation: u16) -> Import {
        Import { slot, generation, epoch: self.imports.get(slot).map_or(0, |import| import.epoch) }
    }

    /// Why an object of ours was revoked, if it was.
    fn withdrawn(export: &ExportEntry<S::Width>) -> Option<DownReason> {
        if S::Parts::REVOKES { export.dead.reason() } else { None }
    }

    /// Whether the peer may use a handle for an object of ours; the error that it gets if not (REF-5, REF-8).
    fn check_home(&self, slot: u32, generation: u16) -> Result<(), (ErrorCode, u32)> {
        match self.exports.get(slot).filter(|export| export.wire() && export.generation == generation) {
            None => Err((ErrorCode::NoSuchObject, 0)),
            Some(export) => match Self::withdrawn(export) {
                Some(reason) => Err((ErrorCode::Revoked, reason.number().into())),
                None => Ok(()),
            },
        }
    }

    /// The error, if there is one, of a message's target and handles that are objects of ours: an unknown one comes before one that
    /// is revoked.
    fn check_homes(&self, target: Option<(u32, u16)>, handles: Handles<'_>) -> Result<(), (ErrorCode, u32)> {
        let mut found = target.map_or(Ok(()), |(slot, generation)| self.check_home(slot, generation));
        for handle in handles {
            if let Err((ErrorCode::NoSuchObject, _)) = found {
                break;
            }
            if let Some((slot, generation)) = handle.of_receiver()
                && let Err(error) = self.check_home(slot, generation)
                && (found.is_ok() || error.0 == ErrorCode::NoSuchObject)
            {
                found = Err(error);
            }
        }
        found
    }

    /// The peer's limits; all 0 before its Hello, when nothing is sent.
    fn peer_limits(&self) -> &Limits {
        &self.peer.limits
    }

    /// A sequenced message was written: it has its ordinal (MSG-2).
    fn count_sent(&mut self) {
        self.sent += 1;
        self.goodbyes.void();
        if self.sent.is_multiple_of(handles::AGING) {
            self.age_exports();
        }
    }

    fn open_question(&self, question: Question) -> Option<&QuestionEntry<S::Width>> {
        let entry = self.questions.get(question.id.into())?;
        (entry.ordinal == question.ordinal && entry.state() == QuestionState::Open).then_some(entry)
    }

    fn running_answer(&self, answer: Answer) -> Option<&AnswerEntry<S::Width>> {
        let entry = self.answers.get(answer.id.into())?;
        (entry.ordinal == answer.ordinal && entry.is(Stage::Running)).then_some(entry)
    }
}

#[cfg(feature = "alloc")]
impl Session<Host> {
    /// About how many bytes of memory it takes: tables, store and output, as large as they have grown.
    pub fn memory(&self) -> usize {
        let tables = self.exports.memory() + self.imports.memory() + self.questions.memory() + self.answers.memory();
        tables + self.keys.len() * OF_A_KEY + self.store.memory() + self.output_capacity()
    }

    /// What its output has grown to.
    pub fn output_capacity(&self) -> usize {
        self.out.capacity()
    }
}

/// What a key takes in its index.
#[cfg(feature = "alloc")]
const OF_A_KEY: usize = 24;

/// The store's number for a waiting call and for a kept result of the same id.
fn parked_key(id: u16) -> u32 {
    u32::from(id) << 1
}

fn kept_key(id: u16) -> u32 {
    u32::from(id) << 1 | 1
}

/// The body of a Return without a value.
const NO_RESULT: &[u8] = &[crate::message::kind::RETURN, 0];
