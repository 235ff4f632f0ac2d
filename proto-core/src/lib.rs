//! The protocol core of **farref**: two programs that share nothing but a byte pipe use each other's objects.
//!
//! `no_std`, no heap needed, no IO, no clock, no async. The wire is described in `SPEC.md`; the ids in these pages
//! (`REL-2`) are its rules. Layers, each of which knows only those above it in this list:
//!
//! - [`codec`]: bytes and varints;
//! - [`frame`]: byte stream to records;
//! - [`message`]: the closed set of messages;
//! - [`value`]: the value model and its encoding;
//! - [`session`]: handles, calls, promises, release, admission: one state machine for two kinds of storage;
//! - [`dispatch`]: routes requests to objects.
//!
//! On a line that loses and changes bytes, `link` stands between [`frame`] and [`session`]. Before a session, and beside
//! these layers, `key` checks that the peer knows a shared key.
//!
//! Features: `alloc` adds tables that grow to a stated bound ([`session::Host`]) and owned values
//! (`value::OwnedValue`); `key` adds the key check, `serial` what a line needs that loses and changes bytes.
//! No feature changes what is there without it.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unreachable)
)]

#[cfg(target_pointer_width = "16")]
compile_error!("slots and lengths of the wire have 32 bits");

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod codec;
pub mod dispatch;
pub mod frame;
#[cfg(feature = "key")]
pub mod key;
#[cfg(feature = "serial")]
pub mod link;
pub mod message;
pub mod session;
pub mod value;
mod when;

pub use uuid::Uuid;
