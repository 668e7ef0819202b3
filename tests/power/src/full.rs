//! A file system without room: writes are refused by name, reads go on, also after a restart, and when there
//! is room again, writes are taken without anybody's help: by the processes that were refused it, and by those that
//! were started without it.

use std::fs;
use std::time::Duration;

use fastrand::Rng;
use tools::rounds::cluster::{now, pause};
use tools::rounds::resp::{Client, Reply};
use tools::rounds::subject::{Finding, Wrong};

use crate::machine::{Failed, run as program, stopped};
use crate::rig::{Common, Rig, Shelf, until};
use crate::totals::{Totals, spread};

/// Writes are taken again by then.
const LIMIT: Duration = Duration::from_secs(5);
/// When to stop waiting for it.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Most values of a MiB that are written to fill what the log has left.
const VALUES_MAX: u32 = 1_000;
/// A value large enough to fill a log soon, in bytes.
const VALUE_BYTES: usize = 1 << 20;
/// Left free, in bytes: less than a segment.
const LEFT_BYTES: u64 = 24 << 20;
/// Keys that are read while the disk is full.
const KEYS: u32 = 200;
/// What takes the room.
const BALLAST: &str = "ballast";

/// Fills the disk of all nodes, and then of one.
pub(crate) fn run(common: &Common, seed: u64) -> Result<(), Failed> {
    println!("seed {seed}; again: cargo power full {}", common.replay(seed));
    let mut random = Rng::with_seed(seed);
    let plan = common.plan(3, &[])?;
    let mut totals = Totals::new("full");
    let mut shelf = Shelf::new(&plan)?;
    let (mut resumed, mut restarted) = (Vec::new(), Vec::new());
    let mut refused = 0;
    for whole in [true, false] {
        let mut rig =
            Rig::fresh(&plan, Some(&mut shelf), common.writers, random.fork(), &mut totals)?;
        let victims = if whole { rig.all() } else { vec![rig.leader(0).unwrap_or(1)] };
        let what = if whole { "all disks full" } else { "one disk full" };
        let came_to = full(&mut rig, &victims, what, &mut totals)?;
        totals.faults += victims.len() as u64;
        totals.limit(&format!("{what}: taking writes again"), came_to.resumed, LIMIT);
        let again = format!("{what}, after a restart: taking writes again");
        totals.limit(&again, came_to.restarted, LIMIT);
        resumed.push(came_to.resumed);
        restarted.push(came_to.restarted);
        refused += came_to.refused;
        rig.ready(&mut totals)?;
        rig.check(what, &mut totals)?;
    }
    shelf.tell(&mut totals);
    totals.close(&format!(
        "refused_with_FULL={refused} resumed_ms: {} after_a_restart_ms: {} limit={}",
        spread(&mut resumed),
        spread(&mut restarted),
        LIMIT.as_millis()
    ))
}

/// What disks that were full came to.
struct CameTo {
    /// Writes refused by name.
    refused: u64,
    /// Until writes were taken again, by the processes that had been refused room.
    resumed: Duration,
    /// The same, by processes that were started on full disks.
    restarted: Duration,
}

/// Fills the disks and makes room, twice: below the processes that are refused it, and below others in their place.
fn full(
    rig: &mut Rig<'_>,
    victims: &[u8],
    what: &str,
    totals: &mut Totals,
) -> Result<CameTo, Failed> {
    rig.under_load(|_| {
        pause(Duration::from_millis(300));
        Ok(())
    })?;
    for key in 0..KEYS {
        let reply = insist(rig, 1, &["SET", &format!("small:{key}"), &key.to_string()])?;
        if reply != Reply::Simple("OK".into()) {
            return Err(stopped(what, format!("SET is answered {reply:?}")));
        }
    }
    fill(rig, victims, what, totals)?;
    let mut refused = while_full(rig, what, totals)?;
    if refused == 0 {
        totals.missed.push(format!("{what}: no write was refused with FULL"));
    }
    let resumed = make_room(rig, victims)?;
    fill(rig, victims, what, totals)?;
    // A start needs room for votes before anything can be read. One of three that starts leads nothing, and may have
    // nothing to refuse.
    rig.kill(victims)?;
    rig.first_reads(what, victims, totals, |rig, totals| {
        victims.iter().try_for_each(|id| rig.start(*id, what))?;
        rig.ready(totals)
    })?;
    refused += while_full(rig, &format!("{what}, after a restart"), totals)?;
    let restarted = make_room(rig, victims)?;
    Ok(CameTo { refused, resumed, restarted })
}

/// Takes the room, and writes until a write is refused, which must be by name, or there is nobody to refuse it.
fn fill(rig: &mut Rig<'_>, victims: &[u8], what: &str, totals: &mut Totals) -> Result<(), Failed> {
    for id in victims {
        take_room(rig, *id)?;
    }
    // Through a victim, so that what it leads is written by itself.
    let through = victims[0];
    let value = "x".repeat(VALUE_BYTES);
    let mut first = None;
    let mut written = 0;
    while first.is_none() && written < VALUES_MAX {
        written += 1;
        match insist(rig, through, &["SET", &format!("big:{}", written % 64), &value])? {
            Reply::Error(text) => first = Some(text),
            _ => rig.cluster.all_run()?,
        }
        // Who leads nothing any more has nothing to refuse.
        if written % 64 == 0 && victims.iter().all(|id| rig.leads_nothing(*id)) {
            return Ok(());
        }
    }
    let text =
        first.ok_or_else(|| stopped(what, format!("{written} MiB fit, and it is not full")))?;
    if !text.starts_with("FULL ") {
        let story = format!("{what}: a write is refused with {text:?}");
        totals.findings.push(Finding::new(Wrong::Alien, story));
    }
    Ok(())
}

/// Makes room; how soon writes were taken, by the processes that run.
fn make_room(rig: &mut Rig<'_>, victims: &[u8]) -> Result<Duration, Failed> {
    let started = now();
    for id in victims {
        let path = rig.plan.data_of(*id).join(BALLAST);
        fs::remove_file(&path).map_err(|error| stopped(path.display(), error))?;
    }
    let (plan, through) = (rig.plan, victims[0]);
    let (took, _) = until("writes after there is room", GIVE_UP, || {
        let mut client = Client::connect(plan.client(through)).ok()?;
        let taken = (0..64).all(|key| {
            let key = format!("big:{key}");
            matches!(client.ask(&["SET", &key, "after"]), Ok(Reply::Simple(_)))
        });
        taken.then(|| started.elapsed())
    })?;
    rig.cluster.all_run()?;
    Ok(took)
}

/// Everything is read through every node, and writes are refused with FULL or, where another node leads,
/// taken.
fn while_full(rig: &mut Rig<'_>, what: &str, totals: &mut Totals) -> Result<u64, Failed> {
    let mut refused = 0;
    let value = "y".repeat(VALUE_BYTES / 4);
    for round in 0..3 {
        for id in rig.all() {
            for key in 0..KEYS {
                let reply = insist(rig, id, &["GET", &format!("small:{key}")])?;
                if reply != Reply::Bulk(Some(key.to_string().into_bytes())) {
                    let story = format!("{what}: GET small:{key} through node {id} is {reply:?}");
                    totals.findings.push(Finding::new(Wrong::Lost, story));
                }
            }
            for key in 0..32 {
                // A name of this call alone: what another one was granted is there.
                let name = format!("{what}: {round}:{id}:{key}");
                match ask(rig, id, &["SET", &name, &value])? {
                    Reply::Error(text) if text.starts_with("FULL ") => {
                        refused += 1;
                        if insist(rig, id, &["EXISTS", &name])? != Reply::Integer(0) {
                            let story = format!("{what}: {name} was refused and is there");
                            totals.findings.push(Finding::new(Wrong::RefusedSeen, story));
                        }
                    }
                    // Nobody says that it is full: an election, or a machine that is busy.
                    Reply::Error(text) if is_passing(&text) => {}
                    Reply::Error(text) => {
                        let story = format!("{what}: a write is refused with {text:?}");
                        totals.findings.push(Finding::new(Wrong::Alien, story));
                    }
                    // Another node leads, or a log has a little room left.
                    _ => {}
                }
            }
        }
        rig.cluster.all_run()?;
    }
    Ok(refused)
}

/// A file over everything that is free but for less than a segment.
fn take_room(rig: &Rig<'_>, id: u8) -> Result<(), Failed> {
    let folder = rig.plan.data_of(id);
    let folder_name = folder.to_string_lossy();
    let free = program(&["df", "-B1", "--output=avail", &folder_name])?;
    let free = free.lines().last().and_then(|line| line.trim().parse::<u64>().ok());
    let free = free.ok_or_else(|| stopped("df", "says no number"))?;
    let length = free.saturating_sub(LEFT_BYTES).to_string();
    let path = folder.join(BALLAST);
    program(&["fallocate", "-l", &length, &path.to_string_lossy()]).map(drop)
}

/// Asks again as long as an election is under way, and no longer than writes may take to come back: on a busy
/// machine elections come by themselves. For what does the same a second time.
fn insist(rig: &Rig<'_>, id: u8, command: &[&str]) -> Result<Reply, Failed> {
    let started = now();
    loop {
        match ask(rig, id, command)? {
            Reply::Error(text) if is_passing(&text) && started.elapsed() < LIMIT => {
                pause(Duration::from_millis(50));
            }
            reply => return Ok(reply),
        }
    }
}

/// Errors that are nobody's fault and pass.
fn is_passing(text: &str) -> bool {
    ["NOLEADER ", "UNCERTAIN ", "BUSY "].iter().any(|word| text.starts_with(word))
}

fn ask(rig: &Rig<'_>, id: u8, command: &[&str]) -> Result<Reply, Failed> {
    let asked = Client::connect(rig.plan.client(id)).and_then(|mut client| client.ask(command));
    asked.map_err(|error| stopped(format!("node {id}, {}", command[0]), error))
}
