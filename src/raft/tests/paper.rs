//! The Raft paper and Ongaro's thesis, section by section, where a story can be told.

use crate::id::{Index, ReplicaId, Term, Tick};
use crate::raft::*;

use super::harness::{Cluster, entry, message, test_config};

#[test]
fn paper_5_2_a_new_group_elects_a_leader_by_itself() {
    for voters in [1, 2, 3, 5] {
        let mut cluster = Cluster::new(voters);
        assert_eq!(cluster.status(1).term, Term(0));
        cluster.pass(1000);
        assert_eq!(cluster.ids().filter(|&id| cluster.leads(id)).count(), 1, "of {voters}");
    }
}

#[test]
fn paper_5_2_waits_are_drawn_from_t_to_2t() {
    let mut waits = Vec::new();
    for seed in 0..500 {
        let members = Membership::of_voters([ReplicaId(1)]);
        let recovered = Recovered { membership: members, ..Recovered::default() };
        let raft = Raft::new(test_config(seed), recovered, Tick(1000));
        waits.push(raft.deadline().since(Tick(1000)));
    }
    assert!(waits.iter().all(|wait| (100..200).contains(wait)));
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 80, "they differ");
}

#[test]
fn paper_5_2_a_replica_votes_once_in_a_term() {
    let mut cluster = Cluster::new(3);
    for candidate in [2, 3] {
        cluster.inject(message(MessageKind::Vote, candidate, 1, 1));
    }
    cluster.turn(1);
    cluster.flush(1);
    cluster.turn(1);
    assert!(!cluster.sent(MessageKind::VoteResponse, 2)[0].reject);
    assert!(cluster.sent(MessageKind::VoteResponse, 3)[0].reject);
    cluster.crash(1, 9, Index(0));
    cluster.inject(message(MessageKind::Vote, 3, 1, 1));
    cluster.turn(1);
    assert!(cluster.sent(MessageKind::VoteResponse, 3)[1].reject, "a crash changes nothing");
}

/// Figure 7: a follower with any of these logs ends with the leader's.
#[test]
fn paper_5_3_figure_7_every_divergence_heals() {
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    for follower in [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6][..],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
        &[],
    ] {
        let mut cluster = Cluster::new(3);
        for (id, terms) in [(1, &leader[..]), (2, follower), (3, &leader[..1])] {
            // A value is named after its place, so that equal names have equal values.
            let held = |(at, &term): (usize, &u64)| (Term(term), term * 100 + at as u64 + 1);
            let disk = &mut cluster.node_mut(id).disk;
            disk.log = terms.iter().enumerate().map(held).collect();
            disk.hard_state.term = Term(7);
            cluster.crash(id, 0, Index(0));
        }
        cluster.elect(1);
        cluster.pass(50);
        cluster.judge_logs();
        for id in [2, 3] {
            assert_eq!(cluster.status(id).last, entry(8, 11), "from {follower:?}");
            assert_eq!(cluster.status(id).commit, Index(11));
        }
    }
}

/// Figure 8: an entry of an old term is not committed by counting.
#[test]
fn paper_5_4_2_figure_8_old_terms_are_committed_by_new_entries() {
    let config = Config { pre_vote: false, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
    for id in [1, 2] {
        let disk = &mut cluster.node_mut(id).disk;
        (disk.log, disk.hard_state.term) = (vec![(Term(2), 1), (Term(2), 2)], Term(3));
        cluster.crash(id, 0, Index(0));
    }
    cluster.isolate(3);
    cluster.campaign(1);
    for id in [1, 2] {
        cluster.turn(id);
        cluster.flush(id);
        cluster.turn(id);
        let packet = cluster.wire.pop_front().expect("a request, then a grant");
        cluster.receive(&packet);
        cluster.turn(2);
    }
    assert!(cluster.leads(1));
    // 2 says that it holds the old entries, which makes a majority of copies.
    let mut acceptance = message(MessageKind::AppendResponse, 2, 1, 4);
    acceptance.entry = entry(0, 2);
    cluster.inject(acceptance);
    assert_eq!(cluster.status(1).commit, Index(0), "a majority of copies is not enough");
    cluster.held.clear();
    cluster.settle();
    assert_eq!(cluster.status(1).commit, Index(3), "the entry of term 4 brings them along");
}

/// Rule 5: a follower commits no further than what the message vouches for.
#[test]
fn paper_5_3_a_stale_tail_is_not_committed() {
    let mut cluster = Cluster::new(3);
    let mut append = message(MessageKind::Append, 2, 1, 1);
    (append.run_term, append.count) = (Term(1), 3);
    cluster.inject(append);
    let mut empty = message(MessageKind::Append, 3, 1, 2);
    (empty.entry, empty.commit) = (entry(1, 1), Index(3));
    cluster.inject(empty);
    assert_eq!(cluster.status(1).commit, Index(1), "2 and 3 may be replaced yet");
}

#[test]
fn thesis_6_4_reads_share_a_round_of_heartbeats() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.settle();
    let seqs: Vec<_> = (0..3).map(|_| cluster.read(1).expect("1 leads")).collect();
    assert!(seqs.iter().all(|&seq| seq == seqs[0]));
    cluster.turn(1);
    assert_eq!(cluster.sent(MessageKind::Heartbeat, 2).len(), 1);
    assert!(cluster.node(1).reads_done.is_empty());
    cluster.settle();
    assert_eq!(cluster.node(1).reads_done, [ReadReady { seq: seqs[0], index: Index(1) }]);
}

#[test]
fn thesis_6_4_a_sole_voter_needs_nobody() {
    let mut cluster = Cluster::new(1);
    cluster.elect(1);
    cluster.read(1).expect("1 leads");
    cluster.turn(1);
    assert_eq!(cluster.node(1).reads_done.len(), 1);
}

#[test]
fn thesis_9_6_a_pre_vote_disturbs_nobody() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.pass(2000);
    assert_eq!(cluster.status(3).term, Term(1), "asking starts no term");
    cluster.cut.clear();
    cluster.pass(300);
    assert!(cluster.leads(1) && cluster.status(1).term == Term(1));
    assert_eq!(cluster.status(3).leader, ReplicaId(1));
}

#[test]
fn thesis_9_6_pre_votes_of_the_past_are_refused_aloud() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.now = cluster.now.plus(1000);
    let term = cluster.status(2).term;
    let mut request = message(MessageKind::PreVote, 3, 2, term.0 + 1);
    request.entry = cluster.status(3).last;
    cluster.inject(request);
    cluster.turn(2);
    let grant = cluster.sent(MessageKind::PreVoteResponse, 3)[0];
    assert_eq!((grant.reject, grant.term), (false, Term(2)), "a grant echoes what was asked");
    assert_eq!((cluster.status(2).term, cluster.status(2).vote), (Term(1), ReplicaId(1)));
    cluster.wire.clear();
    let now = cluster.now;
    let mut behind = message(MessageKind::Vote, 1, 2, 9);
    behind.entry = entry(1, 1);
    let _ = cluster.node_mut(2).raft.step(&behind, now);
    cluster.inject(request);
    cluster.turn(2);
    cluster.flush(2);
    cluster.turn(2);
    let refusal = cluster.sent(MessageKind::PreVoteResponse, 3)[0];
    assert_eq!((refusal.reject, refusal.term), (true, Term(9)), "a refusal tells the term");
}

#[test]
fn thesis_4_2_1_learners_vote_when_asked_and_never_stand() {
    let members = Membership::of_voters([ReplicaId(1), ReplicaId(2)]);
    let mut cluster = Cluster::with(members.with_learners([ReplicaId(3)]), test_config(7));
    assert_eq!(cluster.node(3).raft.deadline(), Tick(u64::MAX));
    cluster.campaign(3);
    assert_eq!(cluster.status(3).role, RoleKind::Follower);
    cluster.inject(message(MessageKind::Vote, 1, 3, 1));
    cluster.turn(3);
    cluster.flush(3);
    cluster.turn(3);
    assert!(!cluster.sent(MessageKind::VoteResponse, 1)[0].reject);
}
