//! ARM's MPS2 board with the image AN386: Cortex-M4F, 4 MiB each of flash and RAM as it is used here.

use super::registers::Interrupt;

pub const NAME: &str = "mps2-an386";

pub const CORE_HZ: u32 = 25_000_000;

pub fn on_interrupt(number: i16) {
    match number {
        0 | 1 => super::uart::on_interrupt(),
        13 => super::ethernet::on_interrupt(),
        other => panic!("unexpected interrupt {other}"),
    }
}

/// UART0, a CMSDK APB UART.
pub mod port {
    use super::super::registers::Registers;
    use super::Interrupt;

    pub const INTERRUPT: Interrupt = Interrupt(0);

    // SAFETY: the board has UART0 there.
    const UART: Registers = unsafe { Registers::at(0x4000_4000) };

    const DATA: usize = 0x00;
    const STATE: usize = 0x04;
    const CONTROL: usize = 0x08;
    const CLEAR: usize = 0x0c;
    const DIVIDER: usize = 0x10;

    const SEND_FULL: u32 = 1 << 0;
    const RECEIVE_FULL: u32 = 1 << 1;

    pub fn start() {
        UART.write(DIVIDER, super::CORE_HZ / 115_200);
        INTERRUPT.enable();
        Interrupt(1).enable();
    }

    /// Before the byte is taken: the next one may come with that.
    pub fn acknowledge() {
        UART.write(CLEAR, 0b11);
    }

    pub fn listen(receive: bool, send: bool) {
        // Both directions are on, whether or not anybody is told.
        UART.write(CONTROL, 0b11 | u32::from(send) << 2 | u32::from(receive) << 3);
    }

    pub fn receive() -> Option<u8> {
        (UART.read(STATE) & RECEIVE_FULL != 0).then(|| UART.read(DATA) as u8)
    }

    pub fn can_send() -> bool {
        UART.read(STATE) & SEND_FULL == 0
    }

    pub fn send(byte: u8) {
        // That the byte has left is told once, and only to whoever listened before.
        UART.write(CONTROL, UART.read(CONTROL) | 1 << 2);
        UART.write(DATA, byte.into());
    }
}

/// The LAN9118.
pub mod nic {
    use super::super::ethernet::word;
    use super::super::registers::Registers;
    use super::Interrupt;

    // SAFETY: the board has the LAN9118 there.
    const NIC: Registers = unsafe { Registers::at(0x4020_0000) };

    const RECEIVED: usize = 0x00;
    const TO_SEND: usize = 0x20;
    const STATUS: usize = 0x40;
    const INTERRUPT_LINE: usize = 0x54;
    const INTERRUPT_STATUS: usize = 0x58;
    const INTERRUPTS: usize = 0x5c;
    const BYTE_TEST: usize = 0x64;
    const SEND: usize = 0x70;
    const HARDWARE: usize = 0x74;
    const FRAMES: usize = 0x7c;
    const ROOM: usize = 0x80;
    const MAC_COMMAND: usize = 0xa4;
    const MAC_DATA: usize = 0xa8;

    /// There is a received frame.
    const HAS_FRAME: u32 = 1 << 3;

    const MAC_CONTROL: u32 = 1;
    const MAC_ADDRESS_HIGH: u32 = 2;
    const MAC_ADDRESS_LOW: u32 = 3;

    pub fn start() -> [u8; 6] {
        NIC.write(HARDWARE, 1); // reset
        while NIC.read(HARDWARE) & 1 != 0 {}
        assert_eq!(NIC.read(BYTE_TEST), 0x8765_4321, "no LAN9118");
        // On, by a high level: the line is active low otherwise, and stuck.
        NIC.write(INTERRUPT_LINE, 1 << 8 | 1 << 4 | 1);
        write_mac(MAC_CONTROL, 1 << 20 | 1 << 18 | 1 << 3 | 1 << 2); // both ways at once, all frames
        NIC.write(SEND, 1 << 1);
        listen();
        Interrupt(13).enable();
        // QEMU has put an address there.
        let low = read_mac(MAC_ADDRESS_LOW).to_le_bytes();
        let high = read_mac(MAC_ADDRESS_HIGH).to_le_bytes();
        [low[0], low[1], low[2], low[3], high[0], high[1]]
    }

    pub fn quiet() {
        NIC.write(INTERRUPTS, 0);
    }

    pub fn listen() {
        NIC.write(INTERRUPT_STATUS, HAS_FRAME);
        NIC.write(INTERRUPTS, HAS_FRAME);
    }

    pub fn has_frame() -> bool {
        NIC.read(FRAMES) >> 16 & 0xff != 0
    }

    pub fn take_frame(buffer: &mut [u8]) -> usize {
        let length = (NIC.read(STATUS) >> 16 & 0x3fff) as usize; // with the check
        for at in (0..length).step_by(4) {
            for (offset, byte) in NIC.read(RECEIVED).to_le_bytes().into_iter().enumerate() {
                if let Some(place) = buffer.get_mut(at + offset) {
                    *place = byte;
                }
            }
        }
        length.saturating_sub(4).min(buffer.len())
    }

    pub fn can_send(length: usize) -> bool {
        (NIC.read(ROOM) & 0xffff) as usize >= length + 16
    }

    pub fn send(frame: &[u8]) {
        let length = frame.len() as u32;
        NIC.write(TO_SEND, 0b11 << 12 | length); // the first and last piece
        NIC.write(TO_SEND, length);
        frame.chunks(4).for_each(|bytes| NIC.write(TO_SEND, word(bytes)));
    }

    fn write_mac(register: u32, value: u32) {
        NIC.write(MAC_DATA, value);
        NIC.write(MAC_COMMAND, 1 << 31 | register);
        while NIC.read(MAC_COMMAND) >> 31 != 0 {}
    }

    fn read_mac(register: u32) -> u32 {
        NIC.write(MAC_COMMAND, 1 << 31 | 1 << 30 | register);
        while NIC.read(MAC_COMMAND) >> 31 != 0 {}
        NIC.read(MAC_DATA)
    }
}
