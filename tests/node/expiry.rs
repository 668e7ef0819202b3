//! Keys that expire: through every node, after a kill of all, and equally everywhere.

use crate::cluster::Cluster;
use crate::script::play;
use crate::shared;
use crate::wait::wait_until;

#[test]
fn keys_have_a_time_to_live_through_every_node() {
    for node in &shared::cluster().nodes {
        let mut client = node.client();
        play(
            &mut client,
            r#"
            DEL {exp}k {exp}h
            TTL {exp}k                      => :-2
            EXPIRE {exp}k 100               => :0
            SET {exp}k v EX 100             => +OK
            TTL {exp}k                      => :100
            SET {exp}k w KEEPTTL            => +OK
            TTL {exp}k                      => :100
            EXPIRE {exp}k 50 GT             => :0
            EXPIRE {exp}k 50 LT             => :1
            GETEX {exp}k EX 100 EX 200      => "w"
            GETEX {exp}nosuch EX 0          => $-1
            GETEX {exp}k EX 0               => -ERR invalid expire time in 'getex' command
            PERSIST {exp}k                  => :1
            TTL {exp}k                      => :-1
            PEXPIREAT {exp}k 33000000000500 => :1
            EXPIRETIME {exp}k               => :33000000001
            EXPIREAT {exp}k 33000000000     => :1
            EXPIRETIME {exp}k               => :33000000000
            PEXPIRETIME {exp}k              => :33000000000000
            APPEND {exp}k x                 => :2
            EXPIRETIME {exp}k               => :33000000000
            SET {exp}k v                    => +OK
            TTL {exp}k                      => :-1
            SETEX {exp}k 0 v                => -ERR invalid expire time in 'setex' command
            PEXPIREAT {exp}k 1              => :1
            EXISTS {exp}k                   => :0
            HSET {exp}h f v                 => :1
            PEXPIRE {exp}h 1                => :1
            "#,
        );
        wait_until("the hash is gone", || client.say("EXISTS {exp}h").integer() == 0);
        play(&mut client, "HLEN {exp}h => :0\nTTL {exp}h => :-2");
    }
}

#[test]
fn a_deadline_survives_kill_9_of_every_node_and_passes_meanwhile() {
    let mut cluster = Cluster::start("expiry", 3, &["--groups", "2"]);
    let mut client = cluster.nodes[0].client();
    for key in 0..50 {
        play(
            &mut client,
            &format!("SET short:{key} v PX 1 => +OK\nSET long:{key} v EX 3600 => +OK"),
        );
    }
    let deadline = client.say("PEXPIRETIME long:7").integer();
    drop(client);
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.wait_ready();
    for node in &cluster.nodes {
        let mut client = node.client();
        assert_eq!(client.say("PEXPIRETIME long:7").integer(), deadline);
        assert_eq!(client.say("EXISTS short:7").integer(), 0);
        assert_eq!(client.say("DBSIZE").integer(), 50);
    }
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    // Nothing that could expire is left in any replica, without anybody having asked for it.
    for node in &cluster.nodes {
        let info = node.client().say("INFO keyspace").to_string();
        assert!(info.contains("keys=50,expires=50"), "{info}");
    }
}
