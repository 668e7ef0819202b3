//! Two raft cores side by side: three replicas of a group on one thread, no network, no disk.
//!
//! ```text
//!   propose a batch ──► replica 1 ──► messages ──► replicas 2, 3 ──► answers ──► applied on all three
//!   └──────────────────────────── one round, timed from quiet to quiet ───────────────────────────┘
//! ```
//!
//! A write counts as durable as soon as it is asked for. Both cores see the same schedule: what a replica
//! has received is stepped, then it is asked once what it wants. Nothing is encoded for a wire.
//!
//! The two do not do the same work: Outrigger's core does not hold payloads, its driver does. So it is
//! measured twice, alone and with the log caches a node has around it.

mod ours;
mod raft_crate;

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::Args;

use crate::alloc;
use crate::machine;
use crate::stats::{digits, median, order, ratio, table, whole};

/// The size of every payload, in bytes.
const PAYLOAD_BYTES: usize = 256;
/// Heartbeats without a new entry, after which a group is idle.
const BEATS: u32 = 3;
/// Batches committed before anything is measured: buffers grow to their working size.
const WARM_UP: u32 = 512;

/// What is measured, and for how long.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Entries proposed at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
    batches: Vec<u32>,
    /// Rounds; each measures everything once, and begins with somebody else.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of processor time per measurement.
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Groups whose memory is measured.
    #[arg(long, default_value_t = 10_000)]
    groups: usize,
    /// Seeds election timeouts and payloads.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One group of three replicas, of which the first leads.
trait Trio: Sized {
    /// A group that has elected its first replica, and is quiet.
    fn elect(group: u64, seed: u64) -> Self;

    /// Propose `payloads`, and deliver messages until nobody has any more to say.
    fn commit(&mut self, payloads: &[Bytes]);

    /// Let time pass in which nothing happens but [`BEATS`] heartbeats.
    fn rest(&mut self);

    /// How many payloads each replica has applied.
    fn commands(&self) -> [u64; 3];

    /// Bytes of one leading and one following replica, each measured over `groups` idle groups.
    fn idle_bytes(groups: usize, seed: u64) -> Idle;
}

/// Memory of one replica of an idle group.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Idle {
    /// If it leads.
    leader: f64,
    /// If it follows.
    follower: f64,
    /// Of this, what holds the log; none if that is not counted at all.
    log: Option<f64>,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Sample {
    ns_per_entry: f64,
    allocations_per_entry: f64,
}

/// Who is compared.
struct Contender {
    name: &'static str,
    sample: fn(u32, Duration, u64) -> Result<Sample>,
    idle: fn(usize, u64) -> Idle,
}

const CONTENDERS: [Contender; 3] = [
    Contender {
        name: "outrigger, core alone",
        sample: sample::<ours::Alone>,
        idle: ours::Alone::idle_bytes,
    },
    Contender {
        name: "outrigger, core and payloads",
        sample: sample::<ours::WithPayloads>,
        idle: ours::WithPayloads::idle_bytes,
    },
    Contender {
        name: "raft 0.7",
        sample: sample::<raft_crate::Group>,
        idle: raft_crate::Group::idle_bytes,
    },
];
/// The one of them that the others are compared with.
const PEER: usize = 2;

/// Measure, and return the record.
pub(crate) fn run(options: &Options) -> Result<String> {
    let Options { batches, rounds, seconds, groups, seed } = options;
    ensure!(0 < *rounds && 0.0 < *seconds && 0 < *groups, "nothing would be measured");
    let time = Duration::from_secs_f64(*seconds);
    let mut text = machine::head(
        "Raft cores: three replicas, one thread, 256-byte payloads",
        *seed,
        &[
            ("rounds", format!("{rounds}, alternating, {seconds} s each; the tables hold medians")),
            (
                "peer",
                "crate raft 0.7.0, protobuf-codec, MemStorage, pre-vote and check-quorum on".into(),
            ),
        ],
    );
    text.push_str(
        "An entry counts once, when all three replicas have applied it; time is processor time of the one thread. Both keep every write in memory and \
         call it durable at once; nothing is encoded. Outrigger's core holds no payloads: its first row is \
         the core alone, the second has a log cache per replica around it, which takes counted slices, and \
         a CRC of each payload, made once. `raft` gets its payloads as one message per batch, the cheapest \
         way it has. Ratios are medians of each round's ratio.\n\n",
    );
    let mut rows = Vec::new();
    for &batch in batches {
        ensure!(0 < batch, "a batch has entries");
        let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); CONTENDERS.len()];
        for round in 0..*rounds {
            for at in order(CONTENDERS.len(), round) {
                samples[at].push((CONTENDERS[at].sample)(batch, time, seed + round as u64)?);
            }
        }
        let ns = |at: usize| samples[at].iter().map(|it| it.ns_per_entry).collect::<Vec<_>>();
        for (at, contender) in CONTENDERS.iter().enumerate() {
            let per_entry = median(ns(at)).unwrap_or(f64::NAN);
            rows.push(vec![
                contender.name.into(),
                batch.to_string(),
                digits(Some(per_entry), 1),
                whole(1e9 / per_entry),
                digits(median(samples[at].iter().map(|it| it.allocations_per_entry)), 3),
                digits(ratio(&ns(PEER), &ns(at)), 2),
            ]);
        }
    }
    let head = ["", "batch", "ns/entry", "entries/s, one core", "allocations/entry", "× raft 0.7"];
    text.push_str(&table(&head, &rows));

    text.push_str(&format!(
        "\nMemory of one replica of an idle group: bytes asked for, over {} groups that have elected a leader, \
         committed one payload and heard {BEATS} heartbeats since. What a replica shares with others of its thread is not counted.\n\n",
        whole(*groups as f64)
    ));
    let rows: Vec<Vec<String>> = CONTENDERS
        .iter()
        .map(|contender| {
            let idle = (contender.idle)(*groups, *seed);
            vec![
                contender.name.into(),
                whole(idle.leader),
                whole(idle.follower),
                whole((idle.leader + 2.0 * idle.follower) / 3.0),
                digits(idle.log, 0),
            ]
        })
        .collect();
    let head = ["", "leader, B", "follower, B", "mean of three, B", "of which the log's own, B"];
    text.push_str(&table(&head, &rows));
    Ok(text)
}

/// Commit batches for as long as `time` says.
fn sample<T: Trio>(batch: u32, time: Duration, seed: u64) -> Result<Sample> {
    let payloads = payloads(batch, seed);
    let mut trio = T::elect(1, seed);
    for _ in 0..WARM_UP {
        trio.commit(&payloads);
    }
    let before = trio.commands();
    let (calls, started) = (alloc::calls(), thread_time());
    let mut batches = 0u64;
    while thread_time() - started < time {
        // So that looking at the clock does not count.
        for _ in 0..16 {
            trio.commit(&payloads);
        }
        batches += 16;
    }
    let (elapsed, calls) = (thread_time() - started, alloc::calls() - calls);
    let entries = batches * u64::from(batch);
    let applied: Vec<u64> =
        trio.commands().iter().zip(before).map(|(now, then)| now - then).collect();
    ensure!(applied == [entries; 3], "{entries} entries were proposed, applied were {applied:?}");
    Ok(Sample {
        ns_per_entry: elapsed.as_nanos() as f64 / entries as f64,
        allocations_per_entry: calls as f64 / entries as f64,
    })
}

/// Processor time of this thread: what others do on the same core meanwhile does not count.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Payloads of random bytes: slices of one block, as a receive buffer gives them.
fn payloads(count: u32, seed: u64) -> Vec<Bytes> {
    let mut block = vec![0; count as usize * PAYLOAD_BYTES];
    fastrand::Rng::with_seed(seed).fill(&mut block);
    let block = Bytes::from(block);
    (0..count as usize)
        .map(|at| block.slice(at * PAYLOAD_BYTES..(at + 1) * PAYLOAD_BYTES))
        .collect()
}

/// Bytes per element that are freed with `held`.
fn freed_bytes<T>(held: Vec<T>) -> f64 {
    let (count, before) = (held.len(), alloc::live_bytes());
    drop(held);
    (before - alloc::live_bytes()) as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits_everything_once<T: Trio>() {
        let mut trio = T::elect(1, 7);
        assert_eq!(trio.commands(), [0; 3], "an empty entry is nobody's payload");
        let mut expected = 0;
        for round in 0..300u64 {
            let batch = [1, 64, 3, 1, 256][round as usize % 5];
            // Every trio checks that indexes are applied one by one and payloads are the proposed ones.
            trio.commit(&payloads(batch, round));
            expected += u64::from(batch);
            assert_eq!(trio.commands(), [expected; 3]);
        }
    }

    #[test]
    fn both_cores_commit_everything_exactly_once() {
        commits_everything_once::<ours::Alone>();
        commits_everything_once::<ours::WithPayloads>();
        commits_everything_once::<raft_crate::Group>();
    }

    #[test]
    fn our_core_allocates_nothing_once_it_is_warm() {
        for batch in [1, 64] {
            let sample = sample::<ours::Alone>(batch, Duration::from_millis(20), 1).unwrap();
            assert_eq!(sample.allocations_per_entry, 0.0, "batch {batch}");
        }
    }

    #[test]
    fn an_idle_group_is_measured_whole() {
        let ours = ours::Alone::idle_bytes(100, 1);
        let size = size_of::<outrigger::raft::Raft>() as f64;
        assert!(size <= ours.follower && ours.follower <= ours.leader, "{ours:?}");
        // The core's share is pinned beside it (`src/raft/tests/rest.rs`); this is counted.
        assert!(ours.leader + 2.0 * ours.follower <= 3.0 * 600.0, "{ours:?}");
        let theirs = raft_crate::Group::idle_bytes(100, 1);
        assert!(theirs.log.is_some_and(|log| 0.0 < log && log < theirs.follower), "{theirs:?}");
    }
}
