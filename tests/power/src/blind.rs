//! That the rig can see: a disk that says it has flushed, and has not, must be found out.

use std::time::Duration;

use fastrand::Rng;
use tools::rounds::cluster::pause;
use tools::rounds::subject::Wrong;

use crate::cuts::FLAGS;
use crate::disk::Mode;
use crate::machine::Failed;
use crate::rig::{Common, Rig, Shelf};
use crate::totals::Totals;

/// Clusters that are tried.
const TRIES: u32 = 3;

/// Cuts the power of nodes on disks that lie.
pub(crate) fn run(common: &Common, seed: u64) -> Result<(), Failed> {
    println!("seed {seed}; again: cargo power blind-check {}", common.replay(seed));
    let mut random = Rng::with_seed(seed);
    let plan = common.plan(1, &FLAGS)?;
    let mut totals = Totals::new("blind-check");
    let mut shelf = Shelf::new(&plan)?;
    let mut noticed = 0;
    for round in 1..=TRIES {
        let writers = common.writers;
        let mut rig = Rig::fresh(&plan, Some(&mut shelf), writers, random.fork(), &mut totals)?;
        rig.under_load(|rig| {
            pause(Duration::from_millis(100));
            rig.device(1).disk.set(|faults| faults.lies = true);
            pause(Duration::from_millis(300));
            rig.cut(&[1], Mode::Lose, &mut totals)
        })?;
        totals.faults += 1;
        rig.start(1, "after the lie")?;
        match rig.ready(&mut totals) {
            Ok(()) => rig.check(&format!("lie {round}"), &mut totals)?,
            // A node that sees the damage and refuses to start has noticed, too.
            Err(_) if rig.cluster.pid(1).is_none() => noticed += 1,
            Err(failed) => return Err(failed),
        }
    }
    shelf.tell(&mut totals);
    let lost = totals.wrong(Wrong::Lost);
    println!(
        "{} (the disk lies: lost must not be 0)",
        totals.line(&format!("refused_to_start={noticed}"))
    );
    if lost == 0 {
        return Err(Failed::Broken(vec![
            "the rig is blind: the disk flushed nothing, and no lost write was found".to_owned(),
        ]));
    }
    Ok(())
}
