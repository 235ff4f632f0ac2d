//! Sessions over streams that were opened here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use farref_core::key::Role;
use farref_host::{Connection, Directory, Error, Link, Options, Threads};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::Instant;
use tracing::Instrument;

use crate::driver::{Carrier, Stream, Tasks};
use crate::key;

/// Starts a session with a server on TCP. `directory` is what it finds.
///
/// # Errors
/// [`Error::Io`] if nobody answers at that address, [`Error::NoPeer`] if who answers is no farref peer, and as [`start`].
pub async fn connect_tcp(
    address: impl ToSocketAddrs,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let patience = Patience::new(&options);
    let stream = patience.within(open_tcp(address)).await?;
    begin(stream, directory, options, patience).await
}

/// As [`connect_tcp`], encrypted. The server has to have a certificate for `server_name`, a DNS name or an IP address.
///
/// # Errors
/// As [`connect_tcp`]; [`Error::Io`] with [`PermissionDenied`](io::ErrorKind::PermissionDenied) if the certificate of the
/// server is no good, or it refuses ours, with [`InvalidInput`](io::ErrorKind::InvalidInput) if nothing can be called
/// `server_name`, with others if there is no TLS with that peer.
#[cfg(feature = "tls")]
pub async fn connect_tls(
    address: impl ToSocketAddrs,
    server_name: &str,
    tls: &crate::TlsClient,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let patience = Patience::new(&options);
    let name = crate::tls::server_name(server_name)?;
    let stream = patience.within(async { tls.connect(name, open_tcp(address).await?).await }).await?;
    begin(stream, directory, options, patience).await
}

/// As [`connect_tcp`], on a Unix socket.
#[cfg(unix)]
pub async fn connect_unix(
    path: impl AsRef<std::path::Path>,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let patience = Patience::new(&options);
    let stream = patience.within(async { Ok(tokio::net::UnixStream::connect(path).await?) }).await?;
    begin(stream, directory, options, patience).await
}

/// Starts a session over any stream and waits for the peer's Hello, at most as long as [`Options::handshake`] says. Either side
/// may begin; but with an [`Options::key`] this is the side that connects, and [`Server::serve`](crate::Server::serve) is the
/// other.
///
/// # Errors
/// [`Error::NoPeer`] if no preamble comes, [`Error::Key`] if the sides do not share a key, [`Error::Ended`] if the session ends
/// before it began, [`Error::Io`] with [`TimedOut`](io::ErrorKind::TimedOut) if the time is up.
pub async fn start(stream: impl Stream, directory: Directory, options: Options) -> Result<Connection, Error> {
    let patience = Patience::new(&options);
    begin(stream, directory, options, patience).await
}

async fn open_tcp(address: impl ToSocketAddrs) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn begin(
    stream: impl Stream,
    directory: Directory,
    options: Options,
    patience: Patience,
) -> Result<Connection, Error> {
    match &options.key {
        None => run(stream, directory, &options, patience).await,
        Some(key) => {
            let stream = patience.within(key::check(stream, Role::Connecting, key)).await?;
            run(stream, directory, &options, patience).await
        }
    }
}

async fn run(
    stream: impl Stream,
    directory: Directory,
    options: &Options,
    patience: Patience,
) -> Result<Connection, Error> {
    let threads = Arc::new(Threads::new(options.serving.into()));
    let (_, connection, carrier) = carry(stream, directory, options, patience, threads);
    tokio::spawn(carrier.run().in_current_span());
    connection.ready().await?;
    Ok(connection)
}

/// A session, and what carries its bytes.
pub(crate) fn carry<S: Stream>(
    stream: S,
    directory: Directory,
    options: &Options,
    patience: Patience,
    threads: Arc<Threads>,
) -> (Link, Connection, Carrier<S>) {
    let tasks = Tasks::new(threads);
    let link = Link::new(directory, options, tasks.clone());
    let connection = link.connection();
    (link.clone(), connection, Carrier::new(stream, link, tasks, options, patience))
}

/// How long a handshake may take from now on, with all that belongs to it: connecting, TLS, the key, Hello.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    limit: Duration,
    end: Option<Instant>,
}

impl Patience {
    pub fn new(options: &Options) -> Self {
        Self { limit: options.handshake, end: Instant::now().checked_add(options.handshake) }
    }

    /// When it is over, if ever.
    pub fn end(self) -> Option<Instant> {
        self.end
    }

    /// One step, if it is done in time.
    pub async fn within<T>(self, step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.end {
            None => step.await,
            Some(end) => tokio::time::timeout_at(end, step).await.unwrap_or_else(|_| Err(self.error())),
        }
    }

    /// That it is over.
    pub fn error(self) -> Error {
        Error::Io(io::ErrorKind::TimedOut, format!("nobody answered within {:?}", self.limit))
    }
}

#[cfg(feature = "tls")]
pub(crate) use crate::tls::fault;

/// What an error of a stream says about the peer, if it does: only one of TLS.
#[cfg(not(feature = "tls"))]
pub(crate) fn fault(_: &io::Error) -> Option<Error> {
    None
}
