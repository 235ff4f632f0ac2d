//! `farref ls`: what a peer offers by name.

use std::io::{self, Write};

use farref_pipe::Remote;

use crate::args::LsArgs;
use crate::exit::{Failure, written};
use crate::peer;
use crate::show;

/// Lists the named roots with their documentation.
pub fn run(args: &LsArgs) -> Result<(), Failure> {
    let url = args.url.parse().map_err(Failure::usage)?;
    let peer = peer::connect(&url)?;
    let members = peer.connection().root().describe().map_err(|error| peer.explain(error))?;
    let lines = show::members(&members);
    written(io::stdout().write_all(lines.as_bytes()))
}
