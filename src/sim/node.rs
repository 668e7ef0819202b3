//! One node: its disks, which last, and its process, which does not.

use crate::id::{NodeId, ReplicaId, Tick};
use crate::shard::{Effects, Event, Shard};

use super::crash_points::Saved;
use super::disk::Disk;

/// One node; counted from zero in the world, from one in the cluster.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// How often it has been started. Names the present process, too.
    pub(super) life: u64,
    /// One log directory per core.
    pub(super) disks: Vec<Disk>,
    /// One per core while the process runs; empty while it does not.
    pub(super) cores: Vec<Core>,
    /// Nothing of it runs before this time.
    pub(super) paused_until: u64,
    pub(super) disk_full: bool,
    pub(super) clock: Clock,
}

/// One core of a running node.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) shard: Shard,
    /// What it has not looked at yet.
    pub(super) inbox: Vec<Event>,
    /// A turn is scheduled.
    pub(super) is_due: bool,
    /// When its timer goes off; `u64::MAX` if it is not set.
    pub(super) wakes_at: u64,
    pub(super) effects: Effects,
    /// What the next turn hears of.
    pub(super) saved: Saved,
}

/// The monotonic clock of one process: it starts anywhere, and runs a little fast or slow.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    pub(super) started: u64,
    pub(super) first: u64,
    pub(super) rate_percent: u64,
}

impl Clock {
    pub(super) fn read(&self, now: u64) -> Tick {
        Tick(self.first + (now - self.started) * self.rate_percent / 100 / 1_000)
    }

    /// When it will show `tick`, as far as anybody can tell now; `None` for never.
    pub(super) fn when(&self, tick: Tick) -> Option<u64> {
        if tick == Tick(u64::MAX) {
            return None;
        }
        let shown = tick.0.saturating_sub(self.first) * 1_000 * 100;
        Some(self.started + shown.div_ceil(self.rate_percent))
    }
}

impl Node {
    pub(super) fn new(number: usize, cores: u16) -> Self {
        Self {
            id: NodeId(number as u64 + 1),
            life: 0,
            disks: (0..cores).map(|_| Disk::default()).collect(),
            cores: Vec::new(),
            paused_until: 0,
            disk_full: false,
            clock: Clock::default(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        !self.cores.is_empty()
    }

    /// Whether the process that `life` names still runs.
    pub(super) fn lives(&self, life: u64) -> bool {
        self.is_up() && self.life == life
    }

    pub(super) fn replica(&self) -> ReplicaId {
        ReplicaId(self.id.0)
    }
}
