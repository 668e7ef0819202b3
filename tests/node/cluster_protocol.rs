//! Redis Cluster's protocol: who leads which slots, `-MOVED`, `CROSSSLOT`, reads of followers.
//!
//! What real clients make of it is in `tests/cluster.sh`.

use std::collections::BTreeMap;

use crate::client::{Client, Reply};
use crate::cluster::{Cluster, Node};
use crate::script::play;
use crate::shared;
use crate::wait::{wait_for, wait_until};

const SLOTS: i64 = 16_384;

/// One row of `CLUSTER SLOTS`: first and last slot, and the ports of its nodes, the master first.
type Range = (i64, i64, Vec<u16>);

fn slots(client: &mut Client) -> Vec<Range> {
    let ranges = client.say("CLUSTER SLOTS").array().into_iter().map(|range| {
        let mut range = range.array().into_iter();
        let mut number = || range.next().expect("first and last").integer();
        let (first, last) = (number(), number());
        let nodes = range.map(|node| {
            let node = node.array();
            assert_eq!(node[0].text(), "127.0.0.1");
            assert_eq!(node[2].text().len(), 40, "a name of 40 hex digits");
            node[1].integer() as u16
        });
        (first, last, nodes.collect())
    });
    ranges.collect()
}

/// The ports of the nodes that serve `slot`, the leader's first, once all three are told of. Not for the
/// first slot of a group, which may stand in a row without replicas.
fn ports_of(client: &mut Client, slot: i64) -> Vec<u16> {
    wait_for("every node is told of", || {
        let mut ranges = slots(client);
        ranges.sort();
        let mut next = 0;
        for (first, last, _) in &ranges {
            assert_eq!(*first, next, "a gap in {ranges:?}");
            next = last + 1;
        }
        assert_eq!(next, SLOTS, "{ranges:?}");
        let range = ranges.into_iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        range.map(|(_, _, ports)| ports).filter(|ports| ports.len() == 3)
    })
}

/// A key, its slot, and a node that leads it not, with a connection that redirects.
fn elsewhere(cluster: &Cluster, key: &str) -> (i64, u16, Client) {
    let mut client = cluster.nodes[0].client();
    let slot = client.say(&format!("CLUSTER KEYSLOT {key}")).integer();
    let leader = ports_of(&mut client, slot)[0];
    let other = cluster.nodes.iter().find(|node| node.client.port() != leader).expect("three");
    let mut client = other.client();
    client.say("CLUSTER MYID");
    (slot, leader, client)
}

#[test]
fn the_words_of_cluster() {
    let cluster = shared::cluster();
    play(
        &mut cluster.nodes[0].client(),
        r#"
        CLUSTER KEYSLOT foo         => :12182
        CLUSTER KEYSLOT {foo}bar    => :12182
        CLUSTER KEYSLOT             => -ERR wrong number of arguments for 'cluster|keyslot' command
        CLUSTER COUNTKEYSINSLOT x   => -ERR Invalid or out of range slot
        CLUSTER FAILOVER            => -ERR CLUSTER FAILOVER is not supported: the groups agree on who serves what (MEMBER). CLUSTER knows SLOTS, SHARDS, NODES, INFO, MYID, KEYSLOT, COUNTKEYSINSLOT, HELP.
        ASKING                      => -ERR ASKING is not supported: a slot never moves key by key, so no node answers with -ASK
        READONLY STALE 0            => -ERR READONLY STALE is from 1 to 600000 ms, not 0
        READONLY NOW                => -ERR syntax error: READONLY [STALE ms]
        READONLY STALE 50           => +OK
        READONLY                    => +OK
        READWRITE                   => +OK
        CONFIG GET cluster-enabled  => ["cluster-enabled" "yes"]
        "#,
    );
    let info = cluster.nodes[0].client().say("INFO cluster").text();
    assert!(info.contains("cluster_enabled:1"), "{info}");
}

#[test]
fn every_node_tells_the_same_of_every_slot() {
    let cluster = shared::cluster();
    let known: Vec<u16> = cluster.nodes.iter().map(|node| node.client.port()).collect();
    wait_until("all nodes tell the same", || {
        let told: Vec<_> = cluster
            .nodes
            .iter()
            .map(|node| {
                (1..SLOTS)
                    .step_by(64)
                    .map(|slot| ports_of(&mut node.client(), slot)[0])
                    .collect::<Vec<_>>()
            })
            .collect();
        assert!(told[0].iter().all(|port| known.contains(port)));
        told[1] == told[0] && told[2] == told[0]
    });
    let mut names = BTreeMap::new();
    for node in &cluster.nodes {
        let mut client = node.client();
        let name = client.say("CLUSTER MYID").text();
        let nodes = client.say("CLUSTER NODES").text();
        let me = nodes.lines().find(|line| line.contains("myself")).expect("myself");
        assert!(me.starts_with(&format!("{name} {}@0 myself,master - ", node.client)), "{me}");
        assert_eq!(nodes.lines().count(), 3, "{nodes}");
        names.insert(name, node.id);
        let info = client.say("CLUSTER INFO").text();
        assert!(info.starts_with("cluster_state:ok\r\ncluster_slots_assigned:16384\r\n"), "{info}");
        assert!(info.contains("cluster_known_nodes:3\r\n"), "{info}");
    }
    assert_eq!(names.len(), 3, "every node has a name of its own");
}

#[test]
fn shards_in_resp3_are_maps() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[1].client();
    ports_of(&mut client, 1);
    client.say("HELLO 3");
    let field = |map: &Reply, name: &str| match map {
        Reply::Map(pairs) => {
            let found = pairs.iter().find(|(key, _)| *key == Reply::bulk(name));
            found.unwrap_or_else(|| panic!("no {name} in {map}")).1.clone()
        }
        other => panic!("no map: {other}"),
    };
    let mut covered = 0;
    for shard in client.say("CLUSTER SHARDS").array() {
        let ends: Vec<i64> = field(&shard, "slots").array().iter().map(Reply::integer).collect();
        covered += ends.chunks(2).map(|ends| ends[1] - ends[0] + 1).sum::<i64>();
        let nodes = field(&shard, "nodes").array();
        let roles: Vec<String> = nodes.iter().map(|node| field(node, "role").text()).collect();
        assert_eq!(roles, ["master", "replica", "replica"]);
        for node in &nodes {
            assert_eq!(field(node, "ip").text(), "127.0.0.1");
            assert_eq!(field(node, "endpoint").text(), "127.0.0.1");
            let port = field(node, "port").integer() as u16;
            assert!(cluster.nodes.iter().any(|node| node.client.port() == port));
        }
    }
    assert_eq!(covered, SLOTS);
}

#[test]
fn a_connection_is_redirected_once_it_has_said_cluster_something() {
    let cluster = shared::cluster();
    wait_until("a leader stays where it is for as long as that takes", || {
        let (slot, leader, mut redirected) = elsewhere(&cluster, "cluster:auto");
        let mut plain = cluster.nodes[0].client();
        let moved = redirected.say("SET cluster:auto 1");
        let expected = format!("MOVED {slot} 127.0.0.1:{leader}");
        for node in &cluster.nodes {
            assert_eq!(node.client().say("SET cluster:auto 2"), Reply::ok(), "it is forwarded");
        }
        assert_eq!(plain.say("GET cluster:auto"), Reply::bulk("2"));
        let crossed = redirected.say("MGET cluster:auto cluster:other");
        assert_eq!(crossed.error(), "CROSSSLOT Keys in request don't hash to the same slot");
        redirected.say("RESET");
        assert_eq!(redirected.say("GET cluster:auto"), Reply::bulk("2"), "RESET forgets it");
        moved == Reply::Error(expected)
    });
}

#[test]
fn a_replica_answers_reads_after_readonly_and_never_with_what_is_old() {
    let cluster = shared::cluster();
    let (_, _, mut replica) = elsewhere(&cluster, "cluster:near");
    let mut writer = cluster.nodes[0].client();
    assert_eq!(replica.say("READONLY"), Reply::ok());
    for round in 0..50 {
        let value = round.to_string();
        writer.say(&format!("SET cluster:near {value}"));
        assert_eq!(replica.say("GET cluster:near"), Reply::bulk(&value), "read as of ReadIndex");
    }
    // A bounded read may see any value that was current within the bound, and goes on to the last.
    assert_eq!(replica.say("READONLY STALE 200"), Reply::ok());
    let mut seen = 0;
    for round in 50..100 {
        writer.say(&format!("SET cluster:near {round}"));
        let value: u64 = replica.say("GET cluster:near").text().parse().expect("a number");
        assert!(seen <= value && value <= round, "{seen}, then {value}, in round {round}");
        seen = value;
    }
    wait_until("the last value is seen", || replica.say("GET cluster:near") == Reply::bulk("99"));
    assert_eq!(replica.say("READWRITE"), Reply::ok());
}

#[test]
fn a_node_counts_the_keys_of_a_slot_whoever_leads_it() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    for key in ["{cluster:count}1", "{cluster:count}2", "{cluster:count}3"] {
        client.say(&format!("SET {key} 1"));
    }
    // By another connection: this one is not a cluster client's, and stays where it is.
    let slot = cluster.nodes[0].client().say("CLUSTER KEYSLOT {cluster:count}").integer();
    for node in &cluster.nodes {
        let count = node.client().say(&format!("CLUSTER COUNTKEYSINSLOT {slot}"));
        assert_eq!(count, Reply::Integer(3));
    }
    assert_eq!(client.say("DEL {cluster:count}1"), Reply::Integer(1));
    let count = cluster.nodes[1].client().say(&format!("CLUSTER COUNTKEYSINSLOT {slot}"));
    assert_eq!(count, Reply::Integer(2));
}

#[test]
fn masters_count_and_scan_their_own_part_for_a_cluster_client() {
    let cluster = shared::alone();
    let mut client = cluster.nodes[0].client();
    client.say("FLUSHALL");
    let keys: Vec<String> = (0..60).map(|number| format!("cluster:scan:{number}")).collect();
    for key in &keys {
        client.say(&format!("SET {key} 1"));
    }
    wait_until("no leader moves meanwhile", || {
        let (mut count, mut found) = (0, Vec::new());
        for node in &cluster.nodes {
            let mut client = node.client();
            client.say("CLUSTER MYID");
            count += client.say("DBSIZE").integer();
            let mut cursor = "0".to_owned();
            loop {
                let page = client.say(&format!("SCAN {cursor} COUNT 7")).array();
                cursor = page[0].text();
                found.extend(page[1].clone().array().iter().map(Reply::text));
                if cursor == "0" {
                    break;
                }
            }
        }
        found.sort();
        let mut expected = keys.clone();
        expected.sort();
        count == 60 && found == expected
    });
    // To read from replicas does not change who tells of what.
    let count = |node: &Node| {
        let mut client = node.client();
        client.say("CLUSTER MYID");
        assert_eq!(client.say("READONLY"), Reply::ok());
        client.say("DBSIZE").integer()
    };
    wait_until("no leader moves", || cluster.nodes.iter().map(count).sum::<i64>() == 60);
    assert_eq!(client.say("DBSIZE"), Reply::Integer(60), "to others a node tells of the whole");
}

/// A node may be set to redirect everybody or nobody, and to say another address than it listens at.
#[test]
fn a_setting_chooses_and_an_address_is_advertised() {
    let flags = |routing| ["--groups", "3", "--routing", routing];
    let mut cluster = Cluster::prepare("routing", 3, &[]);
    for (node, routing) in cluster.nodes.iter_mut().zip(["redirect", "forward", "auto"]) {
        node.arguments.extend(flags(routing).map(str::to_owned));
    }
    let advertised = "127.0.0.9:6379";
    cluster.nodes[2].arguments.extend(["--advertise-client", advertised].map(str::to_owned));
    cluster.nodes.iter_mut().for_each(|node| node.start());
    cluster.wait_ready();
    let mode = |node: usize| {
        let fields = cluster.nodes[node].client().say("HELLO 2").array();
        let at = fields.iter().position(|field| *field == Reply::bulk("mode")).expect("a mode");
        fields[at + 1].text()
    };
    assert_eq!([mode(0), mode(1), mode(2)], ["cluster", "standalone", "standalone"]);
    let mut admin = cluster.nodes[1].client();
    // Node 3 leads everything.
    wait_until("node 3 leads every group", || {
        for group in 0..3 {
            let words = format!("MEMBER TRANSFER 3 GROUP {group}");
            let words: Vec<&str> = words.split(' ').collect();
            admin.try_call(&words).expect("a reply");
        }
        let nodes = admin.say("CLUSTER NODES").text();
        nodes.lines().any(|line| line.contains(advertised) && line.ends_with(" 0-16383"))
    });
    let mut redirects = cluster.nodes[0].client();
    wait_until("node 1 knows that as well", || {
        let reply = redirects.say("GET foo");
        reply == Reply::Error(format!("MOVED 12182 {advertised}"))
    });
    admin.say("CLUSTER MYID");
    assert_eq!(admin.say("SET foo 1"), Reply::ok(), "node 2 forwards even for a cluster client");
}
