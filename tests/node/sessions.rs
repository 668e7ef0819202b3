//! Sessions: a write that is sent again is executed once, whatever happened in between.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::client::{Client, Reply, encode};
use crate::cluster::{Cluster, Node};
use crate::info::Info;
use crate::script::play;
use crate::shared;
use crate::wait::{PATIENCE, wait_for};

fn open(client: &mut Client) -> String {
    let id = client.say("CLIENT SESSION OPEN").integer();
    assert!(0 < id, "a session's id is positive: {id}");
    id.to_string()
}

/// `CLIENT SESSION RUN` of `line` as request `seq`.
fn request(id: &str, seq: usize, line: &str) -> Vec<u8> {
    let line = format!("CLIENT SESSION RUN {id} {seq} {line}");
    encode(&line.split(' ').collect::<Vec<_>>())
}

#[test]
fn a_request_sent_again_returns_what_it_returned_first() {
    let cluster = shared::cluster();
    let mut clients: Vec<Client> = cluster.nodes.iter().map(Node::client).collect();
    clients[0].say("DEL sess:n sess:a sess:b sess:c sess:d");
    let id = open(&mut clients[0]);
    let script = [
        ("1 INCR sess:n", ":1"),
        ("1 INCR sess:n", ":1"),
        ("7 INCR sess:n", ":2"),
        ("7 INCR sess:n", ":2"),
        // What it says is not looked at again: the number decides.
        ("7 DEL sess:n", ":2"),
        ("8 GETSET sess:n x", "\"2\""),
        ("8 GETSET sess:n x", "\"2\""),
        ("9 INCR sess:n", "-ERR value is not an integer or out of range"),
        // A command over several groups is remembered by each.
        ("10 MSET sess:a 1 sess:b 2 sess:c 3 sess:d 4", "+OK"),
        ("10 MSET sess:a 1 sess:b 2 sess:c 3 sess:d 4", "+OK"),
        ("11 DEL sess:a sess:b sess:c sess:d", ":4"),
        ("11 DEL sess:a sess:b sess:c sess:d", ":4"),
        ("12 APPEND sess:n y", ":2"),
        ("12 APPEND sess:n y", ":2"),
    ];
    for (round, (line, expected)) in script.iter().enumerate() {
        // Through every node: it is the group that remembers.
        let client = &mut clients[round % 3];
        let reply = client.say(&format!("CLIENT SESSION RUN {id} {line}"));
        assert_eq!(reply.to_string(), *expected, "{line}, through node {}", round % 3 + 1);
    }
    assert_eq!(clients[0].say("GET sess:n").text(), "xy");
}

#[test]
fn ids_are_different_everywhere() {
    let cluster = shared::cluster();
    let mut ids = BTreeSet::new();
    for node in &cluster.nodes {
        for _ in 0..3 {
            // A new connection may land on another core.
            let id = open(&mut node.client());
            assert!(ids.insert(id.clone()), "{id} was given twice");
        }
    }
    for id in ids {
        assert_eq!(
            cluster.nodes[0].client().say(&format!("CLIENT SESSION CLOSE {id}")).integer(),
            1
        );
    }
}

#[test]
fn what_a_session_refuses() {
    let cluster = shared::cluster();
    let mut client = cluster.nodes[0].client();
    play(
        &mut client,
        r#"
        DEL sess:r
        CLIENT SESSION RUN 12345 1 INCR sess:r  => -NOSESSION session 12345 is not open: it was closed, or pushed out by sessions used later; nothing was executed now, what became of earlier attempts is unknown
        CLIENT SESSION CLOSE 12345              => :0
        CLIENT SESSION RUN 12345 0 INCR sess:r  => -ERR a request's number is an integer of 1 or more
        CLIENT SESSION RUN 12345 1 GET sess:r   => -ERR CLIENT SESSION RUN is for commands that write, 'get' does not: send it by itself
        CLIENT SESSION RUN 12345 1 NOSUCH x     => -ERR unknown command 'NOSUCH', with args beginning with: 'x'
        CLIENT SESSION RUN x 1 INCR sess:r      => -ERR a session's id is a number, as OPEN returned it
        CLIENT SESSION RUN 12345 1              => -ERR wrong number of arguments for 'client|session|run' command
        CLIENT SESSION OPEN 1                   => -ERR wrong number of arguments for 'client|session|open' command
        CLIENT SESSION RENEW 1                  => -ERR unknown subcommand or wrong number of arguments for 'RENEW'. Try CLIENT SESSION HELP.
        EXISTS sess:r                           => :0
        "#,
    );
    let help = client.say("CLIENT SESSION").array();
    assert_eq!(help, client.say("CLIENT SESSION HELP").array());
    assert!(help.len() > 5, "{help:?}");

    let id = open(&mut client);
    let mut run = |line: &str| client.say(&format!("CLIENT SESSION RUN {id} {line}"));
    assert_eq!(run("5 INCR sess:r").integer(), 1);
    let past = run("4 INCR sess:r");
    assert!(
        past.error().starts_with(&format!("ERR request 4 of session {id} comes after")),
        "{past}"
    );
    assert_eq!(run("6 INCR sess:r").integer(), 2, "nothing was executed in between");
    assert_eq!(client.say(&format!("CLIENT SESSION CLOSE {id}")).integer(), 1);
    let gone = client.say(&format!("CLIENT SESSION RUN {id} 7 INCR sess:r"));
    assert!(gone.error().starts_with("NOSESSION "), "{gone}");
    assert_eq!(client.say("GET sess:r").text(), "2");
}

/// Sends request `seq` again, through any node but the one that is down, until its result is known.
fn insist(cluster: &Cluster, down: Option<usize>, id: &str, seq: usize, line: &str) -> Reply {
    let mut turn = seq;
    wait_for("a definite answer to a request of a session", || {
        turn += 1;
        let at = turn % cluster.nodes.len();
        if down == Some(at) {
            return None;
        }
        let patience = Duration::from_secs(5);
        let mut client = Client::try_connect(cluster.nodes[at].client, patience).ok()?;
        client.send(&request(id, seq, line)).ok()?;
        let reply = client.read().ok()?;
        (!reply.is_uncertain() && !reply.is_not_ready()).then_some(reply)
    })
}

#[test]
fn a_request_is_executed_once_through_kill_9_of_the_leader_and_a_restart_of_all() {
    let mut cluster = Cluster::start("sessions", 3, &["--groups", "2"]);
    let id = open(&mut cluster.nodes[0].client());
    let group_of_n = 0; // of two: its slot is 3432
    let mut seq = 0;
    for round in 0..4 {
        // Some requests that meet nothing special.
        for _ in 0..3 {
            seq += 1;
            assert_eq!(insist(&cluster, None, &id, seq, "INCR n"), Reply::Integer(seq as i64));
        }
        // One whose leader is killed while it works on it, or just before, or just after.
        let leader = Info::of(&cluster.nodes[0]).groups[&group_of_n].leader as usize;
        let victim =
            cluster.nodes.iter().position(|node| node.id == leader as u64).expect("a node");
        seq += 1;
        let through = (victim + round % 2) % 3;
        let mut client = cluster.nodes[through].client();
        client.send(&request(&id, seq, "INCR n")).expect("the node is up");
        std::thread::sleep(Duration::from_millis(round as u64));
        cluster.nodes[victim].kill();
        // What came of it is not looked at: the answer is lost.
        drop(client);
        assert_eq!(insist(&cluster, Some(victim), &id, seq, "INCR n"), Reply::Integer(seq as i64));
        cluster.nodes[victim].start();
        cluster.wait_ready();
    }
    let last = insist(&cluster, None, &id, seq + 1, "APPEND text abc");
    assert_eq!(last, Reply::Integer(3));

    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_ready();
    assert_eq!(insist(&cluster, None, &id, seq + 1, "APPEND text abc"), last, "the log remembers");
    let mut client = Client::try_connect(cluster.nodes[0].client, PATIENCE).expect("it listens");
    assert_eq!(client.say("GET text").text(), "abc");
    assert_eq!(client.say("GET n").text(), seq.to_string(), "every INCR once");
    let past = client.say(&format!("CLIENT SESSION RUN {id} 1 APPEND text abc"));
    assert!(past.error().starts_with("ERR request 1 of session"), "{past}");
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}
