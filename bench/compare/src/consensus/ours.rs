//! Outrigger's core, driven as a shard drives it: step, mirror, ask once.

use bytes::Bytes;
use outrigger::entry::{Entry, EntryKind};
use outrigger::group::LogCache;
use outrigger::id::{Index, ReplicaId, Tick};
use outrigger::raft::{
    Config, Effects, Entries, Fit, LogChange, Membership, Message, Raft, Recovered, RoleKind,
    Source,
};

use super::{BEATS, Idle, PAYLOAD_BYTES, Trio, freed_bytes, payloads};

/// The core alone: of an entry, its size is all there is.
pub(super) type Alone = Group<Sizes>;
/// The core with a node's log caches around it.
pub(super) type WithPayloads = Group<Payloads>;

/// Time stands still while entries are committed: elections are asked for, and nothing else waits.
const BEGIN: Tick = Tick(1000);

/// What a driver keeps of entries.
pub(super) trait Log: Entries {
    fn new() -> Self;

    /// New entries from `first` on: what was held there is superseded.
    fn propose(&mut self, first: Index, payloads: &[Bytes]);

    /// The core's own entry.
    fn push_empty(&mut self, first: Index);

    /// New entries from `first` on are those that `from` has there.
    fn copy(&mut self, first: Index, count: u32, from: &Self);

    /// Of these entries, how many are payloads; all are present and intact.
    fn apply(&mut self, first: Index, last: Index) -> u64;

    /// Nobody will ask for anything up to `last` any more.
    fn forget(&mut self, last: Index);
}

/// Every entry has the same size; which are empty is all that is known.
#[derive(Debug)]
pub(super) struct Sizes {
    last: Index,
    /// Where the leader opened its term.
    empty: Index,
}

impl Entries for Sizes {
    fn fit(&self, first: Index, last: Index, count_max: u32, bytes_max: u64) -> Fit {
        let count = (last.0 - first.0 + 1).min(u64::from(count_max));
        let count = count.min((bytes_max / PAYLOAD_BYTES as u64).max(1));
        Fit::Entries { count: count as u32, bytes: count * PAYLOAD_BYTES as u64 }
    }
}

impl Log for Sizes {
    fn new() -> Self {
        Self { last: Index(0), empty: Index(0) }
    }

    fn propose(&mut self, first: Index, payloads: &[Bytes]) {
        self.last = first.prev().plus(payloads.len() as u64);
    }

    fn push_empty(&mut self, first: Index) {
        (self.last, self.empty) = (first, first);
    }

    fn copy(&mut self, first: Index, count: u32, from: &Self) {
        (self.last, self.empty) = (first.prev().plus(u64::from(count)), from.empty);
    }

    fn apply(&mut self, first: Index, last: Index) -> u64 {
        assert!(last <= self.last, "applied before it was received");
        let has_empty = first <= self.empty && self.empty <= last;
        last.0 + 1 - first.0 - u64::from(has_empty)
    }

    fn forget(&mut self, _last: Index) {}
}

/// The cache that each replica of a node has.
#[derive(Debug)]
pub(super) struct Payloads(LogCache);

impl Entries for Payloads {
    fn fit(&self, first: Index, last: Index, count_max: u32, bytes_max: u64) -> Fit {
        self.0.fit(first, last, count_max, bytes_max)
    }
}

impl Log for Payloads {
    fn new() -> Self {
        Self(LogCache::new(Index(1)))
    }

    fn propose(&mut self, first: Index, payloads: &[Bytes]) {
        self.0.truncate(first);
        payloads.iter().for_each(|payload| self.0.push(Entry::command(payload.clone())));
    }

    fn push_empty(&mut self, first: Index) {
        self.0.truncate(first);
        self.0.push(Entry::empty());
    }

    fn copy(&mut self, first: Index, count: u32, from: &Self) {
        self.0.truncate(first);
        from.0.range(first, count).for_each(|entry| self.0.push(entry.clone()));
    }

    fn apply(&mut self, first: Index, last: Index) -> u64 {
        let count = (last.0 + 1 - first.0) as u32;
        let (mut held, mut commands) = (0, 0);
        for entry in self.0.range(first, count) {
            held += 1;
            commands += u64::from(entry.kind == EntryKind::Command);
            debug_assert!(entry.is_intact(), "a payload changed on the way");
        }
        assert_eq!(held, count, "applied before it was received");
        commands
    }

    fn forget(&mut self, last: Index) {
        self.0.evict(last, usize::MAX);
    }
}

struct Replica<L> {
    raft: Raft,
    log: L,
}

/// Three replicas and the wire between them.
pub(super) struct Group<L> {
    replicas: [Replica<L>; 3],
    applied: [Index; 3],
    commands: [u64; 3],
    /// Something happened to it since it was last asked what it wants.
    touched: [bool; 3],
    /// Being delivered.
    wire: Vec<Message>,
    fx: Effects,
    now: Tick,
}

impl<L: Log> Group<L> {
    fn mirror(&mut self, at: usize, change: Option<LogChange>, message: Option<&Message>) {
        let Some(LogChange { first, count, source }) = change else { return };
        match (source, message) {
            (Source::Message { .. }, Some(message)) => {
                let from = message.from.0 as usize - 1;
                let replicas = self.replicas.get_disjoint_mut([at, from]);
                let [to, from] = replicas.expect("nobody writes to himself");
                to.log.copy(first, count, &from.log);
            }
            (Source::Internal(_), _) => self.replicas[at].log.push_empty(first),
            (Source::Message { .. }, None) => unreachable!("entries come with a message"),
        }
    }

    /// Do what a replica asks for, until it asks for nothing. What it writes is durable at once; what
    /// it sends stays where it has put it.
    fn settle(&mut self, at: usize) {
        loop {
            let Replica { raft, log } = &mut self.replicas[at];
            if !raft.has_ready() {
                return;
            }
            raft.ready(self.now, log, &mut self.fx);
            let (persist, apply) = (self.fx.persist.take(), self.fx.apply.take());
            self.fx.role = None;
            self.fx.leader_ready = false;
            let change = persist.and_then(|persist| raft.on_durable(persist.seq, self.now));
            self.mirror(at, change, None);
            if let Some((first, last)) = apply {
                assert_eq!(first, self.applied[at].next(), "each entry once, in order");
                self.applied[at] = last;
                let Replica { raft, log } = &mut self.replicas[at];
                self.commands[at] += log.apply(first, last);
                let change = raft.on_applied(last);
                self.mirror(at, change, None);
            }
            if persist.is_none() && apply.is_none() {
                return;
            }
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
            assert!(self.fx.fetch.is_empty(), "everything is in memory");
            if self.fx.send.is_empty() {
                return;
            }
            // What is sent meanwhile arrives later.
            let mut wire = std::mem::take(&mut self.wire);
            std::mem::swap(&mut wire, &mut self.fx.send);
            for message in &wire {
                let to = message.to.0 as usize - 1;
                self.touched[to] = true;
                let change = self.replicas[to].raft.step(message, self.now);
                self.mirror(to, change, Some(message));
            }
            wire.clear();
            self.wire = wire;
        }
    }
}

impl<L: Log> Trio for Group<L> {
    fn elect(group: u64, seed: u64) -> Self {
        let replica = |id: u64| {
            let config = Config::new(ReplicaId(id), seed ^ group << 2 ^ id);
            let membership = Membership::of_voters((1..=3).map(ReplicaId));
            let recovered = Recovered { membership, ..Recovered::default() };
            Replica { raft: Raft::new(config, recovered, BEGIN), log: L::new() }
        };
        let mut group = Self {
            replicas: [1, 2, 3].map(replica),
            applied: [Index(0); 3],
            commands: [0; 3],
            touched: [true; 3],
            wire: Vec::new(),
            fx: Effects::default(),
            now: BEGIN,
        };
        let change = group.replicas[0].raft.campaign(BEGIN);
        group.mirror(0, change, None);
        group.run();
        assert_eq!(group.replicas[0].raft.status().role, RoleKind::Leader, "nobody else stood");
        group
    }

    fn commit(&mut self, payloads: &[Bytes]) {
        let bytes = payloads.len() * PAYLOAD_BYTES;
        let Replica { raft, log } = &mut self.replicas[0];
        let first = raft.propose(payloads.len() as u32, bytes as u64);
        log.propose(first.expect("it leads, and nothing is uncommitted"), payloads);
        self.touched[0] = true;
        self.run();
        // Everybody has everything; a node forgets when its budget is spent.
        let last = self.applied[0];
        self.replicas.iter_mut().for_each(|replica| replica.log.forget(last));
    }

    fn rest(&mut self) {
        for _ in 0..BEATS {
            self.now = self.replicas[0].raft.deadline();
            let change = self.replicas[0].raft.tick(self.now);
            self.mirror(0, change, None);
            self.touched[0] = true;
            self.run();
        }
    }

    fn commands(&self) -> [u64; 3] {
        self.commands
    }

    fn idle_bytes(groups: usize, seed: u64) -> Idle {
        let mut held = [0, 1, 2].map(|_| Vec::with_capacity(groups));
        let payloads = payloads(1, seed);
        for number in 0..groups {
            let mut group = Self::elect(number as u64, seed);
            group.commit(&payloads);
            group.rest();
            for (place, replica) in held.iter_mut().zip(group.replicas) {
                place.push(replica);
            }
        }
        let [leaders, followers, _others] = held;
        Idle { leader: freed_bytes(leaders), follower: freed_bytes(followers), log: None }
    }
}
