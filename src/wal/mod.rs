//! The log's bytes: what is written, where, and what of it may be believed after a crash.
//!
//! One log per shard holds the entries and hard states of all its groups, so that a turn of the
//! shard costs one disk write and one flush, however many groups moved. This folder knows bytes
//! only: it says where to write what ([`Appender`]), what a file says ([`Recovery`]), and where an
//! entry is ([`LogIndex`], [`read_span`]). Files, flushes and their order belong to the driver.
//!
//! # To scale
//!
//! Offsets are in bytes; one character of the first line is 1 MiB, of the second 1 KiB.
//!
//! ```text
//! segment  64 MiB, zeroed or an older one before use, named 0000000000000001.seg …
//! 0                                                                67108864
//! ├┬───────────────────────────────────────────────────────────────┤
//! ││ batches, each on a block                                       │
//! └┴───────────────────────────────────────────────────────────────┘
//!
//! 0    4096                 12288        16384
//! ├───┬┼───────────────────┬┼──────┬─────┼─ ─ ─
//! │hdr│0 batch 1           │0 batch│0     │ batch 3
//! └───┴┼───────────────────┴┼──────┴─────┼─ ─ ─
//!      │                    └ zero to the end of the block
//!      │
//! batch, one character is 8 bytes
//! 0        64 81 97                                 161
//! ├────────┬──┬──┬───────────────────────────────────┬──┬─ ─ ─
//! │ head   │  │  │ payload, payload                  │  │
//! └────────┴──┴──┴───────────────────────────────────┴──┴─ ─ ─
//!           │  └ entry table, 8 bytes each            └ the next run's header
//!           └ the run's header, 17 bytes as a rule
//! ```
//!
//! The exact fields are drawn above the code that writes them: the segment header in `segment.rs`,
//! the batch header in `batch.rs`, the run in `record.rs`. All integers are little-endian; every
//! byte that means nothing is zero, and is checked to be.
//!
//! # What covers what
//!
//! ```text
//! segment header crc ◄─chain─ batch 1 header crc ◄─chain─ batch 2 header crc ◄─ next segment header
//!                                    │ body: crc of run crcs
//!                                    ▼
//!                              run crc (header, entry table)
//!                                    │ payload crcs, from the entry's birth
//!                                    ▼
//!                              payload bytes
//! ```
//!
//! A recycled file is full of old batches, and a torn write leaves some of its 512-byte sectors
//! old. Checksums alone would believe an old run that survived in the middle of a new batch. So a
//! batch header is bound to its identity, segment number, offset and predecessor, and to the runs
//! below it. A segment number is never used twice if its first write was torn and left a batch header behind;
//! and the number of a file only rises (`reuse.rs`), so that no header in a spare was ever written for it.
//!
//! # Torn or damaged?
//!
//! Up to [`FLUSHES_IN_FLIGHT_MAX`] writes are in flight, and a power cut leaves any part of each: a
//! later batch may be whole while an earlier one is torn, and neither was acknowledged. So "valid
//! bytes after a bad spot" proves nothing. What proves is the *durable watermark* that each batch
//! header carries: all in front of it had been flushed when the batch was placed.
//!
//! > A bad spot at P is **damage** if a later whole batch header of the same segment, or the header
//! > of a later segment, says that the log was durable beyond P. Otherwise it is a **torn tail**:
//! > nothing from P on was acknowledged, and all of it is left out.
//!
//! Batches of an *earlier life* of the file are neither: they name another segment, so they prove nothing
//! and are no part of anything. Behind the end of a log in a recycled file they are what is expected
//! there, like the zeroes in a new one ([`TornTail`] is told only of what may be this life's).
//!
//! A torn tail is left where it is. The log goes on in a new segment whose header names the point
//! P. The next recovery looks at that header first ([`Recovery::look_ahead`]), stops at P, and takes
//! nothing behind it for the log, no matter how whole it looks and when it got there. Damage is a
//! [`Damage`], which says where and why (contract row 55). [`Recovery::segment`] stops there;
//! [`Recovery::salvage`] says whose runs it may have taken, and reads on behind it. A segment header is written together with its first batch, and only when the
//! segment before is durable to its end; a file whose header is torn and of which nothing proves
//! more is [`Recovered::discard`], and the first file *after* it takes over.
//!
//! # The limit of this rule
//!
//! Damage to the *last* acknowledged batch looks exactly like a torn write until something later
//! carries a watermark behind it. Under load that is the next batch or the one after; when writes
//! stop, the driver writes [`Appender::closing_write`] after a moment of idleness and at shutdown:
//! a batch with nothing new in it, that carries the watermark. What remains is a window of one idle moment in
//! which a decayed block costs an acknowledged batch on this node. In a recycled segment not even a torn tail may be told
//! then: behind the last header of this life stands an earlier one, as behind any end.
//!
//! Segments missing at the *front* of the log are damage too, unless recovery is told that they were
//! given up on purpose ([`Recovery::reclaimed_to`]). Snapshots are written into the log as runs of their
//! own kinds, so that once one is durable, all that it stands for may go (docs/decisions/0007).
//!
//! # What the driver owes
//!
//! 1. A spare is of full length, its blocks written before and durable, and its directory synced, before
//!    [`Appender::on_spare`]. It is zeroed, or was a segment of this log with a lower number, chosen by
//!    [`successor_of`].
//! 2. After recovery, and before anything recovered is acted on, the file of
//!    [`Position::end`] is synced: recovery may have read what only a cache holds.
//! 3. [`Appender::on_durable`] in ticket order, each after a flush that began when that write and
//!    all before it were complete.
//! 4. A failed write or flush ends the process (contract row 30).
//! 5. One process per directory, held by a lock that outlives writes in flight.
//!
//! # Format versions
//!
//! | version | change |
//! |--:|---|
//! | 1 | the first |
//! | 2 | a run has a kind, where zero was: pieces and ends of snapshots, tombstones. Version 1 is read as before |
//! | 3 | kinds of runs for a replica that lost part of its log, and for one that has it back |
//! | 4 | runs take the bytes that their numbers need, and batches another magic, which tells. Later, within this version: a run says if its replica is not whole; who does not know that refuses the run by its kind |
//! | 5 | runs that say again what an earlier batch said ([`RunKind::SaidAgain`]). Versions 1 to 4 are read as before |
//!
//! [`FLUSHES_IN_FLIGHT_MAX`]: crate::limits::FLUSHES_IN_FLIGHT_MAX

mod codec;
mod segment;

mod appender;
mod batch;
mod check;
mod damage;
mod index;
mod lists;
mod read;
mod record;
mod recover;
mod reuse;

pub use appender::{Appender, Position, Room, Write};
pub use batch::{Batch, BatchHeader, BatchRef, Runs};
pub use check::Checked;
pub use damage::{Damage, Fault, Proof, TornTail};
pub use index::{LogIndex, Span};
pub use lists::{EntryList, EntryLists};
pub use read::{batch_at, read_span};
pub use record::{EntryRef, Run, RunKind, RunRef};
pub use recover::{Found, Loss, Recovered, RecoveredRun, Recovery, Whose};
pub use reuse::{is_kept, parse_retired_name, retired_name, successor_of};
pub use segment::{
    End, FORMAT_VERSION, Identity, Location, SegmentHeader, file_name, first_text, parse_file_name,
    parse_first,
};

#[cfg(test)]
mod tests;
