//! Counters that are incremented and read through every node all the time, faults or not, and the proof
//! that each had one value at a time.
//!
//! A counter only rises, so its history needs no search. It is linearizable if
//!
//! ```text
//!   no answer is older than one that had been given before its question was asked   (no stale read)
//!   no two increments are answered the same, none as low as an answer before it     (each counts once)
//!   no answer is above what has been asked for                                      (nothing twice)
//!   and in the end: acknowledged <= value <= asked for                              (nothing lost)
//! ```
//!
//! There is a counter in every group. How long no increment of a group was acknowledged, through whatever
//! node, is the gap: for so long nobody could write there.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use tools::rounds::cluster::{Plan, now, pause};
use tools::rounds::resp::{Client, Reply};
use tools::rounds::subject::{Finding, Wrong};

use crate::machine::Failed;
use crate::rig::{key_of, until};

/// Between two questions of one client.
const BETWEEN: Duration = Duration::from_millis(10);
/// How long the last value may be refused, when nothing is wrong any more.
const READ: Duration = Duration::from_secs(60);

/// All counters of a cluster, one per group.
pub(crate) struct Counters {
    all: Vec<Counter>,
    stop: AtomicBool,
    findings: Mutex<Vec<Finding>>,
}

struct Counter {
    key: String,
    /// The highest answer so far.
    floor: AtomicU64,
    /// Increments that were sent.
    asked: AtomicU64,
    /// Answers held against the others.
    answers: AtomicU64,
    acknowledged: Mutex<Acknowledged>,
}

struct Acknowledged {
    values: BTreeSet<u64>,
    last: Instant,
    gap: Duration,
}

impl Counters {
    /// One in each group; those of one name go on where the last of this name ended.
    pub(crate) fn new(groups: u64, name: &str) -> Self {
        let key = |group| format!("{name}{{{}}}", key_of(group, groups));
        Self {
            all: (0..groups).map(|group| Counter::new(key(group))).collect(),
            stop: AtomicBool::new(false),
            findings: Mutex::default(),
        }
    }

    /// Clients of every counter through every node, until [`stop`](Self::stop).
    pub(crate) fn run<'s>(&'s self, scope: &'s Scope<'s, '_>, plan: &'s Plan) {
        self.stop.store(false, Ordering::Relaxed);
        for counter in &self.all {
            counter.lock().last = now();
            for node in 1..=plan.nodes {
                scope.spawn(move || self.ask(counter, plan, node));
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn ask(&self, counter: &Counter, plan: &Plan, node: u8) {
        let mut client = None;
        while !self.stop.load(Ordering::Relaxed) {
            for command in ["INCR", "GET"] {
                let connected =
                    client.take().map_or_else(|| Client::connect(plan.client(node)), Ok);
                let Ok(mut connection) = connected else { continue };
                // A connection that failed is not used again.
                if let Ok(found) = counter.ask(&mut connection, command) {
                    client = Some(connection);
                    self.found(node, found);
                }
            }
            pause(BETWEEN);
        }
    }

    fn found(&self, node: u8, found: Option<Finding>) {
        let through = |finding: Finding| {
            let what = format!("counter, through node {node}: {}", finding.what);
            Finding { what, ..finding }
        };
        let mut findings = self.findings.lock().expect("no holder of this lock panics");
        findings.extend(found.map(through));
    }

    /// The longest time for which a group took no increment, since this was last asked.
    pub(crate) fn take_gap(&self) -> Duration {
        let gap = |counter: &Counter| {
            let mut acknowledged = counter.lock();
            let gap = acknowledged.gap.max(acknowledged.last.elapsed());
            acknowledged.gap = Duration::ZERO;
            gap
        };
        self.all.iter().map(gap).max().unwrap_or_default()
    }

    /// Nobody asks any more: what every counter holds, through every node, and whatever was found.
    pub(crate) fn check(&self, plan: &Plan) -> Result<Vec<Finding>, Failed> {
        for node in 1..=plan.nodes {
            for counter in &self.all {
                let value = || {
                    let mut client = Client::connect(plan.client(node)).ok()?;
                    let reply = client.ask(&["GET", &counter.key]).ok()?;
                    value_of(&reply)
                };
                let what = format!("{} read through node {node}", counter.key);
                let (value, _) = until(&what, READ, value)?;
                self.found(node, counter.judge_end(value));
            }
        }
        Ok(std::mem::take(&mut self.findings.lock().expect("no holder of this lock panics")))
    }

    /// Answers held against the others so far.
    pub(crate) fn answers(&self) -> u64 {
        self.all.iter().map(|counter| counter.answers.load(Ordering::Relaxed)).sum()
    }
}

impl Counter {
    fn new(key: String) -> Self {
        let acknowledged =
            Acknowledged { values: BTreeSet::new(), last: now(), gap: Duration::ZERO };
        Self {
            key,
            floor: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            acknowledged: Mutex::new(acknowledged),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Acknowledged> {
        self.acknowledged.lock().expect("no holder of this lock panics")
    }

    /// One question; what is wrong with its answer. A refusal says nothing.
    fn ask(&self, client: &mut Client, command: &str) -> std::io::Result<Option<Finding>> {
        let floor = self.floor.load(Ordering::SeqCst);
        let increments = command == "INCR";
        if increments {
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        let reply = client.ask(&[command, &self.key])?;
        let Some(value) = value_of(&reply) else {
            pause(BETWEEN);
            return Ok(None);
        };
        Ok(self.judge(floor, increments, value))
    }

    /// Holds an answer against what was known when its question was asked.
    fn judge(&self, floor: u64, increments: bool, value: u64) -> Option<Finding> {
        self.answers.fetch_add(1, Ordering::Relaxed);
        self.floor.fetch_max(value, Ordering::SeqCst);
        let asked = self.asked.load(Ordering::SeqCst);
        let again = increments && !self.acknowledge(value);
        let key = &self.key;
        let (wrong, what) = if value < floor + u64::from(increments) {
            (Wrong::Misordered, format!("{key} is {value}, and {floor} was answered before"))
        } else if again {
            (Wrong::Lost, format!("{key}: two increments were answered {value}"))
        } else if asked < value {
            (Wrong::Duplicated, format!("{key} is {value} after {asked} increments"))
        } else {
            return None;
        };
        Some(Finding::new(wrong, what))
    }

    /// False if this answer was given before.
    fn acknowledge(&self, value: u64) -> bool {
        let mut acknowledged = self.lock();
        acknowledged.gap = acknowledged.gap.max(acknowledged.last.elapsed());
        acknowledged.last = now();
        acknowledged.values.insert(value)
    }

    /// Holds the last value against all there was.
    fn judge_end(&self, value: u64) -> Option<Finding> {
        let acknowledged = self.lock().values.len() as u64;
        if value < acknowledged {
            let what = format!("{} is {value} in the end, {acknowledged} acknowledged", self.key);
            let writes = acknowledged - value;
            return Some(Finding { writes, ..Finding::new(Wrong::Lost, what) });
        }
        self.judge(self.floor.load(Ordering::SeqCst), false, value)
    }
}

/// What a counter's answer says; a counter that is not there is 0.
fn value_of(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Integer(value) => u64::try_from(*value).ok(),
        Reply::Bulk(None) => Some(0),
        Reply::Bulk(Some(bytes)) => str::from_utf8(bytes).ok()?.parse().ok(),
        Reply::Simple(_) | Reply::Error(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(asked: u64) -> Counter {
        let counter = Counter::new("c".into());
        counter.asked.store(asked, Ordering::SeqCst);
        counter
    }

    fn wrong(found: Option<Finding>) -> Option<Wrong> {
        found.map(|finding| finding.wrong)
    }

    #[test]
    fn answers_that_one_value_at_a_time_explains_are_right() {
        let counter = counter(4);
        for (floor, increments, value) in [(0, true, 1), (1, false, 1), (1, true, 3), (1, true, 2)]
        {
            assert_eq!(wrong(counter.judge(floor, increments, value)), None);
        }
        assert_eq!(wrong(counter.judge_end(4)), None, "one of unknown outcome may be there");
        assert_eq!(counter.answers.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn a_stale_read_a_number_given_twice_and_one_too_many_are_found() {
        let counter = counter(3);
        assert_eq!(wrong(counter.judge(0, true, 2)), None);
        assert_eq!(wrong(counter.judge(2, false, 1)), Some(Wrong::Misordered));
        assert_eq!(wrong(counter.judge(2, true, 2)), Some(Wrong::Misordered));
        assert_eq!(wrong(counter.judge(1, true, 2)), Some(Wrong::Lost));
        assert_eq!(wrong(counter.judge(2, true, 4)), Some(Wrong::Duplicated));
        assert_eq!(wrong(counter.judge_end(1)), Some(Wrong::Lost));
    }
}
