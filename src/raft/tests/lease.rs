//! Reads by lease and reads of followers: who may answer, and until when (thesis §6.4).

use crate::id::{Index, ReplicaId, Tick};
use crate::raft::state::Role;
use crate::raft::*;

use super::harness::{Cluster, message, test_config};

fn leased(drift_percent: u8) -> Cluster {
    let config = Config { lease: Some(Lease { drift_percent }), ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters((1..=3).map(ReplicaId)), config);
    // A replica that has just started gives no vote.
    cluster.now = cluster.now.plus(100);
    cluster.elect(1);
    cluster.pass(20);
    cluster
}

/// Whether 1 confirms a read without a word from anybody.
fn answers_alone(cluster: &mut Cluster) -> bool {
    let Ok(seq) = cluster.read(1) else { return false };
    cluster.turn(1);
    cluster.node(1).reads_done.iter().any(|read| read.seq == seq)
}

#[test]
fn a_lease_answers_without_asking_and_ends_before_the_others_promise() {
    let mut cluster = leased(20);
    assert!(answers_alone(&mut cluster));
    let before = cluster.now;
    cluster.isolate(1);
    let mut held = 0;
    // One tick at a time: 1 is asked first, then the others may elect.
    for elapsed in 1..=400 {
        cluster.now = before.plus(elapsed);
        for id in cluster.ids() {
            if cluster.now >= cluster.node(id).raft.deadline() {
                cluster.tick(id);
            }
        }
        if answers_alone(&mut cluster) {
            held = elapsed;
            assert!(!cluster.leads(2) && !cluster.leads(3), "two leaders answer at {elapsed}");
        }
        cluster.settle();
    }
    assert!((60..=80).contains(&held), "the lease held for {held} of 100 ticks less 20 percent");
    assert!(cluster.leads(2) || cluster.leads(3), "and then another could lead");
}

#[test]
fn without_a_lease_every_read_asks() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.pass(20);
    assert!(!answers_alone(&mut cluster));
}

#[test]
fn a_leader_whose_disk_is_frozen_has_no_lease_before_another_can_lead() {
    let mut cluster = leased(10);
    cluster.held.insert(1);
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    let frozen = cluster.now;
    let mut last_answer = Tick(0);
    let mut another = None;
    while another.is_none() && cluster.now.since(frozen) < 2000 {
        cluster.pass(10);
        if answers_alone(&mut cluster) {
            last_answer = cluster.now;
        }
        another = (2..=3).find(|&id| cluster.leads(id)).map(|_| cluster.now);
    }
    let another = another.expect("a leader whose disk is frozen is replaced");
    assert!(last_answer.since(frozen) <= 50, "half an election timeout, not {last_answer}");
    assert!(last_answer < another);
}

#[test]
fn a_handover_ends_the_lease_for_the_term() {
    let mut cluster = leased(10);
    cluster.isolate(2);
    let now = cluster.now;
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now), "2 is told to campaign");
    assert!(!answers_alone(&mut cluster), "2 may win at any time, whatever 3 promised");
    cluster.cut.clear();
    cluster.wire.clear();
    cluster.pass(110);
    assert!(cluster.leads(1), "2 never heard of it");
    assert!(!answers_alone(&mut cluster), "but may still");
    let seq = cluster.read(1).expect("1 leads");
    cluster.settle();
    assert!(cluster.node(1).reads_done.iter().any(|read| read.seq == seq), "by asking it can");
}

#[test]
fn a_restarted_replica_keeps_the_promise_of_its_earlier_life() {
    let mut cluster = leased(10);
    cluster.isolate(1);
    for id in [2, 3] {
        cluster.crash(id, 9, Index(0));
    }
    cluster.campaign(2);
    cluster.settle();
    assert!(answers_alone(&mut cluster), "the lease of 1 still holds");
    assert!(!cluster.leads(2), "so nobody else may lead");
    cluster.pass(400);
    assert!(cluster.leads(2) || cluster.leads(3));
}

#[test]
fn a_change_of_membership_ends_the_lease_until_the_new_voters_have_answered() {
    let mut cluster = leased(10);
    let change = Change { kind: ChangeKind::Remove, id: ReplicaId(3) };
    let change = ConfChange { changes: vec![change], ..ConfChange::default() };
    cluster.reconfigure(1, change).expect("1 leads");
    while cluster.status(1).membership.is_voter(ReplicaId(3)) {
        for id in cluster.ids() {
            cluster.flush(id);
            cluster.turn(id);
        }
        if let Some(packet) = cluster.wire.pop_front() {
            cluster.receive(&packet);
        }
    }
    assert!(!answers_alone(&mut cluster));
    cluster.pass(20);
    assert!(answers_alone(&mut cluster));
}

#[test]
fn nobody_forgets_a_leader_that_relies_on_its_lease() {
    let mut cluster = leased(10);
    let now = cluster.now;
    cluster.node_mut(2).raft.forget_leader(now);
    assert_eq!(cluster.status(2).leader, ReplicaId(1));
}

#[test]
fn a_follower_answers_what_its_leader_confirmed() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let index = cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    let seq = cluster.read_here(2).expect("2 has a leader");
    assert_eq!(cluster.read_here(2), Ok(seq), "one question for a turn");
    cluster.settle();
    assert_eq!(cluster.node(2).reads_done, [ReadReady { seq, index }]);
}

#[test]
fn contract_row_63_a_lost_question_is_asked_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.cut.insert((2, 1));
    let seq = cluster.read_here(2).expect("2 has a leader");
    cluster.settle();
    cluster.cut.clear();
    assert!(cluster.node(2).reads_done.is_empty());
    cluster.pass(20);
    assert_eq!(cluster.node(2).reads_done.len(), 1);
    assert_eq!(cluster.node(2).reads_done[0].seq, seq);
}

#[test]
fn contract_row_63_an_answer_of_an_earlier_life_confirms_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.read_here(2).expect("2 has a leader");
    cluster.turn(2);
    let question = cluster.sent(MessageKind::ReadIndex, 1)[0];
    let mut answer = message(MessageKind::ReadIndexResponse, 1, 2, question.term.0);
    (answer.context, answer.entry.index) = (question.context, Index(1));
    cluster.crash(2, 9, Index(0));
    cluster.pass(20);
    let seq = cluster.read_here(2).expect("2 has a leader");
    assert_ne!(seq, question.context, "no number is used twice");
    cluster.turn(2);
    cluster.inject(answer);
    cluster.turn(2);
    assert!(cluster.node(2).reads_done.is_empty());
}

#[test]
fn a_deposed_leader_answers_no_follower() {
    let mut cluster = Cluster::new(5);
    cluster.elect(1);
    // 1 and 2 are cut off together; the others elect 3 and commit.
    for inside in [1, 2] {
        for outside in [3, 4, 5] {
            cluster.cut.insert((inside, outside));
            cluster.cut.insert((outside, inside));
        }
    }
    cluster.campaign(3);
    cluster.settle();
    let seq = cluster.read_here(2).expect("2 believes in 1");
    cluster.settle();
    cluster.pass(60);
    assert!(cluster.node(2).reads_done.iter().all(|read| read.seq != seq), "1 has no quorum");
}

/// Delivers what is on the wire to the other two, and their answers to 1.
fn round(cluster: &mut Cluster) {
    for id in [1, 2, 3] {
        cluster.turn(id);
        for packet in std::mem::take(&mut cluster.wire) {
            cluster.receive(&packet);
        }
    }
    cluster.turn(1);
}

#[test]
fn a_question_that_comes_twice_is_answered_once() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let asked = |from, number| {
        let mut question = message(MessageKind::ReadIndex, from, 1, 1);
        question.context = number;
        question
    };
    // Whoever asks names its questions itself; another may choose the same name.
    for (from, number) in [(2, 77), (2, 77), (3, 77), (2, 78)] {
        cluster.inject(asked(from, number));
    }
    cluster.inject(asked(9, 77));
    assert_eq!(cluster.status(1).ignored, 1, "9 is no member");
    round(&mut cluster);
    let named = |cluster: &Cluster, to| {
        let answers = cluster.sent(MessageKind::ReadIndexResponse, to);
        answers.iter().map(|it| (it.context, it.entry.index.0)).collect::<Vec<_>>()
    };
    assert_eq!(named(&cluster, 2), [(77, 1), (78, 1)]);
    assert_eq!(named(&cluster, 3), [(77, 1)]);
}

#[test]
fn as_many_reads_wait_as_may_and_room_comes_back_with_their_answers() {
    let most = crate::limits::READS_PENDING_MAX;
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for id in [1, 2] {
        for _ in 0..most {
            cluster.node_mut(id).raft.read_here().expect("there is room");
        }
        assert_eq!(cluster.read_here(id), Err(ReadRefusal::Full), "on {id}");
    }
    // Nor is there room for those of a follower, which will ask again.
    cluster.settle();
    assert!(cluster.node(2).reads_done.is_empty());
    assert!(cluster.read_here(1).is_ok());
    cluster.pass(20);
    assert_eq!(cluster.node(2).reads_done.len(), 1);
    assert!(cluster.read_here(2).is_ok());
    assert_eq!(cluster.read(3), Err(ReadRefusal::NotLeader { leader: ReplicaId(1) }));
}

/// When the round was sent on which the lease of 1 rests.
fn rests_on(cluster: &Cluster) -> Tick {
    let Role::Leader(leader) = &cluster.node(1).raft.role else { panic!("1 leads") };
    leader.reads.as_ref().and_then(|reads| reads.lease_from).expect("it has a lease")
}

#[test]
fn a_lease_is_over_at_the_very_tick() {
    let cluster = leased(20);
    let (raft, from) = (&cluster.node(1).raft, rests_on(&cluster));
    assert!(raft.lease_holds(from.plus(79)));
    assert!(!raft.lease_holds(from.plus(80)));
}

#[test]
fn a_lease_holds_while_a_write_is_no_older_than_half_a_promise() {
    let mut cluster = leased(20);
    cluster.propose(1, 1).expect("1 leads");
    cluster.turn(1);
    let (raft, from) = (&cluster.node(1).raft, cluster.now);
    assert!(raft.lease_holds(from.plus(49)) && !raft.lease_holds(from.plus(50)));
}

/// An answer to one round says nothing of a later one, which may never have arrived.
#[test]
fn a_lease_rests_on_the_round_that_was_answered() {
    let mut cluster = leased(20);
    let mut sent = Vec::new();
    for _ in 0..2 {
        cluster.now = cluster.now.plus(10);
        cluster.tick(1);
        cluster.turn(1);
        sent.push((cluster.now, std::mem::take(&mut cluster.wire)));
    }
    let (first, heartbeats) = sent.swap_remove(0);
    cluster.wire = heartbeats;
    cluster.settle();
    assert_eq!(rests_on(&cluster), first);
}

#[test]
fn whoever_is_alone_has_promised_nobody_anything() {
    let config = Config { lease: Some(Lease { drift_percent: 10 }), ..test_config(7) };
    let start = |voters: u64| {
        let membership = Membership::of_voters((1..=voters).map(ReplicaId));
        let recovered = Recovered { membership, ..Recovered::default() };
        let mut raft = Raft::new(config.clone(), recovered, Tick(0));
        raft.campaign(Tick(0));
        raft.status().role
    };
    assert_eq!((start(1), start(3)), (RoleKind::Candidate, RoleKind::Follower));
}
