//! TLS: who gets in, what the others are told, and half a handshake.
#![cfg(feature = "tls")]

#[path = "common/authority.rs"]
mod authority;
mod common;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use authority::Authority;
use common::{PATIENCE, calls_work, counted, echo, key, options};
use farref_tokio::{
    Authorities, CloseCode, Connection, Directory, Ended, Error, Identity, KeyFailure, KeyRefusal, Options, Remote,
    Server, ServerOptions, TlsClient, TlsError, TlsServer, Validator,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// As the two sides have it.
trait OfAuthority {
    fn authorities(&self) -> Authorities;
    fn identity(&self, names: &[&str]) -> Identity;
    fn server(&self) -> TlsServer;
    fn client(&self) -> TlsClient;
}

impl OfAuthority for Authority {
    fn authorities(&self) -> Authorities {
        Authorities::from_file(self.path()).expect("a certificate")
    }

    fn identity(&self, names: &[&str]) -> Identity {
        let (chain, key) = self.files(names);
        Identity::from_files(chain, key).expect("an identity")
    }

    fn server(&self) -> TlsServer {
        TlsServer::new(&self.identity(&["localhost", "127.0.0.1"]), None).expect("a server")
    }

    fn client(&self) -> TlsClient {
        TlsClient::new(&self.authorities(), None).expect("a client")
    }
}

async fn serving(tls: &TlsServer, options: ServerOptions) -> (Server, SocketAddr) {
    let server = Server::new(echo(), options);
    let address = server.listen_tls("127.0.0.1:0", tls).await.expect("it listens");
    (server, address)
}

async fn connect(address: SocketAddr, name: &str, tls: &TlsClient) -> Result<Connection, Error> {
    farref_tokio::connect_tls(address, name, tls, Directory::new(), Options::default()).await
}

fn denied(error: &Error) -> &str {
    match error {
        Error::Io(ErrorKind::PermissionDenied, text) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_go_over_tls() {
    let ours = Authority::new("ours");
    let (_server, address) = serving(&ours.server(), ServerOptions::default()).await;
    for name in ["localhost", "127.0.0.1"] {
        let client = connect(address, name, &ours.client()).await.expect("it connects");
        calls_work(&client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_go_over_tls() {
    let ours = Authority::new("ours");
    let (_server, address) = serving(&ours.server(), ServerOptions::default()).await;
    let client = connect(address, "localhost", &ours.client()).await.expect("it connects");
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { calls_work(&client).await })
        })
        .collect();
    for task in tasks {
        task.await.expect("it works");
    }
}

#[tokio::test]
async fn a_server_that_is_not_the_one_is_refused() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (server, address) = serving(&ours.server(), ServerOptions::default()).await;
    let wrong_name = connect(address, "example.org", &ours.client()).await.expect_err("another name");
    let text = denied(&wrong_name);
    assert!(text.contains("not valid for name \"example.org\"") && text.contains("localhost"), "{text}");
    let unknown = connect(address, "localhost", &theirs.client()).await.expect_err("another authority");
    assert_eq!(denied(&unknown), "the peer's certificate comes from no authority that is trusted here");
    counted(&server, |counters| counters.failed == 2).await;
    assert_eq!(server.counters().sessions, 0);
    let no_name = connect(address, "no name", &ours.client()).await.expect_err("no name");
    assert_eq!(no_name, Error::Io(ErrorKind::InvalidInput, "nothing can have the name \"no name\"".into()));
}

/// The server asks for certificates: what it is told of them, and what those are told who have none.
#[tokio::test]
async fn clients_show_certificates() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let identity = ours.identity(&["localhost", "127.0.0.1"]);
    let tls = TlsServer::new(&identity, Some(&ours.authorities())).expect("a server");
    let seen = Arc::new(Mutex::new(None));
    let see = seen.clone();
    let validator = Validator::new(move |peer| {
        let names = peer.certificate.as_ref().map(|certificate| certificate.dns_names());
        *see.lock().expect("a lock") = peer.certificate.clone();
        names.is_some_and(|names| names.iter().any(|name| name == "anna.example"))
    });
    let (server, address) = serving(&tls, ServerOptions { validator, ..ServerOptions::default() }).await;
    let with = |identity: &Identity| TlsClient::new(&ours.authorities(), Some(identity)).expect("a client");

    let anna = ours.identity(&["anna.example"]);
    calls_work(&connect(address, "localhost", &with(&anna)).await.expect("it is Anna")).await;
    let certificate = seen.lock().expect("a lock").clone().expect("a certificate");
    assert_eq!(certificate.der(), std::fs::read(ours.folder.path().join("anna.example.der")).expect("a file"));
    assert_eq!(certificate.dns_names(), ["anna.example"]);

    let ben = ours.identity(&["ben.example"]);
    let refused = match connect(address, "localhost", &with(&ben)).await {
        Ok(client) => client.root().invoke("echo", [1]).await.expect_err("it is Ben"),
        Err(error) => error,
    };
    let not_allowed = Ended::PeerClosed(CloseCode::NotAllowed);
    assert!(refused.ended() == Some(not_allowed), "{refused:?}");
    for _ in 0..20 {
        let without = connect(address, "localhost", &ours.client()).await.expect_err("nobody");
        assert_eq!(denied(&without), "the peer wants a client certificate");
        let stranger = with(&theirs.identity(&["anna.example"]));
        let stranger = connect(address, "localhost", &stranger).await.expect_err("a stranger");
        assert!(denied(&stranger).starts_with("the peer does not accept our certificate: "), "{stranger:?}");
    }
    counted(&server, |counters| counters.failed == 40).await;
    assert_eq!(server.counters().sessions, 1);
}

#[tokio::test]
async fn a_key_is_checked_within_tls() {
    let ours = Authority::new("ours");
    let demanding = ServerOptions { connection: options(Some(key(1))), ..ServerOptions::default() };
    let (_server, address) = serving(&ours.server(), demanding).await;
    let connect = async |key| {
        farref_tokio::connect_tls(address, "localhost", &ours.client(), Directory::new(), options(key)).await
    };
    calls_work(&connect(Some(key(1))).await.expect("it is the same key")).await;
    assert_eq!(
        connect(Some(key(2))).await.expect_err("it is not"),
        Error::Key(KeyFailure::Refused(KeyRefusal::WrongKey))
    );
    assert_eq!(connect(None).await.expect_err("none"), Error::Key(KeyFailure::Refused(KeyRefusal::KeyWanted)));
}

/// One side speaks TLS and the other does not.
#[tokio::test]
async fn who_does_not_speak_tls_is_told_apart() {
    let ours = Authority::new("ours");
    let (server, address) = serving(&ours.server(), ServerOptions::default()).await;
    let plain = farref_tokio::connect_tcp(address, Directory::new(), Options::default()).await;
    assert_eq!(plain.expect_err("it is TLS"), Error::NoPeer);
    let plain = farref_tokio::connect_tcp(address, Directory::new(), options(Some(key(1)))).await;
    assert_eq!(plain.expect_err("it is TLS"), Error::NoPeer);
    counted(&server, |counters| counters.failed == 2).await;

    let server = Server::new(echo(), ServerOptions::default());
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    let encrypted = connect(address, "localhost", &ours.client()).await.expect_err("it is plain");
    assert_eq!(encrypted, Error::Io(ErrorKind::InvalidData, "the peer does not speak TLS".into()));
    counted(&server, |counters| counters.failed == 1).await;
}

/// Handshakes that were begun and are held open, at each step of theirs, give way; the server is there for others.
#[tokio::test]
async fn half_a_handshake_holds_nobody_up() {
    let ours = Authority::new("ours");
    let limits = ServerOptions { handshakes: 8, ..ServerOptions::default() };
    let (server, address) = serving(&ours.server(), limits).await;
    let hello = client_hello(&ours).await;
    let mut held = Vec::new();
    for part in [&hello[..0], &hello[..5], &hello[..hello.len() / 2], &hello[..]] {
        for _ in 0..8 {
            let mut stream = TcpStream::connect(address).await.expect("it connects");
            stream.write_all(part).await.expect("it writes");
            held.push(stream);
        }
    }
    counted(&server, |counters| counters.accepted == 32).await;
    calls_work(&connect(address, "localhost", &ours.client()).await.expect("an honest client gets in")).await;
    counted(&server, |counters| counters.failed >= 24).await;
    let cut_off = async {
        for stream in &mut held[..24] {
            let mut answer = Vec::new();
            if let Err(error) = stream.read_to_end(&mut answer).await {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
    };
    tokio::time::timeout(PATIENCE, cut_off).await.expect("the oldest gave way");
}

/// A handshake takes no longer than all of it may, TLS included, on either side.
#[tokio::test]
async fn half_a_handshake_ends_in_time() {
    let ours = Authority::new("ours");
    let brief = Options { handshake: Duration::from_millis(100), ..Options::default() };
    let (server, address) =
        serving(&ours.server(), ServerOptions { connection: brief.clone(), ..ServerOptions::default() }).await;
    let mut stream = TcpStream::connect(address).await.expect("it connects");
    stream.write_all(&client_hello(&ours).await).await.expect("it writes");
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "it was not cut");
    counted(&server, |counters| counters.failed == 1).await;

    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let given_up = farref_tokio::connect_tls(address, "localhost", &ours.client(), Directory::new(), brief).await;
    let expected = Error::Io(ErrorKind::TimedOut, "nobody answered within 100ms".into());
    assert_eq!(given_up.expect_err("nobody answers"), expected);
}

#[test]
fn faults_of_files_are_named() {
    let ours = Authority::new("ours");
    let (chain, key) = ours.files(&["localhost"]);
    let (other_chain, _) = ours.files(&["other"]);
    let none = ours.folder.path().join("none");
    let fault = |chain: &Path, key: &Path| match Identity::from_files(chain, key) {
        Ok(identity) => TlsServer::new(&identity, None).expect_err("it is no identity"),
        Err(error) => error,
    };
    let in_file = |path: &Path, why: &str| TlsError::File { path: path.into(), why: why.into() };
    assert_eq!(fault(&key, &key), in_file(&key, "no certificate is in there"));
    assert_eq!(fault(&chain, &chain), in_file(&chain, "no private key is in there"));
    assert_eq!(fault(&none, &key), in_file(&none, "No such file or directory (os error 2)"));
    assert!(matches!(fault(&other_chain, &key), TlsError::Identity(_)));
    assert!(Authorities::from_file(&key).is_err_and(|error| error.to_string().contains("no certificate")));
    let broken = ours.folder.path().join("broken");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").expect("a file");
    let error = Authorities::from_file(&broken).expect_err("it is broken").to_string();
    assert!(error.contains("it is no PEM file"), "{error}");
}

/// The first bytes that a client sends.
async fn client_hello(ours: &Authority) -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let client = ours.client();
    let connecting = tokio::spawn(async move { connect(address, "localhost", &client).await });
    let (mut stream, _) = listener.accept().await.expect("it comes");
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.expect("a record");
    let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.expect("all of it");
    drop(stream);
    assert!(connecting.await.expect("it ends").is_err());
    [&head[..], &body].concat()
}
