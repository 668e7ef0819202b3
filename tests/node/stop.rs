//! Stopping and starting: SIGTERM ends well and keeps the data; what must not start, refuses by
//! name: a directory in use, a port in use, a directory of another node or another cluster.

use std::process::{Command, Output};

use outrigger::limits::SPARE_SEGMENTS;

use crate::client::Reply;
use crate::cluster::{Cluster, Node, OUTRIGGER, TestDir, free_address};
use crate::config::run;
use crate::wait::wait_until;

/// A refusal to start: non-zero, one line on stderr, and that line names the cause.
#[track_caller]
pub(crate) fn refused(output: &Output, causes: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code != 0), "it must fail: {output:?}");
    let line = stderr.lines().last().unwrap_or("");
    let lower = line.to_lowercase();
    for cause in causes {
        assert!(lower.contains(&cause.to_lowercase()), "the last line names {cause}: {stderr}");
    }
    let other = stderr.lines().filter(|line| !is_log(line)).count();
    assert_eq!(other, 1, "one line beside the log: {stderr}");
}

/// A line of the log, which goes to stderr too: it starts with a time.
fn is_log(line: &str) -> bool {
    line.starts_with("20")
}

#[test]
fn sigterm_ends_well_and_keeps_the_data() {
    let mut cluster = Cluster::start("sigterm", 1, &["--groups", "3", "--cores", "2"]);
    let mut client = cluster.nodes[0].client();
    for number in 0..50 {
        client.say(&format!("SET kept:{number} {number}"));
    }
    for round in 0..2 {
        let status = cluster.nodes[0].stop();
        assert_eq!(status.code(), Some(0), "SIGTERM: {}", cluster.nodes[0].log());
        assert!(client.is_closed(), "a stopped node's connections are closed");
        cluster.nodes[0].start();
        cluster.wait_ready();
        client = cluster.nodes[0].client();
        for number in 0..50 {
            let value = client.say(&format!("GET kept:{number}"));
            assert_eq!(value, Reply::bulk(number.to_string()), "round {round}");
        }
        assert_eq!(client.say(&format!("SET more:{round} v")), Reply::ok());
        assert_eq!(client.say("DBSIZE").integer(), 51 + round);
    }
}

#[test]
fn sighup_ends_no_node_that_has_nothing_to_read_again() {
    let cluster = Cluster::start("sighup", 1, &["--groups", "2"]);
    let mut client = cluster.nodes[0].client();
    cluster.nodes[0].signal(rustix::process::Signal::HUP);
    wait_until("it is told", || cluster.nodes[0].log().contains("SIGHUP: no certificates"));
    assert_eq!(client.say("SET after reload"), Reply::ok(), "on the same connection");
}

#[test]
fn a_directory_serves_one_process_of_one_node_of_one_cluster() {
    let mut cluster = Cluster::start("one-owner", 1, &["--groups", "2"]);
    let node = &cluster.nodes[0];
    let dir = node.dir.display().to_string();
    node.client().say("SET owner first");
    let (client, peer) = (free_address().to_string(), free_address().to_string());

    // While it runs: the same directory, other ports.
    let peers = format!("1={peer}");
    let second = |id: &str, peers: &str, groups: &str, cores: &str| {
        run(Command::new(OUTRIGGER).args([
            "serve", "--id", id, "--dir", &dir, "--client", &client, "--peer", &peer, "--peers",
            peers, "--groups", groups, "--cores", cores,
        ]))
    };
    refused(&second("1", &peers, "2", "1"), &[&dir, "use"]);
    assert_eq!(node.client().say("GET owner"), Reply::bulk("first"), "the first is unharmed");

    // While it runs: another directory, the same client port, then the same peer port.
    let other = TestDir::new("port-in-use");
    let other_dir = other.path().join("node").display().to_string();
    for (client, peer) in
        [(node.client.to_string(), &peer), (client.clone(), &node.peer.to_string())]
    {
        let taken = if client == node.client.to_string() { &client } else { peer };
        let output = run(Command::new(OUTRIGGER).args([
            "serve",
            "--id",
            "1",
            "--dir",
            &other_dir,
            "--client",
            &client,
            "--peer",
            peer,
            "--peers",
            &format!("1={peer}"),
            "--groups",
            "2",
        ]));
        refused(&output, &[taken, "in use"]);
    }

    // Once it is stopped: who is not its owner is told so, and changes nothing.
    assert_eq!(cluster.nodes[0].stop().code(), Some(0));
    refused(&second("2", &format!("2={peer}"), "2", "1"), &[&dir, "node 1"]);
    refused(&second("1", &peers, "3", "1"), &["groups", "2", "3"]);
    refused(&second("1", &peers, "2", "2"), &["cores"]);
    cluster.nodes[0].start();
    cluster.wait_ready();
    assert_eq!(cluster.nodes[0].client().say("GET owner"), Reply::bulk("first"));
}

#[test]
fn a_directory_that_cannot_be_made() {
    let dir = TestDir::new("no-dir");
    let file = dir.path().join("a-file");
    std::fs::write(&file, "not a directory").expect("written");
    let below = file.join("node").display().to_string();
    let (client, peer) = (free_address().to_string(), free_address().to_string());
    let output = run(Command::new(OUTRIGGER).args([
        "serve",
        "--id",
        "1",
        "--dir",
        &below,
        "--client",
        &client,
        "--peer",
        &peer,
        "--peers",
        &format!("1={peer}"),
    ]));
    refused(&output, &[&below]);
}

/// Segments in the log of a node's first core.
fn segments(node: &Node) -> usize {
    let files = std::fs::read_dir(node.dir.join("core-0")).expect("its log");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
    names.filter(|name| name.ends_with(".seg")).count()
}

#[test]
fn after_a_stop_in_good_order_a_start_reads_a_snapshot_and_the_tail() {
    const KEYS: usize = 8;
    let flags = ["--groups", "2", "--checkpoint-ms", "60000"];
    let mut cluster = Cluster::start("checkpoint", 1, &flags);
    let mut client = cluster.nodes[0].client();
    let value = |round: usize, key: usize| format!("{round}-{key} ").repeat(1 << 18);
    // Four segments of 64 MiB and more, of which a fortieth is what the keys have come to.
    let rounds = 36;
    for round in 0..rounds {
        for key in 0..KEYS {
            let reply = client.call(&["SET", &format!("key{key}"), &value(round, key)]);
            assert_eq!(reply, Reply::ok());
        }
    }
    let digests = cluster.digests();
    let before = segments(&cluster.nodes[0]);
    assert!(5 <= before, "{before} segments");

    let status = cluster.nodes[0].stop();
    assert_eq!(status.code(), Some(0), "{}", cluster.nodes[0].log());
    // The snapshots, the tail, and spares.
    let after = segments(&cluster.nodes[0]);
    assert!(
        after <= 2 + SPARE_SEGMENTS,
        "{before} before, {after} after: {}",
        cluster.nodes[0].log()
    );
    cluster.nodes[0].start();
    cluster.wait_ready();
    assert_eq!(cluster.digests(), digests);
    let mut client = cluster.nodes[0].client();
    for key in 0..KEYS {
        let kept = client.say(&format!("GET key{key}"));
        assert_eq!(kept, Reply::bulk(value(rounds - 1, key)), "key{key}");
    }
}
