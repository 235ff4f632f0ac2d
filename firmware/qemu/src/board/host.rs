//! What QEMU does for its guest, by semihosting: it ends, shows text, and has random bytes. A chip has a peripheral for that.

use core::ffi::CStr;
use core::fmt::Write;
use core::panic::PanicInfo;

use cortex_m_rt::{ExceptionFrame, exception};
use cortex_m_semihosting::debug::{self, EXIT_FAILURE};
use cortex_m_semihosting::{hio, nr, syscall};

/// Fills a buffer with random bytes.
pub fn random(bytes: &mut [u8]) {
    const NAME: &CStr = c"/dev/urandom";
    let open = [NAME.as_ptr() as usize, nr::open::R_BINARY, NAME.count_bytes()];
    // SAFETY: the arguments are those of the call, and point to what lives during it.
    let file = unsafe { syscall(nr::OPEN, &open) };
    let read = [file, bytes.as_mut_ptr() as usize, bytes.len()];
    // SAFETY: as above; the buffer is borrowed mutably, and no more is read than it holds.
    let missing = unsafe { syscall(nr::READ, &read) };
    assert_eq!(missing, 0, "no random bytes");
    // SAFETY: as above.
    unsafe { syscall(nr::CLOSE, &[file]) };
}

/// A panic is told, and ends QEMU with an error.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    fail(format_args!("{info}"))
}

/// A fault too.
// SAFETY: nothing is done in it that may not be done in an exception, and it does not come back.
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    fail(format_args!("hard fault\n{frame:#?}"))
}

fn fail(what: core::fmt::Arguments) -> ! {
    cortex_m::interrupt::disable();
    if let Ok(mut stream) = hio::hstderr() {
        let _ = writeln!(stream, "{what}");
    }
    loop {
        debug::exit(EXIT_FAILURE);
    }
}
