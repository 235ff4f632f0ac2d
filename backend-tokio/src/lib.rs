//! farref over TCP, Unix sockets, TLS, serial lines and any other tokio stream.
//!
//! A server that publishes a function:
//!
//! ```no_run
//! use farref_tokio::{Directory, Function, Server, ServerOptions, Value};
//!
//! # async fn run() -> Result<(), farref_tokio::Error> {
//! let directory = Directory::new().with("greet", "says hello", Function::inline(|args| {
//!     let name = args.get(0).and_then(Value::as_str).unwrap_or("you").to_owned();
//!     Ok(Value::from(format!("hello {name}")))
//! }));
//! let server = Server::new(directory, ServerOptions::default());
//! server.listen_tcp("127.0.0.1:10101").await?;
//! server.closed().await;
//! # Ok(())
//! # }
//! ```
//!
//! and a client, over one round trip:
//!
//! ```no_run
//! use farref_tokio::{Directory, Options, Remote};
//!
//! # async fn run() -> Result<(), farref_tokio::Error> {
//! let connection = farref_tokio::connect_tcp("127.0.0.1:10101", Directory::new(), Options::default()).await?;
//! let greeting = connection.root().invoke("greet", ["world"]).await?;
//! assert_eq!(greeting.as_str(), Some("hello world"));
//! # Ok(())
//! # }
//! ```
//!
//! [`connect_tls`] and [`Server::listen_tls`] are the same, encrypted. With an [`Options::key`] both sides have to know it before a
//! session begins. SECURITY.md says what each of them gives.
//!
//! [`start_line`], [`connect_serial`] and [`Server::serve_line`] are for lines that may lose, change and repeat bytes: serial
//! ports, that of an emulator, radios.
//!
//! A [`Connection`] is cloned and shared by tasks and threads; both runtimes of tokio will do. Dropping a [`Proxy`] releases
//! its object, dropping a future cancels its call. One task carries the bytes of a connection, so that many messages go out in
//! one system call; objects that [run inline](Runs::Inline) are served by it, [async ones](AsyncObject) by tasks, all others by
//! threads.

// With TLS and ports, which can be left out.
#![cfg_attr(not(all(feature = "serial", feature = "tls")), allow(rustdoc::broken_intra_doc_links))]

mod connect;
mod driver;
mod first;
mod key;
mod line;
mod parked;
#[cfg(feature = "serial")]
mod port;
mod server;
#[cfg(feature = "tls")]
mod tls;
#[cfg(unix)]
mod unix;

#[cfg(feature = "tls")]
pub use connect::connect_tls;
#[cfg(unix)]
pub use connect::connect_unix;
pub use connect::{connect_tcp, connect_with, start};
pub use driver::Stream;
pub use farref_host::{
    Action, Args, Async, AsyncFunction, AsyncItems as Items, AsyncObject, AsyncRemote as Remote, BadKey, Budget,
    CallError, Cancelled, Cancelling, CloseCode, Connection, Deadline, Directory, DownReason, Ended, Error, ErrorCode,
    Exception, Function, Key, KeyFailure, KeyRefusal, LinkState, List, Lost, Map, Member, MemberKind, Mourners, Object,
    Op, Options, PeerIdentity, Pending, Positional, Promise, Proxy, Reference, Resuming, Runs, Tables, Timed, Traffic,
    Value, callers_max_message, is_cancelled,
};
pub use line::{LineOptions, connect_line, start_line};
#[cfg(feature = "serial")]
pub use port::{SerialPortInfo, UsbInfo, connect_serial, serial_ports};
pub use server::{Counters, Peer, PeerAddress, Server, ServerOptions, Validator};
#[cfg(feature = "tls")]
pub use tls::{Authorities, Certificate, Identity, TlsClient, TlsError, TlsServer};
