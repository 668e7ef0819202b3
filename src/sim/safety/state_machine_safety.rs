//! State machine safety (§5.4.3): if a replica has applied an entry at a given index, no other replica
//! will ever apply a different entry for the same index.
//!
//! A replica that restarts applies from the beginning again, and is compared from the beginning.

use crate::id::{Index, ReplicaId};

use super::{Checked, PerGroup, Sight, Stamp, Table};

/// Everything applied so far.
#[derive(Debug, Default)]
pub struct StateMachineSafety {
    /// Per group: what was applied at each index, and by whom first.
    applied: PerGroup<Vec<(Stamp, ReplicaId)>>,
    /// How far each replica was compared in its present life.
    compared: Table<usize>,
}

impl StateMachineSafety {
    /// Looks at what a replica applied since the last look.
    ///
    /// # Errors
    /// If another entry was applied elsewhere, or something was applied before it was committed.
    pub fn look(&mut self, sight: &Sight<'_>) -> Checked {
        let (group, replica) = (sight.group, sight.replica);
        if sight.applied > sight.commit {
            return Err(format!(
                "state machine safety: group {group}: {replica} applied {} but knows only {} \
                 committed",
                sight.applied, sight.commit
            ));
        }
        let applied = self.applied.at(group);
        let compared = self.compared.at(group, replica);
        // What a snapshot stands for says nothing of an entry that was applied elsewhere: it agrees with any, and
        // adds nothing to what is known.
        let known = applied.len().min(sight.applied.0 as usize).min(sight.log.len());
        if let Some(rest) = sight.log[..known].get(*compared..) {
            *compared += rest.iter().take_while(|stamp| **stamp == Stamp::GONE).count();
        }
        while *compared < sight.applied.0 as usize {
            let index = Index(*compared as u64 + 1);
            let Some(stamp) = sight.at(index) else {
                return Err(format!(
                    "state machine safety: group {group}: {replica} applied {index} past its log"
                ));
            };
            match applied.get_mut(*compared) {
                None => applied.push((*stamp, replica)),
                Some((known, first)) if !known.agrees(stamp) => {
                    return Err(format!(
                        "state machine safety: group {group} index {index}: {first} applied \
                         {known:?}, {replica} applied {stamp:?}"
                    ));
                }
                Some((known, _)) if known.is_gone() => *known = *stamp,
                Some((known, _)) => known.crc = known.crc.or(stamp.crc),
            }
            *compared += 1;
        }
        Ok(())
    }

    /// A node stopped.
    pub fn on_crash(&mut self, replica: ReplicaId) {
        self.compared.forget(replica);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{log, sight};
    use super::*;

    #[test]
    fn a_different_entry_applied_is_seen_also_after_a_restart() {
        let mut safety = StateMachineSafety::default();
        let mut look = |replica, applied, terms: &[i64], restart: bool| {
            if restart {
                safety.on_crash(ReplicaId(replica));
            }
            let (log, at) = (log(terms), Index(applied));
            safety.look(&Sight { commit: at, applied: at, ..sight(replica, 1, &log) })
        };
        assert!(look(1, 2, &[1, 2, 2], false).is_ok());
        assert!(look(2, 3, &[1, 2, 3], false).is_ok());
        assert!(look(1, 3, &[1, 2, 3], false).is_ok(), "the third was not applied before");
        assert!(look(1, 1, &[-1], false).is_ok(), "already compared");
        assert!(look(1, 1, &[-1], true).is_err());
    }
}
