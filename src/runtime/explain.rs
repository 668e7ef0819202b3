//! Explains commits: the shard's stage clocks, kept in histograms.
//!
//! One per core. Every command counts with the times of its passage ([`crate::shard::stages`]), so that
//! percentiles are those of commands. What set the commit times is counted in windows of ten seconds: an operator
//! asks what is slow now.

use std::collections::BTreeMap;

use crate::id::{NodeId, Tick};
use crate::shard::report::{CommitsReport, SetBy, StageSpread};
use crate::shard::stages::{Commit, Leg, Stage};

use super::metrics::Durations;

/// How long a window is, in ms.
const WINDOW_MS: u64 = 10_000;

/// What a core knows of where the time of commits went.
#[derive(Debug, Clone)]
pub struct Explainer {
    /// From the receipt of a command until its reply.
    commits: Durations,
    /// The stages that are not of a follower; the places of the others stay empty.
    own: Vec<Durations>,
    /// The stages of each follower.
    followers: BTreeMap<NodeId, Vec<Durations>>,
    /// What set the commit times before the window that is open.
    before: Decided,
    /// The window that is open, since when, and the one before it.
    open: Decided,
    opened: Tick,
    closed: Decided,
}

/// Commands, by the node and the stage that set their commit time; and the sum of those times, in µs.
type Decided = BTreeMap<(NodeId, Stage), (u64, u64)>;

fn add(sum: &mut Decided, more: &Decided) {
    for (key, (commands, us)) in more {
        let sum = sum.entry(*key).or_insert((0, 0));
        (sum.0, sum.1) = (sum.0 + commands, sum.1 + us);
    }
}

fn histograms(wanted: impl Fn(Stage) -> bool) -> Vec<Durations> {
    Stage::ALL.into_iter().filter(|stage| wanted(*stage)).map(|_| Durations::default()).collect()
}

/// The stages of a follower, or the others, in the order of the path.
fn stages(of_follower: bool) -> impl Iterator<Item = Stage> {
    Stage::ALL.into_iter().filter(move |stage| stage.is_of_follower() == of_follower)
}

impl Default for Explainer {
    fn default() -> Self {
        Self {
            commits: Durations::default(),
            own: histograms(|stage| !stage.is_of_follower()),
            followers: BTreeMap::new(),
            before: Decided::new(),
            open: Decided::new(),
            opened: Tick(0),
            closed: Decided::new(),
        }
    }
}

impl Explainer {
    /// Counts what a shard has explained in one turn.
    pub fn count(&mut self, now: Tick, commits: &[Commit], legs: &[Leg]) {
        if WINDOW_MS <= now.since(self.opened) {
            // A window that nobody wrote into for long is not the one before this.
            let is_next = now.since(self.opened) < 2 * WINDOW_MS;
            add(&mut self.before, &self.open);
            self.closed = std::mem::take(&mut self.open);
            if !is_next {
                self.closed.clear();
            }
            self.opened = now;
        }
        for commit in commits {
            let count = u64::from(commit.commands);
            self.commits.record_us(u64::from(commit.us), count);
            for (histogram, stage) in self.own.iter_mut().zip(stages(false)) {
                histogram.record_us(u64::from(commit.times[stage as usize]), count);
            }
            let decided = self.open.entry((commit.set_by, commit.stage)).or_insert((0, 0));
            decided.0 += count;
            decided.1 += count * u64::from(commit.us);
        }
        for leg in legs {
            let own = self.followers.entry(leg.node);
            let own = own.or_insert_with(|| histograms(Stage::is_of_follower));
            for (histogram, stage) in own.iter_mut().zip(stages(true)) {
                histogram.record_us(u64::from(leg.times[stage as usize]), leg.commands.into());
            }
        }
    }

    /// From the receipt of a command until its reply.
    #[must_use]
    pub fn commits(&self) -> &Durations {
        &self.commits
    }

    /// Every histogram of a stage; with the follower, if it is of one.
    pub fn stages(&self) -> impl Iterator<Item = (Option<NodeId>, Stage, &Durations)> {
        let own = stages(false).zip(&self.own).map(|(stage, it)| (None, stage, it));
        let of =
            |(&node, all)| stages(true).zip(all).map(move |(stage, it)| (Some(node), stage, it));
        own.chain(self.followers.iter().flat_map(of))
    }

    /// What set the commit times since the start: node, stage, commands.
    pub fn set_by(&self) -> impl Iterator<Item = (NodeId, Stage, u64)> + use<> {
        let mut all = self.before.clone();
        add(&mut all, &self.open);
        all.into_iter().map(|((node, stage), (commands, _))| (node, stage, commands))
    }

    /// What set the commit times of the last ten to twenty seconds, most commands first.
    #[must_use]
    pub fn set_by_lately(&self) -> Vec<SetBy> {
        let mut recent = self.closed.clone();
        add(&mut recent, &self.open);
        let mut set_by: Vec<SetBy> = recent
            .into_iter()
            .map(|((node, stage), (commands, us))| SetBy {
                node,
                stage,
                commands,
                mean_us: us / commands.max(1),
            })
            .collect();
        set_by.sort_by_key(|it| std::cmp::Reverse(it.commands));
        set_by
    }

    /// What `INFO` shows.
    #[must_use]
    pub fn report(&self) -> CommitsReport {
        let spread = |(node, stage, it): (_, _, &Durations)| StageSpread {
            node,
            stage,
            spread: it.spread(),
        };
        CommitsReport {
            commits: self.commits.spread(),
            stages: self.stages().map(spread).collect(),
            set_by: self.set_by_lately(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::id::{GroupId, Index};
    use crate::shard::stages::StageTimes;

    fn commit(commands: u32, us: u32, set_by: u64, stage: Stage) -> Commit {
        let mut times = StageTimes::default();
        times[stage as usize] = us / 2;
        let (group, first, last) = (GroupId(0), Index(1), Index(u64::from(commands)));
        Commit { group, first, last, commands, us, times, set_by: NodeId(set_by), stage }
    }

    /// A commit of so many commands that took so long, half of it on the disk of node 2.
    pub(crate) fn explained(commands: u32, us: u32) -> (Commit, Leg) {
        let commit = commit(commands, us, 2, Stage::FollowerFlush);
        (commit, Leg { node: NodeId(2), commands, times: commit.times })
    }

    #[test]
    fn commands_count_each_and_what_set_their_time_most_comes_first() {
        let mut explainer = Explainer::default();
        let commits = [commit(3, 500, 1, Stage::Flush), commit(9, 6_000, 2, Stage::FollowerFlush)];
        let mut times = StageTimes::default();
        times[Stage::FollowerFlush as usize] = 5_000;
        let leg = Leg { node: NodeId(2), commands: 9, times };
        explainer.count(Tick(20_000), &commits, &[leg]);
        let report = explainer.report();
        assert_eq!(report.commits.count, 12);
        let set_by =
            |node, stage, commands, mean_us| SetBy { node: NodeId(node), stage, commands, mean_us };
        let expected = [set_by(2, Stage::FollowerFlush, 9, 6_000), set_by(1, Stage::Flush, 3, 500)];
        assert_eq!(report.set_by, expected);
        let of = |node: Option<u64>, stage| {
            let is_it = |it: &&StageSpread| (it.node, it.stage) == (node.map(NodeId), stage);
            report.stages.iter().find(is_it).map(|it| (it.spread.count, it.spread.max))
        };
        assert_eq!(of(None, Stage::Flush).unwrap().0, 12);
        let (count, max) = of(Some(2), Stage::FollowerFlush).unwrap();
        assert!(count == 9 && (4_900..5_100).contains(&max), "{count} {max}");
        assert_eq!(of(None, Stage::FollowerFlush), None, "no leader has that");
        assert_eq!(report.stages.len(), Stage::COUNT, "each once");
    }

    #[test]
    fn what_was_slow_is_forgotten_after_two_windows_and_counted_for_ever() {
        let mut explainer = Explainer::default();
        let slow = [commit(1, 9_000, 2, Stage::FollowerFlush)];
        let fast = [commit(1, 300, 1, Stage::Flush)];
        explainer.count(Tick(WINDOW_MS), &slow, &[]);
        explainer.count(Tick(2 * WINDOW_MS), &fast, &[]);
        assert_eq!(explainer.set_by_lately().len(), 2);
        explainer.count(Tick(3 * WINDOW_MS), &fast, &[]);
        let stages =
            |it: &Explainer| it.set_by_lately().iter().map(|it| it.stage).collect::<Vec<_>>();
        assert_eq!(stages(&explainer), [Stage::Flush]);
        explainer.count(Tick(30 * WINDOW_MS), &slow, &[]);
        assert_eq!(stages(&explainer), [Stage::FollowerFlush]);
        assert_eq!(explainer.set_by().map(|(.., commands)| commands).sum::<u64>(), 4);
    }
}
