//! A disk that stops answering under a leader: others lead, and take writes.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tools::rounds::cluster::{now, pause};

use crate::cuts::FLAGS;
use crate::machine::Failed;
use crate::resume::write_all;
use crate::rig::{Common, Rig, Shelf, until};
use crate::totals::{Totals, spread};

/// Every group takes writes again by then.
const LIMIT: Duration = Duration::from_secs(5);
/// When to stop waiting for it.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Between two writes to all groups.
const BETWEEN: Duration = Duration::from_millis(50);

/// How many.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Stalls.
    #[arg(long, default_value_t = 3)]
    pub(crate) times: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Runs the stalls.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { times, common } = arguments;
    println!("seed {seed}; again: cargo power stall --times {times} {}", common.replay(seed));
    let mut random = Rng::with_seed(seed);
    let plan = common.plan(3, &FLAGS)?;
    let mut totals = Totals::new("stall");
    let mut shelf = Shelf::new(&plan)?;
    let mut rig = Rig::fresh(&plan, Some(&mut shelf), common.writers, random.fork(), &mut totals)?;
    let (mut led, mut took) = (Vec::new(), Vec::new());
    for round in 1..=*times {
        let (moved, writes) = stall(&mut rig, &mut totals)?;
        totals.limit("leadership of a leader whose disk is stalled", moved, LIMIT);
        totals.limit("writes while a leader's disk is stalled", writes, LIMIT);
        led.push(moved);
        took.push(writes);
        rig.ready(&mut totals)?;
        rig.check(&format!("stall {round}"), &mut totals)?;
    }
    drop(rig);
    shelf.tell(&mut totals);
    totals.close(&format!(
        "election_ms={} leads_nothing_ms: {} all_groups_take_writes_ms: {} limit={}",
        common.election_ms,
        spread(&mut led),
        spread(&mut took),
        LIMIT.as_millis()
    ))
}

/// After how long the node led nothing any more, and after how long every group took writes.
fn stall(rig: &mut Rig<'_>, totals: &mut Totals) -> Result<(Duration, Duration), Failed> {
    let (leader, _) = until("a leader of group 0", GIVE_UP, || rig.leader(0))?;
    let others: Vec<u8> = rig.all().into_iter().filter(|id| *id != leader).collect();
    rig.under_load(|rig| {
        pause(Duration::from_millis(200));
        totals.faults += 1;
        let started = now();
        rig.device(leader).disk.set(|faults| faults.stalled = true);
        let (moved, writes) = watch(rig, &others, leader, started)?;
        // The stalled disk stays stalled for a while, under load.
        pause(Duration::from_millis(rig.random.u64(100..1_000)));
        rig.device(leader).disk.set(|faults| faults.stalled = false);
        pause(Duration::from_millis(300));
        Ok((moved, writes))
    })
}

/// Polls who leads, and has a client write to all groups every so often: one that came too early waits for
/// the stalled leader until its request times out, so nobody waits for it before the next is sent.
fn watch(
    rig: &Rig<'_>,
    others: &[u8],
    leader: u8,
    started: Instant,
) -> Result<(Duration, Duration), Failed> {
    let plan = rig.plan;
    let written = Mutex::new(None);
    let first = || *written.lock().expect("no holder of this lock panics");
    let mut moved = None;
    thread::scope(|scope| {
        for turn in 0.. {
            if moved.is_none() && rig.leads_nothing(leader) {
                moved = Some(started.elapsed());
            }
            if let (Some(moved), Some(written)) = (moved, first()) {
                return Ok((moved, written));
            }
            if GIVE_UP < started.elapsed() {
                break;
            }
            if first().is_none() {
                let (through, written) = (others[turn % others.len()], &written);
                scope.spawn(move || {
                    if write_all(plan, through).is_ok() {
                        let mut first = written.lock().expect("no holder of this lock panics");
                        first.get_or_insert(started.elapsed());
                    }
                });
            }
            pause(BETWEEN);
        }
        Err(Failed::Stopped(format!(
            "after {} s the stalled node leads ({}) or not all groups take writes ({})",
            GIVE_UP.as_secs(),
            moved.is_none(),
            first().is_none()
        )))
    })
}
