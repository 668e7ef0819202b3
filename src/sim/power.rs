//! Nodes start and stop.

use crate::id::{ClusterId, Incarnation};
use crate::limits;
use crate::planted::{Planted, planted};
use crate::shard::{Config, RecoverError, Recovering, Recovery, Shard};
use crate::wal;

use super::net::happens;
use super::node::{Clock, Core};
use super::safety::Checked;
use super::world::{ForNode, Happening, World};

/// The cluster of every world.
pub(super) const CLUSTER: ClusterId = ClusterId(0x51d);

impl World {
    /// The process of a node starts: it replays its logs and takes part, or crashes trying.
    pub(super) fn start(&mut self, node: usize) -> Checked {
        if self.nodes[node].is_up() || !self.nodes[node].is_there {
            return Ok(());
        }
        self.nodes[node].life += 1;
        self.nodes[node].disk_full = false;
        let skew = self.options.nodes.clock_skew_percent;
        let (first, rate) = (self.rng.u64(..1_000_000), self.rng.u64(100 - skew..=100 + skew));
        self.nodes[node].clock = Clock::new(self.now, first, rate);
        let life = self.nodes[node].life;
        self.note(&[11, node as u64, life], || format!("node {node} starts, life {life}"));
        let crashes = self.is_chaos
            && happens(&mut self.rng, self.options.nodes.crash_in_recovery)
            && self.strikes(|| format!("node {node} loses power in its recovery"));
        let mut cores = Vec::new();
        for core in 0..self.nodes[node].disks.len() {
            let config = self.config(node, core);
            let failed = |error| format!("node {node} core {core} does not recover: {error}");
            while let Some(segment) = self.nodes[node].disks[core].superfluous() {
                if crashes && self.rng.bool() {
                    break;
                }
                self.nodes[node].disks[core].retire(segment);
            }
            self.rehearse(node, core, &config)?;
            let misread = self.misread_start(node, core);
            let mixed_up = if misread { None } else { self.mix_up(node, core) };
            let replayed = self.replay(node, core, config);
            self.nodes[node].disks[core].read_well();
            if let Some(foreign) = mixed_up {
                return self.is_turned_away((node, core), foreign, replayed);
            }
            let (shard, report) = match replayed {
                Ok(replayed) => replayed,
                // Whoever is shown something else may refuse to start. It is started again.
                Err(error @ RecoverError::AloneDamage { .. }) if self.may_be_given_up(node) => {
                    // It joined later, and has lost who else belongs to a group: nobody else can tell what
                    // it promised there.
                    self.outcome.starts_refused += 1;
                    self.note(&[28, node as u64], || format!("node {node} is given up: {error}"));
                    self.may_be_too_few |= !self.can_do_without(self.nodes[node].id);
                    self.give_up(node);
                    return Ok(());
                }
                Err(error) if misread => return self.refuses(node, core, &error.to_string()),
                Err(error) => return Err(failed(error.to_string())),
            };
            let torn = &report.log.torn;
            let losses = &report.losses;
            self.outcome.losses += losses.len() as u64;
            if let Some(loss) = losses.first().filter(|_| !self.has_decayed(node)) {
                return Err(format!("whole log called damaged: node {node} core {core}: {loss}"));
            }
            self.note(&[12, node as u64, core as u64, report.log.discard.len() as u64], || {
                format!(
                    "node {node} core {core} recovered; torn {torn:?}, stale {:?}, lost {losses:?}",
                    report.log.discard
                )
            });
            for &segment in &report.log.discard {
                if crashes && self.rng.bool() {
                    continue;
                }
                self.nodes[node].disks[core].retire(segment);
            }
            cores.push(Core {
                shard,
                inbox: Vec::new(),
                is_due: false,
                stalled_until: 0,
                wakes_at: u64::MAX,
                effects: Default::default(),
                saved: Default::default(),
            });
        }
        if crashes {
            self.outcome.faults.crashes_in_recovery += 1;
            let delay = self.rng.u64(1_000..=self.options.nodes.down_ms * 1_000);
            self.after(delay, Happening::Start { node });
            return Ok(());
        }
        for (core, it) in cores.iter().enumerate() {
            if let Some((group, index)) = it.shard.lost_track() {
                return Err(format!(
                    "node {node} core {core} does not know where entry {index} of group {group} lies"
                ));
            }
        }
        self.nodes[node].cores = cores;
        for core in 0..self.nodes[node].cores.len() {
            self.look(node, core)?;
            self.schedule_turn(node, core);
        }
        Ok(())
    }

    /// What the log of a core comes to.
    pub(super) fn replay(
        &mut self,
        node: usize,
        core: usize,
        config: Config,
    ) -> Result<(Shard, Recovery), RecoverError> {
        let now = self.nodes[node].clock.read(self.now);
        self.read_log(node, core, config)?.finish(now)
    }

    /// The log of a core, read to its end.
    pub(super) fn read_log(
        &mut self,
        node: usize,
        core: usize,
        config: Config,
    ) -> Result<Recovering, RecoverError> {
        let Self { nodes, options, embedded, .. } = self;
        let is_read_ahead = nodes[node].life.is_multiple_of(2);
        let disk = &mut nodes[node].disks[core];
        let first = disk.first();
        let recovering = match embedded {
            Some(embedded) => {
                let node = config.node;
                Recovering::with_machines(config, &|group| embedded.machine(node, group))
            }
            None => Recovering::new(config),
        };
        let mut recovering =
            recovering.with_segment_bytes(options.segment_bytes).reclaimed_to(first);
        let mut segments = disk.segments();
        segments.retain(|segment| first <= *segment);
        for (at, &segment) in segments.iter().enumerate() {
            let mut later = segments[at + 1..].iter();
            later.find_map(|&later| recovering.look_ahead(later, &disk.first_block(later)));
            let bytes = disk.look(segment);
            if is_read_ahead {
                // As by a thread beside it.
                let end = bytes.len() as u64;
                let checked = wal::Checked::new(recovering.identity(), segment, &bytes, end);
                recovering.trust(checked);
            }
            recovering.segment(segment, &bytes)?;
        }
        Ok(recovering)
    }

    pub(super) fn config(&mut self, node: usize, core: usize) -> Config {
        let founders = self.founders();
        let flushes_in_flight = self.rng.usize(1..=limits::FLUSHES_IN_FLIGHT_MAX);
        Config {
            cluster: CLUSTER,
            node: self.nodes[node].id,
            incarnation: Incarnation(self.nodes[node].life),
            shard: Self::shard_id(core),
            cores: self.nodes[node].disks.len() as u16,
            groups: self.options.groups,
            nodes: match node < founders {
                true => self.nodes[..founders].iter().map(|node| node.id).collect(),
                false => Vec::new(),
            },
            addresses: Vec::new(),
            priority: 100,
            election_ms: self.options.election_ms,
            heartbeat_ms: self.options.heartbeat_ms,
            request_ms: self.options.request_ms,
            flushes_in_flight,
            // Small batches are all there are here: half of the cores have several of them in flight.
            flush_joins_bytes: flushes_in_flight % 2 * limits::FLUSH_JOINS_BYTES,
            log_cache_bytes: self.options.log_cache_bytes,
            leases: self.options.leases.clone(),
            log_bytes: self.options.log_bytes,
            snapshot_bytes_per_s: limits::SNAPSHOT_BYTES_PER_S,
            seed: self.rng.u64(..),
        }
    }

    /// The power of a node fails.
    pub(super) fn crash(&mut self, node: usize) -> Checked {
        if !self.nodes[node].is_up() {
            return Ok(());
        }
        self.outcome.faults.crashes += 1;
        let tears = &self.options.disk.tears;
        let tear = tears[self.rng.usize(..tears.len())];
        let (mut lost, mut writes) = (0, 0);
        for disk in &mut self.nodes[node].disks {
            let loss = disk.crash(tear, &mut self.rng);
            (lost, writes) = (lost + loss.sectors, writes + loss.writes);
            if planted(Planted::FlushIgnored) {
                disk.forget_last();
            }
        }
        self.outcome.faults.torn_writes += u64::from(lost > 0);
        self.outcome.faults.writes_lost += writes as u64;
        self.note(&[13, node as u64, lost as u64], || {
            format!("node {node} crashes; {tear:?} loses {lost} sectors")
        });
        self.gone(node);
        Ok(())
    }

    /// A node is to stop: half of the time it has some for a checkpoint, enough or not.
    pub(super) fn stop_soon(&mut self, node: usize) {
        if self.rng.bool() {
            return self.stop(node);
        }
        self.outcome.faults.checkpoints += 1;
        self.note(&[25, node as u64], || format!("node {node} makes a checkpoint"));
        for core in &mut self.nodes[node].cores {
            core.shard.checkpoint();
        }
        let delay = self.rng.u64(1_000..300_000);
        self.after_for(delay, node, ForNode::Stop);
    }

    /// A node is told to stop: it finishes what is in flight and proves its log durable.
    pub(super) fn stop(&mut self, node: usize) {
        self.outcome.faults.stops += 1;
        self.note(&[14, node as u64], || format!("node {node} stops in good order"));
        let Self { nodes, rng, .. } = self;
        let it = &mut nodes[node];
        for (disk, core) in it.disks.iter_mut().zip(&mut it.cores) {
            if let Some(write) = core.shard.closing_write() {
                let mut data = Vec::new();
                write.encode_unpadded(&mut data);
                disk.start(write.ticket, write.segment, write.offset, &data);
            }
            disk.crash(super::disk::Tear::Keep, rng);
        }
        self.gone(node);
    }

    /// What follows from a process being gone.
    fn gone(&mut self, node: usize) {
        self.nodes[node].cores.clear();
        let id = self.nodes[node].id;
        self.safety.on_crash(self.nodes[node].replica());
        if let Some(embedded) = &mut self.embedded {
            embedded.on_crash(self.nodes[node].replica());
        }
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            // What it sent may have left its buffers, or not.
            if self.rng.bool() {
                self.net.break_link(node, other);
            }
            if self.nodes[other].is_up() {
                let delay = self.rng.u64(100..20_000);
                self.after_for(delay, other, ForNode::Unreachable { of: id });
            }
        }
        let calls: Vec<u64> =
            self.waiting.iter().filter(|(_, it)| it.node == node).map(|(call, _)| call).collect();
        for call in calls {
            // Replies that left before the crash may still arrive.
            self.after(1_000, Happening::Closed { call });
        }
        let delay = self.rng.u64(1_000..=self.options.nodes.down_ms.max(10) * 1_000);
        self.after(delay, Happening::Start { node });
    }
}
