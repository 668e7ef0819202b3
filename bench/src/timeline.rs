//! Throughput over time: how many operations were answered in each interval of the window.
//!
//! ```text
//!  warm_end                                        now
//!    ├── 812 ──┼── 794 ──┼── 0 ──┼── 1630 ──┼─ 55 ──┤      closed intervals, and the open one
//! ```
//!
//! An answer costs one comparison and one addition. A run of any length has at most [`INTERVALS_MAX`]
//! intervals: when they are full, pairs become one and the interval is twice as long. So the intervals of
//! two threads are equal or multiples of each other, and can be added up.

/// Length of an interval before it is doubled, in nanoseconds.
const INTERVAL_NS: u64 = 100_000_000;
/// Intervals kept at most; even, so that pairs come out.
const INTERVALS_MAX: usize = 600;

const _: () = assert!(INTERVALS_MAX.is_multiple_of(2));

/// Counts by interval, from the end of warm-up on. One per thread, then one per run.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    origin_ns: u64,
    interval_ns: u64,
    /// The intervals that are over.
    closed: Vec<u64>,
    /// The count of the one after them.
    open: u64,
    /// Where that one ends.
    open_end_ns: u64,
}

impl Timeline {
    /// Empty, from `origin_ns` on.
    pub(crate) fn new(origin_ns: u64) -> Self {
        Self {
            origin_ns,
            interval_ns: INTERVAL_NS,
            closed: Vec::with_capacity(INTERVALS_MAX),
            open: 0,
            open_end_ns: origin_ns.saturating_add(INTERVAL_NS),
        }
    }

    /// Counts one operation answered at `now_ns`, which never goes back.
    #[inline]
    pub(crate) fn count(&mut self, now_ns: u64) {
        if self.open_end_ns <= now_ns {
            self.close_until(now_ns);
        }
        self.open += 1;
    }

    #[cold]
    fn close_until(&mut self, now_ns: u64) {
        while self.open_end_ns <= now_ns {
            self.closed.push(self.open);
            self.open = 0;
            self.open_end_ns += self.interval_ns;
            if self.closed.len() == INTERVALS_MAX {
                self.coarsen();
            }
        }
    }

    /// Makes pairs of intervals one.
    fn coarsen(&mut self) {
        let all = self.counts();
        self.interval_ns *= 2;
        self.set(all.chunks(2).map(|pair| pair.iter().sum()).collect());
    }

    fn set(&mut self, mut counts: Vec<u64>) {
        self.open = counts.pop().unwrap_or(0);
        self.open_end_ns = self.origin_ns + (counts.len() as u64 + 1) * self.interval_ns;
        self.closed = counts;
    }

    /// Adds another thread's counts of the same window.
    pub(crate) fn merge(&mut self, other: &Self) {
        assert!(self.origin_ns == other.origin_ns, "threads of one run share its window");
        let mut other = other.clone();
        while self.interval_ns < other.interval_ns {
            self.coarsen();
        }
        while other.interval_ns < self.interval_ns {
            other.coarsen();
        }
        let (mut sum, theirs) = (self.counts(), other.counts());
        sum.resize(sum.len().max(theirs.len()), 0);
        sum.iter_mut().zip(theirs).for_each(|(mine, more)| *mine += more);
        self.set(sum);
    }

    /// Length of an interval, in seconds.
    pub(crate) fn interval_s(&self) -> f64 {
        self.interval_ns as f64 / 1e9
    }

    /// The counts of all intervals that have begun; their sum is every operation counted.
    pub(crate) fn counts(&self) -> Vec<u64> {
        let mut all = self.closed.clone();
        all.push(self.open);
        all
    }

    /// Seconds from the window's beginning to an interval's middle, and operations a second in it, for a
    /// window of `window_s` seconds. Intervals after the last answer count zero; a last interval of which less than
    /// half lies in the window says too little and is left out, unless it is the only one.
    pub(crate) fn rates(&self, window_s: f64) -> Vec<(f64, f64)> {
        let (counts, interval_s) = (self.counts(), self.interval_s());
        let begun = (window_s / interval_s).ceil().max(0.0) as usize;
        let rate = |index: usize| {
            let start_s = index as f64 * interval_s;
            let length_s = (window_s - start_s).min(interval_s);
            let count = counts.get(index).copied().unwrap_or(0) as f64;
            let says_enough = index == 0 || interval_s <= 2.0 * length_s;
            says_enough.then(|| (start_s + length_s / 2.0, count / length_s))
        };
        (0..begun).filter_map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN_NS: u64 = 7_000;

    fn counted(at_ms: impl IntoIterator<Item = u64>) -> Timeline {
        let mut timeline = Timeline::new(ORIGIN_NS);
        at_ms.into_iter().for_each(|ms| timeline.count(ORIGIN_NS + ms * 1_000_000));
        timeline
    }

    #[test]
    fn answers_fall_into_their_interval_and_silence_is_zero() {
        let timeline = counted([0, 99, 100, 450, 499]);
        assert_eq!(timeline.counts(), [2, 1, 0, 0, 2]);
        // The sixth interval has begun without an answer; of the seventh too little lies in the window.
        let rates = timeline.rates(0.61);
        assert_eq!(rates.len(), 6, "{rates:?}");
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(close(rates[0].0, 0.05) && close(rates[0].1, 20.0), "{rates:?}");
        assert!(close(rates[5].0, 0.55) && close(rates[5].1, 0.0), "{rates:?}");
    }

    #[test]
    fn a_last_interval_that_is_cut_short_is_a_rate_all_the_same() {
        let rates = counted([0, 110, 120, 130]).rates(0.16);
        assert_eq!(rates.len(), 2);
        assert!((rates[1].1 - 3.0 / 0.06).abs() < 1e-6, "{rates:?}");
        let short = counted([1, 2]).rates(0.01);
        assert!(short.len() == 1 && (short[0].1 - 200.0).abs() < 1e-6, "{short:?}");
    }

    #[test]
    fn a_long_run_has_longer_intervals_and_loses_nothing() {
        let timeline = counted((0..200_000).step_by(10));
        assert_eq!(timeline.interval_s(), 0.4);
        let counts = timeline.counts();
        assert!(counts.len() <= INTERVALS_MAX + 1);
        assert!(counts.iter().all(|count| *count == 40), "{counts:?}");
        assert_eq!(counts.iter().sum::<u64>(), 20_000);
    }

    #[test]
    fn threads_with_different_intervals_add_up() {
        let (long, short) = (counted((0..70_000).step_by(100)), counted([0, 150, 250]));
        assert_eq!((long.interval_s(), short.interval_s()), (0.2, 0.1));
        let (mut a, mut b) = (long.clone(), short.clone());
        a.merge(&short);
        b.merge(&long);
        assert_eq!(a.counts(), b.counts());
        assert_eq!(a.counts()[..3], [2 + 2, 2 + 1, 2]);
        assert_eq!(a.counts().iter().sum::<u64>(), 703);
        // What is merged goes on counting where it was.
        a.count(ORIGIN_NS + 70_000_000_000);
        assert_eq!(a.counts().len(), 351);
    }
}
