//! libFuzzer's entry to `src/config.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::config::run(data));
