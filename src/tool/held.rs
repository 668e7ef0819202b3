//! What a shard's log holds of each group: what was promised, which entries, which snapshots, and where.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use crate::entry::EntryKind;
use crate::group::snapshot::{PIECE_HEADER_BYTES, Part, PieceHeader};
use crate::group::{GroupState, Incoming, SnapshotMeta};
use crate::id::{EntryId, GroupId, Index, SegmentSeq, Term};
use crate::raft::effects::HardState;
use crate::wal::{Found, Loss, RecoveredRun, RunKind, Whose};

use super::scan::{Result, Scanned, scan};

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
    /// Something of it was lost while it was read.
    has_gaps: bool,
    /// The entries in front of the last gap, for when it turns out that none was lost in it.
    in_front: Option<Vec<Span>>,
    /// Configuration entries that count, ascending.
    configs: Vec<(EntryId, Bytes)>,
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
    /// Pieces of it are lost: a start does not know it.
    pub(crate) is_cut: bool,
    /// What it says beside the machine, or why it says nothing.
    pub(crate) meta: std::result::Result<SnapshotMeta, String>,
    /// The machine's state is not in it: it keeps that itself.
    pub(crate) is_in_place: bool,
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
            is_cut: false,
            meta: Err("it was not finished".into()),
            is_in_place: false,
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
            self.is_in_place = incoming.is_in_place();
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
            has_gaps: false,
            in_front: None,
            configs: Vec::new(),
        }
    }

    /// The latest snapshot that is whole.
    pub(crate) fn stored(&self) -> Option<&Snapshot> {
        self.snapshots.iter().rfind(|it| it.whole.is_some() && !it.is_cut)
    }

    /// The state of the group as of what is known to be committed: that of the latest snapshot, or `beginning`, and
    /// the changes behind it. Nothing if nobody says with whom it began.
    pub(crate) fn state(&self, beginning: Option<&GroupState>) -> Option<GroupState> {
        let stored =
            self.stored().and_then(|it| Some((it.entry.index, it.meta.as_ref().ok()?.state()?)));
        let (from, mut state) = match stored {
            Some((index, state)) => (index, state),
            None => (Index(0), beginning.cloned().unwrap_or_default()),
        };
        for (entry, payload) in &self.configs {
            if from < entry.index && entry.index <= self.hard_state.commit {
                // A change that does not fit changes nothing, as for the node.
                let _ = state.apply(entry.index, payload);
            }
        }
        let is_known = state.membership.members().next().is_some();
        is_known.then_some(state)
    }

    /// Something that was durable here is gone, and may have been of this group. What was known to be committed
    /// stands; what was not may have been replaced in what is gone.
    fn on_loss(&mut self) {
        let committed = self.hard_state.commit;
        if self.in_front.is_none() {
            self.in_front = Some(self.spans.clone());
        }
        self.cut_behind(committed);
        if let Some(snapshot) = self.snapshots.last_mut().filter(|it| it.whole.is_none()) {
            snapshot.incoming = None;
            snapshot.is_cut = true;
            snapshot.meta = Err("pieces of it are lost".into());
        }
        (self.is_forgotten, self.has_gaps) = (true, true);
    }

    /// Entries behind this one no more count.
    fn cut_behind(&mut self, last: Index) {
        self.spans.retain(|span| span.first <= last);
        if let Some(span) = self.spans.last_mut() {
            span.last = span.last.min(last);
        }
        self.configs.retain(|(entry, _)| entry.index <= last);
    }

    /// Says a run of a whole replica: the log ended with `last` when it was written. An entry names all in front of it
    /// (Raft §5.3), so if it is here, nothing is missing.
    fn heed_end(&mut self, last: EntryId) {
        let ends_so = |spans: &[Span]| {
            spans.last().is_some_and(|it| (it.term, it.last) == (last.term, last.index))
        };
        let is_stored = self.stored().is_some_and(|it| it.entry == last);
        if let Some(spans) = self.in_front.take_if(|spans| ends_so(spans)) {
            self.spans = spans;
            self.is_forgotten = false;
        } else if is_stored || (ends_so(&self.spans) && self.missing().is_empty()) {
            self.is_forgotten = false;
        }
    }

    /// Entries behind the latest snapshot that are not here, from where to where, though later ones are.
    pub(crate) fn missing(&self) -> Vec<(Index, Index)> {
        let mut next = self.first_needed();
        let mut missing = Vec::new();
        for span in &self.spans {
            if next < span.first {
                missing.push((next, span.first.prev()));
            }
            next = next.max(span.last.next());
        }
        missing
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
        let before = self.hard_state;
        self.stated = segment;
        // A life that had lost its promises goes on in a term that may be lower than the one known here.
        if before.term <= run.hard_state.term {
            self.hard_state = run.hard_state;
        }
        self.hard_state.commit = before.commit.max(run.hard_state.commit);
        let entry = EntryId { term: run.run_term, index: run.first };
        self.is_forgotten |= run.is_forgetful;
        match run.kind {
            RunKind::SaidAgain => self.heed_end(entry),
            RunKind::Log if run.count == 0 => {}
            RunKind::Log => {
                // Entries at and behind the first are superseded.
                self.cut_behind(run.first.prev());
                for (index, entry) in (run.first.0..).zip(run.entries()) {
                    if entry.kind == EntryKind::Config {
                        let id = EntryId { term: run.run_term, index: Index(index) };
                        self.configs.push((id, Bytes::copy_from_slice(entry.payload)));
                    }
                }
                let last = run.first.plus(run.count - 1);
                self.spans.push(Span { first: run.first, last, term: run.run_term, segment });
            }
            RunKind::SnapshotPiece => {
                let group = run.group;
                let is_begun = run.entries().next().is_some_and(|piece| {
                    PieceHeader::parse(piece.payload).is_ok_and(|it| it.number == 0)
                });
                let is_next = self.snapshots.last().is_some_and(|it| {
                    // Behind a gap it may have been begun anew.
                    it.entry == entry && it.whole.is_none() && !(it.is_cut && is_begun)
                });
                if !is_next {
                    self.snapshots.push(Snapshot::begun(group, entry, segment));
                }
                if let Some(snapshot) = self.snapshots.last_mut() {
                    run.entries().for_each(|piece| snapshot.take(piece.payload, segment, keep));
                }
            }
            RunKind::SnapshotTaken | RunKind::SnapshotInstalled => {
                let has_gaps = self.has_gaps;
                if let Some(snapshot) = self.snapshots.last_mut().filter(|it| it.entry == entry) {
                    snapshot.end(run.kind);
                    snapshot.is_cut |= has_gaps && snapshot.meta.is_err();
                }
                let is_here = self.stored().is_some_and(|it| it.entry == entry);
                if run.kind == RunKind::SnapshotInstalled && (is_here || !has_gaps) {
                    self.spans.clear();
                    self.configs.clear();
                    self.in_front = None;
                }
            }
            RunKind::Tombstone => self.is_removed = true,
            RunKind::PromisesForgotten | RunKind::EntriesForgotten => self.is_forgotten = true,
            RunKind::Recalled if self.has_gaps => self.heed_end(entry),
            RunKind::Recalled => self.is_forgotten = false,
        }
    }
}

/// Reads a log; with `keep`, snapshots keep their chunks, of all groups or of one.
pub(crate) fn held(
    dir: &Path,
    keep: impl Fn(GroupId) -> bool,
) -> Result<(BTreeMap<GroupId, Held>, Scanned)> {
    let mut groups = BTreeMap::<GroupId, Held>::new();
    // A gap that may have been of any group is one of those, too, of which nothing was read yet.
    let mut is_anybodys = false;
    let scanned = scan(dir, &mut |found| match found {
        Found::Run(run) => {
            let held = groups.entry(run.group).or_insert_with(|| {
                let mut held = Held::new();
                if is_anybodys {
                    held.on_loss();
                }
                held
            });
            held.on_run(&run, keep(run.group));
        }
        Found::Lost(Loss { whose: Whose::Anybody, .. }) => {
            is_anybodys = true;
            groups.values_mut().for_each(Held::on_loss);
        }
        Found::Lost(Loss { whose: Whose::Groups(whose), .. }) => {
            for group in whose {
                groups.entry(group).or_insert_with(Held::new).on_loss();
            }
        }
    })?;
    Ok((groups, scanned))
}

/// What to say if a group is asked for of which the log says nothing.
pub(crate) fn unknown_group(group: GroupId) -> String {
    format!("the log holds nothing of group {group}")
}
