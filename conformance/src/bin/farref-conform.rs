//! Runs the conformance suite against a program that serves the fixtures on its standard input and output.

use std::process::{Command, ExitCode};
use std::time::Duration;

use farref_conformance::suite::{self, Transport};

const USAGE: &str = "\
usage: farref-conform [--list] [--only TEXT] [--patience SECONDS] [--] COMMAND [ARGUMENT...]

Starts COMMAND afresh for each case and speaks farref over its standard input and output. It has to serve the
objects that conformance/FIXTURES.md promises. Exits with 1 if a case failed.

  --list              the ids of the cases
  --only TEXT         only the cases with TEXT in their id: --only REL- runs those about release
  --patience SECONDS  how long one case may take, 30 if not given
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let mut only = String::new();
    let mut patience = 30;
    while let Some(option) = arguments.next_if(|argument| argument.starts_with('-')) {
        match (option.as_str(), arguments.peek()) {
            ("--", _) => break,
            ("--list", _) => {
                suite::cases().for_each(|case| println!("{}", case.id));
                return ExitCode::SUCCESS;
            }
            ("--only", Some(_)) => only = arguments.next().unwrap_or_default(),
            ("--patience", Some(seconds)) => match seconds.parse() {
                Ok(seconds) => {
                    patience = seconds;
                    arguments.next();
                }
                Err(_) => return usage(),
            },
            ("--help" | "-h", _) => {
                print!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            _ => return usage(),
        }
    }
    let Some(program) = arguments.next() else { return usage() };
    let words: Vec<String> = arguments.collect();
    let connect = || Transport::spawn(Command::new(&program).args(&words));
    let report = suite::run_within(Duration::from_secs(patience), &program, connect, |id| id.contains(&only));
    println!("{report}");
    if report.is_green() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}
