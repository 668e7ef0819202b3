//! What is wrong with stored bytes, where, how that is known, and what to do about it.

use std::fmt;

use crate::id::SegmentSeq;

use super::segment::{Identity, Location, file_name};

/// One field that is not what it must be.
///
/// A fault alone is no verdict: the same bad checksum is a torn tail at the end of the log and
/// damage in front of it. [`Damage`] adds the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The field, in words: "batch header checksum".
    pub what: &'static str,
    /// Where the field lies, in bytes from the start of the segment file.
    pub at: u64,
    /// What it should be (or the bound it should keep).
    pub expected: u64,
    /// What it is.
    pub found: u64,
    /// The checksum that covers the field holds, so the field was *written* this way: neither a
    /// torn write nor decay explains it.
    pub authentic: bool,
}

impl Fault {
    /// A field that may be torn or decayed.
    pub(super) const fn new(what: &'static str, at: u64, expected: u64, found: u64) -> Self {
        Self { what, at, expected, found, authentic: false }
    }

    /// A field below a checksum that holds.
    pub(super) const fn authentic(what: &'static str, at: u64, expected: u64, found: u64) -> Self {
        Self { what, at, expected, found, authentic: true }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, at, expected, found, .. } = self;
        write!(f, "{what} at byte {at}: expected {expected:#x}, found {found:#x}")
    }
}

/// How it is known that a fault is no torn tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// A later batch, or the header of a later segment, was written after these bytes were durable
    /// (contract row 55).
    Durable {
        /// The batch or segment header that says so.
        by: Location,
    },
    /// A segment is missing from the sequence, or says it follows another log.
    Sequence {
        /// The segment header that says so.
        by: Location,
    },
    /// Everything in front of this place was given up, and no file is left from there on.
    Reclaimed {
        /// Where the log was noted to begin.
        by: Location,
    },
    /// The checksum holds: the bytes were written like this, by another version or in error.
    Written,
    /// The segment's header says that the file had another length when it was begun; or it has none, and
    /// the file is shorter than any that was ever begun.
    Length,
    /// The segment belongs to someone else (contract row 57).
    Identity {
        /// Whom this log belongs to.
        expected: Identity,
        /// Whom the file belongs to.
        found: Identity,
    },
    /// The bytes had been verified before and were read back for a follower.
    ReadBack,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Durable { by } => write!(
                f,
                "{by} proves that these bytes were durable, so they changed afterwards. Replace the \
                 disk if it reports errors"
            ),
            Self::Sequence { by } => write!(
                f,
                "{by} names another log in front of it. Put back the segment files that were \
                 moved or lost"
            ),
            Self::Reclaimed { by } => write!(
                f,
                "the log was noted to begin with {by}, and no file of it is left. Put back the segment \
                 files that were moved or lost, or start this node with an empty directory and a new --id"
            ),
            Self::Written => write!(
                f,
                "the checksum over it holds, so it was written like this. Start the version of \
                 outrigger that wrote this log; if that is this one, report a bug and keep the \
                 file"
            ),
            Self::Length => write!(
                f,
                "segments get their length before their name, and are never cut or extended. Put back \
                 the whole file"
            ),
            Self::Identity { expected, found } => write!(
                f,
                "the file belongs to {found}, this log to {expected}. Check the data directory, \
                 the node id and the number of cores; nothing was changed"
            ),
            Self::ReadBack => {
                write!(f, "the bytes were whole before. Replace the disk if it reports errors")
            }
        }
    }
}

/// Stored bytes that must not be used, and must not be trimmed either.
///
/// The caller's next move is to stop: a log that lost acknowledged bytes may have lost a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("log segment {file}, offset {offset}: {fault}; {proof}", file = file_name(*segment))]
pub struct Damage {
    /// The segment file.
    pub segment: SegmentSeq,
    /// Where the damaged batch (or the segment header: zero) begins, in bytes.
    pub offset: u64,
    /// The first bad field.
    pub fault: Fault,
    /// Why this is damage, and what to do.
    pub proof: Proof,
}

impl Damage {
    /// The device cannot read what lies at `at`, or the file is not there.
    #[must_use]
    pub const fn unreadable(at: Location) -> Self {
        let Location { segment, offset } = at;
        let fault = Fault::new("a block that the device can read", offset, 1, 0);
        Self { segment, offset, fault, proof: Proof::ReadBack }
    }
}

/// The part of a log that a crash left unfinished, and that recovery leaves out. It was never
/// acknowledged to anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub segment: SegmentSeq,
    /// Where the log now ends, in bytes.
    pub offset: u64,
    /// What is wrong with the bytes after that point.
    pub reason: Fault,
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, reason } = self;
        let file = file_name(*segment);
        write!(f, "log segment {file} ends at offset {offset}; an unfinished write follows: ")?;
        write!(f, "{reason}")
    }
}
