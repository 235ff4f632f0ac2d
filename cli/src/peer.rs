//! Connections to the peers that URLs name.

use std::process::Command;

use farref_pipe::{ChildProcess, Directory, Options};

use crate::exit::Failure;
use crate::url::PeerUrl;

/// Connects to the peer of a URL.
pub fn connect(url: &PeerUrl) -> Result<ChildProcess, Failure> {
    let PeerUrl::Pipe(command) = url;
    let mut process = Command::new(&command.program);
    Ok(ChildProcess::spawn(process.args(&command.args), Directory::new(), Options::default())?)
}
