//! farref on microcontrollers: sessions over embassy-net's TCP, over serial lines, and over any `embedded-io-async` stream that
//! loses nothing. No heap, no `unsafe`; buffers are the program's own, sized by const generics.
//!
//! - A [`Connection`] is the memory of one session at a time. It stays in one place as long as the program runs.
//! - A [`Service`] is what that connection serves: objects, of which some have names. A [`Table`] is the simplest.
//! - An [`Endpoint`] is the two together, to be carried over a stream ([`Endpoint::connect`], [`accept`]), a serial line
//!   (`Endpoint::line`) or sockets (`tcp::serve`, `tcp::connect`).
//! - A [`Peer`] is the other side, for whoever calls it: [`Remote`] is one of its objects, [`Returned`] what a call gave, and
//!   [`Later`] a call of the peer that is answered when something has been waited for.
//!
//! All of it is for one executor and one time driver, whichever the program has chosen.
//!
//! ```
//! # #[cfg(feature = "tcp")]
//! # mod device {
//! use core::cell::RefCell;
//! use embassy_net::Stack;
//! use farref_embassy::{Action, Arguments, DeviceConnection, Done, Endpoint, Member, Object, ObjectKey, Peer, Remote};
//! use farref_embassy::{Reply, Root, Table, tcp};
//!
//! const ROOTS: &[Root] = &[Root { name: "button", key: ObjectKey(1), doc: "a button" }];
//!
//! /// Whoever asked for it is called when it is pressed.
//! struct Button<'c> {
//!     peer: Peer<'c>,
//!     listener: &'c RefCell<Option<Remote<'c>>>,
//! }
//!
//! impl Object for Button<'_> {
//!     fn members(&self) -> &'static [Member] {
//!         const { &[Member::method("subscribe", "calls listener(count) when it is pressed: subscribe(listener)")] }
//!     }
//!
//!     fn perform(&mut self, action: Action, args: &Arguments<'_>, mut reply: Reply<'_>) -> Done {
//!         match (action, self.peer.keep(args, 0, &mut reply)) {
//!             (Action::Method(0), Some(listener)) => {
//!                 // Who was called before is released.
//!                 self.listener.replace(Some(listener));
//!                 reply.none()
//!             }
//!             (Action::Method(0), None) => reply.bad_arguments("subscribe(listener)"),
//!             _ => reply.unsupported(),
//!         }
//!     }
//! }
//!
//! /// A task that serves two sockets with one session, for ever: on the second socket the peer comes back.
//! async fn serve<'c>(stack: Stack<'c>, connection: &'c DeviceConnection, listener: &'c RefCell<Option<Remote<'c>>>) -> ! {
//!     let mut button = Button { peer: connection.peer(), listener };
//!     let mut service = Table { roots: ROOTS, objects: &mut [&mut button] };
//!     let mut sockets = [const { tcp::Socket::<512, 512, 261, 64>::new() }; 2];
//!     tcp::serve(stack, tcp::PORT, &[Endpoint::new(connection, &mut service)], &mut sockets).await
//! }
//!
//! /// A task that calls objects of the peer: the listener, and what the peer has under a name.
//! async fn pressed<'c>(peer: Peer<'c>, listener: &'c RefCell<Option<Remote<'c>>>) -> Result<i64, farref_embassy::Error> {
//!     let hello = peer.connected().await;
//!     let listener = listener.borrow().clone();
//!     if let Some(listener) = listener {
//!         listener.call(|writer| writer.int(1)).await?.done()?;
//!     }
//!     peer.root().invoke("pressed", |writer| writer.str("button")).await?.int()
//! }
//! # }
//! ```
//!
//! `connection` is best made in a static [`Memory`]. What an object's [`Member`]s and the [`Root`]s say of themselves is told to whoever asks, `farref ls` for one; all of it
//! has to fit into one message.
//!
//! Features: `serial` adds serial lines, `tcp` embassy-net; `defmt` and `log` have it told when sessions begin and end.

#![no_std]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unreachable)
)]

mod config;
mod connection;
mod drive;
#[cfg(feature = "serial")]
mod line;
mod log;
mod peer;
mod service;
#[cfg(feature = "tcp")]
pub mod tcp;

pub use config::Config;
pub use connection::{Connection, Memory};
pub use drive::{Buffers, End, Endpoint, accept};
#[cfg(feature = "serial")]
pub use line::{LineBuffers, line_buffer};
pub use peer::{Error, Later, Peer, Remote, Returned};
pub use service::{Service, Table};

pub use farref_core::dispatch::{Action, Arguments, Done, Member, MemberKind, Object, Objects, Reply, Root};
#[cfg(feature = "serial")]
pub use farref_core::link::serial::Config as LineConfig;
pub use farref_core::message::{CloseCode, Consequence, Deadline, DownReason, ErrorCode, Hello, Op};
pub use farref_core::session::{
    Answer, Call, CallError, Callee, Ended, Micro, Notice, ObjectKey, Ref, Reference, ReplyError, Return, Tables,
};
pub use farref_core::value::{Value, ValueError, ValueWriter, Values};
pub use farref_core::{self, Uuid};

use farref_core::session::Session;

/// Room for 16 references and 8 calls each way, and messages of 256 bytes. It keeps no values for calls that build on them,
/// which would take half as much flash again; references it keeps.
pub type DeviceStorage = Micro<16, 16, 8, 512, 320, false>;

/// A session of that size.
pub type DeviceSession = Session<DeviceStorage>;

/// A connection of that size, which waits for up to 4 results of up to 48 bytes each. One type for all connections of a device
/// is best, so that the state machine is in flash once.
pub type DeviceConnection = Connection<DeviceStorage, 16, 4, 48>;

/// Where such a connection will be.
pub type DeviceMemory = Memory<DeviceStorage, 16, 4, 48>;

#[cfg(test)]
mod tests {
    /// Tables, output and waiting calls, all of it: with pointers of 8 bytes, deadlines, a link and a clock.
    #[test]
    fn a_device_session_is_small() {
        let size = core::mem::size_of::<super::DeviceSession>();
        assert!(size <= 2144, "{size} bytes on this machine");
    }

    /// C1: a connection has that, results of four calls, wakers and what objects leave behind; whoever carries it has buffers.
    /// There is nothing else that a peer could fill.
    #[test]
    fn all_that_a_session_takes_is_of_a_fixed_size() {
        let connection = core::mem::size_of::<super::DeviceConnection>() - core::mem::size_of::<super::DeviceSession>();
        assert!(connection <= 900, "{connection} bytes on this machine");
        assert_eq!(core::mem::size_of::<super::DeviceMemory>(), core::mem::size_of::<super::DeviceConnection>());
        assert_eq!(core::mem::size_of::<super::Buffers<261, 64>>(), 325);
    }
}
