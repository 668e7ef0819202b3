//! The keys of a target while a run appends new ones: which comes next, and which are there already.
//!
//! ```text
//!   0 … loaded … n-1 │ n  n+1  n+2 │ n+3  n+4 │ n+5 …
//!                    │  answered   │ on their │ the next insert takes this one
//!                    └──► there    ┘   way    └──► next
//! ```
//!
//! Reads choose among the keys that are there: a key whose insert nobody has answered yet would be counted as missing. An
//! insert that fails settles its key as well, as in YCSB, or everything after it would never be read.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One per target, shared by its threads and by all its runs: what a run has appended is there for the next.
#[derive(Debug)]
pub(crate) struct Inserts {
    /// The key of the next insert.
    next: AtomicU64,
    /// Every key below it is there; `there <= next`.
    there: AtomicU64,
    /// Settled keys above `there`. No more than operations can be outstanding.
    ahead: Mutex<BTreeSet<u64>>,
}

impl Inserts {
    /// `keys` keys are there.
    pub(crate) fn after(keys: u64) -> Self {
        Self {
            next: AtomicU64::new(keys),
            there: AtomicU64::new(keys),
            ahead: Mutex::new(BTreeSet::new()),
        }
    }

    /// A run begins: nothing is on its way, whatever became of it.
    pub(crate) fn begin(&self) {
        self.lock().clear();
        self.there.store(self.next.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The key of an insert; nobody else gets it.
    pub(crate) fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// How many keys are there: all below this one.
    pub(crate) fn there(&self) -> u64 {
        self.there.load(Ordering::Relaxed)
    }

    /// The insert of `key` is over.
    pub(crate) fn settle(&self, key: u64) {
        let mut ahead = self.lock();
        ahead.insert(key);
        let mut there = self.there.load(Ordering::Relaxed);
        while ahead.remove(&there) {
            there += 1;
        }
        self.there.store(there, Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
        // A set of numbers is whole whenever a thread may have died.
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_there_once_all_before_it_are() {
        let inserts = Inserts::after(100);
        assert_eq!([inserts.take(), inserts.take(), inserts.take()], [100, 101, 102]);
        inserts.settle(101);
        assert_eq!(inserts.there(), 100);
        inserts.settle(100);
        assert_eq!(inserts.there(), 102);
        // The next run finds what this one took, and goes on after it.
        inserts.begin();
        assert_eq!((inserts.there(), inserts.take()), (103, 103));
    }
}
