//! What becomes of a frame between two nodes.
//!
//! ```text
//!  (node, core) ══ lanes: control · append · bulk ══► node        one link per core and peer
//!        each lane in order (unless a frame overtakes), the lanes race each other
//! ```
//!
//! A link that breaks loses what is under way on it in both directions, and both ends hear of it. A
//! partition loses what is sent into it and says nothing for a while, as TCP does.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::options::NetOptions;

/// Where a frame travels: from a core of one node to another node, in one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The link broke with it.
    Breaks,
}

/// The wires between all nodes.
#[derive(Debug)]
pub struct Net {
    options: NetOptions,
    /// Directed pairs that are cut.
    cut: BTreeSet<(usize, usize)>,
    /// When the last frame of each path arrives: the next one does not come before it.
    busy_until: BTreeMap<Path, u64>,
    /// How often the link of each pair (smaller first) broke.
    breaks: BTreeMap<(usize, usize), u64>,
}

impl Net {
    /// A whole network.
    #[must_use]
    pub fn new(options: NetOptions) -> Self {
        Self { options, cut: BTreeSet::new(), busy_until: BTreeMap::new(), breaks: BTreeMap::new() }
    }

    /// The same network with other habits, from now on, and no partition.
    pub fn heal(&mut self, options: NetOptions) {
        self.options = options;
        self.cut.clear();
    }

    /// Decides what becomes of a frame sent now.
    pub fn send(&mut self, path: Path, now: u64, may_repeat: bool, rng: &mut Rng) -> Fate {
        if self.is_cut(path.from, path.to) || happens(rng, self.options.drop) {
            return Fate::Lost;
        }
        if happens(rng, self.options.break_link) {
            self.break_link(path.from, path.to);
            return Fate::Breaks;
        }
        let mut at = now + self.delay(rng);
        if !happens(rng, self.options.overtake) {
            let busy_until = self.busy_until.entry(path).or_default();
            at = at.max(*busy_until + 1);
            *busy_until = at;
        }
        let again =
            (may_repeat && happens(rng, self.options.duplicate)).then(|| at + 10 * self.delay(rng));
        Fate::Arrives { at, again, corrupt: happens(rng, self.options.corrupt) }
    }

    fn delay(&self, rng: &mut Rng) -> u64 {
        let delay = self.options.delay_us + rng.u64(0..=self.options.jitter_us);
        if happens(rng, self.options.slow) { 50 * delay } else { delay }
    }

    /// Whether nothing passes from one node to another right now.
    #[must_use]
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
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

    /// Cuts a random part of the cluster off, `first` on one side, in both directions or one.
    /// Returns the pairs cut.
    pub fn partition(&mut self, nodes: usize, first: usize, rng: &mut Rng) -> Vec<(usize, usize)> {
        let mut order: Vec<usize> = (0..nodes).filter(|&node| node != first).collect();
        rng.shuffle(&mut order);
        if order.is_empty() {
            return Vec::new();
        }
        order.insert(0, first);
        // Mostly one node against the rest, sometimes a single link, sometimes any split.
        let cut: Vec<(usize, usize)> = match rng.u32(..4) {
            0 => vec![(order[0], order[1])],
            1 => {
                let size = rng.usize(1..nodes);
                let (left, right) = order.split_at(size);
                left.iter().flat_map(|&a| right.iter().map(move |&b| (a, b))).collect()
            }
            _ => order[1..].iter().map(|&other| (order[0], other)).collect(),
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
        self.cut.extend(pairs.iter().copied());
        pairs
    }

    /// Mends these pairs.
    pub fn mend(&mut self, pairs: &[(usize, usize)]) {
        for pair in pairs {
            self.cut.remove(pair);
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
    fn a_partition_cuts_what_it_says_until_it_is_mended() {
        let mut net = Net::new(NetOptions { one_way: 5_000, ..NetOptions::calm() });
        let mut rng = Rng::with_seed(4);
        for _ in 0..50 {
            let pairs = net.partition(5, 2, &mut rng);
            assert!(!pairs.is_empty());
            for &(from, to) in &pairs {
                let path = Path { from, to, ..PATH };
                assert_eq!(net.send(path, 0, false, &mut rng), Fate::Lost);
            }
            net.mend(&pairs);
            assert!(net.cut.is_empty());
        }
    }
}
