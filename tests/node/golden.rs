//! Directories that earlier releases left behind, killed in the middle: this one reads them, one file for each format
//! that was ever released (`tests/golden`).
//!
//! They are never made anew: what they hold is what that release wrote. One that cannot be read any more is a change
//! of format, which needs a number of its own and a way to upgrade.

use std::path::Path;
use std::process::Command;

use crate::client::Reply;
use crate::cluster::Cluster;
use crate::script::play;
use crate::wait::wait_until;

/// One node of two groups, whose directory is what a release left.
fn left_by(release: &str) -> Cluster {
    let mut cluster = Cluster::prepare(&format!("golden-{release}"), 1, &["--groups", "2"]);
    let node = &mut cluster.nodes[0];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let archive = root.join(format!("tests/golden/{release}.tar.gz"));
    std::fs::create_dir_all(&node.dir).expect("it is ours");
    let unpacked = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&node.dir).status();
    assert!(unpacked.expect("tar is there").success(), "{} cannot be unpacked", archive.display());
    node.start();
    cluster.wait_ready();
    cluster
}

/// A snapshot of both groups, entries behind it, a transaction, a session, deadlines; then `kill -9`.
#[test]
fn what_0_1_0_left_is_read() {
    let mut cluster = left_by("0.1.0");
    for round in 0..2 {
        let mut client = cluster.nodes[0].client();
        if round == 0 {
            // Of what is applied: the end of the log is when the new leader's first entry is.
            let expected = Reply::bulk("bc97d891e70bc11e");
            wait_until("all of it is applied, and has the digest it had", || {
                client.say("DEBUG DIGEST") == expected
            });
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
        cluster.nodes[0].stop();
        cluster.nodes[0].start();
        cluster.wait_ready();
    }
}
