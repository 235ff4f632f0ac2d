//! The conformance suite: every case sees an implementation, the *subject*, from outside, over a byte transport.
//!
//! The subject serves the objects that `conformance/FIXTURES.md` promises. Whoever runs the suite brings a function that
//! opens a fresh connection to it; the rest is the same for every transport and every language:
//!
//! ```no_run
//! use farref_conformance::suite;
//!
//! let connect = || suite::Transport::spawn(&mut std::process::Command::new("my-fixtures"));
//! let report = suite::run("my implementation", connect);
//! println!("{report}");
//! assert!(report.is_green());
//! ```
//!
//! A case is named for the rule that it shows, `REL-2/release-crosses-resend`. The tester has no session of its own: it
//! writes and reads single messages, so that it can misbehave and choose the order in which messages cross. On
//! what the subject says it is strict in every case: a message that no peer may send fails the case that met it.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod cases;
mod device;
pub mod fixtures;
mod line;
mod link;
mod peer;
mod program;
mod referee;
mod report;
mod transport;
mod wire;

use std::io;
use std::time::{Duration, Instant};

pub use cases::Case;
pub use device::{NOT_FOR_DEVICES, is_for_devices};
pub use line::{is_of_stream, over_line};
pub use program::fixtures_program;
pub use report::{Failure, Report};
pub use transport::{Transport, memory};

use peer::Tester;

/// How long one case may take. None sleeps: a subject that is right needs a small part of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs every case, each on fresh connections that `connect` opens. `transport` names them in the report.
pub fn run(transport: &str, connect: impl FnMut() -> io::Result<Transport>) -> Report {
    run_selected(transport, connect, |_| true)
}

/// Runs the cases whose ids are selected.
pub fn run_selected(
    transport: &str,
    connect: impl FnMut() -> io::Result<Transport>,
    selected: impl Fn(&str) -> bool,
) -> Report {
    run_within(PATIENCE, transport, connect, selected)
}

/// The same; no case takes longer than `patience`.
pub fn run_within(
    patience: Duration,
    transport: &str,
    mut connect: impl FnMut() -> io::Result<Transport>,
    selected: impl Fn(&str) -> bool,
) -> Report {
    let mut report = Report::new(transport);
    for case in cases().filter(|case| selected(case.id)) {
        let mut tester = Tester::new(&mut connect, Instant::now() + patience);
        report.add(case.id, case.run(&mut tester));
    }
    report
}

/// All cases, in the order of SPEC.md.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    cases::ALL.iter().copied().flatten()
}
