//! The target says which board it is; the board says where its memory lies.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(board, values(\"lm3s6965evb\", \"mps2-an386\"))");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=memory");
    let target = env::var("TARGET").unwrap_or_default();
    let board = match target.as_str() {
        "thumbv7m-none-eabi" => "lm3s6965evb",
        "thumbv7em-none-eabihf" => "mps2-an386",
        _ => panic!("build for a board: --target thumbv7m-none-eabi or --target thumbv7em-none-eabihf, not {target}"),
    };
    println!("cargo::rustc-cfg=board=\"{board}\"");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::copy(format!("memory/{board}.x"), folder.join("memory.x")).expect("the board's memory");
    println!("cargo::rustc-link-search={}", folder.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    if env::var_os("CARGO_FEATURE_DEFMT").is_some() {
        println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    }
    // A section that ends in the middle of a page is no fault on a chip.
    println!("cargo::rustc-link-arg-bins=--nmagic");
}
