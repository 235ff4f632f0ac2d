//! How much of the memory is used. cortex-m-rt paints the stack before the program runs.

use core::ptr::{self, addr_of};

use cortex_m_rt::STACK_PAINT_VALUE;
use farref_device::Memory;

unsafe extern "C" {
    static __sdata: u32;
    static _stack_end: u32;
    static _stack_start: u32;
}

/// So far.
pub fn memory() -> Memory {
    let (bottom, end, top) = (addr_of!(__sdata), addr_of!(_stack_end), addr_of!(_stack_start));
    let mut word = end;
    // SAFETY: from `_stack_end` to `_stack_start` there is RAM that is nobody's but the stack's.
    while word < top && unsafe { ptr::read_volatile(word) } == STACK_PAINT_VALUE {
        word = word.wrapping_add(1);
    }
    Memory { fixed: end.addr() - bottom.addr(), stack: top.addr() - end.addr(), stack_used: top.addr() - word.addr() }
}
