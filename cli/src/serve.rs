//! `farref serve`: the files of a folder as objects.

use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};
use std::{process, thread};

use farref_pipe::{Connection, Directory, Ended, Options, take_stdio};

use crate::args::ServeArgs;
use crate::exit::{Exit, Failure};
use crate::files::{FileError, Tree};
use crate::roots::{self, Share};

/// Serves until the peer goes away.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        let message = "a program has to be at the other end, not a terminal; try: farref demo";
        return Err(Failure::usage(message));
    }
    // Standard output is the protocol's from here on, whoever prints.
    let (input, output) = take_stdio().map_err(|error| Failure::new(Exit::NoPeer, error.to_string()))?;
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
    let leaving = Leaving::on_signal().map_err(|error| Failure::new(Exit::Local, error.to_string()))?;
    let connection = farref_pipe::open(input, output, directory, Options::default())?;
    share.connected(&connection);
    leaving.connected(&connection);
    let ended = connection.wait_closed();
    share.end();
    match ended {
        Ended::PeerClosed(_) | Ended::LinkLost | Ended::Closed(_) => Ok(()),
        fault => Err(Failure::new(Exit::NoPeer, format!("the session ended: {fault}"))),
    }
}

/// Ends the session, and so the program, when SIGTERM or SIGINT says so.
#[derive(Clone, Default)]
struct Leaving(Arc<OnceLock<Connection>>);

impl Leaving {
    #[cfg(unix)]
    fn on_signal() -> io::Result<Self> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        use signal_hook::iterator::Signals;

        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let leaving = Self::default();
        let told = leaving.clone();
        thread::Builder::new().name("farref-signals".into()).spawn(move || {
            for _ in signals.forever() {
                match told.0.get() {
                    Some(connection) => connection.close(),
                    // Nobody is served yet.
                    None => process::exit(Exit::Done as i32),
                }
            }
        })?;
        Ok(leaving)
    }

    #[cfg(not(unix))]
    fn on_signal() -> io::Result<Self> {
        Ok(Self::default())
    }

    fn connected(&self, connection: &Connection) {
        // It is done once.
        let _ = self.0.set(connection.clone());
    }
}
