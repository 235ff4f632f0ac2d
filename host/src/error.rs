//! What can go wrong with a call.

use std::{fmt, io};

use farref_core::key;
use farref_core::message::{DownReason, ErrorCode};
use farref_core::session::{CallError, Ended};

use crate::value::{Exception, Value};

/// Why a call failed, and whose fault it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The object raised an exception.
    Raised(Box<Exception>),
    /// The peer refused the call: the code says why and whose fault it is, the values say more.
    ///
    /// An object that lets one of these through from a call of its own raises a `RuntimeError`: its own call has started.
    Refused(ErrorCode, Vec<Value>),
    /// What an object says that refuses a call, before any effect. Its caller gets [`Error::Refused`].
    Refuse(ErrorCode, Vec<Value>),
    /// The call could not be made.
    NotMade(CallError),
    /// Its [deadline](crate::Deadline) has passed, or that of the call that it was part of: it was stopped or never started, or
    /// nobody waits for it any more.
    DeadlineExceeded,
    /// The session is over; whether the call took effect is unknown.
    Ended(Ended),
    /// The session is over, and the call has had no effect: its message has not got to the peer, or was never sent.
    NeverStarted(Ended),
    /// What was read is no farref peer: no preamble within the first 64 KiB, or before the end.
    NoPeer,
    /// The check of the shared key failed, or the peer wants one: see [`Options::key`](crate::Options::key).
    Key(key::Failure),
    /// The connection could not be set up.
    Io(io::ErrorKind, String),
    /// Something of another connection, or a promise, stands where it cannot; or what the peer gave is not what was asked for.
    Misplaced(&'static str),
}

impl Error {
    /// An exception with one text as its argument.
    pub fn raise(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::raise_with(name, vec![Value::Str(text.into())])
    }

    /// An exception with these arguments.
    pub fn raise_with(name: impl Into<String>, args: Vec<Value>) -> Self {
        Self::Raised(Box::new(Exception { name: name.into(), args, text: None, traceback: None }))
    }

    /// That the arguments do not fit, and what would.
    pub fn bad_arguments(expected: impl Into<String>) -> Self {
        Self::Refuse(ErrorCode::BadArguments, vec![Value::Str(expected.into())])
    }

    /// That there is no such member.
    pub fn no_such_member(name: impl Into<Value>) -> Self {
        Self::Refuse(ErrorCode::NoSuchMember, vec![name.into()])
    }

    /// That the object does not do this.
    pub fn unsupported(op: farref_core::message::Op) -> Self {
        Self::Refuse(ErrorCode::Unsupported, vec![Value::Int(op.number() as i64)])
    }

    /// That it is not allowed.
    pub fn denied(text: impl Into<String>) -> Self {
        Self::Refuse(ErrorCode::AccessDenied, vec![Value::Str(text.into())])
    }

    /// A refusal as its caller sees it.
    pub(crate) fn seen_by_caller(self) -> Self {
        match self {
            Self::Refuse(code, values) => Self::Refused(code, values),
            other => other,
        }
    }

    /// Why the session is over, if it is that.
    pub fn ended(&self) -> Option<Ended> {
        match self {
            Self::Ended(ended) | Self::NeverStarted(ended) | Self::NotMade(CallError::Ended(ended)) => Some(*ended),
            _ => None,
        }
    }

    /// Why the object that was called is down, if that is the reason.
    pub fn down(&self) -> Option<DownReason> {
        match self {
            Self::NotMade(CallError::Revoked(reason)) => Some(*reason),
            Self::Refused(ErrorCode::Revoked, values) => values.first().and_then(reason),
            _ => None,
        }
    }

    /// Whether the call may have had an effect. If not, it can be made again, of another session if this is over.
    pub fn may_have_started(&self) -> bool {
        match self {
            Self::Raised(_) | Self::Ended(_) | Self::DeadlineExceeded => true,
            Self::Refused(code, _) => !matches!(
                *code,
                ErrorCode::NoSuchObject
                    | ErrorCode::NoSuchMember
                    | ErrorCode::Unsupported
                    | ErrorCode::BadArguments
                    | ErrorCode::AccessDenied
                    | ErrorCode::Overloaded
                    | ErrorCode::Broken
                    | ErrorCode::NotKept
                    | ErrorCode::TooDeep
                    | ErrorCode::NoSuchAnswer
                    | ErrorCode::Revoked
            ),
            Self::Refuse(..)
            | Self::NotMade(_)
            | Self::NeverStarted(_)
            | Self::NoPeer
            | Self::Key(_)
            | Self::Io(..)
            | Self::Misplaced(_) => false,
        }
    }

    /// The exception, if it is one.
    pub fn exception(&self) -> Option<&Exception> {
        if let Self::Raised(exception) = self { Some(exception) } else { None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raised(exception) => exception.fmt(out),
            Self::Refused(code, values) | Self::Refuse(code, values) => refused(out, *code, values.first()),
            Self::NotMade(error) => error.fmt(out),
            Self::Ended(ended) | Self::NeverStarted(ended) => ended.fmt(out),
            Self::DeadlineExceeded => out.write_str("the deadline has passed"),
            Self::NoPeer => out.write_str("no farref peer answers there"),
            Self::Key(failure) => failure.fmt(out),
            Self::Io(_, text) => out.write_str(text),
            Self::Misplaced(what) => out.write_str(what),
        }
    }
}

fn reason(value: &Value) -> Option<DownReason> {
    value.as_int().and_then(|number| u8::try_from(number).ok()).map(DownReason::from_number)
}

fn refused(out: &mut fmt::Formatter<'_>, code: ErrorCode, detail: Option<&Value>) -> fmt::Result {
    let number = detail.and_then(Value::as_int);
    match (code, detail.and_then(Value::as_str)) {
        (ErrorCode::NoSuchMember, Some(name)) => write!(out, "no such name: {name}"),
        (ErrorCode::NoSuchMember, None) => write!(out, "no such member: {}", number.unwrap_or(-1)),
        (ErrorCode::NoSuchObject, _) => out.write_str("the object is gone"),
        (ErrorCode::Unsupported, _) => {
            let op = number.and_then(|number| u32::try_from(number).ok()).map(farref_core::message::Op::from_number);
            match op {
                Some(op) => write!(out, "the object does not support {op}"),
                None => out.write_str("the object does not support this"),
            }
        }
        (ErrorCode::BadArguments, Some(expected)) => write!(out, "bad arguments; expected {expected}"),
        (ErrorCode::AccessDenied, Some(text)) => write!(out, "not allowed: {text}"),
        (ErrorCode::ResultTooLarge, _) => match number {
            Some(size @ 1..) => {
                write!(out, "the result of {size} bytes is too large for one message; read it in parts")
            }
            _ => out.write_str("the result is too large for one message; read it in parts"),
        },
        (ErrorCode::Overloaded, _) => out.write_str("the peer is overloaded; try again later"),
        (ErrorCode::Revoked, _) => match detail.and_then(reason) {
            Some(reason) => write!(out, "{reason}"),
            None => out.write_str("the object was withdrawn by its owner"),
        },
        (ErrorCode::Cancelled, _) => out.write_str("cancelled"),
        (ErrorCode::NotKept, _) => out.write_str("the value was not kept for the next step; wait for it first"),
        (code, Some(text)) => write!(out, "{code}: {text}"),
        (code, None) => write!(out, "{code}"),
    }
}

impl std::error::Error for Error {}

impl From<key::Failure> for Error {
    fn from(failure: key::Failure) -> Self {
        match failure {
            key::Failure::NoPeer => Self::NoPeer,
            failure => Self::Key(failure),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind(), error.to_string())
    }
}
