//! Composing frames: many groups' messages to one peer, in one write.
//!
//! ```text
//!   message(), forward() … ──► small payloads ──► copied into a chunk ─┐
//!                              large ones ───────── counted slices ────┼─► finish() ──► OutFrame ──► socket
//!                              heads ──────────────► the same chunk ───┘                   │
//!                                    ▲                                                     │
//!                                    └── chunks when all slices are sent, lists by `reuse` ┘
//! ```
//!
//! A frame costs no allocation in the steady state: its bytes lie in chunks that are used again once nobody holds
//! slices of them, and its lists are those of a frame that was sent.

use std::collections::VecDeque;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use flatbuffers::FlatBufferBuilder;

use crate::entry::{Entry, checksum};
use crate::id::GroupId;
use crate::limits::{FRAME_BYTES_SOFT, FRAME_CHUNK_BYTES, FRAME_CHUNKS_KEPT};
use crate::raft::message::{Message, MessageKind};

use super::frame::{Content, FrameHeader, HEADER_BYTES, Lane, Route};
use super::generated::{
    AckTiming as TimingHead, AnswerHead, EntryHead, ForwardHead, Peer, PeerArgs, PieceAck,
    PieceHead, RaftMessage,
};
use super::peer::{AckTiming, Answer, Forward};
use super::piece::{SnapshotAck, SnapshotPiece};

/// Payloads up to this size are copied together, larger ones are sent from where they lie: below
/// it, copying costs less than a slice's reference count and its place in `writev`.
const COPY_BYTES_MAX: usize = 512;
const _: () = assert!(COPY_BYTES_MAX < FRAME_CHUNK_BYTES);

/// A frame on its way out: write `head`, then each of `payload`, without a pause between.
#[derive(Debug, Clone)]
pub struct OutFrame {
    /// The connection it belongs on.
    pub lane: Lane,
    /// Header and meta.
    pub head: Bytes,
    /// The payload's slices, in order; none is empty.
    pub payload: Vec<Bytes>,
    /// The forwarded commands in it, by id: whoever drops the frame unsent knows what was not sent.
    pub forwards: Vec<u64>,
    /// How many heartbeats it carries: whoever drops the frame knows how many leaders were not heard.
    pub heartbeats: u32,
    bytes: usize,
}

impl OutFrame {
    /// A frame of nothing, for a builder to fill.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            lane: Lane::Control,
            head: Bytes::new(),
            payload: Vec::new(),
            forwards: Vec::new(),
            heartbeats: 0,
            bytes: 0,
        }
    }

    /// Lets go of everything but the memory of its lists.
    pub fn clear(&mut self) {
        self.head = Bytes::new();
        self.payload.clear();
        self.forwards.clear();
        self.heartbeats = 0;
        self.bytes = 0;
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Everything to write, in order.
    pub fn slices(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.head).chain(&self.payload)
    }

    /// The frame in one piece. Copies: for tests and the simulator.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes);
        self.slices().for_each(|slice| out.put_slice(slice));
        out.freeze()
    }
}

/// Gathers what is to be said to one peer on one lane. One per shard, used for frame after frame:
/// [`finish`](Self::finish) leaves it empty with its memory.
#[derive(Default)]
pub struct FrameBuilder {
    fbb: FlatBufferBuilder<'static>,
    messages: Vec<RaftMessage>,
    heartbeats: u32,
    entries: Vec<EntryHead>,
    forwards: Vec<ForwardHead>,
    answers: Vec<AnswerHead>,
    pieces: Vec<PieceHead>,
    acks: Vec<PieceAck>,
    timings: Vec<TimingHead>,
    /// The payloads of each kind, back to back.
    payloads: [Vec<Bytes>; Kind::COUNT],
    payload_bytes: usize,
    chunks: Chunks,
    /// The kind of what was copied last and is not in `payloads` yet.
    copied: Kind,
}

/// What a payload belongs to; payloads leave in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Entry,
    Forward,
    Answer,
    Piece,
}

impl Kind {
    const COUNT: usize = 4;
}

impl FrameBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a raft message and the entries it names. Messages keep the order of these calls
    /// (contract row 39).
    ///
    /// # Panics
    /// If `entries` are not exactly `message.count`: the log cache and the raft core disagree, and
    /// no follower must hear of it.
    pub fn message<'a>(
        &mut self,
        group: GroupId,
        message: &Message,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) {
        let before = self.entries.len();
        for entry in entries {
            let bytes = entry.payload.len() as u32;
            self.entries.push(EntryHead::new(bytes, entry.crc, entry.kind as u8));
            self.carry(Kind::Entry, &entry.payload);
        }
        let carried = self.entries.len() - before;
        assert_eq!(carried, message.count as usize, "group {group}: entries of {message:?}");
        self.heartbeats += u32::from(message.kind == MessageKind::Heartbeat);
        self.messages.push(RaftMessage::new(
            group.0,
            message.from.0,
            message.to.0,
            message.term.0,
            message.entry.term.0,
            message.entry.index.0,
            message.commit.0,
            message.run_term.0,
            message.hint.0,
            message.context,
            message.count,
            message.kind as u8,
            u8::from(message.reject),
        ));
    }

    /// Adds a client's command for the node that leads its group.
    pub fn forward(&mut self, forward: Forward) {
        let Forward { id, group, flags, body } = forward;
        let crc = checksum(&body);
        self.forwards.push(ForwardHead::new(id, group.0, body.len() as u32, crc, flags));
        self.carry(Kind::Forward, &body);
    }

    /// Adds the answer to a forwarded command.
    pub fn answer(&mut self, answer: Answer) {
        let Answer { id, body } = answer;
        self.answers.push(AnswerHead::new(id, body.len() as u32, checksum(&body)));
        self.carry(Kind::Answer, &body);
    }

    /// Adds a piece of a snapshot.
    ///
    /// # Panics
    /// If it is empty: a piece says something, and the receiver refuses one that does not.
    pub fn piece(&mut self, piece: &SnapshotPiece) {
        assert!(!piece.bytes.is_empty(), "a piece without bytes: {piece:?}");
        self.pieces.push(piece.head());
        self.carry(Kind::Piece, &piece.bytes);
    }

    /// Adds how far a snapshot has come.
    pub fn ack(&mut self, ack: &SnapshotAck) {
        self.acks.push(ack.head());
    }

    /// Adds how long an append took here, whose acceptance is in this frame.
    pub fn timing(&mut self, timing: &AckTiming) {
        let AckTiming { group, index, pick_up, flush_wait, flush, ack } = *timing;
        self.timings.push(TimingHead::new(group.0, index.0, pick_up, flush_wait, flush, ack));
    }

    /// Whether nothing has been added since the last frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.forwards.is_empty()
            && self.answers.is_empty()
            && self.pieces.is_empty()
            && self.acks.is_empty()
            && self.timings.is_empty()
    }

    /// Payload bytes so far.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Bytes the frame would have now, a few for alignment aside.
    #[must_use]
    pub fn bytes(&self) -> usize {
        HEADER_BYTES
            + size_of_val(&*self.messages)
            + size_of_val(&*self.entries)
            + size_of_val(&*self.forwards)
            + size_of_val(&*self.answers)
            + size_of_val(&*self.pieces)
            + size_of_val(&*self.acks)
            + size_of_val(&*self.timings)
            + self.payload_bytes()
    }

    /// Whether the frame should be finished before more is added: it has reached
    /// [`FRAME_BYTES_SOFT`]. One more append of the largest size still fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        FRAME_BYTES_SOFT <= self.bytes()
    }

    /// The frame; the builder is empty afterwards.
    ///
    /// # Panics
    /// If the frame exceeds [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX), which cannot
    /// happen to a caller that finishes when [`is_full`](Self::is_full).
    #[must_use]
    pub fn finish(&mut self, route: &Route, lane: Lane) -> OutFrame {
        self.finish_in(route, lane, OutFrame::empty())
    }

    /// As [`finish`](Self::finish), with the lists of a frame that was sent.
    ///
    /// # Panics
    /// As [`finish`](Self::finish).
    #[must_use]
    pub fn finish_in(&mut self, route: &Route, lane: Lane, mut frame: OutFrame) -> OutFrame {
        self.seal();
        self.finish_meta();
        let meta = self.fbb.finished_data();
        let header = FrameHeader::new(route, lane, Content::Peer, meta, self.payload_bytes);
        frame.clear();
        frame.lane = lane;
        frame.head = self.chunks.head(&header.encode(), meta);
        frame.bytes = header.frame_bytes();
        frame.forwards.extend(self.forwards.iter().map(ForwardHead::id));
        frame.heartbeats = std::mem::take(&mut self.heartbeats);
        self.payloads.iter_mut().for_each(|slices| frame.payload.append(slices));
        self.payload_bytes = 0;
        self.fbb.reset();
        self.messages.clear();
        self.entries.clear();
        self.forwards.clear();
        self.answers.clear();
        self.pieces.clear();
        self.acks.clear();
        self.timings.clear();
        frame
    }

    /// Adds to the payloads of a kind.
    fn carry(&mut self, kind: Kind, payload: &Bytes) {
        self.payload_bytes += payload.len();
        if COPY_BYTES_MAX < payload.len() {
            self.seal();
            self.payloads[kind as usize].push(payload.clone());
            return;
        }
        if self.copied != kind || !self.chunks.has_room(payload.len()) {
            self.seal();
            self.chunks.make_room(payload.len());
            self.copied = kind;
        }
        self.chunks.current.put_slice(payload);
    }

    /// What was copied is a slice now.
    fn seal(&mut self) {
        if !self.chunks.current.is_empty() {
            self.payloads[self.copied as usize].push(self.chunks.current.split().freeze());
        }
    }

    /// Everything but the payload becomes a FlatBuffer.
    fn finish_meta(&mut self) {
        let fbb = &mut self.fbb;
        // An empty vector is left out: a heartbeat frame pays for messages alone.
        let messages =
            (!self.messages.is_empty()).then(|| fbb.create_vector(self.messages.as_slice()));
        let entries =
            (!self.entries.is_empty()).then(|| fbb.create_vector(self.entries.as_slice()));
        let forwards =
            (!self.forwards.is_empty()).then(|| fbb.create_vector(self.forwards.as_slice()));
        let answers =
            (!self.answers.is_empty()).then(|| fbb.create_vector(self.answers.as_slice()));
        let pieces = (!self.pieces.is_empty()).then(|| fbb.create_vector(self.pieces.as_slice()));
        let acks = (!self.acks.is_empty()).then(|| fbb.create_vector(self.acks.as_slice()));
        let timings =
            (!self.timings.is_empty()).then(|| fbb.create_vector(self.timings.as_slice()));
        let args = PeerArgs { messages, entries, forwards, answers, pieces, acks, timings };
        let root = Peer::create(fbb, &args);
        fbb.finish(root, None);
    }
}

impl fmt::Debug for FrameBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuilder")
            .field("messages", &self.messages.len())
            .field("entries", &self.entries.len())
            .field("forwards", &self.forwards.len())
            .field("answers", &self.answers.len())
            .field("pieces", &self.pieces.len())
            .field("acks", &self.acks.len())
            .field("timings", &self.timings.len())
            .field("payload_bytes", &self.payload_bytes)
            .finish_non_exhaustive()
    }
}

/// Memory for what is copied. A chunk is used again as soon as no slice of it is left; until then it rests.
#[derive(Debug, Default)]
struct Chunks {
    /// What was copied and is not a slice yet, then room for more.
    current: BytesMut,
    /// Chunks without room, oldest first; at most [`FRAME_CHUNKS_KEPT`].
    resting: VecDeque<BytesMut>,
}

impl Chunks {
    fn has_room(&self, bytes: usize) -> bool {
        bytes <= self.current.capacity() - self.current.len()
    }

    /// Makes room for `bytes`, no more than a chunk has. Nothing is waiting to become a slice.
    fn make_room(&mut self, bytes: usize) {
        debug_assert!(self.current.is_empty(), "it would be torn from what follows");
        if self.has_room(bytes) || self.current.try_reclaim(FRAME_CHUNK_BYTES) {
            return;
        }
        let free = self.resting.iter_mut().position(|chunk| chunk.try_reclaim(FRAME_CHUNK_BYTES));
        let next = free
            .and_then(|at| self.resting.remove(at))
            .unwrap_or_else(|| BytesMut::with_capacity(FRAME_CHUNK_BYTES));
        if self.resting.len() == FRAME_CHUNKS_KEPT {
            // Whoever still holds slices of it frees it.
            self.resting.pop_front();
        }
        self.resting.push_back(std::mem::replace(&mut self.current, next));
    }

    /// Header and meta of a frame, in one slice.
    fn head(&mut self, header: &[u8; HEADER_BYTES], meta: &[u8]) -> Bytes {
        let bytes = HEADER_BYTES + meta.len();
        if FRAME_CHUNK_BYTES < bytes {
            return [&header[..], meta].concat().into();
        }
        self.make_room(bytes);
        self.current.put_slice(header);
        self.current.put_slice(meta);
        self.current.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ClusterId, Incarnation, NodeId, ShardId};

    const ROUTE: Route = Route {
        cluster: ClusterId(1),
        from: NodeId(1),
        to: NodeId(2),
        incarnation: Incarnation(1),
        shard: ShardId(0),
    };

    fn forward(builder: &mut FrameBuilder, id: u64, bytes: usize) {
        let body = Bytes::from(vec![id as u8; bytes]);
        builder.forward(Forward { id, group: GroupId(0), flags: 0, body });
    }

    fn answer(builder: &mut FrameBuilder, id: u64, bytes: usize) {
        builder.answer(Answer { id, body: Bytes::from(vec![id as u8; bytes]) });
    }

    /// Kinds that take turns, small and large: each one's payloads stand together and in order.
    #[test]
    fn payloads_of_each_kind_stay_together_and_in_order() {
        let mut builder = FrameBuilder::new();
        for id in 0..50 {
            forward(&mut builder, id, [3, 700, 0, 40][id as usize % 4]);
            answer(&mut builder, id, [600, 5, 6][id as usize % 3]);
        }
        let frame = builder.finish(&ROUTE, Lane::Append);
        assert!(builder.is_empty());
        assert!(frame.slices().all(|slice| !slice.is_empty()));
        let mut reader = crate::wire::FrameReader::new();
        frame.slices().for_each(|slice| reader.feed(slice));
        let heard = reader.next().unwrap().unwrap();
        let whole = |id: u64, body: &Bytes| body.iter().all(|&byte| u64::from(byte) == id);
        assert_eq!(heard.forwards().filter(|it| whole(it.id, &it.body)).count(), 50);
        assert_eq!(heard.answers().filter(|it| whole(it.id, &it.body)).count(), 50);
        assert!(heard.forwards().map(|it| it.id).eq(0..50));
    }

    #[test]
    fn memory_of_what_was_sent_is_used_again_and_of_what_was_not_is_left_alone() {
        let mut builder = FrameBuilder::new();
        let mut compose = |spent| {
            for id in 0..30 {
                forward(&mut builder, id, COPY_BYTES_MAX);
            }
            builder.finish_in(&ROUTE, Lane::Append, spent)
        };
        // Frames that are sent before the next but one is composed.
        let mut seen = std::collections::BTreeSet::new();
        let mut before = compose(OutFrame::empty());
        let mut spent = compose(OutFrame::empty());
        let list = spent.payload.as_ptr();
        for _ in 0..100 {
            let copy = before.to_bytes();
            let frame = compose(spent);
            assert_eq!(before.to_bytes(), copy, "what is not sent yet is not written over");
            seen.extend(frame.slices().map(|slice| slice.as_ptr().addr() / FRAME_CHUNK_BYTES));
            spent = std::mem::replace(&mut before, frame);
        }
        assert!([&spent, &before].iter().any(|frame| frame.payload.as_ptr() == list));
        let chunks = 1 + FRAME_CHUNKS_KEPT;
        assert!(seen.len() <= 2 * chunks, "{} pieces of memory for 100 frames", seen.len());

        // Nothing is sent: memory is taken as needed, and only so much is kept.
        let unsent: Vec<_> = (0..20).map(|_| compose(OutFrame::empty())).collect();
        assert!(unsent.iter().all(|frame| frame.to_bytes() == before.to_bytes()));
        drop(unsent);
        assert_eq!(builder.chunks.resting.len(), FRAME_CHUNKS_KEPT);
    }

    #[test]
    fn what_fits_no_chunk_has_memory_of_its_own() {
        let (mut chunks, header) = (Chunks::default(), [1; HEADER_BYTES]);
        let most = FRAME_CHUNK_BYTES - HEADER_BYTES;
        for (bytes, is_in_chunk) in [(most + 1, false), (most, true)] {
            let meta = vec![2; bytes];
            assert_eq!(chunks.head(&header, &meta), [&header[..], &meta].concat());
            assert_eq!(chunks.resting.len(), usize::from(is_in_chunk), "{bytes}");
        }
        chunks.make_room(FRAME_CHUNK_BYTES);
        chunks.current.put_slice(&[3; 100]);
        let left = chunks.current.capacity() - 100;
        assert!(chunks.has_room(left) && !chunks.has_room(left + 1));
    }
}
