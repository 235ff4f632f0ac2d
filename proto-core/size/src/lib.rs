//! What the programs share: a board that is not there, and the proof that nothing panics.

#![no_std]

use core::hint::black_box;
use core::panic::PanicInfo;

pub mod lamp;

/// The longest message, and the longest line of text.
pub const MAX_MESSAGE: usize = 256;

/// What a device reads from and writes to. The optimizer must not know what comes, nor that nobody looks at what goes.
#[derive(Default)]
pub struct Uart;

impl Uart {
    /// Some bytes, as they come.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let buffer = black_box(buffer);
        black_box(buffer.len())
    }

    pub fn write(&mut self, bytes: &[u8]) {
        black_box(bytes);
    }
}

/// Milliseconds since the start.
pub fn now() -> u64 {
    black_box(0)
}

/// A number that nobody can foresee.
pub fn random() -> u32 {
    black_box(7)
}

/// Whoever links this has shown that nothing can panic: there is no such function.
#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    unsafe extern "C" {
        safe fn something_can_panic() -> !;
    }
    something_can_panic()
}
