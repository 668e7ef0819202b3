//! The table of a run, and the Markdown file that keeps it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::latency::{Kind, Sample, Stretch, ms};
use super::steps::Step;

/// A step that was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) step: Step,
    /// When it began and ended, since the start of the clients.
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// The quiet time measured before and after it.
    pub(super) calm: Duration,
}

impl Taken {
    fn stretch(&self, samples: &[Sample], kind: Kind, when: When) -> Stretch {
        let (from, to) = match when {
            When::Before => (self.from.saturating_sub(self.calm), self.from),
            When::During => (self.from, self.to),
            When::After => (self.to, self.to + self.calm),
        };
        Stretch::of(samples, kind, from, to)
    }

    /// Of all requests due from the calm before to the calm after.
    fn around<'s>(&self, samples: &'s [Sample]) -> impl Iterator<Item = &'s Sample> {
        let (from, to) = (self.from.saturating_sub(self.calm), self.to + self.calm);
        samples.iter().filter(move |sample| (from..to).contains(&sample.due))
    }

    /// One line while the run goes on.
    pub(super) fn line(&self, samples: &[Sample]) -> String {
        let told = |kind| {
            [When::Before, When::During, When::After]
                .map(|when| self.stretch(samples, kind, when).to_string())
                .join(" | ")
        };
        format!(
            "  {:.1} s; p50 / p99 / max in ms before | during | after: writes {}; reads {}; longest {} ms",
            self.took().as_secs_f64(),
            told(Kind::Write),
            told(Kind::Read),
            ms(longest(self.around(samples))),
        )
    }

    fn took(&self) -> Duration {
        self.to - self.from
    }
}

#[derive(Debug, Clone, Copy)]
enum When {
    Before,
    During,
    After,
}

/// The longest request, from its first attempt until it was executed.
pub(super) fn longest<'s>(samples: impl Iterator<Item = &'s Sample>) -> Duration {
    samples.map(|sample| sample.own).max().unwrap_or_default()
}

/// All steps, as Markdown.
pub(super) fn table(taken: &[Taken], samples: &[Sample], transfers: u32) -> String {
    let mut text = String::from(
        "| step | took, s | requests | p50 / p99 / max, ms: before | during | after | longest request, ms | tried again: refused | unknown |\n\
         |---|--:|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for step in taken {
        let all: Vec<&Sample> = step.around(samples).collect();
        let title = step.step.title();
        let title = match step.step {
            Step::Transfer => format!("{title} {transfers} times"),
            _ => title.to_owned(),
        };
        for (kind, name) in [(Kind::Write, "writes"), (Kind::Read, "reads")] {
            let of_kind = || all.iter().copied().filter(|sample| sample.kind == kind);
            let cell = |when| step.stretch(samples, kind, when);
            let (title, took) = match kind {
                Kind::Write => (
                    format!("{}. {title}", step.step.number()),
                    format!("{:.1}", step.took().as_secs_f64()),
                ),
                _ => Default::default(),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "| {title} | {took} | {} {name} | {} | {} | {} | {} | {} | {} |",
                of_kind().count(),
                cell(When::Before),
                cell(When::During),
                cell(When::After),
                ms(longest(of_kind())),
                of_kind().map(|sample| u64::from(sample.refused)).sum::<u64>(),
                of_kind().map(|sample| u64::from(sample.unknown)).sum::<u64>(),
            );
        }
    }
    text
}

/// What a record says besides its table.
pub(super) struct About<'r> {
    pub(super) command: &'r str,
    pub(super) seed: u64,
    pub(super) load: String,
    pub(super) verdict: &'r str,
    pub(super) story: &'r [String],
    pub(super) load_average: (String, String),
}

/// Writes the record.
pub(super) fn write(file: &Path, about: &About<'_>, table: &str) -> std::io::Result<()> {
    let story: Vec<String> = about.story.iter().map(|line| format!("{line}\n")).collect();
    let text = format!(
        "# The life of a cluster under load, {date}\n\n\
         One run: a cluster of three nodes serves clients without a pause while an operator walks it\n\
         through everything. What each step does: `tools/src/live/steps.rs`; what a request is, and what it\n\
         takes: `tools/src/live/latency.rs`.\n\n\
         | | |\n|---|---|\n\
         | commit | {commit} |\n| machine | {machine} |\n| kernel | {kernel} |\n\
         | beside it | load average {} before the run, {} after it; clients and nodes share the machine |\n\
         | load | {} |\n| seed | {} |\n| command | `{}` |\n\n\
         A request ends when it was executed: attempts that were refused or of unknown outcome are part of\n\
         it. Percentiles count from the moment it was due, as if clients never waited for one another; the\n\
         longest request counts from its first attempt. Before and after are the seconds around the step.\n\n\
         {table}\n{}\n\nWhat was typed and seen:\n\n```text\n{}```\n",
        about.load_average.0,
        about.load_average.1,
        about.load,
        about.seed,
        about.command,
        about.verdict,
        story.concat(),
        date = said("date", &["+%Y-%m-%d"]),
        commit = commit(),
        machine = machine(),
        kernel = said("uname", &["-sr"]),
    );
    fs::write(file, text)
}

fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn commit() -> String {
    let changed = said("git", &["status", "--porcelain", "--untracked-files=no"]);
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    if changed.is_empty() { commit } else { format!("{commit}, with local changes") }
}

fn machine() -> String {
    let read = |file, field: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(field));
        line.and_then(|line| line.split_once(':'))
            .map_or_else(String::new, |(_, v)| v.trim().into())
    };
    let memory = read("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>();
    format!(
        "{} × {}, {:.1} GiB",
        said("nproc", &[]),
        read("/proc/cpuinfo", "model name"),
        memory.unwrap_or(0) as f64 / f64::from(1 << 20)
    )
}

/// The three numbers of /proc/loadavg.
pub(super) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_writes_and_one_for_reads() {
        let second = Duration::from_secs(1);
        let taken = Taken { step: Step::Transfer, from: second, to: second * 2, calm: second };
        let sample = |kind, due_ms, took_ms, refused| Sample {
            kind,
            due: Duration::from_millis(due_ms),
            took: Duration::from_millis(took_ms),
            own: Duration::from_millis(took_ms),
            answer: Duration::from_millis(took_ms),
            refused,
            unknown: 0,
            executed: true,
        };
        let samples = [
            sample(Kind::Write, 500, 10, 0),
            sample(Kind::Write, 1_500, 40, 3),
            sample(Kind::Read, 2_500, 20, 0),
            sample(Kind::Write, 3_500, 999, 9),
        ];
        let text = table(&[taken], &samples, 100);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| 5. transfer leadership 100 times | 1.0 | 2 writes | 10 / 10 / 10 | 40 / 40 / 40 | – | 40 | 3 | 0 |",
                "|  |  | 1 reads | – | – | 20 / 20 / 20 | 20 | 0 | 0 |",
            ]
        );
    }
}
