//! One core's mind: all groups that live on it, and the turn they share.
//!
//! ```text
//!                   ┌────────────────────── Shard ───────────────────────┐
//!  Event::Request ─►│ requests ─► route ─► Replica ─┐                    │
//!  Event::Frame   ─►│                      Replica ─┼─► batch ──► Write ─┼─► one write, one flush
//!  Event::Post    ─►│ forward ◄─────────── Replica ─┤                    │
//!  Event::Flushed ─►│                               └─► coalesce ─ frame ┼─► one frame per peer
//!  time           ─►│ timers                                      reply ─┼─► clients
//!                   └─────────────────────────────────────────────────────┘
//! ```
//!
//! Promises: the same events give the same effects; what a replica promises leaves only after the
//! write that holds it is durable, in ticket order; every request is answered exactly once, in
//! time; a full table refuses by name.
//!
//! Assumes: the driver performs writes in any order but reports each, keeps frames of one lane to
//! one peer in order, and calls [`Shard::turn`] after events and at least every few milliseconds. It gives back what it
//! has performed ([`Shard::reuse_write`], [`Shard::reuse_frame`]), or every write and frame allocates.
//!
//! Never: waits, reads a clock, or touches another shard but through [`event::Post`].

mod backups;
mod batch;
mod beats;
mod coalesce;
mod disk_age;
mod drain;
pub mod event;
mod forward;
mod leases;
mod peers;
pub mod pipeline;
mod read_log;
mod recover;
pub mod report;
mod requests;
mod route;
#[expect(clippy::module_inception, reason = "the shard is the one thing this room is about")]
mod shard;
mod slow_disk;
pub mod slowlog;
mod snapshots;
pub mod stages;
mod streaming;
mod telling;
#[cfg(test)]
mod tests;
mod timers;
mod topology;
mod truncate;

pub use event::{Effects, Event};
pub use leases::{LeasedGroups, Leases};
pub use pipeline::Pipeline;
pub use recover::{Alone, RecoverError, Recovering, Recovery};
pub use shard::Shard;

use core::net::SocketAddr;

use crate::id::{ClusterId, Incarnation, NodeId, ShardId};
use crate::limits;
use crate::wal::Identity;
use crate::wire::Route;

/// What a shard must be told; data only.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// The node it is part of.
    pub node: NodeId,
    /// Which start of the node this is.
    pub incarnation: Incarnation,
    /// Which core it is.
    pub shard: ShardId,
    /// How many cores the node has; group `g` lives on core `g % cores`. At least 1.
    pub cores: u16,
    /// How many groups the cluster has. At least 1.
    pub groups: u64,
    /// The nodes that every group began with, as voters; the replica on a node is named after it.
    /// None if this node joined later. The members of today follow from there by the log.
    pub nodes: Vec<NodeId>,
    /// Where those listened; may name fewer.
    pub addresses: Vec<(NodeId, SocketAddr)>,
    /// The least time without word from a leader before a replica stands for election, in ms; the
    /// most is twice that.
    pub election_ms: u64,
    /// How often a leader sends word, in ms; well under `election_ms`.
    pub heartbeat_ms: u64,
    /// How eagerly the replicas of this node stand for election, 0 to 100; see
    /// [`crate::raft::Config::priority`].
    pub priority: u8,
    /// How long a client's command may wait for its result, in ms.
    pub request_ms: u64,
    /// Writes that may be on their way to the disk at once: 1 to `limits::FLUSHES_IN_FLIGHT_MAX`.
    pub flushes_in_flight: usize,
    /// While a write is on its way, less than this waits for its end, in bytes, and goes as one write
    /// then; 0: never. See [`limits::FLUSH_JOINS_BYTES`].
    pub flush_joins_bytes: usize,
    /// Entries kept in memory for followers, in bytes.
    pub log_cache_bytes: usize,
    /// Which groups answer reads by lease; the same on all nodes.
    pub leases: Leases,
    /// How long the log should be, in bytes; past it, groups take snapshots of themselves so that its
    /// front can go. At least three segments and twice what the snapshots take are kept whatever it
    /// says. Shorter means more snapshots and followers that need one sooner, longer means a longer
    /// replay.
    pub log_bytes: u64,
    /// Bytes of snapshots sent to followers per second. At least 1.
    pub snapshot_bytes_per_s: u64,
    /// Seed of election jitter, and of nothing else.
    pub seed: u64,
}

impl Config {
    /// Whose its log is.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        Identity { cluster: self.cluster, node: self.node, shard: self.shard }
    }

    /// The only core of `node` in its first life, with the defaults of the node: `groups` groups that began with
    /// `nodes`, an election timeout of a second, 128 MiB of entries in memory, a log of 1 GiB, no leases. Whoever runs
    /// more than one gives each another [`Self::seed`].
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, nodes: &[NodeId], groups: u64) -> Self {
        Self {
            cluster,
            node,
            incarnation: Incarnation(1),
            shard: ShardId(0),
            cores: 1,
            groups,
            nodes: nodes.to_vec(),
            addresses: Vec::new(),
            election_ms: 1_000,
            heartbeat_ms: 100,
            priority: 100,
            request_ms: 2_500,
            flushes_in_flight: 2,
            flush_joins_bytes: limits::FLUSH_JOINS_BYTES,
            log_cache_bytes: limits::LOG_CACHE_BYTES_MAX,
            leases: Leases::default(),
            log_bytes: limits::LOG_BYTES_DEFAULT,
            snapshot_bytes_per_s: limits::SNAPSHOT_BYTES_PER_S,
            seed: node.0,
        }
    }

    /// The return address of every frame of this shard.
    fn route(&self) -> Route {
        Route {
            cluster: self.cluster,
            from: self.node,
            to: NodeId(0),
            incarnation: self.incarnation,
            shard: self.shard,
        }
    }
}
