//! Keeps the log of one core short: whose snapshot to take, and which segments may go.
//!
//! ```text
//!   first                    cutoff                                  active
//!     │ should be gone          │        the log as long as it should be │
//!   ┌─┴───┬─────┬─────┬─────┬───┴─┬─────┬─────┬─────┬─────┬─────┬─────┬──┴──┐
//!   │ a b │ b c │  b  │     │     │     │     │     │     │     │     │     │
//!   └─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┴─────┘
//!     ▲ groups that need something in front of the cutoff take a snapshot, oldest first;
//!       it lands at the active end, and everything in front of the oldest need goes
//! ```
//!
//! A segment goes in this order, so that a crash between any two steps leaves a log that recovers
//! (contract row 27):
//!
//! 1. the snapshot's end is durable, so the group no longer needs what lies in front of it;
//! 2. every write that was placed when the cut was chosen is durable;
//! 3. no read of such a segment is under way; raft, index and cache forget those entries;
//! 4. the driver notes durably where the log now begins, and deletes the files.
//!
//! A node that stops in good order makes a checkpoint ([`Truncation::begin_checkpoint`]): all groups take
//! snapshots, however short the log is, and the next start reads little more than those.

use crate::group::Replica;
use crate::id::{FlushTicket, SegmentSeq, Tick};
use crate::limits;
use crate::planted::{Planted, planted};

use super::batch::Log;
use super::report::Counters;

/// One per shard.
pub(super) struct Truncation {
    /// The length that the log should have, in bytes.
    log_bytes: u64,
    segment_bytes: u64,
    /// The oldest segment there is.
    first: SegmentSeq,
    /// Slots whose snapshot is being taken.
    taking: Vec<u32>,
    /// What the needs were last looked at for: the active segment, and how many snapshots were whole.
    looked: (SegmentSeq, u64),
    /// Somebody could do nothing then, and may be able to now.
    look_again_at: Option<Tick>,
    /// Snapshots that became whole, and states that were written again.
    done: u64,
    /// Bytes of the latest snapshots of all groups.
    stored_bytes: u64,
    /// A cut that waits for the writes placed when it was chosen.
    cut: Option<(SegmentSeq, FlushTicket)>,
    /// Segments that are being read from.
    reads: Vec<SegmentSeq>,
    /// The log is to begin behind this segment, of which part cannot be read.
    damaged: SegmentSeq,
    /// The node stops, and the log is to begin here if that can be had in time.
    checkpoint: Option<SegmentSeq>,
}

impl Truncation {
    pub(super) fn new(
        log_bytes: u64,
        segment_bytes: usize,
        first: SegmentSeq,
        replicas: &[Replica],
    ) -> Self {
        let mut truncation = Self {
            log_bytes,
            segment_bytes: segment_bytes as u64,
            first,
            taking: Vec::new(),
            looked: (SegmentSeq(0), 0),
            look_again_at: None,
            done: 0,
            stored_bytes: 0,
            cut: None,
            reads: Vec::new(),
            damaged: SegmentSeq(0),
            checkpoint: None,
        };
        truncation.count_stored(replicas);
        truncation
    }

    fn count_stored(&mut self, replicas: &[Replica]) {
        let bytes = |replica: &Replica| replica.stored().map_or(0, |stored| stored.bytes);
        self.stored_bytes = replicas.iter().map(bytes).sum();
    }

    /// A snapshot became whole, or what there was of a replica was written again.
    pub(super) fn on_done(&mut self, replicas: &[Replica], slot: u32) {
        self.done += 1;
        self.taking.retain(|taking| *taking != slot);
        self.count_stored(replicas);
    }

    /// Part of a segment cannot be read: snapshots are to stand for all of it soon, however short the
    /// log is.
    pub(super) fn on_damage(&mut self, segment: SegmentSeq) {
        self.damaged = self.damaged.max(segment);
        self.looked = (SegmentSeq(0), 0);
    }

    /// A segment of which part cannot be read is still there, and is not the one being written.
    pub(super) fn holds_damage(&self, log: &Log) -> bool {
        self.first <= self.damaged && self.damaged < log.active()
    }

    /// Snapshots are to stand for everything in front of the segment being written, if what a start would
    /// have to read beside them is worth it.
    pub(super) fn begin_checkpoint(&mut self, log: &Log) {
        let beside = self.bytes(log).saturating_sub(self.stored_bytes);
        let least = limits::LOG_SEGMENTS_MIN * self.segment_bytes;
        if least <= beside && self.stored_bytes / 2 <= beside {
            self.checkpoint = Some(log.active());
            self.looked = (SegmentSeq(0), 0);
        }
    }

    /// Whether a checkpoint is under way that may still come to something.
    pub(super) fn is_checkpointing(&self, log: &Log) -> bool {
        let goes_on = !self.taking.is_empty()
            || self.cut.is_some()
            || self.looked != (log.active(), self.done)
            || !log.is_idle();
        self.checkpoint.is_some_and(|segment| self.first < segment) && goes_on
    }

    /// Entries of a segment are about to be read.
    pub(super) fn on_read(&mut self, segment: SegmentSeq) {
        self.reads.push(segment);
    }

    /// They were read.
    pub(super) fn on_read_done(&mut self, segment: SegmentSeq) {
        if let Some(place) = self.reads.iter().position(|read| *read == segment) {
            self.reads.swap_remove(place);
        }
    }

    /// Bytes of all segments there are, the one being written counted whole.
    pub(super) fn bytes(&self, log: &Log) -> u64 {
        (log.active().0.max(self.first.0) - self.first.0 + 1) * self.segment_bytes
    }

    /// In front of this segment the log is longer than it should be.
    fn cutoff(&self, log: &Log, times: u64) -> SegmentSeq {
        // A log shorter than the snapshots in it would be written for snapshots mostly.
        let target = self.log_bytes.max(2 * self.stored_bytes).saturating_mul(times);
        let segments = (target / self.segment_bytes).max(limits::LOG_SEGMENTS_MIN);
        let by_length = SegmentSeq(log.active().0.saturating_sub(segments - 1));
        let by_length = by_length.max(self.damaged.next().min(log.active()));
        by_length.max(self.checkpoint.unwrap_or(by_length))
    }

    /// Does this turn's part of the work: some bytes of snapshots, a cut. Returns the segment in
    /// front of which all may be deleted.
    pub(super) fn turn(
        &mut self,
        now: Tick,
        log: &mut Log,
        replicas: &mut [Replica],
        counters: &mut Counters,
    ) -> Option<SegmentSeq> {
        let seen = (log.active(), self.done);
        let has_changed = self.looked != seen
            || self.look_again_at.is_some_and(|at| at <= now)
            || planted(Planted::CutBeforeSnapshotDurable);
        if has_changed && self.first < self.cutoff(log, 1) {
            self.looked = seen;
            let all_helped = self.look(log, replicas, counters);
            let again = now.plus(limits::LOG_LOOK_AGAIN_MS);
            self.look_again_at = Some(again).filter(|_| !all_helped);
        }
        let mut bytes = 0;
        let has_room = !log.is_at_reserve();
        let Self { taking, .. } = self;
        taking.retain(|&slot| {
            let replica = &mut replicas[slot as usize];
            if has_room
                && bytes < limits::SNAPSHOT_PIECE_BYTES
                && let Some(written) = replica.step_snapshot()
            {
                bytes += written;
                log.stage(slot);
            }
            replica.is_taking()
        });
        self.carry_out(log, replicas, counters)
    }

    /// Whose needs lie too far back, and how far may the log be cut? Returns false if somebody needs more of it than
    /// it should, and can do nothing: what it has is not committed yet, or it is not whole.
    fn look(&mut self, log: &mut Log, replicas: &mut [Replica], counters: &mut Counters) -> bool {
        let (cutoff, far) = (self.cutoff(log, 1), self.cutoff(log, 2));
        let mut needs = Vec::new();
        let mut cut = cutoff;
        for (slot, replica) in (0..).zip(&*replicas) {
            // Who holds the log for a follower is heard only while it is not far too long
            // (contract row 42).
            let holds = far <= self.first;
            let held = if holds { replica.pin_held(log.index()) } else { None };
            let own = replica.pin(log.index());
            let Some(pin) = own.into_iter().chain(held).min() else { continue };
            cut = cut.min(pin);
            if own.is_some_and(|own| own < cutoff) {
                needs.push((pin, slot));
            }
        }
        needs.sort_unstable();
        let mut all_helped = true;
        for (_, slot) in needs {
            // Who waits for a machine's own storage does not keep others from theirs.
            let writes = |slot: &&u32| !replicas[**slot as usize].waits_for_machine();
            if limits::SNAPSHOTS_TAKEN_AT_ONCE <= self.taking.iter().filter(writes).count() {
                break;
            }
            let replica = &mut replicas[slot as usize];
            if self.taking.contains(&slot) {
                continue;
            }
            if replica.begin_snapshot(log.index(), cutoff) {
                counters.snapshots_begun += 1;
                self.taking.push(slot);
            } else if replica.write_again() {
                log.stage(slot);
            } else {
                all_helped = false;
            }
        }
        if self.first < cut && self.cut.is_none() {
            self.cut = Some((cut, log.placed()));
        }
        all_helped
    }

    fn carry_out(
        &mut self,
        log: &mut Log,
        replicas: &mut [Replica],
        counters: &mut Counters,
    ) -> Option<SegmentSeq> {
        let (cut, placed) = self.cut?;
        let is_durable = placed <= log.durable() || planted(Planted::CutBeforeSnapshotDurable);
        if !is_durable || self.reads.iter().any(|read| *read < cut) {
            return None;
        }
        self.cut = None;
        let cores = u64::from(log.cores());
        // Needs only move on; whoever asked for entries since then is too late for these.
        log.index_mut().forget_segments_before(cut, |group, first| {
            let replica = &mut replicas[(group.0 / cores) as usize];
            let stored = replica.stored().map(|stored| stored.entry.index.next());
            if let Some(first) = first.or(stored) {
                replica.forget_before(first);
            }
        });
        counters.segments_reclaimed += cut.0 - self.first.0;
        self.first = cut;
        self.looked = (SegmentSeq(0), 0);
        Some(cut)
    }
}
