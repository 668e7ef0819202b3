//! Directories that earlier releases left behind, killed in the middle: this one reads them, one file for each format
//! that was ever released (`tests/golden`).
//!
//! They are never made anew: what they hold is what that release wrote. One that cannot be read any more is a change
//! of format, which needs a number of its own and a way to upgrade.

use std::path::Path;
use std::process::Command;

use outrigger::wal::FORMAT_VERSION;

use crate::client::{Client, Reply};
use crate::cluster::Cluster;
use crate::script::play;
use crate::wait::wait_until;

/// One node of two groups, whose directory is what a release left.
fn left_by(release: &str) -> Cluster {
    let mut cluster = unpacked(release);
    cluster.nodes[0].start();
    cluster.wait_ready();
    cluster
}

/// The same, before it starts.
fn unpacked(release: &str) -> Cluster {
    let cluster = Cluster::prepare(&format!("golden-{release}"), 1, &["--groups", "2"]);
    let node = &cluster.nodes[0];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let archive = root.join(format!("tests/golden/{release}.tar.gz"));
    std::fs::create_dir_all(&node.dir).expect("it is ours");
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&node.dir).status();
    assert!(unpacked.expect("tar is there").success(), "{} cannot be unpacked", archive.display());
    cluster
}

fn restart(cluster: &mut Cluster) {
    cluster.nodes[0].stop();
    cluster.nodes[0].start();
    cluster.wait_ready();
}

/// All that a release had applied is applied, and has the digest it had. The end of the log is when the new leader's
/// first entry is applied.
fn wait_for_digest(client: &mut Client, digest: &str) {
    let expected = Reply::bulk(digest);
    wait_until("all of it is applied, and has the digest it had", || {
        client.say("DEBUG DIGEST") == expected
    });
}

/// A snapshot of both groups, entries behind it, a transaction, a session, deadlines; then `kill -9`.
#[test]
fn what_0_1_0_left_is_read() {
    let mut cluster = left_by("0.1.0");
    for round in 0..2 {
        let mut client = cluster.nodes[0].client();
        if round == 0 {
            wait_for_digest(&mut client, "bc97d891e70bc11e");
        }
        play(
            &mut client,
            r#"
            GET string          => "value+tail"
            GET counter         => "42"
            HGETALL hash        => ["name" "Ada"]
            SMEMBERS set        => ["a" "b"]
            PEXPIRETIME expires => :33000000000000
            TTL {t}a            => :-1
            MGET {t}a {t}b      => ["1" "2"]
            GET session-counter => "1"
            CLIENT SESSION RUN 2139814602191071 7 INCR session-counter => :1
            DBSIZE              => :8
            "#,
        );
        // And goes on from there.
        client.say(&format!("SET later {round}"));
        client.say("DEL later");
        drop(client);
        restart(&mut cluster);
    }
}

/// The newest archive, and the format of the log in it.
const NEWEST: (&str, u32) = ("0.1.0-format-5", 5);

/// Collections, a deadline, users; then `kill -9`.
#[test]
fn what_format_5_left_is_read() {
    let mut cluster = left_by(NEWEST.0);
    for round in 0..2 {
        let mut client = cluster.nodes[0].client();
        if round == 0 {
            wait_for_digest(&mut client, "29835d0145d43676");
        }
        play(
            &mut client,
            r#"
            GET string          => "value+tail"
            GET counter         => "42"
            HGETALL hash        => ["name" "Ada"]
            SMEMBERS set        => ["a" "b"]
            PEXPIRETIME expires => :33000000000000
            EXISTS deleted      => :0
            DBSIZE              => :5
            "#,
        );
        let users = client.say("ACL LIST").to_string();
        assert!(users.contains("user ada on") && !users.contains("user gone"), "{users}");
        assert_eq!(client.say("AUTH ada golden"), Reply::ok());
        assert_eq!(client.say(&format!("SET a:later {round}")), Reply::ok());
        assert!(client.say("GET string").to_string().contains("NOPERM"), "judged by what was read");
        client.say("DEL a:later");
        drop(client);
        restart(&mut cluster);
    }
}

/// Whoever raises the format leaves a directory of it here.
#[test]
fn the_newest_archive_is_of_the_present_format() {
    let cluster = unpacked(NEWEST.0);
    let segment = cluster.nodes[0].dir.join("core-0/0000000000000001.seg");
    let bytes = std::fs::read(segment).expect("unpacked");
    // Behind the magic number and the checksum of the header.
    assert_eq!(bytes[12..16], NEWEST.1.to_le_bytes());
    assert_eq!(NEWEST.1, FORMAT_VERSION, "make an archive of the new format");
}
