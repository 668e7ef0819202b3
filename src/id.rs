//! The names of things: who, where, and when, each its own type.
//!
//! Numbers that mean different things do not mix: a [`Term`] cannot be compared with an [`Index`],
//! and a [`NodeId`] cannot be passed where a [`GroupId`] is wanted. All are plain `Copy` integers
//! in memory and little-endian integers on disk and wire.

use std::fmt;

macro_rules! number {
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
    /// The cluster a frame or a log segment belongs to.
    ClusterId(u64), ""
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
