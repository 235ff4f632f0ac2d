//! What is one of a few, in as many bits as it needs.

use super::entry::{ExportState, QuestionState, Stage, TargetKind};
use super::time::Clock;
use crate::message::{Consequence, FinishMode};

/// Something that is one of a few.
pub(super) trait Bits: Copy {
    /// As many ones as it has bits.
    const MASK: u16;
    fn to_bits(self) -> u16;
    fn of_bits(bits: u16) -> Self;
}

/// Methods that read and set what is in the bits of an entry, each from a bit on.
macro_rules! in_bits {
    ($entry:ident, $bits:ident: $type:ty { $($(#[$doc:meta])* $read:ident, $set:ident: $what:ty = $from:literal;)+ }) => {
        impl<W: Width> $entry<W> {
            $(
                $(#[$doc])*
                #[inline]
                pub(crate) fn $read(&self) -> $what {
                    <$what as super::bits::Bits>::of_bits((self.$bits as u16) >> $from)
                }

                #[inline]
                pub(crate) fn $set(&mut self, what: $what) {
                    let mask = <$what as super::bits::Bits>::MASK << $from;
                    let others = self.$bits as u16 & !mask;
                    self.$bits = (others | super::bits::Bits::to_bits(what) << $from) as $type;
                }
            )+
        }
    };
}

impl Bits for bool {
    const MASK: u16 = 1;

    #[inline]
    fn to_bits(self) -> u16 {
        self.into()
    }

    #[inline]
    fn of_bits(bits: u16) -> Self {
        bits & Self::MASK != 0
    }
}

impl Bits for Option<FinishMode> {
    const MASK: u16 = 3;

    #[inline]
    fn to_bits(self) -> u16 {
        self.map_or(0, |mode| mode as u16 + 1)
    }

    #[inline]
    fn of_bits(bits: u16) -> Self {
        match bits & Self::MASK {
            0 => None,
            1 => Some(FinishMode::Done),
            2 => Some(FinishMode::Abandon),
            _ => Some(FinishMode::Interrupt),
        }
    }
}

/// Numbers for the variants of an enum, in their order; what is above is the last one.
macro_rules! bits {
    ($($type:ident, $mask:literal: $($variant:ident = $number:literal),+; $last:ident;)+) => {
        $(impl Bits for $type {
            const MASK: u16 = $mask;

            #[inline]
            fn to_bits(self) -> u16 {
                self as u16
            }

            #[inline]
            fn of_bits(bits: u16) -> Self {
                const { $(assert!(Self::$variant as u16 == $number);)+ }
                match bits & Self::MASK {
                    $($number => Self::$variant,)+
                    _ => Self::$last,
                }
            }
        })+
    };
}

bits! {
    ExportState, 3: Free = 0, Used = 1; Freed;
    QuestionState, 3: Free = 0, Open = 1; Returned;
    TargetKind, 3: Nothing = 0, Export = 1; Answer;
    Clock, 3: Never = 0, Not = 1, Runs = 2; Passed;
    Consequence, 3: Cancel = 0, Abandon = 1; Late;
    Stage, 15: Free = 0, Waiting = 1, Ready = 2, Running = 3, Refused = 4, None = 5, Export = 6, Import = 7, Kept = 8,
        NotKept = 9, Failed = 10; Revoked;
}

pub(super) use in_bits;
