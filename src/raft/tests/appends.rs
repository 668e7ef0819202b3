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
