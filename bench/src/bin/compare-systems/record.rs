//! The record: where it was made, a table and plots per suite, every run.

use crate::drawing::Line;
use crate::machine::Facts;
use crate::plot::{Chart, grouped};
use crate::results::{CellAt, Results};
use crate::suite::{Axis, Cell, Pace, Suite, System};
use std::fmt::Write as _;
use std::path::Path;

/// What the head of a record says.
#[derive(Debug, Clone)]
pub(crate) struct About {
    /// The day, UTC.
    pub(crate) date: String,
    /// Commit, machine, kernel, filesystem.
    pub(crate) machine: Facts,
    /// What was compared, in which version.
    pub(crate) systems: Vec<(System, String)>,
    /// Outrigger's, once it was asked.
    pub(crate) flush_method: Option<String>,
    /// Rounds of every cell.
    pub(crate) rounds: u64,
    /// Seconds measured.
    pub(crate) duration_s: f64,
    /// Seconds before.
    pub(crate) warmup_s: f64,
    /// Of round 1.
    pub(crate) seed: u64,
    /// The arguments.
    pub(crate) command: String,
}

/// Writes the record and its plots, whatever there is so far.
pub(crate) fn write(
    path: &Path,
    about: &About,
    suites: &[Suite],
    results: &Results,
) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut text = head(about, suites);
    for (at, suite) in suites.iter().enumerate() {
        let _ = write!(text, "\n## {}\n\n{}\n\n", suite.name, suite.about);
        for (name, chart) in charts(suite, at, results) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let file = format!("{stem}-{}-{name}.svg", suite.name);
            if chart.write(&path.with_file_name(&file))? {
                let _ = write!(text, "![{}]({file})\n\n", chart.title);
            }
        }
        text.push_str(&table(suite, at, results));
    }
    text.push_str(&failures(results));
    text.push_str(&troubles(suites, results));
    text.push_str(&every_run(suites, results));
    std::fs::write(path, text).map_err(failed)
}

fn head(about: &About, suites: &[Suite]) -> String {
    let names: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
    let mut text =
        format!("# Systems compared: {}, {}\n\n| | |\n|---|---|\n", names.join(", "), about.date);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "| {name} | {value} |");
    };
    for (name, value) in &about.machine {
        line(name, value);
    }
    line("flush method", about.flush_method.as_deref().unwrap_or("not asked"));
    line("seed", &format!("{} (round r uses seed + r − 1)", about.seed));
    let (rounds, warmup, duration) = (about.rounds, about.warmup_s, about.duration_s);
    let rounds = format!(
        "{rounds}, alternating; every measurement in a fresh directory: all keys filled, {warmup} s \
         warm-up, {duration} s measured"
    );
    line("rounds", &rounds);
    for (system, version) in &about.systems {
        line(system.name(), version);
    }
    line("command", &format!("`bench/compare.sh {}`", about.command));
    text.push_str(
        "\nFigures are medians of the rounds; ratios are medians of the rounds' ratios. The generator runs on \
         the same cores. Values are random bytes. Server CPU is of all processes of a system. Bytes and \
         flushes are the device's own counters (`/proc/diskstats`): they include the journal, and whatever \
         else wrote meanwhile; a flush counts as the kernel counts it, which on a device without FUA means \
         that a FUA write is a write and a flush. etcd's and ZooKeeper's settings are their defaults.\n",
    );
    text
}

/// A column: its title, and what it says of a system in a cell.
type Column<'a> = (&'a str, Box<dyn Fn(CellAt, &Cell, System) -> String + 'a>);

fn table(suite: &Suite, at: usize, results: &Results) -> String {
    let columns = columns(suite, results);
    let mut text = String::from("| load | system |");
    for (title, _) in &columns {
        let _ = write!(text, " {title} |");
    }
    let _ = writeln!(text, "\n|---|---|{}", "--:|".repeat(columns.len()));
    for (cell_at, cell) in suite.cells.iter().enumerate() {
        for &system in &suite.systems {
            let _ = write!(text, "| {} | {} |", varying(suite, cell), system.name());
            for (_, value) in &columns {
                let _ = write!(text, " {} |", value((at, cell_at), cell, system));
            }
            text.push('\n');
        }
    }
    text
}

fn columns<'a>(suite: &'a Suite, results: &'a Results) -> Vec<Column<'a>> {
    let figure = |name: &'static str, digits: usize| {
        let value = move |cell: CellAt, _: &Cell, system: System| {
            results.median(cell, system, name).map_or("–".into(), |n| match digits {
                0 => grouped(n.round()),
                _ => format!("{n:.digits$}"),
            })
        };
        Box::new(value) as Box<dyn Fn(CellAt, &Cell, System) -> String>
    };
    let ours_to = |name: &'static str| {
        let value = move |cell: CellAt, _: &Cell, system: System| {
            let ratio = results.ratio(cell, System::Outrigger, system, name);
            ratio
                .filter(|_| system != System::Outrigger)
                .map_or("–".into(), |n| format!("{n:.2}"))
        };
        Box::new(value) as Box<dyn Fn(CellAt, &Cell, System) -> String>
    };
    let mut columns: Vec<Column<'a>> = Vec::new();
    if suite.axis == Axis::Rate {
        let rate = |cell, _: &Cell, system| {
            results.rate(cell, system).map_or("–".into(), |n| grouped(n.round()))
        };
        columns.push(("rate, ops/s", Box::new(rate)));
    }
    columns.push(("throughput, ops/s", figure("throughput_ops_per_s", 0)));
    columns.push(("p50, µs", figure("latency_p50_us", 0)));
    columns.push(("p99, µs", figure("latency_p99_us", 0)));
    columns.push(("p99.9, µs", figure("latency_p99_9_us", 0)));
    if suite.cells.iter().any(|cell| cell.read_share > 0.0) {
        columns.push(("read p99, µs", figure("read_latency_p99_us", 0)));
        columns.push(("write p99, µs", figure("write_latency_p99_us", 0)));
    }
    columns.push(("server CPU, µs/op", figure("server_cpu_us_per_op", 1)));
    columns.push(("device bytes/op", figure("device_write_bytes_per_op", 0)));
    columns.push(("flushes/acked write", figure("device_flushes_per_write", 3)));
    columns.push(("Outrigger's throughput ÷ its", ours_to("throughput_ops_per_s")));
    columns.push(("Outrigger's p99 ÷ its", ours_to("latency_p99_us")));
    columns
}

/// What tells a cell from the others of its suite.
fn varying(suite: &Suite, cell: &Cell) -> String {
    let all = cell.text();
    let parts: Vec<&str> = all.split(", ").collect();
    match suite.axis {
        Axis::Connections => parts[0].into(),
        Axis::ValueBytes => parts[1].into(),
        Axis::Rate if cell.pace == Pace::Closed => "closed loop".into(),
        Axis::Rate => parts[4].into(),
        Axis::None => parts[2..].join(", "),
    }
}

/// Charts of a suite, each with a name for its file.
fn charts(suite: &Suite, at: usize, results: &Results) -> Vec<(&'static str, Chart)> {
    let lines = |name: &'static str, label: &str, faint: bool| -> Vec<Line> {
        let of_system = |&system: &System| {
            let mut points: Vec<(f64, f64)> = (0..suite.cells.len())
                .filter_map(|cell_at| {
                    let cell = &suite.cells[cell_at];
                    let x = match suite.axis {
                        Axis::Connections => Some(cell.connections as f64),
                        Axis::ValueBytes => Some(cell.value_bytes as f64),
                        Axis::Rate => results.rate((at, cell_at), system),
                        Axis::None => None,
                    };
                    Some((x?, results.median((at, cell_at), system, name)?))
                })
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            // A system whose own knee is the lowest has the same points twice.
            points.dedup();
            let name = format!("{}{label}", system.name());
            Line { name, colour: system as usize, faint, dashed: false, points, mark: None }
        };
        suite.systems.iter().map(of_system).collect()
    };
    let (x, marks): (_, Vec<f64>) = match suite.axis {
        Axis::Connections => {
            ("connections", suite.cells.iter().map(|cell| cell.connections as f64).collect())
        }
        Axis::ValueBytes => {
            ("bytes of a value", suite.cells.iter().map(|cell| cell.value_bytes as f64).collect())
        }
        Axis::Rate => ("arrivals per second, open loop", Vec::new()),
        Axis::None => return Vec::new(),
    };
    let mut latency = lines("latency_p99_us", " p99", false);
    latency.extend(lines("latency_p50_us", " p50", true));
    let mut charts = Vec::new();
    if suite.axis != Axis::Rate {
        let title = format!("{}: throughput", suite.name);
        let lines = lines("throughput_ops_per_s", "", false);
        let y = "operations per second";
        charts.push(("throughput", Chart { title, x, y, marks: marks.clone(), lines }));
    }
    let title = format!("{}: latency", suite.name);
    charts.push(("latency", Chart { title, x, y: "µs", marks, lines: latency }));
    charts
}

fn failures(results: &Results) -> String {
    let mut text = String::new();
    if !results.failures.is_empty() {
        text.push_str("\n## Missing\n\n");
        for failure in &results.failures {
            let _ = writeln!(text, "- {failure}");
        }
    }
    text
}

/// Counts that are zero in a good run, and what they count.
const TROUBLES: [(&str, &str); 5] = [
    ("errors_count", "replies were errors"),
    ("disconnects_count", "connections broke"),
    ("unknown_outcomes_count", "outcomes are unknown"),
    ("missing_keys_count", "reads found no key"),
    ("unsent_arrivals_count", "arrivals were never sent"),
];

fn troubles(suites: &[Suite], results: &Results) -> String {
    let mut text = String::new();
    for row in &results.rows {
        let counts = TROUBLES.iter().filter_map(|(name, what)| {
            let count = row.figures.get(*name).filter(|count| **count > 0.0)?;
            Some(format!("{} {what}", grouped(*count)))
        });
        let counts: Vec<String> = counts.collect();
        if !counts.is_empty() {
            let suite = &suites[row.cell.0];
            let (cell, system) = (suite.cells[row.cell.1].text(), row.system.name());
            let (name, round, counts) = (suite.name, row.round + 1, counts.join(", "));
            let _ = writeln!(text, "- {name} · {cell} · {system}, round {round}: {counts}");
        }
    }
    if text.is_empty() { text } else { format!("\n## Troubles\n\n{text}") }
}

/// Figures of every run, in the order of measuring.
const RUN_FIGURES: [&str; 10] = [
    "throughput_ops_per_s",
    "latency_p50_us",
    "latency_p99_us",
    "latency_p99_9_us",
    "server_cpu_us_per_op",
    "device_write_bytes_per_op",
    "device_flushes_per_write",
    "generator_cpu_us_per_op",
    "unknown_outcomes_count",
    "unsent_arrivals_count",
];

fn every_run(suites: &[Suite], results: &Results) -> String {
    let names = RUN_FIGURES.join("  ");
    let mut text = format!("\n## Every run\n\n    suite  load  system  round  {names}\n\n");
    for row in &results.rows {
        let suite = &suites[row.cell.0];
        let cell = &suite.cells[row.cell.1];
        let (system, round) = (row.system.name(), row.round + 1);
        let _ = write!(text, "    {}  {}  {system}  {round}", suite.name, varying(suite, cell));
        for name in RUN_FIGURES {
            let value = row.figures.get(name).map_or("–".into(), |n| format!("{n}"));
            let _ = write!(text, "  {value}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::sample;

    fn about() -> About {
        About {
            date: "2026-01-02".into(),
            machine: vec![("kernel", "Linux 6".into())],
            systems: vec![(System::Etcd, "etcd 3".into())],
            flush_method: Some("fua".into()),
            rounds: 2,
            duration_s: 5.0,
            warmup_s: 3.0,
            seed: 7,
            command: "quick".into(),
        }
    }

    #[test]
    fn a_record_has_its_head_tables_plots_and_runs() {
        let folder = std::env::temp_dir().join(format!("compare-record-{}", std::process::id()));
        let path = folder.join("r.md");
        let suites = crate::suite::named("quick", &[1, 64]).expect("it exists");
        let mut results = sample(
            (0, 1),
            &[(System::Outrigger, &[20_000.0, 30_000.0]), (System::Etcd, &[4_000.0, 5_000.0])],
        );
        results.failures.push("ZooKeeper fell over".into());
        results.rows[0].figures.insert("errors_count".into(), 309.0);
        write(&path, &about(), &suites, &results).expect("it is written");
        let text = std::fs::read_to_string(&path).expect("it is there");
        let plot = std::fs::read_to_string(folder.join("r-quick-latency.svg")).expect("a plot");
        std::fs::remove_dir_all(&folder).expect("it is ours");
        for line in [
            "# Systems compared: quick, 2026-01-02",
            "| kernel | Linux 6 |",
            "| flush method | fua |",
            "| seed | 7 (round r uses seed + r − 1) |",
            "![quick: throughput](r-quick-throughput.svg)",
            "| 64 × 1 | Outrigger | 25,000 | 42 | 167 | – | 12.5 | 4,096 | 0.250 | – | – |",
            "| 64 × 1 | etcd | 4,500 | 225 | 900 | – | 12.5 | 4,096 | 0.250 | 5.50 | 0.18 |",
            "| 1 × 1 | ZooKeeper | – | – | – | – | – | – | – | – | – |",
            "- ZooKeeper fell over",
            "- quick · 64 × 1, 256 B, writes, uniform · Outrigger, round 1: 309 replies were errors",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\nis not in\n{text}");
        }
        assert!(text.contains("    quick  64 × 1  etcd  2  5000  200  800  –  12.5"), "{text}");
        assert!(plot.contains("etcd p50") && plot.contains("Outrigger p99"));
    }

    #[test]
    fn cells_of_a_suite_are_told_apart() {
        for suite in crate::suite::named("all", &[1, 16, 64, 256]).expect("it exists") {
            let mut names: Vec<String> =
                suite.cells.iter().map(|cell| varying(&suite, cell)).collect();
            names.sort();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count, "{}: {names:?}", suite.name);
        }
    }
}
