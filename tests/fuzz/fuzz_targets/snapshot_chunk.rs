//! libFuzzer's entry to `src/snapshot_chunk.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::snapshot_chunk::run(data));
