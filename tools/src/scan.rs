//! Reads a shard's log as a start would: every segment in order, every byte checked. Nothing is written, so
//! that a log can be looked at while a node writes it; what it is writing just then looks torn.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::{fs, result};

use outrigger::id::SegmentSeq;
use outrigger::limits::BLOCK_BYTES;
use outrigger::wal::{
    Damage, Recovered, RecoveredRun, Recovery, SegmentHeader, parse_file_name, parse_first,
};

/// Why it ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The log must not be used.
    Damage(Damage),
    /// A file could not be read or written.
    File(PathBuf, io::Error),
    /// What was asked for is not there, or not whole.
    Unfit(String),
    /// Whoever reads the output has seen enough.
    Reader,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damage(damage) => write!(f, "damaged: {damage}"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Unfit(what) => f.write_str(what),
            Self::Reader => write!(f, "output closed"),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Reader
    }
}

pub(crate) type Result<T> = result::Result<T, Stop>;

/// What a log is, as a whole.
pub(crate) enum Verdict {
    /// Whole.
    Whole(Recovered),
    /// Nothing was ever written; so many files are prepared.
    Empty(usize),
}

/// Reads all of it; `on_run` sees every run, in the order in which they were written.
pub(crate) fn scan(dir: &Path, on_run: &mut dyn FnMut(RecoveredRun<'_>)) -> Result<Verdict> {
    let mut recovery: Option<Recovery> = None;
    // Files in front of the first whole header; they are spares or torn, and fed when it is known
    // whose log this is.
    let mut waiting = Vec::new();
    let all = segments(dir)?;
    for (at, (_, path)) in all.iter().enumerate() {
        let bytes = read(path)?;
        let recovery = match (&mut recovery, SegmentHeader::decode(&bytes)) {
            (Some(recovery), _) => recovery,
            (none, Ok(header)) => {
                let bytes = header.segment_bytes as usize;
                let recovery = Recovery::with_segment_bytes(header.identity, bytes);
                none.insert(recovery.reclaimed_to(first(dir)))
            }
            (None, Err(_)) => {
                waiting.push(at);
                continue;
            }
        };
        for earlier in waiting.drain(..) {
            feed(recovery, &all[earlier..], &read(&all[earlier].1)?, on_run)?;
        }
        feed(recovery, &all[at..], &bytes, on_run)?;
    }
    match recovery {
        Some(recovery) => recovery.finish().map(Verdict::Whole).map_err(Stop::Damage),
        None => Ok(Verdict::Empty(waiting.len())),
    }
}

/// Feeds the first of `files`, which holds `bytes`; the others say where it ends.
fn feed(
    recovery: &mut Recovery,
    files: &[(SegmentSeq, PathBuf)],
    bytes: &[u8],
    on_run: &mut dyn FnMut(RecoveredRun<'_>),
) -> Result<()> {
    let [(segment, _), later @ ..] = files else { return Ok(()) };
    for (later, path) in later {
        let mut block = vec![0; BLOCK_BYTES];
        let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut block));
        match read {
            // Shorter than a block: no header there.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(Stop::File(path.clone(), error)),
            Ok(()) if recovery.look_ahead(*later, &block).is_some() => break,
            Ok(()) => {}
        }
    }
    recovery.segment(*segment, bytes, on_run).map_err(Stop::Damage)
}

/// Where the log begins, if its front was given up.
fn first(dir: &Path) -> SegmentSeq {
    let text = fs::read_to_string(dir.join("FIRST")).ok();
    text.and_then(|text| parse_first(&text)).unwrap_or(SegmentSeq(0))
}

/// The files of a log, in order.
pub(crate) fn segments(dir: &Path) -> Result<Vec<(SegmentSeq, PathBuf)>> {
    let failed = |error| Stop::File(dir.to_owned(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        found.extend(name.and_then(parse_file_name).map(|segment| (segment, path)));
    }
    found.sort();
    Ok(found)
}

/// A whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Stop::File(path.to_owned(), error))
}
