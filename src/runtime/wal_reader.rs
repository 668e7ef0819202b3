//! Reads entries back from sealed segments, for followers that are behind and for tails that go far back.
//!
//! A page that is not in memory blocks the thread that touches it, so this is a thread of its own:
//! a core that touched a cold segment itself would stop for all its groups, 63 µs per page.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use crate::id::SegmentSeq;
use crate::limits::{BATCH_BYTES_SOFT, LOG_READ_BYTES_MAX};
use crate::shard::event::{LogRead, LogReadDone};
use crate::wal::Damage;

use super::mapped::Mapped;
use super::segments::Directory;

/// Segments kept mapped. A follower that catches up reads one after the other; a few followers may
/// be at different places.
const MAPPED_MAX: usize = 8;

/// What came of a read.
#[derive(Debug)]
pub enum Answer {
    /// Entries, or damage found on the way to them.
    Done(LogReadDone),
    /// The segment cannot be opened; the text names it.
    Failed(String),
}

/// Asks the log-reading thread of one core. Dropping it ends the thread.
#[derive(Debug)]
pub struct WalReader {
    reads: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Read(LogRead),
    ForgetBefore(SegmentSeq),
}

impl WalReader {
    /// Start the thread; it calls `answer` once for every read.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        name: String,
        directory: Directory,
        answer: impl Fn(Answer) + Send + 'static,
    ) -> io::Result<Self> {
        let (reads, orders) = mpsc::channel();
        thread::Builder::new().name(name).spawn(move || {
            let mut maps = Maps { directory, recent: VecDeque::new() };
            while let Ok(order) = orders.recv() {
                let read = match order {
                    Order::Read(read) => read,
                    Order::ForgetBefore(first) => {
                        maps.recent.retain(|(mapped, _)| first <= *mapped);
                        continue;
                    }
                };
                let outcome = catch_unwind(AssertUnwindSafe(|| maps.read(read)));
                let panicked = || "the log-reading thread panicked; its report is above".into();
                answer(outcome.unwrap_or_else(|_| Answer::Failed(panicked())));
            }
        })?;
        Ok(Self { reads })
    }

    /// Read this, after those asked for before it. How many are asked at a time is bounded: one per follower, and one
    /// per tail (`limits::TAILS_MAX`).
    pub fn read(&self, read: LogRead) {
        // The thread outlives every sender.
        let _ = self.reads.send(Order::Read(read));
    }

    /// Segments in front of `first` are being deleted: a map would keep their blocks in use.
    pub fn forget_before(&self, first: SegmentSeq) {
        let _ = self.reads.send(Order::ForgetBefore(first));
    }
}

/// The most recently used maps, newest last.
struct Maps {
    directory: Directory,
    recent: VecDeque<(SegmentSeq, Mapped)>,
}

impl Maps {
    fn read(&mut self, read: LogRead) -> Answer {
        let loaded = self.map(read.at.segment).and_then(|segment| {
            let until = read.at.offset + (LOG_READ_BYTES_MAX + BATCH_BYTES_SOFT) as u64;
            segment.load(read.at.offset..until)?;
            Ok(segment)
        });
        let segment = match loaded {
            Ok(segment) => segment,
            Err(error) => {
                let path = self.directory.segment(read.at.segment);
                tracing::error!("cannot read {}: {error}", path.display());
                let result = Err(Damage::unreadable(read.at));
                return Answer::Done(LogReadDone { read, result });
            }
        };
        Answer::Done(LogReadDone { read, result: read.entries(segment) })
    }

    fn map(&mut self, seq: SegmentSeq) -> io::Result<&Mapped> {
        let known = self.recent.iter().position(|(mapped, _)| *mapped == seq);
        let entry = match known.and_then(|place| self.recent.remove(place)) {
            Some(entry) => entry,
            None => (seq, Mapped::open(&self.directory.segment(seq))?),
        };
        if self.recent.len() == MAPPED_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(entry);
        Ok(&self.recent.back().expect("just put there").1)
    }
}
