//! The entries of the four tables, and the lists that run through them.

use core::num::{NonZeroU8, NonZeroU16};

use super::storage::Table;
use super::time::Due;
use crate::message::{Consequence, DownReason, ErrorCode, FinishMode, MAX_ANSWERS_NAMED};

/// Names one of our objects. Whoever hosts objects chooses it; one object has one key as long as it is exported, and
/// [`ObjectKey::DIRECTORY`] is the directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(pub u32);

impl ObjectKey {
    /// The object in slot 0: the directory of named roots (DIR-1).
    pub const DIRECTORY: Self = Self(0);
}

/// The end of a list.
pub(crate) const NIL: u32 = u32::MAX;

/// No answer, in a list of answers named.
pub(crate) const NO_ID: u16 = u16::MAX;

/// One of our objects that the peer may hold, or that an answer holds.
///
/// ```text
///  free ── intern ──► used ── commit ──► on the wire ── Release ──► (held by answers) ──► freed ── polled ──► free
///                       └──── abort ───► free                  ▲────── sent again ──────────┘
///  on the wire ── revoke ──► tombstone ── freed, polled ──► tombstone without an object ── Release ──► free
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Export {
    /// Of the handles that name it now or, off the wire, that will next.
    pub(crate) generation: u16,
    /// The first generation in which the slot named this object.
    pub(crate) born: u16,
    pub(crate) state: ExportState,
    /// The peer may hold it.
    pub(crate) wire: bool,
    /// Set for good when the object is revoked; on the wire that is a tombstone (REF-8).
    pub(crate) dead: Death,
    /// The call that it is lent to (REF-9).
    pub(crate) scope: Option<Scope>,
    /// Calls and answers that hold the object (CAL-4, ANS-4).
    pub(crate) holds: u32,
    pub(crate) key: ObjectKey,
    /// The low bits of the ordinal of the last message that carried it (REF-4), if the peer holds it.
    pub(crate) last_sent: u32,
    /// In the list of free slots or of freed objects.
    pub(crate) next: u32,
    /// In the list of those whose Down is due, or of what its scope's call was lent. 0 if in neither.
    pub(crate) also: u32,
}

impl Export {
    /// Whether the peer may hold it.
    pub fn wire(&self) -> bool {
        self.wire
    }

    /// Whether nobody holds its object any more: a tombstone holds none.
    pub fn is_let_go(&self) -> bool {
        self.used() && self.holds == 0 && (!self.wire() || self.dead.reason().is_some())
    }

    /// Whether a call may lend it: the peer does not hold it, and no Down of the object before is due for its place.
    pub fn can_be_lent(&self) -> bool {
        !self.wire() && self.also == 0
    }

    /// Whether it has an object.
    pub fn used(&self) -> bool {
        self.state != ExportState::Free
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
    pub fn of(reason: DownReason) -> Self {
        Self(NonZeroU8::MIN.checked_add(reason.number()))
    }

    pub fn reason(self) -> Option<DownReason> {
        self.0.map(|number| DownReason::from_number(number.get() - 1))
    }
}

/// The id of the call that something is lent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope(NonZeroU16);

impl Scope {
    /// None for [`NO_ID`], which no call has.
    pub fn of(call: u16) -> Option<Self> {
        NonZeroU16::MIN.checked_add(call).map(Self)
    }

    pub fn call(self) -> u16 {
        self.0.get() - 1
    }
}

/// One of the peer's objects that we hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Import {
    pub(crate) generation: u16,
    pub(crate) live: bool,
    /// Why the peer said that it is down (REF-8).
    pub(crate) dead: Death,
    /// Tells a reference from one in the same place before it that ended with its scope.
    pub(crate) epoch: u8,
    /// The call that it is lent to (REF-9).
    pub(crate) scope: Option<Scope>,
    /// Times that it was delivered, less the times it was released.
    pub(crate) holds: u32,
    /// In the list of what its scope's call was lent; or else in that of marks, which release it if it has no holds left
    /// (REL-1), or of those with a Down to be told. 0 if in none.
    pub(crate) next: u32,
}

/// One of our calls.
///
/// ```text
///  free ── call ──► open ── Return ──► returned ── Finish sent, nothing depends on it ──► free
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    pub(crate) state: QuestionState,
    pub(crate) pipelined: bool,
    /// A Finish went out.
    pub(crate) finished: bool,
    /// The Finish that is to go out.
    pub(crate) due: Option<FinishMode>,
    pub(crate) listed: bool,
    /// The Return is not wanted.
    pub(crate) abandoned: bool,
    /// Its deadline has passed, and the host has not been told.
    pub(crate) late: bool,
    pub(crate) deadline: (Due, Consequence),
    pub(crate) level: u16,
    /// Open calls that name this answer (CAL-3).
    pub(crate) dependents: u16,
    /// The answers that this call names.
    pub(crate) named: Named,
    /// Length of the call's body.
    pub(crate) bytes: u32,
    /// The low bits of its ordinal, which tell it from others of the same id.
    pub(crate) ordinal: u32,
    /// What is lent to it: the first of a list of exports, or 0 (REF-9).
    pub(crate) lent: u32,
    pub(crate) next: u32,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Answer {
    pub(crate) state: AnswerState,
    pub(crate) pipelined: bool,
    /// A Finish came.
    pub(crate) finished: bool,
    /// A cancel that the host has not been told of.
    pub(crate) cancel: Option<FinishMode>,
    pub(crate) listed: bool,
    pub(crate) deadline: (Due, Consequence),
    pub(crate) level: u16,
    /// Calls without a Return that name this answer (ANS-1).
    pub(crate) waiters: u16,
    /// The answers that this call names.
    pub(crate) named: Named,
    /// Our call that caused this one.
    pub(crate) parent: Option<(u16, u32)>,
    /// The object that it runs on (CAL-4).
    pub(crate) target: Held,
    /// The low bits of its ordinal, which tell it from others of the same id.
    pub(crate) ordinal: u32,
    pub(crate) bytes: u32,
    /// What is lent to it: the first of a list of imports, or 0 (REF-9).
    pub(crate) lent: u32,
    /// In the list of those that wait or are ready, or of those that are refused.
    pub(crate) next: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum AnswerState {
    #[default]
    Free,
    /// An answer that it names has not settled.
    Waiting,
    /// All have; nobody has taken it.
    Ready,
    Running,
    /// To be returned by the session itself, when there is room (ADM-6).
    Refused(ErrorCode, u64),
    Settled(Settled),
}

/// What an answer settled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Settled {
    None,
    Reference(Held),
    /// A value in the store, behind its handles.
    Kept,
    NotKept,
    Failed(ErrorCode),
    /// To an object of ours that was revoked since (REF-8).
    Revoked(DownReason),
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
    /// Whatever that answer settled to.
    Answer(u16),
}

/// The ids of the answers that a call names (ANS-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Named([u16; MAX_ANSWERS_NAMED]);

impl Default for Named {
    fn default() -> Self {
        Self([NO_ID; MAX_ANSWERS_NAMED])
    }
}

impl Named {
    /// Adds an id, once; false if there are too many.
    pub fn add(&mut self, id: u16) -> bool {
        match self.0.iter_mut().find(|have| **have == NO_ID || **have == id) {
            Some(free) => {
                *free = id;
                true
            }
            None => false,
        }
    }

    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.0.into_iter().take_while(|&id| id != NO_ID)
    }
}

/// An entry that can be in a list; one with two links can be in two.
pub(crate) trait Linked<const LINK: usize = 0> {
    fn link(&self) -> u32;
    fn link_mut(&mut self) -> &mut u32;
}

macro_rules! linked {
    ($($entry:ty, $link:literal, $next:ident;)+) => {
        $(impl Linked<$link> for $entry {
            fn link(&self) -> u32 {
                self.$next
            }

            fn link_mut(&mut self) -> &mut u32 {
                &mut self.$next
            }
        })+
    };
}

linked! {
    Export, 0, next;
    Export, 1, also;
    Import, 0, next;
    Question, 0, next;
    Answer, 0, next;
}

/// A list through a table's entries. An entry is in at most one list of a link at a time. No list has slot 0, so that a
/// link is 0 where an entry of exports or imports is in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct List<const LINK: usize = 0> {
    head: u32,
    tail: u32,
}

impl<const LINK: usize> List<LINK> {
    pub const EMPTY: Self = Self { head: NIL, tail: NIL };

    pub fn first(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn push_back<T: Linked<LINK> + Default>(&mut self, table: &mut impl Table<T>, index: u32) {
        let Some(entry) = table.get_mut(index) else { return };
        *entry.link_mut() = NIL;
        match table.get_mut(self.tail) {
            Some(last) if self.head != NIL => *last.link_mut() = index,
            _ => self.head = index,
        }
        self.tail = index;
    }

    pub fn push_front<T: Linked<LINK> + Default>(&mut self, table: &mut impl Table<T>, index: u32) {
        let Some(entry) = table.get_mut(index) else { return };
        *entry.link_mut() = self.head;
        if self.head == NIL {
            self.tail = index;
        }
        self.head = index;
    }

    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn pop<T: Linked<LINK> + Default>(&mut self, table: &mut impl Table<T>) -> Option<u32> {
        let index = self.first()?;
        self.head = match table.get_mut(index) {
            Some(entry) => core::mem::take(entry.link_mut()),
            None => NIL,
        };
        if self.head == NIL {
            self.tail = NIL;
        }
        Some(index)
    }

    /// Takes an entry out, wherever it stands.
    pub fn remove<T: Linked<LINK> + Default>(&mut self, table: &mut impl Table<T>, index: u32) {
        if self.head == index {
            self.pop(table);
            return;
        }
        let mut before = self.head;
        while let Some(entry) = table.get(before) {
            let next = entry.link();
            if next == index {
                let behind = table.get_mut(index).map_or(NIL, |entry| core::mem::take(entry.link_mut()));
                if let Some(entry) = table.get_mut(before) {
                    *entry.link_mut() = behind;
                }
                if behind == NIL {
                    self.tail = before;
                }
                return;
            }
            before = next;
        }
    }

    /// The first entry that is looked for.
    pub fn find<T: Linked<LINK> + Default>(&self, table: &impl Table<T>, is_it: impl Fn(&T) -> bool) -> Option<u32> {
        let mut index = self.head;
        while let Some(entry) = table.get(index) {
            if is_it(entry) {
                return Some(index);
            }
            index = entry.link();
        }
        None
    }
}

/// Lists of what is lent to one call: its first entry is kept with the call, 0 if there is none.
pub(crate) fn push_lent<const LINK: usize, T: Linked<LINK> + Default>(
    first: &mut u32,
    table: &mut impl Table<T>,
    index: u32,
) {
    if let Some(entry) = table.get_mut(index) {
        *entry.link_mut() = if *first == 0 { NIL } else { *first };
        *first = index;
    }
}

/// Takes the first entry out of such a list.
pub(crate) fn pop_lent<const LINK: usize, T: Linked<LINK> + Default>(
    first: &mut u32,
    table: &mut impl Table<T>,
) -> Option<u32> {
    let index = core::mem::take(first);
    let next = core::mem::take(table.get_mut(index).filter(|_| index != 0)?.link_mut());
    *first = if next == NIL { 0 } else { next };
    Some(index)
}

/// Takes an entry out of such a list, wherever it stands: no message has more handles than were announced, so that the list
/// is no longer than that.
pub(crate) fn unlink_lent<const LINK: usize, T: Linked<LINK> + Default>(
    first: &mut u32,
    table: &mut impl Table<T>,
    index: u32,
) {
    if *first == index {
        pop_lent(first, table);
        return;
    }
    let mut before = *first;
    while before != 0 && before != NIL {
        let Some(next) = table.get(before).map(Linked::link) else { return };
        if next == index {
            let behind = table.get_mut(index).map_or(NIL, |entry| core::mem::take(entry.link_mut()));
            if let Some(entry) = table.get_mut(before) {
                *entry.link_mut() = behind;
            }
            return;
        }
        before = next;
    }
}
