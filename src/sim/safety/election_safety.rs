//! Election safety (§5.2): at most one leader can be elected in a given term.
//!
//! It rests on every voter giving one vote per term, across crashes; that is checked too, at the
//! moment the second of two votes is heard, long before two leaders could be seen.

use std::collections::BTreeMap;

use crate::id::{GroupId, ReplicaId, Term};
use crate::raft::effects::RoleKind;

use super::{Checked, PerGroup, Sight, Table};

/// Leaders and votes so far.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leaders: PerGroup<BTreeMap<Term, ReplicaId>>,
    votes: Table<BTreeMap<Term, ReplicaId>>,
}

impl ElectionSafety {
    /// Looks at a replica.
    ///
    /// # Errors
    /// If another replica led the same term.
    pub fn look(&mut self, sight: &Sight<'_>) -> Checked {
        if sight.role != RoleKind::Leader {
            return Ok(());
        }
        let (group, term, replica) = (sight.group, sight.term, sight.replica);
        let leader = *self.leaders.at(group).entry(term).or_insert(replica);
        if leader != replica {
            return Err(format!(
                "election safety: group {group} term {term} is led by {leader} and by {replica}"
            ));
        }
        Ok(())
    }

    /// `candidate` heard that `voter` votes for it.
    ///
    /// # Errors
    /// If the same voter voted for another in the same term.
    pub fn on_vote_heard(
        &mut self,
        group: GroupId,
        voter: ReplicaId,
        term: Term,
        candidate: ReplicaId,
    ) -> Checked {
        let voted = *self.votes.at(group, voter).entry(term).or_insert(candidate);
        if voted != candidate {
            return Err(format!(
                "election safety: group {group} term {term}: {voter} voted for {voted} and for \
                 {candidate}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sight;
    use super::*;

    #[test]
    fn two_leaders_of_one_term_are_seen_and_of_two_terms_are_fine() {
        let mut safety = ElectionSafety::default();
        let leader = |replica, term| Sight { role: RoleKind::Leader, ..sight(replica, term, &[]) };
        assert!(safety.look(&leader(1, 4)).is_ok());
        assert!(safety.look(&leader(2, 5)).is_ok());
        assert!(safety.look(&leader(1, 4)).is_ok());
        assert!(safety.look(&leader(2, 4)).is_err());
    }

    #[test]
    fn a_vote_repeated_is_fine_and_a_second_vote_is_seen() {
        let mut safety = ElectionSafety::default();
        let mut heard = |candidate| {
            safety.on_vote_heard(GroupId(0), ReplicaId(3), Term(4), ReplicaId(candidate))
        };
        assert!(heard(1).is_ok());
        assert!(heard(1).is_ok());
        assert!(heard(2).is_err());
    }
}
