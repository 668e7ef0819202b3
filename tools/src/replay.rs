//! `tool replay`: writes the log of one core as clients would fill it, and reads it back, step by step.
//!
//! ```text
//! tool replay --dir target/replay                   1 GiB, 1,000 groups, 256-byte values
//! tool replay --dir target/replay --keep            reads again what lies there
//! ```
//!
//! Each step does what the one above it does, and something more, so that the differences say what costs:
//!
//! ```text
//! read      the bytes, from wherever they are
//! scan      every checksum
//! index     where each entry is
//! keep      every entry taken into memory, committed, and thrown away by a machine that does nothing
//! replay    all there is: the ordered map
//! ```
//!
//! Seconds are those of the processor: what the machine does for others meanwhile does not count, and
//! neither does waiting for the device. Drop the page cache before it (`echo 3 > /proc/sys/vm/drop_caches`) to see that in `time`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use outrigger::id::{ClusterId, ConnId, Incarnation, Index, NodeId, SegmentSeq, ShardId, Tick};
use outrigger::limits::{BLOCK_BYTES, SEGMENT_BYTES};
use outrigger::shard::event::Request;
use outrigger::shard::{Config, Effects, Event, Leases, Recovering, Shard};
use outrigger::store::connection::Manner;
use outrigger::store::{Frozen, RestoreError, Restoring, StateMachine, Wanted};
use outrigger::wal::{self, Identity, LogIndex, RunKind, file_name, parse_file_name};
use outrigger::wire::reply::Reply;
use outrigger::wire::resp::Command;

/// Which log to write and read.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where it lies; what is there is deleted.
    #[arg(long)]
    dir: PathBuf,
    /// Read what lies there, write nothing.
    #[arg(long)]
    keep: bool,
    /// Groups of the core.
    #[arg(long, default_value_t = 1_000)]
    groups: u64,
    /// Keys that are written, over and over.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// How much log is written, in MiB.
    #[arg(long, default_value_t = 1_024)]
    mib: u64,
    /// How long the log is to be, in MiB; longer than what is written: no snapshots.
    #[arg(long, default_value_t = 1 << 20)]
    log_mib: u64,
    /// Commands that arrive together, and share a write.
    #[arg(long, default_value_t = 64)]
    at_once: u64,
    /// How often each step is repeated; the fastest counts.
    #[arg(long, default_value_t = 3)]
    times: u32,
}

/// Why it ended early.
pub(crate) type Failed = Box<dyn std::error::Error>;

/// Writes the log, reads it, and tells what each step took.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failed> {
    if !arguments.keep {
        fill(arguments, out)?;
    }
    let log = Log::open(&arguments.dir)?;
    let identity = Identity { cluster: ClusterId(1), node: NodeId(1), shard: ShardId(0) };
    writeln!(out, "{:>7} {:>9} {:>8} {:>12}  what", "", "seconds", "MiB/s", "ns per entry")?;
    let mut entries = 0;
    let mut tell = |out: &mut dyn Write, name: &str, mut step: Step<'_>| -> Result<(), Failed> {
        let mut best = f64::INFINITY;
        let mut what = String::new();
        for _ in 0..arguments.times.max(1) {
            let begun = busy()?;
            let (count, found) = step()?;
            best = best.min(busy()? - begun);
            (entries, what) = (count.max(entries), found);
        }
        let (mib, ns) = (log.bytes as f64 / 1048576.0 / best, best * 1e9 / entries.max(1) as f64);
        writeln!(out, "{name:>7} {best:>9.3} {mib:>8.0} {ns:>12.0}  {what}")?;
        Ok(())
    };
    tell(
        out,
        "read",
        Box::new(|| {
            let mut sum = 0;
            log.each(|_, bytes, _| {
                sum += bytes.chunks(BLOCK_BYTES).map(|block| u64::from(block[0])).sum::<u64>();
                Ok(())
            })?;
            Ok((0, format!("{} MiB in {} segments, {sum}", log.bytes >> 20, log.files.len())))
        }),
    )?;
    tell(
        out,
        "scan",
        Box::new(|| {
            let (mut recovery, mut entries) =
                (wal::Recovery::new(identity).reclaimed_to(log.first), 0);
            log.each(|seq, bytes, later| {
                later.iter().find_map(|(seq, block)| recovery.look_ahead(*seq, block));
                recovery.segment(seq, bytes, &mut |run| {
                    entries += if run.kind == RunKind::Log { run.count } else { 0 };
                })?;
                Ok(())
            })?;
            let found = recovery.finish()?;
            Ok((
                entries,
                format!("{} batches, {} runs, {entries} entries", found.batches, found.runs),
            ))
        }),
    )?;
    tell(
        out,
        "index",
        Box::new(|| {
            let (mut recovery, mut entries) =
                (wal::Recovery::new(identity).reclaimed_to(log.first), 0);
            let mut index = LogIndex::new();
            log.each(|seq, bytes, later| {
                later.iter().find_map(|(seq, block)| recovery.look_ahead(*seq, block));
                recovery.segment(seq, bytes, &mut |run| {
                    if run.kind == RunKind::Log {
                        entries += run.count;
                        index.note(run.group, run.first, run.count, run.location);
                    }
                })?;
                Ok(())
            })?;
            Ok((entries, format!("{} spans", index.spans())))
        }),
    )?;
    tell(
        out,
        "keep",
        Box::new(|| {
            let recovering = Recovering::with_machines(config(arguments), &|_| Box::new(Nothing))
                .reclaimed_to(log.first);
            let (shard, entries) = replay(&log, recovering)?;
            Ok((entries, format!("{} groups", shard.replicas().len())))
        }),
    )?;
    tell(
        out,
        "replay",
        Box::new(|| {
            let (shard, entries) =
                replay(&log, Recovering::new(config(arguments)).reclaimed_to(log.first))?;
            let keys: u64 = shard.replicas().iter().map(|replica| replica.machine().len()).sum();
            Ok((entries, format!("{keys} keys")))
        }),
    )?;
    Ok(())
}

type Step<'a> = Box<dyn FnMut() -> Result<(u64, String), Failed> + 'a>;

fn replay(log: &Log, mut recovering: Recovering) -> Result<(Shard, u64), Failed> {
    log.each(|seq, bytes, later| {
        later.iter().find_map(|(seq, block)| recovering.look_ahead(*seq, block));
        Ok(recovering.segment(seq, bytes)?)
    })?;
    let (shard, found) = recovering.finish(Tick(0))?;
    Ok((shard, found.entries))
}

fn config(arguments: &Arguments) -> Config {
    Config {
        cluster: ClusterId(1),
        node: NodeId(1),
        incarnation: Incarnation(1),
        shard: ShardId(0),
        cores: 1,
        groups: arguments.groups,
        nodes: vec![NodeId(1)],
        addresses: Vec::new(),
        election_ms: 1_000,
        heartbeat_ms: 100,
        priority: 100,
        request_ms: 10_000,
        flushes_in_flight: 2,
        flush_joins_bytes: 0,
        log_cache_bytes: 128 << 20,
        leases: Leases::default(),
        log_bytes: arguments.log_mib << 20,
        snapshot_bytes_per_s: 1 << 30,
        seed: 1,
    }
}

/// The files of a log.
struct Log {
    files: Vec<(SegmentSeq, PathBuf)>,
    first: SegmentSeq,
    bytes: u64,
}

impl Log {
    fn open(dir: &Path) -> Result<Self, Failed> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            files.extend(name.and_then(parse_file_name).map(|segment| (segment, path)));
        }
        files.sort();
        let first = files.first().map_or(SegmentSeq(0), |(segment, _)| *segment);
        let bytes = (files.len() * SEGMENT_BYTES) as u64;
        Ok(Self { files, first, bytes })
    }

    /// Each segment, whole, with the first blocks of those behind it.
    fn each(
        &self,
        mut on: impl FnMut(SegmentSeq, &Bytes, &[(SegmentSeq, Vec<u8>)]) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        for (at, (seq, path)) in self.files.iter().enumerate() {
            let mut bytes = vec![0; SEGMENT_BYTES];
            File::open(path)?.read_exact(&mut bytes)?;
            let bytes = Bytes::from(bytes);
            let later = self.files[at + 1..].iter().take(3).map(|(seq, path)| {
                let mut block = vec![0; BLOCK_BYTES];
                File::open(path)?.read_exact(&mut block)?;
                Ok((*seq, block))
            });
            let later = later.collect::<Result<Vec<_>, std::io::Error>>()?;
            on(*seq, &bytes, &later)?;
        }
        Ok(())
    }
}

/// A core and its disk, without the flushes: what is measured is the reading.
struct Core {
    shard: Shard,
    fx: Effects,
    dir: PathBuf,
    files: std::collections::BTreeMap<SegmentSeq, File>,
    now: u64,
    seq: u64,
    written: u64,
    longest: u64,
}

impl Core {
    fn turn(&mut self) -> Result<(), Failed> {
        self.now += 1;
        let now = Tick(self.now);
        self.shard.turn(now, &mut self.fx);
        if let Some(segment) = self.fx.spare.take() {
            let path = self.dir.join(file_name(segment));
            let file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
            file.set_len(SEGMENT_BYTES as u64)?;
            self.files.insert(segment, file);
            self.shard.on_event(now, Event::SpareReady(segment));
        }
        for write in self.fx.writes.drain(..) {
            let file = self.files.get(&write.segment).ok_or("a write to no segment")?;
            file.write_all_at(&write.to_vec(), write.offset)?;
            self.written += write.bytes as u64;
            self.shard.on_event(now, Event::Flushed(write.ticket));
        }
        if let Some(first) = self.fx.reclaim.take() {
            let kept = self.files.split_off(&first);
            for segment in std::mem::replace(&mut self.files, kept).into_keys() {
                fs::remove_file(self.dir.join(file_name(segment)))?;
            }
        }
        self.longest = self.longest.max(self.files.len() as u64);
        self.fx.clear();
        Ok(())
    }

    fn set(&mut self, key: u64, value: &[u8]) {
        let key = format!("key:{key:012}");
        let command = Command::from_args(&[b"SET", key.as_bytes(), value]);
        let (conn, seq) = (ConnId(1), self.seq);
        self.seq += 1;
        let request =
            Request { conn, seq, command, after_writes: false, manner: Manner::default() };
        self.shard.on_event(Tick(self.now), Event::Request(request));
    }
}

/// Writes the log.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]
fn fill(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Failed> {
    let dir = arguments.dir.clone();
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let (shard, _) = Recovering::new(config(arguments)).finish(Tick(0))?;
    let (fx, files) = (Effects::default(), std::collections::BTreeMap::new());
    let mut core = Core { shard, fx, dir, files, now: 0, seq: 0, written: 0, longest: 0 };
    for _ in 0..20 {
        core.turn()?;
    }
    let mut rng = fastrand::Rng::with_seed(1);
    let mut value = vec![0; arguments.value_bytes];
    let begun = Instant::now();
    while core.written < arguments.mib << 20 {
        for _ in 0..arguments.at_once {
            rng.fill(&mut value);
            core.set(rng.u64(..arguments.keys), &value);
        }
        core.turn()?;
    }
    for _ in 0..20 {
        core.turn()?;
    }
    if let Some(write) = core.shard.closing_write() {
        core.files[&write.segment].write_all_at(&write.to_vec(), write.offset)?;
    }
    let report = core.shard.report(false);
    let counters = &report.counters;
    writeln!(
        out,
        "{} commands, {} MiB written in {:.1} s; {} snapshots; {} segments at most",
        core.seq,
        core.written >> 20,
        begun.elapsed().as_secs_f64(),
        counters.snapshots_taken,
        core.longest,
    )?;
    Ok(())
}

/// Seconds of processor that this thread has had: a machine that others use as well does not count.
fn busy() -> Result<f64, Failed> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
    Ok(nanoseconds / 1e9)
}

/// A machine that does nothing.
struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: Index, _: &Bytes, _: Wanted) -> Reply {
        Reply::Nil
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
        Box::new(Self)
    }

    fn restoring(&self) -> Box<dyn Restoring> {
        Box::new(Self)
    }
}

impl Frozen for Nothing {
    fn next_chunk(&mut self, _: usize) -> Option<Bytes> {
        None
    }
}

impl Restoring for Nothing {
    fn chunk(&mut self, _: &Bytes) -> Result<(), RestoreError> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn StateMachine>, RestoreError> {
        Ok(self)
    }
}
