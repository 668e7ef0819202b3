//! Runs the tests: each alone once, and then, for each mutant, those that reach it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// At once: as many as the machine that this is made for has processors.
const JOBS: usize = 2;
/// Tests of one process take no longer than this together, the first least: what the quick ones notice costs little.
const GROUPS: [Duration; 4] = [
    Duration::from_millis(40),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];
/// Seconds of a processor after which a mutant is given up that goes on for ever; or five times what is usual.
const PATIENCE: Duration = Duration::from_secs(10);
/// As many times that by the clock, for one that waits.
const STALLED: u64 = 20;
const MEMORY_KIB: usize = 4 << 20;

/// 128 and SIGXCPU.
const OVER_TIME: i32 = 152;

pub struct Test {
    pub name: String,
    time: Duration,
    reaches: BTreeSet<usize>,
}

/// What became of a mutant.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// It would be in a function that constants need.
    Constant,
    /// The compiler did not take it.
    Unviable,
    /// A test failed.
    Caught,
    /// A test went on for ever.
    Hung,
    Missed,
    /// No test comes there.
    NotReached,
}

pub struct Runner {
    /// Where the tests run.
    pub krate: PathBuf,
    pub binary: PathBuf,
}

impl Runner {
    /// All tests, without a mutant: how long each takes, and which mutants it reaches. The quickest first.
    pub fn measure(&self, scratch: &Path) -> Result<Vec<Test>, String> {
        let list = Command::new(&self.binary)
            .args(["--list", "--format", "terse"])
            .current_dir(&self.krate)
            .output()
            .map_err(|error| format!("the tests cannot be listed: {error}"))?;
        let list = String::from_utf8_lossy(&list.stdout);
        let names: Vec<&str> =
            list.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        std::fs::create_dir_all(scratch)
            .map_err(|error| format!("{}: {error}", scratch.display()))?;
        let measured = parallel(&names, |place, name| {
            self.measure_one(name, &scratch.join(place.to_string()))
        });
        let mut tests = measured.into_iter().collect::<Result<Vec<Test>, String>>()?;
        tests.sort_by_key(|test| test.time);
        Ok(tests)
    }

    fn measure_one(&self, name: &str, reach: &Path) -> Result<Test, String> {
        // A test that reaches nothing writes nothing.
        std::fs::write(reach, "").map_err(|error| format!("{}: {error}", reach.display()))?;
        #[expect(clippy::disallowed_methods, reason = "measures tests")]
        let start = Instant::now();
        let status = self.run(&[name], 600, ("MUTANT_REACH", &reach.display().to_string()))?;
        let time = start.elapsed();
        if !status.success() {
            return Err(format!("{name} fails without a mutant"));
        }
        let text = std::fs::read_to_string(reach)
            .map_err(|error| format!("{}: {error}", reach.display()))?;
        let reaches = text.lines().filter_map(|line| line.parse().ok()).collect();
        Ok(Test { name: name.to_owned(), time, reaches })
    }

    /// Judges the mutants with these numbers.
    pub fn judge(&self, mutants: &[usize], tests: &[Test]) -> Result<Vec<Outcome>, String> {
        let done = AtomicUsize::new(0);
        parallel(mutants, |_, &mutant| {
            let outcome = self.judge_one(mutant, tests);
            let done = done.fetch_add(1, Relaxed) + 1;
            if done.is_multiple_of(100) {
                eprintln!("{done} of {}", mutants.len());
            }
            outcome
        })
        .into_iter()
        .collect()
    }

    fn judge_one(&self, mutant: usize, tests: &[Test]) -> Result<Outcome, String> {
        let mut left: &[&Test] =
            &tests.iter().filter(|test| test.reaches.contains(&mutant)).collect::<Vec<_>>();
        if left.is_empty() {
            return Ok(Outcome::NotReached);
        }
        let mut limits = GROUPS.iter().copied().chain(std::iter::repeat(GROUPS[GROUPS.len() - 1]));
        while !left.is_empty() {
            let limit = limits.next().unwrap_or_default();
            let (group, rest) = left.split_at(group(left, limit));
            left = rest;
            let names: Vec<&str> = group.iter().map(|test| test.name.as_str()).collect();
            let usual: Duration = group.iter().map(|test| test.time).sum();
            let patience = PATIENCE.max(usual * 5).as_secs();
            let status = self.run(&names, patience, ("MUTANT", &mutant.to_string()))?;
            match status.code() {
                Some(0) => {}
                // `timeout` says which signal it was, or kills itself like what it ran.
                Some(OVER_TIME) | None => return Ok(Outcome::Hung),
                Some(_) => return Ok(Outcome::Caught),
            }
        }
        Ok(Outcome::Missed)
    }

    /// Some tests in one process, in no more memory and time than they may need.
    fn run(
        &self,
        names: &[&str],
        seconds: u64,
        (variable, value): (&str, &str),
    ) -> Result<ExitStatus, String> {
        let script = format!(
            "ulimit -v {MEMORY_KIB} -c 0 -St {seconds}; exec timeout -s KILL {} \"$0\" \"$@\"",
            seconds * STALLED
        );
        Command::new("bash")
            .args(["-c", &script])
            .arg(&self.binary)
            .args(["--exact", "--test-threads", "1"])
            .args(names)
            .env_remove("MUTANT")
            .env_remove("MUTANT_REACH")
            .env(variable, value)
            .env("RUST_BACKTRACE", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .current_dir(&self.krate)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|error| format!("the tests cannot be started: {error}"))
    }
}

/// How many of the tests make up the next process: at least one.
fn group(tests: &[&Test], limit: Duration) -> usize {
    let mut sum = Duration::ZERO;
    let fit = tests.iter().take_while(|test| {
        sum += test.time;
        sum <= limit
    });
    fit.count().max(1)
}

/// Does the work on `JOBS` threads; the results in the order of the items.
fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Relaxed);
                    let Some(item) = items.get(place) else { return };
                    let result = work(place, item);
                    results.lock().expect("no thread panics with it").push((place, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no thread panics with it");
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}
