//! How the program ends: exit codes, and errors on one line.

use std::io::{self, Write};
use std::process::ExitCode;

use farref_pipe::{CallError, Error, ErrorCode};

use crate::expr::Span;
use crate::show;
use crate::visible::one_line;

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  all went well
  1  the remote object raised an exception or refused
  2  wrong usage: options, URL, expression, or a result that does not fit the options
  3  no connection, or it ended, or no answer within the time of --timeout
  4  something of this side could not be read or written: the result, a local file
  130, 143  ended by Ctrl-C or by SIGTERM, as shells tell it";

/// How the program ends. [`EXIT_CODES`] tells users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Done = 0,
    /// The remote object raised or refused.
    Remote = 1,
    /// Options, URL or expression are wrong. (clap uses the same number.)
    Usage = 2,
    /// There is no connection, or not any more, or not in time.
    NoPeer = 3,
    /// Something of this side could not be read or written.
    Local = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program fails.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    /// Lines that point at a place in the expression.
    place: Option<String>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), place: None }
    }

    /// That the command line is wrong.
    pub fn usage(message: impl ToString) -> Self {
        Self::new(Exit::Usage, message.to_string())
    }

    /// With the place in an expression that is at fault.
    #[must_use]
    pub fn at(mut self, span: Span, source: &str) -> Self {
        self.place = Some(span.point_at(source));
        self
    }

    /// With what it is about, in front.
    #[must_use]
    pub fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// With what came of it, behind.
    #[must_use]
    pub fn with(mut self, what: &str) -> Self {
        self.message = format!("{}; {what}", self.message);
        self
    }

    /// What is wrong.
    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Tells the user.
    pub fn report(&self) -> Exit {
        let mut lines = format!("farref: {}\n", one_line(&self.message));
        for line in self.place.iter().flat_map(|place| place.lines()) {
            lines.push_str(&format!("  {line}\n"));
        }
        // Nobody can be told that nobody can be told.
        let _ = io::stderr().write_all(lines.as_bytes());
        self.exit
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::NotMade(CallError::Ended(_) | CallError::NotReady) => Exit::NoPeer,
            Error::Ended(_) | Error::NeverStarted(_) => Exit::NoPeer,
            Error::NoPeer | Error::Io(..) => Exit::NoPeer,
            Error::NotMade(_) => Exit::Usage,
            _ => Exit::Remote,
        };
        match error {
            Error::Raised(exception) => Self::new(exit, show::exception(&exception)),
            error => Self::new(exit, error.to_string()),
        }
    }
}

/// An error of writing the result. That nobody reads on (as with `| head`) is none.
pub fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Local, format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// Whether the expression is at fault, so that it helps to point at the place.
pub fn blames_expression(error: &Error) -> bool {
    match error {
        Error::Refused(code, _) => {
            matches!(*code, ErrorCode::BadArguments | ErrorCode::NoSuchMember | ErrorCode::Unsupported)
        }
        Error::NotMade(reason) => !matches!(reason, CallError::Ended(_) | CallError::NotReady),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_documented() {
        for exit in [Exit::Done, Exit::Remote, Exit::Usage, Exit::NoPeer, Exit::Local] {
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", exit as u8)), "{exit:?}");
        }
    }
}
