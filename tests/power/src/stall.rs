//! A disk that stops answering under a leader: others lead, and take writes.

use std::time::Duration;

use fastrand::Rng;
use tools::rounds::cluster::{now, pause};
use tools::rounds::resp::{Client, Reply, encode};

use crate::cuts::FLAGS;
use crate::machine::Failed;
use crate::rig::{Common, Rig, Shelf, until};
use crate::totals::{Totals, spread};

/// Every group takes writes again by then.
const LIMIT: Duration = Duration::from_secs(5);
/// When to stop waiting for it.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Keys written to reach every group.
const KEYS: u32 = 256;

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
        let mut moved = None;
        let mut turn = 0;
        let (writes, _) = until("writes in every group", GIVE_UP, || {
            let through = others[turn % others.len()];
            turn += 1;
            if moved.is_none() && leads_nothing(rig, &others, leader) {
                moved = Some(started.elapsed());
            }
            all_written(rig, through).then(|| started.elapsed())
        })?;
        let (moved, _) = until("another leader for every group", GIVE_UP, || {
            moved.or_else(|| leads_nothing(rig, &others, leader).then(|| started.elapsed()))
        })?;
        // The stalled disk stays stalled for a while, under load.
        pause(Duration::from_millis(rig.random.u64(100..1_000)));
        rig.device(leader).disk.set(|faults| faults.stalled = false);
        pause(Duration::from_millis(300));
        Ok((moved, writes))
    })
}

/// Whether no other node takes it for the leader of anything.
fn leads_nothing(rig: &Rig<'_>, others: &[u8], leader: u8) -> bool {
    others.iter().all(|id| {
        rig.info(*id).is_some_and(|info| {
            let mut groups = info.lines().filter(|line| line.starts_with("group_"));
            groups.all(|line| {
                !line.contains(&format!(",leader={leader},")) && !line.contains(",leader=0,")
            })
        })
    })
}

/// Whether a key in every group can be written through this node, just now.
fn all_written(rig: &Rig<'_>, through: u8) -> bool {
    let mut bytes = Vec::new();
    for key in 0..KEYS {
        encode(&["SET", &format!("stall:{key}"), "x"], &mut bytes);
    }
    let Ok(mut client) = Client::connect(rig.plan.client(through)) else { return false };
    let sent = client.send(&bytes).is_ok();
    // All replies are taken, whatever they are.
    let replies: Vec<_> = (0..KEYS).map(|_| client.receive()).collect();
    sent && replies
        .iter()
        .all(|reply| *reply.as_ref().unwrap_or(&Reply::Integer(0)) == Reply::Simple("OK".into()))
}
