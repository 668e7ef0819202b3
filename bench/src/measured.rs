//! What the program has measured when it ends: of every target its runs, and of a sweep its rates.

use crate::args::Plan;
use crate::knee::{Knee, Verdict};
use crate::record::Latencies;
use crate::report::Figures;
use crate::run::Outcome;
use crate::workload::Kind;

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

    /// The latencies of one kind of operation, of all runs.
    pub(crate) fn latencies(&self, kind: Kind) -> Latencies {
        let mut all = Latencies::default();
        self.outcomes.iter().for_each(|outcome| all.add(&outcome.record.latencies(kind)));
        all
    }

    /// The latencies of all kinds of operations.
    pub(crate) fn all_latencies(&self) -> Latencies {
        let mut all = Latencies::default();
        Kind::ALL.iter().for_each(|kind| all.add(&self.latencies(*kind)));
        all
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

    /// The rate that ended the search with every slot taken, at the knee or the next above it: what was found may be the
    /// bound on outstanding operations, and not the server's.
    pub(crate) fn full_at(&self) -> Option<f64> {
        let knee = self.knee.rate_per_s().unwrap_or(0.0);
        let steps = self.by_rate();
        let above = steps.iter().find(|step| knee < step.rate_per_s);
        let at = steps.iter().filter(|step| step.rate_per_s == knee);
        at.chain(above).find(|step| step.figures.is_full()).map(|step| step.rate_per_s)
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
