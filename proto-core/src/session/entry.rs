//! The entries of the four tables, and the lists that run through them.

use super::storage::Table;
use super::time::Due;
use crate::message::{Consequence, ErrorCode, FinishMode, MAX_ANSWERS_NAMED};

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
///  free ── intern ──► pinned ── commit ──► on the wire ── Release ──► (held by answers) ──► freed ── polled ──► free
///                        └──── abort ────► free                  ▲────── sent again ──────────┘
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Export {
    /// Of the handles that name it now or, off the wire, that will next.
    pub(crate) generation: u16,
    /// The first generation in which the slot named this object.
    pub(crate) born: u16,
    /// Whether it has an object.
    pub(crate) used: bool,
    /// Whether the peer may hold it.
    pub(crate) wire: bool,
    /// Whether it is in the list of freed objects.
    pub(crate) listed: bool,
    /// Descriptors in a message that is being written (REF-4).
    pub(crate) pins: u16,
    /// Calls and answers that hold the object (CAL-4, ANS-4).
    pub(crate) holds: u32,
    pub(crate) key: ObjectKey,
    /// Ordinal of the last message that carried it (REF-4).
    pub(crate) last_sent: u64,
    pub(crate) next: u32,
}

/// One of the peer's objects that we hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Import {
    pub(crate) generation: u16,
    pub(crate) live: bool,
    /// Whether it is in the list of marks. With no holds left it is marked for release (REL-1).
    pub(crate) listed: bool,
    /// Times that it was delivered, less the times it was released.
    pub(crate) holds: u32,
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
    pub(crate) serial: u32,
    /// Length of the call's body.
    pub(crate) bytes: u32,
    /// The low bits of its ordinal.
    pub(crate) ordinal: u32,
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
    pub(crate) serial: u32,
    pub(crate) bytes: u32,
    pub(crate) ordinal: u64,
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

/// An entry that can be in a list.
pub(crate) trait Linked {
    fn next(&mut self) -> &mut u32;
}

macro_rules! linked {
    ($($entry:ty),+) => {
        $(impl Linked for $entry {
            fn next(&mut self) -> &mut u32 {
                &mut self.next
            }
        })+
    };
}

linked!(Export, Import, Question, Answer);

/// A list through a table's entries. An entry is in at most one list at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub const EMPTY: Self = Self { head: NIL, tail: NIL };

    pub fn first(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    pub fn push_back<T: Linked + Default>(&mut self, table: &mut impl Table<T>, index: u32) {
        let Some(entry) = table.get_mut(index) else { return };
        *entry.next() = NIL;
        match table.get_mut(self.tail) {
            Some(last) if self.head != NIL => *last.next() = index,
            _ => self.head = index,
        }
        self.tail = index;
    }

    pub fn push_front<T: Linked + Default>(&mut self, table: &mut impl Table<T>, index: u32) {
        let Some(entry) = table.get_mut(index) else { return };
        *entry.next() = self.head;
        if self.head == NIL {
            self.tail = index;
        }
        self.head = index;
    }

    pub fn pop<T: Linked + Default>(&mut self, table: &mut impl Table<T>) -> Option<u32> {
        let index = self.first()?;
        self.head = match table.get_mut(index) {
            Some(entry) => core::mem::take(entry.next()),
            None => NIL,
        };
        if self.head == NIL {
            self.tail = NIL;
        }
        Some(index)
    }
}
