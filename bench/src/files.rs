//! The files that were asked for.

use crate::args::Plan;
use crate::measured::Results;
use crate::{charts, html, json, record, report};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes them all.
pub(crate) fn write(plan: &Plan, results: &Results) -> Result<(), String> {
    let failed =
        |flag: &str, path: &Path, error: io::Error| format!("{flag} {}: {error}", path.display());
    if let Some(path) = &plan.hgrm {
        percentiles(results, path).map_err(|error| failed("--hgrm", path, error))?;
    }
    if let Some(dir) = &plan.png {
        fs::create_dir_all(dir).map_err(|error| failed("--png", dir, error))?;
        for named in charts::of(results) {
            let path = dir.join(named.file).with_extension("png");
            let png = named.chart.png()?;
            fs::write(&path, png).map_err(|error| failed("--png", &path, error))?;
        }
    }
    if let Some(path) = &plan.html {
        let page = html::page(plan, results)?;
        fs::write(path, page).map_err(|error| failed("--html", path, error))?;
    }
    if let Some(path) = &plan.json {
        let text = format!("{:#}\n", json::of(plan, results));
        if path == Path::new("-") {
            let mut stdout = io::stdout();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        } else {
            fs::write(path, text)
        }
        .map_err(|error| failed("--json", path, error))?;
    }
    Ok(())
}

/// The latencies of all runs as HdrHistogram's percentile table.
fn percentiles(results: &Results, path: &Path) -> io::Result<()> {
    let mut all = record::Latencies::default();
    results.sides.iter().for_each(|side| all.add(&side.all_latencies()));
    let mut out = BufWriter::new(File::create(path)?);
    report::write_hgrm(&all.ns, &mut out).and_then(|()| out.flush())
}
