//! Entries, snapshots, hard states and messages in the shape the transcripts give them.
//!
//! Their messages hold their entries and snapshots; ours name them. A message here is the former,
//! and [`node`](super::node) translates.

use outrigger::raft::{Change, Membership, Transition};

/// The threads that write the log and apply it, as senders and receivers.
pub(super) const APPEND_THREAD: u64 = u64::MAX;
pub(super) const APPLY_THREAD: u64 = u64::MAX - 1;

pub(super) fn is_thread(id: u64) -> bool {
    id == APPEND_THREAD || id == APPLY_THREAD
}

/// One entry of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) term: u64,
    pub(super) index: u64,
    pub(super) payload: Payload,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payload {
    Normal(String),
    Config(Config),
}

impl Default for Payload {
    fn default() -> Self {
        Self::Normal(String::new())
    }
}

/// A change of membership as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Config {
    /// The older form: exactly one change, no transition.
    pub(super) v1: bool,
    pub(super) transition: Transition,
    pub(super) changes: Vec<Change>,
}

impl Config {
    /// What leaves a joint membership by itself.
    pub(super) fn leave() -> Self {
        Self { v1: false, transition: Transition::Auto, changes: Vec::new() }
    }
}

impl Entry {
    /// The payload's bytes as the other library encodes it.
    pub(super) fn payload_bytes(&self) -> u64 {
        match &self.payload {
            Payload::Normal(data) => data.len() as u64,
            Payload::Config(Config { v1: true, changes, .. }) => {
                changes.first().map_or(0, |change| 4 + field(change.id.0))
            }
            Payload::Config(config)
                if config.transition == Transition::Auto && config.changes.is_empty() =>
            {
                0
            }
            Payload::Config(config) => {
                let one = |change: &Change| 4 + field(change.id.0);
                2 + config.changes.iter().map(one).sum::<u64>()
            }
        }
    }

    /// The whole entry's bytes as the other library encodes it: type, term, index and payload, each
    /// with a tag.
    pub(super) fn bytes(&self) -> u64 {
        let payload = match self.payload_bytes() {
            0 => 0,
            bytes => field(bytes) + bytes,
        };
        2 + field(self.term) + field(self.index) + payload
    }
}

/// Tag and variable-length number.
fn field(number: u64) -> u64 {
    1 + u64::from((64 - (number | 1).leading_zeros()).div_ceil(7))
}

/// The state of a replica at one index. Its contents are of no interest to anybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) term: u64,
    pub(super) index: u64,
    pub(super) membership: Membership,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HardState {
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) commit: u64,
}

/// What a message is. The names are the transcripts' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hup,
    Beat,
    Prop,
    App,
    AppResp,
    Vote,
    VoteResp,
    Snap,
    Heartbeat,
    HeartbeatResp,
    Unreachable,
    SnapStatus,
    CheckQuorum,
    TransferLeader,
    TimeoutNow,
    ReadIndex,
    ReadIndexResp,
    PreVote,
    PreVoteResp,
    StorageAppend,
    StorageAppendResp,
    StorageApply,
    StorageApplyResp,
    ForgetLeader,
}

impl Kind {
    const ALL: [Self; 24] = [
        Self::Hup,
        Self::Beat,
        Self::Prop,
        Self::App,
        Self::AppResp,
        Self::Vote,
        Self::VoteResp,
        Self::Snap,
        Self::Heartbeat,
        Self::HeartbeatResp,
        Self::Unreachable,
        Self::SnapStatus,
        Self::CheckQuorum,
        Self::TransferLeader,
        Self::TimeoutNow,
        Self::ReadIndex,
        Self::ReadIndexResp,
        Self::PreVote,
        Self::PreVoteResp,
        Self::StorageAppend,
        Self::StorageAppendResp,
        Self::StorageApply,
        Self::StorageApplyResp,
        Self::ForgetLeader,
    ];

    /// `MsgApp` and the like.
    pub(super) fn name(self) -> String {
        format!("Msg{self:?}")
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Answers are taken from members only.
    pub(super) fn is_response(self) -> bool {
        match self {
            Self::AppResp
            | Self::VoteResp
            | Self::HeartbeatResp
            | Self::Unreachable
            | Self::ReadIndexResp
            | Self::PreVoteResp
            | Self::StorageAppendResp
            | Self::StorageApplyResp => true,
            Self::Hup
            | Self::Beat
            | Self::Prop
            | Self::App
            | Self::Vote
            | Self::Snap
            | Self::Heartbeat
            | Self::SnapStatus
            | Self::CheckQuorum
            | Self::TransferLeader
            | Self::TimeoutNow
            | Self::ReadIndex
            | Self::PreVote
            | Self::StorageAppend
            | Self::StorageApply
            | Self::ForgetLeader => false,
        }
    }

    /// Whether it is sent only after everything unstable when it was made is written.
    pub(super) fn waits_for_the_disk(self) -> bool {
        matches!(self, Self::AppResp | Self::VoteResp | Self::PreVoteResp)
    }
}

/// One message. What a kind does not use is zero or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) term: u64,
    pub(super) log_term: u64,
    pub(super) index: u64,
    pub(super) reject: bool,
    pub(super) hint: u64,
    pub(super) commit: u64,
    pub(super) vote: u64,
    pub(super) context: u64,
    pub(super) entries: Vec<Entry>,
    pub(super) snapshot: Option<Snapshot>,
    /// To be sent once a storage thread has done what the message asks for.
    pub(super) responses: Vec<Message>,
}

impl Message {
    pub(super) fn new(kind: Kind, from: u64, to: u64, term: u64) -> Self {
        Self {
            kind,
            from,
            to,
            term,
            log_term: 0,
            index: 0,
            reject: false,
            hint: 0,
            commit: 0,
            vote: 0,
            context: 0,
            entries: Vec::new(),
            snapshot: None,
            responses: Vec::new(),
        }
    }

    /// It stays within one node and is never lost.
    pub(super) fn is_local(&self) -> bool {
        self.from == self.to || is_thread(self.from) || is_thread(self.to)
    }

    pub(super) fn hard_state(&self) -> HardState {
        HardState { term: self.term, vote: self.vote, commit: self.commit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger::id::ReplicaId;
    use outrigger::raft::ChangeKind;

    #[test]
    fn sizes_are_those_of_the_encoding() {
        assert_eq!([field(0), field(1), field(127), field(128), field(16_384)], [2, 2, 2, 3, 4]);
        let mut entry = Entry { term: 1, index: 300, payload: Payload::Normal("ab".to_owned()) };
        assert_eq!((entry.payload_bytes(), entry.bytes()), (2, 2 + 2 + 3 + 4));
        entry.payload = Payload::default();
        assert_eq!((entry.payload_bytes(), entry.bytes()), (0, 7));
        let changes = vec![Change { kind: ChangeKind::AddVoter, id: ReplicaId(2) }; 2];
        entry.payload = Payload::Config(Config { changes, ..Config::leave() });
        assert_eq!(entry.payload_bytes(), 2 + 2 * 6);
        entry.payload = Payload::Config(Config::leave());
        assert_eq!(entry.payload_bytes(), 0);
    }

    #[test]
    fn every_kind_has_a_name() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(&kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_name("MsgNonsense"), None);
    }
}
