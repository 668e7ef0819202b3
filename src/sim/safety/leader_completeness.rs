//! Leader completeness (§5.4): if an entry is committed in a given term, it is present in the logs of
//! the leaders of all later terms.
//!
//! An entry is committed when its leader says so, in that leader's term; whoever has heard so knows, and
//! may be the first that is seen to: a leader may step down in the turn in which it commits. Leaders of
//! earlier terms that are elected late (their votes were slow) owe nothing to it, and can commit nothing
//! either.
//!
//! A leader commits by counting only an entry of its own term, and with it all before it (§5.4.2).

use std::collections::BTreeSet;

use crate::id::{GroupId, Index, Term};
use crate::raft::effects::RoleKind;

use super::{Checked, PerGroup, Sight, Stamp};

/// Everything committed so far.
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    groups: PerGroup<Group>,
}

#[derive(Debug, Default)]
struct Group {
    /// The committed entries in order, each with the term it was committed in.
    committed: Vec<(Stamp, Term)>,
    /// Terms whose leaders' logs were compared when they were elected.
    compared: BTreeSet<Term>,
}

impl LeaderCompleteness {
    /// Looks at a replica: if it was elected since, its log is compared with what is committed; if
    /// it committed something, that is noted.
    ///
    /// # Errors
    /// If a committed entry is missing, or is another.
    pub fn look(&mut self, sight: &Sight<'_>) -> Checked {
        let leads = sight.role == RoleKind::Leader;
        let Group { committed, compared } = self.groups.at(sight.group);
        if leads && compared.insert(sight.term) {
            for (place, (stamp, term)) in committed.iter().enumerate() {
                let index = Index(place as u64 + 1);
                let here = sight.at(index);
                if *term < sight.term && !here.is_some_and(|here| here.agrees(stamp)) {
                    return Err(format!(
                        "leader completeness: group {} entry {}/{index} was committed in term \
                         {term}; {} leads term {} and has {here:?}, not {stamp:?}",
                        sight.group, stamp.term, sight.replica, sight.term,
                    ));
                }
            }
        }
        let known = committed.len();
        for place in known..sight.commit.0 as usize {
            let index = Index(place as u64 + 1);
            let Some(stamp) = sight.at(index) else {
                return Err(format!(
                    "leader completeness: group {}: {} in term {} says that {index} is \
                     committed, but its log ends before",
                    sight.group, sight.replica, sight.term,
                ));
            };
            committed.push((*stamp, sight.term));
        }
        // Whatever was committed before was noted then: the last of what is new was counted.
        let counted = &committed[known..];
        if let Some((stamp, _)) = counted.last().filter(|(stamp, _)| leads && !stamp.is_gone())
            && stamp.term != sight.term
        {
            return Err(format!(
                "leader completeness: group {}: {} leads term {} and commits entry {} of term {} by \
                 counting",
                sight.group, sight.replica, sight.term, sight.commit, stamp.term,
            ));
        }
        Ok(())
    }

    /// The last entry of a group known committed.
    pub fn committed_in(&mut self, group: GroupId) -> Index {
        Index(self.groups.at(group).committed.len() as u64)
    }

    /// Entries known committed, over all groups.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.groups.iter().map(|group| group.committed.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{log, sight};
    use super::*;

    #[test]
    fn a_later_leader_without_a_committed_entry_is_seen() {
        let mut safety = LeaderCompleteness::default();
        let mut leads = |replica, term, commit, terms: &[i64]| {
            let log = log(terms);
            let sight = sight(replica, term, &log);
            safety.look(&Sight { role: RoleKind::Leader, commit: Index(commit), ..sight }).is_ok()
        };
        assert!(leads(1, 2, 2, &[1, 2, 2]));
        assert!(leads(2, 1, 0, &[1]), "elected late, in an earlier term");
        assert!(leads(3, 3, 0, &[1, 2, 3]));
        assert!(!leads(2, 4, 0, &[1, -2, 3]), "another entry");
        assert!(!leads(2, 5, 0, &[1]), "a shorter log");
        assert_eq!(safety.committed(), 2);
    }

    #[test]
    fn a_leader_that_commits_by_counting_an_older_term_is_seen() {
        let log = log(&[1, 2, 2, 3]);
        let at = |role, commit| Sight { role, commit: Index(commit), ..sight(1, 3, &log) };
        let mut safety = LeaderCompleteness::default();
        assert!(safety.look(&at(RoleKind::Follower, 1)).is_ok(), "it was told");
        assert!(safety.look(&at(RoleKind::Leader, 1)).is_ok(), "it knew before");
        assert!(safety.look(&at(RoleKind::Leader, 3)).is_err());
        let mut safety = LeaderCompleteness::default();
        assert!(safety.look(&at(RoleKind::Leader, 4)).is_ok(), "with an entry of its own");
    }
}
