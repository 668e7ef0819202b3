//! Mistakes of our own making, one at a time, to prove that the simulator sees them.
//!
//! Each is a line in the product, or in the simulator's driver where the duty is a driver's, that
//! asks [`planted`]. Nobody plants anything in earnest: without the feature `planted-bugs` (and
//! outside of tests) the answer is a constant, and the line is compiled out.
//!
//! ```text
//!   cargo planted ─► for each bug: seeds 0, 1, … ─► with(bug, run the world) ─► found after n seeds
//!                                                                             └─ the same world
//!                                                                                without it: fine
//! ```
//!
//! The list and what finds each: `docs/testing.md`.

macro_rules! bugs {
    ($($name:ident: $what:literal,)*) => {
        /// One mistake.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Planted {
            $(
                #[doc = $what]
                $name,
            )*
        }

        impl Planted {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What it does, in one sentence.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$name => $what,)*
                }
            }
        }
    };
}

bugs! {
    // The driver, and the disk under it.
    AckBeforeFlush: "a write is reported durable when it starts",
    FlushIgnored: "the disk forgets the last write it reported durable when the power fails",
    FlushSkippedOnRotation: "the first write of a segment is reported durable without a flush",
    FailedFlushRetried: "a flush that failed is tried again, and succeeds without the data",
    HalfBatchOnFullDisk: "while the disk is full half of each write arrives, and all is reported durable",
    DirectoryNotSynced: "a segment's name is not made durable, and may vanish with its bytes",
    DeletedBeforeNoted: "segments are deleted before it is noted where the log begins",

    // The log.
    TornTailRefused: "an unfinished write at the log's end is taken for damage",
    DamageTakenForTornTail: "damage in the middle of the log is taken for an unfinished write",
    RecycledRecordAccepted: "a record from the earlier life of a recycled segment is believed",
    EarlierLifeTakenForDamage: "a batch from the earlier life of a recycled segment proves damage in front of it",
    ChecksumIgnored: "the checksums of payloads are not compared when the log is read",
    HeaderNotCovered: "the checksum of a run does not cover its header",
    LaterFlushVouches: "a write that finished makes those before it durable that have not",
    GroupsMixedUp: "a record of one group is replayed into another",

    // Snapshots.
    InstalledBeforeFlush: "a leader's snapshot takes effect before the record of it is durable",
    CutBeforeSnapshotDurable: "the log is cut for a snapshot that is not durable yet",
    SnapshotGap: "entries behind a snapshot's last are cut with those in front of it",
    StaleSnapshotInstalled: "a snapshot older than the state takes its place",
    SnapshotNamedByCommit: "a snapshot is named by the commit index, of which not all is applied",
    SessionsNotInSnapshot: "a snapshot says nothing of the clients' sessions",

    // What is applied, and what clients are told.
    AppliedTwiceAfterRestart: "the last entry that recovery applied is applied again",
    SessionsForgotten: "a request sent again is taken for a new one",
    ErrorThoughCommitted: "a command that was sent on and perhaps executed is called not executed",

    // Promises.
    VoteNotPersisted: "a vote is not written down",
    TermPersistedAfterReply: "a vote leaves before term and vote are durable",
    AcceptedBeforeFlush: "a follower accepts entries before they are durable",
    LeaderCountsUnflushed: "a leader counts its own log before it is durable",

    // Repair from peers.
    LossIgnored: "a replica that has lost part of its log goes on as if it were whole",
    ForgetfulElects: "a replica that has lost entries elects whoever asks",
    WholeTooSoon: "a replica counts as whole once its leader has told where the log ends",
    GivenBackIsWhole: "a replica counts as whole once a member has given it a state",
    SaidAgainIsWhole: "a log that says how it ended is taken to be whole",
    NewcomerUnasked: "a replica that has lost entries asks nobody that joined since",

    // Elections and commits.
    VotedTwice: "a second candidate gets a vote in the same term",
    ShorterLogElected: "a vote is given to a candidate whose log is behind",
    OldTermCommitted: "an entry of an older term is committed by counting who holds it",
    NoEmptyEntry: "a leader opens its term without an entry, and reads without one",
    ConsistencyNotChecked: "entries are appended behind an entry of another term",
    TruncatedBelowCommit: "an append cuts the log behind it, whatever is committed there",
    CommitBeyondVouched: "a follower commits what the leader's append did not vouch for",

    // Reads.
    ReadWithoutQuorum: "a leader answers reads without asking whether it still leads",
    ReadBeforeFirstCommit: "a leader answers reads before it has committed in its term",
    FollowerReadsAlone: "a follower answers reads at its own commit index",
    LeaseWithoutMargin: "a lease lasts as long as the promise it rests on, by whatever clock",

    // Members.
    ChangeCountsAtAppend: "a leader counts with new members once their change is in its log",
    TwoChangesInFlight: "a change of members is begun while another is under way",
    RemovedStillVotes: "a removed replica goes on voting, and is heard",
    NewMemberCountsAtOnce: "a member that has just come is taken to hold the whole log",
    LearnerCounts: "a learner counts in the quorum that commits",
    TransferToLaggard: "a voter that lacks entries is told to take over",

    // The shard.
    HeartbeatCoalescedAway: "of the heartbeats of many groups to one node only the first leaves",
}

#[cfg(any(test, feature = "planted-bugs"))]
mod on {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Whether this mistake is made, on this thread.
    #[must_use]
    pub fn planted(bug: Planted) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Runs `world` with a mistake in it; without it again afterwards, also after a panic.
    pub fn with<T>(bug: Planted, world: impl FnOnce() -> T) -> T {
        struct Weeded;
        impl Drop for Weeded {
            fn drop(&mut self) {
                PLANTED.set(None);
            }
        }
        PLANTED.set(Some(bug));
        let _weeded = Weeded;
        world()
    }
}

#[cfg(any(test, feature = "planted-bugs"))]
pub use on::{planted, with};

/// Nobody plants mistakes in earnest.
#[cfg(not(any(test, feature = "planted-bugs")))]
#[must_use]
pub const fn planted(_bug: Planted) -> bool {
    false
}
