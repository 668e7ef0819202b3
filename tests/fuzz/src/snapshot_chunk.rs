//! Pieces of a snapshot: `Incoming::take`, the meta and the machine in them.

use bytes::Bytes;

use outrigger::group::snapshot::{PIECE_HEADER_BYTES, PieceError, Section};
use outrigger::group::{GroupState, Incoming, Outgoing, Sessions, SnapshotMeta};
use outrigger::id::{EntryId, GroupId, Index, NodeId, SessionId, Term};
use outrigger::limits::SNAPSHOT_PIECE_BYTES;
use outrigger::store::map::Map;
use outrigger::store::{Frozen, StateMachine, Wanted};
use outrigger::wire::reply::Reply;
use outrigger::wire::resp::Command;

use super::choices::{Choices, below, byte, cut, flip, number, rarely, rest, some};
use super::log::Out;

const GROUP: GroupId = GroupId(7);
const ENTRY: EntryId = EntryId { term: Term(3), index: Index(40) };

/// One input.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match byte(&mut choices) % 4 {
        0 => written(&mut choices),
        1 => machine(&mut choices),
        2 => checksummed(&mut choices),
        _ => sections(&mut choices),
    }
}

/// A machine's chunks, cut wherever one likes.
struct Chunks(std::vec::IntoIter<Bytes>);

impl Chunks {
    fn of(choices: &mut Choices<'_>, bytes: &[u8]) -> Box<Self> {
        let mut chunks = Vec::new();
        cut(choices, bytes, |part| chunks.push(Bytes::copy_from_slice(part)));
        Box::new(Self(chunks.into_iter()))
    }
}

impl Frozen for Chunks {
    fn next_chunk(&mut self, _: usize) -> Option<Bytes> {
        self.0.next()
    }
}

fn frozen(machine: &dyn StateMachine) -> Vec<u8> {
    let mut frozen = machine.freeze();
    let chunks = std::iter::from_fn(|| frozen.next_chunk(SNAPSHOT_PIECE_BYTES));
    chunks.flat_map(|chunk| chunk.to_vec()).collect()
}

fn pieces(meta: &SnapshotMeta, machine: Box<dyn Frozen>) -> Vec<Bytes> {
    let mut outgoing = Outgoing::new(meta, machine);
    std::iter::from_fn(|| outgoing.next_piece()).collect()
}

fn incoming() -> Incoming {
    Incoming::new(GROUP, ENTRY, Map::new().restoring())
}

/// A snapshot comes back, however it is cut; a piece that is damaged, or not the next one, is refused
/// and changes nothing.
fn written(choices: &mut Choices<'_>) {
    let mut map = Map::new();
    for _ in 0..below(choices, 5) {
        let (key, value) = (some(choices, 12), some(choices, 40));
        map.apply(Index(1), &Command::from_args(&[b"SET", key, value]).raw, Wanted::No);
    }
    let mut sessions = Sessions::new();
    for index in 0..below(choices, 4) as u64 {
        let id = SessionId(number(choices).max(1));
        if sessions.open(id, Index(index)) && rarely(choices, 2) {
            sessions.ran(id, number(choices).max(1), Reply::bulk(some(choices, 20)));
        }
    }
    let nodes: Vec<NodeId> = (0..=below(choices, 3)).map(|_| NodeId(number(choices))).collect();
    let addresses: Vec<_> =
        nodes.iter().map(|node| (*node, ([127, 0, 0, 1], node.0 as u16).into())).collect();
    let state = GroupState::first(&nodes, &addresses);
    let meta = SnapshotMeta::new(GROUP, ENTRY).with_state(&state).with_sessions(&sessions);
    let chunks = Chunks::of(choices, &frozen(&map));
    let pieces = pieces(&meta, chunks);

    let mut incoming = incoming();
    for piece in &pieces {
        if rarely(choices, 3) {
            let mut flipped = piece.to_vec();
            flip(choices, &mut flipped);
            let refused = incoming.take(&flipped.into());
            assert!(matches!(refused, Err(PieceError::Damaged { .. })), "{refused:?}");
        }
        if rarely(choices, 3) {
            let other = below(choices, pieces.len());
            if other != incoming.next() as usize {
                let refused = incoming.take(&pieces[other]);
                assert!(matches!(refused, Err(PieceError::OutOfOrder { .. })), "{refused:?}");
            }
        }
        incoming.take(piece).expect("the next piece, whole");
    }
    assert!(incoming.is_whole());
    let (back, machine) = incoming.finish().expect("whole");
    assert_eq!(back, meta);
    assert_eq!((back.state(), back.sessions()), (Some(state), Ok(sessions)));
    assert_eq!(machine.map(|machine| machine.digest()), Some(map.digest()));
}

/// The machine of these chunks, if they are those of one.
fn restored(chunks: Box<dyn Frozen>) -> Option<Box<dyn StateMachine>> {
    let pieces = pieces(&SnapshotMeta::new(GROUP, ENTRY), chunks);
    let mut incoming = incoming();
    pieces.iter().try_for_each(|piece| incoming.take(piece)).ok()?;
    incoming.finish().ok()?.1
}

/// Any chunks: no map, or the map that is written as these very bytes. Users may have been written with other words by
/// another version: what they are written as now makes the same ones.
fn machine(choices: &mut Choices<'_>) {
    let mut how = Choices::new(some(choices, 8));
    let bytes = if rarely(choices, 2) { pairs(choices) } else { rest(choices).to_vec() };
    let Some(machine) = restored(Chunks::of(&mut how, &bytes)) else { return };
    let written = frozen(&*machine);
    if machine.users().is_none_or(|users| users.is_empty()) {
        assert_eq!(written, bytes, "read otherwise than written");
    } else {
        let again = restored(Chunks::of(&mut how, &written)).expect("it was just written");
        assert_eq!(again.digest(), machine.digest());
        assert_eq!(frozen(&*again), written);
    }
}

/// A pair or two whose lengths may lie.
fn pairs(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut out = Out::default();
    for _ in 0..=below(choices, 3) {
        let (key, value) = (some(choices, 8), some(choices, 20));
        let length = |choices: &mut Choices<'_>, bytes: &[u8]| {
            if rarely(choices, 16) { number(choices) as u32 } else { bytes.len() as u32 }
        };
        let (key_bytes, value_bytes) = (length(choices, key), length(choices, value));
        out.u32(key_bytes).u32(value_bytes).bytes(key).bytes(value);
    }
    out.0
}

/// Pieces of any fields in any order, under checksums that hold.
fn checksummed(choices: &mut Choices<'_>) {
    let mut incoming =
        if rarely(choices, 2) { Incoming::checking(GROUP, ENTRY) } else { incoming() };
    let (mut crcs, mut taken) = (crc32fast::Hasher::new(), 0);
    for _ in 0..=below(choices, 8) {
        let mut fields = Out::default();
        fields.bytes(b"OSNP");
        for is in [GROUP.0, ENTRY.term.0, ENTRY.index.0] {
            fields.u64(if rarely(choices, 32) { number(choices) } else { is });
        }
        fields.u32(if rarely(choices, 16) { number(choices) as u32 } else { taken });
        let part =
            if rarely(choices, 16) { number(choices) as u32 } else { below(choices, 3) as u32 };
        fields.u32(part);
        if part == 2 && !rarely(choices, 4) {
            fields.u32(taken).u32(0).u32(crcs.clone().finalize()).u32(0);
        } else {
            fields.bytes(some(choices, 60));
        }
        let crc = crc32fast::hash(&fields.0);
        let mut piece = Out::default();
        piece.u32(crc).bytes(&fields.0);
        assert!(piece.0.len() >= PIECE_HEADER_BYTES);
        let before = (incoming.next(), incoming.is_whole());
        match incoming.take(&piece.0.into()) {
            Ok(()) => {
                assert!(!before.1, "a piece after the end");
                taken += 1;
                crcs.update(&crc.to_le_bytes());
            }
            // Part of what the machine refused may be in it; the snapshot is void.
            Err(PieceError::Machine(_)) => return,
            Err(_) => assert_eq!((incoming.next(), incoming.is_whole()), before),
        }
        assert_eq!(incoming.next(), taken);
    }
    let is_whole = incoming.is_whole();
    if let Ok((meta, _)) = incoming.finish() {
        assert!(is_whole, "without its end");
        judge(&meta);
    }
}

/// Sections that say anything.
fn sections(choices: &mut Choices<'_>) {
    let state = Bytes::copy_from_slice(some(choices, 400));
    let sessions = if rarely(choices, 2) { table(choices) } else { rest(choices).to_vec() };
    let meta = SnapshotMeta::new(GROUP, ENTRY)
        .with(Section::State, state)
        .with(Section::Sessions, sessions.into());
    judge(&meta);
}

/// A table of sessions that is nearly right.
fn table(choices: &mut Choices<'_>) -> Vec<u8> {
    let count = below(choices, 4) as u64;
    let mut out = Out::default();
    out.u64(if rarely(choices, 16) { number(choices) } else { count });
    for place in 0..count {
        let reply = match byte(choices) % 4 {
            0 => Reply::Ok.encode_forwarded(),
            1 => Reply::Int(number(choices) as i64).encode_forwarded(),
            2 => Reply::bulk(some(choices, 20)).encode_forwarded(),
            _ => Bytes::copy_from_slice(some(choices, 20)),
        };
        let or = |choices: &mut Choices<'_>, usual: u64| {
            if rarely(choices, 16) { number(choices) } else { usual }
        };
        out.u64(or(choices, 10 * place)).u64(number(choices)).u64(or(choices, 3 + place));
        let bytes = or(choices, reply.len() as u64) as u32;
        out.u32(bytes).bytes(&reply);
    }
    out.0
}

/// What a meta says can be said again, in the same bytes where they are ours.
fn judge(meta: &SnapshotMeta) {
    let pieces = pieces(meta, Map::new().freeze());
    let mut incoming = incoming();
    pieces.iter().for_each(|piece| incoming.take(piece).expect("as it was written"));
    assert_eq!(incoming.finish().map(|(meta, _)| meta).as_ref(), Ok(meta));
    if let Some(state) = meta.state() {
        assert_eq!(GroupState::decode(&state.encode()), Some(state));
    }
    if let Ok(sessions) = meta.sessions() {
        let mut bytes = Vec::new();
        sessions.encode(&mut bytes);
        assert_eq!(Sessions::decode(&bytes), Ok(sessions));
    }
}
