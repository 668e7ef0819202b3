//! libFuzzer's entry to `src/rules.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::rules::run(data));
