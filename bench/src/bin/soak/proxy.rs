//! What is between client and server: hands bytes on, and cuts each connection after a random number of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Random, Result};

/// The proxy, which goes on for as long as the runtime does.
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// In front of that server.
    pub async fn start(server: SocketAddr, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let cuts = Arc::new(AtomicU64::new(0));
        let (random, counted) = (Arc::new(Mutex::new(Random::new(seed, u64::MAX))), cuts.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let life = life(&mut random.lock().unwrap_or_else(PoisonError::into_inner));
                let cuts = counted.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(server).await else { return };
                    if carry(near, far, life).await {
                        cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Ok(Self { address, cuts })
    }

    /// How many connections it has cut.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

/// How many bytes a connection carries, both ways together: of 32 bytes and of 8 MiB as often as of anything in between, so that
/// now and then it is not enough for a Hello, and mostly for getting on.
fn life(random: &mut Random) -> u64 {
    let size = 5 + random.below(18);
    (1 << size) + random.below(1 << size)
}

/// Whether it was cut; else it has ended by itself.
async fn carry(mut near: TcpStream, mut far: TcpStream, life: u64) -> bool {
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let left = AtomicU64::new(life);
    let (mut from_near, mut to_near) = near.split();
    let (mut from_far, mut to_far) = far.split();
    tokio::select! {
        was_cut = hand_on(&mut from_near, &mut to_far, &left) => was_cut,
        was_cut = hand_on(&mut from_far, &mut to_near, &left) => was_cut,
    }
}

async fn hand_on(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), left: &AtomicU64) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return false };
        let before =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(count as u64)));
        // Anywhere, also within a message.
        let most = before.unwrap_or(0).min(count as u64) as usize;
        if to.write_all(&buffer[..most]).await.is_err() {
            return false;
        }
        if most < count {
            return true;
        }
    }
}
