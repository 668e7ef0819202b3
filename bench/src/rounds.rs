//! Runs in alternating rounds: every target has one run in each, and who goes first changes.
//!
//! A machine is now faster and now slower, by itself and by its neighbours. What is measured minutes apart
//! differs by that as well; what is measured side by side, and compared within a round, does not.

use crate::args::Plan;
use crate::measured::Measured;
use crate::printer::{self, Printer};
use crate::report::Figures;
use crate::run;
use std::sync::atomic::{AtomicBool, Ordering};

/// Fills every target that is to be filled.
pub(crate) fn fill(plan: &Plan, stop: &AtomicBool, printer: &Printer) -> Result<(), String> {
    for side in plan.sides.iter().filter(|_| plan.fill) {
        let filled = run::once(&plan.for_side(side).filling(), run::FILLING, stop)?;
        let (ops, window_s) = (filled.record.ops, filled.window_s);
        printer.line(&format!("{} {ops} keys in {window_s:.1} s", label(&side.name, "filled  ")));
        if filled.record.errors_count() > 0 && !plan.allow_errors {
            printer::errors(&filled);
            return Err("filling was answered with errors".into());
        }
    }
    Ok(())
}

/// Measures every target `plan.runs` times.
pub(crate) fn run(plan: &Plan, stop: &AtomicBool, printer: &Printer) -> Vec<Measured> {
    let mut sides: Vec<Measured> =
        plan.sides.iter().map(|side| Measured::new(plan.for_side(side))).collect();
    for round in 0..plan.runs {
        for index in order(round, sides.len()) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let side = &mut sides[index];
            if side.ended.is_some() {
                continue;
            }
            let outcome = match run::once(&side.plan, round, stop) {
                Ok(outcome) => outcome,
                Err(why) => {
                    // What was measured until here is worth having, and so are the others.
                    let why = format!("ended in round {}: {why}", round + 1);
                    eprintln!("load: {}", label(&side.plan.name, &why));
                    side.ended = Some(why);
                    continue;
                }
            };
            let figures = Figures::new(&outcome, &side.plan);
            printer.line(&figures.text(&label(&side.plan.name, &format!("run {}", round + 1))));
            printer::errors(&outcome);
            side.push(outcome, figures);
        }
    }
    for side in sides.iter().filter(|side| side.figures.len() > 1) {
        printer.line(&side.median().text(&label(&side.plan.name, "median")));
    }
    sides
}

/// The targets of a round, in turn; each is the first in one round of as many as there are.
fn order(round: u64, count: usize) -> impl Iterator<Item = usize> {
    let first = (round % count.max(1) as u64) as usize;
    (0..count).map(move |turn| (first + turn) % count)
}

/// What is printed in front of a line: the target's name, if it has one, and what it is.
pub(crate) fn label(name: &str, what: &str) -> String {
    if name.is_empty() { what.to_owned() } else { format!("{name:<12} {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_goes_first_once_and_runs_in_every_round() {
        let rounds: Vec<Vec<usize>> = (0..4).map(|round| order(round, 3).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        assert_eq!(order(7, 1).collect::<Vec<_>>(), [0]);
    }
}
