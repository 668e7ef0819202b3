//! Leadership transfer (thesis §3.10, safety point 17): whoever is told to take over holds everything
//! the leader had when the handover began. From then on the leader takes nothing new.

use std::collections::BTreeMap;

use crate::id::{GroupId, ReplicaId, Term};

use super::{Checked, Sight, Table};

/// Handovers under way, and how long each log is.
#[derive(Debug, Default)]
pub struct Handover {
    /// By group, term and successor: the leader's log when a handover to it first began.
    begun: BTreeMap<(GroupId, Term, ReplicaId), usize>,
    /// Term and log of each replica when last seen.
    seen: Table<Option<(Term, usize)>>,
}

impl Handover {
    /// Looks at a replica, which is handing its leadership to `to`, or to nobody.
    pub fn look(&mut self, sight: &Sight<'_>, to: Option<ReplicaId>) {
        let last = sight.log.len();
        if sight.is_forgetful {
            // Its leader goes by what it acknowledged before its loss, and it stands for no election.
            *self.seen.at(sight.group, sight.replica) = None;
            return;
        }
        *self.seen.at(sight.group, sight.replica) = Some((sight.term, last));
        if let Some(to) = to {
            // A later handover in the same term may have to wait for more: the least is certain.
            let least = self.begun.entry((sight.group, sight.term, to)).or_insert(last);
            *least = last.min(*least);
        }
    }

    /// `to` is told by `from` to take over.
    ///
    /// # Errors
    /// If it lacks entries.
    pub fn on_told(
        &mut self,
        group: GroupId,
        from: ReplicaId,
        term: Term,
        to: ReplicaId,
    ) -> Checked {
        let begun = self.begun.get(&(group, term, to));
        let seen = self.seen.at(group, to).filter(|(of, _)| *of == term);
        match (begun, seen) {
            (Some(&needed), Some((_, last))) if last < needed => Err(format!(
                "handover: group {group}: {from} tells {to} to take over in term {term}, whose log \
                 ends at {last} and not at {needed}"
            )),
            _ => Ok(()),
        }
    }

    /// The node of this replica stopped.
    pub fn on_crash(&mut self, replica: ReplicaId) {
        self.seen.forget(replica);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{log, sight};
    use super::*;

    #[test]
    fn a_laggard_that_is_told_to_take_over_is_seen() {
        let (long, short) = (log(&[1, 1, 1]), log(&[1, 1]));
        let told = |handover: &mut Handover| {
            handover.on_told(GroupId(0), ReplicaId(1), Term(1), ReplicaId(2)).is_ok()
        };
        let mut handover = Handover::default();
        handover.look(&sight(2, 1, &short), None);
        assert!(told(&mut handover), "nothing is known of a handover");
        handover.look(&sight(1, 1, &long), Some(ReplicaId(2)));
        assert!(!told(&mut handover));
        handover.look(&sight(2, 1, &long), None);
        assert!(told(&mut handover));
        handover.look(&sight(2, 2, &short), None);
        assert!(told(&mut handover), "it is in another term, and will not heed it");
    }
}
