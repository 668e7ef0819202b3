//! One run: consecutive entries of one term of one group, and the group's hard state; or a piece of a
//! snapshot of the group, in place of entries.
//!
//! ```text
//!  byte
//!     0  crc of what follows, to the end of the table   4
//!     4  widths, four bits each                         4   bytes 0 to 8 of each field below, and the kind of
//!                                                           the run (see [`RunKind`]) in the highest four;
//!                                                           the topmost bit: [`Run::is_forgetful`], but for
//!                                                           [`RunKind::SaidAgain`]
//!     8  count of entries                               w   0: hard state alone
//!        group                                          w
//!        term       ┐                                   w
//!        vote       │ hard state                        w
//!        commit     ┘                                   w
//!        term, less the term of the entries             w   wrapping
//!        index of the first entry, less commit          w   zig-zag: 0, -1, 1, -2, …
//!     …  entry table, 8 bytes each
//!          0  payload bytes                             3
//!          3  kind                                      1
//!          4  payload crc                               4   the one the entry was born with
//!     …  payloads, back to back, no padding
//! ```
//!
//! Widths are the fewest that hold the value, so that a run has one form only. Most runs hold one entry, and a
//! header of the full width was a quarter of a log of small ones: the usual header takes 17 bytes, and could
//! take 64 ([`Layout`] tells what older versions wrote).
//!
//! The run's checksum covers the payloads' checksums, and the batch header covers the run's: a
//! payload that passes belongs to this entry of this run of this batch, whatever lay in the file
//! before.
//!
//! A run that is not of the log names the snapshot it belongs to in place of its entries: its last
//! entry's term and index. A piece is the payload of the only line of its table, with kind 1.

use bytes::Bytes;

use crate::entry::{Entry, EntryKind, SESSION_HEADER_BYTES, checksum, checksum_of_parts};
use crate::id::{EntryId, GroupId, Index, ReplicaId, Term};
use crate::limits::{COMMAND_BYTES_MAX, SNAPSHOT_PIECE_BYTES_MAX};
use crate::planted::{Planted, planted};
use crate::raft::effects::HardState;

use super::codec::{Put, Take};
use super::damage::Fault;
use super::lists::EntryList;

/// One line of the entry table, in bytes.
const LINE_BYTES: usize = 8;
/// The checksum and the widths of a run.
const WIDTHS_END: usize = 8;
/// Fields that have widths.
const FIELDS: usize = 7;
/// Of a kind's four bits, the one that says that the replica was not whole.
const FORGETFUL: u32 = 1 << 3;
/// A run's header at its longest, in bytes; also that of every run of a [`Layout::Wide`].
const HEADER_BYTES_MAX: usize = WIDTHS_END + 8 * FIELDS;
/// One line of the entry table of a [`Layout::Wide`].
const WIDE_LINE_BYTES: usize = 12;

// A payload's length leaves a byte of its word to its kind.
const _: () = assert!(COMMAND_BYTES_MAX + SESSION_HEADER_BYTES < 1 << 24);
const _: () = assert!(SNAPSHOT_PIECE_BYTES_MAX < 1 << 24);

/// How the runs of a batch are laid out; the batch's magic tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wal) enum Layout {
    /// As drawn above, since format version 4.
    Packed,
    /// Of versions 1 to 3, which are read and never written: count 4, group, term, vote, commit, term of the
    /// entries and first index 8 each, payload bytes of all entries 4, kind 4; lines of payload bytes, crc
    /// and kind, 4 each.
    Wide,
}

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
    /// From here on it stands for the log up to its last entry, and what follows that entry stays. From a replica that is
    /// not whole: one that a member gave back that does not lead; what follows stays if it goes on from there.
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
    /// Nothing new: the hard state, and the entry that the log ended with when this was written. Where the run that said
    /// so first cannot be read, this tells what was in it. Since format version 5; it has all four bits of a kind.
    SaidAgain = 15,
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
            | Self::Recalled
            | Self::SaidAgain => 0..=0,
        }
    }
}

/// What one group writes in one batch: its hard state and, mostly, entries of one term. Entries of
/// several terms make several runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What it holds.
    pub kind: RunKind,
    /// The replica that wrote it was not whole: something that it had promised or acknowledged was gone.
    pub is_forgetful: bool,
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
    pub entries: EntryList,
}

impl Run {
    /// A piece of the snapshot of `group` at `entry`.
    #[must_use]
    pub fn piece(group: GroupId, hard_state: HardState, entry: EntryId, piece: Bytes) -> Self {
        let entries = EntryList::from_iter([Entry::command(piece)]);
        Self { entries, ..Self::mark(RunKind::SnapshotPiece, group, hard_state, entry) }
    }

    /// A run without entries: the end of a snapshot, or a tombstone, for which `entry` means nothing.
    /// The commit index in the hard state of a snapshot's end is not below the snapshot
    /// (contract row 56).
    #[must_use]
    pub fn mark(kind: RunKind, group: GroupId, hard_state: HardState, entry: EntryId) -> Self {
        let (run_term, first, entries) = (entry.term, entry.index, EntryList::new());
        Self { kind, is_forgetful: false, group, hard_state, run_term, first, entries }
    }

    /// Bytes this run takes in a batch.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let payload: usize = self.entries.iter().map(|entry| entry.payload.len()).sum();
        let header = WIDTHS_END + self.fields().iter().map(|field| width(*field)).sum::<usize>();
        header + LINE_BYTES * self.entries.len() + payload
    }

    /// What has widths, in its order.
    fn fields(&self) -> [u64; FIELDS] {
        let HardState { term, vote, commit } = self.hard_state;
        [
            self.entries.len() as u64,
            self.group.0,
            term.0,
            vote.0,
            commit.0,
            term.0.wrapping_sub(self.run_term.0),
            zigzag(self.first.0.wrapping_sub(commit.0)),
        ]
    }

    /// The header, its checksum left out, and its length.
    fn header(&self) -> ([u8; HEADER_BYTES_MAX + 8], usize) {
        let mut bytes = [0; HEADER_BYTES_MAX + 8];
        let forgetful = if self.is_forgetful { FORGETFUL } else { 0 };
        let mut widths = (self.kind as u32 | forgetful) << (4 * FIELDS);
        let mut end = WIDTHS_END;
        for (number, field) in self.fields().into_iter().enumerate() {
            // Always eight bytes: the next field begins where this one's zeroes do.
            bytes[end..end + 8].copy_from_slice(&field.to_le_bytes());
            let width = width(field);
            widths |= (width as u32) << (4 * number);
            end += width;
        }
        bytes[4..WIDTHS_END].copy_from_slice(&widths.to_le_bytes());
        (bytes, end)
    }

    /// The checksum of header and entry table. Independent of where the run is written, so it is
    /// taken once, when the run joins its batch.
    pub(super) fn crc(&self) -> u32 {
        let mut hasher = checksum_of_parts();
        let (header, end) = self.header();
        hasher.update(&header[covered_from(end)..end]);
        // Hashed a few lines at a time: eight bytes alone would not reach the fast path.
        let mut lines = [0; 32 * LINE_BYTES];
        for entries in self.entries.chunks(32) {
            let used = &mut lines[..entries.len() * LINE_BYTES];
            for (line, entry) in used.chunks_exact_mut(LINE_BYTES).zip(entries) {
                put_line(line, entry);
            }
            hasher.update(used);
        }
        hasher.finalize()
    }

    /// Write the run at the start of `buffer`; returns the bytes used.
    pub(super) fn encode_into(&self, crc: u32, buffer: &mut [u8]) -> usize {
        let (header, end) = self.header();
        buffer[..end].copy_from_slice(&header[..end]);
        buffer[..4].copy_from_slice(&crc.to_le_bytes());
        let (table, payloads) = buffer[end..].split_at_mut(LINE_BYTES * self.entries.len());
        let mut at = 0;
        for (line, entry) in table.chunks_exact_mut(LINE_BYTES).zip(&self.entries) {
            debug_assert!(entry.is_intact(), "an entry changed after it was born");
            put_line(line, entry);
            payloads[at..at + entry.payload.len()].copy_from_slice(&entry.payload);
            at += entry.payload.len();
        }
        end + table.len() + at
    }
}

/// Bytes that hold `value`.
const fn width(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()).div_ceil(8) as usize
}

/// Small numbers for small differences of either sign.
const fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ ((difference as i64 >> 63) as u64)
}

const fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

fn put_line(line: &mut [u8], entry: &Entry) {
    let bytes = u32::try_from(entry.payload.len()).expect("limits bound a payload");
    assert!(bytes < 1 << 24, "limits bound a payload");
    let mut put = Put::new(line);
    put.u32(bytes | (entry.kind as u32) << 24);
    put.u32(entry.crc);
}

/// A line of an entry table.
struct Line {
    bytes: u32,
    crc: u32,
    kind: u32,
}

impl Layout {
    const fn line_bytes(self) -> usize {
        match self {
            Self::Packed => LINE_BYTES,
            Self::Wide => WIDE_LINE_BYTES,
        }
    }

    /// The kind of a run, and whether its replica was not whole: it was when it wrote `Recalled` or `SaidAgain`.
    const fn kind(self, code: u32) -> Option<(RunKind, bool)> {
        if matches!(self, Self::Packed) && code == RunKind::SaidAgain as u32 {
            return Some((RunKind::SaidAgain, false));
        }
        let forgetful = match self {
            Self::Packed => code & FORGETFUL,
            Self::Wide => 0,
        };
        match RunKind::from_code(code ^ forgetful) {
            Some(kind) => Some((kind, forgetful > 0)),
            None => None,
        }
    }

    fn line(self, line: &[u8]) -> Line {
        let mut take = Take::new(line);
        match self {
            Self::Packed => {
                let (word, crc) = (take.u32(), take.u32());
                Line { bytes: word & 0xff_ffff, crc, kind: word >> 24 }
            }
            Self::Wide => Line { bytes: take.u32(), crc: take.u32(), kind: take.u32() },
        }
    }
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

/// What a run's checksum covers begins behind the checksum itself. `end` is where its header does.
fn covered_from(end: usize) -> usize {
    if planted(Planted::HeaderNotCovered) { end } else { 4 }
}

/// A run's header as it lies in a segment. Nothing of it is verified.
struct Header {
    bytes: usize,
    count: u64,
    group: u64,
    hard_state: HardState,
    run_term: u64,
    first: u64,
    kind: u32,
    /// Payload bytes of all entries, where it says so.
    payload_bytes: Option<u64>,
    /// Every field has the width it needs.
    is_tight: bool,
}

impl Header {
    /// The header at the start of `bytes`, or how many bytes it would take.
    fn parse(layout: Layout, bytes: &[u8]) -> Result<Self, usize> {
        match layout {
            Layout::Packed => Self::packed(bytes),
            Layout::Wide if bytes.len() < HEADER_BYTES_MAX => Err(HEADER_BYTES_MAX),
            Layout::Wide => Ok(Self::wide(bytes)),
        }
    }

    fn packed(bytes: &[u8]) -> Result<Self, usize> {
        // Room for every field to be read as eight bytes, whatever follows it.
        const ROOM: usize = HEADER_BYTES_MAX + 8;
        let mut padded = [0; ROOM];
        let room: &[u8; ROOM] = match bytes.first_chunk() {
            Some(room) => room,
            None => {
                padded[..bytes.len()].copy_from_slice(bytes);
                &padded
            }
        };
        if bytes.len() < WIDTHS_END {
            return Err(WIDTHS_END);
        }
        let widths = Take::new(&room[4..]).u32();
        let mut end = WIDTHS_END;
        let mut is_tight = true;
        let mut next = |number: usize| {
            // More than eight are as eight: no checksum will hold, or none of ours.
            let wide = (widths >> (4 * number)) & 15;
            let width = wide.min(8);
            let field = Take::new(&room[end..]).u64();
            let field = field & u64::MAX.checked_shr(64 - 8 * width).unwrap_or(0);
            is_tight &= self::width(field) == wide as usize;
            end += width as usize;
            field
        };
        let (count, group) = (next(0), next(1));
        let (term, vote, commit) = (next(2), next(3), next(4));
        let (run_term, first) =
            (term.wrapping_sub(next(5)), unzigzag(next(6)).wrapping_add(commit));
        if bytes.len() < end {
            return Err(end);
        }
        let hard_state =
            HardState { term: Term(term), vote: ReplicaId(vote), commit: Index(commit) };
        let kind = widths >> (4 * FIELDS);
        let payload_bytes = None;
        Ok(Self {
            bytes: end,
            count,
            group,
            hard_state,
            run_term,
            first,
            kind,
            payload_bytes,
            is_tight,
        })
    }

    fn wide(bytes: &[u8]) -> Self {
        let mut take = Take::new(&bytes[4..]);
        let count = u64::from(take.u32());
        let group = take.u64();
        let hard_state = HardState {
            term: Term(take.u64()),
            vote: ReplicaId(take.u64()),
            commit: Index(take.u64()),
        };
        let (run_term, first) = (take.u64(), take.u64());
        let payload_bytes = Some(u64::from(take.u32()));
        let (bytes, kind, is_tight) = (HEADER_BYTES_MAX, take.u32(), true);
        Self { bytes, count, group, hard_state, run_term, first, kind, payload_bytes, is_tight }
    }
}

/// Where the parts of a run lie. Its checksum holds; what its fields say is not looked at.
struct Outline {
    header: Header,
    crc: u32,
    table_end: usize,
}

impl Outline {
    /// The run at the start of `bytes`, which lies at byte `at` of its segment. Of one that `is_verified`
    /// already, the checksum is taken for granted.
    fn parse(layout: Layout, bytes: &[u8], at: u64, is_verified: bool) -> Result<Self, Fault> {
        let short = |what, needed: u64| Fault::new(what, at, needed, bytes.len() as u64);
        let header = Header::parse(layout, bytes)
            .map_err(|needed| short("room for a run header", needed as u64))?;
        let table_bytes = header.count.saturating_mul(layout.line_bytes() as u64);
        let table_end = table_bytes.saturating_add(header.bytes as u64);
        if (bytes.len() as u64) < table_end {
            return Err(short("room for an entry table", table_end));
        }
        let table_end = table_end as usize;
        let crc = Take::new(bytes).u32();
        if !is_verified {
            let computed = checksum(&bytes[covered_from(header.bytes)..table_end]);
            if crc != computed {
                return Err(Fault::new("run checksum", at, u64::from(computed), u64::from(crc)));
            }
        }
        Ok(Self { header, crc, table_end })
    }
}

/// One run as it lies in a segment: its header and table are verified, its payloads only where a
/// method says so.
#[derive(Debug, Clone, Copy)]
pub struct RunRef<'a> {
    /// What it holds.
    pub kind: RunKind,
    /// The replica that wrote it was not whole.
    pub is_forgetful: bool,
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
    layout: Layout,
    header_bytes: usize,
    table: &'a [u8],
    payloads: &'a [u8],
}

impl<'a> RunRef<'a> {
    /// Parse the run at the start of `bytes`, which lies at byte `at` of its segment, and return
    /// it with what follows. Of one that `is_verified` already, the checksum is taken for granted.
    pub(super) fn parse(
        layout: Layout,
        bytes: &'a [u8],
        at: u64,
        is_verified: bool,
    ) -> Result<(Self, &'a [u8]), Fault> {
        let Outline { header, crc, table_end } = Outline::parse(layout, bytes, at, is_verified)?;
        if !header.is_tight {
            return Err(Fault::authentic("widths of a run's fields", at + 4, 0, 0));
        }
        let Some((kind, is_forgetful)) = layout.kind(header.kind) else {
            let (known, found) = (RunKind::Recalled as u64, u64::from(header.kind));
            return Err(Fault::authentic("run kind", at + 4, known, found));
        };
        let table = &bytes[header.bytes..table_end];
        let payload_bytes = payload_bytes(layout, table, at + header.bytes as u64)?;
        if let Some(said) = header.payload_bytes.filter(|said| *said != payload_bytes) {
            return Err(Fault::authentic("payload bytes of a run", at + 56, payload_bytes, said));
        }
        if ((bytes.len() - table_end) as u64) < payload_bytes {
            let needed = table_end as u64 + payload_bytes;
            return Err(Fault::new("room for payloads", at, needed, bytes.len() as u64));
        }
        let (payloads, rest) = bytes[table_end..].split_at(payload_bytes as usize);
        let run = Self {
            kind,
            is_forgetful,
            group: GroupId(header.group),
            hard_state: header.hard_state,
            run_term: Term(header.run_term),
            first: Index(header.first),
            // There are as many lines.
            count: header.count as u32,
            crc,
            at,
            layout,
            header_bytes: header.bytes,
            table,
            payloads,
        };
        run.check_written()?;
        Ok((run, rest))
    }

    /// What a checksum cannot say: that the fields make sense together. Everything that reads a
    /// run later relies on it.
    fn check_written(&self) -> Result<(), Fault> {
        let lines = self.kind.lines();
        if !lines.contains(&self.count) {
            let (most, found) = (u64::from(*lines.end()), u64::from(self.count));
            return Err(Fault::authentic("entries in a run of this kind", self.at, most, found));
        }
        if (self.count > 0 || self.is_snapshot()) && self.first.0 == 0 {
            return Err(Fault::authentic("first index of a run", self.at, 1, 0));
        }
        if self.first.0.checked_add(u64::from(self.count)).is_none() {
            let (most, first) = (u64::MAX - u64::from(self.count), self.first.0);
            return Err(Fault::authentic("first index of a run", self.at, most, first));
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
            | RunKind::Recalled
            | RunKind::SaidAgain => false,
        }
    }

    /// Compare every payload with its checksum.
    pub(super) fn verify_payloads(&self) -> Result<(), Fault> {
        let mut at = self.at + (self.header_bytes + self.table.len()) as u64;
        for entry in self.entries() {
            let computed = checksum(entry.payload);
            if computed != entry.crc {
                let (expected, found) = (u64::from(entry.crc), u64::from(computed));
                return Err(Fault::new("payload checksum", at, expected, found));
            }
            at += entry.payload.len() as u64;
        }
        Ok(())
    }

    /// Where it lies, in bytes from the start of its segment.
    pub(crate) fn place(&self) -> std::ops::Range<usize> {
        let at = self.at as usize;
        at..at + self.header_bytes + self.table.len() + self.payloads.len()
    }

    /// The last index; the one before `first` if there are no entries.
    #[must_use]
    pub fn last(&self) -> Index {
        self.first.plus(u64::from(self.count)).prev()
    }

    /// The entries, in index order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = EntryRef<'a>> + use<'a> {
        let (layout, mut payloads) = (self.layout, self.payloads);
        self.table.chunks_exact(layout.line_bytes()).map(move |line| {
            let Line { bytes, crc, kind } = layout.line(line);
            let (payload, rest) = payloads.split_at(bytes as usize);
            payloads = rest;
            let kind = kind_from(kind).expect("checked when the run was parsed");
            EntryRef { kind, crc, payload }
        })
    }
}

/// The checksum of the run at the start of `bytes`, if it holds, and what follows the run; whatever its fields say.
pub(super) fn skip(layout: Layout, bytes: &[u8]) -> Option<(u32, &[u8])> {
    let Outline { header, crc, table_end } = Outline::parse(layout, bytes, 0, false).ok()?;
    let lines = bytes[header.bytes..table_end].chunks_exact(layout.line_bytes());
    let payloads: usize = lines.map(|line| layout.line(line).bytes as usize).sum();
    Some((crc, bytes.get(table_end.checked_add(payloads)?..)?))
}

/// What the lines of a table, which lies at byte `at` of its segment, add up to; their kinds are checked.
fn payload_bytes(layout: Layout, table: &[u8], at: u64) -> Result<u64, Fault> {
    let mut sum = 0;
    for (number, line) in table.chunks_exact(layout.line_bytes()).enumerate() {
        let Line { bytes, kind, .. } = layout.line(line);
        sum += u64::from(bytes);
        if kind_from(kind).is_none() {
            let at = at + (number * layout.line_bytes()) as u64;
            let known = EntryKind::Session as u64;
            return Err(Fault::authentic("entry kind", at, known, u64::from(kind)));
        }
    }
    Ok(sum)
}

fn kind_from(code: u32) -> Option<EntryKind> {
    u8::try_from(code).ok().and_then(EntryKind::from_code)
}
