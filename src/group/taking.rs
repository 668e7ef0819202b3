//! A replica's snapshots of itself, what of the log they stand for, and everything else it writes
//! beside its log.
//!
//! ```text
//!   begin_snapshot: freeze at `applied`        apply goes on
//!        │
//!        ├─ (a machine with storage of its own: when that is durable)
//!        ├─ a piece per turn ─► aside ─► run ─► placed ─► durable
//!        │                                                  │ the end's run is durable: the pointer
//!        ▼                                                  ▼
//!   Outgoing                                        `stored`: the log up to its entry may go
//! ```
//!
//! Runs of one group lie in the log in the order they were taken, and a hole in the log ends it. So
//! when the end's run is durable, all pieces are, and a snapshot whose end was never written is passed
//! over by recovery (contract rows 24, 27, 28).

use std::collections::VecDeque;

use bytes::Bytes;

use crate::id::{EntryId, Index, ReplicaId, SegmentSeq};
use crate::planted::{Planted, planted};
use crate::raft::Recalled;
use crate::raft::effects::{HardState, PersistSeq};
use crate::wal::{LogIndex, Run, RunKind};

use super::replica::Replica;
use super::snapshot::{Outgoing, SnapshotMeta};

/// What the durability of a run completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// What the core wanted durable, up to this.
    Persist(PersistSeq),
    /// One piece of a snapshot that comes from another member.
    Piece {
        /// Who sent it.
        from: ReplicaId,
        /// The sender's name for the transfer.
        transfer: u64,
        /// The number of the piece.
        number: u32,
    },
    /// A snapshot this replica took of itself.
    Taken(EntryId),
    /// A snapshot that came from the leader.
    Installed(EntryId),
    /// What there is of a replica without a snapshot, written again.
    Again,
}

/// A run that is not of the log, on its way there.
#[derive(Debug)]
pub(super) struct Aside {
    kind: RunKind,
    entry: EntryId,
    piece: Option<Bytes>,
    written: Option<Written>,
}

/// A snapshot that lies whole and durable in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The last entry it holds.
    pub entry: EntryId,
    /// The segment of its first piece.
    pub segment: SegmentSeq,
    /// Bytes of its pieces.
    pub bytes: u64,
}

/// A snapshot being taken.
pub(super) struct Taking {
    outgoing: Outgoing,
    bytes: u64,
    /// The machine holds its state itself, and what it was given is not durable there yet, as far as is known.
    waits_for_machine: bool,
}

/// What of the log on disk a replica needs.
#[derive(Default)]
pub(super) struct Extent {
    /// The latest snapshot that is durable.
    pub(super) stored: Option<Stored>,
    /// The segment of the first run there is of this replica.
    pub(super) oldest: Option<SegmentSeq>,
    /// The segment of the first piece of the snapshot being written: its own, or one that arrives.
    coming: Option<SegmentSeq>,
    /// What there is of this replica is being written again, and where it was placed.
    again: Again,
    /// Entries after this one are needed by somebody else.
    hold: Option<Index>,
}

/// ```text
///   No ──► Taken ──► Placed ──► No
/// ```
#[derive(Clone, Copy, Default)]
enum Again {
    #[default]
    No,
    Taken,
    Placed(SegmentSeq),
}

/// Everything about snapshots and the log's extent. One per replica.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) extent: Extent,
    /// A tombstone was written: it is all that is needed.
    is_buried: bool,
    aside: VecDeque<Aside>,
    taking: Option<Taking>,
    /// Pieces come from the leader: this replica takes no snapshot of itself.
    is_receiving: bool,
    /// What was found about the log when it was read, that part of it is gone for one: written before anything else is.
    found: Option<Run>,
}

impl Beside {
    /// For a replica of which recovery found this.
    pub(super) fn recovered(
        stored: Option<Stored>,
        oldest: Option<SegmentSeq>,
        is_buried: bool,
    ) -> Self {
        let extent = Extent { stored, oldest, ..Extent::default() };
        Self { extent, is_buried, ..Self::default() }
    }

    /// Nothing waits to be written beside the log.
    pub(super) fn is_empty(&self) -> bool {
        self.aside.is_empty() && self.found.is_none()
    }
}

impl Replica {
    /// The latest snapshot of this replica that is durable here.
    #[must_use]
    pub fn stored(&self) -> Option<Stored> {
        self.beside.extent.stored
    }

    /// The replica was removed from its group, and that is written: it takes part in nothing.
    #[must_use]
    pub fn is_buried(&self) -> bool {
        self.beside.is_buried
    }

    /// A snapshot is being taken.
    #[must_use]
    pub fn is_taking(&self) -> bool {
        self.beside.taking.is_some()
    }

    /// A snapshot is to be taken as soon as the machine has made its storage durable: nothing of it is written yet.
    #[must_use]
    pub fn waits_for_machine(&self) -> bool {
        self.beside.taking.as_ref().is_some_and(|taking| taking.waits_for_machine)
    }

    /// All that a snapshot at this moment says beside the machine.
    #[must_use]
    pub fn snapshot_meta(&self) -> SnapshotMeta {
        let status = self.raft.status();
        let named = planted(Planted::SnapshotNamedByCommit);
        let index = if named { status.commit } else { status.applied };
        let term = self.raft.term_at(index).expect("the log reaches to what is applied");
        let entry = EntryId { term, index };
        let meta = SnapshotMeta::new(self.group, entry).with_state(&self.state);
        if planted(Planted::SessionsNotInSnapshot) {
            return meta;
        }
        meta.with_sessions(&self.sessions)
    }

    /// A snapshot as of now, to be cut into pieces while the replica goes on: with the machine's state, whoever keeps it.
    #[must_use]
    pub fn snapshot(&self) -> Outgoing {
        Outgoing::new(&self.snapshot_meta(), self.machine.freeze())
    }

    /// Begins a snapshot of what is applied, which is durable in the log (contract row 31), so that the
    /// replica needs nothing in front of `cutoff` any more. Returns false if a snapshot would not help:
    /// nothing is applied, the entry after it already lies too far back, or something is forgotten.
    pub fn begin_snapshot(&mut self, index: &LogIndex, cutoff: SegmentSeq) -> bool {
        let applied = self.raft.status().applied;
        let known = self.beside.extent.stored.map_or(Index(0), |stored| stored.entry.index);
        let nothing = applied == Index(0) || applied < known || self.is_gone();
        let after = index.find(self.group, applied.next());
        let helps = self.raft.forgotten().is_none()
            && after.is_none_or(|after| cutoff <= after.location.segment);
        let busy = self.beside.is_receiving || self.is_taking();
        if nothing || !helps || busy || self.is_failed() {
            return false;
        }
        debug_assert!(applied <= self.raft.status().durable, "applied before it was durable");
        let waits_for_machine = self.machine.durable().is_some();
        let outgoing = if waits_for_machine {
            self.machine.flush(applied);
            Outgoing::in_place(&self.snapshot_meta())
        } else {
            self.snapshot()
        };
        self.beside.taking = Some(Taking { outgoing, bytes: 0, waits_for_machine });
        true
    }

    /// Puts the next piece of the snapshot being taken on its way to the log, if the one before has
    /// left. Returns its bytes; none if there is nothing to do now.
    pub fn step_snapshot(&mut self) -> Option<usize> {
        if !self.beside.aside.is_empty() {
            return None;
        }
        let is_failed = self.is_failed();
        let taking = self.beside.taking.as_mut()?;
        let entry = taking.outgoing.entry();
        if taking.waits_for_machine {
            if is_failed {
                // It will not get there in this life.
                self.beside.taking = None;
                return None;
            }
            if self.machine.durable() < Some(entry.index) {
                return None;
            }
            taking.waits_for_machine = false;
        }
        let piece = taking.outgoing.next_piece()?;
        let bytes = piece.len();
        taking.bytes += bytes as u64;
        let is_end = taking.outgoing.is_done();
        self.write_piece(entry, piece, None);
        if is_end {
            let written = Some(Written::Taken(entry));
            self.write_mark(RunKind::SnapshotTaken, entry, written);
        }
        Some(bytes)
    }

    /// Gives up the snapshot being taken; what was written of it is passed over by recovery. Called
    /// before one from the leader is written: pieces of two would stand among each other.
    pub fn cancel_snapshot(&mut self) {
        self.beside.taking = None;
        self.beside.aside.retain(|aside| match aside.kind {
            RunKind::SnapshotPiece | RunKind::SnapshotTaken | RunKind::SnapshotInstalled => false,
            RunKind::Log
            | RunKind::Tombstone
            | RunKind::PromisesForgotten
            | RunKind::EntriesForgotten
            | RunKind::Recalled
            | RunKind::SaidAgain => true,
        });
        self.beside.extent.coming = None;
    }

    /// Pieces of a snapshot from the leader are going to be written: in place of its own, and of those
    /// of an earlier transfer.
    pub fn begin_receiving(&mut self) {
        self.cancel_snapshot();
        self.beside.is_receiving = true;
    }

    /// They came to an end, one way or the other; those that are not written are not needed.
    pub fn end_receiving(&mut self) {
        if std::mem::take(&mut self.beside.is_receiving) {
            self.cancel_snapshot();
        }
    }

    /// Writes a piece of a snapshot beside the log, after what was asked for before. The shard stages
    /// the replica.
    pub fn write_piece(&mut self, entry: EntryId, piece: Bytes, written: Option<Written>) {
        let kind = RunKind::SnapshotPiece;
        self.beside.aside.push_back(Aside { kind, entry, piece: Some(piece), written });
    }

    /// Writes the end of a snapshot, or a tombstone; as [`Self::write_piece`].
    pub fn write_mark(&mut self, kind: RunKind, entry: EntryId, written: Option<Written>) {
        self.beside.aside.push_back(Aside { kind, entry, piece: None, written });
    }

    /// Recovery found part of the log gone: that is on its way to the log, in front of everything
    /// else, with the hard state that recovery found.
    pub(super) fn note_forgotten(&mut self, hard_state: HardState) {
        self.beside.found = self.raft.forgotten().map(|what| {
            let kind = match what.promises_known {
                true => RunKind::EntriesForgotten,
                false => RunKind::PromisesForgotten,
            };
            Run::mark(kind, self.group, hard_state, what.last.unwrap_or_default())
        });
    }

    /// The log ends with a lower term than it began with, of a life that could not read that: the term known is on its
    /// way to the log, in front of everything else, so that the next life need not read so far back for it.
    pub(super) fn note_hard_state(&mut self, hard_state: HardState) {
        self.beside.found =
            Some(Run::mark(RunKind::Log, self.group, hard_state, EntryId::default()));
    }

    /// What was forgotten is known again: a later life need not look for it.
    pub(super) fn note_recalled(&mut self, recalled: Recalled) {
        match recalled {
            Recalled::Promises => {
                self.write_mark(RunKind::EntriesForgotten, EntryId::default(), None);
            }
            Recalled::Everything => {
                // A later life must find as much of it.
                let whole = self.raft.status().last;
                self.write_mark(RunKind::Recalled, whole, None);
                self.islands.clear();
            }
            Recalled::Committed(entry) => {
                self.islands.learn_committed(entry);
                self.raft.note_committed(self.islands.committed());
            }
        }
    }

    pub(super) fn take_found(&mut self) -> Option<Run> {
        self.beside.found.take()
    }

    /// The next run beside the log.
    pub(super) fn take_aside(&mut self) -> Option<(Run, Option<Written>)> {
        let Aside { kind, entry, piece, written } = self.beside.aside.pop_front()?;
        if written == Some(Written::Again) {
            self.beside.extent.again = Again::Taken;
        }
        let mut hard_state = self.hard_state();
        if matches!(kind, RunKind::SnapshotInstalled | RunKind::SnapshotTaken) {
            // Data, pointer and commit index become durable together (contract row 56).
            hard_state.commit = hard_state.commit.max(entry.index);
        }
        let run = match piece {
            Some(piece) => Run::piece(self.group, hard_state, entry, piece),
            None => Run::mark(kind, self.group, hard_state, entry),
        };
        Some((run, written))
    }

    /// A run of this replica, log or not, was placed in `segment`.
    pub fn on_run_placed(&mut self, run: &Run, segment: SegmentSeq) {
        self.beside.is_buried |= run.kind == RunKind::Tombstone;
        let extent = &mut self.beside.extent;
        extent.oldest.get_or_insert(segment);
        if run.kind == RunKind::SnapshotPiece {
            extent.coming.get_or_insert(segment);
        } else if run.entries.is_empty() && matches!(extent.again, Again::Taken) {
            // This run or one taken before it: not later than where it is.
            extent.again = Again::Placed(segment);
        }
        if planted(Planted::CutBeforeSnapshotDurable) && run.kind == RunKind::SnapshotTaken {
            self.on_taken(EntryId { term: run.run_term, index: run.first });
        }
    }

    /// The snapshot at `entry` is durable, pieces and end: it stands for the log up to there.
    pub fn on_stored(&mut self, entry: EntryId, bytes: u64) {
        let extent = &mut self.beside.extent;
        if let Some(segment) = extent.coming.take() {
            extent.stored = Some(Stored { entry, segment, bytes });
        }
    }

    /// Of the log behind that snapshot something lies in this segment.
    pub(super) fn keep_from(&mut self, segment: SegmentSeq) {
        if let Some(stored) = &mut self.beside.extent.stored {
            stored.segment = stored.segment.min(segment);
        }
    }

    /// The end of the snapshot taken at `entry` is durable.
    pub fn on_taken(&mut self, entry: EntryId) {
        let ours = |taking: &mut Taking| taking.outgoing.entry() == entry;
        if let Some(taking) = self.beside.taking.take_if(ours) {
            self.on_stored(entry, taking.bytes);
        }
    }

    /// Somebody needs the entries after `after`; nobody any more if none.
    pub fn hold_log(&mut self, after: Option<Index>) {
        self.beside.extent.hold = after;
    }

    /// The oldest segment that holds something this replica needs. None if there is nothing of it.
    #[must_use]
    pub fn pin(&self, index: &LogIndex) -> Option<SegmentSeq> {
        let extent = &self.beside.extent;
        if self.raft.forgotten().is_some() {
            // What tells the next life so must stay.
            return extent.oldest;
        }
        let own = match extent.stored.filter(|_| !self.is_buried()) {
            Some(stored) if planted(Planted::SnapshotGap) => Some(stored.segment),
            Some(stored) => {
                let after = self.segment_after(index, stored.entry.index);
                Some(after.map_or(stored.segment, |after| after.min(stored.segment)))
            }
            None => extent.oldest,
        };
        // What has arrived of a snapshot is not this replica's state yet, but will be.
        let is_coming = self.beside.is_receiving || self.is_taking();
        let coming = extent.coming.filter(|_| is_coming);
        [own, coming].into_iter().flatten().min()
    }

    /// The oldest segment of what others asked this replica to keep.
    #[must_use]
    pub fn pin_held(&self, index: &LogIndex) -> Option<SegmentSeq> {
        self.segment_after(index, self.beside.extent.hold?)
    }

    fn segment_after(&self, index: &LogIndex, after: Index) -> Option<SegmentSeq> {
        Some(index.find(self.group, after.next())?.location.segment)
    }

    /// A replica of which nothing is applied, so that there is nothing to take a snapshot of: what
    /// there is of it, its hard state or its tombstone, is written again, so that it does not pin the
    /// log. Returns whether that helps.
    pub fn write_again(&mut self) -> bool {
        let is_empty = self.beside.extent.stored.is_none() && self.last() == Index(0);
        let is_whole = self.raft.forgotten().is_none();
        let is_busy = !self.beside.aside.is_empty() || self.beside.is_receiving;
        if !(is_whole && is_empty || self.is_buried()) || is_busy {
            return false;
        }
        let kind = if self.is_buried() { RunKind::Tombstone } else { RunKind::Log };
        self.write_mark(kind, self.left_at, Some(Written::Again));
        true
    }

    /// What [`Self::write_again`] wrote is durable.
    pub fn on_written_again(&mut self) {
        let is_empty = self.beside.extent.stored.is_none() && self.last() == Index(0);
        let is_all = is_empty || self.is_buried();
        let extent = &mut self.beside.extent;
        if let Again::Placed(segment) = std::mem::take(&mut extent.again)
            && is_all
        {
            extent.oldest = Some(segment);
        }
    }

    fn last(&self) -> Index {
        self.raft.status().last.index
    }

    /// The log in front of `first`, which a durable snapshot stands for, is gone from the disk.
    pub fn forget_before(&mut self, first: Index) {
        let Some(stored) = self.beside.extent.stored else { return };
        let last = first.prev().min(stored.entry.index);
        if self.raft.status().first <= last {
            self.raft.compact(last);
            self.cache.evict(last, usize::MAX);
        }
    }
}
