//! Changing the membership: one change at a time, in effect when it is applied (thesis §4.1, §4.3;
//! safety points 10, 11 and 18).
//!
//! ```text
//!   propose_config ──► log ──► committed ──► the driver applies it: apply_config ──► on_applied
//!                                                      │                                  │
//!                          quorums, progress, roles ◄──┘      a joint membership that leaves by
//!                                                             itself: the leader appends the entry
//! ```
//!
//! The core sees no payloads, so the driver decodes the change, at the proposal and again when it is
//! applied. An entry with an empty payload leaves the joint membership.

use crate::entry::EntryKind;
use crate::id::{Index, ReplicaId, Tick};
use crate::planted::{Planted, planted};

use super::confchange::{ChangeError, ConfChange};
use super::driver::{ConfigRefusal, LogChange, OnRemoval, ProposeRefusal, Source};
use super::membership::Membership;
use super::progress::Progress;
use super::rest::Rare;
use super::state::{Raft, Role};

impl Raft {
    /// Appends one change of membership of `bytes` payload bytes to a leader's log and returns its
    /// index. The driver puts the payload in its log cache at once, as
    /// [`EntryKind::Config`](crate::entry::EntryKind::Config).
    ///
    /// # Errors
    ///
    /// See [`ConfigRefusal`]: among others, while an earlier change has not taken effect.
    pub fn propose_config(
        &mut self,
        change: &ConfChange,
        bytes: u64,
    ) -> Result<Index, ConfigRefusal> {
        let applied = self.log.applied();
        if let Role::Leader(leader) = &self.role {
            let (is_joint, leaves) = (self.membership.is_joint(), change.changes.is_empty());
            if leader.pending_config > applied && !planted(Planted::TwoChangesInFlight) {
                return Err(ConfigRefusal::Pending { index: leader.pending_config });
            }
            if is_joint && !leaves {
                return Err(ConfigRefusal::Joint);
            }
            if !is_joint && leaves {
                return Err(ConfigRefusal::NotJoint);
            }
            self.membership.changed(change).map_err(ConfigRefusal::Change)?;
        }
        self.propose_config_unchecked(bytes)
    }

    /// As [`Raft::propose_config`], without asking whether the change makes sense: for comparison
    /// with etcd, which has a switch for it. What cannot be applied will change nothing.
    ///
    /// # Errors
    ///
    /// As for any proposal.
    pub fn propose_config_unchecked(&mut self, bytes: u64) -> Result<Index, ConfigRefusal> {
        let index = self.propose(1, bytes).map_err(ConfigRefusal::Proposal)?;
        if let Role::Leader(leader) = &mut self.role {
            leader.pending_config = index;
        }
        self.note_config(index);
        Ok(index)
    }

    /// The change at `index` is being applied: from here on it counts. Call it before
    /// [`Raft::on_applied`] of its index.
    ///
    /// # Errors
    ///
    /// If it cannot be made from the present membership; then it changes nothing, here as on every
    /// other replica.
    pub fn apply_config(
        &mut self,
        _index: Index,
        change: &ConfChange,
        now: Tick,
    ) -> Result<(), ChangeError> {
        let next = self.membership.changed(change)?;
        if self.failure().is_none() {
            self.switch_to(next, now);
            self.check();
        }
        Ok(())
    }

    /// This replica joined later and was not told with whom the group began; it hears it now, with the
    /// first change in its log. Does nothing if it knows members already.
    pub fn begin_with(&mut self, membership: Membership, now: Tick) {
        if self.failure().is_none() && self.membership.incoming.is_empty() {
            self.switch_to(membership.sorted(), now);
            self.check();
        }
    }

    /// Counts with `next` from now on.
    pub(super) fn switch_to(&mut self, next: Membership, now: Tick) {
        self.membership = next;
        let (id, last) = (self.config.id, self.log.last());
        let is_voter = self.membership.is_voter(id);
        let Role::Leader(leader) = &mut self.role else {
            if !is_voter && matches!(self.role, Role::PreCandidate(_) | Role::Candidate(_)) {
                self.become_follower(self.term, ReplicaId::NONE, now);
            }
            return;
        };
        leader.peers.retain(|peer| self.membership.is_member(peer.id));
        for member in self.membership.members() {
            if leader.peer(member).is_none() {
                leader.peers.push(Progress::joining(member, last, now));
            }
        }
        leader.peers.sort_by_key(|peer| peer.id);
        // Whoever promised not to elect another leader may have no say any more.
        if let Some(reads) = &mut leader.reads {
            reads.end_lease();
        }
        if let Some(to) = leader.transferee().filter(|&to| !self.membership.is_voter(to)) {
            leader.transfer = None;
            Rare::end_transfer(&mut self.rare, to);
        }
        if !is_voter {
            match self.config.on_removal {
                OnRemoval::KeepLeading => {}
                OnRemoval::StepDown => self.become_follower(self.term, ReplicaId::NONE, now),
                OnRemoval::HandOver => self.hand_over(now),
            }
            return;
        }
        // Whoever has just come is sent something at once, also if nothing is committed by this.
        leader.peers.iter_mut().for_each(|peer| peer.wanted = true);
        leader.dirty = true;
        self.advance_own_progress();
        self.advance_commit();
    }

    /// This leader has no vote any more: the voter that is furthest takes over, so that the group
    /// need not notice by silence. It has heard of the change by then, or does so on the way.
    pub(super) fn hand_over(&mut self, now: Tick) {
        self.advance_commit();
        let Role::Leader(leader) = &self.role else { return };
        let alive = |heard| now.since(heard) < self.config.election_ticks();
        let best = leader
            .peers
            .iter()
            .filter(|peer| self.membership.incoming.contains(&peer.id))
            .filter(|peer| peer.heard().is_some_and(alive))
            .max_by_key(|peer| (peer.matched, peer.heard()))
            .map(|peer| peer.id);
        if !best.is_some_and(|to| self.transfer(to, now)) {
            self.become_follower(self.term, ReplicaId::NONE, now);
        }
    }

    /// Appends the entry that leaves a joint membership, if that is this leader's to do. Asked
    /// whenever something was applied: a handover that failed must not leave the group joint
    /// (mistake 6).
    pub(super) fn leave_joint_if_due(&mut self) -> Option<LogChange> {
        let (applied, first) = (self.log.applied(), self.log.last().next());
        let Role::Leader(leader) = &mut self.role else { return None };
        let is_due = self.membership.auto_leave
            && applied >= leader.pending_config
            && leader.transfer.is_none()
            && self.membership.is_member(self.config.id);
        if !is_due {
            return None;
        }
        leader.pending_config = first;
        (leader.dirty, leader.broadcast) = (true, true);
        self.log.replace_from(first, 1, self.term);
        self.promise_own_entries();
        Some(LogChange { first, count: 1, source: Source::Internal(EntryKind::Config) })
    }
}

impl From<ProposeRefusal> for ConfigRefusal {
    fn from(refusal: ProposeRefusal) -> Self {
        Self::Proposal(refusal)
    }
}
