//! Faults by number: each that strikes gets the next one, and any of them can be held back, so that a
//! world that fails can be told with the few faults that make it fail.
//!
//! A fault that is held back keeps its number, and the dice that chose it are thrown all the same. What
//! follows is another story from there on, in which number 7 may be another fault: a list of numbers
//! means something only as a whole, together with the seed and the options.
//!
//! Single frames that are lost, late, early or doubled have no numbers: there are too many. They are
//! switched off as a kind, see [`knobs`](super::knobs).

use std::fmt;

use super::world::World;

/// One fault that struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// Its number, from zero.
    pub number: u64,
    /// When, in virtual microseconds.
    pub at: u64,
    /// What it did.
    pub what: String,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, what } = self;
        write!(f, "{:>6}.{:03} fault {number}: {what}", at / 1_000, at % 1_000)
    }
}

/// Faults so far. One per world.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    next: u64,
    pub(super) struck: Vec<Strike>,
}

impl World {
    /// A fault is about to strike. False if it is to be held back.
    pub(super) fn strikes(&mut self, what: impl FnOnce() -> String) -> bool {
        let number = self.strikes.next;
        self.strikes.next += 1;
        let allowed = self.options.strikes.as_ref().is_none_or(|only| only.contains(&number));
        if allowed {
            let strike = Strike { number, at: self.now, what: what() };
            self.note(&[23, number], || format!("fault {number}: {}", strike.what));
            self.strikes.struck.push(strike);
            self.outcome.faults.strikes += 1;
        }
        allowed
    }
}
