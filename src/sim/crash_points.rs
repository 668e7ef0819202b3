//! Named places at which a node may lose its power (contract row 36): those of etcd's loop, at the
//! places of ours that answer to them. Random crashes fall anywhere; these are aimed.
//!
//! ```text
//!   Shard::turn ─► effects: ── write ──────────── frame ──── … ──── reclaim ──────┐
//!      ▲   after-save    before-save(-snap)  before-…-send     after-wal-release  │ before-advance
//!      │   after-apply-snap                                                       ▼
//!   inbox ◄── Flushed ◄────── durable ◄────────────── in flight ◄─────────────────┘
//!     before-apply-snap  wal-after-sync         wal-before-sync
//!                        after-save-snap
//! ```

use crate::id::FlushTicket;
use crate::raft::effects::RoleKind;
use crate::wal::{RunKind, Write};

use super::net::happens;
use super::world::World;

/// One of them. The names in the comments are etcd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// `raftBeforeLeaderSend`: a core that leads a group is about to send.
    BeforeLeaderSend,
    /// `raftBeforeFollowerSend`: a core that leads nothing is about to send.
    BeforeFollowerSend,
    /// `raftBeforeSave`: entries or hard states are about to be written.
    BeforeSave,
    /// `raftAfterSave`: they are durable and the core knows, and nobody else has heard of it.
    AfterSave,
    /// `raftBeforeSaveSnap`: a piece of a snapshot, or its pointer, is about to be written.
    BeforeSaveSnap,
    /// `raftAfterSaveSnap`: it is durable, and the core does not know.
    AfterSaveSnap,
    /// `raftBeforeApplySnap`: the core is told, and has not acted on it.
    BeforeApplySnap,
    /// `raftAfterApplySnap`: it has acted on it, and none of that has left.
    AfterApplySnap,
    /// `raftAfterWALRelease`: a segment that snapshots stand for is deleted, or its end noted.
    AfterWalRelease,
    /// `raftBeforeAdvance`: everything a turn asked for is on its way, and nothing has come back.
    BeforeAdvance,
    /// `walBeforeSync`: a write is about to become durable.
    WalBeforeSync,
    /// `walAfterSync`: it is durable, and the core does not know.
    WalAfterSync,
}

impl CrashPoint {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::BeforeLeaderSend,
        Self::BeforeFollowerSend,
        Self::BeforeSave,
        Self::AfterSave,
        Self::BeforeSaveSnap,
        Self::AfterSaveSnap,
        Self::BeforeApplySnap,
        Self::AfterApplySnap,
        Self::AfterWalRelease,
        Self::BeforeAdvance,
        Self::WalBeforeSync,
        Self::WalAfterSync,
    ];
}

/// A write whose completion has not been acted on, as far as the points are concerned.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Saved {
    /// A log write is among what the next turn hears of.
    pub(super) log: bool,
    /// So is a part of a snapshot.
    pub(super) snapshot: bool,
}

/// Whether a write carries a part of a snapshot.
pub(super) fn is_snapshot(write: &Write) -> bool {
    write.runs().iter().any(|run| !matches!(run.kind, RunKind::Log | RunKind::Tombstone))
}

impl World {
    /// A node passes a point. Whether it loses its power there: the caller sees to that.
    pub(super) fn dies_at(&mut self, point: CrashPoint) -> bool {
        let Some((aimed, chance)) = self.options.nodes.crash_at else { return false };
        let dies = self.is_chaos
            && aimed == point
            && happens(&mut self.rng, chance)
            && self.strikes(|| format!("power is lost at {point:?}"));
        self.outcome.faults.crashes_at_points += u64::from(dies);
        self.outcome.crash_points[point as usize] += u64::from(dies);
        dies
    }

    /// The point in front of a frame of this core.
    pub(super) fn send_point(&self, node: usize, core: usize) -> CrashPoint {
        if !matches!(self.options.nodes.crash_at, Some((CrashPoint::BeforeLeaderSend, _))) {
            // Nobody asks who leads.
            return CrashPoint::BeforeFollowerSend;
        }
        let mut replicas = self.nodes[node].cores[core].shard.replicas().iter();
        if replicas.any(|replica| replica.status().role == RoleKind::Leader) {
            CrashPoint::BeforeLeaderSend
        } else {
            CrashPoint::BeforeFollowerSend
        }
    }

    /// Whether the write with this ticket carries a part of a snapshot.
    pub(super) fn takes_snapshot(&mut self, node: usize, core: usize, ticket: FlushTicket) -> bool {
        self.snapshot_writes.remove(&(node, self.nodes[node].life, core, ticket))
    }
}
