//! Signs of life that the cores leave behind in passing, for whoever must not disturb them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::id::{ShardId, Tick};

/// When each core last turned, and whether the node stops. One per node, shared by its threads.
#[derive(Debug)]
pub struct Pulse {
    turned: Vec<AtomicU64>,
    loading: Vec<AtomicBool>,
    stopping: AtomicBool,
}

impl Pulse {
    /// Of a node with so many cores, which begin to replay their logs `now`.
    #[must_use]
    pub fn new(cores: u16, now: Tick) -> Self {
        Self {
            turned: (0..cores).map(|_| AtomicU64::new(now.0)).collect(),
            loading: (0..cores).map(|_| AtomicBool::new(true)).collect(),
            stopping: AtomicBool::new(false),
        }
    }

    /// A core turns, or replays one more segment of its log.
    pub fn turned(&self, core: ShardId, now: Tick) {
        self.turned[usize::from(core.0)].store(now.0, Ordering::Relaxed);
    }

    /// A core has replayed its log.
    pub fn loaded(&self, core: ShardId) {
        self.loading[usize::from(core.0)].store(false, Ordering::SeqCst);
    }

    /// The node stops.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether it does.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The cores that still replay their logs.
    pub fn loading(&self) -> impl Iterator<Item = ShardId> {
        let cores = (0..).map(ShardId).zip(&self.loading);
        cores.filter(|(_, loading)| loading.load(Ordering::SeqCst)).map(|(core, _)| core)
    }

    /// For how many ms each core has not turned.
    pub fn stillness(&self, now: Tick) -> impl Iterator<Item = (ShardId, u64)> {
        let cores = (0..).map(ShardId).zip(&self.turned);
        cores.map(move |(core, turned)| {
            // A core may have turned after `now` was read.
            (core, now.0.saturating_sub(turned.load(Ordering::Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_known_by_its_last_turn_and_by_what_it_replays() {
        let pulse = Pulse::new(2, Tick(100));
        assert_eq!(pulse.loading().collect::<Vec<_>>(), [ShardId(0), ShardId(1)]);
        pulse.loaded(ShardId(0));
        pulse.turned(ShardId(1), Tick(250));
        assert_eq!(pulse.loading().collect::<Vec<_>>(), [ShardId(1)]);
        let still: Vec<_> = pulse.stillness(Tick(200)).collect();
        assert_eq!(still, [(ShardId(0), 100), (ShardId(1), 0)]);
        assert!(!pulse.is_stopping());
        pulse.stop();
        assert!(pulse.is_stopping());
    }
}
