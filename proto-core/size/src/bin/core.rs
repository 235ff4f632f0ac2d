//! The lamp over a stream that keeps bytes: the core and its dispatcher.

#![no_std]
#![no_main]

use farref_core::frame::{PREAMBLE, PreambleScanner, Scan, Split, split};
use farref_core::session::{Event, LinkMode};
use farref_size::lamp::{Device, Lamp, begin, notice, serve};
use farref_size::{MAX_MESSAGE, Uart};
use static_cell::ConstStaticCell;

static RECEIVED: ConstStaticCell<[u8; MAX_MESSAGE + 8]> = ConstStaticCell::new([0; MAX_MESSAGE + 8]);
static DEVICE: ConstStaticCell<Device> = ConstStaticCell::new(Device::BLANK);

farref_size::start!(program);

fn program() -> ! {
    if let (Some(device), Some(received)) = (DEVICE.try_take(), RECEIVED.try_take()) {
        begin(device, LinkMode::Off);
        run(device, received);
    }
    loop {
        core::hint::spin_loop();
    }
}

fn run(device: &mut Device, received: &mut [u8]) {
    let mut uart = Uart;
    let mut lamp = Lamp::default();
    uart.write(&PREAMBLE);
    let Some(mut length) = find_preamble(&mut uart, received) else { return };
    while device.ended().is_none() {
        length += uart.read(received.get_mut(length..).unwrap_or_default());
        let mut rest = received.get(..length).unwrap_or_default();
        loop {
            let body = match split(rest, MAX_MESSAGE as u32) {
                Split::Record { body, rest: behind } => {
                    rest = behind;
                    body
                }
                Split::Incomplete => break,
                Split::Bad => &[],
            };
            match device.handle(body) {
                Ok(Some(Event::Request(request))) => serve(device, &mut lamp, &request),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let used = length.saturating_sub(rest.len()).min(received.len());
        length -= used;
        received.copy_within(used.., 0);
        notice(device, &mut lamp);
        loop {
            let output = device.transmit();
            if output.is_empty() {
                break;
            }
            uart.write(output);
            let count = output.len();
            device.transmitted(count);
        }
    }
}

/// How many bytes have come behind the preamble, which are moved to the front; none if there is no peer.
fn find_preamble(uart: &mut Uart, received: &mut [u8]) -> Option<usize> {
    let mut scanner = PreambleScanner::default();
    loop {
        let count = uart.read(received).min(received.len());
        match scanner.scan(received.get(..count)?) {
            Scan::Found(used) => {
                received.copy_within(used.min(count)..count, 0);
                return count.checked_sub(used);
            }
            Scan::Searching => {}
            Scan::NoPeer => return None,
        }
    }
}
