//! What the disk under a directory does: how long it takes until something is durable, by either
//! method, and how much it takes at a time. For the node's choice of a [`FlushMethod`], and for `outrigger doctor`.
//!
//! It writes as the log does: whole blocks, past the page cache, over zeroes that are durable already, so that
//! a flush has no metadata to carry. It blocks; cores do not run yet, or not in this process.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::ReadWriteFlags;

use crate::config::FlushMethod;
use crate::limits::BLOCK_BYTES;

use super::private;
use super::ring::Buffer;

/// The name of the file that is written, in the directory that is measured.
const NAME: &str = "measure.tmp";
/// Size of that file, in bytes.
const FILE_BYTES: usize = 4 << 20;
/// Size of one write when bandwidth is measured, in bytes.
const LARGE_BYTES: usize = 1 << 20;
/// Writes of each kind by which a node chooses.
const CHOICE_WRITES: usize = 16;
/// A node that starts does not wait for a slow disk any longer.
const CHOICE_TIME: Duration = Duration::from_millis(400);

/// How long something took, several times over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// So many percent took no longer. Zero if nothing was measured.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.median().as_micros(), self.percentile(99).as_micros());
        write!(f, "p50 {p50} µs, p99 {p99} µs of {}", self.count())
    }
}

/// How long one block takes until it is durable, by each method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flushes {
    /// By one write with `RWF_DSYNC`.
    pub dsync: Times,
    /// By a write and an `fdatasync`.
    pub fdatasync: Times,
}

impl Flushes {
    #[cfg(test)]
    pub(super) fn of_micros(dsync: &[u64], fdatasync: &[u64]) -> Self {
        let times = |micros: &[u64]| {
            Times::new(micros.iter().map(|it| Duration::from_micros(*it)).collect())
        };
        Self { dsync: times(dsync), fdatasync: times(fdatasync) }
    }

    /// The better method: `dsync`, unless three quarters of the others' writes were faster by a tenth than three quarters of
    /// its own. It is one call where the other is two and a thread of the kernel's between them, which cost more
    /// when a node is busy than they do here; so what is only luck must not decide.
    #[must_use]
    pub fn better(&self) -> FlushMethod {
        if self.fdatasync.percentile(75) < self.dsync.percentile(25).mul_f64(0.9) {
            FlushMethod::Fdatasync
        } else {
            FlushMethod::Dsync
        }
    }

    /// What it takes by that method.
    #[must_use]
    pub fn by(&self, method: FlushMethod) -> &Times {
        match method {
            FlushMethod::Dsync => &self.dsync,
            FlushMethod::Fdatasync => &self.fdatasync,
        }
    }
}

/// The method that suits the disk under `dir`, by a short measurement, and what was measured. A disk that
/// cannot be measured (a full one) gets the default.
#[must_use]
pub fn choose(dir: &Path) -> (FlushMethod, Option<Flushes>) {
    let measured = Scratch::new(dir).and_then(|it| it.flushes(CHOICE_WRITES, CHOICE_TIME));
    match measured {
        Ok(flushes) => (flushes.better(), Some(flushes)),
        Err(error) => {
            tracing::warn!(%error, "cannot measure the disk");
            (FlushMethod::default(), None)
        }
    }
}

/// A file to measure with; removed in the end.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    path: std::path::PathBuf,
}

impl Scratch {
    /// A file of durable zeroes in `dir`.
    ///
    /// # Errors
    /// When the directory takes none: it is full, read-only, or on a filesystem without O_DIRECT.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(NAME);
        let flag = rustix::fs::OFlags::DIRECT.bits() as i32;
        let mut options = private::file();
        let file =
            options.create(true).truncate(true).write(true).custom_flags(flag).open(&path)?;
        let scratch = Self { file, path };
        let mut zeroes = Buffer::new(LARGE_BYTES);
        for offset in (0..FILE_BYTES).step_by(LARGE_BYTES) {
            scratch.file.write_all_at(zeroes.space(LARGE_BYTES), offset as u64)?;
        }
        scratch.file.sync_all()?;
        Ok(scratch)
    }

    /// Up to `writes` blocks by each method in turn, in `time` if that is less, but one of each at least.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn flushes(&self, writes: usize, time: Duration) -> io::Result<Flushes> {
        let mut block = Buffer::new(BLOCK_BYTES);
        let started = Instant::now();
        let (mut dsync, mut fdatasync) = (Vec::new(), Vec::new());
        for number in 0..writes {
            if 0 < number && time <= started.elapsed() {
                break;
            }
            block.space(BLOCK_BYTES).fill(number as u8);
            let offset = (2 * number * BLOCK_BYTES % FILE_BYTES) as u64;
            let start = Instant::now();
            self.write_durably(block.space(BLOCK_BYTES), offset)?;
            let middle = Instant::now();
            self.file.write_all_at(block.space(BLOCK_BYTES), offset + BLOCK_BYTES as u64)?;
            self.file.sync_data()?;
            dsync.push(middle - start);
            fdatasync.push(middle.elapsed());
        }
        Ok(Flushes { dsync: Times::new(dsync), fdatasync: Times::new(fdatasync) })
    }

    fn write_durably(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let bytes = [io::IoSlice::new(bytes)];
        match rustix::io::pwritev2(&self.file, &bytes, offset, ReadWriteFlags::DSYNC)? {
            BLOCK_BYTES => Ok(()),
            short => Err(io::Error::other(format!("only {short} bytes of a block were written"))),
        }
    }

    /// Bytes per second, one mebibyte after the other, durable in the end.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn bandwidth(&self, rounds: usize) -> io::Result<u64> {
        let mut bytes = Buffer::new(LARGE_BYTES);
        let started = Instant::now();
        for round in 0..rounds {
            bytes.space(LARGE_BYTES).fill(round as u8);
            for offset in (0..FILE_BYTES).step_by(LARGE_BYTES) {
                self.file.write_all_at(bytes.space(LARGE_BYTES), offset as u64)?;
            }
        }
        self.file.sync_data()?;
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        Ok(((rounds * FILE_BYTES) as f64 / seconds) as u64)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: &[u64]) -> Times {
        Flushes::of_micros(micros, &[]).dsync
    }

    #[test]
    fn percentiles_are_those_of_what_was_measured() {
        let all: Vec<u64> = (1..=200).rev().collect();
        let it = times(&all);
        assert_eq!(it.median(), Duration::from_micros(100));
        assert_eq!(it.percentile(99), Duration::from_micros(198));
        assert_eq!(times(&[7]).percentile(99), Duration::from_micros(7));
        assert_eq!(times(&[]).median(), Duration::ZERO);
    }

    #[test]
    fn fdatasync_is_chosen_only_where_it_is_clearly_faster() {
        let better = |dsync, fdatasync| Flushes::of_micros(&[dsync], &[fdatasync]).better();
        assert_eq!(better(100, 120), FlushMethod::Dsync);
        assert_eq!(better(100, 95), FlushMethod::Dsync);
        assert_eq!(better(100, 80), FlushMethod::Fdatasync);
        // Its middle is faster by a quarter, and that is luck: the two overlap.
        let mixed = Flushes::of_micros(&[70, 90, 200, 210], &[60, 70, 150, 160]);
        assert_eq!(mixed.better(), FlushMethod::Dsync);
        let apart = Flushes::of_micros(&[200, 210, 220, 900], &[60, 70, 150, 960]);
        assert_eq!(apart.better(), FlushMethod::Fdatasync);
    }

    #[test]
    fn a_disk_is_measured_and_nothing_is_left_behind() {
        let scratch = crate::runtime::scratch::Scratch::new("disk");
        let measured = Scratch::new(scratch.path()).unwrap();
        let flushes = measured.flushes(5, Duration::from_secs(60)).unwrap();
        assert_eq!((flushes.dsync.count(), flushes.fdatasync.count()), (5, 5));
        assert!(Duration::ZERO < flushes.dsync.median());
        let hurried = measured.flushes(5, Duration::ZERO).unwrap();
        assert_eq!(hurried.dsync.count(), 1, "out of time after one of each");
        assert!(0 < measured.bandwidth(1).unwrap());
        drop(measured);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        let (method, flushes) = choose(scratch.path());
        assert_eq!(flushes.map(|it| it.better()), Some(method));
        assert_eq!(choose(&scratch.path().join("absent")), (FlushMethod::Dsync, None));
    }
}
