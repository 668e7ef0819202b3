//! The server: arguments → configuration → a running node; nothing else.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use outrigger::config::{Config, Settings};
use outrigger::runtime::fatal::Fatal;
use outrigger::runtime::{ctl, doctor, quorum_loss, serve, top, up};
use outrigger::tool;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A multi-raft storage node that speaks the Redis protocol.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node of a cluster.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<Serve>),
    /// Let a stopped node go on without the other members of its groups, whose majority is lost for good:
    /// prints a plan; the same flags as for `serve`.
    QuorumLoss(Box<QuorumLoss>),
    /// Start a whole cluster on this machine, as child processes, until Ctrl-C.
    #[command(after_help = UP_EXAMPLES)]
    Up(up::Options),
    /// Ask a running cluster something, or change it.
    #[command(after_help = CTL_EXAMPLES)]
    Ctl(ctl::Options),
    /// Watch a cluster in the terminal: nodes, cores, groups, what is slow.
    Top(top::Options),
    /// Have a node hand over what it leads, and stop.
    Drain(ctl::DrainOptions),
    /// Look at the log that a node left on disk, or still writes; reads only.
    #[command(subcommand, after_help = TOOL_EXAMPLES)]
    Tool(tool::Tool),
    /// Measure the disk under a directory, look at kernel and limits, and advise.
    #[command(after_help = DOCTOR_EXAMPLE)]
    Doctor(doctor::Options),
}

const SERVE_EXAMPLES: &str = "Example, the first of three nodes:
  outrigger serve --id 1 --dir /var/lib/outrigger --client 10.0.0.1:6379 --peer 10.0.0.1:7379 \\
      --peers 1=10.0.0.1:7379,2=10.0.0.2:7379,3=10.0.0.3:7379

The same as a file: add --print-config > node.toml, then: outrigger serve --config node.toml
Logs go to stderr; OUTRIGGER_LOG sets their level (error, warn, info, debug), --log-format how they look.";

const UP_EXAMPLES: &str = "Examples:
  outrigger up                                three nodes on ports 7001 to 7003
  outrigger up --nodes 5 --dir /data/cluster  five nodes, kept in /data/cluster
Then: redis-cli -p 7001 set greeting hello";

const CTL_EXAMPLES: &str = "Examples:
  outrigger ctl --node 10.0.0.1:6379 member list
  outrigger ctl --node 10.0.0.1:6379 member add 4 10.0.0.4:7379   after: outrigger serve --id 4 --join …
  outrigger ctl --node 10.0.0.1:6379 backup /backups/today
  outrigger ctl --node 10.0.0.1:6379 restore /backups/today       into an empty cluster, of any size
  outrigger ctl --node 10.0.0.1:6379 member promote 4             waits until node 4 has caught up
More in docs/operations.md.";

const TOOL_EXAMPLES: &str = "Examples, of a node in /var/lib/outrigger:
  outrigger tool wal check /var/lib/outrigger/core-0          whether the log may be believed
  outrigger tool wal grep /var/lib/outrigger/core-0 precious  the entries that hold some text
  outrigger tool raft state /var/lib/outrigger/core-0 --json  what it says of each group
Exit code 1: something is damaged or missing; what could be shown was shown. More in docs/operations.md.";

const DOCTOR_EXAMPLE: &str = "Example: outrigger doctor /var/lib/outrigger
It overwrites a file of 4 MiB there for a second or two, and removes it. Exit code 1: a node could not start.";

#[derive(Debug, Args)]
struct Serve {
    /// Configuration file (TOML); flags override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration, with comments, and exit.
    #[arg(long)]
    print_config: bool,
    /// This node's id: 1 or more, different on every node.
    #[arg(long, value_name = "N")]
    id: Option<u64>,
    /// Where the node keeps everything.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where clients connect.
    #[arg(long, value_name = "IP:PORT")]
    client: Option<SocketAddr>,
    /// Where clients are told to connect [default: as --client, as far as that can be reached].
    #[arg(long, value_name = "IP:PORT")]
    advertise_client: Option<SocketAddr>,
    /// Commands for other nodes: auto (-MOVED for connections that have said CLUSTER something,
    /// forwarded for others), redirect (-MOVED for all) or forward (for all) [default: auto].
    #[arg(long, value_name = "HOW")]
    routing: Option<String>,
    /// Who answers what a connection reads before it says READONLY or READWRITE: leader, or replica (this node,
    /// if it has one) [default: leader].
    #[arg(long, value_name = "WHO")]
    read_from: Option<String>,
    /// Where the other nodes connect.
    #[arg(long, value_name = "IP:PORT")]
    peer: Option<SocketAddr>,
    /// All nodes, this one included; the members at the first start of a new cluster.
    #[arg(long, value_name = "1=IP:PORT,2=IP:PORT,…", value_delimiter = ',', value_parser = peer)]
    peers: Option<Vec<(String, SocketAddr)>>,
    /// Join a cluster that exists: begin as no member, and wait for `outrigger ctl member add`.
    #[arg(long)]
    join: bool,
    /// How eagerly this node stands for election; 0 to 100, 0 is never [default: 100].
    #[arg(long, value_name = "N")]
    priority: Option<u8>,
    /// Cores to use, one executor and one log each [default: 1; fixed at the first start].
    #[arg(long, value_name = "C")]
    cores: Option<u16>,
    /// Raft groups of the cluster [default: 16; fixed at the first start].
    #[arg(long, value_name = "G")]
    groups: Option<u64>,
    /// Least time without a leader before an election [default: 1000].
    #[arg(long, value_name = "MS")]
    election_ms: Option<u64>,
    /// How often a leader sends word [default: a tenth of election-ms].
    #[arg(long, value_name = "MS")]
    heartbeat_ms: Option<u64>,
    /// How long a client's command may wait for its result [default: 2500].
    #[arg(long, value_name = "MS")]
    request_ms: Option<u64>,
    /// Log writes on their way to the disk at once, per core [default: 2].
    #[arg(long, value_name = "N")]
    flushes_in_flight: Option<usize>,
    /// How a log write is made durable: dsync (the write itself waits for the device), fdatasync after it,
    /// or auto: what is faster at the start [default: auto].
    #[arg(long, value_name = "METHOD")]
    flush_method: Option<String>,
    /// How long an idle core looks for work before it sleeps, in microseconds [default: 0].
    #[arg(long, value_name = "US")]
    spin_us: Option<u64>,
    /// Recent entries kept in memory, per core, in bytes [default: 128 MiB].
    #[arg(long, value_name = "BYTES")]
    log_cache_bytes: Option<usize>,
    /// Let clients switch faults on (DEBUG STALL-DISK, DEBUG PAUSE-PEERS); for tests only.
    #[arg(long)]
    fault_commands: bool,
    /// Groups that answer reads by lease: none, all, or 0-3,7; the same on all nodes [default: none].
    #[arg(long, value_name = "GROUPS")]
    lease_groups: Option<String>,
    /// How much the speeds of two machines' clocks may differ, in percent [default: 10].
    #[arg(long, value_name = "PERCENT")]
    lease_drift_percent: Option<u8>,
    /// How long the log of one core should be, in bytes; past it, snapshots replace it
    /// [default: 1 GiB].
    #[arg(long, value_name = "BYTES")]
    log_bytes: Option<u64>,
    /// Bytes of snapshots sent to followers per second, per core [default: 64 MiB].
    #[arg(long, value_name = "BYTES")]
    snapshot_bytes_per_s: Option<u64>,
    /// How long a clean stop may take to write snapshots, so that the next start reads little more than
    /// those; 0 is never [default: 5000].
    #[arg(long, value_name = "MS")]
    checkpoint_ms: Option<u64>,
    /// Operations that take as long are remembered for SLOWLOG, with where their time went [default: 10000].
    #[arg(long, value_name = "US")]
    slowlog_us: Option<u64>,
    /// Log bytes one core may hold on disk; past it writes are refused [default: no limit].
    #[arg(long, value_name = "BYTES")]
    wal_max_bytes: Option<u64>,
    /// Clients that may be connected at once [default: 10000].
    #[arg(long, value_name = "N")]
    max_clients: Option<usize>,
    /// Disconnect clients that are silent for so long, in seconds; 0 is never [default: 0].
    #[arg(long, value_name = "S")]
    client_idle_s: Option<u64>,
    /// A file with the password that clients must say (AUTH).
    #[arg(long, value_name = "FILE")]
    requirepass_file: Option<PathBuf>,
    /// Clients must speak TLS: the node's certificate, and those above it (PEM).
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Clients must show a certificate that this authority signed (PEM).
    #[arg(long, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Nodes speak TLS with each other: this node's certificate (PEM); may be that of --tls-cert.
    #[arg(long, value_name = "FILE")]
    peer_tls_cert: Option<PathBuf>,
    /// The key of --peer-tls-cert (PEM).
    #[arg(long, value_name = "FILE")]
    peer_tls_key: Option<PathBuf>,
    /// The authority that must have signed the other nodes' certificates (PEM).
    #[arg(long, value_name = "FILE")]
    peer_tls_ca: Option<PathBuf>,
    /// The cluster's name [default: outrigger].
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Where operators and their tools connect, over HTTP: /livez, /readyz, /metrics, /status and a status page.
    /// Unencrypted, without a password: keep it on this machine, as 127.0.0.1:9001 is [default: nowhere].
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
    /// How the log on stderr looks: lines for people, or one JSON object per line.
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    log_format: LogFormat,
    /// End when this process ends (set by `outrigger up` for its children).
    #[arg(long, hide = true, value_name = "PID")]
    parent_pid: Option<u32>,
}

/// What a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum LogFormat {
    Human,
    Json,
}

fn peer(text: &str) -> Result<(String, SocketAddr), String> {
    let (id, address) =
        text.split_once('=').ok_or("expected id=ip:port, as in 1=127.0.0.1:7101")?;
    id.parse::<u64>().map_err(|_| format!("`{id}` is not a node id"))?;
    let address = address.parse().map_err(|_| format!("`{address}` is not ip:port"))?;
    Ok((id.to_owned(), address))
}

impl Serve {
    fn settings(self) -> Result<Settings, Misconfigured> {
        let mut peers = None;
        for (id, address) in self.peers.into_iter().flatten() {
            let peers = peers.get_or_insert_with(BTreeMap::new);
            if let Some(other) = peers.insert(id.clone(), address) {
                let cause = format!("--peers names node {id} twice: {other} and {address}");
                return Err(Misconfigured(cause));
            }
        }
        Ok(Settings {
            id: self.id,
            dir: self.dir,
            client: self.client,
            advertise_client: self.advertise_client,
            routing: self.routing,
            read_from: self.read_from,
            peer: self.peer,
            peers,
            join: self.join.then_some(true),
            priority: self.priority,
            cores: self.cores,
            groups: self.groups,
            election_ms: self.election_ms,
            heartbeat_ms: self.heartbeat_ms,
            admin: self.admin,
            cluster: self.cluster,
            request_ms: self.request_ms,
            flushes_in_flight: self.flushes_in_flight,
            flush_method: self.flush_method,
            spin_us: self.spin_us,
            log_cache_bytes: self.log_cache_bytes,
            fault_commands: self.fault_commands.then_some(true),
            lease_groups: self.lease_groups,
            lease_drift_percent: self.lease_drift_percent,
            log_bytes: self.log_bytes,
            snapshot_bytes_per_s: self.snapshot_bytes_per_s,
            checkpoint_ms: self.checkpoint_ms,
            slowlog_us: self.slowlog_us,
            wal_bytes_max: self.wal_max_bytes,
            max_clients: self.max_clients,
            client_idle_s: self.client_idle_s,
            // Never a flag: everybody on the machine sees those.
            requirepass: None,
            requirepass_file: self.requirepass_file,
            tls_cert: self.tls_cert,
            tls_key: self.tls_key,
            tls_client_ca: self.tls_client_ca,
            peer_tls_cert: self.peer_tls_cert,
            peer_tls_key: self.peer_tls_key,
            peer_tls_ca: self.peer_tls_ca,
        })
    }

    fn run(self) -> Result<(), Failure> {
        if let Some(parent) = self.parent_pid {
            up::end_with(parent)?;
        }
        let print = self.print_config;
        let config = self.resolve()?;
        if print {
            print!("{}", config.to_toml());
            return Ok(());
        }
        let id = config.id;
        let result = serve::serve(&config);
        result.map_err(|fatal| Failure::Fatal(Fatal::new(format!("node {id} stopped: {fatal}"))))
    }

    /// The configuration that flags and file make together.
    fn resolve(self) -> Result<Config, Misconfigured> {
        let refused = |error: outrigger::config::ConfigError| Misconfigured(error.to_string());
        let file = match &self.config {
            Some(path) => Settings::from_file(path).map_err(refused)?,
            None => Settings::default(),
        };
        let origin = self.config.as_ref().map(|path| format!("{}: ", path.display()));
        self.settings()?.over(file).resolve().map_err(|error| {
            // The value may come from a flag as well; the file is where to look first.
            Misconfigured(format!("{}{error}", origin.unwrap_or_default()))
        })
    }
}

/// Like `serve`, for what it says of the node and its directory.
#[derive(Debug, Args)]
struct QuorumLoss {
    #[command(flatten)]
    serve: Serve,
    /// Do what the plan of this name says; without it, print the plan and change nothing.
    #[arg(long, value_name = "NAME")]
    apply: Option<String>,
}

impl QuorumLoss {
    fn run(self) -> Result<(), Failure> {
        let config = self.serve.resolve()?;
        print!("{}", quorum_loss::quorum_loss(&config, self.apply.as_deref())?);
        Ok(())
    }
}

/// Flags and file that make no configuration: why, in one line.
#[derive(Debug)]
struct Misconfigured(String);

/// Why a command ended without success.
#[derive(Debug)]
enum Failure {
    /// It does not get better by itself. Exits with 2, as for a flag that does not exist, and systemd does not try
    /// again (docs/outrigger.service).
    Misconfigured(Misconfigured),
    /// What a tool has to complain of, line by line. Exits with 1.
    Shown(String),
    /// Anything else. Exits with 1.
    Fatal(Fatal),
}

impl From<Misconfigured> for Failure {
    fn from(cause: Misconfigured) -> Self {
        Self::Misconfigured(cause)
    }
}

impl From<Fatal> for Failure {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl Command {
    /// What `serve` was told; people look at everything else.
    fn log_format(&self) -> LogFormat {
        match self {
            Self::Serve(serve) => serve.log_format,
            Self::QuorumLoss(options) => options.serve.log_format,
            Self::Up(_)
            | Self::Ctl(_)
            | Self::Top(_)
            | Self::Drain(_)
            | Self::Tool(_)
            | Self::Doctor(_) => LogFormat::Human,
        }
    }
}

fn begin_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OUTRIGGER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        LogFormat::Human => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => {
            log.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        }
    }
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let format = command.log_format();
    begin_log(format);
    let result = match command {
        Command::Serve(serve) => serve.run(),
        Command::QuorumLoss(options) => options.run(),
        Command::Up(options) => up::up(&options).map_err(Failure::from),
        Command::Ctl(options) => ctl::ctl(&options).map_err(Failure::from),
        Command::Top(options) => top::top(&options).map_err(Failure::from),
        Command::Drain(options) => ctl::drain(&options).map_err(Failure::from),
        Command::Tool(tool) => tool::run(&tool, &mut std::io::stdout()).map_err(Failure::Shown),
        Command::Doctor(options) => doctor::doctor(&options).map_err(Failure::from),
    };
    let (cause, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Misconfigured(Misconfigured(cause))) => (cause, ExitCode::from(2)),
        Err(Failure::Shown(lines)) => {
            eprintln!("{lines}");
            return ExitCode::FAILURE;
        }
        Err(Failure::Fatal(fatal)) => (fatal.to_string(), ExitCode::FAILURE),
    };
    // One line that names the cause; a supervisor shows the last line it saw.
    match format {
        LogFormat::Human => eprintln!("outrigger: {cause}"),
        LogFormat::Json => tracing::error!("{cause}"),
    }
    code
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_line_of_the_contract_is_understood() {
        let line = "outrigger serve --id 2 --dir /d --client 127.0.0.1:1 --peer 127.0.0.1:2 \
                    --peers 1=127.0.0.1:9,2=127.0.0.1:2 --cores 2 --groups 4 --election-ms 500 \
                    --heartbeat-ms 50 --admin 127.0.0.1:3";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("understood");
        let Command::Serve(serve) = cli.command else { panic!("not serve") };
        let config = serve.settings().expect("no node twice").resolve().expect("valid");
        assert_eq!((config.id, config.cores, config.groups, config.election_ms), (2, 2, 4, 500));
        assert_eq!(config.nodes().len(), 2);
    }

    #[test]
    fn a_malformed_peer_is_named() {
        for (text, expected) in [
            ("1", "expected id=ip:port, as in 1=127.0.0.1:7101"),
            ("x=127.0.0.1:1", "`x` is not a node id"),
            ("1=localhost", "`localhost` is not ip:port"),
        ] {
            assert_eq!(peer(text), Err(expected.to_owned()));
        }
    }
}
