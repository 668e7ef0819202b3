//! Every mutant of the log, of Raft and of the wire in one test binary: `tests/mutants.sh`.
//!
//! ```text
//! source ─► find ─► weave ─► viable ─► one binary ─► run
//!           what    all in   what the                MUTANT=1, 2, 3 …: does a
//!           could   one      compiler                test fail that reaches it?
//!           change  text     refuses goes
//! ```

mod find;
#[allow(dead_code, reason = "becomes a module of what is changed; here it is only looked at")]
mod on;
mod run;
#[cfg(test)]
mod tests;
mod values;
mod viable;
mod weave;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use run::{Outcome, Runner};
use viable::{Refused, Source};

const FOLDERS: [&str; 3] = ["src/wal", "src/raft", "src/wire"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The crate to change is made already, in the first argument; the sources are read from where this is started.
fn run(args: &[String]) -> Result<(), String> {
    let (krate, only) = match args {
        [krate] => (krate, ""),
        [krate, flag, only] if flag == "-F" => (krate, only.as_str()),
        _ => return Err("usage: outrigger-mutants CRATE [-F REGEX]".into()),
    };
    let only = regex_lite::Regex::new(only).map_err(|error| format!("-F: {error}"))?;
    let krate = std::path::absolute(krate).map_err(|error| format!("{krate}: {error}"))?;
    let target = krate.parent().ok_or("the crate has a folder around it")?;

    let sources = read()?;
    let mut refused = Refused::default();
    let binary = viable::build(&krate, &sources, &mut refused)?;
    let runner = Runner { krate: krate.clone(), binary };
    let tests = runner.measure(&target.join("reach"))?;
    eprintln!("{} tests pass without a mutant", tests.len());

    let mut all = Vec::new();
    for (file, source) in sources.iter().enumerate() {
        for (number, mutant) in (source.first..).zip(&source.found.mutants) {
            let refused = if refused.is_const(file, mutant) {
                Some(Outcome::Constant)
            } else {
                refused.unviable.contains(&number).then_some(Outcome::Unviable)
            };
            if only.is_match(&format!("{}:{}", mutant.file, mutant.function)) {
                all.push((number, mutant, refused));
            }
        }
    }
    let numbers = all.iter().filter(|(.., refused)| refused.is_none()).map(|(number, ..)| *number);
    let mut judged = runner.judge(&numbers.collect::<Vec<_>>(), &tests)?.into_iter();

    let (mut outcomes, mut missed) = (String::new(), String::new());
    let mut counts: BTreeMap<&str, [usize; 6]> = BTreeMap::new();
    let mut sums = [0; 6];
    for (number, mutant, refused) in all {
        let outcome = refused.or_else(|| judged.next()).ok_or("every mutant is judged")?;
        counts.entry(&mutant.file).or_default()[outcome as usize] += 1;
        sums[outcome as usize] += 1;
        let line = format!("{mutant} (MUTANT={number}, {outcome:?})\n");
        outcomes.push_str(&line);
        if matches!(outcome, Outcome::Missed | Outcome::NotReached) {
            missed.push_str(&line);
        }
    }
    save(&target.join("outcomes.txt"), &outcomes)?;
    save(&target.join("missed.txt"), &missed)?;
    println!("{missed}\n{:24} constant unviable   caught     hung   missed  unasked    score", "");
    for (file, counts) in counts.into_iter().chain([("all", sums)]) {
        print_counts(file, counts);
    }
    Ok(())
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// A file's line of the table, in the order of [`Outcome`]. The score is of those that the compiler took.
fn print_counts(name: &str, counts: [usize; 6]) {
    print!("{name:24}");
    for count in counts {
        print!(" {count:8}");
    }
    let [_, _, caught, hung, missed, not_reached] = counts;
    let viable = caught + hung + missed + not_reached;
    println!("{:7.1} %", 100.0 * (caught + hung) as f64 / viable.max(1) as f64);
}

/// The files of the three folders that are the product's, written by hand.
fn read() -> Result<Vec<Source>, String> {
    let mut sources: Vec<Source> = Vec::new();
    for folder in FOLDERS {
        let list = std::fs::read_dir(folder).map_err(|error| format!("{folder}: {error}"))?;
        let mut paths: Vec<PathBuf> = list.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        // `tests` are a folder.
        for path in
            paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        {
            if path.ends_with("generated.rs") {
                continue;
            }
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
            let found = find::find(&name, &text).map_err(|error| format!("{name}: {error}"))?;
            let first = sources.last().map_or(0, |last| last.first + last.found.mutants.len());
            sources.push(Source { path: name, text, found, first });
        }
    }
    Ok(sources)
}
