//! The log as the core sees it: which term each index has, and how far everything has come.
//!
//! ```text
//!   before_first      applied   applying    commit            durable   staged     last
//!        │               │         │          │                  │         │        │
//!   ─────┴───────────────┴─────────┴──────────┴──────────────────┴─────────┴────────┴──►
//!        gone  │ held by │ handed  │ known    │ may be           │ being   │ not yet│
//!              │ the     │ to the  │ committed│ replaced         │ written │ handed │
//!              │ machine │ driver  │          │ by a leader      │         │ out    │
//! ```
//!
//! `applied <= applying <= min(commit, durable)` and `durable <= staged <= last`. A commit index
//! ahead of `durable` is ordinary: a quorum elsewhere is faster than this disk (contract row 20).
//!
//! Terms are a list of runs, since a leader's entries follow one another: a group that never
//! changed its leader has one run, however long its log is.
//!
//! # The ABA rule
//!
//! Writes overlap. A completion for entries 3..5 of an old leader may arrive after a new leader has
//! replaced them in memory, and it must not pass for the new ones (contract row 29, mistake 4). So
//! each write in flight remembers up to where it *still* describes the log, and every truncation
//! lowers that mark:
//!
//! ```text
//!   write 1: 1..5 of term 1 ─┐     truncate at 3      write 1 vouches for 1..2 only
//!                            └──────────────────────► write 2: 3..3 of term 2 vouches for 1..3
//! ```

use smallvec::SmallVec;

use crate::id::{EntryId, Index, Term, Tick};

use super::effects::PersistSeq;
use super::seldom::Seldom;

/// Consecutive entries of one term: from `start` up to the entry before the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TermRun {
    /// The first entry of the run.
    pub start: Index,
    /// The term of all its entries.
    pub term: Term,
}

/// One write that has been handed out and has not come back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub(super) seq: PersistSeq,
    /// When this write is durable, so is the log up to here.
    pub(super) vouches: Index,
    /// When it was handed out.
    pub(super) at: Tick,
}

/// See the module. Lives once per replica.
#[derive(Debug, Clone)]
pub(super) struct Log {
    before_first: EntryId,
    /// Ascending; the first run starts at `first`, none is empty.
    runs: SmallVec<[TermRun; 1]>,
    last: Index,
    staged: Index,
    durable: Index,
    commit: Index,
    applying: Index,
    applied: Index,
    /// In flight, oldest first; `vouches` ascends.
    writes: Seldom<Write>,
    /// The next write's name.
    next_seq: PersistSeq,
    /// Entries known to change the membership and not yet applied, ascending.
    configs: Seldom<Index>,
    /// Entries may be applied before they are durable here.
    apply_before_durable: bool,
    /// Something was handed out to be written since [`Log::rest`] was last called.
    busy: bool,
}

impl Log {
    /// A log with everything durable. The caller has checked that the parts fit together.
    pub(super) fn new(
        before_first: EntryId,
        runs: Vec<TermRun>,
        last: Index,
        commit: Index,
        applied: Index,
        apply_before_durable: bool,
    ) -> Self {
        Self {
            before_first,
            runs: runs.into_iter().collect(),
            last,
            staged: last,
            durable: last,
            commit,
            applying: applied,
            applied,
            writes: Seldom::default(),
            next_seq: PersistSeq(1),
            configs: Seldom::default(),
            apply_before_durable,
            busy: false,
        }
    }

    pub(super) fn first(&self) -> Index {
        self.before_first.index.next()
    }

    pub(super) fn before_first(&self) -> EntryId {
        self.before_first
    }

    pub(super) fn last(&self) -> Index {
        self.last
    }

    pub(super) fn staged(&self) -> Index {
        self.staged
    }

    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    pub(super) fn commit(&self) -> Index {
        self.commit
    }

    pub(super) fn applying(&self) -> Index {
        self.applying
    }

    pub(super) fn applied(&self) -> Index {
        self.applied
    }

    pub(super) fn runs(&self) -> &[TermRun] {
        &self.runs
    }

    pub(super) fn writes(&self) -> &[Write] {
        &self.writes
    }

    pub(super) fn next_seq(&self) -> PersistSeq {
        self.next_seq
    }

    /// The term at `index`; `None` before the log and beyond its end (safety point 4).
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last || index < self.before_first.index {
            return None;
        }
        Some(self.run_before(index).map_or(self.before_first.term, |run| self.runs[run].term))
    }

    /// The last entry's name.
    pub(super) fn last_id(&self) -> EntryId {
        let term = self.runs.last().map_or(self.before_first.term, |run| run.term);
        EntryId { term, index: self.last }
    }

    /// The last entry that follows `index` without a change of term; `index` is in the log.
    pub(super) fn run_end(&self, index: Index) -> Index {
        let next = self.run_before(index).map_or(0, |run| run + 1);
        self.runs.get(next).map_or(self.last, |run| run.start.prev())
    }

    /// Whether the log holds exactly this entry.
    pub(super) fn matches(&self, entry: EntryId) -> bool {
        self.term_at(entry.index) == Some(entry.term)
    }

    /// Whether a log that ends with `entry` is at least as complete as this one (Raft §5.4.1).
    pub(super) fn is_up_to_date(&self, entry: EntryId) -> bool {
        let own = self.last_id();
        (entry.term, entry.index) >= (own.term, own.index)
    }

    /// Where this log may agree with one that has `term` at `index`: the greatest index not above
    /// `index` whose term is not above `term`, and that term. Zero for the term if it is unknown.
    /// Skips a whole run per step, so a long divergent tail costs one round trip per term
    /// (etcd's `findConflictByTerm`; thesis §5.3's optimization).
    pub(super) fn find_conflict_by_term(&self, index: Index, term: Term) -> (Index, Term) {
        let mut index = index.min(self.last);
        loop {
            let Some(own) = self.term_at(index) else { return (index, Term(0)) };
            if own <= term {
                return (index, own);
            }
            match self.run_before(index) {
                Some(run) => index = self.runs[run].start.prev(),
                None => return (index.prev(), Term(0)),
            }
        }
    }

    /// The first of `count` entries of `term` starting at `first` that this log does not hold.
    /// `None` if it holds them all. `first` is at most one beyond the end.
    pub(super) fn find_conflict(&self, first: Index, count: u32, term: Term) -> Option<Index> {
        if count == 0 {
            return None;
        }
        if self.term_at(first) != Some(term) {
            return Some(first);
        }
        let held = self.run_end(first);
        let wanted = first.plus(u64::from(count)).prev();
        (held < wanted).then(|| held.next())
    }

    /// Replaces everything from `first` on by `count` entries of `term`. `first` is above the
    /// commit index and at most one beyond the end; the caller has checked both.
    pub(super) fn replace_from(&mut self, first: Index, count: u64, term: Term) {
        debug_assert!(first > self.commit && first <= self.last.next() && count > 0);
        if first <= self.last {
            self.truncate(first);
        }
        if self.runs.last().is_none_or(|run| run.term != term) {
            self.runs.push(TermRun { start: first, term });
        }
        self.last = self.last.plus(count);
    }

    fn truncate(&mut self, at: Index) {
        let last = at.prev();
        while self.runs.last().is_some_and(|run| run.start >= at) {
            self.runs.pop();
        }
        while self.configs.last().is_some_and(|&config| config >= at) {
            self.configs.pop();
        }
        self.last = last;
        self.staged = self.staged.min(last);
        self.durable = self.durable.min(last);
        for write in self.writes.iter_mut() {
            write.vouches = write.vouches.min(last);
        }
    }

    /// Entries wait to be handed out.
    pub(super) fn has_unstaged(&self) -> bool {
        self.staged < self.last
    }

    /// Hands out a write of everything not yet handed out (possibly nothing: hard state alone).
    /// Returns its name, first entry and count.
    pub(super) fn stage(&mut self, at: Tick) -> (PersistSeq, Index, u64) {
        let (seq, first) = (self.next_seq, self.staged.next());
        let count = self.last.0 - self.staged.0;
        self.staged = self.last;
        self.writes.push(Write { seq, vouches: self.last, at });
        self.next_seq = PersistSeq(seq.0 + 1);
        self.busy = true;
        (seq, first, count)
    }

    /// The write `seq` and all before it are durable. Returns whether any was in flight.
    pub(super) fn on_durable(&mut self, seq: PersistSeq) -> bool {
        let done = self.writes.iter().take_while(|write| write.seq <= seq).count();
        if done == 0 {
            return false;
        }
        self.durable = self.durable.max(self.writes[done - 1].vouches);
        self.writes.drop_front(done);
        true
    }

    /// Raises the commit index; never lowers it. `index` is in the log.
    pub(super) fn commit_to(&mut self, index: Index) {
        debug_assert!(index <= self.last);
        self.commit = self.commit.max(index);
    }

    /// Up to where the driver may apply: committed *and* durable here, so that a crash never leaves
    /// the state machine ahead of its log (safety point 16), unless the configuration says otherwise.
    pub(super) fn appliable(&self) -> Index {
        if self.apply_before_durable { self.commit } else { self.commit.min(self.durable) }
    }

    /// Hands out what may be applied and has not been.
    pub(super) fn take_appliable(&mut self) -> Option<(Index, Index)> {
        let (first, last) = (self.applying.next(), self.appliable());
        if last < first {
            return None;
        }
        self.applying = last;
        Some((first, last))
    }

    /// The state machine holds everything up to `index`, which had been handed out.
    pub(super) fn on_applied(&mut self, index: Index) {
        debug_assert!(index <= self.applying, "applied {index} was not handed out");
        self.applied = self.applied.max(index.min(self.applying));
        let applied = self.applied;
        if !self.configs.is_empty() {
            self.configs.retain(|&config| config > applied);
        }
    }

    pub(super) fn note_config(&mut self, index: Index) {
        if index <= self.applied || index > self.last {
            return;
        }
        if let Err(at) = self.configs.binary_search(&index) {
            self.configs.insert(at, index);
        }
    }

    /// A change of membership is committed and has not taken effect here yet. One that is *not*
    /// committed does not count: if it did, a leader that died while proposing it would leave a
    /// group in which nobody may stand for election.
    pub(super) fn has_unapplied_config(&self) -> bool {
        self.configs.first().is_some_and(|&config| config <= self.commit)
    }

    /// A change of membership is in the log, committed or not, that has not taken effect here.
    pub(super) fn has_config_behind_applied(&self) -> bool {
        !self.configs.is_empty()
    }

    /// Forgets everything up to `index`, which is applied.
    pub(super) fn compact(&mut self, index: Index) {
        let index = index.min(self.applied);
        let Some(term) = self.term_at(index) else { return };
        if index <= self.before_first.index {
            return;
        }
        let keep = self.run_before(index).unwrap_or(0);
        self.runs.drain(..keep);
        if self.run_end(index) == index {
            self.runs.remove(0);
        } else if let Some(run) = self.runs.first_mut() {
            run.start = index.next();
        }
        self.before_first = EntryId { term, index };
    }

    /// The log is gone up to and including `last`, which a snapshot holds: it starts over behind it.
    /// Writes in flight vouch for nothing any more.
    pub(super) fn restore(&mut self, last: EntryId) {
        debug_assert!(self.commit < last.index);
        self.before_first = last;
        self.runs.clear();
        self.configs.clear();
        let index = last.index;
        (self.last, self.staged, self.durable) = (index, index, index);
        (self.commit, self.applying, self.applied) = (index, index, index);
        for write in self.writes.iter_mut() {
            write.vouches = index;
        }
    }

    /// Entries that were durable here all along follow what [`Log::restore`] left: up to `last`, with the terms of
    /// `runs`, which begin behind it.
    pub(super) fn rejoin(&mut self, runs: Vec<TermRun>, last: Index) {
        debug_assert!(self.last == self.before_first.index, "entries follow a snapshot");
        self.runs = runs.into_iter().collect();
        (self.last, self.staged, self.durable) = (last, last, last);
    }

    /// Beyond itself it holds no memory.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.writes.holds_nothing() && self.configs.holds_nothing() && !self.runs.spilled()
    }

    /// Gives memory back that only work needs, if nothing was written since the last call. Returns
    /// whether nothing was.
    pub(super) fn rest(&mut self) -> bool {
        let was_idle = !std::mem::take(&mut self.busy);
        if was_idle {
            self.writes.rest();
            self.configs.rest();
            if self.runs.spilled() {
                self.runs.shrink_to_fit();
            }
        }
        was_idle
    }

    /// The run that holds `index`, unless `index` lies before all runs.
    fn run_before(&self, index: Index) -> Option<usize> {
        match self.runs.last() {
            // Nearly every question is about the newest term.
            Some(run) if run.start <= index => Some(self.runs.len() - 1),
            _ => self.runs.partition_point(|run| run.start <= index).checked_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with one entry per given term, all durable.
    fn log(terms: &[u64]) -> Log {
        let mut log = Log::new(EntryId::default(), Vec::new(), Index(0), Index(0), Index(0), false);
        for (at, &term) in terms.iter().enumerate() {
            log.replace_from(Index(at as u64 + 1), 1, Term(term));
        }
        let (seq, ..) = log.stage(Tick(0));
        log.on_durable(seq);
        log
    }

    #[test]
    fn terms_are_runs() {
        let log = log(&[1, 1, 2, 2, 2, 5]);
        assert_eq!(log.runs().len(), 3);
        let terms: Vec<_> = (0..8).map(|at| log.term_at(Index(at)).map(|term| term.0)).collect();
        let expected =
            [Some(0), Some(1), Some(1), Some(2), Some(2), Some(2), Some(5), None].to_vec();
        assert_eq!(terms, expected);
        assert_eq!(log.run_end(Index(3)), Index(5));
        assert_eq!(log.run_end(Index(6)), Index(6));
        assert_eq!(log.run_end(Index(0)), Index(0).prev());
    }

    #[test]
    fn paper_5_3_a_conflict_is_found_by_term() {
        let log = log(&[1, 1, 1, 4, 4, 6]);
        for (index, term, expected) in [
            (9, 9, (6, 6)),
            (6, 5, (5, 4)),
            (5, 3, (3, 1)),
            (3, 0, (0, 0)),
            (2, 1, (2, 1)),
            (6, 2, (3, 1)),
        ] {
            let found = log.find_conflict_by_term(Index(index), Term(term));
            assert_eq!(found, (Index(expected.0), Term(expected.1)), "{index} {term}");
        }
    }

    #[test]
    fn paper_5_3_only_what_differs_is_replaced() {
        let log = log(&[1, 1, 2, 2]);
        let find = |first, count, term| log.find_conflict(Index(first), count, Term(term));
        assert_eq!(find(3, 2, 2), None);
        assert_eq!(find(3, 4, 2), Some(Index(5)));
        assert_eq!(find(1, 4, 1), Some(Index(3)));
        assert_eq!(find(4, 1, 3), Some(Index(4)));
        assert_eq!(find(5, 1, 3), Some(Index(5)));
        assert_eq!(find(5, 0, 3), None);
    }

    /// Also contract row 29.
    #[test]
    fn mistake_4_an_old_write_does_not_vouch_for_a_new_tail() {
        let mut log = log(&[]);
        log.replace_from(Index(1), 5, Term(1));
        let (first, ..) = log.stage(Tick(0));
        log.replace_from(Index(3), 1, Term(2));
        let (second, ..) = log.stage(Tick(0));
        log.replace_from(Index(2), 1, Term(3));
        let (third, from, count) = log.stage(Tick(0));
        assert_eq!((from, count), (Index(2), 1));
        log.on_durable(first);
        assert_eq!(log.durable(), Index(1));
        log.on_durable(second);
        assert_eq!(log.durable(), Index(1));
        log.on_durable(third);
        assert_eq!(log.durable(), Index(2));
    }

    #[test]
    fn compaction_keeps_the_terms_of_what_stays() {
        for through in 1..=5 {
            let mut log = log(&[1, 1, 2, 2, 5]);
            log.commit_to(Index(5));
            log.take_appliable();
            log.on_applied(Index(5));
            log.compact(Index(through));
            assert_eq!(log.first(), Index(through + 1));
            for (at, term) in [1, 1, 2, 2, 5].into_iter().enumerate() {
                let index = Index(at as u64 + 1);
                let expected = (index >= Index(through)).then_some(Term(term));
                assert_eq!(log.term_at(index), expected, "{through} {index}");
            }
            let last = EntryId { term: Term(5), index: Index(5) };
            assert_eq!(log.last_id(), last);
        }
    }

    #[test]
    fn contract_row_33_only_a_committed_change_holds_a_campaign_back() {
        let mut log = log(&[1, 1, 1]);
        log.note_config(Index(2));
        log.note_config(Index(3));
        assert!(!log.has_unapplied_config());
        log.commit_to(Index(2));
        assert!(log.has_unapplied_config());
        log.take_appliable();
        log.on_applied(Index(2));
        assert!(!log.has_unapplied_config(), "3 is not committed");
        log.commit_to(Index(3));
        assert!(log.has_unapplied_config());
    }

    #[test]
    fn a_change_of_membership_that_was_replaced_holds_nobody_back() {
        let mut log = log(&[1, 1, 1]);
        log.note_config(Index(2));
        log.note_config(Index(3));
        log.replace_from(Index(3), 1, Term(2));
        log.commit_to(Index(3));
        assert!(log.has_unapplied_config());
        log.take_appliable();
        log.on_applied(Index(2));
        assert!(!log.has_unapplied_config());
    }
}
