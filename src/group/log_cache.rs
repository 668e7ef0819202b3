//! The recent end of one group's log, in memory: what is not yet written, not yet applied, or
//! likely wanted by a follower.
//!
//! ```text
//!   evicted (on disk, sealed)  │ base …… applied …… durable …… last │
//!   ───────────────────────────┴────────────────────────────────────┘
//!        └─ window: a stretch read back for a follower that is behind
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use crate::entry::Entry;
use crate::id::Index;
use crate::raft::{Entries, Fit};

/// One per replica. Holds counted slices of receive buffers; bounded by the shard's budget, which
/// evicts from the front what is applied and lies in sealed segments.
#[derive(Debug)]
pub struct LogCache {
    /// The index of `entries[0]`.
    base: Index,
    entries: VecDeque<Entry>,
    /// How many of them, from the front, are known to own their payload.
    owned: usize,
    /// What `entries` cost, see [`held`].
    bytes: usize,
    /// Entries read back from disk, and the index of the first.
    window_base: Index,
    window: Vec<Entry>,
    /// What `window` costs.
    window_bytes: usize,
}

/// What an entry costs in memory, in bytes: its payload, and the place that names it, which for
/// small payloads is the larger part.
fn held(entry: &Entry) -> usize {
    entry.payload.len() + size_of::<Entry>()
}

impl LogCache {
    /// An empty cache whose next entry has this index.
    #[must_use]
    pub fn new(next: Index) -> Self {
        Self {
            base: next,
            entries: VecDeque::new(),
            owned: 0,
            bytes: 0,
            window_base: next,
            window: Vec::new(),
            window_bytes: 0,
        }
    }

    /// The first index in memory (without the window); the next index if there is none.
    #[must_use]
    pub fn first(&self) -> Index {
        self.base
    }

    /// The index after the last.
    #[must_use]
    pub fn next(&self) -> Index {
        self.base.plus(self.entries.len() as u64)
    }

    /// Bytes held, the window and the bookkeeping per entry included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes + self.window_bytes
    }

    /// Forgets the entries at and after `first`.
    pub fn truncate(&mut self, first: Index) {
        let keep = first.0.saturating_sub(self.base.0) as usize;
        while self.entries.len() > keep {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= held(&entry);
            }
        }
        self.owned = self.owned.min(self.entries.len());
        if self.entries.is_empty() && first < self.base {
            // Everything held is superseded: start over at the new tail.
            self.base = first;
        }
        let keep_window = first.0.saturating_sub(self.window_base.0) as usize;
        if keep_window < self.window.len() {
            self.window.truncate(keep_window);
            self.window_bytes = self.window.iter().map(held).sum();
        }
    }

    /// Adds the next entry.
    pub fn push(&mut self, entry: Entry) {
        self.bytes += held(&entry);
        self.entries.push_back(entry);
    }

    /// The entry at `index`, if it is in memory.
    #[must_use]
    pub fn get(&self, index: Index) -> Option<&Entry> {
        if index >= self.base {
            return self.entries.get((index.0 - self.base.0) as usize);
        }
        let offset = index.0.checked_sub(self.window_base.0)?;
        self.window.get(offset as usize)
    }

    /// The entries from `first` on, as long as they are in memory, at most `count`.
    pub fn range(&self, first: Index, count: u32) -> impl Iterator<Item = &Entry> {
        (first.0..first.0 + u64::from(count)).map_while(|index| self.get(Index(index)))
    }

    /// Drops the window, then entries from the front, up to and including `last`, until
    /// `bytes_wanted` are freed. Returns the bytes freed.
    pub fn evict(&mut self, last: Index, bytes_wanted: usize) -> usize {
        if bytes_wanted == 0 || (last < self.base && self.window.is_empty()) {
            return 0;
        }
        // What was read back has been sent by now, as far as the follower's window allowed; for the
        // rest it will be read again.
        let mut freed = std::mem::take(&mut self.window_bytes);
        self.window = Vec::new();
        while freed < bytes_wanted && self.base <= last {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= held(&entry);
            freed += held(&entry);
            self.owned = self.owned.saturating_sub(1);
            self.base = self.base.next();
        }
        freed
    }

    /// Copies payloads that are slices of something larger, a whole segment, which goes then.
    pub fn detach(&mut self) {
        for entry in self.entries.range_mut(self.owned..) {
            entry.payload = Bytes::copy_from_slice(&entry.payload);
        }
        self.owned = self.entries.len();
    }

    /// Keeps a stretch read back from disk, in place of the one before.
    pub fn set_window(&mut self, first: Index, entries: Vec<Entry>) {
        self.window_base = first;
        self.window_bytes = entries.iter().map(held).sum();
        self.window = entries;
    }
}

impl Entries for LogCache {
    fn fit(&self, first: Index, last: Index, count_max: u32, bytes_max: u64) -> Fit {
        let mut count = 0;
        let mut bytes = 0;
        let mut index = first;
        while index <= last && count < count_max {
            let Some(entry) = self.get(index) else { break };
            if count > 0 && bytes + entry.bytes() > bytes_max {
                break;
            }
            bytes += entry.bytes();
            count += 1;
            index = index.next();
        }
        if count == 0 && first <= last { Fit::Missing } else { Fit::Entries { count, bytes } }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(text: &'static str) -> Entry {
        Entry::command(Bytes::from_static(text.as_bytes()))
    }

    fn payload(cache: &LogCache, index: u64) -> Option<&[u8]> {
        cache.get(Index(index)).map(|entry| &entry.payload[..])
    }

    #[test]
    fn superseded_entries_are_replaced() {
        let mut cache = LogCache::new(Index(1));
        for text in ["a", "b", "c"] {
            cache.push(entry(text));
        }
        cache.truncate(Index(2));
        cache.push(entry("B"));
        assert_eq!(payload(&cache, 1), Some(&b"a"[..]));
        assert_eq!(payload(&cache, 2), Some(&b"B"[..]));
        assert_eq!(payload(&cache, 3), None);
        assert_eq!(cache.bytes(), 2 * held(&entry("a")));
        assert_eq!(cache.next(), Index(3));
    }

    #[test]
    fn a_truncation_below_everything_held_restarts_the_cache_there() {
        let mut cache = LogCache::new(Index(10));
        cache.push(entry("x"));
        cache.truncate(Index(7));
        cache.push(entry("y"));
        assert_eq!(payload(&cache, 7), Some(&b"y"[..]));
        assert_eq!(cache.next(), Index(8));
    }

    #[test]
    fn the_window_serves_what_was_evicted_and_forgets_what_is_superseded() {
        let mut cache = LogCache::new(Index(1));
        for text in ["a", "b", "c", "d"] {
            cache.push(entry(text));
        }
        let each = held(&entry("a"));
        assert_eq!(cache.evict(Index(3), each + 1), 2 * each, "whole entries");
        assert!(matches!(cache.fit(Index(1), Index(4), 10, 100), Fit::Missing));
        cache.set_window(Index(1), vec![entry("a"), entry("b")]);
        assert!(matches!(cache.fit(Index(1), Index(4), 10, 100), Fit::Entries { count: 4, .. }));
        assert!(matches!(
            cache.fit(Index(1), Index(4), 10, 2),
            Fit::Entries { count: 2, bytes: 2 }
        ));
        cache.truncate(Index(2));
        assert_eq!(payload(&cache, 1), Some(&b"a"[..]));
        assert_eq!(payload(&cache, 2), None);
    }

    #[test]
    fn eviction_begins_with_what_was_read_back() {
        let mut cache = LogCache::new(Index(3));
        cache.push(entry("c"));
        cache.set_window(Index(1), vec![entry("a"), entry("b")]);
        let each = held(&entry("a"));
        assert_eq!(cache.bytes(), 3 * each);
        assert_eq!(cache.evict(Index(3), 1), 2 * each);
        assert_eq!((payload(&cache, 1), payload(&cache, 3)), (None, Some(&b"c"[..])));
        assert_eq!(cache.bytes(), each);
        assert_eq!(cache.evict(Index(3), 0), 0);
    }
}
