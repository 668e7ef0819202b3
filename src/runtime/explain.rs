//! Explains commits: the shard's stage clocks, kept in histograms.
//!
//! One per core. Every command counts with the times of its passage ([`crate::shard::stages`]), so that
//! percentiles are those of commands. All of it is kept since the start, for Prometheus, and told to people for the
//! last ten to twenty seconds: an operator asks what is slow now.

use std::collections::BTreeMap;

use crate::id::{NodeId, Tick};
use crate::shard::report::{CommitsReport, SetBy, StageSpread};
use crate::shard::stages::{Commit, Leg, Stage};

use super::metrics::{Durations, Window};

/// Where the time of commits went, from the start on.
#[derive(Debug, Clone)]
pub struct Explained {
    /// From the receipt of a command until its reply.
    commits: Durations,
    /// The stages that are not of a follower; the places of the others stay empty.
    own: Vec<Durations>,
    /// The stages of each follower.
    followers: BTreeMap<NodeId, Vec<Durations>>,
    /// Commands, by the node and the stage that set their commit time; and the sum of those times, in µs.
    set_by: BTreeMap<(NodeId, Stage), (u64, u64)>,
}

/// Commits, and legs, that are told to the histograms together. Each commit touches fifteen of them, which a processor that has
/// done a turn's work since the last one has to fetch again.
const AT_ONCE: usize = 256;

/// What a core knows of where the time of commits went.
#[derive(Debug, Default)]
pub struct Explainer {
    all: Explained,
    /// What is not in the histograms yet; [`AT_ONCE`] of each, and those of one turn.
    commits: Vec<Commit>,
    legs: Vec<Leg>,
    before: Window<Explained>,
}

fn histograms(wanted: impl Fn(Stage) -> bool) -> Vec<Durations> {
    Stage::ALL.into_iter().filter(|stage| wanted(*stage)).map(|_| Durations::default()).collect()
}

/// Durations in µs, and how many commands took each. Those of one turn mostly follow one another, and took the same.
fn record(histogram: &mut Durations, durations: impl Iterator<Item = (u32, u32)>) {
    let (mut now, mut commands) = (0, 0);
    for (us, more) in durations {
        if us != now && 0 < commands {
            histogram.record_us(now.into(), commands);
            commands = 0;
        }
        now = us;
        commands += u64::from(more);
    }
    if 0 < commands {
        histogram.record_us(now.into(), commands);
    }
}

/// The stages of a follower, or the others, in the order of the path.
fn stages(of_follower: bool) -> impl Iterator<Item = Stage> {
    Stage::ALL.into_iter().filter(move |stage| stage.is_of_follower() == of_follower)
}

impl Default for Explained {
    fn default() -> Self {
        Self {
            commits: Durations::default(),
            own: histograms(|stage| !stage.is_of_follower()),
            followers: BTreeMap::new(),
            set_by: BTreeMap::new(),
        }
    }
}

impl Explained {
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

    /// What set the commit times: node, stage, commands.
    pub fn set_by(&self) -> impl Iterator<Item = (NodeId, Stage, u64)> {
        self.set_by.iter().map(|(&(node, stage), &(commands, _))| (node, stage, commands))
    }

    /// What came after `earlier`, which was a copy of this.
    fn since(&self, earlier: &Self) -> CommitsReport {
        let followers = |(&node, all)| {
            let before = earlier.followers.get(&node);
            let all: &Vec<Durations> = all;
            stages(true).zip(all).enumerate().map(move |(at, (stage, it))| {
                let it = before.map_or_else(|| it.clone(), |before| it.since(&before[at]));
                StageSpread { node: Some(node), stage, spread: it.spread() }
            })
        };
        let own = stages(false).zip(self.own.iter().zip(&earlier.own));
        let own = own.map(|(stage, (it, before))| StageSpread {
            node: None,
            stage,
            spread: it.since(before).spread(),
        });
        CommitsReport {
            commits: self.commits.since(&earlier.commits).spread(),
            stages: own.chain(self.followers.iter().flat_map(followers)).collect(),
            set_by: self.set_by_since(earlier),
        }
    }

    fn set_by_since(&self, earlier: &Self) -> Vec<SetBy> {
        let rest = self.set_by.iter().map(|(key, &(commands, us))| {
            let (commands_then, us_then) = earlier.set_by.get(key).copied().unwrap_or_default();
            (key, commands - commands_then, us - us_then)
        });
        let mut set_by: Vec<SetBy> = rest
            .filter(|(_, commands, _)| 0 < *commands)
            .map(|(&(node, stage), commands, us)| SetBy {
                node,
                stage,
                commands,
                mean_us: us / commands,
            })
            .collect();
        set_by.sort_by_key(|it| std::cmp::Reverse(it.commands));
        set_by
    }
}

impl Explainer {
    /// Counts what a shard has explained in one turn.
    pub fn count(&mut self, commits: &[Commit], legs: &[Leg]) {
        self.commits.extend_from_slice(commits);
        self.legs.extend_from_slice(legs);
        if AT_ONCE <= self.commits.len() || AT_ONCE <= self.legs.len() {
            self.settle();
        }
    }

    /// One histogram after the other.
    fn settle(&mut self) {
        let Self { all, commits, legs, .. } = self;
        for commit in &*commits {
            let (count, us) = (u64::from(commit.commands), u64::from(commit.us));
            let decided = all.set_by.entry((commit.set_at, commit.stage)).or_insert((0, 0));
            decided.0 += count;
            decided.1 += count * us;
        }
        record(&mut all.commits, commits.iter().map(|it| (it.us, it.commands)));
        for (histogram, stage) in all.own.iter_mut().zip(stages(false)) {
            record(histogram, commits.iter().map(|it| (it.times[stage as usize], it.commands)));
        }
        for leg in &*legs {
            let new = || histograms(Stage::is_of_follower);
            all.followers.entry(leg.node).or_insert_with(new);
        }
        for (&node, own) in &mut all.followers {
            for (histogram, stage) in own.iter_mut().zip(stages(true)) {
                let legs = legs.iter().filter(|leg| leg.node == node);
                record(histogram, legs.map(|it| (it.times[stage as usize], it.commands)));
            }
        }
        commits.clear();
        legs.clear();
    }

    /// Everything since the start.
    #[must_use]
    pub fn all(&mut self) -> &Explained {
        self.settle();
        &self.all
    }

    /// The last ten to twenty seconds, if this is asked at least every ten.
    #[must_use]
    pub fn lately(&mut self, now: Tick) -> CommitsReport {
        self.settle();
        let Self { all, before, .. } = self;
        all.since(before.earlier(now, all))
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
        let set_by = NodeId(set_by);
        Commit { group, first, last, commands, us, times, set_by, stage, set_at: set_by }
    }

    /// A commit of so many commands that took so long, half of it on the disk of node 2.
    pub(crate) fn explained(commands: u32, us: u32) -> (Commit, Leg) {
        let commit = commit(commands, us, 2, Stage::FollowerFlush);
        (commit, Leg { node: NodeId(2), commands, times: commit.times })
    }

    #[test]
    fn what_waits_for_the_histograms_is_bounded_and_none_of_it_is_missing() {
        let mut explainer = Explainer::default();
        let (commit, leg) = explained(2, 1_000);
        for _ in 0..3 * AT_ONCE + 1 {
            explainer.count(&[commit], &[leg, leg]);
            assert!(explainer.commits.len() < AT_ONCE && explainer.legs.len() < AT_ONCE);
        }
        let commands = 2 * (3 * AT_ONCE as u64 + 1);
        let all = explainer.all();
        assert_eq!(all.commits().spread().count, commands);
        assert!(all.stages().any(|(of, ..)| of.is_some()));
        for (of, stage, it) in all.stages() {
            let expected = if of.is_some() { 2 * commands } else { commands };
            assert_eq!(it.spread().count, expected, "{stage:?}");
        }
    }

    #[test]
    fn commands_count_each_and_what_set_their_time_most_comes_first() {
        let mut explainer = Explainer::default();
        let commits = [commit(3, 500, 1, Stage::Flush), commit(9, 6_000, 2, Stage::FollowerFlush)];
        let mut times = StageTimes::default();
        times[Stage::FollowerFlush as usize] = 5_000;
        let leg = Leg { node: NodeId(2), commands: 9, times };
        explainer.count(&commits, &[leg]);
        let report = explainer.lately(Tick(1_000));
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
        let (slow, leg) = explained(1, 9_000);
        let fast = [commit(1, 300, 1, Stage::Flush)];
        let follower = |report: &CommitsReport| {
            let is_it = |it: &&StageSpread| it.stage == Stage::FollowerFlush;
            report.stages.iter().find(is_it).map(|it| it.spread.count)
        };
        let stages =
            |report: &CommitsReport| report.set_by.iter().map(|it| it.stage).collect::<Vec<_>>();
        explainer.count(&[slow], &[leg]);
        assert_eq!(stages(&explainer.lately(Tick(10_000))), [Stage::FollowerFlush]);
        explainer.count(&fast, &[]);
        let report = explainer.lately(Tick(19_999));
        assert_eq!((stages(&report).len(), follower(&report)), (2, Some(1)));
        let report = explainer.lately(Tick(20_000));
        assert_eq!((stages(&report), follower(&report)), (vec![Stage::Flush], Some(0)));
        assert_eq!(report.commits.count, 1);
        let (slow, leg) = explained(2, 9_000);
        explainer.count(&[slow], &[leg]);
        assert_eq!(stages(&explainer.lately(Tick(20_001)))[0], Stage::FollowerFlush);
        assert_eq!(explainer.lately(Tick(300_000)).set_by, [], "long ago");
        assert_eq!(explainer.all().set_by().map(|(.., commands)| commands).sum::<u64>(), 4);
        assert_eq!(explainer.all().commits().spread().count, 4);
    }
}
