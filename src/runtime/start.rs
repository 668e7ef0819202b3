//! From a configuration to a running node: the one way, whoever asks.
//!
//! ```text
//!  outrigger serve ── Config, Map ──────────┐
//!                                           ├─► preflight ─► directory ─► Setup ─► cores
//!  your program ──── Config, your machines ─┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, FlushMethod};
use crate::id::{GroupId, NodeId};
use crate::shard::Leases;
use crate::store::StateMachine;

use super::client::Client;
use super::disk;
use super::fatal::Fatal;
use super::identity::Home;
use super::keyring::Keyring;
use super::node::{Machines, Node, Setup};
use super::preflight;

/// How often [`Node::wait_until_ready`] looks.
const LOOK: Duration = Duration::from_millis(5);

impl Node {
    /// Starts a node whose groups replicate what `machine` makes: an empty machine for a group, the same at every
    /// start, called on the core that the group lives on. The machine itself never leaves that core and need
    /// not be `Send`.
    ///
    /// Returns once the cores run. They replay their logs then; until that is done, calls are refused with
    /// [`Why::Loading`](super::client::Why::Loading): see [`Self::wait_until_ready`].
    ///
    /// The node is part of this process: one that has to stop itself (a disk that fails, say) ends its cores and
    /// says why ([`Self::join`], [`Self::stop`]); nothing exits the process.
    ///
    /// # Errors
    /// When a setting is out of range, the directory cannot be used or belongs to another node or process, a port
    /// is taken, or the machine lacks something (`outrigger doctor` looks at it). One line, with the remedy.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use outrigger::store::map::Map;
    /// use outrigger::{Config, Node, id::GroupId};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::new(1, "/var/lib/mine", "127.0.0.1:7101".parse()?);
    /// let node = Node::start(config, |_group| Box::new(Map::new()))?;
    /// assert!(node.wait_until_ready(Duration::from_secs(10)));
    /// let client = node.client();
    /// let _reply = client.write(GroupId(0), &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"[..]).wait()?;
    /// node.stop()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn start(
        config: Config,
        machine: impl Fn(GroupId) -> Box<dyn StateMachine> + Send + Sync + 'static,
    ) -> Result<Self, Fatal> {
        let config = config.validated().map_err(|error| Fatal::new(error.to_string()))?;
        Self::start_with(&config, Machines::from(Box::new(machine) as Box<_>))
    }

    /// The same of settings that are valid.
    pub(super) fn start_with(config: &Config, machines: Machines) -> Result<Self, Fatal> {
        let keyring = Arc::new(Keyring::open(&config.security)?);
        let connections_max = preflight::check(config)?;
        let home = Home::open(config)?;
        let origin = home.origin();
        let Home { bootstrap, known, keeper, lock, .. } = home;
        let setup = Setup {
            cluster: home.cluster,
            node: NodeId(config.id),
            incarnation: home.incarnation,
            dir: config.dir.clone(),
            client: config.client,
            advertise_client: config.advertise_client,
            routing: config.routing,
            read_from: config.read_from,
            peer: config.peer,
            admin: config.admin,
            // The address to bind may be any of the machine's; the list says which one the others use.
            address: config.peers.get(&config.id).copied().unwrap_or(config.peer),
            seeds: config.peers.iter().map(|(id, address)| (NodeId(*id), *address)).collect(),
            bootstrap,
            birth: home.birth,
            origin,
            proven: home.proven,
            cores: config.cores,
            groups: config.groups,
            election_ms: config.election_ms,
            heartbeat_ms: config.heartbeat_ms,
            priority: config.priority,
            fault_commands: config.fault_commands,
            request_ms: config.request_ms,
            flushes_in_flight: config.flushes_in_flight,
            flush_method: flush_method(config),
            log_cache_bytes: config.log_cache_bytes,
            leases: Leases {
                groups: config.lease_groups.clone(),
                drift_percent: config.lease_drift_percent,
            },
            log_bytes: config.log_bytes,
            snapshot_bytes_per_s: config.snapshot_bytes_per_s,
            checkpoint_ms: config.checkpoint_ms,
            slowlog_us: config.slowlog_us,
            wal_bytes_max: if config.wal_bytes_max == 0 { u64::MAX } else { config.wal_bytes_max },
            connections_max,
            client_idle_s: config.client_idle_s,
            keyring,
            spin: Duration::from_micros(config.spin_us),
        };
        let node = Self::begin(setup, machines, known, keeper, lock)?;
        tracing::info!(
            node = config.id,
            client = %node.client_port().map_or_else(|| "none".into(), |port| port.to_string()),
            peer = %config.peer,
            dir = %config.dir.display(),
            incarnation = home.incarnation.0,
            "outrigger {} started",
            env!("CARGO_PKG_VERSION"),
        );
        if let Some(admin) = node.admin() {
            tracing::info!("status page: http://{admin}/");
            if !admin.ip().is_loopback() {
                tracing::warn!(
                    %admin,
                    "the admin port can be reached from other machines: it is unencrypted and asks for no password",
                );
            }
        }
        Ok(node)
    }

    /// A way to call it; as many as are wanted.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.watch();
        self.client.clone()
    }

    /// Waits, on this thread, until the log is replayed and every group has a leader that is ready, as far as this
    /// node knows; no longer than `patience`. False if it is not so by then.
    #[must_use]
    pub fn wait_until_ready(&self, patience: Duration) -> bool {
        let (client, started) = (self.client(), Instant::now());
        loop {
            if client.is_ready() {
                return true;
            }
            if patience <= started.elapsed() {
                return false;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Stops it cleanly and waits for the end, at most about 10 s, or 5 s more than [`Config::checkpoint_ms`]: leadership
    /// is handed over, snapshots are written for the next start, writes under way end, files close. Every call
    /// that is still unanswered then is answered: see [`super::client`].
    ///
    /// # Errors
    /// Why a core had stopped itself, or could not stop cleanly.
    pub fn stop(self) -> Result<(), Fatal> {
        self.stopper().stop();
        while self.next_end() {}
        self.cause()
    }
}

/// What the configuration says, or what suits the disk.
fn flush_method(config: &Config) -> FlushMethod {
    if let Some(method) = config.flush_method {
        return method;
    }
    let (method, measured) = disk::choose(&config.dir);
    if let Some(flushes) = measured {
        tracing::info!(
            dsync = %flushes.dsync,
            fdatasync = %flushes.fdatasync,
            "log writes are made durable by {}",
            method.name(),
        );
    }
    method
}
