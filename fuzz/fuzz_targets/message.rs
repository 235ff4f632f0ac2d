//! Any body: taken apart or refused, and put together again.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| farref_conformance::fuzz::message(input));
