//! What is asked: reads or writes, of which key, with how large a value.
//!
//! The same [`Spec`] and seed give the same operations to every target, whatever its protocol. With inserts the choice of
//! keys is the same, but by a number of keys that grows as fast as the target answers.

use crate::inserts::Inserts;
use crate::keys::{Dist, Sampler};
use std::str::FromStr;
use std::sync::Arc;

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
    /// How often which operation is asked for.
    pub(crate) mix: Mix,
}

/// Shares of operations; their sum is 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mix {
    /// Reads of one key.
    pub(crate) reads: f64,
    /// Writes of a key that is there.
    pub(crate) updates: f64,
    /// Writes of a new key, the next after the newest.
    pub(crate) inserts: f64,
    /// Reads of several keys at once.
    pub(crate) scans: f64,
    /// A read, and when it is answered a write of the same key: one operation.
    pub(crate) read_modify_writes: f64,
    /// Most keys of a scan; at least 1.
    pub(crate) scan_keys_max: u64,
}

impl Mix {
    /// Reads and updates alone.
    pub(crate) fn of_reads(share: f64) -> Self {
        Self {
            reads: share,
            updates: 1.0 - share,
            inserts: 0.0,
            scans: 0.0,
            read_modify_writes: 0.0,
            scan_keys_max: 1,
        }
    }

    /// The share of operations that count as `kind`.
    pub(crate) fn share(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Read => self.reads,
            Kind::Write => self.updates + self.inserts,
            Kind::Scan => self.scans,
            Kind::ReadModifyWrite => self.read_modify_writes,
        }
    }

    /// More than one kind of operation occurs.
    pub(crate) fn is_mixed(&self) -> bool {
        Kind::ALL.iter().filter(|kind| 0.0 < self.share(**kind)).count() > 1
    }
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
pub(crate) const VALUE_BYTES_MAX: usize = 512 << 20;

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

/// What an operation is. Each kind has latencies of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// GET, or a linearizable Range of one key.
    Read,
    /// SET, or Put.
    Write,
    /// MGET of neighbouring keys, or a linearizable Range over them.
    Scan,
    /// GET, and once it is answered SET of the same key.
    ReadModifyWrite,
}

impl Kind {
    /// All of them, in the order of reports.
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Scan, Self::ReadModifyWrite];

    /// For a legend or a heading: several of them.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Write => "writes",
            Self::Scan => "scans",
            Self::ReadModifyWrite => "read-modify-writes",
        }
    }

    /// Whether a write is part of it.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadModifyWrite)
    }
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    /// Read, write and so on.
    pub(crate) kind: Kind,
    /// The key's number; of a scan, that of the first.
    pub(crate) key: u64,
    /// Number of keys: 1, but of a scan.
    pub(crate) keys: u64,
    /// A write of a key that is not there yet.
    pub(crate) fresh: bool,
    /// Size of the value written; 0 if there is none.
    pub(crate) value_bytes: usize,
}

/// The operations of one generator thread, in order, without end.
#[derive(Debug)]
pub(crate) struct Stream {
    spec: Spec,
    sampler: Sampler,
    inserts: Arc<Inserts>,
    rng: fastrand::Rng,
    /// Random values have a generator of their own: a value that is written late, when its read has been answered, changes
    /// no operation after it.
    values: fastrand::Rng,
}

impl Stream {
    /// The stream of thread `thread` of `threads` in run `run`. Each differs; each is repeatable.
    pub(crate) fn new(
        spec: &Spec,
        inserts: Arc<Inserts>,
        (seed, run): (u64, u64),
        (thread, threads): (u64, u64),
    ) -> Self {
        // Two draws apart, neighbouring seeds, runs and threads share nothing.
        let mut mixer = fastrand::Rng::with_seed(seed);
        let mixed = mixer.u64(..) ^ (run << 32 | thread);
        let mut seeds = fastrand::Rng::with_seed(mixed);
        Self {
            spec: spec.clone(),
            sampler: Sampler::new(spec.dist, spec.keys, thread, threads),
            inserts,
            rng: fastrand::Rng::with_seed(seeds.u64(..)),
            values: fastrand::Rng::with_seed(seeds.u64(..)),
        }
    }

    /// The next operation. An insert takes its key, and [`Stream::settle`] has to follow.
    pub(crate) fn next_op(&mut self) -> Op {
        let (kind, fresh) = self.next_kind();
        let there = self.inserts.there();
        let key = match fresh {
            true => self.inserts.take(),
            false => self.sampler.next(&mut self.rng, there),
        };
        let op = Op { kind, key, keys: 1, fresh, value_bytes: 0 };
        match kind {
            Kind::Read => op,
            // No further than the last key: beyond it there is nothing to read.
            Kind::Scan => {
                let keys = self.rng.u64(1..=self.spec.mix.scan_keys_max).min(there - key);
                Op { keys, ..op }
            }
            Kind::Write | Kind::ReadModifyWrite => {
                let Sizes { min, max } = self.spec.value;
                let value_bytes = if min == max { min } else { self.rng.usize(min..=max) };
                Op { value_bytes, ..op }
            }
        }
    }

    /// What the next operation is, and whether of a new key.
    pub(crate) fn next_kind(&mut self) -> (Kind, bool) {
        let Mix { reads, updates, inserts, scans, .. } = self.spec.mix;
        // Pure workloads spend no draw on the question.
        if reads >= 1.0 {
            return (Kind::Read, false);
        }
        if updates >= 1.0 {
            return (Kind::Write, false);
        }
        let mut drawn = self.rng.f64();
        let all = [
            (reads, (Kind::Read, false)),
            (updates, (Kind::Write, false)),
            (inserts, (Kind::Write, true)),
            (scans, (Kind::Scan, false)),
        ];
        for (share, what) in all {
            if drawn < share {
                return what;
            }
            drawn -= share;
        }
        self.rest()
    }

    /// What is left when no other share was drawn; not by a rounding error something that never occurs.
    fn rest(&self) -> (Kind, bool) {
        let Mix { updates, inserts, scans, read_modify_writes, .. } = self.spec.mix;
        match () {
            () if 0.0 < read_modify_writes => (Kind::ReadModifyWrite, false),
            () if 0.0 < scans => (Kind::Scan, false),
            () if 0.0 < inserts => (Kind::Write, true),
            () if 0.0 < updates => (Kind::Write, false),
            () => (Kind::Read, false),
        }
    }

    /// The insert of `key` is over, whatever came of it: it is one of the keys to read from now on.
    pub(crate) fn settle(&self, key: u64) {
        self.inserts.settle(key);
    }

    /// Appends a value of `bytes` bytes to `out`.
    pub(crate) fn push_value(&mut self, out: &mut Vec<u8>, bytes: usize) {
        let start = out.len();
        out.resize(start + bytes, b'x');
        if self.spec.random_values {
            self.values.fill(&mut out[start..]);
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
            mix: Mix::of_reads(read_share),
        }
    }

    fn stream(spec: &Spec, seed: (u64, u64), thread: (u64, u64)) -> Stream {
        Stream::new(spec, Arc::new(Inserts::after(spec.keys)), seed, thread)
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
        let mut stream = stream(&spec(0.25, "16-64"), (1, 0), (0, 1));
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
            let mut stream = stream(&spec(0.0, "32"), (9, run), (thread, 2));
            let mut value = Vec::new();
            stream.push_value(&mut value, 32);
            value
        };
        assert_eq!(first(0, 0), first(0, 0));
        assert_ne!(first(0, 0), first(0, 1));
        assert_ne!(first(0, 0), first(1, 0));
    }

    fn ycsb(mix: Mix, dist: Dist) -> Spec {
        Spec { mix, dist, random_values: false, ..spec(0.0, "10") }
    }

    #[test]
    fn inserts_of_all_threads_are_the_next_keys_and_are_read_most_when_they_are_there() {
        let mix = Mix { inserts: 0.25, updates: 0.0, ..Mix::of_reads(0.75) };
        let spec = ycsb(mix, Dist::Latest);
        let inserts = Arc::new(Inserts::after(spec.keys));
        let mut threads: Vec<Stream> = (0..2)
            .map(|thread| Stream::new(&spec, Arc::clone(&inserts), (1, 0), (thread, 2)))
            .collect();
        let (mut fresh, mut newest, mut reads) = (Vec::new(), 0, 0);
        for turn in 0..20_000 {
            let stream = &mut threads[turn % 2];
            let op = stream.next_op();
            assert_eq!(op.fresh, op.kind == Kind::Write, "all its writes are inserts: {op:?}");
            if op.fresh {
                fresh.push(op.key);
                stream.settle(op.key);
            } else {
                assert!(op.key < inserts.there(), "only what is there is read: {op:?}");
                (newest, reads) = (newest + u32::from(op.key + 1 == inserts.there()), reads + 1);
            }
        }
        assert!((4_600..5_400).contains(&fresh.len()), "{}", fresh.len());
        assert!(fresh.iter().copied().eq(100..100 + fresh.len() as u64), "n, n + 1, …");
        // Zipf of 100 to 5,100 keys: the first rank has an eighth to a fifth.
        assert!((0.10..0.22).contains(&(f64::from(newest) / f64::from(reads))), "{newest} {reads}");
    }

    #[test]
    fn scans_are_of_neighbours_that_are_there_and_of_every_length() {
        let mix = Mix { scans: 0.95, inserts: 0.05, updates: 0.0, ..Mix::of_reads(0.0) };
        let spec = Spec { keys: 10_000, ..ycsb(Mix { scan_keys_max: 100, ..mix }, Dist::Uniform) };
        let mut stream = stream(&spec, (1, 0), (0, 1));
        let ops: Vec<Op> = (0..20_000).map(|_| stream.next_op()).collect();
        let scans: Vec<&Op> = ops.iter().filter(|op| op.kind == Kind::Scan).collect();
        assert!((18_800..19_200).contains(&scans.len()), "{}", scans.len());
        assert!(scans.iter().all(|op| 1 <= op.keys && op.key + op.keys <= 10_000));
        let mean = scans.iter().map(|op| op.keys).sum::<u64>() as f64 / scans.len() as f64;
        assert!((49.0..52.0).contains(&mean), "uniform from 1 to 100: {mean}");
        assert!(scans.iter().any(|op| op.keys == 1) && scans.iter().any(|op| op.keys == 100));
    }

    #[test]
    fn values_that_are_written_late_change_no_operation() {
        let mix = Mix { read_modify_writes: 0.5, updates: 0.0, ..Mix::of_reads(0.5) };
        let spec = Spec { random_values: true, ..ycsb(mix, Dist::Uniform) };
        let ops = |late: bool| {
            let mut stream = stream(&spec, (1, 0), (0, 1));
            let draw = |_| {
                let op = stream.next_op();
                if late {
                    stream.push_value(&mut Vec::new(), op.value_bytes);
                }
                (op.kind, op.key)
            };
            (0..1_000).map(draw).collect::<Vec<_>>()
        };
        let (with, without) = (ops(true), ops(false));
        assert_eq!(with, without);
        let both = with.iter().filter(|(kind, _)| *kind == Kind::ReadModifyWrite).count();
        assert!((440..560).contains(&both), "{both}");
    }
}
