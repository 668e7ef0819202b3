//! libFuzzer's entry to `src/resp.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::resp::run(data));
