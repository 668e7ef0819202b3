//! Bytes per second, counted by the ticks that are passed in.

use crate::id::Tick;

/// How much may be saved up for a burst, as a share of a second.
const BURST_PER_S: u64 = 10;

/// A bucket that fills at a steady rate. What leaves may overdraw it once, and then waits until the debt
/// is paid: a piece larger than the bucket passes, and the rate holds all the same.
#[derive(Debug)]
pub(in crate::shard) struct Bucket {
    bytes_per_s: u64,
    /// Bytes that may leave now; below zero while a debt is paid.
    level: i64,
    /// What a millisecond adds is not a whole number of bytes: the rest, in thousandths.
    rest: u64,
    filled_at: Tick,
}

impl Bucket {
    /// A full bucket; `bytes_per_s` is at least 1.
    pub(in crate::shard) fn new(bytes_per_s: u64, now: Tick) -> Self {
        let bytes_per_s = bytes_per_s.max(1);
        let level = i64::try_from(bytes_per_s / BURST_PER_S).unwrap_or(i64::MAX);
        Self { bytes_per_s, level, rest: 0, filled_at: now }
    }

    fn burst(&self) -> i64 {
        i64::try_from(self.bytes_per_s / BURST_PER_S).unwrap_or(i64::MAX)
    }

    /// Time has passed.
    pub(in crate::shard) fn fill(&mut self, now: Tick) {
        let thousandths = u128::from(now.since(self.filled_at)) * u128::from(self.bytes_per_s)
            + u128::from(self.rest);
        self.filled_at = self.filled_at.max(now);
        self.rest = (thousandths % 1000) as u64;
        let bytes = i64::try_from(thousandths / 1000).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(bytes).min(self.burst());
    }

    /// Whether something may leave now.
    pub(in crate::shard) fn is_open(&self) -> bool {
        0 <= self.level
    }

    /// These bytes leave.
    pub(in crate::shard) fn take(&mut self, bytes: usize) {
        debug_assert!(self.is_open(), "the caller asks first");
        self.level = self.level.saturating_sub_unsigned(bytes as u64);
    }

    /// When something may leave next, as of the last [`Self::fill`].
    pub(in crate::shard) fn open_at(&self) -> Tick {
        let debt = u64::try_from(-self.level).unwrap_or(0);
        let wait = (u128::from(debt) * 1000).div_ceil(u128::from(self.bytes_per_s));
        self.filled_at.plus(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes pieces whenever the bucket is open and returns the bytes of ten seconds.
    fn sent(bytes_per_s: u64, piece: usize, step_ms: u64) -> u64 {
        let mut bucket = Bucket::new(bytes_per_s, Tick(0));
        let mut sent = 0;
        for now in (0..10_000).step_by(step_ms as usize).map(Tick) {
            bucket.fill(now);
            while bucket.is_open() {
                bucket.take(piece);
                sent += piece as u64;
            }
            assert!(now < bucket.open_at(), "it would be asked for ever");
        }
        sent
    }

    #[test]
    fn the_rate_holds_whatever_the_pieces_and_the_ticks() {
        for (bytes_per_s, piece) in [(1 << 20, 256 << 10), (64 << 20, 256 << 10), (7, 3)] {
            for step_ms in [1, 5, 100] {
                let (sent, due) = (sent(bytes_per_s, piece, step_ms), 10 * bytes_per_s);
                let slack = bytes_per_s / BURST_PER_S + piece as u64;
                assert!(sent <= due + slack, "{bytes_per_s} {piece} {step_ms}: {sent}");
                assert!(due <= sent + slack, "{bytes_per_s} {piece} {step_ms}: {sent}");
            }
        }
    }

    #[test]
    fn it_opens_when_it_says() {
        let mut bucket = Bucket::new(1000, Tick(50));
        bucket.take(600);
        assert!(!bucket.is_open());
        assert_eq!(bucket.open_at(), Tick(550));
        bucket.fill(Tick(549));
        assert!(!bucket.is_open());
        bucket.fill(Tick(550));
        assert!(bucket.is_open());
    }
}
