//! A follower whose log is gone from its leader's (Raft §7).

use crate::id::{Index, ReplicaId};
use crate::raft::state::Role;
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

    // Nor one that an old leader sends, who will hear so from others.
    let later = message(MessageKind::Heartbeat, 3, 2, term + 1);
    cluster.inject(later);
    let restored = cluster.node_mut(2).raft.restore(&snapshot, membership, now);
    assert_eq!((restored, cluster.status(2).last), (Restored::No, last));
    assert_eq!((cluster.status(2).ignored, cluster.status(2).leader), (1, ReplicaId(3)));
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

#[test]
fn a_snapshot_is_taken_of_no_rival_and_of_every_later_leader() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let (now, membership) = (cluster.now, cluster.membership.clone());
    let term = cluster.status(1).term.0;
    let raft = &mut cluster.node_mut(1).raft;
    let mut snapshot = message(MessageKind::Snapshot, 2, 1, term);
    snapshot.entry = entry(term, 90);
    let mut taken = |snapshot: &Message| {
        let restored = raft.restore(snapshot, membership.clone(), now);
        let status = raft.status();
        (restored, status.role, status.last, status.ignored)
    };
    let (leads, follows) = (RoleKind::Leader, RoleKind::Follower);
    assert_eq!(taken(&snapshot), (Restored::No, leads, entry(term, 1), 1), "it leads this term");
    snapshot.to = ReplicaId(3);
    assert_eq!(taken(&snapshot), (Restored::No, leads, entry(term, 1), 2), "for somebody else");
    (snapshot.to, snapshot.term.0) = (ReplicaId(1), term + 1);
    assert_eq!(taken(&snapshot), (Restored::Yes, follows, entry(term, 90), 2));
    assert_eq!(raft.status().leader, ReplicaId(2));
    raft.stop(now);
    snapshot.entry.index = Index(91);
    let restored = raft.restore(&snapshot, membership, now);
    assert_eq!((restored, raft.status().last), (Restored::No, entry(term, 90)));
}

/// 3 accepts entries 2 to 4, which are not written, and hears nothing for long enough to vote for another.
fn accept_three(cluster: &mut Cluster, term: u64) {
    let mut append = message(MessageKind::Append, 1, 3, term);
    append.entry = entry(term, 1);
    (append.count, append.run_term) = (3, crate::id::Term(term));
    cluster.inject(append);
    cluster.now = cluster.now.plus(200);
}

#[test]
fn what_waited_for_entries_that_a_snapshot_replaced_waits_no_more() {
    let mut cluster = behind();
    let term = cluster.status(3).term.0;
    // 3 accepts entries, and would vote for 2; both answers wait for the entries to be written.
    accept_three(&mut cluster, term);
    let mut question = message(MessageKind::PreVote, 2, 3, term + 1);
    question.entry = entry(term, 11);
    cluster.inject(question);
    assert_eq!(cluster.node(3).raft.promises.len(), 2);
    let mut snapshot = message(MessageKind::Snapshot, 1, 3, term);
    snapshot.entry = entry(term, 11);
    let (now, membership) = (cluster.now, cluster.membership.clone());
    let raft = &mut cluster.node_mut(3).raft;
    assert_eq!(raft.restore(&snapshot, membership, now), Restored::Yes);
    assert!(raft.promises.is_empty());
    let mut fx = Effects::default();
    raft.ready(now, &super::harness::Cache { missing_below: Index(0) }, &mut fx);
    assert_eq!(fx.persist, None, "there is nothing to write");
    let said: Vec<_> = fx.send.iter().map(|it| (it.kind, it.to.0, it.entry.index.0)).collect();
    let granted = (MessageKind::PreVoteResponse, 2, 0);
    assert_eq!(said, [granted, (MessageKind::AppendResponse, 1, 11)], "3 is no answer any more");
}

#[test]
fn entries_that_the_disk_has_lost_are_made_up_for_by_a_snapshot() {
    let mut cluster = Cluster::with_entries_out_of_memory();
    cluster.pass(20);
    assert!(progress(&cluster, 3).is_fetching);
    let first = progress(&cluster, 3).matched.next();
    cluster.node_mut(1).raft.on_fetch_failed(ReplicaId(3), first);
    cluster.settle();
    assert_eq!((cluster.node(3).restored, progress(&cluster, 3).is_fetching), (1, false));
    assert_eq!(cluster.node(1).fetches.len(), 1, "what is lost is not asked for again");
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    assert_eq!(cluster.status(3).commit, Index(5), "and the log goes on behind it");
}

#[test]
fn safety_point_14_what_lies_in_front_of_the_log_is_not_taken_again() {
    let mut cluster = behind();
    let (status, now) = (cluster.status(2), cluster.now);
    let (term, applied, membership) = (status.term.0, status.applied, cluster.membership.clone());
    let raft = &mut cluster.node_mut(2).raft;
    raft.compact(applied);
    let mut snapshot = message(MessageKind::Snapshot, 1, 2, term);
    snapshot.entry = entry(term, 5);
    assert_eq!(raft.restore(&snapshot, membership, now), Restored::No);
    assert_eq!(raft.status().first, Index(12));
}

#[test]
fn mistake_8_only_an_acceptance_behind_which_the_log_goes_on_ends_a_snapshot() {
    let mut cluster = behind();
    let Role::Leader(leader) = &mut cluster.node_mut(1).raft.role else { panic!("1 leads") };
    leader.peer_mut(ReplicaId(3)).expect("a member").become_snapshot(Index(11));
    let pending = ProgressState::Snapshot { pending: Index(11) };
    for (index, state) in [(10, pending), (11, ProgressState::Replicate)] {
        let mut acceptance = message(MessageKind::AppendResponse, 3, 1, 1);
        acceptance.entry.index = Index(index);
        cluster.inject(acceptance);
        assert_eq!(progress(&cluster, 3).state, state, "{index}");
    }
}

/// The disk does not know of the snapshot: what it is still to write is waited for as before.
#[test]
fn what_waits_for_a_write_in_flight_waits_also_behind_a_snapshot() {
    let mut cluster = behind();
    let term = cluster.status(3).term.0;
    accept_three(&mut cluster, term);
    let mut vote = message(MessageKind::Vote, 2, 3, term + 1);
    vote.entry = entry(term, 11);
    cluster.inject(vote);
    cluster.turn(3);
    assert_eq!(cluster.node(3).raft.promises.len(), 2);
    let mut snapshot = message(MessageKind::Snapshot, 2, 3, term + 1);
    snapshot.entry = entry(term, 11);
    let (now, membership) = (cluster.now, cluster.membership.clone());
    let raft = &mut cluster.node_mut(3).raft;
    assert_eq!(raft.restore(&snapshot, membership, now), Restored::Yes);
    let said = |raft: &mut Raft| {
        let mut fx = Effects::default();
        raft.ready(now, &super::harness::Cache { missing_below: Index(0) }, &mut fx);
        fx.send.iter().map(|it| (it.kind, it.entry.index.0)).collect::<Vec<_>>()
    };
    assert_eq!(said(raft), [], "neither vote nor acceptance is durable");
    raft.on_durable(PersistSeq(raft.log.next_seq().0 - 1), now);
    let (vote, acceptance) = (MessageKind::VoteResponse, MessageKind::AppendResponse);
    assert_eq!(said(raft), [(acceptance, 4), (vote, 0), (acceptance, 11)]);
}
