//! A Stellaris LM3S6965 as QEMU has it: its first UART, and the core's timer. Nothing interrupts, so that the stack is the
//! program's alone.

use core::ptr::{read_volatile, write_volatile};
use core::sync::atomic::{AtomicU32, Ordering};

const UART_DATA: *mut u32 = 0x4000_C000 as *mut u32;
const UART_FLAGS: *mut u32 = 0x4000_C018 as *mut u32;
const RECEIVE_EMPTY: u32 = 1 << 4;
const TRANSMIT_FULL: u32 = 1 << 5;

const TIMER_CONTROL: *mut u32 = 0xE000_E010 as *mut u32;
const TIMER_RELOAD: *mut u32 = 0xE000_E014 as *mut u32;
const TIMER_COUNT: *mut u32 = 0xE000_E018 as *mut u32;
const TIMER_RUNS: u32 = 1 | 1 << 2;
/// It has 24 bits.
const TIMER_MASK: u32 = 0xFF_FFFF;
const TICKS_PER_MILLISECOND: u32 = 12_500;

fn read(register: *mut u32) -> u32 {
    // SAFETY: only the registers above come here, which are there, aligned, and nobody else's.
    unsafe { read_volatile(register) }
}

fn write(register: *mut u32, value: u32) {
    // SAFETY: as in `read`.
    unsafe { write_volatile(register, value) }
}

/// What the device reads from and writes to.
#[derive(Default)]
pub struct Uart;

impl Uart {
    /// What has come, up to as much as there is room for.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let has_come = |_: &&mut u8| read(UART_FLAGS) & RECEIVE_EMPTY == 0;
        buffer.iter_mut().take_while(has_come).map(|byte| *byte = read(UART_DATA) as u8).count()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            while read(UART_FLAGS) & TRANSMIT_FULL != 0 {}
            write(UART_DATA, byte.into());
        }
    }
}

/// Milliseconds since the start, if it is asked for more than once a second.
pub fn now() -> u64 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    static TICKS: AtomicU32 = AtomicU32::new(0);
    if read(TIMER_CONTROL) & TIMER_RUNS != TIMER_RUNS {
        write(TIMER_RELOAD, TIMER_MASK);
        write(TIMER_CONTROL, TIMER_RUNS);
    }
    // It counts down.
    let count = read(TIMER_COUNT);
    let passed = LAST.load(Ordering::Relaxed).wrapping_sub(count) & TIMER_MASK;
    let ticks = TICKS.load(Ordering::Relaxed).wrapping_add(passed);
    LAST.store(count, Ordering::Relaxed);
    TICKS.store(ticks, Ordering::Relaxed);
    (ticks / TICKS_PER_MILLISECOND).into()
}
