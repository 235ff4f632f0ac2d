//! Something between client and server that cuts connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// Hands bytes on, both ways, until it cuts.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// Connections with a smaller number are to be cut.
    cut: watch::Sender<u64>,
    /// How many bytes each connection may carry, both ways together.
    life: Box<dyn Fn() -> u64 + Send + Sync>,
    is_closed: watch::Sender<bool>,
    /// What goes to the server is kept here when the client's side is cut, if anybody wants it.
    half_open: Mutex<Option<Vec<TcpStream>>>,
    opened: AtomicU64,
    cuts: AtomicU64,
    changed: Notify,
}

impl Proxy {
    pub async fn new(server: SocketAddr) -> Self {
        Self::cutting(server, || u64::MAX).await
    }

    /// Each connection is cut after so many bytes as `life` says.
    pub async fn cutting(server: SocketAddr, life: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            cut: watch::Sender::new(0),
            life: Box::new(life),
            is_closed: watch::Sender::new(false),
            half_open: Mutex::default(),
            opened: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            changed: Notify::new(),
        });
        let proxy = Self { address, shared };
        let own = proxy.clone();
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.expect("it accepts");
                let number = own.shared.opened.fetch_add(1, Ordering::SeqCst) + 1;
                let own = own.clone();
                if *own.shared.is_closed.borrow() {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(server).await else { return };
                    own.carry(number, near, far).await;
                });
            }
        });
        proxy
    }

    async fn carry(&self, number: u64, mut near: TcpStream, mut far: TcpStream) {
        let left = AtomicU64::new((self.shared.life)());
        let mut cut = self.shared.cut.subscribe();
        {
            let (mut from_near, mut to_near) = near.split();
            let (mut from_far, mut to_far) = far.split();
            tokio::select! {
                () = hand_on(&mut from_near, &mut to_far, &left) => {}
                () = hand_on(&mut from_far, &mut to_near, &left) => {}
                _ = cut.wait_for(|cut| *cut >= number) => {}
            }
        }
        self.shared.cuts.fetch_add(1, Ordering::SeqCst);
        if let Some(kept) = &mut *self.shared.half_open.lock().expect("no panic") {
            kept.push(far);
        }
        self.shared.changed.notify_waiters();
    }

    /// Cuts all connections that there are.
    pub fn cut(&self) {
        self.shared.cut.send_replace(self.shared.opened.load(Ordering::SeqCst));
    }

    /// From now on each connection is cut at once that comes, or no more.
    pub fn close(&self, is_closed: bool) {
        self.shared.is_closed.send_replace(is_closed);
        if is_closed {
            self.cut();
        }
    }

    /// From now on the server does not notice a cut. The ends of its connections are kept.
    pub fn keep_half_open(&self) {
        *self.shared.half_open.lock().expect("no panic") = Some(Vec::new());
    }

    /// Those ends.
    pub fn half_open(&self) -> Vec<TcpStream> {
        self.shared.half_open.lock().expect("no panic").take().unwrap_or_default()
    }

    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// Connections that came.
    pub fn opened(&self) -> u64 {
        self.shared.opened.load(Ordering::SeqCst)
    }
}

async fn hand_on(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), left: &AtomicU64) {
    let mut buffer = [0; 4096];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let before =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(count as u64)));
        let most = before.unwrap_or(0).min(count as u64) as usize;
        if to.write_all(&buffer[..most]).await.is_err() || most < count {
            return;
        }
    }
}
