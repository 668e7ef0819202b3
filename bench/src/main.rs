//! The load generator: `cargo load -- --help`.
//!
//! ```text
//! args ──► Plan ──┬─► rounds: targets in turn ──┐
//! (sides: whom)   └─► sweep: rates in turn ─────┴─► run::once ──┬─► driver_epoll (conn; resp, zookeeper) ──┐
//!                         knee: which next                      └─► driver_etcd                            │
//!                                         keys, inserts, workload: what       schedule: when               │
//!                                                  procstat: what servers used      timeline, record ◄─────┘
//!                                                                                        │
//!     files: json, html, plots (charts, plot, font), hgrm  ◄── measured: Results ◄── report: Figures
//! ```
//!
//! `bench/README.md` says how to run it and how to read what it prints, `docs/benchmarking.md` how to measure
//! so that the numbers mean something.
#![allow(clippy::disallowed_methods, reason = "a load generator is a driver: it reads clocks")]

mod access;
mod args;
mod charts;
mod comparison;
mod conn;
mod contact;
mod drawing;
mod driver_epoll;
#[cfg(feature = "etcd")]
mod driver_etcd;
#[cfg(feature = "etcd")]
mod etcd_wire;
mod files;
mod font;
mod html;
mod inserts;
mod json;
mod keys;
mod knee;
mod measured;
mod origin;
mod plot;
mod printer;
mod procstat;
mod protocol;
mod record;
mod report;
mod resp;
mod rounds;
mod run;
mod schedule;
mod sides;
mod slots;
mod sweep;
mod timeline;
mod wire;
mod workload;
mod ycsb;
mod zookeeper;

use args::{Args, Plan};
use clap::Parser;
use measured::{Measured, Results};
use printer::Printer;
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

/// Performs the plan and reports. A failure here means there is nothing to report.
fn load(plan: &Plan) -> Result<ExitCode, String> {
    let stop = watch_signals()?;
    let stdout_is_taken =
        [&plan.json, &plan.hgrm].iter().any(|path| files::is_stdout(path.as_deref()));
    let printer = Printer { to_stderr: stdout_is_taken };
    files::probe(plan)?;
    let versions = contact::all(plan)?;
    plan.notes.iter().for_each(|note| printer.line(note));
    rounds::fill(plan, &stop, &printer)?;
    let (sides, sweeps) = if plan.sweep.is_some() {
        sweep::run(plan, &stop, &printer)?
    } else {
        (rounds::run(plan, &stop, &printer), Vec::new())
    };
    let results = Results { sides, sweeps, versions, interrupted: stop.load(Ordering::Relaxed) };
    if results.sweeps.len() > 1 {
        printer.line(&format!("\n{}", comparison::of_sweeps(&results.sweeps)));
    } else if results.sides.len() > 1 {
        printer.line(&format!("\n{}", comparison::table(&results.sides)));
    }
    if let Some(extent) = results.extent(plan) {
        printer.line(&extent);
    }
    let problems = files::write(plan, &results);
    problems.iter().for_each(|problem| eprintln!("load: {problem}"));
    let code = verdict(plan, &results);
    Ok(if results.interrupted {
        ExitCode::from(INTERRUPTED)
    } else if problems.is_empty() {
        code
    } else {
        ExitCode::FAILURE
    })
}

/// What a shell says of a program that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// Whether the results are what was asked for; says why, if they are not.
fn verdict(plan: &Plan, results: &Results) -> ExitCode {
    let errors: u64 = results.sides.iter().map(Measured::errors_count).sum();
    if errors > 0 && !plan.allow_errors {
        eprintln!("load: {errors} replies were errors (--allow-errors accepts them)");
        return ExitCode::FAILURE;
    }
    let unsent = |side: &&Measured| side.median().unsent_share() > report::UNSENT_SHARE_MAX;
    if let Some(side) = results.sides.iter().find(unsent)
        && !plan.allow_errors
        && !results.interrupted
    {
        eprintln!(
            "load: {}{:.1} % of what was due was never sent (--allow-errors accepts it)",
            whom(side),
            side.median().unsent_share() * 100.0
        );
        return ExitCode::FAILURE;
    }
    let mut silent =
        results.sides.iter().filter(|side| side.outcomes.iter().all(|o| o.record.ops == 0));
    if let Some(side) = silent.next() {
        eprintln!("load: {}nothing was answered inside the measured window", whom(side));
        return ExitCode::FAILURE;
    }
    if plan.sweep.is_some() && results.sides.len() < plan.sides.len() {
        eprintln!("load: not every target has a knee in the range that was swept");
        return ExitCode::FAILURE;
    }
    match plan.sides.iter().any(|side| results.ended(&side.name).is_some()) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

/// Which target is meant, if there are several.
fn whom(side: &Measured) -> String {
    if side.plan.name.is_empty() { String::new() } else { format!("{}: ", side.plan.name) }
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
