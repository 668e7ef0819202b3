//! What `top` knows of a cluster: the text of `INFO` in numbers, and how they change.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What a node said, or did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Its `INFO`.
    Info(String),
    /// It answers, with a refusal: it replays its log, or wants a password.
    Refused(String),
    /// It does not answer, and why.
    Nothing(String),
}

/// The cluster, as last looked at.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<SocketAddr, Node>,
}

/// One node, as last looked at.
#[derive(Debug, Default)]
pub struct Node {
    /// What it last said, if that was of use.
    pub now: Option<Sample>,
    /// What it said before that.
    pub before: Option<Sample>,
    /// Its id, as it last said it; empty if it never did.
    pub id: String,
    /// Why it is of no use, if it is not.
    pub trouble: Option<String>,
}

/// One look at one node.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    at_ms: u64,
    fields: BTreeMap<String, String>,
}

/// Percentiles of a duration since the node started, in µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// How often it was measured.
    pub count: u64,
    /// Half were faster.
    pub p50: u64,
    /// One in a hundred was slower.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
}

/// One replica's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Of which group.
    pub group: u64,
    /// `leader`, `follower`, …, or `failed`.
    pub role: String,
    /// The node it takes for the leader; 0 is nobody.
    pub leader: u64,
    /// Its term.
    pub term: u64,
    /// The last entry it knows to be committed.
    pub commit: u64,
    /// The last entry it has applied.
    pub applied: u64,
}

/// One group, put together from all nodes that answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its number.
    pub group: u64,
    /// The node that says it leads, in the latest term.
    pub leader: Option<u64>,
    /// The latest term.
    pub term: u64,
    /// The latest commit index any node knows.
    pub commit: u64,
    /// Entries committed per second.
    pub rate: f64,
    /// How many entries the slowest replica that answers is behind, and which node that is.
    pub behind: (u64, u64),
    /// Replicas that have stopped.
    pub failed: Vec<u64>,
}

impl Cluster {
    /// There is a node here.
    pub fn on_address(&mut self, address: SocketAddr) {
        self.nodes.entry(address).or_default();
    }

    /// What `CLUSTER NODES` says. A node that is in it no longer is gone.
    pub fn on_nodes(&mut self, text: &str) {
        let address = |line: &str| {
            let place = line.split(' ').nth(1)?.split('@').next()?;
            let (ip, port) = place.rsplit_once(':')?;
            let ip = ip.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
            Some(SocketAddr::new(ip, port.parse().ok()?))
        };
        let named: Vec<SocketAddr> = text.lines().filter_map(address).collect();
        if named.is_empty() {
            return;
        }
        self.nodes.retain(|address, _| named.contains(address));
        named.into_iter().for_each(|address| self.on_address(address));
    }

    /// Where nodes are.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.keys().copied().collect()
    }

    /// What the node there said at this time.
    pub fn on_heard(&mut self, address: SocketAddr, at_ms: u64, heard: Heard) {
        let node = self.nodes.entry(address).or_default();
        match heard {
            Heard::Info(text) => {
                node.before = node.now.take();
                let now = Sample::parse(at_ms, &text);
                node.id = now.text("node_id").to_owned();
                node.now = Some(now);
                node.trouble = None;
            }
            Heard::Refused(why) | Heard::Nothing(why) => {
                // What it did before it was gone says nothing about now.
                (node.before, node.now, node.trouble) = (None, None, Some(why));
            }
        }
    }

    /// The nodes by address.
    pub fn nodes(&self) -> impl Iterator<Item = (SocketAddr, &Node)> {
        self.nodes.iter().map(|(address, node)| (*address, node))
    }

    /// The groups: those without a leader and with stopped replicas first, then the slowest, then the
    /// busiest.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
        let mut slowest: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (_, node) in self.nodes() {
            let Some(now) = &node.now else { continue };
            for replica in now.replicas() {
                let group = groups.entry(replica.group).or_insert_with(|| Group {
                    group: replica.group,
                    leader: None,
                    term: 0,
                    commit: 0,
                    rate: 0.0,
                    behind: (0, 0),
                    failed: Vec::new(),
                });
                if replica.role == "leader" && group.term <= replica.term {
                    group.leader = Some(now.number("node_id"));
                }
                group.term = group.term.max(replica.term);
                group.commit = group.commit.max(replica.commit);
                if replica.role == "failed" {
                    group.failed.push(now.number("node_id"));
                }
                let name = format!("group_{}", replica.group);
                group.rate = group.rate.max(node.rate_of(&name, "commit"));
                let slow = slowest.entry(replica.group).or_insert((u64::MAX, 0));
                if replica.applied < slow.0 {
                    *slow = (replica.applied, now.number("node_id"));
                }
            }
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        for group in &mut groups {
            let (applied, node) = slowest.get(&group.group).copied().unwrap_or((u64::MAX, 0));
            group.behind = (group.commit.saturating_sub(applied), node);
        }
        groups.sort_by(|one, other| {
            let ill = |it: &Group| (it.leader.is_some(), it.failed.is_empty());
            ill(one)
                .cmp(&ill(other))
                .then(other.behind.0.cmp(&one.behind.0))
                .then(other.rate.total_cmp(&one.rate))
                .then(one.group.cmp(&other.group))
        });
        groups
    }
}

impl Node {
    /// How fast a counter grows, per second; zero before the second look.
    #[must_use]
    pub fn rate(&self, name: &str) -> f64 {
        self.rate_by(|sample| sample.number(name))
    }

    fn rate_of(&self, name: &str, part: &str) -> f64 {
        self.rate_by(|sample| sample.part(name, part))
    }

    fn rate_by(&self, count: impl Fn(&Sample) -> u64) -> f64 {
        let (Some(now), Some(before)) = (&self.now, &self.before) else { return 0.0 };
        let ms = now.at_ms.saturating_sub(before.at_ms);
        // A counter that is smaller than before is of another life.
        let more = count(now).saturating_sub(count(before));
        if ms == 0 { 0.0 } else { more as f64 * 1000.0 / ms as f64 }
    }

    /// Entries per flush since the look before; zero if there was no flush.
    #[must_use]
    pub fn entries_per_flush(&self) -> f64 {
        let (entries, flushes) = (self.rate("entries_committed"), self.rate("wal_flushes"));
        if flushes == 0.0 { 0.0 } else { entries / flushes }
    }
}

impl Sample {
    fn parse(at_ms: u64, text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { at_ms, fields: fields.collect() }
    }

    /// A field as it was said; nothing if it was not.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// A field as a number; zero if it is none.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap_or(0)
    }

    /// A number within a field of several, `name:part=number,…`.
    fn part(&self, name: &str, part: &str) -> u64 {
        word(self.text(name), part).parse().unwrap_or(0)
    }

    /// Percentiles of one core, `flush` or `turn`.
    #[must_use]
    pub fn spread(&self, what: &str, core: u64) -> Spread {
        let name = format!("{what}_us_core_{core}");
        Spread {
            count: self.part(&name, "n"),
            p50: self.part(&name, "p50"),
            p99: self.part(&name, "p99"),
            max: self.part(&name, "max"),
        }
    }

    /// What set the time of most writes of a core lately: the node, the stage, its share.
    #[must_use]
    pub fn set_by(&self, core: u64) -> Option<String> {
        let of_core = |(name, value): (&String, &String)| {
            let (what, on) = name.strip_prefix("commits_set_by_node_")?.rsplit_once("_core_")?;
            let (node, stage) = what.split_once('_')?;
            let share = word(value, "share").trim_end_matches('%').parse::<f64>().ok()?;
            let is_it = on.parse() == Ok(core);
            is_it.then(|| (share, format!("{node}: {} {share:.0}%", stage.replace('_', " "))))
        };
        let all = self.fields.iter().filter_map(of_core);
        all.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, text)| text)
    }

    /// Its links to others: the node, the core, whether it is up, and its round trip in µs.
    pub fn links(&self) -> impl Iterator<Item = (u64, u64, bool, u64)> {
        self.fields.iter().filter_map(|(name, value)| {
            let (node, core) = name.strip_prefix("link_")?.split_once("_core_")?;
            let trip = word(value, "rtt_us").parse().unwrap_or(0);
            Some((node.parse().ok()?, core.parse().ok()?, value.starts_with("up"), trip))
        })
    }

    fn replicas(&self) -> impl Iterator<Item = Replica> {
        self.fields.iter().filter_map(|(name, value)| {
            let group = name.strip_prefix("group_")?.parse().ok()?;
            let number = |part: &str| word(value, part).parse().unwrap_or(0);
            Some(Replica {
                group,
                role: word(value, "role").to_owned(),
                leader: number("leader"),
                term: number("term"),
                commit: number("commit"),
                applied: number("applied"),
            })
        })
    }
}

/// The value of `part` in `part=value,…`.
fn word<'a>(text: &'a str, part: &str) -> &'a str {
    let mut words = text.split(',').filter_map(|word| word.split_once('='));
    words.find(|(name, _)| *name == part).map_or("", |(_, value)| value)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn address(node: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 7000 + node))
    }

    /// What node `node` says after `seconds`: two groups, of which it leads the one with its number.
    pub(in super::super) fn info(node: u64, seconds: u64) -> String {
        let group = |group: u64, behind: u64| {
            let role = if group + 1 == node { "leader" } else { "follower" };
            let (commit, leader) = (100 + 50 * seconds, group + 1);
            format!(
                "group_{group}:role={role},leader={leader},term=4,commit={commit},applied={},first=1,last=9,core=0\r\n",
                commit - behind
            )
        };
        format!(
            "# Clients\r\nconnected_clients:12\r\n# Stats\r\ntotal_commands_processed:{}\r\n\
             # Outrigger\r\nnode_id:{node}\r\ncluster_id:00000000000000ab\r\ncores:1\r\ngroups:2\r\n\
             groups_led:1\r\nwal_flushes:{}\r\nentries_committed:{}\r\nlog_bytes:134217728\r\n\
             flush_us_core_0:n=900,p50=80,p99=700,p99.9=900,max=2000\r\n\
             commit_us_core_0:n=900,p50=300,p99=800,p99.9=900,max=2000\r\n\
             commits_set_by_node_1_flush_core_0:commands=3,share=3.0%,mean_us=500\r\n\
             commits_set_by_node_2_follower_flush_core_0:commands=97,share=97.0%,mean_us=700\r\n\
             turn_us_core_0:n=900,p50=9,p99=70,p99.9=90,max=200\r\n\
             link_2_core_0:up,rtt_us=140\r\n{}{}",
            2000 * seconds,
            100 * seconds,
            800 * seconds,
            group(0, 0),
            group(1, if node == 3 { 7 } else { 0 }),
        )
    }

    /// Three nodes, of which the last does not answer at the second look.
    pub(in super::super) fn cluster() -> Cluster {
        let mut cluster = Cluster::default();
        cluster.on_nodes(
            "x 10.0.0.1:7001@0 myself,master - 0 0 1 connected 0-8191\n\
             y 10.0.0.1:7002@0 master - 0 0 1 connected 8192-16383\n\
             z 10.0.0.1:7003@0 master - 0 0 1 connected\n",
        );
        for node in 1..=3 {
            cluster.on_heard(address(node), 0, Heard::Info(info(node.into(), 1)));
        }
        for node in 1..=2 {
            cluster.on_heard(address(node), 500, Heard::Info(info(node.into(), 2)));
        }
        cluster
    }

    #[test]
    fn rates_are_by_the_time_between_two_looks() {
        let cluster = cluster();
        let (at, node) = cluster.nodes().next().expect("three nodes");
        assert_eq!(at, address(1));
        assert!((node.rate("total_commands_processed") - 4000.0).abs() < 1e-6);
        assert!((node.entries_per_flush() - 8.0).abs() < 1e-6);
        assert!(node.rate("nothing_of_this_name").abs() < 1e-6);
        let now = node.now.as_ref().expect("it answered");
        let spread = Spread { count: 900, p50: 80, p99: 700, max: 2000 };
        assert_eq!(now.spread("flush", 0), spread);
        assert_eq!(now.spread("flush", 7), Spread::default());
        assert_eq!(now.links().collect::<Vec<_>>(), [(2, 0, true, 140)]);
    }

    #[test]
    fn a_group_is_put_together_from_all_nodes_and_the_ill_ones_come_first() {
        let mut cluster = cluster();
        let groups = cluster.groups();
        assert_eq!(groups.len(), 2);
        // Node 3 said last what it said a second earlier: it is as far behind as that.
        assert_eq!((groups[0].group, groups[0].behind), (1, (57, 3)));
        assert_eq!((groups[0].leader, groups[0].term, groups[0].commit), (Some(2), 4, 200));
        assert!((groups[0].rate - 100.0).abs() < 1e-6);

        cluster.on_heard(address(1), 900, Heard::Nothing("refused".into()));
        let groups = cluster.groups();
        assert_eq!((groups[0].group, groups[0].leader), (0, None), "who led it does not answer");
        cluster.on_nodes("y 10.0.0.1:7002@0 master - 0 0 1 connected 0-16383\n");
        assert_eq!(cluster.addresses(), [address(2)]);
        cluster.on_nodes("");
        assert_eq!(cluster.addresses(), [address(2)], "nobody has said anything");
        cluster.on_nodes("x [::1]:7001@0 myself,master - 0 0 1 connected\n");
        assert_eq!(cluster.addresses(), ["[::1]:7001".parse().expect("an address")]);
    }

    #[test]
    fn a_node_that_comes_back_has_no_rates_at_first() {
        let mut cluster = cluster();
        cluster.on_heard(address(1), 900, Heard::Refused("LOADING".into()));
        cluster.on_heard(address(1), 1900, Heard::Info(info(1, 0)));
        let (_, node) = cluster.nodes().next().expect("three nodes");
        assert!(node.rate("total_commands_processed").abs() < 1e-6);
        cluster.on_heard(address(1), 2900, Heard::Info(info(1, 3)));
        cluster.on_heard(address(1), 3900, Heard::Info(info(1, 1)));
        let (_, node) = cluster.nodes().next().expect("three nodes");
        assert!(node.rate("wal_flushes").abs() < 1e-6, "a smaller count is of another life");
    }
}
