//! A persistent table of keys in the order of their hashes, made for one lookup per command: a copy shares every node,
//! and a change copies the nodes on its way.
//!
//! ```text
//!                   ┌─ 0 ─ leaf: up to 32 entries, sorted
//!   root: branch ───┼─ …
//!   (first 4 bits)  ├─ 9 ─ branch (next 4 bits) ─┬─ … ─ leaf
//!                   └─ f ─ nothing               └─ … ─ crowd: keys whose hashes are equal, a search tree
//! ```
//!
//! Hashes are spread evenly, so a path is as long as the logarithm of the number of keys to the base of 16, less
//! the leaf; nothing has to be compared on the way. A leaf that overflows becomes a branch; a branch of few becomes a
//! leaf again. Whoever finds keys whose hashes begin alike makes paths of ten branches at most, and whoever finds
//! keys whose hashes are equal makes a crowd, in which they are found by comparing them.

use std::array;
use std::cmp::Ordering;
use std::ops::Bound;
use std::slice;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::OrdMap;
use smallvec::SmallVec;

use super::mix;

/// Bits of the hash that orders keys; a cursor holds them beside 14 bits of group.
pub(super) const HASH_BITS: u32 = 40;
/// Bits that one branch looks at.
const BRANCH_BITS: u32 = 4;
const CHILDREN: usize = 1 << BRANCH_BITS;
/// Branches on a path, at most.
const LEVELS: u32 = HASH_BITS / BRANCH_BITS;
/// A leaf that would hold more becomes a branch.
const LEAF_MAX: usize = 32;
/// A branch or crowd that holds no more becomes a leaf. Half as many, so that one key that comes and goes does not do it each time.
const LEAF_AGAIN: usize = LEAF_MAX / 2;

/// Where a key stands in the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) hash: u64,
    /// Counted: whoever changes a node that a snapshot still holds copies all its keys.
    pub(super) key: Arc<[u8]>,
}

/// The same, of a key that is looked for: nothing is allocated for it.
pub(super) struct Spot<'a> {
    hash: u64,
    key: &'a [u8],
}

impl Place {
    pub(super) fn of(key: &[u8]) -> Self {
        Self::at(key.into())
    }

    pub(super) fn at(key: Arc<[u8]>) -> Self {
        Self { hash: hash(&key), key }
    }

    fn spot(&self) -> Spot<'_> {
        Spot { hash: self.hash, key: &self.key }
    }
}

impl<'a> Spot<'a> {
    pub(super) fn of(key: &'a [u8]) -> Self {
        Self { hash: hash(key), key }
    }
}

impl Equivalent<Place> for Spot<'_> {
    fn equivalent(&self, place: &Place) -> bool {
        self.hash == place.hash && *self.key == *place.key
    }
}

impl Comparable<Place> for Spot<'_> {
    fn compare(&self, place: &Place) -> Ordering {
        self.hash.cmp(&place.hash).then_with(|| self.key.cmp(&place.key))
    }
}

/// Where `key` stands: equal on every replica and in every version, because cursors outlive both.
pub(super) fn hash(key: &[u8]) -> u64 {
    mix(key, 0x6f75_7472_6967_6765) >> (64 - HASH_BITS)
}

/// What one key holds.
pub(super) type Entry<V> = (Place, V);

/// The table.
#[derive(Debug, Clone)]
pub(super) struct Table<V> {
    root: Node<V>,
}

#[derive(Debug, Clone)]
enum Node<V> {
    Empty,
    /// In order; at least one.
    Leaf(Arc<Vec<Entry<V>>>),
    Branch(Arc<Branch<V>>),
    /// Below the last level: more than a leaf holds, of one hash.
    Crowd(Arc<OrdMap<Place, V>>),
}

/// Entries by the next bits of their hashes.
#[derive(Debug, Clone)]
struct Branch<V> {
    /// Entries below.
    len: usize,
    children: [Node<V>; CHILDREN],
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { root: Node::Empty }
    }
}

impl<V> Table<V> {
    pub(super) fn len(&self) -> usize {
        self.root.len()
    }

    pub(super) fn get(&self, spot: &Spot<'_>) -> Option<&V> {
        let (mut node, mut level) = (&self.root, 0);
        loop {
            match node {
                Node::Empty => return None,
                Node::Leaf(entries) => {
                    let at = find(entries, spot, level).ok()?;
                    return Some(&entries[at].1);
                }
                Node::Crowd(entries) => return entries.get(spot),
                Node::Branch(branch) => node = &branch.children[child_at(spot.hash, level)],
            }
            level += 1;
        }
    }

    /// All entries, in order.
    pub(super) fn iter(&self) -> Iter<'_, V> {
        let mut iter = Iter::default();
        iter.enter(&self.root);
        iter
    }

    /// The entries from there on, in order.
    pub(super) fn from(&self, first: Bound<&Place>) -> Iter<'_, V> {
        let place = match first {
            Bound::Unbounded => return self.iter(),
            Bound::Included(place) | Bound::Excluded(place) => place,
        };
        let mut iter = Iter::default();
        let (mut node, mut level) = (&self.root, 0);
        loop {
            match node {
                Node::Empty => return iter,
                Node::Leaf(entries) => {
                    let is_excluded = matches!(first, Bound::Excluded(_));
                    let at = match find(entries, &place.spot(), level) {
                        Ok(at) => at + usize::from(is_excluded),
                        Err(at) => at,
                    };
                    iter.entries = Entries::Leaf(entries[at..].iter());
                    return iter;
                }
                Node::Crowd(entries) => {
                    let range = entries.range::<_, Place>((first, Bound::Unbounded));
                    iter.entries = Entries::Crowd(range);
                    return iter;
                }
                Node::Branch(branch) => {
                    let at = child_at(place.hash, level);
                    iter.branches.push(branch.children[at + 1..].iter());
                    node = &branch.children[at];
                }
            }
            level += 1;
        }
    }
}

impl<V: Clone> Table<V> {
    pub(super) fn get_mut(&mut self, spot: &Spot<'_>) -> Option<&mut V> {
        let (mut node, mut level) = (&mut self.root, 0);
        loop {
            match node {
                Node::Empty => return None,
                Node::Leaf(entries) => {
                    let at = find(entries, spot, level).ok()?;
                    return Some(&mut Arc::make_mut(entries)[at].1);
                }
                Node::Crowd(entries) => return Arc::make_mut(entries).get_mut(spot),
                Node::Branch(branch) => {
                    let branch = Arc::make_mut(branch);
                    node = &mut branch.children[child_at(spot.hash, level)];
                }
            }
            level += 1;
        }
    }

    /// What the key held before, if it was there.
    pub(super) fn insert(&mut self, place: Place, value: V) -> Option<V> {
        self.root.insert(0, place, value)
    }

    /// What the key held. Copies nothing if it is not there.
    pub(super) fn remove(&mut self, spot: &Spot<'_>) -> Option<V> {
        self.get(spot)?;
        self.root.remove(0, spot)
    }
}

impl<V> Node<V> {
    fn leaf(entries: Vec<Entry<V>>) -> Self {
        if entries.is_empty() { Self::Empty } else { Self::Leaf(Arc::new(entries)) }
    }

    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Leaf(entries) => entries.len(),
            Self::Branch(branch) => branch.len,
            Self::Crowd(entries) => entries.len(),
        }
    }
}

impl<V: Clone> Node<V> {
    fn insert(&mut self, level: u32, place: Place, value: V) -> Option<V> {
        match self {
            Self::Empty => {
                *self = Self::leaf(vec![(place, value)]);
                None
            }
            Self::Leaf(entries) => match find(entries, &place.spot(), level) {
                Ok(at) => Some(std::mem::replace(&mut Arc::make_mut(entries)[at].1, value)),
                Err(_) if LEAF_MAX <= entries.len() => {
                    let entries = Arc::unwrap_or_clone(std::mem::take(entries));
                    *self = match level {
                        LEVELS => Self::Crowd(Arc::new(entries.into_iter().collect())),
                        _ => Self::Branch(Arc::new(Branch::of(level, entries))),
                    };
                    self.insert(level, place, value)
                }
                Err(at) => {
                    Arc::make_mut(entries).insert(at, (place, value));
                    None
                }
            },
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                let child = &mut branch.children[child_at(place.hash, level)];
                let before = child.insert(level + 1, place, value);
                branch.len += usize::from(before.is_none());
                before
            }
            Self::Crowd(entries) => Arc::make_mut(entries).insert(place, value),
        }
    }

    fn remove(&mut self, level: u32, spot: &Spot<'_>) -> Option<V> {
        let removed = match self {
            Self::Empty => None,
            Self::Leaf(entries) => {
                let at = find(entries, spot, level).ok()?;
                let entries = Arc::make_mut(entries);
                let (_, value) = entries.remove(at);
                if entries.len() <= entries.capacity() / 4 {
                    entries.shrink_to(entries.len() * 2);
                }
                Some(value)
            }
            Self::Branch(branch) => {
                let branch = Arc::make_mut(branch);
                let child = &mut branch.children[child_at(spot.hash, level)];
                let removed = child.remove(level + 1, spot);
                branch.len -= usize::from(removed.is_some());
                removed
            }
            Self::Crowd(entries) => Arc::make_mut(entries).remove(spot),
        };
        let is_to_shrink = match self {
            Self::Empty => false,
            Self::Leaf(entries) => entries.is_empty(),
            Self::Branch(_) | Self::Crowd(_) => self.len() <= LEAF_AGAIN,
        };
        if is_to_shrink {
            let mut entries = Vec::with_capacity(self.len());
            std::mem::replace(self, Self::Empty).move_into(&mut entries);
            *self = Self::leaf(entries);
        }
        removed
    }

    fn move_into(self, all: &mut Vec<Entry<V>>) {
        match self {
            Self::Empty => {}
            Self::Leaf(entries) => all.append(&mut Arc::unwrap_or_clone(entries)),
            Self::Branch(branch) => {
                let Branch { children, .. } = Arc::unwrap_or_clone(branch);
                children.into_iter().for_each(|child| child.move_into(all));
            }
            Self::Crowd(entries) => all.extend(Arc::unwrap_or_clone(entries)),
        }
    }
}

impl<V> Branch<V> {
    /// Of sorted entries.
    fn of(level: u32, entries: Vec<Entry<V>>) -> Self {
        let len = entries.len();
        let mut children: [Vec<Entry<V>>; CHILDREN] = array::from_fn(|_| Vec::new());
        for (place, value) in entries {
            children[child_at(place.hash, level)].push((place, value));
        }
        Self { len, children: children.map(Node::leaf) }
    }
}

/// Which child of a branch of that level; 0 is the root's.
fn child_at(hash: u64, level: u32) -> usize {
    (hash >> (HASH_BITS - BRANCH_BITS * (level + 1))) as usize % CHILDREN
}

/// Where it is in a leaf of that level, or where it would be inserted. Hashes being spread evenly, it is not far from
/// where it would be if they were spread exactly; each entry is memory of its own to wait for.
fn find<V>(entries: &[Entry<V>], spot: &Spot<'_>, level: u32) -> Result<usize, usize> {
    let share = u128::from(spot.hash << (64 - HASH_BITS) << (BRANCH_BITS * level));
    let mut at = ((share * entries.len() as u128) >> 64) as usize;
    let against = |at: usize| spot.compare(&entries[at].0);
    while 0 < at && against(at - 1).is_le() {
        at -= 1;
    }
    while at < entries.len() {
        match against(at) {
            Ordering::Less => return Err(at),
            Ordering::Equal => return Ok(at),
            Ordering::Greater => at += 1,
        }
    }
    Err(at)
}

/// Entries of a table, in order.
pub(super) struct Iter<'a, V> {
    /// Those of the node where it stands.
    entries: Entries<'a, V>,
    /// What comes after, innermost last.
    branches: SmallVec<[slice::Iter<'a, Node<V>>; 4]>,
}

enum Entries<'a, V> {
    Leaf(slice::Iter<'a, Entry<V>>),
    Crowd(imbl::ordmap::RangedIter<'a, Place, V, imbl::shared_ptr::DefaultSharedPtr>),
}

impl<V> Default for Iter<'_, V> {
    fn default() -> Self {
        Self { entries: Entries::Leaf([].iter()), branches: SmallVec::new() }
    }
}

impl<'a, V> Iter<'a, V> {
    fn enter(&mut self, node: &'a Node<V>) {
        match node {
            Node::Empty => {}
            Node::Leaf(entries) => self.entries = Entries::Leaf(entries.iter()),
            Node::Branch(branch) => self.branches.push(branch.children.iter()),
            Node::Crowd(entries) => self.entries = Entries::Crowd(entries.range::<_, Place>(..)),
        }
    }
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (&'a Place, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match &mut self.entries {
                Entries::Leaf(entries) => entries.next().map(|(place, value)| (place, value)),
                Entries::Crowd(entries) => entries.next(),
            };
            if entry.is_some() {
                return entry;
            }
            match self.branches.last_mut()?.next() {
                Some(node) => self.enter(node),
                None => _ = self.branches.pop(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
