//! How wide the numbers in the tables' entries are: where tables are small, a byte is enough for most.

use core::fmt::Debug;
use core::hash::Hash;

/// The numbers of one size of tables.
pub trait Width: Copy + Eq + Hash + Debug + Default {
    /// The place of an export or import. So many there can be, less one.
    type Slot: Number;
    /// A call's id, and how many calls there are of some sort.
    type Id: Number;
    /// The length of a message, and how often something is held.
    type Count: Number;
}

/// For tables that grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wide;

impl Width for Wide {
    type Slot = u32;
    type Id = u16;
    type Count = u32;
}

/// For tables of up to 255 entries, and messages of up to 65,535 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Narrow;

impl Width for Narrow {
    type Slot = u8;
    type Id = u8;
    type Count = u16;
}

/// A number as it stands in an entry.
pub trait Number: Copy + Ord + Hash + Debug + Default + Into<u32> {
    /// The least.
    const ZERO: Self;
    /// The highest. As the number of an entry it stands for none.
    const NONE: Self;

    /// A number that is not above the highest.
    fn of(number: u32) -> Self;

    /// One more. What has come to the highest number stays there: it was not counted to the end.
    fn up(&mut self) {
        if *self != Self::NONE {
            *self = Self::of((*self).into() + 1);
        }
    }

    /// One less, down to 0.
    fn down(&mut self) {
        if *self != Self::NONE {
            *self = Self::of((*self).into().saturating_sub(1));
        }
    }
}

macro_rules! numbers {
    ($($number:ty)+) => {
        $(impl Number for $number {
            const ZERO: Self = 0;
            const NONE: Self = Self::MAX;

            #[inline]
            fn of(number: u32) -> Self {
                number as Self
            }
        })+
    };
}

numbers! { u8 u16 u32 }
