//! A shard put together again from its segments.

use bytes::Bytes;
use thiserror::Error;

use crate::entry::Entry;
use crate::group::{AloneRefusal, GroupState, Replayed, ReplicaRecovery, RunError, Survivor};
use crate::id::{EntryId, GroupId, ReplicaId, SegmentSeq, Tick};
use crate::limits;
use crate::planted::{Planted, planted};
use crate::raft;
use crate::store::StateMachine;
use crate::store::map::Map;
use crate::wal::{
    self, Appender, Batch, Damage, Found, Identity, Location, LogIndex, Loss, RunKind, Whose,
};

use super::Config;
use super::batch::Log;
use super::shard::Shard;
use super::truncate::Truncation;

/// Why a log cannot be used.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// Its bytes are damaged where they must not be.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// Its bytes are damaged, and of a group that has lost by it this node knows no other member: it is the
    /// only one, or joined later and has lost who the others are.
    #[error(
        "{damage}. Group {group} has no other member that this log knows, to give back what is gone: keep the \
         files for inspection and restore a copy, or start this node with an empty directory and a \
         new --id"
    )]
    AloneDamage {
        /// The first damage.
        damage: Box<Damage>,
        /// The group.
        group: GroupId,
    },
    /// Its runs contradict each other.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A group was to go on alone and cannot.
    #[error(transparent)]
    Alone(#[from] AloneRefusal),
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

/// What becomes of the groups of one core that go on alone.
#[derive(Debug)]
pub struct Alone {
    /// Each group.
    pub groups: Vec<Survivor>,
    /// What makes it so.
    pub writes: Vec<wal::Write>,
}

/// What was found.
#[derive(Debug)]
pub struct Recovery {
    /// What the log says of itself: sizes, the torn tail if there was one, spares, files to be
    /// prepared anew.
    pub log: wal::Recovered,
    /// Entries read, superseded ones included.
    pub entries: u64,
    /// What was durable and is gone: its groups get it back from their other members.
    pub losses: Vec<Damage>,
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
    /// The first segment there is.
    first: Option<SegmentSeq>,
    /// The segment whose runs are being replayed.
    reading: SegmentSeq,
    losses: Vec<Damage>,
}

impl Recovering {
    /// Begins with nothing: an empty directory is a new shard.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_machines(config, &|_| Box::new(Map::new()))
    }

    /// As [`Self::new`], with another state machine than the ordered map: `machine` makes an empty one for
    /// a group, the same at every start.
    #[must_use]
    pub fn with_machines(
        config: Config,
        machine: &dyn Fn(GroupId) -> Box<dyn StateMachine>,
    ) -> Self {
        let identity = config.identity();
        let groups: Vec<GroupId> = (0..config.groups)
            .filter(|group| group % u64::from(config.cores) == u64::from(config.shard.0))
            .map(GroupId)
            .collect();
        let count = groups.len();
        let keep_bytes = config.log_cache_bytes / count.max(1);
        let replicas = groups
            .into_iter()
            .map(|group| {
                let first = GroupState::first(&config.nodes, &config.addresses);
                let recovery = ReplicaRecovery::new(group, machine(group), keep_bytes);
                recovery.one_of(count).beginning(first)
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
            first: None,
            reading: SegmentSeq(0),
            losses: Vec::new(),
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

    /// For a log whose segments in front of `first` were reclaimed, as [`super::Effects::reclaim`] asked:
    /// what is left of them is not given. Call it last before the first segment is given.
    #[must_use]
    pub fn reclaimed_to(mut self, first: SegmentSeq) -> Self {
        self.recovery = self.recovery.reclaimed_to(first);
        self
    }

    /// Look ahead, before [`Self::segment`]: see [`wal::Recovery::look_ahead`].
    pub fn look_ahead(&mut self, segment: SegmentSeq, block: &[u8]) -> Option<Location> {
        self.recovery.look_ahead(segment, block)
    }

    /// See [`wal::Recovery::trust`].
    pub fn trust(&mut self, checked: wal::Checked) {
        self.recovery.trust(checked);
    }

    /// The identity of the log that is read.
    #[must_use]
    pub const fn identity(&self) -> wal::Identity {
        self.identity
    }

    /// The next segment, in ascending order, whole. Entries are not copied out of `bytes` until the next
    /// one that holds runs is given, or the end comes.
    ///
    /// # Errors
    /// If it is damaged where it must not be, or contradicts what came before.
    pub fn segment(&mut self, seq: SegmentSeq, bytes: &Bytes) -> Result<(), RecoverError> {
        self.first.get_or_insert(seq);
        let Self { config, recovery, replicas, index, entries, losses, reading, .. } = self;
        let cores = u64::from(config.cores);
        let mut wrong = None;
        recovery.salvage(seq, bytes, &mut |found| {
            if wrong.is_some() {
                return;
            }
            let run = match found {
                Found::Run(run) => run,
                Found::Lost(Loss { damage, whose }) => {
                    if losses.last() != Some(&damage) {
                        losses.push(damage);
                        index.on_gap();
                    }
                    for replica in replicas.iter_mut() {
                        let is_hit = match &whose {
                            Whose::Anybody => true,
                            Whose::Groups(groups) => groups.contains(&replica.group()),
                        };
                        if is_hit {
                            replica.on_loss();
                        }
                    }
                    return;
                }
            };
            let mut group = run.group;
            if planted(Planted::GroupsMixedUp) && run.count > 0 && group.0 + cores < config.groups {
                group.0 += cores;
            }
            let here = group.0 < config.groups && group.0 % cores == u64::from(config.shard.0);
            if !here {
                wrong = Some(RecoverError::ForeignGroup { core: config.shard, group });
                return;
            }
            if *reading != run.location.segment {
                *reading = run.location.segment;
                replicas.iter_mut().for_each(ReplicaRecovery::leave_segment);
            }
            // Pieces of snapshots may be kept by who reads them; whose entries are kept is known here.
            let is_lent = run.kind == RunKind::Log;
            let entries_of_run = run.entries().map(|entry| Entry {
                kind: entry.kind,
                crc: entry.crc,
                payload: match is_lent {
                    true => bytes.slice_ref(entry.payload),
                    false => Bytes::copy_from_slice(entry.payload),
                },
            });
            let replica = &mut replicas[(group.0 / cores) as usize];
            let replayed = Replayed {
                kind: run.kind,
                is_forgetful: run.is_forgetful,
                hard_state: run.hard_state,
                entry: EntryId { term: run.run_term, index: run.first },
                segment: run.location.segment,
            };
            match replica.on_run(replayed, entries_of_run) {
                Ok(held) if run.kind == RunKind::Log => {
                    *entries += run.count;
                    // What is held goes on behind these, and stays where it was read.
                    index.note(group, run.first.plus(held), run.count - held, run.location);
                }
                Ok(_) => {}
                Err(error) => wrong = Some(error.into()),
            }
        })?;
        // One machine after the other, while what they read is still mapped.
        replicas.iter_mut().for_each(ReplicaRecovery::settle);
        wrong.map_or(Ok(()), Err)
    }

    /// All segments were given, and every group of this core goes on without its other members: what
    /// becomes of each, and the writes that make it so, in order, each after the one before is durable.
    ///
    /// # Errors
    /// If the log ends where it must not, or a group cannot go on alone.
    pub fn finish_alone(self) -> Result<(Alone, Recovery), RecoverError> {
        let Self {
            config, identity, recovery, mut replicas, entries, segment_bytes, losses, ..
        } = self;
        if let Some(damage) = losses.first() {
            return Err((*damage).into());
        }
        let log = recovery.finish()?;
        let mut appender = Appender::with_segment_bytes(identity, log.position, segment_bytes);
        appender.on_spare(log.position.next_segment);
        let (mut groups, mut writes) = (Vec::new(), Vec::new());
        let mut place = |appender: &mut Appender, batch: &mut Batch| {
            if !batch.is_empty() {
                let write = appender.place(std::mem::take(batch));
                appender.on_durable(write.ticket);
                writes.push(write);
            }
        };
        let mut batch = Batch::new();
        for replica in &mut replicas {
            let survivor = replica.go_on_alone(ReplicaId(config.node.0))?;
            if let Some(run) = survivor.run.clone() {
                batch.push(run);
            }
            if appender.batch_bytes_soft() < batch.bytes() {
                place(&mut appender, &mut batch);
            }
            groups.push(survivor);
        }
        place(&mut appender, &mut batch);
        writes.extend(appender.closing_write());
        Ok((Alone { groups, writes }, Recovery { log, entries, losses }))
    }

    /// All segments were given: the shard, ready for its first turn.
    ///
    /// # Errors
    /// If the log ends where it must not.
    pub fn finish(self, now: Tick) -> Result<(Shard, Recovery), RecoverError> {
        let Self {
            config,
            identity,
            recovery,
            replicas,
            mut index,
            entries,
            segment_bytes,
            first,
            losses,
            ..
        } = self;
        let log = recovery.finish()?;
        let replicas: Vec<_> = (0..)
            .zip(replicas)
            .map(|(slot, replica)| replica.finish(raft_config(&config, slot), now))
            .collect::<Result<_, _>>()?;
        for replica in &replicas {
            let status = replica.status();
            index.forget_before(replica.group(), status.first);
            if replica.islands().next().is_none() {
                index.forget_from(replica.group(), status.last.index.next());
            }
            if replica.forgotten().is_some() && status.membership.members().nth(1).is_none() {
                // There is nobody to get it back from.
                if let Some(&damage) = losses.first() {
                    let (damage, group) = (Box::new(damage), replica.group());
                    return Err(RecoverError::AloneDamage { damage, group });
                }
            }
        }
        let appender = Appender::with_segment_bytes(identity, log.position, segment_bytes);
        let slots = replicas.len();
        let mut log_of_shard = Log::new(appender, index, slots, config.cores)
            .flushing(config.flushes_in_flight, config.flush_joins_bytes);
        for (slot, replica) in (0..).zip(&replicas) {
            if replica.is_unwritten() {
                log_of_shard.stage(slot);
            }
        }
        let first = first.unwrap_or(SegmentSeq(1));
        let mut truncation = Truncation::new(config.log_bytes, segment_bytes, first, &replicas);
        for damage in &losses {
            // What is missing in front of the log would be missed at every start until it begins later.
            truncation.on_damage(damage.segment.max(first));
        }
        let mut shard = Shard::new(config, replicas, log_of_shard, truncation, now);
        shard.counters_mut().corrupt_detected = losses.len() as u64;
        Ok((shard, Recovery { log, entries, losses }))
    }
}

fn raft_config(config: &Config, slot: u64) -> raft::Config {
    let group = GroupId(slot * u64::from(config.cores) + u64::from(config.shard.0));
    let seed = config.seed ^ (slot << 16) ^ (config.node.0 << 48) ^ u64::from(config.shard.0);
    raft::Config {
        election_ticks: config.election_ms,
        heartbeat_ticks: config.heartbeat_ms,
        lease: config.leases.of(group),
        priority: config.priority,
        ..raft::Config::new(ReplicaId(config.node.0), seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, NodeId, ShardId};
    use crate::shard::{Effects, Event};

    fn config(nodes: &[u64]) -> Config {
        let nodes: Vec<NodeId> = nodes.iter().map(|&node| NodeId(node)).collect();
        let config = Config::new(ClusterId(1), NodeId(1), &nodes, 3);
        Config { flush_joins_bytes: 0, ..config }
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
        use crate::store::connection::Manner;
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
                    let manner = Manner::default();
                    let request = Request { conn: ConnId(1), seq, command, after_writes, manner };
                    shard.on_event(Tick(0), Event::Request(request));
                }
            }
            turn(&mut shard, &mut fx);
            answers.extend(fx.replies.drain(..).map(|reply| (reply.seq, reply.reply)));
        }
        answers.sort_by_key(|(seq, _)| *seq);
        assert_eq!(answers, [(0, Reply::Nil), (1, Reply::Ok), (2, Reply::bulk("v"))]);
    }

    /// What the files of a log hold.
    type Disk = std::collections::BTreeMap<SegmentSeq, Vec<u8>>;

    /// A write reaches its file.
    fn land(disk: &mut Disk, write: &wal::Write) {
        let file = disk.get_mut(&write.segment).expect("it was prepared");
        let at = write.offset as usize;
        write.encode_into(&mut file[at..at + write.bytes]);
    }

    /// All segments are read.
    fn read(mut recovering: Recovering, disk: &Disk) -> Result<Recovering, RecoverError> {
        for (segment, bytes) in disk {
            let mut later = disk.range(segment.next()..);
            later.find_map(|(later, bytes)| recovering.look_ahead(*later, bytes));
            recovering.segment(*segment, &Bytes::copy_from_slice(bytes))?;
        }
        Ok(recovering)
    }

    /// A core with small segments, its disk, and what has become durable. Writes reach the disk when they are
    /// flushed.
    struct Small {
        shard: Shard,
        fx: Effects,
        disk: Disk,
        first: SegmentSeq,
        seq: u64,
        flushed: Vec<wal::Write>,
        segment_bytes: usize,
        /// Files for which the disk has room.
        files_max: usize,
    }

    const SMALL: usize = 64 << 10;

    impl Small {
        fn config() -> Config {
            Config { groups: 2, log_bytes: 0, ..config(&[1]) }
        }

        fn new(segment_bytes: usize) -> Self {
            let recovering = Recovering::new(Self::config()).with_segment_bytes(segment_bytes);
            let (shard, _) = recovering.finish(Tick(0)).expect("empty");
            let (disk, first) = (Disk::new(), SegmentSeq(0));
            let (fx, flushed) = (Effects::default(), Vec::new());
            Self { shard, fx, disk, first, seq: 0, flushed, segment_bytes, files_max: usize::MAX }
        }

        /// What a start after a crash at this moment comes to.
        fn recovered(&self) -> Shard {
            let recovering = Recovering::new(Self::config());
            let recovering = recovering.with_segment_bytes(self.segment_bytes);
            let recovering = read(recovering.reclaimed_to(self.first), &self.disk);
            let (mut shard, found) = recovering.expect("whole").finish(Tick(0)).expect("whole");
            for segment in found.log.spares {
                shard.on_event(Tick(0), Event::SpareReady(segment));
            }
            shard
        }

        fn set(&mut self, key: &str, bytes: usize) {
            use crate::shard::event::Request;
            use crate::store::connection::Manner;
            let value = vec![b'v'; bytes];
            let command = crate::wire::resp::Command::from_args(&[b"SET", key.as_bytes(), &value]);
            let conn = crate::id::ConnId(1);
            let (seq, manner, after_writes) = (self.seq, Manner::default(), false);
            let request = Request { conn, seq, command, after_writes, manner };
            self.seq += 1;
            self.shard.on_event(Tick(0), Event::Request(request));
        }

        /// A turn whose writes take until [`Self::flush`]. Returns what may be deleted.
        fn turn(&mut self) -> Option<SegmentSeq> {
            self.shard.turn(Tick(0), &mut self.fx);
            if let Some(segment) = self.fx.spare.take() {
                let event = if self.disk.len() < self.files_max {
                    self.disk.insert(segment, vec![0; self.segment_bytes]);
                    Event::SpareReady(segment)
                } else {
                    Event::LogFull(true)
                };
                self.shard.on_event(Tick(0), event);
            }
            self.flushed.append(&mut self.fx.writes);
            self.fx.reclaim.take()
        }

        fn flush(&mut self) {
            for write in self.flushed.drain(..) {
                land(&mut self.disk, &write);
                self.shard.on_event(Tick(0), Event::Flushed(write.ticket));
            }
        }

        fn digest(shard: &Shard) -> u64 {
            let digest = |replica: &crate::group::Replica| replica.machine().digest();
            shard.replicas().iter().map(digest).fold(0, u64::wrapping_add)
        }
    }

    #[test]
    fn contract_row_27_the_log_is_truncated_behind_a_durable_snapshot_and_recovers_at_every_step() {
        let mut core = Small::new(SMALL);
        let mut cuts = 0;
        for round in 0..400 {
            core.set(&format!("key{}", round % 7), 2_000);
            let cut = core.turn();
            if let Some(first) = cut {
                // Noted, not yet deleted; then deleted.
                let digest = Small::digest(&core.recovered());
                core.first = first;
                assert_eq!(Small::digest(&core.recovered()), digest);
                core.disk.retain(|segment, _| first <= *segment);
                let back = core.recovered();
                assert_eq!(Small::digest(&back), digest);
                for replica in back.replicas() {
                    assert_eq!(replica.status().failure, None);
                }
                cuts += 1;
            }
            core.flush();
        }
        assert!(cuts > 5, "only {cuts} cuts");
        assert!(core.disk.len() < 12, "{} segments are left", core.disk.len());
        let back = core.recovered();
        assert_eq!(Small::digest(&back), Small::digest(&core.shard));
        let truncated = |replica: &&crate::group::Replica| replica.status().first.0 > 1;
        assert!(back.replicas().iter().filter(truncated).count() == 2, "the quiet group, too");
        let report = core.shard.report(false);
        assert!(report.counters.snapshots_taken > 5 && report.counters.segments_reclaimed > 5);
        assert!(report.log_bytes < 12 * SMALL as u64, "{}", report.log_bytes);
    }

    /// More is kept than the disk has room for, so snapshots free nothing, and would take what is left.
    #[test]
    fn a_full_disk_leaves_a_segment_with_which_a_start_can_elect_and_read() {
        let mut core = Small::new(1 << 20);
        core.files_max = 8;
        for round in 0..400 {
            core.set(&format!("key{round}"), 40_000);
            core.turn();
            core.flush();
        }
        let report = core.shard.report(false);
        assert!(report.disk_full && 8 == core.disk.len(), "{} files", core.disk.len());
        let answers =
            core.fx.replies.iter().filter(|reply| reply.reply.error_text().starts_with("FULL "));
        assert!(answers.count() > 20, "writes are refused");
        let is_unused = |file: &Vec<u8>| file.iter().all(|byte| *byte == 0);
        assert!(core.disk.values().next_back().is_some_and(is_unused), "the last spare is kept");

        let turns = |core: &mut Small| {
            for _ in 0..20 {
                core.turn();
                core.flush();
            }
        };
        turns(&mut core);
        let digest = Small::digest(&core.shard);
        core.shard = core.recovered();
        turns(&mut core);
        assert_eq!(Small::digest(&core.shard), digest);
        assert!(core.shard.replicas().iter().all(|replica| replica.status().leader_ready));
    }

    #[test]
    fn contract_row_31_a_snapshot_is_of_what_is_durable_and_counts_when_it_is_durable() {
        let mut core = Small::new(SMALL);
        for round in 0..200 {
            core.set(&format!("key{}", round % 7), 2_000);
            core.turn();
            for replica in core.shard.replicas() {
                let Some(stored) = replica.stored() else { continue };
                let status = replica.status();
                assert!(stored.entry.index <= status.applied.min(status.durable));
                let back = core.recovered();
                let slot = replica.group().0 as usize;
                let found = back.replicas()[slot].stored().expect("it is on the disk");
                assert!(stored.entry.index <= found.entry.index);
            }
            core.flush();
        }
        assert!(core.shard.replicas().iter().all(|replica| replica.stored().is_some()));
    }

    /// A log of node 1 with a batch for each of these runs, each durable before the next.
    fn written(segment_bytes: usize, runs: impl IntoIterator<Item = wal::Run>) -> Disk {
        let identity = Recovering::new(config(&[1, 2, 3])).identity();
        let mut appender =
            Appender::with_segment_bytes(identity, wal::Position::default(), segment_bytes);
        let segment = appender.wants_spare().expect("there is none yet");
        appender.on_spare(segment);
        let mut disk: Disk = [(segment, vec![0; segment_bytes])].into();
        for run in runs {
            let mut batch = Batch::new();
            batch.push(run);
            let write = appender.place(batch);
            land(&mut disk, &write);
            appender.on_durable(write.ticket);
        }
        disk
    }

    /// The first two entries of a group in term 7, of which the first is known to be committed.
    fn first_run(group: u64, value: &[u8]) -> wal::Run {
        use crate::id::{Index, Term};
        let set = crate::wire::resp::Command::from_args(&[b"SET", b"k", value]).raw;
        let commit = Index(1);
        wal::Run {
            kind: RunKind::Log,
            is_forgetful: false,
            group: GroupId(group),
            hard_state: raft::HardState { term: Term(7), commit, ..raft::HardState::default() },
            run_term: Term(7),
            first: commit,
            entries: [Entry::empty(), Entry::command(set)].into_iter().collect(),
        }
    }

    /// As [`read`], by a core with such segments.
    fn read_by(
        config: Config,
        segment_bytes: usize,
        disk: &Disk,
    ) -> Result<Recovering, RecoverError> {
        read(Recovering::new(config).with_segment_bytes(segment_bytes), disk)
    }

    #[test]
    fn contract_row_59_the_groups_of_a_core_that_go_on_alone_do_so_after_the_next_start() {
        use crate::id::{Index, Term};
        const BYTES: usize = 32 << 10;
        let of_many = || Config { groups: 80, ..config(&[1, 2, 3]) };
        let mut disk = written(BYTES, [first_run(0, b"zero"), first_run(2, b"two")]);
        let recovering = read_by(of_many(), BYTES, &disk).expect("whole");
        let (alone, found) = recovering.finish_alone().expect("node 1 votes everywhere");
        assert_eq!((found.entries, found.losses.len()), (4, 0));
        assert!(alone.groups.iter().map(|survivor| survivor.group.0).eq(0..80));
        for survivor in &alone.groups {
            assert_eq!(survivor.removed, [2, 3].map(ReplicaId));
            let held = if [0, 2].contains(&survivor.group.0) { (7, 1, 2) } else { (0, 0, 0) };
            let before = (survivor.term, survivor.commit, survivor.last);
            assert_eq!(before, (Term(held.0), Index(held.1), Index(held.2)));
        }
        let runs: Vec<_> = alone.writes.iter().map(|write| write.runs().len()).collect();
        assert!(runs.len() > 2 && runs.iter().sum::<usize>() == 80, "several batches: {runs:?}");
        assert_eq!(runs.last(), Some(&0), "the last proves the ones before");
        disk.insert(found.log.position.next_segment, vec![0; BYTES]);
        alone.writes.iter().for_each(|write| land(&mut disk, write));
        let recovering = read_by(of_many(), BYTES, &disk).expect("whole");
        let (shard, found) = recovering.finish(Tick(0)).expect("whole");
        assert!(found.log.torn.is_none());
        let get = crate::wire::resp::Command::from_args(&[b"GET", b"k"]).raw;
        for replica in shard.replicas() {
            let (status, group) = (replica.status(), replica.group().0);
            assert!(status.membership.members().eq([ReplicaId(1)]), "group {group}");
            let value = match group {
                0 => crate::wire::reply::Reply::bulk("zero"),
                2 => crate::wire::reply::Reply::bulk("two"),
                _ => crate::wire::reply::Reply::Nil,
            };
            assert_eq!(replica.machine().read(&get), value);
        }
    }

    #[test]
    fn contract_row_59_a_stranger_does_not_go_on_alone() {
        let (alone, _) = Recovering::new(config(&[1])).finish_alone().expect("it is alone already");
        assert!(alone.writes.is_empty() && alone.groups.iter().all(|it| it.run.is_none()));
        let stranger = Config { node: NodeId(9), ..config(&[1, 2, 3]) };
        let error = Recovering::new(stranger).finish_alone().expect_err("no voter");
        assert!(matches!(error, RecoverError::Alone(AloneRefusal::NoVoter(GroupId(0)))), "{error}");
    }

    #[test]
    fn contract_row_55_a_loss_is_left_to_the_other_members_and_refused_where_there_are_none() {
        use crate::id::Index;
        let mut second = first_run(0, b"more");
        second.first = Index(3);
        let mut disk = written(SMALL, [first_run(0, b"first"), second]);
        let file = disk.values_mut().next().expect("one");
        let value = file.windows(5).position(|bytes| bytes == b"first").expect("written");
        file[value] ^= 1;
        let alone = read_by(config(&[1, 2, 3]), SMALL, &disk).expect("a loss").finish_alone();
        let Err(RecoverError::Damage(damage)) = alone else { panic!("{alone:?}") };
        assert_eq!((damage.segment, damage.offset), (SegmentSeq(1), limits::BLOCK_BYTES as u64));
        let sole = read_by(config(&[1]), SMALL, &disk).expect("a loss").finish(Tick(0));
        let error = sole.expect_err("nobody can give it back");
        let text = error.to_string();
        assert!(matches!(error, RecoverError::AloneDamage { group: GroupId(0), .. }), "{text}");
        assert!(text.starts_with(&damage.to_string()) && text.contains("Group 0"), "{text}");
        let one_of_three = read_by(config(&[1, 2, 3]), SMALL, &disk).expect("a loss");
        let (shard, found) = one_of_three.finish(Tick(0)).expect("the others have it");
        assert_eq!(found.losses, [damage]);
        assert_eq!(shard.report(false).counters.corrupt_detected, 1);
        assert!(shard.replicas()[0].forgotten().is_some());
    }

    #[test]
    fn a_log_that_holds_a_group_of_another_core_is_refused_by_name() {
        let of_two = |groups| Config { cores: 2, groups, ..config(&[1, 2, 3]) };
        for (group, groups) in [(1, 4), (4, 4), (5, 4)] {
            let disk = written(SMALL, [first_run(0, b"own"), first_run(group, b"foreign")]);
            let error = read_by(of_two(groups), SMALL, &disk).err().expect("it lives elsewhere");
            let text = error.to_string();
            assert!(
                matches!(error, RecoverError::ForeignGroup { core: ShardId(0), group: it } if it.0 == group),
                "{text}"
            );
            assert!(text.contains("--cores or --groups"), "{text}");
        }
        let disk = written(SMALL, [first_run(0, b"own"), first_run(2, b"own")]);
        assert_eq!(read_by(of_two(4), SMALL, &disk).expect("both live here").entries, 4);
    }
}
