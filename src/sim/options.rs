//! How big the world is, and how hard it is on the cluster.
//!
//! [`Options::swarm`] draws everything from the seed: each seed switches some faults on and leaves
//! others off, because a world that always does everything never does one thing for long ("swarm
//! testing"). Probabilities are in ten-thousandths, times in virtual microseconds unless they say
//! milliseconds.

use fastrand::Rng;

use crate::shard::{LeasedGroups, Leases};

use super::crash_points::CrashPoint;
use super::disk::Tear;

/// One world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Cores of each node; its length is the number of nodes.
    pub cores: Vec<u16>,
    /// So many of them, the last, belong to no group at first.
    pub spares: usize,
    /// Cores of nodes that are not there until they take the places of nodes whose disks were replaced.
    pub replacements: Vec<u16>,
    /// Time between two acts of an operator, on average; zero for none.
    pub operate_every_ms: u64,
    /// Raft groups.
    pub groups: u64,
    /// The election timeout.
    pub election_ms: u64,
    /// The heartbeat interval.
    pub heartbeat_ms: u64,
    /// After how long a node gives up on a request.
    pub request_ms: u64,
    /// How long faults last.
    pub chaos_ms: u64,
    /// Clients, each with one request outstanding.
    pub clients: usize,
    /// Pause of a client between an answer and its next request, at most.
    pub think_us: u64,
    /// Keys per group.
    pub keys_per_group: usize,
    /// Largest value, in bytes; most are a few.
    pub value_bytes_max: usize,
    /// Entries kept in memory per core, in bytes.
    pub log_cache_bytes: usize,
    /// How long a core's log should be, in bytes; short ones are truncated often.
    pub log_bytes: u64,
    /// Bytes of a log segment; small ones are full soon.
    pub segment_bytes: usize,
    /// Which groups answer reads by lease.
    pub leases: Leases,
    /// Half of all reads may be answered by followers.
    pub reads_nearby: bool,
    /// Between two looks at the clock.
    pub ticker_us: u64,
    /// A core takes its turns this far apart, and each takes what has arrived until then; zero for a
    /// turn soon after every event. The coarser, the fewer turns there are to simulate.
    pub turn_us: u64,
    /// The network.
    pub net: NetOptions,
    /// The disks.
    pub disk: DiskOptions,
    /// The nodes.
    pub nodes: NodeOptions,
    /// One client in so many only reads.
    pub readers_one_in: usize,
    /// Of a hundred calls of other clients so many are a plain write of one key, whatever the mix of
    /// commands; zero for the mix alone.
    pub writes_percent: u32,
    /// Calls, in percent, on keys that expire. They are not checked against a history: a key may be gone
    /// whenever its leader says so. That all replicas lose it at the same entry is.
    pub expiring_percent: u32,
    /// So many groups at a time have all the load, and others after [`Self::busy_ms`]; zero for all of them.
    pub busy_groups: u64,
    /// How long the same groups have the load.
    pub busy_ms: u64,
    /// How many of the clients write in sessions, and retry until they know.
    pub session_clients: usize,
    /// Of the faults with numbers, only these strike; all if none are named. Ascending.
    pub strikes: Option<Vec<u64>>,
}

/// What the network does to frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetOptions {
    /// Shortest delay of a frame.
    pub delay_us: u64,
    /// What chance adds to it, at most.
    pub jitter_us: u64,
    /// Chance that a frame takes fifty times as long.
    pub slow: u32,
    /// Chance that a frame vanishes.
    pub drop: u32,
    /// Chance that a frame without forwards and answers arrives twice.
    pub duplicate: u32,
    /// Chance that a frame overtakes those before it in its lane.
    pub overtake: u32,
    /// Chance that a byte of a frame is flipped.
    pub corrupt: u32,
    /// Chance that a link breaks when a frame is sent; what is under way on it is lost.
    pub break_link: u32,
    /// Time between two partitions, on average; zero for none.
    pub partition_every_ms: u64,
    /// How long a partition lasts, at most.
    pub partition_ms: u64,
    /// Chance that a partition cuts one direction only.
    pub one_way: u32,
    /// Time between two links that flap, on average; zero for none.
    pub flap_every_ms: u64,
    /// How long a link flaps, at most: it is cut and mended every few milliseconds.
    pub flap_ms: u64,
    /// Time between two links that become slow in one direction, on average; zero for none.
    pub slow_link_every_ms: u64,
    /// How long they stay slow, at most.
    pub slow_link_ms: u64,
    /// What a slow link adds to every delay, at most.
    pub slow_link_us: u64,
    /// Time between two swizzles, on average; zero for none: some nodes lose all their links one after
    /// the other, and get them back in another order.
    pub swizzle_every_ms: u64,
    /// How long a swizzle takes, at most.
    pub swizzle_ms: u64,
    /// Chance that bytes from an earlier life of a sender arrive on its new connection.
    pub stale: u32,
}

/// What disks do to writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// Shortest time from write to durable.
    pub flush_us: u64,
    /// What chance adds to it, at most.
    pub jitter_us: u64,
    /// Chance that a flush stalls.
    pub stall: u32,
    /// For how long, at most.
    pub stall_us: u64,
    /// Chance that a write fails and nothing of it arrives, which stops its node.
    pub error: u32,
    /// Chance that only a first part of a write arrives before it fails, which stops its node.
    pub short_write: u32,
    /// Chance that a flush fails after its write: what was written is there or not, and the node
    /// stops.
    pub sync_error: u32,
    /// Chance that a sealed segment cannot be read, which stops the node.
    pub read_error: u32,
    /// What a crash may do to writes in flight.
    pub tears: Vec<Tear>,
    /// Time to prepare a spare segment, at most.
    pub spare_us: u64,
    /// Time between two disk-full periods of some node, on average; zero for none.
    pub full_every_ms: u64,
    /// How long a disk stays full, at most.
    pub full_ms: u64,
    /// Time between two periods in which the disk of a core takes twenty times as long, on average;
    /// zero for none.
    pub slow_every_ms: u64,
    /// How long such a period is, at most.
    pub slow_ms: u64,
    /// Time between two periods in which nothing on the disk of a core completes, on average; zero for
    /// none.
    pub hang_every_ms: u64,
    /// How long such a period is, at most.
    pub hang_ms: u64,
    /// Time between two faults that damage what is durable, on average; zero for none. They strike one
    /// node only: with a majority undamaged, everything committed can be had from others.
    pub decay_every_ms: u64,
    /// Time between two moments in which the one disk that decays loses a file, or has one cut short or
    /// put back to what it was earlier, on average; zero for none. Its node loses power then.
    pub files_every_ms: u64,
    /// Blocks that rot in each log on every node, at most, when the faults stop, of each entry not all copies; zero for
    /// none.
    pub everywhere: u32,
    /// Chance that a read shows one block as it was before it was last written, or shows another block
    /// in its place, for once: when entries are read back, on any node, and then perhaps with one bit
    /// flipped; and at a start, on the one whose disk decays.
    pub misread: u32,
    /// Chance that a start of a core finds a file under the name of a segment that is another log's, another
    /// version's, or a later segment of its own: it is turned away, and the file is put right.
    pub foreign: u32,
    /// A new segment is a retired one under a new name, with what was in it, if there is one, as the
    /// node's own driver has it; else each is of zeroes.
    pub recycles: bool,
    /// Chance that a start is rehearsed with one bit of the log flipped.
    pub rehearse: u32,
    /// Bits flipped at one such start, one at a time.
    pub flips: u32,
    /// Chance, when a promise is heard, that the sender's disk is read to see whether it would survive
    /// a loss of power at this moment.
    pub audit: u32,
}

/// What happens to nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOptions {
    /// A named point, and the chance that a node that passes it loses its power there.
    pub crash_at: Option<(CrashPoint, u32)>,
    /// Time between two crashes, on average; zero for none.
    pub crash_every_ms: u64,
    /// How long a node stays down, at most.
    pub down_ms: u64,
    /// Chance that a crash takes all nodes at once.
    pub crash_all: u32,
    /// Chance, when a turn had effects, that the node crashes between two of them.
    pub crash_in_turn: u32,
    /// Chance that a start crashes before the node serves.
    pub crash_in_recovery: u32,
    /// Time between two pauses, on average; zero for none.
    pub pause_every_ms: u64,
    /// How long a pause lasts, at most.
    pub pause_ms: u64,
    /// Chance that the mailbox of a core is full when a sibling posts to it.
    pub mailbox_full: u32,
    /// How much faster or slower clocks run, at most, in hundredths.
    pub clock_skew_percent: u64,
    /// Time between two changes of the rate of a clock, on average; zero for none.
    pub clock_rate_every_ms: u64,
    /// Time between two jumps of a clock, on average; zero for none. A clock that is set back stands
    /// still until it has caught up, because what a process reads never goes back.
    pub clock_jump_every_ms: u64,
    /// How far a clock jumps, at most.
    pub clock_jump_ms: u64,
    /// Time between two stalls of one core while its siblings go on, on average; zero for none.
    pub stall_every_ms: u64,
    /// How long a core stalls, at most.
    pub stall_ms: u64,
    /// Time between two moments in which a disk is replaced by an empty one, on average; zero for none. Its
    /// node never comes back, and the operator puts one with a new id in its place. While that takes, no
    /// other disk is replaced.
    pub wipe_every_ms: u64,
}

impl Options {
    /// A world drawn from its seed.
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        // A stream of its own, so that a change of the draw does not move the world's dice.
        let mut rng = Rng::with_seed(seed ^ 0x7377_6172_6d00_0000);
        let rng = &mut rng;
        let founders = pick(rng, &[3, 3, 3, 5]);
        // Members come and go in more than half of all worlds, those of a single node left out.
        let is_operated = rng.u32(..10) < 7;
        let spares = if is_operated { rng.usize(0..=2) } else { 0 };
        let nodes = founders + spares;
        let same_cores = rng.u32(..4) != 0;
        let cores = pick(rng, &[1, 1, 2]);
        let cores: Vec<u16> =
            (0..nodes).map(|_| if same_cores { cores } else { rng.u16(1..=2) }).collect();
        // One world in five is a single node, with dice of its own so that the others stay what they
        // are. A short log makes whoever was away need a snapshot.
        let mut alone = Rng::with_seed(seed ^ 0x616c_6f6e_6500_0000);
        let (cores, log_bytes) = match alone.u32(..5) {
            0 => (vec![alone.u16(1..=2)], pick(&mut alone, &[0, 1 << 20])),
            _ => (cores, pick(&mut alone, &[0, 0, 1 << 20, u64::MAX / 4])),
        };
        let spares = if cores.len() == 1 { 0 } else { spares };
        let value_bytes_max = pick(rng, &[20, 20, 600, 5_000]);
        let election_ms = pick(rng, &[100, 150, 300]);
        let nodes = NodeOptions::swarm(rng);
        // Dice of its own, so that the others stay what they are.
        let mut decay = Rng::with_seed(seed ^ 0x6465_6361_7900_0000);
        let decay_every_ms = pick(&mut decay, &[0, 0, 400, 1_500]);
        // Clocks that differ by 10 percent either way need a lease shorter by 19.
        let may_lease = nodes.clock_skew_percent <= 10 && rng.bool();
        let groups = if may_lease { LeasedGroups::All } else { LeasedGroups::None };
        let leases = Leases { groups, drift_percent: 25 };
        let mut it = Self {
            cores,
            spares,
            replacements: Vec::new(),
            operate_every_ms: if is_operated { pick(rng, &[100, 400]) } else { 0 },
            groups: pick(rng, &[1, 2, 3, 4]),
            election_ms,
            heartbeat_ms: election_ms / pick(rng, &[3, 5, 10]),
            request_ms: pick(rng, &[300, 1_000, 2_000]),
            chaos_ms: pick(rng, &[4_000, 6_000, 8_000]),
            clients: rng.usize(3..=8),
            think_us: pick(rng, &[2_000, 20_000, 60_000]),
            keys_per_group: rng.usize(1..=3),
            value_bytes_max,
            log_cache_bytes: pick(rng, &[1 << 10, 16 << 10, 1 << 20]),
            // Small, so that logs rotate; but any batch must fit, even one of all there ever was.
            segment_bytes: if value_bytes_max > 1_000 { 2 << 20 } else { 256 << 10 },
            log_bytes,
            ticker_us: 5_000,
            turn_us: 0,
            net: NetOptions::swarm(rng),
            disk: DiskOptions { decay_every_ms, ..DiskOptions::swarm(rng) },
            nodes,
            leases,
            reads_nearby: rng.bool(),
            readers_one_in: 3,
            writes_percent: 0,
            expiring_percent: 0,
            busy_groups: 0,
            busy_ms: 0,
            session_clients: rng.usize(0..=5),
            strikes: None,
        };
        it.vary(&mut Rng::with_seed(seed ^ 0x7661_7279_0000_0000));
        it.lose(&mut Rng::with_seed(seed ^ 0x6c6f_7365_0000_0000));
        let mut hurt = Rng::with_seed(seed ^ 0x6875_7274_0000_0000);
        if it.cores.len() > 1 && it.is_of_founders() && hurt.bool() {
            it.disk.everywhere = pick(&mut hurt, &[2, 8, 30]);
        }
        it
    }

    /// Nobody joins and nobody leaves.
    fn is_of_founders(&self) -> bool {
        self.spares == 0 && self.operate_every_ms == 0 && self.nodes.wipe_every_ms == 0
    }

    /// What came later still: reads that lie, files that are not what they were, disks that are gone.
    fn lose(&mut self, rng: &mut Rng) {
        self.disk.misread = seldom(rng, &[500, 3_000]) as u32;
        self.disk.files_every_ms = seldom(rng, &[500, 1_500]);
        let (is_wiped, cores) = (rng.u32(..6) == 0, [rng.u16(1..=2), rng.u16(1..=2)]);
        if is_wiped && self.cores.len() > 1 {
            self.nodes.wipe_every_ms = pick(rng, &[500, 1_500]);
            self.replacements = cores.to_vec();
        }
        self.disk.foreign = seldom(rng, &[300, 2_000]) as u32;
    }

    /// What came later, with dice of its own so that what was there before stays as it is.
    fn vary(&mut self, rng: &mut Rng) {
        if self.cores.len() > 1 && rng.u32(..25) == 0 {
            // Many groups, with fewer beats each.
            (self.groups, self.keys_per_group) = (pick(rng, &[16, 64]), 1);
            (self.election_ms, self.heartbeat_ms) = (300, 100);
            self.chaos_ms = 4_000;
        }
        if self.election_ms == 300 {
            self.turn_us = pick(rng, &[0, 0, 1_000, 5_000]);
        }
        self.net.vary(rng);
        self.disk.vary(rng);
        self.nodes.vary(rng);
        if self.leases.groups != LeasedGroups::None {
            // A lease believes in clocks that run a little fast or slow, not in clocks that jump.
            self.nodes.clock_jump_every_ms = 0;
        }
        if self.cores.iter().all(|&cores| cores == 1) {
            self.nodes.stall_every_ms = 0;
        }
        self.expiring_percent = pick(rng, &[0, 0, 5, 25]);
    }

    /// The same world in slow motion: all that strikes, lasts, waits or is waited for takes so many times as
    /// long, and networks and disks are as fast as they were. So a world may last for many minutes, with
    /// a fault every few seconds all along, for the work of one that is over in as many seconds.
    #[must_use]
    pub fn slowed(mut self, times: u64) -> Self {
        let (net, disk, nodes) = (&mut self.net, &mut self.disk, &mut self.nodes);
        for slower in [
            &mut self.operate_every_ms,
            &mut self.election_ms,
            &mut self.heartbeat_ms,
            &mut self.request_ms,
            &mut self.think_us,
            &mut self.ticker_us,
            &mut self.turn_us,
            &mut self.busy_ms,
            &mut net.partition_every_ms,
            &mut net.partition_ms,
            // How long it flaps stays: it changes every few milliseconds.
            &mut net.flap_every_ms,
            &mut net.slow_link_every_ms,
            &mut net.slow_link_ms,
            &mut net.swizzle_every_ms,
            &mut net.swizzle_ms,
            &mut disk.full_every_ms,
            &mut disk.full_ms,
            &mut disk.slow_every_ms,
            &mut disk.slow_ms,
            &mut disk.hang_every_ms,
            &mut disk.hang_ms,
            &mut disk.decay_every_ms,
            &mut disk.files_every_ms,
            &mut nodes.crash_every_ms,
            &mut nodes.down_ms,
            &mut nodes.pause_every_ms,
            &mut nodes.pause_ms,
            &mut nodes.clock_rate_every_ms,
            &mut nodes.clock_jump_every_ms,
            &mut nodes.clock_jump_ms,
            &mut nodes.stall_every_ms,
            &mut nodes.stall_ms,
            &mut nodes.wipe_every_ms,
        ] {
            *slower *= times;
        }
        self
    }

    /// A world that lasts, to measure the simulator by: three nodes, 64 groups, fifty and more writes
    /// committed a second, and a fault every few seconds. Its cores turn on a grid of 100 ms, so that a turn
    /// has something to do, and five groups at a time have all the load, as a few have in most
    /// clusters.
    #[must_use]
    pub fn lasting(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x6c61_7374_696e_6700);
        let rng = &mut rng;
        Self {
            cores: vec![1; 3],
            spares: 0,
            replacements: Vec::new(),
            operate_every_ms: 10_000,
            groups: 64,
            election_ms: 4_000,
            heartbeat_ms: 1_500,
            request_ms: 3_000,
            chaos_ms: 600_000,
            clients: 35,
            think_us: 120_000,
            keys_per_group: 4,
            value_bytes_max: 600,
            log_cache_bytes: 64 << 10,
            segment_bytes: 256 << 10,
            log_bytes: 2 << 20,
            ticker_us: 100_000,
            turn_us: 100_000,
            net: NetOptions {
                delay_us: pick(rng, &[50, 200, 1_000]),
                jitter_us: pick(rng, &[50, 1_000, 5_000]),
                slow: 10,
                drop: 2,
                duplicate: 2,
                overtake: 2,
                corrupt: 1,
                break_link: 1,
                partition_every_ms: 15_000,
                partition_ms: 3_000,
                one_way: 3_000,
                flap_every_ms: 40_000,
                flap_ms: 1_000,
                slow_link_every_ms: 40_000,
                slow_link_ms: 3_000,
                slow_link_us: 100_000,
                swizzle_every_ms: 60_000,
                swizzle_ms: 2_000,
                stale: 0,
            },
            disk: DiskOptions {
                stall: 5,
                stall_us: 400_000,
                error: 1,
                full_every_ms: 60_000,
                slow_every_ms: 40_000,
                slow_ms: 2_000,
                ..DiskOptions::swarm(rng)
            },
            nodes: NodeOptions {
                crash_at: Some((pick(rng, &CrashPoint::ALL), 1)),
                crash_every_ms: 30_000,
                down_ms: 3_000,
                crash_in_turn: 0,
                pause_every_ms: 15_000,
                pause_ms: 2_000,
                mailbox_full: 0,
                clock_skew_percent: 10,
                ..NodeOptions::swarm(rng)
            },
            leases: Leases { groups: LeasedGroups::All, drift_percent: 25 },
            reads_nearby: rng.bool(),
            readers_one_in: 8,
            writes_percent: 80,
            expiring_percent: 0,
            busy_groups: 5,
            busy_ms: 5_000,
            session_clients: 1,
            strikes: None,
        }
    }

    /// The same world without faults.
    #[must_use]
    pub fn calm(mut self) -> Self {
        self.net = NetOptions { delay_us: self.net.delay_us, ..NetOptions::calm() };
        self.disk = DiskOptions { flush_us: self.disk.flush_us, ..DiskOptions::calm() };
        self.nodes = NodeOptions::calm();
        self
    }
}

impl NetOptions {
    fn swarm(rng: &mut Rng) -> Self {
        Self {
            delay_us: pick(rng, &[50, 200, 1_000]),
            jitter_us: pick(rng, &[50, 1_000, 10_000]),
            slow: often(rng, &[10, 100, 500]),
            drop: often(rng, &[10, 100, 1_000]),
            duplicate: often(rng, &[50, 500]),
            overtake: often(rng, &[50, 1_000]),
            corrupt: often(rng, &[5, 20]),
            break_link: often(rng, &[5, 20]),
            partition_every_ms: often(rng, &[300, 1_000]).into(),
            partition_ms: pick(rng, &[100, 500, 1_500]),
            one_way: pick(rng, &[0, 3_000]),
            ..Self::calm()
        }
    }

    fn vary(&mut self, rng: &mut Rng) {
        self.flap_every_ms = seldom(rng, &[500, 1_500]);
        self.flap_ms = pick(rng, &[100, 1_000]);
        self.slow_link_every_ms = seldom(rng, &[500, 1_500]);
        self.slow_link_ms = pick(rng, &[200, 2_000]);
        self.slow_link_us = pick(rng, &[20_000, 200_000]);
        self.swizzle_every_ms = seldom(rng, &[1_000, 3_000]);
        self.swizzle_ms = pick(rng, &[300, 1_500]);
        self.stale = pick(rng, &[0, 5_000]);
    }

    /// A network that only takes its time.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            delay_us: 100,
            jitter_us: 100,
            slow: 0,
            drop: 0,
            duplicate: 0,
            overtake: 0,
            corrupt: 0,
            break_link: 0,
            partition_every_ms: 0,
            partition_ms: 0,
            one_way: 0,
            flap_every_ms: 0,
            flap_ms: 0,
            slow_link_every_ms: 0,
            slow_link_ms: 0,
            slow_link_us: 0,
            swizzle_every_ms: 0,
            swizzle_ms: 0,
            stale: 0,
        }
    }
}

impl DiskOptions {
    fn swarm(rng: &mut Rng) -> Self {
        let mut tears = Tear::ALL.to_vec();
        rng.shuffle(&mut tears);
        tears.truncate(rng.usize(1..=tears.len()));
        Self {
            flush_us: pick(rng, &[50, 500, 5_000]),
            jitter_us: pick(rng, &[50, 2_000, 20_000]),
            stall: often(rng, &[20, 200]),
            stall_us: pick(rng, &[50_000, 400_000]),
            error: often(rng, &[3, 10]),
            tears,
            spare_us: pick(rng, &[1_000, 100_000]),
            full_every_ms: often(rng, &[2_000]).into(),
            full_ms: 1_000,
            ..Self::calm()
        }
    }

    fn vary(&mut self, rng: &mut Rng) {
        self.short_write = seldom(rng, &[3, 10]) as u32;
        self.sync_error = seldom(rng, &[3, 10]) as u32;
        self.read_error = seldom(rng, &[300, 2_000]) as u32;
        self.recycles = rng.u32(..8) != 0;
        self.rehearse = seldom(rng, &[500, 3_000]) as u32;
        self.audit = often(rng, &[5, 50]);
        self.slow_every_ms = seldom(rng, &[500, 1_500]);
        self.slow_ms = pick(rng, &[200, 2_000]);
        self.hang_every_ms = seldom(rng, &[1_000, 3_000]);
        self.hang_ms = pick(rng, &[300, 2_000]);
    }

    /// A disk that only takes its time.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            flush_us: 100,
            jitter_us: 100,
            stall: 0,
            stall_us: 0,
            error: 0,
            tears: vec![Tear::Lose],
            spare_us: 1_000,
            full_every_ms: 0,
            full_ms: 0,
            short_write: 0,
            sync_error: 0,
            read_error: 0,
            slow_every_ms: 0,
            slow_ms: 0,
            hang_every_ms: 0,
            hang_ms: 0,
            decay_every_ms: 0,
            files_every_ms: 0,
            everywhere: 0,
            misread: 0,
            foreign: 0,
            recycles: true,
            rehearse: 0,
            flips: 3,
            audit: 0,
        }
    }
}

impl NodeOptions {
    fn swarm(rng: &mut Rng) -> Self {
        Self {
            crash_at: rng.bool().then(|| (pick(rng, &CrashPoint::ALL), pick(rng, &[2, 20]))),
            crash_every_ms: often(rng, &[300, 800, 2_000]).into(),
            down_ms: pick(rng, &[50, 300, 1_000, 3_000]),
            crash_all: pick(rng, &[0, 1_000, 3_000]),
            crash_in_turn: often(rng, &[3, 10]),
            crash_in_recovery: pick(rng, &[0, 2_000]),
            pause_every_ms: often(rng, &[400, 1_500]).into(),
            pause_ms: pick(rng, &[100, 1_000]),
            mailbox_full: often(rng, &[20, 300]),
            clock_skew_percent: pick(rng, &[0, 0, 10, 30]),
            ..Self::calm()
        }
    }

    fn vary(&mut self, rng: &mut Rng) {
        let rate_every_ms = seldom(rng, &[300, 1_000]);
        self.clock_rate_every_ms = if self.clock_skew_percent == 0 { 0 } else { rate_every_ms };
        self.clock_jump_every_ms = seldom(rng, &[500, 1_500]);
        self.clock_jump_ms = pick(rng, &[50, 500, 5_000]);
        self.stall_every_ms = seldom(rng, &[300, 1_000]);
        self.stall_ms = pick(rng, &[100, 1_000]);
    }

    /// Nodes that nothing happens to.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            crash_at: None,
            crash_every_ms: 0,
            down_ms: 0,
            crash_all: 0,
            crash_in_turn: 0,
            crash_in_recovery: 0,
            pause_every_ms: 0,
            pause_ms: 0,
            mailbox_full: 0,
            clock_skew_percent: 0,
            clock_rate_every_ms: 0,
            clock_jump_every_ms: 0,
            clock_jump_ms: 0,
            stall_every_ms: 0,
            stall_ms: 0,
            wipe_every_ms: 0,
        }
    }
}

/// One of them.
fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

/// One of them, or zero three times in four.
fn seldom(rng: &mut Rng, choices: &[u64]) -> u64 {
    if rng.u32(..4) == 0 { pick(rng, choices) } else { 0 }
}

/// One of them, or zero one time in two.
fn often(rng: &mut Rng, choices: &[u32]) -> u32 {
    if rng.bool() { pick(rng, choices) } else { 0 }
}
