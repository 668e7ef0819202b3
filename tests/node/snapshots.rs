//! A node that was away for longer than the others' logs reach back: it returns by snapshot, while the
//! others serve, whoever is killed on the way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::client::{Client, Reply};
use crate::cluster::{Cluster, Node};
use crate::info::Info;
use crate::wait::{wait_for, wait_until};

const GROUPS: u64 = 2;
/// Keys, each with a value of a mebibyte: what a snapshot holds.
const KEYS: u64 = 32;
/// The shortest log there is, and slow transfers, so that there is time to kill somebody.
const FLAGS: [&str; 6] =
    ["--groups", "2", "--log-bytes", "268435456", "--snapshot-bytes-per-s", "8388608"];

fn value_of(round: u64) -> String {
    let letter = char::from(b'a' + (round % 26) as u8);
    String::from(letter).repeat(1 << 20)
}

/// Writes all keys once, through `node`.
fn write_round(client: &mut Client, round: u64) {
    let value = value_of(round);
    for key in 0..KEYS {
        let key = format!("key{key}");
        wait_until("a write is taken", || {
            client.try_call(&["SET", &key, &value]).expect("an answer") == Reply::ok()
        });
    }
}

/// How far a node has applied each group.
fn applied(node: &Node) -> Vec<u64> {
    let info = Info::of(node);
    (0..GROUPS).map(|group| info.groups[&group].applied).collect()
}

/// Kills node 3 and writes until nobody's log reaches back to where it was.
fn leave_behind(cluster: &mut Cluster, round: &mut u64) {
    let left = applied(&cluster.nodes[2]);
    cluster.nodes[2].kill();
    let mut client = cluster.nodes[0].client();
    wait_until("the log is cut behind what the third node has", || {
        *round += 1;
        write_round(&mut client, *round);
        cluster.nodes[..2].iter().all(|node| {
            let info = Info::of(node);
            (0..GROUPS).all(|group| left[group as usize] + 1 < info.groups[&group].first)
        })
    });
}

fn sum(cluster: &Cluster, nodes: &[usize], name: &str) -> u64 {
    nodes.iter().map(|&node| Info::of(&cluster.nodes[node]).number(name)).sum()
}

fn assert_equal(cluster: &Cluster) {
    let digests = cluster.digests();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[test]
fn a_node_that_was_away_too_long_returns_by_snapshot_while_the_others_serve() {
    let mut cluster = Cluster::start("snapshots", 3, &FLAGS);
    let mut round = 0;
    write_round(&mut cluster.nodes[0].client(), round);
    assert_equal(&cluster);
    leave_behind(&mut cluster, &mut round);

    // Back, while somebody writes.
    let (served, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let address = cluster.nodes[0].client;
    std::thread::scope(|scope| {
        let (served, is_over) = (&served, &is_over);
        scope.spawn(move || {
            let mut client = Client::connect(address);
            for number in 0u64.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let reply = client.try_call(&["SET", "busy", &number.to_string()]);
                served.fetch_add(
                    u64::from(reply.is_ok_and(|it| it == Reply::ok())),
                    Ordering::Relaxed,
                );
            }
        });
        cluster.nodes[2].start();
        wait_until("the third node has its snapshots", || {
            Client::try_connect(cluster.nodes[2].client, std::time::Duration::from_secs(10))
                .is_ok_and(|mut client| client.say("PING") == Reply::Simple("PONG".into()))
                && Info::of(&cluster.nodes[2]).number("snapshots_received") >= GROUPS
        });
        let goal = served.load(Ordering::Relaxed) + 10;
        wait_until("the others serve", || goal <= served.load(Ordering::Relaxed));
        is_over.store(true, Ordering::Relaxed);
    });
    cluster.wait_ready();
    assert_equal(&cluster);
    assert!(GROUPS <= sum(&cluster, &[0, 1], "snapshots_sent"));
    assert!(0 < sum(&cluster, &[0, 1], "snapshot_bytes_sent"));
    println!("{} writes were served meanwhile", served.load(Ordering::Relaxed));

    // What came by snapshot is durable: it is there after a kill, without another one.
    cluster.nodes[2].kill();
    cluster.nodes[2].start();
    cluster.wait_ready();
    assert_equal(&cluster);
    assert_eq!(sum(&cluster, &[2], "snapshots_received"), 0);
}

#[test]
fn kill_9_in_the_middle_of_a_transfer() {
    let mut cluster = Cluster::start("snapshots-kill", 3, &FLAGS);
    let mut round = 0;
    write_round(&mut cluster.nodes[0].client(), round);
    assert_equal(&cluster);
    leave_behind(&mut cluster, &mut round);

    // The receiver.
    for _ in 0..2 {
        let before = sum(&cluster, &[0, 1], "snapshot_bytes_sent");
        cluster.nodes[2].start();
        wait_until("pieces are on their way", || {
            before + (1 << 20) < sum(&cluster, &[0, 1], "snapshot_bytes_sent")
        });
        cluster.nodes[2].kill();
    }
    // A sender, while the third node is being sent to.
    let before: Vec<u64> =
        [0, 1].map(|node| sum(&cluster, &[node], "snapshot_bytes_sent")).to_vec();
    cluster.nodes[2].start();
    let sender = wait_for("pieces are on their way", || {
        [0, 1]
            .into_iter()
            .find(|&node| before[node] + (1 << 20) < sum(&cluster, &[node], "snapshot_bytes_sent"))
    });
    cluster.nodes[sender].kill();
    cluster.nodes[sender].start();
    cluster.wait_ready();
    assert_equal(&cluster);
    let value = cluster.nodes[2].client().call(&["GET", "key1"]);
    assert_eq!(value, Reply::bulk(value_of(round)));
}
