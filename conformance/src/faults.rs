//! A line between two sides that does to frames and bytes what a bad one does, as a seed has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::sim::Random;

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
#[derive(Clone, Debug, Default)]
pub struct Plug(Arc<State>);

#[derive(Debug, Default)]
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
        self.0.disturbed.load(Ordering::SeqCst) * 1000 / self.bytes().max(1)
    }

    /// So many bytes came, not counting those.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::SeqCst)
    }
}

/// Two ends of such a line. It ends when one of them does.
pub fn line(faults: Faults, plug: &Plug, seed: u64) -> (DuplexStream, DuplexStream) {
    let (far, b) = duplex(256);
    (line_to(far, faults, plug, seed), b)
}

/// The near end of such a line to `far`.
pub fn line_to(
    far: impl AsyncRead + AsyncWrite + Send + 'static,
    faults: Faults,
    plug: &Plug,
    seed: u64,
) -> DuplexStream {
    let (end, near) = duplex(256);
    tokio::spawn(connect(near, far, faults, plug.clone(), seed));
    end
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

/// Where one side can be plugged in again and again, while the other one stays.
#[derive(Clone, Debug)]
pub struct Socket {
    plugs: mpsc::UnboundedSender<Option<DuplexStream>>,
}

impl Socket {
    /// A socket, and the side that stays.
    pub fn new(faults: Faults, seed: u64) -> (Self, DuplexStream) {
        let (plugs, plugged) = mpsc::unbounded_channel();
        let (far, stays) = duplex(256);
        tokio::spawn(Self::run(plugged, far, faults, seed));
        (Self { plugs }, stays)
    }

    /// Plugs somebody in; who was there before is out. If the side that stays has gone, what is plugged in has ended.
    pub fn plug(&self) -> DuplexStream {
        let (near, plugged) = duplex(256);
        let _ = self.plugs.send(Some(plugged));
        near
    }

    /// Nobody is plugged in.
    pub fn unplug(&self) {
        let _ = self.plugs.send(None);
    }

    async fn run(
        mut plugged: mpsc::UnboundedReceiver<Option<DuplexStream>>,
        mut far: DuplexStream,
        faults: Faults,
        seed: u64,
    ) {
        let plug = Plug::default();
        let [mut there, mut back] = [seed, !seed].map(|seed| Direction::new(faults, &plug, seed));
        let (mut near, mut buffers) = (None, [[0; 100]; 2]);
        loop {
            let [from_near, from_far] = &mut buffers;
            tokio::select! {
                plugged = plugged.recv() => match plugged {
                    Some(plugged) => near = plugged,
                    None => return,
                },
                count = read(&mut near, from_near) => match count {
                    0 => near = None,
                    _ if far.write_all(&there.pass(&from_near[..count])).await.is_err() => return,
                    _ => {}
                },
                count = far.read(from_far) => match (count, &mut near) {
                    (Ok(0) | Err(_), _) => return,
                    (Ok(count), Some(stream)) => {
                        if stream.write_all(&back.pass(&from_far[..count])).await.is_err() {
                            near = None;
                        }
                    }
                    (Ok(_), None) => {}
                },
            }
        }
    }
}

/// What comes from who is plugged in; 0 when they leave.
async fn read(near: &mut Option<DuplexStream>, buffer: &mut [u8]) -> usize {
    match near {
        Some(near) => near.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

struct Direction {
    faults: Faults,
    plug: Plug,
    random: Random,
    /// What came of a frame.
    frame: Vec<u8>,
    /// Bytes of the burst that are still to come.
    burst: u64,
}

impl Direction {
    fn new(faults: Faults, plug: &Plug, seed: u64) -> Self {
        Self { faults, plug: plug.clone(), random: Random::new(seed), frame: Vec::new(), burst: 0 }
    }

    async fn carry(mut self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let mut buffer = [0; 100];
        loop {
            let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
            if to.write_all(&self.pass(&buffer[..count])).await.is_err() {
                return;
            }
        }
    }

    /// What becomes of these bytes.
    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut passed = Vec::new();
        for &byte in bytes {
            self.frame.push(byte);
            if byte == 0 {
                let frame = std::mem::take(&mut self.frame);
                for _ in 0..self.copies() {
                    frame.iter().for_each(|&byte| self.disturb(byte, &mut passed));
                }
            }
        }
        passed
    }

    /// How often a frame comes.
    fn copies(&mut self) -> usize {
        match self.random.below(1000) {
            _ if self.plug.0.is_pulled.load(Ordering::SeqCst) => 0,
            dice if dice < self.faults.lost => 0,
            dice if dice < self.faults.lost + self.faults.repeated => 2,
            _ => 1,
        }
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
            // Not by 0: then it would be as it was.
            _ => bytes.push(byte ^ (1 + self.random.below(255) as u8)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a hundred bytes, which the lines here do not read.
    fn frames(count: usize) -> Vec<u8> {
        [&[0x55; 99][..], &[0]].concat().repeat(count)
    }

    #[tokio::test]
    async fn a_tenth_of_the_bytes_is_disturbed_in_bursts() {
        let plug = Plug::default();
        let (mut near, mut far) = line(Faults { disturbed: 100, ..Faults::default() }, &plug, 7);
        let writer = tokio::spawn(async move { near.write_all(&frames(2_000)).await });
        let mut received = Vec::new();
        // It ends with the near end, which was dropped.
        far.read_to_end(&mut received).await.expect("it ends");
        writer.await.expect("no panic").expect("it takes all");
        assert!(plug.bytes() == 200_000 && (80..120).contains(&plug.disturbed()), "{}", plug.disturbed());
        // What is left alone comes in long runs.
        let longest = received.split(|&byte| byte != 0x55 && byte != 0).map(<[u8]>::len).max().expect("some");
        assert!(longest > 1000, "{longest}");
    }

    #[tokio::test]
    async fn frames_are_lost_and_repeated_whole() {
        let (mut near, mut far) = line(Faults { lost: 100, repeated: 200, disturbed: 0 }, &Plug::default(), 7);
        let writer = tokio::spawn(async move { near.write_all(&frames(2_000)).await });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.expect("it ends");
        writer.await.expect("no panic").expect("it takes all");
        let count = received.len() / 100;
        assert_eq!(received, frames(count));
        // A tenth less, two tenths more.
        assert!((2_100..2_300).contains(&count), "{count}");
    }

    #[tokio::test]
    async fn a_good_line_changes_nothing_and_a_pulled_one_loses_all() {
        let plug = Plug::default();
        let (mut near, mut far) = line(Faults::default(), &plug, 7);
        near.write_all(b"hello\0").await.expect("it is open");
        let mut received = [0; 6];
        far.read_exact(&mut received).await.expect("all comes");
        assert_eq!(&received, b"hello\0");
        plug.pull(true);
        far.write_all(b"lost\0").await.expect("it is open");
        near.write_all(b"lost\0").await.expect("it is open");
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("it ends");
        assert_eq!(rest, b"");
        assert_eq!(plug.bytes(), 6);
    }
}
