//! A disk that answers twenty times a second: under a follower nobody notices, and a leader leads no longer.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tools::rounds::cluster::{Plan, now, pause};
use tools::rounds::resp::{Client, Reply};

use crate::cuts::FLAGS;
use crate::disk::Faults;
use crate::machine::{Failed, stopped};
use crate::rig::{Common, Rig, Shelf, key_of, until};
use crate::totals::{Totals, percentile, spread};

/// Between two answers of the slow disk: 20 requests a second.
const GAP: Duration = Duration::from_millis(50);
/// A leader whose disk is slow leads nothing by then.
const LIMIT: Duration = Duration::from_secs(10);
/// When to stop waiting for it.
const GIVE_UP: Duration = Duration::from_secs(60);
/// How many times longer a write may take, one in a hundred, while a follower's disk is slow.
const TIMES_MAX: u32 = 2;
/// How long latencies are taken each time.
const WINDOW: Duration = Duration::from_secs(3);

/// How many.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Disks that become slow, half of them under followers.
    #[arg(long, default_value_t = 4)]
    pub(crate) times: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Latencies of writes to all groups.
#[derive(Default)]
struct Latencies {
    well: Vec<Duration>,
    slow: Vec<Duration>,
}

/// Runs them.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { times, common } = arguments;
    println!("seed {seed}; again: cargo power slow --times {times} {}", common.replay(seed));
    let mut random = Rng::with_seed(seed);
    let plan = common.plan(3, &FLAGS)?;
    let mut totals = Totals::new("slow");
    let mut shelf = Shelf::new(&plan)?;
    let mut rig = Rig::fresh(&plan, Some(&mut shelf), common.writers, random.fork(), &mut totals)?;
    let (mut latencies, mut led) = (Latencies::default(), Vec::new());
    for round in 1..=times.div_ceil(2) {
        let victim = random.u8(1..=3);
        follower(&mut rig, victim, &mut latencies)?;
        let moved = leader(&mut rig)?;
        totals.faults += 2;
        totals.limit("leadership of a leader whose disk is slow", moved, LIMIT);
        led.push(moved);
        rig.ready(&mut totals)?;
        rig.check(&format!("slow disk {round}"), &mut totals)?;
    }
    drop(rig);
    shelf.tell(&mut totals);
    let [well, slow] = [&mut latencies.well, &mut latencies.slow].map(|it| percentile(it, 99));
    totals.limit(
        "one write in a hundred, while a follower's disk is slow,",
        slow,
        well * TIMES_MAX,
    );
    totals.close(&format!(
        "gap_ms={} leads_nothing_ms: {} limit={} write_us: well {} follower_slow {} p99_ratio={:.2}",
        GAP.as_millis(),
        spread(&mut led),
        LIMIT.as_millis(),
        micros(&mut latencies.well),
        micros(&mut latencies.slow),
        slow.as_secs_f64() / well.as_secs_f64(),
    ))
}

fn micros(times: &mut [Duration]) -> String {
    let [p50, p99] = [50, 99].map(|percent| percentile(times, percent).as_micros());
    format!("n={} p50={p50} p99={p99}", times.len())
}

/// The disk of a node that leads nothing becomes slow, and well again.
fn follower(rig: &mut Rig<'_>, victim: u8, latencies: &mut Latencies) -> Result<(), Failed> {
    let plan = rig.plan;
    let through = rig.all().into_iter().find(|id| *id != victim).expect("there are three");
    until("a node that leads nothing", GIVE_UP, || {
        let mut client = Client::connect(plan.client(victim)).ok()?;
        // Its answer is a map, which this client does not read: what counts is seen below.
        let _ = client.ask(&["DRAIN", "5000"]);
        rig.leads_nothing(victim).then_some(())
    })?;
    rig.under_load(|rig| {
        latencies.well.extend(measure(plan, through)?);
        rig.device(victim).disk.set(|faults| faults.gap = GAP);
        pause(Duration::from_millis(500));
        latencies.slow.extend(measure(plan, through)?);
        rig.device(victim).disk.set(|faults| *faults = Faults::default());
        Ok(())
    })
}

/// The disk of a leader becomes slow: after how long it led nothing. It stays slow for a while.
fn leader(rig: &mut Rig<'_>) -> Result<Duration, Failed> {
    let (leader, _) = until("a node that leads most", GIVE_UP, || {
        let mut led = BTreeMap::<u8, u32>::new();
        for group in 0..rig.plan.groups {
            *led.entry(rig.leader(group)?).or_default() += 1;
        }
        led.into_iter().max_by_key(|(_, groups)| *groups).map(|(leader, _)| leader)
    })?;
    rig.under_load(|rig| {
        pause(Duration::from_millis(200));
        let started = now();
        rig.device(leader).disk.set(|faults| faults.gap = GAP);
        let moved = until("a leader whose disk is slow leads nothing", GIVE_UP, || {
            rig.leads_nothing(leader).then(|| started.elapsed())
        });
        pause(Duration::from_millis(500));
        rig.device(leader).disk.set(|faults| *faults = Faults::default());
        moved.map(|(moved, _)| moved)
    })
}

/// How long writes take, one after another, to every group in turn.
fn measure(plan: &Plan, through: u8) -> Result<Vec<Duration>, Failed> {
    let failed = |error| stopped("a write whose time is taken", error);
    let keys: Vec<String> = (0..plan.groups).map(|group| key_of(group, plan.groups)).collect();
    let mut client = Client::connect(plan.client(through)).map_err(failed)?;
    let (started, mut times) = (now(), Vec::new());
    for key in keys.iter().cycle() {
        if WINDOW < started.elapsed() {
            break;
        }
        let sent = now();
        let reply = client.ask(&["SET", key, "x"]).map_err(failed)?;
        if reply == Reply::Simple("OK".into()) {
            times.push(sent.elapsed());
        }
    }
    Ok(times)
}
