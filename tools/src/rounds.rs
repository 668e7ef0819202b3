//! `tool rounds`: kill -9 under load, round after round, and then every write is read back.
//!
//! ```text
//! one round   writers run ─► kill one node ─► pause ─► start it (and perhaps kill it again while
//!             it recovers) ─► kill all nodes at once ─► start them (and perhaps …) ─► wait until
//!             every group has a leader ─► read every key through other nodes ─► compare digests
//! ```
//!
//! What is checked is in `subject`: acknowledged writes are there, once and in order; refused ones
//! are not; those of unknown outcome are there at most once, and settled by the next check.

pub mod cluster;
pub mod ledger;
pub mod resp;
pub mod subject;
pub mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use cluster::{Cluster, Plan, now, pause};
use ledger::{Counts, Ledger};
use subject::{Finding, Wrong};

/// Marks a directory this tool made, and may delete from.
const MARK: &str = "rounds.txt";
/// Stories of findings printed in full.
const STORIES: usize = 30;

/// What to kill, and how often.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Cores of each node.
    #[arg(long, default_value_t = 1)]
    cores: u16,
    /// Raft groups.
    #[arg(long, default_value_t = 16)]
    groups: u64,
    /// Writers at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..))]
    writers: u8,
    /// A fresh cluster after so many rounds; each start takes 64 MiB of log per core.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    fresh: u32,
    /// Decides commands, victims and pauses; the machine decides the rest [default: random].
    #[arg(long)]
    seed: Option<u64>,
    /// Least time without a leader before an election, in ms.
    #[arg(long, default_value_t = 300)]
    election_ms: u64,
    /// Where the nodes keep their data and logs; on a disk, not in memory.
    #[arg(long, default_value = "target/rounds")]
    dir: PathBuf,
    /// The node's program [default: `outrigger` beside this program].
    #[arg(long)]
    binary: Option<PathBuf>,
    /// First of two ports per node.
    #[arg(long, default_value_t = 7401)]
    port: u16,
}

/// Why the rounds ended before their time, or in vain.
#[derive(Debug)]
pub enum Failed {
    /// The rounds could not be run at all.
    Start(String),
    /// A node ended that nobody killed.
    NodeEnded(String),
    /// The cluster does not serve, although nobody disturbs it.
    NotReady(String),
    /// A promise was broken.
    Broken(usize),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(story) | Self::NodeEnded(story) => f.write_str(story),
            Self::NotReady(story) => write!(f, "the cluster is not ready: {story}"),
            Self::Broken(count) => write!(f, "{count} findings, see above"),
        }
    }
}

/// Runs the rounds and prints what they came to.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let own = std::env::current_exe().map_err(|error| Failed::Start(error.to_string()))?;
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => cluster::binary_beside(&own)?,
    };
    let plan = Plan {
        binary,
        dir: arguments.dir.clone(),
        nodes: arguments.nodes,
        cores: arguments.cores,
        groups: arguments.groups,
        election_ms: arguments.election_ms,
        flags: Vec::new(),
        port: arguments.port,
        hosts: Vec::new(),
    };
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let replay = replay(arguments, seed);
    println!("seed {seed}; again: {replay}");
    prepare(&plan.dir, &replay)?;
    let mut totals = Totals::new();
    let result = rounds(arguments, &plan, seed, &mut totals);
    println!("{}", totals.summary(plan.nodes));
    match &result {
        Ok(()) => {
            let _ = fs::remove_dir_all(plan.data());
        }
        Err(_) => println!(
            "data and logs are kept in {}; again, though not with the same timing: {replay}",
            plan.dir.display()
        ),
    }
    result
}

fn replay(arguments: &Arguments, seed: u64) -> String {
    let binary = arguments.binary.as_ref();
    format!(
        "cargo tool rounds --seed {seed} --rounds {} --nodes {} --cores {} --groups {} --writers {} --fresh {} --election-ms {} --port {}{}",
        arguments.rounds,
        arguments.nodes,
        arguments.cores,
        arguments.groups,
        arguments.writers,
        arguments.fresh,
        arguments.election_ms,
        arguments.port,
        binary.map_or(String::new(), |binary| format!(" --binary {}", binary.display())),
    )
}

/// Empties the directory of an earlier run; refuses to touch anybody else's.
pub fn prepare(dir: &Path, replay: &str) -> Result<(), Failed> {
    let failed = |error| Failed::Start(format!("cannot prepare {}: {error}", dir.display()));
    let is_empty = fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty && !dir.join(MARK).is_file() {
        return Err(Failed::Start(format!(
            "{} holds something else; choose another --dir, its content would be deleted",
            dir.display()
        )));
    }
    if !is_empty {
        fs::remove_dir_all(dir).map_err(failed)?;
    }
    fs::create_dir_all(dir).map_err(failed)?;
    fs::write(dir.join(MARK), format!("{replay}\n")).map_err(failed)
}

fn rounds(
    arguments: &Arguments,
    plan: &Plan,
    seed: u64,
    totals: &mut Totals,
) -> Result<(), Failed> {
    let mut random = Rng::with_seed(seed);
    let mut done = 0;
    while done < arguments.rounds {
        let _ = fs::remove_dir_all(plan.data());
        let mut life = Life {
            cluster: Cluster::new(plan),
            plan,
            ledgers: (0..usize::from(arguments.writers)).map(Ledger::new).collect(),
            random: random.fork(),
        };
        totals.clusters += 1;
        life.start_all(&format!("round {}: first start", done + 1), totals)?;
        totals.ready(life.cluster.wait_ready()?);
        let last = (done + arguments.fresh).min(arguments.rounds);
        while done < last {
            let result = life.round(done + 1, totals);
            totals.take(&mut life);
            result?;
            done += 1;
            totals.rounds = done;
            totals.progress(done, arguments.rounds);
        }
    }
    Ok(())
}

/// One cluster from its first start until it is thrown away.
struct Life<'p> {
    cluster: Cluster<'p>,
    plan: &'p Plan,
    ledgers: Vec<Ledger>,
    random: Rng,
}

impl Life<'_> {
    fn round(&mut self, round: u32, totals: &mut Totals) -> Result<(), Failed> {
        self.under_load(round, totals)?;
        self.start_all(&format!("round {round}: after the whole cluster"), totals)?;
        totals.ready(self.cluster.wait_ready()?);
        self.check(round, totals)
    }

    /// Writers run while nodes die, one and then all.
    fn under_load(&mut self, round: u32, totals: &mut Totals) -> Result<(), Failed> {
        let Self { cluster, plan, ledgers, random } = self;
        let plan: &Plan = plan;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for ledger in ledgers.iter_mut() {
                let (mut random, stop) = (random.fork(), &stop);
                scope.spawn(move || writer::write(ledger, plan, &mut random, stop));
            }
            let result = kills(cluster, plan, random, round, totals);
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    /// Starts all nodes; one in three times one of them, one in ten times all, are killed again
    /// before they have recovered.
    fn start_all(&mut self, why: &str, totals: &mut Totals) -> Result<(), Failed> {
        let Self { cluster, plan, random, .. } = self;
        for id in 1..=plan.nodes {
            cluster.start(id, why)?;
        }
        if random.u32(..10) == 0 {
            in_recovery(random);
            cluster.kill(1..=plan.nodes)?;
            totals.recovery_kills += u64::from(plan.nodes);
            for id in 1..=plan.nodes {
                cluster.start(id, &format!("{why}, all killed in recovery"))?;
            }
        }
        let victim = random.u8(1..=plan.nodes);
        perhaps_again(cluster, victim, why, random, totals)
    }

    /// Reads everything back, and compares the replicas with one another.
    fn check(&mut self, round: u32, totals: &mut Totals) -> Result<(), Failed> {
        let read = writer::check_all(&mut self.ledgers, self.plan, &mut self.random);
        // A node that has ended says more than a read that it did not answer.
        self.cluster.all_run()?;
        read?;
        if let Some(story) = self.cluster.wait_same()? {
            let what = format!("replicas differ, {story}");
            totals.findings.push(Finding::new(Wrong::Disagreement, what));
        }
        totals.digests += 1;
        let found = self.ledgers.iter_mut().flat_map(|ledger| ledger.findings.drain(..));
        totals.findings.extend(found.map(|finding| Finding {
            what: format!("round {round}: {}", finding.what),
            ..finding
        }));
        if totals.findings.is_empty() { Ok(()) } else { Err(Failed::Broken(totals.findings.len())) }
    }
}

/// One node at a random moment, and later all of them.
fn kills(
    cluster: &mut Cluster<'_>,
    plan: &Plan,
    random: &mut Rng,
    round: u32,
    totals: &mut Totals,
) -> Result<(), Failed> {
    pause(Duration::from_millis(random.u64(50..700)));
    let victim = random.u8(1..=plan.nodes);
    cluster.kill([victim].into_iter())?;
    totals.node_kills += 1;
    pause(Duration::from_millis(random.u64(0..1_200)));
    let why = format!("round {round}: alone");
    cluster.start(victim, &why)?;
    perhaps_again(cluster, victim, &why, random, totals)?;
    // It may have recovered by then, or not.
    pause(Duration::from_millis(random.u64(0..1_200)));
    cluster.all_run()?;
    cluster.kill(1..=plan.nodes)?;
    totals.whole_kills += 1;
    Ok(())
}

/// One in three times, a node that was just started is killed again, up to three times.
fn perhaps_again(
    cluster: &mut Cluster<'_>,
    victim: u8,
    why: &str,
    random: &mut Rng,
    totals: &mut Totals,
) -> Result<(), Failed> {
    if random.u32(..3) != 0 {
        return Ok(());
    }
    for _ in 0..random.u32(1..=3) {
        in_recovery(random);
        cluster.kill([victim].into_iter())?;
        totals.recovery_kills += 1;
        cluster.start(victim, &format!("{why}, killed in recovery"))?;
    }
    Ok(())
}

fn in_recovery(random: &mut Rng) {
    pause(Duration::from_millis(random.u64(0..=300)));
}

/// Over all clusters.
struct Totals {
    started: Instant,
    rounds: u32,
    node_kills: u64,
    whole_kills: u64,
    recovery_kills: u64,
    clusters: u64,
    digests: u64,
    slowest_start: Duration,
    counts: Counts,
    findings: Vec<Finding>,
}

impl Totals {
    fn new() -> Self {
        Self {
            started: now(),
            rounds: 0,
            node_kills: 0,
            whole_kills: 0,
            recovery_kills: 0,
            clusters: 0,
            digests: 0,
            slowest_start: Duration::ZERO,
            counts: Counts::default(),
            findings: Vec::new(),
        }
    }

    fn ready(&mut self, after: Duration) {
        self.slowest_start = self.slowest_start.max(after);
    }

    /// Adds what the ledgers counted since the last time.
    fn take(&mut self, life: &mut Life<'_>) {
        for ledger in &mut life.ledgers {
            self.counts.add(&std::mem::take(&mut ledger.counts));
            self.findings.append(&mut ledger.findings);
        }
    }

    fn progress(&self, done: u32, of: u32) {
        let whole = done.is_multiple_of(10) || done == of;
        let counts = &self.counts;
        let line = format!(
            "{done} of {of} rounds, {:.0} s: {} acknowledged, {} unknown, {} refused, {} checked",
            self.started.elapsed().as_secs_f64(),
            counts.acknowledged,
            counts.unknown,
            counts.refused.values().sum::<u64>(),
            counts.checked
        );
        if whole {
            println!("{line}");
        } else if io::stderr().is_terminal() {
            eprint!("\r{line} ");
            let _ = io::stderr().flush();
        }
    }

    fn summary(&self, nodes: u8) -> String {
        let counts = &self.counts;
        let mut wrongs: BTreeMap<Wrong, u64> = BTreeMap::new();
        for finding in &self.findings {
            *wrongs.entry(finding.wrong).or_default() += finding.writes;
        }
        let wrong = |wrong| wrongs.get(&wrong).copied().unwrap_or(0);
        let stories: Vec<String> = self
            .findings
            .iter()
            .take(STORIES)
            .map(|finding| format!("{:?}: {}\n", finding.wrong, finding.what))
            .collect();
        let uncertain: Vec<String> =
            counts.uncertain.iter().map(|(text, count)| format!("{count} {text}")).collect();
        let refused: Vec<String> =
            counts.refused.iter().map(|(word, count)| format!("{count} {word}")).collect();
        format!(
            "{}{} rounds: {} node kills, {} whole-cluster kills, {} kills in recovery; \
             {} writes acknowledged, {} of unknown outcome, {} refused; \
             {} checked, lost {}, refused and seen {}, duplicated {}\n\
             late {}, misordered {}, never written {}, nodes disagree {}; \
             {} values compared, {} of the unknown were executed; \
             digests of {nodes} nodes compared {} times; \
             {} clusters, slowest to be ready {:.1} s, {:.0} s in all\n\
             refused: {}\n\
             unknown: {} connection ended, {}",
            stories.concat(),
            self.rounds,
            self.node_kills,
            self.whole_kills,
            self.recovery_kills,
            counts.acknowledged,
            counts.unknown,
            counts.refused.values().sum::<u64>(),
            counts.checked,
            wrong(Wrong::Lost),
            wrong(Wrong::RefusedSeen),
            wrong(Wrong::Duplicated),
            wrong(Wrong::Late),
            wrong(Wrong::Misordered),
            wrong(Wrong::Alien),
            wrong(Wrong::Disagreement),
            counts.values,
            counts.unknown_executed,
            self.digests,
            self.clusters,
            self.slowest_start.as_secs_f64(),
            self.started.elapsed().as_secs_f64(),
            if refused.is_empty() { "none".to_owned() } else { refused.join(", ") },
            counts.unknown - counts.uncertain.values().sum::<u64>(),
            if uncertain.is_empty() { "0 UNCERTAIN".to_owned() } else { uncertain.join(", ") },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_by_kind_and_told() {
        let mut totals = Totals::new();
        totals.findings.push(Finding { wrong: Wrong::Lost, writes: 3, what: "gone".into() });
        totals.findings.push(Finding::new(Wrong::Duplicated, "twice"));
        let summary = totals.summary(3);
        assert!(summary.starts_with("Lost: gone\nDuplicated: twice\n"), "{summary}");
        assert!(summary.contains("lost 3, refused and seen 0, duplicated 1"), "{summary}");
    }

    #[test]
    fn only_a_directory_of_its_own_is_emptied() {
        let dir = std::env::temp_dir().join(format!("outrigger-rounds-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("precious")).expect("a directory");
        assert!(prepare(&dir, "again").is_err());
        assert!(dir.join("precious").is_dir());
        fs::remove_dir_all(&dir).expect("removed");
        prepare(&dir, "again").expect("made");
        fs::create_dir_all(dir.join("data/node-1")).expect("data");
        prepare(&dir, "again").expect("emptied");
        assert!(!dir.join("data").exists());
        fs::remove_dir_all(&dir).expect("removed");
    }
}
