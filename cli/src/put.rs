//! `farref put`: a file of this side, copied to the peer.

use farref_pipe::Error;

use crate::args::PutArgs;
use crate::exit::Failure;
use crate::get::far;
use crate::local::Source;
use crate::peer::{self, Peer};
use crate::progress::Progress;
use crate::transfer::Outgoing;
use crate::watch::{self, Limited, Watch};

/// Copies a file there.
pub fn run(args: &PutArgs) -> Result<(), Failure> {
    let url = args.url.parse().map_err(Failure::usage)?;
    let path = match args.path.ends_with('/') {
        true => {
            let name = Source::name(&args.local);
            let name = name.ok_or_else(|| Failure::usage(format!("say what it is to be called in {:?}", args.path)))?;
            format!("{}{name}", args.path)
        }
        false => args.path.clone(),
    };
    let source = Source::open(&args.local)?;
    watch::over(args.client.timeout, Limited::Silence, |watch| {
        let peer = peer::connect(&url, &args.client, watch)?;
        let progress = Progress::new(&path, args.quiet, watch);
        if let Some(size) = source.size {
            progress.size(size);
        }
        copy(&peer, source, &path, &progress, watch)
    })
}

fn copy(peer: &Peer, mut source: Source, path: &str, progress: &Progress, watch: &Watch) -> Result<(), Failure> {
    let unchanged = format!("{path:?} there is as it was");
    let there = |error: farref_pipe::Error| {
        let was_lost = error.ended().is_some();
        let failure = far("write", path, peer.explain(error));
        if was_lost { failure.with(&unchanged) } else { failure }
    };
    let stage = format!("no part of {path:?} was taken on the far side");
    watch.stage(move || stage.clone());
    let mut outgoing = Outgoing::open(peer.connection(), path, source.mode).map_err(there)?;
    loop {
        let part = source.part(outgoing.part()).map_err(|failure| failure.with(&unchanged))?;
        if part.is_empty() {
            break;
        }
        watch.waiting(|| outgoing.send(part)).map_err(there)?;
        progress.copied(outgoing.written());
    }
    let unknown = format!("whether {path:?} there was replaced is not known: no answer");
    watch.stage(move || unknown.clone());
    let mut finish = || {
        let commit = watch.waiting(|| outgoing.commit())?;
        while watch.waiting(|| outgoing.answer())? {
            progress.copied(outgoing.written());
        }
        watch.waiting(|| commit.wait())
    };
    finish().map(drop).map_err(|error| {
        let was_lost = matches!(error, Error::Ended(_));
        let failure = far("write", path, peer.explain(error));
        if was_lost { failure.with("whether it was replaced is not known") } else { failure }
    })
}
