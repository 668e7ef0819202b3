//! `tool planted`: mistakes of our own, one at a time, each to be found by the simulator.
//!
//! ```text
//! cargo planted                          every mistake, at most 200 seeds each
//! cargo planted --seeds 50 VotedTwice    this one
//! cargo planted --markdown               as the table of docs/testing.md
//! ```
//!
//! A seed that finds a mistake must find nothing without it: otherwise it is not the mistake that was
//! found.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use outrigger::planted::{self, Planted};
use outrigger::sim::{self, Options};

/// Which mistakes, and how long to look.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Names of mistakes [default: all].
    bugs: Vec<String>,
    /// Seeds tried for each.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Print a table for a document.
    #[arg(long)]
    markdown: bool,
    /// Mistakes looked for at a time [default: one per core].
    #[arg(long)]
    jobs: Option<usize>,
}

/// What went wrong.
pub(crate) enum Failed {
    /// There is no such mistake.
    Unknown(String),
    /// So many were not found, or were found where there are none.
    NotFound(usize),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "no mistake is called {name}"),
            Self::NotFound(count) => write!(f, "{count} mistakes were not found as they should be"),
        }
    }
}

/// What became of the search for one mistake.
struct Search {
    bug: Planted,
    /// The seed that found it, and what it said.
    found: Option<(u64, String)>,
    /// What the same world says without the mistake.
    innocent: Option<String>,
    seconds: f64,
}

/// Looks for every mistake asked for, and prints what found it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failed> {
    let bugs = chosen(&arguments.bugs)?;
    let jobs = arguments
        .jobs
        .or_else(|| std::thread::available_parallelism().ok().map(Into::into))
        .unwrap_or(1)
        .clamp(1, 256);
    // A panic is told as what it found.
    std::panic::set_hook(Box::new(|_| {}));
    #[expect(clippy::disallowed_methods, reason = "measures the search; nothing in it sees this")]
    let started = Instant::now();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(&bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let search = look_for(bug, arguments.from, arguments.seeds);
                    if !arguments.markdown {
                        println!("{}", search.line(arguments));
                    }
                    done.lock().expect("no thread panics while it holds this").push(search);
                }
            });
        }
    });
    let _ = std::panic::take_hook();
    let mut done = done.into_inner().expect("no thread panicked");
    done.sort_by_key(|search| search.bug);
    if arguments.markdown {
        println!("| mistake | what it does | seeds | found by |\n|---|---|--:|---|");
        done.iter().for_each(|search| println!("{}", search.row(arguments)));
    }
    let wrong = done.iter().filter(|it| it.found.is_none() || it.innocent.is_some()).count();
    println!(
        "{} mistakes, {} found within {} seeds, in {:.1} s",
        done.len(),
        done.len() - wrong,
        arguments.seeds,
        started.elapsed().as_secs_f64()
    );
    if wrong == 0 { Ok(()) } else { Err(Failed::NotFound(wrong)) }
}

fn chosen(names: &[String]) -> Result<Vec<Planted>, Failed> {
    if names.is_empty() {
        return Ok(Planted::ALL.to_vec());
    }
    let find = |name: &String| {
        let bug = Planted::ALL.iter().find(|bug| format!("{bug:?}") == *name);
        bug.copied().ok_or_else(|| Failed::Unknown(name.clone()))
    };
    names.iter().map(find).collect()
}

fn look_for(bug: Planted, from: u64, seeds: u64) -> Search {
    #[expect(clippy::disallowed_methods, reason = "measures the search; nothing in it sees this")]
    let started = Instant::now();
    let world = |seed| one(seed, &Options::focused(bug, seed));
    let found = (from..from + seeds)
        .find_map(|seed| planted::with(bug, || world(seed)).map(|what| (seed, what)));
    let innocent = found.as_ref().and_then(|(seed, _)| world(*seed));
    if let (Some((seed, _)), Some(_)) = (&found, &innocent) {
        // There is a real one: its story, as it happens.
        let _ = sim::narrate(*seed, &Options::focused(bug, *seed));
    }
    Search { bug, found, innocent, seconds: started.elapsed().as_secs_f64() }
}

/// What is wrong with one world, in one line. A panic of the code under test is a failure like any other.
fn one(seed: u64, options: &Options) -> Option<String> {
    let failure = sim::try_once(seed, options).err()?;
    Some(failure.what.lines().next().unwrap_or("it does not say").to_owned())
}

impl Search {
    fn line(&self, arguments: &Arguments) -> String {
        let Self { bug, seconds, .. } = self;
        let found = match &self.found {
            None => format!("NOT FOUND in {} seeds", arguments.seeds),
            Some((seed, what)) => format!("{:>3} seeds  {what}", seed - arguments.from + 1),
        };
        let innocent = self
            .innocent
            .as_ref()
            .map(|what| format!("\n    AND WITHOUT IT, the same seed: {what}"));
        format!("{bug:?} {seconds:.1} s  {found}{}", innocent.unwrap_or_default())
    }

    fn row(&self, arguments: &Arguments) -> String {
        let Self { bug, .. } = self;
        let (seeds, by) = match &self.found {
            None => ("–".to_owned(), "nothing"),
            Some((seed, what)) => ((seed - arguments.from + 1).to_string(), oracle(what)),
        };
        format!("| `{bug:?}` | {} | {seeds} | {by} |", bug.what())
    }
}

/// Which check said this.
fn oracle(what: &str) -> &'static str {
    const KNOWN: [(&str, &str); 21] = [
        ("loses power now", "rehearsed loss of power"),
        ("does not recover", "a node does not start"),
        ("lease safety", "lease safety"),
        ("majority", "majority"),
        ("damage unseen", "rehearsal with a flipped bit"),
        ("called damaged", "what is whole is called whole"),
        ("monotonic", "monotonic, promises"),
        ("leader completeness", "leader completeness"),
        ("election safety", "election safety"),
        ("log matching", "log matching"),
        ("state machine safety", "state machine safety"),
        ("members", "members"),
        ("handover", "handover"),
        ("liveness", "liveness"),
        ("calm", "calm stays calm"),
        ("replicas differ", "replicas agree"),
        ("not linearizable", "linearizability"),
        ("append list", "append lists"),
        ("stopped itself", "a replica stopped itself"),
        ("intact frame was refused", "frames arrive as sent"),
        ("panic", "an assertion of the product"),
    ];
    let known = KNOWN.iter().find(|(said, _)| what.contains(said));
    known.map_or("another check", |(_, oracle)| oracle)
}
