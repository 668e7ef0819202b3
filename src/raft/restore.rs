//! Taking a snapshot in place of a log (Raft §7; safety point 14, contract rows 28 and 50).

use crate::id::Tick;
use crate::planted::{Planted, planted};

use super::membership::Membership;
use super::message::{Message, MessageKind};
use super::state::{Promised, Raft, Role};

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
        // What was accepted and never handed out to be written is gone, and so is its acceptance.
        let unwritten = self.log.next_seq();
        self.promises.retain(|promise| {
            let accepts = matches!(promise.what, Promised::Send(answer)
                if answer.kind == MessageKind::AppendResponse);
            promise.seq < unwritten || !accepts
        });
        self.log.restore(last);
        if !self.has_unwritten() {
            // Whatever else waited for those entries has nothing to wait for.
            let kept = self.promises.iter().take_while(|promise| promise.seq < unwritten).count();
            for promise in self.promises.split_off(kept) {
                if let Promised::Send(message) = promise.what {
                    self.release(message);
                }
            }
        }
        self.switch_to(membership, now);
        Restored::Yes
    }
}
