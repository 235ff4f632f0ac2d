//! farref measured beside the raw transport. README.md says what is measured and how to read it.
//!
//! - [`cases`]: what is measured, and the bars; [`args`]: the command line.
//! - [`run`] goes through them, [`contest`] has both contestants of a case take turns, [`measure`] times, [`table`] shows.
//! - [`raw`]: a length-prefixed echo; [`farref`]: the same work by calls on objects. [`delay`]: a proxy that delays.
//! - [`references`]: what held references take.
//! - [`server`] starts a server process and asks it what it counted; [`serve`] is that process. [`counts`] counts.

#[cfg(not(unix))]
compile_error!("farref-bench measures Unix sockets, too");

mod affinity;
mod args;
mod cases;
mod contest;
mod counts;
mod delay;
mod farref;
mod measure;
mod raw;
mod references;
mod run;
mod serve;
mod server;
mod table;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

/// What the whole program fails with: it is told to a person and never handled.
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Counts in each thread by itself, so that counting costs next to nothing beside an allocation.
#[global_allocator]
static ALLOCATOR: alloc_tracker::Allocator<std::alloc::System> = alloc_tracker::Allocator::system();

fn main() -> ExitCode {
    let line = args::CommandLine::parse();
    let done = match &line.command {
        Some(args::Command::Serve(args)) => serve::serve(args).map(|()| true),
        None => run::run(&line.bench),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("farref-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
