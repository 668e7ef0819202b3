//! kill -9 under load, on a plain directory; three in ten are killed again before they serve.
//!
//! Beside it, a client per node writes to one key all the time. How long nobody could, after the leader of
//! its group was killed, is the write gap.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
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

/// An answer that took so long is told of, if a gap is longer than that.
const LONG: Duration = Duration::from_millis(100);

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
    let aim = Duration::from_millis(common.election_ms) * GAP_ELECTIONS;
    let mut done = 0;
    let mut result = Ok(());
    while done < *rounds && result.is_ok() && !totals.is_broken() {
        let mut rig = Rig::fresh(&plan, None, common.writers, random.fork(), &mut totals)?;
        for _ in 0..common.fresh.min(rounds - done) {
            done += 1;
            result = round(&mut rig, done, aim, &mut kills, &mut totals);
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
    aim: Duration,
    kills: &mut Kills,
    totals: &mut Totals,
) -> Result<(), Failed> {
    let plan = rig.plan;
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
                if aim < gap {
                    println!("{what}: {} ms; {}", gap.as_millis(), probe.story(killed));
                    rig.keep_logs(round);
                }
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

/// What became of every write.
#[derive(Default)]
struct Probe {
    answers: Mutex<Vec<Answer>>,
    stop: AtomicBool,
}

/// What one write came to.
struct Answer {
    through: u8,
    sent: Instant,
    at: Instant,
    /// Why it was not acknowledged.
    refused: Option<String>,
}

impl Probe {
    /// Writes through one node until told to stop.
    fn write(&self, plan: &Plan, through: u8) {
        let mut client = None;
        while !self.stop.load(Ordering::Relaxed) {
            let sent = now();
            let mut ask = || {
                let client = match &mut client {
                    Some(client) => client,
                    None => client.insert(Client::connect(plan.client(through))?),
                };
                client.ask(&["SET", PROBE, "x"])
            };
            let refused = match ask() {
                Ok(Reply::Error(error)) => Some(error),
                Ok(_) => None,
                Err(error) => {
                    client = None;
                    Some(error.to_string())
                }
            };
            self.answers().push(Answer { through, sent, at: now(), refused });
            pause(Duration::from_millis(5));
        }
    }

    /// When the first write was answered that was sent after this.
    fn first_after(&self, after: Instant) -> Option<Instant> {
        let answers = self.answers();
        let good = answers.iter().filter(|answer| after < answer.sent && answer.refused.is_none());
        good.map(|answer| answer.at).min()
    }

    /// What was answered to writes after this, until one was acknowledged: a line for each that differs from the one before it
    /// through that node, or took long.
    fn story(&self, after: Instant) -> String {
        let mut story = String::new();
        let mut last = BTreeMap::new();
        let first = self.first_after(after);
        for answer in self.answers().iter().filter(|answer| after < answer.at) {
            let said = answer.refused.as_deref().unwrap_or("OK");
            let took = answer.at - answer.sent;
            if last.insert(answer.through, said.to_owned()).is_none_or(|last| last != said)
                || LONG < took
            {
                // Writing to a String cannot fail.
                let _ = write!(
                    story,
                    "\n  {} ms, node {}, after {} ms: {said}",
                    (answer.at - after).as_millis(),
                    answer.through,
                    took.as_millis()
                );
            }
            if first.is_some_and(|first| first < answer.at) {
                break;
            }
        }
        story
    }

    fn answers(&self) -> MutexGuard<'_, Vec<Answer>> {
        self.answers.lock().expect("no holder of this lock panics")
    }
}
