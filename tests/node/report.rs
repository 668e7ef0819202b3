//! INFO and DEBUG DIGEST: the fields that docs/operations.md promises, and that they move as they should.

use std::process::Command;

use crate::client::Reply;
use crate::cluster::{Cluster, Node, OUTRIGGER};
use crate::config::run;
use crate::info::Info;
use crate::script::play;
use crate::shared::{self, CORES, GROUPS};
use crate::wait::{wait_for, wait_until};

#[test]
fn info_has_every_promised_field() {
    let promised = [
        "node_id",
        "cluster_id",
        "cores",
        "groups",
        "groups_led",
        "wal_flushes",
        "wal_writes",
        "wal_bytes",
        "wal_payload_bytes",
        "wal_snapshot_bytes",
        "wal_padding_bytes",
        "write_amplification",
        "entries_committed",
        "entries_per_flush",
        "corrupt_detected",
        "corrupt_repaired",
        "fsync_errors",
        "groups_recalling",
        "disk_full",
        "frames_rejected",
    ];
    let cluster = shared::cluster();
    let mut cluster_ids = Vec::new();
    for node in &cluster.nodes {
        let info = Info::of(node);
        for name in promised {
            assert!(info.fields.contains_key(name), "INFO outrigger lacks {name}");
        }
        assert_eq!(info.number("node_id"), node.id);
        assert_eq!(info.number("cores"), CORES);
        assert_eq!(info.number("groups"), GROUPS);
        let received = info.fields["receive_method"].as_str();
        assert!(["ring", "poll"].contains(&received), "as the kernel can: {received}");
        let method = info.fields["flush_method"].as_str();
        assert!(["dsync", "fdatasync"].contains(&method), "measured at the start: {method}");
        let calm = ["corrupt_detected", "corrupt_repaired", "fsync_errors", "disk_full"];
        for name in calm {
            assert_eq!(info.number(name), 0, "{name} of a healthy node");
        }
        assert!(info.fields["entries_per_flush"].parse::<f64>().is_ok(), "entries_per_flush");
        let ids: Vec<u64> = info.groups.keys().copied().collect();
        assert_eq!(ids, (0..GROUPS).collect::<Vec<_>>(), "one line per group");
        cluster_ids.push(info.fields["cluster_id"].clone());

        let everything = node.client().say("INFO").text();
        let section = Info::parse(&node.client().say("INFO OUTRIGGER").text());
        assert_eq!(
            section.fields.keys().collect::<Vec<_>>(),
            info.fields.keys().collect::<Vec<_>>()
        );
        assert!(everything.contains("# Outrigger") && everything.contains("redis_version:"));
    }
    assert!(cluster_ids.iter().all(|id| *id == cluster_ids[0]), "one cluster id: {cluster_ids:?}");
}

#[test]
fn groups_are_led_once_and_known_everywhere() {
    let cluster = shared::cluster();
    // Leadership may move while it is being asked about: ask until the answers fit together.
    wait_for("the nodes agree on who leads", || {
        let infos: Vec<Info> = cluster.nodes.iter().map(Info::of).collect();
        for id in 0..GROUPS {
            let lines: Vec<_> = infos.iter().map(|info| &info.groups[&id]).collect();
            for line in &lines {
                assert!(line.applied <= line.commit && line.commit <= line.last, "{line:?}");
                assert!(line.first <= line.last + 1, "{line:?}");
                assert!(line.core < CORES, "{line:?}");
                assert!(0 < line.term, "{line:?}");
            }
            let leader = lines[0].leader;
            let agreed =
                lines.iter().all(|line| line.leader == leader && line.term == lines[0].term);
            let leading: Vec<u64> = (cluster.nodes.iter().zip(&lines))
                .filter(|(_, line)| line.role == "leader")
                .map(|(node, _)| node.id)
                .collect();
            if !agreed || leading != [leader] {
                return None;
            }
        }
        let led: Vec<u64> = infos.iter().map(|info| info.number("groups_led")).collect();
        (led.iter().sum::<u64>() == GROUPS).then_some(())
    });
}

#[test]
fn counters_grow_with_writes() {
    const WRITES: u64 = 60;
    let cluster = shared::alone();
    let names = [
        "wal_flushes",
        "wal_writes",
        "wal_bytes",
        "entries_committed",
        "wal_payload_bytes",
        "wal_padding_bytes",
    ];
    let count = || -> Vec<Vec<u64>> {
        let of = |info: Info| names.iter().map(|name| info.number(name)).collect();
        cluster.nodes.iter().map(|node| of(Info::of(node))).collect()
    };
    // A group's leader knows first; the others hear of it with its next entries, or a little later.
    let committed = || -> u64 {
        let infos: Vec<Info> = cluster.nodes.iter().map(Info::of).collect();
        let of = |group| infos.iter().map(|info| info.groups[group].commit).max();
        infos[0].groups.keys().filter_map(of).sum()
    };
    let (before, committed_before) = (count(), committed());
    let mut client = cluster.nodes[0].client();
    for number in 0..WRITES {
        // One after the other: none can share its flush with the next.
        assert_eq!(client.say(&format!("SET counted:{number} v")), Reply::ok());
    }
    assert!(committed_before + WRITES <= committed(), "commit indexes");
    wait_for("every node has counted the writes", || {
        let after = count();
        let grown: Vec<Vec<u64>> = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after.iter().zip(before).map(|(a, b)| a - b).collect())
            .collect();
        // A write costs at least its entry. A follower that is behind writes several entries at once,
        // but not all can be behind: a quorum flushes each write before the next is sent.
        let everywhere = grown.iter().all(|grown| {
            let (bytes, payload, padding) = (grown[2], grown[4], grown[5]);
            let adds_up = WRITES <= payload && payload + padding < bytes;
            0 < grown[0] && grown[1] <= bytes && WRITES <= grown[3] && adds_up
        });
        let total = |counter: usize| grown.iter().map(|grown| grown[counter]).sum::<u64>();
        (everywhere && WRITES <= total(0) && WRITES <= total(1)).then_some(())
    });
}

#[test]
fn digests_are_equal_once_applied_indexes_are() {
    let cluster = shared::alone();
    let mut client = cluster.nodes[0].client();
    client.say("FLUSHALL");
    let empty = cluster.digests();
    assert!(empty.iter().all(|digest| *digest == empty[0]), "{empty:?}");
    assert!(!empty[0].text().is_empty());

    play(
        &mut client,
        r#"
        MSET d1 a d2 b d3 c     => +OK
        DEL d2                  => :1
        APPEND d1 more          => :5
        INCR d4                 => :1
        SET d5 v NX             => +OK
        SET d5 w NX             => $-1
        "#,
    );
    let full = cluster.digests();
    assert!(full.iter().all(|digest| *digest == full[0]), "{full:?}");
    assert_ne!(full[0], empty[0], "the digest is of the data");
    client.say("SET d1 other");
    assert_ne!(cluster.digests()[0], full[0], "one value differs");
}

#[test]
fn top_shows_all_nodes_and_says_who_is_down() {
    let mut cluster = Cluster::start("top", 3, &["--groups", "2"]);
    let top = |node: &Node| {
        let address = node.client.to_string();
        let words = ["top", "--node", &address, "--once", "--every-ms", "100"];
        let output = run(Command::new(OUTRIGGER).args(words));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = top(&cluster.nodes[1]);
    assert!(text.contains("3 of 3 nodes, 2 of 2 groups led"), "{text}");
    let address = cluster.nodes[2].client.to_string();
    assert!(text.contains(&address), "{text}");
    cluster.nodes[2].kill();
    wait_until("the third node is missed", || {
        let text = top(&cluster.nodes[0]);
        text.contains("2 of 3 nodes, 2 of 2 groups led") && text.contains(" down ")
    });
    let output = run(Command::new(OUTRIGGER).args(["top", "--node", &address, "--once"]));
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not answer"), "{output:?}");
}
