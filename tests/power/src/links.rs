//! Nodes that do not reach each other, by every kind of cut there is, and nodes that stand still; clients
//! go on all the time, through every node.
//!
//! When a fault is over, every group must soon take writes through every node again. What was answered
//! meanwhile, on whatever side, must be linearizable: `counters`; and the ledger holds every write.

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use tools::rounds::cluster::{Plan, now, pause};
use tools::rounds::resp::Client;

use crate::counters::Counters;
use crate::cuts::FLAGS;
use crate::machine::Failed;
use crate::network::{Cut, Network};
use crate::resume::resume;
use crate::rig::{Common, Rig, key_of};
use crate::totals::{Totals, spread};

/// What is aimed at, in ms, between the end of a fault and writes to every group through every node.
pub(crate) const LIMIT_MS: u64 = 2_000;
/// What a node says of a flush that took long (`src/runtime/wal_writer.rs`).
const SLOW_FLUSH: &str = "slow log flush";
/// A disk that took so long, in ms, tells nothing about links.
const HELD_UP_MS: u64 = 1_000;
/// One fault in so many is a pause of up to half a minute.
const LONG: u32 = 40;

/// How many.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Faults.
    #[arg(long, default_value_t = 20)]
    pub(crate) times: u32,
    /// Every group takes writes through every node so soon after a fault, in ms.
    #[arg(long, default_value_t = LIMIT_MS)]
    pub(crate) limit_ms: u64,
    /// Faults of this kind only.
    #[arg(long, value_enum)]
    pub(crate) only: Option<Kind>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A node is cut off from both others.
    Node,
    /// The same, of the leader of a group.
    Leader,
    /// A node hears nothing from the others.
    Deaf,
    /// A node is not heard by the others.
    Mute,
    /// Two nodes are cut off from each other; both reach the third.
    Pair,
    /// A node's links are cut and healed again and again.
    Flap,
    /// A node stands still.
    Pause,
    /// Packets of all links are lost by chance.
    Loss,
    /// A node's connections to others are reset again and again.
    Reset,
}

const KINDS: [Kind; 9] = [
    Kind::Node,
    Kind::Leader,
    Kind::Deaf,
    Kind::Mute,
    Kind::Pair,
    Kind::Flap,
    Kind::Pause,
    Kind::Loss,
    Kind::Reset,
];

/// One of them, with whom it strikes and for how long.
#[derive(Debug)]
struct Fault {
    kind: Kind,
    node: u8,
    /// The other of a pair.
    other: u8,
    lasts: Duration,
}

impl Fault {
    /// The faults of a run take turns, so that a few are of many kinds.
    fn choose(number: u32, only: Option<Kind>, random: &mut Rng) -> Self {
        let node = random.u8(1..=3);
        let other = (node - 1 + random.u8(1..=2)) % 3 + 1;
        if number.is_multiple_of(LONG) && only.is_none_or(|only| only == Kind::Pause) {
            let lasts = Duration::from_millis(random.u64(5_000..30_000));
            return Self { kind: Kind::Pause, node, other, lasts };
        }
        // Connections survive the shorter ones; the longest see them dialed anew, in vain.
        let ms = match random.u8(..10) {
            0 => random.u64(5_000..12_000),
            1..5 => random.u64(1_000..5_000),
            _ => random.u64(100..1_000),
        };
        let kind = only.unwrap_or(KINDS[number as usize % KINDS.len()]);
        Self { kind, node, other, lasts: Duration::from_millis(ms) }
    }

    fn others(&self) -> [u8; 2] {
        others(self.node)
    }
}

fn others(node: u8) -> [u8; 2] {
    [node % 3 + 1, (node + 1) % 3 + 1]
}

/// What the faults came to.
struct Figures {
    /// For what was taken.
    limit: Duration,
    /// Until writes went on.
    took: Vec<(Kind, Duration)>,
    answers: u64,
    /// Limits that were missed while the machine's disk did not answer.
    unjudged: u64,
}

/// Runs the faults.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { times, limit_ms, only, common } = arguments;
    let kind = only.map_or(String::new(), |kind| format!(" --only {kind:?}").to_lowercase());
    println!(
        "seed {seed}; again: cargo power links --times {times} --limit-ms {limit_ms}{kind} {}",
        common.replay(seed)
    );
    let mut random = Rng::with_seed(seed);
    let network = Network::new(3)?;
    let plan = Plan { hosts: network.hosts.clone(), ..common.plan(3, &FLAGS)? };
    let mut totals = Totals::new("links");
    let limit = Duration::from_millis(*limit_ms);
    let mut figures = Figures { limit, took: Vec::new(), answers: 0, unjudged: 0 };
    let mut done = 0;
    let mut result = Ok(());
    while done < *times && result.is_ok() && !totals.is_broken() {
        let mut rig = Rig::fresh(&plan, None, common.writers, random.fork(), &mut totals)?;
        let counters = Counters::new(plan.groups, "count");
        for _ in 0..common.fresh.min(times - done) {
            done += 1;
            let fault = Fault::choose(done, *only, &mut rig.random);
            result = round(&mut rig, &network, &counters, &fault, &mut figures, &mut totals);
            if result.is_err() || totals.is_broken() {
                println!("fault {done} was {fault:?}");
                break;
            }
        }
        figures.answers += counters.answers();
        println!("links: {done} of {times}, {} acknowledged", totals.counts.acknowledged);
    }
    if result.is_ok() && !totals.is_broken() {
        let _ = std::fs::remove_dir_all(plan.data());
    }
    let closed = totals.close(&figures.line(common.election_ms));
    result.and(closed)
}

impl Figures {
    fn line(&self, election_ms: u64) -> String {
        let times = |kind: Option<Kind>| -> Vec<Duration> {
            let of = |took: &&(Kind, Duration)| kind.is_none_or(|kind| took.0 == kind);
            self.took.iter().filter(of).map(|took| took.1).collect()
        };
        let kinds: Vec<String> = KINDS
            .iter()
            .map(|kind| (kind, times(Some(*kind))))
            .filter(|(_, times)| !times.is_empty())
            .map(|(kind, times)| {
                let max = times.iter().max().map_or(0, Duration::as_millis);
                format!("{kind:?}:{}:{max}", times.len()).to_lowercase()
            })
            .collect();
        format!(
            "answers_in_order={} election_ms={election_ms} writes_resume_ms: {} limit={} unjudged={} \
             kind:times:max_ms {}",
            self.answers,
            spread(&mut times(None)),
            self.limit.as_millis(),
            self.unjudged,
            kinds.join(","),
        )
    }
}

fn round(
    rig: &mut Rig<'_>,
    network: &Network,
    counters: &Counters,
    fault: &Fault,
    figures: &mut Figures,
    totals: &mut Totals,
) -> Result<(), Failed> {
    let plan = rig.plan;
    let before: Vec<usize> = rig.all().into_iter().map(|id| said(plan, id).len()).collect();
    let took = thread::scope(|scope| {
        counters.run(scope, plan);
        let took = rig.under_load(|rig| {
            pause(Duration::from_millis(rig.random.u64(50..300)));
            totals.faults += 1;
            let struck = strike(rig, network, fault);
            // What failed half way is healed as well: writers and counters wait for their answers.
            let healed = heal(network);
            struck.and(healed)?;
            resume(plan, now()).inspect_err(|_| describe(rig))
        });
        counters.stop();
        took
    });
    let took = took?;
    figures.took.push((fault.kind, took));
    if figures.limit < took {
        println!("{} ms until writes went on after {fault:?}", took.as_millis());
        match held_up(plan, &before, fault) {
            Some(line) => {
                println!("not judged, the machine itself stood still: {line}");
                figures.unjudged += 1;
            }
            None => totals.limit(&format!("writes after {fault:?}"), took, figures.limit),
        }
    }
    rig.ready(totals)?;
    totals.findings.extend(counters.check(plan)?);
    rig.check(&format!("{fault:?}"), totals)
}

/// Everything a node has said.
fn said(plan: &Plan, id: u8) -> String {
    std::fs::read_to_string(plan.log(id)).unwrap_or_default()
}

/// What a node said since then of a disk that did not answer for long: the rig breaks no disks, so it was the
/// machine that is slow, and others work on it. A node that stood still says the same of the time it missed.
fn held_up(plan: &Plan, before: &[usize], fault: &Fault) -> Option<String> {
    let is_stopped = |id: u8| fault.kind == Kind::Pause && fault.node == id;
    (1..).zip(before).filter(|(id, _)| !is_stopped(*id)).find_map(|(id, before)| {
        let said = said(plan, id);
        let mut lines = said.get(*before..)?.lines().filter(|line| line.contains(SLOW_FLUSH));
        lines.find(|line| flush_ms(line).is_some_and(|ms| HELD_UP_MS <= ms)).map(str::to_owned)
    })
}

fn flush_ms(line: &str) -> Option<u64> {
    line.rsplit_once("ms=")?.1.trim().parse().ok()
}

/// From the beginning of a fault until just before it is over.
fn strike(rig: &mut Rig<'_>, network: &Network, fault: &Fault) -> Result<(), Failed> {
    let Fault { kind, node, other, lasts } = *fault;
    let one_way = |input| Cut { input, output: !input, percent: 100 };
    match kind {
        Kind::Node => network.cut(node, &fault.others(), Cut::WHOLE)?,
        Kind::Leader => {
            let leader = rig.leader(0).unwrap_or(node);
            network.cut(leader, &others(leader), Cut::WHOLE)?;
        }
        Kind::Deaf => network.cut(node, &fault.others(), one_way(true))?,
        Kind::Mute => network.cut(node, &fault.others(), one_way(false))?,
        Kind::Pair => network.cut(node, &[other], Cut::WHOLE)?,
        Kind::Loss => {
            let percent = rig.random.u8(10..=30);
            for id in rig.all() {
                network.cut(id, &others(id), Cut { input: true, output: false, percent })?;
            }
        }
        Kind::Pause => return rig.stand_still(node, lasts),
        Kind::Flap => {
            return again(rig, lasts, |rig| {
                network.cut(node, &fault.others(), Cut::WHOLE)?;
                pause(Duration::from_millis(rig.random.u64(50..300)));
                network.heal(node)
            });
        }
        Kind::Reset => return again(rig, lasts, |_| network.reset(node, &fault.others())),
    }
    pause(lasts);
    Ok(())
}

/// Does it every 50 to 300 ms.
fn again(
    rig: &mut Rig<'_>,
    lasts: Duration,
    mut strike: impl FnMut(&mut Rig<'_>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let started = now();
    while started.elapsed() < lasts {
        strike(rig)?;
        pause(Duration::from_millis(rig.random.u64(50..300)));
    }
    Ok(())
}

fn heal(network: &Network) -> Result<(), Failed> {
    (1..=3).try_for_each(|id| network.heal(id))
}

/// What the nodes say of their groups and links, and what comes of a write to each group, for whoever wants to
/// know why it does not go on.
fn describe(rig: &Rig<'_>) {
    for id in rig.all() {
        let info = rig.info(id).unwrap_or_else(|| "does not answer".into());
        let telling = ["group_", "link_", "flush_us", "does not"];
        let lines = info.lines().filter(|line| telling.iter().any(|start| line.starts_with(start)));
        println!("node {id}: {}", lines.collect::<Vec<_>>().join(" "));
        for group in 0..rig.plan.groups {
            let key = key_of(group, rig.plan.groups);
            let client = Client::connect(rig.plan.client(id));
            let reply = client.and_then(|mut client| client.ask(&["SET", &key, "x"]));
            println!("node {id}, group {group}: {reply:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_flush_is_read() {
        let line = "2026-11-27T03:05:42Z  WARN slow log flush: the disk is busy or failing \
                    segment=core-0/0000000000000001.seg ms=13377";
        assert_eq!(flush_ms(line), Some(13_377));
    }

    #[test]
    fn a_node_has_two_others_and_a_pair_is_of_two() {
        assert_eq!([1, 2, 3].map(others), [[2, 3], [3, 1], [1, 2]]);
        let mut random = Rng::with_seed(1);
        for number in 1..200 {
            let fault = Fault::choose(number, None, &mut random);
            assert_ne!(fault.node, fault.other);
            assert!(fault.others().contains(&fault.other));
        }
    }
}
