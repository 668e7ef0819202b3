//! From measurements to figures, their text, and HdrHistogram's percentile table.
//!
//! A run becomes [`Figures`]: names and numbers, every name ending in its unit. Text, JSON, tables and the
//! median are all made from them, so they cannot disagree.

use crate::args::Plan;
use crate::record::Latencies;
use crate::run::Outcome;
use crate::workload::Kind;
use hdrhistogram::Histogram;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt::Write as _;
use std::io::{self, Write};

/// The numbers of one run, or the median of several. A number that was not asked for, or does
/// not exist, is `None`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    all: Vec<(&'static str, Option<f64>)>,
    /// Names of those that are lower bounds: operations that were never answered reach them.
    bounds: Vec<&'static str>,
    /// How many operations can be outstanding in all, if an open loop had all of them outstanding and arrivals waiting.
    slots_taken: Option<Slots>,
}

/// What bounds the operations that can be outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slots {
    connections: usize,
    pipeline: usize,
}

/// Arrivals that waited for a slot when the window ended are worth a word above this share.
const OVERDUE_SHARE_MAX: f64 = 0.01;
/// Above this share of arrivals that were never sent a run fails.
pub(crate) const UNSENT_SHARE_MAX: f64 = 0.03;

impl Figures {
    /// The figures of one run.
    pub(crate) fn new(outcome: &Outcome, plan: &Plan) -> Self {
        let record = &outcome.record;
        let ops = record.ops as f64;
        let payload = record.payload_bytes as f64;
        let per = |amount: Option<f64>, of: f64| amount.filter(|_| of > 0.0).map(|a| a / of);
        let write_bytes = outcome.usage.write_bytes.map(|bytes| bytes as f64);
        let flushes = outcome.usage.device_flushes.map(|count| count as f64);
        let device_bytes = outcome.usage.device_bytes.map(|bytes| bytes as f64);
        let mut figures = vec![
            ("throughput_ops_per_s", per(Some(ops), outcome.window_s)),
            ("payload_bytes_per_s", per(Some(payload), outcome.window_s)),
        ];
        let mut bounds = Vec::new();
        let mut extend = |of: &Latencies, names| {
            let (values, bounded) = latencies(of, names);
            figures.extend(values);
            bounds.extend(bounded);
        };
        extend(&record.all(), ALL);
        let mix = plan.workload.mix;
        for kind in Kind::ALL.into_iter().filter(|kind| mix.is_mixed() && 0.0 < mix.share(*kind)) {
            extend(&record.latencies(kind), names(kind));
        }
        let open = |count: u64| plan.rate_per_s.map(|_| count as f64);
        figures.extend([
            ("server_cpu_us_per_op", per(outcome.usage.cpu_us, ops)),
            ("server_write_bytes_per_op", per(write_bytes, ops)),
            ("server_write_bytes_per_payload_byte", per(write_bytes, payload)),
            ("device_write_bytes_per_op", per(device_bytes, ops)),
            ("device_write_bytes_per_payload_byte", per(device_bytes, payload)),
            ("device_flushes_per_write", per(flushes, record.acked_writes as f64)),
            ("generator_cpu_us_per_op", per(outcome.own_cpu_us, ops)),
            ("window_s", Some(outcome.window_s)),
            ("ops_count", Some(ops)),
            ("acked_writes_count", Some(record.acked_writes as f64)),
            ("latency_samples_count", Some(record.samples() as f64)),
            ("missing_keys_count", Some(record.missing as f64)),
            ("errors_count", Some(record.errors_count() as f64)),
            ("disconnects_count", Some(record.disconnects as f64)),
            ("unknown_outcomes_count", Some(record.unknown as f64)),
            ("due_arrivals_count", open(record.due)),
            ("overdue_arrivals_count", open(record.overdue)),
            ("unsent_arrivals_count", open(record.unsent)),
        ]);
        let slots = Slots { connections: plan.connections, pipeline: plan.pipeline };
        Self { all: figures, bounds, slots_taken: record.slots_taken.then_some(slots) }
    }

    /// The median of each figure by itself. Of an even number of runs, the mean of the middle two.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let Some(first) = runs.first() else { return Self::default() };
        let median_of = |name: &'static str| {
            let mut values: Vec<f64> = runs.iter().filter_map(|run| run.get(name)).collect();
            values.sort_by(f64::total_cmp);
            let middle = values.len() / 2;
            let median = match values.len() {
                0 => None,
                n if n % 2 == 1 => Some(values[middle]),
                _ => Some((values[middle - 1] + values[middle]) / 2.0),
            };
            (name, median)
        };
        // Of one run that is a bound the median may be one, too.
        let bounded = |name: &&str| runs.iter().any(|run| run.is_bound(name));
        Self {
            all: first.all.iter().map(|(name, _)| median_of(name)).collect(),
            bounds: first.all.iter().map(|(name, _)| *name).filter(bounded).collect(),
            slots_taken: runs.iter().find_map(|run| run.slots_taken),
        }
    }

    /// Each figure divided by that of `base`, where both are and that is no division by zero.
    pub(crate) fn ratio_to(&self, base: &Self) -> Self {
        let ratio = |(name, mine): &(&'static str, Option<f64>)| {
            let base = base.get(name).filter(|base| *base > 0.0);
            (*name, mine.zip(base).map(|(mine, base)| mine / base))
        };
        Self { all: self.all.iter().map(ratio).collect(), ..Self::default() }
    }

    /// Made-up figures.
    #[cfg(test)]
    pub(crate) fn of(figures: &[(&'static str, f64)]) -> Self {
        let all = figures.iter().map(|(name, value)| (*name, Some(*value))).collect();
        Self { all, ..Self::default() }
    }

    /// A figure by name.
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.all.iter().find(|(known, _)| *known == name)?.1
    }

    /// Whether a figure is a lower bound.
    pub(crate) fn is_bound(&self, name: &str) -> bool {
        self.bounds.contains(&name)
    }

    /// What stands before a figure: that it is a lower bound, or nothing.
    pub(crate) fn mark(&self, name: &str) -> &'static str {
        if self.is_bound(name) { "≥" } else { "" }
    }

    /// The share of arrivals that were never sent.
    pub(crate) fn unsent_share(&self) -> f64 {
        self.share_of_due("unsent_arrivals_count")
    }

    /// The share of arrivals that were still waiting for a slot when the window ended.
    pub(crate) fn overdue_share(&self) -> f64 {
        self.share_of_due("overdue_arrivals_count")
    }

    /// Whether arrivals waited because as much was outstanding as can be: then the figures are of that bound as well.
    pub(crate) fn is_full(&self) -> bool {
        self.slots_taken.is_some() && OVERDUE_SHARE_MAX < self.overdue_share()
    }

    /// What there is to say of arrivals that waited for a slot at the end.
    fn arrivals_problem(&self) -> Option<String> {
        let share = self.overdue_share().max(self.unsent_share());
        if share <= OVERDUE_SHARE_MAX {
            return None;
        }
        let count = |name| self.get(name).unwrap_or(0.0);
        let why = match self.slots_taken {
            Some(Slots { connections, pipeline }) => format!(
                "all {connections} × {pipeline} slots were taken: more --connections, or the server is slower than --rate"
            ),
            None => {
                "slots were free: the generator came too late (--threads), or connections were down"
                    .into()
            }
        };
        Some(format!(
            "{:.0} arrivals overdue at the end, {:.0} of them never sent ({why})",
            count("overdue_arrivals_count"),
            count("unsent_arrivals_count"),
        ))
    }

    fn share_of_due(&self, name: &str) -> f64 {
        let due = self.get("due_arrivals_count").filter(|due| *due > 0.0);
        due.zip(self.get(name)).map_or(0.0, |(due, count)| count / due)
    }

    /// One or a few lines for people.
    pub(crate) fn text(&self, label: &str) -> String {
        // Only a run without a single good answer lacks figures; NaN says so well enough.
        let get = |name| self.get(name).unwrap_or(f64::NAN);
        let mut text = format!("{label:<8} {:>9.0} ops/s", get("throughput_ops_per_s"));
        let marked = |name| format!("{}{:.0}", self.mark(name), get(name));
        let mut spread = |title: &str, names: Names| {
            let [p50, p90, p99, p99_9, max, _] = names;
            let _ = write!(
                text,
                "{title}  p50 {}  p90 {}  p99 {}  p99.9 {}  max {} µs",
                marked(p50),
                marked(p90),
                marked(p99),
                marked(p99_9),
                marked(max),
            );
        };
        spread("", ALL);
        for kind in Kind::ALL {
            if self.get(names(kind)[0]).is_some() {
                spread(&format!("\n           {:<7}", kind.plural()), names(kind));
            }
        }
        let mut costs = Vec::new();
        for (name, unit, digits) in [
            ("server_cpu_us_per_op", "µs server CPU/op", 1),
            ("server_write_bytes_per_op", "bytes written/op", 0),
            ("server_write_bytes_per_payload_byte", "per payload byte", 2),
            ("device_write_bytes_per_op", "device bytes/op", 0),
            ("device_write_bytes_per_payload_byte", "per payload byte", 2),
            ("device_flushes_per_write", "device flushes/write", 3),
            ("generator_cpu_us_per_op", "µs generator CPU/op", 1),
        ] {
            if let Some(value) = self.get(name) {
                costs.push(format!("{value:.digits$} {unit}"));
            }
        }
        if !costs.is_empty() {
            let _ = write!(text, "\n           {}", costs.join(" · "));
        }
        let mut troubles = Vec::new();
        for (name, what) in [
            ("missing_keys_count", "keys not found"),
            ("errors_count", "errors"),
            ("disconnects_count", "disconnects"),
            ("unknown_outcomes_count", "unknown outcomes"),
        ] {
            if let Some(count) = self.get(name).filter(|count| *count > 0.0) {
                troubles.push(format!("{count:.0} {what}"));
            }
        }
        troubles.extend(self.arrivals_problem());
        if !troubles.is_empty() {
            let _ = write!(text, "\n           {}", troubles.join(" · "));
        }
        text
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A map by hand: counts stay whole numbers, and digits below a nanosecond are noise.
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.all {
            match value {
                Some(value) if name.ends_with("_count") && value.fract() == 0.0 => {
                    map.serialize_entry(name, &(*value as u64))?;
                }
                Some(value) => map.serialize_entry(name, &((value * 1e3).round() / 1e3))?,
                None => map.serialize_entry(name, &None::<f64>)?,
            }
        }
        if !self.bounds.is_empty() {
            map.serialize_entry("lower_bounds", &self.bounds)?;
        }
        map.end()
    }
}

/// Names of p50, p90, p99, p99.9, the maximum and the mean.
type Names = [&'static str; 6];

const ALL: Names = [
    "latency_p50_us",
    "latency_p90_us",
    "latency_p99_us",
    "latency_p99_9_us",
    "latency_max_us",
    "latency_mean_us",
];
const READS: Names = [
    "read_latency_p50_us",
    "read_latency_p90_us",
    "read_latency_p99_us",
    "read_latency_p99_9_us",
    "read_latency_max_us",
    "read_latency_mean_us",
];
const WRITES: Names = [
    "write_latency_p50_us",
    "write_latency_p90_us",
    "write_latency_p99_us",
    "write_latency_p99_9_us",
    "write_latency_max_us",
    "write_latency_mean_us",
];

const SCANS: Names = [
    "scan_latency_p50_us",
    "scan_latency_p90_us",
    "scan_latency_p99_us",
    "scan_latency_p99_9_us",
    "scan_latency_max_us",
    "scan_latency_mean_us",
];
const READ_MODIFY_WRITES: Names = [
    "read_modify_write_latency_p50_us",
    "read_modify_write_latency_p90_us",
    "read_modify_write_latency_p99_us",
    "read_modify_write_latency_p99_9_us",
    "read_modify_write_latency_max_us",
    "read_modify_write_latency_mean_us",
];

/// The names of one kind's latencies.
fn names(kind: Kind) -> Names {
    match kind {
        Kind::Read => READS,
        Kind::Write => WRITES,
        Kind::Scan => SCANS,
        Kind::ReadModifyWrite => READ_MODIFY_WRITES,
    }
}

/// Latencies by name, and the names of those that are lower bounds.
fn latencies(
    of: &Latencies,
    names: Names,
) -> (Vec<(&'static str, Option<f64>)>, Vec<&'static str>) {
    let values = |ns: &Histogram<u64>| {
        let at = |quantile| ns.value_at_quantile(quantile) as f64;
        [at(0.5), at(0.9), at(0.99), at(0.999), ns.max() as f64, ns.mean()]
    };
    let least = values(&of.ns);
    let us = least.map(|value| (!of.ns.is_empty()).then_some(value / 1e3));
    let figures = names.into_iter().zip(us).collect();
    if !of.is_bounded() {
        return (figures, Vec::new());
    }
    let worst = values(&of.at_worst());
    let bounded = names.into_iter().zip(least.into_iter().zip(worst));
    (figures, bounded.filter(|(_, (least, worst))| least < worst).map(|(name, _)| name).collect())
}

/// HdrHistogram's percentile table, in microseconds, as its plotting tools read it.
pub(crate) fn write_hgrm(ns: &Histogram<u64>, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in ns.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to().min(ns.max()) as f64 / 1e3;
        let quantile = step.quantile_iterated_to();
        write!(out, "{value:12.3} {quantile:.12} {total:10}")?;
        if quantile < 1.0 {
            writeln!(out, " {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out)?;
        }
    }
    writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        ns.mean() / 1e3,
        ns.stdev() / 1e3
    )?;
    writeln!(out, "#[Max     = {:12.3}, Total count    = {:12}]", ns.max() as f64 / 1e3, ns.len())?;
    writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", ns.buckets(), 2048)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(all: Vec<(&'static str, Option<f64>)>) -> Figures {
        Figures { all, ..Figures::default() }
    }

    #[test]
    fn the_median_ignores_one_bad_run() {
        let run = |value| made(vec![("a_us", Some(value)), ("b_us", None)]);
        let odd = Figures::median(&[run(10.0), run(900.0), run(11.0)]);
        assert_eq!((odd.get("a_us"), odd.get("b_us")), (Some(11.0), None));
        let even = Figures::median(&[run(10.0), run(20.0)]);
        assert_eq!(even.get("a_us"), Some(15.0));
    }

    #[test]
    fn a_ratio_needs_both_and_no_zero() {
        let base = Figures::of(&[("a_us", 4.0), ("b_us", 0.0), ("c_us", 1.0)]);
        let mine = made(vec![("a_us", Some(1.0)), ("b_us", Some(1.0)), ("c_us", None)]);
        let ratio = mine.ratio_to(&base);
        assert_eq!(["a_us", "b_us", "c_us"].map(|name| ratio.get(name)), [Some(0.25), None, None]);
    }

    #[test]
    fn counts_are_whole_and_missing_figures_are_null() {
        let figures = made(vec![("z_us", Some(1.5)), ("a_count", Some(2.0)), ("m_s", None)]);
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(text, r#"{"z_us":1.5,"a_count":2,"m_s":null}"#);
    }

    #[test]
    fn the_percentile_table_reads_back() {
        let mut ns = crate::record::histogram();
        (1..=10_000_u64).for_each(|us| ns.record(us * 1_000).unwrap());
        let mut out = Vec::new();
        write_hgrm(&ns, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|field| field.parse().unwrap()).collect())
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1]));
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2]), (1.0, 10_000.0));
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((median[0] - 5_000.0).abs() < 10.0, "{median:?}");
        assert!(text.contains("#[Max") && text.contains("Total count    =        10000"));
    }
}
