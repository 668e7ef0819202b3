//! Hashes and sets, as transcripts, through every node; and that they survive what strings survive.

use crate::client::{Client, Reply};
use crate::cluster::Cluster;
use crate::script::play;
use crate::shared;
use crate::wait::wait_until;

#[test]
fn hashes_and_sets_through_every_node() {
    for node in &shared::cluster().nodes {
        play(
            &mut node.client(),
            r#"
            DEL {col}h {col}s {col}k
            HSET {col}h b 2 a 1             => :2
            HSET {col}h a 3 "\x00\r\n" x    => :1
            HGET {col}h "\x00\r\n"          => "x"
            HMGET {col}h a z b              => ["3" $-1 "2"]
            HDEL {col}h "\x00\r\n"          => :1
            HGETALL {col}h                  => ["a" "3" "b" "2"]
            HKEYS {col}h                    => ["a" "b"]
            HVALS {col}h                    => ["3" "2"]
            HLEN {col}h                     => :2
            HEXISTS {col}h a                => :1
            HSETNX {col}h a 9               => :0
            HINCRBY {col}h a 39             => :42
            HMSET {col}h c xyz a 42         => +OK
            HSTRLEN {col}h c                => :3
            HSCAN {col}h 0 MATCH [c-z]      => ["0" ["c" "xyz"]]
            HSCAN {col}h 0 TYPE hash        => -ERR syntax error
            HSCAN {col}nosuch 0             => ["0" []]
            HDEL {col}h c                   => :1
            SADD {col}s b a b               => :2
            SCARD {col}s                    => :2
            SISMEMBER {col}s b              => :1
            SMISMEMBER {col}s b z b         => [:1 :0 :1]
            SSCAN {col}s 0 MATCH b* COUNT 1 => ["0" ["b"]]
            SMEMBERS {col}s                 => ["a" "b"]
            SREM {col}s b                   => :1
            TYPE {col}h                     => +hash
            TYPE {col}s                     => +set
            SET {col}k v                    => +OK
            HGET {col}k f                   => -WRONGTYPE Operation against a key holding the wrong kind of value
            GET {col}s                      => -WRONGTYPE Operation against a key holding the wrong kind of value
            EXISTS {col}h {col}s {col}k     => :3
            DEL {col}h {col}s {col}k        => :3
            HLEN {col}h                     => :0
            "#,
        );
    }
}

/// Each call goes to another node: the cursor means the same everywhere.
#[test]
fn a_large_one_is_scanned_through_every_node() {
    const PARTS: usize = 3_000;
    let mut clients: Vec<Client> =
        shared::cluster().nodes.iter().map(|node| node.client()).collect();
    clients[0].say("DEL {cols}h {cols}s");
    for from in (0..PARTS).step_by(500) {
        let names: Vec<String> = (from..from + 500).map(|part| format!("part:{part}")).collect();
        let pairs = names.iter().flat_map(|name| [name.as_str(), "v"]);
        let hset: Vec<&str> = ["HSET", "{cols}h"].into_iter().chain(pairs).collect();
        assert_eq!(clients[0].call(&hset).integer(), 500);
        let names = names.iter().map(String::as_str);
        let sadd: Vec<&str> = ["SADD", "{cols}s"].into_iter().chain(names).collect();
        assert_eq!(clients[0].call(&sadd).integer(), 500);
    }
    for (name, each) in [("HSCAN {cols}h", 2), ("SSCAN {cols}s", 1)] {
        let (mut seen, mut cursor) = (Vec::new(), "0".to_owned());
        for call in 0.. {
            let client = &mut clients[call % 3];
            let reply = client.say(&format!("{name} {cursor} COUNT 200")).array();
            let found = reply[1].clone().array();
            assert!(found.len() <= each * 210, "{} of COUNT 200", found.len());
            seen.extend(found.iter().step_by(each).map(Reply::text));
            cursor = reply[0].text();
            if cursor == "0" {
                break;
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), PARTS, "{name}");
    }
    clients[0].say("DEL {cols}h {cols}s");
}

#[test]
fn they_have_types_of_their_own_in_resp3() {
    for node in &shared::cluster().nodes {
        let mut client = node.client();
        play(&mut client, "DEL {col3}h {col3}s\nHSET {col3}h f 1 => :1\nSADD {col3}s m => :1");
        client.say("HELLO 3");
        let (field, value) = (Reply::bulk("f"), Reply::bulk("1"));
        assert_eq!(client.say("HGETALL {col3}h"), Reply::Map(vec![(field, value)]));
        assert_eq!(client.say("SMEMBERS {col3}s"), Reply::Set(vec![Reply::bulk("m")]));
    }
}

#[test]
fn they_survive_kill_9_of_every_node() {
    let mut cluster = Cluster::start("collections", 3, &["--groups", "2"]);
    let mut client = cluster.nodes[0].client();
    for number in 0..300 {
        let field = format!("field:{number}");
        client.call(&["HSET", "h", &field, &"v".repeat(100)]);
        client.call(&["SADD", "s", &field]);
    }
    let all = |client: &mut Client| [client.say("HGETALL h"), client.say("SMEMBERS s")];
    let before = all(&mut client);
    drop(client);
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.wait_ready();
    for node in 0..3 {
        let mut client = cluster.nodes[node].client();
        assert_eq!(all(&mut client), before, "node {}", node + 1);
        play(&mut client, "HLEN h => :300\nSCARD s => :300\nHEXISTS h field:299 => :1");
    }
    let digest = |node: usize| cluster.nodes[node].client().say("DEBUG DIGEST");
    wait_until("the three hold the same", || digest(0) == digest(1) && digest(1) == digest(2));
}
