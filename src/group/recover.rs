//! A replica put together again from the runs of its log, in the order they were written.
//!
//! ```text
//!                    the log begins with the group's first run
//!      ┌───────────────────────────────────────────────────────┐
//!      │                                                       ▼
//!   nothing ── entries are missing ──► Adrift ── a whole snapshot ──────────────► Anchored ──┐
//!                                      ▲         that reaches the entries kept     ▲   │     │ a newer
//!                                      └─────────── entries are missing ───────────────┘     │ snapshot
//!                                                                                  └─────────┘
//! ```
//!
//! Reclaiming takes whole segments from the front of a log that many groups share. So what is left of
//! one group may begin anywhere: with entries that only a snapshot further on explains, with the last
//! pieces of a snapshot that a newer one has superseded, with such a snapshot whole but without the
//! entries that were written in front of it and follow it. Entries adrift are kept until the snapshot
//! that was durable before the segments went; if none comes, the log is damaged.

mod alone;

pub use alone::{AloneRefusal, Survivor};

use thiserror::Error;

use crate::entry::{Entry, EntryKind};
use crate::id::{EntryId, GroupId, Index, SegmentSeq, Tick};
use crate::limits;
use crate::planted::{Planted, planted};
use crate::raft::effects::HardState;
use crate::raft::{self, Forgotten, Raft, TermRun};
use crate::store::StateMachine;
use crate::store::batch::{Batch, Stop};
use crate::wal::RunKind;

use super::GroupState;
use super::apply::Stretch;
use super::islands::{Islands, Known, forget_through};
use super::log_cache::LogCache;
use super::members::{Life, Standing};
use super::replica::Replica;
use super::sessions::Sessions;
use super::snapshot::{Incoming, Part, PieceHeader};
use super::taking::{Beside, Stored};

/// A run that cannot follow the runs before it: the log is not what this node wrote.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RunError {
    /// Entries are missing.
    #[error("group {group}: entries {expected}..{found} are missing from the log")]
    Gap {
        /// The group.
        group: GroupId,
        /// The index that should follow.
        expected: Index,
        /// The index that follows.
        found: Index,
    },
    /// A committed entry is written again with another content.
    #[error("group {group}: entry {found} is rewritten below the commit index {commit}")]
    BelowCommit {
        /// The group.
        group: GroupId,
        /// The commit index recorded before.
        commit: Index,
        /// The index written again.
        found: Index,
    },
    /// A term goes back.
    #[error("group {group}: the term goes back from {before} to {found}")]
    TermBack {
        /// The group.
        group: GroupId,
        /// The term recorded before.
        before: crate::id::Term,
        /// The term of the run.
        found: crate::id::Term,
    },
    /// The log begins late, and no snapshot stands for what is gone.
    #[error(
        "group {group}: the log begins with entry {first}, and no whole snapshot in it reaches \
         that far; restore the missing segments, or start this node with an empty directory and a \
         new --id"
    )]
    NoSnapshot {
        /// The group.
        group: GroupId,
        /// The first entry there is, or the one that should follow the last snapshot.
        first: Index,
    },
    /// The log in front of a snapshot is gone because the state machine's own storage had it, and that has not.
    #[error(
        "group {group}: the state machine's own storage {}, and the log begins behind entry {needed}, because it \
         had been durable there; bring that storage back, or start this node with an empty directory and a new --id",
        match durable {
            Some(index) => format!("ends at entry {index}"),
            None => "is gone".into(),
        }
    )]
    MachineBehind {
        /// The group.
        group: GroupId,
        /// What the log says was durable there.
        needed: Index,
        /// What is ([`StateMachine::durable`]).
        durable: Option<Index>,
    },
    /// The state machine wants the node to end, not start ([`Stop::Node`]).
    #[error("group {group}: the state machine cannot go on after entry {after}: {why}")]
    Machine {
        /// The group.
        group: GroupId,
        /// The last entry it had executed.
        after: Index,
        /// In its own words.
        why: String,
    },
}

/// What one run says beside its entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// What it holds.
    pub kind: RunKind,
    /// The replica was not whole when it wrote it.
    pub is_forgetful: bool,
    /// The hard state it was written with.
    pub hard_state: HardState,
    /// Of a log run, the first entry; of a snapshot's, the last entry it holds.
    pub entry: EntryId,
    /// The segment it lies in.
    pub segment: SegmentSeq,
}

/// Replays one group; committed entries go to the state machine together, a segment's worth at a time.
pub struct ReplicaRecovery {
    group: GroupId,
    hard_state: HardState,
    /// The entry in front of the log.
    before_first: EntryId,
    runs: Vec<TermRun>,
    cache: LogCache,
    machine: Box<dyn StateMachine>,
    sessions: Sessions,
    /// Every entry up to here is known to be committed and in its place.
    applied: Index,
    /// Those up to here the machine has executed; see [`Self::settle`]. `executed <= applied` while
    /// the log is anchored, and equal otherwise.
    executed: Index,
    /// The machine cannot go on from there.
    stopped: Option<Stop>,
    state: GroupState,
    /// Whether the machine holds what lies in front of the log; see the picture above.
    is_anchored: bool,
    /// The last entry that the machine holds, while the log is adrift.
    base: EntryId,
    /// The first entry that was missing when the log went adrift.
    missing: Index,
    /// The snapshot whose pieces are being read.
    incoming: Option<Coming>,
    /// The latest whole snapshot.
    stored: Option<Stored>,
    /// The latest that says that the machine holds it itself, which it does not.
    machine_lacks: Option<Index>,
    /// The segment of the first run.
    oldest: Option<SegmentSeq>,
    /// The replica was removed.
    is_buried: bool,
    /// What it knew to be committed when it was.
    left_at: EntryId,
    /// What is held and not applied was read by this life and perhaps not by the one that noted a loss behind it: what
    /// that one knew to be committed is not about these entries, until some are written over them.
    is_doubtful: bool,
    /// Part of the log is gone.
    lost: Option<Lost>,
    /// Something in it was, which may have been pieces of a snapshot that was on its way, whatever became of the rest.
    has_gaps: bool,
    /// What was held when the last of it went, for when it turns out to be all there was.
    in_front: Option<InFront>,
    /// What lies between gaps.
    islands: Islands,
    /// What the last run said that the log ended with, unless entries followed or a gap.
    said_end: Option<(EntryId, SegmentSeq)>,
    /// What is known of the entries held since the last gap.
    since_gap: Known,
    /// A life that had forgotten what it promised, or may have, goes on in a term that may be lower than the one known
    /// here.
    is_term_behind: bool,
    /// Applied entries kept in memory for followers, in bytes.
    keep_bytes: usize,
}

/// What is known of a log of which part is gone.
#[derive(Debug, Clone, Copy)]
struct Lost {
    what: Forgotten,
    note: Note,
    /// Something is gone that no note in front of it can be about.
    is_fresh: bool,
    /// What follows the gap shows that nothing behind it is missing.
    is_bridged: bool,
}

/// What an earlier life said of a loss.
///
/// ```text
///   None ── said so ─────► NotWhole ── recalled ──► Whole ── all of it is here ──► no loss
///    ▲                                               │
///    └── decayed since, or less is here ─────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    /// Nothing: what the log looks like counts.
    None,
    /// It found it, or a run of it says so, and wrote since then without being whole: only its word that it is counts.
    NotWhole,
    /// It was whole then, up to this entry; the front of the log may still be missing here.
    Whole(EntryId),
}

/// Something is gone, and nothing is known of it.
const ANYTHING: Forgotten = Forgotten { promises_known: false, last: None };

impl Lost {
    const fn new(what: Forgotten, note: Note, is_fresh: bool) -> Self {
        Self { what, note, is_fresh, is_bridged: false }
    }
}

/// Where a snapshot in the log came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The replica took it of itself: what follows it stays.
    Own,
    /// The leader sent it: what was there before is void.
    Leader,
    /// A member that did not lead sent it, when part of the log was gone: what follows it goes on if it may.
    Member,
}

/// A log as it was in front of a gap.
struct InFront {
    cache: LogCache,
    runs: Vec<TermRun>,
    before_first: EntryId,
    /// What was applied: it may not have changed since.
    applied: Index,
}

/// A snapshot whose end has not come yet.
struct Coming {
    incoming: Incoming,
    segment: SegmentSeq,
    bytes: u64,
}

impl InFront {
    fn last_entry(&self) -> EntryId {
        let index = self.cache.next().prev();
        let term = self.runs.last().map_or(self.before_first.term, |run| run.term);
        EntryId { term, index }
    }
}

impl ReplicaRecovery {
    /// An empty log for `group`.
    #[must_use]
    pub fn new(group: GroupId, machine: Box<dyn StateMachine>, keep_bytes: usize) -> Self {
        Self {
            group,
            hard_state: HardState::default(),
            before_first: EntryId::default(),
            runs: Vec::new(),
            cache: LogCache::new(Index(1)),
            machine,
            sessions: Sessions::new(),
            applied: Index(0),
            executed: Index(0),
            stopped: None,
            state: GroupState::default(),
            is_anchored: true,
            base: EntryId::default(),
            missing: Index(1),
            incoming: None,
            stored: None,
            machine_lacks: None,
            oldest: None,
            is_buried: false,
            left_at: EntryId::default(),
            is_doubtful: false,
            lost: None,
            has_gaps: false,
            in_front: None,
            islands: Islands::default(),
            said_end: None,
            since_gap: Known::default(),
            is_term_behind: false,
            keep_bytes,
        }
    }

    /// Whose log it is.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// With this state before the first entry, the same at every start. Call it first.
    #[must_use]
    pub fn beginning(self, state: GroupState) -> Self {
        debug_assert_eq!(self.applied, Index(0), "entries were applied to another state");
        Self { state, ..self }
    }

    /// As one of so many replicas of a core: of what these may hold together it has its share.
    #[must_use]
    pub fn one_of(mut self, replicas: usize) -> Self {
        self.islands.one_of(replicas);
        self
    }

    /// Something that was durable here is gone, and may have been this group's: entries, promises, a
    /// snapshot. What was applied before stands; what was not may have been replaced in what is gone.
    pub fn on_loss(&mut self) {
        let was_anchored = self.is_anchored;
        self.go_adrift();
        let cache = std::mem::replace(&mut self.cache, LogCache::new(self.applied.next()));
        let runs = std::mem::take(&mut self.runs);
        if was_anchored {
            self.missing = self.applied.next();
            let Self { before_first, applied, .. } = *self;
            self.in_front = Some(InFront { cache, runs, before_first, applied });
        } else {
            let known = std::mem::take(&mut self.since_gap);
            self.islands.keep(cache, runs, known, true);
        }
        (self.since_gap, self.said_end) = (Known::default(), None);
        self.incoming = None;
        self.has_gaps = true;
        // A life that knew lower terms may have said so in what is gone.
        self.is_term_behind = true;
        let note = match self.lost {
            Some(Lost { note: Note::NotWhole, .. }) => Note::NotWhole,
            _ => Note::None,
        };
        self.lost = Some(Lost::new(ANYTHING, note, true));
    }

    /// Says a run that says again: the log ended with `last` when it was written. An entry names all that lie in front of
    /// it (Raft §5.3), so if the log ended with this one in front of the gap, nothing of this group went.
    fn heed_end(&mut self, last: EntryId) {
        if !self.is_anchored {
            let applied = self.applied;
            let is_it = |it: &mut InFront| it.applied == applied && it.last_entry() == last;
            match self.in_front.take_if(is_it) {
                Some(InFront { cache, runs, before_first, .. }) => {
                    (self.cache, self.runs, self.before_first) = (cache, runs, before_first);
                    (self.is_anchored, self.is_doubtful) = (true, false);
                }
                // What is held behind that was replaced, perhaps by what is gone.
                None => self.truncate(last.index.max(applied).next()),
            }
        } else if self.is_doubtful && self.has_all_up_to(last) {
            // What a life in between could not read, and did not miss when it was whole.
            self.truncate(last.index.max(self.applied).next());
            self.is_doubtful = false;
        }
    }

    /// Who wrote the run that follows was not whole.
    fn heed_forgetful(&mut self) {
        // Where nothing is gone, its note was read, or was reclaimed once it was whole again.
        if let Some(lost) = self.lost.as_mut().filter(|lost| lost.note == Note::None) {
            // What it noted is among what is gone: anything, then.
            lost.what = ANYTHING;
            (lost.note, lost.is_bridged) = (Note::NotWhole, false);
        }
    }

    /// What a run says about what is gone.
    fn note_lost(&mut self, run: &Replayed, count: u64) {
        let Replayed { kind, entry, .. } = *run;
        self.is_doubtful &= kind != RunKind::Recalled;
        let is_recalled = kind == RunKind::Recalled && self.has_all_up_to(entry);
        match kind {
            RunKind::PromisesForgotten | RunKind::EntriesForgotten => {
                let promises_known = kind == RunKind::EntriesForgotten;
                let last = Some(entry).filter(|last| promises_known && last.index > Index(0));
                let what = Forgotten { promises_known, last };
                self.lost = Some(Lost::new(what, Note::NotWhole, false));
                // The life that noted this may have read less than this one, and others in its place.
                self.is_doubtful = self.applied.next() < self.cache.next();
                return;
            }
            // It was whole then, by what it had noted. What has decayed since lies in front of this
            // too, and behind that note: if what it had is here, it does not matter.
            RunKind::Recalled => match &mut self.lost {
                Some(_) if is_recalled => {
                    self.lost = None;
                    return;
                }
                Some(lost) if lost.is_fresh => lost.note = Note::None,
                Some(lost) => {
                    lost.note = Note::Whole(entry.max(lost.what.last.unwrap_or_default()));
                }
                None => {}
            },
            _ => {}
        }
        let has_all = self.has_all_up_to(entry) || planted(Planted::SaidAgainIsWhole);
        if kind == RunKind::SaidAgain && has_all {
            // Who wrote this was whole.
            self.lost = None;
            return;
        }
        let held = self.last_entry();
        let Some(lost) = &mut self.lost else { return };
        if kind == RunKind::SaidAgain {
            // Who wrote this was whole, so only what it had counts.
            lost.note = Note::None;
        }
        // The front of the log may be gone: then this is seen when the snapshot has come that stands for it.
        if let (Note::Whole(whole), true) = (lost.note, self.is_anchored) {
            if whole <= held && whole.index <= held.index {
                self.lost = None;
                return;
            }
            // What had decayed when that was noted was told apart from what has since by nothing
            // but this: the log reached further.
            (lost.note, lost.what.last) = (Note::None, None);
        }
        if lost.note != Note::None {
            // What it accepted while it was not whole binds it as well.
            if let Some(last) =
                lost.what.last.as_mut().filter(|_| kind == RunKind::Log && count > 0)
            {
                let index = entry.index.plus(count).prev();
                if (last.term, last.index) < (entry.term, index) {
                    *last = EntryId { index, ..entry };
                }
            }
            return;
        }
        // Every run says what was promised when it was written, and the latest counts.
        lost.what.promises_known = true;
        if kind == RunKind::Log && count > 0 {
            lost.what.last = Some(EntryId { index: entry.index.plus(count).prev(), ..entry });
        } else if matches!(kind, RunKind::SaidAgain | RunKind::SnapshotInstalled) {
            // So it ended then, and that is not here.
            lost.what.last = Some(entry);
        }
        lost.is_bridged |= kind == RunKind::SnapshotInstalled || kind == RunKind::Log && count > 0;
        if self.is_anchored && lost.is_bridged {
            self.lost = None;
        }
    }

    /// The next run of this group in log order. `entries` are those of the run; of a snapshot, its
    /// piece.
    ///
    /// Returns how many of the first entries are not taken, because the log holds what a life fetched again that could not
    /// read it.
    ///
    /// # Errors
    /// If it cannot follow what came before; then nothing of it was taken.
    pub fn on_run(
        &mut self,
        run: Replayed,
        mut entries: impl Iterator<Item = Entry>,
    ) -> Result<u64, RunError> {
        let group = self.group;
        let Replayed { kind, is_forgetful, mut hard_state, entry, segment } = run;
        let (mut count, mut held) = (0, 0);
        // Who is not whole takes no snapshot of itself: it came from a member that did not lead.
        let is_given_back = kind == RunKind::SnapshotTaken && is_forgetful;
        if is_forgetful {
            self.heed_forgetful();
        }
        if !matches!(kind, RunKind::SnapshotInstalled | RunKind::SnapshotTaken) {
            // The others' commit indexes may not be about the log in front of them.
            self.since_gap.commit = self.since_gap.commit.max(hard_state.commit);
        }
        self.is_term_behind |= kind == RunKind::PromisesForgotten;
        let HardState { term: known, vote, .. } = self.hard_state;
        if known <= hard_state.term {
            self.is_term_behind = false;
        } else if self.is_term_behind {
            // A life that could not read the terms in front of this wrote it; this one could. What the others
            // had told it since was no higher.
            (hard_state.term, hard_state.vote) = (known, vote);
        } else {
            return Err(RunError::TermBack { group, before: known, found: hard_state.term });
        }
        self.oldest.get_or_insert(segment);
        if kind == RunKind::Log {
            (count, held) = self.on_entries(entry, segment, &mut entries)?;
            self.said_end = self.said_end.filter(|_| count == 0);
        } else if kind == RunKind::SaidAgain {
            self.heed_end(entry);
            self.said_end = Some((entry, segment));
        } else if kind == RunKind::SnapshotInstalled || is_given_back {
            self.said_end = None;
        }
        // The commit index may be known before the entries are (contract row 20): keep the highest
        // and apply what is here.
        let commit = self.hard_state.commit.max(hard_state.commit);
        self.hard_state = HardState { commit, ..hard_state };
        if kind != RunKind::SnapshotInstalled && !is_given_back {
            // Its commit index is not about the log in front of it.
            self.apply();
        }
        match kind {
            RunKind::Log | RunKind::SaidAgain => {}
            RunKind::SnapshotPiece => {
                if let Some(piece) = entries.next() {
                    self.on_piece(entry, segment, &piece);
                }
            }
            RunKind::SnapshotTaken if is_given_back => self.on_snapshot(Origin::Member, entry),
            RunKind::SnapshotTaken => self.on_snapshot(Origin::Own, entry),
            RunKind::SnapshotInstalled => self.on_snapshot(Origin::Leader, entry),
            RunKind::Tombstone => (self.is_buried, self.left_at) = (true, entry),
            RunKind::PromisesForgotten | RunKind::EntriesForgotten | RunKind::Recalled => {}
        }
        self.apply();
        self.note_lost(&run, count);
        Ok(held)
    }

    /// How many entries there are, and how many of the first of them are held already.
    fn on_entries(
        &mut self,
        EntryId { term, index: mut first }: EntryId,
        segment: SegmentSeq,
        entries: impl Iterator<Item = Entry>,
    ) -> Result<(u64, u64), RunError> {
        let group = self.group;
        let mut entries = entries.peekable();
        let mut held = 0;
        if self.lost.is_some_and(|lost| lost.note != Note::None) {
            // A life that could not read these entries fetched them again; this one could.
            while first <= self.applied && entries.next().is_some() {
                first = first.next();
                held += 1;
            }
        }
        let has_more = entries.peek().is_some();
        if held > 0 && !has_more {
            // Nor did that life know what lies further on.
            self.forget_from(first);
        }
        self.is_doubtful &= held == 0 && !has_more;
        if !has_more {
            return Ok((held, held));
        }
        let mut count = held;
        if !self.is_anchored && first == self.applied.next() {
            // The entries adrift were never committed: another leader wrote others over them, from
            // where the machine stands.
            self.is_anchored = true;
            self.before_first = self.base;
            self.cache = LogCache::new(first);
            self.runs.clear();
        } else if first > self.cache.next() {
            // Entries are missing: they were reclaimed with the segments in front, or are lost. What
            // was here before, perhaps on an old snapshot, leads nowhere; if a newer one reaches this
            // far, it was the former.
            self.missing = self.cache.next();
            self.go_adrift();
            self.cache = LogCache::new(first);
            self.runs.clear();
        }
        if self.is_anchored && first <= self.applied {
            return Err(RunError::BelowCommit { group, commit: self.applied, found: first });
        }
        self.truncate(first);
        if self.cache.first() == self.cache.next() {
            let said = self.said_end.filter(|(before, _)| before.index.next() == first);
            self.since_gap.before = said.map(|(before, _)| before);
            self.since_gap.segment = said.map_or(segment, |(_, said)| said.min(segment));
        }
        if self.runs.last().is_none_or(|run| run.term != term) {
            self.runs.push(TermRun { start: first, term });
        }
        for entry in entries {
            self.cache.push(entry);
            count += 1;
        }
        Ok((count, held))
    }

    /// Nothing was written over what is held since a loss was noted behind it. If that ends with the last entry that whoever
    /// noted it knew of, it is what there was: an entry names all in front of it. What is known to be committed may be about
    /// others in its place.
    fn settle_doubt(&mut self) {
        if !std::mem::take(&mut self.is_doubtful) {
            return;
        }
        let last = self.lost.and_then(|lost| lost.what.last);
        if !self.is_anchored || last != Some(self.last_entry()) {
            self.forget_from(self.applied.next());
        }
        self.hard_state.commit = self.hard_state.commit.min(self.applied);
    }

    /// Nothing that is not known to be committed is held from here on.
    fn forget_from(&mut self, first: Index) {
        let first = first.max(self.applied.next());
        if self.is_anchored && first < self.cache.next() {
            self.truncate(first);
        }
    }

    fn truncate(&mut self, first: Index) {
        self.cache.truncate(first);
        self.runs.retain(|run| run.start < first);
    }

    /// The last entry that is applied, of a log that is anchored.
    fn applied_entry(&self) -> EntryId {
        self.entry_at(self.applied)
    }

    /// Every entry of a log that ended with this one is here, or was replaced by what is committed.
    fn has_all_up_to(&self, last: EntryId) -> bool {
        let is_here = last.index < self.cache.next() && self.entry_at(last.index) == last;
        self.is_anchored && last.index > Index(0) && (last.index <= self.applied || is_here)
    }

    /// Of what was gone all is here, as [`Raft::new`] has it.
    fn has_back(&self, what: Forgotten) -> bool {
        what.promises_known && what.last.is_some_and(|last| self.has_all_up_to(last))
    }

    /// The last entry there is.
    fn last_entry(&self) -> EntryId {
        self.entry_at(self.cache.next().prev())
    }

    fn entry_at(&self, index: Index) -> EntryId {
        let after = self.runs.partition_point(|run| run.start <= index);
        let term = match after.checked_sub(1) {
            Some(at) => self.runs[at].term,
            None => self.before_first.term,
        };
        EntryId { term, index }
    }

    /// A piece. One that cannot be taken makes its snapshot void, which then counts for nothing: the
    /// end was never written, or a later snapshot is whole.
    fn on_piece(&mut self, entry: EntryId, segment: SegmentSeq, piece: &Entry) {
        let Ok(header) = PieceHeader::parse(&piece.payload) else {
            self.incoming = None;
            return;
        };
        if header.number == 0 && header.part == Part::Meta {
            // What the machine holds already is only checked.
            let is_old = self.is_anchored && entry.index <= self.applied;
            let incoming = if is_old || self.machine_holds(entry) {
                Incoming::checking(self.group, entry)
            } else {
                Incoming::new(self.group, entry, self.machine.restoring())
            };
            self.incoming = Some(Coming { incoming, segment, bytes: 0 });
        }
        let Some(coming) = self.incoming.as_mut().filter(|it| it.incoming.entry() == entry) else {
            return;
        };
        coming.bytes += piece.bytes();
        if coming.incoming.take(&piece.payload).is_err() {
            self.incoming = None;
        }
    }

    /// The machine has storage of its own, in which everything up to `entry` is durable. What is committed is committed:
    /// no snapshot says otherwise, wherever it came from.
    fn machine_holds(&self, entry: EntryId) -> bool {
        self.machine.durable() >= Some(entry.index)
    }

    /// The end of a snapshot: from here on it stands for the log up to `entry`, if it is whole.
    fn on_snapshot(&mut self, origin: Origin, entry: EntryId) {
        if self.hard_state.commit < entry.index {
            // Nobody writes this; what is not committed is no state (contract row 56).
            return;
        }
        let coming = self.incoming.take_if(|it| it.incoming.entry() == entry);
        let whole = coming.and_then(|Coming { incoming, segment, bytes }| {
            let is_in_place = incoming.is_in_place();
            let (meta, machine) = incoming.finish().ok()?;
            let (sessions, state) = (meta.sessions().ok()?, meta.state()?);
            if is_in_place && !self.machine_holds(entry) {
                self.machine_lacks = Some(entry.index);
                return None;
            }
            Some((Stored { entry, segment, bytes }, machine, sessions, state))
        });
        let is_held = self.machine_holds(entry);
        if entry.index <= self.applied && (self.is_anchored || self.lost.is_some()) {
            self.stored = whole.map_or(self.stored, |(stored, ..)| Some(stored));
            return;
        }
        let installed = origin == Origin::Leader;
        if let Some((stored, machine, sessions, state)) =
            whole.filter(|(_, machine, ..)| machine.is_some() || is_held)
        {
            self.machine_lacks = None;
            // Or it holds as much by itself, and perhaps more.
            if let Some(machine) = machine {
                self.machine = machine;
            }
            self.sessions = sessions;
            self.state = state;
            self.stored = Some(stored);
            // What the machine had yet to execute is in this one.
            self.applied = entry.index;
            self.executed = entry.index;
            self.base = entry;
            if origin == Origin::Member {
                self.rejoin();
                return;
            }
            // Entries that begin too late stay adrift: a later snapshot must reach them, or entries
            // that begin here take their place.
            if installed || self.cache.first() <= entry.index.next() {
                self.is_anchored = true;
                self.begin_behind(entry, installed);
            } else {
                self.missing = entry.index.next();
            }
        } else if origin != Origin::Own {
            // Its first pieces are gone, so a newer one exists; but what was here before is void.
            self.go_adrift();
            self.begin_behind(entry, true);
            if self.has_gaps {
                // Or they were in a gap, in which nothing else of this group was.
                self.lost.get_or_insert(Lost::new(ANYTHING, Note::None, true));
            }
        }
    }

    /// The machine holds what a member gave back. What lies behind that goes on from there, as in [`Islands::rejoin`]: from
    /// island to island, and with the entries behind the last gap.
    fn rejoin(&mut self) {
        while let Some(island) = self.islands.take_behind(self.base) {
            // All of it is committed.
            let (segment, last) = (island.segment(), island.last());
            let (cache, runs) = island.behind(self.base.index);
            let open = std::mem::replace(&mut self.cache, cache);
            let open_runs = std::mem::replace(&mut self.runs, runs);
            self.before_first = self.base;
            self.applied = last;
            self.settle();
            self.base = self.entry_at(last);
            (self.cache, self.runs) = (open, open_runs);
            self.keep_from(segment);
        }
        self.is_anchored = self.cache.first() <= self.base.index.next();
        if !self.is_anchored {
            self.missing = self.base.index.next();
            return;
        }
        let next = self.applied.next();
        let cache = std::mem::replace(&mut self.cache, LogCache::new(next));
        let runs = std::mem::take(&mut self.runs);
        let mut open = Islands::default();
        open.keep(cache, runs, self.since_gap, false);
        self.before_first = self.base;
        // A life that could not read what is held, and wrote since, wrote from here on.
        self.is_doubtful = false;
        if let Some(island) = open.take_behind(self.base) {
            self.keep_from(island.segment());
            (self.cache, self.runs) = island.behind(self.base.index);
        }
    }

    /// What lies behind the latest snapshot begins in this segment.
    fn keep_from(&mut self, segment: SegmentSeq) {
        if let Some(stored) = &mut self.stored {
            stored.segment = stored.segment.min(segment);
        }
    }

    /// The machine does not hold what lies in front of the entries that follow; what it holds stands.
    fn go_adrift(&mut self) {
        self.settle();
        if self.is_anchored {
            self.base = self.applied_entry();
        }
        self.is_anchored = false;
    }

    /// The log begins behind `entry`; whatever lies further on stays, unless it is `void`.
    fn begin_behind(&mut self, entry: EntryId, void: bool) {
        let first = entry.index.next();
        self.before_first = entry;
        if void || self.cache.next() <= first {
            self.cache = LogCache::new(first);
            self.runs.clear();
            return;
        }
        forget_through(&mut self.cache, &mut self.runs, entry.index);
    }

    fn apply(&mut self) {
        if !self.is_anchored || self.is_doubtful {
            return;
        }
        let last = self.cache.next().prev();
        self.applied = self.applied.max(self.hard_state.commit.min(last));
        if limits::REPLAY_UNSETTLED_MAX < self.applied.0 - self.executed.0 {
            self.settle();
            self.evict();
        }
    }

    /// The machine executes what is committed. Put off until many entries have come together: the
    /// runs of a thousand groups lie among one another in the log, and a machine that is asked once
    /// for each finds nothing of itself in the processor's cache.
    ///
    /// A machine that yields is called again at once: nobody else waits for this core yet.
    pub fn settle(&mut self) {
        while self.executed < self.applied && self.stopped.is_none() {
            let next = self.executed.next();
            let entry = self.cache.get(next).expect("not evicted before it is executed");
            if entry.kind == EntryKind::Config {
                // A change that had no effect then has none now.
                drop(self.state.apply(next, &entry.payload));
                self.executed = next;
                continue;
            }
            let range = (self.executed, self.applied);
            let mut stretch = Stretch::new(&self.cache, &mut self.sessions, None, range);
            match self.machine.apply_batch(&mut Batch::new(&mut stretch)) {
                Ok(()) => self.executed = stretch.reached().done,
                Err(stop) => self.stopped = Some(stop),
            }
        }
    }

    /// The runs that follow lie in another segment. Entries in this one can be read back from it, so
    /// those that are applied are let go; of the others a copy is kept.
    pub fn leave_segment(&mut self) {
        self.settle();
        if self.is_anchored {
            self.cache.evict(self.applied, usize::MAX);
        }
        self.cache.detach();
        self.islands.detach();
        if let Some(in_front) = &mut self.in_front {
            in_front.cache.detach();
        }
    }

    /// Lets go of what is applied and more than is kept for followers.
    fn evict(&mut self) {
        let over = self.cache.bytes().saturating_sub(self.keep_bytes);
        if over > 0 && self.is_anchored {
            self.cache.evict(self.applied, over);
        }
    }

    /// The replica, ready to take part; or not, if it was removed.
    ///
    /// # Errors
    /// If the log begins late and nothing stands for what is gone.
    pub fn finish(mut self, config: raft::Config, now: Tick) -> Result<Replica, RunError> {
        self.settle_doubt();
        self.settle();
        self.evict();
        self.cache.detach();
        self.islands.detach();
        if self.is_buried {
            // Nothing of it is left but this.
            self.begin_behind(EntryId::default(), true);
            self.applied = Index(0);
            (self.lost, self.is_term_behind) = (None, false);
        } else if self.lost.is_some() && !self.is_anchored {
            // What was applied is all there is to go on from; the rest may come of use.
            let next = self.applied.next();
            let cache = std::mem::replace(&mut self.cache, LogCache::new(next));
            let runs = std::mem::take(&mut self.runs);
            self.islands.keep(cache, runs, self.since_gap, false);
            self.begin_behind(self.base, true);
            self.islands.detach();
        } else if !self.is_anchored {
            let (group, first) = (self.group, self.cache.first());
            if let Some(needed) = self.machine_lacks {
                let durable = self.machine.durable();
                return Err(RunError::MachineBehind { group, needed, durable });
            }
            return Err(match self.missing {
                Index(1) => RunError::NoSnapshot { group, first },
                expected => RunError::Gap { group, expected, found: first },
            });
        }
        if let Some(Stop::Node(why)) = self.stopped {
            return Err(RunError::Machine { group: self.group, after: self.executed, why });
        }
        let last = self.cache.next().prev();
        self.hard_state.commit = self.hard_state.commit.min(last);
        if planted(Planted::AppliedTwiceAfterRestart) {
            self.applied = self.applied.prev().max(self.before_first.index);
        }
        let recovered = raft::Recovered {
            hard_state: self.hard_state,
            membership: self.state.membership.clone(),
            first: self.before_first.index.next(),
            before_first: self.before_first,
            runs: self.runs,
            last,
            applied: self.applied,
            forgotten: self.lost.map(|lost| lost.what).filter(|_| !planted(Planted::LossIgnored)),
        };
        let hard_state = self.hard_state;
        let election_ms = config.election_ticks;
        let mut raft = Raft::new(config, recovered, now);
        for index in self.applied.0 + 1..=last.0 {
            let entry = self.cache.get(Index(index));
            if entry.is_some_and(|entry| entry.kind == EntryKind::Config) {
                // It may take effect at any moment: nobody campaigns over it (contract row 35).
                raft.note_config(Index(index));
            }
        }
        // Entries between the two, which the next life may have to read, are not in the log of this one.
        let stored = self.stored.filter(|stored| self.before_first.index <= stored.entry.index);
        let beside = Beside::recovered(stored, self.oldest, self.is_buried);
        if self.stopped.is_some() {
            raft.stop(now);
        }
        let Self {
            group,
            cache,
            machine,
            sessions,
            state,
            stopped,
            left_at,
            is_term_behind,
            islands,
            ..
        } = self;
        let life = if self.is_buried { Life::Buried } else { Life::Member };
        let standing = Standing { state, life, left_at, election_ms };
        let mut replica = Replica::new(group, raft, cache, machine, sessions, standing, beside);
        replica.stopped = stopped;
        replica.note_forgotten(hard_state);
        if replica.forgotten().is_some() {
            replica.islands = islands;
            replica.islands.let_go_through(replica.raft.status().applied);
            replica.raft.note_committed(replica.islands.committed());
        }
        if is_term_behind && replica.forgotten().is_none() {
            replica.note_hard_state(hard_state);
        }
        Ok(replica)
    }
}

#[cfg(test)]
mod truncated;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{SessionRequest, Sessions};
    use crate::id::{NodeId, ReplicaId, SessionId, Term};
    use crate::planted;
    use crate::store::map::Map;
    use crate::wire::reply::Reply;
    use crate::wire::resp::Command;

    const ID: SessionId = SessionId(7);

    fn incr() -> Entry {
        Entry::command(Command::from_args(&[b"INCR", b"k"]).raw)
    }

    /// The same, as a request of the session.
    fn request(seq: u64) -> Entry {
        Entry::session(SessionRequest::Run { id: ID, seq }.payload(&incr().payload))
    }

    /// What lies in a log: runs of a kind, each with the entry it begins with, or is about, and the
    /// commit index it knows.
    fn replay(runs: Vec<(RunKind, u64, u64, Vec<Entry>)>) -> Replica {
        let mut recovery = ReplicaRecovery::new(GroupId(0), Box::new(Map::new()), 1 << 20)
            .beginning(GroupState::first(&[NodeId(1)], &[]));
        for (kind, index, commit, entries) in runs {
            let commit = Index(commit);
            let hard_state = HardState { term: Term(1), commit, ..HardState::default() };
            let entry = EntryId { term: Term(1), index: Index(index) };
            let run =
                Replayed { kind, is_forgetful: false, hard_state, entry, segment: SegmentSeq(1) };
            recovery.on_run(run, entries.into_iter()).expect("it follows");
        }
        recovery.finish(raft::Config::new(ReplicaId(1), 1), Tick(0)).expect("a whole log")
    }

    /// A log in which one request of a session stands three times, replayed.
    fn replayed() -> Replica {
        let open = Entry::session(SessionRequest::Open(ID).payload(b""));
        let entries = vec![Entry::empty(), open, request(1), request(1), incr(), request(1)];
        replay(vec![(RunKind::Log, 1, 6, entries)])
    }

    fn count(replica: &Replica) -> Reply {
        replica.machine().read(&Command::from_args(&[b"GET", b"k"]).raw)
    }

    #[test]
    fn a_request_that_is_in_the_log_again_is_replayed_once() {
        let replica = replayed();
        assert_eq!(count(&replica), Reply::bulk("2"), "one of the session, one of nobody");
        let mut sessions = Sessions::new();
        assert!(sessions.open(ID, Index(2)));
        sessions.run(ID, 1, Index(3));
        sessions.ran(ID, 1, Reply::Int(1));
        sessions.run(ID, 1, Index(4));
        sessions.run(ID, 1, Index(6));
        assert_eq!(replica.sessions(), &sessions, "the table is what the entries make of it");
        assert_eq!(replica.digest(), replica.machine().digest().wrapping_add(sessions.digest()));
    }

    /// A replica of two whose log holds runs without entries, each of a kind and written in a term. Nothing is a loss.
    fn in_terms(
        runs: impl IntoIterator<Item = Option<(RunKind, u64)>>,
    ) -> Result<Replica, RunError> {
        let mut recovery = ReplicaRecovery::new(GroupId(0), Box::new(Map::new()), 1 << 20)
            .beginning(GroupState::first(&[NodeId(1), NodeId(2)], &[]));
        for run in runs {
            let Some((kind, term)) = run else {
                recovery.on_loss();
                continue;
            };
            let hard_state = HardState { term: Term(term), ..HardState::default() };
            let entry = EntryId::default();
            let run =
                Replayed { kind, is_forgetful: false, hard_state, entry, segment: SegmentSeq(1) };
            recovery.on_run(run, std::iter::empty())?;
        }
        recovery.finish(raft::Config::new(ReplicaId(1), 1), Tick(0))
    }

    /// A life that was shown a block as it is not wrote down that it had lost its promises, in the term that it
    /// could read. The next one reads all. (`tool sim --seed 1000`, with reads that lie.)
    #[test]
    fn contract_row_27_a_term_goes_back_only_where_promises_were_forgotten() {
        let start = |terms: &[(RunKind, u64)]| {
            let replica = in_terms(terms.iter().copied().map(Some))?;
            Ok::<_, RunError>((replica.status().term, replica.forgotten().is_some()))
        };
        let (log, forgotten, recalled) =
            (RunKind::Log, RunKind::PromisesForgotten, RunKind::Recalled);
        let back = |before, found| {
            Err(RunError::TermBack { group: GroupId(0), before: Term(before), found: Term(found) })
        };
        assert_eq!(start(&[(log, 3), (forgotten, 2), (log, 2)]), Ok((Term(3), true)));
        assert_eq!(
            start(&[(log, 3), (forgotten, 2), (log, 5), (recalled, 5)]),
            Ok((Term(5), false))
        );
        // That life was whole in the end, in a term that nobody but this replica had left (`tool sim --seed 231317`).
        let entries = RunKind::EntriesForgotten;
        let heard = [(log, 10), (forgotten, 8), (log, 9), (entries, 9), (log, 9), (recalled, 9)];
        assert_eq!(start(&heard), Ok((Term(10), false)));
        assert_eq!(start(&[&heard[..], &[(log, 10), (log, 9)]].concat()), back(10, 9));
        assert_eq!(start(&[(log, 3), (log, 2)]), back(3, 2));
        assert_eq!(start(&[(log, 3), (RunKind::EntriesForgotten, 2)]), back(3, 2));
        assert_eq!(start(&[(log, 1), (forgotten, 1), (recalled, 3), (log, 2)]), back(3, 2));
    }

    #[test]
    fn contract_row_27_a_term_that_a_later_life_did_not_know_stands_and_is_written_again() {
        let start = |runs: &[Option<(RunKind, u64)>]| {
            let mut replica = in_terms(runs.iter().copied()).expect("they follow");
            let found = replica.take_found().map(|run| (run.kind, run.hard_state.term.0));
            (replica.status().term.0, replica.forgotten().is_some(), found)
        };
        let (log, recalled) = (RunKind::Log, RunKind::Recalled);
        let (promises, entries) = (RunKind::PromisesForgotten, RunKind::EntriesForgotten);
        let heard = [(log, 10), (promises, 8), (log, 9), (entries, 9), (recalled, 9)].map(Some);
        assert_eq!(start(&heard), (10, false, Some((log, 10))));
        let since = [&heard[..], &[Some((log, 10))]].concat();
        assert_eq!(start(&since), (10, false, None), "it is in the log since");
        // The note itself is among what is gone.
        let gone = [Some((log, 10)), None, Some((log, 9)), Some((entries, 9))];
        assert_eq!(start(&gone), (10, true, Some((entries, 10))));
    }

    /// The log is gone up to entry 6 but for a snapshot of it; what follows are retries, and one
    /// request that is new.
    #[test]
    fn a_request_that_a_snapshot_knows_is_not_applied_again() {
        let mut outgoing = replayed().snapshot();
        let pieces = std::iter::from_fn(|| outgoing.next_piece()).map(Entry::command);
        let mut runs: Vec<_> =
            pieces.map(|piece| (RunKind::SnapshotPiece, 6, 0, vec![piece])).collect();
        runs.push((RunKind::SnapshotTaken, 6, 6, vec![]));
        let restored = replay(runs.clone());
        assert_eq!(restored.sessions(), replayed().sessions());
        assert_eq!(restored.digest(), replayed().digest());
        runs.push((RunKind::Log, 7, 9, vec![request(1), request(2), request(1)]));
        assert_eq!(count(&replay(runs)), Reply::bulk("3"));
    }

    #[test]
    fn a_table_that_forgets_would_be_noticed() {
        let count = planted::with(Planted::SessionsForgotten, || count(&replayed()));
        assert_eq!(count, Reply::bulk("4"));
    }
}
