//! Checksums taken beforehand, by another thread than the one that recovers.
//!
//! ```text
//!   a thread beside   check 2      │ check 3      │ check 4
//!   the core          segment 1    │ segment 2    │ segment 3       which batches follow one another, and what they say
//! ```
//!
//! Whether a batch is whole can be told from its own bytes; whether it is part of the log, only in its place.
//! The first is most of the work, and is done here for whoever has another core to spare. What decays between being
//! checked and being used is not seen, as ever; the time between is that of a segment, not of a batch.

use crate::id::SegmentSeq;
use crate::limits::BLOCK_BYTES;

use super::batch::{BatchRef, Payloads};
use super::segment::{Identity, Location};

/// Which batches of a segment were found whole. Good for the very bytes that were looked at.
#[derive(Debug)]
pub struct Checked {
    segment: SegmentSeq,
    /// Where the bytes are in memory: as a number, it is only compared.
    at: usize,
    bytes: usize,
    /// The first blocks of whole batches, ascending.
    batches: Vec<u32>,
}

impl Checked {
    /// Look at the batches of `segment`, whose whole file is `bytes`, from the first on, up to `end` or to one
    /// that is not whole. Takes the log of `identity` for granted; [`super::Recovery`] does not.
    #[must_use]
    pub fn new(identity: Identity, segment: SegmentSeq, bytes: &[u8], end: u64) -> Self {
        let salt = identity.salt();
        // What lies behind `end` need not be there to be read.
        let seen = &bytes[..usize::try_from(end).map_or(bytes.len(), |end| end.min(bytes.len()))];
        let mut batches = Vec::new();
        let mut at = Location { segment, offset: BLOCK_BYTES as u64 };
        while let Ok(batch) = BatchRef::parse(seen, at, salt)
            && batch.verify(Payloads::Verify).is_ok()
        {
            batches.push((at.offset / BLOCK_BYTES as u64) as u32);
            at = batch.next(at).at;
        }
        Self { segment, at: bytes.as_ptr() as usize, bytes: bytes.len(), batches }
    }

    /// Whether these are the bytes that were looked at. Another segment may lie where one lay before.
    pub(super) fn is_of(&self, segment: SegmentSeq, bytes: &[u8]) -> bool {
        (self.segment, self.at, self.bytes) == (segment, bytes.as_ptr() as usize, bytes.len())
    }

    /// The batch that begins there was whole.
    pub(super) fn holds(&self, offset: u64) -> bool {
        let block = offset / BLOCK_BYTES as u64;
        u32::try_from(block).is_ok_and(|block| self.batches.binary_search(&block).is_ok())
    }
}
