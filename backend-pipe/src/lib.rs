//! farref over stdin and stdout, child processes, `ssh` and any `Read + Write` pair: blocking, plain threads, no async
//! runtime.
//!
//! A program that serves an object on its stdin and stdout:
//!
//! ```no_run
//! use farref_pipe::{Directory, Function, Options, Value};
//!
//! let directory = Directory::new().with("greet", "says hello", Function::inline(|args| {
//!     let name = args.get(0).and_then(Value::as_str).unwrap_or("you").to_owned();
//!     Ok(Value::from(format!("hello {name}")))
//! }));
//! let (input, output) = farref_pipe::take_stdio()?;
//! farref_pipe::open_fds(input, output, directory, Options::default())?.wait_closed();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! and one that uses it, over one round trip for each `wait`:
//!
//! ```no_run
//! use farref_pipe::{ChildProcess, Directory, Options, Remote};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let child = ChildProcess::spawn(&mut std::process::Command::new("greeter"), Directory::new(), Options::default())?;
//! let greeting = child.connection().root().invoke("greet", ["world"])?;
//! assert_eq!(greeting.as_str(), Some("hello world"));
//! # Ok(())
//! # }
//! ```
//!
//! [`ChildProcess::ssh`] is the same with a program on another machine.
//!
//! - [`Connection`]: one session; cloned and shared by threads.
//! - [`Proxy`]: an object of the peer; dropping the last clone releases it. [`Promise`]: what a call will answer; calls can
//!   be made on it at once. [`Remote`] has what can be done with both.
//! - [`Object`]: what one's own objects implement; [`Function`], [`List`], [`Map`] and [`Directory`] are ready.
//! - [`Value`]: what travels; immutable values by value, objects by [`Reference`].

mod again;
mod child;
mod connection;
#[cfg(unix)]
mod park;
mod process;
mod ssh;
mod stdio;
#[cfg(unix)]
mod unix;

pub use child::ChildProcess;
pub use connection::open;
#[cfg(unix)]
pub use connection::open_fds;
pub use farref_host::*;
#[cfg(unix)]
pub use park::open_or_resume;
pub use process::end_children;
pub use ssh::{Ssh, SshTarget, SshTargetError};
#[cfg(unix)]
pub use stdio::take_stdio;
pub use stdio::{ReadFn, WriteFn};
