//! What was measured, and what rounds add up to: medians, and medians of ratios.
//!
//! A ratio is taken within a round, where both systems had the same neighbours, and the median of the
//! rounds' ratios is reported: a slow minute moves both figures of a round, and their ratio little.

use crate::measure::Figures;
use crate::suite::{Suite, System};

/// Which suite, which cell of it.
pub(crate) type CellAt = (usize, usize);

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What was asked.
    pub(crate) cell: CellAt,
    /// Of whom.
    pub(crate) system: System,
    /// In which round, from 0.
    pub(crate) round: u64,
    /// The rate of an open loop.
    pub(crate) rate_per_s: Option<f64>,
    /// The answer.
    pub(crate) figures: Figures,
}

impl Row {
    /// The figures one looks at first.
    pub(crate) fn text(&self) -> String {
        let get = |name: &str| self.figures.get(name).copied().unwrap_or(f64::NAN);
        format!(
            "{:.0} ops/s, p50 {:.0} µs, p99 {:.0} µs",
            get("throughput_ops_per_s"),
            get("latency_p50_us"),
            get("latency_p99_us")
        )
    }
}

/// All measurements so far, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// In the order they were made.
    pub(crate) rows: Vec<Row>,
    /// What could not be measured, a sentence each.
    pub(crate) failures: Vec<String>,
}

impl Results {
    /// The median of a figure over the rounds.
    pub(crate) fn median(&self, cell: CellAt, system: System, name: &str) -> Option<f64> {
        median(self.of(cell, system).filter_map(|row| row.figures.get(name).copied()).collect())
    }

    /// The median rate of the open loop.
    pub(crate) fn rate(&self, cell: CellAt, system: System) -> Option<f64> {
        median(self.of(cell, system).filter_map(|row| row.rate_per_s).collect())
    }

    /// The median of the rounds' ratios, `system`'s figure divided by `other`'s.
    pub(crate) fn ratio(
        &self,
        cell: CellAt,
        system: System,
        other: System,
        name: &str,
    ) -> Option<f64> {
        let ratios = self.of(cell, system).filter_map(|row| {
            let theirs = self.of(cell, other).find(|theirs| theirs.round == row.round)?;
            let (ours, theirs) = (row.figures.get(name)?, theirs.figures.get(name)?);
            (*theirs > 0.0).then(|| ours / theirs)
        });
        median(ratios.collect())
    }

    /// The closed-loop throughput of a suite's first cell.
    pub(crate) fn knee(&self, suite: &Suite, suite_at: usize, system: System) -> Option<f64> {
        let at = suite.cells.iter().position(|cell| cell.pace == crate::suite::Pace::Closed)?;
        self.median((suite_at, at), system, "throughput_ops_per_s")
    }

    /// Whose knee is the lowest, and where it is.
    pub(crate) fn lowest_knee(&self, suite: &Suite, suite_at: usize) -> Option<(System, f64)> {
        let knees = suite.systems.iter().filter_map(|&system| {
            let knee = self.knee(suite, suite_at, system)?;
            Some((system, knee))
        });
        knees.min_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// Notes a measurement a second time, for a cell that asks the same.
    pub(crate) fn copy(&mut self, from: CellAt, to: CellAt, system: System, round: u64) {
        let found = self.of(from, system).find(|row| row.round == round).cloned();
        self.rows.extend(found.map(|row| Row { cell: to, ..row }));
    }

    fn of(&self, cell: CellAt, system: System) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.cell == cell && row.system == system)
    }
}

/// Of an even number, the mean of the middle two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Rounds of one cell: per system, its throughput by round. Latencies follow from it.
    pub(crate) fn sample(cell: CellAt, systems: &[(System, &[f64])]) -> Results {
        let mut results = Results::default();
        for &(system, rounds) in systems {
            for (round, &ops) in (0..).zip(rounds) {
                let figures = [
                    ("throughput_ops_per_s", ops),
                    ("latency_p50_us", 1e6 / ops),
                    ("latency_p99_us", 4e6 / ops),
                    ("server_cpu_us_per_op", 12.5),
                    ("device_write_bytes_per_op", 4096.0),
                    ("device_flushes_per_write", 0.25),
                    ("unknown_outcomes_count", 0.0),
                ];
                let figures = figures.map(|(name, value)| (name.to_owned(), value)).into();
                results.rows.push(Row { cell, system, round, rate_per_s: None, figures });
            }
        }
        results
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was ten times slower in round 2: no ratio shows it.
        let results = sample(
            (0, 0),
            &[
                (System::Outrigger, &[5_000.0, 500.0, 6_000.0]),
                (System::Etcd, &[1_000.0, 100.0, 1_000.0]),
            ],
        );
        let ops = "throughput_ops_per_s";
        assert_eq!(results.median((0, 0), System::Etcd, ops), Some(1_000.0));
        assert_eq!(results.ratio((0, 0), System::Outrigger, System::Etcd, ops), Some(5.0));
        assert_eq!(results.median((0, 1), System::Etcd, ops), None);
        assert_eq!(results.ratio((0, 0), System::Outrigger, System::Redis, ops), None);
    }

    #[test]
    fn the_lowest_knee_is_found_and_its_cell_is_not_measured_twice() {
        let suites = crate::suite::named("rates", &[]).expect("it exists");
        let mut results =
            sample((0, 0), &[(System::Outrigger, &[9_000.0]), (System::Etcd, &[2_000.0, 4_000.0])]);
        assert_eq!(results.lowest_knee(&suites[0], 0), Some((System::Etcd, 3_000.0)));
        results.copy((0, 0), (0, 3), System::Etcd, 1);
        let copied = results.median((0, 3), System::Etcd, "throughput_ops_per_s");
        assert_eq!(copied, Some(4_000.0));
    }
}
