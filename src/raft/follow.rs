//! Following: accept, match, replace, commit (Raft §5.3).

use crate::id::{EntryId, Index, ReplicaId, Term, Tick};
use crate::planted::{Planted, planted};

use super::driver::{LogChange, Source};
use super::message::{Message, MessageKind};
use super::state::{Echo, Raft, Role};
use super::status::Failure;

impl Raft {
    /// The sender leads this term.
    pub(super) fn heed_leader(&mut self, message: &Message, now: Tick) {
        match &mut self.role {
            Role::Follower { leader, heard } => {
                *leader = message.from;
                *heard = now;
                self.restart_election_timer(now);
            }
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                self.become_follower(message.term, message.from, now);
            }
        }
    }

    pub(super) fn follow_append(&mut self, append: &Message, now: Tick) -> Option<LogChange> {
        let previous = append.entry;
        let terms = previous.term.max(Term(1))..=self.term;
        if append.count > 0 && !terms.contains(&append.run_term) {
            self.ignore();
            return None;
        }
        if previous.index < self.log.commit() && !planted(Planted::TruncatedBelowCommit) {
            // Committed entries match by definition: skip what both have.
            self.accept(append.from, self.log.commit());
            return None;
        }
        let is_held = self.log.matches(previous)
            || planted(Planted::ConsistencyNotChecked) && previous.index <= self.log.last();
        if !is_held {
            self.refuse(append.from, previous);
            return None;
        }
        let vouched = previous.index.plus(u64::from(append.count));
        let mut change = None;
        let first = previous.index.next();
        let mut conflict = self.log.find_conflict(first, append.count, append.run_term);
        if planted(Planted::TruncatedBelowCommit) && append.count > 0 {
            conflict = Some(first);
        }
        if let Some(conflict) = conflict {
            let commit = self.log.commit();
            if conflict <= commit && !planted(Planted::TruncatedBelowCommit) {
                self.fail(Failure::CommittedConflict { at: conflict, commit }, now);
                return None;
            }
            let skip = u32::try_from(conflict.0 - first.0).unwrap_or(append.count);
            let count = append.count - skip;
            self.log.replace_from(conflict, u64::from(count), append.run_term);
            change = Some(LogChange { first: conflict, count, source: Source::Message { skip } });
        }
        // Beyond `vouched` our log may still hold another leader's entries (safety point 5).
        let known = if planted(Planted::CommitBeyondVouched) { self.log.last() } else { vouched };
        self.log.commit_to(append.commit.min(known));
        self.accept(append.from, vouched);
        change
    }

    /// Everything up to `index` matches the leader's log. Said once it is durable.
    pub(super) fn accept(&mut self, to: ReplicaId, index: Index) {
        let mut answer = Message::new(MessageKind::AppendResponse, self.config.id, to, self.term);
        answer.entry = EntryId { term: Term(0), index };
        self.promise(answer);
        if self.recall().is_some() {
            self.note_agreement(index);
            self.check_recall();
        }
    }

    /// Our log differs at `previous`; says where it may agree, a term at a time.
    fn refuse(&mut self, to: ReplicaId, previous: EntryId) {
        let (hint, term) = self.log.find_conflict_by_term(previous.index, previous.term);
        let mut answer = Message::new(MessageKind::AppendResponse, self.config.id, to, self.term);
        answer.entry = EntryId { term, index: previous.index };
        answer.hint = hint;
        answer.reject = true;
        self.promise(answer);
    }

    /// The answer promises nothing about this disk and never waits for it: a slow disk must not
    /// look like a dead replica (safety point 2, mistake 7).
    pub(super) fn follow_heartbeat(&mut self, heartbeat: &Message, now: Tick) {
        let last = self.log.last();
        // A leader that has not heard of the loss yet goes by what was acknowledged before it.
        let commit = self.believable_commit(heartbeat.commit);
        if commit > last {
            // The leader tells us to commit only what we have acknowledged.
            self.fail(Failure::EntriesLost { commit, last }, now);
            return;
        }
        self.log.commit_to(commit);
        self.rest();
        let echo = Echo { to: heartbeat.from, term: self.term, context: heartbeat.context };
        if self.outbox.is_empty() && self.echo.is_none() {
            self.echo = Some(echo);
        } else {
            self.send(echo.message(self.config.id));
        }
    }

    /// Takes from a snapshot's announcement what needs no data: if our log holds its last entry, it
    /// tells that everything up to there is committed (safety point 14). Otherwise the data must come
    /// first, and then [`Raft::restore`].
    pub(super) fn follow_snapshot(&mut self, snapshot: &Message) {
        if snapshot.entry.index > self.log.commit() {
            if !self.log.matches(snapshot.entry) {
                self.ignore();
                return;
            }
            self.log.commit_to(snapshot.entry.index);
        }
        self.accept(snapshot.from, self.log.commit());
    }
}
