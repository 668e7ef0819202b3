//! Who is owed an answer at which index.

use std::collections::VecDeque;

use super::Origin;
use crate::id::{EntryId, Index};

/// Clients whose commands are in this replica's log. One per replica; bounded by the entries a
/// leader may have uncommitted.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// Ascending by index: a leader appends, and a truncation drops from the end.
    queue: VecDeque<(EntryId, Origin)>,
}

impl Waiters {
    /// `origin` waits for the entry `id`, which was just appended.
    pub(super) fn push(&mut self, id: EntryId, origin: Origin) {
        debug_assert!(self.queue.back().is_none_or(|(last, _)| last.index < id.index));
        self.queue.push_back((id, origin));
    }

    /// Whether anybody waits for the entry at `index`.
    pub(super) fn is_wanted(&self, index: Index) -> bool {
        self.queue.front().is_some_and(|(id, _)| id.index == index)
    }

    /// The committed entry `id` is being applied: who waited for it?
    pub(super) fn on_applied(&mut self, id: EntryId) -> Option<Origin> {
        let &(waiting, origin) = self.queue.front()?;
        if waiting.index != id.index {
            return None;
        }
        // An entry can only be replaced by a truncation, which takes its waiter along.
        debug_assert_eq!(waiting, id, "a waiter outlived its entry");
        self.queue.pop_front();
        (waiting == id).then_some(origin)
    }

    /// The entries at and after `first` left this log. That alone does not say that they will
    /// never be committed: another replica may still hold them and win. The caller answers
    /// "unknown".
    pub(super) fn truncate(&mut self, first: Index, mut dropped: impl FnMut(Origin)) {
        while let Some(&(id, origin)) = self.queue.back() {
            if id.index < first {
                break;
            }
            self.queue.pop_back();
            dropped(origin);
        }
    }
}
