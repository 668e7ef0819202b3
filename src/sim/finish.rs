//! After the faults: does it heal, and is everything there?

use std::collections::BTreeMap;

use crate::group::{GroupState, Replica};
use crate::id::{GroupId, ReplicaId, Term};
use crate::limits;
use crate::raft::Membership;
use crate::raft::effects::RoleKind;
use crate::shard::Shard;

use super::appends;
use super::linear::{self, Verdict};
use super::options::{DiskOptions, NetOptions, NodeOptions};
use super::safety::Checked;
use super::world::World;

/// Election timeouts in which every group must commit a new write once faults have stopped.
const HEAL_ELECTIONS: u64 = 10;
/// Election timeouts for which nothing may change once all is well.
const CALM_ELECTIONS: u64 = 4;

/// What does not work.
pub(super) struct Trouble {
    pub(super) why: String,
    /// The groups that stand still, if that is what is wrong.
    pub(super) groups: Vec<GroupId>,
}

/// Whatever else goes wrong is wrong in all worlds.
impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { why, groups: Vec::new() }
    }
}

/// A replica, as messages name it.
fn name(replica: &Replica) -> String {
    format!("replica {} of group {}", replica.status().id, replica.group())
}

/// Whether these are a majority of voters, in both halves of a change.
fn is_majority(membership: &Membership, is_one: impl Fn(ReplicaId) -> bool) -> bool {
    let Membership { incoming, outgoing, .. } = membership;
    [incoming, outgoing].into_iter().all(|half| {
        let count = half.iter().filter(|voter| is_one(**voter)).count();
        half.is_empty() || half.len() / 2 < count
    })
}

impl World {
    /// Faults stop. Half of the worlds lose power everywhere first.
    pub(super) fn heal(&mut self) -> Checked {
        self.note(&[21], || "faults stop".into());
        self.is_chaos = false;
        if self.rng.bool() && self.strikes(|| "power fails everywhere at the end".into()) {
            (0..self.nodes.len()).try_for_each(|node| self.crash(node))?;
        }
        self.strike_everywhere()?;
        let options = &mut self.options;
        options.net = NetOptions::calm();
        options.disk = DiskOptions::calm();
        options.nodes = NodeOptions::calm();
        self.net.heal(options.net.clone());
        for node in 0..self.nodes.len() {
            let now = self.now;
            let it = &mut self.nodes[node];
            it.paused_until = 0;
            it.slow_until.fill(0);
            it.hangs_until.fill(0);
            it.cores.iter_mut().for_each(|core| core.stalled_until = 0);
            it.clock.go_on(now);
            self.wake_all(node);
            if self.nodes[node].is_up() {
                self.on_node(node, super::world::ForNode::DiskFull(false))?;
            }
            self.start(node)?;
        }
        Ok(())
    }

    /// Every group commits, every key is read through every node, every replica holds the same
    /// data, and one order explains everything that anybody saw.
    pub(super) fn finish(&mut self) -> Checked {
        if self.embedded.is_some() {
            return self.finish_embedded();
        }
        self.works_but_for_halted(Self::everything_works)?;
        self.histories_are_linearizable()
    }

    /// Everything works, but in groups that must stand still: all that is demanded is demanded of the others again.
    pub(super) fn works_but_for_halted(
        &mut self,
        works: impl Fn(&mut Self) -> Result<(), Trouble>,
    ) -> Checked {
        while let Err(Trouble { why, groups }) = works(self) {
            if groups.is_empty() || !groups.iter().all(|&group| self.halts_rightly(group)) {
                return Err(why);
            }
            self.note(&[25], || format!("groups {groups:?} stand still, and rightly so: {why}"));
            self.halted.extend(groups);
            self.outcome.halts = self.halted.len() as u64;
        }
        Ok(())
    }

    fn everything_works(&mut self) -> Result<(), Trouble> {
        self.every_group_commits()?;
        self.until_replaced()?;
        self.every_request_is_answered()?;
        self.every_key_is_read()?;
        self.replicas_agree()?;
        self.calm_stays_calm()?;
        if self.rng.u8(..3) == 0 { self.a_majority_is_enough() } else { Ok(()) }
    }

    /// The groups that do not have to stand still.
    pub(super) fn groups_that_go_on(&self) -> Vec<GroupId> {
        let groups = (0..self.options.groups).map(GroupId);
        groups.filter(|group| !self.halted.contains(group)).collect()
    }

    /// All restart, and get back what their disks have lost. From then on the power may fail everywhere and one node
    /// stay away: the others are whole, and go on without it.
    fn a_majority_is_enough(&mut self) -> Result<(), Trouble> {
        self.all_restart_but(None)?;
        self.every_replica_is_whole()?;
        self.damage_leaves_the_logs()?;
        self.every_group_commits()?;
        self.replicas_agree()?;
        let there = self.nodes_there();
        let away = there[self.rng.usize(..there.len())];
        let id = self.nodes[away].replica();
        let is_enough = |state: &GroupState| is_majority(&state.membership, |voter| voter != id);
        let mut groups = self.groups_that_go_on().into_iter();
        if !groups.all(|group| self.members(group).is_some_and(is_enough)) {
            return Ok(());
        }
        self.all_restart_but(Some(away))?;
        if let Some(lacking) = self.lacking() {
            let what = format!("{} was whole, and is not any more", name(lacking));
            return Err(what.into());
        }
        // All that are there are whole: nothing is left that a group could stand still for.
        self.every_group_commits().map_err(|it| format!("without node {away}: {}", it.why).into())
    }

    fn all_restart_but(&mut self, away: Option<usize>) -> Checked {
        (0..self.nodes.len()).try_for_each(|node| self.crash(node))?;
        (0..self.nodes.len())
            .filter(|&node| Some(node) != away)
            .try_for_each(|node| self.start(node))
    }

    fn every_replica_is_whole(&mut self) -> Result<(), Trouble> {
        self.until_nothing_is_wrong(|world| {
            let lacking = world.lacking()?;
            let why = format!("liveness: {} is not whole again", name(lacking));
            Some(Trouble { why, groups: vec![lacking.group()] })
        })
    }

    /// Of what cannot be read nobody is told a second time: the segments that hold it leave the log, though nobody
    /// writes.
    fn damage_leaves_the_logs(&mut self) -> Result<(), Trouble> {
        self.until_nothing_is_wrong(|world| {
            // A group that stands still keeps what it has, and so does a replica whom nobody has told that it is out.
            let is_free = |node, shard: &Shard| {
                shard
                    .replicas()
                    .iter()
                    .map(Replica::group)
                    .all(|group| !world.halted.contains(&group) && world.is_member(group, node))
            };
            let (node, _) = world.nodes.iter().enumerate().find(|(node, it)| {
                let mut shards = it.cores.iter().map(|core| &core.shard);
                shards.any(|shard| shard.holds_damage() && is_free(*node, shard))
            })?;
            Some(format!("a damaged segment stays in the log of node {node}").into())
        })
    }

    /// What is wrong passes while everything becomes the same everywhere.
    fn until_nothing_is_wrong(
        &mut self,
        wrong: impl Fn(&Self) -> Option<Trouble>,
    ) -> Result<(), Trouble> {
        let (began, patience) = (self.now, self.catch_up_us());
        while let Some(what) = wrong(self) {
            if patience < self.now - began {
                return Err(what);
            }
            self.run_until(self.now + self.options.election_ms * 1_000)?;
        }
        Ok(())
    }

    /// A member's replica that has lost something and does not have it back, of a group that could have it.
    fn lacking(&self) -> Option<&Replica> {
        let members = self.nodes.iter().enumerate().flat_map(|(node, it)| {
            let replicas = it.cores.iter().flat_map(|core| core.shard.replicas());
            replicas.filter(move |replica| self.is_member(replica.group(), node))
        });
        let mut lacking = members.filter(|replica| replica.forgotten().is_some());
        lacking.find(|replica| !self.halted.contains(&replica.group()))
    }

    /// Whether a group must stand still: nobody in it who is whole has a majority of whole voters, and somebody is
    /// gone who may have known the rest. A disk has lost what only members knew that have left the group since: nobody
    /// is left who could tell what its replica had promised. Or a node was given up, and the disk of the one that takes
    /// its place has lost something before the others knew that the removal was committed.
    fn halts_rightly(&self, group: GroupId) -> bool {
        let here = || self.replicas().filter(|replica| replica.group() == group);
        let is_out = |id| here().any(|replica| replica.state().removed.contains(&id));
        let is_whole =
            |replica: &&Replica| replica.forgotten().is_none() && !is_out(replica.status().id);
        let whole: Vec<ReplicaId> =
            here().filter(is_whole).map(|replica| replica.status().id).collect();
        let has_majority = |replica: &Replica| {
            is_majority(&replica.state().membership, |voter| whole.contains(&voter))
        };
        let goes_on = |replica: &Replica| {
            replica.state().membership.is_voter(replica.status().id) && has_majority(replica)
        };
        let is_given_up = self.nodes.iter().any(|node| !node.is_there && 0 < node.life);
        let is_gone = is_given_up || here().any(|replica| !replica.state().removed.is_empty());
        is_gone && !here().filter(is_whole).any(goes_on)
    }

    fn every_group_commits(&mut self) -> Result<(), Trouble> {
        let began = self.now;
        let step = self.options.election_ms * 1_000 / 4;
        let mut waiting: Vec<(u64, Vec<u64>)> =
            self.groups_that_go_on().into_iter().map(|group| (group.0, Vec::new())).collect();
        loop {
            for (group, calls) in &mut waiting {
                let key = self.workload.key_of(*group);
                // Whoever takes another's place may not have begun yet.
                for node in self.nodes_there() {
                    if !self.nodes[node].is_up() {
                        continue;
                    }
                    let call = self.workload.set(key, &mut self.rng);
                    calls.push(self.call(0, node, call));
                }
            }
            self.run_until(self.now + step)?;
            waiting.retain(|(_, calls)| !calls.iter().any(|call| self.acked.contains(call)));
            if waiting.is_empty() {
                break;
            }
            if self.now - began > self.heal_elections() * self.options.election_ms * 1_000 {
                let groups: Vec<_> = waiting.iter().map(|(group, _)| GroupId(*group)).collect();
                let why = format!(
                    "liveness: groups {groups:?} commit nothing within {} election timeouts after the \
                     faults stopped",
                    self.heal_elections()
                );
                return Err(Trouble { why, groups });
            }
        }
        let elections = (self.now - began) / 1_000 / self.options.election_ms;
        let outcome = &mut self.outcome;
        let worst = match self.is_hurt_everywhere {
            false => &mut outcome.healed_after,
            true => &mut outcome.healed_hurt,
        };
        *worst = elections.max(*worst);
        Ok(())
    }

    /// Election timeouts in which every group must commit again. Where no node is whole, nobody is elected before they
    /// have given each other back what they lost, a few groups at a time (seed 226521, with 64 groups: eleven).
    pub(super) fn heal_elections(&self) -> u64 {
        match self.is_hurt_everywhere {
            false => HEAL_ELECTIONS,
            true => 2 * HEAL_ELECTIONS + self.options.groups,
        }
    }

    /// The replicas of all nodes that are up.
    pub(super) fn replicas(&self) -> impl Iterator<Item = &Replica> {
        let cores = self.nodes.iter().flat_map(|node| &node.cores);
        cores.flat_map(|core| core.shard.replicas())
    }

    /// The nodes that there are.
    pub(super) fn nodes_there(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].is_there).collect()
    }

    /// What sessions have outstanding is sent again until it has a definite answer.
    fn every_request_is_answered(&mut self) -> Result<(), Trouble> {
        let began = self.now;
        let step = self.options.election_ms * 1_000 / 4;
        loop {
            let goes_on = |group: &GroupId| !self.halted.contains(group);
            let open: Vec<(usize, Vec<GroupId>)> = (0..self.clients.len())
                .filter_map(|client| Some((client, self.groups_waited_for(client)?)))
                .filter(|(_, groups)| groups.iter().all(goes_on))
                .collect();
            if open.is_empty() {
                return Ok(());
            }
            if self.now - began > self.heal_elections() * self.options.election_ms * 1_000 {
                let why = format!("liveness: requests of (client, groups) {open:?} get no answer");
                let groups = open.into_iter().flat_map(|(_, groups)| groups).collect();
                return Err(Trouble { why, groups });
            }
            for (client, _) in open {
                // The first node belongs to every group.
                let any = self.any_node();
                let node = if self.rng.bool() { 0 } else { any };
                // One that was told to stop before the faults did may be away for a moment.
                if self.nodes[node].is_up() {
                    self.attempt(client, node);
                }
            }
            self.run_until(self.now + step)?;
        }
    }

    fn every_key_is_read(&mut self) -> Result<(), Trouble> {
        let began = self.now;
        let patience = self.catch_up_us();
        let step = self.options.election_ms * 1_000 / 4;
        let pairs = (0..self.workload.keys())
            .filter(|&key| !self.halted.contains(&self.workload.group(key)))
            .flat_map(|key| self.nodes_there().into_iter().map(move |node| (key, node)));
        let mut open: Vec<(usize, usize)> = pairs.collect();
        loop {
            // A node that has left a group knows nobody to ask. Asked anew each time: a leader may
            // only now apply a removal that was decided before the faults stopped.
            open.retain(|&(key, node)| self.is_member(self.workload.group(key), node));
            if open.is_empty() {
                return Ok(());
            }
            if self.now - began > patience {
                let why = format!("liveness: (key, node) {open:?} cannot be read");
                let groups = open.iter().map(|&(key, _)| self.workload.group(key)).collect();
                return Err(Trouble { why, groups });
            }
            // One that was told to stop before may do so only now, and starts again.
            let (asked, later): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|&(_, node)| self.nodes[node].is_up());
            let mut calls = Vec::new();
            for (key, node) in asked {
                let call = self.workload.get(key);
                calls.push(((key, node), self.call(0, node, call)));
            }
            self.run_until(self.now + step)?;
            calls.retain(|(_, call)| !self.acked.contains(call));
            open = calls.into_iter().map(|(pair, _)| pair).chain(later).collect();
        }
    }

    /// How long everything may take to be everywhere. A node takes a few snapshots at a time, and one
    /// that finds it busy comes again after a pause: with many groups that adds up. The pause of one that was cut off
    /// for long may have begun just before the faults stopped.
    pub(super) fn catch_up_us(&self) -> u64 {
        let rounds = self.options.groups / limits::SNAPSHOTS_RECEIVING_MAX as u64;
        let pauses = 2 * rounds * limits::SNAPSHOT_RESEND_MS + limits::SNAPSHOT_RESEND_MS_MAX;
        (HEAL_ELECTIONS * self.options.election_ms + pauses) * 1_000
    }

    /// Followers learn the last commit with a heartbeat; then all state machines are the same.
    pub(super) fn replicas_agree(&mut self) -> Checked {
        let began = self.now;
        let patience = self.catch_up_us();
        loop {
            self.run_until(self.now + self.options.election_ms * 1_000)?;
            match self.compare_replicas() {
                Err(what) if self.now - began > patience => {
                    return Err(what);
                }
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }

    fn compare_replicas(&self) -> Checked {
        let mut known: Vec<Option<(crate::id::Index, u64)>> =
            vec![None; self.options.groups as usize];
        for (number, node) in self.nodes.iter().enumerate() {
            for replica in node.cores.iter().flat_map(|core| core.shard.replicas()) {
                let group = replica.group();
                if !self.is_member(group, number) || self.halted.contains(&group) {
                    continue;
                }
                let here = (replica.status().applied, replica.digest());
                let known = known[group.0 as usize].get_or_insert(here);
                if *known != here {
                    return Err(format!(
                        "replicas differ: group {group}: one has applied {} with digest {:016x}, \
                         node {} has {} with {:016x}; {}",
                        known.0,
                        known.1,
                        node.id,
                        here.0,
                        here.1,
                        self.leaders_view(group)
                    ));
                }
            }
        }
        Ok(())
    }

    /// How a group's leader sees its members.
    fn leaders_view(&self, group: crate::id::GroupId) -> String {
        let mut leaders = self.replicas().filter(|replica| {
            replica.group() == group && replica.status().role == RoleKind::Leader
        });
        leaders.next().map_or("no leader".to_owned(), |leader| {
            let members: Vec<_> = leader.status().progress().collect();
            format!("its leader sees {members:?}")
        })
    }

    /// Nobody disturbs anybody any more: whoever leads goes on leading.
    pub(super) fn calm_stays_calm(&mut self) -> Checked {
        let calm = CALM_ELECTIONS * self.options.election_ms * 1_000;
        // Frames that were slow before the faults stopped still hold up those behind them.
        let stale = self.leaders();
        self.run_until(self.now + calm)?;
        let before = self.leaders();
        if stale == before {
            return Ok(());
        }
        self.run_until(self.now + calm)?;
        let after = self.leaders();
        if before == after {
            return Ok(());
        }
        Err(format!("calm does not stay: (group, term, leader) {before:?} became {after:?}"))
    }

    /// Who leads which group in which term, as the newest leaders know it.
    fn leaders(&self) -> Vec<(GroupId, Term, ReplicaId)> {
        let mut newest = BTreeMap::new();
        for replica in self.replicas() {
            let status = replica.status();
            if status.role == RoleKind::Leader && !self.halted.contains(&replica.group()) {
                let known = newest.entry(replica.group()).or_insert((status.term, status.id));
                *known = (*known).max((status.term, status.id));
            }
        }
        newest.into_iter().map(|(group, (term, leader))| (group, term, leader)).collect()
    }

    fn histories_are_linearizable(&mut self) -> Checked {
        for key in 0..self.workload.keys() {
            let operations = self.history.take_evidence(key);
            self.outcome.checked += operations.len() as u64;
            let answered = operations.iter().filter(|it| it.answer.is_some()).count() as u64;
            self.outcome.answers_checked += answered;
            if self.workload.grows(key) {
                let name = self.workload.name(key);
                appends::check(&operations).map_err(|what| format!("key {name}: {what}"))?;
                continue;
            }
            match linear::check(&operations) {
                Verdict::Linearizable => {}
                Verdict::GaveUp => {
                    self.outcome.unchecked_keys += 1;
                    self.outcome.answers_checked -= answered;
                }
                Verdict::Violated { explained, stuck } => {
                    let name = self.workload.name(key);
                    let story = linear::story(&operations, stuck);
                    return Err(format!(
                        "not linearizable: key {name}: no order explains more than {explained} \
                         answers, and then not this one:\n{story}"
                    ));
                }
            }
        }
        Ok(())
    }
}
