//! The handshake: the first frame of each direction, before any raft message.
//!
//! ```text
//!  dialer ── hello ──► listener     the listener checks it, then answers with its own
//!  dialer ◄── hello ── listener     the dialer checks it; frames follow in either direction
//! ```
//!
//! Addresses, lane and core stand in the frame header; the rest is the body, in place of the meta:
//!
//! ```text
//!    0         4       6       8              16
//!   ┌─────────┬───────┬───────┬───────────────┬ ─ ─ ─
//!   │ version │ cores │   0   │ groups        │ later versions may add more
//!   └─────────┴───────┴───────┴───────────────┴ ─ ─ ─
//! ```
//!
//! The version comes first and the body may be longer than we know, so a newer node is told apart
//! from a broken one.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::id::{ClusterId, Incarnation, NodeId, ShardId};
use crate::limits::CORES_MAX;

use super::error::FrameError;
use super::frame::{
    Content, Expect, FrameHeader, HEADER_BYTES, Lane, Route, u16_at, u32_at, u64_at,
};
use super::peer::Frame;

/// What may be said inside frames. Raised when a schema, a kind or its meaning changes.
pub const VERSION: u32 = 2;
/// Bytes of the body that every version has.
pub const BODY_BYTES_MIN: usize = 16;

/// Who a node says it is, and which rules it plays by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub node: NodeId,
    /// Whom it believes to be talking to.
    pub to: NodeId,
    /// How often its directory has been started; a higher number supersedes a lower.
    pub incarnation: Incarnation,
    /// The core that holds its end of the link.
    pub shard: ShardId,
    /// The lane the dialer opens; the listener repeats it.
    pub lane: Lane,
    /// How many cores it runs; may differ between nodes. `1..=CORES_MAX`.
    pub cores: u16,
    /// Raft groups of the whole cluster. All nodes must agree: the group of a key depends on it.
    pub groups: u64,
    /// Its [`VERSION`].
    pub version: u32,
}

/// What a node demands of a hello it receives.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Its own cluster.
    pub cluster: ClusterId,
    /// Itself.
    pub this: NodeId,
    /// Who may be on the other end: for the dialer the one it dialed, for the listener all members.
    pub nodes: &'a [NodeId],
    /// The latest start of that node seen so far; zero if none. Anything older is a ghost.
    pub incarnation: Incarnation,
    /// Its own number of groups.
    pub groups: u64,
}

/// What differs, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HelloError {
    /// The first frame is no hello.
    #[error("the first frame of the link is not a hello: the peer does not follow the protocol")]
    Missing,
    /// The peers run releases that do not understand each other.
    #[error(
        "node {node} speaks wire version {theirs}, this node {ours}: run the same release on both"
    )]
    Version {
        /// The peer.
        node: NodeId,
        /// Its version.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The peer belongs to another cluster.
    #[error(
        "node {node} belongs to cluster {theirs}, this node to {ours}: check the addresses of the peers and --cluster on both"
    )]
    Cluster {
        /// The peer.
        node: NodeId,
        /// Its cluster.
        theirs: ClusterId,
        /// Ours.
        ours: ClusterId,
    },
    /// The peer believes it reached another node.
    #[error(
        "node {node} wants to talk to node {wanted}, this is node {this}: its address of node {wanted} is wrong"
    )]
    Receiver {
        /// The peer.
        node: NodeId,
        /// Whom it wanted.
        wanted: NodeId,
        /// Whom it got.
        this: NodeId,
    },
    /// The peer is not who was dialed, or not a member.
    #[error(
        "node {node} is not expected here (expected: {expected}): check the list of peers on both nodes, and that no two nodes share an --id"
    )]
    Node {
        /// The peer.
        node: NodeId,
        /// Who would have been welcome.
        expected: String,
    },
    /// A later start of the same node is already known.
    #[error(
        "node {node} says it is in its start {theirs}, but start {seen} has been seen: an old process or a restored copy of its directory is still running; stop it"
    )]
    Stale {
        /// The peer.
        node: NodeId,
        /// The start it claims.
        theirs: Incarnation,
        /// The latest start seen.
        seen: Incarnation,
    },
    /// The peers divide the keys differently.
    #[error(
        "node {node} divides the keys into {theirs} groups, this node into {ours}: --groups must be the same everywhere and cannot change later"
    )]
    Groups {
        /// The peer.
        node: NodeId,
        /// Its number of groups.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// The peer names an impossible number of cores.
    #[error("node {node} claims {cores} cores, 1 to {CORES_MAX} are possible")]
    Cores {
        /// The peer.
        node: NodeId,
        /// Its claim.
        cores: u16,
    },
}

impl Hello {
    /// The hello as sent: one whole frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = [0; BODY_BYTES_MIN];
        body[0..4].copy_from_slice(&self.version.to_le_bytes());
        body[4..6].copy_from_slice(&self.cores.to_le_bytes());
        body[8..16].copy_from_slice(&self.groups.to_le_bytes());
        let route = Route {
            cluster: self.cluster,
            from: self.node,
            to: self.to,
            incarnation: self.incarnation,
            shard: self.shard,
        };
        let header = FrameHeader::new(&route, self.lane, Content::Hello, &body, 0);
        let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
        out.put_slice(&header.encode());
        out.put_slice(&body);
        out.freeze()
    }

    /// Reads the first frame of a link.
    ///
    /// # Errors
    /// [`HelloError::Missing`] if it is no hello.
    pub fn decode(frame: &Frame) -> Result<Self, HelloError> {
        if frame.header.content != Content::Hello {
            return Err(HelloError::Missing);
        }
        let (route, body) = (&frame.header.route, frame.meta());
        Ok(Self {
            cluster: route.cluster,
            node: route.from,
            to: route.to,
            incarnation: route.incarnation,
            shard: route.shard,
            lane: frame.header.lane,
            cores: u16_at(body, 4),
            groups: u64_at(body, 8),
            version: u32_at(body, 0),
        })
    }

    /// Whether this peer may be talked to.
    ///
    /// # Errors
    /// The first thing that differs. The version is judged first: another version may mean the
    /// rest differently.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), HelloError> {
        let node = self.node;
        if self.version != VERSION {
            return Err(HelloError::Version { node, theirs: self.version, ours: VERSION });
        }
        if self.cluster != expected.cluster {
            let (theirs, ours) = (self.cluster, expected.cluster);
            return Err(HelloError::Cluster { node, theirs, ours });
        }
        if self.to != expected.this {
            return Err(HelloError::Receiver { node, wanted: self.to, this: expected.this });
        }
        if !expected.nodes.contains(&node) {
            let names: Vec<String> = expected.nodes.iter().map(NodeId::to_string).collect();
            return Err(HelloError::Node { node, expected: names.join(", ") });
        }
        if self.incarnation < expected.incarnation {
            let (theirs, seen) = (self.incarnation, expected.incarnation);
            return Err(HelloError::Stale { node, theirs, seen });
        }
        if self.groups != expected.groups {
            return Err(HelloError::Groups { node, theirs: self.groups, ours: expected.groups });
        }
        if !(1..=CORES_MAX).contains(&self.cores) {
            return Err(HelloError::Cores { node, cores: self.cores });
        }
        Ok(())
    }

    /// What every later frame of the link must say, now that this hello was accepted.
    #[must_use]
    pub const fn expect(&self) -> Expect {
        Expect {
            cluster: self.cluster,
            from: self.node,
            to: self.to,
            incarnation: self.incarnation,
        }
    }
}

/// Whether a hello frame is long enough to be read at all.
pub(super) fn check_frame(header: &FrameHeader) -> Result<(), FrameError> {
    let (meta_bytes, payload_bytes) = (header.meta_bytes, header.payload_bytes);
    if (meta_bytes as usize) < BODY_BYTES_MIN || payload_bytes != 0 {
        return Err(FrameError::Hello { meta_bytes, payload_bytes });
    }
    Ok(())
}
