//! How long a call has, as its extension says it (TIM-1).

use super::{MAX_REMAINING, flag};
use crate::codec::{Reader, Writer};

/// How long a call has, and what is to become of it when that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deadline {
    /// Milliseconds that are left, at most [`MAX_REMAINING`].
    pub remaining: u32,
    /// What then.
    pub consequence: Consequence,
}

impl Deadline {
    /// So many milliseconds, then the call is cancelled.
    pub fn new(remaining: u32) -> Self {
        Self { remaining, consequence: Consequence::Cancel }
    }

    /// The one that is over sooner, with its consequence; the first of equals.
    pub(crate) fn sooner(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) if other.remaining < one.remaining => Some(other),
            (None, other) => other,
            (one, _) => one,
        }
    }

    /// Whether there is no sense in starting the call any more.
    pub(crate) fn is_too_late(self) -> bool {
        self.remaining == 0 && self.consequence != Consequence::Late
    }
}

/// What becomes of a call when its deadline has passed: its caller's choice (TIM-3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consequence {
    /// The callee is asked to stop; the Return tells what happened.
    #[default]
    Cancel = 0,
    /// The caller waits no longer. The callee may go on.
    Abandon = 1,
    /// A late result is welcome.
    Late = 2,
}

/// What stands in the extension of a Call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extension {
    pub parent: Option<u16>,
    pub deadline: Option<Deadline>,
}

const PARENT: u64 = 1;
const REMAINING: u64 = 2;
const CONSEQUENCE: u64 = 3;

impl Extension {
    pub fn is_empty(&self) -> bool {
        self.parent.is_none() && self.deadline.is_none()
    }

    /// Reads the extension, if the flag says that there is one. Only those of Calls have `known` keys.
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub fn read(flags: u8, reader: &mut Reader<'_>, known: bool) -> Self {
        let mut extension = Self::default();
        if flags & flag::EXTENSION == 0 {
            return extension;
        }
        let mut fields = Reader::new(reader.blob());
        fields.expect(!fields.is_empty());
        // Keys ascend: the least that may come.
        let mut least = 0;
        while !fields.is_empty() {
            let head = fields.varint();
            let key = head >> 1;
            // No known key has a blob, or more than 32 bits.
            let number = match head & 1 {
                0 => u32::try_from(fields.varint()).ok(),
                _ => {
                    fields.blob();
                    None
                }
            };
            let is_fine = key >= least && (!known || extension.set(key, number));
            fields.expect(is_fine);
            least = key + 1;
        }
        reader.expect(fields.check().is_ok());
        extension
    }

    /// Takes one field; false if it is one that cannot be so.
    fn set(&mut self, key: u64, number: Option<u32>) -> bool {
        match (key, number, &mut self.deadline) {
            (PARENT, Some(id @ ..=0xFFFF), _) => self.parent = Some(id as u16),
            (REMAINING, Some(remaining @ ..=MAX_REMAINING), deadline) => *deadline = Some(Deadline::new(remaining)),
            (CONSEQUENCE, Some(1), Some(deadline)) => deadline.consequence = Consequence::Abandon,
            (CONSEQUENCE, Some(2), Some(deadline)) => deadline.consequence = Consequence::Late,
            (PARENT | REMAINING | CONSEQUENCE, ..) => return false,
            _ => {}
        }
        true
    }

    pub fn write(&self, writer: &mut Writer<'_>) {
        let mut bytes = [0; Self::MAX_LENGTH];
        let mut fields = Writer::new(&mut bytes);
        let mut put = |key: u64, number: u64| {
            fields.varint(key << 1);
            fields.varint(number);
        };
        if let Some(parent) = self.parent {
            put(PARENT, parent.into());
        }
        if let Some(deadline) = self.deadline {
            put(REMAINING, deadline.remaining.into());
            if deadline.consequence != Consequence::Cancel {
                put(CONSEQUENCE, deadline.consequence as u64);
            }
        }
        writer.blob(fields.written().unwrap_or_default());
    }

    /// Of the fields: three keys of a byte, a number of 16 bits, one of 31, and one of two.
    const MAX_LENGTH: usize = 3 + 3 + 5 + 1;
}
