//! What can go wrong with files, in the words of Python's exceptions, so that any caller can tell the
//! cases apart by a name that it knows.

use super::mode::quoted;
use std::fmt;
use std::io;

/// An error of a file or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// `OSError` or one of its subclasses.
    Os {
        /// The name of the exception.
        exception: &'static str,
        /// The error number of the operating system. Where a rule of ours refuses, the one that an
        /// operating system would have used.
        errno: i32,
        /// What is wrong.
        message: String,
        /// The path as the caller gave it.
        path: String,
    },
    /// `UnicodeDecodeError`: a text file holds what is not UTF-8.
    Decode {
        /// The bytes that are not UTF-8, alone.
        object: Vec<u8>,
        /// What is wrong with them, and where in which file they stand.
        reason: String,
    },
    /// `TypeError`
    Type(&'static str),
    /// `UnsupportedOperation` of Python's module `io`: the mode of the file forbids it.
    Unsupported(&'static str),
    /// `ValueError`
    Value(String),
}

/// An argument of an exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorArg {
    /// Bytes.
    Bytes(Vec<u8>),
    /// An integer.
    Int(i64),
    /// A string.
    Str(String),
}

// The same on every Unix and in the C library of Windows.
const EIO: i32 = 5;
const EACCES: i32 = 13;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const EFBIG: i32 = 27;

impl FileError {
    /// The name of the exception, as Python has it.
    pub fn exception(&self) -> &'static str {
        match self {
            Self::Os { exception, .. } => exception,
            Self::Decode { .. } => "UnicodeDecodeError",
            Self::Type(_) => "TypeError",
            Self::Unsupported(_) => "io.UnsupportedOperation",
            Self::Value(_) => "ValueError",
        }
    }

    /// The arguments that Python's exception of this name is made with: errno, text and path for an
    /// `OSError`; codec, bytes, start, end and reason for a `UnicodeDecodeError`; else the text.
    pub fn args(&self) -> Vec<ErrorArg> {
        match self {
            Self::Os { errno, message, path, .. } => {
                vec![ErrorArg::Int((*errno).into()), ErrorArg::Str(message.clone()), ErrorArg::Str(path.clone())]
            }
            Self::Decode { object, reason } => vec![
                ErrorArg::Str("utf-8".into()),
                ErrorArg::Bytes(object.clone()),
                ErrorArg::Int(0),
                // At most 3 bytes.
                ErrorArg::Int(object.len() as i64),
                ErrorArg::Str(reason.clone()),
            ],
            Self::Type(message) | Self::Unsupported(message) => {
                vec![ErrorArg::Str((*message).into())]
            }
            Self::Value(message) => vec![ErrorArg::Str(message.clone())],
        }
    }

    /// The error number, where there is one.
    #[cfg(test)]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Os { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    pub(super) fn from_io(error: &io::Error, path: &str) -> Self {
        let Some(errno) = error.raw_os_error() else {
            return match error.kind() {
                // The one error of this kind that the operating system has not numbered is the
                // sandbox's: something on the way led out.
                io::ErrorKind::PermissionDenied => Self::escape(path),
                _ => Self::os("OSError", EIO, error.to_string(), path),
            };
        };
        let exception = match error.kind() {
            io::ErrorKind::AlreadyExists => "FileExistsError",
            io::ErrorKind::Interrupted => "InterruptedError",
            io::ErrorKind::IsADirectory => "IsADirectoryError",
            io::ErrorKind::NotADirectory => "NotADirectoryError",
            io::ErrorKind::NotFound => "FileNotFoundError",
            io::ErrorKind::PermissionDenied => "PermissionError",
            io::ErrorKind::WouldBlock => "BlockingIOError",
            _ => "OSError",
        };
        let message = error.to_string();
        let suffix = format!(" (os error {errno})");
        let message = message.strip_suffix(&suffix).unwrap_or(&message);
        Self::os(exception, errno, message, path)
    }

    pub(super) fn escape(path: &str) -> Self {
        let message = "the path leads out of the served folder";
        Self::os("PermissionError", EACCES, message, path)
    }

    pub(super) fn read_only(path: &str) -> Self {
        let message = "the folder is served read-only";
        Self::os("PermissionError", EACCES, message, path)
    }

    pub(super) fn not_regular(path: &str) -> Self {
        let message = "not a regular file (a FIFO, a socket or a device), refused";
        Self::os("PermissionError", EACCES, message, path)
    }

    pub(super) fn is_a_directory(path: &str) -> Self {
        Self::os("IsADirectoryError", EISDIR, "Is a directory", path)
    }

    pub(super) fn invalid_argument(path: &str) -> Self {
        Self::os("OSError", EINVAL, "Invalid argument", path)
    }

    /// A result above the limit that the caller set.
    pub(super) fn too_large(message: impl Into<String>, path: &str) -> Self {
        Self::os("OSError", EFBIG, message, path)
    }

    pub(super) fn closed() -> Self {
        Self::Value("file is closed".into())
    }

    /// Bytes that are not UTF-8: `bytes` starts with them, at byte `at` of the file.
    pub(super) fn decode(bytes: &[u8], error_len: Option<usize>, at: u64, path: &str) -> Self {
        let reason = match (error_len, bytes.first()) {
            (None, _) => "unexpected end of data",
            (Some(_), Some(0xc2..=0xf4)) => "invalid continuation byte",
            _ => "invalid start byte",
        };
        let len = error_len.unwrap_or(bytes.len()).min(bytes.len());
        Self::Decode { object: bytes[..len].to_vec(), reason: format!("{reason} (at byte {at} of {})", quoted(path)) }
    }

    fn os(exception: &'static str, errno: i32, message: impl Into<String>, path: &str) -> Self {
        Self::Os { exception, errno, message: message.into(), path: path.to_owned() }
    }
}

impl fmt::Display for FileError {
    /// The last line that Python shows of such an exception.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.exception())?;
        match self {
            Self::Os { errno, message, path, .. } => write!(f, "[Errno {errno}] {message}: {}", quoted(path)),
            Self::Decode { object, reason } => match object.as_slice() {
                [byte] => write!(f, "'utf-8' codec can't decode byte {byte:#04x} in position 0: {reason}"),
                bytes => write!(
                    f,
                    "'utf-8' codec can't decode bytes in position 0-{}: {reason}",
                    bytes.len().saturating_sub(1)
                ),
            },
            Self::Type(message) | Self::Unsupported(message) => f.write_str(message),
            Self::Value(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for FileError {}
