//! Which key comes next: uniform, zipf or in order, from a seed.
//!
//! A key is a number here; [`write_key`] gives it the text `redis-benchmark` uses
//! (`key:000000000042`), so both tools touch the same keys. Zipf ranks are used as key numbers
//! without scrambling: the CRC16 hash slots already scatter neighbours over groups.

use std::str::FromStr;

/// Length of a key's text: `key:` and twelve digits.
pub(crate) const KEY_BYTES: usize = 16;
/// The largest number of keys: what twelve digits can name.
pub(crate) const KEYS_MAX: u64 = 1_000_000_000_000;

/// How keys are chosen, as written on the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Dist {
    /// Every key equally often.
    Uniform,
    /// Key `k` (from 1) with weight `1 / k^theta`; `0 < theta`.
    Zipf(f64),
    /// Zipf backwards from the newest key, with YCSB's skew: the one written last is the hottest.
    Latest,
    /// Every key once, in order, then from the start again.
    Sequential,
}

/// YCSB's customary skew.
pub(crate) const THETA: f64 = 0.99;

impl FromStr for Dist {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "sequential" => Ok(Self::Sequential),
            None if text == "latest" => Ok(Self::Latest),
            None if text == "zipf" => Ok(Self::Zipf(THETA)),
            Some(("zipf", theta)) => match theta.parse::<f64>() {
                Ok(theta) if theta > 0.0 && theta <= 10.0 => Ok(Self::Zipf(theta)),
                _ => Err(format!("zipf wants a theta above 0 and at most 10, not '{theta}'")),
            },
            _ => Err(format!("'{text}' is none of uniform, zipf, zipf:THETA, latest, sequential")),
        }
    }
}

/// An endless stream of key numbers. One per generator thread.
#[derive(Debug, Clone)]
pub(crate) enum Sampler {
    /// `Dist::Uniform`.
    Uniform,
    /// `Dist::Zipf`.
    Zipf(Zipf),
    /// `Dist::Latest`.
    Latest(Zipf),
    /// `Dist::Sequential`: this thread takes `next`, `next + stride`, … modulo `keys`.
    Sequential {
        /// Number of keys.
        keys: u64,
        /// The key to hand out next.
        next: u64,
        /// How many threads share the sequence.
        stride: u64,
    },
}

impl Sampler {
    /// A sampler for thread `thread` of `threads`.
    pub(crate) fn new(dist: Dist, keys: u64, thread: u64, threads: u64) -> Self {
        match dist {
            Dist::Uniform => Self::Uniform,
            Dist::Zipf(theta) => Self::Zipf(Zipf::new(keys, theta)),
            Dist::Latest => Self::Latest(Zipf::new(keys, THETA)),
            Dist::Sequential => Self::Sequential { keys, next: thread, stride: threads },
        }
    }

    /// The next key number, of the `there` keys that there are by now; in order, of those that there were at first.
    pub(crate) fn next(&mut self, rng: &mut fastrand::Rng, there: u64) -> u64 {
        match self {
            Self::Uniform => rng.u64(0..there),
            Self::Zipf(zipf) => zipf.over(there).sample(rng) - 1,
            Self::Latest(zipf) => there - zipf.over(there).sample(rng),
            Self::Sequential { keys, next, stride } => {
                let key = *next % *keys;
                *next += *stride;
                key
            }
        }
    }
}

/// Zipf by rejection-inversion (Hörmann and Derflinger 1996): constant memory and a constant
/// expected number of draws per sample, where a table of sums would need 8 bytes a key.
///
/// `h` is an integral of the weight `x^-theta`; a uniform draw between its values at the ends is
/// inverted and rounded, and the few draws where the smooth curve and the steps disagree are
/// thrown away.
#[derive(Debug, Clone)]
pub(crate) struct Zipf {
    keys: u64,
    theta: f64,
    h_first: f64,
    h_last: f64,
    /// Draws closer than this to their rank need no second look.
    sure_within: f64,
}

impl Zipf {
    fn new(keys: u64, theta: f64) -> Self {
        let mut zipf = Self { keys, theta, h_first: 0.0, h_last: 0.0, sure_within: 0.0 };
        zipf.h_first = zipf.h(1.5) - 1.0;
        zipf.h_last = zipf.h(keys as f64 + 0.5);
        zipf.sure_within = 2.0 - zipf.h_inverse(zipf.h(2.5) - zipf.weight(2.0));
        zipf
    }

    /// The same over another number of keys: only the end of the curve moves.
    fn over(&mut self, keys: u64) -> &Self {
        if self.keys != keys {
            self.keys = keys;
            self.h_last = self.h(keys as f64 + 0.5);
        }
        self
    }

    /// A rank in `1..=keys`; 1 is the hottest.
    fn sample(&self, rng: &mut fastrand::Rng) -> u64 {
        loop {
            let u = self.h_last + rng.f64() * (self.h_first - self.h_last);
            let x = self.h_inverse(u);
            let rank = (x + 0.5).clamp(1.0, self.keys as f64).floor();
            if rank - x <= self.sure_within || u >= self.h(rank + 0.5) - self.weight(rank) {
                return rank as u64;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    /// `(x^(1-theta) - 1) / (1 - theta)`, and `ln x` where theta is 1.
    fn h(&self, x: f64) -> f64 {
        let log_x = x.ln();
        expm1_over((1.0 - self.theta) * log_x) * log_x
    }

    fn h_inverse(&self, x: f64) -> f64 {
        // Rounding can push the argument just below -1, where the logarithm ends.
        let t = (x * (1.0 - self.theta)).max(-1.0);
        (ln1p_over(t) * x).exp()
    }
}

/// `(e^x - 1) / x`, smooth at 0.
fn expm1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x * 0.5 }
}

/// `ln(1 + x) / x`, smooth at 0.
fn ln1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x * 0.5 }
}

/// The text of key `key`, which must be below [`KEYS_MAX`].
pub(crate) fn write_key(mut key: u64) -> [u8; KEY_BYTES] {
    let mut text = *b"key:000000000000";
    for digit in text[4..].iter_mut().rev() {
        *digit = b'0' + (key % 10) as u8;
        key /= 10;
    }
    assert!(key == 0, "keys are bounded by KEYS_MAX");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares of the first keys among 200,000 draws.
    fn shares(dist: Dist, keys: u64) -> Vec<f64> {
        let (mut rng, mut sampler) = (fastrand::Rng::with_seed(7), Sampler::new(dist, keys, 0, 1));
        let mut counts = vec![0_u64; keys as usize];
        for _ in 0..200_000 {
            counts[sampler.next(&mut rng, keys) as usize] += 1;
        }
        counts.iter().map(|&count| count as f64 / 200_000.0).collect()
    }

    #[test]
    fn zipf_gives_each_rank_its_share() {
        for theta in [0.5, 0.99, 1.0, 1.5] {
            let keys = 1_000;
            let total: f64 = (1..=keys).map(|k| (k as f64).powf(-theta)).sum();
            let shares = shares(Dist::Zipf(theta), keys);
            for rank in [1, 2, 10] {
                let want = (rank as f64).powf(-theta) / total;
                let got = shares[rank - 1];
                assert!(
                    (got - want).abs() < 0.15 * want,
                    "theta {theta} rank {rank}: {got} {want}"
                );
            }
        }
    }

    #[test]
    fn latest_is_zipf_backwards_from_the_newest_key_and_follows_it() {
        let mut shares = shares(Dist::Latest, 1_000);
        shares.reverse();
        let zipf = self::shares(Dist::Zipf(THETA), 1_000);
        for rank in [0, 1, 9] {
            let (got, want) = (shares[rank], zipf[rank]);
            assert!((got - want).abs() < 0.15 * want, "rank {rank}: {got} {want}");
        }
        let mut rng = fastrand::Rng::with_seed(1);
        let mut grown = Sampler::new(Dist::Latest, 10, 0, 1);
        let drawn: Vec<u64> = (0..10_000).map(|_| grown.next(&mut rng, 1_000)).collect();
        assert!(drawn.iter().all(|key| *key < 1_000));
        let newest = drawn.iter().filter(|key| **key == 999).count() as f64 / 10_000.0;
        assert!((newest - zipf[0]).abs() < 0.15 * zipf[0], "{newest} {}", zipf[0]);
    }

    #[test]
    fn zipf_of_one_key_is_that_key() {
        assert_eq!(shares(Dist::Zipf(0.99), 1), [1.0]);
    }

    #[test]
    fn uniform_has_no_favourite() {
        for share in shares(Dist::Uniform, 100) {
            assert!((0.008..0.012).contains(&share), "{share}");
        }
    }

    #[test]
    fn sequential_threads_cover_every_key_once() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut seen = vec![0; 10];
        for thread in 0..2 {
            let mut sampler = Sampler::new(Dist::Sequential, 10, thread, 2);
            (0..5).for_each(|_| seen[sampler.next(&mut rng, 10) as usize] += 1);
        }
        assert_eq!(seen, [1; 10]);
    }

    #[test]
    fn a_seed_gives_the_same_keys_again() {
        let draw = || {
            let mut rng = fastrand::Rng::with_seed(42);
            let mut sampler = Sampler::new(Dist::Zipf(0.99), 100_000, 0, 1);
            (0..100).map(|_| sampler.next(&mut rng, 100_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }

    #[test]
    fn distributions_parse_or_say_why() {
        assert_eq!("zipf:1.2".parse(), Ok(Dist::Zipf(1.2)));
        assert_eq!("uniform".parse(), Ok(Dist::Uniform));
        assert!("zipf:-1".parse::<Dist>().unwrap_err().contains("theta"));
        assert!("normal".parse::<Dist>().unwrap_err().contains("uniform"));
    }

    #[test]
    fn keys_have_twelve_digits() {
        assert_eq!(&write_key(42), b"key:000000000042");
        assert_eq!(&write_key(KEYS_MAX - 1), b"key:999999999999");
    }
}
