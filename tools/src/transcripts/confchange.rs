//! Transcripts of the arithmetic of memberships: one after another, or the reason why not.
//!
//! ```text
//! simple                            enter-joint [autoleave=true]        leave-joint
//! v1 l2 r3 u4                       v1 l2 r3 u4
//! ```
//!
//! The log grows by one entry per command, so that one sees when a leader would have begun to feed
//! a member.

use outrigger::raft::Membership;

use super::changes::{self, Tracked};
use super::script::{Case, Nonsense, truth};

/// The membership so far. Lives for one file.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    membership: Membership,
    tracked: Tracked,
    last: u64,
}

impl Memberships {
    pub(super) fn run(&mut self, case: &Case) -> Result<String, Nonsense> {
        let last = self.last;
        self.last += 1;
        let changes = match changes::parse(&case.input) {
            Ok(changes) => changes,
            Err(error) => return Ok(error),
        };
        let next = match &*case.command.name {
            "simple" => self.membership.simple(&changes),
            "enter-joint" => {
                let auto_leave = case.command.value("autoleave").map_or(Ok(false), truth)?;
                self.membership.enter_joint(auto_leave, &changes)
            }
            "leave-joint" if !changes.is_empty() => {
                return Ok("this command takes no input\n".to_owned());
            }
            "leave-joint" => self.membership.leave_joint(),
            other => return Err(Nonsense(format!("unknown command {other:?}"))),
        };
        match next {
            Ok(next) => {
                self.tracked.follow(&changes, &next, last);
                self.membership = next;
                let membership = changes::describe_membership(&self.membership);
                Ok(format!("{membership}\n{}", self.tracked.describe(&self.membership)))
            }
            Err(error) => Ok(format!("{}\n", changes::describe_error(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::parse;
    use super::*;

    /// What the commands print, one after another.
    fn play(text: &str) -> Vec<String> {
        let mut memberships = Memberships::default();
        let run = |case: &Case| memberships.run(case).unwrap_or_else(|Nonsense(what)| what);
        parse(text).expect("sense").iter().map(run).collect()
    }

    #[test]
    fn a_demoted_voter_learns_after_the_joint_membership() {
        let text = "\
simple
v7
----

enter-joint autoleave=true
l7 v8
----

leave-joint
----
";
        let said = play(text);
        assert_eq!(said[0], "voters=(7)\n7: StateProbe match=0 next=1\n");
        let joint = "voters=(8)&&(7) learners_next=(7) autoleave\n\
                     7: StateProbe match=0 next=1\n8: StateProbe match=0 next=1\n";
        assert_eq!(said[1], joint);
        let left = "voters=(8) learners=(7)\n\
                    7: StateProbe match=0 next=1 learner\n8: StateProbe match=0 next=1\n";
        assert_eq!(said[2], left);
    }

    #[test]
    fn a_refused_change_leaves_things_as_they_are() {
        let text = "\
simple
v1
----

leave-joint
----

simple
v2 v3
----

simple
v2 r2 v2
----

confuse
----
";
        let said = play(text);
        assert_eq!(said[1], "can't leave a non-joint config\n");
        assert_eq!(said[2], "more than one voter changed without entering joint config\n");
        let voters = "voters=(1 2)\n1: StateProbe match=0 next=1\n2: StateProbe match=0 next=3\n";
        assert_eq!(said[3], voters);
        assert_eq!(said[4], "unknown command \"confuse\"");
    }
}
