//! A line between a client and the guest that does to bytes what a bad one does, as a seed has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use farref_conformance::sim::Random;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

/// What has become of a line.
#[derive(Clone, Default)]
pub struct Plug(Arc<State>);

#[derive(Default)]
struct State {
    is_pulled: AtomicBool,
    bytes: AtomicU64,
    disturbed: AtomicU64,
}

impl Plug {
    /// Pulled, nothing comes through.
    pub fn pull(&self, is_pulled: bool) {
        self.0.is_pulled.store(is_pulled, Ordering::SeqCst);
    }

    /// Of 1,000 bytes so many were disturbed.
    pub fn disturbed(&self) -> u64 {
        self.0.disturbed.load(Ordering::SeqCst) * 1000 / self.bytes().max(1)
    }

    /// So many bytes came.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::SeqCst)
    }
}

/// The near end of such a line to `far`, on which `per_thousand` bytes are disturbed, in bursts of 64 to 256. It ends when one
/// of its ends does.
pub fn bad(
    far: impl AsyncRead + AsyncWrite + Send + 'static,
    per_thousand: u64,
    plug: &Plug,
    seed: u64,
) -> DuplexStream {
    let (end, near) = duplex(256);
    let plug = plug.clone();
    tokio::spawn(async move {
        let (near_read, near_write) = tokio::io::split(near);
        let (far_read, far_write) = tokio::io::split(far);
        tokio::select! {
            () = Direction::new(per_thousand, &plug, seed).carry(near_read, far_write) => {}
            () = Direction::new(per_thousand, &plug, !seed).carry(far_read, near_write) => {}
        }
    });
    end
}

struct Direction {
    per_thousand: u64,
    plug: Plug,
    random: Random,
    /// Bytes of the burst that are still to come.
    burst: u64,
}

impl Direction {
    fn new(per_thousand: u64, plug: &Plug, seed: u64) -> Self {
        Self { per_thousand, plug: plug.clone(), random: Random::new(seed), burst: 0 }
    }

    async fn carry(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut chunk = [0; 64];
        loop {
            let Ok(count @ 1..) = from.read(&mut chunk).await else { return };
            let mut bytes = Vec::with_capacity(2 * count);
            if !self.plug.0.is_pulled.load(Ordering::SeqCst) {
                chunk[..count].iter().for_each(|&byte| self.disturb(byte, &mut bytes));
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    }

    /// A byte in a burst is changed, dropped, or comes with another one.
    fn disturb(&mut self, byte: u8, bytes: &mut Vec<u8>) {
        /// The middle of 64 to 256.
        const BURST: u64 = 160;
        // After each burst so many bytes are left alone, on average.
        if self.burst == 0 && self.random.below(BURST * (1000 - self.per_thousand)) < self.per_thousand {
            self.burst = 64 + self.random.below(193);
        }
        self.plug.0.bytes.fetch_add(1, Ordering::SeqCst);
        if self.burst == 0 {
            return bytes.push(byte);
        }
        self.plug.0.disturbed.fetch_add(1, Ordering::SeqCst);
        self.burst -= 1;
        match self.random.below(4) {
            0 => {}
            1 => bytes.extend([byte, self.random.below(256) as u8]),
            // Not by 0: then it would be as it was.
            _ => bytes.push(byte ^ (1 + self.random.below(255) as u8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenth_of_the_bytes_is_disturbed_in_bursts() {
        let (mut far, guest) = duplex(256);
        let plug = Plug::default();
        let mut near = bad(guest, 100, &plug, 7);
        let writer = tokio::spawn(async move {
            near.write_all(&[0x55; 200_000]).await.expect("it takes all");
            near
        });
        let mut received = Vec::new();
        let mut chunk = [0; 4096];
        while plug.bytes() < 200_000 {
            let count = far.read(&mut chunk).await.expect("it is open");
            received.extend_from_slice(&chunk[..count]);
        }
        assert!((80..120).contains(&plug.disturbed()), "{}", plug.disturbed());
        // What is left alone comes in long runs.
        let longest = received.split(|&byte| byte != 0x55).map(<[u8]>::len).max().expect("some");
        assert!(longest > 1000, "{longest}");
        drop(writer.await.expect("no panic"));
    }

    #[tokio::test]
    async fn a_good_line_changes_nothing_and_a_pulled_one_loses_all() {
        let (mut far, guest) = duplex(256);
        let plug = Plug::default();
        let mut near = bad(guest, 0, &plug, 7);
        near.write_all(b"hello").await.expect("it is open");
        let mut received = [0; 5];
        far.read_exact(&mut received).await.expect("all comes");
        assert_eq!(&received, b"hello");
        plug.pull(true);
        near.write_all(b"lost").await.expect("it is open");
        // What comes behind it goes another way round: both directions are pulled at once.
        far.write_all(b"lost").await.expect("it is open");
        drop(far);
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.expect("it ends");
        assert_eq!(rest, b"");
    }
}
