//! A snapshot of one replica: what the log up to one entry has come to, cut into pieces that are
//! written, sent and checked one by one.
//!
//! ```text
//!   piece 0 … m-1      meta: everything but the machine, in named sections; mostly one piece
//!   piece m … n-1      the machine's chunks; or one without a body, which says that the machine holds its state itself, durably
//!   piece n            the end: how many pieces came before it, and a digest over them
//!
//!   Replica ─ freeze ─► Outgoing ─ next ─► pieces ─► log, lane ─► pieces ─► Incoming ─► meta, machine
//! ```
//!
//! One piece:
//!
//! ```text
//!  byte
//!     0  crc of bytes 4 ..                   4
//!     4  magic "OSNP"                        4
//!     8  group                               8   ┐
//!    16  term of the last entry it holds     8   │ which snapshot this is a piece of
//!    24  index of that entry                 8   ┘
//!    32  number of the piece                 4
//!    36  part: 0 meta, 1 machine, 2 end, 3 in place   4
//!    40  body: meta                              sections, see [`SnapshotMeta`]
//!              machine                           see the machine's own file
//!              in place                          nothing
//!              end                               pieces before it 4, zero 4, crc of their crcs 4, zero 4
//! ```
//!
//! Whoever takes pieces in ([`Incoming`]) refuses one that is damaged, of another snapshot, or not the
//! next one, and names which. A snapshot is whole only after its end piece.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use thiserror::Error;

use crate::id::{EntryId, GroupId, Index, Term};
use crate::limits::{SNAPSHOT_META_BYTES_MAX, SNAPSHOT_PIECE_BYTES};
use crate::raft::Membership;
use crate::store::{Frozen, RestoreError, Restoring, StateMachine};

use super::GroupState;
use super::sessions::{self, Sessions};

const MAGIC: u32 = u32::from_le_bytes(*b"OSNP");
/// What precedes the body of a piece, in bytes.
pub const PIECE_HEADER_BYTES: usize = 40;
const END_BODY_BYTES: usize = 16;

/// Names one part of a snapshot's meta. A number is never used for anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Section {
    /// What the group replicates about its members.
    State = 1,
    /// The clients' sessions.
    Sessions = 2,
}

/// What a snapshot says beside the machine.
///
/// ```text
///  byte
///     0  name of the section   4
///     4  bytes                 4
///     8  the section
///     …  the next one, in ascending order of names
/// ```
///
/// A section that nobody knows is kept and passed over: a later version may have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Whose snapshot.
    pub group: GroupId,
    /// The last entry it holds.
    pub entry: EntryId,
    sections: BTreeMap<u32, Bytes>,
}

impl SnapshotMeta {
    /// Without sections.
    #[must_use]
    pub const fn new(group: GroupId, entry: EntryId) -> Self {
        Self { group, entry, sections: BTreeMap::new() }
    }

    /// With this section.
    #[must_use]
    pub fn with(mut self, section: Section, bytes: Bytes) -> Self {
        self.sections.insert(section as u32, bytes);
        self
    }

    /// With this state of the group, as of its last entry.
    #[must_use]
    pub fn with_state(self, state: &GroupState) -> Self {
        self.with(Section::State, state.encode())
    }

    /// With these sessions of clients, as of its last entry.
    #[must_use]
    pub fn with_sessions(self, sessions: &Sessions) -> Self {
        let mut bytes = Vec::new();
        sessions.encode(&mut bytes);
        self.with(Section::Sessions, bytes.into())
    }

    /// A section, if it is there.
    #[must_use]
    pub fn section(&self, section: Section) -> Option<&Bytes> {
        self.sections.get(&(section as u32))
    }

    /// The state of the group, if it is there and makes sense.
    #[must_use]
    pub fn state(&self) -> Option<GroupState> {
        GroupState::decode(self.section(Section::State)?)
    }

    /// The membership in it.
    #[must_use]
    pub fn membership(&self) -> Option<Membership> {
        self.state().map(|state| state.membership)
    }

    /// The sessions of clients; none are open if it says nothing of them.
    ///
    /// # Errors
    /// If what it says makes no sense.
    pub fn sessions(&self) -> Result<Sessions, sessions::DecodeError> {
        self.section(Section::Sessions)
            .map_or_else(|| Ok(Sessions::new()), |it| Sessions::decode(it))
    }

    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        for (name, section) in &self.sections {
            bytes.put_u32_le(*name);
            bytes.put_u32_le(u32::try_from(section.len()).expect("limits bound a section"));
            bytes.put_slice(section);
        }
        assert!(bytes.len() <= SNAPSHOT_META_BYTES_MAX, "limits bound the parts of a replica");
        bytes.freeze()
    }

    fn decode(group: GroupId, entry: EntryId, mut bytes: Bytes) -> Option<Self> {
        let mut meta = Self::new(group, entry);
        while !bytes.is_empty() {
            let (name, count) = (bytes.try_get_u32_le().ok()?, bytes.try_get_u32_le().ok()?);
            if bytes.len() < count as usize {
                return None;
            }
            let section = bytes.split_to(count as usize);
            if meta.sections.last_key_value().is_some_and(|(last, _)| name <= *last) {
                return None;
            }
            meta.sections.insert(name, section);
        }
        Some(meta)
    }
}

/// What a piece holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Some of the meta.
    Meta,
    /// Some of the machine.
    Machine,
    /// The end.
    End,
    /// In place of the machine's chunks: they are where it keeps them ([`StateMachine::durable`]). Never sent.
    InPlace,
}

/// The header of a piece whose checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceHeader {
    /// Of which group.
    pub group: GroupId,
    /// Of which snapshot: the last entry it holds.
    pub entry: EntryId,
    /// The number of the piece; the first is zero.
    pub number: u32,
    /// What it holds.
    pub part: Part,
    crc: u32,
}

impl PieceHeader {
    /// Reads and checks a whole piece.
    ///
    /// # Errors
    /// [`PieceError::Damaged`].
    pub fn parse(piece: &[u8]) -> Result<Self, PieceError> {
        if piece.len() < PIECE_HEADER_BYTES {
            return Err(PieceError::Damaged { what: "a piece without its header" });
        }
        let mut bytes = piece;
        let (crc, computed) = (bytes.get_u32_le(), crc32fast::hash(&piece[4..]));
        if crc != computed {
            return Err(PieceError::Damaged { what: "the checksum of a piece does not hold" });
        }
        if bytes.get_u32_le() != MAGIC {
            return Err(PieceError::Damaged { what: "no piece of a snapshot" });
        }
        let group = GroupId(bytes.get_u64_le());
        let entry = EntryId { term: Term(bytes.get_u64_le()), index: Index(bytes.get_u64_le()) };
        let number = bytes.get_u32_le();
        let part = match bytes.get_u32_le() {
            0 => Part::Meta,
            1 => Part::Machine,
            2 => Part::End,
            3 => Part::InPlace,
            _ => return Err(PieceError::Damaged { what: "an unknown part of a snapshot" }),
        };
        Ok(Self { group, entry, number, part, crc })
    }
}

/// Why a piece is not taken. The snapshot it would belong to is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PieceError {
    /// Its bytes are not what was written.
    #[error("damaged snapshot: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// It belongs to another snapshot.
    #[error("a piece of another snapshot: of group {group} at {entry}")]
    Foreign {
        /// The group it belongs to.
        group: GroupId,
        /// The snapshot it belongs to.
        entry: EntryId,
    },
    /// It is not the next one.
    #[error("piece {found} of a snapshot where piece {expected} should be")]
    OutOfOrder {
        /// The number of the next piece.
        expected: u32,
        /// The number of this one.
        found: u32,
    },
    /// The machine does not understand its chunks.
    #[error("damaged snapshot: {0}")]
    Machine(#[from] RestoreError),
}

/// A snapshot on its way out. Holds the state as it was when it was begun, and shares with the machine
/// whatever has not changed since; or notes that the machine holds it itself.
pub struct Outgoing {
    group: GroupId,
    entry: EntryId,
    meta: Bytes,
    /// None if the machine holds its state itself.
    machine: Option<Box<dyn Frozen>>,
    number: u32,
    crcs: crc32fast::Hasher,
    stage: Stage,
}

/// ```text
///   Meta ──► Machine or InPlace ──► End ──► Done
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Meta,
    Machine,
    End,
    Done,
}

impl Outgoing {
    /// Begins a snapshot that says `meta` and holds `machine`, frozen at the same entry.
    #[must_use]
    pub fn new(meta: &SnapshotMeta, machine: Box<dyn Frozen>) -> Self {
        Self { machine: Some(machine), ..Self::in_place(meta) }
    }

    /// Begins a snapshot that says `meta`, and that the machine holds its state itself. For this node's own log only.
    #[must_use]
    pub fn in_place(meta: &SnapshotMeta) -> Self {
        Self {
            group: meta.group,
            entry: meta.entry,
            meta: meta.encode(),
            machine: None,
            number: 0,
            crcs: crc32fast::Hasher::new(),
            stage: Stage::Meta,
        }
    }

    /// Which snapshot this is: the last entry it holds.
    #[must_use]
    pub const fn entry(&self) -> EntryId {
        self.entry
    }

    /// The number of the next piece.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The end was given out: no piece follows.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// The next piece, with a body of at most [`SNAPSHOT_PIECE_BYTES`]; none after the end.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Meta => {
                // A snapshot always has a first piece, even if it says nothing.
                let body = self.meta.split_to(self.meta.len().min(SNAPSHOT_PIECE_BYTES));
                if self.meta.is_empty() {
                    self.stage = Stage::Machine;
                }
                Some(self.piece(Part::Meta, &body))
            }
            Stage::Machine => {
                let Some(machine) = &mut self.machine else {
                    self.stage = Stage::End;
                    return Some(self.piece(Part::InPlace, &[]));
                };
                if let Some(chunk) = machine.next_chunk(SNAPSHOT_PIECE_BYTES) {
                    return Some(self.piece(Part::Machine, &chunk));
                }
                self.stage = Stage::End;
                self.next_piece()
            }
            Stage::End => {
                self.stage = Stage::Done;
                let mut body = BytesMut::with_capacity(END_BODY_BYTES);
                body.put_u32_le(self.number);
                body.put_u32_le(0);
                body.put_u32_le(self.crcs.clone().finalize());
                body.put_u32_le(0);
                Some(self.piece(Part::End, &body))
            }
            Stage::Done => None,
        }
    }

    fn piece(&mut self, part: Part, body: &[u8]) -> Bytes {
        let mut piece = BytesMut::with_capacity(PIECE_HEADER_BYTES + body.len());
        piece.put_u32_le(0);
        piece.put_u32_le(MAGIC);
        piece.put_u64_le(self.group.0);
        piece.put_u64_le(self.entry.term.0);
        piece.put_u64_le(self.entry.index.0);
        piece.put_u32_le(self.number);
        piece.put_u32_le(part as u32);
        piece.put_slice(body);
        let crc = crc32fast::hash(&piece[4..]).to_le_bytes();
        piece[..4].copy_from_slice(&crc);
        self.crcs.update(&crc);
        self.number += 1;
        piece.freeze()
    }
}

/// A snapshot on its way in.
pub struct Incoming {
    group: GroupId,
    entry: EntryId,
    /// Pieces of meta so far.
    meta: VecDeque<Bytes>,
    meta_bytes: usize,
    /// Takes the chunks; none if the pieces are only to be checked.
    machine: Option<Box<dyn Restoring>>,
    /// There are no chunks: the machine holds its state itself.
    is_in_place: bool,
    /// The number of the next piece.
    next: u32,
    crcs: crc32fast::Hasher,
    /// The part of the last piece.
    part: Part,
}

impl Incoming {
    /// For a snapshot of `group` at `entry`, whose chunks `machine` takes.
    #[must_use]
    pub fn new(group: GroupId, entry: EntryId, machine: Box<dyn Restoring>) -> Self {
        Self { machine: Some(machine), ..Self::checking(group, entry) }
    }

    /// As [`Self::new`], but only to find out whether the snapshot is whole.
    #[must_use]
    pub fn checking(group: GroupId, entry: EntryId) -> Self {
        Self {
            group,
            entry,
            meta: VecDeque::new(),
            meta_bytes: 0,
            machine: None,
            is_in_place: false,
            next: 0,
            crcs: crc32fast::Hasher::new(),
            part: Part::Meta,
        }
    }

    /// Which snapshot this is: the last entry it holds.
    #[must_use]
    pub const fn entry(&self) -> EntryId {
        self.entry
    }

    /// The number of the next piece.
    #[must_use]
    pub const fn next(&self) -> u32 {
        self.next
    }

    /// It has no chunks, because the machine of the node that took it holds its state itself.
    #[must_use]
    pub const fn is_in_place(&self) -> bool {
        self.is_in_place
    }

    /// All pieces were taken.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.part == Part::End
    }

    /// Takes the next piece. It is kept as it is, without a copy, as long as it is needed.
    ///
    /// # Errors
    /// If it is not that. One that is [`PieceError::Damaged`], [`PieceError::Foreign`] or
    /// [`PieceError::OutOfOrder`] leaves everything as it was, and the right one may still come, except
    /// for an end that contradicts what came before it.
    pub fn take(&mut self, piece: &Bytes) -> Result<(), PieceError> {
        let header = PieceHeader::parse(piece)?;
        if (header.group, header.entry) != (self.group, self.entry) {
            return Err(PieceError::Foreign { group: header.group, entry: header.entry });
        }
        if header.number != self.next || self.is_whole() {
            return Err(PieceError::OutOfOrder { expected: self.next, found: header.number });
        }
        let body = piece.slice(PIECE_HEADER_BYTES..);
        match (self.part, header.part) {
            (Part::Meta, Part::Meta) => {
                if SNAPSHOT_META_BYTES_MAX < self.meta_bytes + body.len() {
                    return Err(PieceError::Damaged { what: "more meta than any replica has" });
                }
                self.meta_bytes += body.len();
                self.meta.push_back(body);
            }
            (_, Part::Meta) => {
                return Err(PieceError::Damaged { what: "meta after the machine" });
            }
            (_, _) if header.number == 0 => {
                return Err(PieceError::Damaged { what: "a snapshot without meta" });
            }
            (Part::Meta, Part::InPlace) => {
                self.machine = None;
                self.is_in_place = true;
            }
            (_, Part::InPlace) => {
                return Err(PieceError::Damaged { what: "chunks, and a machine that needs none" });
            }
            (Part::InPlace, Part::Machine) => {
                return Err(PieceError::Damaged { what: "chunks of a machine that needs none" });
            }
            (_, Part::Machine) => {
                if let Some(machine) = &mut self.machine {
                    machine.chunk(&body)?;
                }
            }
            (_, Part::End) => self.check_end(body)?,
        }
        self.part = header.part;
        self.crcs.update(&header.crc.to_le_bytes());
        self.next += 1;
        Ok(())
    }

    fn check_end(&self, mut body: Bytes) -> Result<(), PieceError> {
        if body.len() != END_BODY_BYTES {
            return Err(PieceError::Damaged { what: "an end of another length" });
        }
        let (count, zero) = (body.get_u32_le(), body.get_u32_le());
        let (crc, last) = (body.get_u32_le(), body.get_u32_le());
        if count != self.next || crc != self.crcs.clone().finalize() || zero != 0 || last != 0 {
            return Err(PieceError::Damaged { what: "its end belongs to other pieces" });
        }
        Ok(())
    }

    /// The snapshot, once it [is whole](Self::is_whole); without a machine if it was only checked, or [is in
    /// place](Self::is_in_place).
    ///
    /// # Errors
    /// If an end is missing, or meta or machine do not make sense.
    pub fn finish(self) -> Result<(SnapshotMeta, Option<Box<dyn StateMachine>>), PieceError> {
        if !self.is_whole() {
            return Err(PieceError::Damaged { what: "its end is missing" });
        }
        let mut bytes = BytesMut::with_capacity(self.meta_bytes);
        self.meta.iter().for_each(|part| bytes.put_slice(part));
        let meta = SnapshotMeta::decode(self.group, self.entry, bytes.freeze())
            .ok_or(PieceError::Damaged { what: "its meta is not readable" })?;
        let machine = self.machine.map(|machine| machine.finish()).transpose()?;
        Ok((meta, machine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::store::Wanted;
    use crate::store::map::Map;
    use crate::wire::resp::Command;

    const GROUP: GroupId = GroupId(7);
    const ENTRY: EntryId = EntryId { term: Term(3), index: Index(40) };

    fn set(machine: &mut dyn StateMachine, key: &str, value: &[u8]) {
        let command = Command::from_args(&[b"SET", key.as_bytes(), value]);
        machine.apply(Index(1), &command.raw, Wanted::No);
    }

    fn machine(keys: usize, value_bytes: usize) -> Map {
        let mut map = Map::new();
        (0..keys).for_each(|key| set(&mut map, &format!("key{key}"), &vec![b'v'; value_bytes]));
        map
    }

    fn machine_of(keys: usize) -> Map {
        machine(keys, 3)
    }

    fn meta() -> SnapshotMeta {
        SnapshotMeta::new(GROUP, ENTRY)
            .with_state(&GroupState::first(&[1, 2, 3].map(NodeId), &[]))
            .with_sessions(&sessions())
    }

    fn sessions() -> Sessions {
        let mut sessions = Sessions::new();
        assert!(sessions.open(crate::id::SessionId(5), Index(39)));
        sessions.ran(crate::id::SessionId(5), 2, crate::wire::reply::Reply::Int(7));
        sessions
    }

    fn pieces(machine: &Map) -> Vec<Bytes> {
        let mut outgoing = Outgoing::new(&meta(), machine.freeze());
        std::iter::from_fn(|| outgoing.next_piece()).collect()
    }

    fn incoming() -> Incoming {
        Incoming::new(GROUP, ENTRY, Map::new().restoring())
    }

    /// The first refusal, of a piece or of the whole.
    fn refusal<'a>(pieces: impl IntoIterator<Item = &'a Bytes>) -> Option<PieceError> {
        let mut incoming = incoming();
        for piece in pieces {
            if let Err(error) = incoming.take(piece) {
                return Some(error);
            }
        }
        incoming.finish().err()
    }

    #[test]
    fn a_snapshot_comes_back() {
        for (keys, value_bytes) in [(0, 0), (1, 3), (20, 60_000)] {
            let machine = machine(keys, value_bytes);
            let pieces = pieces(&machine);
            assert!(
                pieces.iter().all(|piece| piece.len() <= PIECE_HEADER_BYTES + SNAPSHOT_PIECE_BYTES)
            );
            let mut incoming = incoming();
            pieces.iter().for_each(|piece| incoming.take(piece).expect("in order"));
            assert!(incoming.is_whole());
            let (meta, back) = incoming.finish().expect("whole");
            assert_eq!(meta, self::meta());
            assert_eq!(meta.membership().map(|it| it.members().count()), Some(3));
            assert_eq!(meta.sessions(), Ok(sessions()));
            assert_eq!(back.map(|back| back.digest()), Some(machine.digest()));
        }
    }

    #[test]
    fn a_snapshot_in_place_has_no_chunks_and_makes_no_machine() {
        let mut outgoing = Outgoing::in_place(&meta());
        let in_place: Vec<Bytes> = std::iter::from_fn(|| outgoing.next_piece()).collect();
        assert!(outgoing.is_done() && in_place.len() == 3);
        let mut incoming = incoming();
        in_place.iter().for_each(|piece| incoming.take(piece).expect("in order"));
        assert!(incoming.is_whole() && incoming.is_in_place());
        let (meta, machine) = incoming.finish().expect("whole");
        assert_eq!(meta, self::meta());
        assert!(machine.is_none());

        // Both at once, in either order, is neither.
        let mut chunks = Outgoing::new(&self::meta(), machine_of(1).freeze());
        let whole: Vec<Bytes> = std::iter::from_fn(|| chunks.next_piece()).collect();
        let numbered = |piece: &Bytes, number: u32| {
            let mut piece = piece.to_vec();
            piece[32..36].copy_from_slice(&number.to_le_bytes());
            let crc = crc32fast::hash(&piece[4..]).to_le_bytes();
            piece[..4].copy_from_slice(&crc);
            Bytes::from(piece)
        };
        for (second, third) in [(&whole[1], &in_place[1]), (&in_place[1], &whole[1])] {
            let both = [whole[0].clone(), second.clone(), numbered(third, 2)];
            let found = refusal(&both);
            assert!(matches!(found, Some(PieceError::Damaged { .. })), "{found:?}");
        }
    }

    #[test]
    fn a_snapshot_is_of_the_moment_it_was_begun() {
        let mut machine = machine(20, 60_000);
        let digest = machine.digest();
        let mut outgoing = Outgoing::new(&meta(), machine.freeze());
        let mut incoming = incoming();
        let mut later = 0;
        while let Some(piece) = outgoing.next_piece() {
            incoming.take(&piece).expect("in order");
            later += 1;
            set(&mut machine, &format!("key{later}"), b"changed");
            set(&mut machine, &format!("later{later}"), b"new");
        }
        let (_, back) = incoming.finish().expect("whole");
        assert_eq!(back.map(|back| back.digest()), Some(digest));
        assert_ne!(machine.digest(), digest);
    }

    #[test]
    fn a_large_meta_spans_pieces() {
        let sessions = Bytes::from(vec![5; 3 * SNAPSHOT_PIECE_BYTES]);
        let meta = SnapshotMeta::new(GROUP, ENTRY).with(Section::Sessions, sessions);
        let mut outgoing = Outgoing::new(&meta, Map::new().freeze());
        let mut incoming = Incoming::checking(GROUP, ENTRY);
        while let Some(piece) = outgoing.next_piece() {
            incoming.take(&piece).expect("in order");
        }
        assert_eq!(incoming.next(), 5);
        assert_eq!(incoming.finish().map(|(meta, _)| meta), Ok(meta));
    }

    #[test]
    fn a_flipped_bit_in_any_piece_is_refused() {
        let pieces = pieces(&machine(3, 10));
        assert_eq!(refusal(&pieces), None);
        for (number, piece) in pieces.iter().enumerate() {
            for bit in 0..piece.len() * 8 {
                let mut flipped = piece.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let mut pieces = pieces.clone();
                pieces[number] = flipped.into();
                let refused = refusal(&pieces);
                assert!(
                    matches!(refused, Some(PieceError::Damaged { .. })),
                    "piece {number} bit {bit}: {refused:?}"
                );
            }
        }
    }

    #[test]
    fn pieces_are_taken_in_order_and_of_one_snapshot_only() {
        let pieces = pieces(&machine(20, 60_000));
        let last = pieces.len() - 1;
        let without = |number: usize| {
            let kept = pieces.iter().enumerate().filter(move |(at, _)| *at != number);
            kept.map(|(_, piece)| piece).collect::<Vec<_>>()
        };
        for number in 0..last {
            let (expected, found) = (number as u32, number as u32 + 1);
            let refused = refusal(without(number));
            assert_eq!(refused, Some(PieceError::OutOfOrder { expected, found }));
        }
        assert_eq!(
            refusal(without(last)),
            Some(PieceError::Damaged { what: "its end is missing" })
        );
        let twice = [&pieces[0], &pieces[0]];
        assert_eq!(refusal(twice), Some(PieceError::OutOfOrder { expected: 1, found: 0 }));
        let beyond = pieces.iter().chain([&pieces[0]]);
        assert!(matches!(refusal(beyond), Some(PieceError::OutOfOrder { .. })));

        for (group, entry) in [
            (GroupId(8), ENTRY),
            (GROUP, EntryId { index: Index(41), ..ENTRY }),
            (GROUP, EntryId { term: Term(4), ..ENTRY }),
        ] {
            let other = SnapshotMeta::new(group, entry);
            let piece = Outgoing::new(&other, Map::new().freeze()).next_piece().expect("meta");
            assert_eq!(refusal([&piece]), Some(PieceError::Foreign { group, entry }));
        }
    }

    #[test]
    fn an_end_closes_its_own_pieces_only() {
        let (one, other) = (pieces(&machine(3, 10)), pieces(&machine(3, 11)));
        let mixed = [&one[0], &one[1], &other[2]];
        let what = "its end belongs to other pieces";
        assert_eq!(refusal(mixed), Some(PieceError::Damaged { what }));
    }
}
