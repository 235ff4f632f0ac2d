//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cases::{Case, Kind, Transport};

/// Measure farref beside the raw transport.
#[derive(Debug, Parser)]
#[command(name = "farref-bench", version, args_conflicts_with_subcommands = true)]
pub struct CommandLine {
    /// What to measure.
    #[command(flatten)]
    pub bench: BenchArgs,
    /// The other roles that this program plays.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to measure.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// With both processes on one CPU: what the software itself costs
    #[arg(long)]
    pub pinned: bool,
    /// With both processes wherever the system puts them; without either flag both are measured
    #[arg(long)]
    pub unpinned: bool,
    /// Only this case; may be given several times
    #[arg(long, value_name = "CASE")]
    pub case: Vec<Case>,
    /// Only this transport; may be given several times
    #[arg(long, value_name = "TRANSPORT")]
    pub transport: Vec<Transport>,
    /// Shorter rounds: for a look, not for a comparison
    #[arg(long)]
    pub quick: bool,
    /// Measure what has a bar, pinned, and exit with 1 if one is missed
    #[arg(long, conflicts_with_all = ["pinned", "unpinned"])]
    pub check: bool,
}

/// The other roles of this program.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The server process of a measurement
    #[command(hide = true)]
    Serve(ServeArgs),
}

/// What a server process serves.
#[derive(Args, Debug)]
pub struct ServeArgs {
    /// What answers.
    #[arg(long)]
    pub kind: Kind,
    /// Over what.
    #[arg(long)]
    pub transport: Transport,
    /// A folder for sockets; the one named `control` is there already.
    #[arg(long)]
    pub folder: PathBuf,
}
