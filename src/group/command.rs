//! A command on its way to one group, and the way back to whoever asked.

use bytes::Bytes;

use crate::id::{GroupId, NodeId, ShardId};
use crate::store::command::Access;
use crate::store::connection::Manner;

use super::sessions::SessionRequest;

/// Names a part of a client request on the core that holds the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartId {
    /// The request's slot and generation.
    pub request: u64,
    /// Which part of it, for a command over several groups.
    pub part: u32,
}

/// Who is owed the result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A request of this core.
    Here(PartId),
    /// A request of another core of this node.
    Core(ShardId, PartId),
    /// A command forwarded by another node.
    Node(NodeId, u64),
}

/// One group's share of a command.
#[derive(Debug, Clone)]
pub struct GroupCommand {
    /// The group that holds the keys.
    pub group: GroupId,
    /// `Read` or `Write`.
    pub access: Access,
    /// It must see every write this node proposed to the group before it.
    pub after_writes: bool,
    /// How the connection wants it treated. Not told to another node.
    pub manner: Manner,
    /// The session it belongs to, for a write that must be executed once however often it is sent.
    pub session: Option<SessionRequest>,
    /// The command's bytes: what is replicated, and what the state machine reads. Empty for the
    /// opening and the closing of a session.
    pub body: Bytes,
}
