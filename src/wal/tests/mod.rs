//! The log against a disk made of vectors.

mod bits;
mod golden;
mod measures;
mod reading;
mod recycled;
mod round_trip;
mod salvage;
mod torn;
mod verdict;

use std::collections::BTreeMap;

use bytes::Bytes;
use smallvec::SmallVec;

use super::*;
use crate::entry::Entry;
use crate::id::{ClusterId, EntryId, GroupId, Index, NodeId, ReplicaId, SegmentSeq, ShardId, Term};
use crate::limits::BLOCK_BYTES;
use crate::raft::effects::HardState;

const IDENTITY: Identity =
    Identity { cluster: ClusterId(0xC1), node: NodeId(2), shard: ShardId(3) };

/// Header, batches of one block each, reserve.
fn segment_bytes(batches: usize) -> usize {
    (batches + 2) * BLOCK_BYTES
}

/// Where the payloads of a run begin in it.
fn before_payloads(run: &Run) -> usize {
    run.bytes() - run.entries.iter().map(|entry| entry.payload.len()).sum::<usize>()
}

/// A run with `payloads` as commands.
fn run(group: u64, term: u64, first: u64, payloads: &[&[u8]]) -> Run {
    let entries = payloads.iter().map(|payload| Entry::command(Bytes::copy_from_slice(payload)));
    Run {
        kind: RunKind::Log,
        is_forgetful: false,
        group: GroupId(group),
        hard_state: HardState { term: Term(term), vote: ReplicaId(7), commit: Index(first - 1) },
        run_term: Term(if payloads.is_empty() { 0 } else { term }),
        first: Index(first),
        entries: entries.collect(),
    }
}

/// A piece of the snapshot of `group` at `term` and `index`, its two possible ends, and a tombstone.
fn others(group: u64, term: u64, index: u64) -> [Run; 4] {
    let (group, entry) = (GroupId(group), EntryId { term: Term(term), index: Index(index) });
    let hard_state = HardState { term: Term(term), vote: ReplicaId(7), commit: Index(index) };
    let mark = |kind, entry| Run::mark(kind, group, hard_state, entry);
    [
        Run::piece(group, hard_state, entry, Bytes::from_static(b"piece")),
        mark(RunKind::SnapshotTaken, entry),
        mark(RunKind::SnapshotInstalled, entry),
        mark(RunKind::Tombstone, EntryId::default()),
    ]
}

fn batch(runs: impl IntoIterator<Item = Run>) -> Batch {
    let mut batch = Batch::new();
    runs.into_iter().for_each(|run| batch.push(run));
    batch
}

/// What recovery saw of a run, comparable with what was written.
fn seen(run: RecoveredRun<'_>) -> (Run, Location) {
    let entries: SmallVec<[Entry; 4]> = run.entries().map(|entry| entry.to_entry()).collect();
    assert_eq!(run.count, entries.len() as u64);
    let RecoveredRun { kind, is_forgetful, group, hard_state, run_term, first, location, .. } = run;
    (Run { kind, is_forgetful, group, hard_state, run_term, first, entries }, location)
}

/// The files of one shard's directory, as they are after a power cut.
#[derive(Debug, Clone, Default)]
struct Disk(BTreeMap<SegmentSeq, Vec<u8>>);

impl Disk {
    fn file(&mut self, segment: u64) -> &mut Vec<u8> {
        self.0.get_mut(&SegmentSeq(segment)).expect("the test wrote this segment")
    }

    fn write(&mut self, write: &Write) {
        let file = self.file(write.segment.0);
        let offset = usize::try_from(write.offset).unwrap();
        file[offset..offset + write.bytes].copy_from_slice(&write.to_vec());
    }

    fn recover(&self, segment_bytes: usize) -> Result<(Recovered, Vec<Run>), Damage> {
        self.recover_from(SegmentSeq(0), segment_bytes)
    }

    /// As `recover`, after what lies in front of `first` was reclaimed.
    fn recover_from(
        &self,
        first: SegmentSeq,
        segment_bytes: usize,
    ) -> Result<(Recovered, Vec<Run>), Damage> {
        let mut runs = Vec::new();
        let recovery = Recovery::with_segment_bytes(IDENTITY, segment_bytes);
        let mut recovery = recovery.reclaimed_to(first);
        for (segment, bytes) in &self.0 {
            let mut later = self.0.range(segment.next()..);
            later.find_map(|(later, bytes)| recovery.look_ahead(*later, bytes));
            recovery.segment(*segment, bytes, &mut |run| runs.push(seen(run).0))?;
        }
        Ok((recovery.finish()?, runs))
    }
}

/// A log whose writes are durable at once.
struct Log {
    appender: Appender,
    disk: Disk,
    segment_bytes: usize,
    written: Vec<Run>,
}

impl Log {
    fn new(segment_bytes: usize) -> Self {
        Self::reopen(Disk::default(), Position::default(), segment_bytes)
    }

    fn reopen(disk: Disk, position: Position, segment_bytes: usize) -> Self {
        let appender = Appender::with_segment_bytes(IDENTITY, position, segment_bytes);
        let mut log = Self { appender, disk, segment_bytes, written: Vec::new() };
        log.spares();
        log
    }

    fn spares(&mut self) {
        while let Some(segment) = self.appender.wants_spare() {
            self.disk.0.insert(segment, vec![0; self.segment_bytes]);
            self.appender.on_spare(segment);
        }
    }

    /// Place and perform, without a flush.
    fn place(&mut self, batch: Batch) -> Write {
        assert_eq!(self.appender.can_place(batch.bytes()), Room::Yes);
        self.written.extend(batch.runs().iter().cloned());
        let write = self.appender.place(batch);
        self.spares();
        self.disk.write(&write);
        write
    }

    fn append(&mut self, batch: Batch) -> Write {
        let write = self.place(batch);
        self.appender.on_durable(write.ticket);
        write
    }

    fn close(&mut self) {
        let write = self.appender.closing_write().expect("something to prove");
        self.disk.write(&write);
        self.appender.on_durable(write.ticket);
    }

    /// Spares say nothing and cost time where a test recovers a hundred thousand times.
    fn drop_spares(&mut self) {
        let open = self.appender.open_segment();
        self.disk.0.retain(|segment, _| Some(*segment) <= open);
    }

    fn recover(&self) -> Result<(Recovered, Vec<Run>), Damage> {
        self.disk.recover(self.segment_bytes)
    }
}

/// `count` batches of one block each: two groups, two terms, entries of several sizes, a hard state
/// alone.
fn small_log(count: u64, segment_bytes: usize) -> Log {
    let mut log = Log::new(segment_bytes);
    for number in 1..=count {
        log.append(batch([
            run(1, number, number, &[b"SET k v"]),
            run(2, 1, 1 + 2 * number, &[&[number as u8; 300], b""]),
            run(5, number, 1, &[]),
        ]));
    }
    log
}
