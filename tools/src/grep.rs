//! `tool wal grep`: the entries of a log that hold some bytes, wherever they stand in it.
//!
//! ```text
//! 0000000000000001.seg      8192  group 4  3/118  command  SET k "v\r\n"
//! ```

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Serialize;

use outrigger::entry::EntryKind;
use outrigger::group::SessionRequest;
use outrigger::id::GroupId;
use outrigger::store::{stamp, transaction};
use outrigger::wal::{RunKind, file_name};
use outrigger::wire::resp::Command;

use crate::scan::{Result, Verdict, scan};

/// Which entries, and how they are shown.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The directory of one shard's segments.
    dir: PathBuf,
    /// What the payload must hold, byte by byte; nothing shows every entry.
    #[arg(default_value = "")]
    text: String,
    /// Only entries of this group.
    #[arg(long)]
    group: Option<u64>,
    /// Only entries from this index on.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// Only entries up to this index.
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX)]
    to: u64,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Longest text shown for people.
const SHOWN_BYTES_MAX: usize = 120;

#[derive(Serialize)]
struct Row {
    segment: u64,
    offset: u64,
    group: u64,
    term: u64,
    index: u64,
    kind: &'static str,
    /// The leader's clock, of a command that depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unix_ms: Option<u64>,
    /// Session and number.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    bytes: usize,
    /// The commands; what is no text is replaced.
    commands: Vec<Vec<String>>,
}

/// Prints every entry that is asked for; the report goes to `out`.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<()> {
    let mut printed = Ok(());
    let mut found = 0;
    let verdict = scan(&arguments.dir, &mut |run| {
        let is_wanted = arguments.group.is_none_or(|group| GroupId(group) == run.group);
        if run.kind != RunKind::Log || !is_wanted {
            return;
        }
        for (index, entry) in (run.first.0..).zip(run.entries()) {
            let text = arguments.text.as_bytes();
            let holds = text.is_empty() || entry.payload.windows(text.len()).any(|it| it == text);
            if !holds || !(arguments.from..=arguments.to).contains(&index) || printed.is_err() {
                continue;
            }
            let mut row = row_of(entry.kind, entry.payload);
            row.segment = run.location.segment.0;
            row.offset = run.location.offset;
            (row.group, row.term, row.index) = (run.group.0, run.run_term.0, index);
            found += 1;
            printed = if arguments.json {
                writeln!(out, "{}", serde_json::to_string(&row).expect("numbers and words"))
            } else {
                let name = file_name(run.location.segment);
                let Row { offset, group, term, kind, .. } = row;
                writeln!(
                    out,
                    "{name}  {offset:>8}  group {group}  {term}/{index}  {kind}{}",
                    shown(&row)
                )
            };
        }
    })?;
    printed?;
    if !arguments.json {
        let torn = match verdict {
            Verdict::Whole(recovered) if recovered.torn.is_some() => ", and a torn end",
            _ => "",
        };
        writeln!(out, "{found} entries found{torn}")?;
    }
    Ok(())
}

fn row_of(kind: EntryKind, payload: &[u8]) -> Row {
    let mut row = Row {
        segment: 0,
        offset: 0,
        group: 0,
        term: 0,
        index: 0,
        kind: match kind {
            EntryKind::Empty => "empty",
            EntryKind::Command => "command",
            EntryKind::Config => "config",
            EntryKind::Session => "session",
        },
        unix_ms: None,
        session: None,
        bytes: payload.len(),
        commands: Vec::new(),
    };
    let mut payload = Bytes::copy_from_slice(payload);
    if kind == EntryKind::Session {
        let Some((request, command)) = SessionRequest::parse(&payload) else { return row };
        row.session = Some(match request {
            SessionRequest::Open(id) => format!("{id} opens"),
            SessionRequest::Close(id) => format!("{id} closes"),
            SessionRequest::Run { id, seq } => format!("{id} request {seq}"),
        });
        payload = command;
    }
    if !matches!(kind, EntryKind::Command | EntryKind::Session) {
        return row;
    }
    let (at, command) = stamp::read(&payload);
    row.unix_ms = at.map(|at| at.0);
    let Ok(command) = Command::parse(command) else { return row };
    let commands = match transaction::read(&command) {
        Ok(whole) => whole.commands,
        Err(_) => vec![command],
    };
    let words = |command: &Command| command.args().map(text).collect();
    row.commands = commands.iter().map(words).collect();
    row
}

fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

/// What an entry says, for people: words in quotes where they need them.
fn shown(row: &Row) -> String {
    let mut parts: Vec<String> = row.session.iter().map(|it| format!("session {it}")).collect();
    parts.extend(row.unix_ms.map(|at| format!("at {at}")));
    let quoted = |word: &String| match word.chars().all(|it| it.is_ascii_graphic() && it != '"') {
        true if !word.is_empty() => word.clone(),
        _ => format!("{word:?}"),
    };
    let said = |words: &Vec<String>| words.iter().map(quoted).collect::<Vec<_>>().join(" ");
    parts.extend(row.commands.iter().map(said));
    let mut text = parts.join("; ");
    if SHOWN_BYTES_MAX < text.len() {
        let end = (0..=SHOWN_BYTES_MAX).rfind(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    if text.is_empty() { text } else { format!("  {text}") }
}
