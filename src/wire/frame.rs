//! The fixed header of every frame, and who may send one to whom.
//!
//! The bytes are drawn in [`super`].

use crate::entry::checksum;
use crate::id::{ClusterId, Incarnation, NodeId, ShardId};
use crate::limits::FRAME_BYTES_MAX;

use super::error::FrameError;

/// Layout of the header. What is said inside has its own version: [`super::hello::VERSION`].
pub const VERSION: u16 = 1;
/// Bytes of the header: one cache line.
pub const HEADER_BYTES: usize = 64;
/// First four bytes of every frame: `OTRW` on the wire.
pub const MAGIC: u32 = u32::from_le_bytes(*b"OTRW");

/// Which of a peer's connections a frame travels on. A slow lane never delays a faster one
/// (contract row 45).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// Votes, heartbeats, acknowledgements: small, and late is as bad as lost.
    Control = 0,
    /// Appends, forwarded commands and their answers.
    Append = 1,
    /// Followers that are behind, and snapshots.
    Bulk = 2,
}

impl Lane {
    /// Every lane, by code.
    pub const ALL: [Self; 3] = [Self::Control, Self::Append, Self::Bulk];

    /// The lane with this code, if there is one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Control),
            1 => Some(Self::Append),
            2 => Some(Self::Bulk),
            _ => None,
        }
    }
}

/// What a frame's meta is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Content {
    /// Raft messages, forwards and answers: a FlatBuffer.
    Peer = 0,
    /// A handshake; the first frame of each direction and never a later one.
    Hello = 1,
}

impl Content {
    /// The content with this code, if there is one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Peer),
            1 => Some(Self::Hello),
            _ => None,
        }
    }
}

/// Where a frame comes from and goes to. One per peer and shard; outlives its links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// The cluster of both.
    pub cluster: ClusterId,
    /// The sending node.
    pub from: NodeId,
    /// The receiving node.
    pub to: NodeId,
    /// The sender's present start.
    pub incarnation: Incarnation,
    /// The sender's core.
    pub shard: ShardId,
}

/// What every frame of one established link must say about its addresses. Made by
/// [`super::Hello::expect`] from the hello that opened the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Expect {
    /// This cluster.
    pub cluster: ClusterId,
    /// The node that said hello.
    pub from: NodeId,
    /// This node.
    pub to: NodeId,
    /// The start of the sender that said hello.
    pub incarnation: Incarnation,
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameHeader {
    /// Sender and receiver.
    pub route: Route,
    /// The lane it was sent on.
    pub lane: Lane,
    /// What the meta is.
    pub content: Content,
    /// Bytes of the meta, which follows the header.
    pub meta_bytes: u32,
    /// Bytes of the payload, which follows the meta.
    pub payload_bytes: u32,
    /// CRC-32 of the meta.
    pub meta_crc: u32,
}

impl FrameHeader {
    /// The header of a frame with this meta and so many payload bytes.
    ///
    /// # Panics
    /// If the frame would exceed [`FRAME_BYTES_MAX`]: whoever composes it stops far earlier.
    #[must_use]
    pub fn new(
        route: &Route,
        lane: Lane,
        content: Content,
        meta: &[u8],
        payload_bytes: usize,
    ) -> Self {
        let bytes = HEADER_BYTES + meta.len() + payload_bytes;
        assert!(bytes <= FRAME_BYTES_MAX, "a frame of {bytes} bytes: cut it earlier");
        Self {
            route: *route,
            lane,
            content,
            meta_bytes: meta.len() as u32,
            payload_bytes: payload_bytes as u32,
            meta_crc: checksum(meta),
        }
    }

    /// Bytes of the whole frame, this header included.
    #[must_use]
    pub const fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.meta_bytes as usize + self.payload_bytes as usize
    }

    /// The header as sent.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = self.lane as u8;
        out[11] = self.content as u8;
        out[12..14].copy_from_slice(&self.route.shard.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.route.cluster.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.route.from.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.route.to.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.route.incarnation.0.to_le_bytes());
        out[48..52].copy_from_slice(&self.meta_bytes.to_le_bytes());
        out[52..56].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[56..60].copy_from_slice(&self.meta_crc.to_le_bytes());
        let crc = checksum(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header and checks all that can be checked without the rest of the frame, its
    /// announced size above all.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(FrameError::Magic { found: magic });
        }
        // Before the checksum: another version may well compute it over other bytes.
        let version = u16_at(bytes, 8);
        if version != VERSION {
            return Err(FrameError::Version { found: version, known: VERSION });
        }
        let (found, expected) = (u32_at(bytes, 4), checksum(&bytes[8..]));
        if found != expected {
            return Err(FrameError::HeadDamaged { expected, found });
        }

        let unknown = |field, found| FrameError::Unknown { field, found };
        let lane = Lane::from_code(bytes[10]).ok_or(unknown("lane", bytes[10].into()))?;
        let content = Content::from_code(bytes[11]).ok_or(unknown("content", bytes[11].into()))?;
        for (field, found) in
            [("bytes 14..16", u16_at(bytes, 14).into()), ("bytes 60..64", u32_at(bytes, 60))]
        {
            if found != 0 {
                return Err(unknown(field, found));
            }
        }

        let (meta_bytes, payload_bytes) = (u32_at(bytes, 48), u32_at(bytes, 52));
        let whole = HEADER_BYTES as u64 + u64::from(meta_bytes) + u64::from(payload_bytes);
        if (FRAME_BYTES_MAX as u64) < whole {
            return Err(FrameError::TooLarge { bytes: whole, max: FRAME_BYTES_MAX as u64 });
        }
        Ok(Self {
            route: Route {
                cluster: ClusterId(u64_at(bytes, 16)),
                from: NodeId(u64_at(bytes, 24)),
                to: NodeId(u64_at(bytes, 32)),
                incarnation: Incarnation(u64_at(bytes, 40)),
                shard: ShardId(u16_at(bytes, 12)),
            },
            lane,
            content,
            meta_bytes,
            payload_bytes,
            meta_crc: u32_at(bytes, 56),
        })
    }

    /// Whether this frame belongs on a link between these nodes, which have said hello
    /// (contract row 49).
    ///
    /// # Errors
    /// Names the first address that differs; [`FrameError::HelloAgain`] for another hello.
    pub fn check(&self, expected: &Expect) -> Result<(), FrameError> {
        let route = &self.route;
        if route.cluster != expected.cluster {
            return Err(FrameError::Cluster { expected: expected.cluster, found: route.cluster });
        }
        if route.to != expected.to {
            return Err(FrameError::Receiver { expected: expected.to, found: route.to });
        }
        if route.from != expected.from {
            return Err(FrameError::Sender { expected: expected.from, found: route.from });
        }
        if route.incarnation != expected.incarnation {
            return Err(FrameError::Incarnation {
                expected: expected.incarnation,
                found: route.incarnation,
            });
        }
        match self.content {
            Content::Peer => Ok(()),
            Content::Hello => Err(FrameError::HelloAgain),
        }
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
