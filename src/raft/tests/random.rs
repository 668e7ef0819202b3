//! Stories nobody thought of: thousands of schedules from seeds, judged after every event.
//!
//! A failing run prints its seed and the command that replays it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::id::{Index, ReplicaId};
use crate::raft::*;

use super::harness::{Cluster, test_config};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

#[test]
fn safety_holds_under_random_schedules() {
    if let Ok(seed) = std::env::var("RAFT_SEED") {
        run(seed.parse().expect("RAFT_SEED is a number"));
        return;
    }
    let count = std::env::var("RAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    for seed in 1..=count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!(
                "seed {seed} failed; replay it with\n  RAFT_SEED={seed} cargo test \
                 --no-default-features --lib raft::tests::random -- --nocapture"
            );
            resume_unwind(panic);
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let voters = 1 + 2 * dice.roll(3);
    let learners = dice.roll(2);
    let all = voters + learners;
    let mut membership = Membership::of_voters((1..=voters).map(ReplicaId))
        .with_learners((voters + 1..=all).map(ReplicaId));
    if voters >= 3 && dice.one_in(4) {
        membership.outgoing = (1..voters).map(ReplicaId).collect();
    }
    let config = Config {
        pre_vote: !dice.one_in(4),
        check_quorum: !dice.one_in(4),
        append_entries_max: 1 + dice.roll(4) as u32,
        inflight_messages_max: 1 + dice.roll(4) as usize,
        inflight_bytes_max: 1 + dice.roll(8),
        uncommitted_bytes_max: 4 + dice.roll(20),
        ..test_config(seed)
    };
    let mut cluster = Cluster::with(membership, config);
    for _ in 0..300 + dice.roll(300) {
        act(&mut cluster, &mut dice, all);
        if dice.one_in(16) {
            cluster.judge_logs();
        }
    }
    heal(&mut cluster);
}

fn act(cluster: &mut Cluster, dice: &mut Dice, all: u64) {
    let id = 1 + dice.roll(all);
    match dice.roll(100) {
        0..45 => deliver(cluster, dice),
        45..60 => {
            cluster.flush(id);
        }
        60..72 => {
            // Usually a step of time for everybody, sometimes a stall of the one that is ticked.
            cluster.now = cluster.now.plus(if dice.one_in(20) { 250 } else { dice.roll(15) });
            for id in 1..=all {
                if cluster.now >= cluster.node(id).raft.deadline() && !dice.one_in(5) {
                    cluster.tick(id);
                }
            }
        }
        72..86 => {
            let leader = (1..=all).rfind(|&id| cluster.leads(id)).unwrap_or(id);
            let _ = cluster.propose(leader, 1 + dice.roll(3) as u32);
        }
        86..91 => {
            for id in 1..=all {
                let _ = cluster.read(id);
            }
        }
        91..93 => {
            let kept = dice.roll(3) as usize;
            let applied = Index(dice.roll(20));
            cluster.crash(id, kept, applied);
        }
        93 => {
            cluster.cut.clear();
            for _ in 0..dice.roll(2 * all) {
                cluster.cut.insert((1 + dice.roll(all), 1 + dice.roll(all)));
            }
        }
        94 => cluster.campaign(id),
        95 => cluster.node_mut(id).raft.on_unreachable(ReplicaId(1 + dice.roll(all))),
        96 => {
            let last = cluster.status(id).last.index;
            cluster.node_mut(id).cache.missing_below = Index(dice.roll(last.0 + 2));
        }
        97 => fetch(cluster, id),
        98 => {
            let now = cluster.now;
            cluster.node_mut(id).raft.transfer(ReplicaId(1 + dice.roll(all)), now);
        }
        _ => {
            let now = cluster.now;
            cluster.node_mut(id).raft.forget_leader(now);
        }
    }
    for id in 1..=all {
        if !dice.one_in(3) {
            cluster.turn(id);
        }
    }
}

/// Something on the wire arrives, twice, late, or never.
fn deliver(cluster: &mut Cluster, dice: &mut Dice) {
    if cluster.wire.is_empty() {
        return;
    }
    let at = if dice.one_in(3) { dice.roll(cluster.wire.len() as u64) as usize } else { 0 };
    let packet = cluster.wire[at].clone();
    if !dice.one_in(20) {
        cluster.wire.remove(at);
    }
    if !dice.one_in(15) {
        cluster.receive(&packet);
    }
}

fn fetch(cluster: &mut Cluster, id: u64) {
    for fetch in std::mem::take(&mut cluster.node_mut(id).fetches) {
        let node = cluster.node_mut(id);
        node.cache.missing_below = node.cache.missing_below.min(fetch.first);
        node.raft.on_fetched(fetch.to);
    }
}

/// With every link and disk in order, everybody ends with the same log and a leader that works.
fn heal(cluster: &mut Cluster) {
    cluster.cut.clear();
    for _ in 0..40 {
        cluster.pass(100);
        for id in cluster.ids() {
            fetch(cluster, id);
        }
    }
    cluster.judge_logs();
    let leader = cluster.ids().find(|&id| cluster.leads(id)).expect("a healthy group has a leader");
    let before = cluster.node(leader).reads_done.len();
    cluster.propose(leader, 1).expect("a healthy leader takes proposals");
    cluster.read(leader).expect("a healthy leader takes reads");
    cluster.settle();
    cluster.pass(20);
    for id in cluster.ids() {
        fetch(cluster, id);
    }
    cluster.pass(20);
    assert!(cluster.node(leader).reads_done.len() > before, "a healthy leader confirms reads");
    let last = cluster.status(leader).last.index;
    for id in cluster.ids() {
        let status = cluster.status(id);
        let stands = (status.last.index, status.commit, status.applied, status.durable);
        assert_eq!(stands, (last, last, last, last), "{id} did not catch up with {leader}");
        assert!(cluster.node(id).leader_ready <= 1 || cluster.node(id).roles.len() > 1);
    }
}
