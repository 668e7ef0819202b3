//! Damaged logs: in the middle, a node refuses to start and names the file; at the torn end, it
//! trims what was never promised, says so, and keeps the rest.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::client::Reply;
use crate::cluster::Cluster;
use crate::wait::wait_until;

/// A value that can be found in a file.
fn marker(number: usize) -> String {
    format!("<<marker {number:06}>>")
}

/// The segment that holds `text`, and where its last copy starts.
fn find(dir: &Path, text: &str) -> (PathBuf, usize) {
    let mut found = None;
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir.join("core-0")).expect("a log").map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "seg"));
    paths.sort();
    for path in paths {
        let bytes = fs::read(&path).expect("a segment");
        let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let bytes = &bytes[..end];
        let positions = bytes.windows(text.len()).rposition(|window| window == text.as_bytes());
        if let Some(at) = positions {
            found = Some((path, at));
        }
    }
    found.unwrap_or_else(|| panic!("{text} is in no segment"))
}

/// Writes `count` keys, one after the other: each is acknowledged before the next is sent.
fn fill(cluster: &Cluster, count: usize) {
    let mut client = cluster.nodes[0].client();
    for number in 0..count {
        let reply = client.call(&["SET", &format!("key:{number}"), &marker(number)]);
        assert_eq!(reply, Reply::ok());
    }
}

fn flip(path: &Path, at: usize) {
    let file = File::options().read(true).write(true).open(path).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x01], at as u64).expect("a byte");
    file.sync_all().expect("synced");
}

#[test]
fn damage_in_the_middle_is_refused_by_name() {
    let mut cluster = Cluster::start("damage", 1, &["--groups", "2"]);
    fill(&cluster, 200);
    assert_eq!(cluster.nodes[0].stop().code(), Some(0));

    // One bit of a value in the middle of what is durable.
    let (path, at) = find(&cluster.nodes[0].dir, &marker(100));
    flip(&path, at + 5);
    let before = fs::read(&path).expect("a segment");
    cluster.nodes[0].start();
    let status = cluster.nodes[0].wait_exit();
    let log = cluster.nodes[0].log();
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {log}");
    let line = log.lines().last().expect("a reason");
    let name = path.file_name().expect("a name").to_str().expect("UTF-8");
    assert!(line.contains(name), "the last line names {name}: {line}");
    let says_what =
        ["damage", "corrupt", "checksum"].iter().any(|word| line.to_lowercase().contains(word));
    assert!(says_what, "the last line says what is wrong: {line}");
    assert!(!log.contains("panicked"), "{log}");
    assert!(fs::read(&path).expect("a segment") == before, "a refusal changes nothing");

    // Once the byte is right again, so is the node.
    flip(&path, at + 5);
    cluster.nodes[0].start();
    cluster.wait_ready();
    let mut client = cluster.nodes[0].client();
    for number in 0..200 {
        assert_eq!(client.say(&format!("GET key:{number}")), Reply::bulk(marker(number)));
    }
}

#[test]
fn a_torn_tail_is_trimmed() {
    const COUNT: usize = 100;
    let mut cluster = Cluster::start("torn", 1, &["--groups", "2"]);
    fill(&cluster, COUNT);
    // No pause: whatever the node does when it is idle, it has not done yet. The last write is then
    // the last thing in the log, and the only one the tear can touch.
    cluster.nodes[0].kill();
    let (path, marker_at) = find(&cluster.nodes[0].dir, &marker(COUNT - 1));
    let bytes = fs::read(&path).expect("a segment");
    let end = bytes.iter().rposition(|&byte| byte != 0).expect("something is written") + 1;
    assert!(marker_at < end);
    let tear = end - 8;
    assert!(find(&cluster.nodes[0].dir, &marker(COUNT - 2)).1 + 20 < tear, "only the last is torn");
    let file = File::options().write(true).open(&path).expect("a segment");
    file.write_all_at(&[0xa5; 8], tear as u64).expect("torn");
    file.sync_all().expect("synced");

    let log_before = cluster.nodes[0].log().len();
    cluster.nodes[0].start();
    cluster.wait_ready();
    let mut client = cluster.nodes[0].client();
    for number in 0..COUNT - 1 {
        let reply = client.say(&format!("GET key:{number}"));
        assert_eq!(reply, Reply::bulk(marker(number)), "key:{number} was whole");
    }
    let last = client.say(&format!("GET key:{}", COUNT - 1));
    let is_whole_or_gone = last == Reply::NilBulk || last == Reply::bulk(marker(COUNT - 1));
    assert!(is_whole_or_gone, "never half: {last}");
    let name = path.file_name().expect("a name").to_str().expect("UTF-8");
    wait_until("the log warns of the trimmed tail, and says where", || {
        let log = cluster.nodes[0].log();
        log[log_before..].lines().any(|line| line.contains("WARN") && line.contains(name))
    });

    // And the log goes on behind the tear: nothing of it comes back.
    client.say("SET key:after after");
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    cluster.wait_ready();
    let mut client = cluster.nodes[0].client();
    assert_eq!(client.say("GET key:after"), Reply::bulk("after"));
    assert_eq!(client.say("GET key:5"), Reply::bulk(marker(5)));
    assert_eq!(client.say(&format!("GET key:{}", COUNT - 1)), last);
}
