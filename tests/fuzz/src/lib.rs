//! What the fuzz targets do with their input, one module for each decoder.
//!
//! ```text
//!   fuzz_targets/NAME.rs   libFuzzer, nightly: inputs nobody thought of ─┐
//!                                                                        ├─► NAME::run(input)
//!   tests/core/corpora.rs  cargo test: the inputs kept in corpus/NAME/ ──┘
//! ```
//!
//! An input is either the bytes a decoder is given, or the choices by which something valid is built
//! and then changed: nearly everything here carries checksums, and random bytes would never get past
//! them. Three kinds of change, with what must come of each:
//!
//! - one to three bits flipped: refused. CRC-32 (IEEE) sees every such change in up to 11 KiB;
//! - changed and checksummed anew, as a peer or a disk never does but a mistaken program might:
//!   refused, or understood, and then it can be written and reads back the same;
//! - anything: no panic.

#[cfg(feature = "runtime")]
pub mod config;
#[cfg(feature = "runtime")]
pub mod identity;
pub mod members;
pub mod peer_frame;
pub mod recovery;
pub mod resp;
pub mod rules;
pub mod segment_header;
pub mod snapshot_chunk;
pub mod wal_record;

mod choices;
mod log;

/// What a target does with one input.
pub type Body = fn(&[u8]);

/// Every target: the name of its folder in `corpus/`, and its body.
pub const TARGETS: &[(&str, Body)] = &[
    ("wal_record", wal_record::run),
    ("segment_header", segment_header::run),
    ("recovery", recovery::run),
    ("peer_frame", peer_frame::run),
    ("resp", resp::run),
    ("snapshot_chunk", snapshot_chunk::run),
    ("members", members::run),
    ("rules", rules::run),
    #[cfg(feature = "runtime")]
    ("config", config::run),
    #[cfg(feature = "runtime")]
    ("identity", identity::run),
];
