//! A serial line that brings anything, in pieces of any size.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| farref_conformance::fuzz::frame(input));
