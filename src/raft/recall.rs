//! A replica that has lost part of its log, and knows it: what it may still do, and how it gets back
//! what it had promised to keep (after "Protocol-Aware Recovery for Consensus-Based Storage", FAST 2018).
//!
//! Raft's safety rests on what a voter remembers: whom it voted for, and which entries it accepted. A
//! disk that decays takes both. Nothing of it may be guessed, and nothing acknowledged may be forgotten,
//! so until such a replica is whole again it is careful:
//!
//! ```text
//!                       every other voter has told its term            the leader has told its last entry,
//!   promises unknown ─────────────────────────────────────► log unknown ─────────────────────────────────► whole
//!     ignores leaders, votes for nobody                       follows and accepts,     this log agrees
//!                                                             votes only for a log     with it up to there,
//!                                                             that holds all it had    durably
//! ```
//!
//! # Why this is enough
//!
//! *Votes.* A candidate makes its term durable before it asks, and a leader before it sends. So when
//! every other voter has answered, none of the terms this replica may have voted or accepted in is
//! higher than the highest it heard, and it enters that one without a vote to give.
//!
//! Voters that have left the group since this replica last applied anything need not be waited for:
//! the leader says so in their place. They never come back, and could win no election that the
//! change which removed them does not forbid.
//!
//! *Entries.* Whatever it accepted from the leader of the present term has an index no higher than
//! that leader's last entry. Whatever it accepted in an earlier term and is committed, that leader
//! holds: a quorum stored it, a quorum elected the leader, and they share a voter that was whole, or
//! was this replica before the loss. So a log that agrees with the leader's up to its last entry at any
//! moment after the loss holds all that was promised. Until then this replica elects nobody whose log
//! might lack such an entry: if its own last entry survived, a log up to date with that one will do;
//! if not, it votes for nobody. When the only others that know a committed entry are away, the group
//! stands still rather than lose it.
//!
//! *Its last entry.* A replica whose log holds, durably, the last entry it ever held is whole, whoever sent that: its term
//! and index name all that lie in front of it. So a leader that gave everything back may die before it is heard from again.
//!
//! *Nobody leads.* Where most voters have lost something, none of them may stand for election, and no leader will
//! give it back. What is committed is so whoever says it, so when a replica has long been without a leader, any member
//! that has applied more sends it its state ([`Raft::rejoin`]). Behind that its own log goes on, which may hold just what
//! that member has lost: so they help each other until one of them has everything. If the last entry that a replica
//! ever held is not known, or nobody has it, it is not whole, and the group stands still.
//!
//! *Nobody knows what is committed.* The commit index lags behind what a quorum has stored, and who has an entry may
//! not know that all the others had it. So whoever asks without a leader says how far its log reached in the present
//! term. When a quorum of voters says, each in term `t`, that its log had reached entry `t/i`, then `t/i` is committed
//! (Raft §5.4.2), whether or not anybody is left who knows: nobody was elected in a later term without one of them, and
//! each of them, then and from now on, elects only who has as much. But the leader of `t` may live and not know yet; were
//! a follower to show what it has not counted, a read at the leader would then go back in time. So nothing is made of it
//! before all other voters have spoken: none of them leads in `t`, or will ([`Raft::learn_from_claims`]). One that is whole asks
//! nobody, and says it when it is asked. What is committed may lie behind a gap of who learns it: the log that holds it there is told
//! ([`Recalled::Committed`]).
//!
//! *The leader's count.* It still counts what this replica acknowledged in its earlier life. That is
//! what the target makes good; and to be sent anything again, the replica says how far its log
//! reaches, and the leader takes its word ([`Progress::forget_after`](super::progress::Progress)). It asks again and
//! again, and only the first question of a life, or a smaller number, makes the leader begin anew.

use crate::id::{EntryId, Index, ReplicaId, Term, Tick};
use crate::planted::{Planted, planted};

use super::message::{Message, MessageKind};
use super::quorum;
use super::state::{Raft, Role};

/// What recovery knows to be missing. Given to [`Raft::new`] with the rest of what was recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// The hard state is the last that was written; only entries are missing.
    pub promises_known: bool,
    /// The last entry there was, if that is known: entries in front of it are missing.
    pub last: Option<EntryId>,
}

/// News about what was forgotten, once each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// No promise in a higher term than the present one was ever given.
    Promises,
    /// Everything that was ever acknowledged is here again.
    Everything,
    /// This entry behind the end of the log is committed: the driver may hold it behind a gap.
    Committed(EntryId),
}

/// The state of a replica that is not whole.
#[derive(Debug, Clone)]
pub(super) struct Recall {
    pub(super) what: Forgotten,
    /// The name of its questions; never used in another life.
    name: u64,
    /// Who has answered while promises were unknown.
    heard: Vec<ReplicaId>,
    /// The leader's last entry, and its term.
    target: Option<(Term, Index)>,
    /// Up to where the log agrees with the leader's, and the leader's term.
    agreed: (Term, Index),
    /// When to ask again.
    pub(super) ask_at: Tick,
    /// No leader has been heard since then.
    lonely_since: Tick,
    /// A state is about to be taken from such a member: until it is, nothing else makes the replica whole.
    pub(super) is_rejoining: bool,
    /// An entry that this replica does not have, or cannot place, and knows to be committed.
    committed: EntryId,
    /// The last one of which the driver was told so.
    learned: EntryId,
}

/// How far the log of a voter that has lost something reached in `last.term`, while that was its term.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    from: ReplicaId,
    last: EntryId,
}

/// So many election timeouts without a leader, and anybody's help is welcome.
const LONELY_TIMEOUTS: u64 = 3;

impl Recall {
    pub(super) fn new(what: Forgotten, name: u64, now: Tick) -> Self {
        Self {
            what,
            name,
            heard: Vec::new(),
            target: None,
            agreed: (Term(0), Index(0)),
            ask_at: now,
            lonely_since: now,
            is_rejoining: false,
            committed: EntryId::default(),
            learned: EntryId::default(),
        }
    }

    /// Whether a candidate whose log ends with `last` may get the vote.
    pub(super) fn may_elect(&self, last: EntryId) -> bool {
        if planted(Planted::ForgetfulElects) {
            return true;
        }
        let known = self.what.last.filter(|_| self.what.promises_known);
        known.is_some_and(|known| (known.term, known.index) <= (last.term, last.index))
    }
}

impl Raft {
    /// What this replica has lost and not yet got back.
    #[must_use]
    pub fn forgotten(&self) -> Option<Forgotten> {
        self.recall().map(|recall| recall.what)
    }

    /// The record that makes a member's state this replica's own is on its way to the disk: [`Raft::rejoin`] follows, and
    /// finds the replica as it was.
    pub fn begin_rejoin(&mut self) {
        if let Some(recall) = self.recall_mut() {
            recall.is_rejoining = true;
        }
    }

    /// Of what this replica holds behind a gap, `entry` is known to be committed: one that has all in front of it, and does
    /// not know, is told so. None any more if zero.
    pub fn note_committed(&mut self, entry: EntryId) {
        if let Some(recall) = self.recall_mut() {
            recall.committed = entry;
        }
    }

    /// Before anything else is made of a message. Returns whether it is to be heeded.
    pub(super) fn heed_while_forgetful(&mut self, message: &Message, now: Tick) -> bool {
        let term = self.term;
        let Some(recall) = self.recall_mut() else { return true };
        let is_leaders = matches!(
            message.kind,
            MessageKind::Append | MessageKind::Heartbeat | MessageKind::Snapshot
        );
        if is_leaders && term <= message.term {
            recall.lonely_since = now;
        }
        let Some(recall) = self.recall() else { return true };
        match message.kind {
            MessageKind::TimeoutNow => false,
            MessageKind::Append | MessageKind::Heartbeat | MessageKind::Snapshot
                if !recall.what.promises_known =>
            {
                // This leader may be one that was voted out of office by this very replica. Or the
                // group has changed, and nobody that this replica would ask leads it any more.
                if recall.ask_at <= now || !self.membership.is_member(message.from) {
                    let question = self.recall_question(message.from, false);
                    self.send(question);
                }
                false
            }
            _ => true,
        }
    }

    fn recall_question(&self, to: ReplicaId, is_lonely: bool) -> Message {
        let term = Term(self.term.0.max(1));
        let mut question = Message::new(MessageKind::Recall, self.config.id, to, term);
        if let Some(recall) = self.recall() {
            (question.context, question.reject) = (recall.name, !recall.what.promises_known);
        }
        question.entry.index = self.log.durable();
        if is_lonely {
            question.hint = self.claimed().next();
        }
        if let Some(recall) = self.recall().filter(|_| is_lonely) {
            let EntryId { term, index } = recall.committed;
            (question.run_term, question.commit) = (term, index);
        }
        question
    }

    /// How far this log reached, durably, in the present term; zero if its last entry is of an earlier one.
    fn claimed(&self) -> Index {
        let last = match self.recall() {
            Some(recall) => recall.what.last.filter(|_| recall.what.promises_known),
            None => Some(self.log.last_id()).filter(|last| last.index <= self.log.durable()),
        };
        last.filter(|last| last.term == self.term).map_or(Index(0), |last| last.index)
    }

    /// What is known to be committed lies behind the end of the log.
    pub(super) fn note_committed_behind(&mut self, entry: EntryId) {
        let Some(recall) = self.recall_mut().filter(|it| it.learned.index < entry.index) else {
            return;
        };
        recall.learned = entry;
        self.rare().recalled.push(Recalled::Committed(entry));
    }

    /// Voter `from`, of this term, says that its log had reached `last` (zero: an entry of an earlier term). Once all
    /// others have spoken, what a quorum has reached is committed.
    ///
    /// Membership is taken as of what is applied, so none of it may be about to change: the leader of this term counted
    /// with the same voters then, or with the ones before.
    fn learn_from_claims(&mut self, from: ReplicaId, last: Index) {
        let term = self.term;
        if !self.membership.is_voter(from) {
            return;
        }
        let (id, own) = (self.config.id, self.claimed());
        let mut claims = std::mem::take(&mut self.rare().claims);
        claims.retain(|claim| claim.from != from && claim.last.term == term);
        claims.push(Claim { from, last: EntryId { term, index: last } });
        let reached = |voter| match claims.iter().find(|claim| claim.from == voter) {
            _ if voter == id => Some(own),
            claim => claim.map(|claim| claim.last.index),
        };
        let have_all_spoken = self.membership.voters().all(|voter| reached(voter).is_some());
        let agreed = quorum::agreed(&self.membership, |voter| reached(voter).unwrap_or_default().0);
        self.rare().claims = claims;
        if have_all_spoken && !self.log.has_config_behind_applied() {
            self.learn_committed(EntryId { term, index: Index(agreed) });
        }
    }

    /// Asks every other member, again and again, until it is whole. The leader as well, if it came after all that this
    /// replica knows of the members.
    pub(super) fn ask_for_recall(&mut self, now: Tick) {
        let id = self.config.id;
        let election = self.config.election_ticks();
        let Some(recall) = self.recall_mut() else { return };
        if now < recall.ask_at {
            return;
        }
        recall.ask_at = now.plus(election.max(2) / 2);
        let is_lonely = LONELY_TIMEOUTS * election <= now.since(recall.lonely_since);
        if is_lonely && self.leader().is_some() {
            // It does not stand for election, by which others forget a leader that is gone.
            self.become_follower(self.term, ReplicaId::NONE, now);
        }
        let is_newcomer = |it: &ReplicaId| {
            it.is_some() && !self.membership.is_member(*it) && !planted(Planted::NewcomerUnasked)
        };
        let newcomer = Some(self.leader()).filter(is_newcomer);
        let others: Vec<_> = self.membership.members().chain(newcomer).collect();
        for to in others.into_iter().filter(|&to| to != id) {
            let question = self.recall_question(to, is_lonely);
            self.send(question);
        }
    }

    /// Sends `to`, which is short of a leader, what is applied here, if that is more than it has.
    fn relieve(&mut self, to: ReplicaId, has: Index) {
        let index = self.log.applied();
        if has < index && self.membership.is_member(to) {
            let term = self.log.term_at(index).unwrap_or_default();
            let mut offer = Message::new(MessageKind::Snapshot, self.config.id, to, Term(0));
            offer.entry = EntryId { term, index };
            self.send(offer);
        }
    }

    /// A member asks what it has forgotten.
    pub(super) fn on_recall(&mut self, question: &Message, now: Tick) {
        if question.term > self.term {
            self.become_follower(question.term, ReplicaId::NONE, now);
        }
        if question.hint > Index(0) && !matches!(self.role, Role::Leader(_)) {
            // Who knows that an entry is committed may lack what this one has in front of it.
            self.learn_committed(EntryId { term: question.run_term, index: question.commit });
            if question.term == self.term {
                self.learn_from_claims(question.from, question.hint.prev());
            }
            self.relieve(question.from, question.entry.index);
        }
        if self.recall().is_some_and(|recall| !recall.what.promises_known) {
            // It does not know its own term.
            return;
        }
        let term = Term(self.term.0.max(1));
        let mut answer =
            Message::new(MessageKind::RecallResponse, self.config.id, question.from, term);
        (answer.context, answer.reject) = (question.context, true);
        if matches!(self.role, Role::Follower { .. } | Role::PreCandidate(_)) {
            // It will not lead in this term, which a candidate of it may.
            answer.commit = self.claimed().next();
        }
        let last = self.log.last_id();
        if let Role::Leader(leader) = &mut self.role
            && let Some(peer) = leader.peer_mut(question.from)
        {
            answer.reject = false;
            answer.entry = last;
            if !question.reject {
                peer.forget_after(question.entry.index, question.context);
                leader.dirty = true;
            }
        }
        self.promise(answer);
    }

    pub(super) fn on_recall_response(&mut self, answer: &Message, now: Tick) {
        let Some(rare) = &mut self.rare else { return };
        let Some(recall) = rare.recall.as_mut().filter(|it| it.name == answer.context) else {
            return;
        };
        let id = self.config.id;
        if !recall.what.promises_known {
            let about = match answer.hint {
                Index(0) => answer.from,
                Index(removed) => ReplicaId(removed),
            };
            // Nobody else is waited for.
            if self.membership.is_voter(about) && !recall.heard.contains(&about) {
                recall.heard.push(about);
            }
            let heard = &recall.heard;
            if !self.membership.voters().all(|voter| voter == id || heard.contains(&voter)) {
                return;
            }
            recall.what.promises_known = true;
            recall.ask_at = now;
            rare.recalled.push(Recalled::Promises);
            // No vote is left to give in this term.
            if self.vote == ReplicaId::NONE {
                self.vote = id;
            }
            return;
        }
        if answer.term != self.term {
            return;
        }
        if !answer.reject {
            if recall.target.is_none_or(|(term, _)| term < answer.term) {
                recall.target = Some((answer.term, answer.entry.index));
            }
            self.check_recall();
        } else if answer.commit > Index(0) {
            self.learn_from_claims(answer.from, answer.commit.prev());
        }
    }

    /// The log agrees with that of the leader of this term up to `index`.
    pub(super) fn note_agreement(&mut self, index: Index) {
        let term = self.term;
        if let Some(recall) = self.recall_mut() {
            recall.agreed = recall.agreed.max((term, index));
        }
    }

    /// Up to where a leader's word about the commit index may be taken.
    pub(super) fn believable_commit(&self, commit: Index) -> Index {
        match self.recall() {
            None => commit,
            Some(recall) if recall.agreed.0 == self.term => commit.min(recall.agreed.1),
            Some(_) => commit.min(self.log.commit()),
        }
    }

    /// The last entry there ever was is here, whoever gave it back: it is in the log, or lies in front of what is known to
    /// be committed.
    fn has_all_it_had(&self) -> bool {
        let Some(Recall { what, .. }) = self.recall() else { return false };
        let is_here = |last: EntryId| last.index <= self.log.commit() || self.log.matches(last);
        let is_durable = |last: EntryId| last.index <= self.log.durable();
        what.promises_known && what.last.is_some_and(|last| is_here(last) && is_durable(last))
    }

    /// Something became durable, or is known to agree: is everything here again?
    pub(super) fn check_recall(&mut self) {
        let Some(recall) = self.recall().filter(|it| !it.is_rejoining) else { return };
        let is_whole = recall.what.promises_known
            && recall.target.is_some_and(|(term, last)| {
                let (agreed_term, agreed) = recall.agreed;
                planted(Planted::WholeTooSoon)
                    || term == self.term
                        && agreed_term == term
                        && last <= agreed
                        && last <= self.log.durable()
            });
        if is_whole || self.has_all_it_had() {
            let rare = self.rare();
            rare.recall = None;
            rare.recalled.push(Recalled::Everything);
        }
    }
}
