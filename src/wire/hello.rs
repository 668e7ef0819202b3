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
//!    0         4       6     7     8            16        24         32     34  40        56
//!   ┌─────────┬───────┬─────┬─────┬────────────┬─────────┬──────────┬──────┬───┬─────────┬ ─ ─
//!   │ version │ cores │flags│ ip  │ groups     │ birth   │ origin   │ port │ 0 │ address │
//!   └─────────┴───────┴─────┴─────┴────────────┴─────────┴──────────┴──────┴───┴─────────┴ ─ ─
//!                             0, 4 or 6                                later versions may add more
//!    56    57   58     60  64        80
//!   ┌────┬───┬──────┬───┬─────────┬ ─ ─
//!   │ ip │ 0 │ port │ 0 │ address │          where its clients connect; all zeroes if it does not say
//!   └────┴───┴──────┴───┴─────────┴ ─ ─
//! ```
//!
//! A release that did not know the second address sends 56 bytes, and ignores what follows them.
//!
//! The version comes first and the body may be longer than we know, so a newer node is told apart
//! from a broken one.
//!
//! # Who is who: no amnesia
//!
//! A node whose directory was lost must not come back under its old id: what it voted and
//! acknowledged is gone, and others count on it (safety point 21). So every directory has a number,
//! its *birth*, drawn when it was made. Whoever is greeted by a node writes its id and birth down,
//! durably, before it acts on anything from it; a new directory is *proven*, and takes part, only
//! once enough peers have written it down. Two directories of one id can therefore not both be
//! proven: some peer would have seen both, and refuses the second as a [`Hello::is_stranger`].

use core::net::{IpAddr, SocketAddr};

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
/// Bytes of the body of this version.
pub const BODY_BYTES: usize = 80;

/// A flag: the sender's directory is proven.
const PROVEN: u8 = 1;
/// A flag: the sender knows the receiver's id from another directory.
const STRANGER: u8 = 2;

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
    /// The number of its directory. Another number under the same id is another directory: the
    /// first one was lost.
    pub birth: u64,
    /// A hash of the members it began with; zero if it joined later. Two nodes that began with
    /// different members must not talk: they would count different quorums.
    pub origin: u64,
    /// Its directory has been written down by enough peers: it takes part.
    pub proven: bool,
    /// An answer only: "I know your id from another directory; you must not take part."
    pub is_stranger: bool,
    /// Where it listens for peers, if it says so.
    pub address: Option<SocketAddr>,
    /// Where its clients connect, if it says so.
    pub client: Option<SocketAddr>,
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
    /// What it began with itself; zero if it joined later.
    pub origin: u64,
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
    /// The peer counts other quorums.
    #[error(
        "node {node} was first started with another list of --peers than this node: nothing it or this node was told by the others can be trusted. Wipe the one that is wrong, and add it under a new --id"
    )]
    Origin {
        /// The peer.
        node: NodeId,
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
        let mut body = [0; BODY_BYTES];
        body[0..4].copy_from_slice(&self.version.to_le_bytes());
        body[4..6].copy_from_slice(&self.cores.to_le_bytes());
        body[6] =
            if self.proven { PROVEN } else { 0 } | if self.is_stranger { STRANGER } else { 0 };
        body[8..16].copy_from_slice(&self.groups.to_le_bytes());
        body[16..24].copy_from_slice(&self.birth.to_le_bytes());
        body[24..32].copy_from_slice(&self.origin.to_le_bytes());
        PEER_PLACE.put(self.address, &mut body);
        CLIENT_PLACE.put(self.client, &mut body);
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
        let (route, meta) = (&frame.header.route, frame.meta());
        // Another version may have said less; it is refused by its version, not by its length.
        let mut body = [0; BODY_BYTES];
        let known = meta.len().min(BODY_BYTES);
        body[..known].copy_from_slice(&meta[..known]);
        let body = &body[..];
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
            birth: u64_at(body, 16),
            origin: u64_at(body, 24),
            proven: body[6] & PROVEN != 0,
            is_stranger: body[6] & STRANGER != 0,
            address: PEER_PLACE.get(body),
            client: CLIENT_PLACE.get(body),
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
        if self.origin != 0 && expected.origin != 0 && self.origin != expected.origin {
            return Err(HelloError::Origin { node });
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

/// Where the parts of an address stand in the body.
struct Place {
    kind: usize,
    port: usize,
    ip: usize,
}

/// Where it listens for peers.
const PEER_PLACE: Place = Place { kind: 7, port: 32, ip: 40 };
/// Where its clients connect.
const CLIENT_PLACE: Place = Place { kind: 56, port: 58, ip: 64 };

impl Place {
    fn put(&self, address: Option<SocketAddr>, body: &mut [u8]) {
        let Some(address) = address else { return };
        let mut write = |kind: u8, ip: &[u8]| {
            body[self.kind] = kind;
            body[self.port..][..2].copy_from_slice(&address.port().to_le_bytes());
            body[self.ip..][..ip.len()].copy_from_slice(ip);
        };
        match address.ip() {
            IpAddr::V4(ip) => write(4, &ip.octets()),
            IpAddr::V6(ip) => write(6, &ip.octets()),
        }
    }

    fn get(&self, body: &[u8]) -> Option<SocketAddr> {
        let ip: IpAddr = match body[self.kind] {
            4 => <[u8; 4]>::try_from(&body[self.ip..][..4]).ok()?.into(),
            6 => <[u8; 16]>::try_from(&body[self.ip..][..16]).ok()?.into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16_at(body, self.port)))
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
