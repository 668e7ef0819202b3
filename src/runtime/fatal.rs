//! Why a node stops itself: one line on stderr, and a non-zero exit.

use std::fmt;

/// Names the cause, the file or address it concerns, and where there is one, the remedy. The
/// caller's next move is to stop: nothing that returns it may be retried in the same process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal(String);

impl Fatal {
    /// A cause, in one line.
    #[must_use]
    pub fn new(cause: impl Into<String>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fatal {}
