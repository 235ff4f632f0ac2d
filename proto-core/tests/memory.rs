//! What owned values take in memory: a peer that sends a few bytes must not make a host use hundreds.

use allocation_counter::measure;
use farref_core::value::{OwnedValue, Top, Values};

/// As large as what hosts use for references.
type Owned = OwnedValue<String>;

/// Bytes of memory for each byte of a message.
const FACTOR: usize = 32;

/// The number stands in SECURITY.md.
#[test]
fn an_owned_value_takes_at_most_32_bytes_for_each_on_the_wire() {
    assert_eq!(size_of::<Owned>(), FACTOR);
    let nested = |depth: usize| [vec![0x61; depth], vec![0x60]].concat();
    for pattern in [
        vec![0x00],                                           // none
        vec![0x60],                                           // the empty tuple
        vec![0x40],                                           // the empty string
        vec![0x41, b'x'],                                     // a string
        vec![0x08, 1, 0],                                     // bytes
        vec![0x61, 0x80],                                     // a tuple of one integer
        nested(2),                                            // tuples of one in tuples of one
        nested(15),                                           // as deep as may be
        vec![0x65, 0x80, 0x80, 0x80, 0x80, 0x80],             // a tuple of as many as make a vector grow
        vec![0x0A, 1, 0x80],                                  // a list
        vec![0x0C, 1, 0x80, 0x80],                            // a map
        vec![0x0E, 0x40, 0x60, 0x00, 0x00],                   // an exception
        vec![0x0E, 0x41, b'E', 0x61, 0x80, 0x41, b't', 0x00], // with all that one may have
        vec![0x05, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x80],          // a large integer
        vec![0x0D, 0x00],                                     // a reference
    ] {
        let wire = pattern.repeat(1000);
        let values = Values::check(&wire, Top::Arguments, 1).unwrap_or_else(|_| panic!("{pattern:02x?} is malformed"));
        let mut owned = Vec::with_capacity(values.len());
        let made = measure(|| owned.extend(values.map(|value| Owned::new(value, &mut |_| String::new()))));
        let taken = made.bytes_total as usize + owned.len() * size_of::<Owned>();
        assert!(taken <= FACTOR * wire.len(), "{pattern:02x?}: {taken} bytes for {}", wire.len());
        assert_eq!(made.count_total as i64, made.count_current, "{pattern:02x?}: grown");
    }
}
