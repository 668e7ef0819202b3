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
    /// Latencies of what was answered after warm-up, by kind; with the ages of what was due and never answered.
    latencies: [Histogram<u64>; Kind::ALL.len()],
    /// Those ages alone: each is a latency's lower bound.
    ages: [Histogram<u64>; Kind::ALL.len()],
    /// Operations answered inside the window. Replies of the drain after it have a latency in the
    /// histograms, so that a stall at the end shows, but are not throughput.
    pub(crate) ops: u64,
    /// Those among them that wrote.
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
    /// Open loop: arrivals that were due in all.
    pub(crate) due: u64,
    /// Of those, the ones that were still waiting for a free slot when the window ended.
    pub(crate) overdue: u64,
    /// Of those, the ones that were not even sent while replies were waited for.
    pub(crate) unsent: u64,
    /// When the window ended with arrivals overdue, every slot of a thread was taken.
    pub(crate) slots_taken: bool,
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
            latencies: [(); Kind::ALL.len()].map(|()| histogram()),
            ages: [(); Kind::ALL.len()].map(|()| histogram()),
            ops: 0,
            acked_writes: 0,
            payload_bytes: 0,
            missing: 0,
            errors: BTreeMap::new(),
            error_texts: Vec::new(),
            disconnects: 0,
            unknown: 0,
            due: 0,
            overdue: 0,
            unsent: 0,
            slots_taken: false,
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
        self.latencies[kind as usize].saturating_record(now_ns.saturating_sub(intended_ns));
        if now_ns < self.window.end_ns {
            self.ops += 1;
            self.acked_writes += u64::from(kind.writes());
            self.payload_bytes += bytes;
            self.last_ns = now_ns;
            self.timeline.count(now_ns);
        }
    }

    /// Notes that an operation which counts from `intended_ns` will not be answered, or not even be sent: its latency is at
    /// least its age at `now_ns`.
    pub(crate) fn never_answered(&mut self, kind: Kind, intended_ns: u64, now_ns: u64) {
        // What was due and lost before the window belongs to the warm-up.
        if self.window.warm_end_ns <= now_ns {
            let age_ns = now_ns.saturating_sub(intended_ns);
            self.latencies[kind as usize].saturating_record(age_ns);
            self.ages[kind as usize].saturating_record(age_ns);
        }
    }

    /// Latencies of one kind of operation.
    pub(crate) fn latencies(&self, kind: Kind) -> Latencies {
        let at = kind as usize;
        Latencies { ns: self.latencies[at].clone(), ages_ns: self.ages[at].clone() }
    }

    /// How many operations have a latency.
    pub(crate) fn samples(&self) -> u64 {
        self.latencies.iter().map(Histogram::len).sum()
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
        let pairs = self.latencies.iter_mut().zip(&other.latencies);
        for (mine, theirs) in pairs.chain(self.ages.iter_mut().zip(&other.ages)) {
            mine.add(theirs).expect(SAME);
        }
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
        self.due += other.due;
        self.overdue += other.overdue;
        self.unsent += other.unsent;
        self.slots_taken |= other.slots_taken;
        self.last_ns = self.last_ns.max(other.last_ns);
        self.timeline.merge(&other.timeline);
    }

    /// Operations of all kinds together.
    pub(crate) fn all(&self) -> Latencies {
        let mut all = Latencies::default();
        Kind::ALL.iter().for_each(|kind| all.add(&self.latencies(*kind)));
        all
    }
}

/// Every histogram here can be added to every other.
const SAME: &str = "all histograms were made by histogram()";

/// Latencies, and which of them are only known to be at least so long.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    /// All of them, in nanoseconds.
    pub(crate) ns: Histogram<u64>,
    /// The lower bounds among them.
    ages_ns: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { ns: histogram(), ages_ns: histogram() }
    }
}

impl Latencies {
    /// Adds others to them.
    pub(crate) fn add(&mut self, other: &Self) {
        self.ns.add(&other.ns).expect(SAME);
        self.ages_ns.add(&other.ages_ns).expect(SAME);
    }

    /// The same if everything that was never answered had taken for ever. A percentile that is the same in both is
    /// known; of every other only a lower bound is.
    pub(crate) fn at_worst(&self) -> Histogram<u64> {
        let mut worst = self.ns.clone();
        worst.subtract(&self.ages_ns).expect("every age is one of the latencies");
        worst.saturating_record_n(LATENCY_NS_MAX, self.ages_ns.len());
        worst
    }

    /// Whether some are lower bounds.
    pub(crate) fn is_bounded(&self) -> bool {
        !self.ages_ns.is_empty()
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
        let writes = record.latencies(Kind::Write).ns;
        assert_eq!((writes.len(), writes.max()), (2, 300));
    }

    #[test]
    fn what_is_never_answered_counts_with_its_age() {
        let mut record = Record::new(Window { start_ns: 0, warm_end_ns: 100, end_ns: 10_000 });
        record.never_answered(Kind::Read, 10, 90); // lost in warm-up
        for n in 0..97 {
            record.answered(Kind::Read, 1_000, 2_000 + n, 0);
        }
        for _ in 0..3 {
            record.never_answered(Kind::Read, 5_000, 9_000);
        }
        let mut all = Record::new(record.window);
        all.merge(&record);
        let reads = all.all();
        assert_eq!((reads.ns.len(), all.ops), (100, 97));
        let (least, worst) = (&reads.ns, reads.at_worst());
        assert_eq!(worst.len(), 100);
        assert_eq!(least.value_at_quantile(0.97), worst.value_at_quantile(0.97), "it is known");
        assert!(least.value_at_quantile(0.99) < worst.value_at_quantile(0.99), "it is a bound");
        assert!(reads.is_bounded() && !all.latencies(Kind::Write).is_bounded());
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
