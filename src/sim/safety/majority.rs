//! Commitment (§5.3, thesis §4.2.1): what a leader commits is in the logs of a majority of the voters; of
//! both halves, while a change of members is joint.

use crate::id::{GroupId, Index, ReplicaId};
use crate::raft::Membership;

use super::{Checked, Table};

/// With whom each leader counted when it was last seen.
#[derive(Debug, Default)]
pub struct Majority {
    counting: Table<Option<Membership>>,
}

impl Majority {
    /// Looks at a leader. `counted` is what it has committed by counting since it was last seen; of the
    /// voters, those that are up and do not have that entry are the ones that `lacks` names.
    ///
    /// # Errors
    /// If so many lack it that those who hold it are no majority.
    pub fn look(
        &mut self,
        group: GroupId,
        leader: ReplicaId,
        membership: &Membership,
        counted: Option<Index>,
        mut lacks: impl FnMut(ReplicaId) -> bool,
    ) -> Checked {
        let before = self.counting.at(group, leader);
        if let Some(index) = counted {
            let mut holds = |half: &[ReplicaId]| {
                half.is_empty()
                    || half.len() / 2 < half.iter().filter(|voter| !lacks(**voter)).count()
            };
            let mut is_held = |it: &Membership| holds(&it.incoming) && holds(&it.outgoing);
            // It may have counted with those before a change that took effect in the same turn.
            if !is_held(membership) && !before.as_ref().is_some_and(is_held) {
                return Err(format!(
                    "majority: group {group}: {leader} commits {index}, which no majority of \
                     {membership:?} holds"
                ));
            }
        }
        if before.as_ref() != Some(membership) {
            *before = Some(membership.clone());
        }
        Ok(())
    }

    /// The node of this replica stopped.
    pub fn on_crash(&mut self, replica: ReplicaId) {
        self.counting.forget(replica);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_no_majority_holds_is_seen() {
        let (group, leader) = (GroupId(0), ReplicaId(1));
        let three = Membership::of_voters([1, 2, 3].map(ReplicaId)).with_learners([ReplicaId(4)]);
        let two = Membership::of_voters([1, 2].map(ReplicaId));
        let mut majority = Majority::default();
        let mut look = |membership: &Membership, counted: Option<u64>, lack: &[u64]| {
            let lacks = |voter: ReplicaId| lack.contains(&voter.0);
            majority.look(group, leader, membership, counted.map(Index), lacks).is_ok()
        };
        assert!(look(&three, Some(5), &[3]));
        assert!(look(&three, None, &[2, 3]), "it commits nothing");
        assert!(!look(&three, Some(6), &[2, 3]), "a learner is no voter");
        assert!(
            look(&two, Some(6), &[2]),
            "counted with three, which had it, before there were two"
        );
        assert!(!look(&two, Some(7), &[2]));
    }
}
