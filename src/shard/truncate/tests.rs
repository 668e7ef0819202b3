//! A group that waits for a quorum, beside one that fills the log.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::entry::Entry;
use crate::id::{
    ClusterId, EntryId, GroupId, Incarnation, Index, NodeId, ReplicaId, SegmentSeq, ShardId, Term,
    Tick,
};
use crate::planted::{self, Planted};
use crate::raft::message::{Message, MessageKind};
use crate::shard::event::Post;
use crate::shard::{Config, Effects, Event, Leases, Recovering, Shard};
use crate::wal::Write;
use crate::wire::resp::Command;

const NOW: Tick = Tick(0);
const SEGMENT: usize = 64 << 10;
/// The one that waits, and the one that writes.
const WAITS: GroupId = GroupId(0);
const WRITES: GroupId = GroupId(1);

fn config() -> Config {
    Config {
        cluster: ClusterId(1),
        node: NodeId(1),
        incarnation: Incarnation(1),
        shard: ShardId(0),
        cores: 1,
        groups: 2,
        nodes: [1, 2, 3].map(NodeId).to_vec(),
        addresses: Vec::new(),
        election_ms: 1_000,
        heartbeat_ms: 100,
        priority: 100,
        request_ms: 1_000,
        flushes_in_flight: 2,
        flush_joins_bytes: 0,
        log_cache_bytes: 1 << 20,
        leases: Leases::default(),
        log_bytes: 0,
        snapshot_bytes_per_s: 1 << 20,
        seed: 1,
    }
}

/// A follower in both groups. Its disk is what was flushed.
struct Follower {
    shard: Shard,
    fx: Effects,
    disk: BTreeMap<SegmentSeq, Vec<u8>>,
    first: SegmentSeq,
    placed: Vec<Write>,
}

impl Follower {
    fn new() -> Self {
        let recovering = Recovering::new(config()).with_segment_bytes(SEGMENT);
        let (shard, _) = recovering.finish(NOW).expect("empty");
        let (fx, disk, placed) = (Effects::default(), BTreeMap::new(), Vec::new());
        Self { shard, fx, disk, first: SegmentSeq(0), placed }
    }

    /// What a start after a crash at this moment comes to.
    fn recovered(&self) -> Shard {
        let recovering = Recovering::new(config()).with_segment_bytes(SEGMENT);
        let mut recovering = recovering.reclaimed_to(self.first);
        for (segment, bytes) in &self.disk {
            let mut later = self.disk.range(segment.next()..);
            later.find_map(|(later, bytes)| recovering.look_ahead(*later, bytes));
            recovering.segment(*segment, &Bytes::copy_from_slice(bytes)).expect("whole");
        }
        recovering.finish(NOW).expect("whole").0
    }

    /// The leader of `term` appends one entry behind `before`.
    fn append(&mut self, group: GroupId, term: u64, before: EntryId, commit: u64, bytes: usize) {
        let mut message = Message::new(MessageKind::Append, ReplicaId(2), ReplicaId(1), Term(term));
        (message.entry, message.commit) = (before, Index(commit));
        (message.run_term, message.count) = (Term(term), 1);
        let key = format!("key{}", before.index.0 % 7);
        let command = Command::from_args(&[b"SET", key.as_bytes(), &vec![b'v'; bytes]]);
        let entries = vec![Entry::command(command.raw)];
        self.shard.on_event(NOW, Event::Post(Post::Raft { group, message, entries }));
    }

    /// A turn whose writes take until [`Self::flush`]. Deletes what may be deleted.
    fn turn(&mut self) {
        self.shard.turn(NOW, &mut self.fx);
        if let Some(segment) = self.fx.spare.take() {
            self.disk.insert(segment, vec![0; SEGMENT]);
            self.shard.on_event(NOW, Event::SpareReady(segment));
        }
        self.placed.append(&mut self.fx.writes);
        if let Some(first) = self.fx.reclaim.take() {
            self.first = first;
            self.disk.retain(|segment, _| first <= *segment);
        }
        self.fx.clear();
    }

    fn flush(&mut self) {
        for write in self.placed.drain(..) {
            let file = self.disk.get_mut(&write.segment).expect("prepared");
            let at = write.offset as usize;
            write.encode_into(&mut file[at..at + write.bytes]);
            self.shard.on_event(NOW, Event::Flushed(write.ticket));
        }
    }
}

fn at(term: u64, index: u64) -> EntryId {
    EntryId { term: Term(term), index: Index(index) }
}

/// What the replica of a group holds: the last entry, its terms, what is applied.
fn held(shard: &Shard, group: GroupId) -> (EntryId, Vec<Option<Term>>, Index) {
    let replica = &shard.replicas()[group.0 as usize];
    let status = replica.status();
    assert_eq!(status.failure, None);
    let terms = (3..=5).map(|index| replica.term_at(Index(index))).collect();
    (status.last, terms, status.applied)
}

/// One group waits for a quorum with `committed` of five entries, while the other writes.
fn waits(committed: u64, check: impl Fn(&Follower)) -> Follower {
    let mut it = Follower::new();
    // The last is of another term.
    for (term, before) in
        [(1, at(0, 0)), (1, at(1, 1)), (1, at(1, 2)), (1, at(1, 3)), (2, at(1, 4))]
    {
        it.append(WAITS, term, before, committed, 100);
        it.turn();
        it.flush();
    }
    let mut last = at(0, 0);
    for _ in 0..400 {
        it.append(WRITES, 1, last, last.index.0, 2_000);
        last = at(1, last.index.0 + 1);
        it.turn();
        check(&it);
        it.flush();
    }
    it
}

#[test]
fn contract_row_27_entries_that_wait_for_a_quorum_do_not_pin_the_log() {
    for committed in [0, 2, 4] {
        let expected =
            (at(2, 5), [1, 1, 2].map(|term| Some(Term(term))).to_vec(), Index(committed));
        let mut it = waits(committed, |it| {
            let found = held(&it.recovered(), WAITS);
            assert_eq!((found.0, found.2), (expected.0, expected.2), "after a crash");
            let kept = (3..=5).zip(&expected.1).filter(|(index, _)| committed < *index);
            for (index, term) in kept {
                assert_eq!(&found.1[index as usize - 3], term, "the term of entry {index}");
            }
        });
        assert!(it.disk.len() < 12, "{} segments are left", it.disk.len());
        let counters = it.shard.report(false).counters;
        assert!(counters.segments_reclaimed > 5, "{counters:?}");
        assert!(counters.log_rewritten_bytes > 5 * 100, "{counters:?}");
        // A few hundred bytes for each time that the log was renewed.
        assert!(counters.log_rewritten_bytes < counters.segments_reclaimed * 2_000, "{counters:?}");
        // The quorum is back.
        it.append(WAITS, 2, at(2, 5), 6, 100);
        for _ in 0..3 {
            it.turn();
            it.flush();
        }
        it.append(WAITS, 2, at(2, 6), 6, 100);
        for _ in 0..3 {
            it.turn();
            it.flush();
        }
        for shard in [&it.shard, &it.recovered()] {
            assert_eq!(held(shard, WAITS).2, Index(6));
            assert_eq!(shard.replicas()[0].digest(), it.shard.replicas()[0].digest());
        }
    }
}

#[test]
fn a_part_of_them_written_again_would_void_the_rest() {
    let it = planted::with(Planted::TailRewrittenInPart, || waits(2, |_| {}));
    assert_eq!(held(&it.recovered(), WAITS).0, at(1, 3));
}
