//! How much of what a linked program takes, read from its file: a 32-bit little-endian ELF.

/// What a linked program takes, in bytes. `.text`, `.rodata` and `.data` lie in flash; `.data` and
/// `.bss` in RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sizes {
    pub text: u32,
    pub rodata: u32,
    pub data: u32,
    pub bss: u32,
}

impl Sizes {
    /// Bytes in flash.
    pub fn flash(&self) -> u32 {
        self.text + self.rodata + self.data
    }

    /// Bytes in RAM that the linker has set aside.
    pub fn ram(&self) -> u32 {
        self.data + self.bss
    }
}

/// The sizes of a program that has its symbols; a stripped one would pass every search for one.
pub fn inspect(elf: &[u8]) -> Result<Sizes, String> {
    let sections = sections(elf).ok_or("not a little-endian ELF32 file")?;
    if !sections.iter().any(Section::is_symbol_table) {
        return Err("the program has no symbol table to search".into());
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
pub mod tests {
    use super::*;

    const HEADER_LEN: usize = 0x34;

    /// An ELF32 file of section headers `(kind, flags, size)`, followed by `rest`.
    pub fn elf(sections: &[(u32, u32, u32)], rest: &[u8]) -> Vec<u8> {
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
        let sizes = inspect(&elf(&sections, b"_start\0")).unwrap();
        assert_eq!(sizes, Sizes { text: 1000, rodata: 23, data: 40, bss: 500 });
        assert_eq!((sizes.flash(), sizes.ram()), (1063, 540));
    }

    #[test]
    fn a_stripped_or_foreign_file_proves_nothing() {
        assert!(inspect(&elf(&[(1, 6, 10)], b"")).is_err());
        assert!(inspect(b"\x7fELF\x02\x01").is_err());
        let cut = elf(&[(2, 0, 0)], b"");
        assert!(inspect(&cut[..cut.len() - 30]).is_err());
    }
}
