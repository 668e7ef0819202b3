//! Majority and joint arithmetic: who has won, and up to where a quorum agrees.
//!
//! Every use of a quorum goes through these three functions with the *joint* membership: electing,
//! committing, confirming reads, and noticing that nobody answers any more (safety point 10). While
//! a change of membership is under way both voter sets must agree; otherwise `outgoing` is empty,
//! and an empty set agrees with everything, so that the other one decides alone.

use smallvec::SmallVec;

use crate::id::ReplicaId;
use crate::planted::{Planted, planted};

use super::membership::Membership;

/// How a ballot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteResult {
    /// Neither side has a majority yet.
    Pending,
    /// A majority said no, so yes can no longer win.
    Lost,
    /// A majority said yes.
    Won,
}

/// How the ballot stands if voter `id` answered `answer(id)` (`None`: not yet).
#[must_use]
pub fn vote_result(
    membership: &Membership,
    answer: impl Fn(ReplicaId) -> Option<bool>,
) -> VoteResult {
    let incoming = majority_vote(&membership.incoming, &answer);
    let outgoing = majority_vote(&membership.outgoing, &answer);
    match (incoming, outgoing) {
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        (VoteResult::Pending, _) | (_, VoteResult::Pending) => VoteResult::Pending,
    }
}

/// Whether those for whom `yes` holds are a quorum.
pub(super) fn has_quorum(membership: &Membership, yes: impl Fn(ReplicaId) -> bool) -> bool {
    vote_result(membership, |id| Some(yes(id))) == VoteResult::Won
}

/// The greatest number that a quorum has reached, where voter `id` has reached `reached(id)`.
/// `u64::MAX` if there are no voters.
#[must_use]
pub fn agreed(membership: &Membership, reached: impl Fn(ReplicaId) -> u64) -> u64 {
    if planted(Planted::LearnerCounts) {
        let all = [&membership.incoming[..], &membership.learners[..]].concat();
        return majority_agreed(&all, &reached);
    }
    let incoming = majority_agreed(&membership.incoming, &reached);
    if membership.outgoing.is_empty() {
        return incoming;
    }
    incoming.min(majority_agreed(&membership.outgoing, &reached))
}

fn majority_vote(voters: &[ReplicaId], answer: &impl Fn(ReplicaId) -> Option<bool>) -> VoteResult {
    if voters.is_empty() {
        return VoteResult::Won;
    }
    let (mut yes, mut missing) = (0, 0);
    for &id in voters {
        match answer(id) {
            Some(true) => yes += 1,
            Some(false) => {}
            None => missing += 1,
        }
    }
    let needed = voters.len() / 2 + 1;
    if yes >= needed {
        VoteResult::Won
    } else if yes + missing >= needed {
        VoteResult::Pending
    } else {
        VoteResult::Lost
    }
}

fn majority_agreed(voters: &[ReplicaId], reached: &impl Fn(ReplicaId) -> u64) -> u64 {
    // Nearly every group has three voters, and this is asked for every acknowledgement.
    if let &[a, b, c] = voters {
        let (a, b, c) = (reached(a), reached(b), reached(c));
        return a.min(b).max(a.max(b).min(c));
    }
    let mut sorted: SmallVec<[u64; 7]> = voters.iter().map(|&id| reached(id)).collect();
    sorted.sort_unstable();
    // With n voters in ascending order, the one at n - (n/2 + 1) has a majority at or above it.
    match sorted.len() {
        0 => u64::MAX,
        n => sorted[n - (n / 2 + 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint(incoming: &[u64], outgoing: &[u64]) -> Membership {
        let ids = |ids: &[u64]| ids.iter().map(|&id| ReplicaId(id)).collect();
        Membership { incoming: ids(incoming), outgoing: ids(outgoing), ..Membership::default() }
    }

    #[test]
    fn a_majority_agrees_on_the_middle() {
        for (reached, expected) in [
            (&[][..], u64::MAX),
            (&[7], 7),
            (&[7, 3], 3),
            (&[7, 3, 5], 5),
            (&[3, 5, 7], 5),
            (&[5, 7, 3], 5),
            (&[7, 5, 5], 5),
            (&[0, 0, 9], 0),
            (&[7, 3, 5, 9], 5),
            (&[1, 2, 3, 4, 5], 3),
            (&[1, 2, 3, 4, 5, 6, 7, 8, 9], 5),
        ] {
            let ids: Vec<u64> = (1..=reached.len() as u64).collect();
            let members = joint(&ids, &[]);
            let agreed = agreed(&members, |id| reached[id.0 as usize - 1]);
            assert_eq!(agreed, expected, "{reached:?}");
        }
    }

    #[test]
    fn safety_point_10_both_halves_must_agree() {
        let members = joint(&[1, 2, 3], &[3, 4, 5]);
        assert_eq!(agreed(&members, |id| if id.0 <= 3 { 9 } else { 2 }), 2);
        assert_eq!(agreed(&members, |id| if id.0 <= 4 { 9 } else { 2 }), 9);
        assert_eq!(
            vote_result(&members, |id| (id.0 <= 3).then_some(true)),
            VoteResult::Pending,
            "the old half has one yes of three"
        );
        assert_eq!(vote_result(&members, |id| Some(id.0 <= 3)), VoteResult::Lost);
        assert_eq!(vote_result(&members, |id| Some(id.0 != 1 && id.0 != 5)), VoteResult::Won);
        assert!(!has_quorum(&members, |id| id.0 <= 3));
    }

    #[test]
    fn half_is_not_a_majority() {
        let members = joint(&[1, 2, 3, 4], &[]);
        assert_eq!(vote_result(&members, |id| Some(id.0 <= 2)), VoteResult::Lost);
        assert_eq!(vote_result(&members, |id| (id.0 <= 2).then_some(true)), VoteResult::Pending);
        assert_eq!(vote_result(&members, |id| (id.0 <= 3).then_some(true)), VoteResult::Won);
    }
}
