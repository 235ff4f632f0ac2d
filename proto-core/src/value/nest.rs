//! The rules of nesting, in one place for reader and writer: how many values are owed at each level, how deep they may
//! nest (VAL-4), and what may stand where (VAL-7, VAL-8). No recursion, fixed memory (VAL-9).

use super::tag;
use crate::codec::Malformed;

/// How deep values nest: a value that is part of no other is at depth 1 (VAL-4).
pub const MAX_DEPTH: usize = 16;

/// What a run of values at the top level of a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// Arguments of a call: positional, then named ones.
    Arguments,
    /// The result of a call: at most one value, and not none (CAL-5).
    Result,
    /// What comes with an error code: at most four values (ERR-2).
    Error,
    /// Exactly one value of any kind, not named.
    One,
}

/// What a value is part of, as far as that matters for what may stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    /// A container, or a run whose length alone is bounded.
    Other,
    Arguments,
    /// The same, once one had a name.
    NamedArguments,
    Result,
    One,
    Exception,
    Named,
}

/// Where in a run of values reader or writer stands.
#[derive(Clone, Debug)]
pub(crate) struct Nest {
    /// What the next value is part of, and how many more that takes.
    within: Within,
    owed: u32,
    /// The same of what is open around it, the outermost first.
    outer: [Within; MAX_DEPTH],
    outer_owed: [u32; MAX_DEPTH],
    depth: usize,
    named: bool,
}

impl Nest {
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn new(top: Top) -> Self {
        let (within, owed) = match top {
            Top::Arguments => (Within::Arguments, u32::MAX),
            Top::Result => (Within::Result, 1),
            Top::Error => (Within::Other, 4),
            Top::One => (Within::One, 1),
        };
        let outer = [Within::Other; MAX_DEPTH];
        Self { within, owed, outer, outer_owed: [0; MAX_DEPTH], depth: 0, named: false }
    }

    /// A value begins, of a tag that is not folded, and that has so many items. It also ends, if it has none.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn value(&mut self, tag: u8, items: u32) -> Result<(), Malformed> {
        let fitting = match (self.within, self.owed) {
            (_, 0) => 0,
            (Within::Arguments, _) => ALL,
            (Within::NamedArguments, _) => of(tag::NAMED),
            (Within::Result, _) => ALL & !of(tag::NAMED) & !of(tag::NONE),
            (Within::Exception, 4) | (Within::Named, 2) => of(tag::STRING),
            (Within::Exception, 3) => of(tag::TUPLE),
            (Within::Exception, 2) => of(tag::STRING) | of(tag::NONE),
            (Within::Exception, 1) => of(tag::REFERENCE) | of(tag::NONE),
            _ => ALL & !of(tag::NAMED),
        };
        if fitting & of(tag) == 0 {
            return Err(Malformed);
        }
        self.owed -= 1;
        let within = match tag {
            tag::EXCEPTION => Within::Exception,
            tag::NAMED => {
                (self.within, self.named) = (Within::NamedArguments, true);
                Within::Named
            }
            _ => Within::Other,
        };
        if items > 0 {
            self.open(within, items)?;
        }
        while self.owed == 0 && self.depth > 0 {
            self.depth -= 1;
            let outer = self.outer.get(self.depth).zip(self.outer_owed.get(self.depth));
            (self.within, self.owed) = outer.map(|(&within, &owed)| (within, owed)).ok_or(Malformed)?;
        }
        Ok(())
    }

    fn open(&mut self, within: Within, items: u32) -> Result<(), Malformed> {
        // A named argument is no level of its own.
        if self.depth + 1 >= MAX_DEPTH + usize::from(self.named) {
            return Err(Malformed);
        }
        let outer = self.outer.get_mut(self.depth).zip(self.outer_owed.get_mut(self.depth));
        let (outer, owed) = outer.ok_or(Malformed)?;
        (*outer, *owed) = (self.within, self.owed);
        (self.within, self.owed) = (within, items);
        self.depth += 1;
        Ok(())
    }

    /// Takes a none at the top of a result, which is written as nothing (CAL-5). False elsewhere.
    pub fn absent_result(&mut self) -> bool {
        let absent = (self.within, self.owed) == (Within::Result, 1);
        self.owed -= u32::from(absent);
        absent
    }

    /// Whether the next value is part of no other.
    pub fn is_at_top(&self) -> bool {
        self.depth == 0
    }

    /// Whether no container is owed an item.
    pub fn is_complete(&self) -> bool {
        self.depth == 0 && (self.within != Within::One || self.owed == 0)
    }
}

/// A set of tags that are not folded, a bit each.
const fn of(tag: u8) -> u16 {
    1 << (tag & 0xF)
}

const ALL: u16 = u16::MAX;
