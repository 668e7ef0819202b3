//! Where the other nodes listen: what the groups say, what the operator said, what was heard.
//!
//! ```text
//!   members    what the groups of this node's cores replicate        ─┐
//!   seeds      --peers, until the groups have said something          ├─► candidates, tried in turn
//!   heard      the address a node gave when it dialed us, for a while ─┘
//! ```
//!
//! Several addresses of one node are no contradiction: a change of address reaches one group after
//! the other, and a node that moved is heard from before anybody has written it down. A wrong
//! address is harmless, because the handshake names who was wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::id::{NodeId, Tick};
use crate::limits;
use crate::shard::event::PeerChange;

/// How long a return address is worth dialing after its node was last heard from, in ms (contract
/// row 47).
pub const RETURN_MS: u64 = 60_000;

/// One per node.
#[derive(Debug, Default)]
pub struct Book {
    this: NodeId,
    /// This node began as a member of nothing.
    joins: bool,
    seeds: BTreeMap<NodeId, SocketAddr>,
    /// Per core, because each core knows its own groups only.
    members: Vec<BTreeMap<NodeId, Vec<SocketAddr>>>,
    /// Some group has named its members once.
    learned: bool,
    heard: BTreeMap<NodeId, (SocketAddr, Tick)>,
}

impl Book {
    /// The book of `this` node, with what the operator said; `joins` if it began as a member of
    /// nothing.
    #[must_use]
    pub fn new(
        this: NodeId,
        cores: u16,
        joins: bool,
        seeds: impl IntoIterator<Item = (NodeId, SocketAddr)>,
    ) -> Self {
        Self {
            this,
            joins,
            seeds: seeds.into_iter().filter(|(node, _)| *node != this).collect(),
            members: (0..cores).map(|_| BTreeMap::new()).collect(),
            learned: false,
            heard: BTreeMap::new(),
        }
    }

    /// A core's groups say something else than before.
    pub fn change(&mut self, core: usize, change: PeerChange) {
        self.learned = true;
        match change {
            PeerChange::Is { node, .. } | PeerChange::Gone(node) if node == self.this => {}
            PeerChange::Is { node, addresses } => {
                self.members[core].insert(node, addresses);
            }
            PeerChange::Gone(node) => {
                self.members[core].remove(&node);
            }
        }
    }

    /// `node` dialed us and says that it listens at `address`. Returns whether that is news.
    pub fn heard(&mut self, node: NodeId, address: SocketAddr, now: Tick) -> bool {
        if !self.heard.contains_key(&node) && limits::NODES_MAX <= self.heard.len() {
            return false;
        }
        let until = now.plus(RETURN_MS);
        self.heard.insert(node, (address, until)).is_none_or(|(before, _)| before != address)
    }

    /// `node` is still connected to us.
    pub fn still_heard(&mut self, node: NodeId, now: Tick) {
        if let Some((_, until)) = self.heard.get_mut(&node) {
            *until = now.plus(RETURN_MS);
        }
    }

    /// Forgets return addresses that are too old. Returns whether there were any.
    pub fn expire(&mut self, now: Tick) -> bool {
        let before = self.heard.len();
        self.heard.retain(|_, (_, until)| now < *until);
        before != self.heard.len()
    }

    /// Whether a group, or before any group has spoken the operator, names this node.
    #[must_use]
    pub fn is_known(&self, node: NodeId) -> bool {
        self.known().contains(&node)
    }

    /// This node belongs to nothing yet, and waits to be told everything.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.joins && self.members.iter().all(BTreeMap::is_empty)
    }

    /// All other nodes that are named.
    #[must_use]
    pub fn known(&self) -> BTreeSet<NodeId> {
        if self.learned {
            self.members.iter().flat_map(BTreeMap::keys).copied().collect()
        } else {
            self.seeds.keys().copied().collect()
        }
    }

    /// Whom to keep a link to, and where each may be found, likeliest first.
    #[must_use]
    pub fn targets(&self) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        let mut nodes = self.known();
        nodes.extend(self.heard.keys());
        nodes.remove(&self.this);
        let found = nodes.into_iter().map(|node| {
            let heard = self.heard.get(&node).map(|(address, _)| *address);
            let named = self.members.iter().filter_map(|members| members.get(&node)).flatten();
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for address in
                heard.into_iter().chain(named.copied()).chain(self.seeds.get(&node).copied())
            {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            (node, addresses)
        });
        found.filter(|(_, addresses)| !addresses.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn is(node: u64, ports: &[u16]) -> PeerChange {
        PeerChange::Is {
            node: NodeId(node),
            addresses: ports.iter().map(|&port| at(port)).collect(),
        }
    }

    fn ports(book: &Book) -> Vec<(u64, Vec<u16>)> {
        let ports = |list: &Vec<SocketAddr>| list.iter().map(SocketAddr::port).collect();
        book.targets().iter().map(|(node, list)| (node.0, ports(list))).collect()
    }

    fn book() -> Book {
        Book::new(NodeId(1), 2, false, [(NodeId(1), at(1)), (NodeId(2), at(2)), (NodeId(3), at(3))])
    }

    #[test]
    fn the_operators_list_counts_until_the_groups_speak() {
        let mut book = book();
        assert_eq!(ports(&book), [(2, vec![2]), (3, vec![3])]);
        book.change(0, is(2, &[20]));
        assert_eq!(ports(&book), [(2, vec![20, 2])], "node 3 is no member any more");
        assert!(!book.is_known(NodeId(3)) && book.is_known(NodeId(2)));
        book.change(1, is(2, &[21]));
        assert_eq!(ports(&book), [(2, vec![20, 21, 2])], "groups need not agree");
        book.change(0, PeerChange::Gone(NodeId(2)));
        assert!(book.is_known(NodeId(2)), "another core still names it");
        book.change(1, PeerChange::Gone(NodeId(2)));
        assert!(!book.is_known(NodeId(2)) && ports(&book).is_empty());
    }

    #[test]
    fn who_joins_is_blank_until_the_groups_speak() {
        assert!(!book().is_blank(), "it knows with whom it begins");
        let mut book = Book::new(NodeId(4), 1, true, [(NodeId(1), at(1))]);
        assert!(book.is_blank() && book.is_known(NodeId(1)));
        book.change(0, is(2, &[2]));
        assert!(!book.is_blank());
    }

    #[test]
    fn contract_row_47_a_return_address_is_kept_for_a_while() {
        let mut book = book();
        book.change(0, is(2, &[20]));
        assert!(book.heard(NodeId(9), at(9), Tick(0)));
        assert!(!book.heard(NodeId(9), at(9), Tick(10)), "no news");
        assert!(book.heard(NodeId(2), at(22), Tick(10)), "it has moved");
        assert_eq!(ports(&book), [(2, vec![22, 20, 2]), (9, vec![9])]);
        assert!(!book.is_known(NodeId(9)), "an address makes no member");
        book.still_heard(NodeId(2), Tick(RETURN_MS));
        assert!(book.expire(Tick(RETURN_MS + 10)));
        assert!(!book.expire(Tick(RETURN_MS + 10)));
        assert_eq!(ports(&book), [(2, vec![22, 20, 2])]);
    }
}
