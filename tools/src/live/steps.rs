//! What an operator does to the cluster, step by step.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;

use super::Failed;
use super::clients::{FILLING_BYTES, Load};
use super::latency::ms;
use super::nodes::Nodes;
use crate::rounds::cluster::now;

/// How long a cluster may take to serve again, and a node to have what the others have.
const READY: Duration = Duration::from_secs(60);
/// How long the log may take to grow past a node that is away.
const FILL: Duration = Duration::from_secs(240);
/// How long a node with a lost disk may take to see that it must not take part.
const REFUSED: Duration = Duration::from_secs(15);
/// What `outrigger drain` is given.
const DRAIN: &str = "30s";
/// How long a node may take to end after its drain.
const END: Duration = Duration::from_secs(40);

/// One step; each can be run without the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Step {
    /// A fourth node joins and becomes a learner in every group.
    #[value(name = "1")]
    Learner,
    /// The learner becomes a voter in every group.
    #[value(name = "2")]
    Promote,
    /// A node dies and its disk is lost; it is removed, and another with a new id takes its place.
    #[value(name = "3")]
    Replace,
    /// The node that leads most groups is removed.
    #[value(name = "4")]
    RemoveLeader,
    /// Leadership of one group after another goes to another node.
    #[value(name = "5")]
    Transfer,
    /// Every node in turn is drained, stopped and started.
    #[value(name = "6")]
    Restart,
    /// A node is away until the others' logs no longer reach back to it.
    #[value(name = "7")]
    Away,
}

impl Step {
    pub(super) const ALL: [Self; 7] = [
        Self::Learner,
        Self::Promote,
        Self::Replace,
        Self::RemoveLeader,
        Self::Transfer,
        Self::Restart,
        Self::Away,
    ];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Learner => "add a learner",
            Self::Promote => "promote it",
            Self::Replace => "replace a node whose disk was wiped",
            Self::RemoveLeader => "remove the leader",
            Self::Transfer => "transfer leadership",
            Self::Restart => "drain and restart every node",
            Self::Away => "bring back a node past the log",
        }
    }

    pub(super) fn number(self) -> usize {
        self as usize + 1
    }
}

/// The cluster as the operator knows it.
pub(super) struct Operator<'p, 'l> {
    pub(super) nodes: Nodes<'p>,
    pub(super) load: &'l Load,
    pub(super) random: Rng,
    pub(super) voters: BTreeSet<u8>,
    pub(super) learners: BTreeSet<u8>,
    pub(super) transfers: u32,
    /// Ids never come back.
    pub(super) next: u8,
    /// What was typed and seen.
    pub(super) story: Vec<String>,
}

impl Operator<'_, '_> {
    pub(super) fn step(&mut self, step: Step) -> Result<(), Failed> {
        match step {
            Step::Learner => self.add().map(drop),
            Step::Promote => self.promote(),
            Step::Replace => self.replace(),
            Step::RemoveLeader => self.remove_leader(),
            Step::Transfer => (1..=self.transfers).try_for_each(|count| self.transfer(count)),
            Step::Restart => self.restart_all(),
            Step::Away => self.away(),
        }
    }

    fn say(&mut self, line: impl Into<String>) {
        let line = line.into();
        println!("  {line}");
        self.story.push(line);
    }

    /// Members of every kind.
    pub(super) fn members(&self) -> BTreeSet<u8> {
        &self.voters | &self.learners
    }

    fn announce(&self) {
        self.load.serve(self.members().into_iter());
    }

    /// A voter to talk to, other than this one.
    fn beside(&mut self, id: u8) -> u8 {
        let others: Vec<u8> = self.voters.iter().copied().filter(|voter| *voter != id).collect();
        self.random.choice(others).expect("a cluster has more than one voter")
    }

    /// Waits until these nodes answer, know every group's leader, and lead all groups between them.
    pub(super) fn ready(&mut self) -> Result<Duration, Failed> {
        let (members, groups) = (self.members(), self.nodes.plan.groups);
        let started = now();
        self.nodes.until("a leader for every group", READY, |nodes| {
            let mut led = 0;
            for id in &members {
                let info = nodes.info(*id).ok_or_else(|| format!("node {id} does not answer"))?;
                let leaderless = info.leaderless();
                if leaderless > 0 || (info.groups.len() as u64) < groups {
                    return Err(format!("node {id}: no leader known for {leaderless} groups"));
                }
                led += info.led();
            }
            if groups <= led { Ok(()) } else { Err(format!("{led} of {groups} groups are led")) }
        })?;
        Ok(started.elapsed())
    }

    /// Waits until a node has applied, in every group, what any other has committed by now.
    fn caught_up(&mut self, id: u8) -> Result<Duration, Failed> {
        let others = self.members();
        let mut wanted = std::collections::BTreeMap::new();
        for info in others.iter().filter_map(|other| self.nodes.info(*other)) {
            for (group, seen) in &info.groups {
                let commit = wanted.entry(*group).or_insert(0);
                *commit = seen.commit.max(*commit);
            }
        }
        let started = now();
        self.nodes.until(&format!("node {id} catches up"), READY, |nodes| {
            let info = nodes.info(id).ok_or("it does not answer")?;
            for (group, commit) in &wanted {
                let applied = info.groups.get(group).map_or(0, |seen| seen.applied);
                if applied < *commit {
                    return Err(format!("group {group} has applied {applied} of {commit}"));
                }
            }
            Ok(())
        })?;
        Ok(started.elapsed())
    }

    /// Runs a change through `ctl`, shows it, and goes on once it was accepted.
    fn member(&mut self, through: u8, words: &[&str]) -> Result<(), Failed> {
        let started = now();
        let (attempts, said) = self.nodes.member_until(through, words, READY)?;
        let again = if attempts == 1 { String::new() } else { format!(", {attempts} attempts") };
        self.say(format!(
            "$ outrigger ctl --node {} member {}   ({} ms{again})",
            self.nodes.plan.client(through),
            words.join(" "),
            ms(started.elapsed()),
        ));
        for line in said.lines() {
            self.say(line);
        }
        Ok(())
    }

    fn list(&mut self) -> Result<(), Failed> {
        let through = self.beside(0);
        self.member(through, &["list"])
    }

    fn add(&mut self) -> Result<u8, Failed> {
        let id = self.next;
        self.next += 1;
        self.nodes.start(id, "joins")?;
        let (address, through) = (self.nodes.plan.peer(id).to_string(), self.beside(0));
        self.member(through, &["add", &id.to_string(), &address])?;
        self.learners.insert(id);
        let after = self.caught_up(id)?;
        let received = self.nodes.info(id).map_or(0, |info| info.number("snapshots_received"));
        self.say(format!(
            "node {id} had everything after {} ms ({received} groups by snapshot)",
            ms(after)
        ));
        self.announce();
        Ok(id)
    }

    fn promote(&mut self) -> Result<(), Failed> {
        let id = match self.learners.first() {
            Some(id) => *id,
            None => self.add()?,
        };
        let through = self.beside(id);
        self.member(through, &["promote", &id.to_string()])?;
        self.learners.remove(&id);
        self.voters.insert(id);
        self.list()
    }

    fn replace(&mut self) -> Result<(), Failed> {
        // One of the founders: its command line still says that it is one.
        let first = self.nodes.plan.first;
        let founders: Vec<u8> = self.voters.iter().copied().filter(|id| *id <= first).collect();
        let victim = self.random.choice(founders).expect("not all founders were replaced");
        self.say(format!("kill -9 of node {victim}; its directory is deleted"));
        self.nodes.kill(victim)?;
        self.wipe(victim)?;
        self.nodes.start(victim, "started under its old id with an empty directory")?;
        match self.nodes.wait_end(victim, REFUSED) {
            Some(status) if status.success() => {
                return Err(Failed(format!("node {victim} ended without an error")));
            }
            Some(_) => {
                let words = self.nodes.last_words(victim);
                self.say(format!("started again under its old id, it refuses: {words}"));
            }
            None => {
                let info = self.nodes.info(victim).unwrap_or_default();
                let active = info.groups.values().filter(|group| 0 < group.last).count();
                if 0 < info.led() + active as u64 {
                    let story =
                        format!("node {victim} lost its disk and takes part again: {info:?}");
                    return Err(Failed(story));
                }
                self.say("started again under its old id, it takes part in nothing");
                self.nodes.kill(victim)?;
            }
        }
        self.wipe(victim)?;
        self.voters.remove(&victim);
        self.announce();
        let through = self.beside(victim);
        self.member(through, &["remove", &victim.to_string()])?;
        let id = self.add()?;
        self.member(through, &["promote", &id.to_string()])?;
        self.learners.remove(&id);
        self.voters.insert(id);
        self.list()
    }

    fn wipe(&self, id: u8) -> Result<(), Failed> {
        let data = self.nodes.plan.data(id);
        fs::remove_dir_all(&data)
            .map_err(|error| Failed(format!("cannot delete {}: {error}", data.display())))
    }

    fn remove_leader(&mut self) -> Result<(), Failed> {
        let led = |id: &u8| self.nodes.info(*id).map_or(0, |info| info.led());
        let victim = self.voters.iter().copied().max_by_key(led).expect("there are voters");
        let before = led(&victim);
        if before == 0 {
            return Err(Failed("nobody leads".into()));
        }
        let through = self.beside(victim);
        self.member(through, &["remove", &victim.to_string()])?;
        self.voters.remove(&victim);
        self.announce();
        self.nodes.until(&format!("node {victim} leads nothing"), READY, |nodes| {
            match nodes.info(victim).map_or(0, |info| info.led()) {
                0 => Ok(()),
                led => Err(format!("it leads {led} groups")),
            }
        })?;
        self.ready()?;
        self.say(format!("node {victim} led {before} groups, now none; it is stopped"));
        self.nodes.terminate(victim, END)?;
        self.list()
    }

    fn transfer(&mut self, count: u32) -> Result<(), Failed> {
        let group = u64::from(count) % self.nodes.plan.groups;
        let any = self.beside(0);
        let leader = self.nodes.until("a leader to take over from", READY, |nodes| {
            let info = nodes.info(any).ok_or("no answer")?;
            let leader = info.groups.get(&group).map_or(0, |seen| seen.leader);
            u8::try_from(leader).ok().filter(|leader| *leader != 0).ok_or("no leader".to_owned())
        })?;
        let to = self.beside(leader);
        let words = ["transfer", &to.to_string(), "--group", &group.to_string()];
        let started = now();
        let (attempts, _) = self.nodes.member_until(any, &words, READY)?;
        let took = started.elapsed();
        self.nodes.until(&format!("node {to} leads group {group}"), READY, |nodes| {
            let info = nodes.info(to).ok_or("no answer")?;
            match &info.groups.get(&group).ok_or("no such group")?.role[..] {
                "leader" => Ok(()),
                role => Err(format!("it is {role}")),
            }
        })?;
        if count.is_multiple_of(20) || 1 < attempts {
            self.say(format!(
                "transfer {count}: group {group} from node {leader} to node {to} in {} ms, \
                 {attempts} attempts",
                ms(took)
            ));
        }
        Ok(())
    }

    fn restart_all(&mut self) -> Result<(), Failed> {
        for id in self.members() {
            let took = self.drain(id)?;
            self.nodes.start(id, "after its drain")?;
            let ready = self.ready()?;
            let caught_up = self.caught_up(id)?;
            self.say(format!(
                "node {id}: drained and ended in {} ms, ready after {} ms, level {} ms later",
                ms(took),
                ms(ready),
                ms(caught_up)
            ));
        }
        Ok(())
    }

    /// `outrigger drain`, until the node has ended.
    fn drain(&mut self, id: u8) -> Result<Duration, Failed> {
        let started = now();
        let node = self.nodes.plan.client(id).to_string();
        let said = self
            .nodes
            .cli(&["drain", "--node", &node, "--limit", DRAIN])
            .map_err(|story| Failed(format!("drain of node {id}: {story}")))?;
        self.say(format!("$ outrigger drain --node {node} --limit {DRAIN}"));
        for line in said.lines() {
            self.say(line);
        }
        match self.nodes.wait_end(id, END) {
            Some(status) if status.success() => Ok(started.elapsed()),
            Some(status) => Err(Failed(format!("node {id} ended after its drain: {status}"))),
            None => Err(Failed(format!("node {id} runs on after its drain"))),
        }
    }

    fn away(&mut self) -> Result<(), Failed> {
        let voters: Vec<u8> = self.voters.iter().copied().collect();
        let id = self.random.choice(voters).expect("there are voters");
        let last = self.nodes.info(id).map(|info| info.groups).unwrap_or_default();
        self.drain(id)?;
        self.load.fill(true);
        let others: Vec<u8> = self.members().into_iter().filter(|other| *other != id).collect();
        let (started, groups) = (now(), self.nodes.plan.groups);
        let filled = self.nodes.until("the logs grow past the node that is away", FILL, |nodes| {
            let mut past = BTreeSet::new();
            for info in others.iter().filter_map(|other| nodes.info(*other)) {
                for (group, seen) in info.groups {
                    if seen.role == "leader"
                        && last.get(&group).is_some_and(|l| l.last < seen.first - 1)
                    {
                        past.insert(group);
                    }
                }
            }
            let count = past.len() as u64;
            if count == groups { Ok(()) } else { Err(format!("{count} of {groups} groups")) }
        });
        self.load.fill(false);
        filled?;
        let samples = self.load.samples();
        let filling = samples.iter().filter(|sample| sample.kind == super::latency::Kind::Filling);
        self.say(format!(
            "{} MiB written in {:.0} s, until no leader had the entries that node {id} was to get next",
            (filling.count() * FILLING_BYTES) >> 20,
            started.elapsed().as_secs_f64()
        ));
        let begun = now();
        self.nodes.start(id, "was away for longer than the log")?;
        self.ready()?;
        self.caught_up(id)?;
        let received = self.nodes.info(id).map_or(0, |info| info.number("snapshots_received"));
        if received == 0 {
            return Err(Failed(format!("node {id} came back without a snapshot")));
        }
        self.say(format!(
            "node {id} is back {} ms after its start, {received} groups by snapshot",
            ms(begun.elapsed())
        ));
        Ok(())
    }
}
