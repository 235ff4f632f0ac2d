//! The check that the peer knows a key, against a peer that does not.

use farref_core::key::{Key, KeyCheck, Progress, Role};

use super::input::Input;

/// One side of a key check, fed anything in any pieces: nothing passes that was not made with the key, and what is sent is
/// bounded. The first byte says the role and how long a banner may be, then come runs; a text of a key is tried as well.
pub fn key(bytes: &[u8]) {
    let _ = Key::from_text(&String::from_utf8_lossy(bytes));
    let mut input = Input::new(bytes);
    let head = input.byte();
    let role = if head & 1 == 0 { Role::Connecting } else { Role::Accepting };
    let key = Key::new(&[0x4B; 32]).expect("of a good length");
    let mut check = KeyCheck::new(role, &key, [0xA0; 32], usize::from(head >> 1));
    while let Some(length) = input.next() {
        let piece = input.take(length.into());
        let (used, progress) = check.handle(piece);
        assert!(used <= piece.len());
        assert!(progress != Progress::Passed, "without the key");
        assert!(progress != Progress::Going || used == piece.len());
        assert!(check.transmit().len() <= 84);
        if head & 0x80 != 0 {
            check.transmitted(usize::from(length) % 7);
        }
    }
    let _ = check.cut().to_string();
}
