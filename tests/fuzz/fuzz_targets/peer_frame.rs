//! libFuzzer's entry to `src/peer_frame.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| outrigger_fuzz::peer_frame::run(data));
