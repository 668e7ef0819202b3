//! What never goes back: terms, commit and applied indexes within a life, and promises across lives.
//!
//! A promise counts from the moment somebody heard it. A vote binds its voter in its term; an
//! accepted append binds the follower to hold the log up to that index for as long as it knows of no
//! higher term (only a leader of a higher term may take entries back). A replica that knows that it has
//! lost part of its log is asked when it says that it is whole again.

use crate::id::{GroupId, Index, ReplicaId, Term};

use super::{Checked, Sight, Table};

/// Where each replica was when last seen, and what it promised.
#[derive(Debug, Default)]
pub struct Monotonic {
    seen: Table<Option<Seen>>,
    votes: Table<Option<(Term, ReplicaId)>>,
    accepts: Table<Option<(Term, Index)>>,
    /// Who has not yet been asked, in this life, what it promised in earlier ones.
    unasked: Table<Unasked>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Unasked {
    #[default]
    No,
    Yes,
    /// It began this life knowing that it had forgotten something.
    Forgetful,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    term: Term,
    vote: ReplicaId,
    commit: Index,
    applied: Index,
}

impl Monotonic {
    /// Looks at a replica.
    ///
    /// # Errors
    /// If something went back.
    pub fn look(&mut self, sight: &Sight<'_>) -> Checked {
        let (group, replica) = (sight.group, sight.replica);
        let now = Seen {
            term: sight.term,
            vote: sight.vote,
            commit: sight.commit,
            applied: sight.applied,
        };
        let broke = |what: &str| {
            Err(format!("monotonic: group {}: replica {}: {what}", sight.group, sight.replica))
        };
        if let Some(before) = self.seen.at(group, replica).replace(now) {
            if now.term < before.term || now.commit < before.commit || now.applied < before.applied
            {
                return broke(&format!("went back from {before:?} to {now:?}"));
            }
            if now.term == before.term && before.vote.is_some() && now.vote != before.vote {
                return broke(&format!("changed its vote from {before:?} to {now:?}"));
            }
        }
        if sight.commit.0 > sight.log.len() as u64 {
            return broke(&format!("commit {} is past its log", sight.commit));
        }
        let unasked = self.unasked.at(group, replica);
        if sight.is_new {
            *unasked = Unasked::Yes;
        }
        if sight.is_forgetful {
            *unasked = Unasked::Forgetful;
            return Ok(());
        }
        let unasked = std::mem::take(unasked);
        if unasked == Unasked::No {
            return Ok(());
        }
        // Whoever has forgotten a vote has none to give in that term; that is all that can be asked.
        let is_bound = unasked == Unasked::Yes;
        let last = Index(sight.log.len() as u64);
        self.keeps(group, replica, (now.term, now.vote), last, is_bound)?;
        if let Some(promise) = self.votes.at(group, replica)
            && !is_bound
            && promise.0 == now.term
        {
            // From now on it is bound by this.
            promise.1 = now.vote;
        }
        Ok(())
    }

    /// Whether a replica of which this is left keeps what it promised; its vote, only if it `is_bound` by it.
    ///
    /// # Errors
    /// The promise it forgot.
    pub fn keeps(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        (term, vote): (Term, ReplicaId),
        last: Index,
        is_bound: bool,
    ) -> Checked {
        let broke =
            |what: String| Err(format!("monotonic: group {group}: replica {replica}: {what}"));
        if let Some((promised, candidate)) = *self.votes.at(group, replica)
            && (term < promised || (is_bound && term == promised && vote != candidate))
        {
            return broke(format!(
                "voted for {candidate} in term {promised} and forgot it in a crash: its vote in \
                 term {term} is for {vote}"
            ));
        }
        if let Some((promised, index)) = *self.accepts.at(group, replica)
            && (term < promised || (term == promised && last < index))
        {
            return broke(format!(
                "accepted entries up to {index} in term {promised} and forgot them in a crash: its \
                 term is {term}, its log ends at {last}"
            ));
        }
        Ok(())
    }

    /// A vote was heard.
    pub fn on_vote_heard(
        &mut self,
        group: GroupId,
        voter: ReplicaId,
        term: Term,
        candidate: ReplicaId,
    ) {
        let promise = self.votes.at(group, voter).get_or_insert((term, candidate));
        if promise.0 < term {
            *promise = (term, candidate);
        }
    }

    /// An accepted append was heard.
    pub fn on_accept_heard(
        &mut self,
        group: GroupId,
        follower: ReplicaId,
        term: Term,
        index: Index,
    ) {
        let promise = self.accepts.at(group, follower).get_or_insert((term, index));
        *promise = (*promise).max((term, index));
    }

    /// A node stopped; only promises remain.
    pub fn on_crash(&mut self, replica: ReplicaId) {
        self.seen.forget(replica);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{log, sight};
    use super::*;

    const GROUP: GroupId = GroupId(0);
    const ME: ReplicaId = ReplicaId(1);

    #[test]
    fn going_back_is_seen_within_a_life_only() {
        let log = log(&[1, 1, 1]);
        let at = |commit| Sight { commit: Index(commit), ..sight(1, 2, &log) };
        let mut safety = Monotonic::default();
        assert!(safety.look(&at(3)).is_ok());
        assert!(safety.look(&at(2)).is_err());
        safety.on_crash(ME);
        assert!(safety.look(&at(1)).is_ok(), "a commit index need not be durable");
        assert!(safety.look(&at(4)).is_err(), "past the log");
    }

    #[test]
    fn a_promise_heard_survives_a_crash() {
        let mut safety = Monotonic::default();
        safety.on_vote_heard(GROUP, ME, Term(3), ReplicaId(2));
        safety.on_accept_heard(GROUP, ME, Term(3), Index(2));
        let mut after = |term, vote, terms: &[i64]| {
            let log = log(terms);
            safety.on_crash(ME);
            safety
                .look(&Sight { is_new: true, vote: ReplicaId(vote), ..sight(1, term, &log) })
                .is_ok()
        };
        assert!(after(3, 2, &[1, 1]));
        assert!(!after(2, 2, &[1, 1]), "the term is forgotten");
        assert!(!after(3, 3, &[1, 1]), "the vote is another");
        assert!(!after(3, 2, &[1]), "an entry is forgotten");
        assert!(after(4, 0, &[1]), "a later leader may have taken it back");
    }
}
