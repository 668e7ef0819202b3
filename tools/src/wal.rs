//! `tool wal`: what a shard's log says, and whether it may be believed.
//!
//! ```text
//! 0000000000000001.seg  cluster 193 node 2 shard 3  67108864 bytes  follows nothing
//! 0000000000000001.seg      4096  batch 1  230 bytes  2 runs  durable to nothing
//! 0000000000000001.seg      4096    group 1  term 4 vote 7 commit 17  4/18..=19
//! ```

use std::fmt;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::{fs, result};

use outrigger::id::{GroupId, SegmentSeq};
use outrigger::limits::BLOCK_BYTES;
use outrigger::wal::{
    BatchRef, Damage, Location, Recovered, Recovery, RunKind, RunRef, SegmentHeader, batch_at,
    file_name, parse_file_name, parse_first,
};

/// What to do with a shard's log.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Verify every byte; fails if the log is damaged.
    Check {
        /// The directory of one shard's segments.
        dir: PathBuf,
    },
    /// Print every whole batch and run, then the verdict.
    Dump {
        /// The directory of one shard's segments.
        dir: PathBuf,
        /// Only runs of this group.
        #[arg(long)]
        group: Option<u64>,
    },
}

/// Why it ended early.
pub(crate) enum Stop {
    /// The log must not be used.
    Damage(Damage),
    /// A file could not be read.
    File(PathBuf, io::Error),
    /// Whoever reads the output has seen enough.
    Reader,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damage(damage) => write!(f, "damaged: {damage}"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Reader => write!(f, "output closed"),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Reader
    }
}

type Result<T> = result::Result<T, Stop>;

/// Carry out `command`; the report goes to `out`.
pub(crate) fn run(command: &Command, out: &mut dyn Write) -> Result<()> {
    let (dir, dump, group) = match command {
        Command::Check { dir } => (dir, false, None),
        Command::Dump { dir, group } => (dir, true, group.map(GroupId)),
    };
    let mut recovery: Option<Recovery> = None;
    let mut damage = None;
    // Files in front of the first whole header; they are spares or torn, and fed when it is known
    // whose log this is.
    let mut waiting = Vec::new();
    let all = segments(dir)?;
    for (at, (segment, path)) in all.iter().enumerate() {
        let segment = *segment;
        let bytes = read(path)?;
        let header = SegmentHeader::decode(&bytes);
        if dump {
            dump_segment(segment, &bytes, group, out)?;
        }
        let recovery = match (&mut recovery, header) {
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
            feed(recovery, &all[earlier..], &read(&all[earlier].1)?, &mut damage)?;
        }
        feed(recovery, &all[at..], &bytes, &mut damage)?;
    }
    if let Some(damage) = damage {
        return Err(Stop::Damage(damage));
    }
    match recovery {
        Some(recovery) => verdict(&recovery.finish().map_err(Stop::Damage)?, out),
        None => Ok(writeln!(out, "whole: an empty log, {} unused files", waiting.len())?),
    }
}

/// Feeds the first of `files`, which holds `bytes`; the others say where it ends. The first damage
/// counts; after it, recovery has nothing more to say.
fn feed(
    recovery: &mut Recovery,
    files: &[(SegmentSeq, PathBuf)],
    bytes: &[u8],
    damage: &mut Option<Damage>,
) -> Result<()> {
    let [(segment, _), later @ ..] = files else { return Ok(()) };
    if damage.is_some() {
        return Ok(());
    }
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
    *damage = recovery.segment(*segment, bytes, &mut |_| {}).err();
    Ok(())
}

/// Where the log begins, if its front was given up.
fn first(dir: &Path) -> SegmentSeq {
    let text = fs::read_to_string(dir.join("FIRST")).ok();
    text.and_then(|text| parse_first(&text)).unwrap_or(SegmentSeq(0))
}

fn segments(dir: &Path) -> Result<Vec<(SegmentSeq, PathBuf)>> {
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

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Stop::File(path.to_owned(), error))
}

fn verdict(recovered: &Recovered, out: &mut dyn Write) -> Result<()> {
    let Recovered { segments, batches, runs, bytes, position, torn, spares, discard } = recovered;
    write!(out, "whole: {segments} segments, {batches} batches, {runs} runs, {bytes} bytes; ")?;
    writeln!(out, "ends at {}", place(position.end.at))?;
    if let Some(torn) = torn {
        writeln!(out, "torn: {torn}")?;
    }
    Ok(writeln!(out, "unused: {} spares, {} to discard", spares.len(), discard.len())?)
}

fn dump_segment(
    segment: SegmentSeq,
    bytes: &[u8],
    group: Option<GroupId>,
    out: &mut dyn Write,
) -> Result<()> {
    let name = file_name(segment);
    match SegmentHeader::decode(bytes) {
        Ok(SegmentHeader { identity, segment_bytes, previous, segment: number, .. }) => {
            write!(out, "{name}  {identity}  {segment_bytes} bytes  ")?;
            writeln!(out, "follows {}", place(previous.at))?;
            if number != segment {
                return Ok(writeln!(out, "{name}  header of {}", file_name(number))?);
            }
        }
        Err(fault) => return Ok(writeln!(out, "{name}  no header: {fault}")?),
    }
    let mut offset = BLOCK_BYTES as u64;
    loop {
        match batch_at(bytes, offset) {
            Ok(batch) => {
                dump_batch(&name, &batch, group, out)?;
                offset += batch.aligned() as u64;
            }
            Err(fault) => return Ok(writeln!(out, "{name}  {offset:>8}  end: {fault}")?),
        }
    }
}

fn dump_batch(
    name: &str,
    batch: &BatchRef<'_>,
    group: Option<GroupId>,
    out: &mut dyn Write,
) -> Result<()> {
    let header = &batch.header;
    let offset = header.at.offset;
    let runs = batch.runs().flatten().filter(|run| group.is_none_or(|group| group == run.group));
    if group.is_none() {
        write!(out, "{name}  {offset:>8}  batch {}  {} bytes  ", header.number, header.bytes)?;
        writeln!(out, "{} runs  durable to {}", header.runs, place(header.durable))?;
    }
    for run in runs {
        let RunRef { kind, group, hard_state, run_term, first, count, .. } = run;
        write!(out, "{name}  {offset:>8}    group {group}  term {} ", hard_state.term)?;
        write!(out, "vote {} commit {}", hard_state.vote, hard_state.commit)?;
        let bytes: usize = run.entries().map(|entry| entry.payload.len()).sum();
        match kind {
            RunKind::Log if count == 0 => {}
            RunKind::Log => {
                write!(out, "  {run_term}/{first}..={}  {bytes} bytes", run.last())?;
            }
            RunKind::SnapshotPiece => {
                write!(out, "  piece of the snapshot at {run_term}/{first}  {bytes} bytes")?;
            }
            RunKind::SnapshotTaken => write!(out, "  snapshot at {run_term}/{first} taken")?,
            RunKind::SnapshotInstalled => {
                write!(out, "  snapshot at {run_term}/{first} installed")?;
            }
            RunKind::Tombstone => write!(out, "  removed")?,
            RunKind::PromisesForgotten => write!(out, "  part of the log is lost, and promises")?,
            RunKind::EntriesForgotten => {
                write!(out, "  entries are lost, the last was {run_term}/{first}")?;
            }
            RunKind::Recalled => write!(out, "  what was lost is here again")?,
        }
        writeln!(out)?;
    }
    Ok(())
}

fn place(at: Location) -> String {
    if at == Location::default() { "nothing".to_owned() } else { at.to_string() }
}
