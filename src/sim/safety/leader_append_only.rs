//! Leader append-only (§5.3): a leader never overwrites or deletes entries in its log; it only appends
//! new entries.
//!
//! What a snapshot stands for is gone from the log and not deleted: the entries that are left end where
//! they ended.

use crate::id::{Index, ReplicaId, Term};
use crate::raft::effects::RoleKind;

use super::{Checked, Sight, Table};

/// How long the log of each leader was when last seen.
#[derive(Debug, Default)]
pub struct LeaderAppendOnly {
    led: Table<Option<(Term, Index)>>,
}

impl LeaderAppendOnly {
    /// Looks at a replica.
    ///
    /// # Errors
    /// If it has led this term for a while, and an entry that it had is gone or another.
    pub fn look(&mut self, sight: &Sight<'_>) -> Checked {
        let (group, replica, term) = (sight.group, sight.replica, sight.term);
        let led = self.led.at(group, replica);
        if sight.role != RoleKind::Leader {
            *led = None;
            return Ok(());
        }
        let last = Index(sight.log.len() as u64);
        match led.replace((term, last)) {
            Some((before, end)) if before == term && (sight.changed <= end || last < end) => {
                Err(format!(
                    "leader append-only: group {group}: {replica} leads term {term} and changed its \
                     log from {} on, which ended at {end} and ends at {last}",
                    sight.changed
                ))
            }
            _ => Ok(()),
        }
    }

    /// A node stopped.
    pub fn on_crash(&mut self, replica: ReplicaId) {
        self.led.forget(replica);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{log, sight};
    use super::*;

    #[test]
    fn a_leader_that_takes_an_entry_back_is_seen_and_a_follower_may() {
        let verdicts = |role, term| {
            let mut safety = LeaderAppendOnly::default();
            let mut look = |term, terms: &[i64], changed| {
                let log = log(terms);
                let changed = Index(changed);
                safety.look(&Sight { role, changed, ..sight(1, term, &log) }).is_ok()
            };
            [look(3, &[1, 3], 1), look(3, &[1, 3, 3], 3), look(term, &[1, 3, -3], 3)]
        };
        assert_eq!(verdicts(RoleKind::Leader, 3), [true, true, false]);
        assert_eq!(verdicts(RoleKind::Follower, 3), [true; 3]);
        assert_eq!(verdicts(RoleKind::Leader, 4), [true; 3], "it was deposed in between");
    }
}
