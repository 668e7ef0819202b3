//! Who stands, with what it asks for votes, and what it is told.

use crate::id::{EntryId, Index, ReplicaId, Term, Tick};
use crate::raft::state::Role;
use crate::raft::*;

use super::harness::{Cache, Cluster, entry, message, test_config};

/// What `raft` answers to a message at `now`; its disk is quick.
fn answers(raft: &mut Raft, message: &Message, now: Tick) -> Vec<Message> {
    let ready = |raft: &mut Raft| {
        let mut fx = Effects::default();
        raft.ready(now, &Cache { missing_below: Index(0) }, &mut fx);
        fx
    };
    assert_eq!(raft.step(message, now), None, "the log stays");
    let mut fx = ready(raft);
    if let Some(persist) = fx.persist {
        raft.on_durable(persist.seq, now);
        fx.send.append(&mut ready(raft).send);
    }
    fx.send
}

/// Asks for a vote in `term` for a log that ends with `last`.
fn request(kind: MessageKind, term: u64, last: EntryId) -> Message {
    let mut request = message(kind, 3, 2, term);
    request.entry = last;
    request
}

#[test]
fn a_leader_wakes_for_its_heartbeats_and_a_candidate_draws_a_new_wait() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    assert_eq!(cluster.node(1).raft.deadline(), Tick(1010));
    // On a grid of a quarter of the interval.
    cluster.now = Tick(1013);
    cluster.tick(1);
    assert_eq!(cluster.node(1).raft.deadline(), Tick(1022));
    cluster.now = Tick(1099);
    for pre_vote in [RoleKind::PreCandidate, RoleKind::Candidate] {
        let before = cluster.node(2).raft.deadline();
        cluster.campaign(2);
        let after = cluster.node(2).raft.deadline();
        assert!(after != before && (100..200).contains(&after.since(cluster.now)), "{pre_vote:?}");
        cluster.node_mut(2).raft.config.pre_vote = false;
        assert_eq!(cluster.status(2).role, pre_vote);
    }
}

/// Two of three stand in the same moment, the leader is gone; the logs of both end with `ends`.
fn two_stand(ends: [u64; 2]) -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.settle();
    let behind = if ends[0] < ends[1] { 2 } else { 3 };
    if ends[0] != ends[1] {
        cluster.isolate(behind);
        cluster.propose(1, 1).expect("1 leads");
        cluster.settle();
        cluster.cut.clear();
    }
    cluster.isolate(1);
    cluster.now = cluster.now.plus(200);
    for id in [2, 3] {
        assert_eq!(cluster.status(id).last.index, Index(ends[id as usize - 2]));
        cluster.campaign(id);
    }
    cluster.settle();
    cluster
}

#[test]
fn of_two_that_stand_in_the_same_moment_one_leads_at_once() {
    for (ends, leader) in [([1, 1], 3), ([2, 1], 2), ([1, 2], 3)] {
        let cluster = two_stand(ends);
        assert!(cluster.leads(leader), "logs end with {ends:?}");
        assert_eq!(cluster.status(leader).term, Term(2), "in the first term that was asked for");
    }
}

/// It has asked that one as well only if that is a voter: otherwise nobody would be granted anything.
#[test]
fn only_a_voter_is_refused_by_whoever_asks_itself() {
    for (voters, refuses) in [(vec![1, 2, 3], true), (vec![2, 3], false)] {
        let recovered = Recovered {
            hard_state: HardState { term: Term(1), vote: ReplicaId(3), commit: Index(4) },
            membership: Membership::of_voters(voters.into_iter().map(ReplicaId)),
            runs: vec![TermRun { start: Index(1), term: Term(1) }],
            last: Index(4),
            ..Recovered::default()
        };
        let mut raft = Raft::new(Config { id: ReplicaId(2), ..test_config(7) }, recovered, Tick(0));
        raft.campaign(Tick(200));
        let mut asked = message(MessageKind::PreVote, 1, 2, 2);
        asked.entry = entry(1, 4);
        let answers = answers(&mut raft, &asked, Tick(200));
        let answer = answers.iter().find(|it| it.kind == MessageKind::PreVoteResponse);
        assert_eq!(answer.map(|it| it.reject), Some(refuses));
        let role = if refuses { RoleKind::PreCandidate } else { RoleKind::Follower };
        assert_eq!(raft.status().role, role);
    }
}

#[test]
fn a_request_for_votes_says_what_is_known_to_be_committed_and_so_does_a_refusal() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 3).expect("1 leads");
    cluster.settle();
    cluster.campaign(2);
    cluster.turn(2);
    let asked = cluster.sent(MessageKind::PreVote, 1)[0];
    let committed = EntryId { term: asked.run_term, index: asked.commit };
    assert_eq!((asked.entry, committed), (entry(1, 4), entry(1, 4)));

    let follower = Recovered {
        hard_state: HardState { term: Term(1), vote: ReplicaId(1), commit: Index(1) },
        membership: Membership::of_voters((1..=3).map(ReplicaId)),
        runs: vec![TermRun { start: Index(1), term: Term(1) }],
        last: Index(4),
        ..Recovered::default()
    };
    let mut raft = Raft::new(Config { id: ReplicaId(2), ..test_config(7) }, follower, Tick(0));
    let mut behind = request(MessageKind::PreVote, 2, entry(1, 3));
    (behind.run_term, behind.commit) = (Term(1), Index(2));
    let [refusal] = answers(&mut raft, &behind, Tick(0))[..] else { panic!("one answer") };
    assert_eq!(raft.status().commit, Index(2), "its log holds what the candidate knows of");
    assert_eq!((refusal.reject, refusal.term, refusal.entry), (true, Term(1), entry(1, 2)));
    // Of another log, it is no news.
    (behind.run_term, behind.commit) = (Term(2), Index(3));
    answers(&mut raft, &behind, Tick(0));
    assert_eq!(raft.status().commit, Index(2));
    let granted = request(MessageKind::PreVote, 2, entry(1, 4));
    let [grant] = answers(&mut raft, &granted, Tick(0))[..] else { panic!("one answer") };
    assert_eq!((grant.reject, grant.term, grant.entry), (false, Term(2), EntryId::default()));
}

#[test]
fn a_vote_that_was_given_is_pre_granted_to_nobody_else_in_its_term() {
    let recovered = Recovered {
        hard_state: HardState { term: Term(3), vote: ReplicaId(1), commit: Index(0) },
        membership: Membership::of_voters((1..=3).map(ReplicaId)),
        ..Recovered::default()
    };
    let raft = Raft::new(Config { id: ReplicaId(2), ..test_config(7) }, recovered, Tick(0));
    for (term, granted) in [(3, false), (4, true)] {
        let asked = request(MessageKind::PreVote, term, entry(9, 9));
        let [answer] = answers(&mut raft.clone(), &asked, Tick(0))[..] else { panic!("one") };
        assert_eq!(answer.reject, !granted, "in term {term}");
    }
}

#[test]
fn an_own_vote_of_an_earlier_term_does_not_count_in_this_one() {
    let config = Config { pre_vote: false, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters([ReplicaId(1)]), config);
    cluster.campaign(1);
    cluster.turn(1);
    cluster.campaign(1);
    assert_eq!(cluster.status(1).term, Term(2));
    cluster.flush(1);
    assert_eq!(cluster.status(1).role, RoleKind::Candidate, "term 2 is not on the disk");
    cluster.turn(1);
    cluster.flush(1);
    assert!(cluster.leads(1));
}

#[test]
fn a_candidate_that_hears_of_a_later_term_by_a_refusal_follows_in_it() {
    for (kind, role) in [
        (MessageKind::PreVoteResponse, RoleKind::PreCandidate),
        (MessageKind::VoteResponse, RoleKind::Candidate),
    ] {
        let pre_vote = role == RoleKind::PreCandidate;
        let config = Config { pre_vote, ..test_config(7) };
        let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
        cluster.campaign(1);
        assert_eq!(cluster.status(1).role, role);
        let mut refusal = message(kind, 2, 1, 9);
        refusal.reject = true;
        cluster.inject(refusal);
        let status = cluster.status(1);
        assert_eq!((status.role, status.term), (RoleKind::Follower, Term(9)));
    }
}

#[test]
fn contract_row_13_an_old_leader_is_told_of_the_term_if_it_might_never_hear_of_it() {
    for (pre_vote, check_quorum, told) in
        [(true, true, true), (true, false, true), (false, true, true), (false, false, false)]
    {
        let config = Config { id: ReplicaId(2), pre_vote, check_quorum, ..test_config(7) };
        let recovered = Recovered {
            hard_state: HardState { term: Term(3), ..HardState::default() },
            membership: Membership::of_voters((1..=3).map(ReplicaId)),
            ..Recovered::default()
        };
        let raft = Raft::new(config, recovered, Tick(0));
        for kind in [MessageKind::Append, MessageKind::Heartbeat] {
            let said = answers(&mut raft.clone(), &message(kind, 1, 2, 2), Tick(0));
            let said: Vec<_> = said.iter().map(|it| (it.kind, it.term, it.reject)).collect();
            let tells = (MessageKind::AppendResponse, Term(3), false);
            assert_eq!(said, if told { vec![tells] } else { vec![] }, "{pre_vote} {check_quorum}");
        }
        let asked = request(MessageKind::PreVote, 2, entry(9, 9));
        let [answer] = answers(&mut raft.clone(), &asked, Tick(0))[..] else { panic!("one") };
        assert_eq!((answer.term, answer.reject), (Term(3), true));
    }
}

#[test]
fn who_promised_a_leader_its_lease_stands_only_when_called() {
    let lease = Some(Lease { drift_percent: 10 });
    let config = Config { lease, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters((1..=3).map(ReplicaId)), config);
    cluster.campaign(1);
    assert_eq!(cluster.status(1).role, RoleKind::Follower, "an earlier life may have promised");
    cluster.now = cluster.now.plus(100);
    cluster.elect(1);
    cluster.pass(20);
    cluster.campaign(2);
    assert_eq!(cluster.status(2).role, RoleKind::Follower);
    cluster.inject(message(MessageKind::TimeoutNow, 1, 2, 1));
    assert_eq!((cluster.status(2).role, cluster.status(2).term), (RoleKind::Candidate, Term(2)));
}

#[test]
fn what_was_promised_to_a_leader_is_kept_in_a_term_that_began_without_it() {
    for lease in [None, Some(Lease { drift_percent: 10 })] {
        let config = Config { lease, ..test_config(7) };
        let mut cluster = Cluster::with(Membership::of_voters((1..=3).map(ReplicaId)), config);
        cluster.now = cluster.now.plus(100);
        cluster.elect(1);
        cluster.pass(20);
        let Role::Follower { heard, .. } = cluster.node(2).raft.role else { panic!("2 follows") };
        // Term 2 has begun somewhere, and nobody leads it.
        cluster.inject(message(MessageKind::AppendResponse, 3, 2, 2));
        let status = cluster.status(2);
        assert_eq!((status.term, status.leader), (Term(2), ReplicaId::NONE));
        for (age, granted) in [(99, lease.is_none()), (100, true)] {
            let mut raft = cluster.node(2).raft.clone();
            let asked = request(MessageKind::Vote, 2, entry(1, 1));
            let said = answers(&mut raft, &asked, heard.plus(age));
            let vote = said.iter().find(|it| it.kind == MessageKind::VoteResponse);
            assert_eq!(vote.expect("an answer").reject, !granted, "{lease:?} {age}");
        }
    }
}

#[test]
fn a_call_to_take_over_waits_for_a_change_of_membership_and_ends_with_its_term() {
    let recovered = Recovered {
        hard_state: HardState { term: Term(3), vote: ReplicaId(1), commit: Index(5) },
        membership: Membership::of_voters((1..=3).map(ReplicaId)),
        runs: vec![TermRun { start: Index(1), term: Term(1) }],
        last: Index(5),
        ..Recovered::default()
    };
    let mut raft = Raft::new(Config { id: ReplicaId(2), ..test_config(7) }, recovered, Tick(0));
    raft.note_config(Index(5));
    let rest = |raft: &mut Raft, term| {
        for _ in 0..3 {
            answers(raft, &message(MessageKind::Heartbeat, 1, 2, term), Tick(0));
        }
    };
    rest(&mut raft, 3);
    answers(&mut raft, &message(MessageKind::TimeoutNow, 1, 2, 3), Tick(0));
    assert_eq!((raft.status().role, raft.deadline()), (RoleKind::Follower, Tick(0)));
    rest(&mut raft, 3);
    assert_eq!(raft.tick(Tick(200)), None);
    assert_eq!(raft.status().role, RoleKind::Follower, "the change is not applied");
    assert_eq!(raft.on_applied(Index(5)), None);
    assert_eq!(raft.tick(Tick(400)), None);
    let called = (RoleKind::Candidate, Term(4));
    assert_eq!((raft.status().role, raft.status().term), called, "nobody is asked beforehand");
    rest(&mut raft, 4);
    assert!(raft.rare.is_none(), "the call is forgotten");
    assert_eq!(raft.tick(Tick(600)), None);
    assert_eq!(raft.status().role, RoleKind::PreCandidate);
}

#[test]
fn a_handover_probes_a_voter_that_lacks_something_and_calls_one_that_lacks_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.pass(20);
    cluster.propose(1, 1).expect("1 leads");
    cluster.turn(1);
    cluster.wire.clear();
    let now = cluster.now;
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now));
    assert_eq!(cluster.status(1).transferee, Some(ReplicaId(2)));
    cluster.turn(1);
    assert_eq!(cluster.sent(MessageKind::Append, 2).len(), 1, "the entry may be lost");
    assert!(cluster.sent(MessageKind::TimeoutNow, 2).is_empty());
    assert!(!cluster.node_mut(1).raft.transfer(ReplicaId(9), now), "no voter of the group");
    cluster.settle();
    cluster.pass(20);

    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.pass(20);
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now));
    cluster.turn(1);
    assert!(cluster.sent(MessageKind::Append, 2).is_empty());
    assert_eq!(cluster.sent(MessageKind::TimeoutNow, 2).len(), 1);
    assert!(!cluster.node_mut(2).raft.transfer(ReplicaId(1), now), "2 does not lead");
}

/// The driver knows more than the silence tells.
#[test]
fn who_has_just_heard_its_leader_stands_if_it_is_told_to() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.campaign(2);
    assert_eq!(cluster.status(2).role, RoleKind::PreCandidate);
}

fn recovered(term: u64, commit: u64, applied: u64) -> Recovered {
    Recovered {
        hard_state: HardState { term: Term(term), vote: ReplicaId::NONE, commit: Index(commit) },
        membership: Membership::of_voters((1..=3).map(ReplicaId)),
        runs: vec![TermRun { start: Index(1), term: Term(1) }],
        last: Index(2),
        applied: Index(applied),
        ..Recovered::default()
    }
}

#[test]
fn contract_row_33_who_is_held_back_waits_as_long_as_before() {
    let mut raft = Raft::new(test_config(7), recovered(1, 2, 1), Tick(0));
    raft.note_config(Index(2));
    let deadline = raft.deadline();
    assert_eq!(raft.campaign(Tick(1)), None);
    assert_eq!((raft.status().role, raft.deadline()), (RoleKind::Follower, deadline));
}

#[test]
fn a_grant_left_over_from_an_earlier_attempt_counts_for_nothing() {
    let mut raft = Raft::new(test_config(7), recovered(5, 0, 0), Tick(0));
    raft.campaign(Tick(0));
    assert_eq!(raft.status().role, RoleKind::PreCandidate);
    raft.step(&message(MessageKind::PreVoteResponse, 2, 1, 5), Tick(0));
    assert_eq!(raft.status().role, RoleKind::PreCandidate, "it asked for term 6");
    raft.step(&message(MessageKind::PreVoteResponse, 2, 1, 6), Tick(0));
    assert_eq!(raft.status().role, RoleKind::Candidate);
}

#[test]
fn contract_row_13_a_leader_refuses_votes_until_it_looks_for_its_quorum() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let (raft, elected) = (&cluster.node(1).raft, cluster.now);
    assert!(raft.is_leased(elected) && raft.is_leased(elected.plus(99)));
    assert!(!raft.is_leased(elected.plus(100)));
}

#[test]
fn heartbeats_fall_on_a_grid_of_a_quarter_of_their_interval() {
    let config = Config { election_ticks: 400, heartbeat_ticks: 40, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters((1..=3).map(ReplicaId)), config);
    cluster.now = Tick(1003);
    cluster.elect(1);
    assert_eq!(cluster.node(1).raft.deadline(), Tick(1040));
}

/// It is no candidate of that term any more, so nobody has to answer.
#[test]
fn a_request_for_votes_that_waited_too_long_does_not_leave() {
    let config = Config { pre_vote: false, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters((1..=3).map(ReplicaId)), config);
    cluster.campaign(1);
    cluster.turn(1);
    cluster.inject(message(MessageKind::Heartbeat, 2, 1, 1));
    cluster.flush(1);
    cluster.turn(1);
    assert!(cluster.sent(MessageKind::Vote, 3).is_empty());
}
