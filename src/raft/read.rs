//! Linearizable reads without a log entry (thesis §6.4, "ReadIndex").
//!
//! ```text
//!   read(), read(), …      one batch per turn, one sequence number
//!        │ ready: the first entry of this term is committed
//!   commit index noted ──► heartbeat with the sequence number ──► echoes
//!                                                                   │ a quorum has echoed it
//!                               reads of this and older batches ◄───┘ confirmed
//! ```
//!
//! The number is ours, not the client's. A core that keyed its books by a client's context confused
//! a retried read with its first attempt and let a deposed leader answer from the past (mistake 1,
//! etcd raft#397). A number is used once in the life of a replica, echoes of other terms never get
//! here, and the books are part of the leader's role: they vanish when it steps down.

use std::collections::VecDeque;

use crate::id::Index;

use super::effects::ReadReady;

/// Reads that share a sequence number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    pub(super) seq: u64,
    /// The commit index when the batch was sent out for confirmation.
    pub(super) index: Index,
    pub(super) count: usize,
}

/// The books of one leader in one term.
#[derive(Debug, Clone, Default)]
pub(super) struct Reads {
    /// Still gathering: sequence number and how many.
    pub(super) open: Option<(u64, usize)>,
    /// Waiting for a quorum, oldest first.
    pub(super) pending: VecDeque<Batch>,
    /// Confirmed, not yet told.
    pub(super) confirmed: Vec<ReadReady>,
    /// Reads in `open` and `pending`.
    pub(super) count: usize,
}

impl Reads {
    /// Adds one read to the batch of this turn; `next_seq` is counted up if it is the first.
    pub(super) fn join(&mut self, next_seq: &mut u64) -> u64 {
        self.count += 1;
        if let Some((seq, count)) = &mut self.open {
            *count += 1;
            return *seq;
        }
        *next_seq += 1;
        self.open = Some((*next_seq, 1));
        *next_seq
    }

    /// Closes the batch of this turn: it may be answered at `index` once confirmed. Returns whether
    /// there was one.
    pub(super) fn close(&mut self, index: Index) -> bool {
        let Some((seq, count)) = self.open.take() else { return false };
        self.pending.push_back(Batch { seq, index, count });
        true
    }

    /// The context a heartbeat carries: the newest batch that waits, or zero.
    pub(super) fn context(&self) -> u64 {
        self.pending.back().map_or(0, |batch| batch.seq)
    }

    /// A quorum has echoed `seq`: it and everything older is confirmed.
    pub(super) fn confirm(&mut self, seq: u64) {
        while let Some(&batch) = self.pending.front() {
            if batch.seq > seq {
                break;
            }
            self.pending.pop_front();
            self.count -= batch.count;
            self.confirmed.push(ReadReady { seq: batch.seq, index: batch.index });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_confirmation_covers_older_batches() {
        let (mut reads, mut seq) = (Reads::default(), 0);
        assert_eq!((reads.join(&mut seq), reads.join(&mut seq)), (1, 1));
        assert!(reads.close(Index(5)));
        assert!(!reads.close(Index(5)), "an empty batch is none");
        assert_eq!(reads.join(&mut seq), 2);
        reads.close(Index(7));
        assert_eq!((reads.context(), reads.count), (2, 3));
        reads.confirm(2);
        let expected =
            [ReadReady { seq: 1, index: Index(5) }, ReadReady { seq: 2, index: Index(7) }];
        assert_eq!(reads.confirmed, expected);
        assert_eq!((reads.context(), reads.count), (0, 0));
    }
}
