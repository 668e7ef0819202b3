//! What becomes of a frame between two nodes.
//!
//! ```text
//!  (node, core) ══ lanes: control · append · bulk ══► node        one link per core and peer
//!        each lane in order (unless a frame overtakes), the lanes race each other
//! ```
//!
//! A link that breaks loses what is under way on it in both directions, and both ends hear of it. A
//! partition loses what is sent into it and says nothing for a while, as TCP does.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use fastrand::Rng;

use super::options::NetOptions;

/// Where a frame travels: from a core of one node to another node, in one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The sender, counted from zero.
    pub from: usize,
    /// Its core.
    pub core: u16,
    /// The receiver, counted from zero.
    pub to: usize,
    /// The lane's number.
    pub lane: u8,
}

impl Path {
    /// Sender, core, receiver and lane in one number: the maps of paths do little but compare.
    fn number(&self) -> u128 {
        let (high, to) = ((self.from as u64) << 16 | u64::from(self.core), self.to as u64);
        u128::from(high) << 64 | u128::from(to << 8 | u64::from(self.lane))
    }
}

impl Ord for Path {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number().cmp(&other.number())
    }
}

impl PartialOrd for Path {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at these times (twice, if duplicated).
    Arrives {
        /// The first time.
        at: u64,
        /// The second, if any.
        again: Option<u64>,
        /// Some byte of it is flipped.
        corrupt: bool,
    },
    /// It is lost, and nobody is told.
    Lost,
    /// The link is to break with it.
    Breaks,
}

/// What a partition looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A single pair cannot talk.
    Link,
    /// Two sides, of any sizes.
    Split,
    /// One node is alone.
    Alone,
    /// Each node talks to two neighbours only.
    Ring,
    /// Two sides, and one node that talks to both.
    Bridge,
}

/// The wires between all nodes.
#[derive(Debug)]
pub struct Net {
    options: NetOptions,
    /// Directed pairs that are cut, and by how many faults.
    cut: BTreeMap<(usize, usize), u32>,
    /// Directed pairs that are slow: until when, and by how much.
    slow: BTreeMap<(usize, usize), (u64, u64)>,
    /// When the last frame of each path arrives: the next one does not come before it.
    busy_until: BTreeMap<Path, u64>,
    /// How often the link of each pair (smaller first) broke.
    breaks: BTreeMap<(usize, usize), u64>,
    /// Frames that took much longer, and frames that did not keep their order.
    late: u64,
    early: u64,
}

impl Net {
    /// A whole network.
    #[must_use]
    pub fn new(options: NetOptions) -> Self {
        Self {
            options,
            cut: BTreeMap::new(),
            slow: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            breaks: BTreeMap::new(),
            late: 0,
            early: 0,
        }
    }

    /// The same network with other habits, from now on, and no partition.
    pub fn heal(&mut self, options: NetOptions) {
        self.options = options;
        self.cut.clear();
        self.slow.clear();
    }

    /// Decides what becomes of a frame sent now.
    pub fn send(&mut self, path: Path, now: u64, may_repeat: bool, rng: &mut Rng) -> Fate {
        if self.is_cut(path.from, path.to) || happens(rng, self.options.drop) {
            return Fate::Lost;
        }
        if happens(rng, self.options.break_link) {
            return Fate::Breaks;
        }
        self.carry(path, now, may_repeat, rng)
    }

    /// When a frame that is neither lost nor breaks its link arrives.
    pub fn carry(&mut self, path: Path, now: u64, may_repeat: bool, rng: &mut Rng) -> Fate {
        let mut at = now + self.delay(rng);
        if let Some(&(until, extra_us)) = self.slow.get(&(path.from, path.to))
            && now < until
        {
            at += rng.u64(..=extra_us);
        }
        if happens(rng, self.options.overtake) {
            self.early += 1;
        } else {
            let busy_until = self.busy_until.entry(path).or_default();
            at = at.max(*busy_until + 1);
            *busy_until = at;
        }
        let again =
            (may_repeat && happens(rng, self.options.duplicate)).then(|| at + 10 * self.delay(rng));
        Fate::Arrives { at, again, corrupt: happens(rng, self.options.corrupt) }
    }

    fn delay(&mut self, rng: &mut Rng) -> u64 {
        let delay = self.options.delay_us + rng.u64(0..=self.options.jitter_us);
        if !happens(rng, self.options.slow) {
            return delay;
        }
        self.late += 1;
        50 * delay
    }

    /// How many frames took fifty times as long, and how many did not keep the order of their lane.
    #[must_use]
    pub fn odd_frames(&self) -> (u64, u64) {
        (self.late, self.early)
    }

    /// Whether nothing passes from one node to another right now.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains_key(&(from, to))
    }

    /// How often the link between two nodes broke; a frame sent before a break does not arrive
    /// after it.
    #[must_use]
    pub fn generation(&self, a: usize, b: usize) -> u64 {
        self.breaks.get(&(a.min(b), a.max(b))).copied().unwrap_or_default()
    }

    /// The link between two nodes breaks.
    pub fn break_link(&mut self, a: usize, b: usize) {
        *self.breaks.entry((a.min(b), a.max(b))).or_default() += 1;
    }

    /// A frame takes up to so much longer from one node to another until then.
    pub fn slow(&mut self, from: usize, to: usize, until: u64, extra_us: u64) {
        self.slow.insert((from, to), (until, extra_us));
    }

    /// Chooses a partition with `first` on one side, in both directions or one: its shape, and the
    /// pairs to cut, of which there are none among fewer than two nodes.
    pub fn partition(
        &self,
        nodes: usize,
        first: usize,
        rng: &mut Rng,
    ) -> (Shape, Vec<(usize, usize)>) {
        let mut order: Vec<usize> = (0..nodes).filter(|&node| node != first).collect();
        rng.shuffle(&mut order);
        if order.is_empty() {
            return (Shape::Alone, Vec::new());
        }
        order.insert(0, first);
        let between = |left: &[usize], right: &[usize]| {
            let pairs = left.iter().flat_map(|&a| right.iter().map(move |&b| (a, b)));
            pairs.collect::<Vec<_>>()
        };
        // Mostly one node against the rest.
        let (shape, cut) = match rng.u32(..6) {
            0 => (Shape::Link, vec![(order[0], order[1])]),
            1 => {
                let (left, right) = order.split_at(rng.usize(1..nodes));
                (Shape::Split, between(left, right))
            }
            2 if nodes >= 3 => {
                let (left, right) = order[..nodes - 1].split_at(rng.usize(1..nodes - 1));
                (Shape::Bridge, between(left, right))
            }
            3 if nodes >= 4 => {
                let apart = |(a, b): &(usize, usize)| b - a > 1 && b - a < nodes - 1;
                let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
                let pairs = pairs.filter(apart).map(|(a, b)| (order[a], order[b]));
                (Shape::Ring, pairs.collect())
            }
            _ => (Shape::Alone, between(&order[..1], &order[1..])),
        };
        let one_way = happens(rng, self.options.one_way);
        let forth = rng.bool();
        let mut pairs = Vec::new();
        for (a, b) in cut {
            if !one_way || forth {
                pairs.push((a, b));
            }
            if !one_way || !forth {
                pairs.push((b, a));
            }
        }
        (shape, pairs)
    }

    /// Cuts these pairs.
    pub fn cut(&mut self, pairs: &[(usize, usize)]) {
        for pair in pairs {
            *self.cut.entry(*pair).or_default() += 1;
        }
    }

    /// Takes back one cut of these pairs; another fault may still cut them.
    pub fn mend(&mut self, pairs: &[(usize, usize)]) {
        for pair in pairs {
            if let Some(count) = self.cut.get_mut(pair) {
                *count -= 1;
                self.cut.retain(|_, count| *count > 0);
            }
        }
    }
}

/// A coin that shows "yes" this often in ten thousand.
pub fn happens(rng: &mut Rng, in_ten_thousand: u32) -> bool {
    in_ten_thousand > 0 && rng.u32(..10_000) < in_ten_thousand
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Path = Path { from: 0, core: 0, to: 1, lane: 0 };

    #[test]
    fn a_lane_keeps_its_order() {
        let options = NetOptions { jitter_us: 10_000, slow: 5_000, ..NetOptions::calm() };
        let mut net = Net::new(options);
        let mut rng = Rng::with_seed(3);
        let mut last = 0;
        for now in 0..200 {
            match net.send(PATH, now, true, &mut rng) {
                Fate::Arrives { at, again: None, corrupt: false } => {
                    assert!(at > last && at > now);
                    last = at;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_slow_link_is_slow_in_one_direction_and_for_a_while() {
        let mut net = Net::new(NetOptions::calm());
        let mut rng = Rng::with_seed(5);
        net.slow(0, 1, 1_000_000, 1_000_000);
        let mut longest = |from, to, now| {
            let path = Path { from, to, ..PATH };
            let delays = (0..20).map(|step| match net.send(path, now + step, false, &mut rng) {
                Fate::Arrives { at, .. } => at - now,
                other => panic!("{other:?}"),
            });
            delays.max().expect("some")
        };
        assert!(longest(1, 0, 0) < 1_000);
        assert!(longest(0, 1, 0) > 300_000);
        assert!(longest(0, 1, 3_000_000) < 1_000);
    }

    #[test]
    fn a_partition_cuts_what_it_says_until_it_is_mended() {
        let mut net = Net::new(NetOptions { one_way: 5_000, ..NetOptions::calm() });
        let mut rng = Rng::with_seed(4);
        let mut shapes = Vec::new();
        for _ in 0..50 {
            let (shape, pairs) = net.partition(5, 2, &mut rng);
            shapes.push(shape);
            assert!(!pairs.is_empty());
            net.cut(&pairs);
            net.cut(&pairs[..1]);
            for &(from, to) in &pairs {
                let path = Path { from, to, ..PATH };
                assert_eq!(net.send(path, 0, false, &mut rng), Fate::Lost);
            }
            net.mend(&pairs);
            assert_eq!(net.cut.len(), 1, "cut twice, mended once");
            net.mend(&pairs[..1]);
            assert!(net.cut.is_empty());
        }
        for shape in [Shape::Link, Shape::Split, Shape::Alone, Shape::Ring, Shape::Bridge] {
            assert!(shapes.contains(&shape), "{shape:?}");
        }
    }
}
