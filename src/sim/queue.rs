//! What is going to happen, and in which order.
//!
//! Things due at the same microsecond happen in an order drawn from the seed, so that no outcome
//! rests on who was scheduled first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

/// A queue of things to happen, one per world.
#[derive(Debug)]
pub(super) struct Queue<T> {
    heap: BinaryHeap<Reverse<Due<T>>>,
    pushed: u64,
}

#[derive(Debug)]
struct Due<T> {
    /// Virtual microseconds, the coin, and how many were scheduled before (coins may be equal).
    key: (u64, u32, u64),
    what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }

    /// `what` is to happen at `at`.
    pub(super) fn push(&mut self, at: u64, rng: &mut Rng, what: T) {
        self.pushed += 1;
        self.heap.push(Reverse(Due { key: (at, rng.u32(..), self.pushed), what }));
    }

    /// The next thing and its time, if it is due by `until`.
    pub(super) fn pop(&mut self, until: u64) -> Option<(u64, T)> {
        if self.heap.peek()?.0.key.0 > until {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| (due.key.0, due.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_rules_and_the_seed_breaks_ties() {
        let order = |seed| {
            let mut rng = Rng::with_seed(seed);
            let mut queue = Queue::new();
            for what in 0..20 {
                queue.push(if what < 10 { 2 } else { 1 }, &mut rng, what);
            }
            assert!(queue.pop(0).is_none());
            std::iter::from_fn(|| queue.pop(9)).map(|(_, what)| what).collect::<Vec<_>>()
        };
        assert!(order(1)[..10].iter().all(|&what| what >= 10));
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
