//! The lamp over a line that loses and changes bytes: the core, its dispatcher, frames and a link.

#![no_std]
#![no_main]

use farref_core::frame::serial::{CHECK, Decoder};
use farref_core::link::serial::{Config, SerialLink};
use farref_core::session::{Event, LinkMode};
use farref_size::lamp::{Device, Lamp, begin, notice, serve};
use farref_size::{MAX_MESSAGE, Uart, now, random};
use static_cell::{ConstStaticCell, StaticCell};

const PAYLOAD: usize = SerialLink::payload_len(MAX_MESSAGE) + CHECK;
const FRAME: usize = SerialLink::frame_len(MAX_MESSAGE);

static DECODER: ConstStaticCell<Decoder<[u8; PAYLOAD]>> = ConstStaticCell::new(Decoder::new([0; PAYLOAD]));
static FRAMES: ConstStaticCell<[u8; FRAME]> = ConstStaticCell::new([0; FRAME]);
static LINK: StaticCell<SerialLink> = StaticCell::new();
static DEVICE: ConstStaticCell<Device> = ConstStaticCell::new(Device::BLANK);

/// All that a session on a line keeps from one moment to the next: tables, output, which is what may have to be sent again, some
/// room for calls that wait, the link, and the frame that comes in. A frame that goes out is gone when it was written.
const OF_A_SESSION: usize =
    size_of::<Device>() + WAITING + size_of::<SerialLink>() + size_of::<Decoder<[u8; PAYLOAD]>>();
const WAITING: usize = 96;
const _: () = assert!(OF_A_SESSION <= 2048, "a session takes more than 2 KiB");

farref_size::start!(program);

fn program() -> ! {
    if let (Some(device), Some(link), Some(decoder), Some(frame)) = (
        DEVICE.try_take(),
        LINK.try_init_with(|| SerialLink::new(Config::default(), random())),
        DECODER.try_take(),
        FRAMES.try_take(),
    ) {
        begin(device, LinkMode::Line);
        run(device, link, decoder, frame);
    }
    loop {
        core::hint::spin_loop();
    }
}

fn run(device: &mut Device, link: &mut SerialLink, decoder: &mut Decoder<[u8; PAYLOAD]>, frame: &mut [u8]) {
    let mut uart = Uart;
    let mut lamp = Lamp::default();
    let mut received = [0; 16];
    while device.ended().is_none() || !link.is_settled() {
        let count = uart.read(&mut received);
        let mut run = received.get(..count).unwrap_or_default();
        while let Some(payload) = decoder.next(&mut run) {
            let Ok(Some(body)) = link.receive(now(), payload, device) else { continue };
            if let Ok(Some(Event::Request(request))) = device.handle(body) {
                serve(device, &mut lamp, &request);
            }
        }
        notice(device, &mut lamp);
        if link.poll_timeout().is_some_and(|at| at <= now()) {
            let _ = link.advance(now(), device);
        }
        while let Ok(length @ 1..) = link.transmit(now(), device, frame) {
            uart.write(frame.get(..length).unwrap_or_default());
        }
    }
}
