//! `tool transcripts`: another library's recorded conversations, played with our core.
//!
//! ```text
//! tool transcripts DIR            every .txt file under DIR is compared
//! tool transcripts --print FILE   what our core makes of it, to be read and kept
//!
//! interaction/campaign.txt                       agrees   3 commands
//! quorum/majority_vote.txt                       differs  at line 12
//!   vote cfg=(4,8) votes=(n,_)
//!     expected  VoteLost
//!     got       VotePending
//! 2 files: 1 agrees, 1 differs, 0 unusable; 23 commands
//! ```
//!
//! The transcripts are data of etcd-io/raft (a command, its input, what it printed) and are not kept
//! here. What is compared, and what is left out on purpose, is in `docs/raft.md`. What kind of
//! transcript a file is, its commands tell: the arithmetic of quorums, of memberships, or groups of
//! whole nodes.

mod changes;
mod compare;
mod confchange;
mod group;
mod interaction;
mod message;
mod node;
mod output;
mod quorum;
mod render;
mod script;
mod storage;
mod translate;
mod unstable;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use compare::{Difference, compare};
use confchange::Memberships;
use group::Group;
use script::{Case, Nonsense};

/// Which transcripts, and how much to tell.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A directory, searched for .txt files, or one file.
    dir: PathBuf,
    /// Lines of each side to show where they begin to differ.
    #[arg(long, default_value_t = 8)]
    lines: usize,
    /// Print the commands and what our core makes of them, in the format of the files, instead of
    /// comparing.
    #[arg(long)]
    print: bool,
}

/// Why not everything agrees.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Some files differ or cannot be used.
    Files(Total),
    /// There are no transcripts to speak of.
    Nothing(PathBuf),
    /// A directory cannot be read.
    Io(PathBuf, io::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(total) => {
                write!(f, "{} differ, {} are unusable", total.differ, total.unusable)
            }
            Self::Nothing(dir) => write!(f, "{}: there are no .txt files", dir.display()),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

/// How many files came out how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Total {
    agree: usize,
    differ: usize,
    unusable: usize,
    commands: usize,
}

/// What became of one file.
enum Verdict {
    Agrees { commands: usize },
    Differs { case: Case, difference: Difference },
    Unusable { line: usize, what: String },
}

/// Plays everything under a directory and prints a line per file, and a total.
pub(crate) fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), Failed> {
    let root = &arguments.dir;
    let mut files = Vec::new();
    find(root, &mut files).map_err(|(path, error)| Failed::Io(path, error))?;
    files.sort();
    if files.is_empty() {
        return Err(Failed::Nothing(root.clone()));
    }
    let mut total = Total::default();
    if arguments.print {
        for file in &files {
            let located = |error| Failed::Io(file.clone(), error);
            transcribe(&fs::read_to_string(file).map_err(located)?, out);
        }
        return Ok(());
    }
    for file in &files {
        let verdict = match fs::read_to_string(file) {
            Ok(text) => play(&text),
            Err(error) => Verdict::Unusable { line: 0, what: error.to_string() },
        };
        let name = file.strip_prefix(root).ok().filter(|name| name.iter().count() > 0);
        tell(out, name.unwrap_or(file), &verdict, arguments.lines);
        match verdict {
            Verdict::Agrees { commands } => {
                total.agree += 1;
                total.commands += commands;
            }
            Verdict::Differs { .. } => total.differ += 1,
            Verdict::Unusable { .. } => total.unusable += 1,
        }
    }
    let Total { agree, differ, unusable, commands } = total;
    let count = files.len();
    print(
        out,
        &format!(
            "{count} files: {agree} agree, {differ} differ, {unusable} unusable; {commands} commands"
        ),
    );
    if agree == count { Ok(()) } else { Err(Failed::Files(total)) }
}

fn find(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), (PathBuf, io::Error)> {
    let located = |error| (path.to_owned(), error);
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(located)? {
            find(&entry.map_err(located)?.path(), files)?;
        }
    } else if path.extension().is_some_and(|extension| extension == "txt") {
        files.push(path.to_owned());
    }
    Ok(())
}

/// Plays one file up to the first difference. A core that panics has not agreed.
fn play(text: &str) -> Verdict {
    let cases = match script::parse(text) {
        Ok(cases) => cases,
        Err(Nonsense(what)) => return Verdict::Unusable { line: 0, what },
    };
    if cases.is_empty() {
        return Verdict::Unusable { line: 0, what: "there are no commands".to_owned() };
    }
    let mut player = Player::of(&cases);
    let commands = cases.len();
    for case in cases {
        let played = catch_unwind(AssertUnwindSafe(|| player.play(&case)));
        let said = match played {
            Ok(Ok(said)) => said,
            Ok(Err(Nonsense(what))) => return Verdict::Unusable { line: case.line, what },
            Err(panic) => {
                let what = panic.downcast_ref::<String>().map(String::as_str);
                let what = what.or_else(|| panic.downcast_ref::<&str>().copied());
                let what = format!("panicked: {}", what.unwrap_or("for no reason given"));
                return Verdict::Unusable { line: case.line, what };
            }
        };
        if let Some(difference) = compare(&case.expected, &said) {
            return Verdict::Differs { case, difference };
        }
    }
    Verdict::Agrees { commands }
}

/// Plays a file and writes it down anew, without its comments.
fn transcribe(text: &str, out: &mut impl Write) {
    let cases = script::parse(text).unwrap_or_else(|Nonsense(what)| {
        print(out, &what);
        Vec::new()
    });
    let mut player = Player::of(&cases);
    for case in cases {
        let said = player.play(&case).unwrap_or_else(|Nonsense(what)| what);
        print(out, &case.command.to_string());
        if !case.input.is_empty() {
            print(out, &case.input);
        }
        print(out, &format!("----\n{}\n", said.trim_end_matches('\n')));
    }
}

/// What a file is played with.
enum Player {
    Quorum,
    Memberships(Memberships),
    Group(Box<Group>),
}

impl Player {
    fn of(cases: &[Case]) -> Self {
        let all = |names: &[&str]| cases.iter().all(|case| names.contains(&&*case.command.name));
        if all(&["committed", "vote"]) {
            Self::Quorum
        } else if all(&["simple", "enter-joint", "leave-joint"]) {
            Self::Memberships(Memberships::default())
        } else {
            Self::Group(Box::default())
        }
    }

    fn play(&mut self, case: &Case) -> Result<String, Nonsense> {
        match self {
            Self::Quorum => quorum::run(case),
            Self::Memberships(memberships) => memberships.run(case),
            Self::Group(group) => interaction::run(group, case),
        }
    }
}

fn tell(out: &mut impl Write, name: &Path, verdict: &Verdict, lines: usize) {
    let name = format!("{:<52}", name.display());
    match verdict {
        Verdict::Agrees { commands } => print(out, &format!("{name} agrees   {commands} commands")),
        Verdict::Unusable { line: 0, what } => print(out, &format!("{name} unusable {what}")),
        Verdict::Unusable { line, what } => {
            print(out, &format!("{name} unusable line {line}: {what}"));
        }
        Verdict::Differs { case, difference } => {
            let Difference { at, expected, actual } = difference;
            print(out, &format!("{name} differs  at line {}", case.line));
            print(out, &format!("  {}", case.command));
            if *at > 0 {
                print(out, &format!("    after     {}", expected[at - 1]));
            }
            for (side, said) in [("expected", expected), ("got", actual)] {
                for line in said.iter().skip(*at).take(lines) {
                    print(out, &format!("    {side:<9} {line}"));
                }
                if said.len() <= *at {
                    print(out, &format!("    {side:<9} (nothing more)"));
                }
            }
        }
    }
}

/// Whoever closes the output does not want to know more; the exit code still tells.
fn print(out: &mut impl Write, line: &str) {
    let _ = writeln!(out, "{line}");
}
