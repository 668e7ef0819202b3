//! Tools around the node: look at what it left on disk, run it in the simulator, kill it, and
//! compare its core with a peer's transcripts.
//!
//! `rounds` is also the witness of the power rig (`tests/power`): nodes as child processes, writers,
//! and the ledger that says which writes must be there.

mod grep;
mod held;
mod home;
mod live;
#[cfg(feature = "planted-bugs")]
mod planted;
mod replay;
pub mod rounds;
mod scan;
mod sim;
mod snapshot;
mod state;
mod transcripts;
mod wal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "tool",
    about = "Looks at a node's log, runs nodes in the simulator, kills real ones, and compares the \
             core with a peer's transcripts"
)]
struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
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
    /// Whole clusters under a seed, with faults.
    Sim(sim::Arguments),
    /// The life of a cluster under load: members come, lead, are drained, and go.
    Live(live::Arguments),
    /// Rounds of kill -9 under load against real nodes; then every write is read back.
    Rounds(rounds::Arguments),
    /// Writes the log of one core, replays it, and tells what that takes.
    Replay(replay::Arguments),
    /// Mistakes of our own, each to be found by the simulator.
    #[cfg(feature = "planted-bugs")]
    Planted(planted::Arguments),
    /// The transcripts of etcd-io/raft, played with our core.
    Transcripts(transcripts::Arguments),
}

/// Does what the command line says.
#[must_use]
pub fn run() -> ExitCode {
    let out = &mut std::io::stdout();
    let result = match Arguments::parse().subject {
        Subject::Wal(command) => looked(wal::run(&command, out)),
        Subject::Snapshot(command) => looked(snapshot::run(&command, out)),
        Subject::Raft(command) => looked(state::run(&command, out)),
        Subject::Segments(arguments) => looked(state::run_segments(&arguments, out)),
        Subject::Sim(arguments) => sim::run(&arguments).map_err(|failed| failed.to_string()),
        Subject::Live(arguments) => live::run(&arguments).map_err(|failed| failed.to_string()),
        Subject::Rounds(arguments) => rounds::run(&arguments).map_err(|failed| failed.to_string()),
        Subject::Replay(arguments) => {
            replay::run(&arguments, &mut std::io::stdout().lock()).map_err(|it| it.to_string())
        }
        #[cfg(feature = "planted-bugs")]
        Subject::Planted(arguments) => {
            planted::run(&arguments).map_err(|failed| failed.to_string())
        }
        Subject::Transcripts(arguments) => {
            transcripts::run(&arguments, &mut std::io::stdout().lock())
                .map_err(|failed| failed.to_string())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(story) => {
            eprintln!("{story}");
            ExitCode::FAILURE
        }
    }
}

/// Whoever reads the output may stop when they have seen enough.
fn looked(result: Result<(), scan::Stop>) -> Result<(), String> {
    match result {
        Ok(()) | Err(scan::Stop::Reader) => Ok(()),
        Err(stop) => Err(stop.to_string()),
    }
}
