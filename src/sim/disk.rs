//! A disk that keeps what was flushed and tosses a coin for the rest.
//!
//! ```text
//!   Shard ── Write ──► in flight ──(latency)──► durable ── Flushed(ticket) ──► Shard
//!                          │
//!                        crash: each 512-byte sector is lost, kept or garbled
//! ```
//!
//! Several writes are in flight at once and finish in any order, so after a crash a later write may
//! be whole while an earlier one is torn. A segment is kept as one image, which whoever reads it shares
//! until it is written again. What the log no longer needs is retired and becomes a
//! spare again by the rules of `wal/reuse.rs`, with what was in it, as in `runtime/segments.rs`; in a few
//! worlds each segment is new and zeroed. A crash may leave a spare that was asked for and never told of.
//!
//! What is durable may be damaged later: a bit flips, a block goes to another place, is lost, or cannot
//! be read any more. A block that is lost shows what the file held in an earlier life. A read may show that for
//! once, or another block, although what is durable is as it should be. And whole files may be cut short, be gone,
//! be what they were earlier, or be another log's (`foreign.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use fastrand::Rng;

use crate::id::{FlushTicket, SegmentSeq};
use crate::limits::{BLOCK_BYTES, FLUSHES_IN_FLIGHT_MAX};
use crate::planted::{Planted, planted};
use crate::wal;

/// What a disk promises to write whole.
pub const SECTOR_BYTES: usize = 512;

/// What becomes of writes in flight when the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// Nothing of them arrives.
    Lose,
    /// All of them arrives.
    Keep,
    /// Each write arrives whole or not at all.
    Whole,
    /// Each sector arrives or not.
    Sectors,
    /// A first part of each write arrives, cut at a sector.
    Prefix,
    /// As `Sectors`, but one sector that did not arrive holds garbage.
    Garbage,
}

impl Tear {
    /// All of them, for a coin to choose from.
    pub const ALL: [Self; 6] =
        [Self::Lose, Self::Keep, Self::Whole, Self::Sectors, Self::Prefix, Self::Garbage];
}

/// One core's log directory. It outlives the node's processes.
#[derive(Debug)]
pub struct Disk {
    segment_bytes: usize,
    segments: BTreeMap<SegmentSeq, Segment>,
    in_flight: Vec<InFlight>,
    /// Where the log begins, as it was noted; durable at once.
    first: SegmentSeq,
    /// The highest durable watermark in any finished write.
    proven: (SegmentSeq, u64),
    /// Where the finished writes lie: segment, offset, bytes, in the order they finished.
    finished: Vec<(SegmentSeq, u64, usize)>,
    /// Segments that were given up and wait to become spares, by the numbers that they had.
    retired: BTreeMap<SegmentSeq, Segment>,
    /// A spare that was asked for and is not told of yet. A crash may find it made.
    wanted: Option<SegmentSeq>,
    /// Segments whose names are not durable, and the retired ones they were. None ever, as the driver
    /// owes it.
    nameless: Vec<(SegmentSeq, Option<SegmentSeq>)>,
    /// What is shown in place of a block until [`Disk::read_well`].
    misread: Option<Misread>,
    /// The file that lies under the name of a segment until then.
    mistaken: Option<(SegmentSeq, Bytes)>,
}

/// A block that is not what a read shows.
#[derive(Debug)]
struct Misread {
    place: Place,
    shown: Box<[u8]>,
    /// It is shown to whoever asks for the first block of a segment, or to whoever asks for all of it.
    at_head: bool,
}

/// How a read shows a block as it is not, for once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Askew {
    /// As it was before it was last written.
    Stale,
    /// As another block.
    Other,
    /// With one bit flipped.
    Flipped,
}

impl Askew {
    /// All of them, for a coin to choose from.
    pub const ALL: [Self; 3] = [Self::Stale, Self::Other, Self::Flipped];
}

/// What becomes of a segment that is not damaged in one place, but as a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFault {
    /// It ends after so many bytes.
    Cut(usize),
    /// It is gone.
    Missing,
    /// It is what it was when only so many of its blocks had been written.
    RolledBack(u32),
}

/// A block of a segment.
pub type Place = (SegmentSeq, u32);

/// What a write that failed leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing of it arrived.
    Nothing,
    /// So many sectors did.
    Sectors(usize),
    /// All of it did, although nobody may rely on it.
    All,
}

/// What a crash cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    /// Sectors in flight that were lost or garbled.
    pub sectors: usize,
    /// Writes in flight of which nothing is left.
    pub writes: usize,
}

#[derive(Debug)]
struct Segment {
    image: Image,
    /// What is known of each of its blocks.
    blocks: Vec<Content>,
    /// Blocks that cannot be read.
    unreadable: BTreeSet<u32>,
    /// What lay, in an earlier life, where this one has written, without the zeroes at its end.
    below: BTreeMap<u32, Box<[u8]>>,
    /// The file ends here, if it was cut.
    cut: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Content {
    owner: Owner,
    /// Behind so many bytes it is all zeroes.
    used: u16,
}

/// Who wrote a block last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Owner {
    /// Nobody: it is zero.
    #[default]
    Nobody,
    /// An earlier life of the file.
    Earlier,
    /// This one.
    This,
}

/// The durable content of a segment, all of it.
#[derive(Debug)]
enum Image {
    /// Nobody looks.
    Written(BytesMut),
    /// Somebody may still look.
    Shown(Bytes),
}

impl Image {
    /// To be written. Who has looked keeps what was there.
    fn write(&mut self) -> &mut BytesMut {
        if let Self::Shown(bytes) = self {
            let bytes = std::mem::take(bytes).try_into_mut();
            *self = Self::Written(bytes.unwrap_or_else(|shared| shared.as_ref().into()));
        }
        let Self::Written(bytes) = self else { unreachable!("it was made so") };
        bytes
    }

    /// To be read.
    fn show(&mut self) -> &Bytes {
        if let Self::Written(bytes) = self {
            *self = Self::Shown(std::mem::take(bytes).freeze());
        }
        let Self::Shown(bytes) = self else { unreachable!("it was made so") };
        bytes
    }

    /// A block, without the zeroes behind its first so many bytes.
    fn block(&self, block: u32, used: u16) -> &[u8] {
        let bytes: &[u8] = match self {
            Self::Written(bytes) => bytes,
            Self::Shown(bytes) => bytes,
        };
        &bytes[block as usize * BLOCK_BYTES..][..usize::from(used)]
    }
}

#[derive(Debug)]
struct InFlight {
    ticket: FlushTicket,
    segment: SegmentSeq,
    offset: u64,
    bytes: usize,
    /// What it writes, without the zeroes at its end.
    data: Box<[u8]>,
}

/// What is left of `bytes` without the zeroes at their end, or most of them.
pub(super) fn trimmed(bytes: &[u8]) -> &[u8] {
    const STEP: usize = 64;
    let used = bytes.chunks(STEP).rposition(|chunk| chunk != &[0; STEP][..chunk.len()]);
    &bytes[..used.map_or(0, |last| ((last + 1) * STEP).min(bytes.len()))]
}

impl InFlight {
    /// Its bytes from here on, without those at its end that are zero.
    fn range(&self, at: usize, bytes: usize) -> &[u8] {
        let end = self.data.len();
        &self.data[at.min(end)..(at + bytes).min(end)]
    }
}

impl Segment {
    fn new(segment_bytes: usize) -> Self {
        Self {
            image: Image::Written(BytesMut::zeroed(segment_bytes)),
            blocks: vec![Content::default(); segment_bytes / BLOCK_BYTES],
            unreadable: BTreeSet::new(),
            below: BTreeMap::new(),
            cut: None,
        }
    }

    /// Who wrote a block; nobody, if there is no such block.
    fn owner(&self, block: u32) -> Owner {
        self.blocks.get(block as usize).map_or(Owner::Nobody, |content| content.owner)
    }

    /// The blocks that this life has written.
    fn own(&self) -> impl Iterator<Item = u32> {
        let is_own = |(_, content): &(u32, &Content)| content.owner == Owner::This;
        (0..).zip(&self.blocks).filter(is_own).map(|(block, _)| block)
    }

    /// What a block holds, without zeroes at its end.
    fn block(&self, block: u32) -> &[u8] {
        self.image.block(block, self.blocks[block as usize].used)
    }

    /// A block is this life's from now on, to be overwritten.
    fn claim(&mut self, block: u32) {
        if self.owner(block) == Owner::Earlier {
            self.below.insert(block, self.block(block).into());
        }
        self.unreadable.remove(&block);
        self.blocks[block as usize].owner = Owner::This;
    }

    /// What a block holds is something else, whoever wrote it.
    fn replace(&mut self, block: u32, data: &[u8]) {
        let used = &mut self.blocks[block as usize].used;
        let bytes = &mut self.image.write()[block as usize * BLOCK_BYTES..];
        bytes[..data.len()].copy_from_slice(data);
        if let Some(rest) = bytes.get_mut(data.len()..usize::from(*used)) {
            rest.fill(0);
        }
        *used = data.len() as u16;
    }

    /// A part of a block becomes something else.
    fn alter(&mut self, block: u32, part: Range<usize>, alter: impl FnOnce(&mut [u8])) {
        let used = &mut self.blocks[block as usize].used;
        *used = (*used).max(part.end as u16);
        alter(&mut self.image.write()[block as usize * BLOCK_BYTES..][part]);
    }

    /// Begins another life, with what there is.
    fn begin_again(&mut self) {
        for content in &mut self.blocks {
            if content.owner == Owner::This {
                content.owner = Owner::Earlier;
            }
        }
        self.below.clear();
    }

    /// All of a write arrives.
    fn take(&mut self, write: &InFlight) {
        let first = (write.offset as usize / BLOCK_BYTES) as u32;
        for (block, at) in (first..).zip((0..write.bytes).step_by(BLOCK_BYTES)) {
            self.claim(block);
            self.replace(block, trimmed(write.range(at, BLOCK_BYTES)));
        }
    }

    /// One sector of a write arrives.
    fn take_sector(&mut self, write: &InFlight, number: usize) {
        let mut sector = [0; SECTOR_BYTES];
        let data = write.range(number * SECTOR_BYTES, SECTOR_BYTES);
        sector[..data.len()].copy_from_slice(data);
        self.patch(write, number, &sector);
    }

    /// Where one sector of a write belongs, something arrives.
    fn patch(&mut self, write: &InFlight, number: usize, sector: &[u8]) {
        let start = write.offset as usize + number * SECTOR_BYTES;
        let (block, within) = ((start / BLOCK_BYTES) as u32, start % BLOCK_BYTES);
        self.claim(block);
        self.alter(block, within..within + SECTOR_BYTES, |bytes| bytes.copy_from_slice(sector));
    }

    /// A block was never written in this life.
    fn lose(&mut self, block: u32) {
        let (owner, data) = match self.below.remove(&block) {
            Some(below) => (Owner::Earlier, below),
            None => (Owner::Nobody, Box::default()),
        };
        self.replace(block, &data);
        self.blocks[block as usize].owner = owner;
    }
}

impl Disk {
    /// An empty one, for segments of so many bytes.
    #[must_use]
    pub fn new(segment_bytes: usize) -> Self {
        Self {
            segment_bytes,
            segments: BTreeMap::new(),
            in_flight: Vec::new(),
            first: SegmentSeq::default(),
            proven: Default::default(),
            finished: Vec::new(),
            retired: BTreeMap::new(),
            wanted: None,
            nameless: Vec::new(),
            misread: None,
            mistaken: None,
        }
    }

    /// A segment is asked for.
    pub fn want(&mut self, segment: SegmentSeq) {
        self.wanted = Some(segment);
    }

    /// A segment appears under its final name, in place of what was there: zeroed, or, if it
    /// `recycles`, a retired one. Returns which that was.
    pub fn prepare(&mut self, segment: SegmentSeq, recycles: bool) -> Option<SegmentSeq> {
        self.wanted = self.wanted.filter(|wanted| *wanted != segment);
        let retired = self.retired.keys().copied().filter(|_| recycles);
        let was = wal::successor_of(retired, segment);
        let mut content = was.and_then(|was| self.retired.remove(&was));
        if was.is_none() {
            self.retired.clear();
        }
        if let Some(content) = &mut content {
            content.begin_again();
        }
        let content = content.unwrap_or_else(|| Segment::new(self.segment_bytes));
        self.segments.insert(segment, content);
        if planted(Planted::DirectoryNotSynced) {
            self.nameless.push((segment, was));
        }
        was
    }

    /// A segment is given up.
    pub fn retire(&mut self, segment: SegmentSeq) {
        // One that was cut short is deleted: a spare is of full length.
        let content = self.segments.remove(&segment).filter(|content| content.cut.is_none());
        if wal::is_kept(self.retired.len()) {
            self.retired.extend(content.map(|content| (segment, content)));
        }
        self.finished.retain(|(of, ..)| *of != segment);
    }

    /// Segments in front of this one are given up, noted or not. Returns whether there were any.
    pub(super) fn remove_before(&mut self, first: SegmentSeq) -> bool {
        let segments = self.segments();
        let old: Vec<_> = segments.into_iter().filter(|segment| *segment < first).collect();
        old.iter().for_each(|segment| self.retire(*segment));
        !old.is_empty()
    }

    /// The log is noted to begin with this segment.
    pub fn note_first(&mut self, first: SegmentSeq) {
        self.first = self.first.max(first);
        self.nameless.clear();
    }

    /// Where the log begins; zero if that was never noted.
    #[must_use]
    pub fn first(&self) -> SegmentSeq {
        self.first
    }

    /// The oldest segment in front of where the log begins, if one is left.
    #[must_use]
    pub fn superfluous(&self) -> Option<SegmentSeq> {
        self.segments.keys().next().copied().filter(|segment| *segment < self.first)
    }

    /// The segments there are, ascending.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentSeq> {
        let mistaken = self.mistaken.as_ref().map(|(segment, _)| *segment);
        let added = mistaken.filter(|segment| !self.segments.contains_key(segment));
        let mut all: Vec<SegmentSeq> = self.segments.keys().copied().chain(added).collect();
        all.sort_unstable();
        all
    }

    /// A write of `data`, and of zeroes to the end of its last block, starts; nothing of it is durable until
    /// [`Self::finish`].
    pub fn start(&mut self, ticket: FlushTicket, segment: SegmentSeq, offset: u64, data: &[u8]) {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "O_DIRECT wants whole blocks");
        let bytes = data.len().next_multiple_of(BLOCK_BYTES);
        let old = self.segments.get(&segment).expect("a write to a segment that is prepared");
        for block in 0..bytes / BLOCK_BYTES {
            let block = (offset as usize / BLOCK_BYTES + block) as u32;
            assert!(old.owner(block) != Owner::This, "a block is written once");
        }
        let data = trimmed(data).into();
        self.in_flight.push(InFlight { ticket, segment, offset, bytes, data });
    }

    /// The write with this ticket is durable now, all of it. False if there is none (the node
    /// crashed meanwhile).
    pub fn finish(&mut self, ticket: FlushTicket) -> bool {
        let Some(at) = self.in_flight.iter().position(|write| write.ticket == ticket) else {
            return false;
        };
        let write = self.in_flight.remove(at);
        let segment = self.segments.get_mut(&write.segment).expect("written segments stay");
        self.proven = self.proven.max(watermark(&write));
        self.finished.push((write.segment, write.offset, write.bytes));
        segment.take(&write);
        true
    }

    /// The finished writes that the log itself proves to have been durable: there are later ones.
    #[must_use]
    pub fn proven(&self) -> &[(SegmentSeq, u64, usize)] {
        let unproven = 2 * FLUSHES_IN_FLIGHT_MAX;
        &self.finished[..self.finished.len().saturating_sub(unproven)]
    }

    /// Whether an earlier write than this one is still in flight.
    #[must_use]
    pub fn overtakes(&self, ticket: FlushTicket) -> bool {
        self.in_flight.iter().any(|write| write.ticket < ticket)
    }

    /// The sectors of the write with this ticket; zero if there is none.
    #[must_use]
    pub fn sectors(&self, ticket: FlushTicket) -> usize {
        let write = self.in_flight.iter().find(|write| write.ticket == ticket);
        write.map_or(0, |write| write.bytes / SECTOR_BYTES)
    }

    /// The write with this ticket, or its flush, fails.
    pub fn fail(&mut self, ticket: FlushTicket, left: Left) {
        let Some(at) = self.in_flight.iter().position(|write| write.ticket == ticket) else {
            return;
        };
        let write = self.in_flight.remove(at);
        let segment = self.segments.get_mut(&write.segment).expect("written segments stay");
        match left {
            Left::Nothing => {}
            Left::Sectors(count) => {
                let count = count.min(write.bytes / SECTOR_BYTES);
                (0..count).for_each(|number| segment.take_sector(&write, number));
            }
            Left::All => segment.take(&write),
        }
    }

    /// Any durable block that the log itself proves to be durable. Damage behind that point cannot be
    /// told from a torn write ("The limit of this rule" in `wal/mod.rs`).
    pub fn any_block(&self, rng: &mut Rng) -> Option<Place> {
        self.block_of_last(usize::MAX, rng)
    }

    /// One of the last so many of those: what it says, nothing behind it may say again.
    pub fn block_of_last(&self, blocks: usize, rng: &mut Rng) -> Option<Place> {
        let proven: Vec<Place> = self
            .segments
            .iter()
            .flat_map(|(&seq, segment)| segment.own().map(move |block| (seq, block)))
            .filter(|&(seq, block)| (seq, u64::from(block) * BLOCK_BYTES as u64) < self.proven)
            .collect();
        let first = proven.len().saturating_sub(blocks);
        (!proven.is_empty()).then(|| proven[rng.usize(first..proven.len())])
    }

    /// A durable block, if there is one.
    fn block(&mut self, (segment, block): Place) -> Option<&mut Segment> {
        self.segments.get_mut(&segment).filter(|segment| segment.owner(block) != Owner::Nobody)
    }

    /// A durable block rots: one of its bits is another.
    pub fn flip_bit(&mut self, place: Place, bit: usize) {
        if let Some(segment) = self.block(place) {
            segment.alter(place.1, bit / 8..bit / 8 + 1, |byte| byte[0] ^= 1 << (bit % 8));
        }
    }

    /// What is durable from this byte of a segment on is something else. Returns what it was.
    pub fn overwrite(&mut self, segment: SegmentSeq, at: usize, data: &[u8]) -> Vec<u8> {
        let mut before = Vec::with_capacity(data.len());
        while before.len() < data.len() {
            let at = at + before.len();
            let (block, within) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
            let rest = &data[before.len()..];
            let rest = &rest[..rest.len().min(BLOCK_BYTES - within)];
            let Some(segment) = self.block((segment, block as u32)) else { break };
            segment.alter(block as u32, within..within + rest.len(), |bytes| {
                before.extend_from_slice(bytes);
                bytes.copy_from_slice(rest);
            });
        }
        before
    }

    /// A durable block was never written, whatever the disk said: it reads as zeroes, or as what the file
    /// held in an earlier life.
    pub fn lose_block(&mut self, place: Place) {
        if let Some(segment) = self.block(place) {
            segment.lose(place.1);
        }
    }

    /// What was written to one durable block went to another, and is not where it belongs.
    pub fn misdirect(&mut self, from: Place, to: Place) {
        if from != to
            && let Some(segment) = self.block(from)
            && let bytes = Bytes::copy_from_slice(segment.block(from.1))
            && let Some(segment) = self.block(to)
        {
            segment.replace(to.1, &bytes);
            self.lose_block(from);
        }
    }

    /// A durable block cannot be read any more.
    pub fn spoil(&mut self, place: Place) {
        if let Some(segment) = self.block(place) {
            segment.unreadable.insert(place.1);
        }
    }

    /// The first block of these bytes of a segment that cannot be read.
    #[must_use]
    pub fn unreadable(&self, segment: SegmentSeq, bytes: Range<u64>) -> Option<u32> {
        let block = |at: u64| (at / BLOCK_BYTES as u64) as u32;
        let blocks = block(bytes.start)..=block(bytes.end);
        self.segments.get(&segment)?.unreadable.range(blocks).next().copied()
    }

    /// What a block held before it was last written, as far as anybody knows.
    fn stale(&self, (segment, block): Place) -> Box<[u8]> {
        let below = self.segments.get(&segment).and_then(|segment| segment.below.get(&block));
        below.cloned().unwrap_or_default()
    }

    /// What a block holds, without the zeroes at its end; nothing if there is no such block.
    #[must_use]
    pub fn content(&self, (segment, block): Place) -> Box<[u8]> {
        let segment =
            self.segments.get(&segment).filter(|segment| segment.owner(block) != Owner::Nobody);
        segment.map_or_else(Box::default, |segment| segment.block(block).into())
    }

    /// Until [`Self::read_well`], whoever reads this block is shown something else: this, or what it held
    /// before it was last written. If it is the first of its segment and `at_head`, that is whoever asks
    /// for the first block alone.
    pub fn misread(&mut self, place: Place, shown: Option<Box<[u8]>>, at_head: bool) {
        let shown = shown.unwrap_or_else(|| self.stale(place));
        self.misread = Some(Misread { place, shown, at_head: at_head && place.1 == 0 });
    }

    /// Until [`Self::read_well`], another file lies under the name of this segment.
    pub fn mistake(&mut self, segment: SegmentSeq, file: Bytes) {
        self.mistaken = Some((segment, file));
    }

    /// Reads show what is there.
    pub fn read_well(&mut self) {
        (self.misread, self.mistaken) = (None, None);
    }

    /// The segments of which a later one says where they end.
    #[must_use]
    pub fn sealed(&self) -> Vec<SegmentSeq> {
        self.segments.range(..self.proven.0).map(|(&segment, _)| segment).collect()
    }

    /// The segment that holds the highest durable watermark's place, if it is there. That it is there is
    /// proven by nothing else.
    #[must_use]
    pub fn newest(&self) -> Option<SegmentSeq> {
        self.segments.contains_key(&self.proven.0).then_some(self.proven.0)
    }

    /// A file is not what it was. The node does not run.
    pub fn lose_file(&mut self, segment: SegmentSeq, fault: FileFault) {
        let Some(content) = self.segments.get_mut(&segment) else { return };
        let left = match fault {
            FileFault::Cut(bytes) => {
                content.cut = Some(bytes.min(content.cut.unwrap_or(bytes)));
                bytes / BLOCK_BYTES
            }
            FileFault::Missing => {
                self.segments.remove(&segment);
                0
            }
            FileFault::RolledBack(blocks) => {
                let later: Vec<u32> = content.own().filter(|block| blocks <= *block).collect();
                later.into_iter().for_each(|block| content.lose(block));
                blocks as usize
            }
        };
        let left = (left * BLOCK_BYTES) as u64;
        let is_left = |offset: u64, bytes: usize| offset + bytes as u64 <= left;
        self.finished.retain(|&(of, offset, bytes)| of != segment || is_left(offset, bytes));
    }

    /// The note of where the log begins is what it was earlier; gone, if that is zero.
    pub fn lose_note(&mut self, first: SegmentSeq) {
        self.first = self.first.min(first);
    }

    /// The bytes that are asked for to read entries back, with one block shown as it is not. Which block, and how;
    /// `None` if nothing was read.
    pub fn look_askew(
        &mut self,
        segment: SegmentSeq,
        blocks: Range<u32>,
        rng: &mut Rng,
    ) -> Option<(Bytes, u32, Askew)> {
        let (block, how) = (rng.u32(blocks), Askew::ALL[rng.usize(..Askew::ALL.len())]);
        let other = self.any_block(rng)?;
        let own = self.segments.get(&segment)?.owner(block) == Owner::This;
        if !own || other == (segment, block) {
            return None;
        }
        let shown = match how {
            Askew::Stale => None,
            Askew::Other => Some(self.content(other)),
            Askew::Flipped => {
                // Among what was written, not in the zeroes behind it.
                let mut bytes = self.content((segment, block)).into_vec();
                let bit = rng.usize(..bytes.len().max(1) * 8);
                bytes.resize(BLOCK_BYTES, 0);
                bytes[bit / 8] ^= 1 << (bit % 8);
                Some(bytes.into())
            }
        };
        self.misread((segment, block), shown, false);
        let bytes = self.look(segment);
        self.read_well();
        Some((bytes, block, how))
    }

    /// Blocks of a segment.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        (self.segment_bytes / BLOCK_BYTES) as u32
    }

    /// The disk lied about its last flush.
    pub fn forget_last(&mut self) {
        if let Some((segment, offset, bytes)) = self.finished.pop()
            && let Some(segment) = self.segments.get_mut(&segment)
        {
            let first = offset as usize / BLOCK_BYTES;
            for block in first..first + bytes / BLOCK_BYTES {
                segment.below.remove(&(block as u32));
                segment.lose(block as u32);
            }
        }
    }

    /// The power fails. Returns what that cost.
    pub fn crash(&mut self, tear: Tear, rng: &mut Rng) -> Loss {
        let mut loss = Loss::default();
        for write in std::mem::take(&mut self.in_flight) {
            let segment = self.segments.get_mut(&write.segment).expect("written segments stay");
            let sectors = write.bytes / SECTOR_BYTES;
            if sectors == 0 {
                continue;
            }
            let cut = rng.usize(0..=sectors);
            let whole = rng.bool();
            let garbled = rng.usize(0..sectors);
            let before = loss.sectors;
            for number in 0..sectors {
                let kept = match tear {
                    Tear::Lose => false,
                    Tear::Keep => true,
                    Tear::Whole => whole,
                    Tear::Sectors | Tear::Garbage => rng.bool(),
                    Tear::Prefix => number < cut,
                };
                if kept {
                    segment.take_sector(&write, number);
                } else {
                    loss.sectors += 1;
                    if tear == Tear::Garbage && number == garbled {
                        let garbage: Vec<u8> = (0..SECTOR_BYTES).map(|_| rng.u8(..)).collect();
                        segment.patch(&write, number, &garbage);
                    }
                }
            }
            loss.writes += usize::from(loss.sectors - before == sectors);
        }
        for (segment, was) in std::mem::take(&mut self.nameless) {
            if rng.bool() {
                let content = self.segments.remove(&segment);
                self.retired.extend(was.zip(content));
                self.finished.retain(|(of, ..)| *of != segment);
            }
        }
        // Its name may be durable before anybody was told.
        if let Some(segment) = self.wanted.take()
            && segment.0.is_multiple_of(2)
            && !self.retired.is_empty()
        {
            self.prepare(segment, true);
        }
        loss
    }

    /// The first block of a segment, which holds its header.
    #[must_use]
    pub fn first_block(&self, segment: SegmentSeq) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        if let Some((_, file)) = self.mistaken.as_ref().filter(|it| it.0 == segment) {
            let used = file.len().min(BLOCK_BYTES);
            bytes[..used].copy_from_slice(&file[..used]);
        } else if let Some(misread) = &self.misread
            && misread.at_head
            && misread.place.0 == segment
        {
            bytes[..misread.shown.len()].copy_from_slice(&misread.shown);
        } else if let Some(content) = self.segments.get(&segment)
            && !content.unreadable.contains(&0)
        {
            let block = content.block(0);
            let used = block.len().min(content.cut.unwrap_or(BLOCK_BYTES));
            bytes[..used].copy_from_slice(&block[..used]);
        }
        bytes
    }

    /// Writes in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A whole segment, as a mapping of its file would show it. What cannot be read is zero, as the driver
    /// has it.
    pub fn look(&mut self, segment: SegmentSeq) -> Bytes {
        if let Some((_, file)) = self.mistaken.as_ref().filter(|it| it.0 == segment) {
            return file.clone();
        }
        let Segment { image, unreadable, cut, .. } =
            self.segments.get_mut(&segment).expect("the segment exists");
        let bytes = image.show();
        let bytes = bytes.slice(..cut.unwrap_or(bytes.len()));
        let misread = self.misread.as_ref().filter(|it| it.place.0 == segment && !it.at_head);
        if unreadable.is_empty() && misread.is_none() {
            return bytes;
        }
        let mut bytes = BytesMut::from(bytes.as_ref());
        let mut show = |block: u32, shown: &[u8]| {
            let start = (block as usize * BLOCK_BYTES).min(bytes.len());
            let end = (start + BLOCK_BYTES).min(bytes.len());
            bytes[start..end].fill(0);
            let used = shown.len().min(end - start);
            bytes[start..start + used].copy_from_slice(&shown[..used]);
        };
        unreadable.iter().for_each(|&block| show(block, &[]));
        if let Some(misread) = misread {
            show(misread.place.1, &misread.shown);
        }
        bytes.freeze()
    }
}

/// The durable watermark of a write's batch (bytes 48 to 64 of its header, behind the segment's own
/// header if the write begins one).
fn watermark(write: &InFlight) -> (SegmentSeq, u64) {
    let at = if write.offset == 0 { BLOCK_BYTES } else { 0 };
    let number = |at: usize| {
        let bytes = write.data.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    (SegmentSeq(number(at + 48)), number(at + 56))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentSeq = SegmentSeq(1);

    fn disk() -> Disk {
        let mut disk = Disk::new(16 * BLOCK_BYTES);
        disk.prepare(SEGMENT, false);
        disk.start(FlushTicket(1), SEGMENT, 0, &[1; BLOCK_BYTES]);
        disk.start(FlushTicket(2), SEGMENT, BLOCK_BYTES as u64, &[2; 2 * BLOCK_BYTES]);
        disk
    }

    fn sectors(disk: &mut Disk) -> Vec<u8> {
        let bytes = disk.look(SEGMENT);
        bytes[..4 * BLOCK_BYTES].chunks(SECTOR_BYTES).map(|sector| sector[7]).collect()
    }

    #[test]
    fn what_was_flushed_survives_every_crash_and_what_was_not_is_a_coin() {
        let mut rng = Rng::with_seed(1);
        for tear in Tear::ALL {
            let mut disk = disk();
            assert!(disk.finish(FlushTicket(2)), "a later write may finish first");
            disk.crash(tear, &mut rng);
            assert!(!disk.finish(FlushTicket(1)), "{tear:?}: nothing is in flight after a crash");
            let sectors = sectors(&mut disk);
            assert_eq!(sectors[8..24], [2; 16], "{tear:?}");
            assert_eq!(sectors[24..], [0; 8], "{tear:?}");
            let whole = sectors[..8].iter().all(|&sector| sector == sectors[0]);
            match tear {
                Tear::Lose => assert_eq!(sectors[..8], [0; 8]),
                Tear::Keep => assert_eq!(sectors[..8], [1; 8]),
                Tear::Whole => assert!(whole),
                Tear::Prefix => assert!(sectors[..8].is_sorted_by(|a, b| a >= b)),
                Tear::Sectors | Tear::Garbage => {}
            }
        }
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_or_a_part_or_all() {
        for (left, there) in [(Left::Nothing, 0), (Left::Sectors(3), 3), (Left::All, 16)] {
            let mut disk = disk();
            assert!(disk.overtakes(FlushTicket(2)) && !disk.overtakes(FlushTicket(1)));
            assert_eq!(disk.sectors(FlushTicket(2)), 16);
            disk.fail(FlushTicket(2), left);
            assert!(!disk.finish(FlushTicket(2)), "it is over");
            let sectors = sectors(&mut disk);
            assert!(sectors[8..8 + there].iter().all(|&byte| byte == 2), "{left:?}");
            assert!(sectors[8 + there..].iter().all(|&byte| byte == 0), "{left:?}");
        }
    }

    #[test]
    fn what_is_durable_rots_and_goes_astray() {
        let durable = || {
            let mut disk = disk();
            disk.finish(FlushTicket(1));
            disk.finish(FlushTicket(2));
            disk
        };
        let block = |disk: &mut Disk, block: usize| {
            disk.look(SEGMENT).slice(block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES)
        };
        let mut rng = Rng::with_seed(2);
        let mut disk = durable();
        let places: BTreeSet<Place> = (0..50).filter_map(|_| disk.any_block(&mut rng)).collect();
        assert_eq!(places.into_iter().map(|(_, block)| block).collect::<Vec<_>>(), [0, 1, 2]);

        disk.flip_bit((SEGMENT, 1), 8 * 100 + 3);
        let bytes = block(&mut disk, 1);
        assert_eq!((bytes[99], bytes[100], bytes[101]), (2, 2 ^ 8, 2));

        let mut disk = durable();
        let two = vec![7; BLOCK_BYTES + 1];
        let before = disk.overwrite(SEGMENT, BLOCK_BYTES - 1, &two);
        assert_eq!((before[0], before[1], before.len()), (1, 2, two.len()));
        assert_eq!(disk.overwrite(SEGMENT, BLOCK_BYTES - 1, &before), two);

        let mut disk = durable();
        disk.lose_block((SEGMENT, 2));
        assert!(block(&mut disk, 2).iter().all(|&byte| byte == 0));

        let mut disk = durable();
        disk.misdirect((SEGMENT, 2), (SEGMENT, 0));
        assert!(block(&mut disk, 0).iter().all(|&byte| byte == 2));
        assert!(block(&mut disk, 2).iter().all(|&byte| byte == 0));

        let mut disk = durable();
        disk.spoil((SEGMENT, 1));
        disk.spoil((SEGMENT, 9));
        let bytes = |from: usize, to: usize| (from * BLOCK_BYTES) as u64..(to * BLOCK_BYTES) as u64;
        assert_eq!(disk.unreadable(SEGMENT, bytes(0, 3)), Some(1));
        assert_eq!(disk.unreadable(SEGMENT, bytes(2, 9)), None);
        disk.prepare(SEGMENT, false);
        assert_eq!(disk.unreadable(SEGMENT, bytes(0, 3)), None, "it is new");
    }

    #[test]
    fn a_read_lies_once_and_what_is_there_stays() {
        let mut rng = Rng::with_seed(4);
        let mut disk = disk();
        disk.finish(FlushTicket(1));
        disk.finish(FlushTicket(2));
        let block = |bytes: &Bytes, block: usize| bytes[block * BLOCK_BYTES];
        disk.misread((SEGMENT, 1), Some(disk.content((SEGMENT, 0))), false);
        let bytes = disk.look(SEGMENT);
        assert_eq!([block(&bytes, 0), block(&bytes, 1), block(&bytes, 2)], [1, 1, 2]);
        disk.misread((SEGMENT, 0), None, true);
        assert_eq!((disk.first_block(SEGMENT)[0], block(&disk.look(SEGMENT), 0)), (0, 1), "stale");
        disk.read_well();
        assert_eq!((disk.first_block(SEGMENT)[0], block(&disk.look(SEGMENT), 1)), (1, 2));
        let mut shown = Vec::new();
        for _ in 0..50 {
            let Some((bytes, at, how)) = disk.look_askew(SEGMENT, 1..4, &mut rng) else {
                continue;
            };
            shown.push(how);
            assert!((1..3).contains(&at));
            let place = at as usize * BLOCK_BYTES;
            let differs = |byte: &&u8| **byte != 2;
            let others = bytes[place..place + BLOCK_BYTES].iter().filter(differs).count();
            match how {
                Askew::Stale => assert_eq!((block(&bytes, at as usize), others), (0, BLOCK_BYTES)),
                Askew::Other => assert!(block(&bytes, at as usize) > 0),
                Askew::Flipped => assert_eq!(others, 1),
            }
        }
        assert!(Askew::ALL.iter().all(|how| shown.contains(how)), "{shown:?}");
        let mut last = || disk.block_of_last(1, &mut rng);
        assert_eq!([last(), last()], [Some((SEGMENT, 2)); 2]);
        disk.mistake(SEGMENT, Bytes::from_static(&[9; BLOCK_BYTES]));
        assert_eq!((disk.first_block(SEGMENT)[0], block(&disk.look(SEGMENT), 0)), (9, 9));
        disk.read_well();
        assert_eq!((disk.first_block(SEGMENT)[0], block(&disk.look(SEGMENT), 1)), (1, 2));
    }

    #[test]
    fn files_are_cut_and_gone_and_what_they_were() {
        let durable = || {
            let mut disk = disk();
            disk.finish(FlushTicket(1));
            disk.finish(FlushTicket(2));
            disk
        };
        let mut disk = durable();
        disk.lose_file(SEGMENT, FileFault::Cut(BLOCK_BYTES + 7));
        assert_eq!(disk.look(SEGMENT).len(), BLOCK_BYTES + 7);
        disk.lose_file(SEGMENT, FileFault::Cut(5));
        assert_eq!(disk.first_block(SEGMENT)[..6], [1, 1, 1, 1, 1, 0]);
        disk.retire(SEGMENT);
        assert_eq!(disk.prepare(SegmentSeq(2), true), None, "what was cut is no spare");

        let mut disk = durable();
        disk.lose_file(SEGMENT, FileFault::RolledBack(2));
        let bytes = disk.look(SEGMENT);
        assert_eq!([0, 1, 2].map(|block| bytes[block * BLOCK_BYTES]), [1, 2, 0]);

        let mut disk = durable();
        disk.lose_file(SEGMENT, FileFault::Missing);
        assert!(disk.segments().is_empty());

        disk.note_first(SegmentSeq(3));
        disk.lose_note(SegmentSeq(2));
        assert_eq!(disk.first(), SegmentSeq(2));
        disk.lose_note(SegmentSeq(0));
        assert_eq!(disk.first(), SegmentSeq(0));
    }

    #[test]
    fn what_is_retired_comes_back_with_what_was_in_it() {
        const NEXT: SegmentSeq = SegmentSeq(3);
        let mut rng = Rng::with_seed(3);
        let mut disk = disk();
        disk.finish(FlushTicket(1));
        disk.finish(FlushTicket(2));
        disk.retire(SEGMENT);
        assert_eq!((disk.segments(), disk.proven().len()), (vec![], 0));
        assert_eq!(disk.prepare(NEXT, true), Some(SEGMENT));
        disk.start(FlushTicket(3), NEXT, BLOCK_BYTES as u64, &[3; BLOCK_BYTES]);
        disk.finish(FlushTicket(3));
        let first_bytes = |disk: &mut Disk| {
            let bytes = disk.look(NEXT);
            [0, 1, 2, 3].map(|block| bytes[block * BLOCK_BYTES])
        };
        assert_eq!(first_bytes(&mut disk), [1, 3, 2, 0]);
        disk.lose_block((NEXT, 1));
        assert_eq!(first_bytes(&mut disk), [1, 2, 2, 0], "the write was lost");
        // A sector that arrives leaves the others of its block as they were.
        disk.start(FlushTicket(4), NEXT, 0, &[4; BLOCK_BYTES]);
        disk.fail(FlushTicket(4), Left::Sectors(1));
        let bytes = disk.look(NEXT);
        assert_eq!([bytes[7], bytes[SECTOR_BYTES + 7]], [4, 1]);
        // Asked for, renamed, and never told of.
        disk.retire(NEXT);
        disk.want(SegmentSeq(4));
        disk.crash(Tear::Keep, &mut rng);
        assert_eq!(disk.segments(), [SegmentSeq(4)]);
        // The number of a file only rises.
        disk.retire(SegmentSeq(4));
        assert_eq!(disk.prepare(SegmentSeq(4), true), None);
        assert!(disk.look(SegmentSeq(4)).iter().all(|&byte| byte == 0));
    }

    #[test]
    fn who_has_looked_keeps_what_was_there() {
        let mut disk = disk();
        let before = disk.look(SEGMENT);
        assert_eq!(before.len(), 16 * BLOCK_BYTES);
        disk.finish(FlushTicket(1));
        let after = disk.look(SEGMENT);
        assert_eq!((before[0], after[0]), (0, 1));
        assert_eq!(after.as_ptr(), disk.look(SEGMENT).as_ptr(), "nobody wrote in between");
        disk.spoil((SEGMENT, 0));
        assert_eq!((after[0], disk.look(SEGMENT)[0]), (1, 0), "what cannot be read is zero");
    }
}
