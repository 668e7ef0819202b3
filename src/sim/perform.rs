//! Effects become happenings; frames become bytes and frames again.

use bytes::Bytes;

use crate::entry::checksum;
use crate::id::{FlushTicket, Incarnation, NodeId, SegmentSeq};
use crate::limits::{self, BLOCK_BYTES};
use crate::planted::{Planted, planted};
use crate::shard::event::{Effects, Event, LogRead, LogReadDone, Post, ReplyTo};
use crate::wal::{self, Write};
use crate::wire::{Expect, Frame, FrameError, FrameReader, OutFrame};

use super::crash_points::{CrashPoint, is_snapshot};
use super::disk::{Left, trimmed};
use super::net::{Fate, Path, happens};
use super::safety::Checked;
use super::world::{Flight, ForNode, Happening, World};

/// The effects of one turn, one by one: a crash may fall between any two.
#[derive(Debug)]
pub(super) enum Effect {
    Write(Write),
    Frame(NodeId, OutFrame),
    Post(usize, Post),
    Reply(ReplyTo),
    LogRead(LogRead),
    Spare(SegmentSeq),
    Reclaim(SegmentSeq),
}

impl World {
    /// Does what the last turn of a core asked for, or the first part of it.
    pub(super) fn perform(&mut self, node: usize, core: usize) -> Checked {
        let mut effects = std::mem::take(&mut self.nodes[node].cores[core].effects);
        if let Some((group, why)) = effects.failed.first() {
            return Err(format!("node {node} group {group} stopped itself: {why}"));
        }
        for (group, role) in effects.roles.drain(..) {
            let words = [5, node as u64, group.0, role.role as u64, role.term.0, role.leader.0];
            self.note(&words, || {
                let at = format!("node {node} group {group}");
                format!("{at} is {:?} in term {}, leader {}", role.role, role.term, role.leader)
            });
        }
        let mut todo = std::mem::take(&mut self.todo);
        self.line_up(&mut effects, &mut todo);
        self.nodes[node].cores[core].effects = effects;
        let crashes = self.is_chaos
            && !todo.is_empty()
            && happens(&mut self.rng, self.options.nodes.crash_in_turn)
            && self.strikes(|| format!("node {node} loses power between two effects"));
        let count = if crashes { self.rng.usize(..todo.len()) } else { todo.len() };
        let is_something = !todo.is_empty();
        for effect in todo.drain(..).take(count) {
            let point = match &effect {
                Effect::Frame(..) => Some(self.send_point(node, core)),
                Effect::Write(write) if is_snapshot(write) => Some(CrashPoint::BeforeSaveSnap),
                Effect::Write(_) => Some(CrashPoint::BeforeSave),
                _ => None,
            };
            if point.is_some_and(|point| self.dies_at(point)) {
                return self.crash(node);
            }
            self.perform_one(node, core, effect);
        }
        self.todo = todo;
        if !crashes && is_something && self.dies_at(CrashPoint::BeforeAdvance) {
            return self.crash(node);
        }
        if crashes {
            self.outcome.faults.crashes_in_turn += 1;
            return self.crash(node);
        }
        Ok(())
    }

    /// Lines effects up: nothing orders the kinds among each other, so a coin says what goes first.
    fn line_up(&mut self, effects: &mut Effects, todo: &mut Vec<Effect>) {
        let disk_first = self.rng.bool();
        let writes = effects.writes.drain(..).map(Effect::Write);
        if disk_first {
            todo.extend(writes);
            todo.extend(effects.frames.drain(..).map(|(to, frame)| Effect::Frame(to, frame)));
        } else {
            todo.extend(effects.frames.drain(..).map(|(to, frame)| Effect::Frame(to, frame)));
            todo.extend(writes);
        }
        todo.extend(effects.replies.drain(..).map(Effect::Reply));
        let posts = effects.posts.drain(..);
        todo.extend(posts.map(|(shard, post)| Effect::Post(usize::from(shard.0), post)));
        todo.extend(effects.log_reads.drain(..).map(Effect::LogRead));
        todo.extend(effects.spare.take().map(Effect::Spare));
        todo.extend(effects.reclaim.take().map(Effect::Reclaim));
    }

    fn perform_one(&mut self, node: usize, core: usize, effect: Effect) {
        match effect {
            Effect::Write(write) => {
                self.write(node, core, &write);
                self.nodes[node].cores[core].shard.reuse_write(write);
            }
            Effect::Frame(to, frame) => {
                self.send(node, core, to.0 as usize - 1, &frame);
                self.nodes[node].cores[core].shard.reuse_frame(frame);
            }
            Effect::Post(_, post)
                if self.is_chaos
                    && post.may_be_refused()
                    && happens(&mut self.rng, self.options.nodes.mailbox_full) =>
            {
                self.outcome.faults.mailboxes_full += 1;
                self.note(&[22, node as u64, core as u64], || {
                    format!("node {node} core {core} finds a full mailbox for {post:?}")
                });
                self.after_for(0, node, ForNode::Undelivered { core, post });
            }
            Effect::Post(to, post) => {
                if let Some((call, reply)) = Self::answers_embedded(&post) {
                    let delay = self.rng.u64(50..500);
                    return self.after(delay, Happening::Reply { call, reply });
                }
                let delay = self.rng.u64(1..30);
                self.note(&[6, node as u64, core as u64, to as u64], || {
                    format!("node {node} core {core} posts to core {to}: {post:?}")
                });
                self.after_for(delay, node, ForNode::Post { core: to, post });
            }
            Effect::Reply(ReplyTo { conn, reply, .. }) => {
                let delay = self.rng.u64(50..500);
                self.after(delay, Happening::Reply { call: conn.0, reply });
            }
            Effect::LogRead(read) => {
                self.outcome.log_reads += 1;
                let delay = self.rng.u64(50..2_000);
                self.note(&[7, node as u64, read.group.0, read.first.0, read.last.0], || {
                    format!("node {node} reads its log: {read:?}")
                });
                let fails = self.is_chaos
                    && happens(&mut self.rng, self.options.disk.read_error)
                    && self.strikes(|| format!("node {node} cannot read {:?}", read.at));
                if fails {
                    self.outcome.faults.read_errors += 1;
                    return self.after_for(delay, node, ForNode::ReadFailed);
                }
                self.after_for(delay, node, ForNode::LogRead { core, read });
            }
            Effect::Reclaim(first) => {
                let delay = self.rng.u64(1..=self.options.disk.spare_us);
                self.after_for(delay, node, ForNode::Reclaim { core, first });
            }
            Effect::Spare(segment) => {
                self.nodes[node].disks[core].want(segment);
                let delay = self.rng.u64(1..=self.options.disk.spare_us);
                self.after_for(delay, node, ForNode::Spare { core, segment });
            }
        }
    }

    fn write(&mut self, node: usize, core: usize, write: &Write) {
        self.outcome.writes += 1;
        if is_snapshot(write) {
            let life = self.nodes[node].life;
            self.snapshot_writes.insert((node, life, core, write.ticket));
        }
        let mut data = std::mem::take(&mut self.encoded);
        write.encode_unpadded(&mut data);
        let hash = checksum(trimmed(&data)).into();
        let (ticket, segment, offset) = (write.ticket, write.segment, write.offset);
        let words = [8, node as u64, core as u64, ticket.0, segment.0, offset, hash];
        self.note(&words, || {
            let bytes = write.bytes;
            format!("node {node} core {core} writes {bytes} at {segment}+{offset}, ticket {ticket}")
        });
        if planted(Planted::HalfBatchOnFullDisk) && self.nodes[node].disk_full {
            data.truncate(write.bytes / BLOCK_BYTES / 2 * BLOCK_BYTES);
        }
        self.nodes[node].disks[core].start(ticket, segment, offset, &data);
        self.encoded = data;
        if let Some(left) = self.write_error(node, core, ticket) {
            let delay = self.rng.u64(..20_000);
            return self.after_for(delay, node, ForNode::WriteFailed { core, ticket, left });
        }
        let options = &self.options.disk;
        let mut delay = options.flush_us + self.rng.u64(..=options.jitter_us);
        if self.now < self.nodes[node].slow_until[core] {
            delay *= 20;
        }
        let stall_us = self.rng.u64(..=options.stall_us);
        if happens(&mut self.rng, options.stall)
            && self.strikes(|| format!("a flush of node {node} core {core} stalls"))
        {
            self.outcome.faults.stalls += 1;
            delay += stall_us;
        }
        let is_first = planted(Planted::FlushSkippedOnRotation) && offset == 0;
        if is_first {
            // It arrives when the cache is written back.
            delay += 1_000_000;
        }
        if is_first || planted(Planted::AckBeforeFlush) {
            self.after_for(0, node, ForNode::Flushed { core, ticket, early: true });
        }
        self.after_for(delay, node, ForNode::Flushed { core, ticket, early: false });
    }

    /// Whether a write fails, and what is left of it then.
    fn write_error(&mut self, node: usize, core: usize, ticket: FlushTicket) -> Option<Left> {
        if !self.is_chaos {
            return None;
        }
        let what = |what: &str, how: &str| format!("a {what} of node {node} core {core} {how}");
        let (error, short, sync) = {
            let disk = &self.options.disk;
            (disk.error, disk.short_write, disk.sync_error)
        };
        if happens(&mut self.rng, error) && self.strikes(|| what("write", "fails")) {
            self.outcome.faults.write_errors += 1;
            return Some(Left::Nothing);
        }
        if happens(&mut self.rng, short) && self.strikes(|| what("write", "is short")) {
            self.outcome.faults.short_writes += 1;
            let sectors = self.nodes[node].disks[core].sectors(ticket);
            return Some(Left::Sectors(self.rng.usize(..sectors.max(1))));
        }
        if happens(&mut self.rng, sync) && self.strikes(|| what("flush", "fails")) {
            self.outcome.faults.sync_errors += 1;
            return Some(if self.rng.bool() { Left::All } else { Left::Nothing });
        }
        None
    }

    fn send(&mut self, node: usize, core: usize, to: usize, frame: &OutFrame) {
        self.outcome.frames += 1;
        let bytes = frame.to_bytes();
        let path = Path { from: node, core: core as u16, to, lane: frame.lane as u8 };
        let mut fate = self.net.send(path, self.now, true, &mut self.rng);
        if fate == Fate::Breaks
            && !self.strikes(|| format!("the link between {node} and {to} breaks"))
        {
            fate = self.net.carry(path, self.now, true, &mut self.rng);
        }
        if let Fate::Arrives { corrupt, .. } = &mut fate
            && *corrupt
        {
            *corrupt = self.strikes(|| format!("a frame from {node} to {to} is corrupt"));
        }
        let hash = checksum(&bytes).into();
        let words = [9, node as u64, core as u64, to as u64, frame.lane as u64, hash];
        self.note(&words, || {
            let lane = frame.lane;
            let told = told(&bytes);
            format!("node {node} core {core} -> node {to} {lane:?} {told} {fate:?}")
        });
        match fate {
            Fate::Lost => self.outcome.faults.frames_lost += 1,
            Fate::Breaks => {
                self.outcome.faults.links_broken += 1;
                self.net.break_link(node, to);
                self.on_link_broken(node, to);
            }
            Fate::Arrives { at, again, corrupt } => {
                let flight = Flight {
                    path,
                    from_life: self.nodes[node].life,
                    to_life: self.nodes[to].life,
                    generation: self.net.generation(node, to),
                    corrupt,
                    again,
                    bytes,
                };
                self.after(at - self.now, Happening::Frame(flight));
            }
        }
    }

    /// Both ends hear that their link is gone.
    pub(super) fn on_link_broken(&mut self, a: usize, b: usize) {
        for (node, of) in [(a, b), (b, a)] {
            if self.nodes[node].is_up() {
                let (delay, of) = (self.rng.u64(100..5_000), self.nodes[of].id);
                self.after_for(delay, node, ForNode::Unreachable { of });
            }
        }
    }

    pub(super) fn on_frame(&mut self, mut flight: Flight) -> Checked {
        let Path { from, core, to, .. } = flight.path;
        if !self.nodes[to].lives(flight.to_life)
            || flight.generation != self.net.generation(from, to)
            || self.net.is_cut(from, to)
        {
            self.outcome.faults.frames_lost += 1;
            return self.deliver_stale(&flight);
        }
        let flip = flight.corrupt.then(|| (self.rng.usize(..flight.bytes.len()), self.rng.u8(1..)));
        let bytes = match flight.again {
            Some(_) => flight.bytes.clone(),
            None => std::mem::take(&mut flight.bytes),
        };
        let decoded = self.link(&flight).receive(bytes, flip);
        let frame = match (decoded, flip) {
            (Ok(Some(frame)), None) => frame,
            (Ok(Some(_)), Some((at, bits))) => {
                return Err(format!("byte {at} of a frame was flipped by {bits:#x}, unseen"));
            }
            (Ok(None), None) => return Err("a whole frame was taken for a part of one".into()),
            (Err(error), None) => return Err(format!("an intact frame was refused: {error}")),
            // The stream is no longer understood: the receiver hangs up.
            (Ok(None) | Err(_), Some(_)) => {
                self.outcome.faults.frames_corrupted += 1;
                self.note(&[10, from as u64, to as u64], || {
                    format!("node {to} refuses a corrupt frame from node {from}")
                });
                self.net.break_link(from, to);
                self.on_link_broken(from, to);
                return Ok(());
            }
        };
        for (group, message, _) in frame.messages() {
            self.safety.on_heard(group, &message)?;
        }
        self.audit(&flight, &frame)?;
        if let Some(again) = flight.again
            && frame.forwards().next().is_none()
            && frame.answers().next().is_none()
        {
            self.outcome.faults.frames_repeated += 1;
            let delay = again.saturating_sub(self.now);
            self.after(delay, Happening::Frame(Flight { again: None, ..flight }));
        }
        let core = self.landing(to, core);
        self.deliver(to, core, Event::Frame(frame));
        Ok(())
    }

    /// Bytes of an earlier life of the sender reach its new connection, as over a path that was half
    /// open: they must not be understood.
    fn deliver_stale(&mut self, flight: &Flight) -> Checked {
        let Path { from, to, .. } = flight.path;
        if !self.is_chaos
            || !self.nodes[to].is_up()
            || !self.nodes[from].is_up()
            || self.nodes[from].life == flight.from_life
            || self.net.is_cut(from, to)
            || !happens(&mut self.rng, self.options.net.stale)
            || !self.strikes(|| format!("bytes of an earlier life of {from} reach {to}"))
        {
            return Ok(());
        }
        self.outcome.faults.frames_stale += 1;
        let now = Flight {
            from_life: self.nodes[from].life,
            to_life: self.nodes[to].life,
            generation: self.net.generation(from, to),
            bytes: flight.bytes.clone(),
            ..*flight
        };
        if let Ok(frame) = self.link(&now).receive(now.bytes.clone(), None) {
            return Err(format!(
                "node {to} takes bytes of an earlier life of node {from}: {frame:?}"
            ));
        }
        self.net.break_link(from, to);
        self.on_link_broken(from, to);
        Ok(())
    }

    /// The connection a frame came over; a new one if the last of its path is gone.
    fn link(&mut self, flight: &Flight) -> &mut Link {
        let name = (flight.from_life, flight.to_life, flight.generation);
        let expect = Expect {
            cluster: super::power::CLUSTER,
            from: self.nodes[flight.path.from].id,
            to: self.nodes[flight.path.to].id,
            incarnation: Incarnation(flight.from_life),
        };
        let open = || {
            let mut reader = FrameReader::new();
            reader.expect(expect);
            Link { name, reader }
        };
        let link = self.links.entry(flight.path).or_insert_with(open);
        if link.name != name {
            *link = open();
        }
        link
    }

    pub(super) fn log_read(&mut self, node: usize, core: usize, read: LogRead) -> Checked {
        let until = read.at.offset + (limits::LOG_READ_BYTES_MAX + limits::BATCH_BYTES_SOFT) as u64;
        let disk = &self.nodes[node].disks[core];
        if disk.unreadable(read.at.segment, read.at.offset..until).is_some() {
            let result = Err(wal::Damage::unreadable(read.at));
            self.deliver(node, core, Event::LogRead(LogReadDone { read, result }));
            return Ok(());
        }
        let bytes = self.nodes[node].disks[core].look(read.at.segment);
        let mut result = read.entries(&bytes);
        if let Some(askew) = self.look_back(node, core, &read) {
            let shown = read.entries(&askew);
            if let (Ok(shown), Ok(known)) = (&shown, &result)
                && !known.starts_with(shown)
            {
                return Err(format!(
                    "misread unseen: node {node} core {core} takes {shown:?} for {known:?}"
                ));
            }
            result = shown;
        } else if let Some(foreign) = self.mix_up_back(node, core, &read) {
            result = read.entries(&foreign);
            if let Ok(entries) = &result {
                return Err(format!(
                    "damage unseen: node {node} core {core} takes {entries:?} from another log, for {read:?}"
                ));
            }
        }
        self.deliver(node, core, Event::LogRead(LogReadDone { read, result }));
        Ok(())
    }
}

/// The receiving end of one connection.
#[derive(Debug)]
pub(super) struct Link {
    /// Which connection of its path: the sender's life, the receiver's, the breaks before it.
    name: (u64, u64, u64),
    reader: FrameReader,
}

impl Link {
    /// A frame from the bytes of one, with one byte changed or none.
    fn receive(
        &mut self,
        bytes: Bytes,
        flip: Option<(usize, u8)>,
    ) -> Result<Option<Frame>, FrameError> {
        match flip {
            None => self.reader.feed_owned(bytes),
            Some((at, bits)) => {
                self.reader.feed(&bytes[..at]);
                self.reader.feed(&[bytes[at] ^ bits]);
                self.reader.feed(&bytes[at + 1..]);
            }
        }
        self.reader.next()
    }
}

/// What a frame says, for the story.
fn told(bytes: &Bytes) -> String {
    use std::fmt::Write as _;
    let mut reader = FrameReader::new();
    reader.feed(bytes);
    let Ok(Some(frame)) = reader.next() else { return "an unreadable frame".into() };
    let mut text = String::new();
    for (group, it, _) in frame.messages() {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[group {group} {:?} term {} entry {} commit {}",
            it.kind, it.term, it.entry, it.commit
        );
        if it.count > 0 {
            let _ = write!(text, " +{} of term {}", it.count, it.run_term);
        }
        if it.reject {
            let _ = write!(text, " rejected, hint {}", it.hint);
        }
        if it.context > 0 {
            let _ = write!(text, " context {}", it.context);
        }
        text.push_str("] ");
    }
    for forward in frame.forwards() {
        let _ = write!(text, "[forward {:x} group {}] ", forward.id, forward.group);
    }
    for it in frame.pieces() {
        let last = if it.last { ", the last" } else { "" };
        let (group, snapshot, number) = (it.group, it.snapshot, it.number);
        let _ = write!(
            text,
            "[group {group} piece {number}{last} of {snapshot} in transfer {:x} term {}] ",
            it.transfer, it.term
        );
    }
    for it in frame.acks() {
        let (group, snapshot, next) = (it.group, it.snapshot, it.next);
        let _ = write!(
            text,
            "[group {group} {:?} next {next} of {snapshot} in transfer {:x}] ",
            it.status, it.transfer
        );
    }
    for answer in frame.answers() {
        let _ = write!(text, "[answer {:x}] ", answer.id);
    }
    text
}
