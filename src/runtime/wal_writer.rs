//! Performs a shard's log writes: encode, write past the page cache, make durable, report.
//!
//! ```text
//!  Effects.writes ──► encode ──► ring: write, durably ───────────────────► Event::Flushed
//!                        │   or: ring: write ► fdatasync ──────────────────►    (up to 4 at once)
//!                        │   over 256 KiB: parts side by side ► fdatasync ─►
//!                        └ any error: Fatal, nothing is ever reported again
//! ```
//!
//! # What must not happen
//!
//! - *A failed flush is never repeated.* The kernel may have dropped the pages and forgotten the
//!   error; a second fdatasync would succeed and mean nothing (fsyncgate). The log is dead from the
//!   first error on (contract row 30).
//! - *A write is never abandoned.* The ring owns its buffer until the kernel is done with it.
//! - *A short write is not a write.* It is carried on, and if the file has ended, it is an error.
//! - *Old memory does not reach the disk.* Buffers are used again; `encode_into` fills every byte, zero
//!   padding included.
//! - *Completions are reported as they come*, in any order; the shard acts on them in ticket order.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glommio::io::OpenOptions;

use crate::config::FlushMethod;
use crate::id::{FlushTicket, SegmentSeq};
use crate::limits::{BLOCK_BYTES, FLUSHES_IN_FLIGHT_MAX};
use crate::shard::Event;
use crate::wal::Write;

use super::buffers;
use super::fatal::Fatal;
use super::faults::Faults;
use super::inbox::Inbox;
use super::metrics::Durations;
use super::ring::{Buffer, Done, Ring};
use super::segments::Directory;

/// A larger write is cut into parts of this size that are written side by side, in bytes: one
/// direct write of 1 MiB at a time is slower than four of 256 KiB at once.
const PART_BYTES: usize = 256 << 10;
/// A flush this slow is worth a line in the log (contract row 58).
const SLOW: Duration = Duration::from_secs(1);
/// The token of a write's flush, beside those of its parts.
const FLUSH: u64 = (1 << PART_BITS) - 1;
/// A token is the ticket and so many bits for the part.
const PART_BITS: u32 = 12;
/// Buffers larger than this are not kept, in bytes.
const KEPT_BYTES_MAX: usize = 2 << 20;
/// How often whoever closes the log looks whether the last file has been opened.
const LOOK: Duration = Duration::from_millis(1);

/// The log files of one core. One per core.
#[derive(Debug)]
pub struct WalWriter {
    files: Rc<Files>,
    method: FlushMethod,
    /// Writes on their way, by ticket.
    writes: BTreeMap<FlushTicket, Job>,
    /// Writes whose file is not open yet, oldest first.
    early: Vec<(Write, Instant)>,
    durations: Durations,
    /// Flushes that took over [`SLOW`], since the last look.
    slow: u64,
    /// Buffers to use again; nobody else holds them.
    spare: Vec<Rc<Buffer>>,
    faults: Option<Arc<Faults>>,
}

/// One write on its way.
#[derive(Debug)]
struct Job {
    segment: SegmentSeq,
    file: Rc<File>,
    buffer: Rc<Buffer>,
    /// Where it begins in the file, and how long it is.
    offset: u64,
    bytes: usize,
    started: Instant,
    /// Parts the kernel has not written.
    parts_left: usize,
    /// Of parts that it has written a beginning of, how many bytes. Hardly ever any.
    begun: Vec<(u64, usize)>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Writing {
        syncs: bool,
    },
    /// A switch of [`Faults`] holds it up.
    Stalled {
        is_durable: bool,
    },
    Flushing,
}

/// Open files; opened and closed by tasks, so that a turn does not wait for the file system.
#[derive(Debug)]
struct Files {
    directory: Directory,
    inbox: Rc<Inbox>,
    open: RefCell<BTreeMap<SegmentSeq, Rc<File>>>,
    /// Tasks that have not ended.
    tasks: Cell<usize>,
    /// Nothing is reported any more.
    is_dead: Cell<bool>,
}

impl Job {
    /// What is left to write of a part.
    fn rest(&self, part: u64) -> std::ops::Range<usize> {
        let from = part as usize * PART_BYTES;
        let begun = self.begun.iter().find(|(of, _)| *of == part).map_or(0, |(_, bytes)| *bytes);
        from + begun..(from + PART_BYTES).min(self.bytes)
    }
}

impl WalWriter {
    /// A writer of the segments in `directory`. What goes wrong it tells `inbox`. A disk that is switched
    /// to stall in `faults` takes its time.
    #[must_use]
    pub fn new(
        directory: Directory,
        method: FlushMethod,
        inbox: Rc<Inbox>,
        faults: Option<Arc<Faults>>,
    ) -> Self {
        let (open, tasks, is_dead) = (RefCell::default(), Cell::new(0), Cell::new(false));
        Self {
            files: Rc::new(Files { directory, inbox, open, tasks, is_dead }),
            method,
            writes: BTreeMap::new(),
            early: Vec::new(),
            durations: Durations::default(),
            slow: 0,
            spare: Vec::new(),
            faults,
        }
    }

    /// Start a write; `Event::Flushed` follows when it is durable. The file of its segment exists,
    /// whole, prepared. Gives the write back if its bytes are on their way.
    pub fn start(&mut self, write: Write, ring: &mut Ring) -> Option<Write> {
        if self.files.is_dead.get() {
            return None;
        }
        self.files.close_before(write.segment);
        let started = Instant::now();
        match self.files.get(write.segment) {
            Some(file) => {
                self.begin(&write, file, started, ring);
                Some(write)
            }
            None => {
                Files::open_ahead(&self.files, write.segment);
                self.early.push((write, started));
                None
            }
        }
    }

    fn begin(&mut self, write: &Write, file: Rc<File>, started: Instant, ring: &mut Ring) {
        let bytes = write.bytes;
        let mut buffer = self.buffer(bytes);
        let alone = Rc::get_mut(&mut buffer).expect("nobody shares a spare or a new buffer");
        write.encode_into(alone.space(bytes));
        let parts_left = bytes.div_ceil(PART_BYTES);
        let syncs = self.method == FlushMethod::Dsync && parts_left == 1;
        for part in 0..parts_left {
            let range = part * PART_BYTES..((part + 1) * PART_BYTES).min(bytes);
            let offset = write.offset + range.start as u64;
            ring.write(&file, &buffer, range, offset, syncs, token(write.ticket, part as u64));
        }
        let (segment, offset, stage) = (write.segment, write.offset, Stage::Writing { syncs });
        let job = Job {
            segment,
            file,
            buffer,
            offset,
            bytes,
            started,
            parts_left,
            begun: Vec::new(),
            stage,
        };
        self.writes.insert(write.ticket, job);
    }

    fn buffer(&mut self, bytes: usize) -> Rc<Buffer> {
        let fits = self.spare.iter().position(|buffer| bytes <= buffer.capacity());
        match fits {
            Some(at) => self.spare.swap_remove(at),
            None => Rc::new(Buffer::new(bytes.next_power_of_two())),
        }
    }

    fn put_back(&mut self, buffer: Rc<Buffer>) {
        let is_alone = Rc::strong_count(&buffer) == 1;
        if is_alone && buffer.capacity() <= KEPT_BYTES_MAX {
            if self.spare.len() == FLUSHES_IN_FLIGHT_MAX {
                // The smallest goes: the others serve for small writes as well.
                self.spare.sort_by_key(|buffer| buffer.capacity());
                self.spare.remove(0);
            }
            self.spare.push(buffer);
        }
    }

    /// The kernel has finished something that this writer gave to `ring`.
    pub fn on_done(&mut self, done: Done, ring: &mut Ring, events: &mut Vec<Event>) {
        let (ticket, part) = (FlushTicket(done.token >> PART_BITS), done.token & FLUSH);
        let Some(job) = self.writes.get_mut(&ticket) else { return };
        if part == FLUSH {
            return match done.result {
                Ok(_) => self.finish(ticket, events),
                Err(error) => self.fail(ticket, "flush", &error.to_string()),
            };
        }
        match done.result {
            Ok(written) if written < job.rest(part).len() => {
                self.carry_on(ticket, part, written, ring)
            }
            Ok(_) => {
                job.parts_left -= 1;
                if job.parts_left == 0 {
                    self.written(ticket, ring, events);
                }
            }
            Err(error) => self.fail(ticket, "write", &error.to_string()),
        }
    }

    /// Of a part only a beginning was written: it goes on from the last whole block.
    fn carry_on(&mut self, ticket: FlushTicket, part: u64, written: usize, ring: &mut Ring) {
        let Some(job) = self.writes.get_mut(&ticket) else { return };
        let whole = written - written % BLOCK_BYTES;
        if whole == 0 {
            let at = job.offset + (job.rest(part).start + written) as u64;
            return self.fail(ticket, "write", &format!("the device takes no more at offset {at}"));
        }
        match job.begun.iter_mut().find(|(of, _)| *of == part) {
            Some((_, begun)) => *begun += whole,
            None => job.begun.push((part, whole)),
        }
        let range = job.rest(part);
        let offset = job.offset + range.start as u64;
        let syncs = matches!(job.stage, Stage::Writing { syncs: true });
        ring.write(&job.file, &job.buffer, range, offset, syncs, token(ticket, part));
    }

    /// All parts are written.
    fn written(&mut self, ticket: FlushTicket, ring: &mut Ring, events: &mut Vec<Event>) {
        let Some(job) = self.writes.get_mut(&ticket) else { return };
        let is_durable = matches!(
            job.stage,
            Stage::Writing { syncs: true } | Stage::Stalled { is_durable: true }
        );
        let is_held_up = |faults: &Arc<Faults>| faults.held_up(job.started.elapsed()).is_some();
        if self.faults.as_ref().is_some_and(is_held_up) {
            job.stage = Stage::Stalled { is_durable };
        } else if is_durable {
            self.finish(ticket, events);
        } else {
            job.stage = Stage::Flushing;
            let file = Rc::clone(&job.file);
            ring.sync(&file, token(ticket, FLUSH));
        }
    }

    fn finish(&mut self, ticket: FlushTicket, events: &mut Vec<Event>) {
        let Some(job) = self.writes.remove(&ticket) else { return };
        if self.files.is_dead.get() {
            // Another write has failed: nothing after it may be acknowledged.
            return;
        }
        let elapsed = job.started.elapsed();
        self.durations.record(elapsed);
        if SLOW < elapsed {
            self.slow += 1;
            tracing::warn!(
                segment = %self.files.directory.segment(job.segment).display(),
                ms = elapsed.as_millis() as u64,
                "slow log flush: the disk is busy or failing",
            );
        }
        self.put_back(job.buffer);
        events.push(Event::Flushed(ticket));
    }

    fn fail(&mut self, ticket: FlushTicket, what: &str, cause: &str) {
        let Some(job) = self.writes.remove(&ticket) else { return };
        self.files.fail(dead(what, &self.files.directory.segment(job.segment), cause));
    }

    /// Take up what waited for a file to be opened, or for a stalled disk. Call it once per turn.
    pub fn tick(&mut self, ring: &mut Ring, events: &mut Vec<Event>) {
        if !self.early.is_empty() && !self.files.is_dead.get() {
            for (write, started) in std::mem::take(&mut self.early) {
                match self.files.get(write.segment) {
                    Some(file) => self.begin(&write, file, started, ring),
                    None => self.early.push((write, started)),
                }
            }
        }
        let Some(faults) = &self.faults else { return };
        if faults.stall_left().is_none() {
            let is_over = |job: &Job| faults.held_up(job.started.elapsed()).is_none();
            let is_stalled = |job: &Job| matches!(job.stage, Stage::Stalled { .. }) && is_over(job);
            let stalled = self.writes.iter().filter(|(_, job)| is_stalled(job));
            let stalled: Vec<_> = stalled.map(|(ticket, _)| *ticket).collect();
            stalled.into_iter().for_each(|ticket| self.written(ticket, ring, events));
        }
    }

    /// Open a segment ahead of its first write, so that the write does not wait for it.
    pub fn open_ahead(&self, segment: SegmentSeq) {
        Files::open_ahead(&self.files, segment);
    }

    /// Whether tasks of glommio's have something to do for this writer.
    #[must_use]
    pub fn has_tasks(&self) -> bool {
        0 < self.files.tasks.get()
    }

    /// Writes that are not durable.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.writes.len() + self.early.len()
    }

    /// How writes are made durable.
    #[must_use]
    pub fn method(&self) -> FlushMethod {
        self.method
    }

    /// How long writes took until they were durable.
    #[must_use]
    pub fn durations(&self) -> &Durations {
        &self.durations
    }

    /// Flushes that took over a second, since the last call.
    pub fn take_slow(&mut self) -> u64 {
        std::mem::take(&mut self.slow)
    }

    /// Close all files. The caller has waited until nothing is in flight.
    pub async fn close(&self) {
        while self.has_tasks() {
            glommio::timer::sleep(LOOK).await;
        }
        self.files.open.borrow_mut().clear();
    }
}

impl Files {
    fn fail(&self, fatal: Fatal) {
        self.is_dead.set(true);
        self.inbox.fail(fatal);
    }

    fn get(&self, segment: SegmentSeq) -> Option<Rc<File>> {
        self.open.borrow().get(&segment).map(Rc::clone)
    }

    /// A task of its own, counted while it runs.
    fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let files = Rc::clone(self);
        files.tasks.set(files.tasks.get() + 1);
        glommio::spawn_local(async move {
            task.await;
            files.tasks.set(files.tasks.get() - 1);
        })
        .detach();
    }

    fn open_ahead(files: &Rc<Self>, segment: SegmentSeq) {
        if files.get(segment).is_some() {
            return;
        }
        let own = Rc::clone(files);
        files.spawn(async move {
            if let Err(fatal) = own.open(segment).await {
                own.fail(fatal);
            }
        });
    }

    async fn open(&self, segment: SegmentSeq) -> Result<(), Fatal> {
        let path = self.directory.segment(segment);
        let opened = OpenOptions::new().read(true).write(true).dma_open(&path).await;
        let opened = opened.map_err(|error| dead("open", &path, &cause(&error)))?;
        let (wants, file) = (opened.alignment(), buffers::own(&opened));
        // It is open for `file` still; and nothing was written that an error could be about.
        let _ = opened.close().await;
        let file = file.map_err(|error| dead("open", &path, &error.to_string()))?;
        if wants > BLOCK_BYTES as u64 {
            let path = path.display();
            return Err(Fatal::new(format!(
                "{path}: the device wants writes aligned to {wants} bytes, the log aligns to {BLOCK_BYTES}"
            )));
        }
        if self.get(segment).is_some() {
            // Somebody else opened it while we did.
            return Ok(());
        }
        // The lock belongs to this very opening of the file, which the kernel keeps until the last write in flight
        // on it has ended, even when the process was killed: whoever gets it knows that nothing is on its way.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Fatal::new(format!(
                    "{}: another process has this segment open for writing; stop it",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Fatal::new(format!("{}: {error}", path.display())));
            }
        }
        self.open.borrow_mut().insert(segment, Rc::new(file));
        Ok(())
    }

    /// Close the segments that are sealed now that this one is written: the log enters a segment
    /// only when nothing is in flight in the one before.
    fn close_before(&self, segment: SegmentSeq) {
        let mut open = self.open.borrow_mut();
        while open.first_entry().is_some_and(|entry| *entry.key() < segment) {
            open.pop_first();
        }
    }
}

fn token(ticket: FlushTicket, part: u64) -> u64 {
    debug_assert!(part <= FLUSH, "a write has fewer parts");
    ticket.0 << PART_BITS | part
}

fn dead(what: &str, path: &Path, cause: &str) -> Fatal {
    Fatal::new(format!("log {what} failed: {}: {cause}", path.display()))
}

/// glommio's text repeats file and descriptor; the cause is the operating system's.
fn cause(error: &glommio::GlommioError<()>) -> String {
    match error {
        glommio::GlommioError::IoError(error) => error.to_string(),
        glommio::GlommioError::EnhancedIoError { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use smallvec::SmallVec;

    use super::*;
    use crate::entry::Entry;
    use crate::id::{ClusterId, FlushTicket, GroupId, Index, NodeId, ShardId, Term};
    use crate::raft::HardState;
    use crate::runtime::poller::Poller;
    use crate::runtime::scratch::{Scratch, run_on_executor};
    use crate::wal::{Appender, Batch, Identity, Position, Recovery, Run, RunKind};

    const IDENTITY: Identity =
        Identity { cluster: ClusterId(1), node: NodeId(2), shard: ShardId(0) };

    fn batch(index: u64, bytes: usize) -> Batch {
        let payload = Bytes::from(vec![index as u8; bytes]);
        let entry = Entry::command(payload);
        let mut batch = Batch::new();
        batch.push(Run {
            kind: RunKind::Log,
            is_forgetful: false,
            group: GroupId(0),
            hard_state: HardState::default(),
            run_term: Term(1),
            first: Index(index),
            entries: SmallVec::from_iter([entry]),
        });
        batch
    }

    /// The tickets reported from here on, once nothing is in flight or the log is dead.
    async fn finished(writer: &mut WalWriter, ring: &mut Ring) -> Vec<FlushTicket> {
        let (mut events, mut done) = (Vec::new(), Vec::new());
        while 0 < ring.in_flight() || writer.has_tasks() || !writer.writes.is_empty() {
            ring.wait(Duration::from_millis(1)).unwrap();
            ring.take(&mut done);
            done.drain(..).for_each(|done| writer.on_done(done, ring, &mut events));
            glommio::timer::sleep(Duration::from_micros(100)).await;
            writer.tick(ring, &mut events);
        }
        let mut tickets: Vec<_> = events
            .into_iter()
            .map(|event| match event {
                Event::Flushed(ticket) => ticket,
                other => panic!("not a flush: {other:?}"),
            })
            .collect();
        tickets.sort_unstable();
        tickets
    }

    fn writer(directory: Directory, method: FlushMethod, inbox: &Rc<Inbox>) -> (WalWriter, Ring) {
        let ring = Ring::new(&Poller::new().unwrap(), Duration::ZERO).unwrap();
        (WalWriter::new(directory, method, Rc::clone(inbox), None), ring)
    }

    #[test]
    fn a_closed_writer_has_no_file_open_not_even_one_that_was_being_opened() {
        let scratch = Scratch::new("wal-close");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        directory.make(SegmentSeq(1)).unwrap();
        run_on_executor(move || async move {
            let inbox = Rc::new(Inbox::default());
            let (writer, _ring) = writer(directory.clone(), FlushMethod::Dsync, &inbox);
            writer.open_ahead(SegmentSeq(1));
            writer.close().await;
            // In this process, which goes on: the next start finds it free at once.
            let file = File::open(directory.segment(SegmentSeq(1))).unwrap();
            file.try_lock().expect("nobody has it open");
            let path = directory.segment(SegmentSeq(1));
            let is_it = |entry: std::io::Result<std::fs::DirEntry>| {
                std::fs::read_link(entry.unwrap().path()).is_ok_and(|target| target == path)
            };
            let open = std::fs::read_dir("/proc/self/fd").unwrap();
            assert_eq!(open.map(is_it).filter(|is| *is).count(), 1, "the test's own");
        });
    }

    #[test]
    fn what_was_reported_is_read_back_small_and_in_parts() {
        for method in [FlushMethod::Dsync, FlushMethod::Fdatasync] {
            is_read_back(method);
        }
    }

    fn is_read_back(method: FlushMethod) {
        let scratch = Scratch::new("wal-writer");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        directory.make(SegmentSeq(1)).unwrap();
        let written = directory.clone();
        run_on_executor(move || async move {
            let inbox = Rc::new(Inbox::default());
            let (mut writer, mut ring) = writer(written, method, &inbox);
            let mut appender = Appender::new(IDENTITY, Position::default());
            appender.on_spare(SegmentSeq(1));
            // The second is cut into parts; all four are in flight at once.
            for (index, bytes) in [(1, 100), (2, 1_000_000), (3, 5_000), (4, 300_000)] {
                writer.start(appender.place(batch(index, bytes)), &mut ring);
            }
            assert_eq!(writer.in_flight(), 4);
            let tickets = finished(&mut writer, &mut ring).await;
            assert_eq!(tickets.len(), 4);
            tickets.into_iter().for_each(|ticket| appender.on_durable(ticket));
            writer.start(appender.closing_write().expect("the last batch is unproven"), &mut ring);
            assert_eq!(finished(&mut writer, &mut ring).await.len(), 1);
            writer.close().await;
        });

        let bytes = std::fs::read(directory.segment(SegmentSeq(1))).unwrap();
        let mut recovery = Recovery::new(IDENTITY);
        let mut found = Vec::new();
        recovery
            .segment(SegmentSeq(1), &bytes, &mut |run| {
                let sizes = run.entries().map(|entry| entry.payload.len());
                found.extend(sizes.map(|bytes| (run.first.0, bytes)));
            })
            .unwrap();
        assert_eq!(found, [(1, 100), (2, 1_000_000), (3, 5_000), (4, 300_000)]);
        assert_eq!(recovery.finish().unwrap().torn, None);
    }

    #[test]
    fn contract_row_30_a_failed_write_ends_the_log_and_nothing_is_reported_after_it() {
        let scratch = Scratch::new("wal-writer-dead");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        directory.make(SegmentSeq(2)).unwrap();
        run_on_executor(move || async move {
            let inbox = Rc::new(Inbox::default());
            let (mut writer, mut ring) = writer(directory, FlushMethod::Dsync, &inbox);
            let mut appender = Appender::new(IDENTITY, Position::default());
            // The shard believes in a segment that is not there.
            appender.on_spare(SegmentSeq(1));
            writer.start(appender.place(batch(1, 100)), &mut ring);
            assert!(finished(&mut writer, &mut ring).await.is_empty());
            let fatal = inbox.fatal().expect("the node must stop").to_string();
            assert!(fatal.starts_with("log open failed: "), "{fatal}");
            assert!(fatal.contains("0000000000000001.seg: No such file"), "{fatal}");
            writer.start(appender.place(batch(2, 100)), &mut ring);
            assert!(finished(&mut writer, &mut ring).await.is_empty());
        });
    }
}
