//! Transcripts of the arithmetic of quorums: how far a majority, or two, agree, and who has won.
//!
//! ```text
//! committed cfg=(1,2,3) [cfgj=(2,3,4)|zero] idx=(5,_,7,…)
//! vote      cfg=(1,2,3) [cfgj=(2,3,4)|zero] votes=(y,n,_,…)
//! ```
//!
//! Answers are given in the order in which voters are first named; `_` is a voter that has not
//! answered. Every case is computed in several ways that must agree; if ours do not, it is said in
//! the output, which then differs from the transcript.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use outrigger::id::ReplicaId;
use outrigger::raft::Membership;
use outrigger::raft::quorum::{self, VoteResult};

use super::script::{Case, Nonsense, number};

/// Who answered what.
type Answers = BTreeMap<u64, u64>;

/// Against and in favour, where answers are votes.
const NO: u64 = 1;
const YES: u64 = 2;

pub(super) fn run(case: &Case) -> Result<String, Nonsense> {
    let question = Question::parse(case)?;
    let voters: BTreeSet<u64> =
        question.incoming.iter().chain(&question.outgoing).copied().collect();
    if voters.len() != question.given.len() {
        let voters: Vec<_> = voters.iter().map(|id| format!("{id}:{{}}")).collect();
        let given: Vec<_> = question.given.iter().map(|&given| index(given)).collect();
        return Ok(format!(
            "error: mismatched input (explicit or _) for voters map[{}]: [{}]\n",
            voters.join(" "),
            given.join(" ")
        ));
    }
    match &*case.command.name {
        "committed" => Ok(committed(&question, &voters)),
        "vote" => Ok(vote(&question)),
        other => Err(Nonsense(format!("unknown command {other:?}"))),
    }
}

struct Question {
    incoming: Vec<u64>,
    /// `Some` asks for a joint quorum, even if it is empty.
    joint: bool,
    outgoing: Vec<u64>,
    /// Answers as they are written; zero for none.
    given: Vec<u64>,
    answers: Answers,
}

impl Question {
    fn parse(case: &Case) -> Result<Self, Nonsense> {
        let (mut incoming, mut outgoing, mut joint) = (Vec::new(), Vec::new(), false);
        let (mut indexes, mut votes) = (Vec::new(), Vec::new());
        for argument in &case.command.arguments {
            for value in &argument.values {
                match &*argument.key {
                    "cfg" => incoming.push(number(value)?),
                    "cfgj" => {
                        joint = true;
                        if value != "zero" {
                            outgoing.push(number(value)?);
                        } else if argument.values.len() > 1 {
                            return Err(Nonsense("zero stands alone".to_owned()));
                        }
                    }
                    "idx" if value == "_" => indexes.push(0),
                    "idx" => match number(value)? {
                        0 => return Err(Nonsense("an index is not 0".to_owned())),
                        index => indexes.push(index),
                    },
                    "votes" => votes.push(match &**value {
                        "y" => YES,
                        "n" => NO,
                        "_" => 0,
                        other => return Err(Nonsense(format!("unknown vote {other:?}"))),
                    }),
                    other => return Err(Nonsense(format!("unknown argument {other:?}"))),
                }
            }
        }
        let given = if case.command.name == "vote" { votes } else { indexes };
        let (mut answers, mut seen) = (Answers::new(), BTreeSet::new());
        let mut next = given.iter();
        for &id in incoming.iter().chain(&outgoing) {
            if seen.insert(id)
                && let Some(&answer) = next.next()
                && answer > 0
            {
                answers.insert(id, answer);
            }
        }
        Ok(Self { incoming, joint, outgoing, given, answers })
    }

    fn membership(&self) -> Membership {
        membership(&self.incoming, &self.outgoing)
    }
}

fn membership(incoming: &[u64], outgoing: &[u64]) -> Membership {
    let ids = |ids: &[u64]| ids.iter().map(|&id| ReplicaId(id)).collect();
    Membership { incoming: ids(incoming), outgoing: ids(outgoing), ..Membership::default() }
        .sorted()
}

fn agreed(membership: &Membership, answers: &Answers) -> u64 {
    quorum::agreed(membership, |id| answers.get(&id.0).copied().unwrap_or(0))
}

fn committed(question: &Question, voters: &BTreeSet<u64>) -> String {
    let (incoming, outgoing, answers) = (&question.incoming, &question.outgoing, &question.answers);
    let agreed_by = |incoming: &[u64], outgoing: &[u64]| {
        agreed(&membership(incoming, outgoing), &question.answers)
    };
    let mut out = diagram(voters, answers);
    let result = agreed_by(incoming, outgoing);
    let mut check = |other: u64, way: &str| {
        if other != result {
            let _ = writeln!(out, "{} <-- {way}", index(other));
        }
    };
    if question.joint {
        check(agreed_by(outgoing, incoming), "via symmetry");
    } else {
        check(counted(voters, answers), "via alternative computation");
        check(agreed_by(incoming, &[]), "via zero-joint quorum");
        check(agreed_by(incoming, incoming), "via self-joint quorum");
        for (&id, &answer) in answers.iter().filter(|&(_, &answer)| answer < result) {
            // Whoever is below the result has no part in it.
            for lowered in [answer - 1, 0] {
                let mut answers = answers.clone();
                answers.insert(id, lowered);
                let way = format!("overlaying {id}->{lowered}");
                check(agreed(&question.membership(), &answers), &way);
            }
        }
    }
    out + &index(result) + "\n"
}

/// The greatest index that more than half of the voters have reached, by counting.
fn counted(voters: &BTreeSet<u64>, answers: &Answers) -> u64 {
    if voters.is_empty() {
        return u64::MAX;
    }
    let reached = |index: u64| answers.values().filter(|&&answer| answer >= index).count();
    let agreed = answers.values().copied().filter(|&index| reached(index) > voters.len() / 2);
    agreed.max().unwrap_or(0)
}

fn vote(question: &Question) -> String {
    let outcome = |membership: &Membership| {
        quorum::vote_result(membership, |id| question.answers.get(&id.0).map(|&vote| vote == YES))
    };
    let result = outcome(&question.membership());
    let mut out = String::new();
    let swapped = outcome(&membership(&question.outgoing, &question.incoming));
    if question.joint && swapped != result {
        let _ = writeln!(out, "{} <-- via symmetry", verdict(swapped));
    }
    out + verdict(result) + "\n"
}

fn verdict(result: VoteResult) -> &'static str {
    match result {
        VoteResult::Pending => "VotePending",
        VoteResult::Lost => "VoteLost",
        VoteResult::Won => "VoteWon",
    }
}

/// An empty majority agrees on everything.
fn index(index: u64) -> String {
    if index == u64::MAX { "∞".to_owned() } else { index.to_string() }
}

/// One line per voter; its bar is as long as there are voters with a smaller index.
fn diagram(voters: &BTreeSet<u64>, answers: &Answers) -> String {
    if voters.is_empty() {
        return "<empty majority quorum>".to_owned();
    }
    let width = voters.len();
    let reached = |id: &u64| answers.get(id).copied().unwrap_or(0);
    let mut out = format!("{:width$}    idx\n", "");
    for id in voters {
        let own = reached(id);
        let bar = if answers.contains_key(id) {
            let longer = voters.iter().filter(|other| reached(other) < own).count();
            format!("{}>{:rest$}", "x".repeat(longer), "", rest = width - longer)
        } else {
            format!("?{:width$}", "")
        };
        let _ = writeln!(out, "{bar} {own:5}    (id={id})");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::script::parse;
    use super::*;

    fn answer(command: &str) -> String {
        let case = &parse(&format!("{command}\n----\n")).expect("sense")[0];
        run(case).unwrap_or_else(|Nonsense(what)| what)
    }

    #[test]
    fn a_majority_is_drawn_and_counted() {
        let drawn =
            "       idx\nxx>     40    (id=2)\nx>      20    (id=4)\n?        0    (id=6)\n20\n";
        assert_eq!(answer("committed cfg=(2,4,6) idx=(40,20,_)"), drawn);
        assert_eq!(answer("committed"), "<empty majority quorum>∞\n");
    }

    #[test]
    fn a_joint_quorum_needs_both_halves() {
        let both = answer("committed cfg=(1,2) cfgj=(2,3) idx=(9,8,_)");
        assert_eq!(both.lines().last(), Some("0"));
        assert_eq!(answer("vote cfg=(1,2) cfgj=(2,3) votes=(y,y,_)"), "VotePending\n");
        assert_eq!(answer("vote cfg=(1,2) cfgj=(2,3) votes=(y,y,y)"), "VoteWon\n");
        assert_eq!(answer("vote cfg=(1,2) cfgj=zero votes=(n,_)"), "VoteLost\n");
    }

    #[test]
    fn answers_must_fit_the_voters() {
        let wrong = "error: mismatched input (explicit or _) for voters map[1:{} 2:{}]: [7]\n";
        assert_eq!(answer("committed cfg=(1,2) idx=(7)"), wrong);
        assert_eq!(answer("elect"), "unknown command \"elect\"");
        assert_eq!(answer("vote cfg=(1) votes=(maybe)"), "unknown vote \"maybe\"");
    }
}
