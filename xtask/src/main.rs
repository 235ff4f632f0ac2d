//! The project's chores, run as `cargo xtask COMMAND`.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

mod conformance;
mod elf;
mod firmware;
mod fuzz;
mod mutate;
mod no_alloc;
mod races;
mod setup;
mod shell;
mod size;
mod soak;
mod spec;
mod test;
mod tree;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test      install what is missing, run every check, end with `N passed, N failed`
  spec      each rule of SPEC.md with the code and the case that cite it; the cases of conformance/RACES.md
  fuzz      every fuzz target for a minute, or [--seconds N] [TARGET]...; installs what is missing
  mutate    whether tests notice rules that are not kept: each patch in conformance/mutations, or [NAME]...
  soak      ten minutes of mixed load over connections that are cut, or [--minutes N] [--seed N]: is memory flat?
  firmware-test
            the firmware on two boards in QEMU, or [--board NAME] [TEST]...; installs what is missing
  no-alloc  link a bare program with the core for three chips, without an allocator
  size      what the layers of the core take on three chips, against the budgets; [--write] into README.md
  setup     only install what `test` would miss
";

fn main() -> ExitCode {
    let root = workspace_root();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["test"] => return test::run(&root),
        ["spec"] => spec::run(&root),
        ["fuzz", arguments @ ..] => fuzz::run(&root, arguments),
        ["mutate", names @ ..] => mutate::run(&root, names),
        ["soak", arguments @ ..] => soak::run(&root, arguments),
        ["firmware-test", arguments @ ..] => firmware::run(&root, arguments, |_| {}),
        ["no-alloc"] => no_alloc::run(&root),
        ["size", arguments @ ..] => size::run(&root, arguments),
        ["setup"] => setup::run(&root),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The folder that holds this crate's folder. Cargo says at run time where that is; the value from
/// compile time serves when the binary is started by hand.
fn workspace_root() -> PathBuf {
    let xtask =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map_or(xtask.clone(), Path::to_path_buf)
}
