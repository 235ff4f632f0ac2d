//! The rules of nesting, in one place for reader and writer: how many values are owed at each level, how deep they may
//! nest (VAL-4), and what may stand where (VAL-7, VAL-8). No recursion, fixed memory (VAL-9).

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

/// The kinds of values that matter for where a value may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    None,
    Str,
    Tuple,
    Reference,
    Exception,
    Named,
    Other,
}

/// Where in a run of values reader or writer stands.
#[derive(Clone, Debug)]
pub(crate) struct Nest {
    top: Top,
    /// Values begun at the top level.
    count: u32,
    named: bool,
    /// For each open container: its class and how many items it is still owed.
    open: [(Class, u32); MAX_DEPTH],
    depth: usize,
}

impl Nest {
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn new(top: Top) -> Self {
        Self { top, count: 0, named: false, open: [(Class::Other, 0); MAX_DEPTH], depth: 0 }
    }

    /// A value begins that has so many items. It also ends, if it has none.
    pub fn value(&mut self, class: Class, items: u32) -> Result<(), Malformed> {
        match self.depth.checked_sub(1).and_then(|innermost| self.open.get_mut(innermost)) {
            Some((container, owed)) => {
                let fits = match (*container, *owed) {
                    (Class::Exception, 4) | (Class::Named, 2) => class == Class::Str,
                    (Class::Exception, 3) => class == Class::Tuple,
                    (Class::Exception, 2) => matches!(class, Class::Str | Class::None),
                    (Class::Exception, 1) => matches!(class, Class::Reference | Class::None),
                    _ => class != Class::Named,
                };
                if !fits {
                    return Err(Malformed);
                }
                *owed -= 1;
            }
            None => self.at_top(class)?,
        }
        if items > 0 {
            // A named argument is no level of its own.
            if self.depth + 1 >= MAX_DEPTH + usize::from(self.named) {
                return Err(Malformed);
            }
            let slot = self.open.get_mut(self.depth).ok_or(Malformed)?;
            *slot = (class, items);
            self.depth += 1;
        }
        while let Some((_, 0)) = self.depth.checked_sub(1).and_then(|innermost| self.open.get(innermost)) {
            self.depth -= 1;
        }
        Ok(())
    }

    fn at_top(&mut self, class: Class) -> Result<(), Malformed> {
        let allowed = match self.top {
            Top::Arguments => class == Class::Named || !self.named,
            Top::Result => class != Class::Named && class != Class::None && self.count < 1,
            Top::Error => class != Class::Named && self.count < 4,
            Top::One => class != Class::Named && self.count < 1,
        };
        if !allowed {
            return Err(Malformed);
        }
        self.named |= class == Class::Named;
        self.count += 1;
        Ok(())
    }

    /// Takes a none at the top of a result, which is written as nothing (CAL-5). False elsewhere.
    pub fn absent_result(&mut self) -> bool {
        let absent = self.top == Top::Result && self.depth == 0 && self.count == 0;
        self.count += u32::from(absent);
        absent
    }

    /// Whether no container is owed an item.
    pub fn is_complete(&self) -> bool {
        self.depth == 0 && (self.top != Top::One || self.count == 1)
    }

    /// Values at the top level.
    pub fn count(&self) -> u32 {
        self.count
    }
}
