//! `tool raft state` and `tool segments`: what a shard's log says of its groups, and who holds which of its
//! segments.
//!
//! ```text
//! group  term  vote  commit  entries      snapshot  voters
//!     1     3     1     412  119..=420    3/118     1 2 3
//!
//! segment                   groups  held by
//! 0000000000000002.seg           3  group 1 (the snapshot at 3/118)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::group::GroupState;
use crate::id::{GroupId, ReplicaId, SegmentSeq};
use crate::wal::file_name;

use super::held::{Held, held};
use super::home::Home;
use super::scan::{Result, segments};

/// What to ask of a shard's log about raft.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Term, vote, commit, entries, snapshot and members of each group, as a start would find them.
    State {
        /// The directory of one shard's segments.
        dir: PathBuf,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
}

/// Where to look for who holds what.
#[derive(Debug, clap::Args)]
pub struct Segments {
    /// The directory of one shard's segments.
    dir: PathBuf,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    group: u64,
    term: u64,
    vote: u64,
    commit: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_term: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    /// As of what is known to be committed; null if nobody says with whom the group began.
    voters: Option<Vec<u64>>,
    learners: Option<Vec<u64>>,
    /// Entries that are not here though later ones are, from where to where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<(u64, u64)>,
    removed: bool,
    forgotten: bool,
}

/// Carries out `command`; the report goes to `out`.
pub(crate) fn run(command: &Command, out: &mut dyn Write) -> Result<()> {
    let Command::State { dir, json } = command;
    let (groups, scanned) = held(dir, |_| false)?;
    let beginning = Home::of_log(dir).and_then(|(home, _)| home.beginning());
    if !json {
        writeln!(
            out,
            "group   term  vote    commit  entries                 snapshot     members"
        )?;
    }
    for (group, held) in &groups {
        let row = row(*group, held, beginning.as_ref());
        if *json {
            writeln!(out, "{}", serde_json::to_string(&row).expect("numbers and words"))?;
            continue;
        }
        let Row { group, term, vote, commit, .. } = row;
        let entries = match (row.first, row.last) {
            (Some(first), Some(last)) => format!("{first}..={last}"),
            _ => "none".into(),
        };
        let snapshot = row.snapshot.as_deref().unwrap_or("none");
        let mut members = row.voters.as_deref().map_or_else(|| "?".into(), names);
        if let Some(learners) = row.learners.as_deref().filter(|it| !it.is_empty()) {
            members += &format!(" learning {}", names(learners));
        }
        for (first, last) in &row.missing {
            members += &format!("  without {first}..={last}");
        }
        let notes = [(row.removed, "  removed"), (row.forgotten, "  part of it is lost")];
        let notes: String = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note).collect();
        writeln!(
            out,
            "{group:>5} {term:>6} {vote:>5} {commit:>9}  {entries:<22}  {snapshot:<11}  {members}{notes}"
        )?;
    }
    scanned.judged(Vec::new())
}

fn names(nodes: &[u64]) -> String {
    nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

fn row(group: GroupId, held: &Held, beginning: Option<&GroupState>) -> Row {
    let stored = held.stored();
    let membership = held.state(beginning).map(|state| state.membership);
    let ids = |ids: &[ReplicaId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    Row {
        group: group.0,
        term: held.hard_state.term.0,
        vote: held.hard_state.vote.0,
        commit: held.hard_state.commit.0,
        first: held.spans.first().map(|span| span.first.0),
        last: held.spans.last().map(|span| span.last.0),
        last_term: held.spans.last().map(|span| span.term.0),
        snapshot: stored.map(|it| it.entry.to_string()),
        voters: membership.as_ref().map(|it| ids(&it.incoming)),
        learners: membership.as_ref().map(|it| ids(&it.learners)),
        missing: held.missing().into_iter().map(|(first, last)| (first.0, last.0)).collect(),
        removed: held.is_removed,
        forgotten: held.is_forgotten,
    }
}

#[derive(Serialize)]
struct SegmentRow {
    segment: u64,
    /// Groups of which something lies in it.
    groups: usize,
    /// Those that need it, and nothing older, and why.
    held_by: BTreeMap<u64, String>,
}

/// Who holds which segment; the report goes to `out`.
pub(crate) fn run_segments(arguments: &Segments, out: &mut dyn Write) -> Result<()> {
    let Segments { dir, json } = arguments;
    let (groups, scanned) = held(dir, |_| false)?;
    if !json {
        writeln!(out, "segment               groups  held by")?;
    }
    for (segment, _) in segments(dir)? {
        let row = segment_row(segment, &groups);
        if *json {
            writeln!(out, "{}", serde_json::to_string(&row).expect("numbers and words"))?;
            continue;
        }
        let holders: Vec<String> =
            row.held_by.iter().map(|(group, why)| format!("group {group} ({why})")).collect();
        let holders = if holders.is_empty() { "nobody".into() } else { holders.join(", ") };
        writeln!(out, "{}  {:>6}  {holders}", file_name(segment), row.groups)?;
    }
    scanned.judged(Vec::new())
}

fn segment_row(segment: SegmentSeq, groups: &BTreeMap<GroupId, Held>) -> SegmentRow {
    let lies_here = |held: &Held| {
        let spans = held.spans.iter().any(|span| span.segment == segment);
        let pieces =
            held.snapshots.iter().any(|it| it.segments.0 <= segment && segment <= it.segments.1);
        spans || pieces || held.stated == segment
    };
    let here: BTreeSet<GroupId> =
        groups.iter().filter(|(_, held)| lies_here(held)).map(|(group, _)| *group).collect();
    let held_by = groups.iter().filter_map(|(group, held)| {
        let (oldest, why) = held.oldest_need();
        (oldest == segment).then_some((group.0, why))
    });
    SegmentRow { segment: segment.0, groups: here.len(), held_by: held_by.collect() }
}
