//! `tool sim`: many worlds, one seed each; or one world, told line by line.
//!
//! ```text
//! tool sim --seeds 1000            seeds 0..1000, a summary, non-zero exit if one fails
//! tool sim --seed 42 --trace       the story of one seed
//! tool sim --seeds 200 --twice     every seed twice: equal trace hashes prove determinism
//! ```

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use outrigger::sim::{self, Options, Outcome};

/// Which worlds to run, and how.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run this one seed.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Run this many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// With --seed: print everything that happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run every seed twice and compare the trace hashes.
    #[arg(long)]
    twice: bool,
    /// Worlds that last: three nodes, 64 groups, a fault every few seconds; how much faster than
    /// real time they pass.
    #[arg(long)]
    speed: bool,
    /// Worlds at a time [default: one per core].
    #[arg(long)]
    jobs: Option<usize>,
}

/// Some seeds failed.
pub(crate) struct Failed(u64);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seeds failed", self.0)
    }
}

impl Arguments {
    /// The world of a seed.
    fn options(&self, seed: u64) -> Options {
        if self.speed { Options::lasting(seed) } else { Options::swarm(seed) }
    }
}

/// Seconds of processor time this thread has used; zero where nobody says.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|first| first.parse::<u64>().ok());
    nanos.unwrap_or(0) as f64 / 1e9
}

/// Runs what was asked for and prints a summary.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failed> {
    if let (Some(seed), true) = (arguments.seed, arguments.trace) {
        return match sim::narrate(seed, &arguments.options(seed)) {
            Ok(outcome) => {
                println!("{outcome:#?}");
                Ok(())
            }
            Err(failure) => {
                eprintln!("{failure}");
                Err(Failed(1))
            }
        };
    }
    let (from, count) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from, arguments.seeds),
    };
    let jobs = arguments
        .jobs
        .or_else(|| std::thread::available_parallelism().ok().map(Into::into))
        .unwrap_or(1)
        .clamp(1, 256);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let totals = Mutex::new(Totals::default());
    #[expect(
        clippy::disallowed_methods,
        reason = "measures the simulator; nothing in it sees this"
    )]
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        let mut totals =
                            totals.lock().expect("no thread panics while it holds this");
                        totals.processor += processor_seconds();
                        return;
                    }
                    let seed = from + at;
                    let result = one(seed, &arguments.options(seed), arguments.twice);
                    totals.lock().expect("no thread panics while it holds this").add(result);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if io::stderr().is_terminal() && done.is_multiple_of(10) {
                        eprint!("\r{done} of {count} seeds ");
                        let _ = io::stderr().flush();
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().expect("no thread panicked");
    totals.print(from, count, arguments.twice, started.elapsed().as_secs_f64());
    if totals.failed == 0 { Ok(()) } else { Err(Failed(totals.failed)) }
}

/// One seed, in which a panic is a failure like any other.
fn one(seed: u64, options: &Options, twice: bool) -> Result<Outcome, String> {
    let attempt = || {
        catch_unwind(AssertUnwindSafe(|| sim::run(seed, options)))
            .unwrap_or_else(|_| {
                let what = "the code under test panicked, see above".to_owned();
                Err(Box::new(sim::Failure { seed, what, story: Vec::new() }))
            })
            .map_err(|failure| failure.to_string())
    };
    let outcome = attempt()?;
    if twice && attempt()? != outcome {
        return Err(format!("seed {seed}: two runs differ: the simulator is not deterministic"));
    }
    Ok(outcome)
}

#[derive(Default)]
struct Totals {
    failed: u64,
    hash: u64,
    faults: Vec<(&'static str, u64)>,
    faults_total: u64,
    acked: u64,
    writes_acked: u64,
    refused: u64,
    unknown: u64,
    retried: u64,
    operations: u64,
    operations_refused: u64,
    checked: u64,
    unchecked_keys: u64,
    committed: u64,
    elections: u64,
    frames: u64,
    writes: u64,
    log_reads: u64,
    reclaimed: u64,
    installed: u64,
    turns: u64,
    virtual_ms: u64,
    healed_after: u64,
    /// Seconds of processor time.
    processor: f64,
}

impl Totals {
    fn add(&mut self, result: Result<Outcome, String>) {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(story) => {
                self.failed += 1;
                println!("{story}\n");
                return;
            }
        };
        // Threads finish in any order; a sum does not mind.
        self.hash = self.hash.wrapping_add(outcome.trace_hash);
        let kinds = outcome.faults.by_kind();
        if self.faults.is_empty() {
            self.faults = kinds.iter().map(|&(name, _)| (name, 0)).collect();
        }
        for (total, (_, count)) in self.faults.iter_mut().zip(kinds) {
            total.1 += count;
        }
        self.faults_total += outcome.faults.total();
        self.acked += outcome.acked;
        self.writes_acked += outcome.writes_acked;
        self.refused += outcome.refused;
        self.unknown += outcome.unknown;
        self.retried += outcome.retried;
        self.operations += outcome.operations;
        self.operations_refused += outcome.operations_refused;
        self.checked += outcome.checked;
        self.unchecked_keys += outcome.unchecked_keys;
        self.committed += outcome.committed;
        self.elections += outcome.elections;
        self.frames += outcome.frames;
        self.writes += outcome.writes;
        self.log_reads += outcome.log_reads;
        self.reclaimed += outcome.reclaimed;
        self.installed += outcome.installed;
        self.turns += outcome.turns;
        self.virtual_ms += outcome.virtual_ms;
        self.healed_after = self.healed_after.max(outcome.healed_after);
    }

    fn print(&self, from: u64, count: u64, twice: bool, seconds: f64) {
        let simulated = self.virtual_ms as f64 / 1_000.0;
        let repeated = if twice { ", each run twice with the same trace" } else { "" };
        println!("{count} seeds from {from}{repeated}: {} failed", self.failed);
        println!(
            "  simulated {simulated:.0} s in {seconds:.1} s; {} turns, {} frames, {} log writes, {} reads of sealed segments",
            self.turns, self.frames, self.writes, self.log_reads
        );
        println!(
            "  speed     {:.0} simulated seconds per second of one core ({:.1} s of processor time); {:.1} writes and {:.2} faults per simulated second",
            simulated / self.processor.max(1e-9),
            self.processor,
            self.writes_acked as f64 / simulated,
            self.faults_total as f64 / simulated,
        );
        println!(
            "  commands  {} acknowledged, {} refused, {} of unknown outcome; {} entries committed, {} elections",
            self.acked, self.refused, self.unknown, self.committed, self.elections
        );
        println!(
            "  logs      {} segments reclaimed, {} snapshots installed",
            self.reclaimed, self.installed
        );
        println!(
            "  members   {} changes and handovers made, {} refused or unheard of",
            self.operations, self.operations_refused
        );
        println!("  sessions  {} requests answered after more than one attempt", self.retried);
        println!(
            "  checked   {} operations linearizable, {} keys too tangled to check",
            self.checked, self.unchecked_keys
        );
        println!("  healed    within {} election timeouts at worst", self.healed_after);
        println!("  faults    {} and single frames:", self.faults_total);
        for (name, count) in &self.faults {
            println!("    {count:>9} {name}");
        }
        println!("  hash      {:016x}", self.hash);
    }
}
