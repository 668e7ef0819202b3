//! A full log: writes are refused by name, reads go on, the node stays alive, and with more room
//! the writes go on.

use crate::client::{Client, Reply};
use crate::cluster::Cluster;
use crate::info::Info;

/// The least that `--wal-max-bytes` accepts.
const WAL_BYTES_MIN: usize = 256 << 20;
/// What one write adds, at least, to the log.
const VALUE_BYTES: usize = 2 << 20;

#[test]
fn a_full_log_refuses_writes_and_serves_reads() {
    let limit = WAL_BYTES_MIN.to_string();
    let flags = ["--groups", "2", "--wal-max-bytes", &limit];
    let mut cluster = Cluster::start("full", 1, &flags);
    let mut client = cluster.nodes[0].client();
    client.say("SET small before");

    let mut acknowledged = Vec::new();
    let refusal = loop {
        let key = format!("full:{}", acknowledged.len());
        match client.call(&[b"SET".as_slice(), key.as_bytes(), &value_of(&key)]) {
            reply if reply == Reply::ok() => acknowledged.push(key),
            Reply::Error(text) => break text,
            other => panic!("SET got {other}"),
        }
        let written = acknowledged.len() * VALUE_BYTES;
        assert!(written < WAL_BYTES_MIN, "{written} bytes in a log of at most {limit}");
    };
    assert!(refusal.starts_with("FULL "), "{refusal}");
    assert!(!acknowledged.is_empty(), "something fits");
    println!("{} values fit; then {refusal}", acknowledged.len());

    // Full for everybody and every kind of write; open for every kind of read.
    let mut other = cluster.nodes[0].client();
    for _ in 0..20 {
        let big = value_of("refused");
        let reply = other.call(&[b"SET".as_slice(), b"refused", &big]);
        assert!(reply.error().starts_with("FULL "), "{reply}");
        assert_eq!(other.say("GET small"), Reply::bulk("before"));
        assert_eq!(other.say("EXISTS refused"), Reply::Integer(0));
        assert_eq!(other.say("PING").to_string(), "+PONG");
    }
    check(&mut other, &acknowledged);
    assert!(!cluster.nodes[0].has_exited(), "the node stays alive");
    assert!(0 < Info::of(&cluster.nodes[0]).number("disk_full"), "INFO counts it");
    assert_eq!(on_disk(&cluster), WAL_BYTES_MIN.min(on_disk(&cluster)), "the limit holds");

    // A restart finds the log as full as it was, and a larger limit lets the writes go on.
    assert_eq!(cluster.nodes[0].stop().code(), Some(0), "a full node stops cleanly");
    *cluster.nodes[0].arguments.last_mut().expect("the limit") = (4 * WAL_BYTES_MIN).to_string();
    cluster.nodes[0].start();
    cluster.wait_ready();
    let mut client = cluster.nodes[0].client();
    check(&mut client, &acknowledged);
    assert_eq!(client.say("EXISTS refused"), Reply::Integer(0), "what was refused never appears");
    assert_eq!(client.call(&[b"SET".as_slice(), b"after", &value_of("after")]), Reply::ok());
}

fn value_of(key: &str) -> Vec<u8> {
    key.as_bytes().iter().copied().cycle().take(VALUE_BYTES).collect()
}

fn check(client: &mut Client, keys: &[String]) {
    for key in keys {
        let is_whole = client.call(&["GET", key]) == Reply::bulk(value_of(key));
        assert!(is_whole, "{key} was acknowledged");
    }
}

/// The bytes of all log segments.
fn on_disk(cluster: &Cluster) -> usize {
    let folder = std::fs::read_dir(cluster.nodes[0].dir.join("core-0")).expect("a log");
    folder.map(|file| file.expect("a file").metadata().expect("a size").len() as usize).sum()
}
