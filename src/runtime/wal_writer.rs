//! Performs a shard's log writes: encode, write past the page cache, flush, report.
//!
//! ```text
//!  Effects.writes ──► task: encode ► write ► fdatasync ──► Event::Flushed    (one task per write,
//!                      │ over 256 KiB: written in parallel parts             up to 4 at once)
//!                      └ any error: Fatal, nothing is ever reported again
//! ```
//!
//! # What must not happen
//!
//! - *A failed flush is never repeated.* The kernel may have dropped the pages and forgotten the
//!   error; a second fdatasync would succeed and mean nothing (fsyncgate). The log is dead from the
//!   first error on (contract row 30).
//! - *A write is never abandoned.* A dropped future does not stop the kernel, so each write is a
//!   detached task that owns its buffer and ends only when the kernel is done with it.
//! - *A short write is not a write.* It is carried on, and if the file has ended, it is an error.
//! - *Old memory does not reach the disk.* DMA buffers come uninitialised; `encode_into` fills every
//!   byte, zero padding included.
//! - *Completions are reported as they come*, in any order; the shard acts on them in ticket order.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glommio::io::{DmaBuffer, DmaFile, OpenOptions};

use crate::id::SegmentSeq;
use crate::limits::BLOCK_BYTES;
use crate::shard::Event;
use crate::wal::Write;

use super::buffers;
use super::fatal::Fatal;
use super::faults::Faults;
use super::inbox::Inbox;
use super::metrics::Durations;
use super::segments::Directory;

/// A larger write is cut into parts of this size that are written side by side, in bytes: one
/// direct write of 1 MiB at a time is slower than four of 256 KiB at once.
const PART_BYTES: usize = 256 << 10;
/// A flush this slow is worth a line in the log (contract row 58).
const SLOW: Duration = Duration::from_secs(1);

/// The log files of one core. One per core.
#[derive(Debug, Clone)]
pub struct WalWriter {
    log: Rc<Log>,
}

#[derive(Debug)]
struct Log {
    directory: Directory,
    inbox: Rc<Inbox>,
    /// Files being written or about to be.
    files: RefCell<BTreeMap<SegmentSeq, Rc<DmaFile>>>,
    in_flight: Cell<usize>,
    dead: Cell<bool>,
    durations: RefCell<Durations>,
    /// Flushes that took over [`SLOW`], since the last look.
    slow: Cell<u64>,
    faults: Option<Arc<Faults>>,
}

impl WalWriter {
    /// A writer of the segments in `directory`. It reports to `inbox`. A disk that is switched to stall
    /// in `faults` takes its time.
    #[must_use]
    pub fn new(directory: Directory, inbox: Rc<Inbox>, faults: Option<Arc<Faults>>) -> Self {
        Self {
            log: Rc::new(Log {
                directory,
                inbox,
                files: RefCell::default(),
                in_flight: Cell::new(0),
                dead: Cell::new(false),
                durations: RefCell::default(),
                slow: Cell::new(0),
                faults,
            }),
        }
    }

    /// Start a write; `Event::Flushed` follows when it is durable. The file of its segment exists,
    /// whole and zeroed.
    pub fn start(&self, write: Write) {
        let log = Rc::clone(&self.log);
        if log.dead.get() {
            return;
        }
        log.in_flight.set(log.in_flight.get() + 1);
        log.close_before(write.segment);
        let started = Instant::now();
        glommio::spawn_local(async move {
            let ticket = write.ticket;
            let segment = write.segment;
            match log.write(write).await {
                Ok(()) if !log.dead.get() => {
                    log.record(segment, started.elapsed());
                    log.inbox.push(Event::Flushed(ticket));
                }
                // Another write has failed: nothing after it may be acknowledged.
                Ok(()) => {}
                Err(fatal) => {
                    log.dead.set(true);
                    log.inbox.fail(fatal);
                }
            }
            log.in_flight.set(log.in_flight.get() - 1);
            log.inbox.wake();
        })
        .detach();
    }

    /// Open a segment ahead of its first write, so that the write does not wait for it.
    pub fn open_ahead(&self, segment: SegmentSeq) {
        let log = Rc::clone(&self.log);
        glommio::spawn_local(async move {
            if let Err(fatal) = log.file(segment).await {
                log.inbox.fail(fatal);
            }
        })
        .detach();
    }

    /// Writes that the kernel has not finished.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.log.in_flight.get()
    }

    /// How long writes took until they were durable.
    #[must_use]
    pub fn durations(&self) -> Durations {
        self.log.durations.borrow().clone()
    }

    /// Flushes that took over a second, since the last call.
    pub fn take_slow(&self) -> u64 {
        self.log.slow.take()
    }

    /// Close all files. The caller has waited until nothing is in flight.
    pub async fn close(&self) {
        let files = std::mem::take(&mut *self.log.files.borrow_mut());
        for file in files.into_values() {
            // Everything is durable already; there is nothing an error could tell.
            let _ = file.close_rc().await;
        }
    }
}

impl Log {
    async fn write(self: &Rc<Self>, write: Write) -> Result<(), Fatal> {
        let file = self.file(write.segment).await?;
        let path = self.directory.segment(write.segment);
        if write.bytes <= PART_BYTES {
            let mut buffer = file.alloc_dma_buffer(write.bytes);
            write.encode_into(&mut buffer.as_bytes_mut()[..write.bytes]);
            write_all(&file, &path, buffer, write.bytes, write.offset).await?;
        } else {
            let mut whole = vec![0; write.bytes];
            write.encode_into(&mut whole);
            let parts: Vec<_> = whole
                .chunks(PART_BYTES)
                .zip((write.offset..).step_by(PART_BYTES))
                .map(|(part, offset)| {
                    let mut buffer = file.alloc_dma_buffer(part.len());
                    buffer.as_bytes_mut()[..part.len()].copy_from_slice(part);
                    let (file, path, bytes) = (Rc::clone(&file), path.clone(), part.len());
                    glommio::spawn_local(async move {
                        write_all(&file, &path, buffer, bytes, offset).await
                    })
                })
                .collect();
            // All parts are waited for even if one fails: the kernel still holds their buffers.
            let mut outcome = Ok(());
            for part in parts {
                let written = part.await;
                outcome = outcome.and(written);
            }
            outcome?;
        }
        while let Some(left) = self.faults.as_ref().and_then(|faults| faults.stall_left()) {
            glommio::timer::sleep(left).await;
        }
        file.fdatasync().await.map_err(|error| dead("flush", &path, &error))
    }

    /// The open file of a segment.
    async fn file(&self, segment: SegmentSeq) -> Result<Rc<DmaFile>, Fatal> {
        if let Some(file) = self.files.borrow().get(&segment) {
            return Ok(Rc::clone(file));
        }
        let path = self.directory.segment(segment);
        let opened = OpenOptions::new().read(true).write(true).dma_open(&path).await;
        let file = Rc::new(opened.map_err(|error| dead("open", &path, &error))?);
        if file.alignment() > BLOCK_BYTES as u64 {
            let (path, wants) = (path.display(), file.alignment());
            let _ = file.close_rc().await;
            return Err(Fatal::new(format!(
                "{path}: the device wants writes aligned to {wants} bytes, the log aligns to {BLOCK_BYTES}"
            )));
        }
        let known = self.files.borrow().get(&segment).map(Rc::clone);
        if let Some(known) = known {
            // Somebody else opened it while we did.
            let _ = file.close_rc().await;
            return Ok(known);
        }
        match buffers::lock_opened(&file) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Fatal::new(format!(
                    "{}: another process has this segment open for writing; stop it",
                    path.display()
                )));
            }
            Err(error) => return Err(Fatal::new(format!("{}: {error}", path.display()))),
        }
        self.files.borrow_mut().insert(segment, Rc::clone(&file));
        Ok(file)
    }

    /// Close the segments that are sealed now that this one is written: the log enters a segment
    /// only when nothing is in flight in the one before.
    fn close_before(&self, segment: SegmentSeq) {
        while let Some(entry) = self.files.borrow_mut().first_entry() {
            if segment <= *entry.key() {
                break;
            }
            let file = entry.remove();
            glommio::spawn_local(async move {
                let _ = file.close_rc().await;
            })
            .detach();
        }
    }

    fn record(&self, segment: SegmentSeq, elapsed: Duration) {
        self.durations.borrow_mut().record(elapsed);
        if SLOW < elapsed {
            self.slow.set(self.slow.get() + 1);
            tracing::warn!(
                segment = %self.directory.segment(segment).display(),
                ms = elapsed.as_millis() as u64,
                "slow log flush: the disk is busy or failing",
            );
        }
    }
}

/// Write a whole buffer. `bytes` is a multiple of the block size, and so is `offset`.
async fn write_all(
    file: &DmaFile,
    path: &Path,
    buffer: DmaBuffer,
    bytes: usize,
    offset: u64,
) -> Result<(), Fatal> {
    let buffer = Rc::new(buffer);
    let written = file.write_rc_at(Rc::clone(&buffer), offset).await;
    let mut written = written.map_err(|error| dead("write", path, &error))?;
    while written < bytes {
        // Go on from the last whole block; a buffer cannot be cut, so the rest moves to a new one.
        let done = written - written % BLOCK_BYTES;
        let mut rest = file.alloc_dma_buffer(bytes - done);
        let rest_bytes = bytes - done;
        rest.as_bytes_mut()[..rest_bytes].copy_from_slice(&buffer.as_bytes()[done..bytes]);
        let more = file.write_at(rest, offset + done as u64).await;
        let more = more.map_err(|error| dead("write", path, &error))?;
        if more < BLOCK_BYTES.min(rest_bytes) {
            return Err(Fatal::new(format!(
                "{}: the device takes no more at offset {}: log write failed",
                path.display(),
                offset + done as u64
            )));
        }
        written = done + more;
    }
    Ok(())
}

fn dead(what: &str, path: &Path, error: &glommio::GlommioError<()>) -> Fatal {
    // glommio's text repeats file and descriptor; the cause is the operating system's.
    let cause = match error {
        glommio::GlommioError::IoError(error) => error.to_string(),
        glommio::GlommioError::EnhancedIoError { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    Fatal::new(format!("log {what} failed: {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use glommio::{LocalExecutorBuilder, Placement};
    use smallvec::SmallVec;

    use super::*;
    use crate::entry::Entry;
    use crate::id::{ClusterId, FlushTicket, GroupId, Index, NodeId, ShardId, Term};
    use crate::raft::HardState;
    use crate::runtime::scratch::Scratch;
    use crate::wal::{Appender, Batch, Identity, Position, Recovery, Run, RunKind};

    const IDENTITY: Identity =
        Identity { cluster: ClusterId(1), node: NodeId(2), shard: ShardId(0) };

    fn run_on_executor<F: Future<Output = ()> + 'static>(
        test: impl FnOnce() -> F + Send + 'static,
    ) {
        LocalExecutorBuilder::new(Placement::Unbound)
            .preempt_timer(Duration::from_secs(3600))
            .spawn(move || async move { test().await })
            .unwrap()
            .join()
            .unwrap();
    }

    fn batch(index: u64, bytes: usize) -> Batch {
        let payload = Bytes::from(vec![index as u8; bytes]);
        let entry = Entry::command(payload);
        let mut batch = Batch::new();
        batch.push(Run {
            kind: RunKind::Log,
            group: GroupId(0),
            hard_state: HardState::default(),
            run_term: Term(1),
            first: Index(index),
            entries: SmallVec::from_iter([entry]),
        });
        batch
    }

    /// The tickets reported so far, once nothing is in flight.
    async fn finished(writer: &WalWriter, inbox: &Inbox) -> Vec<FlushTicket> {
        while 0 < writer.in_flight() {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        let mut events = Vec::new();
        inbox.take(&mut events);
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

    #[test]
    fn what_was_reported_is_read_back_small_and_in_parts() {
        let scratch = Scratch::new("wal-writer");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        directory.make(SegmentSeq(1)).unwrap();
        let written = directory.clone();
        run_on_executor(move || async move {
            let inbox = Rc::new(Inbox::default());
            let writer = WalWriter::new(written, Rc::clone(&inbox), None);
            let mut appender = Appender::new(IDENTITY, Position::default());
            appender.on_spare(SegmentSeq(1));
            // The second is cut into parts; all four are in flight at once.
            for (index, bytes) in [(1, 100), (2, 1_000_000), (3, 5_000), (4, 300_000)] {
                writer.start(appender.place(batch(index, bytes)));
            }
            assert_eq!(writer.in_flight(), 4);
            let tickets = finished(&writer, &inbox).await;
            assert_eq!(tickets.len(), 4);
            tickets.into_iter().for_each(|ticket| appender.on_durable(ticket));
            writer.start(appender.closing_write().expect("the last batch is unproven"));
            assert_eq!(finished(&writer, &inbox).await.len(), 1);
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
            let writer = WalWriter::new(directory, Rc::clone(&inbox), None);
            let mut appender = Appender::new(IDENTITY, Position::default());
            // The shard believes in a segment that is not there.
            appender.on_spare(SegmentSeq(1));
            writer.start(appender.place(batch(1, 100)));
            assert!(finished(&writer, &inbox).await.is_empty());
            let fatal = inbox.fatal().expect("the node must stop").to_string();
            assert!(fatal.starts_with("log open failed: "), "{fatal}");
            assert!(fatal.contains("0000000000000001.seg: No such file"), "{fatal}");
            writer.start(appender.place(batch(2, 100)));
            assert!(finished(&writer, &inbox).await.is_empty());
        });
    }
}
