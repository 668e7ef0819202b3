//! A disk is replaced by an empty one. What its node voted and acknowledged was on it, so the node never comes back
//! under its id (docs/operations.md, "Replace a node, or a disk"): the operator starts another one with a
//! new id, adds it to every group as a learner, makes it a voter, and removes the old one.
//!
//! ```text
//!   {1 2 3} ── the disk of 2 is empty ──► {1 ✗ 3} ── ADD 4 ──► {1 ✗ 3 | 4} ── REPLACE, or PROMOTE and REMOVE ──► {1 3 4}
//! ```
//!
//! Faults go on meanwhile, but nothing else decays: with two copies gone at once a group may have to stand still. That
//! an old id with an empty directory is turned away is the node's business, not the core's
//! (`runtime/identity.rs`), and tested there.

use crate::group::{GroupState, Replica};
use crate::id::{GroupId, NodeId, ReplicaId, SegmentSeq};
use crate::wire::resp::Command;

use super::clients::What;
use super::disk::{Disk, FileFault};
use super::finish::Trouble;
use super::safety::Checked;
use super::world::{Happening, World};

impl World {
    /// Any node that there is.
    pub(super) fn any_node(&mut self) -> usize {
        let nodes = self.nodes.len();
        let start = self.rng.usize(..nodes);
        let mut from_there = (start..nodes).chain(0..start);
        from_there.find(|&node| self.nodes[node].is_there).expect("not all disks are replaced")
    }

    /// The one disk that decays is replaced by an empty one.
    pub(super) fn strike_wipe(&mut self) -> Checked {
        let (Some(old), Some(new)) = (self.decaying(), self.next_place()) else { return Ok(()) };
        // The first node belongs to every group, and clients count on that.
        let (is_home, keeps_notes) = (old == 0, self.rng.bool());
        let (was, is) = (self.nodes[old].id, self.nodes[new].id);
        let what = || format!("the disk of node {was} is empty; node {is} takes its place");
        if is_home || !self.can_do_without(was) || !self.strikes(what) {
            return Ok(());
        }
        self.outcome.faults.wipes += 1;
        self.crash(old)?;
        self.nodes[old].is_there = false;
        if keeps_notes {
            self.starts_on_nothing_but_a_note(old)?;
        }
        self.give_up(old);
        Ok(())
    }

    /// Whether every group has a majority without this node, as far as any member would know that starts now: of two
    /// voters none can be lost, and that a change is committed may have to be found out again, with those who
    /// counted before it.
    pub(super) fn can_do_without(&mut self, lost: NodeId) -> bool {
        let lost = ReplicaId(lost.0);
        let nodes = self.nodes_there();
        let there: Vec<ReplicaId> = nodes.iter().map(|&node| self.nodes[node].replica()).collect();
        let holds = |replica: &Replica| {
            let membership = &replica.state().membership;
            !membership.is_voter(lost)
                || !membership.is_joint()
                    && 2 < membership.incoming.len()
                    && membership.incoming.iter().all(|id| there.contains(id))
        };
        for node in nodes {
            for core in 0..self.nodes[node].disks.len() {
                let config = self.config(node, core);
                let started = self.replay(node, core, config);
                if !started.is_ok_and(|(shard, _)| shard.replicas().iter().all(holds)) {
                    return false;
                }
            }
        }
        true
    }

    /// A node that is not there yet, if one is left.
    fn next_place(&self) -> Option<usize> {
        let mut places = self.options.cores.len()..self.nodes.len();
        places.find(|&node| !self.nodes[node].is_there && self.nodes[node].life == 0)
    }

    /// Whether the node joined later and may have lost who else belongs to a group.
    pub(super) fn may_be_given_up(&self, node: usize) -> bool {
        self.options.cores.len() <= node && self.has_decayed(node)
    }

    /// A node never comes back. Another takes its place, if one is left.
    pub(super) fn give_up(&mut self, old: usize) {
        self.nodes[old].is_there = false;
        for disk in &mut self.nodes[old].disks {
            *disk = Disk::new(self.options.segment_bytes);
        }
        let Some(new) = self.next_place() else { return };
        self.nodes[new].is_there = true;
        (self.unlucky, self.replacing) = (Some(new), Some((old, new)));
        let delay = self.rng.u64(1_000..=self.options.nodes.down_ms.max(10) * 1_000);
        self.after(delay, Happening::Start { node: new });
        self.after(delay, Happening::Replace);
    }

    /// All segments of a log are gone, and the note of where it begins is there: no start may take that for a
    /// new log.
    fn starts_on_nothing_but_a_note(&mut self, node: usize) -> Checked {
        for core in 0..self.nodes[node].disks.len() {
            let disk = &mut self.nodes[node].disks[core];
            if disk.first() == SegmentSeq(0) {
                continue;
            }
            for segment in disk.segments() {
                disk.lose_file(segment, FileFault::Missing);
            }
            let config = self.config(node, core);
            if self.replay(node, core, config).is_ok() {
                return Err(format!(
                    "damage unseen: node {node} core {core} takes a lost log for a new one"
                ));
            }
            self.outcome.starts_refused += 1;
        }
        Ok(())
    }

    /// The operator goes on to replace a node, in every group where that is not done.
    pub(super) fn replace_on(&mut self) {
        let Some((old, new)) = self.replacing else { return };
        let (was, is) = (self.nodes[old].replica(), self.nodes[new].replica());
        let is_done = self.not_replaced(was, is).is_empty();
        for group in self.groups_that_go_on() {
            let Some(state) = self.members(group) else { continue };
            let membership = &state.membership;
            if !membership.is_member(was) || state.removed.contains(&is) {
                continue;
            }
            let (is_learner, was_voter) =
                (membership.learners.contains(&is), membership.incoming.contains(&was));
            let wish = if !membership.is_member(is) {
                format!("ADD {is} 127.0.0.1:{}", 7000 + is.0)
            } else if is_learner && was_voter && self.rng.bool() {
                format!("REPLACE {was} {is}")
            } else if is_learner {
                format!("PROMOTE {is}")
            } else {
                format!("REMOVE {was}")
            };
            let words = format!("MEMBER {wish} GROUP {group}");
            let node = self.any_node();
            if self.nodes[node].is_up() {
                let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
                let patience = 3_000 * self.options.request_ms;
                self.send_command(0, node, Command::from_args(&words), What::Operator, patience);
            }
        }
        if is_done {
            self.note(&[27, old as u64, new as u64], || {
                format!("node {new} has taken the place of {old}")
            });
            self.outcome.replaced += 1;
            self.replacing = None;
            return;
        }
        let delay = self.rng.u64(1..=2_000 * self.options.election_ms);
        self.after(delay, Happening::Replace);
    }

    /// The groups in which `is` has not taken the place of `was`, of those that can go on.
    fn not_replaced(&self, was: ReplicaId, is: ReplicaId) -> Vec<GroupId> {
        let is_replaced = |group| {
            let is_out = |state: &GroupState| {
                !state.membership.is_member(was) || state.removed.contains(&is)
            };
            self.members(group).is_some_and(is_out) && !self.is_still_counted(group, was)
        };
        self.groups_that_go_on().into_iter().filter(|group| !is_replaced(*group)).collect()
    }

    /// Whether a member of the group may not have applied yet that `was` is out. As long as one has not, it counts
    /// one dead voter more, and another disk must not be lost.
    fn is_still_counted(&self, group: GroupId, was: ReplicaId) -> bool {
        (0..self.nodes.len()).filter(|&node| self.is_member(group, node)).any(|node| {
            let replicas = self.nodes[node].cores.iter().flat_map(|core| core.shard.replicas());
            let mut own = replicas.filter(|replica| replica.group() == group);
            own.next().is_none_or(|replica| replica.state().membership.is_member(was))
        })
    }

    /// Once all is well, whoever takes another's place does so in time.
    pub(super) fn until_replaced(&mut self) -> Result<(), Trouble> {
        let (began, patience) = (self.now, 4 * self.catch_up_us());
        while let Some((old, new)) = self.replacing {
            if self.now - began > patience {
                let (was, is) = (self.nodes[old].replica(), self.nodes[new].replica());
                let groups = self.not_replaced(was, is);
                let why =
                    format!("liveness: node {new} does not take the place of {old} in {groups:?}");
                return Err(Trouble { why, groups });
            }
            self.run_until(self.now + self.options.election_ms * 1_000)?;
        }
        Ok(())
    }
}
