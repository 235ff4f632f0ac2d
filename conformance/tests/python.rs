//! The Python peer, written from SPEC.md alone: its own cases, the vectors, and the suite.

use std::path::Path;
use std::process::{Command, Stdio};

use farref_conformance::suite::{self, Transport};

#[test]
fn the_python_peer_passes_the_suite() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/python/fixtures.py");
    let connect = || Transport::spawn(Command::new("python3").arg(&script).stderr(Stdio::null()));
    let report = suite::run("python", connect);
    report.save().expect("the report is written");
    assert!(report.is_green(), "{report}");
}

#[test]
fn the_python_peer_passes_its_cases() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/python/selftest.py");
    let output = Command::new("python3").arg(&script).output().expect("python3 runs");
    assert!(
        output.status.success(),
        "{}: {}\n{}{}",
        script.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
