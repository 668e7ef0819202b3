//! What a shard's log holds of each group: what was promised, which entries, which snapshots, and where.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use outrigger::group::snapshot::{PIECE_HEADER_BYTES, Part, PieceHeader};
use outrigger::group::{Incoming, SnapshotMeta};
use outrigger::id::{EntryId, GroupId, Index, SegmentSeq, Term};
use outrigger::raft::effects::HardState;
use outrigger::wal::{RecoveredRun, RunKind};

use crate::scan::{Result, Verdict, scan};

/// One group.
pub(crate) struct Held {
    /// The latest.
    pub(crate) hard_state: HardState,
    /// Where the latest hard state stands.
    pub(crate) stated: SegmentSeq,
    /// Entries that count, ascending: from where to where, of which term, in which segment.
    pub(crate) spans: Vec<Span>,
    /// In the order in which they were begun.
    pub(crate) snapshots: Vec<Snapshot>,
    /// It has left the group for good.
    pub(crate) is_removed: bool,
    /// Part of it was found lost and is not back.
    pub(crate) is_forgotten: bool,
}

/// Entries of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Index,
    pub(crate) last: Index,
    pub(crate) term: Term,
    pub(crate) segment: SegmentSeq,
}

/// One snapshot.
pub(crate) struct Snapshot {
    pub(crate) entry: EntryId,
    pub(crate) pieces: u32,
    pub(crate) bytes: u64,
    /// Where its first and its last piece lie.
    pub(crate) segments: (SegmentSeq, SegmentSeq),
    /// How it became whole: taken, or installed.
    pub(crate) whole: Option<RunKind>,
    /// What it says beside the machine, or why it says nothing.
    pub(crate) meta: std::result::Result<SnapshotMeta, String>,
    /// The machine's chunks, if they were wanted.
    pub(crate) chunks: Vec<Bytes>,
    incoming: Option<Incoming>,
}

impl Snapshot {
    fn begun(group: GroupId, entry: EntryId, segment: SegmentSeq) -> Self {
        Self {
            entry,
            pieces: 0,
            bytes: 0,
            segments: (segment, segment),
            whole: None,
            meta: Err("it was not finished".into()),
            chunks: Vec::new(),
            incoming: Some(Incoming::checking(group, entry)),
        }
    }

    fn take(&mut self, piece: &[u8], segment: SegmentSeq, keep: bool) {
        self.pieces += 1;
        self.bytes += piece.len() as u64;
        self.segments.1 = segment;
        let Some(incoming) = &mut self.incoming else { return };
        let piece = Bytes::copy_from_slice(piece);
        if let Err(error) = incoming.take(&piece) {
            self.meta = Err(error.to_string());
            self.incoming = None;
            return;
        }
        let is_machine = PieceHeader::parse(&piece).is_ok_and(|it| it.part == Part::Machine);
        if keep && is_machine {
            self.chunks.push(piece.slice(PIECE_HEADER_BYTES..));
        }
    }

    fn end(&mut self, kind: RunKind) {
        self.whole = Some(kind);
        if let Some(incoming) = self.incoming.take() {
            self.meta = incoming.finish().map(|(meta, _)| meta).map_err(|error| error.to_string());
        }
    }
}

impl Held {
    fn new() -> Self {
        Self {
            hard_state: HardState::default(),
            stated: SegmentSeq(0),
            spans: Vec::new(),
            snapshots: Vec::new(),
            is_removed: false,
            is_forgotten: false,
        }
    }

    /// The latest snapshot that is whole.
    pub(crate) fn stored(&self) -> Option<&Snapshot> {
        self.snapshots.iter().rfind(|it| it.whole.is_some())
    }

    /// The first entry that is needed: behind the latest snapshot.
    fn first_needed(&self) -> Index {
        self.stored().map_or(Index(1), |stored| stored.entry.index.next())
    }

    /// The oldest segment that something of this group lies in that is still needed, and what that is.
    pub(crate) fn oldest_need(&self) -> (SegmentSeq, String) {
        let needed = self.first_needed();
        let span = self.spans.iter().find(|span| needed <= span.last);
        let entries = span.map(|span| {
            let first = span.first.max(needed);
            (span.segment, format!("entries from {first} on"))
        });
        let snapshot =
            self.stored().map(|it| (it.segments.0, format!("the snapshot at {}", it.entry)));
        let stated = (self.stated, "its term and vote".to_owned());
        [entries, snapshot]
            .into_iter()
            .flatten()
            .fold(stated, |oldest, it| if it.0 <= oldest.0 { it } else { oldest })
    }

    fn on_run(&mut self, run: &RecoveredRun<'_>, keep: bool) {
        let segment = run.location.segment;
        (self.hard_state, self.stated) = (run.hard_state, segment);
        let entry = EntryId { term: run.run_term, index: run.first };
        self.is_forgotten |= run.is_forgetful;
        match run.kind {
            RunKind::SaidAgain => {}
            RunKind::Log if run.count == 0 => {}
            RunKind::Log => {
                // Entries at and behind the first are superseded.
                self.spans.retain(|span| span.first < run.first);
                if let Some(last) = self.spans.last_mut() {
                    last.last = last.last.min(run.first.prev());
                }
                let last = run.first.plus(run.count - 1);
                self.spans.push(Span { first: run.first, last, term: run.run_term, segment });
            }
            RunKind::SnapshotPiece => {
                let group = run.group;
                let is_next =
                    self.snapshots.last().is_some_and(|it| it.entry == entry && it.whole.is_none());
                if !is_next {
                    self.snapshots.push(Snapshot::begun(group, entry, segment));
                }
                if let Some(snapshot) = self.snapshots.last_mut() {
                    run.entries().for_each(|piece| snapshot.take(piece.payload, segment, keep));
                }
            }
            RunKind::SnapshotTaken | RunKind::SnapshotInstalled => {
                if run.kind == RunKind::SnapshotInstalled {
                    self.spans.clear();
                }
                if let Some(snapshot) = self.snapshots.last_mut().filter(|it| it.entry == entry) {
                    snapshot.end(run.kind);
                }
            }
            RunKind::Tombstone => self.is_removed = true,
            RunKind::PromisesForgotten | RunKind::EntriesForgotten => self.is_forgotten = true,
            RunKind::Recalled => self.is_forgotten = false,
        }
    }
}

/// Reads a log; with `keep`, snapshots keep their chunks, of all groups or of one.
pub(crate) fn held(
    dir: &Path,
    keep: impl Fn(GroupId) -> bool,
) -> Result<(BTreeMap<GroupId, Held>, Verdict)> {
    let mut groups = BTreeMap::new();
    let verdict = scan(dir, &mut |run| {
        let held = groups.entry(run.group).or_insert_with(Held::new);
        held.on_run(&run, keep(run.group));
    })?;
    Ok((groups, verdict))
}
