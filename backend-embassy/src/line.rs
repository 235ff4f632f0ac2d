//! Carries sessions over serial lines, which lose and change bytes (SPEC section 16).

use core::cell::RefCell;
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;

use embassy_futures::select::select3;
use embassy_time::Timer;
use embedded_io_async::{Read, Write};
use farref_core::frame::serial::{CHECK, Decoder};
use farref_core::link::serial::{Config as LinkConfig, SerialLink};
use farref_core::session::Ended;

use crate::connection::{Mode, Status};
use crate::drive::{Endpoint, LINGER, next_poll, now, wake_at};

/// What is between a line and a session: a run of bytes that came, the frame that comes in, and the one that goes out.
///
/// With [`line_buffer`] of the longest message that is taken, 256 at least.
pub struct LineBuffers<const RUN: usize, const FRAME: usize> {
    run: [u8; RUN],
    incoming: [u8; FRAME],
    outgoing: [u8; FRAME],
}

/// How long a frame is, coded and with its check.
pub const fn line_buffer(max_message: usize) -> usize {
    SerialLink::frame_len(max_message)
}

impl<const RUN: usize, const FRAME: usize> LineBuffers<RUN, FRAME> {
    /// Empty ones.
    pub const fn new() -> Self {
        const { assert!(RUN > 0 && FRAME >= line_buffer(256), "a Hello has up to 256 bytes") };
        Self { run: [0; RUN], incoming: [0; FRAME], outgoing: [0; FRAME] }
    }

    /// The longest message that fits.
    const MAX_MESSAGE: usize = {
        let mut longest = 256;
        while line_buffer(longest + 1) <= FRAME {
            longest += 1;
        }
        longest
    };
}

impl<const RUN: usize, const FRAME: usize> Default for LineBuffers<RUN, FRAME> {
    fn default() -> Self {
        Self::new()
    }
}

impl Endpoint<'_> {
    /// Carries a session over a line, from when the other side is there until it is over. Then the next one may begin: whoever
    /// serves on a line does this for ever.
    ///
    /// What is written has to have left when the writer's `flush` is done, so that what is sent last is what is true last.
    pub async fn line<const RUN: usize, const FRAME: usize>(
        &self,
        mut reader: impl Read,
        mut writer: impl Write,
        buffers: &mut LineBuffers<RUN, FRAME>,
        config: LinkConfig,
    ) -> Ended {
        let LineBuffers { run, incoming, outgoing } = buffers;
        let max_message = LineBuffers::<RUN, FRAME>::MAX_MESSAGE;
        let taken = SerialLink::payload_len(max_message) + CHECK;
        let mut decoder = Decoder::new(incoming.get_mut(..taken).unwrap_or_default());
        self.carry_line(&mut reader, &mut writer, run, &mut decoder, outgoing, (config, max_message)).await
    }

    async fn carry_line(
        &self,
        reader: &mut impl Read,
        writer: &mut impl Write,
        run: &mut [u8],
        decoder: &mut Decoder<&mut [u8]>,
        outgoing: &mut [u8],
        (config, max_message): (LinkConfig, usize),
    ) -> Ended {
        let turn = self.connection.next_turn();
        self.begin(Mode::Line, max_message);
        let mut id = [0; 4];
        (self.connection.config().random)(&mut id);
        let link = RefCell::new(SerialLink::new(config, u32::from_le_bytes(id)));
        select3(
            self.receive_frames(&link, reader, run, decoder),
            self.keep_line_time(&link, turn),
            self.send_frames(&link, writer, outgoing),
        )
        .await;
        self.serve(|service| self.connection.give_up(Ended::LinkLost, service));
        match self.connection.status() {
            Status::Over(ended) => ended,
            Status::Live | Status::Parked => Ended::LinkLost,
        }
    }

    /// Hands frames to the link, until the line is no more.
    async fn receive_frames(
        &self,
        link: &RefCell<SerialLink>,
        reader: &mut impl Read,
        run: &mut [u8],
        decoder: &mut Decoder<&mut [u8]>,
    ) {
        loop {
            let Ok(count @ 1..) = reader.read(run).await else { return };
            let mut received = run.get(..count).unwrap_or_default();
            while let Some(payload) = decoder.next(&mut received) {
                self.with_link(link, |link| {
                    self.serve(|service| self.connection.line_receive(link, now(), payload, service));
                });
            }
        }
    }

    /// Sends one frame after the other, each when the one before has left. In between calls that were waiting use its buffer.
    async fn send_frames(&self, link: &RefCell<SerialLink>, writer: &mut impl Write, line: &mut [u8]) {
        loop {
            self.serve(|service| self.connection.settle(Some(&mut *line), service));
            let length = self.with_link(link, |link| self.connection.line_transmit(link, now(), line)).unwrap_or(0);
            if length == 0 {
                poll_fn(|cx| {
                    // It may have become due with the frame that has just left.
                    wake_at(self.with_link(link, |link| link.poll_timeout()).flatten(), cx);
                    Poll::Ready(())
                })
                .await;
                next_poll().await;
                continue;
            }
            let frame = line.get(..length).unwrap_or_default();
            if writer.write_all(frame).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    }

    /// Tells the session and the link the time, until the session is over and the other side knows that, or does not answer.
    async fn keep_line_time(&self, link: &RefCell<SerialLink>, turn: u32) {
        let mut lingers = None;
        poll_fn(|cx| {
            let _ = self.poll_time(cx);
            let timeout = self.with_link(link, |link| {
                if link.poll_timeout().is_some_and(|at| at <= now()) {
                    self.connection.line_advance(link, now());
                }
                link.poll_timeout()
            });
            // What is due already waits until the line is free.
            wake_at(timeout.flatten().filter(|&at| at > now()), cx);
            let ended = match self.connection.status() {
                _ if self.connection.turn() != turn => return Poll::Ready(()),
                Status::Over(ended) => ended,
                Status::Live | Status::Parked => return Poll::Pending,
            };
            // A peer that was never there has no session that could end. If somebody else is there now, nobody hears it.
            let is_done = |link: &mut SerialLink| {
                let has_heard = link.is_settled() && !self.connection.has_output();
                has_heard || !link.has_peer() || link.ended().is_some()
            };
            if self.with_link(link, is_done) == Some(true) || matches!(ended, Ended::PeerRestarted | Ended::LinkLost) {
                return Poll::Ready(());
            }
            pin!(lingers.get_or_insert_with(|| Timer::after(LINGER * 4))).poll(cx)
        })
        .await;
    }

    fn with_link<R>(&self, link: &RefCell<SerialLink>, ask: impl FnOnce(&mut SerialLink) -> R) -> Option<R> {
        Some(ask(&mut *link.try_borrow_mut().ok()?))
    }
}
