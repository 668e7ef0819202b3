//! The last replica of a group goes on alone, when its majority is lost for good (contract row 59).
//!
//! ```text
//!   log:   … committed, as far as known │ tail │ leave joint? │ remove 2 │ remove 3 │
//!                                       └──────────── all of it committed now ─────┘
//!   hard state: a term of its own, its own vote
//! ```
//!
//! The tail is kept, not dropped: what this replica knows to be committed lags behind what others may
//! have acknowledged, so everything it holds may have been promised to somebody. What it never received
//! is lost; nobody can say how much that is. No quorum agrees to any of this, which is the point, and
//! the danger: if the others are alive after all, there are two groups of one name.

use bytes::Bytes;
use thiserror::Error;

use crate::entry::Entry;
use crate::group::state::MemberChange;
use crate::id::{EntryId, GroupId, Index, ReplicaId, SegmentSeq, Term};
use crate::raft::effects::HardState;
use crate::raft::{ChangeKind, Transition};
use crate::wal::{Run, RunKind};

use super::{Replayed, ReplicaRecovery};

/// What becomes of one group.
#[derive(Debug)]
pub struct Survivor {
    /// The group.
    pub group: GroupId,
    /// The term before.
    pub term: Term,
    /// The commit index known before.
    pub commit: Index,
    /// The last entry held before: all up to here counts as committed.
    pub last: Index,
    /// Who is taken out.
    pub removed: Vec<ReplicaId>,
    /// What makes it so, once it is durable; none if there is nothing to do.
    pub run: Option<Run>,
}

/// Why this replica cannot go on alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AloneRefusal {
    /// It belongs to the group no more, or not yet.
    #[error("group {0}: this node is no voter of it: go on with a node that is one")]
    NoVoter(GroupId),
    /// Its log begins late.
    #[error("group {0}: the log begins late and no snapshot stands for what is gone")]
    Adrift(GroupId),
    /// Something that it acknowledged is gone, and the others have not given it back.
    #[error(
        "group {0}: part of this log was lost and was not got back from the other members: go on with a node that \
         has everything, or restore a backup"
    )]
    Forgetful(GroupId),
    /// Its machine does not go on.
    #[error("group {0}: its state machine cannot execute what the log holds")]
    Machine(GroupId),
}

impl ReplicaRecovery {
    /// All runs were replayed: makes this replica the only member of its group, in memory.
    /// [`Survivor::run`] makes it so on disk.
    ///
    /// # Errors
    /// If it is not fit for it; then nothing was changed that matters.
    pub fn go_on_alone(&mut self, this: ReplicaId) -> Result<Survivor, AloneRefusal> {
        let group = self.group;
        if self.is_buried {
            return Err(AloneRefusal::NoVoter(group));
        }
        if !self.is_anchored {
            return Err(AloneRefusal::Adrift(group));
        }
        // A start takes the highest commit index that the log has ever named, whoever wrote it.
        let named = self.hard_state.commit;
        let is_doubted = self.is_doubtful;
        self.settle_doubt();
        if self.lost.is_some_and(|lost| !self.has_back(lost.what)) {
            return Err(AloneRefusal::Forgetful(group));
        }
        let HardState { term, commit, .. } = self.hard_state;
        let last = self.cache.next().prev();
        self.hard_state.commit = last.max(self.applied);
        self.apply();
        self.settle();
        if self.stopped.is_some() {
            return Err(AloneRefusal::Machine(group));
        }
        let mut survivor =
            Survivor { group, term, commit: commit.min(last), last, removed: vec![], run: None };
        let mut state = self.state.clone();
        let mut entries: Vec<Entry> = Vec::new();
        let mut append = |state: &mut crate::group::GroupState, payload: Bytes| {
            let index = last.plus(entries.len() as u64 + 1);
            let taken = state.apply(index, &payload).is_ok();
            entries.push(Entry::config(payload));
            taken
        };
        if !state.membership.outgoing.is_empty() {
            // Into the half that this replica belongs to; both count its vote.
            let leave = if state.membership.incoming.contains(&this) {
                Bytes::new()
            } else {
                let cancel = Transition::Cancel;
                MemberChange { transition: cancel, ..MemberChange::default() }.encode()
            };
            let left = append(&mut state, leave);
            debug_assert!(left, "a joint membership can be left");
        }
        if !state.membership.incoming.contains(&this) {
            return Err(AloneRefusal::NoVoter(group));
        }
        let others = state.membership.members().filter(|id| *id != this);
        survivor.removed = others.collect();
        for &id in &survivor.removed {
            let change = MemberChange::one(ChangeKind::Remove, id, None);
            let removed = append(&mut state, change.encode());
            debug_assert!(removed, "any voter but the last can be removed");
        }
        if entries.is_empty() && is_doubted && commit < last {
            // Nothing but an entry behind them says that they are what there was.
            entries.push(Entry::empty());
        }
        // It may have named entries that never came. Those in their place count as committed, so they are made now:
        // a later one, of another leader's making, must not be taken for that.
        let missing = named.0.saturating_sub(last.0 + entries.len() as u64);
        entries.extend((0..missing).map(|_| Entry::empty()));
        if entries.is_empty() && commit == last {
            return Ok(survivor);
        }
        let term = Term(term.0 + 1);
        let commit = last.plus(entries.len() as u64);
        let hard_state = HardState { term, vote: this, commit };
        let first = last.next();
        let run_term = if entries.is_empty() { Term(0) } else { term };
        let replayed = Replayed {
            kind: RunKind::Log,
            is_forgetful: false,
            hard_state,
            entry: EntryId { term, index: first },
            segment: SegmentSeq(u64::MAX),
        };
        let followed = self.on_run(replayed, entries.clone().into_iter());
        debug_assert_eq!(followed, Ok(0), "it follows the log");
        self.settle();
        debug_assert_eq!(self.state.membership.members().collect::<Vec<_>>(), [this]);
        let entries = entries.into_iter().collect();
        let kind = RunKind::Log;
        survivor.run =
            Some(Run { kind, is_forgetful: false, group, hard_state, run_term, first, entries });
        Ok(survivor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::GroupState;
    use crate::id::{NodeId, Tick};
    use crate::raft::{self, Change};
    use crate::store::map::Map;
    use crate::wire::reply::Reply;
    use crate::wire::resp::Command;

    /// A replica of a group of three whose log holds `entries`, two of them known to be committed.
    fn replica(entries: &[Entry]) -> ReplicaRecovery {
        let first = GroupState::first(&[1, 2, 3].map(NodeId), &[]);
        let mut recovery =
            ReplicaRecovery::new(GroupId(0), Box::new(Map::new()), 1 << 20).beginning(first);
        let hard_state = HardState { term: Term(7), commit: Index(2), ..HardState::default() };
        let entry = EntryId { term: Term(7), index: Index(1) };
        let run = Replayed { hard_state, entry, segment: SegmentSeq(1), ..Replayed::default() };
        recovery.on_run(run, entries.iter().cloned()).expect("it follows");
        recovery
    }

    fn set(key: &[u8], value: &[u8]) -> Entry {
        Entry::command(Command::from_args(&[b"SET", key, value]).raw)
    }

    /// The log goes on with what makes it so.
    fn with(mut recovery: ReplicaRecovery, run: Run) -> ReplicaRecovery {
        let Run { kind, hard_state, run_term, first, entries, .. } = run;
        let entry = EntryId { term: run_term, index: first };
        let run = Replayed { kind, is_forgetful: false, hard_state, entry, segment: SegmentSeq(3) };
        recovery.on_run(run, entries.into_iter()).expect("it follows");
        recovery
    }

    /// What a start comes to once the run is durable.
    fn started(recovery: ReplicaRecovery, run: Run) -> crate::group::Replica {
        let recovery = with(recovery, run);
        recovery.finish(raft::Config::new(ReplicaId(1), 1), Tick(0)).expect("whole")
    }

    #[test]
    fn contract_row_59_who_has_lost_what_others_may_know_does_not_go_on_alone() {
        let mut forgetful = replica(&[Entry::empty(), set(b"a", b"1")]);
        forgetful.on_loss();
        let (kind, entry) = (RunKind::EntriesForgotten, EntryId { term: Term(7), index: Index(4) });
        let hard_state = HardState { term: Term(7), ..HardState::default() };
        let run = Replayed { kind, is_forgetful: true, hard_state, entry, segment: SegmentSeq(2) };
        forgetful.on_run(run, std::iter::empty()).expect("it follows");
        let fetched =
            Replayed { kind: RunKind::Log, entry: EntryId { index: Index(3), ..entry }, ..run };
        forgetful.on_run(fetched, [set(b"b", b"2")].into_iter()).expect("it follows");
        let refused = forgetful.go_on_alone(ReplicaId(1)).err();
        assert_eq!(refused, Some(AloneRefusal::Forgetful(GroupId(0))));
        let whole = Replayed { kind: RunKind::Recalled, is_forgetful: false, ..run };
        let more = Replayed { entry: EntryId { index: Index(4), ..entry }, ..fetched };
        forgetful.on_run(more, [Entry::empty()].into_iter()).expect("it follows");
        forgetful.on_run(whole, std::iter::empty()).expect("it follows");
        forgetful.go_on_alone(ReplicaId(1)).expect("it has everything");
    }

    #[test]
    fn contract_row_59_what_the_last_replica_holds_is_committed_and_the_others_are_out() {
        let entries = [Entry::empty(), set(b"a", b"1"), set(b"b", b"2")];
        let survivor = replica(&entries).go_on_alone(ReplicaId(1)).expect("a voter");
        assert_eq!((survivor.commit, survivor.last), (Index(2), Index(3)));
        assert_eq!(survivor.removed, [2, 3].map(ReplicaId));
        let run = survivor.run.expect("something to do");
        let expected = HardState { term: Term(8), vote: ReplicaId(1), commit: Index(5) };
        assert_eq!((run.hard_state, run.first, run.entries.len()), (expected, Index(4), 2));
        let replica = started(replica(&entries), run);
        assert_eq!(replica.status().membership.members().collect::<Vec<_>>(), [ReplicaId(1)]);
        assert!(replica.state().is_removed(ReplicaId(2)), "and no id of theirs comes back");
        let get = Command::from_args(&[b"GET", b"b"]).raw;
        assert_eq!(replica.machine().read(&get), Reply::bulk("2"), "others may have promised it");
    }

    /// A life that could not read the end of the log noted that it was gone; this one can. What is held is settled
    /// before anything is built on it, or a member that the tail brings in would stay in.
    #[test]
    fn contract_row_59_what_was_in_doubt_counts_too() {
        let learner = MemberChange::one(ChangeKind::AddLearner, ReplicaId(4), None).encode();
        let entries = [Entry::empty(), set(b"a", b"1"), Entry::config(learner)];
        let doubted = || {
            let mut recovery = replica(&entries);
            let entry = EntryId { term: Term(7), index: Index(3) };
            let hard_state = HardState { term: Term(7), ..HardState::default() };
            let kind = RunKind::EntriesForgotten;
            let segment = SegmentSeq(2);
            let run = Replayed { kind, is_forgetful: true, hard_state, entry, segment };
            recovery.on_run(run, std::iter::empty()).expect("it follows");
            recovery
        };
        let survivor = doubted().go_on_alone(ReplicaId(1)).expect("all that was held is here");
        assert_eq!((survivor.last, survivor.removed), (Index(3), [2, 3, 4].map(ReplicaId).into()));
        let started = started(doubted(), survivor.run.expect("something to do"));
        let status = started.status();
        assert_eq!(status.membership.members().collect::<Vec<_>>(), [ReplicaId(1)]);
        assert_eq!((status.applied, status.last.index), (Index(6), Index(6)));
    }

    /// The last write that was durable said that 60 is committed, and those behind 3 were in the next.
    #[test]
    fn contract_row_59_entries_that_were_named_and_never_came_are_made() {
        let entries = [Entry::empty(), set(b"a", b"1"), set(b"b", b"2")];
        let named = || {
            let mut recovery = replica(&entries);
            let hard_state = HardState { term: Term(7), commit: Index(60), ..Default::default() };
            let run = Replayed { hard_state, segment: SegmentSeq(2), ..Replayed::default() };
            recovery.on_run(run, std::iter::empty()).expect("it follows");
            recovery
        };
        let survivor = named().go_on_alone(ReplicaId(1)).expect("a voter");
        assert_eq!(survivor.last, Index(3), "what it held");
        let run = survivor.run.expect("something to do");
        let (hard_state, term) = (run.hard_state, run.run_term);
        assert_eq!((run.first, run.entries.len(), hard_state.commit), (Index(4), 57, Index(60)));
        let mut started = with(named(), run);
        // Whatever comes behind them is committed when somebody has said so.
        let entry = EntryId { term, index: Index(61) };
        let run = Replayed { hard_state, entry, segment: SegmentSeq(4), ..Replayed::default() };
        started.on_run(run, [set(b"a", b"2")].into_iter()).expect("it follows");
        let started = started.finish(raft::Config::new(ReplicaId(1), 1), Tick(0)).expect("whole");
        let status = started.status();
        assert_eq!((status.applied, status.last.index), (Index(60), Index(61)));
        assert_eq!(status.membership.members().collect::<Vec<_>>(), [ReplicaId(1)]);
    }

    /// As before, and there is nobody to take out.
    #[test]
    fn contract_row_59_a_member_without_others_says_what_was_in_doubt() {
        let first = GroupState::first(&[NodeId(1)], &[]);
        let doubted = || {
            let mut recovery = ReplicaRecovery::new(GroupId(0), Box::new(Map::new()), 1 << 20)
                .beginning(first.clone());
            let hard_state = HardState { term: Term(7), commit: Index(1), ..HardState::default() };
            let entry = EntryId { term: Term(7), index: Index(1) };
            let run = Replayed { hard_state, entry, segment: SegmentSeq(1), ..Replayed::default() };
            let entries = [Entry::empty(), set(b"a", b"1")];
            recovery.on_run(run, entries.into_iter()).expect("it follows");
            let (kind, entry) = (RunKind::EntriesForgotten, EntryId { index: Index(2), ..entry });
            let noted = Replayed { kind, is_forgetful: true, entry, ..run };
            recovery.on_run(noted, std::iter::empty()).expect("it follows");
            recovery
        };
        let survivor = doubted().go_on_alone(ReplicaId(1)).expect("all that was held is here");
        let started = started(doubted(), survivor.run.expect("something to do"));
        assert_eq!(started.status().applied, Index(3));
    }

    #[test]
    fn contract_row_59_a_change_under_way_is_ended_and_a_stranger_does_not_go_on() {
        let change = |kind, id| (Change { kind, id: ReplicaId(id) }, None);
        let change = MemberChange {
            transition: Transition::JointExplicit,
            changes: vec![change(ChangeKind::AddVoter, 4), change(ChangeKind::Remove, 2)],
            ..MemberChange::default()
        };
        let entries = [Entry::empty(), set(b"a", b"1"), Entry::config(change.encode())];
        let run = replica(&entries).go_on_alone(ReplicaId(1)).expect("a voter").run;
        let replica = started(replica(&entries), run.expect("something to do"));
        assert_eq!(replica.status().membership.members().collect::<Vec<_>>(), [ReplicaId(1)]);
        assert!(replica.status().membership.outgoing.is_empty());
        let refused = self::replica(&entries).go_on_alone(ReplicaId(9)).err();
        assert_eq!(refused, Some(AloneRefusal::NoVoter(GroupId(0))));
    }
}
