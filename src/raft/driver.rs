//! The words a driver and the core exchange besides messages and effects: settings in, what the log
//! remembered in, changes to mirror and refusals out.

use crate::entry::EntryKind;
use crate::id::{EntryId, Index, ReplicaId};
use crate::limits;

use super::confchange::ChangeError;
use super::effects::HardState;
use super::log::TermRun;
use super::membership::Membership;
use super::recall::Forgotten;

/// Settings of one replica. They may differ between replicas of a group without harm to safety.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This replica's id; never zero.
    pub id: ReplicaId,
    /// Milliseconds without a leader before a follower stands for election; each wait is drawn from
    /// `[T, 2T)`. Also the length of the lease that check-quorum gives. Default 1000; at least 1, and no
    /// more than fits in 32 bits.
    /// Too short elects leaders for nothing; too long is downtime after a failure.
    pub election_ticks: u64,
    /// Milliseconds between a leader's heartbeats. Default 100; well below `election_ticks`.
    pub heartbeat_ticks: u64,
    /// Ask whether an election could be won before starting a term (thesis §9.6). Default true: a
    /// replica that was cut off cannot depose a leader that works.
    pub pre_vote: bool,
    /// A leader that hears from no quorum for `election_ticks` steps down, and nobody votes against
    /// a leader heard from within that time (thesis §6.2, §4.2.3). Default true.
    pub check_quorum: bool,
    /// Entries in one append. Default [`limits::APPEND_ENTRIES_MAX`].
    pub append_entries_max: u32,
    /// Payload bytes in one append; one entry may exceed it alone. Default
    /// [`limits::APPEND_BYTES_MAX`].
    pub append_bytes_max: u64,
    /// Appends one follower may have unacknowledged. Default [`limits::INFLIGHT_MESSAGES_MAX`].
    pub inflight_messages_max: usize,
    /// Payload bytes one follower may have unacknowledged. Default [`limits::INFLIGHT_BYTES_MAX`].
    pub inflight_bytes_max: u64,
    /// Proposed and uncommitted payload bytes at which proposals are refused. Default
    /// [`limits::UNCOMMITTED_BYTES_MAX`].
    pub uncommitted_bytes_max: u64,
    /// Seeds the jitter of election timeouts and the names of follower reads. Different per replica,
    /// group and start, or they campaign together.
    pub seed: u64,
    /// Answer a leader's reads without asking anybody while a quorum has promised not to elect
    /// another leader. Default none; the same for all replicas of a group, because it is the others
    /// that keep the promise.
    pub lease: Option<Lease>,
    /// How eager this replica is to lead: 100 (the default) waits as drawn from `[T, 2T)`, 1 almost
    /// `T` longer, and 0 never stands for election on its own.
    pub priority: u8,
    /// What a leader does when a change takes its vote away.
    pub on_removal: OnRemoval,
    /// Hand out committed entries before they are durable here, as etcd does (contract row 20).
    /// Default false: a crash may then leave the state machine ahead of its log.
    pub apply_before_durable: bool,
    /// Leave to the driver what etcd-io/raft leaves to its own: nothing waits for the disk in here,
    /// nothing is merged, and what this replica promises itself (its own vote, its own entries) is
    /// a message like any other, to be held back and handed in again. Also, whether a replica is
    /// alive is a flag that a check of the quorum resets, not a time. For comparison with etcd's
    /// transcripts, never for data. Default false.
    pub plain: bool,
}

/// How far clocks may be trusted by a leader that answers reads by its lease (thesis §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// By how much, in percent, two clocks may differ in speed: the lease ends that much before the
    /// others' promise does. At most 90.
    pub drift_percent: u8,
}

/// What a leader does when a change of membership has taken its vote away (contract row 62).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRemoval {
    /// Tell the others that the change is committed, hand leadership to the voter that is furthest,
    /// and follow. What the product does: nobody waits for an election timeout.
    #[default]
    HandOver,
    /// Follow at once, as etcd does if so configured.
    StepDown,
    /// Go on leading a group it is no member of, as etcd does by default.
    KeepLeading,
}

impl Config {
    /// The defaults for replica `id` with this jitter seed.
    #[must_use]
    pub const fn new(id: ReplicaId, seed: u64) -> Self {
        Self {
            id,
            election_ticks: 1000,
            heartbeat_ticks: 100,
            pre_vote: true,
            check_quorum: true,
            append_entries_max: limits::APPEND_ENTRIES_MAX,
            append_bytes_max: limits::APPEND_BYTES_MAX,
            inflight_messages_max: limits::INFLIGHT_MESSAGES_MAX,
            inflight_bytes_max: limits::INFLIGHT_BYTES_MAX,
            uncommitted_bytes_max: limits::UNCOMMITTED_BYTES_MAX,
            seed,
            lease: None,
            priority: 100,
            on_removal: OnRemoval::HandOver,
            apply_before_durable: false,
            plain: false,
        }
    }
}

/// The settings as a replica keeps them: a node holds thousands, so what fits in less takes less.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) id: ReplicaId,
    pub(super) append_bytes_max: u64,
    pub(super) inflight_bytes_max: u64,
    pub(super) uncommitted_bytes_max: u64,
    /// As the next two, cut off at what fits: 49 days, and four billion appends.
    election_ticks: u32,
    heartbeat_ticks: u32,
    inflight_messages_max: u32,
    pub(super) append_entries_max: u32,
    pub(super) lease: Option<Lease>,
    pub(super) priority: u8,
    pub(super) on_removal: OnRemoval,
    pub(super) pre_vote: bool,
    pub(super) check_quorum: bool,
    pub(super) apply_before_durable: bool,
    pub(super) plain: bool,
}

impl Settings {
    /// Takes over everything but the seed.
    pub(super) fn new(config: &Config) -> Self {
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            id: config.id,
            append_bytes_max: config.append_bytes_max,
            inflight_bytes_max: config.inflight_bytes_max,
            uncommitted_bytes_max: config.uncommitted_bytes_max,
            election_ticks: short(config.election_ticks),
            heartbeat_ticks: short(config.heartbeat_ticks),
            inflight_messages_max: u32::try_from(config.inflight_messages_max).unwrap_or(u32::MAX),
            append_entries_max: config.append_entries_max,
            lease: config.lease,
            priority: config.priority,
            on_removal: config.on_removal,
            pre_vote: config.pre_vote,
            check_quorum: config.check_quorum,
            apply_before_durable: config.apply_before_durable,
            plain: config.plain,
        }
    }

    pub(super) fn election_ticks(&self) -> u64 {
        u64::from(self.election_ticks)
    }

    pub(super) fn heartbeat_ticks(&self) -> u64 {
        u64::from(self.heartbeat_ticks)
    }

    pub(super) fn inflight_messages_max(&self) -> usize {
        self.inflight_messages_max as usize
    }
}

/// What the log remembered. The default is a new group without members; a new group with members
/// sets `membership` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The last hard state written.
    pub hard_state: HardState,
    /// Who belongs to the group, as of `applied`.
    pub membership: Membership,
    /// The first index in the log; 1 when nothing was truncated.
    pub first: Index,
    /// The entry just before `first`; 0/0 when nothing was truncated.
    pub before_first: EntryId,
    /// The terms of `first..=last`, ascending, starting at `first`; empty when the log is.
    pub runs: Vec<TermRun>,
    /// The last index in the log; the one before `first` when it is empty.
    pub last: Index,
    /// What the state machine already holds.
    pub applied: Index,
    /// What is known to be missing; none of a log that is whole.
    pub forgotten: Option<Forgotten>,
}

impl Default for Recovered {
    fn default() -> Self {
        Self {
            hard_state: HardState::default(),
            membership: Membership::default(),
            first: Index(1),
            before_first: EntryId::default(),
            runs: Vec::new(),
            last: Index(0),
            applied: Index(0),
            forgotten: None,
        }
    }
}

/// What the driver's log cache knows about sizes; the core holds no payload.
pub trait Entries {
    /// How many of the entries `first..=last` are in memory from `first` on, without exceeding
    /// `count_max` entries or `bytes_max` bytes, but at least one if `first` is in memory.
    fn fit(&self, first: Index, last: Index, count_max: u32, bytes_max: u64) -> Fit;

    /// The last entry in the snapshot that a follower would be sent now, if the driver knows: the
    /// leader goes on behind it. By default the last one applied.
    fn snapshot(&self) -> Option<EntryId> {
        None
    }
}

/// The answer of [`Entries::fit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// These many entries, at least one, of these many payload bytes in all.
    Entries {
        /// How many.
        count: u32,
        /// Their payload bytes.
        bytes: u64,
    },
    /// `first` is not in memory; it must be read back.
    Missing,
}

/// The log has changed: the driver mirrors it in its log cache at once, before the next call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the log cache must mirror this before anything else happens"]
pub struct LogChange {
    /// The cache drops everything at and after this index, then takes the new entries from here on.
    pub first: Index,
    /// How many entries are new.
    pub count: u32,
    /// Where their payloads come from.
    pub source: Source,
}

/// Where new entries come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From the append just stepped.
    Message {
        /// How many of its entries were held already; the new ones follow them.
        skip: u32,
    },
    /// From the core itself: entries of this kind with empty payloads.
    Internal(EntryKind),
}

/// Why nothing was proposed. Nothing was written; the payload is still the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposeRefusal {
    /// This replica does not lead. Retry at `leader`, if one is known.
    NotLeader {
        /// Who leads, or [`ReplicaId::NONE`].
        leader: ReplicaId,
    },
    /// Leadership is being handed over. Retry after a pause.
    Transferring,
    /// `uncommitted_bytes_max` is reached. Retry after a pause.
    Full,
}

/// Why no change of membership was proposed. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigRefusal {
    /// As for any proposal.
    Proposal(ProposeRefusal),
    /// A change at this index, or one before this leader's term, has not taken effect yet. Retry
    /// after a pause.
    Pending {
        /// Up to where the log may hold one.
        index: Index,
    },
    /// A joint membership must be left first.
    Joint,
    /// There is no joint membership to leave.
    NotJoint,
    /// The change is not allowed from the present membership.
    Change(ChangeError),
}

/// Why a read did not join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadRefusal {
    /// This replica does not lead. Retry at `leader`, if one is known.
    NotLeader {
        /// Who leads, or [`ReplicaId::NONE`].
        leader: ReplicaId,
    },
    /// [`limits::READS_PENDING_MAX`] reads wait already. Retry after a pause.
    Full,
}
