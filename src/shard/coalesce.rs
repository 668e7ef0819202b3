//! Many groups' messages → one frame per peer and lane and turn.

use crate::entry::Entry;
use crate::id::{GroupId, NodeId};
use crate::raft::message::{Message, MessageKind};
use crate::wire::frame::Lane;
use crate::wire::peer::{Answer, Forward, FrameBuilder, OutFrame};
use crate::wire::{Route, SnapshotAck, SnapshotPiece};

/// What this turn says to one peer.
struct Peer {
    node: NodeId,
    control: FrameBuilder,
    append: FrameBuilder,
    bulk: FrameBuilder,
}

impl Peer {
    fn new(node: NodeId) -> Self {
        let builder = FrameBuilder::new;
        Self { node, control: builder(), append: builder(), bulk: builder() }
    }
}

/// One per shard. The builders keep their memory from turn to turn.
pub(super) struct Outbox {
    route: Route,
    peers: Vec<Peer>,
    /// Frames cut before the end of the turn because they were big enough.
    cut: Vec<(NodeId, OutFrame)>,
}

impl Outbox {
    /// An outbox towards every node of `nodes` but the sender itself.
    pub(super) fn new(route: Route, nodes: &[NodeId]) -> Self {
        let peers = nodes.iter().filter(|node| **node != route.from);
        let peers = peers.map(|&node| Peer::new(node)).collect();
        Self { route, peers, cut: Vec::new() }
    }

    /// What is said to `node`: members come and go, and one that was removed is told so.
    fn peer(&mut self, node: NodeId) -> Option<&mut Peer> {
        if node == self.route.from || node == NodeId(0) {
            return None;
        }
        let known = self.peers.iter().position(|peer| peer.node == node);
        let place = known.unwrap_or_else(|| {
            self.peers.push(Peer::new(node));
            self.peers.len() - 1
        });
        self.peers.get_mut(place)
    }

    /// A raft message with the entries it names. Messages of one group to one peer leave in order
    /// within their lane (contract row 39): appends in one, everything else in the other, where it
    /// may overtake them (row 45).
    pub(super) fn message<'a>(
        &mut self,
        node: NodeId,
        group: GroupId,
        message: &Message,
        entries: impl Iterator<Item = &'a Entry>,
    ) {
        let Some(peer) = self.peer(node) else { return };
        let builder = match message.kind {
            MessageKind::Append => &mut peer.append,
            _ => &mut peer.control,
        };
        builder.message(group, message, entries);
        self.cut_if_full(node);
    }

    /// A client's command on its way to the leader.
    pub(super) fn forward(&mut self, node: NodeId, forward: Forward) {
        let Some(peer) = self.peer(node) else { return };
        peer.append.forward(forward);
        self.cut_if_full(node);
    }

    /// The result of a command that came from `node`.
    pub(super) fn answer(&mut self, node: NodeId, answer: Answer) {
        let Some(peer) = self.peer(node) else { return };
        peer.append.answer(answer);
        self.cut_if_full(node);
    }

    /// A piece of a snapshot. Each has a frame of its own: what is urgent waits for one frame at most.
    pub(super) fn snapshot_piece(&mut self, node: NodeId, piece: &SnapshotPiece) {
        let route = Route { to: node, ..self.route };
        let Some(peer) = self.peer(node) else { return };
        peer.bulk.piece(piece);
        let frame = peer.bulk.finish(&route, Lane::Bulk);
        self.cut.push((node, frame));
    }

    /// How far a snapshot from `node` has come.
    pub(super) fn snapshot_ack(&mut self, node: NodeId, ack: &SnapshotAck) {
        let Some(peer) = self.peer(node) else { return };
        peer.control.ack(ack);
        self.cut_if_full(node);
    }

    /// A frame that is big enough leaves the builder at once, so that none grows past its limit.
    fn cut_if_full(&mut self, node: NodeId) {
        let route = Route { to: node, ..self.route };
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == node) else { return };
        for (builder, lane) in
            [(&mut peer.control, Lane::Control), (&mut peer.append, Lane::Append)]
        {
            if builder.is_full() {
                self.cut.push((node, builder.finish(&route, lane)));
            }
        }
    }

    /// The turn ends: everything leaves.
    pub(super) fn flush(&mut self, frames: &mut Vec<(NodeId, OutFrame)>) {
        frames.append(&mut self.cut);
        for peer in &mut self.peers {
            let route = Route { to: peer.node, ..self.route };
            if !peer.control.is_empty() {
                frames.push((peer.node, peer.control.finish(&route, Lane::Control)));
            }
            if !peer.append.is_empty() {
                frames.push((peer.node, peer.append.finish(&route, Lane::Append)));
            }
        }
    }
}
