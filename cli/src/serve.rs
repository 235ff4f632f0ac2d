//! `farref serve`: the files of a folder as objects.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{process, thread};

use farref_pipe::{Connection, Directory, Ended, LinkState, Options, Resuming, take_stdio};

use crate::args::ServeArgs;
use crate::exit::{Exit, Failure};
use crate::files::{FileError, Tree};
use crate::listen;
use crate::roots::{self, Share};

/// Serves until the peer goes away, or, where many can connect, until a signal comes.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    if args.stdio && io::stdout().is_terminal() {
        let message = "a program has to be at the other end, not a terminal; try: farref demo";
        return Err(Failure::usage(message));
    }
    // Standard output is the protocol's from here on, whoever prints.
    let stdio = args.stdio.then(take_stdio).transpose();
    let stdio = stdio.map_err(|error| Failure::new(Exit::NoPeer, error.to_string()))?;
    let root = args.root.display();
    let tree = Tree::rooted_at(&args.root, args.write).map_err(|error| match error {
        FileError::Os { message, .. } => Failure::usage(format!("cannot serve the folder {root}: {message}")),
        other => Failure::usage(format!("cannot serve the folder {root}: {other}")),
    })?;
    let share = Arc::new(Share::new(tree));
    let mut directory = roots::files(Directory::new(), &share);
    if args.demo {
        directory = roots::demo(directory, &share);
    }
    let session = Session::default();
    let serve_stdio = stdio.map(|(input, output)| {
        let (directory, share, session) = (directory.clone(), share.clone(), session.clone());
        let parks = args.park.is_some();
        let options = Options { resume: args.park.map(Resuming::within), ..Options::default() };
        move || {
            // Nothing, if this only led the peer back to another process.
            let Some(connection) = farref_pipe::open_or_resume(input, output, directory, options)? else {
                return Ok(());
            };
            if parks {
                hush_when_parked(&connection)?;
            }
            share.connected(&connection);
            session.begin(&connection);
            match connection.wait_closed() {
                Ended::PeerClosed(_) | Ended::LinkLost | Ended::Closed(_) => Ok(()),
                fault => Err(Failure::new(Exit::NoPeer, format!("the session ended: {fault}"))),
            }
        }
    });
    let result = match serve_stdio {
        Some(serve_stdio) if args.listen.urls.is_empty() => {
            session
                .end_on_signal(Duration::from_secs(args.listen.grace))
                .map_err(|error| Failure::new(Exit::Local, error.to_string()))?;
            serve_stdio()
        }
        serve_stdio => {
            let result = listen::run(&args.listen, directory, serve_stdio);
            session.end();
            result
        }
    };
    share.end();
    result
}

/// Once the peer is away there is nobody to read what is printed: whoever waits for the end of standard error, as an sshd
/// does, is not to wait for this process. What is printed to standard output goes there, too.
#[cfg(unix)]
fn hush_when_parked(connection: &Connection) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::new(Exit::Local, error.to_string());
    let nothing = File::options().write(true).open("/dev/null").map_err(cannot)?;
    let connection = connection.clone();
    let watching = move || {
        let seen = connection.wait_link_changed(&LinkState::Up, Duration::MAX);
        if matches!(seen, Some(LinkState::Parked { .. })) {
            let _ = rustix::stdio::dup2_stderr(&nothing);
            let _ = rustix::stdio::dup2_stdout(&nothing);
        }
    };
    thread::Builder::new().name("farref-hush".into()).spawn(watching).map(drop).map_err(cannot)
}

/// The session with the peer at standard input and output, once there is one.
#[derive(Clone, Default)]
struct Session(Arc<OnceLock<Connection>>);

impl Session {
    fn begin(&self, connection: &Connection) {
        // It is done once.
        let _ = self.0.set(connection.clone());
    }

    /// Says so to the peer.
    fn end(&self) {
        if let Some(connection) = self.0.get() {
            connection.close();
            connection.wait_closed();
        }
    }

    /// Ends the session, and so the program, when SIGTERM or SIGINT says so: calls that are under way have so much time. A
    /// second signal ends it at once.
    #[cfg(unix)]
    fn end_on_signal(&self, grace: Duration) -> io::Result<()> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::iterator::Signals;

        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let session = self.clone();
        thread::Builder::new().name("farref-signals".into()).spawn(move || {
            let mut drained = None;
            for _ in signals.forever() {
                match session.0.get().cloned() {
                    Some(connection) if drained.is_none() => {
                        drained = Some(thread::spawn(move || connection.drain(grace)));
                    }
                    Some(connection) => connection.close(),
                    // Nobody is served yet.
                    None => process::exit(Exit::Done as i32),
                }
            }
        })?;
        Ok(())
    }

    #[cfg(not(unix))]
    fn end_on_signal(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}
