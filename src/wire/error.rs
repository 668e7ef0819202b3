//! What can be wrong with a frame.

use thiserror::Error;

use crate::id::{ClusterId, GroupId, Incarnation, NodeId};

/// Why a frame was refused. The receiver counts it, closes the link and lets the peer connect
/// anew; raft sends again whatever was lost.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The bytes are not a frame at all.
    #[error("not a frame: it begins with {found:#010x}; is another program on this port?")]
    Magic {
        /// The first four bytes.
        found: u32,
    },
    /// A header of a layout this node does not know.
    #[error(
        "frame header of version {found}, this node knows {known}: run the same release on both nodes"
    )]
    Version {
        /// The version in the header.
        found: u16,
        /// The version of this node.
        known: u16,
    },
    /// The header's bytes changed on the way.
    #[error("frame header damaged: checksum {found:#010x}, its bytes give {expected:#010x}")]
    HeadDamaged {
        /// What the bytes give.
        expected: u32,
        /// What the header says.
        found: u32,
    },
    /// A header field has a value this version gives no meaning to.
    #[error("frame header: {field} is {found}, which means nothing in this version")]
    Unknown {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u32,
    },
    /// The frame says it is larger than any frame may be. Nothing was reserved for it.
    #[error("frame of {bytes} bytes: the largest allowed is {max}")]
    TooLarge {
        /// Header, meta and payload as announced.
        bytes: u64,
        /// The largest allowed.
        max: u64,
    },
    /// The frame belongs to another cluster.
    #[error("frame of cluster {found}, this link belongs to cluster {expected}")]
    Cluster {
        /// The cluster of the link.
        expected: ClusterId,
        /// The cluster in the header.
        found: ClusterId,
    },
    /// The frame comes from a node other than the one that opened the link.
    #[error("frame from node {found} on the link of node {expected}")]
    Sender {
        /// Who said hello.
        expected: NodeId,
        /// Who the header names.
        found: NodeId,
    },
    /// The frame is meant for another node.
    #[error(
        "frame for node {found} delivered to node {expected}: something between the nodes mixes up addresses"
    )]
    Receiver {
        /// This node.
        expected: NodeId,
        /// Who the header names.
        found: NodeId,
    },
    /// The frame comes from another life of the sender than the one that said hello.
    #[error("frame from start {found} of the sender, its hello was start {expected}")]
    Incarnation {
        /// The start that said hello.
        expected: Incarnation,
        /// The start in the header.
        found: Incarnation,
    },
    /// A second hello: the link's addresses are settled by the first.
    #[error("another hello on an established link")]
    HelloAgain,
    /// The meta's bytes changed on the way.
    #[error("frame meta damaged: checksum {found:#010x}, its bytes give {expected:#010x}")]
    MetaDamaged {
        /// What the bytes give.
        expected: u32,
        /// What the header says.
        found: u32,
    },
    /// The meta is no FlatBuffer of our schema, although its checksum is right.
    #[error("frame meta malformed: {reason}")]
    Meta {
        /// What FlatBuffers' verifier says.
        reason: String,
    },
    /// A hello with too few bytes, or with a payload.
    #[error("malformed hello: {meta_bytes} bytes and a payload of {payload_bytes}")]
    Hello {
        /// Bytes of its body.
        meta_bytes: u32,
        /// Bytes of its payload; a hello has none.
        payload_bytes: u32,
    },
    /// A message, forward, answer or piece that breaks a rule of its own.
    #[error("group {group}: {what} is {found}")]
    Part {
        /// The group it names.
        group: GroupId,
        /// The field, and the rule.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// The messages name another number of entries than the frame describes.
    #[error("messages name {named} entries, the frame describes {described}")]
    EntryCount {
        /// Sum of the messages' counts.
        named: u64,
        /// Length of the entry vector.
        described: u64,
    },
    /// The described lengths do not add up to the payload.
    #[error(
        "entries, forwards, answers and pieces describe {described} payload bytes, the frame has {present}"
    )]
    PayloadBytes {
        /// Sum of the described lengths.
        described: u64,
        /// The payload's length.
        present: u64,
    },
    /// A payload does not match the checksum taken where it was made: its bytes changed on the way
    /// or in the sender's memory.
    #[error(
        "{part} number {number} of the frame damaged (group or id {of}): checksum {found:#010x}, its bytes give {expected:#010x}; if it repeats, suspect that node's memory"
    )]
    PayloadDamaged {
        /// "entry", "forward", "answer" or "piece".
        part: &'static str,
        /// Which one, counted from zero.
        number: usize,
        /// The group of an entry or a piece, the id of a forward or an answer.
        of: u64,
        /// What the bytes give.
        expected: u32,
        /// What the meta says.
        found: u32,
    },
}
