//! A line between two sides that does to bytes what a bad one does, as a seed has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use farref_conformance::sim::Random;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

/// What happens to frames, and to bytes wherever they stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Of 1,000 frames so many are lost.
    pub lost: u64,
    /// Of 1,000 frames so many come twice.
    pub repeated: u64,
    /// Of 1,000 bytes so many are disturbed, in bursts of 64 to 256: changed, dropped, or more than there were.
    pub disturbed: u64,
}

/// One of each, and then some: of 10 bytes one is disturbed.
pub const BAD: Faults = Faults { lost: 20, repeated: 50, disturbed: 100 };

/// Whether anything comes through, and what has become of it.
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

    /// Of 1,000 bytes so many were disturbed, as far as they were not lost with their frames.
    pub fn disturbed(&self) -> u64 {
        self.0.disturbed.load(Ordering::SeqCst) * 1000 / self.0.bytes.load(Ordering::SeqCst).max(1)
    }
}

/// Two ends of such a line. It ends when one of them does.
pub fn line(faults: Faults, plug: &Plug, seed: u64) -> (DuplexStream, DuplexStream) {
    let (a, near) = duplex(256);
    let (far, b) = duplex(256);
    let plug = plug.clone();
    tokio::spawn(connect(near, far, faults, plug, seed));
    (a, b)
}

/// Hands on what comes, both ways, until one of both is gone.
pub async fn connect(
    near: impl AsyncRead + AsyncWrite + Send,
    far: impl AsyncRead + AsyncWrite + Send,
    faults: Faults,
    plug: Plug,
    seed: u64,
) {
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    tokio::select! {
        () = Direction::new(faults, &plug, seed).carry(near_read, far_write) => {}
        () = Direction::new(faults, &plug, !seed).carry(far_read, near_write) => {}
    }
}

struct Direction {
    faults: Faults,
    plug: Plug,
    random: Random,
    /// Bytes of the burst that are still to come.
    burst: u64,
}

impl Direction {
    fn new(faults: Faults, plug: &Plug, seed: u64) -> Self {
        Self { faults, plug: plug.clone(), random: Random::new(seed), burst: 0 }
    }

    async fn carry(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut frame = Vec::new();
        let mut buffer = [0; 100];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            for &byte in &buffer[..count] {
                frame.push(byte);
                if byte == 0 && !self.hand_on(&std::mem::take(&mut frame), &mut to).await {
                    return;
                }
            }
        }
    }

    async fn hand_on(&mut self, frame: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> bool {
        let copies = match self.random.below(1000) {
            _ if self.plug.0.is_pulled.load(Ordering::SeqCst) => 0,
            dice if dice < self.faults.lost => 0,
            dice if dice < self.faults.lost + self.faults.repeated => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut bytes = Vec::with_capacity(frame.len());
            frame.iter().for_each(|&byte| self.disturb(byte, &mut bytes));
            if to.write_all(&bytes).await.is_err() {
                return false;
            }
        }
        true
    }

    fn disturb(&mut self, byte: u8, bytes: &mut Vec<u8>) {
        /// The middle of 64 to 256.
        const BURST: u64 = 160;
        // After each burst so many bytes are left alone, on average.
        if self.burst == 0
            && self.faults.disturbed > 0
            && self.random.below(BURST * (1000 - self.faults.disturbed)) < self.faults.disturbed
        {
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
            _ => bytes.push(byte ^ self.random.below(256) as u8),
        }
    }
}
