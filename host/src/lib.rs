//! What farref's backends for hosts share: values, objects and proxies, and the session that calls go over.
//!
//! Programs use one of the backends, which give these names again: `farref_pipe` for pipes and child processes, blocking, and
//! `farref_tokio` for sockets. An [`Object`] can be served by any of them, and a [`Proxy`] of one be handed on by another.
//! There is no IO here and no runtime. Who writes a backend gives it a [`Driver`] and moves bytes with a [`Link`].
//!
//! - [`Connection`]: one session; cloned and shared by threads and tasks.
//! - [`Proxy`]: an object of the peer; dropping the last clone releases it. [`Promise`]: what a call will answer; calls can
//!   be made on it at once. [`Remote`] has what can be done with both, blocking, and [`AsyncRemote`] as futures.
//! - [`Object`]: what one's own objects implement, or [`AsyncObject`]; [`Function`], [`AsyncFunction`], [`List`], [`Map`] and
//!   [`Directory`] are ready.
//! - [`Value`]: what travels; immutable values by value, objects by [`Reference`].

mod args;
mod budget;
mod call;
mod cancel;
mod connection;
mod container;
mod core;
mod current;
mod end;
mod error;
mod function;
mod line;
mod link;
mod many;
mod object;
mod objects;
mod opening;
mod pool;
mod proxy;
mod remote;
mod resume;
mod serve;
mod shared;
#[cfg(test)]
mod tests;
mod time;
mod translate;
mod value;
mod weak;

pub use args::{Args, Positional};
pub use budget::{Budget, Charge};
pub use cancel::{Cancelled, Cancelling, is_cancelled};
pub use connection::{Connection, Options, Traffic};
pub use container::{List, Map};
pub use current::callers_max_message;
pub use end::{Lost, Mourners};
pub use error::Error;
pub use farref_core::dispatch::MemberKind;
pub use farref_core::key::{BadKey, Failure as KeyFailure, Key, Refusal as KeyRefusal};
pub use farref_core::message::{CloseCode, DownReason, ErrorCode, Op};
pub use farref_core::session::{CallError, Ended, Tables};
pub use function::{AsyncFunction, Function};
pub use line::{Line, Sent};
pub use link::{Driver, Link, Output, Received, Taken, WeakLink};
pub use object::{Action, Async, AsyncObject, Directory, Member, Object, Runs};
pub use opening::{Begun, Opening, session_gone};
pub use pool::{Threads, Work};
pub use proxy::{Pending, Promise, Proxy};
pub use remote::{AsyncItems, AsyncRemote, Items, Remote};
pub use resume::{LinkState, PeerIdentity, Resuming};
pub use time::{Deadline, Timed};
pub use value::{Exception, Reference, Value};
