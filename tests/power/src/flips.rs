//! Bits that flip at rest, in the middle of a node's log: it must not be believed. The node refuses to
//! start and names the segment, or repairs it; nobody ever reads a wrong value.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tools::rounds::cluster::pause;

use crate::cuts::FLAGS;
use crate::disk::Mode;
use crate::machine::Failed;
use crate::rig::{Common, Rig, Shelf, until};
use crate::totals::Totals;

/// Begins every value of the first writer that is written once; so it stands in the log.
const VALUE: &[u8] = b"w0.";
/// How long a node may take to notice.
const NOTICE: Duration = Duration::from_secs(60);

/// How many.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Flipped bits, one per round.
    #[arg(long, default_value_t = 3)]
    pub(crate) times: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What the node did about it.
#[derive(Default)]
struct Outcomes {
    refused: u64,
    started: u64,
}

/// Flips the bits.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { times, common } = arguments;
    println!("seed {seed}; again: cargo power flips --times {times} {}", common.replay(seed));
    let mut random = Rng::with_seed(seed);
    let plan = common.plan(3, &FLAGS)?;
    let mut totals = Totals::new("flips");
    let mut shelf = Shelf::new(&plan)?;
    let mut outcomes = Outcomes::default();
    let mut done = 0;
    while done < *times && !totals.is_broken() {
        let mut rig =
            Rig::fresh(&plan, Some(&mut shelf), common.writers, random.fork(), &mut totals)?;
        for _ in 0..common.fresh.min(times - done) {
            done += 1;
            round(&mut rig, done, &mut outcomes, &mut totals)?;
        }
    }
    shelf.tell(&mut totals);
    let Outcomes { refused, started } = outcomes;
    totals.close(&format!("refused_to_start={refused} started={started}"))
}

fn round(
    rig: &mut Rig<'_>,
    round: u32,
    outcomes: &mut Outcomes,
    totals: &mut Totals,
) -> Result<(), Failed> {
    let what = format!("flip {round}");
    let victim = rig.random.u8(1..=rig.plan.nodes);
    rig.under_load(|rig| {
        pause(Duration::from_millis(400));
        let disk = Arc::clone(&rig.device(victim).disk);
        until("something in the log", NOTICE, || (!disk.find(VALUE).is_empty()).then_some(()))?;
        rig.cluster.all_run()?;
        // Of what the node has in its page cache, nothing may be left.
        rig.cut(&[victim], Mode::Keep, totals)
    })?;
    let mut places = rig.device(victim).disk.find(VALUE);
    // At the very end of a log, damage cannot be told from a write that was cut short.
    places.truncate((places.len() * 3).div_ceil(4));
    let offset = places[rig.random.usize(..places.len())] + 1;
    let bit = rig.random.u8(..8);
    rig.device(victim).disk.flip(offset, bit);
    totals.faults += 1;
    rig.start(victim, &what)?;
    if let Some(status) = rig.ended_or_ready(victim, NOTICE) {
        rig.gone(victim);
        outcomes.refused += 1;
        let said = rig.cluster.last_words(victim);
        if status.code().is_none_or(|code| code == 0) || !said.contains(".seg") {
            totals.missed.push(format!("{what}: it ended with {status} and says {said:?}"));
        }
        rig.device(victim).disk.flip(offset, bit);
        rig.crash(&[victim], Mode::Keep, totals)?;
        rig.start(victim, &format!("{what}, flipped back"))?;
    } else {
        outcomes.started += 1;
    }
    rig.ready(totals)?;
    rig.check(&what, totals)
}
