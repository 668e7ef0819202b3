//! The core's own io_uring ring: log writes go in, completions come out, and the core sleeps in it.
//!
//! ```text
//!   turn: write ─┐                       ┌─► Done { token, result } …
//!         write ─┴► submission queue ─► kernel ─► completion queue ─► take, once per turn
//!                                        ▲
//!   sleep: poll of the epoll set ────────┘   one system call submits, waits and reaps
//! ```
//!
//! # Why not glommio's
//!
//! glommio has three rings per executor, submits them one by one and arms and cancels a timer around
//! every turn of its own: five `io_uring_enter` calls for each time a core wakes, and a core wakes
//! several times for one command. Here a turn costs one, whatever it waits for. glommio still runs the executor
//! and opens and closes files, off the path of a write (decision 0010).
//!
//! # Who owns the memory
//!
//! The kernel reads a buffer until the completion of its write has been taken, and dropping a future or a
//! `Vec` does not stop it. So the ring itself holds every buffer and file that it has told the kernel
//! of, and lets go of them in [`take`](Ring::take) only. A ring that is dropped with writes in flight leaks
//! their buffers: memory that is used again would put somebody else's bytes on the disk.

#![allow(
    unsafe_code,
    reason = "the kernel is given addresses of buffers; that they outlive its use is local to this file"
)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use glommio::io::DmaFile;
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::limits::BLOCK_BYTES;

use super::poller::Poller;

/// Submissions the kernel takes at once; more wait here. A core has at most a few writes in flight, of some tens
/// of parts each.
const ENTRIES: u32 = 128;
/// The token of the poll of the epoll set.
const POLL: u64 = u64::MAX;

/// Memory that a direct write may start from: at a boundary of a block.
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// So many bytes of zeroes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        Self { memory, start }
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.len() - BLOCK_BYTES
    }

    /// The first bytes of it, to fill.
    pub fn space(&mut self, bytes: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + bytes]
    }

    fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.memory[self.start + range.start..self.start + range.end]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("capacity", &self.capacity()).finish_non_exhaustive()
    }
}

/// The kernel is done with something.
#[derive(Debug)]
pub struct Done {
    /// The number it was submitted with.
    pub token: u64,
    /// Bytes written; 0 for a flush.
    pub result: io::Result<usize>,
}

/// What the kernel uses until it says that it is done.
struct Held {
    token: u64,
    file: Rc<DmaFile>,
    buffer: Option<Rc<Buffer>>,
}

/// One per core, built on its thread.
pub struct Ring {
    uring: IoUring,
    epoll: OwnedFd,
    /// The poll of the epoll set has not fired.
    is_armed: bool,
    /// What the submission queue had no room for.
    waiting: VecDeque<squeue::Entry>,
    held: Vec<Option<Held>>,
    free: Vec<u32>,
    /// Something was queued since the last submission.
    is_queued: bool,
    spin: Duration,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring that also wakes when a socket of `poller` is ready. Before it lets its thread sleep it looks
    /// again and again for as long as `spin`.
    ///
    /// # Errors
    /// When the kernel refuses: io_uring is switched off, or there is no memory it may lock.
    pub fn new(poller: &Poller, spin: Duration) -> io::Result<Self> {
        // Completions are worked on when this thread asks for them, and interrupt nobody: 6.1 and
        // later; then 5.19; then anything.
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)
            .or_else(|_| IoUring::builder().setup_coop_taskrun().build(ENTRIES))
            .or_else(|_| IoUring::new(ENTRIES))?;
        Ok(Self {
            uring,
            epoll: poller.descriptor()?,
            is_armed: false,
            waiting: VecDeque::new(),
            held: Vec::new(),
            free: Vec::new(),
            is_queued: false,
            spin,
        })
    }

    /// Writes and flushes that the kernel has not finished, or of which nobody has heard yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.held.len() - self.free.len()
    }

    /// Queue a write of `range` of `buffer` to `file` at `offset`, all three multiples of the block size. If
    /// it `syncs`, it is done when the device has it for good.
    pub fn write(
        &mut self,
        file: &Rc<DmaFile>,
        buffer: &Rc<Buffer>,
        range: Range<usize>,
        offset: u64,
        syncs: bool,
        token: u64,
    ) {
        let bytes = buffer.bytes(range);
        let length = u32::try_from(bytes.len()).expect("a part of a write is small");
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), bytes.as_ptr(), length)
            .offset(offset)
            .rw_flags(if syncs { libc::RWF_DSYNC } else { 0 })
            .build();
        self.queue(entry, token, file, Some(Rc::clone(buffer)));
    }

    /// Queue a flush of what has been written to `file`.
    pub fn sync(&mut self, file: &Rc<DmaFile>, token: u64) {
        let entry = opcode::Fsync::new(Fd(file.as_raw_fd())).flags(FsyncFlags::DATASYNC).build();
        self.queue(entry, token, file, None);
    }

    fn queue(
        &mut self,
        entry: squeue::Entry,
        token: u64,
        file: &Rc<DmaFile>,
        buffer: Option<Rc<Buffer>>,
    ) {
        let held = Some(Held { token, file: Rc::clone(file), buffer });
        let place = match self.free.pop() {
            Some(place) => {
                self.held[place as usize] = held;
                place
            }
            None => {
                self.held.push(held);
                self.held.len() as u32 - 1
            }
        };
        self.waiting.push_back(entry.user_data(place.into()));
        self.is_queued = true;
    }

    /// Tell the kernel what was queued; it begins at once.
    ///
    /// # Errors
    /// Never in practice; the caller treats it as the end of the core.
    pub fn submit(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_queued) {
            return Ok(());
        }
        self.push_waiting();
        tolerate(self.uring.submit())
    }

    /// Whether a socket may be ready: the poll of the epoll set has fired since the last sleep, as far as
    /// [`take`](Self::take) has told.
    #[must_use]
    pub fn is_rung(&self) -> bool {
        !self.is_armed
    }

    /// Submit what is queued, and wait until a socket is ready, something is done, or `timeout` is over.
    /// Spurious returns are possible.
    ///
    /// # Errors
    /// Never in practice; the caller treats it as the end of the core.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if !self.is_armed {
            let poll = opcode::PollAdd::new(Fd(self.epoll.as_raw_fd()), libc::POLLIN as u32);
            self.waiting.push_back(poll.build().user_data(POLL));
            self.is_armed = true;
        }
        // What finds no room goes with the next call: then much is in flight, which ends the sleep.
        self.push_waiting();
        self.is_queued = false;
        let started = (!self.spin.is_zero()).then(std::time::Instant::now);
        while let Some(started) = started
            && started.elapsed() < self.spin.min(timeout)
        {
            self.enter(Duration::ZERO)?;
            if !self.uring.completion().is_empty() {
                return Ok(());
            }
        }
        self.enter(timeout)
    }

    fn enter(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timeout);
        tolerate(self.uring.submitter().submit_with_args(1, &arguments))
    }

    fn push_waiting(&mut self) {
        let mut queue = self.uring.submission();
        while let Some(entry) = self.waiting.pop_front() {
            // SAFETY: the descriptors and the memory that an entry names are owned by `held` (the epoll
            // set by `self`) until its completion is taken: the address of a buffer does not change
            // while it is behind an `Rc`, nobody can write to it meanwhile, and dropping the ring
            // leaks what is held.
            let is_pushed = unsafe { queue.push(&entry) };
            if is_pushed.is_err() {
                self.waiting.push_front(entry);
                return;
            }
        }
    }

    /// Move what the kernel has finished to the end of `done`.
    pub fn take(&mut self, done: &mut Vec<Done>) {
        let Self { uring, is_armed, held, free, .. } = self;
        for entry in uring.completion() {
            if entry.user_data() == POLL {
                *is_armed = false;
                continue;
            }
            let place = entry.user_data() as usize;
            let Some(Held { token, file, buffer }) = held.get_mut(place).and_then(Option::take)
            else {
                debug_assert!(false, "a completion of something that is not in flight");
                continue;
            };
            drop((file, buffer));
            free.push(place as u32);
            done.push(Done { token, result: outcome(&entry) });
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for held in self.held.drain(..).flatten() {
            std::mem::forget(held);
        }
    }
}

fn outcome(entry: &cqueue::Entry) -> io::Result<usize> {
    let result = entry.result();
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// What only means "not now" or "nothing came".
fn tolerate(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use glommio::io::OpenOptions;

    use super::*;
    use crate::runtime::scratch::{Scratch, run_on_executor};

    fn finished(ring: &mut Ring) -> Vec<(u64, Option<usize>)> {
        let mut done = Vec::new();
        while 0 < ring.in_flight() {
            ring.wait(Duration::from_millis(5)).unwrap();
            ring.take(&mut done);
        }
        done.sort_by_key(|it| it.token);
        done.into_iter().map(|it| (it.token, it.result.ok())).collect()
    }

    #[test]
    fn more_than_the_queue_holds_is_written_all_the_same_and_errors_are_told() {
        let scratch = Scratch::new("ring-many");
        let path = scratch.path().join("file");
        let blocks = 3 * ENTRIES as usize;
        File::create(&path).unwrap().set_len((blocks * BLOCK_BYTES) as u64).unwrap();
        let written = path.clone();
        run_on_executor(move || async move {
            let opened = OpenOptions::new().write(true).dma_open(&path).await;
            let (file, mut ring) = (
                Rc::new(opened.unwrap()),
                Ring::new(&Poller::new().unwrap(), Duration::ZERO).unwrap(),
            );
            for block in 0..blocks {
                let mut buffer = Buffer::new(BLOCK_BYTES);
                buffer.space(BLOCK_BYTES).fill(block as u8);
                let offset = (block * BLOCK_BYTES) as u64;
                ring.write(&file, &Rc::new(buffer), 0..BLOCK_BYTES, offset, false, block as u64);
                ring.submit().unwrap();
            }
            ring.sync(&file, blocks as u64);
            let done = finished(&mut ring);
            assert!(done.iter().map(|(token, _)| *token).eq(0..=blocks as u64));
            assert!(done[..blocks].iter().all(|(_, bytes)| *bytes == Some(BLOCK_BYTES)));
            // Not a multiple of a block: the file was opened for direct writes.
            ring.write(&file, &Rc::new(Buffer::new(BLOCK_BYTES)), 0..100, 7, true, 9);
            assert_eq!(finished(&mut ring), [(9, None)]);
            file.close_rc().await.unwrap();
        });
        let bytes = std::fs::read(written).unwrap();
        for (block, bytes) in bytes.chunks(BLOCK_BYTES).enumerate() {
            assert!(bytes.iter().all(|byte| *byte == block as u8), "block {block}");
        }
    }

    #[test]
    fn a_ready_socket_ends_a_sleep_and_nothing_else_is_waited_for() {
        use super::super::poller::Interest;
        use std::os::unix::net::UnixStream;
        let mut poller = Poller::new().unwrap();
        let mut ring = Ring::new(&poller, Duration::ZERO).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        poller.add(&ours, 7, Interest::READ).unwrap();
        let mut done = Vec::new();
        ring.wait(Duration::ZERO).unwrap();
        ring.take(&mut done);
        assert!(!ring.is_rung(), "nothing is there");
        std::io::Write::write_all(&mut &theirs, b"x").unwrap();
        // An hour, unless the socket ends it.
        ring.wait(Duration::from_secs(3600)).unwrap();
        ring.take(&mut done);
        assert!(ring.is_rung() && done.is_empty());
        let mut ready = Vec::new();
        poller.poll(&mut ready).unwrap();
        assert_eq!(ready.len(), 1);
        // It was not read: the next sleep ends as well.
        ring.wait(Duration::from_secs(3600)).unwrap();
        ring.take(&mut done);
        assert!(ring.is_rung());
    }
}
