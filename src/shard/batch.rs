//! Many groups' entries → one write, one flush; and the flushes acted on in order.
//!
//! ```text
//! staged groups ──gather──► Batch ──place──► Write(ticket) ──driver──► Flushed(ticket)
//!                                                │                         │
//!                              in flight: ticket, what it completes ◄──────┘
//!                                                │ front complete?
//!                                                ▼
//!                             (group, seq) … → Replica::on_durable
//! ```

use std::collections::VecDeque;

use crate::group::{Replica, Written};
use crate::id::{FlushTicket, SegmentSeq};
use crate::limits;
use crate::planted::{Planted, planted};
use crate::wal::{Appender, Batch, LogIndex, Room, Run, RunKind, Write};

use super::report::Counters;

/// A write that is not durable yet, or waits for one before it.
#[derive(Debug)]
struct InFlight {
    ticket: FlushTicket,
    durable: bool,
    /// What its durability completes, by slot.
    completes: Vec<(u32, Written)>,
}

/// What has been said in the log, and is to be said again in a later batch: damage that takes one batch then leaves
/// known whose runs it took, and what they promised. It goes into room that would be zeroes.
#[derive(Debug)]
struct Said {
    /// Slots that have said something new, once; the oldest first.
    once: VecDeque<u32>,
    /// Of each slot, the last batch in which it said something, and whether it is in `once`.
    slots: Vec<(u64, bool)>,
    /// Counts batches.
    batch: u64,
    /// The next slot to be asked though it has been silent.
    silent: usize,
}

impl Said {
    fn new(slots: usize) -> Self {
        Self { once: VecDeque::new(), slots: vec![(0, false); slots], batch: 0, silent: 0 }
    }

    /// Fills the rest of the last block of `batch`, which is complete but for that, and remembers what is new in it. Of the
    /// silent ones only `silent_max` have a turn.
    fn say_again(
        &mut self,
        batch: &mut Batch,
        replicas: &[Replica],
        cores: u16,
        silent_max: usize,
    ) {
        self.batch += 1;
        let new = batch.runs().len();
        let slot_of = |run: &Run| (run.group.0 / u64::from(cores)) as usize;
        for run in batch.runs() {
            self.slots[slot_of(run)].0 = self.batch;
        }
        let mut room = batch.bytes().next_multiple_of(limits::BLOCK_BYTES) - batch.bytes();
        let end = new + limits::SAID_AGAIN_MAX.max(silent_max);
        // Whether there is room for more.
        let mut say = |slot: usize, batch: &mut Batch| {
            let Some(run) = replicas[slot].said_again() else { return true };
            let bytes = run.bytes();
            let fits = bytes <= room && batch.runs().len() < end;
            if fits {
                room -= bytes;
                batch.push(run);
            }
            fits
        };
        while let Some(&slot) = self.once.front() {
            let (last, is_once) = &mut self.slots[slot as usize];
            if *last != self.batch && !say(slot as usize, batch) {
                break;
            }
            *is_once = false;
            self.once.pop_front();
        }
        for _ in 0..silent_max.min(self.slots.len()) {
            let (last, is_once) = self.slots[self.silent];
            if last != self.batch && !is_once && !say(self.silent, batch) {
                break;
            }
            self.silent = (self.silent + 1) % self.slots.len();
        }
        for run in &batch.runs()[..new] {
            let slot = slot_of(run);
            if !std::mem::replace(&mut self.slots[slot].1, true) {
                self.once.push_back(slot as u32);
            }
        }
    }
}

/// A batch that waits for its place.
struct Gathered {
    batch: Batch,
    completes: Vec<(u32, Written)>,
}

/// The log of one shard, as its pure part sees it.
pub(super) struct Log {
    appender: Appender,
    index: LogIndex,
    cores: u16,
    flushes_max: usize,
    joins_bytes: usize,
    /// A batch that found no room yet; it goes first.
    waiting: Option<Gathered>,
    in_flight: VecDeque<InFlight>,
    /// Slots with something to write, first come first served.
    staged: VecDeque<u32>,
    /// Slots that have had a share and have more. They write behind those that came meanwhile.
    behind: VecDeque<u32>,
    /// The last batch was full before it was their turn: now they go first.
    is_owed: bool,
    is_staged: Vec<bool>,
    said: Said,
    /// The disk has no room for another segment.
    full: bool,
    /// The spare that was asked for and has not come.
    spare_asked: Option<SegmentSeq>,
    active: SegmentSeq,
    /// The last write placed, and the last one durable with all before it.
    placed: FlushTicket,
    durable: FlushTicket,
    /// Memory of finished `InFlight`s, to be used again.
    spent: Vec<Vec<(u32, Written)>>,
    /// Batches that were written, empty, with the memory of their lists. As many as there are flushes in flight.
    batches: Vec<Batch>,
}

impl Log {
    pub(super) fn new(appender: Appender, index: LogIndex, slots: usize, cores: u16) -> Self {
        Self {
            appender,
            index,
            cores,
            waiting: None,
            flushes_max: 1,
            joins_bytes: 0,
            in_flight: VecDeque::new(),
            staged: VecDeque::new(),
            behind: VecDeque::new(),
            is_owed: false,
            is_staged: vec![false; slots],
            said: Said::new(slots),
            full: false,
            spare_asked: None,
            active: SegmentSeq(0),
            placed: FlushTicket(0),
            durable: FlushTicket(0),
            spent: Vec::new(),
            batches: Vec::new(),
        }
    }

    /// At most `flushes_max` writes in flight; one beside others only of `joins_bytes` or more.
    pub(super) fn flushing(self, flushes_max: usize, joins_bytes: usize) -> Self {
        let flushes_max = flushes_max.clamp(1, limits::FLUSHES_IN_FLIGHT_MAX);
        Self { flushes_max, joins_bytes, ..self }
    }

    /// `slot` has something to write.
    pub(super) fn stage(&mut self, slot: u32) {
        if !std::mem::replace(&mut self.is_staged[slot as usize], true) {
            self.staged.push_back(slot);
        }
    }

    /// Where entries lie.
    pub(super) fn index(&self) -> &LogIndex {
        &self.index
    }

    pub(super) fn index_mut(&mut self) -> &mut LogIndex {
        &mut self.index
    }

    pub(super) fn cores(&self) -> u16 {
        self.cores
    }

    /// The last write that was placed.
    pub(super) fn placed(&self) -> FlushTicket {
        self.placed
    }

    /// All writes up to this one are durable.
    pub(super) fn durable(&self) -> FlushTicket {
        self.durable
    }

    /// The segment being written; zero before the first write.
    pub(super) fn active(&self) -> SegmentSeq {
        self.active
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// The disk has no room for another segment, and of those that were prepared one is left at most, with the
    /// end of the one in use. They are kept for votes and what else is small: a start begins a segment, and
    /// without one nobody could be elected, and nothing be read. Snapshots are what would fill them.
    pub(super) fn is_at_reserve(&self) -> bool {
        let segment = self.appender.segment_bytes();
        let end = (segment / 2).min(limits::BATCH_BYTES_MAX as u64);
        self.full && self.appender.room() < segment + end
    }

    pub(super) fn is_idle(&self) -> bool {
        let is_written = self.staged.is_empty() && self.behind.is_empty();
        is_written && self.waiting.is_none() && self.in_flight.is_empty()
    }

    pub(super) fn on_spare(&mut self, segment: SegmentSeq) {
        self.appender.on_spare(segment);
        if self.spare_asked == Some(segment) {
            self.spare_asked = None;
        }
    }

    /// The spare to ask the driver for, once.
    pub(super) fn ask_spare(&mut self) -> Option<SegmentSeq> {
        if self.spare_asked.is_some() {
            return None;
        }
        self.spare_asked = self.appender.wants_spare();
        self.spare_asked
    }

    /// A write is durable. Calls `completed` for everything that this makes durable, in ticket
    /// order: a write that overtook an earlier one waits for it, because recovery trims at the
    /// first hole.
    pub(super) fn on_flushed(
        &mut self,
        ticket: FlushTicket,
        mut completed: impl FnMut(u32, Written),
    ) {
        if let Some(write) = self.in_flight.iter_mut().find(|write| write.ticket == ticket) {
            write.durable = true;
        }
        if planted(Planted::LaterFlushVouches) {
            let earlier = self.in_flight.iter_mut().filter(|write| write.ticket < ticket);
            earlier.for_each(|write| write.durable = true);
        }
        while self.in_flight.front().is_some_and(|write| write.durable) {
            let Some(mut write) = self.in_flight.pop_front() else { break };
            self.appender.on_durable(write.ticket);
            self.durable = write.ticket;
            for (slot, done) in write.completes.drain(..) {
                completed(slot, done);
            }
            self.spent.push(write.completes);
        }
    }

    /// Turns what is staged into writes, as long as more may be in flight. At low load a write
    /// goes at once; under load entries gather here while the flushes in flight finish, and only much of
    /// them goes beside one. No timer.
    pub(super) fn gather(
        &mut self,
        replicas: &mut [Replica],
        counters: &mut Counters,
        writes: &mut Vec<Write>,
    ) {
        while self.in_flight.len() < self.flushes_max {
            if !self.in_flight.is_empty() && self.waiting.is_none() && self.joins(replicas) {
                return;
            }
            let Some(gathered) = self.waiting.take().or_else(|| self.fill(replicas, counters))
            else {
                return;
            };
            if self.appender.can_place(gathered.batch.bytes()) != Room::Yes {
                // Rotation waits for the writes in flight, or for a spare segment.
                self.waiting = Some(gathered);
                return;
            }
            writes.push(self.place(gathered, replicas, counters));
        }
    }

    /// Whether so little is staged that it is better written with what comes until the flush in flight is
    /// done: a write of its own costs a core and the device about the same for one entry as for a hundred.
    fn joins(&self, replicas: &[Replica]) -> bool {
        let mut left = self.joins_bytes;
        for &slot in self.staged.iter().chain(&self.behind) {
            left = left.saturating_sub(replicas[slot as usize].unwritten_bytes(left));
            if left == 0 {
                return false;
            }
        }
        true
    }

    /// Fills one batch from the staged replicas; none if nothing is staged. A group that has more than its share goes
    /// on behind the others: one into which large values stream always has more, and would keep every other group of
    /// the core out of the log.
    fn fill(&mut self, replicas: &mut [Replica], counters: &mut Counters) -> Option<Gathered> {
        let mut batch = self.batches.pop().unwrap_or_default();
        batch.reserve(self.staged.len().min(limits::BATCH_RUNS_KEPT));
        let mut completes = self.spent.pop().unwrap_or_default();
        let mut is_owed = !self.behind.is_empty();
        let soft = self.appender.batch_bytes_soft();
        while batch.bytes() < soft {
            let is_behind = !self.behind.is_empty() && (self.staged.is_empty() || self.is_owed);
            let queue = if is_behind { &mut self.behind } else { &mut self.staged };
            let Some(slot) = queue.pop_front() else { break };
            let is_alone = self.staged.is_empty() && self.behind.is_empty();
            let share = if is_alone { soft } else { limits::BATCH_SHARE_BYTES.min(soft) };
            let Some((run, done)) = replicas[slot as usize].take_run(share, batch.lists()) else {
                self.is_staged[slot as usize] = false;
                continue;
            };
            if is_behind {
                (is_owed, self.is_owed) = (false, false);
            }
            if is_behind || done.is_none() || share <= run.bytes() {
                self.behind.push_back(slot);
            } else {
                self.staged.push_front(slot);
            }
            if run.kind == RunKind::Log {
                counters.entries_written += run.entries.len() as u64;
            }
            batch.push(run);
            completes.extend(done.map(|done| (slot, done)));
        }
        self.is_owed = is_owed && !self.behind.is_empty();
        if batch.is_empty() {
            self.spent.push(completes);
            self.keep(batch);
            return None;
        }
        let silent_max = limits::SAID_AGAIN_SILENT_MAX;
        self.said.say_again(&mut batch, replicas, self.cores, silent_max);
        Some(Gathered { batch, completes })
    }

    /// The driver has the bytes of a write: its memory serves for the next. What its entries held is let go here,
    /// not earlier and not later than if the driver had dropped it.
    pub(super) fn reuse(&mut self, write: Write) {
        let mut batch = write.into_batch();
        batch.clear();
        self.keep(batch);
    }

    fn keep(&mut self, batch: Batch) {
        if self.batches.len() < limits::FLUSHES_IN_FLIGHT_MAX {
            self.batches.push(batch);
        }
    }

    fn place(
        &mut self,
        gathered: Gathered,
        replicas: &mut [Replica],
        counters: &mut Counters,
    ) -> Write {
        let Gathered { batch, completes } = gathered;
        let write = self.appender.place(batch);
        self.active = write.segment;
        for (group, first, count, location) in write.locations() {
            if count > 0 {
                self.index.note(group, first, count, location);
            }
            let slot = (group.0 / u64::from(self.cores)) as usize;
            replicas[slot].on_placed(write.segment, first, count);
        }
        for run in write.runs() {
            let slot = (run.group.0 / u64::from(self.cores)) as usize;
            replicas[slot].on_run_placed(run, write.segment);
        }
        self.placed = write.ticket;
        counters.on_write(&write);
        self.in_flight.push_back(InFlight { ticket: write.ticket, durable: false, completes });
        write
    }

    /// The write that proves everything before it durable, if there is something to prove.
    pub(super) fn closing_write(&mut self, replicas: &[Replica]) -> Option<Write> {
        if !self.is_idle() || !self.appender.owes_proof() {
            return None;
        }
        let mut batch = self.batches.pop().unwrap_or_default();
        // The device has time: as many as the block holds.
        self.said.say_again(&mut batch, replicas, self.cores, replicas.len());
        let write = self.appender.close_with(batch);
        self.placed = write.ticket;
        self.in_flight.push_back(InFlight {
            ticket: write.ticket,
            durable: false,
            completes: self.spent.pop().unwrap_or_default(),
        });
        Some(write)
    }
}
