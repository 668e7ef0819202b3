//! What replicas of one group say to each other, as plain data.
//!
//! A message names entries, it does not hold them: the payload stays in the shard's log cache, and
//! the frame carries it beside the message. An append message never spans a term border, so one
//! `run_term` describes all its entries; entries of several terms leave as a train of messages.

use crate::id::{EntryId, Index, ReplicaId, Term};

/// What a message is. Names and meaning follow etcd-io/raft's `Msg*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MessageKind {
    /// "Would you vote for me in `term`?" — asked without starting that term.
    PreVote = 1,
    /// The answer to `PreVote`.
    PreVoteResponse = 2,
    /// "Vote for me in `term`."
    Vote = 3,
    /// The answer to `Vote`; leaves only after the vote is durable.
    VoteResponse = 4,
    /// Entries after `entry`, possibly none.
    Append = 5,
    /// The answer to `Append`; an acceptance leaves only after the entries are durable.
    AppendResponse = 6,
    /// "I still lead `term`"; carries the commit index and a read context.
    Heartbeat = 7,
    /// The answer to `Heartbeat`; echoes the read context, promises nothing about the disk.
    HeartbeatResponse = 8,
    /// "Your log is gone from mine: take a snapshot that ends at `entry`." With term 0, from a member that does not lead:
    /// what is committed, for one that has lost it (`recall.rs`).
    Snapshot = 9,
    /// "Campaign now": leadership transfer.
    TimeoutNow = 10,
    /// "Up to where must I have applied before I may answer a read?" — from a member to its leader.
    ReadIndex = 11,
    /// The answer to `ReadIndex`, after the leadership was confirmed: `entry.index`.
    ReadIndexResponse = 12,
    /// "You are no member of this group any more." The core ignores it; its driver believes it.
    Removed = 13,
    /// "I have lost part of my log: what is your term, and if you lead, where does yours end?"
    Recall = 14,
    /// The answer to `Recall`.
    RecallResponse = 15,
}

impl MessageKind {
    /// The kind with this code, if there is one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::PreVote,
            2 => Self::PreVoteResponse,
            3 => Self::Vote,
            4 => Self::VoteResponse,
            5 => Self::Append,
            6 => Self::AppendResponse,
            7 => Self::Heartbeat,
            8 => Self::HeartbeatResponse,
            9 => Self::Snapshot,
            10 => Self::TimeoutNow,
            11 => Self::ReadIndex,
            12 => Self::ReadIndexResponse,
            13 => Self::Removed,
            14 => Self::Recall,
            15 => Self::RecallResponse,
            _ => return None,
        })
    }
}

/// One raft message. Fields a kind does not use are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Message {
    /// What it is.
    pub kind: MessageKind,
    /// The sender.
    pub from: ReplicaId,
    /// The receiver.
    pub to: ReplicaId,
    /// The sender's term (for a pre-vote and its grant: the term it would become).
    pub term: Term,
    /// `Append`: the entry before the first one carried. `Vote`, `PreVote`: the candidate's last
    /// entry. `AppendResponse`: `index` is the last entry known to match (accepted) or the probed
    /// index (rejected), and on a rejection `term` is the term at `hint`. `Snapshot`: its last entry.
    /// `ReadIndexResponse`: `index` is the answer. A refused vote or pre-vote: the last entry the voter
    /// knows to be committed, which the candidate may not know. `Removed`: what
    /// the sender knows to be committed. `Recall`: `index` is where the sender's
    /// log ends now; its response: the leader's last entry.
    pub entry: EntryId,
    /// `Append`, `Heartbeat`: what the receiver may commit, as far as this message vouches for it. A response to
    /// `Recall`: one more than the last entry of the sender's log, if that is of the sender's term, or else 1; zero if it
    /// leads in its term or may.
    pub commit: Index,
    /// `Append`: the term of every entry carried. `Vote`, `PreVote`: with `commit`, the last entry the
    /// candidate knows to be committed. `Recall`: with `commit`, one that the sender knows to be.
    pub run_term: Term,
    /// `Append`: how many entries are carried.
    pub count: u32,
    /// Responses: the request was refused; to `Recall`: the sender does not lead. `Recall`: the sender
    /// does not know its own promises.
    pub reject: bool,
    /// A rejected `AppendResponse`: where the log may match. A leader's `RecallResponse`: the id of a
    /// removed replica it speaks for. `Recall`: not zero if nobody has led for long, so that what is committed
    /// is welcome from anybody; then one more than the last entry that the sender's log ever had, if that is
    /// of the sender's term, or else 1.
    pub hint: Index,
    /// `Heartbeat` and its response: the latest read waiting for this leader's confirmation (zero:
    /// none). `Vote`, `PreVote`: 1 when this is a leadership transfer, which overrides leases.
    /// `ReadIndex` and its response: the asker's name for its reads. `Recall` and its response: the
    /// asker's name for its loss.
    pub context: u64,
}

impl Message {
    /// A message with nothing but its kind and addresses.
    #[must_use]
    pub const fn new(kind: MessageKind, from: ReplicaId, to: ReplicaId, term: Term) -> Self {
        Self {
            kind,
            from,
            to,
            term,
            entry: EntryId { term: Term(0), index: Index(0) },
            commit: Index(0),
            run_term: Term(0),
            count: 0,
            reject: false,
            hint: Index(0),
            context: 0,
        }
    }
}
