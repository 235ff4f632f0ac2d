//! Lists that run through the entries of a table.

use super::storage::{Blank, Table};
use super::width::Number;

/// An entry that can be in a list; one with two links can be in two.
pub(crate) trait Linked<const LINK: usize = 0> {
    type Number: Number;
    fn link(&self) -> Self::Number;
    fn link_mut(&mut self) -> &mut Self::Number;
}

/// A list through a table's entries. An entry is in at most one list of a link at a time. No list has slot 0, so that a
/// link is 0 where an entry of exports or imports is in none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct List<N, const LINK: usize = 0> {
    head: End<N>,
    tail: End<N>,
}

/// The number of an entry, and one more; 0 for none, so that an empty list is [blank](Blank).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct End<N>(N);

impl<N: Number> End<N> {
    const NONE: Self = Self(N::ZERO);

    /// Of what stands in a link, where the highest number is none.
    fn of(link: N) -> Self {
        Self(N::of(link.into().wrapping_add(1)))
    }

    fn link(self) -> N {
        N::of(self.0.into().wrapping_sub(1))
    }
}

impl<N: Number, const LINK: usize> List<N, LINK> {
    pub const EMPTY: Self = Self { head: End::NONE, tail: End::NONE };

    pub fn is_empty(&self) -> bool {
        self.head == End::NONE
    }

    pub fn first(&self) -> Option<u32> {
        (!self.is_empty()).then(|| self.head.link().into())
    }

    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn push_back<T: Linked<LINK, Number = N> + Blank>(&mut self, table: &mut impl Table<T>, index: u32) {
        let Some(entry) = table.get_mut(index) else { return };
        *entry.link_mut() = N::NONE;
        let index = N::of(index);
        match table.get_mut(self.tail.link().into()) {
            Some(last) if !self.is_empty() => *last.link_mut() = index,
            _ => self.head = End::of(index),
        }
        self.tail = End::of(index);
    }

    pub fn push_front<T: Linked<LINK, Number = N> + Blank>(&mut self, table: &mut impl Table<T>, index: u32) {
        let Some(entry) = table.get_mut(index) else { return };
        *entry.link_mut() = self.head.link();
        let index = End::of(N::of(index));
        if self.is_empty() {
            self.tail = index;
        }
        self.head = index;
    }

    pub fn pop<T: Linked<LINK, Number = N> + Blank>(&mut self, table: &mut impl Table<T>) -> Option<u32> {
        let index = self.first()?;
        self.head = match table.get_mut(index) {
            Some(entry) => End::of(core::mem::take(entry.link_mut())),
            None => End::NONE,
        };
        if self.is_empty() {
            self.tail = End::NONE;
        }
        Some(index)
    }

    /// Takes an entry out, wherever it stands.
    pub fn remove<T: Linked<LINK, Number = N> + Blank>(&mut self, table: &mut impl Table<T>, index: u32) {
        if self.first() == Some(index) {
            self.pop(table);
            return;
        }
        if let Some((before, behind)) = unlink(self.head.link(), table, index)
            && behind == N::NONE
        {
            self.tail = End::of(before);
        }
    }

    /// The first entry that is looked for.
    pub fn find<T: Linked<LINK, Number = N> + Blank>(
        &self,
        table: &impl Table<T>,
        is_it: impl Fn(&T) -> bool,
    ) -> Option<u32> {
        let mut index = self.head.link();
        while let Some(entry) = table.get(index.into()) {
            if is_it(entry) {
                return Some(index.into());
            }
            index = entry.link();
        }
        None
    }
}

/// Takes an entry out of a run that begins with another one. Tells which ones were before and behind it.
fn unlink<const LINK: usize, T: Linked<LINK> + Blank>(
    first: T::Number,
    table: &mut impl Table<T>,
    index: u32,
) -> Option<(T::Number, T::Number)> {
    let mut before = first;
    loop {
        let next = table.get(before.into())?.link();
        if next.into() == index {
            let behind = core::mem::take(table.get_mut(index)?.link_mut());
            *table.get_mut(before.into())?.link_mut() = behind;
            return Some((before, behind));
        }
        before = next;
    }
}

/// Lists of what is lent to one call: its first entry is kept with the call, 0 if there is none.
pub(crate) fn push_lent<const LINK: usize, T: Linked<LINK> + Blank>(
    first: &mut T::Number,
    table: &mut impl Table<T>,
    index: u32,
) {
    if let Some(entry) = table.get_mut(index) {
        *entry.link_mut() = if *first == T::Number::default() { T::Number::NONE } else { *first };
        *first = T::Number::of(index);
    }
}

/// Takes the first entry out of such a list.
pub(crate) fn pop_lent<const LINK: usize, T: Linked<LINK> + Blank>(
    first: &mut T::Number,
    table: &mut impl Table<T>,
) -> Option<u32> {
    let index = core::mem::take(first).into();
    let next = core::mem::take(table.get_mut(index).filter(|_| index != 0)?.link_mut());
    *first = if next == T::Number::NONE { T::Number::default() } else { next };
    Some(index)
}

/// Takes an entry out of such a list, wherever it stands: no message has more handles than were announced, so that the list
/// is no longer than that.
pub(crate) fn unlink_lent<const LINK: usize, T: Linked<LINK> + Blank>(
    first: &mut T::Number,
    table: &mut impl Table<T>,
    index: u32,
) {
    if (*first).into() == index {
        pop_lent(first, table);
    } else if *first != T::Number::default() {
        unlink(*first, table, index);
    }
}
