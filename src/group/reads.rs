//! Reads on their way: first leadership is confirmed, then the entries they must see are applied.
//!
//! ```text
//! command ──► unconfirmed (by seq) ──ReadReady──► confirmed (by index) ──applied──► answered
//!                   └────────────── leadership lost: refused, retry ──────┘
//! ```

use std::collections::VecDeque;

use bytes::Bytes;

use crate::id::Index;
use crate::limits;
use crate::raft::effects::ReadReady;

use super::Origin;

/// One read.
#[derive(Debug)]
pub(super) struct Read {
    /// The confirmation it waits for; reads of one turn share it.
    pub(super) seq: u64,
    /// It must see this entry: the last one its own connection may have proposed, or the commit
    /// index at its confirmation if that is higher.
    pub(super) index: Index,
    /// Who asked.
    pub(super) origin: Origin,
    /// What was asked.
    pub(super) body: Bytes,
}

/// One per replica; bounded by `limits::READS_PENDING_MAX`.
#[derive(Debug, Default)]
pub(super) struct Reads {
    unconfirmed: VecDeque<Read>,
    confirmed: VecDeque<Read>,
}

impl Reads {
    /// Whether one more read may wait.
    pub(super) fn has_room(&self) -> bool {
        self.unconfirmed.len() + self.confirmed.len() < limits::READS_PENDING_MAX
    }

    /// A read waits for confirmation `seq`.
    pub(super) fn push(&mut self, read: Read) {
        debug_assert!(self.unconfirmed.back().is_none_or(|last| last.seq <= read.seq));
        self.unconfirmed.push_back(read);
    }

    /// A quorum confirmed the leadership of this replica for all reads up to `ready.seq`; contract
    /// row 15: every context at or below is complete.
    pub(super) fn confirm(&mut self, ready: ReadReady) {
        while self.unconfirmed.front().is_some_and(|read| read.seq <= ready.seq) {
            if let Some(mut read) = self.unconfirmed.pop_front() {
                read.index = read.index.max(ready.index);
                self.confirmed.push_back(read);
            }
        }
    }

    /// The next read that may be answered now that `applied` is applied. Reads are answered in the
    /// order they came; one that waits for its connection's own write holds back those behind it,
    /// which wait for a commit that is already under way.
    pub(super) fn pop(&mut self, applied: Index) -> Option<Read> {
        if self.confirmed.front()?.index <= applied { self.confirmed.pop_front() } else { None }
    }

    /// Leadership was lost: every read is given up.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Read> + '_ {
        self.confirmed.drain(..).chain(self.unconfirmed.drain(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::PartId;

    fn read(seq: u64, index: u64, part: u32) -> Read {
        let origin = Origin::Here(PartId { request: 0, part });
        Read { seq, index: Index(index), origin, body: Bytes::new() }
    }

    fn popped(reads: &mut Reads, applied: u64) -> Vec<u64> {
        std::iter::from_fn(|| reads.pop(Index(applied))).map(|read| read.seq).collect()
    }

    #[test]
    fn contract_row_15_one_confirmation_completes_all_older_reads() {
        let mut reads = Reads::default();
        for (part, seq) in [1, 1, 2, 3].into_iter().enumerate() {
            reads.push(read(seq, 0, part as u32));
        }
        reads.confirm(ReadReady { seq: 2, index: Index(7) });
        assert!(popped(&mut reads, 6).is_empty(), "answered before what it must see is applied");
        assert_eq!(popped(&mut reads, 7), [1, 1, 2]);
        assert!(popped(&mut reads, 100).is_empty(), "answered without confirmation");
    }

    #[test]
    fn a_read_waits_for_the_writes_its_connection_sent_before_it() {
        let mut reads = Reads::default();
        reads.push(read(1, 9, 0));
        reads.confirm(ReadReady { seq: 1, index: Index(7) });
        assert!(popped(&mut reads, 8).is_empty());
        assert_eq!(popped(&mut reads, 9), [1]);
    }

    #[test]
    fn losing_leadership_gives_every_read_back() {
        let mut reads = Reads::default();
        reads.push(read(1, 0, 0));
        reads.push(read(2, 0, 1));
        reads.confirm(ReadReady { seq: 1, index: Index(1) });
        assert_eq!(reads.drain().count(), 2);
        assert!(popped(&mut reads, 100).is_empty());
    }
}
