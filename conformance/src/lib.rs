//! What shows that an implementation keeps to SPEC.md:
//!
//! - [`suite`]: cases that see an implementation from outside, over any byte transport, with the objects that it serves
//!   meanwhile ([`suite::fixtures`], promised in FIXTURES.md);
//! - [`sim`]: a deterministic simulator of two sessions of the core, with [`fixtures`] of its own;
//! - `faults`, with the feature `tokio`: a serial line that loses, changes and repeats what goes over it, between streams;
//! - [`fuzz`]: what the fuzz targets of `fuzz/` do with their input;
//! - [`sshd`]: a server of a test's own to reach a peer through.

#[cfg(feature = "tokio")]
pub mod faults;
pub mod fixtures;
pub mod fuzz;
pub(crate) mod host;
pub mod sim;
pub mod sshd;
pub mod suite;
