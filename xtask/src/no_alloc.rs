//! `cargo xtask no-alloc`: the core links into a bare program, and no allocator comes with it.
//!
//! rustc refuses to link a program that uses `alloc` when no crate declares a global allocator.
//! So the proof is that the link succeeds and that neither the core nor the program declares one;
//! the search for an allocator's symbols catches one that a dependency brings (unless link-time
//! optimization has inlined all of it).

use std::{fs, path::Path};

use crate::{
    elf::{self, Sizes},
    setup, shell, tree,
};

/// Where the declaration of a global allocator would undo the proof.
const SOURCES: [&str; 2] = ["proto-core/src/", "proto-core/no-alloc/src/"];

const PROGRAM: &str = "farref-no-alloc";

/// Parts of the names that the compiler gives to the functions behind a global allocator.
const ALLOCATOR_SYMBOLS: [&str; 3] = ["__rust_alloc", "__rg_alloc", "__rust_no_alloc_shim"];

/// Builds and checks the program in `proto-core/no-alloc` for every target.
pub fn run(root: &Path) -> Result<(), String> {
    refuse_allocator(root)?;
    let mut lines = Vec::new();
    let mut failures = Vec::new();
    for target in setup::TARGETS {
        match link(root, target) {
            Ok(Sizes { text, rodata, data, bss }) => {
                lines.push(format!("{target:27} {text:>8} {rodata:>8} {data:>8} {bss:>8}"))
            }
            Err(error) => failures.push(format!("{target}: {error}")),
        }
    }
    println!("{:27} {:>8} {:>8} {:>8} {:>8}", "bytes", ".text", ".rodata", ".data", ".bss");
    for line in lines {
        println!("{line}");
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn refuse_allocator(root: &Path) -> Result<(), String> {
    for path in tree::files(root)? {
        if SOURCES.iter().any(|folder| path.starts_with(folder))
            && tree::read(root, &path)?.contains("global_allocator")
        {
            return Err(format!("{path} names a `global_allocator`"));
        }
    }
    Ok(())
}

fn link(root: &Path, target: &str) -> Result<Sizes, String> {
    setup::ensure_target(root, target)?;
    let target_dir = root.join("target/no-alloc");
    let mut build = shell::cargo(&root.join("proto-core/no-alloc"));
    build.args(["build", "--release", "--target", target, "--target-dir"]);
    shell::run(build.arg(&target_dir))?;
    // What the program does not use must build for the chip all the same.
    let mut optional = shell::cargo(root);
    optional.args(["build", "-p", "farref-core", "--features", "key,serial", "--target", target, "--target-dir"]);
    shell::run(optional.arg(&target_dir))?;

    let file = target_dir.join(target).join("release").join(PROGRAM);
    let elf = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    inspect(&elf)
}

/// The program's sizes, if it holds no allocator.
fn inspect(elf: &[u8]) -> Result<Sizes, String> {
    let sizes = elf::inspect(elf)?;
    match ALLOCATOR_SYMBOLS.into_iter().find(|symbol| elf.windows(symbol.len()).any(|w| w == symbol.as_bytes())) {
        Some(symbol) => Err(format!("the program holds an allocator: `{symbol}`")),
        None => Ok(sizes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocator_is_found_in_a_mangled_name() {
        let file = elf::tests::elf(&[(2, 0, 0)], b"_RNvCs_7___rustc12___rust_alloc\0");
        assert!(inspect(&file).unwrap_err().contains("__rust_alloc"));
        assert!(inspect(&elf::tests::elf(&[(2, 0, 0)], b"_start\0")).is_ok());
    }
}
