//! What every frame must survive, and what no frame may do.

mod handshake;
mod measures;
mod order;
mod refusal;
mod round_trip;

use bytes::Bytes;
use flatbuffers::FlatBufferBuilder;
use proptest::prelude::*;

use crate::entry::{Entry, EntryKind};
use crate::id::{
    ClusterId, EntryId, GroupId, Incarnation, Index, NodeId, ReplicaId, ShardId, Term,
};
use crate::limits::{GROUPS_MAX, SNAPSHOT_PIECES_MAX};
use crate::raft::message::{Message, MessageKind};

use super::frame::{Content, FrameHeader, HEADER_BYTES};
use super::generated::{
    AckTiming as TimingHead, AnswerHead, EntryHead, ForwardHead, Peer, PeerArgs, PieceAck,
    PieceHead, RaftMessage,
};
use super::verify::NUMBER_MAX;
use super::{
    AckTiming, Answer, Forward, Frame, FrameBuilder, FrameError, FrameReader, Lane, OutFrame,
    PieceStatus, Route, SnapshotAck, SnapshotPiece,
};

const ROUTE: Route = Route {
    cluster: ClusterId(0xC1),
    from: NodeId(1),
    to: NodeId(2),
    incarnation: Incarnation(7),
    shard: ShardId(3),
};

/// Everything one frame says, as the test wrote it or as it was read back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    messages: Vec<(GroupId, Message, Vec<Entry>)>,
    forwards: Vec<Forward>,
    answers: Vec<Answer>,
    pieces: Vec<SnapshotPiece>,
    acks: Vec<SnapshotAck>,
    timings: Vec<AckTiming>,
}

impl Said {
    fn compose(&self, builder: &mut FrameBuilder) -> OutFrame {
        for (group, message, entries) in &self.messages {
            builder.message(*group, message, entries);
        }
        self.forwards.iter().for_each(|forward| builder.forward(forward.clone()));
        self.answers.iter().for_each(|answer| builder.answer(answer.clone()));
        self.pieces.iter().for_each(|piece| builder.piece(piece));
        self.acks.iter().for_each(|ack| builder.ack(ack));
        self.timings.iter().for_each(|timing| builder.timing(timing));
        builder.finish(&ROUTE, Lane::Append)
    }

    fn of(frame: &Frame) -> Self {
        Self {
            messages: frame.messages().map(|(g, m, entries)| (g, m, entries.collect())).collect(),
            forwards: frame.forwards().collect(),
            answers: frame.answers().collect(),
            pieces: frame.pieces().collect(),
            acks: frame.acks().collect(),
            timings: frame.timings().collect(),
        }
    }
}

/// The only frame in `bytes`, or what is wrong with it.
fn read(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut reader = FrameReader::new();
    reader.feed(bytes);
    reader.next()
}

fn append(group: u64, index: u64, payloads: &[&'static [u8]]) -> (GroupId, Message, Vec<Entry>) {
    let mut message = Message::new(MessageKind::Append, ReplicaId(1), ReplicaId(2), Term(5));
    message.entry = EntryId { term: Term(4), index: Index(index) };
    message.run_term = Term(5);
    message.count = payloads.len() as u32;
    let entries = payloads.iter().map(|p| Entry::command(Bytes::from_static(p))).collect();
    (GroupId(group), message, entries)
}

/// One frame with something of everything.
fn sample() -> Said {
    let heartbeat = Message::new(MessageKind::Heartbeat, ReplicaId(1), ReplicaId(2), Term(5));
    Said {
        messages: vec![
            append(9, 100, &[b"SET a 1", b"SET b 2"]),
            (GroupId(10), heartbeat, vec![]),
            append(9, 102, &[b"DEL a"]),
        ],
        forwards: vec![Forward {
            id: 77,
            group: GroupId(9),
            flags: 1,
            body: Bytes::from_static(b"GET a"),
        }],
        answers: vec![Answer { id: 12, body: Bytes::from_static(b"+OK\r\n") }],
        pieces: vec![piece(0, b"the beginning"), piece(1, b"the end")],
        acks: vec![ack(2)],
        timings: vec![timing(9, 102)],
    }
}

fn timing(group: u64, index: u64) -> AckTiming {
    let (group, index) = (GroupId(group), Index(index));
    AckTiming { group, index, pick_up: 12, flush_wait: 34, flush: 5_678, ack: 9 }
}

const SNAPSHOT: EntryId = EntryId { term: Term(4), index: Index(99) };

fn piece(number: u32, bytes: &'static [u8]) -> SnapshotPiece {
    SnapshotPiece {
        group: GroupId(9),
        from: ReplicaId(1),
        to: ReplicaId(2),
        term: Term(5),
        transfer: 7 << 48 | 3,
        snapshot: SNAPSHOT,
        number,
        last: number == 1,
        bytes: Bytes::from_static(bytes),
    }
}

fn ack(next: u32) -> SnapshotAck {
    SnapshotAck {
        group: GroupId(9),
        from: ReplicaId(1),
        to: ReplicaId(2),
        term: Term(5),
        transfer: 7 << 48 | 3,
        snapshot: SNAPSHOT,
        next,
        status: PieceStatus::Go,
    }
}

/// The parts of a frame before anyone checked them: for frames no builder would make.
#[derive(Default)]
struct Raw {
    messages: Vec<RaftMessage>,
    entries: Vec<EntryHead>,
    forwards: Vec<ForwardHead>,
    answers: Vec<AnswerHead>,
    pieces: Vec<PieceHead>,
    acks: Vec<PieceAck>,
    timings: Vec<TimingHead>,
    payload: Vec<u8>,
}

impl Raw {
    fn bytes(&self) -> Vec<u8> {
        let mut fbb = FlatBufferBuilder::new();
        let args = PeerArgs {
            messages: Some(fbb.create_vector(&self.messages)),
            entries: Some(fbb.create_vector(&self.entries)),
            forwards: Some(fbb.create_vector(&self.forwards)),
            answers: Some(fbb.create_vector(&self.answers)),
            pieces: Some(fbb.create_vector(&self.pieces)),
            acks: Some(fbb.create_vector(&self.acks)),
            timings: Some(fbb.create_vector(&self.timings)),
        };
        let root = Peer::create(&mut fbb, &args);
        fbb.finish(root, None);
        signed(Content::Peer, fbb.finished_data(), &self.payload)
    }
}

/// A frame whose header is right, whatever follows it.
fn signed(content: Content, meta: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::new(&ROUTE, Lane::Append, content, meta, payload.len());
    [&header.encode()[..], meta, payload].concat()
}

/// `header` again, with a checksum that agrees with what a test changed in it.
fn resign(frame: &mut [u8]) {
    let crc = crc32fast::hash(&frame[8..HEADER_BYTES]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000u64, 0..NUMBER_MAX]
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    // Around and beyond the size up to which payloads are copied together.
    let payload = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 500..520),
        1 => prop::collection::vec(any::<u8>(), 2000..2010),
    ];
    let entry = (payload, 0..4u8).prop_map(|(payload, kind)| match kind {
        0 => Entry::empty(),
        1 => Entry::command(payload.into()),
        2 if payload.len() >= 16 => Entry::session(payload.into()),
        _ => Entry { kind: EntryKind::Config, ..Entry::command(payload.into()) },
    });
    prop::collection::vec(entry, 0..6)
}

fn messages() -> impl Strategy<Value = (GroupId, Message, Vec<Entry>)> {
    let ids = (0..GROUPS_MAX, 1..=u64::MAX, 1..=u64::MAX, 1..=10u8);
    let rest = prop::array::uniform6(numbers());
    (ids, rest, any::<bool>(), any::<u64>(), entries()).prop_map(
        |((group, from, to, kind), n, reject, context, mut entries)| {
            let kind = MessageKind::from_code(kind).expect("1..=10");
            if kind != MessageKind::Append {
                entries.clear();
            }
            let message = Message {
                kind,
                from: ReplicaId(from),
                to: ReplicaId(to),
                term: Term(n[0]),
                entry: EntryId { term: Term(n[1]), index: Index(n[2]) },
                commit: Index(n[3]),
                run_term: Term(n[4]),
                count: entries.len() as u32,
                reject,
                hint: Index(n[5]),
                context,
            };
            (GroupId(group), message, entries)
        },
    )
}

fn ids() -> impl Strategy<Value = (GroupId, ReplicaId, ReplicaId, u64)> {
    (0..GROUPS_MAX, 1..=u64::MAX, 1..=u64::MAX, any::<u64>())
        .prop_map(|(group, from, to, any)| (GroupId(group), ReplicaId(from), ReplicaId(to), any))
}

fn pieces() -> impl Strategy<Value = SnapshotPiece> {
    let body = prop::collection::vec(any::<u8>(), 1..700).prop_map(Bytes::from);
    let n = prop::array::uniform3(numbers());
    (ids(), n, 0..SNAPSHOT_PIECES_MAX, any::<bool>(), body).prop_map(
        |((group, from, to, transfer), n, number, last, bytes)| SnapshotPiece {
            group,
            from,
            to,
            term: Term(n[0]),
            transfer,
            snapshot: EntryId { term: Term(n[1]), index: Index(n[2]) },
            number,
            last,
            bytes,
        },
    )
}

fn acks() -> impl Strategy<Value = SnapshotAck> {
    let n = prop::array::uniform3(numbers());
    (ids(), n, 0..=SNAPSHOT_PIECES_MAX, 0..=4u8).prop_map(
        |((group, from, to, transfer), n, next, status)| SnapshotAck {
            group,
            from,
            to,
            term: Term(n[0]),
            transfer,
            snapshot: EntryId { term: Term(n[1]), index: Index(n[2]) },
            next,
            status: PieceStatus::from_code(status).expect("0..=4"),
        },
    )
}

fn said() -> impl Strategy<Value = Said> {
    let body = || prop::collection::vec(any::<u8>(), 0..700).prop_map(Bytes::from);
    let forward = (any::<u64>(), 0..GROUPS_MAX, any::<u8>(), body())
        .prop_map(|(id, group, flags, body)| Forward { id, group: GroupId(group), flags, body });
    let answer = (any::<u64>(), body()).prop_map(|(id, body)| Answer { id, body });
    let timing = (0..GROUPS_MAX, numbers(), any::<[u32; 4]>()).prop_map(|(group, index, us)| {
        let [pick_up, flush_wait, flush, ack] = us;
        let (group, index) = (GroupId(group), Index(index));
        AckTiming { group, index, pick_up, flush_wait, flush, ack }
    });
    (
        prop::collection::vec(messages(), 0..8),
        prop::collection::vec(forward, 0..4),
        prop::collection::vec(answer, 0..4),
        prop::collection::vec(pieces(), 0..3),
        prop::collection::vec(acks(), 0..3),
        prop::collection::vec(timing, 0..3),
    )
        .prop_map(|(messages, forwards, answers, pieces, acks, timings)| Said {
            messages,
            forwards,
            answers,
            pieces,
            acks,
            timings,
        })
}
