//! What the device gives at most: fio, on a file like a segment.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use outrigger::id::SegmentSeq;
use outrigger::limits::SEGMENT_BYTES;
use outrigger::runtime::segments::Directory;
use serde_json::Value;

use super::Options;
use crate::stats::{digits, median, order, table, whole};

/// One way to write.
#[derive(Debug, Clone, Copy)]
struct Way {
    bytes: u64,
    depth: u32,
    /// fio's flags, and how the table calls them.
    flag: &'static str,
    name: &'static str,
}

const fn way(bytes: u64, depth: u32, flag: &'static str, name: &'static str) -> Way {
    Way { bytes, depth, flag, name }
}

const WAYS: [Way; 6] = [
    way(4096, 1, "--sync=dsync", "O_DSYNC"),
    way(4096, 4, "--sync=dsync", "O_DSYNC"),
    way(4096, 1, "--fdatasync=1", "fdatasync"),
    way(4096, 4, "--fdatasync=1", "fdatasync"),
    way(256 << 10, 1, "--sync=dsync", "O_DSYNC"),
    way(256 << 10, 4, "--sync=dsync", "O_DSYNC"),
];

/// One run of fio.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    writes_per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

/// What fio reached.
#[derive(Debug)]
pub(super) struct Ceiling {
    /// By way, by round.
    figures: Vec<Vec<Figures>>,
    version: String,
}

/// Whether fio is there.
pub(super) fn find() -> Result<String> {
    let output = Command::new("fio").arg("--version").output();
    let output = output.context("fio is missing; install the package fio, or pass --no-fio")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Run fio in every way, in each round.
pub(super) fn measure(scratch: &Path, options: &Options) -> Result<Ceiling> {
    let version = find()?;
    let directory = Directory::open(scratch.join("fio"))?;
    directory.make(SegmentSeq(1))?;
    let file = directory.segment(SegmentSeq(1));
    let mut figures = vec![Vec::new(); WAYS.len()];
    for round in 0..options.rounds {
        for at in order(WAYS.len(), round) {
            figures[at].push(run(WAYS[at], &file, options.seconds)?);
        }
    }
    std::fs::remove_dir_all(directory.path())?;
    Ok(Ceiling { figures, version })
}

fn run(way: Way, file: &Path, seconds: f64) -> Result<Figures> {
    let output = Command::new("fio")
        .args(["--name=ceiling", "--rw=write", "--direct=1", "--ioengine=io_uring"])
        .args(["--time_based=1", "--overwrite=1", "--allow_file_create=0", "--output-format=json"])
        .args(["--refill_buffers=1", "--group_reporting=1", way.flag])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={SEGMENT_BYTES}"))
        .arg(format!("--bs={}", way.bytes))
        .arg(format!("--iodepth={}", way.depth))
        .arg(format!("--runtime={}ms", (seconds * 1000.0) as u64))
        .output()
        .context("fio is missing; install the package fio")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "fio: {text}{}", String::from_utf8_lossy(&output.stderr));
    parse(&text, way.flag == "--fdatasync=1").with_context(|| format!("fio said: {text}"))
}

/// A write is done when it is durable: where a flush is a call of its own, its time is added.
fn parse(json: &str, is_flushed: bool) -> Option<Figures> {
    let report: Value = serde_json::from_str(json.get(json.find('{')?..)?).ok()?;
    let job = report.get("jobs")?.get(0)?;
    let (write, sync) = (job.get("write")?, job.get("sync")?);
    let at = |of: &Value, lat: &str, quantile: &str| {
        of.get(lat)?.get("percentile")?.get(quantile)?.as_f64().map(|ns| ns / 1e3)
    };
    let total = |quantile: &str| {
        let flush = if is_flushed { at(sync, "lat_ns", quantile)? } else { 0.0 };
        Some(at(write, "clat_ns", quantile)? + flush)
    };
    let writes_per_s = write.get("iops")?.as_f64()?;
    Some(Figures { writes_per_s, p50_us: total("50.000000")?, p99_us: total("99.000000")? })
}

impl Ceiling {
    fn middle(&self, at: usize, value: impl Fn(&Figures) -> f64) -> f64 {
        median(self.figures[at].iter().map(value)).unwrap_or(f64::NAN)
    }

    /// A section of the record.
    pub(super) fn text(&self) -> String {
        let row = |(at, way): (usize, &Way)| {
            let writes = self.middle(at, |it| it.writes_per_s);
            vec![
                format!("{} KiB × {}", way.bytes >> 10, way.depth),
                way.name.into(),
                whole(writes),
                whole(self.middle(at, |it| it.p50_us)),
                whole(self.middle(at, |it| it.p99_us)),
                digits(Some(writes * way.bytes as f64 / 1e6), 0),
            ]
        };
        let rows: Vec<_> = WAYS.iter().enumerate().map(row).collect();
        let head = ["write × depth", "made durable by", "writes/s", "p50, µs", "p99, µs", "MB/s"];
        format!(
            "## What the device gives\n\n\
             {}, io_uring, O_DIRECT, over and over one file of {} MiB that was written before, as a segment is. \
             With fdatasync, percentiles are those of the write and of the flush, added.\n\n{}\n",
            self.version,
            SEGMENT_BYTES >> 20,
            table(&head, &rows)
        )
    }

    /// How far our single small writes are from it.
    pub(super) fn beside(&self, rows: &[Vec<String>]) -> String {
        let mut text = String::new();
        for (at, cell) in [(0, "1 × 1"), (1, "1 × 4")] {
            let ours = rows.iter().find(|row| {
                row[0] == "outrigger" && row[1] == "1000" && row[2] == "256" && row[3] == cell
            });
            let Some(ours) = ours else { continue };
            let number = |text: &str| text.replace(',', "").parse::<f64>().ok();
            let writes = self.middle(at, |it| it.writes_per_s);
            text.push_str(&format!(
                "- {cell}, 256 B, 1,000 groups: {} of fio's {} writes/s; p50 {} of its {} µs.\n",
                digits(number(&ours[4]).map(|it| it / writes), 2),
                whole(writes),
                digits(number(&ours[5]).map(|it| it / self.middle(at, |it| it.p50_us)), 2),
                whole(self.middle(at, |it| it.p50_us)),
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_and_a_flush_belongs_to_its_write() {
        let json = r#"note: something
            {"jobs": [{"write": {"iops": 1000.5, "clat_ns": {"percentile":
                {"50.000000": 80000, "99.000000": 200000}}},
              "sync": {"lat_ns": {"percentile": {"50.000000": 10000, "99.000000": 50000}}}}]}"#;
        let figures = |p50_us, p99_us| Some(Figures { writes_per_s: 1000.5, p50_us, p99_us });
        assert_eq!(parse(json, false), figures(80.0, 200.0));
        assert_eq!(parse(json, true), figures(90.0, 250.0));
        assert_eq!(parse("fio: no such file", false), None);
    }
}
