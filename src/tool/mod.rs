//! The tools that look at what a node left on disk: `outrigger tool …`, and `cargo tool …` in a checkout. They read only, a
//! copy or the directory of a node that runs.
//!
//! ```text
//!  core-N/*.seg ─► scan   every byte, as a start would, and on behind what is damaged
//!                   ├─► wal        check · dump · grep
//!                   └─► held       what it holds of each group
//!                        ├─► snapshot   list · verify · extract
//!                        └─► state      raft state · segments
//!  identity.toml ─► home   whose log it is
//! ```
//!
//! Exit code 0: all of it is whole. 1: something is damaged, or not there; what could be shown was shown, and stderr names
//! every place.

mod grep;
mod held;
mod home;
mod scan;
mod snapshot;
mod state;
mod wal;

use std::io::Write;

/// What to look at.
#[derive(Debug, clap::Subcommand)]
pub enum Tool {
    /// A shard's log; reads only.
    #[command(subcommand)]
    Wal(wal::Command),
    /// The snapshots in a shard's log; reads only.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// What a shard's log says of its groups; reads only.
    #[command(subcommand)]
    Raft(state::Command),
    /// Who holds which segment of a shard's log; reads only.
    Segments(state::Segments),
}

/// Carries out `tool`; the report goes to `out`.
///
/// # Errors
/// One line for each place that is damaged, or the one that says why there is nothing to show. Whoever reads `out` may stop
/// when they have seen enough: that is no error.
pub fn run(tool: &Tool, out: &mut dyn Write) -> Result<(), String> {
    let done = match tool {
        Tool::Wal(command) => wal::run(command, out),
        Tool::Snapshot(command) => snapshot::run(command, out),
        Tool::Raft(command) => state::run(command, out),
        Tool::Segments(arguments) => state::run_segments(arguments, out),
    };
    match done {
        Ok(()) | Err(scan::Stop::Reader) => Ok(()),
        Err(stop) => Err(stop.to_string()),
    }
}
