//! How a leader feeds its followers: one append of many terms, what goes with a handover, and what a
//! plain core leaves to its driver.

use crate::id::{Index, ReplicaId, Tick};
use crate::raft::*;

use super::harness::{Cache, Cluster, entry, message, test_config};

/// A cluster in which 1 leads, 3 holds only the first entry and is back on the wire, and the log has
/// an entry or two in each of several terms.
fn many_terms(config: Config) -> Cluster {
    let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
    cluster.elect(1);
    cluster.isolate(3);
    for leader in [2, 1, 2, 1] {
        cluster.now = cluster.now.plus(1000);
        cluster.elect(leader);
        cluster.propose(leader, 1).expect("it leads");
        cluster.settle();
    }
    assert_eq!(cluster.status(1).last, entry(5, 9));
    assert_eq!(cluster.status(3).last, entry(1, 1));
    cluster.cut.clear();
    cluster
}

/// The appends with entries that 1 sends to 3 when it learns that 3 has only the first entry.
fn fed(cluster: &mut Cluster) -> Vec<Message> {
    let mut refusal = message(MessageKind::AppendResponse, 3, 1, 5);
    (refusal.entry, refusal.reject, refusal.hint) = (entry(1, 7), true, Index(1));
    cluster.inject(refusal);
    cluster.turn(1);
    cluster.sent(MessageKind::Append, 3)
}

#[test]
fn a_log_of_many_terms_travels_as_one_append() {
    let mut cluster = many_terms(test_config(7));
    let train = fed(&mut cluster);
    let cars: Vec<_> = train.iter().map(|car| (car.entry, car.run_term.0, car.count)).collect();
    let expected =
        [(entry(1, 1), 2, 2), (entry(2, 3), 3, 2), (entry(3, 5), 4, 2), (entry(4, 7), 5, 2)];
    assert_eq!(cars, expected, "while probing, without waiting for an answer in between");
    let peer = cluster.status(1).progress().find(|peer| peer.id.0 == 3).expect("a member");
    assert!(peer.state == ProgressState::Probe && peer.is_paused, "one probe: {peer:?}");
    cluster.settle();
    assert_eq!(cluster.node(3).log, cluster.node(1).log);
}

#[test]
fn an_append_of_many_terms_is_one_in_the_window_and_bounded_as_one() {
    let config = Config { append_entries_max: 5, inflight_messages_max: 2, ..test_config(7) };
    let mut cluster = many_terms(config);
    let train = fed(&mut cluster);
    assert_eq!(
        train.iter().map(|car| car.count).sum::<u32>(),
        5,
        "as many entries as one may hold"
    );
    cluster.wire.clear();
    // All of it is accepted; what follows spans three terms again.
    let mut acceptance = message(MessageKind::AppendResponse, 3, 1, 5);
    acceptance.entry = entry(0, 3);
    cluster.inject(acceptance);
    cluster.turn(1);
    let peer = cluster.status(1).progress().find(|peer| peer.id.0 == 3).expect("a member");
    assert_eq!((peer.inflight_messages, peer.inflight_bytes), (2, 6), "5 entries, then 1");
    assert!(cluster.sent(MessageKind::Append, 3).len() > 2, "in more messages than that");
}

#[test]
fn a_refused_append_of_many_terms_is_refused_once() {
    let mut cluster = many_terms(test_config(7));
    let train = fed(&mut cluster);
    let mut refusal = message(MessageKind::AppendResponse, 3, 1, 5);
    (refusal.reject, refusal.hint) = (true, Index(0));
    // Each message of it is refused by a follower that lacks what comes before the first.
    for (at, car) in train.iter().enumerate() {
        refusal.entry = entry(0, car.entry.index.0);
        cluster.inject(refusal);
        let peer = cluster.status(1).progress().find(|peer| peer.id.0 == 3).expect("a member");
        assert_eq!(peer.next, Index(1), "after {} refusals: one above matched", at + 1);
    }
}

/// Whoever sends that speaks of another log. Counted, it would commit what nobody has.
#[test]
fn an_acceptance_of_what_was_never_written_is_ignored() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let (last, ignored) = (cluster.status(1).last, cluster.status(1).ignored);
    let mut acceptance = message(MessageKind::AppendResponse, 2, 1, last.term.0);
    acceptance.entry.index = last.index.next();
    cluster.inject(acceptance);
    assert_eq!(cluster.status(1).ignored, ignored + 1);
    let peer = cluster.status(1).progress().find(|peer| peer.id.0 == 2).expect("a member");
    assert!(peer.matched <= last.index, "{peer:?}");
}

#[test]
fn the_transferee_learns_what_is_committed_before_it_is_told_to_stand() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let now = cluster.now;
    cluster.isolate(3);
    cluster.propose(1, 1).expect("1 leads");
    cluster.turn(1);
    cluster.flush(1);
    assert!(cluster.node_mut(1).raft.transfer(ReplicaId(2), now));
    let mut acceptance = message(MessageKind::AppendResponse, 2, 1, 1);
    acceptance.entry = entry(0, 2);
    cluster.wire.clear();
    cluster.inject(acceptance);
    cluster.turn(1);
    let kinds: Vec<_> = cluster
        .wire
        .iter()
        .filter(|packet| packet.message.to.0 == 2)
        .map(|packet| (packet.message.kind, packet.message.commit))
        .collect();
    let expected = [(MessageKind::Append, Index(2)), (MessageKind::TimeoutNow, Index(0))];
    assert_eq!(kinds, expected);
}

#[test]
fn asking_twice_does_not_prolong_a_handover_and_asking_for_oneself_ends_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(3);
    let handed = |cluster: &mut Cluster, to| {
        let now = cluster.now;
        cluster.node_mut(1).raft.transfer(ReplicaId(to), now)
    };
    cluster.propose(1, 1).expect("1 leads");
    cluster.settle();
    assert!(handed(&mut cluster, 3));
    cluster.pass(60);
    assert!(handed(&mut cluster, 3), "it is under way");
    cluster.pass(60);
    cluster.propose(1, 1).expect("the first attempt was given up in time");
    assert!(handed(&mut cluster, 3));
    assert_eq!(cluster.propose(1, 1), Err(ProposeRefusal::Transferring));
    assert!(!handed(&mut cluster, 1));
    cluster.propose(1, 1).expect("the leader stays");
}

/// An answer to a leader of an earlier term must not look like a refusal to one of this term.
#[test]
fn telling_of_a_later_term_refuses_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.now = cluster.now.plus(1000);
    cluster.elect(2);
    cluster.inject(message(MessageKind::Heartbeat, 3, 1, 1));
    cluster.turn(1);
    let answers = cluster.sent(MessageKind::AppendResponse, 3);
    assert_eq!(answers.iter().map(|it| (it.term.0, it.reject)).collect::<Vec<_>>(), [(2, false)]);
}

/// What a plain core leaves to its driver it does not do itself as well.
#[test]
fn a_plain_core_counts_itself_only_when_told() {
    let config = Config { plain: true, pre_vote: false, ..test_config(7) };
    let membership = Membership::of_voters([ReplicaId(1)]);
    let recovered = Recovered { membership, ..Recovered::default() };
    let mut raft = Raft::new(config, recovered, Tick(0));
    let cache = Cache { missing_below: Index(0) };
    let turn = |raft: &mut Raft| {
        let mut fx = Effects::default();
        raft.ready(Tick(0), &cache, &mut fx);
        if let Some(persist) = fx.persist {
            assert_eq!(raft.on_durable(persist.seq, Tick(0)), None, "nothing waits in here");
        }
        fx.send
    };
    assert_eq!(raft.campaign(Tick(0)), None);
    let [vote] = turn(&mut raft)[..] else { panic!("one vote") };
    assert_eq!((vote.kind, vote.to), (MessageKind::VoteResponse, ReplicaId(1)));
    assert_eq!(raft.status().role, RoleKind::Candidate);
    assert!(raft.step(&vote, Tick(0)).is_some(), "the term is opened");
    let [own] = turn(&mut raft)[..] else { panic!("one acceptance") };
    assert_eq!((own.kind, own.entry.index), (MessageKind::AppendResponse, Index(1)));
    assert_eq!(raft.status().commit, Index(0));
    assert!(raft.step(&own, Tick(0)).is_none());
    assert_eq!(raft.status().commit, Index(1));
    // Anybody else takes nothing from itself.
    let mut other = Raft::new(test_config(7), Recovered::default(), Tick(0));
    assert!(other.step(&vote, Tick(0)).is_none());
    assert_eq!(other.status().ignored, 1);
}

fn progress(cluster: &Cluster, of: u64) -> ReplicaProgress {
    let found = cluster.status(1).progress().find(|peer| peer.id.0 == of);
    found.expect("1 leads and knows it")
}

#[test]
fn safety_point_20_a_budget_may_be_used_up_and_what_weighs_nothing_is_always_taken() {
    let config = Config { uncommitted_bytes_max: 10, ..test_config(7) };
    let lead = || {
        let membership = Membership::of_voters([1, 2, 3].map(ReplicaId));
        let mut cluster = Cluster::with(membership, config.clone());
        cluster.elect(1);
        cluster
    };
    let taken = |sizes: &[u64]| {
        let mut cluster = lead();
        let raft = &mut cluster.node_mut(1).raft;
        sizes.iter().map(|&bytes| raft.propose(1, bytes).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(taken(&[4, 6, 1]), [true, true, false]);
    assert_eq!(taken(&[11, 0, 1]), [true, true, false]);
}

/// A refusal that names no term is of a follower whose log does not reach so far.
#[test]
fn a_hint_without_a_term_is_taken_as_it_is() {
    let mut cluster = many_terms(test_config(7));
    let mut refusal = message(MessageKind::AppendResponse, 3, 1, 5);
    (refusal.entry, refusal.reject, refusal.hint) = (entry(0, 7), true, Index(4));
    cluster.inject(refusal);
    assert_eq!(progress(&cluster, 3).next, Index(5));
}

#[test]
fn mistake_5_only_an_acceptance_of_what_is_known_ends_probing() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 5).expect("1 leads");
    cluster.settle();
    cluster.node_mut(1).raft.on_unreachable(ReplicaId(3));
    for (index, state) in [(2, ProgressState::Probe), (6, ProgressState::Replicate)] {
        let mut acceptance = message(MessageKind::AppendResponse, 3, 1, 1);
        acceptance.entry.index = Index(index);
        cluster.inject(acceptance);
        assert_eq!(progress(&cluster, 3).state, state, "{index}");
    }
}

#[test]
fn whoever_accepts_what_is_committed_meanwhile_is_told_so_at_once() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.node_mut(1).raft.on_unreachable(ReplicaId(3));
    cluster.propose(1, 1).expect("1 leads");
    cluster.turn(1);
    cluster.flush(1);
    let accept = |cluster: &mut Cluster, from| {
        let mut acceptance = message(MessageKind::AppendResponse, from, 1, 1);
        acceptance.entry.index = Index(2);
        cluster.inject(acceptance);
        cluster.wire.clear();
        cluster.turn(1);
        let sent = cluster.sent(MessageKind::Append, 3);
        sent.iter().map(|it| (it.count, it.commit.0)).collect::<Vec<_>>()
    };
    assert_eq!(accept(&mut cluster, 2), [], "3 is probed, and has not answered");
    assert_eq!(cluster.status(1).commit, Index(2));
    assert_eq!(accept(&mut cluster, 3), [(0, 2)]);
}

#[test]
fn an_echo_of_a_read_that_nobody_asked_for_confirms_none_that_comes_later() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let mut echo = message(MessageKind::HeartbeatResponse, 2, 1, 1);
    echo.context = u64::MAX;
    cluster.inject(echo);
    cluster.read(1).expect("1 leads");
    cluster.turn(1);
    assert_eq!(cluster.node(1).reads_done, []);
}

#[test]
fn whoever_waits_for_entries_to_be_read_back_is_sent_nothing_meanwhile() {
    let mut cluster = Cluster::with_entries_out_of_memory();
    cluster.pass(20);
    assert!(progress(&cluster, 3).is_fetching);
    cluster.propose(1, 1).expect("1 leads");
    cluster.turn(1);
    assert_eq!(cluster.sent(MessageKind::Append, 3), []);
    assert_eq!(cluster.sent(MessageKind::Append, 2).len(), 1);
}

#[test]
fn safety_point_13_a_full_window_lets_an_empty_append_through_for_a_sign_of_life() {
    let config = Config { inflight_messages_max: 2, ..test_config(7) };
    let mut cluster = Cluster::with(Membership::of_voters([1, 2, 3].map(ReplicaId)), config);
    cluster.elect(1);
    for _ in 0..3 {
        cluster.propose(1, 1).expect("1 leads");
        cluster.turn(1);
    }
    assert_eq!(progress(&cluster, 3).inflight_messages, 2);
    cluster.wire.clear();
    cluster.inject(message(MessageKind::HeartbeatResponse, 3, 1, 1));
    cluster.turn(1);
    let sent = cluster.sent(MessageKind::Append, 3);
    assert_eq!(sent.iter().map(|it| it.count).collect::<Vec<_>>(), [0]);
}
