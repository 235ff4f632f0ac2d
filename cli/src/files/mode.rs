//! How a file is opened: Python's mode strings.

use super::error::FileError;
use std::fmt;
use std::str::FromStr;

/// A valid mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// What is done with the file when it is opened.
    pub access: Access,
    /// `+`: both reading and writing.
    pub update: bool,
    /// `b`: bytes instead of text.
    pub binary: bool,
}

/// The letter of which each mode has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `a`: every write goes to the end.
    Append,
    /// `x`: the file may not exist yet.
    Create,
    /// `r`: the file must exist.
    Read,
    /// `w`: the file is emptied or made.
    Write,
}

impl Mode {
    /// Whether the file may be read.
    pub fn reads(self) -> bool {
        self.update || self.access == Access::Read
    }

    /// Whether the file may be written.
    pub fn writes(self) -> bool {
        self.update || self.access != Access::Read
    }
}

impl FromStr for Mode {
    type Err = FileError;

    /// The letters may come in any order, each at most once. The texts of the errors are Python's.
    fn from_str(mode: &str) -> Result<Self, FileError> {
        let known = |c| "rwaxbt+".contains(c);
        let twice = |(at, c): (usize, char)| mode[at..].chars().skip(1).any(|next| next == c);
        if !mode.chars().all(known) || mode.char_indices().any(twice) {
            // A mode is the peer's text, of any length.
            let shown: String = mode.chars().take(20).collect();
            return Err(FileError::Value(format!("invalid mode: {}", quoted(&shown))));
        }
        if mode.contains('b') && mode.contains('t') {
            let message = "can't have text and binary mode at once";
            return Err(FileError::Value(message.into()));
        }
        let mut accesses = mode.chars().filter_map(|c| match c {
            'a' => Some(Access::Append),
            'r' => Some(Access::Read),
            'w' => Some(Access::Write),
            'x' => Some(Access::Create),
            _ => None,
        });
        match (accesses.next(), accesses.next()) {
            (Some(access), None) => Ok(Self { access, update: mode.contains('+'), binary: mode.contains('b') }),
            (Some(_), Some(_)) => {
                Err(FileError::Value("must have exactly one of create/read/write/append mode".into()))
            }
            (None, _) => Err(FileError::Value(
                "Must have exactly one of create/read/write/append mode and at most one plus".into(),
            )),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Append => "a",
            Access::Create => "x",
            Access::Read => "r",
            Access::Write => "w",
        };
        let binary = if self.binary { "b" } else { "" };
        let update = if self.update { "+" } else { "" };
        write!(f, "{access}{binary}{update}")
    }
}

/// The text in single quotes, with nothing in it that would upset a terminal.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.escape_debug())
}
