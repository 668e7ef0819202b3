//! The one match of role × message. It decides who handles what; it handles nothing.

use crate::id::{ReplicaId, Term, Tick};

use super::driver::LogChange;
use super::message::{Message, MessageKind};
use super::state::{Raft, Role};

/// Terms from here on are nobody's. It is half of what the wire takes: who hears the last one can still say the next.
pub(super) const TERM_END: Term = Term(1 << 61);

impl Raft {
    /// Takes one message from a peer. Whatever it asks for is collected by [`Raft::ready`].
    ///
    /// Nothing a peer sends panics: what is misaddressed, malformed or from a stranger is counted
    /// in [`Status::ignored`](super::Status::ignored), and what would break the log is a
    /// [`Failure`](super::Failure).
    pub fn step(&mut self, message: &Message, now: Tick) -> Option<LogChange> {
        if self.failure().is_some()
            || message.kind == MessageKind::Removed
            || !self.is_sound(message)
        {
            self.ignore();
            return None;
        }
        if message.kind == MessageKind::Recall {
            // In whatever term: the sender may not know its own.
            self.on_recall(message, now);
            self.check();
            return None;
        }
        if !self.heed_while_forgetful(message, now) {
            return None;
        }
        if message.term > self.term {
            if !self.heed_higher_term(message, now) {
                return None;
            }
        } else if message.term < self.term {
            self.answer_lower_term(message);
            self.check();
            return None;
        }
        let change = self.dispatch(message, now);
        self.check();
        change
    }

    /// `message.term` is this term now, or the message is a pre-vote or the grant of one.
    fn dispatch(&mut self, message: &Message, now: Tick) -> Option<LogChange> {
        use MessageKind as Kind;
        match (message.kind, &self.role) {
            (Kind::PreVote | Kind::Vote, _) => self.answer_vote(message, now),

            (Kind::Append | Kind::Heartbeat | Kind::Snapshot, Role::Leader(_)) => {
                // Two leaders in one term cannot be; whoever claims it is not believed.
                self.ignore();
            }
            (Kind::Append, _) => {
                self.heed_leader(message, now);
                return self.follow_append(message, now);
            }
            (Kind::Heartbeat, _) => {
                self.heed_leader(message, now);
                self.follow_heartbeat(message, now);
                self.ask_leader_again(message.from, now);
            }
            (Kind::Snapshot, _) => {
                self.heed_leader(message, now);
                self.follow_snapshot(message);
            }

            (Kind::AppendResponse, Role::Leader(_)) => self.on_append_response(message, now),
            (Kind::HeartbeatResponse, Role::Leader(_)) => self.on_heartbeat_response(message, now),
            (Kind::PreVoteResponse, Role::PreCandidate(_))
            | (Kind::VoteResponse, Role::Candidate(_)) => {
                return self.on_vote_response(message, now);
            }
            // Answers to a role this replica no longer has.
            (Kind::AppendResponse | Kind::HeartbeatResponse, _) => {}
            (Kind::PreVoteResponse | Kind::VoteResponse, _) => {}

            (Kind::TimeoutNow, Role::Follower { .. }) => return self.stand_now(now),
            (Kind::TimeoutNow, _) => {}

            (Kind::ReadIndex, _) => self.on_read_index(message),
            (Kind::ReadIndexResponse, &Role::Follower { leader, .. }) if leader == message.from => {
                if let Some(rare) = &mut self.rare {
                    rare.asked.answer(message.context, message.entry.index);
                }
            }
            (Kind::RecallResponse, _) => self.on_recall_response(message, now),
            (Kind::ReadIndexResponse | Kind::Recall | Kind::Removed, _) => self.ignore(),
        }
        None
    }

    /// Whether the message is for this replica and may be reasoned about. Numbers above 2^62 are
    /// nobody's: refusing them here keeps all arithmetic below from overflowing.
    pub(super) fn is_sound(&self, message: &Message) -> bool {
        let numbers = message.term.0
            | message.entry.term.0
            | message.entry.index.0
            | message.commit.0
            | message.run_term.0
            | message.hint.0;
        message.to == self.config.id
            && (message.from != self.config.id || (self.config.plain && message.is_response()))
            && message.from != ReplicaId::NONE
            && message.term.0 != 0
            && numbers >> 62 == 0
            && message.term < TERM_END
            && (!message.is_response() || self.membership.is_member(message.from))
    }
}

impl Message {
    fn is_response(&self) -> bool {
        match self.kind {
            MessageKind::PreVoteResponse
            | MessageKind::VoteResponse
            | MessageKind::AppendResponse
            | MessageKind::HeartbeatResponse
            | MessageKind::ReadIndexResponse => true,
            MessageKind::PreVote
            | MessageKind::Vote
            | MessageKind::Append
            | MessageKind::Heartbeat
            | MessageKind::Snapshot
            | MessageKind::TimeoutNow
            | MessageKind::ReadIndex
            // Its sender's memory of who belongs to the group may be old.
            | MessageKind::RecallResponse
            | MessageKind::Recall
            | MessageKind::Removed => false,
        }
    }
}
