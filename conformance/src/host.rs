//! The host that the suite's fixtures are written for: one place to name it.

pub(crate) use farref_pipe::{
    Action, Args, CallError, Directory, Error, ErrorCode, Exception, Function, Member, MemberKind, Object, Op, Options,
    Proxy, Reference, Remote, Value,
};
