//! Connections to the peers that URLs name.

use std::fs::File;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use farref_pipe::{ChildProcess, Directory, Error, Options, end_children};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::exit::{Exit, Failure};
use crate::url::PeerUrl;

/// A peer, and the process that leads to it.
pub struct Peer {
    process: ChildProcess,
    interrupted: Interrupted,
}

/// Connects to the peer of a URL.
pub fn connect(url: &PeerUrl) -> Result<Peer, Failure> {
    let interrupted = end_children_when_interrupted()
        .map_err(|error| Failure::new(Exit::NoPeer, format!("signals cannot be watched: {error}")))?;
    let process = match url {
        PeerUrl::Pipe(command) => {
            let mut process = Command::new(&command.program);
            ChildProcess::spawn(process.args(&command.args), Directory::new(), pipe_options())
        }
        PeerUrl::Ssh(target) => ChildProcess::ssh(target, Directory::new(), Options::default()),
    };
    match process {
        Ok(process) => Ok(Peer { process, interrupted }),
        Err(error) => {
            interrupted.wait_for_the_end();
            Err(error.into())
        }
    }
}

impl Peer {
    /// The session.
    pub fn connection(&self) -> &farref_pipe::Connection {
        self.process.connection()
    }

    /// An error of the session, with what the process that leads to the peer has to say about it.
    pub fn explain(&self, error: Error) -> Error {
        self.process.explain(error)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Before anything is told of that.
        self.interrupted.wait_for_the_end();
    }
}

/// The program may be one that asks somebody for a password, if there is a terminal to ask on.
fn pipe_options() -> Options {
    let options = Options::default();
    let can_ask = File::options().read(true).write(true).open("/dev/tty").is_ok();
    let asking = if can_ask { Duration::from_secs(120) } else { Duration::ZERO };
    Options { handshake: options.handshake + asking, ..options }
}

/// Whether a signal ends this process.
struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// That the session is lost is no news then: the signal is what this process ends of.
    fn wait_for_the_end(&self) {
        while self.0.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

/// Lets no child outlive this process, whatever it is doing: an `ssh` that asks for a password would go on asking. The
/// process still ends as one that was interrupted, for its shell to see.
fn end_children_when_interrupted() -> io::Result<Interrupted> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Set before anybody can see what else the signal does: on a terminal the child gets it, too.
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            end_children();
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(Interrupted(interrupted))
}
