//! The program that serves the fixtures, for suites that run over a process.

use std::path::PathBuf;
use std::process::Command;
use std::{env, io};

/// Builds `farref-fixtures`, in the profile of the program that asks, and tells where it is.
///
/// # Errors
/// If it cannot be built.
pub fn fixtures_program() -> io::Result<PathBuf> {
    // Test binaries are in target/PROFILE/deps, programs in target/PROFILE.
    let mut folder = env::current_exe()?;
    folder.pop();
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.pop();
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bin", "farref-fixtures", "--manifest-path"]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    if folder.ends_with("release") {
        build.arg("--release");
    }
    if !build.status()?.success() {
        return Err(io::Error::other("farref-fixtures does not build"));
    }
    Ok(folder.join(format!("farref-fixtures{}", env::consts::EXE_SUFFIX)))
}
