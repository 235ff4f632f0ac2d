//! Sessions over streams that were opened here.

use std::sync::Arc;

use farref_host::{Connection, Directory, Error, Link, Options, Threads};
use tokio::net::{TcpStream, ToSocketAddrs};
use tracing::Instrument;

use crate::driver::{Carrier, Stream, Tasks};

/// Starts a session with a server on TCP. `directory` is what it finds.
///
/// # Errors
/// [`Error::Io`] if nobody answers at that address, [`Error::NoPeer`] if who answers is no farref peer, and as [`start`].
pub async fn connect_tcp(
    address: impl ToSocketAddrs,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let stream = within(&options, TcpStream::connect(address)).await?;
    stream.set_nodelay(true)?;
    start(stream, directory, options).await
}

/// As [`connect_tcp`], on a Unix socket.
#[cfg(unix)]
pub async fn connect_unix(
    path: impl AsRef<std::path::Path>,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let stream = within(&options, tokio::net::UnixStream::connect(path)).await?;
    start(stream, directory, options).await
}

/// Starts a session over any stream and waits for the peer's Hello, at most as long as [`Options::handshake`] says. Either side
/// may begin.
///
/// # Errors
/// [`Error::NoPeer`] if no preamble comes, [`Error::Ended`] if the session ends before it began, [`Error::Io`] with
/// [`TimedOut`](std::io::ErrorKind::TimedOut) if the time is up.
pub async fn start(stream: impl Stream, directory: Directory, options: Options) -> Result<Connection, Error> {
    let threads = Arc::new(Threads::new(options.serving.into()));
    let (_, connection, carrier) = carry(stream, directory, &options, threads);
    tokio::spawn(carrier.run().in_current_span());
    connection.ready().await?;
    Ok(connection)
}

/// A session, and what carries its bytes.
pub(crate) fn carry<S: Stream>(
    stream: S,
    directory: Directory,
    options: &Options,
    threads: Arc<Threads>,
) -> (Link, Connection, Carrier<S>) {
    let tasks = Tasks::new(threads);
    let link = Link::new(directory, options, tasks.clone());
    let connection = link.connection();
    (link.clone(), connection, Carrier::new(stream, link, tasks, options))
}

/// A stream, if it is there in time.
pub(crate) async fn within<T>(options: &Options, opened: impl Future<Output = std::io::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(options.handshake, opened).await {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(timed_out(options)),
    }
}

pub(crate) fn timed_out(options: &Options) -> Error {
    Error::Io(std::io::ErrorKind::TimedOut, format!("nobody answered within {:?}", options.handshake))
}
