//! What a replica says of itself, what it starts with, and which numbers it reasons about.

use super::harness::*;
use crate::id::{EntryId, Index, ReplicaId, Term, Tick};
use crate::raft::*;

#[test]
fn effects_that_ask_for_anything_are_not_empty() {
    assert!(Effects::default().is_empty());
    let edits: [fn(&mut Effects); 5] = [
        |it| it.send.push(message(MessageKind::Vote, 1, 2, 1)),
        |it| it.apply = Some((Index(1), Index(1))),
        |it| it.reads.push(ReadReady { seq: 1, index: Index(1) }),
        |it| it.fetch.push(Fetch { to: ReplicaId(2), first: Index(1) }),
        |it| it.leader_ready = true,
    ];
    for edit in edits {
        let mut effects = Effects::default();
        edit(&mut effects);
        assert!(!effects.is_empty(), "{effects:?}");
        effects.clear();
        assert!(effects.is_empty());
    }
}

#[test]
fn every_kind_of_message_is_known_by_its_code() {
    let known = (0..=255).filter_map(|code| {
        let kind = MessageKind::from_code(code)?;
        assert_eq!(kind as u8, code);
        Some(code)
    });
    assert!(known.eq(1..=15));
}

#[test]
fn sets_of_members_are_sorted_whichever_way_they_were() {
    for set in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        let members = Membership::of_voters(set.map(ReplicaId)).sorted();
        assert_eq!(members.incoming[..], [1, 2, 3].map(ReplicaId));
    }
    let twice = Membership::of_voters([1, 1, 2].map(ReplicaId)).sorted();
    assert_eq!(twice.incoming[..], [1, 2].map(ReplicaId));
}

#[test]
fn a_term_is_told_of_the_entries_that_are_in_the_log() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 2).expect("1 leads");
    cluster.settle();
    let term = cluster.status(1).term;
    let raft = &cluster.node(1).raft;
    assert_eq!([1, 3, 4].map(|index| raft.term_at(Index(index))), [Some(term), Some(term), None]);
    assert_eq!(raft.term_run(Index(1), Index(2)), (term, Index(2)));
    assert_eq!(raft.term_run(Index(2), Index(9)), (term, Index(3)));
}

/// Two of them must not make up for each other.
#[test]
fn messages_with_numbers_out_of_range_are_nobodys() {
    type Edit = fn(&mut Message);
    const MANY: u64 = 1 << 62;
    let edits: [Edit; 6] = [
        |it| it.term.0 = MANY,
        |it| it.entry.term.0 = MANY,
        |it| it.entry.index.0 = MANY,
        |it| it.commit.0 = MANY,
        |it| it.run_term.0 = MANY,
        |it| it.hint.0 = MANY,
    ];
    let cluster = Cluster::new(3);
    let raft = &cluster.node(1).raft;
    assert!(raft.is_sound(&message(MessageKind::Append, 2, 1, 5)));
    for one in &edits {
        for other in &edits {
            let mut message = message(MessageKind::Append, 2, 1, 5);
            one(&mut message);
            other(&mut message);
            assert!(!raft.is_sound(&message), "{message:?}");
        }
    }
}

fn failure(runs: &[(u64, u64)], edit: impl Fn(&mut Recovered)) -> Option<Failure> {
    let membership = Membership::of_voters([1, 2, 3].map(ReplicaId));
    let runs = runs.iter().map(|&(start, term)| TermRun { start: Index(start), term: Term(term) });
    let mut recovered = Recovered {
        hard_state: HardState { term: Term(9), ..HardState::default() },
        membership,
        runs: runs.collect(),
        last: Index(9),
        ..Recovered::default()
    };
    edit(&mut recovered);
    let config = Config { id: ReplicaId(1), ..test_config(7) };
    Raft::new(config, recovered, Tick(0)).status().failure
}

#[test]
fn what_contradicts_itself_is_not_started_with() {
    let nonsense = Some(Failure::RecoveredNonsense);
    let fine: [&[(u64, u64)]; 3] = [&[(1, 1)], &[(1, 1), (9, 9)], &[(1, 2), (3, 5), (4, 6)]];
    for runs in fine {
        assert_eq!(failure(runs, |_| {}), None, "{runs:?}");
    }
    let wrong: [&[(u64, u64)]; 7] = [
        &[],
        &[(2, 1)],
        &[(1, 1), (1, 2)],
        &[(1, 1), (3, 1)],
        &[(1, 2), (3, 1)],
        &[(1, 1), (10, 2)],
        &[(1, 10)],
    ];
    for runs in wrong {
        assert_eq!(failure(runs, |_| {}), nonsense, "{runs:?}");
    }
    let before = EntryId { term: Term(3), index: Index(4) };
    let behind = |runs: &[(u64, u64)], applied| {
        failure(runs, |it| {
            (it.first, it.before_first, it.applied) = (Index(5), before, Index(applied));
        })
    };
    assert_eq!(behind(&[(5, 3)], 4), None);
    assert_eq!(behind(&[(5, 2)], 4), nonsense, "a term never falls");
    assert_eq!(
        behind(&[(5, 3)], 3),
        Some(Failure::AppliedTooOld { applied: Index(3), first: Index(5) })
    );
    let empty = |it: &mut Recovered| {
        (it.first, it.before_first, it.last, it.applied) = (Index(5), before, Index(4), Index(4));
    };
    assert_eq!(failure(&[], empty), None);
    let forgetful = |it: &mut Recovered| {
        empty(it);
        it.hard_state.term = Term(2);
    };
    assert_eq!(failure(&[], forgetful), nonsense, "a snapshot's term was seen, too");
    assert_eq!(failure(&[(1, 1)], |it| it.first = Index(2)), nonsense);
    assert_eq!(failure(&[(2, 1)], |it| it.first = Index(2)), nonsense, "nothing lies before 2");
    assert_eq!(failure(&[], |it| it.last = Index(0)), None);
    let lost = Failure::EntriesLost { commit: Index(10), last: Index(9) };
    assert_eq!(failure(&[(1, 1)], |it| it.hard_state.commit = Index(10)), Some(lost));
    assert_eq!(failure(&[(1, 1)], |it| it.hard_state.term = Term(0)), nonsense);
}

#[test]
fn a_failure_tells_the_numbers_that_contradict_each_other() {
    let (one, other) = (Index(4711), Index(815));
    for failure in [
        Failure::CommittedConflict { at: one, commit: other },
        Failure::EntriesLost { commit: one, last: other },
        Failure::AppliedTooOld { applied: one, first: other },
    ] {
        let text = failure.to_string();
        assert!(text.contains("4711") && text.contains("815"), "{text}");
        assert!(text.ends_with("remove this replica and add a new one"), "{text}");
    }
    let nonsense = Failure::RecoveredNonsense.to_string();
    assert!(nonsense.contains("contradict one another"), "{nonsense}");
    let stopped = Failure::MachineStopped { after: one }.to_string();
    assert!(stopped.contains("after entry 4711"), "{stopped}");
    assert!(stopped.ends_with("start this node again"), "nothing is lost: {stopped}");
}

/// Of the published values of splitmix64, the lowest 31 bits.
#[test]
fn waits_are_drawn_as_their_generator_says() {
    for (seed, first) in [(0, 0xe220_a839_7b1d_cdaf), (1_234_567, 6_457_827_717_110_365_317)] {
        let config = Config { election_ticks: 1 << 31, ..test_config(seed) };
        let membership = Membership::of_voters([ReplicaId(1)]);
        let recovered = Recovered { membership, ..Recovered::default() };
        let wait = Raft::new(config, recovered, Tick(0)).deadline().0;
        assert_eq!(wait, (1 << 31) + first % (1 << 31), "{seed}");
    }
}

#[test]
fn a_replica_says_what_of_it_is_handed_out_and_what_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let says = |cluster: &Cluster| {
        let raft = &cluster.node(1).raft;
        (raft.is_settled(), raft.is_durable())
    };
    assert_eq!(says(&cluster), (true, true));
    cluster.propose(1, 1).expect("1 leads");
    assert_eq!(says(&cluster), (false, false));
    cluster.turn(1);
    assert_eq!(says(&cluster), (true, false), "it is being written");
    cluster.flush(1);
    assert_eq!(says(&cluster), (true, true));
}

#[test]
fn nobody_answers_itself() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let ignored = cluster.status(1).ignored;
    let mut acceptance = message(MessageKind::AppendResponse, 1, 1, 1);
    acceptance.entry.index = Index(1);
    cluster.inject(acceptance);
    assert_eq!(cluster.status(1).ignored, ignored + 1);
}

#[test]
fn a_wait_can_be_given_and_a_whole_new_one_asked_for() {
    let mut cluster = Cluster::new(3);
    let now = cluster.now;
    let raft = &mut cluster.node_mut(1).raft;
    raft.set_election_timeout(17);
    assert_eq!(raft.deadline(), now.plus(17));
    raft.reset_election_timer(Tick(5000));
    assert!((5100..=5200).contains(&raft.deadline().0), "{}", raft.deadline());
}
