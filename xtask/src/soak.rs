//! `cargo xtask soak`: mixed load between two processes over connections that are cut at random, optimised, for as long as is
//! wanted; the program itself is `farref-soak` of `bench`.

use std::path::Path;

use crate::shell;

/// Runs `soak [--minutes N] [--seed N]`, which the program reads.
pub fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let build = ["run", "--release", "-p", "farref-bench", "--bin", "farref-soak", "--"];
    shell::run(shell::cargo(root).args(build).args(arguments))
}
