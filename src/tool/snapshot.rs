//! `tool snapshot`: the snapshots in a shard's log, whether they are whole, and what is in them.
//!
//! ```text
//! group  entry    pieces       bytes  segments  state
//!     1  3/118         4      270336  2..=2     taken, superseded
//!     1  3/412         4      271001  5..=6     taken
//! ```

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::id::GroupId;
use crate::store::StateMachine as _;
use crate::store::map::Map;
use crate::wal::RunKind;

use super::held::{Snapshot, held, unknown_group};
use super::scan::{Result, Stop};

/// What to do with the snapshots of a shard's log.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Every snapshot there is, in the order of the log.
    List {
        /// The directory of one shard's segments.
        dir: PathBuf,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Builds the state of each group from its latest snapshot; fails if one makes none.
    Verify {
        /// The directory of one shard's segments.
        dir: PathBuf,
        /// Only this group.
        #[arg(long)]
        group: Option<u64>,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Writes the latest snapshot of a group as commands, for redis-cli --pipe.
    Extract {
        /// The directory of one shard's segments.
        dir: PathBuf,
        /// Which group.
        #[arg(long)]
        group: u64,
        /// Where to; it must not exist.
        out: PathBuf,
    },
}

#[derive(Serialize)]
struct Row {
    group: u64,
    term: u64,
    index: u64,
    pieces: u32,
    bytes: u64,
    first_segment: u64,
    last_segment: u64,
    state: &'static str,
    superseded: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// Carries out `command`; the report goes to `out`.
pub(crate) fn run(command: &Command, out: &mut dyn Write) -> Result<()> {
    match command {
        Command::List { dir, json } => list(dir, *json, out),
        Command::Verify { dir, group, json } => verify(dir, group.map(GroupId), *json, out),
        Command::Extract { dir, group, out: path } => extract(dir, GroupId(*group), path, out),
    }
}

fn list(dir: &Path, json: bool, out: &mut dyn Write) -> Result<()> {
    let (groups, scanned) = held(dir, |_| false)?;
    if !json {
        writeln!(out, "group  entry        pieces       bytes  segments      state")?;
    }
    for (group, held) in &groups {
        let latest = held.stored().map(|it| it.segments);
        for it in &held.snapshots {
            let row = Row {
                group: group.0,
                term: it.entry.term.0,
                index: it.entry.index.0,
                pieces: it.pieces,
                bytes: it.bytes,
                first_segment: it.segments.0.0,
                last_segment: it.segments.1.0,
                state: match it.whole {
                    _ if it.is_cut => "damaged",
                    None => "unfinished",
                    Some(RunKind::SnapshotInstalled) => "installed",
                    Some(_) if it.is_in_place => "taken in place",
                    Some(_) => "taken",
                },
                superseded: it.whole.is_some() && !it.is_cut && Some(it.segments) != latest,
                fault: it.whole.and_then(|_| it.meta.as_ref().err().cloned()),
            };
            if json {
                writeln!(out, "{}", serde_json::to_string(&row).expect("numbers and words"))?;
                continue;
            }
            let Row { group, pieces, bytes, state, .. } = row;
            let segments = format!("{}..={}", row.first_segment, row.last_segment);
            let superseded = if row.superseded { ", superseded" } else { "" };
            let fault = row.fault.map_or_else(String::new, |fault| format!(", {fault}"));
            let entry = it.entry.to_string();
            writeln!(
                out,
                "{group:>5}  {entry:<11} {pieces:>7} {bytes:>11}  {segments:<12}  {state}{superseded}{fault}"
            )?;
        }
    }
    scanned.judged(Vec::new())
}

/// The machine of a group's latest snapshot, or why it makes none.
fn machine(group: GroupId, stored: &Snapshot) -> std::result::Result<Map, String> {
    let unfit = |what: &dyn std::fmt::Display| {
        format!("group {group}: the snapshot at {} is unfit: {what}", stored.entry)
    };
    stored.meta.as_ref().map_err(|fault| unfit(fault))?;
    if stored.is_in_place {
        return Err(unfit(&"the state machine keeps its state in storage of its own"));
    }
    Map::from_chunks(stored.chunks.iter().cloned()).map_err(|error| unfit(&error))
}

#[derive(Serialize)]
struct Verified {
    group: u64,
    term: u64,
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    /// In hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// The state machine keeps it in storage of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    in_place: bool,
    /// Why it makes no state.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

fn verify(dir: &Path, only: Option<GroupId>, json: bool, out: &mut dyn Write) -> Result<()> {
    let (groups, scanned) = held(dir, |group| only.is_none_or(|only| only == group))?;
    let mut count = 0;
    let mut unfit: Vec<String> =
        only.filter(|only| !groups.contains_key(only)).map(unknown_group).into_iter().collect();
    for (group, held) in groups.iter().filter(|(group, _)| only.is_none_or(|it| it == **group)) {
        let Some(stored) = held.stored() else { continue };
        let entry = stored.entry;
        let (group_id, term, index) = (group.0, entry.term.0, entry.index.0);
        let mut row = Verified {
            group: group_id,
            term,
            index,
            keys: None,
            digest: None,
            in_place: false,
            fault: None,
        };
        match machine(*group, stored) {
            _ if stored.is_in_place && stored.meta.is_ok() => {
                if !json {
                    writeln!(
                        out,
                        "group {group}: at {entry}, in storage of the state machine's own"
                    )?;
                }
                row.in_place = true;
                count += 1;
            }
            Ok(map) => {
                let (keys, digest) = (map.len(), format!("{:016x}", map.digest()));
                if !json {
                    writeln!(out, "group {group}: {keys} keys at {entry}, digest {digest}")?;
                }
                (row.keys, row.digest) = (Some(keys), Some(digest));
                count += 1;
            }
            Err(fault) => {
                row.fault = Some(fault.clone());
                unfit.push(fault);
            }
        }
        if json {
            writeln!(out, "{}", serde_json::to_string(&row).expect("numbers and words"))?;
        }
    }
    if !json {
        writeln!(out, "whole: {count} snapshots")?;
    }
    scanned.judged(unfit)
}

fn extract(dir: &Path, group: GroupId, path: &Path, out: &mut dyn Write) -> Result<()> {
    let (groups, scanned) = held(dir, |it| it == group)?;
    let unfit = |why: String| scanned.judged(vec![why]);
    let Some(held) = groups.get(&group) else { return unfit(unknown_group(group)) };
    let Some(stored) = held.stored() else {
        return unfit(format!("the log holds no whole snapshot of group {group}"));
    };
    let map = match machine(group, stored) {
        Ok(map) => map,
        Err(fault) => return unfit(fault),
    };
    let failed = |error| Stop::File(path.to_owned(), error);
    let mut file = BufWriter::new(File::create_new(path).map_err(failed)?);
    let mut commands = 0;
    for command in map.commands() {
        file.write_all(&command.raw).map_err(failed)?;
        commands += 1;
    }
    file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
    let keys = map.len();
    writeln!(out, "{keys} keys of group {group} at {}: {commands} commands", stored.entry)?;
    scanned.judged(Vec::new())
}
