//! Compares whole systems end to end: `bench/compare.sh`, or `compare-systems --help`.
//!
//! ```text
//! suite: cells ──► per cell, per round, per system (who goes first changes):
//!                    systems: fresh directory, start, wait until it answers   (processes, peers)
//!                    measure: the load generator, a program of its own, fills, warms up, measures
//!                    stop, remove the directory
//!                  ──► results: medians, ratios of the rounds ──► record (Markdown) + plot (SVG)
//! ```
//!
//! The record is written anew after every cell: what an interrupted run measured is not lost.
#![allow(clippy::disallowed_methods, reason = "it starts programs and waits for them")]

#[path = "../../drawing.rs"]
mod drawing;
#[path = "../../font.rs"]
mod font;
mod machine;
mod measure;
mod peers;
mod plot;
mod processes;
mod record;
mod results;
mod suite;
mod systems;

use clap::Parser;
use measure::Lab;
use results::{Results, Row};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use suite::{Pace, Suite, System};

/// Compares Outrigger with etcd, ZooKeeper and Redis: same generator, keys, values, durability and
/// filesystem, in alternating rounds; writes a Markdown record and SVG plots beside it.
#[derive(Debug, Parser)]
#[command(name = "compare-systems", max_term_width = 100, args_override_self = true)]
struct Args {
    /// What to measure: quick, single, values, pipeline, mix, rates, all
    #[arg(value_name = "SUITE", default_value = "quick")]
    suites: Vec<String>,
    /// Compare these instead of the suite's own: outrigger, etcd, zookeeper, redis
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    systems: Vec<System>,
    /// Connection counts of `quick` and `single`
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,16,64,256")]
    connections: Vec<usize>,
    /// Rounds; the record has their medians
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u64,
    /// Seconds measured
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    duration: f64,
    /// Seconds before; Java compiles itself meanwhile
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    warmup: f64,
    /// Seed; round r uses seed + r − 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// First of forty ports
    #[arg(long, value_name = "PORT", default_value_t = 27_100)]
    port: u16,
    /// Where data goes, one filesystem for all [default: the folder of this program]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The server [default: beside this program]
    #[arg(long, value_name = "FILE")]
    outrigger: Option<PathBuf>,
    /// The load generator [default: beside this program]
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// One more argument for `outrigger up`; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    up_arg: Vec<String>,
    /// Where the record goes [default: bench/records/DATE-compare-SUITES.md]
    #[arg(long, value_name = "FILE.md")]
    record: Option<PathBuf>,
}

fn main() -> ExitCode {
    match compare(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("compare: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and records. `Ok(false)`: there is a record, and it says what is missing.
fn compare(args: Args) -> Result<bool, String> {
    if args.rounds == 0 || args.connections.contains(&0) {
        return Err("--rounds and --connections must be at least 1".into());
    }
    let mut suites = Vec::new();
    for name in &args.suites {
        suites.extend(suite::named(name, &args.connections)?);
    }
    if !args.systems.is_empty() {
        suites.iter_mut().for_each(|suite| suite.systems.clone_from(&args.systems));
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| format!("cannot handle signals: {error}"))?;
    }
    let mut systems: Vec<System> = suites.iter().flat_map(|suite| suite.systems.clone()).collect();
    systems.sort_unstable();
    systems.dedup();
    let date = machine::said("date", &["-u", "+%F"]).ok_or("there is no `date`")?;
    let record = args.record.clone().unwrap_or_else(|| {
        PathBuf::from(format!("bench/records/{date}-compare-{}.md", args.suites.join("-")))
    });
    let mut lab = Lab::new(&args, &systems, Arc::clone(&interrupted))?;
    let mut about = record::About {
        date,
        machine: machine::read(&lab.device),
        systems: systems.iter().map(|&system| (system, peers::version(system, &lab))).collect(),
        flush_method: None,
        rounds: args.rounds,
        duration_s: args.duration,
        warmup_s: args.warmup,
        seed: args.seed,
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
    };
    let count: usize = suites.iter().map(|s| s.cells.len() * s.systems.len()).sum();
    let runs = count as f64 * args.rounds as f64;
    eprintln!(
        "compare: {runs} measurements, about {:.0} minutes; record: {}",
        // Starting, filling and stopping take about as long as they take here.
        (runs * (args.warmup + args.duration + 5.5) / 60.0).ceil(),
        record.display()
    );
    let mut results = Results::default();
    let ended = measure_all(&args, &suites, &mut lab, &mut results, &mut |lab, results| {
        about.flush_method.clone_from(&lab.flush_method);
        record::write(&record, &about, &suites, results)
    });
    if let Err(problem) = &ended
        && results.rows.is_empty()
    {
        return Err(problem.clone());
    }
    if let Err(problem) = &ended {
        results.failures.push(problem.clone());
    }
    about.flush_method.clone_from(&lab.flush_method);
    record::write(&record, &about, &suites, &results)?;
    eprintln!("compare: the record is {}", record.display());
    for failure in &results.failures {
        eprintln!("compare: {failure}");
    }
    Ok(results.failures.is_empty())
}

type Keep<'a> = dyn FnMut(&Lab, &Results) -> Result<(), String> + 'a;

/// Every cell of every suite. A measurement that fails is noted and the next one begins.
fn measure_all(
    args: &Args,
    suites: &[Suite],
    lab: &mut Lab,
    results: &mut Results,
    keep: &mut Keep<'_>,
) -> Result<(), String> {
    for (at, suite) in suites.iter().enumerate() {
        for (cell_at, cell) in suite.cells.iter().enumerate() {
            // The system whose knee is the common rate has been measured at it: its own cell.
            let twin = results.lowest_knee(suite, at).and_then(|(system, _)| match cell.pace {
                Pace::OfLowest(percent) => {
                    let own = |c: &suite::Cell| c.pace == Pace::OfOwn(percent);
                    Some((system, suite.cells.iter().position(own)?))
                }
                Pace::Closed | Pace::OfOwn(_) => None,
            });
            for round in 0..args.rounds {
                let mut order = suite.systems.clone();
                // Who goes first changes, so that no one always follows the same neighbour.
                let first = round as usize % order.len();
                order.rotate_left(first);
                for system in order {
                    if lab.interrupted.load(Ordering::Relaxed) {
                        return Err("interrupted; the record holds what was measured".into());
                    }
                    if let Some((lowest, own_cell)) = twin
                        && lowest == system
                    {
                        results.copy((at, own_cell), (at, cell_at), system, round);
                        continue;
                    }
                    let rate_per_s = match cell.pace {
                        Pace::Closed => None,
                        Pace::OfOwn(percent) => {
                            results.knee(suite, at, system).map(|knee| knee * percent / 100.0)
                        }
                        Pace::OfLowest(percent) => {
                            results.lowest_knee(suite, at).map(|(_, knee)| knee * percent / 100.0)
                        }
                    };
                    let label = format!("{} · {} · {}", suite.name, cell.text(), system.name());
                    if cell.pace != Pace::Closed && rate_per_s.is_none() {
                        results.failures.push(format!("{label}: no knee was found"));
                        continue;
                    }
                    match lab.measure(system, cell, rate_per_s, args.seed + round) {
                        Ok(figures) => {
                            let row =
                                Row { cell: (at, cell_at), system, round, rate_per_s, figures };
                            eprintln!("compare: {label} · round {}: {}", round + 1, row.text());
                            results.rows.push(row);
                        }
                        Err(problem) => {
                            eprintln!("compare: {label} · round {}: {problem}", round + 1);
                            let first = problem.lines().next().unwrap_or_default();
                            results.failures.push(format!("{label}, round {}: {first}", round + 1));
                        }
                    }
                }
            }
            keep(lab, results)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        let args = Args::try_parse_from(["compare-systems", "--systems", "etcd,redis", "mix"]);
        let args = args.expect("these flags are fine");
        assert_eq!(args.systems, [System::Etcd, System::Redis]);
        assert_eq!(args.suites, ["mix"]);
        assert!(Args::try_parse_from(["compare-systems", "--systems", "consul"]).is_err());
    }

    #[test]
    fn an_unknown_suite_is_refused_before_anything_starts() {
        let args = Args::try_parse_from(["compare-systems", "slow"]).expect("it parses");
        let problem = compare(args).expect_err("there is no such suite");
        assert!(problem.contains("slow") && problem.contains("quick"), "{problem}");
    }
}
