//! Lists of entries that are used again: a run of more than a few entries would allocate one otherwise.

use smallvec::SmallVec;

use crate::entry::Entry;
use crate::limits::BATCH_ENTRIES_KEPT;

/// The entries of one run; a few are held in place.
pub type EntryList = SmallVec<[Entry; INLINE]>;

/// So many entries need no list.
const INLINE: usize = 4;

/// As `limits` counts.
const _: () = assert!(size_of::<Entry>() <= 40);

/// Lists of runs that were written, all empty. One per [`super::Batch`]; together they have room for at most
/// [`BATCH_ENTRIES_KEPT`] entries.
#[derive(Debug, Clone, Default)]
pub struct EntryLists {
    lists: Vec<Vec<Entry>>,
    /// For how many entries they have room.
    places: usize,
}

impl EntryLists {
    /// An empty list with room for `count` entries: one that was used before, if there is one.
    #[must_use]
    pub fn take(&mut self, count: usize) -> EntryList {
        let kept = if INLINE < count { self.lists.pop() } else { None };
        let mut list = match kept {
            Some(list) => {
                self.places -= list.capacity();
                EntryList::from_vec(list)
            }
            None => EntryList::new(),
        };
        // Rounded up, so that a list soon serves for any run of its kind.
        list.reserve(count);
        list
    }

    /// Forgets what is in the list, and keeps it if it is worth keeping.
    pub(super) fn put_back(&mut self, mut list: EntryList) {
        list.clear();
        if list.spilled() && self.places + list.capacity() <= BATCH_ENTRIES_KEPT {
            self.places += list.capacity();
            self.lists.push(list.into_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_used_again_and_only_so_much_is_kept() {
        let mut lists = EntryLists::default();
        let mut list = lists.take(10);
        list.push(Entry::empty());
        let (at, room) = (list.as_ptr(), list.capacity());
        lists.put_back(list);
        assert_eq!(lists.places, room);
        assert!(!lists.take(INLINE).spilled(), "a few entries need no list");
        let list = lists.take(10);
        assert!(list.is_empty());
        assert_eq!((list.as_ptr(), list.capacity(), lists.places), (at, room, 0));

        for _ in 0..100 {
            lists.put_back(EntryList::with_capacity(BATCH_ENTRIES_KEPT / 10));
        }
        assert_eq!(lists.lists.len(), 10);
        assert!(lists.places <= BATCH_ENTRIES_KEPT);
    }
}
