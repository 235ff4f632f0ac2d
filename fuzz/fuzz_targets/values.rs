//! Any values: read or refused, written again, and worked on.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| farref_conformance::fuzz::values(input));
