//! The conformance suite over the sockets of a [`Server`], and over any other stream that it serves; on both runtimes.

#[cfg(feature = "tls")]
#[path = "common/authority.rs"]
mod authority;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use farref_conformance::suite::{self, Transport, fixtures};
use farref_tokio::{Counters, LineOptions, Peer, Server, ServerOptions, Stream};
use tokio::runtime::Handle;

#[tokio::test(flavor = "multi_thread")]
async fn tcp() {
    let server = server();
    let address = server.listen_tcp("127.0.0.1:0").await.expect("it listens");
    let connect = move || {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        Ok(transport(socket))
    };
    judge("tcp", &server, connect).await;
}

#[tokio::test]
async fn unix() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let server = server();
    server.listen_unix(&path).await.expect("it listens");
    judge("unix", &server, move || UnixStream::connect(&path).map(transport)).await;
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread")]
async fn tls() {
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let authority = authority::Authority::new("ours");
    let (chain, key) = authority.files(&["localhost"]);
    let identity = farref_tokio::Identity::from_files(chain, key).expect("an identity");
    let server = server();
    let tls = farref_tokio::TlsServer::new(&identity, None).expect("a server");
    let address = server.listen_tls("127.0.0.1:0", &tls).await.expect("it listens");

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path()).expect("a certificate")).expect("it is one");
    let config =
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let config = config.expect("TLS 1.3").with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = move || {
        let encrypted = async {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await
        };
        bridge(Handle::current().block_on(encrypted)?)
    };
    judge("tls", &server, within_runtime(connect)).await;
}

/// On a line all cases are that are not about what a line has frames for.
#[tokio::test(flavor = "multi_thread")]
async fn serial() {
    let server = server();
    let accepting = server.clone();
    // The cases want messages that are longer than what one would send there.
    let line = LineOptions { max_message: 64 * 1024, ..LineOptions::at(100_000_000) };
    let connect = move || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        accepting.serve_line(far, Peer::named("the suite"), line.clone()).map_err(io::Error::other)?;
        bridge(near).map(suite::over_line)
    };
    judge_those("serial", &server, within_runtime(connect), |case| !suite::is_of_stream(case)).await;
}

#[tokio::test]
async fn stream() {
    let server = server();
    let accepting = server.clone();
    let connect = move || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        accepting.serve(far, Peer::named("the suite"));
        bridge(near)
    };
    judge("stream", &server, within_runtime(connect)).await;
}

fn server() -> Server {
    Server::new(fixtures::directory(), ServerOptions { connection: fixtures::options(), ..ServerOptions::default() })
}

/// Runs every case; no session may outlive its own.
async fn judge(name: &'static str, server: &Server, connect: impl FnMut() -> io::Result<Transport> + Send + 'static) {
    judge_those(name, server, connect, |_| true).await;
}

/// The same with some of the cases.
async fn judge_those(
    name: &'static str,
    server: &Server,
    connect: impl FnMut() -> io::Result<Transport> + Send + 'static,
    selected: fn(&str) -> bool,
) {
    let run = move || suite::run_selected(name, connect, selected);
    let report = tokio::task::spawn_blocking(run).await.expect("it does not panic");
    report.save().expect("the report is written");
    println!("{report}");
    assert!(report.is_green(), "{report}");
    // Some cases leave calls behind that wait for a minute, as the fixtures promise; their sessions are over all the same.
    let is_over = async {
        while !is_over(server.counters()) {
            tokio::task::yield_now().await;
        }
    };
    let is_over = tokio::time::timeout(Duration::from_secs(30), is_over).await;
    assert!(is_over.is_ok(), "{:?}", server.counters());
}

fn is_over(counters: Counters) -> bool {
    counters.open == 0 && counters.accepted == counters.sessions + counters.failed
}

/// The same, for what needs the runtime of this test on a thread that is not one of its own.
fn within_runtime<T>(mut work: impl FnMut() -> T) -> impl FnMut() -> T {
    let runtime = Handle::current();
    move || {
        let _entered = runtime.enter();
        work()
    }
}

/// A transport over a stream of tokio's, whatever it is.
fn bridge(mut stream: impl Stream) -> io::Result<Transport> {
    let (near, far) = UnixStream::pair()?;
    far.set_nonblocking(true)?;
    let mut far = tokio::net::UnixStream::from_std(far)?;
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut far, &mut stream).await });
    Ok(transport(near))
}

/// A transport over a blocking socket.
fn transport<S: Socket>(socket: S) -> Transport {
    let socket = Arc::new(socket);
    Transport::new(Half(socket.clone(), None), Half(socket.clone(), Some(Shutdown::Write)))
        .with_guard(Half(socket, Some(Shutdown::Both)))
}

trait Socket: Send + Sync + 'static {
    fn read(&self, into: &mut [u8]) -> io::Result<usize>;
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    fn shut_down(&self, how: Shutdown);
}

macro_rules! socket {
    ($($socket:ty),+) => {
        $(impl Socket for $socket {
            fn read(&self, into: &mut [u8]) -> io::Result<usize> {
                Read::read(&mut &*self, into)
            }

            fn write(&self, bytes: &[u8]) -> io::Result<usize> {
                Write::write(&mut &*self, bytes)
            }

            fn shut_down(&self, how: Shutdown) {
                let _ = self.shutdown(how);
            }
        })+
    };
}

socket!(TcpStream, UnixStream);

/// A share of a socket, and what is shut down when it is dropped.
struct Half<S: Socket>(Arc<S>, Option<Shutdown>);

impl<S: Socket> Read for Half<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<S: Socket> Write for Half<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Socket> Drop for Half<S> {
    fn drop(&mut self) {
        self.1.into_iter().for_each(|how| self.0.shut_down(how));
    }
}
