//! A transport of your own under the pure core: three nodes in one thread, over channels. No socket, no disk, no clock;
//! it needs `outrigger` without its default features, and runs on any operating system.
//!
//! ```sh
//! cargo run --example channels --no-default-features
//! ```
//!
//! ```text
//!  Shard 1 ─┐ frames as bytes  ┌─ channel ─► FrameReader ─► Event::Frame ─► Shard 2
//!           ├──────────────────┤
//!  Shard 3 ─┘                  └─ a log write is durable when the turn is over: Event::Flushed
//! ```
//!
//! What a transport owes the core: frames of one lane to one peer stay in order; what was dropped is reported
//! (`Event::Unreachable`, `Event::LinkBroken`, `Event::Unsent`); a write is reported durable when it is, and not before.

use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use outrigger::id::{ClusterId, ConnId, GroupId, Incarnation, NodeId, ShardId, Tick};
use outrigger::shard::event::{Call, GroupCommand};
use outrigger::shard::{Config, Effects, Event, Leases, Recovering, Shard};
use outrigger::store::command::Access;
use outrigger::store::connection::Manner;
use outrigger::wire::FrameReader;
use outrigger::wire::reply::Reply;
use outrigger::wire::resp::Command;

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// A shard, and what comes in from each peer: bytes, as a socket would bring them, cut anywhere.
struct Node {
    shard: Shard,
    effects: Effects,
    inbox: Receiver<(NodeId, Bytes)>,
    readers: [FrameReader; 3],
}

fn config(node: NodeId) -> Config {
    Config {
        cluster: ClusterId(1),
        node,
        incarnation: Incarnation(1),
        shard: ShardId(0),
        cores: 1,
        groups: 1,
        nodes: NODES.to_vec(),
        addresses: Vec::new(),
        election_ms: 100,
        heartbeat_ms: 10,
        priority: 100,
        request_ms: 1_000,
        flushes_in_flight: 2,
        flush_joins_bytes: 0,
        leases: Leases::default(),
        log_cache_bytes: 1 << 20,
        log_bytes: 1 << 30,
        snapshot_bytes_per_s: 64 << 20,
        seed: node.0,
    }
}

impl Node {
    fn new(node: NodeId, inbox: Receiver<(NodeId, Bytes)>) -> Node {
        let (shard, _) =
            Recovering::new(config(node)).finish(Tick(0)).expect("an empty log is new");
        let readers = [(); 3].map(|()| FrameReader::new());
        Node { shard, effects: Effects::default(), inbox, readers }
    }

    /// Everything that came in, one turn, and everything it asks for. Returns the replies to calls.
    fn turn(&mut self, now: Tick, this: NodeId, wires: &[Sender<(NodeId, Bytes)>]) -> Vec<Reply> {
        while let Ok((from, bytes)) = self.inbox.try_recv() {
            let reader = &mut self.readers[from.0 as usize - 1];
            reader.feed(&bytes);
            while let Some(frame) = reader.next().expect("a channel flips no bits") {
                self.shard.on_event(now, Event::Frame(frame));
            }
        }
        self.shard.turn(now, &mut self.effects);
        for (to, frame) in self.effects.frames.drain(..) {
            let _ = wires[to.0 as usize - 1].send((this, frame.to_bytes()));
            self.shard.reuse_frame(frame);
        }
        if let Some(segment) = self.effects.spare.take() {
            self.shard.on_event(now, Event::SpareReady(segment));
        }
        for write in self.effects.writes.drain(..) {
            // Here is where a disk would come in: `write.encode_into`, write, flush.
            self.shard.on_event(now, Event::Flushed(write.ticket));
            self.shard.reuse_write(write);
        }
        let replies = self.effects.replies.drain(..);
        replies.filter(|reply| reply.conn == ConnId::EMBEDDER).map(|reply| reply.reply).collect()
    }
}

fn main() {
    println!("{:?}", run());
}

/// Has a group of three agree on a write that is made at a follower, and reads it back at each. Returns what each node read.
pub fn run() -> Vec<Reply> {
    let (wires, inboxes): (Vec<_>, Vec<_>) = NODES.iter().map(|_| channel()).unzip();
    let mut nodes: Vec<Node> =
        NODES.into_iter().zip(inboxes).map(|(node, inbox)| Node::new(node, inbox)).collect();
    let (mut asked, mut answers) = (0, Vec::new());
    // A call is made through one node after the other: the write at a follower, then a read at each.
    for now in (0..10_000).map(Tick) {
        let led = |node: &Node| node.shard.replicas()[0].status().leader.is_some();
        if asked == answers.len() && nodes.iter().all(led) {
            let follower = |node: &&mut Node| !node.shard.replicas()[0].status().leader_ready;
            let (words, access): (&[&[u8]], _) = match asked {
                0 => (&[b"SET", b"greeting", b"hello"], Access::Write),
                _ => (&[b"GET", b"greeting"], Access::Read),
            };
            let command = GroupCommand {
                group: GroupId(0),
                access,
                after_writes: false,
                manner: Manner::default(),
                session: None,
                body: Command::from_args(words).raw,
            };
            let node = match asked {
                0 => nodes.iter_mut().find(follower).expect("two of three follow"),
                1..=3 => &mut nodes[asked - 1],
                _ => return answers.split_off(1),
            };
            node.shard.on_event(now, Event::Call(Call { seq: asked as u64, command }));
            asked += 1;
        }
        for (node, this) in nodes.iter_mut().zip(NODES) {
            answers.extend(node.turn(now, this, &wires));
        }
    }
    panic!("no agreement within ten seconds of their time: {answers:?}")
}
