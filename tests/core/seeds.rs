//! Worlds that are run with every `cargo test`: a handful as they come, each twice, and those that
//! found something, each with its story. `cargo tool sim` runs as many as one likes.
//!
//! A seed stands for its story only at one commit. What is kept here is therefore the *scenario*: the
//! options that made the story likely, run under the seed that told it and a few others, with the
//! property that it broke.

use outrigger::sim::{self, CrashPoint, Options, Outcome};

/// One world; a failure prints its story and the command that replays it.
fn run(seed: u64, options: &Options) -> Outcome {
    sim::run(seed, options).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn a_handful_of_worlds_survive_everything_and_repeat_exactly() {
    let mut faults = 0;
    let mut acked = 0;
    for seed in 0..40 {
        let options = Options::swarm(seed);
        let outcome = run(seed, &options);
        assert_eq!(run(seed, &options), outcome, "seed {seed} is not the same world twice");
        faults += outcome.faults.total();
        acked += outcome.acked;
    }
    // Worlds in which nothing happens prove nothing.
    assert!(faults > 800, "only {faults} faults in 40 worlds");
    assert!(acked > 10_000, "only {acked} commands acknowledged in 40 worlds");
}

#[test]
fn other_seeds_are_other_worlds() {
    let mut hashes: Vec<u64> =
        (100..110).map(|seed| run(seed, &Options::swarm(seed)).trace_hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 10);
}

/// A world as the swarm draws it, with some things made sure of.
fn scenario(seeds: &[u64], change: impl Fn(&mut Options)) -> Vec<Outcome> {
    let world = |&seed: &u64| {
        let mut options = Options::swarm(seed);
        change(&mut options);
        run(seed, &options)
    };
    seeds.iter().map(world).collect()
}

fn sum(outcomes: &[Outcome], of: impl Fn(&Outcome) -> u64) -> u64 {
    outcomes.iter().map(of).sum()
}

/// Worlds as the swarm draws them, in each of which disks lose something that is made good.
fn made_good(seeds: &[u64]) {
    for (seed, outcome) in seeds.iter().zip(scenario(seeds, |_| ())) {
        assert!(outcome.losses > 0, "nothing is lost in the world of seed {seed}");
    }
}

/// Members come and go under short logs: three nodes and two spares.
fn with_churn(options: &mut Options) {
    options.cores = vec![1; 5];
    options.spares = 2;
    options.operate_every_ms = 100;
    // Logs that are full all the time.
    options.log_bytes = 0;
    options.clients = 8;
    options.think_us = 1_000;
    options.value_bytes_max = 600;
    options.segment_bytes = 128 << 10;
    options.nodes.crash_every_ms = 300;
    options.nodes.stall_every_ms = 0;
}

/// Seed 9004104: *a node did not start again.* Entries that were never committed, the first of them
/// reclaimed, then a snapshot from the leader, then another leader's entries in their place; recovery
/// called that a log without a snapshot. (d2fe500, `src/group/recover.rs`)
#[test]
fn contract_row_27_a_snapshot_over_entries_adrift_is_recovered() {
    let outcomes = scenario(&[9_004_104, 1, 2, 3], with_churn);
    assert!(sum(&outcomes, |it| it.reclaimed) > 0, "{outcomes:?}");
    assert!(sum(&outcomes, |it| it.faults.crashes) > 10, "{outcomes:?}");
}

/// Seed 9000650: *a follower stayed behind for ever.* Its snapshot arrived when the log behind it was
/// gone all the same, and the leader waited for a transfer that was over. Seed 9003573: pauses of a
/// transfer doubled although its follower was heard. (d2fe500, `src/shard/snapshots/sending.rs`)
#[test]
fn contract_row_42_a_follower_that_was_away_catches_up_whatever_became_of_its_snapshot() {
    let outcomes = scenario(&[9_000_650, 9_003_573, 4, 5], |options| {
        with_churn(options);
        options.nodes.down_ms = 2_000;
        options.think_us = 2_000;
        options.nodes.mailbox_full = 300;
    });
    assert!(sum(&outcomes, |it| it.installed) > 0, "{outcomes:?}");
}

/// Seed 9004839: *not linearizable, and the checker was wrong.* A request of a session was struck out
/// of the history when one attempt was refused while another was still under way. (d2fe500,
/// `src/sim/sessions.rs`)
#[test]
fn a_request_with_two_attempts_under_way_is_not_struck_out() {
    let outcomes = scenario(&[9_004_839, 6, 7, 8, 9, 10, 11, 12], |options| {
        options.clients = 8;
        options.session_clients = 8;
        options.request_ms = 300;
        options.think_us = 2_000;
        options.nodes.pause_every_ms = 400;
        options.nodes.mailbox_full = 300;
    });
    assert!(sum(&outcomes, |it| it.retried) > 20, "{outcomes:?}");
}

/// Seed 34 of the world with hanging disks: *replicas differ*, because a write begun under a hang ended
/// only with the hang, long after the faults were said to be over. The world was wrong; what is kept is
/// that a group heals when a disk that hung for longer than an election goes on.
#[test]
fn a_group_heals_when_a_disk_that_hung_goes_on() {
    let outcomes = scenario(&[34, 8, 9], |options| {
        options.disk.hang_every_ms = 500;
        options.disk.hang_ms = 2_000;
    });
    assert!(sum(&outcomes, |it| it.faults.hangs) > 20, "{outcomes:?}");
}

/// Truncation under every crash: a short log, a node alone, power lost where segments are deleted.
#[test]
fn contract_row_27_power_is_lost_where_segments_are_deleted() {
    let outcomes = scenario(&[10, 11, 12], |options| {
        options.cores = vec![1];
        options.spares = 0;
        options.operate_every_ms = 0;
        options.log_bytes = 0;
        options.think_us = 500;
        options.nodes.down_ms = 50;
        options.nodes.crash_at = Some((CrashPoint::AfterWalRelease, 2_000));
    });
    let point = CrashPoint::AfterWalRelease as usize;
    assert!(sum(&outcomes, |it| it.crash_points[point]) > 0, "{outcomes:?}");
}

/// Many groups on each core, under all the faults there are.
#[test]
fn sixty_four_groups_survive_everything() {
    let outcomes = scenario(&[13], |options| {
        options.cores = vec![2; 3];
        options.spares = 0;
        (options.groups, options.keys_per_group) = (64, 1);
        (options.election_ms, options.heartbeat_ms) = (300, 100);
        options.net.flap_every_ms = 1_000;
        options.net.swizzle_every_ms = 2_000;
        options.nodes.stall_every_ms = 1_000;
        options.nodes.crash_every_ms = 1_000;
        options.disk.slow_every_ms = 1_000;
    });
    assert!(sum(&outcomes, |it| it.elections) > 64, "{outcomes:?}");
}

/// Seed 102, and a dozen others: *leader completeness.* The newest segment was cut short. That it was told in front of
/// what was left of it, all of which then seemed to follow the gap: what had been cut off, votes and accepted
/// entries, was forgotten without a word. Seed 387: the same with a file that had lost its header before.
/// (`src/wal/recover.rs`)
#[test]
fn contract_row_55_a_newest_segment_that_was_cut_is_got_back_from_the_peers() {
    let outcomes = scenario(&[102, 387, 9, 16], |options| {
        (options.cores, options.spares) = (vec![1; 3], 0);
        options.operate_every_ms = 0;
        options.disk.files_every_ms = 500;
        options.nodes.down_ms = 50;
    });
    assert!(sum(&outcomes, |it| it.faults.files_cut) > 3, "{outcomes:?}");
    assert!(sum(&outcomes, |it| it.losses) > 3, "{outcomes:?}");
}

/// Seed 14: *a lost log was taken for a new one.* All segments were gone and the note of where the log begins was there: the
/// node began anew with segment 1, which its next start would have taken for reclaimed and deleted.
/// (`src/wal/recover.rs`) And whoever comes in its place is a voter in every group in the end.
#[test]
fn contract_row_27_a_node_with_an_emptied_disk_is_replaced_under_a_new_id() {
    let outcomes = scenario(&[14, 608, 1, 2, 5], |options| {
        (options.cores, options.spares) = (vec![1; 3], 0);
        options.replacements = vec![1, 2];
        options.log_bytes = 0;
        options.nodes.wipe_every_ms = 500;
        options.nodes.down_ms = 50;
    });
    assert!(sum(&outcomes, |it| it.faults.wipes) > 3, "{outcomes:?}");
    let (replaced, halts) = (sum(&outcomes, |it| it.replaced), sum(&outcomes, |it| it.halts));
    assert!(sum(&outcomes, |it| it.faults.wipes) <= replaced + halts, "{outcomes:?}");
}

/// What a read shows for once is not believed, neither at a start nor when entries are read back for a peer.
#[test]
fn contract_row_55_reads_that_show_something_else_are_noticed() {
    let outcomes = scenario(&[17, 18, 19, 20], |options| {
        with_churn(options);
        options.log_cache_bytes = 1 << 10;
        options.disk.misread = 2_500;
    });
    assert!(sum(&outcomes, |it| it.faults.misread_starts) > 3, "{outcomes:?}");
    assert!(sum(&outcomes, |it| it.faults.stale_reads) > 1, "{outcomes:?}");
}

/// Whoever mixes up files, or starts an older version, is told which file it is; the node starts once that is put right.
#[test]
fn contract_row_57_a_file_that_is_not_its_own_keeps_a_node_from_starting_and_costs_nothing() {
    let outcomes = scenario(&[21, 22, 23, 24], |options| {
        with_churn(options);
        options.disk.foreign = 3_000;
    });
    let (found, refused) =
        (sum(&outcomes, |it| it.faults.files_foreign), sum(&outcomes, |it| it.starts_refused));
    assert!(5 < found && found <= refused, "{outcomes:?}");
    assert!(sum(&outcomes, |it| it.faults.foreign_back) > 1, "{outcomes:?}");
}

/// Minutes in slow motion, with faults all along.
#[test]
fn a_world_in_slow_motion_is_hurt_all_along_and_heals() {
    let options = Options { chaos_ms: 120_000, ..Options::swarm(3).slowed(20) };
    let outcome = run(3, &options);
    assert!(120_000 < outcome.virtual_ms && outcome.faults.total() > 5, "{outcome:?}");
}

/// A replica had lost something, got it back and said so in its log. Then the front of that was cut behind a snapshot that
/// came later, and the next start did not take the word: it was forgetful again, and would elect nobody without the third
/// (seeds 40227, 41113, 42290 and 42985; `cargo power flips` stood still). These worlds end with two restarts.
#[test]
fn who_was_whole_is_whole_after_the_next_start() {
    made_good(&[40_227, 41_113, 42_290, 42_985]);
}

/// A life was shown a block as it is not, heard from the others that its term was 9 and went on in it; the next one read
/// in that block that it had stood in term 10, and refused to start (231317). Another cut the log behind a snapshot that
/// was older than what it had read in front of the bad block (241693). A third took snapshots for as long as something
/// was missing, which made the log no shorter, and the leader began anew with the one it sent whenever it was asked
/// what was missing (234173: the group stood still behind them). A fourth went on from less than its machine had executed
/// (209013). A fifth took what a life before had fetched again for another leader's entries: the note of that was gone
/// (230477).
#[test]
fn a_bad_block_is_not_the_end_of_a_node() {
    made_good(&[231_317, 241_693, 234_173, 209_013, 230_477]);
}

/// A life could not read one batch of its log, was for once shown the next one as it had been before, and began the next
/// segment behind the torn one after them. Its header repeated what the batch in front of all three was; later lives were
/// shown the one in between, found that header to name another log, and refused to start.
#[test]
fn contract_row_55_what_a_life_was_not_shown_does_not_keep_the_next_from_starting() {
    made_good(&[454_769]);
}

/// Whose needs lie too far back was asked when a segment began or a snapshot ended. A replica that could take none at that
/// moment, since nothing of its log was known to be committed or it was not whole, kept a damaged segment for as long as
/// nobody wrote.
#[test]
fn a_damaged_segment_leaves_the_log_though_nobody_writes() {
    made_good(&[500_434, 500_553, 500_577, 501_522]);
}

/// While members learned to give each other back what is committed: the state was of a higher term than whoever took it
/// knew (701466); what lay behind its gap was taken for committed beyond what its own log said (704012); a doubt of an
/// earlier life outlived what ended it (719592); an answer to a member that does not lead counted as a promise (812201).
/// All disks are damaged in 714360: two of three know that an entry is committed and lack those in front of it, which the
/// third has and does not know to be. And in 721391, with 64 groups. In 2007115 nobody is left who knows: but each says how
/// far its log had reached. In 6045087 the third is whole, asks nobody, and said nothing; and what the others learned lay behind
/// their gaps.
#[test]
fn members_that_are_not_whole_give_each_other_back_what_is_committed() {
    made_good(&[701_466, 704_012, 719_592, 812_201, 714_360, 721_391, 2_007_115, 6_045_087]);
}

/// The end of a log was in doubt, because an earlier life could not read it, and brought in a member. Who went on alone
/// with it counted the members as of what was not in doubt, and left that one in the group.
#[test]
fn contract_row_59_who_goes_on_alone_takes_out_whom_the_end_of_its_log_brings_in() {
    made_good(&[2_021_243, 2_128_420, 2_132_110]);
}

/// A replica lost all that it knew of its group's members but the first ones, and its leader had joined since. It asked those
/// it knew, nobody told that leader to begin anew, and so it was sent what follows on entries it had lost, for ever. The
/// simulator took that for a group that stands still because of members that are gone.
#[test]
fn a_leader_that_nobody_knew_when_the_log_was_lost_gives_it_back() {
    made_good(&[200_646, 202_959]);
}

/// A start was shown a block as it was before, and the replica fetched again what it had lost. The next start could read that
/// block, and held more than was fetched; the index of the log took what was fetched for the end, and forgot where the rest
/// lay. Nobody asked for that before it had long left the memory: then the replica stopped.
#[test]
fn what_was_fetched_again_is_not_where_the_log_ends() {
    let options = Options { chaos_ms: 1_440_000, ..Options::swarm(3_000_938).slowed(20) };
    let outcome = run(3_000_938, &options);
    assert!(outcome.losses > 0 && 1_440_000 < outcome.virtual_ms, "{outcome:?}");
}

/// A leader that was sending snapshots of many groups was started again. The new member waited for the rest of those, had no place
/// for others, and kept all that the leader may send at a time waiting; so that one of the two members that were left, whose
/// logs were too short, got none.
#[test]
fn contract_row_40_a_member_that_waits_for_a_dead_transfer_keeps_no_other_from_its_own() {
    let outcome = run(6_032_038, &Options::swarm(6_032_038));
    assert!(outcome.faults.wipes > 0, "{outcome:?}");
}
