//! What the programs share: a board, and the proof that nothing panics.
//!
//! The board is not there, so that nothing of it is measured; with the feature `run` it is one of QEMU's, so that it can be seen
//! how much stack they use.

#![no_std]

use core::panic::PanicInfo;

pub mod lamp;

/// The longest message, and the longest line of text.
pub const MAX_MESSAGE: usize = 256;

#[cfg_attr(not(feature = "run"), path = "nowhere.rs")]
#[cfg_attr(feature = "run", path = "lm3s6965evb.rs")]
mod board;

pub use board::{Uart, now};

/// A number that nobody can foresee.
pub fn random() -> u32 {
    core::hint::black_box(7)
}

/// What a program does from its start on.
#[macro_export]
macro_rules! start {
    ($run:path) => {
        #[cfg(not(feature = "run"))]
        #[unsafe(no_mangle)]
        pub extern "C" fn _start() -> ! {
            $run()
        }

        #[cfg(feature = "run")]
        #[cortex_m_rt::entry]
        fn start() -> ! {
            $run()
        }
    };
}

/// Whoever links this has shown that nothing can panic: there is no such function.
#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    unsafe extern "C" {
        safe fn something_can_panic() -> !;
    }
    something_can_panic()
}
