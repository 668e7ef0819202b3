//! How long things took: histograms of one core.
//!
//! Two significant digits from 1 µs to 60 s: 10 KiB each and 6 ns per value, so one per core and
//! never one per group. Counts are not here; they belong to the shard (`Shard::counters_mut`),
//! which answers `INFO`.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::shard::report::Spread;

const MICROS_MAX: u64 = 60_000_000;

/// Durations, from 1 µs to 60 s; what is longer counts as 60 s.
#[derive(Debug, Clone)]
pub struct Durations {
    histogram: Histogram<u64>,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            histogram: Histogram::new_with_bounds(1, MICROS_MAX, 2).expect("1 < 60 s, 2 digits"),
        }
    }
}

impl Durations {
    /// Count one.
    pub fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(MICROS_MAX);
        self.histogram.saturating_record(micros);
    }

    /// Its percentiles, for `INFO`.
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
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        format!(
            "n={} p50={}us p99={}us p99.9={}us max={}us",
            self.histogram.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            self.histogram.max()
        )
    }
}

/// What one core measures of itself.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// From handing a log write to the kernel until it is durable.
    pub flush: Durations,
    /// From the start of a turn to its end.
    pub turn: Durations,
}
