//! The lamp without farref: switched by lines of text that come over a TCP socket, which it answers in the order in which they
//! come.

#![no_std]
#![no_main]

use embassy_executor::Spawner;
use embassy_net::Stack;
use embassy_net::tcp::{Error, TcpSocket};
use embassy_time::{Duration, with_timeout};
use farref_firmware_size::{MAX_MESSAGE, PORT, RECEIVE, TRANSMIT};
use static_cell::ConstStaticCell;

farref_firmware_size::start!(start_serving);

fn start_serving(spawner: Spawner, stack: Stack<'static>) {
    spawner.spawn(serve(stack).expect("it is spawned once"));
}

struct Buffers {
    receive: [u8; RECEIVE],
    transmit: [u8; TRANSMIT],
    received: [u8; MAX_MESSAGE],
    output: [u8; MAX_MESSAGE],
}

static BUFFERS: ConstStaticCell<Buffers> = ConstStaticCell::new(Buffers {
    receive: [0; RECEIVE],
    transmit: [0; TRANSMIT],
    received: [0; MAX_MESSAGE],
    output: [0; MAX_MESSAGE],
});

/// As long as it may take to hang up.
const LINGER: Duration = Duration::from_secs(1);

#[embassy_executor::task]
async fn serve(stack: Stack<'static>) -> ! {
    let Buffers { receive, transmit, received, output } = BUFFERS.take();
    let mut socket = TcpSocket::new(stack, receive, transmit);
    socket.set_timeout(Some(Duration::from_secs(20)));
    socket.set_nagle_enabled(false);
    let mut on = false;
    loop {
        if socket.accept(PORT).await.is_ok() {
            let _ = obey(&mut socket, &mut on, received, output).await;
        }
        socket.close();
        let _ = with_timeout(LINGER, socket.flush()).await;
        socket.abort();
        let _ = with_timeout(LINGER, socket.flush()).await;
    }
}

/// Until the connection ends, or a line is too long.
async fn obey(
    socket: &mut TcpSocket<'_>,
    on: &mut bool,
    received: &mut [u8; MAX_MESSAGE],
    output: &mut [u8; MAX_MESSAGE],
) -> Result<(), Error> {
    let mut length = 0;
    loop {
        let count = socket.read(received.get_mut(length..).unwrap_or_default()).await?;
        if count == 0 {
            return Ok(());
        }
        length += count;
        while let Some(end) = received[..length].iter().position(|&byte| byte == b'\n') {
            let answer = match &received[..end] {
                b"lamp.on" if *on => b"true",
                b"lamp.on" => b"false".as_slice(),
                b"lamp.set(true)" => {
                    *on = true;
                    b"done"
                }
                b"lamp.set(false)" => {
                    *on = false;
                    b"done"
                }
                line => line,
            };
            output.fill(b' ');
            output[..answer.len()].copy_from_slice(answer);
            let mut rest = output.as_slice();
            while !rest.is_empty() {
                let count = socket.write(rest).await?;
                rest = &rest[count..];
            }
            // The line feed goes with its line.
            received.copy_within(end + 1..length, 0);
            length -= end + 1;
        }
    }
}
