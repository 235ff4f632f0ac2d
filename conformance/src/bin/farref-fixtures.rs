//! Serves the fixtures of the conformance suite.

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use farref_conformance::suite::fixtures;
use farref_pipe::Error;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let served = match arguments.as_slice() {
        ["--stdio"] => serve_stdio(),
        _ => {
            eprintln!("usage: farref-fixtures --stdio");
            return ExitCode::from(2);
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_stdio() -> Result<(), Error> {
    let (input, output) = farref_pipe::take_stdio()?;
    let (over, is_over) = mpsc::channel();
    let output = Output { output, _over: over };
    let served = farref_pipe::open(input, output, fixtures::directory(), fixtures::options());
    let served = served.map(|connection| connection.wait_closed());
    // A Close is on its way; a peer that does not read is not waited for.
    let _ = is_over.recv_timeout(Duration::from_secs(2));
    served.map(|_| ())
}

/// Standard output, which is dropped when all is written.
struct Output {
    output: File,
    _over: mpsc::Sender<()>,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
