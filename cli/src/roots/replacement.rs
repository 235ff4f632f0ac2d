//! A file that takes another's place, as an object.

use std::borrow::Cow;

use farref_pipe::{Action, Args, Error, Member, MemberKind, Object, Value};

use super::params::Signature;
use super::{count, raised};
use crate::files;

/// Given out by reference; released before it is committed, nothing of it is left.
pub struct Replacement(files::Replacement);

const MEMBERS: &[Member] = &[
    Member::method("write", "adds bytes (or text, as UTF-8), tells how many bytes that was: write(data)"),
    Member::method("commit", "puts it in its place if it has that many bytes, tells how many: commit(size=none)"),
    Member::new("name", MemberKind::Constant, "the path whose place it takes"),
];

const WRITE: Signature = Signature { text: "write(data)", names: &["data"], required: 1 };
const COMMIT: Signature = Signature { text: "commit(size=none)", names: &["size"], required: 0 };

impl Replacement {
    /// One that is served.
    pub fn new(replacement: files::Replacement) -> Self {
        Self(replacement)
    }

    fn method(&self, name: &str, args: Args) -> Result<Value, Error> {
        let done = match name {
            "write" => {
                let mut args = WRITE.bind(args)?;
                match args.value(0) {
                    Value::Bytes(bytes) => self.0.write(&bytes),
                    Value::Str(text) => self.0.write(text.as_bytes()),
                    _ => return Err(args.wrong(0, "bytes or text")),
                }
            }
            "commit" => {
                let size = COMMIT.bind(args)?.count(0)?;
                self.0.commit(size)
            }
            other => return Err(Error::no_such_member(other)),
        };
        done.map(count).map_err(raised)
    }
}

impl Object for Replacement {
    fn members(&self) -> Cow<'_, [Member]> {
        Cow::Borrowed(MEMBERS)
    }

    fn perform(&self, action: Action<'_>, args: Args) -> Result<Value, Error> {
        match action {
            Action::Method(name) => self.method(name, args),
            Action::Get("name") => Ok(self.0.path().into()),
            Action::Text(_) => Ok(format!("<file to replace {:?}>", self.0.path()).into()),
            other => other.unsupported(),
        }
    }
}
