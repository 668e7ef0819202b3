//! N cores, N disks, one wire, and a judge that sees everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::entry::EntryKind;
use crate::id::{EntryId, Index, ReplicaId, Term, Tick};
use crate::raft::*;

/// An entry as the judge sees it: its term and a value nobody else has (0: the empty entry; [`LEAVE`]).
pub(super) type Held = (Term, u64);

/// The value of an entry by which a leader leaves a joint membership.
const LEAVE: u64 = u64::MAX;

/// What one power cut leaves behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) log: Vec<Held>,
}

#[derive(Debug, Clone)]
pub(super) struct Write {
    seq: PersistSeq,
    hard_state: HardState,
    first: Index,
    entries: Vec<Held>,
}

impl Disk {
    fn take(&mut self, write: &Write) {
        self.hard_state = write.hard_state;
        if !write.entries.is_empty() {
            self.log.truncate(write.first.prev().0 as usize);
            assert_eq!(self.log.len() as u64, write.first.prev().0, "a write left a gap");
            self.log.extend(&write.entries);
        }
    }

    fn recovered(&self, membership: &Membership, applied: Index) -> Recovered {
        let mut runs: Vec<TermRun> = Vec::new();
        for (at, &(term, _)) in self.log.iter().enumerate() {
            if runs.last().is_none_or(|run| run.term != term) {
                runs.push(TermRun { start: Index(at as u64 + 1), term });
            }
        }
        Recovered {
            hard_state: self.hard_state,
            membership: membership.clone(),
            runs,
            last: Index(self.log.len() as u64),
            applied,
            ..Recovered::default()
        }
    }

    fn holds(&self, index: Index, entry: Held) -> bool {
        self.log.get(index.prev().0 as usize) == Some(&entry)
    }
}

/// The driver's log cache: one byte per entry, except that everything before `missing_below` has to
/// be read back.
pub(super) struct Cache {
    pub(super) missing_below: Index,
}

impl Entries for Cache {
    fn fit(&self, first: Index, last: Index, count_max: u32, bytes_max: u64) -> Fit {
        if first < self.missing_below {
            return Fit::Missing;
        }
        let count = (last.0 - first.0 + 1).min(u64::from(count_max)).min(bytes_max.max(1));
        Fit::Entries { count: count as u32, bytes: count }
    }
}

pub(super) struct Node {
    pub(super) raft: Raft,
    pub(super) log: Vec<Held>,
    pub(super) cache: Cache,
    pub(super) disk: Disk,
    pub(super) writes: VecDeque<Write>,
    pub(super) fetches: Vec<Fetch>,
    pub(super) applied: Index,
    /// By sequence number: what was committed anywhere when the read came.
    reads: BTreeMap<u64, Index>,
    pub(super) reads_done: Vec<ReadReady>,
    pub(super) leader_ready: u32,
    pub(super) roles: Vec<RoleEvent>,
    pub(super) transfers: Vec<TransferEnd>,
    /// Changes of membership that could not be made when they were applied.
    pub(super) void: u64,
    pub(super) restored: u64,
    pub(super) incarnation: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) message: Message,
    pub(super) values: Vec<Held>,
}

/// The world. Replicas are numbered from 1.
pub(super) struct Cluster {
    pub(super) now: Tick,
    /// At the beginning; what became of it is in the log.
    pub(super) membership: Membership,
    /// Changes of membership, by the value of their entry.
    pub(super) changes: BTreeMap<u64, ConfChange>,
    pub(super) config: Config,
    pub(super) nodes: Vec<Node>,
    pub(super) wire: VecDeque<Packet>,
    /// Pairs (from, to) whose messages vanish.
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// Nodes whose disks do not finish by themselves in `settle`.
    pub(super) held: BTreeSet<u64>,
    pub(super) committed: Vec<Held>,
    /// Messages were made by hand, so what a leader claims to be committed need not be.
    scripted: bool,
    /// Messages say what nobody would: of the group as a whole nothing holds any more (see `nonsense`).
    pub(super) lies: bool,
    leaders: BTreeMap<Term, (ReplicaId, u64)>,
    next_value: u64,
}

impl Cluster {
    pub(super) fn new(voters: u64) -> Self {
        Self::with(Membership::of_voters((1..=voters).map(ReplicaId)), test_config(7))
    }

    /// Three, of which 1 leads. Of what 3 lacks, 2 to 4, nothing is in the leader's memory any more.
    pub(super) fn with_entries_out_of_memory() -> Self {
        let mut cluster = Self::new(3);
        cluster.elect(1);
        cluster.isolate(3);
        cluster.propose(1, 3).expect("1 leads");
        cluster.settle();
        cluster.node_mut(1).cache.missing_below = Index(5);
        cluster.node_mut(1).raft.on_unreachable(ReplicaId(3));
        cluster.cut.clear();
        cluster
    }

    pub(super) fn with(membership: Membership, config: Config) -> Self {
        let count = membership.members().count() as u64;
        Self::with_strangers(membership, config, count)
    }

    /// `count` nodes, of which some do not belong yet.
    pub(super) fn with_strangers(membership: Membership, config: Config, count: u64) -> Self {
        let mut cluster = Self {
            now: Tick(1000),
            membership,
            changes: BTreeMap::from([(LEAVE, ConfChange::default())]),
            config,
            nodes: Vec::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            committed: Vec::new(),
            scripted: false,
            lies: false,
            leaders: BTreeMap::new(),
            next_value: 0,
        };
        for id in 1..=count {
            let node = cluster.boot(id, 0, Disk::default(), Index(0), None);
            cluster.nodes.push(node);
        }
        cluster
    }

    fn boot(
        &self,
        id: u64,
        incarnation: u64,
        disk: Disk,
        applied: Index,
        forgotten: Option<Forgotten>,
    ) -> Node {
        let seed = self.config.seed ^ (id << 32) ^ (incarnation << 40);
        let config = Config { id: ReplicaId(id), seed, ..self.config.clone() };
        let membership = self.membership_at(&disk.log, applied);
        let recovered = Recovered { forgotten, ..disk.recovered(&membership, applied) };
        let mut raft = Raft::new(config, recovered, self.now);
        for (at, (_, value)) in disk.log.iter().enumerate() {
            if self.changes.contains_key(value) {
                raft.note_config(Index(at as u64 + 1));
            }
        }
        Node {
            raft,
            log: disk.log.clone(),
            cache: Cache { missing_below: Index(0) },
            disk,
            writes: VecDeque::new(),
            fetches: Vec::new(),
            applied,
            reads: BTreeMap::new(),
            reads_done: Vec::new(),
            leader_ready: 0,
            roles: Vec::new(),
            transfers: Vec::new(),
            void: 0,
            restored: 0,
            incarnation,
        }
    }

    /// Who belongs when the first `applied` entries of `log` are applied.
    pub(super) fn membership_at(&self, log: &[Held], applied: Index) -> Membership {
        let applied = log.iter().take(applied.0 as usize);
        let changes = applied.filter_map(|(_, value)| self.changes.get(value));
        changes.fold(self.membership.clone(), |now, change| now.changed(change).unwrap_or(now))
    }

    pub(super) fn node(&self, id: u64) -> &Node {
        &self.nodes[id as usize - 1]
    }

    pub(super) fn node_mut(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    pub(super) fn status(&self, id: u64) -> Status<'_> {
        self.node(id).raft.status()
    }

    pub(super) fn ids(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.nodes.len() as u64
    }

    pub(super) fn leads(&self, id: u64) -> bool {
        self.status(id).role == RoleKind::Leader
    }

    /// The power fails. Of what was being written the first `kept` writes reached the disk.
    pub(super) fn crash(&mut self, id: u64, kept: usize, applied: Index) {
        let node = self.node_mut(id);
        for write in node.writes.iter().take(kept).cloned().collect::<Vec<_>>() {
            node.disk.take(&write);
        }
        let (disk, incarnation) = (node.disk.clone(), node.incarnation + 1);
        let applied = applied.min(node.applied);
        *self.node_mut(id) = self.boot(id, incarnation, disk, applied, None);
        assert_eq!(self.status(id).failure, None, "{id} cannot recover");
    }

    /// The power fails, and of the log the disk kept the first `kept` entries, and all that are applied.
    pub(super) fn lose(&mut self, id: u64, kept: usize, forgotten: Forgotten) {
        let node = self.node(id);
        let (mut disk, applied) = (node.disk.clone(), node.applied);
        disk.log.truncate(kept.max(applied.0 as usize));
        disk.hard_state.commit = disk.hard_state.commit.min(Index(disk.log.len() as u64));
        let incarnation = node.incarnation + 1;
        *self.node_mut(id) = self.boot(id, incarnation, disk, applied, Some(forgotten));
        assert_eq!(self.status(id).failure, None, "{id} cannot recover");
    }

    fn mirror(&mut self, id: u64, change: Option<LogChange>, values: &[Held]) {
        let term = self.status(id).term;
        let Some(change) = change else { return };
        let node = self.node_mut(id);
        node.log.truncate(change.first.prev().0 as usize);
        assert_eq!(node.log.len() as u64, change.first.prev().0, "a change left a gap");
        match change.source {
            Source::Message { skip } => {
                let new = &values[skip as usize..];
                assert_eq!(new.len(), change.count as usize);
                node.log.extend(new);
            }
            Source::Internal(kind) => {
                assert_eq!(change.count, 1);
                node.log.push((term, if kind == EntryKind::Config { LEAVE } else { 0 }));
            }
        }
        for index in change.first.0..=self.node(id).log.len() as u64 {
            let (_, value) = self.node(id).log[index as usize - 1];
            if self.changes.contains_key(&value) {
                self.node_mut(id).raft.note_config(Index(index));
            }
        }
        self.judge(id);
    }

    pub(super) fn campaign(&mut self, id: u64) {
        let now = self.now;
        let change = self.node_mut(id).raft.campaign(now);
        self.mirror(id, change, &[]);
    }

    pub(super) fn tick(&mut self, id: u64) {
        let now = self.now;
        let change = self.node_mut(id).raft.tick(now);
        self.mirror(id, change, &[]);
    }

    pub(super) fn receive(&mut self, packet: &Packet) {
        if packet.message.kind == MessageKind::Snapshot && !packet.values.is_empty() {
            return self.install(packet);
        }
        let (now, id) = (self.now, packet.message.to.0);
        let change = self.node_mut(id).raft.step(&packet.message, now);
        self.mirror(id, change, &packet.values);
        self.judge(id);
    }

    /// A snapshot arrives whole: its data becomes durable behind every write before it, and then the
    /// core decides.
    fn install(&mut self, packet: &Packet) {
        let (now, id) = (self.now, packet.message.to.0);
        while self.flush(id) {}
        let membership = self.membership_at(&packet.values, packet.message.entry.index);
        let node = self.node_mut(id);
        if node.raft.restore(&packet.message, membership, now) == Restored::Yes {
            let status = node.raft.status();
            assert_eq!((status.applied, status.commit), (status.last.index, status.last.index));
            node.applied = status.applied;
            node.restored += 1;
            node.log.clone_from(&packet.values);
            node.disk.log.clone_from(&packet.values);
            let (term, vote) = (node.disk.hard_state.term, node.disk.hard_state.vote);
            node.disk.hard_state = HardState { term, vote, commit: node.applied };
            // What the record of the snapshot is written with.
            let last = packet.message.entry.term;
            if node.disk.hard_state.term < last {
                node.disk.hard_state =
                    HardState { term: last, vote: ReplicaId::NONE, commit: node.applied };
            }
        }
        self.judge(id);
    }

    /// A message made by hand, with values nobody has.
    pub(super) fn inject(&mut self, message: Message) {
        self.scripted = true;
        let values = (0..u64::from(message.count)).map(|_| (message.run_term, self.value()));
        let values = values.collect();
        self.receive(&Packet { message, values });
    }

    /// A value nobody has.
    pub(super) fn value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    pub(super) fn propose(&mut self, id: u64, count: u32) -> Result<Index, ProposeRefusal> {
        let first = self.node_mut(id).raft.propose(count, u64::from(count))?;
        let term = self.status(id).term;
        for _ in 0..count {
            let value = self.value();
            self.node_mut(id).log.push((term, value));
        }
        Ok(first)
    }

    pub(super) fn reconfigure(
        &mut self,
        id: u64,
        change: ConfChange,
    ) -> Result<Index, ConfigRefusal> {
        let index = self.node_mut(id).raft.propose_config(&change, 1)?;
        let (term, value) = (self.status(id).term, self.value());
        self.changes.insert(value, change);
        self.node_mut(id).log.push((term, value));
        Ok(index)
    }

    /// A read on the leader.
    pub(super) fn read(&mut self, id: u64) -> Result<u64, ReadRefusal> {
        self.read_by(id, Raft::read)
    }

    /// A read anywhere.
    pub(super) fn read_here(&mut self, id: u64) -> Result<u64, ReadRefusal> {
        self.read_by(id, Raft::read_here)
    }

    fn read_by(
        &mut self,
        id: u64,
        read: impl Fn(&mut Raft) -> Result<u64, ReadRefusal>,
    ) -> Result<u64, ReadRefusal> {
        let floor = Index(self.committed.len() as u64);
        let node = self.node_mut(id);
        let seq = read(&mut node.raft)?;
        let known = node.reads.entry(seq).or_default();
        *known = floor.max(*known);
        Ok(seq)
    }

    /// The end of a turn: performs what the core asks for, except that writes wait for `flush`.
    pub(super) fn turn(&mut self, id: u64) {
        let (now, lies) = (self.now, self.lies);
        let mut fx = Effects::default();
        let node = self.node_mut(id);
        let had_ready = node.raft.has_ready();
        node.raft.ready(now, &node.cache, &mut fx);
        assert!(had_ready || fx.is_empty(), "has_ready said no, ready said {fx:?}");
        if let Some(role) = fx.role {
            node.roles.push(role);
            if role.role != RoleKind::Leader {
                node.reads.clear();
            }
        }
        node.leader_ready += u32::from(fx.leader_ready);
        node.transfers.extend(fx.transfer);
        if let Some(Persist { seq, hard_state, first, count }) = fx.persist {
            let from = first.prev().0 as usize;
            let entries = node.log[from..from + count as usize].to_vec();
            node.writes.push_back(Write { seq, hard_state, first, entries });
        }
        if let Some((first, last)) = fx.apply {
            assert_eq!(first, node.applied.next(), "{id} applies without gaps");
            for index in first.0..=last.0 {
                let entry = self.node(id).log[index as usize - 1];
                let is_durable = self.node(id).disk.holds(Index(index), entry);
                assert!(is_durable, "{id} applies what is not durable");
                if let Some(change) = self.changes.get(&entry.1).cloned() {
                    let node = self.node_mut(id);
                    let made = node.raft.apply_config(Index(index), &change, now);
                    node.void += u64::from(made.is_err());
                    self.judge(id);
                }
            }
            let node = self.node_mut(id);
            node.applied = last;
            let change = node.raft.on_applied(last);
            self.mirror(id, change, &[]);
        }
        let node = self.node_mut(id);
        node.fetches.extend(&fx.fetch);
        for read in fx.reads {
            let floors = node.reads.range(..=read.seq).map(|(_, &floor)| floor).max();
            let floor = floors.unwrap_or_default();
            assert!(
                lies || read.index >= floor,
                "{id} reads the past: {read:?}, {floor} was committed"
            );
            node.reads = node.reads.split_off(&(read.seq + 1));
            node.reads_done.push(read);
        }
        let log = node.log.clone();
        for message in fx.send {
            let from = message.entry.index.0 as usize;
            let is_append = message.kind == MessageKind::Append;
            let count = if is_append { message.count as usize } else { 0 };
            let mut values = log[from.min(log.len())..][..count].to_vec();
            assert!(values.iter().all(|&(term, _)| term == message.run_term), "cut at terms");
            if message.kind == MessageKind::Snapshot {
                values = log[..from].to_vec();
            }
            let is_known = !lies || message.to.0 <= self.nodes.len() as u64;
            if is_known && !self.cut.contains(&(message.from.0, message.to.0)) {
                self.wire.push_back(Packet { message, values });
            }
        }
        self.judge(id);
    }

    /// The oldest write of this node finishes, and is reported unless `silent`.
    pub(super) fn flush(&mut self, id: u64) -> bool {
        let now = self.now;
        let node = self.node_mut(id);
        let Some(write) = node.writes.pop_front() else { return false };
        node.disk.take(&write);
        let change = node.raft.on_durable(write.seq, now);
        self.mirror(id, change, &[]);
        self.judge(id);
        true
    }

    /// Turns, finished writes and deliveries until nothing moves. Time stands still.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for id in self.ids() {
                self.turn(id);
                while !self.held.contains(&id) && self.flush(id) {
                    moved = true;
                }
                self.turn(id);
            }
            while let Some(packet) = self.wire.pop_front() {
                moved = true;
                if !self.cut.contains(&(packet.message.from.0, packet.message.to.0)) {
                    self.receive(&packet);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the cluster does not settle");
    }

    /// Time passes in steps of one heartbeat, everything settling in between.
    pub(super) fn pass(&mut self, ticks: u64) {
        let until = self.now.plus(ticks);
        while self.now < until {
            self.now = until.min(self.now.plus(self.config.heartbeat_ticks));
            for id in self.ids() {
                if self.now >= self.node(id).raft.deadline() {
                    self.tick(id);
                }
            }
            self.settle();
        }
    }

    pub(super) fn elect(&mut self, id: u64) {
        self.campaign(id);
        self.settle();
        assert!(self.leads(id), "{id} was not elected: {:?}", self.status(id));
    }

    pub(super) fn isolate(&mut self, id: u64) {
        for other in self.ids().filter(|&other| other != id) {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    /// What is on the wire of this kind towards `to`.
    pub(super) fn sent(&self, kind: MessageKind, to: u64) -> Vec<Message> {
        let matches = |m: &&Packet| m.message.kind == kind && m.message.to.0 == to;
        self.wire.iter().filter(matches).map(|packet| packet.message).collect()
    }

    /// Election Safety, Leader Completeness, State Machine Safety, and that what a leader commits
    /// is durable on a quorum of disks.
    fn judge(&mut self, id: u64) {
        let node = &self.nodes[id as usize - 1];
        let status = node.raft.status();
        assert_eq!(status.last.index.0, node.log.len() as u64, "{id}: the cache mirrors the log");
        if self.lies {
            return;
        }
        assert_eq!(status.failure, None, "{id} has failed");
        let leads = status.role == RoleKind::Leader;
        if leads {
            let me = (status.id, node.incarnation);
            let known = *self.leaders.entry(status.term).or_insert(me);
            assert_eq!(known, me, "election safety in term {}", status.term);
            let kept = node.log.len() >= self.committed.len()
                && node.log[..self.committed.len()] == self.committed[..];
            // A deposed leader that does not know it yet owes nothing to later terms.
            let newest = self.leaders.keys().next_back() == Some(&status.term);
            assert!(kept || !newest, "leader completeness of {id} in term {}", status.term);
        }
        let commit = status.commit.0 as usize;
        let shared = commit.min(self.committed.len());
        assert_eq!(node.log[..shared], self.committed[..shared], "state machine safety of {id}");
        for index in self.committed.len()..commit {
            let entry = node.log[index];
            let holds = |voters: &[ReplicaId]| {
                let disk = |v: &&ReplicaId| {
                    self.nodes[v.0 as usize - 1].disk.holds(Index(index as u64 + 1), entry)
                };
                voters.is_empty() || voters.iter().filter(disk).count() > voters.len() / 2
            };
            assert!(
                self.scripted
                    || holds(&status.membership.incoming) && holds(&status.membership.outgoing),
                "{id} commits {} that no quorum has on disk",
                index + 1
            );
            self.committed.push(entry);
        }
    }

    /// Log Matching: equal names, equal histories.
    pub(super) fn judge_logs(&self) {
        for (at, a) in self.nodes.iter().enumerate() {
            for b in &self.nodes[at + 1..] {
                let both = a.log.len().min(b.log.len());
                let agree = (0..both).rfind(|&i| a.log[i].0 == b.log[i].0);
                let until = agree.map_or(0, |i| i + 1);
                assert_eq!(a.log[..until], b.log[..until], "log matching");
            }
        }
    }
}

/// Short times, so that numbers in tests stay readable: election 100 to 200, heartbeat 10.
pub(super) fn test_config(seed: u64) -> Config {
    Config { election_ticks: 100, heartbeat_ticks: 10, ..Config::new(ReplicaId(1), seed) }
}

/// Shorthand for a message made by hand.
pub(super) fn message(kind: MessageKind, from: u64, to: u64, term: u64) -> Message {
    Message::new(kind, ReplicaId(from), ReplicaId(to), Term(term))
}

pub(super) fn entry(term: u64, index: u64) -> EntryId {
    EntryId { term: Term(term), index: Index(index) }
}
