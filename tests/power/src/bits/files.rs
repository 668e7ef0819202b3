//! Whole files: what says whose a directory is, where a log begins, and backups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fastrand::Rng;

use outrigger::config::{Config, Settings};
use outrigger::id::SegmentSeq;
use outrigger::runtime::backup::{self, Whole};
use outrigger::runtime::identity::Home;
use outrigger::runtime::identity::text::Saved;
use outrigger::runtime::segments::Directory;
use tools::rounds::resp::Client;

use crate::machine::{Failed, stopped};
use crate::rig::{Common, Rig};
use crate::totals::Totals;

use super::{BYTES, Subject, Verdict};

/// The one group's file of the backup.
pub(super) const GROUP_FILE: &str = "group-0.snapshot";
/// Keys in the backup, and the bytes of each value: a little more than is flipped.
const KEYS: usize = 700;
const VALUE_BYTES: usize = 100;

/// Which of the two is flipped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flipped {
    /// `identity.toml`.
    File,
    /// `identity.toml.old`.
    Copy,
}

/// A directory's identity, by opening the directory.
pub(super) struct Identity {
    config: Config,
    flipped: Flipped,
    paths: [PathBuf; 2],
    text: String,
    saved: Saved,
}

impl Identity {
    pub(super) fn new(dir: &Path, flipped: Flipped) -> Result<Self, Failed> {
        let dir = dir.join("node");
        let failed = |error: &dyn std::fmt::Display| stopped(dir.display(), error);
        let text = format!(
            "id = 1\ndir = {:?}\nclient = \"127.0.0.1:1\"\npeer = \"127.0.0.1:2\"\n\
             peers = {{ 1 = \"127.0.0.1:2\", 2 = \"127.0.0.1:3\", 3 = \"127.0.0.1:4\" }}",
            dir.display().to_string()
        );
        let settings =
            Settings::from_text(Path::new("node.toml"), &text).map_err(|error| failed(&error))?;
        let config = settings.resolve().map_err(|error| failed(&error))?;
        drop(Home::open(&config).map_err(|error| failed(&error))?);
        let paths = ["identity.toml", "identity.toml.old"].map(|name| dir.join(name));
        let text = fs::read_to_string(&paths[0]).map_err(|error| failed(&error))?;
        let saved = Saved::parse(&text).map_err(|error| failed(&error))?;
        Ok(Self { config, flipped, paths, text, saved })
    }

    fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let (hit, other) = match self.flipped {
            Flipped::File => (0, 1),
            Flipped::Copy => (1, 0),
        };
        fs::write(&self.paths[hit], bytes)?;
        fs::write(&self.paths[other], &self.text)
    }
}

impl Subject for Identity {
    fn bytes(&self) -> Vec<u8> {
        self.text.clone().into_bytes()
    }

    fn read(&mut self, bytes: &[u8]) -> Verdict {
        self.put(bytes).expect("the directory takes files");
        if std::str::from_utf8(bytes).is_ok_and(|text| Saved::parse(text).is_ok()) {
            return Verdict::Wrong("it is believed".into());
        }
        let Ok(home) = Home::open(&self.config) else { return Verdict::Detected };
        let is_next = home.incarnation.0 == self.saved.incarnation + 1;
        let nodes = home.bootstrap.iter().map(|(node, at)| (node.to_string(), *at));
        let is_same = home.birth == self.saved.birth
            && home.proven == self.saved.proven
            && home.known.is_empty()
            && nodes.eq(self.saved.bootstrap.clone());
        match self.flipped {
            _ if !is_next || !is_same => Verdict::Wrong(format!("it is {home:?}")),
            // From the copy; the file was not believed.
            Flipped::File => Verdict::Detected,
            Flipped::Copy => Verdict::Harmless,
        }
    }
}

/// The note that says where a log begins.
pub(super) struct First {
    directory: Directory,
    path: PathBuf,
    note: Vec<u8>,
}

/// Where.
const BEGINS: SegmentSeq = SegmentSeq(0x1f3);

impl First {
    pub(super) fn new(dir: &Path) -> Result<Self, Failed> {
        let failed = |error| stopped(dir.display(), error);
        let directory = Directory::open(dir.join("core-0")).map_err(failed)?;
        directory.reclaim(BEGINS).map_err(failed)?;
        let path = directory.path().join("FIRST");
        let note = fs::read(&path).map_err(failed)?;
        Ok(Self { directory, path, note })
    }
}

impl Subject for First {
    fn bytes(&self) -> Vec<u8> {
        self.note.clone()
    }

    fn read(&mut self, bytes: &[u8]) -> Verdict {
        fs::write(&self.path, bytes).expect("the directory takes files");
        match self.directory.first() {
            Err(_) => Verdict::Detected,
            Ok(BEGINS) => Verdict::Harmless,
            Ok(first) => Verdict::Wrong(format!("the log is said to begin with {first}")),
        }
    }
}

/// A backup, of which one file is flipped.
pub(super) struct Backup {
    dir: PathBuf,
    path: PathBuf,
    file: Vec<u8>,
    whole: Whole,
}

impl Backup {
    pub(super) fn new(dir: &Path, taken: &Path, file: &str) -> Result<Self, Failed> {
        let failed = |error| stopped(dir.display(), error);
        for name in ["manifest.json", GROUP_FILE] {
            fs::copy(taken.join(name), dir.join(name)).map_err(failed)?;
        }
        let path = dir.join(file);
        let whole = backup::check(dir).map_err(|error| stopped(dir.display(), error))?;
        let file = fs::read(&path).map_err(failed)?;
        Ok(Self { dir: dir.to_owned(), path, file, whole })
    }
}

impl Subject for Backup {
    fn bytes(&self) -> Vec<u8> {
        self.file[..self.file.len().min(BYTES)].to_vec()
    }

    fn read(&mut self, bytes: &[u8]) -> Verdict {
        let rest = &self.file[bytes.len()..];
        fs::write(&self.path, [bytes, rest].concat()).expect("the directory takes files");
        match backup::check(&self.dir) {
            Err(_) => Verdict::Detected,
            Ok(whole) if whole == self.whole => Verdict::Harmless,
            Ok(whole) => Verdict::Wrong(format!("it holds {whole:?}, not {:?}", self.whole)),
        }
    }
}

/// Has a node of one group take one.
pub(super) fn take_backup(common: &Common, seed: u64, dir: &Path) -> Result<(), Failed> {
    let common = Common { groups: 1, ..common.clone() };
    let plan = common.plan(1, &[])?;
    let mut totals = Totals::new("bits");
    let _rig = Rig::fresh(&plan, None, common.writers, Rng::with_seed(seed), &mut totals)?;
    let value = "v".repeat(VALUE_BYTES);
    let mut client = Client::connect(plan.client(1)).map_err(|error| stopped("the node", error))?;
    for number in 0..KEYS {
        let words = ["SET", &format!("key:{number}"), &value];
        client.ask(&words).map_err(|error| stopped("SET", error))?;
    }
    let mut ctl = Command::new(&plan.binary);
    ctl.args(["ctl", "--node", &plan.client(1).to_string(), "backup"]).arg(dir);
    let done = ctl.stdout(Stdio::null()).status();
    match done.map_err(|error| stopped("ctl backup", error))? {
        status if status.success() => Ok(()),
        status => Err(stopped("ctl backup", status)),
    }
}
