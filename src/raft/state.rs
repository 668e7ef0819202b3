//! The replica whole: its state, its birth, and its small answers. The verbs live in their own
//! files and borrow it: [`step`](super::step), [`elect`](super::elect), [`follow`](super::follow),
//! [`replicate`](super::replicate), [`ready`](super::ready).

use std::collections::VecDeque;

use crate::id::{EntryId, Index, ReplicaId, Term, Tick};

use super::driver::{Config, Recovered};
use super::effects::{PersistSeq, RoleKind, TransferEnd};
use super::log::Log;
use super::membership::Membership;
use super::message::Message;
use super::progress::{Progress, Window};
use super::read::{Asked, Reads};
use super::recall::{Recall, Recalled};
use super::status::{Failure, Status};

/// One replica of one group. Lives once per group on the core that owns it.
///
/// Every method is a plain function of this state and its arguments. See the [module](super) for
/// the contract with the driver.
#[derive(Debug, Clone)]
pub struct Raft {
    pub(super) config: Config,
    pub(super) membership: Membership,
    pub(super) term: Term,
    pub(super) vote: ReplicaId,
    /// Term and vote as last handed out to be written.
    pub(super) staged: (Term, ReplicaId),
    pub(super) role: Role,
    pub(super) log: Log,
    /// Leave with the next `ready`.
    pub(super) outbox: Vec<Message>,
    /// Wait for a write, oldest first; `seq` ascends.
    pub(super) promises: Vec<Promise>,
    /// The current wait, drawn from `[T, 2T)` at every change of role.
    pub(super) election_timeout: u64,
    /// When it began.
    pub(super) waiting_since: Tick,
    /// When a replica that is not leader stands for election.
    pub(super) election_at: Tick,
    pub(super) jitter: u64,
    /// The term whose leader has asked this replica to take over.
    pub(super) called: Option<Term>,
    /// The last read sequence number given out; never reused, not even by a later life.
    pub(super) read_seq: u64,
    /// Reads of this replica that wait for its leader's word.
    pub(super) asked: Asked,
    /// Before this time no vote is given: an earlier life may have promised so (leases).
    pub(super) promised_until: Tick,
    /// To whom this replica was handing leadership when it stopped leading.
    pub(super) handing: Option<ReplicaId>,
    /// Not yet told to the driver.
    pub(super) transfer_end: Option<TransferEnd>,
    /// Role, term and leader as last told to the driver.
    pub(super) announced: (RoleKind, Term, ReplicaId),
    pub(super) failure: Option<Failure>,
    pub(super) ignored: u64,
    /// Part of the log was lost, and is not back yet.
    pub(super) recall: Option<Recall>,
    /// Not yet told to the driver.
    pub(super) recalled: Vec<Recalled>,
}

/// ```text
///                     timeout, transfer                     quorum, own vote durable
///          ┌────────────────────────────────► Candidate ─────────────────────────► Leader
///          │                                   ▲     │                               │
///          │  timeout              quorum      │     │ lost, or a leader appears     │
///      Follower ───────► PreCandidate ─────────┘     │                               │
///          ▲                  │                      │                               │
///          └──────────────────┴──────────────────────┴───────────────────────────────┘
///                  a higher term, a leader of this term, or (leader) no quorum answers
/// ```
#[derive(Debug, Clone)]
pub(super) enum Role {
    Follower {
        leader: ReplicaId,
        /// When `leader` was last heard.
        heard: Tick,
    },
    PreCandidate(Votes),
    Candidate(Votes),
    Leader(Box<Leader>),
}

/// Who answered a candidate, and how. The first answer stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Votes(pub(super) Vec<(ReplicaId, bool)>);

impl Votes {
    pub(super) fn record(&mut self, id: ReplicaId, granted: bool) {
        if self.answer(id).is_none() {
            self.0.push((id, granted));
        }
    }

    pub(super) fn answer(&self, id: ReplicaId) -> Option<bool> {
        self.0.iter().find(|&&(voter, _)| voter == id).map(|&(_, granted)| granted)
    }
}

/// What only a leader knows.
#[derive(Debug, Clone)]
pub(super) struct Leader {
    /// Every member, this replica included.
    pub(super) peers: Vec<Progress>,
    /// The empty entry that opened the term: what is committed from here on is of this term.
    pub(super) term_start: Index,
    /// `Effects::leader_ready` has been emitted.
    pub(super) ready_told: bool,
    pub(super) heartbeat_at: Tick,
    pub(super) quorum_check_at: Tick,
    /// The oldest write in flight at the last quorum check.
    pub(super) oldest_write: Option<PersistSeq>,
    pub(super) heartbeat_due: bool,
    /// An append is due or wanted for somebody, or `nudge` is set.
    pub(super) dirty: bool,
    /// An append is due for everybody.
    pub(super) broadcast: bool,
    /// The transferee has everything and is to be told to stand.
    pub(super) nudge: bool,
    pub(super) reads: Reads,
    /// Proposed and not committed: last index and payload bytes, one element per turn.
    pub(super) uncommitted: VecDeque<(Index, u64)>,
    pub(super) uncommitted_bytes: u64,
    /// The back of `uncommitted` may still be added to.
    pub(super) uncommitted_open: bool,
    /// To whom leadership is being handed over, and when to give up.
    pub(super) transfer: Option<(ReplicaId, Tick)>,
    /// The log may hold an unapplied change of membership up to here.
    pub(super) pending_config: Index,
    /// Rounds of heartbeats not yet confirmed, by read context, and when they were sent. Kept if
    /// there is a lease.
    pub(super) rounds: VecDeque<(u64, Tick)>,
    /// When the last round that a quorum has answered was sent: the lease counts from there.
    pub(super) lease_from: Option<Tick>,
    /// Somebody was told to campaign in spite of leases, and may still do so: there is no lease for
    /// the rest of the term.
    pub(super) yielded: bool,
}

impl Leader {
    pub(super) fn peer(&self, id: ReplicaId) -> Option<&Progress> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    pub(super) fn peer_mut(&mut self, id: ReplicaId) -> Option<&mut Progress> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }
}

/// Something that may be said only when a write is durable (contract row 22).
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub(super) seq: PersistSeq,
    pub(super) what: Promised,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Promised {
    Send(Message),
    /// Count the own vote, if `term` still stands.
    OwnVote {
        term: Term,
        pre: bool,
    },
}

impl Raft {
    /// A replica with what its log remembered, a follower of nobody. If the parts contradict one
    /// another it has [failed](Failure) from the start.
    #[must_use]
    pub fn new(config: Config, recovered: Recovered, now: Tick) -> Self {
        let failure = recovered.find_damage(config.plain);
        let Recovered { hard_state, membership, before_first, runs, last, applied, .. } = recovered;
        let forgotten = recovered.forgotten;
        // The commit index is written lazily, so it may lag what was applied (safety point 15).
        let commit = hard_state.commit.max(applied).max(before_first.index).min(last);
        let term = hard_state.term;
        let is_alone = membership.incoming == [config.id] && membership.outgoing.is_empty();
        let promised_until = match config.lease {
            Some(_) if !is_alone => now.plus(config.election_ticks),
            _ => Tick(0),
        };
        let apply_before_durable = config.apply_before_durable;
        let mut raft = Self {
            jitter: config.seed,
            called: None,
            config,
            membership: membership.sorted(),
            term,
            vote: hard_state.vote,
            staged: (term, hard_state.vote),
            role: Role::Follower { leader: ReplicaId::NONE, heard: now },
            log: Log::new(before_first, runs, last, commit, applied, apply_before_durable),
            outbox: Vec::new(),
            promises: Vec::new(),
            election_timeout: 0,
            waiting_since: now,
            election_at: now,
            read_seq: 0,
            asked: Asked::default(),
            promised_until,
            handing: None,
            transfer_end: None,
            announced: (RoleKind::Follower, term, ReplicaId::NONE),
            failure,
            ignored: 0,
            recall: None,
            recalled: Vec::new(),
        };
        raft.draw_election_timeout(now);
        // An answer to a follower's read may come after a restart: no number is used twice.
        raft.read_seq = raft.draw() >> 4;
        raft.recall = forgotten.map(|what| Recall::new(what, raft.draw(), now));
        raft.check();
        raft
    }

    /// When [`Raft::tick`] next has work. Moves later with every sign of life from the leader, so a
    /// timer wheel may wake at an old value, ask again, and go back to sleep. `Tick(u64::MAX)` for
    /// a replica that can do nothing on its own.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        if self.failure.is_some() {
            return Tick(u64::MAX);
        }
        match &self.role {
            Role::Leader(leader) => {
                let mut at = leader.heartbeat_at;
                if self.config.check_quorum {
                    at = at.min(leader.quorum_check_at);
                }
                leader.transfer.map_or(at, |(_, until)| at.min(until))
            }
            _ if self.recall.is_some() => {
                self.recall.as_ref().map_or(Tick(u64::MAX), |it| it.ask_at)
            }
            _ if self.is_promotable() => self.election_at,
            _ => Tick(u64::MAX),
        }
    }

    /// Who this replica is, where its log stands, and, on a leader, how its followers do.
    #[must_use]
    #[inline]
    pub fn status(&self) -> Status<'_> {
        let leading = match &self.role {
            Role::Leader(leader) => Some(&**leader),
            Role::Follower { .. } | Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        Status {
            id: self.config.id,
            role: self.role_kind(),
            term: self.term,
            vote: self.vote,
            leader: self.leader(),
            leader_ready: leading.is_some_and(|l| self.log.commit() >= l.term_start),
            first: self.log.first(),
            last: self.log.last_id(),
            durable: self.log.durable(),
            commit: self.log.commit(),
            applied: self.log.applied(),
            uncommitted_bytes: leading.map_or(0, |leader| leader.uncommitted_bytes),
            transferee: leading.and_then(|leader| leader.transfer).map(|(to, _)| to),
            ignored: self.ignored,
            failure: self.failure,
            membership: &self.membership,
            peers: leading.map_or(&[], |leader| &leader.peers),
            window: self.window(),
        }
    }

    /// The term of the entry at `index`; `None` if it is not in the log (the entry just before the
    /// first one counts as in).
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The term of the entry at `first` and the last index, at most `last`, up to which it does not
    /// change.
    ///
    /// # Panics
    ///
    /// If `first` is not in the log: the driver asks about a range it was given.
    #[must_use]
    pub fn term_run(&self, first: Index, last: Index) -> (Term, Index) {
        let term = self.log.term_at(first).expect("the driver asks about entries it was given");
        (term, self.log.run_end(first).min(last))
    }

    /// Entry `index`, now in the log, changes the membership. The core cannot see kinds; it must
    /// know these to refuse to campaign while one is committed and unapplied (contract row 33). Call
    /// it when mirroring a [`LogChange`](super::LogChange) and, after a restart, for what was
    /// recovered.
    pub fn note_config(&mut self, index: Index) {
        self.log.note_config(index);
    }

    /// Forgets the terms of everything up to `index`, as far as it is applied: the log was
    /// truncated there.
    pub fn compact(&mut self, index: Index) {
        self.log.compact(index);
        self.check();
    }

    pub(super) fn role_kind(&self) -> RoleKind {
        match self.role {
            Role::Follower { .. } => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    pub(super) fn leader(&self) -> ReplicaId {
        match self.role {
            Role::Follower { leader, .. } => leader,
            Role::PreCandidate(_) | Role::Candidate(_) => ReplicaId::NONE,
            Role::Leader(_) => self.config.id,
        }
    }

    /// Only voters stand for election.
    pub(super) fn is_promotable(&self) -> bool {
        self.membership.is_voter(self.config.id)
    }

    pub(super) fn window(&self) -> Window {
        Window {
            messages_max: self.config.inflight_messages_max.max(1),
            bytes_max: self.config.inflight_bytes_max.max(1),
        }
    }

    /// Takes part in nothing from now on; see [`Failure`].
    pub(super) fn fail(&mut self, failure: Failure, now: Tick) {
        self.failure = Some(failure);
        self.role = Role::Follower { leader: ReplicaId::NONE, heard: now };
        self.outbox.clear();
        self.promises.clear();
    }

    /// Draws a new wait and starts it.
    pub(super) fn draw_election_timeout(&mut self, now: Tick) {
        let ticks = self.config.election_ticks.max(1);
        let reluctance = ticks * u64::from(100 - self.config.priority.min(100)) / 100;
        self.election_timeout = ticks + self.draw() % ticks + reluctance;
        self.restart_election_timer(now);
    }

    pub(super) fn restart_election_timer(&mut self, now: Tick) {
        self.waiting_since = now;
        self.set_election_at();
    }

    /// Replaces the wait that was drawn, until the next is: for tests that need to know it.
    pub fn set_election_timeout(&mut self, ticks: u64) {
        self.election_timeout = ticks;
        self.set_election_at();
    }

    fn set_election_at(&mut self) {
        self.election_at = match self.config.priority {
            0 => Tick(u64::MAX),
            _ => self.waiting_since.plus(self.election_timeout),
        };
    }

    /// splitmix64 (Steele, Lea, Flood 2014): jitter needs no more.
    fn draw(&mut self) -> u64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.jitter;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Recovered {
    /// The first contradiction among the parts, if any.
    fn find_damage(&self, plain: bool) -> Option<Failure> {
        let EntryId { term: term_before, index: before } = self.before_first;
        let mut term = term_before;
        let mut start = before;
        for (at, run) in self.runs.iter().enumerate() {
            let placed = if at == 0 {
                run.start == self.first
            } else {
                start < run.start && term < run.term
            };
            if !placed || run.start > self.last || run.term < term {
                return Some(Failure::RecoveredNonsense);
            }
            (start, term) = (run.start, run.term);
        }
        let empty = self.last == before;
        if self.first != before.next() || self.last < before || empty != self.runs.is_empty() {
            return Some(Failure::RecoveredNonsense);
        }
        // A group of etcd's transcripts begins in term 0 with a snapshot of term 1.
        if self.hard_state.term < term && !(plain && self.runs.is_empty()) {
            return Some(Failure::RecoveredNonsense);
        }
        if self.applied < before {
            return Some(Failure::AppliedTooOld { applied: self.applied, first: self.first });
        }
        let commit = self.hard_state.commit.max(self.applied);
        (commit > self.last).then_some(Failure::EntriesLost { commit, last: self.last })
    }
}
