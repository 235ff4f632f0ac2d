//! Both sides of a key check, fed anything in any pieces: nothing panics, nothing passes, and what is sent is bounded.

#![no_main]

use farref_core::key::{Key, KeyCheck, Progress, Role};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, u8, Vec<Vec<u8>>, String)| {
    let (connecting, banner, pieces, text) = input;
    let _ = Key::from_text(&text);
    let key = Key::new(&[0x4B; 32]).expect("of a good length");
    let role = if connecting { Role::Connecting } else { Role::Accepting };
    let mut check = KeyCheck::new(role, &key, [0xA0; 32], banner.into());
    for piece in &pieces {
        let (used, progress) = check.handle(piece);
        assert!(used <= piece.len());
        assert!(progress != Progress::Passed, "without the key");
        assert!(progress != Progress::Going || used == piece.len());
        assert!(check.transmit().len() <= 84);
    }
    let _ = check.cut().to_string();
});
