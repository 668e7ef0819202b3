//! Makes log segments and gives them up: files that were written before, whole and durable, under their final
//! name before anyone writes to them.
//!
//! A new file is written with zeros first because overwriting blocks that exist costs one device
//! write and one flush per commit, while blocks that are only reserved cost three times the writes
//! (the file system must log their first use) and extending a file costs a second write. Making 64
//! MiB of zeros takes a good part of a second, so it happens ahead of need, on a thread of its own:
//! allocating in the path of a write has cost others 2 to 820 ms.
//!
//! ```text
//!   core: Effects.spare ──► this thread: a retired file? ── yes ──► rename · fsync dir
//!    ▲                                    │ no
//!    │                                    ▼
//!    │                        NAME.tmp · 64 MiB of zeros · fsync · rename · fsync dir
//!    │                                    │ no room: report full, try again every second
//!    └────── Made::Ready / Made::Full ◄───┘
//! ```
//!
//! A log used alone ([`super::log`]) asks for new files that are only reserved while its writes are so large that
//! zeros of the same length cost more than that one more commit (docs/decisions/0015-a-log-that-only-grows.md).
//! Such a file reads as zeros, and is in all else like one of zeros.
//!
//! What is renamed is not written: a spare may be full of what it held before, and the log bears it
//! (`wal/mod.rs`, `wal/reuse.rs`). So the device writes each byte once. A file is taken only if all its blocks
//! are there: one whose end was given back would make the file system log each first use again.
//!
//! Segments that a snapshot has made superfluous go by the same thread, also while it waits for room:
//!
//! ```text
//!   core: Effects.reclaim ──► FIRST.tmp · fsync · rename to FIRST · fsync dir ──► retire · fsync dir
//! ```
//!
//! `FIRST` holds the number of the segment with which the log begins, and a checksum of it. It is
//! durable before the first file goes: a start that finds segments missing must know that they were
//! given up. What a crash leaves in front of it, the next start gives up. A note that has decayed says nothing: the
//! log that is there then begins late for no reason, and its replicas ask their peers for what may be gone; the next
//! note replaces it. To retire a file is to rename
//! it to `NUMBER.old`, if fewer than [`RETIRED_SEGMENTS_MAX`] are kept; else it is deleted.
//!
//! A crash at any point leaves a `.tmp`, which recovery deletes; a whole segment of zeros, which it takes
//! for the spare that it is; or a retired file under its old name or its new one. Under the new one
//! recovery finds that no header in it is of that number, and takes it for a spare, too. What it finds to be of no
//! use is retired with the number that it has by then: the number of a file only rises.
//!
//! [`RETIRED_SEGMENTS_MAX`]: crate::limits::RETIRED_SEGMENTS_MAX

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::FallocateFlags;

use crate::id::SegmentSeq;
use crate::limits::{BLOCK_BYTES, SEGMENT_BYTES};
use crate::wal;

use super::identity::lock_in_time;
use super::private;

/// One write of zeros, in bytes: small enough to let the log's own writes in between.
const ZEROS_BYTES: usize = 256 << 10;
/// How long to wait for room before the next try.
const RETRY: Duration = Duration::from_secs(1);
/// Unused ends shorter than this stay, in bytes: a full segment has one too.
const RELEASE_BYTES_MIN: u64 = 1 << 20;
/// How often a segment that is being written is looked at again.
const LOCK_TRIES: u32 = 100;
/// Ends the name of a segment that is not whole yet.
const TMP_SUFFIX: &str = ".tmp";
/// The file that says where the log begins.
const FIRST: &str = "FIRST";

/// What has become of a wanted segment.
#[derive(Debug)]
pub enum Made {
    /// It is there.
    Ready(SegmentSeq, Origin),
    /// Whether there is no room for it. It is tried again every second.
    Full(bool),
    /// It cannot be made, ever; the text names the file and the error.
    Failed(String),
}

/// What a segment was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A new file of zeros.
    Zeros,
    /// A new file whose blocks are only reserved: it reads as zeros.
    Reserved,
    /// A segment that the log no longer needed, with what was in it.
    Retired,
}

/// Where a core keeps its segments. One per core.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory of one core's log; made if it is missing.
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        private::create_dir_all(&path)?;
        if let Some(parent) = path.parent() {
            sync_directory(parent)?;
        }
        Ok(Self { path })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a segment.
    #[must_use]
    pub fn segment(&self, seq: SegmentSeq) -> PathBuf {
        self.path.join(wal::file_name(seq))
    }

    /// The segments that exist, in order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn segments(&self) -> io::Result<Vec<SegmentSeq>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            found.extend(name.to_str().and_then(wal::parse_file_name));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The files that wait to become segments again, by the numbers that they had.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn retired(&self) -> io::Result<Vec<SegmentSeq>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            found.extend(name.to_str().and_then(wal::parse_retired_name));
        }
        found.sort_unstable();
        Ok(found)
    }

    fn retired_path(&self, seq: SegmentSeq) -> PathBuf {
        self.path.join(wal::retired_name(seq))
    }

    /// Delete what a crash left half made.
    ///
    /// # Errors
    /// When the directory cannot be read or a file cannot be deleted.
    pub fn clean(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.ends_with(TMP_SUFFIX)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Make what is in a segment durable, whoever wrote it.
    ///
    /// # Errors
    /// When the device fails; nothing read from the segment may be trusted then.
    pub fn sync(&self, seq: SegmentSeq) -> io::Result<()> {
        File::open(self.segment(seq))?.sync_data()
    }

    /// Wait until no write of an earlier process is on its way to any segment. A killed process leaves
    /// its writes to the kernel; one that landed after recovery could replace what was acknowledged
    /// since. [`super::wal_writer`] holds a lock on every segment it writes, and the kernel keeps it
    /// until the last of them has ended.
    ///
    /// # Errors
    /// When a segment cannot be opened, or is still locked after some seconds.
    pub fn wait_for_writes(&self) -> io::Result<()> {
        for seq in self.segments()? {
            let file = File::open(self.segment(seq))?;
            if !lock_in_time(&file, LOCK_TRIES)? {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!("{} is being written", self.segment(seq).display()),
                ));
            }
        }
        Ok(())
    }

    /// The first block of a segment, which holds its header; zeros as far as the file is shorter.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn first_block(&self, seq: SegmentSeq) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        File::open(self.segment(seq))?.take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        block.resize(BLOCK_BYTES, 0);
        Ok(block)
    }

    /// Give the blocks of a sealed segment behind `end` back to the file system; the file keeps its
    /// length and reads as zeros there. A node that starts often would otherwise fill the disk with
    /// the unused ends of its segments.
    ///
    /// # Errors
    /// When the file system refuses; one that cannot do it at all is no error.
    pub fn release_end(&self, seq: SegmentSeq, end: u64) -> io::Result<()> {
        let rest = (SEGMENT_BYTES as u64).saturating_sub(end);
        if rest < RELEASE_BYTES_MIN {
            return Ok(());
        }
        let file = OpenOptions::new().write(true).open(self.segment(seq))?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&file, flags, end, rest) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The segment with which the log begins, as [`Self::reclaim`] noted it; zero if it never did.
    ///
    /// # Errors
    /// When the note cannot be read, or is damaged: [`io::ErrorKind::InvalidData`].
    pub fn first(&self) -> io::Result<SegmentSeq> {
        let path = self.path.join(FIRST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(SegmentSeq(0)),
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
        };
        std::str::from_utf8(&bytes).ok().and_then(wal::parse_first).ok_or_else(|| {
            let text = format!("{} is damaged: \"{}\"", path.display(), bytes.escape_ascii());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    /// As [`Self::first`]; zero if the note is damaged, and how it is.
    ///
    /// # Errors
    /// When the note cannot be read.
    pub fn first_if_whole(&self) -> io::Result<(SegmentSeq, Option<String>)> {
        match self.first() {
            Ok(first) => Ok((first, None)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Ok((SegmentSeq(0), Some(error.to_string())))
            }
            Err(error) => Err(error),
        }
    }

    /// Give up the segments in front of `first`: note that it is the first, then retire them.
    ///
    /// # Errors
    /// When that is not durable. What is left in front of the note is given up by the next start.
    pub fn reclaim(&self, first: SegmentSeq) -> io::Result<()> {
        let (noted, _) = self.first_if_whole()?;
        if noted < first {
            let path = self.path.join(FIRST);
            let tmp = path.with_extension("tmp");
            let mut file = private::create(&tmp)?;
            file.write_all(wal::first_text(first).as_bytes())?;
            file.sync_all()?;
            fs::rename(&tmp, &path)?;
            sync_directory(&self.path)?;
        }
        for seq in self.segments()?.into_iter().take_while(|seq| *seq < first) {
            self.retire_in_cache(seq)?;
        }
        sync_directory(&self.path)
    }

    /// Give up a segment that recovery found to be of no use.
    ///
    /// # Errors
    /// When it cannot be given up, durably.
    pub fn retire(&self, seq: SegmentSeq) -> io::Result<()> {
        self.retire_in_cache(seq)?;
        sync_directory(&self.path)
    }

    /// As [`Self::retire`]; durable only when the directory is.
    fn retire_in_cache(&self, seq: SegmentSeq) -> io::Result<()> {
        let path = self.segment(seq);
        if wal::is_kept(self.retired()?.len()) && is_reusable(&path)? {
            fs::rename(path, self.retired_path(seq))
        } else {
            fs::remove_file(path)
        }
    }

    /// Make segment `next` of one that recovery found to be of no use, so that the directory never is without
    /// a segment.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn renew(&self, useless: SegmentSeq, next: SegmentSeq) -> io::Result<Origin> {
        let path = self.segment(useless);
        if useless < next && is_reusable(&path)? {
            fs::rename(path, self.segment(next))?;
            sync_directory(&self.path)?;
            return Ok(Origin::Retired);
        }
        let origin = self.make(next)?;
        fs::remove_file(path)?;
        sync_directory(&self.path)?;
        Ok(origin)
    }

    /// Make a segment, of a retired file or of zeros, that survives a power cut under its final name.
    ///
    /// # Errors
    /// Whatever the file system says; nothing is left behind then.
    pub fn make(&self, seq: SegmentSeq) -> io::Result<Origin> {
        self.make_by(seq, write_zeros)
    }

    /// As [`Self::make`], but a new file's blocks are only reserved, if the file system can do that: for
    /// large writes, to which one more commit of the file system's journal is less than zeros of the same length.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn make_reserved(&self, seq: SegmentSeq) -> io::Result<Origin> {
        self.make_by(seq, reserve)
    }

    /// Whether the file system has room for another segment, as far as it says how much it has.
    fn has_room(&self) -> io::Result<()> {
        let Ok(stat) = rustix::fs::statvfs(&self.path) else { return Ok(()) };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if stat.f_blocks == 0 || SEGMENT_BYTES as u64 <= free {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("{} MiB are free, a segment takes {}", free >> 20, SEGMENT_BYTES >> 20),
        ))
    }

    fn make_by(
        &self,
        seq: SegmentSeq,
        new_file: impl FnOnce(&Path) -> io::Result<Origin>,
    ) -> io::Result<Origin> {
        let path = self.segment(seq);
        let retired = self.retired()?;
        if let Some(old) = wal::successor_of(retired.iter().copied(), seq) {
            fs::rename(self.retired_path(old), &path)?;
            sync_directory(&self.path)?;
            return Ok(Origin::Retired);
        }
        // They had this number, or had a later one, before a start that went back to it. What they
        // hold must not be found under it, and while the disk is full they are in the way.
        for old in retired {
            fs::remove_file(self.retired_path(old))?;
        }
        // Found out by writing, it would cost a segment's worth of writes at every attempt, on a disk from
        // which others read, and may wait for what they wrote.
        self.has_room()?;
        let tmp = path.with_extension(format!("seg{TMP_SUFFIX}"));
        let made = new_file(&tmp).and_then(|origin| fs::rename(&tmp, &path).map(|()| origin));
        let origin = made.inspect_err(|_| {
            // It may not exist; if it cannot be deleted, the next start will.
            let _ = fs::remove_file(&tmp);
        })?;
        sync_directory(&self.path)?;
        Ok(origin)
    }
}

/// Whether a file can be a segment again without being written first: it is of full length, all its blocks
/// are there, nobody else has a name for it, and nobody has it open to write.
fn is_reusable(path: &Path) -> io::Result<bool> {
    const BLOCKS_OF: u64 = 512;
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let is_whole = meta.len() == SEGMENT_BYTES as u64 && meta.len() <= meta.blocks() * BLOCKS_OF;
    Ok(is_whole && meta.nlink() == 1 && lock_in_time(&file, 0)?)
}

/// Asks the segment-making thread of one core for segments. Dropping it ends the thread once it
/// has finished what it is doing.
#[derive(Debug)]
pub struct Preparer {
    wanted: mpsc::Sender<Order>,
    thread: thread::JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    Make(SegmentSeq),
    MakeReserved(SegmentSeq),
    Reclaim(SegmentSeq),
}

impl Preparer {
    /// Start the thread. It calls `report` for every outcome. The log may hold `bytes_max` bytes
    /// of segments; past that it counts as full.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        name: String,
        directory: Directory,
        bytes_max: u64,
        report: impl Fn(Made) + Send + 'static,
    ) -> io::Result<Self> {
        let (wanted, orders) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || prepare(&directory, bytes_max, &orders, &report))?;
        Ok(Self { wanted, thread })
    }

    /// Wait until the thread has done what was asked of it, as far as there is room, and has ended.
    pub fn finish(self) {
        drop(self.wanted);
        // A panic has been printed already, and ends nothing that is not ending.
        let _ = self.thread.join();
    }

    /// Make this segment, after those asked for before it.
    pub fn want(&self, seq: SegmentSeq) {
        // The thread ends only after `Made::Failed`, which ends the node.
        let _ = self.wanted.send(Order::Make(seq));
    }

    /// As [`Self::want`], for large writes; see [`Directory::make_reserved`].
    pub fn want_reserved(&self, seq: SegmentSeq) {
        let _ = self.wanted.send(Order::MakeReserved(seq));
    }

    /// Give up the segments in front of this one.
    pub fn reclaim(&self, first: SegmentSeq) {
        let _ = self.wanted.send(Order::Reclaim(first));
    }
}

/// The thread: one segment after another until nobody can ask any more.
fn prepare(
    directory: &Directory,
    bytes_max: u64,
    orders: &mpsc::Receiver<Order>,
    report: &impl Fn(Made),
) {
    let reclaim = |first| {
        let done = directory.reclaim(first);
        done.map_err(|error| {
            let path = directory.path().display();
            report(Made::Failed(format!("cannot delete log segments in {path}: {error}")));
        })
    };
    while let Ok(order) = orders.recv() {
        let (seq, is_reserved) = match order {
            Order::Make(seq) => (seq, false),
            Order::MakeReserved(seq) => (seq, true),
            Order::Reclaim(first) => match reclaim(first) {
                Ok(()) => continue,
                Err(()) => return,
            },
        };
        let mut full = false;
        let origin = loop {
            match make_within(directory, seq, is_reserved, bytes_max) {
                Ok(origin) => break origin,
                Err(error) if is_full(&error) => {
                    if !full {
                        full = true;
                        tracing::warn!(
                            segment = %directory.segment(seq).display(), %error,
                            "no room for another log segment: writes are refused until there is",
                        );
                        report(Made::Full(true));
                    }
                }
                Err(error) => {
                    let path = directory.segment(seq);
                    report(Made::Failed(format!("cannot make {}: {error}", path.display())));
                    return;
                }
            }
            // Returns at once, and for good, when the core is gone.
            match orders.recv_timeout(RETRY) {
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                // Room, perhaps.
                Ok(Order::Reclaim(first)) => {
                    if reclaim(first).is_err() {
                        return;
                    }
                }
                // The core asks for one segment at a time; a second order would be for the same.
                Ok(Order::Make(_) | Order::MakeReserved(_)) => {}
            }
        };
        if full {
            report(Made::Full(false));
        }
        report(Made::Ready(seq, origin));
    }
}

fn make_within(
    directory: &Directory,
    seq: SegmentSeq,
    is_reserved: bool,
    bytes_max: u64,
) -> io::Result<Origin> {
    // Retired files do not count: zeros are written only when there are none, and what is retired and
    // used again makes the directory no larger.
    let bytes = (directory.segments()?.len() as u64 + 1) * SEGMENT_BYTES as u64;
    if bytes_max < bytes {
        return Err(io::Error::new(
            io::ErrorKind::QuotaExceeded,
            format!("the log would hold {bytes} bytes, wal_bytes_max is {bytes_max}"),
        ));
    }
    if is_reserved { directory.make_reserved(seq) } else { directory.make(seq) }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Write a whole segment of zeros to `path` and make it durable. Past the page cache if the file
/// system can: 64 MiB of zeros would push out pages that somebody reads.
fn write_zeros(path: &Path) -> io::Result<Origin> {
    let mut options = private::file();
    options.write(true).create(true).truncate(true);
    let mut file = match options.clone().custom_flags(libc::O_DIRECT).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.open(path)?,
        opened => opened?,
    };
    // O_DIRECT wants aligned memory: take a block more than needed and start at its first boundary.
    let memory = vec![0u8; ZEROS_BYTES + BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    let zeros = &memory[start..start + ZEROS_BYTES];
    for _ in 0..SEGMENT_BYTES / ZEROS_BYTES {
        file.write_all(zeros)?;
    }
    file.sync_all()?;
    Ok(Origin::Zeros)
}

/// Reserve the blocks of a whole segment at `path`, and make that durable. They are unwritten extents to the file
/// system: they read as zeros until something was written to them and that has become durable.
fn reserve(path: &Path) -> io::Result<Origin> {
    let file = private::create(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SEGMENT_BYTES as u64) {
        Ok(()) => file.sync_all().map(|()| Origin::Reserved),
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(path),
        Err(errno) => Err(errno.into()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    // An empty path is how "the current directory" looks as a parent.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

const _: () = assert!(SEGMENT_BYTES.is_multiple_of(ZEROS_BYTES));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RETIRED_SEGMENTS_MAX;
    use crate::runtime::scratch::Scratch;

    #[test]
    fn a_segment_is_whole_and_zero_and_found_again() {
        let scratch = Scratch::new("segments");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        fs::write(directory.path().join("0000000000000009.seg.tmp"), b"half").unwrap();
        fs::write(directory.path().join("notes.txt"), b"not ours").unwrap();

        directory.make(SegmentSeq(2)).unwrap();
        directory.make(SegmentSeq(1)).unwrap();
        directory.clean().unwrap();

        assert_eq!(directory.segments().unwrap(), [SegmentSeq(1), SegmentSeq(2)]);
        let bytes = fs::read(directory.segment(SegmentSeq(1))).unwrap();
        assert_eq!(bytes.len(), SEGMENT_BYTES);
        assert!(bytes.iter().all(|&byte| byte == 0));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "the .tmp is gone");
    }

    #[test]
    fn a_reserved_segment_has_all_its_blocks_and_reads_as_zeros() {
        let scratch = Scratch::new("segments-reserved");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        assert_eq!(directory.make_reserved(SegmentSeq(1)).unwrap(), Origin::Reserved);
        let path = directory.segment(SegmentSeq(1));
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.len(), SEGMENT_BYTES as u64);
        assert!(meta.len() <= meta.blocks() * 512, "{} blocks", meta.blocks());
        assert!(fs::read(&path).unwrap().iter().all(|&byte| byte == 0));
        // It is retired like any other, and what is retired goes first.
        directory.make(SegmentSeq(2)).unwrap();
        directory.reclaim(SegmentSeq(2)).unwrap();
        assert_eq!(directory.make_reserved(SegmentSeq(3)).unwrap(), Origin::Retired);
    }

    #[test]
    fn an_unused_end_is_given_back_and_reads_as_zeros() {
        use std::os::unix::fs::{FileExt as _, MetadataExt as _};

        let scratch = Scratch::new("segments-release");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        directory.make(SegmentSeq(1)).unwrap();
        let path = directory.segment(SegmentSeq(1));
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[7; 2 * BLOCK_BYTES], BLOCK_BYTES as u64).unwrap();
        file.sync_all().unwrap();
        let before = fs::metadata(&path).unwrap().blocks();
        directory.release_end(SegmentSeq(1), 2 * BLOCK_BYTES as u64).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.len(), SEGMENT_BYTES as u64);
        assert!(after.blocks() < before / 10, "{} of {before} blocks stay", after.blocks());
        let bytes = fs::read(&path).unwrap();
        let sum = |range: std::ops::Range<usize>| bytes[range].iter().map(|&b| u64::from(b)).sum();
        let (kept, gone): (u64, u64) =
            (sum(BLOCK_BYTES..2 * BLOCK_BYTES), sum(2 * BLOCK_BYTES..SEGMENT_BYTES));
        assert_eq!((kept, gone), (7 * BLOCK_BYTES as u64, 0));
    }

    #[test]
    fn recovery_waits_for_whoever_still_writes() {
        let scratch = Scratch::new("segments-lock");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        directory.make(SegmentSeq(1)).unwrap();
        let writing = File::open(directory.segment(SegmentSeq(1))).unwrap();
        writing.lock().unwrap();
        let (tell, told) = mpsc::channel();
        let other = directory.clone();
        let waiter = thread::Builder::new()
            .spawn(move || {
                let waited = other.wait_for_writes();
                tell.send(()).unwrap();
                waited
            })
            .unwrap();
        assert!(told.recv_timeout(Duration::from_millis(200)).is_err(), "it did not wait");
        drop(writing);
        waiter.join().unwrap().unwrap();
    }

    #[test]
    fn contract_row_27_what_is_reclaimed_is_noted_before_it_is_gone() {
        let scratch = Scratch::new("segments-reclaim");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        for seq in 1..=4 {
            // What is in it does not matter here.
            fs::write(directory.segment(SegmentSeq(seq)), b"").unwrap();
        }
        assert_eq!(directory.first().unwrap(), SegmentSeq(0));
        directory.reclaim(SegmentSeq(3)).unwrap();
        assert_eq!(directory.first().unwrap(), SegmentSeq(3));
        assert_eq!(directory.segments().unwrap(), [SegmentSeq(3), SegmentSeq(4)]);
        // A crash after the note leaves files in front of it.
        fs::write(directory.segment(SegmentSeq(2)), b"").unwrap();
        directory.reclaim(SegmentSeq(3)).unwrap();
        assert_eq!(directory.segments().unwrap(), [SegmentSeq(3), SegmentSeq(4)]);
        fs::write(directory.path().join(FIRST), b"0000000000000004 00000000").unwrap();
        let damaged = directory.first().unwrap_err();
        assert!(damaged.to_string().contains("FIRST is damaged"), "{damaged}");
        // It holds nobody up: nothing is given up on its word, and the next one is whole.
        directory.reclaim(SegmentSeq(0)).unwrap();
        assert_eq!(directory.segments().unwrap(), [SegmentSeq(3), SegmentSeq(4)]);
        assert!(directory.first().is_err());
        directory.reclaim(SegmentSeq(4)).unwrap();
        assert_eq!(directory.first().unwrap(), SegmentSeq(4));
    }

    #[test]
    fn every_flipped_bit_of_the_note_is_damage() {
        let scratch = Scratch::new("segments-first-bits");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        fs::write(directory.segment(SegmentSeq(0xab)), b"").unwrap();
        directory.reclaim(SegmentSeq(0xab)).unwrap();
        let note = fs::read(directory.path().join(FIRST)).unwrap();
        for bit in 0..8 * note.len() {
            let mut flipped = note.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(directory.path().join(FIRST), flipped).unwrap();
            let (first, damage) = directory.first_if_whole().unwrap();
            assert!(damage.is_some_and(|it| it.contains("FIRST is damaged")), "bit {bit}: {first}");
        }
    }

    #[test]
    fn what_is_given_up_becomes_a_spare_as_it_is_and_its_number_only_rises() {
        use std::os::unix::fs::FileExt as _;

        let scratch = Scratch::new("segments-retired");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        let byte_of = |seq| {
            let bytes = fs::read(directory.segment(SegmentSeq(seq))).unwrap();
            assert_eq!(bytes.len(), SEGMENT_BYTES);
            bytes[BLOCK_BYTES]
        };
        for seq in 1..=3 {
            assert_eq!(directory.make(SegmentSeq(seq)).unwrap(), Origin::Zeros);
            let file = OpenOptions::new().write(true).open(directory.segment(SegmentSeq(seq)));
            file.unwrap().write_all_at(&[seq as u8], BLOCK_BYTES as u64).unwrap();
        }
        directory.reclaim(SegmentSeq(3)).unwrap();
        assert_eq!(directory.segments().unwrap(), [SegmentSeq(3)]);
        assert_eq!(directory.retired().unwrap(), [SegmentSeq(1), SegmentSeq(2)]);
        directory.clean().unwrap();
        // The oldest first, with what is in it.
        assert_eq!(directory.make(SegmentSeq(4)).unwrap(), Origin::Retired);
        assert_eq!((byte_of(3), byte_of(4)), (3, 1));
        // What had this number, or a later one, is not found under it again.
        assert_eq!(directory.retired().unwrap(), [SegmentSeq(2)]);
        assert_eq!(directory.make(SegmentSeq(2)).unwrap(), Origin::Zeros);
        assert_eq!((byte_of(2), directory.retired().unwrap()), (0, vec![]));
        // A start finds a spare useless, and makes the next one of it; there always is a segment.
        assert_eq!(directory.renew(SegmentSeq(4), SegmentSeq(5)).unwrap(), Origin::Retired);
        assert_eq!(byte_of(5), 1);
        directory.retire(SegmentSeq(5)).unwrap();
        assert_eq!(directory.segments().unwrap(), [SegmentSeq(2), SegmentSeq(3)]);
        assert_eq!(directory.retired().unwrap(), [SegmentSeq(5)]);
    }

    #[test]
    fn what_is_not_whole_or_not_ours_alone_is_deleted_and_so_is_one_too_many() {
        let scratch = Scratch::new("segments-deleted");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        let copy = scratch.path().join("a copy that somebody keeps");
        for seq in 1..=4 {
            directory.make(SegmentSeq(seq)).unwrap();
        }
        directory.release_end(SegmentSeq(1), 2 * BLOCK_BYTES as u64).unwrap();
        fs::hard_link(directory.segment(SegmentSeq(2)), &copy).unwrap();
        let writing = File::open(directory.segment(SegmentSeq(3))).unwrap();
        writing.lock().unwrap();
        directory.reclaim(SegmentSeq(4)).unwrap();
        assert_eq!(directory.retired().unwrap(), []);
        assert_eq!(directory.segments().unwrap(), [SegmentSeq(4)]);
        assert_eq!(fs::metadata(&copy).unwrap().len(), SEGMENT_BYTES as u64);

        for seq in 11..11 + RETIRED_SEGMENTS_MAX as u64 {
            fs::write(directory.retired_path(SegmentSeq(seq)), b"").unwrap();
        }
        directory.retire(SegmentSeq(4)).unwrap();
        assert_eq!(directory.segments().unwrap(), []);
        assert_eq!(directory.retired().unwrap().len(), RETIRED_SEGMENTS_MAX);
        // None of them may have a lower number: they are in the way, and there is room for one now.
        assert_eq!(directory.make(SegmentSeq(9)).unwrap(), Origin::Zeros);
        assert_eq!(directory.retired().unwrap(), []);
    }

    #[test]
    fn past_its_bound_the_log_is_full_and_says_so_once() {
        let scratch = Scratch::new("segments-full");
        let directory = Directory::open(scratch.path().join("core-0")).unwrap();
        directory.make(SegmentSeq(1)).unwrap();
        let (tell, told) = mpsc::channel();
        let preparer =
            Preparer::start("prep".into(), directory.clone(), SEGMENT_BYTES as u64, move |made| {
                let _ = tell.send(made);
            })
            .unwrap();
        preparer.want(SegmentSeq(2));
        let wait = Duration::from_secs(20);
        assert!(matches!(told.recv_timeout(wait).unwrap(), Made::Full(true)));
        preparer.reclaim(SegmentSeq(2));
        assert!(matches!(told.recv_timeout(wait).unwrap(), Made::Full(false)));
        let made = told.recv_timeout(wait).unwrap();
        assert!(matches!(made, Made::Ready(SegmentSeq(2), Origin::Retired)), "{made:?}");
        assert_eq!(directory.segments().unwrap(), [SegmentSeq(2)]);
        assert_eq!(directory.retired().unwrap(), []);
    }
}
