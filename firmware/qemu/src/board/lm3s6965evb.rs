//! The Stellaris LM3S6965 evaluation board: Cortex-M3, 256 KiB of flash, 64 KiB of RAM.

use super::registers::Interrupt;

pub const NAME: &str = "lm3s6965evb";

/// That of the internal oscillator, after reset.
pub const CORE_HZ: u32 = 12_500_000;

pub fn on_interrupt(number: i16) {
    match number {
        5 => super::uart::on_interrupt(),
        42 => super::ethernet::on_interrupt(),
        other => panic!("unexpected interrupt {other}"),
    }
}

/// UART0, a PL011.
pub mod port {
    use super::super::registers::Registers;
    use super::Interrupt;

    pub const INTERRUPT: Interrupt = Interrupt(5);

    // SAFETY: the chip has UART0 there.
    const UART: Registers = unsafe { Registers::at(0x4000_c000) };

    const DATA: usize = 0x00;
    const FLAGS: usize = 0x18;
    const LINE: usize = 0x2c;
    const CONTROL: usize = 0x30;
    const INTERRUPTS: usize = 0x38;

    const RECEIVE_EMPTY: u32 = 1 << 4;
    const SEND_FULL: u32 = 1 << 5;

    pub fn start() {
        UART.write(LINE, 0x70); // 8 bits, FIFOs
        UART.write(CONTROL, 0x301); // both directions
        INTERRUPT.enable();
    }

    /// What is the matter goes away with the reason.
    pub fn acknowledge() {}

    pub fn listen(receive: bool, send: bool) {
        // Bytes in the FIFO, and some that have been there for a while.
        UART.write(INTERRUPTS, if receive { 1 << 4 | 1 << 6 } else { 0 } | u32::from(send) << 5);
    }

    pub fn receive() -> Option<u8> {
        (UART.read(FLAGS) & RECEIVE_EMPTY == 0).then(|| UART.read(DATA) as u8)
    }

    pub fn can_send() -> bool {
        UART.read(FLAGS) & SEND_FULL == 0
    }

    pub fn send(byte: u8) {
        UART.write(DATA, byte.into());
    }
}

/// The Ethernet controller.
pub mod nic {
    use super::super::ethernet::word;
    use super::super::registers::Registers;
    use super::Interrupt;

    // SAFETY: the chip has its Ethernet controller there.
    const NIC: Registers = unsafe { Registers::at(0x4004_8000) };

    const ACKNOWLEDGE: usize = 0x00;
    const INTERRUPTS: usize = 0x04;
    const RECEIVE: usize = 0x08;
    const SEND: usize = 0x0c;
    const DATA: usize = 0x10;
    const ADDRESS: [usize; 2] = [0x14, 0x18];
    const THRESHOLD: usize = 0x1c;
    const FRAMES: usize = 0x34;
    const REQUEST: usize = 0x38;

    pub fn start() -> [u8; 6] {
        NIC.write(THRESHOLD, 0x3f); // a frame is sent when it is whole
        NIC.write(SEND, 0x17); // padded, with check, both ways at once
        NIC.write(RECEIVE, 0x07); // all of them
        NIC.write(INTERRUPTS, 1);
        Interrupt(42).enable();
        // QEMU has put an address there.
        let [low, high] = ADDRESS.map(|half| NIC.read(half).to_le_bytes());
        [low[0], low[1], low[2], low[3], high[0], high[1]]
    }

    pub fn quiet() {
        NIC.write(ACKNOWLEDGE, 1);
    }

    pub fn listen() {}

    pub fn has_frame() -> bool {
        NIC.read(FRAMES) != 0
    }

    /// The first word is the length, of which 6 bytes are its own and the check, and the first two bytes.
    pub fn take_frame(buffer: &mut [u8]) -> usize {
        let first = NIC.read(DATA).to_le_bytes();
        let length = usize::from(u16::from_le_bytes([first[0], first[1]])).saturating_sub(6);
        let mut put = |at: usize, byte| {
            if let Some(place) = buffer.get_mut(at).filter(|_| at < length) {
                *place = byte;
            }
        };
        put(0, first[2]);
        put(1, first[3]);
        // The check is read too, and dropped.
        for at in (2..length + 4).step_by(4) {
            for (offset, byte) in NIC.read(DATA).to_le_bytes().into_iter().enumerate() {
                put(at + offset, byte);
            }
        }
        length.min(buffer.len())
    }

    pub fn can_send(_length: usize) -> bool {
        NIC.read(REQUEST) & 1 == 0
    }

    /// The length that stands before a frame is that of its payload.
    pub fn send(frame: &[u8]) {
        let length = frame.len().saturating_sub(14) as u16;
        let (first, rest) = frame.split_at(frame.len().min(2));
        NIC.write(DATA, u32::from(length) | word(first) << 16);
        rest.chunks(4).for_each(|bytes| NIC.write(DATA, word(bytes)));
        NIC.write(REQUEST, 1);
    }
}
