//! What shows that an implementation keeps to SPEC.md: a deterministic simulator of two sessions, and the objects that
//! its cases use.

pub mod fixtures;
pub mod sim;
