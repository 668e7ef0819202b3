//! What a run came to, and the line that says so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tools::rounds::cluster::now;
use tools::rounds::ledger::Counts;
use tools::rounds::subject::{Finding, Wrong};

use crate::disk::{Crash, Mode, Stats};
use crate::machine::Failed;

/// Stories of findings printed in full.
const STORIES: usize = 20;

/// After so many restarts somebody has read something before the nodes were ready, or the rig is blind.
const RESTARTS_BLIND: u64 = 50;

/// Counted over all clusters of a run.
pub(crate) struct Totals {
    pub(crate) name: &'static str,
    pub(crate) started: Instant,
    pub(crate) faults: u64,
    pub(crate) clusters: u64,
    pub(crate) counts: Counts,
    pub(crate) findings: Vec<Finding>,
    /// Limits that were missed, in words.
    pub(crate) missed: Vec<String>,
    pub(crate) ready_max: Duration,
    pub(crate) by_mode: BTreeMap<Mode, u64>,
    /// Disks that lost their power.
    pub(crate) images: u64,
    /// Of these, those with a write of which some sectors were kept and some lost.
    pub(crate) images_torn: u64,
    pub(crate) crash: Crash,
    /// What the disks were asked for.
    pub(crate) disk: Stats,
    /// File systems that e2fsck had to repair before they could be mounted.
    pub(crate) repaired: u64,
    /// Starts at which a node found its last write torn.
    pub(crate) torn_reported: u64,
    /// Restarts during which keys were read.
    pub(crate) restarts: u64,
    /// Values that were returned before the nodes were ready, and judged.
    pub(crate) first_reads: u64,
}

impl Totals {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            started: now(),
            faults: 0,
            clusters: 0,
            counts: Counts::default(),
            findings: Vec::new(),
            missed: Vec::new(),
            ready_max: Duration::ZERO,
            by_mode: BTreeMap::new(),
            images: 0,
            images_torn: 0,
            crash: Crash::default(),
            disk: Stats::default(),
            repaired: 0,
            torn_reported: 0,
            restarts: 0,
            first_reads: 0,
        }
    }

    pub(crate) fn on_crash(&mut self, mode: Mode, crash: Crash, repaired: bool) {
        *self.by_mode.entry(mode).or_default() += 1;
        self.images += 1;
        self.images_torn += u64::from(0 < crash.torn);
        self.repaired += u64::from(repaired);
        self.crash.writes += crash.writes;
        self.crash.lost += crash.lost;
        self.crash.torn += crash.torn;
        self.crash.sectors_lost += crash.sectors_lost;
    }

    pub(crate) fn on_disk(&mut self, stats: Stats) {
        self.disk.reads += stats.reads;
        self.disk.writes += stats.writes;
        self.disk.syncs += stats.syncs;
        self.disk.failed += stats.failed;
    }

    pub(crate) fn wrong(&self, wrong: Wrong) -> u64 {
        let of = |finding: &&Finding| finding.wrong == wrong;
        self.findings.iter().filter(of).map(|finding| finding.writes).sum()
    }

    /// A figure that must not exceed its limit.
    pub(crate) fn limit(&mut self, what: &str, figure: Duration, limit: Duration) {
        if limit < figure {
            self.missed.push(format!(
                "{what} took {} ms, the limit is {} ms",
                figure.as_millis(),
                limit.as_millis()
            ));
        }
    }

    /// The line of this run; `more` is what is particular to it.
    pub(crate) fn line(&self, more: &str) -> String {
        let Self { name, faults, counts, .. } = self;
        let refused: u64 = counts.refused.values().sum();
        let other = [Wrong::Late, Wrong::Misordered, Wrong::Alien, Wrong::Disagreement];
        let other: u64 = other.into_iter().map(|wrong| self.wrong(wrong)).sum();
        let (lost, seen) = (self.wrong(Wrong::Lost), self.wrong(Wrong::RefusedSeen));
        let mut disks = String::new();
        if 0 < self.disk.writes {
            let Stats { writes, syncs, failed, .. } = self.disk;
            disks = format!(" disk_writes={writes} disk_flushes={syncs} disk_errors={failed}");
        }
        if 0 < self.images {
            let modes: Vec<String> =
                self.by_mode.iter().map(|(mode, count)| format!("{mode:?}:{count}")).collect();
            disks += &format!(
                " images={} modes={} torn_images={} torn_reported={} volatile_writes={} \
                 writes_lost={} sectors_lost={} fsck={}",
                self.images,
                modes.join(",").to_lowercase(),
                self.images_torn,
                self.torn_reported,
                self.crash.writes,
                self.crash.lost,
                self.crash.sectors_lost,
                self.repaired,
            );
        }
        let first = match self.restarts {
            0 => String::new(),
            _ => format!(" first_reads={}", self.first_reads),
        };
        format!(
            "{name} load={} faults={faults} checked={} lost={lost} refused_seen={seen} \
             duplicated={} other_wrong={other} unknown={} refused={refused}{first}{disks} clusters={} \
             ready_max_ms={} seconds={:.0}{}{more}",
            counts.acknowledged,
            counts.checked,
            self.wrong(Wrong::Duplicated),
            counts.unknown,
            self.clusters,
            self.ready_max.as_millis(),
            self.started.elapsed().as_secs_f64(),
            if more.is_empty() { "" } else { " " },
        )
    }

    /// Prints the line and the stories; an error if a promise or a limit was broken.
    pub(crate) fn close(&self, more: &str) -> Result<(), Failed> {
        println!("{}", self.line(more));
        let mut wrong: Vec<String> = self
            .findings
            .iter()
            .take(STORIES)
            .map(|finding| format!("{:?}: {}", finding.wrong, finding.what))
            .collect();
        if STORIES < self.findings.len() {
            wrong.push(format!("and {} more findings", self.findings.len() - STORIES));
        }
        wrong.extend(self.missed.iter().cloned());
        if RESTARTS_BLIND <= self.restarts && self.first_reads == 0 {
            wrong.push(format!(
                "the rig is blind: in {} restarts nothing was read before the nodes were ready",
                self.restarts
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failed::Broken(wrong)) }
    }

    /// Whether something was found already that makes going on pointless.
    pub(crate) fn is_broken(&self) -> bool {
        !self.findings.is_empty()
    }
}

/// The time that so many of a hundred do not exceed; zero of none.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}

/// Percentiles of times, in ms.
pub(crate) fn spread(times: &mut [Duration]) -> String {
    let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(times, percent).as_millis());
    format!("p50={p50} p99={p99} max={max}")
}
