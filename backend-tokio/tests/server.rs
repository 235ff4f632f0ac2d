//! Who is let in by a server, who is not, and how it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use farref_tokio::{Directory, Peer, Server, ServerOptions, Validator};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

/// A stream that tells by the count of its shares that it is still there.
struct Shared(DuplexStream, #[expect(dead_code, reason = "it is counted")] Arc<()>);

impl AsyncRead for Shared {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Shared {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Lets all that can run do so, without a moment passing.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_are_turned_away_are_never_too_many_either() {
    let validator = Validator::new(|_| false);
    let server = Server::new(Directory::new(), ServerOptions { handshakes: 4, validator, ..ServerOptions::default() });
    let alive = Arc::new(());
    let mut peers = Vec::new();
    for _ in 0..100 {
        let (near, far) = duplex(1024);
        server.serve(Shared(far, alive.clone()), Peer::named("a stranger"));
        peers.push(near);
        settle().await;
        assert!(Arc::strong_count(&alive) <= 1 + 4);
    }
    assert_eq!(server.counters().refused, 100);
    assert_eq!(server.counters().failed, 0);
    drop(peers);
    settle().await;
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_handshake_goes_for_the_newest() {
    let server = Server::new(Directory::new(), ServerOptions { handshakes: 4, ..ServerOptions::default() });
    let alive = Arc::new(());
    let peers = std::iter::repeat_with(|| {
        let (near, far) = duplex(1024);
        server.serve(Shared(far, alive.clone()), Peer::named("a stranger"));
        near
    });
    let peers: Vec<_> = peers.take(50).collect();
    settle().await;
    assert_eq!(Arc::strong_count(&alive), 1 + 4);
    assert_eq!((server.counters().accepted, server.counters().failed), (50, 46));
    drop(peers);
    settle().await;
    assert_eq!(Arc::strong_count(&alive), 1);
    assert_eq!(server.counters().failed, 50);
}
