//! The core's own io_uring ring: log writes go in, completions come out, clients' bytes arrive, and the
//! core sleeps in it.
//!
//! ```text
//!   turn: write ─┐                       ┌─► Done { token, result } …
//!         write ─┼► submission queue ─► kernel ─► completion queue ─► take, once per turn
//!       receive ─┘ (once per connection) ▲  └─► Arrival { token, bytes } …
//!   sleep: poll of the epoll set ────────┘   one system call submits, waits and reaps
//!
//!   turn's replies: send, send, send … ─► one system call ─► what each socket took
//! ```
//!
//! # Sockets
//!
//! A client's connection is received from by one request that lives as long as the connection does (a multishot
//! receive), into memory that all share ([`super::provided`]). What arrived since the last turn is taken with
//! everything else, without a system call for each. A ring whose kernel cannot do that (before Linux 6.12) says so,
//! and sockets stay in the epoll set.
//!
//! Listening sockets are there in any case. The kernel lets go of what a ring names some time after its process was
//! killed, and until then nobody can listen at that address: a node that is started again at once would be refused.
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
//! their buffers: memory that is used again would put somebody else's bytes on the disk. A socket that is received
//! from is held in the same way, so that its descriptor names nobody else meanwhile.

#![allow(
    unsafe_code,
    reason = "the kernel is given addresses of buffers; that they outlive its use is local to this file"
)]

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::limits::BLOCK_BYTES;

use super::poller::Poller;
use super::provided::{self, ProvidedBuffers};
use super::slots::{KEY_BITS, Slots};

/// Submissions the kernel takes at once; more wait here. A core has at most a few writes in flight, of some tens
/// of parts each, and sends a turn's replies in pieces of this many.
const ENTRIES: u32 = 256;
/// The user data of the poll of the epoll set.
const POLL: u64 = u64::MAX;
/// Above a key or number: what it is of. Without any of them, of a write or flush.
const MULTISHOT_KIND: u64 = 1 << KEY_BITS;
const CANCEL_KIND: u64 = 2 << KEY_BITS;
const SEND_KIND: u64 = 3 << KEY_BITS;
/// The key or number below.
const KEY: u64 = (1 << KEY_BITS) - 1;

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

/// Something came in on a socket.
#[derive(Debug)]
pub struct Arrival {
    /// The number that the socket was given.
    pub token: u64,
    /// What it is.
    pub what: Arrived,
    /// The kernel has stopped looking at the socket: it must be asked again.
    pub is_over: bool,
}

/// What came in on a socket.
#[derive(Debug)]
pub enum Arrived {
    /// Bytes, at least one.
    Bytes(BytesMut),
    /// The other side has closed.
    Closed,
    /// The socket is of no more use.
    Failed(io::Error),
    /// Nothing, but that is over: it was cancelled, or there was no buffer left.
    Nothing,
}

/// A request that goes on until it is cancelled or ends by itself. It must be cancelled, or known to be over,
/// before whoever asked forgets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multishot(u64);

/// One of the sends of [`Ring::send`].
#[derive(Debug)]
pub struct Send {
    /// Where to.
    pub socket: Rc<TcpStream>,
    /// What, as a range of the bytes that are given with it.
    pub range: Range<usize>,
    /// What the socket took of it; nothing, when it takes nothing now.
    pub sent: io::Result<usize>,
}

/// What can be looked at until further notice.
struct Open {
    token: u64,
    /// Open until the kernel is done with it.
    _socket: Rc<TcpStream>,
    is_cancelled: bool,
}

/// What the kernel uses until it says that it is done.
struct Held {
    token: u64,
    _file: Rc<File>,
    _buffer: Option<Rc<Buffer>>,
}

/// One per core, built on its thread.
pub struct Ring {
    uring: IoUring,
    epoll: OwnedFd,
    /// The poll of the epoll set has not fired.
    is_armed: bool,
    /// What the submission queue had no room for.
    waiting: VecDeque<squeue::Entry>,
    held: Slots<Held>,
    /// What sockets are received into; without it the kernel cannot.
    provided: Option<ProvidedBuffers>,
    multishots: Slots<Open>,
    arrivals: Vec<Arrival>,
    /// What came with the results of sends.
    done: Vec<Done>,
    /// Something was queued since the last submission.
    is_queued: bool,
    /// A system call has failed with sends under way: what the queue names may be gone.
    is_broken: bool,
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
            held: Slots::default(),
            provided: None,
            multishots: Slots::default(),
            arrivals: Vec::new(),
            done: Vec::new(),
            is_queued: false,
            is_broken: false,
            spin,
        })
    }

    /// A ring that receives from sockets itself, if the kernel can.
    #[must_use]
    pub fn with_sockets(mut self) -> Self {
        match ProvidedBuffers::register(&self.uring) {
            Ok(provided) => self.provided = Some(provided),
            Err(error) => tracing::debug!(%error, "sockets are polled: the ring cannot receive"),
        }
        self
    }

    /// Whether it receives from sockets itself.
    #[must_use]
    pub fn has_sockets(&self) -> bool {
        self.provided.is_some()
    }

    /// How bytes of clients come in, by name.
    #[must_use]
    pub fn receive_method(&self) -> &'static str {
        if self.has_sockets() { "ring" } else { "poll" }
    }

    /// Receive from a socket from now on, until that is over. Only when it [has sockets](Self::has_sockets).
    pub fn receive(&mut self, socket: &Rc<TcpStream>, token: u64) -> Multishot {
        debug_assert!(self.has_sockets(), "there is nothing to receive into");
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), provided::GROUP).build();
        let open = Open { token, _socket: Rc::clone(socket), is_cancelled: false };
        let key = self.multishots.insert(|_| open);
        self.waiting.push_back(entry.user_data(MULTISHOT_KIND | key));
        self.is_queued = true;
        Multishot(key)
    }

    /// Stop it soon; an [`Arrival`] says when it is over.
    pub fn cancel(&mut self, multishot: Multishot) {
        let open = self.multishots.get_mut(multishot.0);
        if let Some(open) = open.filter(|open| !open.is_cancelled) {
            open.is_cancelled = true;
            self.waiting.push_back(cancellation(multishot.0));
            self.is_queued = true;
        }
    }

    /// Send now what the sockets take, without waiting for any, together with what was queued before.
    ///
    /// # Errors
    /// Never in practice; the caller treats it as the end of the core.
    pub fn send(&mut self, sends: &mut [Send], bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        for sends in sends.chunks_mut(ENTRIES as usize) {
            for (number, send) in sends.iter_mut().enumerate() {
                let piece = &bytes[send.range.clone()];
                let length = u32::try_from(piece.len()).expect("a turn's replies are bounded");
                let fd = Fd(send.socket.as_raw_fd());
                let entry = opcode::Send::new(fd, piece.as_ptr(), length)
                    .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                    .build();
                self.waiting.push_back(entry.user_data(SEND_KIND | number as u64));
                send.sent = Ok(0);
            }
            // The kernel reads `bytes` and uses the sockets until each send has ended: this returns only then.
            let mut missing = sends.len();
            while 0 < missing {
                self.push_waiting();
                self.is_queued = !self.waiting.is_empty();
                // Sends that may not wait end in the call that submits them.
                tolerate(self.uring.submit()).inspect_err(|_| self.is_broken = true)?;
                missing -= self.collect(sends);
                if 0 < missing && self.waiting.is_empty() {
                    // Nor do they wait here; this is for a kernel that thinks otherwise.
                    self.enter(Duration::from_millis(1)).inspect_err(|_| self.is_broken = true)?;
                    missing -= self.collect(sends);
                }
            }
        }
        Ok(())
    }

    /// Writes and flushes that the kernel has not finished, or of which nobody has heard yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.held.count()
    }

    /// Queue a write of `range` of `buffer` to `file` at `offset`, all three multiples of the block size. If
    /// it `syncs`, it is done when the device has it for good.
    pub fn write(
        &mut self,
        file: &Rc<File>,
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
    pub fn sync(&mut self, file: &Rc<File>, token: u64) {
        let entry = opcode::Fsync::new(Fd(file.as_raw_fd())).flags(FsyncFlags::DATASYNC).build();
        self.queue(entry, token, file, None);
    }

    fn queue(
        &mut self,
        entry: squeue::Entry,
        token: u64,
        file: &Rc<File>,
        buffer: Option<Rc<Buffer>>,
    ) {
        let held = Held { token, _file: Rc::clone(file), _buffer: buffer };
        let key = self.held.insert(|_| held);
        self.waiting.push_back(entry.user_data(key));
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
        self.check()?;
        tolerate(self.uring.submit())
    }

    /// A ring that has failed once is not entered again.
    fn check(&self) -> io::Result<()> {
        if self.is_broken { Err(io::Error::other("the ring has failed before")) } else { Ok(()) }
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
        // What came with the results of sends has not been seen yet.
        let is_idle = self.arrivals.is_empty() && self.done.is_empty();
        let timeout = if is_idle { timeout } else { Duration::ZERO };
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
        self.check()?;
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
        let sent = self.collect(&mut []);
        debug_assert_eq!(sent, 0, "the result of a send that nobody waits for");
        done.append(&mut self.done);
    }

    /// Move what has come in on sockets, as far as [`take`](Self::take) has seen it, to the end of `arrivals`.
    pub fn take_arrivals(&mut self, arrivals: &mut Vec<Arrival>) {
        arrivals.append(&mut self.arrivals);
    }

    /// Look at what the kernel has finished; how many `sends` were among it.
    fn collect(&mut self, sends: &mut [Send]) -> usize {
        let Self { uring, is_armed, held, done, multishots, provided, .. } = self;
        let mut sent = 0;
        for entry in uring.completion() {
            let key = entry.user_data() & KEY;
            match entry.user_data() & !KEY {
                _ if entry.user_data() == POLL => *is_armed = false,
                SEND_KIND => {
                    sends[key as usize].sent = match outcome(&entry) {
                        Err(error) if is_not_now(&error) => Ok(0),
                        outcome => outcome,
                    };
                    sent += 1;
                }
                MULTISHOT_KIND => {
                    self.arrivals.extend(arrival(&entry, key, multishots, provided));
                }
                CANCEL_KIND => {
                    // It was about to do something, and goes on after that.
                    if entry.result() == -libc::EALREADY {
                        self.waiting.push_back(cancellation(key));
                        self.is_queued = true;
                    }
                }
                _ => {
                    let Some(Held { token, .. }) = held.remove(key) else {
                        debug_assert!(false, "a completion of something that is not in flight");
                        continue;
                    };
                    done.push(Done { token, result: outcome(&entry) });
                }
            }
        }
        sent
    }
}

fn cancellation(key: u64) -> squeue::Entry {
    opcode::AsyncCancel::new(MULTISHOT_KIND | key).build().user_data(CANCEL_KIND | key)
}

/// What a completion of the multishot `key` says.
fn arrival(
    entry: &cqueue::Entry,
    key: u64,
    multishots: &mut Slots<Open>,
    provided: &mut Option<ProvidedBuffers>,
) -> Option<Arrival> {
    let outcome = outcome(entry);
    // Also of a receive whose bytes nobody wants any more: the place in the buffer is used.
    let bytes =
        cqueue::buffer_select(entry.flags()).zip(provided.as_mut()).map(|(number, provided)| {
            let count = *outcome.as_ref().unwrap_or(&0);
            provided.take(number, count, !cqueue::buffer_more(entry.flags()))
        });
    let token = multishots.get_mut(key)?.token;
    let is_over = !cqueue::more(entry.flags());
    if is_over {
        multishots.remove(key);
    }
    let what = match outcome {
        Ok(_) => match bytes.filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => Arrived::Bytes(bytes),
            None => Arrived::Closed,
        },
        Err(error) if is_not_now(&error) => Arrived::Nothing,
        Err(error) => match error.raw_os_error() {
            Some(libc::ECANCELED) => Arrived::Nothing,
            Some(libc::ENOBUFS) => {
                provided.iter_mut().for_each(ProvidedBuffers::grow);
                Arrived::Nothing
            }
            _ => Arrived::Failed(error),
        },
    };
    Some(Arrival { token, what, is_over })
}

impl Drop for Ring {
    fn drop(&mut self) {
        for key in self.held.keys(|_| true) {
            std::mem::forget(self.held.remove(key));
        }
        if let Some(provided) = self.provided.take() {
            provided.unregister(&self.uring);
        }
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR))
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
    use std::collections::BTreeMap;
    use std::fs::OpenOptions;
    use std::net::TcpListener;
    use std::os::unix::fs::OpenOptionsExt as _;

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
            let opened = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path);
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

    /// A connection of which both ends are ours.
    fn connection() -> (Rc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Rc::new(ours), theirs)
    }

    fn ring_with_sockets() -> Ring {
        let ring = Ring::new(&Poller::new().unwrap(), Duration::ZERO).unwrap().with_sockets();
        assert!(ring.has_sockets(), "these tests need Linux 6.12");
        ring
    }

    /// What has arrived: bytes by token, and how those that are over ended.
    #[derive(Default)]
    struct Heard {
        bytes: BTreeMap<u64, Vec<u8>>,
        over: Vec<(u64, String)>,
    }

    fn arrivals_until(ring: &mut Ring, enough: impl Fn(&Heard) -> bool) -> Heard {
        let mut heard = Heard::default();
        while !enough(&heard) {
            ring.wait(Duration::from_millis(100)).unwrap();
            ring.take(&mut Vec::new());
            let mut arrivals = Vec::new();
            ring.take_arrivals(&mut arrivals);
            for Arrival { token, what, is_over } in arrivals {
                let what = match what {
                    Arrived::Bytes(piece) => {
                        heard.bytes.entry(token).or_default().extend_from_slice(&piece);
                        "bytes".to_string()
                    }
                    what => format!("{what:?}"),
                };
                if is_over {
                    heard.over.push((token, what));
                }
            }
        }
        heard
    }

    #[test]
    fn bytes_of_many_sockets_arrive_in_order_by_one_request_each() {
        use std::io::Write as _;
        let mut ring = ring_with_sockets();
        let (pairs, expected): (Vec<_>, Vec<_>) = (0..20_u64)
            .map(|token| (connection(), (token, format!("{token}-").repeat(300).into_bytes())))
            .unzip();
        for (token, (ours, _)) in pairs.iter().enumerate() {
            ring.receive(ours, token as u64);
        }
        ring.submit().unwrap();
        // In pieces, one socket after the other, so that they share buffers.
        for at in 0..10 {
            for ((_, theirs), (_, bytes)) in pairs.iter().zip(&expected) {
                let piece = bytes.len().div_ceil(10);
                let end = ((at + 1) * piece).min(bytes.len());
                (&*theirs).write_all(&bytes[(at * piece).min(end)..end]).unwrap();
            }
        }
        let total: usize = expected.iter().map(|(_, bytes)| bytes.len()).sum();
        let heard =
            arrivals_until(&mut ring, |heard| total <= heard.bytes.values().map(Vec::len).sum());
        assert!(heard.bytes.into_iter().eq(expected));
        assert_eq!(heard.over, [], "they go on");
        let count = pairs.len();
        drop(pairs);
        let heard = arrivals_until(&mut ring, |heard| heard.over.len() == count);
        let over = heard.over;
        assert!(over.iter().all(|(_, what)| what == "Closed"), "{over:?}");
    }

    #[test]
    fn more_than_all_buffers_hold_arrives_all_the_same() {
        use std::io::Write as _;
        let mut ring = ring_with_sockets();
        let (ours, theirs) = connection();
        let total =
            3 * usize::from(crate::limits::RECEIVE_BUFFERS) * crate::limits::RECEIVE_BUFFER_BYTES
                + 12_345;
        let sent: Vec<u8> = (0..total).map(|at| (at / 251) as u8).collect();
        let sender = {
            let sent = sent.clone();
            std::thread::spawn(move || (&theirs).write_all(&sent).map(|()| theirs))
        };
        let mut got = Vec::new();
        // Kept, so that the ring has to find new memory.
        let mut kept = Vec::new();
        let mut begun = 0;
        let mut receiving = None;
        while got.len() < total {
            if receiving.is_none() {
                receiving = Some(ring.receive(&ours, 5));
                begun += 1;
            }
            ring.wait(Duration::from_millis(100)).unwrap();
            ring.take(&mut Vec::new());
            let mut arrivals = Vec::new();
            ring.take_arrivals(&mut arrivals);
            for Arrival { token, what, is_over } in arrivals {
                assert_eq!(token, 5);
                if is_over {
                    receiving = None;
                }
                match what {
                    Arrived::Bytes(piece) => {
                        got.extend_from_slice(&piece);
                        kept.push(piece.freeze());
                    }
                    Arrived::Nothing => assert!(is_over),
                    what => panic!("{what:?}"),
                }
            }
        }
        drop(sender.join().unwrap());
        assert!(got == sent, "in order, and nothing twice; begun {begun} times");
        let again: Vec<u8> = kept.iter().flat_map(|piece| piece.iter().copied()).collect();
        assert!(again == sent, "what is kept is not written over");
    }

    #[test]
    fn a_cancelled_receive_is_over_and_its_socket_closes_only_then() {
        use std::io::{Read as _, Write as _};
        let mut ring = ring_with_sockets();
        let (ours, mut theirs) = connection();
        theirs.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let receiving = ring.receive(&ours, 1);
        ring.submit().unwrap();
        ring.cancel(receiving);
        ring.cancel(receiving);
        assert_eq!(Rc::strong_count(&ours), 2);
        drop(ours);
        let heard = arrivals_until(&mut ring, |heard| !heard.over.is_empty());
        assert_eq!(heard.over, [(1, "Nothing".to_string())]);
        assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "closed");

        // One that is cancelled and asked for again goes on where it was.
        let (ours, mut theirs) = connection();
        let receiving = ring.receive(&ours, 2);
        ring.cancel(receiving);
        arrivals_until(&mut ring, |heard| heard.over.len() == 1);
        theirs.write_all(b"later").unwrap();
        ring.receive(&ours, 3);
        let heard = arrivals_until(&mut ring, |heard| !heard.bytes.is_empty());
        assert_eq!(heard.bytes[&3], b"later");
    }

    #[test]
    fn sends_of_one_call_go_as_far_as_each_socket_takes_them() {
        use std::io::Read as _;
        let mut ring = ring_with_sockets();
        // More than fits one submission, one of whom reads nothing, and one who has gone.
        let mut pairs: Vec<_> = (0..ENTRIES as usize + 50).map(|_| connection()).collect();
        let large = 16 << 20;
        let mut bytes = vec![7; large];
        let mut sends: Vec<Send> = Vec::new();
        for (number, (ours, _)) in pairs.iter().enumerate() {
            let start = bytes.len();
            bytes.extend_from_slice(format!("to {number}").as_bytes());
            let range = if number == 3 { 0..large } else { start..bytes.len() };
            sends.push(Send { socket: Rc::clone(ours), range, sent: Ok(0) });
        }
        pairs[5].0.shutdown(std::net::Shutdown::Both).unwrap();
        ring.send(&mut sends, &bytes).unwrap();
        for (number, send) in sends.iter().enumerate() {
            match number {
                3 => assert!((1..large).contains(send.sent.as_ref().unwrap())),
                5 => assert_eq!(send.sent.as_ref().unwrap_err().kind(), io::ErrorKind::BrokenPipe),
                _ => {
                    assert_eq!(*send.sent.as_ref().unwrap(), send.range.len());
                    let mut got = vec![0; send.range.len()];
                    pairs[number].1.read_exact(&mut got).unwrap();
                    assert_eq!(got, &bytes[send.range.clone()]);
                }
            }
        }
        // A socket that is full takes nothing, and that is no error.
        let socket = Rc::clone(&pairs[3].0);
        let mut again = [Send { socket, range: 0..large, sent: Ok(0) }];
        for _ in 0..100 {
            ring.send(&mut again, &bytes).unwrap();
            if *again[0].sent.as_ref().unwrap() == 0 {
                return;
            }
        }
        panic!("a socket that nobody reads from takes any amount");
    }
}
