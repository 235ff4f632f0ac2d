//! The list of handles that stands before the values (REF-2).

use super::read_generation;
use crate::codec::{Malformed, Reader, Writer};

/// One handle of a message, as the sender sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Descriptor {
    /// The sender's object.
    Sender {
        /// Its slot.
        slot: u32,
        /// The slot's generation.
        generation: u16,
    },
    /// The receiver's object, coming home.
    Receiver {
        /// Its slot.
        slot: u32,
        /// The slot's generation.
        generation: u16,
    },
    /// The answer to an earlier call of the sender.
    Answer(u16),
    /// The sender's object, lent until the Return of the call that it is an argument of (REF-9).
    Borrowed {
        /// Its slot.
        slot: u32,
        /// The slot's generation.
        generation: u16,
    },
    /// A weak reference to an object of the sender (REF-10).
    Weak {
        /// The weak reference's slot.
        slot: u32,
        /// The slot's generation.
        generation: u16,
    },
}

/// Scopes of handles that have one (REF-2).
mod scope {
    pub const BORROWED: u64 = 0;
    pub const WEAK: u64 = 1;
}

impl Descriptor {
    /// Slot and generation of an object of the sender, whatever its scope.
    pub fn of_sender(self) -> Option<(u32, u16)> {
        match self {
            Self::Sender { slot, generation }
            | Self::Borrowed { slot, generation }
            | Self::Weak { slot, generation } => Some((slot, generation)),
            Self::Receiver { .. } | Self::Answer(_) => None,
        }
    }

    /// Slot and generation of an object of the receiver.
    pub(crate) fn of_receiver(self) -> Option<(u32, u16)> {
        if let Self::Receiver { slot, generation } = self { Some((slot, generation)) } else { None }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let head = reader.varint()?;
        let number = u32::try_from(head >> 3).map_err(|_| Malformed)?;
        let generation = if head & 4 == 0 { 0 } else { read_generation(reader)? };
        match head & 3 {
            0 => Ok(Self::Sender { slot: number, generation }),
            1 => Ok(Self::Receiver { slot: number, generation }),
            2 if generation == 0 => u16::try_from(number).map(Self::Answer).map_err(|_| Malformed),
            3 => match reader.varint()? {
                scope::BORROWED => Ok(Self::Borrowed { slot: number, generation }),
                scope::WEAK => Ok(Self::Weak { slot: number, generation }),
                _ => Err(Malformed),
            },
            _ => Err(Malformed),
        }
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        let (number, kind, generation) = match self {
            Self::Sender { slot, generation } => (slot, 0, generation),
            Self::Receiver { slot, generation } => (slot, 1, generation),
            Self::Answer(id) => (id.into(), 2, 0),
            Self::Borrowed { slot, generation } | Self::Weak { slot, generation } => (slot, 3, generation),
        };
        writer.varint(u64::from(number) << 3 | u64::from(generation != 0) << 2 | kind);
        if generation != 0 {
            writer.varint(generation.into());
        }
        match self {
            Self::Borrowed { .. } => writer.varint(scope::BORROWED),
            Self::Weak { .. } => writer.varint(scope::WEAK),
            _ => {}
        }
    }
}

/// A message's list of handles, borrowed from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handles<'f> {
    entries: Reader<'f>,
    count: u32,
}

impl<'f> Handles<'f> {
    /// Reads the list, if the flag says that there is one.
    pub(crate) fn read(present: bool, reader: &mut Reader<'f>) -> Result<Self, Malformed> {
        let count = if present { reader.varint_u32()? } else { 0 };
        if present && count == 0 {
            return Err(Malformed);
        }
        let entries = *reader;
        for _ in 0..count {
            Descriptor::read(reader)?;
        }
        Ok(Self { entries, count })
    }

    /// How many there are (or are left, of an iterator).
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the message from the next entry on.
    pub(crate) fn rest(&self) -> &'f [u8] {
        self.entries.rest()
    }

    /// Entry number `index`.
    pub fn get(&self, index: u32) -> Option<Descriptor> {
        { *self }.nth(usize::try_from(index).ok()?)
    }
}

impl Iterator for Handles<'_> {
    type Item = Descriptor;

    #[inline]
    fn next(&mut self) -> Option<Descriptor> {
        self.count = self.count.checked_sub(1)?;
        Descriptor::read(&mut self.entries).ok()
    }
}
