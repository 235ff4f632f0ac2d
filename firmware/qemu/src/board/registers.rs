//! Registers of peripherals, and their interrupts.

use core::ptr;

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::NVIC;

/// The registers of one peripheral.
pub struct Registers {
    base: usize,
}

impl Registers {
    /// The bytes of address space that one has.
    const SIZE: usize = 0x1000;

    /// Those at an address.
    ///
    /// # Safety
    ///
    /// There must be nothing but a peripheral's registers for 4 KiB from that address on.
    pub const unsafe fn at(base: usize) -> Self {
        Self { base }
    }

    pub fn read(&self, offset: usize) -> u32 {
        // SAFETY: `at` was promised that this is a register.
        unsafe { ptr::read_volatile(self.address(offset) as *const u32) }
    }

    pub fn write(&self, offset: usize, value: u32) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.address(offset) as *mut u32, value) }
    }

    fn address(&self, offset: usize) -> usize {
        assert!(offset < Self::SIZE && offset.is_multiple_of(4));
        self.base + offset
    }
}

/// An interrupt of the board.
#[derive(Clone, Copy)]
pub struct Interrupt(pub u16);

// SAFETY: the number is that of the chip's manual, and never changes.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self.0
    }
}

impl Interrupt {
    /// From now on it comes.
    pub fn enable(self) {
        // SAFETY: no critical section here is made of masked interrupts.
        unsafe { NVIC::unmask(self) }
    }

    /// As if it had come.
    pub fn pend(self) {
        NVIC::pend(self);
    }
}
