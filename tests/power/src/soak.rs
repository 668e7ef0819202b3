//! An hour of everything: mixed faults under load, in rounds, and a node that lives through all of them must not grow.
//!
//! Node 1 is never killed; it is paused, and its disk stalls and slows down. After every round, when all was checked,
//! everything is deleted, so that what is left in its memory is its own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use tools::rounds::cluster::{now, pause};

use crate::cuts::{FLAGS, slow_down};
use crate::disk::{Faults, Mode};
use crate::machine::{Failed, stopped};
use crate::rig::{Common, Rig, Shelf};
use crate::totals::Totals;

/// The node that lives through all of it.
const SURVIVOR: u8 = 1;
/// Faults of one round.
const STRIKES: u32 = 3;
/// How long everything may take to be deleted.
const GIVE_UP: Duration = Duration::from_secs(20);
/// A connection more or less is no growth.
const DESCRIPTORS_MORE_MAX: u64 = 4;
/// By so many parts of a hundred the memory of the survivor may grow from the second quarter of the run to the last.
const GROWS_PERCENT_MAX: u64 = 10;

/// How long.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Minutes.
    #[arg(long, default_value_t = 60)]
    pub(crate) minutes: u64,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What may happen to a node.
#[derive(Debug, Clone, Copy)]
enum Strike {
    Pause,
    Stall,
    Slow,
    Kill,
    Cut,
}

/// What the survivor held after a round.
#[derive(Debug, Clone, Copy)]
struct Held {
    minute: f64,
    memory_kib: u64,
    descriptors: u64,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { minutes, common } = arguments;
    println!("seed {seed}; again: cargo power soak --minutes {minutes} {}", common.replay(seed));
    let mut random = Rng::with_seed(seed);
    let plan = common.plan(3, &FLAGS)?;
    let mut totals = Totals::new("soak");
    let mut shelf = Shelf::new(&plan)?;
    let mut rig = Rig::fresh(&plan, Some(&mut shelf), common.writers, random.fork(), &mut totals)?;
    let (started, mut held, mut rounds) = (now(), Vec::new(), 0);
    while started.elapsed() < Duration::from_secs(60 * minutes) && !totals.is_broken() {
        rounds += 1;
        round(&mut rig, rounds, &mut totals)?;
        rig.delete_all(GIVE_UP)?;
        rig.fresh_ledgers(common.writers, rounds);
        let minute = started.elapsed().as_secs_f64() / 60.0;
        held.push(of_process(rig.cluster.pid(SURVIVOR).expect("it is never killed"), minute)?);
        if rounds % 20 == 0 {
            println!("soak: {minute:.1} of {minutes} minutes, {:?}", held[held.len() - 1]);
        }
    }
    drop(rig);
    shelf.tell(&mut totals);
    let grown = Grown::of(&held);
    totals.missed.extend(grown.missed());
    totals.close(&format!("rounds={rounds} {grown}"))
}

fn round(rig: &mut Rig<'_>, round: u32, totals: &mut Totals) -> Result<(), Failed> {
    let what = format!("round {round}");
    slow_down(rig);
    rig.under_load(|rig| {
        for _ in 0..STRIKES {
            pause(Duration::from_millis(rig.random.u64(50..1_000)));
            rig.cluster.all_run()?;
            strike(rig, &what, totals)?;
            totals.faults += 1;
        }
        pause(Duration::from_millis(rig.random.u64(50..500)));
        Ok(())
    })?;
    rig.devices.iter().for_each(|device| device.disk.set(|faults| *faults = Faults::default()));
    rig.ready(totals)?;
    rig.check(&what, totals)
}

fn strike(rig: &mut Rig<'_>, what: &str, totals: &mut Totals) -> Result<(), Failed> {
    let strikes = [Strike::Pause, Strike::Stall, Strike::Slow, Strike::Kill, Strike::Cut];
    let strike = strikes[rig.random.usize(..strikes.len())];
    let ends = matches!(strike, Strike::Kill | Strike::Cut);
    let id = rig.random.u8(if ends { SURVIVOR + 1 } else { SURVIVOR }..=rig.plan.nodes);
    let lasts = Duration::from_millis(rig.random.u64(50..2_500));
    match strike {
        Strike::Pause => {
            rig.stand_still(id, lasts)?;
        }
        Strike::Stall => {
            rig.device(id).disk.set(|faults| faults.stalled = true);
            pause(lasts);
            rig.device(id).disk.set(|faults| faults.stalled = false);
        }
        Strike::Slow => {
            rig.device(id).disk.set(|faults| faults.gap = Duration::from_millis(50));
            pause(lasts);
            rig.device(id).disk.set(|faults| faults.gap = Duration::ZERO);
        }
        Strike::Kill => {
            rig.kill(&[id])?;
            pause(lasts / 2);
            rig.start(id, what)?;
        }
        Strike::Cut => {
            let mode = Mode::any(&mut rig.random);
            rig.cut(&[id], mode, totals)?;
            pause(lasts / 2);
            rig.start(id, what)?;
        }
    }
    Ok(())
}

/// What a process holds now.
fn of_process(pid: u32, minute: f64) -> Result<Held, Failed> {
    let folder = Path::new("/proc").join(pid.to_string());
    let failed = |error| stopped("what a node holds", error);
    let status = fs::read_to_string(folder.join("status")).map_err(failed)?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory_kib = resident.and_then(|text| text.trim().split(' ').next()?.parse().ok());
    let memory_kib = memory_kib.ok_or_else(|| Failed::Stopped("no VmRSS in status".into()))?;
    let descriptors = fs::read_dir(folder.join("fd")).map_err(failed)?.count() as u64;
    Ok(Held { minute, memory_kib, descriptors })
}

/// The quarters of a run, in medians; the first is warming up.
#[derive(Debug, PartialEq)]
struct Grown {
    memory_kib: [u64; 4],
    descriptors: [u64; 4],
    /// Of the lines of least squares through the second half of the run and through its last quarter: what warms up
    /// rises ever more slowly, what leaks does not.
    kib_per_minute: (f64, f64),
}

impl Grown {
    fn of(held: &[Held]) -> Self {
        let count = held.len();
        let quarter = |at: usize| &held[at * count / 4..(at + 1) * count / 4];
        let median = |of: fn(&Held) -> u64| {
            [0, 1, 2, 3].map(|at| {
                let mut values: Vec<u64> = quarter(at).iter().map(of).collect();
                values.sort_unstable();
                values.get(values.len() / 2).copied().unwrap_or_default()
            })
        };
        Self {
            memory_kib: median(|held| held.memory_kib),
            descriptors: median(|held| held.descriptors),
            kib_per_minute: (slope(&held[count / 2..]), slope(quarter(3))),
        }
    }

    fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        let [_, early, _, late] = self.memory_kib;
        if early * (100 + GROWS_PERCENT_MAX) < late * 100 {
            missed.push(format!("the survivor's memory grew from {early} to {late} KiB"));
        }
        let [_, early, _, late] = self.descriptors;
        if early + DESCRIPTORS_MORE_MAX < late {
            missed.push(format!("the survivor's open files grew from {early} to {late}"));
        }
        missed
    }
}

impl std::fmt::Display for Grown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { memory_kib, descriptors, kib_per_minute: (half, quarter) } = self;
        let list = |of: &[u64; 4]| of.map(|it| it.to_string()).join(",");
        write!(
            f,
            "survivor_rss_kib={} rss_kib_per_minute={half:.1},{quarter:.1} survivor_fds={}",
            list(memory_kib),
            list(descriptors)
        )
    }
}

/// KiB a minute, by least squares.
fn slope(held: &[Held]) -> f64 {
    let count = held.len() as f64;
    let mean = |of: fn(&Held) -> f64| held.iter().map(of).sum::<f64>() / count;
    let (minute, memory) = (mean(|it| it.minute), mean(|it| it.memory_kib as f64));
    let products = |it: &Held| (it.minute - minute) * (it.memory_kib as f64 - memory);
    let squares: f64 = held.iter().map(|it| (it.minute - minute).powi(2)).sum();
    if squares == 0.0 { 0.0 } else { held.iter().map(products).sum::<f64>() / squares }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(
        count: u64,
        memory: impl Fn(u64) -> u64,
        descriptors: impl Fn(u64) -> u64,
    ) -> Vec<Held> {
        let at = |round| Held {
            minute: round as f64,
            memory_kib: memory(round),
            descriptors: descriptors(round),
        };
        (0..count).map(at).collect()
    }

    #[test]
    fn what_warms_up_is_not_growth_and_what_leaks_is() {
        let warm = Grown::of(&held(40, |round| 50_000 + 2_000 * round.min(8), |_| 30));
        assert_eq!(warm.missed(), [""; 0]);
        assert_eq!(warm.memory_kib, [60_000, 66_000, 66_000, 66_000]);
        assert_eq!((warm.descriptors, warm.kib_per_minute), ([30; 4], (0.0, 0.0)));
        let leaks = Grown::of(&held(40, |round| 50_000 + 500 * round, |round| 30 + round / 4));
        assert_eq!(leaks.missed().len(), 2);
        let (half, quarter) = leaks.kib_per_minute;
        assert!((half - 500.0).abs() < 1.0 && (quarter - 500.0).abs() < 1.0);
        assert_eq!(Grown::of(&[]).missed(), [""; 0]);
    }
}
