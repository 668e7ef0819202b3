//! An operator who never rests: takes spare nodes into groups, promotes them, moves leaders, replaces
//! and removes voters, whether or not anything works just then.
//!
//! Commands are the product's own (`MEMBER …`), sent like any client's to any node that runs. What
//! they do is judged by the checks on safety alone, and in the end by whether every group heals.

use crate::group::GroupState;
use crate::id::{GroupId, ReplicaId};
use crate::raft::effects::RoleKind;
use crate::wire::reply::Reply;
use crate::wire::resp::Command;

use super::clients::What;
use super::world::World;

/// Voters a group keeps: with fewer, one crash stops it.
const VOTERS_MIN: usize = 3;

impl World {
    /// One act, if there is anything to do in some group.
    pub(super) fn operate(&mut self) {
        let group = GroupId(self.rng.u64(..self.options.groups));
        let node = self.any_node();
        let Some(words) = self.wish(group) else { return };
        if !self.nodes[node].is_up() {
            return;
        }
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let patience = 3_000 * self.options.request_ms;
        self.send_command(0, node, Command::from_args(&words), What::Operator, patience);
    }

    /// What the operator heard, or that the connection was closed.
    pub(super) fn on_operated(&mut self, reply: Option<&Reply>) {
        match reply {
            Some(Reply::Error(_)) | None => self.outcome.operations_refused += 1,
            Some(_) => self.outcome.operations += 1,
        }
    }

    /// The members of `group` as its newest leader knows them.
    pub(super) fn members(&self, group: GroupId) -> Option<&GroupState> {
        let leaders = self.replicas().filter(|replica| {
            replica.group() == group && replica.status().role == RoleKind::Leader
        });
        leaders.max_by_key(|replica| replica.status().term).map(|replica| replica.state())
    }

    /// Whether the replica of `group` on this node counts, as far as anybody knows.
    pub(super) fn is_member(&self, group: GroupId, node: usize) -> bool {
        let id = self.nodes[node].replica();
        self.members(group).is_none_or(|state| state.membership.is_member(id))
    }

    fn wish(&mut self, group: GroupId) -> Option<String> {
        let state = self.members(group)?.clone();
        let membership = &state.membership;
        let voters: Vec<ReplicaId> = membership.incoming.to_vec();
        // A command over several groups needs a node that belongs to all of them.
        let home = self.nodes[0].replica();
        // Whoever takes a place is not sent away again.
        let new = self.replacing.map(|(_, new)| self.nodes[new].replica());
        let stays = |id: &ReplicaId| *id == home || Some(*id) == new;
        let mut wishes = Vec::new();
        for voter in &voters {
            wishes.push(format!("TRANSFER {voter}"));
            if voters.len() > VOTERS_MIN && !stays(voter) {
                wishes.push(format!("REMOVE {voter}"));
            }
        }
        for node in self.nodes.iter().filter(|node| node.is_there) {
            let id = node.replica();
            if !membership.is_member(id) && !state.removed.contains(&id) {
                let add = format!("ADD {id} 127.0.0.1:{}", 7000 + id.0);
                wishes.extend([add.clone(), add]);
            }
        }
        for learner in &membership.learners {
            let promote = format!("PROMOTE {learner}");
            wishes.extend([promote.clone(), promote.clone(), promote]);
            if !stays(learner) {
                wishes.push(format!("REMOVE {learner}"));
            }
            let old = voters[self.rng.usize(..voters.len())];
            if !stays(&old) {
                wishes.push(format!("REPLACE {old} {learner}"));
            }
        }
        wishes.push("CANCEL".to_owned());
        wishes.push(format!("UPDATE {} 127.0.0.1:{}", voters[0], self.rng.u16(7000..8000)));
        let wish = wishes.swap_remove(self.rng.usize(..wishes.len()));
        let mut words = format!("MEMBER {wish} GROUP {group}");
        if self.rng.u32(..4) == 0 {
            // Sometimes as of a configuration that may have passed.
            let expected = state.config_id.0.saturating_sub(self.rng.u64(..2));
            words.push_str(&format!(" IF {expected}"));
        }
        Some(words)
    }
}
