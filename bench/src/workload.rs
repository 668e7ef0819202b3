//! What is asked: reads or writes, of which key, with how large a value.
//!
//! The same [`Spec`] and seed give the same operations to every target, whatever its protocol.

use crate::keys::{Dist, Sampler};
use std::str::FromStr;

/// The workload, as the command line describes it.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Number of distinct keys.
    pub(crate) keys: u64,
    /// How they are chosen.
    pub(crate) dist: Dist,
    /// How large a written value is.
    pub(crate) value: Sizes,
    /// Fresh random bytes in every value. Otherwise a constant, which a compressing server
    /// shrinks to nothing.
    pub(crate) random_values: bool,
    /// Share of reads, `0.0..=1.0`.
    pub(crate) read_share: f64,
}

/// Sizes in bytes, each of `min..=max` equally often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Smallest size.
    pub(crate) min: usize,
    /// Largest size.
    pub(crate) max: usize,
}

/// Redis's own bound on a value.
const VALUE_BYTES_MAX: usize = 512 << 20;

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |part: &str| {
            part.trim().parse::<usize>().map_err(|_| format!("'{part}' is not a number of bytes"))
        };
        let (min, max) = match text.split_once('-') {
            Some((min, max)) => (parse(min)?, parse(max)?),
            None => (parse(text)?, parse(text)?),
        };
        if max < min {
            return Err(format!("the range {min}-{max} is empty; write the smaller size first"));
        }
        if max > VALUE_BYTES_MAX {
            return Err(format!("a value has at most {VALUE_BYTES_MAX} bytes"));
        }
        Ok(Self { min, max })
    }
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}-{}", self.min, self.max)
        }
    }
}

/// Whether an operation reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// GET, or a linearizable Range of one key.
    Read,
    /// SET, or Put.
    Write,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    /// Read or write.
    pub(crate) kind: Kind,
    /// The key's number.
    pub(crate) key: u64,
    /// Size of the value written; 0 for a read.
    pub(crate) value_bytes: usize,
}

/// The operations of one generator thread, in order, without end.
#[derive(Debug)]
pub(crate) struct Stream {
    spec: Spec,
    sampler: Sampler,
    rng: fastrand::Rng,
}

impl Stream {
    /// The stream of thread `thread` of `threads` in run `run`. Each differs; each is repeatable.
    pub(crate) fn new(spec: &Spec, seed: u64, run: u64, thread: u64, threads: u64) -> Self {
        // Two draws apart, neighbouring seeds, runs and threads share nothing.
        let mut mixer = fastrand::Rng::with_seed(seed);
        let mixed = mixer.u64(..) ^ (run << 32 | thread);
        Self {
            spec: spec.clone(),
            sampler: Sampler::new(spec.dist, spec.keys, thread, threads),
            rng: fastrand::Rng::with_seed(fastrand::Rng::with_seed(mixed).u64(..)),
        }
    }

    /// The next operation.
    pub(crate) fn next_op(&mut self) -> Op {
        let share = self.spec.read_share;
        // Pure workloads spend no draw on the question.
        let reads = share >= 1.0 || (share > 0.0 && self.rng.f64() < share);
        let key = self.sampler.next(&mut self.rng);
        if reads {
            return Op { kind: Kind::Read, key, value_bytes: 0 };
        }
        let Sizes { min, max } = self.spec.value;
        let value_bytes = if min == max { min } else { self.rng.usize(min..=max) };
        Op { kind: Kind::Write, key, value_bytes }
    }

    /// Appends a value of `bytes` bytes to `out`.
    pub(crate) fn push_value(&mut self, out: &mut Vec<u8>, bytes: usize) {
        let start = out.len();
        out.resize(start + bytes, b'x');
        if self.spec.random_values {
            self.rng.fill(&mut out[start..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(read_share: f64, value: &str) -> Spec {
        Spec {
            keys: 100,
            dist: Dist::Uniform,
            value: value.parse().unwrap(),
            random_values: true,
            read_share,
        }
    }

    #[test]
    fn sizes_parse_or_say_why() {
        assert_eq!("256".parse(), Ok(Sizes { min: 256, max: 256 }));
        assert_eq!("16-4096".parse(), Ok(Sizes { min: 16, max: 4096 }));
        assert!("9-3".parse::<Sizes>().unwrap_err().contains("empty"));
        assert!("1k".parse::<Sizes>().unwrap_err().contains("1k"));
    }

    #[test]
    fn the_read_share_and_the_sizes_hold() {
        let mut stream = Stream::new(&spec(0.25, "16-64"), 1, 0, 0, 1);
        let ops: Vec<Op> = (0..20_000).map(|_| stream.next_op()).collect();
        let reads = ops.iter().filter(|op| op.kind == Kind::Read).count();
        assert!((4_600..5_400).contains(&reads), "{reads}");
        let writes = || ops.iter().filter(|op| op.kind == Kind::Write);
        assert!(writes().all(|op| (16..=64).contains(&op.value_bytes)));
        assert!(writes().any(|op| op.value_bytes == 16) && writes().any(|op| op.value_bytes == 64));
    }

    #[test]
    fn threads_and_runs_differ_and_repeat() {
        let first = |run, thread| {
            let mut stream = Stream::new(&spec(0.0, "32"), 9, run, thread, 2);
            let mut value = Vec::new();
            stream.push_value(&mut value, 32);
            value
        };
        assert_eq!(first(0, 0), first(0, 0));
        assert_ne!(first(0, 0), first(0, 1));
        assert_ne!(first(0, 0), first(1, 0));
    }
}
