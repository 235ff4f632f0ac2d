//! A board that is not there. The optimizer must not know what comes, nor that nobody looks at what goes.

use core::cell::RefCell;
use core::hint::black_box;
use core::panic::PanicInfo;
use core::task::{Context, Waker};

use critical_section::Mutex;
use embassy_net_driver::{Capabilities, HardwareAddress, LinkState};
use embassy_time_queue_utils::Queue;

/// What the board has.
pub struct Board {
    pub ethernet: Ethernet,
}

pub fn start() -> Board {
    Board { ethernet: Ethernet }
}

/// Fills a buffer with bytes that nobody can foresee.
pub fn random(bytes: &mut [u8]) {
    bytes.fill(black_box(7));
}

/// An Ethernet port without buffers.
pub struct Ethernet;

impl embassy_net_driver::Driver for Ethernet {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Frame;

    fn receive(&mut self, cx: &mut Context) -> Option<(Frame, Frame)> {
        black_box(cx);
        black_box(true).then_some((Frame, Frame))
    }

    fn transmit(&mut self, cx: &mut Context) -> Option<Frame> {
        black_box(cx);
        black_box(true).then_some(Frame)
    }

    fn link_state(&mut self, _: &mut Context) -> LinkState {
        if black_box(true) { LinkState::Up } else { LinkState::Down }
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = 1514;
        capabilities.max_burst_size = Some(1);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(black_box([2, 0, 0, 0, 0, 1]))
    }
}

/// A frame that has come, or that is to go.
pub struct Frame;

impl embassy_net_driver::RxToken for Frame {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, read: F) -> R {
        read(somewhere())
    }
}

impl embassy_net_driver::TxToken for Frame {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        black_box(length);
        let frame = somewhere();
        let result = write(frame);
        black_box(frame);
        result
    }
}

/// Some bytes, of which nobody knows how many there are.
fn somewhere() -> &'static mut [u8] {
    let none: &mut [u8] = &mut [];
    black_box(none)
}

/// The time, and who waits for it: every program with timers has that.
struct Clock(Mutex<RefCell<Queue>>);

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock(Mutex::new(RefCell::new(Queue::new()))));

impl embassy_time_driver::Driver for Clock {
    fn now(&self) -> u64 {
        black_box(0)
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            let mut queue = self.0.borrow(cs).borrow_mut();
            if queue.schedule_wake(at, waker) {
                black_box(queue.next_expiration(self.now()));
            }
        });
    }
}

/// Called by embassy-executor when a task is to be polled.
// SAFETY: this is the one definition of what embassy-executor declares, with the same signature.
#[unsafe(export_name = "__pender")]
fn pender(context: *mut ()) {
    black_box(context);
}

/// The network stack can panic. What is told of it is not what is to be measured.
#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
