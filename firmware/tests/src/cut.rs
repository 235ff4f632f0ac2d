//! Something between a client and the guest that cuts connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Hands on what comes, both ways, until it is told to cut.
pub struct Cutter {
    pub address: SocketAddr,
    /// Connections up to this number are cut.
    cut: watch::Sender<u64>,
    opened: Arc<AtomicU64>,
}

impl Cutter {
    pub async fn new(guest: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let address = listener.local_addr().expect("an address");
        let cutter = Self { address, cut: watch::Sender::new(0), opened: Arc::default() };
        let (cut, opened) = (cutter.cut.subscribe(), cutter.opened.clone());
        tokio::spawn(async move {
            loop {
                let Ok((mut near, _)) = listener.accept().await else { return };
                let number = opened.fetch_add(1, Ordering::SeqCst) + 1;
                let mut cut = cut.clone();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(guest).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.wait_for(|cut| *cut >= number) => {}
                    }
                });
            }
        });
        cutter
    }

    /// Cuts all connections that there are.
    pub fn cut(&self) {
        self.cut.send_replace(self.opened());
    }

    /// How many came.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }
}
