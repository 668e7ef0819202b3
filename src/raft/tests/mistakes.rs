//! Known mistakes of others, by their number in the project's list. Each of these tests fails if
//! the mistake is put back. Mistakes 3, 4 and 8 also have tests beside the code they concern; 6 and
//! 9 concern membership changes, which are not here yet.

use crate::id::{Index, ReplicaId, Tick};
use crate::raft::*;

use super::harness::{Cluster, entry, message, test_config};

/// A deposed leader must not confirm a read with echoes of an earlier one.
#[test]
fn mistake_1_late_echoes_do_not_confirm_new_reads() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    // A first read is out; its echoes are on the wire.
    let first = cluster.read(1).expect("1 leads");
    cluster.turn(1);
    let heartbeat = cluster.sent(MessageKind::Heartbeat, 2)[0];
    assert_eq!(heartbeat.context, first);
    cluster.settle();
    assert_eq!(cluster.node(1).reads_done.len(), 1);

    // 1 is cut off; 2 leads and commits.
    cluster.isolate(1);
    cluster.now = cluster.now.plus(100);
    cluster.elect(2);
    cluster.propose(2, 1).expect("2 leads");
    cluster.settle();

    // The client asks 1 again. Old echoes come late, and twice.
    let second = cluster.read(1).expect("1 still believes that it leads");
    assert!(second > first, "a number is used once");
    for from in [2, 3, 2, 3] {
        let mut echo = message(MessageKind::HeartbeatResponse, from, 1, 1);
        echo.context = first;
        cluster.inject(echo);
        cluster.turn(1);
    }
    assert_eq!(cluster.node(1).reads_done.len(), 1, "the second read is not confirmed");
    cluster.cut.clear();
    cluster.pass(200);
    assert!(!cluster.leads(1));
    assert_eq!(cluster.node(1).reads_done.len(), 1, "nor ever");
}

/// The sole voter of a group with a learner must not lead a term it might forget.
#[test]
fn mistake_2_a_sole_voter_waits_for_its_own_vote() {
    let membership = Membership::of_voters([ReplicaId(1)]).with_learners([ReplicaId(2)]);
    let mut cluster = Cluster::with(membership, test_config(7));
    cluster.campaign(1);
    cluster.turn(1);
    assert_eq!(cluster.status(1).role, RoleKind::Candidate);
    assert!(cluster.wire.is_empty(), "nothing of the term leaves before the term is durable");
    cluster.flush(1);
    assert!(cluster.leads(1));
    cluster.turn(1);
    assert_eq!(cluster.sent(MessageKind::Append, 2).len(), 1, "now it may");
    // Its own write of the first entry is still in flight, so nothing is committed, even though
    // the learner has it.
    cluster.held.insert(1);
    cluster.settle();
    assert_eq!(cluster.status(1).commit, Index(0));
    cluster.held.clear();
    cluster.settle();
    assert_eq!(cluster.status(2).commit, Index(1));
}

/// As mistake 2, one step further: grants given to a request must not outlive what it boasted of.
#[test]
fn a_request_for_votes_waits_for_the_term_it_opens() {
    let config = Config { pre_vote: false, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
    cluster.campaign(1);
    cluster.turn(1);
    assert!(cluster.wire.is_empty());
    cluster.crash(1, 0, Index(0));
    assert_eq!(cluster.status(1).term.0, 0, "the term is forgotten, and nobody was told of it");
    cluster.campaign(1);
    cluster.turn(1);
    cluster.flush(1);
    cluster.turn(1);
    assert_eq!(cluster.sent(MessageKind::Vote, 2).len(), 1);
}

#[test]
fn mistake_3_next_stays_above_matched() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 4).expect("1 leads");
    cluster.settle();
    cluster.node_mut(1).raft.on_unreachable(ReplicaId(2));
    // Refusals from before anything matched arrive late, in both states.
    for rejected in 0..=6 {
        let mut refusal = message(MessageKind::AppendResponse, 2, 1, 1);
        (refusal.entry, refusal.reject) = (entry(0, rejected), true);
        cluster.inject(refusal);
        let peer = cluster.status(1).progress().find(|p| p.id.0 == 2).expect("a member");
        assert!(peer.matched < peer.next && peer.matched == Index(5), "{peer:?}");
    }
}

/// An old leader's write completes after a new leader has replaced its entries.
/// Also contract row 29.
#[test]
fn mistake_4_an_overtaken_write_acknowledges_nothing() {
    let mut cluster = Cluster::new(3);
    let mut append = message(MessageKind::Append, 2, 1, 1);
    (append.run_term, append.count) = (crate::id::Term(1), 3);
    cluster.inject(append);
    cluster.turn(1);
    append = message(MessageKind::Append, 3, 1, 2);
    (append.entry, append.run_term, append.count) = (entry(1, 1), crate::id::Term(2), 2);
    cluster.inject(append);
    cluster.turn(1);
    assert_eq!((cluster.status(1).last, cluster.status(1).durable), (entry(2, 3), Index(0)));
    cluster.flush(1);
    assert_eq!(cluster.status(1).durable, Index(1), "the first write vouches for 1 alone");
    cluster.turn(1);
    assert!(cluster.sent(MessageKind::AppendResponse, 3).is_empty(), "nothing for the new leader");
    cluster.flush(1);
    cluster.turn(1);
    assert_eq!(cluster.status(1).durable, Index(3));
    assert_eq!(cluster.sent(MessageKind::AppendResponse, 3)[0].entry.index, Index(3));
}

#[test]
fn mistake_5_an_idle_follower_leaves_probe() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.node_mut(1).raft.on_unreachable(ReplicaId(2));
    let state = |cluster: &Cluster| {
        cluster.status(1).progress().find(|p| p.id.0 == 2).expect("a member").state
    };
    assert_eq!(state(&cluster), ProgressState::Probe);
    cluster.pass(20);
    assert_eq!(state(&cluster), ProgressState::Replicate);
}

/// Also contract row 4.
#[test]
fn mistake_7_heartbeats_are_answered_while_the_disk_is_busy() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.held.insert(2);
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    assert_eq!(cluster.node(2).writes.len(), 1, "the disk of 2 is stuck");
    cluster.isolate(3);
    // Far longer than check-quorum allows for silence.
    cluster.pass(500);
    assert!(cluster.leads(1), "2 is alive, only its disk is slow");
    cluster.read(1).expect("1 leads");
    cluster.settle();
    assert_eq!(cluster.node(1).reads_done.len(), 1, "and it confirms reads");
}

#[test]
fn mistake_8_a_follower_that_can_go_on_leaves_snapshot() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.propose(1, 5).expect("1 leads");
    cluster.settle();
    cluster.node_mut(1).raft.compact(Index(4));
    // 3 comes back needing entry 2; the log starts at 5.
    cluster.now = Tick(cluster.now.0 + 10);
    let answer = message(MessageKind::HeartbeatResponse, 3, 1, 1);
    cluster.node_mut(1).raft.on_unreachable(ReplicaId(3));
    cluster.inject(answer);
    let log_first = cluster.status(1).first;
    assert_eq!(log_first, Index(5));
    let mut fx = Effects::default();
    let now = cluster.now;
    let cache = super::harness::Cache { missing_below: Index(0) };
    cluster.node_mut(1).raft.ready(now, &cache, &mut fx);
    let sent = fx.send.iter().find(|m| m.kind == MessageKind::Snapshot).expect("a snapshot is due");
    assert_eq!((sent.to, sent.entry), (ReplicaId(3), entry(1, 6)));
    // It obtained entries up to 4 by another way: less than the snapshot, enough for the log.
    let mut acceptance = message(MessageKind::AppendResponse, 3, 1, 1);
    acceptance.entry = entry(0, 4);
    cluster.inject(acceptance);
    let peer = cluster.status(1).progress().find(|p| p.id.0 == 3).expect("a member");
    assert_eq!((peer.state, peer.next), (ProgressState::Replicate, Index(5)));
}
