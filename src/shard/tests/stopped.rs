//! A replica whose machine has stopped takes part in nothing any more. Clients of its node go on all the same: their
//! commands are sent to whoever leads the others, and after a change of leader to the next one.

use super::*;
use crate::raft::effects::RoleKind;
use crate::store::batch::{Batch, Stop};
use crate::store::{Frozen, Restoring, StateMachine, Wanted, whole};
use crate::wire::peer::OutFrame;

/// Cannot execute anything.
struct Full;

impl StateMachine for Full {
    fn apply_batch(&mut self, batch: &mut Batch<'_>) -> Result<(), Stop> {
        match batch.next_entry() {
            Some(_) => Err(Stop::Group("its table is full".into())),
            None => Ok(()),
        }
    }
    fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
        unreachable!("the replica calls `apply_batch`")
    }
    fn read(&self, _: &Bytes) -> Reply {
        Reply::Nil
    }
    fn digest(&self) -> u64 {
        0
    }
    fn len(&self) -> u64 {
        0
    }
    fn freeze(&self) -> Box<dyn Frozen> {
        whole::frozen(Bytes::new())
    }
    fn restoring(&self) -> Box<dyn Restoring> {
        whole::restoring(|_| Some(Box::new(Full)))
    }
}

/// `node` says something in the term of this number.
fn message(node: u64, kind: MessageKind, term: u64) -> Message {
    Message::new(kind, ReplicaId(node), ReplicaId(1), Term(term))
}

fn hear(shard: &mut Shard, node: u64, message: &Message, entries: &[&Entry]) {
    let heard = frame_of(node, |it| it.message(GroupId(0), message, entries.iter().copied()));
    shard.on_event(NOW, Event::Frame(heard));
    turns(shard, NOW);
}

/// The replica of node 1 of three, which followed node 2 in term 5 until its machine stopped at the first command.
fn stopped() -> Shard {
    let config = config(&[1, 2, 3], 1, 1);
    let recovering = Recovering::with_machines(config, &|_| Box::new(Full));
    let mut shard = recovering.finish(NOW).expect("an empty log").0;
    let mut append = message(2, MessageKind::Append, 5);
    (append.run_term, append.count, append.commit) = (Term(5), 1, Index(1));
    let set = Entry::command(Command::from_args(&[b"SET", b"k", b"v"]).raw);
    hear(&mut shard, 2, &append, &[&set]);
    let status = shard.replicas()[0].status();
    assert!(status.failure.is_some(), "{status:?}");
    assert_eq!((status.role, status.leader), (RoleKind::Follower, ReplicaId::NONE));
    shard
}

/// The node that a command is forwarded to.
fn forwarded_to(shard: &mut Shard, line: &str) -> NodeId {
    say(shard, line);
    let fx = turns(shard, NOW);
    assert!(fx.replies.is_empty(), "{:?}", fx.replies);
    let carries = |(_, frame): &&(NodeId, OutFrame)| !frame.forwards.is_empty();
    fx.frames.iter().find(carries).expect("it is forwarded").0
}

#[test]
fn a_stopped_replica_sends_clients_to_the_leader_that_the_others_have() {
    let mut shard = stopped();
    for line in ["SET k v", "GET k"] {
        assert_eq!(forwarded_to(&mut shard, line), NodeId(2), "{line}: it led then");
    }
    // What does not lead is no leader, though its term is newer; nor is what is older.
    hear(&mut shard, 3, &message(3, MessageKind::PreVote, 9), &[]);
    hear(&mut shard, 3, &message(3, MessageKind::Vote, 9), &[]);
    hear(&mut shard, 3, &message(3, MessageKind::Heartbeat, 4), &[]);
    assert_eq!(forwarded_to(&mut shard, "SET k v"), NodeId(2));

    // Each of these says who leads; the replica itself heeds none of them.
    let mut append = message(2, MessageKind::Append, 10);
    append.entry = EntryId { term: Term(5), index: Index(1) };
    let heartbeat = |node, term| message(node, MessageKind::Heartbeat, term);
    let snapshot = message(3, MessageKind::Snapshot, 11);
    for (node, message) in [(3, heartbeat(3, 9)), (2, append), (3, snapshot), (2, heartbeat(2, 12))]
    {
        hear(&mut shard, node, &message, &[]);
        for line in ["SET k v", "GET k"] {
            assert_eq!(forwarded_to(&mut shard, line), NodeId(node), "{message:?}");
        }
        assert_eq!(shard.replicas()[0].status().term, Term(5));
    }
}

#[test]
fn a_stopped_replica_redirects_a_cluster_client_to_the_new_leader() {
    let mut shard = stopped();
    let at = |node: u64| (NodeId(node), ([127, 0, 0, 1], 7_000 + node as u16).into());
    shard.on_event(NOW, Event::ClientAddresses([at(1), at(2), at(3)].into()));
    hear(&mut shard, 3, &message(3, MessageKind::Heartbeat, 6), &[]);
    let manner = Manner { redirects: true, ..Manner::default() };
    let command = Command::from_args(&[b"GET", b"foo"]);
    let request = Request { conn: ConnId(1), seq: 0, command, after_writes: false, manner };
    shard.on_event(NOW, Event::Request(request));
    let replies = turns(&mut shard, NOW).replies;
    assert_eq!(replies[0].reply.error_text(), "MOVED 12182 127.0.0.1:7003");
}
