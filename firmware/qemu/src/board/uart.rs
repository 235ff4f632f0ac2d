//! The serial line: what comes and what goes waits in memory while interrupts move it.

use core::convert::Infallible;
use core::future::poll_fn;
use core::task::Poll;

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::pipe::Pipe;
use embassy_sync::waitqueue::AtomicWaker;
use embedded_io_async::{ErrorType, Read, Write};

use super::port;

const ROOM: usize = 256;

static RECEIVED: Pipe<CriticalSectionRawMutex, ROOM> = Pipe::new();
static TO_SEND: Pipe<CriticalSectionRawMutex, ROOM> = Pipe::new();
static ALL_SENT: AtomicWaker = AtomicWaker::new();

/// The receiving half.
pub struct Receiver(());

/// The sending half.
pub struct Sender(());

/// The line, once.
pub(super) fn open() -> (Receiver, Sender) {
    port::start();
    on_interrupt();
    (Receiver(()), Sender(()))
}

/// What the chip's interrupts do. Whoever made room or has output pends one.
pub(super) fn on_interrupt() {
    port::acknowledge();
    while !RECEIVED.is_full()
        && let Some(byte) = port::receive()
    {
        let _ = RECEIVED.try_write(&[byte]);
    }
    let mut byte = [0];
    while port::can_send() && TO_SEND.try_read(&mut byte).is_ok() {
        port::send(byte[0]);
    }
    // What has no room here stays in the chip, and is lost there when that is full.
    port::listen(!RECEIVED.is_full(), !TO_SEND.is_empty());
    if TO_SEND.is_empty() {
        ALL_SENT.wake();
    }
}

impl ErrorType for Receiver {
    type Error = Infallible;
}

impl Read for Receiver {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = RECEIVED.read(buffer).await;
        port::INTERRUPT.pend();
        Ok(count)
    }
}

impl ErrorType for Sender {
    type Error = Infallible;
}

impl Write for Sender {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let count = TO_SEND.write(bytes).await;
        port::INTERRUPT.pend();
        Ok(count)
    }

    /// Waits until all but the few bytes that the chip itself keeps have left.
    async fn flush(&mut self) -> Result<(), Infallible> {
        poll_fn(|cx| {
            ALL_SENT.register(cx.waker());
            if TO_SEND.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        Ok(())
    }
}
