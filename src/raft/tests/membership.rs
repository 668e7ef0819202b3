//! Changes of membership, told one at a time (thesis §4).

use crate::id::{Index, ReplicaId, Tick};
use crate::raft::state::Role;
use crate::raft::*;

use super::harness::{Cache, Cluster, message, test_config};

fn change(kind: ChangeKind, id: u64) -> ConfChange {
    ConfChange { changes: vec![Change { kind, id: ReplicaId(id) }], ..ConfChange::default() }
}

fn explicit(changes: &[(ChangeKind, u64)]) -> ConfChange {
    let one = |&(kind, id): &(ChangeKind, u64)| Change { kind, id: ReplicaId(id) };
    ConfChange { transition: Transition::JointExplicit, changes: changes.iter().map(one).collect() }
}

/// `voters` voters and as many nodes that do not belong as it takes for `all`.
fn cluster(voters: u64, all: u64) -> Cluster {
    let membership = Membership::of_voters((1..=voters).map(ReplicaId));
    Cluster::with_strangers(membership, test_config(7), all)
}

fn voters(cluster: &Cluster, id: u64) -> Vec<u64> {
    cluster.status(id).membership.voters().map(|id| id.0).collect()
}

#[test]
fn a_learner_catches_up_and_counts_in_no_quorum() {
    let mut cluster = cluster(2, 3);
    cluster.elect(1);
    cluster.reconfigure(1, change(ChangeKind::AddLearner, 3)).expect("1 leads");
    cluster.settle();
    cluster.pass(20);
    assert_eq!(cluster.status(3).last, cluster.status(1).last);
    assert_eq!(voters(&cluster, 1), [1, 2]);
    // With the other voter gone the learner's disk does not help.
    cluster.isolate(2);
    let index = cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    assert_eq!(cluster.status(3).last.index, index, "it holds the entry");
    assert!(cluster.status(1).commit < index, "and that commits nothing");
    let seq = cluster.read(1).expect("1 leads");
    cluster.settle();
    assert!(cluster.node(1).reads_done.iter().all(|read| read.seq < seq), "nor confirms a read");
    cluster.pass(250);
    assert!(!cluster.leads(1), "nor keeps a leader");
    assert!(!cluster.leads(3), "nor makes one");
}

#[test]
fn a_promoted_learner_counts_once_the_change_is_applied() {
    let mut cluster = cluster(1, 2);
    cluster.elect(1);
    cluster.reconfigure(1, change(ChangeKind::AddLearner, 2)).expect("1 leads");
    cluster.settle();
    cluster.pass(20);
    cluster.reconfigure(1, change(ChangeKind::AddVoter, 2)).expect("1 leads");
    cluster.settle();
    assert_eq!(voters(&cluster, 2), [1, 2]);
    cluster.isolate(2);
    let index = cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    assert!(cluster.status(1).commit < index, "two voters, one silent");
}

#[test]
fn safety_point_11_one_change_at_a_time() {
    let mut cluster = cluster(3, 5);
    cluster.elect(1);
    let index = cluster.reconfigure(1, change(ChangeKind::AddLearner, 4)).expect("1 leads");
    let second = cluster.reconfigure(1, change(ChangeKind::AddLearner, 5));
    assert_eq!(second, Err(ConfigRefusal::Pending { index }));
    cluster.settle();
    cluster.reconfigure(1, change(ChangeKind::AddLearner, 5)).expect("the first is applied");
    let removed = cluster.reconfigure(2, change(ChangeKind::Remove, 3));
    let refusal = ProposeRefusal::NotLeader { leader: ReplicaId(1) };
    assert_eq!(removed, Err(ConfigRefusal::Proposal(refusal)));
}

#[test]
fn a_new_leader_takes_no_change_before_it_has_applied_what_it_was_elected_with() {
    let mut cluster = cluster(3, 4);
    cluster.elect(1);
    cluster.propose(1, 1).expect("1 leads");
    cluster.turn(1);
    cluster.wire.clear();
    cluster.settle();
    // The write of 1 alone; nobody else has the entry. 1 is elected again and holds it uncommitted.
    cluster.crash(1, 1, Index(0));
    cluster.campaign(1);
    cluster.held.insert(2);
    cluster.settle();
    if cluster.leads(1) {
        let refused = cluster.reconfigure(1, change(ChangeKind::AddLearner, 4));
        let applied = cluster.status(1).applied;
        assert!(refused.is_ok() == (applied >= Index(2)), "{refused:?} with {applied} applied");
    }
}

#[test]
fn a_joint_membership_needs_both_majorities() {
    let mut cluster = cluster(3, 5);
    cluster.elect(1);
    let kinds = [
        (ChangeKind::Remove, 2),
        (ChangeKind::Remove, 3),
        (ChangeKind::AddVoter, 4),
        (ChangeKind::AddVoter, 5),
    ];
    cluster.reconfigure(1, explicit(&kinds)).expect("1 leads");
    cluster.settle();
    cluster.pass(20);
    assert!(cluster.status(1).membership.is_joint());
    for gone in [[2, 3], [4, 5]] {
        for id in gone {
            cluster.isolate(id);
        }
        let index = cluster.propose(1, 1).expect("1 leads");
        cluster.settle();
        assert!(cluster.status(1).commit < index, "one majority of two, without {gone:?}");
        cluster.cut.clear();
        cluster.pass(20);
        assert!(cluster.status(1).commit >= index);
    }
    cluster.reconfigure(1, ConfChange::default()).expect("out");
    cluster.settle();
    cluster.pass(20);
    assert_eq!(voters(&cluster, 1), [1, 4, 5]);
}

#[test]
fn a_joint_change_is_cancelled_back_to_the_old_voters() {
    let mut cluster = cluster(3, 4);
    cluster.elect(1);
    let kinds = [(ChangeKind::Remove, 2), (ChangeKind::AddVoter, 4)];
    cluster.reconfigure(1, explicit(&kinds)).expect("1 leads");
    cluster.settle();
    cluster.pass(20);
    let cancel = ConfChange { transition: Transition::Cancel, changes: Vec::new() };
    cluster.reconfigure(1, cancel.clone()).expect("joint");
    cluster.settle();
    cluster.pass(20);
    assert_eq!(voters(&cluster, 1), [1, 2, 3]);
    assert_eq!(*cluster.status(1).membership.learners, [ReplicaId(4)], "it holds the log by now");
    assert_eq!(cluster.reconfigure(1, cancel), Err(ConfigRefusal::NotJoint));
}

#[test]
fn mistake_6_a_joint_membership_leaves_itself_also_under_the_next_leader() {
    let mut cluster = cluster(3, 5);
    cluster.elect(1);
    let changes = vec![
        Change { kind: ChangeKind::AddVoter, id: ReplicaId(4) },
        Change { kind: ChangeKind::AddVoter, id: ReplicaId(5) },
    ];
    let both = ConfChange { transition: Transition::Auto, changes };
    cluster.reconfigure(1, both.clone()).expect("1 leads");
    cluster.settle();
    assert!(!cluster.status(1).membership.is_joint(), "at once, without a tick or a proposal");
    assert_eq!(voters(&cluster, 1), [1, 2, 3, 4, 5]);

    let mut cluster = self::cluster(3, 5);
    cluster.elect(1);
    cluster.reconfigure(1, both).expect("1 leads");
    // 1 applies the joint membership and is cut off before its entry that leaves it is sent.
    for _ in 0..40 {
        if cluster.status(1).membership.is_joint() {
            break;
        }
        for id in cluster.ids() {
            cluster.turn(id);
            cluster.flush(id);
        }
        if let Some(packet) = cluster.wire.pop_front() {
            cluster.receive(&packet);
        }
    }
    assert!(cluster.status(1).membership.is_joint(), "the test catches the moment");
    cluster.isolate(1);
    cluster.wire.clear();
    cluster.pass(1000);
    let leader = cluster.ids().find(|&id| id != 1 && cluster.leads(id)).expect("another leads");
    assert!(!cluster.status(leader).membership.is_joint(), "the next leader leaves it");
}

#[test]
fn contract_row_10_a_removed_replica_proposes_nothing() {
    let mut cluster = cluster(3, 3);
    cluster.elect(1);
    cluster.reconfigure(1, change(ChangeKind::Remove, 3)).expect("1 leads");
    cluster.settle();
    cluster.pass(20);
    assert_eq!(voters(&cluster, 1), [1, 2]);
    assert!(cluster.propose(3, 1).is_err());
    cluster.pass(1000);
    assert!(cluster.leads(1), "what left does not disturb");
    cluster.campaign(3);
    assert_eq!(cluster.status(3).last, cluster.status(3).last);
    let before = cluster.status(1).term;
    cluster.settle();
    assert_eq!(cluster.status(1).term, before);
}

#[test]
fn contract_row_62_a_leader_that_is_removed_hands_over_and_leaves() {
    let mut cluster = cluster(3, 3);
    cluster.elect(1);
    let index = cluster.reconfigure(1, change(ChangeKind::Remove, 1)).expect("1 leads");
    let before = cluster.now;
    cluster.settle();
    cluster.pass(10);
    assert!(cluster.now.since(before) <= 10, "nobody waits for an election timeout");
    let leader = [2, 3].into_iter().find(|&id| cluster.leads(id)).expect("another leads at once");
    cluster.pass(20);
    assert!(!cluster.leads(1), "it hears so with its next heartbeat");
    assert!(cluster.status(leader).commit >= index && cluster.status(1).commit >= index);
    assert!(cluster.propose(1, 1).is_err());
    cluster.propose(leader, 1).expect("the group goes on");
    cluster.settle();
    assert_eq!(cluster.status(leader).commit, cluster.status(leader).last.index);
}

#[test]
fn mistake_9_a_removed_leader_that_nobody_relieves_stops_leading() {
    let mut cluster = cluster(3, 3);
    cluster.elect(1);
    cluster.reconfigure(1, change(ChangeKind::Remove, 1)).expect("1 leads");
    // What it says after the change is applied reaches nobody.
    for _ in 0..100 {
        if !cluster.status(1).membership.is_member(ReplicaId(1)) {
            break;
        }
        for id in cluster.ids() {
            cluster.turn(id);
            cluster.flush(id);
        }
        if let Some(packet) = cluster.wire.pop_front() {
            cluster.receive(&packet);
        }
    }
    assert!(cluster.leads(1), "it is handing over");
    assert_eq!(
        cluster.propose(1, 1),
        Err(ProposeRefusal::Transferring),
        "and takes nothing any more"
    );
    cluster.isolate(1);
    cluster.pass(150);
    assert!(!cluster.leads(1));
}

#[test]
fn a_handover_ends_one_way_or_the_other() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let now = cluster.now;
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now));
    cluster.settle();
    assert_eq!(cluster.node(1).transfers, [TransferEnd { to: ReplicaId(2), done: true }]);

    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(2);
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    let now = cluster.now;
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now));
    cluster.pass(90);
    assert!(cluster.node(1).transfers.is_empty(), "it is given its time");
    cluster.pass(30);
    assert_eq!(cluster.node(1).transfers, [TransferEnd { to: ReplicaId(2), done: false }]);
    cluster.propose(1, 1).expect("1 leads on");

    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(2);
    let now = cluster.now;
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now));
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(3), now));
    cluster.settle();
    let ends: Vec<_> = cluster.node(1).transfers.iter().map(|end| (end.to.0, end.done)).collect();
    assert_eq!(ends, [(2, false), (3, true)]);
}

#[test]
fn a_replica_without_priority_follows_only() {
    let mut cluster = Cluster::with(
        Membership::of_voters((1..=3).map(ReplicaId)),
        Config { priority: 0, ..test_config(7) },
    );
    cluster.pass(5000);
    assert!(cluster.ids().all(|id| !cluster.leads(id)));
    assert_eq!(cluster.node(1).raft.deadline(), Tick(u64::MAX));
    cluster.elect(2);
    // The less eager wait longer than any eager one.
    let wait = |priority| {
        let config = Config { priority, ..test_config(7) };
        let recovered = Recovered {
            membership: Membership::of_voters((1..=3).map(ReplicaId)),
            ..Recovered::default()
        };
        Raft::new(config, recovered, Tick(0)).deadline().0
    };
    assert_eq!(wait(1), wait(100) + 99);
}

#[test]
fn a_leader_that_leaves_hands_over_to_the_furthest_of_those_that_live() {
    for (age, heir) in [(50, Some(2)), (99, Some(2)), (100, Some(3)), (149, Some(3)), (150, None)] {
        let mut cluster = cluster(3, 3);
        cluster.elect(1);
        let removal = change(ChangeKind::Remove, 1);
        let index = cluster.reconfigure(1, removal.clone()).expect("1 leads");
        let (begun, term) = (cluster.now, cluster.status(1).term.0);
        let raft = &mut cluster.node_mut(1).raft;
        let mut fx = Effects::default();
        raft.ready(begun, &Cache { missing_below: Index(0) }, &mut fx);
        assert_eq!(raft.on_durable(fx.persist.expect("an entry to write").seq, begun), None);
        // 2 holds the change. 3 does not yet, and is heard of later.
        let mut accepted = message(MessageKind::AppendResponse, 2, 1, term);
        accepted.entry.index = index;
        assert_eq!(raft.step(&accepted, begun), None);
        assert_eq!(raft.status().commit, index);
        let alive = message(MessageKind::HeartbeatResponse, 3, 1, term);
        assert_eq!(raft.step(&alive, begun.plus(50)), None);
        raft.apply_config(index, &removal, begun.plus(age)).expect("it can be made");
        let status = raft.status();
        assert_eq!(status.transferee, heir.map(ReplicaId), "after {age}");
        assert_eq!(status.role == RoleKind::Leader, heir.is_some());
    }
}

#[test]
fn a_handover_ends_and_a_candidate_gives_up_when_the_vote_is_taken_away() {
    let mut cluster = cluster(3, 3);
    cluster.elect(1);
    cluster.isolate(2);
    cluster.reconfigure(1, change(ChangeKind::Remove, 2)).expect("1 leads");
    let now = cluster.now;
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now));
    cluster.settle();
    assert_eq!(cluster.node(1).transfers, [TransferEnd { to: ReplicaId(2), done: false }]);
    assert!(cluster.propose(1, 1).is_ok(), "1 leads on");

    cluster.campaign(3);
    assert_eq!(cluster.status(3).role, RoleKind::PreCandidate);
    let (index, now) = (cluster.status(3).last.index.next(), cluster.now);
    let raft = &mut cluster.node_mut(3).raft;
    raft.apply_config(index, &change(ChangeKind::Remove, 3), now).expect("it can be made");
    assert_eq!((raft.status().role, raft.deadline()), (RoleKind::Follower, Tick(u64::MAX)));
}

#[test]
fn who_joined_later_hears_once_with_whom_its_group_began() {
    let config = Config { id: ReplicaId(9), ..test_config(7) };
    let mut raft = Raft::new(config, Recovered::default(), Tick(0));
    let members = |raft: &Raft| raft.status().membership.incoming.to_vec();
    let unsorted = Membership {
        incoming: [3, 1, 2].map(ReplicaId).into_iter().collect(),
        ..Membership::default()
    };
    let mut failed = raft.clone();
    failed.stop(Tick(0));
    failed.begin_with(unsorted.clone(), Tick(0));
    assert!(members(&failed).is_empty(), "it takes part in nothing");
    raft.begin_with(unsorted, Tick(0));
    assert_eq!(members(&raft), [1, 2, 3].map(ReplicaId));
    raft.begin_with(Membership::of_voters([ReplicaId(9)]), Tick(0));
    assert_eq!(members(&raft), [1, 2, 3].map(ReplicaId), "it knows members already");
}

#[test]
fn a_change_is_refused_for_the_reasons_that_refuse_any_proposal() {
    let mut cluster = cluster(3, 3);
    cluster.elect(1);
    let not_here = ProposeRefusal::NotLeader { leader: ReplicaId(1) };
    let refused = cluster.reconfigure(2, change(ChangeKind::Remove, 3));
    assert_eq!(refused, Err(ConfigRefusal::Proposal(not_here)));
    assert_eq!(ConfigRefusal::from(not_here), ConfigRefusal::Proposal(not_here));
    let unchecked = cluster.node_mut(3).raft.propose_config_unchecked(1);
    assert_eq!(unchecked, Err(ConfigRefusal::Proposal(not_here)));
    let leave = cluster.reconfigure(1, ConfChange::default());
    assert_eq!(leave, Err(ConfigRefusal::NotJoint));
}

#[test]
fn a_learner_that_hears_of_a_change_goes_on_following_its_leader() {
    let mut cluster = cluster(2, 4);
    cluster.elect(1);
    for learner in [3, 4] {
        cluster.reconfigure(1, change(ChangeKind::AddLearner, learner)).expect("1 leads");
        cluster.settle();
        cluster.pass(20);
    }
    let now = cluster.now;
    let next = cluster.status(3).membership.clone();
    cluster.node_mut(3).raft.switch_to(next, now);
    assert_eq!(cluster.status(3).leader, ReplicaId(1));
}

/// Nobody who is told to take over hears of it.
fn pass_unheard(cluster: &mut Cluster, ticks: u64) {
    cluster.now = cluster.now.plus(ticks);
    cluster.tick(1);
    for _ in 0..20 {
        for id in cluster.ids() {
            cluster.turn(id);
            cluster.flush(id);
            cluster.turn(id);
        }
        cluster.wire.retain(|packet| packet.message.kind != MessageKind::TimeoutNow);
        for packet in std::mem::take(&mut cluster.wire) {
            cluster.receive(&packet);
        }
    }
}

/// To whom 1 is handing over, if it leads.
fn transferee(cluster: &Cluster) -> Option<ReplicaId> {
    match &cluster.node(1).raft.role {
        Role::Leader(leader) => leader.transferee(),
        _ => panic!("1 leads"),
    }
}

#[test]
fn a_leader_that_has_left_tries_again_to_hand_over_unless_it_is_to_stay() {
    for on_removal in [OnRemoval::HandOver, OnRemoval::KeepLeading] {
        let config = Config { on_removal, ..test_config(7) };
        let mut cluster = Cluster::with(Membership::of_voters((1..=3).map(ReplicaId)), config);
        cluster.elect(1);
        cluster.reconfigure(1, change(ChangeKind::Remove, 1)).expect("1 leads");
        pass_unheard(&mut cluster, 0);
        let keeps = on_removal == OnRemoval::KeepLeading;
        assert_eq!(transferee(&cluster).is_none(), keeps);
        if keeps {
            let now = cluster.now;
            assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now));
        }
        pass_unheard(&mut cluster, 50);
        assert!(transferee(&cluster).is_some());
        pass_unheard(&mut cluster, 50);
        assert_eq!(transferee(&cluster).is_none(), keeps, "{on_removal:?}");
    }
}
