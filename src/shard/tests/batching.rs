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
