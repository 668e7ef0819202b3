//! How long things took: histograms of one core.
//!
//! Two significant digits from 1 µs to 60 s: 10 KiB each and 6 ns per value, so one per core and
//! never one per group. Counts are not here; they belong to the shard (`Shard::counters_mut`),
//! which answers `INFO`.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::id::Tick;
use crate::shard::report::Spread;

use super::explain::Explainer;

const MICROS_MAX: u64 = 60_000_000;

/// How long a window is, in ms: what is told of "lately" is of the last one to two of them.
const WINDOW_MS: u64 = 10_000;

/// Upper ends of the buckets in which Prometheus gets durations, in µs; one more has no end. Flushes of good
/// disks and turns are in the first half.
pub const BUCKETS_US: [u64; 19] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Durations, from 1 µs to 60 s; what is longer counts as 60 s.
#[derive(Debug, Clone)]
pub struct Durations {
    histogram: Histogram<u64>,
    sum_us: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            histogram: Histogram::new_with_bounds(1, MICROS_MAX, 2).expect("1 < 60 s, 2 digits"),
            sum_us: 0,
        }
    }
}

impl Durations {
    /// Count one.
    pub fn record(&mut self, duration: Duration) {
        self.record_us(u64::try_from(duration.as_micros()).unwrap_or(MICROS_MAX), 1);
    }

    /// Count as many that took so many µs.
    #[inline]
    pub fn record_us(&mut self, us: u64, count: u64) {
        self.sum_us += us * count;
        self.histogram.saturating_record_n(us, count);
    }

    /// All of them together, in µs.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// How many are in each bucket of [`BUCKETS_US`], and in the one without end. What the histogram
    /// does not tell apart from the end of a bucket counts into it: an error of 1 % of the duration at most.
    #[must_use]
    pub fn buckets(&self) -> [u64; BUCKETS_US.len() + 1] {
        let mut buckets = [0; BUCKETS_US.len() + 1];
        for value in self.histogram.iter_recorded() {
            let us = self.histogram.lowest_equivalent(value.value_iterated_to());
            let bucket = BUCKETS_US.iter().position(|end| us <= *end).unwrap_or(BUCKETS_US.len());
            buckets[bucket] += value.count_at_value();
        }
        buckets
    }

    /// Those that came after `earlier`, which was a copy of these.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut rest = self.clone();
        rest.histogram.subtract(&earlier.histogram).expect("a copy has no more, nor other bounds");
        Self { sum_us: self.sum_us - earlier.sum_us, ..rest }
    }

    /// Their percentiles.
    #[must_use]
    pub fn spread(&self) -> Spread {
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        Spread {
            count: self.histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: self.histogram.max(),
        }
    }

    /// A line for a log: how many, and the usual percentiles in µs.
    #[must_use]
    pub fn summary(&self) -> String {
        let Spread { count, p50, p99, p999, max } = self.spread();
        format!("n={count} p50={p50}us p99={p99}us p99.9={p999}us max={max}us")
    }
}

/// What something that only grows was when the last windows began, so that what it grew by since can be told: what
/// is slow now, and not what was last week.
///
/// ```text
///    earlier        at_open        now
///  ─────┼──── 10 s ────┼── ≤ 10 s ──┤
///       └─────────── lately ────────┘
/// ```
#[derive(Debug, Clone, Default)]
pub struct Window<T> {
    earlier: T,
    at_open: T,
    opened: Tick,
}

impl<T: Clone> Window<T> {
    /// What `all` was ten to twenty seconds ago, if this is asked at least every ten; at first, nothing.
    pub fn earlier(&mut self, now: Tick, all: &T) -> &T {
        let age = now.since(self.opened);
        if WINDOW_MS <= age {
            std::mem::swap(&mut self.earlier, &mut self.at_open);
            self.at_open.clone_from(all);
            if 2 * WINDOW_MS <= age {
                // Nobody has asked for long: what was open until now is not the window before this.
                self.earlier.clone_from(all);
            }
            self.opened = now;
        }
        &self.earlier
    }
}

/// What one core measures of itself.
#[derive(Debug, Default)]
pub struct Metrics {
    /// From the start of a turn to its end.
    pub turn: Durations,
    /// Turns and flushes of the log, as they were.
    pub turns_before: Window<Durations>,
    /// See there.
    pub flushes_before: Window<Durations>,
    /// From sending a command on to another node until having its answer.
    pub forwards: Durations,
    /// As they were.
    pub forwards_before: Window<Durations>,
    /// Where the time of commits goes.
    pub explainer: Explainer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_bucket_that_it_fits() {
        let mut durations = Durations::default();
        assert_eq!(durations.buckets().iter().sum::<u64>(), 0);
        for (at, end) in BUCKETS_US.into_iter().enumerate() {
            durations.record(Duration::from_micros(end));
            durations.record(Duration::from_micros(end + end / 20 + 1));
            let buckets = durations.buckets();
            assert_eq!((buckets[at], buckets[at + 1]), (if at == 0 { 1 } else { 2 }, 1), "{end}");
        }
        durations.record(Duration::from_secs(600));
        assert_eq!(durations.buckets()[BUCKETS_US.len()], 2);
        assert_eq!(durations.buckets().iter().sum::<u64>(), durations.spread().count);
    }

    #[test]
    fn what_was_slow_is_forgotten_after_two_windows() {
        let (mut all, mut before) = (Durations::default(), Window::default());
        let mut lately = |all: &Durations, at| {
            let spread = all.since(before.earlier(Tick(at), all)).spread();
            (spread.count, spread.max / 100)
        };
        all.record_us(9_000, 1);
        assert_eq!(lately(&all, 1_000), (1, 90));
        all.record_us(300, 2);
        assert_eq!(lately(&all, WINDOW_MS), (3, 90), "the first window is the one before");
        all.record_us(300, 2);
        assert_eq!(lately(&all, 2 * WINDOW_MS - 1), (5, 90));
        assert_eq!(lately(&all, 2 * WINDOW_MS), (2, 3), "the first window is forgotten");
        all.record_us(300, 1);
        assert_eq!(lately(&all, 2 * WINDOW_MS), (3, 3));
        assert_eq!(lately(&all, 9 * WINDOW_MS), (0, 0), "nobody asked in between");
        all.record_us(500, 1);
        assert_eq!((lately(&all, 9 * WINDOW_MS), all.spread().count), ((1, 5), 7));
    }
}
