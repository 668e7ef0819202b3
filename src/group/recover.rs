//! A replica put together again from the runs of its log, in the order they were written.

use thiserror::Error;

use crate::entry::Entry;
use crate::id::{EntryId, GroupId, Index, Tick};
use crate::raft::effects::HardState;
use crate::raft::{self, Membership, Raft, TermRun};
use crate::store::{StateMachine, Wanted};

use super::apply::apply;
use super::log_cache::LogCache;
use super::replica::Replica;
use super::sessions::Sessions;

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
}

/// Replays one group; committed entries go to the state machine as soon as they are known to be.
pub struct ReplicaRecovery {
    group: GroupId,
    hard_state: HardState,
    runs: Vec<TermRun>,
    cache: LogCache,
    machine: Box<dyn StateMachine>,
    sessions: Sessions,
    applied: Index,
    /// Applied entries kept in memory for followers, in bytes.
    keep_bytes: usize,
}

impl ReplicaRecovery {
    /// An empty log for `group`.
    #[must_use]
    pub fn new(group: GroupId, machine: Box<dyn StateMachine>, keep_bytes: usize) -> Self {
        Self {
            group,
            hard_state: HardState::default(),
            runs: Vec::new(),
            cache: LogCache::new(Index(1)),
            machine,
            sessions: Sessions::new(),
            applied: Index(0),
            keep_bytes,
        }
    }

    /// The next run of this group in log order.
    ///
    /// # Errors
    /// If it cannot follow what came before; then nothing of it was taken.
    pub fn on_run(
        &mut self,
        hard_state: HardState,
        run_term: crate::id::Term,
        first: Index,
        entries: impl Iterator<Item = Entry>,
    ) -> Result<(), RunError> {
        let group = self.group;
        if hard_state.term < self.hard_state.term {
            return Err(RunError::TermBack {
                group,
                before: self.hard_state.term,
                found: hard_state.term,
            });
        }
        let mut entries = entries.peekable();
        if entries.peek().is_some() {
            if first > self.cache.next() {
                return Err(RunError::Gap { group, expected: self.cache.next(), found: first });
            }
            if first <= self.applied {
                return Err(RunError::BelowCommit { group, commit: self.applied, found: first });
            }
            self.cache.truncate(first);
            self.runs.retain(|run| run.start < first);
            if self.runs.last().is_none_or(|run| run.term != run_term) {
                self.runs.push(TermRun { start: first, term: run_term });
            }
            entries.for_each(|entry| self.cache.push(entry));
        }
        // The commit index may be known before the entries are (contract row 20): keep the highest
        // and apply what is here.
        let commit = self.hard_state.commit.max(hard_state.commit);
        self.hard_state = HardState { commit, ..hard_state };
        self.apply();
        Ok(())
    }

    fn apply(&mut self) {
        let last = self.cache.next().prev();
        while self.applied < self.hard_state.commit.min(last) {
            self.applied = self.applied.next();
            let entry = self.cache.get(self.applied).expect("not evicted before it is applied");
            apply(&mut *self.machine, &mut self.sessions, self.applied, entry, Wanted::No);
        }
        let over = self.cache.bytes().saturating_sub(self.keep_bytes);
        if over > 0 {
            self.cache.evict(self.applied, over);
        }
    }

    /// The replica, ready to take part.
    #[must_use]
    pub fn finish(mut self, config: raft::Config, membership: Membership, now: Tick) -> Replica {
        let last = self.cache.next().prev();
        self.hard_state.commit = self.hard_state.commit.min(last);
        let recovered = raft::Recovered {
            hard_state: self.hard_state,
            membership,
            first: Index(1),
            before_first: EntryId::default(),
            runs: self.runs,
            last,
            applied: self.applied,
        };
        let raft = Raft::new(config, recovered, now);
        Replica::new(self.group, raft, self.cache, self.machine, self.sessions, last)
    }
}
