//! What a shard tells of itself: reports, the clocks of its writes, and what was slow.

use crate::group::Replica;
use crate::id::{Index, Micros, Tick};
use crate::wal::{RunKind, Write};

use super::event::About;
use super::report::{GroupReport, ShardReport};
use super::shard::Shard;
use super::stages::{Commit, ForwardLeg, Leg, Mark};

impl Shard {
    /// A place of the turn was passed at `at`: see [`super::stages`]. A driver that measures says all of them, in
    /// every turn.
    pub fn mark(&mut self, now: Tick, mark: Mark, at: Micros) {
        self.stages.mark(mark, at);
        if mark != Mark::Replied {
            return;
        }
        let wall = self.wall(now);
        for commit in self.stages.explained().0 {
            let slot = (commit.group.0 / u64::from(self.config.cores)) as usize;
            let cache = self.replicas[slot].cache();
            self.slowlog.on_commit(commit, wall, |index| cache.get(index));
        }
    }

    /// The commits that were explained in this turn, and the parts of followers that were heard of.
    #[must_use]
    pub fn explained(&self) -> (&[Commit], &[Leg]) {
        self.stages.explained()
    }

    /// The commands sent on to other nodes whose answers came in this turn.
    #[must_use]
    pub fn forward_legs(&self) -> &[ForwardLeg] {
        self.stages.forwards()
    }

    /// Operations that take as long as this, in µs, are remembered for `SLOWLOG`. Without, none are.
    pub fn slow_after(&mut self, us: u64) {
        self.slowlog.slow_after(us);
        let ms = us.div_ceil(1000);
        self.replicas.iter_mut().for_each(|replica| replica.slow_after(ms));
    }

    /// Writes leave with this turn.
    pub(super) fn note_writes(&mut self, now: Tick, writes: &[Write]) {
        for write in writes {
            self.disk_age.started(write.ticket, now);
            self.stages.writing(write.ticket);
            for run in write.runs().iter().filter(|run| !run.entries.is_empty()) {
                if run.kind == RunKind::Log
                    && let Some(slot) = self.slot_of(run.group)
                {
                    let last = Index(run.first.0 + run.entries.len() as u64 - 1);
                    self.stages.placed(slot, last, write.ticket);
                }
            }
        }
    }

    /// The report for a request of this node's.
    pub(super) fn tell(&mut self, about: About) -> ShardReport {
        let mut report = self.report(about == About::Digest);
        match about {
            About::Slow => report.slow = self.slowlog.ops().cloned().collect(),
            About::Forgetting => self.slowlog.reset(),
            About::Itself | About::Digest => {}
        }
        report
    }

    /// What this core knows of itself; with `digest`, all its data is read.
    #[must_use]
    pub fn report(&self, digest: bool) -> ShardReport {
        ShardReport {
            node: self.config.node,
            cluster: self.config.cluster,
            shard: self.config.shard,
            cores: self.config.cores,
            groups_total: self.config.groups,
            disk_full: self.log.is_full(),
            groups_recalling: self.replicas.iter().filter(|it| it.forgotten().is_some()).count()
                as u64,
            log_bytes: self.log_bytes(),
            counters: self.counters.clone(),
            driver: self.driver.clone(),
            groups: self.replicas.iter().map(|replica| group_report(replica, digest)).collect(),
            slow: Vec::new(),
        }
    }
}

fn group_report(replica: &Replica, digest: bool) -> GroupReport {
    let status = replica.status();
    GroupReport {
        group: replica.group(),
        role: status.role,
        leader: status.leader,
        voters: replica.state().membership.voters().collect(),
        term: status.term,
        commit: status.commit,
        applied: status.applied,
        first: status.first,
        last: status.last.index,
        keys: replica.machine().len(),
        expires: replica.machine().expiring(),
        failed: replica.why_failed(),
        digest: digest.then(|| replica.digest()),
    }
}
