//! farref: use another process's objects from the command line.

mod args;
mod call;
mod completions;
mod demo;
mod eval;
mod exit;
mod expr;
mod files;
mod get;
mod json;
mod listen;
mod local;
mod log;
mod look;
mod ls;
mod peer;
mod ports;
mod progress;
mod put;
mod roots;
mod security;
mod serve;
mod show;
mod socket;
mod transfer;
mod url;
mod visible;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use args::{Command, CommandLine};
use exit::Exit;

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Call(args) => call::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Put(args) => put::run(&args),
        Command::Ports(args) => ports::run(&args),
        Command::Completions { shell } => completions::run(shell),
        Command::Key(args) => security::write_new_key(&args),
        Command::Demo => demo::run(),
    };
    match result {
        Ok(()) => Exit::Done.into(),
        Err(failure) => failure.report().into(),
    }
}
