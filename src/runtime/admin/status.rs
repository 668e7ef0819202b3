//! `/status`: the node as JSON; and `/`, the page that shows it.
//!
//! Names are those of `INFO` and of the metrics; times are in µs and say so.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use crate::id::NodeId;
use crate::limits::ADMIN_GROUPS_SHOWN_MAX;
use crate::raft::effects::RoleKind;
use crate::runtime::shard_loop::Shared;
use crate::shard::report::{self, GroupReport, role_name};

use super::gather::{CoreReport, Reports};
use super::health;
use super::http::{Response, Status as HttpStatus};

/// The page, with everything that it needs.
const PAGE: &str = include_str!("page.html");

/// `/`.
pub(super) fn page() -> Response {
    Response {
        status: HttpStatus::Ok,
        kind: "text/html; charset=utf-8",
        body: PAGE.as_bytes().to_vec(),
    }
}

/// `/status`.
pub(super) fn status(shared: &Shared, reports: &Reports) -> Response {
    let status = Node::of(shared, reports);
    let body = serde_json::to_vec(&status).expect("numbers and texts are JSON");
    Response { status: HttpStatus::Ok, kind: "application/json", body }
}

#[derive(Debug, Serialize)]
struct Node {
    node: u64,
    cluster: String,
    version: &'static str,
    incarnation: u64,
    uptime_ms: u64,
    routing: &'static str,
    flush_method: &'static str,
    address: SocketAddr,
    client: Option<SocketAddr>,
    ready: bool,
    /// Why it is not ready, a sentence each.
    not_ready: Vec<String>,
    cores: Vec<Core>,
    /// Groups of the node, and of those how many are listed.
    groups_total: usize,
    groups_listed: usize,
    groups_led: usize,
    groups: Vec<Group>,
    peers: Vec<Peer>,
}

#[derive(Debug, Serialize)]
struct Core {
    core: u16,
    /// Since the start. What follows is of the last ten to twenty seconds.
    counters: BTreeMap<&'static str, u64>,
    flush_us: Spread,
    turn_us: Spread,
    /// Commands sent on to other nodes, until their answers were there.
    forward_us: Spread,
    /// Writes of the groups that the core leads, from receipt to reply.
    commit_us: Spread,
    commit_stages: Vec<CommitStage>,
    /// What set the commit times, most first.
    commits_set_by: Vec<SetBy>,
    groups: usize,
    groups_led: usize,
    groups_recalling: u64,
    proposals_pending: u64,
    keys: u64,
    log_bytes: u64,
    disk_full: bool,
    draining: bool,
}

#[derive(Debug, Serialize)]
struct CommitStage {
    /// The follower, if it is a stage of one.
    node: Option<u64>,
    stage: &'static str,
    us: Spread,
}

#[derive(Debug, Serialize)]
struct SetBy {
    node: u64,
    stage: &'static str,
    commands: u64,
    mean_us: u64,
}

#[derive(Debug, Serialize)]
struct Spread {
    count: u64,
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

#[derive(Debug, Serialize)]
struct Group {
    group: u64,
    core: u16,
    role: &'static str,
    /// Node id; 0 while there is none.
    leader: u64,
    term: u64,
    commit: u64,
    applied: u64,
    first: u64,
    last: u64,
    keys: u64,
    voters: Vec<u64>,
    failed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Peer {
    node: u64,
    addresses: Vec<SocketAddr>,
    client: Option<SocketAddr>,
    links: Vec<Link>,
}

#[derive(Debug, Serialize)]
struct Link {
    core: u16,
    up: bool,
    round_trip_us: Option<u32>,
}

impl Node {
    fn of(shared: &Shared, reports: &Reports) -> Self {
        let Reports { at, cores: reports } = reports;
        let roster = &shared.roster;
        let not_ready = health::hindrances(shared, reports);
        let driver = reports.first().map(|report| &report.shard.driver);
        let groups = listed(reports);
        let total: usize = reports.iter().map(|report| report.shard.groups.len()).sum();
        Self {
            node: roster.node.0,
            cluster: roster.cluster.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            incarnation: roster.incarnation.0,
            uptime_ms: at.0,
            routing: driver.map_or("", |driver| driver.routing.name()),
            flush_method: driver.map_or("", |driver| driver.flush_method),
            address: roster.address,
            client: roster.client,
            ready: not_ready.is_empty(),
            not_ready,
            cores: reports.iter().map(Core::of).collect(),
            groups_total: total,
            groups_listed: groups.len(),
            groups_led: reports.iter().map(led).sum(),
            groups,
            peers: peers(shared, reports),
        }
    }
}

/// How many groups a core leads.
pub(super) fn led(report: &CoreReport) -> usize {
    report.shard.groups.iter().filter(|group| group.role == RoleKind::Leader).count()
}

/// Entries that wait for agreement in the groups that a core leads.
pub(super) fn pending(report: &CoreReport) -> u64 {
    let led = report.shard.groups.iter().filter(|group| group.role == RoleKind::Leader);
    led.map(|group| group.last.0.saturating_sub(group.commit.0)).sum()
}

impl Core {
    fn of(report: &CoreReport) -> Self {
        let shard = &report.shard;
        let driver = &shard.driver;
        Self {
            core: shard.shard.0,
            counters: shard.counters.named().collect(),
            flush_us: Spread::of(driver.flushes),
            turn_us: Spread::of(driver.turns),
            forward_us: Spread::of(driver.forwards),
            commit_us: Spread::of(driver.commits.commits),
            commit_stages: driver.commits.stages.iter().map(CommitStage::of).collect(),
            commits_set_by: driver.commits.set_by.iter().map(SetBy::of).collect(),
            groups: shard.groups.len(),
            groups_led: led(report),
            groups_recalling: shard.groups_recalling,
            proposals_pending: pending(report),
            keys: shard.groups.iter().map(|group| group.keys).sum(),
            log_bytes: shard.log_bytes,
            disk_full: shard.disk_full,
            draining: report.draining,
        }
    }
}

impl CommitStage {
    fn of(it: &report::StageSpread) -> Self {
        let node = it.node.map(|node| node.0);
        Self { node, stage: it.stage.name(), us: Spread::of(it.spread) }
    }
}

impl SetBy {
    fn of(it: &report::SetBy) -> Self {
        let report::SetBy { node, stage, commands, mean_us } = *it;
        Self { node: node.0, stage: stage.name(), commands, mean_us }
    }
}

impl Spread {
    fn of(spread: report::Spread) -> Self {
        let report::Spread { count, p50, p99, p999, max } = spread;
        Self { count, p50, p99, p999, max }
    }
}

/// The groups in order; of very many, those that are not well come before the others.
fn listed(reports: &[CoreReport]) -> Vec<Group> {
    let of = |report: &CoreReport| report.shard.shard.0;
    let mut groups: Vec<(&GroupReport, u16)> = reports
        .iter()
        .flat_map(|report| report.shard.groups.iter().map(move |group| (group, of(report))))
        .collect();
    if ADMIN_GROUPS_SHOWN_MAX < groups.len() {
        groups.sort_by_key(|(group, _)| {
            let is_well = group.failed.is_none() && group.leader.is_some();
            let behind = group.last.0.saturating_sub(group.applied.0);
            (is_well, u64::MAX - behind, group.group)
        });
        groups.truncate(ADMIN_GROUPS_SHOWN_MAX);
    }
    groups.sort_by_key(|(group, _)| group.group);
    groups.into_iter().map(|(group, core)| Group::of(group, core)).collect()
}

impl Group {
    fn of(group: &GroupReport, core: u16) -> Self {
        Self {
            group: group.group.0,
            core,
            role: if group.failed.is_some() { "failed" } else { role_name(group.role) },
            leader: group.leader.0,
            term: group.term.0,
            commit: group.commit.0,
            applied: group.applied.0,
            first: group.first.0,
            last: group.last.0,
            keys: group.keys,
            voters: group.voters.iter().map(|voter| voter.0).collect(),
            failed: group.failed.clone(),
        }
    }
}

fn peers(shared: &Shared, reports: &[CoreReport]) -> Vec<Peer> {
    let clients = shared.roster.client_addresses();
    let targets = shared.roster.targets();
    let links = |node: NodeId| {
        let of = move |report: &CoreReport| {
            let link = report.shard.driver.links.iter().find(|link| link.node == node)?;
            let core = report.shard.shard.0;
            Some(Link { core, up: link.up, round_trip_us: link.round_trip_us })
        };
        reports.iter().filter_map(of).collect()
    };
    let peer = |(node, addresses): (NodeId, Vec<SocketAddr>)| Peer {
        node: node.0,
        addresses,
        client: clients.get(&node).copied(),
        links: links(node),
    };
    targets.into_iter().map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, Index, ReplicaId};
    use crate::runtime::admin::gather::tests::report;

    #[test]
    fn groups_are_in_order_and_of_too_many_those_that_are_not_well_are_shown() {
        let mut reports = [report(0), report(1)];
        let ids = |reports: &[CoreReport]| -> Vec<u64> {
            listed(reports).iter().map(|group| group.group).collect()
        };
        assert_eq!(ids(&reports), [0, 1]);
        let template = reports[1].shard.groups[0].clone();
        let count = 3 * ADMIN_GROUPS_SHOWN_MAX as u64;
        let group = |id: u64| GroupReport {
            group: GroupId(id),
            leader: ReplicaId(u64::from(id != count - 1)),
            last: Index(if id == count - 2 { 1_000 } else { 11 }),
            ..template.clone()
        };
        reports[1].shard.groups = (1..count).map(group).collect();
        let ids = ids(&reports);
        assert_eq!(ids.len(), ADMIN_GROUPS_SHOWN_MAX);
        assert_eq!(ids[ids.len() - 2..], [count - 2, count - 1], "far behind, and without leader");
        assert!(ids.is_sorted());
    }

    #[test]
    fn what_waits_is_counted_where_it_is_led() {
        assert_eq!((led(&report(0)), pending(&report(0))), (1, 2));
        assert_eq!((led(&report(1)), pending(&report(1))), (0, 0));
    }
}
