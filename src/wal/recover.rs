//! What the log remembers, and whether it may be believed.
//!
//! ```text
//!            fed in ascending order
//!  segment
//!     ▼
//!   header of its own, whole? ── no ──► does anything prove it was durable?
//!     │ yes                                │ yes       │ no
//!     │                                    │           ▼
//!     │                                    │  any batch header of its own? ── no ──► unused (spare)
//!     │                                    │           │ yes
//!     ▼                                    ▼           └──► unused (discard)
//!   names the end ── no ────────────────► DAMAGE ◄──────┐ yes
//!   we reached?                                         │
//!     │ yes                                             │
//!     ▼                                                 │
//!   batch ── whole, in its place, chained? ── no ──► proven durable by a later batch here?
//!     ▲           │ yes                                 │ no
//!     └── emit ◄──┘                                     ▼
//!                                          the log ends here, for now: the next segment's header
//!                                          may still prove that it went further
//! ```

use crate::id::SegmentSeq;
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES};
use crate::planted::{Planted, planted};

use super::appender::Position;
use super::batch::{BatchHeader, BatchRef, Payloads};
use super::check::Checked;
use super::codec::first_non_zero;
use super::damage::{Damage, Fault, Proof, TornTail};
use super::record::{EntryRef, RunKind, RunRef};
use super::segment::{End, Identity, Location, SegmentHeader};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// One run found by recovery. Every byte of it has been verified.
#[derive(Debug, Clone, Copy)]
pub struct RecoveredRun<'a> {
    /// What it holds.
    pub kind: RunKind,
    /// The replica that wrote it was not whole; see [`super::Run::is_forgetful`].
    pub is_forgetful: bool,
    /// Whose entries.
    pub group: crate::id::GroupId,
    /// The group's hard state when the run was written; the last one in the log counts.
    pub hard_state: crate::raft::effects::HardState,
    /// The term of all entries; zero if there are none.
    pub run_term: crate::id::Term,
    /// The index of the first entry. Entries at and after it in earlier runs of the group are
    /// superseded. If `first` lies behind the end of what was known, entries are missing: the
    /// caller's check (contract row 54), which alone knows what was truncated on purpose.
    pub first: crate::id::Index,
    /// How many entries; zero for hard state alone, and then `first` means nothing.
    pub count: u64,
    /// The batch that holds it.
    pub location: Location,
    run: RunRef<'a>,
}

impl<'a> RecoveredRun<'a> {
    fn new(run: RunRef<'a>, location: Location) -> Self {
        Self {
            kind: run.kind,
            is_forgetful: run.is_forgetful,
            group: run.group,
            hard_state: run.hard_state,
            run_term: run.run_term,
            first: run.first,
            count: u64::from(run.count),
            location,
            run,
        }
    }

    /// The entries, in index order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = EntryRef<'a>> + use<'a> {
        self.run.entries()
    }
}

/// One find, in its place in the log.
#[derive(Debug)]
pub enum Found<'a> {
    /// A run, whole.
    Run(RecoveredRun<'a>),
    /// Something that was durable here is gone. Told of each run that is known to be, or once.
    Lost(Loss),
}

/// What is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Where, and how that is known.
    pub damage: Damage,
    /// Whose runs it took.
    pub whose: Whose,
}

/// Whose runs are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Those of these groups, or, if there are none, nothing that the log is read for.
    Groups(Vec<crate::id::GroupId>),
    /// Perhaps any group's of this log.
    Anybody,
}

/// What recovery found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Where to go on.
    pub position: Position,
    /// The unfinished write that was left out, if there was one. Nothing needs to be done about
    /// it: the next segment's header names the end in front of it.
    pub torn: Option<TornTail>,
    /// Segments that hold part of the log.
    pub segments: u64,
    /// Batches in them.
    pub batches: u64,
    /// Runs in those.
    pub runs: u64,
    /// Bytes of all batches, aligned.
    pub bytes: u64,
    /// Segments ready to be written, ascending: hand them to `Appender::on_spare`.
    pub spares: Vec<SegmentSeq>,
    /// Files that hold nothing of the log and never will under their number: a first write that was
    /// torn. The driver deletes them, or renames them to a higher
    /// number that `Appender::wants_spare` asks for; in which order, or whether at all, does not matter.
    pub discard: Vec<SegmentSeq>,
}

/// A segment that belongs to the log.
#[derive(Debug)]
struct Tail {
    end: End,
    next_batch: u64,
    /// Why nothing was read after `end`.
    fault: Fault,
    /// There is something after `end`, though nothing that counts.
    torn: bool,
    /// What lay in front of `end` is gone: its successor's word for it cannot be checked.
    is_loose: bool,
}

/// Where a segment ends, and who says so.
#[derive(Debug, Clone, Copy)]
struct Bound {
    end: Location,
    /// The header of a later segment.
    by: Location,
}

/// Where the batches of a segment begin.
#[derive(Debug)]
struct Start {
    end: End,
    number: u64,
    /// The first batch must chain to `end` and have this number.
    is_known: bool,
    /// The file has the length that its header says.
    is_whole: bool,
}

/// A file that nothing proves to be part of the log.
#[derive(Debug)]
struct Unused {
    segment: SegmentSeq,
    fault: Fault,
    /// Of the right length, and no batch header in it was written for its number: a spare, of zeroes or
    /// with the content of an earlier life.
    is_clean: bool,
    /// It shows that something is gone. It stays where it is, because a crash may come before anything else
    /// says so.
    is_evidence: bool,
}

/// Reads a log once, from its first byte to its last. One per shard, at start-up.
///
/// Memory does not grow with the log: runs are handed out as they are verified, and only the tail
/// so far is remembered.
#[derive(Debug)]
pub struct Recovery {
    identity: Identity,
    salt: u32,
    /// Length of a spare that the appender can use.
    segment_bytes: u64,
    /// The log begins here; what was in front was given up on purpose.
    first: SegmentSeq,
    fed: SegmentSeq,
    /// Where the segment fed next ends, by the header of the one after it.
    bound: Option<Bound>,
    /// What somebody else found whole of the segment fed next.
    checked: Option<Checked>,
    tail: Option<Tail>,
    unused: Vec<Unused>,
    segments: u64,
    batches: u64,
    runs: u64,
    bytes: u64,
}

impl Recovery {
    /// For the log of `identity`.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self::with_segment_bytes(identity, SEGMENT_BYTES)
    }

    /// As [`Recovery::new`], for an appender with segments of another size than [`SEGMENT_BYTES`]:
    /// only files of this length are spares. Written segments say how long they are.
    #[must_use]
    pub fn with_segment_bytes(identity: Identity, segment_bytes: usize) -> Self {
        Self {
            identity,
            salt: identity.salt(),
            segment_bytes: segment_bytes as u64,
            first: SegmentSeq(0),
            fed: SegmentSeq(0),
            bound: None,
            checked: None,
            tail: None,
            unused: Vec::new(),
            segments: 0,
            batches: 0,
            runs: 0,
            bytes: 0,
        }
    }

    /// For a log whose segments in front of `first` were reclaimed: that they are missing is no damage.
    /// Whoever reclaims them records it first, durably.
    #[must_use]
    pub fn reclaimed_to(mut self, first: SegmentSeq) -> Self {
        self.first = first;
        self
    }

    /// Look ahead, before a segment is fed: `block` is the first block of a later one. If that is the
    /// header of a segment of this log, returns where it says the log in front of it ends, and the
    /// driver need not look further. If no later segment has one, the segment fed next is the last.
    ///
    /// What lies beyond that end is not read: a write that was in flight when the process was killed
    /// may have landed there *after* the recovery that trimmed it, whole and in its place; only the
    /// successor's header tells that it is not part of the log.
    pub fn look_ahead(&mut self, segment: SegmentSeq, block: &[u8]) -> Option<Location> {
        debug_assert!(self.fed < segment, "this looks back");
        match SegmentHeader::decode(block) {
            Ok(header) if header.segment == segment && header.identity == self.identity => {
                let by = Location { segment, offset: 0 };
                self.bound = Some(Bound { end: header.previous.at, by });
                Some(header.previous.at)
            }
            _ => None,
        }
    }

    /// Batches that were found whole beforehand are not checked again, if the segment fed next is the very
    /// bytes that were looked at.
    pub fn trust(&mut self, checked: Checked) {
        self.checked = Some(checked);
    }

    /// Read one segment file, `bytes` being all of it. Every `*.seg` file of the directory is fed,
    /// spares too. `on_run` sees the runs of each batch once the whole batch is verified, in the
    /// order they were written (contract row 54).
    ///
    /// # Errors
    /// [`Damage`]: the log must not be used, and what `on_run` saw is void.
    ///
    /// # Panics
    /// If segments are not fed in ascending order.
    pub fn segment(
        &mut self,
        segment: SegmentSeq,
        bytes: &[u8],
        on_run: &mut dyn FnMut(RecoveredRun<'_>),
    ) -> Result<(), Damage> {
        let mut damage = None;
        self.salvage(segment, bytes, &mut |found| match found {
            Found::Run(run) if damage.is_none() => on_run(run),
            Found::Run(_) => {}
            Found::Lost(loss) => _ = damage.get_or_insert(loss.damage),
        })?;
        damage.map_or(Ok(()), Err)
    }

    /// As [`Self::segment`], for a caller that can get back from elsewhere what is gone: damage to
    /// bytes that were durable is told in its place in the log, with whose runs it may have taken, and
    /// what lies behind it is read all the same.
    ///
    /// # Errors
    /// [`Damage`] that is no decay: another node's log, another version's, a file that was renamed.
    ///
    /// # Panics
    /// If segments are not fed in ascending order.
    pub fn salvage(
        &mut self,
        segment: SegmentSeq,
        bytes: &[u8],
        on: &mut dyn FnMut(Found<'_>),
    ) -> Result<(), Damage> {
        assert!(self.fed < segment, "segments are fed once each, in ascending order");
        self.fed = segment;
        let bound = self.bound.take().filter(|bound| bound.end.segment == segment);
        self.checked = self.checked.take().filter(|checked| checked.is_of(segment, bytes));
        let header = match SegmentHeader::decode(bytes) {
            Ok(header) => header,
            Err(fault) => return self.without_header(segment, bytes, fault, bound, on),
        };
        header.check_identity(self.identity, segment)?;
        if header.segment != segment {
            let fault = Fault::authentic("segment number", 40, segment.0, header.segment.0);
            // A recycled file keeps an older header until its first write. A newer one cannot be
            // there: the file was renamed by hand.
            // If what lies behind it was written for that number, the file was; else only this block
            // is not where it belongs.
            let is_own = self.later(segment, bytes, BLOCK).next().is_some();
            let is_other = self.later(header.segment, bytes, BLOCK).next().is_some();
            return if header.segment < segment || is_own || !is_other {
                self.without_header(segment, bytes, fault, bound, on)
            } else {
                let by = Location { segment, offset: 0 };
                Err(Damage { segment, offset: 0, fault, proof: Proof::Sequence { by } })
            };
        }
        self.check_sequence(&header, on)?;
        let expected = u64::from(header.segment_bytes);
        let is_whole = bytes.len() as u64 == expected;
        self.segments += 1;
        let at = Location { segment, offset: BLOCK };
        let end = End { at, chain: header.crc() };
        let start = Start { end, number: header.first_batch, is_known: true, is_whole };
        self.batches(start, bytes, bound, on)?;
        if !is_whole {
            // What is gone lay behind what is left: told in front of it, all that is left would seem to
            // follow the gap.
            let found = bytes.len() as u64;
            let fault = Fault::authentic("length of the segment file", 36, expected, found);
            let damage = Damage { segment, offset: 0, fault, proof: Proof::Length };
            on(Found::Lost(Loss { damage, whose: Whose::Anybody }));
        }
        Ok(())
    }

    /// The end of the directory: nothing can prove any more that the log went further.
    ///
    /// What was recovered may be in a volatile cache only. The driver syncs the file of
    /// `position.end` before anything recovered is acted on.
    ///
    /// # Errors
    /// [`Damage`] if no file is left of a log that was noted to begin somewhere. All other damage is found
    /// while segments are fed.
    pub fn finish(self) -> Result<Recovered, Damage> {
        let end = self.tail.as_ref().map_or_else(End::default, |tail| tail.end);
        if self.fed < self.first {
            // A file is there before it is noted that the log begins with it.
            let fault = Fault::authentic("segment file", 0, self.first.0, self.fed.0);
            let proof = Proof::Reclaimed { by: Location { segment: self.first, offset: 0 } };
            return Err(Damage { segment: self.first, offset: 0, fault, proof });
        }
        let written =
            self.unused.iter().filter(|unused| !unused.is_clean).map(|unused| unused.segment);
        // No number is used twice if a batch header of it may lie anywhere: what a torn first write left
        // can then not be taken for a later write of the same segment. Sectors without their batch's
        // header are nothing.
        let last = end.at.segment.max(SegmentSeq(self.first.0.saturating_sub(1)));
        let next_segment = SegmentSeq(written.fold(last, SegmentSeq::max).0 + 1);
        let next_batch = self.tail.as_ref().map_or(1, |tail| tail.next_batch);
        let (spares, discard) = self
            .unused
            .iter()
            .filter(|unused| !unused.is_evidence)
            .map(|unused| unused.segment)
            .partition(|segment| *segment >= next_segment);
        let torn = self.tail.filter(|tail| tail.torn).map(|tail| TornTail {
            segment: tail.end.at.segment,
            offset: tail.end.at.offset,
            reason: tail.fault,
        });
        Ok(Recovered {
            position: Position { next_segment, next_batch, end },
            torn,
            segments: self.segments,
            batches: self.batches,
            runs: self.runs,
            bytes: self.bytes,
            spares,
            discard,
        })
    }

    /// A file without a header of its own: a spare, a first write that never finished, or damage.
    fn without_header(
        &mut self,
        segment: SegmentSeq,
        bytes: &[u8],
        fault: Fault,
        bound: Option<Bound>,
        on: &mut dyn FnMut(Found<'_>),
    ) -> Result<(), Damage> {
        if fault.authentic && fault.what == "format version" {
            return Err(Damage { segment, offset: 0, fault, proof: Proof::Written });
        }
        // Segments get their length before they get their name. What is shorter was cut, and what is gone
        // lay behind what is left.
        let (expected, found) = (self.segment_bytes, bytes.len() as u64);
        let cut = (found < expected).then(|| {
            let fault = Fault::new("length of the segment file", 0, expected, found);
            let damage = Damage { segment, offset: 0, fault, proof: Proof::Length };
            Loss { damage, whose: Whose::Anybody }
        });
        let whole =
            self.later(segment, bytes, BLOCK).find(|batch| batch.durable.segment == segment);
        let witness = bound.map(|bound| bound.by).or(whole.map(|batch| batch.at));
        if let Some(by) = witness {
            // The first write covers header and first batch: once it was durable, the header was
            // whole. Of the log itself nothing is lost with it, unless the segment in front, which has
            // no other witness for where it ended, ended further on than it could be read.
            let damage = Damage { segment, offset: 0, fault, proof: Proof::Durable { by } };
            // If the first batch here has the number that was to come next, there was none in between:
            // what lies behind the end in front may then be torn, or be of an earlier life.
            let first = self.later(segment, bytes, BLOCK).next();
            let follows = |tail: &Tail| first.is_some_and(|it| it.number == tail.next_batch);
            // Nothing in front was read: then it was given up, or it is not there.
            let in_doubt = match &self.tail {
                Some(tail) => !follows(tail),
                None => self.first.max(SegmentSeq(1)) < segment,
            };
            let whose = if in_doubt { Whose::Anybody } else { Whose::Groups(Vec::new()) };
            on(Found::Lost(Loss { damage, whose }));
            if let Some(first) = first
                && let Err(damage) = self.check_durable(first.durable, first.at)
            {
                on(Found::Lost(Loss { damage, whose: Whose::Anybody }));
            }
            self.segments += 1;
            let at = Location { segment, offset: BLOCK };
            let end = End { at, chain: 0 };
            let number = self.tail.as_ref().map_or(0, |tail| tail.next_batch);
            let start = Start { end, number, is_known: false, is_whole: cut.is_none() };
            self.batches(start, bytes, bound, on)?;
            cut.into_iter().for_each(|loss| on(Found::Lost(loss)));
            return Ok(());
        }
        let (mut is_clean, mut is_evidence) = (found == expected, cut.is_some());
        for batch in self.later(segment, bytes, BLOCK) {
            is_clean = false;
            if let Err(damage) = self.check_durable(batch.durable, batch.at) {
                is_evidence = true;
                on(Found::Lost(Loss { damage, whose: Whose::Anybody }));
                break;
            }
        }
        cut.into_iter().for_each(|loss| on(Found::Lost(loss)));
        self.unused.push(Unused { segment, fault, is_clean, is_evidence });
        Ok(())
    }

    /// `by` says that everything in front of `durable`, which lies in an earlier segment, was
    /// durable. Did we get that far?
    fn check_durable(&self, durable: Location, by: Location) -> Result<(), Damage> {
        let reached = self.tail.as_ref().map_or(Location::default(), |tail| tail.end.at);
        if durable.segment == reached.segment {
            return match &self.tail {
                Some(tail) if reached.offset < durable.offset => Err(Damage {
                    segment: reached.segment,
                    offset: reached.offset,
                    fault: tail.fault,
                    proof: Proof::Durable { by },
                }),
                _ => Ok(()),
            };
        }
        if durable.segment < reached.segment {
            return Ok(());
        }
        let lost = self.unused.iter().find(|unused| unused.segment == durable.segment);
        if let Some(lost) = lost {
            let (fault, proof) = (lost.fault, Proof::Durable { by });
            return Err(Damage { segment: lost.segment, offset: 0, fault, proof });
        }
        if self.tail.is_none() && durable.segment < self.first {
            return Ok(());
        }
        let fault = Fault::authentic("segment file", 0, durable.segment.0, reached.segment.0);
        let proof = Proof::Sequence { by };
        Err(Damage { segment: durable.segment, offset: 0, fault, proof })
    }

    /// Does this segment follow on what was read so far?
    fn check_sequence(
        &self,
        header: &SegmentHeader,
        on: &mut dyn FnMut(Found<'_>),
    ) -> Result<(), Damage> {
        let by = Location { segment: header.segment, offset: 0 };
        let previous = header.previous;
        let refuse = |what, at, expected, found| {
            let fault = Fault::authentic(what, at, expected, found);
            Err(Damage { segment: header.segment, offset: 0, fault, proof: Proof::Sequence { by } })
        };
        if previous.at.segment >= header.segment {
            return refuse("previous segment", 48, header.segment.0 - 1, previous.at.segment.0);
        }
        if let Err(damage) = self.check_durable(previous.at, by) {
            on(Found::Lost(Loss { damage, whose: Whose::Anybody }));
            return Ok(());
        }
        let Some(tail) = self.tail.as_ref().filter(|tail| !tail.is_loose) else {
            return Ok(());
        };
        let reached = tail.end;
        if previous.at.segment != reached.at.segment {
            // Who began this segment was not shown all that lies in front of it; it has been read now. What
            // was promised then rests on less than this.
            let (expected, found) = (reached.at.segment.0, previous.at.segment.0);
            let fault = Fault::authentic("previous segment", 48, expected, found);
            let proof = Proof::Sequence { by };
            let damage = Damage { segment: header.segment, offset: 0, fault, proof };
            on(Found::Lost(Loss { damage, whose: Whose::Anybody }));
            return Ok(());
        }
        if previous.at.offset != reached.at.offset {
            // We read further than the node that began this segment did. It cannot have known the
            // batches in between, so they were never part of its log.
            return refuse("end of the segment before", 56, reached.at.offset, previous.at.offset);
        }
        if previous.chain != reached.chain {
            let (expected, found) = (u64::from(reached.chain), u64::from(previous.chain));
            return refuse("chain to the segment before", 64, expected, found);
        }
        if header.first_batch != tail.next_batch {
            return refuse("number of the first batch", 72, tail.next_batch, header.first_batch);
        }
        Ok(())
    }

    /// Reads batches up to where the segment ends, or up to one that does not fit; then judges that.
    fn batches(
        &mut self,
        start: Start,
        bytes: &[u8],
        bound: Option<Bound>,
        on: &mut dyn FnMut(Found<'_>),
    ) -> Result<(), Damage> {
        let Start { mut end, mut number, mut is_known, is_whole } = start;
        let segment = end.at.segment;
        let until = bound.map_or(bytes.len() as u64, |bound| bound.end.offset);
        loop {
            if end.at.offset >= until {
                let fault = Fault::new("room for a batch", end.at.offset, BLOCK, 0);
                self.tail =
                    Some(Tail { end, next_batch: number, fault, torn: false, is_loose: !is_known });
                return Ok(());
            }
            let parsed = BatchRef::parse(bytes, end.at, self.salt);
            let placed = parsed.and_then(|batch| match is_known {
                true => follows(&batch.header, number, end.chain).map(|()| batch),
                false => Ok(batch),
            });
            let payloads = match planted(Planted::ChecksumIgnored) {
                true => Payloads::Skip,
                false => Payloads::Verify,
            };
            let is_checked = |at| self.checked.as_ref().is_some_and(|checked| checked.holds(at));
            let verified = placed.and_then(|batch| match is_checked(end.at.offset) {
                true => Ok(batch),
                false => batch.verify(payloads).map(|()| batch),
            });
            let fault = match verified {
                Ok(batch) => {
                    self.emit(&batch, on);
                    end = batch.next(end.at);
                    (number, is_known) = (batch.header.number + 1, true);
                    continue;
                }
                Err(fault) => fault,
            };
            let damage = |proof| Damage { segment, offset: end.at.offset, fault, proof };
            if fault.authentic && is_whole {
                return Err(damage(Proof::Written));
            }
            let resume = match &placed {
                Ok(batch) => batch.next(end.at).at.offset,
                Err(_) => end.at.offset + BLOCK,
            };
            let mut later = self.later(segment, bytes, resume);
            let witness = bound
                .map(|bound| bound.by)
                .or_else(|| later.find(|batch| batch.durable > end.at).map(|batch| batch.at))
                .or_else(|| self.mistaken_witness(bytes, end.at))
                .filter(|_| !planted(Planted::DamageTakenForTornTail));
            let Some(by) = witness else {
                let torn = self.is_torn(bytes, end.at);
                if torn && planted(Planted::TornTailRefused) {
                    return Err(damage(Proof::Written));
                }
                self.tail =
                    Some(Tail { end, next_batch: number, fault, torn, is_loose: !is_known });
                return Ok(());
            };
            let damage = damage(Proof::Durable { by });
            if let Ok(batch) = placed {
                // Its header is whole, so what follows it is known; perhaps whose runs are not, too.
                if batch.verify_headers().is_ok() {
                    self.emit_intact(&batch, damage, on);
                } else {
                    on(Found::Lost(Loss { damage, whose: Whose::Anybody }));
                }
                end = batch.next(end.at);
                (number, is_known) = (batch.header.number + 1, true);
                continue;
            }
            on(Found::Lost(Loss { damage, whose: Whose::Anybody }));
            // The next one that is whole. What it follows is gone, or was for once not shown: its own word
            // for that is what the header of the next segment must repeat if the log ends here.
            let next = self
                .later(segment, bytes, end.at.offset)
                .find(|batch| number <= batch.number && batch.at.offset < until);
            match next {
                Some(batch) => {
                    end = End { at: batch.at, chain: batch.chain };
                    (number, is_known) = (batch.number, true);
                }
                None => {
                    end.at.offset = until;
                    is_known = false;
                }
            }
        }
    }

    fn emit(&mut self, batch: &BatchRef<'_>, on: &mut dyn FnMut(Found<'_>)) {
        for run in batch.runs_again() {
            let run = run.expect("the batch was verified");
            on(Found::Run(RecoveredRun::new(run, batch.header.at)));
        }
        self.count(batch);
    }

    /// The runs of a batch whose headers are whole and of which some payload, or the padding, is not.
    fn emit_intact(&mut self, batch: &BatchRef<'_>, damage: Damage, on: &mut dyn FnMut(Found<'_>)) {
        let mut is_told = false;
        for run in batch.runs() {
            let run = run.expect("the headers were verified");
            if run.verify_payloads().is_ok() {
                on(Found::Run(RecoveredRun::new(run, batch.header.at)));
            } else {
                is_told = true;
                on(Found::Lost(Loss { damage, whose: Whose::Groups(vec![run.group]) }));
            }
        }
        if !is_told {
            on(Found::Lost(Loss { damage, whose: Whose::Groups(Vec::new()) }));
        }
        self.count(batch);
    }

    fn count(&mut self, batch: &BatchRef<'_>) {
        self.batches += 1;
        self.runs += u64::from(batch.header.runs);
        self.bytes += batch.aligned() as u64;
    }

    /// None, unless the mistake is planted to take what an earlier life left behind for a witness.
    fn mistaken_witness(&self, bytes: &[u8], end: Location) -> Option<Location> {
        if !planted(Planted::EarlierLifeTakenForDamage) {
            return None;
        }
        self.earlier_life(bytes, end)
    }

    /// The first header behind `end` that an earlier life of the file left.
    fn earlier_life(&self, bytes: &[u8], end: Location) -> Option<Location> {
        blocks(bytes, end).find(|at| BatchRef::is_earlier_life(bytes, *at, self.salt))
    }

    /// Is what lies behind the end of the log perhaps an unfinished write? Zeroes are not, nor is what the
    /// file held in an earlier life, unless a header of this life stands there, too. Where nothing tells,
    /// it may be one: the answer is for people, nothing is decided by it.
    fn is_torn(&self, bytes: &[u8], end: Location) -> bool {
        let rest = usize::try_from(end.offset).unwrap_or(usize::MAX).min(bytes.len());
        if first_non_zero(&bytes[rest..]).is_none() {
            return false;
        }
        self.earlier_life(bytes, end).is_none()
            || self.later(end.segment, bytes, end.offset).next().is_some()
    }

    /// Whole batch headers of this very segment, from `offset` on: the witnesses. Every block is
    /// tried, because a bad header does not say how long its batch is.
    fn later<'a>(
        &self,
        segment: SegmentSeq,
        bytes: &'a [u8],
        offset: u64,
    ) -> impl Iterator<Item = BatchHeader> + use<'a> {
        let salt = self.salt;
        blocks(bytes, Location { segment, offset })
            .filter_map(move |at| BatchRef::parse(bytes, at, salt).ok().map(|batch| batch.header))
    }
}

/// Where each block of a segment begins, from the one that holds `from` on.
fn blocks(bytes: &[u8], from: Location) -> impl Iterator<Item = Location> + use<> {
    let blocks = from.offset / BLOCK..bytes.len() as u64 / BLOCK;
    blocks.map(move |block| Location { offset: block * BLOCK, ..from })
}

/// Is this the next batch of the log? An older or an abandoned one is not.
fn follows(batch: &BatchHeader, number: u64, chain: u32) -> Result<(), Fault> {
    let at = batch.at.offset;
    if planted(Planted::RecycledRecordAccepted) {
        return Ok(());
    }
    if batch.number != number {
        return Err(Fault::new("batch number", at + 24, number, batch.number));
    }
    if batch.chain != chain {
        let (expected, found) = (u64::from(chain), u64::from(batch.chain));
        return Err(Fault::new("chain to the batch before", at + 40, expected, found));
    }
    Ok(())
}
