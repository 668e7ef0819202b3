//! Where the next write goes.
//!
//! ```text
//!            place ──► Write ──► driver: encode, write, sync ──► on_durable
//!              │                                                     │
//!   segment N  │ in flight, at most FLUSHES_IN_FLIGHT_MAX            ▼
//!  ┌──────┬────┴──┬───────┬───────┬ ─ ─ ─ ─ ─ ┬───────┐      watermark moves on;
//!  │header│ batch │ batch │ batch │   room    │reserve│      the next batch carries it
//!  └──────┴───────┴───────┴───────┴ ─ ─ ─ ─ ─ ┴───────┘
//! ```
//!
//! *Rotation is a barrier.* The header of segment N+1 travels with the first batch in it, and says
//! where segment N ends. It is placed only when nothing of segment N is in flight, so its existence
//! proves that all of N is durable, and recovery judges N by it. The barrier costs one flush in
//! 64 MiB.
//!
//! The last block of each segment is kept for [`Appender::closing_write`], which must not need a
//! spare.

use std::collections::{BTreeSet, VecDeque};

use crate::id::{FlushTicket, GroupId, Index, SegmentSeq};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_BYTES_SOFT, BLOCK_BYTES, FLUSHES_IN_FLIGHT_MAX, SEGMENT_BYTES,
    SPARE_SEGMENTS,
};

use super::batch::{Batch, BatchHeader};
use super::record::{Run, RunKind};
use super::segment::{End, FORMAT_VERSION, Identity, Location, SegmentHeader, align};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Where a reopened log goes on: always in a new segment. From `Recovery::finish`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The segment to write next; no batch header of this number or a higher one lies anywhere.
    pub next_segment: SegmentSeq,
    /// The number of the next batch.
    pub next_batch: u64,
    /// Where the log ends.
    pub end: End,
}

impl Default for Position {
    /// An empty log.
    fn default() -> Self {
        Self { next_segment: SegmentSeq(1), next_batch: 1, end: End::default() }
    }
}

/// Whether a batch can be placed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Yes.
    Yes,
    /// Not before [`Appender::on_durable`]: as many writes are in flight as are allowed, or the
    /// segment is full and the next one waits for this one's writes.
    Drain,
    /// Not before [`Appender::on_spare`]: the segment is full and the next is not prepared, because
    /// the disk is full or slow.
    NoSpare,
}

/// The end of a shard's log. One per shard; owned by the shard, obeyed by the driver.
#[derive(Debug)]
pub struct Appender {
    identity: Identity,
    salt: u32,
    segment_bytes: u64,
    /// The segment being written; `None` until the first write after opening.
    open: Option<SegmentSeq>,
    /// The first byte after the last batch placed, and the checksum of its header.
    end: End,
    next_segment: SegmentSeq,
    next_batch: u64,
    next_ticket: FlushTicket,
    /// Writes not yet durable, oldest first, each with the place where it ends.
    in_flight: VecDeque<(FlushTicket, Location)>,
    /// All in front of this place is durable. `durable <= end.at`.
    durable: Location,
    /// Prepared segments, all `>= next_segment`.
    spares: BTreeSet<SegmentSeq>,
    /// The last batch holds runs, and nothing later says that it is durable.
    unproven: bool,
}

impl Appender {
    /// Go on at `position`.
    ///
    /// Everything in front of `position` must be durable: recovery reads what the page cache or the
    /// device's cache holds, so the driver syncs the last segment's file once after recovery,
    /// before anything recovered is acted on (contract row 27).
    #[must_use]
    pub fn new(identity: Identity, position: Position) -> Self {
        Self::with_segment_bytes(identity, position, SEGMENT_BYTES)
    }

    /// As [`Appender::new`], with segments of another size than [`SEGMENT_BYTES`] (bytes): small
    /// ones make a simulation rotate often.
    ///
    /// # Panics
    /// If `segment_bytes` is not a whole number of blocks, at least three, or exceeds 32 bits.
    #[must_use]
    pub fn with_segment_bytes(
        identity: Identity,
        position: Position,
        segment_bytes: usize,
    ) -> Self {
        assert!(segment_bytes.is_multiple_of(BLOCK_BYTES), "segments are whole blocks");
        assert!(segment_bytes >= 3 * BLOCK_BYTES, "room for header, batch and reserve");
        assert!(u32::try_from(segment_bytes).is_ok(), "the header has 32 bits for it");
        Self {
            identity,
            salt: identity.salt(),
            segment_bytes: segment_bytes as u64,
            open: None,
            end: position.end,
            next_segment: position.next_segment,
            next_batch: position.next_batch,
            next_ticket: FlushTicket(1),
            in_flight: VecDeque::with_capacity(FLUSHES_IN_FLIGHT_MAX),
            durable: position.end.at,
            spares: BTreeSet::new(),
            unproven: false,
        }
    }

    /// The driver has prepared this segment: a file of full length, all of it written before and
    /// durable, under its final name, its directory synced (contract row 52). It is zero, or was a
    /// segment of this log with a lower number ([`super::successor_of`]). Recovery takes such a file for a
    /// spare. Segments already passed are ignored.
    pub fn on_spare(&mut self, segment: SegmentSeq) {
        if segment >= self.next_segment {
            self.spares.insert(segment);
        }
    }

    /// The segment the driver should prepare next, if fewer than [`SPARE_SEGMENTS`] are ready. The
    /// same until [`Appender::on_spare`]: the caller remembers what it has asked for.
    #[must_use]
    pub fn wants_spare(&self) -> Option<SegmentSeq> {
        let next = self.next_segment.0;
        (next..next + SPARE_SEGMENTS as u64).map(SegmentSeq).find(|seq| !self.spares.contains(seq))
    }

    /// Bytes from which on a batch should take no more: [`BATCH_BYTES_SOFT`], or a quarter of a segment where
    /// segments are small, so that a batch fits with the run that comes last, and its entries' heads.
    #[must_use]
    pub fn batch_bytes_soft(&self) -> usize {
        BATCH_BYTES_SOFT.min(self.segment_bytes as usize / 4)
    }

    /// Whether a batch of `bytes` ([`Batch::bytes`]) can be placed now.
    ///
    /// # Panics
    /// If it would not fit an empty segment: no waiting helps.
    #[must_use]
    pub fn can_place(&self, bytes: usize) -> Room {
        let aligned = align(bytes) as u64;
        assert!(
            aligned + 2 * BLOCK <= self.segment_bytes,
            "a batch of {bytes} bytes exceeds a segment of {}",
            self.segment_bytes
        );
        if self.in_flight.len() >= FLUSHES_IN_FLIGHT_MAX {
            Room::Drain
        } else if self.fits(aligned) {
            Room::Yes
        } else if !self.in_flight.is_empty() {
            Room::Drain
        } else if !self.spares.contains(&self.next_segment) {
            Room::NoSpare
        } else {
            Room::Yes
        }
    }

    /// Bytes for which no other segment has to be prepared.
    #[must_use]
    pub fn room(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |_| self.segment_bytes - self.end.at.offset);
        open + self.spares.len() as u64 * self.segment_bytes
    }

    /// How long a segment is, in bytes.
    #[must_use]
    pub const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    fn fits(&self, aligned: u64) -> bool {
        self.open.is_some() && self.end.at.offset + aligned + BLOCK <= self.segment_bytes
    }

    /// Give the batch its place in the log. The driver must perform the write; placing cannot be
    /// taken back.
    ///
    /// # Panics
    /// If [`Appender::can_place`] would not say [`Room::Yes`], or the batch is empty or exceeds
    /// [`BATCH_BYTES_MAX`].
    pub fn place(&mut self, batch: Batch) -> Write {
        assert!(!batch.is_empty(), "nothing to write");
        assert!(batch.bytes() <= BATCH_BYTES_MAX, "a batch exceeds limits::BATCH_BYTES_MAX");
        assert_eq!(self.can_place(batch.bytes()), Room::Yes, "the caller asks first");
        let rotated = (!self.fits(align(batch.bytes()) as u64)).then(|| self.rotate());
        self.unproven = true;
        self.append(batch, rotated)
    }

    /// An empty batch that carries the watermark, if nothing on disk says yet that the last batch
    /// is durable; `None` also while writes are in flight. For the driver's idle moments and for a
    /// clean shutdown: without it, damage to the last acknowledged batch looks like a torn tail
    /// (see [`super`]). The write takes a ticket like any other; one block, never a new segment.
    pub fn closing_write(&mut self) -> Option<Write> {
        self.owes_proof().then(|| self.close_with(Batch::new()))
    }

    /// Whether [`Appender::closing_write`] would yield one.
    #[must_use]
    pub fn owes_proof(&self) -> bool {
        self.unproven && self.in_flight.is_empty()
    }

    /// As [`Appender::closing_write`], of a batch that need not be proved in its turn: it says nothing new.
    ///
    /// # Panics
    /// If the batch is longer than one block, or nothing is owed.
    pub fn close_with(&mut self, batch: Batch) -> Write {
        assert!(self.owes_proof(), "nothing is to be proved");
        assert!(batch.bytes() <= BLOCK_BYTES, "one block is kept for it");
        self.unproven = false;
        self.append(batch, None)
    }

    /// Begin the next segment.
    fn rotate(&mut self) -> SegmentHeader {
        assert!(self.in_flight.is_empty(), "a segment's header proves the segment before it");
        assert!(self.durable == self.end.at, "nothing is in flight, so all is durable");
        let segment = self.next_segment;
        assert!(self.spares.remove(&segment), "only prepared segments are written");
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            identity: self.identity,
            segment_bytes: u32::try_from(self.segment_bytes).expect("checked in the constructor"),
            segment,
            previous: self.end,
            first_batch: self.next_batch,
        };
        self.open = Some(segment);
        self.next_segment = SegmentSeq(segment.0 + 1);
        self.end = End { at: Location { segment, offset: BLOCK }, chain: header.crc() };
        header
    }

    fn append(&mut self, batch: Batch, rotated: Option<SegmentHeader>) -> Write {
        let at = self.end.at;
        let header = BatchHeader {
            at,
            number: self.next_batch,
            bytes: u32::try_from(batch.bytes()).expect("a batch fits its segment"),
            runs: u32::try_from(batch.runs().len()).expect("a batch fits its segment"),
            chain: self.end.chain,
            body: batch.body(),
            durable: self.durable,
        };
        let aligned = align(batch.bytes());
        let ticket = self.next_ticket;
        self.next_ticket = FlushTicket(ticket.0 + 1);
        self.next_batch += 1;
        self.end.at.offset += aligned as u64;
        self.end.chain = header.encode(self.salt).1;
        assert!(self.end.at.offset <= self.segment_bytes, "a batch stays in its segment");
        self.in_flight.push_back((ticket, self.end.at));
        let lead = if rotated.is_some() { BLOCK_BYTES } else { 0 };
        Write {
            ticket,
            segment: at.segment,
            offset: at.offset - lead as u64,
            bytes: lead + aligned,
            salt: self.salt,
            segment_header: rotated,
            header,
            batch,
        }
    }

    /// The write and all before it are durable.
    ///
    /// # Panics
    /// If `ticket` is not the oldest in flight: a completion acted on out of order would let the
    /// watermark pass a write that is not durable.
    pub fn on_durable(&mut self, ticket: FlushTicket) {
        let (oldest, end) = self.in_flight.pop_front().expect("a flush was in flight");
        assert_eq!(ticket, oldest, "flushes are acted on in ticket order");
        assert!(self.durable < end, "the watermark only rises");
        self.durable = end;
    }

    /// How many writes are not durable yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Everything in front of this place is durable.
    #[must_use]
    pub const fn durable(&self) -> Location {
        self.durable
    }

    /// The segment being written; files below it are sealed. `None` before the first write.
    #[must_use]
    pub const fn open_segment(&self) -> Option<SegmentSeq> {
        self.open
    }
}

/// One disk write: aligned, in one piece, complete with every byte.
///
/// The driver may cut it into smaller writes in any order; only a sync after the last of them lets
/// it report the ticket.
#[derive(Debug)]
pub struct Write {
    /// Its name for [`Appender::on_durable`].
    pub ticket: FlushTicket,
    /// The file.
    pub segment: SegmentSeq,
    /// Where in the file, in bytes; a multiple of [`BLOCK_BYTES`].
    pub offset: u64,
    /// How many bytes; a multiple of [`BLOCK_BYTES`].
    pub bytes: usize,
    salt: u32,
    /// Leads the batch in the first write of a segment.
    segment_header: Option<SegmentHeader>,
    header: BatchHeader,
    batch: Batch,
}

impl Write {
    /// Fill `buffer` (its old content does not matter) in one pass.
    ///
    /// # Panics
    /// If `buffer` is not exactly `bytes` long.
    pub fn encode_into(&self, buffer: &mut [u8]) {
        assert_eq!(buffer.len(), self.bytes, "the buffer is as long as the write");
        self.encode_parts(buffer);
    }

    fn encode_parts(&self, buffer: &mut [u8]) {
        let lead = self.lead();
        if let Some(header) = &self.segment_header {
            header.encode_into(&mut buffer[..lead]);
        }
        self.batch.encode_into(&self.header, self.salt, &mut buffer[lead..]);
    }

    /// How many of its bytes are zeroes that fill its last block.
    #[must_use]
    pub fn padding_bytes(&self) -> usize {
        self.bytes - self.lead() - self.batch.bytes()
    }

    /// What the segment's header takes in front of the batch.
    fn lead(&self) -> usize {
        if self.segment_header.is_some() { BLOCK_BYTES } else { 0 }
    }

    /// Its bytes without the zeroes that fill its last block, for drivers that need none: in place of what
    /// `buffer` held.
    pub fn encode_unpadded(&self, buffer: &mut Vec<u8>) {
        buffer.resize(self.lead() + self.batch.bytes(), 0);
        self.encode_parts(buffer);
    }

    /// The bytes as a new vector, for drivers without aligned buffers.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes];
        self.encode_into(&mut bytes);
        bytes
    }

    /// The batch, to be used again; for a driver that has the bytes.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        self.batch
    }

    /// All runs it holds, in the order they take effect.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        self.batch.runs()
    }

    /// The entries it holds, in the order they take effect, for [`super::LogIndex::note`]: group,
    /// first index, count, place. Other runs are left out.
    pub fn locations(&self) -> impl Iterator<Item = (GroupId, Index, u64, Location)> {
        let at = self.header.at;
        let is_log = |run: &&Run| run.kind == RunKind::Log && !run.entries.is_empty();
        let runs = self.batch.runs().iter().filter(is_log);
        runs.map(move |run| (run.group, run.first, run.entries.len() as u64, at))
    }
}
