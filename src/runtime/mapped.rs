//! Segments as byte slices: the one home of memory maps.
//!
//! A mapped page that is not in memory costs about 63 µs and blocks the whole thread that touches
//! it, so maps are made and read only where waiting is allowed: while a core recovers, and on its
//! log-reading thread.

#![allow(unsafe_code, reason = "memory maps; why they are sound is said at the one call below")]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::{Advice, Mmap, MmapOptions};

use crate::limits::SEGMENT_BYTES;

/// A whole segment, readable as bytes.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
}

impl Mapped {
    /// Map the segment at `path`.
    ///
    /// # Errors
    /// When it cannot be opened, or is not exactly one segment long: it was not written by us, or
    /// was cut short.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        if bytes != SEGMENT_BYTES as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is {bytes} bytes long, a segment is {SEGMENT_BYTES}"),
            ));
        }
        let mut options = MmapOptions::new();
        options.len(SEGMENT_BYTES);
        // SAFETY: a map is sound while nobody changes or truncates the file under it. Segments are
        // never truncated: they get their length before they get their name (segments.rs), and an unlinked
        // file stays alive while it is mapped. The directory is locked by this
        // process (runtime/identity.rs). While a core recovers nothing writes its log; afterwards
        // only sealed segments are mapped (`LogRead` promises it), and a sealed segment is written again
        // only as another one, after it was given up: no read of it is under way then (shard/truncate.rs, the
        // third step), and none is asked for afterwards; a map that the reader has not let go yet is not
        // looked at. What is punched out of a segment lies behind every entry, and is punched
        // after recovery has let all slices go. What a stranger with write access to the directory could do
        // is outside of what any program can guard against.
        let map = unsafe { options.map(&file)? };
        Ok(Self { map })
    }

    /// Has the device begin to read a part of it. What cannot be read shows when it is loaded.
    pub fn want(&self, range: Range<u64>) {
        let (from, to) = (range.start as usize, (range.end as usize).min(SEGMENT_BYTES));
        if from < to {
            _ = self.map.advise_range(Advice::WillNeed, from, to - from);
        }
    }

    /// Bring `range` into memory, a multiple of the page size at its start, and cut at the end of the
    /// segment. A device that cannot read it says so here; touching the page unasked would kill the
    /// process with a signal that names nothing.
    ///
    /// The device is told of the whole range first: it reads nearly twice as fast with several reads in flight as with
    /// one behind the other.
    ///
    /// # Errors
    /// When the device cannot read it.
    pub fn load(&self, range: Range<u64>) -> io::Result<()> {
        let (from, to) = (range.start as usize, (range.end as usize).min(SEGMENT_BYTES));
        if to <= from {
            return Ok(());
        }
        self.want(range);
        match self.map.advise_range(Advice::PopulateRead, from, to - from) {
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                Err(io::Error::other(format!("the device cannot read bytes {from} to {to} of it")))
            }
            // Linux before 5.14 does not know the question; reading works without it.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            loaded => loaded,
        }
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
