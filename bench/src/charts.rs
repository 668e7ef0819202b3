//! Which charts there are of what was measured, and what is on each.

use crate::drawing::Line;
use crate::measured::{Measured, Results, Sweep};
use crate::plot::{Axes, Chart, grouped};
use crate::workload::Kind;
use hdrhistogram::Histogram;

/// As far as percentiles are drawn: one in so many.
const TAIL_MAX: f64 = 1e6;

/// A chart, the name of its file without its ending, and what it shows.
pub(crate) struct Named {
    /// The file's name.
    pub(crate) file: &'static str,
    /// A sentence for below it.
    pub(crate) caption: &'static str,
    /// The chart.
    pub(crate) chart: Chart,
}

/// All charts that have something on them.
pub(crate) fn of(results: &Results) -> Vec<Named> {
    let swept = !results.sweeps.is_empty();
    let rate = results.sides.first().and_then(|side| side.plan.rate_per_s);
    let note = match (swept, rate) {
        (true, _) => "at the knee; open loop: latency from when an operation was due".to_owned(),
        (false, Some(rate)) => {
            format!("open loop at {}/s: latency from when an operation was due", grouped(rate))
        }
        (false, None) => "closed loop: latency from when an operation was sent".to_owned(),
    };
    let all = [
        Named {
            file: "latency-vs-rate",
            caption: "Latency by offered rate: p99, and p50 paler. Counted from when an operation was due. \
                      The ring is the knee.",
            chart: by_rate(&results.sweeps, "open loops: latency from when an operation was due"),
        },
        Named {
            file: "latency-by-percentile",
            caption: if swept {
                "Latency by percentile at the knee, counted from when an operation was due."
            } else {
                "Latency by percentile, all runs together. Counted from when an operation was due, if there is a \
                 rate, and from when it was sent, if there is none."
            },
            chart: by_percentile(&results.sides, &note),
        },
        Named {
            file: "throughput-over-time",
            caption: if swept {
                "Operations answered over time, at the knee."
            } else {
                "Operations answered over time, from the end of warm-up on. Of several targets, the mean of all \
                 rounds."
            },
            chart: over_time(&results.sides, &note),
        },
    ];
    all.into_iter().filter(|named| !named.chart.is_empty()).collect()
}

fn line(name: impl Into<String>, colour: usize, points: Vec<(f64, f64)>) -> Line {
    Line { name: name.into(), colour, faint: false, dashed: false, points, mark: None }
}

fn by_percentile(sides: &[Measured], note: &str) -> Chart {
    let lines = match sides {
        [only] => {
            let kinds = Kind::ALL.into_iter().enumerate();
            kinds
                .map(|(colour, kind)| (kind.plural(), colour, only.latencies(kind).ns))
                .filter(|(_, _, ns)| !ns.is_empty())
                .map(|(name, colour, ns)| line(name, colour, curve(&ns)))
                .collect()
        }
        several => {
            let all = several.iter().enumerate().map(|(colour, side)| {
                line(&side.plan.name, colour, curve(&side.all_latencies().ns))
            });
            all.collect()
        }
    };
    let note = note.to_owned();
    Chart { title: "Latency by percentile", note, axes: Axes::Percentiles, lines }
}

/// Latency in µs over one in how many operations is slower.
fn curve(ns: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps = ns.iter_quantiles(10).filter(|step| step.quantile_iterated_to() < 1.0);
    let points = steps.map(|step| {
        let slower = 1.0 / (1.0 - step.quantile_iterated_to());
        (slower, step.value_iterated_to().min(ns.max()) as f64 / 1e3)
    });
    points.filter(|(slower, us)| *slower <= TAIL_MAX && *us > 0.0).collect()
}

fn over_time(sides: &[Measured], note: &str) -> Chart {
    let runs = |side: &Measured| -> Vec<Vec<(f64, f64)>> {
        let rates = side.outcomes.iter().map(|run| run.record.timeline.rates(run.window_s));
        rates.map(level).collect()
    };
    let lines = match sides {
        [only] => {
            let numbered = (1..).zip(runs(only)).enumerate();
            numbered.map(|(at, (run, points))| line(format!("run {run}"), at, points)).collect()
        }
        several => several
            .iter()
            .enumerate()
            .map(|(colour, side)| line(&side.plan.name, colour, mean(&runs(side))))
            .collect(),
    };
    let note = note.split(':').next().unwrap_or_default().to_owned();
    Chart { title: "Operations answered over time", note, axes: Axes::Time, lines }
}

/// A run of a single interval as a level line; a single point would not be seen.
fn level(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    match points[..] {
        [(middle, rate)] => vec![(0.0, rate), (2.0 * middle, rate)],
        _ => points,
    }
}

/// The mean of several runs at each interval that all of them have.
fn mean(runs: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let length = runs.iter().map(Vec::len).min().unwrap_or(0);
    let at = |index: usize| {
        let sum: f64 = runs.iter().map(|run| run[index].1).sum();
        (runs[0][index].0, sum / runs.len() as f64)
    };
    (0..length).map(at).collect()
}

fn by_rate(sweeps: &[Sweep], note: &str) -> Chart {
    let mut lines = Vec::new();
    for (colour, sweep) in sweeps.iter().enumerate() {
        for (figure, title, faint) in
            [("latency_p99_us", "p99", false), ("latency_p50_us", "p50", true)]
        {
            let steps = sweep.by_rate();
            let points: Vec<(f64, f64)> = steps
                .iter()
                .filter_map(|step| Some((step.rate_per_s, step.figures.get(figure)?)))
                .filter(|(_, us)| 0.0 < *us)
                .collect();
            let knee = sweep.knee.rate_per_s().filter(|_| !faint);
            let mark = knee.and_then(|knee| points.iter().copied().find(|(rate, _)| *rate == knee));
            let mut name = format!("{} {title}", sweep.name).trim().to_owned();
            if let (Some(knee), Some(_)) = (knee, mark) {
                name = format!("{name}, knee {}/s", grouped(knee));
            }
            lines.push(Line { mark, faint, ..line(name, colour, points) });
        }
    }
    lines.extend(bounds(sweeps));
    let note = note.to_owned();
    Chart { title: "Latency by offered rate", note, axes: Axes::Rates, lines }
}

/// What the p99 may be, as a dashed line over all rates: one for all, or of each target its own.
fn bounds(sweeps: &[Sweep]) -> Vec<Line> {
    let shared = sweeps.windows(2).all(|pair| pair[0].bound_us == pair[1].bound_us);
    let rates = |of: &[Sweep]| {
        let rates = of.iter().flat_map(|sweep| &sweep.steps).map(|step| step.rate_per_s);
        rates.fold((f64::INFINITY, 0.0_f64), |(least, most), it| (least.min(it), most.max(it)))
    };
    let all = if shared { sweeps.chunks(sweeps.len().max(1)) } else { sweeps.chunks(1) };
    all.enumerate()
        .filter_map(|(colour, of)| {
            let (us, (least, most)) = (of.first()?.bound_us?, rates(of));
            let whose = if shared { "" } else { of[0].name.as_str() };
            let name = format!("{whose} bound of p99, {} µs", grouped(us)).trim().to_owned();
            let points =
                if us < BOUND_DRAWN_US_MAX { vec![(least, us), (most, us)] } else { vec![] };
            let (colour, faint) = if shared { (3, false) } else { (colour, true) };
            Some(Line { faint, dashed: true, ..line(name, colour, points) })
        })
        .collect()
}

/// A bound above a minute is none, and would only flatten the rest.
const BOUND_DRAWN_US_MAX: f64 = 6e7;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knee::{Knee, Verdict};
    use crate::measured::Step;
    use crate::report::Figures;

    #[test]
    fn a_curve_goes_through_its_percentiles() {
        let mut ns = crate::record::histogram();
        (1..=10_000_u64).for_each(|us| ns.record(us * 1_000).expect("within bounds"));
        let points = curve(&ns);
        let near = points.iter().find(|(slower, _)| 9.9 < *slower).expect("a ninetieth percentile");
        assert!((8_900.0..9_200.0).contains(&near.1), "{near:?}");
        assert!(curve(&crate::record::histogram()).is_empty());
    }

    #[test]
    fn rates_are_drawn_in_their_order_with_a_ring_around_the_knee() {
        let step = |rate_per_s, us, verdict| {
            let figures = Figures::of(&[("latency_p99_us", us), ("latency_p50_us", us / 2.0)]);
            Step { rate_per_s, figures, verdict }
        };
        let steps = vec![
            step(1e3, 50.0, Verdict::Kept),
            step(4e3, 9e3, Verdict::Slow),
            step(2e3, 60.0, Verdict::Kept),
        ];
        let chart = by_rate(
            &[Sweep {
                name: "a".into(),
                steps,
                knee: Knee::At(2e3),
                bound_us: Some(500.0),
                ended: None,
            }],
            "",
        );
        let [p99, p50, bound] = &chart.lines[..] else { panic!("three lines") };
        assert_eq!((p99.name.as_str(), p50.name.as_str()), ("a p99, knee 2,000/s", "a p50"));
        assert_eq!((bound.name.as_str(), bound.is_dashed()), ("bound of p99, 500 µs", true));
        assert_eq!(bound.points, [(1e3, 500.0), (4e3, 500.0)]);
        assert_eq!(p99.points, [(1e3, 50.0), (2e3, 60.0), (4e3, 9e3)]);
        assert_eq!((p99.mark, p50.mark), (Some((2e3, 60.0)), None));
    }

    #[test]
    fn a_mean_is_of_what_all_runs_have() {
        let runs = [vec![(0.5, 10.0), (1.5, 20.0), (2.5, 1.0)], vec![(0.5, 20.0), (1.5, 0.0)]];
        assert_eq!(mean(&runs), [(0.5, 15.0), (1.5, 10.0)]);
        assert!(mean(&[]).is_empty());
    }
}
