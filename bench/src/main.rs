//! The load generator: `cargo load -- --help`.
//!
//! ```text
//! args ──► Plan ──► run::once ──┬─► driver_epoll (conn; resp, zookeeper) ──┐
//!                   (× --runs)  └─► driver_etcd                            ├─► Record ──► report
//!                                     keys, workload: what                 │
//!                                     schedule:       when ────────────────┘   procstat: what servers used
//! ```
//!
//! `bench/README.md` says how to run it and how to read what it prints.
#![allow(clippy::disallowed_methods, reason = "a load generator is a driver: it reads clocks")]

mod args;
mod conn;
mod driver_epoll;
#[cfg(feature = "etcd")]
mod driver_etcd;
#[cfg(feature = "etcd")]
mod etcd_wire;
mod html;
mod keys;
mod procstat;
mod protocol;
mod record;
mod report;
mod resp;
mod run;
mod schedule;
mod workload;
mod ycsb;
mod zookeeper;

use args::{Args, Plan};
use clap::Parser;
use report::Figures;
use run::Outcome;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn main() -> ExitCode {
    match Args::parse().plan().and_then(|plan| load(&plan)) {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("load: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the plan and reports. A failure here means there is nothing to report.
fn load(plan: &Plan) -> Result<ExitCode, String> {
    let stop = watch_signals()?;
    let mut printer = Printer { to_stderr: plan.json.as_deref() == Some(Path::new("-")) };
    if plan.fill {
        let filled = run::once(&plan.filling(), run::FILLING, &stop)?;
        printer.line(&format!("filled   {} keys in {:.1} s", filled.record.ops, filled.window_s));
        if filled.record.errors_count() > 0 && !plan.allow_errors {
            print_errors(&filled);
            return Err("filling was answered with errors".into());
        }
    }
    let (mut outcomes, mut figures) = (Vec::new(), Vec::new());
    for run in 0..plan.runs {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let outcome = run::once(plan, run, &stop)?;
        let figures_of_run = Figures::new(&outcome, plan);
        printer.line(&figures_of_run.text(&format!("run {}", run + 1)));
        print_errors(&outcome);
        outcomes.push(outcome);
        figures.push(figures_of_run);
    }
    if outcomes.len() > 1 {
        printer.line(&Figures::median(&figures).text("median"));
    }
    if stop.load(Ordering::Relaxed) {
        eprintln!("load: interrupted; the numbers are of what was measured until then");
    }
    write_files(plan, &outcomes, &figures)?;
    let errors: u64 = outcomes.iter().map(|outcome| outcome.record.errors_count()).sum();
    if errors > 0 && !plan.allow_errors {
        eprintln!("load: {errors} replies were errors (--allow-errors accepts them)");
        return Ok(ExitCode::FAILURE);
    }
    if outcomes.iter().all(|outcome| outcome.record.ops == 0) {
        eprintln!("load: nothing was answered inside the measured window");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The first Ctrl-C or SIGTERM ends the run and prints; a second one ends the program.
fn watch_signals() -> Result<Arc<AtomicBool>, String> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the shutdown looks at the flag before the second line sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| format!("cannot handle signals: {error}"))?;
    }
    Ok(stop)
}

/// Where the text goes: standard output, unless the JSON has it.
struct Printer {
    to_stderr: bool,
}

impl Printer {
    fn line(&mut self, text: &str) {
        // A closed pipe is no reason to lose the files still to be written.
        let _ = if self.to_stderr {
            writeln!(std::io::stderr(), "{text}")
        } else {
            writeln!(std::io::stdout(), "{text}")
        };
    }
}

fn print_errors(outcome: &Outcome) {
    for (token, count) in &outcome.record.errors {
        eprintln!("           {count} × {token}");
    }
    for text in &outcome.record.error_texts {
        eprintln!("           e.g. {text}");
    }
    if let Some(problem) = &outcome.usage_problem {
        eprintln!("           server figures are missing: {problem}");
    }
}

fn write_files(plan: &Plan, outcomes: &[Outcome], figures: &[Figures]) -> Result<(), String> {
    if let Some(path) = &plan.hgrm {
        let mut all = record::histogram();
        for outcome in outcomes {
            all.add(outcome.record.all()).expect("all histograms have the same bounds");
        }
        File::create(path)
            .and_then(|file| {
                let mut out = BufWriter::new(file);
                report::write_hgrm(&all, &mut out).and_then(|()| out.flush())
            })
            .map_err(|error| format!("--hgrm {}: {error}", path.display()))?;
    }
    if let Some(path) = &plan.html {
        let page = html::page(plan, outcomes, figures)?;
        std::fs::write(path, page)
            .map_err(|error| format!("--html {}: {error}", path.display()))?;
    }
    if let Some(path) = &plan.json {
        let text = format!("{:#}\n", report::json(plan, outcomes, figures));
        if path == Path::new("-") {
            let mut stdout = std::io::stdout();
            stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
        } else {
            std::fs::write(path, text)
        }
        .map_err(|error| format!("--json {}: {error}", path.display()))?;
    }
    Ok(())
}
