//! The lamp without farref: switched by lines of text, which it answers in the order in which they come.
//!
//! It moves bytes between buffers as every program with a serial line does, so that what the compiler brings for that (`memcpy`,
//! `memmove`, `memset`, `memcmp`) is part of the baseline and not of the core.

#![no_std]
#![no_main]

use farref_size::{MAX_MESSAGE, Uart};
use static_cell::ConstStaticCell;

static RECEIVED: ConstStaticCell<[u8; MAX_MESSAGE]> = ConstStaticCell::new([0; MAX_MESSAGE]);
static OUTPUT: ConstStaticCell<[u8; MAX_MESSAGE]> = ConstStaticCell::new([0; MAX_MESSAGE]);

farref_size::start!(program);

fn program() -> ! {
    if let (Some(received), Some(output)) = (RECEIVED.try_take(), OUTPUT.try_take()) {
        serve(received, output);
    }
    loop {
        core::hint::spin_loop();
    }
}

fn serve(received: &mut [u8; MAX_MESSAGE], output: &mut [u8; MAX_MESSAGE]) {
    let mut uart = Uart;
    let (mut length, mut on) = (0, false);
    loop {
        length += uart.read(received.get_mut(length..).unwrap_or_default());
        let Some(line) = received.get(..length) else { return };
        let Some(end) = line.iter().position(|&byte| byte == b'\n') else { continue };
        let (line, rest) = line.split_at(end);
        let answer = match line {
            b"lamp.on" => {
                if on {
                    b"true"
                } else {
                    b"false".as_slice()
                }
            }
            b"lamp.set(true)" => {
                on = true;
                b"done"
            }
            b"lamp.set(false)" => {
                on = false;
                b"done"
            }
            line => line,
        };
        output.fill(b' ');
        if let Some(room) = output.get_mut(..answer.len()) {
            room.copy_from_slice(answer);
        }
        uart.write(output);
        // The line feed goes with its line.
        length = rest.len().saturating_sub(1);
        let from = (end + 1).min(received.len());
        received.copy_within(from.., 0);
    }
}
