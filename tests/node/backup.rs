//! `ctl backup` and `ctl restore`: what comes back, into how many nodes and groups, and what is refused.

use std::fs;
use std::process::{Command, Output};

use crate::client::Client;
use crate::cluster::{Cluster, Node, OUTRIGGER, TestDir};
use crate::config::run;
use crate::script::play;
use crate::stop::refused;

fn ctl(node: &Node, words: &[&str]) -> Output {
    let address = node.client.to_string();
    run(Command::new(OUTRIGGER).args(["ctl", "--node", &address, "--timeout", "20"]).args(words))
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fill(client: &mut Client) {
    for number in 0..300 {
        client.say(&format!("SET key:{number} value:{number}"));
    }
    client.call(&["SET", "binary\r\n", "\0\r\n"]);
    client.call(&["SET", "large", &"v".repeat(3 << 20)]);
    client.say("SET soon-gone v PXAT 33000000000000");
    for number in 0..600 {
        client.say(&format!("HSET hash field:{number} {number}"));
        client.say(&format!("SADD set member:{number}"));
    }
    client.say("EXPIREAT set 33000000000");
}

#[track_caller]
fn holds_all(client: &mut Client) {
    play(
        client,
        r#"
        GET key:0           => "value:0"
        GET key:299         => "value:299"
        GET "binary\r\n"    => "\x00\r\n"
        STRLEN large        => :3145728
        EXPIRETIME soon-gone => :33000000000
        HLEN hash           => :600
        HGET hash field:599 => "599"
        SCARD set           => :600
        EXPIRETIME set      => :33000000000
        DBSIZE              => :305
        "#,
    );
}

#[test]
fn a_backup_is_restored_into_a_cluster_of_another_size() {
    let scratch = TestDir::new("backup");
    let dir = scratch.path().join("today").display().to_string();
    let cluster = Cluster::start("backup-from", 3, &["--groups", "5", "--cores", "2"]);
    fill(&mut cluster.nodes[0].client());
    // Whatever was acknowledged is in it, whichever node is asked.
    let told = succeeds(&ctl(&cluster.nodes[2], &["backup", &dir]));
    assert!(told.starts_with("5 groups, "), "{told}");
    assert!(
        succeeds(&ctl(&cluster.nodes[1], &["restore", &dir, "--dry-run"])).contains("305 keys")
    );
    refused(&ctl(&cluster.nodes[0], &["backup", &dir]), &["not empty"]);
    refused(&ctl(&cluster.nodes[0], &["restore", &dir]), &["305 keys", "--overwrite"]);

    let other = Cluster::start("backup-to", 1, &["--groups", "3"]);
    let told = succeeds(&ctl(&other.nodes[0], &["restore", &dir]));
    assert!(told.contains("305 keys restored"), "{told}");
    let mut client = other.nodes[0].client();
    holds_all(&mut client);

    // Over what is there: what the backup holds is as it was, what it does not know stays.
    play(
        &mut client,
        "SET key:0 changed => +OK\nHSET hash later 1 => :1\nDEL set => :1\nSET set x => +OK\nSET new 1 => +OK",
    );
    succeeds(&ctl(&other.nodes[0], &["restore", &dir, "--overwrite"]));
    play(&mut client, "GET new => \"1\"\nDEL new => :1");
    holds_all(&mut client);
}

#[test]
fn what_is_damaged_is_found_before_anything_is_written() {
    let scratch = TestDir::new("backup-damaged");
    let dir = scratch.path().join("today");
    let words = |verb: &'static str| [verb.to_owned(), dir.display().to_string()];
    let cluster = Cluster::start("backup-damaged", 1, &["--groups", "2"]);
    let node = &cluster.nodes[0];
    fill(&mut node.client());
    let say = |verb| {
        let words = words(verb);
        ctl(node, &[&words[0], &words[1]])
    };
    refused(&say("restore"), &["is no backup"]);
    succeeds(&say("backup"));
    node.client().say("FLUSHALL");

    let file = dir.join("group-1.snapshot");
    let whole = fs::read(&file).expect("it was written");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cut = whole[..whole.len() - 10].to_vec();
    let longer = [&whole[..], b"x"].concat();
    for damaged in [flipped, cut, longer] {
        fs::write(&file, damaged).expect("it is ours");
        refused(&say("restore"), &["group-1.snapshot is damaged"]);
        assert_eq!(node.client().say("DBSIZE").integer(), 0, "something was written");
    }
    fs::remove_file(&file).expect("it is ours");
    refused(&say("restore"), &["group-1.snapshot"]);
    fs::write(&file, whole).expect("it is ours");
    let manifest = dir.join("manifest.json");
    let text = fs::read_to_string(&manifest).expect("it was written");
    let later = text.replace("\"format\": 1", "\"format\": 2");
    fs::write(&manifest, later).expect("it is ours");
    refused(&say("restore"), &["format 2"]);
    fs::write(&manifest, text).expect("it is ours");
    succeeds(&say("restore"));
    holds_all(&mut node.client());
}

#[test]
fn backups_are_bounded_and_named() {
    let cluster = Cluster::start("backup-bounds", 1, &["--groups", "2", "--cores", "2"]);
    let mut client = cluster.nodes[0].client();
    play(
        &mut client,
        r#"
        BACKUP OPEN 2       => -ERR there are groups 0 to 1
        BACKUP NEXT 1 77    => -ERR no backup 77 of group 1 is open: begin again with OPEN
        BACKUP CLOSE 1 77   => :0
        BACKUP LIST 1       => -ERR syntax error: BACKUP OPEN group | NEXT group number | CLOSE group number
        "#,
    );
    for _ in 0..outrigger::limits::BACKUPS_MAX {
        client.say("BACKUP OPEN 1");
    }
    assert!(client.say("BACKUP OPEN 1").error().starts_with("BUSY "));
    play(
        &mut client,
        "BACKUP NEXT 0 1 => -ERR no backup 1 of group 0 is open: begin again with OPEN",
    );
    play(&mut client, "BACKUP CLOSE 1 1 => :1\nBACKUP CLOSE 1 1 => :0");
    client.say("BACKUP OPEN 1");
    assert!(client.say("BACKUP OPEN 1").error().starts_with("BUSY "));
    client.say("BACKUP OPEN 0");
}
