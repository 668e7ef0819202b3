//! What one replica asks of the world, and in which order.
//!
//! ```text
//! event ──► Raft::{step, tick, propose, …} ──► Raft::ready(&mut Effects) ──► driver ──► event …
//! ```

use crate::id::{Index, ReplicaId, Term};

use super::message::Message;
use super::recall::Recalled;

/// What a replica must remember across a crash before it may keep a promise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The highest term seen.
    pub term: Term,
    /// Who this replica voted for in `term`, if anyone.
    pub vote: ReplicaId,
    /// The highest index known committed. Written when something else is written, never on its
    /// own (contract row 25).
    pub commit: Index,
}

/// Names one thing to make durable. Counts from one per replica; the driver reports completions in
/// this order with `Raft::on_durable`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistSeq(pub u64);

/// Something to make durable: hard state, entries, or both.
///
/// Promises that depend on it (votes, acceptances, the leader's own count of itself) stay inside
/// the core until `on_durable(seq)`; a driver cannot send them too early because it does not have
/// them yet (contract row 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persist {
    /// Its name.
    pub seq: PersistSeq,
    /// The hard state at this moment; recorded with the entries.
    pub hard_state: HardState,
    /// The first entry to write; entries at and after it in earlier writes are superseded.
    pub first: Index,
    /// How many entries to write, from `first` on; zero for hard state alone. They may span terms:
    /// cut them with `Raft::term_run`.
    pub count: u64,
}

/// What this replica is to its group, as told to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum RoleKind {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether it could win, without disturbing the term.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
}

/// A change of role, term or leader; emitted once, before anything else of its batch
/// (contract row 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoleEvent {
    /// What this replica now is.
    pub role: RoleKind,
    /// In which term.
    pub term: Term,
    /// Who leads, if known.
    pub leader: ReplicaId,
    /// A leader is known now and it is not the one known before; losing a leader is not this
    /// (contract row 6).
    pub new_leader: bool,
}

/// A linearizable read whose leadership has been confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadReady {
    /// All reads with this sequence number or a lower one are confirmed.
    pub seq: u64,
    /// They may be answered once this index is applied.
    pub index: Index,
}

/// Entries a follower needs that are no longer in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// The follower that waits.
    pub to: ReplicaId,
    /// The first entry it needs.
    pub first: Index,
}

/// How a handover of leadership ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferEnd {
    /// Who was to lead.
    pub to: ReplicaId,
    /// It leads. Otherwise this replica still does, or somebody else does.
    pub done: bool,
}

/// Work for the driver. The buffers belong to the caller and are drained, never dropped: a step
/// allocates nothing once they have grown to their working size.
#[derive(Debug, Default)]
pub struct Effects {
    /// A change of role, before anything else.
    pub role: Option<RoleEvent>,
    /// Messages that may leave at once: either they promise nothing about this disk (a leader's
    /// appends travel while its own write is in flight, contract row 21), or what they promise is
    /// already durable.
    pub send: Vec<Message>,
    /// What to make durable.
    pub persist: Option<Persist>,
    /// Committed and locally durable entries to apply, in order: first and last index.
    pub apply: Option<(Index, Index)>,
    /// Reads that may be answered.
    pub reads: Vec<ReadReady>,
    /// Entries to read back from disk for followers that are behind.
    pub fetch: Vec<Fetch>,
    /// The first entry of the leader's own term is committed: it may serve reads
    /// (contract row 8).
    pub leader_ready: bool,
    /// A handover of leadership that began here has ended.
    pub transfer: Option<TransferEnd>,
    /// What this replica had forgotten is known again, in order; to be recorded in the log behind
    /// everything handed out before.
    pub recalled: Vec<Recalled>,
}

impl Effects {
    /// Nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.role.is_none()
            && self.send.is_empty()
            && self.persist.is_none()
            && self.apply.is_none()
            && self.reads.is_empty()
            && self.fetch.is_empty()
            && !self.leader_ready
            && self.transfer.is_none()
            && self.recalled.is_empty()
    }

    /// Forget everything, keep the memory.
    pub fn clear(&mut self) {
        self.role = None;
        self.send.clear();
        self.persist = None;
        self.apply = None;
        self.reads.clear();
        self.fetch.clear();
        self.leader_ready = false;
        self.transfer = None;
        self.recalled.clear();
    }
}
