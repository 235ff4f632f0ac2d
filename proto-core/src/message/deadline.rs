//! How long a call has, as its extension says it (TIM-1).

use super::MAX_REMAINING;
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

    pub fn read(flags: u8, reader: &mut Reader<'_>) -> Self {
        let (mut parent, mut deadline) = (None, None);
        super::read_extension(flags, reader, &mut |key, value| {
            match (key, value, &mut deadline) {
                (PARENT, Some(id @ ..=0xFFFF), _) => parent = Some(id as u16),
                (REMAINING, Some(remaining), deadline) if remaining <= MAX_REMAINING.into() => {
                    *deadline = Some(Deadline::new(remaining as u32));
                }
                (CONSEQUENCE, Some(1), Some(deadline)) => deadline.consequence = Consequence::Abandon,
                (CONSEQUENCE, Some(2), Some(deadline)) => deadline.consequence = Consequence::Late,
                (PARENT | REMAINING | CONSEQUENCE, ..) => return false,
                _ => {}
            }
            true
        });
        Self { parent, deadline }
    }

    pub fn write(&self, writer: &mut Writer<'_>) {
        let mut bytes = [0; 16];
        let mut fields = Writer::new(&mut bytes);
        let mut field = |key: u64, value: u32| {
            fields.varint(key << 1);
            fields.varint(value.into());
        };
        if let Some(parent) = self.parent {
            field(PARENT, parent.into());
        }
        if let Some(Deadline { remaining, consequence }) = self.deadline {
            field(REMAINING, remaining);
            if consequence != Consequence::Cancel {
                field(CONSEQUENCE, consequence as u32);
            }
        }
        writer.blob(fields.written().unwrap_or_default());
    }
}
