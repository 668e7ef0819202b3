//! Targets side by side, as a table: medians, and ratios to the first.

use crate::measured::{Measured, Sweep};
use crate::plot::grouped;
use std::fmt::Write as _;

/// What the table has, where it was measured: a figure's name, and what people call it.
pub(crate) const ROWS: [(&str, &str); 9] = [
    ("throughput_ops_per_s", "operations/s"),
    ("latency_p50_us", "p50, µs"),
    ("latency_p90_us", "p90, µs"),
    ("latency_p99_us", "p99, µs"),
    ("latency_p99_9_us", "p99.9, µs"),
    ("latency_max_us", "max, µs"),
    ("device_write_bytes_per_op", "device bytes/op"),
    ("device_flushes_per_write", "flushes/write"),
    ("errors_count", "errors"),
];

/// The table, in Markdown, which reads well in a terminal too.
pub(crate) fn table(sides: &[Measured]) -> String {
    let Some(base) = sides.first() else { return String::new() };
    let mut head = vec!["median".to_owned()];
    for (index, side) in sides.iter().enumerate() {
        head.push(escaped(&side.plan.name));
        if index > 0 {
            head.push(format!("÷ {}", escaped(&base.plan.name)));
        }
    }
    let mut rows = vec![head];
    for (name, title) in ROWS {
        let medians: Vec<Option<f64>> = sides.iter().map(|side| side.median().get(name)).collect();
        if medians.iter().all(|median| median.is_none_or(|n| n == 0.0)) {
            continue;
        }
        let mut row = vec![title.to_owned()];
        for (index, (side, median)) in sides.iter().zip(medians).enumerate() {
            let cell = median.map_or_else(|| "–".into(), grouped);
            row.push(format!("{}{cell}", side.median().mark(name)));
            if index > 0 {
                let ratio = side.ratio_to(base).get(name);
                row.push(ratio.map_or_else(|| "–".into(), |r| format!("{r:.2}")));
            }
        }
        rows.push(row);
    }
    aligned(&rows)
}

/// Targets of a sweep side by side: their knees, and their latencies at the highest rate that all were measured at. At its knee
/// each was asked for another rate, so latencies there say nothing about each other.
pub(crate) fn of_sweeps(sweeps: &[Sweep]) -> String {
    let Some((base, others)) = sweeps.split_first() else { return String::new() };
    let mut head = vec!["sweep".to_owned(), escaped(&base.name)];
    others.iter().for_each(|it| {
        head.extend([escaped(&it.name), format!("÷ {}", escaped(&base.name))]);
    });
    let row = |title: String, values: Vec<(&str, Option<f64>)>| {
        let first = values.first().and_then(|(_, value)| *value).filter(|it| 0.0 < *it);
        let mut row = vec![title];
        for (index, (mark, value)) in values.into_iter().enumerate() {
            row.push(value.map_or_else(|| "–".into(), |it| format!("{mark}{}", grouped(it))));
            if index > 0 {
                let ratio = value.zip(first).map(|(mine, first)| mine / first);
                row.push(ratio.map_or_else(|| "–".into(), |it| format!("{it:.2}")));
            }
        }
        row
    };
    let knees = sweeps.iter().map(|sweep| ("", sweep.knee.rate_per_s())).collect();
    let mut rows = vec![head, row("knee/s".into(), knees)];
    let is_shared = |rate: &f64| others.iter().all(|sweep| sweep.at(*rate).is_some());
    let rates = base.steps.iter().map(|step| step.rate_per_s).filter(is_shared);
    if let Some(rate) = rates.max_by(f64::total_cmp) {
        for (name, title) in ROWS.iter().filter(|(name, _)| name.starts_with("latency_")) {
            let of = |sweep: &'_ Sweep| {
                let figures = &sweep.at(rate)?.figures;
                Some((figures.mark(name), figures.get(name)))
            };
            let values = sweeps.iter().map(|it| of(it).unwrap_or(("", None))).collect();
            rows.push(row(format!("{title} at {}/s", grouped(rate)), values));
        }
    }
    aligned(&rows)
}

/// A name as it may stand in a table of Markdown.
fn escaped(name: &str) -> String {
    name.replace('|', "\\|")
}

/// Rows of cells as a table of Markdown whose columns are as wide as they have to be.
fn aligned(cells: &[Vec<String>]) -> String {
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| {
        cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width_of(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for (index, row) in cells.iter().enumerate() {
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let _ = match column {
                0 => write!(text, "| {cell:<width$} |"),
                _ => write!(text, " {cell:>width$} |"),
            };
        }
        text.push('\n');
        if index == 0 {
            for (column, width) in widths.iter().enumerate() {
                let _ = match column {
                    0 => write!(text, "|{}|", "-".repeat(width + 2)),
                    _ => write!(text, "{}:|", "-".repeat(width + 1)),
                };
            }
            text.push('\n');
        }
    }
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knee::{Knee, Verdict};
    use crate::measured::Step;
    use crate::report::Figures;

    #[test]
    fn sweeps_are_compared_by_knee_and_at_a_rate_that_all_had() {
        let sweep = |name: &str, knee, rates: [(f64, f64); 3]| Sweep {
            name: name.into(),
            steps: rates
                .map(|(rate_per_s, us)| Step {
                    rate_per_s,
                    figures: Figures::of(&[("latency_p99_us", us)]),
                    verdict: Verdict::Kept,
                })
                .into(),
            knee: Knee::At(knee),
            bound_us: None,
            ended: None,
        };
        let one = sweep("one", 2_000.0, [(1e3, 100.0), (2e3, 200.0), (3e3, 9e3)]);
        let two = sweep("t|o", 5_000.0, [(1e3, 80.0), (2e3, 100.0), (5e3, 300.0)]);
        let text = of_sweeps(&[one, two]);
        let row = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or("");
        let cells =
            |start: &str| row(start).split('|').map(|it| it.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(cells("| knee/s")[2..5], ["2,000", "5,000", "2.50"]);
        assert_eq!(cells("| p99, µs at 2,000/s")[2..5], ["200", "100", "0.50"]);
        assert!(row("| sweep").contains(r"t\|o"), "{text}");
        assert!(!text.contains("3,000") && !text.contains("300"), "at no other rate: {text}");
    }

    #[test]
    fn a_table_is_markdown_in_columns() {
        let row = |cells: [&str; 4]| cells.map(escaped).to_vec();
        let rows = [row(["median", "a", "b", "÷ a"]), row(["p99, µs", "1,200", "600", "0.50"])];
        let expected = "| median  |     a |   b |  ÷ a |\n\
                        |---------|------:|----:|-----:|\n\
                        | p99, µs | 1,200 | 600 | 0.50 |";
        assert_eq!(aligned(&rows), expected);
        assert_eq!(escaped("a | b"), "a \\| b");
    }
}
