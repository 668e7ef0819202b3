//! A follower whose log is gone from its leader's (Raft §7).

use crate::id::{Index, ReplicaId};
use crate::raft::*;

use super::harness::{Cluster, entry, message};

fn progress(cluster: &Cluster, of: u64) -> ReplicaProgress {
    let found = cluster.status(1).progress().find(|peer| peer.id == ReplicaId(of));
    found.expect("1 leads and knows it")
}

/// 3 was away while ten entries were committed and forgotten.
fn behind() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.propose(1, 10).expect("1 leads");
    cluster.settle();
    let applied = cluster.status(1).applied;
    cluster.node_mut(1).raft.compact(applied);
    cluster
}

#[test]
fn a_follower_that_was_away_past_the_log_comes_back_by_snapshot() {
    let mut cluster = behind();
    cluster.pass(50);
    assert!(cluster.wire.is_empty() && cluster.node(3).restored == 0);
    cluster.cut.clear();
    cluster.pass(50);
    assert_eq!(cluster.node(3).restored, 1, "one snapshot");
    assert_eq!(progress(&cluster, 3).state, ProgressState::Replicate);
    let status = cluster.status(3);
    assert_eq!((status.first, status.applied), (Index(12), Index(11)));
    cluster.propose(1, 2).expect("1 leads");
    cluster.settle();
    assert_eq!(cluster.status(3).commit, Index(13), "and goes on from the log");
}

#[test]
fn nothing_is_sent_until_a_snapshot_is_taken_or_failed() {
    let mut cluster = behind();
    cluster.cut.clear();
    cluster.now = cluster.now.plus(10);
    cluster.tick(1);
    cluster.turn(1);
    while !cluster.sent(MessageKind::Heartbeat, 3).is_empty()
        || cluster.sent(MessageKind::Snapshot, 3).is_empty()
    {
        let packet = cluster.wire.pop_front().expect("a heartbeat brings the snapshot about");
        cluster.receive(&packet);
        for id in cluster.ids() {
            cluster.turn(id);
        }
    }
    cluster.wire.clear();
    assert!(matches!(progress(&cluster, 3).state, ProgressState::Snapshot { .. }));
    cluster.pass(50);
    assert_eq!(cluster.node(3).restored, 0, "it is not sent again by itself");
    cluster.node_mut(1).raft.on_snapshot_failed(ReplicaId(3));
    cluster.pass(50);
    assert_eq!(cluster.node(3).restored, 1);
}

#[test]
fn safety_point_14_what_is_held_already_is_not_replaced() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 5).expect("1 leads");
    cluster.settle();
    let term = cluster.status(1).term.0;
    let mut snapshot = message(MessageKind::Snapshot, 1, 2, term);
    snapshot.entry = entry(term, 4);
    let (now, membership) = (cluster.now, cluster.membership.clone());
    let last = cluster.status(2).last;
    let restored = cluster.node_mut(2).raft.restore(&snapshot, membership.clone(), now);
    assert_eq!((restored, cluster.status(2).last), (Restored::No, last));

    // Nor is a snapshot of a group that this replica does not belong to.
    snapshot.entry = entry(term, 90);
    let others = Membership::of_voters([ReplicaId(1), ReplicaId(3)]);
    let restored = cluster.node_mut(2).raft.restore(&snapshot, others, now);
    assert_eq!((restored, cluster.status(2).ignored), (Restored::No, 1));

    // Nor one that an old leader sends; it is told so.
    snapshot.term = crate::id::Term(term - 1);
    let restored = cluster.node_mut(2).raft.restore(&snapshot, membership, now);
    assert_eq!(restored, Restored::No);
}

#[test]
fn safety_point_14_a_snapshot_that_matches_the_log_commits_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 3).expect("1 leads");
    cluster.turn(1);
    for packet in std::mem::take(&mut cluster.wire) {
        cluster.receive(&packet);
    }
    let (term, commit) = (cluster.status(2).term.0, cluster.status(2).commit);
    assert!(commit < Index(4) && cluster.status(2).last.index == Index(4));
    let mut snapshot = message(MessageKind::Snapshot, 1, 2, term);
    snapshot.entry = entry(term, 4);
    let (now, membership) = (cluster.now, cluster.membership.clone());
    let restored = cluster.node_mut(2).raft.restore(&snapshot, membership, now);
    assert_eq!((restored, cluster.status(2).commit), (Restored::No, Index(4)));
    assert_eq!(cluster.status(2).first, Index(1), "the log stays");
}

#[test]
fn a_snapshot_supersedes_writes_in_flight() {
    let mut cluster = behind();
    // 3 has accepted entries of a leader nobody followed, and is still writing them.
    cluster.held.insert(3);
    let mut append = message(MessageKind::Append, 2, 3, 9);
    append.entry = entry(1, 1);
    (append.count, append.run_term) = (3, crate::id::Term(9));
    cluster.inject(append);
    cluster.turn(3);
    let mut snapshot = message(MessageKind::Snapshot, 1, 3, 10);
    snapshot.entry = entry(1, 11);
    let (now, membership) = (cluster.now, cluster.membership.clone());
    let node = cluster.node_mut(3);
    assert_eq!(node.raft.restore(&snapshot, membership, now), Restored::Yes);
    let status = node.raft.status();
    assert_eq!((status.last, status.durable, status.applied), (entry(1, 11), Index(11), Index(11)));
    // The old write comes back and moves nothing.
    let change = node.raft.on_durable(PersistSeq(2), now);
    assert_eq!((change, node.raft.status().durable), (None, Index(11)));
}
