//! How much of the stack has been used. cortex-m-rt paints all of it before the program runs.

use core::ptr::{self, addr_of};

use cortex_m_rt::STACK_PAINT_VALUE;

unsafe extern "C" {
    static _stack_start: u32;
    static _stack_end: u32;
}

/// The most bytes of it that were in use at a time, so far.
pub fn used() -> usize {
    let (top, end) = (addr_of!(_stack_start), addr_of!(_stack_end));
    let mut word = end;
    // SAFETY: from `_stack_end` to `_stack_start` there is RAM that is nobody's but the stack's.
    while word < top && unsafe { ptr::read_volatile(word) } == STACK_PAINT_VALUE {
        word = word.wrapping_add(1);
    }
    top.addr() - word.addr()
}

/// All of it, in bytes.
pub fn size() -> usize {
    addr_of!(_stack_start).addr() - addr_of!(_stack_end).addr()
}
