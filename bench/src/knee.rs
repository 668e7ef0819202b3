//! Where the knee is, and which rate to try next. Pure: rates and what came of them in, the next rate out.
//!
//! **The knee** is the highest rate a server keeps up with. It keeps up with a rate if at least
//! [`KEPT_RATIO`] of what was offered is answered in the window, and the p99, counted from when each operation was
//! due, is within the bound: a given number of microseconds, or a multiple of the p99 at the lowest rate.
//!
//! ```text
//!  from ×2 ×2 ×2 … until one is too much        then between the two, by their geometric mean
//!    ├──┼───┼──────┼───────────╳            ⇒   ┼───────┼───╳───────╳   until they are 5 % apart
//! ```

/// The share of the offered rate that has to be answered.
pub(crate) const KEPT_RATIO: f64 = 0.97;
/// Each rate is so many times the one before, until one is too much.
const GROWTH: f64 = 2.0;
/// Rates this close to each other are not told apart any further.
const CLOSE_RATIO: f64 = 1.05;

/// What the p99 may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// At most so many microseconds.
    Us(f64),
    /// At most so many times the p99 at the lowest rate.
    Times(f64),
}

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range {
    /// The lowest rate, operations per second; above 0.
    pub(crate) from_per_s: f64,
    /// The highest; `from_per_s <= to_per_s`.
    pub(crate) to_per_s: f64,
    /// What the p99 may be.
    pub(crate) p99: Bound,
}

/// What came of a rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Operations answered per second.
    pub(crate) achieved_per_s: f64,
    /// Their p99, in microseconds; `None` if there were none.
    pub(crate) p99_us: Option<f64>,
}

/// Whether a rate was kept up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Yes.
    Kept,
    /// No: too little of it was answered.
    Behind,
    /// No: what was answered took too long.
    Slow,
}

/// What a sweep found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Knee {
    /// This rate was kept up with, and one at most 5 % above it was not.
    At(f64),
    /// Every rate up to this one, the highest allowed, was kept up with.
    AtLeast(f64),
    /// Not even the lowest rate, this one, was kept up with.
    Below(f64),
    /// The sweep ended early; this is the highest rate kept up with until then, if there was one.
    Unknown(Option<f64>),
}

impl Knee {
    /// The highest rate that was kept up with.
    pub(crate) fn rate_per_s(self) -> Option<f64> {
        match self {
            Self::At(rate) | Self::AtLeast(rate) => Some(rate),
            Self::Below(_) => None,
            Self::Unknown(rate) => rate,
        }
    }
}

/// One target's search. Alternate [`Search::next`] and [`Search::judge`] until there is no next.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    range: Range,
    /// The highest rate kept up with.
    good_per_s: Option<f64>,
    /// The lowest one that was too much; above `good_per_s`.
    bad_per_s: Option<f64>,
    /// The p99 at the lowest rate.
    base_p99_us: Option<f64>,
}

impl Search {
    /// A search that has seen nothing yet.
    pub(crate) fn new(range: Range) -> Self {
        assert!(0.0 < range.from_per_s && range.from_per_s <= range.to_per_s, "checked by args");
        Self { range, good_per_s: None, bad_per_s: None, base_p99_us: None }
    }

    /// The rate to try next; `None` when the knee is known.
    pub(crate) fn next(&self) -> Option<f64> {
        let Range { from_per_s, to_per_s, .. } = self.range;
        match (self.good_per_s, self.bad_per_s) {
            (None, None) => Some(from_per_s),
            (None, Some(_)) => None,
            (Some(good), None) if to_per_s <= good => None,
            (Some(good), None) => Some(rounded(good * GROWTH).min(to_per_s)),
            (Some(good), Some(bad)) if bad <= good * CLOSE_RATIO => None,
            // Of small numbers the rounded mean may be one of the two; then there is nothing between them.
            (Some(good), Some(bad)) => {
                Some(rounded((good * bad).sqrt())).filter(|rate| good < *rate && *rate < bad)
            }
        }
    }

    /// Judges what came of `rate_per_s`, which [`Search::next`] asked for.
    pub(crate) fn judge(&mut self, rate_per_s: f64, seen: Seen) -> Verdict {
        let base_us = *self.base_p99_us.get_or_insert(seen.p99_us.unwrap_or(f64::INFINITY));
        let bound_us = match self.range.p99 {
            Bound::Us(us) => us,
            Bound::Times(times) => base_us * times,
        };
        let verdict = if seen.achieved_per_s < rate_per_s * KEPT_RATIO {
            Verdict::Behind
        } else if seen.p99_us.is_none_or(|us| bound_us < us) {
            Verdict::Slow
        } else {
            Verdict::Kept
        };
        match verdict {
            Verdict::Kept => self.good_per_s = Some(rate_per_s),
            Verdict::Behind | Verdict::Slow => self.bad_per_s = Some(rate_per_s),
        }
        verdict
    }

    /// What the p99 may be, in microseconds; of a multiple, once the lowest rate has been seen.
    pub(crate) fn bound_us(&self) -> Option<f64> {
        let us = match self.range.p99 {
            Bound::Us(us) => Some(us),
            Bound::Times(times) => self.base_p99_us.map(|base| base * times),
        };
        us.filter(|us| us.is_finite())
    }

    /// What is known by now.
    pub(crate) fn knee(&self) -> Knee {
        match (self.good_per_s, self.bad_per_s) {
            (None, Some(bad)) => Knee::Below(bad),
            (known, _) if self.next().is_some() => Knee::Unknown(known),
            (Some(good), Some(_)) => Knee::At(good),
            (Some(good), None) => Knee::AtLeast(good),
            (None, None) => unreachable!("with nothing seen there is a next rate"),
        }
    }
}

/// Three significant digits: more would be claimed than measured.
fn rounded(rate: f64) -> f64 {
    let scale = 10_f64.powf(2.0 - rate.log10().floor());
    (rate * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range { from_per_s: 1_000.0, to_per_s: 1e6, p99: Bound::Times(10.0) };

    /// Sweeps a made-up server; the rates it was asked for, and what was found.
    fn sweep(range: Range, server: impl Fn(f64) -> (f64, f64)) -> (Vec<f64>, Knee) {
        let (mut search, mut rates) = (Search::new(range), Vec::new());
        while let Some(rate) = search.next() {
            let (achieved_per_s, p99_us) = server(rate);
            search.judge(rate, Seen { achieved_per_s, p99_us: Some(p99_us) });
            rates.push(rate);
            assert!(rates.len() < 100, "it comes to an end: {rates:?}");
        }
        let knee = search.knee();
        (rates, knee)
    }

    #[test]
    fn a_server_of_known_capacity_has_its_knee_there() {
        let (rates, knee) = sweep(RANGE, |rate| (rate.min(11_000.0), 900.0));
        assert_eq!(rates[..5], [1_000.0, 2_000.0, 4_000.0, 8_000.0, 16_000.0]);
        let Knee::At(found) = knee else { panic!("{knee:?}") };
        // 11,000 are 97 % of 11,340.
        assert!((10_800.0..=11_340.0).contains(&found), "{found} after {rates:?}");
        assert!(rates.iter().any(|rate| found < *rate && *rate <= found * CLOSE_RATIO));
        assert_eq!(rates.len(), 9, "four between 8,000 and 16,000: {rates:?}");
    }

    #[test]
    fn latency_makes_a_knee_before_throughput_does() {
        // A queue: the closer to 20,000, the longer.
        let queue = |rate: f64| (rate, 100.0 / (1.0 - rate / 20_000.0).max(1e-9));
        let (_, times) = sweep(RANGE, queue);
        let Knee::At(found) = times else { panic!("{times:?}") };
        // Ten times the p99 at 1,000 is reached where 1 / (1 - r) = 10 / 0.95.
        assert!((17_200.0..=18_100.0).contains(&found), "{found}");
        let (_, us) = sweep(Range { p99: Bound::Us(200.0), ..RANGE }, queue);
        let Knee::At(found) = us else { panic!("{us:?}") };
        assert!((9_500.0..=10_000.0).contains(&found), "{found}");
    }

    #[test]
    fn ends_of_the_range_are_said_as_what_they_are() {
        let narrow = Range { to_per_s: 3_000.0, ..RANGE };
        let (rates, knee) = sweep(narrow, |rate| (rate, 50.0));
        assert_eq!((rates, knee), (vec![1_000.0, 2_000.0, 3_000.0], Knee::AtLeast(3_000.0)));
        let (rates, knee) = sweep(RANGE, |_| (500.0, 50.0));
        assert_eq!((rates, knee), (vec![1_000.0], Knee::Below(1_000.0)));
        assert_eq!(knee.rate_per_s(), None);
    }

    #[test]
    fn nothing_answered_is_too_much_and_an_early_end_is_no_knee() {
        let mut search = Search::new(RANGE);
        assert_eq!(search.knee(), Knee::Unknown(None));
        let seen = |achieved_per_s, p99_us| Seen { achieved_per_s, p99_us };
        assert_eq!(search.judge(1_000.0, seen(1_000.0, Some(80.0))), Verdict::Kept);
        assert_eq!(search.knee(), Knee::Unknown(Some(1_000.0)));
        assert_eq!(search.judge(2_000.0, seen(1_950.0, Some(801.0))), Verdict::Slow);
        assert_eq!(search.judge(1_410.0, seen(0.0, None)), Verdict::Behind);
        assert_eq!(search.knee(), Knee::Unknown(Some(1_000.0)));
    }

    #[test]
    fn small_rates_come_to_an_end_as_well() {
        let range = Range { from_per_s: 1.0, ..RANGE };
        let (rates, knee) = sweep(range, |rate| (rate.min(2.0), 50.0));
        let Knee::At(found) = knee else { panic!("{knee:?}") };
        assert!((1.9..=2.07).contains(&found), "{found} after {rates:?}");
        assert_eq!(
            [rounded(1.414), rounded(12_345.0), rounded(99_951.0)],
            [1.41, 12_300.0, 100_000.0]
        );
    }
}
