//! What a replica of an idle group costs, and that it gives back only what nobody misses.

use super::harness::Cluster;
use crate::id::{Index, ReplicaId, Term, Tick};
use crate::raft::message::MessageKind;
use crate::raft::progress::Progress;
use crate::raft::rest::Rare;
use crate::raft::state::{Leader, Role};
use crate::raft::{Failure, Raft, TransferEnd};

/// Bytes of a replica that rests: itself, its members, and if it leads what it knows of them. What is not
/// counted here is asserted to be nothing.
fn resting_bytes(raft: &Raft) -> usize {
    assert!(raft.rare.is_none() && raft.echo.is_none());
    assert!(raft.outbox.holds_nothing() && raft.promises.holds_nothing());
    assert!(raft.log.holds_nothing());
    let members = &raft.membership;
    let sets = [&members.incoming, &members.outgoing, &members.learners, &members.learners_next];
    let ids: usize = sets.iter().map(|set| set.len()).sum();
    let mut bytes = size_of::<Raft>() + ids * size_of::<ReplicaId>();
    if let Role::Leader(leader) = &raft.role {
        assert!(leader.reads.is_none() && leader.transfer.is_none());
        assert!(leader.uncommitted.holds_nothing());
        assert!(leader.peers.iter().all(|peer| peer.inflights.holds_nothing()));
        bytes += size_of::<Leader>() + leader.peers.capacity() * size_of::<Progress>();
    }
    bytes
}

#[test]
fn a_replica_of_an_idle_group_takes_no_more_than_600_bytes() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, 1).expect("it leads");
    cluster.settle();
    cluster.pass(3 * cluster.config.heartbeat_ticks);
    let [leader, follower, other] = [1, 2, 3].map(|id| resting_bytes(&cluster.node(id).raft));
    assert!(follower <= 440 && other == follower, "a follower takes {follower} bytes");
    assert!(leader <= 864, "a leader takes {leader} bytes");
    assert!((leader + 2 * follower) / 3 <= 600, "on the mean {}", (leader + 2 * follower) / 3);
}

#[test]
fn a_replica_at_work_keeps_its_memory() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for _ in 0..20 {
        cluster.propose(1, 1).expect("it leads");
        cluster.settle();
        cluster.pass(cluster.config.heartbeat_ticks);
        for id in [1, 2, 3] {
            assert!(!cluster.node(id).raft.log.holds_nothing(), "{id} will write again");
        }
    }
    cluster.pass(3 * cluster.config.heartbeat_ticks);
    cluster.propose(1, 5).expect("it leads");
    cluster.settle();
    cluster.pass(cluster.config.heartbeat_ticks);
    for id in [1, 2, 3] {
        assert_eq!(cluster.status(id).commit, Index(26), "{id} goes on where it was");
    }
}

#[test]
fn what_is_under_way_is_not_given_back() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    // One follower does not hear the entry, the other does not finish writing it.
    cluster.isolate(3);
    cluster.held.insert(2);
    cluster.propose(1, 1).expect("it leads");
    cluster.settle();
    cluster.pass(4 * cluster.config.heartbeat_ticks);
    assert_eq!(cluster.status(1).uncommitted_bytes, 1);
    assert!(!cluster.node(2).raft.promises.is_empty(), "an acceptance waits for the disk");
    cluster.held.clear();
    cluster.cut.clear();
    cluster.pass(4 * cluster.config.heartbeat_ticks);
    for id in [1, 2, 3] {
        assert_eq!(cluster.status(id).commit, Index(2), "{id}");
    }
}

/// The answer to a heartbeat is kept apart from other messages, and leaves where it would have.
#[test]
fn an_answer_to_a_heartbeat_keeps_its_place() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.cut.insert((1, 3));
    cluster.propose(1, 1).expect("it leads");
    cluster.settle();
    cluster.cut.clear();
    cluster.now = cluster.now.plus(cluster.config.heartbeat_ticks);
    cluster.tick(1);
    cluster.turn(1);
    let heartbeat = cluster.sent(MessageKind::Heartbeat, 2)[0];
    let now = cluster.now;
    let empty = crate::raft::Message {
        kind: MessageKind::Append,
        entry: crate::id::EntryId { term: heartbeat.term, index: Index(2) },
        ..heartbeat
    };
    let (echo, acceptance) = (MessageKind::HeartbeatResponse, MessageKind::AppendResponse);
    for (messages, answers) in [
        (&[heartbeat, empty, heartbeat][..], &[echo, acceptance, echo][..]),
        (&[empty, heartbeat], &[acceptance, echo]),
        (&[heartbeat, heartbeat], &[echo, echo]),
    ] {
        for message in messages {
            let change = cluster.node_mut(2).raft.step(message, now);
            assert_eq!(change, None, "nothing is new");
        }
        cluster.wire.clear();
        cluster.turn(2);
        let kinds: Vec<_> = cluster.wire.iter().map(|packet| packet.message.kind).collect();
        assert_eq!(kinds, answers);
    }
}

#[test]
fn the_books_of_reads_go_when_all_are_answered_and_not_before() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let has_books = |cluster: &Cluster| match &cluster.node(1).raft.role {
        Role::Leader(leader) => leader.reads.is_some(),
        _ => panic!("1 leads"),
    };
    cluster.isolate(1);
    let seq = cluster.read(1).expect("it leads");
    cluster.pass(4 * cluster.config.heartbeat_ticks);
    assert!(cluster.node(1).reads_done.is_empty() && has_books(&cluster));
    cluster.cut.clear();
    cluster.pass(4 * cluster.config.heartbeat_ticks);
    assert_eq!(cluster.node(1).reads_done.iter().map(|it| it.seq).collect::<Vec<_>>(), [seq]);
    assert!(!has_books(&cluster));
}

#[test]
fn what_is_rare_is_kept_as_long_as_anything_is_in_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let kept = |edit: fn(&mut Rare)| {
        let mut raft = cluster.node(1).raft.clone();
        edit(raft.rare());
        raft.rest();
        raft.rest();
        raft.rare.is_some()
    };
    assert!(!kept(|_| {}));
    let edits: [fn(&mut Rare); 7] = [
        |it| it.failure = Some(Failure::RecoveredNonsense),
        |it| it.ignored = 1,
        |it| it.called = Some(Term(9)),
        |it| it.promised_until = Tick(9),
        |it| it.handing = Some(ReplicaId(2)),
        |it| it.asked.count = 1,
        |it| it.transfer_end = Some(TransferEnd { to: ReplicaId(2), done: false }),
    ];
    assert!(edits.into_iter().all(kept));
}
