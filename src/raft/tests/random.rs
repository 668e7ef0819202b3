//! Stories nobody thought of: thousands of schedules from seeds, judged after every event.
//!
//! A failing run prints its seed and the command that replays it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::id::{Index, ReplicaId};
use crate::raft::*;

use super::harness::{Cluster, test_config};

pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

#[test]
fn safety_holds_under_random_schedules() {
    each_seed("random", run);
}

/// Runs the seeds of a test in this module, and returns how many; or the one that is asked for.
pub(super) fn each_seed(module: &str, mut run: impl FnMut(u64)) -> Option<u64> {
    if let Ok(seed) = std::env::var("RAFT_SEED") {
        run(seed.parse().expect("RAFT_SEED is a number"));
        return None;
    }
    let count = std::env::var("RAFT_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    for seed in 1..=count {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!(
                "seed {seed} failed; replay it with\n  RAFT_SEED={seed} cargo test \
                 --no-default-features --lib raft::tests::{module} -- --nocapture"
            );
            resume_unwind(panic);
        }
    }
    Some(count)
}

fn run(seed: u64) {
    let mut dice = Dice::of(seed);
    let (mut cluster, all) = begin(seed, &mut dice);
    for _ in 0..300 + dice.roll(300) {
        act(&mut cluster, &mut dice, all);
        if dice.one_in(16) {
            cluster.judge_logs();
        }
    }
    heal(&mut cluster);
}

/// Some replicas, and how many; of which one may not belong yet.
pub(super) fn begin(seed: u64, dice: &mut Dice) -> (Cluster, u64) {
    let voters = 1 + 2 * dice.roll(3);
    let learners = dice.roll(2);
    let members = voters + learners;
    let all = members + dice.roll(2);
    let mut membership = Membership::of_voters((1..=voters).map(ReplicaId))
        .with_learners((voters + 1..=members).map(ReplicaId));
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
        on_removal: match dice.roll(3) {
            0 => OnRemoval::StepDown,
            1 => OnRemoval::KeepLeading,
            _ => OnRemoval::HandOver,
        },
        ..test_config(seed)
    };
    // A lease relies on the promise that check-quorum makes.
    let lease = config.check_quorum && dice.one_in(2);
    let config = Config { lease: lease.then_some(Lease { drift_percent: 10 }), ..config };
    (Cluster::with_strangers(membership, config, all), all)
}

/// Something happens to somebody.
pub(super) fn act(cluster: &mut Cluster, dice: &mut Dice, all: u64) {
    let id = 1 + dice.roll(all);
    match dice.roll(106) {
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
                let _ = if dice.one_in(2) { cluster.read(id) } else { cluster.read_here(id) };
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
        99 => {
            let now = cluster.now;
            cluster.node_mut(id).raft.forget_leader(now);
        }
        100..103 => {
            let leader = (1..=all).rfind(|&id| cluster.leads(id)).unwrap_or(id);
            let change = change(dice, all, cluster.status(leader).membership.is_joint());
            let _ = cluster.reconfigure(leader, change);
        }
        103 => {
            let applied = cluster.node(id).applied;
            cluster.node_mut(id).raft.compact(Index(applied.0.saturating_sub(dice.roll(4))));
        }
        _ => {
            let failed = ReplicaId(1 + dice.roll(all));
            cluster.node_mut(id).raft.on_snapshot_failed(failed);
        }
    }
    for id in 1..=all {
        if !dice.one_in(3) {
            cluster.turn(id);
        }
    }
}

/// Any change of up to three replicas; out of a joint membership mostly the way out.
pub(super) fn change(dice: &mut Dice, all: u64, is_joint: bool) -> ConfChange {
    if is_joint && !dice.one_in(4) {
        let transition = if dice.one_in(3) { Transition::Cancel } else { Transition::Auto };
        return ConfChange { transition, changes: Vec::new() };
    }
    let transition = match dice.roll(4) {
        0 => Transition::JointImplicit,
        1 => Transition::JointExplicit,
        _ => Transition::Auto,
    };
    let changes = (0..1 + dice.roll(3)).map(|_| Change {
        kind: match dice.roll(5) {
            0 | 1 => ChangeKind::AddVoter,
            2 => ChangeKind::AddLearner,
            3 => ChangeKind::Remove,
            _ => ChangeKind::Update,
        },
        id: ReplicaId(1 + dice.roll(all)),
    });
    ConfChange { transition, changes: changes.collect() }
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

/// With every link and disk in order, every member ends with the same log and a leader that works.
fn heal(cluster: &mut Cluster) {
    cluster.cut.clear();
    for id in cluster.ids() {
        for peer in cluster.ids() {
            // A snapshot that was lost is reported in the end.
            cluster.node_mut(id).raft.on_snapshot_failed(ReplicaId(peer));
        }
    }
    for round in 0..60 {
        cluster.pass(100);
        for id in cluster.ids() {
            fetch(cluster, id);
        }
        if round == 10 {
            // Whoever was removed has been told by then, and takes part no more.
            let committed = cluster.committed.clone();
            let last = Index(committed.len() as u64);
            let membership = cluster.membership_at(&committed, last);
            for id in cluster.ids().filter(|&id| !membership.is_member(ReplicaId(id))) {
                cluster.isolate(id);
            }
        }
    }
    cluster.judge_logs();
    let leader = cluster.ids().rfind(|&id| cluster.leads(id) && belongs(cluster, id));
    let leader = leader.unwrap_or_else(|| {
        let all: Vec<_> = cluster.ids().map(|id| cluster.status(id)).collect();
        let all: Vec<_> = all.iter().map(|it| format!("{it:?}")).collect();
        panic!("a healthy group has no leader:\n{}", all.join("\n"))
    });
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
    assert!(!cluster.status(leader).membership.auto_leave, "nobody left the joint membership");
    let last = cluster.status(leader).last.index;
    for id in cluster.ids().filter(|&id| belongs(cluster, id)) {
        let status = cluster.status(id);
        let stands = (status.last.index, status.commit, status.applied, status.durable);
        assert_eq!(stands, (last, last, last, last), "{id} did not catch up with {leader}");
        assert!(cluster.node(id).leader_ready <= 1 || cluster.node(id).roles.len() > 1);
    }
}

/// Whether the group, as of what is committed, counts `id` as a member.
fn belongs(cluster: &Cluster, id: u64) -> bool {
    let last = Index(cluster.committed.len() as u64);
    cluster.membership_at(&cluster.committed, last).is_member(ReplicaId(id))
}
