//! Reads on their way: leadership is confirmed, the entries they must see are applied, and nothing
//! that came after them on their connection is.
//!
//! ```text
//!          ┌─ unconfirmed (by seq) ──── ReadReady ────► confirmed (by index) ──applied──► answered
//! command ─┤        │ an entry after it is about to be applied                               ▲
//!          │        └──► looked up now, kept ──────────── ReadReady ─────────────────────────┘
//!          └────────────── leadership lost: refused, retry
//! ```
//!
//! # Which state a read sees
//!
//! Any state that holds every write answered before the read came, and none that its own connection
//! sent after it. On a leader whose leadership is confirmed *later*, the log as it was when the read
//! came holds all of the former; entries beyond that end may be the latter. So a read is looked up
//! when its index is applied, and at the latest just before the first entry beyond the log's end at
//! its arrival is applied. If it is not confirmed by then, it is looked up all the same and its result
//! kept until it is: to hold back the entry would make every writer wait for a round of heartbeats.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::id::{Index, Tick};
use crate::limits;
use crate::raft::effects::ReadReady;
use crate::wire::reply::Reply;

use super::Origin;

/// One read.
#[derive(Debug)]
pub(super) struct Read {
    /// The confirmation it waits for; reads of one turn share it.
    pub(super) seq: u64,
    /// It must see this entry: the last one its own connection may have proposed, or zero.
    pub(super) index: Index,
    /// It must see nothing beyond this entry, the last of the log when it came; `index <= end`. On a
    /// follower [`NO_END`].
    pub(super) end: Index,
    /// When it came.
    pub(super) asked: Tick,
    /// Who asked.
    pub(super) origin: Origin,
    /// What was asked.
    pub(super) body: Bytes,
}

/// The end of a read on a follower. Its leader says up to where it must see; what its connection
/// sends before the answer is written through the leader, behind that.
pub(super) const NO_END: Index = Index(u64::MAX);

/// One per replica; bounded by `limits::READS_PENDING_MAX`.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Ascending by `seq` and by `end`.
    unconfirmed: VecDeque<(Read, Option<Reply>)>,
    /// How many of `unconfirmed`, from the front, have been looked up.
    looked_up: usize,
    /// By the index they must see, then by arrival.
    confirmed: BTreeMap<(Index, u64), Read>,
    arrivals: u64,
}

impl Reads {
    /// Whether one more read may wait.
    pub(super) fn has_room(&self) -> bool {
        self.unconfirmed.len() + self.confirmed.len() < limits::READS_PENDING_MAX
    }

    /// A read waits for confirmation `seq`.
    pub(super) fn push(&mut self, read: Read) {
        debug_assert!(read.index <= read.end);
        debug_assert!(self.unconfirmed.back().is_none_or(
            |(last, _)| last.end == NO_END || (last.seq <= read.seq && last.end <= read.end)
        ));
        self.unconfirmed.push_back((read, None));
    }

    /// A quorum confirmed the leadership of this replica for all reads up to `ready.seq`; contract
    /// row 15: every context at or below is complete. Calls `answer` for those looked up before.
    pub(super) fn confirm(&mut self, ready: ReadReady, mut answer: impl FnMut(Origin, Reply)) {
        while self.unconfirmed.front().is_some_and(|(read, _)| read.seq <= ready.seq) {
            let Some((read, reply)) = self.unconfirmed.pop_front() else { break };
            if let Some(reply) = reply {
                self.looked_up -= 1;
                answer(read.origin, reply);
            } else {
                // The commit index at the confirmation may lie beyond the log's end at the arrival;
                // what was answered before the read came does not.
                let index = read.index.max(ready.index).min(read.end);
                self.confirmed.insert((index, self.arrivals), read);
                self.arrivals += 1;
            }
        }
    }

    /// Whether any read waits for nothing but what is to be applied.
    #[inline]
    pub(super) fn any_confirmed(&self) -> bool {
        !self.confirmed.is_empty()
    }

    /// The next confirmed read that may be answered now that `applied` is applied.
    pub(super) fn pop(&mut self, applied: Index) -> Option<Read> {
        let entry = self.confirmed.first_entry()?;
        if entry.key().0 <= applied { Some(entry.remove()) } else { None }
    }

    /// Entry `next` is about to be applied: looks up every unconfirmed read that must not see it.
    pub(super) fn before_apply(&mut self, next: Index, mut look_up: impl FnMut(&Bytes) -> Reply) {
        while let Some((read, reply)) = self.unconfirmed.get_mut(self.looked_up)
            && read.end < next
        {
            *reply = Some(look_up(&read.body));
            self.looked_up += 1;
        }
    }

    /// With everything up to `applied` applied, and [`Self::before_apply`] called for the entry after it: up to where
    /// entries can be applied before a read wants to see what there is.
    pub(super) fn undisturbed(&self, applied: Index) -> Index {
        let unconfirmed = self.unconfirmed.get(self.looked_up).map(|(read, _)| read.end);
        let confirmed = self.confirmed.first_key_value().map(|((index, _), _)| *index);
        let end = [unconfirmed, confirmed].into_iter().flatten().min().unwrap_or(NO_END);
        debug_assert!(applied < end, "a read that could be answered was not");
        end
    }

    /// This replica leads now: the reads it took as a follower and could not answer are given up.
    pub(super) fn drain_nearby(&mut self) -> impl Iterator<Item = Origin> + use<> {
        let nearby = |read: &Read| read.end == NO_END;
        let looked_up = self.unconfirmed.iter().take(self.looked_up);
        self.looked_up -= looked_up.filter(|(read, _)| nearby(read)).count();
        let (given_up, kept) =
            self.unconfirmed.drain(..).partition::<VecDeque<_>, _>(|(read, _)| nearby(read));
        self.unconfirmed = kept;
        given_up.into_iter().map(|(read, _)| read.origin)
    }

    /// Leadership was lost: every read is given up.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Origin> + '_ {
        self.looked_up = 0;
        let confirmed = std::mem::take(&mut self.confirmed).into_values();
        confirmed.chain(self.unconfirmed.drain(..).map(|(read, _)| read)).map(|read| read.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::PartId;

    fn read(seq: u64, index: u64, end: u64, part: u32) -> Read {
        let origin = Origin::Here(PartId { request: 0, part });
        Read {
            seq,
            index: Index(index),
            end: Index(end),
            asked: Tick(0),
            origin,
            body: Bytes::new(),
        }
    }

    fn confirm(reads: &mut Reads, seq: u64, index: u64) -> Vec<Reply> {
        let mut answered = Vec::new();
        reads.confirm(ReadReady { seq, index: Index(index) }, |_, reply| answered.push(reply));
        answered
    }

    fn popped(reads: &mut Reads, applied: u64) -> Vec<u64> {
        std::iter::from_fn(|| reads.pop(Index(applied))).map(|read| read.seq).collect()
    }

    #[test]
    fn contract_row_15_one_confirmation_completes_all_older_reads() {
        let mut reads = Reads::default();
        for (part, seq) in [1, 1, 2, 3].into_iter().enumerate() {
            reads.push(read(seq, 0, 9, part as u32));
        }
        confirm(&mut reads, 2, 7);
        assert!(popped(&mut reads, 6).is_empty(), "answered before what it must see is applied");
        assert_eq!(popped(&mut reads, 7), [1, 1, 2]);
        assert!(popped(&mut reads, 100).is_empty(), "answered without confirmation");
    }

    #[test]
    fn a_read_waits_for_the_writes_its_connection_sent_before_it_and_holds_up_nobody() {
        let mut reads = Reads::default();
        reads.push(read(1, 9, 9, 0));
        reads.push(read(2, 0, 9, 1));
        confirm(&mut reads, 2, 7);
        assert_eq!(popped(&mut reads, 8), [2]);
        assert_eq!(popped(&mut reads, 9), [1]);
    }

    #[test]
    fn a_read_sees_nothing_that_came_after_it() {
        let mut reads = Reads::default();
        reads.push(read(1, 0, 5, 0));
        reads.push(read(2, 0, 6, 1));
        let mut looked_up = 0;
        let mut look = |reads: &mut Reads, next| {
            reads.before_apply(Index(next), |_| {
                looked_up += 1;
                Reply::Int(looked_up)
            });
        };
        look(&mut reads, 5);
        look(&mut reads, 6);
        look(&mut reads, 6);
        assert_eq!(confirm(&mut reads, 1, 8), [Reply::Int(1)], "as it was before entry 6");
        // Confirmed only now, at a commit index beyond its end: it is answered at its end.
        assert!(confirm(&mut reads, 2, 8).is_empty());
        assert_eq!(popped(&mut reads, 6), [2]);
    }

    #[test]
    fn a_new_leader_gives_back_what_it_took_as_a_follower() {
        let mut reads = Reads::default();
        reads.push(read(1, 0, NO_END.0, 0));
        reads.push(read(2, 0, NO_END.0, 1));
        confirm(&mut reads, 1, 4);
        reads.push(read(3, 0, 5, 2));
        assert_eq!(reads.drain_nearby().count(), 1);
        confirm(&mut reads, 3, 5);
        assert_eq!(popped(&mut reads, 9), [1, 3], "what is confirmed is good for ever");
    }

    #[test]
    fn losing_leadership_gives_every_read_back() {
        let mut reads = Reads::default();
        for seq in 1..=3 {
            reads.push(read(seq, 0, 1, 0));
        }
        confirm(&mut reads, 1, 1);
        reads.before_apply(Index(2), |_| Reply::Nil);
        assert_eq!(reads.drain().count(), 3);
        assert!(popped(&mut reads, 100).is_empty());
        reads.push(read(4, 0, 1, 0));
        reads.before_apply(Index(2), |_| Reply::Int(4));
        assert_eq!(confirm(&mut reads, 4, 1), [Reply::Int(4)], "the books start over");
    }
}
