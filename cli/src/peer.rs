//! Connections to the peers that URLs name.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use farref_pipe::{ChildProcess, Connection, Directory, Error, Options, end_children};

use crate::exit::Failure;
use crate::url::PeerUrl;
use crate::watch::Watch;

/// A peer, and the process that leads to it.
pub struct Peer {
    process: ChildProcess,
}

/// Connects to the peer of a URL. No child outlives this process, whatever it is doing: an `ssh` that asks for a password
/// would go on asking.
pub fn connect(url: &PeerUrl, watch: &Watch) -> Result<Peer, Failure> {
    watch.at_end(end_children);
    watch.stage(|| "no answer to the handshake".into());
    let process = watch.waiting(|| match url {
        PeerUrl::Pipe(command) => {
            let mut process = Command::new(&command.program);
            ChildProcess::spawn(process.args(&command.args), Directory::new(), pipe_options(watch))
        }
        PeerUrl::Ssh(target) => ChildProcess::ssh(target, Directory::new(), options(watch)),
    });
    Ok(Peer { process: process? })
}

impl Peer {
    /// The session.
    pub fn connection(&self) -> &Connection {
        self.process.connection()
    }

    /// An error of the session, with what the process that leads to the peer has to say about it.
    pub fn explain(&self, error: Error) -> Error {
        self.process.explain(error)
    }
}

/// A limit of the user's is the only one, even if it is a long one.
fn options(watch: &Watch) -> Options {
    let options = Options::default();
    let handshake = watch.limit().map_or(options.handshake, |limit| limit.saturating_add(options.handshake));
    Options { handshake, ..options }
}

/// The program may be one that asks somebody for a password, if there is a terminal to ask on.
fn pipe_options(watch: &Watch) -> Options {
    let options = options(watch);
    let can_ask = File::options().read(true).write(true).open("/dev/tty").is_ok();
    let asking = if can_ask { Duration::from_secs(120) } else { Duration::ZERO };
    Options { handshake: options.handshake.saturating_add(asking), ..options }
}
