//! One batch: the runs of many groups in one disk write.
//!
//! ```text
//!  byte
//!     0  magic "ORUN"                       4   "OBAT" in versions 1 to 3: runs of another layout
//!     4  crc of bytes 0..4 and 8..64        4   seeded with the log's identity; older ones: of 8..64
//!     8  segment                            8   ┐ where this batch belongs: bytes that lie
//!    16  offset in the segment              8   ┘ anywhere else are not this batch
//!    24  batch number                       8   counts over the whole log
//!    32  bytes, header and runs             4
//!    36  count of runs                      4   0: carries the watermark alone
//!    40  chain: crc of the header before    4   the batch before, or the segment's header
//!    44  body: crc of the runs' crcs        4
//!    48  durable watermark: segment         8   ┐ all in front of this point was durable when
//!    56  durable watermark: offset          8   ┘ this batch was placed
//!    64  runs, back to back
//!     …  zero to the end of the block
//! ```

use crate::entry::checksum_of_parts;
use crate::id::SegmentSeq;
use crate::limits::{APPEND_ENTRIES_MAX, BATCH_RUNS_KEPT, BLOCK_BYTES};
use crate::planted::{Planted, planted};

use super::codec::{Put, Take, first_non_zero};
use super::damage::Fault;
use super::lists::EntryLists;
use super::record::{self, Layout, Run, RunKind, RunRef};
use super::segment::{End, Location, align};

const MAGIC: u32 = u32::from_le_bytes(*b"ORUN");
/// Of the versions before 4.
const MAGIC_WIDE: u32 = u32::from_le_bytes(*b"OBAT");
/// A batch header, in bytes.
pub(super) const BATCH_HEADER_BYTES: usize = 64;

/// Runs gathered for one disk write.
#[derive(Debug, Clone)]
pub struct Batch {
    runs: Vec<Run>,
    /// The checksum of each run, in the same order.
    crcs: Vec<u32>,
    bytes: usize,
    /// Lists for the runs to come.
    lists: EntryLists,
}

/// As `limits` counts.
const _: () = assert!(size_of::<Run>() + size_of::<u32>() <= 256);

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty batch. Allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            runs: Vec::new(),
            crcs: Vec::new(),
            bytes: BATCH_HEADER_BYTES,
            lists: EntryLists::default(),
        }
    }

    /// Makes room for so many more runs.
    pub fn reserve(&mut self, runs: usize) {
        self.runs.reserve(runs);
        self.crcs.reserve(runs);
    }

    /// Lists for the entries of runs to come, from the runs that were in this batch before.
    pub fn lists(&mut self) -> &mut EntryLists {
        &mut self.lists
    }

    /// Forgets everything and keeps its memory, within [`BATCH_RUNS_KEPT`] and
    /// [`BATCH_ENTRIES_KEPT`](crate::limits::BATCH_ENTRIES_KEPT).
    pub fn clear(&mut self) {
        for run in self.runs.drain(..) {
            self.lists.put_back(run.entries);
        }
        self.crcs.clear();
        self.bytes = BATCH_HEADER_BYTES;
        if BATCH_RUNS_KEPT < self.runs.capacity() {
            (self.runs, self.crcs) = (Vec::new(), Vec::new());
        }
    }

    /// Add a run; checksums its header and entry table. Runs take effect in the order they were
    /// pushed, so one group may appear more than once.
    ///
    /// # Panics
    /// If the run exceeds [`APPEND_ENTRIES_MAX`], has entries but no first index or term, or says of a
    /// replica that it is whole and that it is not: the log would refuse to open.
    pub fn push(&mut self, run: Run) {
        assert!(run.entries.len() <= APPEND_ENTRIES_MAX as usize, "too many entries in a run");
        assert!(run.entries.is_empty() || run.first.0 > 0, "entries without an index");
        assert!(run.entries.is_empty() || run.run_term.0 > 0, "entries without a term");
        let is_whole = matches!(run.kind, RunKind::Recalled | RunKind::SaidAgain);
        assert!(!(is_whole && run.is_forgetful), "a replica that is whole and is not");
        debug_assert!(
            !matches!(run.kind, RunKind::SnapshotTaken | RunKind::SnapshotInstalled)
                || run.first <= run.hard_state.commit,
            "a snapshot of what is not committed"
        );
        self.bytes += run.bytes();
        self.crcs.push(run.crc());
        self.runs.push(run);
    }

    /// Nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes so far, header included, not yet aligned.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What was pushed, in order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Binds the header to the content: the checksum over the checksums of the runs.
    pub(super) fn body(&self) -> u32 {
        body_of(self.crcs.iter().copied())
    }

    /// Fill `buffer` with header and runs: [`Self::bytes`], or its whole blocks, the rest zeroes.
    pub(super) fn encode_into(&self, header: &BatchHeader, salt: u32, buffer: &mut [u8]) {
        let is_whole = [self.bytes, align(self.bytes)].contains(&buffer.len());
        assert!(is_whole, "a batch, or the blocks it fills");
        buffer[..BATCH_HEADER_BYTES].copy_from_slice(&header.encode(salt).0);
        let mut at = BATCH_HEADER_BYTES;
        for (run, crc) in self.runs.iter().zip(&self.crcs) {
            at += run.encode_into(*crc, &mut buffer[at..]);
        }
        assert_eq!(at, self.bytes, "a batch is as long as it said");
        // The buffer is uninitialised or used memory: what is not zeroed here would end up on the
        // disk and be taken for damage later.
        buffer[at..].fill(0);
    }
}

fn body_of(crcs: impl Iterator<Item = u32>) -> u32 {
    let mut hasher = checksum_of_parts();
    // Many at a time, as in `Run::crc`.
    let mut bytes = [0; 256];
    let mut filled = 0;
    for crc in crcs {
        if filled == bytes.len() {
            hasher.update(&bytes);
            filled = 0;
        }
        bytes[filled..filled + 4].copy_from_slice(&crc.to_le_bytes());
        filled += 4;
    }
    hasher.update(&bytes[..filled]);
    hasher.finalize()
}

/// The first bytes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Where the batch was written.
    pub at: Location,
    /// Its number; the next batch has the next one.
    pub number: u64,
    /// Its length in bytes, header and runs, not aligned.
    pub bytes: u32,
    /// How many runs it holds.
    pub runs: u32,
    /// The checksum of the header before: of a batch, or of the segment.
    pub chain: u32,
    /// The checksum over the checksums of its runs.
    pub body: u32,
    /// Everything in front of this place was durable when the batch was placed.
    pub durable: Location,
}

impl BatchHeader {
    /// The bytes, and the checksum that the next batch chains to.
    pub(super) fn encode(&self, salt: u32) -> ([u8; BATCH_HEADER_BYTES], u32) {
        let mut bytes = [0; BATCH_HEADER_BYTES];
        let mut put = Put::new(&mut bytes);
        put.u32(MAGIC);
        put.u32(0);
        put.u64(self.at.segment.0);
        put.u64(self.at.offset);
        put.u64(self.number);
        put.u32(self.bytes);
        put.u32(self.runs);
        put.u32(self.chain);
        put.u32(self.body);
        put.u64(self.durable.segment.0);
        put.u64(self.durable.offset);
        let crc = header_crc(Layout::Packed, &bytes, salt);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }
}

impl Layout {
    const fn of(magic: u32) -> Option<Self> {
        match magic {
            MAGIC => Some(Self::Packed),
            MAGIC_WIDE => Some(Self::Wide),
            _ => None,
        }
    }
}

fn header_crc(layout: Layout, bytes: &[u8], salt: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    if layout == Layout::Packed {
        hasher.update(&bytes[..4]);
    }
    hasher.update(&bytes[8..BATCH_HEADER_BYTES]);
    hasher.finalize()
}

/// One batch as it lies in a segment. Its header is verified; its runs only where a method says
/// so.
#[derive(Debug, Clone, Copy)]
pub struct BatchRef<'a> {
    /// The header.
    pub header: BatchHeader,
    /// The header's checksum: the next batch chains to it.
    pub(super) crc: u32,
    layout: Layout,
    /// The whole batch with its padding.
    bytes: &'a [u8],
}

impl<'a> BatchRef<'a> {
    /// The bytes from `at` on, whose first are a batch header that is whole: its layout and its checksum. Where
    /// it was written, it says itself.
    fn head(segment: &'a [u8], at: Location, salt: u32) -> Result<(&'a [u8], Layout, u32), Fault> {
        let rest = usize::try_from(at.offset).ok().and_then(|start| segment.get(start..));
        let Some(rest) = rest.filter(|rest| rest.len() >= BLOCK_BYTES) else {
            let end = segment.len() as u64;
            return Err(Fault::new("room for a batch", at.offset, BLOCK_BYTES as u64, end));
        };
        let fault = |what, field, expected, found| {
            Err(Fault::new(what, at.offset + field, expected, found))
        };
        let mut take = Take::new(rest);
        let (magic, stored) = (take.u32(), take.u32());
        let Some(layout) = Layout::of(magic) else {
            return fault("batch magic", 0, u64::from(MAGIC), u64::from(magic));
        };
        let crc = header_crc(layout, rest, salt);
        if stored != crc {
            return fault("batch header checksum", 4, u64::from(crc), u64::from(stored));
        }
        Ok((rest, layout, crc))
    }

    /// Read the header of the batch at `at` in `segment` (the whole file): magic, checksum, that it
    /// was written for this very place, and that it lies within the file.
    pub(super) fn parse(segment: &'a [u8], at: Location, salt: u32) -> Result<Self, Fault> {
        let (rest, layout, crc) = Self::head(segment, at, salt)?;
        let fault = |what, field, expected, found| {
            Err(Fault::new(what, at.offset + field, expected, found))
        };
        let mut take = Take::new(&rest[8..]);
        let segment = SegmentSeq(take.u64());
        if segment != at.segment && !planted(Planted::RecycledRecordAccepted) {
            // A whole batch of the file's earlier life.
            return fault("batch's segment", 8, at.segment.0, segment.0);
        }
        let offset = take.u64();
        if offset != at.offset {
            return fault("batch's offset", 16, at.offset, offset);
        }
        let number = take.u64();
        let (bytes, runs) = (take.u32(), take.u32());
        let (chain, body) = (take.u32(), take.u32());
        let durable = Location { segment: SegmentSeq(take.u64()), offset: take.u64() };
        let header = BatchHeader { at, number, bytes, runs, chain, body, durable };
        let aligned = align(bytes as usize);
        if (bytes as usize) < BATCH_HEADER_BYTES || rest.len() < aligned {
            let (found, at) = (u64::from(bytes), at.offset + 32);
            return Err(Fault::authentic("batch bytes", at, rest.len() as u64, found));
        }
        if durable > at {
            let (at, found) = (at.offset + 56, durable.offset);
            return Err(Fault::authentic("durable watermark", at, header.at.offset, found));
        }
        Ok(Self { header, crc, layout, bytes: &rest[..aligned] })
    }

    /// Does a batch header stand at `at` that was written there for this log when the file was a segment
    /// with a lower number?
    pub(super) fn is_earlier_life(segment: &'a [u8], at: Location, salt: u32) -> bool {
        Self::head(segment, at, salt).is_ok_and(|(rest, ..)| {
            let mut take = Take::new(&rest[8..]);
            let (segment, offset) = (SegmentSeq(take.u64()), take.u64());
            segment < at.segment && offset == at.offset
        })
    }

    /// Bytes it takes in the file, padding included.
    #[must_use]
    pub const fn aligned(&self) -> usize {
        self.bytes.len()
    }

    /// Where the batch after this one, which lies at `at`, begins, and what it chains to.
    pub(super) fn next(&self, at: Location) -> End {
        let at = Location { offset: at.offset + self.aligned() as u64, ..at };
        End { at, chain: self.crc }
    }

    /// Check that the headers of the runs are the ones this batch was written for: whose they are, and
    /// which entries they hold, can then be believed.
    pub(super) fn verify_headers(&self) -> Result<(), Fault> {
        self.verify_runs(Payloads::Skip)
    }

    /// Check that the runs are the ones the header was written for, and the padding. The payloads
    /// only if asked: a reader checks those it takes.
    pub(super) fn verify(&self, payloads: Payloads) -> Result<(), Fault> {
        self.verify_runs(payloads)?;
        let at = self.header.at.offset;
        let end = self.header.bytes as usize;
        if let Some((place, found)) = first_non_zero(&self.bytes[end..]) {
            return Err(Fault::new("batch padding", at + (end + place) as u64, 0, found));
        }
        Ok(())
    }

    fn verify_runs(&self, payloads: Payloads) -> Result<(), Fault> {
        let at = self.header.at.offset;
        let mut hasher = checksum_of_parts();
        let mut walk = self.runs();
        for run in &mut walk {
            let run = run.map_err(|fault| self.as_this_batch_s(fault))?;
            hasher.update(&run.crc.to_le_bytes());
            match payloads {
                Payloads::Verify => run.verify_payloads()?,
                Payloads::Skip => {}
            }
        }
        let rest = walk.rest.len() as u64;
        let body = hasher.finalize();
        if body != self.header.body {
            let (expected, found) = (u64::from(self.header.body), u64::from(body));
            return Err(Fault::new("checksum over the runs", at + 44, expected, found));
        }
        if rest != 0 {
            return Err(Fault::authentic("bytes after the last run", at + 32, 0, rest));
        }
        Ok(())
    }

    /// A run that contradicts itself was written like that only if it is this batch's, and not what an earlier life
    /// left where a part of it never arrived: the checksum of a run is bound to no place.
    fn as_this_batch_s(&self, fault: Fault) -> Fault {
        if !fault.authentic {
            return fault;
        }
        let mut rest = &self.bytes[BATCH_HEADER_BYTES..self.header.bytes as usize];
        let crcs: Option<Vec<u32>> = (0..self.header.runs)
            .map(|_| {
                let (crc, after) = record::skip(self.layout, rest)?;
                rest = after;
                Some(crc)
            })
            .collect();
        let authentic = crcs.is_some_and(|crcs| body_of(crcs.into_iter()) == self.header.body);
        Fault { authentic, ..fault }
    }

    /// The runs in the order they were pushed; ends after the first that does not parse.
    #[must_use]
    pub fn runs(&self) -> Runs<'a> {
        Runs {
            rest: &self.bytes[BATCH_HEADER_BYTES..self.header.bytes as usize],
            at: self.header.at.offset + BATCH_HEADER_BYTES as u64,
            left: self.header.runs,
            layout: self.layout,
            is_verified: false,
        }
    }

    /// As [`Self::runs`], after all of them were verified: their checksums are not taken again.
    pub(super) fn runs_again(&self) -> Runs<'a> {
        Runs { is_verified: true, ..self.runs() }
    }
}

/// Iterates over the runs of a [`BatchRef`].
#[derive(Debug, Clone)]
pub struct Runs<'a> {
    rest: &'a [u8],
    at: u64,
    left: u32,
    layout: Layout,
    is_verified: bool,
}

impl<'a> Iterator for Runs<'a> {
    type Item = Result<RunRef<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        match RunRef::parse(self.layout, self.rest, self.at, self.is_verified) {
            Ok((run, rest)) => {
                self.at += (self.rest.len() - rest.len()) as u64;
                self.rest = rest;
                Some(Ok(run))
            }
            Err(fault) => {
                self.left = 0;
                Some(Err(fault))
            }
        }
    }
}

/// Whether [`BatchRef::verify`] reads the payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payloads {
    /// Compare each with its checksum.
    Verify,
    /// Leave them to the caller.
    Skip,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_memory_for_so_many_runs_and_gives_back_more() {
        let mut batch = Batch::new();
        for (runs, is_kept) in [(BATCH_RUNS_KEPT, true), (BATCH_RUNS_KEPT + 1, false)] {
            batch.reserve(runs);
            assert!(runs <= batch.runs.capacity() && runs <= batch.crcs.capacity());
            batch.clear();
            assert_eq!(batch.runs.capacity() > 0, is_kept, "{runs}");
            assert_eq!(batch.crcs.capacity() > 0, is_kept, "{runs}");
        }
    }
}
