//! When faults strike that are no accident of a single frame or write.

use crate::raft::effects::RoleKind;

use super::net::{Shape, happens};
use super::node::Node;
use super::safety::Checked;
use super::world::{ForNode, Happening, World};

/// What strikes every now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Crash,
    Pause,
    CoreStall,
    ClockJump,
    ClockRate,
    Partition,
    Flap,
    SlowLink,
    Swizzle,
    FullDisk,
    SlowDisk,
    Hang,
    Decay,
    /// A file of a log is not what it was.
    Files,
    /// A disk is replaced by an empty one.
    Wipe,
    /// An operator does something.
    Operate,
}

impl Kind {
    const ALL: [Self; 16] = [
        Self::Crash,
        Self::Pause,
        Self::CoreStall,
        Self::ClockJump,
        Self::ClockRate,
        Self::Partition,
        Self::Flap,
        Self::SlowLink,
        Self::Swizzle,
        Self::FullDisk,
        Self::SlowDisk,
        Self::Hang,
        Self::Decay,
        Self::Files,
        Self::Wipe,
        Self::Operate,
    ];
}

/// All disks are damaged at most so many election timeouts before faults stop.
const EVERYWHERE_ELECTIONS: u64 = 16;

impl World {
    /// Schedules the first fault of each kind that this world has.
    pub(super) fn unleash(&mut self) {
        Kind::ALL.into_iter().for_each(|kind| self.strike_later(kind));
        if self.options.disk.everywhere > 0 && self.rng.bool() {
            // Soon before all faults stop, so that others meet those who give each other back what they have.
            let elections = self.options.election_ms * self.rng.u64(..EVERYWHERE_ELECTIONS);
            let at = self.options.chaos_ms.saturating_sub(elections);
            self.after(1_000 * at.max(1), Happening::Everywhere);
        }
    }

    /// The next fault of a kind, about as often as the options say.
    fn strike_later(&mut self, kind: Kind) {
        let (net, disk, nodes) = (&self.options.net, &self.options.disk, &self.options.nodes);
        let every_ms = match kind {
            Kind::Crash => nodes.crash_every_ms,
            Kind::Pause => nodes.pause_every_ms,
            Kind::CoreStall => nodes.stall_every_ms,
            Kind::ClockJump => nodes.clock_jump_every_ms,
            Kind::ClockRate => nodes.clock_rate_every_ms,
            Kind::Partition => net.partition_every_ms,
            Kind::Flap => net.flap_every_ms,
            Kind::SlowLink => net.slow_link_every_ms,
            Kind::Swizzle => net.swizzle_every_ms,
            Kind::FullDisk => disk.full_every_ms,
            Kind::SlowDisk => disk.slow_every_ms,
            Kind::Hang => disk.hang_every_ms,
            Kind::Decay => disk.decay_every_ms,
            Kind::Files => disk.files_every_ms,
            Kind::Wipe => nodes.wipe_every_ms,
            Kind::Operate => self.options.operate_every_ms,
        };
        if every_ms > 0 {
            let delay = self.rng.u64(1..=2_000 * every_ms);
            self.after(delay, Happening::Strike(kind));
        }
    }

    /// It is time.
    pub(super) fn strike(&mut self, kind: Kind) -> Checked {
        if !self.is_chaos {
            return Ok(());
        }
        self.strike_later(kind);
        match kind {
            Kind::Crash => return self.strike_crash(),
            Kind::Pause => self.strike_pause(),
            Kind::CoreStall => self.strike_core(),
            Kind::ClockJump | Kind::ClockRate => self.strike_clock(kind),
            Kind::Partition => self.strike_partition(),
            Kind::Flap => self.strike_flap(),
            Kind::SlowLink => self.strike_slow_link(),
            Kind::Swizzle => self.strike_swizzle(),
            Kind::FullDisk => self.strike_full_disk(),
            Kind::SlowDisk | Kind::Hang => self.strike_disk(kind),
            Kind::Decay => self.strike_decay(),
            Kind::Files => return self.strike_files(),
            Kind::Wipe => return self.strike_wipe(),
            Kind::Operate => self.operate(),
        }
        Ok(())
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
            return self.any_node();
        }
        leaders[self.rng.usize(..leaders.len())]
    }

    /// Two different nodes, if there are two.
    fn pair(&mut self) -> Option<(usize, usize)> {
        let nodes = self.nodes.len();
        if nodes < 2 {
            return None;
        }
        let one = self.victim();
        let other = (one + self.rng.usize(1..nodes)) % nodes;
        Some(if self.rng.bool() { (one, other) } else { (other, one) })
    }

    fn up_to(&mut self, most_ms: u64) -> u64 {
        self.now + self.rng.u64(1..=most_ms.max(1) * 1_000)
    }

    // --- nodes --------------------------------------------------------------------------------

    fn strike_crash(&mut self) -> Checked {
        if happens(&mut self.rng, self.options.nodes.crash_all) {
            if !self.strikes(|| "power fails everywhere".into()) {
                return Ok(());
            }
            return (0..self.nodes.len()).try_for_each(|node| self.crash(node));
        }
        let node = self.victim();
        let in_good_order = self.rng.u32(..8) == 0;
        let how = if in_good_order { "is stopped" } else { "loses power" };
        if !self.nodes[node].is_up() || !self.strikes(|| format!("node {node} {how}")) {
            return Ok(());
        }
        if in_good_order {
            self.stop_soon(node);
            return Ok(());
        }
        self.crash(node)
    }

    fn strike_pause(&mut self) {
        let node = self.victim();
        let until = self.up_to(self.options.nodes.pause_ms);
        let what = || format!("node {node} pauses until {until}");
        if self.nodes[node].is_up() && self.strikes(what) {
            self.outcome.faults.pauses += 1;
            self.nodes[node].paused_until = until;
        }
    }

    /// One core stops; what its siblings post to it waits.
    fn strike_core(&mut self) {
        let node = self.victim();
        let cores = self.nodes[node].cores.len();
        if cores < 2 {
            return;
        }
        let core = self.rng.usize(..cores);
        let until = self.up_to(self.options.nodes.stall_ms);
        if self.strikes(|| format!("node {node} core {core} stalls until {until}")) {
            self.outcome.faults.core_stalls += 1;
            self.nodes[node].cores[core].stalled_until = until;
        }
    }

    fn strike_clock(&mut self, kind: Kind) {
        let node = self.victim();
        let most = self.options.nodes.clock_jump_ms.max(1) as i64 * 1_000;
        let (by_us, forward) = (self.rng.i64(1..=most), self.rng.bool());
        let skew = self.options.nodes.clock_skew_percent;
        let rate = self.rng.u64(100 - skew..=100 + skew);
        if !self.nodes[node].is_up() {
            return;
        }
        let now = self.now;
        if kind == Kind::ClockRate {
            if self.strikes(|| format!("the clock of node {node} runs at {rate} %")) {
                self.outcome.faults.clock_rates += 1;
                self.nodes[node].clock.run_at(now, rate);
            }
        } else if forward {
            if self.strikes(|| format!("the clock of node {node} jumps forward by {by_us} us")) {
                self.outcome.faults.clock_jumps_forward += 1;
                self.nodes[node].clock.jump(now, by_us);
            }
        } else if self.strikes(|| format!("the clock of node {node} jumps back by {by_us} us")) {
            self.outcome.faults.clock_jumps_back += 1;
            self.nodes[node].clock.jump(now, -by_us);
        }
        // The timers of its cores were set by another time.
        self.wake_all(node);
    }

    // --- network ------------------------------------------------------------------------------

    fn strike_partition(&mut self) {
        let first = self.victim();
        let (shape, pairs) = self.net.partition(self.nodes.len(), first, &mut self.rng);
        let is_noticed = self.rng.bool();
        let until = self.up_to(self.options.net.partition_ms);
        if pairs.is_empty() || !self.strikes(|| format!("partition {shape:?} cuts {pairs:?}")) {
            return;
        }
        let faults = &mut self.outcome.faults;
        faults.partitions += 1;
        faults.rings += u64::from(shape == Shape::Ring);
        faults.bridges += u64::from(shape == Shape::Bridge);
        faults.one_way += u64::from(!pairs.contains(&(pairs[0].1, pairs[0].0)));
        self.cut(&pairs, is_noticed);
        self.after(until - self.now, Happening::Mend(pairs));
    }

    /// Cuts pairs; sometimes the links notice.
    pub(super) fn cut(&mut self, pairs: &[(usize, usize)], is_noticed: bool) {
        if !self.is_chaos {
            return;
        }
        self.note(&[16, pairs.len() as u64], || format!("cut {pairs:?}"));
        self.net.cut(pairs);
        if is_noticed {
            for &(from, to) in pairs {
                self.net.break_link(from, to);
                self.on_link_broken(from, to);
            }
        }
    }

    fn strike_flap(&mut self) {
        let Some((a, b)) = self.pair() else { return };
        let until = self.up_to(self.options.net.flap_ms);
        if self.strikes(|| format!("the link between {a} and {b} flaps until {until}")) {
            self.outcome.faults.flaps += 1;
            self.flap((a, b), until, false);
        }
    }

    /// A link that flaps is cut or mended.
    pub(super) fn flap(&mut self, (a, b): (usize, usize), until: u64, is_down: bool) {
        let pairs = [(a, b), (b, a)];
        if is_down {
            self.net.mend(&pairs);
        }
        if self.now < until && self.is_chaos {
            if !is_down {
                let is_noticed = self.rng.bool();
                self.cut(&pairs, is_noticed);
            }
            let delay = self.rng.u64(1_000..50_000);
            self.after(delay, Happening::Flap { pair: (a, b), until, is_down: !is_down });
        }
    }

    fn strike_slow_link(&mut self) {
        let Some((from, to)) = self.pair() else { return };
        let until = self.up_to(self.options.net.slow_link_ms);
        if self.strikes(|| format!("the link from {from} to {to} is slow until {until}")) {
            self.outcome.faults.slow_links += 1;
            self.net.slow(from, to, until, self.options.net.slow_link_us);
        }
    }

    /// Nodes lose all their links one by one, and get them back in another order.
    fn strike_swizzle(&mut self) {
        let nodes = self.nodes.len();
        if nodes < 2 {
            return;
        }
        let mut order: Vec<usize> = (0..nodes).collect();
        self.rng.shuffle(&mut order);
        order.truncate(self.rng.usize(2..=nodes));
        let half = self.options.net.swizzle_ms.max(2) * 500;
        let mut cut_at: Vec<u64> = order.iter().map(|_| self.rng.u64(1..half)).collect();
        let mut mend_at: Vec<u64> = order.iter().map(|_| half + self.rng.u64(1..half)).collect();
        if !self.strikes(|| format!("nodes {order:?} lose their links one by one")) {
            return;
        }
        self.outcome.faults.swizzles += 1;
        cut_at.sort_unstable();
        mend_at.sort_unstable();
        let links = |node: usize| -> Vec<(usize, usize)> {
            let others = (0..nodes).filter(|&other| other != node);
            others.flat_map(|other| [(node, other), (other, node)]).collect()
        };
        for (&node, at) in order.iter().zip(cut_at) {
            self.after(at, Happening::Cut(links(node)));
        }
        self.rng.shuffle(&mut order);
        for (&node, at) in order.iter().zip(mend_at) {
            self.after(at, Happening::Mend(links(node)));
        }
    }

    // --- disks --------------------------------------------------------------------------------

    fn strike_full_disk(&mut self) {
        let node = self.any_node();
        let delay = self.rng.u64(1..=self.options.disk.full_ms.max(1) * 1_000);
        if self.nodes[node].is_up() && self.strikes(|| format!("the disk of node {node} is full")) {
            self.outcome.faults.disks_full += 1;
            self.after_for(0, node, ForNode::DiskFull(true));
            self.after_for(delay, node, ForNode::DiskFull(false));
        }
    }

    /// The disk of a core takes long, or forever, for a while.
    fn strike_disk(&mut self, kind: Kind) {
        let node = self.victim();
        let core = self.rng.usize(..self.nodes[node].disks.len());
        let is_hang = kind == Kind::Hang;
        let disk = &self.options.disk;
        let until = self.up_to(if is_hang { disk.hang_ms } else { disk.slow_ms });
        let how = if is_hang { "hangs" } else { "is slow" };
        if !self.strikes(|| format!("the disk of node {node} core {core} {how} until {until}")) {
            return;
        }
        if is_hang {
            self.outcome.faults.hangs += 1;
            self.nodes[node].hangs_until[core] = until;
        } else {
            self.outcome.faults.slow_disks += 1;
            self.nodes[node].slow_until[core] = until;
        }
    }
}
