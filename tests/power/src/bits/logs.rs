//! Logs, and snapshots in them and on their way: 64 KiB of each.
//!
//! ```text
//!   block   0        1 … 15                           16
//!           header   batches, to the last byte of     an empty batch, which proves
//!                    the 64 KiB                        that those before were durable
//! ```

use std::ops::Range;

use bytes::Bytes;

use outrigger::entry::Entry;
use outrigger::group::snapshot::Outgoing;
use outrigger::group::{GroupState, Incoming, Sessions, SnapshotMeta};
use outrigger::id::{
    ClusterId, EntryId, GroupId, Incarnation, Index, NodeId, ReplicaId, SegmentSeq, ShardId, Term,
    Tick,
};
use outrigger::limits::{BLOCK_BYTES, LOG_READ_BYTES_MAX};
use outrigger::raft::HardState;
use outrigger::shard::{Config, Recovering, Shard};
use outrigger::store::map::Map;
use outrigger::store::{StateMachine as _, Wanted};
use outrigger::wal::{
    Appender, Batch, Found, Identity, LogIndex, Position, RecoveredRun, Recovery, Run, RunKind,
    read_span,
};
use outrigger::wire::resp::Command;

use super::{BYTES, Subject, Verdict};

const IDENTITY: Identity =
    Identity { cluster: ClusterId(0xC1), node: NodeId(2), shard: ShardId(0) };
/// What is flipped, and a block that proves it durable.
const SEGMENT_BYTES: usize = BYTES + BLOCK_BYTES;
/// Blocks of batches in what is flipped.
const BATCHES: u64 = (BYTES / BLOCK_BYTES) as u64 - 1;
const SEGMENT: SegmentSeq = SegmentSeq(1);
/// The last entry of the snapshot.
const ENTRY: EntryId = EntryId { term: Term(3), index: Index(40) };

/// One segment, and what was written to it.
struct Written {
    bytes: Vec<u8>,
    runs: Vec<Run>,
    index: LogIndex,
    groups: u64,
}

impl Written {
    /// A log of these batches, which fill what is flipped; none if they do not.
    fn new(groups: u64, batches: impl IntoIterator<Item = Batch>) -> Option<Self> {
        let mut appender =
            Appender::with_segment_bytes(IDENTITY, Position::default(), SEGMENT_BYTES);
        appender.on_spare(SEGMENT);
        let (bytes, runs, index) = (vec![0; SEGMENT_BYTES], Vec::new(), LogIndex::new());
        let mut log = Self { bytes, runs, index, groups };
        let mut end = 0;
        for batch in batches {
            log.runs.extend(batch.runs().iter().cloned());
            let write = appender.place(batch);
            for (group, first, count, at) in write.locations() {
                log.index.note(group, first, count, at);
            }
            end = log.put(&write);
            appender.on_durable(write.ticket);
        }
        let closing = appender.closing_write().expect("the last batch is not proven");
        log.put(&closing);
        (end == BYTES).then_some(log)
    }

    fn put(&mut self, write: &outrigger::wal::Write) -> usize {
        let range = write.offset as usize..write.offset as usize + write.bytes;
        self.bytes[range.clone()].copy_from_slice(&write.to_vec());
        range.end
    }

    /// Entries of three groups, with their hard states.
    fn entries() -> Self {
        let mut number = 0;
        let batches = (0..BATCHES).map(|at| {
            let mut batch = Batch::new();
            for group in 0..3 {
                let payload = |_| {
                    number += 1;
                    Entry::command(set(number, 500).raw)
                };
                batch.push(Run {
                    kind: RunKind::Log,
                    is_forgetful: false,
                    group: GroupId(group),
                    hard_state: hard_state(1 + at / 4, 2 * at),
                    run_term: Term(1 + at / 4),
                    first: Index(1 + 2 * at),
                    entries: (0..2).map(payload).collect(),
                });
            }
            batch
        });
        Self::new(3, batches.collect::<Vec<_>>()).expect("a block each")
    }

    /// Terms and votes of eight groups, many times over.
    fn votes() -> Self {
        let batches = (0..BATCHES).map(|at| {
            let mut batch = Batch::new();
            for number in 0..80 {
                let (group, round) = (number % 8, at * 10 + number / 8);
                batch.push(Run {
                    kind: RunKind::Log,
                    is_forgetful: false,
                    group: GroupId(group),
                    hard_state: HardState {
                        vote: ReplicaId(1 + round % 3),
                        ..hard_state(1 + round, 0)
                    },
                    run_term: Term(0),
                    first: Index(1),
                    entries: std::iter::empty().collect(),
                });
            }
            batch
        });
        Self::new(8, batches.collect::<Vec<_>>()).expect("a block each")
    }

    /// A snapshot, whole.
    fn snapshot() -> Self {
        let of_keys = |keys| {
            let state = hard_state(ENTRY.term.0, ENTRY.index.0);
            let mut batch = Batch::new();
            for piece in pieces(keys) {
                batch.push(Run::piece(GroupId(0), state, ENTRY, piece));
            }
            batch.push(Run::mark(RunKind::SnapshotTaken, GroupId(0), state, ENTRY));
            Self::new(1, [batch])
        };
        (400..).step_by(10).find_map(of_keys).expect("some number of keys fills it")
    }
}

fn hard_state(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: ReplicaId(2), commit: Index(commit) }
}

fn set(number: u64, bytes: usize) -> Command {
    let value: Vec<u8> = (0..bytes).map(|at| b'a' + ((at as u64 + number) % 26) as u8).collect();
    Command::from_args(&[b"SET", format!("key{number}").as_bytes(), &value])
}

/// A snapshot of a map with so many keys.
fn pieces(keys: u64) -> Vec<Bytes> {
    let mut map = Map::new();
    for number in 0..keys {
        map.apply(Index(1), &set(number, 100).raw, Wanted::No);
    }
    let state = GroupState::first(&[1, 2, 3].map(NodeId), &[]);
    let meta =
        SnapshotMeta::new(GroupId(0), ENTRY).with_state(&state).with_sessions(&Sessions::new());
    let mut outgoing = Outgoing::new(&meta, map.freeze());
    std::iter::from_fn(|| outgoing.next_piece()).collect()
}

/// A log that a node with two peers starts on.
pub(super) struct Start {
    log: Written,
    /// What it comes to.
    known: Vec<Known>,
}

/// Group, whether it knows that it has lost something, term, vote, last, applied, digest.
type Known = (GroupId, bool, Term, ReplicaId, Index, Index, u64);

impl Start {
    pub(super) fn of_entries() -> Self {
        Self::of(Written::entries())
    }

    pub(super) fn of_votes() -> Self {
        Self::of(Written::votes())
    }

    pub(super) fn of_a_snapshot() -> Self {
        Self::of(Written::snapshot())
    }

    fn of(log: Written) -> Self {
        let (known, noticed) = start(log.groups, &log.bytes).expect("it is whole");
        assert!(!noticed, "it is whole");
        assert!(known.iter().any(|it| 0 < it.2.0), "it says something: {known:?}");
        Self { log, known }
    }
}

impl Subject for Start {
    fn bytes(&self) -> Vec<u8> {
        self.log.bytes[..BYTES].to_vec()
    }

    fn read(&mut self, bytes: &[u8]) -> Verdict {
        let mut whole = self.log.bytes.clone();
        whole[..BYTES].copy_from_slice(bytes);
        if let Err(story) = only_what_was_written(&whole, &self.log.runs) {
            return Verdict::Wrong(story);
        }
        let Some((known, noticed)) = start(self.log.groups, &whole) else {
            return Verdict::Detected;
        };
        // Whoever knows of a loss answers nobody before it is whole again.
        let is_other = |(one, clean): &(&Known, &Known)| !one.1 && one != clean;
        match known.iter().zip(&self.known).find(is_other) {
            Some((one, clean)) => Verdict::Wrong(format!("it comes to {one:?}, not to {clean:?}")),
            None if noticed => Verdict::Detected,
            None => Verdict::Harmless,
        }
    }
}

/// What a start on this segment comes to, and whether it says that something is wrong; none if it refuses.
fn start(groups: u64, segment: &[u8]) -> Option<(Vec<Known>, bool)> {
    let mut recovering = Recovering::new(config(groups)).with_segment_bytes(SEGMENT_BYTES);
    recovering.segment(SEGMENT, &Bytes::copy_from_slice(segment)).ok()?;
    let (shard, report) = recovering.finish(Tick(0)).ok()?;
    let noticed = !report.losses.is_empty() || report.log.torn.is_some();
    Some((what_it_knows(&shard), noticed))
}

fn what_it_knows(shard: &Shard) -> Vec<Known> {
    let known = shard.replicas().iter().map(|replica| {
        let (status, lost) = (replica.status(), replica.forgotten().is_some());
        let (last, applied) = (status.last.index, status.applied);
        (replica.group(), lost, status.term, status.vote, last, applied, replica.digest())
    });
    known.collect()
}

/// Every run that is handed out was written, and in this order.
fn only_what_was_written(segment: &[u8], written: &[Run]) -> Result<(), String> {
    let mut recovery = Recovery::with_segment_bytes(IDENTITY, SEGMENT_BYTES);
    let mut left = written.iter();
    let mut story = Ok(());
    let salvaged = recovery.salvage(SEGMENT, segment, &mut |found| {
        if let Found::Run(run) = found
            && story.is_ok()
            && !left.any(|written| is_same(&run, written))
        {
            story = Err(format!("a run that was never written: {run:?}"));
        }
    });
    // A refusal makes void what was handed out before it.
    if salvaged.is_err() { Ok(()) } else { story }
}

fn is_same(run: &RecoveredRun<'_>, written: &Run) -> bool {
    (run.kind, run.is_forgetful) == (written.kind, written.is_forgetful)
        && (run.group, run.hard_state) == (written.group, written.hard_state)
        && (run.run_term, run.first) == (written.run_term, written.first)
        && run.entries().len() == written.entries.len()
        && run.entries().zip(&written.entries).all(|(one, other)| one.to_entry() == *other)
}

fn config(groups: u64) -> Config {
    let config = Config::new(IDENTITY.cluster, IDENTITY.node, &[1, 2, 3].map(NodeId), groups);
    let log_cache_bytes = 1 << 20;
    Config { incarnation: Incarnation(2), shard: IDENTITY.shard, log_cache_bytes, ..config }
}

/// A segment from which all that is in it is read back, as for a follower that has nothing.
pub(super) struct ReadBack {
    log: Written,
}

impl ReadBack {
    pub(super) fn new() -> Self {
        Self { log: Written::entries() }
    }

    /// All entries of a group; none if the reader refuses.
    fn entries(&self, group: GroupId, segment: &[u8]) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        while let Some(span) = self.log.index.find(group, Index(entries.len() as u64 + 1)) {
            let first = Index(entries.len() as u64 + 1);
            let read = read_span(
                IDENTITY,
                segment,
                span.location,
                group,
                first,
                span.last,
                LOG_READ_BYTES_MAX,
            );
            entries.extend(read.ok()?);
        }
        Some(entries)
    }
}

impl Subject for ReadBack {
    fn bytes(&self) -> Vec<u8> {
        self.log.bytes[..BYTES].to_vec()
    }

    fn read(&mut self, bytes: &[u8]) -> Verdict {
        let mut whole = self.log.bytes.clone();
        whole[..BYTES].copy_from_slice(bytes);
        let mut verdict = Verdict::Harmless;
        for group in (0..self.log.groups).map(GroupId) {
            let of_group = |run: &&Run| run.group == group;
            let written = self.log.runs.iter().filter(of_group).flat_map(|run| &run.entries);
            match self.entries(group, &whole) {
                None => verdict = Verdict::Detected,
                Some(read) if read.iter().eq(written) => {}
                Some(_) => return Verdict::Wrong(format!("group {group} gets other entries")),
            }
        }
        verdict
    }
}

/// A snapshot as a follower takes it in, piece by piece.
pub(super) struct Pieces {
    all: Vec<u8>,
    /// Where each piece lies.
    places: Vec<Range<usize>>,
    digest: u64,
}

impl Pieces {
    pub(super) fn new() -> Self {
        let (mut all, mut places) = (Vec::new(), Vec::new());
        for piece in pieces(600) {
            places.push(all.len()..all.len() + piece.len());
            all.extend_from_slice(&piece);
        }
        let digest = Self::take(&all, &places).expect("it is whole");
        Self { all, places, digest }
    }

    /// The digest of what it comes to; none if it is refused.
    fn take(all: &[u8], places: &[Range<usize>]) -> Option<u64> {
        let mut incoming = Incoming::new(GroupId(0), ENTRY, Map::new().restoring());
        for place in places {
            incoming.take(&Bytes::copy_from_slice(&all[place.clone()])).ok()?;
        }
        let (_, machine) = incoming.finish().ok()?;
        machine.map(|machine| machine.digest())
    }
}

impl Subject for Pieces {
    fn bytes(&self) -> Vec<u8> {
        self.all[..BYTES].to_vec()
    }

    fn read(&mut self, bytes: &[u8]) -> Verdict {
        let mut all = self.all.clone();
        all[..BYTES].copy_from_slice(bytes);
        match Self::take(&all, &self.places) {
            None => Verdict::Detected,
            Some(digest) if digest == self.digest => Verdict::Harmless,
            Some(_) => Verdict::Wrong("it becomes another state".into()),
        }
    }
}
