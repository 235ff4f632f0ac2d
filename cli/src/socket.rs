//! Sessions with the peers of `tcp:`, `tls:`, `unix:` and `serial:` URLs.

use farref_pipe::{Connection, Directory, Error, Options};
use farref_tokio::LineOptions;
use tokio::runtime::{Builder, Runtime};

use crate::exit::{Exit, Failure};
use crate::security::SecurityArgs;
use crate::url::SocketUrl;

/// A session, and the thread that carries its bytes while the program waits for answers.
pub struct Socket {
    connection: Connection,
    runtime: Option<Runtime>,
}

/// Connects to the peer of a URL.
pub fn connect(url: &SocketUrl, security: &SecurityArgs, options: Options) -> Result<Socket, Failure> {
    // What a line is may not be known to who has put a key into the environment.
    let key = if matches!(url, SocketUrl::Serial(_)) { None } else { security.key()? };
    let options = Options { key, ..options };
    let tls = match url {
        SocketUrl::Tls(_) => Some(security.tls()?),
        SocketUrl::Tcp(_) | SocketUrl::Unix(_) | SocketUrl::Serial(_) => None,
    };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::NoPeer, error.to_string()))?;
    let connecting = async {
        let none = Directory::new();
        match (url, &tls) {
            (SocketUrl::Tls(place), Some(tls)) => {
                let address = (&*place.host, place.port);
                farref_tokio::connect_tls(address, &place.host, tls, none, options).await
            }
            (SocketUrl::Tcp(place) | SocketUrl::Tls(place), _) => {
                farref_tokio::connect_tcp((&*place.host, place.port), none, options).await
            }
            (SocketUrl::Unix(path), _) => farref_tokio::connect_unix(path, none, options).await,
            (SocketUrl::Serial(port), _) => {
                farref_tokio::connect_serial(&port.path, none, options, LineOptions::at(port.baud)).await
            }
        }
    };
    match runtime.block_on(connecting) {
        Ok(connection) => Ok(Socket { connection, runtime: Some(runtime) }),
        Err(error) => {
            // The name may still be looked up.
            runtime.shutdown_background();
            Err(Failure::new(Exit::NoPeer, format!("{url}: {}", with_hint(&error))))
        }
    }
}

/// What the user can do about it, where that is clear.
fn with_hint(error: &Error) -> String {
    use farref_tokio::{KeyFailure, KeyRefusal};
    match error {
        Error::Key(KeyFailure::Refused(KeyRefusal::KeyWanted)) => format!("{error}: --key names it"),
        _ => error.to_string(),
    }
}

impl Socket {
    /// The session.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The peer is told before the program ends.
        self.connection.close();
        self.connection.wait_closed();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
