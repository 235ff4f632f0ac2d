//! The network, for embassy-net: frames go through the chip's own memory, one at a time through a buffer here.

use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState};
use embassy_sync::waitqueue::AtomicWaker;
use static_cell::ConstStaticCell;

use super::nic;

/// The longest frame, without its check.
const FRAME: usize = 1514;

static RECEIVED: AtomicWaker = AtomicWaker::new();

/// The board's Ethernet.
pub struct Ethernet {
    address: [u8; 6],
    /// Apart, since what holds this is moved, and futures may keep room for both places.
    buffers: &'static mut [[u8; FRAME]; 2],
}

impl Ethernet {
    pub(super) fn open() -> Self {
        static BUFFERS: ConstStaticCell<[[u8; FRAME]; 2]> = ConstStaticCell::new([[0; FRAME]; 2]);
        Self { address: nic::start(), buffers: BUFFERS.take() }
    }
}

/// What the chip's interrupt does.
pub(super) fn on_interrupt() {
    nic::quiet();
    RECEIVED.wake();
}

impl Driver for Ethernet {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, cx: &mut Context) -> Option<(RxToken<'_>, TxToken<'_>)> {
        RECEIVED.register(cx.waker());
        // One that comes between the look and the interrupt's being there again is seen by the second look.
        let has_frame = nic::has_frame() || {
            nic::listen();
            nic::has_frame()
        };
        let [incoming, outgoing] = &mut *self.buffers;
        has_frame.then_some((RxToken(incoming), TxToken(outgoing)))
    }

    fn transmit(&mut self, cx: &mut Context) -> Option<TxToken<'_>> {
        if nic::can_send(FRAME) {
            return Some(TxToken(&mut self.buffers[1]));
        }
        // It takes microseconds.
        cx.waker().wake_by_ref();
        None
    }

    fn link_state(&mut self, _: &mut Context) -> LinkState {
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME;
        capabilities.max_burst_size = Some(1);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.address)
    }
}

/// A frame that has come.
pub struct RxToken<'a>(&'a mut [u8; FRAME]);

impl embassy_net_driver::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, read: F) -> R {
        let length = nic::take_frame(self.0);
        read(&mut self.0[..length])
    }
}

/// Room for a frame that is to go.
pub struct TxToken<'a>(&'a mut [u8; FRAME]);

impl embassy_net_driver::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let frame = &mut self.0[..length];
        let result = write(frame);
        nic::send(frame);
        result
    }
}

/// Up to four bytes as the word that a FIFO takes.
pub(super) fn word(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}
