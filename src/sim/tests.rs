//! The simulator tested on itself: it is calm when nothing happens, repeats itself, and sees a
//! driver that lies.

use super::*;
use crate::planted::{self, Planted};

fn quick(seed: u64) -> Options {
    Options { chaos_ms: 1_500, ..Options::swarm(seed) }
}

#[test]
fn nothing_goes_wrong_in_a_calm_world() {
    for seed in 0..12 {
        let outcome = run(seed, &quick(seed).calm()).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(outcome.acked > 20, "{outcome:?}");
        if outcome.faults.crashes == 0 {
            // Half of the worlds lose power at the end all the same.
            assert_eq!(outcome.faults.frames_lost, 0, "{outcome:?}");
            // Of several groups one has a leader first, and a write over two is half refused then.
            assert!(outcome.elections > 1 || outcome.unknown == 0, "{outcome:?}");
        }
    }
}

#[test]
fn one_seed_tells_one_story() {
    for seed in 0..3 {
        let twice = [(); 2].map(|()| run(seed, &quick(seed)).map_err(|failure| failure.what));
        assert_eq!(twice[0], twice[1]);
    }
}

#[test]
fn a_driver_that_says_flushed_too_early_is_caught() {
    let caught = (0..40).any(|seed| {
        let mut options = quick(seed);
        options.nodes.crash_every_ms = 100;
        options.disk.flush_us = 5_000;
        planted::with(Planted::AckBeforeFlush, || run(seed, &options)).is_err()
    });
    assert!(caught);
}

/// Clients that retry whatever they are not sure of; the nodes remember what they did, or not.
fn retried(seed: u64, forgetful: bool) -> Result<Outcome, Box<Failure>> {
    let mut options = quick(seed);
    options.session_clients = options.clients;
    options.nodes.crash_every_ms = 300;
    if forgetful {
        planted::with(Planted::SessionsForgotten, || run(seed, &options))
    } else {
        run(seed, &options)
    }
}

#[test]
fn a_request_applied_twice_is_caught() {
    let caught = (0..40).find_map(|seed| retried(seed, true).err().map(|failure| (seed, failure)));
    let (seed, failure) = caught.expect("some world has a request that is sent twice");
    assert!(failure.what.contains("not linearizable"), "{failure}");
    // Nothing but the table is wrong with that world.
    let outcome = retried(seed, false).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(outcome.retried > 0, "{outcome:?}");
}

/// A cluster of one node with a log that is truncated all the time, under all the faults that one node
/// can suffer.
#[test]
fn contract_row_27_a_log_that_is_truncated_survives_every_crash() {
    let (mut reclaimed, mut recycled) = (0, 0);
    for seed in 0..40 {
        let mut options = Options {
            cores: vec![1],
            spares: 0,
            operate_every_ms: 0,
            log_bytes: 0,
            ..Options::swarm(seed)
        };
        options.net = options::NetOptions::calm();
        options.nodes.crash_every_ms = 200;
        options.nodes.down_ms = 50;
        options.think_us = 500;
        let outcome = run(seed, &options).unwrap_or_else(|failure| panic!("{failure}"));
        reclaimed += outcome.reclaimed;
        recycled += outcome.recycled;
    }
    assert!(reclaimed > 100, "only {reclaimed} segments were reclaimed");
    assert!(recycled > 50, "only {recycled} segments were recycled");
}

/// At each of the named points power is lost often, and nothing that was acknowledged is lost.
#[test]
fn contract_row_36_every_named_crash_point_is_survived() {
    for point in CrashPoint::ALL {
        let mut times = 0;
        for seed in 0..12 {
            let mut options = quick(seed);
            let is_rare = matches!(
                point,
                CrashPoint::BeforeSaveSnap
                    | CrashPoint::AfterSaveSnap
                    | CrashPoint::BeforeApplySnap
                    | CrashPoint::AfterApplySnap
                    | CrashPoint::AfterWalRelease
            );
            if is_rare {
                // A node by itself writes most, and takes snapshots all the time.
                options = Options {
                    cores: vec![1],
                    spares: 0,
                    operate_every_ms: 0,
                    log_bytes: 0,
                    ..options
                };
                options.net = options::NetOptions::calm();
            }
            let chance = if is_rare { 2_000 } else { 50 };
            options.nodes.crash_at = Some((point, chance));
            options.nodes.down_ms = 50;
            options.think_us = 1_000;
            let outcome = run(seed, &options).unwrap_or_else(|failure| panic!("{failure}"));
            times += outcome.crash_points[point as usize];
            if 6 <= seed && 10 <= times {
                break;
            }
        }
        assert!(3 <= times, "{point:?} was passed and survived only {times} times");
    }
}
