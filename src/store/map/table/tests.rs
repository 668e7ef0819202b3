//! The table beside a `BTreeMap`, with hashes that are spread, that begin alike and that are equal.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn place(hash: u64, key: u16) -> Place {
    Place { hash, key: key.to_be_bytes().into() }
}

/// The entries of a node's children are in the order and number that it says, and it is no larger than it should be.
fn check_node(node: &Node<u32>, level: u32) -> usize {
    match node {
        Node::Empty => 0,
        Node::Leaf(entries) => {
            assert!((1..=LEAF_MAX).contains(&entries.len()), "a leaf of {}", entries.len());
            entries.len()
        }
        Node::Branch(branch) => {
            assert!(level < LEVELS, "a branch below the last level");
            let below: usize = branch.children.iter().map(|it| check_node(it, level + 1)).sum();
            assert_eq!(branch.len, below);
            assert!(LEAF_AGAIN < below, "a branch of {below}");
            below
        }
        Node::Crowd(entries) => {
            assert_eq!(level, LEVELS, "a crowd above the last level");
            assert!(LEAF_AGAIN < entries.len(), "a crowd of {}", entries.len());
            entries.len()
        }
    }
}

fn check(table: &Table<u32>, model: &BTreeMap<Place, u32>) {
    assert_eq!(check_node(&table.root, 0), model.len());
    assert_eq!(table.len(), model.len());
    assert!(table.iter().eq(model), "the same entries in the same order");
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Place, u32),
    Change(Place, u32),
    Remove(Place),
    /// All entries from one to another.
    RemoveMany(Place, usize),
    Freeze,
}

/// Spread, beginning alike for nine levels, or one of two.
fn places() -> impl Strategy<Value = Place> {
    let hash = prop_oneof![
        4 => 0..1u64 << HASH_BITS,
        2 => (0..1u64 << 8).prop_map(|low| 0x77_7777_7700 | low),
        2 => prop::sample::select(vec![0, 0x77_7777_7777]),
    ];
    (hash, 0..200u16).prop_map(|(hash, key)| place(hash, key))
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (places(), any::<u32>()).prop_map(|(place, value)| Step::Insert(place, value)),
        4 => (places(), any::<u32>()).prop_map(|(place, value)| Step::Change(place, value)),
        4 => places().prop_map(Step::Remove),
        1 => (places(), 0..200usize).prop_map(|(place, count)| Step::RemoveMany(place, count)),
        1 => Just(Step::Freeze),
    ]
}

proptest! {
    #[test]
    fn it_holds_what_an_ordered_map_holds_and_so_do_its_copies(
        steps in prop::collection::vec(steps(), 0..600),
        ends in prop::collection::vec(places(), 8),
    ) {
        let (mut table, mut model) = (Table::default(), BTreeMap::new());
        let mut copies = Vec::new();
        for step in steps {
            match step {
                Step::Insert(place, value) => {
                    prop_assert_eq!(table.get(&place.spot()), model.get(&place));
                    prop_assert_eq!(table.insert(place.clone(), value), model.insert(place, value));
                }
                Step::Change(place, value) => {
                    // One that is there, if any is.
                    let there = model.range(&place..).next().map_or(place, |(it, _)| it.clone());
                    let (ours, its) = (table.get_mut(&there.spot()), model.get_mut(&there));
                    prop_assert_eq!(&ours, &its);
                    if let (Some(ours), Some(its)) = (ours, its) {
                        (*ours, *its) = (value, value);
                    }
                }
                Step::Remove(place) => {
                    prop_assert_eq!(table.remove(&place.spot()), model.remove(&place));
                    prop_assert_eq!(table.get(&place.spot()), None);
                }
                Step::RemoveMany(first, count) => {
                    let gone: Vec<Place> = model.range(first..).map(|(it, _)| it.clone()).take(count).collect();
                    for place in gone {
                        prop_assert_eq!(table.remove(&place.spot()), model.remove(&place));
                    }
                }
                Step::Freeze => copies.push((table.clone(), model.clone())),
            }
        }
        copies.push((table, model));
        for (table, model) in &copies {
            check(table, model);
            for end in &ends {
                prop_assert!(table.from(Bound::Included(end)).eq(model.range(end..)));
                let after = (Bound::Excluded(end.clone()), Bound::Unbounded);
                prop_assert!(table.from(Bound::Excluded(end)).eq(model.range(after)));
            }
            for (place, value) in model {
                prop_assert_eq!(table.get(&place.spot()), Some(value));
                prop_assert_eq!(table.from(Bound::Included(place)).next(), Some((place, value)));
            }
        }
    }
}

#[test]
fn paths_are_as_short_as_hashes_that_are_spread_allow() {
    let mut table = Table::default();
    for key in 0..100_000u32 {
        table.insert(Place::of(&key.to_le_bytes()), key);
    }
    let mut depths = BTreeMap::new();
    let mut nodes = vec![(&table.root, 0)];
    while let Some((node, level)) = nodes.pop() {
        match node {
            Node::Branch(branch) => nodes.extend(branch.children.iter().map(|it| (it, level + 1))),
            node => *depths.entry(level).or_insert(0) += node.len(),
        }
    }
    // 16^3 leaves of 24 each, on average.
    assert!(90_000 < depths[&3], "{depths:?}");
    assert_eq!(depths.values().sum::<usize>(), 100_000);
    assert!((0..100_000u32).all(|key| table.get(&Spot::of(&key.to_le_bytes())) == Some(&key)));
}

#[test]
fn keys_of_one_hash_are_a_crowd_and_a_leaf_again() {
    let (mut table, mut model) = (Table::default(), BTreeMap::new());
    for key in 0..1000 {
        table.insert(place(5, key), u32::from(key));
        model.insert(place(5, key), u32::from(key));
        check(&table, &model);
    }
    let copy = table.clone();
    for key in 0..1000 {
        assert_eq!(table.remove(&place(5, key).spot()), model.remove(&place(5, key)));
        check(&table, &model);
    }
    assert!(matches!(table.root, Node::Empty), "{:?}", table.root);
    assert_eq!(
        copy.iter().map(|(_, value)| *value).collect::<Vec<_>>(),
        (0..1000).collect::<Vec<_>>()
    );
}

#[test]
fn what_is_not_there_is_removed_without_a_copy() {
    let mut table = Table::default();
    for key in 0..100u8 {
        table.insert(Place::of(&[key]), ());
    }
    let copy = table.clone();
    assert_eq!(table.remove(&Spot::of(b"none")), None);
    let (Node::Branch(ours), Node::Branch(its)) = (&table.root, &copy.root) else {
        panic!("a leaf of a hundred")
    };
    assert!(Arc::ptr_eq(ours, its));
}

#[test]
fn a_leaf_gives_its_room_back() {
    let mut table = Table::default();
    for key in 0..LEAF_MAX as u8 {
        table.insert(Place::of(&[key]), ());
    }
    for key in 2..LEAF_MAX as u8 {
        table.remove(&Spot::of(&[key]));
    }
    let Node::Leaf(entries) = &table.root else { panic!("no leaf") };
    assert!(entries.capacity() <= 8, "room for {}", entries.capacity());
}
