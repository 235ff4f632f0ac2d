//! Sessions over streams that were opened here.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use farref_core::key::Role;
use farref_host::{Connection, Directory, Error, Link, Options, Resuming, Threads};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::Instant;
use tracing::Instrument;

use crate::driver::{After, Carrier, OnDrop, Stream, Tasks, keep_time};
use crate::key;

/// Starts a session with a server on TCP. `directory` is what it finds.
///
/// With [`Options::resume`] it connects again when the connection is lost, at the addresses that the name had at first.
///
/// # Errors
/// [`Error::Io`] if nobody answers at that address, [`Error::NoPeer`] if who answers is no farref peer, and as [`start`].
pub async fn connect_tcp(
    address: impl ToSocketAddrs,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let patience = Patience::new(&options);
    let options = over_tcp(options);
    if options.resume.is_none() {
        let stream = patience.within(open_tcp(address)).await?;
        return begin(stream, directory, options, patience).await;
    }
    let addresses = patience.within(resolve(address)).await?;
    begin_again(move || open_any(addresses.clone()), directory, options, patience).await
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
    let options = over_tcp(options);
    if options.resume.is_none() {
        let stream = patience.within(async { tls.connect(name, open_tcp(address).await?).await }).await?;
        return begin(stream, directory, options, patience).await;
    }
    let addresses = patience.within(resolve(address)).await?;
    let tls = tls.clone();
    let open = move || {
        let (tls, name, addresses) = (tls.clone(), name.clone(), addresses.clone());
        async move { tls.connect(name, open_any(addresses).await?).await }
    };
    begin_again(open, directory, options, patience).await
}

/// With what [`Options::patience`] is over TCP, unless they say something else.
pub(crate) fn over_tcp(options: Options) -> Options {
    Options { patience: options.patience.or(Some(PATIENCE)), ..options }
}

/// Longer than a peer that is there is silent, shorter than routers remember a silent connection, even when a Ping is lost.
const PATIENCE: Duration = Duration::from_secs(120);

/// As [`connect_tcp`], on a Unix socket.
#[cfg(unix)]
pub async fn connect_unix(
    path: impl AsRef<std::path::Path>,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error> {
    let path = path.as_ref().to_owned();
    let open = move || {
        let path = path.clone();
        async move { Ok(tokio::net::UnixStream::connect(path).await?) }
    };
    connect_with(open, directory, options).await
}

/// Starts a session over streams that `open` opens: one now, and with [`Options::resume`] another each time that one is lost.
/// The first one has to lead to a session at once; what goes wrong with others is tried again.
///
/// # Errors
/// Those of `open`, and as [`start`].
pub async fn connect_with<S: Stream, F>(
    open: impl Fn() -> F + Send + Sync + 'static,
    directory: Directory,
    options: Options,
) -> Result<Connection, Error>
where
    F: Future<Output = Result<S, Error>> + Send + 'static,
{
    let patience = Patience::new(&options);
    begin_again(open, directory, options, patience).await
}

/// Starts a session over any stream and waits for the peer's Hello, at most as long as [`Options::handshake`] says. Either side
/// may begin; but with an [`Options::key`] this is the side that connects, and [`Server::serve`](crate::Server::serve) is the
/// other. The session ends with the stream: [`Options::resume`] is for those that can be opened again.
///
/// # Errors
/// [`Error::NoPeer`] if no preamble comes, [`Error::Key`] if the sides do not share a key, [`Error::Ended`] if the session ends
/// before it began, [`Error::Io`] with [`TimedOut`](io::ErrorKind::TimedOut) if the time is up.
pub async fn start(stream: impl Stream, directory: Directory, options: Options) -> Result<Connection, Error> {
    let patience = Patience::new(&options);
    begin(stream, directory, Options { resume: None, ..options }, patience).await
}

async fn open_tcp(address: impl ToSocketAddrs) -> Result<TcpStream, Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn open_any(addresses: Arc<[SocketAddr]>) -> Result<TcpStream, Error> {
    open_tcp(&*addresses).await
}

async fn resolve(address: impl ToSocketAddrs) -> Result<Arc<[SocketAddr]>, Error> {
    Ok(tokio::net::lookup_host(address).await?.collect())
}

async fn begin_again<S: Stream, F>(
    open: impl Fn() -> F + Send + Sync + 'static,
    directory: Directory,
    options: Options,
    patience: Patience,
) -> Result<Connection, Error>
where
    F: Future<Output = Result<S, Error>> + Send + 'static,
{
    let stream = patience.within(open()).await?;
    let Some(resuming) = options.resume.clone() else {
        return begin(stream, directory, options, patience).await;
    };
    let key = options.key.clone();
    let open = move || -> Opening {
        let (opening, key) = (open(), key.clone());
        Box::pin(async move {
            let stream = opening.await?;
            Ok(match &key {
                None => Box::new(stream) as Box<dyn Stream>,
                Some(key) => Box::new(key::check(stream, Role::Connecting, key).await?),
            })
        })
    };
    let again = Again { open: Box::new(open), resuming, options: options.clone() };
    match &options.key {
        None => run(stream, directory, &options, patience, Some(again)).await,
        Some(key) => {
            let stream = patience.within(key::check(stream, Role::Connecting, key)).await?;
            run(stream, directory, &options, patience, Some(again)).await
        }
    }
}

async fn begin(
    stream: impl Stream,
    directory: Directory,
    options: Options,
    patience: Patience,
) -> Result<Connection, Error> {
    match &options.key {
        None => run(stream, directory, &options, patience, None).await,
        Some(key) => {
            let stream = patience.within(key::check(stream, Role::Connecting, key)).await?;
            run(stream, directory, &options, patience, None).await
        }
    }
}

async fn run(
    stream: impl Stream,
    directory: Directory,
    options: &Options,
    patience: Patience,
    again: Option<Again>,
) -> Result<Connection, Error> {
    let threads = Arc::new(Threads::new(options.serving.into()));
    let Carried { link, connection, tasks, carrier } = carry(stream, directory, options, patience, threads);
    let carrying = async move {
        let _over = OnDrop(link.clone());
        let mut after = carrier.run().await;
        while let (After::Parked, Some(again)) = (&after, &again) {
            let Some((stream, patience)) = Box::pin(again.connect(&link, &tasks)).await else { return };
            link.resume();
            let carrier = Carrier::new(stream, link.clone(), tasks.clone(), &again.options, patience);
            after = Box::pin(carrier.run()).await;
        }
    };
    tokio::spawn(carrying.in_current_span());
    connection.ready().await?;
    Ok(connection)
}

type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, Error>> + Send>>;

/// What it takes to connect again.
struct Again {
    open: Box<dyn Fn() -> Opening + Send + Sync>,
    resuming: Resuming,
    options: Options,
}

impl Again {
    /// Tries until there is another stream; None if that takes too long, or the session is over.
    async fn connect(&self, link: &Link, tasks: &Tasks) -> Option<(Box<dyn Stream>, Patience)> {
        let trying = async {
            loop {
                let attempt = link.attempt();
                if attempt > self.resuming.attempts {
                    return None;
                }
                tokio::time::sleep(self.resuming.pause(attempt)).await;
                let patience = Patience::new(&self.options);
                match patience.within((self.open)()).await {
                    Ok(stream) => return Some((stream, patience)),
                    Err(error) => {
                        tracing::debug!(attempt, %error, "cannot connect again");
                        link.attempt_failed(error);
                    }
                }
            }
        };
        let left = self.resuming.park.saturating_sub(link.parked_for());
        tokio::select! {
            () = tasks.over() => None,
            never = keep_time(link, tasks) => match never {},
            tried = tokio::time::timeout(left, trying) => tried.ok().flatten(),
        }
    }
}

/// A session, and what carries its bytes.
pub(crate) fn carry<S: Stream>(
    stream: S,
    directory: Directory,
    options: &Options,
    patience: Patience,
    threads: Arc<Threads>,
) -> Carried<S> {
    let tasks = Tasks::new(threads);
    let link = Link::new(directory, options, tasks.clone());
    let carrier = Carrier::new(stream, link.clone(), tasks.clone(), options, patience);
    Carried { connection: link.connection(), link, tasks, carrier }
}

/// See [`carry`].
pub(crate) struct Carried<S> {
    pub link: Link,
    pub connection: Connection,
    pub tasks: Arc<Tasks>,
    pub carrier: Carrier<S>,
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
