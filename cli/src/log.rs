//! What a server tells on standard error of what happens.

use std::io::{self, IsTerminal, Write};
use std::{env, str::FromStr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Warnings, or more if wanted: by `-v`, or by `RUST_LOG` in the form of `farref_tokio=debug`.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let ours = Targets::new().with_target("farref", level);
    let wanted = env::var("RUST_LOG").ok().filter(|text| verbose == 0 && !text.trim().is_empty());
    let targets = match wanted.as_deref().map(Targets::from_str) {
        Some(Ok(targets)) => targets,
        Some(Err(error)) => {
            let _ = writeln!(io::stderr(), "farref: warning: RUST_LOG is not understood: {error}");
            ours
        }
        None => ours,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // There is no other.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
}
