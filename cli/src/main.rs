//! farref: use another process's objects from the command line.

mod args;
mod call;
mod demo;
mod eval;
mod exit;
mod expr;
mod files;
mod json;
mod look;
mod ls;
mod peer;
mod roots;
mod serve;
mod show;
mod url;
mod visible;

use std::process::ExitCode;

use clap::Parser;

use args::{Command, CommandLine};
use exit::Exit;

fn main() -> ExitCode {
    let result = match CommandLine::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Call(args) => call::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Demo => demo::run(),
    };
    match result {
        Ok(()) => Exit::Done.into(),
        Err(failure) => failure.report().into(),
    }
}
