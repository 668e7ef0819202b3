//! A snapshot on its way to a follower, a piece at a time, and how far it has come.
//!
//! ```text
//!   leader ── piece 0, 1, 2 … last ──► follower       Lane::Bulk: nothing waits behind it
//!   leader ◄──────── next wanted ───── follower       Lane::Control: it waits behind nothing
//! ```
//!
//! What a piece says is the business of `group::snapshot`; here it is bytes with a checksum.

use bytes::Bytes;

use crate::entry::checksum;
use crate::id::{EntryId, GroupId, Index, ReplicaId, Term};

use super::generated::{PieceAck, PieceHead};

/// One piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPiece {
    /// The group.
    pub group: GroupId,
    /// The leader that sends it.
    pub from: ReplicaId,
    /// The follower that takes it.
    pub to: ReplicaId,
    /// The term the sender leads; 0 if it does not, and gives back what the receiver has lost.
    pub term: Term,
    /// The sender's name for this transfer. A later transfer of the same sender has a higher name.
    pub transfer: u64,
    /// The last entry the snapshot covers.
    pub snapshot: EntryId,
    /// Which piece, counted from zero.
    pub number: u32,
    /// No piece follows.
    pub last: bool,
    /// What it says; never empty, at most `limits::SNAPSHOT_PIECE_BYTES_MAX`.
    pub bytes: Bytes,
}

/// How far a follower has a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotAck {
    /// The group.
    pub group: GroupId,
    /// The follower.
    pub from: ReplicaId,
    /// The leader that sends.
    pub to: ReplicaId,
    /// The follower's term; 0 to one that does not lead.
    pub term: Term,
    /// Which transfer.
    pub transfer: u64,
    /// Of which snapshot.
    pub snapshot: EntryId,
    /// The piece that is wanted next. All before it are durable.
    pub next: u32,
    /// What the sender should do.
    pub status: PieceStatus,
}

/// What a follower makes of a transfer, named by the sender's next move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PieceStatus {
    /// Go on with the piece that is wanted next.
    Go = 0,
    /// Wait: as many snapshots are being received as may be.
    Busy = 1,
    /// Begin again: nothing is known of this transfer here.
    Unknown = 2,
    /// Stop: this replica has no use for it (its term is higher, or it cannot read the snapshot).
    Refused = 3,
    /// Stop: what the snapshot covers is here, durable, and applied.
    Installed = 4,
}

impl PieceStatus {
    /// The status with this code, if there is one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Go,
            1 => Self::Busy,
            2 => Self::Unknown,
            3 => Self::Refused,
            4 => Self::Installed,
            _ => return None,
        })
    }
}

impl SnapshotPiece {
    pub(super) fn head(&self) -> PieceHead {
        PieceHead::new(
            self.group.0,
            self.from.0,
            self.to.0,
            self.term.0,
            self.transfer,
            self.snapshot.term.0,
            self.snapshot.index.0,
            self.number,
            self.bytes.len() as u32,
            checksum(&self.bytes),
            u8::from(self.last),
        )
    }

    pub(super) fn of(head: &PieceHead, bytes: Bytes) -> Self {
        Self {
            group: GroupId(head.group()),
            from: ReplicaId(head.from()),
            to: ReplicaId(head.to()),
            term: Term(head.term()),
            transfer: head.transfer(),
            snapshot: EntryId {
                term: Term(head.snapshot_term()),
                index: Index(head.snapshot_index()),
            },
            number: head.number(),
            last: head.last() == 1,
            bytes,
        }
    }
}

impl SnapshotAck {
    pub(super) fn head(&self) -> PieceAck {
        PieceAck::new(
            self.group.0,
            self.from.0,
            self.to.0,
            self.term.0,
            self.transfer,
            self.snapshot.term.0,
            self.snapshot.index.0,
            self.next,
            self.status as u8,
        )
    }

    pub(super) fn of(head: &PieceAck) -> Self {
        Self {
            group: GroupId(head.group()),
            from: ReplicaId(head.from()),
            to: ReplicaId(head.to()),
            term: Term(head.term()),
            transfer: head.transfer(),
            snapshot: EntryId {
                term: Term(head.snapshot_term()),
                index: Index(head.snapshot_index()),
            },
            next: head.next(),
            status: PieceStatus::from_code(head.status()).expect("verify() knows the status"),
        }
    }
}
