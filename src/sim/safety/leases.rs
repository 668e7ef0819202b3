//! Leases (thesis §6.4.1): while a leader would answer reads by its lease, nobody leads a later term. Who
//! leads is known here at every moment, so a lease that outlasts the promise it rests on is seen also when
//! nobody happens to read by it.

use crate::id::{GroupId, ReplicaId, Term};

use super::{Checked, Table};

/// Who leads.
#[derive(Debug, Default)]
pub struct LeaseSafety {
    leads: Table<Option<Term>>,
}

impl LeaseSafety {
    /// Looks at a replica, which leads a term or none. Whether it has a lease is asked only if another one leads
    /// a later term.
    ///
    /// # Errors
    /// If another one leads a later term all the same.
    pub fn look(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        leads: Option<Term>,
        is_leased: impl FnOnce() -> bool,
    ) -> Checked {
        *self.leads.at(group, replica) = leads;
        let Some(term) = leads else { return Ok(()) };
        let others = (0..).zip(self.leads.row(group));
        let mut later = others.filter_map(|(id, leads)| leads.map(|leads| (ReplicaId(id), leads)));
        match later.find(|(_, leads)| term < *leads).filter(|_| is_leased()) {
            Some((other, later)) => Err(format!(
                "lease safety: group {group}: {replica} has a lease in term {term}, and {other} leads \
                 term {later}"
            )),
            None => Ok(()),
        }
    }

    /// The node of this replica stopped.
    pub fn on_crash(&mut self, replica: ReplicaId) {
        self.leads.forget(replica);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_beside_a_later_leader_is_seen() {
        let mut leases = LeaseSafety::default();
        let mut look = |replica, term: u64, is_leased| {
            let leads = (term > 0).then_some(Term(term));
            leases.look(GroupId(0), ReplicaId(replica), leads, || is_leased).is_ok()
        };
        assert!(look(1, 2, true));
        assert!(look(2, 3, true), "the later one may have it");
        assert!(look(1, 2, false));
        assert!(!look(1, 2, true));
        assert!(look(2, 0, false), "it stops leading");
        assert!(look(1, 2, true));
    }
}
