//! What one thread of a run measured, and how threads are added up.

use crate::schedule::Window;
use crate::timeline::Timeline;
use crate::workload::Kind;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Different error texts kept whole, to be shown.
pub(crate) const ERROR_TEXTS_MAX: usize = 5;
/// Different first tokens counted; more become `other`. A server that makes up a new word for
/// every error may not fill our memory.
const ERROR_TOKENS_MAX: usize = 32;
/// Latencies above this many nanoseconds (an hour) are recorded as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// One latency histogram: nanoseconds, three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constant and valid")
}

/// The measurements of one thread, or of a whole run once merged.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    window: Window,
    /// Latencies of reads answered after warm-up.
    pub(crate) reads: Histogram<u64>,
    /// Latencies of writes answered after warm-up.
    pub(crate) writes: Histogram<u64>,
    /// Operations answered inside the window. Replies of the drain after it have a latency in the
    /// histograms, so that a stall at the end shows, but are not throughput.
    pub(crate) ops: u64,
    /// Writes among them.
    pub(crate) acked_writes: u64,
    /// Bytes of values written by those operations.
    pub(crate) payload_bytes: u64,
    /// Reads among them that found no such key.
    pub(crate) missing: u64,
    /// Error replies of the whole run, warm-up included, by first token.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The first different ones in full.
    pub(crate) error_texts: Vec<String>,
    /// Broken connections.
    pub(crate) disconnects: u64,
    /// Operations whose outcome nobody knows: their connection broke, or no reply came in time.
    pub(crate) unknown: u64,
    /// Open loop: arrivals that were due and never sent, because every slot was taken.
    pub(crate) unsent: u64,
    /// When the last operation of the window was answered.
    pub(crate) last_ns: u64,
    /// The operations of the window by when they were answered.
    pub(crate) timeline: Timeline,
}

impl Record {
    /// An empty record of `window`.
    pub(crate) fn new(window: Window) -> Self {
        Self {
            window,
            reads: histogram(),
            writes: histogram(),
            ops: 0,
            acked_writes: 0,
            payload_bytes: 0,
            missing: 0,
            errors: BTreeMap::new(),
            error_texts: Vec::new(),
            disconnects: 0,
            unknown: 0,
            unsent: 0,
            last_ns: 0,
            timeline: Timeline::new(window.warm_end_ns),
        }
    }

    /// Notes a good answer at `now_ns` to an operation that counts from `intended_ns`.
    #[inline]
    pub(crate) fn answered(&mut self, kind: Kind, intended_ns: u64, now_ns: u64, bytes: u64) {
        let counts = if self.window.end_ns == u64::MAX {
            // A run of N requests: exactly those its quota counted.
            self.window.warm_end_ns <= intended_ns
        } else {
            self.window.warm_end_ns <= now_ns
        };
        if !counts {
            return;
        }
        let latencies = match kind {
            Kind::Read => &mut self.reads,
            Kind::Write => &mut self.writes,
        };
        latencies.saturating_record(now_ns.saturating_sub(intended_ns));
        if now_ns < self.window.end_ns {
            self.ops += 1;
            self.acked_writes += u64::from(kind == Kind::Write);
            self.payload_bytes += bytes;
            self.last_ns = now_ns;
            self.timeline.count(now_ns);
        }
    }

    /// Notes that the read answered last found nothing.
    pub(crate) fn missed(&mut self, now_ns: u64) {
        if self.window.warm_end_ns <= now_ns && now_ns < self.window.end_ns {
            self.missing += 1;
        }
    }

    /// Notes an error reply.
    pub(crate) fn refused(&mut self, text: &str) {
        self.keep_text(text);
        let token = text.split_whitespace().next().unwrap_or("(empty)");
        let known = self.errors.contains_key(token) || self.errors.len() < ERROR_TOKENS_MAX;
        *self.errors.entry(if known { token } else { "other" }.to_owned()).or_default() += 1;
    }

    fn keep_text(&mut self, text: &str) {
        if self.error_texts.len() < ERROR_TEXTS_MAX && !self.error_texts.iter().any(|t| t == text) {
            self.error_texts.push(text.to_owned());
        }
    }

    /// Error replies in all.
    pub(crate) fn errors_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds another thread's record of the same window.
    pub(crate) fn merge(&mut self, other: &Self) {
        let same = "both histograms were made by histogram()";
        self.reads.add(&other.reads).expect(same);
        self.writes.add(&other.writes).expect(same);
        self.ops += other.ops;
        self.acked_writes += other.acked_writes;
        self.payload_bytes += other.payload_bytes;
        self.missing += other.missing;
        for (token, count) in &other.errors {
            *self.errors.entry(token.clone()).or_default() += count;
        }
        other.error_texts.iter().for_each(|text| self.keep_text(text));
        self.disconnects += other.disconnects;
        self.unknown += other.unknown;
        self.unsent += other.unsent;
        self.last_ns = self.last_ns.max(other.last_ns);
        self.timeline.merge(&other.timeline);
    }

    /// Reads and writes together.
    pub(crate) fn all(&self) -> Histogram<u64> {
        let mut all = self.reads.clone();
        all.add(&self.writes).expect("both histograms were made by histogram()");
        all
    }
}

/// What threads tell each other while a run goes on. One per run.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Set once: end the run now and report what there is.
    pub(crate) stop: AtomicBool,
    /// Answers so far, warm-up included.
    pub(crate) answers: AtomicU64,
    /// The sum of their latencies, in nanoseconds.
    pub(crate) latency_sum_ns: AtomicU64,
    /// Error replies so far.
    pub(crate) errors: AtomicU64,
    /// Broken connections so far.
    pub(crate) disconnects: AtomicU64,
}

/// A thread's contribution to [`Shared`], handed over once a turn instead of once an answer.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers since the last hand-over.
    pub(crate) answers: u64,
    /// Their latencies.
    pub(crate) latency_sum_ns: u64,
    /// Error replies since then.
    pub(crate) errors: u64,
    /// Broken connections since then.
    pub(crate) disconnects: u64,
}

impl Tally {
    /// Adds this to `shared` and starts again from zero.
    pub(crate) fn hand_over(&mut self, shared: &Shared) {
        // Relaxed: the numbers feed a progress line, nothing is ordered by them.
        for (mine, theirs) in [
            (self.answers, &shared.answers),
            (self.latency_sum_ns, &shared.latency_sum_ns),
            (self.errors, &shared.errors),
            (self.disconnects, &shared.disconnects),
        ] {
            if mine != 0 {
                theirs.fetch_add(mine, Ordering::Relaxed);
            }
        }
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_decides_what_counts() {
        let window = Window { start_ns: 0, warm_end_ns: 100, end_ns: 200 };
        let mut record = Record::new(window);
        record.answered(Kind::Write, 10, 90, 8); // warm-up
        record.answered(Kind::Write, 90, 150, 8); // answered in the window
        record.answered(Kind::Write, 150, 450, 8); // answered while draining
        assert_eq!((record.ops, record.payload_bytes), (1, 8));
        assert_eq!(record.timeline.counts(), [1]);
        assert_eq!(record.writes.len(), 2);
        assert_eq!(record.writes.max(), 300);
    }

    #[test]
    fn errors_are_counted_by_first_token_and_shown_in_full() {
        let mut record = Record::new(Window { start_ns: 0, warm_end_ns: 0, end_ns: 1 });
        for _ in 0..9 {
            record.refused("OOM command not allowed");
        }
        record.refused("ERR syntax error");
        let mut sum = Record::new(record.window);
        sum.merge(&record);
        sum.merge(&record);
        assert_eq!(sum.errors_count(), 20);
        assert_eq!(sum.errors["OOM"], 18);
        assert_eq!(sum.error_texts, ["OOM command not allowed", "ERR syntax error"]);
    }

    #[test]
    fn a_babbling_server_does_not_fill_memory() {
        let mut record = Record::new(Window { start_ns: 0, warm_end_ns: 0, end_ns: 1 });
        (0..1_000).for_each(|n| record.refused(&format!("E{n} text")));
        assert!(record.errors.len() <= ERROR_TOKENS_MAX + 1);
        assert_eq!(record.errors_count(), 1_000);
    }
}
