//! Tools around the node: run it in the simulator, kill it, compare its core with a peer's transcripts, and look at what
//! it left on disk (`outrigger::tool`, which the node's binary has as well).
//!
//! `rounds` is also the witness of the power rig (`tests/power`): nodes as child processes, writers,
//! and the ledger that says which writes must be there.

mod live;
#[cfg(feature = "planted-bugs")]
mod planted;
mod replay;
pub mod rounds;
mod sim;
mod transcripts;

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
    /// Those that `outrigger tool` has as well.
    #[command(flatten)]
    Look(outrigger::tool::Tool),
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
    let result = match Arguments::parse().subject {
        Subject::Look(tool) => outrigger::tool::run(&tool, &mut std::io::stdout()),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_the_node_can_show_of_a_log_is_here_as_well() {
        Arguments::command().debug_assert();
        for line in
            ["tool wal check d", "tool snapshot list d", "tool raft state d", "tool segments d"]
        {
            let subject = Arguments::try_parse_from(line.split(' ')).map(|it| it.subject);
            assert!(matches!(subject, Ok(Subject::Look(_))), "{line}");
        }
    }
}
