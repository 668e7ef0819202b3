//! Logs side by side: synced appends, recovery, and what the device gives at most.
//!
//! ```text
//!  N writers, each with one batch outstanding
//!    │ batch: so many entries, spread over the writer's own groups
//!    ▼
//!  outrigger    one thread: what arrives while writes are in flight shares the next one, 4 at a time
//!  raft-engine  N threads: its write groups do the same, one at a time
//!  redb         N threads, a transaction each
//!    │
//!    ▼ durable: the latency of a batch ends
//! ```
//!
//! All run in turn on one file system, in fresh directories, each round beginning with somebody else.

mod batches;
mod fio;
mod ours;
mod raft_engine;
mod recovery;
mod redb;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;

use crate::machine::{self, Device, Place};
use crate::stats::{digits, median, order, ratio, table, whole};

/// What is measured, and for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Groups that share the log.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 1000, 10_000])]
    groups: Vec<u64>,
    /// Payload bytes per entry.
    #[arg(long, value_delimiter = ',', default_values_t = [256, 4096])]
    entry_bytes: Vec<usize>,
    /// Entries per synced batch.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256])]
    batches: Vec<usize>,
    /// Batches outstanding at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
    concurrent: Vec<usize>,
    /// Every combination of the four. Without it: all batches with 1,000 groups and 256 bytes; elsewhere the
    /// smallest, the middle and the largest only.
    #[arg(long)]
    full: bool,
    /// Who is measured beside Outrigger.
    #[arg(long, value_delimiter = ',', default_values_t = [Peer::RaftEngine])]
    peers: Vec<Peer>,
    /// Rounds; each measures everything once, and begins with somebody else.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds per measurement, after a fifth of that to warm up.
    #[arg(long, default_value_t = 0.6)]
    seconds: f64,
    /// Payload bytes in the log that is recovered; 0: recovery is not measured.
    #[arg(long, default_value_t = 1 << 30)]
    recover_bytes: u64,
    /// How Outrigger makes a write durable.
    #[arg(long, value_enum, default_value_t = Method::Dsync)]
    flush_method: Method,
    /// Let raft-engine prepare files of so many MiB in all before it is measured, as it can recycle them
    /// then; 0, its default: none.
    #[arg(long, default_value_t = 0)]
    raft_engine_prefill_mib: u64,
    /// Where data goes; all on one file system, removed afterwards. Default: a directory under target/.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave fio out: no ceiling is measured.
    #[arg(long)]
    no_fio: bool,
    /// Seeds the payloads.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A log that somebody else wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    RaftEngine,
    Redb,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::RaftEngine => "raft-engine",
            Self::Redb => "redb",
        }
    }
}

/// As `outrigger::config::FlushMethod`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    Dsync,
    Fdatasync,
}

/// One point of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    groups: u64,
    entry_bytes: usize,
    batch: usize,
    concurrent: usize,
}

/// What every measurement is told.
struct Run<'a> {
    cell: Cell,
    /// An empty directory.
    dir: PathBuf,
    place: &'a Place,
    warm_up: Duration,
    time: Duration,
    seed: u64,
    options: &'a Options,
}

/// One measurement.
#[derive(Debug)]
struct Sample {
    /// Batches that became durable in time.
    batches: u64,
    elapsed: Duration,
    /// Of those, from when each was handed over until it was durable, in ns.
    latency: Histogram<u64>,
    /// What the device did meanwhile, for anyone.
    device: Device,
    /// Bytes of files prepared meanwhile for later use; part of `device`.
    prepared_bytes: u64,
}

/// An empty histogram of nanoseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constant and valid")
}

/// A directory that goes away with this.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Measure, and return the record.
pub(crate) fn run(options: &Options) -> Result<String> {
    let Options { rounds, seconds, seed, .. } = options;
    ensure!(0 < *rounds && 0.0 < *seconds, "nothing would be measured");
    if !options.no_fio {
        fio::find()?;
    }
    let root = options.dir.clone().unwrap_or_else(|| {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")).to_path_buf()
    });
    let scratch = Scratch::new(root.join(format!("compare-log-{}", std::process::id())))?;
    let place = Place::of(&scratch.0)?;
    let mut text = machine::head(
        "Logs: synced appends, and recovery",
        *seed,
        &[
            ("filesystem", format!("{} on {}", place.filesystem, place.device)),
            ("flush method", format!("{:?}", options.flush_method).to_lowercase()),
            ("rounds", format!("{rounds}, alternating, {seconds} s each; the tables hold medians")),
            ("peers", peers(options)),
        ],
    );
    let ceiling = if options.no_fio { None } else { Some(fio::measure(&scratch.0, options)?) };
    if let Some(ceiling) = &ceiling {
        text.push_str(&ceiling.text());
    }
    text.push_str(&appends(options, &scratch.0, &place, ceiling.as_ref())?);
    if 0 < options.recover_bytes {
        text.push_str(&recovery::measure(options, &scratch.0)?);
    }
    Ok(text)
}

fn peers(options: &Options) -> String {
    let names = options.peers.iter().map(|peer| match peer {
        Peer::RaftEngine => match options.raft_engine_prefill_mib {
            0 => "raft-engine 0.4.2 (no compression, otherwise its defaults)".into(),
            mib => format!("raft-engine 0.4.2 (no compression, {mib} MiB of files prefilled)"),
        },
        Peer::Redb => "redb 2 (Durability::Immediate)".to_owned(),
    });
    names.collect::<Vec<_>>().join(", ")
}

/// What is to be measured, in order.
fn plan(options: &Options) -> Vec<Cell> {
    let mut cells = Vec::new();
    let Options { groups, entry_bytes, batches, concurrent, full, .. } = options;
    for (&entry_bytes, &groups) in
        entry_bytes.iter().flat_map(|bytes| groups.iter().map(move |groups| (bytes, groups)))
    {
        let is_whole = *full || (groups == 1000 && entry_bytes == 256);
        if !is_whole && groups != 1000 && entry_bytes != 256 {
            continue;
        }
        for (at, &batch) in batches.iter().enumerate() {
            for (place, &concurrent) in concurrent.iter().enumerate() {
                // Two writers never write to one group at a time: there is no order between them.
                if concurrent as u64 <= groups && (is_whole || at == place) {
                    cells.push(Cell { groups, entry_bytes, batch, concurrent });
                }
            }
        }
    }
    cells
}

fn appends(
    options: &Options,
    scratch: &Path,
    place: &Place,
    ceiling: Option<&fio::Ceiling>,
) -> Result<String> {
    let mut rows = Vec::new();
    let count = 1 + options.peers.len();
    for cell in plan(options) {
        let mut samples: Vec<Vec<Sample>> = (0..count).map(|_| Vec::new()).collect();
        for round in 0..options.rounds {
            for at in order(count, round) {
                let dir = Scratch::new(scratch.join("run"))?;
                let time = Duration::from_secs_f64(options.seconds);
                let seed = options.seed + round as u64;
                let (dir, warm_up) = (dir.0.clone(), time / 5);
                let run = Run { cell, dir: dir.clone(), place, warm_up, time, seed, options };
                let sample = match at.checked_sub(1).map(|at| options.peers[at]) {
                    None => ours::measure(run)?,
                    Some(Peer::RaftEngine) => raft_engine::measure(run)?,
                    Some(Peer::Redb) => redb::measure(run)?,
                };
                samples[at].push(sample);
                drop(Scratch(dir));
            }
        }
        for (at, of) in samples.iter().enumerate() {
            rows.push(row(options, cell, at, of, &samples[0]));
        }
        eprintln!(
            "compare: {}",
            rows[rows.len() - count..]
                .iter()
                .map(|row| row.join("  "))
                .collect::<Vec<_>>()
                .join("\n         ")
        );
    }
    let head = [
        "",
        "groups",
        "entry, B",
        "batch × concurrent",
        "appends/s",
        "p50, µs",
        "p99, µs",
        "device bytes per payload byte",
        "of which preparing files",
        "device flushes per batch",
        "ours ÷ it: appends",
        "ours ÷ it: p99",
    ];
    let mut text = format!(
        "## Synced appends\n\n\
         A batch is so many entries for as many groups, as far as there are; its latency ends when it is durable. \
         Payloads are random bytes. Device bytes and flushes are the device's own counters: they include \
         the journal, and whatever else wrote to it meanwhile. Outrigger writes new segments with zeros before \
         they are used, in the background, or only reserves them while its writes are large; raft-engine reserves \
         and extends its files as it goes. Ratios are medians of \
         each round's ratio.\n\n{}\n",
        table(&head, &rows)
    );
    if let Some(ceiling) = ceiling {
        text.push_str(&ceiling.beside(&rows));
    }
    Ok(text)
}

fn row(options: &Options, cell: Cell, at: usize, of: &[Sample], ours: &[Sample]) -> Vec<String> {
    let Cell { groups, entry_bytes, batch, concurrent } = cell;
    let rate = |it: &Sample| (it.batches * batch as u64) as f64 / it.elapsed.as_secs_f64();
    let p99 = |it: &Sample| it.latency.value_at_quantile(0.99) as f64 / 1e3;
    let payload = |it: &Sample| (it.batches * batch as u64 * entry_bytes as u64) as f64;
    let all =
        |of: &[Sample], value: &dyn Fn(&Sample) -> f64| of.iter().map(value).collect::<Vec<_>>();
    let middle = |value: &dyn Fn(&Sample) -> f64| median(all(of, value));
    let beside = |value: &dyn Fn(&Sample) -> f64| match at {
        0 => "–".into(),
        _ => digits(ratio(&all(ours, value), &all(of, value)), 2),
    };
    vec![
        at.checked_sub(1).map_or("outrigger", |at| options.peers[at].name()).into(),
        groups.to_string(),
        entry_bytes.to_string(),
        format!("{batch} × {concurrent}"),
        whole(middle(&rate).unwrap_or(0.0)),
        whole(middle(&|it| it.latency.value_at_quantile(0.5) as f64 / 1e3).unwrap_or(0.0)),
        whole(middle(&p99).unwrap_or(0.0)),
        digits(middle(&|it| it.device.bytes as f64 / payload(it)), 2),
        digits(middle(&|it| it.prepared_bytes as f64 / payload(it)), 2),
        digits(middle(&|it| it.device.flushes as f64 / it.batches as f64), 2),
        beside(&rate),
        beside(&p99),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    fn options(text: &str) -> Options {
        Arguments::parse_from(std::iter::once("log").chain(text.split_whitespace())).options
    }

    #[test]
    fn the_plan_is_short_unless_all_is_wanted() {
        let cells = plan(&options(""));
        let at = |groups, entry_bytes| {
            cells.iter().filter(|it| (it.groups, it.entry_bytes) == (groups, entry_bytes)).count()
        };
        assert_eq!((at(1000, 256), at(1000, 4096), at(16, 256), at(16, 4096)), (9, 3, 3, 0));
        assert_eq!(at(1, 256), 1, "one group has one writer");
        assert_eq!(plan(&options("--full")).len(), 2 * 3 * (1 + 3 + 3 + 3));
    }

    #[test]
    fn everybody_appends_what_was_asked_and_says_so() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/compare-test");
        let scratch = Scratch::new(root).unwrap();
        let options =
            options("--rounds 1 --seconds 0.05 --recover-bytes 3000000 --peers raft-engine,redb");
        let place = Place { filesystem: String::new(), device: String::new() };
        for cell in [
            Cell { groups: 1, entry_bytes: 100, batch: 3, concurrent: 1 },
            Cell { groups: 10, entry_bytes: 256, batch: 16, concurrent: 4 },
        ] {
            for measure in [ours::measure, raft_engine::measure, redb::measure] {
                let dir = Scratch::new(scratch.0.join("run")).unwrap();
                let (time, warm_up) = (Duration::from_millis(50), Duration::from_millis(10));
                let dir_path = dir.0.clone();
                let (place, options) = (&place, &options);
                let run = Run { cell, dir: dir_path, place, warm_up, time, seed: 1, options };
                let sample = measure(run).unwrap();
                assert!(0 < sample.batches && sample.latency.len() == sample.batches, "{sample:?}");
            }
        }
        // It counts what comes back.
        let text = recovery::measure(&options, &scratch.0).unwrap();
        assert!(text.contains("| outrigger | "), "{text}");
    }
}
