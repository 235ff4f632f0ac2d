//! What shows that an implementation keeps to SPEC.md:
//!
//! - [`suite`]: cases that see an implementation from outside, over any byte transport, with the objects that it serves
//!   meanwhile ([`suite::fixtures`], promised in FIXTURES.md);
//! - [`sim`]: a deterministic simulator of two sessions of the core, with [`fixtures`] of its own;
//! - [`sshd`]: a server of a test's own to reach a peer through.

pub mod fixtures;
pub(crate) mod host;
pub mod sim;
pub mod sshd;
pub mod suite;
