//! `farref serve`: the files of a folder as objects.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use farref_pipe::{Directory, Ended, Options, take_stdio};

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
    let connection = farref_pipe::open(input, output, directory, Options::default())?;
    share.connected(&connection);
    let ended = connection.wait_closed();
    share.end();
    match ended {
        Ended::PeerClosed(_) | Ended::LinkLost | Ended::Closed(_) => Ok(()),
        fault => Err(Failure::new(Exit::NoPeer, format!("the session ended: {fault}"))),
    }
}
