//! Membership (thesis §4.1, §4.2.1; contract rows 10, 34, 37): a change counts when it is applied, on
//! every replica the same; a leader begins none while one is not committed; and a replica that has
//! applied its own removal takes part in nothing.

use std::collections::BTreeMap;

use crate::group::GroupState;
use crate::id::Index;
use crate::raft::Membership;
use crate::raft::effects::RoleKind;

use super::{Checked, PerGroup, Sight};

/// With whom each group counted, change by change.
#[derive(Debug, Default)]
pub struct Members {
    counted: PerGroup<BTreeMap<Index, Membership>>,
}

impl Members {
    /// Looks at a replica that counts with `membership`; `state` is what the changes it has applied
    /// made of the group, and its log holds so many `changes` that nobody knows to be committed.
    ///
    /// # Errors
    /// If it counts with others than another replica does after the same change, leads with two
    /// changes open, or was removed and goes on.
    pub fn look(
        &mut self,
        sight: &Sight<'_>,
        state: &GroupState,
        membership: &Membership,
        changes: impl FnOnce() -> usize,
    ) -> Checked {
        let Sight { group, replica, .. } = *sight;
        let broke = |what: String| Err(format!("members: group {group}: replica {replica} {what}"));
        // Whoever joined later knows nobody until it has applied its first change.
        if !membership.incoming.is_empty() {
            let counted = self.counted.at(group).entry(state.config_id);
            let known = counted.or_insert_with(|| membership.clone());
            if known != membership {
                return broke(format!(
                    "counts with {membership:?} after change {}, another with {known:?}",
                    state.config_id
                ));
            }
        }
        if sight.role == RoleKind::Leader {
            let changes = changes();
            if changes > 1 {
                return broke(format!("leads with {changes} changes of members under way"));
            }
        } else if state.is_removed(replica) && !sight.is_new {
            return broke("has applied its own removal and goes on".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{log, sight};
    use super::*;
    use crate::id::{NodeId, ReplicaId};

    #[test]
    fn each_way_to_break_it_is_seen() {
        let log = log(&[1]);
        let state = GroupState::first(&[1, 2, 3].map(NodeId), &[]);
        let others = Membership::of_voters([1, 2].map(ReplicaId));
        let mut members = Members::default();
        let leads = Sight { role: RoleKind::Leader, ..sight(1, 1, &log) };
        let follows = sight(2, 1, &log);
        let same = &state.membership;
        assert!(members.look(&leads, &state, same, || 1).is_ok());
        assert!(members.look(&leads, &state, same, || 2).is_err(), "two changes");
        assert!(members.look(&follows, &state, same, || 2).is_ok(), "they are not the follower's");
        assert!(members.look(&follows, &state, &others, || 0).is_err(), "another count");
        let gone = GroupState { removed: vec![ReplicaId(2)], config_id: Index(9), ..state };
        assert!(members.look(&follows, &gone, &others, || 0).is_err(), "removed");
        let new = Sight { is_new: true, ..follows };
        assert!(members.look(&new, &gone, &others, || 0).is_ok(), "it has not had its turn");
    }
}
