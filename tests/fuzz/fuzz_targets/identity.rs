//! libFuzzer's entry to `src/identity.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::identity::run(data));
