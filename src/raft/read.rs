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
//!
//! # Leases
//!
//! Whoever answered a heartbeat gives no vote for an election timeout from its arrival, so for a
//! little less than that from its *sending* nobody else can lead, as long as clocks run about as
//! fast as one another (thesis §6.4.1). Then a batch needs no round of its own. The lease counts from
//! the sending of the last round that a quorum answered. There is none before the first commit of
//! the term, while leadership is handed over and for the rest of the term after `TimeoutNow` was
//! sent, and while a write has been in flight for half an election timeout: a leader whose disk is
//! stuck will have to go. A replica that has just started gives no vote for an election timeout,
//! because its earlier life may have answered a heartbeat. A change of membership ends the lease: it
//! was given by a quorum of other voters.
//!
//! # Reads of a follower
//!
//! ```text
//!   follower: read_here(), …  one batch per turn ──ReadIndex(number)──► leader: joins its own batch
//!                        confirmed at that index ◄──ReadIndexResponse(number, index)── confirmed
//! ```
//!
//! A question that may be lost is asked again with the next heartbeat, under its old number: an
//! answer is good for every read that was in when the number was given. When the leader or the term
//! changes, all are void.

use std::collections::VecDeque;

use crate::id::{Index, ReplicaId, Tick};

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
    /// Reads of other members in these batches: who asks, its number, ours.
    pub(super) remote: Vec<(ReplicaId, u64, u64)>,
    /// Rounds of heartbeats not yet confirmed, by read context, and when they were sent. Kept if
    /// there is a lease.
    pub(super) rounds: VecDeque<(u64, Tick)>,
    /// When the last round that a quorum has answered was sent: the lease counts from there.
    pub(super) lease_from: Option<Tick>,
}

/// Reads of this replica that its leader has been asked about, or will be.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    /// Still gathering: number and how many.
    pub(super) open: Option<(u64, usize)>,
    /// Asked and not answered, oldest first: number and how many.
    pub(super) pending: VecDeque<(u64, usize)>,
    /// When the newest was asked last.
    pub(super) sent: Tick,
    /// Answered, not yet told.
    pub(super) confirmed: Vec<ReadReady>,
    /// Reads in `open` and `pending`.
    pub(super) count: usize,
}

impl Asked {
    /// Adds one read to the batch of this turn.
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

    /// Closes the batch of this turn; returns its number if there is one.
    pub(super) fn close(&mut self, now: Tick) -> Option<u64> {
        let (seq, count) = self.open.take()?;
        self.pending.push_back((seq, count));
        self.sent = now;
        Some(seq)
    }

    /// The leader answered `seq`: it and everything older is confirmed at `index`. A number that
    /// waits for nothing is somebody else's.
    pub(super) fn answer(&mut self, seq: u64, index: Index) {
        if !self.pending.iter().any(|&(pending, _)| pending == seq) {
            return;
        }
        while let Some(&(pending, count)) = self.pending.front()
            && pending <= seq
        {
            self.pending.pop_front();
            self.count -= count;
        }
        self.confirmed.push(ReadReady { seq, index });
    }

    /// The number to ask about again, if the last question is older than `patience`.
    pub(super) fn overdue(&mut self, patience: u64, now: Tick) -> Option<u64> {
        let &(seq, _) = self.pending.back()?;
        if now.since(self.sent) < patience {
            return None;
        }
        self.sent = now;
        Some(seq)
    }

    /// Everything is void.
    pub(super) fn clear(&mut self) {
        self.open = None;
        self.pending.clear();
        self.confirmed.clear();
        self.count = 0;
    }
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

    /// The context a heartbeat carries: the newest batch that waits, or round of a lease; or zero.
    pub(super) fn context(&self) -> u64 {
        let round = self.rounds.back().map_or(0, |&(seq, _)| seq);
        self.pending.back().map_or(0, |batch| batch.seq).max(round)
    }

    /// There is no lease any more, whatever is still answered.
    pub(super) fn end_lease(&mut self) {
        self.lease_from = None;
        self.rounds.clear();
    }

    /// Something would be forgotten without these books.
    pub(super) fn is_needed(&self) -> bool {
        self.count > 0
            || !self.confirmed.is_empty()
            || !self.remote.is_empty()
            || !self.rounds.is_empty()
            || self.lease_from.is_some()
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

    #[test]
    fn books_are_kept_while_anything_is_in_them() {
        assert!(!Reads::default().is_needed());
        let edits: [fn(&mut Reads); 5] = [
            |it| it.count = 1,
            |it| it.confirmed.push(ReadReady { seq: 1, index: Index(1) }),
            |it| it.remote.push((ReplicaId(2), 1, 1)),
            |it| it.rounds.push_back((1, Tick(0))),
            |it| it.lease_from = Some(Tick(0)),
        ];
        for edit in edits {
            let mut reads = Reads::default();
            edit(&mut reads);
            assert!(reads.is_needed(), "{reads:?}");
        }
    }

    #[test]
    fn what_a_follower_asked_is_over_when_it_is_answered() {
        let (mut asked, mut seq) = (Asked::default(), 0);
        assert_eq!((asked.join(&mut seq), asked.join(&mut seq)), (1, 1));
        assert_eq!((asked.close(Tick(10)), asked.count), (Some(1), 2));
        asked.answer(1, Index(5));
        assert_eq!((asked.count, asked.overdue(0, Tick(99))), (0, None));
        asked.join(&mut seq);
        asked.close(Tick(10));
        assert_eq!([14, 15].map(|now| asked.overdue(5, Tick(now))), [None, Some(2)]);
    }
}
