//! What a log holds behind a gap: entries that this replica had, and that lead nowhere until what lies in front of them
//! is here again.
//!
//! ```text
//!   applied │ gap │ island │ gap │ island │        a member that has applied more sends its state:
//!   ────────┤     ├────────┤     ├────────┤
//!   state of another member ──┤                    the log goes on with what is left of the first island,
//!            its remainder ───┴──┤                 which that member may lack, and sends the state it comes to …
//! ```
//!
//! An island that another gap follows is held as far as it is known to be committed: what lay further on may
//! have been replaced in that gap. The last one is held as it is. When a leader sends anything, all of them go, though
//! the leader may not live to send the rest.

use crate::entry::EntryKind;
use crate::id::{EntryId, Index, SegmentSeq, Term};
use crate::limits;
use crate::raft::{Behind, TermRun};

use super::log_cache::LogCache;

/// Consecutive entries behind a gap. Never empty.
#[derive(Debug)]
pub(super) struct Island {
    cache: LogCache,
    runs: Vec<TermRun>,
    known: Known,
}

/// What a log says of entries that it holds behind a gap.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// Up to here they are known to be committed.
    pub(super) commit: Index,
    /// The segment of the first of them.
    pub(super) segment: SegmentSeq,
    /// What the log ended with when they were written.
    pub(super) before: Option<EntryId>,
}

/// What a replica's log comes to behind a snapshot.
pub(super) struct Rejoined {
    pub(super) cache: LogCache,
    pub(super) behind: Behind,
    /// The oldest segment of the entries, if there are any.
    pub(super) segment: Option<SegmentSeq>,
}

impl Island {
    /// The last index.
    pub(super) fn last(&self) -> Index {
        self.cache.next().prev()
    }

    /// The segment of its first entry.
    pub(super) const fn segment(&self) -> SegmentSeq {
        self.known.segment
    }

    /// The term of an entry it holds.
    fn term_at(&self, index: Index) -> Option<Term> {
        if index < self.cache.first() || self.cache.next() <= index {
            return None;
        }
        let after = self.runs.partition_point(|run| run.start <= index);
        self.runs.get(after.checked_sub(1)?).map(|run| run.term)
    }

    /// Whether it goes on behind `entry`, which is committed, in the very log that holds `entry`. An entry names the log
    /// in front of it (Raft §5.3), and what follows it in its own term; what is committed is in every log; and where
    /// a term begins, the log says what it follows (`Replica::take_before`).
    pub(super) fn follows(&self, entry: EntryId) -> bool {
        let first = self.cache.first();
        let next = entry.index.next();
        if next < first || self.last() < next {
            return false;
        }
        let is_committed = next <= self.known.commit;
        let names_it = self.term_at(entry.index) == Some(entry.term);
        let is_of_its_term = first == next && self.term_at(first) == Some(entry.term);
        let is_said = first == next && self.known.before == Some(entry);
        let is_later = self.term_at(next) >= Some(entry.term);
        is_later && (is_committed || names_it || is_of_its_term || is_said)
    }

    /// What of it lies behind `index`, with its terms.
    pub(super) fn behind(mut self, index: Index) -> (LogCache, Vec<TermRun>) {
        forget_through(&mut self.cache, &mut self.runs, index);
        (self.cache, self.runs)
    }
}

/// Lets go of the entries up to `index`, of which at least one follows.
pub(super) fn forget_through(cache: &mut LogCache, runs: &mut Vec<TermRun>, index: Index) {
    let first = index.next();
    cache.evict(index, usize::MAX);
    let keep = runs.partition_point(|run| run.start <= first).saturating_sub(1);
    runs.drain(..keep);
    if let Some(run) = runs.first_mut() {
        run.start = run.start.max(first);
    }
}

/// The islands of one log, in their order. What is more than they may take is not held, and a leader is waited for.
#[derive(Debug)]
pub(super) struct Islands {
    list: Vec<Island>,
    bytes_max: usize,
}

impl Default for Islands {
    fn default() -> Self {
        Self { list: Vec::new(), bytes_max: limits::ISLANDS_BYTES_MAX }
    }
}

impl Islands {
    /// Keeps what lies behind one gap. If another gap follows, only what is committed.
    pub(super) fn keep(
        &mut self,
        mut cache: LogCache,
        mut runs: Vec<TermRun>,
        mut known: Known,
        gap_follows: bool,
    ) {
        if gap_follows {
            cache.truncate(known.commit.next().max(cache.first()));
            runs.retain(|run| run.start <= known.commit);
        }
        let held: usize = self.list.iter().map(|it| it.cache.bytes()).sum();
        let is_small = held.saturating_add(cache.bytes()) <= self.bytes_max;
        if cache.first() < cache.next() && is_small {
            known.commit = known.commit.min(cache.next().prev());
            self.list.push(Island { cache, runs, known });
        }
    }

    /// So many replicas have a core together, each with its share of what all of them may hold.
    pub(super) fn one_of(&mut self, replicas: usize) {
        self.bytes_max = limits::ISLANDS_BYTES_MAX / replicas.max(1);
    }

    /// None.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first and the last index of each.
    pub(super) fn ends(&self) -> impl Iterator<Item = (Index, Index)> + '_ {
        self.list.iter().map(|it| (it.cache.first(), it.last()))
    }

    /// What lies in front of `applied` is not missed any more.
    pub(super) fn let_go_through(&mut self, applied: Index) {
        self.list.retain(|it| applied < it.last());
    }

    /// This entry is committed, and so is all that lies in front of it in the log that holds it.
    pub(super) fn learn_committed(&mut self, entry: EntryId) {
        let holds_it = |it: &&mut Island| it.term_at(entry.index) == Some(entry.term);
        if let Some(Island { known, .. }) = self.list.iter_mut().find(holds_it) {
            known.commit = known.commit.max(entry.index);
        }
    }

    /// An entry that is known to be committed, or that lies in front of one: the first of the first island, or the one
    /// that it follows, which more members may have. Zero if there is none.
    pub(super) fn committed(&self) -> EntryId {
        let Some(Island { cache, known, .. }) = self.list.first() else {
            return EntryId::default();
        };
        let first = cache.first();
        let before = known.before.filter(|before| before.index.next() == first);
        let term = self.list[0].term_at(first).unwrap_or_default();
        let it = before.unwrap_or(EntryId { term, index: first });
        if it.index <= known.commit { it } else { EntryId::default() }
    }

    /// Forgets all of them: somebody leads, and sends what follows.
    pub(super) fn clear(&mut self) {
        self.list = Vec::new();
    }

    /// Payloads that are slices of a whole segment become their own.
    pub(super) fn detach(&mut self) {
        self.list.iter_mut().for_each(|it| it.cache.detach());
    }

    /// The next island that goes on behind `entry`, which is committed. Those that lie in front are let go, those that
    /// begin there and do not go on from it, and those that the log had before: it goes forward only, as a start does.
    pub(super) fn take_behind(&mut self, entry: EntryId) -> Option<Island> {
        let is_ahead = |it: &Island| entry.index.next() < it.cache.first();
        self.list.retain(|it| entry.index < it.last() && (is_ahead(it) || it.follows(entry)));
        let at = self.list.iter().position(|it| it.follows(entry))?;
        self.list.drain(..=at).next_back()
    }

    /// The log behind a snapshot that ends at `entry`: as far as one island follows another.
    pub(super) fn rejoin(&mut self, entry: EntryId) -> Rejoined {
        let mut end = entry;
        let mut whole = Rejoined::none(entry);
        while let Some(island) = self.take_behind(end) {
            let Rejoined { cache, behind, segment } = &mut whole;
            let (last, Known { commit, segment: from, .. }) = (island.last(), island.known);
            *segment = Some(segment.map_or(from, |it| it.min(from)));
            let (entries, runs) = island.behind(end.index);
            for index in end.index.next().0..=last.0 {
                cache.push(entries.get(Index(index)).expect("it holds them").clone());
            }
            for run in runs {
                if behind.runs.last().is_none_or(|before| before.term != run.term) {
                    behind.runs.push(run);
                }
            }
            (behind.last, behind.commit) = (last, behind.commit.max(commit));
            if commit < last {
                // The last one: nothing is known to be committed behind this.
                break;
            }
            let term = behind.runs.last().map_or(end.term, |run| run.term);
            end = EntryId { term, index: last };
        }
        whole
    }
}

impl Rejoined {
    /// Nothing behind `entry`.
    pub(super) fn none(entry: EntryId) -> Self {
        let behind = Behind { runs: Vec::new(), last: entry.index, commit: entry.index };
        Self { cache: LogCache::new(entry.index.next()), behind, segment: None }
    }

    /// Where the log holds changes of membership.
    pub(super) fn configs(&self) -> impl Iterator<Item = Index> + '_ {
        let indexes = (self.cache.first().0..self.cache.next().0).map(Index);
        indexes.filter(|index| {
            self.cache.get(*index).is_some_and(|entry| entry.kind == EntryKind::Config)
        })
    }
}
