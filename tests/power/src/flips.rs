//! Bits that flip at rest, in turn in everything a node relies on: it is to notice, to be whole again without an
//! operator, and nobody is ever to read a wrong value.
//!
//! ```text
//!   open        the segment that was written last, in front of what proves it durable    at rest
//!   first       FIRST, which says where the log begins                                   at rest
//!   sealed      a segment that another follows                                           at rest
//!   snapshot    pieces of a snapshot in the log, which was cut for an earlier flip       at rest
//!   read-back   a sealed segment of a leader, from which a follower is fed then          while it runs
//!   identity    identity.toml                                                            at rest
//! ```
//!
//! A node that starts on a damaged log names segment and offset, has the others tell it what is gone, and lets the
//! segment leave its log. A leader that finds damage on the way to a follower sends it a snapshot in its place.

mod places;

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use outrigger::runtime::identity::text::Saved;
use outrigger::wal::parse_first;
use tools::rounds::cluster::pause;

use crate::disk::Mode;
use crate::machine::{Failed, stopped};
use crate::rig::{Common, Rig, Shelf, logs, of_group, until};
use crate::totals::Totals;

use places::Place;

/// How long a node may take to notice, and to be whole again.
const NOTICE: Duration = Duration::from_secs(60);
/// Once in so many looks for it is asked whether there is still something to wait for.
const LOOKS: u32 = 40;
/// Whose file, where, and how much it had said by then.
type Struck = (u8, Place, u64);

/// A disk, in bytes. Half a minute of writers with new keys each makes more than a smaller one holds, and full
/// disks have a command of their own.
const DISK_BYTES: u64 = 2 << 30;
/// As for cuts, with nodes that keep little of what they have written in memory: what a leader has there, it does not
/// read.
const FLAGS: [&str; 4] = ["--log-bytes", "268435456", "--log-cache-bytes", "8388608"];
/// What that leaves for all groups.
const KEPT_BYTES: usize = 8 << 20;
/// How often a round is played until the bit is in a reader's way.
const ATTEMPTS_MAX: u32 = 20;

/// How many.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Flipped bits, one per round.
    #[arg(long, default_value_t = 6)]
    pub(crate) times: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Open,
    First,
    Sealed,
    Snapshot,
    ReadBack,
    Identity,
}

impl Class {
    /// In the order of their turns.
    const ALL: [Self; 6] =
        [Self::Open, Self::First, Self::Sealed, Self::Snapshot, Self::ReadBack, Self::Identity];

    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::First => "first",
            Self::Sealed => "sealed",
            Self::Snapshot => "snapshot",
            Self::ReadBack => "read-back",
            Self::Identity => "identity",
        }
    }
}

/// What the nodes did about one class.
#[derive(Debug, Default, Clone, Copy)]
struct Outcomes {
    flips: u64,
    detected: u64,
    repaired: u64,
    refused: u64,
}

/// Flips the bits.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { times, common } = arguments;
    println!("seed {seed}; again: cargo power flips --times {times} {}", common.replay(seed));
    let mut random = Rng::with_seed(seed);
    let plan = common.plan(3, &FLAGS)?;
    let mut totals = Totals::new("flips");
    let mut shelf = Shelf::of(&plan, DISK_BYTES)?;
    let mut outcomes = [Outcomes::default(); Class::ALL.len()];
    let mut done = 0;
    while done < *times && !totals.is_broken() {
        let mut rig =
            Rig::fresh(&plan, Some(&mut shelf), common.writers, random.fork(), &mut totals)?;
        // Every cluster has them all, in this order: what was damaged first makes FIRST.
        let rounds = common.fresh.next_multiple_of(Class::ALL.len() as u32);
        for turn in 0..rounds.min(times - done) {
            let turn = turn as usize % Class::ALL.len();
            done += 1;
            let round = Round { number: done, class: Class::ALL[turn] };
            round.until_it_strikes(&mut rig, &mut outcomes[turn], &mut totals)?;
        }
        println!("flips: {done} of {times}, {} acknowledged", totals.counts.acknowledged);
    }
    shelf.tell(&mut totals);
    let mut sum = Outcomes::default();
    for (class, it) in Class::ALL.iter().zip(outcomes) {
        let Outcomes { flips, detected, repaired, refused } = it;
        println!(
            "flips class={} flips={flips} detected={detected} repaired={repaired} \
             refused_to_start={refused}",
            class.name()
        );
        sum.detected += detected;
        sum.repaired += repaired;
        sum.refused += refused;
    }
    let Outcomes { detected, repaired, refused, .. } = sum;
    totals.close(&format!("detected={detected} repaired={repaired} refused_to_start={refused}"))
}

/// The entry that a leader is to read for a follower, and the leader's term.
#[derive(Debug, Clone, Copy)]
struct Fed {
    group: u64,
    index: u64,
    term: u64,
}

impl Fed {
    /// Whether this node led all the time, and has it in its log: then it was read.
    fn is_needed(self, rig: &Rig<'_>, leader: u8) -> bool {
        let Self { group, index, term } = self;
        let info = rig.info(leader).unwrap_or_default();
        rig.leader(group) == Some(leader)
            && of_group(&info, group, "term") == Some(term)
            && of_group(&info, group, "first").is_some_and(|first| first <= index)
    }
}

struct Round {
    number: u32,
    class: Class,
}

impl Round {
    fn what(&self) -> String {
        format!("flip {} ({})", self.number, self.class.name())
    }

    /// Below a leader a bit is read only if that leads until it has fed the follower. One that was not is flipped
    /// back, and the round is played again.
    fn until_it_strikes(
        &self,
        rig: &mut Rig<'_>,
        outcomes: &mut Outcomes,
        totals: &mut Totals,
    ) -> Result<(), Failed> {
        for _ in 0..ATTEMPTS_MAX {
            if self.run(rig, outcomes, totals)? {
                return Ok(());
            }
        }
        Err(stopped(self.what(), format!("no leader fed anybody in {ATTEMPTS_MAX} attempts")))
    }

    /// Whether the bit was in somebody's way.
    fn run(
        &self,
        rig: &mut Rig<'_>,
        outcomes: &mut Outcomes,
        totals: &mut Totals,
    ) -> Result<bool, Failed> {
        let mut led = None;
        let (victim, place, heard) = match self.class {
            Class::ReadBack => {
                let Some((below, entry)) = self.below_a_leader(rig, totals)? else {
                    println!("{}: nothing is sealed that a follower lacks; again", self.what());
                    rig.ready(totals)?;
                    return rig.check(&self.what(), totals).map(|()| false);
                };
                led = Some(entry);
                below
            }
            // The log of a node that was damaged before was cut, and begins with snapshots.
            Class::First | Class::Snapshot => {
                let mut cut = all_logs(rig);
                cut.retain(|(_, log)| log.join("FIRST").exists());
                self.at_rest(rig, cut, totals)?
            }
            _ => {
                let logs = all_logs(rig);
                self.at_rest(rig, logs, totals)?
            }
        };
        let others: Vec<u8> = rig.all().into_iter().filter(|id| *id != victim).collect();
        totals.faults += 1;
        outcomes.flips += 1;
        let what = format!("{}, node {victim}, {place}", self.what());
        let ended = rig.first_reads(&what, &[victim], totals, |rig, _| {
            Ok(rig.ended_or_ready(victim, NOTICE))
        })?;
        if let Some(status) = ended {
            rig.gone(victim);
            outcomes.refused += 1;
            let said = rig.cluster.last_words(victim);
            totals.missed.push(format!("{what}: it ended with {status} and says {said:?}"));
            place.flip()?;
            rig.start(victim, &format!("{what}, flipped back"))?;
        } else {
            // A segment leaves the log when something was written behind it.
            let (told, whole) = rig.under_load(|rig| {
                let mut looks = 0;
                let told = until("a warning", NOTICE, || {
                    looks += 1;
                    let is_moot = looks % LOOKS == 0
                        && led.is_some_and(|entry| !entry.is_needed(rig, victim));
                    // Asked afterwards: it may be the warning that made it so.
                    let is_told = said_since(rig, victim, heard).contains(&place.told);
                    (is_told || is_moot).then_some(is_told)
                });
                let told = told.is_ok_and(|(is_told, _)| is_told);
                if !told {
                    return Ok((false, false));
                }
                let whole = until("the node whole again", NOTICE, || {
                    (place.is_mended() && is_whole(rig, victim)).then_some(())
                });
                Ok((told, whole.is_ok()))
            })?;
            if let Some(entry) = led
                && !told
                && !entry.is_needed(rig, victim)
            {
                println!("{what}: another leads since, or the log was cut behind it; again");
                // Or the whole segment has left the log.
                if !place.is_mended() {
                    place.flip()?;
                }
                totals.faults -= 1;
                outcomes.flips -= 1;
                rig.ready(totals)?;
                return rig.check(&what, totals).map(|()| false);
            }
            outcomes.detected += u64::from(told);
            outcomes.repaired += u64::from(told && whole);
            if !told {
                totals.missed.push(format!("{what}: nobody noticed"));
            } else if !whole {
                let info = rig.info(victim).unwrap_or_default();
                let about = info.lines().filter(|line| {
                    line.starts_with("corrupt") || line.starts_with("groups_recalling")
                });
                let about: Vec<&str> = about.collect();
                totals.missed.push(format!("{what}: not whole again; it says {about:?}"));
            }
        }
        rig.ready(totals)?;
        if self.class != Class::ReadBack {
            let hurt = others.iter().filter(|id| {
                rig.info(**id).is_none_or(|info| number(&info, "groups_recalling") != Some(0))
            });
            let hurt: Vec<&u8> = hurt.collect();
            if !hurt.is_empty() {
                totals.missed.push(format!("{what}: nodes {hurt:?} were hurt, too"));
            }
        }
        rig.check(&what, totals).map(|()| true)
    }

    /// Stops a node under load, flips a bit of one of these logs or beside it, and starts it again: which, where, and
    /// how much it had said by then.
    fn at_rest(
        &self,
        rig: &mut Rig<'_>,
        mut logs: Vec<(u8, PathBuf)>,
        totals: &mut Totals,
    ) -> Result<Struck, Failed> {
        rig.random.shuffle(&mut logs);
        let victim = logs.first().map(|(id, _)| *id);
        let victim = victim.ok_or_else(|| stopped(self.what(), "no log was cut yet"))?;
        if self.class == Class::Sealed {
            seal(rig, &[victim], totals)?;
        }
        rig.under_load(|rig| {
            // Every log is to hold something.
            pause(Duration::from_millis(400) * u32::from(rig.plan.cores));
            rig.cluster.all_run()?;
            // Of what the node has in its page cache, nothing may be left.
            rig.cut(&[victim], Mode::Keep, totals)
        })?;
        let dir = rig.plan.data_of(victim);
        let random = &mut rig.random;
        let mut in_log = |core: &Path| match self.class {
            Class::Open => places::in_last(core, random),
            Class::Sealed => places::in_sealed(core, random),
            Class::Snapshot => places::in_snapshot(core, random),
            Class::First => places::in_file(&core.join("FIRST"), random),
            Class::Identity => places::in_file(&dir.join("identity.toml"), random),
            Class::ReadBack => unreachable!("that is done below a running node"),
        };
        // One of its logs may have nothing of this kind.
        let mut place = Err(io::Error::other("it has no log"));
        for (_, core) in logs.iter().filter(|(id, _)| *id == victim) {
            place = place.or_else(|_| in_log(core));
        }
        let place = place.map_err(|error| stopped(self.what(), error))?;
        place.flip()?;
        let heard = heard(rig, victim);
        rig.start(victim, &format!("{}, {place}", self.what()))?;
        Ok((victim, place, heard))
    }

    /// Stops a follower, and when the leader of what it lacks has sealed that away, flips a bit there and starts
    /// the follower: the leader, where, and how much it had said by then. None if too little was written.
    fn below_a_leader(
        &self,
        rig: &mut Rig<'_>,
        totals: &mut Totals,
    ) -> Result<Option<(Struck, Fed)>, Failed> {
        let away = rig.random.u8(1..=rig.plan.nodes);
        let others: Vec<u8> = rig.all().into_iter().filter(|id| *id != away).collect();
        let known = rig.under_load(|rig| {
            pause(Duration::from_millis(200));
            rig.kill(&[away])?;
            pause(Duration::from_millis(300));
            // What it led and sent before it died may have reached one of them only, and it has that itself.
            let infos: Vec<String> = others.iter().filter_map(|id| rig.info(*id)).collect();
            let last = |group| infos.iter().filter_map(|info| of_group(info, group, "last")).max();
            let known: Vec<u64> =
                (0..rig.plan.groups).map(|group| last(group).unwrap_or(0)).collect();
            pause(Duration::from_secs(1));
            Ok(known)
        })?;
        // What they wrote so far is sealed; and what a start reads behind it puts it out of their memory.
        seal(rig, &others, totals)?;
        seal(rig, &others, totals)?;
        let mut groups: Vec<u64> = (0..rig.plan.groups).collect();
        rig.random.shuffle(&mut groups);
        let mut found = None;
        for group in groups {
            let (leader, _) = until("a leader", NOTICE, || {
                rig.leader(group).filter(|leader| others.contains(leader))
            })?;
            let kept = KEPT_BYTES / rig.plan.groups as usize;
            // Of what its log no longer begins with it sends a snapshot.
            let info = rig.info(leader).unwrap_or_default();
            let gone = of_group(&info, group, "first").unwrap_or(0).saturating_sub(1);
            let known = known[group as usize].max(gone);
            // A group is in one of them.
            for core in logs(rig.plan, leader) {
                let place = places::in_entries(&core, group, known, kept, &mut rig.random)
                    .map_err(|error| stopped(self.what(), error))?;
                found = found.or(place.map(|(index, place)| (group, leader, index, place)));
            }
            if found.is_some() {
                break;
            }
        }
        // A place in a segment that the leader gives up meanwhile is none.
        let found = found.filter(|(.., place)| !place.is_mended());
        let Some((group, leader, index, place)) = found else {
            rig.start(away, &self.what())?;
            return Ok(None);
        };
        place.flip()?;
        let heard = heard(rig, leader);
        let term = rig.term(leader, group).unwrap_or_default();
        rig.start(away, &format!("{}, to be fed by node {leader}", self.what()))?;
        Ok(Some(((leader, place, heard), Fed { group, index, term })))
    }
}

/// Every log of every node, and whose it is.
fn all_logs(rig: &Rig<'_>) -> Vec<(u8, PathBuf)> {
    let of = |id| logs(rig.plan, id).into_iter().map(move |log| (id, log));
    rig.all().into_iter().flat_map(of).collect()
}

/// Has nodes begin another segment: they are killed and started again.
fn seal(rig: &mut Rig<'_>, ids: &[u8], totals: &mut Totals) -> Result<(), Failed> {
    rig.under_load(|rig| {
        pause(Duration::from_millis(300));
        rig.kill(ids)
    })?;
    for id in ids {
        rig.start(*id, "another segment")?;
    }
    let running = rig.all().into_iter().all(|id| rig.cluster.pid(id).is_some());
    if running {
        return rig.ready(totals);
    }
    let groups = rig.plan.groups;
    let led = || (0..groups).all(|group| rig.leader(group).is_some_and(|it| ids.contains(&it)));
    let found = until("leaders among those that run", NOTICE, || led().then_some(()));
    found.map(drop).map_err(|failed| with_words(rig, ids, failed))
}

/// What stopped a run, after what the running nodes say about it.
fn with_words(rig: &Rig<'_>, ids: &[u8], failed: Failed) -> Failed {
    for id in ids {
        println!("node {id} says {:?}", rig.info(*id));
    }
    failed
}

/// Nothing of it is gone, or everything is back.
fn is_whole(rig: &Rig<'_>, id: u8) -> bool {
    rig.info(id).is_some_and(|info| {
        number(&info, "groups_recalling") == Some(0)
            && number(&info, "corrupt_detected") == number(&info, "corrupt_repaired")
    })
}

fn number(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line?.trim().parse().ok()
}

/// How much a node has said.
fn heard(rig: &Rig<'_>, id: u8) -> u64 {
    fs::metadata(rig.plan.log(id)).map_or(0, |log| log.len())
}

fn said_since(rig: &Rig<'_>, id: u8, since: u64) -> String {
    let mut text = Vec::new();
    if let Ok(mut log) = fs::File::open(rig.plan.log(id))
        && log.seek(SeekFrom::Start(since)).is_ok()
    {
        // What cannot be read was not said.
        let _ = log.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Whether the small file at this path says what it should again.
fn is_readable(path: &std::path::Path) -> bool {
    let Ok(text) = fs::read_to_string(path) else { return false };
    if path.ends_with("FIRST") { parse_first(&text).is_some() } else { Saved::parse(&text).is_ok() }
}
