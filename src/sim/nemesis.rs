//! When faults strike.

use crate::raft::effects::RoleKind;

use super::net::happens;
use super::node::Node;
use super::safety::Checked;
use super::world::{ForNode, Happening, World};

impl World {
    /// Schedules the first fault of each kind that this world has.
    pub(super) fn unleash(&mut self) {
        for what in [
            Happening::Crash,
            Happening::Pause,
            Happening::Partition,
            Happening::FullDisk,
            Happening::Operate,
        ] {
            self.strike_later(what);
        }
    }

    /// The next fault of a kind, about as often as the options say.
    pub(super) fn strike_later(&mut self, what: Happening) {
        let every_ms = match what {
            Happening::Crash => self.options.nodes.crash_every_ms,
            Happening::Pause => self.options.nodes.pause_every_ms,
            Happening::Partition => self.options.net.partition_every_ms,
            Happening::FullDisk => self.options.disk.full_every_ms,
            Happening::Operate => self.options.operate_every_ms,
            _ => 0,
        };
        if every_ms > 0 && self.is_chaos {
            let delay = self.rng.u64(1..=2_000 * every_ms);
            self.after(delay, what);
        }
    }

    /// A node to hurt: any, or one that leads something, which hurts more.
    fn victim(&mut self) -> usize {
        let leads = |node: &Node| {
            let mut replicas = node.cores.iter().flat_map(|core| core.shard.replicas());
            replicas.any(|replica| replica.status().role == RoleKind::Leader)
        };
        let leaders: Vec<usize> =
            (0..self.nodes.len()).filter(|&node| leads(&self.nodes[node])).collect();
        if leaders.is_empty() || self.rng.bool() {
            return self.rng.usize(..self.nodes.len());
        }
        leaders[self.rng.usize(..leaders.len())]
    }

    pub(super) fn strike_crash(&mut self) -> Checked {
        if !self.is_chaos {
            return Ok(());
        }
        self.strike_later(Happening::Crash);
        if happens(&mut self.rng, self.options.nodes.crash_all) {
            return (0..self.nodes.len()).try_for_each(|node| self.crash(node));
        }
        let node = self.victim();
        if self.rng.u32(..8) == 0 && self.nodes[node].is_up() {
            self.stop(node);
            return Ok(());
        }
        self.crash(node)
    }

    pub(super) fn strike_pause(&mut self) -> Checked {
        if !self.is_chaos {
            return Ok(());
        }
        self.strike_later(Happening::Pause);
        let node = self.victim();
        let until = self.now + self.rng.u64(1..=self.options.nodes.pause_ms * 1_000);
        self.outcome.faults.pauses += 1;
        self.note(&[15, node as u64, until], || format!("node {node} pauses until {until}"));
        self.nodes[node].paused_until = until;
        Ok(())
    }

    pub(super) fn strike_partition(&mut self) -> Checked {
        if !self.is_chaos {
            return Ok(());
        }
        self.strike_later(Happening::Partition);
        let first = self.victim();
        let pairs = self.net.partition(self.nodes.len(), first, &mut self.rng);
        self.outcome.faults.partitions += 1;
        self.note(&[16, pairs.len() as u64], || format!("partition cuts {pairs:?}"));
        // Sometimes the links notice.
        if self.rng.bool() {
            for &(from, to) in &pairs {
                self.net.break_link(from, to);
                self.on_link_broken(from, to);
            }
        }
        let delay = self.rng.u64(1..=self.options.net.partition_ms * 1_000);
        self.after(delay, Happening::Mend(pairs));
        Ok(())
    }

    pub(super) fn strike_full_disk(&mut self) -> Checked {
        if !self.is_chaos {
            return Ok(());
        }
        self.strike_later(Happening::FullDisk);
        let node = self.rng.usize(..self.nodes.len());
        if self.nodes[node].is_up() {
            self.outcome.faults.disks_full += 1;
            self.after_for(0, node, ForNode::DiskFull(true));
            let delay = self.rng.u64(1..=self.options.disk.full_ms * 1_000);
            self.after_for(delay, node, ForNode::DiskFull(false));
        }
        Ok(())
    }
}
