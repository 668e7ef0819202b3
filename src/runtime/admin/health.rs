//! Whether the node lives, and whether it is ready: two questions, and every obstacle by name.

use std::sync::atomic::Ordering;

use crate::id::{ShardId, Tick};
use crate::limits::{ADMIN_ANSWER_MS_MAX, ADMIN_NAMES_MAX, ADMIN_TURN_MS_MAX};
use crate::runtime::pulse::Pulse;
use crate::runtime::shard_loop::Shared;
use crate::shard::report::GroupReport;

use super::gather::CoreReport;
use super::http::{Response, Status};

/// `/livez`: every core has turned lately. Not whether it gets anywhere: a restart would not help that. While the node
/// stops, it is alive whatever its cores do: those that have ended turn no more, and whoever kills it then loses the clean end.
pub(super) fn live(pulse: &Pulse, now: Tick) -> Response {
    if pulse.is_stopping() {
        return Response::text(Status::Ok, "live");
    }
    let still = pulse.stillness(now).filter(|(_, ms)| ADMIN_TURN_MS_MAX < *ms);
    let still: Vec<String> =
        still.map(|(core, ms)| format!("core {core} has not turned for {ms} ms")).collect();
    if still.is_empty() {
        return Response::text(Status::Ok, "live");
    }
    Response::text(Status::Unavailable, format!("not live\n{}", still.join("\n")))
}

/// What keeps the node from being ready that is known without asking its cores.
pub(super) fn before_cores(shared: &Shared) -> Vec<String> {
    let mut hindrances = Vec::new();
    if shared.pulse.is_stopping() {
        hindrances.push("the node stops".to_owned());
    }
    let loading = shared.pulse.loading().map(|core| format!("core {core} replays its log"));
    hindrances.extend(loading);
    if shared.loading.load(Ordering::SeqCst) == 0 && !shared.roster.is_proven() {
        hindrances.push("this node is new and asks its peers whether it may take part".to_owned());
    }
    hindrances
}

/// What keeps the node from being ready, by what its cores tell.
fn by_cores(reports: &[CoreReport]) -> Vec<String> {
    let mut hindrances = Vec::new();
    for report in reports.iter().filter(|report| report.draining) {
        let core = report.shard.shard;
        hindrances.push(format!("core {core} hands over what it leads"));
    }
    let groups = || reports.iter().flat_map(|report| &report.shard.groups);
    let is_failed = |group: &&GroupReport| group.failed.is_some();
    hindrances
        .extend(named("stopped here, with the reason in the log", groups().filter(is_failed)));
    let is_leaderless = |group: &&GroupReport| group.failed.is_none() && !group.leader.is_some();
    hindrances
        .extend(named("without a leader that this node knows of", groups().filter(is_leaderless)));
    hindrances
}

/// `3 groups without a leader: 0, 4, 7`, if there are any.
fn named<'a>(what: &str, groups: impl Iterator<Item = &'a GroupReport>) -> Option<String> {
    let mut groups: Vec<u64> = groups.map(|group| group.group.0).collect();
    groups.sort_unstable();
    let names: Vec<String> = groups.iter().take(ADMIN_NAMES_MAX).map(ToString::to_string).collect();
    let more = groups.len() - names.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let (count, s) = (groups.len(), if groups.len() == 1 { "" } else { "s" });
    (0 < count).then(|| format!("{count} group{s} {what}: {}{more}", names.join(", ")))
}

/// Everything that keeps the node from being ready.
pub(super) fn hindrances(shared: &Shared, reports: &[CoreReport]) -> Vec<String> {
    let mut hindrances = before_cores(shared);
    hindrances.extend(by_cores(reports));
    hindrances
}

/// `/readyz`, with what the cores tell.
pub(super) fn ready(shared: &Shared, reports: &[CoreReport]) -> Response {
    let hindrances = hindrances(shared, reports);
    if hindrances.is_empty() {
        return Response::text(Status::Ok, "ready");
    }
    not_ready(&hindrances)
}

/// The answer that names what is missing.
pub(super) fn not_ready(hindrances: &[String]) -> Response {
    Response::text(Status::Unavailable, format!("not ready\n{}", hindrances.join("\n")))
}

/// The answer to whatever only the cores know, when some of them do not tell.
pub(super) fn silent(cores: &[ShardId]) -> Response {
    let cores: Vec<String> = cores
        .iter()
        .map(|core| format!("core {core} did not answer within {ADMIN_ANSWER_MS_MAX} ms"))
        .collect();
    not_ready(&cores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, ReplicaId};
    use crate::runtime::admin::gather::tests::report;

    fn text(response: &Response) -> (Status, &str) {
        (response.status, std::str::from_utf8(&response.body).expect("text"))
    }

    #[test]
    fn a_core_that_has_not_turned_for_long_is_named() {
        let pulse = Pulse::new(2, Tick(0));
        pulse.turned(ShardId(1), Tick(5_000));
        let live = |at| super::live(&pulse, Tick(at));
        assert_eq!(text(&live(ADMIN_TURN_MS_MAX)), (Status::Ok, "live\n"));
        let expected = "not live\ncore 0 has not turned for 12000 ms\n";
        assert_eq!(text(&live(12_000)), (Status::Unavailable, expected));
    }

    #[test]
    fn groups_without_a_leader_are_named_as_far_as_a_sentence_goes() {
        let mut reports = [report(0), report(1)];
        assert!(by_cores(&reports).is_empty());
        let group = reports[1].shard.groups[0].clone();
        reports[1].shard.groups = (0..20)
            .rev()
            .map(|id| GroupReport { group: GroupId(id), leader: ReplicaId(0), ..group.clone() })
            .collect();
        reports[0].shard.groups[0].failed = Some("the disk lost it".into());
        reports[0].draining = true;
        assert_eq!(
            by_cores(&reports),
            [
                "core 0 hands over what it leads",
                "1 group stopped here, with the reason in the log: 0",
                "20 groups without a leader that this node knows of: \
                 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 and 4 more",
            ]
        );
    }
}
