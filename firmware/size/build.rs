//! A program that is to run needs the board's memory and a vector table.

use std::{env, fs, path::PathBuf};

fn main() {
    const BOARD: &str = "lm3s6965evb";
    let memory = format!("../qemu/memory/{BOARD}.x");
    println!("cargo::rustc-check-cfg=cfg(board, values(\"lm3s6965evb\", \"mps2-an386\"))");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={memory}");
    if env::var_os("CARGO_FEATURE_RUN").is_none() {
        return;
    }
    println!("cargo::rustc-cfg=board=\"{BOARD}\"");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::copy(memory, folder.join("memory.x")).expect("the board's memory");
    println!("cargo::rustc-link-search={}", folder.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rustc-link-arg-bins=--nmagic");
}
