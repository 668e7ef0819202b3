//! What a shard knows of itself: counters, and one line per group. The text of `INFO` is made here
//! so that both drivers answer it alike.

use std::fmt::{self, Write as _};

use crate::id::{ClusterId, GroupId, Index, NodeId, ReplicaId, ShardId, Term};
use crate::limits::SEGMENT_BYTES;
use crate::raft::effects::RoleKind;
use crate::store::connection::Routing;
use crate::wal::{RunKind, Write};

use super::slowlog::SlowOp;
use super::stages::Stage;

/// Counts since the start of the process, one set per shard; `INFO` shows their sums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Disk writes handed to the driver.
    pub wal_writes: u64,
    /// Disk writes that became durable, each by its own flush.
    pub wal_flushes: u64,
    /// Bytes of those writes, headers and padding included.
    pub wal_bytes: u64,
    /// Of those, payloads of entries: what clients and the groups themselves wrote.
    pub wal_payload_bytes: u64,
    /// Of those, pieces of snapshots.
    pub wal_snapshot_bytes: u64,
    /// Of those, zeroes to the end of a block.
    pub wal_padding_bytes: u64,
    /// Entries those writes held, own and followed groups alike.
    pub entries_written: u64,
    /// Commands applied to a state machine here.
    pub entries_committed: u64,
    /// Damaged records found.
    pub corrupt_detected: u64,
    /// Damaged records replaced from a peer.
    pub corrupt_repaired: u64,
    /// Failed writes and flushes; the first one ends the node.
    pub fsync_errors: u64,
    /// Frames from peers refused: wrong checksum, address, size or shape.
    pub frames_rejected: u64,
    /// Raft messages dropped because they named a group or replica that is not here.
    pub messages_rejected: u64,
    /// Frames dropped because a lane was full or its link broke.
    pub frames_dropped: u64,
    /// Turns that started later than they should have.
    pub late_turns: u64,
    /// Heartbeats that left later than twice their interval after the one before.
    pub heartbeats_late: u64,
    /// Heartbeats that were dropped because a link was down or full, or broke before they left.
    pub heartbeat_send_failures: u64,
    /// Log flushes that took over a second.
    pub flushes_slow: u64,
    /// Times this core handed over what it led because its disk was slower than its peers'.
    pub slow_disk_handovers: u64,
    /// Connections from peers closed because nothing came over them.
    pub peers_silent: u64,
    /// Connections from peers refused: the handshake failed, or the node may not take part.
    pub peers_refused: u64,
    /// Wrong passwords, and names of users that do not exist.
    pub auth_failures: u64,
    /// TLS handshakes of clients that came to nothing.
    pub tls_handshake_failures: u64,
    /// Connections of clients refused because there were as many as there may be.
    pub connections_refused: u64,
    /// Commands of clients that their user may not run.
    pub acl_denied_commands: u64,
    /// Commands of clients with a key that their user may not use.
    pub acl_denied_keys: u64,
    /// Commands sent on to another node.
    pub commands_forwarded: u64,
    /// Commands refused by a bound.
    pub commands_refused: u64,
    /// Writes of this core's clients that were refused, or whose outcome is unknown.
    pub proposals_failed: u64,
    /// Snapshots that groups of this core began to take of themselves.
    pub snapshots_begun: u64,
    /// Snapshots of themselves that are whole and durable.
    pub snapshots_taken: u64,
    /// Segments of the log given up.
    pub segments_reclaimed: u64,
    /// Segments prepared by writing a new file of zeroes.
    pub segments_made: u64,
    /// Segments prepared by renaming one that was given up.
    pub segments_recycled: u64,
    /// Times a group got another leader.
    pub leader_changes: u64,
    /// Snapshots that a follower has taken from here.
    pub snapshots_sent: u64,
    /// Snapshots taken from a leader, in place of log and state.
    pub snapshots_received: u64,
    /// Bytes of snapshots sent, repetitions included.
    pub snapshot_bytes_sent: u64,
    /// Snapshots that were begun and did not arrive.
    pub snapshots_failed: u64,
    /// Client connections closed because the clients of the core together left too many bytes of replies unread.
    pub slow_readers_closed: u64,
    /// Bytes of replies that clients have not read now.
    pub unread_bytes: u64,
    /// Client connections open now.
    pub connections: u64,
    /// Commands received from clients.
    pub commands: u64,
}

/// The fields of [`Counters`], for what is done with each.
macro_rules! every_counter {
    ($then:ident) => {
        $then!(
            wal_writes,
            wal_flushes,
            wal_bytes,
            wal_payload_bytes,
            wal_snapshot_bytes,
            wal_padding_bytes,
            entries_written,
            entries_committed,
            corrupt_detected,
            corrupt_repaired,
            fsync_errors,
            frames_rejected,
            messages_rejected,
            frames_dropped,
            late_turns,
            heartbeats_late,
            heartbeat_send_failures,
            flushes_slow,
            slow_disk_handovers,
            peers_silent,
            peers_refused,
            auth_failures,
            tls_handshake_failures,
            connections_refused,
            acl_denied_commands,
            acl_denied_keys,
            commands_forwarded,
            commands_refused,
            proposals_failed,
            snapshots_begun,
            snapshots_taken,
            segments_reclaimed,
            segments_made,
            segments_recycled,
            leader_changes,
            snapshots_sent,
            snapshots_received,
            snapshot_bytes_sent,
            snapshots_failed,
            slow_readers_closed,
            unread_bytes,
            connections,
            commands
        )
    };
}

impl Counters {
    pub(super) fn on_write(&mut self, write: &Write) {
        self.wal_writes += 1;
        self.wal_bytes += write.bytes as u64;
        self.wal_padding_bytes += write.padding_bytes() as u64;
        for run in write.runs() {
            let bytes: usize = run.entries.iter().map(|entry| entry.payload.len()).sum();
            match run.kind {
                RunKind::SnapshotPiece => self.wal_snapshot_bytes += bytes as u64,
                _ => self.wal_payload_bytes += bytes as u64,
            }
        }
    }

    /// Every counter with its name, in the order in which they are declared. A field that is forgotten in
    /// `every_counter` does not compile.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        macro_rules! named {
            ($($name:ident),*) => {{
                let Self { $($name),* } = *self;
                [$((stringify!($name), $name)),*]
            }};
        }
        every_counter!(named).into_iter()
    }

    /// Counters with the value that `value` has for their place in [`Self::named`]: for tests of who shows them.
    #[must_use]
    pub fn numbered(mut value: impl FnMut(usize) -> u64) -> Self {
        let mut place = 0..;
        let mut next = || place.next().map_or(0, &mut value);
        macro_rules! numbered {
            ($($name:ident),*) => { Self { $($name: next()),* } };
        }
        every_counter!(numbered)
    }

    /// Bytes written to the device for each byte of an entry's payload: headers, padding, snapshots, and the
    /// zeroes of new segments included.
    fn write_amplification(&self) -> f64 {
        let zeroes = self.segments_made * SEGMENT_BYTES as u64;
        (self.wal_bytes + zeroes) as f64 / self.wal_payload_bytes.max(1) as f64
    }

    /// Adds another core's counts.
    pub fn add(&mut self, other: &Self) {
        macro_rules! add {
            ($($name:ident),*) => { $(self.$name += other.$name;)* };
        }
        every_counter!(add);
    }
}

/// How long something took, in µs: percentiles of what a histogram of the driver's counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// How often it was measured.
    pub count: u64,
    /// Half were faster.
    pub p50: u64,
    /// One in a hundred was slower.
    pub p99: u64,
    /// One in a thousand was slower.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

/// As `INFO` shows it.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50, p99, p999, max } = self;
        write!(f, "n={count},p50={p50},p99={p99},p99.9={p999},max={max}")
    }
}

/// A core's sending link to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkReport {
    /// The peer.
    pub node: NodeId,
    /// Whether the link is up.
    pub up: bool,
    /// The kernel's smoothed round trip on it, in µs; none while it is down.
    pub round_trip_us: Option<u32>,
}

/// One stage of the commits of a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageSpread {
    /// The follower, if it is a stage of one.
    pub node: Option<NodeId>,
    /// The stage.
    pub stage: Stage,
    /// How long it took.
    pub spread: Spread,
}

/// What set the commit times of the last ten to twenty seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetBy {
    /// The node whose completion was the last that was needed.
    pub node: NodeId,
    /// The longest stage on the way to it.
    pub stage: Stage,
    /// Of how many commands.
    pub commands: u64,
    /// How long those took from receipt to reply, in µs, on average.
    pub mean_us: u64,
}

/// The commits of the groups that a core leads, explained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitsReport {
    /// From the receipt of a command until its reply.
    pub commits: Spread,
    /// Every stage.
    pub stages: Vec<StageSpread>,
    /// What set the times lately, most commands first.
    pub set_by: Vec<SetBy>,
}

/// What only the driver of a core can measure. It brings it up to date about once a second; how long things took
/// is of the last ten to twenty seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DriverReport {
    /// From handing a log write to the kernel until it is durable.
    pub flushes: Spread,
    /// From the start of a turn to its end.
    pub turns: Spread,
    /// From sending a command on to another node until having its answer.
    pub forwards: Spread,
    /// Where the time of commits goes.
    pub commits: CommitsReport,
    /// The links to the other nodes.
    pub links: Vec<LinkReport>,
    /// How log writes are made durable.
    pub flush_method: &'static str,
    /// How bytes of clients come in: `ring` or `poll`.
    pub receive_method: &'static str,
    /// What the node is to clients of Redis Cluster.
    pub routing: Routing,
    /// Bytes of the process's memory that are in RAM. The first core tells.
    pub resident_bytes: u64,
}

/// One group as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupReport {
    /// The group.
    pub group: GroupId,
    /// What this replica is.
    pub role: RoleKind,
    /// Who leads, as far as this replica knows.
    pub leader: ReplicaId,
    /// Who votes in it, in order.
    pub voters: Vec<ReplicaId>,
    /// The highest term seen.
    pub term: Term,
    /// The highest index known committed.
    pub commit: Index,
    /// The highest index applied.
    pub applied: Index,
    /// The first index of the log.
    pub first: Index,
    /// The last index of the log.
    pub last: Index,
    /// Keys held.
    pub keys: u64,
    /// Of those, how many expire.
    pub expires: u64,
    /// Why the replica stopped, if it did.
    pub failed: Option<String>,
    /// The digest of the applied data, if it was asked for.
    pub digest: Option<u64>,
}

/// What one shard knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardReport {
    /// The node.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// The core.
    pub shard: ShardId,
    /// How many cores the node has.
    pub cores: u16,
    /// How many groups the cluster has.
    pub groups_total: u64,
    /// Whether the disk refuses more log.
    pub disk_full: bool,
    /// Replicas that have lost part of their log and do not have it back yet.
    pub groups_recalling: u64,
    /// Bytes of the segments that hold the log, spares not counted.
    pub log_bytes: u64,
    /// The counters.
    pub counters: Counters,
    /// What the driver measured.
    pub driver: DriverReport,
    /// The groups of this core.
    pub groups: Vec<GroupReport>,
    /// Slow operations, oldest first, if they were asked for.
    pub slow: Vec<SlowOp>,
}

/// A role as operators read it.
#[must_use]
pub fn role_name(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Follower => "follower",
        RoleKind::PreCandidate => "pre-candidate",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
    }
}

/// The text of `INFO [section…]`, from the reports of all cores of a node; without a section, of all.
#[must_use]
pub fn info_text(reports: &[ShardReport], sections: &[Vec<u8>]) -> String {
    let wanted = |name: &str| {
        let is_it = |section: &Vec<u8>| {
            [name, "all", "everything", "default"]
                .iter()
                .any(|known| section.eq_ignore_ascii_case(known.as_bytes()))
        };
        sections.is_empty() || sections.iter().any(is_it)
    };
    let mut counters = Counters::default();
    for report in reports {
        counters.add(&report.counters);
    }
    let mut groups: Vec<(&GroupReport, ShardId)> = reports
        .iter()
        .flat_map(|report| report.groups.iter().map(|group| (group, report.shard)))
        .collect();
    groups.sort_by_key(|(group, _)| group.group);
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn fmt::Display| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}:{value}\r\n");
    };
    let Some(first) = reports.first() else { return text };
    if wanted("server") {
        line("# Server\r\nredis_version", &"7.4.0");
        line("redis_mode", &first.driver.routing.mode());
        line("outrigger_version", &env!("CARGO_PKG_VERSION"));
        line("arch_bits", &usize::BITS);
    }
    if wanted("clients") {
        line("# Clients\r\nconnected_clients", &counters.connections);
        line("clients_unread_bytes", &counters.unread_bytes);
        line("slow_readers_closed", &counters.slow_readers_closed);
    }
    if wanted("memory") {
        line("# Memory\r\nused_memory_rss", &first.driver.resident_bytes);
    }
    if wanted("persistence") {
        // Whoever is answered finds a node that has replayed its log.
        line("# Persistence\r\nloading", &0);
        line("aof_enabled", &1);
    }
    if wanted("stats") {
        line("# Stats\r\ntotal_commands_processed", &counters.commands);
        line("rejected_connections", &counters.connections_refused);
        line("acl_access_denied_auth", &counters.auth_failures);
        line("acl_access_denied_cmd", &counters.acl_denied_commands);
        line("acl_access_denied_key", &counters.acl_denied_keys);
    }
    if wanted("replication") {
        line("# Replication\r\nrole", &"master");
        line("connected_slaves", &0);
    }
    if wanted("cluster") {
        line("# Cluster\r\ncluster_enabled", &1);
    }
    if wanted("keyspace") {
        let keys: u64 = groups.iter().map(|(group, _)| group.keys).sum();
        let expires: u64 = groups.iter().map(|(group, _)| group.expires).sum();
        line("# Keyspace\r\ndb0", &format_args!("keys={keys},expires={expires},avg_ttl=0"));
    }
    if wanted("outrigger") {
        let led = groups.iter().filter(|(group, _)| group.role == RoleKind::Leader).count();
        line("# Outrigger\r\nnode_id", &first.node);
        line("cluster_id", &first.cluster);
        line("cores", &first.cores);
        line("groups", &first.groups_total);
        line("groups_led", &led);
        line("wal_flushes", &counters.wal_flushes);
        line("wal_writes", &counters.wal_writes);
        line("wal_bytes", &counters.wal_bytes);
        line("wal_payload_bytes", &counters.wal_payload_bytes);
        line("wal_snapshot_bytes", &counters.wal_snapshot_bytes);
        line("wal_padding_bytes", &counters.wal_padding_bytes);
        line("write_amplification", &format_args!("{:.2}", counters.write_amplification()));
        line("log_bytes", &reports.iter().map(|report| report.log_bytes).sum::<u64>());
        line("snapshots_taken", &counters.snapshots_taken);
        line("segments_reclaimed", &counters.segments_reclaimed);
        line("segments_made", &counters.segments_made);
        line("segments_recycled", &counters.segments_recycled);
        line("entries_committed", &counters.entries_committed);
        let per_flush = counters.entries_written as f64 / counters.wal_flushes.max(1) as f64;
        line("entries_per_flush", &format_args!("{per_flush:.2}"));
        line("corrupt_detected", &counters.corrupt_detected);
        line("corrupt_repaired", &counters.corrupt_repaired);
        line("fsync_errors", &counters.fsync_errors);
        let recalling: u64 = reports.iter().map(|report| report.groups_recalling).sum();
        line("groups_recalling", &recalling);
        line("disk_full", &u8::from(reports.iter().any(|report| report.disk_full)));
        line("frames_rejected", &counters.frames_rejected);
        line("frames_dropped", &counters.frames_dropped);
        line("messages_rejected", &counters.messages_rejected);
        line("late_turns", &counters.late_turns);
        line("heartbeats_late", &counters.heartbeats_late);
        line("heartbeat_send_failures", &counters.heartbeat_send_failures);
        line("flushes_slow", &counters.flushes_slow);
        line("slow_disk_handovers", &counters.slow_disk_handovers);
        line("peers_silent", &counters.peers_silent);
        line("peers_refused", &counters.peers_refused);
        line("tls_handshake_failures", &counters.tls_handshake_failures);
        line("commands_forwarded", &counters.commands_forwarded);
        line("commands_refused", &counters.commands_refused);
        line("proposals_failed", &counters.proposals_failed);
        line("leader_changes", &counters.leader_changes);
        line("snapshots_sent", &counters.snapshots_sent);
        line("snapshots_received", &counters.snapshots_received);
        line("snapshot_bytes_sent", &counters.snapshot_bytes_sent);
        line("snapshots_failed", &counters.snapshots_failed);
        let driver = reports.first().map(|report| &report.driver);
        line("flush_method", &driver.map_or("", |driver| driver.flush_method));
        line("receive_method", &driver.map_or("", |driver| driver.receive_method));
        for report in reports {
            let core = report.shard;
            let DriverReport { flushes, turns, forwards, .. } = report.driver;
            for (what, it) in [("flush", flushes), ("turn", turns), ("forward", forwards)] {
                line(&format!("{what}_us_core_{core}"), &it);
            }
            for link in &report.driver.links {
                let up = if link.up { "up" } else { "down" };
                let trip =
                    link.round_trip_us.map_or_else(String::new, |us| format!(",rtt_us={us}"));
                line(&format!("link_{}_core_{core}", link.node), &format_args!("{up}{trip}"));
            }
        }
        commits_text(reports, &mut line);
        for (group, shard) in groups {
            let role = if group.failed.is_some() { "failed" } else { role_name(group.role) };
            line(
                &format!("group_{}", group.group),
                &format_args!(
                    "role={role},leader={},term={},commit={},applied={},first={},last={},core={shard}",
                    group.leader, group.term, group.commit, group.applied, group.first, group.last,
                ),
            );
        }
    }
    text
}

/// Where the time of commits goes, core by core: a sentence, what set it, and every stage.
fn commits_text(reports: &[ShardReport], line: &mut impl FnMut(&str, &dyn fmt::Display)) {
    for report in reports {
        let (core, CommitsReport { commits, stages, set_by }) =
            (report.shard, &report.driver.commits);
        line(&format!("commit_us_core_{core}"), commits);
        let all: u64 = set_by.iter().map(|it| it.commands).sum();
        for SetBy { node, stage, commands, mean_us } in set_by {
            let share = 100.0 * *commands as f64 / all.max(1) as f64;
            line(
                &format!("commits_set_by_node_{node}_{}_core_{core}", stage.name()),
                &format_args!("commands={commands},share={share:.1}%,mean_us={mean_us}"),
            );
        }
        for StageSpread { node, stage, spread } in stages.iter().filter(|it| 0 < it.spread.count) {
            let of = node.map_or_else(String::new, |node| format!("_node_{node}"));
            line(&format!("stage_{}_us{of}_core_{core}", stage.name()), spread);
        }
    }
}

/// The digest of all data a node has applied: equal on two nodes whose groups have applied the
/// same entries.
#[must_use]
pub fn node_digest(reports: &[ShardReport]) -> u64 {
    let mut groups: Vec<(u64, u64)> = reports
        .iter()
        .flat_map(|report| &report.groups)
        .map(|group| (group.group.0, group.digest.unwrap_or(0)))
        .collect();
    groups.sort_unstable();
    groups.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &(group, digest)| {
        (hash ^ group.rotate_left(32) ^ digest).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(shard: u16, group: u64, role: RoleKind) -> ShardReport {
        ShardReport {
            node: NodeId(2),
            cluster: ClusterId(0xab),
            shard: ShardId(shard),
            cores: 2,
            groups_total: 2,
            disk_full: false,
            groups_recalling: 0,
            log_bytes: 1 << 20,
            counters: Counters { wal_flushes: 2, entries_written: 3, ..Counters::default() },
            driver: DriverReport::default(),
            slow: Vec::new(),
            groups: vec![GroupReport {
                group: GroupId(group),
                role,
                leader: ReplicaId(3),
                voters: [2, 3].map(ReplicaId).into(),
                term: Term(4),
                commit: Index(9),
                applied: Index(8),
                first: Index(1),
                last: Index(10),
                keys: 5,
                expires: 1,
                failed: None,
                digest: Some(7),
            }],
        }
    }

    #[test]
    fn info_sums_cores_and_lists_groups_in_order() {
        let reports = [report(1, 1, RoleKind::Leader), report(0, 0, RoleKind::Follower)];
        let text = info_text(&reports, &[b"Outrigger".to_vec()]);
        assert!(text.starts_with("# Outrigger\r\nnode_id:2\r\n"), "{text}");
        for line in [
            "cluster_id:00000000000000ab",
            "cores:2",
            "groups:2",
            "groups_led:1",
            "wal_flushes:4",
            "log_bytes:2097152",
            "snapshots_taken:0",
            "entries_per_flush:1.50",
            "groups_recalling:0",
            "disk_full:0",
            "flush_us_core_0:n=0,p50=0,p99=0,p99.9=0,max=0",
            "forward_us_core_1:n=0,p50=0,p99=0,p99.9=0,max=0",
            "commit_us_core_1:n=0,p50=0,p99=0,p99.9=0,max=0",
            "group_0:role=follower,leader=3,term=4,commit=9,applied=8,first=1,last=10,core=0",
            "group_1:role=leader,leader=3,term=4,commit=9,applied=8,first=1,last=10,core=1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(!text.contains("redis_version"));
        let all = info_text(&reports, &[]);
        assert!(all.contains("redis_version") && all.contains("keys=10,expires=2,"));
        let two = info_text(&reports, &[b"server".to_vec(), b"MEMORY".to_vec()]);
        assert!(two.starts_with("# Server\r\n") && two.contains("# Memory\r\n"), "{two}");
        assert_eq!(two.matches("# ").count(), 2);
    }

    #[test]
    fn the_digest_depends_on_content_not_on_core_order() {
        let one = [report(0, 0, RoleKind::Leader), report(1, 1, RoleKind::Leader)];
        let two = [report(1, 1, RoleKind::Follower), report(0, 0, RoleKind::Leader)];
        assert_eq!(node_digest(&one), node_digest(&two));
        let mut other = one.clone();
        other[0].groups[0].digest = Some(8);
        assert_ne!(node_digest(&one), node_digest(&other));
    }
}
