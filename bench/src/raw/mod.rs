//! What farref is compared with: an echo of messages that begin with their length.
//!
//! It is written to be fast: one write for each batch, reads as large as what has come, nothing copied for the answer.

pub mod blocking;
pub mod sockets;

use crate::cases::Exchange;

/// Bytes of a length.
const PREFIX: usize = 4;
/// What is read at a time, at most, unless a message is longer.
const READ: usize = 64 << 10;
/// The longest message that is taken.
const MAX_MESSAGE: usize = 64 << 20;

/// A batch of messages as they are written.
fn batch(exchange: Exchange) -> Vec<u8> {
    let mut message = (exchange.payload as u32).to_be_bytes().to_vec();
    message.resize(PREFIX + exchange.payload, 7);
    message.repeat(exchange.batch as usize)
}

/// What was read and not used yet.
struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    fn new() -> Self {
        Self { bytes: vec![0; READ], start: 0, end: 0 }
    }

    /// Where to read to: never empty, and enough for the message that has begun.
    fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let wanted = self.message_length().unwrap_or(PREFIX);
        if self.start + wanted > self.bytes.len() || self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.bytes.resize(self.bytes.len().max(wanted), 0);
        }
        &mut self.bytes[self.end..]
    }

    fn filled(&mut self, count: usize) {
        self.end += count;
    }

    /// The length of the message that comes next, with its prefix, once it is known.
    fn message_length(&self) -> Option<usize> {
        let prefix = self.bytes[self.start..self.end].first_chunk::<PREFIX>()?;
        Some(PREFIX + (u32::from_be_bytes(*prefix) as usize).min(MAX_MESSAGE))
    }

    /// All messages that are here to their end, one behind the other, and how many they are. They are used up.
    fn take_messages(&mut self) -> (&[u8], u64) {
        let first = self.start;
        let mut count = 0;
        while let Some(length) = self.message_length()
            && length <= self.end - self.start
        {
            self.start += length;
            count += 1;
        }
        (&self.bytes[first..self.start], count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_whole_however_they_come() {
        let exchange = Exchange { payload: 100_000, batch: 2 };
        let sent = batch(exchange);
        assert_eq!(sent.len(), 2 * 100_004);
        for piece in [1, 3, 70_000, 150_000] {
            let mut inbox = Inbox::new();
            let (mut rest, mut taken, mut count) = (&sent[..], Vec::new(), 0);
            while !rest.is_empty() {
                let space = inbox.space();
                let piece = piece.min(rest.len()).min(space.len());
                space[..piece].copy_from_slice(&rest[..piece]);
                rest = &rest[piece..];
                inbox.filled(piece);
                let (messages, more) = inbox.take_messages();
                taken.extend_from_slice(messages);
                count += more;
            }
            assert_eq!((taken == sent, count), (true, 2), "in pieces of {piece}");
        }
    }
}
