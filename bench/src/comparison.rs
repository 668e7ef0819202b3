//! Targets side by side, as a table: medians, and ratios to the first.

use crate::measured::Measured;
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

/// A name as it may stand in a table of Markdown.
fn escaped(name: &str) -> String {
    name.replace('|', "\\|")
}

/// Rows of cells as a table of Markdown whose columns are as wide as they have to be.
pub(crate) fn aligned(cells: &[Vec<String>]) -> String {
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
