//! Outrigger's layers beside the libraries that others build on: `compare consensus` and `compare log`.
//!
//! Each prints one Markdown record on standard output, and what it is doing on standard error. See
//! `bench/README.md`.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock and starts threads")]

mod alloc;
mod consensus;
mod log;
mod machine;
mod stats;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Compare Outrigger's layers with their peers; the record goes to standard output.
#[derive(Debug, Parser)]
#[command(name = "compare", version)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The raft core beside the `raft` crate: nanoseconds, allocations and memory.
    Consensus(consensus::Options),
    /// The log beside raft-engine and redb: synced appends and recovery, and what fio says of the device.
    Log(log::Options),
}

fn main() -> Result<()> {
    let record = match Args::parse().what {
        What::Consensus(options) => consensus::run(&options)?,
        What::Log(options) => log::run(&options)?,
    };
    print!("{record}");
    Ok(())
}
