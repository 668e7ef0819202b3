//! `tool wal`: what a shard's log says, and whether it may be believed.
//!
//! ```text
//! 0000000000000001.seg  cluster 193 node 2 shard 3  67108864 bytes  follows nothing
//! 0000000000000001.seg      4096  batch 1  230 bytes  2 runs  durable to nothing
//! 0000000000000001.seg      4096    group 1  term 4 vote 7 commit 17  4/18..=19
//! ```

use std::io::Write;
use std::path::PathBuf;

use outrigger::id::{GroupId, SegmentSeq};
use outrigger::limits::BLOCK_BYTES;
use outrigger::wal::{
    BatchRef, Location, Recovered, RunKind, RunRef, SegmentHeader, batch_at, file_name,
};

use crate::grep;
use crate::scan::{Result, Verdict, read, scan, segments};

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
    /// Print the entries that hold some text, by group and index range.
    Grep(grep::Arguments),
}

/// Carry out `command`; the report goes to `out`.
pub(crate) fn run(command: &Command, out: &mut dyn Write) -> Result<()> {
    let dir = match command {
        Command::Grep(arguments) => return grep::run(arguments, out),
        Command::Check { dir } => dir,
        Command::Dump { dir, group } => {
            for (segment, path) in segments(dir)? {
                dump_segment(segment, &read(&path)?, group.map(GroupId), out)?;
            }
            dir
        }
    };
    match scan(dir, &mut |_| {})? {
        Verdict::Whole(recovered) => verdict(&recovered, out),
        Verdict::Empty(files) => Ok(writeln!(out, "whole: an empty log, {files} unused files")?),
    }
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
        let RunRef { kind, is_forgetful, group, hard_state, run_term, first, count, .. } = run;
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
            RunKind::SaidAgain => write!(out, "  ends with {run_term}/{first}, as said before")?,
        }
        if is_forgetful {
            write!(out, "  not whole")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn place(at: Location) -> String {
    if at == Location::default() { "nothing".to_owned() } else { at.to_string() }
}
