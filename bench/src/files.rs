//! The files that were asked for: looked at before anything is measured, written when it has been.

use crate::args::Plan;
use crate::measured::Results;
use crate::{charts, html, json, record, report};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Whether a file is standard output.
pub(crate) fn is_stdout(path: Option<&Path>) -> bool {
    path == Some(Path::new("-"))
}

/// Sees that every file can be written: after an hour of measuring it would be too late to learn. Leaves nothing behind
/// but the directory of `--png`.
pub(crate) fn probe(plan: &Plan) -> Result<(), String> {
    for (flag, path) in [("--hgrm", &plan.hgrm), ("--html", &plan.html), ("--json", &plan.json)] {
        if let Some(path) = path.as_deref().filter(|path| !is_stdout(Some(path))) {
            writable(path).map_err(|error| failed(flag, path, &error))?;
        }
    }
    if let Some(dir) = &plan.png {
        fs::create_dir_all(dir)
            .and_then(|()| writable(&dir.join(format!(".load-{}", std::process::id()))))
            .map_err(|error| failed("--png", dir, &error))?;
    }
    Ok(())
}

/// Opens a file to write, without changing what is there.
fn writable(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    OpenOptions::new().append(true).create(true).open(path)?;
    if is_new { fs::remove_file(path) } else { Ok(()) }
}

/// Writes them all, every one whatever became of the others; what went wrong.
pub(crate) fn write(plan: &Plan, results: &Results) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |result: Result<(), String>| problems.extend(result.err());
    if let Some(path) = &plan.json {
        let text = format!("{:#}\n", json::of(plan, results));
        note(put(path, text.as_bytes()).map_err(|error| failed("--json", path, &error)));
    }
    if let Some(path) = &plan.hgrm {
        note(percentiles(results, path).map_err(|error| failed("--hgrm", path, &error)));
    }
    if let Some(path) = &plan.html {
        let page = html::page(plan, results);
        note(page.and_then(|page| {
            fs::write(path, page).map_err(|error| failed("--html", path, &error))
        }));
    }
    if let Some(dir) = &plan.png {
        note(fs::create_dir_all(dir).map_err(|error| failed("--png", dir, &error)));
        for named in charts::of(results) {
            let path = dir.join(named.file).with_extension("png");
            note(named.chart.png().and_then(|png| {
                fs::write(&path, png).map_err(|error| failed("--png", &path, &error))
            }));
        }
    }
    problems
}

fn failed(flag: &str, path: &Path, error: &io::Error) -> String {
    format!("{flag} {}: {error}", path.display())
}

/// Into a file, or to standard output.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if is_stdout(Some(path)) {
        let mut stdout = io::stdout();
        return stdout.write_all(bytes).and_then(|()| stdout.flush());
    }
    fs::write(path, bytes)
}

/// The latencies of all runs as HdrHistogram's percentile table.
fn percentiles(results: &Results, path: &Path) -> io::Result<()> {
    let mut all = record::Latencies::default();
    results.sides.iter().for_each(|side| all.add(&side.all_latencies()));
    let mut out: Box<dyn Write> = match is_stdout(Some(path)) {
        true => Box::new(io::stdout()),
        false => Box::new(BufWriter::new(File::create(path)?)),
    };
    report::write_hgrm(&all.ns, &mut out).and_then(|()| out.flush())
}
