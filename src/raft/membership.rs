//! Who belongs to a group: computed, never mutated.
//!
//! ```text
//!   incoming {1 2 3}                          an ordinary membership: `outgoing` is empty
//!        │ simple: one voter at a time             ▲ leave, or (cancelled) back to {1 2 3}
//!        │ enter_joint                             │
//!   incoming {1 2 4} outgoing {1 2 3}         joint (thesis §4.3): every quorum needs both
//!        learners {}  learners_next {3}       3 votes until the joint membership is left, and
//!                                             learns from then on
//! ```
//!
//! A change is a list of [`Change`]s, applied in order to a copy; [`confchange`](super::confchange)
//! says which lists are allowed when.

use smallvec::{IntoIter, SmallVec};

use crate::id::ReplicaId;

/// The members of one group. The sets are sorted and hold each id once; learners vote in neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The voters; during a joint change, the voters to be.
    pub incoming: Box<[ReplicaId]>,
    /// During a joint change the voters that were; otherwise empty.
    pub outgoing: Box<[ReplicaId]>,
    /// Replicas that receive the log without a say in it.
    pub learners: Box<[ReplicaId]>,
    /// Voters of `outgoing` that become learners when the joint membership is left.
    pub learners_next: Box<[ReplicaId]>,
    /// The leader leaves the joint membership by itself as soon as it has taken effect.
    pub auto_leave: bool,
}

impl Membership {
    /// An ordinary membership of these voters, in any order.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = ReplicaId>) -> Self {
        Self { incoming: voters.into_iter().collect(), ..Self::default() }.sorted()
    }

    /// This membership with these learners instead of its own, in any order.
    #[must_use]
    pub fn with_learners(mut self, learners: impl IntoIterator<Item = ReplicaId>) -> Self {
        self.learners = learners.into_iter().collect();
        self.sorted()
    }

    /// Whether a joint change is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` votes, in either half.
    #[must_use]
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.incoming.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether `id` votes or learns.
    #[must_use]
    pub fn is_member(&self, id: ReplicaId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// The voters of both halves, each once, ascending.
    pub fn voters(&self) -> impl Iterator<Item = ReplicaId> {
        ascending(self.incoming.iter().chain(&self.outgoing))
    }

    /// Everybody, each once, ascending.
    pub fn members(&self) -> impl Iterator<Item = ReplicaId> {
        ascending(self.incoming.iter().chain(&self.outgoing).chain(&self.learners))
    }

    /// The same members with each set in ascending order and without repetitions, as every other
    /// function here expects them.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        let Self { incoming, outgoing, learners, learners_next, .. } = &mut self;
        for set in [incoming, outgoing, learners, learners_next] {
            if !set.is_sorted_by(|one, next| one < next) {
                let mut ids = std::mem::take(set).into_vec();
                ids.sort_unstable();
                ids.dedup();
                *set = ids.into();
            }
        }
        self
    }
}

fn ascending<'a>(ids: impl Iterator<Item = &'a ReplicaId>) -> IntoIter<[ReplicaId; 8]> {
    let mut ids: SmallVec<[ReplicaId; 8]> = ids.copied().collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_named_once() {
        let members = Membership {
            incoming: [3, 1, 1].map(ReplicaId).into(),
            outgoing: [2, 1].map(ReplicaId).into(),
            learners: [4, 2].map(ReplicaId).into(),
            ..Membership::default()
        }
        .sorted();
        let names = |ids: Vec<ReplicaId>| ids.into_iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(names(members.voters().collect()), [1, 2, 3]);
        assert_eq!(names(members.members().collect()), [1, 2, 3, 4]);
        assert!(members.is_member(ReplicaId(4)) && !members.is_voter(ReplicaId(4)));
        assert!(!members.is_member(ReplicaId(5)));
    }
}
