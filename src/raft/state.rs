//! The replica whole: its state, its birth, and its small answers. The verbs live in their own
//! files and borrow it: [`step`](super::step), [`elect`](super::elect), [`follow`](super::follow),
//! [`replicate`](super::replicate), [`ready`](super::ready).

use crate::id::{EntryId, Index, ReplicaId, Term, Tick};

use super::driver::{Config, Recovered, Settings};
use super::effects::{PersistSeq, RoleKind};
use super::log::Log;
use super::membership::Membership;
use super::message::Message;
use super::progress::{Progress, Uncommitted, Window};
use super::read::Reads;
use super::recall::Recall;
use super::rest::Rare;
use super::seldom::Seldom;
use super::status::{Failure, Status};

/// One replica of one group. Lives once per group on the core that owns it.
///
/// Every method is a plain function of this state and its arguments. See the [module](super) for
/// the contract with the driver.
#[derive(Debug, Clone)]
pub struct Raft {
    pub(super) config: Settings,
    pub(super) membership: Membership,
    pub(super) term: Term,
    pub(super) vote: ReplicaId,
    /// Term and vote as last handed out to be written.
    pub(super) staged: (Term, ReplicaId),
    pub(super) role: Role,
    pub(super) log: Log,
    /// Leave with the next `ready`.
    pub(super) outbox: Seldom<Message>,
    /// An answer to a heartbeat, which leaves before them.
    pub(super) echo: Option<Echo>,
    /// Wait for a write, oldest first; `seq` ascends.
    pub(super) promises: Seldom<Promise>,
    /// The current wait, drawn from `[T, 2T)` at every change of role; as `config.election_ticks`, cut off
    /// at what fits.
    pub(super) election_timeout: u32,
    /// When it began.
    pub(super) waiting_since: Tick,
    /// When a replica that is not leader stands for election.
    pub(super) election_at: Tick,
    pub(super) jitter: u64,
    /// The last read sequence number given out; never reused, not even by a later life.
    pub(super) read_seq: u64,
    /// Role, and term and leader, as last told to the driver.
    pub(super) announced_role: RoleKind,
    pub(super) announced: (Term, ReplicaId),
    /// What few replicas have.
    pub(super) rare: Option<Box<Rare>>,
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
pub(super) struct Votes(pub(super) Seldom<(ReplicaId, bool)>);

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

/// A handover of leadership under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer {
    pub(super) to: ReplicaId,
    /// Given up then.
    pub(super) until: Tick,
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
    /// The oldest write in flight at the last quorum check; zero if there was none.
    pub(super) oldest_write: PersistSeq,
    pub(super) heartbeat_due: bool,
    /// An append is due or wanted for somebody, or `nudge` is set.
    pub(super) dirty: bool,
    /// An append is due for everybody.
    pub(super) broadcast: bool,
    /// The transferee has everything and is to be told to stand.
    pub(super) nudge: bool,
    /// None while nobody has read anything, and there is no lease.
    pub(super) reads: Option<Box<Reads>>,
    /// Proposed and not committed.
    pub(super) uncommitted: Uncommitted,
    /// Leadership is being handed over.
    pub(super) transfer: Option<Box<Transfer>>,
    /// The log may hold an unapplied change of membership up to here.
    pub(super) pending_config: Index,
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

    /// To whom leadership is being handed over.
    pub(super) fn transferee(&self) -> Option<ReplicaId> {
        self.transfer.as_ref().map(|transfer| transfer.to)
    }

    /// The books of reads; opened if there are none.
    pub(super) fn reads(&mut self) -> &mut Reads {
        self.reads.get_or_insert_default()
    }

    /// Gives memory back that only work needs.
    pub(super) fn rest(&mut self) {
        self.uncommitted.rest();
        self.peers.iter_mut().for_each(|peer| peer.inflights.rest());
        if self.reads.as_ref().is_some_and(|reads| !reads.is_needed()) {
            self.reads = None;
        }
    }
}

/// The answer to a heartbeat, before it is a message. All that a replica that rests ever says; kept apart,
/// so that it needs no outbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Echo {
    pub(super) to: ReplicaId,
    pub(super) term: Term,
    pub(super) context: u64,
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
        let is_alone = *membership.incoming == [config.id] && membership.outgoing.is_empty();
        let promised_until = match config.lease {
            Some(_) if !is_alone => now.plus(config.election_ticks),
            _ => Tick(0),
        };
        let apply_before_durable = config.apply_before_durable;
        let mut raft = Self {
            jitter: config.seed,
            config: Settings::new(&config),
            membership: membership.sorted(),
            term,
            vote: hard_state.vote,
            staged: (term, hard_state.vote),
            role: Role::Follower { leader: ReplicaId::NONE, heard: now },
            log: Log::new(before_first, runs, last, commit, applied, apply_before_durable),
            outbox: Seldom::default(),
            echo: None,
            promises: Seldom::default(),
            election_timeout: 0,
            waiting_since: now,
            election_at: now,
            read_seq: 0,
            announced_role: RoleKind::Follower,
            announced: (term, ReplicaId::NONE),
            rare: None,
        };
        if failure.is_some() || promised_until > Tick(0) {
            (raft.rare().failure, raft.rare().promised_until) = (failure, promised_until);
        }
        raft.draw_election_timeout(now);
        // An answer to a follower's read may come after a restart: no number is used twice.
        raft.read_seq = raft.draw() >> 4;
        if let Some(what) = forgotten {
            let name = raft.draw();
            raft.rare().recall = Some(Recall::new(what, name, now));
            raft.check_recall();
        }
        raft.check();
        raft
    }

    /// When [`Raft::tick`] next has work. Moves later with every sign of life from the leader, so a
    /// timer wheel may wake at an old value, ask again, and go back to sleep. `Tick(u64::MAX)` for
    /// a replica that can do nothing on its own.
    #[must_use]
    pub fn deadline(&self) -> Tick {
        if self.failure().is_some() {
            return Tick(u64::MAX);
        }
        match &self.role {
            Role::Leader(leader) => {
                let mut at = leader.heartbeat_at;
                if self.config.check_quorum {
                    at = at.min(leader.quorum_check_at);
                }
                leader.transfer.as_ref().map_or(at, |transfer| at.min(transfer.until))
            }
            _ => match self.recall() {
                Some(recall) => recall.ask_at,
                None if self.is_promotable() => self.election_at,
                None => Tick(u64::MAX),
            },
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
            uncommitted_bytes: leading.map_or(0, |leader| leader.uncommitted.bytes()),
            transferee: leading.and_then(Leader::transferee),
            ignored: self.rare.as_ref().map_or(0, |rare| rare.ignored),
            failure: self.failure(),
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
        Window::of(&self.config)
    }

    /// Takes part in nothing from now on; see [`Failure`].
    pub(super) fn fail(&mut self, failure: Failure, now: Tick) {
        self.rare().failure = Some(failure);
        self.role = Role::Follower { leader: ReplicaId::NONE, heard: now };
        self.outbox.clear();
        self.echo = None;
        self.promises.clear();
    }

    /// Draws a new wait and starts it.
    pub(super) fn draw_election_timeout(&mut self, now: Tick) {
        let ticks = self.config.election_ticks().max(1);
        let reluctance = ticks * u64::from(100 - self.config.priority.min(100)) / 100;
        let timeout = ticks + self.draw() % ticks + reluctance;
        self.election_timeout = u32::try_from(timeout).unwrap_or(u32::MAX);
        self.restart_election_timer(now);
    }

    pub(super) fn restart_election_timer(&mut self, now: Tick) {
        self.waiting_since = now;
        self.set_election_at();
    }

    /// Replaces the wait that was drawn, until the next is: for tests that need to know it.
    pub fn set_election_timeout(&mut self, ticks: u64) {
        self.election_timeout = u32::try_from(ticks).unwrap_or(u32::MAX);
        self.set_election_at();
    }

    fn set_election_at(&mut self) {
        self.election_at = match self.config.priority {
            0 => Tick(u64::MAX),
            _ => self.waiting_since.plus(u64::from(self.election_timeout)),
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
