//! What a follower takes from its leader, and what it takes from nobody.

use crate::id::{Index, ReplicaId, Term, Tick};
use crate::raft::*;

use super::harness::{Cache, Cluster, entry, message, test_config};

/// Replica 2 of three with five entries of term 1, all durable, of which `commit` are committed.
fn follower(commit: u64) -> Raft {
    let recovered = Recovered {
        hard_state: HardState { term: Term(1), vote: ReplicaId(1), commit: Index(commit) },
        membership: Membership::of_voters((1..=3).map(ReplicaId)),
        runs: vec![TermRun { start: Index(1), term: Term(1) }],
        last: Index(5),
        ..Recovered::default()
    };
    Raft::new(Config { id: ReplicaId(2), ..test_config(7) }, recovered, Tick(0))
}

fn ready(raft: &mut Raft) -> Effects {
    let mut fx = Effects::default();
    raft.ready(Tick(0), &Cache { missing_below: Index(0) }, &mut fx);
    fx
}

/// What it does about a message: the change of its log, and what it says at once.
fn told(raft: &mut Raft, message: &Message) -> (Option<LogChange>, Vec<Message>) {
    let change = raft.step(message, Tick(0));
    (change, ready(raft).send)
}

/// Entries of `run_term` behind `previous`, in term 3.
fn append(previous: (u64, u64), run_term: u64, count: u32) -> Message {
    let mut append = message(MessageKind::Append, 1, 2, 3);
    append.entry = entry(previous.0, previous.1);
    (append.run_term, append.count) = (Term(run_term), count);
    append
}

#[test]
fn what_is_held_already_is_neither_taken_nor_written_again() {
    let mut raft = follower(0);
    assert_eq!(told(&mut raft, &append((1, 1), 1, 3)).0, None);
    assert_eq!((raft.status().last, raft.status().durable), (entry(1, 5), Index(5)));
    let (first, source) = (Index(6), Source::Message { skip: 2 });
    let change = told(&mut raft, &append((1, 3), 1, 4)).0;
    assert_eq!(change, Some(LogChange { first, count: 2, source }));
    assert_eq!((raft.status().last, raft.status().durable), (entry(1, 7), Index(5)));
}

#[test]
fn an_append_whose_terms_fall_or_lie_ahead_of_its_leader_is_nobodys() {
    let mut raft = follower(0);
    for (ignored, (previous_term, run_term)) in (1..).zip([(2, 1), (1, 4)]) {
        let (change, said) = told(&mut raft, &append((previous_term, 5), run_term, 1));
        assert_eq!((change, said.len(), raft.status().ignored), (None, 0, ignored));
        assert_eq!(raft.status().last, entry(1, 5));
    }
    assert!(told(&mut raft, &append((1, 5), 3, 1)).0.is_some(), "its own term is none ahead");
}

#[test]
fn contract_row_12_a_failed_replica_says_nothing_more() {
    let mut raft = follower(2);
    told(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 3));
    let mut heartbeat = message(MessageKind::Heartbeat, 1, 2, 3);
    heartbeat.commit = Index(6);
    assert_eq!(told(&mut raft, &heartbeat), (None, vec![]));
    let failure = Failure::EntriesLost { commit: Index(6), last: Index(5) };
    let status = raft.status();
    assert_eq!((status.failure, status.leader), (Some(failure), ReplicaId::NONE));
    assert_eq!(raft.deadline(), Tick(u64::MAX));
    assert!(raft.tick(Tick(10_000)).is_none() && raft.campaign(Tick(10_000)).is_none());
    assert_eq!(told(&mut raft, &append((1, 5), 3, 1)), (None, vec![]));
    assert!(!raft.has_ready());
    assert_eq!((raft.status().ignored, raft.status().last), (1, entry(1, 5)));
    raft.stop(Tick(0));
    assert_eq!(raft.status().failure, Some(failure), "what came first stays");
}

#[test]
fn safety_point_14_an_announcement_commits_what_the_log_holds_and_nothing_else() {
    let announced = |commit: u64, (term, index): (u64, u64)| {
        let mut raft = follower(commit);
        // The term is written before anything is said in it.
        told(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 3));
        raft.on_durable(PersistSeq(1), Tick(0));
        let mut snapshot = message(MessageKind::Snapshot, 1, 2, 3);
        snapshot.entry = entry(term, index);
        let (change, said) = told(&mut raft, &snapshot);
        assert_eq!(change, None);
        let said: Vec<_> = said.iter().map(|it| (it.kind, it.reject, it.entry.index.0)).collect();
        (raft.status().commit.0, raft.status().ignored, said)
    };
    let accepted = |index| vec![(MessageKind::AppendResponse, false, index)];
    assert_eq!(announced(2, (1, 4)), (4, 0, accepted(4)));
    assert_eq!(announced(2, (1, 2)), (2, 0, accepted(2)));
    assert_eq!(announced(4, (1, 2)), (4, 0, accepted(4)), "it has more already");
    assert_eq!(announced(2, (2, 4)), (2, 1, vec![]), "the data must come first");
    assert_eq!(announced(2, (1, 6)), (2, 1, vec![]));
}

#[test]
fn a_leader_believes_no_other_leader_of_its_term() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let term = cluster.status(1).term.0;
    let claims = [MessageKind::Append, MessageKind::Heartbeat, MessageKind::Snapshot];
    for (ignored, kind) in (1..).zip(claims) {
        cluster.inject(message(kind, 2, 1, term));
        assert!(cluster.leads(1));
        assert_eq!(cluster.status(1).ignored, ignored);
    }
    cluster.turn(1);
    assert!(cluster.wire.is_empty(), "nor does it answer");
}

#[test]
fn answers_to_a_role_that_is_over_change_nothing() {
    let mut raft = follower(2);
    told(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 3));
    let before = raft.status().role;
    for kind in [
        MessageKind::AppendResponse,
        MessageKind::HeartbeatResponse,
        MessageKind::PreVoteResponse,
        MessageKind::VoteResponse,
    ] {
        assert_eq!(told(&mut raft, &message(kind, 3, 2, 3)), (None, vec![]));
    }
    assert_eq!((raft.status().role, raft.status().ignored), (before, 0), "nor are they strays");
    // What confirms reads comes from the leader alone.
    for (ignored, from) in [(0, 1), (1, 3)] {
        told(&mut raft, &message(MessageKind::ReadIndexResponse, from, 2, 3));
        assert_eq!(raft.status().ignored, ignored);
    }
    // Whoever stands already is not called.
    raft.campaign(Tick(500));
    assert_eq!(raft.status().role, RoleKind::PreCandidate);
    assert_eq!(raft.step(&message(MessageKind::TimeoutNow, 1, 2, 3), Tick(500)), None);
    assert_eq!((raft.status().role, raft.status().term), (RoleKind::PreCandidate, Term(3)));
}

#[test]
fn an_append_in_front_of_what_is_committed_is_answered_with_all_that_is() {
    let mut raft = follower(4);
    // The term is written before anything is said in it.
    told(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 3));
    raft.on_durable(PersistSeq(1), Tick(0));
    for previous in [(1, 2), (2, 2)] {
        let (change, said) = told(&mut raft, &append(previous, 3, 0));
        let said: Vec<_> = said.iter().map(|it| (it.kind, it.reject, it.entry.index.0)).collect();
        assert_eq!((change, said), (None, vec![(MessageKind::AppendResponse, false, 4)]));
    }
}

#[test]
fn who_follows_nobody_asks_nobody_to_read() {
    let mut raft = follower(2);
    assert_eq!(raft.read_here(), Err(ReadRefusal::NotLeader { leader: ReplicaId::NONE }));
    told(&mut raft, &message(MessageKind::Heartbeat, 1, 2, 3));
    assert!(raft.read_here().is_ok());
}
