//! The log of one core, usable alone: the engine under a shard, without the shard.
//!
//! ```text
//!  append ─► gathered ─► Appender::place ─► WalWriter ─► Ring ─► disk      one write, one flush for all that
//!                ▲       (up to 4 at once)                 │               came while others were in flight
//!                └───────── turn ◄─────────────────────────┘
//!                            └─► durable: a watermark over the tickets of append
//! ```
//!
//! It is made of the parts a node is made of ([`Directory`], [`Preparer`], [`WalWriter`], [`Ring`], recovery)
//! and writes what a node writes: whatever holds for a node's log holds here (see [`crate::wal`]). What
//! is missing is what a shard does with it: no index of where entries lie, no cache, no snapshots.
//!
//! One thread owns it, with a glommio executor around it; [`on_core`] starts one. Nothing happens between
//! calls: hand over what there is with [`Log::append`], then [`Log::turn`] or [`Log::wait`].
//!
//! # Example
//!
//! ```
//! use bytes::Bytes;
//! use outrigger::entry::Entry;
//! use outrigger::id::{ClusterId, GroupId, Index, NodeId, ShardId, Term};
//! use outrigger::raft::HardState;
//! use outrigger::runtime::log::{Log, Settings, on_core};
//! use outrigger::wal::{Identity, Run, RunKind};
//!
//! # let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/log-example");
//! # let _ = std::fs::remove_dir_all(&dir);
//! # let dir_of_example = dir.clone();
//! on_core("log", move || async move {
//!     let identity = Identity { cluster: ClusterId(1), node: NodeId(1), shard: ShardId(0) };
//!     let (mut log, _) = Log::open(Settings::new(dir.clone(), identity), |_| {})?;
//!     let ticket = log.append([Run {
//!         kind: RunKind::Log,
//!         is_forgetful: false,
//!         group: GroupId(7),
//!         hard_state: HardState::default(),
//!         run_term: Term(1),
//!         first: Index(1),
//!         entries: [Entry::command(Bytes::from_static(b"hello"))].into_iter().collect(),
//!     }])?;
//!     assert!(log.durable() < ticket, "nothing has been flushed");
//!     log.wait_for(ticket).await?;
//!     log.close().await?;
//!
//!     let mut found = Vec::new();
//!     let (log, opened) = Log::open(Settings::new(dir, identity), |run| {
//!         found.extend(run.entries().map(|entry| (run.group, run.first, entry.payload.to_vec())));
//!     })?;
//!     assert_eq!(found, [(GroupId(7), Index(1), b"hello".to_vec())]);
//!     assert_eq!(opened.entries, 1);
//!     log.close().await
//! })??;
//! # std::fs::remove_dir_all(dir_of_example).unwrap();
//! # Ok::<(), outrigger::runtime::Fatal>(())
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};

use crate::config::FlushMethod;
use crate::id::{FlushTicket, SegmentSeq};
use crate::limits::{
    FLUSHES_IN_FLIGHT_MAX, LOG_WRITE_BYTES_SOFT, MAILBOX_MAX, RESERVE_WRITE_BYTES_MIN,
};
use crate::shard::Event;
use crate::wal::{
    Appender, Batch, EntryList, EntryLists, Identity, Recovered, RecoveredRun, Room, Run, Write,
};

use super::fatal::Fatal;
use super::identity::lock_in_time;
use super::inbox::Inbox;
use super::mailbox::Mailbox;
use super::metrics::Durations;
use super::node::PREEMPT;
use super::poller::{Poller, Ready};
use super::recovery::Recovery;
use super::ring::{Done, Ring};
use super::segments::{Directory, Made, Origin, Preparer};
use super::shard_loop::{TASKS, TICK};
use super::sleep::Sleeper;
use super::wal_writer::WalWriter;

/// How a log is opened; data only.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it lies: a directory of its own, made if it is missing. One [`Log`] at a time; on a file
    /// system that accepts O_DIRECT.
    pub dir: PathBuf,
    /// Whose it is. A log of another identity is refused.
    pub identity: Identity,
    /// How a write is made durable. Default [`FlushMethod::Dsync`].
    pub flush_method: FlushMethod,
    /// Writes in flight at a time. Default [`FLUSHES_IN_FLIGHT_MAX`], the most; at least 1.
    pub flushes_in_flight: usize,
    /// Bytes of segments the directory may hold. Default 1 TiB; at least three segments. Past that
    /// nothing is written until [`Log::reclaim`] has made room.
    pub bytes_max: u64,
    /// Bytes that may wait for their write. Default 64 MiB. Past that [`Log::append`] refuses.
    pub gathered_bytes_max: usize,
}

impl Settings {
    /// The defaults.
    #[must_use]
    pub const fn new(dir: PathBuf, identity: Identity) -> Self {
        Self {
            dir,
            identity,
            flush_method: FlushMethod::Dsync,
            flushes_in_flight: FLUSHES_IN_FLIGHT_MAX,
            bytes_max: 1 << 40,
            gathered_bytes_max: 64 << 20,
        }
    }
}

/// The name of one [`Log::append`]. Zero names none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What was in the directory.
#[derive(Debug)]
pub struct Opened {
    /// What the log says of itself: sizes, and the torn tail if there was one.
    pub log: Recovered,
    /// Entries read, superseded ones included.
    pub entries: u64,
}

/// What has been written since the log was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Writes, of which each is flushed once.
    pub writes: u64,
    /// Their bytes, headers and padding included.
    pub bytes: u64,
    /// Segments made, each of [`crate::limits::SEGMENT_BYTES`] zeros.
    pub segments_made: u64,
    /// Segments made without a write, because writes were of [`RESERVE_WRITE_BYTES_MIN`] and more.
    pub segments_reserved: u64,
    /// Segments that were given up before, and became spares without a write.
    pub segments_recycled: u64,
}

/// Too much waits already. Nothing was taken; retry after [`Log::wait`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bytes} bytes wait to be written, gathered_bytes_max is {bytes_max}: wait, then append again"
)]
pub struct Busy {
    bytes: usize,
    bytes_max: usize,
}

impl From<Busy> for Fatal {
    fn from(busy: Busy) -> Self {
        Self::new(busy.to_string())
    }
}

/// One log. Owned by the thread that opened it, and to be [closed](Log::close): one that is dropped instead
/// is as after a crash, and its files stay locked until the process ends.
#[derive(Debug)]
pub struct Log {
    appender: Appender,
    writer: WalWriter,
    ring: Ring,
    preparer: Preparer,
    poller: Poller,
    mailbox: Arc<Mailbox<Made>>,
    sleeper: Sleeper<Made>,
    inbox: Rc<Inbox>,
    flushes_max: usize,
    gathered_bytes_max: usize,
    /// What waits for its write, oldest first: runs, and the last append that ends among them.
    gathered: VecDeque<(Batch, Ticket)>,
    gathered_bytes: usize,
    /// Batches that were written, empty, with the memory of their lists. As many as there are flushes in flight.
    batches: Vec<Batch>,
    /// Writes not durable, oldest first: the last append that ends in each, and whether it is durable
    /// but for those before it.
    in_flight: VecDeque<(FlushTicket, Ticket, bool)>,
    last: Ticket,
    durable: Ticket,
    spare_asked: Option<SegmentSeq>,
    is_full: bool,
    written: Written,
    /// As it was when a spare was last asked for: what was written since tells how large writes are.
    written_when_asked: Written,
    writes_are_large: bool,
    events: Vec<Event>,
    done: Vec<Done>,
    ready: Vec<Ready>,
    mail: Vec<Made>,
    /// Held while the log is open.
    _lock: File,
}

impl Log {
    /// Open the log in a directory: read all of it, then go on behind its end. `on_run` sees every run,
    /// verified, in the order they take effect.
    ///
    /// # Errors
    /// When the directory cannot be used, somebody else uses it, or the log is damaged where it had been
    /// durable. The text names the file. What `on_run` saw is void then.
    ///
    /// # Panics
    /// Later, when something is written, if the thread has no glommio executor; see [`on_core`].
    pub fn open(
        settings: Settings,
        on_run: impl FnMut(&RecoveredRun<'_>),
    ) -> Result<(Self, Opened), Fatal> {
        let Settings { dir, identity, flush_method, flushes_in_flight, .. } = settings;
        let text = dir.display().to_string();
        let failed = |error: std::io::Error| Fatal::new(format!("cannot open {text}: {error}"));
        let directory = Directory::open(dir).map_err(failed)?;
        let lock = File::open(directory.path()).map_err(failed)?;
        if !lock_in_time(&lock, 0).map_err(failed)? {
            return Err(Fatal::new(format!("{text} is in use; close the log that is open there")));
        }
        let mut recovery = Recovery::of_log(directory.clone(), identity, on_run)?;
        while recovery.step()? {}
        let (opened, spares) = recovery.finish_log()?;

        let mailbox = Arc::new(Mailbox::new(MAILBOX_MAX).map_err(failed)?);
        let poller = Poller::new().map_err(failed)?;
        let inbox = Rc::new(Inbox::default());
        let made = Arc::clone(&mailbox);
        let mut log = Self {
            appender: Appender::new(identity, opened.log.position),
            writer: WalWriter::new(directory.clone(), flush_method, Rc::clone(&inbox), None),
            ring: Ring::new(&poller, Duration::ZERO).map_err(failed)?,
            preparer: Preparer::start(
                "prep".into(),
                directory,
                settings.bytes_max,
                move |outcome| {
                    made.deliver(outcome);
                },
            )
            .map_err(failed)?,
            sleeper: Sleeper::new(&poller, Arc::clone(&mailbox)).map_err(failed)?,
            poller,
            mailbox,
            inbox,
            flushes_max: flushes_in_flight.clamp(1, FLUSHES_IN_FLIGHT_MAX),
            gathered_bytes_max: settings.gathered_bytes_max,
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            batches: Vec::new(),
            in_flight: VecDeque::new(),
            last: Ticket(0),
            durable: Ticket(0),
            spare_asked: None,
            is_full: false,
            written: Written::default(),
            written_when_asked: Written::default(),
            writes_are_large: false,
            events: Vec::new(),
            done: Vec::new(),
            ready: Vec::new(),
            mail: Vec::new(),
            _lock: lock,
        };
        for spare in spares {
            log.appender.on_spare(spare);
        }
        log.ask_spare();
        Ok((log, opened))
    }

    /// Take runs that are to become durable. They wait in memory until [`Log::turn`] writes them, together
    /// with whatever else waits then. Runs take effect in the order they are appended; the caller has
    /// seen to it that indexes and terms of each group are in order.
    ///
    /// # Errors
    /// [`Busy`]: more than `gathered_bytes_max` waits. Nothing was taken.
    ///
    /// # Panics
    /// If a run is one that the log would refuse to open; see [`Batch::push`].
    pub fn append(&mut self, runs: impl IntoIterator<Item = Run>) -> Result<Ticket, Busy> {
        if self.gathered_bytes_max <= self.gathered_bytes {
            let (bytes, bytes_max) = (self.gathered_bytes, self.gathered_bytes_max);
            return Err(Busy { bytes, bytes_max });
        }
        let before = self.last;
        self.last = Ticket(before.0 + 1);
        for run in runs {
            let bytes = run.bytes();
            let has_room = |(batch, _): &(Batch, _)| batch.bytes() + bytes <= LOG_WRITE_BYTES_SOFT;
            if !self.gathered.back().is_some_and(has_room) {
                self.gathered.push_back((self.batches.pop().unwrap_or_default(), before));
            }
            if let Some((batch, _)) = self.gathered.back_mut() {
                self.gathered_bytes += bytes;
                batch.push(run);
            }
        }
        match (self.gathered.back_mut(), self.in_flight.back_mut()) {
            (Some((_, ends)), _) | (None, Some((_, ends, _))) => *ends = self.last,
            // Nothing to write, and nothing on its way.
            (None, None) => self.durable = self.last,
        }
        Ok(self.last)
    }

    /// An empty list for the entries of a run that is to be appended: one of a run that was written, if there
    /// is one. Nobody has to use it; a list of any other origin serves as well.
    #[must_use]
    pub fn list(&mut self, entries: usize) -> EntryList {
        let gathering = self.gathered.back_mut().map(|(batch, _)| batch);
        let kept = gathering.or(self.batches.last_mut());
        kept.map_or_else(|| EntryLists::default().take(entries), |it| it.lists().take(entries))
    }

    /// All appends up to this one are durable, as far as [`Log::turn`] has heard.
    #[must_use]
    pub const fn durable(&self) -> Ticket {
        self.durable
    }

    /// Take up what the disk has done, and start to write what waits, as far as more may be in flight.
    /// Never waits. The kernel hears of new writes before this returns.
    ///
    /// # Errors
    /// The disk has failed: nothing that is not durable by now ever will be, and nothing may be retried.
    pub fn turn(&mut self) -> Result<Ticket, Fatal> {
        self.reap()?;
        self.start();
        self.ring.submit().map_err(|error| Fatal::new(format!("cannot write the log: {error}")))?;
        Ok(self.durable)
    }

    /// Start to write what waits, as far as more may be in flight, then wait until the disk has done
    /// something, for 5 ms at most. One system call does both. What can be written now is written by the
    /// next call, so that it goes with what the caller appends in between.
    ///
    /// # Errors
    /// As [`Log::turn`].
    pub async fn wait(&mut self) -> Result<Ticket, Fatal> {
        self.start();
        let has_tasks = self.writer.has_tasks();
        let timeout = if has_tasks { Duration::ZERO } else { TICK };
        let slept = self.sleeper.sleep(&mut self.ring, timeout);
        slept.map_err(|error| Fatal::new(format!("cannot wait for the log: {error}")))?;
        if has_tasks {
            // Files are being opened or closed: glommio goes once around.
            glommio::timer::sleep(TASKS).await;
        }
        self.reap()?;
        Ok(self.durable)
    }

    /// Wait until this append and all before it are durable.
    ///
    /// # Errors
    /// As [`Log::turn`].
    pub async fn wait_for(&mut self, ticket: Ticket) -> Result<(), Fatal> {
        while self.durable < ticket {
            self.wait().await?;
        }
        Ok(())
    }

    /// Wait until everything is durable, let the log prove that it is whole, and close its files. Blocks
    /// until the segments that were asked for are made or deleted.
    ///
    /// # Errors
    /// As [`Log::turn`].
    pub async fn close(mut self) -> Result<(), Fatal> {
        self.wait_for(self.last).await?;
        if let Some(write) = self.appender.closing_write() {
            self.begin(write, self.last);
        }
        while !self.in_flight.is_empty() || self.writer.has_tasks() {
            self.wait().await?;
        }
        self.writer.close().await;
        self.preparer.finish();
        Ok(())
    }

    /// Give up the segments in front of `first`, which nobody needs any more: a note of where the log
    /// begins is made durable, then the files go, on a thread of its own. A later `open` begins there.
    ///
    /// # Panics
    /// If that would take the segment being written.
    pub fn reclaim(&mut self, first: SegmentSeq) {
        assert!(
            self.appender.open_segment().is_some_and(|open| first <= open),
            "still being written"
        );
        self.preparer.reclaim(first);
    }

    /// The segment being written; `None` before the first write.
    #[must_use]
    pub const fn segment(&self) -> Option<SegmentSeq> {
        self.appender.open_segment()
    }

    /// Whether there is no room for another segment: what waits is written once there is.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.is_full
    }

    /// What has been written since the log was opened.
    #[must_use]
    pub const fn written(&self) -> Written {
        self.written
    }

    /// How long writes took until they were durable, each counted by itself.
    #[must_use]
    pub fn durations(&self) -> &Durations {
        self.writer.durations()
    }

    /// What the disk has done.
    fn reap(&mut self) -> Result<(), Fatal> {
        self.ring.take(&mut self.done);
        for done in self.done.drain(..) {
            self.writer.on_done(done, &mut self.ring, &mut self.events);
        }
        self.writer.tick(&mut self.ring, &mut self.events);
        if let Some(fatal) = self.inbox.fatal() {
            return Err(fatal);
        }
        self.open_mail()?;
        for event in self.events.drain(..) {
            if let Event::Flushed(ticket) = event
                && let Some(write) = self.in_flight.iter_mut().find(|write| write.0 == ticket)
            {
                write.2 = true;
            }
        }
        // A write that overtook an earlier one waits for it: recovery ends at the first hole.
        while let Some(&(ticket, ends, true)) = self.in_flight.front() {
            self.in_flight.pop_front();
            self.appender.on_durable(ticket);
            self.durable = ends;
        }
        self.ask_spare();
        Ok(())
    }

    /// What waits is written, as far as more may be in flight.
    fn start(&mut self) {
        while self.in_flight.len() < self.flushes_max
            && let Some((batch, _)) = self.gathered.front()
            && self.appender.can_place(batch.bytes()) == Room::Yes
            && let Some((batch, ends)) = self.gathered.pop_front()
        {
            self.gathered_bytes -= batch.runs().iter().map(Run::bytes).sum::<usize>();
            let write = self.appender.place(batch);
            self.begin(write, ends);
        }
        self.ask_spare();
    }

    fn begin(&mut self, write: Write, ends: Ticket) {
        self.written.writes += 1;
        self.written.bytes += write.bytes as u64;
        self.in_flight.push_back((write.ticket, ends, false));
        // One whose file is not open yet is kept by the writer, and its batch is not used again.
        if let Some(write) = self.writer.start(write, &mut self.ring)
            && self.batches.len() < FLUSHES_IN_FLIGHT_MAX
        {
            let mut batch = write.into_batch();
            batch.clear();
            self.batches.push(batch);
        }
    }

    fn open_mail(&mut self) -> Result<(), Fatal> {
        if self.ring.is_rung() {
            let polled = self.poller.poll(&mut self.ready);
            polled.map_err(|error| Fatal::new(format!("cannot poll the log's bell: {error}")))?;
            if !self.ready.is_empty() {
                self.ready.clear();
                self.mailbox.silence();
            }
        }
        self.mailbox.take(&mut self.mail);
        for made in self.mail.drain(..) {
            match made {
                Made::Ready(seq, origin) => {
                    match origin {
                        Origin::Zeros => self.written.segments_made += 1,
                        Origin::Reserved => self.written.segments_reserved += 1,
                        Origin::Retired => self.written.segments_recycled += 1,
                    }
                    self.writer.open_ahead(seq);
                    self.appender.on_spare(seq);
                    if self.spare_asked == Some(seq) {
                        self.spare_asked = None;
                    }
                }
                Made::Full(is_full) => self.is_full = is_full,
                Made::Failed(cause) => return Err(Fatal::new(cause)),
            }
        }
        Ok(())
    }

    fn ask_spare(&mut self) {
        if self.spare_asked.is_none()
            && let Some(seq) = self.appender.wants_spare()
        {
            self.spare_asked = Some(seq);
            let (now, before) = (self.written, self.written_when_asked);
            let (writes, bytes) = (now.writes - before.writes, now.bytes - before.bytes);
            if 0 < writes {
                self.written_when_asked = now;
                self.writes_are_large = writes * RESERVE_WRITE_BYTES_MIN <= bytes;
            }
            if self.writes_are_large {
                self.preparer.want_reserved(seq);
            } else {
                self.preparer.want(seq);
            }
        }
    }
}

/// Run `work` as a core runs: on a thread of its own, in an executor that preempts nobody. Returns what it
/// returns, once it has.
///
/// # Errors
/// When the executor cannot be started (io_uring is switched off, or there is no memory it may lock), or
/// `work` has panicked.
pub fn on_core<T, F>(name: &str, work: impl FnOnce() -> F + Send + 'static) -> Result<T, Fatal>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let builder = LocalExecutorBuilder::new(Placement::Unbound).name(name).preempt_timer(PREEMPT);
    let failed = |error| Fatal::new(format!("cannot run {name}: {error}"));
    builder.spawn(work).map_err(failed)?.join().map_err(failed)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::entry::Entry;
    use crate::id::{ClusterId, GroupId, Index, NodeId, ShardId, Term};
    use crate::limits::SEGMENT_BYTES;
    use crate::raft::HardState;
    use crate::runtime::clock::Clock;
    use crate::runtime::faults::Faults;
    use crate::runtime::scratch::Scratch;
    use crate::wal::{RunKind, retired_name};
    use crate::wire::resp::Command;

    const IDENTITY: Identity =
        Identity { cluster: ClusterId(3), node: NodeId(1), shard: ShardId(0) };

    fn run(group: u64, index: u64, bytes: usize) -> Run {
        Run {
            kind: RunKind::Log,
            is_forgetful: false,
            group: GroupId(group),
            hard_state: HardState::default(),
            run_term: Term(1),
            first: Index(index),
            entries: [Entry::command(Bytes::from(vec![index as u8; bytes]))].into_iter().collect(),
        }
    }

    /// Open, and return what was found: group, index, bytes.
    fn reopen(settings: &Settings) -> (Log, Opened, Vec<(u64, u64, usize)>) {
        let mut found = Vec::new();
        let (log, opened) = Log::open(settings.clone(), |run| {
            let sizes = run.entries().map(|entry| entry.payload.len());
            found.extend(sizes.map(|bytes| (run.group.0, run.first.0, bytes)));
        })
        .unwrap();
        (log, opened, found)
    }

    fn settings(scratch: &Scratch) -> Settings {
        Settings::new(scratch.path().join("log"), IDENTITY)
    }

    #[test]
    fn what_was_appended_is_read_back_after_a_close_and_after_a_crash() {
        let scratch = Scratch::new("log");
        let settings = settings(&scratch);
        on_core("test", move || async move {
            let (mut log, opened, found) = reopen(&settings);
            assert_eq!((opened.entries, found.len()), (0, 0));
            // The third is nothing at all.
            let first = log.append([run(1, 1, 100)]).unwrap();
            let large = log.append((1..=20).map(|index| run(2, index, 60_000))).unwrap();
            let none = log.append([]).unwrap();
            assert!(first < large && large < none && log.durable() < first);
            log.wait_for(none).await.unwrap();
            assert_eq!(
                log.written().writes,
                1,
                "all of it, as it is no more than one write may hold"
            );
            log.close().await.unwrap();

            let (mut log, opened, found) = reopen(&settings);
            assert_eq!((opened.entries, opened.log.torn), (21, None));
            assert_eq!((found[0], found[20]), ((1, 1, 100), (2, 20, 60_000)));
            let ticket = log.append([run(1, 2, 5)]).unwrap();
            log.wait_for(ticket).await.unwrap();
            // What a crash leaves is what lies there now.
            let crashed = Directory::open(scratch.path().join("crashed")).unwrap();
            let directory = Directory::open(settings.dir.clone()).unwrap();
            for seq in directory.segments().unwrap() {
                std::fs::copy(directory.segment(seq), crashed.segment(seq)).unwrap();
            }
            log.close().await.unwrap();
            let settings = Settings { dir: crashed.path().to_owned(), ..settings };
            let (log, opened, found) = reopen(&settings);
            assert_eq!((opened.entries, found[21]), (22, (1, 2, 5)));
            log.close().await.unwrap();
        })
        .unwrap();
    }

    #[test]
    fn nothing_is_durable_before_its_flush_and_what_waits_shares_one() {
        let scratch = Scratch::new("log-stalled");
        let settings = Settings { gathered_bytes_max: 10_000, ..settings(&scratch) };
        on_core("test", move || async move {
            let (mut log, ..) = reopen(&settings);
            let directory = Directory::open(settings.dir.clone()).unwrap();
            let faults = Arc::new(Faults::new(Clock::start()));
            let stall = |ms| Command::from_args(&[b"DEBUG", b"STALL-DISK", ms]);
            faults.answer(&stall(b"60000")).expect("it is a switch");
            let (method, inbox) = (FlushMethod::Dsync, Rc::clone(&log.inbox));
            log.writer = WalWriter::new(directory, method, inbox, Some(Arc::clone(&faults)));

            let mut tickets = Vec::new();
            for index in 1..=FLUSHES_IN_FLIGHT_MAX as u64 {
                tickets.push(log.append([run(1, index, 10)]).unwrap());
                while log.written().writes < index {
                    log.wait().await.unwrap();
                }
            }
            for index in 5..=8 {
                tickets.push(log.append([run(1, index, 3_000)]).unwrap());
                log.turn().unwrap();
            }
            assert!(log.append([run(1, 9, 10)]).is_err(), "too much waits");
            // By now the kernel has written them; they are not flushed.
            for _ in 0..20 {
                log.wait().await.unwrap();
            }
            assert_eq!((log.durable(), log.written().writes), (Ticket(0), 4));
            faults.answer(&stall(b"0")).expect("it is a switch");
            log.wait_for(tickets[7]).await.unwrap();
            assert_eq!(log.written().writes, 5, "what had waited went in one write");
            log.close().await.unwrap();
        })
        .unwrap();
    }

    #[test]
    fn what_waits_is_cut_into_writes_and_their_memory_serves_for_the_next() {
        let scratch = Scratch::new("log-reuse");
        let settings = settings(&scratch);
        on_core("test", move || async move {
            let (mut log, ..) = reopen(&settings);
            let long = |log: &mut Log, first: u64, entries: u64| {
                let mut list = log.list(entries as usize);
                list.extend((0..entries).map(|at| Entry::command(Bytes::from(vec![at as u8; 9]))));
                (list.as_ptr(), Run { first: Index(first), entries: list, ..run(1, 1, 1) })
            };
            let (_, first) = long(&mut log, 1, 40);
            let ticket = log.append([first]).unwrap();
            log.wait_for(ticket).await.unwrap();
            assert_eq!(log.batches.len(), 0, "the file was opened for it: it waited elsewhere");
            let (memory, second) = long(&mut log, 41, 40);
            let ticket = log.append([second]).unwrap();
            log.wait_for(ticket).await.unwrap();
            assert_eq!(log.batches.len(), 1);
            let (memory_of_third, third) = long(&mut log, 81, 40);
            assert_eq!(memory_of_third, memory, "of the write before");
            let writes = log.written().writes;
            log.append([third]).unwrap();
            assert_eq!(log.batches.len(), 0, "it is being filled");
            // Three of these are more than one write holds.
            let bytes = LOG_WRITE_BYTES_SOFT / 16 * 7;
            let ticket = log.append((1..=6).map(|index| run(2, index, bytes))).unwrap();
            log.wait_for(ticket).await.unwrap();
            assert_eq!(log.written().writes - writes, 3);
            assert_eq!(log.batches.len(), 3);
            log.close().await.unwrap();
            let (log, opened, found) = reopen(&settings);
            assert_eq!((opened.entries, found.len()), (126, 126));
            log.close().await.unwrap();
        })
        .unwrap();
    }

    #[test]
    fn one_process_has_it_and_segments_are_given_up() {
        let scratch = Scratch::new("log-reclaim");
        let settings = settings(&scratch);
        on_core("test", move || async move {
            let (mut log, ..) = reopen(&settings);
            let again = Log::open(settings.clone(), |_| {}).map(|_| ()).unwrap_err().to_string();
            assert!(again.ends_with("is in use; close the log that is open there"), "{again}");
            let mut index = 0;
            while log.segment() != Some(SegmentSeq(3)) {
                index += 1;
                let ticket = log.append([run(1, index, SEGMENT_BYTES / 16)]).unwrap();
                log.wait_for(ticket).await.unwrap();
            }
            log.reclaim(SegmentSeq(3));
            log.close().await.unwrap();
            let (log, opened, found) = reopen(&settings);
            assert_eq!((opened.log.segments, found.len()), (1, 1));
            assert_eq!(found[0].1, index);
            log.close().await.unwrap();
        })
        .unwrap();
    }

    #[test]
    fn what_grows_by_large_writes_gets_segments_that_are_only_reserved_and_small_ones_zeros() {
        let scratch = Scratch::new("log-reserved");
        let settings = settings(&scratch);
        on_core("test", move || async move {
            let (mut log, ..) = reopen(&settings);
            let mut index = 0;
            // Writes of 4 MiB: the segments that are asked for once they are known to come.
            fill(&mut log, &mut index, SegmentSeq(4)).await;
            while log.written().segments_reserved == 0 {
                log.wait().await.unwrap();
            }
            let made = log.written().segments_made;
            assert!((2..=3).contains(&made), "{made} before anything large was written");
            // What it wrote there is found after a crash, and nothing else.
            let crashed = Directory::open(scratch.path().join("crashed")).unwrap();
            let directory = Directory::open(settings.dir.clone()).unwrap();
            for seq in directory.segments().unwrap() {
                std::fs::copy(directory.segment(seq), crashed.segment(seq)).unwrap();
            }
            let elsewhere = Settings { dir: crashed.path().to_owned(), ..settings.clone() };
            let (other, opened, found) = reopen(&elsewhere);
            assert_eq!((opened.entries, opened.log.torn), (index, None));
            assert_eq!(found.len() as u64, index);
            other.close().await.unwrap();
            // Now small ones among the large: most writes are small when the next segment is asked for.
            let reserved = log.written().segments_reserved;
            let until = SegmentSeq(log.segment().unwrap().0 + 4);
            while log.segment().is_none_or(|open| open < until) {
                for _ in 0..8 {
                    index += 1;
                    let ticket = log.append([run(1, index, 10)]).unwrap();
                    log.wait_for(ticket).await.unwrap();
                }
                index += 1;
                let ticket = log.append([run(1, index, SEGMENT_BYTES / 16)]).unwrap();
                log.wait_for(ticket).await.unwrap();
            }
            assert!(made < log.written().segments_made, "{:?}", log.written());
            assert!(log.written().segments_reserved <= reserved + 2, "{:?}", log.written());
            log.close().await.unwrap();
        })
        .unwrap();
    }

    async fn fill(log: &mut Log, index: &mut u64, until: SegmentSeq) {
        while log.segment().is_none_or(|open| open < until) {
            *index += 1;
            let ticket = log.append([run(1, *index, SEGMENT_BYTES / 16)]).unwrap();
            log.wait_for(ticket).await.unwrap();
        }
    }

    #[test]
    fn contract_row_27_a_segment_that_was_given_up_is_used_again_and_its_past_is_not_read() {
        let scratch = Scratch::new("log-recycled");
        let settings = settings(&scratch);
        on_core("test", move || async move {
            let directory = Directory::open(settings.dir.clone()).unwrap();
            let (mut log, ..) = reopen(&settings);
            let mut index = 0;
            fill(&mut log, &mut index, SegmentSeq(3)).await;
            let first = index;
            log.reclaim(SegmentSeq(3));
            fill(&mut log, &mut index, SegmentSeq(4)).await;
            while log.written().segments_recycled == 0 {
                log.wait().await.unwrap();
            }
            log.close().await.unwrap();
            let is_whole = |found: &[(u64, u64, usize)], last: u64| {
                let indices: Vec<u64> = found.iter().map(|(_, index, _)| *index).collect();
                assert_eq!(indices, (first..=last).collect::<Vec<_>>());
            };

            // Power is lost when a spare has its name and the directory is not durable: it has the old
            // one or the new one.
            let renamed = directory.segments().unwrap().pop().unwrap();
            assert_ne!(directory.first_block(renamed).unwrap()[0], 0, "full of its past");
            let spare = directory.segment(renamed);
            let retired = directory.path().join(retired_name(SegmentSeq(1)));
            std::fs::rename(&spare, &retired).unwrap();
            let crashed = Directory::open(scratch.path().join("crashed")).unwrap();
            for entry in std::fs::read_dir(directory.path()).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), crashed.path().join(entry.file_name())).unwrap();
            }
            let elsewhere = Settings { dir: crashed.path().to_owned(), ..settings.clone() };
            let (log, opened, found) = reopen(&elsewhere);
            assert_eq!(opened.log.torn, None);
            is_whole(&found, index);
            log.close().await.unwrap();
            std::fs::rename(&retired, &spare).unwrap();
            let (mut log, opened, found) = reopen(&settings);
            assert_eq!(opened.log.torn, None);
            assert!(opened.log.spares.contains(&renamed) && opened.log.discard.is_empty());
            is_whole(&found, index);

            // Its next life is written over what is left of the others.
            fill(&mut log, &mut index, renamed.next()).await;
            log.close().await.unwrap();
            let (log, opened, found) = reopen(&settings);
            assert_eq!(opened.log.torn, None);
            is_whole(&found, index);
            log.close().await.unwrap();
        })
        .unwrap();
    }
}
