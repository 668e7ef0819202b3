//! kill -9 under load, on a plain directory; three in ten are killed again before they serve.
//!
//! Beside it, a client per node writes to one key all the time. How long nobody could, after the leader of
//! its group was killed, is the write gap.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger::store::slot::key_group;
use tools::rounds::cluster::{Plan, now, pause};
use tools::rounds::resp::{Client, Reply};

use crate::cuts::FLAGS;
use crate::machine::Failed;
use crate::rig::{Common, Rig};
use crate::totals::{Totals, spread};

/// The key that is written all the time.
const PROBE: &str = "probe";
/// The gap that is aimed at, in election timeouts.
const GAP_ELECTIONS: u32 = 3;

/// How many.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Rounds; each kills one node, or all at once in one of five.
    #[arg(long, default_value_t = 20)]
    pub(crate) rounds: u32,
    /// Longest time for which nobody may be able to write after a leader's death, in ms [default: it is printed, and not
    /// judged].
    #[arg(long)]
    pub(crate) limit_ms: Option<u64>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What was killed.
#[derive(Default)]
struct Kills {
    processes: u64,
    whole: u64,
    in_recovery: u64,
    gaps: Vec<Duration>,
}

/// Runs the rounds.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { rounds, limit_ms, common } = arguments;
    let limit = limit_ms.map_or(String::new(), |limit| format!(" --limit-ms {limit}"));
    println!(
        "seed {seed}; again: cargo power kills --rounds {rounds}{limit} {}",
        common.replay(seed)
    );
    let mut random = Rng::with_seed(seed);
    let plan = common.plan(3, &FLAGS)?;
    let mut totals = Totals::new("kills");
    let mut kills = Kills::default();
    let mut done = 0;
    let mut result = Ok(());
    while done < *rounds && result.is_ok() && !totals.is_broken() {
        let mut rig = Rig::fresh(&plan, None, common.writers, random.fork(), &mut totals)?;
        for _ in 0..common.fresh.min(rounds - done) {
            done += 1;
            result = round(&mut rig, done, &plan, &mut kills, &mut totals);
            if result.is_err() || totals.is_broken() {
                break;
            }
        }
        println!("kills: {done} of {rounds}, {} acknowledged", totals.counts.acknowledged);
    }
    if result.is_ok() && !totals.is_broken() {
        let _ = std::fs::remove_dir_all(plan.data());
    }
    let Kills { processes, whole, in_recovery, mut gaps } = kills;
    let aim = Duration::from_millis(common.election_ms) * GAP_ELECTIONS;
    if let Some(limit) = limit_ms.map(Duration::from_millis) {
        for gap in &gaps {
            totals.limit("a write after a leader's death", *gap, limit);
        }
    }
    let over = gaps.iter().filter(|gap| aim < **gap).count();
    let closed = totals.close(&format!(
        "processes_killed={processes} whole_cluster={whole} in_recovery={in_recovery} \
         leader_kills={} write_gap_ms: {} over_{}_ms={over}",
        gaps.len(),
        spread(&mut gaps),
        aim.as_millis(),
    ));
    result.and(closed)
}

fn round(
    rig: &mut Rig<'_>,
    round: u32,
    plan: &Plan,
    kills: &mut Kills,
    totals: &mut Totals,
) -> Result<(), Failed> {
    let what = format!("kill {round}");
    let group = key_group(PROBE.as_bytes(), plan.groups).0;
    let is_whole = rig.random.u8(..5) == 0;
    let leader = rig.leader(group);
    let victims = match leader {
        _ if is_whole => rig.all(),
        Some(leader) if rig.random.bool() => vec![leader],
        _ => vec![rig.random.u8(1..=plan.nodes)],
    };
    let probe = Probe::default();
    thread::scope(|scope| {
        for id in 1..=plan.nodes {
            let probe = &probe;
            scope.spawn(move || probe.write(plan, id));
        }
        let result = rig.under_load(|rig| {
            pause(Duration::from_millis(rig.random.u64(50..300)));
            rig.cluster.all_run()?;
            let leads = rig.leader(group);
            let killed = now();
            rig.kill(&victims)?;
            kills.processes += victims.len() as u64;
            kills.whole += u64::from(is_whole);
            totals.faults += 1;
            if is_whole {
                return Ok(());
            }
            pause(Duration::from_millis(rig.random.u64(0..200)));
            if leads.is_some_and(|leads| victims.contains(&leads)) {
                let limit = Duration::from_secs(20);
                let first = || probe.first_after(killed).map(|acked| acked - killed);
                let (gap, _) = crate::rig::until("a write after the leader's death", limit, first)?;
                kills.gaps.push(gap);
            }
            Ok(())
        });
        probe.stop.store(true, Ordering::Relaxed);
        result
    })?;
    rig.first_reads(&what, &victims, totals, |rig, totals| {
        for id in &victims {
            rig.start(*id, &what)?;
        }
        while rig.random.u8(..10) < 3 {
            pause(Duration::from_millis(rig.random.u64(5..80)));
            rig.kill(&victims)?;
            kills.processes += victims.len() as u64;
            kills.in_recovery += 1;
            totals.faults += 1;
            for id in &victims {
                rig.start(*id, &format!("{what}, and again in recovery"))?;
            }
        }
        rig.ready(totals)
    })?;
    rig.check(&what, totals)
}

/// Writes that were acknowledged: when the last was sent, and when its answer came.
#[derive(Default)]
struct Probe {
    acknowledged: Mutex<Vec<(Instant, Instant)>>,
    stop: AtomicBool,
}

impl Probe {
    /// Writes through one node until told to stop.
    fn write(&self, plan: &Plan, id: u8) {
        let mut client = None;
        while !self.stop.load(Ordering::Relaxed) {
            let sent = now();
            let mut ask = || {
                let client = match &mut client {
                    Some(client) => client,
                    None => client.insert(Client::connect(plan.client(id))?),
                };
                client.ask(&["SET", PROBE, "x"])
            };
            match ask() {
                Ok(Reply::Error(_)) => {}
                Ok(_) => {
                    let mut acknowledged =
                        self.acknowledged.lock().expect("no holder of this lock panics");
                    acknowledged.push((sent, now()));
                }
                Err(_) => client = None,
            }
            pause(Duration::from_millis(5));
        }
    }

    /// When the first write was answered that was sent after this.
    fn first_after(&self, after: Instant) -> Option<Instant> {
        let acknowledged = self.acknowledged.lock().expect("no holder of this lock panics");
        let later = acknowledged.iter().filter(|(sent, _)| after < *sent);
        later.map(|(_, answered)| *answered).min()
    }
}
