//! The names of things: who, where, and when, each its own type.
//!
//! Numbers that mean different things do not mix: a [`Term`] cannot be compared with an [`Index`],
//! and a [`NodeId`] cannot be passed where a [`GroupId`] is wanted. All are plain `Copy` integers
//! in memory and little-endian integers on disk and wire.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty), hexadecimal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number!(
    /// One process of the cluster. Chosen by the operator (`--id`), never zero.
    NodeId(u64), ""
);
number!(
    /// One replica of one group. Zero means "nobody". A replica that lost its disk comes back under
    /// a new id, so a vote it may have given is never asked of it again.
    ReplicaId(u64), ""
);
number!(
    /// One core of one node: its executor, its log, its groups. Counts from zero.
    ShardId(u16), ""
);
number!(
    /// One raft group. Counts from zero; owns a contiguous range of hash slots.
    GroupId(u64), ""
);
number!(
    /// A raft term: at most one leader each. Zero precedes the first election.
    Term(u64), ""
);
number!(
    /// A position in a group's log. The first entry has index 1; zero precedes it.
    Index(u64), ""
);
number!(
    /// Milliseconds of the driver's monotonic clock (virtual in `sim/`).
    Tick(u64), ""
);
number!(
    /// Microseconds of the driver's monotonic clock, for what is measured and nothing that is decided. Zero
    /// is no time: the driver does not measure.
    Micros(u64), ""
);
number!(
    /// The cluster a frame or a log segment belongs to. A hash: shown as 16 hexadecimal digits everywhere.
    ClusterId(u64), hexadecimal
);
number!(
    /// Counts the starts of one node's directory; a higher one supersedes a lower.
    Incarnation(u64), ""
);
number!(
    /// A log segment of one shard. Counts from one, never reused.
    SegmentSeq(u64), ""
);
number!(
    /// One disk write of a shard's log; completions are acted on in ticket order.
    FlushTicket(u64), ""
);
number!(
    /// One client connection of one shard, unique for the life of the process.
    ConnId(u64), ""
);
number!(
    /// A client's exactly-once session, open in every group. Never zero.
    SessionId(u64), ""
);

impl ConnId {
    /// No connection: whoever embeds the node calls it ([`crate::shard::event::Call`]).
    pub const EMBEDDER: Self = Self(u64::MAX);
}

impl SessionId {
    /// The name of the session that a core opens as its `count`-th since the node started.
    ///
    /// The name is scattered, so that no two cores, nodes or starts give the same, and has 53 bits,
    /// so that clients whose numbers are doubles can hold it. The odds that two names agree are
    /// one in 2^53; a group refuses to open a name that is open, so two clients never share one.
    #[must_use]
    pub fn new(node: NodeId, incarnation: Incarnation, shard: ShardId, count: u64) -> Self {
        let start = mix(mix(node.0) ^ incarnation.0);
        Self((mix(mix(start ^ u64::from(shard.0)) ^ count) >> 11).max(1))
    }
}

/// Scatters 64 bits: a bijection in which every bit of `value` moves half of the result's
/// (the finalizer of SplitMix64).
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let mut state = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one; zero stays zero.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The index `count` entries further on.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

number!(
    /// A wall clock's time, in milliseconds since 1970: what keys expire by. It may jump, either way, and
    /// differs from machine to machine; so it is only ever the leader's, and replicated. Zero is "unknown".
    UnixMs(u64), ""
);

impl SegmentSeq {
    /// The segment after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Micros {
    /// Microseconds since `earlier`; zero if either is no time, or `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Micros) -> u32 {
        let us = self.0.saturating_sub(earlier.0);
        if earlier.0 == 0 || us > u32::MAX as u64 {
            return if earlier.0 == 0 { 0 } else { u32::MAX };
        }
        us as u32
    }
}

impl Tick {
    /// The instant `ms` milliseconds later.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl UnixMs {
    /// The instant `ms` milliseconds later.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl ReplicaId {
    /// Nobody: no vote given, no leader known.
    pub const NONE: Self = Self(0);

    /// Whether this names a replica at all.
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }
}

/// The name of one entry: the term that created it and its place in the log. Two entries with the
/// same id in the same group are the same entry (Raft §5.3, Log Matching).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The term of the leader that created it.
    pub term: Term,
    /// Its place in the log.
    pub index: Index,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.term, self.index)
    }
}
