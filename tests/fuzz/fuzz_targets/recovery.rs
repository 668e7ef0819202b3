//! libFuzzer's entry to `src/recovery.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::recovery::run(data));
