//! Connections to the peers that URLs name.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use farref_pipe::{ChildProcess, Connection, Directory, Error, Options, Resuming, SshTarget, end_children};

use crate::args::ClientArgs;
use crate::exit::Failure;
use crate::socket::{self, Socket};
use crate::url::{PeerUrl, PipeCommand, SocketUrl};
use crate::watch::Watch;

/// A peer, and what leads to it.
pub struct Peer {
    way: Way,
}

enum Way {
    Process(ChildProcess),
    Socket(Socket),
}

/// Connects to the peer of a URL. No child outlives this process, whatever it is doing: an `ssh` that asks for a password
/// would go on asking.
pub fn connect(url: &PeerUrl, args: &ClientArgs, watch: &Watch) -> Result<Peer, Failure> {
    let ClientArgs { security, resume, .. } = args;
    security.check_for(url)?;
    let resume = resume.map(Resuming::within);
    watch.at_end(end_children);
    watch.stage(|| "no answer to the handshake".into());
    let way = watch.waiting(|| match url {
        PeerUrl::Pipe(command) => {
            let PipeCommand { program, args } = command.clone();
            let start = move || {
                let mut process = Command::new(&program);
                process.args(&args);
                process
            };
            let options = Options { resume: resume.clone(), ..pipe_options(watch) };
            Ok(Way::Process(ChildProcess::spawn_with(start, Directory::new(), options)?))
        }
        PeerUrl::Ssh(target) => {
            let target = match &resume {
                Some(resuming) => target.clone().or_command(format!(
                    "{} --park {}",
                    SshTarget::DEFAULT_COMMAND,
                    resuming.park.as_secs_f64().ceil()
                )),
                None => target.clone(),
            };
            let options = Options { resume: resume.clone(), ..options(watch) };
            Ok(Way::Process(ChildProcess::ssh(&target, Directory::new(), options)?))
        }
        PeerUrl::Socket(url) => {
            let options = match url {
                SocketUrl::Serial(_) => line_options(watch),
                _ => options(watch),
            };
            let options = Options { resume: resume.clone(), ..options };
            socket::connect(url, security, options).map(Way::Socket)
        }
    });
    way.map(|way| Peer { way })
}

impl Peer {
    /// The session.
    pub fn connection(&self) -> &Connection {
        match &self.way {
            Way::Process(process) => process.connection(),
            Way::Socket(socket) => socket.connection(),
        }
    }

    /// An error of the session, with what the process that leads to the peer has to say about it.
    pub fn explain(&self, error: Error) -> Error {
        match &self.way {
            Way::Process(process) => process.explain(error),
            Way::Socket(_) => error,
        }
    }
}

/// A limit of the user's is the only one, even if it is a long one.
fn options(watch: &Watch) -> Options {
    let options = Options::default();
    let handshake = watch.limit().map_or(options.handshake, |limit| limit.saturating_add(options.handshake));
    Options { handshake, ..options }
}

/// What came instead of a peer tells most of what is wrong with a line: it is told just before the limit of the user's.
fn line_options(watch: &Watch) -> Options {
    let options = Options::default();
    let handshake = watch.limit().map_or(options.handshake, |limit| limit.mul_f64(0.9));
    Options { handshake, ..options }
}

/// The program may be one that asks somebody for a password, if there is a terminal to ask on.
fn pipe_options(watch: &Watch) -> Options {
    let options = options(watch);
    let can_ask = File::options().read(true).write(true).open("/dev/tty").is_ok();
    let asking = if can_ask { Duration::from_secs(120) } else { Duration::ZERO };
    Options { handshake: options.handshake.saturating_add(asking), ..options }
}
