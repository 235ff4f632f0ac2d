//! Who is let in by a server, who is not, and how it ends.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use farref_tokio::{
    AsyncFunction, CloseCode, Connection, Directory, Ended, Error, ErrorCode, Function, Options, Peer, PeerAddress,
    Remote, Server, ServerOptions, Validator, Value,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::Semaphore;
use tokio::time::Instant;

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

async fn connected(server: &Server, name: &str) -> Result<Connection, Error> {
    let (near, far) = duplex(4096);
    server.serve(far, Peer::named(name));
    farref_tokio::start(near, Directory::new(), Options::default()).await
}

fn echo() -> Directory {
    let echo = Function::inline(|mut args| Ok(args.positional.pop().unwrap_or(Value::None)));
    Directory::new().with("echo", "gives back its argument", echo)
}

#[tokio::test(start_paused = true)]
async fn one_session_too_many_is_told_so() {
    let server = Server::new(echo(), ServerOptions { connections: 2, ..ServerOptions::default() });
    let first = connected(&server, "first").await.expect("there is room");
    let second = connected(&server, "second").await.expect("there is room");
    assert_eq!(first.root().invoke("echo", [1]).await, Ok(1.into()));
    assert_eq!(second.root().invoke("echo", [2]).await, Ok(2.into()));
    let third = connected(&server, "third").await.expect("it hears a Hello");
    let full = Ended::PeerClosed(CloseCode::OutOfResources);
    assert_eq!(third.closed().await, full);
    assert_eq!(third.root().invoke("echo", [3]).await.map_err(|error| error.ended()), Err(Some(full)));
    assert_eq!(first.root().invoke("echo", [1]).await, Ok(1.into()));
    first.close();
    settle().await;
    let fourth = connected(&server, "fourth").await.expect("there is room");
    assert_eq!(fourth.root().invoke("echo", [4]).await, Ok(4.into()));
    let now = server.counters();
    assert_eq!((now.accepted, now.sessions, now.open, now.refused, now.failed), (4, 3, 2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_validator_decides_by_where_a_peer_comes_from() {
    let validator = Validator::new(|peer| peer.address != PeerAddress::Other("a stranger".to_owned()));
    let server = Server::new(echo(), ServerOptions { validator, ..ServerOptions::default() });
    let friend = connected(&server, "a friend").await.expect("it is let in");
    assert_eq!(friend.root().invoke("echo", [1]).await, Ok(1.into()));
    let refused = match connected(&server, "a stranger").await {
        Ok(stranger) => Error::Ended(stranger.closed().await),
        Err(error) => error,
    };
    assert_eq!(refused, Error::Ended(Ended::PeerClosed(CloseCode::NotAllowed)));
    assert_eq!((server.counters().sessions, server.counters().refused), (1, 1));
}

#[tokio::test]
async fn a_validator_is_told_the_address() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let validator = Validator::new(move |peer| tell.send(peer.address.clone()).is_ok());
    let server = Server::new(echo(), ServerOptions { validator, ..ServerOptions::default() });
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    server.listen_unix(&path).await.expect("it listens");
    let _tcp = farref_tokio::connect_tcp(address, Directory::new(), Options::default()).await.expect("it is let in");
    assert!(matches!(told.recv().await, Some(PeerAddress::Tcp(from)) if from.ip().is_loopback()));
    let _unix = farref_tokio::connect_unix(&path, Directory::new(), Options::default()).await.expect("it is let in");
    assert_eq!(told.recv().await, Some(PeerAddress::Unix(Some(rustix::process::getuid().as_raw()))));
}

#[tokio::test(start_paused = true)]
async fn who_says_no_hello_in_time_is_cut() {
    let mut options = ServerOptions::default();
    options.connection.handshake = Duration::from_secs(7);
    let server = Server::new(echo(), options);
    let (mut near, far) = duplex(4096);
    server.serve(far, Peer::named("a stranger"));
    let start = Instant::now();
    near.write_all(&hello()[..20]).await.expect("it is taken");
    let mut said = Vec::new();
    near.read_to_end(&mut said).await.expect("the end");
    assert_eq!(start.elapsed().as_secs(), 7);
    // And the other way round.
    let (near, _far) = duplex(4096);
    let options = Options { handshake: Duration::from_secs(3), ..Options::default() };
    let error = farref_tokio::start(near, Directory::new(), options).await.expect_err("nobody answers");
    assert_eq!(error, Error::Io(io::ErrorKind::TimedOut, "nobody answered within 3s".to_owned()));
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut() {
    let mut options = ServerOptions::default();
    options.connection.stall = Duration::from_secs(5);
    let server = Server::new(echo(), options);
    let (mut near, far) = duplex(1024);
    server.serve(far, Peer::named("a stranger"));
    near.write_all(&hello()).await.expect("it is taken");
    settle().await;
    assert_eq!(server.counters().open, 1);
    // Its Hello is read, and the answer of a call that is longer than what the stream holds is not.
    near.read_exact(&mut [0; 20]).await.expect("the server's Hello");
    let mut call = vec![0x00, 0, 0, 4, 0x44];
    call.extend(b"echo");
    call.extend([0x08, 0xB8, 0x17]);
    call.extend([0; 3000]);
    near.write_all(&[&[0xC4, 0x17][..], &call].concat()).await.expect("it is taken");
    let start = Instant::now();
    while server.counters().open > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // And then the time that is given to hang up.
    assert!((5..=7).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(server.counters().memory, 0);
    // One that reads a little now and then is not cut.
    let (mut near, far) = duplex(1024);
    server.serve(far, Peer::named("a slow one"));
    near.write_all(&hello()).await.expect("it is taken");
    near.write_all(&[&[0xC4, 0x17][..], &call].concat()).await.expect("it is taken");
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        near.read_exact(&mut [0; 100]).await.expect("some bytes");
    }
    assert_eq!(server.counters().open, 1);
}

/// A server that waits, and what lets it go on.
fn waiting() -> (Server, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let inside = gate.clone();
    let wait = AsyncFunction::new(move |_| {
        let inside = inside.clone();
        async move {
            inside.acquire().await.map_err(|_| Error::raise("RuntimeError", "closed"))?.forget();
            Ok(Value::from("done"))
        }
    });
    (Server::new(echo().with("wait", "until it is told", wait), ServerOptions::default()), gate)
}

#[tokio::test(start_paused = true)]
async fn a_graceful_end_waits_for_calls_under_way() {
    let (server, gate) = waiting();
    let client = connected(&server, "a client").await.expect("it is let in");
    let call = client.root().start("wait", ()).await.expect("it is sent");
    settle().await;
    let end = tokio::spawn({
        let server = server.clone();
        async move { server.shut_down(Duration::from_secs(60)).await }
    });
    settle().await;
    let refused = client.root().invoke("echo", [1]).await;
    assert_eq!(refused, Err(Error::Refused(ErrorCode::Overloaded, Vec::new())));
    assert!(!end.is_finished());
    let start = Instant::now();
    gate.add_permits(1);
    assert_eq!(call.await, Ok("done".into()));
    assert_eq!(client.closed().await, Ended::Done, "nothing was lost");
    end.await.expect("it ends");
    server.closed().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    // Nobody is let in any more.
    assert!(connected(&server, "another").await.is_err());
}

/// All sessions are told at once: one whose calls take long does not let the others go on as if nothing were.
#[tokio::test(start_paused = true)]
async fn a_graceful_end_is_the_same_moment_for_all() {
    let (server, gate) = waiting();
    let mut clients = Vec::new();
    for number in 0..4 {
        let client = connected(&server, &format!("client {number}")).await.expect("it is let in");
        let call = client.root().start("wait", ()).await.expect("it is sent");
        clients.push((client, call));
    }
    settle().await;
    let end = tokio::spawn({
        let server = server.clone();
        async move { server.shut_down(Duration::from_secs(60)).await }
    });
    settle().await;
    let start = Instant::now();
    for (client, _) in &clients {
        let refused = client.root().invoke("echo", [1]).await;
        assert_eq!(refused, Err(Error::Refused(ErrorCode::Overloaded, Vec::new())));
    }
    // Each call ends when all are refused, and not before.
    assert!(!end.is_finished());
    gate.add_permits(clients.len());
    for (client, call) in clients {
        assert_eq!(call.await, Ok("done".into()));
        assert_eq!(client.closed().await, Ended::Done);
    }
    end.await.expect("it ends");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_graceful_end_does_not_wait_for_ever() {
    let (server, _gate) = waiting();
    let client = connected(&server, "a client").await.expect("it is let in");
    let call = client.root().start("wait", ()).await.expect("it is sent");
    settle().await;
    let start = Instant::now();
    server.shut_down(Duration::from_secs(3)).await;
    assert_eq!(start.elapsed().as_secs(), 3);
    assert_eq!(call.await, Err(Error::Ended(Ended::PeerClosed(CloseCode::Leaving))));
}

/// Runtimes that end in the middle of it, on either side.
#[test]
fn a_runtime_that_ends_takes_its_sessions_along() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (here, there) = (runtime().expect("a runtime"), runtime().expect("a runtime"));
    let (server, address) = there.block_on(async {
        let (server, _gate) = waiting();
        let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
        (server, address)
    });
    let connect = || farref_tokio::connect_tcp(address, Directory::new(), Options::default());
    let other = runtime().expect("a runtime");
    let gone = other.block_on(connect()).expect("it connects");
    let call = other.block_on(gone.root().start("wait", ())).expect("it is sent");
    let client = here.block_on(connect()).expect("it connects");
    other.shutdown_background();
    assert!(matches!(here.block_on(call), Err(Error::Ended(_))));
    assert!(here.block_on(gone.root().invoke("echo", [1])).is_err());
    let waits = here.block_on(client.root().start("wait", ())).expect("it is sent");
    let gone = || server.counters().open == 1;
    let start = std::time::Instant::now();
    while !gone() {
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", server.counters());
        std::thread::yield_now();
    }
    there.shutdown_background();
    assert!(matches!(here.block_on(waits), Err(Error::Ended(_))));
    assert!(matches!(here.block_on(client.root().invoke("echo", [1])), Err(Error::NeverStarted(_))));
}

#[tokio::test]
async fn a_unix_socket_is_for_its_user_and_goes_with_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let mode = || std::fs::symlink_metadata(&path).map(|file| file.permissions().mode() & 0o7777);
    // One that nobody listens to any more is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let server = Server::new(echo(), ServerOptions::default());
    server.listen_unix(&path).await.expect("it listens");
    assert_eq!(mode().expect("a socket"), 0o600);
    let client = farref_tokio::connect_unix(&path, Directory::new(), Options::default()).await.expect("it connects");
    assert_eq!(client.root().invoke("echo", [1]).await, Ok(1.into()));
    // One that is in use is not.
    let other = Server::new(echo(), ServerOptions::default());
    assert!(matches!(other.listen_unix(&path).await, Err(Error::Io(io::ErrorKind::AddrInUse, _))));
    assert_eq!(client.root().invoke("echo", [2]).await, Ok(2.into()));
    server.shut_down(Duration::ZERO).await;
    tokio::time::timeout(Duration::from_secs(30), async {
        while mode().is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the file is gone");
    // And a file that is no socket is nobody's to remove.
    std::fs::write(&path, "precious").expect("a file");
    assert!(matches!(other.listen_unix(&path).await, Err(Error::Io(io::ErrorKind::AddrInUse, _))));
    assert_eq!(std::fs::read(&path).expect("the file"), b"precious");
}

/// A second `shut_down`, later or at the same time, finds the server gone; it does not wait for ever.
#[tokio::test]
async fn shutting_down_twice_ends() {
    let server = Server::new(Directory::new(), ServerOptions::default());
    server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    let both = async { tokio::join!(server.shut_down(Duration::ZERO), server.shut_down(Duration::ZERO)) };
    tokio::time::timeout(Duration::from_secs(10), both).await.expect("both end");
    let third = server.shut_down(Duration::ZERO);
    tokio::time::timeout(Duration::from_secs(10), third).await.expect("it ends");
}
