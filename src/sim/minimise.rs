//! The smallest world that still fails in the same way.
//!
//! ```text
//!   a seed fails ─► shorter ─► whole kinds off ─► fewer clients, groups ─► first N faults ─► some of them
//!                     each step is kept if the world still fails in the same way, and undone if not
//! ```
//!
//! Nothing here reads the failure; it only runs the world again. A world that fails in another way is
//! not taken: it would lead away from what was found.

use std::fmt;

use super::options::Options;
use super::outcome::Failure;
use super::strikes::Strike;

/// What is left when nothing more can be taken away.
#[derive(Debug, Clone)]
pub struct Minimal {
    /// The seed.
    pub seed: u64,
    /// The world that is left.
    pub options: Options,
    /// What was there to begin with.
    original: Options,
    /// How it fails.
    pub what: String,
    /// The faults that strike in it.
    pub strikes: Vec<Strike>,
    /// How often the world was run.
    pub runs: u32,
}

/// Takes away from a world that failed whatever it does not need to fail. `attempt` runs a world and
/// returns how it failed; `None` if it did not, or if it is time to stop.
pub fn minimise(
    options: &Options,
    failure: &Failure,
    attempt: impl FnMut(&Options) -> Option<Failure>,
) -> Minimal {
    let mut search = Search {
        class: class(&failure.what).to_owned(),
        best: options.clone(),
        failure: failure.clone(),
        runs: 0,
        attempt,
    };
    search.shorten();
    search.turn_off();
    search.shrink();
    search.hold_back();
    search.turn_off();
    search.shorten();
    Minimal {
        seed: failure.seed,
        options: search.best,
        original: options.clone(),
        what: search.failure.what,
        strikes: search.failure.strikes,
        runs: search.runs,
    }
}

/// What kind of failure a text tells of: its first words.
fn class(what: &str) -> &str {
    what.split([':', '(']).next().unwrap_or(what)
}

struct Search<F> {
    class: String,
    /// The smallest world so far, and how it fails.
    best: Options,
    failure: Failure,
    runs: u32,
    attempt: F,
}

impl<F: FnMut(&Options) -> Option<Failure>> Search<F> {
    /// Keeps `change` if the world still fails in the same way.
    fn still_fails(&mut self, change: impl FnOnce(&mut Options)) -> bool {
        let mut options = self.best.clone();
        change(&mut options);
        if options == self.best {
            return false;
        }
        self.runs += 1;
        match (self.attempt)(&options) {
            Some(failure) if class(&failure.what) == self.class => {
                (self.best, self.failure) = (options, failure);
                true
            }
            _ => false,
        }
    }

    fn shorten(&mut self) {
        for (part, of) in [(1, 4), (1, 2), (3, 4), (9, 10)] {
            while self.best.chaos_ms > 10
                && self.still_fails(|it| it.chaos_ms = it.chaos_ms * part / of)
            {}
        }
    }

    fn turn_off(&mut self) {
        let families = ["net.", "disk.", "nodes."];
        let off = |prefix: &'static str| {
            move |options: &mut Options| {
                let knobs = super::knobs::ALL.iter().filter(|knob| knob.name.starts_with(prefix));
                knobs.for_each(|knob| (knob.turn_off)(options));
            }
        };
        for family in families {
            self.still_fails(off(family));
        }
        for name in self.best.knobs() {
            self.still_fails(off(name));
        }
    }

    fn shrink(&mut self) {
        for clients in 1..self.best.clients {
            if self.still_fails(|it| it.clients = clients) {
                break;
            }
        }
        let mut groups = 1;
        while groups < self.best.groups && !self.still_fails(|it| it.groups = groups) {
            groups *= 2;
        }
    }

    /// Only the first faults, then only some of them.
    fn hold_back(&mut self) {
        let numbers = |it: &Self| it.failure.strikes.iter().map(|it| it.number).collect::<Vec<_>>();
        let mut kept = numbers(self);
        let (mut few, mut enough) = (0, kept.len());
        while few < enough {
            let middle = usize::midpoint(few, enough);
            let first = kept[..middle].to_vec();
            if self.still_fails(|it| it.strikes = Some(first)) {
                enough = middle;
            } else {
                few = middle + 1;
            }
        }
        kept = numbers(self);
        let mut size = kept.len().div_ceil(2);
        while size > 0 && !kept.is_empty() {
            let mut at = 0;
            while at < kept.len() {
                let mut without = kept.clone();
                without.drain(at..(at + size).min(kept.len()));
                if self.still_fails(|it| it.strikes = Some(without.clone())) {
                    kept = without;
                } else {
                    at += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }
}

impl Minimal {
    /// What replays it, to be put behind `cargo tool sim`.
    #[must_use]
    pub fn arguments(&self) -> String {
        let Self { seed, options, original, .. } = self;
        let mut text = format!("--seed {seed}");
        if options.knobs() != original.knobs() {
            let knobs = options.knobs().join(",");
            text += &format!(" --only {}", if knobs.is_empty() { "nothing" } else { &knobs });
        }
        if options.chaos_ms != original.chaos_ms {
            text += &format!(" --chaos-ms {}", options.chaos_ms);
        }
        if options.clients != original.clients {
            text += &format!(" --clients {}", options.clients);
        }
        if options.groups != original.groups {
            text += &format!(" --groups {}", options.groups);
        }
        if let Some(strikes) = &options.strikes {
            let numbers: Vec<String> = strikes.iter().map(ToString::to_string).collect();
            let numbers = numbers.join(",");
            text += &format!(" --strikes {}", if numbers.is_empty() { "none" } else { &numbers });
        }
        text
    }
}

impl fmt::Display for Minimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, options, original, what, strikes, runs } = self;
        writeln!(f, "seed {seed}, minimised in {runs} runs: {what}")?;
        writeln!(
            f,
            "  {} nodes, {} groups (of {}), {} clients (of {}), faults for {} ms (of {})",
            options.cores.len(),
            options.groups,
            original.groups,
            options.clients,
            original.clients,
            options.chaos_ms,
            original.chaos_ms
        )?;
        writeln!(f, "  needs: {}", options.knobs().join(", "))?;
        for strike in strikes {
            writeln!(f, "  {strike}")?;
        }
        write!(f, "replay: cargo tool sim {} --trace", self.arguments())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::{self, Planted};
    use crate::sim::try_once;

    fn lying(seed: u64, options: &Options) -> Result<crate::sim::Outcome, Box<Failure>> {
        planted::with(Planted::AckBeforeFlush, || try_once(seed, options))
    }

    #[test]
    fn a_lying_disk_is_told_in_a_few_faults() {
        let (options, failure) = (0..60)
            .find_map(|seed| {
                let mut options = Options { chaos_ms: 2_000, ..Options::swarm(seed) };
                options.nodes.crash_every_ms = 100;
                options.disk.flush_us = 5_000;
                let failure = lying(seed, &options).err()?;
                (failure.strikes.len() > 5).then_some((options, failure))
            })
            .expect("some world notices");
        let mut budget = 400;
        let minimal = minimise(&options, &failure, |options| {
            budget -= 1;
            if budget < 0 { None } else { lying(failure.seed, options).err().map(|it| *it) }
        });
        assert_eq!(class(&minimal.what), class(&failure.what));
        assert!(minimal.strikes.len() < failure.strikes.len(), "{minimal}");
        assert!(minimal.options.knobs().len() < options.knobs().len(), "{minimal}");
        // What it prints is the whole truth: the world that is left fails, again and again.
        let again = lying(failure.seed, &minimal.options).expect_err("it fails");
        assert_eq!((&again.what, &again.strikes), (&minimal.what, &minimal.strikes));
        assert!(minimal.arguments().contains("--only"), "{minimal}");
    }
}
