//! libFuzzer's entry to `src/segment_header.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::segment_header::run(data));
