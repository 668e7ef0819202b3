//! Where in a node's files a bit is flipped. What a log does not prove to have been durable is left alone: damage there
//! cannot be told from a write that was cut short.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Error};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use outrigger::id::{GroupId, Index, SegmentSeq};
use outrigger::limits::BLOCK_BYTES;
use outrigger::wal::{
    BatchRef, RunKind, SegmentHeader, batch_at, file_name, parse_file_name, parse_first,
};

use crate::machine::{Failed, stopped};

/// One bit of a file.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    byte: u64,
    bit: u8,
    /// What a node says that finds it.
    pub(super) told: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.path.file_name().unwrap_or_default().display();
        let folder = self.path.parent().and_then(Path::file_name).unwrap_or_default().display();
        write!(f, "bit {} of byte {} of {folder}/{file}", self.bit, self.byte)
    }
}

impl Place {
    fn new(path: PathBuf, bytes: Range<usize>, told: String, random: &mut Rng) -> Self {
        Self { path, byte: random.usize(bytes) as u64, bit: random.u8(..8), told }
    }

    /// Flips it, or flips it back.
    pub(super) fn flip(&self) -> Result<(), Failed> {
        let flip = || {
            let file = File::options().read(true).write(true).open(&self.path)?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, self.byte)?;
            file.write_all_at(&[byte[0] ^ 1 << self.bit], self.byte)?;
            file.sync_all()
        };
        flip().map_err(|error| stopped(self.path.display(), error))
    }

    /// The segment has left the log; the small file says what it should again.
    pub(super) fn is_mended(&self) -> bool {
        match self.path.extension() {
            Some(ending) if ending == "seg" => !self.path.exists(),
            _ => super::is_readable(&self.path),
        }
    }
}

/// Anywhere in a small file.
pub(super) fn in_file(path: &Path, random: &mut Rng) -> io::Result<Place> {
    let bytes = fs::metadata(path)?.len() as usize;
    let name = path.file_name().unwrap_or_default().display();
    Ok(Place::new(path.to_owned(), 0..bytes, format!("{name} is damaged"), random))
}

/// In a header or batch of the segment that was written last.
pub(super) fn in_last(core: &Path, random: &mut Rng) -> io::Result<Place> {
    let segments = segments(core)?;
    let last = segments.last().ok_or_else(|| Error::other("no segment was written"))?;
    last.anywhere(random)
}

/// In a header or batch of a segment that another follows.
pub(super) fn in_sealed(core: &Path, random: &mut Rng) -> io::Result<Place> {
    let mut segments = segments(core)?;
    segments.pop();
    segments.retain(|segment| !segment.batches().is_empty());
    if segments.is_empty() {
        return Err(Error::other("no segment is sealed"));
    }
    segments[random.usize(..segments.len())].anywhere(random)
}

/// In a batch that holds a piece of a snapshot.
pub(super) fn in_snapshot(core: &Path, random: &mut Rng) -> io::Result<Place> {
    let segments = segments(core)?;
    let mut places = Vec::new();
    for segment in &segments {
        let holds = |batch: &BatchRef<'_>| {
            batch.runs().flatten().any(|run| run.kind == RunKind::SnapshotPiece)
        };
        let batches = segment.batches().into_iter().filter(holds);
        places.extend(batches.map(|batch| (segment, batch_place(&batch))));
    }
    if places.is_empty() {
        return Err(Error::other("there is no snapshot"));
    }
    let (segment, bytes) = places.swap_remove(random.usize(..places.len()));
    Ok(segment.place(bytes.start, bytes, random))
}

/// In an entry of this group behind `known`, in the first segment that has one, and the entry's index; none if no
/// segment has.
///
/// The running node has to read it from there again: it does not have it in memory, because it knew at its start that it
/// is committed, and read more behind it than it keeps, which is `kept` bytes. The last segment here was begun by the start.
pub(super) fn in_entries(
    core: &Path,
    group: u64,
    known: u64,
    kept: usize,
    random: &mut Rng,
) -> io::Result<Option<(u64, Place)>> {
    let mut segments = segments(core)?;
    segments.pop();
    // Where each entry lies that no later one takes the place of.
    let mut entries = BTreeMap::new();
    let mut committed = Index(0);
    for (number, segment) in segments.iter().enumerate() {
        let batches = segment.batches();
        let runs = batches.iter().flat_map(|batch| {
            let runs = batch.runs().flatten().filter(|run| run.group == GroupId(group));
            runs.map(move |run| (batch, run))
        });
        for (batch, run) in runs {
            committed = committed.max(run.hard_state.commit);
            if run.kind != RunKind::Log {
                continue;
            }
            drop(entries.split_off(&run.first.0));
            entries.extend((run.first.0..).zip(run.entries()).map(|(index, entry)| {
                let start = entry.payload.as_ptr() as usize - segment.bytes.as_ptr() as usize;
                let bytes = start..start + entry.payload.len();
                (index, (number, batch_place(batch).start, bytes))
            }));
        }
    }
    let mut behind = 0;
    let mut places = Vec::new();
    for (index, (number, batch, bytes)) in entries.into_iter().rev() {
        let is_wanted = (known + 1..=committed.0).contains(&index) && kept < behind;
        behind += bytes.len();
        if is_wanted && bytes.start < bytes.end {
            places.push((number, (index, batch, bytes)));
        }
    }
    let first = places.iter().map(|(number, _)| *number).min();
    places.retain(|(number, _)| Some(*number) == first);
    if places.is_empty() {
        return Ok(None);
    }
    let (number, (index, batch, bytes)) = places.swap_remove(random.usize(..places.len()));
    Ok(Some((index, segments[number].place(batch, bytes, random))))
}

fn batch_place(batch: &BatchRef<'_>) -> Range<usize> {
    let start = batch.header.at.offset as usize;
    start..start + batch.aligned()
}

/// A segment of the log, as it lies on disk.
struct Segment {
    path: PathBuf,
    header: SegmentHeader,
    bytes: Vec<u8>,
    /// Where it ends, by the next one's header.
    end: Option<u64>,
}

/// Those that are part of the log, in order.
fn segments(core: &Path) -> io::Result<Vec<Segment>> {
    let first = fs::read_to_string(core.join("FIRST")).ok();
    let first = first.and_then(|text| parse_first(&text)).unwrap_or(SegmentSeq(0));
    let mut segments: Vec<Segment> = Vec::new();
    let mut names: Vec<SegmentSeq> = Vec::new();
    for entry in fs::read_dir(core)? {
        let name = entry?.file_name();
        names.extend(name.to_str().and_then(parse_file_name).filter(|seq| first <= *seq));
    }
    names.sort_unstable();
    for seq in names {
        let path = core.join(file_name(seq));
        let bytes = match fs::read(&path) {
            // The running node has just given it up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        // A spare has no header, or one of an earlier life.
        let header = SegmentHeader::decode(&bytes).ok().filter(|header| header.segment == seq);
        let Some(header) = header else { continue };
        if let Some(last) = segments.last_mut() {
            last.end = Some(header.previous.at.offset);
        }
        segments.push(Segment { path, header, bytes, end: None });
    }
    Ok(segments)
}

impl Segment {
    /// The batches that the log proves to have been durable.
    fn batches(&self) -> Vec<BatchRef<'_>> {
        let mut batches = Vec::new();
        let mut offset = BLOCK_BYTES as u64;
        while let Ok(batch) = batch_at(&self.bytes, offset) {
            offset += batch.aligned() as u64;
            batches.push(batch);
        }
        let proven = self.end.or_else(|| {
            let here = |batch: &BatchRef<'_>| {
                let durable = batch.header.durable;
                (durable.segment == self.header.segment).then_some(durable.offset)
            };
            batches.iter().filter_map(here).max()
        });
        batches.retain(|batch| batch.header.at.offset < proven.unwrap_or(0));
        batches
    }

    /// In its header, seldom, or in a batch.
    fn anywhere(&self, random: &mut Rng) -> io::Result<Place> {
        let batches = self.batches();
        if batches.is_empty() {
            return Err(Error::other(format!("{} proves nothing", self.path.display())));
        }
        if random.u8(..16) == 0 {
            return Ok(self.place(0, 0..BLOCK_BYTES, random));
        }
        let batch = batch_place(&batches[random.usize(..batches.len())]);
        Ok(self.place(batch.start, batch, random))
    }

    /// A bit of `bytes`, which belong to the batch at `batch`.
    fn place(&self, batch: usize, bytes: Range<usize>, random: &mut Rng) -> Place {
        let told = format!("log segment {}, offset {batch}: ", file_name(self.header.segment));
        Place::new(self.path.clone(), bytes, told, random)
    }
}
