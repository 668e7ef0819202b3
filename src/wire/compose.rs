//! Composing frames: many groups' messages to one peer, in one write.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use flatbuffers::FlatBufferBuilder;

use crate::entry::Entry;
use crate::id::GroupId;
use crate::limits::FRAME_BYTES_SOFT;
use crate::raft::message::Message;

use super::frame::{Content, FrameHeader, HEADER_BYTES, Lane, Route};
use super::generated::{
    AnswerHead, EntryHead, ForwardHead, Peer, PeerArgs, PieceAck, PieceHead, RaftMessage,
};
use super::peer::{Answer, Forward};
use super::piece::{SnapshotAck, SnapshotPiece};

/// Payloads up to this size are copied together, larger ones are sent from where they lie: below
/// it, copying costs less than a slice's reference count and its place in `writev`.
const COPY_BYTES_MAX: usize = 512;
/// The copies are made in chunks of this size; the chunk is used again when its frames are sent.
const CHUNK_BYTES: usize = 32 << 10;

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
    bytes: usize,
}

impl OutFrame {
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
    entries: Vec<EntryHead>,
    forwards: Vec<ForwardHead>,
    answers: Vec<AnswerHead>,
    pieces: Vec<PieceHead>,
    acks: Vec<PieceAck>,
    entry_payload: Pieces,
    forward_payload: Pieces,
    answer_payload: Pieces,
    piece_payload: Pieces,
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
            self.entry_payload.push(&entry.payload);
        }
        let carried = self.entries.len() - before;
        assert_eq!(carried, message.count as usize, "group {group}: entries of {message:?}");
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
        let crc = crc32fast::hash(&body);
        self.forwards.push(ForwardHead::new(id, group.0, body.len() as u32, crc, flags));
        self.forward_payload.push(&body);
    }

    /// Adds the answer to a forwarded command.
    pub fn answer(&mut self, answer: Answer) {
        let Answer { id, body } = answer;
        self.answers.push(AnswerHead::new(id, body.len() as u32, crc32fast::hash(&body)));
        self.answer_payload.push(&body);
    }

    /// Adds a piece of a snapshot.
    ///
    /// # Panics
    /// If it is empty: a piece says something, and the receiver refuses one that does not.
    pub fn piece(&mut self, piece: &SnapshotPiece) {
        assert!(!piece.bytes.is_empty(), "a piece without bytes: {piece:?}");
        self.pieces.push(piece.head());
        self.piece_payload.push(&piece.bytes);
    }

    /// Adds how far a snapshot has come.
    pub fn ack(&mut self, ack: &SnapshotAck) {
        self.acks.push(ack.head());
    }

    /// Whether nothing has been added since the last frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.forwards.is_empty()
            && self.answers.is_empty()
            && self.pieces.is_empty()
            && self.acks.is_empty()
    }

    /// Payload bytes so far.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.entry_payload.bytes
            + self.forward_payload.bytes
            + self.answer_payload.bytes
            + self.piece_payload.bytes
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
        let payload_bytes = self.payload_bytes();
        let meta = self.meta();
        let header = FrameHeader::new(route, lane, Content::Peer, meta, payload_bytes);
        let mut head = BytesMut::with_capacity(HEADER_BYTES + meta.len());
        head.put_slice(&header.encode());
        head.put_slice(meta);
        let forwards = self.forwards.iter().map(ForwardHead::id).collect();
        self.fbb.reset();
        self.messages.clear();
        self.entries.clear();
        self.forwards.clear();
        self.answers.clear();
        self.pieces.clear();
        self.acks.clear();

        let mut payload = self.entry_payload.take();
        payload.append(&mut self.forward_payload.take());
        payload.append(&mut self.answer_payload.take());
        payload.append(&mut self.piece_payload.take());
        OutFrame { lane, head: head.freeze(), payload, forwards, bytes: header.frame_bytes() }
    }

    /// Everything but the payload, as a FlatBuffer.
    fn meta(&mut self) -> &[u8] {
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
        let args = PeerArgs { messages, entries, forwards, answers, pieces, acks };
        let root = Peer::create(fbb, &args);
        fbb.finish(root, None);
        fbb.finished_data()
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
            .field("payload_bytes", &self.payload_bytes())
            .finish_non_exhaustive()
    }
}

/// One kind's payloads, back to back.
#[derive(Debug, Default)]
struct Pieces {
    /// What is done, in order.
    done: Vec<Bytes>,
    /// Small ones being copied together; they come after `done`.
    small: BytesMut,
    bytes: usize,
}

impl Pieces {
    fn push(&mut self, payload: &Bytes) {
        self.bytes += payload.len();
        if payload.len() <= COPY_BYTES_MAX {
            if self.small.capacity() - self.small.len() < payload.len() {
                self.seal();
                self.small.reserve(CHUNK_BYTES);
            }
            self.small.put_slice(payload);
        } else {
            self.seal();
            self.done.push(payload.clone());
        }
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.done.push(self.small.split().freeze());
        }
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.seal();
        self.bytes = 0;
        std::mem::take(&mut self.done)
    }
}
