//! Three shards, their disks and the wires between them, without chance: what a follower whose log is
//! gone goes through, step by step.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::group::Replica;
use crate::id::{
    ClusterId, ConnId, EntryId, FlushTicket, GroupId, Incarnation, Index, NodeId, ReplicaId,
    SegmentSeq, ShardId, Term, Tick,
};
use crate::limits;
use crate::raft::effects::RoleKind;
use crate::shard::event::{LogReadDone, Post, Request};
use crate::shard::report::Counters;
use crate::shard::{Config, Effects, Event, Recovering, Shard};
use crate::store::connection::Manner;
use crate::wire::resp::Command;
use crate::wire::{Frame, FrameReader, Lane, PieceStatus, SnapshotPiece};

const SEGMENT_BYTES: usize = 1 << 20;
const VALUE_BYTES: usize = 100 << 10;

struct Node {
    shard: Option<Shard>,
    life: u64,
    segments: BTreeMap<SegmentSeq, Vec<u8>>,
    /// Writes that are not durable.
    in_flight: Vec<(FlushTicket, SegmentSeq, u64, Vec<u8>)>,
    /// The disk has stopped answering.
    holds: bool,
    events: Vec<Event>,
}

struct Cluster {
    now: u64,
    nodes: Vec<Node>,
    /// Nobody hears this node, and it hears nobody.
    cut: Option<usize>,
    /// Only what travels in these lanes arrives.
    lanes: Vec<Lane>,
    /// Every frame that arrived, with sender and receiver.
    seen: Vec<(usize, usize, Frame)>,
    written: u64,
    /// How many keys there are to write to.
    keys: u64,
    bytes_per_s: u64,
}

impl Cluster {
    fn new() -> Self {
        Self::of(&[0, 1, 2])
    }

    /// Three nodes, of which these have been started.
    fn of(started: &[usize]) -> Self {
        let node = |_| Node {
            shard: None,
            life: 0,
            segments: BTreeMap::new(),
            in_flight: Vec::new(),
            holds: false,
            events: Vec::new(),
        };
        let mut cluster = Self {
            now: 0,
            nodes: (0..3).map(node).collect(),
            cut: None,
            lanes: Lane::ALL.to_vec(),
            seen: Vec::new(),
            written: 0,
            keys: 5,
            bytes_per_s: 1 << 30,
        };
        started.iter().for_each(|&node| cluster.start(node));
        cluster.until("a leader", |it| it.leader().is_some());
        cluster
    }

    fn start(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.life += 1;
        it.holds = false;
        let config = Config {
            cluster: ClusterId(1),
            node: NodeId(node as u64 + 1),
            incarnation: Incarnation(it.life),
            shard: ShardId(0),
            cores: 1,
            groups: 1,
            nodes: (1..=3).map(NodeId).collect(),
            election_ms: 100,
            heartbeat_ms: 10,
            request_ms: 1_000,
            flushes_in_flight: 2,
            flush_joins_bytes: 0,
            log_cache_bytes: 1 << 20,
            log_bytes: 4 * SEGMENT_BYTES as u64,
            snapshot_bytes_per_s: self.bytes_per_s,
            addresses: Vec::new(),
            leases: crate::shard::Leases::default(),
            priority: 100,
            seed: 7 + node as u64,
        };
        let first = it.segments.keys().next().copied().unwrap_or_default();
        let mut recovering =
            Recovering::new(config).with_segment_bytes(SEGMENT_BYTES).reclaimed_to(first);
        let numbers: Vec<SegmentSeq> = it.segments.keys().copied().collect();
        for (at, number) in numbers.iter().enumerate() {
            let later = numbers[at + 1..].iter();
            let block = |number| &it.segments[number][..limits::BLOCK_BYTES];
            let _ = later.clone().find_map(|later| recovering.look_ahead(*later, block(later)));
            let bytes = Bytes::copy_from_slice(&it.segments[number]);
            recovering.segment(*number, &bytes).expect("sound");
        }
        let (shard, recovery) = recovering.finish(Tick(self.now)).expect("sound");
        recovery.log.discard.iter().for_each(|number| drop(it.segments.remove(number)));
        it.shard = Some(shard);
    }

    /// The process is gone, and what was not durable with it.
    fn crash(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.shard = None;
        it.in_flight.clear();
        it.events.clear();
    }

    /// A millisecond passes.
    fn step(&mut self) {
        self.now += 1;
        let mut frames = Vec::new();
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let Some(shard) = &mut node.shard else { continue };
            let now = Tick(self.now);
            if !node.holds {
                for (ticket, segment, offset, bytes) in node.in_flight.drain(..) {
                    let place = offset as usize..offset as usize + bytes.len();
                    let segment = node.segments.get_mut(&segment).expect("it is prepared");
                    segment[place].copy_from_slice(&bytes);
                    node.events.push(Event::Flushed(ticket));
                }
            }
            node.events.drain(..).for_each(|event| shard.on_event(now, event));
            let mut fx = Effects::default();
            shard.turn(now, &mut fx);
            assert!(fx.failed.is_empty(), "node {number}: {:?}", fx.failed);
            for write in fx.writes.drain(..) {
                let mut bytes = vec![0; write.bytes];
                write.encode_into(&mut bytes);
                node.in_flight.push((write.ticket, write.segment, write.offset, bytes));
            }
            if let Some(segment) = fx.spare {
                node.segments.insert(segment, vec![0; SEGMENT_BYTES]);
                node.events.push(Event::SpareReady(segment));
            }
            if let Some(first) = fx.reclaim {
                node.segments.retain(|number, _| first <= *number);
            }
            for read in fx.log_reads.drain(..) {
                let bytes = &node.segments[&read.at.segment];
                let result = read.entries(bytes);
                node.events.push(Event::LogRead(LogReadDone { read, result }));
            }
            frames
                .extend(fx.frames.drain(..).map(|(to, frame)| (number, to.0 as usize - 1, frame)));
        }
        for (from, to, frame) in frames {
            let is_cut = self.cut.is_some_and(|cut| cut == from || cut == to);
            if is_cut || !self.lanes.contains(&frame.lane) || self.nodes[to].shard.is_none() {
                continue;
            }
            let mut reader = FrameReader::new();
            reader.feed(&frame.to_bytes());
            let frame = reader.next().expect("sound").expect("whole");
            self.nodes[to].events.push(Event::Frame(frame.clone()));
            self.seen.push((from, to, frame));
        }
    }

    fn steps(&mut self, count: u64) {
        (0..count).for_each(|_| self.step());
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("never: {what}");
    }

    fn replica(&self, node: usize) -> &Replica {
        &self.nodes[node].shard.as_ref().expect("it runs").replicas()[0]
    }

    fn applied(&self, node: usize) -> Index {
        self.replica(node).status().applied
    }

    fn counters(&self, node: usize) -> Counters {
        self.nodes[node].shard.as_ref().expect("it runs").report(false).counters
    }

    fn leader(&self) -> Option<usize> {
        (0..3).find(|&node| {
            let shard = self.nodes[node].shard.as_ref();
            shard.is_some_and(|shard| {
                let status = shard.replicas()[0].status();
                status.role == RoleKind::Leader && status.leader_ready
            })
        })
    }

    /// So many values, each in place of the one with the same key.
    fn write(&mut self, count: u64) {
        let leader = self.leader().expect("somebody leads");
        for _ in 0..count {
            self.written += 1;
            let key = format!("key{}", self.written % self.keys);
            let value = vec![b'a' + (self.written % 26) as u8; VALUE_BYTES];
            let command = Command::from_args(&[b"SET", key.as_bytes(), &value]);
            let (conn, seq) = (ConnId(1), self.written);
            let request =
                Request { conn, seq, command, after_writes: false, manner: Manner::default() };
            self.nodes[leader].events.push(Event::Request(request));
            self.steps(3);
        }
    }

    /// A follower is cut off until its log is gone from the leader's. Returns leader and follower.
    fn left_behind(&mut self) -> (usize, usize) {
        self.write(5);
        self.steps(50);
        let leader = self.leader().expect("somebody leads");
        let follower = (leader + 1) % 3;
        self.cut = Some(follower);
        self.write(150);
        let first = self.replica(leader).status().first;
        assert!(self.applied(follower) < first, "the log still reaches back: {first}");
        (leader, follower)
    }

    /// So much of snapshots leaves in a second, which is said at a start.
    fn sends_at(&mut self, bytes_per_s: u64) {
        self.bytes_per_s = bytes_per_s;
        let leader = self.leader().expect("somebody leads");
        self.crash(leader);
        self.start(leader);
        self.until("a leader", |it| it.leader().is_some());
    }

    /// A leader that sends 300 KiB a second, and a follower that has a part of its snapshot.
    fn half_way(&mut self) -> (usize, usize) {
        self.sends_at(300 << 10);
        let (leader, follower) = self.left_behind();
        self.cut = None;
        self.until("some of it has arrived", |it| 0 < it.acks(PieceStatus::Go));
        (leader, follower)
    }

    fn agree(&self, one: usize, other: usize) -> bool {
        let (one, other) = (self.replica(one), self.replica(other));
        one.status().applied == other.status().applied && one.digest() == other.digest()
    }

    /// What was acknowledged with this status, and by whom to whom.
    fn acks(&self, status: PieceStatus) -> usize {
        let acks = self.seen.iter().flat_map(|(_, _, frame)| frame.acks());
        acks.filter(|ack| ack.status == status).count()
    }

    fn pieces(&self) -> Vec<SnapshotPiece> {
        self.seen.iter().flat_map(|(_, _, frame)| frame.pieces().collect::<Vec<_>>()).collect()
    }
}

/// Data durable, pointer durable, visible: in this order, with a crash between any two.
#[test]
fn contract_row_28_a_snapshot_is_visible_only_when_its_pointer_is_durable() {
    let mut cluster = Cluster::new();
    let (leader, follower) = cluster.left_behind();
    let (applied, digest) = (cluster.applied(follower), cluster.replica(follower).digest());
    cluster.cut = None;
    cluster.until("its pointer is written", |it| it.replica(follower).is_installing());
    cluster.nodes[follower].holds = true;
    cluster.steps(200);
    assert!(cluster.replica(follower).is_installing());
    assert_eq!(cluster.applied(follower), applied, "visible before its pointer is durable");
    assert_eq!(cluster.replica(follower).digest(), digest);
    assert_eq!(cluster.acks(PieceStatus::Installed), 0);

    // The pointer is lost: as if there had been no snapshot.
    cluster.crash(follower);
    cluster.cut = Some(follower);
    cluster.start(follower);
    assert_eq!((cluster.applied(follower), cluster.replica(follower).digest()), (applied, digest));

    // The pointer is durable: the state is there, after a crash too, and goes on from the log.
    cluster.cut = None;
    cluster.until("it is installed", |it| applied < it.applied(follower));
    let installed = cluster.applied(follower);
    cluster.crash(follower);
    cluster.cut = Some(follower);
    cluster.start(follower);
    assert!(installed <= cluster.applied(follower));
    let pieces = cluster.pieces().len();
    cluster.cut = None;
    cluster.until("they agree", |it| it.agree(leader, follower));
    assert_eq!(cluster.pieces().len(), pieces, "it went on from the log");
}

/// What a tail of the log asks for: everything that is on disk and not in memory, and it stays while it is read.
#[test]
fn the_log_on_disk_can_be_read_until_a_snapshot_stands_for_it() {
    let group = GroupId(0);
    let mut cluster = Cluster::new();
    let (leader, _) = cluster.left_behind();
    let in_memory = cluster.replica(leader).cache().first();
    let now = Tick(cluster.now);
    let Node { shard, segments, .. } = &mut cluster.nodes[leader];
    let shard = shard.as_mut().expect("it runs");
    let available = shard.read_log(group, Index(1)).expect_err("the log was cut");
    assert!(Index(1) < available && available < in_memory, "{available} {in_memory}");
    assert_eq!(shard.read_log(group, available.prev()), Err(available), "the first there is");
    assert_eq!(shard.read_log(GroupId(1), Index(1)), Err(Index(2)), "not here");
    let mut next = available;
    while next < in_memory {
        let read = shard.read_log(group, next).expect("on disk");
        assert!(read.replica == ReplicaId::NONE && read.first == next);
        let result = read.entries(&segments[&read.at.segment]);
        next = next.plus(result.as_ref().expect("sound").len() as u64);
        shard.on_event(now, Event::LogRead(LogReadDone { read, result }));
    }
    assert_eq!(next, in_memory, "no more than what is not in memory");

    let read = shard.read_log(group, available).expect("on disk");
    cluster.write(100);
    assert!(cluster.nodes[leader].segments.contains_key(&read.at.segment), "it is being read");
    let done = LogReadDone { read, result: Ok(Vec::new()) };
    cluster.nodes[leader].events.push(Event::LogRead(done));
    cluster.write(20);
    assert!(!cluster.nodes[leader].segments.contains_key(&read.at.segment));
    let shard = cluster.nodes[leader].shard.as_mut().expect("it runs");
    assert!(available < shard.read_log(group, available).expect_err("gone"));
}

/// What is not taken over the network is asked for again by raft: nothing is forgotten.
#[test]
fn contract_row_40_a_transfer_that_fails_is_begun_again() {
    let mut cluster = Cluster::new();
    let (leader, follower) = cluster.left_behind();
    cluster.lanes = vec![Lane::Control, Lane::Append];
    cluster.cut = None;
    cluster.until("it is given up", |it| it.counters(leader).snapshots_failed == 1);
    assert_eq!(cluster.counters(leader).snapshots_sent, 0);
    cluster.lanes = Lane::ALL.to_vec();
    cluster.until("they agree", |it| it.agree(leader, follower));
    cluster.steps(20);
    assert_eq!(cluster.counters(leader).snapshots_sent, 1);
    assert_eq!(cluster.counters(follower).snapshots_received, 1);
}

/// The snapshot is of what is applied when it is begun, whatever raft named.
#[test]
fn contract_row_41_the_snapshot_is_taken_where_apply_is() {
    let mut cluster = Cluster::new();
    let (leader, follower) = cluster.left_behind();
    cluster.cut = None;
    cluster.until("it has begun", |it| !it.pieces().is_empty());
    let snapshot = cluster.pieces()[0].snapshot;
    assert_eq!(snapshot.index, cluster.applied(leader), "nothing was written since");
    assert_eq!(Some(snapshot.term), cluster.replica(leader).term_at(snapshot.index));
    cluster.until("they agree", |it| it.agree(leader, follower));
    assert!(cluster.pieces().iter().all(|piece| piece.snapshot == snapshot), "one was enough");
}

/// The log behind a snapshot stays while it travels, however much is written meanwhile.
#[test]
fn contract_row_42_the_follower_goes_on_from_the_log_behind_its_snapshot() {
    let mut cluster = Cluster::new();
    let (leader, follower) = cluster.left_behind();
    cluster.lanes = vec![Lane::Control, Lane::Append];
    cluster.cut = None;
    cluster.steps(100);
    let before = cluster.applied(leader);
    cluster.write(30);
    let first = cluster.replica(leader).status().first;
    assert!(first <= before.next(), "entry {} is gone: the log begins at {first}", before.next());
    cluster.lanes = Lane::ALL.to_vec();
    cluster.until("they agree", |it| it.agree(leader, follower));
    cluster.steps(20);
    let counters = cluster.counters(leader);
    assert_eq!((counters.snapshots_sent, counters.snapshots_failed), (1, 0));

    // Nothing is held for ever.
    cluster.write(150);
    let first = cluster.replica(leader).status().first;
    assert!(before < first, "the log is held for nobody: it begins at {first}");
}

/// Without end, a transfer that stands still would hold the log without end.
#[test]
fn contract_row_42_what_is_held_is_bounded_by_bytes() {
    let mut cluster = Cluster::new();
    let (leader, _) = cluster.left_behind();
    cluster.lanes = vec![Lane::Control, Lane::Append];
    cluster.cut = None;
    cluster.steps(100);
    let before = cluster.applied(leader);
    cluster.write(250);
    let first = cluster.replica(leader).status().first;
    assert!(before.next() < first, "{before} is kept at any length");
}

#[test]
fn contract_row_45_pieces_travel_below_everything_else_and_alone() {
    let mut cluster = Cluster::new();
    let (leader, follower) = cluster.left_behind();
    cluster.seen.clear();
    cluster.cut = None;
    cluster.until("they agree", |it| it.agree(leader, follower));
    for (_, _, frame) in &cluster.seen {
        let (pieces, acks) = (frame.pieces().count(), frame.acks().count());
        match frame.header.lane {
            Lane::Bulk => assert_eq!((pieces, acks, frame.messages().count()), (1, 0, 0)),
            Lane::Control => assert_eq!(pieces, 0),
            Lane::Append => assert_eq!((pieces, acks), (0, 0)),
        }
    }
    assert!(2 < cluster.pieces().len());
}

/// Frames that a lane dropped are reported, and the transfer goes on where the follower is.
#[test]
fn contract_row_46_a_dropped_frame_is_reported_and_sent_again() {
    let mut cluster = Cluster::new();
    cluster.sends_at(1 << 20);
    let (leader, follower) = cluster.left_behind();
    cluster.cut = None;
    cluster.until("some of it has arrived", |it| 1 < it.pieces().len());
    cluster.cut = Some(follower);
    cluster.steps(5);
    let node = NodeId(follower as u64 + 1);
    cluster.nodes[leader].events.push(Event::Unreachable(node));
    cluster.steps(5);
    cluster.cut = None;
    cluster.until("they agree", |it| it.agree(leader, follower));
    let pieces = cluster.pieces();
    assert!(pieces.iter().all(|piece| piece.transfer == pieces[0].transfer), "it began anew");
}

/// A receiver that restarts knows nothing of a transfer, and says so.
#[test]
fn a_transfer_does_not_survive_the_receivers_restart() {
    let mut cluster = Cluster::new();
    let (leader, follower) = cluster.half_way();
    cluster.crash(follower);
    cluster.start(follower);
    cluster.until("they agree", |it| it.agree(leader, follower));
    let pieces = cluster.pieces();
    let first = pieces[0].transfer;
    assert!(pieces.iter().any(|piece| first < piece.transfer), "it went on as if nothing was lost");
    assert_eq!(cluster.counters(leader).snapshots_failed, 0);
}

/// Whoever leads in a later term ended what was sent before: nothing waits for the rest.
#[test]
fn a_transfer_does_not_survive_the_senders_term() {
    let mut cluster = Cluster::new();
    cluster.keys = 30;
    let (leader, follower) = cluster.half_way();
    let receives = |it: &Cluster| {
        let shard = it.nodes[follower].shard.as_ref().expect("it runs");
        shard.receives.name(0).map(|name| name.term)
    };
    assert_eq!(receives(&cluster), Some(cluster.replica(leader).status().term));
    cluster.crash(leader);
    // The next leader's own does not arrive.
    cluster.lanes.retain(|lane| *lane != Lane::Bulk);
    let third = 3 - leader - follower;
    cluster.until("another leads", |it| it.replica(follower).status().leader.0 == third as u64 + 1);
    assert_eq!(receives(&cluster), None);
    cluster.lanes = Lane::ALL.to_vec();
    cluster.until("they agree", |it| it.agree(third, follower));
}

/// The store of a receiver is two-phase: "installed" is said when raft has taken it, not before.
#[test]
fn contract_row_50_installed_is_said_when_raft_has_taken_it() {
    let mut cluster = Cluster::new();
    let (leader, follower) = cluster.left_behind();
    cluster.cut = None;
    cluster.until("somebody says so", |it| 0 < it.acks(PieceStatus::Installed));
    let ack = cluster.seen.iter().flat_map(|(_, _, frame)| frame.acks().collect::<Vec<_>>());
    let ack = ack.last().expect("said above");
    assert_eq!(ack.status, PieceStatus::Installed);
    let status = cluster.replica(follower).status();
    assert!(ack.snapshot.index <= status.applied && ack.snapshot.index < status.first);
    cluster.write(1);
    cluster.until("they agree", |it| it.agree(leader, follower));
}

/// "Installed" is an acceptance: who hears of the sender's term by the offer says it when that term is durable.
#[test]
fn contract_row_50_what_is_held_is_accepted_when_the_term_is_durable() {
    let mut cluster = Cluster::new();
    cluster.write(5);
    cluster.steps(50);
    let leader = cluster.leader().expect("somebody leads");
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let status = cluster.replica(follower).status();
    let next_term = Term(status.term.0 + 1);
    let offer = SnapshotPiece {
        group: GroupId(0),
        from: ReplicaId(other as u64 + 1),
        to: status.id,
        term: next_term,
        transfer: 1,
        snapshot: EntryId { term: status.last.term, index: status.applied },
        number: 0,
        last: true,
        bytes: Bytes::from_static(b"not looked at"),
    };
    let offer = || Event::Post(Post::SnapshotPiece(offer.clone()));
    cluster.nodes[follower].holds = true;
    cluster.nodes[follower].events.push(offer());
    cluster.steps(10);
    assert_eq!(cluster.replica(follower).status().term, next_term);
    assert_eq!((cluster.acks(PieceStatus::Installed), cluster.acks(PieceStatus::Busy)), (0, 1));
    cluster.nodes[follower].holds = false;
    cluster.step();
    cluster.nodes[follower].events.push(offer());
    cluster.steps(2);
    assert_eq!((cluster.acks(PieceStatus::Installed), cluster.acks(PieceStatus::Busy)), (1, 1));
}

/// The pieces of a snapshot that is longer than the log may be stay until they are the state: an empty
/// replica has nothing else, and would otherwise give up the first ones while the last ones arrive.
#[test]
fn contract_row_27_pieces_that_have_arrived_stay_until_they_are_the_state() {
    let mut cluster = Cluster::of(&[0, 1]);
    // A piece at a time: the log is looked at while none waits to be written.
    cluster.bytes_per_s = 1 << 20;
    for node in [0, 1] {
        cluster.crash(node);
        cluster.start(node);
    }
    cluster.until("a leader", |it| it.leader().is_some());
    let (leader, follower) = (cluster.leader().expect("somebody leads"), 2);
    cluster.keys = 90;
    cluster.write(150);
    cluster.start(follower);
    cluster.until("the snapshot is its state", |it| it.agree(leader, follower));
    assert!(cluster.counters(follower).snapshots_received > 0);
    cluster.steps(100);
    cluster.crash(follower);
    cluster.start(follower);
    cluster.until("it knows it again", |it| it.agree(leader, follower));
    assert_eq!(cluster.acks(PieceStatus::Installed), 1, "not from the leader");
}

/// A stop in good order: the next start reads a snapshot and the tail behind it, not the log.
#[test]
fn a_checkpoint_leaves_the_next_start_a_snapshot_and_the_tail() {
    let mut cluster = Cluster::new();
    let stopping = (cluster.leader().expect("somebody leads") + 1) % 3;
    // So short a log is left as it is.
    cluster.write(5);
    cluster.steps(50);
    let shard = cluster.nodes[stopping].shard.as_mut().expect("it runs");
    shard.checkpoint();
    assert!(!shard.is_checkpointing());

    cluster.write(25);
    cluster.steps(50);
    let before = cluster.nodes[stopping].segments.len();
    assert_eq!(cluster.counters(stopping).snapshots_taken, 0, "the log is not too long by itself");
    cluster.nodes[stopping].shard.as_mut().expect("it runs").checkpoint();
    cluster.until("the checkpoint is whole", |it| {
        !it.nodes[stopping].shard.as_ref().expect("it runs").is_checkpointing()
    });
    let after = cluster.nodes[stopping].segments.len();
    assert!(after < before && after <= 3, "{before} segments before, {after} with a spare after");
    assert_eq!(cluster.counters(stopping).snapshots_taken, 1);
    let (applied, digest) = (cluster.applied(stopping), cluster.replica(stopping).digest());

    cluster.crash(stopping);
    cluster.cut = Some(stopping);
    cluster.start(stopping);
    assert_eq!((cluster.applied(stopping), cluster.replica(stopping).digest()), (applied, digest));
    // Once is enough, and the node goes on as before.
    let shard = cluster.nodes[stopping].shard.as_mut().expect("it runs");
    shard.checkpoint();
    assert!(!shard.is_checkpointing(), "nothing was written since");
    cluster.cut = None;
    cluster.write(5);
    let leader = cluster.leader().expect("somebody leads");
    cluster.until("they agree", |it| it.agree(leader, stopping));
}
