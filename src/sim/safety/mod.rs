//! What must hold in every world, one property per file, named as in the Raft paper (figure 3).
//!
//! | property | paper | file | what would break it |
//! |---|---|---|---|
//! | at most one leader per term; one vote per voter and term | §5.2 | [`election_safety`] | a vote that outruns its flush |
//! | a leader appends to its log and does nothing else to it | §5.3 | [`leader_append_only`] | a leader that follows another in its own term |
//! | same index and term: same entry, and the same log before it | §5.3 | [`log_matching`] | appending without the consistency check |
//! | a leader holds everything committed in earlier terms | §5.4 | [`leader_completeness`] | acknowledging before the flush; counting an older term's entry |
//! | no two replicas apply different entries at one index | §5.4.3 | [`state_machine_safety`] | all of the above, and replay from a torn log |
//! | term, commit and applied never go back; a promise that was heard survives every crash | §5.1, contract row 22 | [`monotonic`] | forgetting the hard state |
//! | everybody counts with the same members at the same change, one change at a time, and the removed fall silent | thesis §4.1, §4.2.1 | [`members`] | counting with a change before it is applied |
//! | a leader that would read by its lease is the last there is | thesis §6.4.1 | [`leases`] | trusting clocks too far |
//! | what a leader commits, a majority of the voters holds | §5.3, thesis §4.2.1 | [`majority`] | counting learners, or members that have not caught up |
//! | whoever is told to take over holds the leader's log | thesis §3.10 | [`handover`] | not waiting for the last entries |
//!
//! The checks look at a replica after every turn that touched it, at all of them now and then, and at
//! every message that arrives.
//! A log may begin late, because a snapshot stands for what was in front: of those entries the checks
//! know what they saw before, or nothing ([`Stamp::GONE`]).
//!
//! They know nothing of the code under test but what a [`Sight`] shows.

pub mod election_safety;
pub mod handover;
pub mod leader_append_only;
pub mod leader_completeness;
pub mod leases;
pub mod log_matching;
pub mod majority;
pub mod members;
pub mod monotonic;
pub mod state_machine_safety;

use crate::entry::EntryKind;
use crate::group::Replica;
use crate::id::{EntryId, GroupId, Index, ReplicaId, Term, Tick};
use crate::raft::effects::RoleKind;
use crate::raft::message::{Message, MessageKind};
use crate::wire::SnapshotAck;

use election_safety::ElectionSafety;
use handover::Handover;
use leader_append_only::LeaderAppendOnly;
use leader_completeness::LeaderCompleteness;
use leases::LeaseSafety;
use log_matching::LogMatching;
use majority::Majority;
use members::Members;
use monotonic::Monotonic;
use state_machine_safety::StateMachineSafety;

/// What a check says: nothing, or which property broke and how.
pub type Checked = Result<(), String>;

/// One entry, as far as the checks tell entries apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The term that created it.
    pub term: Term,
    /// The checksum of its payload; `None` if it is no longer in memory.
    pub crc: Option<u32>,
}

impl Stamp {
    /// An entry that was in front of the log when it was first looked at.
    pub const GONE: Self = Self { term: Term(0), crc: None };

    /// Nothing is known of the entry.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.term == Term(0)
    }

    /// Whether the two may be the same entry.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        if self.is_gone() || other.is_gone() {
            return true;
        }
        self.term == other.term
            && match (self.crc, other.crc) {
                (Some(one), Some(other)) => one == other,
                _ => true,
            }
    }
}

/// One replica at the end of one of its turns.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// Who.
    pub replica: ReplicaId,
    /// Of which group.
    pub group: GroupId,
    /// It has not been looked at since its node started.
    pub is_new: bool,
    /// It knows that it has lost part of what it remembered.
    pub is_forgetful: bool,
    /// What it is.
    pub role: RoleKind,
    /// Its term.
    pub term: Term,
    /// Its vote in that term.
    pub vote: ReplicaId,
    /// Its commit index.
    pub commit: Index,
    /// Its applied index.
    pub applied: Index,
    /// Its log: `log[i]` is the entry at index `i + 1`.
    pub log: &'a [Stamp],
    /// Entries from here on changed since the last look.
    pub changed: Index,
}

impl Sight<'_> {
    /// The entry at `index`, if the log reaches it.
    #[must_use]
    pub fn at(&self, index: Index) -> Option<&Stamp> {
        self.log.get(index.0.checked_sub(1)? as usize)
    }
}

/// One value per replica of a group. Groups and replicas are few and numbered densely, so a place is
/// found by counting: this is asked several times for every replica that a turn touched.
#[derive(Debug)]
pub(crate) struct Table<T> {
    groups: Vec<Vec<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { groups: Vec::new() }
    }
}

impl<T: Default> Table<T> {
    /// The value of a replica, made when it is first asked for.
    #[inline]
    pub(crate) fn at(&mut self, group: GroupId, replica: ReplicaId) -> &mut T {
        let (group, replica) = (group.0 as usize, replica.0 as usize);
        if self.groups.get(group).is_none_or(|row| row.len() <= replica) {
            self.make(group, replica);
        }
        &mut self.groups[group][replica]
    }

    #[cold]
    fn make(&mut self, group: usize, replica: usize) {
        if self.groups.len() <= group {
            self.groups.resize_with(group + 1, Vec::new);
        }
        self.groups[group].resize_with(replica + 1, T::default);
    }

    /// The values of a group, by replica; of those that were never asked for there may be none.
    pub(crate) fn row(&self, group: GroupId) -> &[T] {
        self.groups.get(group.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Forgets one replica of every group.
    pub(crate) fn forget(&mut self, replica: ReplicaId) {
        for row in &mut self.groups {
            if let Some(value) = row.get_mut(replica.0 as usize) {
                *value = T::default();
            }
        }
    }
}

/// One value per group.
#[derive(Debug)]
pub(crate) struct PerGroup<T> {
    groups: Vec<T>,
}

impl<T> Default for PerGroup<T> {
    fn default() -> Self {
        Self { groups: Vec::new() }
    }
}

impl<T: Default> PerGroup<T> {
    /// The value of a group, made when it is first asked for.
    #[inline]
    pub(crate) fn at(&mut self, group: GroupId) -> &mut T {
        let group = group.0 as usize;
        if self.groups.len() <= group {
            self.make(group);
        }
        &mut self.groups[group]
    }

    #[cold]
    fn make(&mut self, group: usize) {
        self.groups.resize_with(group + 1, T::default);
    }

    /// Those there are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.groups.iter()
    }
}

/// Whatever of a replica the checks look at. Of one in which none of it changed, they would say what
/// they said before: the log is looked at from its end backwards until it is what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    role: RoleKind,
    term: Term,
    vote: ReplicaId,
    commit: Index,
    applied: Index,
    first: Index,
    last: EntryId,
    is_forgetful: bool,
    /// Its last change of members.
    change: Index,
    transferee: Option<ReplicaId>,
}

/// What is known of one replica in its present life.
#[derive(Debug, Default)]
struct Known {
    seen: Option<Seen>,
    /// Its disk had lost something when it started: what others count on it for may be gone.
    has_forgotten: bool,
    /// Its log as last seen.
    log: Vec<Stamp>,
}

/// All properties together.
#[derive(Debug, Default)]
pub struct Safety {
    known: Table<Known>,
    election_safety: ElectionSafety,
    leader_append_only: LeaderAppendOnly,
    log_matching: LogMatching,
    leader_completeness: LeaderCompleteness,
    state_machine_safety: StateMachineSafety,
    monotonic: Monotonic,
    members: Members,
    handover: Handover,
    leases: LeaseSafety,
    majority: Majority,
}

impl Safety {
    /// Looks at a replica, whose clock shows `now`.
    ///
    /// # Errors
    /// The property that broke, and how.
    pub fn look(&mut self, id: ReplicaId, replica: &Replica, now: Tick) -> Checked {
        if replica.is_gone() {
            // It has left the group, promises nothing any more, and may forget everything.
            return Ok(());
        }
        let (group, status) = (replica.group(), replica.status());
        let seen = Seen {
            role: status.role,
            term: status.term,
            vote: status.vote,
            commit: status.commit,
            applied: status.applied,
            first: status.first,
            last: status.last,
            is_forgetful: replica.forgotten().is_some(),
            change: replica.state().config_id,
            transferee: status.transferee,
        };
        let leads = status.role == RoleKind::Leader;
        self.leases.look(group, id, leads.then_some(status.term), || replica.is_leased(now))?;
        let known = self.known.at(group, id);
        if known.seen == Some(seen) {
            return Ok(());
        }
        let is_new = known.seen.replace(seen).is_none();
        known.has_forgotten |= seen.is_forgetful;
        let log = &mut known.log;
        let last = status.last.index.0 as usize;
        // From the end backwards until what is there is what was there: by the log matching
        // property, which is checked for what is new, the rest did not change either.
        // In front of `gone` the log says nothing any more.
        let gone = status.first.0.saturating_sub(2) as usize;
        let term_at = |place: usize| replica.term_at(Index(place as u64 + 1)).unwrap_or_default();
        let mut changed = last;
        while changed > gone
            && log.get(changed - 1).is_none_or(|stamp| stamp.term != term_at(changed - 1))
        {
            changed -= 1;
        }
        if changed == gone && gone > 0 {
            // Everything is new: it began with a snapshot, which says nothing of the entries in it.
            log.clear();
            log.resize(gone, Stamp::GONE);
        }
        log.truncate(changed);
        for place in changed..last {
            let entry = replica.cache().get(Index(place as u64 + 1));
            log.push(Stamp { term: term_at(place), crc: entry.map(|entry| entry.crc) });
        }
        let sight = Sight {
            replica: id,
            group,
            is_new,
            is_forgetful: seen.is_forgetful,
            role: status.role,
            term: status.term,
            vote: status.vote,
            commit: status.commit,
            applied: status.applied,
            log,
            changed: Index(changed as u64 + 1),
        };
        self.monotonic.look(&sight)?;
        self.election_safety.look(&sight)?;
        self.leader_append_only.look(&sight)?;
        self.log_matching.look(&sight)?;
        let known = self.leader_completeness.committed_in(group);
        self.leader_completeness.look(&sight)?;
        self.state_machine_safety.look(&sight)?;
        self.handover.look(&sight, status.transferee);
        let committed = self.leader_completeness.committed_in(group);
        let changes = || {
            let open = committed.0 + 1..=status.last.index.0;
            let entries = open.filter_map(|index| replica.cache().get(Index(index)));
            entries.filter(|entry| entry.kind == EntryKind::Config).count()
        };
        self.members.look(&sight, replica.state(), status.membership, changes)?;
        if !leads {
            return Ok(());
        }
        // Whatever is known committed only now was counted now, by this leader.
        let commit = status.commit;
        let counted = (known < commit).then_some(commit);
        let stamp = sight.at(commit).copied();
        let Self { known, majority, .. } = self;
        let lacks = |voter: ReplicaId| {
            let Some(stamp) = stamp.filter(|_| voter != id) else { return false };
            let log = known.at(group, voter);
            log.seen.is_some()
                && !log.has_forgotten
                && log.log.get(commit.0 as usize - 1).is_none_or(|here| !here.agrees(&stamp))
        };
        majority.look(group, id, status.membership, counted, lacks)
    }

    /// A message arrived at its receiver: whatever it promises is a promise now.
    ///
    /// # Errors
    /// The property that broke, and how.
    #[inline]
    pub fn on_heard(&mut self, group: GroupId, message: &Message) -> Checked {
        use MessageKind::{AppendResponse, TimeoutNow, VoteResponse};
        let promises = matches!(message.kind, VoteResponse | AppendResponse | TimeoutNow);
        if message.reject || !promises { Ok(()) } else { self.on_promise(group, message) }
    }

    fn on_promise(&mut self, group: GroupId, message: &Message) -> Checked {
        match message.kind {
            MessageKind::VoteResponse => {
                self.monotonic.on_vote_heard(group, message.from, message.term, message.to);
                self.election_safety.on_vote_heard(group, message.from, message.term, message.to)
            }
            MessageKind::AppendResponse => {
                let index = message.entry.index;
                self.monotonic.on_accept_heard(group, message.from, message.term, index);
                Ok(())
            }
            MessageKind::TimeoutNow => {
                self.handover.on_told(group, message.from, message.term, message.to)
            }
            _ => Ok(()),
        }
    }

    /// What is left of a replica if its node loses power now. Whatever it has promised is there.
    ///
    /// # Errors
    /// The promise that would be broken.
    pub fn on_rehearsed(&mut self, id: ReplicaId, replica: &Replica) -> Checked {
        let has_forgotten = self.known.at(replica.group(), id).has_forgotten;
        if replica.is_gone() || replica.forgotten().is_some() || has_forgotten {
            return Ok(());
        }
        let status = replica.status();
        let promises = (status.term, status.vote);
        self.monotonic.keeps(replica.group(), id, promises, status.last.index, true)
    }

    /// A follower says that it has taken a snapshot: it holds all in it.
    pub fn on_installed_heard(&mut self, ack: &SnapshotAck) {
        self.monotonic.on_accept_heard(ack.group, ack.from, ack.term, ack.snapshot.index);
    }

    /// The node of these replicas stopped; what is seen of it next comes from its disk.
    pub fn on_crash(&mut self, replica: ReplicaId) {
        self.known.forget(replica);
        self.monotonic.on_crash(replica);
        self.leader_append_only.on_crash(replica);
        self.state_machine_safety.on_crash(replica);
        self.handover.on_crash(replica);
        self.leases.on_crash(replica);
        self.majority.on_crash(replica);
    }

    /// Entries known committed, over all groups.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.leader_completeness.committed()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A log of these terms; the checksum tells the index, unless the term is negative (then it is
    /// another entry of that term).
    pub(crate) fn log(terms: &[i64]) -> Vec<Stamp> {
        let stamp = |(index, &term): (usize, &i64)| Stamp {
            term: Term(term.unsigned_abs()),
            crc: Some(index as u32 + if term < 0 { 1000 } else { 0 }),
        };
        terms.iter().enumerate().map(stamp).collect()
    }

    /// A follower in `term` that has just been given this log.
    pub(crate) fn sight(replica: u64, term: u64, log: &[Stamp]) -> Sight<'_> {
        Sight {
            replica: ReplicaId(replica),
            group: GroupId(0),
            is_new: false,
            is_forgetful: false,
            role: RoleKind::Follower,
            term: Term(term),
            vote: ReplicaId::NONE,
            commit: Index(0),
            applied: Index(0),
            log,
            changed: Index(1),
        }
    }
}
