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
    /// Why there are no more runs, if the target failed before the last.
    pub(crate) ended: Option<String>,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, outcomes: Vec::new(), figures: Vec::new(), ended: None }
    }

    /// Adds a run.
    pub(crate) fn push(&mut self, outcome: Outcome, figures: Figures) {
        self.outcomes.push(outcome);
        self.figures.push(figures);
    }

    /// The figures of the runs that were not cut short; of all, if every one was.
    fn whole(&self) -> Vec<Figures> {
        let runs = || self.outcomes.iter().zip(&self.figures);
        let whole: Vec<Figures> =
            runs().filter(|(run, _)| !run.interrupted).map(|(_, it)| it.clone()).collect();
        if whole.is_empty() { self.figures.clone() } else { whole }
    }

    /// How many runs were not cut short.
    pub(crate) fn whole_count(&self) -> usize {
        self.outcomes.iter().filter(|run| !run.interrupted).count()
    }

    /// The median of the runs that were not cut short.
    pub(crate) fn median(&self) -> Figures {
        Figures::median(&self.whole())
    }

    /// Each figure's ratio to that of `base` in the same round, and of these the median.
    pub(crate) fn ratio_to(&self, base: &Self) -> Figures {
        let (mine, base) = (self.whole(), base.whole());
        let rounds = mine.iter().zip(&base);
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
    /// The bound of the p99, in microseconds; of a multiple of the first p99, once that is known.
    pub(crate) bound_us: Option<f64>,
    /// Why there are no more rates, if the target failed before the search was over.
    pub(crate) ended: Option<String>,
}

impl Sweep {
    /// All rates, the lowest first.
    pub(crate) fn by_rate(&self) -> Vec<&Step> {
        let mut steps: Vec<&Step> = self.steps.iter().collect();
        steps.sort_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s));
        steps
    }

    /// What came of a rate, if it was tried.
    pub(crate) fn at(&self, rate_per_s: f64) -> Option<&Step> {
        self.steps.iter().find(|step| step.rate_per_s == rate_per_s)
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
    /// Ctrl-C ended it early.
    pub(crate) interrupted: bool,
    /// Of every target, in the order of the plan, the version that it says it is.
    pub(crate) versions: Vec<Option<String>>,
}

impl Results {
    /// Why a target failed before it was measured to the end, by its name.
    pub(crate) fn ended(&self, name: &str) -> Option<&str> {
        let sides = self.sides.iter().map(|side| (&side.plan.name, &side.ended));
        let sweeps = self.sweeps.iter().map(|sweep| (&sweep.name, &sweep.ended));
        let mut all = sides.chain(sweeps).filter(|(known, _)| *known == name);
        all.find_map(|(_, ended)| ended.as_deref())
    }

    /// How many rounds all targets have had that did not fail; of one target, runs.
    pub(crate) fn whole_rounds(&self) -> usize {
        let sides = self.sides.iter().filter(|side| side.ended.is_none());
        sides.map(Measured::whole_count).min().unwrap_or(0)
    }

    /// How much was measured, if it is not all.
    pub(crate) fn extent(&self, plan: &Plan) -> Option<String> {
        let what = if plan.name.is_empty() { "runs" } else { "rounds" };
        match (self.interrupted, plan.sweep.is_some()) {
            (false, _) => None,
            (true, true) => Some("some rates, interrupted".into()),
            (true, false) => {
                Some(format!("{} of {} {what}, interrupted", self.whole_rounds(), plan.runs))
            }
        }
    }
}
