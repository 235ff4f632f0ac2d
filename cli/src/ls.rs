//! `farref ls`: what a peer offers by name.

use std::io::{self, Write};

use farref_pipe::Remote;

use crate::args::LsArgs;
use crate::exit::{Failure, written};
use crate::peer;
use crate::show;
use crate::watch::{self, Limited};

/// Lists the named roots with their documentation.
pub fn run(args: &LsArgs) -> Result<(), Failure> {
    let url = args.url.parse().map_err(Failure::usage)?;
    watch::over(args.client.timeout, Limited::Whole, |watch| {
        let peer = peer::connect(&url, &args.client, watch)?;
        watch.stage(|| "what the peer offers was not answered".into());
        let members = peer.connection().root().describe().map_err(|error| peer.explain(error))?;
        watch.answered();
        let lines = show::members(&members);
        written(io::stdout().write_all(lines.as_bytes()))
    })
}
