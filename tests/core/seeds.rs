//! A fixed handful of seeds, each run twice: nothing goes wrong, and the same seed is the same
//! world to the last bit. `cargo tool sim` runs as many as one likes.

use outrigger::sim::{self, Options, Outcome};

/// One seed; a failure prints its story and the command that replays it.
fn run(seed: u64) -> Outcome {
    sim::run(seed, &Options::swarm(seed)).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn a_handful_of_worlds_survive_everything_and_repeat_exactly() {
    let mut faults = 0;
    let mut acked = 0;
    for seed in 0..60 {
        let outcome = run(seed);
        assert_eq!(run(seed), outcome, "seed {seed} is not the same world twice");
        faults += outcome.faults.total();
        acked += outcome.acked;
    }
    // Worlds in which nothing happens prove nothing.
    assert!(faults > 600, "only {faults} faults in 60 worlds");
    assert!(acked > 10_000, "only {acked} commands acknowledged in 60 worlds");
}

#[test]
fn other_seeds_are_other_worlds() {
    let mut hashes: Vec<u64> = (100..110).map(|seed| run(seed).trace_hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 10);
}
