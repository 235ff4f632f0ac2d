//! The Python peer, written from SPEC.md alone: its own cases, and the vectors.

use std::path::Path;
use std::process::Command;

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
