//! `tool wal`: what a shard's log says, and whether it may be believed.
//!
//! ```text
//! 0000000000000001.seg  cluster 00000000000000c1 node 2 shard 3  67108864 bytes  follows nothing
//! 0000000000000001.seg      4096  batch 1  230 bytes  2 runs  durable to nothing
//! 0000000000000001.seg      4096    group 1  term 4 vote 7 commit 17  4/18..=19
//! ```

use std::io::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Serialize;

use crate::id::{GroupId, SegmentSeq};
use crate::limits::BLOCK_BYTES;
use crate::wal::{BatchRef, Damage, Location, RunKind, RunRef, SegmentHeader, batch_at, file_name};

use super::grep;
use super::held::unknown_group;
use super::scan::{Result, Scanned, read, scan, segments};

/// What to do with a shard's log.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Verify every byte; fails if the log is damaged.
    Check {
        /// The directory of one shard's segments.
        dir: PathBuf,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print every whole batch and run, then the verdict.
    Dump(Dump),
    /// Print the entries that hold some text, by group and index range.
    Grep(grep::Arguments),
}

/// Which runs, and how they are shown.
#[derive(Debug, clap::Args)]
pub struct Dump {
    /// The directory of one shard's segments.
    dir: PathBuf,
    /// Only runs of this group.
    #[arg(long)]
    group: Option<u64>,
    /// Only runs with entries from this index on, or of snapshots there.
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// Only runs with entries up to this index, or of snapshots there.
    #[arg(long, value_name = "INDEX")]
    to: Option<u64>,
    /// One JSON object per line; the last is the verdict.
    #[arg(long)]
    json: bool,
}

/// Carries out `command`; the report goes to `out`.
pub(crate) fn run(command: &Command, out: &mut dyn Write) -> Result<()> {
    match command {
        Command::Grep(arguments) => grep::run(arguments, out),
        Command::Check { dir, json } => {
            let scanned = scan(dir, &mut |_| {})?;
            verdict(&scanned, *json, out)?;
            scanned.judged(Vec::new())
        }
        Command::Dump(dump) => run_dump(dump, out),
    }
}

#[derive(Serialize)]
struct VerdictRow {
    whole: bool,
    /// A start ends by the damage.
    refused: bool,
    segments: u64,
    batches: u64,
    runs: u64,
    bytes: u64,
    end: Option<String>,
    torn: Option<String>,
    /// Files of which nothing is in use.
    unused: usize,
    damaged: Vec<DamageRow>,
}

#[derive(Serialize)]
struct DamageRow {
    /// Null for the note that says where the log begins.
    segment: Option<u64>,
    offset: Option<u64>,
    text: String,
}

fn verdict(scanned: &Scanned, json: bool, out: &mut dyn Write) -> Result<()> {
    let found = scanned.recovered.as_ref();
    let (segments, batches) = found.map_or((0, 0), |it| (it.segments, it.batches));
    let (runs, bytes) = found.map_or((0, 0), |it| (it.runs, it.bytes));
    if json {
        let row_of = |damage: &Damage| DamageRow {
            segment: Some(damage.segment.0),
            offset: Some(damage.offset),
            text: damage.to_string(),
        };
        let no_note = scanned.no_note.clone();
        let no_note = no_note.map(|text| DamageRow { segment: None, offset: None, text });
        let row = VerdictRow {
            whole: scanned.is_whole(),
            refused: scanned.is_refused,
            segments,
            batches,
            runs,
            bytes,
            end: found.map(|it| place(it.position.end.at)),
            torn: found.and_then(|it| it.torn).map(|torn| torn.to_string()),
            unused: found.map_or(scanned.unused, |it| it.spares.len() + it.discard.len()),
            damaged: scanned.damages.iter().map(row_of).chain(no_note).collect(),
        };
        return line(&row, out);
    }
    let Some(found) = found else {
        if scanned.is_whole() {
            writeln!(out, "whole: an empty log, {} unused files", scanned.unused)?;
        } else {
            writeln!(out, "damaged: nothing of the log can be read to its end")?;
        }
        return Ok(());
    };
    let is_whole = if scanned.is_whole() { "whole" } else { "damaged" };
    write!(
        out,
        "{is_whole}: {segments} segments, {batches} batches, {runs} runs, {bytes} bytes; "
    )?;
    writeln!(out, "ends at {}", place(found.position.end.at))?;
    if let Some(torn) = &found.torn {
        writeln!(out, "torn: {torn}")?;
    }
    Ok(writeln!(out, "unused: {} spares, {} to discard", found.spares.len(), found.discard.len())?)
}

fn line(row: &impl Serialize, out: &mut dyn Write) -> Result<()> {
    Ok(writeln!(out, "{}", serde_json::to_string(row).expect("numbers and words"))?)
}

fn run_dump(dump: &Dump, out: &mut dyn Write) -> Result<()> {
    // First what may be believed: behind what is damaged the log goes on, behind its end it does not.
    let scanned = scan(&dump.dir, &mut |_| {})?;
    let mut dumping = Dumping {
        json: dump.json,
        group: dump.group.map(GroupId),
        indices: (dump.from.is_some() || dump.to.is_some())
            .then(|| dump.from.unwrap_or(0)..=dump.to.unwrap_or(u64::MAX)),
        damages: &scanned.damages,
        is_known: false,
        out,
    };
    for (segment, path) in segments(&dump.dir)? {
        dumping.segment(segment, &read(&path)?)?;
    }
    let is_known = dumping.is_known;
    verdict(&scanned, dump.json, out)?;
    let unknown = dump.group.filter(|_| !is_known).map(|group| unknown_group(GroupId(group)));
    scanned.judged(unknown.into_iter().collect())
}

#[derive(Serialize)]
struct SegmentRow {
    segment: u64,
    /// Why there is no header, and nothing else then.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<HeaderRow>,
}

#[derive(Serialize)]
struct HeaderRow {
    /// In hexadecimal digits.
    cluster: String,
    node: u64,
    shard: u16,
    segment_bytes: u32,
    follows: String,
    /// Of which segment it is: of another one if the file was used before.
    of_segment: u64,
}

#[derive(Serialize)]
struct BatchRow {
    segment: u64,
    offset: u64,
    batch: u64,
    bytes: u64,
    runs: u64,
    durable_to: String,
}

#[derive(Serialize)]
struct RunRow {
    segment: u64,
    offset: u64,
    group: u64,
    kind: &'static str,
    term: u64,
    vote: u64,
    commit: u64,
    /// Of the entries, or of the entry that is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_term: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
    payload_bytes: usize,
    whole: bool,
}

#[derive(Serialize)]
struct EndRow {
    segment: u64,
    offset: u64,
    /// Something is damaged here, or else the segment ends.
    damaged: bool,
    fault: String,
}

/// A log on its way to who wants to see it.
struct Dumping<'a> {
    json: bool,
    group: Option<GroupId>,
    indices: Option<RangeInclusive<u64>>,
    damages: &'a [Damage],
    /// Something of the group that is wanted was met.
    is_known: bool,
    out: &'a mut dyn Write,
}

impl Dumping<'_> {
    fn segment(&mut self, segment: SegmentSeq, bytes: &[u8]) -> Result<()> {
        let name = file_name(segment);
        let header = match SegmentHeader::decode(bytes) {
            Ok(header) => header,
            Err(fault) if self.json => {
                let no_header = Some(fault.to_string());
                return line(&SegmentRow { segment: segment.0, no_header, header: None }, self.out);
            }
            Err(fault) => return Ok(writeln!(self.out, "{name}  no header: {fault}")?),
        };
        let SegmentHeader { identity, segment_bytes, previous, segment: number, .. } = header;
        let (cluster, follows) = (identity.cluster.to_string(), place(previous.at));
        let (node, shard) = (identity.node, identity.shard);
        if self.json {
            let (node, shard, of_segment) = (node.0, shard.0, number.0);
            let header = HeaderRow { cluster, node, shard, segment_bytes, follows, of_segment };
            let row = SegmentRow { segment: segment.0, no_header: None, header: Some(header) };
            line(&row, self.out)?;
        } else {
            write!(self.out, "{name}  cluster {cluster} node {node} shard {shard}  ")?;
            writeln!(self.out, "{segment_bytes} bytes  follows {follows}")?;
        }
        if number != segment {
            if !self.json {
                writeln!(self.out, "{name}  header of {}", file_name(number))?;
            }
            return Ok(());
        }
        self.batches(segment, bytes)
    }

    fn batches(&mut self, segment: SegmentSeq, bytes: &[u8]) -> Result<()> {
        let mut offset = BLOCK_BYTES as u64;
        loop {
            let fault = match batch_at(bytes, offset) {
                Ok(batch) => {
                    self.batch(segment, &batch)?;
                    offset += batch.aligned() as u64;
                    continue;
                }
                Err(fault) => fault,
            };
            let is_here = |it: &Damage| it.segment == segment && it.offset == offset;
            let damaged = self.damages.iter().any(is_here);
            if self.json {
                let fault = fault.to_string();
                line(&EndRow { segment: segment.0, offset, damaged, fault }, self.out)?;
            } else {
                let what = if damaged { "damaged" } else { "end" };
                writeln!(self.out, "{}  {offset:>8}  {what}: {fault}", file_name(segment))?;
            }
            // The next one that is whole; a damaged header does not say where it is.
            let mut later = (offset..bytes.len() as u64).step_by(BLOCK_BYTES).skip(1);
            let next = later.find(|at| batch_at(bytes, *at).is_ok());
            match next.filter(|_| damaged) {
                Some(next) => offset = next,
                None => return Ok(()),
            }
        }
    }

    fn batch(&mut self, segment: SegmentSeq, batch: &BatchRef<'_>) -> Result<()> {
        let header = &batch.header;
        let offset = header.at.offset;
        if self.group.is_none() && self.indices.is_none() {
            let durable_to = place(header.durable);
            if self.json {
                let row = BatchRow {
                    segment: segment.0,
                    offset,
                    batch: header.number,
                    bytes: header.bytes.into(),
                    runs: header.runs.into(),
                    durable_to,
                };
                line(&row, self.out)?;
            } else {
                let name = file_name(segment);
                write!(self.out, "{name}  {offset:>8}  batch {}  ", header.number)?;
                write!(self.out, "{} bytes  {} runs  ", header.bytes, header.runs)?;
                writeln!(self.out, "durable to {durable_to}")?;
            }
        }
        for run in batch.runs().flatten() {
            if self.group.is_some_and(|group| group != run.group) {
                continue;
            }
            self.is_known = true;
            let names_entries = match run.kind {
                RunKind::Log => run.count > 0,
                RunKind::SnapshotPiece | RunKind::SnapshotTaken | RunKind::SnapshotInstalled => {
                    true
                }
                _ => false,
            };
            let is_in = |indices: &RangeInclusive<u64>| {
                let last = if run.kind == RunKind::Log { run.last() } else { run.first };
                names_entries && run.first.0 <= *indices.end() && *indices.start() <= last.0
            };
            if self.indices.as_ref().is_none_or(is_in) {
                self.run(segment, offset, &run)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, segment: SegmentSeq, offset: u64, run: &RunRef<'_>) -> Result<()> {
        let RunRef { kind, is_forgetful, group, hard_state, run_term, first, count, .. } = *run;
        let bytes: usize = run.entries().map(|entry| entry.payload.len()).sum();
        if self.json {
            let names_one = kind != RunKind::Log && first.0 > 0;
            let names_any = names_one || (kind == RunKind::Log && count > 0);
            let last = if kind == RunKind::Log { run.last() } else { first };
            let row = RunRow {
                segment: segment.0,
                offset,
                group: group.0,
                kind: kind_name(kind),
                term: hard_state.term.0,
                vote: hard_state.vote.0,
                commit: hard_state.commit.0,
                run_term: names_any.then_some(run_term.0),
                first: names_any.then_some(first.0),
                last: names_any.then_some(last.0),
                payload_bytes: bytes,
                whole: !is_forgetful,
            };
            return line(&row, self.out);
        }
        let out = &mut *self.out;
        write!(out, "{}  {offset:>8}    group {group}  ", file_name(segment))?;
        write!(out, "term {} vote {} ", hard_state.term, hard_state.vote)?;
        write!(out, "commit {}", hard_state.commit)?;
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
        Ok(writeln!(out)?)
    }
}

/// As JSON has it.
const fn kind_name(kind: RunKind) -> &'static str {
    match kind {
        RunKind::Log => "log",
        RunKind::SnapshotPiece => "snapshot_piece",
        RunKind::SnapshotTaken => "snapshot_taken",
        RunKind::SnapshotInstalled => "snapshot_installed",
        RunKind::Tombstone => "removed",
        RunKind::PromisesForgotten => "promises_forgotten",
        RunKind::EntriesForgotten => "entries_forgotten",
        RunKind::Recalled => "recalled",
        RunKind::SaidAgain => "said_again",
    }
}

fn place(at: Location) -> String {
    if at == Location::default() { "nothing".to_owned() } else { at.to_string() }
}
