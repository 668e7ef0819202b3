//! What is going to happen, and in which order.
//!
//! Things due at the same microsecond happen in an order drawn from the seed, so that no outcome
//! rests on who was scheduled first.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use fastrand::Rng;

/// A queue of things to happen, one per world.
///
/// ```text
///   heap: due in this period, or before its end      periods: what is due in each of the next ones
///   ┌──────────────┬───────────────────────────┐     ┌──────┬──────┬──────┬──────┬───
///   │ what happens │ what it makes happen soon │ ◄── │ next │      │      │      │ …
///   └──────────────┴───────────────────────────┘     └──────┴──────┴──────┴──────┴───
/// ```
///
/// Most of what waits is a timeout that will be far in the future for a long time. It is kept out of the heap until
/// its period comes: the heap is small, and it alone is kept in order.
#[derive(Debug)]
pub(super) struct Queue<T> {
    heap: BinaryHeap<Reverse<Due>>,
    /// The period that the heap reaches to the end of.
    period: u64,
    /// What is due later, by period, from the next one on, in no order.
    periods: VecDeque<Vec<Due>>,
    /// Lists of periods that are over, empty, for their memory.
    spent: Vec<Vec<Due>>,
    pushed: u32,
    /// What is due, by place: heap and lists move their elements about, so they are small.
    what: Vec<Option<T>>,
    /// Places that are free.
    free: Vec<u32>,
}

/// When, and the place, as one number, because the heap does little but compare and move:
///
/// ```text
///   127          80 79      48 47                      20 19     0
///  │ microseconds  │ the coin │ how many were scheduled  │ place  │
///  │ (eight years) │          │ before: coins may be equal        │
/// ```
type Due = u128;

const BEHIND_TIME: u32 = 80;
const BEHIND_COIN: u32 = 48;
const BEHIND_COUNT: u32 = 20;

/// A period has two to the power of this many microseconds.
const PERIOD_BITS: u32 = 15;

fn time(due: Due) -> u64 {
    (due >> BEHIND_TIME) as u64
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            period: 0,
            periods: VecDeque::new(),
            spent: Vec::new(),
            pushed: 0,
            what: Vec::new(),
            free: Vec::new(),
        }
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
        let due = u128::from(high) << u64::BITS | u128::from(low);
        match (at >> PERIOD_BITS).checked_sub(self.period + 1) {
            None => self.heap.push(Reverse(due)),
            Some(later) => self.later(later as usize).push(due),
        }
    }

    /// What is due in a period, counted from the next one.
    fn later(&mut self, period: usize) -> &mut Vec<Due> {
        while self.periods.len() <= period {
            self.periods.push_back(self.spent.pop().unwrap_or_default());
        }
        &mut self.periods[period]
    }

    /// The next thing and its time, if it is due by `until`.
    pub(super) fn pop(&mut self, until: u64) -> Option<(u64, T)> {
        while self.heap.is_empty() {
            // Whatever is pushed from now on for a period that has begun goes into the heap.
            let mut due = self.periods.pop_front()?;
            self.period += 1;
            self.heap.extend(due.drain(..).map(Reverse));
            self.spent.push(due);
        }
        if time(self.heap.peek()?.0) > until {
            return None;
        }
        let Reverse(due) = self.heap.pop()?;
        let place = due as u32 & ((1 << BEHIND_COUNT) - 1);
        self.free.push(place);
        let what = self.what[place as usize].take();
        Some((time(due), what.expect("a place in the heap is taken")))
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

    #[test]
    fn near_and_far_come_in_the_order_of_time() {
        let (mut dice, mut coins) = (Rng::with_seed(3), Rng::with_seed(4));
        let (mut queue, mut now, mut heard) = (Queue::new(), 0, 0);
        let mut waiting = std::collections::BTreeSet::new();
        for number in 0..5_000 {
            let far = [50, 5_000, 1 << PERIOD_BITS, 30 << PERIOD_BITS][dice.usize(..4)];
            let at = now + dice.u64(..far);
            waiting.insert((at, number));
            queue.push(at, &mut coins, number);
            if dice.bool() {
                let until = now + dice.u64(..200_000);
                while let Some((at, number)) = queue.pop(until) {
                    assert!(now <= at && at <= until && waiting.remove(&(at, number)));
                    (now, heard) = (at, heard + 1);
                }
                assert!(waiting.first().is_none_or(|(first, _)| until < *first));
                now = until;
            }
        }
        assert!(heard > 4_000);
    }
}
