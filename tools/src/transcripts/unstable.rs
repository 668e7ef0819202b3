//! What a node has taken in and not yet written, written and not yet applied, as the other library
//! keeps its books. These decide what a node shows as work to be done; our core keeps its own, which
//! decide what is safe.

use super::message::{Entry, Snapshot};

/// The end of the log that is not known to be written.
#[derive(Debug)]
pub(super) struct Unstable {
    /// Everything from here to the end of the log is unstable.
    pub(super) offset: u64,
    /// Everything before here is being written.
    pub(super) in_progress: u64,
    /// To be written in place of the log.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) is_snapshot_in_progress: bool,
}

impl Unstable {
    /// Everything up to `last` is written.
    pub(super) fn after(last: u64) -> Self {
        let next = last + 1;
        Self { offset: next, in_progress: next, snapshot: None, is_snapshot_in_progress: false }
    }

    /// The log, which ended at `last`, goes on with new entries from `first` on.
    pub(super) fn on_appended(&mut self, first: u64, last: u64) {
        if first == last + 1 {
            return;
        }
        if first <= self.offset {
            (self.offset, self.in_progress) = (first, first);
        } else {
            self.in_progress = self.in_progress.min(first);
        }
    }

    /// The log starts over behind a snapshot.
    pub(super) fn on_restored(&mut self, snapshot: Snapshot) {
        let next = snapshot.index + 1;
        (self.offset, self.in_progress) = (next, next);
        (self.snapshot, self.is_snapshot_in_progress) = (Some(snapshot), false);
    }

    /// All of it has been handed out to be written; the log ends at `last`.
    pub(super) fn on_handed_out(&mut self, last: u64) {
        if self.offset <= last {
            self.in_progress = last + 1;
        }
        self.is_snapshot_in_progress = self.snapshot.is_some();
    }

    /// Entries up to `index` are written, provided that this is still the entry there.
    pub(super) fn on_written(&mut self, index: u64) {
        self.offset = index + 1;
        self.in_progress = self.in_progress.max(self.offset);
    }

    /// The snapshot at `index` is written and applied.
    pub(super) fn on_snapshot_written(&mut self, index: u64) {
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.index == index) {
            (self.snapshot, self.is_snapshot_in_progress) = (None, false);
        }
    }
}

/// How far the log is applied, and how many bytes are on the way.
#[derive(Debug)]
pub(super) struct Applying {
    /// Handed out.
    pub(super) applying: u64,
    pub(super) applied: u64,
    /// Of the entries between the two.
    bytes: u64,
    bytes_max: u64,
    is_paused: bool,
}

impl Applying {
    pub(super) fn after(applied: u64, bytes_max: u64) -> Self {
        Self { applying: applied, applied, bytes: 0, bytes_max, is_paused: false }
    }

    /// Whether something may be handed out, if everything up to `until` may be applied.
    pub(super) fn has_next(&self, until: u64) -> bool {
        !self.is_paused && self.applying < until
    }

    /// How many of these entries, which follow what was handed out, may be handed out now.
    pub(super) fn fit(&self, entries: &[Entry]) -> usize {
        let mut bytes = 0_u64;
        let room = self.bytes_max - self.bytes.min(self.bytes_max);
        let fits = |entry: &&Entry| {
            bytes = bytes.saturating_add(entry.bytes());
            bytes <= room
        };
        entries.iter().take_while(fits).count().max(1).min(entries.len())
    }

    /// These were handed out, of all up to `until`.
    pub(super) fn on_handed_out(&mut self, entries: &[Entry], until: u64) {
        let Some(last) = entries.last() else { return };
        self.applying = last.index;
        self.bytes += bytes_of(entries);
        self.is_paused = self.bytes >= self.bytes_max || last.index < until;
    }

    /// Everything up to `index` is applied, `bytes` of which had been handed out.
    pub(super) fn on_applied(&mut self, index: u64, bytes: u64) {
        self.applied = self.applied.max(index);
        self.applying = self.applying.max(index);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_paused = self.bytes >= self.bytes_max;
    }
}

pub(super) fn bytes_of(entries: &[Entry]) -> u64 {
    entries.iter().map(Entry::bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_must_be_written_again() {
        let mut unstable = Unstable::after(10);
        unstable.on_appended(11, 10);
        unstable.on_handed_out(14);
        assert_eq!((unstable.offset, unstable.in_progress), (11, 15));
        unstable.on_appended(13, 14);
        assert_eq!((unstable.offset, unstable.in_progress), (11, 13), "13 is new");
        unstable.on_written(12);
        unstable.on_appended(12, 13);
        assert_eq!((unstable.offset, unstable.in_progress), (12, 12), "below what was written");
    }

    #[test]
    fn one_entry_is_always_let_through_and_then_the_limit_holds() {
        let entries: Vec<_> =
            (5..8).map(|index| Entry { term: 1, index, ..Entry::default() }).collect();
        let mut applying = Applying::after(4, 1);
        assert!(applying.has_next(7));
        assert_eq!(applying.fit(&entries), 1);
        applying.on_handed_out(&entries[..1], 7);
        assert!(!applying.has_next(7), "paused");
        applying.on_applied(5, bytes_of(&entries[..1]));
        assert!(applying.has_next(7));

        let applying = Applying::after(4, u64::MAX);
        assert_eq!(applying.fit(&entries), 3);
    }
}
