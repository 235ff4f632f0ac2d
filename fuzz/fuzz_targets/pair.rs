//! Two sessions with real hosts under any operations.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| farref_conformance::fuzz::pair(input));
