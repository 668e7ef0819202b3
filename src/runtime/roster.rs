//! Who this node is and whom it talks to, as every core and every handshake needs it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::{ClusterId, Incarnation, NodeId, ShardId, Tick};
use crate::limits;
use crate::shard::event::PeerChange;
use crate::wire::{FrameBuilder, Hello, Lane, OutFrame, Route, hello};

use super::book::Book;

/// One per node, shared by its cores. What it says of this node does not change while the process
/// runs, but for one bit; the others come, move and go.
#[derive(Debug)]
pub struct Roster {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Which start of this node it is.
    pub incarnation: Incarnation,
    /// Cores of this node.
    pub cores: u16,
    /// Groups of the cluster.
    pub groups: u64,
    /// The number of this node's directory; see [`crate::wire::hello`].
    pub birth: u64,
    /// A hash of the members this node began with; zero if it joined later.
    pub origin: u64,
    /// Where the others reach this node.
    pub address: SocketAddr,
    /// Where clients reach this node, if that is known.
    pub client: Option<SocketAddr>,
    proven: AtomicBool,
    book: Mutex<Book>,
    /// Counts the changes of the book, so that every core notices them cheaply.
    version: AtomicU64,
    /// Where clients reach every node that has said so, this one included.
    clients: Mutex<BTreeMap<NodeId, SocketAddr>>,
    /// Counts the changes of that.
    clients_version: AtomicU64,
}

/// Who a node is, for its roster.
#[derive(Debug, Clone, Copy)]
pub struct Card {
    /// [`Roster::cluster`].
    pub cluster: ClusterId,
    /// [`Roster::node`].
    pub node: NodeId,
    /// [`Roster::incarnation`].
    pub incarnation: Incarnation,
    /// [`Roster::cores`].
    pub cores: u16,
    /// [`Roster::groups`].
    pub groups: u64,
    /// [`Roster::birth`].
    pub birth: u64,
    /// [`Roster::origin`].
    pub origin: u64,
    /// [`Roster::address`].
    pub address: SocketAddr,
    /// [`Roster::client`].
    pub client: Option<SocketAddr>,
    /// Whether its directory takes part.
    pub proven: bool,
}

impl Roster {
    /// The roster of the node that `card` names, with the peers that the operator named.
    #[must_use]
    pub fn new(card: Card, seeds: impl IntoIterator<Item = (NodeId, SocketAddr)>) -> Self {
        Self {
            cluster: card.cluster,
            node: card.node,
            incarnation: card.incarnation,
            cores: card.cores,
            groups: card.groups,
            birth: card.birth,
            origin: card.origin,
            address: card.address,
            client: card.client,
            proven: AtomicBool::new(card.proven),
            book: Mutex::new(Book::new(card.node, card.cores, card.origin == 0, seeds)),
            version: AtomicU64::new(1),
            clients: Mutex::new(
                card.client.map(|client| (card.node, client)).into_iter().collect(),
            ),
            clients_version: AtomicU64::new(1),
        }
    }

    /// What this node says to `to` from core `shard` when it has nothing to say.
    #[must_use]
    pub fn beat(&self, to: NodeId, shard: ShardId) -> OutFrame {
        let (cluster, from, incarnation) = (self.cluster, self.node, self.incarnation);
        let route = Route { cluster, from, to, incarnation, shard };
        FrameBuilder::new().finish(&route, Lane::Control)
    }

    /// What this node says first to `to`, from core `shard`.
    #[must_use]
    pub fn hello(&self, to: NodeId, shard: ShardId, lane: Lane) -> Hello {
        Hello {
            cluster: self.cluster,
            node: self.node,
            to,
            incarnation: self.incarnation,
            shard,
            lane,
            cores: self.cores,
            groups: self.groups,
            version: hello::VERSION,
            birth: self.birth,
            origin: self.origin,
            proven: self.is_proven(),
            is_stranger: false,
            address: Some(self.address),
            client: self.client,
        }
    }

    /// Whether this node's directory takes part.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::SeqCst)
    }

    /// From now on it does; that is durable already.
    pub fn prove(&self) {
        self.proven.store(true, Ordering::SeqCst);
    }

    /// Changes with every change of what is below.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The groups of a core say something new about a node.
    pub fn change(&self, core: ShardId, change: PeerChange) {
        tracing::debug!(core = core.0, ?change, "peers");
        self.book().change(usize::from(core.0), change);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// A node that dialed us says where it listens.
    pub fn heard(&self, node: NodeId, address: SocketAddr, now: Tick) {
        if self.book().heard(node, address, now) {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// `node` says where clients reach it. It goes on being believed while the node is away.
    pub fn on_client_address(&self, node: NodeId, client: Option<SocketAddr>) {
        let Some(client) = client else { return };
        let mut clients = self.clients();
        if clients.get(&node) == Some(&client) {
            return;
        }
        if limits::NODES_MAX <= clients.len() && !clients.contains_key(&node) {
            // Room is made by nodes that have left the cluster.
            let known = self.known();
            clients.retain(|node, _| *node == self.node || known.contains(node));
        }
        if clients.len() < limits::NODES_MAX || clients.contains_key(&node) {
            clients.insert(node, client);
            self.clients_version.fetch_add(1, Ordering::Release);
        }
    }

    /// Changes with every change of [`Self::client_addresses`].
    #[must_use]
    pub fn clients_version(&self) -> u64 {
        self.clients_version.load(Ordering::Acquire)
    }

    /// Where clients reach every node that has said so, this one included.
    #[must_use]
    pub fn client_addresses(&self) -> BTreeMap<NodeId, SocketAddr> {
        self.clients().clone()
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<NodeId, SocketAddr>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of the known nodes must have greeted a new directory before it takes part: so many
    /// that any two such sets of them meet, and as few as that and a majority allow.
    #[must_use]
    pub fn greetings_needed(&self) -> usize {
        greetings_needed(self.known().len())
    }

    /// These nodes are connected to us still; return addresses that are too old are forgotten.
    pub fn keep_heard(&self, nodes: impl Iterator<Item = NodeId>, now: Tick) {
        let mut book = self.book();
        nodes.for_each(|node| book.still_heard(node, now));
        if book.expire(now) {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// See [`Book::is_known`].
    #[must_use]
    pub fn is_known(&self, node: NodeId) -> bool {
        self.book().is_known(node)
    }

    /// See [`Book::is_blank`].
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.book().is_blank()
    }

    /// See [`Book::known`].
    #[must_use]
    pub fn known(&self) -> Vec<NodeId> {
        self.book().known().into_iter().collect()
    }

    /// See [`Book::targets`].
    #[must_use]
    pub fn targets(&self) -> BTreeMap<NodeId, Vec<SocketAddr>> {
        self.book().targets()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Whoever panics with it in hand was changing a map, which stays whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Roster::greetings_needed`]: all `others` but two less than a majority of the whole.
const fn greetings_needed(others: usize) -> usize {
    let majority = others.div_ceil(2) + 1;
    (others + 2).saturating_sub(majority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn nodes_that_have_left_make_room_for_the_client_addresses_of_others() {
        let card = Card {
            cluster: ClusterId(1),
            node: NodeId(1),
            incarnation: Incarnation(1),
            cores: 1,
            groups: 1,
            birth: 1,
            origin: 1,
            address: at(1),
            client: Some(at(2)),
            proven: true,
        };
        let roster = Roster::new(card, [(NodeId(2), at(3))]);
        let before = roster.clients_version();
        roster.on_client_address(NodeId(2), Some(at(4)));
        assert_ne!(roster.clients_version(), before);
        let before = roster.clients_version();
        roster.on_client_address(NodeId(2), Some(at(4)));
        roster.on_client_address(NodeId(3), None);
        assert_eq!(roster.clients_version(), before, "no news");
        for node in 10..200 {
            roster.on_client_address(NodeId(node), Some(at(5)));
        }
        let all = roster.client_addresses();
        assert!(all.len() <= limits::NODES_MAX, "{}", all.len());
        assert_eq!((all.get(&NodeId(1)), all.get(&NodeId(2))), (Some(&at(2)), Some(&at(4))));
        assert_eq!(all.get(&NodeId(199)), Some(&at(5)), "the newest has found room");
    }

    #[test]
    fn two_directories_of_one_id_meet_in_a_peer() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(greetings_needed), [1, 1, 2, 2, 3, 3, 4]);
        for others in 1..64 {
            let needed = greetings_needed(others);
            assert!(needed <= others && 2 * needed > others, "{others}");
        }
    }
}
