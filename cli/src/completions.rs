//! `farref completions`: what a shell needs to complete this program's command lines.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::args::CommandLine;
use crate::exit::{Failure, written};

/// Prints it.
pub fn run(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(shell, &mut CommandLine::command(), "farref", &mut script);
    written(io::stdout().write_all(&script))
}
