//! What requests took, and which of them belong to a moment.

use std::fmt;
use std::time::Duration;

/// One request, until it was executed: the attempts that were refused or whose outcome is unknown
/// are part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) kind: Kind,
    /// Since the start of the clients.
    pub(super) due: Duration,
    /// From then on: with the wait for a client that was held up by its last request. So a node that
    /// stands still is late for everybody who would have come. Percentiles are of this.
    pub(super) took: Duration,
    /// From the first attempt on. The limit is for this.
    pub(super) own: Duration,
    /// The longest wait for one answer.
    pub(super) answer: Duration,
    /// Attempts that were refused, or found no node.
    pub(super) refused: u32,
    /// Attempts of unknown outcome.
    pub(super) unknown: u32,
    /// False: given up.
    pub(super) executed: bool,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    /// A large write that makes the log long; held to the limit, but in no percentile.
    Filling,
}

/// Requests that were due in one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) count: usize,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

impl Stretch {
    /// Of one kind of request, due from `from` until `to`.
    pub(super) fn of(samples: &[Sample], kind: Kind, from: Duration, to: Duration) -> Self {
        let due = |sample: &&Sample| sample.kind == kind && (from..to).contains(&sample.due);
        let mut took: Vec<Duration> =
            samples.iter().filter(due).map(|sample| sample.took).collect();
        took.sort_unstable();
        // The smallest that so many percent do not exceed.
        let at = |percent: usize| {
            let rank = (took.len() * percent).div_ceil(100);
            took.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { count: took.len(), p50: at(50), p99: at(99), max: at(100) }
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("–");
        }
        write!(f, "{} / {} / {}", ms(self.p50), ms(self.p99), ms(self.max))
    }
}

/// Milliseconds, with as many decimals as matter.
pub(super) fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1_000.0;
    if ms < 10.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: Kind, due_ms: u64, took_ms: u64) -> Sample {
        Sample {
            kind,
            due: Duration::from_millis(due_ms),
            took: Duration::from_millis(took_ms),
            own: Duration::from_millis(took_ms),
            answer: Duration::from_millis(took_ms),
            refused: 0,
            unknown: 0,
            executed: true,
        }
    }

    #[test]
    fn a_request_belongs_to_the_moment_it_was_due_and_to_its_kind() {
        let mut samples: Vec<Sample> = (0..200).map(|n| sample(Kind::Write, n, n % 100)).collect();
        samples.push(sample(Kind::Read, 50, 9_000));
        samples.push(sample(Kind::Write, 200, 9_000));
        let end = Duration::from_millis(200);
        let writes = Stretch::of(&samples, Kind::Write, Duration::ZERO, end);
        let expected = |ms| Duration::from_millis(ms);
        assert_eq!(writes.count, 200);
        assert_eq!(
            (writes.p50, writes.p99, writes.max),
            (expected(49), expected(98), expected(99))
        );
        assert_eq!(writes.to_string(), "49 / 98 / 99");
        let reads = Stretch::of(&samples, Kind::Read, Duration::ZERO, end);
        assert_eq!((reads.count, reads.p50, reads.max), (1, expected(9_000), expected(9_000)));
        assert_eq!(Stretch::of(&samples, Kind::Read, end, end * 2).to_string(), "–");
    }
}
