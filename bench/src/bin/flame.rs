//! A flame graph of what `perf script` prints, as one SVG.
//!
//! ```sh
//! perf script -i perf.data | cargo run --release -p bench --bin flame -- --title "SET, 256 connections" > flame.svg
//! ```
//!
//! `bench/flame.sh` records and draws the write path of a cluster in one command.

use std::io::{self, BufReader, BufWriter, Write};
use std::process::ExitCode;

use clap::Parser;
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options as Fold};
use inferno::flamegraph::{self, Options as Draw};

/// Draw `perf script`'s output, from standard input, as a flame graph on standard output.
#[derive(Debug, Parser)]
#[command(name = "flame")]
struct Args {
    /// What stands over it.
    #[arg(long, default_value = "flame graph")]
    title: String,
    /// Also print the functions that use most themselves, as a Markdown table, to this file.
    #[arg(long, value_name = "FILE")]
    table: Option<std::path::PathBuf>,
}

/// Rows of the table.
const ROWS: usize = 25;

fn main() -> ExitCode {
    match draw(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flame: {error}");
            ExitCode::FAILURE
        }
    }
}

fn draw(args: &Args) -> io::Result<()> {
    let mut folded = Vec::new();
    Folder::from(Fold::default()).collapse(BufReader::new(io::stdin().lock()), &mut folded)?;
    if folded.is_empty() {
        return Err(io::Error::other("no samples on standard input; pipe `perf script` into it"));
    }
    if let Some(path) = &args.table {
        std::fs::write(path, table(&String::from_utf8_lossy(&folded)))?;
    }
    let mut options = Draw::default();
    options.title.clone_from(&args.title);
    // Without a script it is half as long; the titles of the boxes say the rest.
    options.no_javascript = true;
    options.min_width = 0.2;
    let mut svg = BufWriter::new(io::stdout().lock());
    flamegraph::from_reader(&mut options, folded.as_slice(), &mut svg).map_err(io::Error::other)?;
    svg.flush()
}

/// What the innermost functions took: lines are `outer;…;inner count`.
fn table(folded: &str) -> String {
    let mut own = std::collections::BTreeMap::<&str, u64>::new();
    let mut all = 0;
    for line in folded.lines() {
        let Some((stack, count)) = line.rsplit_once(' ') else { continue };
        let count = count.parse().unwrap_or(0);
        let inner = stack.rsplit(';').next().unwrap_or(stack);
        *own.entry(inner).or_default() += count;
        all += count;
    }
    let mut rows: Vec<_> = own.into_iter().collect();
    rows.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
    let mut text = String::from("| share, % | function |\n|--:|---|\n");
    for (name, count) in rows.into_iter().take(ROWS) {
        let share = 100.0 * count as f64 / all.max(1) as f64;
        text.push_str(&format!("| {share:.1} | `{name}` |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_function_is_charged() {
        let text = table("a;b 3\na;c 1\nb 4\n");
        assert_eq!(text.lines().skip(2).collect::<Vec<_>>(), ["| 87.5 | `b` |", "| 12.5 | `c` |"]);
    }
}
