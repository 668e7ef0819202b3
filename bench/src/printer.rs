//! Lines for people: to standard output, unless the JSON has it.

use crate::run::Outcome;
use std::io::Write;

/// Where the text goes.
#[derive(Debug)]
pub(crate) struct Printer {
    /// Standard output has the JSON.
    pub(crate) to_stderr: bool,
}

impl Printer {
    /// Prints one line, or several.
    pub(crate) fn line(&self, text: &str) {
        // A closed pipe is no reason to lose the files still to be written.
        let _ = if self.to_stderr {
            writeln!(std::io::stderr(), "{text}")
        } else {
            writeln!(std::io::stdout(), "{text}")
        };
    }
}

/// Says which errors a run had, on standard error.
pub(crate) fn errors(outcome: &Outcome) {
    for (token, count) in &outcome.record.errors {
        eprintln!("           {count} × {token}");
    }
    for text in &outcome.record.error_texts {
        eprintln!("           e.g. {text}");
    }
    if let Some(problem) = &outcome.usage_problem {
        eprintln!("           server figures are missing: {problem}");
    }
}
