//! Damaged logs: in the middle, a node that is alone refuses to start and names the file, and one with
//! peers gets back from them what it has lost; at the torn end, it trims what was never promised, says
//! so, and keeps the rest. Other files of a node are refused by name.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::client::Reply;
use crate::cluster::Cluster;
use crate::info::Info;
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
    fill_range(cluster, 0..count);
}

fn fill_range(cluster: &Cluster, numbers: std::ops::Range<usize>) {
    let mut client = cluster.nodes[0].client();
    for number in numbers {
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

/// How many keys are written before the second node has caught up: the ones that tests harm.
const HARMED: usize = 200;

/// Stops the second node of three, lets `harm` do its work, and sees that the node comes back by itself:
/// it says what was wrong, and in the end it holds what the others hold.
///
/// The two others are a quorum, and the second may be far behind them, with many entries in one batch.
/// So that there are batches behind what is harmed (the first [`HARMED`] keys), it catches up there.
fn comes_back(name: &str, groups: &str, harm: impl FnOnce(&Path)) {
    comes_back_after(name, groups, |_| (), harm);
}

/// As [`comes_back`]; `prepare` is done when the first [`HARMED`] keys are written.
fn comes_back_after(
    name: &str,
    groups: &str,
    prepare: impl Fn(&mut Cluster),
    harm: impl FnOnce(&Path),
) {
    const COUNT: usize = 300;
    let mut cluster = Cluster::start(name, 3, &["--groups", groups]);
    let holds_the_same = |cluster: &Cluster| {
        let digest = |node: usize| cluster.nodes[node].client().say("DEBUG DIGEST");
        digest(0) == digest(1) && digest(1) == digest(2)
    };
    for numbers in [0..HARMED, HARMED..COUNT - 20, COUNT - 20..COUNT] {
        let numbers_end = numbers.end;
        fill_range(&cluster, numbers);
        wait_until("the second node has it all", || holds_the_same(&cluster));
        if numbers_end == HARMED {
            prepare(&mut cluster);
        }
    }
    cluster.nodes[1].kill();
    harm(&cluster.nodes[1].dir);
    let log_before = cluster.nodes[1].log().len();
    cluster.nodes[1].start();
    cluster.wait_ready();
    let log = cluster.nodes[1].log();
    let warned = |line: &str| line.contains("WARN") && line.contains("damaged log");
    assert!(log[log_before..].lines().any(warned), "it says what was wrong: {log}");
    wait_until("everything is back", || {
        let info = Info::of(&cluster.nodes[1]);
        info.number("groups_recalling") == 0
            && 0 < info.number("corrupt_detected")
            && info.number("corrupt_repaired") == info.number("corrupt_detected")
    });
    wait_until("the three hold the same", || holds_the_same(&cluster));
    // It counts again: with it and one other there is a quorum.
    cluster.nodes[0].kill();
    let mut client = cluster.nodes[1].client();
    wait_until("the other two go on", || client.say("SET key:after after") == Reply::ok());
    for number in 0..COUNT {
        assert_eq!(client.say(&format!("GET key:{number}")), Reply::bulk(marker(number)));
    }
}

#[test]
fn contract_row_55_a_damaged_value_in_the_middle_is_got_back_from_the_peers() {
    comes_back("repaired", "2", |dir| {
        let (path, at) = find(dir, &marker(100));
        flip(&path, at + 5);
    });
}

#[test]
fn a_damaged_batch_header_and_the_segments_own_are_got_back_from_the_peers() {
    comes_back("headers", "2", |dir| {
        let (path, at) = find(dir, &marker(150));
        flip(&path, at / 4096 * 4096 + 20);
        flip(&path, 20);
    });
}

#[test]
fn most_of_a_segment_that_is_gone_is_got_back_from_the_peers() {
    comes_back("gone", "3", |dir| {
        // What proves that there was something are the batches behind.
        let (path, at) = find(dir, &marker(HARMED - 1));
        let file = File::options().write(true).open(path).expect("a segment");
        let from = 12_288;
        let to = (at + marker(HARMED - 1).len()).next_multiple_of(4096);
        assert!(from < to, "the keys fill {at} bytes");
        file.write_all_at(&vec![0; to - from], from as u64).expect("overwritten");
        file.sync_all().expect("synced");
    });
}

/// An entry that only a stopped node and a damaged one know stays committed: the two that are left have
/// a quorum, and still elect nobody who would lose it.
#[test]
fn what_only_a_stopped_and_a_damaged_node_know_is_waited_for() {
    let mut cluster = Cluster::start("rather-halt", 3, &["--groups", "1", "--election-ms", "300"]);
    fill(&cluster, 20);
    cluster.nodes[2].kill();
    let mut client = cluster.nodes[0].client();
    wait_until("two of three go on", || client.say("SET key:only only") == Reply::ok());
    // Something behind it, so that damage to it cannot be taken for a torn tail.
    for number in 0..20 {
        assert_eq!(client.say(&format!("SET key:later later{number}")), Reply::ok());
    }
    drop(client);
    cluster.nodes[0].stop();
    cluster.nodes[1].kill();
    let (path, at) = find(&cluster.nodes[1].dir, "key:only");
    flip(&path, at + 4);
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    wait_until("both have replayed their logs", || {
        [1, 2].into_iter().all(|node: usize| {
            let reply = cluster.nodes[node].client().try_call(&["GET", "key:new"]);
            reply.is_ok_and(|reply| reply.error().contains("NOLEADER"))
        })
    });
    let until = std::time::Instant::now() + std::time::Duration::from_secs(4);
    while std::time::Instant::now() < until {
        for node in [1, 2] {
            let reply = cluster.nodes[node].client().try_call(&["SET", "key:new", "new"]);
            let reply = reply.expect("the node answers");
            assert!(reply.error().contains("NOLEADER"), "node {} took a write: {reply}", node + 1);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(Info::of(&cluster.nodes[1]).number("groups_recalling"), 1);
    cluster.nodes[0].start();
    let mut client = cluster.nodes[1].client();
    wait_until("the group goes on", || client.say("SET key:new new") == Reply::ok());
    assert_eq!(client.say("GET key:only"), Reply::bulk("only"));
    assert_eq!(client.say("GET key:later"), Reply::bulk("later19"));
    wait_until("it is whole", || Info::of(&cluster.nodes[1]).number("groups_recalling") == 0);
}

/// The two small files that a node relies on. (`LOCK` holds nothing that is read.) One that has decayed is
/// told by name, and holds nobody up: `identity.toml` has a copy, and where the log begins is found out.
#[test]
fn a_flipped_bit_in_any_other_file_is_told_by_name_and_mended() {
    let mut cluster = Cluster::start("files", 3, &["--groups", "2"]);
    fill(&cluster, 20);
    cluster.nodes[1].stop();
    let dir = cluster.nodes[1].dir.clone();
    // Where the log begins, as the node notes it when it deletes segments.
    let first = dir.join("core-0/FIRST");
    let number = 1_u64;
    let noted = format!("{number:016x} {:08x}\n", crc32fast::hash(&number.to_le_bytes()));
    fs::write(&first, noted).expect("written");
    let (identity, copy) = (dir.join("identity.toml"), dir.join("identity.toml.old"));
    for path in [&identity, &first] {
        let bytes = fs::metadata(path).expect("a file").len() as usize;
        for at in [0, bytes / 2, bytes - 3] {
            flip(path, at);
            let log_before = cluster.nodes[1].log().len();
            cluster.nodes[1].start();
            cluster.wait_ready();
            let log = cluster.nodes[1].log();
            let name = format!("{} is damaged", path.file_name().expect("a name").display());
            let told = |line: &str| line.contains("WARN") && line.contains(&name);
            assert!(log[log_before..].lines().any(told), "{name}, byte {at}: {log}");
            cluster.nodes[1].stop();
            if *path == first {
                flip(path, at);
            } else {
                assert_eq!(fs::read(path).expect("readable"), fs::read(&copy).expect("readable"));
            }
        }
    }
    // Both copies: nobody knows whose the directory is.
    flip(&identity, 5);
    flip(&copy, 5);
    cluster.nodes[1].start();
    let status = cluster.nodes[1].wait_exit();
    let log = cluster.nodes[1].log();
    assert!(status.code().is_some_and(|code| code != 0), "{log}");
    assert!(log.lines().last().expect("a reason").contains("identity.toml is damaged"), "{log}");
}

/// A log that begins late, and nothing says that it may: it could be that something is gone.
#[test]
fn what_a_decayed_note_of_the_log_s_beginning_leaves_in_doubt_is_got_back_from_the_peers() {
    // A start goes on in another segment.
    let restart = |cluster: &mut Cluster| {
        assert_eq!(cluster.nodes[1].stop().code(), Some(0));
        cluster.nodes[1].start();
        cluster.wait_ready();
    };
    comes_back_after("first", "2", restart, |dir| {
        let core = dir.join("core-0");
        let (path, _) = find(dir, &marker(HARMED));
        assert!(path.ends_with("0000000000000002.seg"), "{}", path.display());
        assert!(!core.join("FIRST").exists(), "nothing was given up");
        fs::rename(core.join("0000000000000001.seg"), core.join("0000000000000001.old")).unwrap();
        fs::write(core.join("FIRST"), "no number\n").expect("written");
    });
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
