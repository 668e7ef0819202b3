//! What happened, as one number: two runs of one seed must end with the same.

use std::collections::VecDeque;
use std::fmt;

/// Lines kept for the story of a failure.
pub const LINES_MAX: usize = 400;

/// A rolling hash over every event and effect, and, when asked for, the last lines of the story.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    /// `None` when nobody will read it: formatting costs more than everything else together.
    lines: Option<VecDeque<String>>,
    print: bool,
}

impl Trace {
    /// A trace that keeps its last lines if `keep`, and also prints each if `print`.
    #[must_use]
    pub fn new(keep: bool, print: bool) -> Self {
        Self { hash: 0x6f75_7472_6967_6765, lines: (keep || print).then(VecDeque::new), print }
    }

    /// Mixes the time (in virtual microseconds) and numbers in; `line` tells the same to a reader.
    pub fn note(&mut self, now: u64, words: &[u64], line: impl FnOnce() -> String) {
        self.hash = mix(self.hash ^ now);
        for &word in words {
            self.hash = mix(self.hash ^ word);
        }
        if let Some(lines) = &mut self.lines {
            let line = format!("{:>6}.{:03} {}", now / 1_000, now % 1_000, line());
            if self.print {
                println!("{line}");
            }
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.iter().flatten().cloned().collect()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.hash)
    }
}

/// splitmix64's finalizer: every input bit reaches every output bit.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_matters() {
        let hash = |words: &[u64]| {
            let mut trace = Trace::new(false, false);
            trace.note(0, words, || unreachable!("nobody reads"));
            trace.hash()
        };
        assert_eq!(hash(&[1, 2]), hash(&[1, 2]));
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
        assert_ne!(hash(&[0]), hash(&[0, 0]));
    }
}
