//! A flush or a write that fails: the process ends, and nothing it said before is untrue.
//!
//! Half of the rounds have a cluster of one node. There a rule can be held exactly: what was sent after
//! the error was returned cannot be durable, so it must not be acknowledged. After its end the disk loses
//! power, and a flush that failed has made nothing durable: whoever repeated it has lost data.
//!
//! A disk does not know who asks it to flush. The one that fails may be the file system's, for its journal: ext4
//! turns read-only then, and the process hears of it with its next call only. Would the next flush succeed, then a
//! disk had told the process that something is durable which it had just forgotten, and nobody could notice.
//! So some more fail: more than the file system asks for after that, whatever the pace of the machine.
//!
//! And starts of which every flush fails from some flush on, another one in each round. What a start reads may lie in a
//! cache only, so it is flushed before anything is built on it (contract row 27): a process that cannot do that ends, and
//! says which segment it is.

use std::ops::Range;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tools::rounds::cluster::{Plan, now, pause};
use tools::rounds::ledger::Ledger;
use tools::rounds::resp::{Client, Reply, encode};
use tools::rounds::subject::{Finding, Wrong};

use crate::cuts::{FLAGS, slow_down};
use crate::disk::{Faults, Mode};
use crate::machine::Failed;
use crate::rig::{Common, Rig, Shelf};
use crate::totals::{Totals, spread};

/// The process must have ended by then.
const END: Duration = Duration::from_secs(1);
/// So much later if writes fail for want of room: who makes spare segments may meet that first, takes it for a full disk,
/// and looks again after a second (`src/runtime/segments.rs`, `RETRY`).
const NO_ROOM: Duration = Duration::from_secs(1);
/// When to stop waiting for it.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Flushes that fail in a row: the file system's commit has two, and then its journal is over.
const FAIL_SYNCS: u32 = 4;
/// More flushes than a start makes before it serves: each round one more of them succeeds before the others fail.
const START_SYNCS: u32 = 12;
const START_ERRORS: &str = "start-errors";
/// What a start says that cannot flush what it has read.
const CANNOT_SYNC: &str = "cannot sync ";
/// Commands one writer sends at a time.
const PIPELINE: usize = 12;

/// How many.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Rounds in which flushes fail, four in a row.
    #[arg(long, default_value_t = 4)]
    pub(crate) times: u32,
    /// Rounds in which all writes fail instead, with EIO or ENOSPC.
    #[arg(long, default_value_t = 2)]
    pub(crate) write_times: u32,
    /// Starts of which all flushes fail from some flush on, another one each time.
    #[arg(long, default_value_t = START_SYNCS)]
    pub(crate) start_times: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// One round, by its number; nothing if nothing failed in it.
type Round = fn(&mut Rig<'_>, u32, &mut Totals) -> Result<Option<End>, Failed>;

/// The end of a process after an error.
struct End {
    /// How long it lived on.
    took: Duration,
    said: String,
}

/// Runs the rounds.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { times, write_times, start_times, common } = arguments;
    println!(
        "seed {seed}; again: cargo power fsync-errors --times {times} --write-times {write_times} \
         --start-times {start_times} {}",
        common.replay(seed)
    );
    let mut random = Rng::with_seed(seed);
    // Otherwise a start flushes forty times to find out which method is the faster.
    let start_flags = [&FLAGS[..], &["--flush-method", "dsync"]].concat();
    let kinds: [(_, _, Round, _, &[&str]); 3] = [
        ("fsync-errors", *times, flush_fails, END, &FLAGS),
        ("write-errors", *write_times, write_fails, END + NO_ROOM, &FLAGS),
        (START_ERRORS, *start_times, start_fails, END, &start_flags),
    ];
    for (name, times, round, limit, flags) in kinds {
        if times == 0 {
            continue;
        }
        let (three, one) = (common.plan(3, flags)?, common.plan(1, flags)?);
        let mut totals = Totals::new(name);
        let mut ends = Vec::new();
        let half = times - times / 2;
        let halves = [(&one, 0..half), (&three, half..times)];
        let mut result = Ok(());
        for (plan, rounds) in halves.into_iter().filter(|half| !half.1.is_empty()) {
            let mut shelf = Shelf::new(plan)?;
            result = some(
                common,
                &mut shelf,
                plan,
                (rounds, round),
                &mut random,
                &mut ends,
                &mut totals,
            );
            shelf.tell(&mut totals);
            if result.is_err() || totals.is_broken() {
                shelf.save(plan);
                break;
            }
        }
        for end in &ends {
            totals.limit("the end of a process after the error", end.took, limit);
        }
        let flushes_what_it_read = ends.iter().any(|end| end.said.contains(CANNOT_SYNC));
        if name == START_ERRORS && START_SYNCS <= times && !flushes_what_it_read {
            totals
                .missed
                .push(format!("no start flushed what it had read: none said `{CANNOT_SYNC}`"));
        }
        let mut ends: Vec<Duration> = ends.iter().map(|end| end.took).collect();
        let closed = totals.close(&format!("process_ended_ms: {}", spread(&mut ends)));
        result?;
        closed?;
    }
    Ok(())
}

fn some(
    common: &Common,
    shelf: &mut Shelf,
    plan: &Plan,
    (rounds, round): (Range<u32>, Round),
    random: &mut Rng,
    ends: &mut Vec<End>,
    totals: &mut Totals,
) -> Result<(), Failed> {
    let mut left = rounds;
    while !left.is_empty() {
        let mut rig = Rig::fresh(plan, Some(shelf), common.writers, random.fork(), totals)?;
        for number in left.by_ref().take(common.fresh as usize) {
            ends.extend(round(&mut rig, number + 1, totals)?);
            if totals.is_broken() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn flush_fails(rig: &mut Rig<'_>, round: u32, totals: &mut Totals) -> Result<Option<End>, Failed> {
    let fails = |faults: &mut Faults| faults.fail_syncs = FAIL_SYNCS;
    device_fails(rig, &format!("fsync error {round}"), fails, totals)
}

fn write_fails(rig: &mut Rig<'_>, round: u32, totals: &mut Totals) -> Result<Option<End>, Failed> {
    let fails = |faults: &mut Faults| match round % 2 {
        // A disk that lies about its size has no room under a file that exists.
        0 => faults.no_space = true,
        _ => faults.fail_writes = u32::MAX,
    };
    device_fails(rig, &format!("write error {round}"), fails, totals)
}

/// Something fails under load.
fn device_fails(
    rig: &mut Rig<'_>,
    what: &str,
    fails: impl FnOnce(&mut Faults),
    totals: &mut Totals,
) -> Result<Option<End>, Failed> {
    let victim = rig.random.u8(1..=rig.plan.nodes);
    slow_down(rig);
    let seen = Seen::default();
    let took = load(rig, &seen, |rig| {
        pause(Duration::from_millis(rig.random.u64(80..300)));
        rig.cluster.all_run()?;
        rig.device(victim).disk.arm(fails);
        totals.faults += 1;
        let ended = rig.cluster.wait_end(victim, GIVE_UP);
        let end = now();
        let Some(status) = ended else {
            return Err(Failed::Stopped(format!("{what}: node {victim} runs on after it")));
        };
        rig.gone(victim);
        let Some(failed) = rig.device(victim).disk.failed_at() else {
            let said = rig.cluster.last_words(victim);
            return Err(Failed::Stopped(format!("node {victim} ended before {what}: {said}")));
        };
        end_is_failure(status, what, victim, totals);
        if 1 < rig.plan.nodes {
            pause(Duration::from_millis(100));
        } else if let Some(sent) = seen.last_sent().filter(|sent| failed < *sent) {
            let after = (sent - failed).as_micros();
            let story = format!("{what}: a write sent {after} µs after the error is acknowledged");
            totals.findings.push(Finding::new(Wrong::Lost, story));
        }
        Ok(end - failed)
    })?;
    let said = rig.cluster.last_words(victim);
    come_back(rig, victim, what, totals)?;
    Ok(Some(End { took, said }))
}

/// From one flush of a start on all fail.
fn start_fails(rig: &mut Rig<'_>, round: u32, totals: &mut Totals) -> Result<Option<End>, Failed> {
    let what = format!("start {round} without a flush");
    let victim = rig.random.u8(1..=rig.plan.nodes);
    load(rig, &Seen::default(), |rig| {
        pause(Duration::from_millis(rig.random.u64(80..300)));
        rig.cluster.all_run()?;
        rig.kill(&[victim])
    })?;
    let good_syncs = (round - 1) % START_SYNCS;
    rig.device(victim)
        .disk
        .arm(|faults| *faults = Faults { good_syncs, fail_syncs: u32::MAX, ..Faults::default() });
    totals.faults += 1;
    rig.start(victim, &what)?;
    let mut ended = rig.ended_or_ready(victim, GIVE_UP);
    rig.device(victim).disk.set(|faults| faults.fail_syncs = 0);
    let failed = rig.device(victim).disk.failed_at();
    if ended.is_none() && failed.is_some() {
        ended = rig.cluster.wait_end(victim, GIVE_UP);
    }
    let end = now();
    let said = rig.cluster.last_words(victim);
    let Some(failed) = failed else {
        // It asked for fewer.
        rig.kill(&[victim])?;
        come_back(rig, victim, &what, totals)?;
        return Ok(None);
    };
    let Some(status) = ended else {
        return Err(Failed::Stopped(format!("{what}: node {victim} runs on after it")));
    };
    rig.gone(victim);
    end_is_failure(status, &what, victim, totals);
    come_back(rig, victim, &what, totals)?;
    Ok(Some(End { took: end - failed, said }))
}

fn end_is_failure(status: ExitStatus, what: &str, victim: u8, totals: &mut Totals) {
    if status.code().is_none_or(|code| code == 0) {
        totals.missed.push(format!("{what}: node {victim} ended with {status}"));
    }
}

/// The power of a node goes, whose process has ended; it starts again, and everything is read.
fn come_back(rig: &mut Rig<'_>, victim: u8, what: &str, totals: &mut Totals) -> Result<(), Failed> {
    let mode = [Mode::Lose, Mode::Random, Mode::Torn][rig.random.usize(..3)];
    rig.crash(&[victim], mode, totals)?;
    rig.first_reads(what, &[victim], totals, |rig, totals| {
        rig.start(victim, what)?;
        rig.ready(totals)
    })?;
    rig.check(what, totals)
}

/// When the latest command was sent that was acknowledged.
#[derive(Default)]
struct Seen {
    sent: Mutex<Option<Instant>>,
    stop: AtomicBool,
}

impl Seen {
    fn last_sent(&self) -> Option<Instant> {
        *self.sent.lock().expect("no holder of this lock panics")
    }

    fn acknowledged(&self, sent: Instant) {
        let mut last = self.sent.lock().expect("no holder of this lock panics");
        *last = last.max(Some(sent));
    }

    fn write(&self, ledger: &mut Ledger, plan: &Plan, random: &mut Rng) {
        while !self.stop.load(Ordering::Relaxed) {
            let node = random.u8(1..=plan.nodes);
            let Ok(mut client) = Client::connect(plan.client(node)) else {
                pause(Duration::from_millis(random.u64(2..30)));
                continue;
            };
            while !self.stop.load(Ordering::Relaxed) {
                match self.pipeline(ledger, &mut client, node, random) {
                    Some(0) => {}
                    Some(_) => pause(Duration::from_millis(random.u64(2..30))),
                    None => break,
                }
            }
        }
    }

    /// How many commands were refused, if the connection is still good.
    fn pipeline(
        &self,
        ledger: &mut Ledger,
        client: &mut Client,
        node: u8,
        random: &mut Rng,
    ) -> Option<u32> {
        let operations = ledger.issue(random.usize(1..=PIPELINE), node, random);
        let mut bytes = Vec::new();
        for operation in &operations {
            encode(&ledger.command(*operation), &mut bytes);
        }
        let sent = now();
        if client.send(&bytes).is_err() {
            return None;
        }
        let mut refused = 0;
        for operation in operations {
            let reply = client.receive().ok()?;
            match reply {
                Reply::Error(_) => refused += 1,
                _ => self.acknowledged(sent),
            }
            ledger.on_answer(operation, &reply);
        }
        Some(refused)
    }
}

fn load<T>(
    rig: &mut Rig<'_>,
    seen: &Seen,
    meanwhile: impl FnOnce(&mut Rig<'_>) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let plan = rig.plan;
    let mut ledgers = std::mem::take(&mut rig.ledgers);
    let result = thread::scope(|scope| {
        for ledger in &mut ledgers {
            let mut random = rig.random.fork();
            scope.spawn(move || seen.write(ledger, plan, &mut random));
        }
        let result = meanwhile(rig);
        seen.stop.store(true, Ordering::Relaxed);
        result
    });
    rig.ledgers = ledgers;
    result
}
