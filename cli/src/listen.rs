//! `farref serve --listen`: one directory for all who connect.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::{ArgAction, Args, ValueHint};
use farref_pipe::Directory;
use farref_tokio::{Authorities, LineOptions, Options, Resuming, Server, ServerOptions, TlsServer};
use tokio::runtime::Runtime;

use crate::exit::{Exit, Failure};
use crate::log;
use crate::security::{self, unusable};
use crate::url::{PeerUrl, Place, SerialUrl, SocketUrl};

/// Where to listen, and who gets in.
#[derive(Args, Debug)]
#[command(next_help_heading = "Listening")]
pub struct ListenArgs {
    /// URLs of sockets.
    #[arg(long = "listen", value_name = "URL", help = LISTEN_HELP)]
    pub urls: Vec<String>,
    /// Let in only who knows the key in this file, which "farref key" makes [env: FARREF_KEY_FILE]
    #[arg(long, value_name = "FILE", requires = "urls", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// The certificate of this server (PEM, with those between it and its authority)
    #[arg(long, value_name = "FILE", requires_all = ["urls", "cert_key"], value_hint = ValueHint::FilePath)]
    cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", value_hint = ValueHint::FilePath)]
    cert_key: Option<PathBuf>,
    /// Let in over tls: only who has a certificate from the authorities in this PEM file
    #[arg(long, value_name = "FILE", requires = "cert", value_hint = ValueHint::FilePath)]
    client_ca: Option<PathBuf>,
    /// Listen where other machines can connect although there is neither TLS nor a key: anyone gets in, and can be listened to
    #[arg(long, requires = "urls")]
    insecure_let_anyone_in: bool,
    /// How long a session is kept whose connection is lost, for a client that comes back with --resume; 0 is not at all
    #[arg(long, value_name = "SECONDS", requires = "urls", default_value_t = 60)]
    keep: u64,
    /// How many may be connected at a time
    #[arg(long, value_name = "COUNT", requires = "urls", default_value_t = 1024)]
    max_connections: usize,
    /// How long calls may go on that are under way when SIGTERM or Ctrl-C ends the server; a second signal ends it at once
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub grace: u64,
    /// Tell what happens on standard error; more with -vv and -vvv. RUST_LOG says it in detail
    #[arg(short, long, action = ArgAction::Count, requires = "urls")]
    verbose: u8,
}

// Not a comment of the field: brackets are links there.
const LISTEN_HELP: &str = "\
Listen at tcp://[HOST][:PORT], tls://[HOST][:PORT] or unix:PATH, or serve whoever is at the other end of \
serial:PORT[?baud=RATE]; may be given several times. Without a host only programs of this machine get there; port 0 \
is any free one. The addresses are told on standard error";

/// Serves until a signal comes, or until `other`, which blocks a thread of its own meanwhile, is over.
pub fn run(
    args: &ListenArgs,
    directory: Directory,
    other: Option<impl FnOnce() -> Result<(), Failure> + Send + 'static>,
) -> Result<(), Failure> {
    log::start(args.verbose);
    let doors = args.doors()?;
    let resume = (args.keep > 0).then(|| Resuming::within(Duration::from_secs(args.keep)));
    let connection = Options { key: security::key(args.key.as_deref())?, resume, ..options().connection };
    let is_locked = connection.key.is_some();
    let server_options = ServerOptions { connection, connections: args.max_connections, ..options() };
    let runtime = Runtime::new().map_err(|error| Failure::new(Exit::NoPeer, error.to_string()))?;
    runtime.block_on(async {
        let mut places = Vec::new();
        for door in doors {
            places.push(door.resolve(is_locked || args.insecure_let_anyone_in).await?);
        }
        let mut signals = Signals::new().map_err(|error| Failure::new(Exit::NoPeer, error.to_string()))?;
        let server = Server::new(directory, server_options);
        for place in places {
            let told = place.listen(&server).await?;
            let _ = writeln!(io::stderr(), "listening on {told}");
        }
        let (over, other_is_over) = tokio::sync::oneshot::channel();
        let is_alone = other.is_none();
        if let Some(other) = other {
            let other = move || drop(over.send(other()));
            let thread = thread::Builder::new().name("farref-stdio".into()).spawn(other);
            thread.map_err(|error| Failure::new(Exit::NoPeer, error.to_string()))?;
        }
        let result = tokio::select! {
            () = signals.next() => Ok(()),
            // It is told even if it panics.
            ended = other_is_over, if !is_alone => ended.unwrap_or(Ok(())),
        };
        tracing::info!("ends");
        tokio::select! {
            () = server.shut_down(Duration::from_secs(args.grace)) => result,
            () = signals.next() => signals.obey(),
        }
    })
}

/// What strangers may use: as the library has it, but for objects, each of which may be an open file.
fn options() -> ServerOptions {
    let defaults = ServerOptions::default();
    ServerOptions { connection: Options { exports: 1024, ..defaults.connection }, ..defaults }
}

impl ListenArgs {
    /// What can be said of where to listen without looking at the network.
    fn doors(&self) -> Result<Vec<Door>, Failure> {
        let mut urls = Vec::new();
        for url in &self.urls {
            match url.parse().map_err(Failure::usage)? {
                PeerUrl::Socket(url) => urls.push(url),
                _ => {
                    return Err(Failure::usage(format!(
                        "nobody can listen at {url}; tcp:, tls:, unix: and serial: can be used"
                    )));
                }
            }
        }
        let is_tls = |url: &SocketUrl| matches!(url, SocketUrl::Tls(_));
        let tls = match (&self.cert, &self.cert_key) {
            (Some(_), _) if !urls.iter().any(is_tls) => return Err(Failure::usage("--cert is for tls: URLs")),
            (Some(chain), Some(key)) => {
                let clients = self.client_ca.as_ref().map(Authorities::from_file).transpose().map_err(unusable)?;
                let identity = security::identity(chain, key)?;
                Some(TlsServer::new(&identity, clients.as_ref()).map_err(unusable)?)
            }
            _ => None,
        };
        let door = |url| match (url, &tls) {
            (SocketUrl::Tcp(place), _) => Ok(Door::Tcp(place)),
            (SocketUrl::Tls(place), Some(tls)) => Ok(Door::Tls(place, tls.clone())),
            (SocketUrl::Tls(_), None) => Err(Failure::usage("tls: needs --cert and --cert-key")),
            (SocketUrl::Unix(path), _) => Ok(Door::Unix(path)),
            (SocketUrl::Serial(port), _) => Ok(Door::Serial(port)),
        };
        urls.into_iter().map(door).collect()
    }
}

/// Somewhere to listen.
enum Door {
    Tcp(Place),
    Tls(Place, TlsServer),
    Unix(PathBuf),
    Serial(SerialUrl),
}

/// The same, with addresses for names, and nothing to be said against it.
enum Found {
    Tcp(Place, Vec<SocketAddr>),
    Tls(Place, Vec<SocketAddr>, TlsServer),
    Unix(PathBuf),
    Serial(SerialUrl),
}

impl Door {
    /// An error if anyone could get in there, and may not.
    async fn resolve(self, may_be_open: bool) -> Result<Found, Failure> {
        match self {
            Self::Unix(path) => Ok(Found::Unix(path)),
            Self::Serial(port) => Ok(Found::Serial(port)),
            Self::Tls(place, tls) => {
                let addresses = addresses("tls", &place).await?;
                Ok(Found::Tls(place, addresses, tls))
            }
            Self::Tcp(place) => {
                let addresses = addresses("tcp", &place).await?;
                // ::ffff:127.0.0.1 is loopback, too.
                let is_near = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
                if !may_be_open && !addresses.iter().all(is_near) {
                    return Err(Failure::usage(format!(
                        "tcp://{place} can be reached from other machines: use tls: or --key, \
                         or say --insecure-let-anyone-in"
                    )));
                }
                Ok(Found::Tcp(place, addresses))
            }
        }
    }
}

async fn addresses(scheme: &str, place: &Place) -> Result<Vec<SocketAddr>, Failure> {
    let found = tokio::net::lookup_host((&*place.host, place.port)).await;
    found.map(Iterator::collect).map_err(|error| cannot_listen(&format!("{scheme}://{place}"), &error))
}

impl Found {
    /// Listens, and tells where.
    async fn listen(self, server: &Server) -> Result<String, Failure> {
        match self {
            Self::Tcp(place, addresses) => match server.listen_tcp(&*addresses).await {
                Ok(address) => Ok(format!("tcp://{address}")),
                Err(error) => Err(cannot_listen(&format!("tcp://{place}"), &error)),
            },
            Self::Tls(place, addresses, tls) => match server.listen_tls(&*addresses, &tls).await {
                Ok(address) => Ok(format!("tls://{address}")),
                Err(error) => Err(cannot_listen(&format!("tls://{place}"), &error)),
            },
            Self::Serial(port) => {
                let url = port.to_string();
                match server.listen_serial(port.path, LineOptions::at(port.baud)).await {
                    Ok(()) => Ok(url),
                    Err(error) => Err(cannot_listen(&url, &error)),
                }
            }
            Self::Unix(path) => {
                let url = format!("unix:{}", path.display());
                match server.listen_unix(&path).await {
                    Ok(()) => Ok(url),
                    Err(error) => Err(cannot_listen(&url, &error)),
                }
            }
        }
    }
}

fn cannot_listen(url: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::NoPeer, format!("cannot listen on {url}: {error}"))
}

/// The signals that end a server.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    last: i32,
}

impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, last: 0 })
    }

    async fn next(&mut self) {
        use signal_hook::consts::{SIGINT, SIGTERM};
        self.last = tokio::select! {
            _ = self.interrupt.recv() => SIGINT,
            _ = self.terminate.recv() => SIGTERM,
        };
    }

    /// Ends the program as the last one does that nobody heeds.
    fn obey(&self) -> ! {
        let _ = signal_hook::low_level::emulate_default_handler(self.last);
        std::process::exit(128 + self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(host: &str, may_be_open: bool) -> Result<(), String> {
        let place = Place { host: host.into(), port: 1 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let found = runtime.block_on(Door::Tcp(place).resolve(may_be_open));
        found.map(drop).map_err(|failure| failure.message().to_owned())
    }

    /// Nothing is bound to find out.
    #[test]
    fn what_others_can_reach_is_locked_or_said_to_be_open() {
        for near in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "localhost"] {
            assert_eq!(resolved(near, false), Ok(()), "{near}");
        }
        for far in ["0.0.0.0", "::", "::ffff:0.0.0.0", "192.0.2.1", "fe80::1"] {
            let refused = resolved(far, false).expect_err(far);
            assert!(refused.contains("can be reached from other machines"), "{refused}");
            assert_eq!(resolved(far, true), Ok(()), "{far}");
        }
    }
}
