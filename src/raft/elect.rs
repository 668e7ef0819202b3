//! Elections: terms, votes, and becoming what one becomes (Raft §5.2, thesis §4.2.3, §6.2, §9.6).
//!
//! # A request for votes is a promise too
//!
//! etcd-io/raft lets `MsgVote` leave before the candidate's own term is durable and holds back only
//! the candidate's vote for itself. That is one step short. Say candidate A asks for votes in term 5
//! and then loses power before term 5, or the tail its request boasted of, reached its disk. A comes
//! back in term 4 with a shorter log, stands for term 5 *again*, and the grants given to its first,
//! longer self still count. It may lead without entries that are committed, or lead term 5 twice.
//! So here a request for votes waits, like the own vote, for everything unstable when it was made.
//! It costs one flush per election. A pre-vote waits for nothing: it only asks.
//!
//! With requests that do not wait the random test finds, about once in twenty thousand schedules, a
//! replica that leads one term before a crash and again after it.
//!
//! # Of two that ask at a time one yields
//!
//! Two replicas whose waits end within a flush of each other would grant each other's pre-votes, stand in the
//! same term and vote for themselves; with a third one dead nobody leads for another wait. A pre-vote
//! binds nobody, so there is no need for that: of two that ask for the same term with equal logs the one with the higher
//! id refuses, and the other grants, and asks no more. If one log holds more, that one goes on. Only a voter is refused so: it
//! has been asked, and grants.

use crate::entry::EntryKind;
use crate::id::{EntryId, Index, ReplicaId, Term, Tick};
use crate::planted::{Planted, planted};

use super::driver::{LogChange, OnRemoval, Source};
use super::effects::PersistSeq;
use super::message::{Message, MessageKind};
use super::progress::{Progress, Uncommitted};
use super::quorum::{self, VoteResult};
use super::rest::Rare;
use super::state::{Leader, Promised, Raft, Role, Transfer, Votes};

/// `Message::context` of a vote asked for in a leadership transfer.
const TRANSFER: u64 = 1;

impl Raft {
    /// Stands for election at once (etcd's `MsgHup`): with a pre-vote if configured. Does nothing
    /// on a leader, a learner, or while a committed membership change is unapplied (contract
    /// row 33).
    pub fn campaign(&mut self, now: Tick) -> Option<LogChange> {
        if self.failure().is_some() {
            return None;
        }
        let change = self.stand(false, now);
        self.check();
        change
    }

    /// Time has passed. Call it at [`Raft::deadline`] or later; missed time is not made up for: a
    /// replica that slept through ten timeouts stands for election once, and a leader that slept
    /// sends one heartbeat (contract row 3).
    pub fn tick(&mut self, now: Tick) -> Option<LogChange> {
        if self.failure().is_some() {
            return None;
        }
        let mut change = None;
        self.ask_for_recall(now);
        if let Role::Leader(_) = self.role {
            self.lead_on(now);
        } else if now >= self.election_at && self.is_promotable() {
            self.restart_election_timer(now);
            let called = self.rare.as_ref().is_some_and(|rare| rare.called == Some(self.term));
            change = self.stand(called, now);
        }
        self.check();
        change
    }

    /// Gives a follower a full new wait before it stands for election: the driver knows that the
    /// group was not at fault for the silence (it has just started, or has just slept).
    pub fn reset_election_timer(&mut self, now: Tick) {
        self.draw_election_timeout(now);
    }

    /// A follower forgets its leader, and with it the lease that refuses votes: the driver knows by
    /// other means that the leader's node is gone (contract row 13).
    ///
    /// Does nothing in a group with leases: there the leader answers reads relying on them.
    pub fn forget_leader(&mut self, _now: Tick) {
        if let Role::Follower { leader, .. } = &mut self.role
            && self.config.lease.is_none()
        {
            *leader = ReplicaId::NONE;
        }
        self.check();
    }

    /// The leader asks this replica to take over, without pre-vote (thesis §3.10). If a committed
    /// change of membership is not applied yet, as when the leader leaves by it, that comes first.
    pub(super) fn stand_now(&mut self, now: Tick) -> Option<LogChange> {
        if !self.config.plain {
            let term = self.term;
            self.rare().called = Some(term);
        }
        self.stand(true, now)
    }

    fn stand(&mut self, transfer: bool, now: Tick) -> Option<LogChange> {
        if self.recall().is_some() {
            // Its log lacks what it was trusted to keep.
            return None;
        }
        if let Role::Leader(_) = self.role {
            return None;
        }
        let promised = !transfer && self.config.lease.is_some() && self.is_leased(now);
        let called = transfer && !self.config.plain;
        if called && self.is_promotable() && self.log.has_unapplied_config() {
            self.election_at = now;
            return None;
        }
        if !self.is_promotable() || self.log.has_unapplied_config() || promised {
            return None;
        }
        if self.config.pre_vote && !transfer {
            self.become_pre_candidate(now)
        } else {
            self.become_candidate(transfer, now)
        }
    }

    /// Changes neither term nor vote (safety point 8).
    fn become_pre_candidate(&mut self, now: Tick) -> Option<LogChange> {
        self.role = Role::PreCandidate(Votes::default());
        if !self.config.plain {
            self.draw_election_timeout(now);
        }
        for at in 0..self.voters_count() {
            if let Some(request) = self.vote_request(at, MessageKind::PreVote, self.term.next()) {
                self.send(request);
            }
        }
        self.promise_own_vote(true, now)
    }

    fn become_candidate(&mut self, transfer: bool, now: Tick) -> Option<LogChange> {
        self.term = self.term.next();
        self.vote = self.config.id;
        self.role = Role::Candidate(Votes::default());
        self.draw_election_timeout(now);
        for at in 0..self.voters_count() {
            if let Some(mut request) = self.vote_request(at, MessageKind::Vote, self.term) {
                request.context = if transfer { TRANSFER } else { 0 };
                self.promise(request);
            }
        }
        self.promise_own_vote(false, now)
    }

    fn voters_count(&self) -> usize {
        self.membership.voters().count()
    }

    /// The request to the voter at this position, unless it is this replica.
    fn vote_request(&self, at: usize, kind: MessageKind, term: Term) -> Option<Message> {
        let to = self.membership.voters().nth(at).filter(|&to| to != self.config.id)?;
        let mut request = Message::new(kind, self.config.id, to, term);
        request.entry = self.log.last_id();
        if !self.config.plain {
            let committed = self.committed_id();
            (request.run_term, request.commit) = (committed.term, committed.index);
        }
        Some(request)
    }

    /// The last entry known to be committed.
    pub(crate) fn committed_id(&self) -> EntryId {
        let index = self.log.commit();
        EntryId { term: self.log.term_at(index).unwrap_or_default(), index }
    }

    /// A candidate or a voter that refused it said what it knows to be committed. After a change of
    /// membership one of them may count with voters that the other does not know of: the candidate
    /// asks a replica that has left and holds more of the log, or the one that holds the most
    /// does not know yet that it votes. Then nobody wins until both know (compare etcd#12359).
    ///
    /// Entries that its leader made in the same term, and earlier, lie in front of it in every log that holds it: so one that
    /// this log lacks says as much of a last entry of its term.
    pub(super) fn learn_committed(&mut self, committed: EntryId) {
        let last = self.log.last_id();
        let is_in_front = last.term == committed.term && last.index < committed.index;
        let known = if is_in_front { last } else { committed };
        if known.term.0 > 0 && self.log.matches(known) {
            self.log.commit_to(known.index);
            self.check_recall();
        }
        if last.index < committed.index && committed.term.0 > 0 {
            self.note_committed_behind(committed);
        }
    }

    /// The own vote counts like any other: once it is durable (safety point 1).
    fn promise_own_vote(&mut self, pre: bool, now: Tick) -> Option<LogChange> {
        if self.config.plain {
            let (kind, term) = match pre {
                true => (MessageKind::PreVoteResponse, self.term.next()),
                false => (MessageKind::VoteResponse, self.term),
            };
            self.send(Message::new(kind, self.config.id, self.config.id, term));
            return None;
        }
        let what = Promised::OwnVote { term: self.term, pre };
        if self.defer(what) { None } else { self.count_vote(self.config.id, true, now) }
    }

    /// The own vote of `term` is durable.
    pub(super) fn on_own_vote(&mut self, term: Term, pre: bool, now: Tick) -> Option<LogChange> {
        let stands = match self.role {
            Role::PreCandidate(_) => pre,
            Role::Candidate(_) => !pre,
            Role::Follower { .. } | Role::Leader(_) => false,
        };
        if stands && term == self.term { self.count_vote(self.config.id, true, now) } else { None }
    }

    pub(super) fn on_vote_response(&mut self, message: &Message, now: Tick) -> Option<LogChange> {
        // A pre-vote is granted in the term it asked for; a grant left over from an earlier attempt
        // says nothing about this one.
        let asked = match self.role {
            Role::PreCandidate(_) => self.term.next(),
            _ => self.term,
        };
        if !message.reject && message.term != asked {
            return None;
        }
        if message.reject {
            self.learn_committed(message.entry);
        }
        self.count_vote(message.from, !message.reject, now)
    }

    fn count_vote(&mut self, from: ReplicaId, granted: bool, now: Tick) -> Option<LogChange> {
        let (votes, pre) = match &mut self.role {
            Role::PreCandidate(votes) => (votes, true),
            Role::Candidate(votes) => (votes, false),
            Role::Follower { .. } | Role::Leader(_) => return None,
        };
        votes.record(from, granted);
        let has_own = votes.answer(self.config.id).is_some();
        match quorum::vote_result(&self.membership, |id| votes.answer(id)) {
            VoteResult::Pending => None,
            // It has asked nobody before its own vote is written down: these answer nothing it said.
            VoteResult::Won if !has_own => None,
            VoteResult::Won if pre => self.become_candidate(false, now),
            VoteResult::Won => Some(self.become_leader(now)),
            VoteResult::Lost => {
                self.become_follower(self.term, ReplicaId::NONE, now);
                None
            }
        }
    }

    pub(super) fn become_follower(&mut self, term: Term, leader: ReplicaId, now: Tick) {
        debug_assert!(term >= self.term);
        if term > self.term {
            self.term = term;
            self.vote = ReplicaId::NONE;
        }
        match &self.role {
            Role::Leader(leading) => {
                let handing = leading.transferee();
                if handing.is_some() || self.rare.is_some() {
                    self.rare().handing = handing;
                }
            }
            // What was promised to a leader is kept, also in a term that has begun without it.
            Role::Follower { leader, heard } if leader.is_some() && self.config.lease.is_some() => {
                let until = heard.plus(self.config.election_ticks());
                let rare = self.rare();
                rare.promised_until = rare.promised_until.max(until);
            }
            Role::Follower { .. } | Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
        self.role = Role::Follower { leader, heard: now };
        self.draw_election_timeout(now);
    }

    /// Opens the term with an empty entry: only entries of its own term may a leader commit by
    /// counting (Raft §5.4.2).
    fn become_leader(&mut self, now: Tick) -> LogChange {
        let (last, durable, id) = (self.log.last(), self.log.durable(), self.config.id);
        let mut peers: Vec<_> =
            self.membership.members().map(|member| Progress::new(member, last)).collect();
        if let Some(own) = peers.iter_mut().find(|peer| peer.id == id) {
            own.on_accepted(durable);
            own.become_replicate();
            own.active = true;
        }
        let first = last.next();
        let count = u32::from(!planted(Planted::NoEmptyEntry));
        if count > 0 {
            self.log.replace_from(first, 1, self.term);
        }
        // A candidate has told the driver so, and the reads it was to ask a leader about were given up with that.
        debug_assert!(self.rare.as_ref().is_none_or(|rare| rare.asked.count == 0));
        let has_lease = self.config.lease.is_some();
        self.role = Role::Leader(Box::new(Leader {
            peers,
            term_start: first,
            ready_told: false,
            heartbeat_at: aligned(
                now.plus(self.config.heartbeat_ticks().max(1)),
                self.config.heartbeat_ticks(),
            ),
            quorum_check_at: now.plus(self.config.election_ticks().max(1)),
            oldest_write: PersistSeq(0),
            heartbeat_due: has_lease,
            dirty: true,
            broadcast: true,
            nudge: false,
            reads: None,
            uncommitted: Uncommitted::default(),
            transfer: None,
            // It may hold changes that nobody has told us about.
            pending_config: last,
            yielded: false,
        }));
        self.advance_own_progress();
        self.promise_own_entries();
        LogChange { first, count, source: Source::Internal(EntryKind::Empty) }
    }

    /// A message of a higher term than ours. Returns whether to go on with it.
    pub(super) fn heed_higher_term(&mut self, message: &Message, now: Tick) -> bool {
        let leader = match message.kind {
            MessageKind::PreVote | MessageKind::Vote => {
                // Whoever hears its leader takes no part in deposing it (contract row 13).
                if message.context != TRANSFER && self.is_leased(now) {
                    return false;
                }
                if message.kind == MessageKind::PreVote {
                    return true;
                }
                ReplicaId::NONE
            }
            // Granted in the term we asked for, which we have not entered.
            MessageKind::PreVoteResponse if !message.reject => return true,
            MessageKind::Append | MessageKind::Heartbeat | MessageKind::Snapshot => message.from,
            MessageKind::PreVoteResponse
            | MessageKind::VoteResponse
            | MessageKind::AppendResponse
            | MessageKind::HeartbeatResponse
            | MessageKind::TimeoutNow
            | MessageKind::ReadIndex
            | MessageKind::ReadIndexResponse
            | MessageKind::Recall
            | MessageKind::RecallResponse
            | MessageKind::Removed => ReplicaId::NONE,
        };
        self.become_follower(message.term, leader, now);
        true
    }

    /// A leader or candidate that time has passed by. With pre-vote or check-quorum it might never
    /// find out by itself: a replica that was cut off in a higher term refuses its leader's
    /// messages, and nobody listens to its own. So tell it (safety point 8, contract row 13).
    pub(super) fn answer_lower_term(&mut self, message: &Message) {
        let kind = match message.kind {
            MessageKind::Append | MessageKind::Heartbeat
                if self.config.check_quorum || self.config.pre_vote =>
            {
                MessageKind::AppendResponse
            }
            MessageKind::PreVote => MessageKind::PreVoteResponse,
            _ => return,
        };
        let mut answer = Message::new(kind, self.config.id, message.from, self.term);
        answer.reject = kind == MessageKind::PreVoteResponse;
        self.promise(answer);
    }

    pub(super) fn answer_vote(&mut self, request: &Message, now: Tick) {
        self.learn_committed(EntryId { term: request.run_term, index: request.commit });
        let pre = request.kind == MessageKind::PreVote;
        let free = self.vote == request.from
            || (self.vote == ReplicaId::NONE && self.leader() == ReplicaId::NONE)
            || (pre && request.term > self.term)
            || planted(Planted::VotedTwice);
        let promised = now < self.promised_until() && request.context != TRANSFER;
        let may_elect = self.recall().is_none_or(|it| it.may_elect(request.entry));
        let is_behind =
            !self.log.is_up_to_date(request.entry) && !planted(Planted::ShorterLogElected);
        let rivals = pre && !self.config.plain && matches!(self.role, Role::PreCandidate(_));
        let yields = !(rivals && self.goes_first(request));
        let granted = free && !promised && may_elect && !is_behind && yields;
        let kind = if pre { MessageKind::PreVoteResponse } else { MessageKind::VoteResponse };
        // A grant echoes the request's term, which for a pre-vote is not ours; a refusal tells ours.
        let term = if granted { request.term } else { self.term };
        let mut answer = Message::new(kind, self.config.id, request.from, term);
        answer.reject = !granted;
        if !granted && !self.config.plain {
            answer.entry = self.committed_id();
        }
        if granted && !pre {
            self.vote = request.from;
            self.restart_election_timer(now);
        }
        if granted && rivals {
            self.become_follower(self.term, ReplicaId::NONE, now);
        }
        self.promise(answer);
    }

    /// Of this replica and another that ask for pre-votes, whether this one goes on though the other's log holds no less.
    fn goes_first(&self, request: &Message) -> bool {
        (request.term, request.entry) == (self.term.next(), self.log.last_id())
            && request.from < self.config.id
            && self.membership.is_voter(request.from)
    }

    /// Whether a leader was heard from so recently that votes are refused unseen.
    #[must_use]
    pub fn is_leased(&self, now: Tick) -> bool {
        now < self.promised_until()
            || self.config.check_quorum
                && match &self.role {
                    Role::Follower { leader, heard } => {
                        let since = if self.config.plain { self.waiting_since } else { *heard };
                        leader.is_some() && now.since(since) < self.config.election_ticks()
                    }
                    Role::Leader(leader) => now < leader.quorum_check_at,
                    Role::PreCandidate(_) | Role::Candidate(_) => false,
                }
    }

    /// A leader's share of `tick`.
    fn lead_on(&mut self, now: Tick) {
        if matches!(&self.role, Role::Leader(leader) if now >= leader.heartbeat_at) {
            self.rest();
        }
        let (id, election_ticks) = (self.config.id, self.config.election_ticks().max(1));
        let heartbeat_ticks = self.config.heartbeat_ticks().max(1);
        let check_quorum = self.config.check_quorum;
        let Role::Leader(leader) = &mut self.role else { return };
        if now >= leader.heartbeat_at {
            leader.heartbeat_due = true;
            leader.heartbeat_at = aligned(now.plus(heartbeat_ticks), heartbeat_ticks);
        }
        if let Some(Transfer { to, .. }) =
            leader.transfer.take_if(|it| now >= it.until).map(|it| *it)
        {
            Rare::end_transfer(&mut self.rare, to);
            let keeps = self.config.on_removal == OnRemoval::KeepLeading;
            if !keeps && !self.membership.is_voter(id) {
                // It was asked to take over because this replica has left, and did not: another may.
                self.hand_over(now);
                return;
            }
        }
        if check_quorum && now >= leader.quorum_check_at {
            leader.quorum_check_at = now.plus(election_ticks);
            // A leader whose disk has not finished one write in a whole election timeout commits with
            // the others' disks and answers nobody, because it applies only what is durable here.
            let oldest = self.log.writes().first().map_or(PersistSeq(0), |write| write.seq);
            let is_stuck = oldest != PersistSeq(0) && oldest == leader.oldest_write;
            leader.oldest_write = oldest;
            // By time of hearing, so that answers from before a stall do not count after it.
            let is_recent = |heard| now.since(heard) < election_ticks;
            let plain = self.config.plain;
            let is_alive = |id| {
                let alive = |peer: &Progress| {
                    if plain { peer.active } else { peer.heard().is_some_and(is_recent) }
                };
                leader.peer(id).is_some_and(alive)
            };
            let has_quorum =
                quorum::has_quorum(&self.membership, |peer| peer == id || is_alive(peer));
            for peer in leader.peers.iter_mut().filter(|peer| peer.id != id) {
                peer.active = false;
            }
            if is_stuck || !has_quorum {
                self.become_follower(self.term, ReplicaId::NONE, now);
            }
        }
    }

    /// Hands leadership over to `to`: no proposals from now on, `TimeoutNow` once its log is
    /// complete, given up after an election timeout (thesis §3.10, safety point 17). Returns
    /// whether it is under way: this replica leads, and `to` is another voter. Asking for the same
    /// again changes nothing; asking for this replica gives up what is under way.
    pub fn transfer(&mut self, to: ReplicaId, now: Tick) -> bool {
        let (id, until) = (self.config.id, now.plus(self.config.election_ticks()));
        let is_voter = self.membership.is_voter(to);
        let Role::Leader(leader) = &mut self.role else { return false };
        if !is_voter {
            return false;
        }
        if let Some(other) = leader.transferee() {
            if other == to {
                return true;
            }
            leader.transfer = None;
            Rare::end_transfer(&mut self.rare, other);
        }
        if to == id {
            return false;
        }
        leader.transfer = Some(Box::new(Transfer { to, until }));
        if self.config.plain {
            leader.quorum_check_at = until;
        }
        let last = self.log.last();
        let Some(peer) = leader.peer_mut(to) else { return false };
        let matched = peer.matched;
        peer.due = matched < last;
        leader.dirty = true;
        self.nudge_transferee(to, matched);
        self.check();
        true
    }

    /// Tells the transferee to stand if it is one and has everything.
    pub(super) fn nudge_transferee(&mut self, peer: ReplicaId, matched: Index) {
        let Role::Leader(leader) = &mut self.role else { return };
        let is_complete = matched == self.log.last() || planted(Planted::TransferToLaggard);
        if leader.transferee() == Some(peer) && is_complete {
            // After whatever it is still to be sent, so that it knows what is committed.
            (leader.yielded, leader.nudge, leader.dirty) = (true, true, true);
        }
    }
}

/// A little earlier than `at`, on a grid of a quarter of the heartbeat interval. Groups that lead on one
/// core are elected at any time; on the grid they soon send their heartbeats in the same turns, and
/// what leaves together shares a frame, a wake-up here and one over there. Four beats to an interval,
/// so that not all of them fall into one turn.
fn aligned(at: Tick, heartbeat_ticks: u64) -> Tick {
    let grid = (heartbeat_ticks / 4).max(1);
    Tick(at.0 - at.0 % grid)
}
