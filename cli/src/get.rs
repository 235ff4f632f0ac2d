//! `farref get`: a file of the peer, copied here.

use std::io::{self, IsTerminal};

use farref_pipe::Error;

use crate::args::GetArgs;
use crate::exit::Failure;
use crate::local::{Destination, Output};
use crate::peer::{self, Peer};
use crate::progress::Progress;
use crate::transfer::Incoming;
use crate::watch::{self, Limited, Watch};

/// Copies a file here.
pub fn run(args: &GetArgs) -> Result<(), Failure> {
    let url = args.url.parse().map_err(Failure::usage)?;
    let destination = Destination::find(args.local.as_deref(), &args.path)?;
    watch::over(args.client.timeout, Limited::Silence, |watch| {
        let peer = peer::connect(&url, &args.client, watch)?;
        let quiet = args.quiet || matches!(destination, Destination::Standard) && io::stdout().is_terminal();
        let progress = Progress::new(&args.path, quiet, watch);
        copy(&peer, &args.path, destination, &progress, watch)
    })
}

fn copy(peer: &Peer, path: &str, destination: Destination, progress: &Progress, watch: &Watch) -> Result<(), Failure> {
    let there = |error| far("read", path, peer.explain(error));
    let asked = format!("open({path:?}) was not answered");
    watch.stage(move || asked.clone());
    let mut incoming = watch.waiting(|| Incoming::open(peer.connection(), path)).map_err(there)?;
    // The first part before anything is done here: only it tells whether there is such a file.
    let mut part = watch.waiting(|| incoming.part()).map_err(there)?;
    if let Some(size) = incoming.size() {
        progress.size(size);
    }
    let reading = format!("no more of {path:?} came");
    watch.stage(move || reading.clone());
    let mut output = destination.create(incoming.mode(), watch)?;
    let mut copied = 0;
    while let Some(bytes) = part {
        if !output.write(&bytes).map_err(|failure| unchanged(failure, &output))? {
            return Ok(());
        }
        copied += bytes.len() as u64;
        progress.copied(copied);
        part = watch.waiting(|| incoming.part()).map_err(|error| unchanged(there(error), &output))?;
    }
    output.finish()
}

/// With what an incomplete copy means for the file that it would have replaced.
fn unchanged(failure: Failure, output: &Output) -> Failure {
    match output.replaces() {
        Some(path) => failure.with(&format!("{} here is as it was", path.display())),
        None => failure,
    }
}

/// An error of the peer, or of the way there.
pub fn far(what: &str, path: &str, error: Error) -> Failure {
    let is_folder = error.exception().is_some_and(|exception| exception.name == "IsADirectoryError");
    let failure = Failure::from(error).about(&format!("cannot {what} {path:?} on the far side"));
    if is_folder { failure.with("get and put copy one file") } else { failure }
}
