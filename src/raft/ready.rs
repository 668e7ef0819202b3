//! The end of a turn and the return of a write: what leaves, what waits, what is released.

use crate::id::{Index, ReplicaId, Tick};
use crate::planted::{Planted, planted};

use super::driver::{Entries, LogChange};
use super::effects::{Effects, HardState, Persist, PersistSeq, RoleEvent, RoleKind, TransferEnd};
use super::message::{Message, MessageKind};
use super::state::{Echo, Promise, Promised, Raft, Role};
use super::status::Failure;

impl Raft {
    /// Whether [`Raft::ready`] has anything to say. May be true once too often, never too rarely.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        if let Some(rare) = &self.rare {
            if rare.failure.is_some() {
                return false;
            }
            if rare.has_news() {
                return true;
            }
        }
        let leading = match &self.role {
            Role::Leader(leader) => {
                leader.dirty
                    || leader.heartbeat_due
                    || (!leader.ready_told && self.log.commit() >= leader.term_start)
                    || leader.reads.as_ref().is_some_and(|reads| {
                        !reads.confirmed.is_empty()
                            || (reads.open.is_some() && self.log.commit() >= leader.term_start)
                    })
            }
            Role::Follower { .. } | Role::PreCandidate(_) | Role::Candidate(_) => false,
        };
        leading
            || !self.outbox.is_empty()
            || self.echo.is_some()
            || self.has_unwritten()
            || self.log.applying() < self.log.appliable()
            || self.is_to_be_announced()
    }

    /// Appends to `fx` everything that is due. Call it once at the end of every turn in which the
    /// replica was touched; while nothing is due it does nothing. `fx` is of this group alone and
    /// holds no unperformed `persist`, `apply` or `role`.
    pub fn ready(&mut self, now: Tick, entries: &impl Entries, fx: &mut Effects) {
        if self.failure().is_some() {
            return;
        }
        self.announce(fx);
        if self.rare.as_ref().is_some_and(|rare| rare.has_news()) {
            self.tell_what_is_rare(now, fx);
        }
        if let Some(echo) = self.echo.take() {
            fx.send.push(echo.message(self.config.id));
        }
        if !self.outbox.is_empty() {
            fx.send.extend_from_slice(&self.outbox);
            self.outbox.clear();
        }
        if self.has_unwritten() {
            debug_assert!(fx.persist.is_none(), "the last write was not performed");
            let (seq, first, count) = self.log.stage(now);
            self.staged = (self.term, self.vote);
            let hard_state =
                HardState { term: self.term, vote: self.vote, commit: self.log.commit() };
            fx.persist = Some(Persist { seq, hard_state, first, count });
        }
        self.send_due(now, entries, fx);
        if let Some(range) = self.log.take_appliable() {
            debug_assert!(fx.apply.is_none(), "the last range was not applied");
            fx.apply = Some(range);
        }
        self.check();
    }

    /// The write `seq` and all before it are durable. Releases the promises that waited for them,
    /// lets a leader count its own log and a candidate its own vote; with that a candidate may
    /// become leader, which changes the log.
    pub fn on_durable(&mut self, seq: PersistSeq, now: Tick) -> Option<LogChange> {
        if self.failure().is_some() || !self.log.on_durable(seq) {
            return None;
        }
        self.advance_own_progress();
        let mut change = None;
        let due = self.promises.iter().take_while(|promise| promise.seq <= seq).count();
        for at in 0..due {
            match self.promises[at].what {
                Promised::Send(message) => self.release(message),
                Promised::OwnVote { term, pre } => {
                    change = self.on_own_vote(term, pre, now).or(change);
                }
            }
        }
        self.promises.drop_front(due);
        if self.rare.is_some() {
            self.check_recall();
        }
        self.check();
        change
    }

    /// The state machine holds everything up to `index`. A leader that has applied a change which is
    /// to be left by itself appends the entry that leaves it.
    pub fn on_applied(&mut self, index: Index) -> Option<LogChange> {
        self.log.on_applied(index);
        let change = self.leave_joint_if_due();
        self.check();
        change
    }

    /// The state machine cannot go on, so neither can this replica: see [`Failure::MachineStopped`].
    pub fn stop(&mut self, now: Tick) {
        if self.failure().is_none() {
            self.fail(Failure::MachineStopped { after: self.log.applied() }, now);
        }
    }

    /// Sends a message that promises nothing about this disk.
    pub(super) fn send(&mut self, message: Message) {
        self.outbox.push(message);
    }

    /// Sends a message once everything unstable now is durable: at once if nothing is.
    pub(super) fn promise(&mut self, message: Message) {
        let too_early = match message.kind {
            MessageKind::VoteResponse => planted(Planted::TermPersistedAfterReply),
            MessageKind::AppendResponse => planted(Planted::AcceptedBeforeFlush),
            _ => false,
        };
        if self.config.plain || too_early {
            self.send(message);
        } else if !self.defer(Promised::Send(message)) {
            self.release(message);
        }
    }

    /// Queues `what` behind everything unstable. Returns whether there is anything.
    pub(super) fn defer(&mut self, what: Promised) -> bool {
        let seq = if self.has_unwritten() {
            // What is unwritten stays unwritten until the next `ready`, which names it so: terms
            // and votes never go back, and a truncated entry has a successor.
            self.log.next_seq()
        } else if let Some(write) = self.log.writes().last() {
            write.seq
        } else {
            return false;
        };
        if let (Some(last), Promised::Send(new)) = (self.promises.last_mut(), &what)
            && last.seq == seq
            && let Promised::Send(old) = &mut last.what
            && merge(old, new)
        {
            return true;
        }
        self.promises.push(Promise { seq, what });
        true
    }

    pub(super) fn release(&mut self, message: Message) {
        let stale = message.kind == MessageKind::Vote
            && !(message.term == self.term && matches!(self.role, Role::Candidate(_)));
        if stale {
            return;
        }
        if !self.outbox.last_mut().is_some_and(|last| merge(last, &message)) {
            self.send(message);
        }
    }

    /// Term, vote or entries that no write has been handed out for. The commit index alone is never
    /// worth a write (contract row 25).
    pub(super) fn has_unwritten(&self) -> bool {
        self.staged != (self.term, self.vote) || self.log.has_unstaged()
    }

    /// All that must be durable has been handed out to be written.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.has_unwritten()
    }

    /// All that it has heard and decided is durable: what it says of itself now, no crash takes back.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        !self.has_unwritten() && self.log.writes().is_empty()
    }

    fn tell_what_is_rare(&mut self, now: Tick, fx: &mut Effects) {
        self.ask_leader(now);
        let Some(rare) = &mut self.rare else { return };
        fx.transfer = rare.transfer_end.take().or(fx.transfer);
        fx.recalled.append(&mut rare.recalled);
        fx.reads.append(&mut rare.asked.confirmed);
    }

    fn is_to_be_announced(&self) -> bool {
        let (role, leader) = match &self.role {
            Role::Follower { leader, .. } => (RoleKind::Follower, *leader),
            Role::PreCandidate(_) => (RoleKind::PreCandidate, ReplicaId::NONE),
            Role::Candidate(_) => (RoleKind::Candidate, ReplicaId::NONE),
            Role::Leader(_) => (RoleKind::Leader, self.config.id),
        };
        role != self.announced_role || (self.term, leader) != self.announced
    }

    fn announce(&mut self, fx: &mut Effects) {
        if !self.is_to_be_announced() {
            return;
        }
        let (role, term, leader) = (self.role_kind(), self.term, self.leader());
        let new_leader = leader.is_some() && leader != self.announced.1;
        (self.announced_role, self.announced) = (role, (term, leader));
        if role != RoleKind::Leader {
            // The driver gives up every read it holds, and so do we.
            if let Some(rare) = &mut self.rare {
                rare.asked.clear();
            }
        }
        if leader.is_some()
            && let Some(rare) = &mut self.rare
            && let Some(to) = rare.handing.take()
        {
            rare.transfer_end = Some(TransferEnd { to, done: leader == to });
        }
        fx.role = Some(RoleEvent { role, term, leader, new_leader });
    }
}

impl Echo {
    pub(super) fn message(self, from: ReplicaId) -> Message {
        let mut answer = Message::new(MessageKind::HeartbeatResponse, from, self.to, self.term);
        answer.context = self.context;
        answer
    }
}

/// An acceptance swallows the one before it to the same leader in the same term: the later covers
/// the earlier. Refusals are never swallowed, nor do they swallow (contract row 38).
fn merge(last: &mut Message, new: &Message) -> bool {
    let alike = last.kind == MessageKind::AppendResponse
        && new.kind == MessageKind::AppendResponse
        && !last.reject
        && !new.reject
        && last.to == new.to
        && last.term == new.term;
    if alike {
        last.entry.index = last.entry.index.max(new.entry.index);
    }
    alike
}
