//! What a session keeps its tables in: fixed capacity without a heap, or growing to a stated bound.
//!
//! One state machine, [`Session<S>`](super::Session), serves both; `S` is the only parameter. Free lists and marks are
//! links inside the entries, so a table is one run of entries and nothing beside it.

use core::fmt::Debug;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;

use crate::codec::move_down;

use super::entry::{Answer, Export, Import, ObjectKey, Question};
use super::link::CONTROL;
use super::width::{Narrow, Width};

/// What has a form in which nothing is in it. That is all zeros, as far as it is in place, so that a static of it takes no flash.
pub trait Blank {
    /// That form.
    const BLANK: Self;
}

/// A run of entries, addressed by number, that never shrinks.
pub trait Table<T: Blank>: Blank + Clone + Eq + Hash + Debug {
    /// How many entries it may hold, or fewer if it has less room: told once, when it is blank.
    fn set_limit(&mut self, limit: usize);
    /// How many entries there may ever be.
    fn limit(&self) -> usize;
    /// How many there are.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// An entry. One that [`Self::grow`] has not given yet is none or a blank one.
    fn get(&self, index: u32) -> Option<&T>;
    /// An entry, to change it.
    fn get_mut(&mut self, index: u32) -> Option<&mut T>;
    /// Appends a blank entry and tells its number; None if the table is full. Nothing has changed then.
    fn grow(&mut self) -> Option<u32>;
}

/// Finds an object's slot by its key.
pub trait KeyIndex: Blank + Clone + Eq + Hash + Debug {
    /// Whether [`Self::find`] knows; if not, the session looks through the table.
    const INDEXED: bool;
    /// Notes a key's slot.
    fn insert(&mut self, key: ObjectKey, slot: u32);
    /// Forgets a key.
    fn remove(&mut self, key: ObjectKey);
    /// A key's slot.
    fn find(&self, key: ObjectKey) -> Option<u32>;
}

/// Holds a few runs of bytes by number: calls that wait, results that are kept.
pub trait Store: Blank + Clone + Eq + Hash + Debug {
    /// How many bytes it may hold, or fewer if it has less room: told once, when it is blank.
    fn set_limit(&mut self, limit: usize);
    /// Bytes that it may ever hold, what it needs for itself included.
    fn limit(&self) -> usize;
    /// Bytes that are free now.
    fn free(&self) -> usize;
    /// What it needs for itself for each run.
    const OVERHEAD: usize;
    /// Whether it can hold any. If not, no call waits, and the code for that is left out.
    const HOLDS: bool;
    /// Keeps a copy of `bytes`; false if there is no room, nothing has changed then.
    fn put(&mut self, key: u32, bytes: &[u8]) -> bool;
    /// The run of a number.
    fn get(&self, key: u32) -> Option<&[u8]>;
    /// Forgets it.
    fn remove(&mut self, key: u32);
}

/// Contiguous bytes for output.
pub trait Buffer: Blank + Clone + Eq + Hash + Debug {
    /// How many bytes it may grow to, or fewer if it has less room: told once, when it is blank.
    fn set_limit(&mut self, limit: usize);
    /// Bytes that it may ever have.
    fn limit(&self) -> usize;
    /// The bytes.
    fn bytes(&self) -> &[u8];
    /// The bytes, to change them.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Makes it at least `length` bytes long; false if that is above the limit.
    fn grow(&mut self, length: usize) -> bool;
}

/// Which storage a session has. A backend names one type for all its sessions.
pub trait Storage: Clone + Eq + Hash + Debug {
    /// How wide the numbers in its entries are, which bounds the tables.
    type Width: Width;
    /// Our objects that the peer holds.
    type Exports: Table<Export<Self::Width>>;
    /// The peer's objects that we hold.
    type Imports: Table<Import<Self::Width>>;
    /// Our calls.
    type Questions: Table<Question<Self::Width>>;
    /// The peer's calls.
    type Answers: Table<Answer<Self::Width>>;
    /// Object to slot.
    type Keys: KeyIndex;
    /// Waiting calls and kept results.
    type Store: Store;
    /// Output.
    type Out: Buffer;
    /// Whether results that are values are kept for calls that name them, and worked on for these (ANS-4, OPS-5). Without it they
    /// are [not kept](crate::message::ErrorCode::NotKept), and the code for all that is left out; references are kept in any case.
    const KEEPS_VALUES: bool;
    /// What is there beside what every peer needs.
    type Parts: Parts;
}

/// What a device may leave out, each for some flash: no peer is entitled to any of it.
pub trait Parts: Clone + Eq + Hash + Debug {
    /// Whether [`LinkMode::Resume`](super::LinkMode::Resume) is offered (LNK-1). Without it, it is [`LinkMode::Off`](super::LinkMode::Off).
    const RESUMES: bool;
    /// Holds one message outside the order, with its length: 33 bytes if sessions resume, else none.
    type Control: Buffer;
    /// Whether calls of ours can be [pipelined](super::Call::pipelined). Without it they are ordinary calls, and what names their
    /// answers fails with [`CallError::NotAPromise`](super::CallError::NotAPromise).
    const PROMISES: bool;
    /// Whether [`Ref::Borrowed`](super::Ref::Borrowed) lends. Without it, it is [`Ref::Local`](super::Ref::Local): the peer releases
    /// the reference. What peers lend works in any case.
    const LENDS: bool;
    /// Whether objects can be [revoked](super::Session::revoke). Without it none is found to be.
    const REVOKES: bool;
    /// Whether a Close for a rule that the peer broke tells in words what it did. Without it, it tells the rule's id alone (CLS-1).
    const EXPLAINS: bool;
}

/// All that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct All;

impl Parts for All {
    const RESUMES: bool = true;
    type Control = FixedBuffer<CONTROL>;
    const PROMISES: bool = true;
    const LENDS: bool = true;
    const REVOKES: bool = true;
    const EXPLAINS: bool = true;
}

/// What every peer needs, and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Least;

impl Parts for Least {
    const RESUMES: bool = false;
    type Control = FixedBuffer<0>;
    const PROMISES: bool = false;
    const LENDS: bool = false;
    const REVOKES: bool = false;
    const EXPLAINS: bool = false;
}

/// Fixed capacity, no heap: `EXPORTS` and `IMPORTS` slots, the directory's included, `CALLS` in each direction, up to 254 of
/// each, `OUT` bytes of output and `STORE` bytes for calls that wait and results that are kept (each needs 8 bytes more than
/// its own). `VALUES` says whether [results that are values](Storage::KEEPS_VALUES) are kept, and `P` [what else](Parts) is
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Micro<
    const EXPORTS: usize,
    const IMPORTS: usize,
    const CALLS: usize,
    const OUT: usize,
    const STORE: usize,
    const VALUES: bool = true,
    P = All,
>(PhantomData<P>);

impl<const E: usize, const I: usize, const C: usize, const O: usize, const S: usize, const V: bool, P: Parts> Storage
    for Micro<E, I, C, O, S, V, P>
{
    type Width = Narrow;
    type Exports = Fixed<Export<Narrow>, E>;
    type Imports = Fixed<Import<Narrow>, I>;
    type Questions = Fixed<Question<Narrow>, C>;
    type Answers = Fixed<Answer<Narrow>, C>;
    type Keys = NoIndex;
    type Store = FixedStore<S>;
    type Out = FixedBuffer<O>;
    const KEEPS_VALUES: bool = {
        assert!(E <= 255 && I <= 255 && C <= 254, "a byte numbers the entries of a table");
        V
    };
    type Parts = P;
}

/// A table of at most `N` entries in place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fixed<T, const N: usize> {
    entries: [T; N],
    length: u16,
    limit: u16,
}

impl<T: Blank, const N: usize> Blank for Fixed<T, N> {
    const BLANK: Self = Self { entries: [const { T::BLANK }; N], length: 0, limit: 0 };
}

impl<T: Blank + Clone + Eq + Hash + Debug, const N: usize> Table<T> for Fixed<T, N> {
    fn set_limit(&mut self, limit: usize) {
        self.limit = u16::try_from(limit.min(N)).unwrap_or(u16::MAX);
    }

    fn limit(&self) -> usize {
        self.limit.into()
    }

    fn len(&self) -> usize {
        self.length.into()
    }

    fn get(&self, index: u32) -> Option<&T> {
        self.entries.get(index as usize)
    }

    fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize)
    }

    fn grow(&mut self) -> Option<u32> {
        if self.length >= self.limit {
            return None;
        }
        self.length += 1;
        Some(u32::from(self.length) - 1)
    }
}

/// No index: a table of a few entries is looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NoIndex;

impl Blank for NoIndex {
    const BLANK: Self = Self;
}

impl KeyIndex for NoIndex {
    const INDEXED: bool = false;
    fn insert(&mut self, _: ObjectKey, _: u32) {}
    fn remove(&mut self, _: ObjectKey) {}
    fn find(&self, _: ObjectKey) -> Option<u32> {
        None
    }
}

/// `N` bytes for runs of bytes, one after the other, each behind its number and length.
#[derive(Clone, Debug)]
pub struct FixedStore<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> FixedStore<N> {
    /// Where a run stands: the place of its head, and its length.
    fn place(&self, key: u32) -> Option<(usize, usize)> {
        let mut at = 0;
        while at < self.used {
            let head = self.bytes.get(at..at + 8)?;
            let (have, length) = head.split_at_checked(4)?;
            let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
            if have == key.to_le_bytes() {
                return Some((at, length));
            }
            at += 8 + length;
        }
        None
    }
}

impl<const N: usize> Blank for FixedStore<N> {
    const BLANK: Self = Self { bytes: [0; N], used: 0 };
}

impl<const N: usize> Store for FixedStore<N> {
    const OVERHEAD: usize = 8;
    const HOLDS: bool = N > 0;

    fn set_limit(&mut self, _: usize) {}

    fn limit(&self) -> usize {
        N
    }

    fn free(&self) -> usize {
        N.saturating_sub(self.used)
    }

    fn put(&mut self, key: u32, bytes: &[u8]) -> bool {
        let Ok(length) = u32::try_from(bytes.len()) else { return false };
        let Some(end) = self.used.checked_add(8 + bytes.len()) else { return false };
        let Some(room) = self.bytes.get_mut(self.used..end) else { return false };
        let (head, body) = room.split_at_mut(8);
        let (head_key, head_length) = head.split_at_mut(4);
        head_key.copy_from_slice(&key.to_le_bytes());
        head_length.copy_from_slice(&length.to_le_bytes());
        body.copy_from_slice(bytes);
        self.used = end;
        true
    }

    fn get(&self, key: u32) -> Option<&[u8]> {
        let (at, length) = self.place(key)?;
        self.bytes.get(at + 8..at + 8 + length)
    }

    fn remove(&mut self, key: u32) {
        if let Some((at, length)) = self.place(key) {
            let end = at + 8 + length;
            move_down(&mut self.bytes, end, self.used, at);
            self.used -= end - at;
        }
    }
}

impl<const N: usize> PartialEq for FixedStore<N> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.get(..self.used) == other.bytes.get(..other.used)
    }
}

impl<const N: usize> Eq for FixedStore<N> {}

impl<const N: usize> Hash for FixedStore<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.get(..self.used).hash(state);
    }
}

/// `N` bytes of output in place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FixedBuffer<const N: usize>([u8; N]);

impl<const N: usize> Blank for FixedBuffer<N> {
    const BLANK: Self = Self([0; N]);
}

impl<const N: usize> Buffer for FixedBuffer<N> {
    fn set_limit(&mut self, _: usize) {}

    fn limit(&self) -> usize {
        N
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn grow(&mut self, length: usize) -> bool {
        length <= N
    }
}

#[cfg(feature = "alloc")]
pub use growing::{Growing, GrowingBuffer, GrowingStore, Host};

#[cfg(feature = "alloc")]
mod growing {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use super::super::width::Wide;
    use super::{
        Answer, Blank, Buffer, Debug, Export, Hash, Import, KeyIndex, ObjectKey, Question, Storage, Store, Table,
    };

    /// Grows on the heap, each table to the bound it was given.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Host;

    impl Storage for Host {
        type Width = Wide;
        type Exports = Growing<Export<Wide>>;
        type Imports = Growing<Import<Wide>>;
        type Questions = Growing<Question<Wide>>;
        type Answers = Growing<Answer<Wide>>;
        type Keys = BTreeMap<ObjectKey, u32>;
        type Store = GrowingStore;
        type Out = GrowingBuffer;
        const KEEPS_VALUES: bool = true;
        type Parts = super::All;
    }

    /// A table that grows to its limit.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct Growing<T> {
        entries: Vec<T>,
        limit: usize,
    }

    impl<T> Blank for Growing<T> {
        const BLANK: Self = Self { entries: Vec::new(), limit: 0 };
    }

    impl<T: Blank + Clone + Eq + Hash + Debug> Table<T> for Growing<T> {
        fn set_limit(&mut self, limit: usize) {
            self.limit = limit;
        }

        fn limit(&self) -> usize {
            self.limit
        }

        fn len(&self) -> usize {
            self.entries.len()
        }

        fn get(&self, index: u32) -> Option<&T> {
            self.entries.get(index as usize)
        }

        fn get_mut(&mut self, index: u32) -> Option<&mut T> {
            self.entries.get_mut(index as usize)
        }

        fn grow(&mut self) -> Option<u32> {
            let length = self.entries.len();
            if length >= self.limit {
                return None;
            }
            if length == self.entries.capacity() {
                // Twice as many, and never beyond the limit.
                let more = length.max(4).min(self.limit - length);
                self.entries.try_reserve_exact(more).ok()?;
            }
            self.entries.push(T::BLANK);
            u32::try_from(length).ok()
        }
    }

    impl<T> Growing<T> {
        /// Bytes that it takes.
        pub(crate) fn memory(&self) -> usize {
            self.entries.capacity() * size_of::<T>()
        }
    }

    impl Blank for BTreeMap<ObjectKey, u32> {
        const BLANK: Self = Self::new();
    }

    impl KeyIndex for BTreeMap<ObjectKey, u32> {
        const INDEXED: bool = true;

        fn insert(&mut self, key: ObjectKey, slot: u32) {
            self.insert(key, slot);
        }

        fn remove(&mut self, key: ObjectKey) {
            self.remove(&key);
        }

        fn find(&self, key: ObjectKey) -> Option<u32> {
            self.get(&key).copied()
        }
    }

    /// Runs of bytes on the heap, up to a limit in all.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct GrowingStore {
        runs: BTreeMap<u32, Vec<u8>>,
        used: usize,
        limit: usize,
    }

    impl Blank for GrowingStore {
        const BLANK: Self = Self { runs: BTreeMap::new(), used: 0, limit: 0 };
    }

    impl Store for GrowingStore {
        const OVERHEAD: usize = 0;
        const HOLDS: bool = true;

        fn set_limit(&mut self, limit: usize) {
            self.limit = limit;
        }

        fn limit(&self) -> usize {
            self.limit
        }

        fn free(&self) -> usize {
            self.limit.saturating_sub(self.used)
        }

        fn put(&mut self, key: u32, bytes: &[u8]) -> bool {
            if bytes.len() > self.free() {
                return false;
            }
            self.used += bytes.len();
            self.runs.insert(key, bytes.into());
            true
        }

        fn get(&self, key: u32) -> Option<&[u8]> {
            self.runs.get(&key).map(Vec::as_slice)
        }

        fn remove(&mut self, key: u32) {
            if let Some(run) = self.runs.remove(&key) {
                self.used -= run.len();
            }
        }
    }

    impl GrowingStore {
        /// Bytes that it takes.
        pub(crate) fn memory(&self) -> usize {
            self.used + self.runs.len() * OF_A_RUN
        }
    }

    /// What a run takes beside its bytes.
    const OF_A_RUN: usize = 64;

    /// Output bytes that grow to a limit.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct GrowingBuffer {
        bytes: Vec<u8>,
        limit: usize,
    }

    impl GrowingBuffer {
        /// Exchanges the bytes, whatever they are.
        pub(crate) fn swap(&mut self, bytes: &mut Vec<u8>) {
            core::mem::swap(&mut self.bytes, bytes);
        }
    }

    impl Blank for GrowingBuffer {
        const BLANK: Self = Self { bytes: Vec::new(), limit: 0 };
    }

    impl Buffer for GrowingBuffer {
        fn set_limit(&mut self, limit: usize) {
            self.limit = limit;
        }

        fn limit(&self) -> usize {
            self.limit
        }

        fn bytes(&self) -> &[u8] {
            &self.bytes
        }

        fn bytes_mut(&mut self) -> &mut [u8] {
            &mut self.bytes
        }

        fn grow(&mut self, length: usize) -> bool {
            if length > self.limit {
                return false;
            }
            if length > self.bytes.len() {
                let target = length.next_power_of_two().clamp(256, self.limit.max(256));
                if self.bytes.try_reserve_exact(target - self.bytes.len()).is_err() {
                    return false;
                }
                self.bytes.resize(target, 0);
            }
            true
        }
    }
}
