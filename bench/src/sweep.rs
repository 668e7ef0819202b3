//! A sweep: rising rates, an open loop at each, until the knee is known ([`crate::knee`]).
//!
//! With several targets they take turns, one rate each, and every target has a search of its own.

use crate::args::Plan;
use crate::knee::{KEPT_RATIO, Knee, Search, Seen, Verdict};
use crate::measured::{Measured, Step, Sweep};
use crate::printer::{self, Printer};
use crate::report::Figures;
use crate::rounds::label;
use crate::run;
use std::sync::atomic::{AtomicBool, Ordering};

/// One target on its way.
struct Runner {
    plan: Plan,
    search: Search,
    steps: Vec<Step>,
    at_knee: Option<Measured>,
    /// Why it goes no further.
    ended: Option<String>,
}

/// Sweeps every target of `plan`, which has a range to sweep.
pub(crate) fn run(
    plan: &Plan,
    stop: &AtomicBool,
    printer: &Printer,
) -> Result<(Vec<Measured>, Vec<Sweep>), String> {
    let range = plan.sweep.ok_or("there is no range to sweep")?;
    let mut runners: Vec<Runner> = plan
        .sides
        .iter()
        .map(|side| Runner {
            plan: plan.for_side(side),
            search: Search::new(range),
            steps: Vec::new(),
            at_knee: None,
            ended: None,
        })
        .collect();
    printer.line(&label(if plan.name.is_empty() { "" } else { "target" }, &heading()));
    while !stop.load(Ordering::Relaxed) && runners.iter().any(|it| it.next().is_some()) {
        for runner in &mut runners {
            if let (false, Some(rate)) = (stop.load(Ordering::Relaxed), runner.next())
                && let Err(why) = runner.step(rate, stop, printer)
            {
                // What was measured until here is worth having, and so are the others.
                let why = format!("ended at {rate}/s: {why}");
                eprintln!("load: {}", label(&runner.plan.name, &why));
                runner.ended = Some(why);
            }
        }
    }
    let (mut sides, mut sweeps) = (Vec::new(), Vec::new());
    for runner in runners {
        let sweep = Sweep {
            knee: runner.search.knee(),
            bound_us: runner.search.bound_us(),
            name: runner.plan.name,
            steps: runner.steps,
            ended: runner.ended,
        };
        printer.line(&label(&sweep.name, &said(&sweep)));
        sides.extend(runner.at_knee);
        sweeps.push(sweep);
    }
    Ok((sides, sweeps))
}

impl Runner {
    /// The rate to try next; `None` when there is nothing more to find.
    fn next(&self) -> Option<f64> {
        self.search.next().filter(|_| self.ended.is_none())
    }

    /// Offers one rate, `runs` times, and judges the median.
    fn step(&mut self, rate: f64, stop: &AtomicBool, printer: &Printer) -> Result<(), String> {
        let plan = Plan { rate_per_s: Some(rate), ..self.plan.clone() };
        let mut measured = Measured::new(plan);
        for run in 0..measured.plan.runs {
            let outcome = run::once(&measured.plan, run, stop)?;
            if stop.load(Ordering::Relaxed) {
                // Cut short, it says nothing about the rate.
                return Ok(());
            }
            let figures = Figures::new(&outcome, &measured.plan);
            measured.push(outcome, figures);
        }
        let figures = measured.median();
        let seen = Seen {
            achieved_per_s: figures.get("throughput_ops_per_s").unwrap_or(0.0),
            p99_us: figures.get("latency_p99_us"),
        };
        let verdict = self.search.judge(rate, seen);
        let step = Step { rate_per_s: rate, figures, verdict };
        printer.line(&label(&self.plan.name, &row(&step)));
        self.steps.push(step);
        if verdict == Verdict::Kept {
            measured.outcomes.iter().for_each(printer::errors);
            // The search only rises from what was kept up with: the last one is the highest.
            self.at_knee = Some(measured);
        }
        Ok(())
    }
}

/// What the columns of [`row`] are.
fn heading() -> String {
    format!(
        "{:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "offered/s", "achieved/s", "p50 µs", "p99 µs", "p99.9 µs", "unsent", "errors"
    )
}

fn row(step: &Step) -> String {
    let get = |name| step.figures.get(name).unwrap_or(f64::NAN);
    let marked = |name| format!("{}{:.0}", step.figures.mark(name), get(name));
    format!(
        "{:>10} {:>10.0} {:>9} {:>9} {:>9} {:>9.0} {:>8.0}  {}",
        step.rate_per_s,
        get("throughput_ops_per_s"),
        marked("latency_p50_us"),
        marked("latency_p99_us"),
        marked("latency_p99_9_us"),
        get("unsent_arrivals_count"),
        get("errors_count"),
        verdict(step.verdict),
    )
}

/// A verdict in words.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Kept => "kept up",
        Verdict::Behind => "fell behind",
        Verdict::Slow => "too slow",
    }
}

/// A knee in words.
pub(crate) fn said(sweep: &Sweep) -> String {
    let knee = match sweep.knee {
        Knee::At(rate) => format!("knee: {rate}/s"),
        Knee::AtLeast(rate) => {
            format!("knee: above {rate}/s, which is as far as --sweep-to let it look")
        }
        Knee::Below(rate) => {
            format!("knee: below {rate}/s; begin lower, with --sweep-from")
        }
        Knee::Unknown(Some(rate)) => format!("knee: not found yet; {rate}/s was kept up with"),
        Knee::Unknown(None) => "knee: not found; no rate was measured".into(),
    };
    match sweep.full_at() {
        Some(rate) => format!(
            "{knee} (at {rate}/s all slots were taken: with more --connections it may be higher)"
        ),
        None => knee,
    }
}

/// What a knee is, for reports.
pub(crate) fn definition(plan: &Plan) -> String {
    let bound = match plan.sweep.map(|range| range.p99) {
        Some(crate::knee::Bound::Us(us)) => format!("{us} µs"),
        Some(crate::knee::Bound::Times(times)) => format!("{times} times that at the lowest rate"),
        None => "anything".into(),
    };
    format!(
        "The knee is the highest rate at which at least {:.0} % of what is offered is answered and the p99, \
         counted from when operations were due, is at most {bound}.",
        KEPT_RATIO * 100.0
    )
}
