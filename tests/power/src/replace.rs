//! A disk is lost, again and again: its node is killed and wiped, another joins under an id of its own,
//! learns, votes in its place, and the old id is gone for good. Clients write all the time.
//!
//! ```text
//!   seat 1: node 1        seat 2: node 2 ╳ kill -9, wiped        seat 3: node 3
//!                         seat 2: node 4, --join ─► member add 4 ─► member replace 2 4
//! ```
//!
//! Clients and checks know seats: a newcomer serves clients where the one before it did. Between nodes it
//! has another address, so that nobody takes it for the one that is gone. Everything is done with the
//! commands that operators have.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tools::rounds::cluster::{Plan, now, pause};
use tools::rounds::ledger::Ledger;
use tools::rounds::subject::{Finding, Wrong};

use crate::counters::Counters;
use crate::cuts::FLAGS;
use crate::machine::{Failed, run as run_program};
use crate::rig::{Common, Rig, until};
use crate::totals::{Totals, spread};

/// Within this, in seconds, one command to the cluster is heard, or never.
const PATIENCE_SECONDS: u64 = 60;
/// Within this the cluster is whole again after its last command.
const WHOLE: Duration = Duration::from_secs(60);
/// The ids of the first nodes are below this.
const FIRST_NEW: u64 = 4;

/// How many.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Replacements.
    #[arg(long, default_value_t = 5)]
    pub(crate) times: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Runs the replacements, all in one cluster; the data are made anew every `fresh` rounds.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { times, common } = arguments;
    println!("seed {seed}; again: cargo power replace --times {times} {}", common.replay(seed));
    let mut random = Rng::with_seed(seed);
    let plan = common.plan(3, &FLAGS)?;
    let mut totals = Totals::new("replace");
    let mut figures = Figures::default();
    let mut rig = Rig::fresh(&plan, None, common.writers, random.fork(), &mut totals)?;
    let mut seats = Seats::new(&plan);
    let mut counters = Counters::new(plan.groups, "count");
    let mut result = Ok(());
    for number in 1..=*times {
        result = round(&mut rig, &mut seats, &counters, &mut figures, &mut totals);
        if result.is_err() || totals.is_broken() {
            println!("in round {number}; the seats: {:?}", seats.all);
            break;
        }
        totals.faults += 1;
        if number.is_multiple_of(common.fresh) {
            println!("replace: {number} of {times}, {} acknowledged", totals.counts.acknowledged);
            figures.answers += counters.answers();
            counters = Counters::new(plan.groups, &format!("count{number}"));
            result = forget(&mut rig, number);
        }
    }
    figures.answers += counters.answers();
    drop(rig);
    if result.is_ok() && !totals.is_broken() {
        let _ = fs::remove_dir_all(plan.data());
    }
    let closed = totals.close(&figures.line(common.election_ms, &seats));
    result.and(closed)
}

/// What the replacements came to.
#[derive(Default)]
struct Figures {
    /// From the death of a node until the cluster was whole.
    whole: Vec<Duration>,
    /// The longest time in each round for which a group took no write.
    gaps: Vec<Duration>,
    answers: u64,
}

impl Figures {
    fn line(mut self, election_ms: u64, seats: &Seats<'_>) -> String {
        format!(
            "answers_in_order={} election_ms={election_ms} last_id={} whole_again_ms: {} \
             longest_write_gap_ms: {}",
            self.answers,
            seats.next - 1,
            spread(&mut self.whole),
            spread(&mut self.gaps),
        )
    }
}

/// Who serves where.
struct Seats<'p> {
    plan: &'p Plan,
    all: Vec<Occupant>,
    /// The next id that nobody had.
    next: u64,
}

#[derive(Debug, Clone, Copy)]
struct Occupant {
    id: u64,
    peer: SocketAddr,
}

impl<'p> Seats<'p> {
    fn new(plan: &'p Plan) -> Self {
        let first = |seat| Occupant { id: u64::from(seat), peer: plan.peer(seat) };
        Self { plan, all: (1..=plan.nodes).map(first).collect(), next: FIRST_NEW }
    }

    fn at(&self, seat: u8) -> Occupant {
        self.all[usize::from(seat) - 1]
    }

    fn folder(&self, id: u64) -> PathBuf {
        self.plan.data().join(format!("node-{id}"))
    }

    /// A newcomer in this seat: its peer address is another than that of the one before it.
    fn newcomer(&mut self, seat: u8) -> Occupant {
        let first = self.plan.peer(seat);
        let mut second = first;
        second.set_port(first.port() + u16::from(self.plan.nodes));
        let peer = if self.at(seat).peer == first { second } else { first };
        let newcomer = Occupant { id: self.next, peer };
        self.all[usize::from(seat) - 1] = newcomer;
        self.next += 1;
        newcomer
    }

    /// How the one in this seat is started, to join the others.
    fn command(&self, seat: u8) -> Command {
        let Plan { cores, groups, election_ms, .. } = self.plan;
        let Occupant { id, peer } = self.at(seat);
        let peers: Vec<String> =
            self.all.iter().map(|Occupant { id, peer }| format!("{id}={peer}")).collect();
        let mut command = Command::new(&self.plan.binary);
        command
            .args(["serve", "--join", "--id", &id.to_string()])
            .arg("--dir")
            .arg(self.folder(id))
            .args(["--client", &self.plan.client(seat).to_string()])
            .args(["--peer", &peer.to_string()])
            .args(["--peers", &peers.join(",")])
            .args(["--cores", &cores.to_string()])
            .args(["--groups", &groups.to_string()])
            .args(["--election-ms", &election_ms.to_string()])
            .args(&self.plan.flags);
        command
    }

    /// `outrigger ctl … member …`, which says it until it is heard.
    fn member(&self, through: u8, words: &[&str]) -> Result<String, Failed> {
        let binary = self.plan.binary.to_string_lossy();
        let node = self.plan.client(through).to_string();
        let patience = PATIENCE_SECONDS.to_string();
        let ctl = [&binary, "ctl", "--node", &node, "--timeout", &patience, "member"];
        run_program(&[&ctl, words].concat())
    }
}

fn round(
    rig: &mut Rig<'_>,
    seats: &mut Seats<'_>,
    counters: &Counters,
    figures: &mut Figures,
    totals: &mut Totals,
) -> Result<(), Failed> {
    let plan = rig.plan;
    let seat = rig.random.u8(1..=plan.nodes);
    let old = seats.at(seat);
    let took = thread::scope(|scope| {
        counters.run(scope, plan);
        let took = rig.under_load(|rig| {
            pause(Duration::from_millis(rig.random.u64(50..300)));
            replace(rig, seats, seat)
        });
        counters.stop();
        took
    });
    figures.gaps.push(counters.take_gap());
    let whole = took?;
    figures.whole.push(whole);
    rig.ready(totals)?;
    let what = format!("node {} in place of {}", seats.at(seat).id, old.id);
    totals.findings.extend(counters.check(plan)?);
    totals.findings.extend(comes_back(seats, seat, old.id));
    rig.check(&what, totals)
}

/// From the death of whoever sits there until the cluster is whole with another; how long it took.
fn replace(rig: &mut Rig<'_>, seats: &mut Seats<'_>, seat: u8) -> Result<Duration, Failed> {
    let old = seats.at(seat).id;
    let through = (seat - 1 + rig.random.u8(1..=2)) % 3 + 1;
    let started = now();
    rig.kill(&[seat])?;
    wipe(&seats.folder(old))?;
    pause(Duration::from_millis(rig.random.u64(0..500)));
    let Occupant { id, peer } = seats.newcomer(seat);
    rig.start_as(seat, seats.command(seat), &format!("node {id} in place of {old}"))?;
    let (id, old, peer) = (id.to_string(), old.to_string(), peer.to_string());
    seats.member(through, &["add", &id, &peer])?;
    if rig.random.u8(..4) == 0 {
        seats.member(through, &["promote", &id])?;
        seats.member(through, &["remove", &old])?;
    } else {
        seats.member(through, &["replace", &old, &id])?;
    }
    until_whole(rig, seats, through, started)
}

fn wipe(folder: &PathBuf) -> Result<(), Failed> {
    fs::remove_dir_all(folder).map_err(|error| crate::machine::stopped(folder.display(), error))
}

/// Until the list has the three that sit there and nobody else, all voters in every group, none behind.
fn until_whole(
    rig: &mut Rig<'_>,
    seats: &Seats<'_>,
    through: u8,
    started: Instant,
) -> Result<Duration, Failed> {
    let mut ids: Vec<u64> = seats.all.iter().map(|occupant| occupant.id).collect();
    ids.sort_unstable();
    let groups = seats.plan.groups;
    let is_whole = || {
        let list = seats.member(through, &["list"]).ok()?;
        (members(&list, groups) == Some(ids.clone())).then_some(())
    };
    let waited = until("three voters in every group, none behind", WHOLE, is_whole);
    rig.cluster.all_run()?;
    waited.map(|_| started.elapsed())
}

/// The ids of `member list`, if all of them vote in every group, learn in none, and are fed at full speed.
fn members(list: &str, groups: u64) -> Option<Vec<u64>> {
    let mut ids = Vec::new();
    for row in list.lines().skip(1) {
        let columns: Vec<&str> = row.split_whitespace().collect();
        let [id, _, votes, learns, _, _, behind, ..] = columns[..] else { return None };
        let of = |column: &str| column.parse::<u64>().ok();
        if of(votes)? != groups || of(learns)? != 0 || of(behind)? != 0 {
            return None;
        }
        ids.push(of(id)?);
    }
    ids.sort_unstable();
    Some(ids)
}

/// Somebody tries to bring the old id back, which must be refused.
fn comes_back(seats: &Seats<'_>, seat: u8, old: u64) -> Option<Finding> {
    let through = seat % 3 + 1;
    let peer = seats.at(seat).peer.to_string();
    let added = seats.member(through, &["add", &old.to_string(), &peer]);
    added.is_ok().then(|| Finding::new(Wrong::Alien, format!("node {old} was taken back")))
}

/// All data are deleted and other names are used from now on: a run that goes on and on would be about
/// copying what it wrote before.
fn forget(rig: &mut Rig<'_>, number: u32) -> Result<(), Failed> {
    rig.delete_all(WHOLE)?;
    let writers = rig.ledgers.len();
    let first = writers * (number as usize);
    rig.ledgers = (first..first + writers).map(Ledger::new).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_whole_with_voters_alone() {
        let list = "node   peer address   votes learns leads lag behind config ids\n\
                    4      127.0.0.1:9        8      0     3   0      0  3..5\n\
                    2      127.0.0.1:7        8      0     5   2      0  3..5\n";
        assert_eq!(members(list, 8), Some(vec![2, 4]));
        assert_eq!(members(list, 9), None, "a voter in eight of nine");
        assert_eq!(members(&list.replace("8      0     3", "8      1     3"), 8), None);
        assert_eq!(members(&list.replace("2      0  3..5", "2      1  3..5"), 8), None);
    }
}
