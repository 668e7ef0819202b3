//! libFuzzer's entry to `src/members.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::members::run(data));
