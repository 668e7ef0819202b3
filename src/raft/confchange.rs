//! Changes of membership: one membership computed from another, or the reason why not
//! (thesis §4.1, §4.3).
//!
//! ```text
//!                 one change, Auto            changes the voters by at most one: takes effect at once
//!  ConfChange ─►  several, or Joint…          enters a joint membership, left by an empty change:
//!                                               Auto, JointImplicit   the leader proposes it itself
//!                                               JointExplicit         whoever proposed it does
//!                 none, Auto                  leaves the joint membership for the incoming voters
//!                 none, Cancel                leaves it for the outgoing ones: as it was before
//! ```
//!
//! Repeating a change, removing a stranger and adding a member again change nothing and are no
//! error: a change may have to be proposed twice.

use thiserror::Error;

use crate::id::ReplicaId;

use super::membership::Membership;

/// What happens to one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It becomes a voter.
    AddVoter,
    /// It becomes a learner; a voter of the outgoing half becomes one when the joint membership is
    /// left.
    AddLearner,
    /// It leaves.
    Remove,
    /// Something about it changes that is no matter of raft's, such as its address.
    Update,
}

/// One replica's part in a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Change {
    /// What happens.
    pub kind: ChangeKind,
    /// To whom. [`ReplicaId::NONE`] is passed over.
    pub id: ReplicaId,
}

/// How to get from the old voters to the new ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Transition {
    /// At once for a single change; otherwise through a joint membership that is left by itself.
    #[default]
    Auto,
    /// Through a joint membership that is left by itself.
    JointImplicit,
    /// Through a joint membership that is left on request.
    JointExplicit,
    /// Out of a joint membership, back to what was before.
    Cancel,
}

/// A change of membership, as one log entry holds it. The default leaves a joint membership.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ConfChange {
    /// How.
    pub transition: Transition,
    /// What, in this order.
    pub changes: Vec<Change>,
}

/// Why a change cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum ChangeError {
    /// A group without voters could never commit again.
    #[error("removed all voters")]
    NoVoters,
    /// Two majorities of different voter sets need not meet.
    #[error("more than one voter changed without entering joint config")]
    TooMany,
    /// One joint change at a time.
    #[error("config is already joint")]
    AlreadyJoint,
    /// A joint membership is left before the next change.
    #[error("can't apply simple config change in joint config")]
    Joint,
    /// There is nothing to leave.
    #[error("can't leave a non-joint config")]
    NotJoint,
    /// There is no old majority to join with.
    #[error("can't make a zero-voter config joint")]
    NothingToJoin,
}

impl ConfChange {
    /// Whether it only leaves a joint membership, one way or the other.
    #[must_use]
    pub fn leaves_joint(&self) -> bool {
        self.changes.is_empty() && matches!(self.transition, Transition::Auto | Transition::Cancel)
    }

    /// Whether it goes through a joint membership, and if so whether that is left by itself.
    #[must_use]
    pub fn enters_joint(&self) -> Option<bool> {
        match self.transition {
            Transition::JointImplicit => Some(true),
            Transition::JointExplicit => Some(false),
            Transition::Auto => (self.changes.len() > 1).then_some(true),
            Transition::Cancel => None,
        }
    }
}

impl Membership {
    /// The membership after `change`.
    ///
    /// # Errors
    /// If it is not allowed from here.
    pub fn changed(&self, change: &ConfChange) -> Result<Self, ChangeError> {
        if change.leaves_joint() {
            return match change.transition {
                Transition::Cancel => self.cancel_joint(),
                _ => self.leave_joint(),
            };
        }
        match change.enters_joint() {
            Some(auto_leave) => self.enter_joint(auto_leave, &change.changes),
            None => self.simple(&change.changes),
        }
    }

    /// The membership after changes that take effect at once.
    ///
    /// # Errors
    /// If this one is joint, if no voter would be left, or if more than one voter would change.
    pub fn simple(&self, changes: &[Change]) -> Result<Self, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::Joint);
        }
        let next = self.with(changes)?;
        let only_in =
            |a: &Self, b: &Self| a.incoming.iter().filter(|id| !b.incoming.contains(id)).count();
        if only_in(self, &next) + only_in(&next, self) > 1 {
            return Err(ChangeError::TooMany);
        }
        Ok(next)
    }

    /// The joint membership of the voters there are and those there will be after `changes`.
    ///
    /// # Errors
    /// If this one is joint, has no voters, or would have none.
    pub fn enter_joint(&self, auto_leave: bool, changes: &[Change]) -> Result<Self, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::AlreadyJoint);
        }
        if self.incoming.is_empty() {
            return Err(ChangeError::NothingToJoin);
        }
        let joint = Self { outgoing: self.incoming.clone(), ..self.clone() };
        let mut next = joint.with(changes)?;
        next.auto_leave = auto_leave;
        Ok(next)
    }

    /// The incoming half alone; who was to become a learner is one.
    ///
    /// # Errors
    /// If this one is not joint.
    pub fn leave_joint(&self) -> Result<Self, ChangeError> {
        if !self.is_joint() {
            return Err(ChangeError::NotJoint);
        }
        let Self { incoming, learners, learners_next, .. } = self.clone();
        let learners = learners.into_iter().chain(learners_next).collect();
        Ok(Self { incoming, learners, ..Self::default() }.sorted())
    }

    /// The outgoing half alone, as it was before; learners that were added stay learners, and new
    /// voters, which hold part of the log by now, become learners.
    ///
    /// # Errors
    /// If this one is not joint.
    pub fn cancel_joint(&self) -> Result<Self, ChangeError> {
        if !self.is_joint() {
            return Err(ChangeError::NotJoint);
        }
        let Self { incoming, outgoing, learners, .. } = self.clone();
        let new = incoming.into_iter().filter(|id| !outgoing.contains(id));
        let learners = learners.into_iter().chain(new).collect();
        Ok(Self { incoming: outgoing, learners, ..Self::default() }.sorted())
    }

    fn with(&self, changes: &[Change]) -> Result<Self, ChangeError> {
        let mut next = self.clone();
        for change in changes.iter().filter(|change| change.id.is_some()) {
            match change.kind {
                ChangeKind::AddVoter => {
                    next.forget(change.id);
                    add(&mut next.incoming, change.id);
                }
                ChangeKind::AddLearner => next.add_learner(change.id),
                ChangeKind::Remove => next.forget(change.id),
                ChangeKind::Update => {}
            }
        }
        if next.incoming.is_empty() {
            return Err(ChangeError::NoVoters);
        }
        Ok(next.sorted())
    }

    fn add_learner(&mut self, id: ReplicaId) {
        if self.learners.contains(&id) {
            return;
        }
        self.forget(id);
        // Whoever still votes in the old half must not learn before it is gone.
        if self.outgoing.contains(&id) {
            add(&mut self.learners_next, id);
        } else {
            add(&mut self.learners, id);
        }
    }

    /// Everywhere but in the outgoing half.
    fn forget(&mut self, id: ReplicaId) {
        for set in [&mut self.incoming, &mut self.learners, &mut self.learners_next] {
            if set.contains(&id) {
                *set = set.iter().copied().filter(|&member| member != id).collect();
            }
        }
    }
}

fn add(set: &mut Box<[ReplicaId]>, id: ReplicaId) {
    *set = set.iter().copied().chain([id]).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(voters: &[u64]) -> Membership {
        Membership::of_voters(voters.iter().map(|&id| ReplicaId(id)))
    }

    /// `v1 l2 r3 u4`, as the transcripts of etcd write changes.
    fn changes(text: &str) -> Vec<Change> {
        let change = |word: &str| {
            let kind = match &word[..1] {
                "v" => ChangeKind::AddVoter,
                "l" => ChangeKind::AddLearner,
                "r" => ChangeKind::Remove,
                _ => ChangeKind::Update,
            };
            Change { kind, id: ReplicaId(word[1..].parse().expect("a number")) }
        };
        text.split_whitespace().map(change).collect()
    }

    fn told(of: &Membership) -> String {
        let set = |ids: &[ReplicaId]| ids.iter().map(|id| id.0.to_string()).collect::<String>();
        let Membership { incoming, outgoing, learners, learners_next, .. } = of;
        [incoming, outgoing, learners, learners_next].map(|ids| set(ids)).join("/")
    }

    #[test]
    fn one_voter_at_a_time() {
        let three = of(&[1, 2, 3]);
        assert_eq!(told(&three.simple(&changes("v4")).expect("one")), "1234///");
        assert_eq!(told(&three.simple(&changes("r3 l5")).expect("one")), "12//5/");
        assert_eq!(told(&three.simple(&changes("r9 u1 v0 l0")).expect("none")), "123///");
        assert_eq!(three.simple(&changes("v4 r3")), Err(ChangeError::TooMany));
        assert_eq!(of(&[1]).simple(&changes("r1")), Err(ChangeError::NoVoters));
    }

    #[test]
    fn joint_and_back() {
        let joint = of(&[1, 2, 3]).enter_joint(true, &changes("r1 v4 l3")).expect("joint");
        assert_eq!(told(&joint), "24/123//3");
        assert!(joint.auto_leave && joint.is_joint() && joint.is_voter(ReplicaId(1)));
        assert_eq!(told(&joint.leave_joint().expect("left")), "24//3/");
        assert_eq!(told(&joint.cancel_joint().expect("cancelled")), "123//4/");
        assert!(!joint.leave_joint().expect("left").auto_leave);
        assert_eq!(joint.enter_joint(false, &[]), Err(ChangeError::AlreadyJoint));
        assert_eq!(joint.simple(&changes("v5")), Err(ChangeError::Joint));
        assert_eq!(of(&[1]).leave_joint(), Err(ChangeError::NotJoint));
        assert_eq!(of(&[]).enter_joint(false, &changes("v1")), Err(ChangeError::NothingToJoin));
    }

    #[test]
    fn the_transition_decides_the_way() {
        let three = of(&[1, 2, 3]);
        let go = |transition, text: &str| {
            let change = ConfChange { transition, changes: changes(text) };
            three.changed(&change).map(|next| (told(&next), next.auto_leave))
        };
        assert_eq!(go(Transition::Auto, "v4"), Ok(("1234///".into(), false)));
        assert_eq!(go(Transition::Auto, "v4 v5"), Ok(("12345/123//".into(), true)));
        assert_eq!(go(Transition::JointImplicit, "v4"), Ok(("1234/123//".into(), true)));
        assert_eq!(go(Transition::JointExplicit, "v4"), Ok(("1234/123//".into(), false)));
        assert_eq!(go(Transition::Auto, ""), Err(ChangeError::NotJoint));
        assert_eq!(go(Transition::Cancel, ""), Err(ChangeError::NotJoint));
    }

    /// What every change must keep, for every short list of changes from every start: some voter is
    /// left, no learner votes, and any two quorums of neighbouring memberships meet.
    #[test]
    fn neighbours_share_a_voter_of_every_quorum() {
        let words: Vec<String> =
            (1..=4).flat_map(|id| ["v", "l", "r"].map(|kind| format!("{kind}{id}"))).collect();
        let mut checked = 0;
        for first in &words {
            for second in &words {
                for third in &words {
                    let list = changes(&format!("{first} {second} {third}"));
                    let start = of(&[1, 2, 3]);
                    for next in [start.simple(&list), start.enter_joint(false, &list)] {
                        let Ok(next) = next else { continue };
                        checked += 1;
                        assert!(!next.incoming.is_empty());
                        assert!(next.learners.iter().all(|&id| !next.is_voter(id)));
                        assert!(next.learners_next.iter().all(|id| next.outgoing.contains(id)));
                        let old = |set: u32| has(set, &start.incoming);
                        let new = |set: u32| has(set, &next.incoming) && has(set, &next.outgoing);
                        for a in (0..32).filter(|&set| old(set)) {
                            for b in (0..32).filter(|&set| new(set)) {
                                assert_ne!(a & b, 0, "{list:?}: {a:b} and {b:b} do not meet");
                            }
                        }
                    }
                }
            }
        }
        assert!(checked > 1000, "{checked}");
    }

    /// Whether the replicas of this bit set are a majority of `voters`.
    fn has(set: u32, voters: &[ReplicaId]) -> bool {
        let yes = voters.iter().filter(|id| set >> id.0 & 1 == 1).count();
        voters.is_empty() || yes > voters.len() / 2
    }
}
