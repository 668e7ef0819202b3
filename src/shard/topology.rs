//! What cluster clients are told: who leads which slots, made of what the cores of this node know.
//!
//! ```text
//!   groups    0       1       2       3            each owns a range of slots (store/slot.rs)
//!   led by    n1      n1      n2      ?
//!             └───┬───┘       │       │
//!   told    0–8191: n1   –12287: n2   –16383: whoever is asked   (it sends on, or says CLUSTERDOWN)
//! ```
//!
//! A group's leader is the *master* of its slots, its other voters are *replicas*. Every slot is told
//! of, though its group has no leader just now: clients give up over a slot that nobody has, and come
//! again over one whose node answers `-CLUSTERDOWN`. So somebody stands in, who need not lead.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use crate::id::{ClusterId, NodeId};
use crate::raft::effects::RoleKind;
use crate::store::cluster::{self, Call};
use crate::store::slot::{self, SLOTS};
use crate::wire::reply::Reply;

use super::report::ShardReport;

/// Where clients reach the nodes that have said so.
pub(super) type Addresses = BTreeMap<NodeId, SocketAddr>;

/// Consecutive groups that are served alike.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    slots: Range<u16>,
    master: NodeId,
    /// The other voters that clients can reach, in order.
    replicas: Vec<NodeId>,
}

/// The cluster as this node sees it.
#[derive(Debug)]
struct Topology<'a> {
    cluster: ClusterId,
    this: NodeId,
    addresses: &'a Addresses,
    parts: Vec<Part>,
    /// Everybody whom some group names as a voter, this node included.
    known: BTreeSet<NodeId>,
    /// Nodes to which no link is up.
    down: BTreeSet<NodeId>,
    /// Slots whose group has a leader.
    slots_led: u16,
    /// The highest term of all groups, and of those that a node leads.
    term: u64,
    terms_led: BTreeMap<NodeId, u64>,
}

/// The reply to `call`, from the reports of all cores of a node.
pub(super) fn reply(call: Call, reports: &[ShardReport], addresses: &Addresses) -> Reply {
    let Some(topology) = Topology::of(reports, addresses) else { return Reply::Nil };
    match call {
        Call::Slots => topology.slots(),
        Call::Shards => topology.shards(),
        Call::Nodes => topology.nodes(),
        Call::Info => topology.info(),
        Call::MyId => Reply::bulk(topology.name(topology.this)),
        Call::Help => Reply::Array(cluster::HELP.iter().map(Reply::bulk).collect()),
        Call::KeySlot | Call::CountKeysInSlot(_) => {
            Reply::error("ERR", "this CLUSTER command is not about nodes")
        }
    }
}

/// `-MOVED`: the group of `slot` is led by the node whose clients connect at `to`.
pub(super) fn moved(slot: u16, to: SocketAddr) -> Reply {
    // As Redis writes it: clients look for the last colon, and want no brackets.
    Reply::error("MOVED", format!("{slot} {}:{}", to.ip(), to.port()))
}

impl<'a> Topology<'a> {
    fn of(reports: &[ShardReport], addresses: &'a Addresses) -> Option<Self> {
        let first = reports.first()?;
        let mut topology = Self {
            cluster: first.cluster,
            this: first.node,
            addresses,
            parts: Vec::new(),
            known: BTreeSet::from([first.node]),
            down: BTreeSet::new(),
            slots_led: 0,
            term: 0,
            terms_led: BTreeMap::new(),
        };
        let links = || reports.iter().flat_map(|report| &report.driver.links);
        topology.down.extend(links().map(|link| link.node));
        for link in links().filter(|link| link.up) {
            topology.down.remove(&link.node);
        }
        let mut groups: Vec<_> = reports.iter().flat_map(|report| &report.groups).collect();
        groups.sort_by_key(|group| group.group);
        for group in groups {
            let slots = slot::group_slots(group.group, first.groups_total);
            let voters: Vec<NodeId> = group.voters.iter().map(|id| NodeId(id.0)).collect();
            topology.known.extend(&voters);
            topology.term = topology.term.max(group.term.0);
            // A leader that has not said where its clients connect cannot be told of.
            let leader = group.leader.is_some().then_some(NodeId(group.leader.0));
            if let Some(leader) = leader {
                topology.slots_led += slots.end - slots.start;
                let term = topology.terms_led.entry(leader).or_default();
                *term = group.term.0.max(*term);
            }
            debug_assert!(group.role != RoleKind::Leader || leader == Some(first.node));
            let this = Some(first.node).filter(|this| voters.contains(this));
            let reachable = |node: &NodeId| addresses.contains_key(node);
            let mut candidates = leader.into_iter().chain(this).chain(voters.iter().copied());
            let Some(master) = candidates.find(reachable) else { continue };
            let others = voters.iter().copied().filter(|node| *node != master && reachable(node));
            topology.add(Part { slots, master, replicas: others.collect() });
        }
        Some(topology)
    }

    /// Adds what follows the parts so far.
    fn add(&mut self, part: Part) {
        match self.parts.last_mut() {
            Some(last)
                if last.slots.end == part.slots.start
                    && last.master == part.master
                    && last.replicas == part.replicas =>
            {
                last.slots.end = part.slots.end;
            }
            _ => self.parts.push(part),
        }
    }

    /// 40 hex digits that name a node, the same at every node and for ever.
    fn name(&self, node: NodeId) -> String {
        format!("{}{:024x}", self.cluster, node.0)
    }

    fn address(&self, node: NodeId) -> (String, i64) {
        let address = self.addresses.get(&node).expect("parts name reachable nodes only");
        (address.ip().to_string(), i64::from(address.port()))
    }

    /// Some clients (redis-py) hold a node for either a master or a replica, whichever they are told
    /// first; a node that they take for a replica is not asked for its part of `DBSIZE` and `SCAN`. So
    /// the first word on every master is that it is one: a slot of its own, without replicas.
    fn slots(&self) -> Reply {
        let node = |node: NodeId| {
            let (ip, port) = self.address(node);
            let name = Reply::bulk(self.name(node));
            Reply::Array(vec![Reply::bulk(ip), Reply::Int(port), name, Reply::Map(Vec::new())])
        };
        let row = |slots: &Range<u16>, nodes: &mut dyn Iterator<Item = NodeId>| {
            let ends = [slots.start, slots.end - 1].map(|slot| Reply::Int(slot.into()));
            Reply::Array(ends.into_iter().chain(nodes.map(node)).collect())
        };
        let (mut first_rows, mut rows) = (Vec::new(), Vec::new());
        let mut told = BTreeSet::new();
        for part in &self.parts {
            let mut slots = part.slots.clone();
            if told.insert(part.master) {
                slots.start += 1;
                let first = part.slots.start..slots.start;
                first_rows.push(row(&first, &mut [part.master].into_iter()));
            }
            if !slots.is_empty() {
                let replicas = part.replicas.iter().copied();
                rows.push(row(&slots, &mut [part.master].into_iter().chain(replicas)));
            }
        }
        first_rows.append(&mut rows);
        Reply::Array(first_rows)
    }

    fn shards(&self) -> Reply {
        let mut shards: Vec<(&Part, Vec<Reply>)> = Vec::new();
        for part in &self.parts {
            let ends = [part.slots.start, part.slots.end - 1].map(|slot| Reply::Int(slot.into()));
            let alike = |it: &&mut (&Part, Vec<Reply>)| {
                it.0.master == part.master && it.0.replicas == part.replicas
            };
            match shards.iter_mut().find(alike) {
                Some((_, slots)) => slots.extend(ends),
                None => shards.push((part, ends.into())),
            }
        }
        let shards = shards.into_iter().map(|(part, slots)| {
            let replicas = part.replicas.iter().map(|node| self.shard_node(*node, "replica"));
            let nodes = [self.shard_node(part.master, "master")].into_iter().chain(replicas);
            Reply::Map(vec![
                (Reply::bulk("slots"), Reply::Array(slots)),
                (Reply::bulk("nodes"), Reply::Array(nodes.collect())),
            ])
        });
        Reply::Array(shards.collect())
    }

    fn shard_node(&self, node: NodeId, role: &str) -> Reply {
        let (ip, port) = self.address(node);
        let health = if self.down.contains(&node) { "fail" } else { "online" };
        Reply::Map(vec![
            (Reply::bulk("id"), Reply::bulk(self.name(node))),
            (Reply::bulk("port"), Reply::Int(port)),
            (Reply::bulk("ip"), Reply::bulk(&ip)),
            (Reply::bulk("endpoint"), Reply::bulk(&ip)),
            (Reply::bulk("role"), Reply::bulk(role)),
            // There is no one offset of a node: every group has its own log.
            (Reply::bulk("replication-offset"), Reply::Int(0)),
            (Reply::bulk("health"), Reply::bulk(health)),
        ])
    }

    fn nodes(&self) -> Reply {
        let mut text = String::new();
        for node in self.known.iter().filter(|node| self.addresses.contains_key(node)) {
            let (name, (ip, port)) = (self.name(*node), self.address(*node));
            let is_down = self.down.contains(node);
            let flags = match (*node == self.this, is_down) {
                (true, _) => "myself,master",
                (false, true) => "master,fail",
                (false, false) => "master",
            };
            let state = if is_down { "disconnected" } else { "connected" };
            let epoch = self.terms_led.get(node).copied().unwrap_or(0);
            // Writing to a String cannot fail. There is no port between nodes that speaks Redis' own
            // protocol, hence `@0`.
            let _ = write!(text, "{name} {ip}:{port}@0 {flags} - 0 0 {epoch} {state}");
            for part in self.parts.iter().filter(|part| part.master == *node) {
                let (first, last) = (part.slots.start, part.slots.end - 1);
                let _ = match first == last {
                    true => write!(text, " {first}"),
                    false => write!(text, " {first}-{last}"),
                };
            }
            text.push('\n');
        }
        Reply::Verbatim(text)
    }

    fn info(&self) -> Reply {
        let state = if self.slots_led == SLOTS { "ok" } else { "fail" };
        let mine = self.terms_led.get(&self.this).copied().unwrap_or(0);
        Reply::Verbatim(format!(
            "cluster_state:{state}\r\ncluster_slots_assigned:{SLOTS}\r\ncluster_slots_ok:{}\r\n\
             cluster_slots_pfail:0\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{}\r\n\
             cluster_size:{}\r\ncluster_current_epoch:{}\r\ncluster_my_epoch:{mine}\r\n",
            self.slots_led,
            SLOTS - self.slots_led,
            self.known.len(),
            self.terms_led.len(),
            self.term,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, Index, ReplicaId, ShardId, Term};
    use crate::shard::report::{Counters, DriverReport, GroupReport, LinkReport};

    fn addresses(nodes: &[u64]) -> Addresses {
        let at = |node: u64| SocketAddr::from(([10, 0, 0, node as u8], 6379));
        nodes.iter().map(|node| (NodeId(*node), at(*node))).collect()
    }

    /// Four groups on two cores of node 1, led by these; 0 is by nobody.
    fn reports(leaders: [u64; 4]) -> Vec<ShardReport> {
        let group = |group: u64| GroupReport {
            group: GroupId(group),
            role: RoleKind::Follower,
            leader: ReplicaId(leaders[group as usize]),
            voters: [1, 2, 3].map(ReplicaId).into(),
            term: Term(4 + group),
            commit: Index(9),
            applied: Index(8),
            first: Index(1),
            last: Index(10),
            keys: 5,
            expires: 0,
            failed: None,
            digest: None,
        };
        let report = |shard: u16| ShardReport {
            slow: Vec::new(),
            node: NodeId(1),
            cluster: ClusterId(0xab),
            shard: ShardId(shard),
            cores: 2,
            groups_total: 4,
            disk_full: false,
            groups_recalling: 0,
            log_bytes: 0,
            counters: Counters::default(),
            driver: DriverReport {
                links: vec![LinkReport { node: NodeId(3), up: false, round_trip_us: None }],
                ..DriverReport::default()
            },
            groups: [u64::from(shard), 2 + u64::from(shard)].map(group).into(),
        };
        vec![report(1), report(0)]
    }

    /// Slots and ports of each range, as `first-last: master replicas`, nodes by their last digit.
    fn ranges(leaders: [u64; 4], addresses: &Addresses) -> Vec<String> {
        let Reply::Array(ranges) = reply(Call::Slots, &reports(leaders), addresses) else {
            panic!("no array")
        };
        let ip = |node: &Reply| match node {
            Reply::Array(parts) => match &parts[..] {
                [Reply::Bulk(ip), Reply::Int(6379), Reply::Bulk(name), Reply::Map(_)] => {
                    assert_eq!(name.len(), 40);
                    String::from_utf8_lossy(&ip[7..]).into_owned()
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let range = |range: &Reply| match range {
            Reply::Array(parts) => match &parts[..] {
                [Reply::Int(first), Reply::Int(last), nodes @ ..] => {
                    let nodes: Vec<String> = nodes.iter().map(ip).collect();
                    format!("{first}-{last}: {}", nodes.join(" "))
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        ranges.iter().map(range).collect()
    }

    fn text(call: Call, leaders: [u64; 4]) -> String {
        match reply(call, &reports(leaders), &addresses(&[1, 2, 3])) {
            Reply::Verbatim(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn slots_name_the_leader_first_and_the_other_voters_after_it() {
        assert_eq!(
            ranges([2, 2, 3, 2], &addresses(&[1, 2, 3])),
            ["0-0: 2", "8192-8192: 3", "1-8191: 2 1 3", "8193-12287: 3 1 2", "12288-16383: 2 1 3",],
            "the first that is said of 2 and 3 is that they are masters"
        );
    }

    #[test]
    fn every_slot_has_a_node_though_its_group_has_no_leader() {
        let all = addresses(&[1, 2, 3]);
        let stand_in = ["0-0: 1", "1-16383: 1 2 3"];
        assert_eq!(ranges([0, 0, 0, 0], &all), stand_in, "whoever is asked");
        let some = addresses(&[1, 2]);
        assert_eq!(
            ranges([3, 3, 3, 2], &some),
            ["0-0: 1", "12288-12288: 2", "1-12287: 1 2", "12289-16383: 2 1"]
        );
        assert_eq!(ranges([3, 3, 3, 3], &addresses(&[2])), ["0-0: 2", "1-16383: 2"]);
        assert!(ranges([3, 3, 3, 3], &addresses(&[])).is_empty());
    }

    #[test]
    fn nodes_are_all_masters_of_what_they_lead() {
        let name = |node: u64| format!("00000000000000ab{node:024}");
        assert_eq!(
            text(Call::Nodes, [2, 3, 2, 0]),
            format!(
                "{} 10.0.0.1:6379@0 myself,master - 0 0 0 connected 12288-16383\n\
                 {} 10.0.0.2:6379@0 master - 0 0 6 connected 0-4095 8192-12287\n\
                 {} 10.0.0.3:6379@0 master,fail - 0 0 5 disconnected 4096-8191\n",
                name(1),
                name(2),
                name(3)
            )
        );
        let me = reply(Call::MyId, &reports([2; 4]), &addresses(&[]));
        assert_eq!(me, Reply::bulk(name(1)));
    }

    #[test]
    fn shards_gather_what_is_served_alike() {
        let shards = reply(Call::Shards, &reports([2, 3, 2, 1]), &addresses(&[1, 2, 3]));
        let Reply::Array(shards) = shards else { panic!("no array") };
        assert_eq!(shards.len(), 3);
        let Reply::Map(first) = &shards[0] else { panic!("no map") };
        let slots = [0, 4095, 8192, 12287].map(Reply::Int);
        assert_eq!(first[0], (Reply::bulk("slots"), Reply::Array(slots.into())));
        let Reply::Array(nodes) = &first[1].1 else { panic!("no nodes") };
        let field = |node: &Reply, name: &str| match node {
            Reply::Map(pairs) => {
                pairs.iter().find(|(key, _)| *key == Reply::bulk(name)).expect("there").1.clone()
            }
            other => panic!("{other:?}"),
        };
        let seen: Vec<_> =
            nodes.iter().map(|it| (field(it, "role"), field(it, "health"))).collect();
        let pair = |role, health| (Reply::bulk(role), Reply::bulk(health));
        let expected =
            [pair("master", "online"), pair("replica", "online"), pair("replica", "fail")];
        assert_eq!(seen, expected);
    }

    #[test]
    fn info_is_fail_while_a_group_has_no_leader() {
        let well = text(Call::Info, [1, 2, 3, 3]);
        for line in ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_size:3"] {
            assert!(well.lines().any(|found| found == line), "{line} is not in {well}");
        }
        let ill = text(Call::Info, [1, 2, 0, 1]);
        for line in [
            "cluster_state:fail",
            "cluster_slots_ok:12288",
            "cluster_slots_fail:4096",
            "cluster_known_nodes:3",
            "cluster_size:2",
            "cluster_current_epoch:7",
            "cluster_my_epoch:7",
        ] {
            assert!(ill.lines().any(|found| found == line), "{line} is not in {ill}");
        }
    }

    #[test]
    fn moved_is_written_as_redis_writes_it() {
        let moved =
            |to: &str| super::moved(9, to.parse().expect("an address")).error_text().to_owned();
        assert_eq!(moved("10.0.0.2:6379"), "MOVED 9 10.0.0.2:6379");
        assert_eq!(moved("[2001:db8::7]:6379"), "MOVED 9 2001:db8::7:6379");
    }
}
