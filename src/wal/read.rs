//! Entries read back from a segment for a follower that is behind; batches read for a person who
//! wants to see them.
//!
//! The bytes were verified when they were written or recovered. They are verified again here: a
//! bad block must never travel to a peer.

use crate::entry::{Entry, checksum};
use crate::id::{GroupId, Index};

use super::batch::{BatchRef, Payloads};
use super::damage::{Damage, Fault, Proof};
use super::index::SPAN_BYTES;
use super::record::{EntryRef, RunKind};
use super::segment::{Identity, Location, SegmentHeader};

/// Copy entries `first..=last` of `group` out of `segment` (the whole file) of the log `whose`, scanning
/// forward from the batch at `at`; both from one [`super::Span`]. Stops before `bytes_max` payload bytes
/// are exceeded, but returns at least one entry. May return fewer than asked if the span ends.
///
/// # Errors
/// [`Damage`] if a checksum on the way does not hold, if the file is of another log (put there while
/// the node runs), or if `first` is not found where the span says.
pub fn read_span(
    whose: Identity,
    segment: &[u8],
    at: Location,
    group: GroupId,
    first: Index,
    last: Index,
    bytes_max: usize,
) -> Result<Vec<Entry>, Damage> {
    let damaged =
        |offset, fault| Damage { segment: at.segment, offset, fault, proof: Proof::ReadBack };
    let header = SegmentHeader::decode(segment).map_err(|fault| damaged(0, fault))?;
    header.check_identity(whose, at.segment)?;
    let salt = whose.salt();
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut next = first;
    let mut offset = at.offset;
    // Entries of one batch, before they are copied: a later run may supersede an earlier one.
    let mut found: Vec<EntryRef<'_>> = Vec::new();
    while next <= last && offset <= at.offset + SPAN_BYTES {
        let place = Location { segment: at.segment, offset };
        let batch = match BatchRef::parse(segment, place, salt) {
            Ok(batch) => batch,
            // The log ends within the span's reach; whether that is an error depends on what was
            // found.
            Err(_) if !entries.is_empty() => break,
            Err(fault) => return Err(damaged(offset, fault)),
        };
        batch.verify(Payloads::Skip).map_err(|fault| damaged(offset, fault))?;
        found.clear();
        for run in batch.runs().filter_map(Result::ok) {
            if run.group != group || run.kind != RunKind::Log {
                continue;
            }
            // In this batch, `found[i]` has index `next + i`.
            if run.count == 0 || next.plus(found.len() as u64) < run.first {
                continue;
            }
            if run.last() < next {
                found.clear();
                continue;
            }
            let (skip, keep) = if run.first < next {
                (next.0 - run.first.0, 0)
            } else {
                (0, run.first.0 - next.0)
            };
            found.truncate(usize::try_from(keep).expect("not past what was found"));
            found.extend(run.entries().skip(usize::try_from(skip).expect("within the run")));
        }
        for entry in &found {
            if next > last {
                break;
            }
            let crc = checksum(entry.payload);
            if crc != entry.crc {
                let (expected, crc) = (u64::from(entry.crc), u64::from(crc));
                return Err(damaged(offset, Fault::new("payload checksum", offset, expected, crc)));
            }
            bytes += entry.payload.len();
            if bytes > bytes_max && !entries.is_empty() {
                return Ok(entries);
            }
            entries.push(entry.to_entry());
            next = next.next();
        }
        offset += batch.aligned() as u64;
    }
    if entries.is_empty() && first <= last {
        let fault = Fault::authentic("entry with this index", at.offset, first.0, 0);
        return Err(damaged(at.offset, fault));
    }
    Ok(entries)
}

/// The batch at byte `offset` of `segment` (the whole file, with its header), verified to the last
/// payload. For tools: whether the batch is part of the log is for [`super::Recovery`] to say.
///
/// # Errors
/// The first [`Fault`]: no whole batch of this segment lies there.
pub fn batch_at(segment: &[u8], offset: u64) -> Result<BatchRef<'_>, Fault> {
    let header = SegmentHeader::decode(segment)?;
    let at = Location { segment: header.segment, offset };
    let batch = BatchRef::parse(segment, at, header.identity.salt())?;
    batch.verify(Payloads::Verify)?;
    Ok(batch)
}
