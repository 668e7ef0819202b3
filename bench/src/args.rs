//! The command line, and the [`Plan`] it becomes once everything in it has been checked.

use crate::access::{self, Access};
use crate::inserts::Inserts;
use crate::keys::{Dist, KEYS_MAX};
use crate::knee::{self, Bound};
use crate::procstat::Probe;
use crate::protocol::Manner;
use crate::sides::{self, Flag, Side};
use crate::workload::{Mix, Sizes, Spec};
use crate::zookeeper;
use clap::{Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Load generator for servers that speak the Redis protocol, for etcd's v3 API and for ZooKeeper.
///
/// Closed loop by default: every connection keeps --pipeline operations outstanding. With --rate
/// an open loop: arrivals follow a fixed schedule and latency counts from the scheduled time.
#[derive(Debug, Parser)]
#[command(name = "load", bin_name = "cargo load --", max_term_width = 100)]
pub(crate) struct Args {
    /// Server addresses, HOST:PORT, separated by commas; connections are dealt out in turn [default:
    /// 127.0.0.1:6379]
    #[arg(long, value_name = "ADDR,…", value_delimiter = ',')]
    addr: Vec<String>,
    /// Protocol of the server: resp (Redis; the default), etcd (gRPC Put and linearizable Range) or zookeeper
    /// (setData, and getData from the member at hand). Or a target by name, in place of --addr, repeated for each that is
    /// to be compared; the first is what the others are measured by
    #[arg(long, value_name = "PROTOCOL|NAME=[PROTOCOL://]ADDR,…")]
    target: Vec<Flag>,
    #[command(flatten)]
    access: access::Flags,
    /// With named targets: rounds, in each of which every target has one run; who goes first changes [default: 3]
    #[arg(long, value_name = "N", conflicts_with_all = ["runs", "sweep"])]
    rounds: Option<u64>,
    /// Connections in all (for etcd: HTTP/2 connections, one gRPC channel each)
    #[arg(long, short = 'c', value_name = "N", default_value_t = 16)]
    connections: usize,
    /// Operations outstanding per connection
    #[arg(long, short = 'P', value_name = "N", default_value_t = 1)]
    pipeline: usize,
    /// Generator threads; one drives more than 100,000 operations a second
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Open loop at this many operations per second in all, e.g. 5000 or 5000/s
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    rate: Option<f64>,

    /// Find the knee: open loops at rising rates, --warmup and --duration (here 5 s by default) each, until the server
    /// does not keep up; then rates in between until they are 5 % apart. It keeps up if it answers 97 % of
    /// what is offered and its p99, counted from when operations were due, is within the bound
    #[arg(long, conflicts_with_all = ["rate", "requests"])]
    sweep: bool,
    /// The lowest rate of a sweep, operations per second in all
    #[arg(long, value_name = "N/s", value_parser = parse_rate, default_value = "1000", requires = "sweep")]
    sweep_from: f64,
    /// The highest rate of a sweep, operations per second in all
    #[arg(long, value_name = "N/s", value_parser = parse_rate, default_value = "1000000", requires = "sweep")]
    sweep_to: f64,
    /// The p99 that a rate may have at most, in microseconds
    #[arg(long, value_name = "US", requires = "sweep", conflicts_with = "slo_factor")]
    slo_p99_us: Option<f64>,
    /// Without --slo-p99-us: how many times the p99 at the lowest rate it may be
    #[arg(long, value_name = "N", default_value_t = 10.0, requires = "sweep")]
    slo_factor: f64,

    /// A YCSB workload: ycsb-a to ycsb-f, or a file of its format; for the mix of operations, keys, their choice and
    /// sizes, in place of the flags for those. A scan (ycsb-e) is an MGET of the keys with the next numbers
    #[arg(long, value_name = "NAME|FILE",
          conflicts_with_all = ["command", "read_share", "dist", "value_size"])]
    workload: Option<String>,
    /// Send READONLY first, so that the node a connection goes to answers its reads
    #[arg(long)]
    readonly: bool,

    /// Ask the first address who leads which slot (CLUSTER SLOTS), before every run, and send each operation to the node that leads its
    /// key, as clients do that know clusters. Every connection asks for keys that its node leads
    #[arg(long, conflicts_with = "readonly")]
    by_slot: bool,

    /// What is sent: `set`, `get`, or `mixed` (half and half); --read-share is finer
    #[arg(long, value_enum, conflicts_with = "read_share")]
    command: Option<Command>,
    /// Share of reads, from 0 (only writes, the default) to 1
    #[arg(long, value_name = "0..1")]
    read_share: Option<f64>,
    /// Number of distinct keys [default: 100000, or what a workload's file says]
    #[arg(long, value_name = "N")]
    keys: Option<u64>,
    /// How keys are chosen: uniform, zipf, zipf:THETA, latest (zipf backwards from the newest), sequential
    #[arg(long, value_name = "DIST", default_value = "uniform")]
    dist: Dist,
    /// Size of written values in bytes: 256, or a range such as 16-4096
    #[arg(long, short = 'd', value_name = "BYTES", default_value = "256")]
    value_size: Sizes,
    /// Fresh random bytes in every value, so that no server can compress them
    #[arg(long)]
    random_values: bool,
    /// Write every key once before the first run, so that reads find something (for ZooKeeper this
    /// is always done: what is not there cannot be set)
    #[arg(long)]
    fill: bool,

    /// Seconds before measuring begins, in every run
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    warmup: f64,
    /// Seconds measured, in every run [default: 10]
    #[arg(long, value_name = "S", conflicts_with = "requests")]
    duration: Option<f64>,
    /// Operations measured per run, instead of --duration
    #[arg(long, short = 'n', value_name = "N")]
    requests: Option<u64>,
    /// Longest wait for the last replies, in seconds
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    drain: f64,
    /// Runs (of a sweep: at every rate); their median is reported beside each [default: 1]
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Seed of keys, sizes and values
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Report CPU time and bytes written per operation of these processes
    #[arg(long, value_name = "PID,…", value_delimiter = ',')]
    server_pids: Vec<u32>,
    /// Report bytes written to this block device, named as in /proc/diskstats (e.g. vda)
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Do not exit with a failure when replies were errors, or when arrivals were never sent
    #[arg(long)]
    allow_errors: bool,
    /// Show progress every second even if standard error is no terminal
    #[arg(long)]
    progress: bool,
    /// Write the latencies of all runs as an HdrHistogram percentile table; `-` is standard output, as of --json
    #[arg(long, value_name = "FILE|-")]
    hgrm: Option<PathBuf>,
    /// Write a report as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write plots as PNG files of 1720 × 840 pixels into this directory, which is made if it is missing:
    /// latency-by-percentile, throughput-over-time, and of a sweep latency-vs-rate
    #[arg(long, value_name = "DIR")]
    png: Option<PathBuf>,
    /// Write results as JSON; `-` is standard output, and the text then goes to standard error
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

/// Which protocol the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The Redis protocol: Outrigger, Redis, and what is compatible.
    Resp,
    /// etcd's v3 API: gRPC Put and linearizable Range.
    #[cfg(feature = "etcd")]
    Etcd,
    /// ZooKeeper: setData, and getData from the member at hand.
    Zookeeper,
}

impl Target {
    /// Whether it is asked for several keys at once here.
    pub(crate) fn scans(self) -> bool {
        match self {
            Self::Resp => true,
            #[cfg(feature = "etcd")]
            Self::Etcd => true,
            Self::Zookeeper => false,
        }
    }

    /// As the command line has it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Command {
    Set,
    Get,
    Mixed,
}

/// What ends a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ends {
    /// So many seconds after warm-up.
    After {
        /// Length of the window.
        seconds: f64,
    },
    /// So many operations after warm-up.
    Requests(u64),
}

/// Everything a run needs to know, checked.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// All targets; at least one.
    pub(crate) sides: Vec<Side>,
    /// The name of the one this plan is for, or empty: it is the only one.
    pub(crate) name: String,
    /// Protocol.
    pub(crate) target: Target,
    /// Where to connect; at least one.
    pub(crate) addrs: Vec<SocketAddr>,
    /// Connections, `threads <= connections`.
    pub(crate) connections: usize,
    /// Outstanding operations per connection, at least 1.
    pub(crate) pipeline: usize,
    /// Generator threads, at least 1.
    pub(crate) threads: usize,
    /// How connections begin and what writes mean.
    pub(crate) manner: Manner,
    /// How connections get in.
    pub(crate) access: Arc<Access>,
    /// Every operation goes to the node that leads its key.
    pub(crate) by_slot: bool,
    /// Operations per second of an open loop.
    pub(crate) rate_per_s: Option<f64>,
    /// Find the knee in this range, instead of measuring at one rate.
    pub(crate) sweep: Option<knee::Range>,
    /// What is asked.
    pub(crate) workload: Spec,
    /// The workload's name or file, as it was written.
    pub(crate) workload_name: Option<String>,
    /// What should be said before anything is measured.
    pub(crate) notes: Vec<String>,
    /// The keys that this target has, as runs append to them.
    pub(crate) inserts: Arc<Inserts>,
    /// Fill every key first.
    pub(crate) fill: bool,
    /// Warm-up, in seconds.
    pub(crate) warmup_s: f64,
    /// What ends a run.
    pub(crate) ends: Ends,
    /// Longest wait for the last replies, in seconds.
    pub(crate) drain_s: f64,
    /// Number of runs (with several targets: of each, in turn), at least 1.
    pub(crate) runs: u64,
    /// Seed of everything random.
    pub(crate) seed: u64,
    /// Which processes and device to watch.
    pub(crate) probe: Probe,
    /// Errors do not fail the program.
    pub(crate) allow_errors: bool,
    /// Progress even without a terminal.
    pub(crate) progress: bool,
    /// Where the percentile table goes.
    pub(crate) hgrm: Option<PathBuf>,
    /// Where the page goes.
    pub(crate) html: Option<PathBuf>,
    /// Where the plots go.
    pub(crate) png: Option<PathBuf>,
    /// Where the JSON goes.
    pub(crate) json: Option<PathBuf>,
}

impl Args {
    /// Checks everything that can be checked without connecting.
    pub(crate) fn plan(mut self) -> Result<Plan, String> {
        let (mut mix, mut notes) = (None, Vec::new());
        if let Some(name) = &self.workload {
            let said = crate::ycsb::read(name)?;
            mix = Some(said.mix);
            self.dist = said.dist;
            self.value_size = Sizes { min: said.value_bytes, max: said.value_bytes };
            if let (Some(keys), Some(records)) = (self.keys, said.keys) {
                return Err(format!(
                    "--keys {keys} and recordcount={records} of {name} both say how many keys there are; leave one out"
                ));
            }
            self.keys = self.keys.or(said.keys);
            if !said.ignored.is_empty() {
                notes.push(format!("--workload {name}: passed over {}", said.ignored.join(", ")));
            }
            if self.duration.is_none() && !self.sweep {
                self.requests = self.requests.or(said.requests);
            }
            // Its reads are of records that were loaded.
            self.fill = true;
        }
        let keys = self.keys.unwrap_or(KEYS_DEFAULT);
        let share = match (self.command, self.read_share) {
            (Some(Command::Get), _) => 1.0,
            (Some(Command::Mixed), _) => 0.5,
            (Some(Command::Set), _) | (None, None) => 0.0,
            (None, Some(share)) => share,
        };
        let mix = mix.unwrap_or(Mix::of_reads(share));
        let sides = sides::of(&self.target, &self.addr)?;
        let zookeeper = sides.iter().any(|side| side.target == Target::Zookeeper);
        self.check_together(&sides, mix)?;
        let runs = self.runs.or(self.rounds);
        let runs = runs.unwrap_or(if sides[0].name.is_empty() || self.sweep { 1 } else { 3 });
        let at_least_one = [
            ("--connections", self.connections as u64),
            ("--pipeline", self.pipeline as u64),
            ("--threads", self.threads as u64),
            ("--runs", self.runs.unwrap_or(1)),
            ("--rounds", self.rounds.unwrap_or(1)),
            ("--keys", keys),
            ("--requests", self.requests.unwrap_or(1)),
        ];
        if let Some((flag, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{flag} must be at least 1"));
        }
        ensure(
            self.threads <= self.connections,
            "--threads is above --connections; a thread without a connection has nothing to do",
        )?;
        ensure((0.0..=1.0).contains(&share), "--read-share must be between 0 and 1")?;
        ensure(keys <= KEYS_MAX, "--keys: a key has twelve digits, so at most 10^12 keys")?;
        if zookeeper {
            ensure(
                keys <= zookeeper::KEYS_MAX,
                "--keys: ZooKeeper keeps every key in memory, so at most 10^6",
            )?;
            ensure(
                self.value_size.max <= zookeeper::VALUE_BYTES_MAX,
                "--value-size: ZooKeeper takes requests of less than 1 MiB",
            )?;
        }
        let seconds = self.duration.unwrap_or(if self.sweep { 5.0 } else { 10.0 });
        for (flag, value) in
            [("--warmup", self.warmup), ("--duration", seconds), ("--drain", self.drain)]
        {
            // A week: above it the nanoseconds are a typing error.
            ensure((0.0..=604_800.0).contains(&value), &format!("{flag} must be 0 to 604800 s"))?;
        }
        ensure(0.0 < seconds, "--duration must be above 0")?;
        let probe = Probe { pids: self.server_pids, device: self.device };
        // Read once now: a wrong pid is better learnt before the run than after it.
        probe.read()?;
        Ok(Plan {
            name: sides[0].name.clone(),
            target: sides[0].target,
            addrs: sides[0].addrs.clone(),
            sides,
            connections: self.connections,
            pipeline: self.pipeline,
            threads: self.threads,
            manner: Manner { readonly: self.readonly, creating: false },
            access: Arc::new(self.access.open()?),
            by_slot: self.by_slot,
            rate_per_s: self.rate,
            sweep: self.sweep.then_some(knee::Range {
                from_per_s: self.sweep_from,
                to_per_s: self.sweep_to,
                p99: self.slo_p99_us.map_or(Bound::Times(self.slo_factor), Bound::Us),
            }),
            inserts: Arc::new(Inserts::after(keys)),
            workload_name: self.workload,
            notes,
            workload: Spec {
                keys,
                dist: self.dist,
                value: self.value_size,
                random_values: self.random_values,
                mix,
            },
            // All of them or none: what is compared begins alike.
            fill: self.fill || zookeeper,
            warmup_s: self.warmup,
            ends: self.requests.map_or(Ends::After { seconds }, Ends::Requests),
            drain_s: self.drain,
            runs,
            seed: self.seed,
            probe,
            allow_errors: self.allow_errors,
            progress: self.progress,
            hgrm: self.hgrm,
            html: self.html,
            png: self.png,
            json: self.json,
        })
    }

    /// Flags that only make sense together, or apart.
    fn check_together(&self, sides: &[Side], mix: Mix) -> Result<(), String> {
        let named = !sides[0].name.is_empty();
        ensure(
            named || self.rounds.is_none(),
            "--rounds is for targets side by side (--target NAME=ADDR); of one, there are --runs",
        )?;
        ensure(
            !named || self.sweep || self.runs.is_none(),
            "--runs with named targets: they take turns, and --rounds says how often",
        )?;
        let dash = |path: &Option<PathBuf>| crate::files::is_stdout(path.as_deref());
        ensure(
            !dash(&self.hgrm) || !dash(&self.json),
            "--hgrm - and --json -: standard output has room for one of them",
        )?;
        let alone = sides.len() == 1;
        ensure(
            alone || self.hgrm.is_none(),
            "--hgrm has room for the latencies of one target; --json and --html have all",
        )?;
        ensure(
            alone || self.server_pids.is_empty(),
            "--server-pids cannot tell targets apart; measure them one at a time for that",
        )?;
        ensure(
            !self.access.is_any() || sides.iter().all(|side| side.target == Target::Resp),
            "--password-file and --tls-ca are for the Redis protocol; the others are driven in plain here",
        )?;
        ensure(
            !self.by_slot || sides.iter().all(|side| side.target == Target::Resp),
            "--by-slot is for the Redis protocol",
        )?;
        ensure(
            !self.by_slot || self.dist != Dist::Sequential,
            "--by-slot passes over the keys of other nodes, and --dist sequential passes over none",
        )?;
        ensure(
            !self.by_slot || mix.inserts + mix.scans == 0.0,
            "--by-slot passes over the keys of other nodes, so it can neither insert one after the other nor scan",
        )?;
        ensure(
            mix.scans == 0.0 || sides.iter().all(|side| side.target.scans()),
            "scanproportion: ZooKeeper is asked for one key at a time here",
        )?;
        ensure(self.sweep_from <= self.sweep_to, "--sweep-from is above --sweep-to")?;
        ensure(
            self.slo_p99_us.is_none_or(|us| 0.0 < us && us.is_finite()),
            "--slo-p99-us must be above 0",
        )?;
        ensure(
            1.0 <= self.slo_factor && self.slo_factor.is_finite(),
            "--slo-factor must be at least 1: the lowest rate has that p99 itself",
        )
    }
}

impl Plan {
    /// The plan for one of its targets.
    pub(crate) fn for_side(&self, side: &Side) -> Self {
        let (name, addrs) = (side.name.clone(), side.addrs.clone());
        let inserts = Arc::new(Inserts::after(self.workload.keys));
        Self { name, target: side.target, addrs, inserts, ..self.clone() }
    }

    /// The plan of `--fill`: every key written once, as fast as the connections allow.
    pub(crate) fn filling(&self) -> Self {
        let mut plan = self.clone();
        plan.workload.mix = Mix::of_reads(0.0);
        plan.workload.dist = Dist::Sequential;
        plan.ends = Ends::Requests(plan.workload.keys);
        (plan.rate_per_s, plan.warmup_s, plan.runs) = (None, 0.0, 1);
        plan.probe = Probe::default();
        plan.by_slot = false;
        plan.manner = Manner { readonly: false, creating: true };
        // A single connection of depth one would fill for longer than it measures.
        plan.pipeline = plan.pipeline.max(FILL_OPS_MIN / plan.connections);
        plan
    }
}

/// Distinct keys where nothing says how many.
const KEYS_DEFAULT: u64 = 100_000;
/// Operations kept outstanding while filling, at least.
const FILL_OPS_MIN: usize = 64;

fn ensure(holds: bool, problem: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem.into()) }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err(format!("'{text}' is no rate; write operations per second, e.g. 5000/s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(flags: &str) -> Result<Plan, String> {
        let args = std::iter::once("load").chain(flags.split_whitespace());
        Args::try_parse_from(args).map_err(|error| error.to_string())?.plan()
    }

    #[test]
    fn the_flags_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn a_plan_says_what_the_flags_said() {
        let plan = plan("--addr 127.0.0.1:1,127.0.0.1:2 -c 8 -P 16 --rate 500/s -n 10").unwrap();
        assert_eq!((plan.addrs.len(), plan.connections, plan.pipeline), (2, 8, 16));
        assert_eq!(plan.rate_per_s, Some(500.0));
        assert!(matches!(plan.ends, Ends::Requests(10)));
    }

    #[test]
    fn a_workload_says_what_flags_would() {
        let plan = plan("--workload ycsb-b --keys 77 --duration 3").unwrap();
        assert!((plan.workload.mix.reads - 0.95).abs() < 1e-9);
        assert_eq!((plan.workload.keys, plan.workload.value.max, plan.fill), (77, 1000, true));
        assert!(matches!(plan.ends, Ends::After { seconds: 3.0 }));
    }

    #[test]
    fn filling_writes_every_key_once_and_zookeeper_is_always_filled() {
        assert!(!plan("-n 1").unwrap().fill);
        let plan = plan("--target zookeeper --keys 500 -c 2 --rate 9 --read-share 1").unwrap();
        assert!(plan.fill && !plan.manner.creating);
        let filling = plan.filling();
        assert!(filling.manner.creating);
        assert!(matches!(filling.ends, Ends::Requests(500)));
        assert_eq!((filling.rate_per_s, filling.pipeline), (None, 32));
    }

    #[test]
    fn a_sweep_and_targets_side_by_side_have_defaults_of_their_own() {
        let swept = plan("--sweep --slo-p99-us 5000 --workload ycsb-a").unwrap();
        let range = swept.sweep.unwrap();
        assert_eq!((range.from_per_s, range.to_per_s, range.p99), (1e3, 1e6, Bound::Us(5e3)));
        assert!(matches!(swept.ends, Ends::After { seconds: 5.0 }));
        assert_eq!(swept.runs, 1);
        assert_eq!(plan("--sweep").unwrap().sweep.unwrap().p99, Bound::Times(10.0));
        let both = plan("--target a=127.0.0.1:1 --target b=127.0.0.1:2,127.0.0.1:3").unwrap();
        assert_eq!((both.runs, both.sides.len(), both.name.as_str()), (3, 2, "a"));
        let second = both.for_side(&both.sides[1]);
        assert_eq!((second.addrs.len(), second.name.as_str()), (2, "b"));
        assert!(plan("-n 1").unwrap().sweep.is_none());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (flags, word) in [
            ("--connections 0", "--connections"),
            ("--threads 3 -c 2", "--threads"),
            ("--rate 0", "rate"),
            ("--rate many", "rate"),
            ("--read-share 1.5", "--read-share"),
            ("--duration 0", "--duration"),
            ("--duration 1 --requests 2", "--requests"),
            ("--command get --read-share 0.1", "--read-share"),
            ("--workload ycsb-e --target zookeeper", "scanproportion"),
            ("--workload ycsb-e --by-slot", "--by-slot"),
            ("--workload ycsb-d --by-slot", "--by-slot"),
            ("--workload ycsb-a --read-share 0.1", "--workload"),
            ("--dist pareto", "uniform"),
            ("--value-size 9-3", "empty"),
            ("--addr nowhere", "HOST:PORT"),
            ("--rounds 2", "--runs"),
            ("--target a=127.0.0.1:1 --runs 2", "--rounds"),
            ("--target a=127.0.0.1:1 --target b=127.0.0.1:2 --hgrm f", "--hgrm"),
            ("--target a=127.0.0.1:1 --target b=127.0.0.1:2 --server-pids 1", "--server-pids"),
            ("--hgrm - --json -", "standard output"),
            ("--sweep --rate 5", "--rate"),
            ("--sweep --requests 5", "--requests"),
            ("--sweep --rounds 2", "--rounds"),
            ("--sweep-from 5", "--sweep"),
            ("--slo-p99-us 5", "--sweep"),
            ("--target zookeeper --tls-ca f", "--tls-ca"),
            ("--tls-ca /no/such/file", "--tls-ca /no/such/file"),
            ("--password-file /no/such/file", "--password-file /no/such/file"),
            ("--tls-name a", "--tls-ca"),
            ("--user a", "--password-file"),
            ("--sweep --sweep-from 9 --sweep-to 8", "--sweep-from"),
            ("--sweep --slo-p99-us 0", "--slo-p99-us"),
            ("--sweep --slo-factor 0.5", "--slo-factor"),
            ("--sweep --slo-factor 5 --slo-p99-us 900", "--slo-p99-us"),
            ("--server-pids 4294967295", "no such process"),
            ("--device none0", "none0"),
            ("--target zookeeper --keys 1000001", "--keys"),
            ("--target zookeeper --value-size 1048576", "--value-size"),
        ] {
            let problem = plan(flags).unwrap_err();
            assert!(problem.contains(word), "{flags}: {problem}");
        }
    }
}
