//! `tool sim`: many worlds, one seed each; or one world, told line by line.
//!
//! ```text
//! tool sim --seeds 1000            seeds 0..1000, a summary, non-zero exit if one fails
//! tool sim --seed 42 --trace       the story of one seed
//! tool sim --seeds 200 --twice     every seed twice: equal trace hashes prove determinism
//! tool sim --speed --seeds 16      worlds that last: how much faster than real time they pass
//! tool sim --seeds 100 --chaos-ms 1440000
//!                                  24 simulated minutes a seed, with a fault every few seconds
//! tool sim --seed 42 --only net.drop,nodes.crash --chaos-ms 900 --strikes 3,7
//!                                  a world with only these of its faults, as the minimiser prints it
//! ```
//!
//! Of the first seeds that fail, smaller worlds that fail in the same way are sought and printed.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use outrigger::sim::knobs::ALL as KNOBS;
use outrigger::sim::{self, CrashPoint, Failure, Options, Outcome};

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
    /// Fail if fewer faults were injected, single frames not counted.
    #[arg(long, default_value_t = 0)]
    min_faults: u64,
    /// Print failures as they are, without looking for smaller worlds that fail.
    #[arg(long)]
    no_minimise: bool,
    /// Of what the world has, leave only this; a name that does not exist is answered with all of
    /// them.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Option<Vec<String>>,
    /// Of the faults with numbers, only these strike.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    strikes: Option<Vec<String>>,
    /// How long faults last, in virtual milliseconds. A minute and more is told in slow motion.
    #[arg(long, value_name = "MS")]
    chaos_ms: Option<u64>,
    /// Worlds in slow motion: what strikes or lasts does so twenty times more slowly.
    #[arg(long, conflicts_with = "speed")]
    slowed: bool,
    /// How many clients there are.
    #[arg(long, value_name = "COUNT")]
    clients: Option<usize>,
    /// How many groups there are.
    #[arg(long, value_name = "COUNT")]
    groups: Option<u64>,
    /// Worlds at a time [default: one per core].
    #[arg(long)]
    jobs: Option<usize>,
}

/// Why there is no good end.
pub(crate) enum Failed {
    /// So many seeds failed.
    Seeds(u64),
    /// Fewer faults were injected than were asked for.
    Faults(u64, u64),
    /// Nothing can be run.
    Argument(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seeds(count) => write!(f, "{count} seeds failed"),
            Self::Faults(count, asked) => write!(f, "only {count} faults of {asked} were injected"),
            Self::Argument(what) => f.write_str(what),
        }
    }
}

/// Faults that last for so long strike in slow motion, in virtual milliseconds:
const SLOWED_FROM_MS: u64 = 60_000;
/// so many times more slowly.
const SLOWED_TIMES: u64 = 20;
/// Failing seeds that are minimised; more would say the same again.
const MINIMISED_MAX: usize = 3;
/// Runs that a minimised world may take,
const RUNS_MAX: u32 = 300;
/// and seconds.
const SECONDS_MAX: u64 = 30;

impl Arguments {
    /// The world of a seed.
    fn options(&self, seed: u64) -> Options {
        let mut options = if self.speed { Options::lasting(seed) } else { Options::swarm(seed) };
        if self.is_slowed() {
            options = options.slowed(SLOWED_TIMES);
        }
        if let Some(names) = &self.only {
            let names = names.iter().map(String::as_str).filter(|name| *name != "nothing");
            options = options.only(&names.collect::<Vec<_>>()).expect("names were checked");
        }
        options.chaos_ms = self.chaos_ms.unwrap_or(options.chaos_ms);
        options.clients = self.clients.unwrap_or(options.clients);
        options.groups = self.groups.unwrap_or(options.groups);
        options.strikes = self.strikes.as_ref().map(|numbers| {
            let numbers = numbers.iter().filter(|number| *number != "none");
            numbers.map(|number| number.parse().expect("numbers were checked")).collect()
        });
        options
    }

    /// Whether worlds are in slow motion.
    fn is_slowed(&self) -> bool {
        let lasts = self.chaos_ms.is_some_and(|ms| SLOWED_FROM_MS <= ms);
        self.slowed || lasts && !self.speed
    }

    /// The flags that make a world what it is beside its seed, to be put behind a command that replays it; those that
    /// `said` has are not said again.
    fn given(&self, said: &str) -> String {
        let list =
            |names: &Option<Vec<String>>| names.as_ref().map(|it| format!(" {}", it.join(",")));
        let flag = |is_given: bool| is_given.then(String::new);
        let flags = [
            ("--speed", flag(self.speed)),
            ("--slowed", flag(self.is_slowed())),
            ("--only", list(&self.only)),
            ("--chaos-ms", self.chaos_ms.map(|ms| format!(" {ms}"))),
            ("--clients", self.clients.map(|count| format!(" {count}"))),
            ("--groups", self.groups.map(|count| format!(" {count}"))),
            ("--strikes", list(&self.strikes)),
        ];
        let given = flags.into_iter().filter(|(name, _)| said.split(' ').all(|word| word != *name));
        given.filter_map(|(name, value)| Some(format!(" {name}{}", value?))).collect()
    }

    /// Whether everything that is named exists.
    fn check(&self) -> Result<(), Failed> {
        for name in self.only.iter().flatten() {
            if name != "nothing" && KNOBS.iter().all(|knob| knob.name != name) {
                let names: Vec<_> = KNOBS.iter().map(|knob| knob.name).collect();
                return Err(Failed::Argument(format!(
                    "no world has {name}; there are: {}",
                    names.join(", ")
                )));
            }
        }
        for number in self.strikes.iter().flatten() {
            if number != "none" && number.parse::<u64>().is_err() {
                return Err(Failed::Argument(format!("{number} is not the number of a fault")));
            }
        }
        Ok(())
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
    arguments.check()?;
    if let (Some(seed), true) = (arguments.seed, arguments.trace) {
        return match sim::narrate(seed, &arguments.options(seed)) {
            Ok(outcome) => {
                println!("{outcome:#?}");
                Ok(())
            }
            Err(failure) => {
                eprintln!("{failure}{}", arguments.given(""));
                Err(Failed::Seeds(1))
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
    let given = arguments.given("");
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
                    totals
                        .lock()
                        .expect("no thread panics while it holds this")
                        .add(seed, result, &given);
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
    if !arguments.no_minimise {
        // The panics of worlds that are tried again have been seen.
        std::panic::set_hook(Box::new(|_| {}));
        for failure in totals.failures.iter().take(MINIMISED_MAX) {
            minimise(arguments, failure);
        }
    }
    if totals.failed > 0 {
        return Err(Failed::Seeds(totals.failed));
    }
    if totals.faults_total < arguments.min_faults {
        return Err(Failed::Faults(totals.faults_total, arguments.min_faults));
    }
    Ok(())
}

/// Looks for a smaller world that fails as this one did, and prints it.
fn minimise(arguments: &Arguments, failure: &Failure) {
    #[expect(clippy::disallowed_methods, reason = "bounds how long a person waits")]
    let started = Instant::now();
    let mut runs = 0;
    let minimal = sim::minimise::minimise(&arguments.options(failure.seed), failure, |options| {
        runs += 1;
        if RUNS_MAX < runs || SECONDS_MAX < started.elapsed().as_secs() {
            return None;
        }
        sim::try_once(failure.seed, options).err().map(|failure| *failure)
    });
    println!("\n{minimal}{}", arguments.given(&minimal.arguments()));
}

/// One seed, or the same seed twice.
fn one(seed: u64, options: &Options, twice: bool) -> Result<Outcome, Box<Failure>> {
    let outcome = sim::run(seed, options)?;
    if twice && sim::run(seed, options)? != outcome {
        let what = "two runs differ: the simulator is not deterministic".to_owned();
        return Err(Box::new(Failure { seed, what, story: Vec::new(), strikes: Vec::new() }));
    }
    Ok(outcome)
}

#[derive(Default)]
struct Totals {
    failed: u64,
    failures: Vec<Failure>,
    /// Crashes at each named point.
    points: Vec<u64>,
    /// Worlds in which members or leaders changed on command.
    churned: u64,
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
    answers_checked: u64,
    audits: u64,
    replaced: u64,
    starts_refused: u64,
    unchecked_keys: u64,
    committed: u64,
    elections: u64,
    frames: u64,
    writes: u64,
    log_reads: u64,
    reclaimed: u64,
    recycled: u64,
    losses: u64,
    halts: u64,
    /// The worlds in which a group stood still.
    halted: Vec<u64>,
    installed: u64,
    turns: u64,
    virtual_ms: u64,
    healed_after: u64,
    healed_hurt: u64,
    /// Seconds of processor time.
    processor: f64,
}

impl Totals {
    fn add(&mut self, seed: u64, result: Result<Outcome, Box<Failure>>, given: &str) {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(failure) => {
                self.failed += 1;
                println!("{failure}{given}\n");
                self.failures.push(*failure);
                return;
            }
        };
        if self.points.is_empty() {
            self.points = vec![0; outcome.crash_points.len()];
        }
        for (total, count) in self.points.iter_mut().zip(outcome.crash_points) {
            *total += count;
        }
        self.churned += u64::from(outcome.operations > 0);
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
        self.answers_checked += outcome.answers_checked;
        self.replaced += outcome.replaced;
        self.starts_refused += outcome.starts_refused;
        self.audits += outcome.audits;
        self.unchecked_keys += outcome.unchecked_keys;
        self.committed += outcome.committed;
        self.elections += outcome.elections;
        self.frames += outcome.frames;
        self.writes += outcome.writes;
        self.log_reads += outcome.log_reads;
        self.reclaimed += outcome.reclaimed;
        self.recycled += outcome.recycled;
        self.losses += outcome.losses;
        self.halts += outcome.halts;
        if outcome.halts > 0 {
            self.halted.push(seed);
        }
        self.installed += outcome.installed;
        self.turns += outcome.turns;
        self.virtual_ms += outcome.virtual_ms;
        self.healed_after = self.healed_after.max(outcome.healed_after);
        self.healed_hurt = self.healed_hurt.max(outcome.healed_hurt);
    }

    fn print(&self, from: u64, count: u64, twice: bool, seconds: f64) {
        let simulated = self.virtual_ms as f64 / 1_000.0;
        let repeated = if twice { ", each run twice with the same trace" } else { "" };
        println!("{count} seeds from {from}{repeated}: {} failed", self.failed);
        println!(
            "  total     {:.2} simulated hours, {} acknowledged operations checked, {} faults; {}",
            simulated / 3_600.0,
            self.answers_checked,
            self.faults_total,
            if self.failed == 0 { "lost 0, stale 0, executed twice 0" } else { "see above" },
        );
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
            "  logs      {} segments reclaimed, {} recycled, {} snapshots installed, {} losses made good",
            self.reclaimed, self.recycled, self.installed, self.losses
        );
        println!(
            "  halted    {} groups without a whole majority, of which members are gone that may know the rest, in worlds {:?}",
            self.halts, self.halted
        );
        println!(
            "  members   {} changes and handovers made in {} worlds, {} refused or unheard of",
            self.operations, self.churned, self.operations_refused
        );
        println!(
            "  disks     {} nodes replaced in every group after theirs was emptied, {} starts refused",
            self.replaced, self.starts_refused
        );
        println!("  sessions  {} requests answered after more than one attempt", self.retried);
        println!(
            "  checked   {} operations linearizable, {} keys too tangled to check, {} disks audited",
            self.checked, self.unchecked_keys, self.audits
        );
        println!(
            "  healed    within {} election timeouts at worst, {} where all disks were damaged at once",
            self.healed_after, self.healed_hurt
        );
        println!(
            "  faults    {} with a number, by kind (one may count as several):",
            self.faults_total
        );
        for (name, count) in &self.faults {
            println!("    {count:>9} {name}");
        }
        println!("  points    crashes at each:");
        for (point, count) in CrashPoint::ALL.iter().zip(&self.points) {
            println!("    {count:>9} {point:?}");
        }
        println!("  hash      {:016x}", self.hash);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Asked {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn given(flags: &str, said: &str) -> String {
        let words = std::iter::once("sim").chain(flags.split_whitespace());
        Asked::parse_from(words).arguments.given(said)
    }

    #[test]
    fn what_replays_a_world_has_every_flag_that_made_it() {
        assert_eq!(given("--seeds 9 --from 3 --twice --jobs 1 --no-minimise", ""), "");
        let all = " --slowed --only disk.hang,nodes.crash --chaos-ms 9 --clients 2 --groups 3 --strikes 0,4";
        assert_eq!(given(all, ""), all);
        assert_eq!(given("--speed --chaos-ms 90000", ""), " --speed --chaos-ms 90000");
        assert_eq!(given("--chaos-ms 90000", ""), " --slowed --chaos-ms 90000");
        // A smaller world says some of them itself.
        let said = "--seed 7 --only nothing --chaos-ms 5 --strikes none";
        assert_eq!(given(all, said), " --slowed --clients 2 --groups 3");
    }
}
