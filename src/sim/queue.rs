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
    heap: BinaryHeap<Reverse<Due>>,
    pushed: u32,
    /// What is due, by place: the heap moves its elements about, so they are small.
    what: Vec<Option<T>>,
    /// Places that are free.
    free: Vec<u32>,
}

/// When, and the place, as one number, because the heap does little but compare and move:
///
/// ```text
///  127           80 79      48 47                      20 19     0
/// │ microseconds   │ the coin │ how many were scheduled  │ place  │
/// │ (eight years)  │          │ before: coins may be equal        │
/// ```
type Due = u128;

const BEHIND_TIME: u32 = 80;
const BEHIND_COIN: u32 = 48;
const BEHIND_COUNT: u32 = 20;

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0, what: Vec::new(), free: Vec::new() }
    }

    /// `what` is to happen at `at`.
    pub(super) fn push(&mut self, at: u64, rng: &mut Rng, what: T) {
        self.pushed += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.what[place as usize] = Some(what);
                place
            }
            None => {
                self.what.push(Some(what));
                self.what.len() as u32 - 1
            }
        };
        let fits = at >> (u128::BITS - BEHIND_TIME) == 0
            && self.pushed >> (BEHIND_COIN - BEHIND_COUNT) == 0
            && place >> BEHIND_COUNT == 0;
        assert!(fits, "a world of {at} us, {} events, and {place} at once", self.pushed);
        let coin = u64::from(rng.u32(..));
        // Made of two halves: the coin is in both.
        let high = at << (BEHIND_TIME - u64::BITS) | coin >> (u64::BITS - BEHIND_COIN);
        let low = coin << BEHIND_COIN | u64::from(self.pushed) << BEHIND_COUNT | u64::from(place);
        self.heap.push(Reverse(u128::from(high) << u64::BITS | u128::from(low)));
    }

    /// The next thing and its time, if it is due by `until`.
    pub(super) fn pop(&mut self, until: u64) -> Option<(u64, T)> {
        let at = |due: Due| (due >> BEHIND_TIME) as u64;
        if at(self.heap.peek()?.0) > until {
            return None;
        }
        let Reverse(due) = self.heap.pop()?;
        let place = due as u32 & ((1 << BEHIND_COUNT) - 1);
        self.free.push(place);
        let what = self.what[place as usize].take();
        Some((at(due), what.expect("a place in the heap is taken")))
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
