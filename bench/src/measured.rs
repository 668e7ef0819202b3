//! What the program has measured when it ends: of every target its runs, and of a sweep its rates.

use crate::args::Plan;
use crate::knee::{Knee, Verdict};
use crate::report::Figures;
use crate::run::Outcome;
use hdrhistogram::Histogram;

/// The runs of one target under one plan.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The plan of these runs; its name is the target's.
    pub(crate) plan: Plan,
    /// Every run; of the same number the same operations were sent to every target.
    pub(crate) outcomes: Vec<Outcome>,
    /// The figures of each.
    pub(crate) figures: Vec<Figures>,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, outcomes: Vec::new(), figures: Vec::new() }
    }

    /// Adds a run.
    pub(crate) fn push(&mut self, outcome: Outcome, figures: Figures) {
        self.outcomes.push(outcome);
        self.figures.push(figures);
    }

    /// The median of all runs.
    pub(crate) fn median(&self) -> Figures {
        Figures::median(&self.figures)
    }

    /// Each figure's ratio to that of `base` in the same round, and of these the median.
    pub(crate) fn ratio_to(&self, base: &Self) -> Figures {
        let rounds = self.figures.iter().zip(&base.figures);
        Figures::median(&rounds.map(|(mine, base)| mine.ratio_to(base)).collect::<Vec<_>>())
    }

    /// The latencies of all runs: reads, and writes.
    pub(crate) fn latencies(&self) -> (Histogram<u64>, Histogram<u64>) {
        let mut reads = crate::record::histogram();
        let mut writes = crate::record::histogram();
        for outcome in &self.outcomes {
            reads.add(&outcome.record.reads).expect("all histograms have the same bounds");
            writes.add(&outcome.record.writes).expect("all histograms have the same bounds");
        }
        (reads, writes)
    }

    /// Error replies of all runs.
    pub(crate) fn errors_count(&self) -> u64 {
        self.outcomes.iter().map(|outcome| outcome.record.errors_count()).sum()
    }
}

/// What came of one rate of a sweep.
#[derive(Debug)]
pub(crate) struct Step {
    /// Operations offered per second.
    pub(crate) rate_per_s: f64,
    /// The median of its runs.
    pub(crate) figures: Figures,
    /// Whether it was kept up with.
    pub(crate) verdict: Verdict,
}

/// The sweep of one target.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// The target's name, or empty.
    pub(crate) name: String,
    /// Every rate, in the order they were tried.
    pub(crate) steps: Vec<Step>,
    /// What was found.
    pub(crate) knee: Knee,
}

impl Sweep {
    /// All rates, the lowest first.
    pub(crate) fn by_rate(&self) -> Vec<&Step> {
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.sort_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s));
        steps
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Results {
    /// Of every target its runs; of a sweep those at its knee, if it has one.
    pub(crate) sides: Vec<Measured>,
    /// Of a sweep, what was found for every target; else empty.
    pub(crate) sweeps: Vec<Sweep>,
}
