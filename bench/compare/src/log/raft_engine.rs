//! TiKV's raft-engine, as TiKV calls it: a log batch per write, synced, from as many threads as there are
//! writers.

use std::path::PathBuf;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use raft::eraftpb::Entry;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::batches::Writer;
use super::{Run, Sample, histogram};

/// Tells raft-engine what an entry is.
#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

fn open(dir: PathBuf, prefill_mib: u64) -> Result<Engine> {
    let config = Config {
        dir: dir.to_str().context("the directory's name is not text")?.to_owned(),
        // In its favour: the payloads are random, compressing them would be for nothing.
        batch_compression_threshold: ReadableSize(0),
        prefill_for_recycle: 0 < prefill_mib,
        prefill_limit: Some(ReadableSize::mb(prefill_mib)),
        ..Config::default()
    };
    Engine::open(config).context("raft-engine")
}

/// The next batch of a writer.
fn batch(writer: &mut Writer) -> Result<LogBatch> {
    let mut batch = LogBatch::default();
    let pieces: Vec<_> = writer.pieces().collect();
    for piece in pieces {
        let entry = |index| Entry { index, term: 1, data: writer.payload(), ..Entry::default() };
        let entries: Vec<_> = (piece.first..piece.first + piece.count as u64).map(entry).collect();
        batch.add_entries::<Entries>(piece.group, &entries)?;
    }
    Ok(batch)
}

pub(super) fn measure(run: Run<'_>) -> Result<Sample> {
    let Run { cell, dir, place, warm_up, time, seed, options } = run;
    let engine = open(dir, options.raft_engine_prefill_mib)?;
    let write = |writer: &mut Writer| {
        engine.write(&mut batch(writer)?, true)?;
        anyhow::Ok(())
    };
    threads(Writer::all(cell, seed), warm_up, time, &write, || place.counters().unwrap_or_default())
}

/// Threads that write one batch after another, and what came of it.
pub(super) fn threads(
    mut writers: Vec<Writer>,
    warm_up: Duration,
    time: Duration,
    write: &(impl Fn(&mut Writer) -> Result<()> + Sync),
    counters: impl Fn() -> crate::machine::Device,
) -> Result<Sample> {
    let barrier = Barrier::new(writers.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .iter_mut()
            .map(|writer| {
                scope.spawn(|| {
                    let first = write(writer);
                    barrier.wait();
                    first?;
                    let start = Instant::now() + warm_up;
                    let (mut batches, mut latency) = (0u64, histogram());
                    loop {
                        let since = Instant::now();
                        write(writer)?;
                        let now = Instant::now();
                        if start + time <= now {
                            return Ok((batches, latency));
                        }
                        if start < now {
                            batches += 1;
                            latency.saturating_record((now - since).as_nanos() as u64);
                        }
                    }
                })
            })
            .collect();
        barrier.wait();
        std::thread::sleep(warm_up);
        let before = counters();
        std::thread::sleep(time);
        let device = counters().since(before);
        let (mut batches, mut latency) = (0, histogram());
        for thread in threads {
            let joined: Result<_> = thread.join().expect("a writer panicked");
            let (more, theirs) = joined?;
            batches += more;
            latency.add(theirs)?;
        }
        Ok(Sample { batches, elapsed: time, latency, device, prepared_bytes: 0 })
    })
}

/// Write a log to be recovered: so many batches of one writer.
pub(super) fn fill(dir: PathBuf, mut writer: Writer, batches: u64) -> Result<()> {
    let engine = open(dir, 0)?;
    for number in 1..=batches {
        // Eight unsynced writes between two synced ones: nobody measures this.
        engine.write(&mut batch(&mut writer)?, number % 8 == 0 || number == batches)?;
    }
    Ok(())
}

/// Recover it. Returns the entries found.
pub(super) fn recover(dir: PathBuf) -> Result<(u64, Duration)> {
    let started = Instant::now();
    let engine = open(dir, 0)?;
    let elapsed = started.elapsed();
    let count = |group| {
        let last = engine.last_index(group).unwrap_or(0);
        engine.first_index(group).map_or(0, |first| last + 1 - first)
    };
    Ok((engine.raft_groups().into_iter().map(count).sum(), elapsed))
}
