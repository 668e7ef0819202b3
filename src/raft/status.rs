//! What a replica tells about itself: for operators, tests and the group that owns it.

use std::fmt;

use crate::id::{EntryId, Index, ReplicaId, Term, Tick};

use super::effects::RoleKind;
use super::membership::Membership;
use super::progress::{Progress, ProgressState, Window};

/// A replica at one moment. Cheap: it borrows.
#[derive(Debug, Clone)]
pub struct Status<'a> {
    /// Its id.
    pub id: ReplicaId,
    /// What it is to its group.
    pub role: RoleKind,
    /// Its term.
    pub term: Term,
    /// Who it voted for in `term`, if anyone.
    pub vote: ReplicaId,
    /// Who leads, if known.
    pub leader: ReplicaId,
    /// It leads and an entry of its own term is committed (contract row 8).
    pub leader_ready: bool,
    /// The first index in its log.
    pub first: Index,
    /// Its last entry, durable or not.
    pub last: EntryId,
    /// The last index durable here.
    pub durable: Index,
    /// The last index known committed.
    pub commit: Index,
    /// The last index the driver reported applied.
    pub applied: Index,
    /// A leader's proposed and uncommitted payload bytes.
    pub uncommitted_bytes: u64,
    /// Whom a leader is handing over to, if it is.
    pub transferee: Option<ReplicaId>,
    /// Messages not acted on: wrong address, not a member, malformed, or after a failure
    /// (contract row 12).
    pub ignored: u64,
    /// Why it takes part in nothing, if so.
    pub failure: Option<Failure>,
    /// Who belongs to the group.
    pub membership: &'a Membership,
    pub(super) peers: &'a [Progress],
    pub(super) window: Window,
}

impl Status<'_> {
    /// On a leader every member, itself included; otherwise nobody.
    pub fn progress(&self) -> impl Iterator<Item = ReplicaProgress> {
        self.peers.iter().map(|peer| ReplicaProgress {
            is_active: peer.active,
            is_full: peer.inflights.is_full(self.window),
            id: peer.id,
            state: peer.state,
            matched: peer.matched,
            next: peer.next,
            heard: peer.heard(),
            inflight_messages: peer.inflights.messages(),
            inflight_bytes: peer.inflights.bytes(),
            is_paused: peer.is_paused(),
            is_fetching: peer.fetching,
        })
    }
}

/// One member as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// The member.
    pub id: ReplicaId,
    /// How it is being fed.
    pub state: ProgressState,
    /// The last index known to be durable there.
    pub matched: Index,
    /// The next index to send.
    pub next: Index,
    /// When it last answered, if it did in this term.
    pub heard: Option<Tick>,
    /// Appends sent and not acknowledged.
    pub inflight_messages: usize,
    /// Their payload bytes.
    pub inflight_bytes: u64,
    /// As many appends are on the way, or as many bytes, as may be.
    pub is_full: bool,
    /// Nothing is sent until it answers.
    pub is_paused: bool,
    /// It has answered since the last check of the quorum, or has just joined.
    pub is_active: bool,
    /// The driver is reading entries back for it.
    pub is_fetching: bool,
}

/// Why a replica has stopped for good. Its promises no longer mean anything, so it makes none: it
/// neither votes nor acknowledges, and leaves the group to the others (safety points 7 and 21). The
/// cure is a new replica under a new id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// A leader wants entry `at` replaced, which is committed here. Two different entries were
    /// committed at one index, here or elsewhere.
    CommittedConflict {
        /// The entry to be replaced.
        at: Index,
        /// The commit index here.
        commit: Index,
    },
    /// Something this replica once acknowledged is no longer in its log: the disk lost it.
    EntriesLost {
        /// What is known committed.
        commit: Index,
        /// The last entry there is.
        last: Index,
    },
    /// The log starts after the first entry the state machine still needs.
    AppliedTooOld {
        /// The last index applied.
        applied: Index,
        /// The first index in the log.
        first: Index,
    },
    /// What was recovered contradicts itself.
    RecoveredNonsense,
    /// The state machine said that it cannot go on. Nothing that was promised is lost: started again, the replica
    /// replays its log and takes part, if the machine can then.
    MachineStopped {
        /// The last entry it had executed, or one before it.
        after: Index,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommittedConflict { at, commit } => write!(
                f,
                "the leader would replace entry {at}, but everything up to {commit} is committed \
                 here; remove this replica and add a new one"
            ),
            Self::EntriesLost { commit, last } => write!(
                f,
                "entries up to {commit} are committed, but the log ends at {last}: entries that \
                 were acknowledged are lost; remove this replica and add a new one"
            ),
            Self::AppliedTooOld { applied, first } => write!(
                f,
                "the state machine ends at {applied}, but the log starts at {first}; remove this \
                 replica and add a new one"
            ),
            Self::RecoveredNonsense => write!(
                f,
                "the recovered terms, indexes and hard state contradict one another; remove this \
                 replica and add a new one"
            ),
            Self::MachineStopped { after } => write!(
                f,
                "the state machine stopped after entry {after}; mend the cause and start this node \
                 again"
            ),
        }
    }
}
