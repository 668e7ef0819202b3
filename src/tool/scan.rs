//! Reads a shard's log as a start would: every segment in order, every byte checked, and on behind what is damaged.
//! Nothing is written, so that a log can be looked at while a node writes it; what it is writing just then looks
//! torn.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::{fs, result};

use crate::id::SegmentSeq;
use crate::limits::BLOCK_BYTES;
use crate::wal::{
    Damage, Found, Identity, Loss, Recovered, Recovery, SegmentHeader, parse_file_name, parse_first,
};

use super::home::Home;

/// Why it ended early, or well but with something to complain of.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The log is damaged; what could be shown was shown. Each line says what is wrong.
    Damaged(Vec<String>),
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
            Self::Damaged(lines) => f.write_str(&lines.join("\n")),
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
pub(crate) struct Scanned {
    /// What it says of itself; nothing if it was never written, or what it ends with is missing.
    pub(crate) recovered: Option<Recovered>,
    /// Every damaged place, each once, in the order in which they were found.
    pub(crate) damages: Vec<Damage>,
    /// What is wrong with the note that says where the log begins.
    pub(crate) no_note: Option<String>,
    /// A start ends by the damage, whoever else has what is gone.
    pub(crate) is_refused: bool,
    /// Files of a log in which nothing was ever written.
    pub(crate) unused: usize,
}

impl Scanned {
    /// Nothing is damaged.
    pub(crate) fn is_whole(&self) -> bool {
        self.damages.is_empty() && self.no_note.is_none()
    }

    /// The end of a tool that has shown what it could: fails if anything is damaged, or if there is something
    /// that `unfit` says of it.
    pub(crate) fn judged(&self, unfit: Vec<String>) -> Result<()> {
        if self.is_whole() {
            return if unfit.is_empty() { Ok(()) } else { Err(Stop::Unfit(unfit.join("\n"))) };
        }
        let mut lines: Vec<String> =
            self.damages.iter().map(|damage| format!("damaged: {damage}")).collect();
        lines.extend(self.no_note.iter().map(|why| format!("damaged: {why}")));
        let places = lines.len();
        let believed = if self.is_refused {
            "a start of the node refuses this log; what is shown is what could be read"
        } else {
            "what is shown is what a start of the node would still believe"
        };
        lines.push(format!("warning: damaged places: {places}; {believed}"));
        lines.extend(unfit);
        Err(Stop::Damaged(lines))
    }
}

/// Reads all of it; `on_find` sees every run, in the order in which they were written, and between them what is lost.
pub(crate) fn scan(dir: &Path, on_find: &mut dyn FnMut(Found<'_>)) -> Result<Scanned> {
    let all = segments(dir)?;
    let (first, no_note) = first(dir)?;
    if all.is_empty() && first == SegmentSeq(0) && no_note.is_none() {
        return Err(Stop::Unfit(nothing_here(dir)));
    }
    let mut scanned =
        Scanned { recovered: None, damages: Vec::new(), no_note, is_refused: false, unused: 0 };
    let Some((identity, segment_bytes)) = whose(dir, &all)? else {
        scanned.unused = all.len();
        return Ok(scanned);
    };
    let mut recovery = Recovery::with_segment_bytes(identity, segment_bytes).reclaimed_to(first);
    for at in 0..all.len() {
        let bytes = read(&all[at].1)?;
        let fed = feed(&mut recovery, &all[at..], &bytes, &mut |found| {
            if let Found::Lost(Loss { damage, .. }) = &found {
                note(&mut scanned.damages, *damage);
            }
            on_find(found);
        })?;
        if let Err(damage) = fed {
            note(&mut scanned.damages, damage);
            scanned.is_refused = true;
        }
    }
    match recovery.finish() {
        Ok(recovered) => scanned.recovered = Some(recovered),
        Err(damage) => {
            note(&mut scanned.damages, damage);
            scanned.is_refused = true;
        }
    }
    Ok(scanned)
}

/// A place is told once, however many groups it took something from.
fn note(damages: &mut Vec<Damage>, damage: Damage) {
    if !damages.contains(&damage) {
        damages.push(damage);
    }
}

/// Whose log it is, and how long its segments are; nothing if nothing was ever written.
fn whose(dir: &Path, all: &[(SegmentSeq, PathBuf)]) -> Result<Option<(Identity, usize)>> {
    let mut header = None;
    for (_, path) in all {
        header = first_block(path)?.and_then(|block| SegmentHeader::decode(&block).ok());
        if header.is_some() {
            break;
        }
    }
    // Its owner says better whose it is than a file that may have come from elsewhere.
    let owner = Home::of_log(dir).and_then(|(home, shard)| home.identity(shard));
    if let Some(header) = header {
        return Ok(Some((owner.unwrap_or(header.identity), header.segment_bytes as usize)));
    }
    let mut longest = 0;
    for (segment, path) in all {
        let bytes = read(path)?;
        longest = longest.max(bytes.len());
        if owner.is_none() && bytes.iter().any(|byte| *byte != 0) {
            let name = crate::wal::file_name(*segment);
            return Err(Stop::Unfit(format!(
                "damaged: no segment has a whole header, and {name} is not empty: whose log this is \
                 cannot be told without the node's identity.toml beside it"
            )));
        }
    }
    Ok(owner.map(|identity| (identity, longest)))
}

/// What to say of a directory without segments.
fn nothing_here(dir: &Path) -> String {
    let mut said = format!("no segments here: {}", dir.display());
    let mut cores: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|it| it.file_name().to_str().is_some_and(|name| name.starts_with("core-")))
        .map(|it| it.path())
        .collect();
    cores.sort();
    if cores.is_empty() && dir.join("identity.toml").exists() {
        cores.push(dir.join("core-0"));
    }
    if let Some(core) = cores.first() {
        said += &format!("; did you mean {}", core.display());
    }
    said
}

/// Feeds the first of `files`, which holds `bytes`; the others say where it ends.
fn feed(
    recovery: &mut Recovery,
    files: &[(SegmentSeq, PathBuf)],
    bytes: &[u8],
    on_find: &mut dyn FnMut(Found<'_>),
) -> Result<result::Result<(), Damage>> {
    let [(segment, _), later @ ..] = files else { return Ok(Ok(())) };
    for (later, path) in later {
        let block = first_block(path)?;
        if block.is_some_and(|block| recovery.look_ahead(*later, &block).is_some()) {
            break;
        }
    }
    Ok(recovery.salvage(*segment, bytes, on_find))
}

/// The first block of a file; nothing if it is shorter.
fn first_block(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut block = vec![0; BLOCK_BYTES];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut block));
    match read {
        Ok(()) => Ok(Some(block)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(Stop::File(path.to_owned(), error)),
    }
}

/// Where the log begins, if its front was given up, and what is wrong with the note of it.
fn first(dir: &Path) -> Result<(SegmentSeq, Option<String>)> {
    let path = dir.join("FIRST");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((SegmentSeq(0), None)),
        Err(error) => return Err(Stop::File(path, error)),
    };
    let noted = std::str::from_utf8(&bytes).ok().and_then(parse_first);
    Ok(noted.map_or_else(
        || {
            let text = bytes.escape_ascii();
            (SegmentSeq(0), Some(format!("{} is damaged: \"{text}\"", path.display())))
        },
        |first| (first, None),
    ))
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
