//! What arrives from a peer: `FrameReader`, `Frame` and all it says, `Hello`.

use bytes::Bytes;

use outrigger::entry::Entry;
use outrigger::id::{
    ClusterId, EntryId, GroupId, Incarnation, Index, NodeId, ReplicaId, ShardId, Term,
};
use outrigger::limits::FRAME_BYTES_MAX;
use outrigger::raft::{Message, MessageKind};
use outrigger::wire::frame::HEADER_BYTES;
use outrigger::wire::hello::{BODY_BYTES, VERSION};
use outrigger::wire::{
    AckTiming, Answer, Content, Expected, Forward, Frame, FrameBuilder, FrameError, FrameHeader,
    FrameReader, Hello, Lane, PieceStatus, Route, SnapshotAck, SnapshotPiece,
};

use super::choices::{Choices, below, byte, cut, flip, number, rarely, some};

const ROUTE: Route = Route {
    cluster: ClusterId(0xC1),
    from: NodeId(1),
    to: NodeId(2),
    incarnation: Incarnation(7),
    shard: ShardId(3),
};
/// A frame that announces more than this is not received here: the room for it is zeroed, and a
/// target that does that is slow.
const ROOM_BYTES: usize = 128 << 10;

/// One input.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match byte(&mut choices) % 8 {
        0..=2 => written(&mut choices),
        3 | 4 => checksummed(&mut choices),
        5 => hello(&mut choices),
        6 => body(&mut choices),
        _ => stream(&mut choices),
    }
}

/// Everything one frame says.
#[derive(Debug, Default, PartialEq)]
struct Said {
    messages: Vec<(GroupId, Message, Vec<Entry>)>,
    forwards: Vec<Forward>,
    answers: Vec<Answer>,
    pieces: Vec<SnapshotPiece>,
    acks: Vec<SnapshotAck>,
    timings: Vec<AckTiming>,
}

impl Said {
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

    fn encode(&self, lane: Lane) -> Vec<u8> {
        let mut builder = FrameBuilder::new();
        for (group, message, entries) in &self.messages {
            builder.message(*group, message, entries);
        }
        self.forwards.iter().for_each(|forward| builder.forward(forward.clone()));
        self.answers.iter().for_each(|answer| builder.answer(answer.clone()));
        self.pieces.iter().for_each(|piece| builder.piece(piece));
        self.acks.iter().for_each(|ack| builder.ack(ack));
        self.timings.iter().for_each(|timing| builder.timing(timing));
        builder.finish(&ROUTE, lane).to_bytes().to_vec()
    }

    /// What a node may say.
    fn chosen(choices: &mut Choices<'_>) -> Self {
        let mut said = Self::default();
        for _ in 0..below(choices, 4) {
            let code = 1 + below(choices, 13) as u8;
            let kind = MessageKind::from_code(code).expect("one of thirteen");
            let mut entries = Vec::new();
            if kind == MessageKind::Append {
                entries.extend((0..below(choices, 4)).map(|_| entry(choices)));
            }
            let message = Message {
                entry: at(choices),
                commit: Index(modest(choices)),
                run_term: Term(modest(choices)),
                count: entries.len() as u32,
                reject: rarely(choices, 2),
                hint: Index(modest(choices)),
                context: number(choices),
                ..Message::new(kind, somebody(choices), somebody(choices), Term(modest(choices)))
            };
            said.messages.push((group(choices), message, entries));
        }
        for _ in 0..below(choices, 3) {
            let (id, group, flags) = (number(choices), group(choices), byte(choices));
            said.forwards.push(Forward { id, group, flags, body: payload(choices) });
        }
        for _ in 0..below(choices, 3) {
            said.answers.push(Answer { id: number(choices), body: payload(choices) });
        }
        for _ in 0..below(choices, 3) {
            let mut bytes = payload(choices);
            if bytes.is_empty() {
                bytes = Bytes::from_static(b"p");
            }
            said.pieces.push(SnapshotPiece {
                group: group(choices),
                from: somebody(choices),
                to: somebody(choices),
                term: Term(modest(choices)),
                transfer: number(choices),
                snapshot: at(choices),
                number: (modest(choices) as u32) % outrigger::limits::SNAPSHOT_PIECES_MAX,
                last: rarely(choices, 2),
                bytes,
            });
        }
        for _ in 0..below(choices, 3) {
            said.acks.push(SnapshotAck {
                group: group(choices),
                from: somebody(choices),
                to: somebody(choices),
                term: Term(modest(choices)),
                transfer: number(choices),
                snapshot: at(choices),
                next: (modest(choices) as u32) % outrigger::limits::SNAPSHOT_PIECES_MAX,
                status: PieceStatus::from_code(below(choices, 5) as u8).expect("one of five"),
            });
        }
        for _ in 0..below(choices, 3) {
            said.timings.push(AckTiming {
                group: group(choices),
                index: Index(modest(choices)),
                pick_up: number(choices) as u32,
                flush_wait: number(choices) as u32,
                flush: number(choices) as u32,
                ack: number(choices) as u32,
            });
        }
        said
    }
}

fn group(choices: &mut Choices<'_>) -> GroupId {
    GroupId(number(choices) % outrigger::limits::GROUPS_MAX)
}

fn somebody(choices: &mut Choices<'_>) -> ReplicaId {
    ReplicaId(number(choices).max(1))
}

/// A number that arithmetic cannot overflow, as terms and indices must be.
fn modest(choices: &mut Choices<'_>) -> u64 {
    number(choices) >> 2
}

fn at(choices: &mut Choices<'_>) -> EntryId {
    EntryId { term: Term(modest(choices)), index: Index(modest(choices)) }
}

fn payload(choices: &mut Choices<'_>) -> Bytes {
    match rarely(choices, 4) {
        // Long enough to be sent from where it lies.
        true => vec![byte(choices); 500 + below(choices, 100)].into(),
        false => Bytes::copy_from_slice(some(choices, 40)),
    }
}

fn entry(choices: &mut Choices<'_>) -> Entry {
    match byte(choices) % 4 {
        0 => Entry::empty(),
        1 => Entry::config(payload(choices)),
        2 => Entry::session([&[7; 16], &payload(choices)[..]].concat().into()),
        _ => Entry::command(payload(choices)),
    }
}

/// All frames of a stream, and what ended it.
fn read(bytes: &[u8]) -> (Vec<Said>, Result<usize, FrameError>) {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    let end = feed(&mut reader, bytes, &mut frames);
    (frames, end)
}

/// Feeds the reader and takes what is whole. How many bytes it waits for then.
fn feed(
    reader: &mut FrameReader,
    bytes: &[u8],
    frames: &mut Vec<Said>,
) -> Result<usize, FrameError> {
    reader.feed(bytes);
    while let Some(frame) = reader.next()? {
        assert!(frame.bytes() <= FRAME_BYTES_MAX);
        frames.push(Said::of(&frame));
    }
    assert!(reader.needed() <= FRAME_BYTES_MAX, "waits for more than a frame may have");
    Ok(reader.needed())
}

/// What is said is heard, and no bit of it may change.
fn written(choices: &mut Choices<'_>) {
    let said = Said::chosen(choices);
    let mut bytes = said.encode(Lane::ALL[below(choices, 3)]);
    let (frames, end) = read(&bytes);
    assert_eq!((frames, end), (vec![said], Ok(HEADER_BYTES)));
    flip(choices, &mut bytes);
    let (frames, end) = read(&bytes);
    assert!(frames.is_empty() && end.is_err(), "flipped bits went unnoticed");
}

/// Any change, under checksums that hold: refused, or heard, and then it can be said.
fn checksummed(choices: &mut Choices<'_>) {
    let mut bytes = Said::chosen(choices).encode(Lane::Append);
    let meta = u32::from_le_bytes(bytes[48..52].try_into().expect("four bytes")) as usize;
    for _ in 0..=below(choices, 4) {
        // Mostly in the meta, sometimes in the header behind its version, sometimes anywhere.
        let (from, count) = match byte(choices) % 8 {
            0 => (10, 46),
            1 => (HEADER_BYTES, bytes.len() - HEADER_BYTES),
            _ => (HEADER_BYTES, meta),
        };
        let place = from + below(choices, count);
        let value = number(choices).to_le_bytes();
        let width = [1, 2, 4, 8][below(choices, 4)].min(bytes.len() - place);
        bytes[place..place + width].copy_from_slice(&value[..width]);
    }
    let announced = u32::from_le_bytes(bytes[48..52].try_into().expect("four bytes")) as usize;
    let meta = announced.min(bytes.len() - HEADER_BYTES);
    let crc = crc32fast::hash(&bytes[HEADER_BYTES..HEADER_BYTES + meta]);
    bytes[56..60].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[8..HEADER_BYTES]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    let header = FrameHeader::decode(bytes.first_chunk().expect("a header"));
    if let Ok(header) = header {
        assert_eq!(header.encode()[..], bytes[..HEADER_BYTES], "read otherwise than written");
        if ROOM_BYTES < header.frame_bytes() {
            assert!(header.frame_bytes() <= FRAME_BYTES_MAX);
            return;
        }
    }
    for said in read(&bytes).0 {
        let again = said.encode(Lane::Append);
        assert_eq!(read(&again), (vec![said], Ok(HEADER_BYTES)));
    }
}

/// However a stream is cut, the same frames come of it.
fn stream(choices: &mut Choices<'_>) {
    let mut bytes = Vec::new();
    for _ in 0..below(choices, 3) {
        let mut frame = Said::chosen(choices).encode(Lane::Control);
        if rarely(choices, 4) {
            flip(choices, &mut frame);
        }
        bytes.extend(frame);
    }
    let rest = some(choices, 200).to_vec();
    bytes.extend(rest);
    let (frames, end) = read(&bytes);
    let mut reader = FrameReader::new();
    let (mut cut_frames, mut cut_end) = (Vec::new(), Ok(HEADER_BYTES));
    cut(choices, &bytes, |part| {
        if cut_end.is_ok() {
            cut_end = feed(&mut reader, part, &mut cut_frames);
        }
    });
    assert_eq!((cut_frames, cut_end), (frames, end));
}

/// The frame in `bytes`, which is whole.
fn first(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut reader = FrameReader::new();
    reader.feed(bytes);
    reader.next()
}

/// A greeting is understood as it was meant, and no bit of it may change.
fn hello(choices: &mut Choices<'_>) {
    let port = number(choices) as u16;
    let address = match byte(choices) % 3 {
        0 => None,
        1 => Some((<[u8; 4]>::default().map(|_| byte(choices)), port).into()),
        _ => Some((<[u8; 16]>::default().map(|_| byte(choices)), port).into()),
    };
    let hello = Hello {
        cluster: ClusterId(number(choices)),
        node: NodeId(number(choices)),
        to: NodeId(number(choices)),
        incarnation: Incarnation(number(choices)),
        shard: ShardId(number(choices) as u16),
        lane: Lane::ALL[below(choices, 3)],
        cores: number(choices) as u16,
        groups: number(choices),
        version: if rarely(choices, 4) { number(choices) as u32 } else { VERSION },
        birth: number(choices),
        origin: number(choices),
        proven: rarely(choices, 2),
        is_stranger: rarely(choices, 2),
        address,
        client: address,
    };
    let mut bytes = hello.encode().to_vec();
    let frame = first(&bytes).expect("as it was written").expect("whole");
    assert_eq!(Hello::decode(&frame), Ok(hello));
    judge(&hello);
    flip(choices, &mut bytes);
    assert!(first(&bytes).is_err(), "flipped bits went unnoticed");
}

/// Any body under checksums that hold.
fn body(choices: &mut Choices<'_>) {
    let lane = Lane::ALL[below(choices, 3)];
    let body = some(choices, 2 * BODY_BYTES);
    let header = FrameHeader::new(&ROUTE, lane, Content::Hello, body, 0);
    let bytes = [&header.encode()[..], body].concat();
    let Ok(Some(frame)) = first(&bytes) else { return };
    let hello = Hello::decode(&frame).expect("it is one");
    judge(&hello);
    let again = first(&hello.encode()).expect("as it was written").expect("whole");
    assert_eq!(Hello::decode(&again), Ok(hello));
}

/// Whether it is welcome or not, it is judged.
fn judge(hello: &Hello) {
    let nodes = [NodeId(1), NodeId(2)];
    let (cluster, this) = (ROUTE.cluster, ROUTE.to);
    let expected = Expected {
        cluster,
        this,
        nodes: &nodes,
        incarnation: Incarnation(7),
        groups: 16,
        origin: 9,
    };
    if let Err(error) = hello.check(&expected) {
        assert!(!error.to_string().contains('\n'), "one line: {error}");
    }
    let expect = hello.expect();
    assert_eq!((expect.from, expect.to), (hello.node, hello.to));
}
