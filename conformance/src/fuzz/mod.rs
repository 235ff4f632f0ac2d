//! What the fuzz targets do: each takes any bytes, and panics where something is not as SPEC.md has it.
//!
//! They are here and not in `fuzz/`, which needs nightly, so that `tests/corpus.rs` runs every seed and all of the corpus
//! as ordinary tests, too.

mod frame;
mod input;
mod key;
mod message;
mod pair;
mod peer;
mod program;
mod script;
mod values;
mod wires;

pub use frame::frame;
pub use key::key;
pub use message::message;
pub use pair::pair;
pub use program::{session_bytes, session_script};
pub use values::values;

/// A fuzz target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. Each has a file in `fuzz/fuzz_targets` and a folder in `fuzz/seeds`.
pub const TARGETS: &[Target] = &[
    ("frame", frame),
    ("key", key),
    ("message", message),
    ("pair", pair),
    ("session_bytes", session_bytes),
    ("session_script", session_script),
    ("values", values),
];
