//! The `raft` crate with its own in-memory storage, driven as its documentation says.

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};

use super::{BEATS, Idle, Trio, freed_bytes, payloads};

/// The storage forgets what is applied when it holds so many entries.
const COMPACT: u64 = 4096;

/// Three replicas and the wire between them.
pub(super) struct Group {
    nodes: [RawNode<MemStorage>; 3],
    applied: [u64; 3],
    commands: [u64; 3],
    /// Something happened to it since it was last asked what it wants.
    touched: [bool; 3],
    wire: Vec<Message>,
    compacted: u64,
}

impl Group {
    fn apply(&mut self, at: usize, entries: Vec<Entry>) {
        for entry in entries {
            assert_eq!(entry.index, self.applied[at] + 1, "each entry once, in order");
            self.applied[at] = entry.index;
            // The entry that opens a term is empty.
            self.commands[at] += u64::from(!entry.data.is_empty());
        }
    }

    /// Do what a replica asks for, until it asks for nothing. What it writes is durable at once.
    fn settle(&mut self, at: usize) {
        while self.nodes[at].has_ready() {
            let mut ready = self.nodes[at].ready();
            self.wire.extend(ready.take_messages());
            self.apply(at, ready.take_committed_entries());
            let node = &mut self.nodes[at];
            if !ready.entries().is_empty() {
                let appended = node.store().wl().append(ready.entries());
                appended.expect("the entries follow those before");
            }
            if let Some(state) = ready.hs() {
                node.store().wl().set_hardstate(state.clone());
            }
            self.wire.extend(ready.take_persisted_messages());
            let mut light = node.advance(ready);
            if let Some(commit) = light.commit_index() {
                node.store().wl().mut_hard_state().set_commit(commit);
            }
            self.wire.extend(light.take_messages());
            self.apply(at, light.take_committed_entries());
            self.nodes[at].advance_apply();
        }
    }

    /// Deliver messages until there are none.
    fn run(&mut self) {
        loop {
            for at in 0..3 {
                if std::mem::take(&mut self.touched[at]) {
                    self.settle(at);
                }
            }
            if self.wire.is_empty() {
                return;
            }
            // What is sent meanwhile arrives later.
            let mut wire = std::mem::take(&mut self.wire);
            for message in wire.drain(..) {
                let to = message.to as usize - 1;
                self.touched[to] = true;
                self.nodes[to].step(message).expect("members understand each other");
            }
            self.wire = wire;
        }
    }
}

impl Trio for Group {
    fn elect(_group: u64, _seed: u64) -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = |id| {
            // As ours: the same bound of bytes in an append, and the same safety.
            let config = Config {
                max_size_per_msg: outrigger::limits::APPEND_BYTES_MAX,
                check_quorum: true,
                pre_vote: true,
                ..Config::new(id)
            };
            let storage = MemStorage::new_with_conf_state((vec![1, 2, 3], vec![]));
            RawNode::new(&config, storage, &logger).expect("the configuration is sound")
        };
        let nodes = [1, 2, 3].map(node);
        let mut group = Self {
            nodes,
            applied: [0; 3],
            commands: [0; 3],
            touched: [true; 3],
            wire: Vec::new(),
            compacted: 0,
        };
        // The storage is born with a snapshot.
        for (applied, node) in group.applied.iter_mut().zip(&group.nodes) {
            *applied = node.raft.raft_log.applied;
        }
        group.nodes[0].campaign().expect("it is a voter");
        group.run();
        assert_eq!(group.nodes[0].raft.state, StateRole::Leader, "nobody else stood");
        group
    }

    fn commit(&mut self, payloads: &[Bytes]) {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = 1;
        let entry = |payload: &Bytes| Entry { data: payload.clone(), ..Entry::default() };
        message.entries = payloads.iter().map(entry).collect::<Vec<_>>().into();
        self.nodes[0].step(message).expect("it leads");
        self.touched[0] = true;
        self.run();
        if self.compacted + COMPACT <= self.applied[0] {
            self.compacted = self.applied[0];
            for node in &self.nodes {
                // The last entry stays: without one the storage forgets where it is.
                node.store().wl().compact(self.compacted).expect("it is applied everywhere");
            }
        }
    }

    fn rest(&mut self) {
        for _ in 0..BEATS {
            for _ in 0..self.nodes[0].raft.heartbeat_timeout() {
                for at in 0..3 {
                    self.touched[at] |= self.nodes[at].tick();
                }
            }
            self.run();
        }
        // It has a way to give memory back, for its driver to use.
        self.nodes.iter_mut().for_each(|node| node.raft.maybe_free_inflight_buffers());
    }

    fn commands(&self) -> [u64; 3] {
        self.commands
    }

    fn idle_bytes(groups: usize, seed: u64) -> Idle {
        let mut held = [0, 1, 2].map(|_| Vec::with_capacity(groups));
        let mut storages = Vec::with_capacity(groups);
        let payloads = payloads(1, seed);
        for number in 0..groups {
            let mut group = Self::elect(number as u64, seed);
            group.commit(&payloads);
            group.rest();
            let last = group.applied[0];
            for (place, node) in held.iter_mut().zip(group.nodes) {
                node.store().wl().compact(last).expect("it is applied");
                place.push(node);
            }
        }
        let [leaders, followers, others] = held;
        // A storage is freed with the last that names it.
        storages.extend(others.iter().map(|node| node.store().clone()));
        let node = freed_bytes(others);
        let log = freed_bytes(storages) - size_of::<MemStorage>() as f64;
        let follower = freed_bytes(followers);
        debug_assert!((follower - node - log).abs() < 64.0, "{follower} is not {node} and {log}");
        Idle { leader: freed_bytes(leaders), follower, log: Some(log) }
    }
}
