//! An open file as an object.

use std::borrow::Cow;
use std::sync::Arc;

use farref_pipe::{Action, Args, Error, Member, MemberKind, Object, Op, Reference, Value};

use super::params::Signature;
use super::{Share, count, raised};
use crate::files::{Data, DataRef, OpenFile};

/// Given out by reference; released, it is closed.
#[derive(Clone)]
pub struct File {
    open: Arc<OpenFile>,
    share: Arc<Share>,
}

const MEMBERS: &[Member] = &[
    Member::method("read", "so many characters (bytes in binary mode), or all that are left: read(n=-1)"),
    Member::method("readline", "the next line with its end; empty at the end of the file: readline()"),
    Member::method("write", "writes text (bytes in binary mode), tells how much that was: write(data)"),
    Member::method("seek", "moves to a byte from start, position or end (0, 1, 2): seek(offset, whence=0)"),
    Member::method("tell", "the position in bytes: tell()"),
    Member::method("truncate", "cuts or extends the file, to its position if not told: truncate(size=none)"),
    Member::method("flush", "does nothing, since nothing is held back: flush()"),
    Member::method("close", "closes the file, as letting go of it does: close()"),
    Member::new("name", MemberKind::Constant, "the path it was opened by"),
    Member::new("mode", MemberKind::Constant, "the mode it was opened in"),
    Member::new("closed", MemberKind::Readable, "whether it is closed"),
];

const READ: Signature = Signature { text: "read(n=-1)", names: &["n"], required: 0 };
const READLINE: Signature = Signature { text: "readline()", names: &[], required: 0 };
const WRITE: Signature = Signature { text: "write(data)", names: &["data"], required: 1 };
const SEEK: Signature = Signature { text: "seek(offset, whence=0)", names: &["offset", "whence"], required: 1 };
const TELL: Signature = Signature { text: "tell()", names: &[], required: 0 };
const TRUNCATE: Signature = Signature { text: "truncate(size=none)", names: &["size"], required: 0 };
const FLUSH: Signature = Signature { text: "flush()", names: &[], required: 0 };
const CLOSE: Signature = Signature { text: "close()", names: &[], required: 0 };

impl File {
    /// A file that is served.
    pub fn new(open: OpenFile, share: Arc<Share>) -> Self {
        Self { open: Arc::new(open), share }
    }

    fn method(&self, name: &str, args: Args) -> Result<Value, Error> {
        let limit = self.share.limit();
        match name {
            "read" => {
                let wanted = READ.bind(args)?.integer(0)?;
                // As in Python, anything below 0 means all.
                let wanted = wanted.and_then(|wanted| u64::try_from(wanted).ok());
                self.open.read(wanted, limit).map(data)
            }
            "readline" => {
                READLINE.bind(args)?;
                let nothing = || if self.open.mode().binary { Value::Bytes(Vec::new()) } else { Value::from("") };
                self.open.next_line(limit).map(|line| line.map_or_else(nothing, data))
            }
            "write" => {
                let mut args = WRITE.bind(args)?;
                let written = match args.value(0) {
                    Value::Str(text) => self.open.write(DataRef::Text(&text)),
                    Value::Bytes(bytes) => self.open.write(DataRef::Bytes(&bytes)),
                    _ => return Err(args.wrong(0, "text or bytes")),
                };
                written.map(count)
            }
            "seek" => {
                let mut args = SEEK.bind(args)?;
                let offset = args.integer(0)?.ok_or_else(|| args.wrong(0, "an integer within 64 bits"))?;
                self.open.seek(offset, args.integer(1)?.unwrap_or(0)).map(count)
            }
            "tell" => {
                TELL.bind(args)?;
                self.open.tell().map(count)
            }
            "truncate" => {
                let size = TRUNCATE.bind(args)?.count(0)?;
                self.open.truncate(size).map(count)
            }
            "flush" => {
                FLUSH.bind(args)?;
                self.open.flush().map(|()| Value::None)
            }
            "close" => {
                CLOSE.bind(args)?;
                self.open.close();
                Ok(Value::None)
            }
            _ => return Err(Error::unsupported(Op::Call)),
        }
        .map_err(raised)
    }

    fn attribute(&self, name: &str) -> Result<Value, Error> {
        match name {
            "name" => Ok(Value::from(self.open.path())),
            "mode" => Ok(Value::from(self.open.mode().to_string())),
            "closed" => Ok(Value::Bool(self.open.is_closed())),
            method => match MEMBERS.iter().find(|member| member.name == method) {
                Some(member) => Ok(Reference::local(Method { file: self.clone(), member }).into()),
                None => Err(Error::no_such_member(method)),
            },
        }
    }

    fn text(&self) -> String {
        let state = if self.open.is_closed() { "closed file" } else { "file" };
        format!("<{state} {:?}, mode {:?}>", self.open.path(), self.open.mode().to_string())
    }
}

impl Object for File {
    fn members(&self) -> Cow<'_, [Member]> {
        Cow::Borrowed(MEMBERS)
    }

    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        match action {
            Action::Method(name) => self.method(name, args),
            Action::Get(name) => self.attribute(name),
            Action::Iterate => Ok(Reference::local(Lines(self.clone())).into()),
            Action::Text(_) => Ok(self.text().into()),
            other => other.unsupported(),
        }
    }
}

/// A method that was asked for without calling it.
struct Method {
    file: File,
    member: &'static Member,
}

impl Object for Method {
    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        match action {
            Action::Call => self.file.method(&self.member.name, args),
            Action::Text(_) => Ok(format!("<method {} of {}>", self.member.name, self.file.text()).into()),
            other => other.unsupported(),
        }
    }
}

/// The lines from the file's position on; reading them moves it.
struct Lines(File);

impl Object for Lines {
    fn perform(&self, action: Action<'_>, _: Args) -> Result<Value, Error> {
        /// What a line takes in a message besides its bytes, at most.
        const HEAD: usize = 8;
        match action {
            Action::Next(wanted) => {
                let limit = self.0.share.limit();
                // A quarter of the message for heads is enough for all but the shortest lines.
                let most = wanted.min(limit / 4 / HEAD).max(1);
                let lines = self.0.open.lines(most, limit.saturating_sub(most * HEAD)).map_err(raised)?;
                Ok(Value::Tuple(lines.into_iter().map(data).collect()))
            }
            Action::Text(_) => Ok(format!("<lines of {}>", self.0.text()).into()),
            other => other.unsupported(),
        }
    }
}

fn data(data: Data) -> Value {
    match data {
        Data::Bytes(bytes) => Value::Bytes(bytes),
        Data::Text(text) => Value::Str(text),
    }
}
