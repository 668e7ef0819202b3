//! Whether heartbeats leave in time, seen where they are sent (contract row 43).
//!
//! A core that is held up, by its own work, by the machine, by a lost wake-up, sends its heartbeats
//! late, and its followers stand for election because of it. The sender is the only one who can tell
//! this from a slow network. Kept per node, not per group: what a core sends to a node leaves together.

use crate::id::{NodeId, Tick};

/// When the last heartbeat left for each node. One per shard.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// A gap longer than this is late, in ms: twice the interval.
    gap_ms_max: u64,
    last: Vec<(NodeId, Tick)>,
}

impl Beats {
    /// For heartbeats every `heartbeat_ms`.
    pub(super) fn new(heartbeat_ms: u64) -> Self {
        Self { gap_ms_max: 2 * heartbeat_ms, last: Vec::new() }
    }

    /// A heartbeat leaves for `node`. By how many ms it exceeds the longest gap allowed, if it does.
    pub(super) fn sent(&mut self, node: NodeId, now: Tick) -> Option<u64> {
        let Some((_, last)) = self.last.iter_mut().find(|(of, _)| *of == node) else {
            self.last.push((node, now));
            return None;
        };
        let gap_ms = now.since(std::mem::replace(last, now));
        (self.gap_ms_max < gap_ms).then(|| gap_ms - self.gap_ms_max)
    }

    /// Whether a heartbeat of some group left for `node` within an interval.
    pub(super) fn is_recent(&self, node: NodeId, now: Tick) -> bool {
        let mut last = self.last.iter().filter(|(of, _)| *of == node);
        last.any(|(_, last)| now.since(*last) < self.gap_ms_max / 2)
    }

    /// A replica of this core changed its role: who sends heartbeats to whom is another question now.
    pub(super) fn reset(&mut self) {
        self.last.clear();
    }
}
