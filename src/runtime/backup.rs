//! `outrigger ctl backup` and `restore`: the data of all groups as files, and back into a cluster of any size.
//!
//! ```text
//!  backup   for each group: a read that the leader confirms ─► BACKUP OPEN, NEXT … ─► group-N.snapshot
//!           at last: manifest.json, which makes it a backup
//!  restore  manifest.json, every piece, every digest checked ─► SET, HSET, SADD … ─► any node
//! ```
//!
//! Each group's file is its state at one entry of its log, and holds every write that was acknowledged before the
//! backup began. Groups are not of one moment. A file is a row of pieces, each with its length, 4 bytes,
//! in front. The manifest ends with a checksum of all that it says; one of an earlier version has none.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;

use crate::group::Incoming;
use crate::group::snapshot::{PIECE_HEADER_BYTES, Part, PieceHeader};
use crate::id::{EntryId, GroupId, Index, Term};
use crate::limits::{COMMAND_BYTES_MAX, SNAPSHOT_PIECE_BYTES_MAX};
use crate::store::map::Map;
use crate::store::{StateMachine as _, slot};
use crate::wire::resp::Command;

use super::asker::{Asker, Said, is_shut_out, may_change};
use super::clock;
use super::fatal::Fatal;
use super::private;

/// What `ctl backup` can be told.
#[derive(Debug, Args)]
pub struct BackupOptions {
    /// Where the files go: a directory that does not exist, or is empty.
    pub dir: PathBuf,
}

/// What `ctl restore` can be told.
#[derive(Debug, Args)]
pub struct RestoreOptions {
    /// A directory that `ctl backup` has filled.
    pub dir: PathBuf,
    /// Check the backup, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Restore into a cluster that holds keys: those that are in the backup are replaced, others stay.
    #[arg(long)]
    pub overwrite: bool,
}

/// What makes files a backup.
const MANIFEST: &str = "manifest.json";
/// The version of the files.
const FORMAT: u32 = 1;
/// Commands sent before their answers are waited for, and their bytes.
const BATCH: (usize, usize) = (256, 1 << 20);
/// How long to wait before what was refused is said again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long a command of unknown outcome may linger somewhere.
const LINGER: Duration = Duration::from_secs(5);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(2);

// A name that nobody knows is damage: it may have been that of the checksum.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    outrigger: String,
    cluster: String,
    taken_unix_ms: u64,
    groups: Vec<Taken>,
    /// Of all the rest, as JSON on one line; last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32: Option<String>,
}

/// What every version's manifest says.
#[derive(serde::Deserialize)]
struct Version {
    format: u32,
}

impl Manifest {
    fn checksum(&mut self) -> String {
        let kept = self.crc32.take();
        let text = serde_json::to_vec(self).expect("numbers and names are JSON");
        self.crc32 = kept;
        format!("{:08x}", crc32fast::hash(&text))
    }

    fn render(mut self) -> String {
        self.crc32 = Some(self.checksum());
        serde_json::to_string_pretty(&self).expect("numbers and names are JSON")
    }

    /// Inverse of [`Self::render`].
    fn parse(text: &str) -> Result<Self, String> {
        let mut manifest: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let computed = manifest.checksum();
        match &manifest.crc32 {
            Some(crc32) if *crc32 != computed => Err("checksum mismatch".into()),
            Some(_) | None => Ok(manifest),
        }
    }
}

/// One group's file.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Taken {
    group: u64,
    file: String,
    /// The last entry it holds.
    term: u64,
    index: u64,
    pieces: u32,
    bytes: u64,
}

/// What a connection is made by; again, when it has broken.
pub(super) type Dial<'a> = &'a dyn Fn() -> io::Result<Asker>;

/// Takes a backup of all groups.
///
/// # Errors
/// If it cannot be taken in `patience`; what is there then is no backup, because it has no manifest.
pub(super) fn backup(
    dial: Dial<'_>,
    options: &BackupOptions,
    patience: Duration,
) -> Result<(), Fatal> {
    let dir = &options.dir;
    let in_dir = |error: io::Error| Fatal::new(format!("cannot write {}: {error}", dir.display()));
    private::create_dir_all(dir).map_err(in_dir)?;
    if fs::read_dir(dir).map_err(in_dir)?.next().is_some() {
        let dir = dir.display();
        return Err(Fatal::new(format!(
            "{dir} is not empty; a backup needs a directory of its own"
        )));
    }
    let mut patience = Patience::new(patience);
    let info = patience.until_said(dial, "the node's INFO", |asker| {
        asker.ask(&["INFO", "outrigger"]).map(refused)
    })?;
    let info = info.to_string();
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
            .ok_or_else(|| Fatal::new(format!("the node's INFO says nothing of {name}")))
    };
    let groups: u64 = field("groups")?
        .parse()
        .map_err(|_| Fatal::new("the node's INFO says no number of groups"))?;
    let mut manifest = Manifest {
        format: FORMAT,
        outrigger: env!("CARGO_PKG_VERSION").to_owned(),
        cluster: field("cluster_id")?,
        taken_unix_ms: clock::wall().0,
        groups: Vec::new(),
        crc32: None,
    };
    let mut progress = Progress::new();
    for group in 0..groups {
        let what = format!("group {group}");
        let taken = patience.until_said(dial, &what, |asker| take(asker, dir, group, groups))?;
        manifest.groups.push(taken);
        progress.tell(|| format!("{} of {groups} groups", group + 1));
    }
    let bytes: u64 = manifest.groups.iter().map(|taken| taken.bytes).sum();
    // Last, and whole or not at all.
    let partial = dir.join("manifest.partial");
    write_durably(&partial, manifest.render().as_bytes()).map_err(in_dir)?;
    fs::rename(&partial, dir.join(MANIFEST)).map_err(in_dir)?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(in_dir)?;
    println!("{groups} groups, {bytes} bytes in {}", dir.display());
    Ok(())
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// One group, over one connection; what the node refuses is not an error of the connection.
fn take(asker: &mut Asker, dir: &Path, group: u64, groups: u64) -> io::Result<Result<Taken, Said>> {
    // Everything that was acknowledged before is applied at this node once it has answered this.
    let slot = slot::group_slots(GroupId(group), groups).start.to_string();
    for words in [&["READONLY"][..], &["CLUSTER", "COUNTKEYSINSLOT", &slot]] {
        if let refusal @ Said::Error(_) = asker.ask(words)? {
            return Ok(Err(refusal));
        }
    }
    let name = group.to_string();
    let opened = asker.ask(&["BACKUP", "OPEN", &name])?;
    let &[Said::Number(number), Said::Number(term), Said::Number(index)] = opened.items() else {
        return Ok(Err(opened));
    };
    let number = number.to_string();
    let file = format!("group-{group}.snapshot");
    let mut taken =
        Taken { group, file, term: term as u64, index: index as u64, pieces: 0, bytes: 0 };
    let entry = EntryId { term: Term(taken.term), index: Index(taken.index) };
    let mut checked = Incoming::checking(GroupId(group), entry);
    let mut out = BufWriter::new(private::create(&dir.join(&taken.file))?);
    loop {
        let piece = match asker.ask(&["BACKUP", "NEXT", &name, &number])? {
            Said::Nothing => break,
            refusal @ Said::Error(_) => return Ok(Err(refusal)),
            said => Bytes::from(said.into_bytes().ok_or(io::ErrorKind::InvalidData)?),
        };
        checked.take(&piece).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        out.write_all(&(piece.len() as u32).to_le_bytes())?;
        out.write_all(&piece)?;
        taken.pieces += 1;
        taken.bytes += piece.len() as u64 + 4;
    }
    if !checked.is_whole() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the last piece did not come"));
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(Ok(taken))
}

/// Puts a backup into a cluster.
///
/// # Errors
/// If the backup is not whole, which is found out before anything is written; if the cluster holds keys
/// already; or if it does not take them in `patience`.
pub(super) fn restore(
    dial: Dial<'_>,
    options: &RestoreOptions,
    patience: Duration,
) -> Result<(), Fatal> {
    let dir = &options.dir;
    let (manifest, Whole { keys, .. }) = read(dir)?;
    println!("{} groups, {keys} keys, all of it whole", manifest.groups.len());
    if options.dry_run {
        return Ok(());
    }
    let mut patience = Patience::new(patience);
    let held = patience
        .until_said(dial, "the number of keys", |asker| asker.ask(&["DBSIZE"]).map(refused))?;
    if held.number() > 0 && !options.overwrite {
        return Err(Fatal::new(format!(
            "the cluster holds {held} keys; say --overwrite to replace those that the backup holds, too"
        )));
    }
    let mut progress = Progress::new();
    let mut done = 0;
    for taken in &manifest.groups {
        let map = load(dir, taken)?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut last_key = Vec::new();
        for command in map.commands() {
            if command.arg(1) != last_key {
                last_key = command.arg(1).to_vec();
                done += 1;
                if options.overwrite && command.name() != b"SET" {
                    batch.push(Command::from_args(&[b"DEL", &last_key]));
                }
            }
            bytes += command.raw.len();
            batch.push(command);
            if BATCH.0 <= batch.len() || BATCH.1 <= bytes {
                patience.write(dial, &std::mem::take(&mut batch))?;
                bytes = 0;
                progress.tell(|| format!("{done} of {keys} keys"));
            }
        }
        patience.write(dial, &batch)?;
    }
    println!("{done} keys restored");
    Ok(())
}

/// What a backup that is whole holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Keys of all groups.
    pub keys: u64,
    /// Tells contents apart.
    pub digest: u64,
}

/// Reads all of a backup, as a restore does before it writes anything.
///
/// # Errors
/// If any of it is not as it was taken; the text names the file.
pub fn check(dir: &Path) -> Result<Whole, Fatal> {
    read(dir).map(|(_, whole)| whole)
}

fn read(dir: &Path) -> Result<(Manifest, Whole), Fatal> {
    let manifest = read_manifest(dir)?;
    let mut whole = Whole { keys: 0, digest: 0 };
    for taken in &manifest.groups {
        let map = load(dir, taken)?;
        whole.keys += map.len();
        whole.digest = whole.digest.rotate_left(1) ^ map.digest();
    }
    Ok((manifest, whole))
}

fn read_manifest(dir: &Path) -> Result<Manifest, Fatal> {
    let path = dir.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(|error| {
        let dir = dir.display();
        Fatal::new(format!("{dir} is no backup, or one that was not finished: {MANIFEST}: {error}"))
    })?;
    let damaged = |why: String| Fatal::new(format!("{} is damaged: {why}", path.display()));
    // What else a version says is for its own to read.
    let Version { format } =
        serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if format != FORMAT {
        let path = path.display();
        return Err(Fatal::new(format!(
            "{path} has format {format}, and this version reads {FORMAT}; use the release that took it"
        )));
    }
    Manifest::parse(&text).map_err(damaged)
}

/// Reads one group's file and checks all of it.
fn load(dir: &Path, taken: &Taken) -> Result<Map, Fatal> {
    let path = dir.join(&taken.file);
    let damaged = |what: String| Fatal::new(format!("{} is damaged: {what}", path.display()));
    let broken = |error: io::Error| damaged(error.to_string());
    if Path::new(&taken.file).file_name() != Some(taken.file.as_ref()) {
        return Err(damaged("its name leads elsewhere".into()));
    }
    let file = File::open(&path)
        .map_err(|error| Fatal::new(format!("cannot read {}: {error}", path.display())))?;
    let entry = EntryId { term: Term(taken.term), index: Index(taken.index) };
    let mut checked = Incoming::checking(GroupId(taken.group), entry);
    let mut input = BufReader::new(file);
    let mut chunks = Vec::new();
    for number in 0..taken.pieces {
        let mut length = [0; 4];
        input.read_exact(&mut length).map_err(broken)?;
        let length = u32::from_le_bytes(length) as usize;
        if SNAPSHOT_PIECE_BYTES_MAX < length {
            return Err(damaged(format!("piece {number} has {length} bytes")));
        }
        let mut piece = vec![0; length];
        input.read_exact(&mut piece).map_err(broken)?;
        let piece = Bytes::from(piece);
        checked.take(&piece).map_err(|error| damaged(error.to_string()))?;
        if PieceHeader::parse(&piece).is_ok_and(|header| header.part == Part::Machine) {
            chunks.push(piece.slice(PIECE_HEADER_BYTES..));
        }
    }
    if !checked.is_whole() || input.read(&mut [0]).map_err(broken)? > 0 {
        return Err(damaged("it has another number of pieces than the manifest says".into()));
    }
    Map::from_chunks(chunks).map_err(|error| damaged(error.to_string()))
}

/// An error of the node's is a refusal.
fn refused(said: Said) -> Result<Said, Said> {
    if matches!(said, Said::Error(_)) { Err(said) } else { Ok(said) }
}

/// Why there is no answer.
enum Failure {
    /// The node does not let us in, and will not.
    ShutOut(io::Error),
    /// The connection, or what came over it.
    Broken(io::Error),
}

/// Dials, and hears a first word: that a certificate is refused is said in place of it.
fn greet(dial: Dial<'_>) -> io::Result<Asker> {
    let mut asker = dial()?;
    asker.ask(&["PING"])?;
    Ok(asker)
}

/// How long to go on trying: progress of any kind begins it anew.
struct Patience {
    limit: Duration,
    until: Instant,
    asker: Option<Asker>,
    told: String,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, until: Instant::now() + limit, asker: None, told: String::new() }
    }

    /// Asks until there is an answer that is no refusal.
    fn until_said<T>(
        &mut self,
        dial: Dial<'_>,
        what: &str,
        mut ask: impl FnMut(&mut Asker) -> io::Result<Result<T, Said>>,
    ) -> Result<T, Fatal> {
        loop {
            match self.once(dial, &mut ask) {
                Ok(Ok(said)) => {
                    self.until = Instant::now() + self.limit;
                    return Ok(said);
                }
                Ok(Err(refusal)) => self.wait(what, &refusal.to_string())?,
                Err(Failure::ShutOut(error)) => return Err(Fatal::new(format!("{what}: {error}"))),
                Err(Failure::Broken(error)) => {
                    self.asker = None;
                    self.wait(what, &format!("UNCERTAIN {error}"))?;
                }
            }
        }
    }

    fn once<T>(
        &mut self,
        dial: Dial<'_>,
        ask: &mut impl FnMut(&mut Asker) -> io::Result<Result<T, Said>>,
    ) -> Result<Result<T, Said>, Failure> {
        if self.asker.is_none() {
            self.asker = Some(greet(dial).map_err(|error| match is_shut_out(&error) {
                true => Failure::ShutOut(error),
                false => Failure::Broken(error),
            })?);
        }
        ask(self.asker.as_mut().expect("just made")).map_err(Failure::Broken)
    }

    /// Says these until each was done. They may be done twice.
    fn write(&mut self, dial: Dial<'_>, commands: &[Command]) -> Result<(), Fatal> {
        debug_assert!(commands.iter().all(|command| command.raw.len() <= COMMAND_BYTES_MAX));
        if commands.is_empty() {
            return Ok(());
        }
        self.until_said(dial, "keys", |asker| {
            let said = asker.ask_all(commands)?;
            // Of several, the one that promises least decides.
            let rank = |said: &Said| match said {
                Said::Error(text) if text.starts_with("UNCERTAIN") => 2,
                Said::Error(_) => 1,
                _ => 0,
            };
            let worst = said.into_iter().max_by_key(rank).unwrap_or(Said::Nothing);
            Ok(refused(worst))
        })?;
        Ok(())
    }

    fn wait(&mut self, what: &str, trouble: &str) -> Result<(), Fatal> {
        // NOLEADER in the words for a cluster client, which this connection is by what it has asked.
        let has_no_leader = trouble.split(' ').next() == Some("CLUSTERDOWN");
        if !(may_change(trouble) || has_no_leader) || self.until <= Instant::now() {
            return Err(Fatal::new(format!("{what}: {trouble}")));
        }
        // What may still be executed must not come after what is said next.
        let pause = if trouble.split(' ').next() == Some("UNCERTAIN") { LINGER } else { AGAIN };
        if self.told != trouble {
            eprintln!("{what}: {trouble}");
            trouble.clone_into(&mut self.told);
        }
        std::thread::sleep(pause);
        Ok(())
    }
}

/// Says now and then how far it is.
struct Progress(Instant);

impl Progress {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn tell(&mut self, how_far: impl FnOnce() -> String) {
        if PROGRESS <= self.0.elapsed() {
            self.0 = Instant::now();
            eprintln!("{}", how_far());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Fails to be read, so.
    struct Broken(io::ErrorKind);

    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
    }

    impl io::Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_flipped_bit_of_a_manifest_is_damage_and_an_earlier_one_is_read() {
        let taken = |group| Taken {
            group,
            file: format!("group-{group}.snapshot"),
            term: 3,
            index: 1_000 + group,
            pieces: 3,
            bytes: 70_000,
        };
        let manifest = || Manifest {
            format: FORMAT,
            outrigger: "0.1.0".into(),
            cluster: "00000000000000c1".into(),
            taken_unix_ms: 1_764_000_000_000,
            groups: (0..2).map(taken).collect(),
            crc32: None,
        };
        let text = manifest().render();
        assert!(Manifest::parse(&text).is_ok());
        for bit in 0..8 * text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Reading the file refuses what is no UTF-8.
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            assert!(Manifest::parse(&flipped).is_err(), "bit {bit}");
        }
        // As version 0.1.0 wrote it.
        let earlier = serde_json::to_string_pretty(&manifest()).expect("JSON");
        assert!(!earlier.contains("crc32"));
        let read = Manifest::parse(&earlier).expect("readable");
        assert_eq!((read.groups.len(), read.groups[1].index), (2, 1_001));
    }

    #[test]
    fn who_is_shut_out_does_not_knock_again() {
        let hour = Duration::from_secs(3600);
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::InvalidData] {
            // By the password, while it is dialed; or by a certificate, which the first answer tells.
            for at_once in [true, false] {
                let dials = Cell::new(0);
                let dial = || {
                    dials.set(dials.get() + 1);
                    if at_once { Err(kind.into()) } else { Ok(Asker::over(Broken(kind))) }
                };
                let ask = |asker: &mut Asker| asker.ask(&["DBSIZE"]).map(refused);
                let said = Patience::new(hour).until_said(&dial, "keys", ask);
                let error = said.expect_err("shut out").to_string();
                assert!(error.starts_with("keys: ") && !error.contains("UNCERTAIN"), "{error}");
                assert_eq!(dials.get(), 1);
            }
        }
        let dial = || Err(io::ErrorKind::ConnectionRefused.into());
        let ask = |asker: &mut Asker| asker.ask(&["DBSIZE"]).map(refused);
        let said = Patience::new(Duration::ZERO).until_said(&dial, "keys", ask);
        let error = said.expect_err("nobody is there").to_string();
        assert!(error.starts_with("keys: UNCERTAIN "), "that would be tried again: {error}");
    }
}
