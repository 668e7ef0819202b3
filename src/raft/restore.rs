//! Taking a snapshot in place of a log (Raft §7; safety point 14, contract rows 28 and 50).

use crate::id::{EntryId, Index, ReplicaId, Tick};
use crate::planted::{Planted, planted};

use super::log::TermRun;
use super::membership::Membership;
use super::message::{Message, MessageKind};
use super::recall::Forgotten;
use super::state::{Promise, Promised, Raft, Role};
use super::step::TERM_END;

/// What became of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    /// It replaces log and state: everything up to its last entry is committed and applied, and the
    /// log starts behind it. The driver takes the new state in the same step.
    Yes,
    /// Log and state stay: the sender leads no more, this replica is no member there, or it holds
    /// as much already.
    No,
}

/// What stands in a replica's own log behind a snapshot that it got back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The terms of the entries, from the one after the snapshot's last on.
    pub runs: Vec<TermRun>,
    /// The last of them; that of the snapshot if there are none.
    pub last: Index,
    /// Up to here they are known to be committed, at least up to the snapshot.
    pub commit: Index,
}

impl Raft {
    /// The data of the snapshot that `message` names is durable here, and so is the record that it
    /// is the replica's state: `message.entry` is the last entry in it, `membership` the one at that
    /// entry. Answers the leader as for an append.
    pub fn restore(&mut self, message: &Message, membership: Membership, now: Tick) -> Restored {
        if self.failure().is_some() || !self.is_sound(message) {
            self.ignore();
            return Restored::No;
        }
        if message.term < self.term {
            self.answer_lower_term(message);
            return Restored::No;
        }
        if message.term > self.term && !self.heed_higher_term(message, now) {
            return Restored::No;
        }
        if matches!(self.role, Role::Leader(_)) {
            self.ignore();
            return Restored::No;
        }
        self.heed_leader(message, now);
        let restored = self.take(message, membership.sorted(), now);
        self.accept(message.from, self.log.commit());
        self.check();
        restored
    }

    fn take(&mut self, message: &Message, membership: Membership, now: Tick) -> Restored {
        let last = message.entry;
        let overwrites = planted(Planted::StaleSnapshotInstalled);
        if last.index <= self.log.commit() && !overwrites {
            return Restored::No;
        }
        if !membership.is_member(self.config.id) {
            self.ignore();
            return Restored::No;
        }
        if self.log.matches(last) && !overwrites {
            self.log.commit_to(last.index);
            return Restored::No;
        }
        self.begin_behind(last);
        self.switch_to(membership, now);
        Restored::Yes
    }

    /// Whether this replica, which has lost part of its log, may take the state that ends at `last` from a member
    /// that does not lead: what is committed is so whoever says it.
    #[must_use]
    pub fn may_rejoin(&self, last: EntryId) -> bool {
        self.failure().is_none()
            && self.recall().is_some()
            && matches!(self.role, Role::Follower { leader: ReplicaId::NONE, .. })
            && self.log.last() < last.index
            && last.term < TERM_END
    }

    /// A log never holds what is of a higher term than the replica's: the state that ends at `last` comes.
    pub fn heed_term_of(&mut self, last: EntryId, now: Tick) {
        if self.term < last.term {
            self.become_follower(last.term, ReplicaId::NONE, now);
        }
    }

    /// The state that ends at `last`, with `membership`, is durable here and takes the place of log and state.
    /// `behind` is what this replica's own log holds behind it, durable since before the loss. If that is as far as its
    /// log ever went, it is whole.
    pub fn rejoin(
        &mut self,
        last: EntryId,
        membership: Membership,
        behind: Behind,
        now: Tick,
    ) -> Restored {
        let is_known = last.term <= self.term && membership.is_member(self.config.id);
        if !self.may_rejoin(last) || !is_known {
            self.ignore();
            return Restored::No;
        }
        let Behind { runs, last: end, commit } = behind;
        self.begin_behind(last);
        self.log.rejoin(runs, end);
        self.log.commit_to(commit.min(end));
        self.switch_to(membership.sorted(), now);
        if let Some(recall) = self.recall_mut() {
            recall.is_rejoining = false;
            if planted(Planted::GivenBackIsWhole) {
                recall.what = Forgotten { promises_known: true, last: Some(last) };
            }
        }
        self.check_recall();
        self.check();
        Restored::Yes
    }

    /// The log begins behind `last`.
    fn begin_behind(&mut self, last: EntryId) {
        // What was accepted and never handed out to be written is gone, and so is its acceptance.
        let unwritten = self.log.next_seq();
        self.promises.retain(|promise| {
            let accepts = matches!(promise.what, Promised::Send(answer)
                if answer.kind == MessageKind::AppendResponse);
            promise.seq < unwritten || !accepts
        });
        self.log.restore(last);
        if self.has_unwritten() {
            return;
        }
        // Whatever else waited for those entries waits for what was handed out in front of them, if anything.
        let kept = self.promises.iter().take_while(|promise| promise.seq < unwritten).count();
        let in_flight = self.log.writes().last().map(|write| write.seq);
        for promise in self.promises.split_off(kept) {
            match (in_flight, promise.what) {
                (Some(seq), what) => self.promises.push(Promise { seq, what }),
                (None, Promised::Send(message)) => self.release(message),
                (None, Promised::OwnVote { .. }) => {}
            }
        }
    }
}
