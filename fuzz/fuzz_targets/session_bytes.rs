//! One session: any bodies from its peer, any operations of its host.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| farref_conformance::fuzz::session_bytes(input));
