//! Power cuts under load: of whole clusters, and of single nodes.
//!
//! A cut of a *whole cluster* leaves nothing but the disks. Of *single* cuts, every other one hits one
//! node of three while the others go on, and must not harm anybody; the others hit a cluster of one node,
//! where every acknowledged write hangs by the one disk. One in five is followed by another cut before
//! the nodes have recovered.

use std::time::Duration;

use fastrand::Rng;
use tools::rounds::cluster::{Plan, pause};

use crate::disk::Mode;
use crate::machine::Failed;
use crate::rig::{Common, Rig, Shelf};
use crate::totals::Totals;

/// One image in so many must be torn, or the rig is blind: 100 of 600 cuts.
const TORN_PER: u64 = 6;

/// How many.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Power cuts of all three nodes at once.
    #[arg(long, default_value_t = 20)]
    pub(crate) cluster: u32,
    /// Power cuts of one node: half of them of one of three, half of a cluster of one.
    #[arg(long, default_value_t = 20)]
    pub(crate) single: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Whom a cut hits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hits {
    All,
    One,
}

/// The log is kept short, so that it is truncated meanwhile.
pub(crate) const FLAGS: [&str; 2] = ["--log-bytes", "268435456"];

/// Runs the cuts.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { cluster, single, common } = arguments;
    println!(
        "seed {seed}; again: cargo power cuts --cluster {cluster} --single {single} {}",
        common.replay(seed)
    );
    let mut random = Rng::with_seed(seed);
    let mut torn = 0;
    let three = common.plan(3, &FLAGS)?;
    let one = common.plan(1, &FLAGS)?;
    let parts = [
        ("cuts-cluster", &three, *cluster, Hits::All),
        ("cuts-one-of-three", &three, single / 2, Hits::One),
        ("cuts-alone", &one, single - single / 2, Hits::All),
    ];
    for (name, plan, count, hits) in parts.into_iter().filter(|part| 0 < part.2) {
        let mut totals = Totals::new(name);
        let mut shelf = Shelf::new(plan)?;
        let result = some(common, plan, &mut shelf, (count, hits), random.fork(), &mut totals);
        if result.is_err() || totals.is_broken() {
            shelf.save(plan);
        }
        shelf.tell(&mut totals);
        // What was found before it stopped is told, too.
        let closed = totals.close(&format!(
            "again_in_recovery={}",
            totals.faults.saturating_sub(u64::from(count))
        ));
        result?;
        closed?;
        torn += totals.torn_reported;
    }
    let cuts = u64::from(cluster + single);
    println!("cuts-torn cuts={cuts} starts_that_found_a_torn_write={torn}");
    if torn * TORN_PER < cuts {
        let least = cuts.div_ceil(TORN_PER);
        return Err(Failed::Broken(vec![format!(
            "the rig is blind: {torn} starts found a torn write, at least {least} must"
        )]));
    }
    Ok(())
}

fn some(
    common: &Common,
    plan: &Plan,
    shelf: &mut Shelf,
    (count, hits): (u32, Hits),
    mut random: Rng,
    totals: &mut Totals,
) -> Result<(), Failed> {
    let mut done = 0;
    while done < count {
        let mut rig = Rig::fresh(plan, Some(shelf), common.writers, random.fork(), totals)?;
        for _ in 0..common.fresh.min(count - done) {
            done += 1;
            round(&mut rig, done, hits, totals)?;
            if totals.is_broken() {
                return Ok(());
            }
            if done % 10 == 0 {
                println!(
                    "{}: {done} of {count}, {} acknowledged",
                    totals.name, totals.counts.acknowledged
                );
            }
        }
    }
    Ok(())
}

fn round(rig: &mut Rig<'_>, round: u32, hits: Hits, totals: &mut Totals) -> Result<(), Failed> {
    let what = format!("cut {round}");
    let mode = Mode::any(&mut rig.random);
    slow_down(rig);
    let victims = match hits {
        Hits::All => rig.all(),
        Hits::One => vec![rig.random.u8(1..=rig.plan.nodes)],
    };
    rig.under_load(|rig| {
        pause(Duration::from_millis(rig.random.u64(80..400)));
        rig.cluster.all_run()?;
        rig.cut(&victims, mode, totals)?;
        totals.faults += 1;
        if hits == Hits::One {
            pause(Duration::from_millis(rig.random.u64(0..300)));
        }
        Ok(())
    })?;
    rig.first_reads(&what, &victims, totals, |rig, totals| {
        for id in &victims {
            rig.start(*id, &what)?;
        }
        if rig.random.u8(..5) == 0 {
            pause(Duration::from_millis(rig.random.u64(5..250)));
            let mode = Mode::any(&mut rig.random);
            rig.cut(&victims, mode, totals)?;
            totals.faults += 1;
            for id in &victims {
                rig.start(*id, &format!("{what}, and again in recovery"))?;
            }
        }
        rig.ready(totals)
    })?;
    rig.check(&what, totals)
}

/// Flushes take a while, each time another one, so that there is always something volatile; sometimes
/// so does all else.
pub(crate) fn slow_down(rig: &mut Rig<'_>) {
    for at in 0..rig.devices.len() {
        let delay = Duration::from_micros(rig.random.u64(500..6_000));
        let others = Duration::from_micros(rig.random.u64(0..600).saturating_sub(300));
        rig.devices[at].disk.set(|faults| {
            faults.sync_delay = delay;
            faults.delay = others;
        });
    }
}
