//! Two boards, as QEMU has them. What is here and not in the rest of the program is what changes with the board.

mod clock;
mod ethernet;
pub mod executor;
mod host;
mod registers;
pub mod stack;
mod uart;

#[cfg(board = "lm3s6965evb")]
#[path = "lm3s6965evb.rs"]
mod chip;
#[cfg(board = "mps2-an386")]
#[path = "mps2_an386.rs"]
mod chip;

use cortex_m_rt::exception;

pub use chip::NAME;
use chip::{nic, port};
pub use ethernet::Ethernet;

pub use host::random;
pub use uart::{Receiver, Sender};

/// What the board has.
pub struct Board {
    pub ethernet: Ethernet,
    pub serial: (Receiver, Sender),
}

/// Starts the clock and the peripherals, once.
pub fn start() -> Board {
    let core = cortex_m::Peripherals::take().expect("the board is started once");
    clock::start(core.SYST, chip::CORE_HZ);
    Board { ethernet: Ethernet::open(), serial: uart::open() }
}

/// Starts the program anew.
pub fn reboot() -> ! {
    cortex_m::peripheral::SCB::sys_reset()
}

// SAFETY: nothing is done in it that may not be done in an exception.
#[exception]
unsafe fn DefaultHandler(interrupt: i16) {
    chip::on_interrupt(interrupt);
}
