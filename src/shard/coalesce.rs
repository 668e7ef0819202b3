//! Many groups' messages → one frame per peer and lane and turn.
//!
//! # News of commits wait for a ride
//!
//! When entries are committed, raft tells every follower at once, in an append that carries no entry, and
//! each of them answers. Under load the next entries, which carry the same news, are less than a
//! millisecond away; without load these are four of nine frames that a command costs in three nodes. So an empty
//! append is held for [`NEWS_WAIT_MS`] at most. Entries for the same follower replace it, and the answer to a read that
//! a follower has asked for takes it along: that follower waits for the commit. To raft, a message that was
//! replaced is one that was lost, and one that was held is one that was slow.

use std::collections::BTreeMap;

use crate::entry::Entry;
use crate::id::{GroupId, NodeId, Tick};
use crate::limits::{FRAME_SLICES_KEPT, FRAMES_KEPT};
use crate::raft::message::{Message, MessageKind};
use crate::wire::frame::Lane;
use crate::wire::peer::{AckTiming, Answer, Forward, FrameBuilder, OutFrame};
use crate::wire::{Route, SnapshotAck, SnapshotPiece};

/// How long what a follower is told of commits alone waits for entries to ride with, in ms.
pub(super) const NEWS_WAIT_MS: u64 = 20;

/// What this turn says to one peer.
struct Peer {
    node: NodeId,
    control: FrameBuilder,
    append: FrameBuilder,
    bulk: FrameBuilder,
    /// Appends without entries that wait for a ride, one for each group at most.
    news: BTreeMap<GroupId, Message>,
    /// When the oldest of them leaves without one.
    news_due: Tick,
}

impl Peer {
    fn new(node: NodeId) -> Self {
        let builder = FrameBuilder::new;
        let (control, append, bulk) = (builder(), builder(), builder());
        Self { node, control, append, bulk, news: BTreeMap::new(), news_due: NEVER }
    }

    /// Keeps the news of a group, the latest only, for at most [`NEWS_WAIT_MS`].
    fn hold(&mut self, now: Tick, group: GroupId, message: Message) {
        if self.news.is_empty() {
            self.news_due = now.plus(NEWS_WAIT_MS);
        }
        self.news.insert(group, message);
    }
}

const NEVER: Tick = Tick(u64::MAX);

/// One per shard. The builders keep their memory from turn to turn.
pub(super) struct Outbox {
    route: Route,
    peers: Vec<Peer>,
    /// Frames cut before the end of the turn because they were big enough.
    cut: Vec<(NodeId, OutFrame)>,
    /// Frames that were sent, empty, with the memory of their lists; at most [`FRAMES_KEPT`].
    spent: Vec<OutFrame>,
}

impl Outbox {
    /// An outbox towards every node of `nodes` but the sender itself.
    pub(super) fn new(route: Route, nodes: &[NodeId]) -> Self {
        let peers = nodes.iter().filter(|node| **node != route.from);
        let peers = peers.map(|&node| Peer::new(node)).collect();
        Self { route, peers, cut: Vec::new(), spent: Vec::new() }
    }

    /// What is said to `node`: members come and go, and one that was removed is told so.
    fn peer(&mut self, node: NodeId) -> Option<&mut Peer> {
        let place = self.place(node)?;
        self.peers.get_mut(place)
    }

    fn place(&mut self, node: NodeId) -> Option<usize> {
        if node == self.route.from || node == NodeId(0) {
            return None;
        }
        let known = self.peers.iter().position(|peer| peer.node == node);
        Some(known.unwrap_or_else(|| {
            self.peers.push(Peer::new(node));
            self.peers.len() - 1
        }))
    }

    /// A raft message with the entries it names. Messages of one group to one peer leave in order
    /// within their lane (contract row 39): appends in one, everything else in the other, where it
    /// may overtake them (row 45).
    pub(super) fn message<'a>(
        &mut self,
        now: Tick,
        node: NodeId,
        group: GroupId,
        message: &Message,
        entries: impl Iterator<Item = &'a Entry>,
    ) {
        let Some(place) = self.place(node) else { return };
        let peer = &mut self.peers[place];
        match message.kind {
            MessageKind::Append if message.count == 0 => peer.hold(now, group, *message),
            MessageKind::Append => {
                peer.news.remove(&group);
                peer.append.message(group, message, entries);
                self.cut_if_full(place, Lane::Append);
            }
            MessageKind::ReadIndexResponse => {
                if let Some(news) = peer.news.remove(&group) {
                    peer.append.message(group, &news, std::iter::empty());
                }
                peer.control.message(group, message, entries);
                self.cut_if_full(place, Lane::Control);
                self.cut_if_full(place, Lane::Append);
            }
            _ => {
                peer.control.message(group, message, entries);
                self.cut_if_full(place, Lane::Control);
            }
        }
    }

    /// A client's command on its way to the leader.
    pub(super) fn forward(&mut self, node: NodeId, forward: Forward) {
        let Some(place) = self.place(node) else { return };
        self.peers[place].append.forward(forward);
        self.cut_if_full(place, Lane::Append);
    }

    /// The result of a command that came from `node`.
    pub(super) fn answer(&mut self, node: NodeId, answer: Answer) {
        let Some(place) = self.place(node) else { return };
        self.peers[place].append.answer(answer);
        self.cut_if_full(place, Lane::Append);
    }

    /// A piece of a snapshot. Each has a frame of its own: what is urgent waits for one frame at most.
    pub(super) fn snapshot_piece(&mut self, node: NodeId, piece: &SnapshotPiece) {
        let route = Route { to: node, ..self.route };
        let Some(peer) = self.peer(node) else { return };
        peer.bulk.piece(piece);
        let frame = peer.bulk.finish(&route, Lane::Bulk);
        self.cut.push((node, frame));
    }

    /// How long it took here what the acceptance for `node`, said just before, accepts.
    pub(super) fn timing(&mut self, node: NodeId, timing: &AckTiming) {
        let Some(peer) = self.peer(node) else { return };
        // The acceptance may have filled a frame, which has left: then nobody asks for its timing.
        if !peer.control.is_empty() {
            peer.control.timing(timing);
        }
    }

    /// How far a snapshot from `node` has come.
    pub(super) fn snapshot_ack(&mut self, node: NodeId, ack: &SnapshotAck) {
        let Some(place) = self.place(node) else { return };
        self.peers[place].control.ack(ack);
        self.cut_if_full(place, Lane::Control);
    }

    /// Something was added to a frame. One that is big enough leaves the builder at once, so that none grows
    /// past its limit.
    fn cut_if_full(&mut self, place: usize, lane: Lane) {
        let Peer { node, control, append, bulk, .. } = &mut self.peers[place];
        let builder = match lane {
            Lane::Control => control,
            Lane::Append => append,
            Lane::Bulk => bulk,
        };
        if builder.is_full() {
            let route = Route { to: *node, ..self.route };
            self.cut.push((*node, finish(builder, &route, lane, &mut self.spent)));
        }
    }

    /// When the first news leave without a ride.
    pub(super) fn deadline(&self) -> Tick {
        let due = self.peers.iter().filter(|peer| !peer.news.is_empty()).map(|peer| peer.news_due);
        due.min().unwrap_or(NEVER)
    }

    /// The turn ends: everything leaves, but for news that are younger than [`NEWS_WAIT_MS`].
    pub(super) fn flush(&mut self, now: Tick, frames: &mut Vec<(NodeId, OutFrame)>) {
        frames.append(&mut self.cut);
        let spent = &mut self.spent;
        for peer in &mut self.peers {
            let route = Route { to: peer.node, ..self.route };
            if peer.news_due <= now {
                // One by one: an emptied map keeps its memory.
                while let Some((group, news)) = peer.news.pop_first() {
                    peer.append.message(group, &news, std::iter::empty());
                    if peer.append.is_full() {
                        let frame = finish(&mut peer.append, &route, Lane::Append, spent);
                        frames.push((peer.node, frame));
                    }
                }
                peer.news_due = NEVER;
            }
            if !peer.control.is_empty() {
                let frame = finish(&mut peer.control, &route, Lane::Control, spent);
                frames.push((peer.node, frame));
            }
            if !peer.append.is_empty() {
                let frame = finish(&mut peer.append, &route, Lane::Append, spent);
                frames.push((peer.node, frame));
            }
        }
    }

    /// A frame was sent, or given up: its lists serve for another.
    pub(super) fn reuse(&mut self, mut frame: OutFrame) {
        frame.clear();
        let is_small = frame.payload.capacity() <= FRAME_SLICES_KEPT
            && frame.forwards.capacity() <= 4 * FRAME_SLICES_KEPT;
        if is_small && self.spent.len() < FRAMES_KEPT {
            self.spent.push(frame);
        }
    }
}

fn finish(
    builder: &mut FrameBuilder,
    route: &Route,
    lane: Lane,
    spent: &mut Vec<OutFrame>,
) -> OutFrame {
    builder.finish_in(route, lane, spent.pop().unwrap_or_else(OutFrame::empty))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::{ClusterId, Incarnation, Index, ReplicaId, ShardId, Term};
    use crate::wire::FrameReader;

    const NOW: Tick = Tick(1_000);

    fn outbox() -> Outbox {
        let route = Route {
            cluster: ClusterId(1),
            from: NodeId(1),
            to: NodeId(0),
            incarnation: Incarnation(1),
            shard: ShardId(0),
        };
        Outbox::new(route, &[NodeId(1), NodeId(2)])
    }

    fn say(outbox: &mut Outbox, now: Tick, group: u64, kind: MessageKind, commit: u64, count: u32) {
        let mut message = Message::new(kind, ReplicaId(1), ReplicaId(2), Term(1));
        (message.commit, message.count, message.run_term) = (Index(commit), count, Term(1));
        let entry = Entry::command(Bytes::from_static(b"x"));
        let entries = std::iter::repeat_n(&entry, count as usize);
        outbox.message(now, NodeId(2), GroupId(group), &message, entries);
    }

    /// What leaves at this time: kind, group, commit index.
    fn leaving(outbox: &mut Outbox, now: Tick) -> Vec<(MessageKind, u64, u64)> {
        let mut frames = Vec::new();
        outbox.flush(now, &mut frames);
        let mut reader = FrameReader::new();
        frames.iter().for_each(|(_, frame)| reader.feed(&frame.to_bytes()));
        let mut said = Vec::new();
        while let Some(frame) = reader.next().expect("sound") {
            let messages = frame.messages();
            said.extend(messages.map(|(group, it, _)| (it.kind, group.0, it.commit.0)));
        }
        said
    }

    #[test]
    fn news_of_commits_wait_and_the_latest_of_each_group_leaves_in_the_end() {
        let mut outbox = outbox();
        assert_eq!(outbox.deadline(), NEVER);
        say(&mut outbox, NOW, 7, MessageKind::Append, 1, 0);
        say(&mut outbox, NOW.plus(1), 7, MessageKind::Append, 2, 0);
        say(&mut outbox, NOW.plus(1), 8, MessageKind::Append, 9, 0);
        let due = NOW.plus(NEWS_WAIT_MS);
        assert_eq!(outbox.deadline(), due);
        assert_eq!(leaving(&mut outbox, Tick(due.0 - 1)), []);
        let news = [(MessageKind::Append, 7, 2), (MessageKind::Append, 8, 9)];
        assert_eq!(leaving(&mut outbox, due), news);
        assert_eq!(outbox.deadline(), NEVER);
        assert_eq!(leaving(&mut outbox, due.plus(1_000)), []);
    }

    #[test]
    fn entries_replace_news_of_their_group_and_leave_at_once() {
        let mut outbox = outbox();
        say(&mut outbox, NOW, 7, MessageKind::Append, 1, 0);
        say(&mut outbox, NOW, 8, MessageKind::Append, 5, 0);
        say(&mut outbox, NOW, 7, MessageKind::Append, 2, 1);
        assert_eq!(leaving(&mut outbox, NOW), [(MessageKind::Append, 7, 2)]);
        let due = NOW.plus(NEWS_WAIT_MS);
        assert_eq!(leaving(&mut outbox, due), [(MessageKind::Append, 8, 5)]);
    }

    #[test]
    fn the_answer_to_a_read_takes_the_news_that_the_reader_waits_for_along() {
        let mut outbox = outbox();
        say(&mut outbox, NOW, 7, MessageKind::Append, 3, 0);
        say(&mut outbox, NOW, 8, MessageKind::Append, 5, 0);
        say(&mut outbox, NOW, 7, MessageKind::ReadIndexResponse, 0, 0);
        let mut said = leaving(&mut outbox, NOW);
        said.sort_by_key(|(_, group, commit)| (*group, *commit));
        assert_eq!(said, [(MessageKind::ReadIndexResponse, 7, 0), (MessageKind::Append, 7, 3)]);
    }
}
