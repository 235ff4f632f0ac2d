//! One side of a key check, fed anything in any pieces.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| farref_conformance::fuzz::key(input));
