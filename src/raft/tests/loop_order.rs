//! Rows of the contract about the order of what a turn asks for.

use crate::id::{Index, ReplicaId, Term};
use crate::raft::*;

use super::harness::{Cluster, entry, message};

/// Whether a message waits for the disk depends on what it promises, not on what its sender is: a
/// replica that led when the turn began answers its new leader after its flush all the same.
#[test]
fn contract_row_7_what_a_message_waits_for_does_not_depend_on_the_role() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 1).expect("1 leads");
    let mut append = message(MessageKind::Append, 2, 1, 5);
    (append.entry, append.run_term, append.count) = (entry(1, 1), Term(5), 1);
    cluster.inject(append);
    cluster.turn(1);
    assert_eq!(cluster.status(1).leader, ReplicaId(2));
    assert!(cluster.sent(MessageKind::AppendResponse, 2).is_empty(), "not durable yet");
    while cluster.flush(1) {}
    cluster.turn(1);
    let told = cluster.sent(MessageKind::AppendResponse, 2);
    assert_eq!(told.iter().map(|m| m.entry.index).collect::<Vec<_>>(), [Index(2)]);
}

/// Nobody hears a leader before its own driver has heard that it leads.
#[test]
fn contract_row_7_a_role_is_told_no_later_than_its_first_message() {
    let mut cluster = Cluster::new(3);
    cluster.campaign(1);
    for _ in 0..20 {
        for id in [1, 2, 3] {
            cluster.turn(id);
            let leads = cluster.node(id).roles.iter().any(|role| role.role == RoleKind::Leader);
            let speaks = cluster.wire.iter().any(|packet| {
                let message = &packet.message;
                let is_leaders =
                    matches!(message.kind, MessageKind::Append | MessageKind::Heartbeat);
                message.from == ReplicaId(id) && is_leaders
            });
            assert!(leads || !speaks, "{id} speaks as a leader and was not told to be one");
            while cluster.flush(id) {}
        }
        while let Some(packet) = cluster.wire.pop_front() {
            cluster.receive(&packet);
        }
    }
    assert!(cluster.leads(1) && cluster.status(1).leader_ready);
}

#[test]
fn contract_row_17_the_commit_index_never_goes_back() {
    let mut cluster = Cluster::new(3);
    let mut append = message(MessageKind::Append, 2, 1, 1);
    (append.run_term, append.count, append.commit) = (Term(1), 3, Index(3));
    cluster.inject(append);
    assert_eq!(cluster.status(1).commit, Index(3), "known before it is durable, or applied");
    assert_eq!(cluster.status(1).applied, Index(0));
    cluster.turn(1);
    cluster.flush(1);
    cluster.turn(1);
    assert_eq!(cluster.status(1).applied, Index(3));
    let mut late = message(MessageKind::Heartbeat, 2, 1, 1);
    for commit in [0, 1, 2] {
        late.commit = Index(commit);
        cluster.inject(late);
        assert_eq!(cluster.status(1).commit, Index(3));
    }
    // The first of the three once more, as a network may deliver it.
    (append.count, append.commit) = (1, Index(1));
    append.entry = entry(0, 0);
    let now = cluster.now;
    let _ = cluster.node_mut(1).raft.step(&append, now);
    assert_eq!(cluster.status(1).commit, Index(3));
    // A new leader that knows of less.
    let mut heartbeat = message(MessageKind::Heartbeat, 3, 1, 9);
    heartbeat.commit = Index(1);
    cluster.inject(heartbeat);
    assert_eq!((cluster.status(1).term, cluster.status(1).commit), (Term(9), Index(3)));
}

/// Write, then answer and apply, and only then stand for anything.
#[test]
fn contract_row_23_a_follower_writes_before_it_answers_and_applies_before_it_stands() {
    let mut cluster = Cluster::new(3);
    let mut append = message(MessageKind::Append, 2, 1, 1);
    (append.run_term, append.count, append.commit) = (Term(1), 1, Index(1));
    cluster.inject(append);
    cluster.node_mut(1).raft.note_config(Index(1));
    cluster.turn(1);
    assert_eq!(cluster.node(1).writes.len(), 1, "first the write");
    assert!(cluster.wire.is_empty(), "and nothing is said");
    assert_eq!(cluster.node(1).applied, Index(0));
    cluster.campaign(1);
    cluster.turn(1);
    assert_eq!(cluster.status(1).role, RoleKind::Follower, "the change is not applied");
    cluster.flush(1);
    cluster.turn(1);
    assert_eq!(cluster.sent(MessageKind::AppendResponse, 2).len(), 1);
    assert_eq!(cluster.node(1).applied, Index(1));
    cluster.campaign(1);
    assert_eq!(cluster.status(1).role, RoleKind::PreCandidate);
}

/// Neither its own disk, nor a follower's, nor what is under way holds a leader's next message up.
#[test]
fn contract_row_32_a_leader_waits_for_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.held.extend([1, 2, 3]);
    for index in 2..=5 {
        cluster.wire.clear();
        cluster.propose(1, 1).expect("1 leads");
        cluster.turn(1);
        for to in [2, 3] {
            let appends = cluster.sent(MessageKind::Append, to);
            let sent: Vec<_> = appends.iter().map(|m| (m.entry.index.0 + 1, m.count)).collect();
            assert_eq!(sent, [(index, 1)], "to {to}, with {} writes open", index - 1);
        }
    }
    assert_eq!(cluster.node(1).writes.len(), 4, "none of them has finished");
    assert_eq!(cluster.status(1).commit, Index(1));
}
