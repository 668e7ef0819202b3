//! Which groups are due: a heap of deadlines, lazily corrected, so that only due groups are
//! touched and quiet groups cost nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::id::Tick;

/// One per shard. At most a few entries per group: one that is current, and stale ones that are
/// skipped when they surface.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Tick, u32)>>,
    /// The tick each slot is armed for; a heap entry with another tick is stale.
    armed: Vec<Option<Tick>>,
}

impl Timers {
    /// Timers for `slots` groups, none armed.
    pub(super) fn new(slots: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(slots), armed: vec![None; slots] }
    }

    /// `slot` has work at `deadline`. A later deadline than the one armed is left alone: the timer
    /// fires, finds nothing due, and is armed again. That is how followers whose deadline moves
    /// with every heartbeat cost one heap operation per timeout, not one per heartbeat.
    pub(super) fn arm(&mut self, slot: u32, deadline: Tick) {
        let armed = &mut self.armed[slot as usize];
        if armed.is_none_or(|current| deadline < current) {
            *armed = Some(deadline);
            self.heap.push(Reverse((deadline, slot)));
        }
    }

    /// The next slot whose timer is due; it is no longer armed.
    pub(super) fn pop_due(&mut self, now: Tick) -> Option<u32> {
        while let Some(&Reverse((tick, slot))) = self.heap.peek() {
            if tick > now {
                return None;
            }
            self.heap.pop();
            if self.armed[slot as usize] == Some(tick) {
                self.armed[slot as usize] = None;
                return Some(slot);
            }
        }
        None
    }

    /// When the next timer may be due.
    pub(super) fn next(&self) -> Option<Tick> {
        self.heap.peek().map(|&Reverse((tick, _))| tick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_row_1_only_due_slots_fire_once_each() {
        let mut timers = Timers::new(3);
        timers.arm(0, Tick(10));
        timers.arm(1, Tick(5));
        timers.arm(2, Tick(20));
        timers.arm(0, Tick(15));
        timers.arm(1, Tick(3));
        assert_eq!(timers.pop_due(Tick(2)), None);
        let due: Vec<u32> = std::iter::from_fn(|| timers.pop_due(Tick(12))).collect();
        assert_eq!(due, [1, 0]);
        assert_eq!(timers.next(), Some(Tick(20)));
    }
}
