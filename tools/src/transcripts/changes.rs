//! Changes of membership as transcripts write them: `v1 l2 r3 u4`.

use std::collections::BTreeMap;

use outrigger::id::ReplicaId;
use outrigger::raft::{Change, ChangeError, ChangeKind, Membership};

/// Parses a list of changes; the error is what the other library says.
pub(super) fn parse(text: &str) -> Result<Vec<Change>, String> {
    text.trim().split(' ').filter(|word| !word.is_empty()).map(parse_one).collect()
}

fn parse_one(word: &str) -> Result<Change, String> {
    let Some((letter, id)) = word.split_at_checked(1).filter(|(_, id)| !id.is_empty()) else {
        return Err(format!("unknown token {word}"));
    };
    let kind = match letter {
        "v" => ChangeKind::AddVoter,
        "l" => ChangeKind::AddLearner,
        "r" => ChangeKind::Remove,
        "u" => ChangeKind::Update,
        _ => return Err(format!("unknown input: {word}")),
    };
    let id =
        id.parse().map_err(|_| format!("strconv.ParseUint: parsing {id:?}: invalid syntax"))?;
    Ok(Change { kind, id: ReplicaId(id) })
}

/// The inverse of [`parse`].
pub(super) fn describe(changes: &[Change]) -> String {
    let one = |change: &Change| {
        let letter = match change.kind {
            ChangeKind::AddVoter => 'v',
            ChangeKind::AddLearner => 'l',
            ChangeKind::Remove => 'r',
            ChangeKind::Update => 'u',
        };
        format!("{letter}{}", change.id)
    };
    changes.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Why a change cannot be made, in the other library's words.
pub(super) fn describe_error(error: ChangeError) -> &'static str {
    match error {
        ChangeError::NoVoters => "removed all voters",
        ChangeError::TooMany => "more than one voter changed without entering joint config",
        ChangeError::AlreadyJoint => "config is already joint",
        ChangeError::Joint => "can't apply simple config change in joint config",
        ChangeError::NotJoint => "can't leave a non-joint config",
        ChangeError::NothingToJoin => "can't make a zero-voter config joint",
    }
}

/// `voters=(1 2)&&(3) learners=(4) learners_next=(5) autoleave`; what is empty is left out.
pub(super) fn describe_membership(membership: &Membership) -> String {
    let set = |ids: &[ReplicaId]| {
        let ids: Vec<_> = ids.iter().map(ReplicaId::to_string).collect();
        format!("({})", ids.join(" "))
    };
    let Membership { incoming, outgoing, learners, learners_next, auto_leave } = membership;
    let mut out = format!("voters={}", set(incoming));
    if !outgoing.is_empty() {
        out += &format!("&&{}", set(outgoing));
    }
    if !learners.is_empty() {
        out += &format!(" learners={}", set(learners));
    }
    if !learners_next.is_empty() {
        out += &format!(" learners_next={}", set(learners_next));
    }
    if *auto_leave {
        out += " autoleave";
    }
    out
}

/// Where a leader would begin to feed each member: the log's last index at the time it came.
#[derive(Debug, Default, Clone)]
pub(super) struct Tracked(BTreeMap<ReplicaId, u64>);

impl Tracked {
    /// Follows changes that led to `next`. A member that left and came back within them begins anew,
    /// unless it still votes in the outgoing half.
    pub(super) fn follow(&mut self, changes: &[Change], next: &Membership, last: u64) {
        for change in changes.iter().filter(|change| change.id.is_some()) {
            match change.kind {
                ChangeKind::Remove if !next.outgoing.contains(&change.id) => {
                    self.0.remove(&change.id);
                }
                ChangeKind::AddVoter | ChangeKind::AddLearner => {
                    self.0.entry(change.id).or_insert(last.max(1));
                }
                ChangeKind::Remove | ChangeKind::Update => {}
            }
        }
        self.0.retain(|&id, _| next.is_member(id));
    }

    /// One line per member.
    pub(super) fn describe(&self, membership: &Membership) -> String {
        let one = |(id, next): (&ReplicaId, &u64)| {
            let learner = if membership.learners.contains(id) { " learner" } else { "" };
            format!("{id}: StateProbe match=0 next={next}{learner}\n")
        };
        self.0.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parsed_is_described() {
        let text = "v1 l2 r3 u4 v0";
        assert_eq!(parse(text).map(|changes| describe(&changes)).as_deref(), Ok(text));
        assert_eq!(parse("  "), Ok(Vec::new()));
        assert_eq!(parse("v1 x2"), Err("unknown input: x2".to_owned()));
        assert_eq!(parse("v"), Err("unknown token v".to_owned()));
        assert!(parse("vv").is_err_and(|error| error.ends_with("invalid syntax")));
    }
}
