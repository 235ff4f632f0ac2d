//! The list of handles that stands before the values (REF-2).

use super::{flag, read_generation, read_id, read_number};
use crate::codec::{Reader, Writer};

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
    pub const BORROWED: u16 = 0;
    pub const WEAK: u16 = 1;
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

    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let (slot, low) = read_number(reader, 3);
        let generation = read_generation(reader, low & 4 != 0);
        match low & 3 {
            0 => Self::Sender { slot, generation },
            1 => Self::Receiver { slot, generation },
            2 => {
                reader.expect(generation == 0);
                Self::Answer(read_id(reader, slot))
            }
            _ => match reader.varint_u16() {
                scope::BORROWED => Self::Borrowed { slot, generation },
                scope => {
                    reader.expect(scope == scope::WEAK);
                    Self::Weak { slot, generation }
                }
            },
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
            Self::Borrowed { .. } => writer.varint(scope::BORROWED.into()),
            Self::Weak { .. } => writer.varint(scope::WEAK.into()),
            _ => {}
        }
    }
}

/// A message's list of handles, borrowed from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handles<'f> {
    entries: &'f [u8],
    count: u32,
}

impl<'f> Handles<'f> {
    /// Reads the list, if the flag says that there is one. Only a Call names answers and lends (REF-2).
    #[cfg_attr(not(feature = "alloc"), inline(never))]
    pub(crate) fn read(flags: u8, reader: &mut Reader<'f>, is_call: bool) -> Self {
        if flags & flag::HANDLES == 0 {
            return Self::default();
        }
        let count = reader.varint_u32();
        reader.expect(count > 0);
        let handles = Self { entries: reader.rest(), count };
        // Nobody goes through entries that are not there: a few bytes can say that there are billions.
        for _ in 0..count {
            let handle = Descriptor::read(reader);
            reader.expect(is_call || !matches!(handle, Descriptor::Answer(_) | Descriptor::Borrowed { .. }));
            if reader.check().is_err() {
                return Self::default();
            }
        }
        handles
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
        self.entries
    }

    /// Entry number `index`.
    pub fn get(&self, index: u32) -> Option<Descriptor> {
        { *self }.nth(usize::try_from(index).ok()?)
    }
}

impl Iterator for Handles<'_> {
    type Item = Descriptor;

    #[cfg_attr(feature = "alloc", inline)]
    fn next(&mut self) -> Option<Descriptor> {
        self.count = self.count.checked_sub(1)?;
        let mut reader = Reader::new(self.entries);
        let handle = Descriptor::read(&mut reader);
        self.entries = reader.rest();
        Some(handle)
    }
}
