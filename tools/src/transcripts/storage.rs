//! What a node has written: a snapshot's place and the entries after it, in memory.

use super::message::{Entry, HardState, Snapshot};

/// One node's stable log. `first` and what follows is there; what precedes is not.
#[derive(Debug, Default)]
pub(super) struct Storage {
    /// The last entry that is gone.
    before_first: u64,
    entries: Vec<Entry>,
    /// The last snapshot written.
    snapshot: u64,
    pub(super) hard_state: HardState,
}

impl Storage {
    pub(super) fn first(&self) -> u64 {
        self.before_first + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.before_first + self.entries.len() as u64
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Replaces everything.
    pub(super) fn apply_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        if self.snapshot >= snapshot.index {
            return Err("requested index is older than the existing snapshot".to_owned());
        }
        self.snapshot = snapshot.index;
        self.before_first = snapshot.index;
        self.entries.clear();
        Ok(())
    }

    /// Writes entries, over what was there at and after the first of them.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<(), String> {
        let entries = match entries.iter().position(|entry| entry.index >= self.first()) {
            Some(new) => &entries[new..],
            None => return Ok(()),
        };
        let at = entries[0].index - self.first();
        if at > self.entries.len() as u64 {
            let (last, index) = (self.last(), entries[0].index);
            return Err(format!("missing log entry [last: {last}, append at: {index}]"));
        }
        self.entries.truncate(at as usize);
        self.entries.extend_from_slice(entries);
        Ok(())
    }

    /// Drops everything up to `index`.
    pub(super) fn compact(&mut self, index: u64) -> Result<(), String> {
        if index <= self.before_first {
            return Err("requested index is unavailable due to compaction".to_owned());
        }
        if index > self.last() {
            return Err(format!("compact {index} is out of bound lastindex({})", self.last()));
        }
        self.entries.drain(..(index - self.before_first) as usize);
        self.before_first = index;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        indexes.map(|index| Entry { term, index, ..Entry::default() }).collect()
    }

    #[test]
    fn what_is_written_later_replaces_what_was_there() {
        let mut storage = Storage::default();
        storage.append(&entries(1, 1..=4)).expect("written");
        storage.append(&entries(2, 3..=3)).expect("written");
        assert_eq!((storage.first(), storage.last()), (1, 3));
        assert_eq!(storage.entries()[2].term, 2);
        assert!(storage.append(&entries(2, 6..=6)).is_err());
        storage.compact(2).expect("compacted");
        assert_eq!((storage.first(), storage.last()), (3, 3));
        assert!(storage.compact(2).is_err() && storage.compact(9).is_err());
        storage.append(&entries(1, 1..=2)).expect("older than the log");
        assert_eq!(storage.last(), 3);
    }

    #[test]
    fn a_snapshot_replaces_everything_and_only_moves_forward() {
        let mut storage = Storage::default();
        storage.append(&entries(1, 1..=4)).expect("written");
        let snapshot = Snapshot { term: 1, index: 9, ..Snapshot::default() };
        storage.apply_snapshot(&snapshot).expect("newer");
        assert_eq!((storage.first(), storage.last()), (10, 9));
        assert!(storage.apply_snapshot(&snapshot).is_err());
    }
}
