//! Where nodes listen, as the groups of one core say: told to the driver whenever that changes.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::group::GroupState;
use crate::id::NodeId;

use super::event::PeerChange;

/// The members of one group, each with its address.
type Members = Vec<(NodeId, Option<SocketAddr>)>;

/// How many groups say what about one node.
#[derive(Debug, Default)]
struct Said {
    /// They name it as a member.
    members: u32,
    /// They give this address.
    addresses: BTreeMap<SocketAddr, u32>,
}

/// One per shard.
#[derive(Debug)]
pub(super) struct Peers {
    /// What each slot's group said last.
    told: Vec<Members>,
    nodes: BTreeMap<NodeId, Said>,
    changed: BTreeSet<NodeId>,
}

impl Peers {
    pub(super) fn new(slots: usize) -> Self {
        let told = (0..slots).map(|_| Vec::new()).collect();
        Self { told, nodes: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// The group at `slot` now says this; nothing, if its replica here was removed.
    pub(super) fn update(&mut self, slot: usize, state: Option<&GroupState>) {
        let members: Members = state.map_or_else(Vec::new, |state| {
            let address = |id| state.addresses.get(&id).copied();
            state.membership.members().map(|id| (NodeId(id.0), address(id))).collect()
        });
        let before = std::mem::replace(&mut self.told[slot], members);
        if before == self.told[slot] {
            return;
        }
        for (node, address) in &self.told[slot] {
            let said = self.nodes.entry(*node).or_default();
            said.members += 1;
            if let Some(address) = address {
                *said.addresses.entry(*address).or_default() += 1;
            }
            self.changed.insert(*node);
        }
        for (node, address) in before {
            let said = self.nodes.get_mut(&node).expect("it was counted when it was told");
            said.members -= 1;
            if let Some(address) = address
                && let Some(count) = said.addresses.get_mut(&address)
            {
                *count -= 1;
                said.addresses.retain(|_, count| *count > 0);
            }
            if said.members == 0 {
                self.nodes.remove(&node);
            }
            self.changed.insert(node);
        }
    }

    /// What is new since this was asked last.
    pub(super) fn take_changes(&mut self, changes: &mut Vec<PeerChange>) {
        for node in std::mem::take(&mut self.changed) {
            changes.push(match self.nodes.get(&node) {
                None => PeerChange::Gone(node),
                Some(said) => {
                    let mut counted: Vec<_> =
                        said.addresses.iter().map(|(address, count)| (*count, *address)).collect();
                    counted.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
                    let addresses = counted.into_iter().map(|(_, address)| address).collect();
                    PeerChange::Is { node, addresses }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn state(nodes: &[(u64, u16)]) -> GroupState {
        let ids: Vec<NodeId> = nodes.iter().map(|(id, _)| NodeId(*id)).collect();
        let addresses: Vec<_> = nodes.iter().map(|(id, port)| (NodeId(*id), at(*port))).collect();
        GroupState::first(&ids, &addresses)
    }

    fn changes(peers: &mut Peers) -> Vec<PeerChange> {
        let mut changes = Vec::new();
        peers.take_changes(&mut changes);
        changes
    }

    #[test]
    fn a_node_is_there_until_the_last_group_forgets_it() {
        let is = |id, ports: &[u16]| PeerChange::Is {
            node: NodeId(id),
            addresses: ports.iter().map(|&port| at(port)).collect(),
        };
        let mut peers = Peers::new(3);
        for slot in 0..3 {
            peers.update(slot, Some(&state(&[(1, 1), (2, 2)])));
        }
        assert_eq!(changes(&mut peers), [is(1, &[1]), is(2, &[2])]);
        peers.update(0, Some(&state(&[(1, 1), (2, 2)])));
        assert_eq!(changes(&mut peers), [], "nothing new");
        peers.update(0, Some(&state(&[(1, 1), (2, 20)])));
        assert!(changes(&mut peers).contains(&is(2, &[2, 20])), "most groups first");
        peers.update(1, Some(&state(&[(1, 1)])));
        peers.update(0, Some(&state(&[(1, 1)])));
        assert!(changes(&mut peers).contains(&is(2, &[2])));
        peers.update(2, None);
        assert_eq!(changes(&mut peers), [is(1, &[1]), PeerChange::Gone(NodeId(2))]);
    }
}
