//! The worlds in which a mistake is looked for: those of the swarm, with what the mistake needs to show
//! switched on. All but three settings are such as the swarm draws for some seed: it has no segments of 128 KiB
//! (`writes_much`), no crash point that takes one pass in five (`CutBeforeSnapshotDurable`), and no more than three
//! flips at a rehearsed start (`DamageTakenForTornTail`, `HeaderNotCovered`).

use crate::planted::Planted;
use crate::shard::{LeasedGroups, Leases};

use super::crash_points::CrashPoint;
use super::disk::Tear;
use super::options::Options;

impl Options {
    /// The world of a seed in which to look for this mistake.
    #[must_use]
    pub fn focused(bug: Planted, seed: u64) -> Self {
        let mut it = Self::swarm(seed);
        match bug {
            Planted::AckBeforeFlush
            | Planted::FlushIgnored
            | Planted::AcceptedBeforeFlush
            | Planted::LeaderCountsUnflushed
            | Planted::VoteNotPersisted
            | Planted::TermPersistedAfterReply => it.crashes().flushes_slowly(),
            Planted::FlushSkippedOnRotation | Planted::DirectoryNotSynced => {
                it.crashes().writes_much();
            }
            Planted::FailedFlushRetried => {
                it.crashes().disk.error = 10;
                it.disk.sync_error = 10;
            }
            Planted::HalfBatchOnFullDisk => {
                it.crashes().disk.full_every_ms = 2_000;
            }
            Planted::TornTailRefused => it.crashes().tears(),
            Planted::ChecksumIgnored => {
                it.crashes().tears();
                it.value_bytes_max = 5_000;
                it.segment_bytes = 2 << 20;
            }
            Planted::DamageTakenForTornTail | Planted::HeaderNotCovered => {
                it.crashes().disk.rehearse = 3_000;
                it.disk.flips = 50;
            }
            Planted::LaterFlushVouches => {
                it.crashes().disk.jitter_us = 20_000;
            }
            Planted::GroupsMixedUp => {
                it.crashes().groups = 4;
            }
            Planted::DeletedBeforeNoted => it.crashes().snapshots_often(),
            Planted::RecycledRecordAccepted | Planted::EarlierLifeTakenForDamage => {
                it.crashes().snapshots_often();
                it.disk.recycles = true;
            }
            Planted::SnapshotGap => {
                it.crashes().flushes_slowly();
                it.snapshots_often();
            }
            Planted::CutBeforeSnapshotDurable => {
                it.flushes_slowly();
                it.snapshots_often();
                it.disk.spare_us = 1_000;
                it.nodes.crash_at = Some((CrashPoint::AfterWalRelease, 2_000));
                it.nodes.down_ms = 50;
            }
            Planted::InstalledBeforeFlush | Planted::SnapshotNamedByCommit => {
                it.leaves_behind();
                it.disk.audit = 50;
            }
            Planted::StaleSnapshotInstalled => {
                it.leaves_behind();
                it.net.drop = 1_000;
            }
            Planted::SessionsNotInSnapshot => {
                it.crashes().snapshots_often();
                it.session_clients = 5;
            }
            Planted::SessionsForgotten => {
                it.crashes().session_clients = 5;
            }
            Planted::AppliedTwiceAfterRestart => {
                it.crashes().log_cache_bytes = 1 << 20;
            }
            Planted::ErrorThoughCommitted => {
                it.several().net.break_link = 20;
            }
            Planted::VotedTwice
            | Planted::ShorterLogElected
            | Planted::OldTermCommitted
            | Planted::NoEmptyEntry
            | Planted::ConsistencyNotChecked => it.several().crashes().changes_leaders(),
            Planted::CommitBeyondVouched => it.comes_back_with_a_tail(),
            Planted::TruncatedBelowCommit => {
                it.several().net.overtake = 1_000;
                it.net.duplicate = 500;
            }
            Planted::ReadBeforeFirstCommit | Planted::FollowerReadsAlone => {
                it.several().changes_leaders();
                it.leases.groups = LeasedGroups::None;
                it.reads_nearby = bug == Planted::FollowerReadsAlone;
            }
            Planted::ReadWithoutQuorum => {
                it.deposes();
                it.leases.groups = LeasedGroups::None;
            }
            Planted::LeaseWithoutMargin => {
                it.deposes();
                it.leases = Leases { groups: LeasedGroups::All, ..it.leases };
                it.nodes.clock_skew_percent = 10;
            }
            Planted::ChangeCountsAtAppend
            | Planted::TwoChangesInFlight
            | Planted::RemovedStillVotes
            | Planted::NewMemberCountsAtOnce
            | Planted::TransferToLaggard => it.operated(),
            Planted::LearnerCounts => {
                it.crashes().changes_leaders();
                it.operated();
            }
            Planted::LossIgnored | Planted::ForgetfulElects | Planted::WholeTooSoon => it.decays(),
            Planted::GivenBackIsWhole => it.hurts(),
            Planted::SaidAgainIsWhole => it.decays(),
            Planted::NewcomerUnasked => {
                it.operated();
                it.disk.files_every_ms = 500;
                it.nodes.wipe_every_ms = 0;
            }
            Planted::HeartbeatCoalescedAway => {
                it.several().groups = 4;
            }
        }
        it
    }

    /// Three nodes, and nobody joins.
    fn several(&mut self) -> &mut Self {
        if self.cores.len() < 3 {
            self.cores = vec![1; 3];
            self.spares = 0;
        }
        self
    }

    fn crashes(&mut self) -> &mut Self {
        self.nodes.crash_every_ms = 300;
        self.nodes.down_ms = 50;
        self
    }

    fn flushes_slowly(&mut self) {
        self.disk.flush_us = 5_000;
    }

    fn tears(&mut self) {
        self.disk.tears = vec![Tear::Garbage, Tear::Sectors];
    }

    fn writes_much(&mut self) {
        self.think_us = 2_000;
        self.value_bytes_max = 600;
        self.segment_bytes = 128 << 10;
    }

    /// The log is cut all the time.
    fn snapshots_often(&mut self) {
        self.writes_much();
        self.log_bytes = 0;
    }

    /// Followers are away for longer than the log, again and again.
    fn leaves_behind(&mut self) {
        self.several().flushes_slowly();
        self.snapshots_often();
        self.clients = 8;
        self.nodes.crash_every_ms = 300;
        self.nodes.down_ms = 1_000;
        self.net.partition_every_ms = 1_000;
        self.net.partition_ms = 1_500;
    }

    /// Leaders are cut off, and others elected in no time, while many read and write one key.
    fn deposes(&mut self) {
        self.several().election_ms = 300;
        self.heartbeat_ms = 30;
        (self.groups, self.keys_per_group, self.clients) = (1, 1, 8);
        self.think_us = 2_000;
        self.request_ms = 300;
        self.reads_nearby = false;
        (self.net.delay_us, self.net.jitter_us) = (50, 50);
        (self.net.partition_every_ms, self.net.partition_ms) = (1_000, 1_500);
        (self.disk.flush_us, self.disk.jitter_us, self.disk.stall) = (50, 50, 0);
        self.nodes.pause_every_ms = 0;
        self.nodes.clock_jump_every_ms = 0;
        self.turn_us = 0;
    }

    /// A leader is cut off with entries that only it has, and back when its successor has committed
    /// others in their place and no longer has the first of them in memory: what it is sent then is empty,
    /// and names a commit beyond what it vouches for. So clients are quick, because a tail takes
    /// someone who writes in the moment of the cut, and a segment must fill while it lasts; nothing else
    /// holds them up, or elects another leader, whose append would cut the tail; and the log is kept,
    /// because a snapshot in the append's stead vouches for all it names.
    fn comes_back_with_a_tail(&mut self) {
        (self.cores, self.spares, self.operate_every_ms) = (vec![1; 3], 0, 0);
        self.changes_leaders();
        (self.net.partition_every_ms, self.net.partition_ms) = (1_000, 1_500);
        self.writes_much();
        (self.log_bytes, self.log_cache_bytes) = (u64::MAX / 4, 1 << 10);
        (self.groups, self.keys_per_group, self.expiring_percent) = (1, 1, 25);
        (self.clients, self.session_clients, self.request_ms) = (8, 0, 300);
        self.turn_us = 0;
        let net = &mut self.net;
        (net.delay_us, net.jitter_us, net.slow, net.one_way) = (50, 50, 0, 0);
        (net.drop, net.duplicate, net.overtake, net.corrupt) = (0, 0, 0, 0);
        let disk = &mut self.disk;
        (disk.flush_us, disk.jitter_us, disk.stall, disk.decay_every_ms) = (50, 50, 0, 0);
        (disk.full_every_ms, disk.slow_every_ms, disk.hang_every_ms) = (0, 0, 0);
        let nodes = &mut self.nodes;
        (nodes.crash_every_ms, nodes.crash_at, nodes.crash_in_turn) = (0, None, 0);
        (nodes.down_ms, nodes.pause_every_ms) = (50, 0);
        (nodes.clock_rate_every_ms, nodes.clock_jump_every_ms) = (0, 0);
        nodes.clock_skew_percent = 0;
    }

    fn operated(&mut self) {
        self.cores = vec![1; 5];
        self.spares = 2;
        self.operate_every_ms = 100;
    }

    /// One node's disk decays under it while leaders come and go.
    fn decays(&mut self) {
        self.several().crashes().changes_leaders();
        self.writes_much();
        self.disk.decay_every_ms = 400;
    }

    /// All disks are damaged at once while nobody is left to tell who led last.
    fn hurts(&mut self) {
        self.several().crashes().changes_leaders();
        self.writes_much();
        (self.spares, self.operate_every_ms, self.nodes.wipe_every_ms) = (0, 0, 0);
        (self.groups, self.log_bytes, self.disk.everywhere) = (4, u64::MAX / 4, 30);
    }

    fn changes_leaders(&mut self) {
        self.election_ms = 100;
        self.heartbeat_ms = 20;
        self.net.partition_every_ms = 300;
        self.net.partition_ms = 500;
    }
}
