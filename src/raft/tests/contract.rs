//! The rows of the contract that a single core can hold.

use crate::id::{Index, ReplicaId, Term, Tick};
use crate::raft::*;

use super::harness::{Cluster, entry, message, test_config};

#[test]
fn contract_row_3_missed_time_is_not_made_up_for() {
    let mut cluster = Cluster::new(3);
    cluster.now = cluster.now.plus(100_000);
    cluster.tick(1);
    assert_eq!(cluster.status(1).role, RoleKind::PreCandidate);
    cluster.turn(1);
    cluster.wire.clear();
    cluster.tick(1);
    cluster.turn(1);
    assert!(cluster.wire.is_empty(), "once, not a thousand times");
    assert!(cluster.node(1).raft.deadline() > cluster.now);

    cluster.elect(2);
    cluster.now = cluster.now.plus(90);
    cluster.tick(2);
    cluster.tick(2);
    cluster.turn(2);
    assert_eq!(cluster.sent(MessageKind::Heartbeat, 1).len(), 1, "one heartbeat for nine");
}

#[test]
fn contract_row_2_a_stalled_leader_does_not_believe_old_answers() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.pass(50);
    cluster.now = cluster.now.plus(5000);
    cluster.tick(1);
    assert_eq!(cluster.status(1).role, RoleKind::Follower);

    // With answers as fresh as the check, it stays.
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.pass(5000);
    assert!(cluster.leads(1));
}

#[test]
fn contract_row_4_a_leader_whose_disk_has_stopped_makes_room_for_another() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.held.insert(1);
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    let status = cluster.status(1);
    assert!(status.durable < status.commit, "the others have committed without its disk");
    cluster.pass(1000);
    assert!(!cluster.leads(1), "it answers nobody");
    assert!(cluster.leads(2) || cluster.leads(3), "one of the others took over");

    // A disk that is slow and works keeps its leader.
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.held.insert(1);
    for _ in 0..20 {
        cluster.propose(1, 1).expect("1 leads");
        cluster.settle();
        cluster.pass(80);
        assert!(cluster.flush(1));
    }
    assert!(cluster.leads(1));
}

#[test]
fn contract_row_5_and_6_a_role_is_told_once_and_first() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let told: Vec<_> = cluster.node(1).roles.iter().map(|r| (r.role, r.new_leader)).collect();
    let expected =
        [(RoleKind::PreCandidate, false), (RoleKind::Candidate, false), (RoleKind::Leader, true)];
    assert_eq!(told, expected);
    let leader = cluster.node(2).roles.last().copied().expect("2 has followed");
    assert_eq!((leader.leader, leader.new_leader), (ReplicaId(1), true));
    cluster.isolate(1);
    cluster.pass(130);
    let lost = cluster.node(1).roles.last().copied().expect("1 has stepped down");
    assert!(!lost.new_leader, "losing a leader is not finding one");
}

#[test]
fn contract_row_8_elected_is_not_ready() {
    let mut cluster = Cluster::new(3);
    cluster.held.insert(2);
    cluster.held.insert(3);
    cluster.campaign(1);
    cluster.settle();
    for id in [2, 3] {
        cluster.flush(id);
        cluster.turn(id);
    }
    cluster.settle();
    assert!(cluster.leads(1));
    let seq = cluster.read(1).expect("reads may come early");
    cluster.settle();
    assert!(!cluster.status(1).leader_ready && cluster.node(1).leader_ready == 0);
    assert!(cluster.node(1).reads_done.is_empty(), "and are held");
    cluster.held.clear();
    cluster.settle();
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    assert!(cluster.status(1).leader_ready);
    assert_eq!(cluster.node(1).leader_ready, 1, "told once");
    assert_eq!(cluster.node(1).reads_done, [ReadReady { seq, index: Index(1) }]);
}

#[test]
fn contract_row_9_without_a_leader_nothing_blocks() {
    let mut cluster = Cluster::new(3);
    let refused = Err(ProposeRefusal::NotLeader { leader: ReplicaId::NONE });
    assert_eq!(cluster.propose(1, 1), refused);
    assert_eq!(cluster.read(1), Err(ReadRefusal::NotLeader { leader: ReplicaId::NONE }));
    cluster.elect(2);
    let refused = Err(ProposeRefusal::NotLeader { leader: ReplicaId(2) });
    assert_eq!(cluster.propose(1, 1), refused);
}

#[test]
fn contract_row_12_strangers_and_strays_are_counted_and_ignored() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let before = cluster.status(1).term;
    for (kind, from, to, term) in [
        (MessageKind::AppendResponse, 9, 1, 99),
        (MessageKind::HeartbeatResponse, 9, 1, 1),
        (MessageKind::VoteResponse, 9, 1, 99),
        (MessageKind::Append, 2, 3, 99),
        (MessageKind::Append, 1, 1, 99),
        (MessageKind::Append, 0, 1, 99),
        (MessageKind::Heartbeat, 2, 1, u64::MAX),
        (MessageKind::Heartbeat, 2, 1, 0),
        (MessageKind::Heartbeat, 2, 1, 1),
    ] {
        let stray = message(kind, from, to, term);
        let now = cluster.now;
        assert_eq!(cluster.node_mut(1).raft.step(&stray, now), None);
    }
    assert_eq!((cluster.status(1).ignored, cluster.status(1).term), (9, before));
    assert!(cluster.leads(1));
}

#[test]
fn contract_row_13_a_lease_refuses_votes_unless_leadership_is_handed_over() {
    let config = Config { pre_vote: false, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
    cluster.elect(1);
    cluster.pass(10);
    let mut request = message(MessageKind::Vote, 3, 2, 5);
    request.entry = cluster.status(3).last;
    cluster.inject(request);
    assert_eq!(cluster.status(2).term, Term(1), "unseen");
    request.context = 1;
    cluster.inject(request);
    assert_eq!((cluster.status(2).term, cluster.status(2).vote), (Term(5), ReplicaId(3)));
}

#[test]
fn contract_row_13_forgetting_the_leader_ends_the_lease() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.pass(10);
    let now = cluster.now;
    cluster.isolate(1);
    cluster.node_mut(2).raft.forget_leader(now);
    cluster.node_mut(3).raft.forget_leader(now);
    cluster.elect(2);
}

#[test]
fn contract_row_13_a_replica_that_was_cut_off_finds_back() {
    let config = Config { pre_vote: false, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.pass(1000);
    assert!(cluster.status(3).term > cluster.status(1).term);
    cluster.cut.clear();
    cluster.pass(1000);
    let leader = cluster.status(3).leader;
    assert!(leader.is_some(), "3 follows, or leads");
    assert!(cluster.ids().all(|id| cluster.status(id).leader == leader));
}

#[test]
fn contract_row_18_nobody_is_woken_for_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 3).expect("1 leads");
    cluster.pass(50);
    for id in cluster.ids() {
        assert!(
            !cluster.node(id).raft.has_ready(),
            "{id} asks for something, and nothing happened"
        );
    }
    cluster.propose(1, 1).expect("1 leads");
    assert!(cluster.node(1).raft.has_ready());
}

#[test]
fn contract_row_20_nothing_is_applied_before_it_is_durable_here() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.held.insert(1);
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    let status = cluster.status(1);
    assert_eq!((status.commit, status.durable, status.applied), (Index(2), Index(1), Index(1)));
    assert_eq!(cluster.status(2).applied, Index(2));
    cluster.held.clear();
    cluster.settle();
    assert_eq!(cluster.status(1).applied, Index(2));
}

#[test]
fn contract_row_21_appends_travel_while_the_leader_writes() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 1).expect("1 leads");
    cluster.propose(1, 2).expect("1 leads");
    cluster.turn(1);
    assert_eq!(cluster.node(1).writes.len(), 1);
    for to in [2, 3] {
        let appends = cluster.sent(MessageKind::Append, to);
        assert_eq!(appends.iter().map(|m| m.count).collect::<Vec<_>>(), [3], "one for the turn");
    }
}

#[test]
fn contract_row_22_votes_wait_for_their_flush() {
    let mut cluster = Cluster::new(3);
    let mut request = message(MessageKind::Vote, 2, 1, 1);
    cluster.inject(request);
    cluster.turn(1);
    assert!(cluster.wire.is_empty(), "granted, and not said");
    cluster.flush(1);
    cluster.turn(1);
    assert!(!cluster.sent(MessageKind::VoteResponse, 2)[0].reject);
    // The same once more promises nothing new.
    cluster.wire.clear();
    cluster.inject(request);
    cluster.turn(1);
    assert_eq!(cluster.wire.len(), 1);
    // A refusal waits too: for the term it speaks of.
    cluster.wire.clear();
    (request.from, request.term) = (ReplicaId(3), Term(1));
    let mut append = message(MessageKind::Append, 2, 1, 1);
    (append.run_term, append.count) = (Term(1), 1);
    cluster.inject(append);
    cluster.inject(request);
    cluster.turn(1);
    assert!(cluster.wire.is_empty());
    cluster.flush(1);
    cluster.turn(1);
    assert!(cluster.sent(MessageKind::VoteResponse, 3)[0].reject);
}

#[test]
fn contract_row_22_acceptances_wait_for_everything_in_flight() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.held.insert(2);
    for _ in 0..3 {
        cluster.propose(1, 1).expect("1 leads");
        cluster.settle();
    }
    assert_eq!(cluster.node(2).writes.len(), 3);
    for index in 2..=4 {
        cluster.flush(2);
        cluster.turn(2);
        let told = cluster.sent(MessageKind::AppendResponse, 1);
        assert_eq!(told.last().map(|m| m.entry.index), Some(Index(index)), "no more, no less");
        cluster.wire.clear();
    }
}

#[test]
fn contract_row_25_a_commit_index_is_not_worth_a_write() {
    let mut cluster = Cluster::new(3);
    let mut append = message(MessageKind::Append, 1, 2, 1);
    (append.run_term, append.count) = (Term(1), 1);
    cluster.inject(append);
    cluster.turn(2);
    cluster.flush(2);
    cluster.turn(2);
    let mut heartbeat = message(MessageKind::Heartbeat, 1, 2, 1);
    heartbeat.commit = Index(1);
    cluster.inject(heartbeat);
    cluster.turn(2);
    assert_eq!((cluster.status(2).commit, cluster.node(2).applied), (Index(1), Index(1)));
    assert!(cluster.node(2).writes.is_empty());
    // It rides on the next write.
    (append.entry, append.count) = (entry(1, 1), 1);
    cluster.inject(append);
    cluster.turn(2);
    cluster.flush(2);
    assert_eq!(cluster.node(2).disk.hard_state.commit, Index(1));
}

#[test]
fn contract_row_33_no_campaign_with_a_committed_unapplied_change() {
    let mut cluster = Cluster::new(3);
    let mut append = message(MessageKind::Append, 2, 1, 1);
    (append.run_term, append.count, append.commit) = (Term(1), 1, Index(1));
    cluster.inject(append);
    cluster.node_mut(1).raft.note_config(Index(1));
    cluster.campaign(1);
    assert_eq!(cluster.status(1).role, RoleKind::Follower);
    cluster.turn(1);
    cluster.flush(1);
    cluster.turn(1);
    cluster.campaign(1);
    assert_eq!(cluster.status(1).role, RoleKind::PreCandidate);
}

#[test]
fn contract_row_38_an_acceptance_never_swallows_a_refusal() {
    let mut cluster = Cluster::new(3);
    let mut append = message(MessageKind::Append, 2, 1, 1);
    (append.run_term, append.count) = (Term(1), 1);
    cluster.inject(append);
    let mut gap = append;
    gap.entry = entry(1, 9);
    cluster.inject(gap);
    append.entry = entry(1, 1);
    cluster.inject(append);
    append.entry = entry(1, 2);
    cluster.inject(append);
    cluster.turn(1);
    cluster.flush(1);
    cluster.turn(1);
    let told = cluster.sent(MessageKind::AppendResponse, 2);
    let told: Vec<_> = told.iter().map(|m| (m.reject, m.entry.index.0, m.hint.0)).collect();
    assert_eq!(told, [(false, 1, 0), (true, 9, 1), (false, 3, 0)], "2 and 3 are one");
}

#[test]
fn contract_row_39_messages_to_one_follower_keep_their_order() {
    let config = Config { append_entries_max: 2, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
    cluster.elect(1);
    cluster.propose(1, 5).expect("1 leads");
    cluster.turn(1);
    let appends = cluster.sent(MessageKind::Append, 2);
    let sent: Vec<_> = appends.iter().map(|m| (m.entry.index.0, m.count)).collect();
    assert_eq!(sent, [(1, 2), (3, 2), (5, 1)]);
}

#[test]
fn safety_point_7_a_committed_entry_is_never_replaced() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    let now = cluster.now;
    let mut append = message(MessageKind::Append, 3, 2, 9);
    (append.entry, append.run_term, append.count) = (entry(1, 2), Term(9), 1);
    append.commit = Index(2);
    let raft = &mut cluster.node_mut(2).raft;
    let _ = raft.step(&append, now);
    assert_eq!(raft.status().failure, None, "after the commit index anything may come");
    let mut heartbeat = message(MessageKind::Heartbeat, 3, 2, 9);
    heartbeat.commit = Index(1000);
    let _ = raft.step(&heartbeat, now);
    let failure = Failure::EntriesLost { commit: Index(1000), last: Index(3) };
    assert_eq!(raft.status().failure, Some(failure));
    // From here on it takes part in nothing.
    assert_eq!(raft.deadline(), Tick(u64::MAX));
    assert_eq!(raft.campaign(now), None);
    assert!(raft.propose(1, 1).is_err() && raft.read().is_err() && !raft.has_ready());
    let _ = raft.step(&message(MessageKind::Vote, 3, 2, 99), now);
    assert_eq!(raft.status().term, Term(9));
}

#[test]
fn safety_point_13_a_full_window_of_lost_messages_recovers() {
    let config = Config { inflight_messages_max: 2, append_entries_max: 1, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
    cluster.elect(1);
    cluster.cut.insert((1, 2));
    cluster.propose(1, 6).expect("1 leads");
    cluster.settle();
    let peer = cluster.status(1).progress().find(|p| p.id.0 == 2).expect("a member");
    assert_eq!((peer.inflight_messages, peer.is_paused), (2, true));
    cluster.cut.clear();
    cluster.pass(30);
    assert_eq!(cluster.status(2).commit, cluster.status(1).last.index);
}

#[test]
fn safety_point_15_a_durable_commit_may_lag_what_was_applied() {
    let mut cluster = Cluster::new(1);
    cluster.elect(1);
    cluster.propose(1, 3).expect("1 leads");
    cluster.settle();
    assert_eq!(cluster.node(1).applied, Index(4));
    assert!(cluster.node(1).disk.hard_state.commit < Index(4));
    cluster.crash(1, 0, Index(4));
    assert_eq!(cluster.status(1).commit, Index(4));
    // Applied beyond the log is lost data, not lag.
    let disk = Recovered { applied: Index(5), ..Recovered::default() };
    let raft = Raft::new(test_config(1), disk, Tick(0));
    assert!(matches!(raft.status().failure, Some(Failure::EntriesLost { .. })));
}

#[test]
fn safety_point_17_leadership_is_handed_over_when_the_log_is_complete() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let now = cluster.now;
    cluster.held.insert(2);
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now));
    assert_eq!(cluster.propose(1, 1), Err(ProposeRefusal::Transferring));
    cluster.settle();
    assert!(cluster.leads(1), "2 has not everything on disk");
    cluster.held.clear();
    cluster.settle();
    assert!(cluster.leads(2));
    // One that never answers is given up.
    cluster.isolate(3);
    assert!(cluster.node_mut(2).raft.transfer(ReplicaId(3), now));
    cluster.pass(110);
    cluster.propose(2, 1).expect("2 leads on");
}

/// Also contract row 19: the brake is on bytes, before anything is queued.
#[test]
fn safety_point_20_the_budget_refuses_bytes_and_lets_go() {
    let config = Config { uncommitted_bytes_max: 4, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
    cluster.elect(1);
    cluster.propose(1, 9).expect("alone, even a large one");
    assert_eq!(cluster.propose(1, 1), Err(ProposeRefusal::Full));
    cluster.settle();
    assert_eq!(cluster.status(1).uncommitted_bytes, 0);
    cluster.propose(1, 1).expect("the budget is free again");
}

#[test]
fn entries_that_left_memory_are_fetched_once() {
    let mut cluster = Cluster::with_entries_out_of_memory();
    cluster.pass(50);
    let fetches = cluster.node(1).fetches.clone();
    assert_eq!(fetches, [Fetch { to: ReplicaId(3), first: Index(2) }]);
    assert_eq!(cluster.status(3).last.index, Index(1));
    cluster.node_mut(1).cache.missing_below = Index(0);
    cluster.node_mut(1).raft.on_fetched(ReplicaId(3));
    cluster.settle();
    assert_eq!(cluster.status(3).commit, Index(4));
}
