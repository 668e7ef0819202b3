//! Looks at what a node left on disk. Reads only.

mod wal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "tool", about = "Looks at what a node left on disk. Reads only.")]
struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// A shard's log.
    #[command(subcommand)]
    Wal(wal::Command),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().subject {
        Subject::Wal(command) => wal::run(&command, &mut std::io::stdout().lock()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(wal::Stop::Reader) => ExitCode::SUCCESS,
        Err(stop) => {
            eprintln!("{stop}");
            ExitCode::FAILURE
        }
    }
}
