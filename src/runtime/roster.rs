//! Who this node is and whom it talks to, as every core and every handshake needs it.

use std::net::SocketAddr;

use crate::id::{ClusterId, Incarnation, NodeId, ShardId};
use crate::wire::{Hello, Lane, hello};

/// One per node, shared by its cores; it does not change while the process runs.
#[derive(Debug, Clone)]
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
    /// All other nodes and where they listen.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// Their ids alone.
    pub peer_nodes: Vec<NodeId>,
}

impl Roster {
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
        }
    }
}
