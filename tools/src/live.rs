//! `tool live`: a cluster serves clients without a pause while an operator walks it through
//! everything: members come, lead, are replaced, drained and restarted, and go.
//!
//! ```text
//! clients   ───────────────────────────────────────────────────────────────► stop ─► every write is
//! operator     calm │ step 1 │ calm │ calm │ step 2 │ calm │ …                        read back through
//!              before  during  after                                                 every node
//! ```
//!
//! What is checked in the end: no acknowledged write is lost or there twice, no refused one is
//! visible, all members hold the same, and no request took longer than the limit.

mod clients;
mod info;
mod latency;
mod nodes;
mod record;
mod steps;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;

use crate::rounds::cluster::{binary_beside, now, pause};
use crate::rounds::ledger::{Counts, Ledger};
use crate::rounds::resp::{Client, Reply};
use crate::rounds::subject::{Finding, Wrong};
use crate::rounds::{prepare, writer};
use clients::{FILLING_BYTES, Load, Worker};
use latency::{Kind, Sample, ms};
use nodes::{Nodes, Plan};
use record::{About, Taken};
use steps::{Operator, Step};

/// Clients that make the log long, when that is wanted.
const FILLERS: usize = 4;
/// After the clients have stopped, an unknown outcome may still come true; no longer than a
/// command may wait in a node.
const SETTLE: Duration = Duration::from_secs(3);
/// How long members may take to hold the same, once nobody writes.
const SAME: Duration = Duration::from_secs(30);
/// Stories of findings and of long requests printed in full.
const STORIES: usize = 30;

/// What to do, and how hard it is made.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which steps, in order [default: all].
    #[arg(long, value_delimiter = ',', value_enum)]
    steps: Vec<Step>,
    /// How often leadership goes to another node in step 5.
    #[arg(long, default_value_t = 100)]
    transfers: u32,
    /// Nodes at the beginning.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
    /// Cores of each node.
    #[arg(long, default_value_t = 1)]
    cores: u16,
    /// Raft groups.
    #[arg(long, default_value_t = 8)]
    groups: u64,
    /// Clients, each with its own keys and one request at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..))]
    clients: u8,
    /// Requests per second, of all clients together.
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Reads among them, in percent.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(0..=100))]
    reads: u32,
    /// Large writes in step 7, in MiB per second at most.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    fill: u32,
    /// What is measured before and after each step, in ms.
    #[arg(long, default_value_t = 5_000)]
    calm_ms: u64,
    /// No request may take longer, in ms.
    #[arg(long, default_value_t = 3_000)]
    limit_ms: u64,
    /// The nodes' `--log-bytes`; step 7 writes past it.
    #[arg(long, default_value_t = 256 << 20)]
    log_bytes: u64,
    /// Least time without a leader before an election, in ms.
    #[arg(long, default_value_t = 1_000)]
    election_ms: u64,
    /// Decides victims and commands; the machine decides the rest [default: random].
    #[arg(long)]
    seed: Option<u64>,
    /// Where the nodes keep their data and logs; on a disk, not in memory.
    #[arg(long, default_value = "target/live")]
    dir: PathBuf,
    /// The node's program [default: `outrigger` beside this program].
    #[arg(long)]
    binary: Option<PathBuf>,
    /// First port; 64 follow.
    #[arg(long, default_value_t = 7601)]
    port: u16,
    /// Writes the run down as Markdown.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// Why the run is no success.
#[derive(Debug)]
pub(crate) struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<crate::rounds::Failed> for Failed {
    fn from(failed: crate::rounds::Failed) -> Self {
        Self(failed.to_string())
    }
}

/// Runs the steps and prints what they did to the clients.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let own = std::env::current_exe().map_err(|error| Failed(error.to_string()))?;
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => binary_beside(&own)?,
    };
    let plan = Plan {
        binary,
        dir: arguments.dir.clone(),
        first: arguments.nodes,
        cores: arguments.cores,
        groups: arguments.groups,
        election_ms: arguments.election_ms,
        log_bytes: arguments.log_bytes,
        port: arguments.port,
    };
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let command = command(arguments, seed);
    println!("seed {seed}; again: {command}");
    prepare(&plan.dir, &command)?;
    let before = record::load_average();
    let run = Run::of(arguments, &plan, seed)?;
    let verdict = run.verdict(arguments);
    let table = record::table(&run.taken, &run.samples, arguments.transfers);
    println!("\n{table}\n{}", verdict.text);
    if let Some(file) = &arguments.record {
        let about = About {
            command: &command,
            seed,
            load: format!(
                "{} clients, {} requests per second, {} % reads; {} groups, {} cores per node",
                arguments.clients,
                arguments.rate,
                arguments.reads,
                arguments.groups,
                arguments.cores
            ),
            verdict: &verdict.text,
            story: &run.story,
            load_average: (before, record::load_average()),
        };
        record::write(file, &about, &table)
            .map_err(|error| Failed(format!("cannot write {}: {error}", file.display())))?;
    }
    if verdict.wrong.is_empty() {
        let _ = std::fs::remove_dir_all(plan.dir.join("data"));
        return Ok(());
    }
    println!("data and logs are kept in {}", plan.dir.display());
    Err(Failed(verdict.wrong.join("; ")))
}

fn command(arguments: &Arguments, seed: u64) -> String {
    let steps: Vec<String> = arguments.steps.iter().map(|step| step.number().to_string()).collect();
    let steps =
        if steps.is_empty() { String::new() } else { format!(" --steps {}", steps.join(",")) };
    format!(
        "cargo tool live --seed {seed}{steps} --transfers {} --nodes {} --cores {} --groups {} --clients {} --rate {} --reads {} --fill {} --calm-ms {} --limit-ms {} --log-bytes {} --election-ms {} --port {}",
        arguments.transfers,
        arguments.nodes,
        arguments.cores,
        arguments.groups,
        arguments.clients,
        arguments.rate,
        arguments.reads,
        arguments.fill,
        arguments.calm_ms,
        arguments.limit_ms,
        arguments.log_bytes,
        arguments.election_ms,
        arguments.port,
    )
}

/// What happened.
struct Run {
    taken: Vec<Taken>,
    samples: Vec<Sample>,
    counts: Counts,
    findings: Vec<Finding>,
    /// Why not all steps were taken, or not everything was compared.
    broken: Vec<String>,
    story: Vec<String>,
    read_through: Vec<u8>,
}

impl Run {
    fn of(arguments: &Arguments, plan: &Plan, seed: u64) -> Result<Self, Failed> {
        let mut random = Rng::with_seed(seed);
        let clients = usize::from(arguments.clients);
        let mut ledgers: Vec<Ledger> = (0..clients).map(Ledger::new).collect();
        ledgers.extend(
            (clients..clients + FILLERS)
                .map(|writer| Ledger::with_large_registers(writer, FILLING_BYTES)),
        );
        let period = Duration::from_secs(1) * u32::from(arguments.clients) / arguments.rate;
        let load = Load::new(plan.client(1), period, arguments.reads);
        let mut operator = Operator {
            nodes: Nodes::new(plan),
            load: &load,
            random: random.fork(),
            voters: (1..=plan.first).collect(),
            learners: Default::default(),
            transfers: arguments.transfers,
            next: plan.first + 1,
            story: Vec::new(),
        };
        for id in 1..=plan.first {
            operator.nodes.start(id, "first start")?;
        }
        let ready = operator.ready()?;
        println!("{} nodes are ready after {} ms", plan.first, ms(ready));
        load.serve(1..=plan.first);
        let mut broken = Vec::new();
        let taken = std::thread::scope(|scope| {
            for (n, ledger) in ledgers.iter_mut().enumerate() {
                let worker = Worker::new(&load, ledger, random.fork());
                scope.spawn(move || {
                    if n < clients { worker.run() } else { worker.fill(fill_period(arguments)) }
                });
            }
            let taken = steps(arguments, &mut operator, &mut broken);
            load.stop();
            taken
        });
        let mut run = Self {
            taken,
            samples: load.samples(),
            counts: Counts::default(),
            findings: Vec::new(),
            broken,
            story: Vec::new(),
            read_through: operator.members().into_iter().collect(),
        };
        if let Err(failed) = run.read_back(&mut operator, &mut ledgers) {
            run.broken.push(failed.to_string());
        }
        for ledger in &mut ledgers {
            run.counts.add(&ledger.counts);
            run.findings.append(&mut ledger.findings);
        }
        run.story = operator.story;
        Ok(run)
    }

    /// Every write through every member, and the members compared with one another.
    fn read_back(
        &mut self,
        operator: &mut Operator<'_, '_>,
        ledgers: &mut [Ledger],
    ) -> Result<(), Failed> {
        pause(SETTLE);
        operator.ready()?;
        let plan = operator.nodes.plan;
        let through: Vec<writer::Place> =
            self.read_through.iter().map(|id| (*id, plan.client(*id))).collect();
        let same = operator.nodes.until("members hold the same", SAME, |_| {
            let digests: Vec<Option<Reply>> = through
                .iter()
                .map(|(_, address)| Client::connect(*address)?.ask(&["DEBUG", "DIGEST"]))
                .map(std::io::Result::ok)
                .collect();
            let is_digest = matches!(digests[0], Some(Reply::Bulk(Some(_))));
            if is_digest && digests.iter().all(|digest| *digest == digests[0]) {
                Ok(())
            } else {
                Err(format!("digests {digests:?}"))
            }
        });
        if let Err(failed) = same {
            self.findings.push(Finding::new(Wrong::Disagreement, failed.to_string()));
        }
        let results: Vec<Result<(), crate::rounds::Failed>> = std::thread::scope(|scope| {
            let readers: Vec<_> = ledgers
                .iter_mut()
                .map(|ledger| scope.spawn(|| writer::check_through(ledger, &through)))
                .collect();
            readers
                .into_iter()
                .map(|reader| reader.join().expect("a reader does not panic"))
                .collect()
        });
        operator.nodes.all_run()?;
        results.into_iter().try_for_each(|result| result.map_err(Failed::from))
    }

    fn verdict(&self, arguments: &Arguments) -> Verdict {
        let mut kinds: BTreeMap<Wrong, u64> = BTreeMap::new();
        for finding in &self.findings {
            *kinds.entry(finding.wrong).or_default() += finding.writes;
        }
        let kind = |wrong| kinds.get(&wrong).copied().unwrap_or(0);
        let limit = Duration::from_millis(arguments.limit_ms);
        let longest = record::longest(self.samples.iter());
        let answer = self.samples.iter().map(|sample| sample.answer).max().unwrap_or_default();
        let long: Vec<&Sample> =
            self.samples.iter().filter(|sample| limit < sample.own || !sample.executed).collect();
        let counts = &self.counts;
        let mut text: String = self
            .findings
            .iter()
            .take(STORIES)
            .map(|finding| format!("{:?}: {}\n", finding.wrong, finding.what))
            .chain(long.iter().take(STORIES).map(|sample| format!("too long: {sample:?}\n")))
            .collect();
        let listed = |counts: &BTreeMap<String, u64>| {
            let words: Vec<String> =
                counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        text += &format!(
            "{} requests, longest {} ms (one answer: {} ms), {} longer than {} ms; {} large ones \
             among them, longest {} ms\n\
             {} writes acknowledged, {} of unknown outcome, {} refused; \
             {} checked through nodes {:?}, lost {}, duplicated {}, refused and visible {}\n\
             late {}, misordered {}, never written {}, nodes disagree {}; \
             {} values compared, {} of the unknown were executed\n\
             refused: {}\nunknown: {} connection ended, {}",
            self.samples.len(),
            ms(longest),
            ms(answer),
            long.len(),
            arguments.limit_ms,
            self.samples.iter().filter(|sample| sample.kind == Kind::Filling).count(),
            ms(record::longest(self.samples.iter().filter(|sample| sample.kind == Kind::Filling))),
            counts.acknowledged,
            counts.unknown,
            counts.refused.values().sum::<u64>(),
            counts.checked,
            self.read_through,
            kind(Wrong::Lost),
            kind(Wrong::Duplicated),
            kind(Wrong::RefusedSeen),
            kind(Wrong::Late),
            kind(Wrong::Misordered),
            kind(Wrong::Alien),
            kind(Wrong::Disagreement),
            counts.values,
            counts.unknown_executed,
            listed(&counts.refused),
            counts.unknown - counts.uncertain.values().sum::<u64>(),
            listed(&counts.uncertain),
        );
        let mut wrong = self.broken.clone();
        if !self.findings.is_empty() {
            wrong.push(format!("{} findings, see above", self.findings.len()));
        }
        if !long.is_empty() {
            wrong.push(format!("{} requests took too long, see above", long.len()));
        }
        if counts.acknowledged == 0 {
            wrong.push("no write was acknowledged".into());
        }
        for story in &self.broken {
            text += &format!("\nnot done: {story}");
        }
        Verdict { text, wrong }
    }
}

/// What the run comes to.
struct Verdict {
    text: String,
    /// Empty: a success.
    wrong: Vec<String>,
}

fn fill_period(arguments: &Arguments) -> Duration {
    let per_second = (arguments.fill << 20) as usize / FILLING_BYTES;
    Duration::from_secs(1) * FILLERS as u32 / per_second as u32
}

/// The steps, with calm before and after each; ends at the first that fails.
fn steps(
    arguments: &Arguments,
    operator: &mut Operator<'_, '_>,
    broken: &mut Vec<String>,
) -> Vec<Taken> {
    let calm = Duration::from_millis(arguments.calm_ms);
    let all = if arguments.steps.is_empty() { &Step::ALL[..] } else { &arguments.steps };
    let mut taken = Vec::new();
    // The first requests open connections.
    pause(Duration::from_secs(1));
    for step in all {
        pause(calm);
        let heading = format!("{}. {}", step.number(), step.title());
        println!("{heading}");
        operator.story.push(heading);
        let from = operator.load.elapsed();
        let started = now();
        let result = operator.step(*step);
        let to = from + started.elapsed();
        pause(calm);
        let done = Taken { step: *step, from, to, calm };
        println!("{}", done.line(&operator.load.samples()));
        taken.push(done);
        if let Err(failed) = result.and_then(|()| operator.nodes.all_run()) {
            println!("  failed: {failed}");
            broken.push(format!("step {}: {failed}", step.number()));
            break;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            taken: Vec::new(),
            samples: vec![Sample {
                kind: Kind::Write,
                due: Duration::ZERO,
                took: Duration::from_millis(2_900),
                own: Duration::from_millis(2_900),
                answer: Duration::from_millis(1_000),
                refused: 7,
                unknown: 0,
                executed: true,
            }],
            counts: Counts { acknowledged: 5, unknown: 1, ..Counts::default() },
            findings: Vec::new(),
            broken: Vec::new(),
            story: Vec::new(),
            read_through: vec![1, 2, 3],
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments() -> Arguments {
        <Line as clap::Parser>::parse_from(["live", "--steps", "5,6"]).arguments
    }

    #[test]
    fn a_long_request_or_a_finding_is_a_failure_and_is_told() {
        let good = run().verdict(&arguments());
        assert!(good.wrong.is_empty(), "{:?}", good.wrong);
        assert!(good.text.contains("lost 0, duplicated 0, refused and visible 0"), "{}", good.text);
        let mut long = run();
        long.samples[0].own = Duration::from_millis(3_001);
        assert_eq!(long.verdict(&arguments()).wrong.len(), 1);
        let mut never = run();
        never.samples[0].executed = false;
        assert_eq!(never.verdict(&arguments()).wrong.len(), 1);
        let mut lost = run();
        lost.findings.push(Finding::new(Wrong::Lost, "gone"));
        let verdict = lost.verdict(&arguments());
        assert_eq!(verdict.wrong.len(), 1);
        assert!(verdict.text.starts_with("Lost: gone\n"), "{}", verdict.text);
        let mut silent = run();
        silent.counts.acknowledged = 0;
        assert_eq!(silent.verdict(&arguments()).wrong.len(), 1);
        let mut short = run();
        short.broken.push("step 5: no".into());
        assert_eq!(short.verdict(&arguments()).wrong, ["step 5: no"]);
    }

    #[test]
    fn steps_are_named_by_number() {
        assert_eq!(arguments().steps, [Step::Transfer, Step::Restart]);
        assert!(command(&arguments(), 7).contains(" --steps 5,6 "));
    }
}
