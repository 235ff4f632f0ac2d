//! The check of a shared key over sockets: who gets in, and what the others are told.

mod common;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use common::{PATIENCE, calls_work, counted, echo, key, options};
use farref_core::frame::PREAMBLE;
use farref_tokio::{
    Connection, Directory, Error, Key, KeyFailure, KeyRefusal, Options, Peer, Server, ServerOptions, Validator,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn serving(key: Option<Key>) -> (Server, SocketAddr) {
    serving_with(ServerOptions { connection: options(key), ..ServerOptions::default() }).await
}

async fn serving_with(options: ServerOptions) -> (Server, SocketAddr) {
    let server = Server::new(echo(), options);
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    (server, address)
}

async fn connect(address: SocketAddr, key: Option<Key>) -> Result<Connection, Error> {
    farref_tokio::connect_tcp(address, Directory::new(), options(key)).await
}

#[tokio::test]
async fn who_knows_the_key_gets_in() {
    let (server, address) = serving(Some(key(1))).await;
    for _ in 0..20 {
        let client = connect(address, Some(key(1))).await.expect("it is the same key");
        calls_work(&client).await;
    }
    assert_eq!((server.counters().sessions, server.counters().failed), (20, 0));
}

#[cfg(unix)]
#[tokio::test]
async fn a_key_works_over_unix_sockets() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let server = Server::new(echo(), ServerOptions { connection: options(Some(key(1))), ..ServerOptions::default() });
    server.listen_unix(&path).await.expect("it listens");
    let client = farref_tokio::connect_unix(&path, Directory::new(), options(Some(key(1)))).await;
    calls_work(&client.expect("it is the same key")).await;
    let refused = farref_tokio::connect_unix(&path, Directory::new(), options(None)).await;
    assert_eq!(refused.unwrap_err(), Error::Key(KeyFailure::Refused(KeyRefusal::KeyWanted)));
}

/// Over any stream; the side that connects is the one that starts.
#[tokio::test]
async fn a_key_works_over_streams_of_the_program() {
    let server = Server::new(echo(), ServerOptions { connection: options(Some(key(1))), ..ServerOptions::default() });
    // So small that nothing comes in one piece.
    let (here, there) = tokio::io::duplex(7);
    server.serve(there, Peer::named("a pipe"));
    let client = farref_tokio::start(here, Directory::new(), options(Some(key(1)))).await.expect("it is the same key");
    calls_work(&client).await;
}

/// KEY-6, KEY-7: each mistake has an error of its own.
#[tokio::test]
async fn the_others_are_told_what_is_wrong() {
    let (server, address) = serving(Some(key(1))).await;
    for (given, expected, text) in [
        (Some(key(2)), KeyFailure::Refused(KeyRefusal::WrongKey), "wrong key: the peer refused it"),
        (None, KeyFailure::Refused(KeyRefusal::KeyWanted), "the peer wants a key"),
    ] {
        let error = connect(address, given).await.expect_err("it is not the key");
        assert_eq!((error.to_string(), error), (text.to_owned(), Error::Key(expected)));
    }
    let (_open, address) = serving(None).await;
    let error = connect(address, Some(key(1))).await.expect_err("there is no key");
    assert_eq!(error, Error::Key(KeyFailure::NoKey));
    assert_eq!(error.to_string(), "the peer uses no key: it began a session without the key check");
    counted(&server, |counters| counters.failed == 2).await;
    assert_eq!(server.counters().sessions, 0);
}

/// A key between what else a server asks: the validator judges those only who know it.
#[tokio::test]
async fn the_validator_is_asked_after_the_key() {
    let validator = Validator::new(|_| panic!("nobody knows the key"));
    let (server, address) =
        serving_with(ServerOptions { connection: options(Some(key(1))), validator, ..ServerOptions::default() }).await;
    assert!(matches!(connect(address, Some(key(2))).await, Err(Error::Key(_))));
    counted(&server, |counters| counters.failed == 1).await;
}

/// Whoever connects to a server that does not answer is told so in time.
#[tokio::test]
async fn a_silent_peer_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let options = Options { handshake: Duration::from_millis(50), ..options(Some(key(1))) };
    let error = farref_tokio::connect_tcp(address, Directory::new(), options).await.expect_err("nobody answers");
    assert_eq!(error, Error::Io(ErrorKind::TimedOut, "nobody answered within 50ms".into()));
}

/// Checks held open in the middle, byte by byte, cost nobody else the server; and they end.
#[tokio::test]
async fn half_a_check_holds_nobody_up() {
    let limits = ServerOptions { connection: options(Some(key(1))), handshakes: 4, ..ServerOptions::default() };
    let (server, address) = serving_with(limits).await;
    let mut begin = b"\xFFfarkey\n\x01\x01".to_vec();
    begin.extend([7; 32]);
    let mut held = Vec::new();
    for cut in 0..=begin.len() {
        let mut stream = TcpStream::connect(address).await.expect("it connects");
        stream.write_all(&begin[..cut]).await.expect("it writes");
        held.push(stream);
    }
    let most = held.len() as u64;
    counted(&server, |counters| counters.accepted == most).await;
    calls_work(&connect(address, Some(key(1))).await.expect("an honest client gets in")).await;
    // The honest one was one more: four are left, or fewer.
    let cut_off = async {
        for stream in &mut held[..begin.len() - 4] {
            let mut answer = Vec::new();
            match stream.read_to_end(&mut answer).await {
                Ok(_) => assert!(answer.is_empty(), "{answer:?}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
    };
    tokio::time::timeout(PATIENCE, cut_off).await.expect("the oldest gave way");
}

/// Strangers learn that a key is wanted, and nothing that depends on it.
#[tokio::test]
async fn strangers_are_turned_away() {
    let (server, address) = serving(Some(key(1))).await;
    // A session without the check; rubbish after a mark; rubbish and no more.
    let refuse = |reason| [&b"\xFFfarkey\n\x01\x05"[..], &[reason]].concat();
    for (said, answer) in [
        ([&PREAMBLE[..], b"hello?"].concat(), refuse(1)),
        (b"\xFFfarkey\n\x02\x01".to_vec(), refuse(3)),
        (b"\xFFfarkey\n\x01\x03".to_vec(), refuse(4)),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Vec::new()),
    ] {
        let answered = exchange(address, &said).await.expect("it answers");
        assert_eq!(answered, answer, "{said:?}");
    }
    counted(&server, |counters| counters.failed == 4).await;
    assert_eq!(server.counters().sessions, 0);
}

async fn exchange(address: SocketAddr, said: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(said).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await??;
    Ok(answer)
}
