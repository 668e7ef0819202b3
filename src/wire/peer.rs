//! What arrives from a peer: raft messages of many groups, forwarded commands, answers, pieces of
//! snapshots.
//!
//! A [`Frame`] keeps the bytes it came in and reads them in place. Payloads come out as counted
//! slices of the receive buffer, so whoever keeps one keeps the buffer (about 64 KiB, shared by all
//! that arrived in it) in memory with it.

use std::fmt;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind, checksum};
use crate::id::{EntryId, GroupId, Index, ReplicaId, Term};
use crate::raft::message::{Message, MessageKind};

use super::error::FrameError;
use super::frame::{Content, FrameHeader, HEADER_BYTES};
use super::generated::{
    AckTiming as TimingHead, AnswerHead, EntryHead, ForwardHead, PieceAck, PieceHead, RaftMessage,
};
use super::hello;
use super::piece::{SnapshotAck, SnapshotPiece};
use super::verify::{Sections, structs, verify};

pub use super::compose::{FrameBuilder, OutFrame};

/// A client's command on its way to the node that leads its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The sender's name for it; the answer repeats it.
    pub id: u64,
    /// The group that holds the keys.
    pub group: GroupId,
    /// The shard's business; carried as it is.
    pub flags: u8,
    /// The command's bytes.
    pub body: Bytes,
}

/// What became of a forwarded command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which forward.
    pub id: u64,
    /// The reply, encoded as RESP3.
    pub body: Bytes,
}

/// How long an append took at the follower whose acceptance is in the same frame: durations, in µs, on its own
/// clock. An acceptance of several appends has two, of the oldest and of the newest, in this order. The receiver takes them off what it measured itself, and what is left is the network's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AckTiming {
    /// Its group.
    pub group: GroupId,
    /// The last entry of the append; of the newest, the one that the acceptance names.
    pub index: Index,
    /// From the receipt of its bytes until the core took it up.
    pub pick_up: u32,
    /// From there until it was in a write of the log.
    pub flush_wait: u32,
    /// From there until that write was durable.
    pub flush: u32,
    /// From there until the acceptance was composed.
    pub ack: u32,
}

/// A frame whose checksums, structure and meaning have been checked.
#[derive(Clone)]
pub struct Frame {
    /// Where it comes from, and how long its parts are.
    pub header: FrameHeader,
    /// All of it, header included.
    bytes: Bytes,
    sections: Sections,
}

impl Frame {
    /// Checks a frame that is as long as its header says.
    pub(super) fn decode(header: FrameHeader, bytes: Bytes) -> Result<Self, FrameError> {
        assert_eq!(bytes.len(), header.frame_bytes(), "the reader cuts frames by their header");
        let meta = &bytes[HEADER_BYTES..HEADER_BYTES + header.meta_bytes as usize];
        // The verifier accepts most flipped bytes, so the checksum speaks first.
        let (found, expected) = (header.meta_crc, checksum(meta));
        if found != expected {
            return Err(FrameError::MetaDamaged { expected, found });
        }
        let sections = match header.content {
            Content::Peer => verify(&header, &bytes)?,
            Content::Hello => {
                hello::check_frame(&header)?;
                Sections::default()
            }
        };
        Ok(Self { header, bytes, sections })
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The raft messages, in the order they were composed.
    #[must_use]
    pub fn messages(&self) -> Messages<'_> {
        Messages {
            frame: &self.bytes,
            messages: structs(self.sections.messages.slice(&self.bytes)).iter(),
            entries: structs(self.sections.entries.slice(&self.bytes)),
            payload: HEADER_BYTES + self.header.meta_bytes as usize,
        }
    }

    /// The forwarded commands, in the order they were composed.
    pub fn forwards(&self) -> impl Iterator<Item = Forward> {
        let mut at = self.sections.forward_payload;
        structs(self.sections.forwards.slice(&self.bytes)).iter().map(move |head| {
            let head = ForwardHead(*head);
            let end = at + head.bytes() as usize;
            let body = self.bytes.slice(at..end);
            at = end;
            Forward { id: head.id(), group: GroupId(head.group()), flags: head.flags(), body }
        })
    }

    /// The answers, in the order they were composed.
    pub fn answers(&self) -> impl Iterator<Item = Answer> {
        let mut at = self.sections.answer_payload;
        structs(self.sections.answers.slice(&self.bytes)).iter().map(move |head| {
            let head = AnswerHead(*head);
            let end = at + head.bytes() as usize;
            let body = self.bytes.slice(at..end);
            at = end;
            Answer { id: head.id(), body }
        })
    }

    /// The pieces of snapshots, in the order they were composed.
    pub fn pieces(&self) -> impl Iterator<Item = SnapshotPiece> {
        let mut at = self.sections.piece_payload;
        structs(self.sections.pieces.slice(&self.bytes)).iter().map(move |head| {
            let head = PieceHead(*head);
            let end = at + head.bytes() as usize;
            let bytes = self.bytes.slice(at..end);
            at = end;
            SnapshotPiece::of(&head, bytes)
        })
    }

    /// How far snapshots have come, in the order it was composed.
    pub fn acks(&self) -> impl Iterator<Item = SnapshotAck> {
        let acks = structs(self.sections.acks.slice(&self.bytes)).iter();
        acks.map(|head| SnapshotAck::of(&PieceAck(*head)))
    }

    /// How long accepted appends took at the sender, in the order it was composed.
    pub fn timings(&self) -> impl Iterator<Item = AckTiming> {
        let timings = structs(self.sections.timings.slice(&self.bytes)).iter();
        timings.map(|head| {
            let head = TimingHead(*head);
            AckTiming {
                group: GroupId(head.group()),
                index: Index(head.index()),
                pick_up: head.pick_up(),
                flush_wait: head.flush_wait(),
                flush: head.flush(),
                ack: head.ack(),
            }
        })
    }

    /// The bytes between header and payload.
    pub(super) fn meta(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..HEADER_BYTES + self.header.meta_bytes as usize]
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("header", &self.header).finish_non_exhaustive()
    }
}

/// The messages of a frame, each with its group and its entries.
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    frame: &'a Bytes,
    messages: std::slice::Iter<'a, [u8; 88]>,
    /// Entries of the messages still to come, and where their payloads begin.
    entries: &'a [[u8; 12]],
    payload: usize,
}

impl<'a> Iterator for Messages<'a> {
    type Item = (GroupId, Message, EntryIter<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let head = RaftMessage(*self.messages.next()?);
        let (own, rest) = self.entries.split_at(head.count() as usize);
        let entries = EntryIter { frame: self.frame, heads: own.iter(), payload: self.payload };
        self.payload += own.iter().map(|e| EntryHead(*e).bytes() as usize).sum::<usize>();
        self.entries = rest;
        Some((GroupId(head.group()), message(&head), entries))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.messages.size_hint()
    }
}

impl ExactSizeIterator for Messages<'_> {}

/// The entries one append carries. Their bytes have been checked against their checksums.
#[derive(Debug, Clone)]
pub struct EntryIter<'a> {
    frame: &'a Bytes,
    heads: std::slice::Iter<'a, [u8; 12]>,
    payload: usize,
}

impl Iterator for EntryIter<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let head = EntryHead(*self.heads.next()?);
        let end = self.payload + head.bytes() as usize;
        // An empty slice would still hold the receive buffer.
        let payload =
            if end == self.payload { Bytes::new() } else { self.frame.slice(self.payload..end) };
        self.payload = end;
        let kind = EntryKind::from_code(head.kind()).expect("verify() knows the kind");
        Some(Entry { kind, crc: head.crc(), payload })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.heads.size_hint()
    }
}

impl ExactSizeIterator for EntryIter<'_> {}

fn message(head: &RaftMessage) -> Message {
    Message {
        kind: MessageKind::from_code(head.kind()).expect("verify() knows the kind"),
        from: ReplicaId(head.from()),
        to: ReplicaId(head.to()),
        term: Term(head.term()),
        entry: EntryId { term: Term(head.entry_term()), index: Index(head.entry_index()) },
        commit: Index(head.commit()),
        run_term: Term(head.run_term()),
        count: head.count(),
        reject: head.reject() == 1,
        hint: Index(head.hint()),
        context: head.context(),
    }
}
