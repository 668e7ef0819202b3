//! One run: consecutive entries of one term of one group, and the group's hard state; or a piece of a
//! snapshot of the group, in place of entries.
//!
//! ```text
//!  byte
//!     0  crc of bytes 4 .. 64 + 12 × count  4
//!     4  count of entries                   4   0: hard state alone
//!     8  group                              8
//!    16  term       ┐                       8
//!    24  vote       │ hard state            8
//!    32  commit     ┘                       8
//!    40  term of the entries                8
//!    48  index of the first entry           8
//!    56  payload bytes, all entries         4
//!    60  kind of the run                    4   see [`RunKind`]
//!    64  entry table, 12 bytes each
//!          0  payload bytes                 4
//!          4  payload crc                   4   the one the entry was born with
//!          8  kind                          4
//!     …  payloads, back to back, no padding
//! ```
//!
//! The run's checksum covers the payloads' checksums, and the batch header covers the run's: a
//! payload that passes belongs to this entry of this run of this batch, whatever lay in the file
//! before.
//!
//! A run that is not of the log names the snapshot it belongs to in place of its entries: its last
//! entry's term at 40, its index at 48. A piece is the payload of the only line of its table, with kind 1.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::entry::{Entry, EntryKind};
use crate::id::{EntryId, GroupId, Index, ReplicaId, Term};
use crate::planted::{Planted, planted};
use crate::raft::effects::HardState;

use super::codec::{Put, Take};
use super::damage::Fault;

/// A run's header, in bytes.
pub(super) const RUN_HEADER_BYTES: usize = 64;
/// One line of the entry table, in bytes.
pub(super) const ENTRY_HEADER_BYTES: usize = 12;

/// What a run holds beside its hard state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum RunKind {
    /// Entries of the log, or none.
    #[default]
    Log = 0,
    /// One piece of a snapshot.
    SnapshotPiece = 1,
    /// A snapshot that this replica took of itself is whole: all its pieces lie in front of this run.
    /// From here on it stands for the log up to its last entry, and what follows that entry stays.
    SnapshotTaken = 2,
    /// The replica was removed from its group, for good; nothing of the group follows.
    Tombstone = 3,
    /// A snapshot that came from the leader is whole, as with `SnapshotTaken`, and the log begins anew
    /// behind its last entry: whatever entries there were are void.
    SnapshotInstalled = 4,
    /// Recovery found part of what this replica wrote gone, and does not know what it promised. Until
    /// `Recalled`, nothing that follows proves that it is whole.
    PromisesForgotten = 5,
    /// As `PromisesForgotten`, but only entries are missing: in front of the one it names, if it does.
    EntriesForgotten = 6,
    /// Everything that was ever acknowledged is here again.
    Recalled = 7,
}

impl RunKind {
    const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Log),
            1 => Some(Self::SnapshotPiece),
            2 => Some(Self::SnapshotTaken),
            3 => Some(Self::Tombstone),
            4 => Some(Self::SnapshotInstalled),
            5 => Some(Self::PromisesForgotten),
            6 => Some(Self::EntriesForgotten),
            7 => Some(Self::Recalled),
            _ => None,
        }
    }

    /// How many lines its entry table may have.
    const fn lines(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Log => 0..=u32::MAX,
            Self::SnapshotPiece => 1..=1,
            Self::SnapshotTaken
            | Self::Tombstone
            | Self::SnapshotInstalled
            | Self::PromisesForgotten
            | Self::EntriesForgotten
            | Self::Recalled => 0..=0,
        }
    }
}

/// What one group writes in one batch: its hard state and, mostly, entries of one term. Entries of
/// several terms make several runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it holds.
    pub kind: RunKind,
    /// Whose entries.
    pub group: GroupId,
    /// What the replica must remember; the latest in the log counts.
    pub hard_state: HardState,
    /// The term of all `entries`; zero if there are none. Of a snapshot: the term of its last entry.
    pub run_term: Term,
    /// The index of the first of `entries`; entries at and after it in earlier runs of the group
    /// are superseded. Ignored if there are none. Of a snapshot: the index of its last entry.
    pub first: Index,
    /// Consecutive entries, at most [`crate::limits::APPEND_ENTRIES_MAX`]. May be empty
    /// (contract row 25).
    pub entries: SmallVec<[Entry; 4]>,
}

impl Run {
    /// A piece of the snapshot of `group` at `entry`.
    #[must_use]
    pub fn piece(group: GroupId, hard_state: HardState, entry: EntryId, piece: Bytes) -> Self {
        let entries = SmallVec::from_iter([Entry::command(piece)]);
        Self { entries, ..Self::mark(RunKind::SnapshotPiece, group, hard_state, entry) }
    }

    /// A run without entries: the end of a snapshot, or a tombstone, for which `entry` means nothing.
    /// The commit index in the hard state of a snapshot's end is not below the snapshot
    /// (contract row 56).
    #[must_use]
    pub fn mark(kind: RunKind, group: GroupId, hard_state: HardState, entry: EntryId) -> Self {
        let (run_term, first) = (entry.term, entry.index);
        Self { kind, group, hard_state, run_term, first, entries: SmallVec::new() }
    }

    /// Bytes this run takes in a batch.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let payload: usize = self.entries.iter().map(|entry| entry.payload.len()).sum();
        RUN_HEADER_BYTES + ENTRY_HEADER_BYTES * self.entries.len() + payload
    }

    fn header(&self) -> [u8; RUN_HEADER_BYTES] {
        let payload: usize = self.entries.iter().map(|entry| entry.payload.len()).sum();
        let mut bytes = [0; RUN_HEADER_BYTES];
        let mut put = Put::new(&mut bytes);
        put.u32(0);
        put.u32(u32::try_from(self.entries.len()).expect("limits bound the entries of a run"));
        put.u64(self.group.0);
        put.u64(self.hard_state.term.0);
        put.u64(self.hard_state.vote.0);
        put.u64(self.hard_state.commit.0);
        put.u64(self.run_term.0);
        put.u64(self.first.0);
        put.u32(u32::try_from(payload).expect("limits bound the bytes of a batch"));
        put.u32(self.kind as u32);
        bytes
    }

    /// The checksum of header and entry table. Independent of where the run is written, so it is
    /// taken once, when the run joins its batch.
    pub(super) fn crc(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.header()[covered_from()..]);
        // Hashed a few lines at a time: twelve bytes alone would not reach the fast path.
        let mut lines = [0; 32 * ENTRY_HEADER_BYTES];
        for entries in self.entries.chunks(32) {
            let used = &mut lines[..entries.len() * ENTRY_HEADER_BYTES];
            for (line, entry) in used.chunks_exact_mut(ENTRY_HEADER_BYTES).zip(entries) {
                put_entry_header(line, entry);
            }
            hasher.update(used);
        }
        hasher.finalize()
    }

    /// Write the run at the start of `buffer`; returns the bytes used.
    pub(super) fn encode_into(&self, crc: u32, buffer: &mut [u8]) -> usize {
        buffer[..RUN_HEADER_BYTES].copy_from_slice(&self.header());
        buffer[..4].copy_from_slice(&crc.to_le_bytes());
        let table_end = RUN_HEADER_BYTES + ENTRY_HEADER_BYTES * self.entries.len();
        let (table, payloads) =
            buffer[RUN_HEADER_BYTES..].split_at_mut(table_end - RUN_HEADER_BYTES);
        let mut at = 0;
        for (line, entry) in table.chunks_exact_mut(ENTRY_HEADER_BYTES).zip(&self.entries) {
            debug_assert!(entry.is_intact(), "an entry changed after it was born");
            put_entry_header(line, entry);
            payloads[at..at + entry.payload.len()].copy_from_slice(&entry.payload);
            at += entry.payload.len();
        }
        table_end + at
    }
}

fn put_entry_header(line: &mut [u8], entry: &Entry) {
    let mut put = Put::new(line);
    put.u32(u32::try_from(entry.payload.len()).expect("limits bound a payload"));
    put.u32(entry.crc);
    put.u32(entry.kind as u32);
}

/// One entry as it lies in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// What it is for.
    pub kind: EntryKind,
    /// The checksum it was born with.
    pub crc: u32,
    /// Its bytes, in the segment.
    pub payload: &'a [u8],
}

impl EntryRef<'_> {
    /// A copy that outlives the segment.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        let payload = bytes::Bytes::copy_from_slice(self.payload);
        Entry { kind: self.kind, crc: self.crc, payload }
    }
}

/// What a run's checksum covers begins behind the checksum itself.
fn covered_from() -> usize {
    if planted(Planted::HeaderNotCovered) { RUN_HEADER_BYTES } else { 4 }
}

/// One run as it lies in a segment: its header and table are verified, its payloads only where a
/// method says so.
#[derive(Debug, Clone, Copy)]
pub struct RunRef<'a> {
    /// What it holds.
    pub kind: RunKind,
    /// Whose entries.
    pub group: GroupId,
    /// The group's hard state when the run was written.
    pub hard_state: HardState,
    /// The term of all entries.
    pub run_term: Term,
    /// The index of the first entry.
    pub first: Index,
    /// How many entries; zero for hard state alone.
    pub count: u32,
    /// Checksum of header and table, as stored.
    pub(super) crc: u32,
    at: u64,
    table: &'a [u8],
    payloads: &'a [u8],
}

impl<'a> RunRef<'a> {
    /// Parse the run at the start of `bytes`, which lies at byte `at` of its segment, and return
    /// it with what follows.
    pub(super) fn parse(bytes: &'a [u8], at: u64) -> Result<(Self, &'a [u8]), Fault> {
        let short = |what, needed: usize| Fault::new(what, at, needed as u64, bytes.len() as u64);
        if bytes.len() < RUN_HEADER_BYTES {
            return Err(short("room for a run header", RUN_HEADER_BYTES));
        }
        let mut take = Take::new(bytes);
        let (crc, count) = (take.u32(), take.u32());
        let group = GroupId(take.u64());
        let hard_state = HardState {
            term: Term(take.u64()),
            vote: ReplicaId(take.u64()),
            commit: Index(take.u64()),
        };
        let (run_term, first) = (Term(take.u64()), Index(take.u64()));
        let payload_bytes = take.u32() as usize;
        let code = take.u32();
        let table_end = RUN_HEADER_BYTES + ENTRY_HEADER_BYTES * count as usize;
        if bytes.len() < table_end {
            return Err(short("room for an entry table", table_end));
        }
        let computed = crc32fast::hash(&bytes[covered_from()..table_end]);
        if crc != computed {
            return Err(Fault::new("run checksum", at, u64::from(computed), u64::from(crc)));
        }
        let Some(kind) = RunKind::from_code(code) else {
            let known = RunKind::Recalled as u64;
            return Err(Fault::authentic("run kind", at + 60, known, u64::from(code)));
        };
        if bytes.len() - table_end < payload_bytes {
            return Err(short("room for payloads", table_end + payload_bytes));
        }
        let table = &bytes[RUN_HEADER_BYTES..table_end];
        let (payloads, rest) = bytes[table_end..].split_at(payload_bytes);
        let run =
            Self { kind, group, hard_state, run_term, first, count, crc, at, table, payloads };
        run.check_written()?;
        Ok((run, rest))
    }

    /// What a checksum cannot say: that the fields make sense together. Everything that reads a
    /// run later relies on it.
    fn check_written(&self) -> Result<(), Fault> {
        let lines = self.kind.lines();
        if !lines.contains(&self.count) {
            let (most, found) = (u64::from(*lines.end()), u64::from(self.count));
            return Err(Fault::authentic(
                "entries in a run of this kind",
                self.at + 4,
                most,
                found,
            ));
        }
        let mut sum = 0;
        for (number, line) in self.table.chunks_exact(ENTRY_HEADER_BYTES).enumerate() {
            let at = self.at + (RUN_HEADER_BYTES + number * ENTRY_HEADER_BYTES) as u64;
            let mut take = Take::new(line);
            sum += u64::from(take.u32());
            take.u32();
            let kind = take.u32();
            if kind_from(kind).is_none() {
                let known = EntryKind::Session as u64;
                return Err(Fault::authentic("entry kind", at + 8, known, u64::from(kind)));
            }
        }
        let payload_bytes = self.payloads.len() as u64;
        if sum != payload_bytes {
            return Err(Fault::authentic(
                "payload bytes of a run",
                self.at + 56,
                sum,
                payload_bytes,
            ));
        }
        if (self.count > 0 || self.is_snapshot()) && self.first.0 == 0 {
            return Err(Fault::authentic("first index of a run", self.at + 48, 1, 0));
        }
        if self.first.0.checked_add(u64::from(self.count)).is_none() {
            let (most, first) = (u64::MAX - u64::from(self.count), self.first.0);
            return Err(Fault::authentic("first index of a run", self.at + 48, most, first));
        }
        Ok(())
    }

    const fn is_snapshot(&self) -> bool {
        match self.kind {
            RunKind::SnapshotPiece | RunKind::SnapshotTaken | RunKind::SnapshotInstalled => true,
            RunKind::Log
            | RunKind::Tombstone
            | RunKind::PromisesForgotten
            | RunKind::EntriesForgotten
            | RunKind::Recalled => false,
        }
    }

    /// Compare every payload with its checksum.
    pub(super) fn verify_payloads(&self) -> Result<(), Fault> {
        let mut at = self.at + (RUN_HEADER_BYTES + self.table.len()) as u64;
        for entry in self.entries() {
            let computed = crc32fast::hash(entry.payload);
            if computed != entry.crc {
                let (expected, found) = (u64::from(entry.crc), u64::from(computed));
                return Err(Fault::new("payload checksum", at, expected, found));
            }
            at += entry.payload.len() as u64;
        }
        Ok(())
    }

    /// The last index; the one before `first` if there are no entries.
    #[must_use]
    pub fn last(&self) -> Index {
        self.first.plus(u64::from(self.count)).prev()
    }

    /// The entries, in index order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = EntryRef<'a>> + use<'a> {
        let mut payloads = self.payloads;
        self.table.chunks_exact(ENTRY_HEADER_BYTES).map(move |line| {
            let mut take = Take::new(line);
            let (payload, rest) = payloads.split_at(take.u32() as usize);
            payloads = rest;
            let crc = take.u32();
            let kind = kind_from(take.u32()).expect("checked when the run was parsed");
            EntryRef { kind, crc, payload }
        })
    }
}

fn kind_from(code: u32) -> Option<EntryKind> {
    u8::try_from(code).ok().and_then(EntryKind::from_code)
}
