//! `cargo xtask no-alloc`: the core links into a bare program, and no allocator comes with it.
//!
//! rustc refuses to link a program that uses `alloc` when no crate declares a global allocator.
//! So the proof is that the link succeeds and that neither the core nor the program declares one;
//! the search for an allocator's symbols catches one that a dependency brings (unless link-time
//! optimization has inlined all of it).

use std::{fs, path::Path};

use crate::{setup, shell, tree};

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

/// What a linked program takes, in bytes. `.text`, `.rodata` and `.data` lie in flash; `.data` and
/// `.bss` in RAM.
#[derive(Debug, Default, PartialEq)]
struct Sizes {
    text: u32,
    rodata: u32,
    data: u32,
    bss: u32,
}

fn inspect(elf: &[u8]) -> Result<Sizes, String> {
    let sections = sections(elf).ok_or("not a little-endian ELF32 file")?;
    // A stripped file would pass the search below whatever is in it.
    if !sections.iter().any(Section::is_symbol_table) {
        return Err("the program has no symbol table to search".into());
    }
    if let Some(symbol) =
        ALLOCATOR_SYMBOLS.into_iter().find(|symbol| elf.windows(symbol.len()).any(|w| w == symbol.as_bytes()))
    {
        return Err(format!("the program holds an allocator: `{symbol}`"));
    }
    Ok(measure(&sections))
}

/// The three fields of an ELF section header that matter here.
struct Section {
    kind: u32,
    flags: u32,
    size: u32,
}

impl Section {
    const SYMTAB: u32 = 2;
    const NOBITS: u32 = 8;
    const WRITE: u32 = 1;
    const ALLOC: u32 = 2;
    const EXEC: u32 = 4;

    fn is_symbol_table(&self) -> bool {
        self.kind == Self::SYMTAB
    }
}

/// Sorts sections by what they are, not by name: `.ARM.exidx`, for one, is read-only data.
fn measure(sections: &[Section]) -> Sizes {
    let mut sizes = Sizes::default();
    for section in sections {
        let has = |flag| section.flags & flag != 0;
        let sum = match () {
            () if !has(Section::ALLOC) => continue,
            () if has(Section::EXEC) => &mut sizes.text,
            () if !has(Section::WRITE) => &mut sizes.rodata,
            () if section.kind == Section::NOBITS => &mut sizes.bss,
            () => &mut sizes.data,
        };
        *sum += section.size;
    }
    sizes
}

fn sections(elf: &[u8]) -> Option<Vec<Section>> {
    const CLASS_32_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x01\x01";
    if !elf.starts_with(CLASS_32_LITTLE_ENDIAN) {
        return None;
    }
    let table = word(elf, 0x20)? as usize;
    let (entry_size, count) = (half(elf, 0x2e)?, half(elf, 0x30)?);
    (0..usize::from(count))
        .map(|index| {
            let header = elf.get(table + index * usize::from(entry_size)..)?;
            Some(Section { kind: word(header, 0x04)?, flags: word(header, 0x08)?, size: word(header, 0x14)? })
        })
        .collect()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_LEN: usize = 0x34;

    /// An ELF32 file of section headers `(kind, flags, size)`, followed by `rest`.
    fn elf(sections: &[(u32, u32, u32)], rest: &[u8]) -> Vec<u8> {
        let mut file = vec![0; HEADER_LEN];
        file[..6].copy_from_slice(b"\x7fELF\x01\x01");
        file[0x20] = HEADER_LEN as u8;
        file[0x2e] = 0x28;
        file[0x30] = sections.len() as u8;
        for (kind, flags, size) in sections {
            let fields = [0, *kind, *flags, 0, 0, *size, 0, 0, 0, 0];
            file.extend(fields.iter().flat_map(|field: &u32| field.to_le_bytes()));
        }
        file.extend(rest);
        file
    }

    #[test]
    fn sections_are_summed_by_their_flags() {
        let sections = [
            (1, 6, 1000), // .text
            (1, 2, 20),   // .rodata
            (1, 2, 3),    // another read-only one
            (1, 3, 40),   // .data
            (8, 3, 500),  // .bss
            (1, 0, 9999), // .comment
            (2, 0, 0),    // .symtab
        ];
        let expected = Sizes { text: 1000, rodata: 23, data: 40, bss: 500 };
        assert_eq!(inspect(&elf(&sections, b"_start\0")), Ok(expected));
    }

    #[test]
    fn an_allocator_is_found_in_a_mangled_name() {
        let file = elf(&[(2, 0, 0)], b"_RNvCs_7___rustc12___rust_alloc\0");
        assert!(inspect(&file).unwrap_err().contains("__rust_alloc"));
    }

    #[test]
    fn a_stripped_or_foreign_file_proves_nothing() {
        assert!(inspect(&elf(&[(1, 6, 10)], b"")).is_err());
        assert!(inspect(b"\x7fELF\x02\x01").is_err());
        let cut = elf(&[(2, 0, 0)], b"");
        assert!(inspect(&cut[..cut.len() - 30]).is_err());
    }
}
