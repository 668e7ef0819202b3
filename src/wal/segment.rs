//! One file of the log: its name, its header block, its alignment.
//!
//! ```text
//!  byte
//!     0  magic "OUTRWAL\0"                  8
//!     8  crc of bytes 12..80                4   at this place in every version
//!    12  format version                     4
//!    16  cluster                            8   ┐
//!    24  node                               8   │ identity: must match in every segment
//!    32  shard                              2   ┘ (contract row 57)
//!    34  zero                               2
//!    36  segment file's length              4
//!    40  this segment's number              8   must match the file's name
//!    48  the segment before this one        8   0: this log starts here
//!    56  where that one ends                8   ┐ everything in front of that point was durable
//!    64  crc of its last header             4   ┘ before this block was written
//!    68  zero                               4
//!    72  number of the first batch          8
//!    80  zero                            4016
//! ```

use std::fmt;

use crate::id::{ClusterId, NodeId, SegmentSeq, ShardId};
use crate::limits::BLOCK_BYTES;

use super::codec::{Put, Take, first_non_zero};
use super::damage::{Damage, Fault, Proof};

/// The format this code writes; see the history in [`super`]. It reads every earlier one.
pub const FORMAT_VERSION: u32 = 5;

const MAGIC: u64 = u64::from_le_bytes(*b"OUTRWAL\0");
const HEADER_BYTES: usize = 80;

/// Whose log this is. Written into every segment; a file of another log is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The core of the node.
    pub shard: ShardId,
}

impl Identity {
    /// Seeds the checksum of every batch header, so that a batch of another log never parses here.
    pub(super) fn salt(&self) -> u32 {
        let mut bytes = [0; 18];
        let mut put = Put::new(&mut bytes);
        put.u64(self.cluster.0);
        put.u64(self.node.0);
        put.u16(self.shard.0);
        crc32fast::hash(&bytes)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {} node {} shard {}", self.cluster, self.node, self.shard)
    }
}

/// A place in a shard's log. Of entries: where the batch that holds them begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The segment.
    pub segment: SegmentSeq,
    /// Bytes from the start of the segment file; a multiple of [`BLOCK_BYTES`].
    pub offset: u64,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} offset {}", file_name(self.segment), self.offset)
    }
}

/// Where a log ends, and what the next header must name to follow it. Zero in all parts: an empty
/// log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct End {
    /// The first byte after the last batch.
    pub at: Location,
    /// The checksum of the last header in front of that point: a batch's, or the segment's own if
    /// it holds no batch.
    pub chain: u32,
}

/// A segment's name in its directory, e.g. `000000000000002a.seg`. Names sort as numbers do.
#[must_use]
pub fn file_name(segment: SegmentSeq) -> String {
    format!("{:016x}.seg", segment.0)
}

/// The segment a file name stands for; `None` for every other file. Inverse of [`file_name`].
#[must_use]
pub fn parse_file_name(name: &str) -> Option<SegmentSeq> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !digits.bytes().all(plain) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok().filter(|seq| *seq != 0).map(SegmentSeq)
}

/// What the file says that notes where a log begins: the segment's number and its checksum, in
/// hexadecimal digits.
#[must_use]
pub fn first_text(first: SegmentSeq) -> String {
    format!("{:016x} {:08x}\n", first.0, crc32fast::hash(&first.0.to_le_bytes()))
}

/// Inverse of [`first_text`]; `None` for anything else.
#[must_use]
pub fn parse_first(text: &str) -> Option<SegmentSeq> {
    let first = SegmentSeq(u64::from_str_radix(text.get(..16)?, 16).ok()?);
    (first_text(first) == text).then_some(first)
}

/// `bytes` rounded up to whole blocks.
pub(super) const fn align(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

/// The first block of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The format of the segment, 1 to [`FORMAT_VERSION`].
    pub version: u32,
    /// Whose log this is.
    pub identity: Identity,
    /// The segment file's length, in bytes.
    pub segment_bytes: u32,
    /// This segment's number.
    pub segment: SegmentSeq,
    /// Where the log ended when this segment was begun; all of it was durable by then.
    pub previous: End,
    /// The number of the first batch in this segment. Batches count from one over the whole log.
    pub first_batch: u64,
}

impl SegmentHeader {
    fn encode_prefix(&self) -> ([u8; HEADER_BYTES], u32) {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = Put::new(&mut bytes);
        put.u64(MAGIC);
        put.u32(0);
        put.u32(self.version);
        put.u64(self.identity.cluster.0);
        put.u64(self.identity.node.0);
        put.u16(self.identity.shard.0);
        put.u16(0);
        put.u32(self.segment_bytes);
        put.u64(self.segment.0);
        put.u64(self.previous.at.segment.0);
        put.u64(self.previous.at.offset);
        put.u32(self.previous.chain);
        put.u32(0);
        put.u64(self.first_batch);
        let crc = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// The checksum that the first batch of this segment chains to.
    pub(super) fn crc(&self) -> u32 {
        self.encode_prefix().1
    }

    /// Fill one whole block.
    pub(super) fn encode_into(&self, block: &mut [u8]) {
        assert_eq!(block.len(), BLOCK_BYTES, "a segment header is one block");
        block[..HEADER_BYTES].copy_from_slice(&self.encode_prefix().0);
        block[HEADER_BYTES..].fill(0);
    }

    /// Refuse the segment with the number `segment` if its header says that it is of another log than
    /// `whose` (contract row 57).
    pub(super) fn check_identity(
        &self,
        whose: Identity,
        segment: SegmentSeq,
    ) -> Result<(), Damage> {
        if self.identity == whose {
            return Ok(());
        }
        let fault = Fault::authentic("identity", 16, whose.node.0, self.identity.node.0);
        let proof = Proof::Identity { expected: whose, found: self.identity };
        Err(Damage { segment, offset: 0, fault, proof })
    }

    /// Read the header of a segment file.
    ///
    /// # Errors
    /// The first field that is not what this version or an earlier one writes. `Fault::authentic` if
    /// the checksum holds, which tells a newer format from a torn block.
    pub fn decode(segment: &[u8]) -> Result<Self, Fault> {
        let Some(block) = segment.get(..BLOCK_BYTES) else {
            let found = segment.len() as u64;
            return Err(Fault::new("length of the segment file", 0, BLOCK_BYTES as u64, found));
        };
        let mut take = Take::new(block);
        let magic = take.u64();
        if magic != MAGIC {
            return Err(Fault::new("segment magic", 0, MAGIC, magic));
        }
        let (stored, computed) = (take.u32(), crc32fast::hash(&block[12..HEADER_BYTES]));
        if stored != computed {
            let (computed, stored) = (u64::from(computed), u64::from(stored));
            return Err(Fault::new("segment header checksum", 8, computed, stored));
        }
        let version = take.u32();
        if version == 0 || FORMAT_VERSION < version {
            let (expected, found) = (u64::from(FORMAT_VERSION), u64::from(version));
            return Err(Fault::authentic("format version", 12, expected, found));
        }
        let identity = Identity {
            cluster: ClusterId(take.u64()),
            node: NodeId(take.u64()),
            shard: ShardId(take.u16()),
        };
        let zero_34 = u64::from(take.u16());
        let segment_bytes = take.u32();
        let number = SegmentSeq(take.u64());
        let at = Location { segment: SegmentSeq(take.u64()), offset: take.u64() };
        let chain = take.u32();
        let zero_68 = u64::from(take.u32());
        let first_batch = take.u64();
        for (at, found) in [(34, zero_34), (68, zero_68)] {
            if found != 0 {
                return Err(Fault::authentic("segment header's zero", at, 0, found));
            }
        }
        if let Some((at, found)) = first_non_zero(&block[HEADER_BYTES..]) {
            let at = (HEADER_BYTES + at) as u64;
            return Err(Fault::new("segment header padding", at, 0, found));
        }
        let previous = End { at, chain };
        Ok(Self { version, identity, segment_bytes, segment: number, previous, first_batch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for seq in [1, 42, u64::MAX] {
            assert_eq!(parse_file_name(&file_name(SegmentSeq(seq))), Some(SegmentSeq(seq)));
        }
        for other in [
            "0000000000000000.seg",
            "1.seg",
            "000000000000002A.seg",
            "+00000000000002a.seg",
            "000000000000002a.seg.tmp",
            "LOCK",
        ] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}
