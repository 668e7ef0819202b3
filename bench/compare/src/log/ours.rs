//! Outrigger's log alone: what a node writes through, without the node.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use outrigger::config::FlushMethod;
use outrigger::entry::Entry;
use outrigger::id::{ClusterId, GroupId, Index, NodeId, ShardId, Term};
use outrigger::limits::{SEGMENT_BYTES, SPARE_SEGMENTS};
use outrigger::raft::HardState;
use outrigger::runtime::Fatal;
use outrigger::runtime::log::{Log, Settings, Ticket, on_core};
use outrigger::wal::{Identity, LogIndex, RunKind};

use super::batches::Writer;
use super::{Method, Run, Sample, histogram};
use crate::machine::Device;

const IDENTITY: Identity = Identity { cluster: ClusterId(1), node: NodeId(1), shard: ShardId(0) };

fn settings(dir: PathBuf, method: Method) -> Settings {
    let flush_method = match method {
        Method::Dsync => FlushMethod::Dsync,
        Method::Fdatasync => FlushMethod::Fdatasync,
    };
    Settings { flush_method, ..Settings::new(dir, IDENTITY) }
}

/// Hand over the next batch of a writer.
fn append(log: &mut Log, writer: &mut Writer) -> Result<Ticket, Fatal> {
    let pieces: Vec<_> = writer.pieces().collect();
    let runs = pieces.into_iter().map(|piece| outrigger::wal::Run {
        kind: RunKind::Log,
        is_forgetful: false,
        group: GroupId(piece.group),
        hard_state: HardState::default(),
        run_term: Term(1),
        first: Index(piece.first),
        // The checksum is taken here, as where a node's entries are born.
        entries: (0..piece.count).map(|_| Entry::command(writer.payload())).collect(),
    });
    Ok(log.append(runs)?)
}

pub(super) fn measure(run: Run<'_>) -> Result<Sample> {
    let Run { cell, dir, place, warm_up, time, seed, options } = run;
    let settings = settings(dir, options.flush_method);
    let place = place.clone();
    // Tests have no device to look at.
    let counters = move || place.counters().unwrap_or_default();
    let sample = on_core("log", move || async move {
        let (mut log, _) = Log::open(settings, |_| {})?;
        let mut writers = Writer::all(cell, seed);
        // The first segment is in use and its successors are made: a node has them by the time it serves.
        let first = append(&mut log, &mut writers[0])?;
        log.wait_for(first).await?;
        let prepared = |log: &Log| {
            let written = log.written();
            written.segments_made + written.segments_reserved + written.segments_recycled
        };
        while prepared(&log) < 1 + SPARE_SEGMENTS as u64 {
            log.wait().await?;
        }
        let made = log.written().segments_made;
        let mut outstanding = VecDeque::new();
        for (at, writer) in writers.iter_mut().enumerate() {
            outstanding.push_back((append(&mut log, writer)?, at, Instant::now()));
        }
        let opened = Instant::now();
        let mut began: Option<(Instant, Device, u64)> = None;
        let (mut batches, mut latency) = (0, histogram());
        let elapsed = loop {
            let durable = log.wait().await?;
            let now = Instant::now();
            if began.is_none() && warm_up <= now - opened {
                began = Some((now, counters(), log.written().segments_made));
            }
            let start = began.as_ref().map(|(start, ..)| *start);
            if let Some(start) = start
                && time <= now - start
            {
                break now - start;
            }
            while let Some(&(ticket, at, since)) = outstanding.front()
                && ticket <= durable
            {
                outstanding.pop_front();
                if start.is_some_and(|start| start < now) {
                    batches += 1;
                    latency.saturating_record((now - since).as_nanos() as u64);
                }
                outstanding.push_back((append(&mut log, &mut writers[at])?, at, now));
            }
        };
        let (_, device, made_before) = began.unwrap_or((opened, Device::default(), made));
        let device = counters().since(device);
        let made = log.written().segments_made - made_before;
        log.close().await?;
        let prepared_bytes = made * SEGMENT_BYTES as u64;
        Ok::<_, Fatal>(Sample { batches, elapsed, latency, device, prepared_bytes })
    })??;
    Ok(sample)
}

/// Write a log to be recovered: so many batches of one writer.
pub(super) fn fill(dir: PathBuf, mut writer: Writer, batches: u64, method: Method) -> Result<()> {
    on_core("log", move || async move {
        let (mut log, _) = Log::open(settings(dir, method), |_| {})?;
        let mut pending = VecDeque::new();
        for _ in 0..batches {
            pending.push_back(append(&mut log, &mut writer)?);
            if pending.len() == 64
                && let Some(oldest) = pending.pop_front()
            {
                log.wait_for(oldest).await?;
            }
        }
        log.close().await
    })??;
    Ok(())
}

/// Recover it as a node does, with the index of where everything lies. Returns the entries found.
pub(super) fn recover(dir: PathBuf, method: Method) -> Result<(u64, std::time::Duration)> {
    let (index, elapsed, entries) = on_core("log", move || async move {
        let mut index = LogIndex::new();
        let started = Instant::now();
        let (log, opened) = Log::open(settings(dir, method), |run| {
            index.note(run.group, run.first, run.count, run.location);
        })?;
        let elapsed = started.elapsed();
        log.close().await?;
        Ok::<_, Fatal>((index, elapsed, opened.entries))
    })??;
    ensure!(entries == 0 || 0 < index.spans(), "the index is empty");
    Ok((entries, elapsed))
}
