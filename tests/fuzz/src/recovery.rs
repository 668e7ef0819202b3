//! A whole log after whatever may happen to a disk: `Recovery`.
//!
//! ```text
//!   choices ─► batches, flushes ─► ideal: every write done
//!                                   disk: writes without a flush whole, torn or lost ─► changes ─► recovered
//! ```
//!
//! Of everything it hands out, the target knows what was written there, and for every byte that
//! changed, whether something that did not change proves that it was durable.

use std::collections::{BTreeMap, VecDeque};

use outrigger::id::{FlushTicket, GroupId, Index, SegmentSeq};
use outrigger::wal::{
    Appender, Batch, Damage, Found, Location, Position, Recovered, RecoveredRun, Recovery, Room,
    Run, RunKind, Whose,
};

use super::choices::{Choices, below, byte, flip, rarely, some};
use super::log::{self, BLOCK, IDENTITY};

const SECTOR: usize = 512;
/// What of a batch must be whole for it to bear witness.
const BATCH_HEADER_BYTES: usize = 64;

/// The files of one log.
type Files = BTreeMap<SegmentSeq, Vec<u8>>;

/// One input.
pub fn run(data: &[u8]) {
    let mut choices = Choices::new(data);
    match byte(&mut choices) % 8 {
        0 => raw(&mut choices),
        _ => changed(&mut choices),
    }
}

/// Recovery of `files`, each run it hands out told to `seen`. With the next, the only place that knows
/// its calls.
fn recover(
    files: &Files,
    segment_bytes: usize,
    seen: &mut dyn FnMut(RecoveredRun<'_>),
) -> Result<Recovered, Damage> {
    let mut recovery = Recovery::with_segment_bytes(IDENTITY, segment_bytes);
    for (segment, bytes) in files {
        let mut later = files.range(segment.next()..);
        later.find_map(|(later, bytes)| recovery.look_ahead(*later, bytes));
        recovery.segment(*segment, bytes, seen)?;
    }
    recovery.finish()
}

/// The same for a caller that can get the rest elsewhere, who is told of everything.
fn salvage(
    files: &Files,
    segment_bytes: usize,
    seen: &mut dyn FnMut(Found<'_>),
) -> Result<Recovered, Damage> {
    let mut recovery = Recovery::with_segment_bytes(IDENTITY, segment_bytes);
    for (segment, bytes) in files {
        let mut later = files.range(segment.next()..);
        later.find_map(|(later, bytes)| recovery.look_ahead(*later, bytes));
        recovery.salvage(*segment, bytes, seen)?;
    }
    recovery.finish()
}

/// Bytes that are no log: nothing of them is believed, and each file is one thing or the other.
fn raw(choices: &mut Choices<'_>) {
    let mut files = Files::new();
    let count = 1 + below(choices, 3);
    for number in 1..=count as u64 {
        let data = some(choices, 4096);
        let mut bytes = data.to_vec();
        if rarely(choices, 2) {
            bytes.resize(5 * BLOCK, 0);
        }
        files.insert(SegmentSeq(number), bytes);
    }
    let found =
        recover(&files, 5 * BLOCK, &mut |run| panic!("a run of {} out of noise", run.group));
    if let Ok(found) = found {
        // A header alone can be found by chance, and the fuzzer is good at chance.
        let segments = usize::try_from(found.segments).expect("three at most");
        assert_eq!(segments + found.spares.len() + found.discard.len(), files.len());
    }
}

/// A batch in its place.
struct Placed {
    at: Location,
    bytes: usize,
    /// The watermark it carries.
    durable: Location,
    runs: Vec<Run>,
    /// How many of its runs and those before it there are.
    runs_before: usize,
}

/// A log while it is written.
struct Log {
    appender: Appender,
    segment_bytes: usize,
    /// Every write done.
    ideal: Files,
    /// What is there after the power cut.
    disk: Files,
    placed: Vec<Placed>,
    /// Writes without a flush: ticket, place, bytes.
    in_flight: VecDeque<(FlushTicket, SegmentSeq, usize, Vec<u8>)>,
    runs: usize,
    /// Of the runs, how many were acknowledged.
    acknowledged: usize,
}

impl Log {
    fn new(disk: Files, position: Position, segment_bytes: usize) -> Self {
        let mut log = Self {
            appender: Appender::with_segment_bytes(IDENTITY, position, segment_bytes),
            segment_bytes,
            ideal: disk.clone(),
            disk,
            placed: Vec::new(),
            in_flight: VecDeque::new(),
            runs: 0,
            acknowledged: 0,
        };
        log.spares();
        log
    }

    fn spares(&mut self) {
        while let Some(segment) = self.appender.wants_spare() {
            self.ideal.insert(segment, vec![0; self.segment_bytes]);
            self.disk.insert(segment, vec![0; self.segment_bytes]);
            self.appender.on_spare(segment);
        }
    }

    fn flush(&mut self) {
        if let Some((ticket, segment, offset, bytes)) = self.in_flight.pop_front() {
            let file = self.disk.get_mut(&segment).expect("a prepared segment");
            file[offset..offset + bytes.len()].copy_from_slice(&bytes);
            self.appender.on_durable(ticket);
            if self.in_flight.is_empty() {
                self.acknowledged = self.runs;
            } else {
                let left = self.placed.len() - self.in_flight.len();
                self.acknowledged = self.placed[left].runs_before;
            }
        }
    }

    fn append(&mut self, runs: Vec<Run>) {
        let mut batch = Batch::new();
        runs.iter().for_each(|run| batch.push(run.clone()));
        while self.appender.can_place(batch.bytes()) == Room::Drain {
            self.flush();
        }
        let durable = self.appender.durable();
        let write = self.appender.place(batch);
        self.wrote(&write, durable, runs);
        self.spares();
    }

    fn wrote(&mut self, write: &outrigger::wal::Write, durable: Location, runs: Vec<Run>) {
        let bytes = write.to_vec();
        let offset = usize::try_from(write.offset).expect("in a small file");
        let file = self.ideal.get_mut(&write.segment).expect("a prepared segment");
        file[offset..offset + bytes.len()].copy_from_slice(&bytes);
        let lead = if offset == 0 { BLOCK } else { 0 };
        self.placed.push(Placed {
            at: Location { segment: write.segment, offset: (offset + lead) as u64 },
            bytes: bytes.len() - lead,
            durable,
            runs_before: self.runs,
            runs,
        });
        self.runs += self.placed.last().map_or(0, |placed| placed.runs.len());
        self.in_flight.push_back((write.ticket, write.segment, offset, bytes));
    }

    /// The power fails: of every write without a flush, each sector is there or not.
    fn cut(&mut self, choices: &mut Choices<'_>) {
        for (_, segment, offset, bytes) in std::mem::take(&mut self.in_flight) {
            let file = self.disk.get_mut(&segment).expect("a prepared segment");
            let whole = byte(choices) % 3;
            for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                let kept = match whole {
                    0 => true,
                    1 => false,
                    _ => rarely(choices, 2),
                };
                if kept {
                    let at = offset + number * SECTOR;
                    file[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
    }

    /// The first place where bytes are not as they were written, if there is one, and the last in front
    /// of which something that is as it was written says that all was durable.
    fn doubt(&self) -> (Option<Location>, Location) {
        let same = |segment: SegmentSeq, from: u64, bytes: usize| {
            let from = from as usize;
            self.ideal[&segment][from..from + bytes] == self.disk[&segment][from..from + bytes]
        };
        let first = |placed: &&Placed| placed.at.offset == BLOCK as u64;
        let headers = self.placed.iter().filter(first).map(|placed| {
            (Location { segment: placed.at.segment, offset: 0 }, BLOCK, placed.durable)
        });
        let batches = self.placed.iter().map(|placed| (placed.at, placed.bytes, placed.durable));
        let bad = headers.clone().chain(batches.clone());
        let bad = bad.filter(|(at, bytes, _)| !same(at.segment, at.offset, *bytes));
        let bad = bad.map(|(at, ..)| at).min();
        // A header stands for the whole segment in front of it.
        let headers = headers.filter(|(at, bytes, _)| same(at.segment, at.offset, *bytes));
        let batches = batches.filter(|(at, ..)| same(at.segment, at.offset, BATCH_HEADER_BYTES));
        let proven = headers.chain(batches).map(|(_, _, durable)| durable).max();
        (bad, proven.unwrap_or_default())
    }

    fn is_untouched(&self) -> bool {
        self.ideal == self.disk
    }
}

/// Follows what recovery hands out through what was written.
struct Follower<'a> {
    written: Vec<(Location, &'a Run)>,
    next: usize,
    left_out: usize,
}

impl<'a> Follower<'a> {
    fn new(placed: &'a [Placed]) -> Self {
        let written = placed.iter().flat_map(|it| it.runs.iter().map(|run| (it.at, run)));
        Self { written: written.collect(), next: 0, left_out: 0 }
    }

    fn see(&mut self, run: &RecoveredRun<'_>) {
        while let Some((at, written)) = self.written.get(self.next) {
            self.next += 1;
            let same = *at == run.location
                && (run.kind, run.is_forgetful) == (written.kind, written.is_forgetful)
                && (run.group, run.hard_state) == (written.group, written.hard_state)
                && (run.run_term, run.first) == (written.run_term, written.first)
                && run.count == written.entries.len() as u64
                && log::same(written, run.entries());
            if same {
                return;
            }
            self.left_out += 1;
        }
        panic!("a run of group {} at {} that nobody wrote there", run.group, run.location);
    }
}

/// A log is written, the power fails, the disk changes, and recovery is told the truth or says that
/// it is not.
fn changed(choices: &mut Choices<'_>) {
    let segment_bytes = (4 + below(choices, 3)) * BLOCK;
    let mut log = Log::new(Files::new(), Position::default(), segment_bytes);
    for _ in 0..=below(choices, 8) {
        let count = 1 + below(choices, 3);
        // At most two blocks, so that a segment of four holds it.
        let runs = (0..count).map(|_| log::run(choices, 600)).collect();
        log.append(runs);
        (0..below(choices, 4)).for_each(|_| log.flush());
        if rarely(choices, 4) {
            let durable = log.appender.durable();
            if let Some(write) = log.appender.closing_write() {
                log.wrote(&write, durable, Vec::new());
            }
        }
    }
    log.cut(choices);
    let torn = log.disk.clone();
    let mut is_moved = false;
    for _ in 0..below(choices, 4) {
        is_moved |= change(choices, &mut log.disk);
    }
    let is_changed = log.disk != torn;

    let mut follower = Follower::new(&log.placed);
    let found = recover(&log.disk, segment_bytes, &mut |run| follower.see(&run));
    let Follower { next, left_out, .. } = follower;
    // Where files came, went or moved, there is nothing to compare.
    let (bad, proven) = if is_moved { (None, Location::default()) } else { log.doubt() };
    let is_proven = bad.is_some_and(|bad| bad < proven);
    if is_proven {
        assert!(found.is_err(), "proven damage went unnoticed");
    }
    salvaged(&log, proven, is_moved, is_proven);
    let Ok(found) = found else {
        assert!(is_changed, "a power cut alone is no damage");
        return;
    };
    assert_eq!(left_out, 0, "runs were left out of the middle, and nobody was told");
    assert_eq!(found.runs as usize, next);
    if !is_changed {
        assert!(log.acknowledged <= next, "acknowledged runs are gone");
    }
    if log.is_untouched() {
        assert_eq!((next, found.torn), (log.runs, None));
    }
    if !is_moved {
        goes_on(choices, &log, &found, next);
    }
}

/// Of what was durable, each run is handed out in its place, or a loss that may have taken it is told
/// before anything that follows it.
fn salvaged(log: &Log, proven: Location, is_moved: bool, is_proven: bool) {
    let mut follower = Follower::new(&log.placed);
    let mut lost: Vec<Whose> = Vec::new();
    let is_lost = |lost: &[Whose], run: &Run| {
        lost.iter().any(|whose| match whose {
            Whose::Anybody => true,
            Whose::Groups(groups) => groups.contains(&run.group),
        })
    };
    let found = salvage(&log.disk, log.segment_bytes, &mut |found| match found {
        Found::Lost(loss) => lost.push(loss.whose),
        Found::Run(run) => {
            let from = follower.next;
            follower.see(&run);
            for (at, missed) in &follower.written[from..follower.next - 1] {
                assert!(is_lost(&lost, missed), "a run at {at} is missed, and nobody was told");
            }
        }
    });
    if found.is_err() || is_moved {
        return;
    }
    if is_proven {
        assert!(!lost.is_empty(), "proven damage went unnoticed");
    }
    for (at, missed) in follower.written[follower.next..].iter().filter(|(at, _)| *at < proven) {
        assert!(is_lost(&lost, missed), "a run at {at} is missed at the end, and nobody was told");
    }
}

/// Changes the disk; whether files came, went or moved.
fn change(choices: &mut Choices<'_>, disk: &mut Files) -> bool {
    let number = below(choices, disk.len());
    let Some((&segment, file)) = disk.iter_mut().nth(number) else { return true };
    let sectors = file.len() / SECTOR;
    match byte(choices) % 12 {
        0..=5 => {
            // Near what was written, most of the time.
            let from = below(choices, file.len().div_ceil(BLOCK)) * BLOCK;
            let end = (from + [64, 256, BLOCK][below(choices, 3)]).min(file.len());
            if from < end {
                flip(choices, &mut file[from..end]);
            }
        }
        6 if sectors > 0 => {
            let at = below(choices, sectors) * SECTOR;
            file[at..at + SECTOR].fill(0);
        }
        7 if sectors > 0 => {
            let (from, to) = (below(choices, sectors) * SECTOR, below(choices, sectors) * SECTOR);
            file.copy_within(from..from + SECTOR, to);
        }
        8 if file.len() >= BLOCK => {
            let blocks = file.len() / BLOCK;
            let (from, to) = (below(choices, blocks) * BLOCK, below(choices, blocks) * BLOCK);
            file.copy_within(from..from + BLOCK, to);
        }
        9 => {
            disk.remove(&segment);
            return true;
        }
        10 => {
            let count = below(choices, file.len() + BLOCK);
            file.resize(count, 0);
            return true;
        }
        11 => {
            let to = SegmentSeq(1 + below(choices, 12) as u64);
            if let Some(file) = disk.remove(&segment) {
                disk.insert(to, file);
            }
            return true;
        }
        _ => {}
    }
    false
}

/// What was recovered is not changed by going on: the log is that, and what is written from here on.
fn goes_on(choices: &mut Choices<'_>, before: &Log, found: &Recovered, kept: usize) {
    let mut files = before.disk.clone();
    let delete = rarely(choices, 2);
    for segment in found.discard.iter().filter(|_| delete) {
        files.remove(segment);
    }
    assert!(found.spares.iter().all(|it| *it >= found.position.next_segment));
    let mut log = Log::new(files, found.position, before.segment_bytes);
    let run = Run::mark(RunKind::Log, GroupId(1), Default::default(), Default::default());
    log.append(vec![Run { first: Index(7), ..run }]);
    log.flush();

    let mut follower = Follower::new(&before.placed);
    let mut after = Follower::new(&log.placed);
    let mut seen = 0;
    let again = recover(&log.disk, log.segment_bytes, &mut |run| {
        if seen < kept {
            follower.see(&run)
        } else {
            after.see(&run)
        }
        seen += 1;
    });
    let again = again.unwrap_or_else(|damage| panic!("a log that went on is damaged: {damage}"));
    assert_eq!((seen, follower.left_out, after.left_out), (kept + 1, 0, 0));
    // Whether its end is torn nobody can tell if the spare was full of noise.
    assert_eq!(again.runs as usize, kept + 1);
}
