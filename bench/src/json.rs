//! Everything measured, as JSON.
//!
//! ```text
//!  one target        { command, machine, plan, runs: […], median }
//!  named targets     { command, machine, plan, targets: [{ name, target, addresses, runs, median, ratio_to_first }] }
//!  a sweep           { command, machine, plan, knee_definition,
//!                      targets: [{ name, target, addresses, knee, knee_ops_per_s, steps: […], runs, median }] }
//! ```
//!
//! The runs of a sweep are those at its knee.

use crate::args::{Ends, Plan};
use crate::knee::Bound;
use crate::measured::{Measured, Results, Sweep};
use crate::report::Figures;
use crate::run::Outcome;
use crate::sides::Side;
use crate::{origin, sweep};
use serde_json::{Value, json};

/// The document. `plan` is that of the whole program.
pub(crate) fn of(plan: &Plan, results: &Results) -> Value {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut document = json!({
        "command": origin::command(std::env::args()),
        "date": origin::date(),
        "generator": origin::generator(),
        "machine": {
            "cores_count": std::thread::available_parallelism().map_or(0, usize::from),
            "kernel": kernel.trim(),
            "processor": origin::processor(),
        },
        "plan": settings(plan),
    });
    if let Some(extent) = results.extent(plan) {
        document["interrupted"] = extent.into();
    }
    let measured = |name: &str| results.sides.iter().find(|side| side.plan.name == name);
    if plan.sweep.is_some() {
        document["knee_definition"] = sweep::definition(plan).into();
        let sweeps = plan.sides.iter().zip(&results.sweeps);
        let all = sweeps.map(|(side, sweep)| swept(side, sweep, measured(&side.name)));
        document["targets"] = all.collect();
    } else if plan.name.is_empty() {
        let side = &plan.sides[0];
        document["plan"]["target"] = side.target.name().into();
        document["plan"]["addresses"] = addresses(side);
        add_runs(&mut document, measured(&side.name));
    } else {
        let all = plan.sides.iter().map(|side| {
            let mut value = identity(side);
            let mine = measured(&side.name);
            add_runs(&mut value, mine);
            let ratio = mine.zip(results.sides.first()).map(|(mine, base)| mine.ratio_to(base));
            value["ratio_to_first"] = plain(ratio.as_ref());
            value
        });
        document["targets"] = all.collect();
    }
    for (index, side) in plan.sides.iter().enumerate() {
        let mine = match document.get_mut("targets") {
            Some(targets) => &mut targets[index],
            None => &mut document,
        };
        if let Some(why) = results.ended(&side.name) {
            mine["ended"] = why.into();
        }
        mine["server_version"] = results.versions.get(index).cloned().flatten().into();
    }
    document
}

fn identity(side: &Side) -> Value {
    json!({ "name": side.name, "target": side.target.name(), "addresses": addresses(side) })
}

fn addresses(side: &Side) -> Value {
    side.addrs.iter().map(ToString::to_string).collect()
}

fn plain(figures: Option<&Figures>) -> Value {
    serde_json::to_value(figures).expect("figures are plain numbers")
}

fn swept(side: &Side, sweep: &Sweep, at_knee: Option<&Measured>) -> Value {
    let mut value = identity(side);
    value["knee"] = sweep::said(sweep).into();
    value["knee_ops_per_s"] = sweep.knee.rate_per_s().into();
    let steps = sweep.steps.iter().map(|step| {
        let mut value = plain(Some(&step.figures));
        value["offered_ops_per_s"] = step.rate_per_s.into();
        value["verdict"] = sweep::verdict(step.verdict).into();
        value
    });
    value["steps"] = steps.collect();
    add_runs(&mut value, at_knee);
    value
}

fn add_runs(value: &mut Value, measured: Option<&Measured>) {
    let runs = measured.into_iter().flat_map(|it| it.outcomes.iter().zip(&it.figures));
    value["runs"] = runs.map(|(outcome, figures)| run(outcome, figures)).collect();
    value["median"] = plain(measured.map(Measured::median).as_ref());
}

fn run(outcome: &Outcome, figures: &Figures) -> Value {
    let mut run = plain(Some(figures));
    run["interrupted"] = outcome.interrupted.into();
    run["errors_by_token_count"] = json!(outcome.record.errors);
    run["error_texts"] = json!(outcome.record.error_texts);
    run["throughput_over_time"] = json!({
        "interval_s": outcome.record.timeline.interval_s(),
        "ops_count": outcome.record.timeline.counts(),
    });
    run
}

/// The settings that all targets share.
fn settings(plan: &Plan) -> Value {
    let (duration_s, requests) = match plan.ends {
        Ends::After { seconds } => (Some(seconds), None),
        Ends::Requests(count) => (None, Some(count)),
    };
    let open = plan.rate_per_s.is_some() || plan.sweep.is_some();
    json!({
        "workload": plan.workload_name,
        "tls": plan.access.tls.is_some(),
        "loop": if open { "open" } else { "closed" },
        "rate_ops_per_s": plan.rate_per_s,
        "sweep_from_ops_per_s": plan.sweep.map(|range| range.from_per_s),
        "sweep_to_ops_per_s": plan.sweep.map(|range| range.to_per_s),
        "sweep_p99_max": plan.sweep.map(|range| match range.p99 {
            Bound::Us(us) => format!("{us} µs"),
            Bound::Times(times) => format!("{times} × that at the lowest rate"),
        }),
        "connections_count": plan.connections,
        "pipeline_count": plan.pipeline,
        "threads_count": plan.threads,
        "by_slot": plan.by_slot,
        "keys_count": plan.workload.keys,
        "distribution": format!("{:?}", plan.workload.dist).to_lowercase(),
        "value_min_bytes": plan.workload.value.min,
        "value_max_bytes": plan.workload.value.max,
        "random_values": plan.workload.random_values,
        "read_share_ratio": plan.workload.mix.reads,
        "update_share_ratio": plan.workload.mix.updates,
        "insert_share_ratio": plan.workload.mix.inserts,
        "scan_share_ratio": plan.workload.mix.scans,
        "scan_keys_max": plan.workload.mix.scan_keys_max,
        "read_modify_write_share_ratio": plan.workload.mix.read_modify_writes,
        "warmup_s": plan.warmup_s,
        "duration_s": duration_s,
        "requests_count": requests,
        "runs_count": plan.runs,
        "seed": plan.seed,
    })
}
