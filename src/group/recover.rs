//! A replica put together again from the runs of its log, in the order they were written.

use thiserror::Error;

use crate::entry::{Entry, EntryKind};
use crate::id::{EntryId, GroupId, Index, Tick};
use crate::raft::effects::HardState;
use crate::raft::{self, Raft, TermRun};
use crate::store::{StateMachine, Wanted};

use super::GroupState;
use super::apply::apply;
use super::log_cache::LogCache;
use super::members::{Life, Standing};
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
    state: GroupState,
    /// The replica was removed.
    is_buried: bool,
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
            state: GroupState::default(),
            is_buried: false,
            keep_bytes,
        }
    }

    /// With this state before the first entry, the same at every start. Call it first.
    #[must_use]
    pub fn beginning(self, state: GroupState) -> Self {
        debug_assert_eq!(self.applied, Index(0), "entries were applied to another state");
        Self { state, ..self }
    }

    /// The replica was removed from its group: nothing of it is left.
    pub fn on_tombstone(&mut self) {
        self.is_buried = true;
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
            // A change that had no effect then has none now.
            if entry.kind == EntryKind::Config {
                drop(self.state.apply(self.applied, &entry.payload));
            }
            apply(&mut *self.machine, &mut self.sessions, self.applied, entry, Wanted::No);
        }
        let over = self.cache.bytes().saturating_sub(self.keep_bytes);
        if over > 0 {
            self.cache.evict(self.applied, over);
        }
    }

    /// The replica, ready to take part; or not, if it was removed.
    #[must_use]
    pub fn finish(mut self, config: raft::Config, now: Tick) -> Replica {
        let last = self.cache.next().prev();
        self.hard_state.commit = self.hard_state.commit.min(last);
        let recovered = raft::Recovered {
            hard_state: self.hard_state,
            membership: self.state.membership.clone(),
            first: Index(1),
            before_first: EntryId::default(),
            runs: self.runs,
            last,
            applied: self.applied,
        };
        let election_ms = config.election_ticks;
        let mut raft = Raft::new(config, recovered, now);
        for index in self.applied.0 + 1..=last.0 {
            let entry = self.cache.get(Index(index));
            if entry.is_some_and(|entry| entry.kind == EntryKind::Config) {
                // It may take effect at any moment: nobody campaigns over it (contract row 35).
                raft.note_config(Index(index));
            }
        }
        let Self { group, cache, machine, sessions, state, .. } = self;
        let life = if self.is_buried { Life::Buried } else { Life::Member };
        Replica::new(group, raft, cache, machine, sessions, Standing { state, life, election_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::sessions::planted;
    use crate::group::{SessionRequest, Sessions};
    use crate::id::{NodeId, ReplicaId, SessionId, Term};
    use crate::store::map::Map;
    use crate::wire::reply::Reply;
    use crate::wire::resp::Command;

    /// A log in which one request of a session stands three times, replayed.
    fn replayed() -> Replica {
        let id = SessionId(7);
        let incr = Command::from_args(&[b"INCR", b"k"]).raw;
        let run = |seq| Entry::session(SessionRequest::Run { id, seq }.payload(&incr));
        let open = Entry::session(SessionRequest::Open(id).payload(b""));
        let entries = [Entry::empty(), open, run(1), run(1), Entry::command(incr.clone()), run(1)];
        let mut recovery = ReplicaRecovery::new(GroupId(0), Box::new(Map::new()), 1 << 20)
            .beginning(GroupState::first(&[NodeId(1)], &[]));
        let commit = Index(entries.len() as u64);
        let hard_state = HardState { term: Term(1), commit, ..HardState::default() };
        recovery.on_run(hard_state, Term(1), Index(1), entries.into_iter()).expect("it follows");
        recovery.finish(raft::Config::new(ReplicaId(1), 1), Tick(0))
    }

    fn count(replica: &Replica) -> Reply {
        replica.machine().read(&Command::from_args(&[b"GET", b"k"]).raw)
    }

    #[test]
    fn a_request_that_is_in_the_log_again_is_replayed_once() {
        let replica = replayed();
        assert_eq!(count(&replica), Reply::bulk("2"), "one of the session, one of nobody");
        let mut sessions = Sessions::new();
        assert!(sessions.open(SessionId(7), Index(2)));
        sessions.run(SessionId(7), 1, Index(3));
        sessions.ran(SessionId(7), 1, Reply::Int(1));
        sessions.run(SessionId(7), 1, Index(4));
        sessions.run(SessionId(7), 1, Index(6));
        assert_eq!(replica.sessions(), &sessions, "the table is what the entries make of it");
        assert_eq!(replica.digest(), replica.machine().digest().wrapping_add(sessions.digest()));
    }

    #[test]
    fn a_table_that_forgets_would_be_noticed() {
        planted::forget(true);
        let count = count(&replayed());
        planted::forget(false);
        assert_eq!(count, Reply::bulk("4"));
    }
}
