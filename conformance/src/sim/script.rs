//! Messages as a scripted peer writes them.

use farref_core::codec::Writer;
use farref_core::message::Limits;

/// The body of a message, written by a script.
pub fn body(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    body_within(1 << 17, write)
}

/// As [`body`], of so many bytes at most.
pub(crate) fn body_within(most: usize, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = vec![0; most];
    let mut writer = Writer::new(&mut bytes);
    write(&mut writer);
    let length = writer.len();
    bytes.truncate(length);
    bytes
}

/// The body of a Hello with these limits.
pub fn hello(limits: Limits) -> Vec<u8> {
    hello_with(1, 1, limits)
}

/// The body of a Hello with these versions and limits, in range or not.
pub fn hello_with(version_min: u64, version_max: u64, limits: Limits) -> Vec<u8> {
    body(|writer| {
        writer.byte(0x10);
        for field in [
            version_min,
            version_max,
            0,
            limits.max_message.into(),
            limits.imports.into(),
            limits.answers.into(),
            limits.call_bytes.into(),
            limits.handles.into(),
            limits.levels.into(),
        ] {
            writer.varint(field);
        }
        writer.put(&[9; 16]);
        writer.varint(1);
    })
}
