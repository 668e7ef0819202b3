//! Whether a frame that arrived whole may be believed.
//!
//! Structure is FlatBuffers' business, meaning is ours. After [`verify`] nothing about a frame needs
//! to be checked again: the iterators of [`super::peer`] read it in place.

use crate::entry::{EntryKind, SESSION_HEADER_BYTES, checksum};
use crate::id::GroupId;
use crate::limits::{
    APPEND_ENTRIES_MAX, COMMAND_BYTES_MAX, GROUPS_MAX, SNAPSHOT_PIECE_BYTES_MAX,
    SNAPSHOT_PIECES_MAX,
};
use crate::raft::message::MessageKind;

use super::error::FrameError;
use super::frame::{FrameHeader, HEADER_BYTES};
use super::generated::{
    AckTiming, AnswerHead, EntryHead, ForwardHead, PieceAck, PieceHead, RaftMessage, root_as_peer,
};
use super::piece::PieceStatus;

/// Terms and indices stay below this, so that no arithmetic on what a peer sent can overflow.
pub(super) const NUMBER_MAX: u64 = 1 << 62;
const _: () = assert!(NUMBER_MAX.is_power_of_two());

/// Where the vectors of structs lie in the frame: offset and bytes, from the frame's first byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sections {
    pub(super) messages: Span,
    pub(super) entries: Span,
    pub(super) forwards: Span,
    pub(super) answers: Span,
    pub(super) pieces: Span,
    pub(super) acks: Span,
    pub(super) timings: Span,
    /// Where the forwards' bodies begin, and with them end the entries'.
    pub(super) forward_payload: usize,
    /// Where the answers' bodies begin.
    pub(super) answer_payload: usize,
    /// Where the pieces' bytes begin.
    pub(super) piece_payload: usize,
}

/// A part of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    offset: usize,
    bytes: usize,
}

impl Span {
    fn of(frame: &[u8], part: &[u8]) -> Self {
        Self { offset: part.as_ptr().addr() - frame.as_ptr().addr(), bytes: part.len() }
    }

    pub(super) fn slice(self, frame: &[u8]) -> &[u8] {
        &frame[self.offset..self.offset + self.bytes]
    }
}

/// The structs of `N` bytes that stand back to back in a section.
pub(super) fn structs<const N: usize>(section: &[u8]) -> &[[u8; N]] {
    section.as_chunks::<N>().0
}

/// Judges the meta and the payload of a frame that is as long as its header says.
pub(super) fn verify(header: &FrameHeader, frame: &[u8]) -> Result<Sections, FrameError> {
    let payload_at = HEADER_BYTES + header.meta_bytes as usize;
    let meta = &frame[HEADER_BYTES..payload_at];
    let root = root_as_peer(meta).map_err(|e| FrameError::Meta { reason: e.to_string() })?;
    // An absent vector is an empty one.
    let span = |part: Option<&[u8]>| part.map_or(Span::default(), |part| Span::of(frame, part));
    let mut sections = Sections {
        messages: span(root.messages().map(|v| v.bytes())),
        entries: span(root.entries().map(|v| v.bytes())),
        forwards: span(root.forwards().map(|v| v.bytes())),
        answers: span(root.answers().map(|v| v.bytes())),
        pieces: span(root.pieces().map(|v| v.bytes())),
        acks: span(root.acks().map(|v| v.bytes())),
        timings: span(root.timings().map(|v| v.bytes())),
        ..Sections::default()
    };
    let entries = structs(sections.entries.slice(frame));
    let forwards = structs(sections.forwards.slice(frame));
    let answers = structs(sections.answers.slice(frame));
    let pieces = structs(sections.pieces.slice(frame));

    // Lengths first: everything after may slice without asking.
    let sum = |bytes: &mut dyn Iterator<Item = u32>| bytes.map(u64::from).sum::<u64>();
    let entry_bytes = sum(&mut entries.iter().map(|e| EntryHead(*e).bytes()));
    let forward_bytes = sum(&mut forwards.iter().map(|f| ForwardHead(*f).bytes()));
    let answer_bytes = sum(&mut answers.iter().map(|a| AnswerHead(*a).bytes()));
    let piece_bytes = sum(&mut pieces.iter().map(|p| PieceHead(*p).bytes()));
    let described = entry_bytes + forward_bytes + answer_bytes + piece_bytes;
    let present = u64::from(header.payload_bytes);
    if described != present {
        return Err(FrameError::PayloadBytes { described, present });
    }
    sections.forward_payload = payload_at + entry_bytes as usize;
    sections.answer_payload = sections.forward_payload + forward_bytes as usize;
    sections.piece_payload = sections.answer_payload + answer_bytes as usize;

    let mut payload = Payload { frame, at: payload_at };
    messages(structs(sections.messages.slice(frame)), entries, &mut payload)?;
    for (number, forward) in forwards.iter().enumerate() {
        let forward = ForwardHead(*forward);
        check_group(forward.group())?;
        if COMMAND_BYTES_MAX < forward.bytes() as usize {
            let (group, found) = (GroupId(forward.group()), forward.bytes().into());
            let what = "the length of a forwarded command, more than allowed,";
            return Err(FrameError::Part { group, what, found });
        }
        payload.next("forward", number, forward.id(), forward.bytes(), forward.crc())?;
    }
    for (number, answer) in answers.iter().enumerate() {
        let answer = AnswerHead(*answer);
        payload.next("answer", number, answer.id(), answer.bytes(), answer.crc())?;
    }
    for (number, piece) in pieces.iter().enumerate() {
        let piece = PieceHead(*piece);
        check_piece(&piece)?;
        payload.next("piece", number, piece.group(), piece.bytes(), piece.crc())?;
    }
    for ack in structs(sections.acks.slice(frame)) {
        check_ack(&PieceAck(*ack))?;
    }
    for timing in structs(sections.timings.slice(frame)) {
        check_timing(&AckTiming(*timing))?;
    }
    Ok(sections)
}

/// The messages, and each one's share of the entries.
fn messages(
    messages: &[[u8; 88]],
    entries: &[[u8; 12]],
    payload: &mut Payload<'_>,
) -> Result<(), FrameError> {
    let mut taken = 0;
    for message in messages {
        let message = RaftMessage(*message);
        check_message(&message)?;
        let group = message.group();
        // `count` is at most APPEND_ENTRIES_MAX and there are at most FRAME_BYTES_MAX / 88 messages.
        let end = taken + message.count() as usize;
        let Some(own) = entries.get(taken..end) else {
            return Err(entry_count(messages, entries));
        };
        for (number, entry) in (taken..).zip(own) {
            let entry = EntryHead(*entry);
            check_entry(group, &entry)?;
            payload.next("entry", number, group, entry.bytes(), entry.crc())?;
        }
        taken = end;
    }
    if taken != entries.len() {
        return Err(entry_count(messages, entries));
    }
    Ok(())
}

#[cold]
fn entry_count(messages: &[[u8; 88]], entries: &[[u8; 12]]) -> FrameError {
    let named = messages.iter().map(|m| u64::from(RaftMessage(*m).count())).sum();
    FrameError::EntryCount { named, described: entries.len() as u64 }
}

fn check_message(message: &RaftMessage) -> Result<(), FrameError> {
    check_group(message.group())?;
    let wrong =
        |what, found| Err(FrameError::Part { group: GroupId(message.group()), what, found });
    // A kind that only means something inside a node has no code, so none can come from outside
    // (contract row 12).
    let Some(kind) = MessageKind::from_code(message.kind()) else {
        return wrong("the message kind", message.kind().into());
    };
    check_ends(message.group(), message.from(), message.to())?;
    if 1 < message.reject() {
        return wrong("the reject flag (0 or 1)", message.reject().into());
    }
    let count = message.count();
    if count != 0 && kind != MessageKind::Append {
        return wrong("the entry count of a message that is no append", count.into());
    }
    if APPEND_ENTRIES_MAX < count {
        return wrong("the entry count of an append, more than allowed,", count.into());
    }
    // The bound is a power of two: if none has a bit from there on, all of them have none.
    let (entry_term, entry_index) = (message.entry_term(), message.entry_index());
    let bits = message.term() | entry_term | entry_index;
    if (bits | message.commit() | message.run_term() | message.hint()) < NUMBER_MAX {
        return Ok(());
    }
    let numbers = [
        ("the term, out of range,", message.term()),
        ("the term of the named entry, out of range,", entry_term),
        ("the index of the named entry, out of range,", entry_index),
        ("the commit index, out of range,", message.commit()),
        ("the run's term, out of range,", message.run_term()),
        ("the hint, out of range,", message.hint()),
    ];
    let out_of_range = numbers.into_iter().find(|(_, found)| NUMBER_MAX <= *found);
    out_of_range.map_or(Ok(()), |(what, found)| wrong(what, found))
}

fn check_piece(piece: &PieceHead) -> Result<(), FrameError> {
    check_group(piece.group())?;
    let wrong = |what, found| Err(FrameError::Part { group: GroupId(piece.group()), what, found });
    check_ends(piece.group(), piece.from(), piece.to())?;
    if !(1..=SNAPSHOT_PIECE_BYTES_MAX).contains(&(piece.bytes() as usize)) {
        return wrong("the length of a piece, none or more than allowed,", piece.bytes().into());
    }
    if SNAPSHOT_PIECES_MAX <= piece.number() {
        return wrong("the number of a piece, out of range,", piece.number().into());
    }
    if 1 < piece.last() {
        return wrong("the mark of the last piece (0 or 1)", piece.last().into());
    }
    check_snapshot(piece.group(), piece.term(), piece.snapshot_term(), piece.snapshot_index())
}

fn check_timing(timing: &AckTiming) -> Result<(), FrameError> {
    check_group(timing.group())?;
    if NUMBER_MAX <= timing.index() {
        let (group, found) = (GroupId(timing.group()), timing.index());
        return Err(FrameError::Part { group, what: "the index of a timing", found });
    }
    Ok(())
}

fn check_ack(ack: &PieceAck) -> Result<(), FrameError> {
    check_group(ack.group())?;
    let wrong = |what, found| Err(FrameError::Part { group: GroupId(ack.group()), what, found });
    check_ends(ack.group(), ack.from(), ack.to())?;
    if PieceStatus::from_code(ack.status()).is_none() {
        return wrong("the status of a snapshot", ack.status().into());
    }
    if SNAPSHOT_PIECES_MAX < ack.next() {
        return wrong("the piece that is wanted, out of range,", ack.next().into());
    }
    check_snapshot(ack.group(), ack.term(), ack.snapshot_term(), ack.snapshot_index())
}

/// Both replicas are somebody.
fn check_ends(group: u64, from: u64, to: u64) -> Result<(), FrameError> {
    for (what, found) in
        [("the sending replica (nobody)", from), ("the receiving replica (nobody)", to)]
    {
        if found == 0 {
            return Err(FrameError::Part { group: GroupId(group), what, found });
        }
    }
    Ok(())
}

fn check_snapshot(group: u64, term: u64, of_term: u64, index: u64) -> Result<(), FrameError> {
    for (what, found) in [
        ("the term, out of range,", term),
        ("the term of the snapshot, out of range,", of_term),
        ("the index of the snapshot, out of range,", index),
    ] {
        if NUMBER_MAX <= found {
            return Err(FrameError::Part { group: GroupId(group), what, found });
        }
    }
    Ok(())
}

fn check_group(group: u64) -> Result<(), FrameError> {
    if group < GROUPS_MAX {
        return Ok(());
    }
    Err(FrameError::Part { group: GroupId(group), what: "the group, out of range,", found: group })
}

fn check_entry(group: u64, entry: &EntryHead) -> Result<(), FrameError> {
    let wrong = |what, found| Err(FrameError::Part { group: GroupId(group), what, found });
    let bytes = entry.bytes();
    match EntryKind::from_code(entry.kind()) {
        None => wrong("the kind of an entry", entry.kind().into()),
        Some(EntryKind::Empty) if bytes != 0 => wrong("the length of an empty entry", bytes.into()),
        Some(_) if COMMAND_BYTES_MAX < bytes as usize => {
            wrong("the length of an entry, more than allowed,", bytes.into())
        }
        Some(EntryKind::Session) if (bytes as usize) < SESSION_HEADER_BYTES => {
            wrong("the length of a session's entry, less than its header,", bytes.into())
        }
        Some(EntryKind::Empty | EntryKind::Command | EntryKind::Config | EntryKind::Session) => {
            Ok(())
        }
    }
}

/// Walks the payload, part by part.
struct Payload<'a> {
    frame: &'a [u8],
    at: usize,
}

impl Payload<'_> {
    /// The next `bytes` bytes against their checksum. The lengths have been summed before.
    fn next(
        &mut self,
        part: &'static str,
        number: usize,
        of: u64,
        bytes: u32,
        found: u32,
    ) -> Result<(), FrameError> {
        let end = self.at + bytes as usize;
        let expected = checksum(&self.frame[self.at..end]);
        self.at = end;
        if expected == found {
            return Ok(());
        }
        Err(FrameError::PayloadDamaged { part, number, of, expected, found })
    }
}
