//! Every bit of everything durable, flipped in turn, and read each time by the code that reads it in earnest:
//! no flip may go unnoticed, none may make a reader believe what was never written, and none may make it panic.
//!
//! ```text
//!   class      what is flipped                          who reads it
//!   wal        64 KiB of a log: entries, hard states    a start
//!   votes      64 KiB of a log: hard states alone       a start
//!   snapshot   64 KiB of a log: pieces of a snapshot    a start
//!   segment    64 KiB of a sealed segment               whoever reads back for a follower
//!   pieces     64 KiB of a snapshot on its way          the follower that takes it in
//!   identity   identity.toml                            a start
//!   copy       identity.toml.old                        a start
//!   first      FIRST                                    a start
//!   manifest   a backup's manifest.json                 ctl restore
//!   backup     64 KiB of a backup's file                ctl restore
//! ```

mod files;
mod logs;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use tools::rounds::cluster::now;

use crate::machine::{Failed, stopped};
use crate::rig::Common;

/// So many bytes of a file that is longer are flipped.
const BYTES: usize = 64 << 10;
/// Stories of findings printed in full, per class.
const STORIES: usize = 5;

/// What to flip.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Arguments {
    /// Only these classes.
    #[arg(long, value_enum)]
    class: Vec<Class>,
    /// One bit of so many.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    stride: u32,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// A kind of durable bytes, and who reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Class {
    Wal,
    Votes,
    Snapshot,
    Segment,
    Pieces,
    Identity,
    Copy,
    First,
    Manifest,
    Backup,
}

/// Something durable, and the code that reads it.
trait Subject {
    /// What is flipped.
    fn bytes(&self) -> Vec<u8>;
    /// Reads it with these bytes in its place.
    fn read(&mut self, bytes: &[u8]) -> Verdict;
}

/// What came of one flip.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It was noticed, and nothing that was never written was believed.
    Detected,
    /// It was not, and what was read is what was written.
    Harmless,
    /// Something else was read.
    Wrong(String),
}

/// What came of all.
#[derive(Debug, Default)]
struct Counts {
    bits: u64,
    detected: u64,
    harmless: u64,
    wrong: u64,
    panics: u64,
    stories: Vec<String>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.bits += other.bits;
        self.detected += other.detected;
        self.harmless += other.harmless;
        self.wrong += other.wrong;
        self.panics += other.panics;
        self.stories.extend(other.stories);
    }

    fn on(&mut self, bit: usize, verdict: thread::Result<Verdict>) {
        self.bits += 1;
        let story = match verdict {
            Ok(Verdict::Detected) => return self.detected += 1,
            Ok(Verdict::Harmless) => {
                self.harmless += 1;
                "nobody noticed".to_owned()
            }
            Ok(Verdict::Wrong(story)) => {
                self.wrong += 1;
                story
            }
            Err(_) => {
                self.panics += 1;
                "the reader panicked".to_owned()
            }
        };
        if self.stories.len() < STORIES {
            self.stories.push(format!("bit {} of byte {}: {story}", bit % 8, bit / 8));
        }
    }
}

impl Class {
    const ALL: [Self; 10] = [
        Self::Wal,
        Self::Votes,
        Self::Snapshot,
        Self::Segment,
        Self::Pieces,
        Self::Identity,
        Self::Copy,
        Self::First,
        Self::Manifest,
        Self::Backup,
    ];

    /// The same for every worker; files go into `dir`, which is the worker's own.
    fn subject(self, dir: &Path, backup: &Path) -> Result<Box<dyn Subject>, Failed> {
        Ok(match self {
            Self::Wal => Box::new(logs::Start::of_entries()),
            Self::Votes => Box::new(logs::Start::of_votes()),
            Self::Snapshot => Box::new(logs::Start::of_a_snapshot()),
            Self::Segment => Box::new(logs::ReadBack::new()),
            Self::Pieces => Box::new(logs::Pieces::new()),
            Self::Identity => Box::new(files::Identity::new(dir, files::Flipped::File)?),
            Self::Copy => Box::new(files::Identity::new(dir, files::Flipped::Copy)?),
            Self::First => Box::new(files::First::new(dir)?),
            Self::Manifest => Box::new(files::Backup::new(dir, backup, "manifest.json")?),
            Self::Backup => Box::new(files::Backup::new(dir, backup, files::GROUP_FILE)?),
        })
    }

    /// Nobody reads a copy whose file is whole.
    fn may_go_unnoticed(self) -> bool {
        self == Self::Copy
    }
}

/// Flips them all.
pub(crate) fn run(arguments: &Arguments, seed: u64) -> Result<(), Failed> {
    let Arguments { class, stride, common } = arguments;
    let classes = if class.is_empty() { &Class::ALL[..] } else { &class[..] };
    let dir = common.dir.join("bits");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).map_err(|error| stopped(dir.display(), error))?;
    let backup = dir.join("backup");
    if classes.iter().any(|class| matches!(class, Class::Manifest | Class::Backup)) {
        files::take_backup(common, seed, &backup)?;
    }
    let mut broken = Vec::new();
    for class in classes {
        let started = now();
        let counts = sweep(*class, *stride as usize, &dir, &backup)?;
        let Counts { bits, detected, harmless, wrong, panics, stories } = counts;
        let name = format!("{class:?}").to_lowercase();
        println!(
            "bits class={name} bits={bits} detected={detected} harmless={harmless} wrong={wrong} \
             panics={panics} seconds={:.0}",
            started.elapsed().as_secs_f64()
        );
        let unnoticed = if class.may_go_unnoticed() { 0 } else { harmless };
        if 0 < unnoticed + wrong + panics {
            broken.extend(stories.into_iter().take(STORIES).map(|it| format!("{name}: {it}")));
        }
    }
    let _ = fs::remove_dir_all(&dir);
    if broken.is_empty() { Ok(()) } else { Err(Failed::Broken(broken)) }
}

/// Flips one bit of every `stride`, on all cores.
fn sweep(class: Class, stride: usize, dir: &Path, backup: &Path) -> Result<Counts, Failed> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut counts = Counts::default();
    thread::scope(|scope| {
        let part = |worker: usize| {
            let dir: PathBuf = dir.join(format!("worker-{worker}"));
            move || flip(class, (worker * stride, workers * stride), &dir, backup)
        };
        let parts: Vec<_> = (0..workers).map(|worker| scope.spawn(part(worker))).collect();
        for part in parts {
            counts.add(part.join().expect("readers' panics are caught")?);
        }
        Ok(counts)
    })
}

/// Flips every bit from the first on that many apart.
fn flip(
    class: Class,
    (first, apart): (usize, usize),
    dir: &Path,
    backup: &Path,
) -> Result<Counts, Failed> {
    let fresh = || {
        let _ = fs::remove_dir_all(dir);
        fs::create_dir_all(dir).map_err(|error| stopped(dir.display(), error))?;
        class.subject(dir, backup)
    };
    let mut subject = fresh()?;
    let mut bytes = subject.bytes();
    let mut counts = Counts::default();
    for bit in (first..8 * bytes.len()).step_by(apart) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let verdict = catch_unwind(AssertUnwindSafe(|| subject.read(&bytes)));
        bytes[bit / 8] ^= 1 << (bit % 8);
        if verdict.is_err() {
            subject = fresh()?;
        }
        counts.on(bit, verdict);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_bits_of_a_log_and_of_a_snapshot_on_its_way() {
        let scratch = std::env::temp_dir().join(format!("bits-{}", std::process::id()));
        for class in [Class::Wal, Class::Votes, Class::Snapshot, Class::Segment, Class::Pieces] {
            let counts = sweep(class, 1_601, &scratch, Path::new("none")).expect("swept");
            assert!(300 < counts.bits, "{class:?}: {counts:?}");
            assert_eq!(counts.detected, counts.bits, "{class:?}: {counts:?}");
        }
        let _ = fs::remove_dir_all(scratch);
    }

    #[test]
    fn what_is_not_flipped_is_not_noticed() {
        let logs: [Box<dyn Subject>; 5] = [
            Box::new(logs::Start::of_entries()),
            Box::new(logs::Start::of_votes()),
            Box::new(logs::Start::of_a_snapshot()),
            Box::new(logs::ReadBack::new()),
            Box::new(logs::Pieces::new()),
        ];
        for mut log in logs {
            let bytes = log.bytes();
            assert_eq!(bytes.len(), BYTES);
            assert_eq!(log.read(&bytes), Verdict::Harmless);
        }
    }
}
