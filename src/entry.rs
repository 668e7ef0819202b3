//! One log entry's content: encoded once by the leader, never re-encoded.
//!
//! ```text
//!  client socket ──► payload ──► WAL record body ──► frame body ──► follower's WAL ──► apply
//!                    (Bytes)         the same bytes, the same checksum, all the way
//! ```
//!
//! The checksum is taken where the entry is born and travels with it, so a byte flipped in memory,
//! on the wire or on disk is found by whoever looks next.

use std::sync::LazyLock;

use bytes::Bytes;
use crc32fast::Hasher;

/// What an entry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The empty entry a leader opens its term with. Never reaches the state machine
    /// (contract row 8).
    Empty = 0,
    /// A command for the state machine.
    Command = 1,
    /// A change of the group's membership.
    Config = 2,
    /// A command of a client's session, or the opening or closing of one: [`SESSION_HEADER_BYTES`]
    /// that say which, then the command for the state machine (`group/sessions.rs` draws it).
    Session = 3,
}

/// Bytes in front of the command in an entry of the kind [`EntryKind::Session`].
pub const SESSION_HEADER_BYTES: usize = 16;

impl EntryKind {
    /// The kind with this code, if there is one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Empty),
            1 => Some(Self::Command),
            2 => Some(Self::Config),
            3 => Some(Self::Session),
            _ => None,
        }
    }
}

/// CRC-32 (IEEE) of `bytes`: the checksum of entries, frames and records.
#[must_use]
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = checksum_of_parts();
    hasher.update(bytes);
    hasher.finalize()
}

/// The same, of bytes that come part by part. A new hasher would ask the processor's features, which costs as
/// much as thirty bytes; a copy of one that has asked does not.
#[must_use]
pub(crate) fn checksum_of_parts() -> Hasher {
    static FRESH: LazyLock<Hasher> = LazyLock::new(Hasher::new);
    FRESH.clone()
}

/// One entry's content. Its term and index are the log's business, not its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is for.
    pub kind: EntryKind,
    /// CRC-32 (IEEE) of `payload`.
    pub crc: u32,
    /// The bytes the state machine will read; a counted slice of the buffer they arrived in.
    pub payload: Bytes,
}

impl Entry {
    /// A new command, checksummed here and nowhere else.
    #[must_use]
    pub fn command(payload: Bytes) -> Self {
        Self { kind: EntryKind::Command, crc: checksum(&payload), payload }
    }

    /// A request of a session: header and command in one, checksummed here.
    #[must_use]
    pub fn session(payload: Bytes) -> Self {
        Self { kind: EntryKind::Session, ..Self::command(payload) }
    }

    /// A change of members, checksummed here and nowhere else.
    #[must_use]
    pub fn config(payload: Bytes) -> Self {
        Self { kind: EntryKind::Config, crc: checksum(&payload), payload }
    }

    /// The empty entry of a new term.
    #[must_use]
    pub const fn empty() -> Self {
        Self { kind: EntryKind::Empty, crc: 0, payload: Bytes::new() }
    }

    /// Whether the payload still is what the leader encoded.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        checksum(&self.payload) == self.crc
    }

    /// Bytes this entry counts for in flow control.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.payload.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_seen() {
        let mut entry = Entry::command(Bytes::from_static(b"SET k v"));
        assert!(entry.is_intact());
        entry.payload = Bytes::from_static(b"SET k w");
        assert!(!entry.is_intact());
        assert!(Entry::empty().is_intact());
    }
}
