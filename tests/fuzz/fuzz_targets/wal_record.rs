//! libFuzzer's entry to `src/wal_record.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::wal_record::run(data));
