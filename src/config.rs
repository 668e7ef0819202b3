//! Every setting of a node: its unit, default, range, and the price of getting it wrong.
//!
//! A file gives values, flags override them, and what neither gives has the default written here.

mod security;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{ClusterId, NodeId};
use crate::limits;
use crate::shard::LeasedGroups;
use crate::store::connection::{ReadFrom, Routing};

pub use security::{Secret, Security, TlsFiles};

/// How a log write is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FlushMethod {
    /// The write itself is done when the device has it for good (`RWF_DSYNC`). A large one, in parts, is
    /// flushed once.
    #[default]
    Dsync,
    /// Write, then `fdatasync`.
    Fdatasync,
}

impl FlushMethod {
    /// Its name in the configuration and in `INFO`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dsync => "dsync",
            Self::Fdatasync => "fdatasync",
        }
    }
}

/// A node's settings; data only. Validation has the last word on every field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This node's id. No default; 1 or more, different on every node, the same for the life of
    /// its directory.
    pub id: u64,
    /// Where the node keeps everything. No default. One process at a time; on a filesystem that
    /// accepts O_DIRECT (ext4, xfs; not tmpfs before Linux 6.6).
    pub dir: PathBuf,
    /// Where clients of the Redis protocol connect. No default for `outrigger serve`; none is for a node that is
    /// embedded and called from its own process only. In the clear and open to all unless [`Security`] says
    /// otherwise: bind it to a trusted network then.
    pub client: Option<SocketAddr>,
    /// Where clients are told to connect, by `-MOVED` and `CLUSTER SLOTS`. Default: `client`, or if
    /// that is any address of the machine (0.0.0.0), its port under the ip by which the other nodes
    /// know this one. To be set where clients come by another way, as through address translation.
    pub advertise_client: Option<SocketAddr>,
    /// What happens to a command whose group another node leads. Default `auto`: `-MOVED` for a
    /// connection that has said `CLUSTER` something, forwarded for any other. `redirect`: `-MOVED`
    /// for all, which plain clients do not understand. `forward`: forwarded for all, which costs
    /// cluster clients a hop after each change of leader.
    pub routing: Routing,
    /// Who answers the reads of a connection that has said neither `READONLY` nor `READWRITE`. Default `leader`.
    /// `replica`: this node, after asking the leader for an index, if it has a replica of the group; for cluster clients
    /// that want to read from replicas and say nothing (docs/commands.md, "Cluster clients").
    pub read_from: ReadFrom,
    /// Where the other nodes connect. No default. The same warning holds.
    pub peer: SocketAddr,
    /// Id and peer address of every node, this one included. At most `limits::NODES_MAX`. At the
    /// first start of a new cluster, its members; the same list on every node. Later, and with
    /// `join`, only where to look for the others until they have been found: the members are what
    /// the cluster agreed on (`outrigger ctl member`).
    pub peers: BTreeMap<u64, SocketAddr>,
    /// At its first start the node belongs to nothing, and waits to be added to a cluster that
    /// exists. Default false. Without it, two halves of a cluster could each believe to be whole.
    pub join: bool,
    /// How eagerly the node's replicas stand for election. Default 100, which waits as
    /// `election_ms` says; 1 waits up to twice as long, and 0 never stands on its own. At most 100.
    /// For nodes that should not lead because they are far from the clients or have a slow disk. With
    /// 0 on every node, nobody leads.
    pub priority: u8,
    /// Cores to use, one executor and one log each. Default 1; at most `limits::CORES_MAX`. Fixed
    /// at the first start, because it decides which log a group is in. More cores than the machine
    /// has make every one of them late.
    pub cores: u16,
    /// Raft groups of the cluster. Default 16; at most `limits::GROUPS_MAX`. Fixed at the first
    /// start. Fewer than cores leaves cores idle; many make each batch smaller.
    pub groups: u64,
    /// The least time without word from a leader before a replica stands for election, in ms; the
    /// most is twice that. Default 1000; 50 to 60000. Too low: elections whenever a disk stalls.
    /// Too high: writes pause that long when a leader dies.
    pub election_ms: u64,
    /// How often a leader sends word, in ms. Default 100; at most a third of `election_ms`.
    pub heartbeat_ms: u64,
    /// Where operators and their tools connect, over HTTP: `/livez`, `/readyz`, `/metrics`, `/status` and a
    /// status page. Default none. Unencrypted and without a password, though nothing can be changed there: an
    /// address that other machines reach is warned about.
    pub admin: Option<SocketAddr>,
    /// The cluster's name; with `groups` it makes the cluster id, so that nodes of two clusters never
    /// talk. Default "outrigger".
    pub cluster: String,
    /// How long a client's command may wait for its result, in ms. Default 2500; 10 to 600000.
    pub request_ms: u64,
    /// Log writes that may be on their way to the disk at once, per core. Default 2; 1 to
    /// `limits::FLUSHES_IN_FLIGHT_MAX`. More than one only while [`FLUSH_JOINS_BYTES`](limits::FLUSH_JOINS_BYTES)
    /// wait: more bandwidth.
    pub flushes_in_flight: usize,
    /// How a log write is made durable. Default `auto`, which is `None` here: the node measures both at
    /// every start and takes the faster one.
    pub flush_method: Option<FlushMethod>,
    /// How long an idle core looks for work before it sleeps, in microseconds. Default 0. About
    /// 20 saves some 10 µs of latency and costs the core.
    pub spin_us: u64,
    /// Recent entries kept in memory to feed followers, per core, in bytes. Default 128 MiB; at
    /// least 8 MiB. Less: followers that lag are fed from disk sooner.
    pub log_cache_bytes: usize,
    /// Whether clients may switch faults on (`DEBUG STALL-DISK`, `DEBUG PAUSE-PEERS`). Default: no. For
    /// tests of whole clusters only: anybody who can connect can then stop the node from working.
    pub fault_commands: bool,
    /// Groups whose leaders answer reads by lease, without asking a quorum: `none` (the default), `all`,
    /// or groups such as `0-3,7`. Faster reads that rely on clocks; the same on all nodes.
    pub lease_groups: LeasedGroups,
    /// By how much, in percent, the speeds of two machines' clocks may differ: the lease is that much
    /// shorter than the election timeout. Default 10; 1 to 50.
    pub lease_drift_percent: u8,
    /// How long the log of one core should be, in bytes; past it, groups take snapshots of themselves
    /// so that its front can go. Default 1 GiB; at least four segments; well below `wal_bytes_max`, or
    /// writes are refused before snapshots help. Less: a shorter replay and more snapshots; followers
    /// that were away need one sooner.
    pub log_bytes: u64,
    /// Bytes of snapshots one core sends to followers per second. Default 64 MiB; 64 KiB to 1 TiB.
    /// More: a follower that was away is back sooner, and everything else waits longer for the
    /// network and for the follower's disk.
    pub snapshot_bytes_per_s: u64,
    /// How long a clean stop may take to write snapshots of all groups, in ms, so that the next start reads
    /// only those and what came after. Default 5000; 0 (never) to 600000. Left out where the log is
    /// short or consists of snapshots anyway; what is not ready in time is passed over.
    pub checkpoint_ms: u64,
    /// Operations that take as long as this, in µs, are remembered for `SLOWLOG`, the last 128 of each core.
    /// Default 10000, as in Redis; 0 (all of them) to 60000000.
    pub slowlog_us: u64,
    /// Log bytes one core may hold on disk; past it writes are refused with `-FULL`. Default 0: as
    /// much as the disk holds. At least four segments otherwise.
    pub wal_bytes_max: u64,
    /// Clients that may be connected at once. Default `limits::CONNECTIONS_DEFAULT`, as in Redis; 1 to
    /// `limits::CONNECTIONS_MAX`. Each takes a descriptor and about a kilobyte.
    pub max_clients: usize,
    /// A client that says nothing, takes nothing and waits for nothing for this long is disconnected, in
    /// seconds. Default 0, which is never, as in Redis; at most a year. Frees what clients hold that have
    /// vanished without a word.
    pub client_idle_s: u64,
    /// Who is served.
    pub security: Security,
}

/// What a file or the flags may say; everything is optional here.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// [`Config::id`].
    pub id: Option<u64>,
    /// [`Config::dir`].
    pub dir: Option<PathBuf>,
    /// [`Config::client`].
    pub client: Option<SocketAddr>,
    /// [`Config::advertise_client`].
    pub advertise_client: Option<SocketAddr>,
    /// [`Config::routing`].
    pub routing: Option<String>,
    /// [`Config::read_from`].
    pub read_from: Option<String>,
    /// [`Config::peer`].
    pub peer: Option<SocketAddr>,
    /// [`Config::peers`].
    pub peers: Option<BTreeMap<String, SocketAddr>>,
    /// [`Config::join`].
    pub join: Option<bool>,
    /// [`Config::priority`].
    pub priority: Option<u8>,
    /// [`Config::cores`].
    pub cores: Option<u16>,
    /// [`Config::groups`].
    pub groups: Option<u64>,
    /// [`Config::election_ms`].
    pub election_ms: Option<u64>,
    /// [`Config::heartbeat_ms`].
    pub heartbeat_ms: Option<u64>,
    /// [`Config::admin`].
    pub admin: Option<SocketAddr>,
    /// [`Config::cluster`].
    pub cluster: Option<String>,
    /// [`Config::request_ms`].
    pub request_ms: Option<u64>,
    /// [`Config::flushes_in_flight`].
    pub flushes_in_flight: Option<usize>,
    /// [`Config::flush_method`].
    pub flush_method: Option<String>,
    /// [`Config::spin_us`].
    pub spin_us: Option<u64>,
    /// [`Config::log_cache_bytes`].
    pub log_cache_bytes: Option<usize>,
    /// [`Config::fault_commands`].
    pub fault_commands: Option<bool>,
    /// [`Config::lease_groups`].
    pub lease_groups: Option<String>,
    /// [`Config::lease_drift_percent`].
    pub lease_drift_percent: Option<u8>,
    /// [`Config::log_bytes`].
    pub log_bytes: Option<u64>,
    /// [`Config::snapshot_bytes_per_s`].
    pub snapshot_bytes_per_s: Option<u64>,
    /// [`Config::checkpoint_ms`].
    pub checkpoint_ms: Option<u64>,
    /// [`Config::slowlog_us`].
    pub slowlog_us: Option<u64>,
    /// [`Config::wal_bytes_max`].
    pub wal_bytes_max: Option<u64>,
    /// [`Config::max_clients`].
    pub max_clients: Option<usize>,
    /// [`Config::client_idle_s`].
    pub client_idle_s: Option<u64>,
    /// [`Security::requirepass`].
    pub requirepass: Option<Secret>,
    /// [`Security::requirepass_file`].
    pub requirepass_file: Option<PathBuf>,
    /// [`Security::client`].
    pub tls_cert: Option<PathBuf>,
    /// [`Security::client`].
    pub tls_key: Option<PathBuf>,
    /// [`Security::client`].
    pub tls_client_ca: Option<PathBuf>,
    /// [`Security::peer`].
    pub peer_tls_cert: Option<PathBuf>,
    /// [`Security::peer`].
    pub peer_tls_key: Option<PathBuf>,
    /// [`Security::peer`].
    pub peer_tls_ca: Option<PathBuf>,
}

/// What is wrong with a file, in one line: a supervisor shows the last line a node said. Values are left out:
/// any of them may be a password in the wrong place.
fn without_values(message: &str) -> String {
    let message = message.replace('\n', " ");
    let quotes_a_value =
        message.starts_with("invalid type: ") || message.starts_with("invalid value: ");
    match message.rsplit_once(", expected ") {
        Some((_, expected)) if quotes_a_value => format!("not of its kind, expected {expected}"),
        _ => message,
    }
}

/// The setting that a line of a file begins with, if it is one: any other word may be part of a value.
fn setting_of(line: &str) -> Option<&str> {
    let is_of_a_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let line = line.trim_start();
    let key = line.split(|letter| !is_of_a_name(letter)).next().filter(|key| !key.is_empty())?;
    let read = toml::from_str::<Settings>(&format!("{key} = 0"));
    let is_unknown = read.is_err_and(|error| error.message().starts_with("unknown field"));
    (!is_unknown).then_some(key)
}

/// Why settings cannot be used: which, what it is, what it may be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The file is not TOML, or holds a setting that does not exist.
    #[error("{path}: {cause}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: String,
    },
    /// A setting without a default was not given.
    #[error("`{key}` is not set: give --{flag} or put `{key}` into the configuration file")]
    Missing {
        /// The setting.
        key: &'static str,
        /// Its flag.
        flag: &'static str,
    },
    /// A setting is outside its range.
    #[error("`{key}` is {value}, but must be {allowed}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        allowed: String,
    },
}

impl Settings {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or names a setting that does not exist.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.to_owned(),
            cause: error.to_string(),
        })?;
        Self::from_text(path, &text)
    }

    /// Reads the text of a configuration file; `path` is named in errors.
    ///
    /// # Errors
    /// If it is not TOML, or names a setting that does not exist.
    pub fn from_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let message = without_values(error.message());
            let cause = match error.span() {
                Some(span) => {
                    let line = text[..span.start.min(text.len())].matches('\n').count();
                    match text.lines().nth(line).and_then(setting_of) {
                        Some(key) => format!("line {}, `{key}`: {message}", line + 1),
                        None => format!("line {}: {message}", line + 1),
                    }
                }
                None => message,
            };
            ConfigError::Malformed { path: path.to_owned(), cause }
        })
    }

    /// These settings, with those of `under` where these say nothing.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            id: self.id.or(under.id),
            dir: self.dir.or(under.dir),
            client: self.client.or(under.client),
            advertise_client: self.advertise_client.or(under.advertise_client),
            routing: self.routing.or(under.routing),
            read_from: self.read_from.or(under.read_from),
            peer: self.peer.or(under.peer),
            peers: self.peers.or(under.peers),
            join: self.join.or(under.join),
            priority: self.priority.or(under.priority),
            cores: self.cores.or(under.cores),
            groups: self.groups.or(under.groups),
            election_ms: self.election_ms.or(under.election_ms),
            heartbeat_ms: self.heartbeat_ms.or(under.heartbeat_ms),
            admin: self.admin.or(under.admin),
            cluster: self.cluster.or(under.cluster),
            request_ms: self.request_ms.or(under.request_ms),
            flushes_in_flight: self.flushes_in_flight.or(under.flushes_in_flight),
            flush_method: self.flush_method.or(under.flush_method),
            spin_us: self.spin_us.or(under.spin_us),
            log_cache_bytes: self.log_cache_bytes.or(under.log_cache_bytes),
            fault_commands: self.fault_commands.or(under.fault_commands),
            lease_groups: self.lease_groups.or(under.lease_groups),
            lease_drift_percent: self.lease_drift_percent.or(under.lease_drift_percent),
            log_bytes: self.log_bytes.or(under.log_bytes),
            snapshot_bytes_per_s: self.snapshot_bytes_per_s.or(under.snapshot_bytes_per_s),
            checkpoint_ms: self.checkpoint_ms.or(under.checkpoint_ms),
            slowlog_us: self.slowlog_us.or(under.slowlog_us),
            wal_bytes_max: self.wal_bytes_max.or(under.wal_bytes_max),
            max_clients: self.max_clients.or(under.max_clients),
            client_idle_s: self.client_idle_s.or(under.client_idle_s),
            requirepass: self.requirepass.or(under.requirepass),
            requirepass_file: self.requirepass_file.or(under.requirepass_file),
            tls_cert: self.tls_cert.or(under.tls_cert),
            tls_key: self.tls_key.or(under.tls_key),
            tls_client_ca: self.tls_client_ca.or(under.tls_client_ca),
            peer_tls_cert: self.peer_tls_cert.or(under.peer_tls_cert),
            peer_tls_key: self.peer_tls_key.or(under.peer_tls_key),
            peer_tls_ca: self.peer_tls_ca.or(under.peer_tls_ca),
        }
    }

    /// The whole configuration, every field judged.
    ///
    /// # Errors
    /// The first setting that is missing or out of range, with what it may be.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let missing = |key, flag| ConfigError::Missing { key, flag };
        let security = Security::resolve(&self)?;
        let mut peers = BTreeMap::new();
        for (id, address) in self.peers.ok_or(missing("peers", "peers"))? {
            let number = id.parse().map_err(|_| ConfigError::OutOfRange {
                key: "peers",
                value: format!("keyed by `{id}`"),
                allowed: "keyed by node ids: peers = { 1 = \"ip:port\", … }".into(),
            })?;
            if peers.insert(number, address).is_some() {
                return Err(ConfigError::OutOfRange {
                    key: "peers",
                    value: format!("naming node {number} twice"),
                    allowed: "a list that holds each node once".into(),
                });
            }
        }
        let election_ms = self.election_ms.unwrap_or(1000);
        let lease_groups = self.lease_groups.unwrap_or_else(|| "none".into());
        let lease_groups = lease_groups.parse().map_err(|_| ConfigError::OutOfRange {
            key: "lease_groups",
            value: format!("{lease_groups:?}"),
            allowed: "`none`, `all`, or groups such as `0-3,7`".into(),
        })?;
        let routing = self.routing.as_deref().unwrap_or("auto");
        let routing = Routing::named(routing).ok_or_else(|| ConfigError::OutOfRange {
            key: "routing",
            value: format!("{routing:?}"),
            allowed: "`auto`, `redirect` or `forward`".into(),
        })?;
        let read_from = self.read_from.as_deref().unwrap_or("leader");
        let read_from = ReadFrom::named(read_from).ok_or_else(|| ConfigError::OutOfRange {
            key: "read_from",
            value: format!("{read_from:?}"),
            allowed: "`leader` or `replica`".into(),
        })?;
        let flush_method = match self.flush_method.as_deref() {
            None | Some("auto") => None,
            Some("dsync") => Some(FlushMethod::Dsync),
            Some("fdatasync") => Some(FlushMethod::Fdatasync),
            Some(other) => {
                return Err(ConfigError::OutOfRange {
                    key: "flush_method",
                    value: format!("{other:?}"),
                    allowed: "`auto`, `dsync` or `fdatasync`".into(),
                });
            }
        };
        Config {
            id: self.id.ok_or(missing("id", "id"))?,
            dir: self.dir.ok_or(missing("dir", "dir"))?,
            client: Some(self.client.ok_or(missing("client", "client"))?),
            advertise_client: self.advertise_client,
            routing,
            read_from,
            peer: self.peer.ok_or(missing("peer", "peer"))?,
            peers,
            join: self.join.unwrap_or(false),
            priority: self.priority.unwrap_or(100),
            cores: self.cores.unwrap_or(1),
            groups: self.groups.unwrap_or(16),
            election_ms,
            heartbeat_ms: self.heartbeat_ms.unwrap_or_else(|| (election_ms / 10).max(1)),
            admin: self.admin,
            cluster: self.cluster.unwrap_or_else(|| "outrigger".into()),
            request_ms: self.request_ms.unwrap_or(2500),
            flushes_in_flight: self.flushes_in_flight.unwrap_or(2),
            flush_method,
            spin_us: self.spin_us.unwrap_or(0),
            log_cache_bytes: self.log_cache_bytes.unwrap_or(limits::LOG_CACHE_BYTES_MAX),
            lease_groups,
            fault_commands: self.fault_commands.unwrap_or(false),
            lease_drift_percent: self.lease_drift_percent.unwrap_or(10),
            log_bytes: self.log_bytes.unwrap_or(limits::LOG_BYTES_DEFAULT),
            snapshot_bytes_per_s: self.snapshot_bytes_per_s.unwrap_or(limits::SNAPSHOT_BYTES_PER_S),
            checkpoint_ms: self.checkpoint_ms.unwrap_or(5_000),
            slowlog_us: self.slowlog_us.unwrap_or(10_000),
            wal_bytes_max: self.wal_bytes_max.unwrap_or(0),
            max_clients: self.max_clients.unwrap_or(limits::CONNECTIONS_DEFAULT),
            client_idle_s: self.client_idle_s.unwrap_or(0),
            security,
        }
        .validated()
    }
}

impl Config {
    /// The settings of node `id`, which keeps everything in `dir` and whose peers reach it at `peer`: alone in its
    /// cluster, without a client port, and with the defaults that the fields name. The fields are there to be
    /// changed; [`crate::Node::start`] has the last word on them.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use outrigger::Config;
    ///
    /// let at = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    /// let config = Config {
    ///     peers: BTreeMap::from([(1, at(7101)), (2, at(7102)), (3, at(7103))]),
    ///     groups: 4,
    ///     ..Config::new(1, "/var/lib/mine", at(7101))
    /// };
    /// assert_eq!((config.cores, config.client), (1, None));
    /// ```
    #[must_use]
    pub fn new(id: u64, dir: impl Into<PathBuf>, peer: SocketAddr) -> Self {
        Self {
            id,
            dir: dir.into(),
            client: None,
            advertise_client: None,
            routing: Routing::default(),
            read_from: ReadFrom::default(),
            peer,
            peers: BTreeMap::from([(id, peer)]),
            join: false,
            priority: 100,
            cores: 1,
            groups: 16,
            election_ms: 1000,
            heartbeat_ms: 100,
            admin: None,
            cluster: "outrigger".into(),
            request_ms: 2500,
            flushes_in_flight: 2,
            flush_method: None,
            spin_us: 0,
            log_cache_bytes: limits::LOG_CACHE_BYTES_MAX,
            fault_commands: false,
            lease_groups: LeasedGroups::default(),
            lease_drift_percent: 10,
            log_bytes: limits::LOG_BYTES_DEFAULT,
            snapshot_bytes_per_s: limits::SNAPSHOT_BYTES_PER_S,
            checkpoint_ms: 5_000,
            slowlog_us: 10_000,
            wal_bytes_max: 0,
            max_clients: limits::CONNECTIONS_DEFAULT,
            client_idle_s: 0,
            security: Security::default(),
        }
    }

    /// The same settings, if every field is within its range.
    ///
    /// # Errors
    /// The first that is not, with what it may be.
    pub fn validated(self) -> Result<Self, ConfigError> {
        fn within<T: PartialOrd + std::fmt::Display>(
            key: &'static str,
            value: &T,
            low: &T,
            high: &T,
        ) -> Result<(), ConfigError> {
            if low <= value && value <= high {
                return Ok(());
            }
            let allowed = format!("from {low} to {high}");
            Err(ConfigError::OutOfRange { key, value: value.to_string(), allowed })
        }
        let wrong = |key, value: String, allowed: &str| {
            Err(ConfigError::OutOfRange { key, value, allowed: allowed.into() })
        };
        within("id", &self.id, &1, &u64::from(u32::MAX))?;
        within("cores", &self.cores, &1, &limits::CORES_MAX)?;
        within("groups", &self.groups, &1, &limits::GROUPS_MAX)?;
        within("election_ms", &self.election_ms, &50, &60_000)?;
        within("heartbeat_ms", &self.heartbeat_ms, &1, &(self.election_ms / 3))?;
        within("priority", &self.priority, &0, &100)?;
        within("request_ms", &self.request_ms, &10, &600_000)?;
        within("flushes_in_flight", &self.flushes_in_flight, &1, &limits::FLUSHES_IN_FLIGHT_MAX)?;
        within("spin_us", &self.spin_us, &0, &1_000_000)?;
        within("log_cache_bytes", &self.log_cache_bytes, &(8 << 20), &usize::MAX)?;
        within("lease_drift_percent", &self.lease_drift_percent, &1, &50)?;
        let rate = &self.snapshot_bytes_per_s;
        within("snapshot_bytes_per_s", rate, &(64 << 10), &(1 << 40))?;
        within("checkpoint_ms", &self.checkpoint_ms, &0, &600_000)?;
        within("slowlog_us", &self.slowlog_us, &0, &60_000_000)?;
        let segments_min = 4 * limits::SEGMENT_BYTES as u64;
        within("log_bytes", &self.log_bytes, &segments_min, &u64::MAX)?;
        if self.wal_bytes_max != 0 {
            within("wal_bytes_max", &self.wal_bytes_max, &segments_min, &u64::MAX)?;
        }
        within("max_clients", &self.max_clients, &1, &limits::CONNECTIONS_MAX)?;
        within("client_idle_s", &self.client_idle_s, &0, &limits::CLIENT_IDLE_S_MAX)?;
        if !self.peers.contains_key(&self.id) {
            let ids: Vec<String> = self.peers.keys().map(ToString::to_string).collect();
            let value = format!("of nodes {}", ids.join(", "));
            return wrong("peers", value, &format!("a list that holds this node, {}", self.id));
        }
        if self.peers.contains_key(&0) {
            return wrong("peers", "naming node 0".into(), "keyed by ids of 1 or more");
        }
        within("the number of peers", &self.peers.len(), &1, &limits::NODES_MAX)?;
        if let Some(client) = self.client.filter(|client| *client == self.peer) {
            return wrong("client", client.to_string(), "another address than `peer`");
        }
        let taken = |it: &SocketAddr| self.client == Some(*it) || self.peer == *it;
        if let Some(address) = self.admin.filter(taken) {
            return wrong("admin", address.to_string(), "another address than `client` and `peer`");
        }
        if let Some(address) = self.advertise_client
            && (address.ip().is_unspecified() || address.port() == 0)
        {
            return wrong("advertise_client", address.to_string(), "an address to connect to");
        }
        if self.cluster.is_empty() || self.cluster.contains(['"', '\\', '\n']) {
            return wrong("cluster", format!("{:?}", self.cluster), "a plain, non-empty name");
        }
        Ok(self)
    }

    /// All nodes, in order.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.peers.keys().map(|id| NodeId(*id)).collect()
    }

    /// What tells this cluster from others: a hash of its name and its groups. Not of its nodes,
    /// which come and go.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        let text = format!("{}/{}", self.cluster, self.groups);
        // FNV-1a: stable for ever, and two clusters on one network are not an adversary.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        ClusterId(hash)
    }

    /// The configuration as a file that gives it again, with comments.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let peers: Vec<String> =
            self.peers.iter().map(|(id, address)| format!("{id} = \"{address}\"")).collect();
        let admin = self.admin.map_or_else(
            || "# admin = \"127.0.0.1:9001\"".to_owned(),
            |address| format!("admin = \"{address}\""),
        );
        format!(
            r#"# Outrigger: the effective configuration of one node.

# This node's id: 1 or more, different on every node, the same for the life of its directory.
id = {id}
# Where the node keeps everything. One process at a time; needs a filesystem with O_DIRECT.
dir = {dir}
# Where clients connect (Redis protocol), and where the other nodes connect. See also TLS below.
{client}
peer = "{peer}"
# Where clients are told to connect, if not at `client`.
{advertise_client}
# A command whose group another node leads: auto (-MOVED for connections that have said CLUSTER
# something, forwarded for others), redirect (-MOVED for all) or forward (for all).
routing = "{routing}"
# Who answers what a connection reads before it says READONLY or READWRITE: leader, or replica (this node, if it has one).
read_from = "{read_from}"
# All nodes, this one included: id and peer address. The members at the first start of a new cluster;
# later only where to look for the others.
peers = {{ {peers} }}
# Join a cluster that exists, at the first start: `outrigger ctl member add` makes it a member.
join = {join}
# The cluster's name; with the groups it makes the cluster id.
cluster = {cluster}

# Cores to use, one executor and one log each (1 to {cores_max}). Fixed at the first start.
cores = {cores}
# Raft groups of the cluster (1 to {groups_max}). Fixed at the first start.
groups = {groups}

# Least time without a leader before an election, in ms (50 to 60000); the most is twice that.
election_ms = {election_ms}
# How often a leader sends word, in ms (at most a third of election_ms).
heartbeat_ms = {heartbeat_ms}
# How eagerly this node stands for election (0 to 100); the higher the sooner, 0 is never.
priority = {priority}
# How long a client's command may wait for its result, in ms (10 to 600000).
request_ms = {request_ms}

# Log writes on their way to the disk at once, per core (1 to {flushes_max}).
flushes_in_flight = {flushes_in_flight}
# How a log write is made durable: dsync (the write itself waits for the device), fdatasync after it, or
# auto: what is faster at the start.
flush_method = "{flush_method}"
# How long an idle core looks for work before it sleeps, in microseconds; 0 saves the processor.
spin_us = {spin_us}
# Recent entries kept in memory to feed followers, per core, in bytes (8388608 or more).
log_cache_bytes = {log_cache_bytes}
# Groups whose leaders answer reads by lease, without asking a quorum (none, all, or 0-3,7). The same
# on all nodes: a lease is a promise of the others, and relies on their clocks.
lease_groups = "{lease_groups}"
# By how much the speeds of two machines' clocks may differ, in percent (1 to 50).
lease_drift_percent = {lease_drift_percent}
# How long the log of one core should be, in bytes (268435456 or more); past it, snapshots replace it.
log_bytes = {log_bytes}
# Bytes of snapshots sent to followers per second, per core (65536 or more).
snapshot_bytes_per_s = {snapshot_bytes_per_s}
# How long a clean stop may take to write snapshots of all groups, in ms, so that the next start reads little
# more than those (0 is never; up to 600000).
checkpoint_ms = {checkpoint_ms}
# Operations that take as long, in microseconds, are remembered for SLOWLOG (0 is all; up to 60000000).
slowlog_us = {slowlog_us}
# Whether clients may switch faults on, for tests (DEBUG STALL-DISK, DELAY-DISK, PAUSE-PEERS).
fault_commands = {fault_commands}
# Log bytes one core may hold on disk; 0 is as much as the disk holds.
wal_bytes_max = {wal_bytes_max}

# Clients that may be connected at once (1 to {connections_max}).
max_clients = {max_clients}
# A client that is silent for so many seconds is disconnected; 0 is never.
client_idle_s = {client_idle_s}
{security}
# Where operators and their tools connect, over HTTP: /livez, /readyz, /metrics, /status and a status page.
# Unencrypted, without a password: keep it on this machine.
{admin}
"#,
            id = self.id,
            dir = quoted(&self.dir.display().to_string()),
            client = self.client.map_or_else(
                || "# client = \"127.0.0.1:6379\"".to_owned(),
                |address| format!("client = \"{address}\""),
            ),
            advertise_client = self.advertise_client.map_or_else(
                || "# advertise_client = \"10.0.0.1:6379\"".to_owned(),
                |address| format!("advertise_client = \"{address}\""),
            ),
            routing = self.routing.name(),
            read_from = self.read_from.name(),
            peer = self.peer,
            peers = peers.join(", "),
            join = self.join,
            priority = self.priority,
            cluster = quoted(&self.cluster),
            cores_max = limits::CORES_MAX,
            cores = self.cores,
            groups_max = limits::GROUPS_MAX,
            groups = self.groups,
            election_ms = self.election_ms,
            heartbeat_ms = self.heartbeat_ms,
            request_ms = self.request_ms,
            flushes_max = limits::FLUSHES_IN_FLIGHT_MAX,
            flushes_in_flight = self.flushes_in_flight,
            flush_method = self.flush_method.map_or("auto", FlushMethod::name),
            spin_us = self.spin_us,
            log_cache_bytes = self.log_cache_bytes,
            lease_groups = self.lease_groups,
            lease_drift_percent = self.lease_drift_percent,
            log_bytes = self.log_bytes,
            snapshot_bytes_per_s = self.snapshot_bytes_per_s,
            checkpoint_ms = self.checkpoint_ms,
            slowlog_us = self.slowlog_us,
            fault_commands = self.fault_commands,
            wal_bytes_max = self.wal_bytes_max,
            connections_max = limits::CONNECTIONS_MAX,
            max_clients = self.max_clients,
            client_idle_s = self.client_idle_s,
            security = self.security.to_toml(),
        )
    }
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        id = 1
        dir = "/data/one"
        client = "127.0.0.1:7001"
        peer = "127.0.0.1:7101"
        peers = { 1 = "127.0.0.1:7101", 2 = "127.0.0.1:7102" }
    "#;

    fn settings(text: &str) -> Result<Settings, ConfigError> {
        Settings::from_text(Path::new("node.toml"), text)
    }

    fn resolved(extra: &str) -> Result<Config, ConfigError> {
        settings(&format!("{MINIMAL}\n{extra}"))?.resolve()
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        for extra in [
            "",
            "cluster = \"a\\tb'\\u007f\"",
            "cores = 2\nadmin = \"127.0.0.1:9\"\nwal_bytes_max = 1073741824\njoin = true\npriority = 7",
            "advertise_client = \"10.1.2.3:6379\"\nrouting = \"redirect\"\nread_from = \"replica\"",
            "max_clients = 5\nclient_idle_s = 300\nrequirepass_file = \"/p\"",
        ] {
            let config = resolved(extra).expect("valid");
            let again = settings(&config.to_toml()).expect("readable").resolve().expect("valid");
            assert_eq!(again, config);
        }
    }

    #[test]
    fn flags_override_the_file() {
        let flags = Settings { groups: Some(3), ..Settings::default() };
        let config = flags.over(settings(&format!("{MINIMAL}\ngroups = 9")).expect("readable"));
        let config = config.resolve().expect("valid");
        assert_eq!((config.groups, config.cores, config.heartbeat_ms), (3, 1, 100));
    }

    #[test]
    fn errors_name_the_setting_and_what_it_may_be() {
        let cases = [
            ("cores = 0", "`cores` is 0, but must be from 1 to 256"),
            ("groups = 20000", "`groups` is 20000, but must be from 1 to 16384"),
            ("election_ms = 10", "`election_ms` is 10, but must be from 50 to 60000"),
            ("heartbeat_ms = 900", "`heartbeat_ms` is 900, but must be from 1 to 333"),
            (
                "wal_bytes_max = 5",
                "`wal_bytes_max` is 5, but must be from 268435456 to 18446744073709551615",
            ),
            (
                "advertise_client = \"0.0.0.0:6379\"",
                "`advertise_client` is 0.0.0.0:6379, but must be an address to connect to",
            ),
            (
                "routing = \"maybe\"",
                "`routing` is \"maybe\", but must be `auto`, `redirect` or `forward`",
            ),
            ("read_from = \"me\"", "`read_from` is \"me\", but must be `leader` or `replica`"),
            ("cluster = \"\"", "`cluster` is \"\", but must be a plain, non-empty name"),
        ];
        for (extra, expected) in cases {
            assert_eq!(resolved(extra).expect_err("refused").to_string(), expected);
        }
        let twice = MINIMAL.replace("2 = ", "01 = ");
        let twice = settings(&twice).expect("readable").resolve().expect_err("refused");
        assert_eq!(
            twice.to_string(),
            "`peers` is naming node 1 twice, but must be a list that holds each node once"
        );
        let unknown = resolved("corse = 2").expect_err("refused").to_string();
        assert!(
            unknown.starts_with("node.toml:") && unknown.contains("unknown field `corse`"),
            "{unknown}"
        );
        let nothing = Settings::default().resolve().expect_err("refused").to_string();
        assert_eq!(
            nothing,
            "`peers` is not set: give --peers or put `peers` into the configuration file"
        );
        let stranger =
            settings(&MINIMAL.replace("id = 1\n", "id = 3\n")).expect("readable").resolve();
        assert_eq!(
            stranger.expect_err("refused").to_string(),
            "`peers` is of nodes 1, 2, but must be a list that holds this node, 3"
        );
    }

    #[test]
    fn what_is_not_said_is_the_same_for_servers_and_embedders() {
        let served = resolved("").expect("valid");
        let new = Config::new(served.id, served.dir.clone(), served.peer);
        let (client, cores) = (served.client, served.cores);
        let (groups, peers) = (served.groups, served.peers.clone());
        assert_eq!(served, Config { client, cores, groups, peers, ..new.clone() });
        assert_eq!(new.clone().validated(), Ok(new));
    }

    #[test]
    fn the_cluster_id_depends_on_name_and_groups_only() {
        let one = resolved("").expect("valid");
        let mut grown = one.clone();
        grown.peers.insert(3, "127.0.0.1:7103".parse().expect("address"));
        assert_eq!(one.cluster_id(), grown.cluster_id());
        let moved = Config { client: "127.0.0.1:1".parse().ok(), ..one.clone() };
        assert_eq!(one.cluster_id(), moved.cluster_id());
        let other = Config { cluster: "other".into(), ..one.clone() };
        assert_ne!(one.cluster_id(), other.cluster_id());
        assert_ne!(one.cluster_id(), Config { groups: 3, ..one.clone() }.cluster_id());
    }
}
