//! Replays one core's log before anything else happens on that core.
//!
//! It runs on the core's own thread, one segment at a time, so that between segments the core can
//! tell its clients that it is loading. Meanwhile a thread beside it brings the next segment into memory and
//! takes its checksums:
//!
//! ```text
//!   beside      read 2        │ read 3        │ read 4
//!   core        replay 1      │ replay 2      │ replay 3
//! ```
//!
//! Nothing is copied on the way: entries are slices of the map until the machine has executed them
//! (docs/decisions/0011).

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::id::{GroupId, SegmentSeq, Tick};
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES};
use crate::shard::{self, Alone, Config, RecoverError, Recovering, Shard};
use crate::store::StateMachine;
use crate::store::map::Map;
use crate::wal::{self, Checked, Damage, Identity, Location, RecoveredRun, SegmentHeader};

use super::fatal::Fatal;
use super::log::Opened;
use super::mapped::Mapped;
use super::segments::Directory;

/// A replay that takes longer than this tells how far it is, this often.
const PROGRESS: Duration = Duration::from_secs(1);

/// What the segments of a log are read into.
pub trait Replay {
    /// Why it cannot be.
    type Error: fmt::Display;

    /// Whose log it is.
    fn identity(&self) -> Identity;

    /// See [`wal::Recovery::look_ahead`].
    fn look_ahead(&mut self, segment: SegmentSeq, block: &[u8]) -> Option<Location>;

    /// See [`wal::Recovery::trust`].
    fn trust(&mut self, checked: Checked);

    /// The next segment, whole.
    ///
    /// # Errors
    /// When it is damaged where it must not be, or contradicts what came before.
    fn segment(&mut self, segment: SegmentSeq, bytes: &Bytes) -> Result<(), Self::Error>;
}

impl Replay for Recovering {
    type Error = RecoverError;

    fn identity(&self) -> Identity {
        Self::identity(self)
    }

    fn trust(&mut self, checked: Checked) {
        Self::trust(self, checked);
    }

    fn look_ahead(&mut self, segment: SegmentSeq, block: &[u8]) -> Option<Location> {
        Self::look_ahead(self, segment, block)
    }

    fn segment(&mut self, segment: SegmentSeq, bytes: &Bytes) -> Result<(), RecoverError> {
        Self::segment(self, segment, bytes)
    }
}

/// A log that is read for its runs alone.
pub struct Runs<F> {
    identity: Identity,
    recovery: wal::Recovery,
    on_run: F,
    entries: u64,
}

impl<F: FnMut(&RecoveredRun<'_>)> Replay for Runs<F> {
    type Error = Damage;

    fn identity(&self) -> Identity {
        self.identity
    }

    fn trust(&mut self, checked: Checked) {
        self.recovery.trust(checked);
    }

    fn look_ahead(&mut self, segment: SegmentSeq, block: &[u8]) -> Option<Location> {
        self.recovery.look_ahead(segment, block)
    }

    fn segment(&mut self, segment: SegmentSeq, bytes: &Bytes) -> Result<(), Damage> {
        let Self { recovery, on_run, entries, .. } = self;
        recovery.segment(segment, bytes, &mut |run| {
            *entries += run.count;
            on_run(&run);
        })
    }
}

/// A segment in memory, which of its batches are whole, and how much of it was read.
type Ahead = (Bytes, Checked, u64);

/// The replay of one core. Lives until its shard does.
pub struct Recovery<R = Recovering> {
    directory: Directory,
    recovering: R,
    segments: Vec<SegmentSeq>,
    done: usize,
    /// Where each segment but the last ends.
    ends: Vec<Location>,
    /// The segment that is read next is on its way into memory.
    ahead: Option<(SegmentSeq, JoinHandle<std::io::Result<Ahead>>)>,
    /// What is wrong with the note that says where the log begins.
    no_note: Option<String>,
    core: u16,
    started: Instant,
    told: Instant,
}

impl Recovery {
    /// Look at what is in the directory, and delete what a crash left half made.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn begin(directory: Directory, config: Config) -> Result<Self, Fatal> {
        Self::begin_with(directory, config, &|_| Box::new(Map::new()))
    }

    /// As [`Self::begin`], with another state machine; see [`Recovering::with_machines`].
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn begin_with(
        directory: Directory,
        config: Config,
        machine: &dyn Fn(GroupId) -> Box<dyn StateMachine>,
    ) -> Result<Self, Fatal> {
        let core = config.shard.0;
        Self::of(directory, core, |first| {
            Recovering::with_machines(config, machine).reclaimed_to(first)
        })
    }

    /// All segments were replayed: the shard, and the spare segments that were found.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn finish(self, now: Tick) -> Result<(Shard, Vec<SegmentSeq>), Fatal> {
        self.finish_with(|recovering| recovering.finish(now))
    }

    /// All segments were replayed, and the groups go on without their other members: what becomes of
    /// them, and the spare segments that were found.
    ///
    /// # Errors
    /// As [`step`](Self::step), and when a group cannot.
    pub fn finish_alone(self) -> Result<(Alone, Vec<SegmentSeq>), Fatal> {
        self.finish_with(Recovering::finish_alone)
    }
}

impl<F: FnMut(&RecoveredRun<'_>)> Recovery<Runs<F>> {
    /// As [`Recovery::begin`], for a log without a shard.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn of_log(directory: Directory, identity: Identity, on_run: F) -> Result<Self, Fatal> {
        Self::of(directory, identity.shard.0, |first| Runs {
            identity,
            recovery: wal::Recovery::new(identity).reclaimed_to(first),
            on_run,
            entries: 0,
        })
    }

    /// All segments were replayed: what the log says of itself, and the spare segments that were found.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn finish_log(self) -> Result<(Opened, Vec<SegmentSeq>), Fatal> {
        self.finish_with(|Runs { recovery, entries, .. }| {
            let log = recovery.finish()?;
            let report = shard::Recovery { log: log.clone(), entries, losses: Vec::new() };
            Ok((Opened { log, entries }, report))
        })
    }
}

impl<R: Replay> Recovery<R> {
    fn of(
        directory: Directory,
        core: u16,
        replay: impl FnOnce(SegmentSeq) -> R,
    ) -> Result<Self, Fatal> {
        let listed = directory
            .clean()
            .and_then(|()| directory.wait_for_writes())
            .and_then(|()| directory.first_if_whole())
            .and_then(|first| directory.reclaim(first.0).map(|()| first))
            .and_then(|first| directory.segments().map(|segments| (first, segments)));
        let ((first, no_note), segments) = listed.map_err(|error| {
            Fatal::new(format!("cannot read the log in {}: {error}", directory.path().display()))
        })?;
        if let Some(why) = &no_note {
            tracing::warn!(
                core,
                "damaged log: {why}; what may be missing is fetched from the other members"
            );
        }
        let now = Instant::now();
        let recovering = replay(first);
        Ok(Self {
            directory,
            recovering,
            segments,
            done: 0,
            ends: Vec::new(),
            ahead: None,
            no_note,
            core,
            started: now,
            told: now,
        })
    }

    /// Replay one more segment; `false` when there is none left.
    ///
    /// # Errors
    /// When the log is damaged where it must not be, or cannot be read. The text names the file,
    /// the offset and the remedy.
    pub fn step(&mut self) -> Result<bool, Fatal> {
        let Some(&seq) = self.segments.get(self.done) else { return Ok(false) };
        let path = self.directory.segment(seq);
        let failed = |error: std::io::Error| {
            Fatal::new(format!(
                "cannot replay {}: {error}; restore the file, or start this node with an empty \
                 directory and a new --id",
                path.display()
            ))
        };
        let mut end = None;
        for &later in &self.segments[self.done + 1..] {
            let block = self.directory.first_block(later).map_err(failed)?;
            end = self.recovering.look_ahead(later, &block);
            if end.is_some() {
                break;
            }
        }
        let end = end.filter(|end| end.segment == seq);
        // It read as far as it could guess; whether more than the log is unreadable is decided here.
        let end_offset = end.map_or(SEGMENT_BYTES as u64, |end| end.offset);
        let mapped = match self.read_ahead(seq) {
            // Its guess was no shorter than what is read.
            Some((bytes, checked, loaded)) if end_offset <= loaded => Ok((bytes, Some(checked))),
            _ => Mapped::open(&path).and_then(|bytes| {
                bytes.load(0..end_offset)?;
                Ok((Bytes::from_owner(bytes), None))
            }),
        };
        self.begin_ahead();
        self.ends.extend(end);
        match mapped {
            Ok((bytes, checked)) => {
                checked.into_iter().for_each(|checked| self.recovering.trust(checked));
                self.recovering.segment(seq, &bytes)
            }
            Err(error) => {
                tracing::warn!(
                    core = self.core,
                    "{}: {error}; reading what can be read of it",
                    path.display()
                );
                let bytes = read_what_can_be_read(&path).map_err(failed)?;
                self.recovering.segment(seq, &Bytes::from(bytes))
            }
        }
        .map_err(|error| self.damaged(&error))?;
        self.done += 1;
        if PROGRESS <= self.told.elapsed() {
            self.told = Instant::now();
            tracing::info!(
                core = self.core,
                "replaying the log: {} of {} segments, {} %",
                self.done,
                self.segments.len(),
                100 * self.done / self.segments.len(),
            );
        }
        Ok(true)
    }

    /// What the thread that reads ahead has read, if it was this segment and could be.
    fn read_ahead(&mut self, seq: SegmentSeq) -> Option<Ahead> {
        let (_, thread) = self.ahead.take().filter(|(ahead, _)| *ahead == seq)?;
        thread.join().ok()?.ok()
    }

    /// Starts to bring the segment after the one being replayed into memory. Not more of it than its
    /// successor says there is: the rest was given back to the file system. Who cannot start a thread
    /// reads later.
    fn begin_ahead(&mut self) {
        let Some((&next, later)) =
            self.segments.get(self.done + 1..).and_then(|rest| rest.split_first())
        else {
            return;
        };
        let end = later.first().and_then(|later| {
            let block = self.directory.first_block(*later).ok()?;
            let previous = SegmentHeader::decode(&block).ok()?.previous.at;
            (previous.segment == next).then_some(previous.offset)
        });
        let path = self.directory.segment(next);
        let later = later.first().map(|later| self.directory.segment(*later));
        let identity = self.recovering.identity();
        let read = move || {
            let bytes = Mapped::open(&path)?;
            let end = end.unwrap_or(SEGMENT_BYTES as u64);
            bytes.load(0..end)?;
            // The device goes on while checksums are taken.
            if let Some(Ok(later)) = later.map(|later| Mapped::open(&later)) {
                later.want(0..SEGMENT_BYTES as u64);
            }
            let bytes = Bytes::from_owner(bytes);
            let checked = Checked::new(identity, next, &bytes, end);
            Ok((bytes, checked, end))
        };
        let name = format!("ahead-{}", self.core);
        let thread = thread::Builder::new().name(name).spawn(read);
        self.ahead = thread.ok().map(|thread| (next, thread));
    }

    fn finish_with<T>(
        self,
        finish: impl FnOnce(R) -> Result<(T, shard::Recovery), R::Error>,
    ) -> Result<(T, Vec<SegmentSeq>), Fatal> {
        let Self { directory, recovering, segments, mut ends, no_note, core, started, .. } = self;
        // What was read may be in the page cache or the device's cache only. Nothing may be built
        // on it before it is durable (contract row 27).
        let failed = |what: &str, seq, error: std::io::Error| {
            Fatal::new(format!("cannot {what} {}: {error}", directory.segment(seq).display()))
        };
        if let Some(&last) = segments.last() {
            for &seq in &segments {
                // All but the last used segment are known durable: a later header proves it. Spares
                // lie behind the last used one, and syncing clean files costs nothing.
                if last.0 < seq.0 + 4 {
                    directory.sync(seq).map_err(|error| failed("sync", seq, error))?;
                }
            }
        }
        let (found, mut report) =
            finish(recovering).map_err(|error| damaged(&directory, no_note.as_ref(), &error))?;
        let log = &report.log;
        if log.spares.is_empty() && log.segments > 0 && report.losses.is_empty() {
            // The next write begins a segment. On a full disk that may need what the last one did not use.
            ends.push(log.position.end.at);
        }
        for end in ends {
            directory
                .release_end(end.segment, end.offset)
                .map_err(|error| failed("release the end of", end.segment, error))?;
        }
        let mut discard = report.log.discard.iter();
        if report.log.spares.is_empty()
            && let Some(&seq) = discard.next()
        {
            // A log directory is never empty again once it was begun: identity.rs relies on it.
            let next = report.log.position.next_segment;
            directory.renew(seq, next).map_err(|error| failed("make", next, error))?;
            report.log.spares.push(next);
        }
        for &seq in discard {
            directory.retire(seq).map_err(|error| failed("give up", seq, error))?;
        }
        let log = &report.log;
        if let Some(torn) = &log.torn {
            tracing::warn!(core, "the last write was cut short by a crash and is left out: {torn}");
        }
        for damage in &report.losses {
            tracing::warn!(
                core,
                "damaged log in {}: {damage}; what is missing is fetched from the other members",
                directory.path().display(),
            );
        }
        tracing::info!(
            core,
            segments = log.segments,
            entries = report.entries,
            bytes = log.bytes,
            spares = log.spares.len(),
            ms = started.elapsed().as_millis() as u64,
            "log replayed, {} MiB on disk",
            segments.len() * (SEGMENT_BYTES >> 20),
        );
        Ok((found, report.log.spares))
    }

    fn damaged(&self, error: &R::Error) -> Fatal {
        damaged(&self.directory, self.no_note.as_ref(), error)
    }
}

/// A file block by block, with zeroes for those that the device cannot read: recovery names them.
fn read_what_can_be_read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(SEGMENT_BYTES)];
    for (number, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
        if file.read_exact_at(block, (number * BLOCK_BYTES) as u64).is_err() {
            block.fill(0);
        }
    }
    Ok(bytes)
}

fn damaged(directory: &Directory, no_note: Option<&String>, error: &impl fmt::Display) -> Fatal {
    let no_note =
        no_note.map_or(String::new(), |why| format!("; where it begins is not known: {why}"));
    Fatal::new(format!("damaged log in {}: {error}{no_note}", directory.path().display()))
}
