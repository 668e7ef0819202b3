//! `/metrics`: every number of the node in the form that Prometheus reads.
//!
//! The tables below are the list of metrics; `docs/metrics.md` tells it to operators, and a test holds the two
//! together. Values are counts since the start of the process unless they say otherwise. Everything that a
//! core counts has the label `core`; sums are for the reader to make. Series of single groups exist only
//! up to [`ADMIN_GROUP_SERIES_MAX`] groups. What the kernel says of the process has the names that
//! Prometheus gives it in every program, without `outrigger_` in front.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use crate::limits::ADMIN_GROUP_SERIES_MAX;
use crate::raft::effects::RoleKind;
use crate::runtime::keyring::Until;
use crate::runtime::metrics::{BUCKETS_US, Durations};
use crate::runtime::process::Process;
use crate::runtime::shard_loop::Shared;
use crate::shard::report::GroupReport;

use super::gather::{CoreReport, Reports};
use super::health;
use super::http::{Answered, Response, Status};
use super::status;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/metrics`.
pub(super) fn metrics(
    shared: &Shared,
    reports: &Arc<Reports>,
    answered: Answered,
    until: Until,
    open_metrics: bool,
) -> Response {
    let roster = &shared.roster;
    let driver = reports.cores.first().map(|report| &report.shard.driver);
    let page = Page {
        info: [
            ("node", roster.node.to_string()),
            ("cluster", roster.cluster.to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("routing", driver.map_or("", |driver| driver.routing.name()).to_owned()),
            ("flush_method", driver.map_or("", |driver| driver.flush_method).to_owned()),
        ],
        is_ready: health::hindrances(shared, &reports.cores).is_empty(),
        process: Process::look(),
        answered,
        until,
        reports: Arc::clone(reports),
    };
    let (kind, text) = page.encode(open_metrics);
    Response { status: Status::Ok, kind, body: text.into_bytes() }
}

/// The part of a metric's name that says in what it is measured.
#[derive(Debug, Clone, Copy)]
enum In {
    /// Things, events, or yes and no.
    Count,
    Bytes,
    Seconds,
}

impl In {
    const fn unit(self) -> Option<&'static Unit> {
        match self {
            Self::Count => None,
            Self::Bytes => Some(&Unit::Bytes),
            Self::Seconds => Some(&Unit::Seconds),
        }
    }
}

/// A number of each core.
struct OfCore {
    name: &'static str,
    unit: In,
    help: &'static str,
    read: fn(&CoreReport) -> u64,
}

/// A number of each group.
struct OfGroup {
    name: &'static str,
    help: &'static str,
    read: fn(&GroupReport) -> u64,
}

/// A field of the shard's counters, under its own name or another.
macro_rules! counter {
    ($field:ident, $help:expr) => {
        counter!($field, stringify!($field), In::Count, $help)
    };
    ($field:ident, $name:expr, $unit:expr, $help:expr) => {
        OfCore {
            name: $name,
            unit: $unit,
            help: $help,
            read: |report| report.shard.counters.$field,
        }
    };
}

/// What only rises. `_total` is added to the names.
const COUNTERS: &[OfCore] = &[
    counter!(commands, "Commands received from clients"),
    counter!(commands_forwarded, "Commands sent on to the node that leads their group"),
    counter!(commands_refused, "Commands refused by a bound"),
    counter!(auth_failures, "Wrong passwords of clients, and names of users that do not exist"),
    counter!(acl_denied_commands, "Commands of clients that their user may not run"),
    counter!(acl_denied_keys, "Commands of clients with a key that their user may not use"),
    counter!(tls_handshake_failures, "TLS handshakes of clients that came to nothing"),
    counter!(
        connections_refused,
        "Connections of clients refused because there were as many as there may be"
    ),
    counter!(
        slow_readers_closed,
        "Clients closed because those of the core together left too many bytes of replies unread"
    ),
    counter!(
        proposals_failed,
        "Writes of this node's clients that were refused or whose outcome is unknown"
    ),
    OfCore {
        name: "proposals_committed",
        unit: In::Count,
        help: "Entries committed: the sum of the groups' commit indexes",
        read: |report| report.shard.groups.iter().map(|group| group.commit.0).sum(),
    },
    OfCore {
        name: "proposals_applied",
        unit: In::Count,
        help: "Entries applied: the sum of the groups' applied indexes",
        read: |report| report.shard.groups.iter().map(|group| group.applied.0).sum(),
    },
    counter!(entries_committed, "Commands applied to a state machine"),
    counter!(leader_changes, "Times a group got another leader"),
    counter!(
        heartbeats_late,
        "Heartbeats that left later than twice their interval after the one before"
    ),
    counter!(
        heartbeat_send_failures,
        "Heartbeats dropped because a link was down or full, or broke before they left"
    ),
    counter!(
        late_turns,
        "Turns of a core's loop that started more than 100 ms after the one before"
    ),
    counter!(wal_writes, "Log writes handed to the kernel"),
    counter!(wal_flushes, "Log writes made durable, each by its own flush"),
    counter!(entries_written, "Entries in log writes"),
    counter!(wal_bytes, "wal", In::Bytes, "Bytes of log writes"),
    counter!(wal_payload_bytes, "wal_payload", In::Bytes, "Bytes of entries in log writes"),
    counter!(wal_snapshot_bytes, "wal_snapshot", In::Bytes, "Bytes of snapshots in log writes"),
    counter!(
        wal_padding_bytes,
        "wal_padding",
        In::Bytes,
        "Zeroes to the end of a block in log writes"
    ),
    counter!(flushes_slow, "Flushes that took over a second"),
    counter!(
        slow_disk_handovers,
        "Times the core handed over what it led because its disk was slower than its peers'"
    ),
    counter!(fsync_errors, "Log writes or flushes that failed; the first one ends the node"),
    counter!(segments_made, "Log segments prepared by writing zeroes, 64 MiB each"),
    counter!(segments_recycled, "Log segments prepared by renaming one that was given up"),
    counter!(segments_reclaimed, "Log segments given up"),
    counter!(corrupt_detected, "Damaged records found on disk"),
    counter!(corrupt_repaired, "Damaged records replaced from a peer"),
    counter!(snapshots_begun, "Snapshots that groups began to take of themselves"),
    counter!(snapshots_taken, "Snapshots of themselves that are whole and durable"),
    counter!(snapshots_sent, "Snapshots that a follower has taken from here"),
    counter!(snapshots_received, "Snapshots taken from a leader"),
    counter!(snapshots_failed, "Snapshots that were begun and did not arrive"),
    counter!(
        snapshot_bytes_sent,
        "snapshot_sent",
        In::Bytes,
        "Bytes of snapshots sent, repetitions included"
    ),
    counter!(frames_dropped, "Frames dropped because a lane was full or its link broke"),
    counter!(frames_rejected, "Frames from peers with a wrong checksum, address, size or shape"),
    counter!(messages_rejected, "Raft messages for a group or replica that is not here"),
    counter!(peers_silent, "Connections from peers closed because nothing came over them"),
    counter!(
        peers_refused,
        "Connections from peers refused: no handshake, another cluster, a wrong certificate"
    ),
];

/// What rises and falls, or is 0 or 1.
const GAUGES: &[OfCore] = &[
    counter!(connections, "Client connections open"),
    counter!(unread_bytes, "unread", In::Bytes, "Bytes of replies that clients have not read"),
    OfCore {
        name: "has_leader",
        unit: In::Count,
        help: "Whether this node knows the leader of every group of the core",
        read: |report| u64::from(leaderless(report) == 0),
    },
    OfCore {
        name: "is_leader",
        unit: In::Count,
        help: "Whether the core leads a group",
        read: |report| u64::from(0 < status::led(report)),
    },
    OfCore {
        name: "groups",
        unit: In::Count,
        help: "Replicas of groups on the core",
        read: |report| report.shard.groups.len() as u64,
    },
    OfCore {
        name: "groups_led",
        unit: In::Count,
        help: "Groups that the core leads",
        read: |report| status::led(report) as u64,
    },
    OfCore {
        name: "groups_leaderless",
        unit: In::Count,
        help: "Groups whose leader this node does not know",
        read: leaderless,
    },
    OfCore {
        name: "groups_failed",
        unit: In::Count,
        help: "Replicas that have stopped for good",
        read: |report| {
            report.shard.groups.iter().filter(|group| group.failed.is_some()).count() as u64
        },
    },
    OfCore {
        name: "groups_recalling",
        unit: In::Count,
        help: "Replicas that have lost part of their log and do not have it back yet",
        read: |report| report.shard.groups_recalling,
    },
    OfCore {
        name: "proposals_pending",
        unit: In::Count,
        help: "Entries that wait for agreement in the groups that the core leads",
        read: status::pending,
    },
    OfCore {
        name: "keys",
        unit: In::Count,
        help: "Keys held by the replicas of the core",
        read: |report| report.shard.groups.iter().map(|group| group.keys).sum(),
    },
    OfCore {
        name: "log",
        unit: In::Bytes,
        help: "Bytes of the segments that hold the core's log",
        read: |report| report.shard.log_bytes,
    },
    OfCore {
        name: "disk_full",
        unit: In::Count,
        help: "Whether the disk refuses more log",
        read: |report| u64::from(report.shard.disk_full),
    },
    OfCore {
        name: "draining",
        unit: In::Count,
        help: "Whether the core hands over what it leads",
        read: |report| u64::from(report.draining),
    },
];

/// What each group is, while there are few.
const GROUP_GAUGES: &[OfGroup] = &[
    OfGroup {
        name: "group_has_leader",
        help: "Whether this node knows the group's leader",
        read: |group| u64::from(group.leader.is_some()),
    },
    OfGroup {
        name: "group_is_leader",
        help: "Whether this node leads the group",
        read: |group| u64::from(group.role == RoleKind::Leader),
    },
    OfGroup { name: "group_term", help: "The group's term", read: |group| group.term.0 },
    OfGroup {
        name: "group_commit_index",
        help: "The highest index known to be committed",
        read: |group| group.commit.0,
    },
    OfGroup {
        name: "group_applied_index",
        help: "The highest index applied",
        read: |group| group.applied.0,
    },
];

fn leaderless(report: &CoreReport) -> u64 {
    report.shard.groups.iter().filter(|group| !group.leader.is_some()).count() as u64
}

/// Everything that one answer says.
#[derive(Debug, Clone)]
struct Page {
    info: [(&'static str, String); 5],
    is_ready: bool,
    process: Process,
    answered: Answered,
    until: Until,
    reports: Arc<Reports>,
}

impl Page {
    fn encode(self, open_metrics: bool) -> (&'static str, String) {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(OfProcess(self.process)));
        registry.sub_registry_with_prefix("outrigger").register_collector(Box::new(self));
        let mut text = String::new();
        let (kind, encoded) = if open_metrics {
            (OPEN_METRICS, prometheus_client::encoding::text::encode(&mut text, &registry))
        } else {
            let encoded =
                prometheus_client::encoding::prometheus_text::encode(&mut text, &registry);
            (PROMETHEUS, encoded)
        };
        encoded.expect("a String takes everything");
        (kind, text)
    }

    fn of_cores(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        table: &[OfCore],
        kind: MetricType,
    ) -> fmt::Result {
        for OfCore { name, unit, help, read } in table {
            let mut metric = encoder.encode_descriptor(name, help, unit.unit(), kind)?;
            for report in self.reports.cores.iter() {
                let labels = [("core", report.shard.shard.0)];
                number(metric.encode_family(&labels)?, kind, read(report))?;
            }
        }
        Ok(())
    }

    fn of_groups(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let total: usize = self.reports.cores.iter().map(|report| report.shard.groups.len()).sum();
        let shown = if total <= ADMIN_GROUP_SERIES_MAX { &self.reports.cores[..] } else { &[] };
        for OfGroup { name, help, read } in GROUP_GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for report in shown {
                for group in &report.shard.groups {
                    let labels =
                        [("core", u64::from(report.shard.shard.0)), ("group", group.group.0)];
                    number(metric.encode_family(&labels)?, MetricType::Gauge, read(group))?;
                }
            }
        }
        Ok(())
    }

    fn durations(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &'static str,
        help: &'static str,
        read: fn(&CoreReport) -> &Durations,
    ) -> fmt::Result {
        let kind = MetricType::Histogram;
        let mut metric = encoder.encode_descriptor(name, help, In::Seconds.unit(), kind)?;
        for report in self.reports.cores.iter() {
            let labels = [("core", report.shard.shard.0)];
            histogram(metric.encode_family(&labels)?, read(report))?;
        }
        Ok(())
    }

    /// Where the time of commits goes: histograms of the stages, and what set the times.
    fn commits(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "From the receipt of a write until its reply, at the group's leader";
        self.durations(encoder, "commit_duration", help, |report| report.explained.commits())?;
        let help = "What a stage of a commit took; stages of a follower have its node";
        let (unit, kind) = (In::Seconds.unit(), MetricType::Histogram);
        let mut metric = encoder.encode_descriptor("commit_stage_duration", help, unit, kind)?;
        let here = self.info[0].1.as_str();
        for report in self.reports.cores.iter() {
            let core = report.shard.shard.to_string();
            for (node, stage, durations) in report.explained.stages() {
                let node = node.map_or_else(|| here.to_owned(), |node| node.to_string());
                let labels =
                    [("core", core.as_str()), ("node", node.as_str()), ("stage", stage.name())];
                histogram(metric.encode_family(&labels)?, durations)?;
            }
        }
        let help = "Writes whose commit time was set by this node, most by this stage";
        let kind = MetricType::Counter;
        let mut metric = encoder.encode_descriptor("commits_set_by", help, None, kind)?;
        for report in self.reports.cores.iter() {
            let core = report.shard.shard.to_string();
            for (node, stage, commands) in report.explained.set_by() {
                let node = node.to_string();
                let labels =
                    [("core", core.as_str()), ("node", node.as_str()), ("stage", stage.name())];
                number(metric.encode_family(&labels)?, kind, commands)?;
            }
        }
        Ok(())
    }

    fn links(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let links = || {
            let links = |report: &CoreReport| report.shard.driver.links.clone();
            self.reports.cores.iter().flat_map(move |report| {
                let core = u64::from(report.shard.shard.0);
                links(report)
                    .into_iter()
                    .map(move |link| ([("core", core), ("peer", link.node.0)], link))
            })
        };
        let help = "Whether the core's link to the peer is up";
        let mut metric = encoder.encode_descriptor("peer_up", help, None, MetricType::Gauge)?;
        for (labels, link) in links() {
            metric.encode_family(&labels)?.encode_gauge(&u64::from(link.up))?;
        }
        let help =
            "The kernel's smoothed round trip on the core's link to the peer, while it is up";
        let unit = In::Seconds.unit();
        let mut metric =
            encoder.encode_descriptor("peer_round_trip", help, unit, MetricType::Gauge)?;
        for (labels, link) in links() {
            if let Some(us) = link.round_trip_us {
                metric.encode_family(&labels)?.encode_gauge(&seconds(us.into()))?;
            }
        }
        Ok(())
    }
}

/// The process, by Prometheus' own names.
#[derive(Debug)]
struct OfProcess(Process);

impl Collector for OfProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let it = &self.0;
        let help = "Processor time of all threads, in the kernel and outside";
        encoder
            .encode_descriptor("process_cpu", help, In::Seconds.unit(), MetricType::Counter)?
            .encode_counter(&it.cpu_seconds, None::<&Exemplar<NoLabelSet, u64>>)?;
        let help = "When the process started, since 1970";
        encoder
            .encode_descriptor("process_start_time", help, In::Seconds.unit(), MetricType::Gauge)?
            .encode_gauge(&it.start_seconds)?;
        for (name, unit, help, value) in [
            ("process_resident_memory", In::Bytes, "Memory that is in RAM", it.resident_bytes),
            ("process_virtual_memory", In::Bytes, "Address space", it.virtual_bytes),
            ("process_threads", In::Count, "Threads", it.threads),
            ("process_open_fds", In::Count, "Open files, sockets and rings", it.open_files),
            ("process_max_fds", In::Count, "How many of them may be open", it.open_files_max),
        ] {
            let metric = encoder.encode_descriptor(name, help, unit.unit(), MetricType::Gauge)?;
            number(metric, MetricType::Gauge, value)?;
        }
        Ok(())
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        encoder
            .encode_descriptor("node", "Who the node is and how it is set", None, MetricType::Info)?
            .encode_info(&self.info.each_ref().map(|(name, value)| (*name, value.as_str())))?;
        encoder
            .encode_descriptor("ready", "Whether /readyz says yes", None, MetricType::Gauge)?
            .encode_gauge(&u64::from(self.is_ready))?;
        let help = "Time since the process started";
        encoder
            .encode_descriptor("uptime", help, In::Seconds.unit(), MetricType::Gauge)?
            .encode_gauge(&(self.reports.at.0 as f64 / 1e3))?;
        let (help, kind) = ("Requests to the admin port that were answered", MetricType::Counter);
        let mut metric = encoder.encode_descriptor("admin_requests", help, None, kind)?;
        for (class, count) in self.answered.by_class() {
            number(metric.encode_family(&[("code", class)])?, kind, count)?;
        }
        let help = "When the certificate in use expires, since 1970";
        let (unit, kind) = (In::Seconds.unit(), MetricType::Gauge);
        let mut metric =
            encoder.encode_descriptor("certificate_expiry_timestamp", help, unit, kind)?;
        for (whom, until) in [("clients", self.until.clients), ("peers", self.until.peers)] {
            if let Some(until) = until {
                number(metric.encode_family(&[("for", whom)])?, kind, until)?;
            }
        }
        self.of_cores(encoder, GAUGES, MetricType::Gauge)?;
        self.of_cores(encoder, COUNTERS, MetricType::Counter)?;
        let help = "From handing a log write to the kernel until it is durable";
        self.durations(encoder, "flush_duration", help, |report| &report.flushes)?;
        let help = "From the start of a turn of a core's loop to its end";
        self.durations(encoder, "turn_duration", help, |report| &report.turns)?;
        let help = "From sending a command on to the node that leads until having its answer";
        self.durations(encoder, "forward_duration", help, |report| &report.forwards)?;
        self.commits(encoder)?;
        self.links(encoder)?;
        self.of_groups(encoder)
    }
}

fn histogram(mut metric: MetricEncoder<'_>, durations: &Durations) -> fmt::Result {
    let bounds = BUCKETS_US.iter().map(|us| seconds(*us)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(durations.buckets()).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    metric.encode_histogram::<NoLabelSet>(seconds(durations.sum_us()), count, &buckets, None)
}

fn number(mut metric: MetricEncoder<'_>, kind: MetricType, value: u64) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter(&value, None::<&Exemplar<NoLabelSet, u64>>),
        _ => metric.encode_gauge(&value),
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::id::{GroupId, Tick};
    use crate::runtime::admin::gather::tests::report;
    use crate::shard::report::Counters;

    fn page(reports: Vec<CoreReport>) -> Page {
        let mut answered = Answered::default();
        answered.count(Status::Ok);
        answered.count(Status::Misdirected);
        answered.count(Status::NotFound);
        Page {
            info: ["node", "cluster", "version", "routing", "flush_method"]
                .map(|name| (name, "x".to_owned())),
            is_ready: true,
            process: Process { resident_bytes: 7 << 20, cpu_seconds: 2.5, ..Process::default() },
            answered,
            until: Until { clients: Some(1_893_456_000), peers: None },
            reports: Arc::new(Reports { at: Tick(1_500), cores: reports }),
        }
    }

    fn text(open_metrics: bool) -> String {
        page(vec![report(0), report(1)]).encode(open_metrics).1
    }

    /// Names of samples, as a query would use them, with their types; `_bucket` and the like left out.
    fn names() -> BTreeMap<String, String> {
        let text = text(false);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let split = |line: &str| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        types.filter_map(split).collect()
    }

    #[test]
    fn every_counter_of_a_shard_is_a_metric() {
        // Each field has another value, and each value is told by one series of core 0.
        let mut report = report(0);
        let fields: Vec<&str> = Counters::default().named().map(|(name, _)| name).collect();
        assert_eq!(fields.len(), fields.iter().collect::<BTreeSet<_>>().len());
        let mut told = BTreeSet::new();
        for OfCore { read, .. } in COUNTERS.iter().chain(GAUGES) {
            report.shard.counters = Counters::default();
            let nothing = read(&report);
            for (at, name) in fields.iter().enumerate() {
                report.shard.counters = only(at);
                if read(&report) != nothing {
                    told.insert(*name);
                }
            }
        }
        let missing: Vec<_> = fields.iter().filter(|name| !told.contains(*name)).collect();
        assert!(missing.is_empty(), "counters without a metric: {missing:?}");
    }

    /// Counters of which only the field at this place is not zero.
    fn only(at: usize) -> Counters {
        Counters::numbered(|place| u64::from(place == at))
    }

    #[test]
    fn every_family_has_help_and_a_name_that_says_its_unit() {
        let text = text(true);
        assert!(text.ends_with("# EOF\n"));
        let mut families = 0;
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, _) = line.split_once(' ').expect("name and type");
            families += 1;
            assert!(name.starts_with("outrigger_") || name.starts_with("process_"), "{name}");
            let help = format!("# HELP {name} ");
            assert!(text.lines().any(|line| line.len() > help.len() && line.starts_with(&help)));
            for unit in ["bytes", "seconds"] {
                let says = text.lines().any(|line| *line == *format!("# UNIT {name} {unit}"));
                assert_eq!(says, name.ends_with(&format!("_{unit}")), "{name}");
            }
        }
        assert_eq!(families, names().len());
        for (name, kind) in names() {
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        }
    }

    #[test]
    fn values_are_told_by_core_and_group_and_histograms_are_cumulative() {
        let text = text(false);
        for line in [
            "outrigger_wal_flushes_total{core=\"0\"} 2",
            "outrigger_entries_written_total{core=\"1\"} 3",
            "outrigger_proposals_pending{core=\"0\"} 2",
            "outrigger_proposals_committed_total{core=\"0\"} 9",
            "outrigger_log_bytes{core=\"1\"} 1048576",
            "outrigger_group_is_leader{core=\"0\",group=\"0\"} 1",
            "outrigger_group_is_leader{core=\"1\",group=\"1\"} 0",
            "outrigger_group_applied_index{core=\"1\",group=\"1\"} 8",
            "outrigger_peer_up{core=\"0\",peer=\"2\"} 1",
            "outrigger_peer_round_trip_seconds{core=\"0\",peer=\"2\"} 0.00015",
            "outrigger_flush_duration_seconds_count{core=\"0\"} 2",
            "outrigger_flush_duration_seconds_sum{core=\"0\"} 0.0407",
            "outrigger_flush_duration_seconds_bucket{core=\"0\",le=\"0.0005\"} 0",
            "outrigger_flush_duration_seconds_bucket{core=\"0\",le=\"0.001\"} 1",
            "outrigger_flush_duration_seconds_bucket{core=\"0\",le=\"0.05\"} 2",
            "outrigger_flush_duration_seconds_bucket{core=\"0\",le=\"+Inf\"} 2",
            "outrigger_forward_duration_seconds_count{core=\"1\"} 1",
            "outrigger_forward_duration_seconds_bucket{core=\"1\",le=\"0.0025\"} 1",
            "outrigger_commit_duration_seconds_count{core=\"0\"} 3",
            "outrigger_commit_stage_duration_seconds_count{core=\"1\",node=\"x\",stage=\"flush\"} 3",
            "outrigger_commit_stage_duration_seconds_count{core=\"0\",node=\"2\",stage=\"follower_flush\"} 3",
            "outrigger_commits_set_by_total{core=\"0\",node=\"2\",stage=\"follower_flush\"} 3",
            "outrigger_admin_requests_total{code=\"2xx\"} 1",
            "outrigger_admin_requests_total{code=\"4xx\"} 2",
            "outrigger_admin_requests_total{code=\"5xx\"} 0",
            "outrigger_certificate_expiry_timestamp_seconds{for=\"clients\"} 1893456000",
            "outrigger_uptime_seconds 1.5",
            "outrigger_ready 1",
            "process_cpu_seconds_total 2.5",
            "process_resident_memory_bytes 7340032",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    /// The rows of `docs/metrics.md`: name, type, unit.
    fn documented() -> Vec<[String; 3]> {
        let is_row =
            |line: &&str| ["outrigger_", "process_"].iter().any(|of| line[3..].starts_with(of));
        let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `")).filter(is_row);
        let cell = |line: &str, at: usize| {
            let cell = line.split('|').nth(at).unwrap_or_default();
            cell.trim().trim_matches('`').to_owned()
        };
        // Alerts have expressions in their first cell, and no type in their second.
        let is_metric = |row: &[String; 3]| {
            ["counter", "gauge", "histogram", "info"].contains(&row[1].as_str())
        };
        rows.map(|line| [1, 2, 3].map(|at| cell(line, at))).filter(is_metric).collect()
    }

    const DOCUMENT: &str = include_str!("../../../docs/metrics.md");
    const DASHBOARD: &str = include_str!("../../../docs/grafana/outrigger.json");

    #[test]
    fn every_metric_is_in_the_document_and_nothing_else_is() {
        let names = names();
        let documented = documented();
        let mut rows = BTreeMap::new();
        for [name, kind, unit] in &documented {
            assert!(rows.insert(name.clone(), kind.clone()).is_none(), "{name} has two rows");
            for suffix in ["bytes", "seconds"] {
                let base = name.trim_end_matches("_total");
                assert_eq!(base.ends_with(&format!("_{suffix}")), unit == suffix, "{name}: {unit}");
            }
        }
        for (name, kind) in &names {
            let told = rows.remove(name).unwrap_or_else(|| {
                panic!("/metrics has {name}, and docs/metrics.md has no row for it")
            });
            let kind = if name == "outrigger_node_info" { "info" } else { kind };
            assert_eq!(told, kind, "{name}");
        }
        assert!(rows.is_empty(), "docs/metrics.md has metrics that do not exist: {rows:?}");
    }

    #[test]
    fn alerts_and_the_dashboard_ask_for_metrics_that_exist() {
        let names = names();
        let is_known = |word: &str| {
            let histogram = ["_bucket", "_sum", "_count"]
                .into_iter()
                .filter_map(|suffix| word.strip_suffix(suffix))
                .any(|base| names.get(base).is_some_and(|kind| kind == "histogram"));
            histogram || names.get(word).is_some_and(|kind| kind != "histogram")
        };
        assert!(is_known("outrigger_flush_duration_seconds_bucket"));
        assert!(!is_known("outrigger_commands") && !is_known("outrigger_ready_bucket"));
        for text in [DOCUMENT, DASHBOARD] {
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let mut seen = 0;
            for word in words.filter(|word| word.starts_with("outrigger_") && !word.ends_with('_'))
            {
                seen += 1;
                // The rows of the table name a histogram as a whole.
                let is_row = text == DOCUMENT && names.contains_key(word);
                assert!(is_row || is_known(word), "{word} does not exist");
            }
            assert!(seen > 30, "only {seen} names found");
        }
        let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        assert!(panels.iter().all(|panel| panel["title"].is_string()));
    }

    #[test]
    fn a_node_of_very_many_groups_has_sums_and_no_series_for_each() {
        let mut report = report(0);
        let group = report.shard.groups[0].clone();
        let of = |count: usize| -> Vec<GroupReport> {
            (0..count as u64)
                .map(|id| GroupReport { group: GroupId(id), ..group.clone() })
                .collect()
        };
        report.shard.groups = of(ADMIN_GROUP_SERIES_MAX);
        let text = page(vec![report.clone()]).encode(false).1;
        assert_eq!(text.matches("outrigger_group_term{").count(), ADMIN_GROUP_SERIES_MAX);
        report.shard.groups = of(ADMIN_GROUP_SERIES_MAX + 1);
        let text = page(vec![report]).encode(false).1;
        assert_eq!(text.matches("group=\"").count(), 0);
        assert!(text.contains(&format!(
            "outrigger_groups_led{{core=\"0\"}} {}",
            ADMIN_GROUP_SERIES_MAX + 1
        )));
    }
}
