//! `tool wal grep`: the entries of a log that hold some bytes, wherever they stand in it.
//!
//! ```text
//! 0000000000000001.seg      8192  group 4  3/118  command  SET k "v\r\n"
//! ```

use std::io::Write;
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use serde::Serialize;

use crate::entry::EntryKind;
use crate::group::SessionRequest;
use crate::id::GroupId;
use crate::store::{stamp, transaction};
use crate::wal::{Found, RunKind, file_name};
use crate::wire::resp::Command;

use super::held::unknown_group;
use super::scan::{Result, scan};

/// Which entries, and how they are shown.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory of one shard's segments.
    dir: PathBuf,
    /// What the payload must hold, byte by byte; nothing shows every entry.
    #[arg(default_value = "")]
    text: String,
    /// Bytes that the payload must hold, as hexadecimal digits, in place of the text.
    #[arg(long, conflicts_with = "text", value_parser = bytes_of_hex, value_name = "DIGITS")]
    hex: Option<Needle>,
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

/// Bytes to look for.
#[derive(Debug, Clone)]
struct Needle(Vec<u8>);

fn bytes_of_hex(digits: &str) -> std::result::Result<Needle, String> {
    let values: Option<Vec<u8>> = digits
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()))
        .collect();
    match values {
        Some(values) if !values.is_empty() && values.len() % 2 == 0 => {
            Ok(Needle(values.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
        }
        _ => Err("two hexadecimal digits for each byte".into()),
    }
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
    /// The commands, word by word.
    commands: Vec<Vec<Word>>,
}

/// A word of a command: a string if it is text, and else an object that holds its bytes.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Bytes {
        #[serde(rename = "base64", serialize_with = "as_base64")]
        bytes: Vec<u8>,
    },
}

impl Word {
    fn of(word: &[u8]) -> Self {
        match std::str::from_utf8(word) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { bytes: word.to_vec() },
        }
    }

    /// For people: in quotes where it needs them.
    fn shown(&self) -> String {
        match self {
            Self::Text(text)
                if !text.is_empty()
                    && text.chars().all(|it| it.is_ascii_graphic() && it != '"') =>
            {
                text.clone()
            }
            Self::Text(text) => format!("{text:?}"),
            Self::Bytes { bytes } => format!("\"{}\"", bytes.escape_ascii()),
        }
    }
}

fn as_base64<S: serde::Serializer>(
    bytes: &[u8],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

/// Prints every entry that is asked for; the report goes to `out`.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<()> {
    let mut printed = Ok(());
    let mut found = 0;
    let mut is_known = arguments.group.is_none();
    let text = arguments.hex.as_ref().map_or(arguments.text.as_bytes(), |hex| &hex.0);
    let scanned = scan(&arguments.dir, &mut |found_there| {
        let Found::Run(run) = found_there else { return };
        let is_wanted = arguments.group.is_none_or(|group| GroupId(group) == run.group);
        is_known |= is_wanted;
        if run.kind != RunKind::Log || !is_wanted {
            return;
        }
        for (index, entry) in (run.first.0..).zip(run.entries()) {
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
        let torn = match &scanned.recovered {
            Some(recovered) if recovered.torn.is_some() => ", and a torn end",
            _ => "",
        };
        writeln!(out, "{found} entries found{torn}")?;
    }
    let unknown = arguments.group.filter(|_| !is_known).map(|group| unknown_group(GroupId(group)));
    scanned.judged(unknown.into_iter().collect())
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
    let words = |command: &Command| command.args().map(Word::of).collect();
    row.commands = commands.iter().map(words).collect();
    row
}

/// What an entry says, for people: words in quotes where they need them.
fn shown(row: &Row) -> String {
    let mut parts: Vec<String> = row.session.iter().map(|it| format!("session {it}")).collect();
    parts.extend(row.unix_ms.map(|at| format!("at {at}")));
    let said = |words: &Vec<Word>| words.iter().map(Word::shown).collect::<Vec<_>>().join(" ");
    parts.extend(row.commands.iter().map(said));
    let mut text = parts.join("; ");
    if SHOWN_BYTES_MAX < text.len() {
        let end = (0..=SHOWN_BYTES_MAX).rfind(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    if text.is_empty() { text } else { format!("  {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_keep_every_bit() {
        let json = |word: &[u8]| serde_json::to_string(&Word::of(word)).expect("words");
        assert_eq!(json(b"\xff\xfe"), r#"{"base64":"//4="}"#);
        assert_eq!(json("é".as_bytes()), "\"é\"");
        assert_eq!(Word::of(b"\xff a").shown(), r#""\xff a""#);
        assert_eq!(bytes_of_hex("00fF").expect("two").0, [0, 255]);
        assert!(
            bytes_of_hex("0").is_err() && bytes_of_hex("zz").is_err() && bytes_of_hex("").is_err()
        );
    }
}
