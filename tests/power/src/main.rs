//! Power cuts and broken disks for the real node.
//!
//! Each node has a disk of its own that keeps writes volatile until they are flushed (`disk`), as a FUSE
//! file under a loop device with ext4 (`device`). No kernel module is needed; FUSE, loop devices and the
//! right to mount are, and where they are missing the rig says so and exits with 2.
//!
//! ```text
//!   writers ──► outrigger ×3 ──► ext4 ×3 ──► loop ×3 ──► disk ×3 (this process)
//!   ledger: every acknowledgement, outside the disks               ▲
//!      └── after the cut: read everything back             cut, EIO, stall, lie …
//! ```
//!
//! kill -9 alone can never reveal a missing flush: what the process wrote is in the page cache or in the
//! device, and stays. Here it is gone. `blind-check` proves that this would be seen.

mod bits;
mod blind;
mod cleanup;
mod counters;
mod cuts;
mod device;
mod disk;
mod errors;
mod first;
mod flips;
mod full;
mod fuse;
mod image;
mod kills;
mod links;
mod machine;
mod network;
mod replace;
mod resume;
mod rig;
mod slow;
mod soak;
mod stall;
mod totals;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use machine::Failed;
use rig::Common;

/// The machine cannot run this, and nothing was run.
const CANNOT_RUN: u8 = 2;

#[derive(Parser)]
#[command(
    name = "power",
    about = "Cuts the power of real nodes and breaks their disks, and checks every write they promised",
    after_help = "Exit code 0: all promises held; 1: not, or the run was stopped; 2: this machine cannot run it, and nothing was run."
)]
struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// Whether this machine can run it; prints what is missing.
    Check,
    /// A disk that lies about flushes: lost writes must be found.
    BlindCheck(Common),
    /// Power cuts of whole clusters and of single nodes.
    Cuts(cuts::Arguments),
    /// kill -9 under load and during recovery; needs no disks.
    Kills(kills::Arguments),
    /// A flush fails, or a write: the process ends, and what it promised is there.
    FsyncErrors(errors::Arguments),
    /// Every bit of every kind of file, flipped at rest and read; needs no disks.
    Bits(bits::Arguments),
    /// Bits flip in what running and stopped nodes rely on.
    Flips(flips::Arguments),
    /// The disk of a leader stops answering.
    Stall(stall::Arguments),
    /// A disk becomes slow: a follower's, and a leader's.
    Slow(slow::Arguments),
    /// Mixed faults for an hour; memory and open files must not grow.
    Soak(soak::Arguments),
    /// The file systems run out of space, all and one.
    Full(Common),
    /// Nodes are cut off from each other, or stand still; needs no disks, but network namespaces.
    Links(links::Arguments),
    /// Whether this machine can run `links`; prints what is missing.
    LinksCheck,
    /// A node is killed and wiped, and another replaces it, by an operator's commands; needs no disks.
    Replace(replace::Arguments),
    /// All of the above but the checks of the machine, the bits and the soak, one after the other.
    All(All),
}

/// How much of everything.
#[derive(clap::Args, Debug, Clone)]
struct All {
    /// 300 cuts of each kind, 500 kills, 50 fsync errors: half an hour or more. Otherwise what CI runs, in
    /// about two minutes.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    let subject = Arguments::parse().subject;
    match run(&subject) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("{failed}");
            match failed {
                Failed::CannotRun(_) => ExitCode::from(CANNOT_RUN),
                Failed::Stopped(_) | Failed::Broken(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn run(subject: &Subject) -> Result<(), Failed> {
    let common = match subject {
        Subject::Check => {
            machine::check()?;
            println!("this machine can run it");
            return Ok(());
        }
        Subject::BlindCheck(common) | Subject::Full(common) => common,
        Subject::Cuts(arguments) => &arguments.common,
        Subject::Kills(arguments) => &arguments.common,
        Subject::FsyncErrors(arguments) => &arguments.common,
        Subject::Bits(arguments) => &arguments.common,
        Subject::Flips(arguments) => &arguments.common,
        Subject::Stall(arguments) => &arguments.common,
        Subject::Slow(arguments) => &arguments.common,
        Subject::Soak(arguments) => &arguments.common,
        Subject::Links(arguments) => &arguments.common,
        Subject::Replace(arguments) => &arguments.common,
        Subject::LinksCheck => {
            machine::check_network()?;
            println!("this machine can run it");
            return Ok(());
        }
        Subject::All(all) => &all.common,
    };
    let _claim = cleanup::claim(&common.dir)?;
    cleanup::sweep(&common.dir);
    subject.check_machine()?;
    cleanup::on_signals()?;
    let seed = common.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    tools::rounds::prepare(&common.dir, &format!("cargo power, seed {seed}"))?;
    match subject {
        Subject::Check | Subject::LinksCheck => Ok(()),
        Subject::BlindCheck(common) => blind::run(common, seed),
        Subject::Cuts(arguments) => cuts::run(arguments, seed),
        Subject::Kills(arguments) => kills::run(arguments, seed),
        Subject::FsyncErrors(arguments) => errors::run(arguments, seed),
        Subject::Bits(arguments) => bits::run(arguments, seed),
        Subject::Flips(arguments) => flips::run(arguments, seed),
        Subject::Stall(arguments) => stall::run(arguments, seed),
        Subject::Slow(arguments) => slow::run(arguments, seed),
        Subject::Soak(arguments) => soak::run(arguments, seed),
        Subject::Full(common) => full::run(common, seed),
        Subject::Links(arguments) => links::run(arguments, seed),
        Subject::Replace(arguments) => replace::run(arguments, seed),
        Subject::All(all) => run_all(all, seed),
    }
}

impl Subject {
    /// Whether the machine has what this needs.
    fn check_machine(&self) -> Result<(), Failed> {
        match self {
            Self::Kills(_) | Self::Replace(_) | Self::Bits(_) => Ok(()),
            Self::Links(_) | Self::LinksCheck => machine::check_network(),
            Self::All(_) => machine::check().and(machine::check_network()),
            _ => machine::check(),
        }
    }
}

/// Each part is replayed by the command it prints.
fn run_all(All { full, common }: &All, seed: u64) -> Result<(), Failed> {
    let pick = |reduced, whole| if *full { whole } else { reduced };
    let common = || common.clone();
    blind::run(&common(), seed)?;
    cuts::run(
        &cuts::Arguments { cluster: pick(20, 300), single: pick(20, 300), common: common() },
        seed,
    )?;
    kills::run(
        &kills::Arguments { rounds: pick(20, 500), limit_ms: None, common: common() },
        seed,
    )?;
    errors::run(
        &errors::Arguments {
            times: pick(4, 50),
            write_times: pick(2, 10),
            start_times: pick(12, 24),
            common: common(),
        },
        seed,
    )?;
    flips::run(&flips::Arguments { times: pick(6, 200), common: common() }, seed)?;
    stall::run(&stall::Arguments { times: pick(1, 10), common: common() }, seed)?;
    slow::run(&slow::Arguments { times: pick(2, 10), common: common() }, seed)?;
    full::run(&common(), seed)?;
    links::run(
        &links::Arguments {
            times: pick(9, 200),
            limit_ms: links::LIMIT_MS,
            only: None,
            common: common(),
        },
        seed,
    )?;
    replace::run(&replace::Arguments { times: pick(3, 100), common: common() }, seed)
}
