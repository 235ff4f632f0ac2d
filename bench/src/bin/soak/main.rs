//! Mixed load between two processes over connections that are cut at random, for as long as is wanted: no call is lost, made
//! twice or in doubt, and memory stays what it was. README.md says how to read what this prints.
//!
//! - [`run`] leads: rounds of load, and a quiet point after each, at which everything is looked at.
//! - [`load`]: what the client's tasks do; [`serve`]: the server process, and what it counts.
//! - [`proxy`] is between the two and cuts; [`sample`] looks at memory; [`report`] judges and prints.

#[cfg(not(unix))]
compile_error!("farref-soak is written for Unix");

mod load;
mod proxy;
mod report;
mod run;
mod sample;
mod serve;

use std::alloc::System;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// What the whole program fails with: it is told to a person and never handled.
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Knows how many bytes are live in the whole process.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Load a server over connections that are cut at random, and look whether memory stays flat.
#[derive(Debug, Parser)]
#[command(name = "farref-soak", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    /// For how long
    #[arg(long, default_value = "10", value_parser = minutes, value_name = "N")]
    minutes: Duration,
    /// Of what is random: the cuts, and what the tasks do; drawn from the time if it is not given
    #[arg(long)]
    seed: Option<u64>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The server process
    #[command(hide = true)]
    Serve,
}

fn minutes(word: &str) -> Result<Duration, String> {
    let minutes: f64 = word.parse().map_err(|_| "a number of minutes".to_owned())?;
    let time = Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| "a number of minutes".to_owned())?;
    if time < Duration::from_secs(1) { Err("a second at least".into()) } else { Ok(time) }
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let done = match line.command {
        Some(Command::Serve) => serve::serve().map(|()| true),
        None => {
            let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
            run::run(line.minutes, line.seed.unwrap_or_else(now))
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("farref-soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A task's own random numbers.
struct Random(u64);

impl Random {
    /// Of the seed, and different for each number.
    fn new(seed: u64, number: u64) -> Self {
        // Never 0, and nothing alike for numbers that are.
        Self((seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93) | 1)
    }

    /// Something below `most`.
    fn below(&mut self, most: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % most
    }
}
