//! Who a directory belongs to, and that only one process uses it.
//!
//! ```text
//! DIR/
//! ├── LOCK            held by the running process; its pid inside
//! ├── identity.toml   written at the first start; the incarnation counts every start since
//! ├── identity.toml.old   says the same: what is read if the other has decayed
//! └── core-N/         one log per core
//! ```
//!
//! The file also remembers what must survive so that nobody comes back without a memory
//! ([`crate::wire::hello`]): the directory's birth, whether it is proven, and the births of the
//! nodes that were greeted. A [`Keeper`] writes those while the node runs, on a thread of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::config::Config;
use crate::id::{ClusterId, Incarnation, NodeId, SegmentSeq};

use super::fatal::Fatal;
use super::private;
use super::segments::Directory;

pub mod text;

pub use text::Known;
use text::Saved;

/// The layout of the directory, raised when an older program could not read it.
const FORMAT: u32 = 2;

/// The file that says what `identity.toml` says.
const COPY: &str = "identity.toml.old";

/// How often and how long a taken lock is tried again: a killed process's lock can be held a moment
/// longer by its I/O still in the kernel (TigerBeetle #2578).
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A directory that is ours for the life of its lock.
#[derive(Debug)]
pub struct Home {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Which start of it this is.
    pub incarnation: Incarnation,
    /// The number of this directory.
    pub birth: u64,
    /// Whether the directory takes part.
    pub proven: bool,
    /// The members the groups began with, and where they listened; none if the node joined later.
    pub bootstrap: Vec<(NodeId, SocketAddr)>,
    /// The nodes that were greeted.
    pub known: BTreeMap<NodeId, Known>,
    /// Writes down what is learned from now on.
    pub keeper: Keeper,
    /// Keeps every other process out, for as long as anybody holds it.
    pub lock: Arc<File>,
}

/// Something to be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// A node was greeted.
    Known(NodeId, Known),
    /// This directory takes part from now on.
    Proven,
}

/// Remembers facts: writes them into the identity file.
#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    saved: Saved,
}

impl Keeper {
    /// Make a fact durable.
    ///
    /// # Errors
    /// When the disk refuses; nothing may be built on the fact then.
    pub fn keep(&mut self, fact: Fact) -> Result<(), Fatal> {
        match fact {
            Fact::Known(node, known) => {
                self.saved.known.insert(node.to_string(), known);
            }
            Fact::Proven => self.saved.proven = true,
        }
        save(&self.dir, &self.dir.join("identity.toml"), &self.saved)
    }

    /// Keep facts on a thread of its own. Each is told to `done` once it is durable; an error ends
    /// the thread. The thread ends when the sender is dropped.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        mut self,
        done: impl Fn(Result<Fact, Fatal>) + Send + 'static,
    ) -> io::Result<mpsc::Sender<Fact>> {
        let (sender, facts) = mpsc::channel();
        std::thread::Builder::new().name("keeper".into()).spawn(move || {
            for fact in facts {
                let kept = self.keep(fact);
                let failed = kept.is_err();
                done(kept.map(|()| fact));
                if failed {
                    return;
                }
            }
        })?;
        Ok(sender)
    }
}

impl Home {
    /// Makes or opens the directory, takes its lock, checks that it belongs to this node, and counts
    /// this start.
    ///
    /// # Errors
    /// If another process uses it, if it belongs to another node or cluster or was laid out for
    /// other cores or groups, if its identity file is damaged, or if the disk refuses.
    pub fn open(config: &Config) -> Result<Self, Fatal> {
        let dir = &config.dir;
        private::create_dir_all(dir).map_err(|error| failed("create", dir, &error))?;
        let lock = lock(dir)?;
        let path = dir.join("identity.toml");
        let cluster = config.cluster_id();
        let mut saved = match load(dir, &path)? {
            Some(saved) => {
                check(&path, &saved, config, cluster)?;
                saved
            }
            None => {
                refuse_orphans(config)?;
                Saved {
                    format: FORMAT,
                    cluster: cluster.to_string(),
                    node: config.id,
                    cores: config.cores,
                    groups: config.groups,
                    incarnation: 0,
                    begun: false,
                    // TOML has no larger numbers.
                    birth: fastrand::u64(1..=i64::MAX as u64),
                    // Nobody could have counted on an earlier life of a node that is alone.
                    proven: !config.join && config.peers.len() == 1,
                    bootstrap: if config.join {
                        BTreeMap::new()
                    } else {
                        config.peers.iter().map(|(id, at)| (id.to_string(), *at)).collect()
                    },
                    known: BTreeMap::new(),
                }
            }
        };
        saved.incarnation += 1;
        // Before there is anything that could be orphaned, the directory says whose it is.
        save(dir, &path, &saved)?;
        for core in 0..config.cores {
            log_begins(&dir.join(format!("core-{core}")), saved.begun)?;
        }
        if !saved.begun {
            saved.begun = true;
            save(dir, &path, &saved)?;
        }
        let damaged = |what: &str| Fatal::new(format!("{}: {what}", path.display()));
        let node = |id: &String| {
            id.parse().map(NodeId).map_err(|_| damaged(&format!("`{id}` is not a node id")))
        };
        let bootstrap = saved.bootstrap.iter().map(|(id, at)| Ok((node(id)?, *at)));
        let known = saved.known.iter().map(|(id, known)| Ok((node(id)?, *known)));
        Ok(Self {
            cluster,
            incarnation: Incarnation(saved.incarnation),
            birth: saved.birth,
            proven: saved.proven,
            bootstrap: bootstrap.collect::<Result<_, Fatal>>()?,
            known: known.collect::<Result<_, Fatal>>()?,
            keeper: Keeper { dir: dir.clone(), saved },
            lock: Arc::new(lock),
        })
    }

    /// The same, of a directory that is a node's already: nothing is made where there is none.
    ///
    /// # Errors
    /// As [`Self::open`], and if there is no identity file.
    pub fn open_existing(config: &Config) -> Result<Self, Fatal> {
        let path = config.dir.join("identity.toml");
        match fs::metadata(&path) {
            Ok(_) => Self::open(config),
            Err(error) => Err(Fatal::new(format!(
                "{} is not the directory of a node: cannot read {}: {error}; is --dir right?",
                config.dir.display(),
                path.display(),
            ))),
        }
    }

    /// Tells nodes apart that began with other members: a hash of their ids, zero if the node joined
    /// later.
    #[must_use]
    pub fn origin(&self) -> u64 {
        if self.bootstrap.is_empty() {
            return 0;
        }
        let mut nodes: Vec<u64> = self.bootstrap.iter().map(|(node, _)| node.0).collect();
        nodes.sort_unstable();
        // FNV-1a, as for the cluster's id; never zero.
        let bytes = nodes.iter().flat_map(|node| node.to_le_bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }) | 1
    }
}

/// What the directory says of itself; none if it has never said anything. If the file cannot be
/// believed, its copy is, where that is one; the next [`save`] makes both whole.
fn load(dir: &Path, path: &Path) -> Result<Option<Saved>, Fatal> {
    let why = match fs::read(path) {
        Ok(bytes) => match parse(&bytes) {
            Ok((_, saved)) => return Ok(Some(saved)),
            Err(why) => why,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => error.to_string(),
    };
    let copy = fs::read(dir.join(COPY)).ok();
    match copy.as_deref().map(parse) {
        Some(Ok((text, saved))) if text::is_kept_twice(text) => {
            tracing::warn!(
                "{} is damaged ({why}); {COPY} says the same and is whole",
                path.display()
            );
            Ok(Some(saved))
        }
        _ => Err(damaged(path, &why)),
    }
}

fn parse(bytes: &[u8]) -> Result<(&str, Saved), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    Ok((text, Saved::parse(text)?))
}

fn damaged(path: &Path, why: &str) -> Fatal {
    Fatal::new(format!(
        "{} is damaged ({why}); it says who this directory belongs to, so nothing was started. Restore it from a copy, or wipe the directory and add the node anew",
        path.display()
    ))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Fatal {
    Fatal::new(format!("cannot {what} {}: {error}", path.display()))
}

fn lock(dir: &Path) -> Result<File, Fatal> {
    let path = dir.join("LOCK");
    let mut file = private::file()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|error| failed("open", &path, &error))?;
    if !lock_in_time(&file, LOCK_TRIES).map_err(|error| failed("lock", &path, &error))? {
        let mut holder = String::new();
        let _ = file.read_to_string(&mut holder);
        let holder = holder.trim();
        let holder = if holder.is_empty() { "unknown" } else { holder };
        return Err(Fatal::new(format!(
            "directory {} is in use by process {holder}; stop it, or give this node another --dir",
            dir.display()
        )));
    }
    // Over what was there, to the same length: a full disk has no room for more.
    write!(file, "{:<20}", std::process::id()).map_err(|error| failed("write", &path, &error))?;
    Ok(file)
}

/// Locks an open file, trying again up to `tries` times, [`LOCK_PAUSE`] apart. Returns whether it did.
pub(super) fn lock_in_time(file: &File, tries: u32) -> std::io::Result<bool> {
    for tried in 0.. {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(fs::TryLockError::WouldBlock) if tried < tries => std::thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::WouldBlock) => break,
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(false)
}

/// The log in `path` has a segment: a new one gets its first here, and one that was begun must have
/// kept one. A replica that forgot its votes and acknowledgements must not go on under its old id
/// (safety point 21).
fn log_begins(path: &Path, begun: bool) -> Result<(), Fatal> {
    let directory =
        Directory::open(path.to_owned()).map_err(|error| failed("create", path, &error))?;
    let segments = directory.segments().map_err(|error| failed("read", path, &error))?;
    match (segments.is_empty(), begun) {
        (false, _) => Ok(()),
        (true, false) => {
            let first = SegmentSeq(1);
            let made = directory.make(first).map(drop);
            made.map_err(|error| failed("make", &directory.segment(first), &error))
        }
        (true, true) => Err(Fatal::new(format!(
            "the log in {} is gone: identity.toml says that it was begun, and there is no segment. What this node voted and acknowledged was in it. Restore the directory, or add the node anew with an empty --dir and a new --id",
            path.display()
        ))),
    }
}

/// Segments without an identity: the file that says whose they are is gone.
fn refuse_orphans(config: &Config) -> Result<(), Fatal> {
    let Ok(mut files) = fs::read_dir(config.dir.join("core-0")) else { return Ok(()) };
    if files.next().is_none() {
        return Ok(());
    }
    Err(Fatal::new(format!(
        "{} holds log segments but no identity.toml, so nobody knows whose they are; restore the file, or move the directory away and let the node start empty",
        config.dir.display()
    )))
}

fn check(path: &Path, saved: &Saved, config: &Config, cluster: ClusterId) -> Result<(), Fatal> {
    let refuse =
        |what: &str, has: &dyn std::fmt::Display, asked: &dyn std::fmt::Display, remedy: &str| {
            Err(Fatal::new(format!(
                "{} was made for {what} {has}, not {asked}; {remedy}",
                path.parent().unwrap_or(path).display()
            )))
        };
    if saved.format != FORMAT {
        return refuse(
            "format",
            &saved.format,
            &FORMAT,
            "use the version of outrigger that wrote it",
        );
    }
    if saved.node != config.id {
        return refuse(
            "node",
            &saved.node,
            &config.id,
            "give the node its own --dir, or its own --id",
        );
    }
    if saved.cores != config.cores {
        return refuse(
            "--cores",
            &saved.cores,
            &config.cores,
            "each core has a log of its own: start it with the cores it has",
        );
    }
    if saved.groups != config.groups {
        return refuse(
            "--groups",
            &saved.groups,
            &config.groups,
            "the groups are fixed at the first start",
        );
    }
    let name = cluster.to_string();
    if saved.cluster != name {
        return refuse(
            "cluster",
            &saved.cluster,
            &name,
            "the cluster's name and groups are fixed at the first start; check --cluster",
        );
    }
    Ok(())
}

/// Replaces the file in one step: a crash leaves the old one or the new one.
///
/// The new text is written over the copy, `identity.toml.old`, then the two change names, and at last
/// what is the copy now is overwritten, too. So a start needs no new block, and a node with a full disk
/// can start and serve reads. A copy that a crash left behind its file lacks only what nobody has built on yet.
fn save(dir: &Path, path: &Path, saved: &Saved) -> Result<(), Fatal> {
    let other: PathBuf = dir.join(COPY);
    let text = saved
        .render()
        .map_err(|error| Fatal::new(format!("cannot encode the identity: {error}")))?;
    let put = |to: &Path| -> std::io::Result<()> {
        let mut file = private::file().create(true).truncate(false).write(true).open(to)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        file.sync_all()
    };
    let write = || -> std::io::Result<()> {
        put(&other)?;
        if path.exists() {
            let (cwd, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
            rustix::fs::renameat_with(cwd, &other, cwd, path, exchange)?;
        } else {
            fs::rename(&other, path)?;
        }
        File::open(dir)?.sync_all()?;
        put(&other)?;
        File::open(dir)?.sync_all()?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|error| failed("write", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::runtime::scratch::Scratch;

    fn config(dir: &Path) -> Config {
        let text = format!(
            "id = 1\ndir = {:?}\nclient = \"127.0.0.1:1\"\npeer = \"127.0.0.1:2\"\npeers = {{ 1 = \"127.0.0.1:2\" }}",
            dir.display().to_string()
        );
        toml::from_str::<Settings>(&text).expect("readable").resolve().expect("valid")
    }

    #[test]
    fn every_start_counts_and_the_directory_stays_ours() {
        let scratch = Scratch::new("identity");
        let config = config(&scratch.path().join("node"));
        for expected in 1..=3 {
            let home = Home::open(&config).expect("opens");
            assert_eq!(home.incarnation, Incarnation(expected));
            assert_eq!(home.cluster, config.cluster_id());
        }
    }

    #[test]
    fn facts_are_kept_and_the_first_members_never_change() {
        let scratch = Scratch::new("identity-facts");
        let mut config = config(&scratch.path().join("node"));
        config.peers.insert(2, "127.0.0.1:3".parse().expect("an address"));
        let mut home = Home::open(&config).expect("opens");
        assert!(!home.proven, "there are others to ask");
        let (birth, origin) = (home.birth, home.origin());
        let known = Known { birth: 7, proven: true };
        home.keeper.keep(Fact::Known(NodeId(2), known)).expect("kept");
        home.keeper.keep(Fact::Proven).expect("kept");
        drop(home);
        config.peers.insert(3, "127.0.0.1:4".parse().expect("an address"));
        let home = Home::open(&config).expect("opens");
        assert!(home.proven && home.birth == birth && home.origin() == origin);
        assert_eq!(home.known, BTreeMap::from([(NodeId(2), known)]));
        assert_eq!(home.bootstrap.len(), 2, "a longer --peers makes no member");
    }

    #[test]
    fn who_is_alone_needs_nobodys_word_and_who_joins_began_with_nobody() {
        let scratch = Scratch::new("identity-alone");
        let alone = config(&scratch.path().join("alone"));
        let home = Home::open(&alone).expect("opens");
        assert!(home.proven && home.origin() != 0);
        let joins = Config { join: true, ..config(&scratch.path().join("joins")) };
        let home = Home::open(&joins).expect("opens");
        assert!(!home.proven && home.bootstrap.is_empty());
        assert_eq!(home.origin(), 0);
    }

    #[test]
    fn a_log_that_is_gone_is_not_taken_for_a_new_one() {
        let scratch = Scratch::new("identity-gone");
        let config = config(&scratch.path().join("node"));
        drop(Home::open(&config).expect("opens"));
        let core = config.dir.join("core-0");
        fs::remove_file(core.join("0000000000000001.seg")).expect("the first segment is there");
        let refusal = Home::open(&config).expect_err("refused").to_string();
        assert!(refusal.contains("core-0 is gone"), "{refusal}");
        fs::remove_dir(&core).expect("empty");
        assert!(Home::open(&config).is_err(), "the whole directory is gone");
    }

    #[test]
    fn another_nodes_directory_is_refused_by_name() {
        let scratch = Scratch::new("identity-other");
        let config = config(&scratch.path().join("node"));
        drop(Home::open(&config).expect("opens"));
        type Change = fn(&mut Config);
        let changes: [(&str, Change); 4] = [
            ("was made for --cores 1, not 2", |config| config.cores = 2),
            ("was made for --groups 16, not 4", |config| config.groups = 4),
            ("was made for cluster", |config| config.cluster = "other".into()),
            ("was made for node 1, not 2", |config| config.id = 2),
        ];
        for (expected, change) in changes {
            let mut other = config.clone();
            change(&mut other);
            let refusal = Home::open(&other).expect_err("refused").to_string();
            assert!(refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn contract_row_57_a_damaged_identity_is_named_not_guessed() {
        let scratch = Scratch::new("identity-damage");
        let config = config(&scratch.path().join("node"));
        drop(Home::open(&config).expect("opens"));
        let path = config.dir.join("identity.toml");
        let text = fs::read_to_string(&path).expect("readable");
        fs::remove_file(config.dir.join(COPY)).expect("there is a copy");
        for (damaged, why) in [
            (text.replace("node = 1", "node = 2"), "checksum mismatch"),
            ("node = 1\n".to_owned(), "no checksum line"),
            (String::new(), "no checksum line"),
        ] {
            fs::write(&path, damaged).expect("written");
            let refusal = Home::open(&config).expect_err("refused").to_string();
            assert!(
                refusal.contains("identity.toml is damaged") && refusal.contains(why),
                "{refusal}"
            );
        }
        fs::remove_file(&path).expect("removed");
        fs::write(config.dir.join("core-0/0000000000000001.seg"), b"x").expect("written");
        let refusal = Home::open(&config).expect_err("refused").to_string();
        assert!(refusal.contains("no identity.toml"), "{refusal}");
    }

    #[test]
    fn every_flipped_bit_of_an_identity_is_mended_from_its_copy() {
        let scratch = Scratch::new("identity-bits");
        let config = config(&scratch.path().join("node"));
        drop(Home::open(&config).expect("opens"));
        let (path, copy) = (config.dir.join("identity.toml"), config.dir.join(COPY));
        let text = fs::read(&path).expect("readable");
        assert_eq!(text, fs::read(&copy).expect("readable"), "both say the same");
        for bit in 0..8 * text.len() {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).expect("written");
            let saved = load(&config.dir, &path).expect("the copy is whole").expect("there");
            assert_eq!(saved.render().map(String::into_bytes), Ok(text.clone()), "bit {bit}");
        }
        let home = Home::open(&config).expect("opens");
        assert_eq!(home.incarnation, Incarnation(2));
        drop(home);
        assert_eq!(fs::read(&path).expect("readable"), fs::read(&copy).expect("readable"));
        // A copy that nobody reads may be anything; one that decayed with its file helps nobody.
        fs::write(&copy, b"x").expect("written");
        drop(Home::open(&config).expect("opens"));
        for file in [&path, &copy] {
            fs::write(file, &text[1..]).expect("written");
        }
        let refusal = Home::open(&config).expect_err("refused").to_string();
        assert!(refusal.contains("identity.toml is damaged"), "{refusal}");
    }

    #[test]
    fn an_earlier_release_s_text_before_last_is_no_copy() {
        let scratch = Scratch::new("identity-earlier");
        let config = config(&scratch.path().join("node"));
        drop(Home::open(&config).expect("opens"));
        let (path, copy) = (config.dir.join("identity.toml"), config.dir.join(COPY));
        let earlier = text::of_earlier_release(&fs::read_to_string(&path).expect("readable"));
        for file in [&path, &copy] {
            fs::write(file, &earlier).expect("written");
        }
        drop(Home::open(&config).expect("an earlier release's directory opens"));
        fs::write(&copy, &earlier).expect("written");
        fs::write(&path, b"decayed").expect("written");
        let refusal = Home::open(&config).expect_err("refused").to_string();
        assert!(refusal.contains("identity.toml is damaged"), "{refusal}");
    }

    #[test]
    fn a_directory_in_use_is_refused_with_the_holder() {
        let scratch = Scratch::new("identity-lock");
        let config = config(&scratch.path().join("node"));
        let held = Home::open(&config).expect("opens");
        let refusal = Home::open(&config).expect_err("refused").to_string();
        assert!(
            refusal.contains(&format!("is in use by process {}", std::process::id())),
            "{refusal}"
        );
        drop(held);
    }
}
