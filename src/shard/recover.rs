//! A shard put together again from its segments.

use thiserror::Error;

use crate::entry::Entry;
use crate::group::{GroupState, ReplicaRecovery, RunError};
use crate::id::{GroupId, ReplicaId, SegmentSeq, Tick};
use crate::limits;
use crate::raft;
use crate::store::map::Map;
use crate::wal::{self, Appender, Damage, Identity, Location, LogIndex};

use super::Config;
use super::batch::Log;
use super::shard::Shard;

/// Why a log cannot be used.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// Its bytes are damaged where they must not be.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// Its runs contradict each other.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It holds a group that does not live on this core.
    #[error(
        "the log of core {core} holds group {group}, which lives on another core: was the directory written with another --cores or --groups?"
    )]
    ForeignGroup {
        /// The core.
        core: crate::id::ShardId,
        /// The group.
        group: GroupId,
    },
}

/// What was found.
#[derive(Debug)]
pub struct Recovery {
    /// What the log says of itself: sizes, the torn tail if there was one, spares, files to be
    /// prepared anew.
    pub log: wal::Recovered,
    /// Entries read, superseded ones included.
    pub entries: u64,
}

/// Replays the segments of one core.
pub struct Recovering {
    config: Config,
    identity: Identity,
    recovery: wal::Recovery,
    replicas: Vec<ReplicaRecovery>,
    index: LogIndex,
    entries: u64,
    segment_bytes: usize,
}

impl Recovering {
    /// Begins with nothing: an empty directory is a new shard.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let identity = Identity { cluster: config.cluster, node: config.node, shard: config.shard };
        let groups: Vec<GroupId> = (0..config.groups)
            .filter(|group| group % u64::from(config.cores) == u64::from(config.shard.0))
            .map(GroupId)
            .collect();
        let keep_bytes = config.log_cache_bytes / groups.len().max(1);
        let replicas = groups
            .into_iter()
            .map(|group| {
                let first = GroupState::first(&config.nodes, &config.addresses);
                ReplicaRecovery::new(group, Box::new(Map::new()), keep_bytes).beginning(first)
            })
            .collect();
        Self {
            recovery: wal::Recovery::new(identity),
            config,
            identity,
            replicas,
            index: LogIndex::new(),
            entries: 0,
            segment_bytes: limits::SEGMENT_BYTES,
        }
    }

    /// For a log with segments of another size than [`limits::SEGMENT_BYTES`], in bytes: small ones
    /// make a simulation rotate often. Call it before the first segment is given.
    ///
    /// # Panics
    /// If `segment_bytes` is not a whole number of blocks; see [`Appender::with_segment_bytes`].
    #[must_use]
    pub fn with_segment_bytes(mut self, segment_bytes: usize) -> Self {
        debug_assert_eq!(self.entries, 0, "segments were read with another size");
        self.recovery = wal::Recovery::with_segment_bytes(self.identity, segment_bytes);
        self.segment_bytes = segment_bytes;
        self
    }

    /// Look ahead, before [`Self::segment`]: see [`wal::Recovery::look_ahead`].
    pub fn look_ahead(&mut self, segment: SegmentSeq, block: &[u8]) -> Option<Location> {
        self.recovery.look_ahead(segment, block)
    }

    /// The next segment, in ascending order, whole.
    ///
    /// # Errors
    /// If it is damaged where it must not be, or contradicts what came before.
    pub fn segment(&mut self, seq: SegmentSeq, bytes: &[u8]) -> Result<(), RecoverError> {
        let Self { config, recovery, replicas, index, entries, .. } = self;
        let cores = u64::from(config.cores);
        let mut wrong = None;
        recovery.segment(seq, bytes, &mut |run| {
            if wrong.is_some() {
                return;
            }
            let group = run.group;
            let here = group.0 < config.groups && group.0 % cores == u64::from(config.shard.0);
            if !here {
                wrong = Some(RecoverError::ForeignGroup { core: config.shard, group });
                return;
            }
            let copied = run.entries().map(|entry| Entry {
                kind: entry.kind,
                crc: entry.crc,
                payload: bytes::Bytes::copy_from_slice(entry.payload),
            });
            let replica = &mut replicas[(group.0 / cores) as usize];
            if run.kind == wal::RunKind::Tombstone {
                return replica.on_tombstone();
            }
            match replica.on_run(run.hard_state, run.run_term, run.first, copied) {
                Ok(()) => {
                    let count = run.count;
                    *entries += count;
                    if count > 0 {
                        index.note(group, run.first, count, run.location);
                    }
                }
                Err(error) => wrong = Some(error.into()),
            }
        })?;
        wrong.map_or(Ok(()), Err)
    }

    /// All segments were given: the shard, ready for its first turn.
    ///
    /// # Errors
    /// If the log ends where it must not.
    pub fn finish(self, now: Tick) -> Result<(Shard, Recovery), RecoverError> {
        let Self { config, identity, recovery, replicas, index, entries, segment_bytes } = self;
        let log = recovery.finish()?;
        let replicas: Vec<_> = (0..)
            .zip(replicas)
            .map(|(slot, replica)| replica.finish(raft_config(&config, slot), now))
            .collect();
        let appender = Appender::with_segment_bytes(identity, log.position, segment_bytes);
        let slots = replicas.len();
        let log_of_shard = Log::new(appender, index, slots, config.cores, config.flushes_in_flight);
        Ok((Shard::new(config, replicas, log_of_shard, now), Recovery { log, entries }))
    }
}

fn raft_config(config: &Config, slot: u64) -> raft::Config {
    let group = GroupId(slot * u64::from(config.cores) + u64::from(config.shard.0));
    let seed = config.seed ^ (slot << 16) ^ (config.node.0 << 48) ^ u64::from(config.shard.0);
    raft::Config {
        id: ReplicaId(config.node.0),
        election_ticks: config.election_ms,
        heartbeat_ticks: config.heartbeat_ms,
        pre_vote: true,
        check_quorum: true,
        append_entries_max: limits::APPEND_ENTRIES_MAX,
        append_bytes_max: limits::APPEND_BYTES_MAX,
        inflight_messages_max: limits::INFLIGHT_MESSAGES_MAX,
        inflight_bytes_max: limits::INFLIGHT_BYTES_MAX,
        uncommitted_bytes_max: limits::UNCOMMITTED_BYTES_MAX,
        lease: config.leases.of(group),
        priority: config.priority,
        ..raft::Config::new(ReplicaId(config.node.0), seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, Incarnation, NodeId, ShardId};
    use crate::shard::{Effects, Event};

    fn config(nodes: &[u64]) -> Config {
        Config {
            cluster: ClusterId(1),
            node: NodeId(1),
            incarnation: Incarnation(1),
            shard: ShardId(0),
            cores: 1,
            groups: 3,
            nodes: nodes.iter().map(|&node| NodeId(node)).collect(),
            addresses: Vec::new(),
            election_ms: 1_000,
            heartbeat_ms: 100,
            priority: 100,
            request_ms: 1_000,
            flushes_in_flight: 2,
            log_cache_bytes: 1 << 20,
            leases: crate::shard::Leases::default(),
            seed: 1,
        }
    }

    /// One turn at time zero, with a disk that takes no time.
    fn turn(shard: &mut Shard, fx: &mut Effects) {
        shard.turn(Tick(0), fx);
        if let Some(segment) = fx.spare.take() {
            shard.on_event(Tick(0), Event::SpareReady(segment));
        }
        for write in fx.writes.drain(..) {
            shard.on_event(Tick(0), Event::Flushed(write.ticket));
        }
    }

    /// The groups led after a few turns.
    fn led_at_once(nodes: &[u64]) -> usize {
        let (mut shard, _) = Recovering::new(config(nodes)).finish(Tick(0)).expect("empty");
        let mut fx = Effects::default();
        for _ in 0..10 {
            turn(&mut shard, &mut fx);
        }
        shard.replicas().iter().filter(|replica| replica.status().leader_ready).count()
    }

    #[test]
    fn contract_row_11_a_sole_voter_stands_at_once_and_others_wait() {
        assert_eq!(led_at_once(&[1]), 3);
        assert_eq!(led_at_once(&[1, 2, 3]), 0);
    }

    /// A connection that sends `GET k` and then `SET k v` before the leader is ready for either: both
    /// are answered in one turn, and the read is answered first.
    #[test]
    fn a_read_that_waited_for_the_leader_sees_nothing_its_connection_sent_after_it() {
        use crate::id::ConnId;
        use crate::shard::event::Request;
        use crate::wire::reply::Reply;
        use crate::wire::resp::Command;

        let config = Config { groups: 1, ..config(&[1]) };
        let (mut shard, _) = Recovering::new(config).finish(Tick(0)).expect("empty");
        let mut fx = Effects::default();
        let mut asked = false;
        let mut answers = Vec::new();
        for _ in 0..20 {
            let status = shard.replicas()[0].status();
            if !asked && status.role == crate::raft::RoleKind::Leader {
                assert!(!status.leader_ready, "the read must have to wait");
                asked = true;
                let commands: [&[&[u8]]; 3] =
                    [&[b"GET", b"k"], &[b"SET", b"k", b"v"], &[b"GET", b"k"]];
                for (seq, args) in (0..).zip(commands) {
                    let (command, after_writes) = (Command::from_args(args), seq == 2);
                    let nearby = false;
                    let request = Request { conn: ConnId(1), seq, command, after_writes, nearby };
                    shard.on_event(Tick(0), Event::Request(request));
                }
            }
            turn(&mut shard, &mut fx);
            answers.extend(fx.replies.drain(..).map(|reply| (reply.seq, reply.reply)));
        }
        answers.sort_by_key(|(seq, _)| *seq);
        assert_eq!(answers, [(0, Reply::Nil), (1, Reply::Ok), (2, Reply::bulk("v"))]);
    }
}
