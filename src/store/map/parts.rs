//! The parts of a hash or set: in the order of their bytes, and once there are many by their hashes as well.
//!
//! ```text
//!   by bytes   every part and its value          HGETALL, SMEMBERS, snapshots
//!   by hash    every part, from 513 parts on     HSCAN, SSCAN: a cursor is the hash to go on from
//! ```
//!
//! An order by bytes has no cursor that is one number: parts may have any length and begin alike. Hashes have, as for
//! `SCAN` (docs/decisions/0006). Few parts are hashed anew by each call; of many the second order is kept,
//! which shares the parts' bytes with the first. Both are persistent.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::limits;

use super::table::{self, Place, Table};

/// Parts, and what each holds. A copy shares everything.
#[derive(Debug, Clone)]
pub(super) struct Parts<V> {
    by_bytes: OrdMap<Arc<[u8]>, V>,
    /// It follows from `by_bytes`; none while there are few.
    by_hash: Option<Table<()>>,
}

impl<V> Default for Parts<V> {
    fn default() -> Self {
        Self { by_bytes: OrdMap::new(), by_hash: None }
    }
}

impl<V> Parts<V> {
    pub(super) fn len(&self) -> usize {
        self.by_bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_bytes.is_empty()
    }

    pub(super) fn has(&self, part: &[u8]) -> bool {
        self.by_bytes.contains_key(part)
    }

    pub(super) fn get(&self, part: &[u8]) -> Option<&V> {
        self.by_bytes.get(part)
    }

    /// All of them, in the order of their bytes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<[u8]>, &V)> {
        self.by_bytes.iter()
    }

    /// Those from there on, in the order of their bytes.
    pub(super) fn range(&self, first: Bound<Arc<[u8]>>) -> impl Iterator<Item = (&Arc<[u8]>, &V)> {
        self.by_bytes.range((first, Bound::Unbounded))
    }

    /// The last one in the order of their bytes.
    pub(super) fn last(&self) -> Option<&[u8]> {
        self.by_bytes.get_max().map(|(part, _)| &**part)
    }

    /// Whether they are so few that a scan may return all at once.
    pub(super) fn are_few(&self) -> bool {
        self.by_hash.is_none()
    }

    /// Those whose hash is this or higher, with it, in the order of hashes.
    pub(super) fn by_hash_from(
        &self,
        first: u64,
    ) -> Box<dyn Iterator<Item = (u64, &[u8], &V)> + '_> {
        let Some(by_hash) = &self.by_hash else {
            let hashed = self.iter().map(|(part, value)| (table::hash(part), &**part, value));
            let mut few: Vec<_> = hashed.filter(|(hash, ..)| first <= *hash).collect();
            few.sort_unstable_by_key(|(hash, ..)| *hash);
            return Box::new(few.into_iter());
        };
        let first = Place { hash: first, key: Arc::default() };
        let places = by_hash.from(Bound::Included(&first));
        Box::new(places.filter_map(|(place, ())| {
            self.get(&place.key).map(|value| (place.hash, &*place.key, value))
        }))
    }
}

impl<V: Clone> Parts<V> {
    /// Whether it is a new one.
    pub(super) fn insert(&mut self, part: &[u8], value: V) -> bool {
        if let Some(old) = self.by_bytes.get_mut(part) {
            *old = value;
            return false;
        }
        let part: Arc<[u8]> = part.into();
        if let Some(by_hash) = &mut self.by_hash {
            by_hash.insert(Place::at(Arc::clone(&part)), ());
        }
        self.by_bytes.insert(part, value);
        if self.are_few() && limits::COLLECTION_FEW_MAX < self.len() {
            let mut by_hash = Table::default();
            for (part, _) in self.by_bytes.iter() {
                by_hash.insert(Place::at(Arc::clone(part)), ());
            }
            self.by_hash = Some(by_hash);
        }
        true
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, part: &[u8]) -> bool {
        if self.by_bytes.remove(part).is_none() {
            return false;
        }
        if let Some(by_hash) = &mut self.by_hash {
            by_hash.remove(&table::Spot::of(part));
        }
        // Half as many, so that one part that comes and goes does not do it each time.
        if self.len() <= limits::COLLECTION_FEW_MAX / 2 {
            self.by_hash = None;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(number: usize) -> Vec<u8> {
        format!("part:{number}").into_bytes()
    }

    /// The two orders hold the same.
    fn check(parts: &Parts<usize>) {
        let Some(by_hash) = &parts.by_hash else {
            assert!(parts.len() <= limits::COLLECTION_FEW_MAX);
            return;
        };
        assert!(limits::COLLECTION_FEW_MAX / 2 < parts.len());
        assert_eq!(by_hash.len(), parts.len());
        assert!(by_hash.iter().all(|(place, ())| parts.has(&place.key)));
    }

    #[test]
    fn the_second_order_comes_with_many_parts_and_goes_with_few() {
        let max = limits::COLLECTION_FEW_MAX;
        let mut parts = Parts::default();
        for number in 0..=max {
            assert!(parts.are_few(), "{number}");
            assert!(parts.insert(&part(number), number));
        }
        assert!(!parts.are_few());
        assert!(!parts.insert(&part(3), 4));
        check(&parts);
        let copy = parts.clone();
        for number in 0..=max / 2 {
            assert!(!parts.are_few(), "{number}");
            assert!(parts.remove(&part(number)));
            assert!(!parts.remove(&part(number)));
            check(&parts);
        }
        assert!(parts.are_few());
        check(&copy);
        assert_eq!((copy.len(), parts.len()), (max + 1, max - max / 2));
    }

    proptest! {
        #[test]
        fn both_orders_hold_the_same(changes in prop::collection::vec((any::<bool>(), 0usize..900), 0..2_000)) {
            let mut parts = Parts::default();
            for number in 0..limits::COLLECTION_FEW_MAX {
                parts.insert(&part(number), number);
            }
            for (comes, number) in changes {
                let was_there = parts.has(&part(number));
                match comes {
                    true => prop_assert_eq!(parts.insert(&part(number), number), !was_there),
                    false => prop_assert_eq!(parts.remove(&part(number)), was_there),
                }
            }
            check(&parts);
            let mut by_hash: Vec<_> = parts.by_hash_from(0).map(|(hash, part, _)| (hash, part)).collect();
            prop_assert!(by_hash.is_sorted_by_key(|(hash, _)| *hash));
            by_hash.sort_by_key(|(_, part)| *part);
            prop_assert!(by_hash.iter().map(|(_, part)| *part).eq(parts.iter().map(|(part, _)| &**part)));
        }
    }
}
