//! Which batch holds an entry.
//!
//! A span is a stretch of a group's log that a reader finds by scanning forward from one batch.
//! Groups interleave in a shard's log, so the batches of one group lie apart; a span covers them
//! as long as the first and the last begin within [`SPAN_BYTES`] of each other. It costs 24 bytes,
//! and 256 KiB of log per group at most one of them: raft-engine's 40 bytes per entry was the
//! memory its users complained about.
//!
//! ```text
//!  segment   ┌─A──┐┌─B──┐┌─A──┐┌─B──┐┌─A──┐  …  ┌─A──┐
//!  group A   ├─────────── span ───────────┤     ├─ span
//!            ▲ location                         more than 256 KiB further on
//! ```
//!
//! *A span never reaches over a cut.* When an entry is superseded, the stale one still lies in the
//! segment; a scan from in front of it to behind it would meet it first. So the entries that
//! supersede others always begin a new span, and the scan for them begins behind what they replace
//! (or in the same batch, where the reader lets the later run win).

use std::collections::{BTreeMap, VecDeque};

use crate::id::{GroupId, Index, SegmentSeq};

use super::segment::Location;

/// How far a reader of one span scans at most, from batch start to batch start, in bytes.
pub(super) const SPAN_BYTES: u64 = 256 << 10;

/// A stretch of one group's log and where to start looking for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first index in it.
    pub first: Index,
    /// The last index in it.
    pub last: Index,
    /// The batch that holds `first`.
    pub location: Location,
}

/// Packed to 24 bytes; a span is bounded by 256 KiB of batch starts plus one batch, so 32 bits are
/// enough for its count, and a segment's offsets fit 32 bits by its header.
#[derive(Debug, Clone, Copy)]
struct Packed {
    first: u64,
    segment: u64,
    offset: u32,
    count: u32,
}

impl Packed {
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    fn span(&self) -> Span {
        Span {
            first: Index(self.first),
            last: Index(self.end() - 1),
            location: Location {
                segment: SegmentSeq(self.segment),
                offset: u64::from(self.offset),
            },
        }
    }
}

/// Where the entries of all groups of one shard are. One per shard.
#[derive(Debug, Default)]
pub struct LogIndex {
    /// Per group: spans in index order, disjoint, none empty.
    groups: BTreeMap<GroupId, VecDeque<Packed>>,
    /// Where the last entry that was noted lies, in front of a gap in the log: no span reaches over that.
    gap: Location,
    noted: Location,
}

impl LogIndex {
    /// Knows nothing.
    #[must_use]
    pub const fn new() -> Self {
        let nowhere = Location { segment: SegmentSeq(0), offset: 0 };
        Self { groups: BTreeMap::new(), gap: nowhere, noted: nowhere }
    }

    /// What follows lies behind a part of the log that cannot be read.
    pub const fn on_gap(&mut self) {
        self.gap = self.noted;
    }

    /// `count` entries of `group` from `first` on were written at `location`; what was known at and
    /// after `first` is superseded. Call in log order. A count of zero changes nothing.
    pub fn note(&mut self, group: GroupId, first: Index, count: u64, location: Location) {
        if count == 0 {
            return;
        }
        self.noted = location;
        let gap = (self.gap.segment.0, self.gap.offset);
        let spans = self.groups.entry(group).or_default();
        let cut = cut_from(spans, first.0);
        let count = u32::try_from(count).expect("limits bound the entries of a run");
        let offset = u32::try_from(location.offset).expect("segments are shorter than 4 GiB");
        if let Some(last) = spans.back_mut().filter(|_| !cut) {
            let is_behind = gap < (last.segment, u64::from(last.offset));
            let near = is_behind
                && last.segment == location.segment.0
                && u64::from(offset.saturating_sub(last.offset)) <= SPAN_BYTES;
            let merged = last.count.checked_add(count);
            if let (true, true, Some(merged)) = (near, last.end() == first.0, merged) {
                last.count = merged;
                return;
            }
        }
        spans.push_back(Packed { first: first.0, segment: location.segment.0, offset, count });
    }

    /// The span that holds `index`, if it is in the log.
    #[must_use]
    pub fn find(&self, group: GroupId, index: Index) -> Option<Span> {
        let spans = self.groups.get(&group)?;
        let after = spans.partition_point(|span| span.first <= index.0);
        let span = spans.get(after.checked_sub(1)?)?;
        (index.0 < span.end()).then(|| span.span())
    }

    /// The first entry of `group` at or after `index` that is in the log.
    #[must_use]
    pub fn first_from(&self, group: GroupId, index: Index) -> Option<Index> {
        let spans = self.groups.get(&group)?;
        let at = spans.partition_point(|span| span.end() <= index.0);
        spans.get(at).map(|span| index.max(Index(span.first)))
    }

    /// Entries of `group` in front of `first` are no longer needed. Spans that reach over `first`
    /// stay whole.
    pub fn forget_before(&mut self, group: GroupId, first: Index) {
        if let Some(spans) = self.groups.get_mut(&group) {
            while spans.front().is_some_and(|span| span.end() <= first.0) {
                spans.pop_front();
            }
        }
    }

    /// Entries of `group` at and after `first` are not those of its log.
    pub fn forget_from(&mut self, group: GroupId, first: Index) {
        if let Some(spans) = self.groups.get_mut(&group) {
            cut_from(spans, first.0);
        }
    }

    /// The segments in front of `segment` are no longer needed: forgets every span that begins there,
    /// and tells for each group that had any which entry is the first that is left, if one is.
    pub fn forget_segments_before(
        &mut self,
        segment: SegmentSeq,
        mut told: impl FnMut(GroupId, Option<Index>),
    ) {
        for (&group, spans) in &mut self.groups {
            let before = spans.len();
            // Entries that follow one another were written in that order.
            while spans.front().is_some_and(|span| span.segment < segment.0) {
                spans.pop_front();
            }
            if spans.len() < before {
                told(group, spans.front().map(|span| Index(span.first)));
            }
        }
    }

    /// `group` has left this shard.
    pub fn forget(&mut self, group: GroupId) {
        self.groups.remove(&group);
    }

    /// The oldest segment that holds entries of `group`.
    #[must_use]
    pub fn oldest_segment(&self, group: GroupId) -> Option<SegmentSeq> {
        self.groups.get(&group)?.front().map(|span| SegmentSeq(span.segment))
    }

    /// How many spans are held, 24 bytes each.
    #[must_use]
    pub fn spans(&self) -> usize {
        self.groups.values().map(VecDeque::len).sum()
    }
}

/// Forget everything at and after `first`; says whether there was anything.
fn cut_from(spans: &mut VecDeque<Packed>, first: u64) -> bool {
    let mut cut = false;
    while let Some(last) = spans.back_mut().filter(|last| first < last.end()) {
        cut = true;
        if last.first < first {
            last.count = u32::try_from(first - last.first).expect("shorter than it was");
        } else {
            spans.pop_back();
        }
    }
    cut
}
