//! Runs the tasks, and sleeps when there is nothing to do.
//!
//! embassy's own executor for Cortex-M sleeps by WFE, which QEMU takes for no wait at all: it would keep a core of the host
//! busy. This one sleeps by WFI. On a chip use embassy's.

use core::sync::atomic::{AtomicBool, Ordering};

use cortex_m::asm;
use embassy_executor::{Spawner, raw};
use static_cell::StaticCell;

static IS_WOKEN: AtomicBool = AtomicBool::new(false);

/// Runs what `begin` spawns, for ever.
pub fn run(begin: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<raw::Executor> = StaticCell::new();
    let executor: &'static raw::Executor = EXECUTOR.init(raw::Executor::new(core::ptr::null_mut()));
    begin(executor.spawner());
    loop {
        // SAFETY: it is polled here only, and `__pender` does not poll it.
        unsafe { executor.poll() };
        critical_section::with(|_| {
            if !IS_WOKEN.swap(false, Ordering::Relaxed) {
                // An interrupt ends this though it is not served before the section ends, so that none is missed.
                asm::wfi();
            }
        });
    }
}

/// Called by embassy-executor when a task is to be polled.
// SAFETY: this is the one definition of what embassy-executor declares, with the same signature.
#[unsafe(export_name = "__pender")]
fn pender(_context: *mut ()) {
    IS_WOKEN.store(true, Ordering::Relaxed);
}
