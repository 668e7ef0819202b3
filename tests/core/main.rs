//! What needs no kernel: whole clusters in the simulator. Runs anywhere, in seconds.

mod corpora;
mod embed;
mod kept;
mod seeds;

/// What the fuzz targets do, built here without a fuzzer.
#[path = "../fuzz/src/lib.rs"]
pub mod targets;
