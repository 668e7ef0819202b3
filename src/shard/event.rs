//! What a shard hears, and what it asks for.
//!
//! ```text
//!          frames, requests, posts, flushes, ticks                 one per turn
//! driver ───────────────────────────────────────► Shard::on_event … Shard::turn ──► Effects
//! ```
//!
//! A driver hands over every event it has, then calls `turn` once; everything the events caused
//! leaves together: one disk write, one frame per peer and lane, all replies.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::Entry;
use crate::id::{
    ConnId, FlushTicket, GroupId, Index, NodeId, ReplicaId, SegmentSeq, ShardId, Tick, UnixMs,
};
use crate::limits::LOG_READ_BYTES_MAX;
use crate::raft::effects::RoleEvent;
use crate::raft::message::Message;
use crate::store::acl::Users;
use crate::store::backup;
use crate::store::connection::Manner;
use crate::wal::{self, Damage, Identity, Location, Write};
use crate::wire::peer::{Frame, OutFrame};
use crate::wire::reply::Reply;
use crate::wire::resp::Command;
use crate::wire::{SnapshotAck, SnapshotPiece};

use super::report::ShardReport;
use super::stages::Arrival;

pub use crate::group::{GroupCommand, Origin, PartId};

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A frame from a peer; its checksum and addresses have been checked.
    Frame(Frame),
    /// A client's command; it has passed `store::command::validate`.
    Request(Request),
    /// A command of whoever embeds the node.
    Call(Call),
    /// Something from another core of this node.
    Post(Post),
    /// A post of this core that did not fit the mailbox of the core it was meant for. Answers and
    /// reports always fit: whoever asked for them holds a place.
    Undelivered(Post),
    /// The write with this ticket is durable. Completions may arrive in any order; they are acted
    /// on in ticket order.
    Flushed(FlushTicket),
    /// This segment is prepared, durable and under its final name: see [`crate::wal::Appender::on_spare`].
    SpareReady(SegmentSeq),
    /// Whether the disk has no room for another segment.
    LogFull(bool),
    /// The answer to a `LogRead`.
    LogRead(LogReadDone),
    /// Frames for a node were dropped, because its link is down or a lane is full: raft messages may
    /// be lost.
    Unreachable(NodeId),
    /// The link to a node broke: whatever was sent and not yet answered may be lost or not.
    LinkBroken(NodeId),
    /// Forwarded commands, by id, whose frames were dropped before any of them left: they are
    /// certainly not executed.
    Unsent(Vec<u64>),
    /// What the clock on the machine's wall says now. It may jump, and no two machines' agree; keys expire by
    /// their leader's. Say it at the start and now and then; without, the wall shows ticks.
    Wall(UnixMs),
    /// Where clients reach the nodes that have said so, this one included.
    ClientAddresses(BTreeMap<NodeId, SocketAddr>),
}

/// One client's command on its way in.
#[derive(Debug)]
pub struct Request {
    /// The connection it came from.
    pub conn: ConnId,
    /// Its number on that connection; the reply carries it back.
    pub seq: u64,
    /// The command; neither a connection command nor an invalid one.
    pub command: Command,
    /// The connection has writes in flight that this command must be ordered after.
    pub after_writes: bool,
    /// How the connection wants its commands treated.
    pub manner: Manner,
}

/// A command for one group that comes from the process itself, over no connection. It is answered once,
/// like a request, with a [`ReplyTo`] whose connection is [`ConnId::EMBEDDER`].
#[derive(Debug)]
pub struct Call {
    /// Its number; the reply carries it back.
    pub seq: u64,
    /// What to run: a read or a write of the group's machine, whose payload is the caller's own.
    pub command: GroupCommand,
}

/// A message between two cores of one node.
#[derive(Debug)]
pub enum Post {
    /// Run a command on a group that lives on the receiving core.
    Command {
        /// The core that waits for the answer.
        from: ShardId,
        /// What it waits for.
        part: PartId,
        /// When it reached that core.
        arrival: Arrival,
        /// What to run.
        command: GroupCommand,
    },
    /// The result of a `Command`.
    Answer {
        /// What it answers.
        part: PartId,
        /// The result.
        reply: Reply,
    },
    /// Tell what you know, for `INFO`, `DEBUG DIGEST` and `SLOWLOG`.
    Ask {
        /// The core that waits for the report.
        from: ShardId,
        /// What it waits for.
        part: PartId,
        /// What else than the report.
        about: About,
    },
    /// Hand over what you lead.
    Drain {
        /// The core that waits for the answer.
        from: ShardId,
        /// What it waits for.
        part: PartId,
        /// When it is over, whatever has moved.
        until: Tick,
    },
    /// Something about a backup of a group of yours.
    Backup {
        /// The core that waits for the answer.
        from: ShardId,
        /// What it waits for.
        part: PartId,
        /// What is wanted.
        call: backup::Call,
    },
    /// The answer to `Ask`.
    Report {
        /// What it answers.
        part: PartId,
        /// The report.
        report: Box<ShardReport>,
    },
    /// A raft message that arrived on a core that does not own its group (the peer has another
    /// number of cores).
    Raft {
        /// Its group.
        group: GroupId,
        /// The message.
        message: Message,
        /// The entries it names.
        entries: Vec<Entry>,
    },
    /// A piece of a snapshot that arrived on a core that does not own its group.
    SnapshotPiece(SnapshotPiece),
    /// An acknowledgement of one, likewise.
    SnapshotAck(SnapshotAck),
    /// A forwarded command that arrived on a core that does not own its group.
    Forwarded {
        /// The node that waits for the answer.
        from: NodeId,
        /// Its name for it.
        id: u64,
        /// When it reached this node.
        arrival: Arrival,
        /// What to run.
        command: GroupCommand,
    },
    /// An answer that arrived on a core that did not ask.
    Answered {
        /// What it answers.
        id: u64,
        /// The result, encoded.
        body: Bytes,
    },
}

impl Post {
    /// Whether a full mailbox may refuse it. The shard that sent it hears so, with
    /// [`Event::Undelivered`]. What somebody asked for is always taken: whoever asked holds a place
    /// for the answer.
    #[must_use]
    pub const fn may_be_refused(&self) -> bool {
        match self {
            Self::Command { .. }
            | Self::Ask { .. }
            | Self::Drain { .. }
            | Self::Backup { .. }
            | Self::Raft { .. }
            | Self::SnapshotPiece(_)
            | Self::SnapshotAck(_)
            | Self::Forwarded { .. } => true,
            Self::Answer { .. } | Self::Report { .. } | Self::Answered { .. } => false,
        }
    }
}

/// What a core is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Its report.
    Itself,
    /// That, and the digest, which reads all data.
    Digest,
    /// That, and its slow operations.
    Slow,
    /// It is to forget its slow operations.
    Forgetting,
}

/// Entries wanted back from the log, for a follower that is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRead {
    /// Whose log it is: a file of another, put in its place while the node runs, is refused.
    pub whose: Identity,
    /// The group.
    pub group: GroupId,
    /// The follower that waits; [`ReplicaId::NONE`] if the driver asked ([`super::Shard::read_log`]).
    pub replica: ReplicaId,
    /// The first entry wanted.
    pub first: Index,
    /// The last entry wanted; fewer may come back.
    pub last: Index,
    /// Where the first lies. Its segment is sealed.
    pub at: Location,
}

impl LogRead {
    /// What it asks for, out of the segment (the whole file) that `at` names: at least one entry, and no more
    /// than [`LOG_READ_BYTES_MAX`] bytes of payload if it is several.
    ///
    /// # Errors
    /// As for [`wal::read_span`].
    pub fn entries(&self, segment: &[u8]) -> Result<Vec<Entry>, Damage> {
        let Self { whose, group, first, last, at, .. } = *self;
        wal::read_span(whose, segment, at, group, first, last, LOG_READ_BYTES_MAX)
    }
}

/// What came back.
#[derive(Debug)]
pub struct LogReadDone {
    /// What was asked.
    pub read: LogRead,
    /// Entries from `first` on, or what is wrong with the segment.
    pub result: Result<Vec<Entry>, Damage>,
}

/// A reply for a client of this core.
#[derive(Debug)]
pub struct ReplyTo {
    /// The connection; [`ConnId::EMBEDDER`] for a [`Call`].
    pub conn: ConnId,
    /// The command's number on it.
    pub seq: u64,
    /// What to say.
    pub reply: Reply,
}

/// Work for the driver. Buffers belong to the caller and are drained, never dropped.
#[derive(Debug, Default)]
pub struct Effects {
    /// Frames to send now, in order per node and lane.
    pub frames: Vec<(NodeId, OutFrame)>,
    /// Disk writes to start now, each to be reported with `Event::Flushed`.
    pub writes: Vec<Write>,
    /// Replies to clients of this core.
    pub replies: Vec<ReplyTo>,
    /// Messages to sibling cores.
    pub posts: Vec<(ShardId, Post)>,
    /// Segments to read from, off the core.
    pub log_reads: Vec<LogRead>,
    /// The next segment to prepare, if one is wanted and not being prepared.
    pub spare: Option<SegmentSeq>,
    /// The log begins with this segment now: note that durably, then delete those in front of it. A
    /// crash in between is for the next recovery to finish. Nothing is reported.
    pub reclaim: Option<SegmentSeq>,
    /// Changes of role, for logs and metrics.
    pub roles: Vec<(GroupId, RoleEvent)>,
    /// Nodes whose heartbeats left late, and by how many ms more than they may.
    pub late_beats: Vec<(NodeId, u64)>,
    /// Groups that stopped because going on would be unsafe, and why.
    pub failed: Vec<(GroupId, String)>,
    /// The state machine of a group wants the node to end at once, and why. Nothing of this turn is to be performed.
    pub fatal: Option<String>,
    /// Stored bytes found damaged while the node runs. Nothing stops; an operator may want to know.
    pub damaged: Vec<Damage>,
    /// This core's disk has been slower than its peers' for so long that what it leads is handed over.
    pub slow_disk: bool,
    /// What the groups of this core newly say about where nodes listen.
    pub peers: Vec<PeerChange>,
    /// The users have changed: nobody may hear what else is in here before the node goes by these.
    pub users: Option<Arc<Users>>,
    /// The node was drained and is to end cleanly.
    pub stop: bool,
}

/// What the groups of one core say about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerChange {
    /// It is a member, and listens at one of these addresses: more than one while a change of
    /// address is on its way through the groups. None is known of a member without address.
    Is {
        /// The node.
        node: NodeId,
        /// Its addresses, the one most groups name first.
        addresses: Vec<SocketAddr>,
    },
    /// It is a member of none of them any more.
    Gone(NodeId),
}

impl Effects {
    /// Forget everything, keep the memory.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.writes.clear();
        self.replies.clear();
        self.posts.clear();
        self.log_reads.clear();
        self.spare = None;
        self.reclaim = None;
        self.roles.clear();
        self.late_beats.clear();
        self.failed.clear();
        self.fatal = None;
        self.damaged.clear();
        self.slow_disk = false;
        self.peers.clear();
        self.users = None;
        self.stop = false;
    }
}
