//! What goes to the disk together.

use super::*;

/// A leader of one whose group begins with `flushes` writes at most in flight, and `joins_bytes`.
fn writer(flushes_in_flight: usize, flush_joins_bytes: usize) -> Shard {
    let config = Config { flushes_in_flight, flush_joins_bytes, ..config(&[1], 1, 1) };
    let mut shard = Recovering::new(config).finish(NOW).expect("an empty log").0;
    turns(&mut shard, NOW);
    assert!(shard.replicas()[0].status().leader_ready);
    shard
}

/// A client sets a value of so many bytes; the writes that begin because of it.
fn set(shard: &mut Shard, bytes: usize) -> Vec<crate::wal::Write> {
    say(shard, &format!("SET k {}", "v".repeat(bytes)));
    let mut fx = Effects::default();
    shard.turn(NOW, &mut fx);
    fx.writes
}

#[test]
fn a_small_write_waits_for_the_flush_in_flight_and_goes_with_what_came_meanwhile() {
    let mut shard = writer(2, 1_000);
    let first = set(&mut shard, 10);
    assert_eq!(first.len(), 1, "nothing is in flight: it goes at once");
    assert!(set(&mut shard, 10).is_empty());
    assert!(set(&mut shard, 10).is_empty());
    let mut fx = Effects::default();
    shard.on_event(NOW, Event::Flushed(first[0].ticket));
    shard.turn(NOW, &mut fx);
    let [together] = &fx.writes[..] else { panic!("{:?}", fx.writes) };
    assert_eq!(together.runs().iter().map(|run| run.entries.len()).sum::<usize>(), 2);
}

#[test]
fn much_is_written_beside_the_flush_in_flight_as_far_as_there_is_room() {
    let mut shard = writer(2, 1_000);
    assert_eq!(set(&mut shard, 10).len(), 1);
    assert!(set(&mut shard, 600).is_empty());
    let second = set(&mut shard, 600);
    assert_eq!(second.len(), 1, "both together are enough");
    assert!(set(&mut shard, 2_000).is_empty(), "two are in flight");
    let mut alone = writer(1, 0);
    assert_eq!(set(&mut alone, 10).len(), 1);
    assert!(set(&mut alone, 2_000).is_empty());
}

#[test]
fn with_no_least_size_every_write_goes_at_once() {
    let mut shard = writer(2, 0);
    assert_eq!(set(&mut shard, 1).len(), 1);
    assert_eq!(set(&mut shard, 1).len(), 1);
}

/// The next write, once the one in flight is durable.
fn next(shard: &mut Shard, flushed: &crate::wal::Write) -> crate::wal::Write {
    let mut fx = Effects::default();
    shard.on_event(NOW, Event::Flushed(flushed.ticket));
    shard.turn(NOW, &mut fx);
    if let Some(segment) = fx.spare.take() {
        shard.on_event(NOW, Event::SpareReady(segment));
    }
    assert_eq!(fx.writes.len(), 1, "one at a time");
    fx.writes.remove(0)
}

/// A key of each of so many groups of a shard that has no more.
fn keys(groups: u64) -> Vec<String> {
    let mut shard = Recovering::new(config(&[1], 1, groups)).finish(NOW).expect("an empty log").0;
    turns(&mut shard, NOW);
    let mut keys = vec![None; groups as usize];
    for key in (0..).map(|number: u64| number.to_string()) {
        say(&mut shard, &format!("SET {key} v"));
        let mut fx = Effects::default();
        shard.turn(NOW, &mut fx);
        let write = &fx.writes[0];
        keys[write.runs()[0].group.0 as usize].get_or_insert(key);
        shard.on_event(NOW, Event::Flushed(write.ticket));
        if keys.iter().all(Option::is_some) {
            break;
        }
    }
    keys.into_iter().flatten().collect()
}

/// A leader of one with so many groups, one write at a time; into group 0 comes a stream of values of so many bytes,
/// of which the first is being written and 16 wait.
fn streamed(keys: &[String], value_bytes: usize) -> (Shard, String, crate::wal::Write) {
    let config = config(&[1], 1, keys.len() as u64);
    let config = Config { flushes_in_flight: 1, log_cache_bytes: 64 << 20, ..config };
    let mut shard = Recovering::new(config).finish(NOW).expect("an empty log").0;
    turns(&mut shard, NOW);
    let large = format!("SET {} {}", keys[0], "v".repeat(value_bytes));
    say(&mut shard, &large);
    let mut fx = Effects::default();
    shard.turn(NOW, &mut fx);
    (0..16).for_each(|_| say(&mut shard, &large));
    shard.turn(NOW, &mut fx);
    (shard, large, fx.writes.remove(0))
}

fn runs_of(write: &crate::wal::Write, is_meant: impl Fn(GroupId) -> bool) -> usize {
    write.runs().iter().filter(|run| is_meant(run.group)).count()
}

#[test]
fn a_group_that_always_has_more_large_values_does_not_keep_the_others_out_of_the_log() {
    let keys = keys(4);
    for value_bytes in [64 << 10, 200 << 10, 1 << 20] {
        let (mut shard, large, mut write) = streamed(&keys, value_bytes);
        // From now on it is known to have more than its share.
        write = next(&mut shard, &write);
        for round in 0..4 {
            say(&mut shard, &large);
            keys[1..].iter().for_each(|key| say(&mut shard, &format!("SET {key} v")));
            let mut fx = Effects::default();
            shard.turn(NOW, &mut fx);
            assert!(fx.writes.is_empty(), "one write at a time");
            write = next(&mut shard, &write);
            let what = format!("round {round}, values of {value_bytes} bytes");
            assert_eq!(runs_of(&write, |group| group != GroupId(0)), 3, "{what}");
            assert_ne!(runs_of(&write, |group| group == GroupId(0)), 0, "it goes on, {what}");
            assert_ne!(write.runs()[0].group, GroupId(0), "the others first, {what}");
            let bound = limits::BATCH_BYTES_SOFT + limits::BATCH_SHARE_BYTES + value_bytes;
            assert!(write.bytes <= bound, "{} bytes in one write, {what}", write.bytes);
        }
    }
}

#[test]
fn a_group_that_went_behind_the_others_is_passed_over_once() {
    let keys = keys(8);
    let (mut shard, _, mut write) = streamed(&keys, 1 << 20);
    write = next(&mut shard, &write);
    // The others have enough for every write from now on, and none of them more than its share.
    let middling = "v".repeat(limits::BATCH_SHARE_BYTES / 8 * 7);
    let mut seen = Vec::new();
    for _ in 0..8 {
        keys[1..].iter().for_each(|key| say(&mut shard, &format!("SET {key} {middling}")));
        shard.turn(NOW, &mut Effects::default());
        write = next(&mut shard, &write);
        seen.push(runs_of(&write, |group| group == GroupId(0)));
    }
    assert!(seen.windows(2).all(|two| two != [0, 0]), "{seen:?}");
    assert!(seen.contains(&0), "the others never went first: {seen:?}");
}

/// More waits than a segment holds: `tool sim --seed 56194`, a follower that was behind by thousands of entries.
#[test]
fn no_batch_is_larger_than_a_small_segment() {
    let segment_bytes = 256 << 10;
    let config = Config { flushes_in_flight: 1, ..config(&[1], 1, 1) };
    let recovering = Recovering::new(config).with_segment_bytes(segment_bytes);
    let mut shard = recovering.finish(NOW).expect("an empty log").0;
    turns(&mut shard, NOW);
    let mut write = set(&mut shard, 1_000).remove(0);
    (0..400).for_each(|_| say(&mut shard, &format!("SET k {}", "v".repeat(1_000))));
    shard.turn(NOW, &mut Effects::default());
    let (mut entries, mut writes) = (0, 0);
    while entries < 400 {
        write = next(&mut shard, &write);
        assert!(write.bytes < segment_bytes / 4 * 3, "{} bytes in one write", write.bytes);
        entries += write.runs().iter().map(|run| run.entries.len()).sum::<usize>();
        writes += 1;
    }
    assert!((3..=8).contains(&writes), "{writes} writes");
}
