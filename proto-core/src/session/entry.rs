//! The entries of the four tables. What is only true or false, or one of a few, is in bits: tables are most of what a session
//! takes, and there is one entry for each of many references.

use core::num::NonZeroU8;

use super::bits::in_bits;
use super::list::Linked;
use super::storage::Blank;
use super::time::{Clock, Due};
use super::width::{Number, Width};
use crate::message::{Consequence, DownReason, ErrorCode, FinishMode, MAX_ANSWERS_NAMED};

/// Names one of our objects. Whoever hosts objects chooses it; one object has one key as long as it is exported, and
/// [`ObjectKey::DIRECTORY`] is the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(pub u32);

impl ObjectKey {
    /// The object in slot 0: the directory of named roots (DIR-1).
    pub const DIRECTORY: Self = Self(0);
}

/// One of our objects that the peer may hold, or that an answer holds.
///
/// ```text
///  free ── intern ──► used ── commit ──► on the wire ── Release ──► (held by answers) ──► freed ── polled ──► free
///                       └──── abort ───► free                  ▲────── sent again ──────────┘
///  on the wire ── revoke ──► tombstone ── freed, polled ──► tombstone without an object ── Release ──► free
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Export<W: Width> {
    /// Of the handles that name it now or, off the wire, that will next.
    pub(crate) generation: u16,
    /// The first generation in which the slot named this object.
    pub(crate) born: u16,
    bits: u8,
    /// Set for good when the object is revoked; on the wire that is a tombstone (REF-8).
    pub(crate) dead: Death,
    /// The call that it is lent to (REF-9).
    pub(crate) scope: Scope<W::Id>,
    /// Calls and answers that hold the object (CAL-4, ANS-4).
    pub(crate) holds: W::Count,
    pub(crate) key: ObjectKey,
    /// The low bits of the ordinal of the last message that carried it (REF-4), if the peer holds it.
    pub(crate) last_sent: u32,
    /// In the list of free slots or of freed objects.
    next: W::Slot,
    /// In the list of those whose Down is due, or of what its scope's call was lent. 0 if in neither.
    also: W::Slot,
}

in_bits! { Export, bits: u8 {
    state, set_state: ExportState = 0;
    /// Whether the peer may hold it.
    wire, set_wire: bool = 2;
} }

impl<W: Width> Blank for Export<W> {
    const BLANK: Self = Self {
        generation: 0,
        born: 0,
        bits: 0,
        dead: Death::NONE,
        scope: Scope::NONE,
        holds: W::Count::ZERO,
        key: ObjectKey(0),
        last_sent: 0,
        next: W::Slot::ZERO,
        also: W::Slot::ZERO,
    };
}

impl<W: Width> Export<W> {
    /// Whether nobody holds its object any more: a tombstone holds none.
    pub(crate) fn is_let_go(&self) -> bool {
        self.used() && !self.is_held() && (!self.wire() || self.dead.reason().is_some())
    }

    /// Whether calls or answers hold its object.
    pub(crate) fn is_held(&self) -> bool {
        self.holds.into() > 0
    }

    /// Whether a call may lend it: the peer does not hold it, and no Down of the object before is due for its place.
    pub(crate) fn can_be_lent(&self) -> bool {
        !self.wire() && !self.is_listed()
    }

    /// Whether its Down is due, or it is lent.
    pub(crate) fn is_listed(&self) -> bool {
        self.also.into() != 0
    }

    /// Whether it has an object.
    pub(crate) fn used(&self) -> bool {
        self.state() != ExportState::Free
    }
}

/// What an export has of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum ExportState {
    /// None.
    #[default]
    Free,
    Used,
    /// One that is in the list of freed objects.
    Freed,
}

/// Why an object is down, if it is, in one byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Death(Option<NonZeroU8>);

impl Death {
    pub const NONE: Self = Self(None);

    pub fn of(reason: DownReason) -> Self {
        Self(NonZeroU8::MIN.checked_add(reason.number()))
    }

    pub fn reason(self) -> Option<DownReason> {
        self.0.map(|number| DownReason::from_number(number.get() - 1))
    }
}

/// The id of the call that something is lent to, and one more; 0 if it is not lent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope<N>(N);

impl<N: Number> Scope<N> {
    pub const NONE: Self = Self(N::ZERO);

    /// No scope for the highest id, which no call has.
    pub fn of(call: u16) -> Self {
        Self(N::of(call.wrapping_add(1).into()))
    }

    pub fn call(self) -> Option<u16> {
        u16::try_from(self.0.into().checked_sub(1)?).ok()
    }

    pub fn is_some(self) -> bool {
        self.0.into() != 0
    }
}

/// One of the peer's objects that we hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Import<W: Width> {
    pub(crate) generation: u16,
    pub(crate) live: bool,
    /// Why the peer said that it is down (REF-8).
    pub(crate) dead: Death,
    /// Tells a reference from one in the same place before it that ended with its scope.
    pub(crate) epoch: u8,
    /// The call that it is lent to (REF-9).
    pub(crate) scope: Scope<W::Id>,
    /// Times that it was delivered, less the times it was released.
    pub(crate) holds: W::Count,
    /// In the list of what its scope's call was lent; or else in that of marks, which release it if it has no holds left
    /// (REL-1), or of those with a Down to be told. 0 if in none.
    next: W::Slot,
}

impl<W: Width> Blank for Import<W> {
    const BLANK: Self = Self {
        generation: 0,
        live: false,
        dead: Death::NONE,
        epoch: 0,
        scope: Scope::NONE,
        holds: W::Count::ZERO,
        next: W::Slot::ZERO,
    };
}

impl<W: Width> Import<W> {
    /// Whether somebody holds it here.
    pub(crate) fn is_held(&self) -> bool {
        self.holds.into() > 0
    }

    /// Whether it is in a list.
    pub(crate) fn is_listed(&self) -> bool {
        self.next.into() != 0
    }
}

/// One of our calls.
///
/// ```text
///  free ── call ──► open ── Return ──► returned ── Finish sent, nothing depends on it ──► free
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question<W: Width> {
    bits: u16,
    due_at: u32,
    pub(crate) level: W::Id,
    /// Open calls that name this answer (CAL-3).
    pub(crate) dependents: W::Id,
    /// The answers that this call names.
    pub(crate) named: Named<W::Id>,
    /// Length of the call's body.
    pub(crate) bytes: W::Count,
    /// The low bits of its ordinal, which tell it from others of the same id.
    pub(crate) ordinal: u32,
    /// What is lent to it: the first of a list of exports, or 0 (REF-9).
    pub(crate) lent: W::Slot,
    next: W::Id,
}

in_bits! { Question, bits: u16 {
    state, set_state: QuestionState = 0;
    pipelined, set_pipelined: bool = 2;
    /// A Finish went out.
    finished, set_finished: bool = 3;
    /// The Finish that is to go out.
    finish, set_finish: Option<FinishMode> = 4;
    listed, set_listed: bool = 6;
    /// The Return is not wanted.
    abandoned, set_abandoned: bool = 7;
    /// Its deadline has passed, and the host has not been told.
    late, set_late: bool = 8;
    clock, set_clock: Clock = 9;
    consequence, set_consequence: Consequence = 11;
} }

impl<W: Width> Blank for Question<W> {
    const BLANK: Self = Self {
        bits: 0,
        due_at: 0,
        level: W::Id::ZERO,
        dependents: W::Id::ZERO,
        named: Named::NONE,
        bytes: W::Count::ZERO,
        ordinal: 0,
        lent: W::Slot::ZERO,
        next: W::Id::ZERO,
    };
}

impl<W: Width> Question<W> {
    pub(crate) fn due(&self) -> Due {
        Due { clock: self.clock(), at: self.due_at, consequence: self.consequence() }
    }

    pub(crate) fn set_due(&mut self, due: Due) {
        self.set_clock(due.clock);
        self.set_consequence(due.consequence);
        self.due_at = due.at;
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum QuestionState {
    #[default]
    Free,
    Open,
    Returned,
}

/// One of the peer's calls.
///
/// ```text
///  free ── Call ──┬─► running ── reply ──────────────┬─► settled ── Finish, nobody names it ──► free
///                 ├─► waiting ─► ready ─► running    │
///                 └─► refused ── Return written ─────┘
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer<W: Width> {
    bits: u16,
    /// What belongs to the state: the ordinal of its parent and the end of its time, or what it is refused with, or what it
    /// settled to.
    words: [u32; 2],
    pub(crate) level: W::Id,
    /// Calls without a Return that name this answer (ANS-1).
    pub(crate) waiters: W::Id,
    /// The answers that this call names.
    pub(crate) named: Named<W::Id>,
    target: W::Slot,
    /// The low bits of its ordinal, which tell it from others of the same id.
    pub(crate) ordinal: u32,
    pub(crate) bytes: W::Count,
    /// What is lent to it: the first of a list of imports, or 0 (REF-9).
    pub(crate) lent: W::Slot,
    /// In the list of those that wait or are ready, or of those that are refused.
    next: W::Id,
}

in_bits! { Answer, bits: u16 {
    stage, set_stage: Stage = 0;
    pipelined, set_pipelined: bool = 4;
    /// A Finish came.
    finished, set_finished: bool = 5;
    /// A cancel that the host has not been told of.
    cancelled, set_cancelled: bool = 6;
    listed, set_listed: bool = 7;
    clock, set_clock: Clock = 8;
    consequence, set_consequence: Consequence = 10;
    target_kind, set_target_kind: TargetKind = 12;
} }

impl<W: Width> Blank for Answer<W> {
    const BLANK: Self = Self {
        bits: 0,
        words: [0; 2],
        level: W::Id::ZERO,
        waiters: W::Id::ZERO,
        named: Named::NONE,
        target: W::Slot::ZERO,
        ordinal: 0,
        bytes: W::Count::ZERO,
        lent: W::Slot::ZERO,
        next: W::Id::ZERO,
    };
}

impl<W: Width> Answer<W> {
    pub(crate) fn is(&self, stage: Stage) -> bool {
        self.stage() == stage
    }

    /// Whether its Return was written.
    pub(crate) fn has_settled(&self) -> bool {
        self.stage() >= Stage::None
    }

    /// With what error it was refused or failed.
    pub(crate) fn code(&self) -> ErrorCode {
        let [code, _] = self.words;
        ErrorCode::from_number(code)
    }

    /// The number that comes with the error of one that is refused.
    pub(crate) fn detail(&self) -> u32 {
        let [_, detail] = self.words;
        detail
    }

    /// The object that it settled to.
    pub(crate) fn held(&self) -> Held {
        let [slot, generation] = self.words;
        match self.stage() {
            Stage::Export => Held::Export(slot),
            Stage::Import => Held::Import { slot, generation: generation as u16 },
            _ => Held::Nothing,
        }
    }

    /// Why the object that it had settled to was revoked.
    pub(crate) fn reason(&self) -> DownReason {
        let [reason, _] = self.words;
        DownReason::from_number(reason as u8)
    }

    /// It needs nothing any more of what it needed to run.
    pub(crate) fn end(&mut self, end: Fate) {
        self.set_stage(end.stage);
        self.set_clock(Clock::Never);
        self.words = end.words;
    }

    /// The low bits of the ordinal of our call that caused it, until it has run.
    pub(crate) fn parent(&self) -> u32 {
        let [parent, _] = self.words;
        parent
    }

    pub(crate) fn set_parent(&mut self, ordinal: u32) {
        let [parent, _] = &mut self.words;
        *parent = ordinal;
    }

    pub(crate) fn due(&self) -> Due {
        let [_, at] = self.words;
        Due { clock: self.clock(), at, consequence: self.consequence() }
    }

    /// Not when it has ended.
    pub(crate) fn set_due(&mut self, due: Due) {
        self.set_clock(due.clock);
        self.set_consequence(due.consequence);
        let [_, at] = &mut self.words;
        *at = due.at;
    }

    /// What it runs on (CAL-4).
    pub(crate) fn target(&self) -> RunsOn {
        match self.target_kind() {
            TargetKind::Nothing => RunsOn::Nothing,
            TargetKind::Export => RunsOn::Export(self.target.into()),
            TargetKind::Answer => RunsOn::Answer(self.target.into() as u16),
        }
    }

    pub(crate) fn set_target(&mut self, target: RunsOn) {
        let (kind, number) = match target {
            RunsOn::Nothing => (TargetKind::Nothing, 0),
            RunsOn::Export(slot) => (TargetKind::Export, slot),
            RunsOn::Answer(id) => (TargetKind::Answer, id.into()),
        };
        self.set_target_kind(kind);
        self.target = W::Slot::of(number);
    }
}

/// How far an answer has come, and how it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    #[default]
    Free,
    /// An answer that it names has not settled.
    Waiting,
    /// All have; nobody has taken it.
    Ready,
    Running,
    /// To be returned by the session itself, when there is room (ADM-6).
    Refused,
    /// Settled, to nothing.
    None,
    Export,
    Import,
    Kept,
    NotKept,
    Failed,
    Revoked,
}

/// How a call of the peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fate {
    stage: Stage,
    words: [u32; 2],
}

impl Fate {
    pub const NONE: Self = Self { stage: Stage::None, words: [0; 2] };
    /// With a value in the store, behind its handles.
    pub const KEPT: Self = Self { stage: Stage::Kept, words: [0; 2] };
    pub const NOT_KEPT: Self = Self { stage: Stage::NotKept, words: [0; 2] };

    /// With an error of the session's, and the number that comes with it.
    pub fn refused(code: ErrorCode, detail: u32) -> Self {
        Self { stage: Stage::Refused, words: [code.number(), detail] }
    }

    pub fn failed(code: ErrorCode) -> Self {
        Self { stage: Stage::Failed, words: [code.number(), 0] }
    }

    /// With an object that was revoked since (REF-8).
    pub fn revoked(reason: DownReason) -> Self {
        Self { stage: Stage::Revoked, words: [reason.number().into(), 0] }
    }

    /// With an object, which the answer holds.
    pub fn object(held: Held) -> Self {
        match held {
            Held::Nothing => Self::NOT_KEPT,
            Held::Export(slot) => Self { stage: Stage::Export, words: [slot, 0] },
            Held::Import { slot, generation } => Self { stage: Stage::Import, words: [slot, generation.into()] },
        }
    }
}

/// A hold on an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Held {
    #[default]
    Nothing,
    /// One of ours.
    Export(u32),
    /// One of the peer's.
    Import { slot: u32, generation: u16 },
}

/// What a call of the peer runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum RunsOn {
    #[default]
    Nothing,
    /// An object of ours, which it holds.
    Export(u32),
    /// Whatever that answer settled to.
    Answer(u16),
}

impl RunsOn {
    /// What the call holds because of it.
    pub fn held(self) -> Held {
        match self {
            Self::Export(slot) => Held::Export(slot),
            Self::Nothing | Self::Answer(_) => Held::Nothing,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum TargetKind {
    #[default]
    Nothing,
    Export,
    Answer,
}

/// The ids of the answers that a call names (ANS-2), each and one more; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Named<N>([N; MAX_ANSWERS_NAMED]);

impl<N: Number> Named<N> {
    pub const NONE: Self = Self([N::ZERO; MAX_ANSWERS_NAMED]);

    /// Adds an id, once; false if there are too many. Those that are too high for a call here become one that no call has.
    pub fn add(&mut self, id: u16) -> bool {
        let id = N::of((u32::from(id) + 1).min(N::NONE.into()));
        match self.0.iter_mut().find(|have| **have == N::ZERO || **have == id) {
            Some(free) => {
                *free = id;
                true
            }
            None => false,
        }
    }

    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.0.into_iter().map_while(|id| id.into().checked_sub(1)).map(|id| id as u16)
    }
}

macro_rules! linked {
    ($($entry:ident, $link:literal, $next:ident: $number:ident;)+) => {
        $(impl<W: Width> Linked<$link> for $entry<W> {
            type Number = W::$number;

            fn link(&self) -> W::$number {
                self.$next
            }

            fn link_mut(&mut self) -> &mut W::$number {
                &mut self.$next
            }
        })+
    };
}

linked! {
    Export, 0, next: Slot;
    Export, 1, also: Slot;
    Import, 0, next: Slot;
    Question, 0, next: Id;
    Answer, 0, next: Id;
}
