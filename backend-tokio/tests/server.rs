//! Who is let in by a server, who is not, and how it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use farref_tokio::{AsyncFunction, Directory, Options, Peer, Remote, Server, ServerOptions, Validator, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

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

/// Bytes of a session that begins.
fn hello() -> Vec<u8> {
    let mut bytes = b"\xFFfarref\n".to_vec();
    bytes.extend([34, 0x10, 1, 1, 0, 0x80, 0x80, 0x04, 0xA0, 0x8D, 0x06, 0x80, 0x02, 0x80, 0x80, 0x20, 0x40, 0x10]);
    bytes.extend(b"a hostile peer..\x01");
    bytes
}

/// The length of a record of a mebibyte.
const MEBIBYTE: [u8; 3] = [0x80, 0x80, 0x40];

#[tokio::test(start_paused = true)]
async fn a_record_takes_memory_as_it_comes_and_not_as_it_is_announced() {
    let server = Server::new(Directory::new(), ServerOptions::default());
    let (mut near, far) = duplex(1 << 21);
    server.serve(far, Peer::named("a stranger"));
    near.write_all(&hello()).await.expect("it is taken");
    near.write_all(&MEBIBYTE).await.expect("it is taken");
    settle().await;
    assert_eq!(server.counters().open, 1);
    assert!(server.counters().memory < 100_000, "{:?}", server.counters());
    near.write_all(&vec![0; 500_000]).await.expect("it is taken");
    settle().await;
    assert!((500_000..1_100_000).contains(&server.counters().memory), "{:?}", server.counters());
    drop(near);
    settle().await;
    assert_eq!((server.counters().open, server.counters().memory), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_needs_more_memory_than_there_is_is_told_so() {
    let server = Server::new(Directory::new(), ServerOptions { memory: 200_000, ..ServerOptions::default() });
    let (mut near, far) = duplex(1 << 21);
    server.serve(far, Peer::named("a stranger"));
    let (mut honest, far) = duplex(1 << 20);
    server.serve(far, Peer::named("a friend"));
    honest.write_all(&hello()).await.expect("it is taken");
    near.write_all(&hello()).await.expect("it is taken");
    near.write_all(&MEBIBYTE).await.expect("it is taken");
    near.write_all(&vec![0; 1 << 20]).await.expect("it is taken");
    let mut said = Vec::new();
    near.read_to_end(&mut said).await.expect("the end");
    // Close with code 3, and no texts.
    assert!(said.ends_with(&[4, 17, 3, 0, 0]), "{said:?}");
    assert_eq!(server.counters().open, 1, "the other goes on");
}

#[tokio::test(start_paused = true)]
async fn async_calls_end_with_their_session() {
    let alive = Arc::new(());
    let held = alive.clone();
    let wait = AsyncFunction::new(move |_| {
        let held = held.clone();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(Value::None)
        }
    });
    let server = Server::new(Directory::new().with("wait", "for ever", wait), ServerOptions::default());
    let (near, far) = duplex(1024);
    server.serve(far, Peer::named("a client"));
    let client = farref_tokio::start(near, Directory::new(), Options::default()).await.expect("it starts");
    let waiting = client.root().start("wait", ()).await.expect("it is sent");
    settle().await;
    assert_eq!(Arc::strong_count(&alive), 3);
    client.close();
    assert!(waiting.await.is_err());
    settle().await;
    assert_eq!(Arc::strong_count(&alive), 2);
    assert_eq!(server.counters().memory, 0);
}
